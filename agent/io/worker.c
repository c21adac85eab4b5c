#include "agent/io/worker.h"

#include "agent/base/err.h"
#include "agent/base/mem.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

/* DONEs a message runs before it lets the loop turn. */
enum { DONE_PER_MESSAGE = 256 };

struct worker_pool {
    struct loop *loop;
    void *(*context_new)(void *arg);
    void (*context_free)(void *context);
    void *arg;
    pthread_t *threads;
    unsigned threads_count;
    bool freed; /* loop thread: only the memory is left, for the message under way */

    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t wake;
    struct list waiting;
    struct list done;
    size_t waiting_count;
    bool closing;
    bool msg_posted;
    struct loop_msg msg;
};

static struct work *work_of(struct list *link)
{
    return container_of(link, struct work, link);
}

/* Called with the lock held. */
static struct work *next_work(struct worker_pool *p)
{
    while (list_empty(&p->waiting) && !p->closing)
        pthread_cond_wait(&p->wake, &p->lock);
    if (p->closing)
        return NULL;
    p->waiting_count--;
    return work_of(list_pop_front(&p->waiting));
}

static void *thread_main(void *arg)
{
    struct worker_pool *p = arg;
    void *context = p->context_new ? p->context_new(p->arg) : NULL;
    struct work *w;
    pthread_mutex_lock(&p->lock);
    while ((w = next_work(p))) {
        pthread_mutex_unlock(&p->lock);
        w->run(w, context);
        pthread_mutex_lock(&p->lock);
        list_push_back(&p->done, &w->link);
        bool post = !p->msg_posted;
        p->msg_posted = true;
        if (post)
            loop_post(p->loop, &p->msg);
    }
    pthread_mutex_unlock(&p->lock);
    if (p->context_free)
        p->context_free(context);
    return NULL;
}

static struct work *take_done(struct worker_pool *p)
{
    pthread_mutex_lock(&p->lock);
    struct list *link = list_pop_front(&p->done);
    pthread_mutex_unlock(&p->lock);
    return link ? work_of(link) : NULL;
}

static void pool_destroy(struct worker_pool *p)
{
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->threads);
    mem_free(p);
}

static void on_message(struct loop_msg *msg)
{
    struct worker_pool *p = container_of(msg, struct worker_pool, msg);
    if (p->freed) {
        pool_destroy(p);
        return;
    }
    struct work *w;
    for (unsigned n = 0; n < DONE_PER_MESSAGE && (w = take_done(p)); n++)
        w->done(w, false);
    pthread_mutex_lock(&p->lock);
    p->msg_posted = !list_empty(&p->done);
    bool again = p->msg_posted;
    pthread_mutex_unlock(&p->lock);
    if (again)
        loop_post(p->loop, &p->msg);
}

/* Signals are for the loop: a worker that got one would only see its system call interrupted. */
static int thread_start(struct worker_pool *p, const char *name)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = fault_hit() ? EAGAIN : pthread_create(&p->threads[p->threads_count], NULL, thread_main, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        return r;
    char short_name[16]; /* the kernel's limit */
    snprintf(short_name, sizeof short_name, "%s", name);
    pthread_setname_np(p->threads[p->threads_count++], short_name);
    return 0;
}

static void threads_join(struct worker_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads_count; i++)
        pthread_join(p->threads[i], NULL);
}

int worker_pool_new(struct loop *loop, const char *name, unsigned threads, void *(*context_new)(void *arg),
                    void (*context_free)(void *context), void *arg, struct worker_pool **ret, struct err *e)
{
    assert(threads > 0);
    struct worker_pool *p = mem_new(struct worker_pool);
    *p = (struct worker_pool){.loop = loop,
                              .context_new = context_new,
                              .context_free = context_free,
                              .arg = arg,
                              .msg.run = on_message};
    p->threads = mem_new_array(pthread_t, threads);
    list_init(&p->waiting);
    list_init(&p->done);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (unsigned i = 0; i < threads; i++) {
        int r = thread_start(p, name);
        if (r == 0)
            continue;
        threads_join(p);
        pool_destroy(p);
        return err_sys(e, r, "start thread '%s'", name);
    }
    *ret = p;
    return 0;
}

void worker_pool_free(struct worker_pool *pool)
{
    if (!pool)
        return;
    threads_join(pool);
    struct work *w;
    while ((w = take_done(pool)))
        w->done(w, false);
    struct list *link;
    while ((link = list_pop_front(&pool->waiting)))
        work_of(link)->done(work_of(link), true);
    pool->freed = true;
    if (!pool->msg_posted)
        pool_destroy(pool);
}

void worker_submit(struct worker_pool *pool, struct work *w)
{
    pthread_mutex_lock(&pool->lock);
    assert(!pool->closing);
    list_push_back(&pool->waiting, &w->link);
    pool->waiting_count++;
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

size_t worker_queue_length(const struct worker_pool *pool)
{
    struct worker_pool *p = (struct worker_pool *)pool; /* only locks it */
    pthread_mutex_lock(&p->lock);
    size_t n = p->waiting_count;
    pthread_mutex_unlock(&p->lock);
    return n;
}
