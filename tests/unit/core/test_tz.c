#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/text.h"
#include "agent/core/tz.h"
#include "agent/core/tz_rule.h"
#include "tests/lib/zones.h"

static int64_t instant_s(const char *text)
{
    int64_t ms = -1;
    cr_assert(zero(int, text_instant_ms(text, strlen(text), &ms, NULL)), "%s", text);
    return ms / 1000;
}

static bool is_name(const char *name)
{
    return tz_check_name(name, strlen(name), NULL) == 0;
}

Test(tz, names_are_those_of_the_iana_list)
{
    const char *const names[] = {"UTC",        "Europe/Berlin", "America/Argentina/ComodRivadavia",
                                 "Etc/GMT+12", "EST5EDT",       "America/Port-au-Prince",
                                 "GB-Eire",    "Etc/GMT0"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        cr_expect(is_name(names[i]), "%s", names[i]);
}

Test(tz, names_that_leave_the_folder_are_refused)
{
    const char *const names[] = {
        "",          "/etc/passwd", "../UTC",   "Europe/../UTC",  "Europe//Berlin", "Europe/",
        "/",         ".",           "zone.tab", "localtime",      "posixrules",     "Factory",
        "posix/UTC", "right/UTC",   "1/2",      "Europe/Berlin ", "Europe\\Berlin", "-UTC"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        cr_expect(not(is_name(names[i])), "%s", names[i]);
    cr_expect(eq(int, tz_check_name("UTC\0x", 5, NULL), -ERR_INVALID));
    char longest[TZ_NAME_MAX + 2];
    memset(longest, 'A', sizeof(longest));
    cr_expect(zero(int, tz_check_name(longest, TZ_NAME_MAX, NULL)));
    cr_expect(eq(int, tz_check_name(longest, TZ_NAME_MAX + 1, NULL), -ERR_INVALID));
}

Test(tz, utc_never_changes)
{
    cr_expect(zero(i32, tz_offset_s(tz_utc(), 0)));
    cr_expect(eq(i64, tz_next_change_s(tz_utc(), 0), INT64_MAX));
    struct tz_wall w;
    tz_from_wall(tz_utc(), 1234, &w);
    cr_expect(eq(int, w.kind, TZ_WALL_ONCE));
    cr_expect(eq(i64, w.first_s, 1234));
}

static void check_wall(const char *zone, const char *wall, enum tz_wall_kind kind, const char *first,
                       const char *second)
{
    AUTO(tz_free) struct tz *z = zone_open(zone);
    struct tz_wall w;
    tz_from_wall(z, instant_s(wall), &w);
    cr_expect(eq(int, w.kind, (int)kind), "%s in %s", wall, zone);
    cr_expect(eq(i64, w.first_s, instant_s(first)), "%s in %s", wall, zone);
    cr_expect(eq(i64, w.second_s, instant_s(second)), "%s in %s", wall, zone);
}

Test(tz, a_wall_time_in_a_gap_is_moved_by_its_length)
{
    check_wall("Europe/Berlin", "2027-03-28T02:30:00Z", TZ_WALL_GAP, "2027-03-28T01:30:00Z",
               "2027-03-28T01:30:00Z");
    check_wall("Australia/Lord_Howe", "2026-10-04T02:15:00Z", TZ_WALL_GAP, "2026-10-03T15:45:00Z",
               "2026-10-03T15:45:00Z");
    check_wall("Pacific/Apia", "2011-12-30T12:00:00Z", TZ_WALL_GAP, "2011-12-30T22:00:00Z",
               "2011-12-30T22:00:00Z");
}

Test(tz, a_repeated_wall_time_has_two_instants)
{
    check_wall("Europe/Berlin", "2026-10-25T02:30:00Z", TZ_WALL_TWICE, "2026-10-25T00:30:00Z",
               "2026-10-25T01:30:00Z");
    check_wall("Australia/Lord_Howe", "2027-04-04T01:45:00Z", TZ_WALL_TWICE, "2027-04-03T14:45:00Z",
               "2027-04-03T15:15:00Z");
    check_wall("Europe/Berlin", "2026-10-25T03:00:00Z", TZ_WALL_ONCE, "2026-10-25T02:00:00Z",
               "2026-10-25T02:00:00Z");
}

Test(tz, dublin_has_its_winter_time_after_2037)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Dublin");
    cr_expect(eq(i32, tz_offset_s(z, instant_s("2100-01-15T00:00:00Z")), 0));
    cr_expect(eq(i32, tz_offset_s(z, instant_s("2100-07-15T00:00:00Z")), 3600));
}

Test(tz, rules_reach_the_last_year)
{
    AUTO(tz_free) struct tz *z = zone_open("Europe/Berlin");
    cr_expect(
        eq(i64, tz_next_change_s(z, instant_s("2200-06-01T00:00:00Z")), instant_s("2200-10-26T01:00:00Z")));
    cr_expect(eq(i64, tz_next_change_s(z, TZ_END_S), INT64_MAX));
    cr_expect(eq(i64, TZ_END_S, instant_s("2201-01-01T00:00:00Z")));
}

Test(tz, spans_join_without_hole)
{
    AUTO(tz_free) struct tz *z = zone_open("America/New_York");
    struct tz_span before, span;
    tz_span_at(z, INT64_MIN, &before);
    cr_assert(eq(i64, before.start_s, INT64_MIN));
    int spans = 1;
    for (; before.end_s != INT64_MAX; before = span, spans++) {
        tz_span_at(z, before.end_s, &span);
        cr_assert(eq(i64, span.start_s, before.end_s));
        cr_assert(eq(i32, span.before_s, before.offset_s));
        cr_assert(ne(i32, span.offset_s, before.offset_s));
        cr_assert(ge(i64, span.shown_to_s, span.start_s + span.before_s));
    }
    cr_assert(gt(int, spans, 500));
}

/* ---- files made by hand ---------------------------------------------------------------------------------------- */

struct file {
    char version;
    unsigned leap_count;
    unsigned count;
    int64_t times[4];
    uint8_t indexes[4];
    unsigned types;
    int32_t offsets[4];
    const char *footer;
};

static void add_be(struct buf *b, uint64_t v, unsigned bytes)
{
    while (bytes-- > 0)
        buf_add_char(b, (char)(v >> (8 * bytes)));
}

static void add_header(struct buf *b, const struct file *f, unsigned count, unsigned types)
{
    buf_add_str(b, "TZif");
    buf_add_char(b, f->version);
    add_be(b, 0, 8);
    add_be(b, 0, 7);
    add_be(b, 0, 4);
    add_be(b, 0, 4);
    add_be(b, f->leap_count, 4);
    add_be(b, count, 4);
    add_be(b, types, 4);
    add_be(b, 4, 4);
}

static void print_file(struct buf *b, const struct file *f)
{
    add_header(b, &(struct file){.version = f->version}, 0, 0);
    add_be(b, 0, 4); /* designations */
    add_header(b, f, f->count, f->types);
    for (unsigned i = 0; i < f->count; i++)
        add_be(b, (uint64_t)f->times[i], 8);
    for (unsigned i = 0; i < f->count; i++)
        add_be(b, f->indexes[i], 1);
    for (unsigned i = 0; i < f->types; i++) {
        add_be(b, (uint32_t)f->offsets[i], 4);
        add_be(b, 0, 2);
    }
    add_be(b, 0, 4);
    for (unsigned i = 0; i < f->leap_count; i++)
        add_be(b, 0, 8), add_be(b, 0, 4);
    buf_addf(b, "\n%s\n", f->footer);
    cr_assert(zero(int, buf_check(b, NULL)));
}

static int parse_file(const struct file *f, struct tz **ret, struct err *e)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(65536);
    print_file(&b, f);
    return tz_parse("Test/Zone", b.data, b.len, ret, e);
}

