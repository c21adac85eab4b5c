#include "callback/dispatch.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/clock.h"
#include "agent/core/grpc_code.h"
#include "agent/io/loop.h"
#include "callback/dispatch_private.h"

#define SWEEP_MS 30000
/* Endpoints come back from ejection by time alone; nobody tells us. */
#define UNBLOCK_MS    100
#define LATE_MS       100 /* a wait worth telling */
#define PACE_BURST_MS 20
#define TRIED_MAX     (sizeof(((struct delivery *)0)->tried) / sizeof(((struct delivery *)0)->tried[0]))
#define TRIED_SIZE    sizeof(((struct delivery *)0)->tried[0])

/* --- time ---------------------------------------------------------------------------------------------------------- */

void dispatch_wake_at(struct dispatch *d, int64_t when_ms)
{
    if (when_ms >= d->timer_ms)
        return;
    d->timer_ms = when_ms;
    loop_timer_arm(d->timer, when_ms - loop_now_ms(d->options.loop));
}

/* --- the end of a delivery ----------------------------------------------------------------------------------------- */

static void tell_timing(const struct dispatch *d, const struct ticket *k)
{
    const struct callback_attempt *a = &k->attempt;
    if (!d->options.observe || k->place != TICKET_SENT || a->result.result > ATTEMPT_GIVE_UP)
        return;
    const struct group *g = k->target->group;
    struct dispatch_timing timing = {
        .service = g->service ? endpoints_name(g->service) : NULL,
        .transport = a->delivery->spec->callback.transport,
        .result = a->result.result,
        .queue_us = k->sent_us - k->queued_us,
        .connect_us = a->connect_us,
        .reply_us = a->latency_us > a->connect_us ? a->latency_us - a->connect_us : 0,
    };
    d->options.observe(d->options.arg, &timing);
}

/* K's last act: nothing may be touched afterwards that the callee could have freed. */
static void tell_done(struct dispatch *d, struct ticket *k)
{
    struct delivery *delivery = k->attempt.delivery;
    callback_tls_unref(k->tls);
    if (k->fan) {
        dispatch_part_done(k);
        return;
    }
    delivery->driver = NULL;
    d->options.done(d->options.arg, delivery, &k->attempt.result);
    mem_free(k->names);
    mem_free(k);
}

/* Ends without a lane, soon. */
static void end_unsent(struct dispatch *d, struct ticket *k, enum attempt_result result, const char *why)
{
    k->place = TICKET_ENDED;
    k->attempt.result = (struct attempt){
        .result = result,
        .status = -1,
        .retry_after_ms = -1,
        .started_ms = callback_now_ms(d->options.transport.gate),
    };
    (void)snprintf(k->attempt.result.error, sizeof(k->attempt.result.error), "%s", why); /* ours, short */
    list_push_back(&d->ended, &k->link);
    dispatch_wake_at(d, loop_now_ms(d->options.loop));
}

static void tell_ended(struct dispatch *d)
{
    struct list batch, *link;
    list_init(&batch);
    list_splice_back(&batch, &d->ended);
    while ((link = list_pop_front(&batch)))
        tell_done(d, container_of(link, struct ticket, link));
}

/* --- lines --------------------------------------------------------------------------------------------------------- */

static void set_state(struct target *t, enum target_state state)
{
    struct dispatch *d = t->group->d;
    struct list *places[TARGET_STATE_COUNT_] = {[TARGET_TURN] = &d->turns,
                                                [TARGET_BLOCKED] = &t->group->blocked,
                                                [TARGET_STARVED] = &d->starved,
                                                [TARGET_PACED] = &d->paced};
    list_remove(&t->link);
    if (t->state == TARGET_STARVED)
        t->fed_ms = loop_now_ms(d->options.loop);
    t->state = state;
    if (state == TARGET_IDLE)
        t->pacing = false;
    else
        list_push_back(places[state], &t->link);
}

void dispatch_turn(struct target *t)
{
    if (t->waiting == 0)
        return;
    set_state(t, TARGET_TURN);
    dispatch_wake_at(t->group->d, loop_now_ms(t->group->d->options.loop));
}

