/* The contract of ownership, a story for each sentence: planned moves, ring, leaving, the object itself. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "tests/lib/ownership_story.h"

/* --- planned moves ------------------------------------------------------------------------------------------------- */

Test(ownership_move, a_move_is_offered_agreed_durable_and_then_told)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 900);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_OFFER))); /* the ring has just changed */
    story_pass(t, 200);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_OFFER), 1));
    cr_expect(eq(sz, story_last(t, OWNERSHIP_DO_OFFER)->count, 3));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_MOVE)));
    story_agreed(t, 3);
    cr_expect(eq(sz, story_last(t, OWNERSHIP_DO_MOVE)->count, 3));
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_MOVE)->epochs[0], 8));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_GIVEN)));
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_moved(t, true);
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_GIVEN)->epochs[0], 9));
    cr_expect(eq(sz, story_held(t), STORY_SLOTS - 3));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LOST)));
    story_end(t);
}

Test(ownership_move, only_what_was_agreed_is_moved_and_the_next_chunk_follows)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 1100);
    story_agreed(t, 2);
    cr_expect(eq(sz, story_last(t, OWNERSHIP_DO_MOVE)->count, 2));
    cr_expect(eq(sz, ownership_view(t->o)->moving, 2));
    story_forget(t);
    story_pass(t, 600);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_OFFER))); /* one chunk at a time */
    story_end(t);
}

Test(ownership_move, chunks_follow_each_other_at_once_until_the_ring_is_content)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 1100);
    size_t given = 0;
    for (int i = 0; i < 5 && ownership_view(t->o)->moving > 0; i++) {
        story_agreed(t, story_last(t, OWNERSHIP_DO_OFFER)->count);
        given += story_last(t, OWNERSHIP_DO_MOVE)->count;
        story_moved(t, true);
    }
    cr_expect(ge(sz, given, 3));
    cr_expect(le(sz, given, 5));
    cr_expect(eq(sz, story_held(t), STORY_SLOTS - given));
    story_pass(t, 3000);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS - given));
    story_end(t);
}

Test(ownership_move, an_offer_without_an_answer_is_void_and_made_again)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 1100);
    struct seen first = *story_last(t, OWNERSHIP_DO_OFFER);
    story_pass(t, 1000);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_OFFER), 1));
    story_pass(t, 600);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_OFFER), 2));
    struct ownership_slot s = {.slot = first.slots[0]};
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_AGREED,
                                           .ok = true,
                                           .member = "b.1",
                                           .slots = &s,
                                           .slots_count = 1,
                                           .question = first.question});
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_MOVE))); /* an answer to the first */
    story_end(t);
}

Test(ownership_move, nothing_is_offered_to_a_suspect_or_a_dead_member)
{
    struct story *t = STORY("a.1", "b.1", "c.1");
    story_pass(t, 500);
    story_refused(t, "b.1");
    story_refused(t, "c.1");
    story_pass(t, 3000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_OFFER)));
    story_end(t);
}

Test(ownership_move, the_death_of_the_successor_voids_the_offer)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 1100);
    t->rows[1].dead = true;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    story_answers(t);
    story_agreed(t, 3);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_MOVE)));
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_end(t);
}

Test(ownership_move, a_slot_moved_to_one_who_died_meanwhile_is_taken_back)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 1100);
    story_agreed(t, 3);
    t->rows[1].dead = true;
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_TOLD_DEAD, .member = "b.1"});
    story_answers(t);
    story_moved(t, true);
    story_pass(t, 50);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    story_end(t);
}

Test(ownership_move, a_beat_does_not_touch_what_is_being_moved)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 1100);
    story_agreed(t, 3);
    for (size_t i = 0; i < 3; i++) /* durable, but we do not know it yet */
        story_owner(t, story_last(t, OWNERSHIP_DO_MOVE)->slots[i], "b.1", 9);
    story_pass(t, 2000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LOST)));
    story_moved(t, true);
    cr_expect(eq(sz, story_last(t, OWNERSHIP_DO_GIVEN)->count, 3));
    story_end(t);
}

Test(ownership_move, a_failed_move_is_lost_and_adopted_with_the_next_epoch)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 1100);
    story_agreed(t, 3);
    story_moved(t, false);
    cr_expect(eq(sz, story_count_slots(t, OWNERSHIP_DO_LOST), 3));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_GIVEN)));
    story_pass(t, 50);
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    cr_expect(
        eq(u64, story_last(t, OWNERSHIP_DO_GAINED)->epochs[0], 9)); /* a late batch with 8 finds nothing */
    story_end(t);
}

