/* gRPC callbacks over the C core: a thread with a completion queue. The loop resolves names and hands attempts over through a locked
 * list; the thread makes connections and calls, and hands results back. The library and the thread begin with the first attempt: an
 * agent that makes no such calls pays for neither.
 *
 * None of our code runs on a thread of the library's: what it has done comes out of the queue. */
#include <assert.h>
#include <grpc/grpc_security.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/io/grpc_library.h"
#include "agent/io/inbox.h"
#include "callback/callback_grpc_private.h"

#define MESSAGE_MAX    ((size_t)1 << 20)
#define WAKE_MAX_MS    1000
#define UNSENT_LOOK_US UINT64_C(50000)

static const struct log_ctx log_here = {.module = "grpc"};

/* --- the end of an attempt ----------------------------------------------------------------------------------------- */

void grpc_rpc_end(struct grpc_rpc *rpc)
{
    struct inbox *ended = rpc->t->ended;
    struct callback_attempt *a = rpc->attempt;
    safety_unuse(&rpc->use);
    headers_fini(&rpc->headers);
    mem_free(rpc);
    inbox_add(ended, &a->link);
}

static void hand_back(void *arg, struct list *item)
{
    struct grpc_transport *t = arg;
    t->done(t->arg, container_of(item, struct callback_attempt, link));
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */

/* Returns false when the thread shall end. */
static bool take_incoming(struct grpc_transport *t)
{
    struct list batch, *link;
    list_init(&batch);
    pthread_mutex_lock(&t->lock);
    list_splice_back(&batch, &t->incoming);
    bool stopping = t->stopping;
    pthread_mutex_unlock(&t->lock);
    while ((link = list_pop_front(&batch))) {
        struct grpc_rpc *rpc = container_of(link, struct grpc_rpc, link);
        if (stopping)
            grpc_rpc_refuse(rpc, "not started: the agent is stopping");
        else
            grpc_rpc_begin(rpc);
    }
    return !stopping;
}

static void on_bell(struct grpc_tag *tag, bool ok)
{
    struct grpc_transport *t = container_of(tag, struct grpc_transport, bell_tag);
    (void)ok;
    pthread_mutex_lock(&t->lock);
    t->rung = false;
    pthread_mutex_unlock(&t->lock);
}

/* Calls that wait for room on their connection (the peer allows so many at once) have passed the gate, but not gone out: they must
 * not do so when it is closed. */
static void cancel_unsent(struct grpc_transport *t)
{
    LIST_FOR (at, &t->channels) {
        struct grpc_line *line = container_of(at, struct grpc_line, link);
        LIST_FOR (link, &line->running) {
            struct grpc_rpc *rpc = container_of(link, struct grpc_rpc, link);
            if (!rpc->send_over)
                grpc_rpc_cancel(rpc, "the lease ended before the request went out");
        }
    }
}

static bool gate_is_open(const struct callback_gate *gate)
{
    return !atomic_load(&gate->closed) && (int64_t)clock_boot_ms() < atomic_load(&gate->lease_until_ms);
}

static void look_at_time(struct grpc_transport *t)
{
    if (t->unsent > 0 && !gate_is_open(t->options.gate))
        cancel_unsent(t);
    grpc_lines_check(t, clock_boot_us());
}

static uint64_t wait_us(const struct grpc_transport *t)
{
    uint64_t now_us = clock_boot_us(), until_us = t->expiry_us < t->sweep_us ? t->expiry_us : t->sweep_us;
    uint64_t max_us = t->unsent > 0 ? UNSENT_LOOK_US : WAKE_MAX_MS * UINT64_C(1000);
    uint64_t left_us = until_us > now_us ? until_us - now_us : 0;
    return left_us < max_us ? left_us : max_us;
}

/* One event, waited for at most FOR_US. */
static void take_event(struct grpc_transport *t, uint64_t for_us)
{
    gpr_timespec until =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_micros((int64_t)for_us, GPR_TIMESPAN));
    grpc_event event = grpc_completion_queue_next(t->cq, until, NULL);
    if (event.type == GRPC_OP_COMPLETE) {
        struct grpc_tag *tag = event.tag;
        tag->run(tag, event.success != 0);
    }
}