static void enter_line(struct ticket *k)
{
    struct target *t = k->target;
    k->place = TICKET_WAITING;
    list_push_back(&t->line, &k->link);
    t->waiting++;
    t->group->waiting++;
    t->group->d->waiting++;
    if (t->state == TARGET_IDLE)
        set_state(t, TARGET_TURN);
}

static void leave_line(struct ticket *k)
{
    struct target *t = k->target;
    list_remove(&k->link);
    t->waiting--;
    t->group->waiting--;
    t->group->d->waiting--;
    if (t->waiting == 0)
        set_state(t, TARGET_IDLE);
}

static struct ticket *first_in_line(const struct target *t)
{
    struct list *link = list_first(&t->line);
    return link ? container_of(link, struct ticket, link) : NULL;
}

/* --- turns --------------------------------------------------------------------------------------------------------- */

static void block(struct target *t)
{
    struct dispatch *d = t->group->d;
    set_state(t, TARGET_BLOCKED);
    if (t->balance && balance_ejected(t->balance) > 0 && d->unblock_ms == DISPATCH_NEVER_MS) {
        d->unblock_ms = loop_now_ms(d->options.loop) + UNBLOCK_MS;
        dispatch_wake_at(d, d->unblock_ms);
    }
}

/* When the first in line has waited long enough for an endpoint. */
static int64_t give_back_ms(const struct target *t)
{
    const struct ticket *k = first_in_line(t);
    int64_t since_ms = k->queued_ms > t->starved_ms ? k->queued_ms : t->starved_ms;
    return since_ms + t->group->d->options.no_endpoint_wait_ms;
}

static void starve(struct target *t)
{
    t->starved_ms = loop_now_ms(t->group->d->options.loop);
    set_state(t, TARGET_STARVED);
    dispatch_wake_at(t->group->d, give_back_ms(t));
}

/* When a target released from starvation may start its next one; 0: now. */
static int64_t release_ms(const struct target *t)
{
    const struct dispatch *d = t->group->d;
    uint64_t rate = d->options.release_per_s, burst = rate * PACE_BURST_MS / 1000 + 1;
    int64_t passed_ms = loop_now_ms(d->options.loop) - t->pace_ms;
    if (!t->pacing || t->paced < burst + (uint64_t)passed_ms * rate / 1000)
        return 0;
    return t->pace_ms + (int64_t)((t->paced - burst + 1) * 1000 / rate) + 1;
}

/* When T may start its next one; 0: now. */
static int64_t pace_ms(struct target *t)
{
    int64_t release = release_ms(t), now_ms = loop_now_ms(t->group->d->options.loop);
    int64_t wait_ms = (int64_t)rate_wait_ms(&t->group->rate, (uint64_t)now_ms);
    int64_t turn = wait_ms > 0 ? now_ms + wait_ms : 0;
    return release > turn ? release : turn;
}

/* DELIVERY keeps only so much of an endpoint's name: a longer one is found by its beginning. */
static uint64_t tried_key(const struct balance *b, const char *tried)
{
    struct balance_view view;
    if (strlen(tried) + 1 < TRIED_SIZE)
        return balance_key(tried);
    for (size_t at = 0; balance_next(b, &at, &view);)
        if (strncmp(view.address, tried, TRIED_SIZE - 1) == 0)
            return view.key;
    return 0;
}

enum balance_choice dispatch_choose(struct ticket *k)
{
    struct dispatch *d = k->target->group->d;
    struct balance *b = k->target->balance;
    const struct delivery *delivery = k->attempt.delivery;
    const struct job_spec *spec = delivery->spec;
    uint64_t tried[TRIED_MAX];
    struct balance_request request = {
        .job_hash = XXH3_64bits_withSeed(spec->id, strlen(spec->id), XXH3_64bits(spec->ns, strlen(spec->ns))),
        .tried = tried,
    };
    while (request.tried_count < TRIED_MAX && delivery->tried[request.tried_count][0]) {
        tried[request.tried_count] = tried_key(b, delivery->tried[request.tried_count]);
        request.tried_count++;
    }
    return balance_choose(b, &request, (uint64_t)loop_now_ms(d->options.loop), &d->rng, &k->endpoint_key);
}

