/* The store's list counts: adopt what names me, drop what does not, take what names a dead member. */
#include "agent/core/ownership/ownership_private.h"

#include <assert.h>
#include <string.h>

#include "agent/core/hashring.h"

static struct slot *slot_at(struct ownership *o, uint16_t slot)
{
    return slot < o->options.slots ? &o->slots[slot] : NULL;
}

static uint16_t number_of(const struct ownership *o, const struct slot *s)
{
    return (uint16_t)(s - o->slots);
}

/* What is mine in the answer and not held is known as "owner me" and so adopted by slots_run. A slot that is under way, or
 * changed after this beat was asked for, is left alone: the answer may be older than the change. */
static void named_row(struct ownership *o, const struct ownership_slot *row, uint64_t no, struct gather *lost)
{
    struct slot *s = slot_at(o, row->slot);
    if (!s)
        return;
    s->named = no;
    if (no <= s->as_of || s->state == SLOT_CHANGING || s->state == SLOT_MOVING)
        return;
    if (slot_mine(s)) {
        if (s->epoch == row->epoch)
            return;
        slot_move(o, s, SLOT_NONE);
        gather_add(o, lost, row->slot, s->epoch);
    }
    slot_know(o, s, o->me, row->epoch);
}

void slots_named(struct ownership *o, const struct ownership_event *ev, uint64_t no)
{
    struct gather lost = {0};
    for (size_t i = 0; i < ev->slots_count; i++)
        named_row(o, &ev->slots[i], no, &lost);
    for (uint32_t i = 0; i < o->options.slots; i++) {
        struct slot *s = &o->slots[i];
        if (s->owner != o->me || s->named == no || no <= s->as_of || s->state == SLOT_CHANGING ||
            s->state == SLOT_MOVING)
            continue;
        if (slot_mine(s)) {
            slot_move(o, s, SLOT_NONE);
            gather_add(o, &lost, (uint16_t)i, s->epoch);
        }
        slot_know(o, s, NULL, s->epoch);
        o->want_read = true;
    }
    if (lost.count > 0)
        say(o, "%zu slots are not ours any more by the store", lost.count);
    gather_act(o, OWNERSHIP_DO_LOST, &lost, NULL);
    o->check_slots = true;
}

void slots_lose_all(struct ownership *o)
{
    struct gather lost = {0};
    for (uint32_t i = 0; i < o->options.slots; i++) {
        struct slot *s = &o->slots[i];
        if (!slot_mine(s) && s->state != SLOT_MOVING)
            continue;
        slot_move(o, s, SLOT_NONE);
        gather_add(o, &lost, (uint16_t)i, s->epoch);
    }
    gather_act(o, OWNERSHIP_DO_LOST, &lost, NULL);
}

/* All rows. Never touches a slot that I hold or that is under way: only a beat's list or a compare-and-set does. */
void slots_all(struct ownership *o, const struct ownership_event *ev)
{
    uint64_t no = o->read_no;
    if (no == 0)
        return;
    o->read_no = 0;
    o->read_ms = o->now_ms + (ev->ok ? OWNERSHIP_READ_SLOTS_MS : OWNERSHIP_BEAT_MS);
    if (!ev->ok)
        return;
    for (size_t i = 0; i < ev->slots_count; i++) {
        const struct ownership_slot *row = &ev->slots[i];
        struct slot *s = slot_at(o, row->slot);
        if (!s || no <= s->as_of || s->state != SLOT_NONE)
            continue;
        struct member *owner = member_find(o, row->owner);
        if (!owner) { /* joined after our last beat, or dead for long: the next beat tells */
            owner = member_add(o, row->owner);
            o->want_beat = true;
        }
        member_point(&s->owner, owner);
        s->epoch = row->epoch;
    }
    o->check_slots = true;
}

static bool orphan(struct ownership *o, struct slot *s)
{
    bool yes = s->owner && s->owner->state == MEMBER_DEAD;
    if (!yes)
        s->orphan_ms = NEVER;
    else if (s->orphan_ms == NEVER)
        s->orphan_ms = o->now_ms;
    return yes;
}

static bool to_change(struct ownership *o, struct slot *s)
{
    bool is_orphan = orphan(o, s);
    if (s->state != SLOT_NONE)
        return false;
    if (s->owner == o->me)
        return true;
    return is_orphan && !o->leaving &&
           (s->ring == o->me || o->now_ms - s->orphan_ms >= OWNERSHIP_LEFT_OVER_MS);
}

