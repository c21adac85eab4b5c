#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/list.h"
#include "agent/base/mem.h"
#include "agent/io/loop.h"

TestSuite(loop, .timeout = 600);

static struct loop *loop;

static void open_loop(void)
{
    struct err e;
    cr_assert(zero(int, loop_new(&loop, &e)), "%s", e.text);
}

struct note {
    struct loop_msg msg;
    int id;
    int *log;
    int *count;
    int stop_at;
};

static void note_run(struct loop_msg *msg)
{
    struct note *n = container_of(msg, struct note, msg);
    n->log[(*n->count)++] = n->id;
    if (*n->count == n->stop_at)
        loop_stop(loop);
}

static unsigned turns;
static void count_turn(void *arg)
{
    (void)arg;
    turns++;
}

Test(loop, posted_messages_run_in_order_of_posting)
{
    struct note notes[100];
    int log[100], count = 0;
    open_loop();
    for (int i = 0; i < 100; i++) {
        notes[i] = (struct note){.msg.run = note_run, .id = i, .log = log, .count = &count, .stop_at = 100};
        loop_post(loop, &notes[i].msg);
    }
    loop_run(loop);
    for (int i = 0; i < 100; i++)
        cr_assert(eq(int, log[i], i));
    loop_free(loop);
}

static int flood_seen, flood_in_turn, flood_worst, flood_seen_at_fd;
static void flood_run(struct loop_msg *msg)
{
    (void)msg;
    flood_seen++;
    flood_in_turn++;
}
static void flood_turn(void *arg)
{
    flood_worst = flood_in_turn > flood_worst ? flood_in_turn : flood_worst;
    flood_in_turn = 0;
    if (flood_seen == *(int *)arg)
        loop_stop(loop);
}
static void flood_fd(void *arg, int events)
{
    (void)events;
    flood_seen_at_fd = flood_seen;
    loop_fd_set(*(struct loop_fd **)arg, 0);
}

Test(loop, a_flood_of_messages_does_not_starve_fds)
{
    int total = 5 * LOOP_POSTED_PER_TURN + 7, efd = eventfd(0, EFD_NONBLOCK);
    struct loop_msg *msgs = mem_new_array(struct loop_msg, (size_t)total);
    struct loop_fd *f;
    open_loop();
    f = loop_fd_new(loop, efd, flood_fd, &f);
    for (int i = 0; i < total; i++) {
        msgs[i].run = flood_run;
        loop_post(loop, &msgs[i]);
    }
    loop_fd_set(f, LOOP_READ);
    eventfd_write(efd, 1);
    loop_set_turn_hook(loop, flood_turn, &total);
    loop_run(loop);
    cr_assert(eq(int, flood_worst, LOOP_POSTED_PER_TURN));
    cr_assert(le(int, flood_seen_at_fd, LOOP_POSTED_PER_TURN));
    loop_fd_free(f);
    loop_free(loop);
    close(efd);
    mem_free(msgs);
}

enum { DEFERRALS = 20 };
static unsigned deferred_turns[DEFERRALS];
static int deferred_count;
static void defer_again(struct loop_msg *msg)
{
    deferred_turns[deferred_count++] = turns;
    if (deferred_count < DEFERRALS)
        loop_defer(loop, msg);
    else
        loop_stop(loop);
}
static void defer_first(struct loop_msg *msg)
{
    (void)msg;
    static struct loop_msg deferred = {.run = defer_again};
    loop_defer(loop, &deferred);
    cr_assert(zero(int, deferred_count));
}

Test(loop, deferred_work_runs_in_this_turn_and_what_it_defers_in_the_next)
{
    struct loop_msg first = {.run = defer_first};
    open_loop();
    loop_set_turn_hook(loop, count_turn, NULL);
    loop_post(loop, &first);
    uint64_t began_ms = clock_boot_ms();
    loop_run(loop);
    cr_assert(eq(u32, deferred_turns[1], deferred_turns[0] + 1));
    cr_assert(eq(u32, deferred_turns[2], deferred_turns[0] + 2));
    cr_assert(lt(u64, clock_boot_ms() - began_ms, 15000), "deferred work must not wait for an event");
    loop_free(loop);
}

Test(loop, what_is_posted_or_deferred_runs_before_the_loop_is_freed)
{
    int log[2], count = 0;
    struct note posted = {.msg.run = note_run, .id = 1, .log = log, .count = &count};
    struct note deferred = {.msg.run = note_run, .id = 2, .log = log, .count = &count};
    open_loop();
    loop_post(loop, &posted.msg);
    loop_defer(loop, &deferred.msg);
    loop_free(loop);
    cr_assert(eq(int, count, 2));
}

/* ---- timers -------------------------------------------------------------------------------------------------------- */

