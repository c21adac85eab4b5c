/* The shortest distance between dues. For cron expressions it is the shortest distance on the wall clock, unless a change
 * of the clock makes a shorter one: those are looked at one by one, when arithmetic does not rule them out. */
#include "agent/core/schedule.h"

#include <stdlib.h>

#include "agent/base/text.h"
#include "agent/core/schedule_impl.h"

#define RARE_S    ((int64_t)20 * CRON_DAY_S)
#define DAY_WORDS ((CRON_DAY_S + 63) / 64)

/* A set of seconds of a circle of SIZE seconds, at most a day. */
struct seconds {
    unsigned size;
    uint64_t bits[DAY_WORDS];
};

static void seconds_add(struct seconds *t, unsigned second)
{
    t->bits[second / 64] |= UINT64_C(1) << second % 64;
}

/* Lowest member that is at least FROM, or -1. */
static int64_t seconds_next(const struct seconds *t, unsigned from)
{
    for (unsigned w = from / 64; w < DAY_WORDS; w++) {
        uint64_t rest = w == from / 64 ? t->bits[w] >> from % 64 << from % 64 : t->bits[w];
        if (rest)
            return (int64_t)w * 64 + __builtin_ctzll(rest);
    }
    return -1;
}

struct distances {
    unsigned first;
    unsigned last;
    unsigned shortest; /* between neighbours, not around the circle's end; UINT32_MAX: a single member */
};

static struct distances seconds_distances(const struct seconds *t)
{
    int64_t at = seconds_next(t, 0);
    struct distances d = {.first = (unsigned)at, .last = (unsigned)at, .shortest = UINT32_MAX};
    while ((at = seconds_next(t, d.last + 1)) >= 0) {
        if ((unsigned)at - d.last < d.shortest)
            d.shortest = (unsigned)at - d.last;
        d.last = (unsigned)at;
    }
    return d;
}

static void add_times(struct seconds *t, const struct cron *c)
{
    for (uint32_t hours = c->hours; hours; hours &= hours - 1)
        for (uint64_t minutes = c->minutes; minutes; minutes &= minutes - 1)
            for (uint64_t seconds = c->seconds; seconds; seconds &= seconds - 1)
                seconds_add(t, (unsigned)__builtin_ctz(hours) * 3600 +
                                   (unsigned)__builtin_ctzll(minutes) * 60 +
                                   (unsigned)__builtin_ctzll(seconds));
}

