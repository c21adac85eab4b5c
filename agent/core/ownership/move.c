/* The ring, and planned moves: owner to named successor, after the successor agreed. */
#include "agent/core/ownership/ownership_private.h"

#include <string.h>
#include <xxhash.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"

/* Alive in the store and, while Consul's list holds our own key, in that list: a list without us is a list that lost
 * something, and shrinking the ring by it would move everything to the first who come back. */
static bool in_ring(const struct ownership *o, const struct member *m)
{
    if (m == o->me)
        return !o->leaving && o->beat_ok_no > 0;
    return m->state == MEMBER_ALIVE && !m->leaving &&
           (!o->key_held || o->ring_by_store || consul_lists(o, m));
}

static uint32_t version_of(const struct ownership *o, const struct member *m)
{
    return m == o->me || m->ring_version == 0 ? o->options.ring_version : m->ring_version;
}

static uint32_t weight_of(const struct member *m)
{
    if (m->weight == 0)
        return 1;
    return m->weight < HASHRING_WEIGHT_MAX ? m->weight : HASHRING_WEIGHT_MAX;
}

/* Whatever the order in which members are kept. */
static uint64_t hash_input(const struct ownership *o, size_t *ret_count)
{
    uint64_t sum = 1;
    *ret_count = 0;
    for (size_t i = 0; i < o->members_count; i++) {
        const struct member *m = o->members[i];
        if (!in_ring(o, m))
            continue;
        uint64_t parts[] = {m->hash, weight_of(m), version_of(o, m)};
        sum += XXH3_64bits(parts, sizeof(parts));
        ++*ret_count;
    }
    return sum;
}

static void ring_apply(struct ownership *o, struct member *const *at, const uint16_t *owners)
{
    for (uint32_t i = 0; i < o->options.slots; i++)
        member_point(&o->slots[i].ring, owners[i] == HASHRING_NOBODY ? NULL : at[owners[i]]);
}

static bool ring_build(struct ownership *o, size_t count)
{
    struct hashring_member *list = scratch(o, count + 1, sizeof(*list));
    struct member **at = scratch(o, count + 1, sizeof(struct member *));
    uint16_t *owners = scratch(o, o->options.slots, sizeof(*owners));
    uint32_t version = o->options.ring_version;
    size_t n = 0;
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (!in_ring(o, m))
            continue;
        at[n] = m;
        list[n++] = (struct hashring_member){.id = m->id, .weight = weight_of(m), .state = HASHRING_ACTIVE};
        if (version_of(o, m) < version)
            version = version_of(o, m);
    }
    struct err e;
    if (hashring_build(version, list, n, o->options.slots, owners, &e) < 0) {
        say(o, "ring of %zu members kept as it was: %s", n, e.text);
        return false;
    }
    ring_apply(o, at, owners);
    return true;
}

/* Two members after us on a circle of all that are alive: so each is watched by two. */
static void neighbours_update(struct ownership *o)
{
    struct member *next[OWNERSHIP_NEIGHBOURS] = {0};
    uint64_t hashes[OWNERSHIP_NEIGHBOURS] = {0};
    size_t count = 0;
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m == o->me || m->state != MEMBER_ALIVE)
            continue;
        size_t at = count < OWNERSHIP_NEIGHBOURS ? count++ : OWNERSHIP_NEIGHBOURS;
        for (; at > 0 && m->hash - o->me->hash < next[at - 1]->hash - o->me->hash; at--)
            if (at < OWNERSHIP_NEIGHBOURS)
                next[at] = next[at - 1];
        if (at < OWNERSHIP_NEIGHBOURS)
            next[at] = m;
    }
    const char **ids = scratch(o, OWNERSHIP_NEIGHBOURS, sizeof(*ids));
    for (size_t i = 0; i < count; i++) {
        ids[i] = next[i]->id;
        hashes[i] = next[i]->hash;
    }
    if (memcmp(hashes, o->neighbours, sizeof(hashes)) == 0)
        return;
    memcpy(o->neighbours, hashes, sizeof(hashes));
    struct ownership_action *a = act(o, OWNERSHIP_DO_NEIGHBOURS, NULL);
    a->members = ids;
    a->members_count = count;
}

void ring_update(struct ownership *o)
{
    size_t count;
    o->ring_by_store = false;
    uint64_t hash = hash_input(o, &count);
    if (count == 0 && o->leaving) { /* better one whom Consul does not know than nobody */
        o->ring_by_store = true;
        hash = hash_input(o, &count);
    }
    if (hash != o->ring_hash && ring_build(o, count)) {
        for (size_t i = 0; i < o->members_count; i++)
            move_cancel(o, o->members[i], 0);
        o->ring_hash = hash;
        o->ring_members = count;
        o->ring_ms = o->now_ms;
        o->moves_ms = o->now_ms;
        o->check_slots = true;
        o->want_read = true;
    }
    o->view.members = 0;
    for (size_t i = 0; i < o->members_count; i++)
        o->view.members += o->members[i]->state == MEMBER_ALIVE;
    neighbours_update(o);
}

