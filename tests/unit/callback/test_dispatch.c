#include "tests/unit/callback/dispatch_bed.h"

Test(dispatch, delivers_to_an_endpoint_of_the_list_and_reports_once)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    char endpoint[CALLBACK_ENDPOINT_MAX];
    open_service(&spec, "billing", 1);
    cr_assert(eq(str, bed.wanted, "billing/ "));
    deliver(&spec);
    cr_assert(eq(sz, on_wire(), 1));
    cr_assert(eq(str, (char *)wire.sent[wire.first]->source, "/carillon/test"));
    answer(ATTEMPT_OK, 204, endpoint);
    cr_assert(eq(str, endpoint, "10.0.0.1:80"));
    cr_assert(eq(sz, bed.ended[ATTEMPT_OK], 1));
    cr_assert(eq(sz, bed.observed, 2));
    struct dispatch_stats stats = dispatch_stats(bed.d);
    cr_assert(zero(sz, stats.in_flight + stats.waiting));
    bed_close();
}

Test(dispatch, gives_back_after_the_wait_when_no_endpoint_appears)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    uint64_t began_ms = clock_boot_ms();
    deliver(&spec);
    run_until(1);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NO_ENDPOINT], 1));
    cr_assert(ge(u64, clock_boot_ms() - began_ms, 29));
    cr_assert(zero(sz, wire.count));
    cr_assert(zero(sz, bed.observed), "no attempt was made");
    bed_close();
}

Test(dispatch, an_endpoint_that_appears_releases_all_who_wait_at_the_bounded_rate)
{
    bed_open();
    bed.dispatch.no_endpoint_wait_ms = 15000;
    bed.options.in_flight_max = bed.options.endpoint_in_flight_max = 0;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    for (int i = 0; i < 121; i++)
        deliver(&spec);
    uint64_t began_ms = (uint64_t)loop_now_ms(bed.loop); /* the rate counts by the turn's clock */
    list_plain("billing", 2);
    run_for(0);
    cr_assert(ge(sz, wire.count, 21), "the first go out at once");
    size_t at_once = wire.count, time_for = (size_t)(clock_boot_ms() - began_ms);
    while (wire.count < 121)
        run_for(5);
    uint64_t took_ms = clock_boot_ms() - began_ms;
    cr_assert(le(sz, at_once, 60 + time_for));
    cr_assert(ge(u64, took_ms, 95), "1000 a second after the first 21: %llu ms", (unsigned long long)took_ms);
    deliver(&spec);
    cr_assert(eq(sz, wire.count, 122), "the rate is for those who waited only");
    bed_close();
}

Test(dispatch, tells_what_a_late_attempt_waited_for)
{
    bed_open();
    bed.dispatch.no_endpoint_wait_ms = 15000;
    bed.options.in_flight_max = 1;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    deliver(&spec);
    deliver(&spec);
    run_for(110);
    list_plain("billing", 1);
    run_for(0);
    answer(ATTEMPT_OK, 200, NULL);
    run_until(1);
    cr_assert(eq(int, bed.last.waited_for, FIRE_WAIT_ENDPOINT));
    deliver(&spec);
    run_for(110);
    answer(ATTEMPT_OK, 200, NULL);
    run_until(2);
    answer(ATTEMPT_OK, 200, NULL);
    run_until(3);
    cr_assert(eq(int, bed.last.waited_for, FIRE_WAIT_TURN));
    deliver(&spec);
    run_for(0);
    answer(ATTEMPT_OK, 200, NULL);
    run_until(4);
    cr_assert(eq(int, bed.last.waited_for, FIRE_WAIT_NONE));
    bed_close();
}

Test(dispatch, who_was_given_back_is_told_once_that_there_is_an_endpoint)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    struct delivery *first = deliver(&spec);
    list_plain("billing", 0);
    run_until(1);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NO_ENDPOINT], 1));
    cr_assert(eq(str, bed.released, ""));
    bed.again = first;
    list_plain("billing", 1);
    cr_assert(eq(str, bed.released, "billing "));
    cr_assert(eq(sz, on_wire(), 1), "what is delivered anew goes out at once");
    list_plain("billing", 2);
    cr_assert(eq(str, bed.released, "billing "), "it had one");
    list_plain("billing", 0);
    list_plain("billing", 2);
    cr_assert(eq(str, bed.released, "billing billing "));
    bed_close();
}

