#include "agent/cli/cli.h"

#include <stdarg.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/cli/args.h"
#include "agent/cli/show.h"
#include "agent/version.h"

#define NAMES_MAX 64

int cli_fail(const struct cli *cli, enum cli_exit code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fputs("carillon: ", cli->err); /* nobody to tell when even this fails; the same below */
    (void)vfprintf(cli->err, fmt, ap);
    (void)fputc('\n', cli->err);
    va_end(ap);
    return (int)code;
}

void cli_hint(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fputs("hint: ", cli->err);
    (void)vfprintf(cli->err, fmt, ap);
    (void)fputc('\n', cli->err);
    va_end(ap);
}

const char *cli_env(const struct cli *cli, const char *name)
{
    size_t len = strlen(name);
    for (const char *const *v = cli->env; v && *v; v++)
        if (strncmp(*v, name, len) == 0 && (*v)[len] == '=')
            return (*v)[len + 1] ? *v + len + 1 : NULL;
    return NULL;
}

/* --- help ---------------------------------------------------------------------------------------------------------- */

static bool is_noun_of(const struct cli_command *c, const char *noun)
{
    size_t len = strlen(noun);
    return strncmp(c->name, noun, len) == 0 && c->name[len] == ' ';
}

/* All commands, or those of one noun, under their headlines. */
static void list_commands(FILE *out, const char *noun)
{
    const char *group = "";
    for (const struct cli_command *c = cli_commands(); c->name; c++) {
        if (noun && !is_noun_of(c, noun))
            continue;
        if (strcmp(c->group, group) != 0)
            (void)fprintf(out, "\n%s\n", c->group);
        group = c->group;
        (void)fprintf(out, "  %-19s %s\n", c->name, c->help);
    }
}

static int help_all(FILE *out)
{
    (void)fprintf(
        out,
        "carillon %s: durable timers. It calls your application, or a service, at a time or on a schedule.\n\n"
        "usage: carillon COMMAND …\n",
        version_text());
    list_commands(out, NULL);
    (void)fputs(
        "\n`carillon COMMAND --help` tells more about a command. Exit codes: 0 done, 1 failed, 2 wrong usage,\n"
        "3 not found, 4 no agent reached.\n\n"
        "Environment of the commands that ask an agent\n"
        "  CARILLON_ADDR         where it is: host:port, http(s)://host:port or unix:/path (127.0.0.1:7420)\n"
        "  CARILLON_NAMESPACE    whose jobs (default)\n"
        "  CARILLON_TOKEN_FILE   file with the token to show; or the token itself in CARILLON_TOKEN\n"
        "  CARILLON_CACERT       certificate authorities (PEM) to trust with https, instead of the system's\n"
        "  CARILLON_CLIENT_CERT  certificate (PEM) to show with https; its key is in CARILLON_CLIENT_KEY\n",
        out);
    return CLI_OK;
}

static int help_noun(FILE *out, const char *noun)
{
    (void)fprintf(out, "usage: carillon %s COMMAND …\n", noun);
    list_commands(out, noun);
    (void)fprintf(out, "\n`carillon %s COMMAND --help` tells more.\n", noun);
    return CLI_OK;
}

static void list_flags(FILE *out, const struct cli_flag *flags)
{
    for (; flags && flags->name; flags++) {
        char left[48];
        (void)snprintf(left, sizeof(left), "%s%s%s", flags->name, flags->value ? " " : "",
                       flags->value ? flags->value : ""); /* ours, short */
        if (flags->letter)
            (void)fprintf(out, "  -%c, %-22s %s\n", flags->letter, left, flags->help);
        else
            (void)fprintf(out, "  %-26s %s\n", left, flags->help);
    }
}

static int help_command(FILE *out, const struct cli_command *c)
{
    (void)fprintf(out, "%s\n\nusage: carillon %s%s%s\n", c->help, c->name, *c->usage ? " " : "", c->usage);
    if (c->more)
        (void)fprintf(out, "\n%s", c->more);
    (void)fputs("\nflags\n", out);
    list_flags(out, c->flags);
    list_flags(out, cli_common_flags(c));
    if (c->remote) {
        (void)fputs("\nwhich agent\n", out);
        list_flags(out, cli_remote_flags());
    }
    return CLI_OK;
}

/* --- which command ------------------------------------------------------------------------------------------------- */

static bool noun_exists(const char *noun)
{
    for (const struct cli_command *c = cli_commands(); c->name; c++)
        if (is_noun_of(c, noun))
            return true;
    return false;
}

/* The first words of all commands, or the second ones of NOUN's; RET has NAMES_MAX + 1 places. */
static void collect_words(const char *noun, char words[NAMES_MAX][32], const char **ret)
{
    size_t count = 0;
    for (const struct cli_command *c = cli_commands(); c->name && count < NAMES_MAX; c++) {
        if (noun && !is_noun_of(c, noun))
            continue;
        const char *word = noun ? c->name + strlen(noun) + 1 : c->name;
        (void)snprintf(words[count], sizeof(words[count]), "%.*s", (int)strcspn(word, " "),
                       word); /* ours, short */
        ret[count] = words[count];
        count++;
    }
    ret[count] = NULL;
}

