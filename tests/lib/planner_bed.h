/* A bed for planners: members, a store in memory that applies batches by compare-and-set, callees, a network that takes
 * time, all on virtual time and from one seed. It keeps an oracle of what was sent and asserts the product's promises. */
#ifndef CARILLON_TESTS_LIB_PLANNER_BED_H
#define CARILLON_TESTS_LIB_PLANNER_BED_H

#include "agent/base/rng.h"
#include "agent/core/planner.h"
#include "agent/core/tz.h"

#define BED_NOW             INT64_C(1795424400000) /* 2026-11-23T09:00:00Z */
#define BED_NODES           16                     /* members over a run, the dead ones included */
#define BED_HISTORY_KEEP_MS INT64_C(86400000)
#define BED_DEAD_KEEP_MS    (3 * BED_HISTORY_KEEP_MS)

struct pbed;

struct pbed_options {
    uint64_t seed;
    unsigned slots;
    double fail;    /* share of attempts that fail */
    double reset;   /* ... without a reply, when the request was out */
    double give_up; /* ... for good */
    double no_endpoint;
    int64_t duration_max_ms; /* of an attempt */
    int64_t read_max_ms;     /* of a read: it happens somewhere in it */
    int64_t commit_max_ms;
    double unknown;     /* share of commits whose reply is lost, done or not */
    double unavailable; /* share of commits that the store refuses */
    bool planned_only;  /* nobody dies: then nothing may be sent twice */
    size_t rows_max;
    unsigned batches_max; /* out at a time, written in any order */
    size_t load_page;
    int64_t horizon_ms;
    size_t memory_max_bytes;
    size_t retry_window;
    size_t out_max; /* 0: no limit */
    size_t catch_up_per_s;
    /* Share of attempts at asynchronous callees whose completion is there before the 202 */
    double async_early;
    double async_fail;            /* ... of completions that tell of a failure */
    double async_silent;          /* ... of callees that never tell */
    int64_t async_max_ms;         /* of their work */
    enum attempt_control control; /* what successful replies ask for */
    const char *tzdata;           /* release of the members' zone data; NULL: unknown */
    const struct tz *zone;        /* known beside UTC; NULL: none */
    double fault;                 /* share of the planners' steps in which an allocation fails */
};

struct pbed_options pbed_defaults(uint64_t seed);

/* One write of the API, sent and repeated until it has an answer that is final. */
struct pbed_call {
    struct planner_api api;
    bool answered;
    bool lost; /* who had it died: a copy goes on */
    int64_t answered_ms;
    bool in_planner;
    int node;                /* who has it */
    struct job_spec *merged; /* what merge answers */
    struct pbed_call *next;
};

struct pbed_sent { /* one attempt that went out */
    struct uid uid;
    uint64_t seq;
    uint32_t attempt;
    int64_t due_ms;
    int64_t at_ms;
    uint64_t epoch;
    bool booked;
    int node;
};

struct pbed *pbed_new(const struct pbed_options *o);
void pbed_free(struct pbed *b);
struct pbed_options *pbed_set(struct pbed *b); /* change rates while it runs */
struct rng *pbed_rng(struct pbed *b);
int64_t pbed_now(const struct pbed *b);

/* A bed with so many members, the first of which holds all slots and had a moment to begin. O: NULL: pbed_defaults(7). */
struct pbed *pbed_start(const struct pbed_options *o, unsigned members);
/* One member, and a job "a" that JOB defines. */
struct pbed *pbed_start_job(const char *job);

int pbed_node_start(struct pbed *b); /* holds nothing yet; returns its number */
void pbed_node_kill(struct pbed *b, int node, int64_t declared_after_ms);
bool pbed_node_alive(const struct pbed *b, int node);
int pbed_nodes_alive(const struct pbed *b, int nodes[BED_NODES]);
struct planner *pbed_planner(struct pbed *b, int node);
void pbed_give(struct pbed *b, unsigned slot, int node); /* a slot nobody alive holds */
void pbed_give_all(struct pbed *b, int node);            /* every slot */
void pbed_move(struct pbed *b, const uint16_t *slots, size_t count, int from, int to);
int pbed_owner(const struct pbed *b, unsigned slot); /* as the store has it; -1 nobody */
void pbed_lease(struct pbed *b, int node, bool may_start);
void pbed_release(struct pbed *b, const char *service); /* it has endpoints again: all members are told */

/* Let time pass; every event of the planners is handled and validated on the way. */
void pbed_run(struct pbed *b, int64_t ms);

/* TEXT: the job's JSON without id. The spec is a new reference; asserts that it parses. */
struct job_spec *pbed_spec(const struct pbed *b, const char *id, const char *text);
struct pbed_call *pbed_call(struct pbed *b, enum planner_api_op op, const char *id, const char *text);
/* Of a fire; ATTEMPT and OK count for its callee's calls only. */
struct pbed_call *pbed_fire_call(struct pbed *b, enum planner_api_op op, const struct uid *uid, uint64_t seq,
                                 uint32_t attempt, bool ok);
enum planner_answer pbed_fire_do(struct pbed *b, enum planner_api_op op, const struct uid *uid, uint64_t seq,
                                 uint32_t attempt, bool ok);
/* The same, then run until it is answered. */
enum planner_answer pbed_do(struct pbed *b, enum planner_api_op op, const char *id, const char *text);

/* The store's row, NULL: none. Fires of it, by seq. */
const struct job_row *pbed_job(const struct pbed *b, const char *id);
const struct fire_row *pbed_fire(const struct pbed *b, const struct uid *uid, uint64_t seq);
struct job_row *pbed_store_put(struct pbed *b, struct job_spec *spec,
                               int64_t due_ms); /* a row as if it had been there; takes SPEC */
size_t pbed_fires_count(const struct pbed *b);
void pbed_forget_copies(struct pbed *b); /* the time that the store keeps them is over */

const struct pbed_sent *pbed_sent(const struct pbed *b, size_t *ret_count);
size_t pbed_sent_of(const struct pbed *b, const struct uid *uid, uint64_t seq);
size_t pbed_row_writes(const struct pbed *b); /* job rows written */
size_t pbed_fire_writes(const struct pbed *b);
size_t pbed_beside(const struct pbed *b);  /* batches that went while another was out */
size_t pbed_awaited(const struct pbed *b); /* batches with an answer that somebody waited for */
size_t pbed_conflicts(const struct pbed *b);
size_t pbed_replanned(const struct pbed *b);      /* by newer zone data */
void pbed_refuse(struct pbed *b, const char *id); /* the store will not take its row; "": all again */
const char *pbed_last_log(const struct pbed *b);

/* Assert of every job in the store: counts add up, no seq without its one outcome, dues in order. DRAINED: and nothing
 * is pending. */
void pbed_check(const struct pbed *b, bool drained);

#endif