Test(dispatch, a_service_that_is_heard_of_in_time_releases_nobody)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    deliver(&spec);
    list_plain("billing", 1);
    cr_assert(eq(str, bed.released, ""));
    bed_close();
}

Test(dispatch, tells_since_when_the_one_that_waits_longest_does)
{
    bed_open();
    bed.options.endpoint_in_flight_max = 1;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    open_service(&spec, "billing", 1);
    cr_assert(eq(i64, dispatch_stats(bed.d).oldest_ms, INT64_MAX));
    int64_t before_ms = loop_now_ms(bed.loop);
    deliver(&spec);
    deliver(&spec);
    run_for(20);
    deliver(&spec);
    int64_t oldest_ms = dispatch_stats(bed.d).oldest_ms;
    cr_assert(ge(i64, oldest_ms, before_ms));
    cr_assert(le(i64, oldest_ms, loop_now_ms(bed.loop) - 20), "the first in line, not the last");
    bed_close();
}

Test(dispatch, an_endpoint_that_left_gets_nothing_more)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    char endpoint[CALLBACK_ENDPOINT_MAX];
    open_service(&spec, "billing", 2);
    struct endpoints_instance other = {.host = "10.0.0.9", .port = 81, .weight = 1};
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", &other, 1, NULL)));
    for (int i = 0; i < 20; i++) {
        deliver(&spec);
        answer(ATTEMPT_OK, 200, endpoint);
        cr_assert(eq(str, endpoint, "10.0.0.9:81"));
    }
    bed_close();
}

Test(dispatch, an_empty_list_makes_them_wait)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    open_service(&spec, "billing", 2);
    list_plain("billing", 0);
    deliver(&spec);
    cr_assert(zero(sz, on_wire()));
    run_until(1);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NO_ENDPOINT], 1));
    bed_close();
}

Test(dispatch, a_limit_of_an_endpoint_holds_and_the_rest_waits_in_order)
{
    bed_open();
    bed.options.endpoint_in_flight_max = 2;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    struct delivery *order[6];
    open_service(&spec, "billing", 1);
    for (int i = 0; i < 6; i++)
        order[i] = deliver(&spec);
    cr_assert(eq(sz, on_wire(), 2));
    cr_assert(eq(sz, dispatch_stats(bed.d).waiting, 4));
    for (size_t i = 0; i < 6; i++) {
        cr_assert(eq(ptr, wire.sent[wire.first]->delivery, order[i]), "place %zu", i);
        answer(ATTEMPT_OK, 200, NULL);
        dispatch_validate(bed.d);
        cr_assert(le(sz, on_wire(), 2));
    }
    bed_close();
}

Test(dispatch, targets_take_turns_under_the_limit_of_all)
{
    bed_open();
    bed.dispatch.in_flight_max = 1;
    bed_start();
    struct job_spec many = bed_spec(NULL, "http://10.0.0.1:80/a"),
                    few = bed_spec(NULL, "http://10.0.0.2:80/b");
    for (int i = 0; i < 20; i++)
        deliver(&many);
    struct delivery *other = deliver(&few);
    size_t before = 0;
    while (wire.sent[wire.first]->delivery != other) {
        before++;
        answer(ATTEMPT_OK, 200, NULL);
        cr_assert(eq(sz, on_wire(), 1));
    }
    cr_assert(le(sz, before, 2), "%zu of the other target went first", before);
    bed_close();
}

Test(dispatch, a_target_at_its_limit_holds_up_no_other)
{
    bed_open();
    bed.options.endpoint_in_flight_max = 1;
    bed_start();
    struct job_spec slow = bed_spec(NULL, "http://10.0.0.1:80/a"),
                    quick = bed_spec(NULL, "https://10.0.0.1/a?b");
    for (int i = 0; i < 5; i++)
        deliver(&slow);
    struct delivery *other = deliver(&quick);
    cr_assert(eq(sz, on_wire(), 2));
    cr_assert(eq(ptr, wire.sent[wire.count - 1]->delivery, other));
    bed_close();
}

