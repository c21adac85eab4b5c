/* The contract of ownership, a story for each sentence. One machine, "a.1", beside a store that is a few arrays; the test
 * plays everybody else. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <stdio.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/ownership/ownership.h"
#include "tests/lib/ownership_sim.h"

#define SLOTS      8
#define ROWS_MAX   6
#define SEEN_MAX   400
#define START_MS   50000
#define LATENCY_MS 2

/* A copy of an action, with what the tests ask of it. */
struct seen {
    enum ownership_action_kind kind;
    char member[RECORD_MEMBER_MAX];
    char via[RECORD_MEMBER_MAX];
    uint64_t beat, question;
    int64_t until_ms;
    uint16_t slots[SLOTS];
    uint64_t epochs[SLOTS];
    size_t count;
    bool yes, leaving;
};

struct story {
    struct ownership *o;
    struct ownership_actions actions;
    int64_t now_ms;
    struct ownership_member rows[ROWS_MAX];
    bool silent[ROWS_MAX]; /* its beat does not move */
    size_t rows_count;
    struct ownership_slot all[SLOTS];
    bool dead;                               /* I am, in the store */
    bool beats_fail, reads_fail;
    bool hold_beats, hold_reads, hold_changes; /* the test answers them itself */
    bool changes_fail;
    struct slot_change *changes; /* out */
    size_t changes_count;
    int64_t beat_sent_ms;
    bool beat_out, read_out;
    struct seen seen[SEEN_MAX];
    size_t seen_count;
};

static void feed(struct story *t, struct ownership_event ev);

static void note_seen(struct story *t, const struct ownership_action *a)
{
    cr_assert(lt(sz, t->seen_count, SEEN_MAX));
    struct seen *s = &t->seen[t->seen_count++];
    *s = (struct seen){.kind = a->kind, .beat = a->beat, .question = a->question, .until_ms = a->until_ms,
                       .yes = a->yes, .leaving = a->leaving};
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

static void feed(struct story *t, struct ownership_event ev)
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

static size_t own_slots(const struct story *t, struct ownership_slot *mine)
{
    size_t n = 0;
    for (size_t i = 0; i < SLOTS; i++)
        if (strcmp(t->all[i].owner, "a.1") == 0)
            mine[n++] = t->all[i];
    return n;
}

static void answer_beat_with(struct story *t, bool ok, const struct ownership_slot *mine, size_t count)
{
    t->beat_out = false;
    for (size_t i = 0; ok && i < t->rows_count; i++)
        t->rows[i].beat += !t->silent[i] && !t->rows[i].dead;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_BEAT, .ok = ok, .alive = !t->dead, .sent_ms = t->beat_sent_ms,
                                     .members = t->rows, .members_count = t->rows_count, .slots = mine,
                                     .slots_count = count});
}

static void answer_beat(struct story *t)
{
    struct ownership_slot mine[SLOTS];
    size_t count = own_slots(t, mine);
    answer_beat_with(t, !t->beats_fail, mine, count);
}

static void answer_read(struct story *t)
{
    t->read_out = false;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_SLOTS_ALL, .ok = !t->reads_fail, .slots = t->all,
                                     .slots_count = SLOTS});
}

/* The store's compare-and-set. */
static void run_changes(struct story *t)
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

static void answer_changes(struct story *t, bool ok)
{
    t->changes_count = 0;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_CHANGED, .ok = ok});
}

static void answers(struct story *t)
{
    if (t->beat_out && !t->hold_beats)
        answer_beat(t);
    if (t->read_out && !t->hold_reads)
        answer_read(t);
    if (t->changes_count > 0 && !t->hold_changes) {
        if (!t->changes_fail)
            run_changes(t);
        answer_changes(t, !t->changes_fail);
    }
}

static void pass(struct story *t, int64_t ms)
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
        feed(t, (struct ownership_event){.kind = OWNERSHIP_TICK});
        answers(t);
    }
}

static void row(struct story *t, const char *id)
{
    struct ownership_member *m = &t->rows[t->rows_count++];
    *m = (struct ownership_member){.beat = 100, .weight = 1, .ring_version = 1};
    (void)snprintf(m->id, sizeof(m->id), "%s", id);
}

static void owner(struct story *t, size_t slot, const char *id, uint64_t epoch)
{
    t->all[slot] = (struct ownership_slot){.slot = (uint16_t)slot, .epoch = epoch};
    (void)snprintf(t->all[slot].owner, sizeof(t->all[slot].owner), "%s", id);
}

static void machine(struct story *t)
{
    struct ownership_options options = {
        .member = "a.1", .slots = SLOTS, .ring_version = 1, .move_slots_max = 3, .seed = 7};
    struct err e;
    cr_assert(zero(int, ownership_new(&options, t->now_ms, &t->o, &e)));
}

