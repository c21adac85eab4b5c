/* One job, or a few named ones: get, delete, pause, resume, run, next, backfill. */
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/ask.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/dues.h"
#include "agent/cli/payload.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 8192
#define VALUE_MAX      100 /* bytes of a value in a listing for people */

/* --- get ----------------------------------------------------------------------------------------------------------- */

static void add_line(struct show_table *t, const char *name, const char *value)
{
    if (!*value)
        return;
    show_cell(t, "%s", name);
    show_cell(t, "%s", value);
}

static void add_value(struct show_table *t, const char *name, const json_t *value)
{
    if (!value || json_is_null(value))
        return;
    AUTO(mem_free) char *text = show_compact(value, VALUE_MAX);
    add_line(t, name, text);
}

static void add_instant(struct show_table *t, const char *name, const json_t *value, int64_t now_ms)
{
    char both[SHOW_BOTH_SIZE];
    show_both(both, value, now_ms);
    add_line(t, name, both);
}

/* "POST http service billing /hooks" */
static void add_target(struct show_table *t, const json_t *callback)
{
    const json_t *http = json_object_get(callback, "http"), *grpc = json_object_get(callback, "grpc");
    const json_t *to = http ? http : grpc;
    AUTO(buf_fini) struct buf text = BUF_INIT(8192);
    const char *service = show_string(to, "service");
    buf_addf(&text, "%s %s", http ? "HTTP" : "gRPC", show_string(to, "method"));
    if (*service)
        buf_addf(&text, " service %s", service);
    else
        buf_addf(&text, " %s%s", show_string(to, "url"), show_string(to, "address"));
    buf_addf(&text, " %s", show_string(to, "path"));
    add_line(t, "callback", show_text(&text));
    add_value(t, "timeout", json_object_get(callback, "timeout"));
}

static void add_last_fire(struct show_table *t, const json_t *status, int64_t now_ms)
{
    const json_t *last = json_object_get(status, "last_fire");
    char when[SHOW_BOTH_SIZE];
    if (!json_is_object(last))
        return;
    show_both(when, json_object_get(last, "due"), now_ms);
    const char *reason = show_string(last, "reason");
    show_cell(t, "last fire");
    show_cell(t, "%s%s%s, due %s, %s", show_string(last, "outcome"), *reason ? " " : "", reason, when,
              show_string(last, "fire"));
}

/* Of the newest attempt that failed, among the newest fires. */
static const json_t *last_failure(const json_t *fires)
{
    for (size_t i = 0; i < json_array_size(fires); i++) {
        const json_t *fire = json_array_get(fires, i), *attempts = json_object_get(fire, "attempts");
        size_t count = json_array_size(attempts);
        bool succeeded = strcmp(show_string(fire, "outcome"), "succeeded") == 0;
        if (count > (size_t)succeeded) /* the attempt that succeeded is the last */
            return json_array_get(attempts, count - 1 - succeeded);
    }
    return NULL;
}

static void add_last_error(struct show_table *t, const json_t *fires, int64_t now_ms)
{
    const json_t *attempt = last_failure(fires), *status = json_object_get(attempt, "status");
    char when[SHOW_BOTH_SIZE];
    AUTO(buf_fini) struct buf text = BUF_INIT(8192);
    if (!attempt)
        return;
    show_both(when, json_object_get(attempt, "at"), now_ms);
    if (json_is_integer(status))
        buf_addf(&text, "status %lld", (long long)json_integer_value(status));
    else
        buf_add_str(&text, show_string(attempt, "error"));
    const char *endpoint = show_string(attempt, "endpoint"), *excerpt = show_string(attempt, "excerpt");
    if (*endpoint)
        buf_addf(&text, " from %s", endpoint);
    buf_addf(&text, ", attempt %lld, %s", (long long)json_integer_value(json_object_get(attempt, "attempt")),
             when);
    if (*excerpt)
        buf_addf(&text, ": %.*s", (int)text_utf8_cut(excerpt, strlen(excerpt), VALUE_MAX), excerpt);
    add_line(t, "last error", show_text(&text));
}

