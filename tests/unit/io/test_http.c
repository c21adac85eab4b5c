#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/list.h"
#include "agent/base/mem.h"
#include "agent/io/http.h"
#include "agent/io/httpd.h"
#include "agent/io/listener.h"
#include "agent/io/loop.h"
#include "tests/lib/patience.h"
#include "tests/unit/io/client.h"

static struct loop *loop;
static struct http_client *client;
static struct httpd *server;
static struct err e;
static char url[128];
static struct httpd_request *unanswered[8]; /* the server's thread's, until it has stopped */
static unsigned unanswered_count;

/* What the last callback got; WANTED callbacks end the loop. */
static struct {
    int count, wanted;
    enum err_code code;
    char text[200];
    int status;
    char body[4096];
    size_t body_bytes;
    char header[200];
} got;

static void on_done(void *arg, const struct err *err, const struct http_reply *reply)
{
    (void)arg;
    got.count++;
    got.code = err->code;
    snprintf(got.text, sizeof got.text, "%s", err->text);
    cr_assert(eq(int, reply != NULL, err->code == ERR_OK));
    if (reply) {
        const char *header = http_reply_header(reply, "x-reply");
        got.status = reply->status;
        got.body_bytes = reply->body_bytes;
        snprintf(got.body, sizeof got.body, "%s", reply->body);
        snprintf(got.header, sizeof got.header, "%s", header ? header : "(none)");
        cr_assert(eq(chr, reply->body[reply->body_bytes], '\0'));
        cr_assert(zero(ptr, (void *)http_reply_header(reply, "X-Absent")));
    }
    if (got.count >= got.wanted)
        loop_stop(loop);
}

static void open_client(void)
{
    cr_assert(zero(int, loop_new(&loop, &e)), "%s", e.text);
    cr_assert(zero(int, http_client_new(loop, 10, &client, &e)), "%s", e.text);
    got.wanted = 1;
}
static void close_client(void)
{
    http_client_free(client);
    httpd_stop(server);
    while (unanswered_count > 0)
        httpd_reply(unanswered[--unanswered_count], 200, NULL, 0, NULL);
    loop_free(loop);
}

TestSuite(http, .init = open_client, .fini = close_client, .timeout = 600);

static struct http_call_options to(const char *path, unsigned port)
{
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", port, path);
    return (struct http_call_options){.method = "GET",
                                      .url = url,
                                      .timeout_ms = 60000,
                                      .connect_timeout_ms = 60000,
                                      .reply_bytes_max = sizeof got.body};
}

static void call(const struct http_call_options *o)
{
    int before = got.count;
    got.wanted = before + 1;
    (void)http_send(client, o, on_done, NULL);
    cr_assert(eq(int, got.count, before), "the callback ran before http_send() returned");
    loop_run(loop);
    cr_assert(eq(int, got.count, before + 1));
}

/* ---- a real server ------------------------------------------------------------------------------------------------- */

static int64_t accept_request(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return 1 << 20;
}
static void handle(struct httpd_request *rq, void *arg)
{
    (void)arg;
    size_t bytes;
    struct buf b = BUF_INIT(100000);
    const struct httpd_header headers[] = {{"X-Reply", "yes"}, {"Location", "/elsewhere"}};
    const char *body = httpd_body(rq, &bytes), *type = httpd_header(rq, "Content-Type");
    const char *expect = httpd_header(rq, "Expect"), *length = httpd_header(rq, "Content-Length");
    if (strcmp(httpd_path(rq), "/never") == 0) {
        unanswered[unanswered_count++] = rq;
        return;
    }
    buf_addf(&b, "%s %s type=%s expect=%s length=%s a=%s %.*s", httpd_method(rq), httpd_path(rq),
             type ? type : "-", expect ? expect : "-", length ? length : "-",
             httpd_header(rq, "X-A") ? httpd_header(rq, "X-A") : "-", (int)bytes, body);
    if (strcmp(httpd_path(rq), "/big") == 0)
        for (int i = 0; i < 5000; i++)
            buf_add_char(&b, 'x');
    httpd_reply(rq, strcmp(httpd_path(rq), "/moved") == 0 ? 302 : 200, headers, 2, &b);
}
static void too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    httpd_reply(rq, 413, NULL, 0, NULL);
}
static void serve_on(const char *address)
{
    struct httpd_options o = {.listen = address,
                              .socket_mode = 0600,
                              .connections_max = 100,
                              .header_bytes_max = 8192,
                              .accept = accept_request,
                              .handle = handle,
                              .too_large = too_large};
    cr_assert(zero(int, httpd_start(&o, &server, &e)), "%s", e.text);
}
static void serve(void)
{
    serve_on("127.0.0.1:0");
}

