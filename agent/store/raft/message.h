/* libraft's messages as bytes: a head, and a body for what is large. In a body of entries the sizes and terms come first, then
 * the data, so that it is the batch that libraft wants to have. Pure but for memory; any thread. */
#ifndef CARILLON_STORE_RAFT_MESSAGE_H
#define CARILLON_STORE_RAFT_MESSAGE_H

#include <raft.h>

#include "agent/base/buf.h"
#include "agent/store/raft/codec.h"

/* Append M to HEAD. *RET_BODY is M's own (a snapshot: *RET_BORROWED) or for free(); NULL with 0 bytes: none. ERR_NOMEM. */
int message_encode(const struct raft_message *m, struct buf *head, void **ret_body, size_t *ret_bytes,
                   bool *ret_borrowed, struct err *e);

/* Read what message_encode() made. BODY (malloc's, or NULL) is taken over, also on failure. server_id and server_address are left
 * to the caller. ERR_PROTOCOL, ERR_NOMEM. */
int message_decode(struct codec_in *head, void *body, size_t bytes, struct raft_message *ret, struct err *e);
/* Of an append: *RET gets the first COUNT entries (0 < COUNT < all) and what they need, M keeps the rest. ERR_NOMEM: M is as it was. */
int message_split(struct raft_message *m, unsigned count, struct raft_message *ret, struct err *e);
/* What nobody will give to libraft. */
void message_drop(struct raft_message *m);

#endif