/* a.1 and others; all slots belong to OWNER. */
static struct story *begin(const char *of_slots, const char *const *others)
{
    struct story *t = mem_new(struct story);
    t->now_ms = START_MS;
    row(t, "a.1");
    for (; *others; others++)
        row(t, *others);
    for (size_t i = 0; i < SLOTS; i++)
        owner(t, i, of_slots, 7);
    machine(t);
    return t;
}
#define BEGIN(of_slots, ...) begin(of_slots, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void end(struct story *t)
{
    ownership_free(t->o);
    mem_free(t->actions.items);
    mem_free(t);
}

static void forget(struct story *t)
{
    t->seen_count = 0;
}

static size_t count(const struct story *t, enum ownership_action_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < t->seen_count; i++)
        n += t->seen[i].kind == kind;
    return n;
}

static size_t count_slots(const struct story *t, enum ownership_action_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < t->seen_count; i++)
        n += t->seen[i].kind == kind ? t->seen[i].count : 0;
    return n;
}

/* The newest of its kind. */
static const struct seen *the(const struct story *t, enum ownership_action_kind kind)
{
    for (size_t i = t->seen_count; i > 0; i--)
        if (t->seen[i - 1].kind == kind)
            return &t->seen[i - 1];
    cr_assert(false, "no action of kind %d", (int)kind);
    return NULL;
}

static size_t held(const struct story *t)
{
    return ownership_view(t->o)->owned;
}

static void refused(struct story *t, const char *id)
{
    feed(t, (struct ownership_event){.kind = OWNERSHIP_PEER_REFUSED, .member = id});
}

static void looked(struct story *t, bool ok, bool yes)
{
    feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOKED, .ok = ok, .yes = yes,
                                     .question = the(t, OWNERSHIP_DO_ASK)->question});
}

static void declared(struct story *t, const char *id, bool ok, bool yes)
{
    for (size_t i = 0; ok && yes && i < t->rows_count; i++)
        t->rows[i].dead |= strcmp(t->rows[i].id, id) == 0;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_DECLARED, .ok = ok, .yes = yes, .member = id});
}

static void consul(struct story *t, bool key_held, const char *const *ids)
{
    size_t n = 0;
    while (ids[n])
        n++;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_CONSUL, .listed = ids, .listed_count = n, .key_held = key_held});
}
#define CONSUL(t, key_held, ...) consul(t, key_held, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void given_to(struct story *t, const char *to, uint16_t slot, uint64_t epoch)
{
    struct ownership_slot s = {.slot = slot, .epoch = epoch};
    feed(t, (struct ownership_event){.kind = OWNERSHIP_GIVEN, .member = "b.1", .to = to, .slots = &s, .slots_count = 1});
}

static void agreed(struct story *t, size_t of_them)
{
    const struct seen *offer = the(t, OWNERSHIP_DO_OFFER);
    struct ownership_slot s[SLOTS] = {0};
    for (size_t i = 0; i < of_them; i++)
        s[i].slot = offer->slots[i];
    feed(t, (struct ownership_event){.kind = OWNERSHIP_AGREED, .ok = true, .member = offer->member, .slots = s,
                                     .slots_count = of_them, .question = offer->question});
}

/* The planner's batch for the newest MOVE. */
static void moved(struct story *t, bool ok)
{
    const struct seen *move = the(t, OWNERSHIP_DO_MOVE);
    struct ownership_slot s[SLOTS] = {0};
    char to[RECORD_MEMBER_MAX];
    size_t n = move->count;
    memcpy(to, move->member, sizeof(to));
    for (size_t i = 0; i < n; i++) {
        s[i] = (struct ownership_slot){.slot = move->slots[i], .epoch = move->epochs[i] + 1};
        if (ok)
            owner(t, s[i].slot, to, s[i].epoch);
    }
    feed(t, (struct ownership_event){.kind = OWNERSHIP_MOVED, .ok = ok, .slots = s, .slots_count = n});
}

static void offered(struct story *t, const char *to, bool leaving, size_t slots)
{
    struct ownership_slot s[SLOTS] = {0};
    for (size_t i = 0; i < slots; i++)
        s[i].slot = (uint16_t)i;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_OFFERED, .member = "b.1", .to = to, .leaving = leaving, .slots = s,
                                     .slots_count = slots, .question = 55});
}

/* --- own lease ----------------------------------------------------------------------------------------------------- */

Test(ownership, lease_runs_from_sending_the_beat)
{
    struct story *t = BEGIN("a.1");
    t->hold_beats = true;
    pass(t, 1);
    int64_t sent_ms = t->beat_sent_ms;
    t->now_ms += 900;
    answer_beat(t);
    cr_expect(eq(i64, the(t, OWNERSHIP_DO_LEASE)->until_ms, sent_ms + 5000 - 250));
    end(t);
}

Test(ownership, failed_beats_do_not_prolong_the_lease_and_its_end_is_told)
{
    struct story *t = BEGIN("a.1");
    pass(t, 100);
    int64_t until_ms = ownership_view(t->o)->lease_until_ms;
    t->beats_fail = true;
    pass(t, 4000);
    cr_expect(eq(i64, ownership_view(t->o)->lease_until_ms, until_ms));
    cr_expect(gt(i64, the(t, OWNERSHIP_DO_LEASE)->until_ms, 0));
    pass(t, 1000);
    cr_expect(zero(i64, the(t, OWNERSHIP_DO_LEASE)->until_ms));
    t->beats_fail = false;
    pass(t, 300);
    cr_expect(gt(i64, the(t, OWNERSHIP_DO_LEASE)->until_ms, t->now_ms));
    cr_expect(eq(sz, held(t), SLOTS));
    end(t);
}

