/* Commands that ask an agent, each with each of its steps failing in turn. A command without memory fails and says so: it neither
 * asks for anything but what was meant (a filter less, another namespace) nor counts as done when something of its output is
 * missing. The agent is a server that knows its answers by heart. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/cli/cli.h"
#include "tests/lib/raw_server.h"

enum { LOG_MAX = 1 << 16, STEPS_MAX = 5000 };

/* Everything that any answer has. */
#define ATTEMPT                                                                               \
    "{\"attempt\":1,\"at\":\"2026-11-23T08:00:00.000Z\",\"status\":500,\"endpoint\":\"a:1\"," \
    "\"error\":\"status 500 from a callee that says much\",\"excerpt\":\"no\",\"outcome\":\"failed\"}"
#define FIRE                                                                                     \
    "{\"fire\":\"u.1\",\"job\":\"j\",\"due\":\"2026-11-23T08:00:00.000Z\",\"outcome\":\"dead\"," \
    "\"reason\":\"gave_up\",\"service\":\"shop\",\"attempts\":[" ATTEMPT "]}"
#define STATUS                                                                                     \
    "{\"state\":\"active\",\"next_due\":\"2026-11-23T09:00:00.000Z\",\"consecutive_failures\":1,"  \
    "\"counts\":{\"seq\":3,\"dead\":1,\"pending\":1},\"created_at\":\"2026-11-23T07:00:00.000Z\"," \
    "\"last_fire\":{\"outcome\":\"dead\",\"due\":\"2026-11-23T08:00:00.000Z\",\"fire\":\"u.1\"}}"
#define JOB                                                                                          \
    "{\"id\":\"j\",\"namespace\":\"team\",\"schedule\":\"@daily\",\"labels\":{\"team\":\"pay\"},"    \
    "\"callback\":{\"http\":{\"service\":\"shop\",\"path\":\"/hook\"}},\"payload\":{\"a\":[1,2,3]}," \
    "\"status\":" STATUS "}"
#define DUE "{\"due\":\"2026-11-23T09:00:00.000Z\",\"local\":\"2026-11-23T10:00:00+01:00\",\"note\":null}"

/* What a list or a job answers, and what a change does. */
static const char read_answer[] =
    "{\"id\":\"j\",\"jobs\":[" JOB "],\"fires\":[" FIRE "],\"next_cursor\":null,\"next_from\":null,"
    "\"occurrences\":[{\"local\":\"2026-11-23T08:00:00\",\"outcome\":\"dead\",\"text\":\"gave up\"}],"
    "\"revisions\":[{\"at\":\"2026-11-23T08:00:00.000Z\",\"op\":\"put\",\"actor\":\"me\",\"version\":1}],"
    "\"next\":[" DUE "],\"payload\":{\"a\":[1,2,3]},\"attempts\":[" ATTEMPT "],\"status\":" STATUS "}";
static const char change_answer[] =
    "{\"id\":\"j\",\"deleted\":2,\"matched\":3,\"fire\":\"u.1\",\"dues\":4,\"outcome\":\"dead\","
    "\"warnings\":[\"of some words\"],\"status\":{\"next_due\":\"2026-11-23T09:00:00.000Z\"}}";
static const char lines[] = "{\"line\":1,\"status\":201,\"id\":\"a\"}\n"
                            "{\"line\":2,\"status\":200,\"id\":\"b\"}\n"
                            "{\"done\":true,\"ok\":2,\"failed\":0}\n";

static struct {
    struct raw_server *server;
    char address[40];
    pthread_mutex_t lock;
    char asked[LOG_MAX]; /* a line for each request: what it means */
} agent = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void note_request(const struct raw_request *rq)
{
    char ns[80] = "-", token[80] = "-", type[80] = "-";
    (void)raw_header(rq->text, "Carillon-Namespace", ns, sizeof(ns));
    (void)raw_header(rq->text, "Authorization", token, sizeof(token));
    (void)raw_header(rq->text, "Content-Type", type, sizeof(type));
    pthread_mutex_lock(&agent.lock);
    size_t len = strlen(agent.asked);
    (void)snprintf(agent.asked + len, sizeof(agent.asked) - len, "%.*s ns=%s %s %s %.*s\n",
                   (int)strcspn(rq->text, "\r"), rq->text, ns, token, type,
                   (int)strcspn(rq->text + rq->head_bytes, "\n"), rq->text + rq->head_bytes);
    pthread_mutex_unlock(&agent.lock);
}

