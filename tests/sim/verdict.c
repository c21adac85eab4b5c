/* Why a fire may end as it did: by the rules of its job, by what its callee did, by what was asked for. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/core/audit.h"
#include "agent/store/store_mem_private.h"
#include "tests/sim/witness.h"

#define CLOCK_MS 400
#define BACK_MS  1000 /* an agent's clock that is set back by less stands still so long */

static void refuse(const struct sim_story *s, const struct sim_row *r, const char *why)
{
    sim_broken("%s: fire %llu, due %lld, kind %d, ends as %s (%s): %s", s->job->id,
               (unsigned long long)r->seq, (long long)(r->due_ms - sim.epoch_ms), (int)r->kind,
               fire_outcome_name(r->outcome), r->reason ? fire_reason_name(r->reason) : "no reason", why);
}

/* Any definition that was in force while it was under way may have said so; which of them, the answers do not tell. */
static bool any_rules(const struct sim_story *s, bool (*fits)(const struct sim_rules *))
{
    for (unsigned i = 0; i < s->job->rules_count; i++)
        if (fits(s->job->rules[i]))
            return true;
    return false;
}

static bool forbids(const struct sim_rules *r)
{
    return r->concurrency == SIM_FORBID;
}

static bool queues(const struct sim_rules *r)
{
    return r->concurrency == SIM_QUEUE;
}

static bool replaces(const struct sim_rules *r)
{
    return r->concurrency == SIM_REPLACE;
}

static bool folds(const struct sim_rules *r)
{
    return r->misfire_last || forbids(r);
}

static bool has_window(const struct sim_rules *r)
{
    return r->window_ms < SIM_DAY_MS;
}

static bool once(const struct sim_rules *r)
{
    return r->at_most_once;
}

static bool limits_attempts(const struct sim_rules *r)
{
    return r->max_attempts > 0;
}

static unsigned least_attempts(const struct sim_story *s)
{
    unsigned least = 0;
    for (unsigned i = 0; i < s->job->rules_count; i++) {
        unsigned n = s->job->rules[i]->max_attempts;
        if (n > 0 && (least == 0 || n < least))
            least = n;
    }
    return least;
}

/* --- success ------------------------------------------------------------------------------------------------------- */

/* Every endpoint of the list that was frozen has acknowledged its part, or has left. */
static bool parts_acked(const struct sim_fire *f, const struct fire_row *row)
{
    AUTO(json_decref) json_t *parts = json_loadb(row->parts, row->parts_bytes, 0, NULL);
    size_t i, succeeded = 0;
    json_t *part;
    json_array_foreach(parts, i, part)
    {
        const char *outcome = json_string_value(json_object_get(part, "outcome"));
        if (!outcome)
            return false;
        bool ok = strcmp(outcome, "succeeded") == 0;
        if (ok && !(f->acked_parts >> (i + 1) & 1))
            return false;
        if (!ok && strcmp(outcome, "gone") != 0)
            return false;
        succeeded += ok;
    }
    return succeeded > 0;
}

void witness_success(const struct sim_story *s, const struct sim_row *r, const struct fire_row *row)
{
    const struct sim_fire *f = sim_fire_of(&s->uid, r->seq);
    bool whole = f && ((f->acked_parts & 1) || f->completed);
    if (!whole &&
        !(f && row && row->parts && parts_acked(f, row))) /* by another definition it may have been either */
        refuse(s, r, "its callee has not acknowledged it");
}

void witness_first_success(const struct sim_story *s, uint64_t seq, int64_t due_ms)
{
    const struct sim_fire *f = sim_fire_of(&s->uid, seq);
    if (!f || !(f->acked_parts & 1))
        sim_broken("%s: fire %llu counts as succeeded, and nobody acknowledged it", s->job->id,
                   (unsigned long long)seq);
    if (f->due_ms != due_ms)
        sim_broken("%s: fire %llu was of due %lld, the schedule says %lld", s->job->id,
                   (unsigned long long)seq, (long long)(f->due_ms - sim.epoch_ms),
                   (long long)(due_ms - sim.epoch_ms));
}

