/* The corrected wall clock: CLOCK_BOOTTIME + offset, so that a stepped wall clock neither fires early nor late. The offset
 * follows the wall clock while both move together; a step, or a difference to the store's clock over the limit, closes the
 * guard: nothing starts until the store's time, which comes with each beat, has confirmed the new one.
 * Source: design "Time". Loop thread only, but for clock_guard_now_ms(). */
#ifndef CARILLON_AGENT_CLOCK_GUARD_H
#define CARILLON_AGENT_CLOCK_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct err;
struct loop;

#define CLOCK_GUARD_STEP_MS 100 /* a jump of the wall clock against BOOTTIME over this is a step */
#define CLOCK_GUARD_OFF_MS  250 /* a difference to the store's clock over this stops firing */

struct clock_guard;

/* SURE(arg, sure) runs on the loop whenever that changes (never before return). STORED false: there is no store clock to compare
 * with (clients): then a step is believed at once. */
int clock_guard_new(struct loop *loop, bool stored, void (*sure)(void *arg, bool sure), void *arg,
                    struct clock_guard **ret, struct err *e);
void clock_guard_free(struct clock_guard *g);

/* Any thread. Never goes back by itself; only a confirmed step of the wall clock moves it back. */
int64_t clock_guard_now_ms(const struct clock_guard *g);
/* What to add to CLOCK_BOOTTIME in us. Any thread. */
int64_t clock_guard_offset_us(const struct clock_guard *g);

/* The store showed STORE_MS at some moment between the boot times SENT_MS and DONE_MS. It confirms, or says that the clock is off, where
 * that is so whenever it was; else it decides nothing. */
void clock_guard_compare(struct clock_guard *g, int64_t store_ms, int64_t sent_ms, int64_t done_ms);

bool clock_guard_sure(const struct clock_guard *g);
/* Since when (boot ms) it is (un)sure, and the last measured difference: own clock - store's. */
int64_t clock_guard_since_ms(const struct clock_guard *g);
int64_t clock_guard_difference_ms(const struct clock_guard *g);

#endif
