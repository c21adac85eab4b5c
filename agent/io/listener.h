/* A listening stream socket. One thread at a time. */
#ifndef CARILLON_IO_LISTENER_H
#define CARILLON_IO_LISTENER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct err;

struct listener {
    int fd; /* non-blocking; -1: closed */
    bool is_unix;
    unsigned port;    /* 0 for a unix socket */
    char *address;    /* as it can be connected to: "127.0.0.1:34567", "[::1]:80", "unix:/path" */
    const char *path; /* of a unix socket, within ADDRESS */
    dev_t path_dev;
    ino_t path_ino;
};

/* Listen on "host:port" (port 0: any) or "unix:/path". A unix socket gets mode SOCKET_MODE, never a wider one
 * meanwhile; one that is left over is replaced when nobody listens there. ERR_INVALID: not such an address;
 * ERR_EXISTS: in use, or the path is no socket; ERR_UNAVAILABLE: the name does not resolve (this may block on
 * DNS); ERR_IO. */
int listener_open(struct listener *l, const char *listen, unsigned socket_mode, struct err *e);
/* Also removes the unix socket, if it is still this one. Closing again does nothing; the address stays
 * readable. */
void listener_close(struct listener *l);
/* Close and free the address. */
void listener_fini(struct listener *l);

#endif
