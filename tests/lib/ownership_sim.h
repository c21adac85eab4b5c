/* A cluster of real ownership machines on virtual time around models of the store, Consul, the planner and the network,
 * with an oracle that looks after every event. One seed, one story: equal seeds give equal runs. For tests. */
#ifndef CARILLON_TESTS_OWNERSHIP_SIM_H
#define CARILLON_TESTS_OWNERSHIP_SIM_H

#include "agent/base/rng.h"
#include "agent/core/ownership/ownership.h"

#include <stdio.h>

#define SIM_NODES_MAX 8
#define SIM_PROCS_MAX 160 /* lives of all nodes together */
#define SIM_SLOTS_MAX 64
#define SIM_NOBODY    (-1)

/* One life of a node: a member id. */
struct sim_proc {
    int node;
    char id[RECORD_MEMBER_MAX];
    struct ownership *o; /* NULL: not running */
    int64_t boot_ms;     /* local clock = boot_ms + T + T * drift / 1000 */
    int drift_permille;
    bool paused;
    bool leaving, left;
    bool dead;         /* in the store */
    bool dead_refused; /* by a verdict by refusal */
    bool joined;       /* its row is there */
    int64_t joined_ms;
    uint64_t beat;
    int64_t dead_at_ms;
    int64_t trouble_ms; /* it had trouble of its own until then: pause, cut from the store, losing calls */
    bool cut;           /* from the store */
    bool refused_out;   /* whatever it connects to is refused */
    int64_t refused_until_ms;
    int64_t verdict_ms; /* of its last by refusal */
    int64_t exec_ms[3]; /* last execution on each of its connections */
    int64_t lease_until_ms;
    uint64_t holds[SIM_SLOTS_MAX]; /* epoch, 0: not held */
    bool moving[SIM_SLOTS_MAX];
    int64_t agreed_ms[SIM_SLOTS_MAX]; /* it agreed to take the slot then, 0: never */
    int links[OWNERSHIP_NEIGHBOURS];
    bool links_refused[OWNERSHIP_NEIGHBOURS];
    int64_t tick_ms; /* T of its next tick */
    int64_t consul_until_ms;
    int64_t spin_ms; /* events in this ms ... */
    int spin_count;  /* ... so many */
    bool ended;      /* this life is over: nothing reaches it any more */
};

struct sim_slot {
    int owner;
    uint64_t epoch;
    int64_t gap_ms; /* since when nobody can fire it; -1: somebody can */
};

struct sim_item;  /* scheduled */
struct sim_op;    /* a call of the store */
struct sim_query; /* a question of one peer to another */

struct sim {
    struct rng rng;
    int64_t now_ms;
    uint64_t order;
    int nodes;
    uint32_t slots_count;
    int current[SIM_NODES_MAX]; /* proc that runs at the node's address */
    struct sim_proc *procs;
    int procs_count;
    struct sim_slot slots[SIM_SLOTS_MAX];
    struct sim_item **heap;
    size_t heap_count, heap_capacity;
    struct ownership_actions actions;
    struct sim_item **parked; /* for processes that are stopped */
    size_t parked_count, parked_capacity;
    struct sim_op *ops;
    struct sim_query *queries;
    size_t queries_count, queries_capacity;
    bool measure; /* gaps */
    /* faults */
    int lossy_percent;     /* of peer messages */
    int flaky_percent;     /* of store calls */
    int slow_percent;      /* of store calls */
    int64_t store_away_ms; /* refuses until then */
    int64_t store_hung_ms; /* executes nothing until then */
    int64_t store_trouble_ms;
    bool split[SIM_NODES_MAX][SIM_NODES_MAX];
    int consul; /* 0 right, 1 away, 2 lies */
    bool key_held;
    /* what was seen */
    int64_t gap_worst_ms;
    size_t verdicts, moves, takes, wrong_verdicts;
    char failure[400];
    FILE *trace;
};

void sim_init(struct sim *s, uint64_t seed, int nodes, uint32_t slots, FILE *trace);
void sim_fini(struct sim *s);
bool sim_run(struct sim *s, int64_t for_ms); /* false: s->failure says what broke */
void sim_start(struct sim *s, int node);
void sim_kill(struct sim *s, int node);
void sim_pause(struct sim *s, int node, bool on);
void sim_leave(struct sim *s, int node);
void sim_consul_changed(struct sim *s);
void sim_heal(struct sim *s);
/* After some calm time: every slot is held by the member that the ring names, and the store says the same. */
bool sim_settled(struct sim *s);
struct sim_proc *sim_at(struct sim *s, int node); /* NULL: nothing runs there */
size_t sim_held(const struct sim *s, int node);
void sim_note(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
