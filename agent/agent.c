#include "agent/agent.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/io/file.h"
#include "agent/io/http.h"
#include "agent/io/pages.h"
#include "agent/events.h"
#include "agent/node_private.h"
#include "agent/version.h"
#include "consul/consul_self.h"

#define HTTP_CONNECTIONS 256
#define ADDRESS_RETRY_MS 1000
#define VACUUM_MS        60000
#define VACUUM_MORE_MS   250 /* while what ends is more than a bite a minute */
#define SETTLED_MS       10000
#define LAST_WORDS_MS    1000
#define LEAVE_MS         10000 /* for a voter's place to be given away */
#define LEAVE_LOOK_MS    100

extern char **environ;

static const struct log_ctx log_here = {.module = "agent"};

/* --- opening: what blocks, before the loop runs -------------------------------------------------------------------- */

/* Signals wait from the beginning until the loop takes them: by default they would end the process without a word, and the
 * first one of a container would not hear them at all. */
static void hold_signals(sigset_t *ret_set)
{
    (void)sigemptyset(ret_set); /* cannot fail, as the next */
    (void)sigaddset(ret_set, SIGTERM);
    (void)sigaddset(ret_set, SIGINT);
    (void)sigaddset(ret_set, SIGHUP);
    (void)sigaddset(ret_set, SIGUSR1);
    (void)pthread_sigmask(SIG_BLOCK, ret_set, NULL);
}

static int open_telemetry(struct node *n, struct err *e)
{
    const struct config *c = n->config;
    const char *given = getenv("OTEL_EXPORTER_OTLP_ENDPOINT"), *endpoint = c->telemetry.otlp_endpoint;
    if (!endpoint && given && *given)
        endpoint = given;
    if (!endpoint)
        return 0;
    struct telemetry_options o = {.loop = n->loop,
                                  .metrics = n->metrics,
                                  .endpoint = endpoint,
                                  .ratio = c->telemetry.sample_ratio,
                                  .cluster = c->cluster.name,
                                  .instance = c->agent.name,
                                  .version = version_text()};
    return telemetry_new(&o, &n->telemetry, e);
}

static int open_consul(struct node *n, struct err *e)
{
    struct consul_client_options options;
    if (n->config->cluster.mode != CONFIG_MODE_CONSUL)
        return 0;
    config_consul_options(n->config, (const char *const *)environ, &options);
    return consul_client_new(n->loop, &options, &n->consul, e);
}

static int read_secret(struct node *n, struct err *e)
{
    if (!n->config->cluster.secret_file)
        return 0;
    int rc = file_read_secret(n->config->cluster.secret_file, &n->secret, &n->secret_bytes, e);
    return rc < 0 ? err_wrap(e, "cluster.secret_file") : 0;
}

static struct guard_options guard_options(const struct config *c)
{
    const struct config_callback *cb = &c->callback;
    return (struct guard_options){.allow = (const char *const *)cb->allow.items,
                                  .allow_count = cb->allow.count,
                                  .deny = (const char *const *)cb->deny.items,
                                  .deny_count = cb->deny.count,
                                  .allow_loopback = cb->allow_loopback};
}

static int open_safety(struct node *n, struct err *e)
{
    if (node_is_client(n))
        return 0;
    struct safety_options options = {.loop = n->loop,
                                     .signing_keys_file = n->config->callback.signing_keys_file,
                                     .secrets_dir = n->config->callback.secrets_dir,
                                     .guard = guard_options(n->config)};
    return safety_new(&options, &n->safety, e);
}

static void on_clock(void *arg, bool sure);

/* That of a log's cluster begins on the loop: it needs Consul. */
static int open_store(struct node *n, struct err *e)
{
    if (config_is_raft_cluster(n->config))
        return 0;
    int rc = node_check_alone(n, e);
    return rc < 0 ? rc : node_try_store(n, e);
}

static int open_node(struct node *n, struct err *e)
{
    int rc = loop_new(&n->loop, e);
    if (rc == 0)
        rc = clock_guard_new(n->loop, !node_is_client(n), on_clock, n, &n->clock, e);
    if (rc == 0)
        rc = tzload_new(NULL, &n->zones, e);
    if (rc == 0)
        rc = http_client_new(n->loop, HTTP_CONNECTIONS, &n->http, e);
    if (rc == 0)
        rc = open_telemetry(n, e);
    if (rc == 0)
        rc = read_secret(n, e);
    if (rc == 0)
        rc = open_safety(n, e);
    if (rc == 0)
        rc = open_consul(n, e);
    if (rc == 0 && !node_is_client(n))
        rc = open_store(n, e);
    if (rc < 0)
        return rc;
    n->started_ms = node_now_ms(n);
    config_digest(n->config, n->config_digest);
    return 0;
}

