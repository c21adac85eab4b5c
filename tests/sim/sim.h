/* A whole cluster in one process on virtual time, from one seed. The agents' own code runs unchanged, from the engine down to
 * planner, ownership, balancer, Consul client and membership; what is replaced at link time is what touches the machine: the clocks
 * (agent/base/clock.h), the event loop (agent/io/loop.h), HTTP to Consul and to peers (agent/io/http.h), links (agent/io/link.h) and
 * the delivery lanes (callback_http). The store is agent/store/store_mem, whose calls travel as the weather lets them.
 *
 * There is one world a process. A story runs in a child of its own (story.h), so what dead agents leave behind goes with it. */
#ifndef CARILLON_TESTS_SIM_SIM_H
#define CARILLON_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/base/rng.h"
#include "agent/core/record.h"
#include "agent/engine.h"
#include "agent/store/store_mem.h"

#define SIM_HOSTS_MAX 5
#define SIM_SLOTS     64
#define SIM_EPOCH_MS  INT64_C(1795420800000) /* 2026-11-23T08:00:00Z: when a story begins */
#define SIM_PORT      7421

struct sim_host;
struct sim_event;

/* One incarnation of an agent: from its start to its death. Never freed; the story's end takes it. */
struct sim_proc {
    struct sim_host *host;
    unsigned number; /* of all in this world */
    bool dead;
    bool paused;
    bool left;
    int64_t started_us, died_us;
    struct sim_event *parked, **parked_end; /* while it is paused */
    struct loop *loop;
    struct http_client *http;
    struct consul_client *consul;
    struct clock_guard *clock;
    struct metrics *metrics;
    void *store;
    struct store_mem_options store_options;
    struct engine *engine; /* the present life */
    unsigned lives;
    char member[RECORD_MEMBER_MAX]; /* of the present life */
    _Atomic uint64_t owned[SIM_SLOTS / 64 + 1];
    struct sim_proc *next; /* older */
};

struct sim_host {
    unsigned index;
    char name[16];
    char address[32];      /* "10.0.0.1:7421" */
    struct sim_proc *proc; /* the present one; NULL: none */
    int64_t boot_us;       /* its boot clock is so much ahead of the world's time */
    int64_t drift_ppm;
    int64_t wall_shift_us;
    bool cut_store, cut_consul, cut_out; /* CUT_OUT: whatever it connects to is refused */
};

/* What goes wrong, all the time. Set by the story. */
struct sim_weather {
    unsigned store_flaky_percent; /* calls whose outcome the caller does not learn, done or not */
    unsigned store_slow_percent;
    unsigned peer_lossy_percent; /* messages between agents, either way */
    unsigned callee_fail_percent, callee_hang_percent, callee_slow_percent;
};

struct sim {
    struct rng rng;
    uint64_t seed;
    int64_t now_us;
    uint64_t order;
    struct sim_event **heap;
    size_t heap_count, heap_capacity;
    struct sim_proc *current; /* whose code runs; NULL: the world's */
    struct sim_proc *procs;
    unsigned procs_count;
    struct sim_host hosts[SIM_HOSTS_MAX];
    unsigned hosts_count;
    bool cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX]; /* between two hosts */
    struct sim_weather weather;
    int64_t store_away_until_us, store_hung_until_us;
    struct store_mem_world *store;
    void *reader; /* a store handle of the oracle's own */
    struct config *config;
    uint64_t events;
    FILE *trace;       /* the story told; NULL: not */
    bool planned;      /* nothing but planned changes: then nothing may be repeated */
    bool all_live;     /* nobody has a reason to declare anybody dead */
    bool crashes_only; /* and kill -9, but no other trouble */
};

extern struct sim sim;

typedef void sim_fn(void *arg);