/* The same times seen on a smaller circle, that divides the day. */
static struct seconds fold(const struct seconds *t, unsigned size)
{
    struct seconds folded = {.size = size};
    for (int64_t at = seconds_next(t, 0); at >= 0; at = seconds_next(t, (unsigned)at + 1))
        seconds_add(&folded, (unsigned)at % size);
    return folded;
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* What all changes of the zone's clocks from FROM_S on, and a day, are multiples of. */
static unsigned change_unit_s(const struct tz *tz, int64_t from_s)
{
    int64_t unit_s = CRON_DAY_S;
    for (int64_t at_s = tz_next_change_s(tz, from_s); at_s < SCHEDULE_END_MS / 1000;
         at_s = tz_next_change_s(tz, at_s))
        unit_s = gcd(unit_s, llabs((int64_t)tz_offset_s(tz, at_s) - tz_offset_s(tz, at_s - 1)));
    return (unsigned)unit_s;
}

/* Least distance in days between two days with dues, from the day FIRST_DAY on; INT64_MAX if there are not two. */
static int64_t shortest_days(const struct schedule *s, uint32_t which, int64_t first_day)
{
    int64_t year, shortest = INT64_MAX, last = INT64_MIN;
    unsigned month, day;
    text_civil_from_days(first_day, &year, &month, &day);
    for (; year < 2200 && shortest > 1; month = month % 12 + 1, year += month == 1) {
        int64_t month_day = text_days_from_civil(year, month, 1) - 1;
        uint32_t days = 0;
        for (size_t i = 0; i < s->count; i++)
            if (which >> i & 1 && s->members[i].cron.months >> month & 1)
                days |= cron_month_days(&s->members[i].cron, year, month, NULL);
        for (; days; days &= days - 1) {
            int64_t at = month_day + __builtin_ctz(days);
            shortest = last == INT64_MIN ? shortest : min_i64(shortest, at - last);
            last = at;
        }
    }
    return shortest;
}

/* Shortest distance that the change of the clock at CHANGE_S has a part in: from the last due before it until the dues
 * that it moved or repeated are over. */
static int64_t gap_at_change_ms(const struct schedule *s, uint32_t which, int64_t from_ms, int64_t change_s)
{
    int64_t by_s = llabs((int64_t)tz_offset_s(s->tz, change_s) - tz_offset_s(s->tz, change_s - 1));
    int64_t until_ms = (change_s + by_s) * 1000, gap_ms = INT64_MAX;
    struct schedule_due before, due;
    if (!schedule_last_of(s, which, change_s * 1000, &before) || before.due_ms < from_ms)
        before.due_ms = from_ms - 1;
    if (!schedule_next_of(s, which, before.due_ms, &before))
        return gap_ms;
    while (before.due_ms < until_ms && schedule_next_of(s, which, before.due_ms + 1, &due)) {
        gap_ms = min_i64(gap_ms, due.due_ms - before.due_ms);
        before = due;
    }
    return gap_ms;
}

/* Of dues so rare that walking over all of them costs less than looking at every change. */
static int64_t gap_of_all_ms(const struct schedule *s, uint32_t which, int64_t from_ms)
{
    struct schedule_due before, due;
    int64_t gap_ms = INT64_MAX;
    if (!schedule_next_of(s, which, from_ms, &before))
        return gap_ms;
    while (schedule_next_of(s, which, before.due_ms + 1, &due)) {
        gap_ms = min_i64(gap_ms, due.due_ms - before.due_ms);
        before = due;
    }
    return gap_ms;
}

static int64_t cron_gap_ms(const struct schedule *s, uint32_t which, int64_t from_ms)
{
    struct seconds times = {.size = CRON_DAY_S};
    for (size_t i = 0; i < s->count; i++)
        if (which >> i & 1)
            add_times(&times, &s->members[i].cron);
    struct distances day = seconds_distances(&times);
    int64_t gap_s = day.shortest == UINT32_MAX ? INT64_MAX : (int64_t)day.shortest;
    int64_t days = shortest_days(s, which, from_ms / 1000 / CRON_DAY_S - 1);
    if (days != INT64_MAX)
        gap_s = min_i64(gap_s, days * CRON_DAY_S + day.first - day.last);
    if (gap_s >= RARE_S)
        return gap_of_all_ms(s, which, from_ms);
    struct seconds folded = fold(&times, change_unit_s(s->tz, from_ms / 1000));
    struct distances unit = seconds_distances(&folded);
    int64_t least_s = min_i64(unit.shortest, (int64_t)folded.size + unit.first - unit.last);
    int64_t gap_ms = gap_s * 1000;
    for (int64_t at_s = tz_next_change_s(s->tz, from_ms / 1000 - CRON_DAY_S);
         at_s < s->ends_ms / 1000 && gap_ms > least_s * 1000; at_s = tz_next_change_s(s->tz, at_s))
        gap_ms = min_i64(gap_ms, gap_at_change_ms(s, which, from_ms, at_s));
    return gap_ms;
}

/* Distance of two grids of points, A_MS and B_MS apart, one DISTANCE_MS from the other: no two different points are
 * closer. */
static int64_t grid_gap_ms(int64_t a_ms, int64_t b_ms, int64_t distance_ms)
{
    int64_t unit_ms = gcd(a_ms, b_ms);
    int64_t rest_ms = llabs(distance_ms) % unit_ms;
    return rest_ms == 0 ? unit_ms : min_i64(rest_ms, unit_ms - rest_ms);
}

/* Between dues of @every M and those of the other recurring expressions. */
static int64_t every_gap_ms(const struct schedule *s, const struct member *m)
{
    int64_t gap_ms = m->interval_ms;
    for (size_t i = 0; i < s->count; i++) {
        const struct member *other = &s->members[i];
        if (other->kind == MEMBER_EVERY && other != m)
            gap_ms =
                min_i64(gap_ms, grid_gap_ms(m->interval_ms, other->interval_ms, m->at_ms - other->at_ms));
        if (other->kind == MEMBER_CRON) /* somewhere on the grid of whole seconds */
            gap_ms = min_i64(gap_ms, grid_gap_ms(m->interval_ms, 1000, m->at_ms));
    }
    return gap_ms;
}

/* From one instant to its neighbours. */
static int64_t instant_gap_ms(const struct schedule *s, int64_t at_ms, int64_t from_ms)
{
    struct schedule_due due;
    int64_t gap_ms = INT64_MAX;
    if (schedule_last_before(s, at_ms, &due) && due.due_ms >= from_ms)
        gap_ms = at_ms - due.due_ms;
    if (schedule_next(s, at_ms, &due))
        gap_ms = min_i64(gap_ms, due.due_ms - at_ms);
    return gap_ms;
}

int64_t schedule_min_gap_ms(const struct schedule *s, int64_t from_ms)
{
    struct schedule_due first, second;
    from_ms = max_i64(from_ms, s->starts_ms);
    if (!schedule_next(s, from_ms - 1, &first) || !schedule_next(s, first.due_ms, &second))
        return INT64_MAX;
    uint32_t cron = schedule_members(s, MEMBER_CRON);
    int64_t gap_ms = cron ? cron_gap_ms(s, cron, from_ms) : INT64_MAX;
    for (size_t i = 0; i < s->count; i++) {
        const struct member *m = &s->members[i];
        if (m->kind == MEMBER_EVERY)
            gap_ms = min_i64(gap_ms, every_gap_ms(s, m));
        if (m->kind == MEMBER_AT && m->at_ms >= from_ms && m->at_ms < s->ends_ms)
            gap_ms = min_i64(gap_ms, instant_gap_ms(s, m->at_ms, from_ms));
    }
    return gap_ms;
}
