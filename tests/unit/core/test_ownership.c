/* The contract of ownership, a story for each sentence: leases, verdicts, taking, adopting. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "tests/lib/ownership_story.h"

/* --- own lease ----------------------------------------------------------------------------------------------------- */

Test(ownership, lease_runs_from_sending_the_beat)
{
    struct story *t = STORY("a.1");
    t->hold_beats = true;
    story_pass(t, 1);
    int64_t sent_ms = t->beat_sent_ms;
    t->now_ms += 900;
    story_answer_beat(t);
    cr_expect(eq(i64, story_last(t, OWNERSHIP_DO_LEASE)->until_ms, sent_ms + 5000 - 250));
    story_end(t);
}

Test(ownership, failed_beats_do_not_prolong_the_lease_and_its_end_is_told)
{
    struct story *t = STORY("a.1");
    story_pass(t, 100);
    int64_t until_ms = ownership_view(t->o)->lease_until_ms;
    t->beats_fail = true;
    story_pass(t, 4000);
    cr_expect(eq(i64, ownership_view(t->o)->lease_until_ms, until_ms));
    cr_expect(gt(i64, story_last(t, OWNERSHIP_DO_LEASE)->until_ms, 0));
    story_pass(t, 1000);
    cr_expect(zero(i64, story_last(t, OWNERSHIP_DO_LEASE)->until_ms));
    t->beats_fail = false;
    story_pass(t, 300);
    cr_expect(gt(i64, story_last(t, OWNERSHIP_DO_LEASE)->until_ms, t->now_ms));
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_end(t);
}

Test(ownership, a_beat_a_second)
{
    struct story *t = STORY("a.1");
    story_pass(t, 10000);
    cr_expect(ge(sz, story_count(t, OWNERSHIP_DO_BEAT), 10));
    cr_expect(le(sz, story_count(t, OWNERSHIP_DO_BEAT), 12));
    story_end(t);
}

Test(ownership, declared_dead_it_stops_loses_all_and_joins_again)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 100);
    t->dead = true;
    story_pass(t, 1100);
    cr_expect(zero(i64, story_last(t, OWNERSHIP_DO_LEASE)->until_ms));
    cr_expect(eq(sz, story_count_slots(t, OWNERSHIP_DO_LOST), STORY_SLOTS));
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_REJOIN), 1));
    cr_expect(ownership_view(t->o)->rejoining);
    story_forget(t);
    story_given_to(t, "a.1", 1, 99);
    cr_expect(zero(sz, t->seen_count));
    story_end(t);
}

/* --- others' leases ------------------------------------------------------------------------------------------------ */

Test(ownership, beat_unchanged_for_five_seconds_is_declared_and_its_slots_taken)
{
    struct story *t = STORY("b.1", "b.1");
    t->silent[1] = true;
    story_pass(t, 4990);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_pass(t, 100);
    cr_expect(eq(str, (char *)story_last(t, OWNERSHIP_DO_DECLARE)->member, "b.1"));
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_DECLARE)->beat, 100));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    story_declared(t, "b.1", true, true);
    cr_expect(eq(str, (char *)story_last(t, OWNERSHIP_DO_MEMBER_DEAD)->member, "b.1"));
    story_pass(t, 50);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    cr_expect(eq(u64, t->all[0].epoch, 8));
    story_end(t);
}

Test(ownership, a_changed_beat_starts_the_count_anew)
{
    struct story *t = STORY("b.1", "b.1");
    t->silent[1] = true;
    story_pass(t, 4500);
    t->rows[1].beat++;
    story_pass(t, 5000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_pass(t, 1000);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    story_end(t);
}

Test(ownership, a_failed_read_starts_the_count_anew)
{
    struct story *t = STORY("b.1", "b.1");
    t->silent[1] = true;
    story_pass(t, 3500);
    t->beats_fail = true;
    story_pass(t, 1000);
    t->beats_fail = false;
    story_pass(t, 4900);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_pass(t, 1000);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    story_end(t);
}

Test(ownership, a_gap_between_reads_starts_the_count_anew)
{
    struct story *t = STORY("b.1", "b.1");
    t->silent[1] = true;
    story_pass(t, 2500);
    t->now_ms += 20000; /* we were stopped */
    story_pass(t, 4900);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_pass(t, 1000);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    story_end(t);
}

Test(ownership, a_declaration_that_the_store_refused_takes_nothing)
{
    struct story *t = STORY("b.1", "b.1");
    t->silent[1] = true;
    story_pass(t, 5100);
    t->silent[1] = false;
    story_declared(t, "b.1", true, false);
    story_pass(t, 4000);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    story_end(t);
}

Test(ownership, a_declaration_of_unknown_outcome_is_read_from_the_store)
{
    struct story *t = STORY("b.1", "b.1");
    t->silent[1] = true;
    story_pass(t, 5100);
    story_declared(t, "b.1", false, false);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_MEMBER_DEAD)));
    t->rows[1].dead = true;
    story_pass(t, 100);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_end(t);
}