static int fired[8], fired_count;
static struct loop_timer *timers[8];
static void fire(void *arg)
{
    fired[fired_count++] = (int)(intptr_t)arg;
}
static void fire_and_stop(void *arg)
{
    fire(arg);
    loop_stop(loop);
}

Test(loop, timers_fire_in_order_of_their_due_times_and_not_early)
{
    open_loop();
    int64_t began_ms = (int64_t)clock_boot_ms();
    timers[0] = loop_timer_new(loop, fire_and_stop, (void *)0);
    timers[1] = loop_timer_new(loop, fire, (void *)1);
    timers[2] = loop_timer_new(loop, fire, (void *)2);
    loop_timer_arm(timers[0], 30);
    loop_timer_arm(timers[1], 500000);
    loop_timer_arm(timers[2], 10);
    loop_timer_arm(timers[1], 20); /* moves it */
    loop_run(loop);
    cr_assert(eq(int, fired_count, 3));
    cr_assert(eq(int, fired[0], 2));
    cr_assert(eq(int, fired[1], 1));
    cr_assert(eq(int, fired[2], 0));
    cr_assert(ge(i64, (int64_t)clock_boot_ms() - began_ms, 30));
    cr_assert(not(loop_timer_armed(timers[0])));
    for (int i = 0; i < 3; i++)
        loop_timer_free(timers[i]);
    loop_free(loop);
}

static void stop_others(void *arg)
{
    fire(arg);
    loop_timer_stop(timers[1]);
    loop_timer_free(timers[2]);
    loop_timer_free(timers[0]);
}

Test(loop, a_timer_may_stop_and_free_others_that_are_due_and_itself)
{
    open_loop();
    timers[0] = loop_timer_new(loop, stop_others, (void *)0);
    timers[1] = loop_timer_new(loop, fire, (void *)1);
    timers[2] = loop_timer_new(loop, fire, (void *)2);
    timers[3] = loop_timer_new(loop, fire_and_stop, (void *)3);
    for (int i = 0; i < 4; i++)
        loop_timer_arm(timers[i], 0);
    loop_run(loop);
    cr_assert(eq(int, fired_count, 2));
    cr_assert(eq(int, fired[1], 3));
    loop_timer_free(timers[1]);
    loop_timer_free(timers[3]);
    loop_free(loop);
}

static unsigned rearm_turns[3];
static void rearm(void *arg)
{
    struct loop_timer **t = arg;
    rearm_turns[fired_count++] = turns;
    if (fired_count < 3)
        loop_timer_arm(*t, 0);
    else
        loop_stop(loop);
}

Test(loop, a_timer_armed_in_its_own_callback_fires_once_a_turn)
{
    struct loop_timer *t;
    open_loop();
    loop_set_turn_hook(loop, count_turn, NULL);
    t = loop_timer_new(loop, rearm, &t);
    loop_timer_arm(t, -5);
    loop_run(loop);
    cr_assert(eq(u32, rearm_turns[1], rearm_turns[0] + 1));
    cr_assert(eq(u32, rearm_turns[2], rearm_turns[0] + 2));
    loop_timer_free(t);
    loop_free(loop);
}

static int64_t time_in_timer, time_in_hook;
static void busy_timer(void *arg)
{
    (void)arg;
    time_in_timer = loop_now_ms(loop);
    for (uint64_t until_ms = clock_boot_ms() + 5; clock_boot_ms() < until_ms;)
        ;
    loop_stop(loop);
}
static void time_hook(void *arg)
{
    (void)arg;
    time_in_hook = loop_now_ms(loop);
}
static uint64_t observed_us;
static void observe(void *arg, uint64_t turn_us)
{
    (void)arg;
    observed_us = turn_us;
}

/* The work observed of a turn that waited 100 ms and worked for 5. */
static uint64_t observe_a_turn(struct loop_timer *t)
{
    loop_timer_arm(t, 100);
    loop_run(loop);
    cr_assert(eq(i64, time_in_timer, time_in_hook));
    cr_assert(eq(i64, loop_last_turn_ms(loop), time_in_timer));
    cr_assert(ge(u64, observed_us, 4000));
    return observed_us;
}

Test(loop, time_stands_still_within_a_turn_whose_work_is_observed_without_its_wait)
{
    open_loop();
    struct loop_timer *t = loop_timer_new(loop, busy_timer, NULL);
    loop_set_turn_hook(loop, time_hook, NULL);
    loop_set_turn_observer(loop, observe, NULL);
    uint64_t least_us = observe_a_turn(t);
    for (int i = 0; i < 100 && least_us >= 90000; i++) /* while others had the processor */
        least_us = observe_a_turn(t);
    cr_assert(lt(u64, least_us, 90000), "the wait of 100 ms counted: %lu us", least_us);
    loop_timer_free(t);
    loop_free(loop);
}

