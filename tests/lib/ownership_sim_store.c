#include "tests/lib/ownership_sim_private.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"

/* --- oracle -------------------------------------------------------------------------------------------------------- */

/* What P fires for is what the store says, and nobody else may fire for it; a member that was wrongly declared dead by
 * refusal is excused until it finds out. */
void sim_check_proc(struct sim *s, const struct sim_proc *p)
{
    for (uint32_t i = 0; p->o && i < s->slots_count; i++) {
        if (!p->holds[i] || p->moving[i])
            continue;
        const struct sim_slot *row = &s->slots[i];
        if (!p->dead && (&s->procs[row->owner] != p || row->epoch != p->holds[i]))
            sim_broken(s, "%s fires slot %u with epoch %llu, the store says %s, %llu", p->id, i,
                       (unsigned long long)p->holds[i], s->procs[row->owner].id,
                       (unsigned long long)row->epoch);
        if (!sim_lease_holds(s, p) || (p->dead && p->dead_refused))
            continue;
        for (int n = 0; n < s->nodes; n++) {
            const struct sim_proc *q = sim_at(s, n);
            if (q && q != p && q->holds[i] && !q->moving[i] && sim_lease_holds(s, q) &&
                !(q->dead && q->dead_refused))
                sim_broken(s, "%s and %s both fire slot %u", p->id, q->id, i);
        }
    }
}

static void check_all(struct sim *s)
{
    for (int n = 0; n < s->nodes; n++)
        if (sim_at(s, n))
            sim_check_proc(s, sim_at(s, n));
}

void sim_measure_gaps(struct sim *s)
{
    for (uint32_t i = 0; i < s->slots_count; i++) {
        bool fired = false;
        for (int n = 0; n < s->nodes && !fired; n++) {
            const struct sim_proc *p = sim_at(s, n);
            fired = p && !p->paused && p->holds[i] && !p->moving[i] && sim_lease_holds(s, p);
        }
        struct sim_slot *row = &s->slots[i];
        if (!fired && row->gap_ms < 0)
            row->gap_ms = s->now_ms;
        if (row->gap_ms >= 0 && s->now_ms - row->gap_ms > s->gap_worst_ms)
            s->gap_worst_ms = s->now_ms - row->gap_ms;
        if (fired)
            row->gap_ms = -1;
    }
}

bool sim_refuses_lately(const struct sim *s, const struct sim_proc *p)
{
    return p->refused_out || s->now_ms - p->refused_until_ms < 3000;
}

/* Whether a living member may look dead: two see it refused, or there is no third to ask. A member that has just joined
 * cannot be asked either. */
bool sim_excused(struct sim *s)
{
    int blind = 0, members = 0;
    for (int i = 0; i < s->procs_count; i++) {
        const struct sim_proc *p = &s->procs[i];
        blind += p->o && sim_refuses_lately(s, p);
        members += p->joined && !p->dead && s->now_ms - p->joined_ms > 1000;
    }
    return blind >= 2 || members <= 2;
}

static void check_verdict(struct sim *s, struct sim_op *op, const struct sim_proc *victim)
{
    struct sim_proc *judge = &s->procs[op->proc];
    if (op->by_refusal) {
        if (victim->o && !op->witnessed)
            sim_broken(s, "%s declared %s dead without a second witness", judge->id, victim->id);
        /* Late ones run out of order. */
        if (judge->verdict_ms >= 0 && llabs(op->sent_ms - judge->verdict_ms) < OWNERSHIP_VERDICT_MS)
            sim_broken(s, "%s gave two verdicts by refusal in %lld ms", judge->id,
                       (long long)(op->sent_ms - judge->verdict_ms));
        judge->verdict_ms = op->sent_ms;
        s->wrong_verdicts += victim->o != NULL;
        return;
    }
    if (sim_lease_holds(s, victim))
        sim_broken(s, "%s declared %s dead, whose lease still runs", judge->id, victim->id);
    if (victim->o && !sim_in_trouble(s, victim) && s->now_ms - victim->trouble_ms > 12000)
        sim_broken(s, "%s declared %s dead, which has had no trouble of its own", judge->id, victim->id);
}

/* --- the store ----------------------------------------------------------------------------------------------------- */

