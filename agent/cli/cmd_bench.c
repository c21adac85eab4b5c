#define _GNU_SOURCE
/* How fast a running agent takes jobs, and how late it calls: a benchmark for whoever runs one. `make bench` (tests/bench) measures more,
 * and beside what the machine can do. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/json.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/cli/bench.h"
#include "agent/cli/bench_rig.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"

#define LISTEN_DEFAULT  "127.0.0.1:0"
#define JOBS_MAX        1000000
#define RATE_MAX        100000
#define CONNECTIONS_MAX 512
#define BULK_PIECE      10000
#define BULK_BYTES      ((size_t)32 << 20)
#define BULK_TIME_S     600L
#define LEAD_MS         2000 /* before what is due at one instant */
#define SETTLE_MS       2000
#define LINGER_MS       1000
#define BULK_PER_MS     4 /* jobs; slower than any store was measured: the lead grows with what is created */
#define PATIENCE_US     60000000
#define TAIL_US         30000000 /* at most, for what is on its way when the measuring ends */
#define LOOK_US         200000

struct figures {
    uint64_t p50_us, p99_us, p999_us, max_us;
};

struct bench {
    struct cli *cli;
    struct client *client;
    struct bench_rig *rig;
    uint64_t jobs, rate, duration_ms, connections;
    char prefix[32]; /* of the ids */
    struct buf url;  /* of the callee */
    const struct bench_pace *pace;
    bool json;
    json_t *report; /* with JSON */
};

/* --- figures ------------------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts US. The nearest rank; all 0 of none. */
static struct figures figures_of(uint64_t *us, size_t count)
{
    if (count == 0)
        return (struct figures){0};
    qsort(us, count, sizeof(*us), by_number);
    return (struct figures){.p50_us = us[(count - 1) / 2],
                            .p99_us = us[(count - 1) - (count - 1) / 100],
                            .p999_us = us[(count - 1) - (count - 1) / 1000],
                            .max_us = us[count - 1]};
}

static double ms(uint64_t us)
{
    return (double)us / 1000;
}

static double per_second(size_t count, uint64_t us)
{
    return (double)(uint64_t)((double)count * 1e7 / (double)(us ? us : 1) + 0.5) / 10;
}

static json_t *figures_json(const struct figures *f)
{
    return json_pack("{s:f,s:f,s:f,s:f}", "p50", ms(f->p50_us), "p99", ms(f->p99_us), "p999", ms(f->p999_us),
                     "max", ms(f->max_us));
}