Test(ownership, a_beat_a_second)
{
    struct story *t = BEGIN("a.1");
    pass(t, 10000);
    cr_expect(ge(sz, count(t, OWNERSHIP_DO_BEAT), 10));
    cr_expect(le(sz, count(t, OWNERSHIP_DO_BEAT), 12));
    end(t);
}

Test(ownership, declared_dead_it_stops_loses_all_and_joins_again)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 100);
    t->dead = true;
    pass(t, 1100);
    cr_expect(zero(i64, the(t, OWNERSHIP_DO_LEASE)->until_ms));
    cr_expect(eq(sz, count_slots(t, OWNERSHIP_DO_LOST), SLOTS));
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_REJOIN), 1));
    cr_expect(ownership_view(t->o)->rejoining);
    forget(t);
    given_to(t, "a.1", 1, 99);
    cr_expect(zero(sz, t->seen_count));
    end(t);
}

/* --- others' leases ------------------------------------------------------------------------------------------------ */

Test(ownership, beat_unchanged_for_five_seconds_is_declared_and_its_slots_taken)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->silent[1] = true;
    pass(t, 4990);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    pass(t, 100);
    cr_expect(eq(str, (char *)the(t, OWNERSHIP_DO_DECLARE)->member, "b.1"));
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_DECLARE)->beat, 100));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    declared(t, "b.1", true, true);
    cr_expect(eq(str, (char *)the(t, OWNERSHIP_DO_MEMBER_DEAD)->member, "b.1"));
    pass(t, 50);
    cr_expect(eq(sz, held(t), SLOTS));
    cr_expect(eq(u64, t->all[0].epoch, 8));
    end(t);
}

Test(ownership, a_changed_beat_starts_the_count_anew)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->silent[1] = true;
    pass(t, 4500);
    t->rows[1].beat++;
    pass(t, 5000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    pass(t, 1000);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 1));
    end(t);
}

Test(ownership, a_failed_read_starts_the_count_anew)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->silent[1] = true;
    pass(t, 3500);
    t->beats_fail = true;
    pass(t, 1000);
    t->beats_fail = false;
    pass(t, 4900);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    pass(t, 1000);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 1));
    end(t);
}

Test(ownership, a_gap_between_reads_starts_the_count_anew)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->silent[1] = true;
    pass(t, 2500);
    t->now_ms += 20000; /* we were stopped */
    pass(t, 4900);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    pass(t, 1000);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 1));
    end(t);
}

Test(ownership, a_declaration_that_the_store_refused_takes_nothing)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->silent[1] = true;
    pass(t, 5100);
    t->silent[1] = false;
    declared(t, "b.1", true, false);
    pass(t, 4000);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 1));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    end(t);
}

Test(ownership, a_declaration_of_unknown_outcome_is_read_from_the_store)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->silent[1] = true;
    pass(t, 5100);
    declared(t, "b.1", false, false);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_MEMBER_DEAD)));
    t->rows[1].dead = true;
    pass(t, 100);
    cr_expect(eq(sz, held(t), SLOTS));
    end(t);
}

Test(ownership, restart_of_all_takes_over_when_the_old_leases_are_over)
{
    struct story *t = BEGIN("b.0", "b.0", "c.0");
    t->silent[1] = t->silent[2] = true;
    pass(t, 5100);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 2));
    declared(t, "c.0", true, true);
    declared(t, "b.0", true, true);
    pass(t, 50);
    cr_expect(eq(sz, held(t), SLOTS));
    end(t);
}

Test(ownership, a_row_that_vanished_counts_as_a_silent_beat)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    t->rows_count = 1;
    pass(t, 4000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    pass(t, 2000);
    cr_expect(eq(sz, held(t), SLOTS));
    end(t);
}

/* --- verdict by refusal -------------------------------------------------------------------------------------------- */

Test(ownership, a_pair_needs_one_witness_and_a_beat_after_the_refusal)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 500);
    t->hold_beats = true;
    refused(t, "b.1");
    cr_expect(t->beat_out);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    t->silent[1] = true;
    t->rows[1].beat += 5; /* its last beat, which we had not seen */
    answer_beat(t);
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_DECLARE)->beat, t->rows[1].beat));
    cr_expect(the(t, OWNERSHIP_DO_DECLARE)->yes);
    end(t);
}

Test(ownership, with_a_third_a_second_must_have_looked)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    t->silent[1] = true;
    refused(t, "b.1");
    cr_expect(eq(str, (char *)the(t, OWNERSHIP_DO_ASK)->via, "c.1"));
    answers(t);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    looked(t, true, true);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 1));
    end(t);
}

Test(ownership, a_second_who_sees_it_up_prevents_the_verdict)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "b.1");
    looked(t, true, false);
    pass(t, 3000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    end(t);
}

