/* agent/io/http.h and agent/io/link.h between simulated hosts: messages take time, get lost, and find nobody. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/io/http.h"
#include "agent/io/link.h"
#include "tests/sim/sim.h"

#define CONSUL "127.0.0.1:8500"

/* --- HTTP ---------------------------------------------------------------------------------------------------------- */

struct http_client {
    struct sim_proc *proc;
    struct http_call *calls;
};

struct http_call {
    struct http_client *client;
    http_done *done;
    void *arg;
    bool over; /* answered, or cancelled */
    bool in_callback;
    unsigned answers; /* events that will still look at it, and whoever keeps it */
    char *path, *body;
    struct sim_proc *to;
    /* the answer */
    char index[24];
    struct http_call *next, **link;
};

struct answer {
    struct http_call *call;
    int e_code, status;
    char *body;
    uint64_t index;
};

int http_client_new(struct loop *loop, unsigned connections_max, struct http_client **ret, struct err *e)
{
    (void)loop, (void)connections_max, (void)e;
    struct http_client *c = mem_new(struct http_client);
    c->proc = sim.current;
    *ret = c;
    return 0;
}

static void call_unlink(struct http_call *call)
{
    if (!call->link)
        return;
    *call->link = call->next;
    if (call->next)
        call->next->link = call->link;
    call->link = NULL;
}

static void call_finish(struct http_call *call, const struct err *e, const struct http_reply *reply)
{
    call->over = true;
    call_unlink(call);
    call->in_callback = true;
    call->done(call->arg, e, reply);
    call->in_callback = false;
}

void http_client_free(struct http_client *c)
{
    struct err e = {.code = ERR_CANCELLED};
    (void)snprintf(e.text, sizeof(e.text), "cancelled");
    while (c && c->calls)
        call_finish(c->calls, &e, NULL);
    mem_free(c);
}

void sim_http_keep(struct http_call *call)
{
    call->answers++;
}

void sim_http_put(struct http_call *call)
{
    if (--call->answers > 0)
        return;
    mem_free(call->path);
    mem_free(call->body);
    mem_free(call);
}

static void on_answer(void *arg)
{
    struct answer *a = arg;
    struct http_call *call = a->call;
    struct err e = {.code = a->e_code};
    if (a->e_code)
        (void)snprintf(e.text, sizeof(e.text), "simulated: error %d", a->e_code);
    struct http_reply reply = {
        .status = a->status, .body = a->body, .body_bytes = strlen(a->body), .call = call};
    if (a->index)
        (void)snprintf(call->index, sizeof(call->index), "%llu", (unsigned long long)a->index);
    if (!call->over)
        call_finish(call, &e, a->e_code ? NULL : &reply);
    sim_http_put(call);
    mem_free(a->body);
    mem_free(a);
}

void sim_http_answer(struct http_call *call, int64_t delay_us, int e_code, int status, const char *body,
                     uint64_t index)
{
    struct answer *a = mem_new(struct answer);
    *a = (struct answer){
        .call = call, .e_code = e_code, .status = status, .body = strdup(body ? body : ""), .index = index};
    call->answers++;
    sim_after(delay_us, call->client->proc, on_answer, a);
}

bool sim_reaches(const struct sim_proc *from, const struct sim_host *to)
{
    return !sim.cut[from->host->index][to->index];
}

static bool lost(const struct http_call *call, const struct sim_host *to)
{
    return !sim_reaches(call->client->proc, to) || sim_chance(sim.weather.peer_lossy_percent);
}

static void on_peer_answer(void *arg, int status, const char *body)
{
    struct http_call *call = arg; /* an answer to a repeated request finds nobody who waits */
    if (!sim.current->dead && !lost(call, sim.current->host))
        sim_http_answer(call, sim_between(100, 1500), 0, status, body, 0);
    sim_http_put(call);
}

static void take_message(void *arg)
{
    struct http_call *call = arg;
    if (call->to->engine)
        engine_peer_message(call->to->engine, call->path + strlen("/peer/v1/"), call->body,
                            strlen(call->body), on_peer_answer, call);
    else if (strcmp(call->path, "/peer/v1/who") == 0)
        on_peer_answer(call, 200, "{\"member\":\"\"}"); /* as agent/node.c does */
    else
        on_peer_answer(call, 503, "{}");
}

/* On its way to whoever listens there when it arrives. */
static void arrive(void *arg)
{
    struct http_call *call = arg;
    struct sim_proc *to = call->to;
    if (to && !to->dead)
        sim_after(0, to, take_message, call);
    else
        sim_http_put(call); /* the connection was cut: the time-out tells */
}

static void send_to_peer(struct http_call *call, const char *address)
{
    struct sim_proc *to = sim_proc_at(address);
    unsigned host = 0;
    while (host < sim.hosts_count && strcmp(sim.hosts[host].address, address) != 0)
        host++;
    if (host == sim.hosts_count || lost(call, &sim.hosts[host]))
        return; /* the time-out tells */
    if (!to || call->client->proc->host->cut_out) {
        sim_http_answer(call, sim_between(100, 1000), ERR_REFUSED, 0, NULL, 0);
        return;
    }
    call->to = to;
    bool repeated = sim_chance(sim.weather.peer_repeat_percent);
    call->answers += repeated ? 2 : 1;
    sim_after(sim_between(100, 1500), NULL, arrive, call);
    if (repeated)
        sim_after(sim_between(100, 300000), NULL, arrive, call);
}

