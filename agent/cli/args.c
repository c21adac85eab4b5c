#include "agent/cli/args.h"

#include <string.h>

#include "agent/base/text.h"

#define FLAGS_MAX 64

static const struct cli_flag *find_in(const struct cli_flag *flags, const char *name, size_t len)
{
    for (; flags && flags->name; flags++)
        if ((strlen(flags->name) == len && memcmp(flags->name, name, len) == 0) ||
            (flags->letter && len == 2 && name[0] == '-' && name[1] == flags->letter))
            return flags;
    return NULL;
}

static const struct cli_flag *find_flag(const struct cli_command *c, const char *name, size_t len)
{
    const struct cli_flag *f = find_in(c->flags, name, len);
    if (!f && c->remote)
        f = find_in(cli_remote_flags(), name, len);
    return f ? f : find_in(cli_common_flags(c), name, len);
}

static void add_names(const struct cli_flag *flags, const char **names, size_t *count)
{
    for (; flags && flags->name && *count < FLAGS_MAX; flags++)
        names[(*count)++] = flags->name;
}

static int unknown_flag(const struct cli_command *c, const char *name, size_t len, struct err *e)
{
    const char *names[FLAGS_MAX + 1] = {0};
    size_t count = 0;
    add_names(c->flags, names, &count);
    if (c->remote)
        add_names(cli_remote_flags(), names, &count);
    add_names(cli_common_flags(c), names, &count);
    const char *near = text_nearest(name, len, names);
    if (near)
        return err_set(e, ERR_INVALID, "'%s' is no flag of %s; did you mean %s?", TEXTQ(name, len), c->name,
                       near);
    return err_set(e, ERR_INVALID, "'%s' is no flag of %s", TEXTQ(name, len), c->name);
}

/* The flag at ARGV[*AT], and its value, which may be the next word. */
static int read_flag(struct cli_args *args, int argc, const char *const *argv, int *at, struct err *e)
{
    const char *word = argv[*at], *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    const struct cli_flag *f = find_flag(args->command, word, len);
    if (!f)
        return unknown_flag(args->command, word, len, e);
    const char *value = equals ? equals + 1 : NULL;
    if (!f->value && value)
        return err_set(e, ERR_INVALID, "%s takes no value", f->name);
    if (f->value && !value) {
        if (*at + 1 >= argc)
            return err_set(e, ERR_INVALID, "%s needs a value: %s %s", f->name, f->name, f->value);
        value = argv[++*at];
    }
    if (!f->many && args_has(args, f->name))
        return err_set(e, ERR_INVALID, "%s is given twice", f->name);
    if (args->given_count == ARGS_MAX)
        return err_set(e, ERR_INVALID, "more than %d flags", ARGS_MAX);
    args->given[args->given_count].flag = f;
    args->given[args->given_count++].value = value ? value : "";
    return 0;
}

static int check_count(const struct cli_args *args, struct err *e)
{
    const struct cli_command *c = args->command;
    if (args->count < c->args_min)
        return err_set(e, ERR_INVALID, "%s needs %s", c->name,
                       c->args_min == 1 ? "an argument" : "more arguments");
    if (args->count > c->args_max)
        return err_set(e, ERR_INVALID, "'%s' is too much",
                       TEXTQ(args->items[c->args_max], strlen(args->items[c->args_max])));
    return 0;
}

int args_read(const struct cli_command *command, int argc, const char *const *argv, struct cli_args *ret,
              struct err *e)
{
    struct cli_args args = {.command = command};
    bool flags = true;
    for (int i = 0; i < argc; i++) {
        if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
        } else if (flags && argv[i][0] == '-' && argv[i][1] != '\0') {
            int r = read_flag(&args, argc, argv, &i, e);
            if (r < 0)
                return r;
        } else if (args.count == ARGS_MAX) {
            return err_set(e, ERR_INVALID, "more than %d arguments", ARGS_MAX);
        } else {
            args.items[args.count++] = argv[i];
        }
    }
    int r = args_has(&args, "--help") ? 0 : check_count(&args, e);
    if (r == 0)
        *ret = args;
    return r;
}

const char *args_next(const struct cli_args *args, const char *name, size_t *at)
{
    while (*at < args->given_count) {
        size_t i = (*at)++;
        if (strcmp(args->given[i].flag->name, name) == 0)
            return args->given[i].value;
    }
    return NULL;
}

const char *args_get(const struct cli_args *args, const char *name)
{
    size_t at = 0;
    return args_next(args, name, &at);
}

bool args_has(const struct cli_args *args, const char *name)
{
    return args_get(args, name) != NULL;
}

bool args_takes_value(const struct cli_args *args, const char *name)
{
    for (size_t i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].flag->name, name) == 0)
            return args->given[i].flag->value != NULL;
    return false;
}

int args_u64(const struct cli_args *args, const char *name, uint64_t min, uint64_t max, uint64_t *ret,
             struct err *e)
{
    const char *text = args_get(args, name);
    int r = text ? text_u64(text, strlen(text), min, max, ret, e) : 0;
    return r < 0 ? err_wrap(e, "%s", name) : 0;
}

int args_double(const struct cli_args *args, const char *name, double min, double max, double *ret,
                struct err *e)
{
    const char *text = args_get(args, name);
    int r = text ? text_double(text, strlen(text), min, max, ret, e) : 0;
    return r < 0 ? err_wrap(e, "%s", name) : 0;
}

int args_duration_ms(const struct cli_args *args, const char *name, uint64_t *ret_ms, struct err *e)
{
    const char *text = args_get(args, name);
    int r = text ? text_duration_ms(text, strlen(text), ret_ms, e) : 0;
    return r < 0 ? err_wrap(e, "%s", name) : 0;
}

int args_instant_ms(const struct cli_args *args, const char *name, int64_t *ret_ms, struct err *e)
{
    const char *text = args_get(args, name);
    int r = text ? text_instant_ms(text, strlen(text), ret_ms, e) : 0;
    return r < 0 ? err_wrap(e, "%s", name) : 0;
}

int args_file(const struct cli_args *args, const char **ret, struct err *e)
{
    const char *named = args_get(args, "--file");
    if (named && args->count > 0)
        return err_set(e, ERR_INVALID, "takes one file: -f %s or %s", named, args->items[0]);
    if (!named && args->count == 0)
        return err_set(e, ERR_INVALID, "needs a FILE (- for standard input)");
    *ret = named ? named : args->items[0];
    return 0;
}
