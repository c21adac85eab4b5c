/* What concurrency asks for: what becomes of a due, or of a run, whose job has an unfinished fire; who starts next. */
#include <stdio.h>

#include "agent/core/planner_private.h"

#define FIRES_AGAIN_MS 1000
#define CALL_BACK_MS   250
#define QUEUE_MAX      100u

bool pjob_has_fire_running(const struct pjob *j)
{
    if (j->first)
        return true;
    LIST_FOR (l, &j->fires) {
        const struct pfire *f = container_of(l, struct pfire, job_link);
        if (!f->ended && !f->ignored &&
            (f->in_flight || f->row.state == FIRE_STATE_HELD || f->row.state == FIRE_STATE_OPEN))
            return true;
    }
    return false;
}

/* Fires that wait beyond the horizon are the store's; a rule that has to end them needs them here. A ghost has no row that counts
 * them: all of its slot are looked at once, and none of its own leaves memory after that. */
static bool fires_complete(struct planner *p, struct pjob *j)
{
    uint64_t here = 0;
    if (j->ghost)
        return planner_load_whole(p, j->row.slot, j->ghost_since);
    LIST_FOR (l, &j->fires) {
        const struct pfire *f = container_of(l, struct pfire, job_link);
        here += !f->ended && !f->ignored;
    }
    if (here >= pjob_pending(j))
        return true;
    if (p->now_ms >= j->fires_asked_ms + FIRES_AGAIN_MS) {
        planner_load_fires(p, &j->row.slot, 1, PLANNER_NEVER);
        j->fires_asked_ms = p->now_ms;
    }
    j->not_before_ms = p->now_ms + FIRES_AGAIN_MS;
    pjob_arm(p, j);
    return false;
}

/* Asked for by people after its time: it neither gives way to what the schedule fires, nor does that to it. */
bool pfire_aside(const struct pfire *f)
{
    return f->row.kind == FIRE_KIND_BACKFILL || f->row.attempts_before > 0;
}

static void look_again(struct planner *p, struct pjob *j)
{
    j->not_before_ms = p->now_ms + PLANNER_AGAIN_MS;
    pjob_arm(p, j);
}

/* forbid: what only waits for a retry is folded into NEXT. */
static void fold_into(struct planner *p, struct pjob *j, struct pfire *next)
{
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (f == next || f->ended || f->ignored || pfire_aside(f))
            continue;
        next->row.coalesced += 1 + f->row.coalesced;
        pfire_end(p, f, FIRE_OUTCOME_COALESCED, FIRE_REASON_COALESCED, NULL);
    }
}

/* ... which is the due that has come. */
static void fold_waiting(struct planner *p, struct pjob *j)
{
    int64_t due_ms = j->row.due_ms, next_ms = 0;
    struct pfire *next = pfire_book(p, j, due_ms, FIRE_KIND_SCHEDULED);
    if (!next) {
        look_again(p, j);
        return;
    }
    fold_into(p, j, next);
    bool has_next = pjob_next_due(j, &next_ms);
    pjob_advance(p, j, has_next, next_ms);
    pjob_dirty(p, j, CHANGE_UPDATE);
}

/* Those before fire number SEQ. */
static void cancel_unfinished(struct planner *p, struct pjob *j, uint64_t seq)
{
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (f->ended || f->ignored || f->row.seq >= seq || pfire_aside(f) ||
            list_linked(&f->foreign_link)) /* another member's attempt is its own to end */
            continue;
        if (f->in_flight) {
            pfire_abort(p, f);
            f->ignored = true;
        }
        pfire_end(p, f, FIRE_OUTCOME_CANCELLED, FIRE_REASON_REPLACED, NULL);
    }
}

/* forbid: a fire that had no endpoint may be with whoever delivers it, waiting for one. It is called back: if it comes, it only waits.
 * True: that is not known yet. */
static bool call_back_waiting(struct planner *p, struct pjob *j)
{
    bool any = false;
    LIST_FOR (l, &j->fires) {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (f->ended || f->ignored || !f->in_flight || f->revoked || f->row.reason != FIRE_REASON_NO_ENDPOINT)
            continue;
        pfire_revoke(p, f);
        any = true;
    }
    if (any)
        j->not_before_ms = p->now_ms + CALL_BACK_MS;
    return any;
}

bool pjob_due_waits(const struct planner *p, const struct pjob *j)
{
    return j->spec && j->spec->concurrency == JOB_FORBID && j->row.state == JOB_STATE_ACTIVE &&
           j->row.due_ms != RECORD_NONE && j->row.wake_ms <= p->now_ms;
}

/* Booked fires that wait in a queue: all but the one at work. A backfill has a bound of its own. */
static uint64_t queue_length(const struct pjob *j)
{
    uint64_t booked = pjob_pending(j) - j->row.backfill_pending;
    return booked > 0 ? booked - 1 : 0;
}

/* The oldest go when more wait than may: of those that are left none is older than it has to be. By halving, for after a long
 * outage there are many. */
static void trim_queue(struct planner *p, struct pjob *j)
{
    uint64_t booked = queue_length(j), max = booked < QUEUE_MAX ? QUEUE_MAX - booked : 0;
    int64_t low_ms = j->row.due_ms, high_ms = p->now_ms + 1;
    if (job_count_dues(j->spec, low_ms, high_ms, max + 1) <= max)
        return;
    while (high_ms - low_ms > 1) { /* too many from low_ms on, few enough from high_ms on */
        int64_t middle_ms = low_ms + (high_ms - low_ms) / 2;
        if (job_count_dues(j->spec, middle_ms, p->now_ms + 1, max + 1) > max)
            low_ms = middle_ms;
        else
            high_ms = middle_ms;
    }
    (void)pjob_skip(p, j, high_ms, FIRE_REASON_QUEUE_FULL);
}

