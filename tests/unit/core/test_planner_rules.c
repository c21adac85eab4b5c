/* Stories of what concurrency asks for, beyond those of test_planner.c. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/planner_bed.h"

#define JOB(schedule, rest) \
    "{\"schedule\":\"" schedule "\",\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}," rest "}"
#define SLOW_RETRY "\"retry\":{\"min_backoff\":\"1h\",\"max_backoff\":\"1h\"}"

static size_t sent_count(const struct pbed *b)
{
    size_t n;
    (void)pbed_sent(b, &n);
    return n;
}

static uint64_t run(struct pbed *b, bool force)
{
    struct pbed_call *c = pbed_call(b, PLANNER_RUN, "a", NULL);
    c->api.run_force = force;
    while (!c->answered)
        pbed_run(b, 1);
    cr_assert(eq(int, c->api.answer, PLANNER_ACCEPTED));
    return c->api.run_seq;
}

static const struct fire_row *fire(const struct pbed *b, uint64_t seq)
{
    return pbed_fire(b, &pbed_job(b, "a")->uid, seq);
}

Test(planner_rules, forbid_folds_what_waits_for_an_endpoint)
{
    struct pbed_options o = pbed_defaults(7);
    o.no_endpoint = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@every 3s", "\"concurrency\":\"forbid\""));
    pbed_run(b, 60000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.coalesced, 15));
    cr_assert(zero(u64, row->counts.skipped), "nothing ran that they could have overlapped");
    pbed_set(b)->no_endpoint = 0;
    pbed_run(b, 10000);
    row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.succeeded, 1));
    pbed_check(b, false);
    pbed_free(b);
}

/* And without memory does so in a moment, not when that fire is tried again. */
Test(planner_rules, forbid_folds_what_waits_for_a_retry_also_without_memory)
{
    unsigned held_up = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.fail = 1;
        struct pbed *b = pbed_start(&o, 1);
        (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@every 20s", "\"concurrency\":\"forbid\"," SLOW_RETRY));
        pbed_run(b, 35000);
        cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 1));
        pbed_set(b)->fault = 1;
        pbed_run(b, pbed_job(b, "a")->due_ms - pbed_now(b) + 1);
        held_up += pbed_job(b, "a")->counts.seq == 1;
        pbed_set(b)->fault = 0;
        pbed_run(b, 1000);
        cr_assert(eq(u64, pbed_job(b, "a")->counts.coalesced, 1), "seed %d", (int)seed);
        pbed_free(b);
    }
    cr_assert(gt(uint, held_up, 5));
}

Test(planner_rules, a_queue_keeps_at_most_100_waiting)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@every 1s", "\"concurrency\":\"queue\"," SLOW_RETRY));
    pbed_run(b, 95000);
    cr_assert(zero(u64, pbed_job(b, "a")->counts.skipped));
    pbed_run(b, 60000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.skipped, 45));
    cr_assert(eq(int, fire(b, 2)->reason, FIRE_REASON_QUEUE_FULL));
    cr_assert(ge(i64, row->due_ms, pbed_now(b) - 107000), "who waits longest has waited for about 100 dues");
    cr_assert(eq(sz, sent_count(b), 1));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_rules, runs_of_a_queue_wait_for_their_turn)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 0;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@after 1h", "\"concurrency\":\"queue\""));
    pbed_set(b)->duration_max_ms = 5000;
    for (int i = 0; i < 4; i++)
        (void)run(b, false);
    pbed_run(b, 60000);
    size_t n;
    const struct pbed_sent *sent = pbed_sent(b, &n);
    cr_assert(eq(sz, n, 4));
    for (size_t i = 0; i < n; i++) {
        cr_assert(eq(u64, sent[i].seq, i + 1), "in the order of their booking");
        cr_assert(i == 0 || sent[i].at_ms >= sent[i - 1].at_ms);
    }
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 4));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_rules, a_run_of_a_full_queue_is_skipped_unless_it_is_forced)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@after 1h", "\"concurrency\":\"queue\"," SLOW_RETRY));
    for (int i = 0; i < 101; i++)
        (void)run(b, false);
    cr_assert(zero(u64, pbed_job(b, "a")->counts.skipped), "one is at work, 100 wait");
    (void)run(b, false);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.skipped, 1));
    cr_assert(eq(int, fire(b, 102)->reason, FIRE_REASON_QUEUE_FULL));
    (void)run(b, true);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.skipped, 1));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_rules, a_failing_head_holds_up_the_queue)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@after 1h", "\"concurrency\":\"queue\"," SLOW_RETRY));
    (void)run(b, false);
    pbed_run(b, 1000);
    pbed_set(b)->fail = 0;
    (void)run(b, false);
    pbed_run(b, 60000);
    cr_assert(eq(sz, sent_count(b), 1), "the second waits for the end of the first");
    cr_assert(eq(u64, run(b, true), 3));
    pbed_run(b, 1000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1), "but not one that is forced");
    struct uid uid = pbed_job(b, "a")->uid;
    (void)pbed_fire_do(b, PLANNER_FIRE_CANCEL, &uid, 1, 0, false);
    pbed_run(b, 2000);
    cr_assert(eq(int, fire(b, 2)->outcome, FIRE_OUTCOME_SUCCEEDED));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_rules, a_run_replaces_what_is_unfinished)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 0;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@after 1h", "\"concurrency\":\"replace\""));
    pbed_set(b)->fail = 1;
    (void)run(b, false);
    pbed_run(b, 100);
    (void)run(b, false);
    pbed_run(b, 100);
    cr_assert(eq(int, fire(b, 1)->reason, FIRE_REASON_REPLACED));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.cancelled, 1));
    cr_assert(eq(int, fire(b, 2)->outcome, FIRE_OUTCOME_PENDING));
    pbed_free(b);
}

