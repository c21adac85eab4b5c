#include "tests/lib/ownership_sim_private.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"

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

void sim_broken(struct sim *s, const char *fmt, ...)
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

void sim_push(struct sim *s, struct sim_item *it)
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

struct sim_item *sim_after(struct sim *s, int64_t delay_ms, int proc,
                           void (*fn)(struct sim *, struct sim_item *))
{
    struct sim_item *it = mem_new(struct sim_item);
    it->at_ms = s->now_ms + delay_ms;
    it->order = s->order++;
    it->proc = proc;
    it->fn = fn;
    sim_push(s, it);
    return it;
}

static void item_free(struct sim_item *it)
{
    mem_free(it->slots);
    mem_free(it);
}

int64_t sim_between(struct sim *s, int64_t lo, int64_t hi)
{
    return rng_range(&s->rng, lo, hi);
}

bool sim_chance(struct sim *s, int percent)
{
    return percent > 0 && rng_below(&s->rng, 100) < (uint64_t)percent;
}

/* --- processes ----------------------------------------------------------------------------------------------------- */

int64_t sim_local_ms(const struct sim *s, const struct sim_proc *p)
{
    return p->boot_ms + s->now_ms + s->now_ms * p->drift_permille / 1000;
}

int sim_proc_of(const char *id)
{
    return (int)strtol(strchr(id, '.') + 1, NULL, 10);
}

struct sim_proc *sim_at(struct sim *s, int node)
{
    struct sim_proc *p = s->current[node] == SIM_NOBODY ? NULL : &s->procs[s->current[node]];
    return p && p->o ? p : NULL;
}

bool sim_in_trouble(const struct sim *s, const struct sim_proc *p)
{
    return p->paused || p->cut || s->flaky_percent > 0;
}

bool sim_lease_holds(const struct sim *s, const struct sim_proc *p)
{
    return p->o && sim_local_ms(s, p) < p->lease_until_ms;
}

/* --- actions ------------------------------------------------------------------------------------------------------- */

static void do_change(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_op *op = sim_op_new(s, OP_CHANGE);
    op->changes = mem_new_array(struct slot_change, a->changes_count);
    op->changes_count = a->changes_count;
    memcpy(op->changes, a->changes, a->changes_count * sizeof(*a->changes));
    op->beat = (uint64_t)(uintptr_t)a->changes;
    sim_issue(s, p, op, 0);
}

static void do_declare(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_op *op = sim_op_new(s, OP_DECLARE);
    op->victim = sim_proc_of(a->member);
    op->beat = a->beat;
    op->by_refusal = a->yes;
    op->witnessed = sim_excused(s);
    sim_issue(s, p, op, 0);
}

static void do_move(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_op *op = sim_op_new(s, OP_MOVE);
    const struct sim_proc *to = &s->procs[sim_proc_of(a->member)];
    op->proc = (int)(p - s->procs);
    op->changes_count = a->slots_count;
    op->changes = mem_new_array(struct slot_change, a->slots_count);
    for (size_t i = 0; i < a->slots_count; i++) {
        uint16_t slot = a->slots[i];
        struct slot_change *c = &op->changes[i];
        if (!p->holds[slot] || p->moving[slot])
            sim_broken(s, "%s moves slot %u, which is not its own", p->id, slot);
        if (!to->agreed_ms[slot] || s->now_ms - to->agreed_ms[slot] > 4000)
            sim_broken(s, "%s gives slot %u to %s, which did not agree", p->id, slot, to->id);
        p->moving[slot] = true;
        c->slot = slot;
        c->from_epoch = p->holds[slot];
        memcpy(c->from, p->id, sizeof(c->from));
        memcpy(c->to, to->id, sizeof(c->to));
    }
    sim_after(s, sim_between(s, 1, 10), op->proc, sim_move_issue)->op = op;
}

static void do_slots(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    for (size_t i = 0; i < a->slots_count; i++) {
        uint16_t slot = a->slots[i];
        bool gained = a->kind == OWNERSHIP_DO_GAINED;
        if (gained && p->holds[slot])
            sim_broken(s, "%s gained slot %u twice", p->id, slot);
        if (!gained && !p->holds[slot])
            sim_broken(s, "%s lost slot %u, which it had not", p->id, slot);
        p->holds[slot] = gained ? a->epochs[i] : 0;
        p->moving[slot] = false;
    }
    sim_note(s, "%s %s %zu slots (first %u)", p->id, a->kind == OWNERSHIP_DO_GAINED ? "gained" : "lost",
             a->slots_count, a->slots[0]);
}