/* An offer is void: the slots stay ours. */
void move_cancel(struct ownership *o, struct member *m, int64_t retry_after_ms)
{
    if (m->chunk.state != CHUNK_OFFERED)
        return;
    for (size_t i = 0; i < m->chunk.count; i++) {
        struct slot *s = &o->slots[m->chunk.slots[i]];
        if (s->state == SLOT_OFFERED && s->to == m)
            slot_move(o, s, SLOT_HELD);
    }
    m->chunk.state = CHUNK_NONE;
    m->chunk.retry_ms = o->now_ms + retry_after_ms;
    if (m->chunk.retry_ms < o->moves_ms)
        o->moves_ms = m->chunk.retry_ms;
}

static bool may_offer(struct ownership *o, const struct member *m)
{
    if (!m || m == o->me || m->state != MEMBER_ALIVE || m->refused)
        return false;
    if (o->now_ms < m->chunk.retry_ms && m->chunk.retry_ms < o->moves_ms)
        o->moves_ms = m->chunk.retry_ms;
    return o->now_ms >= m->chunk.retry_ms;
}

static void offers_void(struct ownership *o)
{
    for (size_t i = 0; i < o->members_count; i++)
        if (o->members[i]->chunk.state == CHUNK_OFFERED && o->now_ms >= o->members[i]->chunk.until_ms)
            move_cancel(o, o->members[i], OWNERSHIP_OFFER_RETRY_MS);
}

/* One chunk for each successor that has none yet; `question` 0 marks those being filled. */
static void offers_fill(struct ownership *o)
{
    for (uint32_t i = 0; i < o->options.slots; i++) {
        struct slot *s = &o->slots[i];
        if (s->state != SLOT_HELD || !may_offer(o, s->ring))
            continue;
        struct chunk *c = &s->ring->chunk;
        if (c->state == CHUNK_NONE) {
            if (!c->slots)
                c->slots = mem_new_array(uint16_t, o->options.move_slots_max);
            c->state = CHUNK_OFFERED;
            c->count = 0;
            c->question = 0;
        }
        if (c->state != CHUNK_OFFERED || c->question != 0 || c->count == o->options.move_slots_max)
            continue;
        c->slots[c->count++] = (uint16_t)i;
        member_point(&s->to, s->ring);
        slot_move(o, s, SLOT_OFFERED);
    }
}

static void offers_send(struct ownership *o)
{
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m->chunk.state != CHUNK_OFFERED || m->chunk.question != 0)
            continue;
        m->chunk.question = ++o->questions;
        m->chunk.until_ms = o->now_ms + OWNERSHIP_OFFER_MS;
        struct ownership_action *a = act(o, OWNERSHIP_DO_OFFER, m);
        uint16_t *slots = scratch(o, m->chunk.count, sizeof(*slots));
        memcpy(slots, m->chunk.slots, m->chunk.count * sizeof(*slots));
        a->slots = slots;
        a->slots_count = m->chunk.count;
        a->question = m->chunk.question;
        a->leaving = o->leaving;
    }
}

/* When nothing is ours by a beat that was asked for after the last change, or nobody is there to take it. */
static void leave_run(struct ownership *o)
{
    if (!o->leaving || o->left || o->view.moving > 0 || o->changes_count > 0 ||
        o->now_ms < o->agreed_until_ms)
        return;
    bool nothing = o->view.owned == 0 && o->beat_ok_no > o->change_no;
    for (uint32_t i = 0; nothing && i < o->options.slots; i++)
        nothing = o->slots[i].owner != o->me;
    if (!nothing && o->ring_members > 0)
        return;
    o->left = true;
    act(o, OWNERSHIP_DO_LEFT, NULL);
}

void move_run(struct ownership *o)
{
    offers_void(o);
    leave_run(o);
    if (o->now_ms < o->moves_ms || !lease_valid(o))
        return;
    /* A change of the ring seldom comes alone, and others may not have seen it; who leaves has no time for that. */
    if (!o->leaving && o->now_ms - o->ring_ms < OWNERSHIP_SETTLE_MS) {
        o->moves_ms = o->ring_ms + OWNERSHIP_SETTLE_MS;
        return;
    }
    o->moves_ms = INT64_MAX;
    offers_fill(o);
    offers_send(o);
}

int64_t move_next_ms(const struct ownership *o)
{
    int64_t next_ms = lease_valid(o) ? o->moves_ms : INT64_MAX;
    for (size_t i = 0; i < o->members_count; i++) {
        const struct chunk *c = &o->members[i]->chunk;
        if (c->state == CHUNK_OFFERED && c->until_ms < next_ms)
            next_ms = c->until_ms;
    }
    if (o->leaving && !o->left && o->agreed_until_ms > o->now_ms && o->agreed_until_ms < next_ms)
        next_ms = o->agreed_until_ms;
    return next_ms;
}

