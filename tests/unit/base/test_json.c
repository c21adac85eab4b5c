#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/rng.h"
#include "tests/lib/seed.h"

#define S(text) text, sizeof(text) - 1

static json_t *read_ok(const char *text)
{
    json_t *v = NULL;
    struct err e = {0};
    cr_assert(zero(int, json_read(text, strlen(text), 1 << 20, &v, &e)), "%s: %s", text, e.text);
    return v;
}

static char *printed(const json_t *v)
{
    struct buf out = BUF_INIT(1 << 20);
    cr_assert(zero(int, json_print(v, &out, NULL)));
    return buf_steal(&out, NULL, NULL);
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

Test(json, hostile_texts_are_refused_and_write_nothing)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {S("")},
        {S("{")},
        {S("{} {}")},
        {S("{\"a\":1,\"a\":2}")},
        {S("{\"a\":{\"b\":1,\"b\":1}}")},
        {S("\xEF\xBB\xBF{}")},
        {S("\"\xff\"")},
        {S("\"\\ud800\"")},
        {S("{\"a\\u0000b\":1}")},
        {S("9223372036854775808")},
        {S("-9223372036854775809")},
        {S("1e999")},
        {S("[1,]")},
        {S("'a'")},
        {S("NaN")},
        {S("01")},
        {S("\"a\nb\"")},
        {S("{}\0")},
    };
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        json_t *v = NULL;
        struct err e = {0};
        cr_assert(eq(int, json_read(bad[k].text, bad[k].len, 1 << 20, &v, &e), -ERR_INVALID), "case %zu", k);
        cr_assert(v == NULL);
        cr_assert(ne(str, e.text, ""));
    }
}

Test(json, nesting_has_a_limit_that_brackets_in_strings_do_not_reach)
{
    char text[2 * JSON_DEPTH_MAX + 3] = {0};
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    json_decref(read_ok(text));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    json_t *v = NULL;
    cr_assert(eq(int, json_read(text, strlen(text), 1000, &v, NULL), -ERR_INVALID));
    json_decref(read_ok("\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[[[[[[[[[[[[[[[[[[\""));
    static char deep[1 << 20];
    memset(deep, '[', sizeof(deep));
    cr_assert(eq(int, json_read(deep, sizeof(deep), sizeof(deep), &v, NULL), -ERR_INVALID));
}

Test(json, size_has_a_limit)
{
    json_t *v = NULL;
    cr_assert(eq(int, json_read(S("[1,2]"), 4, &v, NULL), -ERR_TOO_BIG));
    cr_assert(zero(int, json_read(S("[1,2]"), 5, &v, NULL)));
    json_decref(v);
}

Test(json, errors_name_line_and_column)
{
    json_t *v;
    struct err e;
    cr_assert(lt(int, json_read(S("{\n\"a\": tru }"), 100, &v, &e), 0));
    cr_assert(strstr(e.text, "line 2 column") != NULL, "%s", e.text);
}

Test(json, lost_memory_never_looks_like_success)
{
    const char *text =
        "{\"schedule\":[\"@every 1s\",\"0 9 * * *\"],\"n\":[1,2.5,-3,true,null],\"o\":{\"k\":\"v\\u00fc\"}}";
    for (unsigned k = 0;; k++) {
        json_t *v = NULL;
        struct err e = {0};
        fault_arm(k);
        int r = json_read(text, strlen(text), 1 << 20, &v, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            json_decref(v);
            cr_assert(gt(uint, k, 10));
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u: %d %s", k, r, e.text);
        cr_assert(v == NULL);
    }
}

/* Of tokens that end where the buffer of jansson's lexer does, among all others. */
Test(json, no_memory_at_any_place_of_any_token_is_said)
{
    static const char digits[] = "0123456789012345678901234567890123456789012345678901234567890123456789";
    for (int n = 1; n < (int)sizeof(digits); n++) {
        char text[400];
        (void)snprintf(text, sizeof(text), "{\"b\":1.%.*s,\"c\":\"\\u00e9\",\"%.*s\":\"\xC3\xBC%.*s\"}", n,
                       digits, n, digits, n, digits);
        bool fired = true;
        for (unsigned k = 0; fired; k++) {
            AUTO(json_decref) json_t *v = NULL;
            struct err e = {0};
            fault_arm(k);
            int r = json_read(text, strlen(text), 1 << 20, &v, &e);
            fired = fault_fired();
            cr_assert(eq(int, r, fired ? -ERR_NOMEM : 0), "n=%d k=%u: %s", n, k, e.text);
            cr_assert(eq(int, v != NULL, !fired));
        }
    }
}

/* --- printing ---------------------------------------------------------------------------------------------------- */

static void check_print(const char *in, const char *out)
{
    AUTO(json_decref) json_t *v = read_ok(in);
    AUTO(mem_free) char *text = printed(v);
    cr_assert(eq(str, text, (char *)out));
}

Test(json, prints_sorted_and_compact)
{
    check_print(" { \"b\" : [ 1 , { } , [ ] ] , \"a\" : null , \"ab\" : true } ",
                "{\"a\":null,\"ab\":true,\"b\":[1,{},[]]}");
}

Test(json, prints_numbers_by_value_and_shortly)
{
    check_print("[0.1,1.0,1e300,-0.0,9223372036854775807,-9223372036854775808,0.30000000000000004,1E2]",
                "[0.1,1.0,1e+300,-0.0,9223372036854775807,-9223372036854775808,0.30000000000000004,100.0]");
}

/* The shortest decimal form that reads back, as printf() and strtod() find it. */
static void simplest_real(double v, char ret[48])
{
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(ret, 40, "%.*g", digits, v);
        if (strtod(ret, NULL) == v)
            break;
    }
    if (!strpbrk(ret, ".e"))
        memcpy(ret + strlen(ret), ".0", 3);
}

