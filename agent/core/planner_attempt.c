#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/fire_parts.h"
#include "agent/core/planner_private.h"

static void unmark(struct pfire *f)
{
    f->marked = false;
    memset(f->row.holder, 0, sizeof(f->row.holder));
}

static bool is_plain_success(const struct fire_row *row)
{
    return row->outcome == FIRE_OUTCOME_SUCCEEDED && row->kind == FIRE_KIND_SCHEDULED && row->attempts == 1 &&
           row->coalesced == 0 && row->seq == row->seq_last;
}

/* A success at the first attempt needs no row of its own: the job's ring has it. */
static void write_end(struct planner *p, struct pfire *f, bool plain)
{
    if (plain && f->durable_rev == 0 && !f->in_batch)
        f->dirty = CHANGE_NONE;
    else if (plain)
        pfire_dirty(p, f, CHANGE_DELETE);
    else
        pfire_dirty(p, f, f->durable_rev || f->in_batch ? CHANGE_UPDATE : CHANGE_INSERT);
}

int64_t pfire_keep_until_ms(const struct planner *p, const struct fire_row *row)
{
    const struct planner_options *o = &p->options;
    return planner_add_ms(p->now_ms,
                          row->outcome == FIRE_OUTCOME_DEAD ? o->dead_keep_ms : o->history_keep_ms);
}

/* An attempt that was accepted (OPEN) was told of then. */
static void tell(struct planner *p, const struct pfire *f, const struct attempt *attempt, uint64_t count)
{
    pend_tell(p, f->job, &f->row, f->row.state == FIRE_STATE_OPEN ? NULL : attempt, count);
}

/* The end of a booked fire. Of a slot that was or is being given away it is only reported: its new owner counts it. So is a success
 * whose reply asks for something, until that can be done. */
void pfire_end(struct planner *p, struct pfire *f, enum fire_outcome outcome, enum fire_reason reason,
               const struct attempt *attempt)
{
    struct pjob *j = f->job;
    struct fire_row *row = &f->row;
    uint64_t count = row->seq_last - row->seq + 1;
    row->outcome = outcome;
    row->reason = reason;
    row->finished_ms = p->now_ms;
    pparts_close(p, f);
    if (outcome == FIRE_OUTCOME_DEAD) {
        pfire_name(f); /* the copy is of the definition as it is now */
        f->letter_until_ms = planner_add_ms(pfire_keep_until_ms(p, row), PLANNER_COPY_MORE_MS);
    }
    wheel_cancel(p->wheel, &f->timer);
    planner_start_cancel(p, &f->start);
    pfire_set_target(p, f, false);
    unmark(f);
    f->ended = true;
    tell(p, f, attempt, count);
    row->until_ms = RECORD_NONE;
    bool asks = outcome == FIRE_OUTCOME_SUCCEEDED && f->control != ATTEMPT_CONTROL_NONE;
    if (j->state == PJOB_GONE || j->moving || asks) {
        row->state = FIRE_STATE_REPORTED;
        row->wake_ms = p->now_ms;
        if (outcome == FIRE_OUTCOME_DEAD)
            row->until_ms = pfire_keep_until_ms(p, row);
        else if (asks)
            row->until_ms = (int64_t)f->control;
        j->asked |= asks;
        write_end(p, f, false);
        return;
    }
    row->state = FIRE_STATE_ENDED;
    row->wake_ms = pfire_keep_until_ms(p, row);
    pend_count(p, j, row, count);
    bool plain = attempt && is_plain_success(row);
    if (plain)
        pend_ring(p, j, row, attempt);
    write_end(p, f, plain);
    pjob_unwritten(p, j);
    pjob_dirty(p, j, CHANGE_UPDATE);
    pfire_leave(p, f);
}

static void note_start(struct pfire *f, const struct attempt *attempt)
{
    if (f->booked)
        pfire_name(f);
    f->row.attempts = f->delivery.attempt;
    f->row.attempt_ms = attempt->started_ms;
    if (f->row.attempts == 1)
        f->row.started_ms = attempt->started_ms;
}

/* The path of nearly all fires: one row update, no row of its own. */
static void first_succeeded(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    struct pjob *j = f->job;
    f->row.outcome = FIRE_OUTCOME_SUCCEEDED;
    f->row.finished_ms = p->now_ms;
    j->row.counts.seq++;
    j->row.scheduled++;
    pend_count(p, j, &f->row, 1);
    pend_ring(p, j, &f->row, attempt);
    pend_tell(p, j, &f->row, attempt, 1);
    pjob_advance(p, j, j->has_next_due, j->next_due_ms);
    pjob_unwritten(p, j);
    pjob_dirty(p, j, CHANGE_UPDATE);
    pfire_free(p, f);
    pjob_ended_first(p, j);
}

