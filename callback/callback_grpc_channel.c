/* Connections of gRPC callbacks. */
#include <arpa/inet.h>
#include <grpc/grpc_security.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/io/file.h"
#include "callback/callback_grpc_private.h"

#define KEY_MAX ((size_t)8192)
/* A connection that nobody used for so long is closed. Unlike HTTP's it may be kept: an HTTP/2 server says when it goes. */
#define IDLE_US   UINT64_C(60000000)
#define SWEEP_US  UINT64_C(5000000)
#define REPLY_MAX (4 * 1024 * 1024) /* what gRPC's clients take unless told otherwise */
#define PEM_MAX   ((size_t)1 << 20)

/* --- target, key, credentials -------------------------------------------------------------------------------------- */

static const char *authority_of(const struct grpc_rpc *rpc)
{
    const struct job_callback *cb = &rpc->attempt->delivery->spec->callback;
    return cb->service ? cb->service : cb->address;
}

/* An address as gRPC's own resolver for addresses reads it: no name is looked up a second time. */
static void print_target(const struct sockaddr_storage *address, char *out, size_t size)
{
    char ip[INET6_ADDRSTRLEN];
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    if (address->ss_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, ip, sizeof(ip)); /* fits */
        (void)snprintf(out, size, "ipv6:%%5B%s%%5D:%u", ip, (unsigned)ntohs(v6->sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof(ip)); /* fits */
        (void)snprintf(out, size, "ipv4:%s:%u", ip, (unsigned)ntohs(v4->sin_port));
    }
}

static void key_add(struct buf *key, const char *text)
{
    buf_add(key, text ? text : "", text ? strlen(text) + 1 : 1);
}

/* Whatever makes one connection unfit for the other's calls. */
static void make_key(const struct grpc_rpc *rpc, const char *target, struct buf *key)
{
    const struct callback_tls *tls = rpc->attempt->tls;
    bool secure = rpc->attempt->delivery->spec->callback.tls;
    key_add(key, target);
    key_add(key, secure ? "tls" : "");
    key_add(key, authority_of(rpc));
    if (secure && tls) {
        key_add(key, tls->ca);
        key_add(key, tls->cert);
        key_add(key, tls->key);
        key_add(key, tls->server_name);
    }
}

static int read_pem(const char *path, struct buf *out, struct err *e)
{
    return path ? file_read(path, out, e) : 0;
}

/* The files are read for each new connection, so a renewed certificate is used without a reload. */
static int secure_credentials(const struct callback_tls *tls, grpc_channel_credentials **ret, struct err *e)
{
    AUTO(buf_fini) struct buf ca = BUF_INIT(PEM_MAX), cert = BUF_INIT(PEM_MAX), key = BUF_INIT(PEM_MAX);
    if (tls && (read_pem(tls->ca, &ca, e) < 0 || read_pem(tls->cert, &cert, e) < 0 ||
                read_pem(tls->key, &key, e) < 0))
        return -(int)e->code;
    grpc_ssl_pem_key_cert_pair pair = {.private_key = buf_str(&key), .cert_chain = buf_str(&cert)};
    *ret = grpc_ssl_credentials_create_ex(tls && tls->ca ? buf_str(&ca) : NULL,
                                          tls && tls->cert ? &pair : NULL, NULL, NULL);
    if (key.data)
        OPENSSL_cleanse(key.data, key.len);
    return *ret ? 0 : err_set(e, ERR_INVALID, "the certificate and its key are not usable");
}

static int credentials(const struct grpc_rpc *rpc, grpc_channel_credentials **ret, struct err *e)
{
    if (rpc->attempt->delivery->spec->callback.tls)
        return secure_credentials(rpc->attempt->tls, ret, e);
    *ret = grpc_insecure_credentials_create();
    return 0;
}

static grpc_arg text_arg(const char *name, const char *value)
{
    return (grpc_arg){.type = GRPC_ARG_STRING, .key = (char *)name, .value.string = (char *)value};
}

static grpc_arg number_arg(const char *name, int value)
{
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)name, .value.integer = value};
}

