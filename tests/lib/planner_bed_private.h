/* What the files of the planner's bed share. */
#ifndef CARILLON_TESTS_LIB_PLANNER_BED_PRIVATE_H
#define CARILLON_TESTS_LIB_PLANNER_BED_PRIVATE_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "tests/lib/planner_bed.h"

#define MUST(cond, ...)                                                                         \
    do {                                                                                        \
        if (!(cond)) {                                                                          \
            fprintf(stderr, "planner bed, seed %llu, %lld ms: ", (unsigned long long)b->o.seed, \
                    (long long)(b->now - BED_NOW));                                             \
            fprintf(stderr, __VA_ARGS__);                                                       \
            fprintf(stderr, " (%s:%d)\n", __FILE__, __LINE__);                                  \
            abort();                                                                            \
        }                                                                                       \
    } while (0)

struct srow {
    struct job_row row;
    struct job_spec *spec;    /* NULL: deleted */
    int64_t deleted_reply_ms; /* when the delete was answered; INT64_MAX: not */
};

struct copy_kept {
    struct uid uid;
    uint64_t version;
    struct job_spec *spec;
};

struct change_seen {
    struct revision revision;
    char id[RECORD_ID_MAX];
};

struct out { /* a delivery that is out */
    struct delivery *d;
    bool started, revoked, aborted;
    size_t parts_open;         /* of a delivery with parts */
    enum attempt_result worst; /* of them so far */
    struct out *next;
};

struct node {
    struct planner *p;
    bool alive, dead_in_store;
    char member[RECORD_MEMBER_MAX];
    struct out *outs;
    struct planner_batch *batches[PLANNER_BATCHES_MAX]; /* out; NULL: free */
    struct planner_actions actions;
    bool stepping;
    uint64_t *seen; /* of each slot: newest epoch that it knows of */
};

struct pbed_part { /* acknowledged by its endpoint */
    struct uid uid;
    uint64_t seq;
    size_t part;
};

struct bev {
    int64_t at;
    uint64_t order;
    void (*fn)(struct pbed *b, struct bev *ev);
    int node;
    void *ptr;
    uint64_t id;
    int code;
    /* reads */
    enum planner_action_kind kind;
    uint16_t *slots;
    uint64_t *epochs;
    size_t slots_count;
    int64_t from_ms, until_ms;
    bool has_cursor, more;
    uint16_t cursor_slot;
    int64_t cursor_wake_ms;
    struct uid uid;
    uint64_t seq, change_id, version;
    size_t limit, count;
    const char *tzdata_before;
    char key[RECORD_ID_MAX];
    struct planner_job *jobs;
    struct fire_row *fires;
};

struct pbed {
    struct pbed_options o;
    struct rng rng;
    int64_t now;
    struct node nodes[BED_NODES];
    int nodes_count;
    struct bev **heap;
    size_t heap_count, heap_capacity;
    uint64_t order;
    struct srow *jobs;
    size_t jobs_count, jobs_capacity;
    struct fire_row *fires;
    size_t fires_count, fires_capacity;
    struct copy_kept *copies;
    size_t copies_count, copies_capacity;
    struct change_seen *changes;
    size_t changes_count, changes_capacity;
    int owner[4096];
    uint64_t epoch[4096];
    struct pbed_sent *sent;
    size_t sent_count, sent_capacity;
    struct pbed_part *parts_done;
    size_t parts_done_count, parts_done_capacity;
    struct pbed_call *calls;
    size_t row_writes, fire_writes, conflicts, replanned, awaited, beside;
    char log[400];
    char refused[RECORD_ID_MAX];
};

#define GROW(b, items, count, capacity)                                \
    do {                                                               \
        if ((count) == (capacity)) {                                   \
            (capacity) = (capacity) ? (capacity)*2 : 64;               \
            (items) = realloc((items), (capacity) * sizeof(*(items))); \
            assert(items);                                             \
        }                                                              \
    } while (0)

/* planner_bed.c */
void pbed_post(struct pbed *b, struct bev *ev, int64_t at);
struct bev *pbed_bev_new(void (*fn)(struct pbed *, struct bev *), int node);
int64_t pbed_some(struct pbed *b, int64_t max_ms); /* 0..MAX_MS */
bool pbed_chance(struct pbed *b, double share);
void pbed_step(struct pbed *b, int node, struct planner_event *event);
void pbed_on_declared(struct pbed *b, struct bev *ev);
void pbed_finish(struct pbed *b, int node, struct out *o, const struct attempt *attempt);

void pbed_make_uid(struct pbed *b, unsigned slot, struct uid *uid);

/* planner_bed_calls.c */
void pbed_replied(struct pbed *b, struct planner_api *api);
void pbed_calls_lost(struct pbed *b, int node); /* NODE died with what it was asked */
void pbed_calls_free(struct pbed *b);

/* planner_bed_parts.c: whether O is one of those; then it is under way */
bool pbed_parts_start(struct pbed *b, int node, struct out *o);

/* planner_bed_async.c */
void pbed_async_started(struct pbed *b, const struct delivery *d, int64_t ends_ms);
void pbed_async_accept(struct pbed *b, const struct delivery *d, struct attempt *a);
void pbed_async_check_start(struct pbed *b, const struct delivery *d);

/* planner_bed_store.c */
struct srow *pbed_add(struct pbed *b, const struct job_row *row, struct job_spec *spec); /* takes SPEC */
struct srow *pbed_by_id(const struct pbed *b, const char *id);
int pbed_node_named(const struct pbed *b, const char *member);
void pbed_on_commit(struct pbed *b, struct bev *ev); /* PTR: the batch of the event's node */
void pbed_ask(struct pbed *b, int node, const struct planner_action *a);

#endif