static int unknown_word(const struct cli *cli, const char *noun, const char *word)
{
    char words[NAMES_MAX][32];
    const char *names[NAMES_MAX + 1];
    collect_words(noun, words, names);
    const char *near = text_nearest(word, strlen(word), names), *space = noun ? " " : "",
               *before = noun ? noun : "";
    if (near)
        return cli_fail(cli, CLI_USAGE, "'%s%s%s' is no command; did you mean 'carillon %s%s%s'?", before,
                        space, TEXTQ(word, strlen(word)), before, space, near);
    return cli_fail(cli, CLI_USAGE, "'%s%s%s' is no command; `carillon%s%s --help` lists them", before, space,
                    TEXTQ(word, strlen(word)), space, before);
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

/* What people write too. */
static const char *real_name(const char *word)
{
    static const char *const aliases[][2] = {{"jobs", "job"},
                                             {"fires", "fire"},
                                             {"deadletters", "deadletter"},
                                             {"services", "service"},
                                             {"explain", "job explain"}};
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (strcmp(aliases[i][0], word) == 0)
            return aliases[i][1];
    return word;
}

/* The command that ARGV begins with, and how many words its name has. NULL: none; then *RET_CODE is the exit code, after help
 * or an error was printed. */
static const struct cli_command *find_command(const struct cli *cli, int argc, const char *const *argv,
                                              int *ret_words, int *ret_code)
{
    char two[80];
    const char *first = real_name(argv[0]);
    (void)snprintf(two, sizeof(two), "%s %s", first, argc > 1 ? argv[1] : ""); /* cut: then it is none */
    for (const struct cli_command *c = cli_commands(); c->name; c++) {
        bool long_name = strcmp(c->name, two) == 0;
        if (!long_name && strcmp(c->name, first) != 0)
            continue;
        *ret_words = long_name ? 2 : 1;
        return c;
    }
    if (!noun_exists(first))
        *ret_code = unknown_word(cli, NULL, first);
    else if (argc < 2 || is_help(argv[1]))
        *ret_code = help_noun(cli->out, first);
    else
        *ret_code = unknown_word(cli, first, argv[1]);
    return NULL;
}

/* How many words of ARGV are flags of all commands, with their values, before the command's name. */
static int count_before(int argc, const char *const *argv)
{
    int at = 0;
    while (at < argc) {
        const struct cli_flag *f = cli_remote_flags();
        size_t len = strcspn(argv[at], "=");
        while (f->name && (strncmp(f->name, argv[at], len) != 0 || f->name[len]))
            f++;
        if (!f->name && strcmp(argv[at], "--json") != 0)
            break;
        at += f->name && !argv[at][len] ? 2 : 1;
    }
    return at < argc ? at : argc;
}

/* The flags that stood before the command's name, then what stands after it. The caller frees the list. */
static const char **join_words(const char *const *flags, int flags_count, const char *const *rest,
                               int rest_count)
{
    const char **ret = mem_new_array(const char *, (size_t)(flags_count + rest_count) + 1);
    for (int i = 0; i < flags_count; i++)
        ret[i] = flags[i];
    for (int i = 0; i < rest_count; i++)
        ret[flags_count + i] = rest[i];
    return ret;
}

static int run_command(struct cli *cli, int argc, const char *const *argv)
{
    int words, code, before = count_before(argc, argv);
    struct cli_args args;
    struct err e;
    if (before == argc)
        return cli_fail(cli, CLI_USAGE, "a command is missing; `carillon --help` lists them");
    const struct cli_command *c = find_command(cli, argc - before, argv + before, &words, &code);
    if (!c)
        return code;
    AUTO(mem_free)
    const char **given = join_words(argv, before, argv + before + words, argc - before - words);
    if (args_read(c, argc - words, given, &args, &e) < 0) {
        (void)cli_fail(cli, CLI_USAGE, "%s", e.text);
        (void)fprintf(cli->err, "usage: carillon %s%s%s\n", c->name, *c->usage ? " " : "", c->usage);
        return CLI_USAGE;
    }
    return args_has(&args, "--help") ? help_command(cli->out, c) : c->run(cli, &args);
}

/* `carillon help job apply` */
static int run_help(struct cli *cli, int argc, const char *const *argv)
{
    int words, code;
    if (argc == 0)
        return help_all(cli->out);
    const struct cli_command *c = find_command(cli, argc, argv, &words, &code);
    return c ? help_command(cli->out, c) : code;
}

int cli_run(struct cli *cli, int argc, const char *const *argv)
{
    int code;
    if (argc < 2)
        code = help_all(cli->out);
    else if (is_help(argv[1]))
        code = run_help(cli, argc - 2, argv + 2);
    else if (strcmp(argv[1], "--version") == 0)
        code = run_command(cli, 1, (const char *const[]){"version"});
    else
        code = run_command(cli, argc - 1, argv + 1);
    if (fflush(cli->out) != 0 || ferror(cli->out))
        return cli_fail(cli, code ? (enum cli_exit)code : CLI_FAILED, "the output could not be written");
    if (show_take_lost())
        return cli_fail(cli, code ? (enum cli_exit)code : CLI_FAILED, "no memory for all of the output");
    return code;
}