/* A row of the table as far as it is known, or with --json at the end the whole. */
static void report(struct bench *b, const char *name, json_t *values, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void report(struct bench *b, const char *name, json_t *values, const char *fmt, ...)
{
    if (b->json) {
        if (json_set(b->report, name, values, NULL) < 0)
            show_set_lost();
        return;
    }
    json_decref(values);
    va_list ap;
    va_start(ap, fmt);
    (void)fprintf(b->cli->out, "%-7s ", name); /* cli_run() looks for errors at the end */
    (void)vfprintf(b->cli->out, fmt, ap);
    (void)fputc('\n', b->cli->out);
    va_end(ap);
    (void)fflush(b->cli->out);
}

/* --- jobs ---------------------------------------------------------------------------------------------------------- */

static void add_job(const struct bench *b, const char *kind, const char *schedule, size_t i, struct buf *out)
{
    buf_addf(out,
             "{\"schedule\":\"%s\",\"callback\":{\"http\":{\"url\":\"%s/%s/%zu\"}},\"payload\":{\"n\":%zu},"
             "\"description\":\"made by carillon bench\"}",
             schedule, buf_str(&b->url), kind, i, i);
}

static int refused_line(const struct bench *b, const char *text, size_t len)
{
    const char *problem = memmem(text, len, "\"problem\":", 10);
    const char *end = problem ? memchr(problem, '\n', len - (size_t)(problem - text)) : NULL;
    return cli_fail(b->cli, CLI_FAILED, "the agent refused a job: %s",
                    problem ? TEXTQ(problem, (size_t)((end ? end : text + len) - problem))
                            : "it did not say why");
}

static int send_bulk(struct bench *b, const struct buf *lines)
{
    struct err e;
    struct client_request rq = {.method = "POST",
                                .path = "/v1/bulk",
                                .content_type = "application/x-ndjson",
                                .body = buf_str(lines),
                                .body_bytes = lines->len,
                                .timeout_s = BULK_TIME_S};
    AUTO(client_reply_fini) struct client_reply reply = {.status = 0};
    if (buf_check(lines, &e) < 0)
        return cli_fail(b->cli, CLI_FAILED, "%s", e.text);
    int r = client_send(b->client, &rq, &reply, &e);
    if (r < 0)
        return client_explain_failure(b->client, r, &e);
    if (reply.status / 100 != 2)
        return client_explain_refusal(b->client, &rq, &reply);
    return memmem(buf_str(&reply.body), reply.body.len, "\"failed\":0}", 11)
               ? CLI_OK
               : refused_line(b, buf_str(&reply.body), reply.body.len);
}

/* COUNT jobs with SCHEDULE by /v1/bulk; exit code. */
static int create(struct bench *b, const char *kind, const char *schedule, size_t count)
{
    AUTO(buf_fini) struct buf lines = BUF_INIT(BULK_BYTES);
    int code = CLI_OK;
    for (size_t i = 0; code == CLI_OK && i < count; i++) {
        buf_addf(&lines, "{\"op\":\"create\",\"id\":\"%s%s-%zu\",\"job\":", b->prefix, kind, i);
        add_job(b, kind, schedule, i, &lines);
        buf_add_str(&lines, "}\n");
        if ((i + 1) % BULK_PIECE == 0 || i + 1 == count) {
            code = send_bulk(b, &lines);
            buf_reset(&lines);
        }
    }
    return code;
}

static int delete_all(struct bench *b)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(256);
    AUTO(json_decref) json_t *answer = NULL;
    buf_addf(&path, "/v1/jobs?prefix=%s", b->prefix);
    return client_ask(b->client, "DELETE", client_path_text(&path), NULL, &answer);
}

static int interrupted(const struct bench *b)
{
    return cli_fail(b->cli, CLI_FAILED, "interrupted");
}

/* --- what is measured ---------------------------------------------------------------------------------------------- */

static void make_submit(void *arg, size_t i, struct buf *path, struct buf *body)
{
    const struct bench *b = arg;
    buf_addf(path, "/v1/jobs/%ssubmit-%zu", b->prefix, i);
    add_job(b, "submit", "@after 1h", i, body);
}

static int measure_submit(struct bench *b)
{
    struct err e;
    AUTO(mem_free) uint64_t *us = mem_new_array(uint64_t, b->jobs);
    uint64_t took_us = 0;
    struct bench_requests requests = {.method = "PUT",
                                      .make = make_submit,
                                      .arg = b,
                                      .count = b->jobs,
                                      .connections = (unsigned)b->connections,
                                      .status = 201};
    AUTO(client_reply_fini) struct client_reply refused = {.status = 0};
    int r = bench_rig_send(b->rig, &requests, us, &took_us, &refused, &e);
    if (r == -ERR_INVALID)
        return client_explain_refusal(
            b->client, &(struct client_request){.method = "PUT", .path = "/v1/jobs"}, &refused);
    if (r == -ERR_CANCELLED)
        return interrupted(b);
    if (r < 0)
        return client_explain_failure(b->client, r, &e);
    struct figures f = figures_of(us, b->jobs);
    double rate = per_second(b->jobs, took_us);
    report(b, "submit",
           json_pack("{s:I,s:I,s:f,s:o}", "jobs", (json_int_t)b->jobs, "connections",
                     (json_int_t)b->connections, "per_second", rate, "ms", figures_json(&f)),
           "%8.0f jobs/s, one by one over %" PRIu64 " connections: p50 %.2f, p99 %.2f, max %.2f ms", rate,
           b->connections, ms(f.p50_us), ms(f.p99_us), ms(f.max_us));
    return CLI_OK;
}

/* Arrivals of distinct fires; their lateness into US. Those that are too early count as EARLY and as 0. */
struct tally {
    uint64_t *us;
    size_t distinct, repeats, early;
    size_t missing; /* numbers that a job's later ones leave out */
    size_t jobs;    /* of which something came */
};

