#include "consul/membership.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"
#include "consul/consul_service.h"
#include "consul/consul_watch.h"

#define PASS_MS           1000
#define RETRY_MIN_MS      200
#define RETRY_MAX_MS      2000
#define MEMBERS_BYTES_MAX ((size_t)4 << 20)
#define MEMBERS_MAX       10000

static const struct log_ctx log_here = {.module = "membership"};

enum step { STEP_SERVICE, STEP_SESSION, STEP_KEY, STEP_JOINED, STEP_COUNT_ };

struct membership {
    struct consul_client *client;
    membership_changed *changed;
    void *arg;
    char *cluster, *member, *name, *host, *zone, *version, *config_digest, *tzdata, *register_as;
    char service_id[160], check_id[176], prefix[160];
    uint16_t port;
    uint32_t weight;
    int64_t started_ms, check_ttl_ms, session_ttl_ms;
    bool node_check, leaving, stopping, value_stale, cleared;
    enum step step;
    char session[64];
    unsigned failures;
    struct rng rng;
    struct loop_timer *step_timer, *pass_timer, *renew_timer, *stop_timer;
    struct consul_call *step_call, *pass_call, *renew_call, *stop_calls[2];
    struct consul_watch *watch;
    struct membership_member *members;
    struct membership_view view;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void take_step(void *arg);

/* --- the list ------------------------------------------------------------------------------------------------------ */

static bool copy_text(char *out, size_t size, const json_t *obj, const char *key, bool needed)
{
    const char *text = json_string_value(json_object_get(obj, key));
    size_t len = text ? strlen(text) : 0;
    if (len >= size || (needed && len == 0))
        return false;
    memcpy(out, text ? text : "", len + 1);
    return true;
}

static bool read_value(const json_t *value, struct membership_member *ret)
{
    json_int_t weight = json_integer_value(json_object_get(value, "weight"));
    const char *state = json_string_value(json_object_get(value, "state"));
    size_t at, len;
    uint16_t port;
    if (!copy_text(ret->id, sizeof(ret->id), value, "member", true) ||
        !copy_text(ret->name, sizeof(ret->name), value, "name", true) ||
        !copy_text(ret->address, sizeof(ret->address), value, "address", true) ||
        !copy_text(ret->zone, sizeof(ret->zone), value, "zone", false) ||
        !copy_text(ret->version, sizeof(ret->version), value, "version", false) ||
        !copy_text(ret->config_digest, sizeof(ret->config_digest), value, "config_digest", false) ||
        !copy_text(ret->tzdata, sizeof(ret->tzdata), value, "tzdata", false) || weight < 1 || weight > 1000 ||
        !state || text_host_port(ret->address, strlen(ret->address), false, &at, &len, &port, NULL) < 0)
        return false;
    ret->weight = (uint32_t)weight;
    ret->started_ms = json_integer_value(json_object_get(value, "started_ms"));
    ret->leaving = strcmp(state, "leaving") == 0;
    return true;
}

/* A key counts only while a session holds it: what a dead member left without one is litter. 1: RET is a member; 0: left out;
 * -ERR_NOMEM, so that no member is missing because of us. */
static int read_entry(const json_t *entry, struct membership_member *ret)
{
    const char *key = json_string_value(json_object_get(entry, "Key"));
    const char *encoded = json_string_value(json_object_get(entry, "Value"));
    const char *session = json_string_value(json_object_get(entry, "Session"));
    struct buf text = BUF_INIT(65536);
    json_t *value = NULL;
    if (!key || !encoded || !session || !session[0])
        return 0;
    int rc = text_base64_decode(&text, encoded, strlen(encoded), NULL);
    if (rc == 0)
        rc = json_read(buf_str(&text), text.len, text.max_bytes, &value, NULL);
    if (rc == 0) {
        const char *last = strrchr(key, '/');
        rc = read_value(value, ret) && strcmp(last ? last + 1 : key, ret->id) == 0;
    }
    json_decref(value);
    buf_fini(&text);
    return rc == -ERR_NOMEM || rc >= 0 ? rc : 0;
}

static int compare_members(const void *a, const void *b)
{
    return strcmp(((const struct membership_member *)a)->id, ((const struct membership_member *)b)->id);
}

static size_t drop_repeats(struct membership_member *list, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || strcmp(list[kept - 1].id, list[i].id) != 0)
            list[kept++] = list[i];
    return kept;
}