Test(ownership, restart_of_all_takes_over_when_the_old_leases_are_over)
{
    struct story *t = STORY("b.0", "b.0", "c.0");
    t->silent[1] = t->silent[2] = true;
    story_pass(t, 5100);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 2));
    story_declared(t, "c.0", true, true);
    story_declared(t, "b.0", true, true);
    story_pass(t, 50);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_end(t);
}

Test(ownership, a_row_that_vanished_counts_as_a_silent_beat)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    t->rows_count = 1;
    story_pass(t, 4000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    story_pass(t, 2000);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_end(t);
}

/* --- verdict by refusal -------------------------------------------------------------------------------------------- */

Test(ownership, a_pair_needs_one_witness_and_a_beat_after_the_refusal)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 500);
    t->hold_beats = true;
    story_refused(t, "b.1");
    cr_expect(t->beat_out);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    t->silent[1] = true;
    t->rows[1].beat += 5; /* its last beat, which we had not seen */
    story_answer_beat(t);
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_DECLARE)->beat, t->rows[1].beat));
    cr_expect(story_last(t, OWNERSHIP_DO_DECLARE)->yes);
    story_end(t);
}

Test(ownership, with_a_third_a_second_must_have_looked)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    t->silent[1] = true;
    story_refused(t, "b.1");
    cr_expect(eq(str, (char *)story_last(t, OWNERSHIP_DO_ASK)->via, "c.1"));
    story_answers(t);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_looked(t, true, true);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    story_end(t);
}

Test(ownership, a_second_who_sees_it_up_prevents_the_verdict)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_looked(t, true, false);
    story_pass(t, 3000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_end(t);
}

/* Two may have been given one address by mistake. */
Test(ownership, who_listens_at_a_members_address_asks_a_second_too)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    t->rows[1].here = true;
    story_pass(t, 500);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_PEER_UP, .member = "b.1"}); /* it is ourselves */
    cr_expect(eq(str, (char *)story_last(t, OWNERSHIP_DO_ASK)->via, "c.1"));
    story_looked(t, true, false);
    story_pass(t, 700);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    t->silent[1] = true;
    story_pass(t, 1000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_looked(t, true, true);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_ASK), 3));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_PROBE)));
    story_end(t);
}

Test(ownership, who_listens_at_a_members_address_is_enough_without_a_third)
{
    struct story *t = STORY("b.1", "b.1");
    t->rows[1].here = t->silent[1] = true;
    story_pass(t, 100);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    cr_expect(story_last(t, OWNERSHIP_DO_DECLARE)->yes);
    story_end(t);
}

Test(ownership, nobody_is_asked_who_would_be_ourselves)
{
    struct story *t = STORY("b.1", "b.1", "c.1", "d.1");
    t->rows[1].here = t->rows[2].here = true;
    story_pass(t, 4500);
    cr_assert(ge(sz, story_count(t, OWNERSHIP_DO_ASK), 8));
    for (size_t i = 0; i < t->seen_count; i++)
        if (t->seen[i].kind == OWNERSHIP_DO_ASK)
            cr_expect(eq(str, t->seen[i].via, "d.1"));
    story_end(t);
}

/* Whose look finds another member at the address. */
static bool finds_gone(struct story *t)
{
    story_forget(t);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOK, .member = "b.1", .question = 77});
    story_feed(
        t, (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .replaced = true});
    return story_last(t, OWNERSHIP_DO_LOOKED)->yes;
}

Test(ownership, who_is_replaced_at_its_address_and_silent_is_gone)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 4500);
    cr_expect(not(finds_gone(t)), "it beats");
    t->silent[1] = true;
    story_pass(t, 1000);
    cr_expect(not(finds_gone(t)), "one second says nothing");
    story_pass(t, 1500);
    cr_expect(finds_gone(t));
    story_end(t);
}

