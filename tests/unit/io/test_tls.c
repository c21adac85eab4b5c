/* Our HTTP client against our HTTP server, with certificates made on the spot. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/http.h"
#include "agent/io/httpd.h"
#include "agent/io/loop.h"
#include "tests/unit/io/certificate.h"
#include "tests/unit/io/client.h"

static char dir[64];
static struct loop *loop;
static struct http_client *client;
static struct httpd *server;
static struct err e, result;
static int status, handled;

static int64_t accept_request(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return 0;
}
static void handle(struct httpd_request *rq, void *arg)
{
    (void)arg;
    handled++;
    httpd_reply(rq, strncmp(httpd_header(rq, "Host"), "127.0.0.1:", 10) == 0 ? 200 : 421, NULL, 0, NULL);
}
static void serve_with(const char *client_ca, const char *client_name, unsigned idle_timeout_ms)
{
    struct httpd_options o = {.listen = "127.0.0.1:0",
                              .tls_cert = "server.test.pem",
                              .tls_key = "server.test.key",
                              .tls_client_ca = client_ca,
                              .tls_client_name = client_name,
                              .connections_max = 2,
                              .idle_timeout_ms = idle_timeout_ms,
                              .header_bytes_max = 4096,
                              .accept = accept_request,
                              .handle = handle,
                              .too_large = handle};
    cr_assert(zero(int, httpd_start(&o, &server, &e)), "%s", e.text);
}
static void serve(const char *client_ca)
{
    serve_with(client_ca, NULL, 600000); /* a connection is kept however long a starved test takes */
}

static void begin(void)
{
    snprintf(dir, sizeof dir, "%s/test-tls-XXXXXX", P_tmpdir);
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    cr_assert(zero(int, chdir(dir)));
    make_certificate("server.test");
    make_certificate("client.test");
    make_certificate("stranger.test");
    cr_assert(zero(int, loop_new(&loop, &e)));
    cr_assert(zero(int, http_client_new(loop, 4, &client, &e)));
}
static void end(void)
{
    char command[128];
    http_client_free(client);
    httpd_stop(server);
    loop_free(loop);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    cr_assert(zero(int, system(command)));
}

TestSuite(tls, .init = begin, .fini = end, .timeout = 600);

static void on_done(void *arg, const struct err *err, const struct http_reply *reply)
{
    (void)arg;
    result = *err;
    status = reply ? reply->status : 0;
    loop_stop(loop);
}

static void call(const struct http_tls *tls)
{
    char url[64];
    snprintf(url, sizeof url, "https://127.0.0.1:%u/", httpd_port(server));
    struct http_call_options o = {.method = "GET",
                                  .url = url,
                                  .tls = tls,
                                  .timeout_ms = 60000,
                                  .connect_timeout_ms = 60000,
                                  .reply_bytes_max = 10000};
    (void)http_send(client, &o, on_done, NULL);
    loop_run(loop);
}

Test(tls, a_trusted_server_is_called_by_another_name_than_its_address)
{
    struct http_tls tls = {.ca_file = "server.test.pem", .server_name = "server.test"};
    serve(NULL);
    call(&tls);
    cr_assert(eq(int, result.code, ERR_OK), "%s", result.text);
    cr_assert(eq(int, status, 200), "the Host header is to stay that of the URL");
}

Test(tls, a_server_that_is_not_trusted_or_has_another_name_is_unavailable)
{
    struct http_tls wrong_name = {.ca_file = "server.test.pem", .server_name = "other.test"};
    struct http_tls wrong_ca = {.ca_file = "stranger.test.pem", .server_name = "server.test"};
    struct http_tls unchecked = {.skip_verify = true};
    serve(NULL);
    call(&wrong_name);
    cr_assert(eq(int, result.code, ERR_UNAVAILABLE), "%s", result.text);
    call(&wrong_ca);
    cr_assert(eq(int, result.code, ERR_UNAVAILABLE), "%s", result.text);
    call(NULL);
    cr_assert(eq(int, result.code, ERR_UNAVAILABLE), "%s", result.text);
    cr_assert(zero(int, handled));
    call(&unchecked);
    cr_assert(eq(int, result.code, ERR_OK), "%s", result.text);
}

Test(tls, with_a_client_ca_only_its_clients_are_let_in)
{
    struct http_tls none = {.ca_file = "server.test.pem", .server_name = "server.test"};
    struct http_tls stranger = none, known = none;
    stranger.cert_file = "stranger.test.pem";
    stranger.key_file = "stranger.test.key";
    known.cert_file = "client.test.pem";
    known.key_file = "client.test.key";
    serve("client.test.pem");
    call(&none);
    cr_assert(eq(int, status, 403), "%d %s", status, result.text);
    call(&stranger);
    cr_assert(ne(int, status, 200));
    cr_assert(zero(int, handled));
    call(&known);
    cr_assert(eq(int, status, 200), "%s", result.text);
    call(&known);
    cr_assert(eq(int, handled, 2));
}

Test(tls, with_a_name_only_clients_who_have_it_are_let_in)
{
    struct http_tls known = {.ca_file = "server.test.pem",
                             .server_name = "server.test",
                             .cert_file = "client.test.pem",
                             .key_file = "client.test.key"};
    struct http_tls other = known;
    other.cert_file = "stranger.test.pem";
    other.key_file = "stranger.test.key";
    cr_assert(zero(int, system("cat client.test.pem stranger.test.pem > both.pem")));
    serve_with("both.pem", "client.test", 600000);
    call(&other);
    cr_assert(eq(int, status, 403), "%d %s", status, result.text);
    cr_assert(zero(int, handled));
    call(&known);
    cr_assert(eq(int, status, 200), "%s", result.text);
}

