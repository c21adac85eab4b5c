/* What the API's writes ask of the store, and who waits for what. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define EVERY_1S "{\"schedule\":\"@every 1s\"," CALLBACK "}"
#define ONCE     "{\"schedule\":\"@after 3s\"," CALLBACK "}"
#define YEARLY   "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}"

Test(planner_api, a_name_is_taken_to_be_free_until_the_store_says_otherwise)
{
    struct pbed *b = pbed_start(NULL, 1);
    const struct planner_stats *stats = planner_stats(pbed_planner(b, 0));
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", YEARLY), PLANNER_CREATED));
    cr_assert(eq(int, pbed_do(b, PLANNER_CREATE, "b", YEARLY), PLANNER_CREATED));
    cr_assert(eq(u64, stats->looks, 0), "nobody asked whether they are there");
    pbed_run(b, 100); /* they are due next year, so they left memory */
    cr_assert(eq(sz, stats->jobs_loaded, 0));
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", ONCE), PLANNER_OK));
    cr_assert(eq(u64, pbed_job(b, "a")->version, 2));
    cr_assert(eq(u64, stats->looks, 1), "the insert failed");
    cr_assert(eq(int, pbed_do(b, PLANNER_CREATE, "b", ONCE), PLANNER_EXISTS));
    cr_assert(eq(u64, pbed_job(b, "b")->version, 1));
    cr_assert(eq(u64, stats->looks, 2), "a wrong guess is followed by looks");
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "c", YEARLY), PLANNER_CREATED));
    cr_assert(eq(u64, stats->looks, 3));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_api, an_answer_is_awaited_and_an_end_is_not)
{
    struct pbed *b = pbed_start(NULL, 1);
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", EVERY_1S), PLANNER_CREATED));
    cr_assert(eq(sz, pbed_awaited(b), 1));
    pbed_run(b, 10000);
    cr_assert(ge(u64, pbed_job(b, "a")->counts.succeeded, 9));
    cr_assert(eq(sz, pbed_awaited(b), 1));
    cr_assert(eq(int, pbed_do(b, PLANNER_DELETE, "a", NULL), PLANNER_OK));
    cr_assert(eq(sz, pbed_awaited(b), 2));
    pbed_free(b);
}

static char run_trace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 a=1";

/* Its attempts are looked at as they go out (planner_bed.c). */
Test(planner_api, a_run_keeps_the_trace_that_asked_for_it_through_retries_and_a_death)
{
    struct pbed_options o = pbed_defaults(3);
    o.fail = 1;
    struct pbed *b = pbed_new(&o);
    int first = pbed_node_start(b);
    pbed_give_all(b, first);
    pbed_run(b, 50);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}");
    struct pbed_call *c = pbed_call(b, PLANNER_RUN, "a", NULL);
    c->api.run_trace = run_trace;
    pbed_run(b, 5000);
    cr_assert(eq(int, c->api.answer, PLANNER_ACCEPTED));
    const struct fire_row *f = pbed_fire(b, &pbed_job(b, "a")->uid, 1);
    cr_assert(eq(str, f->trace, run_trace));
    cr_assert(gt(u32, f->attempts, 1));
    int heir = pbed_node_start(b);
    pbed_set(b)->planned_only = false;
    pbed_set(b)->fail = 0;
    pbed_node_kill(b, first, 100);
    pbed_run(b, 200);
    pbed_give_all(b, heir);
    pbed_run(b, 600000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    pbed_free(b);
}

/* Another member may have the slot by now, and have done more. */
Test(planner_api, without_its_lease_a_member_answers_only_what_it_writes)
{
    struct pbed *b = pbed_start(NULL, 1);
    cr_assert(eq(int, pbed_do(b, PLANNER_CREATE, "a", YEARLY), PLANNER_CREATED));
    struct uid uid = pbed_job(b, "a")->uid;
    pbed_lease(b, 0, false);
    struct pbed_call *retry = pbed_fire_call(b, PLANNER_FIRE_RETRY, &uid, 1, 0, false);
    struct pbed_call *resume = pbed_call(b, PLANNER_RESUME, "a", NULL);
    pbed_run(b, 5000);
    cr_assert(not(retry->answered));
    cr_assert(not(resume->answered));
    cr_assert(eq(int, pbed_do(b, PLANNER_PAUSE, "a", NULL), PLANNER_OK));
    pbed_lease(b, 0, true);
    pbed_run(b, 5000);
    cr_assert(eq(int, retry->api.answer, PLANNER_NOT_FOUND));
    cr_assert(eq(int, resume->api.answer, PLANNER_OK));
    pbed_free(b);
}

/* An instant of its schedule has passed, so nobody may be given it who had it not. */
Test(planner_api, a_put_that_may_only_change_makes_no_job)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", ONCE);
    pbed_node_kill(b, 0, 0);
    pbed_give_all(b, pbed_node_start(b)); /* to whom nothing is known of it */
    struct pbed_call *there = pbed_call(b, PLANNER_PUT, "a", EVERY_1S),
                     *absent = pbed_call(b, PLANNER_PUT, "nobody", EVERY_1S);
    there->api.merge_only = absent->api.merge_only = true;
    pbed_run(b, 100);
    cr_assert(eq(int, there->api.answer, PLANNER_OK));
    cr_assert(eq(u64, there->api.row.version, 2));
    cr_assert(eq(int, absent->api.answer, PLANNER_INVALID));
    cr_assert(zero(ptr, (void *)pbed_job(b, "nobody")));
    pbed_free(b);
}