/* The other targets of the service that list this endpoint count it as theirs too. */
static void count_everywhere(struct ticket *k)
{
    const struct group *g = k->target->group;
    struct balance_view view;
    for (unsigned i = 0; i < g->targets_count; i++)
        if (g->targets[i] == k->target || balance_join(g->targets[i]->balance, k->endpoint_key))
            k->counted |= UINT32_C(1) << i;
    bool listed = balance_get(k->target->balance, k->endpoint_key, &view);
    assert(listed && strlen(view.address) < sizeof(k->attempt.endpoint));
    memcpy(k->attempt.endpoint, view.address, strlen(view.address) + 1);
}

/* What it waited for, when that was long enough for people to ask. */
static enum fire_wait waited_for(const struct ticket *k)
{
    int64_t waited_ms = loop_now_ms(k->target->group->d->options.loop) - k->queued_ms;
    if (waited_ms < LATE_MS)
        return FIRE_WAIT_NONE;
    return k->target->fed_ms > k->queued_ms ? FIRE_WAIT_ENDPOINT : FIRE_WAIT_TURN;
}

static void send_off(struct ticket *k)
{
    struct group *g = k->target->group;
    struct dispatch *d = g->d;
    k->waited_for = waited_for(k);
    enum job_transport transport = k->attempt.delivery->spec->callback.transport;
    leave_line(k);
    k->place = TICKET_SENT;
    k->sent_us = clock_boot_us();
    k->attempt.tls = k->tls = callback_tls_ref(g->tls);
    k->target->paced++;
    rate_take(&g->rate);
    list_push_back(&g->sent, &k->link);
    g->in_flight++;
    d->in_flight++;
    d->options.transports[transport]->deliver(d->transports[transport], &k->attempt,
                                              g->service ? k->endpoint_key : g->host_hash);
}

/* K, in whose line's turn it is, asked for the names only. */
static void name_endpoints(struct ticket *k)
{
    struct dispatch *d = k->target->group->d;
    struct err e = {0};
    leave_line(k);
    end_unsent(d, k, ATTEMPT_ENDPOINTS, "");
    if (dispatch_name_endpoints(k, &e) < 0)
        k->attempt.result.result = ATTEMPT_NOT_STARTED;
}

static enum balance_choice choose(struct ticket *k, bool *ret_gone)
{
    struct balance *b = k->target->balance;
    *ret_gone = false;
    if (!b)
        return BALANCE_CHOSEN;
    if (dispatch_names_endpoints(k->attempt.delivery))
        return balance_count(b) > 0 ? BALANCE_CHOSEN : BALANCE_NONE_EMPTY;
    return k->fan ? dispatch_choose_part(k, ret_gone) : dispatch_choose(k);
}

/* T's turn: one attempt goes out, or T is put where it waits for what it lacks. */
static void take_turn(struct target *t)
{
    struct group *g = t->group;
    struct ticket *k = first_in_line(t);
    int64_t later_ms = pace_ms(t);
    if (later_ms > 0) {
        set_state(t, TARGET_PACED);
        dispatch_wake_at(g->d, later_ms);
        return;
    }
    if (g->in_flight >= g->in_flight_max) {
        block(t);
        return;
    }
    bool gone;
    enum balance_choice choice = choose(k, &gone);
    if (gone) {
        leave_line(k);
        end_unsent(g->d, k, ATTEMPT_GONE, "not started: its endpoint has left the service");
    } else if (choice == BALANCE_NONE_EMPTY) {
        starve(t);
    } else if (choice == BALANCE_CHOSEN && t->balance && dispatch_names_endpoints(k->attempt.delivery)) {
        name_endpoints(k);
    } else if (choice == BALANCE_CHOSEN) {
        if (t->balance)
            count_everywhere(k);
        set_state(t, TARGET_TURN); /* behind the others */
        send_off(k);
    } else {
        block(t);
    }
}

/* Each round sends one off or takes one target out of the turns. */
static void run_turns(struct dispatch *d)
{
    while (d->in_flight < d->options.in_flight_max && !list_empty(&d->turns) && !d->closing)
        take_turn(container_of(d->turns.next, struct target, link));
}

