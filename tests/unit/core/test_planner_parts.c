/* Fires for all endpoints of a service: stories of single ones. The bed's callees are 10.0.0.1 to 10.0.0.3. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/core/fire_parts.h"
#include "tests/lib/planner_bed.h"

#define JOB(to, more)                                        \
    "{\"schedule\":\"@after 3s\",\"callback\":{\"to\":\"" to \
    "\",\"http\":{\"service\":\"s\",\"path\":\"/x\"}}" more "}"
#define RETRIES ",\"retry\":{\"min_backoff\":\"100ms\",\"max_backoff\":\"1s\",\"max_attempts\":2}"

static struct fire_parts *parts_of(const struct pbed *b, const char *id)
{
    struct fire_parts *parts = NULL;
    const struct fire_row *row = pbed_fire(b, &pbed_job(b, id)->uid, 1);
    cr_assert(row && row->parts);
    cr_assert(zero(int, fire_parts_parse(row->parts, row->parts_bytes, &parts, NULL)));
    return parts;
}

Test(planner_parts, a_fire_succeeds_when_all_its_parts_have)
{
    struct pbed_options o = pbed_defaults(3);
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("all", ""));
    pbed_run(b, 10000);
    AUTO(fire_parts_free) struct fire_parts *parts = parts_of(b, "a");
    const struct fire_row *row = pbed_fire(b, &pbed_job(b, "a")->uid, 1);
    cr_assert(eq(sz, fire_parts_count(parts, FIRE_PART_SUCCEEDED), parts->count));
    cr_assert(eq(int, row->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(eq(u32, row->attempts, 1));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_parts, only_what_failed_is_sent_again)
{
    unsigned rounds = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.fail = 0.5;
        struct pbed *b = pbed_start(&o, 1);
        (void)pbed_do(b, PLANNER_CREATE, "a", JOB("shards", ""));
        pbed_run(b, 600000); /* the bed asserts that no part that was done is sent again */
        AUTO(fire_parts_free) struct fire_parts *parts = parts_of(b, "a");
        cr_assert(eq(sz, fire_parts_count(parts, FIRE_PART_SUCCEEDED), parts->count));
        rounds += pbed_fire(b, &pbed_job(b, "a")->uid, 1)->attempts;
        pbed_check(b, true);
        pbed_free(b);
    }
    cr_assert(gt(uint, rounds, 40), "%u rounds in 30 lives", rounds);
}

Test(planner_parts, a_part_that_is_given_up_makes_the_fire_dead_once_the_others_have_ended)
{
    unsigned dead = 0, mixed = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.give_up = 0.5;
        struct pbed *b = pbed_start(&o, 1);
        (void)pbed_do(b, PLANNER_CREATE, "a", JOB("all", ""));
        pbed_run(b, 600000);
        AUTO(fire_parts_free) struct fire_parts *parts = parts_of(b, "a");
        const struct fire_row *row = pbed_fire(b, &pbed_job(b, "a")->uid, 1);
        bool any = fire_parts_count(parts, FIRE_PART_DEAD) > 0;
        cr_assert(zero(sz, fire_parts_count(parts, FIRE_PART_PENDING)));
        cr_assert(eq(int, row->outcome, any ? FIRE_OUTCOME_DEAD : FIRE_OUTCOME_SUCCEEDED));
        cr_assert(eq(int, row->reason, any ? FIRE_REASON_GIVE_UP : FIRE_REASON_NONE));
        dead += any;
        mixed += any && fire_parts_count(parts, FIRE_PART_SUCCEEDED) > 0;
        pbed_check(b, true);
        pbed_free(b);
    }
    cr_assert(dead > 5 && mixed > 2, "%u dead, %u of them with a success", dead, mixed);
}