/* --- a member's lives ---------------------------------------------------------------------------------------------- */

void node_fail(struct node *n, const struct err *e)
{
    n->failure = *e;
    n->exit_code = 1;
    loop_stop(n->loop);
}

static void on_clock(void *arg, bool sure)
{
    struct node *n = arg;
    (void)sure; /* the guard has logged it */
    if (n->engine)
        engine_clock_changed(n->engine);
}

static void on_joined(void *arg)
{
    struct node *n = arg;
    if (n->state == NODE_STARTING) {
        n->state = NODE_RUNNING;
        log_info(&log_here, "ready", "member=%s", engine_member(n->engine));
    }
    atomic_store(&n->ready, n->state == NODE_RUNNING && !n->draining);
    if (n->draining) /* as the life before this one was told */
        engine_drain(n->engine);
}

static void on_rejoin(void *arg)
{
    struct node *n = arg;
    n->retired = n->engine;
    loop_defer(n->loop, &n->rebirth);
}

/* Lives that have ended make room for one more. */
static int reserve_life(struct node *n, struct err *e)
{
    size_t kept = 0;
    for (size_t i = 0; i < n->lives_count; i++)
        if (engine_ended(n->lives[i]))
            engine_free(n->lives[i]);
        else
            n->lives[kept++] = n->lives[i];
    n->lives_count = kept;
    struct engine **lives = mem_try_realloc(n->lives, kept + 1, sizeof(struct engine *), e);
    if (!lives)
        return -ERR_NOMEM;
    n->lives = lives;
    return 0;
}

static int new_life(struct node *n, struct err *e)
{
    uint64_t id, seed;
    char *member = n->names[n->names_next++ % NODE_NAMES_MAX];
    int rc = rng_seed_os(&id, e);
    if (rc == 0)
        rc = rng_seed_os(&seed, e);
    if (rc == 0)
        rc = reserve_life(n, e);
    if (rc < 0)
        return rc;
    (void)snprintf(member, RECORD_MEMBER_MAX, "%s.%012llx", n->config->agent.name,
                   (unsigned long long)(id >> 16));
    struct engine_options options = {.loop = n->loop,
                                     .config = n->config,
                                     .store = n->store,
                                     .store_self = n->store_self,
                                     .slots = n->meta.slots,
                                     .consul = n->consul,
                                     .http = n->http,
                                     .clock = n->clock,
                                     .metrics = n->metrics,
                                     .events = n->events,
                                     .safety = n->safety,
                                     .capability = &n->capability,
                                     .telemetry = n->telemetry,
                                     .quotas = n->quotas,
                                     .tzdata = tzload_version(n->zones),
                                     .member = member,
                                     .peer_host = n->peer_host,
                                     .peer_port = n->peer_port,
                                     .secret = n->secret,
                                     .secret_bytes = n->secret_bytes,
                                     .config_digest = n->config_digest,
                                     .started_ms = n->started_ms,
                                     .seed = seed,
                                     .owned = n->owned,
                                     .joined = on_joined,
                                     .rejoin = on_rejoin,
                                     .arg = n};
    rc = engine_new(&options, &n->engine, e);
    if (rc < 0)
        return err_wrap(e, "start as member '%s'", member);
    n->lives[n->lives_count++] = n->engine;
    atomic_store(&n->shown_member, member);
    return 0;
}

static void begin_end(struct node *n);

static void on_retired(void *arg)
{
    struct node *n = arg;
    struct err e = {0};
    n->engine = n->retired = NULL;
    if (n->ending) /* told to end between two lives */
        begin_end(n);
    else if (new_life(n, &e) < 0)
        node_fail(n, &e);
}

/* Declared dead: the next life begins when nothing of this one is under way in the store any more. */
static void rebirth(struct loop_msg *msg)
{
    struct node *n = container_of(msg, struct node, rebirth);
    node_end_queries(n);
    engine_retire(n->retired, on_retired, n);
}

static void on_vacuumed(void *arg, const struct err *e, bool more)
{
    struct node *n = arg;
    if (e->code != ERR_OK && e->code != ERR_CANCELLED)
        log_warn(&log_here, "old rows were not removed this time", "error=%s", LOGQ(e->text));
    if (e->code != ERR_CANCELLED && !n->ending)
        loop_timer_arm(n->vacuum_timer, more ? VACUUM_MORE_MS : VACUUM_MS);
}

