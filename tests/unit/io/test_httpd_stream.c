#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/io/httpd.h"
#include "tests/lib/seed.h"
#include "tests/unit/io/client.h"

enum { BUFFER = 10000 };

static struct httpd *server;
static struct err e;
static _Atomic(struct httpd_request *) asked;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t room_came = PTHREAD_COND_INITIALIZER;
static unsigned rooms;

static int64_t accept_request(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return 0;
}
static void handle(struct httpd_request *rq, void *arg)
{
    (void)arg;
    if (strcmp(httpd_path(rq), "/quick") == 0)
        httpd_reply(rq, 204, NULL, 0, NULL);
    else
        atomic_store(&asked, rq);
}
static void too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    httpd_reply(rq, 413, NULL, 0, NULL);
}
static void start(void)
{
    struct httpd_options o = {.listen = "127.0.0.1:0",
                              .connections_max = 10,
                              .idle_timeout_ms = 1000,
                              .header_bytes_max = 4096,
                              .accept = accept_request,
                              .handle = handle,
                              .too_large = too_large};
    cr_assert(zero(int, httpd_start(&o, &server, &e)), "%s", e.text);
}

TestSuite(httpd_stream, .init = start, .timeout = 600);

static void on_room(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    rooms++;
    pthread_cond_signal(&room_came);
    pthread_mutex_unlock(&lock);
}
static void wait_for_room(unsigned count)
{
    pthread_mutex_lock(&lock);
    while (rooms < count)
        pthread_cond_wait(&room_came, &lock);
    pthread_mutex_unlock(&lock);
}

static struct httpd_stream *begin(int *ret_fd, const char *request)
{
    const struct httpd_header headers[] = {{"Content-Type", "text/event-stream"}};
    *ret_fd = client_connect(httpd_port(server));
    client_say(*ret_fd, request);
    struct httpd_request *rq;
    while (!(rq = atomic_exchange(&asked, NULL)))
        sched_yield();
    struct httpd_stream *s = httpd_stream_begin(rq, 200, headers, 1, BUFFER);
    httpd_stream_on_room(s, on_room, NULL);
    return s;
}

#define GET(version) "GET /s HTTP/" version "\r\nHost: h\r\n\r\n"

Test(httpd_stream, pieces_arrive_as_they_are_written_and_the_connection_goes_on)
{
    int fd;
    char got[4096];
    struct httpd_stream *s = begin(&fd, GET("1.1"));
    cr_assert(client_read_until(fd, got, sizeof got, "\r\n\r\n"), "the head comes before the first piece");
    cr_assert(zero(int, httpd_stream_write(s, "one", 3)));
    cr_assert(client_read_until(fd, got, sizeof got, "3\r\none\r\n"));
    cr_assert(zero(int, httpd_stream_write(s, "three", 5)));
    cr_assert(client_read_until(fd, got, sizeof got, "5\r\nthree\r\n"));
    httpd_stream_end(s);
    cr_assert(client_read_until(fd, got, sizeof got, "0\r\n\r\n"));
    client_say(fd, "GET /quick HTTP/1.1\r\nHost: h\r\n\r\n");
    cr_assert(client_read_until(fd, got, sizeof got, "204"));
    close(fd);
    httpd_stop(server);
}

Test(httpd_stream, an_idle_stream_outlives_the_idle_limit_and_holds_nobody_up)
{
    int fd, idle = client_connect(httpd_port(server)), quick;
    char got[4096];
    struct httpd_stream *s = begin(&fd, GET("1.1"));
    for (int i = 0; i < 20; i++) {
        quick = client_connect(httpd_port(server));
        client_say(quick, "GET /quick HTTP/1.1\r\nHost: h\r\n\r\n");
        cr_assert(client_read_until(quick, got, sizeof got, "204"));
        close(quick);
    }
    cr_assert(client_closed(idle)); /* so a second has passed */
    close(idle);
    cr_assert(zero(int, httpd_stream_write(s, "still", 5)));
    cr_assert(client_read_until(fd, got, sizeof got, "still"));
    httpd_stream_end(s);
    close(fd);
    httpd_stop(server);
}

struct reader {
    int fd;
    char *got;
    size_t len, max;
};
static void *read_all(void *arg)
{
    struct reader *r = arg;
    r->len = client_read_to_end(r->fd, r->got, r->max);
    return NULL;
}

