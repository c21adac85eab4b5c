/* The delivery lanes, and callees that fail, hang, answer late, or die with the answer on its way. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "agent/core/job.h"
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

struct transfer { /* never freed: late events look at it, the story's end takes it */
    struct list link;
    struct lanes *lanes;
    struct callback_attempt *attempt;
    int64_t begun_us;
    size_t seen; /* index; valid once started */
    int status;  /* that the callee answers; -1: none comes */
    bool reset;  /* the connection breaks instead of an answer */
    bool may_control;
    enum attempt_control control; /* that its answer asks for */
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
    sim_note("%s: fire %llu, attempt %u: %s %d %s", a->delivery->spec->id,
             (unsigned long long)a->delivery->seq, a->delivery->attempt,
             t->started ? "answered" : "not begun", status, error);
    list_remove(&t->link);
    a->result =
        (struct attempt){.result = result, .status = status, .retry_after_ms = -1, .started_ms = started_ms};
    a->result.duration_ms = (uint32_t)((sim.now_us - t->begun_us) / 1000);
    a->result.sent = t->started;
    a->result.control = result == ATTEMPT_OK ? t->control : ATTEMPT_CONTROL_NONE;
    if (status == 503 && sim_chance(20))
        a->result.retry_after_ms = sim_between(100, 3000);
    a->latency_us = (uint64_t)(sim.now_us - t->begun_us);
    (void)snprintf(a->result.endpoint, sizeof(a->result.endpoint), "%.63s", a->endpoint);
    (void)snprintf(a->result.error, sizeof(a->result.error), "%s", error);
    if (t->started)
        sim_seen[t->seen].over_us = sim.now_us;
    t->lanes->done(t->lanes->arg, a);
}

/* --- asynchronous callees ------------------------------------------------------------------------------------------ */

struct work {
    struct uid uid;
    uint64_t seq;
    uint32_t attempt;
    unsigned beats; /* heartbeats to come before the end */
    bool ok;
};

static void work_goes_on(void *arg)
{
    struct work *w = arg;
    if (w->beats == 0) {
        sim_client_complete(&w->uid, w->seq, w->attempt, w->ok);
        mem_free(w);
        return;
    }
    w->beats--;
    sim_client_heartbeat(&w->uid, w->seq, w->attempt);
    sim_after(sim_between(500, 4000) * 1000 * sim.scale, NULL, work_goes_on, w);
}

static void begin_work(const struct sim_seen *s, int64_t delay_us, uint32_t attempt, bool ok)
{
    struct work *w = mem_new(struct work);
    *w = (struct work){.uid = s->uid, .seq = s->seq, .attempt = attempt, .ok = ok};
    w->beats = !sim.calm && sim_chance(30) ? (unsigned)sim_between(1, 3) : 0;
    sim_after(delay_us, NULL, work_goes_on, w);
}

/* What a callee that was asked to work on does, whether or not its 202 arrives. */
static void accept_work(const struct sim_seen *s, int64_t answers_in_us)
{
    bool lies = sim_chance(sim.weather.callee_lie_percent);
    if (sim_chance(sim.weather.callee_silent_percent))
        return;
    int64_t delay_us = lies && sim_chance(50)
                           ? sim_between(100, answers_in_us)
                           : answers_in_us + sim_between(1000, sim.calm ? 100000 : 4000000 * sim.scale);
    begin_work(s, delay_us, s->attempt, !sim_chance(sim.weather.callee_fail_percent));
    if (lies)
        begin_work(s, delay_us + sim_between(0, 2000000 * sim.scale),
                   s->attempt > 1 && sim_chance(50) ? s->attempt - 1 : s->attempt, sim_chance(50));
}

/* --- lanes --------------------------------------------------------------------------------------------------------- */

static void lane_end(void *arg)
{
    struct transfer *t = arg;
    if (t->over)
        return;
    if (t->reset)
        end(t, ATTEMPT_RETRY, -1, "connection reset");
    else if (t->status >= 0)
        end(t, callback_judge(&t->attempt->delivery->spec->callback, t->status), t->status, "");
    else
        end(t, ATTEMPT_RETRY, -1, "timed out");
}

/* Now and then it asks for a pause or a delete of the job, which is as if a client did. */
static void ask_control(struct transfer *t, bool lost)
{
    struct sim_job *j = sim_job_of(&sim_seen[t->seen].uid);
    if (!t->may_control || sim.calm || !sim_chance(4))
        return;
    bool deletes = sim_chance(30) && !j->busy;
    t->control = deletes ? ATTEMPT_CONTROL_DELETE : ATTEMPT_CONTROL_PAUSE;
    sim_note("%s: its callee asks for a %s", j->id, deletes ? "delete" : "pause");
    j->deleting |= deletes;
    j->reply_deletes |= deletes;
    /* Of several endpoints another one may say otherwise, or may fail: then it is not asked for. */
    j->reply_heard |= deletes && !lost && sim_seen[t->seen].part == 0;
    j->reply_pauses |= !deletes;
}

