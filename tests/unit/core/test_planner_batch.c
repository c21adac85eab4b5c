/* Two batches out at a time: which may go together, and what waits for what. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#include "tests/lib/planner_bed.h"

#define JOB "{\"schedule\":\"@after 1h\",\"callback\":{\"http\":{\"service\":\"s\",\"path\":\"/x\"}}}"

enum { MANY = 12 };

/* A store that is slow, and batches of three. */
static struct pbed *start(unsigned batches_max, unsigned members)
{
    struct pbed_options o = pbed_defaults(7);
    o.commit_max_ms = 200;
    o.rows_max = 3;
    o.batches_max = batches_max;
    return pbed_start(&o, members);
}

static void create(struct pbed *b, struct pbed_call **calls, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        char id[24];
        snprintf(id, sizeof(id), "j%u", i);
        calls[i] = pbed_call(b, PLANNER_CREATE, id, JOB);
    }
}

static void run_until_answered(struct pbed *b, struct pbed_call **calls, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned ms = 0; !calls[i]->answered && ms < 60000; ms++)
            pbed_run(b, 1);
        cr_assert(calls[i]->answered, "job %u", i);
        cr_assert(eq(int, calls[i]->api.answer, PLANNER_CREATED));
        cr_assert(pbed_job(b, calls[i]->api.id) != NULL, "answered before it is there");
    }
}

Test(planner_batch, whole_ones_go_beside_one_that_is_out)
{
    struct pbed *b = start(2, 1);
    struct pbed_call *calls[MANY];
    create(b, calls, MANY);
    run_until_answered(b, calls, MANY);
    cr_assert(ge(sz, pbed_beside(b), 2), "%zu", pbed_beside(b));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_batch, less_than_a_whole_one_waits)
{
    struct pbed *b = start(2, 1);
    struct pbed_call *calls[3];
    create(b, calls, 3); /* the first goes at once, and alone */
    run_until_answered(b, calls, 3);
    cr_assert(zero(sz, pbed_beside(b)));
    pbed_free(b);
}

Test(planner_batch, one_goes_at_a_time_where_the_store_takes_one)
{
    struct pbed *b = start(1, 1);
    struct pbed_call *calls[MANY];
    create(b, calls, MANY);
    run_until_answered(b, calls, MANY);
    cr_assert(zero(sz, pbed_beside(b)));
    pbed_free(b);
}

/* The bed asserts that a batch with slots is alone. */
Test(planner_batch, slots_move_when_all_that_is_out_is_written)
{
    static const uint16_t slots[] = {0, 1, 2, 3};
    struct pbed *b = start(2, 2);
    struct pbed_call *calls[MANY];
    create(b, calls, MANY);
    while (pbed_beside(b) == 0)
        pbed_run(b, 1);
    pbed_move(b, slots, 4, 0, 1);
    run_until_answered(b, calls, MANY);
    for (unsigned ms = 0; pbed_owner(b, 3) != 1 && ms < 60000; ms++)
        pbed_run(b, 1);
    for (unsigned i = 0; i < 4; i++)
        cr_assert(eq(int, pbed_owner(b, slots[i]), 1));
    pbed_check(b, false);
    pbed_free(b);
}

/* Whether they were done or not; each of them is sent until the store says. */
Test(planner_batch, both_are_sent_again_after_failures)
{
    struct pbed *b = start(2, 1);
    struct pbed_call *calls[MANY];
    pbed_set(b)->unknown = 0.5;
    pbed_set(b)->unavailable = 0.2;
    create(b, calls, MANY);
    pbed_run(b, 3000);
    pbed_set(b)->unknown = pbed_set(b)->unavailable = 0;
    run_until_answered(b, calls, MANY);
    cr_assert(gt(sz, pbed_beside(b), 0));
    pbed_check(b, false);
    pbed_free(b);
}

/* Whatever of them was done, and whether a reply was awaited. */
Test(planner_batch, a_member_may_die_with_both_out)
{
    for (unsigned after_ms = 0; after_ms < 40; after_ms++) {
        struct pbed *b = start(2, 2);
        struct pbed_call *calls[MANY];
        pbed_set(b)->unknown = after_ms % 2 ? 0.5 : 0;
        create(b, calls, MANY);
        pbed_run(b, after_ms * 5);
        pbed_node_kill(b, 0, 300);
        pbed_give_all(b, 1);
        pbed_set(b)->unknown = 0;
        pbed_run(b, 20000);
        for (unsigned i = 0; i < MANY; i++) {
            char id[24];
            snprintf(id, sizeof(id), "j%u", i);
            cr_assert(pbed_job(b, id) != NULL, "%s, %u ms", id, after_ms * 5);
        }
        pbed_check(b, false);
        pbed_free(b);
    }
}