Test(http, a_request_arrives_as_asked_and_its_reply_comes_back)
{
    const char *const headers[] = {"X-A: b", NULL};
    serve();
    struct http_call_options o = to("/p/../q?x=1", httpd_port(server));
    o.method = "PUT";
    o.headers = headers;
    o.body = "body";
    o.body_bytes = 4;
    call(&o);
    cr_assert(eq(int, got.code, ERR_OK), "%s", got.text);
    cr_assert(eq(int, got.status, 200));
    cr_assert(eq(str, got.body, "PUT /p/../q type=- expect=- length=4 a=b body"));
    cr_assert(eq(str, got.header, "yes"));
}

static struct buf pieces;
static void on_piece(void *arg, const char *data, size_t bytes)
{
    (void)arg;
    cr_assert(zero(int, got.count), "before the end is told");
    buf_add(&pieces, data, bytes);
}

Test(http, a_reply_can_be_had_in_pieces_but_a_refusal_comes_whole)
{
    pieces = BUF_INIT(100000);
    serve();
    struct http_call_options o = to("/big", httpd_port(server));
    o.piece = on_piece;
    o.timeout_ms = 0;
    call(&o);
    cr_assert(eq(int, got.status, 200));
    cr_assert(zero(sz, got.body_bytes));
    cr_assert(gt(sz, pieces.len, 5000), "more than its limit, which is for replies that are kept");
    buf_reset(&pieces);
    got.count = 0;
    o = to("/moved", httpd_port(server));
    o.piece = on_piece;
    call(&o);
    cr_assert(eq(int, got.status, 302));
    cr_assert(gt(sz, got.body_bytes, 0));
    cr_assert(zero(sz, pieces.len));
    buf_fini(&pieces);
}

Test(http, a_put_without_a_body_says_so_and_a_reused_handle_remembers_nothing)
{
    const char *const headers[] = {"X-A: b", "Content-Type: text/plain", NULL};
    serve();
    struct http_call_options o = to("/1", httpd_port(server));
    o.method = "POST";
    o.headers = headers;
    o.body = "body";
    o.body_bytes = 4;
    call(&o);
    cr_assert(eq(str, got.body, "POST /1 type=text/plain expect=- length=4 a=b body"));
    o = to("/2", httpd_port(server));
    o.method = "PUT";
    call(&o);
    cr_assert(eq(str, got.body, "PUT /2 type=- expect=- length=0 a=- "));
    o = to("/3", httpd_port(server));
    call(&o);
    cr_assert(eq(str, got.body, "GET /3 type=- expect=- length=- a=- "));
    o.method = "DELETE";
    call(&o);
    cr_assert(eq(str, got.body, "DELETE /3 type=- expect=- length=- a=- "));
    o.method = "HEAD";
    call(&o);
    cr_assert(eq(int, got.status, 200));
    cr_assert(zero(sz, got.body_bytes));
    cr_assert(eq(u32, httpd_connections(server), 1), "the connection was not kept");
}

Test(http, redirects_are_not_followed_and_proxies_not_asked)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("all_proxy", "http://127.0.0.1:1", 1);
    serve();
    struct http_call_options o = to("/moved", httpd_port(server));
    call(&o);
    cr_assert(eq(int, got.code, ERR_OK), "%s", got.text);
    cr_assert(eq(int, got.status, 302));
}

