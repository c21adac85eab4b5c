#include "agent/api/certs.h"

#include "agent/api/api_private.h"
#include "agent/base/log.h"

enum { LOOK_MS = 4000 };

static const struct log_ctx log_here = {.module = "api"};

struct certs {
    struct api *api;
    struct worker_pool *pool;
    struct work look;
    struct loop_timer *timer;
    bool looking, look_again;
};

/* On the worker, which has gone before the listeners go. */
static void run_look(struct work *w, void *context)
{
    struct api *api = container_of(w, struct certs, look)->api;
    (void)context;
    for (size_t i = 0; i < api->faces_count; i++) {
        struct httpd *h = api->faces[i].httpd;
        struct err e;
        bool changed;
        if (httpd_look_tls(h, &changed, &e) < 0)
            log_error(&log_here, "certificate not read again, the old one stays in use", "error=%s",
                      LOGQ(e.text));
        else if (changed)
            log_info(&log_here, "certificate read again", "address=%s", LOGQ(httpd_address(h)));
    }
}

static void look_done(struct work *w, bool cancelled)
{
    struct certs *c = container_of(w, struct certs, look);
    c->looking = false;
    if (cancelled || c->api->stopping)
        return;
    if (c->look_again)
        certs_look(c);
    else
        loop_timer_arm(c->timer, LOOK_MS);
}

static void on_timer(void *arg)
{
    certs_look(arg);
}

void certs_look(struct certs *c)
{
    if (!c)
        return;
    c->look_again = c->looking;
    if (c->looking || c->api->stopping)
        return;
    loop_timer_stop(c->timer);
    c->looking = true;
    worker_submit(c->pool, &c->look);
}

int certs_new(struct api *api, struct certs **ret, struct err *e)
{
    if (!api->config->api.tls_cert && !api->config->cluster.tls_cert)
        return 0;
    struct certs *c = mem_new(struct certs);
    c->api = api;
    c->look = (struct work){.run = run_look, .done = look_done};
    list_init(&c->look.link);
    int rc = worker_pool_new(api->loop, "certs", 1, NULL, NULL, NULL, &c->pool, e);
    if (rc < 0) {
        mem_free(c);
        return rc;
    }
    c->timer = loop_timer_new(api->loop, on_timer, c);
    loop_timer_arm(c->timer, LOOK_MS);
    *ret = c;
    return 0;
}

void certs_free(struct certs *c)
{
    if (!c)
        return;
    worker_pool_free(c->pool);
    loop_timer_free(c->timer);
    mem_free(c);
}
