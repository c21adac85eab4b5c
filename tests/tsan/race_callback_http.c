/* Delivery lanes under load: attempts from the loop, taken back by another thread while they start, the gate opened and closed,
 * the transport closed in the middle and opened again. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/io/loop.h"
#include "callback/callback.h"
#include "tests/lib/callback_bed.h"
#include "tests/lib/raw_server.h"

enum { ROUNDS = 6, ATTEMPTS = 400, AT_ONCE = 60 };

static struct {
    struct loop *loop;
    struct callback_gate gate;
    void *lanes;
    struct job_spec spec;
    struct delivery delivery;
    char endpoint[64];
    struct callback_attempt attempts[ATTEMPTS];
    size_t sent, ended;
    size_t results[ATTEMPT_RESULT_COUNT_];
    _Atomic size_t revoke_next;
    _Atomic bool over;
} race;

static bool say_ok(const struct raw_request *rq)
{
    raw_write(rq->fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return true;
}

static void launch(void)
{
    struct callback_attempt *a = &race.attempts[race.sent];
    *a = (struct callback_attempt){.delivery = &race.delivery, .source = "/carillon/race"};
    list_init(&a->link);
    snprintf(a->endpoint, sizeof(a->endpoint), "%s", race.endpoint);
    callback_http.deliver(race.lanes, a, race.sent);
    race.sent++;
    atomic_store(&race.revoke_next, race.sent);
    atomic_store(&race.gate.closed, race.sent % 50 == 0);
}

static void on_done(void *arg, struct callback_attempt *a)
{
    (void)arg;
    race.results[a->result.result]++;
    race.ended++;
    if (race.lanes && race.sent < ATTEMPTS)
        launch();
    if (race.ended > ATTEMPTS / 2)
        loop_stop(race.loop); /* close while half of them run */
}

/* Attempts are the loop's, but their state may be asked for and changed by any thread. */
static void *take_back(void *arg)
{
    (void)arg;
    while (!atomic_load(&race.over)) {
        size_t newest = atomic_load(&race.revoke_next);
        if (newest > 0 && newest % 7 == 0)
            (void)callback_revoke(&race.attempts[newest - 1]);
    }
    return NULL;
}

static int run_round(void)
{
    struct callback_options options = {
        .loop = race.loop, .gate = &race.gate, .threads = 3, .connections_max = 32, .user_agent = "race"};
    pthread_t thread;
    race.sent = race.ended = 0;
    atomic_store(&race.revoke_next, 0);
    atomic_store(&race.over, false);
    if (callback_http.open(&options, on_done, NULL, &race.lanes, NULL) < 0)
        return 1;
    for (int i = 0; i < AT_ONCE; i++)
        launch();
    if (pthread_create(&thread, NULL, take_back, NULL) != 0)
        return 1;
    loop_run(race.loop);
    atomic_store(&race.over, true);
    (void)pthread_join(thread, NULL);
    void *lanes = race.lanes;
    race.lanes = NULL;
    callback_http.close(lanes);
    return race.ended == race.sent ? 0 : 1;
}

int main(void)
{
    struct raw_server *server = raw_server_start(false, say_ok, NULL);
    if (loop_new(&race.loop, NULL) < 0)
        return 1;
    atomic_init(&race.gate.lease_until_ms, INT64_MAX);
    race.spec = bed_spec("billing", NULL);
    race.delivery = bed_delivery(&race.spec);
    snprintf(race.endpoint, sizeof(race.endpoint), "127.0.0.1:%u", raw_server_port(server));
    int failed = 0;
    for (int i = 0; i < ROUNDS && !failed; i++)
        failed = run_round();
    loop_free(race.loop);
    raw_server_stop(server);
    printf("race_callback_http: %zu ok, %zu failed, %zu not started\n", race.results[ATTEMPT_OK],
           race.results[ATTEMPT_RETRY], race.results[ATTEMPT_NOT_STARTED]);
    return failed;
}
