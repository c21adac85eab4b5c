#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/schedule.h"
#include "tests/lib/zones.h"

#define DAY_MS ((int64_t)86400000)

static int64_t instant_ms(const char *text)
{
    int64_t ms = -1;
    cr_assert(zero(int, text_instant_ms(text, strlen(text), &ms, NULL)), "%s", text);
    return ms;
}

static struct schedule_options options_in(const struct tz *z)
{
    return (struct schedule_options){.tz = z,
                                     .starts_ms = SCHEDULE_NONE,
                                     .ends_ms = SCHEDULE_NONE,
                                     .phase_ms = instant_ms("2026-11-23T08:00:00Z"),
                                     .min_interval_ms = 1000,
                                     .ns = "default",
                                     .id = "job",
                                     .arming = true,
                                     .accepted_ms = instant_ms("2026-11-23T08:00:00Z")};
}

/* TEXTS: expressions separated by '|'. */
static int parse(const char *texts, const struct schedule_options *o, struct schedule **ret,
                 struct schedule_issues *issues, struct err *e)
{
    struct schedule_expr exprs[32];
    size_t n = 0;
    for (const char *t = texts;; t += strcspn(t, "|") + 1) {
        exprs[n++] = (struct schedule_expr){t, strcspn(t, "|")};
        if (t[strcspn(t, "|")] == '\0')
            break;
    }
    return schedule_parse(exprs, n, o, ret, issues, e);
}

static struct schedule *compile(const char *texts, const struct schedule_options *o)
{
    struct schedule *s = NULL;
    struct err e = {0};
    int rc = parse(texts, o, &s, NULL, &e);
    cr_assert(zero(int, rc), "'%s': %s", texts, e.text);
    return s;
}

/* The dues after AFTER are WANTED: "2026-11-23T08:00:00Z[=note]", separated by spaces; "end" for none. */
static void check_dues(const struct schedule *s, const char *after, const char *wanted)
{
    int64_t at_ms = instant_ms(after);
    for (const char *w = wanted; *w; w += strspn(w, " ")) {
        char one[64] = "", got[64] = "end";
        struct schedule_due due;
        size_t n = strcspn(w, " ");
        memcpy(one, w, n);
        w += n;
        if (schedule_next(s, at_ms, &due)) {
            text_instant_print(got, due.due_ms);
            if (due.due_ms % 1000 == 0)
                memcpy(got + 19, "Z", 2);
            const char *note = schedule_note_name(due.note);
            (void)snprintf(got + strlen(got), 16, "%s%s", note ? "=" : "", note ? note : "");
            at_ms = due.due_ms;
        }
        cr_assert(eq(str, got, one), "after %s", after);
    }
}

static void check(const char *texts, const struct schedule_options *o, const char *after, const char *wanted)
{
    AUTO(schedule_free) struct schedule *s = compile(texts, o);
    check_dues(s, after, wanted);
}

/* ---- zones ----------------------------------------------------------------------------------------------------- */

Test(schedule, a_fixed_hour_follows_the_wall_clock)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    struct schedule_options o = options_in(z);
    check("0 9 * * MON-FRI", &o, "2027-03-26T00:00:00Z", "2027-03-26T08:00:00Z 2027-03-29T07:00:00Z");
}

Test(schedule, a_time_in_a_gap_is_due_later_by_the_length_of_the_gap)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    struct schedule_options o = options_in(z);
    check("30 2 * * *", &o, "2027-03-27T00:00:00Z",
          "2027-03-27T01:30:00Z 2027-03-28T01:30:00Z=dst_gap 2027-03-29T00:30:00Z");
    check("*/20 2,3 * * *", &o, "2027-03-28T00:00:00Z",
          "2027-03-28T01:00:00Z 2027-03-28T01:20:00Z 2027-03-28T01:40:00Z 2027-03-29T00:00:00Z");
    check(
        "*/20 2 * * *", &o, "2027-03-28T00:00:00Z",
        "2027-03-28T01:00:00Z=dst_gap 2027-03-28T01:20:00Z=dst_gap 2027-03-28T01:40:00Z=dst_gap 2027-03-29T00:00:00Z");
}

Test(schedule, a_time_in_a_gap_can_be_skipped)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    struct schedule_options o = options_in(z);
    o.gap = SCHEDULE_GAP_SKIP;
    check("30 2 * * *", &o, "2027-03-27T00:00:00Z", "2027-03-27T01:30:00Z 2027-03-29T00:30:00Z");
}

