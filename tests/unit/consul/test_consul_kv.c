#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/io/loop.h"
#include "consul/consul_kv.h"
#include "tests/lib/patience.h"
#include "tests/lib/raw_server.h"

/* A Consul with one key. */
static struct {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct raw_server *server;
    struct consul_client *client;
    struct consul_kv *kv;
    pthread_mutex_t lock;
    char value[64]; /* as base64 */
    unsigned index; /* 0: no key */
    unsigned fails; /* so many requests are answered with 500 */
    unsigned looks; /* blocking queries that are to return at once */
    char told[256];
    unsigned tells, tells_wanted;
} bed;

static void answer_read(int fd)
{
    char body[200], reply[400];
    snprintf(body, sizeof(body), "[{\"Key\":\"k\",\"Value\":\"%s\",\"ModifyIndex\":%u}]", bed.value,
             bed.index);
    if (bed.index == 0)
        raw_write(fd, "HTTP/1.1 404 Not Found\r\nX-Consul-Index: 1\r\nContent-Length: 0\r\n\r\n");
    else {
        snprintf(reply, sizeof(reply),
                 "HTTP/1.1 200 OK\r\nX-Consul-Index: %u\r\nContent-Length: %zu\r\n\r\n%s", bed.index,
                 strlen(body), body);
        raw_write(fd, reply);
    }
}

static void answer_put(const struct raw_request *rq)
{
    unsigned cas = 0;
    const char *at = strstr(rq->text, "?cas=");
    cr_assert(ne(ptr, (void *)at, NULL));
    sscanf(at, "?cas=%u", &cas);
    if (cas == bed.index) {
        bed.index += 10;
        snprintf(bed.value, sizeof(bed.value), "bmV3"); /* "new" */
    }
    raw_write(rq->fd, cas + 10 == bed.index ? "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"
                                            : "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse");
}

static bool say(const struct raw_request *rq)
{
    char byte;
    bool blocking = strstr(rq->text, "index=") != NULL, silent = false;
    pthread_mutex_lock(&bed.lock);
    if (blocking && bed.looks == 0)
        silent = true;
    else if (bed.fails > 0 && !blocking) {
        bed.fails--;
        raw_write(rq->fd, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    } else if (strncmp(rq->text, "PUT", 3) == 0)
        answer_put(rq);
    else {
        bed.looks -= blocking;
        answer_read(rq->fd);
    }
    pthread_mutex_unlock(&bed.lock);
    if (silent)
        (void)recv(rq->fd, &byte, 1, 0); /* until the client or the test goes away */
    return !silent;
}

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain");
}

static void on_told(void *arg, const char *value, size_t bytes, uint64_t index)
{
    size_t len = strlen(bed.told);
    (void)arg;
    cr_assert(eq(sz, bytes, value ? strlen(value) : 0));
    snprintf(bed.told + len, sizeof(bed.told) - len, "<%s %u>", value ? value : "none", (unsigned)index);
    if (++bed.tells == bed.tells_wanted)
        loop_stop(bed.loop);
}

static void open_bed(void)
{
    struct err e = {0};
    char address[64];
    pthread_mutex_init(&bed.lock, NULL);
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    bed.server = raw_server_start(false, say, NULL);
    snprintf(address, sizeof(address), "127.0.0.1:%u", raw_server_port(bed.server));
    struct consul_client_options options = {.address = address};
    cr_assert(zero(int, consul_client_new(bed.loop, &options, &bed.client, &e)), "%s", e.text);
    bed.kv = consul_kv_new(bed.client, "k", 1, on_told, NULL);
}

static void run_tells(unsigned n)
{
    bed.tells_wanted = bed.tells + n;
    loop_run(bed.loop);
}

static void close_bed(void)
{
    consul_kv_free(bed.kv);
    consul_client_free(bed.client);
    raw_server_stop(bed.server);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

Test(consul_kv, a_key_that_is_not_there_is_told_and_made)
{
    open_bed();
    run_tells(1);
    cr_assert(eq(str, bed.told, "<none 0>"));
    consul_kv_put(bed.kv, "new", 3, 0);
    cr_assert(consul_kv_is_writing(bed.kv));
    run_tells(1);
    cr_assert(eq(str, bed.told, "<none 0><new 10>"));
    cr_assert(not(consul_kv_is_writing(bed.kv)));
    close_bed();
}

Test(consul_kv, a_write_on_what_is_not_there_any_more_changes_nothing)
{
    bed.index = 5;
    snprintf(bed.value, sizeof(bed.value), "b2xk"); /* "old" */
    open_bed();
    run_tells(1);
    consul_kv_put(bed.kv, "new", 3, 4);
    run_tells(1);
    cr_assert(eq(str, bed.told, "<old 5><old 5>"));
    close_bed();
}

Test(consul_kv, what_fails_is_asked_again_and_told_once)
{
    bed.index = 5;
    bed.fails = 3;
    snprintf(bed.value, sizeof(bed.value), "b2xk");
    open_bed();
    run_tells(1);
    cr_assert(eq(str, bed.told, "<old 5>"));
    bed.fails = 1;
    consul_kv_put(bed.kv, "new", 3, 5);
    run_tells(1);
    cr_assert(eq(str, bed.told, "<old 5><old 5>"), "the write was refused, and what is there was read");
    close_bed();
}

Test(consul_kv, an_answer_that_is_no_entry_is_refused)
{
    static const char *const wrong[] = {"", "{}", "[]", "[{\"Value\":\"YQ==\"}]",
                                        "[{\"Value\":\"***\",\"ModifyIndex\":1}]"};
    char *value = NULL;
    size_t bytes = 0;
    uint64_t index = 0;
    struct err e = {0};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        cr_assert(
            eq(int, consul_kv_parse(wrong[i], strlen(wrong[i]), &value, &bytes, &index, &e), -ERR_PROTOCOL),
            "%s", wrong[i]);
    cr_assert(zero(ptr, value));
}

Test(consul_kv, reading_survives_the_loss_of_any_allocation)
{
    static const char body[] = "[{\"Value\":\"YQ==\",\"ModifyIndex\":7}]";
    for (unsigned k = 0;; k++) {
        char *value = NULL;
        size_t bytes = 0;
        uint64_t index = 0;
        fault_arm(k);
        int r = consul_kv_parse(body, sizeof(body) - 1, &value, &bytes, &index, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(eq(str, value, "a"));
            cr_assert(eq(u64, index, 7));
            mem_free(value);
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u", k);
        cr_assert(zero(ptr, value));
    }
}
