/* Addresses of host names, looked up on threads of their own with the system's resolver, so that nobody waits for a name server but
 * those who asked for that name. Answers are kept for RESOLVE_KEEP_MS; questions for one name share a lookup. Loop thread only. */
#ifndef CARILLON_CALLBACK_RESOLVE_H
#define CARILLON_CALLBACK_RESOLVE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "agent/base/list.h"

struct loop;
struct resolver;

#define RESOLVE_KEEP_MS       60000
#define RESOLVE_ADDRESSES_MAX 4
#define RESOLVE_LOOKUPS_MAX   16 /* at once; further names wait */
#define RESOLVE_NAMES_MAX     4096
#define RESOLVE_HOST_SIZE     256

/* The caller's; the resolver's from resolver_ask() until DONE. */
struct resolve {
    struct list link;
    char host[RESOLVE_HOST_SIZE]; /* name, IPv4 or IPv6 without brackets */
    uint16_t port;
    int64_t until_ms; /* the loop's clock: how long to wait for an answer */
    void (*done)(struct resolve *q);
    /* the answer: addresses with PORT, in the order to try them; none: why */
    struct sockaddr_storage addresses[RESOLVE_ADDRESSES_MAX];
    size_t count;
    char error[120];
};

/* SEED: random per process. Makes no thread yet. */
struct resolver *resolver_new(struct loop *loop, uint64_t seed);
/* Answers what is open with none ("stopped"). Lookups under way end by themselves, nobody waits for them. NULL does nothing. */
void resolver_free(struct resolver *r);
/* DONE exactly once, before return when the answer is known (an address, a name asked for before). */
void resolver_ask(struct resolver *r, struct resolve *q);

#endif
