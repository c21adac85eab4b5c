#include "consul/consul_kv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"
#include "consul/consul_watch.h"

#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 2000
#define REPLY_MAX    (CONSUL_KV_MAX * 2)

struct consul_kv {
    struct consul_client *client;
    struct consul_watch *watch;
    struct consul_call *read_call, *put_call;
    struct loop_timer *timer;
    consul_kv_told *told;
    void *arg;
    char key[300];
    bool again; /* news while a read was under way */
    bool writing;
    unsigned failures;
    struct rng rng;
    struct err trouble;
};

int consul_kv_parse(const char *body, size_t bytes, char **ret, size_t *ret_bytes, uint64_t *ret_index,
                    struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(CONSUL_KV_MAX);
    json_t *doc = NULL;
    int rc = json_read(body, bytes, REPLY_MAX, &doc, e);
    if (rc < 0)
        return rc == -ERR_NOMEM ? rc : err_set(e, ERR_PROTOCOL, "Consul's answer about a key is no JSON");
    const json_t *entry = json_array_get(doc, 0);
    const char *encoded = json_string_value(json_object_get(entry, "Value"));
    json_int_t index = json_integer_value(json_object_get(entry, "ModifyIndex"));
    if (encoded)
        rc = text_base64_decode(&text, encoded, strlen(encoded), e);
    json_decref(doc);
    if (index <= 0 || (rc < 0 && rc != -ERR_NOMEM))
        return err_set(e, ERR_PROTOCOL, "Consul's answer about a key is no entry");
    size_t len = text.len;
    char *value = rc == 0 ? mem_try_strndup(buf_str(&text), len, e) : NULL;
    if (!value)
        return err_set(e, ERR_NOMEM, "no memory for a key's value");
    *ret = value;
    *ret_bytes = len;
    *ret_index = (uint64_t)index;
    return 0;
}

static void read_key(void *arg);

static void failed(struct consul_kv *kv, const struct err *e)
{
    int64_t delay = RETRY_MIN_MS;
    for (unsigned i = 0; i < kv->failures && delay < RETRY_MAX_MS; i++)
        delay *= 2;
    kv->failures++;
    kv->trouble = *e;
    if (delay > RETRY_MAX_MS)
        delay = RETRY_MAX_MS;
    loop_timer_arm(kv->timer, delay / 2 + (int64_t)rng_below(&kv->rng, (uint64_t)delay));
}

static void answered(struct consul_kv *kv, const char *value, size_t bytes, uint64_t index)
{
    bool again = kv->again;
    kv->failures = 0;
    kv->trouble = (struct err){0};
    kv->again = false;
    if (again) { /* it may be older than the news, or than what was written */
        read_key(kv);
        return;
    }
    kv->writing = kv->put_call != NULL;
    kv->told(kv->arg, value, bytes, index); /* may free KV */
}

static void on_read(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct consul_kv *kv = arg;
    AUTO(mem_free) char *value = NULL;
    struct err own = {0};
    size_t bytes = 0;
    uint64_t index = 0;
    kv->read_call = NULL;
    if (e->code == ERR_CANCELLED)
        return;
    if (e->code == ERR_NOT_FOUND && reply && reply->has_index) {
        answered(kv, NULL, 0, 0);
        return;
    }
    if (e->code == ERR_OK && reply->has_index)
        (void)consul_kv_parse(reply->body, reply->body_bytes, &value, &bytes, &index, &own);
    else
        (void)err_set(&own, e->code != ERR_OK ? e->code : ERR_PROTOCOL, "%s",
                      e->code != ERR_OK ? e->text : "the answer is not Consul's");
    if (own.code != ERR_OK)
        failed(kv, &own);
    else
        answered(kv, value, bytes, index);
}

static void read_key(void *arg)
{
    struct consul_kv *kv = arg;
    char path[400];
    if (kv->read_call) {
        kv->again = true;
        return;
    }
    loop_timer_stop(kv->timer);
    (void)snprintf(path, sizeof(path), "/v1/kv/%s?consistent", kv->key); /* measured when it was made */
    struct consul_request request = {.method = "GET", .path = path, .reply_max = REPLY_MAX};
    kv->read_call = consul_send(kv->client, &request, on_read, kv);
}

static void on_news(void *arg, const char *body, size_t bytes)
{
    (void)body; /* perhaps a follower's, that is behind */
    (void)bytes;
    read_key(arg);
}

void consul_kv_read(struct consul_kv *kv)
{
    read_key(kv);
}

/* Won, refused or not known: what there is now tells. */
static void on_put(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct consul_kv *kv = arg;
    (void)reply;
    kv->put_call = NULL;
    if (e->code == ERR_CANCELLED)
        return;
    if (e->code != ERR_OK) {
        failed(kv, e);
        return;
    }
    read_key(kv);
}

void consul_kv_put(struct consul_kv *kv, const char *value, size_t bytes, uint64_t index)
{
    char path[400];
    assert(!kv->writing && bytes <= CONSUL_KV_MAX);
    kv->writing = true;
    (void)snprintf(path, sizeof(path), "/v1/kv/%s?cas=%llu", kv->key, (unsigned long long)index);
    struct consul_request request = {.method = "PUT", .path = path, .body = value, .body_bytes = bytes};
    kv->put_call = consul_send(kv->client, &request, on_put, kv);
}

bool consul_kv_is_writing(const struct consul_kv *kv)
{
    return kv->writing;
}

const char *consul_kv_trouble(const struct consul_kv *kv)
{
    return kv->trouble.text;
}

struct consul_kv *consul_kv_new(struct consul_client *c, const char *key, uint64_t seed, consul_kv_told *told,
                                void *arg)
{
    struct consul_kv *kv = mem_new(struct consul_kv);
    char path[400];
    assert(strlen(key) < sizeof(kv->key));
    memcpy(kv->key, key, strlen(key) + 1);
    kv->client = c;
    kv->told = told;
    kv->arg = arg;
    rng_init(&kv->rng, seed);
    kv->timer = loop_timer_new(consul_client_loop(c), read_key, kv);
    (void)snprintf(path, sizeof(path), "/v1/kv/%s", key); /* measured above */
    struct consul_watch_options options = {
        .path = path, .reply_max = REPLY_MAX, .empty_is_404 = true, .seed = seed};
    kv->watch = consul_watch_new(c, &options, on_news, kv);
    return kv;
}

void consul_kv_free(struct consul_kv *kv)
{
    if (!kv)
        return;
    consul_cancel(kv->read_call);
    consul_cancel(kv->put_call);
    consul_watch_free(kv->watch);
    loop_timer_free(kv->timer);
    mem_free(kv);
}
