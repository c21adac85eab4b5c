#include "agent/io/loop.h"

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/list.h"
#include "agent/base/mem.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <uv.h>

/* Also what /livez relies on: a loop without work still shows that it turns. */
enum { IDLE_WAIT_MS = 1000 };

struct msg_queue {
    struct loop_msg *first;
    struct loop_msg **last;
};

struct loop {
    uv_loop_t uv;
    int wake_fd; /* not libuv's own wake-up: that one spins while who sent it has not returned from its write */
    uv_poll_t wake;
    uv_prepare_t before_poll;
    uv_timer_t next_due;
    struct list timers;     /* armed, by due_ms */
    struct msg_queue taken; /* taken from POSTED, not yet run */
    struct msg_queue deferred;
    struct list signals;
    size_t users; /* timers and fds */
    bool stop;
    bool now_known;
    int64_t now_ms;
    _Atomic int64_t last_turn_ms;
    void (*hook)(void *arg);
    void *hook_arg;
    void (*observe)(void *arg, uint64_t turn_us);
    void *observe_arg;

    pthread_mutex_t lock; /* for what follows */
    struct msg_queue posted;
    bool woken;
};

struct loop_timer {
    struct list link; /* in loop.timers, or in the list of those that are due */
    struct loop *loop;
    int64_t due_ms;
    void (*fn)(void *arg);
    void *arg;
};

struct loop_fd {
    uv_poll_t poll;
    struct loop *loop;
    int events;
    void (*fn)(void *arg, int events);
    void *arg;
};

struct loop_signal {
    uv_signal_t signal;
    struct list link;
    void (*fn)(void *arg, int signum);
    void *arg;
};

/* --- queues of messages ------------------------------------------------------------------------------------------- */

static void queue_init(struct msg_queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void queue_push(struct msg_queue *q, struct loop_msg *msg)
{
    msg->next = NULL;
    *q->last = msg;
    q->last = &msg->next;
}

static struct loop_msg *queue_pop(struct msg_queue *q)
{
    struct loop_msg *msg = q->first;
    if (!msg)
        return NULL;
    q->first = msg->next;
    if (!q->first)
        q->last = &q->first;
    return msg;
}

static void queue_splice(struct msg_queue *to, struct msg_queue *from)
{
    if (!from->first)
        return;
    *to->last = from->first;
    to->last = from->last;
    queue_init(from);
}

void loop_post(struct loop *loop, struct loop_msg *msg)
{
    pthread_mutex_lock(&loop->lock);
    queue_push(&loop->posted, msg);
    bool wake = !loop->woken;
    loop->woken = true;
    pthread_mutex_unlock(&loop->lock);
    if (wake)
        (void)eventfd_write(loop->wake_fd, 1); /* fails only for a count that nobody has read for ages */
}

void loop_defer(struct loop *loop, struct loop_msg *msg)
{
    queue_push(&loop->deferred, msg);
}

static void run_posted(struct loop *l, unsigned max)
{
    pthread_mutex_lock(&l->lock);
    queue_splice(&l->taken, &l->posted);
    l->woken = false;
    pthread_mutex_unlock(&l->lock);
    struct loop_msg *msg;
    for (unsigned n = 0; n < max && (msg = queue_pop(&l->taken)); n++)
        msg->run(msg);
}

static void run_deferred(struct loop *l)
{
    struct msg_queue now;
    queue_init(&now);
    queue_splice(&now, &l->deferred);
    struct loop_msg *msg;
    while ((msg = queue_pop(&now)))
        msg->run(msg);
}

/* --- time and timers ---------------------------------------------------------------------------------------------- */

int64_t loop_now_ms(const struct loop *loop)
{
    struct loop *l = (struct loop *)loop; /* only fills the cache */
    if (!l->now_known) {
        l->now_ms = (int64_t)clock_boot_ms();
        l->now_known = true;
    }
    return l->now_ms;
}

int64_t loop_last_turn_ms(const struct loop *loop)
{
    return atomic_load_explicit(&loop->last_turn_ms, memory_order_relaxed);
}

static struct loop_timer *timer_of(struct list *link)
{
    return container_of(link, struct loop_timer, link);
}

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_timer *t = mem_new(struct loop_timer);
    *t = (struct loop_timer){.loop = loop, .fn = fn, .arg = arg};
    list_init(&t->link);
    loop->users++;
    return t;
}

void loop_timer_arm(struct loop_timer *t, int64_t delay_ms)
{
    list_remove(&t->link);
    int64_t now_ms = loop_now_ms(t->loop);
    delay_ms = delay_ms < 0 ? 0 : delay_ms;
    t->due_ms = delay_ms > INT64_MAX - now_ms ? INT64_MAX : now_ms + delay_ms;
    struct list *at = t->loop->timers.prev;
    while (at != &t->loop->timers && timer_of(at)->due_ms > t->due_ms)
        at = at->prev;
    list_insert_after(at, &t->link);
}