/* Of what has come so far, with dues from FROM_US to before TO_US. */
static struct tally tally_of(struct bench_rig *rig, int64_t from_us, int64_t to_us)
{
    size_t count;
    const struct bench_arrival *a = bench_rig_arrivals(rig, &count);
    struct tally t = {.us = mem_new_array(uint64_t, count + 1)};
    uint32_t seq = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && a[i].job == a[i - 1].job && a[i].seq == a[i - 1].seq) {
            t.repeats++;
            continue;
        }
        if (i == 0 || a[i].job != a[i - 1].job) {
            seq = 0;
            t.jobs++;
        }
        t.missing += a[i].seq - seq - 1;
        seq = a[i].seq;
        t.early += a[i].lateness_us < 0;
        int64_t due_us = a[i].at_us - a[i].lateness_us;
        if (due_us < from_us || due_us >= to_us)
            continue;
        t.us[t.distinct++] = a[i].lateness_us > 0 ? (uint64_t)a[i].lateness_us : 0;
    }
    return t;
}

static int measure_burst(struct bench *b)
{
    char due[TEXT_INSTANT_SIZE], schedule[TEXT_INSTANT_SIZE + 8];
    int64_t due_ms = clock_wall_ms() + LEAD_MS + (int64_t)b->jobs / BULK_PER_MS;
    text_instant_print(due, due_ms);
    (void)snprintf(schedule, sizeof(schedule), "@at %s", due); /* it fits */
    bench_rig_reset(b->rig);
    uint64_t begin_us = clock_boot_us();
    int code = create(b, "burst", schedule, b->jobs);
    if (code != CLI_OK)
        return code;
    double rate = per_second(b->jobs, clock_boot_us() - begin_us);
    report(b, "bulk", json_pack("{s:I,s:f}", "jobs", (json_int_t)b->jobs, "per_second", rate),
           "%8.0f jobs/s in requests of up to %d", rate, BULK_PIECE);
    if (clock_wall_ms() >= due_ms)
        return cli_fail(b->cli, CLI_FAILED,
                        "creating them took so long that they were due meanwhile; try fewer --jobs");
    if (!bench_rig_wait(b->rig, b->jobs, due_ms * 1000 + PATIENCE_US))
        return interrupted(b);
    struct tally t = tally_of(b->rig, INT64_MIN, INT64_MAX);
    struct figures f = figures_of(t.us, t.distinct);
    mem_free(t.us);
    report(b, "burst",
           json_pack("{s:I,s:I,s:I,s:o}", "fires", (json_int_t)t.distinct, "missing",
                     (json_int_t)(b->jobs - t.distinct), "repeats", (json_int_t)t.repeats, "lateness_ms",
                     figures_json(&f)),
           "%8zu calls due at one instant: p50 %.1f, p99 %.1f, last %.1f ms late; missing %zu, repeated %zu",
           t.distinct, ms(f.p50_us), ms(f.p99_us), ms(f.max_us), (size_t)b->jobs - t.distinct, t.repeats);
    return t.distinct == b->jobs && t.early == 0
               ? CLI_OK
               : cli_fail(b->cli, CLI_FAILED, "not every call came in time");
}

static int measure_steady(struct bench *b)
{
    bench_rig_reset(b->rig);
    int code = create(b, "steady", "@every 1s", b->rate);
    if (code != CLI_OK)
        return code;
    int64_t from_us = clock_wall_us() + b->pace->settle_ms * 1000,
            to_us = from_us + (int64_t)b->duration_ms * 1000;
    if (!bench_rig_wait(b->rig, SIZE_MAX, to_us + b->pace->linger_ms * 1000))
        return interrupted(b);
    struct tally t = tally_of(b->rig, from_us, to_us);
    int64_t until_us = clock_wall_us() + TAIL_US;
    size_t due = (size_t)(b->rate * (b->duration_ms / 1000)); /* at least */
    while ((t.missing > 0 || t.jobs < b->rate || t.distinct < due) && clock_wall_us() < until_us &&
           bench_rig_wait(b->rig, SIZE_MAX, clock_wall_us() + LOOK_US)) {
        mem_free(t.us);
        t = tally_of(b->rig, from_us, to_us);
    }
    struct figures f = figures_of(t.us, t.distinct);
    mem_free(t.us);
    t.missing += b->rate - t.jobs;
    double rate = per_second(t.distinct, b->duration_ms * 1000);
    report(b, "steady",
           json_pack("{s:I,s:I,s:f,s:I,s:I,s:I,s:o}", "jobs", (json_int_t)b->rate, "duration_ms",
                     (json_int_t)b->duration_ms, "per_second", rate, "missing", (json_int_t)t.missing,
                     "repeats", (json_int_t)t.repeats, "early", (json_int_t)t.early, "lateness_ms",
                     figures_json(&f)),
           "%8.0f calls/s of %" PRIu64
           " due: p50 %.1f, p99 %.1f, p99.9 %.1f, max %.1f ms late; missing %zu, repeated %zu",
           rate, b->rate, ms(f.p50_us), ms(f.p99_us), ms(f.p999_us), ms(f.max_us), t.missing, t.repeats);
    return t.missing == 0 && t.early == 0 ? CLI_OK
                                          : cli_fail(b->cli, CLI_FAILED, "not every call came in time");
}