static void vacuum(void *arg)
{
    struct node *n = arg;
    struct store_vacuum what = {.now_ms = node_now_ms(n), .fires_max = NODE_HISTORY_MAX};
    n->store->vacuum(n->store_self, &what, on_vacuumed, n);
}

/* Exactly one member has the first slot, so its count is the cluster's. */
static bool counts_for_all(void *arg, const struct store_ops **ret_store, void **ret_self)
{
    const struct node *n = arg;
    if (!n->store || !node_slot_is_mine(n, 0))
        return false;
    *ret_store = n->store;
    *ret_self = n->store_self;
    return true;
}

static int64_t audit_now_ms(void *arg)
{
    return node_now_ms(arg);
}

static int begin_census(struct node *n, struct err *e)
{
    const struct config *c = n->config;
    struct census_options o = {.loop = n->loop,
                               .metrics = n->metrics,
                               .certs = {c->api.tls_cert, c->cluster.tls_cert, c->consul.tls_cert},
                               .counts = counts_for_all,
                               .audit_every_ms = (int64_t)c->audit.every_ms,
                               .keep_for_ms = (int64_t)c->history.keep_for_ms,
                               .tzdata = tzload_version(n->zones),
                               .now_ms = audit_now_ms,
                               .arg = n};
    return census_new(&o, &n->census, e);
}

/* --- a client's members -------------------------------------------------------------------------------------------- */

/* Other clusters may be registered under the same name of a service. */
static void on_members(void *arg, const struct consul_instances *list)
{
    struct node *n = arg;
    size_t used = 0;
    mem_free(n->member_addresses);
    n->member_addresses =
        (char(*)[160])(void *)mem_new_array(char, (list->count + 1) * sizeof(*n->member_addresses));
    for (size_t i = 0; i < list->count; i++) {
        const struct consul_instance *m = &list->items[i];
        if (strcmp(m->cluster, n->config->cluster.name) == 0)
            (void)snprintf(n->member_addresses[used++], sizeof(n->member_addresses[0]),
                           strchr(m->address, ':') ? "[%s]:%u" : "%s:%u", m->address, m->port);
    }
    n->member_addresses_count = used;
    if (n->state == NODE_STARTING && used > 0) {
        n->state = NODE_RUNNING;
        atomic_store(&n->ready, !n->draining);
        log_info(&log_here, "ready, requests go to the members", "members=%zu", used);
    }
}

static void start_client(struct node *n)
{
    n->member_watch = consul_service_watch_new(n->consul, n->config->consul.register_as, NULL, false,
                                               (uint64_t)n->started_ms, on_members, n);
}

/* --- starting on the loop ------------------------------------------------------------------------------------------ */

static int take_host(const char *address, const char *key, char ret[NODE_HOST_SIZE], uint16_t *ret_port,
                     struct err *e)
{
    size_t at, len;
    int rc = text_host_port(address, strlen(address), true, &at, &len, ret_port, e);
    if (rc < 0)
        return err_wrap(e, "%s", key);
    if (len >= NODE_HOST_SIZE)
        return err_set(e, ERR_INVALID, "%s: the host is too long", key);
    memcpy(ret, address + at, len);
    ret[len] = '\0';
    return 0;
}

static int set_peer_host(struct node *n, const char *listen, struct err *e)
{
    const char *shown = n->config->cluster.advertise ? n->config->cluster.advertise : listen;
    uint16_t port;
    int rc = take_host(listen, "cluster.listen", n->peer_host_own, &port, e);
    if (rc == 0)
        rc = take_host(shown, "cluster.advertise", n->peer_host, &port, e);
    if (rc < 0)
        return rc;
    n->peer_port = n->config->cluster.advertise && port ? port : (uint16_t)api_peer_port(n->api);
    (void)snprintf(n->peer_address, sizeof(n->peer_address), strchr(n->peer_host, ':') ? "[%s]:%u" : "%s:%u",
                   n->peer_host, n->peer_port); /* sized for it */
    atomic_store(&n->shown_address, n->peer_address);
    return 0;
}

int node_begin_firing(struct node *n, struct err *e)
{
    loop_timer_arm(n->vacuum_timer, VACUUM_MS);
    n->quotas = quotas_new(n->loop, n->config);
    quotas_set_store(n->quotas, n->store, n->store_self);
    return new_life(n, e);
}

