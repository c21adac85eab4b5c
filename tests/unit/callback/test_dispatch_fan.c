/* Deliveries for all endpoints of a service. */
#include "tests/unit/callback/dispatch_bed.h"

static struct job_spec spec;
static struct fire_parts *parts;

static void make(void)
{
    static const char *const endpoints[] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"};
    bed_start();
    spec = bed_spec("billing", NULL);
    open_service(&spec, "billing", 3);
    spec.callback.to = JOB_TO_ALL;
    cr_assert(zero(int, fire_parts_new(endpoints, 3, &parts, NULL)));
}

static void clean(void)
{
    bed_close();
    fire_parts_free(parts);
}

TestSuite(dispatch_fan, .init = make, .fini = clean);

Test(dispatch_fan, without_parts_the_endpoints_are_named_and_nothing_is_sent)
{
    deliver(&spec);
    run_until(1);
    cr_assert(eq(sz, bed.ended[ATTEMPT_ENDPOINTS], 1));
    cr_assert(eq(sz, bed.last.endpoints_count, 3));
    cr_assert(strstr(bed.names, "10.0.0.1:80 ") && strstr(bed.names, "10.0.0.2:80 ") &&
                  strstr(bed.names, "10.0.0.3:80 "),
              "%s", bed.names);
    cr_assert(zero(sz, on_wire()));
}

Test(dispatch_fan, without_any_endpoint_it_waits_for_one)
{
    list_plain("billing", 0);
    deliver(&spec);
    run_until(1);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NO_ENDPOINT], 1));
}

Test(dispatch_fan, each_pending_part_goes_to_its_endpoint_and_the_worst_is_told)
{
    parts->items[1].state = FIRE_PART_SUCCEEDED;
    deliver_parts(&spec, parts);
    cr_assert(eq(sz, on_wire(), 2));
    cr_assert(eq(str, wire.sent[wire.first]->endpoint, "10.0.0.1:80"));
    cr_assert(eq(str, wire.sent[wire.first + 1]->endpoint, "10.0.0.3:80"));
    cr_assert(eq(uint, wire.sent[wire.first + 1]->part, 3));
    cr_assert(eq(uint, wire.sent[wire.first + 1]->parts, 3));
    answer(ATTEMPT_RETRY, 503, NULL);
    cr_assert(eq(sz, bed.parts[ATTEMPT_RETRY], 1));
    cr_assert(zero(sz, bed.ended_total));
    answer(ATTEMPT_OK, 200, NULL);
    cr_assert(eq(sz, bed.ended[ATTEMPT_RETRY], 1));
    cr_assert(eq(int, bed.last.status, 503));
}

Test(dispatch_fan, limits_of_an_endpoint_hold_for_parts_too)
{
    bed.options.endpoint_in_flight_max = 1;
    dispatch_reload(bed.d, 1000);
    deliver_parts(&spec, parts);
    deliver_parts(&spec, parts);
    cr_assert(eq(sz, on_wire(), 3));
    for (int i = 0; i < 6; i++)
        answer(ATTEMPT_OK, 200, NULL);
    cr_assert(eq(sz, bed.ended[ATTEMPT_OK], 2));
}

Test(dispatch_fan, a_part_of_all_whose_endpoint_left_is_void)
{
    list_plain("billing", 2);
    deliver_parts(&spec, parts);
    cr_assert(eq(sz, on_wire(), 2));
    answer(ATTEMPT_OK, 200, NULL);
    answer(ATTEMPT_OK, 200, NULL);
    run_until(1);
    cr_assert(eq(sz, bed.parts[ATTEMPT_GONE], 1));
    cr_assert(eq(sz, bed.ended[ATTEMPT_OK], 1));
}

Test(dispatch_fan, a_shard_whose_endpoint_left_goes_to_another_one)
{
    char endpoint[CALLBACK_ENDPOINT_MAX];
    spec.callback.to = JOB_TO_SHARDS;
    list_plain("billing", 1);
    deliver_parts(&spec, parts);
    cr_assert(eq(sz, on_wire(), 3));
    for (int i = 0; i < 3; i++) {
        answer(ATTEMPT_OK, 200, endpoint);
        cr_assert(eq(str, endpoint, "10.0.0.1:80"));
    }
    cr_assert(eq(sz, bed.parts[ATTEMPT_OK], 3));
}

Test(dispatch_fan, parts_without_any_endpoint_are_given_back)
{
    list_plain("billing", 0);
    deliver_parts(&spec, parts);
    run_until(1);
    cr_assert(eq(sz, bed.parts[ATTEMPT_NO_ENDPOINT], 3));
    cr_assert(eq(sz, bed.ended[ATTEMPT_NO_ENDPOINT], 1));
}

Test(dispatch_fan, revoked_parts_that_wait_do_not_start)
{
    bed.options.endpoint_in_flight_max = 1;
    dispatch_reload(bed.d, 1000);
    deliver_parts(&spec, parts);
    struct delivery *second = deliver_parts(&spec, parts);
    revoke(second);
    run_until(1);
    cr_assert(eq(sz, bed.parts[ATTEMPT_NOT_STARTED], 3));
    cr_assert(eq(sz, bed.ended[ATTEMPT_NOT_STARTED], 1));
    for (int i = 0; i < 3; i++)
        answer(ATTEMPT_OK, 200, NULL);
    cr_assert(eq(sz, bed.ended[ATTEMPT_OK], 1));
}

Test(dispatch_fan, a_close_with_parts_under_way_ends_each_once)
{
    bed.options.endpoint_in_flight_max = 1;
    dispatch_reload(bed.d, 1000);
    deliver_parts(&spec, parts);
    deliver_parts(&spec, parts);
    dispatch_close(bed.d);
    bed.d = NULL;
    cr_assert(eq(sz, bed.ended_total, 2));
    cr_assert(eq(sz, bed.parts[ATTEMPT_NOT_STARTED] + bed.parts[ATTEMPT_RETRY], 6));
}

Test(dispatch_fan, without_memory_for_the_names_or_the_parts_the_delivery_comes_back)
{
    unsigned k = 0;
    for (bool fired = true; fired; k++) {
        size_t ended = bed.ended_total;
        fault_arm(k);
        deliver(&spec);
        fired = fault_fired();
        run_until(ended + 1);
        cr_assert(fired || bed.ended[ATTEMPT_ENDPOINTS] == 1, "k=%u", k);
        cr_assert(eq(sz, bed.ended_total, ended + 1));
    }
    cr_assert(gt(uint, k, 1));
}
