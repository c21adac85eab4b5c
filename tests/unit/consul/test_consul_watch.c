#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/base/mem.h"
#include "agent/io/loop.h"
#include "consul/consul_watch.h"
#include "tests/lib/patience.h"
#include "tests/lib/raw_server.h"

enum { REPLIES_MAX = 8 };

/* REPLIES one after the other; then silence, as a blocking query without news has it. */
static struct {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct raw_server *server;
    struct consul_client *client;
    struct consul_watch *watch;
    pthread_mutex_t lock;
    const char *replies[REPLIES_MAX];
    unsigned next;
    char lines[REPLIES_MAX + 1][160];
    char told[512];
    unsigned requests_wanted;
    bool free_in_callback;
} bed;

static bool say(const struct raw_request *rq)
{
    char byte;
    pthread_mutex_lock(&bed.lock);
    unsigned i = bed.next++;
    if (i <= REPLIES_MAX)
        snprintf(bed.lines[i], sizeof(bed.lines[i]), "%.*s", (int)strcspn(rq->text, "\r"), rq->text);
    const char *reply = i < REPLIES_MAX ? bed.replies[i] : NULL;
    pthread_mutex_unlock(&bed.lock);
    if (reply)
        raw_write(rq->fd, reply);
    else
        (void)recv(rq->fd, &byte, 1, 0); /* until the client or the test goes away */
    return reply != NULL;
}

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain");
}

static void on_changed(void *arg, const char *body, size_t bytes)
{
    (void)arg;
    size_t len = strlen(bed.told);
    cr_assert(eq(sz, bytes, strlen(body)));
    snprintf(bed.told + len, sizeof(bed.told) - len, "<%s>", body);
    if (bed.free_in_callback) {
        consul_watch_free(bed.watch);
        bed.watch = NULL;
    }
    if (bed.free_in_callback)
        loop_stop(bed.loop);
}

static void open_with(raw_handler *answer, bool empty_is_404)
{
    struct err e = {0};
    char address[64];
    pthread_mutex_init(&bed.lock, NULL);
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    bed.server = raw_server_start(false, answer, NULL);
    snprintf(address, sizeof(address), "127.0.0.1:%u", raw_server_port(bed.server));
    struct consul_client_options options = {.address = address};
    cr_assert(zero(int, consul_client_new(bed.loop, &options, &bed.client, &e)), "%s", e.text);
    struct consul_watch_options watch = {.path = "/v1/kv/p?recurse", .empty_is_404 = empty_is_404, .seed = 1};
    bed.watch = consul_watch_new(bed.client, &watch, on_changed, NULL);
}

static void open_bed(bool empty_is_404)
{
    open_with(say, empty_is_404);
}

static void poll_requests(void *arg)
{
    struct loop_timer **t = arg;
    pthread_mutex_lock(&bed.lock);
    bool all = bed.next >= bed.requests_wanted;
    pthread_mutex_unlock(&bed.lock);
    if (all)
        loop_stop(bed.loop);
    else
        loop_timer_arm(*t, 5);
}

/* Until N requests have come. */
static void run_requests(unsigned n)
{
    struct loop_timer *t = loop_timer_new(bed.loop, poll_requests, &t);
    bed.requests_wanted = n;
    loop_timer_arm(t, 0);
    loop_run(bed.loop);
    loop_timer_free(t);
}

