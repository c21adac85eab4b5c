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

/* Keep a connection to ADDRESS ("host:port"; a name is resolved off the loop, and all its addresses are
 * tried). On close it reconnects at once, later with back-off from milliseconds up to RETRY_MS. FN gets UP
 * after every (re)connect, REFUSED and LOST when they are news; on the loop, never before link_new()
 * returned; it may free L. An ADDRESS that is none is LOST. */
struct link *link_new(struct loop *loop, const char *address, int64_t retry_ms,
                      void (*fn)(void *arg, enum link_event ev), void *arg);
/* FN will not run any more. */
void link_free(struct link *l);

/* One look at ADDRESS without keeping it: FN once, with UP, REFUSED or LOST (also after TIMEOUT_MS), never
 * before return. The loop must run until then. */
void link_probe(struct loop *loop, const char *address, int64_t timeout_ms,
                void (*fn)(void *arg, enum link_event ev), void *arg);

#endif
