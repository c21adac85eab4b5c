/* Schedules against the simplest correct version: random expressions, made together with the sets they mean, tried on
 * every second or minute of a stretch of time around a change of the clock. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/schedule.h"
#include "tests/lib/seed.h"
#include "tests/lib/zones.h"

#define MEMBERS_MAX 3
#define DUES_MAX    20000
#define OFFSETS_MAX 8
#define DAY_S       86400

static const char *const zone_names[] = {"Europe/Berlin",     "America/New_York", "Australia/Lord_Howe",
                                         "America/Havana",    "Pacific/Apia",     "Europe/Dublin",
                                         "Africa/Casablanca", "Asia/Kathmandu",   "Asia/Beirut",
                                         "America/Asuncion",  "America/St_Johns", "Antarctica/Troll"};
#define ZONES (sizeof(zone_names) / sizeof(zone_names[0]))

/* ---- an expression and what it means --------------------------------------------------------------------------- */

enum { SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY, FIELDS };

struct meaning {
    char text[512];
    bool every;
    int64_t interval_ms; /* every */
    bool six;
    bool set[FIELDS][60];
    bool star[FIELDS];
    bool last[31]; /* L-n */
    bool near[32]; /* nW */
    bool last_workday;
    bool nth[7][6]; /* w#n; [w][0] is wL */
};

static const int mins[FIELDS] = {0, 0, 0, 1, 1, 0}, maxs[FIELDS] = {59, 59, 23, 31, 12, 6};