Test(ownership, while_nobody_can_beat_nobody_is_silent)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    t->silent[1] = true;
    story_pass(t, 1100);
    t->beats_fail = true;
    story_pass(t, 10000);
    t->beats_fail = false;
    cr_expect(not(finds_gone(t)));
    story_pass(t, 300);
    cr_expect(not(finds_gone(t)));
    story_pass(t, 1000);
    cr_expect(finds_gone(t), "the second before counts");
    story_end(t);
}

/* Each second it looks again, and so does the second. */
static size_t verdicts_on_another(bool silent)
{
    struct ownership_event another = {
        .kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .replaced = true};
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    t->silent[1] = silent;
    story_refused(t, "b.1");
    story_looked(t, true, false);
    t->beats_fail = true;
    story_pass(t, 2000);
    story_forget(t);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_PEER_UP, .member = "b.1"});
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_PROBE), 1));
    story_feed(t, another);
    t->beats_fail = false;
    for (int s = 0; s < 4; s++) {
        story_looked(t, true, true);
        cr_expect(s > 0 || story_count(t, OWNERSHIP_DO_DECLARE) == 0);
        story_pass(t, 1000);
        story_feed(t, another);
    }
    size_t n = story_count(t, OWNERSHIP_DO_DECLARE);
    story_end(t);
    return n;
}

Test(ownership, who_is_up_again_as_another_is_suspect_still)
{
    cr_expect(eq(sz, verdicts_on_another(true), 1));
    cr_expect(zero(sz, verdicts_on_another(false)), "it shares its address");
}

Test(ownership, who_sees_everybody_refused_declares_nobody)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "c.1");
    story_refused(t, "b.1");
    story_looked(t, false, false);
    story_pass(t, 4000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_end(t);
}

Test(ownership, a_witness_that_does_not_answer_is_replaced)
{
    struct story *t = STORY("b.1", "b.1", "c.1", "d.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_ASK), 1));
    story_looked(t, false, false);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_ASK), 2));
    story_end(t);
}

Test(ownership, a_witness_counts_for_a_second)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    t->hold_beats = true;
    story_refused(t, "b.1");
    story_looked(t, true, true);
    t->now_ms += 1500;
    t->beats_fail = true;
    story_answer_beat(t);
    t->beats_fail = t->hold_beats = false;
    story_pass(t, 300);
    cr_expect(not(t->beat_out));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_end(t);
}

Test(ownership, a_verdict_needs_an_own_beat_of_the_last_second)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_answers(t);
    t->hold_beats = true;
    t->now_ms += 1200;
    story_looked(t, true, true);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    cr_assert(t->beat_out);
    story_answer_beat(t);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    story_end(t);
}

Test(ownership, one_verdict_in_five_seconds)
{
    struct story *t = STORY("b.1", "b.1", "c.1", "d.1");
    story_pass(t, 500);
    t->silent[1] = true;
    story_refused(t, "b.1");
    story_answers(t);
    story_looked(t, true, true);
    story_declared(t, "b.1", true, true);
    story_forget(t);
    story_refused(t, "c.1");
    story_pass(t, 10);
    story_looked(t, true, true);
    story_pass(t, 900);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_end(t);
}

Test(ownership, a_beat_that_went_on_is_no_verdict_and_is_judged_again)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_answers(t);
    story_looked(t, true, true);
    story_declared(t, "b.1", true, false);
    story_answers(t);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 2));
    story_end(t);
}

Test(ownership, who_is_up_again_is_no_suspect)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_PEER_UP, .member = "b.1"});
    story_looked(t, true, true);
    story_pass(t, 3000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_end(t);
}

Test(ownership, a_suspicion_is_renewed_by_a_fresh_look_or_forgotten)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_looked(t, true, false);
    story_pass(t, 2500);
    cr_expect(ge(sz, story_count(t, OWNERSHIP_DO_PROBE), 1));
    story_feed(t,
               (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .yes = true});
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_ASK), 2));
    story_pass(t, 2100);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true});
    story_looked(t, true, true);
    story_pass(t, 1500);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    story_end(t);
}

