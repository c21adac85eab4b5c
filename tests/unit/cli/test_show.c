#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/cli/show.h"

#define S ((int64_t)1000)
#define M (60 * S)
#define H (60 * M)
#define D (24 * H)

Test(show, instants_leave_out_what_says_nothing)
{
    char text[SHOW_INSTANT_SIZE];
    show_instant(text, 0);
    cr_assert(eq(str, text, "1970-01-01T00:00:00Z"));
    show_instant(text, 1500);
    cr_assert(eq(str, text, "1970-01-01T00:00:01.500Z"));
}

Test(show, spans_have_their_two_largest_units)
{
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "now"},
        {1, "in 1ms"},
        {-999, "999ms ago"},
        {S, "in 1s"},
        {S + 500, "in 1s"},
        {-59 * S, "59s ago"},
        {M, "in 1m"},
        {M + 5 * S, "in 1m 5s"},
        {H + 59 * S, "in 1h"},
        {-(H + M), "1h 1m ago"},
        {D + H, "in 1d 1h"},
        {400 * D, "in 400d"},
        {100 * D + 23 * H, "in 100d 23h"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[SHOW_RELATIVE_SIZE];
        show_relative(text, 1000 * D + cases[i].ms, 1000 * D);
        cr_assert(eq(str, text, (char *)cases[i].text));
    }
    char text[SHOW_RELATIVE_SIZE];
    show_relative(text, INT64_MAX, INT64_MIN);
    cr_assert(eq(str, text, "in 213503982334d 14h"));
    show_relative(text, INT64_MIN, INT64_MAX);
    cr_assert(eq(str, text, "213503982334d 14h ago"));
}

Test(show, both_takes_instants_only)
{
    char text[SHOW_BOTH_SIZE];
    json_t *v = json_string("1970-01-01T00:01:00.000Z");
    show_both(text, v, 0);
    cr_assert(eq(str, text, "1970-01-01T00:01:00Z (in 1m)"));
    json_decref(v);
    v = json_string("soon");
    show_both(text, v, 0);
    cr_assert(eq(str, text, ""));
    json_decref(v);
    show_both(text, NULL, 0);
    cr_assert(eq(str, text, ""));
}

static char *printed(const struct show_table *t)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    show_table_print(t, f);
    cr_assert(zero(int, fclose(f)));
    return text;
}

Test(show, tables_align_by_characters)
{
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 3, (const char *const[]){"ID", "B", "LAST"});
    show_cell(&t, "%s", "äöü");
    show_cell(&t, "%d", 12345);
    show_cell(&t, "x");
    show_cell(&t, "a");
    show_cell(&t, "%s", "");
    show_cell(&t, "a\x1b[31m\tb\n");
    char *text = printed(&t);
    cr_assert(eq(str, text, "ID   B      LAST\näöü  12345  x\na    -      a?[31m?b?\n"));
    free(text);
}

Test(show, compact_values_are_cut_at_characters)
{
    json_t *v = json_string("ääää\n");
    AUTO(mem_free) char *cut = show_compact(v, 3);
    cr_assert(eq(str, cut, "ä…"));
    AUTO(mem_free) char *whole = show_compact(v, 100);
    cr_assert(eq(str, whole, "ääää?"));
    json_decref(v);
    v = json_pack("{s:i,s:[s]}", "b", 1, "a", "x");
    AUTO(mem_free) char *object = show_compact(v, 100);
    cr_assert(eq(str, object, "{\"b\":1,\"a\":[\"x\"]}"));
    json_decref(v);
    AUTO(mem_free) char *nothing = show_compact(NULL, 100);
    cr_assert(eq(str, nothing, ""));
}
