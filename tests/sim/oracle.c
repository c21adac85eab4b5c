/* What a reader of the promises would check when a callee sees an attempt start: no code of the agents decides here. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "agent/core/job.h"
#include "tests/sim/sim.h"

#define EARLY_MS \
    400 /* an agent's clock may be off by 250 ms, and Consul's and the store's news are older than that */
#define STALE_EPOCH_US \
    6000000 /* a member that was wrongly declared dead stops at its next beat, or with its lease */
#define UNWRITTEN_US \
    3500000 /* what ended so long before a crash was written: behind a slow commit, with a slow one */

/* --- fires as their callees know them ------------------------------------------------------------------------------ */

static struct map fires;

struct sim_fire *sim_fire_of(const struct uid *uid, uint64_t seq)
{
    uint8_t key[24];
    memcpy(key, uid->bytes, 16);
    memcpy(key + 16, &seq, 8);
    return map_get(&fires, key, sizeof(key));
}

static struct sim_fire *fire_of(const struct sim_seen *s)
{
    struct sim_fire *f = sim_fire_of(&s->uid, s->seq);
    if (f)
        return f;
    f = mem_new(struct sim_fire);
    memcpy(f->key, s->uid.bytes, 16);
    memcpy(f->key + 16, &s->seq, 8);
    f->due_ms = s->due_ms;
    if (map_put(&fires, f->key, sizeof(f->key), f, NULL, NULL) < 0)
        sim_broken("no memory for the oracle");
    return f;
}

/* --- one start ----------------------------------------------------------------------------------------------------- */

/* What is looked at when an attempt starts. */
struct start {
    const struct sim_seen *seen;
    const struct sim_job *job;
    const struct sim_story *story;
    const struct sim_row *row; /* NULL: it is not booked */
    struct sim_fire *fire;
    bool stale; /* by one who was wrongly declared dead, just now */
};

