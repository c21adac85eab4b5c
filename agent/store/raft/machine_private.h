/* What the parts of the state machine share: the objects that hold rows, the indexes over them, the snapshot being written. */
#ifndef CARILLON_STORE_RAFT_MACHINE_PRIVATE_H
#define CARILLON_STORE_RAFT_MACHINE_PRIVATE_H

#include "agent/base/buf.h"
#include "agent/store/raft/codec.h"
#include "agent/store/raft/machine.h"
#include "agent/store/raft/slab.h"
#include "agent/store/raft/sorted.h"

#define MACHINE_REVISIONS_KEPT_MS ((int64_t)90 * 86400 * 1000)
#define MACHINE_MEMBERS_KEPT_MS   ((int64_t)86400 * 1000)
#define MACHINE_MEMBER_SHOWN_MS   ((int64_t)3600 * 1000)

/* STAMP: number of the last snapshot that has the row, or began before it was made. */
struct machine_job {
    uint32_t stamp;
    uint16_t slot;
    uint16_t row_bytes;
    struct uid uid;
    int64_t wake_ms;
    struct machine_blob *spec;
    struct machine_label *labels; /* as many as the spec has */
    uint8_t *row;                 /* codec_job() without its key */
    uint16_t labels_count;
    uint8_t id_at; /* place of the id in NAME */
    char name[];   /* namespace, NUL, id, NUL */
};

struct machine_label {
    struct machine_job *job;
    const char *name; /* both in the job's spec */
    const char *value;
};

struct machine_fire {
    uint32_t stamp;
    uint16_t slot;
    bool ended;
    uint8_t outcome;
    struct uid uid;
    uint64_t seq;
    int64_t wake_ms;
    int64_t due_ms;
    struct machine_blob *row; /* codec_fire() without its key */
    struct machine_ns *ns;
    uint8_t id_at;
    char name[]; /* namespace, NUL, id, NUL */
};

/* What was to be delivered by a version of a job's definition: kept for its dead letters. */
struct machine_copy {
    uint32_t stamp;
    struct uid uid;
    uint64_t version;
    int64_t until_ms;
    struct machine_blob *spec;
};

/* A namespace that has fires. */
struct machine_ns {
    char ns[RECORD_NS_MAX];
    uint64_t fires;
    uint64_t dead;
};

struct machine_revision {
    uint32_t stamp;
    uint16_t body_bytes;
    uint8_t id_at;
    uint64_t change_id;
    int64_t at_ms;
    struct machine_blob *was;
    char name[]; /* namespace, NUL, id, NUL, then codec_revision() without its key */
};

struct machine_member {
    struct store_member row;
    int64_t died_ms;
};

/* What any index is asked by; each looks at its part. */
struct machine_key {
    struct uid uid;
    const char *ns;
    const char *id;
    const char *name;
    const char *value;
    uint64_t seq; /* or change_id, version */
    int64_t ms;
    uint16_t slot;
    uint8_t outcome;
};

struct machine_snapshot; /* machine_snapshot.c */
struct command_fire;     /* entry.h */

struct machine {
    struct store_meta meta;
    uint64_t seq;
    uint64_t proposer;
    struct machine_member *members; /* by id */
    size_t members_count;
    struct store_slot *slots;
    size_t slots_count;

    struct slab *slab; /* rows and their names */
    struct sorted jobs_by_uid;
    struct sorted jobs_by_name;
    struct sorted jobs_by_wake; /* those that wake */
    struct sorted labels;       /* by name, value, ns, id */
    struct sorted fires_by_seq;
    struct sorted fires_by_wake;    /* not ended, those that wake */
    struct sorted fires_by_end;     /* ended, those to be forgotten */
    struct sorted fires_by_due;     /* ns, due, uid, seq */
    struct sorted fires_by_outcome; /* ns, outcome, due, uid, seq */
    struct sorted fires_by_job;     /* ns, id, due, uid, seq */
    struct sorted namespaces;
    struct sorted copies_by_version;   /* uid, version */
    struct sorted copies_by_until;     /* until, uid, version */
    struct sorted revisions_by_change; /* ns, id, change_id */
    struct sorted revisions_by_name;   /* ns, id, at, change_id */
    struct sorted revisions_by_time;   /* at, ns, id, change_id */

    uint32_t stamp;                    /* number of the last snapshot that was begun */
    struct machine_snapshot *snapshot; /* NULL: none is being written */
    struct command_fire *scratch;      /* fires of the change under way */
    size_t scratch_cap;
    struct buf pack; /* a row on its way into memory */
};

/* --- indexes (machine_order.c) ------------------------------------------------------------------------------------- */

/* What an index has of an item as bytes: memcmp() of all of them has the order of the index. Of the bytes, WINDOW gets those from
 * SKIP on, zeros behind the last; AT is how many there are. */
struct machine_order {
    size_t skip, at;
    uint8_t window[8];
};

enum machine_kind {
    MACHINE_JOBS,
    MACHINE_LABELS,
    MACHINE_FIRES,
    MACHINE_COPIES,
    MACHINE_REVISIONS,
    MACHINE_KIND_COUNT_
};

struct machine_index {
    size_t offset; /* of its set in struct machine */
    enum machine_kind kind;
    int (*compare)(const void *key, const void *item);
    void (*put)(const void *item, struct machine_order *o);
    bool (*has)(const void *item); /* NULL: all of its kind */
};

#define MACHINE_INDEXES 15 /* all but the namespaces */
const struct machine_index *machine_index(size_t i);

static inline struct sorted *machine_index_set(struct machine *m, const struct machine_index *index)
{
    return (struct sorted *)(void *)((char *)m + index->offset);
}
void machine_indexes_init(struct machine *m);
/* Empties them; the items stay. */
void machine_indexes_fini(struct machine *m);

