/* One request: from the server's callbacks to its reply. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/telemetry.h"

#define LATE_MS 2000

/* --- replies ------------------------------------------------------------------------------------------------------- */

static size_t common_headers(struct exchange *x, const char *type, const struct httpd_header *more,
                             size_t count, struct httpd_header ret[EXCHANGE_HEADERS_MAX])
{
    size_t n = 0;
    assert(count + 3 <= EXCHANGE_HEADERS_MAX);
    ret[n++] = (struct httpd_header){"Carillon-Request", x->ctx.request_id};
    if (type)
        ret[n++] = (struct httpd_header){"Content-Type", type};
    ret[n++] = (struct httpd_header){"Cache-Control", "no-store"};
    for (size_t i = 0; i < count; i++)
        ret[n++] = more[i];
    return n;
}

static void count(struct exchange *x, int status)
{
    if (x->api->stopping)
        return; /* who counts may be gone */
    node_count_request(x->api->node, x->req.route ? x->req.route->pattern : "none", status,
                       clock_boot_us() - x->begun_us);
}

static void end_span(const struct exchange *x, int status)
{
    const char *route = x->req.route ? x->req.route->pattern : "none", *method = httpd_method(x->rq);
    char name[160], code[16];
    if (!x->span.sampled || x->api->stopping)
        return;
    (void)snprintf(name, sizeof(name), "%s %s", method, route); /* cut when too long */
    (void)snprintf(code, sizeof(code), "%d", status);           /* three digits */
    const struct telemetry_attribute attributes[] = {
        {.key = "http.request.method", .text = method},
        {.key = "http.route", .text = route},
        {.key = "carillon.request", .text = x->ctx.request_id},
        {.key = "http.response.status_code", .number = status},
    };
    int64_t now_us = node_now_ms(x->api->node) * 1000;
    struct telemetry_span s = {.span = x->span,
                               .parent = x->span_parent,
                               .name = name,
                               .kind = TELEMETRY_SERVER,
                               .started_us = now_us - (int64_t)(clock_boot_us() - x->begun_us),
                               .ended_us = now_us,
                               .error = status >= 500 ? code : NULL,
                               .attributes = attributes,
                               .attributes_count = sizeof(attributes) / sizeof(attributes[0])};
    telemetry_add(node_telemetry(x->api->node), &s);
}

static void reply(struct exchange *x, int status, const char *type, const struct httpd_header *headers,
                  size_t headers_count, struct buf *body)
{
    struct httpd_header all[EXCHANGE_HEADERS_MAX];
    size_t n = common_headers(x, type, headers, headers_count, all);
    count(x, status);
    gate_audit(x, status);
    end_span(x, status);
    httpd_reply(x->rq, status, all, n, body);
}

/* One of which a piece was lost must not go out, nor be counted as done. */
static void refuse_lost(struct exchange *x, struct buf *body)
{
    struct err e;
    (void)buf_check(body, &e); /* why, which is told */
    buf_fini(body);
    char text[sizeof(e.text) + 80];
    (void)snprintf(text, sizeof(text), "what was asked is done, but the answer to it is lost: %s",
                   e.text); /* fits */
    exchange_refuse_with(x, API_OVERLOADED, text);
}

void exchange_reply(struct exchange *x, int status, const char *type, const struct httpd_header *headers,
                    size_t headers_count, struct buf *body)
{
    if (body && body->len > 0 && body->data[body->len - 1] != '\n')
        buf_add_char(body, '\n'); /* for people at a terminal */
    if (body && buf_failed(body))
        refuse_lost(x, body);
    else
        reply(x, status, type, headers, headers_count, body);
}

void exchange_json(struct exchange *x, int status, struct buf *body)
{
    exchange_reply(x, status, "application/json", NULL, 0, body);
}

