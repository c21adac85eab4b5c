/* One blocking query, repeated: tells when a path's answer has changed. Keeps to Consul's rules for the index (back to 0 when it
 * goes backwards, 1 in place of 0), to a client time-out above the server's wait, compares contents because a return is no proof
 * of change, and limits its own rate. While Consul errs the last good answer stays with its owner: only good answers are told.
 * Source: Consul, "Blocking Queries". Loop thread only. */
#ifndef CARILLON_CONSUL_WATCH_H
#define CARILLON_CONSUL_WATCH_H

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "consul/consul_client.h"

struct consul_watch;

struct consul_watch_options {
    const char *path;  /* with its query; copied */
    size_t reply_max;  /* 0: 1 MiB */
    bool empty_is_404; /* KV: a 404 with an index means an empty prefix */
    bool poll;         /* short polls in place of blocking ones: Consul limits connections a client */
    uint64_t seed;     /* of the back-off's jitter */
};

/* A good answer that differs from the one before; the first always. BODY ends with NUL, "" for an empty prefix. */
typedef void consul_watch_changed(void *arg, const char *body, size_t bytes);

/* The first read is consistent (an old follower must not begin our view), later ones are stale: they go on without a leader. */
struct consul_watch *consul_watch_new(struct consul_client *c, const struct consul_watch_options *options,
                                      consul_watch_changed *changed, void *arg);
void consul_watch_free(struct consul_watch *w);
DEFINE_AUTO(consul_watch_free, struct consul_watch *);
/* Ask again now, not when the back-off ends. */
void consul_watch_hurry(struct consul_watch *w);
/* Whether the last query was answered well. */
bool consul_watch_ok(const struct consul_watch *w);

/* The index rule alone, for tests: what to send after NOW came back on a query sent with BEFORE. */
uint64_t consul_watch_next_index(uint64_t before, uint64_t now);

#endif
