/* Work that goes round and round between loop and workers, and a pool that is freed while it does. Run under
 * ThreadSanitizer by `make check-tsan`. */
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/worker.h"

#include <stdio.h>

enum { WORKS = 64, ROUNDS = 20000, THREADS = 4 };

struct task {
    struct work work;
    unsigned runs; /* written by workers, read by the loop: the queues must order the two */
};

static struct loop *loop;
static struct worker_pool *pool;
static struct task tasks[WORKS];
static unsigned dones, cancels;
static bool closing;

static void run(struct work *w, void *context)
{
    container_of(w, struct task, work)->runs++;
    ++*(unsigned *)context;
}

static void done(struct work *w, bool cancelled)
{
    dones++;
    cancels += cancelled;
    if (closing)
        return;
    worker_submit(pool, w);
    (void)worker_queue_length(pool);
    if (dones == ROUNDS)
        loop_stop(loop);
}

static void *context_new(void *arg)
{
    (void)arg;
    return mem_new(unsigned);
}

int main(void)
{
    struct err e;
    if (loop_new(&loop, &e) < 0 ||
        worker_pool_new(loop, "race", THREADS, context_new, mem_free, NULL, &pool, &e) < 0)
        return 1;
    for (int i = 0; i < WORKS; i++) {
        tasks[i].work = (struct work){.run = run, .done = done};
        worker_submit(pool, &tasks[i].work);
    }
    loop_run(loop);
    closing = true;
    worker_pool_free(pool);
    loop_free(loop);
    unsigned runs = 0;
    for (int i = 0; i < WORKS; i++)
        runs += tasks[i].runs;
    printf("%u runs, %u done, %u cancelled\n", runs, dones, cancels);
    return runs + cancels == dones && dones >= ROUNDS + WORKS ? 0 : 1;
}
