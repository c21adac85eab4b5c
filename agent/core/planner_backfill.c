/* Backfills: the dues of a span in the past, fired beside the schedule. Where one stands is two instants in the job's row,
 * walked a few fires at a time: a large span costs no memory, and whoever owns the slot next goes on from there. Its fires
 * have a bound of their own, as large as max_pending, so that they hold up no due. */
#include <stdio.h>

#include "agent/core/planner_private.h"

bool pbackfill_active(const struct job_row *row)
{
    return row->backfill_next_ms != RECORD_NONE && row->backfill_next_ms < row->backfill_until_ms;
}

int64_t pbackfill_wake_ms(const struct job_row *row)
{
    bool walks = pbackfill_active(row) && row->state != JOB_STATE_PAUSED;
    return walks && row->backfill_next_ms < row->wake_ms ? row->backfill_next_ms : row->wake_ms;
}

/* The row in the store wakes its owner for the backfill's sake; in memory wake_ms is the schedule's own. */
void pbackfill_loaded(struct planner *p, struct pjob *j)
{
    struct job_row *row = &j->row;
    if (!pbackfill_active(row) || !j->spec)
        return;
    if (row->state == JOB_STATE_DONE)
        row->wake_ms = planner_add_ms(p->now_ms, j->spec->ttl_after_done_ms);
    else if (row->state == JOB_STATE_ACTIVE)
        row->wake_ms = row->due_ms + job_jitter_ms(j->spec, &row->uid, row->due_ms);
}

static bool runs_beside(const struct planner *p, const struct pjob *j)
{
    if (j->spec->concurrency == JOB_ALLOW)
        return true;
    /* One at a time is the job's rule: what the schedule has to fire goes first. */
    bool due = j->row.state == JOB_STATE_ACTIVE && j->row.wake_ms <= p->now_ms;
    return pjob_pending(j) == 0 && !j->first && !due;
}

bool pbackfill_ready(const struct planner *p, const struct pjob *j)
{
    return pbackfill_active(&j->row) && pjob_active(j) && j->row.state != JOB_STATE_PAUSED && pjob_clean(j) &&
           !j->write_dirty && !j->asked && j->row.backfill_pending < j->spec->max_pending &&
           runs_beside(p, j);
}

static void finish(struct planner *p, struct pjob *j)
{
    j->row.backfill_next_ms = j->row.backfill_until_ms = RECORD_NONE;
    if (j->row.state == JOB_STATE_DONE)
        j->row.wake_ms = planner_add_ms(p->now_ms, j->spec->ttl_after_done_ms);
}

/* False: that was the last, or there is no memory now. */
static bool book_next(struct planner *p, struct pjob *j)
{
    int64_t due_ms = 0;
    if (!job_next_due(j->spec, j->row.backfill_next_ms - 1, &due_ms) || due_ms >= j->row.backfill_until_ms) {
        finish(p, j);
        return false;
    }
    if (!pfire_book(p, j, due_ms, FIRE_KIND_BACKFILL))
        return false;
    j->row.backfill_next_ms = due_ms + 1;
    return true;
}

void pbackfill_go(struct planner *p, struct pjob *j)
{
    bool one = j->spec->concurrency != JOB_ALLOW;
    if (!pjob_book_due(p, j)) /* numbers are given in the order of booking */
        return;
    do {
        if (!book_next(p, j))
            break;
    } while (!one && j->row.backfill_pending < j->spec->max_pending);
    j->plan_dirty = true; /* the next seq is not what it was: nothing starts before that is durable */
    pjob_dirty(p, j, CHANGE_UPDATE);
}

bool pbackfill_running(const struct pjob *j)
{
    LIST_FOR (l, &j->fires) {
        const struct pfire *f = container_of(l, struct pfire, job_link);
        if (!f->ended && !f->ignored && pfire_aside(f) &&
            (f->in_flight || f->row.state == FIRE_STATE_HELD || f->row.state == FIRE_STATE_OPEN))
            return true;
    }
    return false;
}

/* --- asked for ------------------------------------------------------------------------------------------------------- */

static void count(const struct pjob *j, struct planner_api *api)
{
    bool past = api->backfill_from_ms < api->backfill_to_ms && api->backfill_to_ms <= api->accepted_ms;
    api->backfill_dues =
        past ? job_count_dues(j->spec, api->backfill_from_ms, api->backfill_to_ms, PLANNER_BACKFILL_MAX + 1)
             : 0;
}

void pbackfill_found(const struct pjob *j, struct planner_api *api)
{
    if (api->op == PLANNER_BACKFILL && j->spec)
        count(j, api);
}

static bool refused(struct planner_api *api)
{
    const char *why = NULL;
    if (api->backfill_from_ms >= api->backfill_to_ms)
        why = "from must be before to";
    else if (api->backfill_to_ms > api->accepted_ms)
        why = "the span must lie in the past: what is to come the schedule fires";
    else if (api->backfill_dues > PLANNER_BACKFILL_MAX)
        why = "the span holds more than 10000 dues: backfill it in parts, one after the other";
    if (why)
        snprintf(api->refusal, sizeof(api->refusal), "%s", why);
    return why != NULL;
}

void pbackfill_ask(struct planner *p, struct pjob *j, struct planner_api *api)
{
    count(j, api);
    if (refused(api)) {
        papi_reply(p, j, PLANNER_INVALID);
        return;
    }
    if (pbackfill_active(&j->row)) {
        papi_reply(p, j, PLANNER_EXISTS);
        return;
    }
    int64_t due_ms = job_row_next_due_ms(&j->row);
    if (api->backfill_dues > 0) {
        j->row.backfill_next_ms = api->backfill_from_ms;
        j->row.backfill_until_ms = api->backfill_to_ms;
    }
    papi_revise(j, api, "backfill", due_ms);
    pjob_dirty(p, j, CHANGE_UPDATE);
    papi_applied(j, PLANNER_ACCEPTED);
}
