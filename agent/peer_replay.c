#include "agent/peer_replay.h"

#include <pthread.h>

#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/peer_auth.h"

/* A message may be signed by a clock that is a window ahead, and is believed for a window after its time. */
#define KEEP_MS ((int64_t)2 * PEER_AUTH_WINDOW_MS)

struct peer_replay {
    pthread_mutex_t lock;
    struct map_u64 now, before; /* tag to anything */
    int64_t since_ms;           /* when NOW was begun */
};

static char seen;

struct peer_replay *peer_replay_new(void)
{
    struct peer_replay *r = mem_new(struct peer_replay);
    (void)pthread_mutex_init(&r->lock, NULL); /* cannot fail */
    /* Nobody without the secret can choose tags. */
    map_u64_init(&r->now, 0);
    map_u64_init(&r->before, 0);
    r->since_ms = INT64_MIN;
    return r;
}

void peer_replay_free(struct peer_replay *r)
{
    if (!r)
        return;
    map_u64_fini(&r->now);
    map_u64_fini(&r->before);
    (void)pthread_mutex_destroy(&r->lock); /* nobody holds it */
    mem_free(r);
}

static void forget_old(struct peer_replay *r, int64_t now_ms)
{
    bool over = r->since_ms == INT64_MIN || now_ms - r->since_ms >= KEEP_MS;
    if (!over && map_u64_count(&r->now) < PEER_REPLAY_MAX)
        return;
    map_u64_fini(&r->before);
    r->before = r->now;
    map_u64_init(&r->now, 0);
    r->since_ms = now_ms;
}

bool peer_replay_is_new(struct peer_replay *r, uint64_t tag, int64_t now_ms)
{
    (void)pthread_mutex_lock(&r->lock);
    forget_old(r, now_ms);
    bool known = map_u64_get(&r->now, tag) || map_u64_get(&r->before, tag);
    bool kept = !known && map_u64_put(&r->now, tag, &seen, NULL, NULL) == 0;
    (void)pthread_mutex_unlock(&r->lock);
    return kept;
}
