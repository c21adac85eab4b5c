/* The connections of the log's cluster: each voter dials every other, whoever uses the store dials all voters. libraft's messages go
 * along them, and calls with their answers. Who is at the other end is greeted before anything else: the cluster's name, the
 * voter's number and, where certificates are not all, the proof of the secret. A connection on which nothing is
 * heard for MESH_SILENCE_MS is given up and dialled again. A snapshot goes by a connection of its own, so that no heartbeat
 * waits behind it, however slow the link. Everything on the thread of the uv loop. */
#ifndef CARILLON_STORE_RAFT_MESH_H
#define CARILLON_STORE_RAFT_MESH_H

#include <raft.h>
#include <uv.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/store/raft/wire_tls.h"
#include "agent/store/store.h"

#define MESH_NODES_MAX  16
#define MESH_SILENCE_MS 3000

struct mesh;

struct mesh_node {
    uint64_t id; /* never 0 */
    char address[STORE_ADDRESS_MAX];
};

/* Somebody's call; to be answered once, with mesh_answer(). */
struct mesh_request {
    uint64_t peer, call; /* where the answer goes */
    unsigned kind;       /* the caller's */
    void *body;          /* malloc's; whoever is told of it frees it */
    size_t bytes;
};

/* E->code ERR_OK: CODE is what was answered, with BODY (malloc's, the callee's) or NULL. ERR_UNKNOWN_OUTCOME: the connection was lost. */
typedef void mesh_answered(void *arg, const struct err *e, enum err_code code, void *body, size_t bytes);

struct mesh_options {
    uv_loop_t *loop;
    const char *cluster;
    struct wire_tls *tls; /* NULL: nothing is proved; borrowed */
    void (*message)(
        void *arg,
        struct raft_message *m); /* from a voter; taken over. server_address is valid in the call */
    void (*request)(void *arg, const struct mesh_request *request); /* BODY is taken over */
    void *arg;
};

struct mesh *mesh_new(const struct mesh_options *options);
/* Take over the listening socket FD. ERR_IO. */
int mesh_listen(struct mesh *m, int fd, struct err *e);
/* The voters; SELF (0: none) is not dialled. An address that changed is dialled anew. */
void mesh_set_nodes(struct mesh *m, const struct mesh_node *nodes, size_t count, uint64_t self);
/* Close every connection; calls are answered with ERR_CANCELLED in this call, the rest is over when the loop has run out. */
void mesh_close(struct mesh *m);
/* After mesh_close(), once the loop has run out. */
void mesh_free(struct mesh *m);

/* Now and then, and whatever was queued at the end of a turn. */
void mesh_tick(struct mesh *m);
void mesh_flush(struct mesh *m);

/* As raft_io's send: CB runs once; in this call when nothing of the message is needed any more. */
int mesh_send(struct mesh *m, struct raft_io_send *req, const struct raft_message *message,
              raft_io_send_cb cb);
/* Messages that still point into libraft. */
size_t mesh_sending(const struct mesh *m);
/* Whether a snapshot is on its way to voter ID, or was sent so little ago that the voter may not have read all of it. */
bool mesh_is_loading(const struct mesh *m, uint64_t id);
/* It has it. */
void mesh_loaded(struct mesh *m, uint64_t id);

/* Ask voter ID; PAYLOAD is taken over and empty afterwards. 0: there is no connection to it. Else DONE runs once, never before
 * return, unless mesh_forget() came first. */
uint64_t mesh_call(struct mesh *m, uint64_t id, unsigned kind, struct buf *payload, mesh_answered *done,
                   void *arg);
void mesh_forget(struct mesh *m, uint64_t call);
/* PAYLOAD is taken over. Whoever asked may be gone. */
void mesh_answer(struct mesh *m, uint64_t peer, uint64_t call, enum err_code code, struct buf *payload);

bool mesh_reaches(const struct mesh *m, uint64_t id);
/* Boot ms since when voter ID cannot be reached; 0: it can, or is not known. */
uint64_t mesh_lost_ms(const struct mesh *m, uint64_t id);
/* A voter that can be reached, the next one after ID in the order of the list; 0: none. */
uint64_t mesh_next(const struct mesh *m, uint64_t id);

#endif
