/* Fires that go to every endpoint of a service. Their endpoints are asked for, frozen in the row, and only then written to. One
 * attempt is a round: each part that is pending goes to its endpoint, all at once. A part's end is on its way to the store when it is
 * known, so that a crash repeats only those that were in flight; the round's end decides about the fire. */
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/core/fire_parts.h"
#include "agent/core/planner_private.h"

static void set_text(struct planner *p, struct pfire *f, char *text, size_t bytes)
{
    p->stats.memory_bytes += bytes - f->row.parts_bytes;
    mem_free(f->row.parts);
    f->row.parts = text;
    f->row.parts_bytes = bytes;
}

/* Without memory the row goes on telling what it told, the parts stay in memory until it does not, and it is not written. */
static bool write_parts(struct planner *p, struct pfire *f, const struct fire_parts *parts)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(FIRE_PARTS_TEXT_MAX);
    size_t bytes;
    fire_parts_print(parts, &out);
    char *text = buf_steal(&out, &bytes, NULL);
    if (text)
        set_text(p, f, text, bytes);
    return text != NULL;
}

/* Before a delivery. What is not ours is frozen anew. False: no memory now. */
static bool open_parts(struct planner *p, struct pfire *f)
{
    struct err e = {0};
    if (f->parts || !f->row.parts)
        return true;
    int r = fire_parts_parse(f->row.parts, f->row.parts_bytes, &f->parts, &e);
    if (r < 0 && r != -ERR_NOMEM) {
        planner_log(p, "the endpoints of a fire of %s are asked for again: %s", f->job->row.id, e.text);
        set_text(p, f, NULL, 0);
    }
    return r != -ERR_NOMEM;
}

bool pparts_write(struct planner *p, struct pfire *f)
{
    if (f->parts_stale)
        f->parts_stale = !write_parts(p, f, f->parts);
    return !f->parts_stale;
}

/* After a delivery. */
static void put_parts(struct planner *p, struct pfire *f)
{
    if (pparts_write(p, f))
        fire_parts_free(TAKE(f->parts));
}

/* At most once: a part that was tried and not acknowledged is not tried again; the others may still go. */
static void give_up_tried(struct planner *p, struct pfire *f)
{
    bool any = false;
    if (!f->job->spec->at_most_once || f->row.state != FIRE_STATE_WAITING ||
        f->row.attempts == f->row.attempts_before)
        return;
    for (size_t i = 0; f->parts && i < f->parts->count; i++) {
        struct fire_part *part = &f->parts->items[i];
        if (part->state != FIRE_PART_PENDING || part->attempts == 0)
            continue;
        part->state = FIRE_PART_DEAD;
        any = true;
    }
    f->parts_stale |= any && !write_parts(p, f, f->parts);
}

/* Its last part may have ended, and who knew it died before the fire did. */
bool pparts_open(struct planner *p, struct pfire *f)
{
    static const struct attempt none = {.result = ATTEMPT_OK, .status = -1, .retry_after_ms = -1};
    if (f->job->spec->callback.to == JOB_TO_ONE)
        return true; /* its definition is another one now; parts that lacked memory to be put away may still be here */
    if (!open_parts(p, f)) {
        f->row.wake_ms = p->now_ms + PLANNER_AGAIN_MS;
        pfire_arm(p, f);
        return false;
    }
    give_up_tried(p, f);
    if (!f->parts || fire_parts_count(f->parts, FIRE_PART_PENDING) > 0)
        return true;
    struct pjob *j = f->job;
    pparts_ended(p, f, &none);
    pjob_settle(p, j);
    return false;
}

/* The fire has ended, whatever its parts did. */
void pparts_close(struct planner *p, struct pfire *f)
{
    AUTO(fire_parts_free) struct fire_parts *parts = NULL;
    (void)pparts_write(p, f);
    f->parts_stale = false; /* history from now on */
    if (!f->row.parts || fire_parts_parse(f->row.parts, f->row.parts_bytes, &parts, NULL) < 0)
        return;
    fire_parts_close(parts, f->row.outcome == FIRE_OUTCOME_DEAD ? FIRE_PART_DEAD : FIRE_PART_CANCELLED);
    (void)write_parts(p, f, parts);
}

void pparts_reopen(struct planner *p, struct pfire *f)
{
    AUTO(fire_parts_free) struct fire_parts *parts = NULL;
    if (!f->row.parts || fire_parts_parse(f->row.parts, f->row.parts_bytes, &parts, NULL) < 0)
        return; /* asked for anew */
    for (size_t i = 0; i < parts->count; i++)
        if (parts->items[i].state == FIRE_PART_DEAD || parts->items[i].state == FIRE_PART_CANCELLED)
            parts->items[i].state = FIRE_PART_PENDING;
    (void)write_parts(
        p, f, parts); /* without memory its endpoints count as done, which the next attempt finds out */
}

/* No attempt was made, which a row that is held has to take back. */
static void not_counted(struct pfire *f)
{
    if (f->row.state == FIRE_STATE_HELD)
        f->row.attempts = f->delivery.attempt - 1;
}