/* Its newest fires, when they may say what is wrong; NULL: they cannot, or are not to be had. */
static json_t *ask_fires(struct client *c, const char *id, const json_t *job)
{
    const json_t *status = json_object_get(job, "status"), *counts = json_object_get(status, "counts");
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    json_t *answer = NULL;
    if (json_integer_value(json_object_get(counts, "pending")) == 0 &&
        json_integer_value(json_object_get(status, "consecutive_failures")) == 0)
        return NULL;
    client_path(&path, "/v1/jobs/", id, "/fires?limit=20");
    (void)client_ask(c, "GET", client_path_text(&path), NULL, &answer); /* it has said why */
    return answer;
}

static void print_job(const struct cli *cli, const json_t *job, const json_t *fires)
{
    static const char *const plain[] = {
        "id",     "namespace",   "description",    "schedule",    "timezone",  "dst",
        "jitter", "short_month", "starts_at",      "ends_at",     "max_fires", "payload",
        "retry",  "misfire",     "payload_base64", "concurrency", "delivery",  "labels"};
    static const char *const counts[] = {"seq",       "succeeded", "dead",   "skipped",
                                         "coalesced", "cancelled", "pending"};
    const json_t *status = json_object_get(job, "status"), *all = json_object_get(status, "counts");
    int64_t now_ms = cli->now_ms();
    char state[SHOW_STATE_SIZE], next[SHOW_BOTH_SIZE];
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 2, NULL);
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        add_value(&t, plain[i], json_object_get(job, plain[i]));
    add_target(&t, json_object_get(job, "callback"));
    show_state(state, status);
    add_line(&t, "state", state);
    show_next_due(next, status, now_ms);
    add_line(&t, "next due", next);
    add_last_fire(&t, status, now_ms);
    add_last_error(&t, fires, now_ms);
    add_instant(&t, "last success", json_object_get(status, "last_success_at"), now_ms);
    add_instant(&t, "failing since", json_object_get(status, "failing_since"), now_ms);
    AUTO(buf_fini) struct buf text = BUF_INIT(1000);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        buf_addf(&text, "%s%s %lld", i ? ", " : "", i ? counts[i] : "fires",
                 (long long)json_integer_value(json_object_get(all, counts[i])));
    add_line(&t, "counts", show_text(&text));
    add_instant(&t, "created", json_object_get(status, "created_at"), now_ms);
    add_instant(&t, "updated", json_object_get(status, "updated_at"), now_ms);
    add_value(&t, "version", json_object_get(status, "version"));
    add_line(&t, "owner", show_string(status, "owner"));
    show_table_print(&t, cli->out);
}

int cmd_job_get(struct cli *cli, const struct cli_args *args)
{
    AUTO(client_free) struct client *c = client_open(cli, args);
    AUTO(json_decref) json_t *job = NULL;
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    if (!c)
        return CLI_USAGE;
    client_path(&path, "/v1/jobs/", args->items[0], "");
    int code = client_ask(c, "GET", client_path_text(&path), NULL, &job);
    if (code != CLI_OK)
        return code;
    if (args_has(args, "--json")) {
        show_json(cli->out, job);
        return CLI_OK;
    }
    json_t *fires = ask_fires(c, args->items[0], job);
    print_job(cli, job, json_object_get(fires, "fires"));
    json_decref(fires);
    return CLI_OK;
}

/* --- the same request for each ID ---------------------------------------------------------------------------------- */

static void print_state(const struct cli *cli, const char *id, const json_t *answer)
{
    const json_t *status = json_object_get(answer, "status");
    char next[SHOW_BOTH_SIZE];
    show_next_due(next, status, cli->now_ms());
    (void)fprintf(cli->out, "%s: %s%s%s\n", id, show_string(status, "state"), *next ? ", next due " : "",
                  next);
}

int cmd_job_pause(struct cli *cli, const struct cli_args *args)
{
    return ask_each(cli, args, &(struct ask_each){"POST", "/v1/jobs/", "/pause", NULL, print_state});
}

int cmd_job_resume(struct cli *cli, const struct cli_args *args)
{
    const char *catch_up = args_get(args, "--catch-up");
    if (catch_up && strcmp(catch_up, "none") != 0 && strcmp(catch_up, "last") != 0 &&
        strcmp(catch_up, "all") != 0)
        return cli_fail(cli, CLI_USAGE, "--catch-up: '%s' is not one of none, last, all",
                        TEXTQ(catch_up, strlen(catch_up)));
    AUTO(json_decref) json_t *body = catch_up ? json_pack("{s:s}", "catch_up", catch_up) : NULL;
    if (catch_up && !body)
        return cli_fail(cli, CLI_FAILED, "no memory for the request");
    return ask_each(cli, args, &(struct ask_each){"POST", "/v1/jobs/", "/resume", body, print_state});
}