/* The callee has done its work, whether or not anybody hears of it. */
static void callee_end(void *arg)
{
    struct transfer *t = arg;
    struct sim_seen *s = &sim_seen[t->seen];
    struct sim_fire *f = sim_fire_of(&s->uid, s->seq);
    s->status = t->status;
    bool lost = t->reset || t->over; /* its agent has closed the connection */
    if (t->status == 200) {
        s->acked_us = lost ? 0 : sim.now_us;
        f->acked_parts |= 1u << s->part;
        f->heard |= !lost && s->part == 0;
        ask_control(t, lost);
    }
    f->gave_up |= t->status == 410;
    if (!t->lanes->proc->dead)
        sim_after(sim_between(50, 500), t->lanes->proc, lane_end, t);
}

static size_t note(const struct transfer *t)
{
    const struct delivery *d = t->attempt->delivery;
    if (sim_seen_count == seen_capacity) {
        seen_capacity = seen_capacity ? 2 * seen_capacity : 4096;
        sim_seen = realloc(sim_seen, seen_capacity * sizeof(*sim_seen));
    }
    const struct job_callback *cb = &d->spec->callback;
    const char *path = cb->url ? strrchr(cb->url, '/') : cb->path;
    struct sim_seen *s = &sim_seen[sim_seen_count];
    *s = (struct sim_seen){.uid = d->uid,
                           .seq = d->seq,
                           .attempt = d->attempt,
                           .part = t->attempt->part,
                           .epoch = d->epoch,
                           .due_ms = d->due_ms,
                           .at_us = sim.now_us,
                           .rules = (unsigned)strtoul(path + 2, NULL, 10), /* "/v<number>" */
                           .proc = t->lanes->proc};
    memcpy(s->member, t->lanes->proc->member, sizeof(s->member));
    sim_note("%s: fire %llu, attempt %u starts", d->spec->id, (unsigned long long)d->seq, d->attempt);
    sim_oracle_start(s, d);
    return sim_seen_count++;
}

/* What the callee makes of it, and how long that takes. */
static int64_t callee_begins(struct transfer *t)
{
    const struct sim_weather *w = &sim.weather;
    const struct job_callback *cb = &t->attempt->delivery->spec->callback;
    int64_t takes_us =
        sim_chance(w->callee_slow_percent) ? sim_between(100000, 5000000) : sim_between(300, 20000);
    t->status = cb->async && sim_chance(70) ? 202 : 200;
    t->reset = sim_chance(w->callee_reset_percent);
    t->may_control = cb->allow_control;
    bool dead = cb->url && !sim.calm && strncmp(cb->url, SIM_DEAD_URL, strlen(SIM_DEAD_URL)) == 0;
    if (dead || sim_chance(w->callee_fail_percent)) {
        t->status = 503;
    } else if (sim_chance(w->callee_give_up_percent)) {
        t->status = 410;
    } else if (sim_chance(w->callee_hang_percent)) {
        t->status = -1;
        takes_us = cb->timeout_ms * 1000;
    }
    if (t->status == 202)
        accept_work(&sim_seen[t->seen], takes_us);
    return takes_us;
}

static void lane_start(void *arg)
{
    struct transfer *t = arg;
    struct callback_attempt *a = t->attempt;
    if (t->over)
        return;
    a->result.started_ms = callback_now_ms(t->lanes->gate);
    if (!callback_may_start(a, t->lanes->gate)) {
        end(t, ATTEMPT_NOT_STARTED, -1, "not started");
        return;
    }
    a->connect_us = (uint64_t)(sim.now_us - t->begun_us);
    t->started = true;
    t->seen = note(t);
    sim_after(callee_begins(t), NULL, callee_end, t);
}

static void lanes_deliver(void *self, struct callback_attempt *attempt, uint64_t lane_hash)
{
    struct lanes *l = self;
    (void)lane_hash;
    if (l->proc->dead)
        return;
    struct transfer *t = mem_new(struct transfer);
    *t = (struct transfer){.lanes = l, .attempt = attempt, .begun_us = sim.now_us, .status = -1};
    attempt->lane = t;
    list_push_back(&l->under_way, &t->link);
    sim_after(sim_chance(4) ? sim_between(1000, 300000) : sim_between(20, 400), l->proc, lane_start, t);
}

/* Its connection is closed; the callee works on. */
static void lane_abort(void *arg)
{
    struct transfer *t = arg;
    if (!t->over)
        end(t, t->started ? ATTEMPT_RETRY : ATTEMPT_NOT_STARTED, -1, "connection closed");
}

static void lanes_abort(void *self, struct callback_attempt *attempt)
{
    struct lanes *l = self;
    if (!l->proc->dead)
        sim_after(sim_between(20, 400), l->proc, lane_abort, attempt->lane);
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
    .name = "http", .open = lanes_open, .deliver = lanes_deliver, .abort = lanes_abort, .close = lanes_close};
const struct callback_ops callback_grpc = {
    .name = "grpc", .open = lanes_open, .deliver = lanes_deliver, .abort = lanes_abort, .close = lanes_close};