/* The list of endpoints that was asked for. */
void pparts_found(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    AUTO(fire_parts_free) struct fire_parts *parts = NULL;
    struct err e = {0};
    int r = fire_parts_new(attempt->endpoints, attempt->endpoints_count, &parts, &e);
    if (r == -ERR_TOO_BIG) {
        struct attempt too_many = {
            .result = ATTEMPT_RETRY, .status = -1, .retry_after_ms = -1, .started_ms = attempt->started_ms};
        (void)snprintf(too_many.error, sizeof(too_many.error), "%.119s", e.text); /* cut, as all are */
        pfire_failed(p, f, &too_many);
        return;
    }
    bool frozen = r == 0 && write_parts(p, f, parts);
    not_counted(f);
    pfire_wait_until(p, f, p->now_ms + (frozen ? 0 : PLANNER_AGAIN_MS));
}

static bool part_ends(struct fire_part *part, const struct attempt *attempt)
{
    switch (attempt->result) {
    case ATTEMPT_OK:
        part->state = FIRE_PART_SUCCEEDED;
        break;
    case ATTEMPT_GIVE_UP:
        part->state = FIRE_PART_DEAD;
        break;
    case ATTEMPT_GONE:
        part->state = FIRE_PART_GONE;
        return true;
    case ATTEMPT_RETRY:
        break;
    case ATTEMPT_OPEN: /* a fire for many endpoints is not asynchronous */
    case ATTEMPT_NOT_STARTED:
    case ATTEMPT_NO_ENDPOINT:
    case ATTEMPT_ENDPOINTS:
    case ATTEMPT_RESULT_COUNT_:
        return false;
    }
    part->status = attempt->status;
    part->attempts++;
    return true;
}

static void note_attempt(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    bool first = !f->round_begun;
    f->round_begun = true;
    f->row.attempts = f->delivery.attempt;
    if (f->row.started_ms == RECORD_NONE)
        f->row.started_ms = attempt->started_ms;
    pend_log(p, &f->row, attempt);
    pend_tell(p, f->job, &f->row, attempt, 1);
    if (!first) /* a fire is late once */
        p->actions->items[p->actions->count - 1].lateness_ms = -1;
}

void planner_on_part(struct planner *p, const struct planner_event *event)
{
    struct pfire *f = container_of(event->delivery, struct pfire, delivery);
    struct fire_part *part = &f->parts->items[event->part];
    if (f->ignored || f->ended || !part_ends(part, event->attempt))
        return;
    if (event->attempt->control > f->control)
        f->control = event->attempt->control;
    f->row.until_ms = f->control == ATTEMPT_CONTROL_NONE ? RECORD_NONE : (int64_t)f->control;
    if (event->attempt->result != ATTEMPT_GONE)
        note_attempt(p, f, event->attempt);
    f->parts_stale = !write_parts(p, f, f->parts);
    /* A held row is written once more, by its end: were a write between lost in a change of owners, nobody could tell whether the row is
     * still as we know it. */
    if (f->row.state == FIRE_STATE_HELD)
        return;
    pfire_dirty(p, f, f->durable_rev || f->in_batch ? CHANGE_UPDATE : CHANGE_INSERT);
    pjob_unwritten(p, f->job);
}

/* Something is pending: the job's rule says when the next round is. */
static void next_round(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    if (attempt->result == ATTEMPT_NOT_STARTED) {
        if (!f->round_begun)
            not_counted(f);
        pfire_wait_until(p, f, f->revoked ? p->now_ms : p->now_ms + PLANNER_AGAIN_MS);
    } else if (attempt->result == ATTEMPT_NO_ENDPOINT && !f->round_begun) {
        pfire_no_endpoint(p, f);
    } else {
        pfire_count_failure(p, f->job);
        pfire_retry_or_die(p, f, attempt->retry_after_ms, NULL);
    }
}

/* Every part of the round is back; ATTEMPT is the worst of them. */
void pparts_ended(struct planner *p, struct pfire *f, const struct attempt *attempt)
{
    size_t pending = fire_parts_count(f->parts, FIRE_PART_PENDING);
    size_t dead = fire_parts_count(f->parts, FIRE_PART_DEAD);
    size_t succeeded = fire_parts_count(f->parts, FIRE_PART_SUCCEEDED);
    put_parts(p, f);
    if (pending > 0) {
        next_round(p, f, attempt);
    } else if (dead > 0) {
        pfire_count_failure(p, f->job);
        pfire_end(p, f, FIRE_OUTCOME_DEAD,
                  f->job->spec->at_most_once ? FIRE_REASON_AT_MOST_ONCE : FIRE_REASON_GIVE_UP, NULL);
    } else if (succeeded > 0) {
        struct pjob *j = f->job;
        pfire_end(p, f, FIRE_OUTCOME_SUCCEEDED, FIRE_REASON_NONE, NULL);
        papi_asked(p, j);
    } else { /* all have left before they could be reached: those that are there now take their place */
        set_text(p, f, NULL, 0);
        not_counted(f);
        pfire_wait_until(p, f, p->now_ms + PLANNER_AGAIN_MS);
    }
}
