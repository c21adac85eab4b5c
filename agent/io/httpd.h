/* HTTP in: libmicrohttpd behind a small face. Requests are read and their bodies collected on the server's
 * own thread; the handler runs there too (so parsing is off the loop) and replies at once or later, from any
 * thread. */
#ifndef CARILLON_IO_HTTPD_H
#define CARILLON_IO_HTTPD_H

#include "agent/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct httpd;
struct httpd_request;

struct httpd_header {
    const char *name;
    const char *value;
};

struct httpd_options {
    const char *listen;                             /* "127.0.0.1:7420", "[::1]:0", "unix:/path" */
    unsigned socket_mode;                           /* of a unix socket */
    const char *tls_cert, *tls_key, *tls_client_ca; /* files; NULL: plain */
    unsigned connections_max;
    unsigned idle_timeout_ms; /* also the limit for a slow request; 0: none */
    size_t header_bytes_max;
    /* On the server's thread when the headers are in: decide the body limit, or refuse now by calling
     * httpd_reply() and returning a negative number (what was sent of the body is not read, the connection
     * closes). */
    int64_t (*accept)(struct httpd_request *rq, void *arg);
    /* On the server's thread when the body is in (a body over the limit was answered by `too_large`). Must
     * lead to exactly one httpd_reply() or httpd_stream_begin(), now or later. */
    void (*handle)(struct httpd_request *rq, void *arg);
    /* Body over the limit: must reply. */
    void (*too_large)(struct httpd_request *rq, void *arg);
    void *arg;
};

int httpd_start(const struct httpd_options *options, struct httpd **ret, struct err *e);
/* The address it listens on, with the port the kernel gave. */
const char *httpd_address(const struct httpd *h);
unsigned httpd_port(const struct httpd *h);
/* Stop accepting; requests under way go on. */
void httpd_quiesce(struct httpd *h);
/* Answers what is still open with 503 and closes. Not from a handler. */
void httpd_stop(struct httpd *h);
unsigned httpd_connections(const struct httpd *h);

/* Valid until the reply. Path is as sent (not decoded), without the query. Lookups of header names ignore
 * case. */
const char *httpd_method(const struct httpd_request *rq);
const char *httpd_path(const struct httpd_request *rq);
const char *httpd_header(const struct httpd_request *rq, const char *name);
/* Decoded value of the first / the next query parameter NAME, NULL: absent. *cursor starts at 0. */
const char *httpd_query(const struct httpd_request *rq, const char *name);
const char *httpd_query_next(const struct httpd_request *rq, const char *name, size_t *cursor);
/* Visit all query parameters (to refuse unknown ones). */
void httpd_query_each(const struct httpd_request *rq,
                      bool (*visit)(void *arg, const char *name, const char *value), void *arg);
/* The raw query string after '?', "" when none. */
const char *httpd_query_string(const struct httpd_request *rq);
const char *httpd_body(const struct httpd_request *rq, size_t *ret_bytes); /* NUL follows the last byte */
bool httpd_is_unix(const struct httpd_request *rq);
/* User slot for the handler's own state; freed by FREE after the reply. */
void httpd_set_user(struct httpd_request *rq, void *user, void (*user_free)(void *user));
void *httpd_user(const struct httpd_request *rq);

/* Any thread, exactly once. Takes BODY's bytes (BODY is empty afterwards); headers are copied. */
void httpd_reply(struct httpd_request *rq, int status, const struct httpd_header *headers,
                 size_t headers_count, struct buf *body);

/* A reply in pieces of unknown length (bulk, export, events). Any one thread at a time. */
struct httpd_stream;
struct httpd_stream *httpd_stream_begin(struct httpd_request *rq, int status,
                                        const struct httpd_header *headers, size_t headers_count,
                                        size_t buffer_bytes_max);
/* Queue bytes; -ERR_BUSY: the buffer is full, nothing was taken, try again after ROOM ran; -ERR_CANCELLED:
 * client is gone. */
int httpd_stream_write(struct httpd_stream *s, const void *data, size_t bytes);
/* Called (on the server's thread) when the buffer has run half empty after a BUSY, or when the client went
 * away. */
void httpd_stream_on_room(struct httpd_stream *s, void (*room)(void *arg), void *arg);
/* No more will come; S is freed by the server. */
void httpd_stream_end(struct httpd_stream *s);

#endif
