#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/core/balance.h"
#include "tests/lib/seed.h"

#define MAX 12

static struct balance *b;
static struct rng rng;
static char names[MAX][16];
static uint64_t keys[MAX];

static void set_at(size_t from, size_t count, uint64_t now_ms)
{
    struct balance_endpoint list[MAX];
    for (size_t i = 0; i < count; i++)
        list[i] = (struct balance_endpoint){.address = names[from + i], .weight = 1};
    cr_assert(zero(int, balance_set_endpoints(b, list, count, now_ms, NULL)));
    balance_validate(b);
}

static void open_with(const struct balance_options *o, size_t count)
{
    rng_init(&rng, 5);
    for (size_t i = 0; i < MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "e%zu:80", i);
        keys[i] = balance_key(names[i]);
    }
    b = balance_new(o);
    set_at(0, count, 0);
}

static struct balance_view view(size_t i)
{
    struct balance_view v = {0};
    cr_assert(balance_get(b, keys[i], &v));
    return v;
}

static void report(size_t i, enum balance_result result, unsigned times, uint64_t now_ms)
{
    for (unsigned k = 0; k < times; k++) {
        cr_assert(eq(int, balance_start(b, keys[i]), BALANCE_CHOSEN));
        balance_done(b, keys[i], result, 1000, now_ms);
    }
    balance_validate(b);
}

/* Attempts out of ROUNDS that go to endpoint I when each succeeds at once. */
static int hits(size_t i, int rounds, uint64_t now_ms)
{
    int n = 0;
    for (int k = 0; k < rounds; k++) {
        struct balance_request r = {0};
        uint64_t key;
        cr_assert(eq(int, balance_choose(b, &r, now_ms, &rng, &key), BALANCE_CHOSEN));
        balance_done(b, key, BALANCE_IGNORED, 0, now_ms);
        n += key == keys[i];
    }
    return n;
}

Test(balance_health, failures_in_a_row_eject_and_a_success_between_does_not)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    report(0, BALANCE_FAILED, 4, 0);
    report(0, BALANCE_OK, 1, 0);
    report(0, BALANCE_FAILED, 4, 0);
    cr_assert(not(view(0).ejected));
    cr_assert(eq(u32, view(0).failures, 4));
    report(0, BALANCE_FAILED, 1, 100);
    cr_assert(view(0).ejected);
    cr_assert(eq(u64, view(0).ejected_until_ms, 100 + BALANCE_EJECT_BASE_DEFAULT_MS));
    cr_assert(eq(int, hits(0, 200, 200), 0));
    balance_free(b);
}

Test(balance_health, ignored_results_prove_nothing)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    report(0, BALANCE_FAILED, 4, 0);
    report(0, BALANCE_IGNORED, 50, 0);
    cr_assert(eq(u32, view(0).failures, 4));
    cr_assert(eq(u64, view(1).latency_us, 0));
    report(1, BALANCE_IGNORED, 50, 0);
    cr_assert(eq(u64, view(1).latency_us, 0));
    balance_free(b);
}

Test(balance_health, an_ejected_endpoint_returns_in_time_and_slowly)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    report(0, BALANCE_FAILED, 5, 0);
    cr_assert(eq(int, hits(0, 400, BALANCE_EJECT_BASE_DEFAULT_MS - 1), 0));
    int first = hits(0, 4000, BALANCE_EJECT_BASE_DEFAULT_MS);
    cr_assert(lt(int, first, 100), "%d of 4000 at once", first);
    cr_assert(not(view(0).ejected));
    uint64_t later = BALANCE_EJECT_BASE_DEFAULT_MS + BALANCE_SLOW_START_DEFAULT_MS + 1000;
    hits(0, 1, later);
    cr_assert(eq(u32, view(0).ramp_percent, 100));
    report(0, BALANCE_OK, 1, later);
    int all = hits(0, 4000, later);
    cr_assert(gt(int, all, 850), "%d of 4000 after recovery", all);
    balance_free(b);
}

