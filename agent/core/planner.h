/* The planner: what one member does with the jobs of its slots. It keeps the near dues, decides what starts, what is
 * written and what is answered. Pure: it is fed events with the time in them and fills a list of actions; it never asks.
 * One thread. agent.c (real) and tests/sim (virtual time) drive the same code.
 *
 * Life of a fire: due -> DELIVER -> planner_event ATTEMPT -> the job's row is dirty -> it rides in the next batch
 * (planner_take_batch) -> BATCH_DONE -> the next due is armed, counted from the persisted nominal due, never from "now".
 * A fire that does not succeed at its first attempt becomes a fire_row in the same batch that advances the job.
 *
 * Sources: design "Who writes what", "Ownership", "Time". */
#ifndef CARILLON_CORE_PLANNER_H
#define CARILLON_CORE_PLANNER_H

#include "agent/core/job.h"
#include "agent/core/record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct fire_parts;
struct planner;

#define PLANNER_BATCHES_MAX 2

struct planner_options {
    const char *member; /* own member id: the holder of what it has in flight */
    uint32_t slots;
    int64_t horizon_ms;         /* near dues are loaded this far ahead */
    size_t memory_max_bytes;    /* of loaded jobs and fires; over it the horizon is shortened */
    size_t load_page;           /* rows a load asks for */
    size_t unwritten_max;       /* ends not yet durable above which nothing starts (10,000) */
    int64_t unwritten_stall_ms; /* ... or none could be written for this long (1,000) */
    size_t catch_up_per_s;      /* overdue starts a second and service; the rest waits its turn */
    size_t retry_window;        /* booked fires in memory a target; the rest waits in the store */
    size_t out_max;             /* deliveries out a target; what is due beyond waits in line; 0: no limit */
    uint32_t history_keep;      /* first-attempt successes kept with a job */
    int64_t history_keep_ms;    /* how long the row of any other ended fire is kept */
    int64_t dead_keep_ms;       /* ... and that of one that was given up */
    uint64_t seed;              /* of jitter and back-off */
    const char *tzdata;         /* version of the zone data that plans are made with; NULL: unknown */
    unsigned batches_max;       /* that may be out at a time: 1 to PLANNER_BATCHES_MAX */
};

/* One attempt to be made. Owned by the planner until its ATTEMPT event came back (or REVOKED). */
struct delivery {
    struct uid uid;
    uint64_t seq;
    uint32_t attempt; /* from 1 */
    uint16_t slot;
    uint64_t epoch;
    int64_t due_ms;
    int64_t from_ms; /* nothing goes out before: the due and its jitter */
    uint32_t coalesced;
    struct job_spec *spec; /* borrowed: lives as long as the delivery */
    const void *payload;   /* the spec's, or the run's own */
    size_t payload_bytes;
    const char *content_type;
    const char *trace; /* of a run that a trace asked for: trace_parse() reads it; NULL: the spec's */
    size_t trace_bytes;
    bool booked;       /* it has a fire row */
    int64_t since_ms;  /* when it should have gone out */
    char tried[4][64]; /* endpoints that failed this fire, newest first; "" unused */
    /* `callback.to` other than one. NULL: nothing is to be sent, the endpoints are to be named (ATTEMPT_ENDPOINTS); else each
     * pending part is to be sent to its endpoint, a PART event follows for each and then one ATTEMPT. */
    const struct fire_parts *parts;
    void *driver; /* for the one who delivers; NULL at first */
};

enum attempt_result {
    ATTEMPT_OK,
    ATTEMPT_OPEN,        /* 202 of an asynchronous callee: it works on, and tells the end by itself */
    ATTEMPT_RETRY,       /* failed; may be tried again by the job's rule */
    ATTEMPT_GIVE_UP,     /* a give_up_on code */
    ATTEMPT_NOT_STARTED, /* refused by the lease hook, or the process is ending: no attempt was made */
    ATTEMPT_NO_ENDPOINT, /* waited for an endpoint until the driver gave it back: no attempt was made */
    ATTEMPT_ENDPOINTS,   /* what was asked for with a delivery without parts: no attempt was made */
    ATTEMPT_GONE,        /* of a part only: its endpoint has left the service; no attempt was made */
    ATTEMPT_RESULT_COUNT_
};

