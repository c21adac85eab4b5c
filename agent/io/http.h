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
    const char *const *headers; /* "Name: value"; NULL-terminated; may be NULL */
    const void *body;           /* copied */
    size_t body_bytes;
    const struct http_tls *tls; /* borrowed until the callback */
    int64_t timeout_ms;         /* whole call */
    int64_t connect_timeout_ms;
    size_t reply_bytes_max;
};

/* Valid during the callback. */
struct http_reply {
    int status;
    const char *body; /* NUL follows the last byte */
    size_t body_bytes;
    const struct http_call *call; /* for http_reply_header() */
};

/* Exactly once, never before http_send() returned. ERR codes: 0 any HTTP status arrived; ERR_REFUSED
 * connection refused; ERR_UNAVAILABLE could not connect (resolve, unreachable, TLS); ERR_TIMEOUT;
 * ERR_UNKNOWN_OUTCOME the request may have been seen (reset, empty reply); ERR_TOO_BIG; ERR_CANCELLED by
 * http_client_free(). */
typedef void http_done(void *arg, const struct err *e, const struct http_reply *reply);

int http_client_new(struct loop *loop, unsigned connections_max, struct http_client **ret, struct err *e);
/* Cancels what is under way (callbacks run). */
void http_client_free(struct http_client *c);
/* NULL only when memory or the arguments forbid; then DONE will still run with the error. */
struct http_call *http_send(struct http_client *c, const struct http_call_options *options, http_done *done,
                            void *arg);
/* Drop a call: its callback will not run. */
void http_cancel(struct http_call *call);
/* Value of a reply header (first), NULL: absent. */
const char *http_reply_header(const struct http_reply *reply, const char *name);

#endif