Test(json, reals_of_few_decimals_are_printed_as_any_other)
{
    struct rng r;
    (void)seed_rng(&r, "reals");
    static const double scales[] = {1, 10, 100, 1000, 10000, 1e7};
    for (int i = 0; i < 200000; i++) {
        AUTO(buf_fini) struct buf out = BUF_INIT(100);
        char expected[48];
        double v = (double)(rng_u64(&r) >> (10 + rng_below(&r, 54))) / scales[rng_below(&r, 6)];
        if (rng_below(&r, 8) == 0)
            v = nextafter(v, rng_below(&r, 2) ? 0 : HUGE_VAL);
        simplest_real(v, expected);
        json_print_real(&out, v);
        cr_assert(eq(str, (char *)buf_str(&out), expected), "%.17g", v);
    }
}

Test(json, a_string_that_just_fits_is_whole_and_one_byte_more_is_refused)
{
    for (size_t room = 4; room < 9; room++) {
        AUTO(buf_fini) struct buf out = BUF_INIT(room);
        buf_add_char(&out, ':');
        json_print_string(&out, "abcd", 4);
        cr_assert(eq(int, buf_check(&out, NULL), room < 7 ? -ERR_TOO_BIG : 0));
        if (room >= 7)
            cr_assert(eq(str, (char *)buf_str(&out), ":\"abcd\""));
    }
}

Test(json, prints_strings_escaped)
{
    check_print("\"\\u0000\\u001f\\n\\r\\t\\b\\f\\\"\\\\/\\u00fc\\ud83d\\ude00\"",
                "\"\\u0000\\u001f\\n\\r\\t\\b\\f\\\"\\\\/\xC3\xBC\xF0\x9F\x98\x80\"");
    AUTO(buf_fini) struct buf out = BUF_INIT(100);
    json_print_string(&out, "a\xff\xC3\xBC\xE2\x82", 6);
    cr_assert(eq(str, (char *)buf_str(&out), "\"a\xEF\xBF\xBD\xC3\xBC\xEF\xBF\xBD\xEF\xBF\xBD\""));
}

Test(json, prints_in_order_of_insertion_on_request)
{
    AUTO(json_decref) json_t *v = read_ok("{\"z\":1,\"a\":{\"y\":2,\"b\":3}}");
    AUTO(buf_fini) struct buf out = BUF_INIT(100);
    cr_assert(zero(int, json_print_ordered(v, &out, NULL)));
    cr_assert(eq(str, (char *)buf_str(&out), "{\"z\":1,\"a\":{\"y\":2,\"b\":3}}"));
}

Test(json, printing_stops_at_ceiling_depth_and_memory)
{
    AUTO(json_decref) json_t *v = read_ok("{\"a\":[1,{\"b\":2}]}");
    AUTO(buf_fini) struct buf tiny = BUF_INIT(5);
    cr_assert(eq(int, json_print(v, &tiny, NULL), -ERR_TOO_BIG));
    for (unsigned k = 0;; k++) {
        AUTO(buf_fini) struct buf out = BUF_INIT(1000);
        fault_arm(k);
        int r = json_print(v, &out, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u", k);
    }
    AUTO(json_decref) json_t *deep = json_array();
    for (int i = 0; i < 2 * JSON_DEPTH_MAX + 2; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, deep);
        deep = outer;
    }
    AUTO(buf_fini) struct buf out = BUF_INIT(10000);
    cr_assert(eq(int, json_print(deep, &out, NULL), -ERR_TOO_BIG));
}

static json_t *random_value(struct rng *r, int depth)
{
    static const char *const strings[] = {"", "a", "\xC3\xBC", "\n\"\\", "long enough to be no small string"};
    switch (rng_below(r, depth > 0 ? 8 : 6)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean(rng_below(r, 2));
    case 2:
        return json_integer((json_int_t)(rng_u64(r) >> rng_below(r, 64)));
    case 3:
        return json_real((rng_double(r) - 0.5) * (double)(1ull << rng_below(r, 60)));
    case 4:
    case 5:
        return json_string(strings[rng_below(r, 5)]);
    case 6: {
        json_t *a = json_array();
        for (uint64_t n = rng_below(r, 4); n > 0; n--)
            json_array_append_new(a, random_value(r, depth - 1));
        return a;
    }
    default: {
        json_t *o = json_object();
        for (uint64_t n = rng_below(r, 5); n > 0; n--)
            json_object_set_new(o, (const char *[]){"a", "b", "c", "/~"}[rng_below(r, 4)],
                                random_value(r, depth - 1));
        return o;
    }
    }
}

