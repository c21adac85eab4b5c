#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/json.h"

static json_t *body(const char *text)
{
    json_t *v = NULL;
    struct err e = {0};
    cr_assert(zero(int, json_read(text, strlen(text), 1 << 20, &v, &e)), "%s", e.text);
    return v;
}

static void expect_problem(const struct problems *p, size_t i, const char *pointer, const char *detail)
{
    cr_assert(lt(sz, i, p->count), "problem %zu is missing: %s", i, detail);
    cr_assert(eq(str, p->items[i].pointer, (char *)pointer));
    cr_assert(eq(str, p->items[i].detail, (char *)detail));
}

Test(json_field, every_error_of_a_body_is_listed)
{
    AUTO(json_decref)
    json_t *o =
        body("{\"s\":1,\"i\":\"x\",\"b\":0,\"d\":\"10\",\"t\":\"now\",\"e\":\"rde\",\"n\":11,\"f\":1.5}");
    AUTO(problems_fini) struct problems p = {0};
    static const char *const colours[] = {"red", "green", NULL};
    struct json_at at = json_at_key(NULL, "job");
    const char *s = "kept";
    int64_t i = 7;
    bool b = true;
    uint64_t d = 7;
    unsigned e = 7;
    cr_assert(not(json_field_string(o, "s", 0, 10, &s, NULL, &at, &p)));
    cr_assert(not(json_field_int(o, "i", 0, 10, &i, &at, &p)));
    cr_assert(not(json_field_bool(o, "b", &b, &at, &p)));
    cr_assert(not(json_field_duration_ms(o, "d", 0, 10, &d, &at, &p)));
    cr_assert(not(json_field_instant_ms(o, "t", &i, &at, &p)));
    cr_assert(not(json_field_enum(o, "e", colours, &e, &at, &p)));
    cr_assert(not(json_field_int(o, "n", 0, 10, &i, &at, &p)));
    cr_assert(not(json_require(o, "missing", &at, &p)));
    cr_assert(not(json_field_int(o, "f", 0, 10, &i, &at, &p)));
    cr_assert(s[0] == 'k' && i == 7 && b && d == 7 && e == 7);
    expect_problem(&p, 0, "#/job/s", "must be a string, not a number");
    expect_problem(&p, 1, "#/job/i", "must be a whole number, not a string");
    expect_problem(&p, 2, "#/job/b", "must be true or false, not a number");
    expect_problem(&p, 3, "#/job/d", "'10' is no duration; write 250ms, 10s, 1h30m or 7d, up to 36500d");
    expect_problem(&p, 4, "#/job/t",
                   "'now' is no instant; write 2026-11-23T08:00:00Z or 2026-11-23T09:00:00.250+01:00");
    expect_problem(&p, 5, "#/job/e", "'rde' is not one of red, green");
    expect_problem(&p, 6, "#/job/n", "must be from 0 to 10, not 11");
    expect_problem(&p, 7, "#/job/missing", "is required");
    expect_problem(&p, 8, "#/job/f", "must be a whole number, not 1.5");
    cr_assert(eq(sz, p.count, 9));
}

Test(json_field, right_values_are_taken)
{
    AUTO(json_decref)
    json_t *o =
        body("{\"s\":\"abc\",\"i\":-3,\"b\":true,\"d\":\"1h30m\",\"t\":\"2026-11-23T08:00:00Z\",\"e\":"
             "\"green\",\"f\":0.5,\"g\":2,\"o\":{},\"a\":[1]}");
    AUTO(problems_fini) struct problems p = {0};
    static const char *const colours[] = {"red", "green", NULL};
    const char *s;
    size_t len;
    int64_t i;
    bool b;
    uint64_t d;
    unsigned e;
    double f;
    cr_assert(json_field_string(o, "s", 3, 3, &s, &len, NULL, &p));
    cr_assert(len == 3 && strcmp(s, "abc") == 0);
    cr_assert(json_field_int(o, "i", -3, -3, &i, NULL, &p));
    cr_assert(eq(i64, i, -3));
    cr_assert(json_field_bool(o, "b", &b, NULL, &p));
    cr_assert(b);
    cr_assert(json_field_duration_ms(o, "d", 0, 5400000, &d, NULL, &p));
    cr_assert(eq(u64, d, 5400000));
    cr_assert(json_field_instant_ms(o, "t", &i, NULL, &p));
    cr_assert(eq(i64, i, INT64_C(1795420800000)));
    cr_assert(json_field_enum(o, "e", colours, &e, NULL, &p));
    cr_assert(eq(uint, e, 1));
    cr_assert(json_field_double(o, "f", 0, 1, &f, NULL, &p));
    cr_assert(f == 0.5);
    cr_assert(json_field_double(o, "g", 0, 2, &f, NULL, &p));
    cr_assert(json_field_object(o, "o", NULL, &p) != NULL);
    cr_assert(json_field_array(o, "a", 1, NULL, &p) != NULL);
    cr_assert(not(problems_any(&p)));
}

Test(json_field, absent_and_null_are_no_problem)
{
    AUTO(json_decref) json_t *o = body("{\"s\":null}");
    AUTO(problems_fini) struct problems p = {0};
    const char *s, **list;
    size_t n;
    cr_assert(not(json_field_string(o, "s", 1, 2, &s, NULL, NULL, &p)));
    cr_assert(not(json_field_string(o, "x", 1, 2, &s, NULL, NULL, &p)));
    cr_assert(not(json_field_string(NULL, "x", 1, 2, &s, NULL, NULL, &p)));
    cr_assert(not(json_field_strings(o, "s", 2, 2, &list, &n, NULL, &p)));
    cr_assert(json_field_object(o, "s", NULL, &p) == NULL);
    cr_assert(not(problems_any(&p)));
}

