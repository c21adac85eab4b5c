/* An HTTP/1 reply to a callback, read piece by piece as it comes from a connection: what of it counts for an attempt, and whether the
 * connection may be used again. No I/O; one thread at a time. */
#ifndef CARILLON_CALLBACK_REPLY_H
#define CARILLON_CALLBACK_REPLY_H

#include <http_parser.h>

#include "callback/callback.h"

enum reply_state {
    REPLY_MORE,   /* is to come */
    REPLY_WHOLE,  /* it is all there */
    REPLY_ENOUGH, /* the status is known, and the body is over its limit */
    REPLY_BAD,    /* reply_problem() */
    REPLY_STATE_COUNT_
};

struct reply {
    http_parser parser;
    enum reply_state state;
    bool to_head;   /* of a HEAD: there is no body, whatever the head says */
    bool any;       /* bytes came */
    bool in_value;  /* of a header, not in its name */
    bool left_over; /* bytes came behind it */
    size_t header_bytes, body_bytes, excerpt_bytes;
    char *text; /* where the value that is being read goes; NULL: nowhere */
    char name[32], retry_after[64], control[16];
    char excerpt[CALLBACK_EXCERPT_MAX];
};

/* Of a request that was a HEAD or not. */
void reply_begin(struct reply *r, bool to_head);
/* BYTES 0: the connection has ended. Not to be called after anything but REPLY_MORE. */
enum reply_state reply_feed(struct reply *r, const char *data, size_t bytes);
/* After REPLY_WHOLE or REPLY_ENOUGH. */
int reply_status(const struct reply *r);
/* Both forms of Retry-After, the date by NOW_S (Unix seconds); -1: none that is in the future. At most RETRY_AFTER_MAX_MS. */
int64_t reply_retry_after_ms(const struct reply *r, int64_t now_s);
/* What the header Carillon-Job asks for. */
enum attempt_control reply_control(const struct reply *r);
/* After REPLY_WHOLE: another request may follow on the connection. */
bool reply_keeps(const struct reply *r);
/* After REPLY_BAD: for people. */
const char *reply_problem(const struct reply *r);

#endif