Test(balance_health, the_first_failure_after_an_ejection_ejects_again_and_longer)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    report(0, BALANCE_FAILED, 5, 0);
    uint64_t now = 0;
    for (uint32_t n = 2; n <= 40; n++) {
        now = view(0).ejected_until_ms;
        hits(1, 1, now);
        cr_assert(not(view(0).ejected));
        report(0, BALANCE_FAILED, 1, now);
        uint64_t want = (uint64_t)BALANCE_EJECT_BASE_DEFAULT_MS * n;
        want = want < BALANCE_EJECT_MAX_DEFAULT_MS ? want : BALANCE_EJECT_MAX_DEFAULT_MS;
        cr_assert(eq(u64, view(0).ejected_until_ms, now + want), "ejection %u", n);
    }
    balance_free(b);
}

Test(balance_health, good_times_shorten_the_next_ejection)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    report(0, BALANCE_FAILED, 5, 0);
    report(0, BALANCE_FAILED, 1, 10000); /* second: 20 s */
    hits(1, 1, 30000);
    report(0, BALANCE_OK, 1, 30000);
    report(0, BALANCE_FAILED, 5, 40000); /* one base later: 2 - 1 + 1 */
    cr_assert(eq(u64, view(0).ejected_until_ms, 40000 + 2 * BALANCE_EJECT_BASE_DEFAULT_MS));
    hits(1, 1, 60000);
    report(0, BALANCE_OK, 1, 60000);
    report(0, BALANCE_FAILED, 5, 600000);
    cr_assert(eq(u64, view(0).ejected_until_ms, 600000 + BALANCE_EJECT_BASE_DEFAULT_MS));
    balance_free(b);
}

Test(balance_health, error_rate_ejects_when_failures_never_come_in_a_row)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    for (int k = 0; k < 9; k++) {
        report(0, BALANCE_OK, 1, 1000);
        report(0, BALANCE_FAILED, 1, 1000);
    }
    report(0, BALANCE_OK, 1, 1000);
    cr_assert(not(view(0).ejected), "19 results are too few");
    report(0, BALANCE_FAILED, 1, 1000);
    cr_assert(view(0).ejected);
    balance_free(b);
}

Test(balance_health, error_rate_forgets_what_is_older_than_its_window)
{
    struct balance_options o = balance_options_default();
    o.failures_in_a_row = 0;
    open_with(&o, 4);
    report(0, BALANCE_FAILED, 19, 0);
    report(0, BALANCE_FAILED, 1, 2 * BALANCE_ERROR_WINDOW_DEFAULT_MS);
    cr_assert(not(view(0).ejected));
    report(0, BALANCE_FAILED, 19, 2 * BALANCE_ERROR_WINDOW_DEFAULT_MS);
    cr_assert(view(0).ejected);
    balance_free(b);
}

Test(balance_health, a_rate_below_the_limit_does_not_eject)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    for (int k = 0; k < 100; k++) {
        report(0, BALANCE_OK, 2, (uint64_t)k);
        report(0, BALANCE_FAILED, 1, (uint64_t)k);
    }
    cr_assert(not(view(0).ejected));
    balance_free(b);
}

Test(balance_health, never_more_than_half_are_ejected)
{
    struct balance_options o = balance_options_default();
    for (size_t n = 1; n <= MAX; n++) {
        open_with(&o, n);
        for (size_t i = 0; i < n; i++)
            report(i, BALANCE_FAILED, 10, 0);
        cr_assert(eq(sz, balance_ejected(b), n / 2), "of %zu", n);
        balance_free(b);
    }
}

Test(balance_health, the_half_rule_holds_when_the_list_shrinks)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 6);
    report(0, BALANCE_FAILED, 5, 0);
    report(1, BALANCE_FAILED, 5, 100);
    report(2, BALANCE_FAILED, 5, 200);
    set_at(0, 3, 300);
    cr_assert(eq(sz, balance_ejected(b), 1));
    cr_assert(view(2).ejected, "those that would return first are let in");
    balance_free(b);
}

Test(balance_health, an_ejection_survives_an_update_and_ends_with_its_endpoint)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    report(0, BALANCE_FAILED, 5, 0);
    set_at(0, 5, 100);
    cr_assert(view(0).ejected);
    set_at(1, 4, 200);
    cr_assert(eq(sz, balance_ejected(b), 0));
    set_at(0, 5, 300);
    cr_assert(not(view(0).ejected));
    balance_free(b);
}

