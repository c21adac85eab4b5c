#include "agent/app_service.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/config.h"
#include "agent/io/loop.h"
#include "consul/consul_service.h"

#define LOOK_MS  10000
#define RETRY_MS 1000

static const struct log_ctx log_here = {.module = "app"};

struct app_service {
    struct consul_client *client;
    struct loop_timer *timer, *stop_timer;
    struct consul_call *call;
    /* Long enough for all that the options allow. */
    char id[256], check_id[280], name[129], host[256], check[1400];
    uint16_t port;
    bool http_check;
    bool failed;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void on_registered(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct app_service *a = arg;
    (void)reply; /* its code says all */
    a->call = NULL;
    if (e->code == ERR_CANCELLED)
        return;
    if (e->code == ERR_OK)
        log_info(&log_here, "application registered in Consul", "service=%s", LOGQ(a->name));
    else if (!a->failed)
        log_warn(&log_here, "application not registered, trying again", "error=%s", LOGQ(e->text));
    a->failed = e->code != ERR_OK;
    loop_timer_arm(a->timer, a->failed ? RETRY_MS : LOOK_MS);
}

static void enroll(struct app_service *a)
{
    struct consul_service service = {.id = a->id,
                                     .name = a->name,
                                     .address = a->host,
                                     .port = a->port,
                                     .check_id = a->check_id,
                                     .check_http = a->http_check ? a->check : NULL,
                                     .check_tcp = a->http_check ? NULL : a->check};
    a->call = consul_service_register(a->client, &service, on_registered, a);
}

static void on_looked(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct app_service *a = arg;
    (void)reply; /* its code says all */
    a->call = NULL;
    if (e->code == ERR_CANCELLED)
        return;
    if (e->code == ERR_NOT_FOUND)
        enroll(a);
    else
        loop_timer_arm(a->timer, e->code == ERR_OK ? LOOK_MS : RETRY_MS);
}

/* Looking first: registering anew would set a failing check to passing. */
static void look(void *arg)
{
    struct app_service *a = arg;
    char path[320];
    (void)snprintf(path, sizeof(path), "/v1/agent/service/%s", a->id);
    struct consul_request request = {.method = "GET", .path = path};
    a->call = consul_send(a->client, &request, on_looked, a);
}

/* An IPv6 address stands bare in Consul's catalog, and between brackets before a port. */
static void set_host(struct app_service *a, const char *host)
{
    size_t len = strlen(host);
    bool brackets = len > 1 && host[0] == '[' && host[len - 1] == ']';
    (void)snprintf(a->host, sizeof(a->host), "%.*s", (int)(brackets ? len - 2 : len),
                   host + brackets); /* it fits */
}

/* Where the application is reached, and where Consul looks at it. */
static void set_place(struct app_service *a, const struct config *config, const char *host)
{
    const char *path = config->app.health_path;
    set_host(a, config->app.address);
    if (config_is_loopback_host(a->host, strlen(a->host)))
        set_host(a, host);
    bool brackets = strchr(a->host, ':') != NULL;
    a->http_check = path != NULL;
    (void)snprintf(a->check, sizeof(a->check), "%s%s%s%s:%u%s", path ? "http://" : "", brackets ? "[" : "",
                   a->host, brackets ? "]" : "", a->port, path ? path : "");
}

struct app_service *app_service_new(struct consul_client *c, const struct config *config, const char *host)
{
    struct app_service *a = mem_new(struct app_service);
    a->client = c;
    a->port = (uint16_t)config->app.port;
    (void)snprintf(a->name, sizeof(a->name), "%s", config->app.service); /* it fits */
    (void)snprintf(a->id, sizeof(a->id), "%s-%s", config->app.service, config->agent.name);
    (void)snprintf(a->check_id, sizeof(a->check_id), "%s-app", a->id);
    set_place(a, config, host);
    a->timer = loop_timer_new(consul_client_loop(c), look, a);
    loop_timer_arm(a->timer, 0);
    return a;
}

static void finish_stop(void *arg)
{
    struct app_service *a = arg;
    void (*stopped)(void *) = a->stopped;
    a->stopped = NULL;
    loop_timer_stop(a->stop_timer);
    if (stopped)
        stopped(a->stopped_arg); /* may free A */
}

static void on_deregistered(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct app_service *a = arg;
    (void)e; /* Consul's own check takes it out otherwise */
    (void)reply;
    a->call = NULL;
    loop_timer_arm(a->stop_timer, 0);
}

void app_service_stop(struct app_service *a, int64_t timeout_ms, void (*done)(void *arg), void *arg)
{
    consul_cancel(a->call);
    loop_timer_stop(a->timer);
    a->stopped = done;
    a->stopped_arg = arg;
    if (!a->stop_timer)
        a->stop_timer = loop_timer_new(consul_client_loop(a->client), finish_stop, a);
    loop_timer_arm(a->stop_timer, timeout_ms);
    a->call = consul_service_deregister(a->client, a->id, on_deregistered, a);
}

void app_service_free(struct app_service *a)
{
    if (!a)
        return;
    consul_cancel(a->call);
    loop_timer_free(a->timer);
    loop_timer_free(a->stop_timer);
    mem_free(a);
}
