/* What a reader of the promises would check, from what callees saw, what clients were told and what the store holds: no code of the
 * agents decides here. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "agent/store/store_mem.h"
#include "tests/sim/sim.h"

#define EARLY_MS \
    400 /* an agent's clock may be off by 250 ms, and Consul's and the store's news are older than that */
#define STALE_EPOCH_US \
    6000000 /* a member that was wrongly declared dead stops at its next beat, or with its lease */
#define UNWRITTEN_US \
    3500000 /* what ended so long before a crash was written: behind a slow commit, with a slow one */
#define COMING_MS 5000

/* --- what is looked at when an attempt starts ---------------------------------------------------------------------- */

struct fire {
    uint8_t key[24]; /* uid and seq */
    int64_t due_ms;
    size_t last; /* index in sim_seen of the newest start + 1 */
};

static struct map fires;
static struct {
    uint64_t epoch;
    int64_t since_us;
} newest[SIM_SLOTS];

static struct fire *fire_of(const struct sim_seen *s)
{
    uint8_t key[24];
    memcpy(key, s->uid.bytes, 16);
    memcpy(key + 16, &s->seq, 8);
    struct fire *f = map_get(&fires, key, sizeof(key));
    if (f)
        return f;
    f = mem_new(struct fire);
    memcpy(f->key, key, sizeof(key));
    f->due_ms = s->due_ms;
    if (map_put(&fires, f->key, sizeof(f->key), f, NULL, NULL) < 0)
        sim_broken("no memory for the oracle");
    return f;
}

static void check_job(const struct sim_seen *s, const char *id)
{
    for (const struct sim_job *j = sim_jobs; j; j = j->next) {
        if (strcmp(j->id, id) != 0)
            continue;
        if (j->deleted_us && s->at_us > j->deleted_us)
            sim_broken("%s: an attempt starts %.3f s after its delete was answered", id,
                       (double)(s->at_us - j->deleted_us) / 1e6);
        if (j->every_ms && !j->touched && s->due_ms != j->created_ms + (int64_t)s->seq * j->every_ms)
            sim_broken("%s: fire %llu is due at %lld, its rhythm says %lld", id, (unsigned long long)s->seq,
                       (long long)(s->due_ms - SIM_EPOCH_MS),
                       (long long)(j->created_ms + (int64_t)s->seq * j->every_ms - SIM_EPOCH_MS));
        return;
    }
    sim_broken("%s: nobody made this job", id);
}

static void check_epoch(const struct sim_seen *s, uint16_t slot)
{
    if (s->epoch > newest[slot].epoch) {
        newest[slot].epoch = s->epoch;
        newest[slot].since_us = s->at_us;
    } else if (s->epoch < newest[slot].epoch && s->at_us - newest[slot].since_us > STALE_EPOCH_US) {
        sim_broken("%s starts an attempt in slot %u under epoch %llu, %.3f s after the first one under %llu",
                   s->member, slot, (unsigned long long)s->epoch,
                   (double)(s->at_us - newest[slot].since_us) / 1e6, (unsigned long long)newest[slot].epoch);
    } else if (s->epoch < newest[slot].epoch && sim.planned) {
        sim_broken("%s starts an attempt in slot %u under an old epoch, and nobody had died", s->member,
                   slot);
    }
}

/* A repeat needs a reason: the attempt before had failed or hung, or whoever made it died before it could write its end. */
static void check_repeat(const struct sim_seen *s, const struct fire *f, const char *id)
{
    if (f->last == 0)
        return;
    const struct sim_seen *before = &sim_seen[f->last - 1];
    if (!before->acked_us)
        return;
    if (sim.planned)
        sim_broken("%s: fire %llu was acknowledged at %.3f s and is sent again", id,
                   (unsigned long long)s->seq, (double)before->acked_us / 1e6);
    bool unwritten = before->proc->dead && before->proc->died_us <= before->acked_us + UNWRITTEN_US;
    if (sim.crashes_only && !unwritten)
        sim_broken("%s: fire %llu was acknowledged at %.3f s to %s, which lived on, and is sent again", id,
                   (unsigned long long)s->seq, (double)before->acked_us / 1e6, before->member);
}

void sim_oracle_start(const struct sim_seen *s, const char *id, uint16_t slot)
{
    struct fire *f = fire_of(s);
    if (s->due_ms > sim_wall_ms() + EARLY_MS || s->due_ms > clock_guard_now_ms(s->proc->clock))
        sim_broken("%s: fire %llu is early by %lld ms", id, (unsigned long long)s->seq,
                   (long long)(s->due_ms - clock_guard_now_ms(s->proc->clock)));
    if (f->due_ms != s->due_ms)
        sim_broken("%s: fire %llu has two dues", id, (unsigned long long)s->seq);
    check_job(s, id);
    check_epoch(s, slot);
    check_repeat(s, f, id);
    f->last = (size_t)(s - sim_seen) + 1;
}

/* --- one owner ----------------------------------------------------------------------------------------------------- */

