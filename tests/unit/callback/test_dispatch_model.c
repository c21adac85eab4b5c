/* Random deliveries, answers, revocations, lists and limits against what must always hold: each delivery ends exactly once, no
 * limit is passed, nothing goes to an endpoint that is not listed, nobody waits without a reason. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/io/loop.h"
#include "callback/dispatch.h"
#include "tests/lib/callback_bed.h"
#include "tests/lib/seed.h"

enum { DELIVERIES = 3000, SPECS = 6, HOSTS = 5, STEPS = 12000 };

static struct {
    struct rng rng;
    struct loop *loop;
    struct endpoints *endpoints;
    struct dispatch *d;
    struct callback_gate gate;
    callback_done *wire_done;
    void *wire_arg;
    struct callback_attempt *wire[DELIVERIES];
    size_t on_wire;
    struct job_spec specs[SPECS];
    struct delivery deliveries[DELIVERIES];
    bool here[DELIVERIES];
    size_t here_count, made, ended;
    bool listed[2][HOSTS];
    uint32_t all_max, service_max, endpoint_max;
} model;

static int wire_open(const struct callback_options *options, callback_done *done, void *arg, void **ret_self,
                     struct err *e)
{
    (void)options;
    (void)e;
    model.wire_done = done;
    model.wire_arg = arg;
    *ret_self = &model;
    return 0;
}

static size_t count_wire(const char *service, const char *endpoint)
{
    size_t n = 0;
    for (size_t i = 0; i < model.on_wire; i++) {
        const struct job_callback *cb = &model.wire[i]->delivery->spec->callback;
        bool same = service ? cb->service && strcmp(cb->service, service) == 0 : !cb->service;
        n += same && strcmp(model.wire[i]->endpoint, endpoint ? endpoint : model.wire[i]->endpoint) == 0;
    }
    return n;
}

static void wire_deliver(void *self, struct callback_attempt *a, uint64_t lane_hash)
{
    (void)self;
    (void)lane_hash;
    const struct job_callback *cb = &a->delivery->spec->callback;
    model.wire[model.on_wire++] = a;
    cr_assert(le(sz, model.on_wire, model.all_max));
    if (!cb->service)
        return;
    unsigned host = (unsigned)(a->endpoint[7] - '1');
    cr_assert(model.listed[cb->service[0] - 'a'][host], "%s is not listed", a->endpoint);
    cr_assert(le(sz, count_wire(cb->service, NULL), model.service_max));
    cr_assert(le(sz, count_wire(cb->service, a->endpoint), model.endpoint_max));
}

static void end_one(size_t i)
{
    struct callback_attempt *a = model.wire[i];
    static const enum attempt_result results[] = {ATTEMPT_OK, ATTEMPT_OK, ATTEMPT_RETRY, ATTEMPT_GIVE_UP,
                                                  ATTEMPT_NOT_STARTED};
    model.wire[i] = model.wire[--model.on_wire];
    bool revoked = atomic_load(&a->state) == CALLBACK_REVOKED;
    enum attempt_result result = revoked ? ATTEMPT_NOT_STARTED : results[rng_below(&model.rng, 5)];
    a->result = (struct attempt){.result = result, .status = result == ATTEMPT_OK ? 200 : -1};
    a->latency_us = rng_below(&model.rng, 100000);
    model.wire_done(model.wire_arg, a);
}

static void wire_close(void *self)
{
    (void)self;
    while (model.on_wire > 0)
        end_one(0);
}

static const struct callback_ops wire_ops = {
    .name = "wire", .open = wire_open, .deliver = wire_deliver, .close = wire_close};

static void on_done(void *arg, struct delivery *delivery, const struct attempt *attempt)
{
    (void)arg;
    (void)attempt;
    size_t i = (size_t)(delivery - model.deliveries);
    cr_assert(model.here[i], "ended twice");
    model.here[i] = false;
    model.here_count--;
    model.ended++;
}

static void options_of(void *arg, const char *service, struct balance_options *ret)
{
    (void)arg;
    (void)service;
    ret->in_flight_max = model.service_max;
    ret->endpoint_in_flight_max = model.endpoint_max;
    ret->eject_base_ms = 5;
}

static void deliver(void)
{
    if (model.made == DELIVERIES)
        return;
    struct delivery *d = &model.deliveries[model.made];
    *d = bed_delivery(&model.specs[rng_below(&model.rng, SPECS)]);
    if (rng_below(&model.rng, 3) == 0)
        snprintf(d->tried[0], sizeof(d->tried[0]), "10.0.0.%u:80",
                 (unsigned)rng_below(&model.rng, HOSTS) + 1);
    model.here[model.made++] = true;
    model.here_count++;
    dispatch_deliver(model.d, d);
}

static void change_list(void)
{
    static const char *const tags[] = {"v1", NULL};
    struct endpoints_instance list[HOSTS];
    char hosts[HOSTS][32];
    size_t count = 0, service = rng_below(&model.rng, 2);
    for (unsigned i = 0; i < HOSTS; i++) {
        model.listed[service][i] = rng_below(&model.rng, 3) > 0;
        if (!model.listed[service][i])
            continue;
        snprintf(hosts[count], sizeof(hosts[count]), "10.0.0.%u", i + 1);
        list[count] = (struct endpoints_instance){
            .host = hosts[count], .port = 80, .weight = 1, .tags = i % 2 ? tags : NULL};
        count++;
    }
    cr_assert(zero(int, endpoints_update(model.endpoints, service ? "b" : "a", "", list, count, NULL)));
}

static void stop_loop(void *arg)
{
    loop_stop(arg);
}

static void run_for(int64_t ms)
{
    struct loop_timer *t = loop_timer_new(model.loop, stop_loop, model.loop);
    loop_timer_arm(t, ms);
    loop_run(model.loop);
    loop_timer_free(t);
}

static void step(void)
{
    uint64_t what = rng_below(&model.rng, 100);
    if (what < 45)
        deliver();
    else if (what < 85 && model.on_wire > 0)
        end_one(rng_below(&model.rng, model.on_wire));
    else if (what < 92 && model.made > 0) {
        size_t i = rng_below(&model.rng, model.made);
        if (model.here[i])
            dispatch_revoke(model.d, &model.deliveries[i]);
    } else if (what < 95)
        change_list();
    else
        run_for(rng_below(&model.rng, 20) == 0 ? 2 : 0);
}

static void make_specs(void)
{
    model.specs[0] = bed_spec("a", NULL);
    model.specs[1] = bed_spec("a", NULL);
    model.specs[1].callback.tags[0] = "v1";
    model.specs[1].callback.tags_count = 1;
    model.specs[2] = bed_spec("b", NULL);
    model.specs[3] = bed_spec("b", NULL);
    model.specs[3].callback.tags[0] = "never";
    model.specs[3].callback.tags_count = 1;
    model.specs[4] = bed_spec(NULL, "http://10.1.0.1/x");
    model.specs[5] = bed_spec(NULL, "http://10.1.0.2/x");
}

static void on_want(void *arg, const char *service, const char *datacenter)
{
    (void)arg;
    (void)service;
    (void)datacenter;
}

Test(dispatch_model, holds_its_promises_whatever_happens, .timeout = 600)
{
    seed_rng(&model.rng, "dispatch_model");
    make_specs();
    model.all_max = (uint32_t)rng_range(&model.rng, 1, 12);
    model.service_max = (uint32_t)rng_range(&model.rng, 1, 8);
    model.endpoint_max = (uint32_t)rng_range(&model.rng, 1, 4);
    cr_assert(zero(int, loop_new(&model.loop, NULL)));
    struct endpoints_options table = {.loop = model.loop, .want = on_want, .unwant = on_want};
    model.endpoints = endpoints_new(&table);
    struct dispatch_options o = {.loop = model.loop,
                                 .endpoints = model.endpoints,
                                 .transports = {[JOB_HTTP] = &wire_ops},
                                 .transport = {.gate = &model.gate},
                                 .source = "/x",
                                 .in_flight_max = model.all_max,
                                 .options_of = options_of,
                                 .no_endpoint_wait_ms = 3,
                                 .seed = rng_u64(&model.rng),
                                 .done = on_done};
    cr_assert(zero(int, dispatch_new(&o, &model.d, NULL)));
    for (int i = 0; i < STEPS; i++) {
        step();
        dispatch_validate(model.d);
        struct dispatch_stats stats = dispatch_stats(model.d);
        cr_assert(eq(sz, stats.in_flight, model.on_wire));
        cr_assert(le(sz, stats.in_flight + stats.waiting, model.here_count));
    }
    for (int i = 0; i < 20000 && model.here_count > 0; i++) { /* without new ones all come to an end */
        while (model.on_wire > 0)
            end_one(0);
        run_for(1);
    }
    cr_assert(zero(sz, model.here_count), "some wait without a reason");
    cr_assert(eq(sz, model.ended, model.made));
    dispatch_close(model.d);
    endpoints_free(model.endpoints);
    loop_free(model.loop);
}