Test(ownership, who_sees_everybody_refused_declares_nobody)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "c.1");
    refused(t, "b.1");
    looked(t, false, false);
    pass(t, 4000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    end(t);
}

Test(ownership, a_witness_that_does_not_answer_is_replaced)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1", "d.1");
    pass(t, 500);
    refused(t, "b.1");
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_ASK), 1));
    looked(t, false, false);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_ASK), 2));
    end(t);
}

Test(ownership, a_witness_counts_for_a_second)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    t->hold_beats = true;
    refused(t, "b.1");
    looked(t, true, true);
    t->now_ms += 1500;
    answer_beat(t);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    end(t);
}

Test(ownership, a_verdict_needs_an_own_beat_of_the_last_second)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "b.1");
    answers(t);
    t->hold_beats = true;
    t->now_ms += 1200;
    looked(t, true, true);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    cr_assert(t->beat_out);
    answer_beat(t);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 1));
    end(t);
}

Test(ownership, one_verdict_in_five_seconds)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1", "d.1");
    pass(t, 500);
    t->silent[1] = true;
    refused(t, "b.1");
    answers(t);
    looked(t, true, true);
    declared(t, "b.1", true, true);
    forget(t);
    refused(t, "c.1");
    pass(t, 10);
    looked(t, true, true);
    pass(t, 900);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    end(t);
}

Test(ownership, a_beat_that_went_on_is_no_verdict_and_is_judged_again)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "b.1");
    answers(t);
    looked(t, true, true);
    declared(t, "b.1", true, false);
    answers(t);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 2));
    end(t);
}

Test(ownership, who_is_up_again_is_no_suspect)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "b.1");
    feed(t, (struct ownership_event){.kind = OWNERSHIP_PEER_UP, .member = "b.1"});
    looked(t, true, true);
    pass(t, 3000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    end(t);
}

Test(ownership, a_suspicion_is_renewed_by_a_fresh_look_or_forgotten)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "b.1");
    looked(t, true, false);
    pass(t, 2500);
    cr_expect(ge(sz, count(t, OWNERSHIP_DO_PROBE), 1));
    feed(t, (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .yes = true});
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_ASK), 2));
    pass(t, 2100);
    feed(t, (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true});
    looked(t, true, true);
    pass(t, 1500);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    end(t);
}

Test(ownership, asked_to_look_it_looks_anew)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "b.1");
    forget(t);
    feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOK, .member = "b.1", .question = 77});
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_PROBE), 1));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_LOOKED)));
    feed(t, (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .yes = true});
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_LOOKED)->question, 77));
    cr_expect(the(t, OWNERSHIP_DO_LOOKED)->yes);
    forget(t);
    feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOK, .member = "nobody.1", .question = 78});
    cr_expect(not(the(t, OWNERSHIP_DO_LOOKED)->yes));
    for (uint64_t q = 100; q < 140; q++) /* a flood is answered, not kept */
        feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOK, .member = "c.1", .question = q});
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_LOOKED)->question, 123));
    end(t);
}

Test(ownership, consul_news_makes_it_look_and_nothing_more)
{
    struct story *t = BEGIN("b.1", "b.1");
    CONSUL(t, true, "a.1", "b.1");
    pass(t, 500);
    forget(t);
    CONSUL(t, true, "a.1");
    cr_expect(eq(str, (char *)the(t, OWNERSHIP_DO_PROBE)->member, "b.1"));
    pass(t, 5000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_DECLARE)));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    feed(t, (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .yes = true});
    answers(t);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_DECLARE), 1));
    end(t);
}

Test(ownership, the_others_are_told_and_look_into_the_store_themselves)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 500);
    feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    cr_expect(t->beat_out);
    answers(t);
    pass(t, 100);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_MEMBER_DEAD)));
    t->rows[1].dead = true;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    answers(t);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_MEMBER_DEAD), 1));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_TELL_DEAD)));
    end(t);
}

/* --- taking -------------------------------------------------------------------------------------------------------- */

Test(ownership, the_ring_says_who_takes_and_what_is_left_over_anyone_may)
{
    struct story *t = BEGIN("d.1", "b.1", "c.1", "d.1");
    pass(t, 500);
    t->rows[3].dead = true;
    pass(t, 1500);
    size_t share = held(t);
    cr_expect(gt(sz, share, 0));
    cr_expect(lt(sz, share, SLOTS));
    cr_expect(eq(sz, ownership_view(t->o)->unowned, SLOTS - share));
    pass(t, 4000);
    cr_expect(eq(sz, held(t), SLOTS));
    end(t);
}

Test(ownership, a_lost_compare_and_set_is_not_ours)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 500);
    t->hold_changes = true;
    t->rows[1].dead = true;
    pass(t, 1200);
    owner(t, 3, "c.1", 8);
    run_changes(t);
    answer_changes(t, true);
    cr_expect(eq(sz, held(t), SLOTS - 1));
    end(t);
}