Test(schedule, a_repeated_time_is_due_first_second_or_both)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    struct schedule_options o = options_in(z);
    check("30 2 * * *", &o, "2027-10-30T12:00:00Z", "2027-10-31T00:30:00Z=dst_repeat 2027-11-01T01:30:00Z");
    o.repeat = SCHEDULE_REPEAT_SECOND;
    check("30 2 * * *", &o, "2027-10-30T12:00:00Z", "2027-10-31T01:30:00Z=dst_repeat 2027-11-01T01:30:00Z");
    o.repeat = SCHEDULE_REPEAT_BOTH;
    check("30 2 * * *", &o, "2027-10-30T12:00:00Z",
          "2027-10-31T00:30:00Z=dst_repeat 2027-10-31T01:30:00Z=dst_repeat 2027-11-01T01:30:00Z");
}

Test(schedule, a_starred_hour_follows_elapsed_time)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    struct schedule_options o = options_in(z);
    check(
        "30 * * * *", &o, "2027-10-30T23:00:00Z",
        "2027-10-30T23:30:00Z 2027-10-31T00:30:00Z=dst_repeat 2027-10-31T01:30:00Z=dst_repeat 2027-10-31T02:30:00Z");
    check("30 */2 * * *", &o, "2027-03-27T23:00:00Z", "2027-03-27T23:30:00Z 2027-03-28T02:30:00Z");
}

Test(schedule, half_an_hour_of_summer_time_is_no_special_case)
{
    AUTO(tz_free) struct tz *z = zone_open("Australia/Lord_Howe");
    struct schedule_options o = options_in(z);
    check("15,45 2 4 10 *", &o, "2026-10-01T00:00:00Z", "2026-10-03T15:45:00Z 2027-10-03T15:15:00Z");
    check("15 2 * * *", &o, "2026-10-03T00:00:00Z", "2026-10-03T15:45:00Z=dst_gap 2026-10-04T15:15:00Z");
    check("45 1 * * *", &o, "2027-04-03T00:00:00Z", "2027-04-03T14:45:00Z=dst_repeat 2027-04-04T15:15:00Z");
}

Test(schedule, a_midnight_that_is_left_out_is_due_after_it)
{
    AUTO(tz_free) struct tz *z = zone_open("America/Havana");
    struct schedule_options o = options_in(z);
    check("0 0 * * *", &o, "2025-03-08T12:00:00Z", "2025-03-09T05:00:00Z=dst_gap 2025-03-10T04:00:00Z");
}

Test(schedule, a_day_that_is_left_out_moves_into_the_next)
{
    AUTO(tz_free) struct tz *z = zone_open("Pacific/Apia");
    struct schedule_options o = options_in(z);
    check("0 9 * * *", &o, "2011-12-28T20:00:00Z",
          "2011-12-29T19:00:00Z 2011-12-30T19:00:00Z 2011-12-31T19:00:00Z");
    check("0 9 30 * *", &o, "2011-12-28T20:00:00Z", "2011-12-30T19:00:00Z=dst_gap 2012-01-29T19:00:00Z");
    check("0 * * * *", &o, "2011-12-30T09:00:00Z", "2011-12-30T10:00:00Z 2011-12-30T11:00:00Z");
}

Test(schedule, a_short_month_is_noted)
{
    struct schedule_options o = options_in(NULL);
    o.short_month = SCHEDULE_SHORT_MONTH_LAST;
    check("0 0 31 * *", &o, "2027-02-01T00:00:00Z", "2027-02-28T00:00:00Z=short_month 2027-03-31T00:00:00Z");
    check("0 0 31 * SUN", &o, "2027-02-22T00:00:00Z", "2027-02-28T00:00:00Z"); /* a Sunday anyway */
}

/* ---- the other expressions, unions and bounds ------------------------------------------------------------------ */

Test(schedule, every_counts_from_its_phase)
{
    struct schedule_options o = options_in(NULL);
    o.phase_ms = instant_ms("2026-11-23T08:00:00.250Z");
    check("@every 90s", &o, "2026-11-23T08:00:00.250Z", "2026-11-23T08:01:30.250Z 2026-11-23T08:03:00.250Z");
    check("@EVERY  1h30m", &o, "2026-11-23T08:00:00Z", "2026-11-23T08:00:00.250Z 2026-11-23T09:30:00.250Z");
}

