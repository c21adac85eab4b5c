/* What the planner's files share. Jobs are in memory because they are due soon, because a fire of theirs is booked or
 * running, or because the API is at work on them; all else is the store's. */
#ifndef CARILLON_CORE_PLANNER_PRIVATE_H
#define CARILLON_CORE_PLANNER_PRIVATE_H

#include "agent/base/err.h"
#include "agent/base/list.h"
#include "agent/base/map.h"
#include "agent/base/rng.h"
#include "agent/core/planner.h"
#include "agent/core/wheel.h"

#define PLANNER_TIMERS_PER_STEP 256 /* a turn of the loop stays short; the rest comes with the next one */
#define PLANNER_STARTS_PER_STEP 256
#define PLANNER_RUN_MAX         200000 /* dues skipped or folded in one go: some schedules are counted by steps */
#define PLANNER_READS_MAX       2      /* pages asked for at a time */
#define PLANNER_GETS_MAX        64     /* jobs asked for by fires whose job is not in memory */
#define PLANNER_API_QUEUE_MAX   100 /* writes that wait for one job ... */
#define PLANNER_FIRE_QUEUE_MAX \
    80 /* ... of which so many may be about its fires: callees must not keep people out */
#define PLANNER_SOON_MS        2000 /* a gained slot's first page: what is due now */
#define PLANNER_OVERDUE_MS     1000 /* a start this late is catch-up and paced */
#define PLANNER_AGAIN_MS       100  /* pause after a start that was refused */
#define PLANNER_NO_ENDPOINT_MS 5000 /* how often who waits for an endpoint looks; RELEASE tells before that */
#define PLANNER_RELEASES_MAX   16   /* whose fires are being brought forward from the store */
#define PLANNER_READ_RETRY_MS  200
#define PLANNER_FOREIGN_MS     1000 /* how often fires held by other members are looked at */
#define PLANNER_DEAD_MAX       256  /* dead members remembered */
#define PLANNER_COPY_MORE_MS \
    ((int64_t)86400 * 1000)            /* a copy is kept so much longer than asked: many die by one */
#define PLANNER_BACKFILL_MAX     10000 /* dues of one backfill */
#define PLANNER_QUEUE_LOOK_MS    5000  /* how often a queue that does not move is looked at */
#define PLANNER_NEVER            INT64_MAX
#define PLANNER_CLOCKS_DIFFER_MS 250 /* members whose clocks differ by more do not fire */
#define PLANNER_LETTERS_PAGE     100 /* rows read at a time for dead letters */
#define PLANNER_GUESS_STEP       64 /* looks before the next guess at a free name, more with each wrong one ... */
#define PLANNER_GUESS_STEP_MAX   1024 /* ... up to this, and one fewer with each right one */

enum pjob_state {
    PJOB_READING, /* being asked for: key or uid is known, the row is not */
    PJOB_ABSENT,  /* the store has no such job; here for the API's sake */
    PJOB_LIVE,
    PJOB_STOPPED, /* its row was refused by the store: not fired until it is changed */
    PJOB_GONE,    /* deleted, or its slot went away: stays only for what is still out */
    PJOB_STATE_COUNT_
};

enum pslot_state { PSLOT_NONE, PSLOT_HELD, PSLOT_MOVING, PSLOT_STATE_COUNT_ };

struct pslot {
    enum pslot_state state;
    uint64_t epoch;
    uint64_t gained;      /* value of planner.gen when it came: older pages do not count for it */
    uint32_t loading;     /* chains of its first load that are not through */
    uint32_t foreign;     /* fires here that a living member holds */
    uint64_t whole;       /* number of the last chain that brought all fires here; 0: none */
    uint64_t whole_asked; /* ... and of the one that is under way */
    bool zones_seen;      /* no job here was planned with older zone data than ours */
    struct list jobs;     /* struct pjob.slot_link */
    struct planner_api *parked,
        **parked_tail; /* writes that wait for the end of a move, or of another member's attempt */
};

/* What has to share one pace and one window: a service, or a host given directly. */
#define PTARGET_NAME_MAX (RECORD_SERVICE_MAX + 8)

struct ptarget {
    char name[PTARGET_NAME_MAX];
    size_t users;       /* fires and jobs that point here */
    size_t waiting;     /* booked fires of it in memory */
    size_t out;         /* deliveries of it */
    struct list fires;  /* pfire.target_link: the booked ones */
    int64_t spilled_ms; /* earliest wake of those left in the store; PLANNER_NEVER: none */
    double tokens;
    int64_t tokens_ms; /* when they were last counted */
    struct list paced; /* struct pstart.link: overdue, or too many are out: waiting for a token and room */
    struct wheel_timer timer;
    struct list paced_link; /* in planner.paced while the list above is not empty */
};

