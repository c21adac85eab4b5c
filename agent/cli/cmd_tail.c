/* What happens at an agent, or at all members, as it happens: a line for each event. Connects again when the connection is lost. */
#include <string.h>

#include "agent/base/json.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"

#define EVENT_MAX_BYTES 65536
#define AGAIN_MS        1000
#define LAST_S          (20L * 86400) /* of a connection: libcurl counts ms in an int */

struct tail {
    const struct cli *cli;
    bool json;
    bool attempts;  /* also those that are not the end of their fire */
    uint64_t left;  /* events to be shown; 0: no end */
    bool lost;      /* an event could not be shown */
    bool connected; /* at least once: then a lost agent is waited for */
    struct buf line;
    char event[32];
};

static void add(struct buf *out, const json_t *data, const char *key, const char *name)
{
    const json_t *v = json_object_get(data, key);
    if (!v || json_is_null(v))
        return;
    AUTO(mem_free) char *text = show_compact(v, 200);
    AUTO(mem_free) char *clean = show_clean(text, false);
    buf_addf(out, strpbrk(clean, " \"=") ? " %s=\"%s\"" : " %s=%s", name, clean);
}

/* "2026-11-23T08:00:00.003Z fire job=hello fire=… outcome=succeeded lateness_ms=1 …" */
static int print_line(const struct tail *t, const json_t *data, struct buf *out, struct err *e)
{
    static const char *const keys[][2] = {
        {"namespace", "ns"},      {"job", "job"},       {"op", "op"},         {"actor", "by"},
        {"version", "version"},   {"state", "state"},   {"fire", "fire"},     {"due", "due"},
        {"outcome", "outcome"},   {"reason", "reason"}, {"status", "status"}, {"lateness_ms", "lateness_ms"},
        {"endpoint", "endpoint"}, {"error", "error"},   {"text", "text"},     {"slots", "slots"},
        {"member", "member"},     {"dropped", "events"}};
    buf_addf(out, "%s %s", show_string(data, "at"), t->event);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(keys[i][0], "namespace") != 0 || strcmp(show_string(data, "namespace"), "default") != 0)
            add(out, data, keys[i][0], keys[i][1]);
    if (json_integer_value(json_object_get(data, "count")) > 1)
        add(out, data, "count", "count");
    return buf_check(out, e);
}

static int print_json(const struct tail *t, json_t *data, struct buf *out, struct err *e)
{
    int r = json_set(data, "event", json_string(t->event), e);
    return r < 0 ? r : json_print_ordered(data, out, e);
}

/* The stream goes on, but not as if there had been nothing. */
static int not_shown(struct tail *t, const struct err *e)
{
    t->lost = true;
    (void)cli_fail(t->cli, CLI_FAILED, "an event cannot be shown: %s", e->text);
    return 0;
}

static int show(struct tail *t, const char *text, size_t len)
{
    AUTO(json_decref) json_t *data = NULL;
    AUTO(buf_fini) struct buf out = BUF_INIT(EVENT_MAX_BYTES);
    struct err e;
    bool unknown = t->event[0] == '\0'; /* its name was lost, and that was told */
    if (unknown || strcmp(t->event, "hello") == 0 || (strcmp(t->event, "attempt") == 0 && !t->attempts))
        return 0;
    int r = json_read(text, len, EVENT_MAX_BYTES, &data, &e);
    if (r == 0)
        r = t->json ? print_json(t, data, &out, &e) : print_line(t, data, &out, &e);
    if (r == 0 && show_take_lost())
        r = err_set(&e, ERR_NOMEM, "no memory for a part of it");
    if (r < 0)
        return not_shown(t, &e);
    (void)fprintf(t->cli->out, "%s\n", buf_str(&out));
    (void)fflush(t->cli->out);
    return t->left > 0 && --t->left == 0 ? -1 : ferror(t->cli->out) ? -1 : 0;
}

static int take_line(struct tail *t)
{
    const char *line = buf_str(&t->line);
    struct err e;
    if (buf_check(&t->line, &e) < 0) {
        t->event[0] = '\0';
        return not_shown(t, &e);
    }
    if (strncmp(line, "event: ", 7) == 0)
        (void)snprintf(t->event, sizeof(t->event), "%s", line + 7); /* cut: then it is none that we know */
    else if (strncmp(line, "data: ", 6) == 0)
        return show(t, line + 6, t->line.len - 6);
    return 0;
}

static int on_piece(void *arg, const char *data, size_t bytes)
{
    struct tail *t = arg;
    t->connected = true;
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] != '\n') {
            buf_add_char(&t->line, data[i]);
            continue;
        }
        int r = take_line(t);
        buf_reset(&t->line);
        if (r < 0)
            return r;
    }
    return 0;
}

/* -1: again. */
static int listen_once(struct client *c, struct tail *t, const struct client_request *rq)
{
    struct err e;
    AUTO(client_reply_fini) struct client_reply reply = {.status = 0};
    int r = client_send(c, rq, &reply, &e);
    bool over = ferror(t->cli->out) != 0;
    if (r == -ERR_CANCELLED)
        return over ? CLI_FAILED : CLI_OK;
    if (r == 0 && reply.status / 100 != 2 && reply.status != 503)
        return client_explain_refusal(c, rq, &reply);
    if (r < 0 && !t->connected)
        return client_explain_failure(c, r, &e);
    buf_reset(&t->line);
    t->event[0] = '\0';
    (void)fprintf(t->cli->err, "carillon: connection lost, trying again\n");
    return -1;
}

int cmd_tail(struct cli *cli, const struct cli_args *args)
{
    struct err e;
    struct tail t = {.cli = cli,
                     .json = args_has(args, "--json"),
                     .attempts = args_has(args, "--attempts"),
                     .line = BUF_INIT(EVENT_MAX_BYTES)};
    if (args_u64(args, "--count", 1, UINT32_MAX, &t.left, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    bool everywhere = args_has(args, "--all-namespaces");
    struct client_request rq = {.method = "GET",
                                .path = args_has(args, "--all")
                                            ? everywhere ? "/v1/events?all=true&ns=*" : "/v1/events?all=true"
                                        : everywhere ? "/v1/events?ns=*"
                                                     : "/v1/events",
                                .piece = on_piece,
                                .arg = &t,
                                .timeout_s = LAST_S};
    int code;
    while ((code = listen_once(c, &t, &rq)) < 0)
        cli->wait_ms(AGAIN_MS);
    buf_fini(&t.line);
    if (t.lost)
        show_set_lost();
    return code;
}