static void add_text(struct meaning *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_text(struct meaning *m, const char *fmt, ...)
{
    size_t used = strlen(m->text);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(m->text + used, sizeof(m->text) - used, fmt, ap);
    va_end(ap);
    cr_assert(lt(sz, used + (size_t)n, sizeof(m->text)));
}

static void random_range(struct rng *r, struct meaning *m, int f)
{
    int size = maxs[f] - mins[f] + 1, step = rng_below(r, 2) ? 1 : 1 + (int)rng_below(r, 5);
    int from = mins[f] + (int)rng_below(r, (uint64_t)size),
        length = 1 + (int)rng_below(r, (uint64_t)size - 1);
    add_text(m, "%d-%d", from, mins[f] + (from - mins[f] + length) % size); /* wraps around now and then */
    if (step > 1)
        add_text(m, "/%d", step);
    for (int k = 0; k <= length; k += step)
        m->set[f][mins[f] + (from - mins[f] + k) % size] = true;
}

static void random_date(struct rng *r, struct meaning *m)
{
    int n = (int)rng_below(r, 31);
    switch (rng_below(r, 3)) {
    case 0:
        add_text(m, n ? "L-%d" : "L", n);
        m->last[n] = true;
        break;
    case 1:
        add_text(m, "%dW", n + 1);
        m->near[n + 1] = true;
        break;
    default:
        add_text(m, "LW");
        m->last_workday = true;
    }
}

static void random_item(struct rng *r, struct meaning *m, int f)
{
    int w = (int)rng_below(r, 7), n = (int)rng_below(r, 6);
    uint64_t kind = rng_below(r, 10);
    if (kind < 2 && f == DAY) {
        random_date(r, m);
    } else if (kind < 2 && f == WEEKDAY) {
        m->nth[w][n] = true;
        if (n)
            add_text(m, "%d#%d", w, n);
        else
            add_text(m, "%dL", w);
    } else if (kind < 5) {
        random_range(r, m, f);
    } else {
        int v = mins[f] + (int)rng_below(r, (uint64_t)(maxs[f] - mins[f] + 1));
        add_text(m, "%d", v);
        m->set[f][v] = true;
    }
}

static void random_field(struct rng *r, struct meaning *m, int f, unsigned star_percent)
{
    if (*m->text)
        add_text(m, " ");
    if (rng_below(r, 100) < star_percent) {
        int step = rng_below(r, 3) ? 1 : 2 + (int)rng_below(r, 4);
        m->star[f] = true;
        add_text(m, step > 1 ? "*/%d" : "*", step);
        for (int v = mins[f]; v <= maxs[f]; v += step)
            m->set[f][v] = true;
        return;
    }
    random_item(r, m, f);
    for (uint64_t more = rng_below(r, 3); more > 0; more--) {
        add_text(m, ",");
        random_item(r, m, f);
    }
}

static void random_meaning(struct rng *r, struct meaning *m, bool six)
{
    *m = (struct meaning){.six = six};
    if (rng_below(r, 12) == 0) {
        m->every = true;
        m->interval_ms = (six ? 1000 : 60000) * rng_range(r, 1, 600);
        add_text(m, "@every %" PRId64 "s", m->interval_ms / 1000);
        return;
    }
    if (six)
        random_field(r, m, SECOND, 10);
    else
        m->set[SECOND][0] = true;
    random_field(r, m, MINUTE, 30);
    random_field(r, m, HOUR, 30);
    random_field(r, m, DAY, 60);
    random_field(r, m, MONTH, 80);
    random_field(r, m, WEEKDAY, 60);
}

/* ---- whether a wall time matches ------------------------------------------------------------------------------- */

struct date {
    int64_t days;
    unsigned day, month, weekday, length;
};

static struct date date_of(int64_t wall_s)
{
    struct date d;
    int64_t year;
    d.days = (wall_s - ((wall_s % DAY_S) + DAY_S) % DAY_S) / DAY_S;
    text_civil_from_days(d.days, &year, &d.month, &d.day);
    d.weekday = (unsigned)((d.days + 4) % 7);
    int64_t next =
        d.month == 12 ? text_days_from_civil(year + 1, 1, 1) : text_days_from_civil(year, d.month + 1, 1);
    d.length = (unsigned)(next - (d.days - d.day + 1));
    return d;
}

/* The weekday nearest to DAY of D's month, tried in the order of distance. */
static unsigned nearest(const struct date *d, unsigned day)
{
    static const int tries[] = {0, -1, 1, -2, 2};
    for (unsigned i = 0; i < 5; i++) {
        int64_t other = (int64_t)day + tries[i];
        int64_t weekday = (d->days - d->day + other + 4) % 7;
        if (other >= 1 && other <= d->length && weekday != 0 && weekday != 6)
            return (unsigned)other;
    }
    cr_fatal("a month without a weekday");
}

static bool day_matches(const struct meaning *m, const struct date *d, bool short_month_last)
{
    bool match = m->set[DAY][d->day] || m->last[d->length - d->day] ||
                 (m->last_workday && nearest(d, d->length) == d->day);
    for (unsigned n = 1; n <= d->length; n++)
        match = match || (m->near[n] && nearest(d, n) == d->day);
    for (unsigned n = d->length + 1; n <= 31 && short_month_last && !m->star[DAY]; n++)
        match = match || (m->set[DAY][n] && d->day == d->length) ||
                (m->near[n] && nearest(d, d->length) == d->day);
    return match;
}

static bool weekday_matches(const struct meaning *m, const struct date *d)
{
    return m->set[WEEKDAY][d->weekday] || m->nth[d->weekday][(d->day - 1) / 7 + 1] ||
           (m->nth[d->weekday][0] && d->day + 7 > d->length);
}

static bool wall_matches(const struct meaning *m, int64_t wall_s, bool short_month_last)
{
    int64_t second = ((wall_s % DAY_S) + DAY_S) % DAY_S;
    if (!m->set[SECOND][second % 60] || !m->set[MINUTE][second / 60 % 60] || !m->set[HOUR][second / 3600])
        return false;
    struct date d = date_of(wall_s);
    bool by_day = day_matches(m, &d, short_month_last), by_weekday = weekday_matches(m, &d);
    return m->set[MONTH][d.month] &&
           (m->star[DAY] || m->star[WEEKDAY] ? by_day && by_weekday : by_day || by_weekday);
}

/* ---- the dues of a stretch ------------------------------------------------------------------------------------- */

struct model {
    const struct schedule_options *o;
    struct meaning members[MEMBERS_MAX];
    size_t count;
    int64_t from_s, to_s, unit_s; /* [from_s, to_s) in steps of unit_s */
    int32_t offsets_s[OFFSETS_MAX];
    unsigned offsets_count;
    bool due[DUES_MAX];
};

static void mark(struct model *w, int64_t at_s)
{
    if (at_s >= w->from_s && at_s < w->to_s && (at_s - w->from_s) % w->unit_s == 0)
        w->due[(at_s - w->from_s) / w->unit_s] = true;
}

/* The offsets of the stretch and three days around it. */
static void find_offsets(struct model *w)
{
    w->offsets_count = 0;
    for (int64_t at_s = w->from_s - 3 * DAY_S; at_s < w->to_s + 3 * DAY_S; at_s += 900) {
        int32_t offset_s = tz_offset_s(w->o->tz, at_s);
        bool known = false;
        for (unsigned i = 0; i < w->offsets_count; i++)
            known = known || w->offsets_s[i] == offset_s;
        if (known)
            continue;
        cr_assert(lt(uint, w->offsets_count, OFFSETS_MAX));
        w->offsets_s[w->offsets_count++] = offset_s;
    }
}

/* How many instants show WALL_S, and the first and the last of them. */
static unsigned shown_at(const struct model *w, int64_t wall_s, int64_t *ret_first_s, int64_t *ret_last_s)
{
    unsigned count = 0;
    for (unsigned i = 0; i < w->offsets_count; i++) {
        int64_t at_s = wall_s - w->offsets_s[i];
        if (tz_offset_s(w->o->tz, at_s) != w->offsets_s[i])
            continue;
        *ret_first_s = count == 0 || at_s < *ret_first_s ? at_s : *ret_first_s;
        *ret_last_s = count == 0 || at_s > *ret_last_s ? at_s : *ret_last_s;
        count++;
    }
    return count;
}

static void try_instant(struct model *w, const struct meaning *m, int64_t at_s)
{
    bool last = w->o->short_month == SCHEDULE_SHORT_MONTH_LAST;
    int64_t wall_s = at_s + tz_offset_s(w->o->tz, at_s), first_s = 0, last_s = 0;
    if (!wall_matches(m, wall_s, last))
        return;
    cr_assert(ge(uint, shown_at(w, wall_s, &first_s, &last_s), 1));
    if (m->star[HOUR] || w->o->repeat == SCHEDULE_REPEAT_BOTH ||
        at_s == (w->o->repeat == SCHEDULE_REPEAT_FIRST ? first_s : last_s))
        mark(w, at_s);
}

/* Every wall time that the jump at CHANGE_S leaves out. */
static void try_gap(struct model *w, const struct meaning *m, int64_t change_s)
{
    int64_t before_s = tz_offset_s(w->o->tz, change_s - 1), after_s = tz_offset_s(w->o->tz, change_s);
    for (int64_t wall_s = change_s + before_s; wall_s < change_s + after_s; wall_s++)
        if (!m->star[HOUR] && w->o->gap == SCHEDULE_GAP_SHIFT &&
            wall_matches(m, wall_s, w->o->short_month == SCHEDULE_SHORT_MONTH_LAST))
            mark(w, wall_s - before_s);
}

static void run_member(struct model *w, const struct meaning *m)
{
    if (m->every) {
        for (int64_t at_ms = w->from_s * 1000; at_ms < w->to_s * 1000; at_ms += w->unit_s * 1000)
            if ((at_ms - w->o->phase_ms) % m->interval_ms == 0)
                mark(w, at_ms / 1000);
        return;
    }
    for (int64_t at_s = w->from_s; at_s < w->to_s; at_s += w->unit_s)
        try_instant(w, m, at_s);
    for (int64_t at_s = tz_next_change_s(w->o->tz, w->from_s - 2 * DAY_S); at_s < w->to_s;
         at_s = tz_next_change_s(w->o->tz, at_s))
        try_gap(w, m, at_s);
}

/* ---- comparing ------------------------------------------------------------------------------------------------- */

static int64_t model_next_ms(const struct model *w, int64_t after_ms)
{
    for (int64_t at_s = w->from_s; at_s < w->to_s; at_s += w->unit_s)
        if (at_s * 1000 > after_ms && w->due[(at_s - w->from_s) / w->unit_s])
            return at_s * 1000;
    return INT64_MAX;
}

static uint64_t model_count(const struct model *w, int64_t from_ms, int64_t to_ms)
{
    uint64_t count = 0;
    for (int64_t at_s = w->from_s; at_s < w->to_s; at_s += w->unit_s)
        count += at_s * 1000 >= from_ms && at_s * 1000 < to_ms && w->due[(at_s - w->from_s) / w->unit_s];
    return count;
}

static void describe(const struct model *w, uint64_t seed, char text[1024])
{
    int n = snprintf(text, 1024, "seed=%" PRIu64 " %s from %" PRId64 " gap=%d repeat=%d short_month=%d", seed,
                     tz_name(w->o->tz), w->from_s, (int)w->o->gap, (int)w->o->repeat, (int)w->o->short_month);
    for (size_t i = 0; i < w->count && n < 900; i++)
        n += snprintf(text + n, (size_t)(1024 - n), " | %.100s", w->members[i].text);
}

static void compare_all(const struct model *w, const struct schedule *s, const char *story)
{
    struct schedule_due due = {.due_ms = w->from_s * 1000 - 1};
    int64_t last_ms = INT64_MIN, gap_ms = schedule_min_gap_ms(s, w->from_s * 1000);
    for (int64_t i = 0; i < (w->to_s - w->from_s) / w->unit_s; i++) {
        if (!w->due[i])
            continue;
        int64_t wanted_ms = (w->from_s + i * w->unit_s) * 1000;
        cr_assert(schedule_next(s, due.due_ms, &due), "%s", story);
        cr_assert(eq(i64, due.due_ms, wanted_ms), "%s", story);
        if (last_ms != INT64_MIN)
            cr_assert(le(i64, gap_ms, wanted_ms - last_ms), "%s", story);
        last_ms = wanted_ms;
    }
    if (schedule_next(s, due.due_ms, &due))
        cr_assert(ge(i64, due.due_ms, w->to_s * 1000), "%s", story);
}

static void compare_some(const struct model *w, const struct schedule *s, struct rng *r, const char *story)
{
    for (int i = 0; i < 5; i++) {
        int64_t from_ms = rng_range(r, w->from_s * 1000, w->to_s * 1000 - 1);
        int64_t to_ms = rng_range(r, from_ms, w->to_s * 1000 - 1);
        struct schedule_due due = {.due_ms = INT64_MAX};
        uint64_t count = model_count(w, from_ms, to_ms);
        cr_assert(eq(u64, schedule_count(s, from_ms, to_ms, UINT64_MAX), count), "%s: %" PRId64 " %" PRId64,
                  story, from_ms, to_ms);
        int64_t next_ms = model_next_ms(w, from_ms);
        if (next_ms != INT64_MAX && schedule_next(s, from_ms, &due))
            cr_assert(eq(i64, due.due_ms, next_ms), "%s", story);
        if (count == 0)
            continue;
        cr_assert(schedule_last_before(s, to_ms, &due), "%s", story);
        cr_assert(lt(i64, due.due_ms, to_ms), "%s", story);
        cr_assert(ge(i64, due.due_ms, from_ms), "%s", story);
        cr_assert(zero(u64, model_count(w, due.due_ms + 1, to_ms)), "%s", story);
        cr_assert(eq(u64, model_count(w, due.due_ms, due.due_ms + 1), 1), "%s", story);
    }
}

static struct schedule *parse_model(const struct model *w)
{
    struct schedule_expr exprs[MEMBERS_MAX];
    struct schedule *s = NULL;
    struct err e = {0};
    for (size_t i = 0; i < w->count; i++)
        exprs[i] = (struct schedule_expr){w->members[i].text, strlen(w->members[i].text)};
    if (schedule_parse(exprs, w->count, w->o, &s, NULL, &e) < 0)
        cr_assert(ne(ptr, strstr(e.text, "day of month: no"), NULL), "'%s': %s", w->members[0].text, e.text);
    return s; /* NULL: no calendar has such a date */
}

/* A stretch that begins up to a day before a change of the clock: hours by second, or days by minute. */
static void place(struct model *w, struct rng *r, bool six)
{
    int64_t at_s = rng_range(r, 0, 60 * 366 * (int64_t)DAY_S), change_s = tz_next_change_s(w->o->tz, at_s);
    w->unit_s = six ? 1 : 60;
    if (change_s == INT64_MAX || rng_below(r, 5) == 0)
        change_s = at_s;
    int64_t before_s = rng_range(r, 0, six ? 2 * 3600 : DAY_S);
    w->from_s = (change_s - before_s) / 60 * 60;
    w->from_s = w->from_s < 0 ? 0 : w->from_s;
    w->to_s = w->from_s + (six ? 4 * 3600 : 9 * DAY_S);
}

static bool run_case(struct rng *r, uint64_t seed, const struct tz *const zones[ZONES])
{
    static struct model w; /* large */
    bool six = rng_below(r, 3) == 0;
    char story[1024];
    struct schedule_options o = {.tz = zones[rng_below(r, ZONES)],
                                 .gap = (enum schedule_gap)rng_below(r, SCHEDULE_GAP_COUNT_),
                                 .repeat = (enum schedule_repeat)rng_below(r, SCHEDULE_REPEAT_COUNT_),
                                 .short_month =
                                     (enum schedule_short_month)rng_below(r, SCHEDULE_SHORT_MONTH_COUNT_),
                                 .starts_ms = SCHEDULE_NONE,
                                 .ends_ms = SCHEDULE_NONE,
                                 .phase_ms = rng_range(r, 0, 1000000) * 60000};
    w = (struct model){.o = &o, .count = 1 + rng_below(r, MEMBERS_MAX)};
    for (size_t i = 0; i < w.count; i++)
        random_meaning(r, &w.members[i], six);
    place(&w, r, six);
    find_offsets(&w);
    AUTO(schedule_free) struct schedule *s = parse_model(&w);
    if (!s)
        return false;
    for (size_t i = 0; i < w.count; i++)
        run_member(&w, &w.members[i]);
    describe(&w, seed, story);
    compare_all(&w, s, story);
    compare_some(&w, s, r, story);
    return true;
}

Test(schedule_model, dues_are_those_of_trying_every_second)
{
    struct rng r;
    uint64_t seed = seed_rng(&r, "schedule");
    const struct tz *zones[ZONES];
    for (size_t i = 0; i < ZONES; i++)
        zones[i] = zone_open(zone_names[i]);
    unsigned possible = 0;
    for (int i = 0; i < 1500; i++)
        possible += run_case(&r, seed, zones);
    cr_expect(gt(uint, possible, 1200));
    for (size_t i = 0; i < ZONES; i++)
        tz_free((struct tz *)zones[i]);
}
