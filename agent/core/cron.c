#include "agent/core/cron.h"

#include <assert.h>

#include "agent/base/text.h"

#define CYCLE_YEARS 400

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

/* ---- days ------------------------------------------------------------------------------------------------------ */

unsigned cron_month_length(int64_t year, unsigned month)
{
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    assert(month >= 1 && month <= 12);
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return lengths[month - 1] + (month == 2 && leap ? 1U : 0U);
}

/* A month as the day fields see it. */
struct month {
    int64_t first_day; /* since 1970-01-01 */
    unsigned length;
    unsigned first_weekday;
    uint32_t all; /* its days, bit 1-31 */
};

static struct month month_of(int64_t year, unsigned month)
{
    struct month m = {.first_day = text_days_from_civil(year, month, 1),
                      .length = cron_month_length(year, month)};
    m.first_weekday =
        (unsigned)(m.first_day + 4 - 7 * floor_div(m.first_day + 4, 7)); /* day 0 was a Thursday */
    m.all = (uint32_t)((UINT64_C(2) << m.length) - 2);
    return m;
}

static unsigned weekday_of(const struct month *m, unsigned day)
{
    return (m->first_weekday + day - 1) % 7;
}

static unsigned nearest_workday(const struct month *m, unsigned day)
{
    unsigned weekday = weekday_of(m, day);
    if (weekday == 6)
        return day > 1 ? day - 1 : day + 2;
    if (weekday == 0)
        return day < m->length ? day + 1 : day - 2;
    return day;
}

/* A field that begins with a star asks for no particular day, so nothing is missing in a short month. */
static bool moves_days(const struct cron *c)
{
    return c->short_month_last && !c->days_star;
}

static uint32_t days_by_date(const struct cron *c, const struct month *m, uint32_t *ret_moved)
{
    uint32_t days = c->days & m->all;
    for (uint32_t rest = c->days_from_last; rest; rest &= rest - 1) {
        unsigned n = (unsigned)__builtin_ctz(rest);
        if (n < m->length)
            days |= UINT32_C(1) << (m->length - n);
    }
    for (uint32_t rest = c->near_days & m->all; rest; rest &= rest - 1)
        days |= UINT32_C(1) << nearest_workday(m, (unsigned)__builtin_ctz(rest));
    if (c->last_workday)
        days |= UINT32_C(1) << nearest_workday(m, m->length);
    if (!moves_days(c))
        return days;
    uint32_t moved = 0;
    if (c->days & ~m->all)
        moved |= UINT32_C(1) << m->length;
    if (c->near_days & ~m->all)
        moved |= UINT32_C(1) << nearest_workday(m, m->length);
    *ret_moved = moved & ~days;
    return days | moved;
}

static uint32_t days_by_weekday(const struct cron *c, const struct month *m)
{
    uint32_t days = 0;
    for (unsigned day = 1; day <= 7; day++) {
        unsigned weekday = weekday_of(m, day);
        if (c->weekdays >> weekday & 1)
            days |= UINT32_C(0x10204081) << day; /* every seventh */
        for (unsigned n = 1; c->nth_weekdays[weekday] && n <= 5; n++)
            if (c->nth_weekdays[weekday] >> n & 1 && day + 7 * (n - 1) <= m->length)
                days |= UINT32_C(1) << (day + 7 * (n - 1));
        if (c->last_weekdays >> weekday & 1)
            days |= UINT32_C(1) << (day + (m->length - day) / 7 * 7);
    }
    return days & m->all;
}

static uint32_t days_of(const struct cron *c, const struct month *m, uint32_t *ret_moved)
{
    uint32_t moved = 0;
    uint32_t by_date = c->days_star && c->days == UINT32_C(0xfffffffe) ? m->all : days_by_date(c, m, &moved);
    uint32_t by_weekday = c->weekdays_star && c->weekdays == 0x7f ? m->all : days_by_weekday(c, m);
    bool either = !c->days_star && !c->weekdays_star;
    if (ret_moved)
        *ret_moved = either ? moved & ~by_weekday : moved & by_weekday;
    return either ? by_date | by_weekday : by_date & by_weekday;
}

