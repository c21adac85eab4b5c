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
#define SIM_TZDATA    "2025b" /* release of the zones that the agents say they have */
#define SIM_SLOTS     64
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
    int64_t store_away_until_us;         /* from here */
    int64_t refused_until_us;            /* it, or who asks it, may still believe that others refuse */
    bool cut_store, cut_consul, cut_out; /* CUT_OUT: whatever it connects to is refused */
};

/* What goes wrong, all the time. Set by the story. */
struct sim_weather {
    unsigned store_flaky_percent; /* calls whose outcome the caller does not learn, done or not */
    unsigned store_slow_percent;
    unsigned peer_lossy_percent;  /* messages between agents, either way */
    unsigned peer_repeat_percent; /* requests between agents that arrive once more, later */
    unsigned callee_fail_percent, callee_hang_percent, callee_slow_percent;
    unsigned callee_reset_percent;   /* the work is done or not, the connection breaks */
    unsigned callee_give_up_percent; /* a code that ends the fire */
    unsigned callee_silent_percent;  /* asynchronous ones that never tell */
    unsigned callee_lie_percent;     /* ... that tell twice, too early, of another attempt, of a failure */
};

struct sim {
    struct rng rng;
    uint64_t seed;
    int64_t epoch_ms;  /* when the story begins */
    int64_t length_ms; /* it is over after that */
    int64_t scale; /* of jobs: what takes seconds in a dense story takes so many times that in a sparse one */
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
    int64_t clock_set_us; /* when some agent's clock was set last */
    int64_t store_away_until_us, store_hung_until_us;
    int64_t store_shift_ms; /* of the store's clock */
    struct store_mem_world *store;
    void *reader; /* a store handle of the oracle's own */
    struct config *config;
    size_t memory_max_bytes, load_page; /* of the agents; 0: as they are in earnest */
    int64_t batch_rows;                 /* the same */
    struct rng plan; /* of what is asked for now: world and plan draw apart, so that a story can lose parts */
    uint64_t events;
    FILE *trace;       /* the story told; NULL: not */
    char *broken;      /* what promise was; SIM_BROKEN_MAX bytes, outlives the process */
    bool calm;         /* nothing goes wrong any more */
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
/* The same from sim.plan. */
int64_t sim_plan_between(int64_t lo, int64_t hi);
unsigned sim_plan_below(unsigned n);
/* A line of the story. */
void sim_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A promise is broken: says so with the seed and ends the process with SIM_BROKEN. */
#define SIM_BROKEN     3
#define SIM_BROKEN_MAX 600
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
/* Who answers later keeps it: it may be over before. */
void sim_http_keep(struct http_call *call);
void sim_http_put(struct http_call *call);
void sim_links_look(const char *address); /* something began or ended to listen there */

/* consul.c: the model of Consul */
void sim_consul_open(void);
void sim_consul_request(struct sim_proc *from, struct http_call *call, const char *method, const char *path,
                        const char *body);
void sim_consul_down(bool down);
void sim_consul_wipe(void);
void sim_consul_leaderless(bool on);
void sim_consul_look(void); /* who could not be reached can be */
/* The healthy instances of service "svc" are those of ports 8001.. whose bit is set. */
void sim_consul_instances(unsigned bits);
unsigned sim_consul_instances_now(void);

/* store.c */
void sim_store_open(struct sim_proc *p);
void sim_store_restart(int64_t away_us); /* what was on its way has an outcome that nobody learns */
/* The same, and away for ELECTION_US; then its clock is off by CLOCK_MS, and host i finds the new leader after FOUND_US[i] more. */
void sim_store_leader_lost(int64_t election_us, int64_t clock_ms, const int64_t *found_us);
void sim_store_die(struct sim_proc *p); /* its calls on the wire are done, or not */

/* rules.c: a definition as a reader of the contract understands it */
#define SIM_PAST_MS INT64_C(600000) /* dues are known from so long before the story, scaled */

#define SIM_DAY_MS \
    INT64_C(86400000) /* defaults of misfire.window and ttl_after_done; every story is shorter */

enum sim_concurrency { SIM_ALLOW, SIM_FORBID, SIM_QUEUE, SIM_REPLACE };
enum sim_to { SIM_TO_ONE, SIM_TO_ALL, SIM_TO_SHARDS };

struct sim_rules {
    unsigned number; /* of the job's definitions, from 1; attempts tell it in their path */
    uint64_t change_id;
    int64_t accepted_ms;
    char text[1200];       /* as a client writes it */
    size_t schedule_bytes; /* of it: what says when it is due */
    bool one_shot;
    int64_t ends_ms; /* RECORD_NONE: no bound */
    uint64_t max_fires;
    enum sim_concurrency concurrency;
    enum sim_to to;
    bool misfire_last, at_most_once, async, control;
    int64_t window_ms;
    unsigned max_attempts; /* 0: no limit */
    int64_t jitter_ms, timeout_ms, ttl_ms;
    int64_t *dues; /* all from SIM_PAST_MS before the story until its end, ascending */
    size_t dues_count;
};

/* Draw one, accepted now, of a job made at CREATED_MS, whose definition is BEFORE (NULL: the first one). */
struct sim_rules *sim_rules_draw(unsigned number, int64_t accepted_ms, int64_t created_ms,
                                 const struct sim_rules *before);
/* One of many whose callee does not work before the calm: more of its fires wait than an agent keeps in memory. */
#define SIM_DEAD_URL "http://10.3.0.1:9000"
struct sim_rules *sim_rules_flood(int64_t accepted_ms);
/* First index of a due at or after MS. */
size_t sim_rules_at(const struct sim_rules *r, int64_t ms);
/* Dues are known until then. */
int64_t sim_rules_end_ms(void);
bool sim_rules_same_schedule(const struct sim_rules *a, const struct sim_rules *b);
/* Where a story begins: mostly before the clocks of some zone change, so long at most. */
int64_t sim_rules_epoch_ms(int64_t before_s);
const struct tz *sim_zone(void *arg, const char *name);

/* callee.c: delivery lanes, callees, and what they saw */
struct sim_seen {
    struct uid uid;
    uint64_t seq;
    uint32_t attempt;
    unsigned part;
    uint64_t epoch;
    int64_t due_ms;
    int64_t at_us, acked_us; /* 0: not acknowledged */
    int64_t over_us;         /* when its agent let go of it; 0: not yet */
    int status;              /* 0: no reply yet, -1: there is none */
    unsigned rules;          /* number of the definition it went by */
    struct sim_proc *proc;
    char member[RECORD_MEMBER_MAX];
};
extern struct sim_seen *sim_seen;
extern size_t sim_seen_count;

/* client.c: an application that makes, changes and deletes jobs, and remembers what was promised to it */
struct sim_job { /* from a create to its delete: the next one under that id is another */
    char id[24];
    struct uid uid;
    uint16_t slot;
    int64_t created_ms; /* as accepted */
    struct sim_rules **rules;
    unsigned rules_count;
    unsigned answered; /* number of the newest definition that was answered */
    int64_t answered_us;
    bool acked;         /* the create was answered */
    bool busy;          /* a change of it has no answer yet */
    bool deleting;      /* a delete was sent */
    int64_t deleted_us; /* when it was answered; 0: not */
    int64_t paused_us;  /* when a pause was answered, until a resume is sent; 0: not paused for sure */
    bool expires;       /* soon after it is done */
    bool forced;        /* a run or an attempt was forced: its fires may overlap */
    bool redriven, discarded, cancelled, backfilled;
    bool reply_pauses, reply_deletes; /* a callee asked for that */
    bool reply_heard;                 /* ... for a delete, of an agent that waited for the reply */
    uint64_t runs_asked, runs_made;
    struct sim_job *next;
};
extern struct sim_job *sim_jobs;

enum sim_wish {
    SIM_WISH_CREATE,
    SIM_WISH_CHANGE,
    SIM_WISH_DELETE,
    SIM_WISH_PAUSE,
    SIM_WISH_RESUME,
    SIM_WISH_RUN,
    SIM_WISH_BACKFILL,
    SIM_WISH_RETRY,
    SIM_WISH_CANCEL,
    SIM_WISH_REDRIVE,
    SIM_WISH_DISCARD,
    SIM_WISH_FLOOD,
    SIM_WISH_COUNT_
};
/* Ask for it, of some job, if one is fit for it. Draws from sim.plan. */
void sim_client_wish(enum sim_wish wish);
void sim_client_resume_all(void); /* retries of a paused job wait */
size_t sim_client_waiting(void);  /* requests without a final answer, but for the newest */
void sim_client_complete(const struct uid *uid, uint64_t seq, uint32_t attempt, bool ok);
void sim_client_heartbeat(const struct uid *uid, uint64_t seq, uint32_t attempt);
struct sim_job *sim_job_of(const struct uid *uid); /* NULL: nobody made it */
const struct sim_rules *sim_rules_of(const struct sim_job *j, uint64_t change_id);

/* witness.c: the store's history in the order of its commits, and what must be true of every step of it */
struct sim_row {     /* of a fire, as the store has it */
    uint64_t key[3]; /* uid, seq */
    struct sim_story *story;
    uint64_t seq, seq_last, rev, version;
    enum fire_state state;
    enum fire_kind kind;
    enum fire_outcome outcome;
    enum fire_reason reason;
    int64_t due_ms, due_last_ms, wake_ms, ended_us;
    uint32_t attempts, attempts_before;
    char holder[RECORD_MEMBER_MAX];
    bool redriven;
    struct sim_row *next; /* of the unfinished ones of its job */
};

struct sim_story { /* of one job */
    struct uid uid;
    struct sim_job *job;
    bool there, was;
    struct job_row row;
    const struct sim_rules *rules; /* in force */
    size_t at;                     /* index of row.due_ms in rules->dues */
    uint64_t counted;              /* fires that max_fires counts */
    int64_t newest_ms;             /* of the dues that have numbers */
    uint64_t pending;
    uint64_t letters; /* dead ones */
    struct sim_row *open;
    struct sim_story *next;
};
extern struct sim_story *sim_stories;

struct loop_msg;
void sim_witness_before(const struct loop_msg *msg);
void sim_witness_after(void);
const struct sim_story *sim_story_of(const struct uid *uid);
const struct sim_row *sim_row_of(const struct uid *uid, uint64_t seq); /* NULL: none (any more) */
bool sim_witness_has_change(uint64_t change_id);
bool sim_witness_dead(const char *member);
/* The epoch of a slot, and since when it is that. */
uint64_t sim_witness_epoch(uint16_t slot, int64_t *ret_since_us);
void sim_witness_end(void);

/* oracle.c: what callees saw */
struct sim_fire {
    uint8_t key[24]; /* uid and seq */
    int64_t due_ms;
    size_t last; /* index in sim_seen of the newest start + 1 */
    unsigned starts;
    unsigned acked_parts;     /* bits; 1 for a whole fire */
    bool heard;               /* ... the whole of it, by an answer to an agent that waited for it */
    bool completed, promised; /* asynchronous: its callee told of success, and was answered that it counts */
    bool gave_up, redriven, cancelled;
};
void sim_oracle_start(const struct sim_seen *seen, const struct delivery *d);
struct sim_fire *sim_fire_of(const struct uid *uid, uint64_t seq);
void sim_oracle_check(void); /* after each event of an agent, cheap */
void sim_oracle_end(void);   /* after the calm */

#endif
