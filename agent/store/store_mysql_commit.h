/* One transaction of results under way: what store_mysql_commit.c sends and store_mysql_resolve.c sorts out when not every
 * row was as expected. */
#ifndef CARILLON_STORE_STORE_MYSQL_COMMIT_H
#define CARILLON_STORE_STORE_MYSQL_COMMIT_H

#include "agent/store/store_mysql_private.h"

struct commit_item {
    struct job_change *change;
    bool decided; /* change->result is final */
};

struct commit_fire {
    struct commit_item *item;
    struct fire_change *change;
    bool done; /* in place by an earlier try, alone */
};

struct commit_op {
    struct my_op op;
    struct store_batch *batch;
    store_done *done;
    void *arg;
    struct commit_item
        *items; /* deletes, then the others, by uid: rows are locked in key order by everyone */
    size_t items_count;
    struct commit_fire *fires; /* sorted by (uid, seq) */
    size_t fires_count;
    bool slots_done;
    bool some_done; /* a transaction of this call was committed */
};

/* Items lo … hi-1 and their fires. */
struct commit_group {
    struct commit_op *op;
    size_t lo;
    size_t hi;
};

static inline bool commit_has(const struct commit_group *g, const struct commit_item *item)
{
    return item >= g->op->items + g->lo && item < g->op->items + g->hi && !item->decided;
}

/* For the items of G that are not decided, OPS being a set of 1 << enum change_op. */
static inline bool commit_is(const struct commit_item *item, unsigned ops)
{
    return !item->decided && (1u << item->change->op & ops);
}

static inline bool commit_has_revision(const struct job_change *change)
{
    return change->op != CHANGE_NONE && change->revision.op[0] != 0;
}

/* After a rollback: read what the rows of G are, decide the changes that were made by an earlier try or cannot be made.
 * *ret_progress: something was decided. Errors of statements. */
int my_commit_resolve(struct commit_group *g, struct my_conn *c, bool *ret_progress, struct err *e);

/* The labels of a copy, as the search for fires by label reads them. */
void my_add_copy_labels(struct buf *b, const struct job_spec *spec);

#endif