static int start_serving(struct node *n, const char *peer_listen, struct err *e)
{
    int rc = 0;
    if (peer_listen)
        rc = config_check_peer_listen(n->config, peer_listen, e);
    if (rc == 0)
        rc = api_start(n, n->config, peer_listen, &n->api, e);
    if (rc == 0 && peer_listen)
        rc = set_peer_host(n, peer_listen, e);
    if (rc < 0)
        return rc;
    if (n->safety)
        safety_listeners_changed(n->safety); /* before the first job could call them */
    if (n->config->app.register_service && !n->draining)
        n->app = app_service_new(n->consul, n->config, n->peer_host);
    if (node_is_client(n))
        start_client(n);
    else
        rc = node_start_store(n, e);
    return rc;
}

/* The address that the Consul agent advertises is how others reach this machine. */
static void on_self(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct node *n = arg;
    struct err own = {0};
    char listen[200];
    struct consul_self self = {0};
    if (e->code == ERR_CANCELLED || n->ending)
        return;
    if (e->code == ERR_OK)
        (void)consul_self_parse(reply->body, reply->body_bytes, &self, &own); /* no address then */
    const char *address = self.address;
    if (!address[0]) {
        log_warn(&log_here,
                 "Consul does not tell its address yet (set cluster.listen to do without), trying again",
                 "error=%s", LOGQ(e->text));
        loop_timer_arm(n->address_timer, ADDRESS_RETRY_MS);
    } else {
        (void)snprintf(listen, sizeof(listen), strchr(address, ':') ? "[%s]:%d" : "%s:%d", address,
                       CONFIG_PEER_PORT);
        if (start_serving(n, listen, &own) < 0)
            node_fail(n, &own);
    }
}

static void ask_address(void *arg)
{
    struct node *n = arg;
    struct consul_request request = {.method = "GET", .path = CONSUL_SELF_PATH};
    (void)consul_send(n->consul, &request, on_self, n); /* ends with the client */
}

static int start_node(struct node *n, struct err *e)
{
    const char *listen = n->config->cluster.listen;
    if (node_is_client(n) || !n->consul)
        return start_serving(n, NULL, e);
    if (listen)
        return start_serving(n, listen, e);
    loop_timer_arm(n->address_timer, 0);
    return 0;
}

/* --- reload -------------------------------------------------------------------------------------------------------- */

static void log_difference(void *arg, const char *key, bool applied)
{
    (void)arg;
    if (applied)
        log_info(&log_here, "option applied", "key=%s", LOGQ(key));
    else
        log_warn(&log_here, "option changed, but needs a restart", "key=%s", LOGQ(key));
}

/* Other threads are reading what was in force so far, so it stays as it is. */
static void put_in_force(struct node *n, struct config *next)
{
    struct node_reload *r = mem_new(struct node_reload);
    r->read = next;
    r->merged = config_merge(n->start->config, next);
    list_push_back(&n->reloads, &r->list);
    n->config = r->merged;
    atomic_store(&n->shown_config, r->merged);
}

static void free_reloads(struct node *n)
{
    while (!list_empty(&n->reloads)) {
        struct node_reload *r = container_of(n->reloads.next, struct node_reload, list);
        list_remove(&r->list);
        mem_free(r->merged);
        config_free(r->read);
        mem_free(r);
    }
}

static void reload_failed(struct node *n, const struct option_errors *errors, const struct err *e)
{
    for (size_t i = 0; i < errors->lines.count; i++)
        log_error(&log_here, "configuration not reloaded", "error=%s", LOGQ(errors->lines.items[i]));
    if (errors->lines.count == 0)
        log_error(&log_here, "configuration not reloaded", "error=%s", LOGQ(e->text));
    metrics_set(n->metrics, METRIC_CONFIG_RELOAD_OK, NULL, NULL, NULL, 0);
}

static void reload(struct node *n)
{
    AUTO(option_errors_fini) struct option_errors errors = {0};
    struct config *next;
    struct err e = {0};
    if (config_load(n->start->config_file, n->start->sets, n->start->sets_count, (const char *const *)environ,
                    &next, &errors, &e) < 0) {
        reload_failed(n, &errors, &e);
        return;
    }
    config_diff(n->config, next, log_difference, NULL);
    put_in_force(n, next);
    log_set((enum log_level)n->config->log.level, (enum log_format)n->config->log.format);
    struct guard_options guard = guard_options(n->config);
    if (n->safety && safety_set_guard(n->safety, &guard, &e) < 0)
        log_error(&log_here, "callback.allow and callback.deny stay as they were", "error=%s", LOGQ(e.text));
    if (n->engine)
        engine_reload(n->engine, n->config);
    quotas_reload(n->quotas, n->config);
    if (n->api)
        api_reload(n->api);
    metrics_set(n->metrics, METRIC_CONFIG_RELOAD_OK, NULL, NULL, NULL, 1);
    log_info(&log_here, "configuration reloaded", "");
}

