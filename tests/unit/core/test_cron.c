#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/cron.h"

static struct cron_options options = {.ns = "default", .id = "job"};

static int64_t wall_s(const char *text)
{
    int64_t ms = -1;
    cr_assert(zero(int, text_instant_ms(text, strlen(text), &ms, NULL)), "%s", text);
    return ms / 1000;
}

static struct cron compile(const char *text)
{
    struct cron c;
    struct cron_error problem;
    int rc = cron_parse(text, strlen(text), &options, &c, &problem);
    cr_assert(zero(int, rc), "'%s': %s", text, problem.text);
    return c;
}

/* The matches after FROM (inclusive) are WANTED, instants separated by spaces; each is the whole text up to 'Z'. */
static void check(const char *text, const char *from, const char *wanted)
{
    struct cron c = compile(text);
    int64_t at_s = wall_s(from) - 1;
    for (const char *w = wanted; *w; w += strspn(w, " ")) {
        char one[TEXT_INSTANT_SIZE] = "", got[TEXT_INSTANT_SIZE];
        size_t n = strcspn(w, " ");
        memcpy(one, w, n);
        w += n;
        cr_assert(cron_next(&c, at_s + 1, INT64_MAX / 2, &at_s, NULL), "'%s' ends before %s", text, one);
        text_instant_print(got, at_s * 1000);
        cr_assert(eq(i64, at_s, wall_s(one)), "'%s' is due %s instead of %s", text, got, one);
    }
}

Test(cron, five_fields_are_due_at_second_zero)
{
    check("30 9 * * *", "2026-11-23T09:30:01Z", "2026-11-24T09:30:00Z 2026-11-25T09:30:00Z");
    check("*/20 * * * *", "2026-11-23T09:30:00Z", "2026-11-23T09:40:00Z 2026-11-23T10:00:00Z");
}

Test(cron, six_fields_begin_with_seconds)
{
    check("*/30 59 23 31 12 *", "2026-11-23T00:00:00Z",
          "2026-12-31T23:59:00Z 2026-12-31T23:59:30Z 2027-12-31T23:59:00Z");
}

Test(cron, names_lists_ranges_and_steps_combine)
{
    check("0 9 * nov-DEC mon-Fri", "2026-11-27T10:00:00Z", "2026-11-30T09:00:00Z 2026-12-01T09:00:00Z");
    check(
        "5,10-12,50/5 0 1 1 *", "2026-01-01T00:00:00Z",
        "2026-01-01T00:05:00Z 2026-01-01T00:10:00Z 2026-01-01T00:11:00Z 2026-01-01T00:12:00Z 2026-01-01T00:50:00Z "
        "2026-01-01T00:55:00Z 2027-01-01T00:05:00Z");
    check("0 8-18/4 * * *", "2026-01-01T00:00:00Z",
          "2026-01-01T08:00:00Z 2026-01-01T12:00:00Z 2026-01-01T16:00:00Z");
}

Test(cron, ranges_wrap_around)
{
    check(
        "0 0 * * FRI-MON", "2026-11-23T00:00:00Z",
        "2026-11-23T00:00:00Z 2026-11-27T00:00:00Z 2026-11-28T00:00:00Z 2026-11-29T00:00:00Z 2026-11-30T00:00:00Z");
    check("0 22-2/2 * * *", "2026-11-23T00:00:00Z",
          "2026-11-23T00:00:00Z 2026-11-23T02:00:00Z 2026-11-23T22:00:00Z 2026-11-24T00:00:00Z");
    check("0 0 30-2 * *", "2026-11-03T00:00:00Z",
          "2026-11-30T00:00:00Z 2026-12-01T00:00:00Z 2026-12-02T00:00:00Z");
    check("0 0 1 NOV-FEB *", "2026-11-02T00:00:00Z",
          "2026-12-01T00:00:00Z 2027-01-01T00:00:00Z 2027-02-01T00:00:00Z "
          "2027-11-01T00:00:00Z");
}