Test(planner_rules, a_run_of_forbid_takes_the_waiting_one_in)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@after 1h", "\"concurrency\":\"forbid\"," SLOW_RETRY));
    (void)run(b, false);
    pbed_run(b, 1000);
    pbed_set(b)->fail = 0;
    (void)run(b, false);
    pbed_run(b, 1000);
    cr_assert(eq(int, fire(b, 1)->outcome, FIRE_OUTCOME_COALESCED));
    cr_assert(eq(int, fire(b, 2)->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(eq(u32, fire(b, 2)->coalesced, 1));
    pbed_free(b);
}

Test(planner_rules, unless_allow_a_reset_is_followed_by_the_deadline)
{
    static const char *const rules[] = {"allow", "forbid", "queue", "replace"};
    for (int i = 0; i < 4; i++) {
        char text[400];
        struct pbed_options o = pbed_defaults(7);
        o.reset = 1;
        o.duration_max_ms = 0;
        struct pbed *b = pbed_start(&o, 1);
        snprintf(
            text, sizeof(text),
            "{\"schedule\":\"@after 1s\",\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"},"
            "\"timeout\":\"20s\"},\"retry\":{\"min_backoff\":\"1s\",\"jitter\":0},\"concurrency\":\"%s\"}",
            rules[i]);
        (void)pbed_do(b, PLANNER_CREATE, "a", text);
        pbed_run(b, 4000);
        cr_assert(eq(int, sent_count(b) >= 2, i == 0), "%s", rules[i]);
        pbed_set(b)->reset = 0;
        pbed_run(b, 17500);
        cr_assert(ge(sz, sent_count(b), 2), "%s", rules[i]);
        cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1), "%s", rules[i]);
        pbed_free(b);
    }
}

Test(planner_rules, at_most_once_moves_before_it_has_begun)
{
    struct pbed_options o = pbed_defaults(7);
    o.commit_max_ms = 100;
    for (int64_t at = 0; at < 400; at += 7) {
        struct pbed *b = pbed_start(&o, 2);
        (void)pbed_do(b, PLANNER_CREATE, "a",
                      "{\"schedule\":\"@after 1s\",\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}},"
                      "\"delivery\":\"at_most_once\"}");
        uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
        pbed_run(b, 900 + at);
        pbed_move(b, slots, 8, 0, 1);
        pbed_run(b, 60000);
        cr_assert(eq(sz, sent_count(b), 1), "at %d ms: %zu", (int)at, sent_count(b));
        cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
        pbed_check(b, true);
        pbed_free(b);
    }
}

/* It had not got one in the store yet when its member died. */
Test(planner_rules, a_replacing_due_that_was_sent_keeps_its_number)
{
    uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct pbed_options o = pbed_defaults(7);
    o.planned_only = false;
    struct pbed *b = pbed_start(&o, 3);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@every 1s", "\"concurrency\":\"replace\""));
    pbed_set(b)->duration_max_ms = 100000;
    while (sent_count(b) == 0)
        pbed_run(b, 1);
    pbed_move(b, slots, 8, 0, 1);
    while (sent_count(b) == 1)
        pbed_run(b, 1);
    pbed_node_kill(b, 1, 50);
    pbed_run(b, 1);
    (void)run(b, false); /* the bed asserts that no number has two dues */
    pbed_run(b, 500);
    cr_assert(eq(int, fire(b, 2)->kind, FIRE_KIND_SCHEDULED));
    pbed_check(b, false);
    pbed_free(b);
}

/* ... and one that was booked before its turn replaces what it finds. */
Test(planner_rules, a_booked_due_replaces_what_is_before_it)
{
    struct pbed_options o = pbed_defaults(7);
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@after 1s", "\"concurrency\":\"replace\""));
    pbed_set(b)->duration_max_ms = 100000;
    while (sent_count(b) == 0)
        pbed_run(b, 1);
    pbed_run(b, 1000);
    cr_assert(eq(u64, run(b, false), 2));
    pbed_run(b, 500);
    cr_assert(eq(int, fire(b, 1)->reason, FIRE_REASON_REPLACED));
    cr_assert(eq(sz, sent_count(b), 2));
    pbed_check(b, false);
    pbed_free(b);
}