Test(ownership, an_unknown_outcome_is_adopted_with_the_next_epoch)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 500);
    t->hold_changes = true;
    t->rows[1].dead = true;
    pass(t, 1200);
    run_changes(t);
    answer_changes(t, false);
    cr_expect(zero(sz, held(t)));
    t->hold_changes = false;
    pass(t, 50);
    cr_expect(eq(sz, held(t), SLOTS));
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_GAINED)->epochs[0], 9));
    end(t);
}

Test(ownership, an_owner_without_a_row_is_dead_only_if_a_later_beat_says_so)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    t->hold_beats = true;
    owner(t, 2, "new.1", 9);
    owner(t, 3, "old.1", 9);
    pass(t, 1000);
    forget(t);
    feed(t, (struct ownership_event){.kind = OWNERSHIP_SLOTS_ALL, .ok = true, .slots = t->all, .slots_count = SLOTS});
    /* nobody asked: not heard */
    cr_expect(zero(sz, t->seen_count));
    pass(t, 10000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    answer_beat(t);
    row(t, "new.1");
    pass(t, 1);
    answer_beat(t);
    pass(t, 5000);
    answer_beat(t);
    pass(t, 50);
    cr_expect(eq(sz, held(t), 1));
    cr_expect(eq(u64, t->all[3].epoch, 10));
    end(t);
}

Test(ownership, nothing_is_taken_without_an_own_lease)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->hold_reads = true;
    pass(t, 500);
    t->rows[1].dead = true;
    pass(t, 1000);
    t->beats_fail = true;
    pass(t, 6000);
    t->hold_reads = false;
    answer_read(t);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    end(t);
}

/* --- adopt and drop ------------------------------------------------------------------------------------------------ */

Test(ownership, what_names_me_is_adopted_with_the_next_epoch)
{
    struct story *t = BEGIN("a.1");
    pass(t, 50);
    cr_expect(eq(sz, held(t), SLOTS));
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_GAINED)->epochs[0], 8));
    end(t);
}

Test(ownership, what_no_longer_names_me_is_dropped)
{
    struct story *t = BEGIN("a.1", "b.1");
    CONSUL(t, true, "a.1");
    pass(t, 100);
    owner(t, 4, "b.1", 20);
    pass(t, 1100);
    cr_expect(eq(sz, count_slots(t, OWNERSHIP_DO_LOST), 1));
    cr_expect(eq(u32, the(t, OWNERSHIP_DO_LOST)->slots[0], 4));
    cr_expect(eq(sz, held(t), SLOTS - 1));
    end(t);
}

Test(ownership, another_epoch_than_held_is_lost_and_adopted)
{
    struct story *t = BEGIN("a.1");
    pass(t, 100);
    owner(t, 4, "a.1", 20);
    pass(t, 1100);
    cr_expect(eq(u32, the(t, OWNERSHIP_DO_LOST)->slots[0], 4));
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_GAINED)->epochs[0], 21));
    end(t);
}

Test(ownership, a_list_read_before_the_last_change_is_not_heard)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    t->hold_beats = true;
    pass(t, 1000);
    given_to(t, "a.1", 2, 8);
    cr_assert(eq(sz, held(t), 1));
    answer_beat_with(t, true, NULL, 0); /* asked before */
    cr_expect(eq(sz, held(t), 1));
    pass(t, 1000);
    given_to(t, "a.1", 3, 9);
    answer_beat_with(t, true, &(struct ownership_slot){.slot = 2, .epoch = 8}, 1);
    cr_expect(eq(sz, held(t), 2));
    owner(t, 2, "a.1", 8);
    pass(t, 1000);
    answer_beat_with(t, true, NULL, 0); /* asked after */
    cr_expect(zero(sz, held(t)));
    end(t);
}

Test(ownership, all_slots_read_before_the_last_change_are_not_heard)
{
    struct story *t = BEGIN("b.1", "b.1");
    t->hold_reads = true;
    pass(t, 100);
    cr_assert(t->read_out);
    ownership_hint(t->o, 2, 30, "b.1");
    uint64_t epoch = 0;
    answer_read(t);
    (void)ownership_owner(t->o, 2, &epoch);
    cr_expect(eq(u64, epoch, 30));
    (void)ownership_owner(t->o, 3, &epoch);
    cr_expect(eq(u64, epoch, 7));
    t->hold_reads = false;
    pass(t, 11000);
    (void)ownership_owner(t->o, 2, &epoch);
    cr_expect(eq(u64, epoch, 7)); /* a hint is believed until the next read */
    end(t);
}

/* --- planned moves ------------------------------------------------------------------------------------------------- */

Test(ownership, a_move_is_offered_agreed_durable_and_then_told)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 900);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_OFFER))); /* the ring has just changed */
    pass(t, 200);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_OFFER), 1));
    cr_expect(eq(sz, the(t, OWNERSHIP_DO_OFFER)->count, 3));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_MOVE)));
    agreed(t, 3);
    cr_expect(eq(sz, the(t, OWNERSHIP_DO_MOVE)->count, 3));
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_MOVE)->epochs[0], 8));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_GIVEN)));
    cr_expect(eq(sz, held(t), SLOTS));
    moved(t, true);
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_GIVEN)->epochs[0], 9));
    cr_expect(eq(sz, held(t), SLOTS - 3));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_LOST)));
    end(t);
}

