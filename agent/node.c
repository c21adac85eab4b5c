/* The running agent as the API sees it. */
#include "agent/node.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/core/ownership/ownership.h"
#include "agent/node_private.h"
#include "agent/version.h"
#include "callback/dispatch.h"
#include "consul/membership.h"

#define SERVICE_WAIT_MS     2000
#define SERVICE_LOOK_MS     20
#define ENDPOINTS_SHOWN_MAX 10000

/* --- any thread ---------------------------------------------------------------------------------------------------- */

const struct config *node_config(const struct node *n)
{
    return atomic_load(&n->shown_config);
}

static bool no_secret_known(void *arg, const char *ns, const char *name, size_t name_len)
{
    (void)arg;
    (void)ns;
    (void)name;
    (void)name_len;
    return false;
}

void node_job_defaults(const struct node *n, struct job_defaults *ret)
{
    config_job_defaults(node_config(n), ret);
    if (!n->consul && !node_config(n)->callback.secrets_dir) {
        ret->secret_known = no_secret_known; /* there is no other agent either that could have it */
    } else if (n->safety) {
        ret->secret_known = safety_secret_known;
        ret->secret_arg = n->safety;
    }
}

struct loop *node_loop(const struct node *n)
{
    return n->loop;
}

struct tzload *node_zones(const struct node *n)
{
    return n->zones;
}

int64_t node_now_ms(const struct node *n)
{
    return clock_guard_now_ms(n->clock);
}

bool node_store_open(const struct node *n)
{
    return node_is_client(n) || atomic_load(&n->store_open);
}

uint32_t node_slots(const struct node *n)
{
    return node_store_open(n) ? n->meta.slots : 0;
}

bool node_slot_is_mine(const struct node *n, uint16_t slot)
{
    return node_store_open(n) && slot < n->meta.slots &&
           (atomic_load(&n->owned[slot / 64]) >> (slot % 64) & 1);
}

bool node_is_client(const struct node *n)
{
    return node_config(n)->agent.role == CONFIG_ROLE_CLIENT;
}

const char *node_member(const struct node *n)
{
    return atomic_load(&n->shown_member);
}

const char *node_peer_address(const struct node *n)
{
    return atomic_load(&n->shown_address);
}

const char *node_cluster_secret(const struct node *n, size_t *ret_bytes)
{
    *ret_bytes = n->secret_bytes;
    return n->secret;
}

const struct capability *node_capability(const struct node *n)
{
    return !node_is_client(n) && atomic_load(&n->store_open) ? &n->capability : NULL;
}

bool node_ready(const struct node *n)
{
    return atomic_load(&n->ready);
}

int64_t node_last_turn_ms(const struct node *n)
{
    return loop_last_turn_ms(n->loop);
}

void node_count_request(struct node *n, const char *route, int status, uint64_t duration_us)
{
    char code[16];
    (void)snprintf(code, sizeof(code), "%d", status);
    metrics_observe(n->metrics, METRIC_API_DURATION, route, code, (double)duration_us / 1e6);
}

void node_count_rejected(struct node *n, const char *code)
{
    metrics_add(n->metrics, METRIC_REQUESTS_REJECTED, code, NULL, NULL, 1);
}

void node_count_events_dropped(struct node *n, bool peer, uint64_t count)
{
    metrics_add(n->metrics, METRIC_EVENTS_DROPPED, peer ? "peer" : "client", NULL, NULL, (double)count);
}

/* --- owners and members -------------------------------------------------------------------------------------------- */

void node_owner_of(const struct node *n, uint16_t slot, struct node_owner *ret)
{
    *ret = (struct node_owner){0};
    if (!n->engine)
        return;
    const char *owner = engine_owner(n->engine, slot, &ret->epoch);
    const struct store_member *m = owner[0] ? engine_find_member(n->engine, owner) : NULL;
    (void)snprintf(ret->member, sizeof(ret->member), "%s", owner);
    ret->self = engine_owns(n->engine, slot);
    ret->known = ret->self || (m && !m->dead);
    if (!m)
        return;
    memcpy(ret->name, m->name, sizeof(ret->name));
    memcpy(ret->address, m->address, sizeof(ret->address));
}