Test(planner_parts, the_retry_rule_ends_what_is_pending)
{
    struct pbed_options o = pbed_defaults(5);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("all", RETRIES));
    pbed_run(b, 60000);
    AUTO(fire_parts_free) struct fire_parts *parts = parts_of(b, "a");
    const struct fire_row *row = pbed_fire(b, &pbed_job(b, "a")->uid, 1);
    cr_assert(eq(sz, fire_parts_count(parts, FIRE_PART_DEAD), parts->count));
    cr_assert(eq(u32, parts->items[0].attempts, 2));
    cr_assert(eq(int, row->reason, FIRE_REASON_MAX_ATTEMPTS));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_parts, at_most_once_sends_each_part_once)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.fail = 0.3;
        struct pbed *b = pbed_start(&o, 1);
        (void)pbed_do(b, PLANNER_CREATE, "a", JOB("all", ",\"delivery\":\"at_most_once\""));
        pbed_run(b, 60000);
        AUTO(fire_parts_free) struct fire_parts *parts = parts_of(b, "a");
        const struct fire_row *row = pbed_fire(b, &pbed_job(b, "a")->uid, 1);
        bool all = fire_parts_count(parts, FIRE_PART_SUCCEEDED) == parts->count;
        for (size_t i = 0; i < parts->count; i++)
            cr_assert(eq(u32, parts->items[i].attempts, 1));
        cr_assert(eq(int, row->outcome, all ? FIRE_OUTCOME_SUCCEEDED : FIRE_OUTCOME_DEAD));
        pbed_check(b, true);
        pbed_free(b);
    }
}

Test(planner_parts, what_a_dead_member_knew_to_be_done_stays_done)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.planned_only = false;
        o.duration_max_ms = 400;
        struct pbed *b = pbed_start(&o, 1);
        (void)pbed_do(b, PLANNER_CREATE, "a", JOB("all", ""));
        pbed_run(b, 3000 + (int64_t)seed * 7); /* somewhere in the fire's life */
        (void)pbed_node_start(b);
        pbed_node_kill(b, 0, 100); /* the other one takes its slots */
        pbed_run(b, 60000); /* the bed asserts that no part that the store knows to be done is sent again */
        AUTO(fire_parts_free) struct fire_parts *parts = parts_of(b, "a");
        cr_assert(eq(sz, fire_parts_count(parts, FIRE_PART_SUCCEEDED), parts->count));
        pbed_check(b, true);
        pbed_free(b);
    }
}

/* Who gave the slot away reports which parts are done, or waits with its report until it can. */
Test(planner_parts, what_was_done_before_a_move_is_known_without_memory_too)
{
    uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.fail = 0.5;
        o.duration_max_ms = 300;
        struct pbed *b = pbed_start(&o, 1);
        int second = pbed_node_start(b);
        (void)pbed_do(b, PLANNER_CREATE, "a", JOB("all", ""));
        pbed_run(b, 3000);
        pbed_set(b)->fault = 0.5;
        pbed_move(b, slots, 8, 0, second);
        pbed_run(b, 600);
        pbed_set(b)->fault = pbed_set(b)->fail = 0;
        pbed_run(b, 60000); /* the bed asserts that no part that was done is sent again */
        cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
        pbed_check(b, true);
        pbed_free(b);
    }
}

/* What could not be put away for want of memory when a round ended is nothing to a definition that sends to one. */
Test(planner_parts, a_definition_that_sends_to_one_counts_its_attempts_whatever_was_left_of_the_parts)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.fail = 1;
        struct pbed *b = pbed_start(&o, 1);
        (void)pbed_do(b, PLANNER_CREATE, "a", JOB("all", ",\"retry\":{\"min_backoff\":\"10s\"}"));
        pbed_run(b, 2990);
        pbed_set(b)->fault = 0.8;
        pbed_run(b, 300);
        pbed_set(b)->fault = 0;
        (void)pbed_do(
            b, PLANNER_PUT, "a",
            "{\"schedule\":\"@after 3s\",\"callback\":{\"http\":{\"service\":\"s\",\"path\":\"/x\"}},"
            "\"retry\":{\"min_backoff\":\"100ms\",\"max_attempts\":4}}");
        pbed_run(b, 600000); /* the bed asserts that no attempt is sent twice */
        pbed_check(b, true);
        pbed_free(b);
    }
}
