/* Signatures of the requests between agents: HMAC-SHA256 with the cluster's secret over method, target, context and the
 * digest of the body, the time, a random number and who sends. One header, Carillon-Peer, carries it. It keeps everyone out
 * who does not know the secret, and limits a replay to the window; within it peer_replay knows what was seen, and the context
 * names the agent that it is for. It does not encrypt: that is TLS's. Any thread. */
#ifndef CARILLON_AGENT_PEER_AUTH_H
#define CARILLON_AGENT_PEER_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/core/record.h"

#define PEER_AUTH_HEADER    "Carillon-Peer"
#define PEER_CONTEXT_HEADER "Carillon-Context"
#define PEER_AUTH_WINDOW_MS 30000
#define PEER_AUTH_SIZE      320 /* of the header's value, with NUL */

struct peer_auth_secret {
    const void *data;
    size_t bytes;
};

/* Borrowed. CONTEXT: value of the header Carillon-Context, "" when there is none. */
struct peer_auth_message {
    const char *method;
    const char *target; /* path with query, as sent */
    const char *context;
    const void *body;
    size_t body_bytes;
};

/* Value of Carillon-Peer. MEMBER: who sends, "" for a client; NONCE: any random number. ERR_INVALID (a member id that no
 * header may carry), ERR_NOMEM. */
int peer_auth_sign(const struct peer_auth_secret *secret, const struct peer_auth_message *msg,
                   const char *member, int64_t now_ms, uint64_t nonce, char ret[PEER_AUTH_SIZE],
                   struct err *e);

/* What a good header tells. */
struct peer_auth {
    char member[RECORD_MEMBER_MAX]; /* "" a client */
    uint8_t body_digest[32];
    uint64_t tag; /* no other message has it: of the code */
};

/* Check VALUE (NULL: the header is absent) for all of MSG but its body, before the body is there. ERR_AUTH: absent, broken,
 * another secret, or out of the window; the text says which. ERR_NOMEM. */
int peer_auth_verify(const struct peer_auth_secret *secret, const char *value,
                     const struct peer_auth_message *msg, int64_t now_ms, struct peer_auth *ret,
                     struct err *e);
/* Then the body. ERR_AUTH, ERR_NOMEM. */
int peer_auth_verify_body(const struct peer_auth *auth, const void *body, size_t bytes, struct err *e);

#endif
