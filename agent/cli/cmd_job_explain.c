/* What a job did and will do, and who changed it: explain, revisions. Both read page after page. */
#include <string.h>

#include "agent/base/json.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 8192
#define LIMIT_DEFAULT  100
#define PAGE_MAX       1000

/* A list that grows by pages. */
struct pages {
    const char *list; /* member of the answer that holds the list */
    const char *next; /* ... and the one that tells where to go on */
    json_t *items;
    json_t *page;      /* the last one */
    const char *go_on; /* borrowed from it; NULL: that was all */
    uint64_t limit;    /* 0: all */
};

static int pages_init(struct pages *p, const struct cli *cli, const struct cli_args *args, const char *list,
                      const char *next)
{
    struct err e;
    *p = (struct pages){.list = list, .next = next, .limit = LIMIT_DEFAULT};
    if (args_u64(args, "--limit", 0, 1000000000, &p->limit, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    p->items = json_array();
    return CLI_OK;
}

static void pages_fini(struct pages *p)
{
    json_decref(p->items);
    json_decref(p->page);
}

typedef void path_fn(struct buf *out, const struct cli_args *args, const struct pages *p);

static void add_limit(struct buf *out, const struct pages *p)
{
    char number[24];
    uint64_t left = p->limit ? p->limit - json_array_size(p->items) : PAGE_MAX;
    (void)snprintf(number, sizeof(number), "%llu",
                   (unsigned long long)(left < PAGE_MAX ? left : PAGE_MAX)); /* 20 digits fit */
    client_query(out, "limit", number);
}

static int read_page(struct client *c, const struct cli_args *args, struct pages *p, path_fn *make_path)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    json_t *page = NULL;
    make_path(&path, args, p);
    int code = client_ask(c, "GET", buf_str(&path), NULL, &page);
    if (code != CLI_OK)
        return code;
    json_decref(p->page);
    p->page = page;
    p->go_on = json_string_value(json_object_get(page, p->next));
    (void)json_array_extend(p->items, json_object_get(page, p->list)); /* memory is all that can be missing */
    return CLI_OK;
}

static int read_pages(struct client *c, const struct cli_args *args, struct pages *p, path_fn *make_path)
{
    int code;
    do
        code = read_page(c, args, p, make_path);
    while (code == CLI_OK && p->go_on && (p->limit == 0 || json_array_size(p->items) < p->limit));
    return code;
}

/* As the API prints a page, with all items. */
static void print_json(const struct cli *cli, const struct pages *p)
{
    (void)json_object_set(p->page, p->list, p->items); /* memory is all that can be missing */
    show_json(cli->out, p->page);
}

static void hint_more(const struct cli *cli, const struct pages *p)
{
    if (p->go_on)
        cli_hint(cli, "there are more than %zu; --limit 0 shows all", json_array_size(p->items));
}

/* --- explain ------------------------------------------------------------------------------------------------------- */

static void explain_path(struct buf *out, const struct cli_args *args, const struct pages *p)
{
    client_path(out, "/v1/jobs/", args->items[0], "/explain");
    const char *to = args_get(args, "--to");
    if (p->page) {
        client_query(out, "from", p->go_on);
        client_query(out, "to", show_string(p->page, "to"));
    } else {
        client_query(out, "at", args_get(args, "--at"));
        client_query(out, "from", args_get(args, "--from"));
        client_query(out, "to", to);
    }
    add_limit(out, p);
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
    hint_more(cli, p);
}

static int run(struct cli *cli, const struct cli_args *args, struct pages *p, path_fn *make_path,
               void (*print)(const struct cli *cli, const struct pages *p))
{
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    int code = read_pages(c, args, p, make_path);
    if (code != CLI_OK)
        return code;
    if (args_has(args, "--json"))
        print_json(cli, p);
    else
        print(cli, p);
    return CLI_OK;
}

int cmd_job_explain(struct cli *cli, const struct cli_args *args)
{
    struct pages p;
    if (args_has(args, "--at") && (args_has(args, "--from") || args_has(args, "--to")))
        return cli_fail(cli, CLI_USAGE, "either --at, or --from and --to");
    int code = pages_init(&p, cli, args, "occurrences", "next_from");
    if (code == CLI_OK)
        code = run(cli, args, &p, explain_path, print_occurrences);
    pages_fini(&p);
    return code;
}

/* --- revisions ----------------------------------------------------------------------------------------------------- */

static void revisions_path(struct buf *out, const struct cli_args *args, const struct pages *p)
{
    client_path(out, "/v1/jobs/", args->items[0], "/revisions");
    client_query(out, "cursor", p->go_on);
    add_limit(out, p);
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
    hint_more(cli, p);
}

int cmd_job_revisions(struct cli *cli, const struct cli_args *args)
{
    struct pages p;
    int code = pages_init(&p, cli, args, "revisions", "next_cursor");
    if (code == CLI_OK)
        code = run(cli, args, &p, revisions_path, print_revisions);
    pages_fini(&p);
    return code;
}
