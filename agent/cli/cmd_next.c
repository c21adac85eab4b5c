/* When a schedule is due, computed here: no agent is asked. */
#include <ctype.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/commands.h"
#include "agent/cli/dues.h"
#include "agent/core/schedule.h"
#include "agent/io/tzload.h"

#define COUNT_DEFAULT 10
#define COUNT_MAX     1000

struct question {
    const struct tz *zone;
    const char *zone_name;
    struct schedule_options options;
    int64_t from_ms;
    uint64_t count;
};

/* Whether EXPR has the H that stands for a hash, and not only names such as THU. */
static bool has_hash(const char *expr)
{
    for (const char *h = strchr(expr, 'H'); h; h = strchr(h + 1, 'H'))
        if ((h == expr || !isalpha((unsigned char)h[-1])) && !isalpha((unsigned char)h[1]))
            return expr[0] != '@';
    return false;
}

static int read_question(const struct cli *cli, const struct cli_args *args, struct tzload *zones,
                         struct question *q, struct err *e)
{
    const char *zone = args_get(args, "--tz"), *ns = args_get(args, "--ns"), *id = args_get(args, "--id");
    *q =
        (struct question){.from_ms = cli->now_ms(), .count = COUNT_DEFAULT, .zone_name = zone ? zone : "UTC"};
    int r = args_instant_ms(args, "--from", &q->from_ms, e);
    if (r == 0)
        r = args_u64(args, "--count", 1, COUNT_MAX, &q->count, e);
    if (r == 0 && id)
        r = text_check_id(id, strlen(id), e);
    if (r == 0 && ns)
        r = text_check_namespace(ns, strlen(ns), e);
    if (r == 0)
        r = tzload_get(zones, q->zone_name, strlen(q->zone_name), &q->zone, e);
    q->options = (struct schedule_options){
        .tz = q->zone,
        .starts_ms = SCHEDULE_NONE,
        .ends_ms = SCHEDULE_NONE,
        .phase_ms = q->from_ms,
        .min_interval_ms = 1,
        .ns = ns ? ns : "default",
        .id = id ? id : "",
        .arming = true,
        .accepted_ms = q->from_ms,
    };
    return r;
}

/* Each error of the expressions with a mark under the place, and each warning. */
static void print_issues(const struct cli *cli, const struct cli_args *args,
                         const struct schedule_issues *issues)
{
    for (size_t i = 0; i < issues->count; i++) {
        const struct schedule_issue *issue = &issues->items[i];
        if (issue->kind == SCHEDULE_WARNING) {
            (void)fprintf(cli->err, "warning: %s\n", issue->text);
            continue;
        }
        const char *expr = args->items[issue->expr];
        (void)cli_fail(cli, CLI_USAGE, "%s", issue->text);
        if (issue->offset <= strlen(expr) && text_utf8_valid(expr, strlen(expr)))
            (void)fprintf(cli->err, "  %s\n  %*s^\n", expr, (int)issue->offset, "");
    }
}

static void add_due(struct dues *d, const struct question *q, const struct schedule_due *due)
{
    char local[TEXT_LOCAL_SIZE];
    (void)text_local_print(local, due->due_ms,
                           tz_offset_s(q->zone, due->due_ms / 1000)); /* the length is not needed */
    dues_add(d, due->due_ms, local, schedule_note_name(due->note));
}

int cmd_next(struct cli *cli, const struct cli_args *args)
{
    struct err e;
    struct question q;
    AUTO(tzload_free) struct tzload *zones = NULL;
    if (tzload_new(NULL, &zones, &e) < 0)
        return cli_fail(cli, CLI_FAILED, "%s", e.text);
    int r = read_question(cli, args, zones, &q, &e);
    if (r < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    struct schedule_expr exprs[ARGS_MAX];
    for (size_t i = 0; i < args->count; i++) {
        exprs[i] = (struct schedule_expr){args->items[i], strlen(args->items[i])};
        if (has_hash(args->items[i]) && !args_has(args, "--id"))
            (void)fputs("warning: H depends on the job's id; give --id for the job's own dues\n", cli->err);
    }
    struct schedule_issues issues = {0};
    AUTO(schedule_free) struct schedule *s = NULL;
    r = schedule_parse(exprs, args->count, &q.options, &s, &issues, &e);
    print_issues(cli, args, &issues);
    if (r < 0)
        return issues.count > 0 ? CLI_USAGE : cli_fail(cli, CLI_USAGE, "%s", e.text);
    AUTO(dues_fini) struct dues dues;
    dues_init(&dues, NULL, q.zone_name);
    struct schedule_due due = {.due_ms = SCHEDULE_NONE};
    for (uint64_t i = 0; i < q.count && schedule_next_accepted(s, q.from_ms, due.due_ms, &due); i++)
        add_due(&dues, &q, &due);
    dues_print(&dues, cli, args_has(args, "--json"));
    return CLI_OK;
}
