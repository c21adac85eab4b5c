/* gRPC in: a server of unary calls, whatever their method, over the C core. For callees that carillon itself provides (`carillon sink`)
 * and for tests; an agent has none. Calls are read on the server's own thread; the handler runs there too and replies at once or
 * later, from any thread. */
#ifndef CARILLON_IO_GRPCD_H
#define CARILLON_IO_GRPCD_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct grpcd;
struct grpcd_call;

struct grpcd_options {
    const char *listen; /* "127.0.0.1:0"; copied */
    const char *tls_cert, *tls_key,
        *tls_client_ca; /* PEM texts, copied; NULL: plain. With a CA others are refused */
    /* Must lead to exactly one grpcd_reply(), now or later. */
    void (*handle)(struct grpcd_call *call, void *arg);
    void *arg;
};

/* ERR_INVALID: an address or certificate that cannot be used; ERR_UNAVAILABLE: the address cannot be listened on; ERR_IO. */
int grpcd_start(const struct grpcd_options *options, struct grpcd **ret, struct err *e);
/* With the port that the kernel gave. */
const char *grpcd_address(const struct grpcd *g);
uint16_t grpcd_port(const struct grpcd *g);
/* Breaks off what is open and closes. Late replies to such calls are allowed and do nothing. Not from the server's thread; G is gone
 * afterwards. NULL does nothing. */
void grpcd_stop(struct grpcd *g);

/* A call is its handler's until the reply, also while the client or even the server has gone. One thread at a time. */
const char *grpcd_method(const struct grpcd_call *c); /* "/package.Service/Method" */
const char *grpcd_authority(const struct grpcd_call *c);
const char *grpcd_peer(const struct grpcd_call *c); /* "ipv4:127.0.0.1:4711" */
/* The first metadata called NAME (lower case), NULL: none. */
const char *grpcd_metadata(const struct grpcd_call *c, const char *name);
const void *grpcd_message(const struct grpcd_call *c, size_t *ret_bytes);
/* Any thread; the call is gone afterwards. CODE 0 answers with MESSAGE, others with DETAILS (NULL: none). */
void grpcd_reply(struct grpcd_call *c, int code, const char *details, const void *message, size_t bytes);

#endif
