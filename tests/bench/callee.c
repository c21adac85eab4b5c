/* The callee of the benchmark: answers every callback with an empty 200 and notes when it came.
 *
 *   callee --port P
 *
 * One thread, epoll and http_parser. GET /count tells how many came since the last POST /reset; GET /stats their lateness and times;
 * GET /log each of them, a line "arrival due job attempt epoch" (µs since boot, epoch ms). */
#include <arpa/inet.h>
#include <errno.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "tests/bench/bench.h"

#define RECORDS_MAX ((size_t)16 << 20)
#define EVENTS_MAX  256
#define IN_BYTES    65536
#define REPLY_EMPTY "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define REPLY_HEAD  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n"
#define PATH_BYTES  64
#define VALUE_BYTES 64

struct record {
    uint64_t at_us; /* CLOCK_MONOTONIC, so that other processes can compare */
    int64_t late_us;
    int64_t due_ms;
    uint64_t epoch;
    uint32_t attempt;
    char job[28];
};

enum field { FIELD_NONE, FIELD_DUE, FIELD_JOB, FIELD_ATTEMPT, FIELD_EPOCH, FIELD_COUNT_ };
static const char *const field_names[FIELD_COUNT_] = {[FIELD_DUE] = "ce-time",
                                                      [FIELD_JOB] = "ce-subject",
                                                      [FIELD_ATTEMPT] = "Carillon-Attempt",
                                                      [FIELD_EPOCH] = "Carillon-Epoch"};

struct callee {
    int epoll, listener;
    struct record *records;
    size_t count;
    char in[IN_BYTES];
    uint64_t read_us; /* when what is parsed now was read */
    int64_t read_wall_us;
};

struct connection {
    struct callee *callee;
    int fd;
    http_parser parser;
    char path[PATH_BYTES];
    size_t path_len;
    char name[32]; /* of the present header */
    size_t name_len;
    bool in_value;
    enum field field;
    char values[FIELD_COUNT_][VALUE_BYTES];
    size_t lens[FIELD_COUNT_];
    char *out;
    size_t out_len, out_room;
    bool close_it;
};

/* --- what a request says --------------------------------------------------------------------------------------------- */

static void keep(char *to, size_t *len, size_t room, const char *data, size_t bytes)
{
    size_t n = bytes < room - 1 - *len ? bytes : room - 1 - *len;
    memcpy(to + *len, data, n);
    *len += n;
    to[*len] = '\0';
}

static int on_begin(http_parser *p)
{
    struct connection *c = p->data;
    c->path_len = c->name_len = 0;
    c->in_value = false;
    c->field = FIELD_NONE;
    memset(c->lens, 0, sizeof(c->lens));
    for (size_t i = 0; i < FIELD_COUNT_; i++)
        c->values[i][0] = '\0';
    return 0;
}

static int on_url(http_parser *p, const char *data, size_t bytes)
{
    struct connection *c = p->data;
    keep(c->path, &c->path_len, sizeof(c->path), data, bytes);
    return 0;
}

static int on_header_name(http_parser *p, const char *data, size_t bytes)
{
    struct connection *c = p->data;
    if (c->in_value)
        c->name_len = 0;
    c->in_value = false;
    keep(c->name, &c->name_len, sizeof(c->name), data, bytes);
    return 0;
}

static int on_header_value(http_parser *p, const char *data, size_t bytes)
{
    struct connection *c = p->data;
    if (!c->in_value) {
        c->field = FIELD_NONE;
        for (enum field f = FIELD_DUE; f < FIELD_COUNT_; f++)
            if (strcmp(c->name, field_names[f]) == 0)
                c->field = f;
    }
    c->in_value = true;
    if (c->field != FIELD_NONE)
        keep(c->values[c->field], &c->lens[c->field], VALUE_BYTES, data, bytes);
    return 0;
}

/* 2026-11-23T08:00:00.000Z; 0 for anything else. */
static int64_t instant_ms(const char *text)
{
    struct tm tm = {0};
    int ms = 0;
    if (sscanf(text, "%d-%d-%dT%d:%d:%d.%dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
               &tm.tm_sec, &ms) != 7)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return (int64_t)timegm(&tm) * 1000 + ms;
}