static struct member *heard_leaving(struct ownership *o, const struct ownership_event *ev)
{
    struct member *m = member_find(o, ev->member);
    if (m && m != o->me && ev->leaving && !m->leaving) {
        m->leaving = true;
        ring_update(o);
    }
    return m;
}

/* We take what our own ring gives us too, so that two rings cannot play ball with a slot; and anything of one that leaves. */
void move_offered(struct ownership *o, const struct ownership_event *ev)
{
    const struct member *from = heard_leaving(o, ev);
    struct gather agreed = {0};
    bool able = from && from->state == MEMBER_ALIVE && strcmp(ev->to, o->me->id) == 0 && !o->leaving &&
                lease_valid(o);
    if (!from)
        o->want_beat = true;
    for (size_t i = 0; able && i < ev->slots_count; i++) {
        uint16_t slot = ev->slots[i].slot;
        if (slot < o->options.slots && o->slots[slot].state == SLOT_NONE &&
            (ev->leaving || o->slots[slot].ring == o->me))
            gather_add(o, &agreed, slot, 0);
    }
    if (agreed.count > 0) {
        o->agreed_ms = o->now_ms + OWNERSHIP_AGREED_MS;
        o->agreed_until_ms = o->now_ms + OWNERSHIP_OFFER_MS + OWNERSHIP_AGREED_MS;
    }
    struct ownership_action *a = act(o, OWNERSHIP_DO_AGREE, from);
    a->slots = agreed.slots;
    a->slots_count = agreed.count;
    a->question = ev->question;
    a->leaving = o->leaving;
}

void move_agreed(struct ownership *o, const struct ownership_event *ev)
{
    struct member *m = heard_leaving(o, ev);
    if (!m || m->chunk.state != CHUNK_OFFERED || m->chunk.question != ev->question)
        return;
    struct gather moving = {0};
    for (size_t i = 0; lease_valid(o) && i < ev->slots_count; i++) {
        uint16_t slot = ev->slots[i].slot;
        struct slot *s = slot < o->options.slots ? &o->slots[slot] : NULL;
        if (!s || s->state != SLOT_OFFERED || s->to != m)
            continue;
        slot_move(o, s, SLOT_MOVING);
        gather_add(o, &moving, slot, s->epoch);
    }
    /* The rest. All agreed: the next chunk may go as soon as this one is there. */
    move_cancel(o, m, moving.count == m->chunk.count ? 0 : OWNERSHIP_OFFER_RETRY_MS);
    if (moving.count == 0)
        return;
    m->chunk.state = CHUNK_MOVING;
    m->chunk.count = moving.count;
    gather_act(o, OWNERSHIP_DO_MOVE, &moving, m);
}

/* The batch is durable. Whoever knows it first tells the successor; if the message is lost the next beat does. */
static void given(struct ownership *o, const struct ownership_event *ev, struct member *to)
{
    struct gather gone = {0}, lost = {0};
    for (size_t i = 0; i < ev->slots_count; i++) {
        const struct ownership_slot *row = &ev->slots[i];
        struct slot *s = row->slot < o->options.slots ? &o->slots[row->slot] : NULL;
        if (!s || s->state != SLOT_MOVING || s->to != to)
            continue;
        slot_move(o, s, SLOT_NONE);
        slot_know(o, s, ev->ok ? to : NULL, ev->ok ? row->epoch : s->epoch);
        gather_add(o, ev->ok ? &gone : &lost, row->slot, row->epoch);
        if (--to->chunk.count == 0)
            to->chunk.state = CHUNK_NONE;
    }
    gather_act(o, OWNERSHIP_DO_GIVEN, &gone, to);
    gather_act(o, OWNERSHIP_DO_LOST, &lost, NULL);
    if (lost.count > 0 || (gone.count > 0 && to->state != MEMBER_ALIVE))
        o->want_beat = o->want_read = o->check_slots = true;
}

void move_moved(struct ownership *o, const struct ownership_event *ev)
{
    for (size_t i = 0; i < o->members_count; i++)
        if (o->members[i]->chunk.state == CHUNK_MOVING)
            given(o, ev, o->members[i]);
    o->moves_ms = o->now_ms;
    if (o->leaving && o->view.owned == 0)
        o->want_beat = true; /* the last word that nothing names us */
}

void move_leave(struct ownership *o)
{
    o->leaving = true;
    o->view.leaving = true;
    o->change_no = o->issued; /* only a beat asked for from now on can say that nothing is ours */
    o->moves_ms = o->now_ms;
    o->want_beat = true;
    ring_update(o);
}