static void change_add(struct ownership *o, struct slot *s)
{
    assert(s->owner);
    struct slot_change *c = &o->changes[o->changes_count++];
    *c = (struct slot_change){.slot = number_of(o, s), .from_epoch = s->epoch};
    memcpy(c->from, s->owner->id, sizeof(c->from));
    memcpy(c->to, o->me->id, sizeof(c->to));
    slot_move(o, s, SLOT_CHANGING);
}

/* One CHANGE_SLOTS at a time: adopt and take whatever may be, from the best knowledge there is. The store compares owner
 * and epoch, so old knowledge costs a round, not a mistake. */
void slots_run(struct ownership *o)
{
    if (!o->check_slots || o->changes_count > 0 || !lease_valid(o))
        return;
    o->check_slots = false;
    size_t unowned = 0;
    for (uint32_t i = 0; i < o->options.slots; i++) {
        struct slot *s = &o->slots[i];
        if (to_change(o, s)) {
            if (o->changes_count < OWNERSHIP_CHANGES_MAX)
                change_add(o, s);
            else
                o->check_slots = true;
        }
        unowned += s->orphan_ms != NEVER && s->state == SLOT_NONE;
    }
    o->view.unowned = unowned;
    if (unowned > 0 && o->read_ms > o->now_ms + OWNERSHIP_BEAT_MS)
        o->read_ms = o->now_ms + OWNERSHIP_BEAT_MS; /* see who took them */
    if (o->changes_count == 0)
        return;
    struct ownership_action *a = act(o, OWNERSHIP_DO_CHANGE_SLOTS, NULL);
    a->changes = o->changes;
    a->changes_count = o->changes_count;
}

/* Lost, or not known: the slot is nobody's in my eyes until the next reads tell. */
static void change_undone(struct ownership *o, struct slot *s)
{
    slot_move(o, s, SLOT_NONE);
    slot_know(o, s, NULL, s->epoch);
    o->want_read = true;
    o->want_beat = true;
}

void slots_changed(struct ownership *o, const struct ownership_event *ev)
{
    struct gather gained = {0};
    for (size_t i = 0; i < o->changes_count; i++) {
        const struct slot_change *c = &o->changes[i];
        struct slot *s = &o->slots[c->slot];
        if (!ev->ok || !c->changed) {
            change_undone(o, s);
            continue;
        }
        slot_know(o, s, o->me, c->from_epoch + 1);
        slot_move(o, s, SLOT_HELD);
        gather_add(o, &gained, c->slot, s->epoch);
    }
    o->changes_count = 0;
    o->check_slots = true;
    o->moves_ms = o->now_ms;
    gather_act(o, OWNERSHIP_DO_GAINED, &gained, NULL);
}

/* Each epoch above all that were seen of the slot: anything else is a message that was late. What is refused and yet true is
 * adopted after the next beat. */
void slots_given(struct ownership *o, const struct ownership_event *ev)
{
    struct gather gained = {0};
    if (strcmp(ev->to, o->me->id) != 0)
        return;
    for (size_t i = 0; i < ev->slots_count; i++) {
        const struct ownership_slot *row = &ev->slots[i];
        struct slot *s = slot_at(o, row->slot);
        if (!s || s->state != SLOT_NONE || row->epoch <= s->epoch)
            continue;
        slot_know(o, s, o->me, row->epoch);
        slot_move(o, s, SLOT_HELD);
        gather_add(o, &gained, row->slot, row->epoch);
    }
    o->agreed_ms = NEVER;
    o->moves_ms = o->now_ms;
    gather_act(o, OWNERSHIP_DO_GAINED, &gained, NULL);
}

const char *ownership_owner(const struct ownership *o, uint16_t slot, uint64_t *ret_epoch)
{
    if (slot >= o->options.slots || !o->slots[slot].owner)
        return "";
    *ret_epoch = o->slots[slot].epoch;
    return o->slots[slot].owner->id;
}

void ownership_hint(struct ownership *o, uint16_t slot, uint64_t epoch, const char *owner)
{
    struct slot *s = slot_at(o, slot);
    if (!s || s->state != SLOT_NONE || s->owner == o->me || epoch <= s->epoch)
        return;
    struct member *m = member_find(o, owner);
    if (!m || m == o->me) {
        o->want_beat = true;
        return;
    }
    slot_know(o, s, m, epoch);
}