/* Number and row for a first attempt that did not succeed. */
static void book(struct planner *p, struct pfire *f)
{
    if (f->booked)
        return;
    pfire_book_first(p, f->job);
}

static void remember_endpoint(struct delivery *d, const char *endpoint)
{
    if (!endpoint[0])
        return;
    memmove(d->tried[1], d->tried[0], sizeof(d->tried) - sizeof(d->tried[0]));
    memcpy(d->tried[0], endpoint, sizeof(d->tried[0]));
    d->tried[0][sizeof(d->tried[0]) - 1] = '\0';
}

void pfire_wait_until(struct planner *p, struct pfire *f, int64_t wake_ms)
{
    f->row.state = FIRE_STATE_WAITING;
    f->row.wake_ms = wake_ms;
    f->row.until_ms = f->control == ATTEMPT_CONTROL_NONE ? RECORD_NONE : (int64_t)f->control;
    unmark(f);
    pfire_dirty(p, f, f->durable_rev || f->in_batch ? CHANGE_UPDATE : CHANGE_INSERT);
}

void pfire_retry_or_die(struct planner *p, struct pfire *f, int64_t retry_after_ms,
                        const struct attempt *told)
{
    const struct job_spec *spec = f->job->spec;
    uint64_t after_ms = retry_after_ms > 0 ? (uint64_t)retry_after_ms : 0;
    int64_t next_ms = 0;
    if (spec->at_most_once) {
        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_AT_MOST_ONCE, told);
        return;
    }
    switch (retry_decide(&spec->retry, f->row.attempts - f->row.attempts_before, f->row.first_ms, p->now_ms,
                         after_ms, &p->rng, &next_ms)) {
    case RETRY_AGAIN:
        if (spec->concurrency != JOB_ALLOW && next_ms < f->job->quiet_ms)
            next_ms = f->job->quiet_ms;
        if (told)
            pend_tell(p, f->job, &f->row, told, 1);
        pfire_wait_until(p, f, next_ms);
        break;
    case RETRY_MAX_ATTEMPTS:
        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_MAX_ATTEMPTS, told);
        break;
    case RETRY_MAX_AGE:
    case RETRY_VERDICT_COUNT_:
        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_MAX_AGE, told);
        break;
    }
}

void pfire_count_failure(struct planner *p, struct pjob *j)
{
    j->row.consecutive_failures++;
    if (j->row.failing_since_ms == RECORD_NONE)
        j->row.failing_since_ms = p->now_ms;
    pjob_unwritten(p, j);
    if (j->state != PJOB_GONE && !j->moving)
        pjob_dirty(p, j, CHANGE_UPDATE);
}

void pfire_after_failure(struct planner *p, struct pfire *f, const struct attempt *attempt, bool told)
{
    remember_endpoint(&f->delivery, attempt->endpoint);
    pfire_count_failure(p, f->job);
    pjob_keep_quiet(f->job, attempt);
    if (attempt->result == ATTEMPT_GIVE_UP)
        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_GIVE_UP, attempt);
    else
        pfire_retry_or_die(p, f, attempt->retry_after_ms, told ? NULL : attempt);
}

void pfire_failed(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    struct pjob *j = f->job;
    bool first = !f->booked;
    book(p, f);
    note_start(f, attempt);
    pend_log(p, &f->row, attempt);
    pfire_after_failure(p, f, attempt, false);
    if (first)
        pjob_ended_first(p, j);
}

/* Its callee works on: a row tells until when it may. */
static void opened(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    book(p, f);
    note_start(f, attempt);
    popen_begin(p, f, attempt);
}

static void succeeded(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    struct pjob *j = f->job;
    bool first = !f->booked;
    f->control = attempt->control;
    if (f->control != ATTEMPT_CONTROL_NONE)
        book(p, f);
    note_start(f, attempt);
    if (!f->booked) {
        first_succeeded(p, f, attempt);
        return;
    }
    pend_log(p, &f->row, attempt);
    pfire_end(p, f, FIRE_OUTCOME_SUCCEEDED, FIRE_REASON_NONE, attempt);
    papi_asked(p, j);
    if (first)
        pjob_ended_first(p, j);
}

/* Later, without a write: what the row says is still true. May free F. */
static void look_again(struct planner *p, struct pfire *f, int64_t wake_ms)
{
    f->row.wake_ms = wake_ms;
    f->moved = true;
    pfire_arm(p, f);
}

