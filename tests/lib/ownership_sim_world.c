#include "tests/lib/ownership_sim_private.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"

/* --- joining, ending ----------------------------------------------------------------------------------------------- */

static void at_join(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    if (p->ended)
        return;
    if (s->now_ms < s->store_away_ms || s->now_ms < s->store_hung_ms) {
        sim_after(s, 100, it->proc, at_join);
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
    if (ownership_new(&options, sim_local_ms(s, p), &p->o, &e) < 0)
        abort();
    sim_note(s, "%s joined", p->id);
    sim_consul_changed(s);
    struct ownership_event ev = {.kind = OWNERSHIP_TICK};
    sim_feed(s, p, &ev);
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
    p->boot_ms = sim_between(s, 0, 1000000);
    p->drift_permille = (int)sim_between(s, -15, 15);
    p->consul_until_ms = INT64_MAX;
    p->trouble_ms = s->now_ms;
    p->refused_until_ms = -100000;
    s->current[node] = i;
    sim_after(s, sim_between(s, 1, 20), i, at_join);
}

void sim_proc_end(struct sim *s, struct sim_proc *p)
{
    ownership_free(p->o);
    p->o = NULL;
    p->ended = true;
    for (int n = 0; n < s->nodes; n++)
        if (sim_at(s, n))
            sim_after(s, 1, s->current[n], sim_at_links);
}

void sim_kill(struct sim *s, int node)
{
    struct sim_proc *p = sim_at(s, node);
    if (!p)
        return;
    sim_note(s, "kill -9 %s", p->id);
    p->consul_until_ms = s->now_ms + 3000;
    sim_proc_end(s, p);
}

void sim_at_rejoin(struct sim *s, struct sim_item *it)
{
    sim_start(s, it->proc);
}

void sim_at_left(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    if (p->ended)
        return;
    for (uint32_t i = 0; i < s->slots_count; i++)
        if (s->slots[i].owner == it->proc && !p->left)
            sim_note(s, "%s ends and still owns slot %u", p->id, i);
    if (!p->dead)
        sim_mark_dead(s, p);
    sim_note(s, "%s ended", p->id);
    sim_proc_end(s, p);
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
        sim_push(s, it);
    }
    s->parked_count = kept;
    p->tick_ms = s->now_ms;
    sim_after(s, 0, s->current[node], sim_at_tick);
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
    sim_after(s, 10000, s->current[node], sim_at_left); /* the grace */
    struct ownership_event ev = {.kind = OWNERSHIP_LEAVE};
    sim_feed(s, p, &ev);
}

/* --- Consul -------------------------------------------------------------------------------------------------------- */

void sim_at_consul(struct sim *s, struct sim_item *it)
{
    struct sim_proc *p = &s->procs[it->proc];
    const char *listed[SIM_PROCS_MAX];
    struct ownership_event ev = {.kind = OWNERSHIP_CONSUL, .listed = listed, .key_held = true};
    if (!p->o || s->consul == 1)
        return;
    for (int i = 0; i < s->procs_count; i++)
        if (s->procs[i].consul_until_ms > s->now_ms && !(s->consul == 2 && sim_chance(s, 50)))
            listed[ev.listed_count++] = s->procs[i].id;
    if (s->consul == 2)
        ev.key_held = sim_chance(s, 70);
    sim_feed(s, p, &ev);
}

