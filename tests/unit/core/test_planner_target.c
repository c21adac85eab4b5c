/* What fires of one callee share: a window, a pace, and their release when it is there again. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#include "tests/lib/planner_bed.h"

#define TO(service) "\"callback\":{\"http\":{\"service\":\"" service "\",\"path\":\"/x\"}}"

/* COUNT jobs that are due once, after AFTER. */
static void put_many(struct pbed *b, unsigned count, const char *name, const char *to, const char *after,
                     const char *rest)
{
    for (unsigned i = 0; i < count; i++) {
        char id[24], text[400];
        snprintf(id, sizeof(id), "%s%u", name, i);
        snprintf(text, sizeof(text), "{\"schedule\":\"@after %s\",%s%s}", after, to, rest);
        (void)pbed_call(b, PLANNER_PUT, id, text);
    }
    pbed_run(b, 500);
}

static size_t sent_count(const struct pbed *b)
{
    size_t n;
    (void)pbed_sent(b, &n);
    return n;
}

static uint64_t succeeded(const struct pbed *b, const char *id)
{
    return pbed_job(b, id)->counts.succeeded;
}

Test(planner_target, who_waits_for_an_endpoint_goes_when_there_is_one)
{
    struct pbed_options o = pbed_defaults(7);
    o.no_endpoint = 1;
    struct pbed *b = pbed_start(&o, 1);
    put_many(b, 1, "a", TO("s"), "1s", "");
    pbed_run(b, 8000);
    pbed_set(b)->no_endpoint = 0;
    pbed_release(b, "other");
    pbed_run(b, 100);
    cr_assert(zero(sz, sent_count(b)), "another service's endpoints are not its own");
    pbed_release(b, "s");
    pbed_run(b, 100);
    cr_assert(eq(u64, succeeded(b, "a0"), 1));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_target, a_fire_that_is_being_written_is_released_too)
{
    struct pbed_options o = pbed_defaults(7);
    o.no_endpoint = 1;
    o.commit_max_ms = 300;
    struct pbed *b = pbed_start(&o, 1);
    put_many(b, 1, "a", TO("s"), "2s", "");
    while (!pbed_job(b, "a0"))
        pbed_run(b, 1);
    while (pbed_job(b, "a0")->counts.seq == 0) /* booked, and the store has just answered or is about to */
        pbed_run(b, 1);
    pbed_set(b)->no_endpoint = 0;
    pbed_release(b, "s");
    pbed_run(b, 900);
    cr_assert(eq(u64, succeeded(b, "a0"), 1));
    pbed_free(b);
}

Test(planner_target, retries_far_ahead_that_only_the_store_has_are_brought_forward)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    o.horizon_ms = 5000;
    struct pbed *b = pbed_start(&o, 1);
    put_many(b, 50, "a", TO("s"), "1s", ",\"retry\":{\"min_backoff\":\"1h\",\"max_backoff\":\"1h\"}");
    put_many(b, 1, "b", TO("t"), "1s", ",\"retry\":{\"min_backoff\":\"1h\",\"max_backoff\":\"1h\"}");
    pbed_run(b, 60000);
    cr_assert(eq(sz, sent_count(b), 51));
    cr_assert(zero(sz, planner_stats(pbed_planner(b, 0))->fires_loaded), "all are in the store");
    pbed_set(b)->fail = 0;
    pbed_release(b, "s");
    pbed_run(b, 1000);
    for (int i = 0; i < 50; i++) {
        char id[16];
        snprintf(id, sizeof(id), "a%d", i);
        cr_assert(eq(u64, succeeded(b, id), 1), "%s", id);
    }
    cr_assert(zero(u64, succeeded(b, "b0")), "not another's");
    pbed_run(b, 2 * 3600 * 1000);
    cr_assert(eq(u64, succeeded(b, "b0"), 1), "which goes when it is time");
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_target, a_release_is_paced_and_keeps_to_the_window)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    o.catch_up_per_s = 100;
    o.retry_window = 20;
    o.load_page = 10;
    o.duration_max_ms = 20000; /* none is answered meanwhile that would speed it up */
    struct pbed *b = pbed_start(&o, 1);
    put_many(b, 300, "a", TO("s"), "1s",
             ",\"retry\":{\"min_backoff\":\"30m\",\"max_backoff\":\"30m\",\"jitter\":0}");
    pbed_run(b, 60000);
    cr_assert(eq(sz, sent_count(b), 300));
    pbed_set(b)->fail = 0;
    pbed_release(b, "s");
    size_t most = 0;
    for (int i = 0; i < 10; i++) {
        pbed_run(b, 100);
        size_t loaded = planner_stats(pbed_planner(b, 0))->fires_loaded;
        most = loaded > most ? loaded : most;
    }
    cr_assert(le(sz, most, 60), "%zu fires in memory", most);
    cr_assert(le(sz, sent_count(b) - 300, 110), "%zu", sent_count(b) - 300);
    pbed_run(b, 600000);
    cr_assert(eq(sz, sent_count(b), 600));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_target, a_release_during_a_release_begins_again)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    o.load_page = 3;
    o.read_max_ms = 50;
    struct pbed *b = pbed_start(&o, 1);
    put_many(b, 60, "a", TO("s"), "1s",
             ",\"retry\":{\"min_backoff\":\"1h\",\"max_backoff\":\"1h\",\"jitter\":0}");
    pbed_run(b, 120000);
    pbed_release(b, "s"); /* these fail again */
    pbed_run(b, 200);
    pbed_set(b)->fail = 0;
    pbed_release(b, "s");
    pbed_run(b, 10000);
    for (int i = 0; i < 60; i++) {
        char id[16];
        snprintf(id, sizeof(id), "a%d", i);
        cr_assert(eq(u64, succeeded(b, id), 1), "%s", id);
    }
    pbed_free(b);
}

