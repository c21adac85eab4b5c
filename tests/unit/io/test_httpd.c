#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/httpd.h"
#include "tests/unit/io/client.h"

static struct httpd *server;
static struct httpd_options options;
static struct err e;
static struct client_reply reply;

/* The handler answers by path: /echo the request as it saw it, /later leaves it to the test, the rest 200. */
static _Atomic(struct httpd_request *) later[64];
static atomic_int later_count, users_freed;

static bool print_parameter(void *arg, const char *name, const char *value)
{
    buf_addf(arg, "[%s=%s]", name, value);
    return true;
}

static bool split_header;
static void answer(struct httpd_request *rq, int status, const char *text)
{
    struct buf b = BUF_INIT(100000);
    const struct httpd_header headers[] = {{"Content-Type", "text/plain"}, {"X-Split", "a\r\nSet-Cookie: b"}};
    buf_add_str(&b, text);
    httpd_reply(rq, status, headers, split_header ? 2 : 1, &b);
    cr_assert(zero(sz, b.len));
    buf_fini(&b);
}

static void echo(struct httpd_request *rq)
{
    size_t bytes, cursor = 0;
    AUTO(buf_fini) struct buf b = BUF_INIT(60000);
    const char *body = httpd_body(rq, &bytes), *value;
    cr_assert(eq(chr, body[bytes], '\0'));
    buf_addf(&b, "%s %s ?%s ", httpd_method(rq), httpd_path(rq), httpd_query_string(rq));
    httpd_query_each(rq, print_parameter, &b);
    while ((value = httpd_query_next(rq, "x", &cursor)))
        buf_addf(&b, " x=%s", value);
    buf_addf(&b, " h=%s u=%d body=", httpd_header(rq, "x-HEADER") ? httpd_header(rq, "x-HEADER") : "-",
             httpd_is_unix(rq));
    buf_add(&b, body, bytes);
    answer(rq, 200, buf_str(&b));
}

static void count_free(void *user)
{
    atomic_fetch_add(&users_freed, 1);
    mem_free(user);
}

static int64_t accept_request(struct httpd_request *rq, void *arg)
{
    cr_assert(eq(ptr, arg, &server));
    if (strcmp(httpd_path(rq), "/refuse") == 0) {
        answer(rq, 415, "refused");
        return -1;
    }
    return 1000;
}

static void handle(struct httpd_request *rq, void *arg)
{
    (void)arg;
    httpd_set_user(rq, mem_new(int), count_free);
    if (strcmp(httpd_path(rq), "/later") == 0) {
        int at = atomic_load(&later_count);
        atomic_store(&later[at], rq);
        atomic_store(&later_count, at + 1);
    } else if (strncmp(httpd_path(rq), "/echo", 5) == 0) {
        echo(rq);
    } else {
        httpd_reply(rq, 200, NULL, 0, NULL);
    }
}

static void too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    answer(rq, 413, "too large");
}

static void prepare(void)
{
    options = (struct httpd_options){.listen = "127.0.0.1:0",
                                     .socket_mode = 0600,
                                     .connections_max = 100,
                                     .idle_timeout_ms = 60000,
                                     .header_bytes_max = 16384,
                                     .accept = accept_request,
                                     .handle = handle,
                                     .too_large = too_large,
                                     .arg = &server};
}

static void start(void)
{
    cr_assert(zero(int, httpd_start(&options, &server, &e)), "%s", e.text);
}

static struct httpd_request *wait_for_later(int index)
{
    while (atomic_load(&later_count) <= index)
        sched_yield();
    return atomic_load(&later[index]);
}

TestSuite(httpd, .init = prepare, .timeout = 600);

static int ask(const char *request)
{
    int fd = client_connect(httpd_port(server));
    client_say(fd, request);
    client_reply(fd, &reply);
    return fd;
}

/* What was handled but waits for the end of the turn; answered there. */
static struct httpd_request *put_aside[8];
static size_t put_aside_count;