static int measure(struct bench *b)
{
    int code = measure_submit(b);
    if (code == CLI_OK)
        code = measure_burst(b);
    if (code == CLI_OK)
        code = measure_steady(b);
    int cleaned = code == CLI_UNREACHABLE ? CLI_OK : delete_all(b);
    if (cleaned != CLI_OK)
        cli_hint(b->cli, "jobs are left: carillon job delete --prefix %s", b->prefix);
    return code == CLI_OK ? cleaned : code;
}

/* --- command ------------------------------------------------------------------------------------------------------- */

static int read_options(struct bench *b, const struct cli_args *args, struct err *e)
{
    uint64_t seed = 0;
    int r = args_u64(args, "--jobs", 1, JOBS_MAX, &b->jobs, e);
    if (r == 0)
        r = args_u64(args, "--rate", 1, RATE_MAX, &b->rate, e);
    if (r == 0)
        r = args_duration_ms(args, "--duration", &b->duration_ms, e);
    if (r == 0 && b->duration_ms < 1000)
        r = err_set(e, ERR_INVALID, "--duration: at least 1s");
    if (r == 0)
        r = args_u64(args, "--connections", 1, CONNECTIONS_MAX, &b->connections, e);
    if (r == 0)
        r = rng_seed_os(&seed, e);
    (void)snprintf(b->prefix, sizeof(b->prefix), "bench-%08" PRIx32 "-", (uint32_t)seed); /* it fits */
    return r;
}

/* Jobs call URL (NULL: the rig's own address). */
static int measure_with(struct bench *b, const char *url)
{
    struct err e;
    b->url = BUF_INIT(8192);
    buf_addf(&b->url, "%s%s", url ? "" : "http://", url ? url : bench_rig_address(b->rig));
    b->report =
        b->json ? json_object() : NULL; /* without memory nothing of it is shown, which cli_run() tells */
    int r = buf_check(&b->url, &e);
    int code = r == 0 ? measure(b) : cli_fail(b->cli, CLI_FAILED, "%s", e.text);
    if (b->json)
        show_json(b->cli->out, b->report);
    json_decref(b->report);
    buf_fini(&b->url);
    return code;
}

int bench_run(struct cli *cli, const struct cli_args *args, const struct bench_pace *pace)
{
    struct err e;
    struct bench b = {.cli = cli, .jobs = 1000, .rate = 500, .duration_ms = 10000, .connections = 16};
    const char *listen = args_get(args, "--listen");
    b.pace = pace;
    b.json = args_has(args, "--json");
    if (read_options(&b, args, &e) < 0)
        return cli_fail(cli, e.code == ERR_INVALID ? CLI_USAGE : CLI_FAILED, "%s", e.text);
    AUTO(client_free) struct client *client = client_open(cli, args);
    if (!client)
        return CLI_USAGE;
    AUTO(bench_rig_free) struct bench_rig *rig = NULL;
    if (bench_rig_new(client, listen ? listen : LISTEN_DEFAULT, &rig, &e) < 0)
        return cli_fail(cli, CLI_FAILED, "%s", e.text);
    b.client = client;
    b.rig = rig;
    return measure_with(&b, args_get(args, "--url"));
}

int cmd_bench(struct cli *cli, const struct cli_args *args)
{
    static const struct bench_pace pace = {.settle_ms = SETTLE_MS, .linger_ms = LINGER_MS};
    return bench_run(cli, args, &pace);
}
