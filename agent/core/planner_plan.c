#include <assert.h>
#include <stdio.h>

#include "agent/core/planner_private.h"

#define EXPIRE_AGAIN_MS 60000 /* a done job with unfinished fires is looked at again after this */

bool pjob_next_due(const struct pjob *j, int64_t *ret_ms)
{
    /* An instant that was in the past when the job was made does not bring the recurring dues before that with it. */
    if (j->row.due_ms < j->row.created_ms)
        return job_first_due(j->spec, j->row.created_ms, j->row.due_ms, ret_ms);
    return job_next_due(j->spec, j->row.due_ms, ret_ms);
}

static bool fires_left(const struct pjob *j)
{
    return j->spec->max_fires == 0 || j->row.scheduled < j->spec->max_fires;
}

/* The row goes on from its due, which has its fire. NEXT_MS counts only when there is a next one. */
void pjob_advance(struct planner *p, struct pjob *j, bool has_next, int64_t next_ms)
{
    j->plan_dirty = true;
    j->not_before_ms = 0;
    if (!has_next || !fires_left(j)) {
        j->row.state = JOB_STATE_DONE; /* whose due is its last one */
        j->row.wake_ms = planner_add_ms(p->now_ms, j->spec->ttl_after_done_ms);
        return;
    }
    if (j->row.due_ms != next_ms)
        pzones_stamp(p, j);
    j->row.due_ms = next_ms;
    j->row.wake_ms = j->row.state == JOB_STATE_PAUSED
                         ? PLANNER_NEVER
                         : next_ms + job_jitter_ms(j->spec, &j->row.uid, next_ms);
}

void pjob_plan_new(struct planner *p, struct pjob *j, int64_t accepted_ms)
{
    int64_t due_ms = 0;
    bool any = job_first_due(j->spec, accepted_ms, RECORD_NONE, &due_ms);
    pjob_advance(p, j, any, due_ms);
}

/* --- runs of dues that are not fired -------------------------------------------------------------------------------- */

/* How many dues lie from the row's due on and before *UNTIL_MS, which comes nearer if they are too many to count. */
static uint64_t run_count(const struct pjob *j, int64_t *until_ms, int64_t *ret_last_ms)
{
    uint64_t count;
    while ((count = job_count_dues(j->spec, j->row.due_ms, *until_ms, PLANNER_RUN_MAX)) >= PLANNER_RUN_MAX)
        *until_ms = j->row.due_ms + (*until_ms - j->row.due_ms) / 2;
    if (count > 0 && !job_last_due_before(j->spec, *until_ms, ret_last_ms))
        return 0;
    return count;
}

static struct pfire *book_run(struct planner *p, struct pjob *j, uint64_t count, int64_t last_ms,
                              enum fire_outcome outcome, enum fire_reason reason)
{
    int64_t first_ms = j->row.due_ms;
    struct pfire *f = pfire_book(p, j, first_ms, FIRE_KIND_SCHEDULED);
    if (!f)
        return NULL;
    j->row.counts.seq += count - 1;
    f->row.seq_last = j->row.counts.seq;
    f->row.due_last_ms = last_ms;
    j->row.scheduled += count - 1;
    pfire_end(p, f, outcome, reason, NULL);
    return f;
}

/* Skip what was due before UNTIL_MS. False: nothing was, or there is no memory to tell of it now. */
bool pjob_skip(struct planner *p, struct pjob *j, int64_t until_ms, enum fire_reason reason)
{
    int64_t last_ms = 0, due_ms = job_row_next_due_ms(&j->row);
    if (due_ms == RECORD_NONE || due_ms >= until_ms)
        return false;
    uint64_t count = run_count(j, &until_ms, &last_ms);
    if (count == 0 || !book_run(p, j, count, last_ms, FIRE_OUTCOME_SKIPPED, reason))
        return false;
    j->row.scheduled -= count; /* skipped ones do not count against max_fires */
    j->row.due_ms = last_ms;
    int64_t next_ms = 0;
    bool has_next = pjob_next_due(j, &next_ms);
    pjob_advance(p, j, has_next, next_ms);
    pjob_dirty(p, j, CHANGE_UPDATE);
    return true;
}

