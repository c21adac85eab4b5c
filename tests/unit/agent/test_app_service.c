#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/app_service.h"
#include "agent/base/mem.h"
#include "agent/config.h"
#include "agent/io/loop.h"
#include "consul/consul_client.h"
#include "tests/lib/patience.h"
#include "tests/lib/raw_server.h"

/* A Consul that knows no service yet, and keeps what it is told of the first. */
static struct {
    struct loop *loop;
    struct loop_timer *look, *watchdog;
    pthread_mutex_t lock;
    char told[4096];
} bed = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool say(const struct raw_request *rq)
{
    bool registers = strncmp(rq->text, "PUT /v1/agent/service/register", 30) == 0;
    pthread_mutex_lock(&bed.lock);
    if (registers)
        snprintf(bed.told, sizeof(bed.told), "%s", rq->text + rq->head_bytes);
    pthread_mutex_unlock(&bed.lock);
    raw_write(rq->fd, registers ? "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                                : "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    return true;
}

static void on_look(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&bed.lock);
    bool told = bed.told[0] != '\0';
    pthread_mutex_unlock(&bed.lock);
    if (told)
        loop_stop(bed.loop);
    else
        loop_timer_arm(bed.look, 5);
}

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain");
}

static struct config *load(const char *address, const char *health_path)
{
    char at[300], path[1200];
    const char *const sets[] = {"cluster.mode=consul",
                                "store.driver=mysql",
                                "app.register=true",
                                "app.service=shop",
                                "app.port=8080",
                                at,
                                path};
    struct option_errors errors = {0};
    struct config *c = NULL;
    struct err e = {0};
    snprintf(at, sizeof(at), "app.address=%s", address);
    snprintf(path, sizeof(path), "app.health_path=%s", health_path);
    cr_assert(zero(int, config_load(NULL, sets, health_path[0] ? 7 : 6, NULL, &c, &errors, &e)), "%s",
              e.text);
    option_errors_fini(&errors);
    return c;
}