/* FN(ARG) after DELAY_US as an event of PROC (dropped once it is dead, put off while it is paused), NULL: of the world. */
void sim_after(int64_t delay_us, struct sim_proc *proc, sim_fn *fn, void *arg);
/* Let the world go on for MS. */
void sim_run_ms(int64_t ms);
int64_t sim_between(int64_t lo, int64_t hi);
bool sim_chance(unsigned percent);
/* A line of the story. */
void sim_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A promise is broken: says so with the seed and ends the process with SIM_BROKEN. */
#define SIM_BROKEN 3
void sim_broken(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
int64_t sim_local_us(const struct sim_proc *p); /* its boot clock */
int64_t sim_wall_ms(void);                      /* the world's: what a right clock shows, the store's too */
/* Run FN(ARG) in the context of P, now, and the turn that follows. */
void sim_enter(struct sim_proc *p, sim_fn *fn, void *arg);

/* agents.c */
void sim_open(uint64_t seed, unsigned hosts, FILE *trace);
void sim_start(unsigned host);
void sim_kill(unsigned host);
void sim_pause(unsigned host, bool on);
void sim_leave(unsigned host);
struct sim_proc *sim_proc_at(const char *address); /* who listens there; NULL: nobody */
struct sim_proc *sim_owner(uint16_t slot);         /* a living agent that holds it; NULL */
unsigned sim_alive(unsigned *list);                /* hosts with a running agent that is not leaving */

/* loop.c: what was posted and deferred */
void sim_turn_end(struct sim_proc *p);

/* net.c */
struct http_call;
bool sim_reaches(const struct sim_proc *from, const struct sim_host *to);
/* Answer CALL after a while; STATUS 0: E_CODE instead. BODY is copied. INDEX 0: no such header. */
void sim_http_answer(struct http_call *call, int64_t delay_us, int e_code, int status, const char *body,
                     uint64_t index);
void sim_links_look(const char *address); /* something began or ended to listen there */

/* consul.c: the model of Consul */
void sim_consul_open(void);
void sim_consul_request(struct sim_proc *from, struct http_call *call, const char *method, const char *path,
                        const char *body);
void sim_consul_down(bool down);
void sim_consul_wipe(void);
void sim_consul_leaderless(bool on);
/* The healthy instances of service "svc" are those of ports 8001.. whose bit is set. */
void sim_consul_instances(unsigned bits);

/* store.c */
void sim_store_open(struct sim_proc *p);
void sim_store_die(struct sim_proc *p); /* its calls on the wire are done, or not */

/* callee.c: delivery lanes, callees, and what they saw */
struct sim_seen {
    struct uid uid;
    uint64_t seq;
    uint32_t attempt;
    unsigned part;
    uint64_t epoch;
    int64_t due_ms;
    int64_t at_us, acked_us; /* 0: not acknowledged */
    const struct sim_proc *proc;
    char member[RECORD_MEMBER_MAX];
};
extern struct sim_seen *sim_seen;
extern size_t sim_seen_count;

/* client.c: an application that makes, changes and deletes jobs, and remembers what was promised to it */
struct sim_job {
    char id[24];
    struct uid uid;
    int64_t every_ms;   /* 0: one shot */
    int64_t created_ms; /* as accepted */
    int64_t deleted_us; /* when the delete was answered; 0: not deleted */
    bool acked;         /* the create was answered */
    bool deleting;      /* a delete was sent */
    bool touched;       /* paused, run by hand or otherwise not a plain rhythm any more */
    struct sim_job *next;
};
extern struct sim_job *sim_jobs;
void sim_client_create(void);
void sim_client_delete(void);
void sim_client_run(void);
void sim_client_pause(bool on);
void sim_client_resume_all(void); /* retries of a paused job wait */
size_t sim_client_waiting(void);  /* requests without a final answer */

/* oracle.c */
void sim_oracle_start(const struct sim_seen *seen, const char *id, uint16_t slot);
void sim_oracle_check(void); /* after each event of an agent, cheap */
void sim_oracle_end(void);   /* after the calm */

#endif