Test(dispatch, a_direct_url_goes_out_at_once_and_its_host_is_named_in_the_result)
{
    bed_start();
    struct job_spec a = bed_spec(NULL, "http://callee.example:8080/x?y=1"),
                    b = bed_spec(NULL, "http://callee.example:8080?z");
    deliver(&a);
    deliver(&b);
    cr_assert(eq(sz, on_wire(), 2));
    cr_assert(eq(str, wire.sent[0]->endpoint, ""));
    cr_assert(eq(u64, wire.lanes[0], wire.lanes[1]), "one host, one lane");
    answer(ATTEMPT_OK, 200, NULL);
    cr_assert(eq(str, bed.last.endpoint, "callee.example:8080"));
    struct dispatch_group_view view;
    size_t at = 0;
    cr_assert(dispatch_next_group(bed.d, &at, &view));
    cr_assert(eq(str, (char *)view.host, "http://callee.example:8080"));
    cr_assert(not(dispatch_next_group(bed.d, &at, &view)));
    bed_close();
}

Test(dispatch, a_retry_prefers_an_endpoint_that_has_not_failed_this_fire)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    char endpoint[CALLBACK_ENDPOINT_MAX];
    open_service(&spec, "billing", 4);
    for (int i = 0; i < 40; i++) {
        struct delivery *delivery = &bed.deliveries[bed.delivered++];
        *delivery = bed_delivery(&spec);
        snprintf(delivery->tried[0], sizeof(delivery->tried[0]), "10.0.0.1:80");
        snprintf(delivery->tried[1], sizeof(delivery->tried[1]), "10.0.0.3:80");
        snprintf(delivery->tried[2], sizeof(delivery->tried[2]), "10.0.0.4:80");
        dispatch_deliver(bed.d, delivery);
        answer(ATTEMPT_OK, 200, endpoint);
        cr_assert(eq(str, endpoint, "10.0.0.2:80"));
    }
    bed_close();
}

Test(dispatch, a_tried_endpoint_with_a_long_name_is_known_by_its_beginning)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    char long_name[100], endpoint[CALLBACK_ENDPOINT_MAX];
    memset(long_name, 'h', sizeof(long_name));
    memcpy(long_name + 90, ".local", 7);
    struct endpoints_instance list[] = {{.host = long_name, .port = 80, .weight = 1},
                                        {.host = "10.0.0.2", .port = 80, .weight = 1}};
    deliver(&spec);
    cr_assert(zero(int, endpoints_update(bed.endpoints, "billing", "", list, 2, NULL)));
    run_for(0);
    answer(ATTEMPT_OK, 200, NULL);
    for (int i = 0; i < 20; i++) {
        struct delivery *delivery = &bed.deliveries[bed.delivered++];
        *delivery = bed_delivery(&spec);
        memset(delivery->tried[0], 'h', sizeof(delivery->tried[0]) - 1);
        dispatch_deliver(bed.d, delivery);
        answer(ATTEMPT_OK, 200, endpoint);
        cr_assert(eq(str, endpoint, "10.0.0.2:80"));
    }
    bed_close();
}

Test(dispatch, revoked_while_waiting_ends_as_not_started)
{
    bed_open();
    bed.dispatch.in_flight_max = 1;
    bed_start();
    struct job_spec spec = bed_spec(NULL, "http://10.0.0.1:80/a");
    deliver(&spec);
    struct delivery *second = deliver(&spec), *third = deliver(&spec);
    revoke(second);
    revoke(second);
    cr_assert(zero(sz, bed.ended_total), "never before return");
    run_until(1);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NOT_STARTED], 1));
    answer(ATTEMPT_OK, 200, NULL);
    cr_assert(eq(ptr, wire.sent[wire.first]->delivery, third));
    revoke(second); /* no longer here */
    bed_close();
}

