/* One attempt on its way to a callee: what the dispatcher (loop thread) hands to a transport's lanes (threads of their own) and
 * gets back. A transport answers what happened; how often and when to try again is the planner's. */
#ifndef CARILLON_CALLBACK_CALLBACK_H
#define CARILLON_CALLBACK_CALLBACK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/base/list.h"
#include "agent/core/planner.h"
#include "agent/io/loop.h"

struct capability;
struct trace_rule;
struct err;
struct safety;

#define CALLBACK_ENDPOINT_MAX      300
#define CALLBACK_REPLY_HEADERS_MAX (64 * 1024)
#define CALLBACK_REPLY_BODY_MAX    (1024 * 1024)
#define CALLBACK_EXCERPT_MAX       512
#define CALLBACK_CONNECT_MS        5000

/* What a lane looks at just before a request goes out, and for the time; written by the loop thread. */
struct callback_gate {
    _Atomic int64_t lease_until_ms; /* CLOCK_BOOTTIME; nothing starts at or after it */
    _Atomic bool closed;            /* the clock is unsure, or the process is ending */
    _Atomic int64_t wall_offset_us; /* corrected wall clock - CLOCK_BOOTTIME */
};

enum callback_state {
    CALLBACK_QUEUED,  /* no byte has gone out */
    CALLBACK_STARTED, /* the callee may see it */
    CALLBACK_REVOKED, /* will not start */
};

/* How the endpoints of one service are spoken to over TLS; what is NULL is as with a direct target. Files are PEM and are read at
 * each new connection, so a certificate that was renewed is used without a reload. Constant but for `users`. */
struct callback_tls {
    char *ca; /* the callee's certificate must be of one of these authorities; NULL: of the system's */
    char *cert, *key;  /* for callees that ask for a certificate; NULL: none, go together */
    char *server_name; /* that the certificate must have, and SNI; NULL: the service's name */
    unsigned users;    /* loop thread */
};
/* Texts are copied. All NULL: NULL, which means the same. */
struct callback_tls *callback_tls_new(const char *ca, const char *cert, const char *key,
                                      const char *server_name);
/* NULL does nothing. Loop thread. */
struct callback_tls *callback_tls_ref(struct callback_tls *tls);
void callback_tls_unref(struct callback_tls *tls);

/* Owned by the dispatcher; lent to one lane from callback_ops.deliver until done. While lent the lane alone writes `result`. */
struct callback_attempt {
    struct list link;                     /* the dispatcher's, then the lane's */
    struct delivery *delivery;            /* its constant fields may be read by the lane */
    char endpoint[CALLBACK_ENDPOINT_MAX]; /* "host:port" chosen among a service's; "" for a direct target */
    unsigned part, parts; /* `callback.to` other than one: from 1, of how many; 0: the whole fire */
    const char *source;   /* "/carillon/<cluster>" for ce-source; lives as long as the transport */
    const struct capability *capability; /* the transport's */
    const struct trace_rule *trace_rule; /* the same */
    const struct callback_tls *tls;      /* of the service; NULL: as with a direct target */
    _Atomic int state;                   /* enum callback_state */
    uint64_t connect_us;                 /* from the lane's taking it to the first byte of the request */
    uint64_t latency_us;                 /* from the lane's taking it to its end */
    struct attempt result;
    void *lane;             /* the transport's, as are these */
    void *transfer;         /* the lane thread's */
    struct list abort_link; /* under the lane's lock */
    bool ended;             /* under the lane's lock: it is on its way back */
};

/* On the loop thread, for each finished attempt, in batches. */
typedef void callback_done(void *arg, struct callback_attempt *attempt);

struct callback_options {
    struct loop *loop;
    const struct callback_gate *gate;
    unsigned threads;
    unsigned connections_max; /* kept over all lanes */
    const char *user_agent;   /* "carillon/0.1.0" */
    struct safety *safety;    /* NULL: no keys, no secrets, every address; lives longer than the transport */
    /* What asynchronous callees get to answer with; lives as long; NULL: none */
    const struct capability *capability;
    /* NULL: only jobs that a trace asked for have traces; lives as long */
    const struct trace_rule *trace_rule;
};

struct callback_ops {
    const char *name; /* "http" */
    int (*open)(const struct callback_options *options, callback_done *done, void *arg, void **ret_self,
                struct err *e);
    /* Loop thread; cannot fail: what goes wrong is a result. LANE_HASH keeps an endpoint on one lane, so that its kept
     * connections are found again, as long as that lane is not busy. */
    void (*deliver)(void *self, struct callback_attempt *attempt, uint64_t lane_hash);
    /* Loop thread. Close the connection of one that was delivered and has not come back: it ends soon, as RETRY, or as it ended
     * just before. NULL: it runs to its end. */
    void (*abort)(void *self, struct callback_attempt *attempt);
    /* Loop thread. Ends what is under way as RETRY (NOT_STARTED if no byte went out), runs the callbacks, frees. */
    void (*close)(void *self);
};

extern const struct callback_ops callback_http;
extern const struct callback_ops callback_grpc;

/* Try to take a queued attempt back. True: it will end as NOT_STARTED. False: its request has gone out. Any thread. */
static inline bool callback_revoke(struct callback_attempt *a)
{
    int expected = CALLBACK_QUEUED;
    return atomic_compare_exchange_strong(&a->state, &expected, CALLBACK_REVOKED) ||
           expected == CALLBACK_REVOKED;
}

/* A lane, just before the first byte: whether the request may go out now (lease, gate, due by the clock as it is now, not revoked).
 * Sets STARTED. */
bool callback_may_start(struct callback_attempt *a, const struct callback_gate *gate);

/* Whether an attempt that failed before its request could go out was made, in the sense of callback_revoke(): unless it was taken
 * back meanwhile. Sets STARTED. */
bool callback_claim(struct callback_attempt *a);

/* Corrected wall clock. Any thread. */
int64_t callback_now_ms(const struct callback_gate *gate);

/* What a callee tells repeats by: the fire's id, with "/<part>" behind it when the fire goes to many endpoints. */
#define CALLBACK_KEY_SIZE 68
void callback_key(const struct callback_attempt *a, char ret[CALLBACK_KEY_SIZE]);

/* OK, GIVE_UP or RETRY by the job's lists of codes; OPEN for a 202 of an asynchronous callee, whatever they say. */
enum attempt_result callback_judge(const struct job_callback *cb, int status);

/* --- writing a result ---------------------------------------------------------------------------------------------- */

/* TEXT into OUT, cut at its end when too long, for people and for JSON: ASCII without control characters. */
void callback_copy_text(char *out, size_t size, const char *text);
void callback_set_error(struct attempt *r, const char *text);
/* What is kept of a reply is shown to people: valid UTF-8 without control characters. At most CALLBACK_EXCERPT_MAX BYTES. */
void callback_set_excerpt(struct attempt *r, const char *data, size_t bytes);
/* A's whole result: ended without a byte on the wire. */
void callback_set_unsent(struct callback_attempt *a, const struct callback_gate *gate,
                         enum attempt_result result, const char *why);

#endif
