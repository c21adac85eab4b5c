#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/cli/args.h"

static const struct cli_flag flags[] = {
    {.name = "--file", .letter = 'f', .value = "FILE"},
    {.name = "--set", .value = "KEY=VALUE", .many = true},
    {.name = "--all"},
    {0},
};
static const struct cli_command local = {.name = "x", .flags = flags, .args_min = 1, .args_max = 2};
static const struct cli_command remote = {.name = "y", .remote = true};

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static int read_words(const struct cli_command *c, const char *const *words, struct cli_args *ret,
                      struct err *e)
{
    int n = 0;
    while (words[n])
        n++;
    return args_read(c, n, words, ret, e);
}

Test(args, flags_and_arguments_may_be_mixed)
{
    struct cli_args a;
    struct err e;
    size_t at = 0;
    cr_assert(
        zero(int, read_words(&local, WORDS("one", "-f", "a", "--set=k=v", "two", "--set", "l=w", "--all"), &a,
                             &e)));
    cr_assert(eq(sz, a.count, 2));
    cr_assert(eq(str, (char *)a.items[1], "two"));
    cr_assert(eq(str, (char *)args_get(&a, "--file"), "a"));
    cr_assert(args_has(&a, "--all"));
    cr_assert(eq(str, (char *)args_next(&a, "--set", &at), "k=v"));
    cr_assert(eq(str, (char *)args_next(&a, "--set", &at), "l=w"));
    cr_assert(args_next(&a, "--set", &at) == NULL);
    cr_assert(not(args_has(&a, "--json")));
}

Test(args, words_after_two_dashes_are_no_flags)
{
    struct cli_args a;
    struct err e;
    cr_assert(zero(int, read_words(&local, WORDS("--", "--all", "-"), &a, &e)));
    cr_assert(eq(str, (char *)a.items[0], "--all"));
    cr_assert(eq(str, (char *)a.items[1], "-"));
    cr_assert(zero(int, read_words(&local, WORDS("-"), &a, &e)));
    cr_assert(eq(str, (char *)a.items[0], "-"));
}

Test(args, mistakes_are_named)
{
    static const struct {
        const char *words[4], *error;
    } cases[] = {
        {{"--fiel", "a"}, "'--fiel' is no flag of x; did you mean --file?"},
        {{"--quite-different"}, "'--quite-different' is no flag of x"},
        {{"-z"}, "'-z' is no flag of x"},
        {{"--all=1", "a"}, "--all takes no value"},
        {{"a", "--file"}, "--file needs a value: --file FILE"},
        {{"-f", "a", "--file=b"}, "--file is given twice"},
        {{"--all"}, "x needs an argument"},
        {{"a", "b", "c"}, "'c' is too much"},
        {{"a", "--addr", "b"}, "'--addr' is no flag of x"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cli_args a;
        struct err e;
        const char *const words[] = {cases[i].words[0], cases[i].words[1], cases[i].words[2],
                                     cases[i].words[3], NULL};
        cr_assert(eq(int, read_words(&local, words, &a, &e), -ERR_INVALID));
        cr_assert(eq(str, e.text, (char *)cases[i].error));
    }
}

Test(args, remote_commands_know_which_agent)
{
    struct cli_args a;
    struct err e;
    cr_assert(zero(int, read_words(&remote, WORDS("--addr", "b:1", "--ns=n", "--json"), &a, &e)));
    cr_assert(eq(str, (char *)args_get(&a, "--addr"), "b:1"));
    cr_assert(args_has(&a, "--json"));
}

Test(args, help_needs_nothing_else)
{
    struct cli_args a;
    struct err e;
    cr_assert(zero(int, read_words(&local, WORDS("-h"), &a, &e)));
    cr_assert(args_has(&a, "--help"));
}

Test(args, typed_values_are_checked_and_keep_their_default)
{
    static const struct cli_flag typed[] = {{.name = "--n", .value = "N"}, {0}};
    static const struct cli_command c = {.name = "z", .flags = typed};
    struct cli_args a;
    struct err e;
    uint64_t n = 7;
    double d = 0.5;
    int64_t at = 9;
    cr_assert(zero(int, read_words(&c, WORDS(NULL), &a, &e)));
    cr_assert(zero(int, args_u64(&a, "--n", 1, 9, &n, &e)));
    cr_assert(eq(u64, n, 7));
    cr_assert(zero(int, read_words(&c, WORDS("--n", "10"), &a, &e)));
    cr_assert(eq(int, args_u64(&a, "--n", 1, 9, &n, &e), -ERR_INVALID));
    cr_assert(eq(str, e.text, "--n: '10' is no whole number from 1 to 9"));
    cr_assert(eq(int, args_duration_ms(&a, "--n", &n, &e), -ERR_INVALID));
    cr_assert(eq(int, args_double(&a, "--n", 0, 1, &d, &e), -ERR_INVALID));
    cr_assert(eq(int, args_instant_ms(&a, "--n", &at, &e), -ERR_INVALID));
    cr_assert(eq(u64, n, 7));
    cr_assert(eq(i64, at, 9));
}

Test(args, more_words_than_a_command_can_hold_are_refused)
{
    const char *words[2 * ARGS_MAX + 3] = {0};
    struct cli_args a;
    struct err e;
    for (size_t i = 0; i < 2 * ARGS_MAX + 2; i += 2) {
        words[i] = "--set";
        words[i + 1] = "a=b";
    }
    cr_assert(eq(int, args_read(&local, 2 * ARGS_MAX + 2, words, &a, &e), -ERR_INVALID));
    cr_assert(eq(str, e.text, "more than 64 flags"));
    for (size_t i = 0; i < ARGS_MAX + 1; i++)
        words[i] = "a";
    cr_assert(eq(int, args_read(&local, ARGS_MAX + 1, words, &a, &e), -ERR_INVALID));
    cr_assert(eq(str, e.text, "more than 64 arguments"));
}

Test(args, the_table_of_commands_is_sound)
{
    for (const struct cli_command *c = cli_commands(); c->name; c++) {
        cr_assert(c->group && c->usage && c->help && c->run, "%s", c->name);
        cr_assert(le(sz, c->args_min, c->args_max), "%s", c->name);
        cr_assert(le(sz, c->args_max, ARGS_MAX), "%s", c->name);
        cr_assert(c->more == NULL || c->more[strlen(c->more) - 1] == '\n', "%s", c->name);
        for (const struct cli_flag *f = c->flags; f && f->name; f++)
            cr_assert(strncmp(f->name, "--", 2) == 0 && f->help, "%s %s", c->name, f->name);
    }
}