/* What Consul is told when the application is at ADDRESS and this machine is HOST. */
static void expect(const char *address, const char *host, const char *health_path, const char *told_address,
                   const char *check_key, const char *check)
{
    struct consul_client *client;
    struct err e = {0};
    char consul[64];
    bed.told[0] = '\0';
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    bed.look = loop_timer_new(bed.loop, on_look, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    loop_timer_arm(bed.look, 5);
    struct raw_server *server = raw_server_start(false, say, NULL);
    snprintf(consul, sizeof(consul), "127.0.0.1:%u", raw_server_port(server));
    struct consul_client_options options = {.address = consul};
    cr_assert(zero(int, consul_client_new(bed.loop, &options, &client, &e)), "%s", e.text);
    struct config *c = load(address, health_path);
    struct app_service *app = app_service_new(client, c, host);
    loop_run(bed.loop);
    app_service_free(app);
    consul_client_free(client);
    raw_server_stop(server);
    loop_timer_free(bed.look);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
    config_free(c);
    json_t *doc = json_loads(bed.told, 0, NULL);
    cr_assert(eq(str, (char *)json_string_value(json_object_get(doc, "Address")), (char *)told_address));
    cr_assert(eq(str, (char *)json_string_value(json_object_get(json_object_get(doc, "Check"), check_key)),
                 (char *)check));
    json_decref(doc);
}

Test(app_service, is_checked_where_it_is)
{
    expect("10.1.2.3", "10.9.9.9", "", "10.1.2.3", "TCP", "10.1.2.3:8080");
    expect("127.0.0.1", "10.9.9.9", "/well", "10.9.9.9", "HTTP", "http://10.9.9.9:8080/well");
}

Test(app_service, has_its_ipv6_address_in_brackets_before_the_port_alone)
{
    expect("fd00::5", "10.9.9.9", "", "fd00::5", "TCP", "[fd00::5]:8080");
    expect("[fd00::5]", "10.9.9.9", "/well", "fd00::5", "HTTP", "http://[fd00::5]:8080/well");
    expect("::1", "fd00::9", "/well", "fd00::9", "HTTP", "http://[fd00::9]:8080/well");
}

Test(app_service, has_all_of_a_long_place)
{
    char host[256], path[1001], check[1400];
    memset(host, 'h', sizeof(host) - 1);
    host[sizeof(host) - 1] = '\0';
    memset(path, 'p', sizeof(path) - 1);
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    snprintf(check, sizeof(check), "http://%s:8080%s", host, path);
    expect(host, "10.9.9.9", path, host, "HTTP", check);
}

/* --- faults -------------------------------------------------------------------------------------------------------- */

enum { MANY_MAX = 100, ONE_WAIT_MS = 60000 };

/* Applications of one Consul agent, each of which met a step that failed; they try again while the next ones begin. */
static struct {
    struct app_service *apps[MANY_MAX];
    struct config *configs[MANY_MAX];
    struct consul_client *client;
    struct raw_server *server;
    bool known[MANY_MAX]; /* to Consul; under the bed's lock */
    bool unchecked;       /* one came without its check; under the lock */
    unsigned stopped;
} many;

/* The application whose number is behind BEFORE in TEXT, if it is there. */
static void note_known(const char *text, const char *before, bool known)
{
    const char *at = strstr(text, before);
    unsigned long i = at ? strtoul(at + strlen(before), NULL, 10) : MANY_MAX;
    if (i < MANY_MAX)
        many.known[i] = known;
}

/* What has no body is refused, as Consul does. */
static bool say_many(const struct raw_request *rq)
{
    bool looks = strncmp(rq->text, "GET", 3) == 0,
         empty = strstr(rq->text, "/register") && rq->body_bytes == 0;
    pthread_mutex_lock(&bed.lock);
    if (!looks && !empty) {
        note_known(rq->text, "\"Name\":\"shop-", true);
        note_known(rq->text, "PUT /v1/agent/service/deregister/shop-", false);
        many.unchecked |= strstr(rq->text, "\"Name\":") && !strstr(rq->text, "\"TCP\":\"10.9.9.9:8080\"");
    }
    pthread_mutex_unlock(&bed.lock);
    raw_write(rq->fd, looks   ? "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
                      : empty ? "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
                              : "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    return true;
}

static bool is_known(unsigned i)
{
    pthread_mutex_lock(&bed.lock);
    bool known = many.known[i];
    pthread_mutex_unlock(&bed.lock);
    return known;
}

static void on_tick(void *arg)
{
    (void)arg;
    loop_timer_arm(bed.look, 1);
    loop_stop(bed.loop);
}

static void on_stopped(void *arg)
{
    (void)arg;
    many.stopped++;
}

static void begin_one(unsigned i)
{
    char service[32];
    snprintf(service, sizeof(service), "app.service=shop-%u", i);
    const char *const sets[] = {"cluster.mode=consul", "store.driver=mysql",    "app.register=true", service,
                                "app.port=8080",       "app.address=127.0.0.1", "agent.name=here"};
    struct option_errors errors = {0};
    struct err e = {0};
    cr_assert(zero(int, config_load(NULL, sets, 7, NULL, &many.configs[i], &errors, &e)), "%s", e.text);
    fault_arm(i);
    many.apps[i] = app_service_new(many.client, many.configs[i], "10.9.9.9");
}

/* The I-th step of an application's registration fails, or, where there are fewer, none. */
static bool register_under_fault(unsigned i)
{
    begin_one(i);
    while (!is_known(i) && fault_waits())
        loop_run(bed.loop);
    return fault_fired();
}

/* The same of its end, which is over in any case. */
static bool stop_under_fault(unsigned i, unsigned step)
{
    unsigned before = many.stopped;
    fault_arm(step);
    app_service_stop(many.apps[i], ONE_WAIT_MS, on_stopped, NULL);
    while (many.stopped == before)
        loop_run(bed.loop);
    return fault_fired();
}

static void open_many(void)
{
    struct err e = {0};
    char consul[64];
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    bed.look = loop_timer_new(bed.loop, on_tick, NULL);
    loop_timer_arm(bed.watchdog, 2 * ONE_WAIT_MS);
    loop_timer_arm(bed.look, 1);
    many.server = raw_server_start(false, say_many, NULL);
    snprintf(consul, sizeof(consul), "127.0.0.1:%u", raw_server_port(many.server));
    struct consul_client_options options = {.address = consul};
    cr_assert(zero(int, consul_client_new(bed.loop, &options, &many.client, &e)), "%s", e.text);
}

static void close_many(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        app_service_free(many.apps[i]);
        config_free(many.configs[i]);
    }
    consul_client_free(many.client);
    raw_server_stop(many.server);
    loop_timer_free(bed.look);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

Test(app_service, is_registered_in_the_end_and_ends_whatever_fails_once)
{
    unsigned count = 0, step = 0;
    bool fired = true;
    open_many();
    while (fired) {
        fired = register_under_fault(count++);
        cr_assert(lt(u32, count, MANY_MAX));
    }
    cr_assert(gt(u32, count, 4), "%u steps", count);
    for (unsigned i = 0; i < count; i++)
        while (!is_known(i))
            loop_run(bed.loop);
    for (unsigned i = 0; i < count; i++, step++)
        fired = stop_under_fault(i, step);
    cr_assert(not(fired), "more steps than applications");
    cr_assert(not(is_known(count - 1)));
    cr_assert(not(many.unchecked));
    close_many(count);
}
