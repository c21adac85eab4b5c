/* Reading `at`: an instant, a local time, a local date. */
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/explain_private.h"

#define DAY_S 86400

struct civil {
    int64_t days;
    int64_t second; /* of the day */
    int64_t width_s;
};

static bool digits(const char *s, size_t len, unsigned *ret)
{
    *ret = 0;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *ret = *ret * 10 + (unsigned)(s[i] - '0');
    }
    return true;
}

static bool read_date(const char *s, struct civil *ret)
{
    unsigned year, month, day, month_back, day_back;
    int64_t year_back;
    if (!digits(s, 4, &year) || s[4] != '-' || !digits(s + 5, 2, &month) || s[7] != '-' ||
        !digits(s + 8, 2, &day) || month < 1 || month > 12 || day < 1 || year < 1970)
        return false;
    ret->days = text_days_from_civil(year, month, day);
    text_civil_from_days(ret->days, &year_back, &month_back, &day_back);
    return month == month_back && day == day_back;
}

/* "HH:MM" or "HH:MM:SS". */
static bool read_time(const char *s, size_t len, struct civil *ret)
{
    unsigned hour, minute, second = 0;
    if ((len != 5 && len != 8) || !digits(s, 2, &hour) || s[2] != ':' || !digits(s + 3, 2, &minute) ||
        (len == 8 && (s[5] != ':' || !digits(s + 6, 2, &second))) || hour > 23 || minute > 59 || second > 59)
        return false;
    ret->second = (int64_t)hour * 3600 + minute * 60 + second;
    ret->width_s = len == 5 ? 60 : 1;
    return true;
}

static bool read_civil(const char *s, size_t len, struct civil *ret)
{
    if (len < 10 || !read_date(s, ret))
        return false;
    ret->second = 0;
    ret->width_s = DAY_S;
    return len == 10 || ((s[10] == 'T' || s[10] == 't' || s[10] == ' ') && read_time(s + 11, len - 11, ret));
}

static void span_of_civil(const struct civil *c, const struct tz *zone, struct explain_span *ret)
{
    struct tz_wall begin, end;
    int64_t wall_s = c->days * DAY_S + c->second;
    tz_from_wall(zone, wall_s, &begin);
    ret->from_ms = begin.first_s * 1000;
    if (c->width_s == DAY_S) {
        tz_from_wall(zone, wall_s + DAY_S, &end);
        ret->to_ms = end.first_s * 1000;
        return;
    }
    ret->to_ms = (begin.second_s + c->width_s) * 1000;
    ret->gap = begin.kind == TZ_WALL_GAP;
    ret->wall_s = wall_s;
    ret->wall_width_s = c->width_s;
}

int explain_at_parse(const char *text, size_t len, const struct tz *zone, struct explain_span *ret,
                     struct err *e)
{
    int64_t at_ms;
    struct civil civil;
    struct explain_span span = {.point = true};
    if (read_civil(text, len, &civil)) {
        span_of_civil(&civil, zone, &span);
    } else if (text_instant_ms(text, len, &at_ms, NULL) == 0) {
        bool whole = memchr(text, '.', len) == NULL;
        span.from_ms = at_ms;
        span.to_ms = at_ms + (whole ? 1000 : 1);
    } else {
        return err_set(e, ERR_INVALID,
                       "an instant (2026-11-23T08:00:00Z), a local time (2026-11-23T09:00) or a date "
                       "(2026-11-23) is wanted");
    }
    *ret = span;
    return 0;
}