bool node_owns(const struct node *n, uint16_t slot)
{
    return n->engine && engine_owns(n->engine, slot);
}

void node_owner_hint(struct node *n, uint16_t slot, uint64_t epoch, const char *owner)
{
    if (n->engine)
        engine_owner_hint(n->engine, slot, epoch, owner);
}

bool node_next_peer(const struct node *n, size_t *at, const char **ret_id, const char **ret_address)
{
    size_t count = 0;
    const struct store_member *members = n->engine ? engine_members(n->engine, &count) : NULL;
    while (*at < count) {
        const struct store_member *m = &members[(*at)++];
        if (m->dead || !m->address[0] || strcmp(m->id, engine_member(n->engine)) == 0)
            continue;
        *ret_id = m->id;
        *ret_address = m->address;
        return true;
    }
    return false;
}

const char *node_any_member(const struct node *n, unsigned try)
{
    if (n->member_addresses_count == 0)
        return NULL;
    return n->member_addresses[try % n->member_addresses_count];
}

void node_submit(struct node *n, struct planner_api *api, void (*done)(void *arg, struct planner_api *api),
                 void *arg)
{
    assert(n->engine); /* a slot is ours only in a life */
    engine_submit(n->engine, api, done, arg);
}

const struct store_ops *node_store(const struct node *n, void **ret_self)
{
    *ret_self = n->store_self;
    return n->store;
}

struct http_client *node_http(const struct node *n)
{
    return n->http;
}

struct telemetry *node_telemetry(struct node *n)
{
    return n->telemetry;
}

struct events *node_events(struct node *n)
{
    return n->events;
}

/* --- cluster ------------------------------------------------------------------------------------------------------- */

static const struct membership_member *consul_member(const struct node *n, const char *id)
{
    const struct membership_view *view = engine_membership_view(n->engine);
    for (size_t i = 0; view && i < view->count; i++)
        if (strcmp(view->members[i].id, id) == 0)
            return &view->members[i];
    return NULL;
}

static void show_member(const struct node *n, const struct store_member *m, struct node_member_view *ret)
{
    const struct membership_member *c = consul_member(n, m->id);
    bool self = strcmp(m->id, engine_member(n->engine)) == 0;
    *ret = (struct node_member_view){.id = m->id,
                                     .name = m->name,
                                     .address = m->address,
                                     .zone = m->zone,
                                     .weight = m->weight,
                                     .version = c      ? c->version
                                                : self ? version_text()
                                                       : "",
                                     .config_digest = c      ? c->config_digest
                                                      : self ? n->config_digest
                                                             : "",
                                     .tzdata = c      ? c->tzdata
                                               : self ? tzload_version(n->zones)
                                                      : "",
                                     .started_ms = c      ? c->started_ms
                                                   : self ? n->started_ms
                                                          : RECORD_NONE,
                                     .state = c && c->leaving ? "leaving" : "active"};
    if (self && (n->state == NODE_LEAVING || n->draining))
        ret->state = "leaving";
    else if (n->consul && !c && !self)
        ret->state = "suspect"; /* the store has it alive, Consul does not list it */
}

static void count_slots(const struct node *n, struct node_member_view *members, size_t count)
{
    for (uint32_t slot = 0; slot < n->meta.slots; slot++) {
        const char *owner = engine_owner(n->engine, (uint16_t)slot, NULL);
        for (size_t i = 0; i < count; i++)
            if (strcmp(members[i].id, owner) == 0) {
                members[i].slots++;
                break;
            }
    }
}

static size_t show_members(struct node *n)
{
    size_t count, shown = 0;
    const struct store_member *members = engine_members(n->engine, &count);
    mem_free(n->view_members);
    n->view_members = mem_new_array(struct node_member_view, count + 1);
    for (size_t i = 0; i < count; i++)
        if (!members[i].dead)
            show_member(n, &members[i], &n->view_members[shown++]);
    count_slots(n, n->view_members, shown);
    return shown;
}

/* The log knows agents by their names; NULL: no member now has the leader's. */
static const char *leading_member(const struct node_cluster_view *v)
{
    for (size_t i = 0; v->raft && i < v->raft->voters_count; i++)
        for (size_t m = 0; v->raft->voters[i].number == v->raft->leader && m < v->members_count; m++)
            if (strcmp(v->members[m].name, v->raft->voters[i].name) == 0)
                return v->members[m].id;
    return NULL;
}

