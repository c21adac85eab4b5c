#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <time.h>

#include "agent/base/clock.h"

Test(clock, never_goes_back)
{
    uint64_t boot = clock_boot_us(), mono = clock_mono_ns();
    for (int i = 0; i < 100000; i++) {
        uint64_t b = clock_boot_us(), m = clock_mono_ns();
        cr_assert(ge(u64, b, boot));
        cr_assert(ge(u64, m, mono));
        boot = b;
        mono = m;
    }
}

Test(clock, units_agree)
{
    uint64_t us = clock_boot_us(), ms = clock_boot_ms();
    cr_assert(ge(u64, ms, us / 1000));
    cr_assert(lt(u64, ms - us / 1000, 1000));
    int64_t wall_s = clock_wall_ms() / 1000 - (int64_t)time(NULL);
    cr_assert(wall_s >= -1 && wall_s <= 1);
}