static grpc_channel *make_channel(const struct grpc_rpc *rpc, const char *target,
                                  grpc_channel_credentials *creds)
{
    const struct callback_tls *tls = rpc->attempt->tls;
    grpc_arg list[] = {
        number_arg("grpc.enable_retries", 0), /* a request is sent once */
        number_arg("grpc.enable_http_proxy", 0),
        number_arg("grpc.service_config_disable_resolution", 1),
        number_arg("grpc.use_local_subchannel_pool", 1), /* a new channel is a new connection */
        number_arg("grpc.min_reconnect_backoff_ms",
                   CALLBACK_CONNECT_MS), /* and how long connecting may take */
        number_arg("grpc.max_receive_message_length", REPLY_MAX),
        /* Its limit is looked at twice, but what is unpacked in between has none: 4 MiB can become 4 GiB. */
        number_arg("grpc.per_message_decompression", 0),
        number_arg("grpc.max_metadata_size", CALLBACK_REPLY_HEADERS_MAX),
        text_arg("grpc.primary_user_agent", rpc->t->user_agent),
        text_arg("grpc.default_authority", authority_of(rpc)),
        text_arg("grpc.ssl_target_name_override", tls && tls->server_name ? tls->server_name : ""),
    };
    size_t count = sizeof(list) / sizeof(*list);
    grpc_channel_args args = {tls && tls->server_name ? count : count - 1, list};
    return grpc_channel_create(target, creds, &args);
}

/* --- the life of a line -------------------------------------------------------------------------------------------- */

static void line_free(struct grpc_line *line)
{
    list_remove(&line->link);
    mem_free(line->key);
    mem_free(line);
}

static bool is_idle(const struct grpc_line *line)
{
    return list_empty(&line->waiting) && list_empty(&line->running);
}

void grpc_line_settle(struct grpc_line *line)
{
    if (line->listed || !is_idle(line))
        return;
    if (line->channel)
        grpc_channel_destroy(line->channel); /* ends the watch */
    line->channel = NULL;
    if (!line->watched)
        line_free(line);
}

static void unlist(struct grpc_line *line)
{
    if (line->listed)
        (void)map_remove(&line->t->by_key, line->key, line->key_bytes); /* it is there */
    line->listed = false;
}

void grpc_line_retire(struct grpc_line *line)
{
    unlist(line);
    grpc_line_settle(line);
}

static void watch(struct grpc_line *line, grpc_connectivity_state last)
{
    line->watched = true;
    grpc_channel_watch_connectivity_state(line->channel, last, gpr_inf_future(GPR_CLOCK_MONOTONIC),
                                          line->t->cq, &line->watch);
}

/* A call that found no connection to go out on would go out on the next one, whatever the gate says by then. */
static void cancel_unsent(struct grpc_line *line)
{
    LIST_FOR (link, &line->running) {
        struct grpc_rpc *rpc = container_of(link, struct grpc_rpc, link);
        if (!rpc->sent && rpc->ready)
            grpc_rpc_cancel(rpc, "the connection was closed before the request went out");
    }
}

static void on_connected(struct grpc_line *line)
{
    struct list *link;
    line->ready = true;
    while ((link = list_pop_front(&line->waiting)))
        grpc_rpc_start(container_of(link, struct grpc_rpc, link), true);
}

/* Those that wait try another address, or learn from a call what went wrong. */
static void on_failed(struct grpc_line *line)
{
    struct list *link;
    unlist(line);
    cancel_unsent(line);
    while ((link = list_pop_front(&line->waiting)))
        grpc_rpc_connect(container_of(link, struct grpc_rpc, link), NULL);
    grpc_line_settle(line);
}

static void on_watch(struct grpc_tag *tag, bool ok)
{
    struct grpc_line *line = container_of(tag, struct grpc_line, watch);
    (void)ok; /* without a deadline it tells nothing */
    line->watched = false;
    if (!line->channel || !line->listed) {
        grpc_line_settle(line);
        return;
    }
    grpc_connectivity_state state = grpc_channel_check_connectivity_state(line->channel, !line->ready);
    if (state == GRPC_CHANNEL_READY && !line->ready)
        on_connected(line);
    if (line->ready ? state != GRPC_CHANNEL_READY
                    : state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN)
        on_failed(line);
    else
        watch(line, state);
}