static void handle_aside(struct httpd_request *rq, void *arg)
{
    (void)arg;
    put_aside[put_aside_count++] = rq;
}

static void answer_aside(void *arg)
{
    cr_assert(eq(ptr, arg, &server));
    cr_assert(gt(sz, put_aside_count, 0), "a turn without a request handled is nobody's");
    for (size_t i = 0; i < put_aside_count; i++)
        answer(put_aside[i], 200, "at the end of the turn");
    put_aside_count = 0;
}

Test(httpd, what_handle_puts_aside_is_answered_at_the_end_of_the_turn)
{
    options.handle = handle_aside;
    options.turned = answer_aside;
    start();
    int fd = ask("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    cr_assert(eq(int, reply.status, 200));
    cr_assert(eq(str, reply.body, "at the end of the turn"));
    client_say(fd, "GET /b HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(eq(str, reply.body, "at the end of the turn"));
    close(fd);
    httpd_stop(server);
}

Test(httpd, a_request_is_seen_as_it_was_sent)
{
    split_header = true;
    start();
    close(ask("POST /echo/a%2Fb%zz?x=1&y=%41+b&x=%00&&z&x=%zz HTTP/1.1\r\nHost: h\r\nX-Header: v w\r\n"
              "Content-Length: 4\r\n\r\nbody"));
    cr_assert(eq(int, reply.status, 200));
    cr_assert(
        eq(str, reply.body,
           "POST /echo/a%2Fb%zz ?x=1&y=%41+b&x=%00&&z&x=%zz [x=1][y=A b][x=%00][z=][x=%zz] x=1 x=%00 x=%zz"
           " h=v w u=0 body=body"));
    cr_assert(zero(ptr, strcasestr(reply.head, "Set-Cookie")), "a header was split");
    httpd_stop(server);
    cr_assert(eq(int, users_freed, 1));
}

Test(httpd, a_chunked_body_is_put_together)
{
    start();
    close(
        ask("PUT /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n"
            "0\r\n\r\n"));
    cr_assert(ne(ptr, strstr(reply.body, "body=abcdefg"), NULL), "%s", reply.body);
    httpd_stop(server);
}

Test(httpd, pipelined_requests_are_answered_in_order)
{
    start();
    int fd = client_connect(httpd_port(server));
    client_say(fd, "GET /echo/1 HTTP/1.1\r\nHost: h\r\n\r\nGET /later HTTP/1.1\r\nHost: h\r\n\r\n"
                   "GET /echo/3 HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(ne(ptr, strstr(reply.body, "/echo/1"), NULL));
    answer(wait_for_later(0), 202, "second");
    client_reply(fd, &reply);
    cr_assert(eq(str, reply.body, "second"));
    client_reply(fd, &reply);
    cr_assert(ne(ptr, strstr(reply.body, "/echo/3"), NULL));
    close(fd);
    httpd_stop(server);
}

Test(httpd, head_gets_the_length_and_no_body)
{
    start();
    int fd = client_connect(httpd_port(server));
    client_say(fd, "HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    cr_assert(client_reply_(fd, &reply, true));
    cr_assert(eq(int, reply.status, 200));
    cr_assert(zero(ptr, strcasestr(reply.head, "Content-Length: 0\r")));
    client_say(fd, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 200), "what followed the HEAD's reply was no reply");
    close(fd);
    httpd_stop(server);
}

/* ---- bad input ------------------------------------------------------------------------------------------------------ */

Test(httpd, a_nul_or_space_in_the_target_is_refused_and_not_cut_off)
{
    static const char *const targets[] = {"/echo/a\0b", "/echo?a\0b", "/echo/a b", "/echo?a b"};
    start();
    for (int i = 0; i < 4; i++) {
        int fd = client_connect(httpd_port(server));
        client_say(fd, "GET ");
        client_send(fd, targets[i], strlen("/echo/a?b"));
        client_say(fd, " HTTP/1.1\r\nHost: h\r\n\r\n");
        client_reply(fd, &reply);
        cr_assert(reply.status == 400 && strstr(reply.body, "\"invalid_request\""), "%d: %s", i, reply.body);
        cr_assert(client_closed(fd));
        close(fd);
    }
    close(ask("GET /echo HTTP/1.1\r\n\r\n"));
    cr_assert(eq(int, reply.status, 200), "without Host it is the handler's");
    httpd_stop(server);
}

Test(httpd, bytes_that_are_not_utf8_reach_the_handler_as_they_are)
{
    start();
    int fd = ask("GET /echo/\xff\xc0\xaf HTTP/1.1\r\nHost: h\r\nX-Header: \xfe\r\n\r\n");
    cr_assert(ne(ptr, strstr(reply.body, "/echo/\xff\xc0\xaf "), NULL));
    cr_assert(ne(ptr, strstr(reply.body, "h=\xfe "), NULL));
    close(fd);
    httpd_stop(server);
}

Test(httpd, a_head_over_the_limit_is_refused)
{
    start();
    char *huge = mem_new_array(char, 100001);
    memset(huge, 'a', 100000);
    for (int i = 0; i < 2; i++) {
        int fd = client_connect(httpd_port(server));
        client_say(fd, i ? "GET /echo HTTP/1.1\r\nHost: h\r\nX-Header: " : "GET /");
        send(fd, huge, 100000, MSG_NOSIGNAL); /* the server may close in the middle */
        cr_assert(client_reply_(fd, &reply, false));
        cr_assert(reply.status == (i ? 431 : 414), "%d: %d", i, reply.status);
        close(fd);
    }
    memset(huge, 'b', 12000);
    huge[12000] = '\0';
    int fd = client_connect(httpd_port(server));
    client_say(fd, "GET /ok HTTP/1.1\r\nHost: h\r\nX-Header: ");
    client_say(fd, huge);
    client_say(fd, "\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 200), "a head within the limit");
    close(fd);
    mem_free(huge);
    httpd_stop(server);
}

Test(httpd, rubbish_never_reaches_the_handler_or_harms_the_next_client)
{
    static const char *const rubbish[] = {
        "\r\n\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET\r\n\r\n",
        "GET /echo\r\n\r\n",
        "GET /echo HTTP/9.9\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost h\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nshort"};
    char junk[8192];
    options.idle_timeout_ms = 2000; /* an incomplete head stays until then, also when no more can come */
    start();
    for (size_t i = 0; i < sizeof rubbish / sizeof *rubbish; i++) {
        int fd = client_connect(httpd_port(server));
        client_say(fd, rubbish[i]);
        shutdown(fd, SHUT_WR);
        client_read_to_end(fd, junk, sizeof junk);
        cr_assert(zero(ptr, strstr(junk, "HTTP/1.1 200")), "%zu: %s", i, junk);
        close(fd);
    }
    close(ask("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"));
    cr_assert(eq(int, reply.status, 200));
    httpd_stop(server);
}

/* ---- bodies over the limit, refusals ---------------------------------------------------------------------------------- */

static int send_body(const char *head, size_t bytes)
{
    char *body = mem_new_array(char, bytes + 1);
    memset(body, 'x', bytes);
    int fd = client_connect(httpd_port(server));
    client_say(fd, head);
    client_send(fd, body, bytes);
    mem_free(body);
    return fd;
}

Test(httpd, a_body_over_the_limit_is_answered_after_it_was_dropped)
{
    start();
    int fd = send_body("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n", 3000000);
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 413));
    cr_assert(eq(str, reply.body, "too large"));
    client_say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 200), "the connection goes on");
    close(fd);
    httpd_stop(server);
}