struct attempt {
    enum attempt_result result;
    char endpoint[64];
    int status;         /* HTTP or gRPC code, -1: none came */
    int64_t started_ms; /* corrected wall clock */
    uint32_t duration_ms;
    enum fire_wait waited_for;    /* by whoever delivers, before it went out; NONE: not for long */
    int64_t retry_after_ms;       /* -1: not said */
    char error[120];              /* "" unless there was none to get a status, or it is a gRPC code but OK */
    char excerpt[513];            /* of the reply's body, valid UTF-8 */
    const char *const *endpoints; /* with ENDPOINTS; valid during the event */
    size_t endpoints_count;
    bool sent; /* the request had begun to go out: the callee may have seen it */
    enum attempt_control {
        ATTEMPT_CONTROL_NONE,
        ATTEMPT_CONTROL_PAUSE,
        ATTEMPT_CONTROL_DELETE,
    } control; /* with OK: what the reply asks for, of a job that allows it */
};

enum planner_api_op {
    PLANNER_CREATE,
    PLANNER_PUT,
    PLANNER_PATCH,
    PLANNER_DELETE,
    PLANNER_PAUSE,
    PLANNER_RESUME,
    PLANNER_RUN,
    PLANNER_BACKFILL, /* fire the dues of [backfill_from_ms, backfill_to_ms) beside the schedule */
    /* Of one fire, found by `uid` and `seq`; ns and id are not looked at. */
    PLANNER_FIRE_RETRY, /* another attempt now: what waits goes out at once, what is open counts as failed first */
    PLANNER_FIRE_CANCEL,    /* give up: it ends as cancelled, and the connection of an attempt is closed */
    PLANNER_FIRE_COMPLETE,  /* its callee tells how attempt `fire_attempt` ended */
    PLANNER_FIRE_HEARTBEAT, /* ... or that it is still at work */
    /* Of `letters`, dead fires of the job with `uid`, which may be deleted: those that are none (any more) are left out. */
    PLANNER_LETTERS_REDRIVE, /* send them once more, each at its time */
    PLANNER_LETTERS_DISCARD
};

struct planner_letter {
    uint64_t seq;
    int64_t at_ms; /* REDRIVE */
};

#define PLANNER_LETTERS_MAX 200 /* of one operation */

static inline bool planner_op_of_fire(enum planner_api_op op)
{
    return op >= PLANNER_FIRE_RETRY;
}

#define PLANNER_DETAIL_MAX 513 /* with NUL: fits an attempt's excerpt */

/* What resuming does with the dues that came while the job was paused; the rest is skipped. */
enum planner_catch_up { PLANNER_CATCH_UP_NONE, PLANNER_CATCH_UP_LAST, PLANNER_CATCH_UP_ALL };

/* A write of the API for a slot of this member. Owned by the caller until REPLY named it. The body was parsed off the loop;
 * PATCH needs the present job, so its patch is applied when the job is known, by `merge` (called on the loop thread). */