/* misfire: last. The newest overdue one survives and tells how many were folded into it. */
static bool fold_overdue(struct planner *p, struct pjob *j)
{
    int64_t until_ms = p->now_ms + 1, last_ms = 0, newest_ms = 0;
    if (j->spec->one_shot || j->spec->misfire != JOB_MISFIRE_LAST ||
        !job_last_due_before(j->spec, until_ms, &newest_ms) || newest_ms <= j->row.due_ms)
        return false;
    until_ms = newest_ms;
    uint64_t count = run_count(j, &until_ms, &last_ms);
    if (count == 0 || (j->spec->max_fires && j->row.scheduled + count >= j->spec->max_fires))
        return false;
    if (!book_run(p, j, count, last_ms, FIRE_OUTCOME_COALESCED, FIRE_REASON_COALESCED))
        return false;
    j->row.due_ms = last_ms;
    bool has_next = pjob_next_due(j, &last_ms);
    assert(has_next); /* newest_ms at least */
    j->row.due_ms = last_ms;
    struct pfire *f = last_ms == newest_ms ? pfire_book(p, j, newest_ms, FIRE_KIND_SCHEDULED) : NULL;
    if (f) {
        f->row.coalesced = (uint32_t)count;
        has_next = pjob_next_due(j, &last_ms);
    }
    pjob_advance(p, j, has_next, last_ms);
    pjob_dirty(p, j, CHANGE_UPDATE);
    return true;
}

/* --- waking ---------------------------------------------------------------------------------------------------------- */

bool pjob_pending_full(const struct pjob *j)
{
    return pjob_pending(j) - j->row.backfill_pending + (j->first ? 1 : 0) >= j->spec->max_pending;
}

/* The next due waits until there are fewer. The other rules say themselves what becomes of one that finds a fire unfinished. */
static bool is_held_back(const struct pjob *j)
{
    return j->spec->concurrency == JOB_ALLOW && pjob_pending_full(j);
}

static int64_t overlap_ms(const struct pjob *j)
{
    enum job_concurrency rule = j->spec->concurrency;
    if (!j->has_next_due || rule == JOB_FORBID || is_held_back(j))
        return PLANNER_NEVER;
    if (rule == JOB_QUEUE) /* that it is watched while it waits costs a row: not for a short wait */
        return planner_add_ms(j->next_due_ms, PLANNER_QUEUE_LOOK_MS);
    return j->next_due_ms + job_jitter_ms(j->spec, &j->row.uid, j->next_due_ms);
}

static int64_t wake_ms(const struct pjob *j)
{
    if (j->asked) /* after a write that is not durable, or when there is memory */
        return j->write_dirty ? PLANNER_NEVER : j->not_before_ms;
    if (j->row.state == JOB_STATE_DONE && !pbackfill_active(&j->row))
        return j->row.wake_ms > j->not_before_ms ? j->row.wake_ms : j->not_before_ms;
    if (j->row.state != JOB_STATE_ACTIVE)
        return PLANNER_NEVER;
    if (j->first)
        return overlap_ms(j);
    if (j->plan_dirty || j->plan_in_batch || j->row.due_ms == RECORD_NONE || is_held_back(j))
        return PLANNER_NEVER;
    if (j->spec->concurrency != JOB_ALLOW && !pjob_clean(j))
        return PLANNER_NEVER;
    if (j->spec->concurrency == JOB_QUEUE && pjob_pending(j) > 0)
        return j->row.wake_ms > j->queue_look_ms ? j->row.wake_ms : j->queue_look_ms;
    if (j->spec->concurrency == JOB_FORBID && pbackfill_running(j))
        return PLANNER_NEVER; /* a fire of the past must not cost one of now, which waits for its attempt */
    int64_t from_ms = j->not_before_ms > j->quiet_ms ? j->not_before_ms : j->quiet_ms;
    return j->row.wake_ms > from_ms ? j->row.wake_ms : from_ms;
}

void pjob_arm(struct planner *p, struct pjob *j)
{
    if (j->state == PJOB_READING || list_linked(&j->start.link))
        return;
    int64_t at_ms = pjob_active(j) ? wake_ms(j) : PLANNER_NEVER;
    if (at_ms > p->now_ms && pbackfill_ready(p, j))
        at_ms = p->now_ms > j->not_before_ms ? p->now_ms : j->not_before_ms;
    if (at_ms == PLANNER_NEVER)
        wheel_cancel(p->wheel, &j->timer);
    else if (!wheel_timer_armed(&j->timer) || wheel_timer_due_ms(&j->timer) != (uint64_t)at_ms)
        planner_arm(p, &j->timer, at_ms);
}

