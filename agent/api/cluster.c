/* What the agent knows of its cluster: members, owners, endpoints of services, health. */
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/core/hashring.h"

static void print_member(struct buf *out, const struct node_member_view *m)
{
    buf_add_str(out, "{\"id\":");
    json_print_string(out, m->id, strlen(m->id));
    api_print_text(out, "name", m->name);
    api_print_text(out, "address", m->address);
    api_print_text(out, "zone", m->zone);
    buf_addf(out, ",\"weight\":%u", m->weight);
    api_print_text(out, "version", m->version);
    api_print_text(out, "config_digest", m->config_digest);
    api_print_text(out, "tzdata", m->tzdata);
    api_print_text(out, "state", m->state);
    buf_addf(out, ",\"slots\":%zu", m->slots);
    api_print_instant(out, "started_at", m->started_ms);
    buf_add_char(out, '}');
}

static void print_number(struct buf *out, const char *key, uint64_t number)
{
    if (number != 0)
        buf_addf(out, ",\"%s\":%llu", key, (unsigned long long)number);
    else
        buf_addf(out, ",\"%s\":null", key);
}

static void print_voter(struct buf *out, const struct node_raft_voter *v, bool leader_asks)
{
    buf_addf(out, "{\"number\":%llu", (unsigned long long)v->number);
    api_print_text(out, "name", v->name);
    api_print_text(out, "address", v->address);
    api_print_text(out, "state", v->state);
    buf_addf(out, ",\"votes\":%s,\"reached\":%s", v->votes ? "true" : "false", v->reached ? "true" : "false");
    if (leader_asks)
        buf_addf(out, ",\"lag\":%llu}", (unsigned long long)v->lag);
    else
        buf_add_str(out, ",\"lag\":null}");
}

static void print_raft(struct buf *out, const struct node_raft_view *r)
{
    if (!r) {
        buf_add_str(out, ",\"raft\":null");
        return;
    }
    buf_addf(out, ",\"raft\":{\"role\":\"%s\"", r->role);
    print_number(out, "number", r->self);
    print_number(out, "leader", r->leader);
    buf_addf(out, ",\"term\":%llu,\"applied\":%llu,\"wanted\":%u", (unsigned long long)r->term,
             (unsigned long long)r->applied, r->wanted);
    api_print_text(out, "waits_for", r->waits[0] ? r->waits : NULL);
    buf_add_str(out, ",\"voters\":[");
    for (size_t i = 0; i < r->voters_count; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        print_voter(out, &r->voters[i], r->self != 0 && r->self == r->leader);
    }
    buf_add_str(out, "]}");
}

void api_cluster(struct exchange *x)
{
    struct node_cluster_view v = {0};
    struct buf out = BUF_INIT(4 << 20);
    node_cluster(x->api->node, &v);
    buf_add_str(&out, "{\"cluster\":");
    json_print_string(&out, v.cluster, strlen(v.cluster));
    api_print_text(&out, "mode", v.mode);
    api_print_text(&out, "self", node_member(x->api->node));
    buf_add_str(&out, ",\"members\":[");
    for (size_t i = 0; i < v.members_count; i++) {
        if (i > 0)
            buf_add_char(&out, ',');
        print_member(&out, &v.members[i]);
    }
    buf_addf(&out,
             "],\"slots\":{\"total\":%zu,\"owned_here\":%zu,\"unowned\":%zu,\"moving\":%zu},\"store\":{",
             v.slots_total, v.slots_owned, v.slots_unowned, v.slots_moving);
    buf_add_str(&out, "\"driver\":");
    if (v.store_driver)
        json_print_string(&out, v.store_driver, strlen(v.store_driver));
    else
        buf_add_str(&out, "null");
    print_number(&out, "version", v.store_version);
    buf_addf(&out, ",\"ok\":%s", v.store_ok ? "true" : "false");
    api_print_text(&out, "leader", v.store_leader);
    print_raft(&out, v.raft);
    buf_addf(&out, "},\"consul\":{\"ok\":%s}}", v.consul_ok ? "true" : "false");
    exchange_json(x, 200, &out);
}

