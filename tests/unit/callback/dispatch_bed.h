/* A dispatcher on a real loop with a transport that keeps what it gets until the test answers. */
#ifndef CARILLON_TESTS_UNIT_CALLBACK_DISPATCH_BED_H
#define CARILLON_TESTS_UNIT_CALLBACK_DISPATCH_BED_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/io/loop.h"
#include "agent/core/fire_parts.h"
#include "callback/dispatch.h"
#include "tests/lib/callback_bed.h"
#include "tests/lib/patience.h"

enum { DELIVERIES_MAX = 2000, SENT_MAX = 4000 };

/* A transport that keeps what it gets until the test answers. */
static struct {
    callback_done *done;
    void *arg;
    struct callback_attempt *sent[SENT_MAX];
    uint64_t lanes[SENT_MAX];
    size_t count, first;
    bool closed;
} wire;

static inline int wire_open(const struct callback_options *options, callback_done *done, void *arg,
                            void **ret_self, struct err *e)
{
    (void)options;
    if (fault_hit())
        return err_set(e, ERR_NOMEM, "no memory");
    wire.done = done;
    wire.arg = arg;
    *ret_self = &wire;
    return 0;
}

static inline void wire_deliver(void *self, struct callback_attempt *attempt, uint64_t lane_hash)
{
    (void)self;
    wire.lanes[wire.count] = lane_hash;
    wire.sent[wire.count++] = attempt;
}

static inline void end_attempt(struct callback_attempt *a, enum attempt_result result, int status)
{
    a->result = (struct attempt){.result = result, .status = status, .retry_after_ms = -1};
    memcpy(a->result.endpoint, a->endpoint, strlen(a->endpoint) + 1);
    a->latency_us = 1000;
    wire.done(wire.arg, a);
}

static inline void wire_close(void *self)
{
    (void)self;
    wire.closed = true;
    for (size_t i = wire.first; i < wire.count; i++)
        if (wire.sent[i])
            end_attempt(wire.sent[i], ATTEMPT_RETRY, -1);
}

static const struct callback_ops wire_ops = {
    .name = "wire", .open = wire_open, .deliver = wire_deliver, .close = wire_close};

/* Answer the oldest one; its endpoint goes to ENDPOINT when that is not NULL. */
static inline void answer(enum attempt_result result, int status, char *endpoint)
{
    cr_assert(lt(sz, wire.first, wire.count), "nothing was sent");
    struct callback_attempt *a = wire.sent[wire.first];
    wire.sent[wire.first++] = NULL;
    if (endpoint)
        memcpy(endpoint, a->endpoint, sizeof(a->endpoint));
    end_attempt(a, result, status);
}

static inline size_t on_wire(void)
{
    return wire.count - wire.first;
}

struct bed {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct endpoints *endpoints;
    struct dispatch *d;
    struct callback_gate gate;
    struct balance_options options;
    const char *default_tags[2];
    size_t default_tags_count;
    struct dispatch_options dispatch;
    struct job_spec specs[8];
    struct delivery deliveries[DELIVERIES_MAX];
    size_t delivered;
    struct attempt last;
    size_t ended[ATTEMPT_RESULT_COUNT_];
    size_t ended_total, stop_at;
    size_t parts[ATTEMPT_RESULT_COUNT_]; /* told of */
    char names[256];                     /* of endpoints, as an answer told them */
    bool inside;                         /* dispatch_deliver or dispatch_revoke runs */
    struct delivery *again;              /* delivered anew by the next DONE */
    char wanted[256], unwanted[256], released[256];
    uint64_t queue_us;
    size_t observed;
};
static struct bed bed;

static inline void on_done(void *arg, struct delivery *delivery, const struct attempt *attempt)
{
    struct bed *b = arg;
    cr_assert(not(b->inside), "DONE ran before the call returned");
    cr_assert(zero(ptr, delivery->driver));
    b->last = *attempt;
    for (size_t i = 0, at = 0; i < attempt->endpoints_count; i++)
        at += (size_t)snprintf(b->names + at, sizeof(b->names) - at, "%s ", attempt->endpoints[i]);
    b->ended[attempt->result]++;
    if (++b->ended_total == b->stop_at)
        loop_stop(b->loop);
    if (b->again) {
        struct delivery *again = b->again;
        b->again = NULL;
        dispatch_deliver(b->d, again);
    }
}

static inline void on_part(void *arg, struct delivery *delivery, size_t part, const struct attempt *attempt)
{
    struct bed *b = arg;
    cr_assert(not(b->inside), "PART ran before the call returned");
    cr_assert(lt(sz, part, delivery->parts->count));
    b->parts[attempt->result]++;
}

static inline void options_of(void *arg, const char *service, struct balance_options *ret)
{
    struct bed *b = arg;
    (void)service;
    *ret = b->options;
}

static inline size_t tags_of(void *arg, const char *service, const char **ret)
{
    struct bed *b = arg;
    (void)service;
    for (size_t i = 0; i < b->default_tags_count; i++)
        ret[i] = b->default_tags[i];
    return b->default_tags_count;
}