void node_cluster(struct node *n, struct node_cluster_view *ret)
{
    *ret = (struct node_cluster_view){.cluster = n->config->cluster.name,
                                      .mode = n->consul ? "consul" : "standalone",
                                      .store_driver = node_is_client(n) ? "" : n->config->store.driver,
                                      .store_version = node_store_version(n),
                                      .store_ok = n->store && n->store->stats(n->store_self)->ok,
                                      .consul_ok = !n->consul || consul_client_health(n->consul)->ok,
                                      .slots_total = n->meta.slots,
                                      .raft = node_show_raft(n)};
    if (!n->engine)
        return;
    const struct ownership_view *view = engine_ownership_view(n->engine);
    ret->members_count = show_members(n);
    ret->members = n->view_members;
    ret->store_leader = leading_member(ret);
    ret->slots_owned = view->owned;
    ret->slots_unowned = view->unowned;
    ret->slots_moving = view->moving;
}

void node_fini_views(struct node *n)
{
    mem_free(n->view_members);
    mem_free(n->raft_shown);
}

/* --- checks -------------------------------------------------------------------------------------------------------- */

static int64_t wall_of_boot(const struct node *n, int64_t boot_ms)
{
    return boot_ms + clock_guard_offset_us(n->clock) / 1000;
}

static struct node_check *add_check(struct node_check *list, size_t *count, const char *name, bool ok,
                                    int64_t since_ms)
{
    struct node_check *c = &list[(*count)++];
    *c = (struct node_check){.name = name, .ok = ok, .since_ms = since_ms};
    return c;
}

size_t node_checks(struct node *n, struct node_check ret[NODE_CHECKS_MAX])
{
    size_t count = 0;
    struct node_check *c;
    if (n->store) {
        const struct store_stats *s = n->store->stats(n->store_self);
        const char *waits = n->voter ? voter_agent_waits(n->voter) : "";
        bool ok = s->ok && !waits[0];
        c = add_check(ret, &count, "store", ok, s->since_ms);
        (void)snprintf(c->detail, sizeof(c->detail), "%s", waits[0] ? waits : s->ok ? "" : s->detail);
    }
    if (!n->store && !node_is_client(n)) {
        c = add_check(ret, &count, "store", false, n->started_ms);
        (void)snprintf(c->detail, sizeof(c->detail), "%s", n->store_trouble.text);
    }
    if (n->consul) {
        const struct consul_health *h = consul_client_health(n->consul);
        c = add_check(ret, &count, "consul", h->ok, wall_of_boot(n, h->since_ms));
        (void)snprintf(c->detail, sizeof(c->detail), "%s", h->detail);
    }
    c = add_check(ret, &count, "clock", clock_guard_sure(n->clock),
                  wall_of_boot(n, clock_guard_since_ms(n->clock)));
    if (!c->ok)
        (void)snprintf(c->detail, sizeof(c->detail),
                       "differs by %lld ms from the store's clock, nothing is fired",
                       (long long)clock_guard_difference_ms(n->clock));
    if (n->engine) {
        int64_t since_ms;
        bool held = engine_lease_held(n->engine, &since_ms);
        c = add_check(ret, &count, "lease", held, since_ms ? wall_of_boot(n, since_ms) : n->started_ms);
        if (!held)
            (void)snprintf(c->detail, sizeof(c->detail),
                           "no beat reached the store in time, nothing is fired");
    }
    return count;
}

/* --- services ------------------------------------------------------------------------------------------------------ */

struct service_query {
    struct list list;
    struct node *node;
    struct engine *engine;
    struct endpoints_service *service;
    struct loop_timer *timer;
    int64_t until_ms;
    char name[160];
    node_service_done *done;
    void *arg;
};