Test(dispatch, revoked_with_a_lane_is_left_to_the_lane)
{
    bed_start();
    struct job_spec spec = bed_spec(NULL, "http://10.0.0.1:80/a");
    struct delivery *early = deliver(&spec), *late = deliver(&spec);
    atomic_store(&wire.sent[1]->state, CALLBACK_STARTED);
    revoke(early);
    revoke(late);
    cr_assert(eq(int, atomic_load(&wire.sent[0]->state), CALLBACK_REVOKED));
    cr_assert(eq(int, atomic_load(&wire.sent[1]->state), CALLBACK_STARTED));
    answer(ATTEMPT_NOT_STARTED, -1, NULL);
    answer(ATTEMPT_OK, 200, NULL);
    cr_assert(eq(sz, bed.ended[ATTEMPT_NOT_STARTED], 1));
    cr_assert(eq(sz, bed.ended[ATTEMPT_OK], 1));
    bed_close();
}

Test(dispatch, an_endpoint_that_keeps_failing_is_ejected_and_one_that_refuses_jobs_is_not)
{
    bed_open();
    bed.options.failures_in_a_row = 1;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    struct balance_view view;
    open_service(&spec, "billing", 2);
    struct endpoints_service *s = endpoints_use(bed.endpoints, "billing", "");
    for (int i = 0; i < 40; i++) {
        deliver(&spec);
        bool bad = strcmp(wire.sent[wire.first]->endpoint, "10.0.0.1:80") == 0;
        answer(bad ? ATTEMPT_RETRY : ATTEMPT_GIVE_UP, bad ? 503 : 400, NULL);
    }
    for (size_t at = 0; dispatch_next_endpoint(bed.d, s, &at, &view);) {
        bool bad = strcmp(view.address, "10.0.0.1:80") == 0;
        cr_assert(eq(int, view.ejected, bad), "%s", view.address);
    }
    struct dispatch_group_view group;
    size_t at = 0;
    cr_assert(dispatch_next_group(bed.d, &at, &group));
    cr_assert(eq(sz, group.ejected, 1));
    endpoints_release(s);
    bed_close();
}

