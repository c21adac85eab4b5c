#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/balance.h"
#include "tests/lib/seed.h"

#define MAX 64

static struct rng rng;

/* Endpoints "e0:80" … with the given weights, rank 0. */
struct fixture {
    struct balance *b;
    struct balance_endpoint list[MAX];
    char names[MAX][16];
    uint64_t keys[MAX];
    size_t count;
};

static void names_fill(struct fixture *f)
{
    for (size_t i = 0; i < MAX; i++) {
        snprintf(f->names[i], sizeof(f->names[i]), "e%zu:80", i);
        f->list[i].address = f->names[i];
        f->keys[i] = balance_key(f->names[i]);
    }
}

static void set(struct fixture *f, size_t count, uint64_t now_ms)
{
    struct err e = {0};
    f->count = count;
    cr_assert(zero(int, balance_set_endpoints(f->b, f->list, count, now_ms, &e)), "%s", e.text);
    balance_validate(f->b);
}

static struct fixture *open_with(const struct balance_options *o, size_t count, const uint32_t *weights)
{
    static struct fixture f;
    rng_init(&rng, 42);
    names_fill(&f);
    f.b = balance_new(o);
    for (size_t i = 0; i < MAX; i++)
        f.list[i].weight = weights && i < count ? weights[i] : 1;
    set(&f, count, 0);
    return &f;
}

static struct balance_options policy(enum balance_policy p)
{
    struct balance_options o = balance_options_default();
    o.policy = p;
    return o;
}

static size_t index_of(const struct fixture *f, uint64_t key)
{
    for (size_t i = 0; i < MAX; i++)
        if (f->keys[i] == key)
            return i;
    return MAX;
}

static size_t choose_tried(struct fixture *f, uint64_t now_ms, const uint64_t *tried, size_t n)
{
    struct balance_request r = {.job_hash = rng_u64(&rng), .tried = tried, .tried_count = n};
    uint64_t key = 0;
    cr_assert(eq(int, balance_choose(f->b, &r, now_ms, &rng, &key), BALANCE_CHOSEN));
    return index_of(f, key);
}

static size_t choose(struct fixture *f, uint64_t now_ms)
{
    return choose_tried(f, now_ms, NULL, 0);
}

static void done(struct fixture *f, size_t i, enum balance_result r, uint64_t latency_us, uint64_t now_ms)
{
    balance_done(f->b, f->keys[i], r, latency_us, now_ms);
}

static enum balance_choice try_choose(struct fixture *f, uint64_t now_ms)
{
    struct balance_request r = {0};
    uint64_t key = 0;
    return balance_choose(f->b, &r, now_ms, &rng, &key);
}

static struct balance_view view(struct fixture *f, size_t i)
{
    struct balance_view v = {0};
    cr_assert(balance_get(f->b, f->keys[i], &v), "e%zu is not listed", i);
    return v;
}

/* Share of each endpoint over attempts that end at once. */
static void idle_shares(struct fixture *f, int rounds, uint64_t now_ms, double *shares)
{
    for (size_t i = 0; i < f->count; i++)
        shares[i] = 0;
    for (int k = 0; k < rounds; k++) {
        size_t i = choose(f, now_ms + (uint64_t)k / 10);
        shares[i] += 1.0 / rounds;
        done(f, i, BALANCE_OK, 1000 + rng_below(&rng, 100), now_ms + (uint64_t)k / 10);
    }
}

/* --- shares ------------------------------------------------------------------------------------------------------ */

static void check_idle_shares(enum balance_policy p)
{
    const uint32_t weights[] = {1, 2, 3, 10};
    struct balance_options o = policy(p);
    struct fixture *f = open_with(&o, 4, weights);
    double shares[4];
    idle_shares(f, 40000, 0, shares);
    for (int i = 0; i < 4; i++)
        cr_assert(lt(dbl, fabs(shares[i] - weights[i] / 16.0), 0.015), "weight %u got %f", weights[i],
                  shares[i]);
    balance_free(f->b);
}

Test(balance, p2c_follows_weights_when_idle)
{
    check_idle_shares(BALANCE_P2C);
}

Test(balance, round_robin_follows_weights)
{
    check_idle_shares(BALANCE_ROUND_ROBIN);
}