/* No attempt was made: it comes again under the same number. A row that says HELD has to say otherwise first. */
static void not_started(struct planner *p, struct pfire *f)
{
    struct pjob *j = f->job;
    int64_t again_ms = f->revoked ? p->now_ms : p->now_ms + PLANNER_AGAIN_MS;
    if (f->revoked && f->booked && pjob_due_waits(p, j)) { /* called back: it is folded into that */
        again_ms = p->now_ms + PLANNER_NO_ENDPOINT_MS;
        j->not_before_ms = 0;
    }
    if (!f->booked) {
        j->not_before_ms = again_ms;
        pfire_free(p, f);
    } else if (f->row.state == FIRE_STATE_HELD) {
        f->row.attempts = f->delivery.attempt - 1;
        pfire_wait_until(p, f, again_ms);
    } else {
        look_again(p, f, again_ms);
    }
}

/* Looks are for the end of its age: that there is an endpoint RELEASE tells. */
static int64_t look_ms(const struct planner *p, const struct pfire *f)
{
    const struct retry_rule *rule = &f->job->spec->retry;
    int64_t next_ms = p->now_ms + PLANNER_NO_ENDPOINT_MS;
    int64_t end_ms =
        rule->max_age_ms ? planner_add_ms(f->row.first_ms, (int64_t)rule->max_age_ms) : PLANNER_NEVER;
    return next_ms < end_ms ? next_ms : end_ms;
}

/* It waits, visibly, for an endpoint to appear, as long as the job's retries may go on. Its row says so once: writing each look
 * would cost the store a write a second and fire for as long as a service is away. */
void pfire_no_endpoint(struct planner *p, struct pfire *f)
{
    const struct retry_rule *rule = &f->job->spec->retry;
    bool told = f->booked && f->dirty == CHANGE_NONE && f->row.state == FIRE_STATE_WAITING &&
                f->row.reason == FIRE_REASON_NO_ENDPOINT;
    book(p, f);
    f->row.attempts = f->delivery.attempt - 1;
    f->row.reason = FIRE_REASON_NO_ENDPOINT;
    if (rule->max_age_ms && p->now_ms - f->row.first_ms >= (int64_t)rule->max_age_ms)
        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_NO_ENDPOINT, NULL);
    else if (!told)
        pfire_wait_until(p, f, look_ms(p, f));
    else
        look_again(p, f, look_ms(p, f));
}

/* Why a first attempt was late, as far as the planner knows better than whoever delivered it. */
static enum fire_wait waited_for(const struct pfire *f, const struct attempt *attempt)
{
    const struct fire_row *row = &f->row;
    if (row->reason == FIRE_REASON_NO_ENDPOINT || attempt->waited_for == FIRE_WAIT_ENDPOINT)
        return FIRE_WAIT_ENDPOINT;
    bool first = f->delivery.attempt == 1 && row->kind == FIRE_KIND_SCHEDULED;
    if (first && row->first_ms - row->due_ms - (int64_t)row->jitter_ms >= PLANNER_OVERDUE_MS)
        return FIRE_WAIT_START;
    return attempt->waited_for;
}

static void take_result(struct planner *p, struct pfire *f, const struct attempt *given)
{
    struct attempt own = *given, *attempt = &own;
    own.waited_for = waited_for(f, given);
    if (attempt->result < ATTEMPT_NO_ENDPOINT)
        f->row.reason = FIRE_REASON_NONE;
    switch (attempt->result) {
    case ATTEMPT_OK:
        succeeded(p, f, attempt);
        break;
    case ATTEMPT_OPEN:
        opened(p, f, attempt);
        break;
    case ATTEMPT_RETRY:
    case ATTEMPT_GIVE_UP:
        pfire_failed(p, f, attempt);
        break;
    case ATTEMPT_NOT_STARTED:
        not_started(p, f);
        break;
    case ATTEMPT_NO_ENDPOINT:
        pfire_no_endpoint(p, f);
        break;
    case ATTEMPT_ENDPOINTS:
        pparts_found(p, f, attempt);
        break;
    case ATTEMPT_GONE: /* parts only */
    case ATTEMPT_RESULT_COUNT_:
        break;
    }
}

void planner_on_attempt(struct planner *p, const struct planner_event *event)
{
    struct pfire *f = container_of(event->delivery, struct pfire, delivery);
    const struct attempt *attempt = event->attempt;
    struct pjob *j = f->job;
    assert(f->in_flight);
    f->in_flight = false;
    p->stats.in_flight--;
    planner_trash(p, (void (*)(void *))job_spec_unref, TAKE(f->spec)); /* lives until the next step */
    pfire_back(p, f, attempt->result == ATTEMPT_OK || attempt->result == ATTEMPT_OPEN);
    if (f->ignored) {
        fire_parts_free(TAKE(f->parts));
        f->parts_stale = false;
        pfire_leave(p, f);
    } else if (f->settled) {
        f->settled = false;
        pfire_arm(p, f);
    } else if (f->delivery.parts) {
        pparts_ended(p, f, attempt);
    } else {
        take_result(p, f, attempt);
    }
    pjob_settle(p, j);
}
