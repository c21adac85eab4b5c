/* A blocking client for tests: says exactly the bytes it is told to, and waits for exactly what it is told to. */
#ifndef CARILLON_TESTS_UNIT_IO_CLIENT_H
#define CARILLON_TESTS_UNIT_IO_CLIENT_H

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/lib/patience.h"

static inline int client_connect(unsigned port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0, "connect: %s", strerror(errno));
    return fd;
}

static inline int client_connect_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    strncpy(addr.sun_path, path, sizeof addr.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void client_send(int fd, const void *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);
        cr_assert(n > 0, "send: %s", strerror(errno));
        data = (const char *)data + n;
        bytes -= (size_t)n;
    }
}

static inline void client_say(int fd, const char *text)
{
    client_send(fd, text, strlen(text));
}

/* Next bytes; 0 at the end of the connection, also when it was reset. */
static inline size_t client_read(int fd, char *out, size_t max)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert(poll(&p, 1, PATIENCE_MS) == 1, "the server said nothing");
    ssize_t n = recv(fd, out, max, 0);
    return n > 0 ? (size_t)n : 0;
}

/* Until the other side closes; NUL-terminated. */
static inline size_t client_read_to_end(int fd, char *out, size_t max)
{
    size_t len = 0, n;
    while (len < max - 1 && (n = client_read(fd, out + len, max - 1 - len)) > 0)
        len += n;
    out[len] = '\0';
    return len;
}

/* Until WHAT has arrived; false when the connection ended before. */
static inline bool client_read_until(int fd, char *out, size_t max, const char *what)
{
    size_t len = 0, n;
    out[0] = '\0';
    while (!strstr(out, what)) {
        n = client_read(fd, out + len, 1); /* a byte at a time: what follows is for the next call */
        if (n == 0)
            return false;
        len += n;
        cr_assert(len < max - 1, "too much before '%s'", what);
        out[len] = '\0';
    }
    return true;
}

struct client_reply {
    int status;
    char head[4096];
    char body[65536];
    size_t body_bytes;
};

/* One reply with Content-Length from a kept connection (WITHOUT_BODY: to a HEAD). */
static inline bool client_reply_(int fd, struct client_reply *r, bool without_body)
{
    memset(r, 0, sizeof *r);
    if (!client_read_until(fd, r->head, sizeof r->head, "\r\n\r\n"))
        return false;
    r->status = (int)strtol(r->head + strlen("HTTP/1.1 "), NULL, 10);
    const char *length = strcasestr(r->head, "\r\nContent-Length:");
    size_t bytes = length && !without_body ? strtoul(length + strlen("\r\nContent-Length:"), NULL, 10) : 0, n;
    cr_assert(bytes < sizeof r->body);
    while (r->body_bytes < bytes) {
        n = client_read(fd, r->body + r->body_bytes, bytes - r->body_bytes);
        if (n == 0)
            return false;
        r->body_bytes += n;
    }
    return true;
}

static inline void client_reply(int fd, struct client_reply *r)
{
    cr_assert(client_reply_(fd, r, false), "the connection ended before a whole reply");
}

/* Whether the other side has closed; waits for it. */
static inline bool client_closed(int fd)
{
    char junk[4096];
    while (client_read(fd, junk, sizeof junk) > 0)
        ;
    return true;
}

#endif