Test(schedule, an_instant_is_due_once)
{
    struct schedule_options o = options_in(NULL);
    AUTO(schedule_free) struct schedule *s = compile("@at 2026-11-24T09:00:00+01:00", &o);
    check_dues(s, "2026-11-23T08:00:00Z", "2026-11-24T08:00:00Z end");
    cr_expect(eq(str, (char *)schedule_expr_text(s, 0), "@at 2026-11-24T08:00:00.000Z"));
    cr_expect(not(schedule_is_recurring(s)));
}

Test(schedule, a_delay_is_kept_as_the_instant_it_means)
{
    struct schedule_options o = options_in(NULL);
    AUTO(schedule_free) struct schedule *s = compile(" @after\t15m ", &o);
    cr_expect(eq(str, (char *)schedule_expr_text(s, 0), "@at 2026-11-23T08:15:00.000Z"));
    check_dues(s, "2026-11-23T08:00:00Z", "2026-11-23T08:15:00Z end");
}

Test(schedule, canonical_text_parses_to_the_same)
{
    struct schedule_options o = options_in(NULL);
    AUTO(schedule_free) struct schedule *s = compile("  0\t9  * *   mon |@daily|@every   1h| @after 0s", &o);
    const char *const texts[] = {"0 9 * * mon", "@daily", "@every 1h", "@at 2026-11-23T08:00:00.000Z"};
    cr_assert(eq(sz, schedule_expr_count(s), 4));
    o.arming = false;
    for (size_t i = 0; i < 4; i++) {
        cr_expect(eq(str, (char *)schedule_expr_text(s, i), (char *)texts[i]));
        AUTO(schedule_free) struct schedule *again = compile(texts[i], &o);
        cr_expect(eq(str, (char *)schedule_expr_text(again, 0), (char *)texts[i]));
    }
}

Test(schedule, equal_dues_of_a_union_are_one)
{
    struct schedule_options o = options_in(NULL);
    check("0 9 * * *|*/30 9 * * *|@every 1h|@at 2026-11-24T09:00:00Z", &o, "2026-11-24T08:30:00Z",
          "2026-11-24T09:00:00Z 2026-11-24T09:30:00Z 2026-11-24T10:00:00Z");
}

Test(schedule, bounds_include_the_start_and_exclude_the_end)
{
    struct schedule_options o = options_in(NULL);
    o.starts_ms = instant_ms("2026-12-01T00:00:00Z");
    o.ends_ms = instant_ms("2026-12-03T00:00:00Z");
    check("@daily", &o, "2026-11-23T08:00:00Z", "2026-12-01T00:00:00Z 2026-12-02T00:00:00Z end");
    o.ends_ms++;
    check("@daily", &o, "2026-11-23T08:00:00Z",
          "2026-12-01T00:00:00Z 2026-12-02T00:00:00Z 2026-12-03T00:00:00Z end");
}

Test(schedule, nothing_is_due_from_2200_on)
{
    struct schedule_options o = options_in(NULL);
    check("@yearly|@every 7d", &o, "2199-12-28T00:00:00Z", "2199-12-30T08:00:00Z end");
    AUTO(schedule_free) struct schedule *s = compile("* * * * *", &o);
    struct schedule_due due;
    cr_expect(not(schedule_next(s, INT64_MAX, &due)));
    cr_expect(schedule_next(s, INT64_MIN, &due));
    cr_expect(zero(i64, due.due_ms));
}