static inline void on_timing(void *arg, const struct dispatch_timing *timing)
{
    struct bed *b = arg;
    b->queue_us = timing->queue_us;
    b->observed++;
}

static inline void on_released(void *arg, const char *service)
{
    struct bed *b = arg;
    size_t len = strlen(b->released);
    snprintf(b->released + len, sizeof(b->released) - len, "%s ", service);
    if (b->again) {
        struct delivery *again = b->again;
        b->again = NULL;
        dispatch_deliver(b->d, again);
    }
}

static inline void on_want(void *arg, const char *service, const char *datacenter)
{
    (void)arg;
    size_t len = strlen(bed.wanted);
    snprintf(bed.wanted + len, sizeof(bed.wanted) - len, "%s/%s ", service, datacenter);
}

static inline void on_unwant(void *arg, const char *service, const char *datacenter)
{
    (void)arg;
    size_t len = strlen(bed.unwanted);
    snprintf(bed.unwanted + len, sizeof(bed.unwanted) - len, "%s/%s ", service, datacenter);
}

static inline void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain: %zu ended", bed.ended_total);
}

static inline void bed_open(void)
{
    memset(&wire, 0, sizeof(wire));
    memset(&bed, 0, sizeof(bed));
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    struct endpoints_options table = {
        .loop = bed.loop, .node = "node-a", .zone = "zone-1", .want = on_want, .unwant = on_unwant};
    bed.endpoints = endpoints_new(&table);
    bed.options = balance_options_default();
    bed.dispatch =
        (struct dispatch_options){.loop = bed.loop,
                                  .endpoints = bed.endpoints,
                                  .transports = {[JOB_HTTP] = &wire_ops},
                                  .transport = {.gate = &bed.gate, .threads = 1, .user_agent = "t"},
                                  .source = "/carillon/test",
                                  .in_flight_max = 1000,
                                  .options_of = options_of,
                                  .tags_of = tags_of,
                                  .no_endpoint_wait_ms = 30,
                                  .seed = 1,
                                  .done = on_done,
                                  .released = on_released,
                                  .part = on_part,
                                  .observe = on_timing,
                                  .arg = &bed};
}

static inline void bed_start(void)
{
    struct err e = {0};
    if (!bed.loop)
        bed_open();
    cr_assert(zero(int, dispatch_new(&bed.dispatch, &bed.d, &e)), "%s", e.text);
}

static inline void bed_close(void)
{
    dispatch_close(bed.d);
    endpoints_free(bed.endpoints);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
    memset(&bed, 0, sizeof(bed));
}

static inline struct delivery *deliver(struct job_spec *spec)
{
    struct delivery *delivery = &bed.deliveries[bed.delivered++];
    *delivery = bed_delivery(spec);
    bed.inside = true;
    dispatch_deliver(bed.d, delivery);
    bed.inside = false;
    dispatch_validate(bed.d);
    return delivery;
}

/* The pending ones of PARTS. */
static inline struct delivery *deliver_parts(struct job_spec *spec, const struct fire_parts *parts)
{
    struct delivery *delivery = &bed.deliveries[bed.delivered++];
    *delivery = bed_delivery(spec);
    delivery->parts = parts;
    bed.inside = true;
    dispatch_deliver(bed.d, delivery);
    bed.inside = false;
    dispatch_validate(bed.d);
    return delivery;
}

static inline void revoke(struct delivery *delivery)
{
    bed.inside = true;
    dispatch_revoke(bed.d, delivery);
    bed.inside = false;
    dispatch_validate(bed.d);
}

/* Run the loop until N have ended in all. */
static inline void run_until(size_t n)
{
    if (bed.ended_total < n) {
        bed.stop_at = n;
        loop_run(bed.loop);
    }
    cr_assert(eq(sz, bed.ended_total, n));
    dispatch_validate(bed.d);
}

static inline void stop_loop(void *arg)
{
    loop_stop(arg);
}

static inline void run_for(int64_t ms)
{
    struct loop_timer *t = loop_timer_new(bed.loop, stop_loop, bed.loop);
    loop_timer_arm(t, ms);
    loop_run(bed.loop);
    loop_timer_free(t);
    dispatch_validate(bed.d);
}

/* SERVICE is at 10.0.0.1 … 10.0.0.COUNT, port 80. */
static inline void list_plain(const char *service, size_t count)
{
    struct endpoints_instance list[16] = {0};
    char hosts[16][32];
    struct err e = {0};
    for (size_t i = 0; i < count; i++) {
        snprintf(hosts[i], sizeof(hosts[i]), "10.0.0.%zu", i + 1);
        list[i] = (struct endpoints_instance){.host = hosts[i], .port = 80, .weight = 1};
    }
    cr_assert(zero(int, endpoints_update(bed.endpoints, service, "", list, count, &e)), "%s", e.text);
    dispatch_validate(bed.d);
}

/* The first delivery makes the service wanted, and waits; a list releases it. */
static inline void open_service(struct job_spec *spec, const char *service, size_t count)
{
    deliver(spec);
    list_plain(service, count);
    run_for(0);
    answer(ATTEMPT_OK, 200, NULL);
    bed.ended_total = 0;
    memset(bed.ended, 0, sizeof(bed.ended));
}

#endif
