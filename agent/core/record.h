/* The records that the stores keep and the planner changes: one job, one booked fire, one change of them.
 * Plain data. Instants are epoch milliseconds (UTC) by the agent's corrected clock; RECORD_NONE stands for "no instant".
 * Tables and promises: design "Who writes what". */
#ifndef CARILLON_CORE_RECORD_H
#define CARILLON_CORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct job_spec;

#define RECORD_NONE        INT64_MIN
#define RECORD_RING_MAX    400   /* bytes of packed recent successes kept in a job's row */
#define RECORD_MEMBER_MAX  96    /* "<name>.<random>" with its NUL */
#define RECORD_NS_MAX      64    /* with NUL */
#define RECORD_ID_MAX      201   /* with NUL */
#define RECORD_SERVICE_MAX 128   /* with NUL */
#define RECORD_LOG_MAX     65536 /* bytes of a fire's attempt log */

/* 128 bits made by the agent that took the create: the slot (big endian, 16 bits), then 112 random bits. Printed as 32
 * lower-case hex digits; a fire id is "<uid>.<seq>", so any agent finds the slot, hence the owner, from either. */
struct uid {
    uint8_t bytes[16];
};

enum job_state { JOB_STATE_ACTIVE, JOB_STATE_PAUSED, JOB_STATE_DONE, JOB_STATE_COUNT_ };

/* How a fire ended. PENDING: it has not. */
enum fire_outcome {
    FIRE_OUTCOME_PENDING,
    FIRE_OUTCOME_SUCCEEDED,
    FIRE_OUTCOME_DEAD,
    FIRE_OUTCOME_SKIPPED,
    FIRE_OUTCOME_COALESCED,
    FIRE_OUTCOME_CANCELLED,
    FIRE_OUTCOME_COUNT_
};

/* The closed list of the API contract, in its order. */
enum fire_reason {
    FIRE_REASON_NONE,
    FIRE_REASON_OVERLAP,
    FIRE_REASON_PAUSED,
    FIRE_REASON_LATE,
    FIRE_REASON_COALESCED,
    FIRE_REASON_QUEUE_FULL,
    FIRE_REASON_EXPIRED,
    FIRE_REASON_MAX_ATTEMPTS,
    FIRE_REASON_MAX_AGE,
    FIRE_REASON_GIVE_UP,
    FIRE_REASON_AT_MOST_ONCE,
    FIRE_REASON_DELETED,
    FIRE_REASON_REPLACED,
    FIRE_REASON_NO_ENDPOINT,
    FIRE_REASON_DISCARDED,
    FIRE_REASON_CANCELLED,
    FIRE_REASON_COUNT_
};

/* What an attempt had waited for when it went out late. */
enum fire_wait {
    FIRE_WAIT_NONE,
    FIRE_WAIT_START,    /* nobody could begin it: no owner, no store, or catching up at a bounded rate */
    FIRE_WAIT_ENDPOINT, /* there was no healthy one */
    FIRE_WAIT_TURN,     /* limits of its service or its endpoints */
    FIRE_WAIT_COUNT_
};

struct job_counts {
    uint64_t seq; /* booked occurrences; succeeded + dead + skipped + coalesced + cancelled + pending = seq */
    uint64_t succeeded;
    uint64_t dead;
    uint64_t skipped;
    uint64_t coalesced;
    uint64_t cancelled;
};

/* The last fire that ended, as `status.last_fire` tells it. seq 0: none yet. */
struct job_last_fire {
    uint64_t seq;
    int64_t due_ms;
    int64_t finished_ms;
    enum fire_outcome outcome;
    enum fire_reason reason;
};

/* What firing changes. Small: rewritten once per fire. Written only by the slot's owner, by compare-and-set on (uid, rev). */
struct job_row {
    struct uid uid;
    uint16_t slot;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    uint64_t rev;       /* +1 with every write of this row */
    uint64_t version;   /* of the definition: +1 with every accepted change of it; starts at 1 */
    uint64_t change_id; /* of the API write that made this version */
    enum job_state state;
    /* Nominal instant of the next occurrence that is not booked yet: job_row_next_due_ms(). Of a done job that up to which its dues
     * have had their fires (RECORD_NONE: not known, the row is by an earlier program): what a later definition fires comes after it */
    int64_t due_ms;
    int64_t wake_ms; /* when the owner must look at the job: due + jitter, or the end of a done job's ttl */
    struct job_counts counts;
    uint64_t scheduled; /* scheduled fires of any outcome but skipped, against max_fires */
    struct job_last_fire last;
    int64_t last_success_ms;
    uint32_t consecutive_failures;
    int64_t failing_since_ms;
    int64_t created_ms;
    int64_t updated_ms; /* this version is in force since: accepted, or a later due by the one before */
    /* A backfill goes on while next < until: the dues in [next, until) are not booked yet */
    int64_t backfill_next_ms;
    int64_t backfill_until_ms; /* none: both RECORD_NONE */
    uint32_t backfill_pending; /* its unfinished fires; they do not count against max_pending */
    char tzdata[16];           /* version of the zone data it was planned with */
    uint16_t ring_bytes;
    uint8_t ring[RECORD_RING_MAX]; /* packed newest first-attempt successes: agent/core/ring_log.h */
};

