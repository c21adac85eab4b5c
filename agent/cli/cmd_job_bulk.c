/* Any number of jobs as NDJSON: import by /v1/bulk in pieces, so that memory and the agent's limit hold; export by /v1/export as
 * it comes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"

#define PIECE_BYTES  ((size_t)8 << 20) /* sent at once; api.max_bulk is 64 MiB unless set lower */
#define LINE_MAX_    ((size_t)2 << 20) /* a job has at most 256 KiB payload, escaped, and its headers */
#define BULK_TIME_S  600L
#define EXPORT_PATH  "/v1/export"
#define FAILED_SHOWN 100

/* --- import -------------------------------------------------------------------------------------------------------- */

struct import {
    struct cli *cli;
    struct client *client;
    bool json;
    struct buf piece; /* lines to be sent */
    uint64_t line;    /* of the file, from 1: the last one that was read */
    uint64_t first;   /* the file's line that is the piece's first */
    uint64_t ok, failed;
    bool whole; /* the last line of the piece's answer came */
};

static void print_failed(const struct import *im, uint64_t line, const json_t *result)
{
    const json_t *problem = json_object_get(result, "problem");
    const json_t *error = json_array_get(json_object_get(problem, "errors"), 0);
    const char *pointer = show_string(error, "pointer"),
               *detail = show_string(error ? error : problem, "detail");
    if (im->failed > FAILED_SHOWN)
        return;
    AUTO(buf_fini) struct buf text = BUF_INIT(65536);
    buf_addf(&text, "line %llu: %s%s%lld %s%s%s: %s", (unsigned long long)line, show_string(result, "id"),
             *show_string(result, "id") ? ": " : "",
             (long long)json_integer_value(json_object_get(result, "status")), show_string(problem, "code"),
             *pointer ? " " : "", pointer, detail);
    AUTO(mem_free) char *clean = show_clean(buf_str(&text), false);
    (void)cli_fail(im->cli, CLI_FAILED, "%s", clean);
    if (im->failed == FAILED_SHOWN)
        cli_hint(im->cli, "further failures are only counted");
}

/* One line of the answer. Lines are counted from the piece's begin; the file's number is told. */
static void take_result(struct import *im, json_t *result)
{
    im->whole = json_is_true(json_object_get(result, "done"));
    if (im->whole)
        return; /* the sums are made over all pieces */
    bool ok = json_integer_value(json_object_get(result, "status")) / 100 == 2;
    uint64_t line = im->first + (uint64_t)json_integer_value(json_object_get(result, "line")) - 1;
    im->ok += ok;
    im->failed += !ok;
    if (im->json) {
        if (json_set(result, "line", json_integer((json_int_t)line), NULL) < 0 ||
            json_dumpf(result, im->cli->out, JSON_COMPACT) < 0)
            show_set_lost();
        (void)fputc('\n', im->cli->out);
    } else if (!ok) {
        print_failed(im, line, result);
    }
}

static int take_results(struct import *im, const char *text, size_t len)
{
    while (len > 0) {
        const char *end = memchr(text, '\n', len);
        size_t n = end ? (size_t)(end - text) : len;
        struct err e;
        AUTO(json_decref) json_t *result = NULL;
        if (n > 0 && json_read(text, n, CLIENT_REPLY_MAX, &result, &e) < 0)
            return cli_fail(im->cli, CLI_FAILED, "answer: %s", e.text);
        if (n > 0)
            take_result(im, result);
        text += n + (end != NULL);
        len -= n + (end != NULL);
    }
    return CLI_OK;
}

static int send_piece(struct import *im)
{
    struct err e;
    struct client_request rq = {.method = "POST",
                                .path = "/v1/bulk",
                                .content_type = "application/x-ndjson",
                                .body = buf_str(&im->piece),
                                .body_bytes = im->piece.len,
                                .timeout_s = BULK_TIME_S};
    AUTO(client_reply_fini) struct client_reply reply = {.status = 0};
    if (buf_check(&im->piece, &e) < 0)
        return cli_fail(im->cli, CLI_FAILED, "lines %llu to %llu were not sent: %s",
                        (unsigned long long)im->first, (unsigned long long)im->line, e.text);
    if (im->piece.len == 0)
        return CLI_OK;
    int r = client_send(im->client, &rq, &reply, &e);
    if (r < 0)
        return client_explain_failure(im->client, r, &e);
    if (reply.status / 100 != 2)
        return client_explain_refusal(im->client, &rq, &reply);
    im->whole = false;
    int code = take_results(im, buf_str(&reply.body), reply.body.len);
    if (code == CLI_OK && !im->whole)
        code = cli_fail(im->cli, CLI_FAILED, "the answer broke off: not all of lines %llu to %llu were taken",
                        (unsigned long long)im->first, (unsigned long long)im->line);
    buf_reset(&im->piece);
    im->first = im->line + 1;
    return code;
}

