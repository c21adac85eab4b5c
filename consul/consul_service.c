#include "consul/consul_service.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "consul/consul_watch.h"

#define INSTANCES_BYTES_MAX ((size_t)32 << 20)
#define INSTANCES_MAX       20000
#define TAGS_MAX            64
/* Consul's agent answers these by itself. Shorter than a check's TTL, so that one lost answer does not turn it critical. */
#define AGENT_TIMEOUT_MS 2000

static const struct log_ctx log_here = {.module = "consul"};

static json_t *check_document(const struct consul_service *s)
{
    if (s->check_ttl_ms > 0)
        return json_pack("{s:s,s:s,s:o,s:s,s:s}", "CheckID", s->check_id, "Name", "carillon loop", "TTL",
                         json_sprintf("%lldms", (long long)s->check_ttl_ms), "Status", "passing",
                         "DeregisterCriticalServiceAfter", "10m");
    if (s->check_http)
        return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "CheckID", s->check_id, "Name", "application", "HTTP",
                         s->check_http, "Interval", "10s", "Timeout", "5s", "Status", "passing");
    if (s->check_tcp)
        return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s}", "CheckID", s->check_id, "Name", "application", "TCP",
                         s->check_tcp, "Interval", "10s", "Timeout", "5s", "Status", "passing");
    return NULL;
}

static json_t *service_document(const struct consul_service *s)
{
    struct err e = {0};
    json_t *doc = json_object(), *meta = json_object(), *tags = json_array();
    bool checked = s->check_ttl_ms > 0 || s->check_http || s->check_tcp;
    int rc = json_set(doc, "ID", json_string(s->id), &e);
    rc |= json_set(doc, "Name", json_string(s->name), &e);
    rc |= json_set(doc, "Address", json_string(s->address), &e);
    rc |= json_set(doc, "Port", json_integer(s->port), &e);
    for (size_t i = 0; s->tags && s->tags[i]; i++)
        rc |= json_array_append_new(tags, json_string(s->tags[i]));
    if (s->zone && s->zone[0])
        rc |= json_set(meta, "zone", json_string(s->zone), &e);
    if (s->meta_name)
        rc |= json_set(meta, s->meta_name, json_string(s->meta_value), &e);
    rc |= json_set(doc, "Tags", tags, &e);
    rc |= json_set(doc, "Meta", meta, &e);
    if (checked) /* one that is lost is an error: without it the service would be well for ever */
        rc |= json_set(doc, "Check", check_document(s), &e);
    if (rc < 0) {
        json_decref(doc);
        return NULL;
    }
    return doc;
}

struct consul_call *consul_service_register(struct consul_client *c, const struct consul_service *s,
                                            consul_done *done, void *arg)
{
    struct buf body = BUF_INIT(64 << 10);
    json_t *doc = service_document(s);
    if (!doc || json_print(doc, &body, NULL) < 0)
        buf_reset(&body); /* an empty body is refused by Consul, which DONE tells */
    json_decref(doc);
    struct consul_request request = {.method = "PUT",
                                     .path = "/v1/agent/service/register",
                                     .body = buf_str(&body),
                                     .body_bytes = body.len};
    struct consul_call *call = consul_send(c, &request, done, arg);
    buf_fini(&body);
    return call;
}

static struct consul_call *put_path(struct consul_client *c, const char *prefix, const char *name,
                                    consul_done *done, void *arg)
{
    struct buf path = BUF_INIT_OR_DIE(2048); /* the beginning of a name might be another service's */
    buf_add_str(&path, prefix);
    text_percent_encode(&path, name, strlen(name));
    struct consul_request request = {.method = "PUT", .path = buf_str(&path), .timeout_ms = AGENT_TIMEOUT_MS};
    struct consul_call *call = consul_send(c, &request, done, arg);
    buf_fini(&path);
    return call;
}

struct consul_call *consul_service_deregister(struct consul_client *c, const char *id, consul_done *done,
                                              void *arg)
{
    return put_path(c, "/v1/agent/service/deregister/", id, done, arg);
}

struct consul_call *consul_check_pass(struct consul_client *c, const char *check_id, consul_done *done,
                                      void *arg)
{
    return put_path(c, "/v1/agent/check/pass/", check_id, done, arg);
}

/* --- instances ----------------------------------------------------------------------------------------------------- */

static void copy_member(char *out, size_t size, const json_t *obj, const char *key)
{
    const char *text = json_string_value(json_object_get(obj, key));
    (void)snprintf(out, size, "%s", text ? text : ""); /* names for people and for ranks may be cut */
}

/* Never cut: what is left would be another host. */
static void copy_address(struct consul_instance *ret, const json_t *obj)
{
    const char *text = json_string_value(json_object_get(obj, "Address"));
    if (text && strlen(text) < sizeof(ret->address))
        memcpy(ret->address, text, strlen(text) + 1);
}

static int read_tags(const json_t *service, struct consul_instance *ret, struct err *e)
{
    const json_t *tags = json_object_get(service, "Tags");
    size_t count = json_array_size(tags) < TAGS_MAX ? json_array_size(tags) : TAGS_MAX, used = 0;
    ret->tags = mem_try_array(count + 1, sizeof(char *), e);
    if (!ret->tags)
        return -ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        const char *tag = json_string_value(json_array_get(tags, i));
        if (tag && !(ret->tags[used++] = mem_try_strndup(tag, strlen(tag), e)))
            return -ERR_NOMEM;
    }
    return 0;
}