Test(cron, zero_and_seven_are_sunday)
{
    const char *const texts[] = {"0 0 * * 0", "0 0 * * 7", "0 0 * * SUN", "0 0 * * 7-7", "0 0 * * sun,7,0"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        check(texts[i], "2026-11-23T00:00:00Z", "2026-11-29T00:00:00Z 2026-12-06T00:00:00Z");
    check("0 0 * * 5-7", "2026-11-23T00:00:00Z",
          "2026-11-27T00:00:00Z 2026-11-28T00:00:00Z 2026-11-29T00:00:00Z "
          "2026-12-04T00:00:00Z");
    check("0 0 * * 7-1", "2026-11-23T00:00:00Z",
          "2026-11-23T00:00:00Z 2026-11-29T00:00:00Z 2026-11-30T00:00:00Z");
    check("0 0 * * 1/3", "2026-11-23T00:00:00Z",
          "2026-11-23T00:00:00Z 2026-11-26T00:00:00Z 2026-11-29T00:00:00Z");
}

Test(cron, last_days_count_from_the_months_end)
{
    check("0 0 L * *", "2027-01-01T00:00:00Z",
          "2027-01-31T00:00:00Z 2027-02-28T00:00:00Z 2027-03-31T00:00:00Z");
    check("0 0 L-3 2 *", "2027-01-01T00:00:00Z", "2027-02-25T00:00:00Z 2028-02-26T00:00:00Z");
    check("0 0 L-30 * *", "2027-02-01T00:00:00Z", "2027-03-01T00:00:00Z 2027-05-01T00:00:00Z");
}

Test(cron, nearest_workday_stays_within_the_month)
{
    check("0 0 15W * *", "2026-08-01T00:00:00Z",
          "2026-08-14T00:00:00Z 2026-09-15T00:00:00Z");                    /* Saturday, Tuesday */
    check("0 0 15W 11 *", "2026-08-01T00:00:00Z", "2026-11-16T00:00:00Z"); /* Sunday */
    check("0 0 1W 8 *", "2026-08-01T00:00:00Z", "2026-08-03T00:00:00Z");   /* Saturday the 1st */
    check("0 0 31W 5 *", "2026-05-01T00:00:00Z", "2026-05-29T00:00:00Z");  /* Sunday the 31st */
    check("0 0 LW * *", "2026-01-01T00:00:00Z",
          "2026-01-30T00:00:00Z 2026-02-27T00:00:00Z 2026-03-31T00:00:00Z");
}

Test(cron, weekdays_can_be_counted)
{
    check("0 0 * * 5#2", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z 2026-12-11T00:00:00Z");
    check("0 0 * * MON#5", "2026-11-01T00:00:00Z", "2026-11-30T00:00:00Z 2027-03-29T00:00:00Z");
    check("0 0 * * 5L", "2026-11-01T00:00:00Z", "2026-11-27T00:00:00Z 2026-12-25T00:00:00Z");
    check("0 0 * * friL", "2026-11-01T00:00:00Z", "2026-11-27T00:00:00Z 2026-12-25T00:00:00Z");
    check("0 0 * * 7L,1#1", "2026-11-03T00:00:00Z", "2026-11-29T00:00:00Z 2026-12-07T00:00:00Z");
}

Test(cron, either_day_field_matches_when_both_are_restricted)
{
    check("0 0 13 * FRI", "2026-11-07T00:00:00Z",
          "2026-11-13T00:00:00Z 2026-11-20T00:00:00Z 2026-11-27T00:00:00Z "
          "2026-12-04T00:00:00Z 2026-12-11T00:00:00Z 2026-12-13T00:00:00Z");
}

Test(cron, both_day_fields_must_match_when_one_begins_with_a_star)
{
    check("0 0 13 * */5", "2026-11-01T00:00:00Z",
          "2026-11-13T00:00:00Z 2026-12-13T00:00:00Z 2027-06-13T00:00:00Z");
    check("0 0 */13 * FRI", "2026-11-01T00:00:00Z", "2026-11-27T00:00:00Z 2027-01-01T00:00:00Z");
    check("0 0 13 * ?", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z 2026-12-13T00:00:00Z");
    check("0 0 ? * FRI", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z 2026-11-13T00:00:00Z");
    check("0 0 ? * ?", "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z 2026-11-02T00:00:00Z");
}

Test(cron, leap_days_are_found_across_the_century)
{
    check("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z");
    check("0 0 29 2 */7", "2026-01-01T00:00:00Z", "2032-02-29T00:00:00Z 2060-02-29T00:00:00Z"); /* Sundays */
}

Test(cron, a_day_that_a_month_lacks_is_its_last_when_asked)
{
    options.short_month_last = true;
    check("0 0 31 * *", "2027-01-31T00:00:00Z",
          "2027-01-31T00:00:00Z 2027-02-28T00:00:00Z 2027-03-31T00:00:00Z");
    check("0 0 30 2 *", "2027-01-31T00:00:00Z", "2027-02-28T00:00:00Z 2028-02-29T00:00:00Z");
    check("0 0 30W 2 *", "2027-01-31T00:00:00Z", "2027-02-26T00:00:00Z 2028-02-29T00:00:00Z");
    check("0 0 */15 2 *", "2027-01-31T00:00:00Z",
          "2027-02-01T00:00:00Z 2027-02-16T00:00:00Z 2028-02-01T00:00:00Z");
    struct cron c = compile("0 0 28,31 * *");
    uint32_t moved;
    cr_expect(eq(u32, cron_month_days(&c, 2027, 2, &moved), 1U << 28));
    cr_expect(eq(u32, moved, 0));
    cr_expect(eq(u32, cron_month_days(&c, 2027, 4, &moved), 1U << 28 | 1U << 30));
    cr_expect(eq(u32, moved, 1U << 30));
}

Test(cron, macros_are_their_fields)
{
    check("@yearly", "2026-11-23T00:00:01Z", "2027-01-01T00:00:00Z 2028-01-01T00:00:00Z");
    check("@Annually", "2026-11-23T00:00:01Z", "2027-01-01T00:00:00Z");
    check("@monthly", "2026-11-23T00:00:01Z", "2026-12-01T00:00:00Z");
    check("@weekly", "2026-11-23T00:00:01Z", "2026-11-29T00:00:00Z");
    check("@daily", "2026-11-23T00:00:01Z", "2026-11-24T00:00:00Z");
    check("@midnight", "2026-11-23T00:00:01Z", "2026-11-24T00:00:00Z");
    check("@hourly", "2026-11-23T00:00:01Z", "2026-11-23T01:00:00Z");
    check("@minutely", "2026-11-23T00:00:01Z", "2026-11-23T00:01:00Z");
}

Test(cron, only_a_star_in_front_of_the_hour_follows_elapsed_time)
{
    cr_expect(compile("0 * * * *").elapsed);
    cr_expect(compile("0 */2 * * *").elapsed);
    cr_expect(compile("0 *,5 * * *").elapsed);
    cr_expect(not(compile("0 0-23 * * *").elapsed));
    cr_expect(not(compile("* 2 * * *").elapsed));
    cr_expect(not(compile("0 H * * *").elapsed));
    cr_expect(compile("@hourly").elapsed);
    cr_expect(not(compile("@daily").elapsed));
}

/* These values are a promise: a job whose H moved would fire twice or not at all on the day of the upgrade. */
Test(cron, hashes_never_change)
{
    struct cron c = compile("H H H H H H");
    cr_expect(eq(u64, c.seconds, UINT64_C(1) << 40));
    cr_expect(eq(u64, c.minutes, UINT64_C(1) << 56));
    cr_expect(eq(u32, c.hours, 1U << 8));
    cr_expect(eq(u32, c.days, 1U << 25));
    cr_expect(eq(u16, c.months, 1U << 4));
    cr_expect(eq(u8, c.weekdays, 1U << 6));
}

Test(cron, hashes_stay_within_their_range_and_spread)
{
    unsigned seen[60] = {0}, days = 0;
    char id[16];
    for (unsigned i = 0; i < 6000; i++) {
        (void)snprintf(id, sizeof(id), "job-%u", i); /* fits */
        options.id = id;
        struct cron c = compile("H(10-19) H H * *");
        cr_assert(eq(int, __builtin_popcountll(c.minutes), 1));
        seen[__builtin_ctzll(c.minutes)]++;
        days |= c.days;
    }
    for (unsigned m = 0; m < 60; m++) {
        bool allowed = m >= 10 && m <= 19;
        cr_assert(ge(uint, seen[m], allowed ? 450 : 0), "minute %u", m);
        cr_assert(le(uint, seen[m], allowed ? 750 : 0), "minute %u", m);
    }
    cr_expect(eq(u32, days, 0x1ffffffe));
}

Test(cron, hashed_steps_begin_within_the_first_step)
{
    struct cron c = compile("H/15 H(0-11)/6 * * *");
    cr_assert(eq(int, __builtin_popcountll(c.minutes), 4));
    unsigned first = (unsigned)__builtin_ctzll(c.minutes);
    cr_expect(lt(uint, first, 15));
    cr_expect(eq(u64, c.minutes,
                 (UINT64_C(1) | UINT64_C(1) << 15 | UINT64_C(1) << 30 | UINT64_C(1) << 45) << first));
    cr_expect(eq(int, __builtin_popcount(c.hours), 2));
    cr_expect(lt(u32, c.hours, 1U << 12));
}

Test(cron, hashes_differ_between_namespaces)
{
    unsigned differing = 0;
    for (unsigned i = 0; i < 100; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "%u", i); /* fits */
        options = (struct cron_options){.ns = "a", .id = id};
        struct cron a = compile("H * * * *");
        options.ns = "b";
        differing += compile("H * * * *").minutes != a.minutes;
    }
    cr_expect(gt(uint, differing, 90));
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

static bool is_printable(char c)
{
    return c >= ' ' && c <= '~';
}

static void refuse(const char *text, size_t offset, const char *wanted)
{
    struct cron c;
    struct cron_error problem;
    memset(&c, 0x5a, sizeof(c));
    struct cron untouched = c;
    cr_assert(eq(int, cron_parse(text, strlen(text), &options, &c, &problem), -ERR_INVALID), "'%s' was taken",
              text);
    cr_expect(zero(int, memcmp(&c, &untouched, sizeof(c))), "'%s'", text);
    cr_expect(ne(ptr, strstr(problem.text, wanted), NULL), "'%s': '%s' lacks '%s'", text, problem.text,
              wanted);
    cr_expect(eq(sz, problem.offset, offset), "'%s': %s", text, problem.text);
    for (const char *p = problem.text; *p; p++)
        cr_assert(is_printable(*p), "'%s'", problem.text);
}

Test(cron, values_out_of_range_name_the_field_and_what_it_allows)
{
    refuse("60 * * * *", 0, "minute: 60 is out of range; allowed are 0-59");
    refuse("0 24 * * *", 2, "hour: 24 is out of range; allowed are 0-23");
    refuse("0 0 0 * *", 4, "day of month: 0 is out of range; allowed are 1-31");
    refuse("0 0 32 * *", 4, "day of month: 32 is out of range");
    refuse("0 0 * 13 *", 6, "month: 13 is out of range; allowed are 1-12, JAN-DEC");
    refuse("0 0 * * 8", 8, "day of week: 8 is out of range; allowed are 0-7, SUN-SAT");
    refuse("61 0 0 * * *", 0, "second: 61 is out of range");
    refuse("0 0 1-99999999999999999999 * *", 6, "day of month: a value is missing or unknown");
}

Test(cron, text_that_is_no_value_is_refused_where_it_stands)
{
    refuse("0 0 * FOO *", 6, "month: a value is missing or unknown");
    refuse("0 0 * JANUARY *", 9, "month: unexpected text after a value");
    refuse("0,,1 * * * *", 2, "minute: a value is missing");
    refuse("1, * * * *", 2, "minute: a value is missing");
    refuse("1- * * * *", 2, "minute: a value is missing");
    refuse("-1 * * * *", 0, "minute: a value is missing");
    refuse("1-2-3 * * * *", 3, "minute: unexpected text");
    refuse("1.5 * * * *", 1, "minute: unexpected text");
    refuse("** * * * *", 1, "minute: unexpected text");
    refuse("0 0 * * MON\xc3\xa4", 11, "day of week: unexpected text");
    refuse("0 0 1\n* * *", 5, "day of month: unexpected text");
}

Test(cron, steps_over_the_field_are_refused_with_the_way_out)
{
    refuse("*/90 * * * *", 2, "write @every, such as @every 90m");
    refuse("*/0 * * * *", 2, "a step must be from 1 to 60");
    refuse("0 */25 * * *", 4, "hour: a step must be from 1 to 24");
    refuse("*/ * * * *", 2, "a step from 1 to 60 is missing");
}

Test(cron, letters_of_one_field_are_refused_in_others)
{
    refuse("L * * * *", 0, "minute: a value is missing or unknown");
    refuse("0 0 5#2 * *", 5, "day of month: unexpected text");
    refuse("0 0 5L * *", 5, "day of month: unexpected text");
    refuse("0 0 * * L", 8, "such as 5L or FRIL");
    refuse("0 0 * * 5W", 9, "day of week: unexpected text");
    refuse("0 0 * * 5#6", 10, "the number after # must be from 1 to 5");
    refuse("0 0 L-31 * *", 6, "must be from 1 to 30");
    refuse("0 ? * * *", 2, "write * for every value");
    refuse("0 0 ?,1 * *", 4, "? stands alone");
    refuse("H(5) * * * *", 3, "H( needs a range");
    refuse("H(5-70) * * * *", 4, "70 is out of range");
    refuse("H(9-5) * * * *", 2, "must not run backwards");
    refuse("H(1-5 * * * *", 5, "the ) after the range");
}

Test(cron, other_dialects_are_told_what_to_write)
{
    refuse("TZ=Europe/Berlin 0 9 * * *", 0, "field timezone");
    refuse("cron_tz=UTC 0 9 * * *", 0, "field timezone");
    refuse("@reboot", 0, "@after 0s");
    refuse("@fortnightly", 0, "allowed after @");
    refuse("@daily 5", 7, "nothing may follow @daily");
    refuse("0 0 12 * * ? 2030", 13, "write @at");
    refuse("0 9 * *", 6, "not 4");
    refuse("", 0, "not 0");
    refuse("every day", 6, "not 2");
}

Test(cron, dates_that_no_calendar_has_are_refused)
{
    refuse("0 0 30 2 *", 4, "the longest has 29 days");
    refuse("0 0 31 4,6,9,11 *", 4, "the longest has 30 days");
    refuse("0 0 31 2-2 ?", 4, "the longest has 29 days");
    refuse("0 0 */31 2 0#5", 4, "no date matches");
    (void)compile("0 0 30 2 MON"); /* either field: Mondays */
}

Test(cron, counting_equals_stepping)
{
    struct cron a = compile("*/7 3,9 * * MON"), b = compile("30 7 9 1-7 * *");
    const struct cron *both[] = {&a, &b};
    int64_t from_s = wall_s("2026-11-02T03:10:11Z"), end_s = wall_s("2027-03-08T09:07:30Z");
    uint64_t count = 0;
    for (int64_t at_s = from_s; at_s < end_s; at_s++)
        count += cron_matches(&a, at_s) || cron_matches(&b, at_s);
    cr_assert(gt(u64, count, 100));
    cr_expect(eq(u64, cron_count(both, 2, from_s, end_s), count));
    cr_expect(zero(u64, cron_count(both, 2, end_s, from_s)));
}
