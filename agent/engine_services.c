/* Where the callees are: watches of Consul's services for the table of endpoints, or the lists of the configuration. */
#include <stdio.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/engine_private.h"
#include "agent/metrics.h"
#include "consul/consul_self.h"
#include "consul/consul_service.h"

/* Each blocking query holds a connection, of which Consul grants a client 200; later services are polled. */
#define BLOCKING_MAX 128
/* Without the own node's name endpoints are only less near; nothing waits for it. */
#define SELF_RETRY_MS 1000

static const struct log_ctx log_here = {.module = "services"};

struct engine_watch {
    struct list list;
    struct engine *engine;
    struct consul_service_watch *watch;
    char *service;
    char *datacenter;
};

static void on_instances(void *arg, const struct consul_instances *found)
{
    struct engine_watch *w = arg;
    struct endpoints_instance *list = mem_try_array(found->count + 1, sizeof(*list), NULL);
    struct err e = {0};
    if (!list) {
        log_warn(&log_here, "no memory for a service's instances, the last list stays", "service=%s",
                 LOGQ(w->service));
        return;
    }
    for (size_t i = 0; i < found->count; i++) {
        const struct consul_instance *from = &found->items[i];
        list[i] = (struct endpoints_instance){.host = from->address,
                                              .port = from->port,
                                              .weight = from->weight,
                                              .tags = (const char *const *)from->tags,
                                              .node = from->node,
                                              .zone = from->zone};
    }
    if (endpoints_update(w->engine->endpoints, w->service, w->datacenter, list, found->count, &e) < 0)
        log_warn(&log_here, "instances not taken over, the last list stays", "service=%s error=%s",
                 LOGQ(w->service), LOGQ(e.text));
    mem_free(list);
}

static void want(void *arg, const char *service, const char *datacenter)
{
    struct engine *g = arg;
    struct engine_watch *w = mem_new(struct engine_watch);
    w->engine = g;
    w->service = mem_strdup(service);
    w->datacenter = mem_strdup(datacenter);
    list_push_back(&g->watches, &w->list);
    bool poll = g->watches_count++ >= BLOCKING_MAX;
    w->watch = consul_service_watch_new(g->o.consul, service, datacenter[0] ? datacenter : NULL, poll,
                                        g->o.seed, on_instances, w);
}

static void drop_watch(struct engine_watch *w)
{
    w->engine->watches_count--;
    list_remove(&w->list);
    consul_service_watch_free(w->watch);
    mem_free(w->service);
    mem_free(w->datacenter);
    mem_free(w);
}

static void unwant(void *arg, const char *service, const char *datacenter)
{
    struct engine *g = arg;
    for (struct list *at = g->watches.next, *next; at != &g->watches; at = next) {
        struct engine_watch *w = container_of(at, struct engine_watch, list);
        next = at->next;
        if (strcmp(w->service, service) == 0 && strcmp(w->datacenter, datacenter) == 0)
            drop_watch(w);
    }
}

static void on_self(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct engine *g = arg;
    struct consul_self self;
    struct err own = {0};
    g->self_call = NULL;
    if (e->code == ERR_CANCELLED)
        return;
    if (e->code == ERR_OK && consul_self_parse(reply->body, reply->body_bytes, &self, &own) == 0) {
        endpoints_set_node(g->endpoints, self.node);
        return;
    }
    log_warn(&log_here, "Consul does not tell its node, no endpoint counts as on the same, trying again",
             "error=%s", LOGQ(e->code == ERR_OK ? own.text : e->text));
    loop_timer_arm(g->self_timer, SELF_RETRY_MS);
}

static void ask_self(void *arg)
{
    struct engine *g = arg;
    struct consul_request request = {.method = "GET", .path = CONSUL_SELF_PATH};
    g->self_call = consul_send(g->o.consul, &request, on_self, g);
}

void engine_drop_watches(struct engine *g)
{
    consul_cancel(g->self_call);
    g->self_call = NULL;
    loop_timer_free(g->self_timer);
    g->self_timer = NULL;
    while (!list_empty(&g->watches))
        drop_watch(container_of(g->watches.next, struct engine_watch, list));
}

