#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/mem.h"
#include "agent/io/loop.h"
#include "consul/consul_client.h"
#include "tests/lib/patience.h"
#include "tests/lib/raw_server.h"

static struct {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct raw_server *server;
    struct consul_client *client;
    const char *reply;
    char seen[4096];
    char address[64];
    struct err err;
    struct consul_reply got;
    char body[256];
    unsigned done;
} bed;

static bool say(const struct raw_request *rq)
{
    snprintf(bed.seen, sizeof(bed.seen), "%s", rq->text);
    if (!bed.reply)
        return false;
    raw_write(rq->fd, bed.reply);
    return true;
}

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain");
}

static void open_bed(struct consul_client_options options)
{
    struct err e = {0};
    memset(&bed, 0, sizeof(bed));
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    bed.server = raw_server_start(false, say, NULL);
    snprintf(bed.address, sizeof(bed.address), "127.0.0.1:%u", raw_server_port(bed.server));
    options.address = bed.address;
    cr_assert(zero(int, consul_client_new(bed.loop, &options, &bed.client, &e)), "%s", e.text);
}

static void close_bed(void)
{
    consul_client_free(bed.client);
    raw_server_stop(bed.server);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

static void on_done(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct consul_call **call = arg;
    bed.err = *e;
    bed.got = reply ? *reply : (struct consul_reply){.status = -1};
    snprintf(bed.body, sizeof(bed.body), "%s", reply ? reply->body : "");
    bed.done++;
    if (call)
        consul_cancel(*call); /* from within: nothing */
    loop_stop(bed.loop);
}

static void ask_path(const char *path, const char *reply)
{
    bed.reply = reply;
    struct consul_request request = {.method = "GET", .path = path, .timeout_ms = 60000};
    consul_send(bed.client, &request, on_done, NULL);
    cr_assert(zero(uint, bed.done), "before return");
    loop_run(bed.loop);
    cr_assert(eq(uint, bed.done, 1));
    bed.done = 0;
}

static void ask(const char *reply)
{
    ask_path("/v1/kv/x", reply);
}

static bool healthy(void)
{
    return consul_client_health(bed.client)->ok;
}

Test(consul_client, sorts_answers_into_the_classes_of_the_contract)
{
    static const struct {
        const char *reply;
        enum err_code code;
        int status;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nX-Consul-LastContact: 7\r\nContent-Length: 2\r\n\r\nok",
         ERR_OK, 200},
        {"HTTP/1.1 404 No\r\nX-Consul-Index: 9\r\nContent-Length: 0\r\n\r\n", ERR_NOT_FOUND, 404},
        {"HTTP/1.1 400 No\r\nContent-Length: 3\r\n\r\nbad", ERR_INVALID, 400},
        {"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", ERR_AUTH, 401},
        {"HTTP/1.1 403 No\r\nContent-Length: 17\r\n\r\nPermission denied", ERR_AUTH, 403},
        {"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", ERR_BUSY, 429},
        {"HTTP/1.1 500 No\r\nContent-Length: 17\r\n\r\nNo cluster leader", ERR_UNAVAILABLE, 500},
        {"HTTP/1.1 302 No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", ERR_UNAVAILABLE, 302},
        {NULL, ERR_UNKNOWN_OUTCOME, -1},
    };
    open_bed((struct consul_client_options){0});
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        ask(cases[i].reply);
        cr_assert(eq(int, bed.err.code, cases[i].code), "%zu: %s", i, bed.err.text);
        cr_assert(eq(int, bed.got.status, cases[i].status));
        cr_assert(eq(int, bed.got.has_index, i < 2));
        cr_assert(eq(u64, bed.got.index, i == 0 ? 5 : i == 1 ? 9 : 0));
    }
    close_bed();
}

Test(consul_client, an_index_that_is_no_number_counts_as_zero)
{
    open_bed((struct consul_client_options){0});
    ask("HTTP/1.1 200 OK\r\nX-Consul-Index: -5x\r\nX-Consul-LastContact: soon\r\nContent-Length: 2\r\n\r\nok");
    cr_assert(zero(u64, bed.got.index));
    cr_assert(eq(i64, bed.got.last_contact_ms, -1));
    close_bed();
}