static void on_reload(void *arg, int signum)
{
    (void)signum;
    reload(arg);
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

static void stop_loop(void *arg)
{
    struct node *n = arg;
    loop_stop(n->loop);
}

/* The end is near: the application beside us may end before we do, so nobody is sent to it any more, and what is given away now
 * takes nothing of the time that we have then. Requests are served as ever. */
static void on_drain(void *arg, int signum)
{
    struct node *n = arg;
    (void)signum;
    if (n->ending || n->draining)
        return;
    log_info(&log_here, "draining: slots are given away, requests are passed on until the end", "");
    n->draining = true;
    atomic_store(&n->ready, false);
    if (n->app)
        app_service_stop(n->app, LAST_WORDS_MS, NULL, NULL);
    if (n->engine && n->consul)
        engine_drain(n->engine);
}

/* Everything is given away: the application's service goes last of what others see. */
static void begin_end(struct node *n)
{
    if (n->voter && !voter_agent_left(n->voter) && loop_now_ms(n->loop) < n->leave_until_ms) {
        loop_timer_arm(n->leave_timer, LEAVE_LOOK_MS);
        return;
    }
    n->state = NODE_STOPPED;
    if (n->api)
        api_quiesce_public(n->api);
    if (n->app)
        app_service_stop(n->app, LAST_WORDS_MS, stop_loop, n);
    else
        loop_stop(n->loop);
}

static void on_leave_look(void *arg)
{
    begin_end(arg);
}

static void on_left(void *arg, bool clean)
{
    struct node *n = arg;
    log_info(&log_here,
             clean ? "left the cluster"
                   : "left the cluster with callbacks in flight, their new owners repeat them",
             "");
    begin_end(n);
}

static void on_terminate(void *arg, int signum)
{
    struct node *n = arg;
    if (n->ending) {
        log_warn(&log_here, "told again to end, not waiting any longer", "signal=%d", signum);
        loop_stop(n->loop);
        return;
    }
    log_info(&log_here, "ending", "signal=%d grace_ms=%llu", signum,
             (unsigned long long)n->config->agent.shutdown_grace_ms);
    n->ending = true;
    n->state = NODE_LEAVING;
    atomic_store(&n->ready, false);
    loop_timer_stop(n->vacuum_timer);
    loop_timer_stop(n->store_timer);
    loop_timer_stop(n->address_timer);
    n->leave_until_ms = loop_now_ms(n->loop) + LEAVE_MS;
    node_leave_store(n);
    if (n->retired)
        return; /* between two lives: the end goes on when the old one is over */
    if (n->engine)
        engine_leave(n->engine, (int64_t)n->config->agent.shutdown_grace_ms, on_left, n);
    else
        begin_end(n);
}

/* Whether every life has ended. */
static bool all_ended(const struct node *n)
{
    for (size_t i = 0; i < n->lives_count; i++)
        if (!engine_ended(n->lives[i]))
            return false;
    return true;
}

static void close_node(struct node *n)
{
    node_end_queries(n);
    if (n->api)
        api_stop(n->api);
    app_service_free(n->app);
    consul_service_watch_free(n->member_watch);
    for (size_t i = 0; i < n->lives_count; i++)
        engine_free(n->lives[i]);
    mem_free(n->lives);
    safety_free(n->safety);
    census_stop(n->census);
    quotas_stop(n->quotas);
    if (n->store)
        n->store->close(n->store_self);
    voter_agent_free(n->voter);
    census_free(n->census);
    quotas_free(n->quotas);
    consul_client_free(n->consul);
    if (n->http)
        http_client_free(n->http);
    telemetry_free(n->telemetry);
    tzload_free(n->zones);
    clock_guard_free(n->clock);
    if (n->loop) {
        loop_timer_free(n->address_timer);
        loop_timer_free(n->vacuum_timer);
        loop_timer_free(n->settled_timer);
        loop_timer_free(n->store_timer);
        loop_timer_free(n->leave_timer);
        loop_free(n->loop);
    }
    if (n->secret)
        mem_free_secret(n->secret, n->secret_bytes);
    node_fini_views(n);
    mem_free(n->member_addresses);
    mem_free((void *)n->owned);
    free_reloads(n);
    metrics_free(n->metrics);
    events_free(n->events);
}

static int watch_signals(struct node *n, struct err *e)
{
    int rc = loop_signal(n->loop, SIGTERM, on_terminate, n, e);
    if (rc == 0)
        rc = loop_signal(n->loop, SIGINT, on_terminate, n, e);
    if (rc == 0)
        rc = loop_signal(n->loop, SIGHUP, on_reload, n, e);
    if (rc == 0)
        rc = loop_signal(n->loop, SIGUSR1, on_drain, n, e);
    (void)signal(SIGPIPE, SIG_IGN); /* a peer that closes is an error of the write */
    return rc;
}

static void observe_turn(void *arg, uint64_t turn_us)
{
    struct node *n = arg;
    metrics_observe(n->metrics, METRIC_LOOP_TURN, NULL, NULL, (double)turn_us / 1e6);
}

static void on_settled(void *arg)
{
    (void)arg;
    pages_give_back();
}

static int run_node(struct node *n, struct err *e)
{
    sigset_t held;
    hold_signals(&held);
    int rc = open_node(n, e);
    if (rc == -ERR_CANCELLED) { /* told to end before it began */
        err_clear(e);
        return 0;
    }
    if (rc < 0)
        return rc;
    n->address_timer = loop_timer_new(n->loop, ask_address, n);
    n->vacuum_timer = loop_timer_new(n->loop, vacuum, n);
    n->settled_timer = loop_timer_new(n->loop, on_settled, n);
    loop_timer_arm(n->settled_timer, SETTLED_MS);
    n->store_timer = loop_timer_new(n->loop, node_retry_store, n);
    n->leave_timer = loop_timer_new(n->loop, on_leave_look, n);
    loop_set_turn_observer(n->loop, observe_turn, n);
    rc = watch_signals(n, e);
    if (rc == 0)
        rc = begin_census(n, e);
    (void)pthread_sigmask(SIG_UNBLOCK, &held, NULL); /* what came meanwhile is the loop's first news */
    if (rc == 0)
        rc = start_node(n, e);
    if (rc < 0)
        return rc;
    loop_run(n->loop);
    if (n->exit_code != 0) {
        *e = n->failure;
        return -(int)e->code;
    }
    return 0;
}

/* Told twice to end, or unable to go on, the process does not take itself apart while the store and the lanes are at work, nor
 * runs what libraries left for exit(): the kernel does it, and the others take over as after a crash. */
static void drop_everything(int rc, const struct err *e)
{
    if (rc < 0)
        log_error(&log_here, "cannot go on", "error=%s", LOGQ(e->text));
    log_info(&log_here, "ended with work in flight", "");
    log_stop(LAST_WORDS_MS);
    _exit(rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* Left alone, glibc raises the size from which blocks are mapped to that of each one that is freed: pages of rows and texts of a
 * megabyte then stay with each thread for good, a third of an idle agent. */
static void give_back_large_blocks(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, 256 * 1024); /* without it only more memory is used */
#endif
}

int agent_run(const struct agent_start *start, struct err *e)
{
    struct node n = {.start = start, .config = start->config, .rebirth = {.run = rebirth}};
    struct err own = {0};
    atomic_init(&n.shown_config, start->config);
    atomic_init(&n.shown_member, "");
    atomic_init(&n.shown_address, NULL);
    list_init(&n.reloads);
    list_init(&n.service_queries);
    log_set((enum log_level)start->config->log.level, (enum log_format)start->config->log.format);
    give_back_large_blocks();
    int rc = log_start(2, e);
    if (rc < 0) {
        config_free(start->config);
        return rc;
    }
    log_info(&log_here, "starting", "version=%s name=%s", version_text(), start->config->agent.name);
    n.metrics = metrics_new();
    n.events = events_new();
    metrics_set(n.metrics, METRIC_CONFIG_RELOAD_OK, NULL, NULL, NULL, 1);
    rc = run_node(&n, e ? e : &own);
    if (!all_ended(&n))
        drop_everything(rc, e ? e : &own);
    close_node(&n);
    if (rc < 0) {
        struct err *told = e ? e : &own;
        log_error(&log_here, "cannot go on", "error=%s", LOGQ(told->text));
        told->text[0] = '\0';
    }
    log_info(&log_here, "ended", "");
    log_stop(LAST_WORDS_MS);
    config_free(start->config);
    return rc;
}