static void third_turn(void *arg)
{
    (void)arg;
    if (++turns == 3)
        loop_stop(loop);
}

Test(loop, an_idle_loop_turns_once_a_second)
{
    open_loop();
    loop_set_turn_hook(loop, third_turn, NULL);
    uint64_t began_ms = clock_boot_ms();
    loop_run(loop);
    uint64_t took_ms = clock_boot_ms() - began_ms;
    cr_assert(ge(u64, took_ms, 1900));
    cr_assert(lt(u64, took_ms, 60000));
    loop_free(loop);
}

/* ---- fds and signals ------------------------------------------------------------------------------------------------ */

static int fd_events[4], fd_count;
static struct loop_fd *watched;
static void on_fd(void *arg, int events)
{
    fd_events[fd_count++] = events;
    loop_fd_free(watched);
    close(*(int *)arg);
    loop_stop(loop);
}

Test(loop, an_fd_may_be_freed_and_closed_in_its_callback_and_its_number_used_again)
{
    int pair[2];
    open_loop();
    for (int round = 0; round < 3; round++) {
        cr_assert(zero(int, socketpair(AF_UNIX, SOCK_STREAM, 0, pair)));
        watched = loop_fd_new(loop, pair[0], on_fd, &pair[0]);
        loop_fd_set(watched, LOOP_READ);
        cr_assert(eq(int, (int)write(pair[1], "x", 1), 1));
        loop_run(loop);
        cr_assert(eq(int, fd_events[round], LOOP_READ));
        close(pair[1]);
    }
    loop_free(loop);
}

static void on_many(void *arg, int events)
{
    (void)arg;
    fd_events[fd_count++] = events;
    if (fd_count == 2)
        loop_stop(loop);
}

Test(loop, a_socket_in_error_is_reported_until_it_is_let_go)
{
    int pair[2];
    open_loop();
    cr_assert(zero(int, socketpair(AF_UNIX, SOCK_STREAM, 0, pair)));
    cr_assert(eq(int, (int)write(pair[0], "x", 1), 1)); /* unread data makes the close a reset */
    close(pair[1]);
    watched = loop_fd_new(loop, pair[0], on_many, NULL);
    loop_fd_set(watched, LOOP_READ);
    loop_run(loop);
    cr_assert(eq(int, fd_count, 2));
    cr_assert(fd_events[0] & LOOP_READ);
    loop_fd_free(watched);
    close(pair[0]);
    loop_free(loop);
}

static int got_signal;
static void on_signal(void *arg, int signum)
{
    (void)arg;
    got_signal = signum;
    loop_stop(loop);
}

Test(loop, a_signal_reaches_the_loop)
{
    struct err e;
    open_loop();
    cr_assert(zero(int, loop_signal(loop, SIGUSR1, on_signal, NULL, &e)));
    raise(SIGUSR1);
    loop_run(loop);
    cr_assert(eq(int, got_signal, SIGUSR1));
    loop_free(loop);
}

/* ---- threads --------------------------------------------------------------------------------------------------------- */

enum { THREADS = 4, POSTS = 20000 };
struct poster {
    struct loop_msg msgs[POSTS];
    int next; /* index the loop must see next */
};
static struct poster posters[THREADS];
static int posted_total;
static void on_post(struct loop_msg *msg)
{
    for (int t = 0; t < THREADS; t++)
        if (msg >= posters[t].msgs && msg < posters[t].msgs + POSTS)
            cr_assert(eq(int, (int)(msg - posters[t].msgs), posters[t].next++));
    if (++posted_total == THREADS * POSTS)
        loop_stop(loop);
}
static void *post_all(void *arg)
{
    struct poster *p = arg;
    for (int i = 0; i < POSTS; i++) {
        p->msgs[i].run = on_post;
        loop_post(loop, &p->msgs[i]);
    }
    return NULL;
}

Test(loop, posts_of_many_threads_all_arrive_each_thread_in_order)
{
    pthread_t threads[THREADS];
    open_loop();
    for (int t = 0; t < THREADS; t++)
        pthread_create(&threads[t], NULL, post_all, &posters[t]);
    loop_run(loop);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    cr_assert(eq(int, posted_total, THREADS *POSTS));
    loop_free(loop);
}

/* ---- faults ---------------------------------------------------------------------------------------------------------- */

static int make_all(struct err *e)
{
    int r = loop_new(&loop, e);
    if (r < 0)
        return r;
    r = loop_signal(loop, SIGUSR2, on_signal, NULL, e);
    loop_free(loop);
    return r;
}

Test(loop, every_failure_while_it_is_made_is_reported)
{
    struct err e;
    for (unsigned k = 0;; k++) {
        loop = NULL;
        fault_arm(k);
        int r = make_all(&e);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(gt(u32, k, 3));
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
        cr_assert(eq(int, -r, (int)e.code), "k=%u", k);
    }
}
