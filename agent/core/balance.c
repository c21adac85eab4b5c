#include "agent/core/balance_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"

#define KEY_SEED UINT64_C(0x6361726164647231)

struct balance_options balance_options_default(void)
{
    return (struct balance_options){
        .policy = BALANCE_P2C,
        .in_flight_max = BALANCE_IN_FLIGHT_MAX_DEFAULT,
        .endpoint_in_flight_max = BALANCE_ENDPOINT_IN_FLIGHT_MAX_DEFAULT,
        .failures_in_a_row = BALANCE_FAILURES_IN_A_ROW_DEFAULT,
        .error_percent = BALANCE_ERROR_PERCENT_DEFAULT,
        .error_window_ms = BALANCE_ERROR_WINDOW_DEFAULT_MS,
        .error_min_results = BALANCE_ERROR_MIN_RESULTS_DEFAULT,
        .eject_base_ms = BALANCE_EJECT_BASE_DEFAULT_MS,
        .eject_max_ms = BALANCE_EJECT_MAX_DEFAULT_MS,
        .slow_start_ms = BALANCE_SLOW_START_DEFAULT_MS,
    };
}

static void check_options(const struct balance_options *o)
{
    assert((unsigned)o->policy < BALANCE_POLICY_COUNT_);
    assert(o->error_window_ms >= 2 && o->error_percent <= 100);
}

struct balance *balance_new(const struct balance_options *options)
{
    check_options(options);
    struct balance *b = mem_new(struct balance);
    b->options = *options;
    b->ramp_next_ms = b->return_next_ms = BALANCE_NEVER_MS;
    return b;
}

void balance_free(struct balance *b)
{
    if (!b)
        return;
    mem_free(b->endpoints);
    mem_free(b->text);
    mem_free(b->trees);
    mem_free(b);
}

uint64_t balance_key(const char *address)
{
    return XXH3_64bits_withSeed(address, strlen(address), KEY_SEED);
}

/* --- which endpoints may be chosen ------------------------------------------------------------------------------- */

struct tier *balance_tier(struct balance *b, const struct endpoint *ep)
{
    return &b->tiers[b->options.near ? ep->rank : 0];
}

static bool at_limit(const struct balance *b, const struct endpoint *ep)
{
    return b->options.endpoint_in_flight_max && ep->in_flight >= b->options.endpoint_in_flight_max;
}

static void set_open(struct balance *b, struct endpoint *ep, uint64_t open)
{
    if (open == ep->open)
        return;
    struct tier *t = balance_tier(b, ep);
    fenwick_update(&t->open, (size_t)(ep - b->endpoints), ep->open, open);
    if (ep->open == 0)
        t->open_count++;
    else if (open == 0)
        t->open_count--;
    ep->open = open;
}

void balance_sync(struct balance *b, struct endpoint *ep)
{
    bool closed = !ep->present || ep->ejected || at_limit(b, ep);
    set_open(b, ep, closed ? 0 : (uint64_t)ep->weight * ep->ramp);
}

void balance_mask(struct balance *b, struct endpoint *ep)
{
    set_open(b, ep, 0);
}

/* All trees anew, after the list or the options changed. */
static void rebuild_tiers(struct balance *b)
{
    size_t n = b->endpoints_count;
    if (b->trees)
        memset(b->trees, 0, BALANCE_RANKS * n * sizeof(*b->trees));
    for (unsigned r = 0; r < BALANCE_RANKS; r++) {
        b->tiers[r].open_count = 0;
        fenwick_init(&b->tiers[r].open, b->trees ? b->trees + r * n : NULL, n);
    }
    for (size_t i = 0; i < n; i++) {
        b->endpoints[i].open = 0;
        balance_sync(b, &b->endpoints[i]);
    }
}

void balance_set_options(struct balance *b, const struct balance_options *options, uint64_t now_ms)
{
    check_options(options);
    b->options = *options;
    rebuild_tiers(b);
    b->ramp_next_ms = now_ms; /* a shorter slow start may be over, a longer one go on */
    balance_refresh(b, now_ms);
}

/* --- the list ---------------------------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    uint64_t x = ((const struct endpoint *)a)->key, y = ((const struct endpoint *)b)->key;
    return x < y ? -1 : x > y;
}

static struct endpoint *find(const struct balance *b, uint64_t key)
{
    if (b->endpoints_count == 0)
        return NULL;
    struct endpoint wanted = {.key = key};
    return bsearch(&wanted, b->endpoints, b->endpoints_count, sizeof(wanted), compare_keys);
}

/* A list under construction; nothing of the balancer changes until it is complete. */
struct draft {
    struct endpoint *endpoints;
    size_t count;
    char *text;
    size_t text_bytes;
    uint64_t *trees;
};

