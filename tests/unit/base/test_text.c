#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "tests/lib/seed.h"

#define S(text) text, sizeof(text) - 1

/* --- numbers ----------------------------------------------------------------------------------------------------- */

Test(text, whole_numbers_at_their_limits)
{
    uint64_t u;
    int64_t i;
    cr_assert(zero(int, text_u64(S("18446744073709551615"), 0, UINT64_MAX, &u, NULL)));
    cr_assert(eq(u64, u, UINT64_MAX));
    cr_assert(zero(int, text_i64(S("-9223372036854775808"), INT64_MIN, INT64_MAX, &i, NULL)));
    cr_assert(eq(i64, i, INT64_MIN));
    cr_assert(zero(int, text_i64(S("0"), 0, 0, &i, NULL)));
    uint32_t small = 0;
    cr_assert(zero(int, text_u32(S("4294967295"), 0, UINT32_MAX, &small, NULL)));
    cr_assert(eq(u32, small, UINT32_MAX));
}

Test(text, what_is_no_whole_number_is_refused_and_writes_nothing)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "01",
                                      "1x",
                                      "-0",
                                      "0x1",
                                      "1.0",
                                      "--1",
                                      "9223372036854775808",
                                      "99999999999999999999999"};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        int64_t i = 77;
        cr_assert(eq(int, text_i64(bad[k], strlen(bad[k]), INT64_MIN, INT64_MAX, &i, NULL), -ERR_INVALID),
                  "%s", bad[k]);
        cr_assert(eq(i64, i, 77));
    }
    uint64_t u = 77;
    cr_assert(lt(int, text_u64(S("18446744073709551616"), 0, UINT64_MAX, &u, NULL), 0));
    cr_assert(lt(int, text_u64(S("-1"), 0, UINT64_MAX, &u, NULL), 0));
    cr_assert(eq(u64, u, 77));
}

Test(text, ranges_are_named_in_the_error)
{
    struct err e;
    uint64_t u;
    cr_assert(lt(int, text_u64(S("11"), 1, 10, &u, &e), 0));
    cr_assert(eq(str, e.text, "'11' is no whole number from 1 to 10"));
}

Test(text, doubles_follow_the_grammar_of_json)
{
    double v;
    cr_assert(zero(int, text_double(S("-0.25"), -1, 1, &v, NULL)));
    cr_assert(v == -0.25);
    cr_assert(zero(int, text_double(S("2e3"), 0, 1e9, &v, NULL)));
    cr_assert(v == 2000);
    static const char *const bad[] = {"",    "-",   ".5",    "5.",  "1e",    "1e+", "01",
                                      "nan", "inf", "0x1p3", "1,5", "1e999", " 1"};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++)
        cr_assert(lt(int, text_double(bad[k], strlen(bad[k]), -1e300, 1e300, &v, NULL), 0), "%s", bad[k]);
}

Test(text, errors_quote_what_was_given_cut_and_clean)
{
    struct err e;
    uint64_t u;
    cr_assert(lt(int, text_u64(S("a\nb\xff\x00z"), 0, 1, &u, &e), 0));
    cr_assert(strstr(e.text, "'a?b??z'") != NULL, "%s", e.text);
    char longer[200];
    memset(longer, 'x', sizeof(longer));
    cr_assert(lt(int, text_u64(longer, sizeof(longer), 0, 1, &u, &e), 0));
    cr_assert(strstr(e.text, "xxx…'") != NULL, "%s", e.text);
}

/* --- durations --------------------------------------------------------------------------------------------------- */

Test(text, durations_are_read)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } cases[] = {
        {"250ms", 250}, {"10s", 10000},   {"1h30m", 5400000},        {"7d", 604800000},
        {"0s", 0},      {"90m", 5400000}, {"1d2h3m4s5ms", 93784005}, {"36500d", TEXT_DURATION_MAX_MS}};
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        uint64_t ms = 1;
        cr_assert(zero(int, text_duration_ms(cases[k].text, strlen(cases[k].text), &ms, NULL)), "%s",
                  cases[k].text);
        cr_assert(eq(u64, ms, cases[k].ms), "%s", cases[k].text);
    }
}