Test(json_field, texts_have_lengths_and_no_nul)
{
    AUTO(json_decref) json_t *o = body("{\"nul\":\"a\\u0000b\",\"long\":\"abcd\",\"empty\":\"\"}");
    AUTO(problems_fini) struct problems p = {0};
    const char *s;
    cr_assert(not(json_field_string(o, "nul", 0, 10, &s, NULL, NULL, &p)));
    cr_assert(not(json_field_string(o, "long", 0, 3, &s, NULL, NULL, &p)));
    cr_assert(not(json_field_string(o, "empty", 1, 3, &s, NULL, NULL, &p)));
    expect_problem(&p, 0, "#/nul", "contains a NUL character");
    expect_problem(&p, 1, "#/long", "has 4 bytes, allowed are 0 to 3");
    expect_problem(&p, 2, "#/empty", "may not be empty");
}

Test(json_field, a_copied_text_fits_and_is_there_if_it_has_to_be)
{
    AUTO(json_decref) json_t *doc = body("{\"four\":\"abcd\",\"three\":\"abc\",\"none\":\"\"}");
    AUTO(problems_fini) struct problems p = {0};
    char text[4] = "-";
    cr_assert(json_field_copy(doc, "three", 1, text, sizeof(text), NULL, &p));
    cr_assert(eq(str, text, "abc"));
    cr_assert(json_field_copy(doc, "none", 0, text, sizeof(text), NULL, &p));
    cr_assert(eq(str, text, ""));
    cr_assert(zero(int, json_field_copy(doc, "absent", 0, text, sizeof(text), NULL, &p)));
    cr_assert(zero(sz, p.count), "it may be absent");
    cr_assert(zero(int, json_field_copy(doc, "four", 0, text, sizeof(text), NULL, &p)));
    cr_assert(zero(int, json_field_copy(doc, "none", 1, text, sizeof(text), NULL, &p)));
    cr_assert(zero(int, json_field_copy(doc, "absent", 1, text, sizeof(text), NULL, &p)));
    cr_assert(eq(sz, p.count, 3));
    cr_assert(eq(str, text, ""), "what is wrong leaves it as it was");
}

Test(json_field, a_text_or_a_list_of_texts)
{
    AUTO(json_decref)
    json_t *o = body("{\"one\":\"a\",\"two\":[\"a\",\"b\"],\"none\":[],\"bad\":[1,\"\",\"a\"],\"n\":1}");
    AUTO(problems_fini) struct problems p = {0};
    const char **list = NULL;
    size_t n = 0;
    cr_assert(json_field_strings(o, "one", 2, 9, &list, &n, NULL, &p));
    cr_assert(n == 1 && strcmp(list[0], "a") == 0);
    mem_free(list);
    cr_assert(json_field_strings(o, "two", 2, 9, &list, &n, NULL, &p));
    cr_assert(n == 2 && strcmp(list[1], "b") == 0);
    mem_free(list);
    cr_assert(not(json_field_strings(o, "two", 1, 9, &list, &n, NULL, &p)));
    cr_assert(not(json_field_strings(o, "none", 2, 9, &list, &n, NULL, &p)));
    cr_assert(not(json_field_strings(o, "bad", 3, 9, &list, &n, NULL, &p)));
    cr_assert(not(json_field_strings(o, "n", 3, 9, &list, &n, NULL, &p)));
    expect_problem(&p, 0, "#/two", "has 2 items, allowed are 1 to 1");
    expect_problem(&p, 1, "#/none", "has 0 items, allowed are 1 to 2");
    expect_problem(&p, 2, "#/bad/0", "must be a string, not a number");
    expect_problem(&p, 3, "#/bad/1", "may not be empty");
    expect_problem(&p, 4, "#/n", "must be a string or an array of strings, not a number");
}

Test(json_field, unknown_fields_suggest_known_ones)
{
    AUTO(json_decref) json_t *o = body("{\"shedule\":1,\"colour\":2,\"id\":3}");
    AUTO(problems_fini) struct problems p = {0};
    json_unknown_fields(o, (const char *const[]){"id", "schedule", NULL}, NULL, &p);
    cr_assert(eq(sz, p.count, 2));
    expect_problem(&p, 0, "#/shedule", "is not a known field; did you mean 'schedule'?");
    expect_problem(&p, 1, "#/colour", "is not a known field");
}

Test(json_field, wrong_containers_are_named)
{
    AUTO(json_decref) json_t *o = body("{\"o\":[],\"a\":{},\"many\":[1,2,3]}");
    AUTO(problems_fini) struct problems p = {0};
    cr_assert(json_field_object(o, "o", NULL, &p) == NULL);
    cr_assert(json_field_array(o, "a", 9, NULL, &p) == NULL);
    cr_assert(json_field_array(o, "many", 2, NULL, &p) == NULL);
    cr_assert(not(json_expect_object(json_object_get(o, "many"), NULL, &p)));
    cr_assert(not(json_expect_object(NULL, NULL, &p)));
    expect_problem(&p, 0, "#/o", "must be an object, not an array");
    expect_problem(&p, 1, "#/a", "must be an array, not an object");
    expect_problem(&p, 2, "#/many", "has 3 items, allowed are 2");
    expect_problem(&p, 3, "#", "must be an object, not an array");
    expect_problem(&p, 4, "#", "must be an object");
}

Test(json_field, a_setter_takes_the_value_also_when_it_fails)
{
    for (unsigned k = 0;; k++) {
        AUTO(json_decref) json_t *o = json_object();
        struct err e = {0};
        fault_arm(k);
        int r = json_set(o, "a_key", json_string("a value"), &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(eq(str, (char *)json_string_value(json_object_get(o, "a_key")), "a value"));
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u", k);
    }
}
