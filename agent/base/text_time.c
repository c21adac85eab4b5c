/* Durations and instants of text.h. Printing an instant happens several times for each callback, so it is arithmetic
 * on digits, without printf. */
#include "agent/base/text.h"

#include <assert.h>
#include <string.h>

#define DAY_MS   86400000
#define DAY_S    86400
#define HOUR_S   3600
#define MINUTE_S 60

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* --- durations --------------------------------------------------------------------------------------------------- */

static const struct unit {
    char name[3];
    uint64_t ms;
} units[] = {{"d", DAY_MS}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
#define UNITS (sizeof(units) / sizeof(units[0]))

/* Index of the unit of LEN letters at S, UNITS when there is none such. */
static size_t find_unit(const char *s, size_t len)
{
    size_t i = 0;
    while (i < UNITS && !(strlen(units[i].name) == len && memcmp(units[i].name, s, len) == 0))
        i++;
    return i;
}

/* One "<number><unit>" at *AT; the unit must be smaller than *UNIT's predecessor. */
static bool parse_part(const char *s, size_t len, size_t *at, size_t *unit, uint64_t *total)
{
    uint64_t v = 0;
    size_t i = *at, begin = *at;
    for (; i < len && is_digit(s[i]); i++)
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v))
            return false;
    size_t letters = i;
    while (letters < len && !is_digit(s[letters]))
        letters++;
    if (i == begin || (s[begin] == '0' && i - begin > 1))
        return false;
    size_t u = find_unit(s + i, letters - i);
    if (u == UNITS || u < *unit || __builtin_mul_overflow(v, units[u].ms, &v) ||
        __builtin_add_overflow(*total, v, total) || *total > TEXT_DURATION_MAX_MS)
        return false;
    *at = letters;
    *unit = u + 1;
    return true;
}

int text_duration_ms(const char *s, size_t len, uint64_t *ret_ms, struct err *e)
{
    uint64_t total = 0;
    size_t at = 0, unit = 0;
    bool ok = len > 0;
    while (ok && at < len)
        ok = parse_part(s, len, &at, &unit, &total);
    if (!ok)
        return err_set(e, ERR_INVALID, "'%s' is no duration; write 250ms, 10s, 1h30m or 7d, up to 36500d",
                       TEXTQ(s, len));
    *ret_ms = total;
    return 0;
}

static char *put_u64(char *at, uint64_t v)
{
    char digits[20];
    size_t n = 0;
    do
        digits[n++] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    while (n > 0)
        *at++ = digits[--n];
    return at;
}

size_t text_duration_print(char buf[TEXT_DURATION_SIZE], uint64_t ms)
{
    char *at = buf;
    for (size_t u = ms < 2 * DAY_MS; u < UNITS; u++) {
        uint64_t n = ms / units[u].ms;
        ms %= units[u].ms;
        if (n == 0)
            continue;
        at = put_u64(at, n);
        for (const char *c = units[u].name; *c; c++)
            *at++ = *c;
    }
    if (at == buf) {
        *at++ = '0';
        *at++ = 's';
    }
    *at = '\0';
    return (size_t)(at - buf);
}

/* --- calendar: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" --------------------------------------- */

int64_t text_days_from_civil(int64_t year, unsigned month, unsigned day)
{
    int64_t y = year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400);
    unsigned doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + (int64_t)doe - 719468;
}

void text_civil_from_days(int64_t days, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    *ret_day = doy - (153 * mp + 2) / 5 + 1;
    *ret_month = mp < 10 ? mp + 3 : mp - 9;
    *ret_year = (int64_t)yoe + era * 400 + (*ret_month <= 2);
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (unsigned)(month == 2 && leap);
}

/* --- instants: RFC 3339 ------------------------------------------------------------------------------------------ */

/* N digits at S + AT; the caller knows that they are inside the text. */
static bool digits_at(const char *s, size_t at, size_t n, unsigned *ret)
{
    unsigned v = 0;
    for (size_t i = at; i < at + n; i++) {
        if (!is_digit(s[i]))
            return false;
        v = v * 10 + (unsigned)(s[i] - '0');
    }
    *ret = v;
    return true;
}

/* "2026-11-23T08:00:00" at the beginning of S, as seconds since 1970 without an offset. */
static bool parse_date_time(const char *s, size_t len, int64_t *ret_s)
{
    unsigned year, month, day, hour, minute, second;
    if (len < 20 || !digits_at(s, 0, 4, &year) || s[4] != '-' || !digits_at(s, 5, 2, &month) || s[7] != '-' ||
        !digits_at(s, 8, 2, &day) || (s[10] != 'T' && s[10] != 't') || !digits_at(s, 11, 2, &hour) ||
        s[13] != ':' || !digits_at(s, 14, 2, &minute) || s[16] != ':' || !digits_at(s, 17, 2, &second))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 ||
        second > 59)
        return false;
    *ret_s = text_days_from_civil(year, month, day) * DAY_S + (int64_t)(hour * 3600 + minute * 60 + second);
    return true;
}