void exchange_refuse(struct exchange *x)
{
    enum api_code code = x->problem.code;
    struct httpd_header more[2];
    char text[API_ALLOW_SIZE];
    size_t n = 0;
    struct buf body = BUF_INIT(1 << 20);
    api_problem_print(&x->problem, x->ctx.request_id, &body);
    buf_add_char(&body, '\n');
    if (api_code_retry_after_s(code)) {
        (void)snprintf(text, sizeof(text), "%u", api_code_retry_after_s(code)); /* fits */
        more[n++] = (struct httpd_header){"Retry-After", text};
    } else if (code == API_METHOD_NOT_ALLOWED) {
        api_allow_print(x->problem.allow, text);
        more[n++] = (struct httpd_header){"Allow", text};
    } else if (code == API_UNAUTHORIZED) {
        more[n++] = (struct httpd_header){"WWW-Authenticate", "Bearer realm=\"carillon\""};
    }
    if (!x->api->stopping)
        node_count_rejected(x->api->node, api_code_name(code));
    reply(x, api_code_status(code), "application/problem+json", more, n, &body);
}

void exchange_refuse_with(struct exchange *x, enum api_code code, const char *detail)
{
    api_problem_fini(&x->problem);
    (void)api_problem_set(&x->problem, code, "%s",
                          detail); /* its result is for those who refuse by returning */
    exchange_refuse(x);
}

bool exchange_refuse_foreign(struct exchange *x, const char *ns)
{
    if (gate_in_namespace(x, ns))
        return false;
    char text[200];
    (void)snprintf(text, sizeof(text), "the token '%s' is not for namespace '%s'", x->caller.name,
                   ns); /* fits */
    exchange_refuse_with(x, API_FORBIDDEN, text);
    return true;
}

void exchange_refuse_store(struct exchange *x, const struct err *e)
{
    exchange_refuse_with(x, API_STORE_UNAVAILABLE, e->text);
}

struct httpd_stream *exchange_stream(struct exchange *x, const char *type, const struct httpd_header *headers,
                                     size_t headers_count, size_t buffer_bytes)
{
    struct httpd_header all[EXCHANGE_HEADERS_MAX];
    size_t n = common_headers(x, type, headers, headers_count, all);
    count(x, 200);
    gate_audit(x, 200);
    end_span(x, 200);
    return httpd_stream_begin(x->rq, 200, all, n, buffer_bytes);
}

/* --- head ---------------------------------------------------------------------------------------------------------- */

static void exchange_free(void *arg)
{
    struct exchange *x = arg;
    api_write_fini(&x->write);
    api_problem_fini(&x->problem);
    gate_caller_fini(&x->caller);
    api_unref(x->api);
    mem_free(x);
}

static const char *header_of(const void *arg, const char *name)
{
    return httpd_header(arg, name);
}

static void make_request_id(struct exchange *x)
{
    (void)snprintf(x->ctx.request_id, sizeof(x->ctx.request_id), "%016llx",
                   (unsigned long long)rng_u64(&x->face->rng)); /* fits */
}

/* What a peer sends is signed, and tells in its context what was decided where it came in. */
static int check_peer(struct exchange *x)
{
    struct peer_auth_secret secret = {0};
    const char *context = httpd_header(x->rq, PEER_CONTEXT_HEADER), *query = httpd_query_string(x->rq);
    struct err e = {0};
    secret.data = node_cluster_secret(x->api->node, &secret.bytes);
    if (secret.data) {
        AUTO(buf_fini) struct buf target = BUF_INIT(1 << 16);
        buf_add_str(&target, httpd_path(x->rq));
        if (*query)
            buf_add_char(&target, '?');
        buf_add_str(&target, query);
        struct peer_auth_message msg = {
            .method = httpd_method(x->rq), .target = buf_str(&target), .context = context ? context : ""};
        const char *value = httpd_header(x->rq, PEER_AUTH_HEADER);
        if (buf_failed(&target) ||
            peer_auth_verify(&secret, value, &msg, node_now_ms(x->api->node), &x->auth, &e) < 0)
            return api_problem_set(&x->problem, value ? API_FORBIDDEN : API_UNAUTHORIZED, "%s", e.text);
        x->is_signed = true;
        if (!peer_replay_is_new(x->api->replay, x->auth.tag, (int64_t)clock_boot_ms()))
            return api_problem_set(&x->problem, API_REPLAYED, "this signature was seen before");
    }
    char own_id[API_REQUEST_ID_SIZE];
    memcpy(own_id, x->ctx.request_id, sizeof(own_id));
    if (context && api_context_parse(context, &x->ctx, &e) < 0) {
        memset(&x->ctx, 0, sizeof(x->ctx));
        memcpy(x->ctx.request_id, own_id, sizeof(own_id));
        return api_problem_set(&x->problem, API_INVALID_REQUEST, "%s", e.text);
    }
    const char *own = node_peer_address(x->api->node);
    if (x->ctx.to[0] && own && strcmp(x->ctx.to, own) != 0)
        return api_problem_set(&x->problem, API_MISDIRECTED, "this is for the agent at %s",
                               TEXTQ(x->ctx.to, strlen(x->ctx.to)));
    return 0;
}

