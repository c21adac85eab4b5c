/* What writes leave behind for whoever asks later. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"

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

Test(planner_revisions, a_repeated_run_names_the_same_fire)
{
    struct pbed *b = one_member();
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}");
    (void)pbed_do(b, PLANNER_RUN, "a", NULL);
    struct pbed_call *c = pbed_call(b, PLANNER_RUN, "a", NULL);
    pbed_run(b, 1000);
    (void)pbed_do(b, PLANNER_RUN, "a", NULL);
    struct pbed_call *again = pbed_call(b, PLANNER_RUN, "a", NULL);
    again->api.change_id = c->api.change_id;
    again->api.repeated = true;
    pbed_run(b, 1000);
    cr_assert(eq(int, again->api.answer, PLANNER_ACCEPTED));
    cr_assert(eq(u64, again->api.run_seq, 2));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 3), "no fire of its own");
    pbed_free(b);
}
