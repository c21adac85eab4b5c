/* `carillon bench` and what it measures with, each of their steps failing: figures are whole, or none is told to be. The agent is a
 * server that calls as soon as a job is made. */
#include <arpa/inet.h>
#include <assert.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/text.h"
#include "agent/cli/bench.h"
#include "agent/cli/bench_rig.h"
#include "agent/cli/show.h"
#include "tests/lib/raw_server.h"
#include "tests/unit/cli/run.h"

TestSuite(bench, .timeout = 300);

/* What `--duration 60s` makes due of one job; all of it half of that ago, so that no machine is too slow for it. */
enum { DUES = 60, AGO_MS = 30000 };
static const struct bench_pace past = {.settle_ms = -60000, .linger_ms = 0};

/* A callback after the other to the URL at TEXT, which '"' ends. */
static void call_back(const char *text, unsigned count)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char rq[400], answer[400], due[TEXT_INSTANT_SIZE];
    const char *port = strchr(text + strlen("http://"), ':') + 1, *path = strchr(port, '/');
    to.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = connect(fd, (struct sockaddr *)&to, sizeof(to));
    assert(r == 0); /* on the server's thread, as all here */
    text_instant_print(due, clock_wall_ms() - AGO_MS);
    for (unsigned seq = 1; seq <= count; seq++) {
        int n = snprintf(
            rq, sizeof(rq),
            "POST %.*s HTTP/1.1\r\nHost: b\r\nce-time: %s\r\nCarillon-Seq: %u\r\nContent-Length: 0\r\n\r\n",
            (int)strcspn(path, "\""), path, due, seq);
        assert(send(fd, rq, (size_t)n, MSG_NOSIGNAL) == n);
        assert(recv(fd, answer, sizeof(answer), 0) > 0);
    }
    (void)close(fd);
}

static bool answer(const struct raw_request *rq)
{
    char ns[40], reply[200];
    bool bulk = strncmp(rq->text, "POST", 4) == 0;
    const char *body = bulk ? "{\"done\":true,\"ok\":1,\"failed\":0}\n" : "{}";
    assert(raw_header(rq->text, "Carillon-Namespace", ns, sizeof(ns)) && strcmp(ns, "team") == 0);
    for (const char *at = rq->text; bulk && (at = strstr(at, "\"url\":\"")); at++)
        call_back(at + 7, strstr(at, "/steady/") ? DUES : 1);
    (void)snprintf(reply, sizeof(reply), "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s",
                   strncmp(rq->text, "PUT", 3) == 0 ? "201 Created" : "200 OK", strlen(body), body);
    raw_write(rq->fd, reply);
    return true;
}

/* What depends on the clock, and the job's name: digits. */
static void mask_digits(char *text)
{
    char *to = text;
    for (const char *at = text; *at; at++)
        if (!strchr("-.0123456789 ", *at))
            *to++ = *at;
    *to = '\0';
}

static struct run run_bench(void *arg, long k)
{
    struct run r = {0};
    struct cli_args args;
    struct err e;
    char address[40];
    size_t out_len, err_len;
    const char *const env[] = {address, "CARILLON_TOKEN=secret", "CARILLON_NAMESPACE=team", NULL};
    const char *words[] = {"--jobs=2", "--rate=1", "--duration=60s", "--connections=1", arg};
    const struct cli_command *bench = cli_commands();
    while (strcmp(bench->name, "bench") != 0)
        bench++;
    struct raw_server *agent = raw_server_start(false, answer, NULL);
    (void)snprintf(address, sizeof(address), "CARILLON_ADDR=127.0.0.1:%u", raw_server_port(agent));
    struct cli cli = {
        .out = open_memstream(&r.out, &out_len), .err = open_memstream(&r.err, &err_len), .env = env};
    cr_assert(zero(int, args_read(bench, arg ? 5 : 4, words, &args, &e)), "%s", e.text);
    if (k >= 0)
        fault_arm((unsigned)k);
    r.code = bench_run(&cli, &args, &past);
    if (show_take_lost())
        r.code = cli_fail(&cli, CLI_FAILED, "no memory for all of the output");
    r.fired = k >= 0 && fault_fired();
    fault_disarm();
    (void)fclose(cli.out);
    (void)fclose(cli.err);
    raw_server_stop(agent);
    mask_digits(r.out);
    return r;
}

Test(bench, figures_are_whole_or_none_is_told_to_be)
{
    run_each(run_bench, NULL, NULL, "bench");
    run_each(run_bench, NULL, (void *)(uintptr_t) "--json", "bench --json");
}