Test(balance, least_request_follows_weights_when_idle)
{
    check_idle_shares(BALANCE_LEAST_REQUEST);
}

Test(balance, consistent_hash_follows_weights_over_many_jobs)
{
    check_idle_shares(BALANCE_CONSISTENT_HASH);
}

Test(balance, round_robin_is_smooth)
{
    const uint32_t weights[] = {5, 1, 1};
    struct balance_options o = policy(BALANCE_ROUND_ROBIN);
    struct fixture *f = open_with(&o, 3, weights);
    int in_a_row = 0, longest = 0;
    for (int k = 0; k < 700; k++) {
        size_t i = choose(f, 0);
        in_a_row = i == 0 ? in_a_row + 1 : 0;
        longest = in_a_row > longest ? in_a_row : longest;
        done(f, i, BALANCE_OK, 1000, 0);
    }
    cr_assert(le(int, longest, 4)); /* 5:1:1 is a a b a c a a, and around */
    balance_free(f->b);
}

/* One server loop in virtual time: PER_MS attempts arrive a ms, endpoint i answers after latency_ms[i]. */
static void serve(struct fixture *f, const uint64_t *latency_ms, unsigned per_ms, uint64_t from_ms,
                  uint64_t to_ms, double *shares, uint32_t *peak)
{
    static uint32_t ends[MAX][1024];
    double total = 0;
    for (size_t i = 0; i < f->count; i++)
        shares[i] = 0;
    for (uint64_t now = from_ms; now < to_ms; now++) {
        for (size_t i = 0; i < f->count; i++)
            for (; ends[i][now % 1024]; ends[i][now % 1024]--)
                done(f, i, BALANCE_OK, latency_ms[i] * 1000, now);
        for (unsigned k = 0; k < per_ms; k++) {
            size_t i = choose(f, now);
            ends[i][(now + latency_ms[i]) % 1024]++;
            shares[i]++;
            total++;
        }
        for (size_t i = 0; i < f->count; i++)
            peak[i] = view(f, i).in_flight > peak[i] ? view(f, i).in_flight : peak[i];
    }
    for (size_t i = 0; i < f->count; i++)
        shares[i] /= total;
}

Test(balance, p2c_under_load_keeps_in_flight_in_proportion_to_weights)
{
    const uint32_t weights[] = {1, 1, 2, 4};
    const uint64_t latency_ms[] = {50, 50, 50, 50};
    struct balance_options o = policy(BALANCE_P2C);
    o.in_flight_max = o.endpoint_in_flight_max = 0;
    struct fixture *f = open_with(&o, 4, weights);
    double shares[4];
    uint32_t peak[4] = {0};
    serve(f, latency_ms, 4, 0, 5000, shares, peak);
    for (int i = 0; i < 4; i++) {
        cr_assert(lt(dbl, fabs(shares[i] - weights[i] / 8.0), 0.02), "weight %u got %f", weights[i],
                  shares[i]);
        cr_assert(lt(dbl, peak[i], 200 * weights[i] / 8.0 * 1.6), "weight %u peak %u", weights[i], peak[i]);
    }
    balance_free(f->b);
}

Test(balance, p2c_gives_a_slow_endpoint_less_and_never_a_herd)
{
    const uint64_t latency_ms[] = {10, 10, 10, 200};
    struct balance_options o = policy(BALANCE_P2C);
    o.in_flight_max = o.endpoint_in_flight_max = 0;
    struct fixture *f = open_with(&o, 4, NULL);
    double shares[4];
    uint32_t peak[4] = {0};
    serve(f, latency_ms, 4, 0, 10000, shares, peak);
    cr_assert(lt(dbl, shares[3], 0.08), "%f", shares[3]);
    cr_assert(gt(dbl, shares[3], 0.0), "%f", shares[3]);
    cr_assert(lt(u32, peak[3],
                 250)); /* a quarter of all would be 200 in flight; before it is known, one latency's worth */
    for (int i = 0; i < 3; i++)
        cr_assert(lt(dbl, fabs(shares[i] - (1 - shares[3]) / 3), 0.03), "%f", shares[i]);
    balance_free(f->b);
}

