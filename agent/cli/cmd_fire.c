/* Fires by themselves: list, get, retry, cancel; and those that were given up: deadletter list, redrive, discard. */
#include <string.h>

#include "agent/cli/ask.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/pages.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 16384
#define ERROR_MAX      100 /* bytes of an error in a table */
#define STATUS_SIZE    32

static const char *const filters[] = {"--outcome", "--job",  "--prefix", "--label",
                                      "--service", "--from", "--to",     NULL};

/* --- attempts ------------------------------------------------------------------------------------------------------ */

/* HTTP's number or gRPC's name; "" without an answer. */
static void print_status(char ret[STATUS_SIZE], const json_t *attempt)
{
    const json_t *status = json_object_get(attempt, "status");
    ret[0] = '\0';
    if (json_is_integer(status))
        (void)snprintf(ret, STATUS_SIZE, "%lld", (long long)json_integer_value(status)); /* 20 digits fit */
    else if (json_is_string(status))
        (void)snprintf(ret, STATUS_SIZE, "%s", json_string_value(status)); /* cut: no code is so long */
}

/* What went wrong in ATTEMPT, "" when nothing did; for mem_free(). */
static char *error_of(const json_t *attempt)
{
    const char *key = *show_string(attempt, "error") ? "error" : "excerpt";
    return show_compact(json_object_get(attempt, key), ERROR_MAX);
}

static const json_t *last_attempt(const json_t *fire)
{
    const json_t *attempts = json_object_get(fire, "attempts");
    size_t count = json_array_size(attempts);
    return count > 0 ? json_array_get(attempts, count - 1) : NULL;
}

/* --- lists --------------------------------------------------------------------------------------------------------- */

static void add_row(struct show_table *t, const json_t *fire, int64_t now_ms)
{
    const json_t *attempt = last_attempt(fire);
    const char *reason = show_string(fire, "reason");
    bool failed = strcmp(show_string(fire, "outcome"), "succeeded") != 0;
    char due[SHOW_BOTH_SIZE], status[STATUS_SIZE];
    show_both(due, json_object_get(fire, "due"), now_ms);
    print_status(status, failed ? attempt : NULL);
    AUTO(mem_free) char *error = error_of(failed ? attempt : NULL);
    show_cell(t, "%s", show_string(fire, "fire"));
    show_cell(t, "%s", show_string(fire, "job"));
    show_cell(t, "%s", due);
    show_cell(t, "%s%s%s", show_string(fire, "outcome"), *reason ? " " : "", reason);
    show_cell(t, "%zu", json_array_size(json_object_get(fire, "attempts")));
    show_cell(t, "%s", show_string(fire, "service"));
    show_cell(t, "%s%s%s%s", *status ? "status " : "", status, *status && *error ? ": " : "", error);
}

static void print_list(const struct cli *cli, const struct pages *p, const char *none)
{
    static const char *const heads[] = {"FIRE", "JOB", "DUE", "OUTCOME", "ATTEMPTS", "SERVICE", "LAST ERROR"};
    size_t count = json_array_size(p->items);
    if (count == 0) {
        (void)fprintf(cli->err, "%s\n", none);
        return;
    }
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 7, heads);
    for (size_t i = 0; i < count; i++)
        add_row(&t, json_array_get(p->items, i), cli->now_ms());
    show_table_print(&t, cli->out);
    pages_hint_more(cli, p);
}

static void make_path(struct buf *out, const char *path, const struct cli_args *args, const struct pages *p)
{
    buf_add_str(out, path);
    ask_query(out, args, filters);
    pages_add_limit(out, p);
    client_query(out, "cursor", p->go_on);
}

static void fires_path(struct buf *out, const struct cli_args *args, const struct pages *p)
{
    make_path(out, "/v1/fires", args, p);
}

static void print_fires(const struct cli *cli, const struct pages *p)
{
    print_list(cli, p, "no fires");
}

int cmd_fire_list(struct cli *cli, const struct cli_args *args)
{
    return pages_list(cli, args, "fires", "next_cursor", fires_path, print_fires);
}

static void letters_path(struct buf *out, const struct cli_args *args, const struct pages *p)
{
    make_path(out, "/v1/deadletters", args, p);
}

static void print_letters(const struct cli *cli, const struct pages *p)
{
    print_list(cli, p, "no dead letters");
}

int cmd_deadletter_list(struct cli *cli, const struct cli_args *args)
{
    return pages_list(cli, args, "deadletters", "next_cursor", letters_path, print_letters);
}

/* --- one fire ------------------------------------------------------------------------------------------------------ */

static void add_line(struct show_table *t, const char *name, const char *value)
{
    if (!*value)
        return;
    show_cell(t, "%s", name);
    show_cell(t, "%s", value);
}

static void add_instant(struct show_table *t, const char *name, const json_t *value, int64_t now_ms)
{
    char both[SHOW_BOTH_SIZE];
    show_both(both, value, now_ms);
    add_line(t, name, both);
}

static void print_head(const struct cli *cli, const json_t *fire)
{
    const json_t *late = json_object_get(fire, "lateness_ms");
    const char *reason = show_string(fire, "reason");
    int64_t now_ms = cli->now_ms();
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 2, NULL);
    add_line(&t, "fire", show_string(fire, "fire"));
    add_line(&t, "job", show_string(fire, "job"));
    add_line(&t, "namespace", show_string(fire, "namespace"));
    add_line(&t, "service", show_string(fire, "service"));
    show_cell(&t, "outcome");
    show_cell(&t, "%s%s%s", show_string(fire, "outcome"), *reason ? " " : "", reason);
    add_instant(&t, "due", json_object_get(fire, "due"), now_ms);
    add_instant(&t, "to", json_object_get(fire, "due_last"), now_ms);
    add_instant(&t, "started", json_object_get(fire, "started_at"), now_ms);
    if (json_is_integer(late)) {
        show_cell(&t, "late by");
        show_cell(&t, "%lld ms", (long long)json_integer_value(late));
    }
    add_instant(&t, "finished", json_object_get(fire, "finished_at"), now_ms);
    add_instant(&t, "next attempt", json_object_get(fire, "next_attempt_at"), now_ms);
    show_table_print(&t, cli->out);
}

