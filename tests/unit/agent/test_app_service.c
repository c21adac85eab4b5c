#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "agent/app_service.h"
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
