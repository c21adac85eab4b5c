/* Rules of time zones change. A member whose zone data are newer than those a job was planned with plans it anew: when the job comes
 * into memory anyhow, and all others of its slots in the background, a few slots and a page at a time, once after it gained them.
 * What was planned with newer data than its own it leaves alone. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

#define ZONES_BEGIN_MS 2000 /* after slots were gained: what is due now comes first */
#define ZONES_PAUSE_MS 50   /* between two pages */
#define ZONES_SLOTS    16   /* looked through at a time: a read examines all their rows */

/* "2026a"; where the data do not tell their release nothing can be said about their age. */
static bool is_release(const char *version)
{
    return version[0] >= '0' && version[0] <= '9';
}

static bool is_zoned(const struct job_spec *spec)
{
    return !spec->one_shot && strcmp(spec->timezone, "UTC") != 0;
}

/* The row's due is what the rules that are in force here say. */
void pzones_stamp(const struct planner *p, struct pjob *j)
{
    memset(j->row.tzdata, 0, sizeof(j->row.tzdata));
    if (is_zoned(j->spec))
        memcpy(j->row.tzdata, p->tzdata, sizeof(j->row.tzdata));
}

static bool is_stale(const struct planner *p, const struct job_row *row)
{
    return is_release(p->tzdata) && is_release(row->tzdata) && strcmp(row->tzdata, p->tzdata) < 0;
}

/* Dues after this have no fire yet. An end is never earlier than its due, and what was booked last has the highest seq: while that one
 * is open we only know that nothing of the future was booked. */
static int64_t unfired_since_ms(const struct planner *p, const struct job_row *row)
{
    int64_t since_ms = row->updated_ms;
    if (row->counts.seq > 0 && row->last.seq != row->counts.seq)
        since_ms = p->now_ms;
    else if (row->counts.seq > 0 && row->last.finished_ms > since_ms)
        since_ms = row->last.finished_ms;
    return since_ms < p->now_ms ? since_ms : p->now_ms;
}

/* What the row's due, which is still to come, is by our rules. They count from now, as those of a changed schedule do; only where the
 * due has moved behind us is it the newest one that has passed: nine o'clock that was to come at ten does not wait a day. */
static bool counterpart(const struct planner *p, const struct pjob *j, int64_t *ret_ms)
{
    int64_t passed_ms = 0, due_ms = j->row.due_ms;
    bool any = job_next_due(j->spec, p->now_ms, ret_ms);
    if (any && *ret_ms <= due_ms)
        return true;
    if (!job_last_due_before(j->spec, p->now_ms + 1, &passed_ms) ||
        passed_ms <= unfired_since_ms(p, &j->row) || (any && *ret_ms - due_ms <= due_ms - passed_ms))
        return any;
    *ret_ms = passed_ms;
    return true;
}

void pzones_replan(struct planner *p, struct pjob *j)
{
    struct job_row *row = &j->row;
    int64_t next_ms = 0;
    if (!pjob_active(j) || j->ghost || row->state != JOB_STATE_ACTIVE || !is_stale(p, row) ||
        !is_zoned(j->spec))
        return;
    /* A due that has come, or may have by the clock of who had it before, keeps its fire; what follows it is planned by our rules. */
    if (j->first || row->due_ms == RECORD_NONE || row->due_ms <= p->now_ms + PLANNER_CLOCKS_DIFFER_MS)
        return;
    bool any = counterpart(p, j, &next_ms);
    int64_t fired_ms = pchange_fired_ms(p, j);
    planner_start_cancel(p, &j->start);
    pjob_advance(p, j, any, next_ms);
    pchange_done(j, fired_ms);
    pzones_stamp(p, j);
    pjob_dirty(p, j, CHANGE_UPDATE);
    p->zones_replanned++;
    planner_act(p, PLANNER_DO_REPLANNED);
}

/* --- the background's part --------------------------------------------------------------------------------------------- */

void pzones_gained(struct planner *p, struct pslot *s)
{
    s->zones_seen = false;
    if (is_release(p->tzdata) && !wheel_timer_armed(&p->zones_timer))
        planner_arm(p, &p->zones_timer, p->now_ms + ZONES_BEGIN_MS);
}

void pzones_timer(struct wheel_timer *t, void *arg)
{
    struct planner *p = arg;
    uint16_t slots[ZONES_SLOTS];
    size_t n = 0;
    bool left = false;
    for (uint32_t i = 0; i < p->options.slots && n < ZONES_SLOTS; i++) {
        const struct pslot *s = &p->slots[i];
        if (s->state != PSLOT_HELD || s->zones_seen)
            continue;
        left = true;
        if (s->loading == 0)
            slots[n++] = (uint16_t)i;
    }
    if (n > 0) {
        planner_load_stale(p, slots, n);
    } else if (left) {
        planner_arm(p, t, p->now_ms + ZONES_BEGIN_MS);
    } else if (p->zones_replanned > 0) {
        planner_log(p, "%llu jobs were planned anew with zone data %s",
                    (unsigned long long)p->zones_replanned, p->tzdata);
        p->zones_replanned = 0;
    }
}

/* There are more pages of these slots. */
void pzones_page(struct planner *p, struct pchain *c)
{
    planner_arm(p, &c->retry, p->now_ms + ZONES_PAUSE_MS);
}

void pzones_done(struct planner *p, const struct pchain *c)
{
    for (size_t i = 0; i < c->slots_count; i++)
        p->slots[c->slots[i]].zones_seen = true;
    planner_arm(p, &p->zones_timer, p->now_ms + ZONES_PAUSE_MS);
}