/* 1: RET is usable. 0: left out. */
static int read_instance(const json_t *entry, struct consul_instance *ret, struct err *e)
{
    const json_t *node = json_object_get(entry, "Node"), *service = json_object_get(entry, "Service");
    json_int_t port = json_integer_value(json_object_get(service, "Port"));
    const json_t *weight = json_object_get(json_object_get(service, "Weights"), "Passing");
    copy_address(ret, service);
    if (json_string_length(json_object_get(service, "Address")) == 0)
        copy_address(ret, node);
    if (ret->address[0] == '\0' || port < 1 || port > 65535)
        return 0;
    copy_member(ret->id, sizeof(ret->id), service, "ID");
    copy_member(ret->node, sizeof(ret->node), node, "Node");
    copy_member(ret->zone, sizeof(ret->zone), json_object_get(service, "Meta"), "zone");
    if (ret->zone[0] == '\0')
        copy_member(ret->zone, sizeof(ret->zone), json_object_get(node, "Meta"), "zone");
    copy_member(ret->cluster, sizeof(ret->cluster), json_object_get(service, "Meta"), "cluster");
    ret->port = (uint16_t)port;
    json_int_t w = json_is_integer(weight) ? json_integer_value(weight) : 1;
    ret->weight = w < 1 ? 1 : w > 65535 ? 65535 : (uint32_t)w;
    int rc = read_tags(service, ret, e);
    return rc < 0 ? rc : 1;
}

void consul_instances_fini(struct consul_instances *list)
{
    for (size_t i = 0; i < list->count; i++) {
        for (char **tag = list->items[i].tags; tag && *tag; tag++)
            mem_free(*tag);
        mem_free(list->items[i].tags);
    }
    mem_free(list->items);
    *list = (struct consul_instances){0};
}

int consul_instances_parse(const char *body, size_t bytes, struct consul_instances *ret, struct err *e)
{
    json_t *doc;
    struct consul_instances list = {0};
    int rc = json_read(body, bytes, INSTANCES_BYTES_MAX, &doc, e);
    if (rc < 0)
        return rc == -ERR_INVALID ? err_set(e, ERR_PROTOCOL, "health answer: %s", e ? e->text : "not JSON")
                                  : rc;
    size_t count = json_array_size(doc) < INSTANCES_MAX ? json_array_size(doc) : INSTANCES_MAX;
    if (!json_is_array(doc))
        rc = err_set(e, ERR_PROTOCOL, "health answer is not a list");
    else if (!(list.items = mem_try_array(count + 1, sizeof(*list.items), e)))
        rc = -ERR_NOMEM;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        struct consul_instance *slot = &list.items[list.count];
        *slot = (struct consul_instance){0};
        rc = read_instance(json_array_get(doc, i), slot, e);
        list.count += rc != 0; /* also one that failed half-way: its tags are freed with the list */
    }
    json_decref(doc);
    if (rc < 0) {
        consul_instances_fini(&list);
        return rc;
    }
    *ret = list;
    return 0;
}

/* --- watching ------------------------------------------------------------------------------------------------------ */

struct consul_service_watch {
    struct consul_watch *watch;
    consul_service_changed *changed;
    void *arg;
    char *name;
};

static void on_change(void *arg, const char *body, size_t bytes)
{
    struct consul_service_watch *w = arg;
    struct consul_instances list;
    struct err e = {0};
    if (consul_instances_parse(body, bytes, &list, &e) < 0) {
        log_warn(&log_here, "answer about a service not understood, the last list stays",
                 "service=%s error=%s", LOGQ(w->name), LOGQ(e.text));
        return;
    }
    w->changed(w->arg, &list); /* may free W */
    consul_instances_fini(&list);
}

struct consul_service_watch *consul_service_watch_new(struct consul_client *c, const char *name,
                                                      const char *datacenter, bool poll, uint64_t seed,
                                                      consul_service_changed *changed, void *arg)
{
    struct consul_service_watch *w = mem_new(struct consul_service_watch);
    struct buf path =
        BUF_INIT_OR_DIE(2048); /* a part of it would name another service, or ask for those that fail, too */
    w->changed = changed;
    w->arg = arg;
    w->name = mem_strdup(name);
    buf_add_str(&path, "/v1/health/service/");
    text_percent_encode(&path, name, strlen(name));
    buf_add_str(&path, "?passing");
    if (datacenter && datacenter[0]) {
        buf_add_str(&path, "&dc=");
        text_percent_encode(&path, datacenter, strlen(datacenter));
    }
    struct consul_watch_options options = {
        .path = buf_str(&path), .reply_max = INSTANCES_BYTES_MAX, .poll = poll, .seed = seed};
    w->watch = consul_watch_new(c, &options, on_change, w);
    buf_fini(&path);
    return w;
}

void consul_service_watch_free(struct consul_service_watch *w)
{
    if (!w)
        return;
    consul_watch_free(w->watch);
    mem_free(w->name);
    mem_free(w);
}

bool consul_service_watch_ok(const struct consul_service_watch *w)
{
    return consul_watch_ok(w->watch);
}