Test(text, what_is_no_duration_is_refused)
{
    static const char *const bad[] = {"",
                                      "10",
                                      "s",
                                      "1.5s",
                                      "-1s",
                                      "1m1h",
                                      "1s1s",
                                      "1S",
                                      "1 s",
                                      "1s ",
                                      "01s",
                                      "1w",
                                      "36500d1ms",
                                      "18446744073709551616ms",
                                      "213503982335d",
                                      "1min",
                                      "1msx",
                                      "1h\0"};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        uint64_t ms = 77;
        size_t len = strlen(bad[k]) + (k == sizeof(bad) / sizeof(bad[0]) - 1);
        cr_assert(lt(int, text_duration_ms(bad[k], len, &ms, NULL), 0), "%s", bad[k]);
        cr_assert(eq(u64, ms, 77));
    }
}

Test(text, durations_print_and_read_back)
{
    struct rng r;
    (void)seed_rng(&r, "text");
    char text[TEXT_DURATION_SIZE];
    for (int i = 0; i < 100000; i++) {
        uint64_t ms = rng_below(&r, TEXT_DURATION_MAX_MS) >> rng_below(&r, 40), back;
        size_t len = text_duration_print(text, ms);
        cr_assert(eq(sz, len, strlen(text)));
        cr_assert(zero(int, text_duration_ms(text, len, &back, NULL)), "%s", text);
        cr_assert(eq(u64, back, ms));
    }
    (void)text_duration_print(text, 0);
    cr_assert(eq(str, text, "0s"));
    (void)text_duration_print(text, 5400000);
    cr_assert(eq(str, text, "1h30m"));
    (void)text_duration_print(text, 86400000);
    cr_assert(eq(str, text, "24h"), "as a day is written");
    (void)text_duration_print(text, 129600000);
    cr_assert(eq(str, text, "36h"));
    (void)text_duration_print(text, 7 * UINT64_C(86400000) + 1);
    cr_assert(eq(str, text, "7d1ms"));
    cr_assert(lt(sz, text_duration_print(text, UINT64_MAX), sizeof(text)));
}

/* --- instants ---------------------------------------------------------------------------------------------------- */

static int64_t instant(const char *text)
{
    int64_t ms = -1;
    struct err e = {0};
    cr_assert(zero(int, text_instant_ms(text, strlen(text), &ms, &e)), "%s: %s", text, e.text);
    return ms;
}

Test(text, instants_are_read)
{
    cr_assert(eq(i64, instant("1970-01-01T00:00:00Z"), 0));
    cr_assert(eq(i64, instant("2026-11-23T08:00:00.000Z"), INT64_C(1795420800000)));
    cr_assert(eq(i64, instant("2026-11-23t09:00:00.25+01:00"), INT64_C(1795420800250)));
    cr_assert(eq(i64, instant("2026-11-22T20:00:00.123999999-12:00"), INT64_C(1795420800123)));
    cr_assert(eq(i64, instant("9999-12-31T23:59:59.999z"), TEXT_INSTANT_MAX_MS));
    cr_assert(eq(i64, instant("2024-02-29T00:00:00Z"), INT64_C(1709164800000)));
    cr_assert(eq(i64, instant("1970-01-01T01:00:00+01:00"), 0));
}

Test(text, what_is_no_instant_is_refused)
{
    static const char *const bad[] = {
        "",
        "2026-11-23",
        "2026-11-23T08:00:00",
        "2026-11-23 08:00:00Z",
        "2026-11-23T08:00Z",
        "2026-11-23T08:00:60Z",
        "2026-11-23T24:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-11-23T08:00:00.Z",
        "2026-11-23T08:00:00.1234567890Z",
        "2026-11-23T08:00:00.1",
        "2026-11-23T08:00:00+1:00",
        "2026-11-23T08:00:00+0100",
        "2026-11-23T08:00:00+24:00",
        "2026-11-23T08:00:00+01:60",
        "2026-11-23T08:00:00ZZ",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "+2026-11-23T08:00:00Z",
        "2026-1a-23T08:00:00Z",
    };
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        int64_t ms = 77;
        cr_assert(lt(int, text_instant_ms(bad[k], strlen(bad[k]), &ms, NULL), 0), "%s", bad[k]);
        cr_assert(eq(i64, ms, 77));
    }
}

