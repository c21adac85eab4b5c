#include "agent/core/ring_log.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/rng.h"

static struct ring_entry entry_of(uint64_t seq, const char *endpoint)
{
    struct ring_entry entry = {.seq = seq,
                               .due_ms = 1795000000000 + (int64_t)seq * 1000,
                               .late_ms = 1,
                               .duration_ms = 12,
                               .status = 200};
    (void)snprintf(entry.endpoint, sizeof(entry.endpoint), "%s", endpoint);
    return entry;
}

static void assert_same(const struct ring_entry *a, const struct ring_entry *b, const char *what)
{
    cr_assert(a->seq == b->seq && a->due_ms == b->due_ms && a->late_ms == b->late_ms &&
                  a->duration_ms == b->duration_ms && a->status == b->status && a->waited == b->waited &&
                  strcmp(a->endpoint, b->endpoint) == 0,
              "%s: seq %" PRIu64 "/%" PRIu64 " due %" PRId64 "/%" PRId64
              " late %u/%u took %u/%u status %d/%d at '%s'/'%s'",
              what, a->seq, b->seq, a->due_ms, b->due_ms, a->late_ms, b->late_ms, a->duration_ms,
              b->duration_ms, a->status, b->status, a->endpoint, b->endpoint);
}

static size_t read_all(const uint8_t *ring, size_t bytes, struct ring_entry *list)
{
    struct err e = {0};
    size_t n = 0;
    cr_assert_eq(ring_log_read(ring, bytes, list, &n, &e), 0, "%s", e.text);
    return n;
}

Test(ring_log, an_empty_ring_has_no_entries)
{
    struct ring_entry list[RING_LOG_KEEP_MAX];
    uint8_t ring[RECORD_RING_MAX] = {0};
    cr_assert_eq(read_all(ring, 0, list), 0);
}

Test(ring_log, every_kind_of_endpoint_comes_back)
{
    static const char *const endpoints[] = {"10.0.0.7:8080",       "[::1]:80", "[2001:db8::7]:65535",
                                            "billing.example:443", "",         "nonsense",
                                            "255.255.255.255:0"};
    struct ring_entry list[RING_LOG_KEEP_MAX];
    uint8_t ring[RECORD_RING_MAX] = {0};
    size_t bytes = 0, count = sizeof(endpoints) / sizeof(endpoints[0]);
    for (size_t i = 0; i < count; i++) {
        struct ring_entry entry = entry_of(i + 1, endpoints[i]);
        bytes = ring_log_add(ring, bytes, &entry, 16);
    }
    cr_assert_eq(read_all(ring, bytes, list), count);
    for (size_t i = 0; i < count; i++)
        cr_assert_str_eq(list[count - 1 - i].endpoint, endpoints[i]);
}

Test(ring_log, sixteen_fires_of_two_endpoints_stay_below_350_bytes)
{
    uint8_t ring[RECORD_RING_MAX] = {0};
    size_t bytes = 0;
    for (uint64_t i = 0; i < 40; i++) {
        struct ring_entry entry = entry_of(1000 + i, i % 2 ? "10.0.0.7:8080" : "10.0.0.8:8080");
        bytes = ring_log_add(ring, bytes, &entry, 16);
    }
    cr_assert_lt(bytes, 350, "%zu bytes", bytes);
}

Test(ring_log, keep_nothing_empties_the_ring)
{
    uint8_t ring[RECORD_RING_MAX] = {0};
    struct ring_entry entry = entry_of(1, "10.0.0.7:8080");
    size_t bytes = ring_log_add(ring, 0, &entry, 16);
    cr_assert_gt(bytes, 0);
    cr_assert_eq(ring_log_add(ring, bytes, &entry, 0), 0);
}

Test(ring_log, a_damaged_ring_is_begun_anew)
{
    struct ring_entry list[RING_LOG_KEEP_MAX], entry = entry_of(5, "10.0.0.7:8080");
    uint8_t ring[RECORD_RING_MAX] = {0};
    memset(ring, 0xff, sizeof(ring));
    size_t bytes = ring_log_add(ring, sizeof(ring), &entry, 16);
    cr_assert_eq(read_all(ring, bytes, list), 1);
    assert_same(&list[0], &entry, "kept");
}

static uint64_t test_seed(void)
{
    const char *text = getenv("TEST_SEED");
    uint64_t seed = 0;
    if (text)
        return strtoull(text, NULL, 10);
    cr_assert_eq(rng_seed_os(&seed, NULL), 0);
    return seed;
}

/* An IPv4, IPv6 or host name in canonical form, few of each so that neighbours are often alike. */
static void random_endpoint(struct rng *rng, char text[RING_LOG_ENDPOINT_MAX])
{
    unsigned n = (unsigned)rng_below(rng, 3);
    switch (rng_below(rng, 4)) {
    case 0:
        (void)snprintf(text, RING_LOG_ENDPOINT_MAX, "10.1.2.%u:80%u", n, n);
        break;
    case 1:
        (void)snprintf(text, RING_LOG_ENDPOINT_MAX, "[fe80::%u]:%u", n + 1, n);
        break;
    case 2:
        (void)snprintf(text, RING_LOG_ENDPOINT_MAX, "host-%u-with-a-rather-long-name.some.example:80%u", n,
                       n);
        break;
    default:
        (void)snprintf(text, RING_LOG_ENDPOINT_MAX, "%s", n ? "x" : "");
        break;
    }
}