Test(balance, p2c_compares_two_different_endpoints)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 2, NULL);
    for (size_t busy = 0; busy < 2; busy++) {
        for (int k = 0; k < 10; k++)
            cr_assert(eq(int, balance_start(f->b, f->keys[busy]), BALANCE_CHOSEN));
        for (int k = 0; k < 100; k++) {
            size_t i = choose(f, 0);
            cr_assert(eq(sz, i, 1 - busy));
            done(f, i, BALANCE_IGNORED, 0, 0);
        }
        for (int k = 0; k < 10; k++)
            done(f, busy, BALANCE_IGNORED, 0, 0);
    }
    balance_free(f->b);
}

Test(balance, a_new_endpoint_rises_slowly_to_its_share)
{
    struct balance_options o = policy(BALANCE_P2C);
    o.in_flight_max = o.endpoint_in_flight_max = 0;
    struct fixture *f = open_with(&o, 3, NULL);
    const uint64_t latency_ms[] = {10, 10, 10, 10};
    double shares[4];
    uint32_t peak[4] = {0};
    serve(f, latency_ms, 4, 0, 1000, shares, peak);
    set(f, 4, 1000);
    cr_assert(lt(u32, view(f, 3).ramp_percent, 5));
    serve(f, latency_ms, 4, 1000, 2000, shares, peak);
    cr_assert(lt(dbl, shares[3], 0.05), "%f in the first second of ten", shares[3]);
    serve(f, latency_ms, 4, 2000, 11100, shares, peak);
    balance_validate(f->b);
    serve(f, latency_ms, 4, 11100, 14000, shares, peak);
    cr_assert(eq(u32, view(f, 3).ramp_percent, 100));
    cr_assert(lt(dbl, fabs(shares[3] - 0.25), 0.03), "%f", shares[3]);
    balance_free(f->b);
}

Test(balance, the_first_list_and_a_wholly_new_one_start_at_once)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 2, NULL);
    cr_assert(eq(u32, view(f, 0).ramp_percent, 100));
    cr_assert(zero(int, balance_set_endpoints(f->b, f->list + 5, 2, 10, NULL)));
    cr_assert(eq(u32, view(f, 5).ramp_percent, 100));
    balance_free(f->b);
}

/* --- limits ------------------------------------------------------------------------------------------------------ */

Test(balance, an_empty_list_and_a_limit_are_told_apart)
{
    struct balance_options o = policy(BALANCE_P2C);
    o.endpoint_in_flight_max = 2;
    struct fixture *f = open_with(&o, 0, NULL);
    cr_assert(eq(int, try_choose(f, 0), BALANCE_NONE_EMPTY));
    set(f, 2, 0);
    for (int k = 0; k < 4; k++)
        choose(f, 0);
    cr_assert(eq(int, try_choose(f, 0), BALANCE_NONE_LIMIT));
    done(f, 1, BALANCE_OK, 1000, 0);
    cr_assert(eq(sz, choose(f, 0), 1));
    balance_free(f->b);
}

Test(balance, the_limit_of_the_service_holds_over_endpoints)
{
    struct balance_options o = policy(BALANCE_ROUND_ROBIN);
    o.in_flight_max = 3;
    struct fixture *f = open_with(&o, 5, NULL);
    size_t last = 0;
    for (int k = 0; k < 3; k++)
        last = choose(f, 0);
    cr_assert(eq(int, try_choose(f, 0), BALANCE_NONE_LIMIT));
    cr_assert(eq(int, balance_start(f->b, f->keys[4]), BALANCE_NONE_LIMIT));
    done(f, last, BALANCE_IGNORED, 0, 0);
    cr_assert(eq(u64, balance_in_flight(f->b), 2));
    cr_assert(eq(int, balance_start(f->b, f->keys[4]), BALANCE_CHOSEN));
    balance_free(f->b);
}

Test(balance, start_refuses_what_is_not_listed)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 1, NULL);
    cr_assert(eq(int, balance_start(f->b, f->keys[3]), BALANCE_NONE_EMPTY));
    cr_assert(not(balance_join(f->b, f->keys[3])));
    balance_free(f->b);
}

