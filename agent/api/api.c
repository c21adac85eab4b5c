/* Listeners: start, the steps of the end, stop. */
#include "agent/api/api.h"

#include <assert.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/log.h"

enum {
    IDLE_TIMEOUT_MS = 60000,
    HEADER_BYTES_MAX = 32768,
    PEER_CONNECTIONS_MAX = 4000,
    OPS_CONNECTIONS_MAX = 64,
};

static const struct log_ctx log_api = {.module = "api"};

void api_ref(struct api *api)
{
    atomic_fetch_add_explicit(&api->refs, 1, memory_order_relaxed);
}

void api_unref(struct api *api)
{
    if (atomic_fetch_sub_explicit(&api->refs, 1, memory_order_acq_rel) != 1)
        return;
    peer_replay_free(api->replay);
    mem_free(api);
}

static const char *const face_names[] = {"api", "api", "ops", "peers"};

static int listen_on(struct api *api, enum api_face face, const char *listen, struct err *e)
{
    if (api->faces_count == API_LISTENERS_MAX)
        return err_set(e, ERR_INVALID, "more than %d listeners", API_LISTENERS_MAX);
    const struct config *c = api->config;
    struct listener_face *f = &api->faces[api->faces_count];
    struct httpd_options o = {.listen = listen,
                              .socket_mode = c->api.socket_mode,
                              .connections_max = face == API_FACE_PEER  ? PEER_CONNECTIONS_MAX
                                                 : face == API_FACE_OPS ? OPS_CONNECTIONS_MAX
                                                                        : (unsigned)c->api.max_connections,
                              .idle_timeout_ms = IDLE_TIMEOUT_MS,
                              .header_bytes_max = HEADER_BYTES_MAX,
                              .accept = api_on_accept,
                              .handle = api_on_handle,
                              .too_large = api_on_too_large,
                              .turned = api_on_turned,
                              .arg = f};
    if (face == API_FACE_PEER) {
        o.tls_cert = c->cluster.tls_cert;
        o.tls_key = c->cluster.tls_key;
        o.tls_client_ca = c->cluster.tls_cert ? c->cluster.tls_ca : NULL;
        o.tls_client_name = c->cluster.tls_cert ? c->cluster.tls_server_name : NULL;
    } else if (face == API_FACE_TCP) {
        o.tls_cert = c->api.tls_cert;
        o.tls_key = c->api.tls_key;
        o.tls_client_ca = c->api.tls_cert ? c->api.tls_client_ca : NULL;
    }
    uint64_t seed;
    int rc = rng_seed_os(&seed, e);
    if (rc < 0)
        return rc;
    rng_init(&f->rng, seed);
    f->api = api;
    f->face = face;
    f->arrived = inbox_new(api->loop, api_on_arrived, f);
    inbox_gather(f->arrived); /* many connections speak at once when their answers went out together */
    rc = httpd_start(&o, &f->httpd, e);
    if (rc < 0) {
        inbox_free(f->arrived);
        return rc;
    }
    api->faces_count++;
    log_info(&log_api, "listening", "for=%s address=%s", face_names[face], LOGQ(httpd_address(f->httpd)));
    return 0;
}

static int listen_on_all(struct api *api, const char *peer_listen, struct err *e)
{
    const struct config *c = api->config;
    int rc = peer_listen ? listen_on(api, API_FACE_PEER, peer_listen, e) : 0;
    for (size_t i = 0; rc == 0 && i < c->ops.listen.count; i++)
        rc = listen_on(api, API_FACE_OPS, c->ops.listen.items[i], e);
    for (size_t i = 0; rc == 0 && i < c->api.listen.count; i++) {
        const char *listen = c->api.listen.items[i];
        rc = listen_on(api, strncmp(listen, "unix:", 5) == 0 ? API_FACE_UNIX : API_FACE_TCP, listen, e);
    }
    return rc;
}

static void look_again(void *arg)
{
    struct api *api = arg;
    struct list now;
    list_init(&now);
    list_splice_back(&now, &api->waiting);
    api->waiting_count = 0;
    struct list *link;
    while ((link = list_pop_front(&now))) {
        struct api_wait *w = container_of(link, struct api_wait, link);
        w->run(w);
    }
}