Test(ownership, only_what_was_agreed_is_moved_and_the_next_chunk_follows)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 1100);
    agreed(t, 2);
    cr_expect(eq(sz, the(t, OWNERSHIP_DO_MOVE)->count, 2));
    cr_expect(eq(sz, ownership_view(t->o)->moving, 2));
    forget(t);
    pass(t, 600);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_OFFER))); /* one chunk at a time */
    end(t);
}

Test(ownership, chunks_follow_each_other_at_once_until_the_ring_is_content)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 1100);
    size_t given = 0;
    for (int i = 0; i < 5 && ownership_view(t->o)->moving > 0; i++) {
        agreed(t, the(t, OWNERSHIP_DO_OFFER)->count);
        given += the(t, OWNERSHIP_DO_MOVE)->count;
        moved(t, true);
    }
    cr_expect(ge(sz, given, 3));
    cr_expect(le(sz, given, 5));
    cr_expect(eq(sz, held(t), SLOTS - given));
    pass(t, 3000);
    cr_expect(eq(sz, held(t), SLOTS - given));
    end(t);
}

Test(ownership, an_offer_without_an_answer_is_void_and_made_again)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 1100);
    struct seen first = *the(t, OWNERSHIP_DO_OFFER);
    pass(t, 1000);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_OFFER), 1));
    pass(t, 600);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_OFFER), 2));
    struct ownership_slot s = {.slot = first.slots[0]};
    feed(t, (struct ownership_event){.kind = OWNERSHIP_AGREED, .ok = true, .member = "b.1", .slots = &s, .slots_count = 1,
                                     .question = first.question});
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_MOVE))); /* an answer to the first */
    end(t);
}

Test(ownership, nothing_is_offered_to_a_suspect_or_a_dead_member)
{
    struct story *t = BEGIN("a.1", "b.1", "c.1");
    pass(t, 500);
    refused(t, "b.1");
    refused(t, "c.1");
    pass(t, 3000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_OFFER)));
    end(t);
}

Test(ownership, the_death_of_the_successor_voids_the_offer)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 1100);
    t->rows[1].dead = true;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    answers(t);
    agreed(t, 3);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_MOVE)));
    cr_expect(eq(sz, held(t), SLOTS));
    end(t);
}

Test(ownership, a_slot_moved_to_one_who_died_meanwhile_is_taken_back)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 1100);
    agreed(t, 3);
    t->rows[1].dead = true;
    feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    answers(t);
    moved(t, true);
    pass(t, 50);
    cr_expect(eq(sz, held(t), SLOTS));
    end(t);
}

Test(ownership, a_beat_does_not_touch_what_is_being_moved)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 1100);
    agreed(t, 3);
    for (size_t i = 0; i < 3; i++) /* durable, but we do not know it yet */
        owner(t, the(t, OWNERSHIP_DO_MOVE)->slots[i], "b.1", 9);
    pass(t, 2000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_LOST)));
    moved(t, true);
    cr_expect(eq(sz, the(t, OWNERSHIP_DO_GIVEN)->count, 3));
    end(t);
}

Test(ownership, a_failed_move_is_lost_and_adopted_with_the_next_epoch)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 1100);
    agreed(t, 3);
    moved(t, false);
    cr_expect(eq(sz, count_slots(t, OWNERSHIP_DO_LOST), 3));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_GIVEN)));
    pass(t, 50);
    cr_expect(eq(sz, held(t), SLOTS));
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_GAINED)->epochs[0], 9)); /* a late batch with 8 finds nothing */
    end(t);
}

Test(ownership, an_offer_is_agreed_to_as_far_as_the_own_ring_gives_it)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    offered(t, "a.1", false, SLOTS);
    const struct seen *a = the(t, OWNERSHIP_DO_AGREE);
    cr_expect(eq(u64, a->question, 55));
    cr_expect(eq(str, (char *)a->member, "b.1"));
    cr_expect(gt(sz, a->count, 0));
    cr_expect(lt(sz, a->count, SLOTS));
    offered(t, "a.1", true, SLOTS); /* of one that leaves: all */
    cr_expect(eq(sz, the(t, OWNERSHIP_DO_AGREE)->count, SLOTS));
    end(t);
}

Test(ownership, an_offer_to_an_older_life_is_refused)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    offered(t, "a.0", true, SLOTS);
    cr_expect(zero(sz, the(t, OWNERSHIP_DO_AGREE)->count));
    end(t);
}

Test(ownership, an_offer_without_an_own_lease_is_refused)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    t->beats_fail = true;
    pass(t, 5000);
    offered(t, "a.1", true, SLOTS);
    cr_expect(zero(sz, the(t, OWNERSHIP_DO_AGREE)->count));
    end(t);
}

Test(ownership, who_agreed_and_heard_nothing_looks_into_the_store)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    offered(t, "a.1", true, SLOTS);
    owner(t, 1, "a.1", 8); /* GIVEN was lost */
    pass(t, 260);
    cr_expect(eq(sz, held(t), 1));
    end(t);
}