static void set_static(struct engine *g, const struct config_service *s)
{
    struct endpoints_instance *list = mem_new_array(struct endpoints_instance, s->endpoints_count + 1);
    struct err e = {0};
    char **hosts = mem_new_array(char *, s->endpoints_count + 1);
    for (size_t i = 0; i < s->endpoints_count; i++) {
        const char *address = s->endpoints[i].address;
        size_t at, len;
        uint16_t port = 0;
        if (text_host_port(address, strlen(address), false, &at, &len, &port, NULL) < 0)
            continue; /* the configuration was checked; one without a host is left out */
        hosts[i] = mem_new_array(char, len + 1);
        memcpy(hosts[i], address + at, len);
        list[i] =
            (struct endpoints_instance){.host = hosts[i], .port = port, .weight = s->endpoints[i].weight};
    }
    if (endpoints_set_static(g->endpoints, s->name, list, s->endpoints_count, &e) < 0)
        log_error(&log_here, "endpoints of the configuration not taken over", "service=%s error=%s",
                  LOGQ(s->name), LOGQ(e.text));
    for (size_t i = 0; i < s->endpoints_count; i++)
        mem_free(hosts[i]);
    mem_free(hosts);
    mem_free(list);
}

/* BEFORE: what was set, NULL: nothing. */
void engine_set_services(struct engine *g, const struct config *before)
{
    if (g->o.consul)
        return;
    for (size_t i = 0; before && i < before->services.count; i++) {
        const struct config_service *old = before->services.items[i];
        struct config_service none = {.name = old->name};
        if (!config_service(g->o.config, old->name))
            set_static(g, &none);
    }
    for (size_t i = 0; i < g->o.config->services.count; i++)
        set_static(g, g->o.config->services.items[i]);
}

void engine_new_endpoints(struct engine *g)
{
    struct endpoints_options options = {
        .loop = g->o.loop, .zone = g->o.config->agent.zone, .seed = g->o.seed, .arg = g};
    if (g->o.consul) {
        options.want = want;
        options.unwant = unwant;
    }
    g->endpoints = endpoints_new(&options);
    engine_set_services(g, NULL);
    if (!g->o.consul)
        return;
    g->self_timer = loop_timer_new(g->o.loop, ask_self, g);
    ask_self(g);
}

void engine_service_options(void *arg, const char *service, struct balance_options *ret)
{
    struct engine *g = arg;
    config_balance_options(g->o.config, service ? service : "", ret);
}

void engine_service_rest(void *arg, const char *service, struct dispatch_service *ret)
{
    struct engine *g = arg;
    const struct config_service *s = config_service(g->o.config, service);
    if (!s)
        return;
    *ret = (struct dispatch_service){.rate_per_s = s->rate,
                                     .tls_ca = s->tls_ca,
                                     .tls_cert = s->tls_cert,
                                     .tls_key = s->tls_key,
                                     .tls_server_name = s->tls_server_name};
}

size_t engine_service_tags(void *arg, const char *service, const char **ret)
{
    struct engine *g = arg;
    const struct config_service *s = config_service(g->o.config, service);
    for (size_t i = 0; s && i < s->tag.count; i++)
        ret[i] = s->tag.items[i];
    return s ? s->tag.count : 0;
}

void engine_service_released(void *arg, const char *service)
{
    struct engine *g = arg;
    struct planner_event event = {.kind = PLANNER_RELEASE, .service = service};
    engine_plan(g, &event);
}

void engine_observe_attempt(void *arg, const struct dispatch_timing *t)
{
    struct engine *g = arg;
    metrics_observe(g->o.metrics, METRIC_FIRE_STAGE, "queue", NULL, (double)t->queue_us / 1e6);
    metrics_observe(g->o.metrics, METRIC_FIRE_STAGE, "connect", NULL, (double)t->connect_us / 1e6);
    metrics_observe(g->o.metrics, METRIC_FIRE_STAGE, "reply", NULL, (double)t->reply_us / 1e6);
}
