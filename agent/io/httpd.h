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

/* Copied by httpd_start(). */
struct httpd_options {
    const char *listen;                             /* "127.0.0.1:7420", "[::1]:0", "unix:/path" */
    unsigned socket_mode;                           /* of a unix socket */
    const char *tls_cert, *tls_key, *tls_client_ca; /* files; NULL: plain. With a CA others get 403 */
    const char *tls_client_name; /* that must stand in a client's certificate; NULL: any. Needs a CA */
    /* For one more that whose client has been silent longest is closed; if none has been for a second, the new one gets 503 and is
     * closed (with TLS: is closed). */
    unsigned connections_max;
    /* For a connection without a request, for the whole head of a request, for its body (plus a second for
     * every 16 KiB that came), for a client that takes nothing of a reply. 0: none. */
    unsigned idle_timeout_ms;
    size_t header_bytes_max; /* a larger head gets 431 or 414; at least 1024 */
    /* On the server's thread when the headers are in: decide the body limit, or refuse now by calling
     * httpd_reply() and returning a negative number. What was sent of the body is then dropped; the
     * connection closes if that is much. */
    int64_t (*accept)(struct httpd_request *rq, void *arg);
    /* On the server's thread when the body is in. Must lead to exactly one httpd_reply() or
     * httpd_stream_begin(), now or later. */
    void (*handle)(struct httpd_request *rq, void *arg);
    /* Body over the limit (there is none now): must call httpd_reply() before it returns. */
    void (*too_large)(struct httpd_request *rq, void *arg);
    /* On the server's thread, after those of the requests that had come by then were handled: what handle() put
     * aside can go on together. NULL: none. */
    void (*turned)(void *arg);
    void *arg;
};

/* ERR_INVALID: an address or certificate that cannot be used; ERR_EXISTS: in use; ERR_NOT_FOUND: no such
 * file; ERR_UNAVAILABLE, ERR_IO. */
int httpd_start(const struct httpd_options *options, struct httpd **ret, struct err *e);
/* Any thread; blocks on files. Read the TLS files of the options again: connections that come from now on get what is in them, those
 * that are there keep what they have. Without TLS it does nothing. Errors as httpd_start(); what was in force stays so. */
int httpd_reload_tls(struct httpd *h, struct err *e);
/* The same if the files have changed since they were looked at last; *RET_CHANGED tells. What is no certificate is looked at again
 * when the files change again, after another failure they are at the next call. One thread at a time. */
int httpd_look_tls(struct httpd *h, bool *ret_changed, struct err *e);
/* The address it listens on, with the port the kernel gave; port 0 for a unix socket. */
const char *httpd_address(const struct httpd *h);
unsigned httpd_port(const struct httpd *h);
/* Any thread. Soon stop accepting connections (those in the kernel's queue are taken first); the others go
 * on. */
void httpd_quiesce(struct httpd *h);
/* Answers what is still open with 503, breaks streams off, closes. Late replies to such requests are allowed
 * and do nothing. Not from the server's thread; H is gone afterwards. */
void httpd_stop(struct httpd *h);
/* Any thread. */
unsigned httpd_connections(const struct httpd *h);

/* A request is its handler's until the reply, also while the client or even the server has gone. One thread
 * at a time. Path is as sent (not decoded), without the query; it and header values may hold bytes that are
 * not UTF-8, but no NUL, and the path no space. There may be no Host, whatever the version of HTTP. Lookups of header names ignore case and give the first; NULL: absent. */
const char *httpd_method(const struct httpd_request *rq);
const char *httpd_path(const struct httpd_request *rq);
const char *httpd_header(const struct httpd_request *rq, const char *name);
/* The next header NAME, for those that may be there several times. *cursor starts at 0. */
const char *httpd_header_next(const struct httpd_request *rq, const char *name, size_t *cursor);
/* Decoded value of the first / the next query parameter NAME, NULL: absent. *cursor starts at 0. A value
 * without '=' is ""; a name or value with a broken escape or %00 stays undecoded. */
const char *httpd_query(const struct httpd_request *rq, const char *name);
const char *httpd_query_next(const struct httpd_request *rq, const char *name, size_t *cursor);
/* Visit all query parameters (to refuse unknown ones), until VISIT returns false. */
void httpd_query_each(const struct httpd_request *rq,
                      bool (*visit)(void *arg, const char *name, const char *value), void *arg);
/* The raw query string after '?', "" when none. */
const char *httpd_query_string(const struct httpd_request *rq);
/* Empty in accept and too_large. */
const char *httpd_body(const struct httpd_request *rq, size_t *ret_bytes); /* NUL follows the last byte */
bool httpd_is_unix(const struct httpd_request *rq);
/* Who is at the other end. */
struct httpd_peer {
    char text[64];   /* "10.0.0.7:5312", "[::1]:5312", "unix:pid=12,uid=1000"; "" when it has gone */
    size_t host_len; /* of the address without its port; 0: a unix socket */
    bool has_uid;    /* a unix socket's process, as the kernel tells */
    uint32_t uid;
};
/* Server's thread, so from accept(). */
void httpd_peer(const struct httpd_request *rq, struct httpd_peer *ret);
/* User slot for the handler's own state; freed by FREE after the reply, on any thread. */
void httpd_set_user(struct httpd_request *rq, void *user, void (*user_free)(void *user));
void *httpd_user(const struct httpd_request *rq);

/* Any thread, exactly once. Takes BODY's bytes (BODY is empty afterwards; NULL: none; a failed buffer becomes
 * a 503 with a problem, without the headers); headers are copied, one that HTTP forbids (CR, LF) is left out and logged. */
void httpd_reply(struct httpd_request *rq, int status, const struct httpd_header *headers,
                 size_t headers_count, struct buf *body);

/* A reply in pieces of unknown length (bulk, export, events). Any one thread at a time. */
struct httpd_stream;
/* In place of httpd_reply(). The stream is the caller's until httpd_stream_end(). */
struct httpd_stream *httpd_stream_begin(struct httpd_request *rq, int status,
                                        const struct httpd_header *headers, size_t headers_count,
                                        size_t buffer_bytes_max);
/* Queue bytes (at most buffer_bytes_max at once); -ERR_BUSY: the buffer is full, nothing was taken, try again
 * after ROOM ran; -ERR_CANCELLED: client is gone. That it is gone shows in a write, when the kernel has
 * reported it. */
int httpd_stream_write(struct httpd_stream *s, const void *data, size_t bytes);
/* Called (on the server's thread) when the buffer has run half empty after a BUSY, or when the client went
 * away. Set it before the first write, which tells of a client that went even earlier. ROOM may write and end;
 * it may not wait for a thread that does. It does not run any more once httpd_stream_end() has returned. */
void httpd_stream_on_room(struct httpd_stream *s, void (*room)(void *arg), void *arg);
/* No more will come; S is freed by the server once the queued bytes are sent. */
void httpd_stream_end(struct httpd_stream *s);
/* In place of httpd_stream_end(): what is queued is dropped and the connection closed, so that the client sees that the reply is not
 * whole. */
void httpd_stream_break(struct httpd_stream *s);

#endif