void api_owner(struct exchange *x)
{
    struct node_owner o;
    struct buf out = BUF_INIT(4096);
    uint32_t slots = node_slots(x->api->node);
    if (slots == 0) {
        exchange_refuse_with(x, API_NO_OWNER, "this agent has not joined its cluster yet");
        return;
    }
    uint16_t slot = (uint16_t)hashring_slot(x->req.ns, x->req.arg, slots);
    node_owner_of(x->api->node, slot, &o);
    buf_addf(&out, "{\"id\":\"%s\",\"namespace\":\"%s\",\"slot\":%u,\"epoch\":%llu", x->req.arg, x->req.ns,
             slot, (unsigned long long)(o.known ? o.epoch : 0));
    api_print_text(&out, "owner", o.known ? o.member : NULL);
    api_print_text(&out, "name", o.known ? o.name : NULL);
    api_print_text(&out, "address", o.known ? o.address : NULL);
    buf_add_char(&out, '}');
    exchange_json(x, 200, &out);
}

static void print_endpoint(struct buf *out, const struct node_endpoint *p)
{
    buf_add_str(out, "{\"address\":");
    json_print_string(out, p->address, strlen(p->address));
    api_print_text(out, "health", p->health);
    buf_addf(out, ",\"weight\":%u,\"in_flight\":%u,\"latency_ms\":%.3f,\"failures\":%u", p->weight,
             p->in_flight, p->latency_ms, p->failures);
    api_print_instant(out, "ejected_until", p->ejected_until_ms);
    buf_add_char(out, '}');
}

static void print_rate(struct buf *out, const char *key, double per_s)
{
    if (per_s > 0)
        buf_addf(out, ",\"%s\":%.6g", key, per_s);
    else
        buf_addf(out, ",\"%s\":null", key);
}

static void on_service(void *arg, const struct node_service_view *v)
{
    struct exchange *x = arg;
    if (x->api->stopping || !v) {
        exchange_refuse_with(x, x->api->stopping ? API_OVERLOADED : API_NOT_FOUND,
                             x->api->stopping ? "the agent is stopping"
                                              : "neither Consul nor the configuration knows such a service");
        return;
    }
    struct buf out = BUF_INIT(16 << 20);
    buf_addf(&out, "{\"service\":\"%s\"", x->req.arg);
    api_print_text(&out, "policy", v->policy);
    print_rate(&out, "rate", v->rate_per_s);
    print_rate(&out, "rate_here", v->rate_here_per_s);
    buf_addf(&out, ",\"in_flight\":%zu,\"waiting\":%zu,\"endpoints\":[", v->in_flight, v->waiting);
    for (size_t i = 0; i < v->endpoints_count; i++) {
        if (i > 0)
            buf_add_char(&out, ',');
        print_endpoint(&out, &v->endpoints[i]);
    }
    buf_add_str(&out, "]}");
    exchange_json(x, 200, &out);
}

void api_service(struct exchange *x)
{
    node_service(x->api->node, x->req.arg, on_service, x);
}

void api_health(struct exchange *x)
{
    struct node_check checks[NODE_CHECKS_MAX];
    struct buf out = BUF_INIT(1 << 16);
    size_t count = node_checks(x->api->node, checks);
    bool ok = true;
    for (size_t i = 0; i < count; i++)
        ok = ok && checks[i].ok;
    buf_addf(&out, "{\"ok\":%s,\"checks\":[", ok ? "true" : "false");
    for (size_t i = 0; i < count; i++) {
        buf_addf(&out, "%s{\"name\":\"%s\",\"ok\":%s", i ? "," : "", checks[i].name,
                 checks[i].ok ? "true" : "false");
        api_print_instant(&out, "since", checks[i].since_ms);
        api_print_text(&out, "detail", checks[i].detail);
        buf_add_char(&out, '}');
    }
    buf_add_str(&out, "]}");
    exchange_json(x, 200, &out);
}
