/* Messages of the ownership protocol between agents: small JSON documents, POSTed to the peer listener and signed with the
 * cluster's secret. A message may be lost or come late; the protocol counts on that. Loop thread only. */
#ifndef CARILLON_AGENT_PEERS_H
#define CARILLON_AGENT_PEERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct clock_guard;
struct err;
struct http_client;
struct peers;

struct peers_options {
    struct http_client *http;
    const struct clock_guard *clock;
    uint64_t seed;
    const char *member; /* own id: the signer; copied */
    const char *secret; /* NULL: unsigned; borrowed */
    size_t secret_bytes;
    bool tls; /* peers listen with TLS */
    const char *tls_ca, *tls_cert, *tls_key,
        *tls_server_name; /* borrowed; the last may be NULL: the address's */
};

struct peers *peers_new(const struct peers_options *options);
/* Answers that are still out come as ERR_CANCELLED before it returns; they may not send. */
void peers_free(struct peers *p);

/* DOC is the answer's object, NULL when E says why there is none. Never before return. */
typedef void peers_done(void *arg, const struct err *e, const json_t *doc);

/* POST BODY (stolen; NULL: out of memory, which DONE tells) to /peer/v1/<PATH> at ADDRESS. DONE NULL: nobody asks. */
void peers_send(struct peers *p, const char *address, const char *path, json_t *body, int64_t timeout_ms,
                peers_done *done, void *arg);

/* Slots as a JSON array, and back into RET, which has room for SLOTS_TOTAL: the count, or -1 when LIST is not an array of numbers
 * under SLOTS_TOTAL in ascending order, which is how they are sent. */
json_t *peers_slots_document(const uint16_t *slots, size_t count);
long peers_slots_read(const json_t *list, uint32_t slots_total, uint16_t *ret);

#endif