Test(httpd, a_chunked_body_over_the_limit_is_answered)
{
    start();
    int fd =
        send_body("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nF4240\r\n", 1000000);
    client_say(fd, "\r\n0\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 413));
    close(fd);
    httpd_stop(server);
}

Test(httpd, a_body_of_exactly_the_limit_is_taken)
{
    start();
    int fd = send_body("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n", 1000);
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 200));
    close(fd);
    fd = send_body("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", 1001);
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 413));
    close(fd);
    httpd_stop(server);
}

Test(httpd, an_endless_body_is_cut_off)
{
    start();
    char *chunk = mem_new_array(char, 65536);
    int fd = client_connect(httpd_port(server));
    client_say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n");
    size_t sent = 0;
    ssize_t n;
    while ((n = send(fd, chunk, 65536, MSG_NOSIGNAL)) > 0) {
        sent += (size_t)n;
        cr_assert(lt(sz, sent, 200u << 20), "it is read for ever");
    }
    close(fd);
    mem_free(chunk);
    httpd_stop(server);
}

Test(httpd, expect_100_continue_is_honoured_unless_the_request_is_refused)
{
    start();
    int fd = client_connect(httpd_port(server));
    client_say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 100));
    client_say(fd, "body");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 200));
    close(fd);
    close(ask("POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"));
    cr_assert(eq(int, reply.status, 415));
    close(ask("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\nExpect: 100-continue\r\n\r\n"));
    cr_assert(eq(int, reply.status, 413));
    httpd_stop(server);
}

