#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/document.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 8192
#define BODY_MAX       ((size_t)64 << 20)

struct apply {
    struct cli *cli;
    struct client *client;
    bool dry_run;
    json_t *results; /* for --json: [{"id","result"|"problem"…}]; NULL: for people */
};

/* One line for people, or one entry for programs. */
static void report(const struct apply *a, const char *id, const char *result, const char *detail)
{
    if (a->results) {
        json_t *one = json_pack("{s:s,s:s}", "id", id, "result", result);
        if (*detail && json_set(one, "detail", json_string(detail), NULL) < 0)
            show_set_lost();
        show_append(a->results, one);
        return;
    }
    FILE *out = strcmp(result, "failed") == 0 ? a->cli->err : a->cli->out;
    AUTO(mem_free) char *clean = show_clean(detail, false);
    (void)fprintf(out, "%s: %s%s%s\n", id, result, *clean ? ": " : "", clean);
}

/* The job's ETag now, "" when there is none; it tells "updated" from "unchanged". */
static int read_etag(const struct apply *a, const char *path, const char *ns, char etag[128])
{
    struct err e;
    struct client_request rq = {.method = "GET", .path = path, .ns = ns};
    AUTO(client_reply_fini) struct client_reply reply = {.status = 0};
    int r = client_send(a->client, &rq, &reply, &e);
    if (r < 0)
        return client_explain_failure(a->client, r, &e);
    (void)snprintf(etag, 128, "%s", reply.status == 200 ? reply.etag : ""); /* the same size */
    return CLI_OK;
}

static void report_success(const struct apply *a, const char *id, const struct client_reply *reply,
                           const char *before)
{
    AUTO(json_decref) json_t *answer = NULL;
    char due[SHOW_BOTH_SIZE] = "", detail[SHOW_BOTH_SIZE + 20] = "";
    int r = json_read(buf_str(&reply->body), reply->body.len, CLIENT_REPLY_MAX, &answer, NULL);
    if (r == -ERR_NOMEM)
        show_set_lost();
    if (r == 0) {
        show_warnings(a->cli->err, id, answer);
        const json_t *next = json_object_get(answer, "next");
        show_both(due,
                  a->dry_run ? json_object_get(json_array_get(next, 0), "due")
                             : json_object_get(json_object_get(answer, "status"), "next_due"),
                  a->cli->now_ms());
    }
    if (*due)
        (void)snprintf(detail, sizeof(detail), "next due %s", due); /* fits */
    const char *result = a->dry_run                                    ? "valid"
                         : reply->status == 201                        ? "created"
                         : *before && strcmp(before, reply->etag) == 0 ? "unchanged"
                                                                       : "updated";
    report(a, id, result, detail);
}

static int put_job(const struct apply *a, const json_t *job, const char *id)
{
    struct err e;
    char before[128] = "";
    const char *ns = json_string_value(json_object_get(job, "namespace"));
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    AUTO(buf_fini) struct buf body = BUF_INIT(BODY_MAX);
    client_path(&path, "/v1/jobs/", id, "");
    if (json_print_ordered(job, &body, &e) < 0)
        return cli_fail(a->cli, CLI_FAILED, "%s: %s", id, e.text);
    int code = a->dry_run ? CLI_OK : read_etag(a, client_path_text(&path), ns, before);
    if (code != CLI_OK)
        return code;
    client_query(&path, "dry_run", a->dry_run ? "true" : NULL);
    struct client_request rq = {.method = "PUT",
                                .path = client_path_text(&path),
                                .ns = ns,
                                .body = buf_str(&body),
                                .body_bytes = body.len};
    AUTO(client_reply_fini) struct client_reply reply = {.status = 0};
    int r = client_send(a->client, &rq, &reply, &e);
    if (r < 0)
        return client_explain_failure(a->client, r, &e);
    if (reply.status / 100 == 2) {
        report_success(a, id, &reply, before);
        return CLI_OK;
    }
    AUTO(buf_fini) struct buf why = BUF_INIT(65536);
    client_refusal_line(&reply, &why);
    report(a, id, "failed", buf_str(&why));
    return CLI_FAILED;
}

static int apply_job(const struct apply *a, const json_t *job, size_t number)
{
    const char *id = json_string_value(json_object_get(job, "id"));
    char name[32];
    struct err e;
    if (id && text_check_id(id, strlen(id), &e) == 0)
        return put_job(a, job, id);
    (void)snprintf(name, sizeof(name), "job %zu", number); /* fits */
    report(a, name, "failed", id ? e.text : "has no id");
    return CLI_FAILED;
}

/* All are tried, but without an agent there is no sense in going on. */
static int apply_all(const struct apply *a, const json_t *jobs)
{
    int worst = CLI_OK;
    for (size_t i = 0; i < json_array_size(jobs) && worst != CLI_UNREACHABLE; i++) {
        int code = apply_job(a, json_array_get(jobs, i), i + 1);
        if (code > worst)
            worst = code;
    }
    return worst;
}

int cmd_job_apply(struct cli *cli, const struct cli_args *args)
{
    const char *file;
    struct err e;
    if (args_file(args, &file, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "job apply %s", e.text);
    AUTO(buf_fini) struct buf text = BUF_INIT(DOCUMENT_BYTES_MAX);
    AUTO(json_decref) json_t *jobs = NULL;
    if (document_read_file(file, cli->in, &text, &e) < 0 ||
        document_jobs(strcmp(file, "-") == 0 ? "standard input" : file, buf_str(&text), text.len, &jobs, &e) <
            0)
        return cli_fail(cli, CLI_FAILED, "%s", e.text);
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    struct apply a = {.cli = cli,
                      .client = c,
                      .dry_run = args_has(args, "--dry-run"),
                      .results = args_has(args, "--json") ? json_array() : NULL};
    if (args_has(args, "--json") && !a.results)
        return cli_fail(cli, CLI_FAILED, "no memory for the results");
    int code = apply_all(&a, jobs);
    if (a.results)
        show_json(cli->out, a.results);
    json_decref(a.results);
    return code;
}