/* --- answers --------------------------------------------------------------------------------------------------------- */

static void reply(struct connection *c, const char *data, size_t bytes)
{
    if (c->out_len + bytes > c->out_room) {
        c->out_room = 2 * (c->out_len + bytes);
        c->out = realloc(c->out, c->out_room);
        BENCH_CHECK(c->out, "out of memory for an answer of %zu bytes", bytes);
    }
    memcpy(c->out + c->out_len, data, bytes);
    c->out_len += bytes;
}

static void reply_text(struct connection *c, const char *text, size_t bytes)
{
    char head[128];
    int n = snprintf(head, sizeof(head), REPLY_HEAD, bytes);
    reply(c, head, (size_t)n);
    reply(c, text, bytes);
}

static void reply_json(struct connection *c, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    BENCH_CHECK(text, "out of memory");
    reply_text(c, text, strlen(text));
    free(text);
    json_decref(value);
}

/* Lateness is that of first attempts. */
static json_t *stats(const struct callee *callee)
{
    struct bench_samples late = {0};
    size_t repeats = 0;
    uint64_t first_us = 0, last_us = 0;
    int64_t due_min = INT64_MAX, due_max = 0;
    for (size_t i = 0; i < callee->count; i++) {
        const struct record *r = &callee->records[i];
        first_us = i == 0 ? r->at_us : first_us;
        last_us = r->at_us;
        due_min = r->due_ms < due_min ? r->due_ms : due_min;
        due_max = r->due_ms > due_max ? r->due_ms : due_max;
        if (r->attempt > 1)
            repeats++;
        else
            bench_samples_add(&late, r->late_us);
    }
    json_t *result = json_pack("{s:I,s:I,s:f,s:f,s:I,s:I,s:o}", "count", (json_int_t)callee->count, "repeats",
                               (json_int_t)repeats, "first_s", (double)first_us / 1e6, "last_s",
                               (double)last_us / 1e6, "due_min_ms", (json_int_t)due_min, "due_max_ms",
                               (json_int_t)due_max, "late_ms", bench_samples_json(&late, 1000));
    bench_samples_fini(&late);
    return result;
}

static void reply_log(struct connection *c, const struct callee *callee)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);
    BENCH_CHECK(f, "out of memory");
    for (size_t i = 0; i < callee->count; i++) {
        const struct record *r = &callee->records[i];
        (void)fprintf(f, "%llu %lld %s %u %llu\n", (unsigned long long)r->at_us, (long long)r->due_ms, r->job,
                      r->attempt, (unsigned long long)r->epoch);
    }
    BENCH_CHECK(fclose(f) == 0, "out of memory");
    reply_text(c, text, bytes);
    free(text);
}

static void note(struct connection *c)
{
    struct callee *callee = c->callee;
    if (callee->count == RECORDS_MAX)
        return; /* what is counted is what was seen: the driver compares */
    struct record *r = &callee->records[callee->count++];
    r->at_us = callee->read_us;
    r->due_ms = instant_ms(c->values[FIELD_DUE]);
    r->late_us = r->due_ms ? callee->read_wall_us - r->due_ms * 1000 : 0;
    r->attempt = (uint32_t)strtoul(c->values[FIELD_ATTEMPT], NULL, 10);
    r->epoch = strtoull(c->values[FIELD_EPOCH], NULL, 10);
    (void)snprintf(r->job, sizeof(r->job), "%.*s", (int)sizeof(r->job) - 1, c->values[FIELD_JOB]);
}

static int on_complete(http_parser *p)
{
    struct connection *c = p->data;
    struct callee *callee = c->callee;
    if (strcmp(c->path, "/stats") == 0) {
        reply_json(c, stats(callee));
    } else if (strcmp(c->path, "/log") == 0) {
        reply_log(c, callee);
    } else if (strcmp(c->path, "/count") == 0) {
        reply_json(c, json_pack("{s:I}", "count", (json_int_t)callee->count));
    } else if (strcmp(c->path, "/reset") == 0) {
        callee->count = 0;
        reply(c, REPLY_EMPTY, strlen(REPLY_EMPTY));
    } else {
        note(c);
        reply(c, REPLY_EMPTY, strlen(REPLY_EMPTY));
    }
    return 0;
}

