/* What `carillon sink --async` tells later, with each step failing: each fire is completed in the end, by its own key, and heard of as
 * often as the agent says. */
#include <pthread.h>

#include "agent/cli/args.h"
#include "agent/cli/show.h"
#include "agent/cli/sink_async.h"
#include "agent/io/loop.h"
#include "tests/lib/raw_server.h"
#include "tests/unit/cli/run.h"

TestSuite(sink_async, .timeout = 300);

static struct {
    struct raw_server *server;
    pthread_mutex_t lock;
    char asked[4096];
} agent = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool answer(const struct raw_request *rq)
{
    const char *body = strstr(rq->text, "/heartbeat") ? "{\"continue\":true}" : "{}";
    char reply[200];
    pthread_mutex_lock(&agent.lock);
    size_t len = strlen(agent.asked);
    (void)snprintf(agent.asked + len, sizeof(agent.asked) - len, "%.*s\n", (int)strcspn(rq->text, "\r"),
                   rq->text);
    pthread_mutex_unlock(&agent.lock);
    (void)snprintf(reply, sizeof(reply), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
                   body);
    raw_write(rq->fd, reply);
    return true;
}

struct bed {
    struct loop *loop;
    struct loop_timer *look;
    struct run *run;
    struct cli cli;
};

/* Until the completion is shown, or known to be told and something not to be shown. */
static void look(void *arg)
{
    struct bed *b = arg;
    (void)fflush(b->cli.err);
    unsigned ends = 0;
    for (const char *at = b->run->out; (at = strstr(at, "completed")); at++)
        ends++;
    pthread_mutex_lock(&agent.lock);
    if (strstr(b->run->err, "cannot be shown"))
        ends += strstr(agent.asked, "/complete") != NULL;
    pthread_mutex_unlock(&agent.lock);
    if (ends > 0)
        loop_stop(b->loop);
    else
        loop_timer_arm(b->look, 1);
}

static void tell(struct bed *b, const struct cli_args *args)
{
    static const struct sink_async_options options = {.after_ms = 1, .heartbeats = 1, .again_ms = 1};
    struct sink_async *a = NULL;
    struct err e;
    if (sink_async_new(&b->cli, args, b->loop, &options, &a, &e) < 0) {
        cr_assert(zero(ptr, a));
        b->run->code = cli_fail(&b->cli, CLI_FAILED, "%s", e.text);
        return;
    }
    sink_async_take(a, "/v1/fires/u.1/complete?key=k1", "u.1", true);
    loop_timer_arm(b->look, 1);
    loop_run(b->loop);
    sink_async_free(a);
    b->run->code = show_take_lost() ? CLI_FAILED : CLI_OK;
}

static struct run run_async(void *arg, long k)
{
    struct run r = {0};
    struct bed b = {.run = &r};
    struct err e;
    size_t out_len, err_len;
    char address[64];
    const char *words[] = {address, arg};
    struct cli_args args;
    const struct cli_command *sink = cli_commands();
    while (strcmp(sink->name, "sink") != 0)
        sink++;
    agent.server = raw_server_start(false, answer, NULL);
    agent.asked[0] = '\0';
    (void)snprintf(address, sizeof(address), "--addr=127.0.0.1:%u", raw_server_port(agent.server));
    cr_assert(zero(int, args_read(sink, arg ? 2 : 1, words, &args, &e)), "%s", e.text);
    b.cli = (struct cli){.out = open_memstream(&r.out, &out_len), .err = open_memstream(&r.err, &err_len)};
    (void)fflush(b.cli.out);
    cr_assert(zero(int, loop_new(&b.loop, &e)));
    b.look = loop_timer_new(b.loop, look, &b);
    if (k >= 0)
        fault_arm((unsigned)k);
    tell(&b, &args);
    r.fired = k >= 0 && fault_fired();
    fault_disarm();
    loop_timer_free(b.look);
    loop_free(b.loop);
    (void)fclose(b.cli.out);
    (void)fclose(b.cli.err);
    raw_server_stop(agent.server);
    return r;
}

/* It was never another than the one that was meant, and not given up. */
static void look_at_requests(void *arg, const struct run *r)
{
    (void)arg;
    for (const char *at = agent.asked; *at; at += strcspn(at, "\n") + 1)
        cr_assert(strncmp(at, "POST /v1/fires/u.1/heartbeat?key=k1 ", 36) == 0 ||
                      strncmp(at, "POST /v1/fires/u.1/complete?key=k1 ", 35) == 0,
                  "%s", at);
    cr_assert(strstr(agent.asked, "/complete") || strstr(r->err, "carillon: "), "%s", r->err);
}

Test(sink_async, a_fire_is_completed_whatever_fails)
{
    run_each(run_async, look_at_requests, NULL, "completions");
    run_each(run_async, look_at_requests, (void *)(uintptr_t) "--json", "completions as JSON");
}