static int read_entries(const json_t *doc, size_t count, struct membership_member *list, size_t *ret_used)
{
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        list[used] = (struct membership_member){0};
        int rc = read_entry(json_array_get(doc, i), &list[used]);
        if (rc < 0)
            return rc;
        used += (size_t)rc;
    }
    qsort(list, used, sizeof(*list), compare_members);
    *ret_used = drop_repeats(list, used);
    return 0;
}

int membership_parse(const char *body, size_t bytes, struct membership_member **ret, size_t *ret_count,
                     struct err *e)
{
    json_t *doc = NULL;
    size_t used = 0;
    if (bytes > 0) {
        int rc = json_read(body, bytes, MEMBERS_BYTES_MAX, &doc, e);
        if (rc < 0)
            return rc == -ERR_INVALID ? err_set(e, ERR_PROTOCOL, "member list: %s", e ? e->text : "not JSON")
                                      : rc;
        if (!json_is_array(doc)) {
            json_decref(doc);
            return err_set(e, ERR_PROTOCOL, "member list is not a list");
        }
    }
    size_t count = json_array_size(doc) < MEMBERS_MAX ? json_array_size(doc) : MEMBERS_MAX;
    struct membership_member *list = mem_try_array(count + 1, sizeof(*list), e);
    if (!list) {
        json_decref(doc);
        return -ERR_NOMEM;
    }
    int rc = read_entries(doc, count, list, &used);
    json_decref(doc);
    if (rc < 0) {
        mem_free(list);
        return err_set(e, ERR_NOMEM, "no memory for the member list");
    }
    *ret = list;
    *ret_count = used;
    return 0;
}

static bool holds(const struct membership *m, const struct membership_member *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].id, m->member) == 0)
            return true;
    return false;
}

static void begin_step(struct membership *m, enum step step, int64_t delay_ms)
{
    m->step = step;
    loop_timer_arm(m->step_timer, delay_ms);
}

static void on_list(void *arg, const char *body, size_t bytes)
{
    struct membership *m = arg;
    struct membership_member *list;
    size_t count;
    struct err e = {0};
    if (membership_parse(body, bytes, &list, &count, &e) < 0) {
        log_warn(&log_here, "member list not understood, the last one stays", "error=%s", LOGQ(e.text));
        return;
    }
    bool held = holds(m, list, count);
    mem_free(m->members);
    m->members = list;
    m->view = (struct membership_view){.members = list, .count = count, .key_held = held, .synced = true};
    if (!held && m->step == STEP_JOINED && !m->stopping) {
        log_warn(&log_here, "own key is gone from Consul, joining again", "member=%s", m->member);
        begin_step(m, STEP_SERVICE, 0);
    }
    m->changed(m->arg, &m->view);
}

/* --- the steps ----------------------------------------------------------------------------------------------------- */

static void step_failed(struct membership *m, const struct err *e)
{
    int64_t delay = RETRY_MIN_MS;
    for (unsigned i = 0; i < m->failures && delay < RETRY_MAX_MS; i++)
        delay *= 2;
    if (delay > RETRY_MAX_MS)
        delay = RETRY_MAX_MS;
    if (m->failures++ == 0)
        log_warn(&log_here, "joining Consul failed, trying again", "step=%d error=%s", (int)m->step,
                 LOGQ(e->text));
    /* Later steps rest on earlier ones, which Consul may have forgotten. */
    begin_step(m, STEP_SERVICE, delay / 2 + (int64_t)rng_below(&m->rng, (uint64_t)delay));
}

static void watch_members(struct membership *m)
{
    char path[512];
    if (m->watch) {
        consul_watch_hurry(m->watch);
        return;
    }
    (void)snprintf(path, sizeof(path), "/v1/kv/%s?recurse", m->prefix);
    struct consul_watch_options options = {
        .path = path, .reply_max = MEMBERS_BYTES_MAX, .empty_is_404 = true, .seed = rng_u64(&m->rng)};
    m->watch = consul_watch_new(m->client, &options, on_list, m);
}

static void on_cleared(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct membership *m = arg;
    (void)reply; /* its code says all */
    m->step_call = NULL;
    if (e->code == ERR_CANCELLED || m->stopping)
        return;
    if (e->code == ERR_OK)
        begin_step(m, STEP_KEY, 0);
    else
        step_failed(m, e);
}

/* The key's name is this process's alone, so it is an older session of ours that holds it: one whose loss we took for granted,
 * and that would keep us out until it ends. Locks are advisory: the key may go. */