Test(tls, a_handshake_that_does_not_begin_is_closed_in_time)
{
    serve_with(NULL, NULL, 300);
    int fd = client_connect(httpd_port(server));
    cr_assert(client_closed(fd));
    close(fd);
    fd = client_connect(httpd_port(server));
    client_say(fd, "GET / HTTP/1.1\r\n\r\n");
    cr_assert(client_closed(fd));
    close(fd);
}

static void copy_over(const char *from, const char *to)
{
    char command[200];
    snprintf(command, sizeof command, "cp %s.pem %s.pem && cp %s.key %s.key", from, to, from, to);
    cr_assert(zero(int, system(command)));
}

Test(tls, a_certificate_read_again_is_that_of_the_next_connection)
{
    struct http_tls first = {.ca_file = "first.pem", .server_name = "server.test"}, second = first;
    second.ca_file = "server.test.pem";
    cr_assert(zero(int, system("cp server.test.pem first.pem")));
    serve(NULL);
    call(&first);
    cr_assert(eq(int, result.code, ERR_OK), "%s", result.text);
    make_certificate("server.test");
    cr_assert(zero(int, httpd_reload_tls(server, &e)), "%s", e.text);
    http_client_free(client); /* its connection would go on with the first */
    cr_assert(zero(int, http_client_new(loop, 4, &client, &e)));
    call(&first);
    cr_assert(eq(int, result.code, ERR_UNAVAILABLE), "%s", result.text);
    call(&second);
    cr_assert(eq(int, result.code, ERR_OK), "%s", result.text);
}

Test(tls, whose_clients_are_let_in_is_read_again_too)
{
    struct http_tls known = {.ca_file = "server.test.pem",
                             .server_name = "server.test",
                             .cert_file = "client.test.pem",
                             .key_file = "client.test.key"};
    cr_assert(zero(int, system("cp client.test.pem ca.pem")));
    serve("ca.pem");
    call(&known);
    cr_assert(eq(int, status, 200), "%s", result.text);
    cr_assert(zero(int, system("cp stranger.test.pem ca.pem")));
    cr_assert(zero(int, httpd_reload_tls(server, &e)), "%s", e.text);
    call(&known);
    cr_assert(eq(int, status, 200), "a connection keeps what it began with");
    http_client_free(client);
    cr_assert(zero(int, http_client_new(loop, 4, &client, &e)));
    status = 0;
    call(&known);
    cr_assert(ne(int, status, 200));
}

Test(tls, what_cannot_be_read_again_leaves_all_as_it_was)
{
    struct http_tls trusting = {.ca_file = "first.pem", .server_name = "server.test"};
    cr_assert(zero(int, system("cp server.test.pem first.pem")));
    serve("client.test.pem");
    struct http_tls known = trusting;
    known.cert_file = "client.test.pem";
    known.key_file = "client.test.key";
    cr_assert(zero(int, system("cp stranger.test.key server.test.key")));
    cr_assert(eq(int, httpd_reload_tls(server, &e), -ERR_INVALID), "the key is another's");
    cr_assert(zero(int, unlink("server.test.key")));
    cr_assert(eq(int, httpd_reload_tls(server, &e), -ERR_NOT_FOUND));
    copy_over("stranger.test", "server.test");
    cr_assert(zero(
        int, system(": >client.test.pem.new && cp client.test.pem own.pem && cp client.test.key own.key && "
                    "mv client.test.pem.new client.test.pem")));
    cr_assert(eq(int, httpd_reload_tls(server, &e), -ERR_INVALID), "no authority in it");
    known.cert_file = "own.pem";
    known.key_file = "own.key";
    call(&known);
    cr_assert(eq(int, status, 200), "%s", result.text);
    cr_assert(zero(int, system("cp own.pem client.test.pem")));
    for (unsigned k = 0;; k++) {
        fault_arm(k);
        int r = httpd_reload_tls(server, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r), "%s", e.text);
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
    }
}

static bool changed;

static int look_at_changed(void)
{
    cr_assert(zero(int, system("echo >>server.test.pem"))); /* by its size at least */
    return httpd_look_tls(server, &changed, &e);
}

Test(tls, a_look_that_failed_is_made_up_for_by_the_next)
{
    serve(NULL);
    for (unsigned k = 0;; k++) {
        fault_arm(k);
        int r = look_at_changed();
        bool fired = fault_fired();
        cr_assert(eq(int, r < 0, fired), "k=%u: %s", k, e.text);
        cr_assert(changed, "k=%u", k);
        cr_assert(zero(int, httpd_look_tls(server, &changed, &e)), "k=%u: %s", k, e.text);
        cr_assert(eq(int, changed, fired), "k=%u", k);
        if (!fired)
            break;
    }
    cr_assert(zero(int, system("cp stranger.test.key server.test.key")));
    cr_assert(eq(int, look_at_changed(), -ERR_INVALID));
    cr_assert(zero(int, httpd_look_tls(server, &changed, &e)), "it is said once");
    cr_assert(not(changed));
}