static void draft_fini(struct draft *d)
{
    mem_free(d->endpoints);
    mem_free(d->text);
    mem_free(d->trees);
}

static struct endpoint *draft_add(struct draft *d, const char *address)
{
    struct endpoint *ep = &d->endpoints[d->count++];
    size_t size = strlen(address) + 1;
    memcpy(d->text + d->text_bytes, address, size);
    ep->address_at = d->text_bytes;
    ep->key = balance_key(address);
    d->text_bytes += size;
    return ep;
}

static int check_list(const struct balance_endpoint *list, size_t count, size_t *ret_text_bytes,
                      struct err *e)
{
    if (count > BALANCE_ENDPOINTS_MAX)
        return err_set(e, ERR_TOO_BIG, "%zu endpoints (at most %u)", count, BALANCE_ENDPOINTS_MAX);
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        size_t len = strnlen(list[i].address, BALANCE_ADDRESS_MAX + 1);
        if (len == 0 || len > BALANCE_ADDRESS_MAX)
            return err_set(e, ERR_INVALID, "endpoint %zu: address of %zu bytes or more (1 to %u allowed)", i,
                           len, BALANCE_ADDRESS_MAX);
        bytes += len + 1;
    }
    *ret_text_bytes = bytes;
    return 0;
}

/* Room for the new endpoints and for all old ones with attempts in flight. */
static int draft_init(struct draft *d, const struct balance *b, size_t count, size_t text_bytes,
                      struct err *e)
{
    for (size_t i = 0; i < b->endpoints_count; i++)
        if (b->endpoints[i].in_flight) {
            count++;
            text_bytes += strlen(b->text + b->endpoints[i].address_at) + 1;
        }
    d->endpoints = mem_try_array(count, sizeof(*d->endpoints), e);
    d->text = mem_try_array(text_bytes, 1, e);
    d->trees = mem_try_array(BALANCE_RANKS * count, sizeof(*d->trees), e);
    if (d->endpoints && d->text && d->trees)
        return 0;
    draft_fini(d);
    return -ERR_NOMEM;
}

static uint32_t clamp_weight(uint32_t weight)
{
    if (weight == 0)
        return 1;
    return weight < BALANCE_WEIGHT_MAX ? weight : BALANCE_WEIGHT_MAX;
}

static void draft_fill(struct draft *d, const struct balance_endpoint *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct endpoint *ep = draft_add(d, list[i].address);
        ep->weight = clamp_weight(list[i].weight);
        ep->rank = list[i].rank < BALANCE_RANKS ? list[i].rank : BALANCE_RANKS - 1;
        ep->ramp = BALANCE_RAMP_FULL;
        ep->present = true;
    }
    qsort(d->endpoints, d->count, sizeof(*d->endpoints), compare_keys);
    size_t kept = 0;
    for (size_t i = 0; i < d->count; i++) {
        struct endpoint *ep = &d->endpoints[i], *last = kept ? &d->endpoints[kept - 1] : NULL;
        if (last && last->key == ep->key) {
            last->weight = last->weight > ep->weight ? last->weight : ep->weight;
            last->rank = last->rank < ep->rank ? last->rank : ep->rank;
        } else {
            d->endpoints[kept++] = *ep;
        }
    }
    d->count = kept;
}

/* What the list says is new, all else is as it was. */
static void carry_over(struct endpoint *to, const struct endpoint *from)
{
    struct endpoint ep = *from;
    ep.address_at = to->address_at;
    ep.weight = to->weight;
    ep.rank = to->rank;
    ep.present = true;
    ep.carried = from->present;
    *to = ep;
}

/* Returns whether an endpoint that was listed is so still. */
static bool draft_merge_old(struct draft *d, const struct balance *b)
{
    bool stays = false;
    size_t listed = d->count;
    struct endpoint *all = d->endpoints;
    for (size_t i = 0; i < b->endpoints_count; i++) {
        const struct endpoint *old = &b->endpoints[i];
        struct endpoint *same = listed ? bsearch(old, all, listed, sizeof(*all), compare_keys) : NULL;
        if (same) {
            stays = stays || old->present;
            carry_over(same, old);
        } else if (old->in_flight) {
            struct endpoint *gone = draft_add(d, b->text + old->address_at);
            gone->in_flight = old->in_flight;
            gone->ramp = BALANCE_RAMP_FULL;
            gone->weight = old->weight;
            gone->rank = old->rank;
        }
    }
    qsort(d->endpoints, d->count, sizeof(*d->endpoints), compare_keys);
    return stays;
}

