#include "agent/core/balance_private.h"

#include <assert.h>
#include <math.h>

/* Time constant of the latency averages. */
#define LATENCY_TAU_MS 10000.0
/* Before anything is known every endpoint costs the same; what is as good as any. */
#define LATENCY_UNKNOWN_US 1000.0

/* Share of an old value that is left. Anything that fades slower than this in the long run keeps an endpoint out of use for a quarter
 * of an hour because of one late reply, for while it is avoided nothing new is learnt of it. */
static double left_of(uint64_t then_ms, uint64_t now_ms)
{
    double elapsed = now_ms > then_ms ? (double)(now_ms - then_ms) : 0.0;
    return exp(-elapsed / LATENCY_TAU_MS);
}

/* What is known of an endpoint fades towards the average of the service, so that one that was slow is tried again
 * after a while, by some and not by all at once. */
double balance_expected_us(const struct balance *b, const struct endpoint *ep, uint64_t now_ms)
{
    double average = b->latency_us > 0 ? b->latency_us : LATENCY_UNKNOWN_US;
    if (ep->latency_us <= 0)
        return average;
    return average + (ep->latency_us - average) * left_of(ep->latency_at_ms, now_ms);
}

static void learn_latency(struct balance *b, struct endpoint *ep, double sample_us, uint64_t now_ms)
{
    if (sample_us < 1.0)
        sample_us = 1.0;
    double expected = balance_expected_us(b, ep, now_ms);
    double left = left_of(ep->latency_at_ms, now_ms + 1); /* + 1 ms: several results in one ms count each */
    ep->latency_us =
        ep->latency_us <= 0 || sample_us > expected ? sample_us : expected * left + sample_us * (1.0 - left);
    ep->latency_at_ms = now_ms;
    left = left_of(b->latency_at_ms, now_ms + 1);
    b->latency_us = b->latency_us <= 0 ? sample_us : b->latency_us * left + sample_us * (1.0 - left);
    b->latency_at_ms = now_ms;
}

static void count_result(const struct balance *b, struct endpoint *ep, bool failed, uint64_t now_ms)
{
    uint64_t window = now_ms / (b->options.error_window_ms / 2);
    if (window != ep->window) {
        ep->before = window == ep->window + 1 ? ep->recent : (struct results){0};
        ep->recent = (struct results){0};
        ep->window = window;
    }
    ep->recent.total++;
    ep->recent.failed += failed;
}

static bool should_eject(const struct balance_options *o, const struct endpoint *ep)
{
    if (o->failures_in_a_row && ep->failures >= o->failures_in_a_row)
        return true;
    uint64_t total = (uint64_t)ep->recent.total + ep->before.total;
    uint64_t failed = (uint64_t)ep->recent.failed + ep->before.failed;
    return o->error_percent && total > 0 && total >= o->error_min_results &&
           failed * 100 >= total * o->error_percent;
}

/* n of "base * n": one more than last time, less one for each base that passed since it returned. */
static uint32_t next_ejections(const struct balance_options *o, const struct endpoint *ep, uint64_t now_ms)
{
    if (ep->ejections == 0 || now_ms < ep->ejected_until_ms)
        return ep->ejections + 1;
    uint64_t forgiven = o->eject_base_ms ? (now_ms - ep->ejected_until_ms) / o->eject_base_ms : ep->ejections;
    return forgiven >= ep->ejections ? 1 : ep->ejections - (uint32_t)forgiven + 1;
}

static void eject(struct balance *b, struct endpoint *ep, uint64_t now_ms)
{
    if ((b->ejected + 1) * 2 > b->present)
        return;
    const struct balance_options *o = &b->options;
    ep->ejections = next_ejections(o, ep, now_ms);
    uint64_t duration_ms = (uint64_t)o->eject_base_ms * ep->ejections;
    if (duration_ms > o->eject_max_ms)
        duration_ms = o->eject_max_ms;
    ep->ejected_until_ms = now_ms + duration_ms;
    ep->ejected = true;
    b->ejected++;
    if (ep->ejected_until_ms < b->return_next_ms)
        b->return_next_ms = ep->ejected_until_ms;
    balance_sync(b, ep);
}

