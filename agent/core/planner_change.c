/* What a job whose definition is changed fires next: what has its number already does not come again, and what has none yet is
 * not left out. */
#include "agent/core/planner_private.h"
#include "agent/core/ring_log.h"

static bool is_due(const struct job_spec *spec, int64_t at_ms)
{
    int64_t due_ms;
    return job_last_due_before(spec, at_ms + 1, &due_ms) && due_ms == at_ms;
}

/* --- what has fired -------------------------------------------------------------------------------------------------- */

/* Those are no dues. What the schedule asked for since the last change is a due of it. */
static bool last_was_by_hand(const struct pjob *j)
{
    const struct job_row *row = &j->row;
    bool none = row->scheduled == 0 && row->last.outcome != FIRE_OUTCOME_SKIPPED;
    return none || (row->last.due_ms > row->updated_ms && !is_due(j->spec, row->last.due_ms));
}

/* Newest first; how many. */
static size_t read_ring(const struct pjob *j, struct ring_entry entries[RING_LOG_KEEP_MAX])
{
    size_t n = 0;
    return ring_log_read(j->row.ring, j->row.ring_bytes, entries, &n, NULL) < 0 ? 0 : n;
}

/* Nobody wrote down the last due of a done job before: it came before its last fire ended. */
static int64_t unknown_by_ms(const struct planner *p, const struct pjob *j)
{
    int64_t done_ms = j->row.wake_ms - j->spec->ttl_after_done_ms, due_ms;
    if (j->spec->one_shot || done_ms > p->now_ms)
        done_ms = p->now_ms;
    return job_last_due_before(j->spec, done_ms + 1, &due_ms) ? due_ms : RECORD_NONE;
}

/* That fire may be under way still, and not even here: but what the schedule asked for since the last change was given numbers one
 * after the other, up to the next one. */
int64_t pchange_fired_ms(const struct planner *p, const struct pjob *j)
{
    const struct job_row *row = &j->row;
    int64_t ret_ms = last_was_by_hand(j) ? RECORD_NONE : row->last.due_ms, due_ms;
    if (row->due_ms == RECORD_NONE)
        ret_ms = planner_later(ret_ms, unknown_by_ms(p, j));
    else if (row->state == JOB_STATE_DONE)
        ret_ms = row->due_ms;
    else if (job_last_due_before(j->spec, row->due_ms, &due_ms) && due_ms > row->updated_ms)
        ret_ms = planner_later(ret_ms, due_ms);
    LIST_FOR (l, &j->fires) {
        const struct fire_row *f = &container_of(l, struct pfire, job_link)->row;
        if (f->kind == FIRE_KIND_SCHEDULED)
            ret_ms = planner_later(ret_ms, f->due_last_ms);
    }
    return ret_ms;
}

/* --- what comes next ------------------------------------------------------------------------------------------------- */

static bool has_fire(const struct pjob *j, const struct job_spec *before, int64_t at_ms)
{
    struct ring_entry entries[RING_LOG_KEEP_MAX];
    if (is_due(before, at_ms) && (before->one_shot || at_ms >= j->row.created_ms))
        return true;
    LIST_FOR (l, &j->fires) {
        const struct fire_row *f = &container_of(l, struct pfire, job_link)->row;
        if (f->kind == FIRE_KIND_SCHEDULED && (f->due_ms == at_ms || f->due_last_ms == at_ms))
            return true;
    }
    size_t n = read_ring(j, entries);
    for (size_t i = 0; i < n; i++)
        if (entries[i].due_ms == at_ms)
            return true;
    return false;
}

/* An instant before what the definition BEFORE fired last is asked for all the same, unless it was one of those. */
static bool first_instant(const struct pjob *j, const struct job_spec *before, int64_t accepted_ms,
                          int64_t fired_ms, int64_t *ret_ms)
{
    int64_t at_ms;
    if (!j->spec->one_shot || !job_first_due(j->spec, accepted_ms, RECORD_NONE, ret_ms) || *ret_ms > fired_ms)
        return false;
    bool any = true;
    for (at_ms = *ret_ms; any && at_ms <= fired_ms; any = job_next_due(j->spec, at_ms, &at_ms))
        if (has_fire(j, before, at_ms))
            return false;
    return true;
}

void pchange_done(struct pjob *j, int64_t fired_ms)
{
    if (j->row.state == JOB_STATE_DONE)
        j->row.due_ms = planner_later(fired_ms, j->row.created_ms);
}

void pchange_plan(struct planner *p, struct pjob *j, const struct planner_api *api, bool same_schedule,
                  int64_t fired_ms)
{
    int64_t due_ms = j->row.due_ms;
    if (same_schedule && j->row.state != JOB_STATE_DONE) {
        pjob_advance(p, j, due_ms != RECORD_NONE, due_ms); /* jitter and max_fires may be others now */
        pchange_done(j, fired_ms);
        return;
    }
    bool any = same_schedule ? job_next_due(j->spec, planner_later(api->accepted_ms, fired_ms), &due_ms)
                             : first_instant(j, j->replaced, api->accepted_ms, fired_ms, &due_ms) ||
                                   job_first_due(j->spec, api->accepted_ms, fired_ms, &due_ms);
    if (same_schedule && !any)
        return; /* it is as done as before */
    if (j->row.state == JOB_STATE_DONE)
        j->row.state = JOB_STATE_ACTIVE;
    pjob_advance(p, j, any, due_ms);
    pchange_done(j, fired_ms);
    pzones_stamp(p, j); /* also where the due of another zone is the same */
}
