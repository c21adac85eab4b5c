/* What writes leave behind for whoever asks later. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/core/ring_log.h"
#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"

static enum fire_wait newest_waited_for(const struct pbed *b)
{
    struct ring_entry entries[RING_LOG_KEEP_MAX];
    const struct job_row *row = pbed_job(b, "a");
    size_t n = 0;
    cr_assert(zero(int, ring_log_read(row->ring, row->ring_bytes, entries, &n, NULL)));
    cr_assert(gt(sz, n, 0));
    return entries[0].waited;
}

Test(planner_revisions, a_late_success_tells_what_it_waited_for)
{
    struct pbed *b = pbed_start(NULL, 1);
    pbed_set(b)->no_endpoint = 1;
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@every 1m\"," CALLBACK "}");
    pbed_run(b, 65000);
    pbed_set(b)->no_endpoint = 0;
    pbed_run(b, 10000);
    cr_assert(eq(int, newest_waited_for(b), FIRE_WAIT_ENDPOINT));
    pbed_run(b, 60000);
    cr_assert(eq(int, newest_waited_for(b), FIRE_WAIT_NONE), "the next one was in time");
    pbed_free(b);
    struct pbed_options o = pbed_defaults(7);
    b = pbed_new(&o);
    (void)pbed_store_put(b, pbed_spec(b, "a", "{\"schedule\":\"@after 1s\"," CALLBACK "}"), BED_NOW + 1000);
    pbed_run(b, 60000);
    pbed_give_all(b, pbed_node_start(b));
    pbed_run(b, 5000);
    cr_assert(eq(int, newest_waited_for(b), FIRE_WAIT_START), "there was no member");
    pbed_free(b);
}

static bool same_uid(const struct uid *a, const struct uid *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

Test(planner_revisions, a_repeated_run_names_the_same_fire)
{
    struct pbed *b = pbed_start(NULL, 1);
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
    cr_assert(again->api.was_done && !c->api.was_done);
    cr_assert(same_uid(&again->api.run_uid, &c->api.run_uid));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 3), "no fire of its own");
    (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}");
    struct pbed_call *late = pbed_call(b, PLANNER_RUN, "a", NULL);
    late->api.change_id = c->api.change_id;
    late->api.repeated = true;
    pbed_run(b, 1000);
    cr_assert(eq(u64, late->api.run_seq, 2));
    cr_assert(same_uid(&late->api.run_uid, &c->api.run_uid), "of the job that had the name then");
    cr_assert(zero(int, same_uid(&late->api.run_uid, &pbed_job(b, "a")->uid)));
    pbed_free(b);
}
