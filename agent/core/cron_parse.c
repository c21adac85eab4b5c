/* The grammar of cron.h. Where cron implementations differ:
 *   ranges      may wrap around in every field (FRI-MON, 22-2, NOV-FEB, 25-5), as in Quartz: nothing else could be meant
 *   a/n         runs from a to the field's end, 7 (Sunday) in the day of week, as in cronie
 *   7           is Sunday everywhere, also as the end of a range
 *   steps       over the field's size are refused: who writes 0-59/90 in minutes wants an interval, see @every
 *   H           in the day of month stays within 1-28, as in Jenkins, so that no month is skipped */
#include "agent/core/cron.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#define FIELDS_MAX 7 /* recognised, to say what is wrong with the seventh */

struct field_info {
    const char *name;
    unsigned min;
    unsigned max;
    unsigned hash_max;
    unsigned step_max;
    const char *allowed;
    const char *const *words; /* names of values from min on */
    unsigned words_count;
};

static const char *const month_words[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN",
                                          "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"};
static const char *const weekday_words[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"};

static const struct field_info fields[CRON_FIELD_COUNT_] = {
    [CRON_SECOND] = {"second", 0, 59, 59, 60, "0-59, *, H", NULL, 0},
    [CRON_MINUTE] = {"minute", 0, 59, 59, 60, "0-59, *, H", NULL, 0},
    [CRON_HOUR] = {"hour", 0, 23, 23, 24, "0-23, *, H", NULL, 0},
    [CRON_DAY] = {"day of month", 1, 31, 28, 31, "1-31, *, ?, L, L-n, nW, LW, H", NULL, 0},
    [CRON_MONTH] = {"month", 1, 12, 12, 12, "1-12, JAN-DEC, *, H", month_words, 12},
    [CRON_WEEKDAY] = {"day of week", 0, 7, 6, 7, "0-7, SUN-SAT, *, ?, nL, n#1 to n#5, H", weekday_words, 7},
};

const char *cron_field_name(enum cron_field f)
{
    return fields[f].name;
}

/* ---- scanning -------------------------------------------------------------------------------------------------- */

struct scan {
    const char *text; /* of the whole expression, for offsets */
    size_t at;
    size_t end; /* of the field */
    enum cron_field field;
    const struct field_info *info;
    const struct cron_options *options;
    struct cron_error *problem;
};

static int refuse(struct scan *s, size_t offset, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Text of outside is never copied: it may be long, or break the encoding of the answer when cut. */
static int refuse(struct scan *s, size_t offset, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(s->problem->text, sizeof(s->problem->text), fmt, ap); /* cut when too long */
    va_end(ap);
    s->problem->offset = offset;
    return -ERR_INVALID;
}

static char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static char peek(const struct scan *s)
{
    return s->at < s->end ? upper(s->text[s->at]) : '\0';
}

static bool take(struct scan *s, char c)
{
    if (s->at >= s->end || upper(s->text[s->at]) != c)
        return false;
    s->at++;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits as a number; 9999 stands for all larger ones, which no field allows. */
static unsigned take_digits(struct scan *s)
{
    unsigned v = 0;
    for (; is_digit(peek(s)); s->at++)
        v = v > 999 ? 9999 : v * 10 + (unsigned)(peek(s) - '0');
    return v;
}

static int take_number(struct scan *s, const char *what, unsigned min, unsigned max, unsigned *ret)
{
    size_t at = s->at;
    if (!is_digit(peek(s)))
        return refuse(s, at, "%s: a number from %u to %u is missing (%s)", s->info->name, min, max, what);
    unsigned v = take_digits(s);
    if (v < min || v > max)
        return refuse(s, at, "%s: %s must be from %u to %u", s->info->name, what, min, max);
    *ret = v;
    return 0;
}

/* A number or a name of the field. */
static int take_value(struct scan *s, unsigned *ret)
{
    const struct field_info *f = s->info;
    for (unsigned i = 0; i < f->words_count; i++) {
        if (s->end - s->at < 3 || upper(s->text[s->at]) != f->words[i][0] ||
            upper(s->text[s->at + 1]) != f->words[i][1] || upper(s->text[s->at + 2]) != f->words[i][2])
            continue;
        s->at += 3;
        *ret = f->min + i;
        return 0;
    }
    size_t at = s->at;
    if (is_digit(peek(s))) {
        unsigned v = take_digits(s);
        if (v >= f->min && v <= f->max) {
            *ret = v;
            return 0;
        }
        if (v < 9999)
            return refuse(s, at, "%s: %u is out of range; allowed are %s", f->name, v, f->allowed);
    }
    return refuse(s, at, "%s: a value is missing or unknown; allowed are %s", f->name, f->allowed);
}

/* "/n" if there is one, else 1. */
static int take_step(struct scan *s, unsigned *ret)
{
    *ret = 1;
    if (!take(s, '/'))
        return 0;
    size_t at = s->at;
    if (!is_digit(peek(s)))
        return refuse(s, at, "%s: a step from 1 to %u is missing after /", s->info->name, s->info->step_max);
    unsigned step = take_digits(s);
    if (step < 1 || step > s->info->step_max)
        return refuse(s, at,
                      "%s: a step must be from 1 to %u; for other intervals write @every, such as @every 90m",
                      s->info->name, s->info->step_max);
    *ret = step;
    return 0;
}

/* ---- items ----------------------------------------------------------------------------------------------------- */

static void add_value(struct cron *c, enum cron_field f, unsigned v)
{
    switch (f) {
    case CRON_SECOND:
        c->seconds |= UINT64_C(1) << v;
        break;
    case CRON_MINUTE:
        c->minutes |= UINT64_C(1) << v;
        break;
    case CRON_HOUR:
        c->hours |= UINT32_C(1) << v;
        break;
    case CRON_DAY:
        c->days |= UINT32_C(1) << v;
        break;
    case CRON_MONTH:
        c->months = (uint16_t)(c->months | 1U << v);
        break;
    case CRON_WEEKDAY:
    case CRON_FIELD_COUNT_:
        c->weekdays = (uint8_t)(c->weekdays | 1U << v % 7);
        break;
    }
}

static void add_range(struct cron *c, enum cron_field f, unsigned from, unsigned to, unsigned step)
{
    for (unsigned v = from; v <= to; v += step)
        add_value(c, f, v);
}

/* From > to: over the field's end and on from its beginning, keeping the step. */
static void add_wrapped(struct cron *c, const struct scan *s, unsigned from, unsigned to, unsigned step)
{
    unsigned max = s->field == CRON_WEEKDAY ? 6 : s->info->max;
    unsigned size = max - s->info->min + 1;
    for (unsigned v = from; v <= to + size; v += step)
        add_value(c, s->field, v > max ? v - size : v);
}

static int parse_star(struct scan *s, struct cron *c)
{
    unsigned step = 1;
    unsigned max = s->field == CRON_WEEKDAY ? 6 : s->info->max;
    if (take_step(s, &step) < 0)
        return -ERR_INVALID;
    if (s->field <= CRON_HOUR && (max + 1) % step != 0)
        c->uneven = (uint8_t)(c->uneven | 1U << s->field);
    add_range(c, s->field, s->info->min, max, step);
    return 0;
}

/* A stable choice below N for this job and field. */
static unsigned hashed(const struct scan *s, unsigned n)
{
    const struct cron_options *o = s->options;
    XXH64_hash_t of_ns = XXH64(o->ns, strlen(o->ns), s->field);
    return (unsigned)(XXH64(o->id, strlen(o->id), of_ns) % n);
}

/* After "H": [(lo-hi)][/step] */
static int parse_hash(struct scan *s, struct cron *c)
{
    unsigned lo = s->info->min, hi = s->info->hash_max, step = 1;
    if (take(s, '(')) {
        size_t at = s->at;
        if (take_value(s, &lo) < 0)
            return -ERR_INVALID;
        if (!take(s, '-'))
            return refuse(s, s->at, "%s: H( needs a range such as H(%u-%u)", s->info->name, s->info->min, hi);
        if (take_value(s, &hi) < 0)
            return -ERR_INVALID;
        if (!take(s, ')'))
            return refuse(s, s->at, "%s: the ) after the range of H is missing", s->info->name);
        if (lo > hi)
            return refuse(s, at, "%s: the range of H must not run backwards", s->info->name);
    }
    bool stepped = peek(s) == '/';
    if (take_step(s, &step) < 0)
        return -ERR_INVALID;
    unsigned size = hi - lo + 1;
    if (!stepped) {
        add_value(c, s->field, lo + hashed(s, size));
        return 0;
    }
    add_range(c, s->field, lo + hashed(s, step < size ? step : size), hi, step);
    return 0;
}

/* After "L" in the day of month: "", "W" or "-n". */
static int parse_last_day(struct scan *s, struct cron *c)
{
    unsigned n = 0;
    if (take(s, 'W')) {
        c->last_workday = true;
        return 0;
    }
    if (take(s, '-') && take_number(s, "days before the last", 1, 30, &n) < 0)
        return -ERR_INVALID;
    c->days_from_last |= UINT32_C(1) << n;
    return 0;
}

/* After a day of the week: "L" or "#n". */
static int parse_weekday_suffix(struct scan *s, struct cron *c, unsigned weekday)
{
    unsigned n = 0;
    if (take(s, 'L')) {
        c->last_weekdays = (uint8_t)(c->last_weekdays | 1U << weekday % 7);
        return 0;
    }
    if (!take(s, '#') || take_number(s, "the number after #", 1, 5, &n) < 0)
        return -ERR_INVALID;
    c->nth_weekdays[weekday % 7] = (uint8_t)(c->nth_weekdays[weekday % 7] | 1U << n);
    return 0;
}

/* After the value FROM: [-value][/step] */
static int parse_range(struct scan *s, struct cron *c, unsigned from)
{
    unsigned to = from, step = 1;
    bool ranged = take(s, '-');
    if (ranged && take_value(s, &to) < 0)
        return -ERR_INVALID;
    bool stepped = peek(s) == '/';
    if (take_step(s, &step) < 0)
        return -ERR_INVALID;
    if (stepped && !ranged)
        to = s->info->max;
    if (s->field == CRON_WEEKDAY && from == 7 && to < 7)
        from = 0;
    if (from <= to)
        add_range(c, s->field, from, to, step);
    else
        add_wrapped(c, s, from, to, step);
    return 0;
}

static int parse_value(struct scan *s, struct cron *c)
{
    unsigned v = 0;
    if (take_value(s, &v) < 0)
        return -ERR_INVALID;
    if (s->field == CRON_DAY && take(s, 'W')) {
        assert(v <= 31);
        c->near_days |= UINT32_C(1) << v;
        return 0;
    }
    if (s->field == CRON_WEEKDAY && (peek(s) == 'L' || peek(s) == '#'))
        return parse_weekday_suffix(s, c, v);
    return parse_range(s, c, v);
}

static int parse_item(struct scan *s, struct cron *c)
{
    if (take(s, '*'))
        return parse_star(s, c);
    if (peek(s) == '?')
        return refuse(s, s->at, "%s: ? stands alone and only for a day field; write * for every value",
                      s->info->name);
    if (take(s, 'H'))
        return parse_hash(s, c);
    if (s->field == CRON_DAY && take(s, 'L'))
        return parse_last_day(s, c);
    if (s->field == CRON_WEEKDAY && peek(s) == 'L')
        return refuse(s, s->at,
                      "day of week: L follows a day, such as 5L or FRIL for the last Friday of the month");
    return parse_value(s, c);
}

/* ---- fields ---------------------------------------------------------------------------------------------------- */

static int parse_list(struct scan *s, struct cron *c)
{
    for (;;) {
        if (parse_item(s, c) < 0)
            return -ERR_INVALID;
        if (s->at == s->end)
            return 0;
        if (!take(s, ','))
            return refuse(s, s->at,
                          "%s: unexpected text after a value; allowed are %s, with lists, ranges and steps",
                          s->info->name, s->info->allowed);
    }
}

static int parse_field(struct scan *s, struct cron *c)
{
    char first = peek(s);
    bool day_field = s->field == CRON_DAY || s->field == CRON_WEEKDAY;
    if (s->field == CRON_DAY)
        c->days_star = first == '*' || first == '?';
    if (s->field == CRON_WEEKDAY)
        c->weekdays_star = first == '*' || first == '?';
    if (s->field == CRON_HOUR)
        c->elapsed = first == '*';
    if (day_field && first == '?' && s->end - s->at == 1) {
        s->at++;
        return parse_star(s, c);
    }
    return parse_list(s, c);
}

struct word {
    size_t at;
    size_t end;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Number of words; those beyond FIELDS_MAX are not told apart. */
static size_t split(const char *text, size_t len, struct word words[FIELDS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < len && n < FIELDS_MAX;) {
        if (is_blank(text[i])) {
            i++;
            continue;
        }
        words[n].at = i;
        while (i < len && !is_blank(text[i]))
            i++;
        words[n++].end = i;
    }
    return n;
}

static int check_possible(struct scan *s, const struct cron *c, size_t offset)
{
    static const char *const lengths[] = {"29", "30", "31"};
    if (cron_is_possible(c))
        return 0;
    unsigned longest = 0;
    for (unsigned month = 1; month <= 12; month++)
        if (c->months >> month & 1 && cron_month_length(2000, month) > longest)
            longest = cron_month_length(2000, month);
    if (c->weekdays_star && c->weekdays == 0x7f && longest < 31)
        return refuse(s, offset,
                      "day of month: no month of the month field has such a day; the longest has %s days",
                      lengths[longest - 29]);
    return refuse(s, offset,
                  "day of month: no date matches the day of month, month and day of week together");
}

static int parse_fields(struct scan *s, const struct word *words, size_t n, struct cron *c)
{
    size_t skipped = n == 5 ? 1 : 0;
    for (size_t i = 0; i < n; i++) {
        s->field = (enum cron_field)(i + skipped);
        s->info = &fields[s->field];
        s->at = words[i].at;
        s->end = words[i].end;
        if (parse_field(s, c) < 0)
            return -ERR_INVALID;
    }
    return check_possible(s, c, words[n - 3].at);
}

/* ---- macros and the whole -------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    const char *fields;
} macros[] = {
    {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"},
    {"@weekly", "0 0 * * 0"}, {"@daily", "0 0 * * *"},    {"@midnight", "0 0 * * *"},
    {"@hourly", "0 * * * *"}, {"@minutely", "* * * * *"},
};

static bool word_is(const char *text, const struct word *w, const char *name)
{
    size_t len = strlen(name);
    if (w->end - w->at != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (upper(text[w->at + i]) != upper(name[i]))
            return false;
    return true;
}

static int expand_macro(struct scan *s, const struct word *words, size_t n)
{
    for (size_t i = 0; i < sizeof(macros) / sizeof(macros[0]); i++) {
        if (!word_is(s->text, &words[0], macros[i].name))
            continue;
        if (n > 1)
            return refuse(s, words[1].at, "nothing may follow %s", macros[i].name);
        s->text = macros[i].fields;
        return 0;
    }
    if (word_is(s->text, &words[0], "@reboot"))
        return refuse(
            s, words[0].at,
            "@reboot is not known: jobs outlive agents; write @after 0s for one fire now, or @every");
    return refuse(s, words[0].at,
                  "allowed after @ are yearly, annually, monthly, weekly, daily, midnight, hourly, "
                  "minutely, every, at and after");
}

static bool begins_with(const struct scan *s, const struct word *w, const char *prefix)
{
    struct word head = {w->at, w->at + strlen(prefix)};
    return head.end <= w->end && word_is(s->text, &head, prefix);
}

static int check_shape(struct scan *s, const struct word *words, size_t n)
{
    if (n > 0 && (begins_with(s, &words[0], "TZ=") || begins_with(s, &words[0], "CRON_TZ=")))
        return refuse(s, words[0].at,
                      "a zone is not part of the schedule; write it into the job's field timezone, such as "
                      "\"timezone\": \"Europe/Berlin\"");
    if (n > 6)
        return refuse(s, words[6].at,
                      "a cron expression has 5 fields, or 6 with leading seconds; for a date in one year "
                      "write @at, such as @at 2030-01-31T09:00:00Z");
    if (n < 5)
        return refuse(
            s, n > 0 ? words[n - 1].at : 0,
            "a cron expression has 5 fields (minute, hour, day of month, month, day of week), or 6 with leading "
            "seconds, not %zu",
            n);
    return 0;
}

int cron_parse(const char *text, size_t len, const struct cron_options *o, struct cron *ret,
               struct cron_error *problem)
{
    struct word words[FIELDS_MAX] = {{0, 0}};
    struct scan s = {.text = text, .options = o, .problem = problem};
    problem->text[0] = '\0';
    size_t n = split(text, len, words);
    if (n > 0 && text[words[0].at] == '@') {
        if (expand_macro(&s, words, n) < 0)
            return -ERR_INVALID;
        n = split(s.text, strlen(s.text), words);
    }
    if (check_shape(&s, words, n) < 0)
        return -ERR_INVALID;
    struct cron c = {.short_month_last = o->short_month_last};
    if (n == 5)
        c.seconds = 1;
    if (parse_fields(&s, words, n, &c) < 0)
        return -ERR_INVALID;
    *ret = c;
    return 0;
}
