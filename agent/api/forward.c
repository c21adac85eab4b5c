/* The way of a write to the owner of its job. While nobody owns the slot, or who is asked does not any more, the request
 * waits and looks again, up to api.wait. What a peer may have done already is asked again with the same ids and marked as
 * repeated, so that it is not done twice (design "Who writes what"). */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/text.h"
#include "agent/core/hashring.h"

enum {
    AGAIN_MS = 20, /* ownership changes within a few hundred ms: look often */
    CONNECT_TIMEOUT_MS = 1000,
    TIMEOUT_MIN_MS = 500,       /* of one try, also when little of api.wait is left */
    MEMBER_MARGIN_MS = 1000,    /* a member that routes for us waits up to api.wait itself */
    MANY_TIMEOUT_MS = 600000,   /* what looks at all jobs takes as long as it takes */
    REPLY_BYTES_MAX = 64 << 20, /* a page of large jobs */
    PASSED_HEADERS_MAX = 8,
};

/* --- waiting ------------------------------------------------------------------------------------------------------- */

bool api_wait_add(struct api *api, struct api_wait *w)
{
    if (api->waiting_count >= API_WAITING_MAX)
        return false;
    list_push_back(&api->waiting, &w->link);
    api->waiting_count++;
    if (!loop_timer_armed(api->again))
        loop_timer_arm(api->again, AGAIN_MS);
    return true;
}

void api_wait_remove(struct api *api, struct api_wait *w)
{
    if (!list_linked(&w->link))
        return;
    list_remove(&w->link);
    api->waiting_count--;
}

int64_t api_deadline_ms(const struct api *api)
{
    return loop_now_ms(api->loop) + (int64_t)node_config(api->node)->api.wait_ms;
}

/* --- calls of peers ------------------------------------------------------------------------------------------------ */

static void call_over(struct api_call *c)
{
    list_remove(&c->link);
    c->api->calls_count--;
    c->http = NULL;
}

static void on_call_done(void *arg, const struct err *e, const struct http_reply *reply)
{
    struct api_call *c = arg;
    struct err again;
    call_over(c);
    if (e->code == ERR_OK && reply->status == api_code_status(API_REPLAYED)) {
        /* libcurl has sent it a second time, on a new connection, when the first one closed without an answer. */
        (void)err_set(&again, ERR_UNKNOWN_OUTCOME,
                      "the peer was asked twice"); /* its result is for those who return it */
        c->done(c, &again, NULL);
    } else {
        c->done(c, e, reply);
    }
}

static void on_call_piece(void *arg, const char *data, size_t bytes)
{
    struct api_call *c = arg;
    c->piece(c, data, bytes);
}

void api_call_cancel(struct api_call *c)
{
    if (!list_linked(&c->link))
        return;
    if (c->http)
        http_cancel(c->http);
    call_over(c);
}

static bool sign_call(struct api *api, const struct api_peer_request *r, const char *context,
                      char ret[PEER_AUTH_SIZE])
{
    struct peer_auth_secret secret = {0};
    secret.data = node_cluster_secret(api->node, &secret.bytes);
    ret[0] = '\0';
    struct peer_auth_message msg = {.method = r->method,
                                    .target = r->target,
                                    .context = context,
                                    .body = r->body,
                                    .body_bytes = r->body_bytes};
    return !secret.data || peer_auth_sign(&secret, &msg, node_member(api->node), node_now_ms(api->node),
                                          rng_u64(&api->rng), ret, NULL) == 0;
}

static void send_call(struct api *api, struct api_call *c, const struct api_peer_request *r,
                      const char *context, const char *signature)
{
    AUTO(buf_fini) struct buf url = BUF_INIT(1 << 16);
    char context_line[API_CONTEXT_MAX + 32], signature_line[PEER_AUTH_SIZE + 32];
    const char *headers[12];
    size_t n = 0;
    bool tls = api->config->cluster.tls_cert != NULL;
    buf_addf(&url, "%s://%s%s", tls ? "https" : "http", r->address, r->target);
    (void)snprintf(context_line, sizeof(context_line), "%s: %s", PEER_CONTEXT_HEADER, context);
    (void)snprintf(signature_line, sizeof(signature_line), "%s: %s", PEER_AUTH_HEADER, signature);
    headers[n++] = context_line;
    if (*signature)
        headers[n++] = signature_line;
    for (size_t i = 0; r->headers && r->headers[i]; i++) {
        assert(n < 11);
        headers[n++] = r->headers[i];
    }
    headers[n] = NULL;
    struct http_call_options o = {.method = r->method,
                                  .url = buf_str(&url),
                                  .headers = headers,
                                  .body = r->body,
                                  .body_bytes = r->body_bytes,
                                  .tls = tls ? &api->peer_tls : NULL,
                                  .timeout_ms = r->timeout_ms,
                                  .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                  .reply_bytes_max = r->reply_bytes_max,
                                  .piece = c->piece ? on_call_piece : NULL};
    c->http = http_send(node_http(api->node), &o, on_call_done, c);
}