static void print_attempts(const struct cli *cli, const json_t *attempts)
{
    static const char *const heads[] = {"ATTEMPT", "AT", "ENDPOINT", "STATUS", "TOOK", "ERROR"};
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 6, heads);
    for (size_t i = 0; i < json_array_size(attempts); i++) {
        const json_t *one = json_array_get(attempts, i), *took = json_object_get(one, "duration_ms");
        char status[STATUS_SIZE];
        AUTO(mem_free) char *error = error_of(one);
        print_status(status, one);
        show_cell(&t, "%lld", (long long)json_integer_value(json_object_get(one, "attempt")));
        show_cell(&t, "%s", show_string(one, "at"));
        show_cell(&t, "%s", show_string(one, "endpoint"));
        show_cell(&t, "%s", status);
        if (json_is_integer(took))
            show_cell(&t, "%lld ms", (long long)json_integer_value(took));
        else
            show_cell(&t, "%s", "");
        show_cell(&t, "%s", error);
    }
    (void)fputc('\n', cli->out);
    show_table_print(&t, cli->out);
}

/* Of a fire to all endpoints or shards. */
static void print_endpoints(const struct cli *cli, const json_t *endpoints)
{
    static const char *const heads[] = {"PART", "ENDPOINT", "OUTCOME", "STATUS", "ATTEMPTS"};
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 5, heads);
    for (size_t i = 0; i < json_array_size(endpoints); i++) {
        const json_t *one = json_array_get(endpoints, i);
        char status[STATUS_SIZE];
        print_status(status, one);
        show_cell(&t, "%lld", (long long)json_integer_value(json_object_get(one, "part")));
        show_cell(&t, "%s", show_string(one, "endpoint"));
        show_cell(&t, "%s", show_string(one, "outcome"));
        show_cell(&t, "%s", status);
        show_cell(&t, "%lld", (long long)json_integer_value(json_object_get(one, "attempts")));
    }
    (void)fputc('\n', cli->out);
    show_table_print(&t, cli->out);
}

static void print_fire(const struct cli *cli, const json_t *fire)
{
    print_head(cli, fire);
    if (json_array_size(json_object_get(fire, "attempts")) > 0)
        print_attempts(cli, json_object_get(fire, "attempts"));
    if (json_array_size(json_object_get(fire, "endpoints")) > 0)
        print_endpoints(cli, json_object_get(fire, "endpoints"));
}

int cmd_fire_get(struct cli *cli, const struct cli_args *args)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    client_path(&path, "/v1/fires/", args->items[0], "");
    return ask_and_print(cli, args, "GET", client_path_text(&path), print_fire);
}

static void print_retried(const struct cli *cli, const char *fire, const json_t *answer)
{
    (void)answer; /* pending, as any fire that will be tried */
    (void)fprintf(cli->out, "%s: will be tried now\n", fire);
}

int cmd_fire_retry(struct cli *cli, const struct cli_args *args)
{
    return ask_each(cli, args, &(struct ask_each){"POST", "/v1/fires/", "/retry", NULL, print_retried});
}

static void print_outcome(const struct cli *cli, const char *fire, const json_t *answer)
{
    (void)fprintf(cli->out, "%s: %s\n", fire, show_string(answer, "outcome"));
}

int cmd_fire_cancel(struct cli *cli, const struct cli_args *args)
{
    return ask_each(cli, args, &(struct ask_each){"POST", "/v1/fires/", "/cancel", NULL, print_outcome});
}

/* --- many dead letters --------------------------------------------------------------------------------------------- */

static void print_count(const struct cli *cli, const json_t *answer)
{
    static const char *const counts[][2] = {{"matched", "match; nothing was changed"},
                                            {"redriven", "sent once more"},
                                            {"discarded", "discarded"}};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        const json_t *count = json_object_get(answer, counts[i][0]);
        if (count)
            (void)fprintf(cli->out, "%lld %s\n", (long long)json_integer_value(count), counts[i][1]);
    }
}

/* The agent would refuse a change of everything that was not meant. */
static int change(struct cli *cli, const struct cli_args *args, const char *method, const char *to)
{
    static const char *const more[] = {"--all", "--dry-run", "--rate", NULL};
    bool filtered = args_has(args, "--all");
    for (size_t i = 0; filters[i]; i++)
        filtered |= args_has(args, filters[i]);
    if (!filtered)
        return cli_fail(cli, CLI_USAGE,
                        "say which: --job, --prefix, --label, --service, --from, --to or --all");
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    buf_add_str(&path, to);
    ask_query(&path, args, filters);
    ask_query(&path, args, more);
    return ask_and_print(cli, args, method, client_path_text(&path), print_count);
}

int cmd_deadletter_redrive(struct cli *cli, const struct cli_args *args)
{
    return change(cli, args, "POST", "/v1/deadletters/redrive");
}

int cmd_deadletter_discard(struct cli *cli, const struct cli_args *args)
{
    return change(cli, args, "DELETE", "/v1/deadletters");
}