void loop_timer_stop(struct loop_timer *t)
{
    list_remove(&t->link);
}

bool loop_timer_armed(const struct loop_timer *t)
{
    return list_linked(&t->link);
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t)
        return;
    list_remove(&t->link);
    t->loop->users--;
    mem_free(t);
}

/* Those that are due leave the list before any runs: one that a callback arms anew waits for the next turn,
 * and one that a callback stops or frees is taken from DUE. */
static void run_timers(struct loop *l)
{
    struct list due;
    list_init(&due);
    struct list *link;
    while ((link = list_first(&l->timers)) && timer_of(link)->due_ms <= loop_now_ms(l)) {
        list_remove(link);
        list_push_back(&due, link);
    }
    while ((link = list_pop_front(&due)))
        timer_of(link)->fn(timer_of(link)->arg);
}

/* --- turns -------------------------------------------------------------------------------------------------------- */

static void on_nothing_timer(uv_timer_t *timer)
{
    (void)timer; /* its only use is to end the wait */
}

/* What was posted is looked at in each turn. */
static void on_wake(uv_poll_t *poll, int status, int events)
{
    eventfd_t count;
    (void)status;
    (void)events;
    (void)eventfd_read(container_of(poll, struct loop, wake)->wake_fd, &count);
}

/* How long to wait is decided here and not before uv_run(), which first runs the timers of other users of
 * this uv loop: they may have deferred work or armed timers of ours. */
static void before_poll(uv_prepare_t *prepare)
{
    struct loop *l = prepare->data;
    int64_t wait_ms = IDLE_WAIT_MS;
    l->now_known = false;
    struct list *first = list_first(&l->timers);
    if (first && timer_of(first)->due_ms < loop_now_ms(l) + wait_ms)
        wait_ms = timer_of(first)->due_ms - loop_now_ms(l);
    if (l->taken.first || l->deferred.first || l->stop || wait_ms < 0)
        wait_ms = 0;
    uv_update_time(&l->uv);
    uv_timer_start(&l->next_due, on_nothing_timer, (uint64_t)wait_ms, 0);
    l->now_known = false;
}

static void turn(struct loop *l)
{
    uint64_t began_ns = clock_mono_ns(), waited_before_ns = uv_metrics_idle_time(&l->uv);
    uv_run(&l->uv, UV_RUN_ONCE);
    atomic_store_explicit(&l->last_turn_ms, loop_now_ms(l), memory_order_relaxed);
    run_timers(l);
    run_posted(l, LOOP_POSTED_PER_TURN);
    run_deferred(l);
    if (l->hook)
        l->hook(l->hook_arg);
    if (l->observe) {
        uint64_t waited_ns = uv_metrics_idle_time(&l->uv) - waited_before_ns;
        uint64_t took_ns = clock_mono_ns() - began_ns;
        l->observe(l->observe_arg, took_ns > waited_ns ? (took_ns - waited_ns) / 1000 : 0);
    }
    l->now_known = false;
}

void loop_run(struct loop *loop)
{
    do
        turn(loop);
    while (!loop->stop);
    loop->stop = false;
}

void loop_stop(struct loop *loop)
{
    loop->stop = true;
}

void loop_set_turn_hook(struct loop *loop, void (*hook)(void *arg), void *arg)
{
    loop->hook = hook;
    loop->hook_arg = arg;
}

void loop_set_turn_observer(struct loop *loop, void (*observe)(void *arg, uint64_t turn_us), void *arg)
{
    loop->observe = observe;
    loop->observe_arg = arg;
}

/* --- fds ---------------------------------------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int uv_events);

static void fd_apply(struct loop_fd *f)
{
    int uv_events = (f->events & LOOP_READ ? UV_READABLE : 0) | (f->events & LOOP_WRITE ? UV_WRITABLE : 0);
    int r = uv_events ? uv_poll_start(&f->poll, uv_events, on_poll) : uv_poll_stop(&f->poll);
    assert(r == 0);
}

static void on_poll(uv_poll_t *poll, int status, int uv_events)
{
    struct loop_fd *f = container_of(poll, struct loop_fd, poll);
    int events = (uv_events & UV_READABLE ? LOOP_READ : 0) | (uv_events & UV_WRITABLE ? LOOP_WRITE : 0);
    f->fn(f->arg, status < 0 ? LOOP_READ | LOOP_WRITE : events);
    /* libuv stops a handle whose fd shows an error; the memory stays ours until its close callback. */
    if (status < 0 && !uv_is_closing((uv_handle_t *)poll) && !uv_is_active((uv_handle_t *)poll))
        fd_apply(f);
}

