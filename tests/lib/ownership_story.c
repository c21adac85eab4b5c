#include "tests/lib/ownership_story.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <stdio.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

#define START_MS   50000
#define LATENCY_MS 2

static void note_seen(struct story *t, const struct ownership_action *a)
{
    cr_assert(lt(sz, t->seen_count, SEEN_MAX));
    struct seen *s = &t->seen[t->seen_count++];
    *s = (struct seen){.kind = a->kind,
                       .beat = a->beat,
                       .question = a->question,
                       .until_ms = a->until_ms,
                       .yes = a->yes,
                       .leaving = a->leaving};
    if (a->member)
        (void)snprintf(s->member, sizeof(s->member), "%s", a->member);
    if (a->via)
        (void)snprintf(s->via, sizeof(s->via), "%s", a->via);
    for (size_t i = 0; i < a->slots_count; i++) {
        s->slots[i] = a->slots[i];
        s->epochs[i] = a->epochs ? a->epochs[i] : 0;
    }
    s->count = a->slots_count;
    for (size_t i = 0; i < a->changes_count; i++)
        s->slots[i] = a->changes[i].slot;
    if (a->kind == OWNERSHIP_DO_CHANGE_SLOTS)
        s->count = a->changes_count;
}

void story_feed(struct story *t, struct ownership_event ev)
{
    ev.now_ms = t->now_ms;
    t->actions.count = 0;
    ownership_step(t->o, &ev, &t->actions);
    ownership_validate(t->o);
    for (size_t i = 0; i < t->actions.count; i++) {
        const struct ownership_action *a = &t->actions.items[i];
        note_seen(t, a);
        if (a->kind == OWNERSHIP_DO_BEAT) {
            t->beat_out = true;
            t->beat_sent_ms = t->now_ms;
        }
        t->read_out |= a->kind == OWNERSHIP_DO_READ_SLOTS;
        if (a->kind == OWNERSHIP_DO_CHANGE_SLOTS) {
            t->changes = a->changes;
            t->changes_count = a->changes_count;
        }
    }
}

size_t story_own_slots(const struct story *t, struct ownership_slot *mine)
{
    size_t n = 0;
    for (size_t i = 0; i < STORY_SLOTS; i++)
        if (strcmp(t->all[i].owner, "a.1") == 0)
            mine[n++] = t->all[i];
    return n;
}

void story_answer_beat_with(struct story *t, bool ok, const struct ownership_slot *mine, size_t count)
{
    t->beat_out = false;
    for (size_t i = 0; ok && i < t->rows_count; i++)
        t->rows[i].beat += !t->silent[i] && !t->rows[i].dead;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_BEAT,
                                           .ok = ok,
                                           .alive = !t->dead,
                                           .sent_ms = t->beat_sent_ms,
                                           .members = t->rows,
                                           .members_count = t->rows_count,
                                           .slots = mine,
                                           .slots_count = count});
}

void story_answer_beat(struct story *t)
{
    struct ownership_slot mine[STORY_SLOTS];
    size_t count = story_own_slots(t, mine);
    story_answer_beat_with(t, !t->beats_fail, mine, count);
}

void story_answer_read(struct story *t)
{
    t->read_out = false;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_SLOTS_ALL,
                                           .ok = !t->reads_fail,
                                           .slots = t->all,
                                           .slots_count = STORY_SLOTS});
}

/* The store's compare-and-set. */
void story_run_changes(struct story *t)
{
    for (size_t i = 0; i < t->changes_count; i++) {
        struct slot_change *c = &t->changes[i];
        struct ownership_slot *row = &t->all[c->slot];
        c->changed = strcmp(row->owner, c->from) == 0 && row->epoch == c->from_epoch;
        if (!c->changed)
            continue;
        row->epoch++;
        memcpy(row->owner, c->to, sizeof(row->owner));
    }
}

void story_answer_changes(struct story *t, bool ok)
{
    t->changes_count = 0;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_CHANGED, .ok = ok});
}

void story_answers(struct story *t)
{
    if (t->beat_out && !t->hold_beats)
        story_answer_beat(t);
    if (t->read_out && !t->hold_reads)
        story_answer_read(t);
    if (t->changes_count > 0 && !t->hold_changes) {
        if (!t->changes_fail)
            story_run_changes(t);
        story_answer_changes(t, !t->changes_fail);
    }
}

void story_pass(struct story *t, int64_t ms)
{
    for (int64_t until_ms = t->now_ms + ms; t->now_ms < until_ms;) {
        int64_t next_ms = ownership_next_ms(t->o);
        bool answer = (t->beat_out && !t->hold_beats) || (t->read_out && !t->hold_reads) ||
                      (t->changes_count > 0 && !t->hold_changes);
        if (answer && t->now_ms + LATENCY_MS < next_ms)
            next_ms = t->now_ms + LATENCY_MS;
        if (next_ms > until_ms)
            next_ms = until_ms;
        t->now_ms = next_ms > t->now_ms ? next_ms : t->now_ms + 1;
        story_feed(t, (struct ownership_event){.kind = OWNERSHIP_TICK});
        story_answers(t);
    }
}

