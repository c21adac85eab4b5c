#include "agent/core/rate.h"

#include <assert.h>

/* Timers come late by a few ms: what was earned meanwhile is not lost, but no more than this is saved up. */
#define BURST_S 0.05

double rate_here_per_s(const struct rate *r)
{
    return r->per_s * r->share;
}

static double burst(const struct rate *r)
{
    return 1.0 + rate_here_per_s(r) * BURST_S;
}

static void earn(struct rate *r, uint64_t now_ms)
{
    if (now_ms <= r->at_ms)
        return;
    r->tokens += (double)(now_ms - r->at_ms) * rate_here_per_s(r) / 1000.0;
    r->at_ms = now_ms;
    if (r->tokens > burst(r))
        r->tokens = burst(r);
}

void rate_set(struct rate *r, double per_s, double share, uint64_t now_ms)
{
    assert(per_s >= 0 && share > 0 && share <= 1);
    if (r->per_s > 0)
        earn(r, now_ms);
    else
        r->tokens = 1.0;
    r->at_ms = now_ms;
    r->per_s = per_s;
    r->share = share;
    if (r->tokens > burst(r))
        r->tokens = burst(r);
}

uint64_t rate_wait_ms(struct rate *r, uint64_t now_ms)
{
    if (r->per_s <= 0)
        return 0;
    earn(r, now_ms);
    if (r->tokens >= 1.0)
        return 0;
    double wait_ms = (1.0 - r->tokens) * 1000.0 / rate_here_per_s(r);
    return (uint64_t)wait_ms + 1;
}

void rate_take(struct rate *r)
{
    if (r->per_s <= 0)
        return;
    assert(r->tokens >= 1.0);
    r->tokens -= 1.0;
}