/* A call on a channel that leads nowhere, for batches without operations. */
static void hang_bell(struct grpc_transport *t)
{
    grpc_channel *nowhere = grpc_lame_client_channel_create("", GRPC_STATUS_UNAVAILABLE, "");
    grpc_call *bell = grpc_channel_create_call(nowhere, NULL, GRPC_PROPAGATE_DEFAULTS, t->cq,
                                               grpc_slice_from_static_string("/"), NULL,
                                               gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_channel_destroy(nowhere); /* the call keeps what it needs */
    pthread_mutex_lock(&t->lock);
    t->bell = bell;
    pthread_mutex_unlock(&t->lock);
}

static void take_bell(struct grpc_transport *t)
{
    pthread_mutex_lock(&t->lock);
    grpc_call *bell = t->bell;
    t->bell = NULL;
    pthread_mutex_unlock(&t->lock);
    grpc_call_unref(bell);
}

/* The process is ending, or its lease has: whatever still runs has no answer yet. */
static void abort_running(struct grpc_transport *t)
{
    LIST_FOR (at, &t->channels) {
        struct grpc_line *line = container_of(at, struct grpc_line, link);
        struct list *link;
        while ((link = list_pop_front(&line->waiting)))
            grpc_rpc_refuse(container_of(link, struct grpc_rpc, link), "not started: the agent is stopping");
        LIST_FOR (running, &line->running) {
            grpc_rpc_cancel(container_of(running, struct grpc_rpc, link),
                            "no answer before the agent stopped");
        }
    }
    while (t->calls > 0)
        take_event(t, WAKE_MAX_MS * UINT64_C(1000));
}

static void close_lines(struct grpc_transport *t)
{
    LIST_FOR_SAFE(link, &t->channels)
    {
        grpc_line_retire(container_of(link, struct grpc_line, link));
    }
    while (!list_empty(&t->channels))
        take_event(t, WAKE_MAX_MS * UINT64_C(1000));
}

static void close_queue(struct grpc_transport *t)
{
    grpc_event event;
    take_bell(t);
    grpc_completion_queue_shutdown(t->cq);
    do {
        event = grpc_completion_queue_next(t->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    } while (event.type != GRPC_QUEUE_SHUTDOWN);
    grpc_completion_queue_destroy(t->cq);
}

static void *run_thread(void *arg)
{
    struct grpc_transport *t = arg;
    grpc_library_up();
    t->cq = grpc_completion_queue_create_for_next(NULL);
    hang_bell(t);
    while (take_incoming(t)) {
        look_at_time(t);
        take_event(t, wait_us(t));
    }
    abort_running(t);
    close_lines(t);
    close_queue(t);
    grpc_library_down();
    return NULL;
}

/* Signals are the loop thread's; the library's threads inherit that. */
static bool start_thread(struct grpc_transport *t)
{
    sigset_t all, before;
    (void)sigfillset(&all); /* these two cannot fail */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = fault_hit() ? -1 : pthread_create(&t->thread, NULL, run_thread, t);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        (void)pthread_setname_np(t->thread, "grpc"); /* only for people with a debugger */
    return rc == 0;
}

/* --- the loop's side ----------------------------------------------------------------------------------------------- */

static void wake(struct grpc_transport *t)
{
    if (!t->bell || t->rung)
        return;
    t->rung = true;
    grpc_call_error rc = grpc_call_start_batch(t->bell, NULL, 0, &t->bell_tag, NULL);
    assert(rc == GRPC_CALL_OK);
}

static void hand_over(struct grpc_rpc *rpc)
{
    struct grpc_transport *t = rpc->t;
    if (!t->started && !(t->started = start_thread(t))) {
        log_error(&log_here, "no thread for gRPC callbacks", "");
        grpc_rpc_refuse(rpc, "not started: no thread for gRPC callbacks");
        return;
    }
    pthread_mutex_lock(&t->lock);
    list_push_back(&t->incoming, &rpc->link);
    wake(t);
    pthread_mutex_unlock(&t->lock);
}

static void on_resolved(struct resolve *q)
{
    hand_over(container_of(q, struct grpc_rpc, where));
}

static bool split_address(struct grpc_rpc *rpc, const char *address)
{
    size_t at, len;
    if (text_host_port(address, strlen(address), false, &at, &len, &rpc->where.port, NULL) < 0 ||
        len >= sizeof(rpc->where.host))
        return false;
    memcpy(rpc->where.host, address + at, len);
    return true;
}

static void grpc_deliver(void *self, struct callback_attempt *attempt, uint64_t lane_hash)
{
    struct grpc_transport *t = self;
    const struct job_callback *cb = &attempt->delivery->spec->callback;
    struct grpc_rpc *rpc = mem_new(struct grpc_rpc);
    (void)lane_hash; /* one thread has all connections */
    rpc->t = t;
    rpc->attempt = attempt;
    rpc->taken_us = clock_boot_us();
    rpc->deadline_us = rpc->taken_us + (uint64_t)cb->timeout_ms * 1000;
    rpc->where.done = on_resolved;
    rpc->where.until_ms = loop_now_ms(t->options.loop) + cb->timeout_ms;
    list_init(&rpc->link);
    headers_init(&rpc->headers);
    if (split_address(rpc, cb->service ? attempt->endpoint : cb->address)) {
        resolver_ask(t->resolver, &rpc->where);
        return;
    }
    (void)snprintf(rpc->where.error, sizeof(rpc->where.error), "the address is not host:port"); /* short */
    hand_over(rpc);
}

static int grpc_open(const struct callback_options *options, callback_done *done, void *arg, void **ret_self,
                     struct err *e)
{
    uint64_t seed;
    int rc = rng_seed_os(&seed, e);
    if (rc < 0)
        return rc;
    struct grpc_transport *t = mem_new(struct grpc_transport);
    t->options = *options;
    t->user_agent = mem_strdup(options->user_agent);
    t->done = done;
    t->arg = arg;
    t->ended = inbox_new(options->loop, hand_back, t);
    t->resolver = resolver_new(options->loop, seed);
    t->bell_tag.run = on_bell;
    pthread_mutex_init(&t->lock, NULL);
    list_init(&t->incoming);
    list_init(&t->channels);
    map_init(&t->by_key, seed);
    buf_init(&t->message, MESSAGE_MAX);
    t->expiry_us = GRPC_NEVER_US;
    *ret_self = t;
    return 0;
}

static void grpc_close(void *self)
{
    struct grpc_transport *t = self;
    resolver_free(t->resolver); /* what waits for it goes to the thread, which refuses it */
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    wake(t);
    pthread_mutex_unlock(&t->lock);
    if (t->started)
        pthread_join(t->thread, NULL);
    inbox_free(t->ended);
    map_fini(&t->by_key);
    buf_fini(&t->message);
    pthread_mutex_destroy(&t->lock);
    mem_free(t->user_agent);
    mem_free(t);
}

const struct callback_ops callback_grpc = {
    .name = "grpc",
    .open = grpc_open,
    .deliver = grpc_deliver,
    .close = grpc_close,
};
