#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/base/rng.h"

Test(rng, xoshiro_yields_the_reference_sequence)
{
    /* State 1, 2, 3, 4: the values that the authors' C file prints. */
    struct rng r = {.s_ = {1, 2, 3, 4}};
    const uint64_t expected[] = {11520, 0, 1509978240, UINT64_C(1215971899390074240)};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
        cr_assert(eq(u64, rng_u64(&r), expected[i]));
}

Test(rng, equal_seeds_replay)
{
    struct rng a, b, c;
    rng_init(&a, 42);
    rng_init(&b, 42);
    rng_init(&c, 43);
    bool differs = false;
    for (int i = 0; i < 100; i++) {
        uint64_t x = rng_u64(&a);
        cr_assert(eq(u64, x, rng_u64(&b)));
        differs |= x != rng_u64(&c);
    }
    cr_assert(differs);
}

Test(rng, below_is_even_over_its_range)
{
    struct rng r;
    rng_init(&r, 1);
    unsigned counts[7] = {0};
    for (int i = 0; i < 700000; i++)
        counts[rng_below(&r, 7)]++;
    for (int i = 0; i < 7; i++)
        cr_assert(counts[i] > 98500 && counts[i] < 101500, "%d: %u", i, counts[i]);
    cr_assert(zero(u64, rng_below(&r, 1)));
}

Test(rng, ranges_include_their_ends)
{
    struct rng r;
    rng_init(&r, 2);
    bool low = false, high = false;
    for (int i = 0; i < 1000; i++) {
        int64_t v = rng_range(&r, -2, 2);
        cr_assert(v >= -2 && v <= 2);
        low |= v == -2;
        high |= v == 2;
    }
    cr_assert(low && high);
    (void)rng_range(&r, INT64_MIN, INT64_MAX);
    cr_assert(eq(i64, rng_range(&r, INT64_MAX, INT64_MAX), INT64_MAX));
}

Test(rng, doubles_lie_in_the_unit_interval)
{
    struct rng r;
    rng_init(&r, 3);
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        double v = rng_double(&r);
        cr_assert(v >= 0 && v < 1);
        sum += v;
    }
    cr_assert(sum > 49500 && sum < 50500);
}

Test(rng, os_seed_fails_without_touching_its_output)
{
    uint64_t seed = 7, other = 7;
    fault_arm(0);
    cr_assert(eq(int, rng_seed_os(&seed, NULL), -ERR_IO));
    cr_assert(fault_fired());
    cr_assert(eq(u64, seed, 7));
    cr_assert(zero(int, rng_seed_os(&seed, NULL)));
    cr_assert(zero(int, rng_seed_os(&other, NULL)));
    cr_assert(ne(u64, seed, other));
}
