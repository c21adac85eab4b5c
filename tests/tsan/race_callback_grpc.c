/* The gRPC transport under load: attempts from the loop, taken back by another thread while they start, the gate opened and closed,
 * names looked up, an endpoint that refuses, the transport closed in the middle and opened again. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/io/grpcd.h"
#include "agent/io/loop.h"
#include "callback/callback.h"
#include "callback/fire_message.h"
#include "tests/lib/callback_bed.h"

enum { ROUNDS = 4, ATTEMPTS = 300, AT_ONCE = 60 };

static struct {
    struct loop *loop;
    struct callback_gate gate;
    void *transport;
    struct job_spec spec;
    struct delivery delivery;
    char endpoints[3][64];
    struct callback_attempt attempts[ATTEMPTS];
    size_t sent, ended;
    size_t results[ATTEMPT_RESULT_COUNT_];
    _Atomic size_t revoke_next;
    _Atomic bool over;
} race;

static void say_ok(struct grpcd_call *call, void *arg)
{
    (void)arg;
    grpcd_reply(call, 0, NULL, "", 0);
}

static void launch(void)
{
    struct callback_attempt *a = &race.attempts[race.sent];
    *a = (struct callback_attempt){.delivery = &race.delivery, .source = "/carillon/race"};
    list_init(&a->link);
    memcpy(a->endpoint, race.endpoints[race.sent % 20 == 7 ? 2 : race.sent % 2], sizeof(race.endpoints[0]));
    callback_grpc.deliver(race.transport, a, race.sent);
    race.sent++;
    atomic_store(&race.revoke_next, race.sent);
    atomic_store(&race.gate.closed, race.sent % 50 == 0);
}

static void on_done(void *arg, struct callback_attempt *a)
{
    (void)arg;
    race.results[a->result.result]++;
    race.ended++;
    if (race.transport && race.sent < ATTEMPTS)
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
        .loop = race.loop, .gate = &race.gate, .threads = 1, .connections_max = 32, .user_agent = "race"};
    pthread_t thread;
    race.sent = race.ended = 0;
    atomic_store(&race.revoke_next, 0);
    atomic_store(&race.over, false);
    if (callback_grpc.open(&options, on_done, NULL, &race.transport, NULL) < 0)
        return 1;
    for (int i = 0; i < AT_ONCE; i++)
        launch();
    if (pthread_create(&thread, NULL, take_back, NULL) != 0)
        return 1;
    loop_run(race.loop);
    atomic_store(&race.over, true);
    (void)pthread_join(thread, NULL);
    void *transport = race.transport;
    race.transport = NULL;
    callback_grpc.close(transport);
    return race.ended == race.sent ? 0 : 1;
}

/* In a process of its own: what goes through the library from one thread of ours to another cannot be watched. Tells its port to
 * UP and ends with DOWN. */
static int serve(int up, int down)
{
    struct grpcd_options options = {.listen = "127.0.0.1:0", .handle = say_ok};
    struct grpcd *server;
    char byte;
    if (grpcd_start(&options, &server, NULL) < 0)
        return 1;
    uint16_t port = grpcd_port(server);
    if (write(up, &port, sizeof(port)) != sizeof(port))
        return 1;
    while (read(down, &byte, 1) > 0)
        continue;
    grpcd_stop(server);
    return 0;
}

static int run_rounds(uint16_t port)
{
    if (loop_new(&race.loop, NULL) < 0)
        return 1;
    atomic_init(&race.gate.lease_until_ms, INT64_MAX);
    race.spec = bed_spec("billing", NULL);
    race.spec.callback.transport = JOB_GRPC;
    race.spec.callback.method = FIRE_METHOD;
    race.spec.callback.success[0] = (struct job_code_range){0, 0};
    race.delivery = bed_delivery(&race.spec);
    snprintf(race.endpoints[0], sizeof(race.endpoints[0]), "127.0.0.1:%u", port);
    snprintf(race.endpoints[1], sizeof(race.endpoints[1]), "localhost:%u", port);
    snprintf(race.endpoints[2], sizeof(race.endpoints[2]), "127.0.0.1:1");
    int failed = 0;
    for (int i = 0; i < ROUNDS && !failed; i++)
        failed = run_round();
    loop_free(race.loop);
    printf("race_callback_grpc: %zu ok, %zu failed, %zu not started\n", race.results[ATTEMPT_OK],
           race.results[ATTEMPT_RETRY], race.results[ATTEMPT_NOT_STARTED]);
    return failed;
}

int main(void)
{
    int up[2], down[2], status = 1;
    uint16_t port;
    if (pipe(up) < 0 || pipe(down) < 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        close(down[1]);
        return serve(up[1], down[0]);
    }
    int failed = child < 0 || read(up[0], &port, sizeof(port)) != sizeof(port) || run_rounds(port);
    close(down[1]);
    return waitpid(child, &status, 0) != child || status != 0 || failed;
}
