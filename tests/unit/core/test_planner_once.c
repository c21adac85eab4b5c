/* At most once, and jobs that begin or cease to ask for it. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/core/hashring.h"
#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define ONCE     ",\"delivery\":\"at_most_once\""

static struct pbed *members(unsigned count)
{
    struct pbed_options o = pbed_defaults(7);
    struct pbed *b = pbed_new(&o);
    for (unsigned i = 0; i < count; i++)
        (void)pbed_node_start(b);
    for (unsigned s = 0; s < o.slots; s++)
        pbed_give(b, s, 0);
    pbed_run(b, 50);
    return b;
}

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
    struct pbed *b = members(2);
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
    struct pbed *b = members(1);
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