/* replace: another member makes an attempt, which only that ends: soon, for it gave the slot away. */
static bool held_elsewhere(const struct pjob *j)
{
    LIST_FOR (l, &j->fires) {
        const struct pfire *f = container_of(l, struct pfire, job_link);
        if (!f->ended && !f->ignored && !pfire_aside(f) && list_linked(&f->foreign_link))
            return true;
    }
    return false;
}

static bool is_room(struct planner *p, struct pjob *j)
{
    if (!pjob_pending_full(j) && !held_elsewhere(j))
        return true;
    look_again(p, j);
    return false;
}

/* Whether the due may start now. False: it was dealt with, or waits for something that looks at the job again. */
bool pjob_rule_allows(struct planner *p, struct pjob *j)
{
    enum job_concurrency rule = j->spec->concurrency;
    if (rule == JOB_ALLOW || pjob_pending(j) == 0)
        return rule == JOB_ALLOW || pjob_clean(j);
    if (rule == JOB_QUEUE) {
        trim_queue(p, j);
        j->queue_look_ms = p->now_ms + PLANNER_QUEUE_LOOK_MS;
        pjob_arm(p, j);
        return false;
    }
    if (!pjob_clean(j) || !fires_complete(p, j))
        return false;
    if (rule == JOB_REPLACE) {
        cancel_unfinished(p, j, UINT64_MAX);
        return pjob_clean(j) && is_room(p, j);
    }
    if (!pjob_has_fire_running(j))
        fold_waiting(p, j);
    else if (call_back_waiting(p, j))
        pjob_arm(p, j);
    else
        (void)pjob_skip(p, j, p->now_ms + 1, FIRE_REASON_OVERLAP);
    return false;
}

enum fire_reason pjob_run_skipped(const struct pjob *j)
{
    if (j->spec->concurrency == JOB_FORBID && pjob_has_fire_running(j))
        return FIRE_REASON_OVERLAP;
    if (j->spec->concurrency == JOB_QUEUE && queue_length(j) >= QUEUE_MAX)
        return FIRE_REASON_QUEUE_FULL;
    return FIRE_REASON_NONE;
}

void pjob_run_rule(struct planner *p, struct pjob *j, struct pfire *f)
{
    switch (j->spec->concurrency) {
    case JOB_FORBID:
        fold_into(p, j, f);
        break;
    case JOB_REPLACE:
        cancel_unfinished(p, j, f->row.seq);
        break;
    case JOB_ALLOW:
    case JOB_QUEUE: /* waits for its turn */
        break;
    }
}

static bool is_running(const struct pfire *f)
{
    return f->in_flight || f->row.state == FIRE_STATE_HELD || f->row.state == FIRE_STATE_OPEN;
}

/* The end of the last, or of its attempt, is durable before the next one starts. In a queue those before it go first, and those
 * that it replaces have to end. */
static bool in_the_way(const struct pfire *f, const struct pfire *other)
{
    enum job_concurrency rule = f->job->spec->concurrency;
    if (other->ignored && !other->ended)
        return false;
    if ((other->ended || other->row.attempts > 0) && (other->dirty != CHANGE_NONE || other->in_batch))
        return true;
    bool before = (rule == JOB_QUEUE || rule == JOB_REPLACE) && other->row.seq < f->row.seq &&
                  !pfire_aside(f) && !pfire_aside(other);
    return !other->ended && (is_running(other) || before);
}

bool pfire_has_turn(struct planner *p, const struct pfire *f)
{
    struct pjob *j = f->job;
    if (j->spec->concurrency == JOB_ALLOW || f->by_hand)
        return true;
    if (j->first || p->now_ms < j->quiet_ms)
        return false;
    LIST_FOR (l, &j->fires) {
        const struct pfire *other = container_of(l, struct pfire, job_link);
        if (other != f && in_the_way(f, other))
            return false;
    }
    return fires_complete(p, j); /* one beyond the horizon may be at work: its callee has until then */
}

void pfire_take_place(struct planner *p, struct pfire *f)
{
    if (f->job->spec->concurrency == JOB_REPLACE && !pfire_aside(f))
        cancel_unfinished(p, f->job, f->row.seq);
}

/* The callee may be at work still when an attempt ended without a reply: nobody else comes before its deadline. */
void pjob_keep_quiet(struct pjob *j, const struct attempt *attempt)
{
    if (j->spec->concurrency == JOB_ALLOW || !attempt->sent || attempt->status >= 0)
        return;
    int64_t deadline_ms = planner_add_ms(attempt->started_ms, j->spec->callback.timeout_ms);
    if (deadline_ms > j->quiet_ms)
        j->quiet_ms = deadline_ms;
}

/* The next due has come while the first attempt of this one runs. */
void pjob_overlap(struct planner *p, struct pjob *j)
{
    pfire_book_first(p, j);
    if (j->spec->concurrency == JOB_REPLACE)
        cancel_unfinished(p, j, UINT64_MAX);
}

/* forbid: the dues that came while it ran are skipped, told in one row. */
void pjob_ended_first(struct planner *p, struct pjob *j)
{
    if (j->spec->concurrency == JOB_FORBID && j->row.state == JOB_STATE_ACTIVE)
        (void)pjob_skip(p, j, p->now_ms + 1, FIRE_REASON_OVERLAP);
}
