#include "agent/clock_guard.h"

#include <errno.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/io/loop.h"

#define LOOK_MS 500

static const struct log_ctx log_here = {.module = "clock"};

struct clock_guard {
    struct loop *loop;
    _Atomic int64_t
        offset_us; /* in us: rounding to ms before adding could show a time that has not come yet */
    bool stored;
    bool sure;
    bool stepped; /* waits for the store's word */
    bool off;     /* the store's clock says otherwise */
    int64_t since_ms;
    int64_t difference_ms;
    int fd; /* readable when somebody sets the wall clock */
    struct loop_fd *watch;
    struct loop_timer *timer;
    void (*tell)(void *arg, bool sure);
    void *arg;
};

static int64_t wall_offset_us(void)
{
    int64_t before = (int64_t)clock_boot_us();
    int64_t wall = clock_wall_us();
    int64_t after = (int64_t)clock_boot_us();
    return wall - (before + after) / 2;
}

static void settle(struct clock_guard *g)
{
    bool sure = !g->stepped && !g->off;
    if (sure == g->sure)
        return;
    g->sure = sure;
    g->since_ms = (int64_t)clock_boot_ms();
    if (sure)
        log_info(&log_here, "clock agrees with the store's again, firing goes on", "difference_ms=%lld",
                 (long long)g->difference_ms);
    else
        log_error(&log_here,
                  g->off ? "clock is off the store's, nothing is fired"
                         : "clock was stepped, nothing is fired until checked",
                  "difference_ms=%lld", (long long)g->difference_ms);
    g->tell(g->arg, sure);
}

/* Small differences are the wall clock being slewed: follow. */
static void look(struct clock_guard *g)
{
    int64_t now = wall_offset_us(), old = atomic_load(&g->offset_us);
    int64_t jump = now > old ? now - old : old - now;
    if (jump > CLOCK_GUARD_STEP_MS * 1000 && g->stored)
        g->stepped = true;
    else
        atomic_store(&g->offset_us, now);
    settle(g);
}

static void on_timer(void *arg)
{
    struct clock_guard *g = arg;
    look(g);
    loop_timer_arm(g->timer, LOOK_MS);
}

static int arm_cancel(struct clock_guard *g, struct err *e)
{
    struct itimerspec never = {
        .it_value = {.tv_sec = INT64_MAX / 1000000000}}; /* as far as the kernel counts: 2262, not 2038 */
    int rc = fault_hit() ? (errno = EIO, -1)
                         : timerfd_settime(g->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL);
    if (rc < 0)
        return err_sys(e, errno, "watch the wall clock");
    return 0;
}

static void on_clock_set(void *arg, int events)
{
    struct clock_guard *g = arg;
    uint64_t count;
    struct err e = {0};
    (void)events;
    (void)!read(g->fd, &count, sizeof(count)); /* ECANCELED is the news */
    look(g);
    if (arm_cancel(g, &e) < 0)
        log_warn(&log_here, "steps of the wall clock are only seen twice a second now", "error=%s",
                 LOGQ(e.text));
}

int clock_guard_new(struct loop *loop, bool stored, void (*sure)(void *arg, bool sure), void *arg,
                    struct clock_guard **ret, struct err *e)
{
    int fd = fault_hit() ? (errno = EMFILE, -1) : timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "timerfd_create");
    struct clock_guard *g = mem_new(struct clock_guard);
    g->loop = loop;
    g->stored = stored;
    g->sure = true;
    g->fd = fd;
    g->tell = sure;
    g->arg = arg;
    g->since_ms = (int64_t)clock_boot_ms();
    atomic_store(&g->offset_us, wall_offset_us());
    g->timer = loop_timer_new(loop, on_timer, g);
    g->watch = loop_fd_new(loop, fd, on_clock_set, g);
    loop_fd_set(g->watch, LOOP_READ);
    loop_timer_arm(g->timer, LOOK_MS);
    int rc = arm_cancel(g, e);
    if (rc < 0) {
        clock_guard_free(g);
        return rc;
    }
    *ret = g;
    return 0;
}

void clock_guard_free(struct clock_guard *g)
{
    if (!g)
        return;
    loop_fd_free(g->watch);
    loop_timer_free(g->timer);
    fd_close(g->fd);
    mem_free(g);
}

int64_t clock_guard_now_ms(const struct clock_guard *g)
{
    return ((int64_t)clock_boot_us() + clock_guard_offset_us(g)) / 1000;
}

int64_t clock_guard_offset_us(const struct clock_guard *g)
{
    return atomic_load_explicit(&g->offset_us, memory_order_relaxed);
}

void clock_guard_compare(struct clock_guard *g, int64_t store_ms, int64_t sent_ms, int64_t done_ms)
{
    int64_t offset = wall_offset_us();
    int64_t middle = sent_ms + (done_ms - sent_ms) / 2;
    int64_t difference = middle + offset / 1000 - store_ms;
    int64_t unsure = (done_ms - sent_ms + 1) / 2; /* the answer may have been made at either end */
    int64_t distance = difference < 0 ? -difference : difference;
    g->difference_ms = difference;
    if (distance + unsure <= CLOCK_GUARD_OFF_MS) {
        g->off = false;
        g->stepped = false;
        atomic_store(&g->offset_us, offset);
    } else if (distance - unsure > CLOCK_GUARD_OFF_MS) {
        g->off = true;
    } /* else the answer took too long to tell */
    settle(g);
}

bool clock_guard_sure(const struct clock_guard *g)
{
    return g->sure;
}

int64_t clock_guard_since_ms(const struct clock_guard *g)
{
    return g->since_ms;
}

int64_t clock_guard_difference_ms(const struct clock_guard *g)
{
    return g->difference_ms;
}