static void close_bed(void)
{
    consul_watch_free(bed.watch);
    consul_client_free(bed.client);
    raw_server_stop(bed.server);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

#define ANSWER(index, body) "HTTP/1.1 200 OK\r\nX-Consul-Index: " index "\r\nContent-Length: 1\r\n\r\n" body

static void assert_line(unsigned i, const char *query)
{
    char line[200];
    snprintf(line, sizeof(line), "GET /v1/kv/p?recurse%s HTTP/1.1", query);
    cr_assert(eq(str, bed.lines[i], line), "request %u", i);
}

Test(consul_watch, the_index_goes_on_or_back_to_zero_and_is_never_zero_twice)
{
    cr_assert(eq(u64, consul_watch_next_index(0, 5), 5));
    cr_assert(eq(u64, consul_watch_next_index(5, 5), 5));
    cr_assert(eq(u64, consul_watch_next_index(5, 6), 6));
    cr_assert(eq(u64, consul_watch_next_index(5, 4), 0));
    cr_assert(eq(u64, consul_watch_next_index(5, 0), 0));
    cr_assert(eq(u64, consul_watch_next_index(0, 0), 1));
}

Test(consul_watch, reads_consistently_once_and_then_waits_stale_for_changes)
{
    bed.replies[0] = ANSWER("10", "a");
    bed.replies[1] = ANSWER("11", "b");
    open_bed(true);
    run_requests(3);
    cr_assert(eq(str, bed.told, "<a><b>"));
    assert_line(0, "");
    assert_line(1, "&stale&index=10&wait=300s");
    assert_line(2, "&stale&index=11&wait=300s");
    cr_assert(consul_watch_ok(bed.watch));
    close_bed();
}

Test(consul_watch, tells_nothing_when_only_the_index_moved)
{
    bed.replies[0] = ANSWER("10", "a");
    bed.replies[1] = ANSWER("11", "a");
    bed.replies[2] = ANSWER("12", "a");
    open_bed(true);
    run_requests(4);
    cr_assert(eq(str, bed.told, "<a>"));
    close_bed();
}

Test(consul_watch, an_index_that_goes_back_is_followed_by_a_read_without_one)
{
    bed.replies[0] = ANSWER("10", "a");
    bed.replies[1] = ANSWER("3", "b");
    bed.replies[2] = ANSWER("4", "c");
    open_bed(true);
    run_requests(4);
    cr_assert(eq(str, bed.told, "<a><b><c>"));
    assert_line(2, "&stale");
    assert_line(3, "&stale&index=4&wait=300s");
    close_bed();
}

Test(consul_watch, nothing_but_a_good_answer_is_told)
{
    bed.replies[0] = "HTTP/1.1 500 No\r\nContent-Length: 17\r\n\r\nNo cluster leader";
    bed.replies[1] = "HTTP/1.1 429 No\r\nX-Consul-Index: 5\r\nContent-Length: 0\r\n\r\n";
    bed.replies[2] = "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
    bed.replies[3] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
    bed.replies[4] = "HTTP/1.1 200 OK\r\nX-Consul-Index: 5\r\nContent-Length: 0\r\n\r\n";
    bed.replies[5] = ANSWER("10", "a");
    open_bed(true);
    run_requests(6);
    run_requests(7);
    cr_assert(eq(str, bed.told, "<a>"));
    close_bed();
}

Test(consul_watch, a_list_that_is_empty_for_want_of_rights_is_not_told)
{
    open_bed(false);
    bed.replies[0] = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 3\r\n\r\n[1]";
    bed.replies[1] = "HTTP/1.1 200 OK\r\nX-Consul-Index: 8\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n"
                     "Content-Length: 3\r\n\r\n[]\n";
    bed.replies[2] = "HTTP/1.1 200 OK\r\nX-Consul-Index: 9\r\nX-Consul-Results-Filtered-By-ACLs: true\r\n"
                     "Content-Length: 3\r\n\r\n[2]";
    bed.replies[3] = "HTTP/1.1 200 OK\r\nX-Consul-Index: 10\r\nContent-Length: 2\r\n\r\n[]";
    run_requests(5);
    cr_assert(eq(str, bed.told, "<[1]><[2]><[]>"));
    close_bed();
}

Test(consul_watch, a_missing_prefix_is_an_empty_list_only_where_that_was_asked_for)
{
    bed.replies[0] = ANSWER("10", "a");
    bed.replies[1] = "HTTP/1.1 404 No\r\nX-Consul-Index: 11\r\nContent-Length: 0\r\n\r\n";
    bed.replies[2] = ANSWER("12", "b");
    open_bed(true);
    run_requests(4);
    cr_assert(eq(str, bed.told, "<a><><b>"));
    close_bed();
    memset(bed.told, 0, sizeof(bed.told));
    bed.next = 0;
    open_bed(false);
    run_requests(4);
    cr_assert(eq(str, bed.told, "<a><b>"));
    close_bed();
}

Test(consul_watch, after_an_error_it_reads_without_an_index)
{
    bed.replies[0] = ANSWER("10", "a");
    bed.replies[1] = "HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx";
    bed.replies[2] = ANSWER("2", "b");
    open_bed(true);
    run_requests(4);
    cr_assert(eq(str, bed.told, "<a><b>"));
    assert_line(2, "&stale");
    close_bed();
}

Test(consul_watch, may_be_freed_by_its_own_callback)
{
    bed.replies[0] = ANSWER("10", "a");
    bed.free_in_callback = true;
    open_bed(true);
    loop_run(bed.loop);
    cr_assert(eq(str, bed.told, "<a>"));
    close_bed();
}

Test(consul_watch, a_query_that_returns_at_once_again_and_again_is_slowed)
{
    for (unsigned i = 0; i < REPLIES_MAX; i++)
        bed.replies[i] = ANSWER("10", "a");
    open_bed(true);
    run_requests(REPLIES_MAX + 1); /* a burst passes */
    cr_assert(eq(str, bed.told, "<a>"));
    close_bed();
}

/* What is there now; with the first index, which came with "a", that it is "b" from now on. */
static bool say_what_is(const struct raw_request *rq)
{
    char byte;
    bool first = strstr(rq->text, "&index=1&") != NULL, latest = strstr(rq->text, "&index=2&") != NULL;
    pthread_mutex_lock(&bed.lock);
    bed.next += first;
    bool changed = bed.next > 0;
    pthread_mutex_unlock(&bed.lock);
    if (latest)
        (void)recv(rq->fd, &byte, 1, 0); /* no more news */
    else
        raw_write(rq->fd, changed ? ANSWER("2", "b") : ANSWER("1", "a"));
    return !latest;
}

/* Whoever failed asks again at once. */
static void hurry(void *arg)
{
    struct loop_timer **t = arg;
    size_t len = strlen(bed.told);
    if (len >= 3 && strcmp(bed.told + len - 3, "<b>") == 0 && consul_watch_ok(bed.watch))
        loop_stop(bed.loop);
    if (!consul_watch_ok(bed.watch))
        consul_watch_hurry(bed.watch);
    loop_timer_arm(*t, 1);
}

Test(consul_watch, whatever_fails_it_asks_again_and_tells_only_what_is_there)
{
    unsigned k = 0;
    for (bool fired = true; fired; k++) {
        bed.told[0] = '\0';
        bed.next = 0;
        open_with(say_what_is, true);
        struct loop_timer *t = loop_timer_new(bed.loop, hurry, &t);
        loop_timer_arm(t, 1);
        fault_arm(k);
        loop_run(bed.loop);
        fired = fault_fired();
        if (!fired || strcmp(bed.told, "<b>") != 0)
            cr_assert(eq(str, bed.told, "<a><b>"), "k=%u", k);
        loop_timer_free(t);
        close_bed();
    }
    cr_assert(gt(uint, k, 10), "paths, requests, headers, bodies");
}