Test(ownership, given_is_ours_at_once_but_not_with_a_stale_epoch_or_for_an_older_life)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    given_to(t, "a.0", 1, 8);
    given_to(t, "a.1", 1, 7);
    given_to(t, "a.1", SLOTS + 5, 9);
    cr_expect(zero(sz, held(t)));
    given_to(t, "a.1", 1, 8);
    cr_expect(eq(sz, held(t), 1));
    cr_expect(eq(u64, the(t, OWNERSHIP_DO_GAINED)->epochs[0], 8));
    given_to(t, "a.1", 1, 8); /* repeated */
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_GAINED), 1));
    end(t);
}

/* --- ring ---------------------------------------------------------------------------------------------------------- */

Test(ownership, consul_takes_out_of_the_ring_while_it_holds_the_own_key)
{
    struct story *t = BEGIN("a.1", "b.1");
    CONSUL(t, true, "a.1");
    pass(t, 3000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_OFFER)));
    CONSUL(t, false); /* wiped: the store alone says who is there */
    pass(t, 1100);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_OFFER), 1));
    end(t);
}

Test(ownership, a_member_that_consul_adds_is_looked_up_at_once)
{
    struct story *t = BEGIN("a.1");
    CONSUL(t, true, "a.1");
    pass(t, 100);
    row(t, "b.1");
    CONSUL(t, true, "a.1", "b.1");
    cr_expect(t->beat_out);
    pass(t, 1100);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_OFFER), 1));
    end(t);
}

Test(ownership, neighbours_are_two_of_the_living)
{
    struct story *t = BEGIN("a.1", "b.1", "c.1", "d.1");
    pass(t, 100);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_NEIGHBOURS), 1));
    t->rows[1].dead = t->rows[2].dead = t->rows[3].dead = true;
    pass(t, 1100);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_NEIGHBOURS), 2));
    cr_expect(eq(sz, ownership_view(t->o)->members, 1));
    end(t);
}

/* --- leaving ------------------------------------------------------------------------------------------------------- */

static void leave(struct story *t)
{
    feed(t, (struct ownership_event){.kind = OWNERSHIP_LEAVE});
}

Test(ownership, who_leaves_gives_all_at_once_and_says_when_nothing_is_left)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 100);
    leave(t);
    for (int i = 0; i < 3; i++) {
        cr_expect(the(t, OWNERSHIP_DO_OFFER)->leaving);
        agreed(t, the(t, OWNERSHIP_DO_OFFER)->count);
        cr_expect(zero(sz, count(t, OWNERSHIP_DO_LEFT)));
        moved(t, true);
    }
    cr_expect(zero(sz, held(t)));
    pass(t, 50);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_LEFT), 1));
    end(t);
}

Test(ownership, who_leaves_alone_keeps_all_until_the_end)
{
    struct story *t = BEGIN("a.1");
    pass(t, 100);
    leave(t);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_LEFT), 1));
    cr_expect(eq(sz, held(t), SLOTS));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_LOST)));
    end(t);
}

Test(ownership, who_leaves_takes_nothing_and_agrees_to_nothing)
{
    struct story *t = BEGIN("b.1", "b.1", "c.1");
    pass(t, 100);
    leave(t);
    offered(t, "a.1", true, SLOTS);
    cr_expect(zero(sz, the(t, OWNERSHIP_DO_AGREE)->count));
    cr_expect(the(t, OWNERSHIP_DO_AGREE)->leaving);
    t->rows[1].dead = true;
    pass(t, 6000);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    end(t);
}

Test(ownership, who_leaves_waits_for_what_it_had_agreed_to)
{
    struct story *t = BEGIN("b.1", "b.1");
    pass(t, 100);
    offered(t, "a.1", true, 1);
    leave(t);
    pass(t, 800);
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_LEFT)));
    pass(t, 600);
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_LEFT), 1));
    end(t);
}

Test(ownership, who_leaves_gives_rather_to_one_consul_does_not_list_than_to_nobody)
{
    struct story *t = BEGIN("a.1", "b.1");
    CONSUL(t, true, "a.1");
    pass(t, 100);
    CONSUL(t, true);
    leave(t);
    cr_expect(eq(str, (char *)the(t, OWNERSHIP_DO_OFFER)->member, "b.1"));
    cr_expect(zero(sz, count(t, OWNERSHIP_DO_LEFT)));
    end(t);
}

Test(ownership, two_who_leave_together_do_not_wait_for_each_other)
{
    struct story *t = BEGIN("a.1", "b.1");
    pass(t, 100);
    leave(t);
    const struct seen *offer = the(t, OWNERSHIP_DO_OFFER);
    feed(t, (struct ownership_event){.kind = OWNERSHIP_AGREED, .ok = true, .member = "b.1", .leaving = true,
                                     .question = offer->question});
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_LEFT), 1));
    end(t);
}

/* --- the object ---------------------------------------------------------------------------------------------------- */