/* A job's next due or a booked fire, on its way to be started. */
struct pstart {
    struct list link; /* planner.ready or ptarget.paced */
    bool is_fire;
    bool waits;       /* it is in the latter */
    bool paced;       /* has its token */
    bool released;    /* it and others could go at once, so it is paced though it is not late */
    int64_t since_ms; /* when it should have started */
};

struct pfire {
    struct list job_link; /* pjob.fires */
    struct pjob *job;
    struct fire_row row; /* of a first attempt too: filled as far as known */
    struct delivery delivery;
    struct job_spec *spec;  /* the delivery's; NULL while none is out */
    struct ptarget *target; /* counted in its window; NULL: not */
    struct list target_link;
    struct ptarget *out;      /* counts the delivery that is out */
    uint64_t release;         /* that of the page which brought it, 0: none */
    struct fire_parts *parts; /* as in the row, from the start on; NULL: not open */
    bool parts_stale;         /* the row's text lags behind them for want of memory */
    bool round_begun;         /* an attempt at one of them was made in this delivery */
    struct pstart start;
    struct wheel_timer timer;
    int64_t begun_ms;         /* when the delivery that is out was handed over */
    struct list foreign_link; /* planner.foreign while another member holds it */
    enum change_op dirty;     /* NONE, INSERT, UPDATE or DELETE */
    uint64_t durable_rev;     /* 0: not in the store yet */
    uint64_t read_gen;        /* of the page that brought it */
    bool booked;              /* it has, or is getting, a row */
    bool in_flight;
    bool moved; /* row.wake_ms is not what the store has: who evicts it may not find it again */
    bool revoked;
    bool ignored; /* its end is nobody's business any more */
    bool
        settled; /* how the attempt in flight ended is known already, by its completion: only its return is waited for */
    enum attempt_control control; /* what a reply asks for when the fire succeeds */
    bool marked;                  /* HELD by us for an attempt that goes out when that is durable */
    bool by_hand; /* its next attempt was asked for: neither a pause nor the other fires hold it up */
    bool in_batch;
    bool ended; /* leaves memory when clean */
    int64_t
        letter_until_ms; /* it died: until then what it was to deliver has to be in the store; 0: it did not */
    char guard[RECORD_MEMBER_MAX]; /* expect_holder of the next write */
};

struct pjob {
    struct job_row row; /* as it will be when all dirt is written */
    struct job_spec *spec;
    enum pjob_state state;
    uint64_t durable_rev;
    enum change_op op;        /* what the next batch does to the row; NONE: nothing, or only fires */
    struct revision revision; /* of that op */
    struct job_spec
        *replaced; /* what was the definition until that op; a reference; NULL: it stays, or is not kept */
    bool fires_dirty;
    bool in_batch;
    bool plan_dirty;     /* due, seq or definition changed and not yet in a batch ... */
    bool plan_in_batch;  /* ... or in one that is not durable: nothing new starts */
    bool write_dirty;    /* a write of the API is not durable, though its answer may have been given up */
    bool write_in_batch; /* ... and is in the batch that is out */
    bool asked;          /* fires that succeeded are REPORTED: what their replies ask for is not done yet */
    bool deleting;
    bool moving;             /* its slot is being handed over: frozen */
    bool wanted;             /* a page named it while it was being read */
    uint64_t copied_version; /* of the definition whose copy is in the store for dead letters ... */
    int64_t copied_until_ms; /* ... and until when */
    bool ghost;              /* deleted; LIVE for the sake of dead letters: nothing but fires is written */
    uint64_t ghost_since;    /* chains with a higher number began when it was one */
    bool left;               /* fires that wait for the ghost to go were seen */
    uint64_t copy_version;   /* whose copy is asked for if the job is not there; 0: none */
    uint64_t copy_asked;     /* ... and was, with the read that is out or was the last */
    bool lost;               /* GONE because the slot was taken from us: nothing of it may be written */
    bool resync;             /* reread after a conflict */
    bool guessed;            /* ABSENT without a look: the store is the judge of its first insert */
    uint32_t unwritten;      /* ends in this dirt */
    uint32_t unwritten_in_batch;
    size_t bytes;          /* counted in planner.stats.memory_bytes */
    struct list slot_link; /* pslot.jobs, or planner.orphans when GONE */
    struct list dirty_link;
    bool lined_up;       /* in planner.dirty: counted there */
    struct list fires;   /* pfire.job_link */
    struct pfire *first; /* the fire of row.due_ms, in flight and not booked */
    int64_t next_due_ms; /* what follows row.due_ms; valid while `first` is out */
    bool has_next_due;
    int64_t not_before_ms;
    int64_t quiet_ms;       /* an attempt that ended without a reply may run until then */
    int64_t fires_asked_ms; /* when those beyond the horizon were asked for */
    int64_t queue_look_ms;  /* queue: when to look whether too many wait */
    struct pstart start;
    struct wheel_timer timer;
    struct ptarget *target;
    struct pread *read;
    struct pjob *same_key; /* next with the same hash of namespace and id */
    bool in_uids, in_keys;
    struct planner_api *api, **api_tail;
    size_t api_count; /* those that have joined included */
    struct planner_api *joined,
        *joined_in_batch; /* done, several at a time, and answered when that is durable */
    enum { PAPI_IDLE, PAPI_FINDING, PAPI_APPLIED, PAPI_IN_BATCH } api_state;
    bool
        api_looked; /* the change id of the first one is not in the store; or its fire was read, and is not pending */
};