/* ".123456" at *AT, if there; cut to ms. */
static bool parse_fraction(const char *s, size_t len, size_t *at, unsigned *ret_ms)
{
    *ret_ms = 0;
    if (*at >= len || s[*at] != '.')
        return true;
    size_t begin = ++*at;
    unsigned scale = 100;
    for (; *at < len && is_digit(s[*at]); ++*at, scale /= 10)
        *ret_ms += scale * (unsigned)(s[*at] - '0');
    return *at > begin && *at - begin <= 9;
}

/* "Z" or "+01:00" up to the end of S. */
static bool parse_offset(const char *s, size_t len, size_t at, int64_t *ret_s)
{
    if (len - at == 1 && (s[at] == 'Z' || s[at] == 'z')) {
        *ret_s = 0;
        return true;
    }
    unsigned hours, minutes;
    if (len - at != 6 || (s[at] != '+' && s[at] != '-') || !digits_at(s, at + 1, 2, &hours) ||
        s[at + 3] != ':' || !digits_at(s, at + 4, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    int64_t offset_s = (int64_t)hours * HOUR_S + (int64_t)minutes * MINUTE_S;
    *ret_s = s[at] == '-' ? -offset_s : offset_s;
    return true;
}

int text_instant_ms(const char *s, size_t len, int64_t *ret_ms, struct err *e)
{
    size_t at = 19;
    int64_t local_s, offset_s;
    unsigned fraction_ms;
    if (!parse_date_time(s, len, &local_s) || !parse_fraction(s, len, &at, &fraction_ms) ||
        !parse_offset(s, len, at, &offset_s))
        return err_set(e, ERR_INVALID,
                       "'%s' is no instant; write 2026-11-23T08:00:00Z or 2026-11-23T09:00:00.250+01:00",
                       TEXTQ(s, len));
    int64_t ms = (local_s - offset_s) * 1000 + (int64_t)fraction_ms;
    if (ms < TEXT_INSTANT_MIN_MS || ms > TEXT_INSTANT_MAX_MS)
        return err_set(e, ERR_INVALID, "'%s' is not within the years 1970 to 9999", TEXTQ(s, len));
    *ret_ms = ms;
    return 0;
}

static void put_2(char *at, unsigned v)
{
    at[0] = (char)('0' + v / 10);
    at[1] = (char)('0' + v % 10);
}

static void put_3(char *at, unsigned v)
{
    at[0] = (char)('0' + v / 100);
    put_2(at + 1, v % 100);
}

/* "2026-11-23T08:00:00", 19 characters. SECONDS since 1970 within the years 0 to 9999. */
static void put_date_time(char *at, int64_t seconds)
{
    int64_t days = (seconds >= 0 ? seconds : seconds - (DAY_S - 1)) / DAY_S, year;
    unsigned month, day, rest = (unsigned)(seconds - days * DAY_S);
    text_civil_from_days(days, &year, &month, &day);
    put_2(at, (unsigned)year / 100);
    put_2(at + 2, (unsigned)year % 100);
    at[4] = '-';
    put_2(at + 5, month);
    at[7] = '-';
    put_2(at + 8, day);
    at[10] = 'T';
    put_2(at + 11, rest / HOUR_S);
    at[13] = ':';
    put_2(at + 14, rest / MINUTE_S % 60);
    at[16] = ':';
    put_2(at + 17, rest % 60);
}

static int64_t clamp_instant(int64_t ms)
{
    return ms < TEXT_INSTANT_MIN_MS   ? TEXT_INSTANT_MIN_MS
           : ms > TEXT_INSTANT_MAX_MS ? TEXT_INSTANT_MAX_MS
                                      : ms;
}

void text_instant_print(char buf[TEXT_INSTANT_SIZE], int64_t ms)
{
    ms = clamp_instant(ms);
    put_date_time(buf, ms / 1000);
    buf[19] = '.';
    put_3(buf + 20, (unsigned)(ms % 1000));
    buf[23] = 'Z';
    buf[24] = '\0';
}

size_t text_local_print(char buf[TEXT_LOCAL_SIZE], int64_t ms, int32_t offset_s)
{
    assert(offset_s > -DAY_S && offset_s < DAY_S);
    ms = clamp_instant(ms);
    /* RFC 3339 has no seconds in an offset: the local time mean time zones of before 1972 lose theirs. */
    int32_t offset_min = offset_s / MINUTE_S;
    int64_t local_s = ms / 1000 + offset_min * MINUTE_S;
    if (local_s > TEXT_INSTANT_MAX_MS / 1000)
        local_s = TEXT_INSTANT_MAX_MS / 1000;
    put_date_time(buf, local_s);
    char *at = buf + 19;
    if (ms % 1000) {
        *at = '.';
        put_3(at + 1, (unsigned)(ms % 1000));
        at += 4;
    }
    unsigned size_min = (unsigned)(offset_min < 0 ? -offset_min : offset_min);
    at[0] = offset_min < 0 ? '-' : '+';
    put_2(at + 1, size_min / 60);
    at[3] = ':';
    put_2(at + 4, size_min % 60);
    at[6] = '\0';
    return (size_t)(at + 6 - buf);
}
