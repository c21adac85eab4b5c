/* Requests of the command line to an agent, over libcurl. Which agent, with which token and namespace, follows from flags and
 * environment. Blocking; main thread only. */
#ifndef CARILLON_AGENT_CLI_CLIENT_H
#define CARILLON_AGENT_CLI_CLIENT_H

#include <jansson.h>
#include <stddef.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/cli/args.h"
#include "agent/io/http.h"

#define CLIENT_REPLY_MAX ((size_t)256 << 20)

struct client;

/* The agent that ARGS (--addr, --ns, --token-file) and CLI's environment (CARILLON_ADDR, CARILLON_NAMESPACE, CARILLON_TOKEN,
 * CARILLON_TOKEN_FILE; for https CARILLON_CACERT, CARILLON_CLIENT_CERT, CARILLON_CLIENT_KEY) name; nothing is sent. Both are
 * borrowed for the client's life. NULL: an error was printed; it is a CLI_USAGE. */
struct client *client_open(struct cli *cli, const struct cli_args *args);
void client_free(struct client *c);
/* What an ADDRESS (NULL: the usual one) stands for: the front of URLs, and a unix socket's path or NULL. The caller's to free.
 * ERR_INVALID. */
int client_read_address(const char *address, char **ret_base, char **ret_unix_socket, struct err *e);
DEFINE_AUTO(client_free, struct client *);
/* What requests need that are not sent here; all borrowed, NULL: none. */
struct client_target {
    const char *base; /* the front of URLs */
    const char *unix_socket, *token, *ns;
    struct http_tls tls;
};
void client_target(const struct client *c, struct client_target *ret);

struct client_request {
    const char *method;
    const char *path; /* "/v1/…" with its query, escaped; NULL: something of it was lost, nothing is sent */
    const char *ns;   /* NULL: the client's */
    const char *content_type; /* of the body; NULL: application/json */
    const void *body;         /* NULL: none */
    size_t body_bytes;
    /* Gets the body of a 2xx answer in pieces instead of the reply; anything but 0 ends the request. May be NULL. */
    int (*piece)(void *arg, const char *data, size_t bytes);
    void *arg;
    long timeout_s; /* 0: 60 s */
};

struct client_reply {
    int status;
    unsigned retry_after_s; /* 0: not said */
    char etag[128];         /* "" none */
    struct buf body;        /* client_reply_fini() */
};
void client_reply_fini(struct client_reply *r);
static inline void client_reply_fini_auto_(struct client_reply *r)
{
    client_reply_fini(r);
}

/* Any status is an answer. ERR_UNAVAILABLE: no connection; ERR_UNKNOWN_OUTCOME: it broke off, or no answer came in time;
 * ERR_CANCELLED: PIECE ended it; ERR_TOO_BIG, ERR_NOMEM, nothing was sent or the answer is lost. RET is the caller's to fini after success. */
int client_send(struct client *c, const struct client_request *request, struct client_reply *ret,
                struct err *e);

/* Print why a request came to nothing (FAILED: what client_send returned, WHY its error), or why it was refused (REPLY), with
 * what to do next. Returns the exit code. */
int client_explain_failure(const struct client *c, int failed, const struct err *why);
int client_explain_refusal(const struct client *c, const struct client_request *request,
                           const struct client_reply *reply);
/* The refusal in one line without hints, for lists: "400 invalid_job: #/schedule: …". */
void client_refusal_line(const struct client_reply *reply, struct buf *out);

/* The usual request: send, explain what is no 2xx, read the JSON answer. Returns the exit code; CLI_OK: *RET is a new
 * reference. */
int client_ask(struct client *c, const char *method, const char *path, const json_t *body, json_t **ret);

/* --- paths --------------------------------------------------------------------------------------------------------- */
/* "/v1/jobs/" + escaped ID + SUFFIX */
void client_path(struct buf *out, const char *prefix, const char *id, const char *suffix);
/* PATH for a request: NULL when an append to it failed, as a request without one of its filters would mean more than was asked for. */
const char *client_path_text(const struct buf *path);
/* "?name=value", or "&name=value" when OUT has a '?' already. VALUE NULL adds nothing. */
void client_query(struct buf *out, const char *name, const char *value);

#endif