static void key_refused(struct membership *m)
{
    char path[512];
    struct err refused;
    if (m->cleared) {
        (void)err_set(&refused, ERR_REFUSED, "the own key is held by another session");
        m->cleared = false;
        step_failed(m, &refused);
        return;
    }
    m->cleared = true;
    (void)snprintf(path, sizeof(path), "/v1/kv/%s%s", m->prefix, m->member);
    struct consul_request request = {.method = "DELETE", .path = path};
    m->step_call = consul_send(m->client, &request, on_cleared, m);
}

/* Unless Consul says that the session is gone it stays: it may hold the key already, if only the answer was lost. */
static void key_failed(struct membership *m, const struct err *e, const struct consul_reply *reply)
{
    bool gone = e->code == ERR_INVALID || (reply && strstr(reply->body, "invalid session"));
    if (gone)
        m->session[0] = '\0';
    if (!gone || m->failures > 0) {
        step_failed(m, e);
        return;
    }
    m->failures = 1;
    begin_step(m, STEP_SESSION, 0);
}

static void on_key(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct membership *m = arg;
    m->step_call = NULL;
    if (e->code == ERR_CANCELLED || m->stopping)
        return;
    if (e->code == ERR_OK && strncmp(reply->body, "true", 4) != 0) {
        key_refused(m);
        return;
    }
    if (e->code != ERR_OK) {
        key_failed(m, e, reply);
        return;
    }
    m->cleared = false;
    if (m->failures > 0 || !m->watch)
        log_info(&log_here, "joined", "member=%s", m->member);
    m->failures = 0;
    m->step = STEP_JOINED;
    loop_timer_arm(m->renew_timer, m->session_ttl_ms / 3);
    watch_members(m);
    if (m->value_stale)
        begin_step(m, STEP_KEY, 0);
}

static void put_key(struct membership *m)
{
    char path[512], address[192];
    struct buf body = BUF_INIT(8192);
    bool six = strchr(m->host, ':') != NULL;
    (void)snprintf(address, sizeof(address), six ? "[%s]:%u" : "%s:%u", m->host, m->port);
    json_t *value =
        json_pack("{s:s,s:s,s:s,s:s,s:I,s:s,s:s,s:s,s:I,s:s}", "member", m->member, "name", m->name,
                  "address", address, "zone", m->zone, "weight", (json_int_t)m->weight, "version", m->version,
                  "config_digest", m->config_digest, "tzdata", m->tzdata, "started_ms",
                  (json_int_t)m->started_ms, "state", m->leaving ? "leaving" : "active");
    assert(value);                        /* all texts were checked as UTF-8 by the configuration */
    (void)json_print(value, &body, NULL); /* a few hundred bytes */
    json_decref(value);
    m->value_stale = false;
    (void)snprintf(path, sizeof(path), "/v1/kv/%s%s?acquire=%s", m->prefix, m->member, m->session);
    struct consul_request request = {
        .method = "PUT", .path = path, .body = buf_str(&body), .body_bytes = body.len};
    m->step_call = consul_send(m->client, &request, on_key, m);
    buf_fini(&body);
}

/* It becomes part of paths. */
static bool is_session_id(const char *id)
{
    return id[0] != '\0' && id[strspn(id, "0123456789abcdefABCDEF-")] == '\0';
}

static void on_session(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct membership *m = arg;
    struct err wrong = {0};
    json_t *doc = NULL;
    m->step_call = NULL;
    if (e->code == ERR_CANCELLED || m->stopping)
        return;
    if (e->code == ERR_OK) {
        const char *id = NULL;
        if (json_read(reply->body, reply->body_bytes, 4096, &doc, &wrong) == 0)
            id = json_string_value(json_object_get(doc, "ID"));
        if (id && is_session_id(id) && strlen(id) < sizeof(m->session))
            memcpy(m->session, id, strlen(id) + 1);
        else
            (void)err_set(&wrong, ERR_PROTOCOL, "no session id in Consul's answer");
        json_decref(doc);
        e = &wrong;
    }
    if (e->code != ERR_OK)
        step_failed(m, e);
    else
        begin_step(m, STEP_KEY, 0);
}

