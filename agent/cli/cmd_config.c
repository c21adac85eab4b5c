#include <string.h>

#include "agent/base/json.h"
#include "agent/cli/commands.h"
#include "agent/cli/load.h"
#include "agent/cli/show.h"

#define TEXT_MAX ((size_t)16 << 20)

/* Every effective value by its key; secrets as "***". */
static json_t *rows_json(const struct option_row *rows, const void *config)
{
    json_t *all = json_object();
    for (; rows->key; rows++) {
        AUTO(buf_fini) struct buf value = BUF_INIT(TEXT_MAX);
        option_print_value(rows, config, &value);
        if (buf_failed(&value) || json_set(all, rows->key, json_string(buf_str(&value)), NULL) < 0)
            show_set_lost();
    }
    return all;
}

static void print_effective(FILE *out, const struct config *c)
{
    const struct option_table *t = config_table();
    json_t *all = rows_json(t->rows, c), *services = json_object();
    for (size_t i = 0; i < c->services.count; i++) {
        const struct config_service *s = c->services.items[i];
        if (json_set(services, s->name, rows_json(t->groups[0].rows, s), NULL) < 0)
            show_set_lost();
    }
    if (json_set(all, "services", services, NULL) < 0)
        show_set_lost();
    show_json(out, all);
    json_decref(all);
}

int cmd_config_check(struct cli *cli, const struct cli_args *args)
{
    const char *sets[ARGS_MAX], *file = args->count > 0 ? args->items[0] : NULL;
    size_t sets_count = load_sets(args, sets);
    int code;
    bool json = args_has(args, "--json");
    AUTO(config_free)
    struct config *c = json ? load_config_json(cli, file, sets, sets_count, &code)
                            : load_config(cli, file, sets, sets_count, &code);
    if (!c)
        return code;
    if (json)
        print_effective(cli->out, c);
    else
        (void)fprintf(cli->out, "%s: ok\n", file ? file : "configuration");
    return CLI_OK;
}

/* --- options ------------------------------------------------------------------------------------------------------- */

/* What is told of an option, whether a row or an extra key describes it. */
struct told {
    const char *key, *allowed, *def, *help; /* def: NULL: none */
    bool reload;
};

static void add_option_json(json_t *list, const struct told *o)
{
    json_t *one = json_pack("{s:s,s:s,s:s?,s:b,s:s}", "key", o->key, "allowed", o->allowed, "default", o->def,
                            "reload", o->reload, "help", o->help);
    show_append(list, one);
}

static void print_option(FILE *out, const struct told *o)
{
    (void)fprintf(out, "%s%s%s  (%s%s)\n    %s\n", o->key, o->def ? " = " : "", o->def ? o->def : "",
                  o->allowed, o->reload ? "; reloaded" : "", o->help);
}

struct telling {
    const struct cli *cli;
    const char *prefix; /* only keys that begin so */
    json_t *list;       /* for programs; NULL: for people */
    size_t count;
};

static void tell(struct telling *t, const char *section, const struct told *o)
{
    char key[200];
    (void)snprintf(key, sizeof(key), "%s%s", section, o->key); /* ours, short */
    if (strncmp(key, t->prefix, strlen(t->prefix)) != 0)
        return;
    struct told whole = *o;
    whole.key = key;
    t->count++;
    if (t->list)
        add_option_json(t->list, &whole);
    else
        print_option(t->cli->out, &whole);
}

static void tell_row(struct telling *t, const char *section, const struct option_row *row)
{
    AUTO(buf_fini) struct buf allowed = BUF_INIT(4096);
    option_print_allowed(row, &allowed);
    if (buf_failed(&allowed))
        show_set_lost();
    tell(t, section,
         &(struct told){row->key, buf_str(&allowed), row->def, row->help, (row->flags & OPTION_RELOAD) != 0});
}

static void tell_group(struct telling *t, const struct option_group *g)
{
    char section[100];
    (void)snprintf(section, sizeof(section), "%s.<name>.", g->section); /* ours, short */
    for (const struct option_extra *x = g->extras; x && x->key; x++)
        tell(t, section, &(struct told){x->key, x->allowed, NULL, x->help, (x->flags & OPTION_RELOAD) != 0});
    for (const struct option_row *row = g->rows; row->key; row++)
        tell_row(t, section, row);
}

int cmd_config_options(struct cli *cli, const struct cli_args *args)
{
    struct telling t = {.cli = cli,
                        .prefix = args->count > 0 ? args->items[0] : "",
                        .list = args_has(args, "--json") ? json_array() : NULL};
    if (args_has(args, "--json") && !t.list)
        return cli_fail(cli, CLI_FAILED, "no memory for the options");
    for (const struct option_row *row = config_table()->rows; row->key; row++)
        tell_row(&t, "", row);
    for (const struct option_group *g = config_table()->groups; g->section; g++)
        tell_group(&t, g);
    if (t.list)
        show_json(cli->out, t.list);
    json_decref(t.list);
    return t.count > 0 ? CLI_OK : cli_fail(cli, CLI_NOT_FOUND, "no option begins with '%s'", t.prefix);
}

int cmd_config_sample(struct cli *cli, const struct cli_args *args)
{
    (void)args; /* it has none */
    AUTO(buf_fini) struct buf sample = BUF_INIT(TEXT_MAX);
    option_print_sample(config_table(), &sample);
    (void)fputs(
        "# carillon agent --config FILE. Every option at its default; `carillon config options` explains them too.\n"
        "# Made by `carillon config sample`.\n\n",
        cli->out);
    if (buf_failed(&sample))
        show_set_lost();
    (void)fputs(buf_str(&sample), cli->out); /* cli_run() looks for errors at the end */
    return CLI_OK;
}