struct http_call *http_send(struct http_client *c, const struct http_call_options *o, http_done *done,
                            void *arg)
{
    struct http_call *call = mem_new(struct http_call);
    *call = (struct http_call){.client = c, .done = done, .arg = arg};
    call->next = c->calls;
    call->link = &c->calls;
    if (c->calls)
        c->calls->link = &call->next;
    c->calls = call;
    const char *host = strstr(o->url, "://") + 3, *path = strchr(host, '/');
    char address[64];
    (void)snprintf(address, sizeof(address), "%.*s", (int)(path - host), host);
    call->path = strdup(path);
    call->body = o->body ? strndup(o->body, o->body_bytes) : strdup("");
    sim_http_answer(call, o->timeout_ms * 1000, ERR_TIMEOUT, 0, NULL,
                    0); /* unless another one comes before */
    if (c->proc->dead)
        return call; /* a call that was on the wire ran after its death: what it does then reaches nobody */
    if (strcmp(address, CONSUL) == 0)
        sim_consul_request(c->proc, call, o->method, call->path, call->body);
    else
        send_to_peer(call, address);
    return call;
}

void http_cancel(struct http_call *call)
{
    if (!call || call->in_callback)
        return;
    call->over = true;
    call_unlink(call);
}

const char *http_reply_header(const struct http_reply *reply, const char *name)
{
    if (strcmp(name, "X-Consul-Index") == 0)
        return reply->call->index[0] ? reply->call->index : NULL;
    return strcmp(name, "X-Consul-LastContact") == 0 ? "0" : NULL;
}

/* --- links --------------------------------------------------------------------------------------------------------- */

struct link {
    struct sim_proc *proc;
    char address[64];
    void (*fn)(void *arg, enum link_event ev);
    void *arg;
    enum link_event told;      /* COUNT_: nothing yet */
    const struct sim_proc *to; /* connected to; NULL: not */
    bool freed;
    struct link *next;
};

static struct link *links;

static enum link_event look_at(const struct sim_proc *from, const char *address)
{
    for (unsigned i = 0; i < sim.hosts_count; i++)
        if (strcmp(sim.hosts[i].address, address) == 0 && !sim_reaches(from, &sim.hosts[i]))
            return LINK_LOST;
    return sim_proc_at(address) && !from->host->cut_out ? LINK_UP : LINK_REFUSED;
}

static void link_look(void *arg)
{
    struct link *l = arg;
    if (l->freed)
        return;
    if (l->to && !l->to->dead)
        return; /* it holds, also through a cut that nobody notices */
    enum link_event ev = look_at(l->proc, l->address);
    l->to = ev == LINK_UP ? sim_proc_at(l->address) : NULL;
    if (ev != LINK_UP)
        sim_after(sim_between(20000, 200000), l->proc, link_look, l);
    if (ev == LINK_UP || ev != l->told) {
        l->told = ev;
        l->fn(l->arg, ev);
    }
}

struct link *link_new(struct loop *loop, const char *address, int64_t retry_ms,
                      void (*fn)(void *arg, enum link_event ev), void *arg)
{
    struct link *l = mem_new(struct link);
    (void)loop, (void)retry_ms;
    *l = (struct link){.proc = sim.current, .fn = fn, .arg = arg, .told = LINK_EVENT_COUNT_, .next = links};
    (void)snprintf(l->address, sizeof(l->address), "%s", address);
    links = l;
    sim_after(sim_between(100, 1000), l->proc, link_look, l);
    return l;
}

void link_free(struct link *l)
{
    if (l)
        l->freed = true; /* the story's end takes it */
}

void sim_links_look(const char *address)
{
    for (struct link *l = links; l; l = l->next)
        if (!l->freed && !l->proc->dead && strcmp(l->address, address) == 0)
            sim_after(sim_between(100, 2000), l->proc, link_look, l);
}

struct probe {
    struct sim_proc *proc;
    char address[64];
    void (*fn)(void *arg, enum link_event ev);
    void *arg;
    enum link_event found;
};

static void probe_tell(void *arg)
{
    struct probe *p = arg;
    p->fn(p->arg, p->found);
    mem_free(p);
}

static void probe_look(void *arg)
{
    struct probe *p = arg;
    p->found = look_at(p->proc, p->address);
    sim_after(p->found == LINK_LOST ? 500000 : sim_between(100, 1000), p->proc, probe_tell, p);
}

void link_probe(struct loop *loop, const char *address, int64_t timeout_ms,
                void (*fn)(void *arg, enum link_event ev), void *arg)
{
    struct probe *p = mem_new(struct probe);
    (void)loop, (void)timeout_ms;
    *p = (struct probe){.proc = sim.current, .fn = fn, .arg = arg};
    (void)snprintf(p->address, sizeof(p->address), "%s", address);
    sim_after(sim_between(100, 1000), NULL, probe_look, p);
}
