/* One member without an agent around it, for tests with a real Consul: joins, watches members and one service, and prints an
 * event a line as JSON. SIGUSR1: say "leaving". SIGTERM: end the session, deregister, exit.
 *
 *   membership_probe ADDRESS CLUSTER MEMBER PORT SERVICE [TOKEN_FILE] */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/io/loop.h"
#include "consul/consul_service.h"
#include "consul/membership.h"

static struct {
    struct loop *loop;
    struct consul_client *client;
    struct membership *membership;
    struct consul_service_watch *watch;
    struct loop_timer *health_timer;
    int healthy; /* -1: not printed yet */
} probe = {.healthy = -1};

static void print_event(json_t *event)
{
    (void)json_dumpf(event, stdout, JSON_COMPACT);
    (void)puts("");
    (void)fflush(stdout);
    json_decref(event);
}

static void on_members(void *arg, const struct membership_view *view)
{
    json_t *members = json_array(), *leaving = json_array();
    (void)arg;
    for (size_t i = 0; i < view->count; i++)
        json_array_append_new(view->members[i].leaving ? leaving : members, json_string(view->members[i].id));
    print_event(json_pack("{s:s,s:o,s:o,s:b}", "event", "members", "members", members, "leaving", leaving,
                          "key_held", view->key_held));
}

static void on_instances(void *arg, const struct consul_instances *list)
{
    json_t *instances = json_array();
    (void)arg;
    for (size_t i = 0; i < list->count; i++)
        json_array_append_new(instances, json_sprintf("%s:%u", list->items[i].address, list->items[i].port));
    print_event(json_pack("{s:s,s:o}", "event", "instances", "instances", instances));
}

static void look_at_health(void *arg)
{
    const struct consul_health *health = consul_client_health(probe.client);
    (void)arg;
    if (health->ok != probe.healthy)
        print_event(
            json_pack("{s:s,s:b,s:s}", "event", "health", "ok", health->ok, "detail", health->detail));
    probe.healthy = health->ok;
    loop_timer_arm(probe.health_timer, 20);
}

static void on_stopped(void *arg)
{
    (void)arg;
    print_event(json_pack("{s:s}", "event", "stopped"));
    loop_stop(probe.loop);
}

static void on_signal(void *arg, int signum)
{
    static bool stopping;
    (void)arg;
    if (signum == SIGUSR1) {
        membership_leave(probe.membership);
    } else if (!stopping) {
        stopping = true;
        membership_stop(probe.membership, 2000, on_stopped, NULL);
    }
}

static int start(char **argv, struct err *e)
{
    uint32_t port = 0;
    int rc = text_u32(argv[4], strlen(argv[4]), 1, 65535, &port, e);
    if (rc < 0)
        return rc;
    struct consul_client_options client = {.address = argv[1], .token_file = argv[6]};
    struct membership_options o = {
        .cluster = argv[2],
        .member = argv[3],
        .name = argv[3],
        .host = "127.0.0.1",
        .port = (uint16_t)port,
        .weight = 1,
        .version = "probe",
        .started_ms = 1,
        .register_as = "carillon-probe",
        .check_ttl_ms = 5000,
        .session_ttl_ms = 10000,
        .node_check = true,
        .seed = port,
    };
    rc = consul_client_new(probe.loop, &client, &probe.client, e);
    if (rc < 0)
        return rc;
    probe.membership = membership_new(probe.client, &o, on_members, NULL);
    probe.watch = consul_service_watch_new(probe.client, argv[5], NULL, false, o.seed, on_instances, NULL);
    probe.health_timer = loop_timer_new(probe.loop, look_at_health, NULL);
    look_at_health(NULL);
    rc = loop_signal(probe.loop, SIGTERM, on_signal, NULL, e);
    return rc < 0 ? rc : loop_signal(probe.loop, SIGUSR1, on_signal, NULL, e);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    if (argc < 6 || loop_new(&probe.loop, &e) < 0 || start(argv, &e) < 0) {
        (void)fprintf(stderr, "membership_probe: %s\n", argc < 6 ? "arguments missing" : e.text);
        return 1;
    }
    loop_run(probe.loop);
    loop_timer_free(probe.health_timer);
    consul_service_watch_free(probe.watch);
    membership_free(probe.membership);
    consul_client_free(probe.client);
    loop_free(probe.loop);
    return 0;
}