uint32_t cron_month_days(const struct cron *c, int64_t year, unsigned month, uint32_t *ret_moved)
{
    struct month m = month_of(year, month);
    return days_of(c, &m, ret_moved);
}

/* ---- the next match -------------------------------------------------------------------------------------------- */

/* Lowest member of SET that is at least FROM, or -1. */
static int next_bit(uint64_t set, unsigned from)
{
    uint64_t rest = from > 63 ? 0 : set >> from << from;
    return rest ? __builtin_ctzll(rest) : -1;
}

/* First matching second of the day from SECOND on, or -1. */
static int next_time(const struct cron *c, unsigned second)
{
    unsigned h = second / 3600, m = second / 60 % 60, s = second % 60;
    int hour = next_bit(c->hours, h);
    if (hour == (int)h) {
        int minute = next_bit(c->minutes, m);
        if (minute == (int)m) {
            int sec = next_bit(c->seconds, s);
            if (sec >= 0)
                return hour * 3600 + minute * 60 + sec;
            minute = next_bit(c->minutes, m + 1);
        }
        if (minute >= 0)
            return hour * 3600 + minute * 60 + next_bit(c->seconds, 0);
        hour = next_bit(c->hours, h + 1);
    }
    if (hour < 0)
        return -1;
    return hour * 3600 + next_bit(c->minutes, 0) * 60 + next_bit(c->seconds, 0);
}

struct cursor {
    int64_t year;
    unsigned month;
    unsigned day;
    unsigned second; /* of that day */
};

static struct cursor cursor_at(int64_t wall_s)
{
    struct cursor at;
    int64_t day = floor_div(wall_s, CRON_DAY_S);
    at.second = (unsigned)(wall_s - day * CRON_DAY_S);
    text_civil_from_days(day, &at.year, &at.month, &at.day);
    return at;
}

/* Begin of the next month that the expression names. */
static void next_month(const struct cron *c, struct cursor *at)
{
    int month = next_bit(c->months, at->month + 1);
    if (month < 0) {
        at->year++;
        month = next_bit(c->months, 1);
    }
    at->month = (unsigned)month;
    at->day = 1;
    at->second = 0;
}

/* First match of the cursor's month from the cursor on, or -1. */
static int64_t next_in_month(const struct cron *c, const struct cursor *at, const struct month *m,
                             bool *ret_moved)
{
    uint32_t moved;
    uint32_t days = days_of(c, m, &moved);
    unsigned second = at->second;
    for (int day = next_bit(days, at->day); day >= 0; day = next_bit(days, (unsigned)day + 1)) {
        int time = next_time(c, (unsigned)day == at->day ? second : 0);
        if (time < 0)
            continue;
        if (ret_moved)
            *ret_moved = moved >> day & 1;
        return (int64_t)(day - 1) * CRON_DAY_S + time;
    }
    return -1;
}

bool cron_next(const struct cron *c, int64_t from_s, int64_t end_s, int64_t *ret_s, bool *ret_moved)
{
    if (from_s >= end_s)
        return false;
    struct cursor at = cursor_at(from_s);
    if (!(c->months >> at.month & 1))
        next_month(c, &at);
    for (;; next_month(c, &at)) {
        struct month m = month_of(at.year, at.month);
        if (m.first_day * CRON_DAY_S >= end_s)
            return false;
        int64_t in_month_s = next_in_month(c, &at, &m, ret_moved);
        if (in_month_s < 0)
            continue;
        *ret_s = m.first_day * CRON_DAY_S + in_month_s;
        return *ret_s < end_s;
    }
}

bool cron_matches(const struct cron *c, int64_t wall_s)
{
    int64_t at_s;
    return cron_next(c, wall_s, wall_s + 1, &at_s, NULL);
}