Test(balance_health, attempts_under_way_at_the_ejection_do_not_prolong_it)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 4);
    for (int k = 0; k < 20; k++)
        cr_assert(eq(int, balance_start(b, keys[0]), BALANCE_CHOSEN));
    for (uint64_t k = 0; k < 20; k++)
        balance_done(b, keys[0], BALANCE_FAILED, 1000, k);
    cr_assert(eq(u64, view(0).ejected_until_ms, 4 + BALANCE_EJECT_BASE_DEFAULT_MS));
    balance_free(b);
}

Test(balance_health, a_fast_failure_does_not_look_like_a_fast_endpoint)
{
    struct balance_options o = balance_options_default();
    o.failures_in_a_row = o.error_percent = 0;
    open_with(&o, 2);
    for (size_t i = 0; i < 2; i++) {
        cr_assert(eq(int, balance_start(b, keys[i]), BALANCE_CHOSEN));
        balance_done(b, keys[i], BALANCE_OK, 50000, 0);
    }
    for (int k = 0; k < 10; k++) {
        cr_assert(eq(int, balance_start(b, keys[0]), BALANCE_CHOSEN));
        balance_done(b, keys[0], BALANCE_FAILED, 10, 0);
    }
    cr_assert(eq(u64, view(0).latency_us, 50000));
    cr_assert(eq(int, hits(0, 300, 0), 0), "the failing one is passed over while the other is free");
    balance_free(b);
}

Test(balance_health, latency_rises_at_once_and_falls_slowly)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 1);
    report(0, BALANCE_OK, 10, 0); /* 1 ms each */
    cr_assert(eq(int, balance_start(b, keys[0]), BALANCE_CHOSEN));
    balance_done(b, keys[0], BALANCE_OK, 80000, 1);
    cr_assert(eq(u64, view(0).latency_us, 80000));
    report(0, BALANCE_OK, 1, 2);
    cr_assert(gt(u64, view(0).latency_us, 70000));
    for (uint64_t now = 3; now < 200000; now += 100)
        report(0, BALANCE_OK, 1, now);
    cr_assert(lt(u64, view(0).latency_us, 2000));
    balance_free(b);
}

/* While it is avoided nobody finds out that it is well. */
Test(balance_health, one_late_reply_is_forgotten_within_two_minutes)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 3);
    for (size_t i = 0; i < 3; i++)
        report(i, BALANCE_OK, 10, 0); /* 1 ms each */
    cr_assert(eq(int, balance_start(b, keys[0]), BALANCE_CHOSEN));
    balance_done(b, keys[0], BALANCE_OK, 100000, 1);
    cr_assert(zero(int, hits(0, 300, 1)));
    for (uint64_t now = 100; now < 120000; now += 100) {
        report(1, BALANCE_OK, 1, now);
        report(2, BALANCE_OK, 1, now);
    }
    int n = hits(0, 3000, 120000);
    cr_assert(n > 850 && n < 1150, "%d of 3000", n);
    balance_free(b);
}

Test(balance_health, slow_start_of_zero_is_at_once_and_may_be_set_while_running)
{
    struct balance_options o = balance_options_default();
    open_with(&o, 2);
    set_at(0, 3, 100);
    cr_assert(lt(u32, view(2).ramp_percent, 100));
    o.slow_start_ms = 0;
    balance_set_options(b, &o, 101);
    cr_assert(eq(u32, view(2).ramp_percent, 100));
    set_at(0, 4, 102);
    cr_assert(eq(u32, view(3).ramp_percent, 100));
    balance_free(b);
}

/* --- random operations against plain counting: what must hold whatever the policy decides ------------------------ */

struct model {
    bool listed[MAX];
    uint32_t in_flight[MAX];
    uint64_t total;
};

