/* The load generator: requests over kept connections, one at a time on each, and how long each took.
 *
 *   load --port P --connections C --requests N --method PUT --path /v1/jobs/a-{n} --body '{"n":{n}}' [--first F]
 *
 * {n} is the request's number. One thread, epoll and http_parser. Prints one line of JSON; any answer other than 2xx is counted under
 * "failed", and the first of them printed. */
#include <arpa/inet.h>
#include <errno.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "tests/bench/bench.h"

#define EVENTS_MAX    256
#define IN_BYTES      65536
#define REQUEST_BYTES 8192
#define EXCERPT_BYTES 300

struct load {
    const char *method, *path, *body;
    uint16_t port;
    uint64_t next, end; /* numbers of requests not yet sent */
    uint64_t answered, failed;
    int epoll;
    struct bench_samples us;
    char excerpt[EXCERPT_BYTES];
    size_t excerpt_len;
};

struct connection {
    struct load *load;
    int fd;
    http_parser parser;
    uint64_t sent_us;
    bool answered;
};

/* TEMPLATE with each {n} as N. */
static size_t expand(char *to, size_t room, const char *template, uint64_t n)
{
    size_t len = 0;
    while (*template) {
        if (strncmp(template, "{n}", 3) == 0) {
            len += (size_t)snprintf(to + len, room - len, "%llu", (unsigned long long)n);
            template += 3;
        } else {
            to[len++] = *template ++;
        }
        BENCH_CHECK(len + 1 < room, "the request is longer than %zu bytes", room);
    }
    to[len] = '\0';
    return len;
}

static void send_next(struct connection *c)
{
    struct load *l = c->load;
    char path[512], body[REQUEST_BYTES / 2], text[REQUEST_BYTES];
    (void)expand(path, sizeof(path), l->path, l->next);
    size_t body_len = expand(body, sizeof(body), l->body, l->next);
    l->next++;
    int len = snprintf(text, sizeof(text),
                       "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       l->method, path, l->port, body_len, body);
    BENCH_CHECK(len > 0 && (size_t)len < sizeof(text), "the request is too long");
    c->sent_us = clock_mono_ns() / 1000;
    c->answered = false;
    ssize_t n = send(c->fd, text, (size_t)len, MSG_NOSIGNAL);
    BENCH_CHECK(n == len, "send: %s", n < 0 ? strerror(errno) : "the socket's buffer is full");
}

static int on_body(http_parser *p, const char *data, size_t bytes)
{
    struct load *l = ((struct connection *)p->data)->load;
    size_t room = sizeof(l->excerpt) - 1 - l->excerpt_len, n = bytes < room ? bytes : room;
    if (p->status_code / 100 == 2 || l->failed > 0)
        return 0;
    memcpy(l->excerpt + l->excerpt_len, data, n);
    l->excerpt_len += n;
    return 0;
}

static int on_complete(http_parser *p)
{
    struct connection *c = p->data;
    struct load *l = c->load;
    bench_samples_add(&l->us, (int64_t)(clock_mono_ns() / 1000 - c->sent_us));
    l->answered++;
    l->failed += p->status_code / 100 != 2;
    c->answered = true;
    return 0;
}

static const http_parser_settings settings = {.on_body = on_body, .on_message_complete = on_complete};

static void read_answer(struct connection *c)
{
    static char in[IN_BYTES];
    ssize_t n = recv(c->fd, in, sizeof(in), 0);
    BENCH_CHECK(n > 0, "connection lost after %llu answers: %s", (unsigned long long)c->load->answered,
                n < 0 ? strerror(errno) : "closed");
    size_t parsed = http_parser_execute(&c->parser, &settings, in, (size_t)n);
    BENCH_CHECK(parsed == (size_t)n, "no HTTP: %s", http_errno_description(HTTP_PARSER_ERRNO(&c->parser)));
    if (c->answered && c->load->next < c->load->end)
        send_next(c);
}

static void connect_one(struct load *l)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(l->port)};
    struct connection *c = mem_new(struct connection);
    int on = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->load = l;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    BENCH_CHECK(c->fd >= 0 && connect(c->fd, (struct sockaddr *)&to, sizeof(to)) == 0, "connect: %s",
                strerror(errno));
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* a matter of speed only */
    http_parser_init(&c->parser, HTTP_RESPONSE);
    c->parser.data = c;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    BENCH_CHECK(epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev) == 0, "epoll_ctl: %s", strerror(errno));
    send_next(c);
}

int main(int argc, char **argv)
{
    uint64_t first = (uint64_t)bench_number(argc, argv, "first", 0);
    int64_t connections = bench_number(argc, argv, "connections", 1);
    struct load l = {.method = bench_option(argc, argv, "method", "PUT"),
                     .path = bench_option(argc, argv, "path", NULL),
                     .body = bench_option(argc, argv, "body", ""),
                     .port = (uint16_t)bench_number(argc, argv, "port", 0),
                     .next = first,
                     .end = first + (uint64_t)bench_number(argc, argv, "requests", 1)};
    uint64_t total = l.end - l.next;
    struct epoll_event events[EVENTS_MAX];
    BENCH_CHECK((l.epoll = epoll_create1(EPOLL_CLOEXEC)) >= 0, "epoll: %s", strerror(errno));
    uint64_t start_ns = clock_mono_ns();
    for (int64_t i = 0; i < connections && l.next < l.end; i++)
        connect_one(&l);
    while (l.answered < total) {
        int n = epoll_wait(l.epoll, events, EVENTS_MAX, -1);
        BENCH_CHECK(n >= 0 || errno == EINTR, "epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++)
            read_answer(events[i].data.ptr);
    }
    double seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    bench_print(json_pack("{s:f,s:f,s:I,s:s#,s:o}", "seconds", seconds, "per_s", (double)total / seconds,
                          "failed", (json_int_t)l.failed, "first_failure", l.excerpt, (int)l.excerpt_len,
                          "ms", bench_samples_json(&l.us, 1000)));
    bench_samples_fini(&l.us);
    return l.failed > 0;
}
