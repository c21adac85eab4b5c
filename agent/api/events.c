/* GET /v1/events: what happens at this agent, as server-sent events, to whoever listens now. Each client has a bounded queue: what
 * does not fit is counted and told when there is room again, so a slow one costs neither memory nor time. A comment now and then
 * keeps proxies from closing the connection, and shows us that a client has gone. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/text.h"
#include "agent/events.h"

enum {
    QUEUE_BYTES = 256 << 10,
    CLIENTS_MAX = 64,
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
    bool gone;
};

static void listener_free(struct listener *l)
{
    struct api *api = l->api;
    events_leave(&l->listen);
    list_remove(&l->link);
    api->listeners_count--;
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

static bool tell_dropped(struct listener *l)
{
    char text[100];
    if (l->dropped == 0)
        return true;
    int len = snprintf(text, sizeof(text), "event: dropped\ndata: {\"dropped\":%llu}\n\n",
                       (unsigned long long)l->dropped);
    if (!put(l, text, (size_t)len))
        return false;
    l->dropped = 0;
    return true;
}

static void take(struct events_listener *listen, const char *ns, const char *text, size_t len)
{
    struct listener *l = container_of(listen, struct listener, listen);
    if (ns && l->ns[0] && strcmp(ns, l->ns) != 0)
        return;
    if (!tell_dropped(l) || !put(l, text, len))
        l->dropped++;
    if (l->gone)
        listener_free(l);
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
static void greet(struct listener *l)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(4096);
    char at[TEXT_INSTANT_SIZE];
    text_instant_print(at, node_now_ms(l->api->node));
    buf_addf(&out, "event: hello\ndata: {\"at\":\"%s\"", at);
    api_print_text(&out, "member", node_member(l->api->node));
    buf_add_str(&out, "}\n\n");
    (void)put(l, buf_str(&out), out.len); /* that it has gone shows again */
}

void api_events(struct exchange *x)
{
    struct api *api = x->api;
    struct events *events = node_events(api->node);
    struct buf none = BUF_INIT(1);
    if (node_is_client(api->node)) {
        exchange_refuse_with(x, API_NOT_FOUND,
                             "a client of the cluster fires nothing: ask a member for its events");
        return;
    }
    if (x->req.head) {
        exchange_reply(x, 200, "text/event-stream", NULL, 0, &none);
        return;
    }
    if (api->listeners_count >= CLIENTS_MAX) {
        exchange_refuse_with(x, API_OVERLOADED, "too many listen to this agent's events already");
        return;
    }
    struct listener *l = mem_new(struct listener);
    l->api = api;
    api_ref(api);
    (void)snprintf(l->ns, sizeof(l->ns), "%s", x->req.ns_all ? "" : x->req.ns); /* same size */
    gate_pass_take(x, l->ns, &l->pass);
    l->listen.take = take;
    l->stream = exchange_stream(x, "text/event-stream", NULL, 0, QUEUE_BYTES);
    list_push_back(&api->listeners, &l->link);
    api->listeners_count++;
    events_join(events, &l->listen);
    greet(l);
    if (!loop_timer_armed(api->keep_alive))
        loop_timer_arm(api->keep_alive, KEEP_ALIVE_MS);
}