/* When there are as many as are allowed, the one that was not used for longest makes room. */
static void make_room(struct grpc_transport *t)
{
    struct grpc_line *oldest = NULL;
    if (map_count(&t->by_key) < t->options.connections_max)
        return;
    for (struct map_iter it = {0}; map_next(&t->by_key, &it);) {
        struct grpc_line *line = it.value;
        if (is_idle(line) && (!oldest || line->used_us < oldest->used_us))
            oldest = line;
    }
    if (oldest)
        grpc_line_retire(oldest);
}

static struct grpc_line *line_add(struct grpc_rpc *rpc, const char *target, struct buf *key, struct err *e)
{
    struct grpc_transport *t = rpc->t;
    grpc_channel_credentials *creds = NULL;
    if (credentials(rpc, &creds, e) < 0)
        return NULL;
    make_room(t);
    struct grpc_line *line = mem_new(struct grpc_line);
    line->t = t;
    line->channel = make_channel(rpc, target, creds);
    grpc_channel_credentials_release(creds);
    line->watch.run = on_watch;
    list_init(&line->waiting);
    list_init(&line->running);
    list_push_back(&t->channels, &line->link);
    line->since_us = line->heard_us = clock_boot_us();
    line->key_bytes = key->len;
    line->key = buf_steal(key, NULL, e);
    if (!line->key || map_put(&t->by_key, line->key, line->key_bytes, line, NULL, e) < 0) {
        grpc_line_settle(line);
        return NULL;
    }
    line->listed = true;
    watch(line, grpc_channel_check_connectivity_state(line->channel, true));
    return line;
}

struct grpc_line *grpc_line_get(struct grpc_rpc *rpc, struct err *e)
{
    AUTO(buf_fini) struct buf key = BUF_INIT(KEY_MAX);
    char target[INET6_ADDRSTRLEN + 32];
    print_target(rpc->address, target, sizeof(target));
    make_key(rpc, target, &key);
    if (buf_check(&key, e) < 0)
        return NULL;
    struct grpc_line *line = map_get(&rpc->t->by_key, key.data, key.len);
    if (!line)
        line = line_add(rpc, target, &key, e);
    if (line)
        line->used_us = clock_boot_us();
    return line;
}

void grpc_line_wait(struct grpc_line *line, struct grpc_rpc *rpc)
{
    struct grpc_transport *t = line->t;
    uint64_t line_us = line->since_us + CALLBACK_CONNECT_MS * UINT64_C(1000);
    uint64_t until_us = rpc->deadline_us < line_us ? rpc->deadline_us : line_us;
    list_push_back(&line->waiting, &rpc->link);
    if (until_us < t->expiry_us)
        t->expiry_us = until_us;
}

/* --- time ---------------------------------------------------------------------------------------------------------- */

static void expire_waiting(struct grpc_line *line, uint64_t now_us)
{
    bool too_slow = now_us >= line->since_us + CALLBACK_CONNECT_MS * UINT64_C(1000);
    struct list again, *link;
    list_init(&again);
    list_splice_back(&again, &line->waiting);
    if (too_slow)
        unlist(line);
    while ((link = list_pop_front(&again))) {
        struct grpc_rpc *rpc = container_of(link, struct grpc_rpc, link);
        if (now_us >= rpc->deadline_us)
            grpc_rpc_fail(rpc, "timed out before there was a connection");
        else if (too_slow)
            grpc_rpc_connect(rpc, "connecting timed out");
        else
            grpc_line_wait(line, rpc);
    }
}

static void check_line(struct grpc_line *line, uint64_t now_us)
{
    if (!list_empty(&line->waiting))
        expire_waiting(line, now_us);
    if (line->listed && is_idle(line) && now_us >= line->used_us + IDLE_US)
        unlist(line);
    grpc_line_settle(line);
}

void grpc_lines_check(struct grpc_transport *t, uint64_t now_us)
{
    if (now_us < t->expiry_us && now_us < t->sweep_us)
        return;
    t->expiry_us = GRPC_NEVER_US;
    t->sweep_us = now_us + SWEEP_US;
    LIST_FOR_SAFE(link, &t->channels)
    {
        check_line(container_of(link, struct grpc_line, link), now_us);
    }
}