/* A done job whose time to be readable is over. */
static void expire(struct planner *p, struct pjob *j)
{
    if (!pjob_clean(j) || !list_empty(&j->fires) || j->api || pjob_pending(j) > 0) {
        j->not_before_ms = p->now_ms + EXPIRE_AGAIN_MS;
        pjob_arm(p, j);
        return;
    }
    j->deleting = true;
    j->revision = (struct revision){.change_id = rng_u64(&p->rng),
                                    .at_ms = p->now_ms,
                                    .uid = j->row.uid,
                                    .version = j->row.version,
                                    .state = j->row.state,
                                    .due_ms = RECORD_NONE,
                                    .op = "expire"};
    snprintf(j->revision.actor, sizeof(j->revision.actor), "%.63s", p->member);
    pjob_dirty(p, j, CHANGE_DELETE);
}

/* Nothing is booked while nothing may start: the rows would only wait. */
static void backfill(struct planner *p, struct pjob *j)
{
    if (planner_starts_allowed(p)) {
        pbackfill_go(p, j);
        return;
    }
    j->not_before_ms = p->now_ms + PLANNER_AGAIN_MS;
    planner_arm(p, &j->timer, j->not_before_ms);
}

void pjob_timer(struct wheel_timer *t, void *arg)
{
    struct planner *p = arg;
    struct pjob *j = container_of(t, struct pjob, timer);
    if (j->state == PJOB_READING) {
        if (!j->read)
            planner_read_job(p, j);
        return;
    }
    if (!pjob_active(j))
        return;
    int64_t at_ms = wake_ms(j);
    if (j->asked)
        papi_run(p, j);
    else if (at_ms > p->now_ms && pbackfill_ready(p, j) && j->not_before_ms <= p->now_ms)
        backfill(p, j);
    else if (at_ms == PLANNER_NEVER)
        return;
    else if (at_ms > p->now_ms)
        planner_arm(p, t, at_ms);
    else if (j->row.state == JOB_STATE_DONE)
        expire(p, j);
    else if (j->first)
        pjob_overlap(p, j);
    else
        planner_start_later(p, &j->start, j->row.wake_ms);
}

static bool needs_booking(const struct job_spec *spec)
{
    return spec->at_most_once || spec->callback.async || spec->callback.to != JOB_TO_ONE;
}

/* False without memory: later. */
static bool start_booked(struct planner *p, struct pjob *j)
{
    int64_t next_ms = 0;
    if (!pfire_book(p, j, j->row.due_ms, FIRE_KIND_SCHEDULED)) {
        j->not_before_ms = p->now_ms + PLANNER_AGAIN_MS;
        pjob_arm(p, j);
        return false;
    }
    bool has_next = pjob_next_due(j, &next_ms);
    pjob_advance(p, j, has_next, next_ms);
    pjob_dirty(p, j, CHANGE_UPDATE);
    return true;
}

bool pjob_book_due(struct planner *p, struct pjob *j)
{
    pfire_book_first(p, j);
    if (j->row.state != JOB_STATE_ACTIVE || j->row.due_ms == RECORD_NONE ||
        j->row.wake_ms > p->now_ms + PLANNER_CLOCKS_DIFFER_MS)
        return true;
    enum job_concurrency rule = j->spec->concurrency;
    if ((rule == JOB_FORBID || rule == JOB_QUEUE) && pjob_pending(j) > 0)
        return true; /* nobody can have sent it: it waits for the end of another */
    planner_start_cancel(p, &j->start);
    return start_booked(p, j);
}

/* queue: the dues that have come take their numbers before what is asked for now. */
void pjob_book_queue(struct planner *p, struct pjob *j)
{
    while (j->row.state == JOB_STATE_ACTIVE && j->row.due_ms != RECORD_NONE && j->row.wake_ms <= p->now_ms &&
           !pjob_pending_full(j)) {
        planner_start_cancel(p, &j->start);
        if (!start_booked(p, j))
            return;
    }
}

void pjob_start(struct planner *p, struct pjob *j)
{
    if (!pjob_active(j) || j->first || j->asked || j->row.state != JOB_STATE_ACTIVE ||
        wake_ms(j) > p->now_ms) {
        pjob_settle(p, j);
        return;
    }
    int64_t window_ms = j->spec->misfire_window_ms;
    if (!j->spec->one_shot && j->row.due_ms < p->now_ms - window_ms &&
        pjob_skip(p, j, p->now_ms - window_ms, FIRE_REASON_LATE))
        return;
    if (!pjob_rule_allows(p, j) || fold_overdue(p, j))
        return;
    if (needs_booking(j->spec)) {
        (void)start_booked(p, j); /* or again soon */
        return;
    }
    j->has_next_due = pjob_next_due(j, &j->next_due_ms);
    pfire_first(p, j);
    pjob_arm(p, j);
}