struct loop_fd *loop_fd_new(struct loop *loop, int fd, void (*fn)(void *arg, int events), void *arg)
{
    struct loop_fd *f = mem_new(struct loop_fd);
    f->loop = loop;
    f->fn = fn;
    f->arg = arg;
    int r = uv_poll_init(&loop->uv, &f->poll, fd);
    assert(r == 0); /* a file, or an fd that is watched already */
    loop->users++;
    return f;
}

void loop_fd_set(struct loop_fd *f, int events)
{
    if (events == f->events)
        return;
    f->events = events;
    fd_apply(f);
}

static void on_fd_closed(uv_handle_t *handle)
{
    mem_free(container_of(handle, struct loop_fd, poll));
}

void loop_fd_free(struct loop_fd *f)
{
    if (!f)
        return;
    f->loop->users--;
    uv_close((uv_handle_t *)&f->poll, on_fd_closed);
}

/* --- signals ------------------------------------------------------------------------------------------------------ */

static void on_signal(uv_signal_t *signal, int signum)
{
    struct loop_signal *s = container_of(signal, struct loop_signal, signal);
    s->fn(s->arg, signum);
}

static void on_signal_closed(uv_handle_t *handle)
{
    mem_free(container_of(handle, struct loop_signal, signal));
}

int loop_signal(struct loop *loop, int signum, void (*fn)(void *arg, int signum), void *arg, struct err *e)
{
    struct loop_signal *s = mem_new(struct loop_signal);
    s->fn = fn;
    s->arg = arg;
    int r = fault_hit() ? UV_EIO : uv_signal_init(&loop->uv, &s->signal);
    if (r < 0) {
        mem_free(s);
        return err_sys(e, -r, "watch signal %d", signum);
    }
    r = fault_hit() ? UV_EIO : uv_signal_start(&s->signal, on_signal, signum);
    if (r < 0) {
        uv_close((uv_handle_t *)&s->signal, on_signal_closed);
        return err_sys(e, -r, "watch signal %d", signum);
    }
    list_push_back(&loop->signals, &s->link);
    return 0;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct uv_loop_s *loop_uv(struct loop *loop)
{
    return &loop->uv;
}

int loop_new(struct loop **ret, struct err *e)
{
    struct loop *l = mem_new(struct loop);
    int r = fault_hit() ? UV_EMFILE : uv_loop_init(&l->uv);
    if (r < 0) {
        mem_free(l);
        return err_sys(e, -r, "make an event loop");
    }
    l->wake_fd = fault_hit() ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->wake_fd < 0) {
        uv_loop_close(&l->uv);
        mem_free(l);
        return err_sys(e, EMFILE, "make an event loop's wake-up");
    }
    r = uv_poll_init(&l->uv, &l->wake, l->wake_fd);
    assert(r == 0); /* it can be polled, and is not yet */
    r = uv_poll_start(&l->wake, UV_READABLE, on_wake);
    assert(r == 0);
    uv_loop_configure(&l->uv, UV_METRICS_IDLE_TIME);
    uv_prepare_init(&l->uv, &l->before_poll);
    uv_timer_init(&l->uv, &l->next_due);
    uv_prepare_start(&l->before_poll, before_poll);
    l->before_poll.data = l;
    list_init(&l->timers);
    list_init(&l->signals);
    queue_init(&l->taken);
    queue_init(&l->deferred);
    queue_init(&l->posted);
    pthread_mutex_init(&l->lock, NULL);
    atomic_init(&l->last_turn_ms, (int64_t)clock_boot_ms());
    *ret = l;
    return 0;
}

static bool anything_posted(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    bool any = l->posted.first != NULL;
    pthread_mutex_unlock(&l->lock);
    return any || l->taken.first || l->deferred.first;
}

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    while (anything_posted(loop)) {
        run_posted(loop, UINT32_MAX);
        run_deferred(loop);
    }
    assert(loop->users == 0 && list_empty(&loop->timers));
    struct list *link;
    while ((link = list_pop_front(&loop->signals)))
        uv_close((uv_handle_t *)&container_of(link, struct loop_signal, link)->signal, on_signal_closed);
    uv_close((uv_handle_t *)&loop->before_poll, NULL);
    uv_close((uv_handle_t *)&loop->next_due, NULL);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int r = uv_loop_close(&loop->uv);
    assert(r == 0); /* else someone left a handle behind */
    fd_close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
    mem_free(loop);
}
