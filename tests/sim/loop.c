/* agent/io/loop.h and agent/base/clock.h on virtual time: a turn is one event of the process and what it posted and deferred. */
#include "agent/io/loop.h"

#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "tests/sim/sim.h"

struct loop {
    struct sim_proc *proc;
    struct loop_msg *posted, **posted_end;
    struct loop_msg *deferred, **deferred_end;
    bool in_deferred, turn_asked;
    int64_t now_ms; /* of the turn that runs; 0: none does */
};

/* --- clocks -------------------------------------------------------------------------------------------------------- */

uint64_t clock_boot_us(void)
{
    return (uint64_t)(sim.current ? sim_local_us(sim.current) : sim.now_us);
}

uint64_t clock_boot_ms(void)
{
    return clock_boot_us() / 1000;
}

int64_t clock_wall_us(void)
{
    return sim.epoch_ms * 1000 + sim.now_us + (sim.current ? sim.current->host->wall_shift_us : 0);
}

int64_t clock_wall_ms(void)
{
    return clock_wall_us() / 1000;
}

uint64_t clock_mono_ns(void)
{
    return clock_boot_us() * 1000;
}

void clock_test_shift_wall(int64_t shift_us)
{
    (void)shift_us; /* hosts have shifts of their own */
}

/* --- messages ------------------------------------------------------------------------------------------------------ */

int loop_new(struct loop **ret, struct err *e)
{
    struct loop *loop = mem_new(struct loop);
    (void)e;
    loop->proc = sim.current;
    loop->posted_end = &loop->posted;
    loop->deferred_end = &loop->deferred;
    *ret = loop;
    return 0;
}

void loop_free(struct loop *loop)
{
    mem_free(loop);
}

static void append(struct loop_msg ***end, struct loop_msg *msg)
{
    msg->next = NULL;
    **end = msg;
    *end = &msg->next;
}

static void nothing(void *arg)
{
    (void)arg; /* the turn's end does the work */
}

static void ask_turn(struct loop *loop)
{
    if (sim.current != loop->proc && !loop->turn_asked) {
        loop->turn_asked = true;
        sim_after(0, loop->proc, nothing, NULL);
    }
}

void loop_post(struct loop *loop, struct loop_msg *msg)
{
    append(&loop->posted_end, msg);
    ask_turn(loop);
}

void loop_defer(struct loop *loop, struct loop_msg *msg)
{
    append(&loop->deferred_end, msg);
    ask_turn(loop);
}

static bool run_posted(struct loop *loop)
{
    bool any = loop->posted != NULL;
    for (struct loop_msg *msg; (msg = loop->posted);) {
        if (!(loop->posted = msg->next))
            loop->posted_end = &loop->posted;
        msg->run(msg);
    }
    return any;
}

/* What deferred work defers comes with the next turn, which is at once. */
void sim_turn_end(struct sim_proc *p)
{
    struct loop *loop = p->loop;
    if (!loop)
        return;
    loop->turn_asked = false;
    (void)run_posted(loop);
    struct loop_msg *batch = TAKE(loop->deferred);
    loop->deferred_end = &loop->deferred;
    for (struct loop_msg *msg = batch, *next; msg; msg = next) {
        next = msg->next;
        msg->run(msg);
    }
    if (loop->deferred || loop->posted)
        sim_after(1, p, nothing, NULL);
}

int64_t loop_now_ms(const struct loop *loop)
{
    return sim_local_us(loop->proc) / 1000;
}

int64_t loop_last_turn_ms(const struct loop *loop)
{
    return loop_now_ms(loop);
}

/* --- timers -------------------------------------------------------------------------------------------------------- */

/* A timer that is armed again and again, as those of the planner are, leaves events behind; one that comes no later than its due is
 * enough, and asks for another when it comes too early. */
struct loop_timer {
    struct loop *loop;
    void (*fn)(void *arg);
    void *arg;
    bool armed, freed;
    int64_t due_us; /* by the world */
    int64_t
        *events_us; /* when its events come, the next one last: a new one always comes before all others */
    size_t events, capacity;
};

struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct loop_timer *t = mem_new(struct loop_timer);
    t->loop = loop;
    t->fn = fn;
    t->arg = arg;
    return t;
}

static void timer_due(void *arg);

static void timer_free(struct loop_timer *t)
{
    free(t->events_us);
    mem_free(t);
}

static void want_event(struct loop_timer *t)
{
    if (t->events > 0 && t->events_us[t->events - 1] <= t->due_us)
        return;
    if (t->events == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 4;
        t->events_us = realloc(t->events_us, t->capacity * sizeof(*t->events_us));
    }
    t->events_us[t->events++] = t->due_us;
    sim_after(t->due_us - sim.now_us, t->loop->proc, timer_due, t);
}

static void timer_due(void *arg)
{
    struct loop_timer *t = arg;
    if (--t->events == 0 && t->freed) {
        timer_free(t);
        return;
    }
    if (!t->armed)
        return;
    if (t->due_us > sim.now_us) {
        want_event(t);
        return;
    }
    t->armed = false;
    t->fn(t->arg);
}

/* The local clock runs a little fast or slow: never early by it. */
static int64_t world_delay_us(const struct sim_proc *p, int64_t delay_ms)
{
    int64_t now_us = sim_local_us(p), due_us = (now_us / 1000 + delay_ms) * 1000;
    int64_t delay_us = due_us - now_us;
    return delay_us - delay_us * p->host->drift_ppm / 1000000 + 1;
}

void loop_timer_arm(struct loop_timer *t, int64_t delay_ms)
{
    t->armed = true;
    t->due_us = sim.now_us + (delay_ms > 0 ? world_delay_us(t->loop->proc, delay_ms) : 1);
    want_event(t);
}

void loop_timer_stop(struct loop_timer *t)
{
    t->armed = false;
}

bool loop_timer_armed(const struct loop_timer *t)
{
    return t->armed;
}

void loop_timer_free(struct loop_timer *t)
{
    if (!t)
        return;
    t->freed = true;
    t->armed = false;
    if (t->events == 0)
        timer_free(t);
}

/* --- what no simulated agent uses -------------------------------------------------------------------------------------- */

void loop_run(struct loop *loop)
{
    (void)loop;
    abort();
}

void loop_stop(struct loop *loop)
{
    (void)loop;
}

struct uv_loop_s *loop_uv(struct loop *loop)
{
    (void)loop;
    abort();
}

void loop_set_turn_hook(struct loop *loop, void (*hook)(void *arg), void *arg)
{
    (void)loop, (void)hook, (void)arg;
}

void loop_set_turn_observer(struct loop *loop, void (*observe)(void *arg, uint64_t turn_us), void *arg)
{
    (void)loop, (void)observe, (void)arg;
}

struct loop_fd *loop_fd_new(struct loop *loop, int fd, void (*fn)(void *arg, int events), void *arg)
{
    (void)loop, (void)fd, (void)fn, (void)arg; /* the clock guard's: steps are found by its looks */
    return NULL;
}

void loop_fd_set(struct loop_fd *f, int events)
{
    (void)f, (void)events;
}

void loop_fd_free(struct loop_fd *f)
{
    (void)f;
}

int loop_signal(struct loop *loop, int signum, void (*fn)(void *arg, int signum), void *arg, struct err *e)
{
    (void)loop, (void)signum, (void)fn, (void)arg, (void)e;
    return 0;
}
