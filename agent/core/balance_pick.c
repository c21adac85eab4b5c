#include "agent/core/balance_private.h"

#include "agent/base/rng.h"
#include "agent/core/rendezvous.h"

/* The second draw of p2c must be this much cheaper: with less, two idle endpoints of 1.80 and 1.81 ms would get all
 * and nothing. */
#define P2C_CLEARLY_CHEAPER 0.8
/* Failures in a row beyond this make an endpoint no dearer. */
#define P2C_FAILURES_MAX 8u

static double p2c_cost(const struct balance *b, const struct tier *tier, const struct endpoint *ep,
                       uint64_t now_ms)
{
    double mean = (double)tier->open.total / (double)tier->open_count;
    double relative = (double)ep->open / mean;
    uint32_t failures = ep->failures < P2C_FAILURES_MAX ? ep->failures : P2C_FAILURES_MAX;
    return (ep->in_flight / relative + 1.0) * balance_expected_us(b, ep, now_ms) * (1.0 + failures);
}

static size_t pick_p2c(const struct balance *b, const struct tier *tier, uint64_t now_ms, struct rng *rng)
{
    const struct fenwick *f = &tier->open;
    uint64_t before, unused;
    size_t first = fenwick_find(f, rng_below(rng, f->total), &before);
    uint64_t others = f->total - b->endpoints[first].open;
    if (others == 0)
        return first;
    uint64_t point = rng_below(rng, others); /* in the total with `first` cut out */
    if (point >= before)
        point += b->endpoints[first].open;
    size_t second = fenwick_find(f, point, &unused);
    double limit = p2c_cost(b, tier, &b->endpoints[first], now_ms) * P2C_CLEARLY_CHEAPER;
    return p2c_cost(b, tier, &b->endpoints[second], now_ms) < limit ? second : first;
}

static bool open_in(struct balance *b, const struct tier *tier, const struct endpoint *ep)
{
    return ep->open > 0 && balance_tier(b, ep) == tier;
}

static size_t pick_round_robin(struct balance *b, const struct tier *tier)
{
    size_t best = BALANCE_NOT_FOUND;
    for (size_t i = 0; i < b->endpoints_count; i++) {
        struct endpoint *ep = &b->endpoints[i];
        if (!open_in(b, tier, ep))
            continue;
        ep->credit += (int64_t)ep->open;
        if (best == BALANCE_NOT_FOUND || ep->credit > b->endpoints[best].credit)
            best = i;
    }
    b->endpoints[best].credit -= (int64_t)tier->open.total;
    return best;
}

/* Among equals each is taken with the probability of its weight, by keeping one over a growing sum. */
static size_t pick_least_request(struct balance *b, const struct tier *tier, struct rng *rng)
{
    size_t best = BALANCE_NOT_FOUND;
    uint64_t equals = 0;
    for (size_t i = 0; i < b->endpoints_count; i++) {
        const struct endpoint *ep = &b->endpoints[i];
        if (!open_in(b, tier, ep))
            continue;
        bool first = best == BALANCE_NOT_FOUND;
        const struct endpoint *other = first ? ep : &b->endpoints[best];
        uint64_t mine = first ? 0 : ep->in_flight * other->open;
        uint64_t theirs = first ? 1 : other->in_flight * ep->open;
        if (mine > theirs)
            continue;
        equals = mine < theirs ? ep->open : equals + ep->open;
        if (mine < theirs || rng_below(rng, equals) < ep->open)
            best = i;
    }
    return best;
}

/* The ramp plays no part: a job moves to its endpoint once, not bit by bit. */
static size_t pick_consistent_hash(struct balance *b, const struct tier *tier, uint64_t job_hash)
{
    size_t best = BALANCE_NOT_FOUND;
    uint64_t best_distance = 0;
    for (size_t i = 0; i < b->endpoints_count; i++) {
        const struct endpoint *ep = &b->endpoints[i];
        if (!open_in(b, tier, ep))
            continue;
        uint64_t distance = rendezvous_distance(job_hash, ep->key);
        if (best == BALANCE_NOT_FOUND ||
            rendezvous_closer(distance, ep->weight, best_distance, b->endpoints[best].weight)) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

size_t balance_pick(struct balance *b, unsigned tier, uint64_t job_hash, uint64_t now_ms, struct rng *rng)
{
    const struct tier *t = &b->tiers[tier];
    if (t->open_count == 0)
        return BALANCE_NOT_FOUND;
    switch (b->options.policy) {
    case BALANCE_P2C:
        return pick_p2c(b, t, now_ms, rng);
    case BALANCE_ROUND_ROBIN:
        return pick_round_robin(b, t);
    case BALANCE_LEAST_REQUEST:
        return pick_least_request(b, t, rng);
    case BALANCE_CONSISTENT_HASH:
        return pick_consistent_hash(b, t, job_hash);
    case BALANCE_POLICY_COUNT_:
        break;
    }
    return BALANCE_NOT_FOUND;
}