/* --- what comes back ----------------------------------------------------------------------------------------------- */

/* Whether the answer, if there was one, speaks for the endpoint, though it may not be what the job calls a success. */
static bool answered_well(enum job_transport transport, int status)
{
    return status >= 0 && !(transport == JOB_GRPC ? grpc_code_is_failure(status) : status >= 500);
}

static enum balance_result verdict(const struct callback_attempt *a)
{
    const struct attempt *r = &a->result;
    if (r->result > ATTEMPT_GIVE_UP)
        return BALANCE_IGNORED;
    bool well = answered_well(a->delivery->spec->callback.transport, r->status);
    return r->result == ATTEMPT_OK || well ? BALANCE_OK : BALANCE_FAILED;
}

static void uncount(struct ticket *k)
{
    const struct group *g = k->target->group;
    uint64_t now = (uint64_t)loop_now_ms(g->d->options.loop);
    for (unsigned i = 0; i < g->targets_count; i++)
        if (k->counted & (UINT32_C(1) << i))
            balance_done(g->targets[i]->balance, k->endpoint_key, verdict(&k->attempt), k->attempt.latency_us,
                         now);
}

static void unblock(struct group *g)
{
    struct list *link;
    while ((link = list_first(&g->blocked)))
        set_state(container_of(link, struct target, link), TARGET_TURN);
}

/* A direct target has no endpoint to name; its host says where the attempt went. */
static void name_host(struct ticket *k)
{
    const struct group *g = k->target->group;
    struct attempt *r = &k->attempt.result;
    if (!g->host || r->endpoint[0])
        return;
    const char *host = strstr(g->host, "://");
    (void)snprintf(r->endpoint, sizeof(r->endpoint), "%s", host ? host + 3 : g->host); /* cut, as all are */
}

/* A success makes room for one more beside what time allows, so a service that answers is released as fast as it takes; by time
 * alone a load above that rate would stay behind for ever. */
static void earn_start(struct target *t)
{
    if (!t->pacing)
        return;
    if (t->paced > 0)
        t->paced--;
    if (t->state == TARGET_PACED)
        set_state(t, TARGET_TURN);
}

static void on_attempt_done(void *arg, struct callback_attempt *attempt)
{
    struct dispatch *d = arg;
    struct ticket *k = container_of(attempt, struct ticket, attempt);
    struct group *g = k->target->group;
    list_remove(&k->link);
    d->in_flight--;
    g->in_flight--;
    uncount(k);
    unblock(g);
    if (attempt->result.result == ATTEMPT_OK || attempt->result.result == ATTEMPT_OPEN)
        earn_start(k->target);
    name_host(k);
    k->attempt.result.waited_for = k->waited_for;
    tell_timing(d, k);
    tell_done(d, k);
    run_turns(d);
}

/* --- the timer ----------------------------------------------------------------------------------------------------- */

static void give_back_starved(struct dispatch *d, int64_t now_ms)
{
    LIST_FOR_SAFE(link, &d->starved)
    {
        struct target *t = container_of(link, struct target, link);
        while (t->waiting > 0 && give_back_ms(t) <= now_ms) {
            struct ticket *k = first_in_line(t);
            leave_line(k);
            t->group->missed = true;
            end_unsent(d, k, ATTEMPT_NO_ENDPOINT, "no healthy endpoint");
        }
        if (t->waiting > 0)
            dispatch_wake_at(d, give_back_ms(t));
    }
}

static void resume_paced(struct dispatch *d, int64_t now_ms)
{
    LIST_FOR_SAFE(link, &d->paced)
    {
        struct target *t = container_of(link, struct target, link);
        int64_t at_ms = pace_ms(t);
        if (at_ms <= now_ms)
            set_state(t, TARGET_TURN);
        else
            dispatch_wake_at(d, at_ms);
    }
}

static void unblock_all(struct dispatch *d, int64_t now_ms)
{
    if (now_ms >= d->unblock_ms) {
        d->unblock_ms = DISPATCH_NEVER_MS;
        for (size_t i = 0; i < d->groups_count; i++)
            unblock(d->groups[i]);
    } else if (d->unblock_ms != DISPATCH_NEVER_MS) {
        dispatch_wake_at(d, d->unblock_ms);
    }
}