bool api_call_peer(struct api *api, struct api_call *c, const struct api_peer_request *r)
{
    AUTO(buf_fini) struct buf context = BUF_INIT(API_CONTEXT_MAX);
    char signature[PEER_AUTH_SIZE];
    struct api_context ctx = *r->ctx;
    (void)snprintf(ctx.to, sizeof(ctx.to), "%s", r->address); /* addresses of members are shorter */
    ctx.until_ms = node_now_ms(api->node) + r->timeout_ms;
    if (api->calls_count >= API_WAITING_MAX || api_context_print(&ctx, &context, NULL) < 0 ||
        !sign_call(api, r, buf_str(&context), signature))
        return false;
    c->api = api;
    list_push_back(&api->calls, &c->link);
    api->calls_count++;
    send_call(api, c, r, buf_str(&context), signature);
    return true;
}

/* --- a request passed on ------------------------------------------------------------------------------------------- */

static void refuse_unreached(struct exchange *x)
{
    char text[sizeof(x->why.text) + 100];
    bool known = x->why.code != ERR_OK;
    (void)snprintf(text, sizeof(text), "%s%s%s",
                   x->maybe_done ? "the job's owner did not answer; the write may have happened"
                                 : "nobody could be reached who owns the job",
                   known ? ": " : "", known ? x->why.text : ""); /* fits */
    exchange_refuse_with(x, API_NO_OWNER, text);
}

static void wait_and(struct exchange *x, void (*run)(struct api_wait *w))
{
    struct api *api = x->api;
    x->wait.run = run;
    if (api->stopping)
        exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
    else if (loop_now_ms(api->loop) >= x->deadline_ms)
        refuse_unreached(x);
    else if (!api_wait_add(api, &x->wait))
        exchange_refuse_with(x, API_OVERLOADED, "too many requests wait for an owner");
}

static const char *const request_headers[] = {"Content-Type",  "Carillon-Namespace", "If-Match",
                                              "If-None-Match", "Idempotency-Key",    "Carillon-Client"};
static const char *const reply_headers[] = {"ETag", "Location", "Retry-After"};

/* X's request to ADDRESS, as it came. */
static bool pass_on(struct exchange *x, const char *address, const struct api_context *ctx,
                    int64_t timeout_ms)
{
    AUTO(buf_fini) struct buf lines = BUF_INIT(1 << 17), target = BUF_INIT(1 << 16);
    size_t at[PASSED_HEADERS_MAX], n = 0;
    const char *headers[PASSED_HEADERS_MAX + 1] = {NULL};
    for (size_t i = 0; i < sizeof(request_headers) / sizeof(request_headers[0]); i++) {
        const char *value = httpd_header(x->rq, request_headers[i]);
        if (!value)
            continue;
        at[n++] = lines.len;
        /* One without a value libcurl sends only when it ends in a semicolon. */
        buf_addf(&lines, *value ? "%s: %s" : "%s;", request_headers[i], value);
        buf_add_char(&lines, '\0');
    }
    const char *query = httpd_query_string(x->rq);
    buf_addf(&target, "%s%s%s", httpd_path(x->rq), *query ? "?" : "", query);
    if (buf_failed(&lines) || buf_failed(&target))
        return false;
    for (size_t i = 0; i < n; i++)
        headers[i] = lines.data + at[i];
    struct api_peer_request r = {.address = address,
                                 .method = x->req.head ? "GET" : httpd_method(x->rq),
                                 .target = buf_str(&target),
                                 .ctx = ctx,
                                 .headers = headers,
                                 .timeout_ms = timeout_ms,
                                 .reply_bytes_max = REPLY_BYTES_MAX};
    r.body = httpd_body(x->rq, &r.body_bytes);
    return api_call_peer(x->api, &x->call, &r);
}

