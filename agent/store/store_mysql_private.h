/* What the parts of the MySQL driver share: the driver's own struct, and operations. An operation is one call of the store
 * interface on its way: made on the loop, run on a worker thread with that thread's connection (again after failures that
 * allow it), finished on the loop. Files: store_mysql.c (open, close, operations), _conn (connection, scripts, error
 * classes), _schema, _member (beats, slots), _commit, _insert and _resolve (transactions of results), _load, _list, _revision and
 * _search (reads), _vacuum (forgetting). */
#ifndef CARILLON_STORE_STORE_MYSQL_PRIVATE_H
#define CARILLON_STORE_STORE_MYSQL_PRIVATE_H

#include <stdatomic.h>

#include "agent/base/list.h"
#include "agent/io/worker.h"
#include "agent/store/store.h"
#include "agent/store/store_mysql_conn.h"

enum my_pool {
    MY_POOL_BEAT,
    MY_POOL_COMMIT,
    MY_POOL_COMMIT_BESIDE, /* for a second one meanwhile: connected only when there is one */
    MY_POOL_READ,
    MY_POOL_COUNT_
};

struct store_mysql {
    struct store_mysql_options options; /* own copies */
    struct store_meta meta;
    struct worker_pool *pools[MY_POOL_COUNT_];
    struct tzload *zones; /* borrowed */
    int64_t (*now_ms)(void *arg);
    void *arg;
    struct store_stats stats;            /* loop thread */
    unsigned committing[MY_POOL_COUNT_]; /* loop thread */
    bool galera;                         /* found when it was opened */
    bool vacuuming;                      /* loop thread; what follows is the vacuum's */
    struct uid swept;                    /* jobs up to this uid have been held to the bound in this round */
    atomic_bool closing;                 /* ends waits between tries */
};

struct my_op {
    struct work work;
    struct store_mysql *store;
    enum my_pool pool;
    /* Worker thread. 0, or an error of store_mysql_conn.h; ERR_RETRY, ERR_UNAVAILABLE and ERR_UNKNOWN_OUTCOME are tried
     * again until the time is over. Must begin from the start each time. */
    int (*run)(struct my_op *op, struct my_conn *c, struct err *e);
    /* Loop thread: call the caller's completion with op->err, free everything. */
    void (*finish)(struct my_op *op);
    struct err err;
    bool maybe_done; /* a try ended with an unknown outcome */
    uint64_t spent_us;
};

/* Takes OP over. */
void my_op_submit(struct store_mysql *s, struct my_op *op, enum my_pool pool,
                  int (*run)(struct my_op *, struct my_conn *, struct err *), void (*finish)(struct my_op *));

/* Room for one more element in a growing array; false without memory (E filled). */
bool my_grow(void **items, size_t count, size_t *cap, size_t size_bytes, struct err *e);

/* Operations by file; the contracts are those of struct store_ops. */
void my_join(void *self, const struct store_member *me, store_done *done, void *arg);
void my_beat(void *self, const char *member, store_beat_done *done, void *arg);
void my_declare_dead(void *self, const char *victim, uint64_t seen_beat, store_bool_done *done, void *arg);
void my_slots_change(void *self, const char *member, struct slot_change *slots, size_t count,
                     store_done *done, void *arg);
void my_slots_read(void *self, store_slots_done *done, void *arg);
void my_commit(void *self, struct store_batch *batch, store_done *done, void *arg);
void my_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg);
void my_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg);
void my_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg);
void my_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                  store_fires_done *done, void *arg);
void my_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg);
void my_find_change(void *self, const char *ns, const char *id, uint64_t change_id, store_revision_done *done,
                    void *arg);
void my_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done,
                       void *arg);
void my_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done, void *arg);
void my_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg);
void my_count_dead(void *self, store_dead_done *done, void *arg);
void my_count_jobs(void *self, const char *ns, uint64_t limit, store_dead_done *done, void *arg);
void my_vacuum(void *self, const struct store_vacuum *vacuum, store_bool_done *done, void *arg);

/* Parts of a transaction. What others wait for comes last in it: the member's own row, which the fence keeps locked, is the one that
 * its beat adds to.
 * First: ERR_FENCED (at once or when the script runs) for a member that was declared dead, before its rows are found changed by
 * others. Locks nothing, so it proves nothing about the commit. */
int my_script_alive(struct my_script *s, const char *member, struct err *e);
/* Last: a commit right after it is of a member that nobody can declare dead before (ERR_FENCED, as above). */
int my_script_fence(struct my_script *s, const char *member, struct err *e);
/* Before the fence: the slots as far as they are as expected. Runs the script and sets `changed` of each. */
int my_script_slots(struct my_script *s, struct slot_change *slots, size_t count, struct err *e);

#endif
