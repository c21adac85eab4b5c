#include "agent/core/tz_rule.h"

#include "agent/base/text.h"

#define DAY_S  86400
#define HOUR_S 3600

struct scan {
    const char *at;
    const char *end;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool scan_char(struct scan *s, char c)
{
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static bool scan_number(struct scan *s, unsigned max, unsigned *ret)
{
    if (s->at == s->end || !is_digit(*s->at))
        return false;
    unsigned v = 0;
    for (; s->at < s->end && is_digit(*s->at); s->at++) {
        v = v * 10 + (unsigned)(*s->at - '0');
        if (v > max)
            return false;
    }
    *ret = v;
    return true;
}

/* "CET" or "<+0330>"; at least three characters, as POSIX wants. */
static bool scan_designation(struct scan *s)
{
    const char *from = s->at;
    if (scan_char(s, '<')) {
        from = s->at;
        while (s->at < s->end && (is_letter(*s->at) || is_digit(*s->at) || *s->at == '+' || *s->at == '-'))
            s->at++;
        return s->at - from >= 3 && scan_char(s, '>');
    }
    while (s->at < s->end && is_letter(*s->at))
        s->at++;
    return s->at - from >= 3;
}

/* [+-]h[h[h]][:mm[:ss]] */
static bool scan_time(struct scan *s, unsigned hours_max, int32_t *ret_s)
{
    bool negative = scan_char(s, '-');
    if (!negative)
        (void)scan_char(s, '+'); /* optional */
    unsigned h = 0, m = 0, sec = 0;
    if (!scan_number(s, hours_max, &h))
        return false;
    if (scan_char(s, ':')) {
        if (!scan_number(s, 59, &m))
            return false;
        if (scan_char(s, ':') && !scan_number(s, 59, &sec))
            return false;
    }
    int32_t v = (int32_t)(h * HOUR_S + m * 60 + sec);
    *ret_s = negative ? -v : v;
    return true;
}

static bool scan_date(struct scan *s, struct tz_rule_date *ret)
{
    struct tz_rule_date d = {.time_s = 2 * HOUR_S};
    bool ok = false;
    if (scan_char(s, 'M')) {
        d.form = TZ_RULE_WEEK;
        ok = scan_number(s, 12, &d.month) && d.month >= 1 && scan_char(s, '.') &&
             scan_number(s, 5, &d.week) && d.week >= 1 && scan_char(s, '.') && scan_number(s, 6, &d.day);
    } else if (scan_char(s, 'J')) {
        d.form = TZ_RULE_JULIAN;
        ok = scan_number(s, 365, &d.day) && d.day >= 1;
    } else {
        d.form = TZ_RULE_DAY;
        ok = scan_number(s, 365, &d.day);
    }
    if (!ok || (scan_char(s, '/') && !scan_time(s, 167, &d.time_s)))
        return false;
    *ret = d;
    return true;
}

static bool scan_rule(struct scan *s, struct tz_rule *r)
{
    if (!scan_designation(s) || !scan_time(s, 24, &r->std_s))
        return false;
    r->std_s = -r->std_s; /* POSIX counts west of Greenwich */
    if (s->at == s->end)
        return true;
    if (!scan_designation(s))
        return false;
    r->has_dst = true;
    r->dst_s = r->std_s + HOUR_S;
    if (s->at < s->end && *s->at != ',') {
        if (!scan_time(s, 24, &r->dst_s))
            return false;
        r->dst_s = -r->dst_s;
    }
    return scan_char(s, ',') && scan_date(s, &r->dst_from) && scan_char(s, ',') && scan_date(s, &r->dst_to) &&
           s->at == s->end;
}

int tz_rule_parse(const char *s, size_t len, struct tz_rule *ret, struct err *e)
{
    struct scan scan = {s, s + len};
    struct tz_rule r = {0};
    if (!scan_rule(&scan, &r))
        return err_set(e, ERR_INVALID, "not a POSIX time zone rule, from its character %zu on",
                       (size_t)(scan.at - s) + 1);
    *ret = r;
    return 0;
}

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t week_day(const struct tz_rule_date *d, int64_t year)
{
    int64_t first = text_days_from_civil(year, d->month, 1);
    int64_t next =
        d->month == 12 ? text_days_from_civil(year + 1, 1, 1) : text_days_from_civil(year, d->month + 1, 1);
    int64_t weekday = ((first + 4) % 7 + 7) % 7; /* 1970-01-01 was a Thursday */
    int64_t day = first + ((int64_t)d->day - weekday + 7) % 7 + 7 * ((int64_t)d->week - 1);
    return day < next ? day : day - 7; /* week 5 is the last, even if there are four */
}

static int64_t date_wall_s(const struct tz_rule_date *d, int64_t year)
{
    int64_t day = text_days_from_civil(year, 1, 1);
    switch (d->form) {
    case TZ_RULE_JULIAN:
        day += (int64_t)d->day - 1 + (is_leap(year) && d->day >= 60 ? 1 : 0);
        break;
    case TZ_RULE_DAY:
        day += d->day;
        break;
    case TZ_RULE_WEEK:
    case TZ_RULE_COUNT_:
        day = week_day(d, year);
        break;
    }
    return day * DAY_S + d->time_s;
}

int64_t tz_rule_dst_from_s(const struct tz_rule *r, int64_t year)
{
    return date_wall_s(&r->dst_from, year) - r->std_s;
}

int64_t tz_rule_dst_to_s(const struct tz_rule *r, int64_t year)
{
    return date_wall_s(&r->dst_to, year) - r->dst_s;
}
