#define _GNU_SOURCE
#include "agent/base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log_format.h"
#include "agent/base/log_limit.h"
#include "agent/base/mem.h"

#define QUEUE_BYTES ((size_t)256 * 1024)
#define SWEEP_MS    1000

/* The process has one log, as it has one stderr: the only state of base that is shared between threads. */
static struct {
    atomic_uint level;
    atomic_uint format;
    atomic_ullong dropped;

    pthread_mutex_t lock; /* all below */
    pthread_cond_t wake;  /* the writer: there is work, or stop */
    pthread_cond_t idle;  /* log_stop: the writer has ended */
    pthread_t thread;
    enum { OFF, RUNNING, STOPPING } state;
    int fd;
    char *queue; /* ring of lines, each behind its length as uint16_t */
    size_t head, used;
    uint64_t dropped_reported;
    uint64_t swept_ms;
    struct log_limit limit;
} the_log = {
    .level = LOG_LEVEL_INFO,
    .format = LOG_FORMAT_LOGFMT,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .idle = PTHREAD_COND_INITIALIZER,
    .fd = STDERR_FILENO,
};

/* --- output ------------------------------------------------------------------------------------------------------ */

/* False when the line was lost. Waits where the writer thread calls it, never where MAY_WAIT is false. */
static bool write_line(int fd, const char *line, size_t len, bool may_wait)
{
    while (len > 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        /* A pipe that polls writable takes PIPE_BUF bytes, more than a line, without blocking. */
        int ready = poll(&p, 1, may_wait ? -1 : 0);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return false;
        ssize_t n = write(fd, line, len);
        if (n < 0 && (errno == EINTR || (errno == EAGAIN && may_wait)))
            continue;
        if (n < 0)
            return false;
        line += n;
        len -= (size_t)n;
    }
    return true;
}

static void ring_put(const void *data, size_t len)
{
    size_t at = (the_log.head + the_log.used) % QUEUE_BYTES;
    size_t first = len < QUEUE_BYTES - at ? len : QUEUE_BYTES - at;
    memcpy(the_log.queue + at, data, first);
    memcpy(the_log.queue, (const char *)data + first, len - first);
    the_log.used += len;
}

static void ring_take(void *data, size_t len)
{
    size_t first = len < QUEUE_BYTES - the_log.head ? len : QUEUE_BYTES - the_log.head;
    memcpy(data, the_log.queue + the_log.head, first);
    memcpy((char *)data + first, the_log.queue, len - first);
    the_log.head = (the_log.head + len) % QUEUE_BYTES;
    the_log.used -= len;
}

/* Hand a finished line to the writer, or write it when there is none. Called with the lock held. */
static void send_line_locked(const char *line, size_t len)
{
    uint16_t size = (uint16_t)len;
    if (the_log.state == OFF) {
        if (!write_line(the_log.fd, line, len, false))
            atomic_fetch_add(&the_log.dropped, 1);
    } else if (the_log.used + len + sizeof(size) > QUEUE_BYTES) {
        atomic_fetch_add(&the_log.dropped, 1);
    } else {
        ring_put(&size, sizeof(size));
        ring_put(line, len);
        (void)pthread_cond_signal(&the_log.wake); /* fails only on a broken condition */
    }
}

/* A line of ours about lines that are missing; 0 when none is. Called with the lock held. */
static size_t dropped_line_locked(char line[LOG_LINE_MAX])
{
    uint64_t dropped = atomic_load(&the_log.dropped), n = dropped - the_log.dropped_reported;
    if (n == 0)
        return 0;
    the_log.dropped_reported = dropped;
    char pairs[48];
    (void)snprintf(pairs, sizeof(pairs), " count=%llu", (unsigned long long)n); /* always fits */
    struct log_line l = {.level = LOG_LEVEL_WARN,
                         .msg = "log lines dropped, the reader of our output is too slow",
                         .fmt = " count=%llu",
                         .pairs = pairs,
                         .wall_ms = clock_wall_ms()};
    return log_format_line(line, atomic_load(&the_log.format), &l);
}

static void *writer_main(void *arg)
{
    (void)arg;
    char line[LOG_LINE_MAX];
    (void)pthread_mutex_lock(
        &the_log.lock); /* an error-checking mutex it is not: cannot fail, here and below */
    for (;;) {
        while (the_log.used == 0 && the_log.state == RUNNING)
            (void)pthread_cond_wait(&the_log.wake, &the_log.lock);
        if (the_log.used == 0)
            break;
        size_t len = dropped_line_locked(line);
        if (len == 0) {
            uint16_t size;
            ring_take(&size, sizeof(size));
            ring_take(line, size);
            len = size;
        }
        int fd = the_log.fd;
        (void)pthread_mutex_unlock(&the_log.lock);
        if (!write_line(fd, line, len, true))
            atomic_fetch_add(&the_log.dropped, 1);
        (void)pthread_mutex_lock(&the_log.lock);
    }
    the_log.state = OFF;
    mem_free(the_log.queue);
    the_log.queue = NULL;
    (void)pthread_cond_broadcast(&the_log.idle);
    (void)pthread_mutex_unlock(&the_log.lock);
    return NULL;
}

