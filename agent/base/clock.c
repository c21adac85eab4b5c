#include "agent/base/clock.h"

#include <assert.h>
#include <time.h>

static struct timespec read_clock(clockid_t id)
{
    struct timespec t;
    int r = clock_gettime(id, &t);
    assert(r == 0); /* the ids are constants that Linux has known since 2.6.39 */
    (void)r;
    return t;
}

uint64_t clock_boot_ms(void)
{
    return clock_boot_us() / 1000;
}

uint64_t clock_boot_us(void)
{
    struct timespec t = read_clock(CLOCK_BOOTTIME);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    struct timespec t = read_clock(CLOCK_REALTIME);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t clock_wall_us(void)
{
    struct timespec t = read_clock(CLOCK_REALTIME);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

uint64_t clock_mono_ns(void)
{
    struct timespec t = read_clock(CLOCK_MONOTONIC);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}
