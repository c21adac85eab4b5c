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
        (void)json_set(all, rows->key, json_string(buf_str(&value)),
                       NULL); /* memory is all that can be missing */
    }
    return all;
}

static void print_effective(FILE *out, const struct config *c)
{
    const struct option_table *t = config_table();
    json_t *all = rows_json(t->rows, c), *services = json_object();
    for (size_t i = 0; i < c->services.count; i++) {
        const struct config_service *s = c->services.items[i];
        (void)json_set(services, s->name, rows_json(t->groups[0].rows, s), NULL); /* as above */
    }
    (void)json_set(all, "services", services, NULL);
    show_json(out, all);
    json_decref(all);
}

int cmd_config_check(struct cli *cli, const struct cli_args *args)
{
    const char *sets[ARGS_MAX], *file = args->count > 0 ? args->items[0] : NULL;
    size_t sets_count = load_sets(args, sets);
    int code;
    AUTO(config_free) struct config *c = load_config(cli, file, sets, sets_count, &code);
    if (!c)
        return code;
    if (args_has(args, "--json"))
        print_effective(cli->out, c);
    else
        (void)fprintf(cli->out, "%s: ok\n", file ? file : "configuration");
    return CLI_OK;
}

/* --- options ------------------------------------------------------------------------------------------------------- */

static void add_option_json(json_t *list, const char *key, const struct option_row *row, const char *allowed)
{
    json_t *o = json_pack("{s:s,s:s,s:s?,s:b,s:s}", "key", key, "allowed", allowed, "default", row->def,
                          "reload", (row->flags & OPTION_RELOAD) != 0, "help", row->help);
    (void)json_array_append_new(list, o); /* memory is all that can be missing */
}

static void print_option(FILE *out, const char *key, const struct option_row *row, const char *allowed)
{
    (void)fprintf(out, "%s%s%s  (%s%s)\n    %s\n", key, row->def ? " = " : "", row->def ? row->def : "",
                  allowed, row->flags & OPTION_RELOAD ? "; reloaded" : "", row->help);
}

/* One row, for people or, with LIST, for programs. */
static void show_option(const struct cli *cli, json_t *list, const char *section,
                        const struct option_row *row, const char *prefix)
{
    char key[200];
    (void)snprintf(key, sizeof(key), "%s%s", section, row->key); /* ours, short */
    if (strncmp(key, prefix, strlen(prefix)) != 0)
        return;
    AUTO(buf_fini) struct buf allowed = BUF_INIT(4096);
    option_print_allowed(row, &allowed);
    if (list)
        add_option_json(list, key, row, buf_str(&allowed));
    else
        print_option(cli->out, key, row, buf_str(&allowed));
}

int cmd_config_options(struct cli *cli, const struct cli_args *args)
{
    const struct option_table *t = config_table();
    const char *prefix = args->count > 0 ? args->items[0] : "";
    json_t *list = args_has(args, "--json") ? json_array() : NULL;
    for (const struct option_row *row = t->rows; row->key; row++)
        show_option(cli, list, "", row, prefix);
    for (const struct option_group *g = t->groups; g->section; g++) {
        char section[100];
        (void)snprintf(section, sizeof(section), "%s.<name>.", g->section); /* ours, short */
        for (const struct option_row *row = g->rows; row->key; row++)
            show_option(cli, list, section, row, prefix);
    }
    if (list)
        show_json(cli->out, list);
    json_decref(list);
    return CLI_OK;
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
    (void)fputs(buf_str(&sample), cli->out); /* cli_run() looks for errors at the end */
    return CLI_OK;
}
