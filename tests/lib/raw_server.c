#include "tests/lib/raw_server.h"

#include <assert.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 1024, REQUEST_MAX = 1 << 20 };

struct connection {
    struct raw_server *server;
    pthread_t thread;
    int fd;
    unsigned number;
};

struct raw_server {
    int fd;
    unsigned port;
    raw_handler *handler;
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t came;
    struct connection connections[CONNECTIONS_MAX];
    unsigned count, requests;
    bool stopping;
};

void raw_write(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the client went away: what it makes of that is the test's matter */
        text += n;
        len -= (size_t)n;
    }
}

bool raw_header(const char *text, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);
    for (const char *line = strstr(text, "\r\n"); line && strncmp(line, "\r\n\r\n", 4) != 0;
         line = strstr(line + 2, "\r\n")) {
        const char *at = line + 2;
        if (strncasecmp(at, name, len) != 0 || at[len] != ':')
            continue;
        at += len + 1 + strspn(at + len + 1, " ");
        (void)snprintf(out, size, "%.*s", (int)strcspn(at, "\r"), at);
        return true;
    }
    return false;
}

/* Bytes of the whole request at the beginning of TEXT, 0: not complete. */
static size_t whole_request(const char *text, size_t len, size_t *ret_head)
{
    char length[32];
    const char *end = memmem(text, len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    *ret_head = (size_t)(end + 4 - text);
    size_t body = raw_header(text, "Content-Length", length, sizeof(length)) ? strtoul(length, NULL, 10) : 0;
    return len >= *ret_head + body ? *ret_head + body : 0;
}

static bool serve(struct connection *c, char *text, size_t *len, unsigned number)
{
    size_t head = 0, size;
    while (!(size = whole_request(text, *len, &head))) {
        ssize_t n = recv(c->fd, text + *len, REQUEST_MAX - *len, 0);
        if (n <= 0)
            return false;
        *len += (size_t)n;
        text[*len] = '\0';
    }
    pthread_mutex_lock(&c->server->lock);
    c->server->requests++;
    pthread_cond_broadcast(&c->server->came);
    pthread_mutex_unlock(&c->server->lock);
    char kept = text[size];
    text[size] = '\0';
    struct raw_request rq = {.arg = c->server->arg,
                             .fd = c->fd,
                             .connection = c->number,
                             .request = number,
                             .text = text,
                             .head_bytes = head,
                             .body_bytes = size - head};
    bool more = c->server->handler(&rq);
    text[size] = kept;
    memmove(text, text + size, *len - size + 1);
    *len -= size;
    return more;
}

static void *run_connection(void *arg)
{
    struct connection *c = arg;
    char *text = calloc(1, REQUEST_MAX + 1);
    size_t len = 0;
    for (unsigned i = 0; text && serve(c, text, &len, i); i++)
        ;
    (void)shutdown(c->fd, SHUT_RDWR); /* closed by the stop, so that its number is not used again */
    free(text);
    return NULL;
}

static void *run_server(void *arg)
{
    struct raw_server *s = arg;
    for (;;) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
        pthread_mutex_lock(&s->lock);
        bool stop = fd < 0 || s->stopping || s->count == CONNECTIONS_MAX;
        struct connection *c = &s->connections[s->count];
        if (!stop) {
            *c = (struct connection){.server = s, .fd = fd, .number = s->count};
            stop = pthread_create(&c->thread, NULL, run_connection, c) != 0;
            s->count += !stop;
        }
        pthread_mutex_unlock(&s->lock);
        if (stop) {
            if (fd >= 0)
                close(fd);
            return NULL;
        }
    }
}

static int listen_on(bool v6, unsigned *ret_port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *address = v6 ? (struct sockaddr *)&six : (struct sockaddr *)&four;
    socklen_t size = v6 ? sizeof(six) : sizeof(four);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, address, size) < 0 || listen(fd, 128) < 0 || getsockname(fd, address, &size) < 0)
        abort();
    *ret_port = ntohs(v6 ? six.sin6_port : four.sin_port);
    return fd;
}

struct raw_server *raw_server_start(bool v6, raw_handler *handler, void *arg)
{
    struct raw_server *s = calloc(1, sizeof(*s));
    assert(s);
    s->handler = handler;
    s->arg = arg;
    s->fd = listen_on(v6, &s->port);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->came, NULL);
    if (pthread_create(&s->thread, NULL, run_server, s) != 0)
        abort();
    return s;
}

unsigned raw_server_port(const struct raw_server *s)
{
    return s->port;
}

void raw_server_stop(struct raw_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    (void)shutdown(s->fd, SHUT_RDWR); /* ends accept() */
    for (unsigned i = 0; i < s->count; i++)
        (void)shutdown(s->connections[i].fd, SHUT_RDWR); /* ends recv() */
    pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->thread, NULL);
    for (unsigned i = 0; i < s->count; i++) {
        (void)pthread_join(s->connections[i].thread, NULL);
        close(s->connections[i].fd);
    }
    close(s->fd);
    pthread_cond_destroy(&s->came);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static unsigned read_counter(struct raw_server *s, const unsigned *counter)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = *counter;
    pthread_mutex_unlock(&s->lock);
    return n;
}

unsigned raw_server_connections(struct raw_server *s)
{
    return read_counter(s, &s->count);
}

unsigned raw_server_requests(struct raw_server *s)
{
    return read_counter(s, &s->requests);
}

void raw_server_wait(struct raw_server *s, unsigned requests)
{
    pthread_mutex_lock(&s->lock);
    while (s->requests < requests)
        pthread_cond_wait(&s->came, &s->lock);
    pthread_mutex_unlock(&s->lock);
}