Test(dispatch, a_grpc_code_ejects_an_endpoint_only_if_it_speaks_against_it)
{
    static const struct {
        int code;
        size_t ejected;
    } cases[] = {{3, 0}, {5, 0}, {8, 0}, {16, 0}, {2, 1}, {4, 1}, {13, 1}, {14, 1}, {-1, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct dispatch_group_view group;
        size_t at = 0;
        bed_open();
        bed.dispatch.transports[JOB_GRPC] = &wire_ops;
        bed.options.failures_in_a_row = 1;
        bed_start();
        struct job_spec spec = bed_spec("billing", NULL);
        spec.callback.transport = JOB_GRPC;
        open_service(&spec, "billing", 2);
        deliver(&spec);
        answer(ATTEMPT_RETRY, cases[i].code, NULL);
        cr_assert(dispatch_next_group(bed.d, &at, &group));
        cr_assert(eq(sz, group.ejected, cases[i].ejected), "code %d", cases[i].code);
        bed_close();
    }
}

Test(dispatch, waiting_for_an_ejected_endpoint_ends_when_its_time_is_over)
{
    bed_open();
    bed.options.endpoint_in_flight_max = 1;
    bed.options.failures_in_a_row = 1;
    bed.options.eject_base_ms = 50;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    open_service(&spec, "billing", 2);
    deliver(&spec);
    answer(ATTEMPT_RETRY, 500, NULL);
    deliver(&spec);
    struct delivery *waiting = deliver(&spec);
    cr_assert(eq(sz, on_wire(), 1), "one is ejected, the other at its limit");
    for (int i = 0; i < 100 && on_wire() < 2; i++)
        run_for(10);
    cr_assert(eq(sz, on_wire(), 2), "nobody looked again");
    cr_assert(eq(ptr, wire.sent[wire.count - 1]->delivery, waiting));
    bed_close();
}

Test(dispatch, a_transport_that_does_not_exist_is_a_failed_attempt)
{
    bed_start();
    struct job_spec spec = bed_spec(NULL, NULL);
    spec.callback.transport = JOB_GRPC;
    spec.callback.address = "10.0.0.1:50051";
    deliver(&spec);
    run_until(1);
    cr_assert(eq(sz, bed.ended[ATTEMPT_RETRY], 1));
    cr_assert(ne(chr, bed.last.error[0], '\0'));
    bed_close();
}

Test(dispatch, done_may_deliver_anew)
{
    bed_start();
    struct job_spec spec = bed_spec(NULL, "http://10.0.0.1:80/a");
    deliver(&spec);
    bed.again = &bed.deliveries[bed.delivered++];
    *bed.again = bed_delivery(&spec);
    struct delivery *again = bed.again;
    answer(ATTEMPT_RETRY, 503, NULL);
    cr_assert(eq(ptr, wire.sent[wire.first]->delivery, again));
    bed_close();
}

Test(dispatch, close_ends_everything_and_what_is_delivered_meanwhile)
{
    bed_open();
    bed.dispatch.in_flight_max = 2;
    bed_start();
    struct job_spec spec = bed_spec(NULL, "http://10.0.0.1:80/a"), none = bed_spec("billing", NULL);
    for (int i = 0; i < 5; i++)
        deliver(&spec);
    deliver(&none);
    bed.again = &bed.deliveries[bed.delivered++];
    *bed.again = bed_delivery(&spec);
    dispatch_close(bed.d);
    bed.d = NULL;
    cr_assert(wire.closed);
    cr_assert(eq(sz, bed.ended[ATTEMPT_RETRY], 2));
    cr_assert(eq(sz, bed.ended[ATTEMPT_NOT_STARTED], 5));
    bed_close();
}

static double rate;

static void rate_of(void *arg, const char *service, struct dispatch_service *ret)
{
    (void)arg;
    ret->rate_per_s = strcmp(service, "billing") == 0 ? rate : 0;
}

static size_t sent_to(const char *service)
{
    size_t n = 0;
    for (size_t i = wire.first; i < wire.count; i++)
        n += strcmp(wire.sent[i]->delivery->spec->callback.service, service) == 0;
    return n;
}

Test(dispatch, over_its_rate_a_service_waits_and_no_other_with_it)
{
    bed_open();
    bed.dispatch.service_of = rate_of;
    bed.options.in_flight_max = bed.options.endpoint_in_flight_max = 0;
    rate = 200;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL), other = bed_spec("other", NULL);
    open_service(&spec, "billing", 1);
    open_service(&other, "other", 1);
    dispatch_set_share(bed.d, 0.5);
    uint64_t began_ms = clock_boot_ms();
    for (int i = 0; i < 40; i++) {
        deliver(&spec);
        deliver(&other);
    }
    cr_assert(eq(sz, sent_to("other"), 40));
    size_t sent;
    while ((sent = sent_to("billing")) < 40) {
        uint64_t most =
            11 + (clock_boot_ms() - began_ms) / 10 + 1; /* 100 a second from here, 1/20 s saved up */
        cr_assert(le(u64, sent, most));
        run_for(20);
    }
    struct dispatch_service_view view;
    deliver(&spec);
    dispatch_service_view(bed.d, "billing", &view);
    cr_assert(eq(dbl, view.rate_per_s, 200.0));
    cr_assert(eq(dbl, view.rate_here_per_s, 100.0));
    cr_assert(eq(sz, view.in_flight + view.waiting, 41));
    bed_close();
}

Test(dispatch, a_rate_that_is_lifted_frees_who_waits)
{
    bed_open();
    bed.dispatch.service_of = rate_of;
    rate = 0.01;
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    open_service(&spec, "billing", 1);
    for (int i = 0; i < 5; i++)
        deliver(&spec);
    cr_assert(zero(sz, on_wire()), "the first took what there was");
    rate = 0;
    dispatch_reload(bed.d, 1000);
    run_for(0);
    cr_assert(eq(sz, on_wire(), 5));
    bed_close();
}