void sim_oracle_check(void)
{
    static int64_t next_us;
    if (sim.now_us < next_us || !sim.planned)
        return;
    next_us = sim.now_us + 5000;
    for (uint16_t slot = 0; slot < SIM_SLOTS; slot++) {
        const struct sim_proc *owner = NULL;
        for (unsigned i = 0; i < sim.hosts_count; i++) {
            const struct sim_proc *p = sim.hosts[i].proc;
            if (!p || p->dead || !p->engine || !engine_owns(p->engine, slot) || !engine_may_start(p->engine))
                continue;
            if (owner)
                sim_broken("slot %u is fired by %s and by %s", slot, owner->member, p->member);
            owner = p;
        }
    }
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

struct found {
    struct job_row row;
    bool there;
};

static void on_jobs(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct found *f = arg;
    (void)more;
    if (e->code != ERR_OK || count != 1)
        sim_broken("the oracle cannot read the store");
    f->there = jobs[0].spec != NULL;
    f->row = jobs[0].row;
}

static struct found read_job(const struct sim_job *j)
{
    struct found f = {0};
    struct store_key key = {.ns = "default"};
    (void)snprintf(key.id, sizeof(key.id), "%s", j->id);
    store_mem.get_jobs(sim.reader, &key, 1, on_jobs, &f);
    return f;
}

static uint64_t acknowledged(const struct sim_job *j, uint64_t seq)
{
    for (size_t i = 0; i < sim_seen_count; i++)
        if (sim_seen[i].seq == seq && memcmp(&sim_seen[i].uid, &j->uid, sizeof(j->uid)) == 0 &&
            sim_seen[i].acked_us)
            return 1;
    return 0;
}

/* What the store holds of a job that did not come to its end, for whoever reads the story. */
static void on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    (void)arg, (void)e, (void)more;
    for (size_t i = 0; i < count; i++)
        sim_note(
            "fire %llu: state %d, kind %d, outcome %d, reason %d, attempts %u, holder '%s', due %lld, wake %lld, rev %llu",
            (unsigned long long)rows[i].seq, (int)rows[i].state, (int)rows[i].kind, (int)rows[i].outcome,
            (int)rows[i].reason, rows[i].attempts, rows[i].holder, (long long)(rows[i].due_ms - SIM_EPOCH_MS),
            (long long)(rows[i].wake_ms - SIM_EPOCH_MS), (unsigned long long)rows[i].rev);
}

static void tell_fires(const struct job_row *row)
{
    sim_note("%s: slot %u, due %lld, wake %lld, seq %llu", row->id, row->slot,
             (long long)(row->due_ms - SIM_EPOCH_MS), (long long)(row->wake_ms - SIM_EPOCH_MS),
             (unsigned long long)row->counts.seq);
    store_mem.get_fires(sim.reader, &row->uid, 0, 20, on_fires, NULL);
}

static void check_counts(const struct sim_job *j, const struct job_row *row)
{
    const struct job_counts *c = &row->counts;
    uint64_t ended = c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled;
    if (ended > c->seq || c->seq - ended > 2) {
        tell_fires(row);
        sim_broken("%s, state %d: %llu of %llu fires have ended after the calm", j->id, (int)row->state,
                   (unsigned long long)ended, (unsigned long long)c->seq);
    }
    if (j->touched)
        return;
    if (c->dead || c->skipped || c->coalesced || c->cancelled)
        sim_broken("%s: %llu dead, %llu skipped, %llu coalesced, %llu cancelled, and no rule says so", j->id,
                   (unsigned long long)c->dead, (unsigned long long)c->skipped,
                   (unsigned long long)c->coalesced, (unsigned long long)c->cancelled);
    uint64_t acked = 0;
    for (uint64_t seq = 1; seq <= c->seq; seq++)
        acked += acknowledged(j, seq);
    if (acked < c->succeeded)
        sim_broken("%s: %llu fires are said to have succeeded, callees acknowledged %llu", j->id,
                   (unsigned long long)c->succeeded, (unsigned long long)acked);
    int64_t age_ms = sim_wall_ms() - j->created_ms;
    uint64_t due = j->every_ms ? (uint64_t)(age_ms / j->every_ms) : 1;
    uint64_t coming = j->every_ms ? (uint64_t)(COMING_MS / j->every_ms) + 1 : 0;
    if (c->seq + coming < due || c->seq > due)
        sim_broken("%s: %llu fires, %llu dues", j->id, (unsigned long long)c->seq, (unsigned long long)due);
}

void sim_oracle_end(void)
{
    for (const struct sim_job *j = sim_jobs; j; j = j->next) {
        struct found f = read_job(j);
        if (j->deleted_us && f.there)
            sim_broken("%s is there after its delete was answered", j->id);
        if (j->acked && !j->deleting && !f.there)
            sim_broken("%s was acknowledged and is gone", j->id);
        if (f.there && !j->deleting)
            check_counts(j, &f.row);
    }
    for (uint16_t slot = 0; slot < SIM_SLOTS; slot++)
        if (!sim_owner(slot))
            sim_broken("slot %u has no owner after the calm", slot);
    if (sim_client_waiting() > 0)
        sim_broken("%zu requests have no answer after the calm", sim_client_waiting());
}
