#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

#include "agent/base/rng.h"
#include "agent/core/retry.h"
#include "tests/lib/seed.h"

static struct rng rng;

static struct retry_rule steady(void)
{
    return (struct retry_rule){.min_backoff_ms = 100, .max_backoff_ms = 5000, .factor = 2, .jitter = 0};
}

static int64_t next_or_fail(const struct retry_rule *rule, uint32_t attempts, int64_t now, uint64_t after)
{
    int64_t next = -1;
    cr_assert(eq(int, retry_decide(rule, attempts, 0, now, after, &rng, &next), RETRY_AGAIN));
    return next;
}

Test(retry, backoff_doubles_up_to_its_maximum)
{
    struct retry_rule rule = steady();
    const uint64_t expected[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    for (uint32_t n = 1; n <= 8; n++)
        cr_assert(eq(u64, retry_backoff_ms(&rule, n), expected[n - 1]), "attempt %u", n);
}

Test(retry, backoff_equals_the_formula_for_any_rule)
{
    struct rng r;
    uint64_t seed = seed_rng(&r, "retry");
    for (int i = 0; i < 5000; i++) {
        struct retry_rule rule = {.min_backoff_ms = rng_below(&r, 100000), .factor = 1 + 9 * rng_double(&r)};
        rule.max_backoff_ms = rule.min_backoff_ms + rng_below(&r, 10000000);
        uint32_t n = 1 + (uint32_t)rng_below(&r, 40);
        double want =
            fmin((double)rule.max_backoff_ms, (double)rule.min_backoff_ms * pow(rule.factor, n - 1));
        double got = (double)retry_backoff_ms(&rule, n);
        cr_assert(le(dbl, fabs(got - want), 1 + want * 1e-9), "seed=%" PRIu64 " %f for %f", seed, got, want);
    }
}

Test(retry, numbers_of_any_size_do_not_overflow)
{
    struct retry_rule rule = {
        .min_backoff_ms = 1, .max_backoff_ms = UINT64_MAX, .factor = 1e300, .jitter = 1};
    cr_assert(eq(u64, retry_backoff_ms(&rule, UINT32_MAX), UINT64_MAX));
    rng_init(&rng, 1);
    int64_t next = next_or_fail(&rule, UINT32_MAX, INT64_MAX - 1, UINT64_MAX);
    cr_assert(eq(i64, next, INT64_MAX));
    rule = (struct retry_rule){.min_backoff_ms = 0, .max_backoff_ms = 10, .factor = 1e300};
    cr_assert(eq(u64, retry_backoff_ms(&rule, UINT32_MAX), 0));
}

Test(retry, no_backoff_still_waits_a_millisecond)
{
    struct retry_rule rule = {.factor = 1};
    cr_assert(eq(i64, next_or_fail(&rule, 1, 50, 0), 51));
}

Test(retry, jitter_is_symmetric_and_within_its_fraction)
{
    struct retry_rule rule = steady();
    rule.min_backoff_ms = rule.max_backoff_ms = 10000;
    rule.jitter = 0.2;
    rng_init(&rng, 7);
    double sum = 0;
    int64_t low = INT64_MAX, high = 0;
    for (int i = 0; i < 20000; i++) {
        int64_t d = next_or_fail(&rule, 1, 0, 0);
        sum += (double)d;
        low = d < low ? d : low;
        high = d > high ? d : high;
    }
    cr_assert(ge(i64, low, 8000));
    cr_assert(lt(i64, low, 8050));
    cr_assert(le(i64, high, 12000));
    cr_assert(gt(i64, high, 11950));
    cr_assert(lt(dbl, fabs(sum / 20000 - 10000), 50));
}

Test(retry, retry_after_wins_only_when_it_is_longer)
{
    struct retry_rule rule = steady();
    cr_assert(eq(i64, next_or_fail(&rule, 1, 0, 7000), 7000));
    cr_assert(eq(i64, next_or_fail(&rule, 5, 0, 700), 1600));
}

Test(retry, retry_after_counts_up_to_an_hour)
{
    struct retry_rule rule = steady();
    cr_assert(eq(i64, next_or_fail(&rule, 1, 0, UINT64_C(86400000)), 3600000));
}

Test(retry, max_attempts_ends_it_whatever_the_age)
{
    struct retry_rule rule = steady();
    rule.max_attempts = 3;
    int64_t next = -1;
    cr_assert(eq(int, retry_decide(&rule, 2, 0, 0, 0, &rng, &next), RETRY_AGAIN));
    next = -1;
    cr_assert(eq(int, retry_decide(&rule, 3, 0, 0, 0, &rng, &next), RETRY_MAX_ATTEMPTS));
    cr_assert(eq(int, retry_decide(&rule, 4, 0, 0, 0, &rng, &next), RETRY_MAX_ATTEMPTS));
    cr_assert(eq(i64, next, -1));
}

Test(retry, zero_max_attempts_is_no_limit)
{
    struct retry_rule rule = steady();
    cr_assert(eq(i64, next_or_fail(&rule, 4000000000u, 10, 0), 5010));
}

Test(retry, an_attempt_exactly_at_max_age_is_made_and_one_later_not)
{
    struct retry_rule rule = steady();
    rule.max_age_ms = 1000;
    int64_t next = -1;
    cr_assert(eq(int, retry_decide(&rule, 1, 5000, 5900, 0, &rng, &next), RETRY_AGAIN));
    cr_assert(eq(i64, next, 6000));
    next = -1;
    cr_assert(eq(int, retry_decide(&rule, 1, 5000, 5901, 0, &rng, &next), RETRY_MAX_AGE));
    cr_assert(eq(i64, next, -1));
}

Test(retry, retry_after_beyond_max_age_ends_it)
{
    struct retry_rule rule = steady();
    rule.max_age_ms = 10000;
    int64_t next = -1;
    cr_assert(eq(int, retry_decide(&rule, 1, 0, 0, 20000, &rng, &next), RETRY_MAX_AGE));
}

Test(retry, any_rule_with_max_age_ends_in_time)
{
    struct rng r;
    uint64_t seed = seed_rng(&r, "retry age");
    for (int i = 0; i < 500; i++) {
        struct retry_rule rule = retry_rule_default();
        rule.jitter = rng_double(&r);
        rule.max_age_ms = 1 + rng_below(&r, 3600000);
        int64_t now = 0;
        uint32_t n = 1;
        while (retry_decide(&rule, n, 0, now, rng_below(&r, 5000), &r, &now) == RETRY_AGAIN)
            cr_assert(lt(u32, n++, 100000), "seed=%" PRIu64, seed);
        cr_assert(le(i64, now, (int64_t)rule.max_age_ms), "seed=%" PRIu64, seed);
    }
}