/* Where a booked fire is in its life. */
enum fire_state {
    FIRE_STATE_WAITING, /* the next attempt starts at wake_ms */
    FIRE_STATE_HELD, /* an attempt of `holder` is or may be running: only that member ends it while it lives */
    FIRE_STATE_OPEN, /* accepted by an asynchronous callee; wake_ms is when its silence counts as a failure */
    FIRE_STATE_REPORTED, /* ended by a holder that no longer owns the slot; the owner has still to count it */
    FIRE_STATE_ENDED,    /* history; wake_ms is when it may be forgotten */
    FIRE_STATE_COUNT_
};

enum fire_kind { FIRE_KIND_SCHEDULED, FIRE_KIND_RUN, FIRE_KIND_BACKFILL, FIRE_KIND_COUNT_ };

/* Every fire that is not a first-attempt success. Key (uid, seq); compare-and-set on rev. It tells whose it is by itself,
 * for it may outlive its job. */
struct fire_row {
    struct uid uid;
    uint16_t slot;
    char ns[RECORD_NS_MAX]; /* of the job */
    char id[RECORD_ID_MAX];
    char service
        [RECORD_SERVICE_MAX]; /* the callee: name of the service, or host of the address given directly; "" unknown */
    uint64_t seq;
    uint64_t seq_last; /* = seq; a run of skipped or coalesced occurrences is one row seq..seq_last */
    uint64_t rev;
    enum fire_state state;
    enum fire_kind kind;
    enum fire_outcome outcome;
    enum fire_reason reason;
    int64_t due_ms;
    int64_t due_last_ms; /* of seq_last */
    uint32_t jitter_ms;
    int64_t wake_ms;
    int64_t first_ms;   /* first moment it could be sent: max_age counts from here */
    int64_t started_ms; /* start of attempt 1 */
    int64_t attempt_ms; /* ... and of the newest attempt that ended or was accepted; RECORD_NONE: none */
    /* OPEN: the last moment to which heartbeats can extend it; REPORTED: what the reply of a success asks for (enum
     * attempt_control), for the owner to do, and until when a dead letter is kept; WAITING and HELD: what those of its endpoints that
     * are done with ask for when it succeeds; else RECORD_NONE. */
    int64_t until_ms;
    int64_t finished_ms;
    uint32_t attempts; /* started so far */
    /* Of those, made before it was last re-driven: retry.max_attempts counts the rest */
    uint32_t attempts_before;
    uint64_t version;               /* of the definition that it was last to be delivered by; 0: unknown */
    uint32_t orphan;                /* 1: re-driven when its job was gone: it goes by the copy of `version` */
    uint32_t coalesced;             /* dues folded into this one */
    char holder[RECORD_MEMBER_MAX]; /* "" unless HELD */
    char *log; /* JSON array of attempts, at most RECORD_LOG_MAX bytes; owned by the row; NULL: none */
    size_t log_bytes;
    char *payload; /* of a run with its own payload, else NULL: the job's; owned by the row */
    size_t payload_bytes;
    /* `callback.to` other than one: agent/core/fire_parts.h; owned by the row; NULL: none, or not frozen
     * yet */
    char *parts;
    size_t parts_bytes;
    /* Of a run: the trace that asked for it (agent/core/trace.h: trace_print()), else NULL: the job's;
     * owned by the row */
    char *trace;
    size_t trace_bytes;
    char last_error[160];
};

/* Free what ROW owns (not ROW itself) and clear the pointers. */
void fire_row_fini(struct fire_row *row);

/* Somebody else owns now what ROW did: forget it. */
void fire_row_taken(struct fire_row *row);

/* What ROW owns, in bytes. */
size_t fire_row_bytes(const struct fire_row *row);

/* ROW, which has not ended, ends with its job, whose CHANGE_DELETE has row JOB: as cancelled, but one that was REPORTED keeps
 * the outcome that it has. All stores do this. */
void fire_row_deleted(struct fire_row *row, const struct job_row *job);

/* Deep copy; 0 or -ERR_NOMEM (RET untouched). */
struct err;
int fire_row_copy(const struct fire_row *row, struct fire_row *ret, struct err *e);

enum change_op { CHANGE_NONE, CHANGE_INSERT, CHANGE_UPDATE, CHANGE_REPLACE, CHANGE_DELETE, CHANGE_COUNT_ };

/* One row of `fires`. INSERT ignores expect_rev and finds the row itself (same rev) as success; UPDATE and DELETE set
 * absolute values where rev = expect_rev (and holder = expect_holder unless "").
 * What a dead letter was to deliver is kept beside the fires, once for each (uid, version) however many died with it: a
 * change with COPY (a reference of the change's own, or NULL) makes sure, in the same transaction, that it is there under
 * (row.uid, row.version) and stays until COPY_UNTIL_MS at least; one that is there already is only kept longer. */