/* --- rows (machine_rows.c) ----------------------------------------------------------------------------------------- */

void machine_rows_fini(struct machine *m);

struct machine_blob *machine_blob_of(struct machine *m, const void *data, size_t bytes);

/* In no index yet, which the caller sees to. Blobs are taken over. */
struct machine_job *machine_job_make(struct machine *m, const struct job_row *row, struct machine_blob *spec);
struct machine_fire *machine_fire_make(struct machine *m, const struct fire_row *row);
struct machine_copy *machine_copy_make(struct machine *m, const struct uid *uid, uint64_t version,
                                       struct machine_blob *spec, int64_t until_ms);
struct machine_revision *machine_revision_make(struct machine *m, const char *ns, const char *id,
                                               const struct revision *row, struct machine_blob *was);
/* Of what is in no index. */
void machine_row_free(struct machine *m, enum machine_kind kind, void *row);

static inline const char *machine_job_id(const struct machine_job *job)
{
    return job->name + job->id_at;
}
static inline const char *machine_fire_id(const struct machine_fire *fire)
{
    return fire->name + fire->id_at;
}
static inline const char *machine_revision_id(const struct machine_revision *r)
{
    return r->name + r->id_at;
}

struct machine_job *machine_job_by_uid(const struct machine *m, const struct uid *uid);
struct machine_job *machine_job_by_name(const struct machine *m, const char *ns, const char *id);
void machine_job_row(const struct machine_job *job, struct job_row *ret);
/* SPEC (packed, known to be right) is taken over. Neither the uid nor the name is taken yet. */
struct machine_job *machine_job_insert(struct machine *m, const struct job_row *row,
                                       struct machine_blob *spec);
/* ROW's key is the job's. SPEC NULL: stays; else taken over. */
void machine_job_update(struct machine *m, struct machine_job *job, const struct job_row *row,
                        struct machine_blob *spec);
void machine_job_delete(struct machine *m, struct machine_job *job);

struct machine_fire *machine_fire_find(const struct machine *m, const struct uid *uid, uint64_t seq);
/* Its blobs are borrowed from FIRE. */
void machine_fire_row(const struct machine_fire *fire, struct fire_row *ret);
void machine_fire_insert(struct machine *m, const struct fire_row *row);
/* ROW's key is the fire's; it may borrow from FIRE. */
void machine_fire_update(struct machine *m, struct machine_fire *fire, const struct fire_row *row);
void machine_fire_delete(struct machine *m, struct machine_fire *fire);

struct machine_copy *machine_copy_find(const struct machine *m, const struct uid *uid, uint64_t version);
/* SPEC is taken over. */
void machine_copy_insert(struct machine *m, const struct uid *uid, uint64_t version,
                         struct machine_blob *spec, int64_t until_ms);
void machine_copy_extend(struct machine *m, struct machine_copy *copy, int64_t until_ms);
void machine_copy_delete(struct machine *m, struct machine_copy *copy);

struct machine_revision *machine_revision_find(const struct machine *m, const char *ns, const char *id,
                                               uint64_t change_id);
void machine_revision_row(const struct machine_revision *r, struct revision *ret);
/* WAS (may be NULL) is taken over. */
void machine_revision_insert(struct machine *m, const char *ns, const char *id, const struct revision *row,
                             struct machine_blob *was);
void machine_revision_delete(struct machine *m, struct machine_revision *r);

/* --- loads of rows (machine_load.c) -------------------------------------------------------------------------------- */

/* Rows that come together, before they are in any index: putting each index in order once takes a fraction of the time of looking
 * for the place of each row. */
struct machine_load {
    struct machine_rows {
        void **items;
        size_t count, cap;
    } rows[MACHINE_KIND_COUNT_];
    bool ended;
};

void machine_load_add(struct machine_load *l, enum machine_kind kind, void *row);
/* Into the indexes of M, which are empty. ERR_PROTOCOL: two rows have one key; M can only be freed. */
int machine_load_end(struct machine_load *l, struct machine *m, struct err *e);
/* Frees the rows too when they are not M's. */
void machine_load_fini(struct machine_load *l, struct machine *m);

/* --- commands ------------------------------------------------------------------------------------------------------ */

/* machine.c */
int machine_fence(const struct machine *m, const char *member);
bool machine_slot_apply(struct machine *m, const struct slot_change *c);
bool machine_owns_slots(const struct machine *m, const char *member);
void machine_member_insert(struct machine *m, const struct store_member *row, int64_t died_ms);
void machine_slots_make(struct machine *m, const char *owner);
/* machine_commit.c: read and do; RESULT gets what became of it, in memory to be freed by the caller. */
struct machine_outcome {
    enum err_code code;
    uint8_t *changes;
    size_t changes_count;
    bool *slots;
    size_t slots_count;
};
void machine_commit(struct machine *m, struct codec_in *in, struct machine_outcome *ret);
void machine_slots_command(struct machine *m, struct codec_in *in, struct machine_outcome *ret);
/* machine_vacuum.c */
void machine_vacuum(struct machine *m, struct codec_in *in);

/* --- snapshots (machine_snapshot.c): to be called before the row changes or goes ------------------------------------ */
void machine_snapshot_job(struct machine *m, struct machine_job *job);
void machine_snapshot_fire(struct machine *m, struct machine_fire *fire);
void machine_snapshot_revision(struct machine *m, struct machine_revision *r);
void machine_snapshot_copy(struct machine *m, struct machine_copy *copy);
/* An entry was applied. */
void machine_snapshot_entry(struct machine *m, const void *data, size_t bytes);

#endif