enum pread_kind { PREAD_CHAIN, PREAD_JOB, PREAD_CHANGE, PREAD_FIRE };

struct pread {
    uint64_t id;
    enum pread_kind kind;
    struct pchain *chain;
    struct pjob *job; /* NULL: nobody waits for it any more */
    uint64_t gen;     /* FIRE: planner.gen when it was asked for */
};

/* A range of rows of some slots, read page by page. */
struct pchain {
    struct list link; /* planner.chains */
    bool fires;
    bool first;       /* part of a gained slot's first load */
    bool window;      /* moves planner.resident_ms when it is through */
    bool stale;       /* only jobs planned with older zone data */
    uint64_t release; /* brings fires of this release forward; 0: of none */
    bool again;       /* ... from the start, for it was released once more */
    uint64_t whole;   /* its number, if it brings all fires of its slot; else 0 */
    uint64_t gen;
    uint16_t *slots;
    size_t slots_count;
    int64_t from_ms, until_ms;
    bool has_cursor;
    uint16_t cursor_slot;
    int64_t cursor_wake_ms;
    struct uid cursor_uid;
    uint64_t cursor_seq;
    struct pread *read; /* the page that is out */
    struct wheel_timer retry;
};

/* A page that was asked for before this moment may not bring back rows older than REV. */
struct ptomb {
    struct list link;
    uint8_t key[24]; /* uid, seq (0: the job itself) */
    uint64_t rev;
    uint64_t gen;
};

struct pmove {
    struct list link;
    char successor[RECORD_MEMBER_MAX];
    uint16_t *slots;
    uint64_t *epochs; /* as they are here */
    size_t slots_count;
};

struct pchange {
    struct job_change change; /* tag: the pjob */
    struct pfire **fires;     /* one for each of change.fires */
};

struct pbatch {
    struct planner_batch pub;
    struct pchange *changes;
    size_t capacity;
    struct pmove *move; /* whose slots ride in it */
    enum pbatch_state { PBATCH_NONE, PBATCH_OUT, PBATCH_AGAIN } state;
};

struct prelease {
    uint64_t number;
    char target[PTARGET_NAME_MAX];
};

struct ptrash {
    void (*free)(void *ptr);
    void *ptr;
};