Test(json, what_is_printed_reads_back_equal)
{
    struct rng r;
    (void)seed_rng(&r, "json");
    for (int i = 0; i < 20000; i++) {
        AUTO(json_decref) json_t *v = random_value(&r, 4);
        AUTO(mem_free) char *text = printed(v);
        AUTO(json_decref) json_t *back = read_ok(text);
        cr_assert(json_equal(v, back), "%s", text);
    }
}

/* --- merge patch ------------------------------------------------------------------------------------------------- */

/* The examples of RFC 7396, appendix A. */
Test(json, merge_patch_does_what_the_rfc_shows)
{
    static const char *const cases[][3] = {
        {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
        {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
        {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
        {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
        {"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
        {"[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"},
        {"{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]"},
        {"{\"a\":\"foo\"}", "null", "null"},
        {"{\"a\":\"foo\"}", "\"bar\"", "\"bar\""},
        {"{\"e\":null}", "{\"a\":1}", "{\"a\":1,\"e\":null}"},
        {"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
        {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
    };
    for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
        AUTO(json_decref) json_t *target = read_ok(cases[k][0]);
        AUTO(json_decref) json_t *patch = read_ok(cases[k][1]);
        AUTO(json_decref) json_t *result = NULL;
        cr_assert(zero(int, json_merge_patch(target, patch, &result, NULL)));
        AUTO(mem_free) char *text = printed(result);
        AUTO(mem_free) char *target_after = printed(target);
        AUTO(mem_free) char *patch_after = printed(patch);
        cr_assert(eq(str, text, (char *)cases[k][2]));
        cr_assert(eq(str, target_after, (char *)cases[k][0]));
        cr_assert(eq(str, patch_after, (char *)cases[k][1]));
    }
}

Test(json, failed_merge_leaves_nothing_behind)
{
    AUTO(json_decref) json_t *target = read_ok("{\"a\":{\"b\":1,\"c\":2},\"d\":3}");
    AUTO(json_decref) json_t *patch = read_ok("{\"a\":{\"b\":null,\"x\":{\"y\":1}},\"e\":[1]}");
    for (unsigned k = 0;; k++) {
        json_t *result = NULL;
        fault_arm(k);
        int r = json_merge_patch(target, patch, &result, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            json_decref(result);
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u", k);
        cr_assert(result == NULL);
    }
}

/* --- problems and pointers ----------------------------------------------------------------------------------------- */

Test(json, pointers_escape_and_are_cut)
{
    char text[JSON_POINTER_MAX];
    struct json_at a = json_at_key(NULL, "a/b~c"), b = json_at_index(&a, 12), c = json_at_key(&b, "");
    json_at_print(NULL, text);
    cr_assert(eq(str, text, "#"));
    json_at_print(&c, text);
    cr_assert(eq(str, text, "#/a~1b~0c/12/"));
    char key[2000];
    for (size_t pad = 0; pad < 4; pad++) {
        memset(key, 'x', pad);
        for (size_t i = pad; i + 3 < sizeof(key); i += 2)
            memcpy(key + i, "\xC3\xBC", 3);
        struct json_at longer = json_at_key(&a, key);
        json_at_print(&longer, text);
        cr_assert(lt(sz, strlen(text), sizeof(text)));
        AUTO(json_decref) json_t *valid = json_string(text);
        cr_assert(valid != NULL, "cut inside a character");
    }
}

Test(json, problems_are_bounded_and_counted)
{
    AUTO(problems_fini) struct problems p = {0};
    cr_assert(zero(int, problems_check(&p, NULL)));
    for (int i = 0; i < 100; i++)
        problems_add(&p, "#/x", "wrong %d", i);
    cr_assert(eq(sz, p.count, JSON_PROBLEMS_MAX));
    cr_assert(eq(sz, p.dropped, 100 - JSON_PROBLEMS_MAX));
    struct err e;
    cr_assert(eq(int, problems_check(&p, &e), -ERR_INVALID));
    cr_assert(eq(str, e.text, "#/x: wrong 0 (and 99 more)"));
}

Test(json, problems_without_memory_are_still_problems)
{
    for (unsigned k = 0;; k++) {
        AUTO(problems_fini) struct problems p = {0};
        fault_arm(k);
        problems_add(&p, "#/x", "wrong");
        if (!fault_fired())
            break;
        cr_assert(problems_any(&p), "k=%u", k);
        cr_assert(eq(int, problems_check(&p, NULL), -ERR_NOMEM));
    }
}
