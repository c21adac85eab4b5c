/* What the two parts of the store in memory share: the world of rows, and calls on their way. */
#ifndef CARILLON_STORE_STORE_MEM_PRIVATE_H
#define CARILLON_STORE_STORE_MEM_PRIVATE_H

#include "agent/base/list.h"
#include "agent/base/map.h"
#include "agent/io/loop.h"
#include "agent/store/store_mem.h"

struct mem_member {
    struct mem_member *next;
    struct store_member row;
    int64_t died_ms;
};

struct mem_job {
    struct job_row row;
    struct job_spec *spec;
    char name[RECORD_NS_MAX + RECORD_ID_MAX]; /* "ns/id": neither holds a slash */
};

struct mem_fire {
    struct mem_fire_key {
        struct uid uid;
        uint64_t seq;
    } key;
    struct fire_row row;
    struct list state_link; /* in store_mem_world.unfinished until it has ended */
    struct list job_link;   /* in mem_history.fires */
};

/* All fires of a job, which may be gone. */
struct mem_history {
    struct uid uid;
    struct list fires;
};

struct mem_revision {
    struct mem_revision_key {
        uint64_t change_id;
        char name[RECORD_NS_MAX + RECORD_ID_MAX];
    } key;
    struct revision row;
    struct job_spec *was;
};

struct mem_copy {
    struct mem_copy_key {
        struct uid uid;
        uint64_t version;
    } key;
    struct job_spec *spec;
    int64_t until_ms;
};

struct store_mem_world {
    struct store_meta meta; /* schema 0: not made yet */
    struct mem_member *members;
    struct store_slot *slots;
    size_t slots_count;
    struct map jobs;  /* by uid */
    struct map names; /* the same by name */
    struct map fires;
    struct map histories;   /* by uid */
    struct list unfinished; /* of struct mem_fire */
    struct map revisions;
    struct map copies;
};

struct store_mem {
    struct store_mem_world *world;
    bool own_world;
    struct store_mem_options options;
    struct loop *loop;
    int64_t (*now_ms)(void *arg);
    void *arg;
    unsigned committing;
    struct list pending; /* of struct mem_op */
    struct store_stats stats;
};

/* One call: its arguments, and what its work found. */
struct mem_op {
    struct loop_msg msg;
    struct list link;
    struct store_mem *store; /* NULL: the store was closed, the caller has his answer */
    const char *name;
    bool writes;
    bool worked; /* and OUTCOME is on its way back */
    struct err outcome;
    int (*work)(struct mem_op *op, struct err *e);
    void (*answer)(struct mem_op *op, const struct err *e);
    void *arg;
    union {
        store_done *done;
        store_beat_done *beat_done;
        store_bool_done *bool_done;
        store_slots_done *slots_done;
        store_jobs_done *jobs_done;
        store_fires_done *fires_done;
        store_page_done *page_done;
        store_fire_page_done *fire_page_done;
        store_copy_done *copy_done;
        store_dead_done *dead_done;
        store_revision_done *revision_done;
        store_revisions_done *revisions_done;
    };
    char member[RECORD_MEMBER_MAX];
    const struct store_member *me;
    uint64_t number; /* seen beat, seq, change id */
    struct slot_change *slots;
    struct store_batch *batch;
    const struct store_load *load;
    const struct store_key *keys;
    const struct store_filter *filter;
    const struct store_fire_filter *fire_filter;
    struct store_vacuum vacuum;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    struct uid uid;
    size_t count; /* of slots, keys; limit */

    bool yes;
    bool more;
    struct store_beat beat;
    struct store_member *members;
    struct store_slot *slots_found;
    struct store_job *jobs;
    struct fire_row *fires;
    size_t found;
    struct store_page page;
    struct store_fire_page fire_page;
    struct job_spec *copy;
    struct store_dead *dead;
    const struct revision *revision;
    const struct store_revisions *which;
    struct store_revision *revisions;
};

struct mem_op *mem_op_new(void *self, const char *name, bool writes,
                          int (*work)(struct mem_op *, struct err *),
                          void (*answer)(struct mem_op *, const struct err *), void *arg);
void mem_op_send(struct mem_op *op);

/* -ERR_FENCED unless MEMBER is there and not dead. */
int mem_fence(struct store_mem_world *w, const char *member, struct err *e);
/* Do what can be done of CHANGES, set `changed`. */
void mem_slots_apply(struct store_mem_world *w, struct slot_change *changes, size_t count);

struct mem_job *mem_job_by_uid(struct store_mem_world *w, const struct uid *uid);
/* Out of all lists, and freed. */
void mem_fire_forget(struct store_mem_world *w, struct mem_fire *fire);
bool mem_has_label(const struct job_spec *spec, const char *name, const char *value);
/* In place and kept as C asks. */
void mem_copy_keep(struct store_mem_world *w, const struct fire_change *c);
void mem_revision_free(struct mem_revision *revision);
void mem_copies_fini(struct store_mem_world *w);
/* The first LIMIT of COUNT rows in ORDER, as copies, into OP. */
int mem_give_fires(struct mem_op *op, const struct fire_row **rows, size_t count, size_t limit,
                   int (*order)(const void *, const void *), struct err *e);

void mem_jobs_fini(struct store_mem_world *w);

void mem_commit(void *self, struct store_batch *batch, store_done *done, void *arg);
void mem_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg);
void mem_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg);
void mem_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg);
void mem_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                   store_fires_done *done, void *arg);
void mem_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg);
void mem_find_change(void *self, const char *ns, const char *id, uint64_t change_id,
                     store_revision_done *done, void *arg);
void mem_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done,
                        void *arg);
void mem_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done,
                    void *arg);
void mem_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg);
void mem_count_dead(void *self, store_dead_done *done, void *arg);
void mem_count_jobs(void *self, const char *ns, uint64_t limit, store_dead_done *done, void *arg);
void mem_vacuum(void *self, const struct store_vacuum *vacuum, store_bool_done *done, void *arg);

#endif