static void take_draft(struct balance *b, struct draft *d)
{
    mem_free(b->endpoints);
    mem_free(b->text);
    mem_free(b->trees);
    b->endpoints = d->endpoints;
    b->endpoints_count = d->count;
    b->text = d->text;
    b->trees = d->trees;
    b->present = b->ejected = 0;
    for (size_t i = 0; i < b->endpoints_count; i++) {
        b->present += b->endpoints[i].present;
        b->ejected += b->endpoints[i].ejected;
    }
    rebuild_tiers(b);
}

int balance_set_endpoints(struct balance *b, const struct balance_endpoint *list, size_t count,
                          uint64_t now_ms, struct err *e)
{
    struct draft d = {0};
    size_t text_bytes = 0;
    int rc = check_list(list, count, &text_bytes, e);
    if (rc == 0)
        rc = draft_init(&d, b, count, text_bytes, e);
    if (rc != 0)
        return rc;
    draft_fill(&d, list, count);
    bool stays = draft_merge_old(&d, b);
    take_draft(b, &d);
    for (size_t i = 0; i < b->endpoints_count; i++) {
        struct endpoint *ep = &b->endpoints[i];
        if (stays && ep->present && !ep->carried)
            balance_ramp_begin(b, ep, now_ms);
        ep->carried = false;
        balance_sync(b, ep);
    }
    balance_hold_half_rule(b, now_ms);
    return 0;
}

/* --- attempts ---------------------------------------------------------------------------------------------------- */

static void mask_tried(struct balance *b, const uint64_t *tried, size_t count, bool mask)
{
    for (size_t i = 0; i < count; i++) {
        struct endpoint *ep = find(b, tried[i]);
        if (ep && mask)
            balance_mask(b, ep);
        else if (ep)
            balance_sync(b, ep);
    }
}

static size_t pick_nearest(struct balance *b, uint64_t job_hash, uint64_t now_ms, struct rng *rng)
{
    for (unsigned tier = 0; tier < BALANCE_RANKS; tier++) {
        size_t i = balance_pick(b, tier, job_hash, now_ms, rng);
        if (i != BALANCE_NOT_FOUND)
            return i;
    }
    return BALANCE_NOT_FOUND;
}

static bool service_at_limit(const struct balance *b)
{
    return b->options.in_flight_max && b->in_flight >= b->options.in_flight_max;
}

static void count_in(struct balance *b, struct endpoint *ep)
{
    ep->in_flight++;
    b->in_flight++;
    balance_sync(b, ep);
}

enum balance_choice balance_choose(struct balance *b, const struct balance_request *request, uint64_t now_ms,
                                   struct rng *rng, uint64_t *ret_key)
{
    balance_refresh(b, now_ms);
    if (b->present == 0)
        return BALANCE_NONE_EMPTY;
    if (service_at_limit(b))
        return BALANCE_NONE_LIMIT;
    size_t skip = request->tried_count > BALANCE_TRIED_MAX ? request->tried_count - BALANCE_TRIED_MAX : 0;
    const uint64_t *tried = request->tried_count ? request->tried + skip : NULL;
    size_t tried_count = request->tried_count - skip;
    mask_tried(b, tried, tried_count, true);
    size_t i = pick_nearest(b, request->job_hash, now_ms, rng);
    mask_tried(b, tried, tried_count, false);
    if (i == BALANCE_NOT_FOUND && tried_count)
        i = pick_nearest(b, request->job_hash, now_ms, rng);
    if (i == BALANCE_NOT_FOUND)
        return BALANCE_NONE_LIMIT;
    count_in(b, &b->endpoints[i]);
    *ret_key = b->endpoints[i].key;
    return BALANCE_CHOSEN;
}

enum balance_choice balance_start(struct balance *b, uint64_t key)
{
    struct endpoint *ep = find(b, key);
    if (!ep || !ep->present)
        return BALANCE_NONE_EMPTY;
    if (service_at_limit(b) || at_limit(b, ep))
        return BALANCE_NONE_LIMIT;
    count_in(b, ep);
    return BALANCE_CHOSEN;
}