struct planner {
    struct planner_options options;
    char member[RECORD_MEMBER_MAX];
    char tzdata[16];
    int64_t now_ms;
    struct rng rng;
    struct wheel *wheel;
    int64_t wheel_ms; /* newest time the wheel was told */
    bool may_start, lease_held, draining, fenced;
    struct pslot *slots;
    struct map uids;       /* uid -> pjob */
    struct map_u64 keys;   /* hash of namespace and id -> pjob, chained */
    struct map_u64 reads;  /* id -> pread */
    struct map targets;    /* name -> ptarget */
    struct map tombs;      /* uid+seq -> ptomb */
    struct list tomb_list; /* oldest first */
    size_t fire_reads;     /* rows asked for by the API */
    uint64_t tombs_lost;   /* gen of the last one for which there was no memory */
    uint64_t gen;          /* counts loads and gains */
    uint64_t read_id;
    uint64_t whole_last; /* number of the last chain that was to bring all fires of a slot */
    struct list chains;
    size_t chain_reads, gets;
    struct list gets_waiting; /* pjob.dirty_link of READING jobs that wait for a free GET */
    int64_t resident_ms;      /* jobs that wake before this are in memory */
    int64_t loading_ms;       /* ... or are being read */
    int64_t span_ms;          /* horizon as memory allows */
    unsigned window_loading;  /* chains of the window that are not through */
    int64_t window_until_ms;  /* what resident_ms will be then */
    struct wheel_timer window_timer, foreign_timer, spill_timer, batch_timer, zones_timer, parked_timer;
    uint64_t zones_replanned;                       /* since it was last told */
    struct prelease releases[PLANNER_RELEASES_MAX]; /* number n at n % MAX */
    uint64_t release_last;
    struct list ready; /* pstart.link: due, to be started when allowed */
    size_t ready_count, paced_count;
    struct list paced; /* ptarget.paced_link */
    struct list dirty, dirty_moving;
    size_t dirty_count;  /* in the former */
    struct list foreign; /* pfire.foreign_link */
    struct list orphans; /* pjob.slot_link of GONE jobs */
    struct list moves;
    uint32_t guess_looks, guess_step; /* names to be looked at before one is taken to be free again */
    bool awaited;                     /* somebody waits for an answer to what is dirty */
    struct pbatch batches[PLANNER_BATCHES_MAX];
    size_t batch_rows;  /* so many a batch may have */
    int64_t written_ms; /* when a batch last came through, or the first dirt after none */
    int64_t batch_again_ms;
    unsigned batch_failures;
    struct {
        char member[RECORD_MEMBER_MAX];
        uint64_t gen;         /* what was read before this may be older than its last writes */
    } dead[PLANNER_DEAD_MAX]; /* newest at dead_next - 1 */
    size_t dead_count, dead_next;
    struct ptrash *trash; /* freed when the next step begins: actions may still point there */
    size_t trash_count, trash_capacity;
    struct planner_actions *actions; /* of the step that runs */
    struct planner_stats stats;
};

