/* Lanes that sign, fill in secrets and ask the guard, while files of keys and secrets change under them, networks are exchanged and
 * another thread asks about secrets. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/io/file.h"
#include "agent/io/loop.h"
#include "callback/callback.h"
#include "callback/safety.h"
#include "tests/lib/callback_bed.h"
#include "tests/lib/raw_server.h"

enum { ATTEMPTS = 1500, AT_ONCE = 20, CHANGE_EVERY = 25 };

#define KEY_A "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define KEY_B "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

static struct {
    char dir[64], keys[80], secret[96];
    struct loop *loop;
    struct safety *safety;
    struct callback_gate gate;
    void *lanes;
    struct job_spec spec;
    struct delivery delivery;
    struct callback_attempt attempts[ATTEMPTS];
    char endpoint[64];
    size_t sent, ended, ok, denied;
    _Atomic unsigned unsigned_requests, two_keys;
    _Atomic bool over;
} race;

static bool say_ok(const struct raw_request *rq)
{
    char value[600];
    if (!raw_header(rq->text, "webhook-signature", value, sizeof(value)))
        atomic_fetch_add(&race.unsigned_requests, 1);
    else if (strchr(value, ' '))
        atomic_fetch_add(&race.two_keys, 1);
    raw_write(rq->fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return true;
}

static void put(const char *path, const char *text)
{
    struct err e;
    if (file_write(path, text, strlen(text), 0600, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
}

static void change(size_t n)
{
    static const char *const none[] = {"192.0.2.0/24"}, *const all[] = {"127.0.0.0/8"};
    struct guard_options guard = {.deny = n % 4 == 3 ? all : none, .deny_count = 1, .allow_loopback = true};
    char text[32];
    snprintf(text, sizeof(text), "secret-%zu", n);
    put(race.keys, n % 2 ? "* a " KEY_A "\n" : "* a " KEY_A "\n* b " KEY_B "\n");
    put(race.secret, text);
    if (safety_set_guard(race.safety, &guard, NULL) < 0)
        abort();
}

static void launch(void)
{
    struct callback_attempt *a = &race.attempts[race.sent];
    *a = (struct callback_attempt){.delivery = &race.delivery, .source = "/carillon/race"};
    list_init(&a->link);
    snprintf(a->endpoint, sizeof(a->endpoint), "%s", race.endpoint);
    callback_http.deliver(race.lanes, a, race.sent);
    if (++race.sent % CHANGE_EVERY == 0)
        change(race.sent / CHANGE_EVERY);
}

static void on_done(void *arg, struct callback_attempt *a)
{
    (void)arg;
    race.ok += a->result.result == ATTEMPT_OK;
    race.denied += strstr(a->result.error, "callback.deny") != NULL;
    race.ended++;
    if (race.sent < ATTEMPTS)
        launch();
    if (race.ended == ATTEMPTS)
        loop_stop(race.loop);
}

static void *ask(void *arg)
{
    (void)arg;
    while (!atomic_load(&race.over))
        if (!safety_secret_known(race.safety, "default", "token", 5) ||
            safety_secret_known(race.safety, "default", "none", 4))
            abort();
    return NULL;
}

static void open_all(struct raw_server *server)
{
    static const struct job_pair pairs[] = {{"Authorization", "Bearer ${secret:token}"}};
    struct err e;
    snprintf(race.endpoint, sizeof(race.endpoint), "127.0.0.1:%u", raw_server_port(server));
    race.spec = bed_spec("billing", NULL);
    race.spec.callback.headers = pairs;
    race.spec.callback.headers_count = 1;
    race.delivery = bed_delivery(&race.spec);
    atomic_init(&race.gate.lease_until_ms, INT64_MAX);
    atomic_init(&race.gate.wall_offset_us, clock_wall_us() - (int64_t)clock_boot_us());
    struct safety_options safety = {.loop = race.loop,
                                    .signing_keys_file = race.keys,
                                    .secrets_dir = race.dir,
                                    .guard = {.allow_loopback = true},
                                    .look_ms = 1};
    if (safety_new(&safety, &race.safety, &e) < 0)
        abort();
    struct callback_options options = {.loop = race.loop,
                                       .gate = &race.gate,
                                       .threads = 2,
                                       .connections_max = 16,
                                       .user_agent = "carillon/race",
                                       .safety = race.safety};
    if (callback_http.open(&options, on_done, NULL, &race.lanes, &e) < 0)
        abort();
}

static void make_files(void)
{
    char path[80];
    snprintf(race.dir, sizeof(race.dir), "/tmp/race-safety-XXXXXX");
    if (!mkdtemp(race.dir))
        abort();
    snprintf(path, sizeof(path), "%s/default", race.dir);
    (void)mkdir(path, 0700); /* the next lines would fail */
    snprintf(race.keys, sizeof(race.keys), "%s/KEYS", race.dir);
    snprintf(race.secret, sizeof(race.secret), "%s/token", path);
    put(race.keys, "* a " KEY_A "\n");
    put(race.secret, "secret-0");
}

int main(void)
{
    pthread_t asker;
    struct err e;
    char command[100];
    log_set(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
    make_files();
    struct raw_server *server = raw_server_start(false, say_ok, NULL);
    if (loop_new(&race.loop, &e) < 0)
        abort();
    open_all(server);
    if (pthread_create(&asker, NULL, ask, NULL) != 0)
        abort();
    for (int i = 0; i < AT_ONCE; i++)
        launch();
    loop_run(race.loop);
    atomic_store(&race.over, true);
    pthread_join(asker, NULL);
    callback_http.close(race.lanes);
    safety_free(race.safety);
    loop_free(race.loop);
    raw_server_stop(server);
    snprintf(command, sizeof(command), "rm -rf '%s'", race.dir);
    bool removed = system(command) == 0;
    printf("race_safety: %zu ok, %zu denied, %u with two keys\n", race.ok, race.denied, race.two_keys);
    return !(removed && race.ok + race.denied == ATTEMPTS && race.ok > 0 && race.denied > 0 &&
             race.two_keys > 0 && race.unsigned_requests == 0);
}
