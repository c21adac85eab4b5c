#include "tests/lib/callback_race.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "agent/io/loop.h"
#include "tests/lib/callback_bed.h"

enum { ATTEMPTS = 300, AT_ONCE = 60 };

struct race {
    const struct callback_race *plan;
    struct loop *loop;
    struct callback_gate gate;
    void *transport; /* NULL: closing */
    struct delivery delivery;
    struct callback_attempt attempts[ATTEMPTS];
    size_t endpoints, sent, ended;
    size_t results[ATTEMPT_RESULT_COUNT_];
    _Atomic size_t revoke_next;
    _Atomic bool over;
};

static void launch(struct race *r)
{
    struct callback_attempt *a = &r->attempts[r->sent];
    *a = (struct callback_attempt){.delivery = &r->delivery, .source = "/carillon/race"};
    list_init(&a->link);
    snprintf(a->endpoint, sizeof(a->endpoint), "%s", r->plan->endpoints[r->sent % r->endpoints]);
    r->plan->transport->deliver(r->transport, a, r->sent);
    r->sent++;
    atomic_store(&r->revoke_next, r->sent);
    atomic_store(&r->gate.closed, r->sent % 50 == 0);
}

static void on_done(void *arg, struct callback_attempt *a)
{
    struct race *r = arg;
    r->results[a->result.result]++;
    r->ended++;
    if (r->transport && r->sent < ATTEMPTS)
        launch(r);
    if (r->ended > ATTEMPTS / 2)
        loop_stop(r->loop); /* close while half of them run */
}

/* Attempts are the loop's, but their state may be asked for and changed by any thread. */
static void *take_back(void *arg)
{
    struct race *r = arg;
    while (!atomic_load(&r->over)) {
        size_t newest = atomic_load(&r->revoke_next);
        if (newest > 0 && newest % 7 == 0)
            (void)callback_revoke(&r->attempts[newest - 1]);
    }
    return NULL;
}

static int run_round(struct race *r)
{
    struct callback_options options = {.loop = r->loop,
                                       .gate = &r->gate,
                                       .threads = r->plan->threads,
                                       .connections_max = 32,
                                       .user_agent = "race"};
    pthread_t thread;
    r->sent = r->ended = 0;
    atomic_store(&r->revoke_next, 0);
    atomic_store(&r->over, false);
    if (r->plan->transport->open(&options, on_done, r, &r->transport, NULL) < 0)
        return 1;
    for (int i = 0; i < AT_ONCE; i++)
        launch(r);
    if (pthread_create(&thread, NULL, take_back, r) != 0)
        return 1;
    loop_run(r->loop);
    atomic_store(&r->over, true);
    (void)pthread_join(thread, NULL);
    void *transport = r->transport;
    r->transport = NULL;
    r->plan->transport->close(transport);
    return r->ended == r->sent ? 0 : 1;
}

int callback_race(const struct callback_race *plan)
{
    static struct race r;
    struct job_spec spec = plan->spec;
    r = (struct race){.plan = plan};
    while (r.endpoints < sizeof(plan->endpoints) / sizeof(char *) && plan->endpoints[r.endpoints])
        r.endpoints++;
    if (loop_new(&r.loop, NULL) < 0)
        return 1;
    atomic_init(&r.gate.lease_until_ms, INT64_MAX);
    r.delivery = bed_delivery(&spec);
    int failed = 0;
    for (unsigned i = 0; i < plan->rounds && !failed; i++)
        failed = run_round(&r);
    loop_free(r.loop);
    printf("%s: %zu ok, %zu failed, %zu not started\n", plan->name, r.results[ATTEMPT_OK],
           r.results[ATTEMPT_RETRY], r.results[ATTEMPT_NOT_STARTED]);
    return failed;
}