Test(planner_target, a_paused_job_stays_paused)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_PUT, "a0",
                  "{\"schedule\":\"@every 5s\"," TO(
                      "s") ",\"retry\":{\"min_backoff\":\"10s\",\"max_backoff\":\"10s\"}}");
    pbed_run(b, 6000);
    (void)pbed_do(b, PLANNER_PAUSE, "a0", NULL);
    size_t before = sent_count(b);
    pbed_release(b, "s");
    pbed_run(b, 60000);
    cr_assert(eq(sz, sent_count(b), before));
    pbed_free(b);
}

struct views {
    struct planner_target_view service, direct;
};

static void take_view(void *arg, const struct planner_target_view *view)
{
    struct views *views = arg;
    *(view->service ? &views->service : &views->direct) = *view;
}

Test(planner_target, tells_who_waits_to_be_tried_again_and_who_was_never_tried)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    struct views views = {0};
    put_many(b, 3, "a", "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}", "1s",
             ",\"retry\":{\"min_backoff\":\"20s\",\"max_backoff\":\"20s\"}");
    pbed_run(b, 2000);
    pbed_set(b)->no_endpoint = 1;
    put_many(b, 2, "b", TO("s"), "1s", "");
    pbed_run(b, 3000);
    planner_each_target(pbed_planner(b, 0), take_view, &views);
    cr_assert(eq(sz, views.direct.retries_waiting, 3));
    cr_assert(eq(i64, views.direct.oldest_ms, RECORD_NONE));
    cr_assert(eq(str, (char *)views.service.service, "s"));
    cr_assert(zero(sz, views.service.retries_waiting));
    cr_assert(eq(i64, views.service.oldest_ms, pbed_fire(b, &pbed_job(b, "b0")->uid, 1)->due_ms));
    pbed_free(b);
}

Test(planner_target, a_callee_that_hangs_gets_no_more_than_it_may_have_and_delays_no_other)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 0;
    o.out_max = 10;
    struct pbed *b = pbed_start(&o, 1);
    put_many(b, 100, "a", TO("s"), "3s", "");
    put_many(b, 5, "b", TO("t"), "3s", "");
    pbed_set(b)->duration_max_ms = 100000;
    pbed_run(b, 3100);
    size_t first = sent_count(b);
    cr_assert(eq(sz, first, 15));
    const struct planner_stats *stats = planner_stats(pbed_planner(b, 0));
    cr_assert(eq(sz, stats->fires_loaded, 15), "what waits is no fire yet");
    cr_assert(eq(sz, stats->waiting_start, 90));
    planner_set_out_max(pbed_planner(b, 0), 20);
    pbed_run(b, 500);
    cr_assert(le(sz, stats->in_flight, 25));
    cr_assert(gt(sz, sent_count(b), first));
    pbed_set(b)->duration_max_ms = 0;
    pbed_run(b, 400000);
    cr_assert(eq(sz, sent_count(b), 105));
    pbed_check(b, true);
    pbed_free(b);
}

/* Reads so slow that the window is behind the clock: what had no room in memory is found all the same. */
Test(planner_target, what_had_no_room_is_read_while_the_window_lags)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        o.fail = 0.5;
        o.read_max_ms = 400;
        o.load_page = 2;
        o.horizon_ms = 1000;
        o.retry_window = 2;
        struct pbed *b = pbed_start(&o, 1);
        for (int i = 0; i < 8; i++) {
            char after[16];
            snprintf(after, sizeof(after), "%ds", 1 + i);
            put_many(b, 4, (const char[]){(char)('a' + i), '\0'}, TO("s"), after,
                     ",\"retry\":{\"min_backoff\":\"100ms\",\"max_backoff\":\"1s\"}");
        }
        pbed_run(b, 10000);
        pbed_set(b)->fail = 0;
        pbed_run(b, 600000);
        pbed_check(b, true);
        pbed_free(b);
    }
}
