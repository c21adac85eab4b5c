#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/base/rng.h"
#include "agent/core/rate.h"
#include "tests/lib/seed.h"

/* Takes whatever may go at NOW_MS; how many. */
static unsigned drain(struct rate *r, uint64_t now_ms)
{
    unsigned n = 0;
    while (rate_wait_ms(r, now_ms) == 0 && n < 100000) {
        rate_take(r);
        n++;
    }
    return n;
}

Test(rate, without_a_limit_all_go)
{
    struct rate r = {0};
    cr_assert(eq(uint, drain(&r, 0), 100000));
    rate_set(&r, 0, 0.5, 7);
    cr_assert(eq(uint, drain(&r, 7), 100000));
}

Test(rate, one_goes_at_once_and_the_next_after_its_time)
{
    struct rate r = {0};
    rate_set(&r, 2, 0.5, 1000);
    cr_assert(eq(uint, drain(&r, 1000), 1));
    uint64_t wait_ms = rate_wait_ms(&r, 1000);
    cr_assert(ge(u64, wait_ms, 1000));
    cr_assert(le(u64, wait_ms, 1001));
    cr_assert(zero(uint, drain(&r, 1999)));
    cr_assert(eq(uint, drain(&r, 1000 + wait_ms), 1));
}

Test(rate, what_is_saved_up_is_bounded)
{
    struct rate r = {0};
    rate_set(&r, 1000, 1, 0);
    cr_assert(eq(uint, drain(&r, 3600000), 51));
    cr_assert(zero(uint, drain(&r, 3600000)));
    cr_assert(zero(uint, drain(&r, 3500000)), "a time before the newest earns nothing");
}

Test(rate, a_late_timer_loses_nothing)
{
    struct rate r = {0};
    unsigned n = 0;
    rate_set(&r, 10, 1, 0);
    for (uint64_t now_ms = 0; now_ms <= 60000; now_ms += 37)
        n += drain(&r, now_ms);
    cr_assert(ge(uint, n, 598));
    cr_assert(le(uint, n, 602));
}

Test(rate, a_smaller_share_holds_from_then_on)
{
    struct rate r = {0};
    rate_set(&r, 1000, 1, 0);
    (void)drain(&r, 0);
    rate_set(&r, 1000, 0.1, 100); /* 51 were earned, 6 are kept */
    cr_assert(eq(uint, drain(&r, 100), 6));
    cr_assert(eq(uint, drain(&r, 120), 2));
    cr_assert(eq(dbl, rate_here_per_s(&r), 100.0));
}

/* Members that come, go and wake when they like: together they keep to the rate in every window. */
Test(rate, the_sum_over_members_holds_in_every_window)
{
    enum { MEMBERS = 5, STEPS = 4000, RATE = 200 };
    static unsigned went[STEPS];
    struct rng rng;
    (void)seed_rng(&rng, "rate/sum");
    struct rate members[MEMBERS] = {0};
    unsigned active = 3, changes = 0;
    for (unsigned i = 0; i < MEMBERS; i++)
        rate_set(&members[i], RATE, 1.0 / active, 0);
    for (unsigned step = 0; step < STEPS; step++) { /* of 5 ms */
        went[step] = 0;
        if (rng_below(&rng, 400) == 0) {
            active = 1 + (unsigned)rng_below(&rng, MEMBERS);
            changes++;
            for (unsigned i = 0; i < MEMBERS; i++)
                rate_set(&members[i], RATE, 1.0 / active, step * 5);
        }
        for (unsigned i = 0; i < active; i++)
            if (rng_below(&rng, 3))
                went[step] += drain(&members[i], step * 5);
    }
    for (unsigned from = 0; from < STEPS; from += 50) {
        unsigned sum = 0;
        for (unsigned to = from; to < STEPS; to++) {
            sum += went[to];
            double most = RATE * ((to - from + 1) * 0.005) + RATE / 20.0 + MEMBERS * (1 + changes);
            cr_assert(le(dbl, (double)sum, most), "from %u to %u ms", from * 5, to * 5);
        }
    }
    unsigned all = 0;
    for (unsigned step = 0; step < STEPS; step++)
        all += went[step];
    cr_assert(ge(uint, all, RATE * STEPS / 200 * 9 / 10), "%u went", all);
}