static void tick(void *arg)
{
    struct dispatch *d = arg;
    int64_t now_ms = loop_now_ms(d->options.loop);
    d->timer_ms = DISPATCH_NEVER_MS;
    if (now_ms >= d->sweep_ms) {
        dispatch_sweep(d, now_ms);
        d->sweep_ms = now_ms + SWEEP_MS;
    }
    dispatch_wake_at(d, d->sweep_ms);
    give_back_starved(d, now_ms);
    resume_paced(d, now_ms);
    unblock_all(d, now_ms);
    tell_ended(d);
    run_turns(d);
}

/* --- deliver and revoke -------------------------------------------------------------------------------------------- */

struct ticket *dispatch_ticket_new(struct dispatch *d, struct delivery *delivery)
{
    struct ticket *k = mem_new(struct ticket);
    list_init(&k->link);
    list_init(&k->attempt.link);
    atomic_init(&k->attempt.state, CALLBACK_QUEUED);
    k->attempt.delivery = delivery;
    k->attempt.source = d->source;
    k->attempt.capability = d->options.transport.capability;
    k->attempt.trace_rule = d->options.transport.trace_rule;
    k->queued_ms = loop_now_ms(d->options.loop);
    k->queued_us = clock_boot_us();
    return k;
}

void dispatch_enter(struct dispatch *d, struct ticket *k)
{
    const struct delivery *delivery = k->attempt.delivery;
    enum job_transport transport = delivery->spec->callback.transport;
    bool impossible;
    if (d->closing) {
        end_unsent(d, k, ATTEMPT_NOT_STARTED, "not started: the agent is stopping");
        return;
    }
    if ((size_t)transport >= DISPATCH_TRANSPORTS || !d->transports[transport]) {
        end_unsent(d, k, ATTEMPT_RETRY, "this agent has no such transport");
        return;
    }
    k->target = dispatch_target(d, delivery, &impossible);
    if (!k->target) {
        end_unsent(d, k, impossible ? ATTEMPT_RETRY : ATTEMPT_NOT_STARTED,
                   impossible ? "the target's name is too long" : "not started: too many targets at once");
        return;
    }
    enter_line(k);
}

void dispatch_deliver(struct dispatch *d, struct delivery *delivery)
{
    if (delivery->parts) {
        dispatch_fan_out(d, delivery);
    } else {
        struct ticket *k = dispatch_ticket_new(d, delivery);
        delivery->driver = k;
        dispatch_enter(d, k);
    }
    run_turns(d);
}

void dispatch_revoke_ticket(struct dispatch *d, struct ticket *k)
{
    if (k->place == TICKET_SENT)
        (void)callback_revoke(&k->attempt); /* too late: it ends as usual */
    if (k->place != TICKET_WAITING)
        return;
    leave_line(k);
    end_unsent(d, k, ATTEMPT_NOT_STARTED, "not started: revoked");
}

void dispatch_revoke(struct dispatch *d, struct delivery *delivery)
{
    if (!delivery->driver)
        return;
    if (delivery->parts)
        dispatch_revoke_parts(delivery);
    else
        dispatch_revoke_ticket(d, delivery->driver);
}

void dispatch_abort_ticket(struct dispatch *d, struct ticket *k)
{
    enum job_transport transport = k->attempt.delivery->spec->callback.transport;
    dispatch_revoke_ticket(d, k);
    if (k->place == TICKET_SENT && d->options.transports[transport]->abort)
        d->options.transports[transport]->abort(d->transports[transport], &k->attempt);
}

