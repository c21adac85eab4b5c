/* What a job did and will do, and who changed it: explain, revisions. Both read page after page. */
#include "agent/cli/ask.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/pages.h"
#include "agent/cli/show.h"

/* --- explain ------------------------------------------------------------------------------------------------------- */

static void explain_path(struct buf *out, const struct cli_args *args, const struct pages *p)
{
    static const char *const span[] = {"--at", "--from", "--to", NULL};
    client_path(out, "/v1/jobs/", args->items[0], "/explain");
    if (p->page) {
        client_query(out, "from", p->go_on);
        client_query(out, "to", show_string(p->page, "to"));
    } else {
        ask_query(out, args, span);
    }
    pages_add_limit(out, p);
}

static void print_occurrences(const struct cli *cli, const struct pages *p)
{
    static const char *const heads[] = {"DUE", "OUTCOME", "WHY"};
    size_t count = json_array_size(p->items);
    if (count == 0) {
        (void)fprintf(cli->err, "nothing due from %s to %s\n", show_string(p->page, "from"),
                      show_string(p->page, "to"));
        return;
    }
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 3, heads);
    for (size_t i = 0; i < count; i++) {
        const json_t *o = json_array_get(p->items, i);
        const char *outcome = show_string(o, "outcome");
        show_cell(&t, "%s", show_string(o, "local"));
        show_cell(&t, "%s", *outcome ? outcome : "unknown");
        show_cell(&t, "%s", show_string(o, "text"));
    }
    show_table_print(&t, cli->out);
    pages_hint_more(cli, p);
}

int cmd_job_explain(struct cli *cli, const struct cli_args *args)
{
    if (args_has(args, "--at") && (args_has(args, "--from") || args_has(args, "--to")))
        return cli_fail(cli, CLI_USAGE, "either --at, or --from and --to");
    return pages_list(cli, args, "occurrences", "next_from", explain_path, print_occurrences);
}

/* --- revisions ----------------------------------------------------------------------------------------------------- */

static void revisions_path(struct buf *out, const struct cli_args *args, const struct pages *p)
{
    client_path(out, "/v1/jobs/", args->items[0], "/revisions");
    client_query(out, "cursor", p->go_on);
    pages_add_limit(out, p);
}

static void print_revisions(const struct cli *cli, const struct pages *p)
{
    static const char *const heads[] = {"AT", "OP", "BY", "VERSION", "STATE", "FIRE"};
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 6, heads);
    for (size_t i = 0; i < json_array_size(p->items); i++) {
        const json_t *r = json_array_get(p->items, i);
        char at[SHOW_BOTH_SIZE];
        show_both(at, json_object_get(r, "at"), cli->now_ms());
        show_cell(&t, "%s", at);
        show_cell(&t, "%s", show_string(r, "op"));
        show_cell(&t, "%s", show_string(r, "actor"));
        show_cell(&t, "%lld", (long long)json_integer_value(json_object_get(r, "version")));
        show_cell(&t, "%s", show_string(r, "state"));
        show_cell(&t, "%s", show_string(r, "fire"));
    }
    show_table_print(&t, cli->out);
    pages_hint_more(cli, p);
}

int cmd_job_revisions(struct cli *cli, const struct cli_args *args)
{
    return pages_list(cli, args, "revisions", "next_cursor", revisions_path, print_revisions);
}
