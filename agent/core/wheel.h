/* Hierarchical timer wheel: millisecond resolution, the whole range of uint64_t (a timer may be centuries away), every
 * operation constant in the number of armed timers. After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels"
 * (1987), with a bitmap a level as in h2o's and W. Ahern's wheels, so that empty time costs nothing.
 *
 * Order: timers fire by due_ms, those of the same millisecond in the order in which they were armed. A timer armed
 * with a due that the wheel has passed counts as due at the moment the wheel has reached.
 *
 * One thread. Time is an input: any clock, as long as wheel_new, wheel_arm and wheel_advance mean the same one. */
#ifndef CARILLON_CORE_WHEEL_H
#define CARILLON_CORE_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/list.h"

/* "No timer is armed" from wheel_next_ms. A timer armed for it stays armed until the clock ends. */
#define WHEEL_NEVER UINT64_MAX

struct buf;
struct wheel;
struct wheel_timer;

/* Runs inside wheel_advance, T being disarmed already: it may arm T again, free it, and arm, cancel or free any other
 * timer. It may not call wheel_advance or wheel_free. */
typedef void wheel_fire(struct wheel_timer *t, void *arg);

/* Lives inside its owner's struct; the fields are the wheel's. */
struct wheel_timer {
    struct list link_;
    uint64_t due_ms_;
    wheel_fire *fire_;
    void *arg_;
    unsigned slot_;
};

/* A wheel that stands at NOW_MS. Aborts without memory (11 KB). */
struct wheel *wheel_new(uint64_t now_ms);

/* Free W; armed timers are disarmed without firing, their memory is their owners'. NULL does nothing. */
void wheel_free(struct wheel *w);

/* Prepare T, disarmed; FIRE(T, ARG) will run when it is due. Not on an armed timer. */
void wheel_timer_init(struct wheel_timer *t, wheel_fire *fire, void *arg);

/* Arm T to fire at DUE_MS (same clock as wheel_advance). Arming again moves it, behind others of the same ms; a past
 * DUE_MS fires on the next advance. Borrows T until it fires or wheel_cancel(). Cannot fail. */
void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t due_ms);

/* Disarm T; it will not fire, not even when it is due in the advance that is running. A disarmed T stays so. */
void wheel_cancel(struct wheel *w, struct wheel_timer *t);

static inline bool wheel_timer_armed(const struct wheel_timer *t)
{
    return list_linked(&t->link_);
}

/* The due that T was last armed with. */
static inline uint64_t wheel_timer_due_ms(const struct wheel_timer *t)
{
    return t->due_ms_;
}

/* Fire what is due at NOW_MS, at most MAX_TIMERS (> 0), and return how many fired. All that will fire are chosen before
 * the first callback runs: what callbacks arm waits for the next call even if it is due. What is due beyond MAX_TIMERS
 * stays armed and comes first next time (wheel_next_ms then says "now"). A NOW_MS before that of an earlier call
 * counts as that one. Costs O(levels) a timer and O(levels) for any span of empty time; the work for far timers comes
 * in lumps: the call that reaches a multiple of 4096 ms sorts in what is due in the next 4096 ms (measured: 50 to 150 ns
 * a timer, 40 ms where that was 270,000 of four million). */
size_t wheel_advance(struct wheel *w, uint64_t now_ms, size_t max_timers);

/* When to call wheel_advance again: never later than the first due, WHEEL_NEVER without timers. May be earlier than
 * the first due (a far timer has to be sorted in on the way), at most once a level, so at most ten times a timer.
 * A moment not after the last NOW_MS means that there is work left. Constant time. */
uint64_t wheel_next_ms(const struct wheel *w);

/* Number of armed timers. */
size_t wheel_count(const struct wheel *w);

/* Assert every invariant; walks all timers. For tests. */
void wheel_validate(const struct wheel *w);

/* Append a readable picture: a line a used slot with its level, span and number of timers. Fails as appends to OUT do. */
void wheel_dump(const struct wheel *w, struct buf *out);

#endif
