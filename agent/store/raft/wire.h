/* A connection between two members of the log's cluster: frames over TCP, or TLS over TCP (wire_tls.h). A frame is a short
 * head and a body that may be large (a snapshot); bodies go out piece by piece, as the socket takes them, and are not copied.
 * Everything on the thread of the uv loop. */
#ifndef CARILLON_STORE_RAFT_WIRE_H
#define CARILLON_STORE_RAFT_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/base/buf.h"
#include "agent/store/raft/codec.h"
#include "agent/store/raft/wire_tls.h"

#define WIRE_HEAD_MAX ((size_t)1 << 16)
#define WIRE_BODY_MAX \
    ((size_t)64 << 30) /* a snapshot is one: no cluster may outgrow what its voters can be sent */

struct wire;

struct wire_events {
    /* To who dialled: both sides have shown what the handshake asks for. Who accepted hears it by the first frame. */
    void (*up)(void *arg, struct wire *w);
    /* BODY is the callee's, for free(); NULL when BYTES is 0. False: the other side broke the protocol, W goes down. */
    bool (*frame)(void *arg, struct wire *w, struct codec_in *head, void *body, size_t bytes);
    /* The last W's owner hears of it: W is being freed. Never from within a call of the owner's. */
    void (*down)(void *arg, struct wire *w, const struct err *why);
};

/* Connect to ADDRESS ("host:port"; a name is looked up off the loop, and of its addresses the ATTEMPT-th is taken, all in turn).
 * What fails, DOWN tells later. TLS NULL: none. NULL: no memory for TLS. */
struct wire *wire_dial(uv_loop_t *loop, const char *address, unsigned attempt, struct wire_tls *tls,
                       const struct wire_events *events, void *arg);
/* Take the connection that waits at SERVER. NULL: there is none any more, or no descriptor or memory is left. */
struct wire *wire_accept(uv_loop_t *loop, uv_stream_t *server, struct wire_tls *tls,
                         const struct wire_events *events, void *arg);
/* Nothing of W is told any more; it frees itself. */
void wire_close(struct wire *w);

/* Queue a frame; it leaves with wire_flush(). HEAD is taken over and empty afterwards. BODY stays the caller's until SENT, which
 * runs once, also when W goes down, never before return; SENT NULL: BODY is freed then. */
void wire_send(struct wire *w, struct buf *head, void *body, size_t bytes, void (*sent)(void *arg),
               void *arg);
void wire_flush(struct wire *w);

bool wire_is_up(const struct wire *w);
bool wire_accepted(const struct wire *w);
/* Boot ms: made; last heard; last sent to. */
uint64_t wire_made_ms(const struct wire *w);
uint64_t wire_heard_ms(const struct wire *w);
uint64_t wire_spoke_ms(const struct wire *w);
/* Of the handshake, once W is up. ERR_NOMEM. */
int wire_proof(const struct wire *w, bool accepts, uint8_t ret[WIRE_PROOF_BYTES], struct err *e);

#endif