static void print_deleted(const struct cli *cli, const char *id, const json_t *answer)
{
    const char *result = show_string(answer, "result");
    (void)fprintf(cli->out, "%s: deleted%s\n", id,
                  strcmp(result, "in_flight") == 0  ? "; a callback is under way"
                  : strcmp(result, "finished") == 0 ? "; it had finished"
                                                    : "");
}

static void print_deleted_count(const struct cli *cli, const json_t *answer)
{
    (void)fprintf(cli->out, "%lld deleted\n",
                  (long long)json_integer_value(json_object_get(answer, "deleted")));
}

/* All that match the filters. */
static int delete_many(struct cli *cli, const struct cli_args *args)
{
    static const char *const filters[] = {"--prefix", "--label", "--all", NULL};
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    buf_add_str(&path, "/v1/jobs");
    ask_query(&path, args, filters);
    return ask_and_print(cli, args, "DELETE", client_path_text(&path), print_deleted_count);
}

int cmd_job_delete(struct cli *cli, const struct cli_args *args)
{
    bool filters = args_has(args, "--prefix") || args_has(args, "--label") || args_has(args, "--all");
    if (filters == (args->count > 0))
        return cli_fail(cli, CLI_USAGE,
                        filters ? "give ids or filters, not both" : "give ids, --prefix, --label or --all");
    return filters ? delete_many(cli, args)
                   : ask_each(cli, args, &(struct ask_each){"DELETE", "/v1/jobs/", "", NULL, print_deleted});
}

static void print_fire(const struct cli *cli, const char *id, const json_t *answer)
{
    AUTO(mem_free) char *fire = show_compact(json_object_get(answer, "fire"), VALUE_MAX);
    (void)fprintf(cli->out, "%s: fire %s\n", id, fire);
}

int cmd_job_run(struct cli *cli, const struct cli_args *args)
{
    AUTO(json_decref) json_t *body = NULL;
    struct err e;
    if (args_has(args, "--data") || args_has(args, "--force")) {
        body = json_object();
        if (!body)
            return cli_fail(cli, CLI_FAILED, "no memory for the request");
        if (payload_set(body, args_get(args, "--data"), cli->in, &e) < 0)
            return cli_fail(cli, CLI_USAGE, "--data: %s", e.text);
        if (args_has(args, "--force") && json_set(body, "force", json_true(), &e) < 0)
            return cli_fail(cli, CLI_FAILED, "%s", e.text);
    }
    return ask_each(cli, args, &(struct ask_each){"POST", "/v1/jobs/", "/run", body, print_fire});
}

/* --- next, backfill ------------------------------------------------------------------------------------------------- */

int cmd_job_next(struct cli *cli, const struct cli_args *args)
{
    static const char *const flags[] = {"--from", NULL};
    const char *count = args_get(args, "--count");
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    client_path(&path, "/v1/jobs/", args->items[0], "/next");
    client_query(&path, "count", count ? count : "10");
    ask_query(&path, args, flags);
    return ask_and_print(cli, args, "GET", client_path_text(&path), dues_print_document);
}

static void print_backfill(const struct cli *cli, const char *id, const json_t *answer)
{
    (void)fprintf(cli->out, "%s: %lld dues will be fired\n", id,
                  (long long)json_integer_value(json_object_get(answer, "dues")));
}

int cmd_job_backfill(struct cli *cli, const struct cli_args *args)
{
    const char *from = args_get(args, "--from"), *to = args_get(args, "--to");
    if (!from || !to)
        return cli_fail(cli, CLI_USAGE, "give the span: --from INSTANT --to INSTANT");
    AUTO(json_decref) json_t *body = json_pack("{s:s,s:s}", "from", from, "to", to);
    if (!body)
        return cli_fail(cli, CLI_FAILED, "--from or --to is no text, or there is no memory for the request");
    return ask_each(cli, args, &(struct ask_each){"POST", "/v1/jobs/", "/backfill", body, print_backfill});
}