struct fire_change {
    enum change_op op;
    uint64_t expect_rev;
    char expect_holder[RECORD_MEMBER_MAX];
    struct fire_row row;
    struct job_spec *copy;
    int64_t copy_until_ms;
};

/* Who changed what, kept 90 days, also across a delete. */
struct revision {
    uint64_t change_id;
    int64_t at_ms;        /* of its acceptance; of a new definition the job's updated_ms */
    struct uid uid;       /* of the job: a name may have been several jobs in turn */
    uint64_t version;     /* of its definition, after the change */
    uint64_t seq;         /* run: its fire, so that a repeated request is answered the same; else 0 */
    enum job_state state; /* after the change */
    /* The first due that had no fire yet when it was changed: a new schedule drops those from it on that
     * were due before the change; RECORD_NONE: there was none */
    int64_t due_ms;
    char actor[64]; /* token name, "local" or a member */
    char op[16];    /* create, replace, patch, delete, pause, resume, run, reply, expire */
};

enum change_result {
    CHANGE_RESULT_OK,       /* durable, now or by an earlier try of this same change */
    CHANGE_RESULT_CONFLICT, /* the row is not as expected: read it again */
    CHANGE_RESULT_EXISTS,   /* INSERT: another job has this namespace and id */
    CHANGE_RESULT_REFUSED,  /* the store will never take this row (text in `problem`): stop the job loudly */
    CHANGE_RESULT_COUNT_
};

/* What one transaction does to one job and its fires: all of it or nothing.
 *   NONE     only the fires (a holder that ends a fire of a slot it gave away)
 *   INSERT   row + spec + labels + revision; change_id found in place is success
 *   UPDATE   row only, where (uid, rev) = (row.uid, expect_rev): the hot path
 *   REPLACE  row + spec + labels + revision, same guard
 *   DELETE   row, spec, labels go, revision stays, the job's unfinished fires end as cancelled/deleted, those that were REPORTED
 *            as they were (fire_row_deleted); same guard.
 *            Of the row only uid, ns, id, updated_ms (when those fires ended) and wake_ms (when they may be forgotten) count
 * row.rev is the value to be written: above expect_rev, 1 with INSERT. A revision whose (ns, id, change_id) is in the store
 * already means that this very change was made before, whatever became of the job since: OK, nothing is done again. */
struct job_change {
    enum change_op op;
    uint64_t expect_rev;
    struct job_row row;
    /* INSERT, REPLACE: what the row is planned from; a reference of the change's own */
    struct job_spec *spec;
    struct revision revision; /* op[0] == 0: none (only UPDATE, and DELETE of a job whose ttl is over) */
    /* REPLACE, DELETE: the definition until now, kept with the revision, so that what was in force then
     * can be told; a reference of the change's own. NULL: not kept */
    struct job_spec *replaced;
    struct fire_change *fires; /* owned by the change */
    size_t fires_count;
    enum change_result result; /* written by the store */
    char problem[120];         /* with REFUSED */
    void *tag;                 /* the planner's */
};

/* Owner and epoch of one slot by compare-and-set: taking (from a dead member), adopting (from = to = me), moving. */
struct slot_change {
    uint16_t slot;
    char from[RECORD_MEMBER_MAX];
    uint64_t from_epoch;
    char to[RECORD_MEMBER_MAX]; /* its epoch becomes from_epoch + 1 */
    bool changed; /* written by the store; also true if an earlier try of this very change did it */
};

/* Booked fires that have not ended. */
uint64_t job_counts_pending(const struct job_counts *c);
/* The state that people are told: a job that has had its last due is done when its last fire has ended, not before. */
enum job_state job_row_shown_state(const struct job_row *row);

/* Of the next occurrence that is not booked yet; RECORD_NONE: there is none. */
int64_t job_row_next_due_ms(const struct job_row *row);

/* Names as the API prints them, and back (-1: unknown). */
const char *job_state_name(enum job_state s);
const char *fire_outcome_name(enum fire_outcome o);
const char *fire_reason_name(enum fire_reason r); /* NULL for NONE */
int job_state_parse(const char *text);
int fire_outcome_parse(const char *text);
const char *fire_wait_name(enum fire_wait w); /* NULL for NONE */
int fire_wait_parse(const char *text);

/* Print UID as 32 hex digits with a NUL into TEXT[33]; parse exactly that form, false if it is not. */
void uid_print(const struct uid *uid, char text[33]);
bool uid_parse(const char *text, size_t len, struct uid *ret);
uint16_t uid_slot(const struct uid *uid);

/* Print "<uid>.<seq>" into TEXT[56]; parse it back. */
void fire_id_print(const struct uid *uid, uint64_t seq, char text[56]);
bool fire_id_parse(const char *text, struct uid *ret_uid, uint64_t *ret_seq);

#endif
