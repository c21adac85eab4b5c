/* At most once, and jobs that begin or cease to ask for it. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#include "agent/core/hashring.h"
#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define RETRY    ",\"retry\":{\"min_backoff\":\"5s\",\"max_backoff\":\"5s\"}"
#define ONCE     ",\"delivery\":\"at_most_once\""

static const struct fire_row *fire(const struct pbed *b, uint64_t seq)
{
    return pbed_fire(b, &pbed_job(b, "a")->uid, seq);
}

static size_t sent_of(const struct pbed *b, uint64_t seq)
{
    return pbed_sent_of(b, &pbed_job(b, "a")->uid, seq);
}

Test(planner_once, an_attempt_that_runs_is_not_made_again_when_its_slot_comes_back)
{
    struct pbed *b = pbed_start(NULL, 2);
    uint16_t slot = (uint16_t)hashring_slot("default", "a", 8);
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@after 1s\"," CALLBACK ONCE "}");
    pbed_set(b)->duration_max_ms = 600000;
    pbed_run(b, 1500);
    cr_assert(eq(sz, sent_of(b, 1), 1));
    pbed_move(b, &slot, 1, 0, 1);
    pbed_run(b, 1000);
    pbed_move(b, &slot, 1, 1, 0);
    pbed_run(b, 1000);
    cr_assert(eq(int, pbed_owner(b, slot), 0));
    cr_assert(eq(int, fire(b, 1)->state, FIRE_STATE_HELD));
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@after 2s\"," CALLBACK ONCE "}");
    pbed_run(b, 1000);
    cr_assert(eq(sz, sent_of(b, 1), 1));
    pbed_run(b, 700000);
    cr_assert(eq(sz, sent_of(b, 1), 1));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 2));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_once, a_dead_letter_that_is_sent_once_more_has_a_number_of_its_own)
{
    struct pbed *b = pbed_start(NULL, 1);
    pbed_set(b)->fail = 1;
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@after 1s\"," CALLBACK ONCE "}");
    pbed_run(b, 2000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.dead, 1));
    pbed_set(b)->fail = 0;
    struct uid uid = pbed_job(b, "a")->uid;
    cr_assert(eq(int, pbed_fire_do(b, PLANNER_FIRE_RETRY, &uid, 1, 0, false), PLANNER_ACCEPTED));
    pbed_run(b, 1000);
    size_t n;
    const struct pbed_sent *sent = pbed_sent(b, &n);
    cr_assert(eq(sz, n, 2));
    cr_assert(eq(u32, sent[1].attempt, 2));
    cr_assert(eq(u32, fire(b, 1)->attempts, 2));
    cr_assert(eq(int, fire(b, 1)->outcome, FIRE_OUTCOME_SUCCEEDED));
    pbed_check(b, true);
    pbed_free(b);
}

/* Whatever has happened to the mark when the definition changes: the store may be told of it just then. */
Test(planner_once, a_marked_fire_goes_out_when_its_job_does_not_ask_for_it_any_more)
{
    for (int64_t at = 900; at < 1200; at += 10) {
        struct pbed *b = pbed_start(NULL, 1);
        pbed_set(b)->commit_max_ms = 200;
        (void)pbed_do(b, PLANNER_CREATE, "a",
                      "{\"schedule\":\"@every 1s\",\"concurrency\":\"forbid\"," CALLBACK ONCE "}");
        pbed_run(b, at);
        (void)pbed_do(b, PLANNER_PUT, "a",
                      "{\"schedule\":\"@every 1s\",\"concurrency\":\"forbid\"," CALLBACK "}");
        pbed_run(b, 10000);
        const struct job_row *row = pbed_job(b, "a");
        cr_assert(ge(u64, row->counts.succeeded, 8), "changed after %d ms", (int)at);
        pbed_check(b, false);
        pbed_free(b);
    }
}

Test(planner_once, what_was_tried_is_not_tried_again_when_its_job_begins_to_ask_for_it)
{
    static const char *const to[] = {"", "\"to\":\"all\","};
    for (size_t i = 0; i < 2; i++) {
        char text[300];
        struct pbed *b = pbed_start(NULL, 1);
        pbed_set(b)->fail = 1;
        for (int once = 0; once < 2; once++) {
            (void)snprintf(text, sizeof(text),
                           "{\"schedule\":\"@after 1s\",\"callback\":{%s\"http\":{\"service\":\"s\"}}"
                           "%s}",
                           to[i], once ? ONCE : RETRY);
            (void)pbed_do(b, PLANNER_PUT, "a", text);
            pbed_run(b, once ? 20000 : 1500);
            const struct fire_row *f = fire(b, 1);
            cr_assert(eq(int, f->outcome, once ? FIRE_OUTCOME_DEAD : FIRE_OUTCOME_PENDING));
            cr_assert(eq(u32, f->attempts, 1));
        }
        cr_assert(eq(int, fire(b, 1)->reason, FIRE_REASON_AT_MOST_ONCE));
        cr_assert(ge(sz, 1, sent_of(b, 1)));
        pbed_check(b, true);
        pbed_free(b);
    }
}

Test(planner_once, an_attempt_that_ran_when_its_job_began_to_ask_for_it_dies_with_its_member)
{
    struct pbed *b = pbed_start(NULL, 2);
    pbed_set(b)->planned_only = false;
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@after 1h\"," CALLBACK "}");
    pbed_set(b)->duration_max_ms = 600000;
    cr_assert(eq(int, pbed_do(b, PLANNER_RUN, "a", NULL), PLANNER_ACCEPTED));
    pbed_run(b, 100);
    cr_assert(eq(sz, sent_of(b, 1), 1));
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@after 1h\"," CALLBACK ONCE "}");
    pbed_node_kill(b, 0, 100);
    pbed_run(b, 5000);
    cr_assert(eq(sz, sent_of(b, 1), 1));
    cr_assert(eq(int, fire(b, 1)->reason, FIRE_REASON_AT_MOST_ONCE));
    pbed_check(b, false);
    pbed_free(b);
}
