#include "agent/io/link.h"

#include "agent/base/list.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

enum {
    CONNECT_TIMEOUT_MS = 3000, /* a SYN is repeated after 1 s: one may be lost */
    STEADY_MS = 1000,          /* a connection that lasted so long may be renewed at once */
    KEEPALIVE_S = 3,           /* a host that vanished is LOST after this and ten more seconds */
    TRIES_COUNTED_MAX = 20,
};

/* One connection, or the attempt to make one: a libuv handle outlives its closing, so each has its own
 * memory. */
struct dial {
    struct link *link; /* NULL: given up, only to be closed */
    uv_tcp_t tcp;
    uv_connect_t connect;
};

/* A look-up cannot be called back; it ends by itself and finds nobody. */
struct lookup {
    struct link *link;
    uv_getaddrinfo_t request;
};

struct link {
    struct loop *loop;
    char *address;
    int64_t retry_ms;
    bool once; /* a probe */
    void (*fn)(void *arg, enum link_event ev);
    void *arg;
    struct loop_timer *timer; /* next try, or the end of patience with this one */
    struct lookup *lookup;
    struct dial *dial;
    struct addrinfo *found, *next_found;
    bool all_refused;     /* of the addresses tried so far */
    enum link_event told; /* LINK_EVENT_COUNT_: nothing yet */
    int64_t up_since_ms;
    unsigned tries; /* since the last steady connection */
};

static void try_next_address(struct link *l);

static void lookup_drop(struct link *l)
{
    if (!l->lookup)
        return;
    l->lookup->link = NULL;
    (void)uv_cancel((uv_req_t *)&l->lookup->request); /* one that runs already goes on to its end */
    l->lookup = NULL;
}

static void on_closed(uv_handle_t *handle)
{
    mem_free(container_of((uv_tcp_t *)(void *)handle, struct dial, tcp));
}

static void dial_drop(struct link *l)
{
    if (!l->dial)
        return;
    l->dial->link = NULL;
    uv_close((uv_handle_t *)&l->dial->tcp, on_closed);
    l->dial = NULL;
}

static void drop_all(struct link *l)
{
    lookup_drop(l);
    dial_drop(l);
    if (l->found)
        freeaddrinfo(l->found);
    l->found = l->next_found = NULL;
}

void link_free(struct link *l)
{
    if (!l)
        return;
    drop_all(l);
    loop_timer_free(l->timer);
    mem_free(l->address);
    mem_free(l);
}

/* L may be gone afterwards. */
static void tell(struct link *l, enum link_event ev)
{
    void (*fn)(void *arg, enum link_event ev) = l->fn;
    void *arg = l->arg;
    bool news = ev == LINK_UP || ev != l->told;
    l->told = ev;
    if (l->once)
        link_free(l);
    if (news)
        fn(arg, ev);
}

/* 0, 2, 4, 8 … ms: a peer that is started again is found soon, one that accepts and closes cannot make us
 * spin. */
static void try_later(struct link *l)
{
    int64_t delay_ms = l->tries == 0 ? 0 : (int64_t)1 << l->tries;
    l->tries += l->tries < TRIES_COUNTED_MAX;
    loop_timer_arm(l->timer, delay_ms < l->retry_ms ? delay_ms : l->retry_ms);
}

static void failed(struct link *l, enum link_event ev)
{
    drop_all(l);
    if (!l->once)
        try_later(l);
    tell(l, ev);
}

/* --- an open connection ------------------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    (void)handle;
    (void)wanted;
    static char nowhere[256]; /* peers send nothing, and if they do nobody reads it */
    *ret = uv_buf_init(nowhere, sizeof nowhere);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    (void)buf;
    struct link *l = container_of((uv_tcp_t *)(void *)stream, struct dial, tcp)->link;
    if (n >= 0)
        return;
    if (n == UV_ETIMEDOUT || n == UV_EHOSTUNREACH || n == UV_ENETUNREACH) {
        failed(l, LINK_LOST);
        return;
    }
    /* Closed: what that means, connecting again will tell. */
    drop_all(l);
    if (loop_now_ms(l->loop) - l->up_since_ms >= STEADY_MS)
        l->tries = 0;
    try_later(l);
}

static void connected(struct link *l)
{
    loop_timer_stop(l->timer);
    /* Only a connection that lasts ends the back-off, but the first reconnect is to be at once. */
    l->up_since_ms = loop_now_ms(l->loop);
    if (l->told != LINK_UP)
        l->tries = 0;
    if (!l->once) {
        uv_tcp_keepalive(&l->dial->tcp, 1, KEEPALIVE_S);
        uv_read_start((uv_stream_t *)&l->dial->tcp, on_alloc, on_read);
    }
    tell(l, LINK_UP);
}