#define BROKEN(st, fmt, ...)                                                                                \
    sim_broken("%s: fire %llu, attempt %u by %s: " fmt, (st)->job->id, (unsigned long long)(st)->seen->seq, \
               (st)->seen->attempt, (st)->seen->member, ##__VA_ARGS__)

/* A clock that is set back ends no fire that has begun. */
static void check_time(const struct start *st)
{
    int64_t due_ms = st->seen->due_ms, now_ms = clock_guard_now_ms(st->seen->proc->clock);
    if (due_ms > sim_wall_ms() + EARLY_MS || (due_ms > now_ms && st->fire->starts == 0))
        BROKEN(st, "it is early by %lld ms", (long long)(due_ms - now_ms));
    if (st->fire->due_ms != due_ms)
        BROKEN(st, "it has two dues");
}

/* After the answer nothing starts by what was before. */
static void check_answers(const struct start *st)
{
    const struct sim_seen *s = st->seen;
    const struct sim_job *j = st->job;
    if (st->stale || st->fire->redriven)
        return;
    if (j->deleted_us && s->at_us > j->deleted_us)
        BROKEN(st, "it starts %.3f s after its job's delete was answered",
               (double)(s->at_us - j->deleted_us) / 1e6);
    if (s->rules < j->answered && s->at_us > j->answered_us)
        BROKEN(st, "it goes by definition %u, %.3f s after %u was answered", s->rules,
               (double)(s->at_us - j->answered_us) / 1e6, j->answered);
    if (st->story->there && s->rules > st->story->rules->number)
        BROKEN(st, "it goes by definition %u, and the store has %u", s->rules, st->story->rules->number);
    bool asked = (st->row && st->row->kind == FIRE_KIND_RUN) || j->forced;
    bool paused = st->story->there && st->story->row.state == JOB_STATE_PAUSED;
    if (paused && j->paused_us && !asked && s->at_us > j->paused_us)
        BROKEN(st, "it starts %.3f s after its job's pause was answered",
               (double)(s->at_us - j->paused_us) / 1e6);
}

/* What is recorded has happened: it is not tried again. What is not booked is the next due of its job. */
static void check_record(const struct start *st)
{
    const struct sim_story *story = st->story;
    const struct sim_seen *s = st->seen;
    if (st->stale)
        return;
    if (st->row && st->row->state == FIRE_STATE_ENDED)
        BROKEN(st, "it ended as %s %.3f s ago", fire_outcome_name(st->row->outcome),
               (double)(s->at_us - st->row->ended_us) / 1e6);
    if (st->row || st->fire->redriven)
        return;
    if (!story->there)
        BROKEN(st, "its job is not in the store");
    if (s->seq != story->row.counts.seq + 1)
        BROKEN(st, "%llu have numbers, and it has no row", (unsigned long long)story->row.counts.seq);
    if (s->due_ms != story->row.due_ms)
        BROKEN(st, "it is of due %lld, the next one is %lld", (long long)(s->due_ms - sim.epoch_ms),
               (long long)(story->row.due_ms - sim.epoch_ms));
    const struct sim_rules *r = story->rules;
    if (r->at_most_once || r->async || r->to != SIM_TO_ONE)
        BROKEN(st, "it is sent before it is booked");
}

static void check_epoch(const struct start *st)
{
    int64_t since_us;
    uint64_t now = sim_witness_epoch(st->job->slot, &since_us);
    const struct sim_seen *s = st->seen;
    if (s->epoch > now)
        BROKEN(st, "its epoch is %llu, the store's %llu", (unsigned long long)s->epoch,
               (unsigned long long)now);
    if (s->epoch == now)
        return;
    if (s->at_us - since_us > STALE_EPOCH_US)
        BROKEN(st, "it goes out under epoch %llu, %.3f s after %llu began", (unsigned long long)s->epoch,
               (double)(s->at_us - since_us) / 1e6, (unsigned long long)now);
    if (sim.planned)
        BROKEN(st, "it goes out under an old epoch, and nobody had died");
}

/* What was sent under a definition that allows repeats, by one who died before it could write that, nobody knows who goes by a later one
 * that does not: its number is given again. That of a part is not told apart from those of the others. */
static bool unknown_attempt(const struct start *st, const struct sim_seen *before)
{
    return !st->job->rules[before->rules - 1]->at_most_once && sim_witness_dead(before->member) &&
           (before->part > 0 || st->seen->attempt <= before->attempt);
}

/* A repeat needs a reason: the attempt before had failed or hung, or whoever made it died before it could write its end. */
static void check_repeat(const struct start *st)
{
    const struct sim_fire *f = st->fire;
    if (f->last == 0 || f->redriven)
        return;
    const struct sim_seen *before = &sim_seen[f->last - 1], *s = st->seen;
    if (st->story->rules && st->story->rules->at_most_once && before->part == s->part &&
        !unknown_attempt(st, before))
        BROKEN(st, "at most once, and it was sent at %.3f s", (double)before->at_us / 1e6);
    if (!before->acked_us || before->part != s->part)
        return;
    if (sim.planned)
        BROKEN(st, "it was acknowledged at %.3f s and is sent again", (double)before->acked_us / 1e6);
    bool unwritten = before->proc->dead && before->proc->died_us <= before->acked_us + UNWRITTEN_US;
    if (sim.crashes_only && !unwritten)
        BROKEN(st, "it was acknowledged at %.3f s to %s, which lived on, and is sent again",
               (double)before->acked_us / 1e6, before->member);
}

/* Who dies leaves attempts behind that nobody counts; without deaths each is counted. */
static void check_attempts(const struct start *st)
{
    const struct sim_rules *r = st->job->rules[0];
    if (!sim.planned || st->job->rules_count > 1 || st->job->forced || st->fire->redriven ||
        r->to != SIM_TO_ONE)
        return;
    if (r->max_attempts > 0 && st->fire->starts >= r->max_attempts)
        BROKEN(st, "it was tried %u times before, and may be %u times", st->fire->starts, r->max_attempts);
    if (st->fire->last > 0 && st->seen->attempt <= sim_seen[st->fire->last - 1].attempt)
        BROKEN(st, "an attempt before it had number %u", sim_seen[st->fire->last - 1].attempt);
}

/* --- one at a time ------------------------------------------------------------------------------------------------- */

static bool aside(const struct sim_row *r)
{
    return r->kind != FIRE_KIND_SCHEDULED || r->attempts_before > 0;
}

/* Fires that a job once allowed may go on beside others when it does not any more. */
static bool one_by_one(const struct start *st)
{
    for (unsigned i = 0; i < st->job->rules_count; i++)
        if (st->job->rules[i]->concurrency == SIM_ALLOW)
            return false;
    return !st->stale && st->story->rules && !st->job->forced;
}

/* What replaces others does not wait for what was asked for by hand, nor does it end that. OTHER NULL: a due without a row, which may
 * have been handed over after what starts now. */
static bool side_by_side(const struct start *st, const struct sim_row *other)
{
    bool replaces = false;
    for (unsigned i = 0; i < st->job->rules_count; i++)
        replaces |= st->job->rules[i]->concurrency == SIM_REPLACE;
    return replaces && (other ? aside(other) : st->row && aside(st->row));
}

/* Unless a job allows it, its fires do not run side by side: what the store knows to be under way has ended, or its holder died. */
static void check_overlap(const struct start *st)
{
    const struct sim_rules *r = st->story->rules;
    if (!one_by_one(st) || st->seen->rules != r->number)
        return;
    for (const struct sim_row *o = st->story->open; o; o = o->next) {
        if (o->seq == st->seen->seq || o->state == FIRE_STATE_REPORTED || side_by_side(st, o))
            continue;
        bool held = o->state == FIRE_STATE_HELD && !sim_witness_dead(o->holder);
        if (held || o->state == FIRE_STATE_OPEN)
            BROKEN(st, "fire %llu of its job is under way", (unsigned long long)o->seq);
        if (r->concurrency == SIM_QUEUE && o->seq < st->seen->seq && !aside(o) && st->row && !aside(st->row))
            BROKEN(st, "fire %llu of its queue has not ended", (unsigned long long)o->seq);
    }
}

/* ... and what callees see. A holder that died leaves its callee at work, which nobody can know. */
static void check_running(const struct start *st)
{
    if (!one_by_one(st) || st->job->rules_count > 1)
        return;
    for (size_t i = sim_seen_count; i-- > 0 && sim_seen[i].at_us > sim.now_us - 10000000;) {
        const struct sim_seen *o = &sim_seen[i];
        const struct sim_fire *f = sim_fire_of(&o->uid, o->seq);
        if (o == st->seen || o->over_us || f->completed || o->proc->dead ||
            memcmp(&o->uid, &st->seen->uid, 16) != 0 || strcmp(o->member, o->proc->member) != 0)
            continue;
        const struct sim_row *row = sim_row_of(&o->uid, o->seq);
        int64_t since_us;
        if (row && row->outcome == FIRE_OUTCOME_CANCELLED) /* its connection is being closed */
            continue;
        if (!row && !st->story->there) /* a due's first attempt, which the delete left to its callee */
            continue;
        if (o->seq != st->seen->seq && !side_by_side(st, row) &&
            o->epoch == sim_witness_epoch(st->job->slot, &since_us))
            BROKEN(st, "the callee of fire %llu is at work", (unsigned long long)o->seq);
    }
}

void sim_oracle_start(const struct sim_seen *s, const struct delivery *d)
{
    struct start st = {
        .seen = s, .job = sim_job_of(&s->uid), .story = sim_story_of(&s->uid), .fire = fire_of(s)};
    int64_t since_us;
    if (!st.job || !st.story)
        sim_broken("%s: nobody made this job", d->spec->id);
    st.row = sim_row_of(&s->uid, s->seq);
    st.fire->redriven |= st.row && st.row->redriven;
    st.stale = s->epoch < sim_witness_epoch(st.job->slot, &since_us);
    check_time(&st);
    check_epoch(&st);
    check_answers(&st);
    check_record(&st);
    check_repeat(&st);
    check_attempts(&st);
    check_overlap(&st);
    check_running(&st);
    st.fire->starts++;
    st.fire->last = (size_t)(s - sim_seen) + 1;
}

/* --- one owner ----------------------------------------------------------------------------------------------------- */

static const struct sim_proc *owner_before(unsigned hosts, uint64_t bit)
{
    for (unsigned i = 0; i < hosts; i++) {
        const struct sim_proc *p = sim.hosts[i].proc;
        if (p && !p->dead && atomic_load(&p->owned[0]) & bit)
            return p;
    }
    return NULL;
}

_Static_assert(SIM_SLOTS == 64, "what an agent owns is a word");

void sim_oracle_check(void)
{
    uint64_t all = 0;
    if (!sim.planned)
        return;
    for (unsigned i = 0; i < sim.hosts_count; i++) {
        const struct sim_proc *p = sim.hosts[i].proc;
        if (!p || p->dead || !p->engine || !engine_may_start(p->engine))
            continue;
        uint64_t owned = atomic_load(&p->owned[0]), twice = all & owned;
        if (twice)
            sim_broken("slot %d is fired by %s and by %s", __builtin_ctzll(twice),
                       owner_before(i, twice & -twice)->member, p->member);
        all |= owned;
    }
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

void sim_oracle_end(void)
{
    for (const struct sim_job *j = sim_jobs; j; j = j->next) {
        const struct sim_story *s = sim_story_of(&j->uid);
        bool there = s && s->there;
        if (j->deleted_us && there)
            sim_broken("%s is there after its delete was answered", j->id);
        if (j->reply_heard && there && sim.planned)
            sim_broken("%s is there, and its callee asked for its delete", j->id);
        if (j->acked && !j->deleting && !j->expires && !there)
            sim_broken("%s was acknowledged and is gone", j->id);
    }
    sim_witness_end();
    for (uint16_t slot = 0; slot < SIM_SLOTS; slot++)
        if (!sim_owner(slot))
            sim_broken("slot %u has no owner after the calm", slot);
    if (sim_client_waiting() > 0)
        sim_broken("%zu requests have no answer after the calm", sim_client_waiting());
}