Test(http, a_unix_socket_is_used_when_given)
{
    char dir[64], path[96], address[104];
    snprintf(dir, sizeof dir, "%s/test-http-XXXXXX", P_tmpdir);
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    snprintf(path, sizeof path, "%s/s", dir);
    snprintf(address, sizeof address, "unix:%s", path);
    serve_on(address);
    struct http_call_options o = to("/u", 1);
    o.unix_socket = path;
    call(&o);
    cr_assert(eq(int, got.status, 200), "%s", got.text);
    httpd_stop(server);
    server = NULL;
    call(&o);
    cr_assert(eq(int, got.code, ERR_UNAVAILABLE), "%s", got.text); /* no such file */
    rmdir(dir);
}

Test(http, a_reply_over_its_limit_is_an_error)
{
    serve();
    struct http_call_options o = to("/big", httpd_port(server));
    call(&o);
    cr_assert(eq(int, got.code, ERR_TOO_BIG), "%s", got.text);
    o.reply_bytes_max = 10000;
    call(&o);
    cr_assert(eq(int, got.code, ERR_OK), "%s", got.text);
}

Test(http, hundreds_of_calls_at_once_all_end)
{
    serve();
    struct http_call_options o = to("/many", httpd_port(server));
    got.wanted = 300;
    for (int i = 0; i < 300; i++)
        cr_assert(ne(ptr, http_send(client, &o, on_done, NULL), NULL));
    loop_run(loop);
    cr_assert(eq(int, got.count, 300));
}

/* ---- bad servers, acted by a thread ---------------------------------------------------------------------------------- */

struct play {
    struct listener listener;
    pthread_t thread;
    void (*act)(struct play *p);
    unsigned connections;
};

static void *play_main(void *arg)
{
    struct play *p = arg;
    p->act(p);
    return NULL;
}
static void play_begin(struct play *p, void (*act)(struct play *p))
{
    *p = (struct play){.act = act};
    cr_assert(zero(int, listener_open(&p->listener, "127.0.0.1:0", 0, &e)), "%s", e.text);
    pthread_create(&p->thread, NULL, play_main, p);
}
static void play_end(struct play *p)
{
    pthread_join(p->thread, NULL);
    listener_fini(&p->listener);
}
static int play_accept(struct play *p)
{
    struct pollfd pfd = {.fd = p->listener.fd, .events = POLLIN};
    cr_assert(eq(int, poll(&pfd, 1, PATIENCE_MS), 1), "no connection came");
    p->connections++;
    return accept(p->listener.fd, NULL, NULL);
}
static void play_request(int fd)
{
    char head[4096];
    cr_assert(client_read_until(fd, head, sizeof head, "\r\n\r\n"), "no request came");
}

#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static unsigned closed_port(void)
{
    struct listener l;
    cr_assert(zero(int, listener_open(&l, "127.0.0.1:0", 0, &e)));
    unsigned port = l.port;
    listener_fini(&l);
    return port;
}

Test(http, a_refused_connection_is_told_from_one_that_cannot_be_made)
{
    struct http_call_options o = to("/", closed_port());
    call(&o);
    cr_assert(eq(int, got.code, ERR_REFUSED), "%s", got.text);
    o.url = "http://name.invalid/";
    call(&o);
    cr_assert(eq(int, got.code, ERR_UNAVAILABLE), "%s", got.text);
    o.url = "ftp://127.0.0.1/";
    call(&o);
    cr_assert(eq(int, got.code, ERR_INVALID), "%s", got.text);
    o.url = "http://127.0.0.1:99999/";
    call(&o);
    cr_assert(eq(int, got.code, ERR_INVALID), "%s", got.text);
}

static void close_unanswered(struct play *p)
{
    int fd = play_accept(p);
    play_request(fd);
    close(fd);
}

Test(http, a_connection_closed_instead_of_a_reply_is_an_unknown_outcome)
{
    struct play p;
    play_begin(&p, close_unanswered);
    struct http_call_options o = to("/", p.listener.port);
    call(&o);
    play_end(&p);
    cr_assert(eq(int, got.code, ERR_UNKNOWN_OUTCOME), "%s", got.text);
}