/* Attempts that were under way when their endpoint was ejected prove nothing new: they neither prolong nor end it. */
void balance_learn(struct balance *b, struct endpoint *ep, enum balance_result result, uint64_t latency_us,
                   uint64_t now_ms)
{
    assert((unsigned)result < BALANCE_RESULT_COUNT_);
    if (result == BALANCE_IGNORED || !ep->present)
        return;
    bool failed = result == BALANCE_FAILED;
    if (!failed || (double)latency_us > balance_expected_us(b, ep, now_ms))
        learn_latency(b, ep, (double)latency_us, now_ms);
    if (ep->ejected)
        return;
    count_result(b, ep, failed, now_ms);
    if (!failed)
        ep->failures = 0;
    else if (ep->failures < UINT32_MAX)
        ep->failures++;
    if (failed && should_eject(&b->options, ep))
        eject(b, ep, now_ms);
}

static void come_back(struct balance *b, struct endpoint *ep, uint64_t now_ms)
{
    ep->ejected = false;
    ep->recent = ep->before = (struct results){0};
    b->ejected--;
    balance_ramp_begin(b, ep, now_ms);
    balance_sync(b, ep);
}

static uint64_t ramp_step_ms(const struct balance *b)
{
    uint64_t step = b->options.slow_start_ms / BALANCE_RAMP_FULL;
    return step > 0 ? step : 1;
}

void balance_ramp_begin(struct balance *b, struct endpoint *ep, uint64_t now_ms)
{
    if (b->options.slow_start_ms == 0)
        return;
    ep->ramp = 1;
    ep->ramp_from_ms = now_ms;
    if (now_ms + ramp_step_ms(b) < b->ramp_next_ms)
        b->ramp_next_ms = now_ms + ramp_step_ms(b);
}

static void raise_ramps(struct balance *b, uint64_t now_ms)
{
    bool more = false;
    for (size_t i = 0; i < b->endpoints_count; i++) {
        struct endpoint *ep = &b->endpoints[i];
        if (ep->ramp == BALANCE_RAMP_FULL)
            continue;
        uint64_t elapsed = now_ms > ep->ramp_from_ms ? now_ms - ep->ramp_from_ms : 0;
        ep->ramp = elapsed >= b->options.slow_start_ms
                       ? BALANCE_RAMP_FULL
                       : 1 + (uint32_t)(elapsed * (BALANCE_RAMP_FULL - 1) / b->options.slow_start_ms);
        more = more || ep->ramp < BALANCE_RAMP_FULL;
        balance_sync(b, ep);
    }
    b->ramp_next_ms = more ? now_ms + ramp_step_ms(b) : BALANCE_NEVER_MS;
}

static void end_ejections(struct balance *b, uint64_t now_ms)
{
    b->return_next_ms = BALANCE_NEVER_MS;
    for (size_t i = 0; i < b->endpoints_count; i++) {
        struct endpoint *ep = &b->endpoints[i];
        if (ep->ejected && ep->ejected_until_ms <= now_ms)
            come_back(b, ep, now_ms);
        else if (ep->ejected && ep->ejected_until_ms < b->return_next_ms)
            b->return_next_ms = ep->ejected_until_ms;
    }
}

void balance_refresh(struct balance *b, uint64_t now_ms)
{
    if (now_ms >= b->return_next_ms)
        end_ejections(b, now_ms);
    if (now_ms >= b->ramp_next_ms)
        raise_ramps(b, now_ms);
}

void balance_hold_half_rule(struct balance *b, uint64_t now_ms)
{
    while (b->ejected * 2 > b->present) {
        struct endpoint *next = NULL;
        for (size_t i = 0; i < b->endpoints_count; i++) {
            struct endpoint *ep = &b->endpoints[i];
            if (ep->ejected && (!next || ep->ejected_until_ms < next->ejected_until_ms))
                next = ep;
        }
        assert(next); /* or b->ejected is wrong */
        next->ejected_until_ms = now_ms;
        come_back(b, next, now_ms);
    }
}