/* --- life -------------------------------------------------------------------------------------------------------- */

/* Signals belong to the main thread. */
static int start_thread(void)
{
    sigset_t all, old;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* fails only on a wrong first argument */
    int r = fault_hit() ? EAGAIN : pthread_create(&the_log.thread, NULL, writer_main, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static int start_locked(int fd, struct err *e)
{
    if (the_log.state != OFF)
        return err_set(e, ERR_BAD_STATE, "the log is running");
    char *queue = mem_try_alloc(QUEUE_BYTES, e);
    if (!queue)
        return err_wrap(e, "start log");
    the_log.queue = queue;
    the_log.head = the_log.used = 0;
    the_log.state = RUNNING;
    int r = start_thread();
    if (r != 0) {
        the_log.state = OFF;
        the_log.queue = NULL;
        mem_free(queue);
        return err_sys(e, r, "start log thread");
    }
    the_log.fd = fd;
    (void)pthread_detach(the_log.thread); /* a writer stuck in write() could not be joined */
    return 0;
}

int log_start(int fd, struct err *e)
{
    (void)pthread_mutex_lock(&the_log.lock);
    int r = start_locked(fd, e);
    (void)pthread_mutex_unlock(&the_log.lock);
    return r;
}

void log_stop(uint64_t wait_ms)
{
    uint64_t until_ms =
        (uint64_t)clock_wall_ms() + wait_ms; /* pthread_cond_timedwait counts by the wall clock */
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    (void)pthread_mutex_lock(&the_log.lock);
    if (the_log.state == RUNNING)
        the_log.state = STOPPING;
    (void)pthread_cond_signal(&the_log.wake);
    while (the_log.state != OFF && pthread_cond_timedwait(&the_log.idle, &the_log.lock, &until) == 0)
        ;
    (void)pthread_mutex_unlock(&the_log.lock);
}

void log_set(enum log_level level, enum log_format format)
{
    atomic_store(&the_log.level, (unsigned)level);
    atomic_store(&the_log.format, (unsigned)format);
}

bool log_enabled(enum log_level level)
{
    return (unsigned)level <= atomic_load_explicit(&the_log.level, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    return atomic_load(&the_log.dropped);
}

/* --- lines ------------------------------------------------------------------------------------------------------- */

/* The count of lines held back, as a line of its own. Called with the lock held. */
static void send_held_locked(const struct log_limit_slot *s, int64_t wall_ms)
{
    if (!s->msg)
        return;
    struct log_ctx ctx = {.module = s->module};
    struct log_line l = {.level = (enum log_level)s->level,
                         .ctx = &ctx,
                         .msg = s->msg,
                         .fmt = "",
                         .pairs = "",
                         .wall_ms = wall_ms,
                         .repeated = s->held};
    char line[LOG_LINE_MAX];
    send_line_locked(line, log_format_line(line, atomic_load(&the_log.format), &l));
}

/* Whether this line may go out; lines about held ones go out on the way. Called with the lock held. */
static bool admit_locked(const struct log_line *l, uint64_t now_ms, uint32_t *ret_held)
{
    struct log_limit_slot other;
    if (now_ms - the_log.swept_ms >= SWEEP_MS) {
        the_log.swept_ms = now_ms;
        while (log_limit_expired(&the_log.limit, now_ms, LOG_WINDOW_MS, &other))
            send_held_locked(&other, l->wall_ms);
    }
    if (l->level == LOG_LEVEL_DEBUG || (l->ctx && l->ctx->every))
        return true;
    const char *module = l->ctx ? l->ctx->module : NULL;
    bool pass = log_limit_admit(&the_log.limit, module, l->msg, (int)l->level, now_ms, LOG_BURST,
                                LOG_WINDOW_MS, ret_held, &other);
    send_held_locked(&other, l->wall_ms);
    return pass;
}

void log_write(enum log_level level, const struct log_ctx *ctx, const char *msg, const char *fmt, ...)
{
    int keep = errno;
    char pairs[LOG_LINE_MAX], text[LOG_LINE_MAX];
    struct log_line l = {
        .level = level, .ctx = ctx, .msg = msg, .fmt = fmt, .pairs = pairs, .wall_ms = clock_wall_ms()};
    (void)pthread_mutex_lock(&the_log.lock);
    bool pass = admit_locked(&l, clock_boot_ms(), &l.repeated);
    (void)pthread_mutex_unlock(&the_log.lock);
    if (pass) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(pairs, sizeof(pairs), fmt, ap); /* a cut here shows as a cut value */
        va_end(ap);
        size_t len = log_format_line(text, atomic_load(&the_log.format), &l);
        (void)pthread_mutex_lock(&the_log.lock);
        send_line_locked(text, len);
        (void)pthread_mutex_unlock(&the_log.lock);
    }
    errno = keep;
}
