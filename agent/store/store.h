/* The store: where jobs, fires, members and slots are kept. One interface, several drivers, one contract suite
 * (tests/unit/store/store_contract.h).
 *
 * Every call is made on the loop thread and returns at once; its completion callback runs on the loop thread, exactly once,
 * never before the call has returned, also when the store is being closed (-ERR_CANCELLED). Input structures are borrowed
 * until the callback; outputs belong to the store until the callback returns, unless said otherwise.
 *
 * Errors, by what they mean for the caller (drivers map theirs to these; texts are for people only):
 *   ERR_RETRY        nothing happened; the same call may work at once (deadlock, lock timeout): drivers retry these themselves first
 *   ERR_UNAVAILABLE  nothing happened; the store cannot now (away, read-only, starting)
 *   ERR_UNKNOWN_OUTCOME  may have happened; the same call again is safe: every write here is idempotent
 *   ERR_FENCED       this member is dead in the store: nothing happened and nothing of it ever will again
 *   ERR_PERMANENT    will not work by waiting (denied, schema missing)
 */
#ifndef CARILLON_STORE_STORE_H
#define CARILLON_STORE_STORE_H

#include <string.h>

#include "agent/core/record.h"

struct err;
struct loop;
struct option_row;
struct tzload;
struct buf;

#define STORE_ADDRESS_MAX  128
#define STORE_NAME_MAX     64
#define STORE_SECRET_BYTES 32
#define STORE_COMMITS_MAX  2 /* of any driver's commits_max */

struct store_member {
    char id[RECORD_MEMBER_MAX]; /* "<name>.<random>", a new one at every start */
    char name[STORE_NAME_MAX];
    char address[STORE_ADDRESS_MAX]; /* host:port of its peer listener */
    char zone[STORE_NAME_MAX];
    uint32_t weight;
    uint64_t beat;
    bool dead;
};

struct store_slot {
    uint16_t slot;
    uint64_t epoch;
    char owner[RECORD_MEMBER_MAX];
};

/* One beat's answer. ALIVE false: 0 rows were changed, the member was declared dead. */
struct store_beat {
    bool alive;
    int64_t
        store_now_ms; /* the store's wall clock while it served the beat; RECORD_NONE: it cannot say yet */
    int64_t sent_boot_ms; /* CLOCK_BOOTTIME just before the statement was sent: the lease counts from here */
    int64_t done_boot_ms; /* ... and when its answer had arrived */
    /* All rows that are not dead, plus those that died within the last hour */
    const struct store_member *members;
    size_t members_count;
    const struct store_slot *slots; /* those that name this member */
    size_t slots_count;
};

/* What one transaction writes. Fence first, then slots, then jobs with their fires; see record.h for the guards.
 * jobs[i]->result and slots[i].changed tell what became of each when the whole succeeded. Slots: if any slot of a batch
 * could not be changed as asked, the job changes of the batch are still done. At most one change of a uid in a batch that is
 * not CHANGE_NONE, and one change of a fire. */
struct store_batch {
    const char *member; /* whose `flush` is raised as the fence */
    struct job_change **jobs;
    size_t jobs_count;
    struct slot_change *slots;
    size_t slots_count;
};

/* A job as read: the row, and its definition parsed and bound to its zone off the loop. */
struct store_job {
    struct job_row row;
    struct job_spec *spec; /* the store's until the callback returns: keep it by job_spec_ref() */
    char problem
        [120]; /* spec NULL: why this agent cannot read the definition (zone unknown here, newer); "": absent */
};

struct store_load {
    const uint16_t *slots; /* sorted */
    size_t slots_count;
    /* Rows with wake_ms < until_ms (and >= from_ms); those without a wake_ms are never loaded */
    int64_t until_ms;
    int64_t from_ms; /* RECORD_NONE: from the beginning */
    /* jobs: only those with an older `tzdata` than this release; NULL: all. Examines all rows of `slots` */
    const char *tzdata_before;
    struct {
        bool set;
        uint16_t slot;
        int64_t wake_ms;
        struct uid uid;
        uint64_t seq;
    } after; /* keyset cursor */
    size_t limit;
};

/* Whether ROW passes LOAD's `tzdata_before`: a release begins with its year. */
static inline bool store_tzdata_wanted(const struct store_load *load, const struct job_row *row)
{
    return !load->tzdata_before || (row->tzdata[0] >= '0' && strcmp(row->tzdata, load->tzdata_before) < 0);
}

struct store_key { /* by uid when `ns` is "", else by (ns, id) */
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    struct uid uid;
};

