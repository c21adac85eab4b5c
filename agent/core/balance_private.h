/* What the files of balance share; nobody else includes it. balance.c: list, counting, choice · balance_pick.c:
 * policies · balance_health.c: latency, ejection, slow start. */
#ifndef CARILLON_CORE_BALANCE_PRIVATE_H
#define CARILLON_CORE_BALANCE_PRIVATE_H

#include "agent/core/balance.h"
#include "agent/core/fenwick.h"

#define BALANCE_RAMP_FULL 64u /* steps of slow start; effective weight = weight * ramp */
#define BALANCE_NOT_FOUND SIZE_MAX
#define BALANCE_NEVER_MS  UINT64_MAX

/* Results of one half of the error window. */
struct results {
    uint32_t total;
    uint32_t failed;
};

struct endpoint {
    uint64_t key;
    size_t address_at; /* in balance->text */
    uint32_t weight;
    uint8_t rank; /* as listed; its tier is 0 unless options.near */
    bool present; /* listed now; otherwise only its attempts in flight keep it */
    bool ejected;
    bool carried; /* while a new list is merged: was listed before */
    uint32_t in_flight;
    uint32_t ramp; /* 1..BALANCE_RAMP_FULL */
    uint64_t ramp_from_ms;
    uint64_t open;     /* its weight in the tree of its tier: 0 while it may not be chosen */
    int64_t credit;    /* round robin */
    double latency_us; /* peak EWMA; 0: unknown */
    uint64_t latency_at_ms;
    uint32_t failures; /* in a row; stays over an ejection, so that the first failure after it ejects again */
    uint64_t window;   /* number of the half window that `recent` counts */
    struct results recent;
    struct results before;
    uint32_t ejections;
    uint64_t ejected_until_ms;
};

struct tier {
    struct fenwick open;
    size_t open_count; /* endpoints with open > 0 */
};

struct balance {
    struct balance_options options;
    struct endpoint *endpoints; /* sorted by key */
    size_t endpoints_count;
    char *text; /* all addresses */
    uint64_t *trees;
    struct tier tiers[BALANCE_RANKS];
    size_t present;
    size_t ejected;
    uint64_t in_flight;
    uint64_t ramp_next_ms;   /* when ramps must be looked at, or BALANCE_NEVER_MS */
    uint64_t return_next_ms; /* first end of an ejection, or BALANCE_NEVER_MS */
    double latency_us;       /* of all endpoints, plain EWMA; 0: unknown */
    uint64_t latency_at_ms;
};

/* --- balance.c --- */
struct tier *balance_tier(struct balance *b, const struct endpoint *ep);
/* Bring the tree in line with what EP is now. */
void balance_sync(struct balance *b, struct endpoint *ep);
/* Take EP out of its tree until the next balance_sync. */
void balance_mask(struct balance *b, struct endpoint *ep);

/* --- balance_pick.c --- */
/* Index of the endpoint that the policy takes among the open ones of TIER; BALANCE_NOT_FOUND when none is open. */
size_t balance_pick(struct balance *b, unsigned tier, uint64_t job_hash, uint64_t now_ms, struct rng *rng);

/* --- balance_health.c --- */
/* Latency that EP may be expected to have, us, > 0. */
double balance_expected_us(const struct balance *b, const struct endpoint *ep, uint64_t now_ms);
/* Learn from an attempt that ended; may eject EP. */
void balance_learn(struct balance *b, struct endpoint *ep, enum balance_result result, uint64_t latency_us,
                   uint64_t now_ms);
/* End ejections and raise ramps whose time has come. Constant time while there is nothing to do. */
void balance_refresh(struct balance *b, uint64_t now_ms);
/* EP starts slowly from now on. */
void balance_ramp_begin(struct balance *b, struct endpoint *ep, uint64_t now_ms);
/* At most half of the present ones may be ejected: let those return that would have been next. */
void balance_hold_half_rule(struct balance *b, uint64_t now_ms);

#endif