/* --- other ends ---------------------------------------------------------------------------------------------------- */

static void judge_dead(const struct sim_story *s, const struct sim_row *r)
{
    const struct sim_fire *f = sim_fire_of(&s->uid, r->seq);
    uint32_t made = r->attempts - r->attempts_before;
    if (f && f->heard && r->attempts_before == 0 && sim.planned)
        refuse(s, r, "its callee has acknowledged it");
    if (f && f->promised)
        refuse(s, r, "its callee completed it, and was told that it counts");
    if (r->reason == FIRE_REASON_AT_MOST_ONCE   ? !any_rules(s, once)
        : r->reason == FIRE_REASON_MAX_ATTEMPTS ? !any_rules(s, limits_attempts) || made < least_attempts(s)
                                                : r->reason != FIRE_REASON_GIVE_UP)
        refuse(s, r, "no rule of the job says so");
    if (r->reason == FIRE_REASON_GIVE_UP && (!f || !f->gave_up))
        refuse(s, r, "no callee gave up");
}

/* By how much the clock of whoever decided may be ahead. */
static int64_t ahead_ms(void)
{
    bool stands = sim.clock_set_us > 0 && sim.now_us - sim.clock_set_us < 2 * BACK_MS * 1000;
    return stands ? CLOCK_MS + BACK_MS : CLOCK_MS;
}

static void judge_skipped(const struct sim_story *s, const struct sim_row *r)
{
    switch ((int)r->reason) {
    case FIRE_REASON_OVERLAP:
        if (!any_rules(s, forbids))
            refuse(s, r, "overlaps are allowed");
        break;
    case FIRE_REASON_QUEUE_FULL:
        if (!any_rules(s, queues))
            refuse(s, r, "there is no queue");
        break;
    case FIRE_REASON_LATE:
        if (!any_rules(s, has_window) || r->due_last_ms > sim_wall_ms() - 5000 * sim.scale + ahead_ms())
            refuse(s, r, "it is not late");
        break;
    case FIRE_REASON_PAUSED:
        if (s->row.state != JOB_STATE_PAUSED || r->due_last_ms > sim_wall_ms() + CLOCK_MS)
            refuse(s, r, "the job was not paused then");
        break;
    default:
        refuse(s, r, "that is no reason");
    }
}

static void judge_cancelled(const struct sim_story *s, const struct sim_row *r)
{
    bool ok = r->reason == FIRE_REASON_REPLACED    ? any_rules(s, replaces)
              : r->reason == FIRE_REASON_CANCELLED ? s->job->cancelled
              : r->reason == FIRE_REASON_DISCARDED ? s->job->discarded
              : r->reason == FIRE_REASON_DELETED   ? s->job->deleting
                                                   : false;
    const struct sim_fire *f = sim_fire_of(&s->uid, r->seq);
    if (!ok)
        refuse(s, r, "nobody asked for that");
    if (f && f->promised && r->reason != FIRE_REASON_DELETED)
        refuse(s, r, "its callee completed it, and was told that it counts");
}

void witness_end(const struct sim_story *s, const struct sim_row *r, const struct fire_row *f)
{
    switch (r->outcome) {
    case FIRE_OUTCOME_SUCCEEDED:
        witness_success(s, r, f);
        break;
    case FIRE_OUTCOME_DEAD:
        judge_dead(s, r);
        break;
    case FIRE_OUTCOME_SKIPPED:
        judge_skipped(s, r);
        break;
    case FIRE_OUTCOME_COALESCED:
        if (!any_rules(s, folds))
            refuse(s, r, "no rule of the job says so");
        break;
    case FIRE_OUTCOME_CANCELLED:
        judge_cancelled(s, r);
        break;
    case FIRE_OUTCOME_PENDING:
    case FIRE_OUTCOME_COUNT_:
        refuse(s, r, "that is no end");
    }
}