Test(balance, join_counts_beyond_every_limit)
{
    struct balance_options o = policy(BALANCE_P2C);
    o.endpoint_in_flight_max = 1;
    struct fixture *f = open_with(&o, 1, NULL);
    cr_assert(balance_join(f->b, f->keys[0]));
    cr_assert(balance_join(f->b, f->keys[0]));
    cr_assert(eq(int, try_choose(f, 0), BALANCE_NONE_LIMIT));
    done(f, 0, BALANCE_OK, 1000, 0);
    cr_assert(eq(int, try_choose(f, 0), BALANCE_NONE_LIMIT));
    done(f, 0, BALANCE_OK, 1000, 0);
    cr_assert(eq(sz, choose(f, 0), 0));
    balance_free(f->b);
}

/* --- tried, near ------------------------------------------------------------------------------------------------- */

Test(balance, a_retry_avoids_tried_endpoints_while_there_are_others)
{
    for (int p = 0; p < BALANCE_POLICY_COUNT_; p++) {
        struct balance_options o = policy((enum balance_policy)p);
        struct fixture *f = open_with(&o, 4, NULL);
        for (int k = 0; k < 200; k++) {
            size_t i = choose_tried(f, 0, f->keys, 3);
            cr_assert(eq(sz, i, 3), "%s", balance_policy_name((enum balance_policy)p));
            done(f, i, BALANCE_OK, 1000, 0);
            balance_validate(f->b);
        }
        done(f, choose_tried(f, 0, f->keys, 4), BALANCE_OK, 1000, 0);
        balance_validate(f->b);
        balance_free(f->b);
    }
}

Test(balance, only_the_last_tried_ones_count_and_unknown_or_repeated_keys_do_no_harm)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 2, NULL);
    uint64_t tried[BALANCE_TRIED_MAX + 1];
    for (size_t i = 0; i <= BALANCE_TRIED_MAX; i++)
        tried[i] = i % 2 ? f->keys[0] : 12345;
    tried[0] = f->keys[1];
    for (int k = 0; k < 50; k++) {
        size_t i = choose_tried(f, 0, tried, BALANCE_TRIED_MAX + 1);
        cr_assert(eq(sz, i, 1));
        done(f, i, BALANCE_OK, 1000, 0);
    }
    balance_validate(f->b);
    balance_free(f->b);
}

static struct fixture *open_near(enum balance_policy p)
{
    struct balance_options o = policy(p);
    o.near = true;
    o.endpoint_in_flight_max = 2;
    struct fixture *f = open_with(&o, 0, NULL);
    f->list[0].rank = 2;
    f->list[1].rank = 1;
    f->list[2].rank = 0;
    f->list[3].rank = 200; /* counts as the farthest */
    set(f, 4, 0);
    return f;
}

Test(balance, near_endpoints_come_first_and_spill_over_at_their_limit)
{
    for (int p = 0; p < BALANCE_POLICY_COUNT_; p++) {
        struct fixture *f = open_near((enum balance_policy)p);
        const size_t expected[] = {2, 2, 1, 1};
        for (int k = 0; k < 4; k++)
            cr_assert(eq(sz, choose(f, 0), expected[k]), "%s", balance_policy_name((enum balance_policy)p));
        for (int k = 0; k < 4; k++) {
            size_t i = choose(f, 0);
            cr_assert(i == 0 || i == 3, "e%zu by %s", i, balance_policy_name((enum balance_policy)p));
        }
        cr_assert(eq(int, try_choose(f, 0), BALANCE_NONE_LIMIT));
        balance_validate(f->b);
        memset(f->list, 0, sizeof(f->list));
        balance_free(f->b);
    }
}

Test(balance, an_untried_far_endpoint_comes_before_a_tried_near_one)
{
    struct fixture *f = open_near(BALANCE_P2C);
    cr_assert(eq(sz, choose_tried(f, 0, &f->keys[2], 1), 1));
    balance_free(f->b);
}