Test(ownership, asked_to_look_it_looks_anew)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_forget(t);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOK, .member = "b.1", .question = 77});
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_PROBE), 1));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LOOKED)));
    story_feed(t,
               (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .yes = true});
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_LOOKED)->question, 77));
    cr_expect(story_last(t, OWNERSHIP_DO_LOOKED)->yes);
    story_forget(t);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOK, .member = "nobody.1", .question = 78});
    cr_expect(not(story_last(t, OWNERSHIP_DO_LOOKED)->yes));
    for (uint64_t q = 100; q < 140; q++) /* a flood is answered, not kept */
        story_feed(t, (struct ownership_event){.kind = OWNERSHIP_LOOK, .member = "c.1", .question = q});
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_LOOKED)->question, 123));
    story_end(t);
}

Test(ownership, consul_news_makes_it_look_and_nothing_more)
{
    struct story *t = STORY("b.1", "b.1");
    CONSUL(t, true, "a.1", "b.1");
    story_pass(t, 500);
    story_forget(t);
    CONSUL(t, true, "a.1");
    cr_expect(eq(str, (char *)story_last(t, OWNERSHIP_DO_PROBE)->member, "b.1"));
    story_pass(t, 5000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_DECLARE)));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    story_feed(t,
               (struct ownership_event){.kind = OWNERSHIP_PROBED, .member = "b.1", .ok = true, .yes = true});
    story_answers(t);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_DECLARE), 1));
    story_end(t);
}

Test(ownership, the_others_are_told_and_look_into_the_store_themselves)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    cr_expect(t->beat_out);
    story_answers(t);
    story_pass(t, 100);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_MEMBER_DEAD)));
    t->rows[1].dead = true;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    story_answers(t);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_MEMBER_DEAD), 1));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_TELL_DEAD)));
    story_end(t);
}

Test(ownership, who_declared_tells_the_others_even_if_its_own_beat_was_faster)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_answers(t);
    story_looked(t, true, true);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    t->rows[1].dead = true;
    story_answers(t);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_MEMBER_DEAD), 1));
    story_declared(t, "b.1", true, true);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_TELL_DEAD), 1));
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_MEMBER_DEAD), 1));
    story_end(t);
}

/* --- taking -------------------------------------------------------------------------------------------------------- */

Test(ownership, the_ring_says_who_takes_and_what_is_left_over_anyone_may)
{
    struct story *t = STORY("d.1", "b.1", "c.1", "d.1");
    story_pass(t, 500);
    t->rows[3].dead = true;
    story_pass(t, 1500);
    size_t share = story_held(t);
    cr_expect(gt(sz, share, 0));
    cr_expect(lt(sz, share, STORY_SLOTS));
    cr_expect(eq(sz, ownership_view(t->o)->unowned, STORY_SLOTS - share));
    story_pass(t, 4000);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_end(t);
}

Test(ownership, a_lost_compare_and_set_is_not_ours)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 500);
    t->hold_changes = true;
    t->rows[1].dead = true;
    story_pass(t, 1200);
    story_owner(t, 3, "c.1", 8);
    story_run_changes(t);
    story_answer_changes(t, true);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS - 1));
    story_end(t);
}

Test(ownership, an_unknown_outcome_is_adopted_with_the_next_epoch)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 500);
    t->hold_changes = true;
    t->rows[1].dead = true;
    story_pass(t, 1200);
    story_run_changes(t);
    story_answer_changes(t, false);
    cr_expect(zero(sz, story_held(t)));
    t->hold_changes = false;
    story_pass(t, 50);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_GAINED)->epochs[0], 9));
    story_end(t);
}

Test(ownership, an_owner_without_a_row_is_dead_only_if_a_later_beat_says_so)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    t->hold_beats = true;
    story_owner(t, 2, "new.1", 9);
    story_owner(t, 3, "old.1", 9);
    story_pass(t, 1000);
    story_forget(t);
    story_feed(t, (struct ownership_event){
                      .kind = OWNERSHIP_SLOTS_ALL, .ok = true, .slots = t->all, .slots_count = STORY_SLOTS});
    /* nobody asked: not heard */
    cr_expect(zero(sz, t->seen_count));
    story_pass(t, 10000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    story_answer_beat(t);
    story_row(t, "new.1");
    story_pass(t, 1);
    story_answer_beat(t);
    story_pass(t, 5000);
    story_answer_beat(t);
    story_pass(t, 50);
    cr_expect(eq(sz, story_held(t), 1));
    cr_expect(eq(u64, t->all[3].epoch, 10));
    story_end(t);
}