static void answer_service(struct service_query *q)
{
    struct dispatch *d = engine_dispatch(q->engine);
    struct node_endpoint *list = mem_new_array(struct node_endpoint, ENDPOINTS_SHOWN_MAX);
    size_t count = 0;
    struct balance_view view;
    for (size_t at = 0; count < ENDPOINTS_SHOWN_MAX && dispatch_next_endpoint(d, q->service, &at, &view);) {
        struct node_endpoint *ep = &list[count++];
        *ep = (struct node_endpoint){.health = view.ejected ? "ejected" : "passing",
                                     .weight = view.weight,
                                     .in_flight = view.in_flight,
                                     .failures = view.failures,
                                     .latency_ms = (double)view.latency_us / 1000,
                                     .ejected_until_ms =
                                         view.ejected ? wall_of_boot(q->node, (int64_t)view.ejected_until_ms)
                                                      : RECORD_NONE};
        (void)snprintf(ep->address, sizeof(ep->address), "%s", view.address);
    }
    struct dispatch_service_view s;
    dispatch_service_view(d, q->name, &s);
    struct node_service_view shown = {.policy = balance_policy_name(s.policy),
                                      .rate_per_s = s.rate_per_s,
                                      .rate_here_per_s = s.rate_here_per_s,
                                      .in_flight = s.in_flight,
                                      .waiting = s.waiting,
                                      .endpoints = list,
                                      .endpoints_count = count};
    q->done(q->arg, count > 0 ? &shown : NULL);
    mem_free(list);
}

static void end_query(struct service_query *q)
{
    list_remove(&q->list);
    answer_service(q);
    endpoints_release(q->service);
    loop_timer_free(q->timer);
    mem_free(q);
}

static void look_service(void *arg)
{
    struct service_query *q = arg;
    if (!endpoints_heard(q->service) && loop_now_ms(q->node->loop) < q->until_ms)
        loop_timer_arm(q->timer, SERVICE_LOOK_MS);
    else
        end_query(q);
}

void node_end_queries(struct node *n)
{
    while (!list_empty(&n->service_queries))
        end_query(container_of(n->service_queries.next, struct service_query, list));
}

void node_service(struct node *n, const char *name, node_service_done *done, void *arg)
{
    bool able = n->engine && !n->retired && strlen(name) < sizeof(((struct service_query *)0)->name);
    struct endpoints_service *service = able ? endpoints_use(engine_endpoints(n->engine), name, "") : NULL;
    if (!service) {
        done(arg, NULL);
        return;
    }
    struct service_query *q = mem_new(struct service_query);
    *q = (struct service_query){.node = n, .engine = n->engine, .service = service, .done = done, .arg = arg};
    memcpy(q->name, name, strlen(name) + 1);
    list_push_back(&n->service_queries, &q->list);
    q->until_ms = loop_now_ms(n->loop) + SERVICE_WAIT_MS;
    q->timer = loop_timer_new(n->loop, look_service, q);
    loop_timer_arm(q->timer, 0);
}

static enum endpoints_state service_state(struct node *n, const char *name)
{
    struct endpoints *table = engine_endpoints(n->engine);
    enum endpoints_state state = endpoints_state(table, name, "");
    struct endpoints_service *s = state == ENDPOINTS_UNHEARD ? endpoints_use(table, name, "") : NULL;
    if (s) /* it is watched from now on: Consul answers before the write is durable */
        endpoints_release(s);
    return state;
}

bool node_service_unknown(struct node *n, const char *name)
{
    return n->engine && service_state(n, name) == ENDPOINTS_NONE;
}

bool node_service_unheard(struct node *n, const char *name)
{
    return n->engine && service_state(n, name) == ENDPOINTS_UNHEARD;
}

void node_peer_message(struct node *n, const char *path, const char *body, size_t bytes, node_peer_done *done,
                       void *arg)
{
    if (n->engine)
        engine_peer_message(n->engine, path, body, bytes, done, arg);
    else if (strcmp(path, "who") == 0)
        done(arg, 200, "{\"member\":\"\"}"); /* no member yet, so none that had this address before */
    else
        done(arg, 503, "{}");
}

/* --- metrics ------------------------------------------------------------------------------------------------------- */

struct target_sums {
    struct metrics *metrics;
    int64_t oldest_ms;
};