/* --- connecting --------------------------------------------------------------------------------------------------- */

static void on_connect(uv_connect_t *request, int status)
{
    struct dial *d = container_of(request, struct dial, connect);
    struct link *l = d->link;
    if (!l)
        return;
    if (status == 0) {
        connected(l);
        return;
    }
    l->all_refused &= status == UV_ECONNREFUSED;
    dial_drop(l);
    try_next_address(l);
}

static void try_next_address(struct link *l)
{
    while (l->next_found) {
        struct addrinfo *ai = l->next_found;
        l->next_found = ai->ai_next;
        struct dial *d = mem_new(struct dial);
        d->link = l;
        int r = fault_hit() ? UV_EMFILE : uv_tcp_init(loop_uv(l->loop), &d->tcp);
        if (r < 0) {
            mem_free(d);
            l->all_refused = false;
            continue;
        }
        l->dial = d;
        r = uv_tcp_connect(&d->connect, &d->tcp, ai->ai_addr, on_connect);
        if (r == 0)
            return;
        l->all_refused &= r == UV_ECONNREFUSED;
        dial_drop(l);
    }
    failed(l, l->all_refused ? LINK_REFUSED : LINK_LOST);
}

static void found(struct link *l, struct addrinfo *list)
{
    l->found = l->next_found = list;
    l->all_refused = list != NULL;
    try_next_address(l);
}

static void on_found(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct lookup *lookup = container_of(request, struct lookup, request);
    struct link *l = lookup->link;
    mem_free(lookup);
    if (!l) {
        uv_freeaddrinfo(list);
        return;
    }
    l->lookup = NULL;
    found(l, status == 0 ? list : NULL);
}

static void resolve(struct link *l, const char *host, const char *service)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV},
                    *list = NULL;
    if (getaddrinfo(host, service, &hints, &list) == 0) { /* an address: no look-up, does not block */
        found(l, list);
        return;
    }
    hints.ai_flags = AI_NUMERICSERV;
    struct lookup *lookup = mem_new(struct lookup);
    lookup->link = l;
    int r = fault_hit() ? UV_ENOMEM
                        : uv_getaddrinfo(loop_uv(l->loop), &lookup->request, on_found, host, service, &hints);
    if (r < 0) {
        mem_free(lookup);
        found(l, NULL);
        return;
    }
    l->lookup = lookup;
}

static void begin(struct link *l)
{
    size_t host_at, host_len;
    uint16_t port;
    char host[NI_MAXHOST], service[8];
    if (text_host_port(l->address, strlen(l->address), false, &host_at, &host_len, &port, NULL) < 0 ||
        host_len >= sizeof host) {
        found(l, NULL);
        return;
    }
    memcpy(host, l->address + host_at, host_len);
    host[host_len] = '\0';
    snprintf(service, sizeof service, "%u", port);
    resolve(l, host, service);
}

static void on_timer(void *arg)
{
    struct link *l = arg;
    if (l->dial || l->lookup) {
        failed(l, LINK_LOST); /* no answer in time */
        return;
    }
    /* A probe's patience began with the probe; its timer is armed only after this first call. */
    loop_timer_arm(l->timer, l->once ? l->retry_ms : CONNECT_TIMEOUT_MS);
    begin(l);
}

/* --- face --------------------------------------------------------------------------------------------------------- */

static struct link *link_make(struct loop *loop, const char *address, int64_t retry_ms,
                              void (*fn)(void *arg, enum link_event ev), void *arg)
{
    struct link *l = mem_new(struct link);
    *l = (struct link){.loop = loop,
                       .address = mem_strdup(address),
                       .retry_ms = retry_ms < 1 ? 1 : retry_ms,
                       .fn = fn,
                       .arg = arg,
                       .told = LINK_EVENT_COUNT_};
    l->timer = loop_timer_new(loop, on_timer, l);
    loop_timer_arm(l->timer, 0);
    return l;
}

struct link *link_new(struct loop *loop, const char *address, int64_t retry_ms,
                      void (*fn)(void *arg, enum link_event ev), void *arg)
{
    return link_make(loop, address, retry_ms, fn, arg);
}

void link_probe(struct loop *loop, const char *address, int64_t timeout_ms,
                void (*fn)(void *arg, enum link_event ev), void *arg)
{
    link_make(loop, address, timeout_ms, fn, arg)->once = true;
}