Test(ownership_move, an_offer_is_agreed_to_as_far_as_the_own_ring_gives_it)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    story_offered(t, "a.1", false, STORY_SLOTS);
    const struct seen *a = story_last(t, OWNERSHIP_DO_AGREE);
    cr_expect(eq(u64, a->question, 55));
    cr_expect(eq(str, (char *)a->member, "b.1"));
    cr_expect(gt(sz, a->count, 0));
    cr_expect(lt(sz, a->count, STORY_SLOTS));
    story_offered(t, "a.1", true, STORY_SLOTS); /* of one that leaves: all */
    cr_expect(eq(sz, story_last(t, OWNERSHIP_DO_AGREE)->count, STORY_SLOTS));
    story_end(t);
}

Test(ownership_move, an_offer_to_an_older_life_is_refused)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    story_offered(t, "a.0", true, STORY_SLOTS);
    cr_expect(zero(sz, story_last(t, OWNERSHIP_DO_AGREE)->count));
    story_end(t);
}

Test(ownership_move, an_offer_of_one_not_in_the_store_is_refused_and_looked_up)
{
    struct story *t = STORY("c.1", "c.1");
    story_pass(t, 600);
    story_offered(t, "a.1", true, STORY_SLOTS);
    cr_expect(zero(sz, story_last(t, OWNERSHIP_DO_AGREE)->count));
    cr_expect(t->beat_out);
    story_end(t);
}

Test(ownership_move, an_offer_without_an_own_lease_is_refused)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    t->beats_fail = true;
    story_pass(t, 5000);
    story_offered(t, "a.1", true, STORY_SLOTS);
    cr_expect(zero(sz, story_last(t, OWNERSHIP_DO_AGREE)->count));
    story_end(t);
}

Test(ownership_move, who_agreed_and_heard_nothing_looks_into_the_store)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    story_offered(t, "a.1", false, STORY_SLOTS);
    story_owner(t, story_last(t, OWNERSHIP_DO_AGREE)->slots[0], "a.1", 8); /* GIVEN was lost */
    story_pass(t, 260);
    cr_expect(eq(sz, story_held(t), 1));
    story_end(t);
}

Test(ownership_move, given_is_ours_at_once_but_not_with_a_stale_epoch_or_for_an_older_life)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    story_given_to(t, "a.0", 1, 8);
    story_given_to(t, "a.1", 1, 7);
    story_given_to(t, "a.1", STORY_SLOTS + 5, 9);
    cr_expect(zero(sz, story_held(t)));
    story_given_to(t, "a.1", 1, 8);
    cr_expect(eq(sz, story_held(t), 1));
    cr_expect(eq(u64, story_last(t, OWNERSHIP_DO_GAINED)->epochs[0], 8));
    story_given_to(t, "a.1", 1, 8); /* repeated */
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_GAINED), 1));
    story_end(t);
}

/* --- ring ---------------------------------------------------------------------------------------------------------- */

Test(ownership_move, consul_takes_out_of_the_ring_while_it_holds_the_own_key)
{
    struct story *t = STORY("a.1", "b.1");
    CONSUL(t, true, "a.1");
    story_pass(t, 3000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_OFFER)));
    CONSUL(t, false); /* wiped: the store alone says who is there */
    story_pass(t, 1100);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_OFFER), 1));
    story_end(t);
}

Test(ownership_move, a_member_that_consul_adds_is_looked_up_at_once)
{
    struct story *t = STORY("a.1");
    CONSUL(t, true, "a.1");
    story_pass(t, 100);
    story_row(t, "b.1");
    CONSUL(t, true, "a.1", "b.1");
    cr_expect(t->beat_out);
    story_pass(t, 1100);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_OFFER), 1));
    story_end(t);
}

Test(ownership_move, neighbours_are_two_of_the_living)
{
    struct story *t = STORY("a.1", "b.1", "c.1", "d.1");
    story_pass(t, 100);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_NEIGHBOURS), 1));
    t->rows[1].dead = t->rows[2].dead = t->rows[3].dead = true;
    story_pass(t, 1100);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_NEIGHBOURS), 2));
    cr_expect(eq(sz, ownership_view(t->o)->members, 1));
    story_end(t);
}

