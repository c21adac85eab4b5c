/* The shortest way to a one-shot. */
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/payload.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 8192

/* "Name: value" */
static int add_header(json_t *headers, const char *text, struct err *e)
{
    const char *colon = strchr(text, ':');
    if (!colon || colon == text)
        return err_set(e, ERR_INVALID, "'%s' is no header; write 'Name: value'", TEXTQ(text, strlen(text)));
    AUTO(buf_fini) struct buf name = BUF_INIT(1024);
    buf_add(&name, text, (size_t)(colon - text));
    int r = buf_check(&name, e);
    return r < 0 ? r
                 : json_set(headers, buf_str(&name), json_string(colon + 1 + strspn(colon + 1, " \t")), e);
}

static int add_text(json_t *obj, const char *key, const char *value, struct err *e)
{
    return value ? json_set(obj, key, json_string(value), e) : 0;
}

static int fill_http(json_t *http, const struct cli_args *args, struct err *e)
{
    const char *url = args_get(args, "--url"), *path = args_get(args, "--path");
    size_t at = 0;
    if (url && (path || args_has(args, "--service")))
        return err_set(e, ERR_INVALID, "give --url, or --service and --path");
    int r = add_text(http, "url", url, e);
    if (r == 0)
        r = add_text(http, "service", args_get(args, "--service"), e);
    if (r == 0 && !url)
        r = add_text(http, "path", path ? path : "/", e);
    if (r == 0)
        r = add_text(http, "method", args_get(args, "--method"), e);
    json_t *headers = NULL;
    for (const char *text; r == 0 && (text = args_next(args, "--header", &at)) != NULL;) {
        if (!headers) {
            headers = json_object();
            r = json_set(http, "headers", headers, e);
        }
        if (r == 0)
            r = add_header(headers, text, e);
    }
    return r;
}

static int fill_payload(json_t *job, const struct cli *cli, const struct cli_args *args, struct err *e)
{
    const char *data = args_get(args, "--data"), *type = args_get(args, "--content-type");
    if (type && !data)
        return err_set(e, ERR_INVALID, "--content-type needs --data");
    int r = type ? payload_set_bytes(job, data, type, cli->in, e) : payload_set_any(job, data, cli->in, e);
    return r < 0 ? err_wrap(e, type || r != -ERR_INVALID ? "--data" : "--data without --content-type") : 0;
}

static int make_job(const struct cli *cli, const struct cli_args *args, json_t **ret, struct err *e)
{
    uint64_t ms;
    int r = text_duration_ms(args->items[0], strlen(args->items[0]), &ms, e);
    if (r < 0)
        return r;
    AUTO(buf_fini) struct buf schedule = BUF_INIT(200);
    buf_addf(&schedule, "@after %s", args->items[0]);
    r = buf_check(&schedule, e);
    if (r < 0)
        return r;
    AUTO(json_decref)
    json_t *job = json_pack("{s:s,s:{s:{}}}", "schedule", buf_str(&schedule), "callback", "http");
    if (!job)
        return err_set(e, ERR_NOMEM, "out of memory for the job");
    r = add_text(job, "id", args_get(args, "--id"), e);
    if (r == 0)
        r = fill_http(json_object_get(json_object_get(job, "callback"), "http"), args, e);
    if (r == 0)
        r = fill_payload(job, cli, args, e);
    if (r == 0)
        *ret = TAKE(job);
    return r;
}

int cmd_in(struct cli *cli, const struct cli_args *args)
{
    struct err e;
    const char *id = args_get(args, "--id");
    char due[SHOW_BOTH_SIZE];
    AUTO(json_decref) json_t *job = NULL;
    AUTO(json_decref) json_t *answer = NULL;
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    if (make_job(cli, args, &job, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    client_path(&path, id ? "/v1/jobs/" : "/v1/jobs", id ? id : "", "");
    int code = client_ask(c, id ? "PUT" : "POST", client_path_text(&path), job, &answer);
    if (code != CLI_OK)
        return code;
    if (args_has(args, "--json")) {
        show_json(cli->out, answer);
        return CLI_OK;
    }
    show_warnings(cli->err, show_string(answer, "id"), answer);
    show_both(due, json_object_get(json_object_get(answer, "status"), "next_due"), cli->now_ms());
    (void)fprintf(cli->out, "%s: due %s\n", show_string(answer, "id"), due);
    return CLI_OK;
}