static void close_half_answered(struct play *p)
{
    int fd = play_accept(p);
    play_request(fd);
    client_say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    close(fd);
}

Test(http, a_reply_cut_off_is_an_unknown_outcome)
{
    struct play p;
    play_begin(&p, close_half_answered);
    struct http_call_options o = to("/", p.listener.port);
    call(&o);
    play_end(&p);
    cr_assert(eq(int, got.code, ERR_UNKNOWN_OUTCOME), "%s", got.text);
}

static void answer_then_die(struct play *p)
{
    int fd = play_accept(p);
    play_request(fd);
    listener_close(&p->listener);
    client_say(fd, OK_REPLY);
    close(fd);
}

/* The kept connection was seen to be closed before anything was sent on it: nothing can have happened. */
Test(http, a_kept_connection_whose_server_died_while_idle_is_refused)
{
    struct play p;
    play_begin(&p, answer_then_die);
    struct http_call_options o = to("/", p.listener.port);
    call(&o);
    cr_assert(eq(int, got.code, ERR_OK), "%s", got.text);
    play_end(&p);
    call(&o);
    cr_assert(eq(int, got.code, ERR_REFUSED), "%s", got.text);
}

static void answer_then_die_on_the_next(struct play *p)
{
    int fd = play_accept(p);
    play_request(fd);
    client_say(fd, OK_REPLY);
    play_request(fd); /* on the kept connection */
    listener_close(&p->listener);
    close(fd);
}

/* libcurl repeats the request on a new connection, which is refused; but the first one was seen. */
Test(http, a_refused_repetition_does_not_hide_that_the_request_was_seen)
{
    struct play p;
    play_begin(&p, answer_then_die_on_the_next);
    struct http_call_options o = to("/", p.listener.port);
    o.method = "POST";
    call(&o);
    cr_assert(eq(int, got.code, ERR_OK), "%s", got.text);
    call(&o);
    play_end(&p);
    cr_assert(eq(int, got.code, ERR_UNKNOWN_OUTCOME), "%s", got.text);
    cr_assert(ne(ptr, strstr(got.text, "connect"), NULL), "not repeated: %s", got.text);
}

static void say_nothing(struct play *p)
{
    int fd = play_accept(p);
    play_request(fd);
    cr_assert(client_closed(fd)); /* the client gives up */
    close(fd);
}

Test(http, a_reply_that_does_not_come_is_a_timeout)
{
    struct play p;
    play_begin(&p, say_nothing);
    struct http_call_options o = to("/", p.listener.port);
    o.timeout_ms = 2000; /* what it takes to send the request on a busy machine */
    uint64_t began_ms = clock_boot_ms();
    call(&o);
    play_end(&p);
    cr_assert(eq(int, got.code, ERR_TIMEOUT), "%s", got.text);
    cr_assert(lt(u64, clock_boot_ms() - began_ms, 30000));
}