Test(balance, near_can_be_switched_off_while_running)
{
    struct fixture *f = open_near(BALANCE_ROUND_ROBIN);
    struct balance_options o = policy(BALANCE_ROUND_ROBIN);
    choose(f, 0);
    balance_set_options(f->b, &o, 0);
    balance_validate(f->b);
    double shares[4];
    idle_shares(f, 4000, 0, shares);
    for (int i = 0; i < 4; i++)
        cr_assert(lt(dbl, fabs(shares[i] - 0.25), 0.01));
    balance_free(f->b);
}

/* --- consistent hash --------------------------------------------------------------------------------------------- */

static size_t place(struct fixture *f, uint64_t job, uint64_t now_ms)
{
    struct balance_request r = {.job_hash = job};
    uint64_t key = 0;
    cr_assert(eq(int, balance_choose(f->b, &r, now_ms, &rng, &key), BALANCE_CHOSEN));
    balance_done(f->b, key, BALANCE_IGNORED, 0, now_ms);
    return index_of(f, key);
}

Test(balance, consistent_hash_moves_only_the_jobs_of_the_endpoint_that_goes)
{
    const uint32_t weights[] = {1, 2, 1, 3, 1, 1, 1, 5};
    struct balance_options o = policy(BALANCE_CONSISTENT_HASH);
    struct fixture *f = open_with(&o, 8, weights);
    static size_t before[2000];
    uint64_t seed = seed_rng(&rng, "consistent hash"), jobs[2000];
    for (int j = 0; j < 2000; j++) {
        jobs[j] = rng_u64(&rng);
        before[j] = place(f, jobs[j], 0);
        cr_assert(eq(sz, place(f, jobs[j], 5), before[j]));
    }
    set(f, 7, 10);
    for (int j = 0; j < 2000; j++)
        if (before[j] != 7)
            cr_assert(eq(sz, place(f, jobs[j], 10), before[j]), "seed=%" PRIu64, seed);
    set(f, 8, 20);
    for (int j = 0; j < 2000; j++)
        cr_assert(eq(sz, place(f, jobs[j], 20), before[j]), "seed=%" PRIu64, seed);
    balance_free(f->b);
}

/* --- the list ---------------------------------------------------------------------------------------------------- */

Test(balance, what_is_known_of_an_endpoint_survives_an_update)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 3, NULL);
    cr_assert(eq(int, balance_start(f->b, f->keys[1]), BALANCE_CHOSEN));
    cr_assert(eq(int, balance_start(f->b, f->keys[1]), BALANCE_CHOSEN));
    done(f, 1, BALANCE_OK, 7000, 0);
    f->list[1].weight = 9;
    set(f, 3, 5);
    struct balance_view v = view(f, 1);
    cr_assert(eq(u64, v.latency_us, 7000));
    cr_assert(eq(u32, v.in_flight, 1));
    cr_assert(eq(u32, v.weight, 9));
    cr_assert(eq(str, (char *)v.address, "e1:80"));
    balance_free(f->b);
}

Test(balance, attempts_at_an_endpoint_that_left_still_count_and_end)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 2, NULL);
    cr_assert(eq(int, balance_start(f->b, f->keys[1]), BALANCE_CHOSEN));
    set(f, 1, 0);
    set(f, 1, 0);
    cr_assert(eq(sz, balance_count(f->b), 1));
    cr_assert(eq(u64, balance_in_flight(f->b), 1));
    struct balance_view v;
    cr_assert(not(balance_get(f->b, f->keys[1], &v)));
    for (int k = 0; k < 20; k++)
        cr_assert(eq(sz, place(f, (uint64_t)k, 0), 0));
    set(f, 2, 0);
    cr_assert(eq(u32, view(f, 1).in_flight, 1));
    done(f, 1, BALANCE_OK, 1000, 0);
    cr_assert(eq(u64, balance_in_flight(f->b), 0));
    balance_validate(f->b);
    balance_free(f->b);
}

Test(balance, an_endpoint_that_left_and_returns_starts_slowly_beside_others_and_at_once_alone)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 2, NULL);
    cr_assert(eq(int, balance_start(f->b, f->keys[1]), BALANCE_CHOSEN));
    set(f, 1, 0);
    set(f, 2, 0);
    cr_assert(lt(u32, view(f, 1).ramp_percent, 100));
    set(f, 0, 0);
    cr_assert(zero(int, balance_set_endpoints(f->b, f->list + 1, 1, 0, NULL)));
    cr_assert(eq(u32, view(f, 1).ramp_percent, 100));
    cr_assert(eq(u32, view(f, 1).in_flight, 1));
    balance_free(f->b);
}