/* --- planner.c --- */
struct planner_action *planner_act(struct planner *p, enum planner_action_kind kind);
void planner_trash(struct planner *p, void (*fn)(void *), void *ptr);
void planner_log(struct planner *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void planner_arm(struct planner *p, struct wheel_timer *t, int64_t at_ms);
bool planner_stalled(const struct planner *p);
bool planner_starts_allowed(const struct planner *p);
void planner_start_later(struct planner *p, struct pstart *s, int64_t since_ms);
void planner_start_cancel(struct planner *p, struct pstart *s);
void planner_wake_owner(struct planner *p, uint16_t slot);
int64_t planner_add_ms(int64_t a_ms, int64_t b_ms); /* saturating */

static inline int64_t planner_later(int64_t a_ms, int64_t b_ms)
{
    return a_ms > b_ms ? a_ms : b_ms; /* RECORD_NONE is before all */
}

/* --- planner_jobs.c: jobs in memory --- */
struct pjob *pjob_new(struct planner *p, uint16_t slot, struct err *e);
int pjob_add_uid(struct planner *p, struct pjob *j, struct err *e);
int pjob_add_key(struct planner *p, struct pjob *j, struct err *e);
/* Both of ROW's. Without memory J can still be found by one of those that it had. */
int pjob_add_keys(struct planner *p, struct pjob *j, const struct job_row *row, struct err *e);
struct pjob *pjob_by_uid(const struct planner *p, const struct uid *uid);
struct pjob *pjob_by_key(const struct planner *p, const char *ns, const char *id);
void pjob_gone(struct planner *p,
               struct pjob *j); /* out of the maps; freed, or an orphan while something is out */
void pjob_forget_uid(struct planner *p, struct pjob *j);
void pjob_settle(struct planner *p,
                 struct pjob *j); /* arm what is due, drop it if it need not be in memory */
void pjob_account(struct planner *p, struct pjob *j);
void pjob_set_spec(struct planner *p, struct pjob *j, struct job_spec *spec); /* takes the reference */
void pjob_dirty(struct planner *p, struct pjob *j, enum change_op op);
void pjob_link_dirty(struct planner *p, struct pjob *j);
void pjob_unlink_dirty(struct planner *p, struct pjob *j);
bool pjob_clean(const struct pjob *j);
bool pjob_active(const struct pjob *j); /* may start something */
uint64_t pjob_pending(const struct pjob *j);
void pjob_unwritten(struct planner *p, struct pjob *j);
void pjob_take_row(struct planner *p, struct pjob *j, const struct job_row *row, struct job_spec *spec);
void pjob_absorb(struct planner *p, struct pjob *j, struct pjob *other);
int64_t planner_edge_ms(const struct planner *p);
void pjob_drop_fires(struct planner *p, struct pjob *j); /* memory only; what is in flight is ignored */

/* --- planner_target.c: what has one pace and one window --- */
struct ptarget *ptarget_get(struct planner *p, const struct job_spec *spec);
void ptarget_put(struct planner *p, struct ptarget *t);
bool ptarget_token(struct planner *p, struct ptarget *t);
/* As many deliveries are out as may be. */
bool ptarget_full(const struct planner *p, const struct ptarget *t);
void ptarget_enter_line(struct planner *p, struct ptarget *t, struct pstart *s);
/* F's delivery goes out, or has ended. */
void pfire_out(struct planner *p, struct pfire *f);
void pfire_back(struct planner *p, struct pfire *f, bool success);
/* It has come from the store: whether it is one of those that were released meanwhile. */
bool pfire_is_released(const struct planner *p, const struct pfire *f);
/* It may go at once instead of when its row says. False: it waits for something else. */
bool pfire_release(struct planner *p, struct pfire *f);
/* Pages of the release may come: there is room for what they bring. */
bool planner_release_room(const struct planner *p, uint64_t release);
void planner_on_release(struct planner *p, const char *service);
void planner_targets_fini(struct planner *p);

/* --- planner_load.c: rows from the store --- */
void planner_load_released(struct planner *p, uint64_t before, uint64_t release);
void planner_load_slots(struct planner *p, const uint16_t *slots, size_t count);
void planner_load_fires(struct planner *p, const uint16_t *slots, size_t count, int64_t until_ms);
/* Whether all fires of SLOT were asked for after number SINCE, and came. False: they are asked for; ask again. One look at a time a
 * slot, whoever waits for it. */
bool planner_load_whole(struct planner *p, uint16_t slot, uint64_t since);
/* All that should be in memory. A window that is being read counts as read: its pages may have passed what is looked for. */
void planner_load_near(struct planner *p, const uint16_t *slots, size_t count);
void planner_load_window(struct planner *p);
void planner_load_pump(struct planner *p);
void planner_load_spilled(struct planner *p);
void planner_load_foreign(struct planner *p);
void planner_load_stale(struct planner *p, const uint16_t *slots, size_t count);
void planner_read_job(struct planner *p, struct pjob *j);
void planner_read_change(struct planner *p, struct pjob *j, const struct planner_api *api);
void planner_read_fire(struct planner *p, struct pjob *j, uint64_t seq, size_t limit);
void planner_read_forget(struct pjob *j);
void planner_on_jobs(struct planner *p, const struct planner_event *event);
void planner_on_fires(struct planner *p, const struct planner_event *event);
void planner_on_change_found(struct planner *p, const struct planner_event *event);
/* A job of which only the uid is known, being read; NULL without memory. */
struct pjob *planner_stub(struct planner *p, uint16_t slot, const struct uid *uid, uint64_t version);
struct pfire *pfire_take_row(struct planner *p, struct pjob *j, struct fire_row *row,
                             uint64_t gen); /* NULL without memory */
void pchain_free(struct planner *p, struct pchain *c);

/* --- planner_tombs.c: what pages may not bring back --- */
/* Whether a row with REV that was asked for at GEN may be older than what was buried since. */
bool planner_tomb_refuses(const struct planner *p, uint64_t gen, const struct uid *uid, uint64_t seq,
                          uint64_t rev);
void planner_tomb(struct planner *p, const struct uid *uid, uint64_t seq, uint64_t rev);
void planner_tombs_prune(struct planner *p);
void planner_tombs_fini(struct planner *p);

/* --- planner_plan.c: which due comes next, and what happens to those nobody fires --- */
void pjob_arm(struct planner *p, struct pjob *j);
void pjob_timer(struct wheel_timer *t, void *arg);
void pjob_start(struct planner *p, struct pjob *j);
/* A due that has come may have been sent under the next seq, by us, or by an owner that died before it could record it: whatever
 * else wants that seq, or makes the job's rule hold the due up, has the due booked first. So no fire id ever names two dues. False
 * without memory: then nothing of the sort may be done. */
bool pjob_book_due(struct planner *p, struct pjob *j);
void pjob_plan_new(struct planner *p, struct pjob *j, int64_t after_ms);
void pjob_advance(struct planner *p, struct pjob *j, bool has_next, int64_t next_ms);
bool pjob_skip(struct planner *p, struct pjob *j, int64_t until_ms, enum fire_reason reason);

bool pjob_next_due(const struct pjob *j, int64_t *ret_ms); /* after the row's */
bool pjob_pending_full(const struct pjob *j); /* of fires that are unfinished, there are as many as may be */
void pjob_book_queue(struct planner *p, struct pjob *j);

/* --- planner_zones.c: newer rules of time zones --- */
void pzones_stamp(const struct planner *p, struct pjob *j);
/* If its next due was found by older rules than ours. J may be dirty afterwards. */
void pzones_replan(struct planner *p, struct pjob *j);
void pzones_gained(struct planner *p, struct pslot *s);
void pzones_timer(struct wheel_timer *t, void *arg);
void pzones_page(struct planner *p, struct pchain *c);
void pzones_done(struct planner *p, const struct pchain *c);

/* --- planner_rules.c: concurrency --- */
bool pjob_has_fire_running(const struct pjob *j);
bool pjob_rule_allows(struct planner *p, struct pjob *j);
void pjob_overlap(struct planner *p, struct pjob *j);
void pjob_ended_first(struct planner *p, struct pjob *j); /* forbid: what was due meanwhile is skipped */
bool pjob_due_waits(const struct planner *p,
                    const struct pjob *j); /* forbid: one has come and is not dealt with */
enum fire_reason pjob_run_skipped(
    const struct pjob *j); /* what a run would be skipped for; FIRE_REASON_NONE: nothing */
void pjob_run_rule(struct planner *p, struct pjob *j, struct pfire *f); /* F is a run, just booked */
/* F's time has come and not its turn: replace: what was before it gives way. */
void pfire_take_place(struct planner *p, struct pfire *f);
void pjob_keep_quiet(struct pjob *j, const struct attempt *attempt);
bool pfire_aside(const struct pfire *f);
/* Unless allow, one attempt of a job at a time; queue: in the order of their numbers. */
bool pfire_has_turn(struct planner *p, const struct pfire *f);

/* --- planner_fire.c: fires in memory, booked, held, started --- */
struct pfire *pfire_new(struct planner *p, struct pjob *j, struct err *e);
void pfire_free(struct planner *p, struct pfire *f);
void pfire_drop(struct planner *p, struct pfire *f); /* out of memory; in flight: its end will be ignored */
void pfire_first(struct planner *p, struct pjob *j);
struct pfire *pfire_book(struct planner *p, struct pjob *j, int64_t due_ms, enum fire_kind kind);
/* TEXT: of the trace that asks for this run; NULL: none. Without memory the run is worth more than its trace. */
void pfire_keep_trace(struct pfire *f, const char *text);
void pfire_name(struct pfire *f);
void pfire_book_first(struct planner *p, struct pjob *j);
/* Its row tells of the attempt that is out, if one is: who dies with it has made it. */
void pfire_mark_running(struct planner *p, struct pfire *f);
void pfire_hold_all(struct planner *p, struct pjob *j);
void pfire_revoke(struct planner *p, struct pfire *f);
void pfire_abort(struct planner *p, struct pfire *f); /* ... and close the connection of what has started */
/* Whether its row's holder, another member or we as we were before the slot went and came back, may still end it. */
bool pfire_is_held(const struct planner *p, const struct pfire *f);
void pfire_not_foreign(struct planner *p, struct pfire *f);
struct pfire *pjob_find_fire(const struct pjob *j, uint64_t seq); /* booked; NULL: not here */
void pfire_arm(struct planner *p, struct pfire *f);
/* What held them up, a write or what a reply asked for, is done. May drop some from memory. */
void pjob_arm_fires(struct planner *p, struct pjob *j);
void pfire_timer(struct wheel_timer *t, void *arg);
void pfire_start(struct planner *p, struct pfire *f);
/* Its end stands in its row, but is not counted: what its reply asks for goes with that. */
bool pfire_asks(const struct pfire *f);
void pfire_count_reported(struct planner *p, struct pfire *f);
/* Its job asks for at most once, and it was tried. */
bool pfire_spent(const struct pfire *f);
void pfire_dirty(struct planner *p, struct pfire *f, enum change_op op);
void pfire_set_target(struct planner *p, struct pfire *f, bool on);
void pfire_loaded(struct planner *p, struct pfire *f); /* what the state of a row just read asks for */
void pfire_written(struct planner *p, struct pfire *f);
void pfire_leave(struct planner *p, struct pfire *f); /* free it if nothing of it is out */
void planner_on_member_dead(struct planner *p, const char *member);

/* --- planner_attempt.c: how attempts and booked fires end --- */
void planner_on_attempt(struct planner *p, const struct planner_event *event);
/* ATTEMPT failed and stands in the log: what comes next by the job's rule. TOLD: it was told of before. */
void pfire_after_failure(struct planner *p, struct pfire *f, const struct attempt *attempt, bool told);
/* Until when the row of a fire that ends now is kept. */
int64_t pfire_keep_until_ms(const struct planner *p, const struct fire_row *row);
void pfire_end(struct planner *p, struct pfire *f, enum fire_outcome outcome, enum fire_reason reason,
               const struct attempt *attempt);
void pfire_wait_until(struct planner *p, struct pfire *f, int64_t wake_ms);
void pfire_failed(struct planner *p, struct pfire *f, const struct attempt *attempt);
void pfire_no_endpoint(struct planner *p, struct pfire *f);
void pfire_count_failure(struct planner *p, struct pjob *j);
/* RETRY_AFTER_MS: -1 not said. TOLD: the attempt that failed, NULL when it was told of already. */
void pfire_retry_or_die(struct planner *p, struct pfire *f, int64_t retry_after_ms,
                        const struct attempt *told);

/* --- planner_parts.c: `callback.to` other than one --- */
/* Before F is started. False: not now, or it had nothing left to do and has ended. */
bool pparts_open(struct planner *p, struct pfire *f);
void pparts_reopen(struct planner *p, struct pfire *f); /* what was given up is to be done again */
void pparts_close(struct planner *p, struct pfire *f);
/* Before F's row is written: it tells what its parts are. False: no memory now. */
bool pparts_write(struct planner *p, struct pfire *f);
void pparts_found(struct planner *p, struct pfire *f, const struct attempt *attempt);
void pparts_ended(struct planner *p, struct pfire *f, const struct attempt *attempt);
void planner_on_part(struct planner *p, const struct planner_event *event);

/* --- planner_end.c: what an end changes in the job's row --- */
void pend_count(struct planner *p, struct pjob *j, const struct fire_row *row, uint64_t count);
void pend_ring(struct planner *p, struct pjob *j, const struct fire_row *row, const struct attempt *attempt);
void pend_log(struct planner *p, struct fire_row *row, const struct attempt *attempt);
/* Take the newest entry out again. False: there is none (or no memory), RET is untouched. */
bool pend_log_pop(struct planner *p, struct fire_row *row, struct attempt *ret);
void pend_tell(struct planner *p, const struct pjob *j, const struct fire_row *row,
               const struct attempt *attempt, uint64_t count);

/* --- planner_api.c --- */
void planner_on_api(struct planner *p, struct planner_api *api);
void papi_run(struct planner *p, struct pjob *j);
/* Nothing stands between the first write that waits and the job: no move, no other write that is not durable. */
bool papi_may_apply(const struct pjob *j);
void papi_found(struct planner *p, struct pjob *j, const struct revision *found);
/* What the store said of a name that was taken to be free. */
void papi_guessed(struct planner *p, struct pjob *j, bool right);
void papi_durable(struct planner *p, struct pjob *j, const struct job_change *change);
void papi_refuse_all(struct planner *p, struct pjob *j, enum planner_answer answer);
void papi_push(struct pjob *j, struct planner_api *api);
void papi_unpark(struct planner *p, struct pslot *s);
/* J's first one comes again in a moment, unless it has waited for too long. */
void papi_park(struct planner *p, struct pjob *j);
void papi_try_parked(struct planner *p, struct pslot *s);
void papi_parked_timer(struct wheel_timer *t, void *arg);
void papi_reply(struct planner *p, struct pjob *j, enum planner_answer answer);
void papi_overdue(struct planner *p, struct pjob *j);
/* What replies ask for, in the batch that counts their successes: both or neither. A write of the API that is on its way goes first;
 * until then the rows say REPORTED, so whoever owns the slot then does the rest. May free fires of J. */
void papi_asked(struct planner *p, struct pjob *j);
/* After the row was changed. DUE_MS: what was due next without it. */
void papi_revise(struct pjob *j, const struct planner_api *api, const char *op, int64_t due_ms);
void papi_applied(struct pjob *j, enum planner_answer answer);
/* The same for what does not keep the next one waiting: it is about one fire alone, whose row is to be written. */
void papi_join(struct pjob *j, enum planner_answer answer);
void papi_mark_out(struct pjob *j);
void papi_unjoin(struct pjob *j); /* what they did is void: they are to be applied again */

/* --- planner_ops.c: what the API does to one fire --- */
void papi_fire(struct planner *p, struct pjob *j);
/* GEN: the planner's when EVENT's rows were asked for; takes what they own. */
void papi_fire_read(struct planner *p, struct pjob *j, const struct planner_event *event, uint64_t gen);
/* The first one is about a fire whose row is not durable as it is: nothing can be said of it before. Or it changes more than a fire,
 * and others have not been answered. */
bool papi_fire_waits(const struct pjob *j);

/* --- planner_open.c: asynchronous callees --- */
void popen_begin(struct planner *p, struct pfire *f, const struct attempt *attempt);
void popen_succeed(struct planner *p, struct pfire *f, uint32_t attempt, const char *detail);
/* Attempt number ATTEMPT, in flight or open, failed, and its callee will not tell anything else. BY_HAND: another one is asked for,
 * whatever the job's rule says. */
void popen_fail(struct planner *p, struct pfire *f, uint32_t attempt, const char *error, const char *detail,
                bool by_hand);
bool popen_extend(struct planner *p, struct pfire *f); /* a heartbeat; false: nothing has changed */
void popen_silent(struct planner *p, struct pfire *f); /* its time is over */
/* Its deadline; a while from now when nobody may have been there to hear its callee. */
int64_t popen_deadline_ms(const struct planner *p, const struct pfire *f);

/* --- planner_letter.c: dead letters --- */
bool pletter_op(enum planner_api_op op);
/* J, which is not in the store, becomes a ghost. Takes SPEC's reference; NULL: for discarding only. */
void pletter_ghost(struct planner *p, struct pjob *j, struct job_spec *spec, uint64_t version);
bool pletter_fits(const struct pjob *j,
                  const struct fire_row *row); /* it can be delivered by J's definition */
bool pletter_strange(const struct pjob *j, const struct fire_row *row); /* it has ended with its job */
void pletter_begin(struct planner *p, struct pjob *j);
void pletter_read(struct planner *p, struct pjob *j, bool ok, struct fire_row *rows, size_t count,
                  uint64_t gen);
void pletter_read_copy(struct planner *p, struct pjob *j, uint64_t version);
/* There is no copy of what J's letters under way are to deliver: they end. False: there is none of them. */
bool pletter_expire(struct planner *p, struct pjob *j);
/* The fire that shall be retried has ended as ROW says. False: nothing can be done. */
bool pletter_retry(struct planner *p, struct pjob *j, struct fire_row *row);
void pletter_forget(struct planner_api *api);

/* --- planner_change.c --- */
/* The newest due of J's definition, which is about to be changed, that has its fire already; RECORD_NONE: none has. */
int64_t pchange_fired_ms(const struct planner *p, const struct pjob *j);
/* J, if it is done, without having fired the due that was next: up to FIRED_MS all have their fires. */
void pchange_done(struct pjob *j, int64_t fired_ms);
/* J, which has the definition that API asks for and in `replaced` the one before, goes on to the first due of it that has no fire. */
void pchange_plan(struct planner *p, struct pjob *j, const struct planner_api *api, bool same_schedule,
                  int64_t fired_ms);

/* --- planner_backfill.c --- */
bool pbackfill_active(const struct job_row *row);
/* row.wake_ms as the store shall have it. */
int64_t pbackfill_wake_ms(const struct job_row *row);
void pbackfill_loaded(struct planner *p, struct pjob *j);
bool pbackfill_ready(const struct planner *p, const struct pjob *j); /* its next fires may be booked */
void pbackfill_go(struct planner *p, struct pjob *j);
bool pbackfill_running(const struct pjob *j); /* or one that was re-driven */
/* An earlier try of API's request was done. */
void pbackfill_found(const struct pjob *j, struct planner_api *api);
void pbackfill_ask(struct planner *p, struct pjob *j, struct planner_api *api);

/* --- planner_batch.c, planner_move.c --- */
void planner_on_batch_done(struct planner *p, struct planner_batch *batch, int code);
void planner_batch_fini(struct planner *p);
void planner_batch_forget(struct planner *p, struct pjob *j);
bool planner_batch_has_move(const struct planner *p, const struct pmove *m);
bool planner_batch_is_out(const struct planner *p);
void planner_on_move(struct planner *p, const struct planner_event *event);
void planner_move_done(struct planner *p, struct pmove *m, const struct slot_change *changes);
void planner_on_slots_lost(struct planner *p, const uint16_t *slots, size_t count);
void planner_on_slots_gained(struct planner *p, const uint16_t *slots, const uint64_t *epochs, size_t count);
void pmove_free(struct pmove *m);

#endif
