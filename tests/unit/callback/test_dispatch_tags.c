/* Which endpoints a job gets by its tags and those of its service. */
#include "tests/unit/callback/dispatch_bed.h"

Test(dispatch_tags, the_limit_of_a_service_holds_over_all_its_tags)
{
    bed_open();
    bed.options.in_flight_max = 3;
    bed_start();
    struct job_spec plain = bed_spec("billing", NULL), tagged = bed_spec("billing", NULL);
    tagged.callback.tags[0] = "v2";
    tagged.callback.tags_count = 1;
    const char *const tags[] = {"v2", NULL};
    struct endpoints_instance one = {.host = "10.0.0.1", .port = 80, .weight = 1, .tags = tags};
    deliver(&plain);
    deliver(&tagged);
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", &one, 1, NULL)));
    run_for(0);
    for (int i = 0; i < 4; i++) {
        deliver(&plain);
        deliver(&tagged);
    }
    cr_assert(eq(sz, on_wire(), 3));
    while (on_wire() > 0)
        answer(ATTEMPT_OK, 200, NULL);
    run_until(10);
    bed_close();
}

Test(dispatch_tags, the_limit_of_an_endpoint_holds_over_all_tags_that_list_it)
{
    bed_open();
    bed.options.endpoint_in_flight_max = 2;
    bed_start();
    struct job_spec plain = bed_spec("billing", NULL), tagged = bed_spec("billing", NULL);
    tagged.callback.tags[0] = "v2";
    tagged.callback.tags_count = 1;
    const char *const tags[] = {"v2", NULL};
    struct endpoints_instance one = {.host = "10.0.0.1", .port = 80, .weight = 1, .tags = tags};
    deliver(&plain);
    deliver(&tagged);
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", &one, 1, NULL)));
    run_for(0);
    cr_assert(eq(sz, on_wire(), 2));
    deliver(&plain);
    deliver(&tagged);
    cr_assert(eq(sz, on_wire(), 2), "two of the other tags fill it");
    while (on_wire() > 0)
        answer(ATTEMPT_OK, 200, NULL);
    run_until(4);
    bed_close();
}

Test(dispatch_tags, what_is_under_way_counts_for_tags_that_come_later)
{
    bed_open();
    bed.options.endpoint_in_flight_max = 1;
    bed_start();
    struct job_spec plain = bed_spec("billing", NULL), tagged = bed_spec("billing", NULL);
    tagged.callback.tags[0] = "v2";
    tagged.callback.tags_count = 1;
    const char *const tags[] = {"v2", NULL};
    struct endpoints_instance one = {.host = "10.0.0.1", .port = 80, .weight = 1};
    deliver(&plain);
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", &one, 1, NULL)));
    run_for(0);
    cr_assert(eq(sz, on_wire(), 1));
    deliver(&tagged); /* its set of tags is new, and the endpoint does not have it yet */
    one.tags = tags;
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", &one, 1, NULL)));
    run_for(0);
    cr_assert(eq(sz, on_wire(), 1));
    struct job_spec other = tagged;
    other.callback.tags_count = 2;
    other.callback.tags[1] = "v2"; /* a set of its own */
    deliver(&other);
    run_for(0);
    cr_assert(eq(sz, on_wire(), 1));
    while (on_wire() > 0)
        answer(ATTEMPT_OK, 200, NULL);
    run_until(3);
    bed_close();
}

Test(dispatch_tags, an_instance_without_all_tags_of_the_job_gets_nothing)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    spec.callback.tags[0] = "v2";
    spec.callback.tags[1] = "blue";
    spec.callback.tags_count = 2;
    const char *const both[] = {"blue", "x", "v2", NULL}, *const one[] = {"v2", NULL};
    struct endpoints_instance list[] = {{.host = "10.0.0.1", .port = 80, .weight = 1, .tags = one},
                                        {.host = "10.0.0.2", .port = 80, .weight = 1, .tags = both},
                                        {.host = "10.0.0.3", .port = 80, .weight = 1}};
    char endpoint[CALLBACK_ENDPOINT_MAX];
    deliver(&spec);
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", list, 3, NULL)));
    run_for(0);
    for (int i = 0; i < 20; i++) {
        answer(ATTEMPT_OK, 200, endpoint);
        cr_assert(eq(str, endpoint, "10.0.0.2:80"));
        deliver(&spec);
    }
    bed_close();
}

static void three_versions(void)
{
    const char *const old[] = {"v1", NULL}, *const new[] = {"blue", "v2", NULL};
    struct endpoints_instance list[] = {{.host = "10.0.0.1", .port = 80, .weight = 1, .tags = old},
                                        {.host = "10.0.0.2", .port = 80, .weight = 1, .tags = new},
                                        {.host = "10.0.0.3", .port = 80, .weight = 1}};
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", list, 3, NULL)));
    run_for(0);
}

static void expect_endpoint(struct job_spec *spec, const char *expected)
{
    char endpoint[CALLBACK_ENDPOINT_MAX];
    for (int i = 0; i < 20; i++) {
        deliver(spec);
        run_for(0);
        answer(ATTEMPT_OK, 200, endpoint);
        cr_assert(eq(str, endpoint, (char *)expected));
    }
}

Test(dispatch_tags, a_job_without_tags_gets_those_of_its_service_and_one_with_tags_keeps_its_own)
{
    bed_open();
    bed.default_tags[0] = "v2"; /* not in order, on purpose */
    bed.default_tags[1] = "blue";
    bed.default_tags_count = 2;
    bed_start();
    struct job_spec plain = bed_spec("billing", NULL), tagged = bed_spec("billing", NULL);
    tagged.callback.tags[0] = "v1";
    tagged.callback.tags_count = 1;
    deliver(&plain);
    three_versions();
    answer(ATTEMPT_OK, 200, NULL);
    expect_endpoint(&plain, "10.0.0.2:80");
    expect_endpoint(&tagged, "10.0.0.1:80");
    bed_close();
}

Test(dispatch_tags, reload_takes_new_tags_of_a_service_over)
{
    bed_open();
    bed.default_tags[0] = "v1";
    bed.default_tags_count = 1;
    bed_start();
    struct job_spec plain = bed_spec("billing", NULL);
    deliver(&plain);
    three_versions();
    answer(ATTEMPT_OK, 200, NULL);
    expect_endpoint(&plain, "10.0.0.1:80");
    bed.default_tags[0] = "blue";
    dispatch_reload(bed.d, 1000);
    expect_endpoint(&plain, "10.0.0.2:80");
    bed_close();
}

Test(dispatch_tags, more_sets_of_tags_than_fit_are_given_back_and_idle_ones_make_room)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    char tags[DISPATCH_TARGETS_MAX + 1][8];
    spec.callback.tags_count = 1;
    for (size_t i = 0; i < DISPATCH_TARGETS_MAX + 1; i++) {
        snprintf(tags[i], sizeof(tags[i]), "t%zu", i);
        spec.callback.tags[0] = tags[i];
        deliver(&spec);
    }
    run_for(0);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NOT_STARTED], 1));
    run_until(DISPATCH_TARGETS_MAX + 1);
    deliver(&spec); /* the last tag again: another's place is free now */
    run_until(DISPATCH_TARGETS_MAX + 2);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NO_ENDPOINT], DISPATCH_TARGETS_MAX + 1));
    bed_close();
}