/* Whoever is there hears of it soon; again after the detectors have seen what happened. */
void sim_consul_changed(struct sim *s)
{
    for (int n = 0; n < s->nodes; n++)
        if (sim_at(s, n)) {
            sim_after(s, sim_between(s, 3, 50), s->current[n], sim_at_consul);
            sim_after(s, sim_between(s, 3001, 3050), s->current[n], sim_at_consul);
            sim_after(s, sim_between(s, 5001, 5050), s->current[n], sim_at_consul);
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
        sim_feed(s, &s->procs[it->proc], &it->ev);
}

static struct sim_item *event_in(struct sim *s, int64_t delay_ms, int proc, enum ownership_event_kind kind,
                                 const char *member)
{
    struct sim_item *it = sim_after(s, delay_ms, proc, at_event);
    it->ev.kind = kind;
    if (member)
        (void)snprintf(it->member, sizeof(it->member), "%s", member);
    it->ev.member = it->member;
    it->ev.to = it->to;
    return it;
}

void sim_at_links(struct sim *s, struct sim_item *it)
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

void sim_set_links(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    for (size_t i = 0; i < OWNERSHIP_NEIGHBOURS; i++) {
        p->links[i] = i < a->members_count ? sim_proc_of(a->members[i]) : SIM_NOBODY;
        p->links_refused[i] = false;
    }
    sim_after(s, sim_between(s, 1, 3), (int)(p - s->procs), sim_at_links);
}

/* A message to a member goes to whoever is at its address. NULL: it is lost. */
static struct sim_item *message(struct sim *s, struct sim_proc *from, const char *to,
                                enum ownership_event_kind kind, const char *about)
{
    int node = s->procs[sim_proc_of(to)].node;
    if (reach(s, from, node) != REACH_UP || sim_chance(s, s->lossy_percent))
        return NULL;
    int64_t delay_ms = sim_chance(s, s->lossy_percent) ? sim_between(s, 5, 3000) : sim_between(s, 1, 3);
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

uint64_t sim_query(struct sim *s, const struct sim_proc *p, const struct ownership_action *a)
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
    if (s->split[p->node][asker->node] || sim_chance(s, s->lossy_percent))
        return NULL;
    /* An answer goes to the very process that asked; the member it is about or from is as asked. */
    struct sim_item *it = event_in(s, sim_between(s, 1, 3), q->asker, kind, q->about);
    it->ev.question = q->question;
    it->ev.ok = true;
    return it;
}

void sim_do_peers(struct sim *s, struct sim_proc *p, const struct ownership_action *a)
{
    struct sim_item *it;
    int i = (int)(p - s->procs);
    if (a->kind == OWNERSHIP_DO_PROBE) {
        enum reach r = reach(s, p, s->procs[sim_proc_of(a->member)].node);
        it = event_in(s, sim_between(s, 1, 3), i, OWNERSHIP_PROBED, a->member);
        it->ev.ok = r != REACH_LOST;
        it->ev.yes = r == REACH_REFUSED;
        it->ev.replaced =
            r == REACH_UP &&
            strcmp(s->procs[s->current[s->procs[sim_proc_of(a->member)].node]].id, a->member) != 0 &&
            !sim_chance(s, s->lossy_percent);
    } else if (a->kind == OWNERSHIP_DO_ASK) {
        it = message(s, p, a->via, OWNERSHIP_LOOK, a->member);
        if (it)
            it->ev.question = sim_query(s, p, a);
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
        it->ev.question = sim_query(s, p, a);
    } else if (a->kind == OWNERSHIP_DO_AGREE) {
        for (size_t k = 0; k < a->slots_count; k++)
            p->agreed_ms[a->slots[k]] = s->now_ms;
        it = reply(s, p, a, OWNERSHIP_AGREED);
        if (!it)
            return;
        carry_slots(s, it, a);
        it->ev.leaving = a->leaving;
    } else if (a->kind == OWNERSHIP_DO_GIVEN) {
        for (int copies = sim_chance(s, s->lossy_percent) ? 2 : 1; copies > 0; copies--) {
            it = message(s, p, a->member, OWNERSHIP_GIVEN, p->id);
            if (it)
                carry_slots(s, it, a);
        }
    } else if (a->kind == OWNERSHIP_DO_TELL_DEAD) {
        for (size_t k = 0; k < a->members_count; k++)
            (void)message(s, p, a->members[k], OWNERSHIP_TOLD_DEAD, a->member);
    }
}
