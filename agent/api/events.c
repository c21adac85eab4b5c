/* GET /v1/events: what happens at this agent, or with `all` in the whole cluster (feeds.c), as server-sent events, to whoever
 * listens now. Each client has a bounded queue: what does not fit is counted and told when there is room again, so a slow one costs
 * neither memory nor time. A comment now and then keeps proxies from closing the connection, and shows us that a client has gone. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/text.h"
#include "agent/events.h"

enum {
    QUEUE_BYTES = 256 << 10,
    CLIENTS_MAX = 64,
    PEERS_MAX = 1024, /* one stream each, whatever listens there */
    KEEP_ALIVE_MS = 10000,
};

struct listener {
    struct events_listener listen;
    struct list link; /* api.listeners */
    struct api *api;
    struct httpd_stream *stream;
    char ns[RECORD_NS_MAX]; /* "": all */
    struct gate_pass pass;
    uint64_t dropped; /* since it was told last */
    bool all;         /* of all members */
    bool peer;
    bool gone;
};

static void listener_free(struct listener *l)
{
    struct api *api = l->api;
    events_leave(&l->listen);
    list_remove(&l->link);
    if (l->peer)
        api->peers_listening--;
    else
        api->listeners_count--;
    if (l->all)
        api->cluster_listeners--;
    httpd_stream_end(l->stream);
    mem_free(l);
    api_unref(api);
}

/* False: there is no room. */
static bool put(struct listener *l, const char *text, size_t len)
{
    int rc = httpd_stream_write(l->stream, text, len);
    l->gone = rc == -ERR_CANCELLED;
    return rc == 0;
}

static void begin(const struct listener *l, struct buf *out, const char *event, const char *member)
{
    char at[TEXT_INSTANT_SIZE];
    text_instant_print(at, node_now_ms(l->api->node));
    buf_addf(out, "event: %s\ndata: {\"at\":\"%s\"", event, at);
    api_print_text(out, "member", member);
}

static bool tell_dropped(struct listener *l)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(4096);
    if (l->dropped == 0)
        return true;
    begin(l, &out, "dropped", node_member(l->api->node));
    buf_addf(&out, ",\"dropped\":%llu}\n\n", (unsigned long long)l->dropped);
    if (buf_failed(&out) || !put(l, buf_str(&out), out.len))
        return false;
    l->dropped = 0;
    return true;
}

/* L may be gone afterwards. */
static void offer(struct listener *l, const char *ns, const char *text, size_t len)
{
    if (ns && l->ns[0] && strcmp(ns, l->ns) != 0)
        return;
    if (!tell_dropped(l) || !put(l, text, len)) {
        l->dropped++;
        node_count_events_dropped(l->api->node, l->peer, 1);
    }
    if (l->gone)
        listener_free(l);
}

static void take(struct events_listener *listen, const char *ns, const char *text, size_t len)
{
    offer(container_of(listen, struct listener, listen), ns, text, len);
}

void api_events_pass(struct api *api, const char *ns, const char *text, size_t len)
{
    LIST_FOR_SAFE(link, &api->listeners)
    {
        struct listener *l = container_of(link, struct listener, link);
        if (l->all)
            offer(l, ns, text, len);
    }
}

void api_events_lost(struct api *api, uint64_t count)
{
    node_count_events_dropped(api->node, false, count);
    LIST_FOR (link, &api->listeners) {
        struct listener *l = container_of(link, struct listener, link);
        if (l->all)
            l->dropped += count;
    }
}

bool api_events_chosen(const struct api *api)
{
    for (const struct list *link = api->listeners.next; link != &api->listeners; link = link->next) {
        const struct listener *l = container_of(link, struct listener, link);
        if (l->all && l->ns[0])
            return true;
    }
    return false;
}

void api_events_check(struct api *api)
{
    LIST_FOR_SAFE(link, &api->listeners)
    {
        struct listener *l = container_of(link, struct listener, link);
        if (!gate_pass_holds(api->gate, &l->pass))
            listener_free(l);
    }
}

void api_events_keep_alive(void *arg)
{
    struct api *api = arg;
    api_events_check(api);
    LIST_FOR_SAFE(link, &api->listeners)
    {
        struct listener *l = container_of(link, struct listener, link);
        if (tell_dropped(l))
            (void)put(l, ":\n\n", 3); /* a full queue keeps it alive as well */
        if (l->gone)
            listener_free(l);
    }
    if (!list_empty(&api->listeners))
        loop_timer_arm(api->keep_alive, KEEP_ALIVE_MS);
}

void api_events_stop(struct api *api)
{
    LIST_FOR_SAFE(link, &api->listeners)
    {
        listener_free(container_of(link, struct listener, link));
    }
}

/* So that a client knows whom it listens to, and that it does. */
static void greet(struct listener *l, const char *member)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(4096);
    begin(l, &out, "hello", member);
    buf_add_str(&out, "}\n\n");
    (void)put(l, buf_str(&out), out.len); /* that it has gone shows again */
}

static struct listener *listener_new(struct exchange *x, bool all)
{
    struct api *api = x->api;
    struct listener *l = mem_new(struct listener);
    l->api = api;
    api_ref(api);
    (void)snprintf(l->ns, sizeof(l->ns), "%s", x->req.ns_all ? "" : x->req.ns); /* same size */
    gate_pass_take(x, l->ns, &l->pass);
    l->all = all;
    l->peer = x->face->face == API_FACE_PEER;
    l->listen.take = take;
    list_init(&l->listen.link);
    list_push_back(&api->listeners, &l->link);
    if (l->peer)
        api->peers_listening++;
    else
        api->listeners_count++;
    api->cluster_listeners += all;
    l->stream = exchange_stream(x, "text/event-stream", NULL, 0, QUEUE_BYTES);
    return l;
}

static void listen_on(struct exchange *x, bool all)
{
    struct api *api = x->api;
    struct listener *l = listener_new(x, all);
    if (!node_is_client(api->node)) {
        events_join(node_events(api->node), &l->listen);
        greet(l, node_member(api->node));
    }
    const char *member;
    for (size_t at = 0; all && (member = api_feeds_next(api, &at));)
        greet(l, member);
    if (!loop_timer_armed(api->keep_alive))
        loop_timer_arm(api->keep_alive, KEEP_ALIVE_MS);
    if (all && !loop_timer_armed(api->feeds_timer))
        loop_timer_arm(api->feeds_timer, 0);
}

void api_events(struct exchange *x)
{
    const struct api *api = x->api;
    bool peer = x->face->face == API_FACE_PEER;
    bool all = x->req.all && x->ctx.hop != API_HOP_FINAL;
    struct buf none = BUF_INIT(1);
    if (node_is_client(api->node) && !all)
        exchange_refuse_with(x, API_NOT_FOUND,
                             "a client of the cluster fires nothing: ask a member, or for all=true");
    else if (x->req.head)
        exchange_reply(x, 200, "text/event-stream", NULL, 0, &none);
    else if (peer ? api->peers_listening >= PEERS_MAX : api->listeners_count >= CLIENTS_MAX)
        exchange_refuse_with(x, API_OVERLOADED, "too many listen to this agent's events already");
    else
        listen_on(x, all);
}