static bool answer(const struct raw_request *rq)
{
    char reply[8192]; /* in one piece: a second one would wait for the first one's acknowledgement */
    const char *body = strstr(rq->text, "/v1/bulk")       ? lines
                       : strstr(rq->text, "/v1/export")   ? "{\"id\":\"a\"}\n{\"id\":\"b\"}\n"
                       : strncmp(rq->text, "GET", 3) == 0 ? read_answer
                                                          : change_answer;
    note_request(rq);
    (void)snprintf(reply, sizeof(reply), "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: %zu\r\n\r\n%s",
                   strlen(body), body);
    raw_write(rq->fd, reply);
    return true;
}

static void serve(void)
{
    agent.server = raw_server_start(false, answer, NULL);
    (void)snprintf(agent.address, sizeof(agent.address), "CARILLON_ADDR=127.0.0.1:%u",
                   raw_server_port(agent.server));
}

TestSuite(remote, .timeout = 600);

struct run {
    char *out, *err, *asked;
    int code;
};

static int64_t fixed_now(void)
{
    return 1795420800000; /* 2026-11-23T08:00:00Z */
}

static void free_run(struct run *r)
{
    free(r->out);
    free(r->err);
    mem_free(r->asked);
}

/* One command line, with step K failing; K < 0: none. *RET_FIRED: there was such a step. */
static struct run run(const char *const *words, const char *input, long k, bool *ret_fired)
{
    const char *const env[] = {agent.address, "CARILLON_TOKEN=secret", "CARILLON_NAMESPACE=team", NULL};
    struct run r = {0};
    size_t out_len, err_len;
    int argc = 0;
    while (words[argc])
        argc++;
    agent.asked[0] = '\0';
    struct cli cli = {.in = fmemopen((void *)(uintptr_t)input, strlen(input), "r"),
                      .out = open_memstream(&r.out, &out_len),
                      .err = open_memstream(&r.err, &err_len),
                      .env = env,
                      .now_ms = fixed_now};
    if (k >= 0)
        fault_arm((unsigned)k);
    r.code = cli_run(&cli, argc, words);
    *ret_fired = fault_fired();
    (void)fclose(cli.in);
    (void)fclose(cli.out);
    (void)fclose(cli.err);
    pthread_mutex_lock(&agent.lock);
    r.asked = mem_strdup(agent.asked);
    pthread_mutex_unlock(&agent.lock);
    return r;
}

/* Whether each line of ASKED is one of MEANT. */
static bool was_meant(const char *asked, const char *meant)
{
    for (const char *at = asked; *at; at += strcspn(at, "\n") + 1) {
        AUTO(mem_free) char *line = mem_try_strndup(at, strcspn(at, "\n") + 1, NULL);
        if (!strstr(meant, line))
            return false;
    }
    return true;
}

static void fail_each_step(const char *const *words, const char *input)
{
    bool fired = true;
    serve();
    struct run whole = run(words, input, -1, &fired);
    cr_assert(eq(int, whole.code, CLI_OK), "%s %s: %s%s", words[1], words[2], whole.out, whole.err);
    long k = 0;
    for (fired = true; fired; k++) {
        struct run r = run(words, input, k, &fired);
        cr_assert(lt(i64, k, STEPS_MAX), "%s never ends", words[1]);
        cr_assert(was_meant(r.asked, whole.asked), "%s %s, step %ld asked\n%s", words[1], words[2], k,
                  r.asked);
        bool same = strcmp(r.out, whole.out) == 0 && strcmp(r.asked, whole.asked) == 0;
        bool said = (*r.err && strcmp(r.err, whole.err) != 0) || (r.code != CLI_OK && *r.out);
        cr_assert(same || said, "%s %s, step %ld, code %d, without a word:\n%s\n%s", words[1], words[2], k,
                  r.code, r.out, r.asked);
        cr_assert(r.code == CLI_OK || fired, "%s %s, step %ld, code %d", words[1], words[2], k, r.code);
        free_run(&r);
    }
    cr_assert(gt(i64, k, 1), "%s has no step that can fail", words[1]);
    free_run(&whole);
    raw_server_stop(agent.server);
}

