#include "agent/base/clock.h"

#include <assert.h>
#include <stdatomic.h>
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

#ifdef CARILLON_TEST
static _Atomic int64_t wall_shift_us;

void clock_test_shift_wall(int64_t shift_us)
{
    atomic_store(&wall_shift_us, shift_us);
}
#else
static const int64_t wall_shift_us = 0;
#endif

int64_t clock_wall_ms(void)
{
    return clock_wall_us() / 1000;
}

int64_t clock_wall_us(void)
{
    struct timespec t = read_clock(CLOCK_REALTIME);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 + wall_shift_us;
}

uint64_t clock_mono_ns(void)
{
    struct timespec t = read_clock(CLOCK_MONOTONIC);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void clock_wait_ms(unsigned ms)
{
    struct timespec span = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    (void)nanosleep(&span, NULL); /* a signal: earlier */
}
