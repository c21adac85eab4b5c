/* What the files of callback_grpc share; nobody else includes it. callback_grpc.c: the thread, what comes in and how it ends ·
 * callback_grpc_channel.c: connections · callback_grpc_call.c: one attempt, from its address to its result.
 *
 * A channel here is one connection: made for the first attempt that needs it, thrown away when it breaks or nobody used it for a
 * while. gRPC would reconnect by itself, but at times of its own, and would send what waits then, whatever the gate says. */
#ifndef CARILLON_CALLBACK_GRPC_PRIVATE_H
#define CARILLON_CALLBACK_GRPC_PRIVATE_H

#include <grpc/grpc.h>
#include <pthread.h>

#include "agent/base/buf.h"
#include "agent/base/list.h"
#include "agent/base/map.h"
#include "callback/callback.h"
#include "callback/headers.h"
#include "callback/resolve.h"
#include "callback/safety.h"

#define GRPC_NEVER_US UINT64_MAX

/* What the completion queue returns. */
struct grpc_tag {
    void (*run)(struct grpc_tag *tag, bool ok);
};

struct grpc_transport {
    struct callback_options options;
    char *user_agent;
    callback_done *done; /* gets what has ended */
    void *arg;
    struct inbox *ended;       /* attempts */
    struct resolver *resolver; /* loop thread */
    pthread_t thread;
    bool started; /* loop thread: there is a thread */

    pthread_mutex_t lock;
    struct list incoming; /* under lock */
    bool stopping;        /* under lock */
    /* Under lock; NULL: the thread is not asleep yet. An empty batch on it wakes the thread. */
    grpc_call *bell;
    bool rung; /* under lock: the bell's tag is on its way */
    struct grpc_tag bell_tag;

    /* the thread's */
    grpc_completion_queue *cq;
    struct map by_key;    /* of channels that new attempts may use */
    struct list channels; /* all */
    size_t calls;         /* started ones */
    size_t unsent;        /* of these */
    uint64_t expiry_us;   /* no sooner does anything that waits for a connection time out */
    uint64_t sweep_us;
    struct buf message; /* scratch */
};

/* One connection. */
struct grpc_line {
    struct list link;
    struct grpc_transport *t;
    grpc_channel *channel; /* NULL: destroyed, its last event is awaited */
    char *key;
    size_t key_bytes;
    bool listed; /* in by_key */
    bool ready;
    bool watched; /* its tag is with the queue */
    struct grpc_tag watch;
    struct list waiting; /* for the connection */
    struct list running;
    uint64_t since_us;
    uint64_t used_us;
    uint64_t heard_us; /* the last answer */
};

/* One attempt. */
struct grpc_rpc {
    struct resolve where; /* loop thread until it is resolved; then the thread's */
    struct list link;
    struct grpc_transport *t;
    struct callback_attempt *attempt;
    uint64_t taken_us;
    uint64_t deadline_us;
    uint64_t started_us; /* 0: not yet */
    size_t next_address;
    const struct sockaddr_storage *address;
    struct grpc_line *line;
    struct headers headers;
    struct safety_use use; /* as it was when the attempt began */
    bool ready;            /* the connection stood when it started */
    bool sent;
    bool send_over, reply_over;
    const char *cancelled; /* by us, and why */
    grpc_call *call;
    struct grpc_tag send_tag, reply_tag;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *reply;
    grpc_status_code code;
    grpc_slice details;
};

/* --- callback_grpc.c --- */
/* RPC's last act: the attempt, with its result, goes back to the loop. */
void grpc_rpc_end(struct grpc_rpc *rpc);

/* --- callback_grpc_channel.c --- */
/* The line to RPC's address: one that stands, one that is being made, or a new one. NULL: its credentials cannot be read. */
struct grpc_line *grpc_line_get(struct grpc_rpc *rpc, struct err *e);
/* RPC waits until LINE stands. */
void grpc_line_wait(struct grpc_line *line, struct grpc_rpc *rpc);
/* Nobody new uses LINE. Frees it, at once or when its last call and event have ended. */
void grpc_line_retire(struct grpc_line *line);
/* A call on LINE ended; the line may be freed. */
void grpc_line_settle(struct grpc_line *line);
/* What timed out while it waited for a connection; lines that nobody used for long. */
void grpc_lines_check(struct grpc_transport *t, uint64_t now_us);

/* --- callback_grpc_call.c --- */
/* Take an attempt that has its addresses on its way. */
void grpc_rpc_begin(struct grpc_rpc *rpc);
/* Try the next address, or fail with WHY. */
void grpc_rpc_connect(struct grpc_rpc *rpc, const char *why);
/* Its line stands (READY) or has just failed: then the call fails at once, and says why. */
void grpc_rpc_start(struct grpc_rpc *rpc, bool ready);
/* Started, but nothing of it has gone out. */
void grpc_rpc_cancel(struct grpc_rpc *rpc, const char *why);
void grpc_rpc_refuse(struct grpc_rpc *rpc, const char *why); /* ends as not started */
void grpc_rpc_fail(struct grpc_rpc *rpc, const char *why);   /* ends as failed, nothing was sent */

#endif