Test(consul_client, health_follows_the_servers_and_not_the_agent_or_our_rights)
{
    open_bed((struct consul_client_options){0});
    cr_assert(not(healthy()));
    ask_path("/v1/agent/self", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    cr_assert(not(healthy()), "the agent answers without its servers too");
    ask("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    cr_assert(healthy());
    ask("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    cr_assert(healthy(), "one path that we may not read");
    ask("HTTP/1.1 500 No\r\nContent-Length: 22\r\n\r\ninvalid session \"abc\".");
    cr_assert(healthy());
    ask_path("/v1/health/service/x?dc=moon",
             "HTTP/1.1 500 No\r\nContent-Length: 21\r\n\r\nNo path to datacenter");
    cr_assert(healthy());
    ask_path("/v1/agent/check/pass/x", "HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\nUnknown x");
    cr_assert(healthy());
    ask("HTTP/1.1 500 No\r\nContent-Length: 17\r\n\r\nNo cluster leader");
    cr_assert(not(healthy()));
    cr_assert(ne(ptr, strstr(consul_client_health(bed.client)->detail, "No cluster leader"), NULL));
    ask("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
    cr_assert(healthy());
    ask_path("/v1/agent/self", NULL);
    cr_assert(not(healthy()), "no answer at all");
    close_bed();
}

Test(consul_client, carries_token_and_auth_and_the_datacenter_once)
{
    char value[128];
    open_bed(
        (struct consul_client_options){.token = "secret", .auth = "u:p", .datacenter = "dc 1", .ns = "team"});
    ask_path("/v1/health/service/dc=x?passing", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    cr_assert(raw_header(bed.seen, "X-Consul-Token", value, sizeof(value)));
    cr_assert(eq(str, value, "secret"));
    cr_assert(raw_header(bed.seen, "Authorization", value, sizeof(value)));
    cr_assert(eq(str, value, "Basic dTpw"));
    const char *line = "GET /v1/health/service/dc=x?passing&dc=dc%201&ns=team HTTP/1.1\r\n";
    cr_assert(zero(int, strncmp(bed.seen, line, strlen(line))), "%s", bed.seen);
    ask_path("/v1/health/service/x?dc=dc2", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    cr_assert(ne(ptr, strstr(bed.seen, "?dc=dc2&ns=team "), NULL));
    close_bed();
}

Test(consul_client, cancel_from_within_the_callback_does_nothing_and_before_it_forgets_it)
{
    struct consul_call *call = NULL;
    struct consul_request request = {.method = "GET", .path = "/v1/kv/x"};
    open_bed((struct consul_client_options){0});
    bed.reply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    call = consul_send(bed.client, &request, on_done, &call);
    loop_run(bed.loop);
    cr_assert(eq(uint, bed.done, 1));
    bed.done = 0;
    struct consul_call *second = consul_send(bed.client, &request, on_done, NULL);
    consul_cancel(second);
    consul_cancel(NULL);
    ask(bed.reply); /* DONE of the cancelled one would be a second */
    close_bed();
}

Test(consul_client, calls_under_way_are_cancelled_with_the_client)
{
    struct consul_request request = {.method = "GET", .path = "/v1/kv/x"};
    open_bed((struct consul_client_options){0});
    consul_send(bed.client, &request, on_done, NULL);
    consul_client_free(bed.client);
    bed.client = NULL;
    cr_assert(eq(uint, bed.done, 1));
    cr_assert(eq(int, bed.err.code, ERR_CANCELLED));
    loop_run(bed.loop);
    close_bed();
}

Test(consul_client, a_path_too_long_is_refused)
{
    char path[6000];
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    memcpy(path, "/v1/kv/", 7);
    open_bed((struct consul_client_options){0});
    ask_path(path, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    cr_assert(lt(int, -(int)bed.err.code, 0));
    cr_assert(zero(uint, raw_server_requests(bed.server)));
    close_bed();
}

Test(consul_client, refuses_addresses_and_tokens_that_are_none)
{
    static const char *const bad[] = {"", "unix://relative", "http://", "127.0.0.1:8500/ui", "https:///x"};
    struct consul_client *c = NULL;
    struct loop *loop;
    struct err e = {0};
    cr_assert(zero(int, loop_new(&loop, NULL)));
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct consul_client_options o = {.address = bad[i]};
        cr_assert(eq(int, consul_client_new(loop, &o, &c, &e), -ERR_INVALID), "%s", bad[i]);
    }
    struct consul_client_options o = {.token = "two\nlines"};
    cr_assert(eq(int, consul_client_new(loop, &o, &c, &e), -ERR_INVALID));
    o = (struct consul_client_options){.token_file = "/does/not/exist"};
    cr_assert(lt(int, consul_client_new(loop, &o, &c, &e), 0));
    cr_assert(zero(ptr, c));
    loop_free(loop);
}

Test(consul_client, the_environment_fills_what_options_leave_open)
{
    const char *const env[] = {"CONSUL_HTTP_ADDR=unix:///run/consul",
                               "CONSUL_HTTP_TOKEN=t",
                               "CONSUL_HTTP_AUTH=u:p",
                               "CONSUL_HTTP_SSL=True",
                               "CONSUL_HTTP_SSL_VERIFY=0",
                               "CONSUL_CACERT=/ca",
                               "CONSUL_CAPATH=/cas",
                               "CONSUL_CLIENT_CERT=/cert",
                               "CONSUL_CLIENT_KEY=/key",
                               "CONSUL_TLS_SERVER_NAME=consul.local",
                               "CONSUL_NAMESPACE=",
                               "CONSUL_HTTP_ADDRESS=no",
                               NULL};
    struct consul_client_options o = {0};
    consul_options_from_env(&o, env);
    cr_assert(eq(str, (char *)o.address, "unix:///run/consul"));
    cr_assert(eq(str, (char *)o.token, "t"));
    cr_assert(eq(str, (char *)o.auth, "u:p"));
    cr_assert(o.tls);
    cr_assert(o.tls_skip_verify);
    cr_assert(eq(str, (char *)o.tls_ca, "/ca"));
    cr_assert(eq(str, (char *)o.tls_ca_path, "/cas"));
    cr_assert(eq(str, (char *)o.tls_cert, "/cert"));
    cr_assert(eq(str, (char *)o.tls_key, "/key"));
    cr_assert(eq(str, (char *)o.tls_server_name, "consul.local"));
    cr_assert(zero(ptr, (char *)o.ns), "empty is not given");
    o = (struct consul_client_options){.address = "10.0.0.1:8500", .token_file = "/token"};
    consul_options_from_env(&o, env);
    cr_assert(eq(str, (char *)o.address, "10.0.0.1:8500"));
    cr_assert(zero(ptr, (char *)o.token), "the file was given and wins");
    consul_options_from_env(&o, NULL);
    const char *const off[] = {"CONSUL_HTTP_SSL=false", "CONSUL_HTTP_SSL_VERIFY=true", NULL};
    o = (struct consul_client_options){0};
    consul_options_from_env(&o, off);
    cr_assert(not(o.tls));
    cr_assert(not(o.tls_skip_verify));
}

/* Whatever fails on the way, the client says so, and the caller is told exactly once. */
Test(consul_client, every_step_may_fail_and_the_end_is_told_once)
{
    unsigned k = 0;
    open_bed((struct consul_client_options){0});
    struct consul_client_options options = {.address = bed.address};
    struct consul_request request = {.method = "GET", .path = "/v1/x", .timeout_ms = 60000};
    consul_client_free(bed.client);
    bed.client = NULL;
    bed.reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (bool fired = true; fired; k++) {
        struct err e = {0};
        bed.done = 0;
        fault_arm(k);
        int rc = consul_client_new(bed.loop, &options, &bed.client, &e);
        if (rc == 0) {
            consul_send(bed.client, &request, on_done, NULL);
            loop_run(bed.loop);
            cr_assert(eq(uint, bed.done, 1), "k=%u", k);
        }
        fired = fault_fired();
        cr_assert(fired || (rc == 0 && bed.err.code == ERR_OK), "k=%u", k);
        cr_assert(rc == 0 || (!bed.client && e.text[0]), "k=%u", k);
        consul_client_free(bed.client);
        bed.client = NULL;
    }
    cr_assert(gt(uint, k, 3));
    cr_assert(eq(str, bed.body, "ok"));
    close_bed();
}
