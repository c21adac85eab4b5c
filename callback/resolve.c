#define _GNU_SOURCE
#include "callback/resolve.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"

struct name;

/* What the thread of a lookup works on. It and the loop share it: whoever is last frees it. */
struct lookup {
    struct loop_msg msg;
    pthread_mutex_t lock;
    struct loop *loop; /* under lock; NULL: nobody waits any more */
    struct name *name; /* loop thread */
    char host[RESOLVE_HOST_SIZE];
    struct sockaddr_storage addresses[RESOLVE_ADDRESSES_MAX];
    size_t count;
    char error[120];
};

struct name {
    struct list link; /* in queue, while it waits for a thread */
    struct resolver *resolver;
    char host[RESOLVE_HOST_SIZE];
    struct lookup *lookup; /* under way; NULL: none */
    struct list asking;    /* of struct resolve */
    struct sockaddr_storage addresses[RESOLVE_ADDRESSES_MAX];
    size_t count;
    int64_t until_ms; /* the addresses are good */
};

struct resolver {
    struct loop *loop;
    struct map names;
    struct list queue;
    unsigned lookups;
    struct loop_timer *timer; /* armed for the first question that runs out of time */
    int64_t timer_ms;
};

/* --- addresses ----------------------------------------------------------------------------------------------------- */

static void set_port(struct sockaddr_storage *a, uint16_t port)
{
    if (a->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)a)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)a)->sin_port = htons(port);
}

static bool read_literal(const char *host, struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    memset(ret, 0, sizeof(*ret));
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1)
        ret->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1)
        ret->ss_family = AF_INET6;
    return ret->ss_family != 0;
}

static void answer(struct resolve *q, const struct sockaddr_storage *addresses, size_t count,
                   const char *error)
{
    q->count = count;
    for (size_t i = 0; i < count; i++) {
        q->addresses[i] = addresses[i];
        set_port(&q->addresses[i], q->port);
    }
    (void)snprintf(q->error, sizeof(q->error), "%s", error); /* for people; may be cut */
    q->done(q);
}

/* --- the thread of a lookup ---------------------------------------------------------------------------------------- */

static void lookup_free(struct lookup *l)
{
    pthread_mutex_lock(&l->lock); /* the thread may be about to release it */
    pthread_mutex_unlock(&l->lock);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

static void look_up(struct lookup *l)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
    int rc = getaddrinfo(l->host, NULL, &hints, &found);
    for (const struct addrinfo *a = found; rc == 0 && a && l->count < RESOLVE_ADDRESSES_MAX; a = a->ai_next)
        if (a->ai_family == AF_INET || a->ai_family == AF_INET6)
            memcpy(&l->addresses[l->count++], a->ai_addr, a->ai_addrlen);
    if (l->count == 0)
        (void)snprintf(l->error, sizeof(l->error), "could not resolve host %s: %s",
                       TEXTQ(l->host, strlen(l->host)), rc ? gai_strerror(rc) : "no address");
    if (found)
        freeaddrinfo(found);
}

static void *run_lookup(void *arg)
{
    struct lookup *l = arg;
    look_up(l);
    pthread_mutex_lock(&l->lock);
    bool wanted = l->loop != NULL;
    if (wanted)
        loop_post(l->loop, &l->msg); /* under the lock: the loop lives until resolver_free() has had it */
    pthread_mutex_unlock(&l->lock);
    if (!wanted)
        lookup_free(l);
    return NULL;
}

/* --- names --------------------------------------------------------------------------------------------------------- */

static void start_queued(struct resolver *r);

static void name_free(struct name *n)
{
    list_remove(&n->link);
    (void)map_remove(&n->resolver->names, n->host, strlen(n->host)); /* it is there */
    mem_free(n);
}

static void answer_all(struct name *n, const char *error)
{
    struct list batch, *link;
    list_init(&batch);
    list_splice_back(&batch, &n->asking);
    while ((link = list_pop_front(&batch)))
        answer(container_of(link, struct resolve, link), n->addresses, n->count, error);
}

/* A name that was not found is asked for again next time. */
static void take_answer(struct loop_msg *msg)
{
    struct lookup *l = container_of(msg, struct lookup, msg);
    struct name *n = l->name;
    if (n) {
        struct resolver *r = n->resolver;
        r->lookups--;
        n->lookup = NULL;
        n->count = l->count;
        memcpy(n->addresses, l->addresses, sizeof(n->addresses));
        n->until_ms = l->count ? loop_now_ms(r->loop) + RESOLVE_KEEP_MS : 0;
        answer_all(n, l->error);
        start_queued(r);
    }
    lookup_free(l);
}

/* Signals are the loop thread's. */
static bool start_thread(struct lookup *l)
{
    pthread_t thread;
    pthread_attr_t detached;
    sigset_t all, before;
    (void)sigfillset(&all); /* these cannot fail */
    (void)pthread_attr_init(&detached);
    (void)pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = fault_hit() ? -1 : pthread_create(&thread, &detached, run_lookup, l);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&detached);
    return rc == 0;
}