/* A header that may be there several times means the same as one with commas. */
static void read_trace(const struct exchange *x, struct trace *ret)
{
    AUTO(buf_fini) struct buf state = BUF_INIT(1 << 16);
    const char *value;
    for (size_t cursor = 0; (value = httpd_header_next(x->rq, "tracestate", &cursor));) {
        if (state.len > 0)
            buf_add_char(&state, ',');
        buf_add_str(&state, value);
    }
    trace_read(httpd_header(x->rq, "traceparent"), buf_failed(&state) ? NULL : buf_str(&state), ret);
}

/* Those of clients alone: what agents ask each other belongs to them. */
static void begin_span(struct exchange *x)
{
    const struct trace_rule *rule = telemetry_rule(node_telemetry(x->api->node));
    struct trace parent;
    bool of_client = x->face->face == API_FACE_TCP || x->face->face == API_FACE_UNIX;
    if (!rule || !of_client || strncmp(httpd_path(x->rq), "/v1/", 4) != 0)
        return;
    const uint64_t random[3] = {rng_u64(&x->face->rng), rng_u64(&x->face->rng), rng_u64(&x->face->rng)};
    trace_span_new(rule, random, &x->span);
    trace_read(httpd_header(x->rq, "traceparent"), NULL, &parent);
    if (!parent.parent[0])
        return;
    struct trace_span theirs;
    trace_span_read(parent.parent, &theirs);
    memcpy(x->span.trace, theirs.trace, sizeof(x->span.trace));
    memcpy(x->span_parent, theirs.id, sizeof(x->span_parent));
    x->span.sampled = theirs.sampled;
}

static int64_t body_limit(const struct exchange *x)
{
    const struct config_api *c = &x->api->config->api;
    bool peer = x->face->face == API_FACE_PEER;
    uint64_t max = x->req.route->body == API_BODY_NDJSON ? c->max_bulk_bytes : c->max_body_bytes;
    return (int64_t)(peer ? max * 2 + (1 << 20) : max); /* between agents each line carries its ids */
}

int64_t api_on_accept(struct httpd_request *rq, void *arg)
{
    struct listener_face *face = arg;
    struct exchange *x = mem_new(struct exchange);
    x->api = face->api;
    x->face = face;
    x->rq = rq;
    x->begun_us = clock_boot_us();
    list_init(&x->arrived);
    list_init(&x->wait.link);
    list_init(&x->call.link);
    api_write_init(&x->write, node_zones(x->api->node));
    api_ref(x->api);
    make_request_id(x);
    httpd_set_user(rq, x, exchange_free);
    struct api_head head = {.method = httpd_method(rq),
                            .path = httpd_path(rq),
                            .query = httpd_query_string(rq),
                            .header = header_of,
                            .arg = rq,
                            .face = face->face};
    begin_span(x);
    struct api_rules rules = {.hosts = &x->api->config->api.hosts, .listen = &x->api->config->api.listen};
    if ((face->face == API_FACE_PEER && check_peer(x) < 0) || gate_admit(x) < 0 ||
        api_request_read(&head, &rules, &x->req, &x->problem) < 0 || gate_authorize(x) < 0) {
        exchange_refuse(x);
        return -1;
    }
    return body_limit(x);
}

void api_on_too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    struct exchange *x = httpd_user(rq);
    char text[TEXT_SIZE_SIZE], detail[80];
    text_size_print(text, (uint64_t)body_limit(x));
    (void)snprintf(detail, sizeof(detail), "the body is over %s", text); /* fits */
    exchange_refuse_with(x, API_TOO_LARGE, detail);
}

/* --- body ---------------------------------------------------------------------------------------------------------- */

typedef void action_fn(struct exchange *x);