struct planner_api {
    enum planner_api_op op;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    struct uid uid; /* of the job if this creates one, or of the fire */
    uint64_t seq;   /* of the fire */
    uint64_t change_id;
    bool repeated; /* an earlier try of this very request may have been done: see store.find_change */
    bool fresh_id; /* the id was made just now: no one can have it */
    bool if_none_match;
    bool if_match; /* match_uid and match_version; match_version 0: whichever there is */
    struct uid match_uid;
    uint64_t match_version;
    int64_t accepted_ms;
    char actor[64];
    char no_more[160];     /* why no job may be created now; "": one may */
    struct job_spec *spec; /* CREATE, PUT: a reference of the request's own */
    int paused;            /* CREATE, PUT, PATCH: 0, 1, or -1 when not said */
    /* PATCH and PUT of a body that needs the present job (phase, instants): make the new spec. 0 or -ERR_INVALID with problems
     * kept by the request. */
    int (*merge)(struct planner_api *api, const struct job_spec *present, const struct job_row *row,
                 struct job_spec **ret);
    bool
        merge_only; /* PUT: no job can be made of it (INVALID, with the problems that the request has), one may be changed */
    enum planner_catch_up catch_up; /* RESUME */
    void *run_payload;              /* RUN with a payload of its own; the request's */
    size_t run_payload_bytes;
    char *run_trace; /* RUN: what asked for it, as trace_print() gives it; NULL: no trace; the request's */
    bool run_force;
    int64_t backfill_from_ms, backfill_to_ms; /* BACKFILL */
    uint32_t fire_attempt;                    /* COMPLETE, HEARTBEAT: the key was made for this attempt */
    bool fire_ok;                             /* COMPLETE */
    char fire_detail[PLANNER_DETAIL_MAX];     /* COMPLETE: valid UTF-8 */
    struct planner_letter *letters;           /* LETTERS_…: seqs descending, each once; the request's */
    size_t letters_count;
    uint64_t version; /* LETTERS_REDRIVE: fire_row.version of all of them */

    /* filled before REPLY */
    enum planner_answer {
        PLANNER_OK,       /* 200 (also "nothing changed") */
        PLANNER_CREATED,  /* 201 */
        PLANNER_ACCEPTED, /* 202 */
        PLANNER_NOT_FOUND,
        PLANNER_EXISTS,
        PLANNER_FULL,     /* `no_more` says why */
        PLANNER_MISMATCH, /* 412 */
        PLANNER_INVALID,  /* merge said so, or `refusal` does */
        PLANNER_SUPERSEDED, /* COMPLETE of an attempt that a later one has followed; an `ok` ends the fire all the same */
        PLANNER_FINISHED,    /* the fire had ended before: see `outcome` */
        PLANNER_NOT_OWNER,   /* the slot went away meanwhile: forward again */
        PLANNER_UNAVAILABLE, /* the store cannot; nothing may be promised */
    } answer;
    bool deleted_in_flight;
    struct job_row row;      /* as it is now (as it was, for DELETE) */
    struct job_spec *result; /* a reference for the caller, or NULL */
    bool was_done;      /* `repeated`, and an earlier try of it was done: answered with what that one made */
    struct uid run_uid; /* RUN: its fire; the job may have been made anew since an earlier try */
    uint64_t run_seq;
    uint64_t backfill_dues; /* BACKFILL: how many it is; with EXISTS: another one is under way */
    size_t
        letters_done; /* LETTERS_… with OK: how many were changed, now or by the try that this one repeats */
    bool later; /* LETTERS_… with UNAVAILABLE: nothing was done, as others of that job have to end first */
    struct fire_row *found; /* LETTERS_…: the planner's until REPLY, NULL then */
    size_t found_count, letters_read;
    char refusal[120];         /* INVALID: why, "" when merge knows */
    enum fire_outcome outcome; /* of the fire, as it is now */
    bool fire_continue;        /* HEARTBEAT with OK: false when nobody waits for this attempt any more */
    void *driver;              /* the caller's */
    struct planner_api *next;  /* the planner's */
};

/* Whether a job that there is, is the one that the request's if_match wants. */
bool planner_api_matches(const struct planner_api *api, const struct job_row *row);

