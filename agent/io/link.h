/* A kept TCP connection to a peer, only to learn at once when its process is gone (kernel closes it) and
 * whether connecting again is refused. Nothing is sent. Loop thread only. */
#ifndef CARILLON_IO_LINK_H
#define CARILLON_IO_LINK_H

#include <stdint.h>

struct loop;
struct link;

enum link_event {
    LINK_UP,      /* connected (again) */
    LINK_REFUSED, /* closed or never open, and connecting was refused: no process listens there */
    LINK_LOST, /* cannot be reached for another reason (timeout, unreachable): says nothing about the process */
    LINK_EVENT_COUNT_
};

/* Keep a connection to ADDRESS ("host:port"; numeric or name resolved off the loop). On close it reconnects
 * at once, later with back-off up to RETRY_MS. FN runs on the loop, never before link_new() returned. */
struct link *link_new(struct loop *loop, const char *address, int64_t retry_ms,
                      void (*fn)(void *arg, enum link_event ev), void *arg);
void link_free(struct link *l);

/* One look at ADDRESS without keeping it: FN once, with UP, REFUSED or LOST (also after TIMEOUT_MS). */
void link_probe(struct loop *loop, const char *address, int64_t timeout_ms,
                void (*fn)(void *arg, enum link_event ev), void *arg);

#endif