static void change_slots(struct sim *s, struct sim_op *op)
{
    for (size_t i = 0; i < op->changes_count; i++) {
        struct slot_change *c = &op->changes[i];
        struct sim_slot *row = &s->slots[c->slot];
        int from = sim_proc_of(c->from), to = sim_proc_of(c->to);
        if (row->owner == from && row->epoch == c->from_epoch) {
            row->owner = to;
            row->epoch++;
            if (op->kind == OP_CHANGE && to != op->proc)
                sim_broken(s, "%s takes for somebody else", s->procs[op->proc].id);
            if (op->kind == OP_CHANGE && from != to && !s->procs[from].dead && s->procs[from].joined)
                sim_broken(s, "%s takes slot %u from %s, which is alive", c->to, c->slot, c->from);
        }
        c->changed = row->owner == to && row->epoch == c->from_epoch + 1;
    }
}

static void read_members(struct sim *s, struct sim_op *op)
{
    op->members = mem_new_array(struct ownership_member, (size_t)s->procs_count + 1);
    for (int i = 0; i < s->procs_count; i++) {
        const struct sim_proc *p = &s->procs[i];
        if (!p->joined || (p->dead && s->now_ms - p->dead_at_ms > 20000)) /* "an hour" */
            continue;
        struct ownership_member *m = &op->members[op->members_count++];
        memcpy(m->id, p->id, sizeof(m->id));
        m->beat = p->beat;
        m->weight = 1;
        m->dead = p->dead;
        m->here = i != op->proc && p->node == s->procs[op->proc].node;
    }
}

static void read_slots(struct sim *s, struct sim_op *op, int only)
{
    op->slots = mem_new_array(struct ownership_slot, s->slots_count);
    for (uint32_t i = 0; i < s->slots_count; i++) {
        if (s->slots[i].epoch == 0 || (only != SIM_NOBODY && s->slots[i].owner != only))
            continue;
        struct ownership_slot *row = &op->slots[op->slots_count++];
        row->slot = (uint16_t)i;
        row->epoch = s->slots[i].epoch;
        memcpy(row->owner, s->procs[s->slots[i].owner].id, sizeof(row->owner));
    }
}

void sim_mark_dead(struct sim *s, struct sim_proc *p)
{
    p->dead = true;
    p->dead_at_ms = s->now_ms;
}

static void declare_dead(struct sim *s, struct sim_op *op)
{
    struct sim_proc *victim = &s->procs[op->victim];
    if (!victim->dead && victim->beat == op->beat) {
        s->verdicts++;
        check_verdict(s, op, victim);
        victim->dead_refused = op->by_refusal;
        sim_mark_dead(s, victim);
        sim_note(s, "store: %s is dead, declared by %s (%s)", victim->id, s->procs[op->proc].id,
                 op->by_refusal ? "refused" : "lease");
    }
    op->yes = victim->dead;
}

static void execute(struct sim *s, struct sim_op *op)
{
    struct sim_proc *p = &s->procs[op->proc];
    op->ran = true;
    switch (op->kind) {
    case OP_BEAT:
        op->alive = !p->dead;
        p->beat += op->alive;
        read_members(s, op);
        read_slots(s, op, op->proc);
        break;
    case OP_DECLARE:
        declare_dead(s, op);
        break;
    case OP_CHANGE:
    case OP_MOVE:
        op->fenced = p->dead;
        if (!p->dead)
            change_slots(s, op);
        break;
    case OP_READ:
        read_slots(s, op, SIM_NOBODY);
        break;
    }
    check_all(s);
}

/* The planner's batch: repeated until the outcome is known. */
static void moved(struct sim *s, struct sim_op *op, bool ok)
{
    struct sim_proc *p = &s->procs[op->proc];
    if (!ok) {
        struct sim_item *again = sim_after(s, 50, op->proc, sim_move_issue);
        again->op = op;
        return;
    }
    struct ownership_slot slots[SIM_SLOTS_MAX];
    for (int round = 0; round < 2; round++) {
        struct ownership_event ev = {.kind = OWNERSHIP_MOVED, .ok = round == 0, .slots = slots};
        for (size_t i = 0; i < op->changes_count; i++) {
            const struct slot_change *c = &op->changes[i];
            if ((c->changed && !op->fenced) != ev.ok)
                continue;
            slots[ev.slots_count++] = (struct ownership_slot){.slot = c->slot, .epoch = c->from_epoch + 1};
            if (p->o)
                p->moving[c->slot] = ev.ok ? false : p->moving[c->slot];
            if (p->o && ev.ok)
                p->holds[c->slot] = 0;
            s->moves += ev.ok;
        }
        if (ev.slots_count > 0 && p->o)
            sim_feed(s, p, &ev);
    }
}