Test(schedule, an_instant_of_the_last_day_is_the_first_due_of_a_new_job)
{
    struct schedule_options o = options_in(NULL);
    AUTO(schedule_free) struct schedule *s = compile("@at 2026-11-24T06:10:00Z|@at 2026-11-23T06:10:00Z", &o);
    struct schedule_due due;
    cr_assert(schedule_next_accepted(s, o.accepted_ms, SCHEDULE_NONE, &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2026-11-23T06:10:00Z")));
    cr_assert(schedule_next_accepted(s, o.accepted_ms, due.due_ms, &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2026-11-24T06:10:00Z")));
    cr_assert(schedule_next_accepted(s, o.accepted_ms + DAY_MS, SCHEDULE_NONE, &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2026-11-24T06:10:00Z")), "the other is too old by then");
}

/* Such a job was changed after its instant: nothing that was due before the change comes after it. */
Test(schedule, beside_recurring_dues_an_instant_counts_from_acceptance_too)
{
    struct schedule_options before = options_in(NULL), o = options_in(NULL);
    before.accepted_ms -= DAY_MS;
    AUTO(schedule_free) struct schedule *was = compile("@daily|@at 2026-11-23T06:10:00Z", &before);
    o.before = was;
    AUTO(schedule_free) struct schedule *s = compile("@hourly|@at 2026-11-23T06:10:00Z", &o);
    struct schedule_due due;
    cr_assert(schedule_next_accepted(s, o.accepted_ms, SCHEDULE_NONE, &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2026-11-23T09:00:00Z")));
    cr_assert(schedule_next_accepted(s, instant_ms("2026-11-23T06:10:00Z"), SCHEDULE_NONE, &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2026-11-23T06:10:00Z")), "it has not passed");
}

/* ---- counting, looking back, gaps, jitter ---------------------------------------------------------------------- */

static uint64_t count(const char *texts, const struct tz *z, const char *from, const char *to)
{
    struct schedule_options o = options_in(z);
    o.arming = false;
    AUTO(schedule_free) struct schedule *s = compile(texts, &o);
    return schedule_count(s, instant_ms(from), instant_ms(to), UINT64_MAX);
}

Test(schedule, long_runs_are_counted)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    cr_expect(eq(u64, count("@every 1s", NULL, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), 365 * 86400));
    cr_expect(eq(u64, count("* * * * * *", z, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), 365 * 86400));
    cr_expect(eq(u64, count("* 2 * * *", z, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), 365 * 60));
    cr_expect(
        eq(u64, count("* 2,3 * * *", z, "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), 365 * 120 - 60));
    cr_expect(eq(u64, count("0 0 29 2 *", NULL, "2000-01-01T00:00:00Z", "2200-01-01T00:00:00Z"), 49));
    cr_expect(eq(
        u64, count("@at 1970-01-02T00:00:00Z|@daily", NULL, "1970-01-01T00:00:00Z", "1970-01-11T00:00:00Z"),
        10));
}

Test(schedule, counting_stops_at_the_cap)
{
    struct schedule_options o = options_in(NULL);
    AUTO(schedule_free) struct schedule *s = compile("* * * * * *|@every 7s|@every 11s", &o);
    cr_expect(eq(u64, schedule_count(s, 0, SCHEDULE_END_MS, 1000), 1000));
}

Test(schedule, the_newest_due_before_an_instant_is_found)
{
    struct schedule_options o = options_in(NULL);
    AUTO(schedule_free) struct schedule *s = compile("0 0 29 2 *", &o);
    struct schedule_due due;
    cr_assert(schedule_last_before(s, instant_ms("2026-11-23T00:00:00Z"), &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2024-02-29T00:00:00Z")));
    cr_assert(schedule_last_before(s, due.due_ms, &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2020-02-29T00:00:00Z")));
    cr_expect(not(schedule_last_before(s, instant_ms("1972-02-29T00:00:00Z"), &due)));
    cr_expect(not(schedule_last_before(s, INT64_MIN, &due)));
    cr_assert(schedule_last_before(s, INT64_MAX, &due));
    cr_expect(eq(i64, due.due_ms, instant_ms("2196-02-29T00:00:00Z")));
}

static int64_t gap_ms(const char *texts, const struct tz *z)
{
    struct schedule_options o = options_in(z);
    AUTO(schedule_free) struct schedule *s = compile(texts, &o);
    return schedule_min_gap_ms(s, o.accepted_ms);
}

Test(schedule, the_shortest_gap_knows_the_days_on_which_clocks_are_set)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    cr_expect(eq(i64, gap_ms("* * * * *", z), 60000));
    cr_expect(eq(i64, gap_ms("*/2 * * * * *", z), 2000));
    cr_expect(eq(i64, gap_ms("0 9 * * *", NULL), DAY_MS));
    cr_expect(eq(i64, gap_ms("0 9 * * *", z), 23 * DAY_MS / 24));
    cr_expect(eq(i64, gap_ms("0 9 * * MON", z), 7 * DAY_MS - DAY_MS / 24));
    cr_expect(eq(i64, gap_ms("0 9 1 * *", NULL), 28 * DAY_MS));
    cr_expect(eq(i64, gap_ms("30 2 * * *|35 3 * * *", z), 5 * 60000), "02:30 is due at 03:30 once a year");
    cr_expect(eq(i64, gap_ms("0 0 29 2 *", NULL), 4 * 366 * DAY_MS - 3 * DAY_MS));
}

Test(schedule, the_shortest_gap_of_intervals_and_instants)
{
    cr_expect(eq(i64, gap_ms("@every 90s", NULL), 90000));
    cr_expect(eq(i64, gap_ms("@every 6s|@every 10s", NULL), 2000));
    cr_expect(eq(i64, gap_ms("@at 2030-01-01T00:00:00Z", NULL), INT64_MAX));
    cr_expect(eq(i64, gap_ms("@at 2030-01-01T00:00:00Z|@at 2030-01-01T00:00:07Z|@daily", NULL), 7000));
}

Test(schedule, jitter_is_stable_and_spreads_within_its_bound)
{
    uint8_t uid[16] = "0123456789abcdef";
    unsigned seen[11] = {0};
    for (int64_t due = 0; due < 11000; due++) {
        int64_t jitter_ms = schedule_jitter_ms(uid, due, 10);
        cr_assert(ge(i64, jitter_ms, 0));
        cr_assert(le(i64, jitter_ms, 10));
        seen[jitter_ms]++;
    }
    for (unsigned i = 0; i <= 10; i++)
        cr_assert(gt(uint, seen[i], 850), "%u", i);
    cr_expect(zero(i64, schedule_jitter_ms(uid, 1, 0)));
    cr_expect(eq(i64, schedule_jitter_ms(uid, 1795420800000, 3600000), 899546), "the value is a promise");
}

/* ---- refusals and warnings ------------------------------------------------------------------------------------- */

static void check_issue(const char *texts, const struct schedule_options *o, enum schedule_issue_kind kind,
                        size_t expr, size_t offset, const char *wanted)
{
    struct schedule *s = NULL;
    struct schedule_issues issues;
    struct err e = {0};
    int rc = parse(texts, o, &s, &issues, &e);
    cr_expect(eq(int, rc, kind == SCHEDULE_WARNING ? 0 : -ERR_INVALID), "'%s'", texts);
    cr_expect(eq(int, s != NULL, kind == SCHEDULE_WARNING), "'%s'", texts);
    bool found = false;
    for (size_t i = 0; i < issues.count && !found; i++)
        found = issues.items[i].kind == kind && strstr(issues.items[i].text, wanted) &&
                issues.items[i].expr == expr && issues.items[i].offset == offset;
    cr_expect(found, "'%s': no '%s' among %zu, first '%s' (%zu at %zu)", texts, wanted, issues.count,
              issues.items[0].text, issues.items[0].expr, issues.items[0].offset);
    cr_expect(eq(int, e.text[0] != '\0', kind != SCHEDULE_WARNING), "'%s'", e.text);
    schedule_free(s);
}

Test(schedule, refusals_say_where_and_what_to_write)
{
    struct schedule_options o = options_in(NULL);
    check_issue("@daily|  0 25 * * *", &o, SCHEDULE_ERROR, 1, 4, "hour: 25 is out of range");
    check_issue("@every 999ms", &o, SCHEDULE_ERROR, 0, 7, "from 1s to 3660d");
    check_issue("@every 4000d", &o, SCHEDULE_ERROR, 0, 7, "from 1s to 3660d");
    check_issue("@every", &o, SCHEDULE_ERROR, 0, 6, "a duration such as");
    check_issue("@every 1 h", &o, SCHEDULE_ERROR, 0, 7, "a duration such as");
    check_issue("@at tomorrow", &o, SCHEDULE_ERROR, 0, 4, "RFC 3339");
    check_issue("@at 2026-11-24T09:00:00", &o, SCHEDULE_ERROR, 0, 4, "with its offset");
    check_issue("@at 2200-01-01T00:00:00Z", &o, SCHEDULE_ERROR, 0, 4, "before the year 2200");
    o.accepted_ms = instant_ms("2150-01-01T00:00:00Z");
    check_issue("@after 36500d", &o, SCHEDULE_ERROR, 0, 7, "before the year 2200");
}

Test(schedule, an_instant_over_a_day_ago_is_refused_at_a_write_only)
{
    struct schedule_options o = options_in(NULL);
    check_issue("@at 2026-11-22T08:00:00Z", &o, SCHEDULE_ERROR_PAST, 0, 4, "more than 24h ago");
    schedule_free(compile("@at 2026-11-22T08:00:00.001Z", &o));
    o.arming = false;
    schedule_free(compile("@at 2026-11-22T08:00:00Z", &o));
    check_issue("@after 5m", &o, SCHEDULE_ERROR, 0, 0, "what is stored has @at");
}

Test(schedule, every_bad_expression_is_reported)
{
    struct schedule_options o = options_in(NULL);
    struct schedule *s = NULL;
    struct schedule_issues issues;
    cr_expect(eq(int, parse("bad|@daily|@every x|0 0 30 2 *", &o, &s, &issues, NULL), -ERR_INVALID));
    cr_assert(eq(sz, issues.count, 3));
    cr_expect(eq(sz, issues.items[0].expr, 0));
    cr_expect(eq(sz, issues.items[1].expr, 2));
    cr_expect(eq(sz, issues.items[2].expr, 3));
}

Test(schedule, numbers_and_lengths_are_limited)
{
    struct schedule_options o = options_in(NULL);
    check_issue("*|*|*|*|*|*|*|*|*|*|*|*|*|*|*|*|*", &o, SCHEDULE_ERROR, 0, 0, "1 to 16 expressions");
    char text[SCHEDULE_TEXT_MAX + 2];
    memset(text, ' ', sizeof(text));
    memcpy(text, "@daily", 6);
    text[SCHEDULE_TEXT_MAX + 1] = '\0';
    check_issue(text, &o, SCHEDULE_ERROR, 0, 0, "at most 512 bytes");
    text[SCHEDULE_TEXT_MAX] = '\0';
    schedule_free(compile(text, &o));
}

Test(schedule, bounds_that_cross_and_jitter_over_the_gap_are_refused)
{
    struct schedule_options o = options_in(NULL);
    o.jitter_ms = 60001;
    check_issue("* * * * *", &o, SCHEDULE_ERROR, 0, 0, "shortest gap between two dues, which is 1m");
    o.jitter_ms = 60000;
    schedule_free(compile("* * * * *", &o));
    o.jitter_ms = DAY_MS;
    schedule_free(compile("@at 2030-01-01T00:00:00Z", &o));
    o.starts_ms = o.ends_ms = instant_ms("2027-01-01T00:00:00Z");
    check_issue("@daily", &o, SCHEDULE_ERROR, 0, 0, "ends_at must be after starts_at");
}

Test(schedule, what_may_surprise_is_warned_of)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    struct schedule_options o = options_in(z);
    check_issue("0 9 31 * *", &o, SCHEDULE_WARNING, 0, 0, "day of month 31 is skipped");
    check_issue("0 9 29 2 *", &o, SCHEDULE_WARNING, 0, 0, "leap years only");
    check_issue("0 9 13 * FRI", &o, SCHEDULE_WARNING, 0, 0, "matches either");
    check_issue("*/7 * * * *", &o, SCHEDULE_WARNING, 0, 0, "minute: the step begins anew with each hour");
    check_issue("30 2 * * *", &o, SCHEDULE_WARNING, 0, 0,
                "2027-03-28 02:30:00 does not exist in Europe/Berlin");
    check_issue("30 2 * * *", &o, SCHEDULE_WARNING, 0, 0,
                "2027-10-31 02:30:00 occurs twice in Europe/Berlin");
    o.ends_ms = instant_ms("2026-11-23T08:30:00Z");
    check_issue("0 0 1 1 *", &o, SCHEDULE_WARNING, 0, 0, "nothing is due");
}

Test(schedule, what_surprises_nobody_is_not)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    struct schedule_options o = options_in(z);
    struct schedule_issues issues;
    const char *const texts[] = {"0 9 * * MON-FRI", "0 9 1-31 * *", "30 2 * * MON", "*/15 * * * *", "@daily",
                                 "30 * * * *",      "0 9 L * *",    "@every 7m",    "0 9 31 1,3 *"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct schedule *s = NULL;
        cr_assert(zero(int, parse(texts[i], &o, &s, &issues, NULL)), "%s", texts[i]);
        cr_expect(zero(sz, issues.count), "%s: %s", texts[i], issues.items[0].text);
        schedule_free(s);
    }
}

Test(schedule, nothing_is_kept_when_memory_fails)
{
    struct schedule_options o = options_in(NULL);
    for (unsigned k = 0;; k++) {
        struct schedule *s = NULL;
        fault_arm(k);
        int r = parse("0 9 * * *|@every 5m|@after 1h", &o, &s, NULL, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(ge(uint, k, 4));
            schedule_free(s);
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u", k);
        cr_assert(zero(ptr, s), "k=%u", k);
    }
}
