/* The only reader of clocks. Waiting uses the boot clock (it goes on while the machine sleeps and never jumps), cron
 * uses the wall clock. Any thread; cannot fail. */
#ifndef CARILLON_BASE_CLOCK_H
#define CARILLON_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_boot_ms(void); /* CLOCK_BOOTTIME */
uint64_t clock_boot_us(void);
int64_t clock_wall_ms(void); /* CLOCK_REALTIME: ms since 1970-01-01T00:00:00Z */
int64_t clock_wall_us(void);
uint64_t clock_mono_ns(void); /* CLOCK_MONOTONIC, for measuring short spans */

/* Return after MS, or earlier with a signal. For commands: a loop has timers. */
void clock_wait_ms(unsigned ms);

#ifdef CARILLON_TEST
/* From now on the wall clock shows SHIFT_US more than it does, as if somebody had set it. */
void clock_test_shift_wall(int64_t shift_us);
#endif

#endif
