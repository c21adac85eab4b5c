/* The event loop: one thread that owns all state, over libuv. Everything here is for the loop thread, except
 * loop_post() and loop_last_turn_ms(). A turn: ready fds, due timers, posted messages (at most
 * LOOP_POSTED_PER_TURN, the rest waits for the next turn, so that a flood of them cannot starve the fds),
 * deferred work, then the turn hook once (flush, replies). An idle loop turns at least once a second. */
#ifndef CARILLON_IO_LOOP_H
#define CARILLON_IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct loop;
struct loop_timer;
struct loop_fd;
struct uv_loop_s;

enum { LOOP_POSTED_PER_TURN = 1024 };

/* A message to the loop; embedded in what it is about. Owned by the queue from post to the call of RUN. */
struct loop_msg {
    struct loop_msg *next;
    void (*run)(struct loop_msg *msg);
};

/* ERR_IO: no epoll or eventfd to be had. */
int loop_new(struct loop **ret, struct err *e);
/* All timers and fds must have been freed, and no thread may post any more. Runs what is still posted or
 * deferred. */
void loop_free(struct loop *loop);
/* Until loop_stop(), at least one turn. */
void loop_run(struct loop *loop);
/* loop_run() returns at the end of this turn. */
void loop_stop(struct loop *loop);
/* For libraries that bring libuv handles of their own (links, raft). They must be closed before loop_free().
 */
struct uv_loop_s *loop_uv(struct loop *loop);

/* CLOCK_BOOTTIME in ms, the same all through a turn: taken at the first call after the loop has waited. */
int64_t loop_now_ms(const struct loop *loop);
/* Any thread, for the watchdog of /livez: boot ms of the last turn. */
int64_t loop_last_turn_ms(const struct loop *loop);
/* HOOK runs once at the end of every turn, after deferred work; what it defers runs in the next turn. NULL:
 * none. */
void loop_set_turn_hook(struct loop *loop, void (*hook)(void *arg), void *arg);
/* After the hook OBSERVE gets how long the turn worked, without its wait for events. NULL: none. */
void loop_set_turn_observer(struct loop *loop, void (*observe)(void *arg, uint64_t turn_us), void *arg);

/* Any thread: run MSG->run on the loop, in order of posting. Cannot fail; wakes the loop at most once per
 * batch. */
void loop_post(struct loop *loop, struct loop_msg *msg);
/* Loop thread: run MSG->run at the end of this turn (or of the next when called from deferred work). */
void loop_defer(struct loop *loop, struct loop_msg *msg);

/* One-shot timers on the boot clock (they count while the machine sleeps); arming again moves it, FN may
 * re-arm or free T. A delay of 0 or less fires in the next turn. For few, coarse timers: arming is linear,
 * due jobs live in core/wheel. */
struct loop_timer *loop_timer_new(struct loop *loop, void (*fn)(void *arg), void *arg);
void loop_timer_arm(struct loop_timer *t, int64_t delay_ms);
void loop_timer_stop(struct loop_timer *t);
bool loop_timer_armed(const struct loop_timer *t);
void loop_timer_free(struct loop_timer *t);

enum { LOOP_READ = 1, LOOP_WRITE = 2 };
/* Watch FD (a socket, pipe or eventfd; not owned, watched once). EVENTS 0 pauses. FN gets what is ready;
 * errors show as both. FN may change or free F. After loop_fd_free() the fd may be closed at once. */
struct loop_fd *loop_fd_new(struct loop *loop, int fd, void (*fn)(void *arg, int events), void *arg);
void loop_fd_set(struct loop_fd *f, int events);
void loop_fd_free(struct loop_fd *f);

/* FN runs on the loop when the process gets SIGNUM; until loop_free(). ERR_IO. */
int loop_signal(struct loop *loop, int signum, void (*fn)(void *arg, int signum), void *arg, struct err *e);

#endif
