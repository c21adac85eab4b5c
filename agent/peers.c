#include "agent/peers.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/list.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/clock_guard.h"
#include "agent/io/http.h"
#include "agent/peer_auth.h"

#define REPLY_MAX          ((size_t)1 << 20)
#define CONNECT_TIMEOUT_MS 1000
#define BODY_MAX           ((size_t)2 << 20)
#define REPLAYED           425 /* libcurl has sent it a second time, on a new connection */

struct peers {
    struct peers_options options;
    char *member;
    struct http_tls tls;
    struct list calls;
    struct rng rng; /* of the signatures' nonces */
};

struct call {
    struct list link;
    struct peers *peers;
    struct http_call *http;
    peers_done *done;
    void *arg;
};

struct peers *peers_new(const struct peers_options *options)
{
    struct peers *p = mem_new(struct peers);
    p->options = *options;
    p->member = mem_strdup(options->member);
    p->tls = (struct http_tls){.ca_file = options->tls_ca,
                               .cert_file = options->tls_cert,
                               .key_file = options->tls_key,
                               .server_name = options->tls_server_name};
    list_init(&p->calls);
    rng_init(&p->rng, options->seed);
    return p;
}

void peers_free(struct peers *p)
{
    struct err closed = {0};
    if (!p)
        return;
    (void)err_set(&closed, ERR_CANCELLED, "peers are not asked any more"); /* the answers carry it */
    while (!list_empty(&p->calls)) {
        struct call *c = container_of(p->calls.next, struct call, link);
        list_remove(&c->link);
        if (c->done)
            c->done(c->arg, &closed, NULL);
        if (c->http) {
            http_cancel(c->http);
            mem_free(c);
        } else {
            c->peers = NULL; /* it never started: its callback still comes, and frees it */
        }
    }
    mem_free(p->member);
    mem_free(p);
}

static void tell(const struct call *c, const struct err *e, const struct http_reply *reply)
{
    struct err own = {0};
    json_t *doc = NULL;
    if (e->code == ERR_OK && reply->status == REPLAYED)
        (void)err_set(&own, ERR_UNKNOWN_OUTCOME, "the peer was asked twice");
    else if (e->code == ERR_OK && reply->status != 200)
        (void)err_set(&own, reply->status == 401 || reply->status == 403 ? ERR_AUTH : ERR_REFUSED,
                      "peer answered %d", reply->status);
    else if (e->code == ERR_OK)
        (void)json_read(reply->body, reply->body_bytes, REPLY_MAX, &doc,
                        &own); /* the verdict stands in OWN */
    else
        own = *e;
    c->done(c->arg, &own, doc);
    json_decref(doc);
}

static void on_reply(void *arg, const struct err *e, const struct http_reply *reply)
{
    struct call *c = arg;
    if (c->peers) {
        list_remove(&c->link);
        if (c->done)
            tell(c, e, reply);
    }
    mem_free(c);
}

/* The header line that shows who sends; false: unsigned (no secret is configured, or no memory: then the peer refuses). */
static bool sign(struct peers *p, const char *target, const struct buf *body, char line[PEER_AUTH_SIZE + 32])
{
    char value[PEER_AUTH_SIZE];
    struct peer_auth_secret secret = {.data = p->options.secret, .bytes = p->options.secret_bytes};
    struct peer_auth_message msg = {
        .method = "POST", .target = target, .context = "", .body = buf_str(body), .body_bytes = body->len};
    if (!p->options.secret || peer_auth_sign(&secret, &msg, p->member, clock_guard_now_ms(p->options.clock),
                                             rng_u64(&p->rng), value, NULL) < 0)
        return false;
    (void)snprintf(line, PEER_AUTH_SIZE + 32, PEER_AUTH_HEADER ": %s", value); /* sized for both */
    return true;
}

void peers_send(struct peers *p, const char *address, const char *path, json_t *body, int64_t timeout_ms,
                peers_done *done, void *arg)
{
    char url[512], target[128], signature[PEER_AUTH_SIZE + 32];
    const char *headers[3] = {"Content-Type: application/json", NULL, NULL};
    struct buf text = BUF_INIT(BODY_MAX);
    (void)snprintf(target, sizeof(target), "/peer/v1/%s", path);
    (void)snprintf(url, sizeof(url), "%s://%s%s", p->options.tls ? "https" : "http", address, target);
    if (body)
        (void)json_print(body, &text, NULL); /* an empty body is refused by the peer, which DONE tells */
    json_decref(body);
    if (sign(p, target, &text, signature))
        headers[1] = signature;
    struct call *c = mem_new(struct call);
    *c = (struct call){.peers = p, .done = done, .arg = arg};
    list_push_back(&p->calls, &c->link);
    struct http_call_options options = {.method = "POST",
                                        .url = url,
                                        .headers = headers,
                                        .body = buf_str(&text),
                                        .body_bytes = text.len,
                                        .tls = p->options.tls ? &p->tls : NULL,
                                        .timeout_ms = timeout_ms,
                                        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                        .reply_bytes_max = REPLY_MAX};
    c->http = http_send(p->options.http, &options, on_reply, c);
    buf_fini(&text);
}

json_t *peers_slots_document(const uint16_t *slots, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        if (json_array_append_new(list, json_integer(slots[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

long peers_slots_read(const json_t *list, uint32_t slots_total, uint16_t *ret)
{
    size_t count = json_array_size(list);
    json_int_t least = 0;
    if (!json_is_array(list) || count > slots_total)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t slot = json_integer_value(item);
        if (!json_is_integer(item) || slot < least || slot >= slots_total)
            return -1;
        ret[i] = (uint16_t)slot;
        least = slot + 1;
    }
    return (long)count;
}
