#include "agent/cli/ask.h"
#include "agent/cli/commands.h"
#include "agent/cli/pages.h"
#include "agent/cli/client.h"
#include "agent/cli/show.h"

#define SCHEDULE_MAX 40 /* bytes of a schedule in the table */

static void list_path(struct buf *out, const struct cli_args *args, const struct pages *p)
{
    static const char *const filters[] = {"--prefix", "--label", "--state", "--last-outcome", NULL};
    buf_add_str(out, "/v1/jobs");
    ask_query(out, args, filters);
    pages_add_limit(out, p);
    client_query(out, "cursor", p->go_on);
}

static void add_row(struct show_table *t, const json_t *job, int64_t now_ms)
{
    const json_t *status = json_object_get(job, "status"), *last = json_object_get(status, "last_fire");
    const json_t *schedule = json_object_get(job, "schedule");
    char next[SHOW_BOTH_SIZE], state[SHOW_STATE_SIZE];
    if (json_array_size(schedule) == 1)
        schedule = json_array_get(schedule, 0);
    AUTO(mem_free) char *text = show_compact(schedule, SCHEDULE_MAX);
    show_next_due(next, status, now_ms);
    show_cell(t, "%s", show_string(job, "id"));
    show_state(state, status);
    show_cell(t, "%s", state);
    show_cell(t, "%s", text);
    show_cell(t, "%s", show_string(job, "timezone"));
    show_cell(t, "%s", next);
    show_cell(t, "%s", show_string(last, "outcome"));
}

static void print_jobs(const struct cli *cli, const struct pages *p)
{
    static const char *const heads[] = {"ID", "STATE", "SCHEDULE", "ZONE", "NEXT DUE", "LAST FIRE"};
    size_t count = json_array_size(p->items);
    if (count == 0) {
        (void)fputs("no jobs\n", cli->err);
        return;
    }
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 6, heads);
    for (size_t i = 0; i < count; i++)
        add_row(&t, json_array_get(p->items, i), cli->now_ms());
    show_table_print(&t, cli->out);
    pages_hint_more(cli, p);
}

int cmd_job_list(struct cli *cli, const struct cli_args *args)
{
    return pages_list(cli, args, "jobs", "next_cursor", list_path, print_jobs);
}