static void model_set(struct model *m, uint64_t now_ms)
{
    struct balance_endpoint list[MAX];
    size_t n = 0;
    for (size_t i = 0; i < MAX; i++) {
        m->listed[i] = rng_below(&rng, 3) > 0;
        if (m->listed[i])
            list[n++] = (struct balance_endpoint){.address = names[i],
                                                  .weight = 1 + (uint32_t)rng_below(&rng, 9),
                                                  .rank = (uint8_t)rng_below(&rng, 3)};
    }
    cr_assert(zero(int, balance_set_endpoints(b, list, n, now_ms, NULL)));
}

static void model_choose(struct model *m, const struct balance_options *o, uint64_t now_ms, uint64_t seed)
{
    uint64_t tried[3] = {keys[rng_below(&rng, MAX)], keys[rng_below(&rng, MAX)], rng_u64(&rng)}, key = 0;
    struct balance_request r = {.job_hash = rng_u64(&rng), .tried = tried, .tried_count = rng_below(&rng, 4)};
    size_t listed = 0, i;
    for (i = 0; i < MAX; i++)
        listed += m->listed[i];
    switch (balance_choose(b, &r, now_ms, &rng, &key)) {
    case BALANCE_CHOSEN:
        for (i = 0; i < MAX && keys[i] != key; i++)
            ;
        cr_assert(i < MAX && m->listed[i], "seed=%" PRIu64, seed);
        cr_assert(not(view(i).ejected), "seed=%" PRIu64, seed);
        m->in_flight[i]++;
        m->total++;
        cr_assert(le(u32, m->in_flight[i], o->endpoint_in_flight_max), "seed=%" PRIu64, seed);
        cr_assert(le(u64, m->total, o->in_flight_max), "seed=%" PRIu64, seed);
        break;
    case BALANCE_NONE_EMPTY:
        cr_assert(eq(sz, listed, 0), "seed=%" PRIu64, seed);
        break;
    case BALANCE_NONE_LIMIT:
        for (i = 0; i < MAX && m->total < o->in_flight_max; i++) {
            bool usable = m->listed[i] && !view(i).ejected && m->in_flight[i] < o->endpoint_in_flight_max;
            cr_assert(not(usable), "e%zu was free, seed=%" PRIu64, i, seed);
        }
        break;
    case BALANCE_CHOICE_COUNT_:
        cr_fatal("no such choice");
    }
}

static void model_done(struct model *m, uint64_t now_ms)
{
    size_t i = (size_t)rng_below(&rng, MAX);
    if (m->in_flight[i] == 0)
        return;
    bool bad = rng_below(&rng, 100) < 10 + (i % 3) * 40;
    enum balance_result result = rng_below(&rng, 10) == 0 ? BALANCE_IGNORED
                                 : bad                    ? BALANCE_FAILED
                                                          : BALANCE_OK;
    balance_done(b, keys[i], result, rng_below(&rng, 1000000), now_ms);
    m->in_flight[i]--;
    m->total--;
}

static void model_run(enum balance_policy policy, bool near)
{
    struct model m = {0};
    struct balance_options o = balance_options_default();
    uint64_t now = 0;
    o.policy = policy;
    o.near = near;
    o.endpoint_in_flight_max = 5;
    o.in_flight_max = 30;
    open_with(&o, 0);
    uint64_t seed = seed_rng(&rng, balance_policy_name(policy));
    for (int step = 0; step < 6000; step++) {
        uint64_t op = rng_below(&rng, 200);
        if (op < 2)
            model_set(&m, now);
        else if (op < 100)
            model_choose(&m, &o, now, seed);
        else
            model_done(&m, now);
        now += rng_below(&rng, 20) ? rng_below(&rng, 10) : rng_below(&rng, 20000);
        balance_validate(b);
        cr_assert(eq(u64, balance_in_flight(b), m.total), "seed=%" PRIu64, seed);
        for (size_t i = 0; i < MAX; i++)
            if (m.listed[i])
                cr_assert(eq(u32, view(i).in_flight, m.in_flight[i]), "seed=%" PRIu64, seed);
    }
    balance_free(b);
}

Test(balance_health, counts_limits_and_invariants_hold_under_random_operations)
{
    for (int p = 0; p < BALANCE_POLICY_COUNT_; p++) {
        model_run((enum balance_policy)p, false);
        model_run((enum balance_policy)p, true);
    }
}