static void pass_back(struct exchange *x, const struct http_reply *reply)
{
    struct httpd_header more[3];
    size_t n = 0;
    struct buf body = BUF_INIT(REPLY_BYTES_MAX);
    for (size_t i = 0; i < sizeof(reply_headers) / sizeof(reply_headers[0]); i++) {
        const char *value = http_reply_header(reply, reply_headers[i]);
        if (value)
            more[n++] = (struct httpd_header){reply_headers[i], value};
    }
    buf_add(&body, reply->body, reply->body_bytes);
    exchange_reply(x, reply->status, http_reply_header(reply, "Content-Type"), more, n, &body);
}

/* What is left of api.wait for one try. */
static int64_t time_left_ms(const struct exchange *x)
{
    int64_t left_ms = x->deadline_ms - loop_now_ms(x->api->loop);
    return left_ms > TIMEOUT_MIN_MS ? left_ms : TIMEOUT_MIN_MS;
}

static bool may_have_happened(const struct err *e)
{
    return e->code != ERR_REFUSED && e->code != ERR_UNAVAILABLE && e->code != ERR_CANCELLED;
}

/* --- the owner ----------------------------------------------------------------------------------------------------- */

void api_take_hint(struct api *api, uint16_t slot, const struct http_reply *reply)
{
    const char *value = http_reply_header(reply, API_OWNER_HEADER);
    const char *space = value ? strchr(value, ' ') : NULL;
    char member[RECORD_MEMBER_MAX];
    uint64_t epoch;
    if (!space || (size_t)(space - value) >= sizeof(member) || space == value ||
        text_u64(space + 1, strlen(space + 1), 0, UINT64_MAX, &epoch, NULL) < 0)
        return;
    memcpy(member, value, (size_t)(space - value));
    member[space - value] = '\0';
    node_owner_hint(api->node, slot, epoch, member);
}

void api_refuse_not_owner(struct exchange *x, uint16_t slot)
{
    struct node_owner owner;
    struct httpd_header more[1];
    char text[RECORD_MEMBER_MAX + 24];
    struct buf body = BUF_INIT(4096);
    node_owner_of(x->api->node, slot, &owner);
    (void)snprintf(text, sizeof(text), "%s %llu", owner.member, (unsigned long long)owner.epoch); /* fits */
    more[0] = (struct httpd_header){API_OWNER_HEADER, text};
    api_problem_fini(&x->problem);
    (void)api_problem_set(&x->problem, API_MISDIRECTED, "slot %u is another member's", slot);
    api_problem_print(&x->problem, x->ctx.request_id, &body);
    bool tell = owner.known && !owner.self;
    exchange_reply(x, api_code_status(API_MISDIRECTED), "application/problem+json", more, tell, &body);
}

static uint16_t slot_of(const struct exchange *x)
{
    const struct planner_api *p = &x->write.papi;
    if (planner_op_of_fire(p->op))
        return uid_slot(&p->uid);
    return (uint16_t)hashring_slot(p->ns, p->id, node_slots(x->api->node));
}

static void send_again(struct api_wait *w)
{
    api_send_write(container_of(w, struct exchange, wait));
}

static void on_peer_write(struct api_call *c, const struct err *e, const struct http_reply *reply)
{
    struct exchange *x = container_of(c, struct exchange, call);
    if (e->code == ERR_OK && reply->status != api_code_status(API_MISDIRECTED)) {
        pass_back(x, reply);
        return;
    }
    if (e->code == ERR_OK && !x->api->stopping && node_slots(x->api->node))
        api_take_hint(x->api, slot_of(x), reply);
    x->why = *e;
    x->maybe_done |= e->code != ERR_OK && may_have_happened(e);
    x->tries++;
    wait_and(x, send_again);
}

static void on_planned(void *arg, struct planner_api *papi)
{
    struct exchange *x = arg;
    if (x->api->stopping) {
        exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
    } else if (papi->answer != PLANNER_NOT_OWNER) {
        api_write_answered(x);
    } else if (x->ctx.hop == API_HOP_FINAL) {
        api_refuse_not_owner(x, slot_of(x));
    } else {
        x->tries++;
        wait_and(x, send_again);
    }
}

