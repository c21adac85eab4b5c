#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 8192
#define LIMIT_DEFAULT  100
#define PAGE_MAX       1000
#define SCHEDULE_MAX   40 /* bytes of a schedule in the table */

struct listing {
    json_t *jobs;
    const char *cursor; /* borrowed from `page`; NULL: no more */
    json_t *page;
};

static void make_path(struct buf *out, const struct cli_args *args, uint64_t limit, const char *cursor)
{
    size_t at = 0;
    char number[24];
    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)limit); /* 20 digits fit */
    buf_add_str(out, "/v1/jobs");
    client_query(out, "prefix", args_get(args, "--prefix"));
    for (const char *label; (label = args_next(args, "--label", &at)) != NULL;)
        client_query(out, "label", label);
    client_query(out, "state", args_get(args, "--state"));
    client_query(out, "last_outcome", args_get(args, "--last-outcome"));
    client_query(out, "limit", number);
    client_query(out, "cursor", cursor);
}

/* Read the next page and append its jobs; at most LIMIT. */
static int read_page(struct client *c, const struct cli_args *args, struct listing *l, uint64_t limit)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    json_t *page = NULL;
    make_path(&path, args, limit, l->cursor);
    int code = client_ask(c, "GET", buf_str(&path), NULL, &page);
    if (code != CLI_OK)
        return code;
    json_decref(l->page);
    l->page = page;
    l->cursor = json_string_value(json_object_get(page, "next_cursor"));
    (void)json_array_extend(l->jobs, json_object_get(page, "jobs")); /* memory is all that can be missing */
    return CLI_OK;
}

static void add_row(struct show_table *t, const json_t *job, int64_t now_ms)
{
    const json_t *status = json_object_get(job, "status"), *last = json_object_get(status, "last_fire");
    const json_t *schedule = json_object_get(job, "schedule");
    char next[SHOW_BOTH_SIZE], state[SHOW_STATE_SIZE];
    if (json_array_size(schedule) == 1)
        schedule = json_array_get(schedule, 0);
    AUTO(mem_free) char *text = show_compact(schedule, SCHEDULE_MAX);
    show_both(next, json_object_get(status, "next_due"), now_ms);
    show_cell(t, "%s", show_string(job, "id"));
    show_state(state, status);
    show_cell(t, "%s", state);
    show_cell(t, "%s", text);
    show_cell(t, "%s", show_string(job, "timezone"));
    show_cell(t, "%s", next);
    show_cell(t, "%s", show_string(last, "outcome"));
}

static void print_listing(const struct cli *cli, const struct listing *l)
{
    static const char *const heads[] = {"ID", "STATE", "SCHEDULE", "ZONE", "NEXT DUE", "LAST FIRE"};
    size_t count = json_array_size(l->jobs);
    if (count == 0) {
        (void)fputs("no jobs\n", cli->err);
        return;
    }
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 6, heads);
    for (size_t i = 0; i < count; i++)
        add_row(&t, json_array_get(l->jobs, i), cli->now_ms());
    show_table_print(&t, cli->out);
    if (l->cursor)
        cli_hint(cli, "there are more than %zu; --limit 0 lists all", count);
}

static int list(struct cli *cli, const struct cli_args *args, struct client *c, struct listing *l,
                uint64_t limit)
{
    int code;
    do {
        uint64_t left = limit ? limit - json_array_size(l->jobs) : PAGE_MAX;
        code = read_page(c, args, l, left < PAGE_MAX ? left : PAGE_MAX);
    } while (code == CLI_OK && l->cursor && (limit == 0 || json_array_size(l->jobs) < limit));
    if (code != CLI_OK)
        return code;
    if (!args_has(args, "--json")) {
        print_listing(cli, l);
        return CLI_OK;
    }
    json_t *doc = json_pack("{s:O,s:s?}", "jobs", l->jobs, "next_cursor", l->cursor);
    show_json(cli->out, doc);
    json_decref(doc);
    return CLI_OK;
}

int cmd_job_list(struct cli *cli, const struct cli_args *args)
{
    struct err e;
    uint64_t limit = LIMIT_DEFAULT;
    if (args_u64(args, "--limit", 0, 1000000000, &limit, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    struct listing l = {.jobs = json_array()};
    int code = list(cli, args, c, &l, limit);
    json_decref(l.page);
    json_decref(l.jobs);
    return code;
}