static void answer(struct sim *s, struct sim_op *op, bool ok)
{
    struct sim_proc *p = &s->procs[op->proc];
    struct ownership_event ev = {.ok = ok && !op->fenced};
    if (op->answered || !p->o)
        return;
    op->answered = true;
    switch (op->kind) {
    case OP_BEAT:
        ev.kind = OWNERSHIP_BEAT;
        ev.alive = op->alive;
        ev.sent_ms = op->sent_ms;
        ev.members = op->members;
        ev.members_count = op->members_count;
        ev.slots = op->slots;
        ev.slots_count = op->slots_count;
        break;
    case OP_DECLARE:
        ev.kind = OWNERSHIP_DECLARED;
        ev.member = s->procs[op->victim].id;
        ev.yes = op->yes;
        break;
    case OP_CHANGE:
        ev.kind = OWNERSHIP_CHANGED;
        break;
    case OP_READ:
        ev.kind = OWNERSHIP_SLOTS_ALL;
        ev.slots = op->slots;
        ev.slots_count = op->slots_count;
        break;
    case OP_MOVE:
        moved(s, op, ok);
        return;
    }
    if (op->kind == OP_CHANGE) {
        /* The machine reads `changed` in its own array, which the real store writes. */
        struct slot_change *theirs = (struct slot_change *)(uintptr_t)op->beat;
        for (size_t i = 0; i < op->changes_count; i++) {
            theirs[i].changed = op->changes[i].changed;
            s->takes += ev.ok && theirs[i].changed;
        }
    }
    sim_feed(s, p, &ev);
}

static void at_answer(struct sim *s, struct sim_item *it)
{
    answer(s, it->op, !it->op->reply_lost && it->op->ran);
}

static void at_timeout(struct sim *s, struct sim_item *it)
{
    if (it->op->answered)
        return;
    s->procs[it->proc].exec_ms[0] = s->now_ms; /* the connection is given up */
    answer(s, it->op, false);
}

void sim_at_execute(struct sim *s, struct sim_item *it)
{
    struct sim_op *op = it->op;
    const struct sim_proc *p = &s->procs[op->proc];
    if (s->now_ms < s->store_hung_ms) {
        sim_after(s, s->store_hung_ms - s->now_ms + sim_between(s, 0, 5), op->proc, sim_at_execute)->op = op;
        return;
    }
    if (!op->never_runs && s->now_ms >= s->store_away_ms && !(p->cut && !op->late))
        execute(s, op);
    if (!op->reply_lost)
        sim_after(s, sim_chance(s, s->slow_percent) ? sim_between(s, 10, 1800) : sim_between(s, 1, 4),
                  op->proc, at_answer)
            ->op = op;
}

/* What may go wrong: it never ran; it ran and the reply was lost; it runs long after we gave it up. */
void sim_issue(struct sim *s, struct sim_proc *p, struct sim_op *op, int connection)
{
    op->proc = (int)(p - s->procs);
    op->sent_ms = sim_local_ms(s, p);
    int64_t at_ms = s->now_ms + sim_between(s, 1, 4);
    if (sim_chance(s, s->flaky_percent)) {
        p->trouble_ms = s->now_ms;
        op->never_runs = sim_chance(s, 40);
        op->reply_lost = sim_chance(s, 70);
        op->late = !op->never_runs && op->reply_lost && sim_chance(s, 50);
    } else if (sim_chance(s, s->slow_percent)) {
        at_ms += sim_between(s, 10, 300);
    }
    if (at_ms < p->exec_ms[connection])
        at_ms = p->exec_ms[connection];
    if (op->late)
        at_ms += sim_between(s, 1000, 6000);
    else
        p->exec_ms[connection] = at_ms;
    sim_after(s, at_ms - s->now_ms, op->proc, sim_at_execute)->op = op;
    sim_after(s, STORE_TIMEOUT_MS, op->proc, at_timeout)->op = op;
}

struct sim_op *sim_op_new(struct sim *s, enum op_kind kind)
{
    struct sim_op *op = mem_new(struct sim_op);
    op->kind = kind;
    op->next = s->ops;
    s->ops = op;
    return op;
}

void sim_move_issue(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->op->proc];
    if (!p->o)
        return;
    struct sim_op *op = sim_op_new(s, OP_MOVE);
    op->changes_count = it->op->changes_count;
    op->changes = mem_new_array(struct slot_change, op->changes_count);
    memcpy(op->changes, it->op->changes, op->changes_count * sizeof(*op->changes));
    sim_issue(s, p, op, 2);
}