/* Random pieces, with the reader as slow as the machine makes it; HTTP/1.0 has no chunks, so what arrives is the content. */
Test(httpd_stream, what_is_written_under_back_pressure_arrives_whole_and_in_order)
{
    enum { TOTAL = 3000000 };
    struct rng rng;
    struct reader reader = {.max = TOTAL + 4096};
    pthread_t thread;
    unsigned busy = 0;
    seed_rng(&rng, "httpd_stream");
    char *data = mem_new_array(char, TOTAL);
    for (size_t i = 0; i < TOTAL; i++)
        data[i] = (char)rng_below(&rng, 256);
    reader.got = mem_new_array(char, reader.max);
    struct httpd_stream *s = begin(&reader.fd, GET("1.0"));
    pthread_create(&thread, NULL, read_all, &reader);
    for (size_t at = 0; at < TOTAL;) {
        size_t n = 1 + (size_t)rng_below(&rng, BUFFER);
        n = n < TOTAL - at ? n : TOTAL - at;
        int r = httpd_stream_write(s, data + at, n);
        if (r == -(int)ERR_BUSY) {
            wait_for_room(++busy);
            continue;
        }
        cr_assert(zero(int, r));
        at += n;
    }
    httpd_stream_end(s);
    pthread_join(thread, NULL);
    char *content = memmem(reader.got, reader.len, "\r\n\r\n", 4);
    cr_assert(ne(ptr, content, NULL));
    cr_assert(eq(sz, reader.len - (size_t)(content + 4 - reader.got), TOTAL));
    cr_assert(zero(int, memcmp(content + 4, data, TOTAL)));
    cr_assert(gt(u32, busy, 0), "nothing was held back");
    close(reader.fd);
    mem_free(data);
    mem_free(reader.got);
    httpd_stop(server);
}

Test(httpd_stream, a_client_that_goes_is_told_by_room_and_by_write)
{
    int fd;
    char got[4096];
    struct httpd_stream *s = begin(&fd, GET("1.1"));
    cr_assert(client_read_until(fd, got, sizeof got, "\r\n\r\n"));
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
    wait_for_room(1); /* nothing is written: the server looks after idle streams by itself */
    cr_assert(eq(int, httpd_stream_write(s, "x", 1), -(int)ERR_CANCELLED));
    httpd_stream_end(s);
    while (httpd_connections(server) > 0)
        sched_yield();
    httpd_stop(server);
}

Test(httpd_stream, a_stream_in_answer_to_head_has_no_content)
{
    int fd;
    char got[4096];
    struct httpd_stream *s = begin(&fd, "HEAD /s HTTP/1.1\r\nHost: h\r\n\r\n");
    cr_assert(client_read_until(fd, got, sizeof got, "\r\n\r\n"));
    while (httpd_stream_write(s, "", 0) == 0) /* the reply may be over before or after this */
        sched_yield();
    httpd_stream_end(s);
    client_say(fd, "GET /quick HTTP/1.1\r\nHost: h\r\n\r\n");
    cr_assert(client_read_until(fd, got, sizeof got, "204"));
    close(fd);
    httpd_stop(server);
}

Test(httpd_stream, a_stream_that_is_broken_off_does_not_look_whole)
{
    for (int piece = 0; piece < 2; piece++) {
        int fd;
        char got[4096];
        struct httpd_stream *s = begin(&fd, GET("1.1"));
        cr_assert(client_read_until(fd, got, sizeof got, "\r\n\r\n"));
        if (piece)
            cr_assert(zero(int, httpd_stream_write(s, "one", 3)));
        httpd_stream_break(s);
        size_t len = client_read_to_end(fd, got, sizeof got);
        cr_assert(zero(ptr, memmem(got, len, "0\r\n\r\n", 5)));
        close(fd);
    }
    httpd_stop(server);
}

Test(httpd_stream, stopping_breaks_streams_off)
{
    int sleeping, full;
    char *junk = mem_new_array(char, 8 << 20), got[BUFFER] = {0};
    struct httpd_stream *s1 = begin(&sleeping, GET("1.1")), *s2 = begin(&full, GET("1.1"));
    while (httpd_stream_write(s2, got, sizeof got) == 0) /* until the kernel's buffers and ours are full */
        ;
    httpd_stop(server);
    cr_assert(eq(int, httpd_stream_write(s1, "x", 1), -(int)ERR_CANCELLED));
    cr_assert(eq(int, httpd_stream_write(s2, "x", 1), -(int)ERR_CANCELLED));
    cr_assert(ge(u32, rooms, 2));
    size_t len = client_read_to_end(sleeping, junk, 8 << 20);
    cr_assert(zero(ptr, memmem(junk, len, "0\r\n\r\n", 5)), "a broken stream must not look whole");
    httpd_stream_end(s1);
    httpd_stream_end(s2);
    close(sleeping);
    close(full);
    mem_free(junk);
}

Test(httpd_stream, a_stream_begun_after_the_stop_is_gone)
{
    int fd = client_connect(httpd_port(server));
    client_say(fd, GET("1.1"));
    while (!atomic_load(&asked))
        sched_yield();
    httpd_stop(server);
    struct httpd_stream *s = httpd_stream_begin(atomic_load(&asked), 200, NULL, 0, BUFFER);
    cr_assert(eq(int, httpd_stream_write(s, "x", 1), -(int)ERR_CANCELLED));
    httpd_stream_end(s);
    close(fd);
}