static void create_session(struct membership *m)
{
    struct buf body = BUF_INIT(2048);
    json_t *doc = json_pack("{s:s,s:s,s:s,s:o,s:[s],s:[{s:s}]}", "Name", m->service_id, "Behavior", "delete",
                            "LockDelay", "0s", "TTL",
                            json_sprintf("%llds", (long long)((m->session_ttl_ms + 999) / 1000)),
                            "NodeChecks", "serfHealth", "ServiceChecks", "ID", m->check_id);
    if (doc && !m->node_check)
        (void)json_object_set_new(doc, "NodeChecks",
                                  json_array()); /* fails only without memory; then serfHealth stays */
    if (doc)
        (void)json_print(doc, &body, NULL);
    json_decref(doc);
    struct consul_request request = {
        .method = "PUT", .path = "/v1/session/create", .body = buf_str(&body), .body_bytes = body.len};
    m->step_call = consul_send(m->client, &request, on_session, m);
    buf_fini(&body);
}

static void on_service(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct membership *m = arg;
    (void)reply; /* its code says all */
    m->step_call = NULL;
    if (e->code == ERR_CANCELLED || m->stopping)
        return;
    if (e->code != ERR_OK) {
        step_failed(m, e);
        return;
    }
    loop_timer_arm(m->pass_timer, PASS_MS);
    /* A session that survived (only the service had been forgotten) is tried first: acquire says if it did not. */
    begin_step(m, m->session[0] ? STEP_KEY : STEP_SESSION, 0);
}

static void register_service(struct membership *m)
{
    struct consul_service service = {
        .id = m->service_id,
        .name = m->register_as,
        .address = m->host,
        .port = m->port,
        .zone = m->zone,
        .meta_name = "cluster",
        .meta_value = m->cluster,
        .check_id = m->check_id,
        .check_ttl_ms = m->check_ttl_ms,
    };
    m->step_call = consul_service_register(m->client, &service, on_service, m);
}

static void take_step(void *arg)
{
    struct membership *m = arg;
    if (m->stopping || m->step_call)
        return;
    switch (m->step) {
    case STEP_SERVICE:
        register_service(m);
        break;
    case STEP_SESSION:
        create_session(m);
        break;
    case STEP_KEY:
        put_key(m);
        break;
    case STEP_JOINED:
    case STEP_COUNT_:
        break;
    }
}

/* --- staying ------------------------------------------------------------------------------------------------------- */

static void join_again(struct membership *m, const char *what, const struct err *e)
{
    log_warn(&log_here, what, "error=%s", LOGQ(e->text));
    if (m->step == STEP_JOINED)
        begin_step(m, STEP_SERVICE, 0);
}

static void on_pass(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct membership *m = arg;
    m->pass_call = NULL;
    if (e->code == ERR_CANCELLED || m->stopping)
        return;
    /* Any answer about this check but "passed" means that Consul does not know it (any more): 404, or 500 in 1.8. */
    bool forgotten = e->code == ERR_NOT_FOUND || (reply && strstr(reply->body, m->check_id));
    if (e->code != ERR_OK && forgotten)
        join_again(m, "Consul does not know our check, registering again", e);
}

static void pass(void *arg)
{
    struct membership *m = arg;
    if (m->stopping)
        return;
    if (!m->pass_call)
        m->pass_call = consul_check_pass(m->client, m->check_id, on_pass, m);
    loop_timer_arm(m->pass_timer, PASS_MS);
}

static void on_renew(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct membership *m = arg;
    (void)reply; /* its code says all */
    m->renew_call = NULL;
    if (e->code == ERR_CANCELLED || m->stopping)
        return;
    if (e->code == ERR_NOT_FOUND) {
        m->session[0] = '\0';
        join_again(m, "session is gone, joining again", e);
    }
    /* After a failure sooner: the session ends when none gets through for its TTL. */
    loop_timer_arm(m->renew_timer, e->code == ERR_OK ? m->session_ttl_ms / 3 : 1000);
}