/* What direct targets have is summed up without a name: their hosts are as many as users like. */
static void add_target(void *arg, const struct planner_target_view *view)
{
    struct target_sums *sums = arg;
    metrics_set_more(sums->metrics, METRIC_RETRIES_WAITING, view->service ? view->service : "",
                     (double)view->retries_waiting);
    if (view->oldest_ms != RECORD_NONE && view->oldest_ms < sums->oldest_ms)
        sums->oldest_ms = view->oldest_ms;
}

/* Ms that the oldest due has been waiting: to be started, for an endpoint, or in its target's line. */
static int64_t overdue_ms(const struct node *n, int64_t booked_ms)
{
    const struct planner_stats *s = engine_planner_stats(n->engine);
    struct dispatch_stats d = dispatch_stats(engine_dispatch(n->engine));
    int64_t now_ms = node_now_ms(n), since_ms = booked_ms;
    if (s->oldest_overdue_ms != RECORD_NONE && s->oldest_overdue_ms < since_ms)
        since_ms = s->oldest_overdue_ms;
    int64_t late_ms = since_ms == INT64_MAX ? 0 : now_ms - since_ms;
    int64_t line_ms = d.oldest_ms == INT64_MAX ? 0 : loop_now_ms(n->loop) - d.oldest_ms;
    return late_ms > line_ms ? late_ms : line_ms;
}

static void set_planner_gauges(struct node *n)
{
    const struct planner_stats *s = engine_planner_stats(n->engine);
    struct target_sums sums = {.metrics = n->metrics, .oldest_ms = INT64_MAX};
    metrics_clear(n->metrics, METRIC_RETRIES_WAITING);
    planner_each_target(engine_planner(n->engine), add_target, &sums);
    int64_t overdue = overdue_ms(n, sums.oldest_ms);
    metrics_set(n->metrics, METRIC_JOBS_LOADED, NULL, NULL, NULL, (double)s->jobs_loaded);
    metrics_set(n->metrics, METRIC_PENDING_FIRES, NULL, NULL, NULL, (double)s->fires_loaded);
    metrics_set(n->metrics, METRIC_OLDEST_OVERDUE, NULL, NULL, NULL,
                overdue > 0 ? (double)overdue / 1000 : 0);
}

static void set_dispatch_gauges(struct node *n)
{
    struct dispatch *d = engine_dispatch(n->engine);
    struct dispatch_group_view g;
    metrics_clear(n->metrics, METRIC_IN_FLIGHT);
    metrics_clear(n->metrics, METRIC_ENDPOINTS_EJECTED);
    for (size_t at = 0; dispatch_next_group(d, &at, &g);) {
        metrics_set_more(n->metrics, METRIC_IN_FLIGHT, g.service ? g.service : "", (double)g.in_flight);
        if (g.service)
            metrics_set_more(n->metrics, METRIC_ENDPOINTS_EJECTED, g.service, (double)g.ejected);
    }
}

static void set_ownership_gauges(struct node *n)
{
    const struct ownership_view *v = engine_ownership_view(n->engine);
    int64_t left = v->lease_until_ms - (int64_t)clock_boot_ms();
    metrics_set(n->metrics, METRIC_SLOTS_OWNED, NULL, NULL, NULL, (double)v->owned);
    metrics_set(n->metrics, METRIC_SLOTS_UNOWNED, NULL, NULL, NULL, (double)v->unowned);
    metrics_set(n->metrics, METRIC_MEMBERS, NULL, NULL, NULL, (double)v->members);
    metrics_set(n->metrics, METRIC_LEASE_REMAINING, NULL, NULL, NULL, left > 0 ? (double)left / 1000 : 0);
}

void node_print_metrics(struct node *n, struct buf *out)
{
    if (n->engine) {
        set_planner_gauges(n);
        set_dispatch_gauges(n);
        set_ownership_gauges(n);
    }
    node_set_raft_gauges(n);
    metrics_set(n->metrics, METRIC_CLOCK_OFFSET, NULL, NULL, NULL,
                (double)clock_guard_difference_ms(n->clock) / 1000);
    metrics_set(n->metrics, METRIC_BUILD_INFO, version_text(), version_commit(), NULL, 1);
    metrics_set(n->metrics, METRIC_LOG_LINES_DROPPED, NULL, NULL, NULL, (double)log_dropped());
    metrics_print(n->metrics, out);
}
