/* The delivery lanes, and callees that fail, hang, answer late, or die with the answer on its way. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "callback/callback.h"
#include "tests/sim/sim.h"

struct sim_seen *sim_seen;
size_t sim_seen_count;
static size_t seen_capacity;

struct lanes {
    struct sim_proc *proc;
    const struct callback_gate *gate;
    callback_done *done;
    void *arg;
    struct list under_way; /* struct transfer.link */
};

struct transfer {
    struct list link;
    struct lanes *lanes;
    struct callback_attempt *attempt;
    int64_t begun_us;
    size_t seen; /* index; valid once started */
    int status;  /* that the callee answers; -1: none comes */
    bool started, over;
};

static int lanes_open(const struct callback_options *options, callback_done *done, void *arg, void **ret_self,
                      struct err *e)
{
    struct lanes *l = mem_new(struct lanes);
    (void)e;
    l->proc = sim.current;
    l->gate = options->gate;
    l->done = done;
    l->arg = arg;
    list_init(&l->under_way);
    *ret_self = l;
    return 0;
}

static void end(struct transfer *t, enum attempt_result result, int status, const char *error)
{
    struct callback_attempt *a = t->attempt;
    int64_t started_ms = a->result.started_ms;
    t->over = true;
    list_remove(&t->link);
    a->result =
        (struct attempt){.result = result, .status = status, .retry_after_ms = -1, .started_ms = started_ms};
    a->result.duration_ms = (uint32_t)((sim.now_us - t->begun_us) / 1000);
    a->latency_us = (uint64_t)(sim.now_us - t->begun_us);
    (void)snprintf(a->result.endpoint, sizeof(a->result.endpoint), "%.63s", a->endpoint);
    (void)snprintf(a->result.error, sizeof(a->result.error), "%s", error);
    t->lanes->done(t->lanes->arg, a);
}

static void lane_end(void *arg)
{
    struct transfer *t = arg;
    if (!t->over && t->status >= 0)
        end(t, callback_judge(&t->attempt->delivery->spec->callback, t->status), t->status, "");
    else if (!t->over)
        end(t, ATTEMPT_RETRY, -1, "timed out");
    mem_free(t);
}

/* The callee has done its work, whether or not anybody hears of it. */
static void callee_end(void *arg)
{
    struct transfer *t = arg;
    if (t->status >= 200 && t->status < 300)
        sim_seen[t->seen].acked_us = sim.now_us;
    if (t->lanes->proc->dead)
        return;
    sim_after(sim_between(50, 500), t->lanes->proc, lane_end, t);
}

static size_t note(const struct transfer *t)
{
    const struct delivery *d = t->attempt->delivery;
    if (sim_seen_count == seen_capacity) {
        seen_capacity = seen_capacity ? 2 * seen_capacity : 4096;
        sim_seen = realloc(sim_seen, seen_capacity * sizeof(*sim_seen));
    }
    struct sim_seen *s = &sim_seen[sim_seen_count];
    *s = (struct sim_seen){.uid = d->uid,
                           .seq = d->seq,
                           .attempt = d->attempt,
                           .part = t->attempt->part,
                           .epoch = d->epoch,
                           .due_ms = d->due_ms,
                           .at_us = sim.now_us,
                           .proc = t->lanes->proc};
    memcpy(s->member, t->lanes->proc->member, sizeof(s->member));
    sim_oracle_start(s, d->spec->id, d->slot);
    return sim_seen_count++;
}

static void lane_start(void *arg)
{
    struct transfer *t = arg;
    struct callback_attempt *a = t->attempt;
    if (t->over) {
        mem_free(t);
        return;
    }
    a->result.started_ms = callback_now_ms(t->lanes->gate);
    if (!callback_may_start(a, t->lanes->gate)) {
        end(t, ATTEMPT_NOT_STARTED, -1, "not started");
        mem_free(t);
        return;
    }
    a->connect_us = (uint64_t)(sim.now_us - t->begun_us);
    t->started = true;
    t->seen = note(t);
    t->status = 200;
    int64_t takes_us = sim_between(300, 20000);
    if (sim_chance(sim.weather.callee_slow_percent))
        takes_us = sim_between(100000, 5000000);
    if (sim_chance(sim.weather.callee_fail_percent)) {
        t->status = 503;
    } else if (sim_chance(sim.weather.callee_hang_percent)) {
        t->status = -1;
        takes_us = t->attempt->delivery->spec->callback.timeout_ms * 1000;
    }
    sim_after(takes_us, NULL, callee_end, t);
}

static void lanes_deliver(void *self, struct callback_attempt *attempt, uint64_t lane_hash)
{
    struct lanes *l = self;
    (void)lane_hash;
    if (l->proc->dead)
        return;
    struct transfer *t = mem_new(struct transfer);
    *t = (struct transfer){.lanes = l, .attempt = attempt, .begun_us = sim.now_us, .status = -1};
    list_push_back(&l->under_way, &t->link);
    sim_after(sim_between(20, 400), l->proc, lane_start, t);
}

static void lanes_close(void *self)
{
    struct lanes *l = self;
    LIST_FOR_SAFE(link, &l->under_way)
    {
        struct transfer *t = container_of(link, struct transfer, link);
        end(t, t->started ? ATTEMPT_RETRY : ATTEMPT_NOT_STARTED, -1, "the agent is stopping");
    }
}

const struct callback_ops callback_http = {
    .name = "http", .open = lanes_open, .deliver = lanes_deliver, .close = lanes_close};
const struct callback_ops callback_grpc = {
    .name = "grpc", .open = lanes_open, .deliver = lanes_deliver, .close = lanes_close};
