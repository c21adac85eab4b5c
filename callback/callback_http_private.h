/* What the two ways of a lane share: whole requests by libcurl (callback_http.c: TLS, direct targets), and requests that are written
 * and read here on connections that libcurl made (callback_http_plain.c: endpoints of services without TLS). */
#ifndef CARILLON_CALLBACK_CALLBACK_HTTP_PRIVATE_H
#define CARILLON_CALLBACK_CALLBACK_HTTP_PRIVATE_H

#include <curl/curl.h>

#include "callback/callback.h"

/* Kept connections are thrown away after this idle time. Many servers close idle ones after 5 s (Node, uvicorn); a request that
 * crosses their close on the wire fails, and counts as an attempt, for the callee may have seen it. */
#define HTTP_KEPT_IDLE_S 4L

struct http_work;
struct http_work_ops {
    void (*done)(struct http_work *w, CURLcode code); /* its easy handle is through */
    void (*abort)(struct http_work *w);               /* the fire is over: close its connection */
};
/* First member of what CURLOPT_PRIVATE and callback_attempt.transfer point to. */
struct http_work {
    const struct http_work_ops *ops;
};

/* A result is complete: hand A back. */
typedef void http_finish(void *arg, struct callback_attempt *a);

struct plain;
struct plain_options {
    const struct callback_options *callback; /* lives as long, as does the rest */
    const char *user_agent;
    CURLM *multi; /* makes the connections */
    http_finish *finish;
    /* Called with true before, and with false after, finish() may be called several times without a wait between. */
    void (*several)(void *arg, bool begins);
    void *arg;
};

/* ERR_IO. */
int plain_new(const struct plain_options *options, struct plain **ret, struct err *e);
void plain_free(struct plain *p); /* nothing is under way; NULL does nothing */
/* Readable when plain_turn() has something to do, or after plain_wake(). */
int plain_fd(const struct plain *p);
void plain_wake(struct plain *p); /* any thread */
/* Whether A is one for this way. */
bool plain_takes(const struct callback_attempt *a);
void plain_start(struct plain *p, struct callback_attempt *a);
bool plain_connecting(const struct plain *p); /* libcurl has something to do for it */
/* Wait up to WAIT_MS (-1: for ever) for sockets, then work on what they have and on what has taken too long. */
void plain_turn(struct plain *p, int wait_ms);
/* How long plain_turn() may wait, at most; -1: for ever. */
int plain_wait_ms(const struct plain *p);
/* The agent is stopping: all that runs ends. */
void plain_stop(struct plain *p);

#endif