Test(balance, an_address_listed_twice_is_one_endpoint)
{
    struct balance_options o = policy(BALANCE_P2C);
    o.near = true;
    struct fixture *f = open_with(&o, 1, NULL);
    const struct balance_endpoint twice[] = {{"e0:80", 2, 1}, {"e0:80", 5, 0}, {"e0:80", 1, 2}};
    cr_assert(zero(int, balance_set_endpoints(f->b, twice, 3, 0, NULL)));
    cr_assert(eq(sz, balance_count(f->b), 1));
    cr_assert(eq(u32, view(f, 0).weight, 5));
    cr_assert(eq(u32, view(f, 0).rank, 0));
    balance_validate(f->b);
    balance_free(f->b);
}

Test(balance, weights_outside_the_range_count_as_the_nearest)
{
    struct balance_options o = policy(BALANCE_P2C);
    const uint32_t weights[] = {0, UINT32_MAX};
    struct fixture *f = open_with(&o, 2, weights);
    cr_assert(eq(u32, view(f, 0).weight, 1));
    cr_assert(eq(u32, view(f, 1).weight, BALANCE_WEIGHT_MAX));
    balance_free(f->b);
}

Test(balance, a_bad_list_changes_nothing)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 2, NULL);
    static char long_address[BALANCE_ADDRESS_MAX + 2];
    static struct balance_endpoint many[BALANCE_ENDPOINTS_MAX + 1];
    memset(long_address, 'x', sizeof(long_address) - 1);
    struct balance_endpoint bad[] = {{"e7:80", 1, 0}, {"", 1, 0}};
    struct err e = {0};
    cr_assert(eq(int, balance_set_endpoints(f->b, bad, 2, 0, &e), -ERR_INVALID));
    bad[1].address = long_address;
    cr_assert(eq(int, balance_set_endpoints(f->b, bad, 2, 0, &e), -ERR_INVALID));
    cr_assert(eq(int, balance_set_endpoints(f->b, many, BALANCE_ENDPOINTS_MAX + 1, 0, &e), -ERR_TOO_BIG));
    cr_assert(eq(sz, balance_count(f->b), 2));
    view(f, 0);
    view(f, 1);
    balance_validate(f->b);
    balance_free(f->b);
}

Test(balance, survives_every_failed_allocation)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 2, NULL);
    cr_assert(eq(int, balance_start(f->b, f->keys[0]), BALANCE_CHOSEN));
    unsigned k;
    for (k = 0;; k++) {
        struct err e = {0};
        fault_arm(k);
        int rc = balance_set_endpoints(f->b, f->list + 1, 5, 10, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u", k);
        cr_assert(eq(sz, balance_count(f->b), 2), "k=%u", k);
        balance_validate(f->b);
    }
    cr_assert(gt(uint, k, 0));
    cr_assert(eq(sz, balance_count(f->b), 5));
    balance_free(f->b);
}

Test(balance, iteration_shows_each_listed_endpoint_once)
{
    struct balance_options o = policy(BALANCE_P2C);
    struct fixture *f = open_with(&o, 20, NULL);
    cr_assert(eq(int, balance_start(f->b, f->keys[3]), BALANCE_CHOSEN));
    set(f, 3, 0);
    struct balance_view v;
    int seen[MAX] = {0};
    for (size_t at = 0; balance_next(f->b, &at, &v);)
        seen[index_of(f, v.key)]++;
    for (int i = 0; i < MAX; i++)
        cr_assert(eq(int, seen[i], i < 3), "e%d", i);
    balance_free(f->b);
}

Test(balance, policies_have_the_names_of_the_configuration)
{
    for (int p = 0; p < BALANCE_POLICY_COUNT_; p++)
        cr_assert(eq(int, balance_policy_parse(balance_policy_name((enum balance_policy)p)), p));
    cr_assert(eq(int, balance_policy_parse("p2c"), BALANCE_P2C));
    cr_assert(eq(int, balance_policy_parse("P2C"), -1));
}