static void forward(struct exchange *x, const char *address, unsigned hop, int64_t margin_ms)
{
    struct api_context ctx = x->write.ctx;
    ctx.hop = hop;
    ctx.repeated = x->maybe_done || x->write.papi.repeated;
    ctx.uid = x->write.papi.uid;
    x->call.done = on_peer_write;
    if (!pass_on(x, address, &ctx, time_left_ms(x) + margin_ms))
        exchange_refuse_with(x, API_OVERLOADED, "too many requests are under way to other agents");
}

static void send_to_owner(struct exchange *x)
{
    struct node_owner owner;
    uint16_t slot = slot_of(x);
    node_owner_of(x->api->node, slot, &owner);
    bool loading = strcmp(owner.member, node_member(x->api->node)) == 0; /* ours, but not yet or no more */
    if (owner.known && owner.self) {
        api_uid_set_slot(&x->write.papi.uid, slot);
        x->write.papi.repeated |= x->maybe_done;
        if (x->write.papi.spec && x->write.papi.spec->callback.service)
            (void)node_service_unknown(x->api->node,
                                       x->write.papi.spec->callback.service); /* for the warning later */
        node_submit(x->api->node, &x->write.papi, on_planned, x);
    } else if (x->ctx.hop == API_HOP_FINAL) {
        api_refuse_not_owner(x, slot);
    } else if (owner.known && owner.address[0] && !loading) {
        forward(x, owner.address, API_HOP_FINAL, 0);
    } else {
        wait_and(x, send_again);
    }
}

void api_send_write(struct exchange *x)
{
    struct api *api = x->api;
    bool client = !api->stopping && node_is_client(api->node);
    if (api->stopping || (x->tries > 0 && loop_now_ms(api->loop) >= x->deadline_ms) ||
        (!client && node_slots(api->node) == 0)) {
        wait_and(x, send_again);
        return;
    }
    if (!client) {
        send_to_owner(x);
        return;
    }
    const char *address = node_any_member(api->node, x->tries);
    if (address)
        forward(x, address, API_HOP_ROUTE, MEMBER_MARGIN_MS);
    else
        wait_and(x, send_again);
}

/* --- a client's reads ---------------------------------------------------------------------------------------------- */

static void read_again(struct api_wait *w)
{
    api_send_to_member(container_of(w, struct exchange, wait));
}

/* Only its answer tells in which namespace a fire is. Then X is refused. */
static bool is_foreign_fire(struct exchange *x, const struct http_reply *reply)
{
    AUTO(json_decref) json_t *doc = NULL;
    const char *ns = "";
    if (x->req.route->action != API_FIRE_GET || reply->status != 200 || !gate_is_limited(x))
        return false;
    if (json_read(reply->body, reply->body_bytes, REPLY_BYTES_MAX, &doc, NULL) == 0)
        (void)json_unpack(doc, "{s:s}", "namespace", &ns); /* without one it is nobody's */
    return exchange_refuse_foreign(x, ns);
}

static void on_member_read(struct api_call *c, const struct err *e, const struct http_reply *reply)
{
    struct exchange *x = container_of(c, struct exchange, call);
    if (e->code == ERR_OK) {
        if (!is_foreign_fire(x, reply))
            pass_back(x, reply);
        return;
    }
    x->why = *e;
    x->maybe_done |= may_have_happened(e);
    x->tries++;
    wait_and(x, read_again);
}

/* Whether what X asks for looks at all that is in the store, or changes it. */
static bool takes_long(const struct exchange *x)
{
    enum api_action action = x->req.route->action;
    return action == API_JOB_DELETE_MANY || action == API_DEADLETTERS_REDRIVE ||
           action == API_DEADLETTERS_DISCARD || action == API_AUDIT || action == API_FORECAST;
}

void api_send_to_member(struct exchange *x)
{
    const char *address = x->api->stopping ? NULL : node_any_member(x->api->node, x->tries);
    if (!address || x->ctx.hop != API_HOP_NONE || loop_now_ms(x->api->loop) >= x->deadline_ms) {
        wait_and(x, read_again);
        return;
    }
    struct api_context ctx = x->ctx;
    ctx.hop = API_HOP_ROUTE;
    x->call.done = on_member_read;
    if (!pass_on(x, address, &ctx, takes_long(x) ? MANY_TIMEOUT_MS : time_left_ms(x) + MEMBER_MARGIN_MS))
        exchange_refuse_with(x, API_OVERLOADED, "too many requests are under way to other agents");
}
