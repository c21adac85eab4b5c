/* Requests to one Consul agent's HTTP API, on the loop. Address, token, TLS and unix socket from options that have honoured
 * the CONSUL_HTTP_* variables; a token file is read again when it changes. Loop thread only.
 * Source: Consul's HTTP API documentation; what was measured of 1.8.7. */
#ifndef CARILLON_CONSUL_CLIENT_H
#define CARILLON_CONSUL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

struct loop;
struct consul_client;
struct consul_call;

/* All borrowed by consul_client_new() only. NULL: not given. */
struct consul_client_options {
    const char *address; /* "127.0.0.1:8500", "http://…", "https://…", "unix:///path" */
    const char *token;   /* literal; the file wins */
    const char *token_file;
    const char *auth;       /* "user:password" for a proxy before Consul */
    const char *datacenter; /* of this agent: sent with every request when set */
    const char *ns;         /* Enterprise namespace */
    const char *tls_ca, *tls_ca_path, *tls_cert, *tls_key, *tls_server_name;
    bool tls; /* as if the address began with https:// */
    bool tls_skip_verify;
    unsigned connections_max;
};

/* Overwrite what OPTIONS leaves NULL or false with CONSUL_HTTP_ADDR, _TOKEN, _TOKEN_FILE, _AUTH, _SSL, _SSL_VERIFY,
 * CONSUL_CACERT, CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME, CONSUL_NAMESPACE.
 * ENV as environ; the texts stay borrowed from it. */
void consul_options_from_env(struct consul_client_options *options, const char *const *env);

/* ERR_INVALID: the address or a file. */
int consul_client_new(struct loop *loop, const struct consul_client_options *options,
                      struct consul_client **ret, struct err *e);
/* Callbacks of what is under way run with ERR_CANCELLED. */
void consul_client_free(struct consul_client *c);
DEFINE_AUTO(consul_client_free, struct consul_client *);

struct consul_reply {
    int status;
    const char *body; /* NUL follows */
    size_t body_bytes;
    uint64_t index;          /* X-Consul-Index */
    bool has_index;          /* without it this was not Consul speaking */
    int64_t last_contact_ms; /* X-Consul-LastContact, -1: none */
};

/* Exactly once, never before consul_send() returned. E: 0 for 2xx; ERR_NOT_FOUND 404 (REPLY is given: it carries the index);
 * ERR_AUTH 401, 403, or a list that is empty because the token may not read what is in it; ERR_INVALID other 4xx (REPLY given); ERR_BUSY 429; ERR_UNAVAILABLE 5xx (REPLY given: texts differ) or no
 * connection; ERR_TIMEOUT; ERR_UNKNOWN_OUTCOME; ERR_TOO_BIG; ERR_CANCELLED. */
typedef void consul_done(void *arg, const struct err *e, const struct consul_reply *reply);

struct consul_request {
    const char *method; /* "GET", "PUT", "DELETE" */
    const char *path;   /* "/v1/…", escaped, may have a query */
    const void *body;
    size_t body_bytes;
    int64_t timeout_ms; /* 0: 5 s */
    size_t reply_max;   /* 0: 1 MiB */
};

struct consul_call *consul_send(struct consul_client *c, const struct consul_request *request,
                                consul_done *done, void *arg);
/* The callback will not run. NULL, or from within that very callback: nothing. */
void consul_cancel(struct consul_call *call);

/* Whether Consul works as far as we need its servers: no connection and their errors make it false; what its agent answers by
 * itself (/v1/agent/) proves nothing, and neither does a refusal of rights or an error of another datacenter. Since when (boot
 * ms), and what was wrong. */
struct consul_health {
    bool ok;
    int64_t since_ms;
    char detail[200];
};
const struct consul_health *consul_client_health(const struct consul_client *c);
struct loop *consul_client_loop(struct consul_client *c);

#endif
