/* An HTTP server that says exactly what a test wants on the wire, byte by byte: one thread a connection, blocking sockets, loopback
 * only. For what a correct server would never send. */
#ifndef CARILLON_TESTS_LIB_RAW_SERVER_H
#define CARILLON_TESTS_LIB_RAW_SERVER_H

#include <stdbool.h>
#include <stddef.h>

struct raw_server;

struct raw_request {
    void *arg;
    int fd;
    unsigned connection; /* from 0, in order of acceptance */
    unsigned request;    /* from 0, on this connection */
    const char *text;    /* head and body, NUL-terminated */
    size_t head_bytes;
    size_t body_bytes;
};

/* On the connection's thread, for each whole request: write to FD (raw_write). False closes the connection. */
typedef bool raw_handler(const struct raw_request *rq);

/* Listens on 127.0.0.1, or [::1] with V6, at a port of the kernel's; aborts the test when it cannot. */
struct raw_server *raw_server_start(bool v6, raw_handler *handler, void *arg);
unsigned raw_server_port(const struct raw_server *s);
/* Closes everything and waits for the threads. */
void raw_server_stop(struct raw_server *s);
/* How many connections were accepted and how many whole requests came, so far. */
unsigned raw_server_connections(struct raw_server *s);
unsigned raw_server_requests(struct raw_server *s);
/* Until so many whole requests came. */
void raw_server_wait(struct raw_server *s, unsigned requests);

void raw_write(int fd, const char *text);
/* Value of header NAME in the request's head, copied to OUT; false when absent. */
bool raw_header(const char *text, const char *name, char *out, size_t size);

#endif