static int import_lines(struct import *im, FILE *in)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int code = CLI_OK;
    while (code == CLI_OK && (n = getline(&line, &cap, in)) >= 0) {
        if ((size_t)n > LINE_MAX_) {
            code = cli_fail(im->cli, CLI_FAILED, "line %llu is longer than %zu bytes",
                            (unsigned long long)im->line + 1, LINE_MAX_);
            break;
        }
        if (im->piece.len + (size_t)n > PIECE_BYTES)
            code = send_piece(im);
        im->line++;
        buf_add(&im->piece, line, (size_t)n);
        if (n > 0 && line[n - 1] != '\n')
            buf_add_char(&im->piece, '\n');
    }
    free(line); /* getline's */
    if (code == CLI_OK && ferror(in))
        code = cli_fail(im->cli, CLI_FAILED, "read: %s", strerror(errno));
    return code == CLI_OK ? send_piece(im) : code;
}

int cmd_job_import(struct cli *cli, const struct cli_args *args)
{
    const char *file;
    struct err e;
    if (args_file(args, &file, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "job import %s", e.text);
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    FILE *in = strcmp(file, "-") == 0 ? cli->in : fopen(file, "re");
    if (!in)
        return cli_fail(cli, CLI_FAILED, "open '%s': %s", file, strerror(errno));
    struct import im = {.cli = cli,
                        .client = c,
                        .json = args_has(args, "--json"),
                        .piece = BUF_INIT(PIECE_BYTES + LINE_MAX_ + 1),
                        .first = 1};
    int code = import_lines(&im, in);
    buf_fini(&im.piece);
    if (in != cli->in)
        (void)fclose(in); /* was only read */
    if (im.json)
        (void)fprintf(cli->out, "{\"done\":%s,\"ok\":%llu,\"failed\":%llu}\n",
                      code == CLI_OK ? "true" : "false", (unsigned long long)im.ok,
                      (unsigned long long)im.failed);
    else
        (void)fprintf(cli->out, "%llu imported, %llu failed\n", (unsigned long long)im.ok,
                      (unsigned long long)im.failed);
    return code == CLI_OK && im.failed > 0 ? CLI_FAILED : code;
}

/* --- export -------------------------------------------------------------------------------------------------------- */

static int write_piece(void *arg, const char *data, size_t bytes)
{
    return fwrite(data, 1, bytes, arg) == bytes ? 0 : -1;
}

static int export_to(struct cli *cli, const struct cli_args *args, struct client *c, FILE *out)
{
    struct err e;
    struct client_request rq = {.method = "GET",
                                .path =
                                    args_has(args, "--all-namespaces") ? EXPORT_PATH "?ns=*" : EXPORT_PATH,
                                .piece = write_piece,
                                .arg = out,
                                .timeout_s = BULK_TIME_S};
    AUTO(client_reply_fini) struct client_reply reply = {.status = 0};
    int r = client_send(c, &rq, &reply, &e);
    if (r == -ERR_CANCELLED)
        return cli_fail(cli, CLI_FAILED, "write: %s", strerror(errno));
    if (r < 0)
        return client_explain_failure(c, r, &e);
    return reply.status / 100 == 2 ? CLI_OK : client_explain_refusal(c, &rq, &reply);
}

int cmd_job_export(struct cli *cli, const struct cli_args *args)
{
    const char *file = args_get(args, "--output");
    AUTO(client_free) struct client *c = client_open(cli, args);
    if (!c)
        return CLI_USAGE;
    FILE *out = file && strcmp(file, "-") != 0 ? fopen(file, "we") : cli->out;
    if (!out)
        return cli_fail(cli, CLI_FAILED, "open '%s': %s", file, strerror(errno));
    int code = export_to(cli, args, c, out);
    if (out != cli->out && fclose(out) != 0 && code == CLI_OK)
        code = cli_fail(cli, CLI_FAILED, "write '%s': %s", file, strerror(errno));
    return code;
}
