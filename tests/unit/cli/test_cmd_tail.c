/* `carillon tail` with each of its steps failing: an event is shown whole and as what it is, or it is said that one is missing. */
#include "tests/unit/cli/run.h"

#include "tests/lib/raw_server.h"

TestSuite(cmd_tail, .timeout = 300);

static const char events[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    "event: hello\ndata: {}\n\n"
    "event: job\ndata: {\"at\":\"2026-11-23T08:00:00.003Z\",\"namespace\":\"team\",\"job\":\"j\",\"op\":\"put\",\"version\":2}\n\n"
    "event: attempt\ndata: {\"at\":\"2026-11-23T08:00:00.004Z\",\"job\":\"not asked for\"}\n\n"
    "event: fire\ndata: {\"at\":\"2026-11-23T08:00:00.005Z\",\"job\":\"j\",\"fire\":\"u.1\",\"error\":\"two words\",\"count\":3}\n\n";

static unsigned waits;

static void count_wait(unsigned ms)
{
    (void)ms;
    waits++;
}

/* Each connection tells the same, and ends. */
static bool answer(const struct raw_request *rq)
{
    raw_write(rq->fd, events);
    return false;
}

struct agent {
    struct raw_server *server;
    bool json;
};

static struct run run_tail(void *arg, long k)
{
    struct agent *a = arg;
    char address[40];
    const char *const env[] = {address, "CARILLON_TOKEN=secret", NULL};
    a->server = raw_server_start(false, answer, NULL);
    (void)snprintf(address, sizeof(address), "CARILLON_ADDR=127.0.0.1:%u", raw_server_port(a->server));
    struct run r = run_words(
        (struct cli){.env = env, .wait_ms = count_wait},
        (const char *const[]){"carillon", "tail", "--all", "--count", "2", a->json ? "--json" : NULL, NULL},
        k);
    raw_server_stop(a->server);
    return r;
}

/* Whatever is shown of an event is what the agent told. */
static void look_at_lines(void *arg, const struct run *r)
{
    const struct agent *a = arg;
    for (const char *at = r->out; *at; at += strcspn(at, "\n") + 1) {
        AUTO(mem_free) char *line = mem_try_strndup(at, strcspn(at, "\n"), NULL);
        bool job = strstr(line, a->json ? "\"version\":2" : " version=2") != NULL;
        const char *event = a->json ? job ? "\"event\":\"job\"" : "\"event\":\"fire\""
                            : job   ? "Z job "
                                    : "Z fire ";
        cr_assert(ne(ptr, strstr(line, event), NULL), "%s", line);
    }
}

Test(cmd_tail, an_event_is_shown_as_what_it_is_or_missed)
{
    struct agent a = {0};
    run_each(run_tail, look_at_lines, &a, "tail");
    a.json = true;
    run_each(run_tail, look_at_lines, &a, "tail --json");
    cr_assert(gt(uint, waits, 0), "it never tried again");
}
