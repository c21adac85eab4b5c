/* A bed for planners: members, a store in memory that applies batches by compare-and-set, callees, a network that takes
 * time, all on virtual time and from one seed. It keeps an oracle of what was sent and asserts the product's promises. */
#ifndef CARILLON_TESTS_LIB_PLANNER_BED_H
#define CARILLON_TESTS_LIB_PLANNER_BED_H

#include "agent/base/rng.h"
#include "agent/core/planner.h"

#define BED_NOW   INT64_C(1795424400000) /* 2026-11-23T09:00:00Z */
#define BED_NODES 16                     /* members over a run, the dead ones included */

struct bed;

struct bed_options {
    uint64_t seed;
    unsigned slots;
    double fail;    /* share of attempts that fail */
    double give_up; /* ... for good */
    double no_endpoint;
    int64_t duration_max_ms; /* of an attempt */
    int64_t read_max_ms;     /* of a read: it happens somewhere in it */
    int64_t commit_max_ms;
    double unknown;     /* share of commits whose reply is lost, done or not */
    double unavailable; /* share of commits that the store refuses */
    bool planned_only;  /* nobody dies: then nothing may be sent twice */
    size_t rows_max;
    size_t load_page;
    int64_t horizon_ms;
    size_t memory_max_bytes;
    size_t retry_window;
    size_t catch_up_per_s;
};

struct bed_options bed_defaults(uint64_t seed);

/* One write of the API, sent and repeated until it has an answer that is final. */
struct bed_call {
    struct planner_api api;
    bool answered;
    bool in_planner;
    int node;                /* who has it */
    struct job_spec *merged; /* what merge answers */
    struct bed_call *next;
};

struct bed_sent { /* one attempt that went out */
    struct uid uid;
    uint64_t seq;
    uint32_t attempt;
    int64_t due_ms;
    int64_t at_ms;
    uint64_t epoch;
    bool booked;
    int node;
};

struct bed *bed_new(const struct bed_options *o);
void bed_free(struct bed *b);
struct bed_options *bed_set(struct bed *b); /* change rates while it runs */
struct rng *bed_rng(struct bed *b);
int64_t bed_now(const struct bed *b);

int bed_node_start(struct bed *b); /* holds nothing yet; returns its number */
void bed_node_kill(struct bed *b, int node, int64_t declared_after_ms);
bool bed_node_alive(const struct bed *b, int node);
int bed_nodes_alive(const struct bed *b, int nodes[BED_NODES]);
struct planner *bed_planner(struct bed *b, int node);
void bed_give(struct bed *b, unsigned slot, int node); /* a slot nobody alive holds */
void bed_move(struct bed *b, const uint16_t *slots, size_t count, int from, int to);
int bed_owner(const struct bed *b, unsigned slot); /* as the store has it; -1 nobody */
void bed_lease(struct bed *b, int node, bool may_start);

/* Let time pass; every event of the planners is handled and validated on the way. */
void bed_run(struct bed *b, int64_t ms);

/* TEXT: the job's JSON without id. The spec is a new reference; asserts that it parses. */
struct job_spec *bed_spec(const struct bed *b, const char *id, const char *text);
struct bed_call *bed_call(struct bed *b, enum planner_api_op op, const char *id, const char *text);
/* The same, then run until it is answered. */
enum planner_answer bed_do(struct bed *b, enum planner_api_op op, const char *id, const char *text);

/* The store's row, NULL: none. Fires of it, by seq. */
const struct job_row *bed_job(const struct bed *b, const char *id);
const struct fire_row *bed_fire(const struct bed *b, const struct uid *uid, uint64_t seq);
struct job_row *bed_store_put(struct bed *b, struct job_spec *spec,
                              int64_t due_ms); /* a row as if it had been there; takes SPEC */
size_t bed_fires_count(const struct bed *b);

const struct bed_sent *bed_sent(const struct bed *b, size_t *ret_count);
size_t bed_sent_of(const struct bed *b, const struct uid *uid, uint64_t seq);
size_t bed_row_writes(const struct bed *b); /* job rows written */
size_t bed_fire_writes(const struct bed *b);
size_t bed_conflicts(const struct bed *b);
const char *bed_last_log(const struct bed *b);

/* Assert of every job in the store: counts add up, no seq without its one outcome, dues in order. DRAINED: and nothing
 * is pending. */
void bed_check(const struct bed *b, bool drained);

#endif