/* What the rule says of a due that finds another fire unfinished is not put off until there are fewer of them. */
Test(planner_rules, max_pending_does_not_keep_a_rule_from_being_followed)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  JOB("@every 10s", "\"concurrency\":\"forbid\",\"max_pending\":1," SLOW_RETRY));
    pbed_run(b, 65000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.coalesced, 4), "what only waits for a retry is folded into the next");
    cr_assert(ge(sz, sent_count(b), 5));
    pbed_check(b, false);
    (void)pbed_do(b, PLANNER_PUT, "a",
                  JOB("@every 10s", "\"concurrency\":\"replace\",\"max_pending\":1," SLOW_RETRY));
    pbed_run(b, 65000);
    row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.cancelled, 5), "what waits for a retry is replaced");
    pbed_check(b, false);
    pbed_set(b)->fail = 0;
    pbed_set(b)->duration_max_ms = 200000;
    uint64_t cancelled = row->counts.cancelled;
    pbed_run(b, 60000);
    cr_assert(ge(u64, pbed_job(b, "a")->counts.cancelled, cancelled + 3), "and so is what runs");
    pbed_set(b)->duration_max_ms = 50;
    pbed_run(b, 300000);
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_rules, a_queue_is_full_whatever_max_pending_is)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  JOB("@every 1s", "\"concurrency\":\"queue\",\"max_pending\":1," SLOW_RETRY));
    pbed_run(b, 155000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.skipped, 45));
    cr_assert(eq(int, fire(b, 2)->reason, FIRE_REASON_QUEUE_FULL));
    pbed_check(b, false);
    pbed_free(b);
}

/* Who takes over loads what is near. A callee at work has until then, and the next fire may not start beside it. */
Test(planner_rules, what_is_open_beyond_the_horizon_is_in_the_way)
{
    static const char *const rules[] = {"forbid", "replace", "queue"};
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (size_t i = 0; i < 3; i++) {
        char text[300];
        struct pbed_options o = pbed_defaults(7);
        o.async_silent = 1;
        struct pbed *b = pbed_start(&o, 2);
        (void)snprintf(text, sizeof(text),
                       "{\"schedule\":\"@every 5h\",\"concurrency\":\"%s\",\"callback\":{\"async\":"
                       "{\"timeout\":\"1h\",\"max\":\"2h\"},\"http\":{\"url\":\"http://10.0.0.9/x\"}}}",
                       rules[i]);
        (void)pbed_do(b, PLANNER_CREATE, "a", text);
        (void)run(b, false);
        pbed_run(b, 1000);
        cr_assert(eq(int, fire(b, 1)->state, FIRE_STATE_OPEN));
        pbed_move(b, slots, 8, 0, 1);
        pbed_run(b, 1000);
        (void)run(b, false);
        pbed_run(b, 10000);
        bool replaces = i == 1;
        cr_assert(eq(sz, sent_count(b), replaces ? 2 : 1), "%s", rules[i]);
        cr_assert(eq(int, fire(b, 1)->outcome, replaces ? FIRE_OUTCOME_CANCELLED : FIRE_OUTCOME_PENDING));
        struct uid uid = pbed_job(b, "a")->uid;
        if (!replaces)
            (void)pbed_fire_do(b, PLANNER_FIRE_COMPLETE, &uid, 1, 1, true);
        pbed_run(b, 2000);
        cr_assert(eq(sz, sent_count(b), 2), "%s", rules[i]);
        pbed_check(b, false);
        pbed_free(b);
    }
}

/* ... and so is what another member makes an attempt at, which alone may end it. */
Test(planner_rules, what_another_member_holds_is_not_replaced_but_waited_for)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct pbed_options o = pbed_defaults(7);
    struct pbed *b = pbed_start(&o, 2);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@every 2s", "\"concurrency\":\"replace\""));
    pbed_set(b)->duration_max_ms = 60000;
    while (sent_count(b) == 0)
        pbed_run(b, 1);
    pbed_move(b, slots, 8, 0, 1);
    pbed_run(b, 1000);
    cr_assert(eq(int, fire(b, 1)->state, FIRE_STATE_HELD));
    while (sent_count(b) == 1)
        pbed_run(b, 1);
    const struct fire_row *first = fire(b, 1);
    cr_assert(first == NULL || first->state == FIRE_STATE_ENDED, "the next one starts beside it");
    pbed_run(b, 10000);
    cr_assert(gt(sz, sent_count(b), 2));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_rules, what_waits_beyond_the_horizon_is_replaced_too)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 2);
    (void)pbed_do(b, PLANNER_CREATE, "a", JOB("@every 5h", "\"concurrency\":\"replace\"," SLOW_RETRY));
    (void)run(b, false);
    pbed_run(b, 1000);
    pbed_move(b, slots, 8, 0, 1);
    pbed_run(b, 1000);
    pbed_set(b)->fail = 0;
    (void)run(b, false);
    pbed_run(b, 5000);
    cr_assert(eq(int, fire(b, 1)->reason, FIRE_REASON_REPLACED));
    cr_assert(eq(int, fire(b, 2)->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(eq(sz, sent_count(b), 2));
    pbed_check(b, true);
    pbed_free(b);
}