Test(httpd, a_refused_request_gets_its_answer_although_its_body_was_sent)
{
    start();
    int fd = send_body("POST /refuse HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n", 2000000);
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 415));
    cr_assert(eq(str, reply.body, "refused"));
    close(fd);
    httpd_stop(server);
}

/* ---- many and slow clients -------------------------------------------------------------------------------------------- */

Test(httpd, a_client_that_sends_a_byte_now_and_then_is_closed_in_time)
{
    options.idle_timeout_ms = 1000;
    start();
    for (int phase = 0; phase < 2; phase++) {
        uint64_t began_ms = clock_boot_ms();
        int fd = client_connect(httpd_port(server));
        client_say(fd, phase ? "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n"
                             : "GET /echo HTTP/1.1\r\nHost: h\r\nX-Header: ");
        struct pollfd p = {.fd = fd, .events = POLLIN};
        while (poll(&p, 1, 50) == 0) /* nothing from the server for 50 ms: drip */
            if (send(fd, "a", 1, MSG_NOSIGNAL) < 0)
                break;
        uint64_t took_ms = clock_boot_ms() - began_ms;
        cr_assert(client_closed(fd));
        cr_assert(took_ms >= 990 && took_ms < 30000, "phase %d: %lu ms", phase, took_ms);
        close(fd);
    }
    httpd_stop(server);
}

/* Its end comes with its last bytes, or in a moment of its own; either way no more will follow. */
Test(httpd, a_client_that_ends_in_the_middle_of_a_body_is_closed_long_before_it_would_be_idle)
{
    options.idle_timeout_ms = 600000;
    start();
    for (int i = 0; i < 6; i++) {
        int fd = client_connect(httpd_port(server));
        client_say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
        client_reply(fd, &reply);
        client_say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\nhalf");
        (void)poll(NULL, 0, i % 2 * 20);
        cr_assert(zero(int, shutdown(fd, SHUT_WR)));
        cr_assert(client_closed(fd));
        close(fd);
    }
    httpd_stop(server);
}

