#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/worker.h"

TestSuite(worker, .timeout = 600);

static struct loop *loop;
static struct worker_pool *pool;
static struct err e;

struct task {
    struct work work;
    int id;
    int runs, dones, cancels;
    void *context;
    pthread_t thread;
};

static int run_order[64], done_total, expected;
static atomic_int run_total;

static void task_run(struct work *w, void *context)
{
    struct task *t = container_of(w, struct task, work);
    t->runs++;
    t->context = context;
    t->thread = pthread_self();
    run_order[atomic_fetch_add(&run_total, 1)] = t->id;
}
static void task_done(struct work *w, bool cancelled)
{
    struct task *t = container_of(w, struct task, work);
    t->dones++;
    t->cancels += cancelled;
    if (++done_total == expected)
        loop_stop(loop);
}
static void open_pool(unsigned threads, void *(*context_new)(void *), void (*context_free)(void *), void *arg)
{
    cr_assert(zero(int, loop_new(&loop, &e)), "%s", e.text);
    cr_assert(zero(int, worker_pool_new(loop, "a-rather-long-name", threads, context_new, context_free, arg,
                                        &pool, &e)),
              "%s", e.text);
}
static void close_pool(void)
{
    worker_pool_free(pool);
    loop_free(loop);
}

Test(worker, one_thread_runs_work_in_order_and_each_is_done_once)
{
    struct task tasks[50] = {0};
    open_pool(1, NULL, NULL, NULL);
    expected = 50;
    for (int i = 0; i < 50; i++) {
        tasks[i] = (struct task){.work = {.run = task_run, .done = task_done}, .id = i};
        worker_submit(pool, &tasks[i].work);
    }
    cr_assert(zero(int, done_total), "never before submit returned");
    loop_run(loop);
    for (int i = 0; i < 50; i++) {
        cr_assert(eq(int, run_order[i], i));
        cr_assert(eq(int, tasks[i].runs, 1));
        cr_assert(eq(int, tasks[i].dones, 1));
        cr_assert(zero(int, tasks[i].cancels));
        cr_assert(not(pthread_equal(tasks[i].thread, pthread_self())));
    }
    cr_assert(zero(sz, worker_queue_length(pool)));
    close_pool();
}

static atomic_int contexts_made, contexts_freed;
static void *make_context(void *arg)
{
    atomic_fetch_add(&contexts_made, 1);
    int *context = mem_new(int);
    *context = *(int *)arg;
    return context;
}
static void free_context(void *context)
{
    atomic_fetch_add(&contexts_freed, 1);
    mem_free(context);
}

Test(worker, each_thread_has_its_context_for_as_long_as_it_lives)
{
    int seed = 7;
    struct task t = {.work = {.run = task_run, .done = task_done}};
    open_pool(3, make_context, free_context, &seed);
    expected = 1;
    worker_submit(pool, &t.work);
    loop_run(loop);
    cr_assert(ne(ptr, t.context, NULL));
    close_pool();
    cr_assert(eq(int, contexts_made, 3));
    cr_assert(eq(int, contexts_freed, 3));
}

static pthread_barrier_t started;
static atomic_bool release;
static void block_run(struct work *w, void *context)
{
    pthread_barrier_wait(&started);
    while (!atomic_load(&release))
        sched_yield();
    task_run(w, context);
}
static void *release_later(void *arg)
{
    (void)arg;
    while (worker_queue_length(pool) < 5)
        sched_yield();
    atomic_store(&release, true);
    return NULL;
}

Test(worker, freeing_waits_for_running_work_and_cancels_the_rest)
{
    struct task running = {.work = {.run = block_run, .done = task_done}}, waiting[5];
    pthread_t releaser;
    pthread_barrier_init(&started, NULL, 2);
    open_pool(1, NULL, NULL, NULL);
    worker_submit(pool, &running.work);
    pthread_barrier_wait(&started);
    for (int i = 0; i < 5; i++) {
        waiting[i] = (struct task){.work = {.run = task_run, .done = task_done}};
        worker_submit(pool, &waiting[i].work);
    }
    cr_assert(eq(sz, worker_queue_length(pool), 5));
    pthread_create(&releaser, NULL, release_later, NULL);
    pthread_join(releaser, NULL);
    worker_pool_free(pool);
    cr_assert(eq(int, running.runs, 1));
    cr_assert(eq(int, running.dones, 1));
    int ran = 0, cancelled = 0;
    for (int i = 0; i < 5; i++) {
        cr_assert(eq(int, waiting[i].dones, 1));
        ran += waiting[i].runs;
        cancelled += waiting[i].cancels;
    }
    cr_assert(eq(int, ran + cancelled, 5));
    loop_free(loop);
}

static int rounds;
static void again_done(struct work *w, bool cancelled)
{
    cr_assert(not(cancelled));
    if (++rounds < 1000)
        worker_submit(pool, w);
    else
        loop_stop(loop);
}
static void nothing_run(struct work *w, void *context)
{
    (void)w;
    (void)context;
}

Test(worker, done_may_submit_again)
{
    struct work w = {.run = nothing_run, .done = again_done};
    open_pool(2, NULL, NULL, NULL);
    worker_submit(pool, &w);
    loop_run(loop);
    cr_assert(eq(int, rounds, 1000));
    close_pool();
}

static bool signals_blocked;
static void mask_run(struct work *w, void *context)
{
    (void)w;
    (void)context;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    signals_blocked = sigismember(&mask, SIGTERM) == 1;
}

Test(worker, threads_take_no_signals)
{
    struct task t = {.work = {.run = mask_run, .done = task_done}};
    open_pool(1, NULL, NULL, NULL);
    expected = 1;
    worker_submit(pool, &t.work);
    loop_run(loop);
    cr_assert(signals_blocked);
    close_pool();
}

Test(worker, a_pool_that_cannot_have_all_its_threads_ends_those_it_has)
{
    int seed = 1;
    cr_assert(zero(int, loop_new(&loop, &e)));
    for (unsigned k = 0;; k++) {
        pool = NULL;
        fault_arm(k);
        int r = worker_pool_new(loop, "w", 3, make_context, free_context, &seed, &pool, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(eq(u32, k, 3));
            break;
        }
        cr_assert(eq(int, r, -(int)ERR_IO), "k=%u", k);
        cr_assert(zero(ptr, pool), "k=%u", k);
        cr_assert(eq(int, contexts_made, contexts_freed), "k=%u", k);
    }
    close_pool();
}