#define FAIL_EACH_STEP_WITH(input, ...) \
    fail_each_step((const char *const[]){"carillon", __VA_ARGS__, NULL}, input)
#define FAIL_EACH_STEP(...) FAIL_EACH_STEP_WITH(" ", __VA_ARGS__)

Test(remote, lists_are_whole_or_fail)
{
    FAIL_EACH_STEP("job", "list", "--prefix", "j", "--label", "team=pay");
    FAIL_EACH_STEP("job", "list", "--json");
    FAIL_EACH_STEP("job", "get", "j");
    FAIL_EACH_STEP("job", "get", "j", "--json");
    FAIL_EACH_STEP("job", "explain", "j", "--from", "2026-11-23T08:00:00Z");
    FAIL_EACH_STEP("job", "revisions", "j");
    FAIL_EACH_STEP("job", "next", "j", "--count", "5");
    FAIL_EACH_STEP("fire", "list", "--job", "j", "--outcome", "dead");
    FAIL_EACH_STEP("fire", "get", "u.1");
}

Test(remote, changes_are_those_that_were_meant)
{
    FAIL_EACH_STEP("job", "delete", "--prefix", "j", "--label", "team=pay", "--label", "kind=test");
    FAIL_EACH_STEP("job", "delete", "j");
    FAIL_EACH_STEP("job", "run", "j", "--data", "{\"a\":1}", "--force");
    FAIL_EACH_STEP("job", "resume", "j", "--catch-up", "last");
    FAIL_EACH_STEP("job", "backfill", "j", "--from", "2026-11-23T08:00:00Z", "--to", "2026-11-23T09:00:00Z");
    FAIL_EACH_STEP("deadletter", "redrive", "--job", "j", "--label", "team=pay", "--dry-run");
    FAIL_EACH_STEP("fire", "retry", "u.1");
    FAIL_EACH_STEP("in", "5m", "--url", "http://a/", "--header", "X-A: b", "--data", "{\"a\":1}");
    FAIL_EACH_STEP("in", "5m", "--service", "shop", "--data", "abc", "--content-type", "text/plain");
}

Test(remote, documents_go_in_and_out_whole)
{
    FAIL_EACH_STEP_WITH("[{\"id\":\"a\",\"schedule\":\"@daily\"},{\"id\":\"b\"}]", "job", "apply", "-");
    FAIL_EACH_STEP_WITH("[{\"id\":\"a\",\"schedule\":\"@daily\"}]", "job", "apply", "--json", "-");
    FAIL_EACH_STEP_WITH("{\"id\":\"a\"}\n{\"id\":\"b\"}\n", "job", "import", "-");
    FAIL_EACH_STEP_WITH("{\"id\":\"a\"}\n{\"id\":\"b\"}\n", "job", "import", "--json", "-");
    FAIL_EACH_STEP("job", "export");
}

Test(remote, what_needs_no_agent_is_whole_or_fails)
{
    FAIL_EACH_STEP("next", "@hourly", "--count", "3", "--tz", "Europe/Berlin");
    FAIL_EACH_STEP("next", "@hourly", "--json");
    FAIL_EACH_STEP("config", "options", "store");
    FAIL_EACH_STEP("config", "options", "--json", "store");
    FAIL_EACH_STEP("config", "sample");
    FAIL_EACH_STEP("config", "check", "--json");
    FAIL_EACH_STEP("version", "--json");
}

/* No memory is missing here: it is only too long for a request. */
Test(remote, filters_that_are_too_long_are_not_left_out)
{
    char label[9000] = "kind=";
    bool fired;
    serve();
    memset(label + 5, 'x', sizeof(label) - 6);
    struct run r =
        run((const char *const[]){"carillon", "job", "delete", "--label", "team=pay", "--label", label, NULL},
            " ", -1, &fired);
    cr_assert(eq(str, r.asked, ""));
    cr_assert(eq(int, r.code, CLI_FAILED));
    cr_assert(ne(ptr, strstr(r.err, "the request is too long"), NULL), "%s", r.err);
    free_run(&r);
    raw_server_stop(agent.server);
}