Test(httpd, an_idle_connection_is_closed_in_time_and_a_waiting_one_is_not)
{
    options.idle_timeout_ms = 1000;
    start();
    int waiting = client_connect(httpd_port(server)), idle = client_connect(httpd_port(server));
    client_say(waiting, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    struct httpd_request *rq = wait_for_later(0);
    for (int i = 0; i < 3; i++) { /* three idle clients after each other: far over the limit for WAITING */
        cr_assert(client_closed(idle));
        close(idle);
        idle = client_connect(httpd_port(server));
    }
    answer(rq, 200, "at last");
    client_reply(waiting, &reply);
    cr_assert(eq(str, reply.body, "at last"));
    close(waiting);
    close(idle);
    httpd_stop(server);
}

Test(httpd, a_client_that_does_not_take_its_reply_is_closed)
{
    options.idle_timeout_ms = 1000;
    start();
    int fd = client_connect(httpd_port(server)), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    client_say(fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    struct httpd_request *rq = wait_for_later(0);
    struct buf b = BUF_INIT(64 << 20);
    cr_assert(ne(ptr, buf_reserve(&b, 32 << 20), NULL));
    memset(b.data, 'x', 32 << 20);
    buf_commit(&b, 32 << 20);
    httpd_reply(rq, 200, NULL, 0, &b);
    while (httpd_connections(server) > 0)
        sched_yield();
    close(fd);
    httpd_stop(server);
}

Test(httpd, without_file_descriptors_it_waits_and_then_goes_on)
{
    start();
    int first = ask("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"), spare[1024], n = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct rlimit limit, small;
    getrlimit(RLIMIT_NOFILE, &limit);
    small = limit;
    small.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &small);
    while (n < 1024 && (spare[n] = dup(0)) >= 0)
        n++;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)httpd_port(server))};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(zero(int, connect(fd, (struct sockaddr *)&addr, sizeof addr)));
    client_say(first, "GET /echo/still HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(first, &reply);
    cr_assert(eq(int, reply.status, 200), "open connections go on");
    while (n > 0)
        close(spare[--n]);
    setrlimit(RLIMIT_NOFILE, &limit);
    client_say(fd, "GET /echo/new HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 200));
    close(fd);
    close(first);
    httpd_stop(server);
}

/* ---- late replies, stop ------------------------------------------------------------------------------------------------ */

Test(httpd, a_reply_to_a_client_that_has_gone_does_nothing)
{
    start();
    int fd = client_connect(httpd_port(server));
    struct linger reset = {.l_onoff = 1};
    client_say(fd, "GET /later HTTP/1.1\r\nHost: h\r\nX-Header: kept\r\n\r\n");
    struct httpd_request *rq = wait_for_later(0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    cr_assert(eq(str, (char *)httpd_header(rq, "X-Header"), "kept"));
    answer(rq, 200, "nobody reads this");
    while (httpd_connections(server) > 0)
        sched_yield();
    httpd_stop(server);
    cr_assert(eq(int, users_freed, 1));
}

static void *reply_all(void *arg)
{
    for (int i = 0; i < *(int *)arg; i++)
        answer(wait_for_later(i), 200, "from another thread");
    return NULL;
}

Test(httpd, replies_of_another_thread_reach_their_clients)
{
    enum { CLIENTS = 40 };
    int fds[CLIENTS], count = CLIENTS;
    pthread_t thread;
    start();
    pthread_create(&thread, NULL, reply_all, &count);
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = client_connect(httpd_port(server));
        client_say(fds[i], "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for (int i = 0; i < CLIENTS; i++) {
        client_reply(fds[i], &reply);
        cr_assert(eq(str, reply.body, "from another thread"));
        close(fds[i]);
    }
    pthread_join(thread, NULL);
    httpd_stop(server);
    cr_assert(eq(int, users_freed, CLIENTS));
}

Test(httpd, stopping_answers_waiting_requests_and_late_replies_do_nothing)
{
    enum { WAITING = 20 };
    int fds[WAITING];
    start();
    for (int i = 0; i < WAITING; i++) {
        fds[i] = client_connect(httpd_port(server));
        client_say(fds[i], "POST /later?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
        wait_for_later(i);
    }
    httpd_stop(server);
    for (int i = 0; i < WAITING; i++) {
        size_t bytes;
        struct httpd_request *rq = atomic_load(&later[i]);
        client_reply(fds[i], &reply);
        cr_assert(eq(int, reply.status, 503));
        cr_assert(client_closed(fds[i]));
        cr_assert(eq(str, (char *)httpd_body(rq, &bytes), "body"), "it is the handler's still");
        answer(rq, 200, "too late");
        close(fds[i]);
    }
    cr_assert(eq(int, users_freed, WAITING));
}

Test(httpd, stopping_while_replies_come_answers_each_request_once)
{
    enum { WAITING = 40 };
    int fds[WAITING], count = WAITING;
    pthread_t thread;
    start();
    for (int i = 0; i < WAITING; i++) {
        fds[i] = client_connect(httpd_port(server));
        client_say(fds[i], "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_for_later(i);
    }
    pthread_create(&thread, NULL, reply_all, &count);
    httpd_stop(server);
    pthread_join(thread, NULL);
    for (int i = 0; i < WAITING; i++) {
        client_reply(fds[i], &reply);
        cr_assert(reply.status == 200 || reply.status == 503, "%d", reply.status);
        close(fds[i]);
    }
    cr_assert(eq(int, users_freed, WAITING));
}

Test(httpd, a_slow_upload_does_not_hold_up_the_stop)
{
    start();
    int fd = client_connect(httpd_port(server));
    client_say(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\nhalf");
    close(ask("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"));
    uint64_t began_ms = clock_boot_ms();
    httpd_stop(server);
    cr_assert(lt(u64, clock_boot_ms() - began_ms, 20000));
    close(fd);
}

Test(httpd, a_quiesced_server_answers_open_connections_and_refuses_new_ones)
{
    start();
    unsigned port = httpd_port(server);
    int kept = ask("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    httpd_quiesce(server);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        int r = connect(fd, (struct sockaddr *)&addr, sizeof addr);
        close(fd);
        if (r < 0)
            break;
    }
    client_say(kept, "GET /echo/2 HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(kept, &reply);
    cr_assert(eq(int, reply.status, 200));
    close(kept);
    httpd_stop(server);
}

/* ---- addresses, failures ------------------------------------------------------------------------------------------------ */

Test(httpd, it_listens_on_ipv6_and_names_its_port)
{
    options.listen = "[::1]:0";
    start();
    char expected[64];
    snprintf(expected, sizeof expected, "[::1]:%u", httpd_port(server));
    cr_assert(eq(str, (char *)httpd_address(server), expected));
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)httpd_port(server))};
    addr.sin6_addr = in6addr_loopback;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    cr_assert(zero(int, connect(fd, (struct sockaddr *)&addr, sizeof addr)));
    client_say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(eq(int, reply.status, 200));
    close(fd);
    httpd_stop(server);
}

static char socket_dir[64], socket_path[96], socket_listen[104];
static void make_socket_dir(void)
{
    snprintf(socket_dir, sizeof socket_dir, "%s/test-httpd-XXXXXX", P_tmpdir);
    cr_assert(ne(ptr, mkdtemp(socket_dir), NULL));
    snprintf(socket_path, sizeof socket_path, "%s/s", socket_dir);
    snprintf(socket_listen, sizeof socket_listen, "unix:%s", socket_path);
    options.listen = socket_listen;
}

Test(httpd, a_unix_socket_has_its_mode_and_is_removed)
{
    struct stat st;
    make_socket_dir();
    options.socket_mode = 0660;
    start();
    cr_assert(zero(int, stat(socket_path, &st)));
    cr_assert(eq(u32, st.st_mode & 07777, 0660));
    int fd = client_connect_unix(socket_path);
    client_say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    client_reply(fd, &reply);
    cr_assert(ne(ptr, strstr(reply.body, "u=1"), NULL));
    close(fd);
    httpd_stop(server);
    cr_assert(eq(int, stat(socket_path, &st), -1));
    rmdir(socket_dir);
}

Test(httpd, a_left_over_unix_socket_is_replaced_and_a_live_one_is_not)
{
    struct httpd *second = NULL;
    make_socket_dir();
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert(zero(int, bind(fd, (struct sockaddr *)&addr, sizeof addr)));
    close(fd); /* nobody listens any more, the file stays */
    start();
    cr_assert(eq(int, httpd_start(&options, &second, &e), -(int)ERR_EXISTS));
    cr_assert(zero(ptr, second));
    fd = client_connect_unix(socket_path);
    cr_assert(ge(int, fd, 0), "the failed start must not remove the socket of another");
    close(fd);
    httpd_stop(server);
    fd = open(socket_path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    cr_assert(eq(int, httpd_start(&options, &second, &e), -(int)ERR_EXISTS),
              "a file that is no socket stays");
    cr_assert(zero(int, unlink(socket_path)));
    rmdir(socket_dir);
}

Test(httpd, an_address_that_cannot_be_used_says_why)
{
    struct httpd *h = NULL;
    options.listen = "nonsense";
    cr_assert(eq(int, httpd_start(&options, &h, &e), -(int)ERR_INVALID));
    options.listen = "unix:";
    cr_assert(eq(int, httpd_start(&options, &h, &e), -(int)ERR_INVALID));
    options.listen = "127.0.0.1:0";
    start();
    options.listen = httpd_address(server);
    cr_assert(eq(int, httpd_start(&options, &h, &e), -(int)ERR_EXISTS));
    options.tls_cert = options.tls_key = "/nonexistent";
    cr_assert(eq(int, httpd_start(&options, &h, &e), -(int)ERR_NOT_FOUND));
    options.tls_cert = options.tls_key = "/proc/self/status";
    options.listen = "127.0.0.1:0";
    cr_assert(eq(int, httpd_start(&options, &h, &e), -(int)ERR_INVALID), "%s", e.text);
    cr_assert(zero(ptr, h));
    httpd_stop(server);
}

Test(httpd, every_failure_of_its_start_leaves_nothing)
{
    make_socket_dir();
    for (unsigned k = 0;; k++) {
        server = NULL;
        fault_arm(k);
        int r = httpd_start(&options, &server, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r), "%s", e.text);
            cr_assert(gt(u32, k, 3));
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
        cr_assert(zero(ptr, server), "k=%u", k);
        cr_assert(eq(int, access(socket_path, F_OK), -1), "k=%u", k);
    }
    httpd_stop(server);
    rmdir(socket_dir);
}

static void check_unavailable(void)
{
    cr_assert(eq(int, reply.status, 503));
    cr_assert(strstr(reply.head, "\r\nContent-Type: application/problem+json\r\n") != NULL, "%s", reply.head);
    cr_assert(strstr(reply.body, "\"status\":503") != NULL, "%s", reply.body);
}

Test(httpd, a_reply_that_lost_a_piece_becomes_a_problem)
{
    const struct httpd_header header = {"ETag", "\"1\""};
    struct buf lost = BUF_INIT(4);
    start();
    int fd = client_connect(httpd_port(server));
    client_say(fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    buf_add_str(&lost, "[1,");
    buf_add_str(&lost, "2]");
    httpd_reply(wait_for_later(0), 200, &header, 1, &lost);
    client_reply(fd, &reply);
    check_unavailable();
    cr_assert(zero(ptr, strstr(reply.head, "ETag")));
    close(fd);
    httpd_stop(server);
}

Test(httpd, a_request_that_finds_no_memory_is_told_so)
{
    unsigned k = 0;
    start();
    for (bool fired = true; fired; k++) {
        int fd = client_connect(httpd_port(server));
        fault_arm_threads(k);
        client_say(fd, "POST /x?a=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
        client_reply(fd, &reply);
        fired = fault_fired();
        fault_disarm();
        if (fired)
            check_unavailable();
        else
            cr_assert(eq(int, reply.status, 200));
        close(fd);
    }
    cr_assert(gt(u32, k, 3), "the head, the query, the body");
    httpd_stop(server);
}