void dispatch_abort(struct dispatch *d, struct delivery *delivery)
{
    if (!delivery->driver)
        return;
    if (delivery->parts)
        dispatch_abort_parts(delivery);
    else
        dispatch_abort_ticket(d, delivery->driver);
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static int open_transports(struct dispatch *d, struct err *e)
{
    struct callback_options o = d->options.transport;
    o.loop = d->options.loop;
    for (size_t i = 0; i < DISPATCH_TRANSPORTS; i++) {
        const struct callback_ops *ops = d->options.transports[i];
        int rc = ops ? ops->open(&o, on_attempt_done, d, &d->transports[i], e) : 0;
        if (rc < 0)
            return err_wrap(e, "transport '%s'", ops->name);
    }
    return 0;
}

int dispatch_new(const struct dispatch_options *options, struct dispatch **ret, struct err *e)
{
    assert(options->in_flight_max > 0 && options->done && options->transport.gate);
    struct dispatch *d = mem_new(struct dispatch);
    d->options = *options;
    if (d->options.no_endpoint_wait_ms <= 0)
        d->options.no_endpoint_wait_ms = DISPATCH_NO_ENDPOINT_MS;
    if (d->options.release_per_s == 0)
        d->options.release_per_s = DISPATCH_RELEASE_PER_S;
    d->source = mem_strdup(options->source);
    d->groups = mem_new_array(struct group *, DISPATCH_GROUPS_MAX);
    d->timer_ms = d->unblock_ms = DISPATCH_NEVER_MS;
    list_init(&d->turns);
    list_init(&d->starved);
    list_init(&d->paced);
    list_init(&d->ended);
    d->share = 1;
    rng_init(&d->rng, options->seed);
    map_init(&d->by_key, rng_u64(&d->rng));
    d->timer = loop_timer_new(options->loop, tick, d);
    d->sweep_ms = loop_now_ms(options->loop) + SWEEP_MS;
    dispatch_wake_at(d, d->sweep_ms);
    endpoints_listen(options->endpoints, dispatch_endpoints_changed, d);
    int rc = open_transports(d, e);
    if (rc < 0) {
        dispatch_close(d);
        return rc;
    }
    *ret = d;
    return 0;
}

static void end_waiting(struct dispatch *d)
{
    for (size_t i = 0; i < d->groups_count; i++)
        for (unsigned j = 0; j < d->groups[i]->targets_count; j++) {
            struct ticket *k;
            while ((k = first_in_line(d->groups[i]->targets[j]))) {
                leave_line(k);
                end_unsent(d, k, ATTEMPT_NOT_STARTED, "not started: the agent is stopping");
            }
        }
}

void dispatch_close(struct dispatch *d)
{
    if (!d)
        return;
    d->closing = true;
    endpoints_listen(d->options.endpoints, NULL, NULL);
    end_waiting(d);
    for (size_t i = 0; i < DISPATCH_TRANSPORTS; i++)
        if (d->transports[i])
            d->options.transports[i]->close(d->transports[i]);
    while (!list_empty(&d->ended))
        tell_ended(d);
    assert(d->in_flight == 0 && d->waiting == 0);
    while (d->groups_count > 0)
        dispatch_group_free(d->groups[d->groups_count - 1]);
    map_fini(&d->by_key);
    loop_timer_free(d->timer);
    mem_free(d->groups);
    mem_free(d->source);
    mem_free(d);
}

static void validate_target(const struct target *t)
{
    size_t waiting = 0;
    assert(t->waiting == list_length(&t->line));
    assert((t->state == TARGET_IDLE) == (t->waiting == 0));
    assert((t->state != TARGET_IDLE) == list_linked(&t->link));
    LIST_FOR (link, &t->line) {
        const struct ticket *k = container_of(link, struct ticket, link);
        assert(k->target == t && k->place == TICKET_WAITING);
        assert(k->fan ? dispatch_fan_has(k) : k->attempt.delivery->driver == k);
        waiting++;
    }
    assert(waiting == t->waiting);
    if (t->balance)
        balance_validate(t->balance);
}

void dispatch_validate(const struct dispatch *d)
{
    size_t in_flight = 0, waiting = 0;
    for (size_t i = 0; i < d->groups_count; i++) {
        const struct group *g = d->groups[i];
        size_t here = 0;
        assert(g->index == i);
        for (unsigned j = 0; j < g->targets_count; j++) {
            validate_target(g->targets[j]);
            here += g->targets[j]->waiting;
        }
        assert(here == g->waiting);
        in_flight += g->in_flight;
        waiting += g->waiting;
    }
    assert(in_flight == d->in_flight && waiting == d->waiting);
}