static const char *tls_ca;

static void service_of(void *arg, const char *service, struct dispatch_service *ret)
{
    (void)arg;
    cr_assert(eq(str, (char *)service, "billing"));
    ret->tls_ca = tls_ca;
}

Test(dispatch, an_attempt_keeps_the_tls_of_its_service_over_a_reload)
{
    bed_open();
    bed.dispatch.service_of = service_of;
    tls_ca = "/etc/one.pem";
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL), direct = bed_spec(NULL, "http://h/");
    open_service(&spec, "billing", 1);
    deliver(&spec);
    tls_ca = "/etc/two.pem";
    dispatch_reload(bed.d, 1000);
    deliver(&spec);
    tls_ca = NULL;
    dispatch_reload(bed.d, 1000);
    deliver(&spec);
    deliver(&direct);
    struct callback_attempt **sent = &wire.sent[wire.first];
    cr_assert(eq(str, sent[0]->tls->ca, "/etc/one.pem"));
    cr_assert(eq(str, sent[1]->tls->ca, "/etc/two.pem"));
    cr_assert(zero(ptr, (void *)sent[2]->tls));
    cr_assert(zero(ptr, (void *)sent[3]->tls));
    bed_close();
}

Test(dispatch, reload_takes_new_limits_over_at_once)
{
    bed_open();
    bed.options.endpoint_in_flight_max = 1;
    bed.dispatch.in_flight_max = 2;
    bed_start();
    struct job_spec a = bed_spec("billing", NULL), b = bed_spec(NULL, "http://10.0.0.1:80/a");
    open_service(&a, "billing", 1);
    for (int i = 0; i < 4; i++) {
        deliver(&a);
        deliver(&b);
    }
    cr_assert(eq(sz, on_wire(), 2));
    bed.options.endpoint_in_flight_max = 3;
    dispatch_reload(bed.d, 5);
    run_for(0);
    cr_assert(eq(sz, on_wire(), 5));
    bed_close();
}

Test(dispatch, the_view_of_a_service_nobody_called_yet_has_its_endpoints)
{
    bed_start();
    struct endpoints_service *s = endpoints_use(bed.endpoints, "billing", NULL);
    struct balance_view view;
    size_t count = 0;
    list_plain("billing", 3);
    for (size_t at = 0; dispatch_next_endpoint(bed.d, s, &at, &view); count++)
        cr_assert(zero(u32, view.in_flight));
    cr_assert(eq(sz, count, 3));
    endpoints_release(s);
    bed_close();
}

Test(dispatch, a_transport_that_fails_to_open_leaves_nothing_behind)
{
    struct err e = {0};
    bed_open();
    fault_arm(0);
    int rc = dispatch_new(&bed.dispatch, &bed.d, &e);
    cr_assert(fault_fired());
    cr_assert(eq(int, rc, -ERR_NOMEM));
    cr_assert(zero(ptr, bed.d));
    bed_close();
}

Test(dispatch, without_memory_for_a_new_list_the_old_one_stays)
{
    bed_start();
    struct job_spec spec = bed_spec("billing", NULL);
    char endpoint[CALLBACK_ENDPOINT_MAX];
    open_service(&spec, "billing", 1);
    struct endpoints_instance other = {.host = "10.0.0.9", .port = 80, .weight = 1};
    unsigned k = 0;
    for (;; k++) {
        fault_arm(k);
        (void)endpoints_update(bed.endpoints, "billing", "", &other, 1, NULL);
        if (!fault_fired())
            break;
        dispatch_validate(bed.d);
        deliver(&spec);
        answer(ATTEMPT_OK, 200, endpoint);
        cr_assert(eq(str, endpoint, "10.0.0.1:80"), "k=%u", k);
        list_plain("billing", 1);
    }
    cr_assert(gt(uint, k, 2));
    deliver(&spec);
    answer(ATTEMPT_OK, 200, endpoint);
    cr_assert(eq(str, endpoint, "10.0.0.9:80"));
    bed_close();
}