static const http_parser_settings settings = {.on_message_begin = on_begin,
                                              .on_url = on_url,
                                              .on_header_field = on_header_name,
                                              .on_header_value = on_header_value,
                                              .on_message_complete = on_complete};

/* --- connections ----------------------------------------------------------------------------------------------------- */

static void connection_free(struct connection *c)
{
    close(c->fd);
    free(c->out);
    mem_free(c);
}

static void watch(struct connection *c, bool writing)
{
    struct epoll_event ev = {.events = EPOLLIN | (writing ? (uint32_t)EPOLLOUT : 0), .data.ptr = c};
    BENCH_CHECK(epoll_ctl(c->callee->epoll, EPOLL_CTL_MOD, c->fd, &ev) == 0, "epoll_ctl: %s",
                strerror(errno));
}

static void flush_out(struct connection *c, bool was_waiting)
{
    ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        c->close_it = true;
        return;
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    c->out_len -= sent;
    memmove(c->out, c->out + sent, c->out_len);
    if (c->out_len > 0 || was_waiting)
        watch(c, c->out_len > 0);
}

static void read_in(struct connection *c)
{
    struct callee *callee = c->callee;
    ssize_t n = recv(c->fd, callee->in, sizeof(callee->in), 0);
    if (n <= 0) {
        c->close_it = n == 0 || errno != EAGAIN;
        return;
    }
    callee->read_us = clock_mono_ns() / 1000;
    callee->read_wall_us = clock_wall_us();
    size_t parsed = http_parser_execute(&c->parser, &settings, callee->in, (size_t)n);
    if (parsed != (size_t)n)
        c->close_it = true;
}

static void serve(struct connection *c, uint32_t events)
{
    bool was_waiting = c->out_len > 0;
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_in(c);
    if (c->out_len > 0)
        flush_out(c, was_waiting);
    if (c->close_it)
        connection_free(c);
}

static void accept_all(struct callee *callee)
{
    int fd, on = 1;
    while ((fd = accept4(callee->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = mem_new(struct connection);
        c->callee = callee;
        c->fd = fd;
        http_parser_init(&c->parser, HTTP_REQUEST);
        c->parser.data = c;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* a matter of speed only */
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        BENCH_CHECK(epoll_ctl(callee->epoll, EPOLL_CTL_ADD, fd, &ev) == 0, "epoll_ctl: %s", strerror(errno));
    }
}

static void listen_at(struct callee *callee, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    callee->epoll = epoll_create1(EPOLL_CLOEXEC);
    callee->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    BENCH_CHECK(callee->epoll >= 0 && callee->listener >= 0, "socket: %s", strerror(errno));
    (void)setsockopt(callee->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)); /* bind tells */
    BENCH_CHECK(bind(callee->listener, (struct sockaddr *)&at, sizeof(at)) == 0 &&
                    listen(callee->listener, 1024) == 0,
                "listen on port %u: %s", port, strerror(errno));
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    BENCH_CHECK(epoll_ctl(callee->epoll, EPOLL_CTL_ADD, callee->listener, &ev) == 0, "epoll_ctl: %s",
                strerror(errno));
}

int main(int argc, char **argv)
{
    struct callee *callee = mem_new(struct callee);
    struct epoll_event events[EVENTS_MAX];
    (void)signal(SIGTERM, SIG_DFL);
    callee->records = mmap(NULL, RECORDS_MAX * sizeof(struct record), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    BENCH_CHECK(callee->records != MAP_FAILED, "mmap: %s", strerror(errno));
    listen_at(callee, (uint16_t)bench_number(argc, argv, "port", 0));
    for (;;) {
        int n = epoll_wait(callee->epoll, events, EVENTS_MAX, -1);
        BENCH_CHECK(n >= 0 || errno == EINTR, "epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else
                accept_all(callee);
        }
    }
}
