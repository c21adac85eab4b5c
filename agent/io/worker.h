/* A pool of threads for blocking calls. Each thread may own a context (a database connection). */
#ifndef CARILLON_IO_WORKER_H
#define CARILLON_IO_WORKER_H

#include "agent/base/list.h"
#include "agent/io/loop.h"

#include <stdbool.h>
#include <stddef.h>

struct err;
struct worker_pool;

/* One piece of work; embedded in what it is about. RUN: on a worker thread with that thread's context. DONE:
 * on the loop afterwards, exactly once, never before worker_submit() returned; CANCELLED when the pool was
 * freed before RUN started. Owned by the pool until DONE, which may free or submit it again. */
struct work {
    struct list link; /* the pool's */
    void (*run)(struct work *w, void *thread_context);
    void (*done)(struct work *w, bool cancelled);
};

/* THREADS (1 or more) threads named NAME (cut at 15 bytes), all signals blocked. CONTEXT_NEW(ARG) and
 * CONTEXT_FREE run on the thread itself (NULL: the context is NULL). ERR_IO: no thread to be had; those
 * already made have ended then. */
int worker_pool_new(struct loop *loop, const char *name, unsigned threads, void *(*context_new)(void *arg),
                    void (*context_free)(void *context), void *arg, struct worker_pool **ret, struct err *e);
/* Loop thread, not from a DONE. Waits for running work, cancels the rest, runs all DONEs before it returns;
 * these may not submit. */
void worker_pool_free(struct worker_pool *pool);
/* Loop thread. Started first in, first out. */
void worker_submit(struct worker_pool *pool, struct work *w);
/* Any thread. Waiting, not yet running. */
size_t worker_queue_length(const struct worker_pool *pool);

#endif