struct store_filter {
    const char *ns;                 /* NULL: all namespaces */
    const char *prefix;             /* NULL: none */
    const char *const *label_names; /* all must match */
    const char *const *label_values;
    size_t labels_count;
    int state;            /* enum job_state or -1 */
    int last_outcome;     /* enum fire_outcome or -1 */
    const char *after_ns; /* key-set cursor: NULL at the start */
    const char *after_id;
    size_t limit;
};

/* A page examines a bounded number of rows: it may be short, even empty, and still have a `next`. */
struct store_page {
    struct store_job *jobs;
    size_t jobs_count;
    bool more;
    char next_ns[RECORD_NS_MAX];
    char next_id[RECORD_ID_MAX];
};

/* A revision as read. The callback may take `was` and leave NULL (free with mem_free). */
struct store_revision {
    struct revision row;
    /* The canonical definition until then, with a NUL; NULL: this change kept none, or it was not asked
     * for */
    char *was;
    size_t was_bytes;
};

/* Revisions of one name, newest first: by (at_ms, change_id). */
struct store_revisions {
    const char *ns;
    const char *id;
    struct {
        bool set;
        int64_t at_ms;
        uint64_t change_id;
    } before;         /* keyset cursor */
    bool changes;     /* leave out runs, which change nothing */
    bool definitions; /* with `was` */
    size_t limit;
};

/* Which fires a list shows: all that is set must match. */
struct store_fire_filter {
    const char *ns;
    const char *job;     /* exact id, or NULL */
    const char *prefix;  /* of the id, or NULL */
    const char *service; /* fire_row.service, or NULL */
    const char *const
        *label_names; /* all must match: labels of the job as it is; once it is deleted, of the copy */
    const char *const *label_values;
    size_t labels_count;
    int outcome;               /* enum fire_outcome or -1 */
    int64_t from_ms, until_ms; /* from_ms <= due_ms < until_ms; RECORD_NONE: no such bound */
    bool oldest_first;
    struct store_fire_place { /* key-set cursor: a place in the order of the list */
        bool set;
        int64_t due_ms;
        struct uid uid;
        uint64_t seq;
    } after;
    size_t limit;
};

/* A page examines a bounded number of rows: it may be short, even empty, and still have a `next`. */
struct store_fire_page {
    struct fire_row *fires;
    size_t fires_count;
    struct store_fire_place next; /* set: there may be more behind it */
};

#define STORE_DEAD_NS_MAX    100    /* namespaces counted */
#define STORE_DEAD_COUNT_MAX 100000 /* counting a namespace ends here */

struct store_dead {
    char ns[RECORD_NS_MAX];
    uint64_t count;
};

struct store_vacuum {
    int64_t now_ms;
    /* Ended fires kept with a job, newest seq first, dead letters not counted; 0: no bound */
    uint32_t fires_max;
};

struct store_meta {
    uint32_t slots; /* fixed when the store was made */
    int64_t created_ms;
    uint32_t schema; /* version of what is kept (store_version.h) */
    char cluster[64];
    uint8_t secret
        [STORE_SECRET_BYTES]; /* random, made with the store: for keys that any of its agents can check */
};

struct store_open_args {
    struct loop *loop;
    const void *options;          /* the driver's own struct, filled from its option rows */
    const char *cluster;          /* refused if the store was made for another */
    uint32_t slots;               /* used when the store is made */
    const char *member;           /* for log lines */
    struct tzload *zones;         /* borrowed: the zones of the definitions that are read */
    int64_t (*now_ms)(void *arg); /* corrected wall clock */
    void *arg;
};

typedef void store_done(void *arg, const struct err *e); /* e->code 0: success */
typedef void store_beat_done(void *arg, const struct err *e, const struct store_beat *beat);
typedef void store_bool_done(void *arg, const struct err *e, bool yes);
typedef void store_slots_done(void *arg, const struct err *e, const struct store_slot *slots, size_t count);
typedef void store_jobs_done(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more);
typedef void store_fires_done(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more);
typedef void store_page_done(void *arg, const struct err *e, struct store_page *page);
typedef void store_fire_page_done(void *arg, const struct err *e, struct store_fire_page *page);
typedef void store_copy_done(void *arg, const struct err *e,
                             struct job_spec *copy); /* NULL: none that this agent can read */
typedef void store_dead_done(void *arg, const struct err *e, const struct store_dead *counts, size_t count);
typedef void store_revision_done(void *arg, const struct err *e,
                                 const struct revision *found); /* NULL: none */
typedef void store_revisions_done(void *arg, const struct err *e, struct store_revision *rows, size_t count,
                                  bool more);

struct store_stats { /* since open; read on the loop thread */
    uint64_t commits, commit_rows, commit_us, beats, beat_us, reads, read_us;
    uint64_t errors_retry, errors_unavailable, errors_unknown, errors_permanent;
    uint32_t queue;   /* calls waiting for a worker */
    bool ok;          /* the last call of any kind reached the store */
    int64_t since_ms; /* since when `ok` has its value (wall clock) */
    char detail[160]; /* the last error when !ok */
};

