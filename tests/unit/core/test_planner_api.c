/* What the API's writes ask of the store, and who waits for what. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define EVERY_1S "{\"schedule\":\"@every 1s\"," CALLBACK "}"
#define ONCE     "{\"schedule\":\"@after 3s\"," CALLBACK "}"
#define YEARLY   "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}"

static struct pbed *one_member(void)
{
    struct pbed_options o = pbed_defaults(7);
    struct pbed *b = pbed_new(&o);
    int n = pbed_node_start(b);
    for (unsigned s = 0; s < o.slots; s++)
        pbed_give(b, s, n);
    pbed_run(b, 50);
    return b;
}

Test(planner_api, a_name_is_taken_to_be_free_until_the_store_says_otherwise)
{
    struct pbed *b = one_member();
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
    struct pbed *b = one_member();
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", EVERY_1S), PLANNER_CREATED));
    cr_assert(eq(sz, pbed_awaited(b), 1));
    pbed_run(b, 10000);
    cr_assert(ge(u64, pbed_job(b, "a")->counts.succeeded, 9));
    cr_assert(eq(sz, pbed_awaited(b), 1));
    cr_assert(eq(int, pbed_do(b, PLANNER_DELETE, "a", NULL), PLANNER_OK));
    cr_assert(eq(sz, pbed_awaited(b), 2));
    pbed_free(b);
}