int api_start(struct node *n, const struct config *c, const char *peer_listen, struct api **ret,
              struct err *e)
{
    struct api *api = mem_new(struct api);
    uint64_t seed;
    api->node = n;
    api->config = c;
    api->loop = node_loop(n);
    atomic_init(&api->refs, 1);
    atomic_init(&api->client_bulks, 0);
    atomic_init(&api->peer_bulks, 0);
    atomic_init(&api->stopping, false);
    list_init(&api->waiting);
    list_init(&api->calls);
    list_init(&api->listeners);
    list_init(&api->feeds);
    api->replay = peer_replay_new();
    api->peer_tls = (struct http_tls){.ca_file = c->cluster.tls_ca,
                                      .cert_file = c->cluster.tls_cert,
                                      .key_file = c->cluster.tls_key,
                                      .server_name = c->cluster.tls_server_name};
    int rc = rng_seed_os(&seed, e);
    if (rc == 0)
        rc = worker_pool_new(api->loop, "bulk", 1, NULL, NULL, NULL, &api->pool, e);
    if (rc == 0)
        rc = worker_pool_new(api->loop, "pages", 1, NULL, NULL, NULL, &api->pages, e);
    if (rc == 0)
        rc = gate_new(api, &api->gate, e);
    if (rc < 0) {
        if (api->pages)
            worker_pool_free(api->pages);
        if (api->pool)
            worker_pool_free(api->pool);
        peer_replay_free(api->replay);
        mem_free(api);
        return err_wrap(e, "start the API");
    }
    rng_init(&api->rng, seed);
    api->again = loop_timer_new(api->loop, look_again, api);
    api->keep_alive = loop_timer_new(api->loop, api_events_keep_alive, api);
    api->feeds_timer = loop_timer_new(api->loop, api_feeds_look, api);
    rc = listen_on_all(api, peer_listen, e);
    if (rc == 0)
        rc = certs_new(api, &api->certs, e);
    if (rc < 0) {
        api_stop(api);
        return err_wrap(e, "start the API");
    }
    *ret = api;
    return 0;
}

unsigned api_peer_port(const struct api *api)
{
    for (size_t i = 0; i < api->faces_count; i++)
        if (api->faces[i].face == API_FACE_PEER)
            return httpd_port(api->faces[i].httpd);
    return 0;
}

const char *api_address(const struct api *api, size_t i)
{
    for (size_t k = 0; k < api->faces_count; k++)
        if ((api->faces[k].face == API_FACE_TCP || api->faces[k].face == API_FACE_UNIX) && i-- == 0)
            return httpd_address(api->faces[k].httpd);
    return NULL;
}

void api_quiesce_public(struct api *api)
{
    for (size_t i = 0; i < api->faces_count; i++)
        if (api->faces[i].face == API_FACE_TCP || api->faces[i].face == API_FACE_UNIX)
            httpd_quiesce(api->faces[i].httpd);
}

void api_reload(struct api *api)
{
    gate_look(api->gate);
    certs_look(api->certs);
}

void api_stop(struct api *api)
{
    atomic_store(&api->stopping, true);
    struct list *link;
    api_feeds_stop(api);
    while ((link = list_first(&api->calls))) {
        struct api_call *call = container_of(link, struct api_call, link);
        struct err e;
        (void)err_set(&e, ERR_CANCELLED, "the agent is stopping"); /* its result is for those who return it */
        api_call_cancel(call);
        call->done(call, &e, NULL);
    }
    api_events_stop(api);
    look_again(api); /* each sees `stopping` and gives up */
    certs_free(api->certs);
    for (size_t i = 0; i < api->faces_count; i++) {
        httpd_stop(api->faces[i].httpd);
        inbox_free(api->faces[i].arrived); /* those too */
    }
    worker_pool_free(api->pool);
    worker_pool_free(api->pages);
    gate_free(api->gate);
    loop_timer_free(api->again);
    loop_timer_free(api->keep_alive);
    loop_timer_free(api->feeds_timer);
    assert(list_empty(&api->waiting) && list_empty(&api->calls));
    api_unref(api);
}