struct store_ops {
    const char *name;                 /* value of store.driver */
    const struct option_row *options; /* rows of its section */
    size_t options_size;

    /* Blocking, before the loop runs: connect, make or migrate the schema, read the meta data. */
    int (*open)(const struct store_open_args *args, void **ret_self, struct store_meta *ret_meta,
                struct err *e);
    /* Finishes or cancels what is under way (callbacks run on the loop in this call), then frees. */
    void (*close)(void *self);

    /* Insert the own row with beat 0 (a retried insert of the same id is success) and, if the store holds no slot row yet,
     * all slot rows naming this member with the first epoch. */
    void (*join)(void *self, const struct store_member *me, store_done *done, void *arg);
    /* Beat on its own connection: beat + 1 where dead = 0, then read members, own slots and the store's clock. */
    void (*beat)(void *self, const char *member, store_beat_done *done, void *arg);
    /* dead = 1 where beat = seen_beat and dead = 0. YES: it is dead now, by this call or an earlier one. Also used to mark
     * the own row at leave (seen_beat = UINT64_MAX: whatever its beat). Runs on the beat's connection. */
    void (*declare_dead)(void *self, const char *victim, uint64_t seen_beat, store_bool_done *done,
                         void *arg);
    /* Compare-and-set of slots, fenced by MEMBER; runs on the beat's connection, so never behind a long batch. */
    void (*slots_change)(void *self, const char *member, struct slot_change *slots, size_t count,
                         store_done *done, void *arg);
    /* All slots. */
    void (*slots_read)(void *self, store_slots_done *done, void *arg);

    /* One transaction; see struct store_batch. So many commits at a time per store, none with a job of another in it, and one that moves
     * slots alone; they may be done in any order. More is a caller's bug (assert). */
    unsigned commits_max;
    void (*commit)(void *self, struct store_batch *batch, store_done *done, void *arg);

    /* Rows of own slots in key order (slot, wake_ms, uid): jobs, and booked fires that are not ended history. */
    void (*load_jobs)(void *self, const struct store_load *load, store_jobs_done *done, void *arg);
    void (*load_fires)(void *self, const struct store_load *load, store_fires_done *done, void *arg);
    /* By key, in the order of KEYS; an absent job comes back with spec NULL. MORE: only the first so many keys were looked
     * up, because the definitions are large; ask again for the rest. The loads may also be short with MORE for that. */
    void (*get_jobs)(void *self, const struct store_key *keys, size_t count, store_jobs_done *done,
                     void *arg);
    /* Fires of one job, newest first, ended or not, seq < before_seq (0: newest). */
    void (*get_fires)(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                      store_fires_done *done, void *arg);
    void (*list_jobs)(void *self, const struct store_filter *filter, store_page_done *done, void *arg);
    /* Booked fires of all jobs, also deleted ones: newest due first (then uid, then seq, descending), or the other way round. */
    void (*list_fires)(void *self, const struct store_fire_filter *filter, store_fire_page_done *done,
                       void *arg);
    /* What was to be delivered by (UID, VERSION), as a dead letter left it; the store's until the callback returns. */
    void (*get_copy)(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg);
    /* Dead letters by namespace, in their order: bounded work, as the constants above say. */
    void (*count_dead)(void *self, store_dead_done *done, void *arg);
    /* Jobs of NS (NULL: of all), as one entry: bounded work, as counting ends at LIMIT. */
    void (*count_jobs)(void *self, const char *ns, uint64_t limit, store_dead_done *done, void *arg);
    /* The revision of (ns, id) with CHANGE_ID: asked when a repeated request's first outcome is not known. */
    void (*find_change)(void *self, const char *ns, const char *id, uint64_t change_id,
                        store_revision_done *done, void *arg);
    /* A page of them, also of a name whose job was deleted. MORE as with get_jobs: definitions are large. */
    void (*list_revisions)(void *self, const struct store_revisions *which, store_revisions_done *done,
                           void *arg);
    /* Remove ended fires whose keep time is over and those above the bound, copies that nobody needs any more, old
     * revisions, rows of long dead members: a bounded bite, off the hot path. The bound is looked at job by job, so many
     * bites go round the whole store. YES: there may be more that is over, call it again soon. */
    void (*vacuum)(void *self, const struct store_vacuum *vacuum, store_bool_done *done, void *arg);

    const struct store_stats *(*stats)(void *self);
};

extern const struct store_ops store_mysql;
extern const struct store_ops store_raft;
extern const struct store_ops store_mem; /* tests only */

#endif