static void start_lookup(struct name *n)
{
    struct resolver *r = n->resolver;
    struct lookup *l = mem_new(struct lookup);
    l->msg.run = take_answer;
    l->loop = r->loop;
    l->name = n;
    memcpy(l->host, n->host, sizeof(l->host));
    pthread_mutex_init(&l->lock, NULL);
    n->lookup = l;
    r->lookups++;
    if (start_thread(l))
        return;
    (void)snprintf(l->error, sizeof(l->error), "no thread to look up a name"); /* short */
    loop_post(r->loop, &l->msg);
}

static void start_queued(struct resolver *r)
{
    struct list *link;
    while (r->lookups < RESOLVE_LOOKUPS_MAX && (link = list_pop_front(&r->queue)))
        start_lookup(container_of(link, struct name, link));
}

/* Nobody waits for these; the oldest go first, but order costs more than it brings. */
static void drop_known(struct resolver *r)
{
    for (struct map_iter it = {0}; map_next(&r->names, &it);) {
        struct name *n = it.value;
        if (!n->lookup && !list_linked(&n->link))
            name_free(n);
    }
}

static struct name *name_add(struct resolver *r, const char *host)
{
    if (map_count(&r->names) >= RESOLVE_NAMES_MAX)
        drop_known(r);
    struct name *n = mem_new(struct name);
    n->resolver = r;
    list_init(&n->link);
    list_init(&n->asking);
    (void)snprintf(n->host, sizeof(n->host), "%s", host); /* of the same size */
    if (map_count(&r->names) < RESOLVE_NAMES_MAX &&
        map_put(&r->names, n->host, strlen(n->host), n, NULL, NULL) == 0)
        return n;
    mem_free(n);
    return NULL;
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

/* Those of N that waited long enough go to LATE; *NEXT_MS becomes the first instant at which another will have. */
static void take_late(struct name *n, int64_t now_ms, struct list *late, int64_t *next_ms)
{
    LIST_FOR_SAFE(link, &n->asking)
    {
        struct resolve *q = container_of(link, struct resolve, link);
        if (q->until_ms <= now_ms) {
            list_remove(link);
            list_push_back(late, link);
        } else if (q->until_ms < *next_ms) {
            *next_ms = q->until_ms;
        }
    }
}

static void look_at_time(void *arg)
{
    struct resolver *r = arg;
    int64_t now_ms = loop_now_ms(r->loop), next_ms = INT64_MAX;
    struct list late, *link;
    list_init(&late);
    for (struct map_iter it = {0}; map_next(&r->names, &it);)
        take_late(it.value, now_ms, &late, &next_ms);
    r->timer_ms = next_ms;
    if (next_ms != INT64_MAX)
        loop_timer_arm(r->timer, next_ms - now_ms);
    while ((link = list_pop_front(&late)))
        answer(container_of(link, struct resolve, link), NULL, 0, "looking up the host's name timed out");
}

static void wait_until(struct resolver *r, int64_t until_ms)
{
    int64_t left_ms = until_ms - loop_now_ms(r->loop);
    if (!loop_timer_armed(r->timer) || left_ms < r->timer_ms - loop_now_ms(r->loop)) {
        r->timer_ms = until_ms;
        loop_timer_arm(r->timer, left_ms);
    }
}

/* --- questions ----------------------------------------------------------------------------------------------------- */

void resolver_ask(struct resolver *r, struct resolve *q)
{
    struct sockaddr_storage literal;
    if (read_literal(q->host, &literal)) {
        answer(q, &literal, 1, "");
        return;
    }
    struct name *n = map_get(&r->names, q->host, strlen(q->host));
    if (n && !n->lookup && n->until_ms > loop_now_ms(r->loop)) {
        answer(q, n->addresses, n->count, "");
        return;
    }
    if (!n && !(n = name_add(r, q->host))) {
        answer(q, NULL, 0, "too many names to look up at once");
        return;
    }
    list_push_back(&n->asking, &q->link);
    wait_until(r, q->until_ms);
    if (!n->lookup && !list_linked(&n->link)) {
        list_push_back(&r->queue, &n->link);
        start_queued(r);
    }
}

struct resolver *resolver_new(struct loop *loop, uint64_t seed)
{
    struct resolver *r = mem_new(struct resolver);
    r->loop = loop;
    map_init(&r->names, seed);
    list_init(&r->queue);
    r->timer = loop_timer_new(loop, look_at_time, r);
    return r;
}

/* The thread sees that nobody waits, or has posted: then the message frees the lookup. */
static void abandon(struct lookup *l)
{
    pthread_mutex_lock(&l->lock);
    l->loop = NULL;
    l->name = NULL;
    pthread_mutex_unlock(&l->lock);
}

void resolver_free(struct resolver *r)
{
    if (!r)
        return;
    for (struct map_iter it = {0}; map_next(&r->names, &it);) {
        struct name *n = it.value;
        if (n->lookup)
            abandon(n->lookup);
        n->count = 0;
        answer_all(n, "stopped");
        name_free(n);
    }
    map_fini(&r->names);
    loop_timer_free(r->timer);
    mem_free(r);
}