static const struct file good = {.version = '2',
                                 .count = 2,
                                 .times = {1000, 2000},
                                 .indexes = {1, 0},
                                 .types = 2,
                                 .offsets = {0, 3600},
                                 .footer = "AAA0"};

static void check_refused(const struct file *f, const char *text)
{
    struct tz *z = NULL;
    struct err e = {0};
    cr_expect(eq(int, parse_file(f, &z, &e), -ERR_INVALID));
    cr_expect(zero(ptr, z));
    cr_expect(ne(ptr, strstr(e.text, text), NULL), "'%s' lacks '%s'", e.text, text);
}

Test(tz, a_file_made_by_hand_is_read)
{
    AUTO(tz_free) struct tz *z = NULL;
    cr_assert(zero(int, parse_file(&good, &z, NULL)));
    cr_expect(eq(str, (char *)tz_name(z), "Test/Zone"));
    cr_expect(eq(i32, tz_offset_s(z, 999), 0));
    cr_expect(eq(i32, tz_offset_s(z, 1000), 3600));
    cr_expect(eq(i32, tz_offset_s(z, 2000), 0));
    cr_expect(eq(i64, tz_next_change_s(z, 2000), INT64_MAX));
}

Test(tz, damaged_files_are_refused_with_a_reason)
{
    struct file f = good;
    f.version = '\0';
    check_refused(&f, "version 1");
    f = good, f.leap_count = 1;
    check_refused(&f, "leap seconds");
    f = good, f.times[1] = 1000;
    check_refused(&f, "transition 2");
    f = good, f.indexes[1] = 2;
    check_refused(&f, "transition 2");
    f = good, f.offsets[1] = 93600;
    check_refused(&f, "93600");
    f = good, f.types = 0, f.count = 0;
    check_refused(&f, "0 types");
    f = good, f.footer = "nonsense";
    check_refused(&f, "POSIX");
}

