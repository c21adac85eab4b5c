#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/base/log.h"
#include "agent/base/log_limit.h"

static bool admit(struct log_limit *l, const char *msg, uint64_t now_ms, uint32_t *ret_held)
{
    struct log_limit_slot evicted;
    return log_limit_admit(l, "m", msg, LOG_LEVEL_INFO, now_ms, 3, 1000, ret_held, &evicted);
}

Test(log_limit, a_burst_passes_and_the_rest_is_counted)
{
    static struct log_limit l;
    static const char msg[] = "x";
    uint32_t held = 9;
    for (int i = 0; i < 3; i++) {
        cr_assert(admit(&l, msg, 10, &held));
        cr_assert(eq(u32, held, 0));
    }
    for (int i = 0; i < 5; i++)
        cr_assert(not(admit(&l, msg, 500, &held)));
    cr_assert(admit(&l, msg, 1010, &held));
    cr_assert(eq(u32, held, 5));
    cr_assert(admit(&l, msg, 1011, &held));
    cr_assert(eq(u32, held, 0));
}

Test(log_limit, messages_do_not_share_a_limit)
{
    static struct log_limit l;
    static const char a[] = "a", b[] = "b";
    uint32_t held;
    for (int i = 0; i < 10; i++)
        (void)admit(&l, a, 0, &held);
    cr_assert(admit(&l, b, 0, &held));
    struct log_limit_slot evicted;
    cr_assert(log_limit_admit(&l, "other", a, LOG_LEVEL_INFO, 0, 3, 1000, &held, &evicted));
}

Test(log_limit, silence_hands_out_the_count)
{
    static struct log_limit l;
    static const char msg[] = "x";
    struct log_limit_slot s;
    uint32_t held;
    for (int i = 0; i < 10; i++)
        (void)admit(&l, msg, 0, &held);
    cr_assert(not(log_limit_expired(&l, 999, 1000, &s)));
    cr_assert(log_limit_expired(&l, 1000, 1000, &s));
    cr_assert(s.msg == msg && s.held == 7 && s.level == LOG_LEVEL_INFO);
    cr_assert(not(log_limit_expired(&l, 1000, 1000, &s)));
}

Test(log_limit, no_held_line_is_lost_uncounted)
{
    static struct log_limit l;
    static const char msgs[200];
    uint64_t passed = 0, held = 0, reported = 0;
    for (uint64_t now = 0; now < 40000; now++) {
        const char *msg = &msgs[now * now % 200];
        struct log_limit_slot evicted;
        uint32_t n = 0;
        bool pass = log_limit_admit(&l, NULL, msg, LOG_LEVEL_INFO, now, 2, 1000, &n, &evicted);
        passed += pass;
        held += !pass;
        reported += pass ? n : 0;
        reported += evicted.msg ? evicted.held : 0;
    }
    struct log_limit_slot s;
    while (log_limit_expired(&l, 1000000, 1000, &s))
        reported += s.held;
    cr_assert(gt(u64, held, 0));
    cr_assert(eq(u64, reported, held));
    cr_assert(eq(u64, passed + held, 40000));
}