/* The system's own calendar is the model. */
Test(text, instants_print_as_the_c_library_does_and_read_back)
{
    struct rng r;
    (void)seed_rng(&r, "text");
    for (int i = 0; i < 200000; i++) {
        int64_t ms = (int64_t)rng_below(&r, (uint64_t)TEXT_INSTANT_MAX_MS + 1);
        time_t t = (time_t)(ms / 1000);
        struct tm tm;
        char expected[64], date[40], text[TEXT_INSTANT_SIZE];
        (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", gmtime_r(&t, &tm));
        (void)snprintf(expected, sizeof(expected), "%s.%03dZ", date, (int)(ms % 1000));
        text_instant_print(text, ms);
        cr_assert(eq(str, text, expected));
        cr_assert(eq(i64, instant(text), ms));
    }
}

Test(text, instants_outside_their_limits_are_clamped)
{
    char text[TEXT_INSTANT_SIZE];
    text_instant_print(text, -1);
    cr_assert(eq(str, text, "1970-01-01T00:00:00.000Z"));
    text_instant_print(text, INT64_MAX);
    cr_assert(eq(str, text, "9999-12-31T23:59:59.999Z"));
}

Test(text, local_times_print_and_read_back)
{
    char text[TEXT_LOCAL_SIZE];
    (void)text_local_print(text, INT64_C(1795420800000), 3600);
    cr_assert(eq(str, text, "2026-11-23T09:00:00+01:00"));
    (void)text_local_print(text, INT64_C(1795420800007), -(5 * 3600 + 1800));
    cr_assert(eq(str, text, "2026-11-23T02:30:00.007-05:30"));
    cr_assert(eq(i64, instant(text), INT64_C(1795420800007)));
    (void)text_local_print(text, 0, -3600);
    cr_assert(eq(str, text, "1969-12-31T23:00:00-01:00"));
    (void)text_local_print(text, 0, 0);
    cr_assert(eq(str, text, "1970-01-01T00:00:00+00:00"));
}

Test(text, civil_days_go_there_and_back)
{
    for (int64_t day = -800000; day <= 3000000; day += 7) {
        int64_t year;
        unsigned month, dom;
        text_civil_from_days(day, &year, &month, &dom);
        cr_assert(eq(i64, text_days_from_civil(year, month, dom), day));
    }
}

/* --- sizes ------------------------------------------------------------------------------------------------------- */

Test(text, sizes_are_read_and_printed)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {{"0", 0},
                 {"512", 512},
                 {"64KiB", 65536},
                 {"1MiB", 1048576},
                 {"3GiB", UINT64_C(3) << 30},
                 {"1TiB", UINT64_C(1) << 40}};
    char text[TEXT_SIZE_SIZE];
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        uint64_t v = 1;
        cr_assert(zero(int, text_size_bytes(cases[k].text, strlen(cases[k].text), &v, NULL)));
        cr_assert(eq(u64, v, cases[k].bytes));
        (void)text_size_print(text, v);
        cr_assert(eq(str, text, (char *)cases[k].text));
    }
    static const char *const bad[] = {"",      "KiB", "1kib",   "1KB",        "1K",
                                      "1 KiB", "-1",  "1.5MiB", "9000000TiB", "1KiBx"};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        uint64_t v;
        cr_assert(lt(int, text_size_bytes(bad[k], strlen(bad[k]), &v, NULL), 0), "%s", bad[k]);
    }
}

/* --- names ------------------------------------------------------------------------------------------------------- */

Test(text, ids_have_their_characters_and_length)
{
    char id[202];
    memset(id, 'a', sizeof(id));
    cr_assert(zero(int, text_check_id(S("invoice-42.A_b~c:d@e+f"), NULL)));
    cr_assert(zero(int, text_check_id(id, 200, NULL)));
    cr_assert(lt(int, text_check_id(id, 201, NULL), 0));
    cr_assert(lt(int, text_check_id("", 0, NULL), 0));
    for (int c = 0; c < 256; c++) {
        char one = (char)c;
        bool ok = c && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:@+-", c);
        cr_assert(eq(int, text_check_id(&one, 1, NULL) == 0, ok), "byte %d", c);
    }
}