static void renew(void *arg)
{
    struct membership *m = arg;
    char path[160];
    if (m->stopping || m->renew_call || m->session[0] == '\0')
        return;
    (void)snprintf(path, sizeof(path), "/v1/session/renew/%s", m->session);
    struct consul_request request = {.method = "PUT", .path = path, .timeout_ms = m->session_ttl_ms / 3};
    m->renew_call = consul_send(m->client, &request, on_renew, m);
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static void copy_options(struct membership *m, const struct membership_options *o)
{
    m->cluster = mem_strdup(o->cluster);
    m->member = mem_strdup(o->member);
    m->name = mem_strdup(o->name);
    m->host = mem_strdup(o->host);
    m->zone = mem_strdup(o->zone ? o->zone : "");
    m->version = mem_strdup(o->version);
    m->config_digest = mem_strdup(o->config_digest ? o->config_digest : "");
    m->tzdata = mem_strdup(o->tzdata ? o->tzdata : "");
    m->register_as = mem_strdup(o->register_as);
    m->port = o->port;
    m->weight = o->weight;
    m->started_ms = o->started_ms;
    m->check_ttl_ms = o->check_ttl_ms;
    m->session_ttl_ms = o->session_ttl_ms;
    m->node_check = o->node_check;
    (void)snprintf(m->service_id, sizeof(m->service_id), "carillon-%s", o->member);
    (void)snprintf(m->check_id, sizeof(m->check_id), "%s-loop", m->service_id);
    (void)snprintf(m->prefix, sizeof(m->prefix), "carillon/%s/members/", o->cluster);
}

struct membership *membership_new(struct consul_client *c, const struct membership_options *options,
                                  membership_changed *changed, void *arg)
{
    struct membership *m = mem_new(struct membership);
    struct loop *loop = consul_client_loop(c);
    m->client = c;
    m->changed = changed;
    m->arg = arg;
    copy_options(m, options);
    rng_init(&m->rng, options->seed);
    m->step_timer = loop_timer_new(loop, take_step, m);
    m->pass_timer = loop_timer_new(loop, pass, m);
    m->renew_timer = loop_timer_new(loop, renew, m);
    begin_step(m, STEP_SERVICE, 0);
    return m;
}

const struct membership_view *membership_view(const struct membership *m)
{
    return &m->view;
}

void membership_leave(struct membership *m)
{
    if (m->leaving)
        return;
    m->leaving = true;
    m->value_stale = true;
    if (m->step == STEP_JOINED)
        begin_step(m, STEP_KEY, 0);
}

static void stop_finished(void *arg)
{
    struct membership *m = arg;
    void (*done)(void *) = m->stopped;
    m->stopped = NULL;
    if (done)
        done(m->stopped_arg); /* may free M */
}

static void stop_answered(struct membership *m, size_t which)
{
    m->stop_calls[which] = NULL;
    if (!m->stop_calls[0] && !m->stop_calls[1])
        loop_timer_arm(m->stop_timer, 0);
}

static void on_destroyed(void *arg, const struct err *e, const struct consul_reply *reply)
{
    (void)e; /* whatever came of it, the session ends by itself */
    (void)reply;
    stop_answered(arg, 0);
}

static void on_deregistered(void *arg, const struct err *e, const struct consul_reply *reply)
{
    (void)e; /* Consul reaps the service later */
    (void)reply;
    stop_answered(arg, 1);
}

static void cancel_calls(struct membership *m)
{
    consul_cancel(m->step_call);
    consul_cancel(m->pass_call);
    consul_cancel(m->renew_call);
    m->step_call = m->pass_call = m->renew_call = NULL;
}

void membership_stop(struct membership *m, int64_t timeout_ms, void (*done)(void *arg), void *arg)
{
    char path[160];
    assert(!m->stopping);
    m->stopping = true;
    cancel_calls(m); /* a registration that overtook the end would stay */
    m->stopped = done;
    m->stopped_arg = arg;
    loop_timer_stop(m->step_timer);
    loop_timer_stop(m->pass_timer);
    loop_timer_stop(m->renew_timer);
    m->stop_timer = loop_timer_new(consul_client_loop(m->client), stop_finished, m);
    loop_timer_arm(m->stop_timer, timeout_ms);
    if (m->session[0]) {
        (void)snprintf(path, sizeof(path), "/v1/session/destroy/%s", m->session);
        struct consul_request request = {.method = "PUT", .path = path, .timeout_ms = timeout_ms};
        m->stop_calls[0] = consul_send(m->client, &request, on_destroyed, m);
    }
    m->stop_calls[1] = consul_service_deregister(m->client, m->service_id, on_deregistered, m);
}

void membership_free(struct membership *m)
{
    if (!m)
        return;
    m->stopping = true;
    cancel_calls(m);
    consul_cancel(m->stop_calls[0]);
    consul_cancel(m->stop_calls[1]);
    consul_watch_free(m->watch);
    loop_timer_free(m->step_timer);
    loop_timer_free(m->pass_timer);
    loop_timer_free(m->renew_timer);
    if (m->stop_timer)
        loop_timer_free(m->stop_timer);
    char *texts[] = {m->cluster, m->member,        m->name,   m->host,       m->zone,
                     m->version, m->config_digest, m->tzdata, m->register_as};
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        mem_free(texts[i]);
    mem_free(m->members);
    mem_free(m);
}
