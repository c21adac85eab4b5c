/* HTTP out, on the loop: libcurl's multi interface driven by socket_action. For Consul and for peers;
 * callbacks to services have their own lanes (callback/). Redirects and proxies are off, protocols are http
 * and https. Loop thread only. */
#ifndef CARILLON_IO_HTTP_H
#define CARILLON_IO_HTTP_H

#include "agent/base/buf.h"
#include "agent/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct http_client;
struct http_call;

struct http_tls {
    const char *ca_file, *ca_path, *cert_file, *key_file, *server_name; /* NULL: libcurl's default */
    bool skip_verify;
};

struct http_call_options {
    const char *method;         /* "GET" */
    const char *url;            /* http://host:port/path?query */
    const char *unix_socket;    /* NULL: TCP */
    const char *const *headers; /* "Name: value", "Name;" without one; NULL-terminated; may be NULL */
    const void *body;           /* copied */
    size_t body_bytes;
    const struct http_tls *tls; /* NULL: libcurl's defaults */
    int64_t timeout_ms;         /* whole call; 0: none */
    int64_t connect_timeout_ms; /* 0: libcurl's 5 minutes */
    size_t reply_bytes_max;
    /* Not NULL: the body of a 2xx reply goes here as it comes, with DONE's argument, and is not in the reply. Never before
     * http_send() returned; it may not send, cancel, or free the client. */
    void (*piece)(void *arg, const char *data, size_t bytes);
};

/* Valid during the callback. */
struct http_reply {
    int status;
    const char *body; /* NUL follows the last byte */
    size_t body_bytes;
    const struct http_call *call; /* for http_reply_header() */
};

/* Exactly once, on the loop, never before http_send() returned. E is never NULL, REPLY is when E has a code
 * other than 0: 0 any HTTP status arrived; ERR_REFUSED connection refused and nothing was sent;
 * ERR_UNAVAILABLE could not connect (resolve, unreachable, TLS, no connection in time), nothing was sent;
 * ERR_TIMEOUT no whole reply in time; ERR_UNKNOWN_OUTCOME the request may have been seen (reset, empty reply,
 * also when a second try on a new connection was refused); ERR_TOO_BIG reply over its limit; ERR_INVALID,
 * ERR_NOMEM the call could not be made; ERR_CANCELLED by http_client_free(). It may send, cancel any call, or
 * free the client. */
typedef void http_done(void *arg, const struct err *e, const struct http_reply *reply);

/* CONNECTIONS_MAX is how many are kept open for reuse, not a limit. ERR_NOMEM; ERR_BAD_STATE: a libcurl that
 * would block the loop while it resolves names. */
int http_client_new(struct loop *loop, unsigned connections_max, struct http_client **ret, struct err *e);
/* Cancels what is under way (callbacks run, with ERR_CANCELLED, before it returns; they may not send). */
void http_client_free(struct http_client *c);
/* NULL only when memory or the arguments forbid; then DONE will still run with the error. All of OPTIONS is
 * copied. */
struct http_call *http_send(struct http_client *c, const struct http_call_options *options, http_done *done,
                            void *arg);
/* Drop a call: its callback will not run. Inside its own callback this does nothing. */
void http_cancel(struct http_call *call);
/* Value of a reply header (first), NULL: absent. */
const char *http_reply_header(const struct http_reply *reply, const char *name);

#endif
