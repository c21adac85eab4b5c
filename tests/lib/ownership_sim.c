#include "tests/lib/ownership_sim.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"

#define STORE_TIMEOUT_MS 2000
#define FIRST_EPOCH      1000

enum op_kind { OP_BEAT, OP_DECLARE, OP_CHANGE, OP_READ, OP_MOVE };

struct sim_op {
    struct sim_op *next;
    enum op_kind kind;
    int proc;
    int victim;
    uint64_t beat;
    int64_t sent_ms; /* local */
    struct slot_change *changes;
    size_t changes_count;
    bool by_refusal, witnessed;
    bool never_runs, reply_lost, late; /* what goes wrong with it */
    bool answered;
    bool ran, alive, yes, fenced;
    struct ownership_member *members;
    size_t members_count;
    struct ownership_slot *slots;
    size_t slots_count;
};

struct sim_query {
    int asker;
    uint64_t question;
    char about[RECORD_MEMBER_MAX];
};

struct sim_item {
    int64_t at_ms;
    uint64_t order;
    void (*fn)(struct sim *s, struct sim_item *it);
    int proc;
    struct sim_op *op;
    struct ownership_event ev;
    char member[RECORD_MEMBER_MAX];
    char to[RECORD_MEMBER_MAX];
    struct ownership_slot *slots;
};

/* --- story, failure ------------------------------------------------------------------------------------------------ */

void sim_note(struct sim *s, const char *fmt, ...)
{
    if (!s->trace)
        return;
    fprintf(s->trace, "%8.3f  ", (double)s->now_ms / 1000);
    va_list args;
    va_start(args, fmt);
    vfprintf(s->trace, fmt, args);
    va_end(args);
    fputc('\n', s->trace);
}

