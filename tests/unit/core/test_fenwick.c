#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/core/fenwick.h"
#include "tests/lib/seed.h"

#define MAX 70

Test(fenwick, finds_the_same_element_as_a_sum_over_an_array)
{
    struct rng r;
    uint64_t seed = seed_rng(&r, "fenwick");
    for (size_t n = 1; n <= MAX; n++) {
        uint64_t tree[MAX] = {0}, weights[MAX] = {0}, before;
        struct fenwick f;
        fenwick_init(&f, tree, n);
        for (int step = 0; step < 300; step++) {
            size_t i = (size_t)rng_below(&r, n);
            uint64_t w = rng_below(&r, 3) ? rng_below(&r, 1u << 22) : 0;
            fenwick_update(&f, i, weights[i], w);
            weights[i] = w;
            if (f.total == 0)
                continue;
            uint64_t point = rng_below(&r, f.total), sum = 0;
            for (i = 0; sum + weights[i] <= point; i++)
                sum += weights[i];
            cr_assert(eq(sz, fenwick_find(&f, point, &before), i), "seed=%" PRIu64 " n=%zu", seed, n);
            cr_assert(eq(u64, before, sum), "seed=%" PRIu64 " n=%zu", seed, n);
        }
    }
}