static const struct {
    action_fn *run;
    bool write;     /* of one job: its body is read here, and the owner makes it */
    bool at_once;   /* on the server's thread */
    bool by_client; /* a client of the cluster answers by itself */
} actions[API_ACTION_COUNT_] = {
    [API_JOB_CREATE] = {.run = api_send_write, .write = true},
    [API_JOB_PUT] = {.run = api_send_write, .write = true},
    [API_JOB_PATCH] = {.run = api_send_write, .write = true},
    [API_JOB_DELETE] = {.run = api_send_write, .write = true},
    [API_JOB_RUN] = {.run = api_send_write, .write = true},
    [API_JOB_BACKFILL] = {.run = api_send_write, .write = true},
    [API_JOB_PAUSE] = {.run = api_send_write, .write = true},
    [API_JOB_RESUME] = {.run = api_send_write, .write = true},
    [API_JOB_GET] = {.run = api_job_get},
    [API_JOB_NEXT] = {.run = api_job_next},
    [API_JOB_FIRES] = {.run = api_job_fires},
    [API_JOB_EXPLAIN] = {.run = api_job_explain},
    [API_JOB_REVISIONS] = {.run = api_job_revisions},
    [API_JOB_LIST] = {.run = api_job_list},
    [API_JOB_DELETE_MANY] = {.run = api_job_delete_many},
    [API_FIRE_GET] = {.run = api_fire_get},
    [API_FIRE_SEARCH] = {.run = api_fire_search},
    [API_DEADLETTERS] = {.run = api_deadletters},
    [API_DEADLETTERS_REDRIVE] = {.run = api_deadletters_change},
    [API_DEADLETTERS_DISCARD] = {.run = api_deadletters_change},
    [API_FIRE_RETRY] = {.run = api_fire_by_hand, .write = true},
    [API_FIRE_CANCEL] = {.run = api_fire_by_hand, .write = true},
    [API_FIRE_COMPLETE] = {.run = api_send_write, .write = true},
    [API_FIRE_HEARTBEAT] = {.run = api_send_write, .write = true},
    [API_BULK] = {.run = api_bulk, .at_once = true},
    [API_EXPORT] = {.run = api_export, .by_client = true},
    [API_EVENTS] = {.run = api_events, .by_client = true},
    [API_FORECAST] = {.run = api_forecast},
    [API_AUDIT] = {.run = api_audit},
    [API_CLUSTER] = {.run = api_cluster},
    [API_OWNER] = {.run = api_owner},
    [API_SERVICE] = {.run = api_service},
    [API_HEALTH] = {.run = api_health, .by_client = true},
    [API_LIVEZ] = {.run = api_livez, .at_once = true},
    [API_READYZ] = {.run = api_readyz, .at_once = true},
    [API_METRICS] = {.run = api_metrics, .by_client = true},
    [API_OPENAPI] = {.run = api_openapi, .at_once = true},
    [API_UI_FOLDER] = {.run = api_ui, .at_once = true},
    [API_UI] = {.run = api_ui, .at_once = true},
    [API_UI_CSS] = {.run = api_ui, .at_once = true},
    [API_UI_JS] = {.run = api_ui, .at_once = true},
    [API_PEER] = {.run = api_peer, .by_client = true},
};

/* Who sent X has told its client that the write may have happened, and that client goes on from there: a write that comes to light after
 * that, from a stopped process or a network that is whole again, would undo what was written since. Clocks differ by less than LATE_MS:
 * an agent whose clock is further off fires nothing either, and what it sends is refused with this reason. */
static bool came_too_late(struct exchange *x)
{
    char text[120];
    int64_t late_ms = node_now_ms(x->api->node) - x->ctx.until_ms;
    if (x->req.route->method == API_GET || x->ctx.until_ms == 0 || late_ms <= LATE_MS)
        return false;
    (void)snprintf(text, sizeof(text),
                   "it came %lld ms after its sender had given it up; or a clock is wrong",
                   (long long)late_ms); /* fits */
    exchange_refuse_with(x, API_NO_OWNER, text);
    return true;
}

/* Loop time: nobody waits longer than who sent X. */
static int64_t deadline_ms(const struct exchange *x)
{
    int64_t ms = api_deadline_ms(x->api), left_ms = x->ctx.until_ms - node_now_ms(x->api->node);
    if (x->ctx.until_ms && loop_now_ms(x->api->loop) + left_ms < ms)
        ms = loop_now_ms(x->api->loop) + left_ms;
    return ms;
}