/* --- leaving ------------------------------------------------------------------------------------------------------- */

static void leave(struct story *t)
{
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_LEAVE});
}

Test(ownership_move, who_leaves_gives_all_at_once_and_says_when_nothing_is_left)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 100);
    leave(t);
    for (int i = 0; i < 3; i++) {
        cr_expect(story_last(t, OWNERSHIP_DO_OFFER)->leaving);
        story_agreed(t, story_last(t, OWNERSHIP_DO_OFFER)->count);
        cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LEFT)));
        story_moved(t, true);
    }
    cr_expect(zero(sz, story_held(t)));
    story_pass(t, 50);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_LEFT), 1));
    story_end(t);
}

Test(ownership_move, who_leaves_alone_keeps_all_until_the_end)
{
    struct story *t = STORY("a.1");
    story_pass(t, 100);
    leave(t);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_LEFT), 1));
    cr_expect(eq(sz, story_held(t), STORY_SLOTS));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LOST)));
    story_end(t);
}

Test(ownership_move, who_leaves_takes_nothing_and_agrees_to_nothing)
{
    struct story *t = STORY("b.1", "b.1", "c.1");
    story_pass(t, 100);
    leave(t);
    story_offered(t, "a.1", true, STORY_SLOTS);
    cr_expect(zero(sz, story_last(t, OWNERSHIP_DO_AGREE)->count));
    cr_expect(story_last(t, OWNERSHIP_DO_AGREE)->leaving);
    t->rows[1].dead = true;
    story_pass(t, 6000);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_CHANGE_SLOTS)));
    story_end(t);
}

Test(ownership_move, who_leaves_waits_for_what_it_had_agreed_to)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    story_offered(t, "a.1", true, 1);
    leave(t);
    story_pass(t, 800);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LEFT)));
    story_pass(t, 600);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_LEFT), 1));
    story_end(t);
}

Test(ownership_move, who_leaves_asks_the_store_once_more)
{
    struct story *t = STORY("b.1", "b.1");
    story_pass(t, 100);
    story_owner(t, 1, "a.1", 8); /* GIVEN was lost */
    leave(t);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LEFT)));
    story_pass(t, 50);
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LEFT)));
    story_agreed(t, 1);
    story_moved(t, true);
    story_pass(t, 50);
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_LEFT), 1));
    story_end(t);
}

Test(ownership_move, who_leaves_gives_rather_to_one_consul_does_not_list_than_to_nobody)
{
    struct story *t = STORY("a.1", "b.1");
    CONSUL(t, true, "a.1");
    story_pass(t, 100);
    CONSUL(t, true);
    leave(t);
    cr_expect(eq(str, (char *)story_last(t, OWNERSHIP_DO_OFFER)->member, "b.1"));
    cr_expect(zero(sz, story_count(t, OWNERSHIP_DO_LEFT)));
    story_end(t);
}

Test(ownership_move, two_who_leave_together_do_not_wait_for_each_other)
{
    struct story *t = STORY("a.1", "b.1");
    story_pass(t, 100);
    leave(t);
    const struct seen *offer = story_last(t, OWNERSHIP_DO_OFFER);
    story_feed(t, (struct ownership_event){.kind = OWNERSHIP_AGREED,
                                           .ok = true,
                                           .member = "b.1",
                                           .leaving = true,
                                           .question = offer->question});
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_LEFT), 1));
    story_end(t);
}

/* --- the object ---------------------------------------------------------------------------------------------------- */

Test(ownership_move, nonsense_options_are_refused)
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

Test(ownership_move, without_memory_there_is_no_machine_and_no_leak)
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

Test(ownership_move, a_ring_that_cannot_be_built_is_tried_again)
{
    struct story *t = STORY("a.1", "b.1");
    t->hold_beats = true;
    story_pass(t, 1);
    fault_arm(0);
    story_answer_beat(t);
    cr_expect(fault_fired());
    cr_expect(eq(sz, story_count(t, OWNERSHIP_DO_LOG), 1));
    t->hold_beats = false;
    story_pass(t, 3100);
    cr_expect(ge(sz, story_count(t, OWNERSHIP_DO_OFFER), 1));
    story_end(t);
}
