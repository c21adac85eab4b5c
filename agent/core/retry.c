#include "agent/core/retry.h"

#include <assert.h>

#include "agent/base/rng.h"

struct retry_rule retry_rule_default(void)
{
    return (struct retry_rule){
        .min_backoff_ms = RETRY_MIN_BACKOFF_DEFAULT_MS,
        .max_backoff_ms = RETRY_MAX_BACKOFF_DEFAULT_MS,
        .factor = RETRY_FACTOR_DEFAULT,
        .jitter = RETRY_JITTER_DEFAULT,
        .max_age_ms = RETRY_MAX_AGE_DEFAULT_MS,
    };
}

/* By squaring; overflow ends in infinity, which the caller's comparison with the cap handles. */
static double power(double base, uint32_t exponent)
{
    double result = 1.0;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1)
            result *= base;
    return result;
}

static uint64_t to_ms(double x, uint64_t max)
{
    return x < (double)max ? (uint64_t)x : max;
}

uint64_t retry_backoff_ms(const struct retry_rule *rule, uint32_t attempts_done)
{
    assert(attempts_done >= 1);
    assert(rule->factor >= 1.0 && rule->min_backoff_ms <= rule->max_backoff_ms);
    if (rule->min_backoff_ms == 0) /* and not 0 * infinity */
        return 0;
    return to_ms((double)rule->min_backoff_ms * power(rule->factor, attempts_done - 1), rule->max_backoff_ms);
}

static uint64_t delay_ms(const struct retry_rule *rule, uint32_t attempts_done, uint64_t retry_after_ms,
                         struct rng *rng)
{
    assert(rule->jitter >= 0.0 && rule->jitter <= 1.0);
    double stretch = 1.0 + rule->jitter * (2.0 * rng_double(rng) - 1.0);
    uint64_t delay = to_ms((double)retry_backoff_ms(rule, attempts_done) * stretch + 0.5, INT64_MAX);
    if (retry_after_ms > RETRY_AFTER_MAX_MS)
        retry_after_ms = RETRY_AFTER_MAX_MS;
    if (delay < retry_after_ms)
        delay = retry_after_ms;
    return delay > 0 ? delay : 1;
}

static int64_t add_saturated(int64_t at_ms, uint64_t delay)
{
    int64_t sum;
    if (delay > INT64_MAX || __builtin_add_overflow(at_ms, (int64_t)delay, &sum))
        return INT64_MAX;
    return sum;
}

enum retry_verdict retry_decide(const struct retry_rule *rule, uint32_t attempts_done, int64_t first_ms,
                                int64_t now_ms, uint64_t retry_after_ms, struct rng *rng,
                                int64_t *ret_next_ms)
{
    if (rule->max_attempts && attempts_done >= rule->max_attempts)
        return RETRY_MAX_ATTEMPTS;
    int64_t next_ms = add_saturated(now_ms, delay_ms(rule, attempts_done, retry_after_ms, rng));
    if (rule->max_age_ms && next_ms > add_saturated(first_ms, rule->max_age_ms))
        return RETRY_MAX_AGE;
    *ret_next_ms = next_ms;
    return RETRY_AGAIN;
}