void api_on_arrived(void *face, struct list *item)
{
    struct exchange *x = container_of(item, struct exchange, arrived);
    (void)face; /* the exchange knows it */
    enum api_action action = x->req.route->action;
    if (x->api->stopping) {
        exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
        return;
    }
    x->deadline_ms = deadline_ms(x);
    if (actions[action].write && x->req.dry_run && !node_is_client(x->api->node))
        api_dry_run(x);
    else if (!actions[action].write && !actions[action].by_client && node_is_client(x->api->node))
        api_send_to_member(x);
    else
        actions[action].run(x);
}

static bool mine(const void *arg, uint16_t slot)
{
    return node_slot_is_mine(arg, slot);
}

struct api_ids api_ids_of(struct api *api, struct rng *rng)
{
    return (struct api_ids){.rng = rng, .slots = node_slots(api->node), .mine = mine, .arg = api->node};
}

void api_make_context(struct api *api, struct rng *rng, struct api_context *ctx)
{
    struct job_defaults defaults;
    struct api_ids ids = api_ids_of(api, rng);
    node_job_defaults(api->node, &defaults);
    api_context_make(&ids, node_now_ms(api->node), &defaults, ctx);
}

static int read_write(struct exchange *x)
{
    size_t bytes;
    const char *body = httpd_body(x->rq, &bytes);
    struct api_ids ids = api_ids_of(x->api, &x->face->rng);
    x->write.ctx = x->ctx;
    api_context_set_defaults(&x->write.ctx, &x->ctx.defaults); /* its texts, not those of the other copy */
    if (x->req.route->argument == API_ARG_FIRE)
        return api_fire_op_read(&x->write, &x->req, node_capability(x->api->node), body, bytes, &ids,
                                &x->problem);
    return api_write_read(&x->write, &x->req, body, bytes, &ids, &x->problem);
}

static int check_body(struct exchange *x)
{
    size_t bytes;
    const char *body = httpd_body(x->rq, &bytes);
    struct err e = {0};
    if (!x->is_signed)
        return 0;
    int rc = peer_auth_verify_body(&x->auth, body, bytes, &e);
    return rc < 0 ? api_problem_set(&x->problem, API_FORBIDDEN, "%s", e.text) : 0;
}

/* Until the store is open there is nothing to read and nobody to write for; what tells about the agent itself is answered. */
static bool needs_store(enum api_action action)
{
    static const bool needs_none[] = {
        [API_HEALTH] = true,  [API_LIVEZ] = true,   [API_READYZ] = true,    [API_METRICS] = true,
        [API_OPENAPI] = true, [API_CLUSTER] = true, [API_UI_FOLDER] = true, [API_UI] = true,
        [API_UI_CSS] = true,  [API_UI_JS] = true,   [API_PEER] = true};
    return (size_t)action >= sizeof(needs_none) / sizeof(*needs_none) || !needs_none[action];
}

void api_on_handle(struct httpd_request *rq, void *arg)
{
    (void)arg;
    struct exchange *x = httpd_user(rq);
    enum api_action action = x->req.route->action;
    if (x->ctx.hop == API_HOP_NONE) {
        char id[API_REQUEST_ID_SIZE];
        memcpy(id, x->ctx.request_id, sizeof(id));
        api_make_context(x->api, &x->face->rng, &x->ctx);
        read_trace(x, &x->ctx.trace);
        memcpy(x->ctx.request_id, id, sizeof(id));
        if (x->caller.name[0])
            memcpy(x->ctx.actor, x->caller.name, sizeof(x->ctx.actor));
    }
    if (needs_store(action) && !node_store_open(x->api->node)) {
        exchange_refuse_with(x, API_STORE_UNAVAILABLE,
                             "the store has not been reached since the agent was started");
        return;
    }
    if (came_too_late(x))
        return;
    if (check_body(x) < 0 || (actions[action].write && read_write(x) < 0)) {
        exchange_refuse(x);
    } else if (actions[action].at_once) {
        actions[action].run(x);
    } else {
        inbox_add(x->face->arrived, &x->arrived);
    }
}

void api_on_turned(void *arg)
{
    struct listener_face *face = arg;
    inbox_post(face->arrived);
}