static struct ring_entry random_entry(struct rng *rng)
{
    struct ring_entry entry = {.seq = rng_u64(rng) >> rng_below(rng, 64),
                               .due_ms = (int64_t)(rng_u64(rng) >> rng_below(rng, 64)),
                               .late_ms = (uint32_t)(rng_u64(rng) >> (32 + rng_below(rng, 32))),
                               .duration_ms = (uint32_t)(rng_u64(rng) >> (32 + rng_below(rng, 32))),
                               .status = rng_below(rng, 2) ? 200 : (int32_t)rng_u64(rng),
                               .waited = (enum fire_wait)rng_below(rng, FIRE_WAIT_COUNT_)};
    random_endpoint(rng, entry.endpoint);
    return entry;
}

/* The model: the newest entries in a plain array. What the ring holds must be its beginning, shorter than KEEP only when one
 * more would not have fitted. */
Test(ring_log, is_always_the_newest_entries_that_fit)
{
    uint64_t seed = test_seed();
    struct rng rng;
    rng_init(&rng, seed);
    struct ring_entry model[RING_LOG_KEEP_MAX], list[RING_LOG_KEEP_MAX];
    size_t have = 0, bytes = 0, before = 0;
    uint8_t ring[RECORD_RING_MAX] = {0};
    for (unsigned step = 0; step < 20000; step++) {
        unsigned keep = (unsigned)rng_below(&rng, 20) ? 16 : 1 + (unsigned)rng_below(&rng, 80);
        struct ring_entry entry = random_entry(&rng);
        memmove(model + 1, model, sizeof(model) - sizeof(model[0]));
        model[0] = entry;
        have = before < RING_LOG_KEEP_MAX ? before + 1 : RING_LOG_KEEP_MAX;
        bytes = ring_log_add(ring, bytes, &entry, keep);
        cr_assert_leq(bytes, RECORD_RING_MAX);
        size_t n = read_all(ring, bytes, list);
        size_t limit = keep < RING_LOG_KEEP_MAX ? keep : RING_LOG_KEEP_MAX;
        cr_assert(n >= 1 && n <= limit && n <= have, "seed %" PRIu64 " step %u: %zu of %zu", seed, step, n,
                  have);
        cr_assert(n == limit || n == have || bytes + 110 > RECORD_RING_MAX,
                  "seed %" PRIu64 " step %u: %zu entries, %zu bytes", seed, step, n, bytes);
        for (size_t i = 0; i < n; i++)
            assert_same(&list[i], &model[i], "entry");
        before = n;
    }
}

Test(ring_log, a_ring_with_a_damaged_endpoint_is_begun_anew)
{
    static const struct ring_entry entry = {
        .seq = 1, .due_ms = 1000, .status = 200, .endpoint = "10.0.0.1:80"};
    struct ring_entry list[RING_LOG_KEEP_MAX];
    uint8_t ring[RECORD_RING_MAX] = {0};
    size_t bytes = ring_log_add(ring, 0, &entry, 16), n = 0;
    uint8_t *kind = memchr(ring, 10, bytes); /* the first byte of the address */
    cr_assert(kind && kind[-1] == 1);
    kind[-1] = 2; /* of IPv6 */
    cr_assert_lt(ring_log_read(ring, bytes, list, &n, NULL), 0);
    bytes = ring_log_add(ring, bytes, &entry, 16);
    cr_assert_eq(read_all(ring, bytes, list), 1);
}

Test(ring_log, hostile_bytes_are_refused_or_read_without_harm)
{
    uint64_t seed = test_seed();
    struct rng rng;
    rng_init(&rng, seed);
    uint8_t good[RECORD_RING_MAX], ring[RECORD_RING_MAX];
    size_t bytes = 0;
    for (unsigned i = 0; i < 16; i++) {
        struct ring_entry entry = random_entry(&rng);
        bytes = ring_log_add(good, bytes, &entry, 16);
    }
    for (unsigned step = 0; step < 50000; step++) {
        struct ring_entry list[RING_LOG_KEEP_MAX];
        size_t n = 0, len = rng_below(&rng, 4) ? bytes : rng_below(&rng, sizeof(ring) + 1);
        memcpy(ring, good, sizeof(ring));
        for (uint64_t i = rng_below(&rng, 6); i > 0; i--)
            ring[rng_below(&rng, sizeof(ring))] = (uint8_t)rng_u64(&rng);
        if (ring_log_read(ring, len, list, &n, NULL) == 0)
            cr_assert_leq(n, RING_LOG_KEEP_MAX);
        struct ring_entry entry = random_entry(&rng);
        cr_assert_leq(ring_log_add(ring, len, &entry, 16), RECORD_RING_MAX);
    }
}