enum planner_event_kind {
    PLANNER_TICK,         /* time passed: due timers, paced work, loads */
    PLANNER_SLOTS_GAINED, /* slots[], epochs[]: mine from now */
    PLANNER_SLOTS_LOST, /* slots[]: not mine any more (dead, dropped): forget; what is in flight may finish but is not ours to write */
    PLANNER_MOVE, /* slots[] -> successor: stop starting, book what is in flight, hand over in one batch */
    PLANNER_LEASE, /* may_start: false stops all starts (lease unsure, clock unsure), true resumes; lease_held: false: the slots
                      may be another's by now, so nothing is answered but what was written */
    PLANNER_JOBS,    /* answer to LOAD_JOBS / GET_JOB (ok false: it failed; the planner asks again later) */
    PLANNER_FIRES,   /* answer to LOAD_FIRES / GET_FIRE */
    PLANNER_ATTEMPT, /* delivery + attempt: for a delivery with parts the worst of them, once all are back */
    PLANNER_PART,    /* delivery + attempt + part: one of its parts is back */
    PLANNER_BATCH_DONE,   /* batch + code */
    PLANNER_API,          /* api */
    PLANNER_CHANGE_FOUND, /* answer to FIND_CHANGE */
    PLANNER_MEMBER_DEAD,  /* member: what it holds may be tried again */
    PLANNER_WAKE,         /* slots[]: a former owner ended a fire that it held there: look */
    PLANNER_RELEASE, /* service: it has endpoints again: what waits for it, retries included, may go now, paced */
    PLANNER_DRAIN, /* the process is ending: nothing new starts */
};

struct planner_job { /* a loaded row; SPEC NULL: GET_JOB found nothing */
    struct job_row row;
    bool copy; /* GET_JOB found no job, but the copy of `version`: that is SPEC, ROW holds nothing */
    struct job_spec *spec; /* a reference for the planner */
};

struct planner_event {
    enum planner_event_kind kind;
    int64_t now_ms; /* corrected wall clock */
    const uint16_t *slots;
    const uint64_t *epochs;
    size_t slots_count;
    const char *member;  /* MOVE: successor; MEMBER_DEAD */
    const char *service; /* RELEASE */
    bool may_start, lease_held;
    uint64_t load; /* which LOAD/GET/FIND action this answers */
    bool ok;
    bool more;
    struct planner_job *jobs;
    size_t jobs_count;
    struct fire_row *fires; /* the planner takes what the rows own */
    size_t fires_count;
    struct delivery *delivery;
    const struct attempt *attempt;
    size_t part; /* PART: index in delivery.parts */
    struct planner_batch *batch;
    int code; /* BATCH_DONE: 0 or the store's error code */
    struct planner_api *api;
    const struct revision *revision;
};

enum planner_action_kind {
    PLANNER_DO_DELIVER, /* delivery: start it (or queue it for its service) */
    PLANNER_DO_REVOKE, /* delivery: must not start any more. If it has started it is finished as usual (ABORT: its connection
                                 is closed) and ATTEMPT comes; if not, ATTEMPT with NOT_STARTED comes. */
    PLANNER_DO_LOAD_JOBS, /* load (id), slots[], from_ms, until_ms, cursor */
    PLANNER_DO_LOAD_FIRES,
    PLANNER_DO_GET_JOB, /* load (id), ns+id or uid; version not 0: if there is none, its copy (store.get_copy) */
    PLANNER_DO_GET_FIRE, /* load (id), uid+seq: the row that holds it, ended or not, if there is one; up to `limit` from there on,
                               newest first */
    PLANNER_DO_FIND_CHANGE, /* load (id), ns, id, change_id */
    PLANNER_DO_REPLY,       /* api: answered */
    PLANNER_DO_MOVED, /* slots[], epochs[] are the successor's now (durable): tell it; ok false: they did not go there, and are
                          not ours either under the epoch that we knew: the store tells whose they are */
    PLANNER_DO_WAKE,      /* slots[]: tell their owner to look (a fire that we held has ended) */
    PLANNER_DO_LOG,       /* text: worth a line for people (a job stopped, a conflict) */
    PLANNER_DO_REPLANNED, /* a job's next due was found anew, by newer zone data than it was planned with */
    PLANNER_DO_COUNT,     /* a fire ended or an attempt was made: for metrics and event streams */
};