static void do_action(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    switch ((int)a->kind) {
    case OWNERSHIP_DO_BEAT:
        sim_issue(s, p, sim_op_new(s, OP_BEAT), 0);
        break;
    case OWNERSHIP_DO_READ_SLOTS:
        sim_issue(s, p, sim_op_new(s, OP_READ), 1);
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
        if (!s->procs[sim_proc_of(a->member)].dead)
            sim_broken(s, "%s says that %s is dead, the store does not", p->id, a->member);
        break;
    case OWNERSHIP_DO_NEIGHBOURS:
        sim_set_links(s, p, a);
        break;
    case OWNERSHIP_DO_LEFT:
        p->left = true;
        sim_after(s, sim_between(s, 1, 30), (int)(p - s->procs), sim_at_left);
        break;
    case OWNERSHIP_DO_LOG:
        sim_note(s, "%s: %s", p->id, a->text);
        break;
    default:
        sim_do_peers(s, p, a);
    }
}

void sim_at_tick(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    struct ownership_event ev = {.kind = OWNERSHIP_TICK};
    if (p->o && p->tick_ms == s->now_ms)
        sim_feed(s, p, &ev);
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
    sim_after(s, at_ms - s->now_ms, (int)(p - s->procs), sim_at_tick);
}

void sim_feed(struct sim *s, struct sim_proc *p, struct ownership_event *ev)
{
    ev->now_ms = sim_local_ms(s, p);
    s->actions.count = 0;
    ownership_step(p->o, ev, &s->actions);
    ownership_validate(p->o);
    if (p->spin_ms != s->now_ms)
        p->spin_count = 0;
    p->spin_ms = s->now_ms;
    if (++p->spin_count > 1000)
        sim_broken(s, "%s spins", p->id);
    bool rejoin = false;
    for (size_t i = 0; i < s->actions.count; i++) {
        rejoin |= s->actions.items[i].kind == OWNERSHIP_DO_REJOIN;
        do_action(s, p, &s->actions.items[i]);
    }
    sim_check_proc(s, p);
    if (s->measure)
        sim_measure_gaps(s);
    if (!rejoin) {
        schedule_tick(s, p);
        return;
    }
    for (uint32_t i = 0; i < s->slots_count; i++)
        if (p->holds[i])
            sim_broken(s, "%s joins again and still holds slot %u", p->id, i);
    if (!p->dead)
        sim_broken(s, "%s joins again though it is not dead", p->id);
    p->consul_until_ms = s->now_ms;
    int node = p->node;
    bool again = !p->leaving;
    sim_proc_end(s, p);
    if (again)
        sim_after(s, 20, node, sim_at_rejoin);
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
    return it->fn != sim_at_execute && it->fn != sim_at_rejoin && s->procs[it->proc].o &&
           s->procs[it->proc].paused;
}

/* A member that the store calls dead stops within a beat once it can ask. */
static void check_stopped(struct sim *s)
{
    for (int n = 0; n < s->nodes; n++) {
        struct sim_proc *p = sim_at(s, n);
        if (!p)
            continue;
        if (sim_in_trouble(s, p))
            p->trouble_ms = s->now_ms;
        int64_t since_ms = p->dead_at_ms > p->trouble_ms ? p->dead_at_ms : p->trouble_ms;
        if (s->store_trouble_ms > since_ms)
            since_ms = s->store_trouble_ms;
        if (p->dead && !p->paused && s->now_ms - since_ms > 2 * STORE_TIMEOUT_MS + 1500)
            sim_broken(s, "%s has been dead for %lld ms and goes on", p->id,
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
            sim_after(s, 0, s->current[n], sim_at_links);
    check_stopped(s);
    struct sim_item *again = sim_after(s, 300, 0, links_all);
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
    sim_after(s, 300, 0, links_all);
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
        sim_broken(s, "slot %u belongs to %s (%s) but is not held there", i, p->id, p->o ? "runs" : "gone");
    else if (row->owner != wanted)
        sim_broken(s, "slot %u is with %s, the ring says %s", i, p->id, s->procs[wanted].id);
    for (int n = 0; n < s->nodes; n++) {
        uint64_t epoch = 0;
        if (sim_at(s, n) && strcmp(ownership_owner(sim_at(s, n)->o, (uint16_t)i, &epoch), p->id) != 0)
            sim_broken(s, "%s thinks that slot %u is with %s, it is with %s", sim_at(s, n)->id, i,
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