void story_row(struct story *t, const char *id)
{
    struct ownership_member *m = &t->rows[t->rows_count++];
    *m = (struct ownership_member){.beat = 100, .weight = 1, .ring_version = 1};
    (void)snprintf(m->id, sizeof(m->id), "%s", id);
}

void story_owner(struct story *t, size_t slot, const char *id, uint64_t epoch)
{
    t->all[slot] = (struct ownership_slot){.slot = (uint16_t)slot, .epoch = epoch};
    (void)snprintf(t->all[slot].owner, sizeof(t->all[slot].owner), "%s", id);
}

static void machine(struct story *t)
{
    struct ownership_options options = {
        .member = "a.1", .slots = STORY_SLOTS, .ring_version = 1, .move_slots_max = 3, .seed = 7};
    struct err e;
    cr_assert(zero(int, ownership_new(&options, t->now_ms, &t->o, &e)));
}

/* a.1 and others; all slots belong to OWNER. */
struct story *story_begin(const char *of_slots, const char *const *others)
{
    struct story *t = mem_new(struct story);
    t->now_ms = START_MS;
    story_row(t, "a.1");
    for (; *others; others++)
        story_row(t, *others);
    for (size_t i = 0; i < STORY_SLOTS; i++)
        story_owner(t, i, of_slots, 7);
    machine(t);
    return t;
}

void story_end(struct story *t)
{
    ownership_free(t->o);
    mem_free(t->actions.items);
    mem_free(t);
}

void story_forget(struct story *t)
{
    t->seen_count = 0;
}

size_t story_count(const struct story *t, enum ownership_action_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < t->seen_count; i++)
        n += t->seen[i].kind == kind;
    return n;
}

size_t story_count_slots(const struct story *t, enum ownership_action_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < t->seen_count; i++)
        n += t->seen[i].kind == kind ? t->seen[i].count : 0;
    return n;
}

/* The newest of its kind. */
const struct seen *story_last(const struct story *t, enum ownership_action_kind kind)
{
    for (size_t i = t->seen_count; i > 0; i--)
        if (t->seen[i - 1].kind == kind)
            return &t->seen[i - 1];
    cr_assert(false, "no action of kind %d", (int)kind);
    return NULL;
}

size_t story_held(const struct story *t)
{
    return ownership_view(t->o)->owned;
}

void story_refused(struct story *t, const char *id)
{
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_PEER_REFUSED, .member = id});
}

void story_looked(struct story *t, bool ok, bool yes)
{
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOKED,
                                           .ok = ok,
                                           .yes = yes,
                                           .question = story_last(t, OWNERSHIP_DO_ASK)->question});
}

void story_declared(struct story *t, const char *id, bool ok, bool yes)
{
    for (size_t i = 0; ok && yes && i < t->rows_count; i++)
        t->rows[i].dead |= strcmp(t->rows[i].id, id) == 0;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_DECLARED, .ok = ok, .yes = yes, .member = id});
}

void story_consul(struct story *t, bool key_held, const char *const *ids)
{
    size_t n = 0;
    while (ids[n])
        n++;
    story_feed(t, (struct ownership_event){
                      .kind = OWNERSHIP_CONSUL, .listed = ids, .listed_count = n, .key_held = key_held});
}

void story_given_to(struct story *t, const char *to, uint16_t slot, uint64_t epoch)
{
    struct ownership_slot s = {.slot = slot, .epoch = epoch};
    story_feed(t, (struct ownership_event){
                      .kind = OWNERSHIP_GIVEN, .member = "b.1", .to = to, .slots = &s, .slots_count = 1});
}

void story_agreed(struct story *t, size_t of_them)
{
    const struct seen *offer = story_last(t, OWNERSHIP_DO_OFFER);
    struct ownership_slot s[STORY_SLOTS] = {0};
    for (size_t i = 0; i < of_them; i++)
        s[i].slot = offer->slots[i];
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_AGREED,
                                           .ok = true,
                                           .member = offer->member,
                                           .slots = s,
                                           .slots_count = of_them,
                                           .question = offer->question});
}

/* The planner's batch for the newest MOVE. */
void story_moved(struct story *t, bool ok)
{
    const struct seen *move = story_last(t, OWNERSHIP_DO_MOVE);
    struct ownership_slot s[STORY_SLOTS] = {0};
    char to[RECORD_MEMBER_MAX];
    size_t n = move->count;
    memcpy(to, move->member, sizeof(to));
    for (size_t i = 0; i < n; i++) {
        s[i] = (struct ownership_slot){.slot = move->slots[i], .epoch = move->epochs[i] + 1};
        if (ok)
            story_owner(t, s[i].slot, to, s[i].epoch);
    }
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_MOVED, .ok = ok, .slots = s, .slots_count = n});
}

void story_offered(struct story *t, const char *to, bool leaving, size_t slots)
{
    struct ownership_slot s[STORY_SLOTS] = {0};
    for (size_t i = 0; i < slots; i++)
        s[i].slot = (uint16_t)i;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_OFFERED,
                                           .member = "b.1",
                                           .to = to,
                                           .leaving = leaving,
                                           .slots = s,
                                           .slots_count = slots,
                                           .question = 55});
}