Test(ownership, nonsense_options_are_refused)
{
    struct ownership_options good = {.member = "a.1", .slots = 8, .ring_version = 1, .move_slots_max = 1};
    struct ownership_options bad[] = {good, good, good};
    struct ownership *o = NULL;
    struct err e;
    bad[0].member = "";
    bad[1].slots = 0;
    bad[2].move_slots_max = 0;
    for (size_t i = 0; i < 3; i++)
        cr_expect(eq(int, ownership_new(&bad[i], 0, &o, &e), -ERR_INVALID));
    cr_expect(zero(ptr, o));
    ownership_free(NULL);
}

Test(ownership, without_memory_there_is_no_machine_and_no_leak)
{
    struct ownership_options options = {.member = "a.1", .slots = 8, .ring_version = 1, .move_slots_max = 1};
    struct err e;
    for (unsigned k = 0;; k++) {
        struct ownership *o = NULL;
        fault_arm(k);
        int r = ownership_new(&options, 0, &o, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            ownership_free(o);
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u", k);
        cr_assert(zero(ptr, o));
    }
}

Test(ownership, a_ring_that_cannot_be_built_is_tried_again)
{
    struct story *t = BEGIN("a.1", "b.1");
    t->hold_beats = true;
    pass(t, 1);
    fault_arm(0);
    answer_beat(t);
    cr_expect(fault_fired());
    cr_expect(eq(sz, count(t, OWNERSHIP_DO_LOG), 1));
    t->hold_beats = false;
    pass(t, 3100);
    cr_expect(ge(sz, count(t, OWNERSHIP_DO_OFFER), 1));
    end(t);
}

/* --- several, by the model of tests/lib ---------------------------------------------------------------------------- */

static void cluster(struct sim *s, uint64_t seed, int nodes)
{
    sim_init(s, seed, nodes, 32, NULL);
    for (int n = 0; n < nodes; n++) {
        sim_start(s, n);
        cr_assert(sim_run(s, 500), "%s", s->failure);
    }
    cr_assert(sim_run(s, 12000), "%s", s->failure);
    cr_assert(sim_settled(s), "%s", s->failure);
    s->measure = true;
    s->gap_worst_ms = 0;
}

Test(ownership, after_kill_9_the_others_fire_within_half_a_second)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct sim s;
        cluster(&s, seed, 2 + (int)(seed % 6));
        sim_kill(&s, (int)(seed % (uint64_t)s.nodes));
        cr_assert(sim_run(&s, 12000), "seed %llu: %s", (unsigned long long)seed, s.failure);
        cr_assert(sim_settled(&s), "seed %llu: %s", (unsigned long long)seed, s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 400), "seed %llu", (unsigned long long)seed);
        sim_fini(&s);
    }
}

Test(ownership, a_hung_member_is_replaced_within_seven_seconds)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 3);
        sim_pause(&s, 1, true);
        cr_assert(sim_run(&s, 15000), "%s", s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 7000), "seed %llu", (unsigned long long)seed);
        cr_expect(gt(i64, s.gap_worst_ms, 4000), "seed %llu", (unsigned long long)seed);
        sim_pause(&s, 1, false);
        cr_assert(sim_run(&s, 15000), "%s", s.failure);
        cr_assert(sim_settled(&s), "%s", s.failure);
        sim_fini(&s);
    }
}

Test(ownership, planned_changes_leave_no_gap_over_300_ms)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 4);
        for (int n = 0; n < 4; n++) { /* a rolling restart */
            sim_leave(&s, n);
            cr_assert(sim_run(&s, 4000), "%s", s.failure);
            cr_expect(zero(ptr, sim_at(&s, n)), "seed %llu: n%d still runs", (unsigned long long)seed, n);
            sim_start(&s, n);
            cr_assert(sim_run(&s, 4000), "%s", s.failure);
        }
        cr_assert(sim_run(&s, 12000) && sim_settled(&s), "%s", s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 300), "seed %llu", (unsigned long long)seed);
        cr_expect(zero(sz, s.verdicts));
        sim_fini(&s);
    }
}

Test(ownership, a_store_that_was_away_takes_nobodys_slots)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 4);
        if (seed % 2)
            s.store_hung_ms = s.now_ms + 500 * (int64_t)seed;
        else
            s.store_away_ms = s.now_ms + 500 * (int64_t)seed;
        cr_assert(sim_run(&s, 40000) && sim_settled(&s), "%s", s.failure);
        cr_expect(zero(sz, s.verdicts), "seed %llu", (unsigned long long)seed);
        sim_fini(&s);
    }
}

Test(ownership, consul_wiped_or_lying_moves_no_slot_of_a_living_member_to_nobody)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 4);
        for (int i = 0; i < 10; i++) {
            s.consul = 2;
            sim_consul_changed(&s);
            cr_assert(sim_run(&s, 1700), "%s", s.failure);
        }
        sim_heal(&s);
        cr_assert(sim_run(&s, 15000) && sim_settled(&s), "%s", s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 300), "seed %llu", (unsigned long long)seed);
        cr_expect(zero(sz, s.verdicts));
        sim_fini(&s);
    }
}