static void endless_headers(struct play *p)
{
    int fd = play_accept(p);
    play_request(fd);
    client_say(fd, "HTTP/1.1 200 OK\r\n");
    while (send(fd, "X-Reply: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 55, MSG_NOSIGNAL) == 55)
        ;
    close(fd);
}

Test(http, endless_headers_are_too_big)
{
    struct play p;
    play_begin(&p, endless_headers);
    struct http_call_options o = to("/", p.listener.port);
    call(&o);
    play_end(&p);
    cr_assert(eq(int, got.code, ERR_TOO_BIG), "%s", got.text);
}

/* ---- cancel, free ------------------------------------------------------------------------------------------------------ */

static struct http_call *calls[3];
static void cancel_all(void *arg, const struct err *err, const struct http_reply *reply)
{
    (void)reply;
    cr_assert(eq(int, err->code, ERR_OK), "%s", err->text);
    got.count++;
    http_cancel(calls[(intptr_t)arg]); /* its own: nothing */
    for (int i = 0; i < 3; i++)
        if (i != (intptr_t)arg)
            http_cancel(calls[i]);
    loop_stop(loop);
}

Test(http, a_callback_may_cancel_itself_and_others_under_way_or_just_finished)
{
    serve();
    struct http_call_options o = to("/x", httpd_port(server));
    for (int i = 0; i < 3; i++)
        calls[i] = http_send(client, &o, cancel_all, (void *)(intptr_t)i);
    loop_run(loop);
    cr_assert(eq(int, got.count, 1));
}

Test(http, a_cancelled_call_is_never_heard_of_again)
{
    serve();
    struct http_call_options o = to("/never", httpd_port(server));
    http_cancel(http_send(client, &o, on_done, NULL));
    struct http_call *under_way = http_send(client, &o, on_done, NULL);
    o = to("/x", httpd_port(server));
    call(&o);
    http_cancel(under_way);
    call(&o);
    cr_assert(eq(int, got.count, 2));
}

Test(http, freeing_the_client_cancels_what_is_under_way)
{
    serve();
    struct http_call_options o = to("/never", httpd_port(server));
    for (int i = 0; i < 3; i++)
        (void)http_send(client, &o, on_done, NULL);
    http_client_free(client);
    client = NULL;
    cr_assert(eq(int, got.count, 3));
    cr_assert(eq(int, got.code, ERR_CANCELLED));
}

static void free_client(void *arg, const struct err *err, const struct http_reply *reply)
{
    (void)arg;
    (void)err;
    (void)reply;
    http_client_free(client);
    client = NULL;
    loop_stop(loop);
}

Test(http, a_callback_may_free_the_client)
{
    serve();
    struct http_call_options o = to("/never", httpd_port(server));
    (void)http_send(client, &o, on_done, NULL);
    o = to("/x", httpd_port(server));
    (void)http_send(client, &o, free_client, NULL);
    loop_run(loop);
    cr_assert(eq(int, got.count, 1));
    cr_assert(eq(int, got.code, ERR_CANCELLED));
}

static int rounds;
static void send_again(void *arg, const struct err *err, const struct http_reply *reply)
{
    (void)reply;
    cr_assert(eq(int, err->code, ERR_OK), "%s", err->text);
    if (++rounds < 200)
        (void)http_send(client, arg, send_again, arg);
    else
        loop_stop(loop);
}

Test(http, a_callback_may_send_on_the_same_connection)
{
    serve();
    struct http_call_options o = to("/x", httpd_port(server));
    (void)http_send(client, &o, send_again, &o);
    loop_run(loop);
    cr_assert(eq(int, rounds, 200));
    cr_assert(eq(u32, httpd_connections(server), 1));
}

Test(http, every_failure_to_send_reaches_the_callback)
{
    const char *const headers[] = {"X-A: b", NULL};
    const char *const split[] = {"X-A: b\r\nX-B: c", NULL};
    serve();
    struct http_call_options o = to("/x", httpd_port(server));
    o.method = "POST";
    o.headers = headers;
    o.body = "body";
    o.body_bytes = 4;
    for (unsigned k = 0;; k++) {
        fault_arm(k);
        got.wanted = got.count + 1;
        struct http_call *c = http_send(client, &o, on_done, NULL);
        bool fired = fault_fired();
        loop_run(loop);
        if (!fired) {
            cr_assert(eq(int, got.code, ERR_OK), "%s", got.text);
            cr_assert(gt(u32, k, 3));
            break;
        }
        cr_assert(zero(ptr, c), "k=%u", k);
        cr_assert(eq(int, got.code, ERR_NOMEM), "k=%u", k);
    }
    o.headers = split;
    call(&o);
    cr_assert(eq(int, got.code, ERR_INVALID));
    struct http_client *other = NULL;
    fault_arm(0);
    cr_assert(eq(int, http_client_new(loop, 1, &other, &e), -(int)ERR_NOMEM));
    fault_disarm();
    cr_assert(zero(ptr, other));
}
