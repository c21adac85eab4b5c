/* When a failed attempt is followed by another: exponential back-off with jitter, Retry-After, and giving up. Pure;
 * any thread. Instants are epoch ms. */
#ifndef CARILLON_CORE_RETRY_H
#define CARILLON_CORE_RETRY_H

#include <stdint.h>

struct rng;

/* A callee's Retry-After counts up to an hour. */
#define RETRY_AFTER_MAX_MS ((uint64_t)3600 * 1000)

/* Defaults of the job field `retry` (no limit of attempts). */
#define RETRY_MIN_BACKOFF_DEFAULT_MS ((uint64_t)1000)
#define RETRY_MAX_BACKOFF_DEFAULT_MS ((uint64_t)5 * 60 * 1000)
#define RETRY_MAX_AGE_DEFAULT_MS     ((uint64_t)24 * 3600 * 1000)
#define RETRY_FACTOR_DEFAULT         2.0
#define RETRY_JITTER_DEFAULT         0.2

struct retry_rule {
    uint32_t max_attempts;   /* 0: no limit; 1: a single try */
    uint64_t min_backoff_ms; /* <= max_backoff_ms */
    uint64_t max_backoff_ms;
    double factor;       /* >= 1 */
    double jitter;       /* 0..1: each delay is stretched or shortened by up to this fraction */
    uint64_t max_age_ms; /* 0: no limit; no attempt starts later than this after the first moment it could */
};

enum retry_verdict {
    RETRY_AGAIN,
    RETRY_MAX_ATTEMPTS, /* max_attempts are done */
    RETRY_MAX_AGE,      /* the next attempt would start after first_ms + max_age_ms */
    RETRY_VERDICT_COUNT_
};

/* All defaults above. */
struct retry_rule retry_rule_default(void);

/* min(max_backoff, min_backoff * factor^(attempts_done - 1)), before jitter. ATTEMPTS_DONE >= 1. */
uint64_t retry_backoff_ms(const struct retry_rule *rule, uint32_t attempts_done);

/* What follows the failure, seen at NOW_MS, of attempt number ATTEMPTS_DONE (>= 1) of a fire that could be sent since
 * FIRST_MS. RETRY_AGAIN writes *RET_NEXT_MS: NOW_MS plus the back-off with jitter from RNG, at least 1 ms, or plus
 * RETRY_AFTER_MS (0: none; capped) if that is longer. Jitter comes after the cap of max_backoff, so that
 * delays at the cap spread as well. Numbers too large end at INT64_MAX.
 *
 * An attempt that would start past the age limit is not pulled forward to it: the fire ends now, with the true reason,
 * instead of holding its place for a try that the rule's spacing, or the callee, had forbidden. */
enum retry_verdict retry_decide(const struct retry_rule *rule, uint32_t attempts_done, int64_t first_ms,
                                int64_t now_ms, uint64_t retry_after_ms, struct rng *rng,
                                int64_t *ret_next_ms);

#endif