void witness_reopened(const struct sim_story *s, const struct sim_row *was, struct sim_row *r)
{
    if (was->outcome != FIRE_OUTCOME_DEAD)
        refuse(s, was, "and has not ended any more");
    if (r->state == FIRE_STATE_ENDED) {
        if (r->outcome != FIRE_OUTCOME_CANCELLED || !s->job->discarded)
            refuse(s, r, "it was a dead letter, and nobody discarded it");
        return;
    }
    if (!s->job->redriven)
        refuse(s, was, "and goes on, and nobody asked for that");
    r->redriven = true;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

static void tell_row(const struct sim_row *r)
{
    sim_note(
        "fire %llu: state %d, kind %d, outcome %d, reason %d, attempts %u, holder '%s', due %lld, wake %lld, rev %llu",
        (unsigned long long)r->seq, (int)r->state, (int)r->kind, (int)r->outcome, (int)r->reason, r->attempts,
        r->holder, (long long)(r->due_ms - sim.epoch_ms), (long long)(r->wake_ms - sim.epoch_ms),
        (unsigned long long)r->rev);
}

/* After the calm nothing that could have been done is left. A pause that one of several endpoints asked for before it is done when its
 * fire succeeds, which may be after the resume. */
static void judge_rest(const struct sim_story *s)
{
    int64_t now_ms = sim_wall_ms();
    if (s->there && s->row.state == JOB_STATE_PAUSED && s->job->reply_pauses)
        return;
    for (const struct sim_row *r = s->open; r; r = r->next) {
        tell_row(r);
        if (r->kind != FIRE_KIND_SCHEDULED || r->due_ms < now_ms - 15000)
            sim_broken("%s: fire %llu has no outcome after the calm", s->job->id, (unsigned long long)r->seq);
    }
    if (!s->there)
        return;
    if (s->row.state == JOB_STATE_PAUSED)
        sim_broken("%s is paused after it was resumed", s->job->id);
    if (s->row.state == JOB_STATE_ACTIVE && s->row.due_ms < now_ms - 10000)
        sim_broken("%s: its due of %lld has no fire after the calm", s->job->id,
                   (long long)(s->row.due_ms - sim.epoch_ms));
    if (s->row.backfill_next_ms < s->row.backfill_until_ms)
        sim_broken("%s: its backfill has not ended after the calm", s->job->id);
}

static int newest_first(const void *x, const void *y)
{
    const struct fire_row *a = x, *b = y;
    return (a->seq < b->seq) - (a->seq > b->seq);
}

/* What the witness has found right, the auditor of the agents has nothing to say about. */
static void judge_audit(const struct sim_story *s)
{
    const struct mem_job *job = map_get(&sim.store->jobs, s->uid.bytes, sizeof(s->uid.bytes));
    const struct mem_history *history = map_get(&sim.store->histories, s->uid.bytes, sizeof(s->uid.bytes));
    struct audit_job in = {.fires_known = true,
                           .fires_all = true,
                           .now_ms = sim_wall_ms(),
                           .from_ms = INT64_MIN,
                           .tzdata = SIM_TZDATA};
    struct audit_result result;
    size_t count = 0;
    if (!job)
        return;
    if (history)
        LIST_FOR (l, &history->fires)
            count++;
    struct fire_row *fires = mem_new_array(struct fire_row, count + 1);
    if (history)
        LIST_FOR (l, &history->fires)
            fires[in.fires_count++] = container_of(l, struct mem_fire, job_link)->row;
    qsort(fires, count, sizeof(*fires), newest_first);
    in.fires = fires;
    in.row = &job->row;
    in.spec = job->spec;
    audit_job(&in, &result);
    if (result.verdict != AUDIT_FINE)
        sim_broken("%s: the auditor says %s: %s", s->job->id, audit_verdict_name(result.verdict),
                   result.detail);
    mem_free(fires);
}

void sim_witness_end(void)
{
    for (const struct sim_story *s = sim_stories; s; s = s->next) {
        judge_rest(s);
        judge_audit(s);
    }
}