static void broken(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void broken(struct sim *s, const char *fmt, ...)
{
    if (s->failure[0])
        return;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(s->failure, sizeof(s->failure), fmt, args);
    va_end(args);
    sim_note(s, "BROKEN: %s", s->failure);
}

/* --- queue --------------------------------------------------------------------------------------------------------- */

static bool before(const struct sim_item *a, const struct sim_item *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void push(struct sim *s, struct sim_item *it)
{
    if (s->heap_count == s->heap_capacity) {
        s->heap_capacity = s->heap_capacity ? 2 * s->heap_capacity : 256;
        s->heap = realloc(s->heap, s->heap_capacity * sizeof(*s->heap));
    }
    size_t i = s->heap_count++;
    for (; i > 0 && before(it, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = it;
}

static struct sim_item *pop(struct sim *s)
{
    struct sim_item *top = s->heap[0], *last = s->heap[--s->heap_count];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= s->heap_count)
            break;
        if (c + 1 < s->heap_count && before(s->heap[c + 1], s->heap[c]))
            c++;
        if (!before(s->heap[c], last))
            break;
        s->heap[i] = s->heap[c];
        i = c;
    }
    s->heap[i] = last;
    return top;
}

static struct sim_item *after(struct sim *s, int64_t delay_ms, int proc,
                              void (*fn)(struct sim *, struct sim_item *))
{
    struct sim_item *it = mem_new(struct sim_item);
    it->at_ms = s->now_ms + delay_ms;
    it->order = s->order++;
    it->proc = proc;
    it->fn = fn;
    push(s, it);
    return it;
}

static void item_free(struct sim_item *it)
{
    mem_free(it->slots);
    mem_free(it);
}

static int64_t between(struct sim *s, int64_t lo, int64_t hi)
{
    return rng_range(&s->rng, lo, hi);
}

static bool chance(struct sim *s, int percent)
{
    return percent > 0 && rng_below(&s->rng, 100) < (uint64_t)percent;
}

/* --- processes ----------------------------------------------------------------------------------------------------- */

static int64_t local_ms(const struct sim *s, const struct sim_proc *p)
{
    return p->boot_ms + s->now_ms + s->now_ms * p->drift_permille / 1000;
}

static int proc_of(const char *id)
{
    return (int)strtol(strchr(id, '.') + 1, NULL, 10);
}

struct sim_proc *sim_at(struct sim *s, int node)
{
    struct sim_proc *p = s->current[node] == SIM_NOBODY ? NULL : &s->procs[s->current[node]];
    return p && p->o ? p : NULL;
}

static bool in_trouble(const struct sim *s, const struct sim_proc *p)
{
    return p->paused || p->cut || s->flaky_percent > 0;
}

static bool lease_holds(const struct sim *s, const struct sim_proc *p)
{
    return p->o && local_ms(s, p) < p->lease_until_ms;
}

/* --- oracle -------------------------------------------------------------------------------------------------------- */

/* What P fires for is what the store says, and nobody else may fire for it; a member that was wrongly declared dead by
 * refusal is excused until it finds out. */
static void check_proc(struct sim *s, const struct sim_proc *p)
{
    for (uint32_t i = 0; p->o && i < s->slots_count; i++) {
        if (!p->holds[i] || p->moving[i])
            continue;
        const struct sim_slot *row = &s->slots[i];
        if (!p->dead && (&s->procs[row->owner] != p || row->epoch != p->holds[i]))
            broken(s, "%s fires slot %u with epoch %llu, the store says %s, %llu", p->id, i,
                   (unsigned long long)p->holds[i], s->procs[row->owner].id, (unsigned long long)row->epoch);
        if (!lease_holds(s, p) || (p->dead && p->dead_refused))
            continue;
        for (int n = 0; n < s->nodes; n++) {
            const struct sim_proc *q = sim_at(s, n);
            if (q && q != p && q->holds[i] && !q->moving[i] && lease_holds(s, q) &&
                !(q->dead && q->dead_refused))
                broken(s, "%s and %s both fire slot %u", p->id, q->id, i);
        }
    }
}

static void check_all(struct sim *s)
{
    for (int n = 0; n < s->nodes; n++)
        if (sim_at(s, n))
            check_proc(s, sim_at(s, n));
}

static void measure_gaps(struct sim *s)
{
    for (uint32_t i = 0; i < s->slots_count; i++) {
        bool fired = false;
        for (int n = 0; n < s->nodes && !fired; n++) {
            const struct sim_proc *p = sim_at(s, n);
            fired = p && !p->paused && p->holds[i] && !p->moving[i] && lease_holds(s, p);
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

static bool refuses_lately(const struct sim *s, const struct sim_proc *p)
{
    return p->refused_out || s->now_ms - p->refused_until_ms < 3000;
}

/* Whether a living member may look dead: two see it refused, or there is no third to ask. A member that has just joined
 * cannot be asked either. */
static bool excused(struct sim *s)
{
    int blind = 0, members = 0;
    for (int i = 0; i < s->procs_count; i++) {
        const struct sim_proc *p = &s->procs[i];
        blind += p->o && refuses_lately(s, p);
        members += p->joined && !p->dead && s->now_ms - p->joined_ms > 1000;
    }
    return blind >= 2 || members <= 2;
}

static void check_verdict(struct sim *s, struct sim_op *op, const struct sim_proc *victim)
{
    struct sim_proc *judge = &s->procs[op->proc];
    if (op->by_refusal) {
        if (victim->o && !op->witnessed)
            broken(s, "%s declared %s dead without a second witness", judge->id, victim->id);
        /* Late ones run out of order. */
        if (judge->verdict_ms >= 0 && llabs(op->sent_ms - judge->verdict_ms) < OWNERSHIP_VERDICT_MS)
            broken(s, "%s gave two verdicts by refusal in %lld ms", judge->id,
                   (long long)(op->sent_ms - judge->verdict_ms));
        judge->verdict_ms = op->sent_ms;
        s->wrong_verdicts += victim->o != NULL;
        return;
    }
    if (lease_holds(s, victim))
        broken(s, "%s declared %s dead, whose lease still runs", judge->id, victim->id);
    if (victim->o && !in_trouble(s, victim) && s->now_ms - victim->trouble_ms > 12000)
        broken(s, "%s declared %s dead, which has had no trouble of its own", judge->id, victim->id);
}

/* --- the store ----------------------------------------------------------------------------------------------------- */

static void change_slots(struct sim *s, struct sim_op *op)
{
    for (size_t i = 0; i < op->changes_count; i++) {
        struct slot_change *c = &op->changes[i];
        struct sim_slot *row = &s->slots[c->slot];
        int from = proc_of(c->from), to = proc_of(c->to);
        if (row->owner == from && row->epoch == c->from_epoch) {
            row->owner = to;
            row->epoch++;
            if (op->kind == OP_CHANGE && to != op->proc)
                broken(s, "%s takes for somebody else", s->procs[op->proc].id);
            if (op->kind == OP_CHANGE && from != to && !s->procs[from].dead && s->procs[from].joined)
                broken(s, "%s takes slot %u from %s, which is alive", c->to, c->slot, c->from);
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

static void mark_dead(struct sim *s, struct sim_proc *p)
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
        mark_dead(s, victim);
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

static void feed(struct sim *s, struct sim_proc *p, struct ownership_event *ev);
static void move_issue(struct sim *s, struct sim_item *it);

/* The planner's batch: repeated until the outcome is known. */
static void moved(struct sim *s, struct sim_op *op, bool ok)
{
    struct sim_proc *p = &s->procs[op->proc];
    if (!ok) {
        struct sim_item *again = after(s, 50, op->proc, move_issue);
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
            feed(s, p, &ev);
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
    feed(s, p, &ev);
}

static void park(struct sim *s, struct sim_item *it);

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

static void at_execute(struct sim *s, struct sim_item *it)
{
    struct sim_op *op = it->op;
    const struct sim_proc *p = &s->procs[op->proc];
    if (s->now_ms < s->store_hung_ms) {
        after(s, s->store_hung_ms - s->now_ms + between(s, 0, 5), op->proc, at_execute)->op = op;
        return;
    }
    if (!op->never_runs && s->now_ms >= s->store_away_ms && !(p->cut && !op->late))
        execute(s, op);
    if (!op->reply_lost)
        after(s, chance(s, s->slow_percent) ? between(s, 10, 1800) : between(s, 1, 4), op->proc, at_answer)->op = op;
}

/* What may go wrong: it never ran; it ran and the reply was lost; it runs long after we gave it up. */
static void issue(struct sim *s, struct sim_proc *p, struct sim_op *op, int connection)
{
    op->proc = (int)(p - s->procs);
    op->sent_ms = local_ms(s, p);
    int64_t at_ms = s->now_ms + between(s, 1, 4);
    if (chance(s, s->flaky_percent)) {
        p->trouble_ms = s->now_ms;
        op->never_runs = chance(s, 40);
        op->reply_lost = chance(s, 70);
        op->late = !op->never_runs && op->reply_lost && chance(s, 50);
    } else if (chance(s, s->slow_percent)) {
        at_ms += between(s, 10, 300);
    }
    if (at_ms < p->exec_ms[connection])
        at_ms = p->exec_ms[connection];
    if (op->late)
        at_ms += between(s, 1000, 6000);
    else
        p->exec_ms[connection] = at_ms;
    after(s, at_ms - s->now_ms, op->proc, at_execute)->op = op;
    after(s, STORE_TIMEOUT_MS, op->proc, at_timeout)->op = op;
}

static struct sim_op *op_new(struct sim *s, enum op_kind kind)
{
    struct sim_op *op = mem_new(struct sim_op);
    op->kind = kind;
    op->next = s->ops;
    s->ops = op;
    return op;
}

static void move_issue(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->op->proc];
    if (!p->o)
        return;
    struct sim_op *op = op_new(s, OP_MOVE);
    op->changes_count = it->op->changes_count;
    op->changes = mem_new_array(struct slot_change, op->changes_count);
    memcpy(op->changes, it->op->changes, op->changes_count * sizeof(*op->changes));
    issue(s, p, op, 2);
}

/* --- joining, ending ----------------------------------------------------------------------------------------------- */

static void at_join(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    if (p->ended)
        return;
    if (s->now_ms < s->store_away_ms || s->now_ms < s->store_hung_ms) {
        after(s, 100, it->proc, at_join);
        return;
    }
    p->joined = true;
    p->joined_ms = s->now_ms;
    for (uint32_t i = 0; i < s->slots_count && s->slots[i].epoch == 0; i++) {
        s->slots[i].owner = it->proc;
        s->slots[i].epoch = FIRST_EPOCH;
    }
    struct ownership_options options = {.member = p->id,
                                        .slots = s->slots_count,
                                        .ring_version = 1,
                                        .move_slots_max = 8,
                                        .seed = rng_u64(&s->rng)};
    struct err e;
    if (ownership_new(&options, local_ms(s, p), &p->o, &e) < 0)
        abort();
    sim_note(s, "%s joined", p->id);
    sim_consul_changed(s);
    struct ownership_event ev = {.kind = OWNERSHIP_TICK};
    feed(s, p, &ev);
}

void sim_start(struct sim *s, int node)
{
    if (s->procs_count == SIM_PROCS_MAX ||
        (s->current[node] != SIM_NOBODY && !s->procs[s->current[node]].ended))
        return;
    int i = s->procs_count++;
    struct sim_proc *p = &s->procs[i];
    *p = (struct sim_proc){.node = node, .links = {SIM_NOBODY, SIM_NOBODY}, .verdict_ms = -1};
    (void)snprintf(p->id, sizeof(p->id), "n%d.%d", node, i);
    p->boot_ms = between(s, 0, 1000000);
    p->drift_permille = (int)between(s, -15, 15);
    p->consul_until_ms = INT64_MAX;
    p->trouble_ms = s->now_ms;
    p->refused_until_ms = -100000;
    s->current[node] = i;
    after(s, between(s, 1, 20), i, at_join);
}

static void at_links(struct sim *s, struct sim_item *it);
static void at_tick(struct sim *s, struct sim_item *it);

static void proc_end(struct sim *s, struct sim_proc *p)
{
    ownership_free(p->o);
    p->o = NULL;
    p->ended = true;
    for (int n = 0; n < s->nodes; n++)
        if (sim_at(s, n))
            after(s, 1, s->current[n], at_links);
}

void sim_kill(struct sim *s, int node)
{
    struct sim_proc *p = sim_at(s, node);
    if (!p)
        return;
    sim_note(s, "kill -9 %s", p->id);
    p->consul_until_ms = s->now_ms + 3000;
    proc_end(s, p);
}

static void at_rejoin(struct sim *s, struct sim_item *it)
{
    sim_start(s, it->proc);
}

static void at_left(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    if (p->ended)
        return;
    for (uint32_t i = 0; i < s->slots_count; i++)
        if (s->slots[i].owner == it->proc && !p->left)
            sim_note(s, "%s ends and still owns slot %u", p->id, i);
    if (!p->dead)
        mark_dead(s, p);
    sim_note(s, "%s ended", p->id);
    proc_end(s, p);
}

void sim_pause(struct sim *s, int node, bool on)
{
    struct sim_proc *p = sim_at(s, node);
    if (!p || p->paused == on)
        return;
    sim_note(s, "%s %s", on ? "SIGSTOP" : "SIGCONT", p->id);
    p->paused = on;
    p->trouble_ms = s->now_ms;
    p->consul_until_ms = on ? s->now_ms + 5000 : INT64_MAX;
    sim_consul_changed(s);
    size_t kept = 0;
    for (size_t i = 0; i < s->parked_count; i++) {
        struct sim_item *it = s->parked[i];
        if (on || it->proc != s->current[node]) {
            s->parked[kept++] = it;
            continue;
        }
        it->at_ms = s->now_ms;
        push(s, it);
    }
    s->parked_count = kept;
    p->tick_ms = s->now_ms;
    after(s, 0, s->current[node], at_tick);
}

void sim_leave(struct sim *s, int node)
{
    struct sim_proc *p = sim_at(s, node);
    if (!p || p->leaving)
        return;
    sim_note(s, "SIGTERM %s", p->id);
    p->leaving = true;
    p->consul_until_ms = s->now_ms;
    sim_consul_changed(s);
    after(s, 10000, s->current[node], at_left); /* the grace */
    struct ownership_event ev = {.kind = OWNERSHIP_LEAVE};
    feed(s, p, &ev);
}

/* --- Consul -------------------------------------------------------------------------------------------------------- */

static void at_consul(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    const char *listed[SIM_PROCS_MAX];
    struct ownership_event ev = {.kind = OWNERSHIP_CONSUL, .listed = listed, .key_held = true};
    if (!p->o || s->consul == 1)
        return;
    for (int i = 0; i < s->procs_count; i++)
        if (s->procs[i].consul_until_ms > s->now_ms && !(s->consul == 2 && chance(s, 50)))
            listed[ev.listed_count++] = s->procs[i].id;
    if (s->consul == 2)
        ev.key_held = chance(s, 70);
    feed(s, p, &ev);
}

/* Whoever is there hears of it soon; again after the detectors have seen what happened. */
void sim_consul_changed(struct sim *s)
{
    for (int n = 0; n < s->nodes; n++)
        if (sim_at(s, n)) {
            after(s, between(s, 3, 50), s->current[n], at_consul);
            after(s, between(s, 3001, 3050), s->current[n], at_consul);
            after(s, between(s, 5001, 5050), s->current[n], at_consul);
        }
}

/* --- the network between peers ------------------------------------------------------------------------------------- */

enum reach { REACH_UP, REACH_REFUSED, REACH_LOST };

static enum reach reach(struct sim *s, const struct sim_proc *p, int node)
{
    if (p->refused_out)
        return REACH_REFUSED;
    if (s->split[p->node][node])
        return REACH_LOST;
    return sim_at(s, node) ? REACH_UP : REACH_REFUSED;
}

static void at_event(struct sim *s, struct sim_item *it)
{
    if (s->procs[it->proc].o)
        feed(s, &s->procs[it->proc], &it->ev);
}

static struct sim_item *event_in(struct sim *s, int64_t delay_ms, int proc, enum ownership_event_kind kind,
                                 const char *member)
{
    struct sim_item *it = after(s, delay_ms, proc, at_event);
    it->ev.kind = kind;
    if (member)
        (void)snprintf(it->member, sizeof(it->member), "%s", member);
    it->ev.member = it->member;
    it->ev.to = it->to;
    return it;
}

static void at_links(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    for (int i = 0; p->o && i < OWNERSHIP_NEIGHBOURS; i++) {
        if (p->links[i] == SIM_NOBODY)
            continue;
        enum reach r = reach(s, p, s->procs[p->links[i]].node);
        if (r == REACH_LOST || (r == REACH_REFUSED) == p->links_refused[i])
            continue;
        p->links_refused[i] = r == REACH_REFUSED;
        event_in(s, 0, it->proc, r == REACH_REFUSED ? OWNERSHIP_PEER_REFUSED : OWNERSHIP_PEER_UP,
                 s->procs[p->links[i]].id);
    }
}

static void set_links(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    for (size_t i = 0; i < OWNERSHIP_NEIGHBOURS; i++) {
        p->links[i] = i < a->members_count ? proc_of(a->members[i]) : SIM_NOBODY;
        p->links_refused[i] = false;
    }
    after(s, between(s, 1, 3), (int)(p - s->procs), at_links);
}

/* A message to a member goes to whoever is at its address. NULL: it is lost. */
static struct sim_item *message(struct sim *s, struct sim_proc *from, const char *to,
                                enum ownership_event_kind kind, const char *about)
{
    int node = s->procs[proc_of(to)].node;
    if (reach(s, from, node) != REACH_UP || chance(s, s->lossy_percent))
        return NULL;
    int64_t delay_ms = chance(s, s->lossy_percent) ? between(s, 5, 3000) : between(s, 1, 3);
    struct sim_item *it = event_in(s, delay_ms, s->current[node], kind, about);
    (void)snprintf(it->to, sizeof(it->to), "%s", to);
    return it;
}

static void carry_slots(struct sim *s, struct sim_item *it, const struct ownership_action *a)
{
    (void)s;
    it->slots = mem_new_array(struct ownership_slot, a->slots_count + 1);
    for (size_t i = 0; i < a->slots_count; i++)
        it->slots[i] = (struct ownership_slot){.slot = a->slots[i], .epoch = a->epochs ? a->epochs[i] : 0};
    it->ev.slots = it->slots;
    it->ev.slots_count = a->slots_count;
}

static uint64_t query(struct sim *s, const struct sim_proc *p, const struct ownership_action *a)
{
    if (s->queries_count == s->queries_capacity) {
        s->queries_capacity = s->queries_capacity ? 2 * s->queries_capacity : 64;
        s->queries = realloc(s->queries, s->queries_capacity * sizeof(*s->queries));
    }
    struct sim_query *q = &s->queries[s->queries_count++];
    *q = (struct sim_query){.asker = (int)(p - s->procs), .question = a->question};
    (void)snprintf(q->about, sizeof(q->about), "%s", a->member);
    return s->queries_count; /* 0 is none */
}

static struct sim_item *reply(struct sim *s, struct sim_proc *p, const struct ownership_action *a,
                              enum ownership_event_kind kind)
{
    const struct sim_query *q = &s->queries[a->question - 1];
    const struct sim_proc *asker = &s->procs[q->asker];
    if (s->split[p->node][asker->node] || chance(s, s->lossy_percent))
        return NULL;
    /* An answer goes to the very process that asked; the member it is about or from is as asked. */
    struct sim_item *it = event_in(s, between(s, 1, 3), q->asker, kind, q->about);
    it->ev.question = q->question;
    it->ev.ok = true;
    return it;
}

/* --- actions ------------------------------------------------------------------------------------------------------- */

static void do_change(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_op *op = op_new(s, OP_CHANGE);
    op->changes = mem_new_array(struct slot_change, a->changes_count);
    op->changes_count = a->changes_count;
    memcpy(op->changes, a->changes, a->changes_count * sizeof(*a->changes));
    op->beat = (uint64_t)(uintptr_t)a->changes;
    issue(s, p, op, 0);
}

static void do_declare(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_op *op = op_new(s, OP_DECLARE);
    op->victim = proc_of(a->member);
    op->beat = a->beat;
    op->by_refusal = a->yes;
    op->witnessed = excused(s);
    issue(s, p, op, 0);
}

static void do_move(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_op *op = op_new(s, OP_MOVE);
    const struct sim_proc *to = &s->procs[proc_of(a->member)];
    op->proc = (int)(p - s->procs);
    op->changes_count = a->slots_count;
    op->changes = mem_new_array(struct slot_change, a->slots_count);
    for (size_t i = 0; i < a->slots_count; i++) {
        uint16_t slot = a->slots[i];
        struct slot_change *c = &op->changes[i];
        if (!p->holds[slot] || p->moving[slot])
            broken(s, "%s moves slot %u, which is not its own", p->id, slot);
        if (!to->agreed_ms[slot] || s->now_ms - to->agreed_ms[slot] > 4000)
            broken(s, "%s gives slot %u to %s, which did not agree", p->id, slot, to->id);
        p->moving[slot] = true;
        c->slot = slot;
        c->from_epoch = p->holds[slot];
        memcpy(c->from, p->id, sizeof(c->from));
        memcpy(c->to, to->id, sizeof(c->to));
    }
    after(s, between(s, 1, 10), op->proc, move_issue)->op = op;
}

static void do_slots(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    for (size_t i = 0; i < a->slots_count; i++) {
        uint16_t slot = a->slots[i];
        bool gained = a->kind == OWNERSHIP_DO_GAINED;
        if (gained && p->holds[slot])
            broken(s, "%s gained slot %u twice", p->id, slot);
        if (!gained && !p->holds[slot])
            broken(s, "%s lost slot %u, which it had not", p->id, slot);
        p->holds[slot] = gained ? a->epochs[i] : 0;
        p->moving[slot] = false;
    }
    sim_note(s, "%s %s %zu slots (first %u)", p->id, a->kind == OWNERSHIP_DO_GAINED ? "gained" : "lost",
             a->slots_count, a->slots[0]);
}

static void do_peers(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_item *it;
    int i = (int)(p - s->procs);
    if (a->kind == OWNERSHIP_DO_PROBE) {
        enum reach r = reach(s, p, s->procs[proc_of(a->member)].node);
        it = event_in(s, between(s, 1, 3), i, OWNERSHIP_PROBED, a->member);
        it->ev.ok = r != REACH_LOST;
        it->ev.yes = r == REACH_REFUSED;
    } else if (a->kind == OWNERSHIP_DO_ASK) {
        it = message(s, p, a->via, OWNERSHIP_LOOK, a->member);
        if (it)
            it->ev.question = query(s, p, a);
        else
            event_in(s, 2, i, OWNERSHIP_LOOKED, a->member)->ev.question = a->question;
    } else if (a->kind == OWNERSHIP_DO_LOOKED) {
        it = reply(s, p, a, OWNERSHIP_LOOKED);
        if (it)
            it->ev.yes = a->yes;
    } else if (a->kind == OWNERSHIP_DO_OFFER) {
        it = message(s, p, a->member, OWNERSHIP_OFFERED, p->id);
        if (!it)
            return;
        carry_slots(s, it, a);
        it->ev.leaving = a->leaving;
        it->ev.question = query(s, p, a);
    } else if (a->kind == OWNERSHIP_DO_AGREE) {
        for (size_t k = 0; k < a->slots_count; k++)
            p->agreed_ms[a->slots[k]] = s->now_ms;
        it = reply(s, p, a, OWNERSHIP_AGREED);
        if (!it)
            return;
        carry_slots(s, it, a);
        it->ev.leaving = a->leaving;
    } else if (a->kind == OWNERSHIP_DO_GIVEN) {
        for (int copies = chance(s, s->lossy_percent) ? 2 : 1; copies > 0; copies--) {
            it = message(s, p, a->member, OWNERSHIP_GIVEN, p->id);
            if (it)
                carry_slots(s, it, a);
        }
    } else if (a->kind == OWNERSHIP_DO_TELL_DEAD) {
        for (size_t k = 0; k < a->members_count; k++)
            (void)message(s, p, a->members[k], OWNERSHIP_TOLD_DEAD, a->member);
    }
}

static void do_action(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    switch ((int)a->kind) {
    case OWNERSHIP_DO_BEAT:
        issue(s, p, op_new(s, OP_BEAT), 0);
        break;
    case OWNERSHIP_DO_READ_SLOTS:
        issue(s, p, op_new(s, OP_READ), 1);
        break;
    case OWNERSHIP_DO_DECLARE:
        do_declare(s, p, a);
        break;
    case OWNERSHIP_DO_CHANGE_SLOTS:
        do_change(s, p, a);
        break;
    case OWNERSHIP_DO_MOVE:
        do_move(s, p, a);
        break;
    case OWNERSHIP_DO_GAINED:
    case OWNERSHIP_DO_LOST:
        do_slots(s, p, a);
        break;
    case OWNERSHIP_DO_LEASE:
        p->lease_until_ms = a->until_ms;
        break;
    case OWNERSHIP_DO_MEMBER_DEAD:
        if (!s->procs[proc_of(a->member)].dead)
            broken(s, "%s says that %s is dead, the store does not", p->id, a->member);
        break;
    case OWNERSHIP_DO_NEIGHBOURS:
        set_links(s, p, a);
        break;
    case OWNERSHIP_DO_LEFT:
        p->left = true;
        after(s, between(s, 1, 30), (int)(p - s->procs), at_left);
        break;
    case OWNERSHIP_DO_LOG:
        sim_note(s, "%s: %s", p->id, a->text);
        break;
    default:
        do_peers(s, p, a);
    }
}

static void at_tick(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    struct ownership_event ev = {.kind = OWNERSHIP_TICK};
    if (p->o && p->tick_ms == s->now_ms)
        feed(s, p, &ev);
}

static void schedule_tick(struct sim *s, struct sim_proc *p)
{
    int64_t next_ms = ownership_next_ms(p->o);
    if (next_ms == INT64_MAX)
        return;
    int64_t at_ms = (next_ms - p->boot_ms) * 1000 / (1000 + p->drift_permille);
    if (at_ms < s->now_ms)
        at_ms = s->now_ms;
    while (p->boot_ms + at_ms + at_ms * p->drift_permille / 1000 < next_ms)
        at_ms++;
    if (p->tick_ms == at_ms && at_ms > s->now_ms)
        return;
    p->tick_ms = at_ms;
    after(s, at_ms - s->now_ms, (int)(p - s->procs), at_tick);
}

static void feed(struct sim *s, struct sim_proc *p, struct ownership_event *ev)
{
    ev->now_ms = local_ms(s, p);
    s->actions.count = 0;
    ownership_step(p->o, ev, &s->actions);
    ownership_validate(p->o);
    if (p->spin_ms != s->now_ms)
        p->spin_count = 0;
    p->spin_ms = s->now_ms;
    if (++p->spin_count > 1000)
        broken(s, "%s spins", p->id);
    bool rejoin = false;
    for (size_t i = 0; i < s->actions.count; i++) {
        rejoin |= s->actions.items[i].kind == OWNERSHIP_DO_REJOIN;
        do_action(s, p, &s->actions.items[i]);
    }
    check_proc(s, p);
    if (s->measure)
        measure_gaps(s);
    if (!rejoin) {
        schedule_tick(s, p);
        return;
    }
    for (uint32_t i = 0; i < s->slots_count; i++)
        if (p->holds[i])
            broken(s, "%s joins again and still holds slot %u", p->id, i);
    if (!p->dead)
        broken(s, "%s joins again though it is not dead", p->id);
    p->consul_until_ms = s->now_ms;
    int node = p->node;
    bool again = !p->leaving;
    proc_end(s, p);
    if (again)
        after(s, 20, node, at_rejoin);
}

/* --- running ------------------------------------------------------------------------------------------------------- */

static void park(struct sim *s, struct sim_item *it)
{
    if (s->parked_count == s->parked_capacity) {
        s->parked_capacity = s->parked_capacity ? 2 * s->parked_capacity : 64;
        s->parked = realloc(s->parked, s->parked_capacity * sizeof(struct sim_item *));
    }
    s->parked[s->parked_count++] = it;
}

static bool waits_for_process(const struct sim *s, const struct sim_item *it)
{
    return it->fn != at_execute && it->fn != at_rejoin && s->procs[it->proc].o && s->procs[it->proc].paused;
}

/* A member that the store calls dead stops within a beat once it can ask. */
static void check_stopped(struct sim *s)
{
    for (int n = 0; n < s->nodes; n++) {
        struct sim_proc *p = sim_at(s, n);
        if (!p)
            continue;
        if (in_trouble(s, p))
            p->trouble_ms = s->now_ms;
        int64_t since_ms = p->dead_at_ms > p->trouble_ms ? p->dead_at_ms : p->trouble_ms;
        if (s->store_trouble_ms > since_ms)
            since_ms = s->store_trouble_ms;
        if (p->dead && !p->paused && s->now_ms - since_ms > 2 * STORE_TIMEOUT_MS + 1500)
            broken(s, "%s has been dead for %lld ms and goes on", p->id,
                   (long long)(s->now_ms - p->dead_at_ms));
    }
    if (s->now_ms < s->store_away_ms || s->now_ms < s->store_hung_ms)
        s->store_trouble_ms = s->now_ms;
}

static void links_all(struct sim *s, struct sim_item *it)
{
    (void)it;
    for (int n = 0; n < s->nodes; n++)
        if (sim_at(s, n))
            after(s, 0, s->current[n], at_links);
    check_stopped(s);
    struct sim_item *again = after(s, 300, 0, links_all);
    (void)again;
}

bool sim_run(struct sim *s, int64_t for_ms)
{
    int64_t until_ms = s->now_ms + for_ms;
    while (s->heap_count > 0 && s->heap[0]->at_ms <= until_ms && !s->failure[0]) {
        struct sim_item *it = pop(s);
        s->now_ms = it->at_ms;
        if (it->fn != links_all && waits_for_process(s, it)) {
            park(s, it);
            continue;
        }
        it->fn(s, it);
        item_free(it);
    }
    s->now_ms = until_ms;
    return !s->failure[0];
}

void sim_init(struct sim *s, uint64_t seed, int nodes, uint32_t slots, FILE *trace)
{
    memset(s, 0, sizeof(*s));
    rng_init(&s->rng, seed);
    s->nodes = nodes;
    s->slots_count = slots;
    s->trace = trace;
    s->now_ms = 1;
    s->procs = mem_new_array(struct sim_proc, SIM_PROCS_MAX);
    for (int n = 0; n < SIM_NODES_MAX; n++)
        s->current[n] = SIM_NOBODY;
    for (uint32_t i = 0; i < SIM_SLOTS_MAX; i++)
        s->slots[i].gap_ms = -1;
    after(s, 300, 0, links_all);
}

void sim_fini(struct sim *s)
{
    for (int i = 0; i < s->procs_count; i++)
        ownership_free(s->procs[i].o);
    for (size_t i = 0; i < s->heap_count; i++)
        item_free(s->heap[i]);
    for (size_t i = 0; i < s->parked_count; i++)
        item_free(s->parked[i]);
    while (s->ops) {
        struct sim_op *op = s->ops;
        s->ops = op->next;
        mem_free(op->changes);
        mem_free(op->members);
        mem_free(op->slots);
        mem_free(op);
    }
    mem_free(s->procs);
    mem_free(s->actions.items);
    free(s->queries);
    free(s->heap);
    free(s->parked);
}

void sim_heal(struct sim *s)
{
    sim_note(s, "all faults end");
    s->lossy_percent = s->flaky_percent = s->consul = 0;
    s->store_away_ms = s->store_hung_ms = 0;
    memset(s->split, 0, sizeof(s->split));
    for (int n = 0; n < s->nodes; n++) {
        sim_pause(s, n, false);
        if (sim_at(s, n)) {
            sim_at(s, n)->refused_until_ms =
                sim_at(s, n)->refused_out ? s->now_ms : sim_at(s, n)->refused_until_ms;
            sim_at(s, n)->cut = sim_at(s, n)->refused_out = false;
        }
    }
    sim_consul_changed(s);
}

size_t sim_held(const struct sim *s, int node)
{
    size_t n = 0;
    for (uint32_t i = 0; s->current[node] != SIM_NOBODY && i < s->slots_count; i++)
        n += s->procs[s->current[node]].holds[i] != 0;
    return n;
}

static bool slot_settled(struct sim *s, uint32_t i, int wanted)
{
    const struct sim_slot *row = &s->slots[i];
    const struct sim_proc *p = &s->procs[row->owner];
    if (!p->o || p->dead || p->holds[i] != row->epoch || p->moving[i])
        broken(s, "slot %u belongs to %s (%s) but is not held there", i, p->id, p->o ? "runs" : "gone");
    else if (row->owner != wanted)
        broken(s, "slot %u is with %s, the ring says %s", i, p->id, s->procs[wanted].id);
    for (int n = 0; n < s->nodes; n++) {
        uint64_t epoch = 0;
        if (sim_at(s, n) && strcmp(ownership_owner(sim_at(s, n)->o, (uint16_t)i, &epoch), p->id) != 0)
            broken(s, "%s thinks that slot %u is with %s, it is with %s", sim_at(s, n)->id, i,
                   ownership_owner(sim_at(s, n)->o, (uint16_t)i, &epoch), p->id);
    }
    return !s->failure[0];
}

bool sim_settled(struct sim *s)
{
    struct hashring_member list[SIM_NODES_MAX];
    int procs[SIM_NODES_MAX];
    size_t n = 0;
    for (int node = 0; node < s->nodes; node++)
        if (sim_at(s, node)) {
            procs[n] = s->current[node];
            list[n++] =
                (struct hashring_member){.id = sim_at(s, node)->id, .weight = 1, .state = HASHRING_ACTIVE};
        }
    uint16_t owners[SIM_SLOTS_MAX];
    struct err e;
    if (n == 0 || hashring_build(1, list, n, s->slots_count, owners, &e) < 0)
        return n == 0;
    for (uint32_t i = 0; i < s->slots_count; i++)
        if (!slot_settled(s, i, procs[owners[i]]))
            return false;
    return true;
}