struct planner_action {
    enum planner_action_kind kind;
    struct delivery *delivery;
    bool abort; /* REVOKE */
    uint64_t load;
    const uint16_t *slots; /* valid until the next step */
    const uint64_t *epochs;
    size_t slots_count;
    const char *member;
    bool ok;
    int64_t from_ms, until_ms;
    bool has_cursor;
    const char *tzdata_before; /* LOAD_JOBS: only those planned with an older release; NULL: all */
    uint16_t cursor_slot;
    int64_t cursor_wake_ms;
    struct uid uid;   /* GET_JOB by uid when ns is NULL; cursor; COUNT */
    uint64_t seq;     /* cursor of fires; GET_FIRE; COUNT */
    uint64_t version; /* GET_JOB */
    size_t limit;
    const char *ns;
    const char *id;
    uint64_t change_id;
    struct planner_api *api;
    const char *text;
    /* COUNT */
    uint64_t fires;            /* how many: a run of skipped or coalesced ones is one action */
    enum fire_outcome outcome; /* PENDING: one attempt was made, not the end */
    enum fire_reason reason;
    const struct attempt *attempt; /* NULL: ended without one */
    int64_t due_ms;
    int64_t lateness_ms; /* of a first attempt's start, else -1 */
    const struct job_spec *spec;
    const char *trace; /* as of struct delivery; valid until the next step */
    size_t trace_bytes;
};

struct planner_actions { /* caller's; reset before each step */
    struct planner_action *items;
    size_t count;
    size_t capacity;
};

/* What one transaction of the store shall hold. Owned by the planner; the caller hands it to store.commit and gives it back
 * with BATCH_DONE. No two that are out have a job in common, so they may be written in any order, and at the same time. */
struct planner_batch {
    struct job_change **jobs;
    size_t jobs_count;
    struct slot_change *slots;
    size_t slots_count;
};

struct planner_stats {
    size_t jobs_loaded, fires_loaded, in_flight, unwritten, waiting_start, slots_owned, slots_loading;
    size_t memory_bytes;
    int64_t oldest_overdue_ms; /* due of the oldest that should have started and has not; RECORD_NONE: none */
    int64_t horizon_ms;        /* as it is now */
    uint64_t looks;            /* jobs that the store was asked for one by one */
};

int planner_new(const struct planner_options *options, struct planner **ret, struct err *e);
void planner_free(struct planner *p); /* no delivery, api or batch may be out */

/* Take one event in, append what must be done to ACTIONS. Cannot fail: what goes wrong is an action. */
void planner_step(struct planner *p, const struct planner_event *event, struct planner_actions *actions);
/* When the next TICK is wanted (wall ms; INT64_MAX: never). */
int64_t planner_next_ms(const struct planner *p);
/* The next batch, of at most ROWS_MAX jobs, if anything is dirty and none is out; or a whole one while another is out. NULL: nothing. */
struct planner_batch *planner_take_batch(struct planner *p, size_t rows_max);
bool planner_has_dirty(const struct planner *p); /* whether there is one to be taken */
/* The next batch has an answer to the API or a planned move in it: a wait for more rows would be somebody's wait. */
bool planner_awaited(const struct planner *p);
/* How many deliveries of a target may be out from now on. */
void planner_set_out_max(struct planner *p, size_t out_max);
const struct planner_stats *planner_stats(const struct planner *p);
/* Walks what is in memory of a target: */
struct planner_target_view {
    const char *service;    /* NULL: an address given directly */
    size_t retries_waiting; /* fires that were tried and wait to be tried again */
    int64_t oldest_ms;      /* oldest fire that should have been tried and was not; RECORD_NONE: none */
};
void planner_each_target(const struct planner *p,
                         void (*fn)(void *arg, const struct planner_target_view *view), void *arg);
/* Whether SLOT is held, loaded and not being moved. */
bool planner_owns(const struct planner *p, uint16_t slot);
uint64_t planner_epoch(const struct planner *p, uint16_t slot); /* 0: not held */
/* Structural invariants; aborts with a message. For tests. */
void planner_validate(const struct planner *p);

#endif
