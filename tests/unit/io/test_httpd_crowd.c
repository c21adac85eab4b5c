/* More clients than httpd has places for. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/io/httpd.h"
#include "tests/unit/io/client.h"

static struct httpd *server;
static struct httpd_options options;
static struct err e;
static struct client_reply reply;

/* What asks for /later is answered by the test. */
static _Atomic(struct httpd_request *) later[64];
static atomic_int later_count;

static void answer(struct httpd_request *rq)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(100);
    buf_add_str(&b, "here");
    httpd_reply(rq, 200, NULL, 0, &b);
}

static int64_t accept_request(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return 1000;
}

static void handle(struct httpd_request *rq, void *arg)
{
    (void)arg;
    if (strcmp(httpd_path(rq), "/later") != 0) {
        answer(rq);
        return;
    }
    int at = atomic_load(&later_count);
    atomic_store(&later[at], rq);
    atomic_store(&later_count, at + 1);
}

static struct httpd_request *wait_for_later(int index)
{
    while (atomic_load(&later_count) <= index)
        sched_yield();
    return atomic_load(&later[index]);
}

static void prepare(void)
{
    options = (struct httpd_options){.listen = "127.0.0.1:0",
                                     .idle_timeout_ms = 60000,
                                     .header_bytes_max = 16384,
                                     .accept = accept_request,
                                     .handle = handle,
                                     .too_large = handle};
}

static void start(void)
{
    cr_assert(zero(int, httpd_start(&options, &server, &e)), "%s", e.text);
}

TestSuite(httpd_crowd, .init = prepare, .timeout = 600);

static int ask(const char *request)
{
    int fd = client_connect(httpd_port(server));
    client_say(fd, request);
    client_reply(fd, &reply);
    return fd;
}

Test(httpd_crowd, connections_over_the_limit_get_a_prompt_503)
{
    enum { MAX = 50, MORE = 20 };
    int fds[MAX + MORE];
    options.connections_max = MAX;
    start();
    for (int i = 0; i < MAX; i++) { /* at work: none of them has to make room */
        fds[i] = client_connect(httpd_port(server));
        client_say(fds[i], "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
        (void)wait_for_later(i);
    }
    for (int i = MAX; i < MAX + MORE; i++) {
        fds[i] = client_connect(httpd_port(server));
        cr_assert(client_reply_(fds[i], &reply, false));
        cr_assert(eq(int, reply.status, 503));
        cr_assert(client_closed(fds[i]));
        close(fds[i]);
    }
    cr_assert(eq(u32, httpd_connections(server), MAX));
    for (int i = 0; i < MAX; i++)
        answer(wait_for_later(i));
    client_reply(fds[0], &reply);
    close(fds[0]);
    while (httpd_connections(server) == MAX)
        sched_yield();
    close(ask("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"));
    cr_assert(eq(int, reply.status, 200), "a free place is used");
    for (int i = 1; i < MAX; i++)
        close(fds[i]);
    httpd_stop(server);
}

/* The reply to a request on a connection of its own, once it was let in. */
static void ask_until_let_in(void)
{
    do {
        int fd = client_connect(httpd_port(server));
        client_say(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
        if (!client_reply_(fd, &reply, false))
            reply.status = 0;
        close(fd);
    } while (reply.status == 503 || reply.status == 0);
}

Test(httpd_crowd, whose_client_is_silent_longest_makes_room_and_who_waits_for_us_does_not)
{
    static const char *const said[] = {"", "GET /ec",
                                       "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx"};
    options.idle_timeout_ms = 600000;
    options.connections_max = 3;
    start();
    int waiting = client_connect(httpd_port(server));
    client_say(waiting, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    struct httpd_request *rq = wait_for_later(0);
    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        int silent = client_connect(httpd_port(server));
        client_say(silent, said[i]);
        while (httpd_connections(server) < 2)
            sched_yield();
        int newer = ask("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
        ask_until_let_in();
        cr_assert(eq(int, reply.status, 200));
        cr_assert(client_closed(silent), "after '%s'", said[i]);
        client_say(newer, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
        client_reply(newer, &reply);
        cr_assert(eq(int, reply.status, 200));
        close(silent);
        close(newer);
        while (httpd_connections(server) > 1)
            sched_yield();
    }
    answer(rq);
    client_reply(waiting, &reply);
    cr_assert(eq(str, reply.body, "here"));
    close(waiting);
    httpd_stop(server);
}

Test(httpd_crowd, thousands_of_idle_connections_do_not_hold_up_a_request)
{
    enum { IDLE = 3000 };
    static int fds[IDLE];
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    cr_assert(gt(u64, limit.rlim_cur, 2 * IDLE + 100), "this test needs file descriptors");
    options.connections_max = IDLE + 10;
    start();
    for (int i = 0; i < IDLE; i++)
        fds[i] = client_connect(httpd_port(server));
    uint64_t began_ms = clock_boot_ms();
    close(ask("GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"));
    cr_assert(lt(u64, clock_boot_ms() - began_ms, 10000));
    for (int i = 0; i < IDLE; i++)
        close(fds[i]);
    httpd_stop(server);
}