Test(text, namespaces_have_their_characters_and_length)
{
    char ns[64];
    memset(ns, 'a', sizeof(ns));
    cr_assert(zero(int, text_check_namespace(ns, 63, NULL)));
    cr_assert(lt(int, text_check_namespace(ns, 64, NULL), 0));
    cr_assert(lt(int, text_check_namespace(S("Team"), NULL), 0));
    cr_assert(lt(int, text_check_namespace(S("a.b"), NULL), 0));
}

Test(text, headers_cannot_smuggle_lines)
{
    cr_assert(zero(int, text_check_header_name(S("X-Team"), NULL)));
    cr_assert(lt(int, text_check_header_name(S("X Team"), NULL), 0));
    cr_assert(lt(int, text_check_header_name(S("X:"), NULL), 0));
    cr_assert(lt(int, text_check_header_name(S(""), NULL), 0));
    cr_assert(lt(int, text_check_header_name(S("X\r"), NULL), 0));
    cr_assert(zero(int, text_check_header_value(S("a\tb, gr\xC3\xBC\xC3\x9F"), NULL)));
    cr_assert(zero(int, text_check_header_value(S(""), NULL)));
    cr_assert(lt(int, text_check_header_value(S("a\r\nb"), NULL), 0));
    cr_assert(lt(int, text_check_header_value(S("a\nb"), NULL), 0));
    cr_assert(lt(int, text_check_header_value(S("a\0b"), NULL), 0));
    cr_assert(lt(int, text_check_header_value(S("a\x7f"), NULL), 0));
    cr_assert(lt(int, text_check_header_value(S(" a"), NULL), 0));
    cr_assert(lt(int, text_check_header_value(S("a\t"), NULL), 0));
    cr_assert(lt(int, text_check_header_value(S("\xff"), NULL), 0));
}

Test(text, addresses_are_split)
{
    size_t at, len;
    uint16_t port;
    cr_assert(zero(int, text_host_port(S("db-1.local:3306"), false, &at, &len, &port, NULL)));
    cr_assert(at == 0 && len == 10 && port == 3306);
    cr_assert(zero(int, text_host_port(S("[::1]:7420"), false, &at, &len, &port, NULL)));
    cr_assert(at == 1 && len == 3 && port == 7420);
    cr_assert(zero(int, text_host_port(S("127.0.0.1:0"), true, NULL, NULL, NULL, NULL)));
    static const char *const bad[] = {"",        ":",    ":80",     "a",      "a:",      "a:0",
                                      "a:65536", "a:08", "a b:1",   "::1:80", "[::1:80", "[zz]:80",
                                      "[]:80",   "a:-1", "[::1]80", "a/b:80"};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++)
        cr_assert(lt(int, text_host_port(bad[k], strlen(bad[k]), false, &at, &len, &port, NULL), 0), "%s",
                  bad[k]);
}

/* --- comparing --------------------------------------------------------------------------------------------------- */

Test(text, edit_distance_counts_and_stops_early)
{
    cr_assert(eq(uint, text_edit_distance(S("kitten"), S("sitting"), 10), 3));
    cr_assert(eq(uint, text_edit_distance(S(""), S("abc"), 10), 3));
    cr_assert(eq(uint, text_edit_distance(S("abc"), S("abc"), 10), 0));
    cr_assert(eq(uint, text_edit_distance(S("abcdef"), S("uvwxyz"), 2), 3));
}

Test(text, nearest_name_is_only_a_near_one)
{
    static const char *const names[] = {"schedule", "timezone", "callback", NULL};
    cr_assert(eq(str, (char *)text_nearest(S("shedule"), names), "schedule"));
    cr_assert(eq(str, (char *)text_nearest(S("time_zone"), names), "timezone"));
    cr_assert(text_nearest(S("colour"), names) == NULL);
    cr_assert(text_nearest(S(""), names) == NULL);
}