Test(tz, every_cut_file_is_refused)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(65536);
    print_file(&b, &good);
    for (size_t len = 0; len < b.len; len++) {
        char *exact = malloc(len ? len : 1); /* so that a sanitizer sees a read past the end */
        memcpy(exact, b.data, len);
        struct tz *z = NULL;
        cr_expect(eq(int, tz_parse("A", exact, len, &z, NULL), -ERR_INVALID), "%zu bytes", len);
        cr_expect(zero(ptr, z));
        free(exact);
    }
}

Test(tz, summer_time_all_year_leaves_one_offset)
{
    struct file f = {.version = '3', .types = 1, .offsets = {-4 * 3600}, .footer = "EST5EDT,0/0,J365/25"};
    AUTO(tz_free) struct tz *z = NULL;
    cr_assert(zero(int, parse_file(&f, &z, NULL)));
    cr_expect(eq(i32, tz_offset_s(z, instant_s("2050-01-01T04:59:59Z")), -4 * 3600));
    cr_expect(eq(i32, tz_offset_s(z, instant_s("2050-01-01T05:00:00Z")), -4 * 3600));
    cr_expect(eq(i32, tz_offset_s(z, instant_s("2050-07-01T05:00:00Z")), -4 * 3600));
}

Test(tz, nothing_is_kept_when_memory_fails)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(65536);
    print_file(&b, &good);
    for (unsigned k = 0;; k++) {
        struct tz *z = NULL;
        fault_arm(k);
        int r = tz_parse("A", b.data, b.len, &z, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(eq(uint, k, 2));
            tz_free(z);
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u", k);
        cr_assert(zero(ptr, z), "k=%u", k);
    }
}

Test(tz, spans_know_the_walls_of_all_others)
{
    /* 3600 s forward for ten minutes; then a minute forward, still behind what was shown before */
    struct file f = {.version = '2',
                     .count = 3,
                     .times = {10000, 10600, 10700},
                     .indexes = {1, 0, 2},
                     .types = 3,
                     .offsets = {0, 3600, 60},
                     .footer = "AAA-0:01"};
    AUTO(tz_free) struct tz *z = NULL;
    struct tz_span span;
    cr_assert(zero(int, parse_file(&f, &z, NULL)));
    tz_span_at(z, 9999, &span);
    cr_expect(eq(i64, span.shown_to_s, INT64_MIN));
    cr_expect(eq(i64, span.again_from_s, 10600), "the third span begins there");
    tz_span_at(z, 10000, &span);
    cr_expect(eq(i64, span.shown_to_s, 10000));
    tz_span_at(z, 10700, &span);
    cr_expect(eq(i64, span.shown_to_s, 10600 + 3600));
    cr_expect(eq(i64, span.again_from_s, INT64_MAX));
}

/* ---- footers --------------------------------------------------------------------------------------------------- */

static void check_rule(const char *text, int64_t year, const char *from, const char *to)
{
    struct tz_rule r;
    cr_assert(zero(int, tz_rule_parse(text, strlen(text), &r, NULL)), "%s", text);
    cr_assert(r.has_dst);
    cr_expect(eq(i64, tz_rule_dst_from_s(&r, year), instant_s(from)), "%s", text);
    cr_expect(eq(i64, tz_rule_dst_to_s(&r, year), instant_s(to)), "%s", text);
}

Test(tz, every_form_of_rule_is_understood)
{
    check_rule("CET-1CEST,M3.5.0,M10.5.0/3", 2026, "2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z");
    check_rule("IST-1GMT0,M10.5.0,M3.5.0/1", 2026, "2026-10-25T01:00:00Z", "2026-03-29T01:00:00Z");
    check_rule("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", 2026, "2026-10-03T15:30:00Z", "2026-04-04T15:00:00Z");
    check_rule("IST-2IDT,M3.4.4/26,M10.5.0", 2026, "2026-03-27T00:00:00Z", "2026-10-24T23:00:00Z");
    check_rule("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 2026, "2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z");
    check_rule("AAA0BBB,J60/0,J365/0", 2028, "2028-03-01T00:00:00Z", "2028-12-30T23:00:00Z");
    check_rule("AAA0BBB,59/0,365/0", 2028, "2028-02-29T00:00:00Z", "2028-12-30T23:00:00Z");
}

Test(tz, broken_rules_are_refused)
{
    const char *const rules[] = {"",
                                 "A",
                                 "AA0",
                                 "AAA",
                                 "AAA25",
                                 "AAA0:60",
                                 "AAA0BBB",
                                 "AAA0BBB,M3.5.0",
                                 "AAA0 ",
                                 "AAA0BBB,M13.1.0,M1.1.0",
                                 "AAA0BBB,M1.6.0,M1.1.0",
                                 "AAA0BBB,M1.1.7,M1.1.0",
                                 "AAA0BBB,J0,J1",
                                 "AAA0BBB,366,1",
                                 "AAA0BBB,1/168,2",
                                 "<A>0",
                                 "<AAA0",
                                 "AAA0BBB,1,2,"};
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        struct tz_rule r;
        cr_expect(eq(int, tz_rule_parse(rules[i], strlen(rules[i]), &r, NULL), -ERR_INVALID), "%s", rules[i]);
    }
}