bool cron_is_possible(const struct cron *c)
{
    int64_t at_s;
    return cron_next(c, text_days_from_civil(2000, 1, 1) * CRON_DAY_S,
                     text_days_from_civil(2000 + CYCLE_YEARS, 1, 1) * CRON_DAY_S, &at_s, NULL);
}

/* ---- counting -------------------------------------------------------------------------------------------------- */

static uint64_t bits_from_to(unsigned from, unsigned end)
{
    uint64_t below_end = end > 63 ? UINT64_MAX : (UINT64_C(1) << end) - 1;
    return below_end >> from << from;
}

/* Seconds of one minute in [from, end) that one of the expressions in the set DUE matches. */
static unsigned count_minute(const struct cron *const *c, uint32_t due, unsigned hour, unsigned minute,
                             unsigned from, unsigned end)
{
    uint64_t seconds = 0;
    for (uint32_t rest = due; rest; rest &= rest - 1) {
        const struct cron *one = c[__builtin_ctz(rest)];
        if (one->hours >> hour & 1 && one->minutes >> minute & 1)
            seconds |= one->seconds;
    }
    return (unsigned)__builtin_popcountll(seconds & bits_from_to(from, end));
}

/* Seconds of a day in [from, end) that one of the expressions in the set DUE matches. */
static unsigned count_day(const struct cron *const *c, uint32_t due, unsigned from, unsigned end)
{
    unsigned count = 0;
    for (unsigned begin = from / 60 * 60; due && begin < end; begin += 60)
        count += count_minute(c, due, begin / 3600, begin / 60 % 60, begin < from ? from - begin : 0,
                              end - begin < 60 ? end - begin : 60);
    return count;
}

/* Whole days are counted once for each set of expressions that is due on them; few sets ever occur. */
struct day_counts {
    uint32_t due[8];
    unsigned count[8];
    unsigned used;
};

static unsigned count_whole_day(const struct cron *const *c, uint32_t due, struct day_counts *known)
{
    for (unsigned i = 0; i < 8 && i < known->used; i++)
        if (known->due[i] == due)
            return known->count[i];
    unsigned slot = known->used++ % 8;
    known->due[slot] = due;
    known->count[slot] = count_day(c, due, 0, CRON_DAY_S);
    return known->count[slot];
}

static uint64_t count_month(const struct cron *const *c, size_t n, const struct cursor *at,
                            int64_t first_day_s, int64_t end_s, struct day_counts *known)
{
    uint32_t days[32];
    for (size_t i = 0; i < n; i++)
        days[i] = c[i]->months >> at->month & 1 ? cron_month_days(c[i], at->year, at->month, NULL) : 0;
    uint64_t count = 0;
    for (unsigned day = at->day; day <= cron_month_length(at->year, at->month); day++) {
        int64_t left_s = end_s - (first_day_s + (int64_t)(day - 1) * CRON_DAY_S);
        if (left_s <= 0)
            break;
        uint32_t due = 0;
        for (size_t i = 0; i < n; i++)
            due |= (days[i] >> day & 1) << i;
        unsigned from = day == at->day ? at->second : 0;
        if (due == 0)
            continue;
        count += from == 0 && left_s >= CRON_DAY_S
                     ? count_whole_day(c, due, known)
                     : count_day(c, due, from, left_s < CRON_DAY_S ? (unsigned)left_s : CRON_DAY_S);
    }
    return count;
}

uint64_t cron_count(const struct cron *const *c, size_t n, int64_t from_s, int64_t end_s)
{
    assert(n <= 32);
    struct day_counts known = {.used = 0};
    struct cursor at = cursor_at(from_s);
    uint64_t count = 0;
    while (from_s < end_s) {
        int64_t first_day_s = text_days_from_civil(at.year, at.month, 1) * CRON_DAY_S;
        count += count_month(c, n, &at, first_day_s, end_s, &known);
        from_s = first_day_s + (int64_t)cron_month_length(at.year, at.month) * CRON_DAY_S;
        at = cursor_at(from_s);
    }
    return count;
}