bool balance_join(struct balance *b, uint64_t key)
{
    struct endpoint *ep = find(b, key);
    if (!ep || !ep->present)
        return false;
    count_in(b, ep);
    return true;
}

void balance_done(struct balance *b, uint64_t key, enum balance_result result, uint64_t latency_us,
                  uint64_t now_ms)
{
    balance_refresh(b, now_ms);
    struct endpoint *ep = find(b, key);
    assert(ep && ep->in_flight > 0 && b->in_flight > 0);
    ep->in_flight--;
    b->in_flight--;
    balance_learn(b, ep, result, latency_us, now_ms);
    balance_sync(b, ep);
}

/* --- looking ----------------------------------------------------------------------------------------------------- */

uint64_t balance_in_flight(const struct balance *b)
{
    return b->in_flight;
}

size_t balance_count(const struct balance *b)
{
    return b->present;
}

size_t balance_ejected(const struct balance *b)
{
    return b->ejected;
}

static struct balance_view view_of(const struct balance *b, const struct endpoint *ep)
{
    return (struct balance_view){
        .key = ep->key,
        .address = b->text + ep->address_at,
        .weight = ep->weight,
        .rank = ep->rank,
        .in_flight = ep->in_flight,
        .latency_us = (uint64_t)(ep->latency_us + 0.5),
        .failures = ep->failures,
        .ejected = ep->ejected,
        .ejected_until_ms = ep->ejected ? ep->ejected_until_ms : 0,
        .ramp_percent = ep->ramp * 100 / BALANCE_RAMP_FULL,
    };
}

bool balance_next(const struct balance *b, size_t *at, struct balance_view *ret_view)
{
    while (*at < b->endpoints_count) {
        const struct endpoint *ep = &b->endpoints[(*at)++];
        if (ep->present) {
            *ret_view = view_of(b, ep);
            return true;
        }
    }
    return false;
}

bool balance_get(const struct balance *b, uint64_t key, struct balance_view *ret_view)
{
    const struct endpoint *ep = find(b, key);
    if (!ep || !ep->present)
        return false;
    *ret_view = view_of(b, ep);
    return true;
}

static const char *const policy_names[BALANCE_POLICY_COUNT_] = {
    [BALANCE_P2C] = "p2c",
    [BALANCE_ROUND_ROBIN] = "round_robin",
    [BALANCE_LEAST_REQUEST] = "least_request",
    [BALANCE_CONSISTENT_HASH] = "consistent_hash",
};

const char *balance_policy_name(enum balance_policy policy)
{
    return (unsigned)policy < BALANCE_POLICY_COUNT_ ? policy_names[policy] : "unknown";
}

int balance_policy_parse(const char *name)
{
    for (int i = 0; i < BALANCE_POLICY_COUNT_; i++)
        if (strcmp(policy_names[i], name) == 0)
            return i;
    return -1;
}

static void validate_endpoint(const struct balance *b, const struct endpoint *ep)
{
    bool closed = !ep->present || ep->ejected || at_limit(b, ep);
    assert(ep->open == (closed ? 0 : (uint64_t)ep->weight * ep->ramp));
    assert(ep->ramp >= 1 && ep->ramp <= BALANCE_RAMP_FULL);
    assert(ep->ramp == BALANCE_RAMP_FULL || b->ramp_next_ms != BALANCE_NEVER_MS);
    assert(!ep->ejected || (ep->present && b->return_next_ms <= ep->ejected_until_ms));
    assert(!ep->carried && ep->latency_us >= 0);
    assert(ep->key == balance_key(b->text + ep->address_at));
}

void balance_validate(const struct balance *b)
{
    size_t present = 0, ejected = 0, open[BALANCE_RANKS] = {0};
    uint64_t in_flight = 0, total[BALANCE_RANKS] = {0};
    for (size_t i = 0; i < b->endpoints_count; i++) {
        const struct endpoint *ep = &b->endpoints[i];
        validate_endpoint(b, ep);
        assert(i == 0 || b->endpoints[i - 1].key < ep->key);
        unsigned tier = b->options.near ? ep->rank : 0;
        present += ep->present;
        ejected += ep->ejected;
        in_flight += ep->in_flight;
        open[tier] += ep->open > 0;
        total[tier] += ep->open;
    }
    assert(present == b->present && ejected == b->ejected && in_flight == b->in_flight);
    assert(ejected * 2 <= present);
    for (unsigned r = 0; r < BALANCE_RANKS; r++)
        assert(open[r] == b->tiers[r].open_count && total[r] == b->tiers[r].open.total);
}