Test(ownership, nothing_is_taken_without_an_own_lease)
{
    struct story *t = STORY("b.1", "b.1");
    t->hold_reads = true;
    story_pass(t, 500);
    t->rows[1].dead = true;
    story_pass(t, 1000);
    t->beats_fail = true;
    story_pass(t, 6000);
    t->hold_reads = false;
    story_answer_read(t);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    story_end(t);
}

/* --- adopt and drop ------------------------------------------------------------------------------------------------ */

Test(ownership, what_names_me_is_adopted_with_the_next_epoch)
{
    struct story *t = STORY("a.1");
    story_pass(t, 50);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_GAINED)->epochs[0], 8));
    story_end(t);
}

Test(ownership, what_no_longer_names_me_is_dropped)
{
    struct story *t = STORY("a.1", "b.1");
    CONSUL(t, true, "a.1");
    story_pass(t, 100);
    story_owner(t, 4, "b.1", 20);
    story_pass(t, 1100);
    cr_expect(eq(sz, story_count_slots(t, OWNERSHIP_DO_LOST), 1));
    cr_expect(eq(u32, story_last(t, OWNERSHIP_DO_LOST)->slots[0], 4));
    cr_expect(eq(sz, story_held(t), STORY_SLOTS - 1));
    story_end(t);
}

Test(ownership, another_epoch_than_held_is_lost_and_adopted)
{
    struct story *t = STORY("a.1");
    story_pass(t, 100);
    story_owner(t, 4, "a.1", 20);
    story_pass(t, 1100);
    cr_expect(eq(u32, story_last(t, OWNERSHIP_DO_LOST)->slots[0], 4));
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_GAINED)->epochs[0], 21));
    story_end(t);
}

Test(ownership, a_list_read_before_the_last_change_is_not_heard)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    t->hold_beats = true;
    story_pass(t, 1000);
    story_given_to(t, "a.1", 2, 8);
    cr_assert(eq(sz, story_held(t), 1));
    story_answer_beat_with(t, true, NULL, 0); /* asked before */
    cr_expect(eq(sz, story_held(t), 1));
    story_pass(t, 1000);
    story_given_to(t, "a.1", 3, 9);
    story_answer_beat_with(t, true, &(struct ownership_slot){.slot = 2, .epoch = 8}, 1);
    cr_expect(eq(sz, story_held(t), 2));
    story_owner(t, 2, "a.1", 8);
    story_pass(t, 1000);
    story_answer_beat_with(t, true, NULL, 0); /* asked after */
    cr_expect(zero(sz, story_held(t)));
    story_pass(t, 1000);
    story_given_to(t, "a.1", 4, 20);
    story_answer_beat_with(t, true, &(struct ownership_slot){.slot = 4, .epoch = 18},
                           1); /* I had it once before */
    cr_expect(eq(sz, story_held(t), 1));
    story_end(t);
}

Test(ownership, all_slots_read_before_the_last_change_are_not_heard)
{
    struct story *t = STORY("b.1", "b.1");
    t->hold_reads = true;
    story_pass(t, 100);
    cr_assert(t->read_out);
    ownership_hint(t->o, 2, 30, "b.1");
    uint64_t epoch = 0;
    story_answer_read(t);
    (void)ownership_owner(t->o, 2, &epoch);
    cr_expect(eq(u64, epoch, 30));
    (void)ownership_owner(t->o, 3, &epoch);
    cr_expect(eq(u64, epoch, 7));
    t->hold_reads = false;
    story_pass(t, 11000);
    (void)ownership_owner(t->o, 2, &epoch);
    cr_expect(eq(u64, epoch, 7)); /* a hint is believed until the next read */
    story_end(t);
}

/* --- no memory ----------------------------------------------------------------------------------------------------- */

Test(ownership, without_memory_there_is_none)
{
    struct ownership_options options = {
        .member = "a.1", .slots = 64, .ring_version = 1, .move_slots_max = 8, .seed = 1};
    for (unsigned k = 0;; k++) {
        struct ownership *o = NULL;
        struct err e = {0};
        fault_arm(k);
        int rc = ownership_new(&options, 0, &o, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            cr_assert(ge(uint, k, 2));
            ownership_free(o);
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u", k);
        cr_assert(zero(ptr, o));
    }
}
