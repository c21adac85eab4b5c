/* A callee for trying things out, over HTTP or gRPC. The servers' threads only note when a request came; all else happens on the
 * loop. */
#include <signal.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/json.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"
#include "agent/cli/sink_async.h"
#include "agent/core/grpc_code.h"
#include "agent/io/grpcd.h"
#include "agent/io/httpd.h"
#include "agent/io/loop.h"
#include "callback/fire_message.h"
#include "callback/sign.h"

#define LISTEN_DEFAULT  "127.0.0.1:8080"
#define BODY_MAX        ((int64_t)16 << 20)
#define CONNECTIONS_MAX 10000
#define HEADER_MAX      ((size_t)128 << 10)
#define IDLE_MS         120000
#define STATUS_FAILED   500
#define STATUS_TAKEN    202 /* to be completed later */
#define AFTER_MS        1000
#define AGAIN_MS        1000
#define STALE_S         300 /* what the libraries of the standard allow */
#define CODE_FAILED     14  /* UNAVAILABLE */

/* A request on its way to its answer. */
struct visit {
    struct loop_msg msg;
    struct sink *sink;
    struct httpd_request *rq; /* over HTTP, else */
    struct grpcd_call *call;  /* over gRPC */
    int64_t arrived_ms;       /* wall clock */
    int64_t answer_boot_ms;   /* when to answer */
    int status;               /* HTTP's or gRPC's */
    const char *signature;    /* what became of it; NULL: not looked at */
    bool taken, ok;           /* to be completed, and how */
    struct visit *next;       /* in the queue of those that wait */
};

struct sink {
    struct cli *cli;
    struct loop *loop;
    struct httpd *httpd; /* NULL: gRPC only */
    struct grpcd *grpcd; /* NULL: HTTP only */
    struct loop_timer *timer;
    struct visit *first, **last; /* waiting for their answer, in the order of their times */
    struct visit *hanging;       /* will not get one */
    struct rng rng;
    struct sink_async *async; /* NULL: answers are final */
    struct sign_keys *keys;   /* NULL: signatures are not looked at */
    int status, code;
    uint64_t fail_first;
    double fail_rate;
    uint64_t delay_ms;
    struct sink_async_options later;
    bool hang, json, ending;
};

/* --- what came ----------------------------------------------------------------------------------------------------- */

/* NAME in lower case. */
static const char *header(const struct visit *v, const char *name)
{
    return v->call ? grpcd_metadata(v->call, name) : httpd_header(v->rq, name);
}

static const char *method_of(const struct visit *v)
{
    return v->call ? "gRPC" : httpd_method(v->rq);
}

static const char *path_of(const struct visit *v)
{
    return v->call ? grpcd_method(v->call) : httpd_path(v->rq);
}

/* The payload of a fire, whatever carries it. ERR_NOMEM, ERR_TOO_BIG. */
static int read_payload(const struct visit *v, struct buf *out, struct err *e)
{
    size_t bytes;
    const char *body = v->call ? grpcd_message(v->call, &bytes) : httpd_body(v->rq, &bytes);
    if (v->call && strcmp(path_of(v), FIRE_METHOD) == 0) {
        int r = fire_message_payload(body, bytes, out, e);
        return r == -ERR_INVALID ? 0 : r; /* of another shape: empty */
    }
    buf_add(out, body, bytes);
    return buf_check(out, e);
}

/* The sink goes on, but not as if all had been shown. */
static void not_shown(const struct visit *v, const char *what, const struct err *e)
{
    show_set_lost();
    (void)cli_fail(v->sink->cli, CLI_FAILED, "%s: %s", what, e->text); /* said at the end too */
}

struct facts {
    const char *job, *fire, *due;
    uint64_t seq; /* 0: not said */
    uint32_t attempt;
    int64_t lateness_ms;
};

/* False: the request is no callback of carillon's. */
static bool read_facts(const struct visit *v, struct facts *ret)
{
    const char *attempt = header(v, "carillon-attempt"), *due = header(v, "ce-time");
    const char *seq = header(v, "carillon-seq");
    int64_t due_ms;
    *ret =
        (struct facts){.job = header(v, "ce-subject"), .fire = header(v, "ce-id"), .due = due, .attempt = 1};
    if (!ret->job || !ret->fire || !due || text_instant_ms(due, strlen(due), &due_ms, NULL) < 0)
        return false;
    if (seq)
        (void)text_u64(seq, strlen(seq), 1, INT64_MAX, &ret->seq, NULL); /* else it stays 0 */
    if (attempt)
        (void)text_u32(attempt, strlen(attempt), 1, UINT32_MAX, &ret->attempt, NULL); /* else it stays 1 */
    ret->lateness_ms = v->arrived_ms - due_ms;
    return true;
}

/* NULL: that could not be found out. */
static const char *check_signature(const struct visit *v)
{
    const char *id = header(v, "webhook-id"), *at = header(v, "webhook-timestamp");
    const char *signatures = header(v, "webhook-signature");
    int64_t timestamp_s;
    bool good = false;
    struct err e;
    if (!id || !at || !signatures)
        return "missing";
    if (text_i64(at, strlen(at), 0, INT64_MAX, &timestamp_s, NULL) < 0)
        return "wrong";
    AUTO(buf_fini) struct buf body = BUF_INIT(BODY_MAX);
    int r = read_payload(v, &body, &e);
    struct sign_message m = {
        .id = id, .timestamp_s = timestamp_s, .body = buf_str(&body), .body_bytes = body.len};
    if (r == 0)
        r = sign_verify(v->sink->keys, &m, signatures, &good, &e);
    if (r < 0) {
        not_shown(v, "a signature cannot be checked", &e);
        return NULL;
    }
    if (!good)
        return "wrong";
    int64_t age_s = v->arrived_ms / 1000 - timestamp_s;
    return age_s > STALE_S || age_s < -STALE_S ? "stale" : "verified";
}

/* --- printing ------------------------------------------------------------------------------------------------------ */

static int set_body(const struct visit *v, json_t *line, struct err *e)
{
    AUTO(buf_fini) struct buf body = BUF_INIT(BODY_MAX);
    json_t *value = NULL;
    int r = read_payload(v, &body, e);
    if (r < 0)
        return r;
    if (body.len == 0)
        return json_set(line, "body", json_null(), e);
    r = json_read(buf_str(&body), body.len, (size_t)BODY_MAX, &value, e);
    if (r == -ERR_NOMEM)
        return r;
    return json_set(line, "body", r == 0 ? value : show_text_json(buf_str(&body), body.len), e);
}

static json_t *status_json(const struct visit *v)
{
    if (v->sink->hang)
        return json_null();
    return v->call ? json_string(grpc_code_name(v->status)) : json_integer(v->status);
}

static int set_text(json_t *line, const char *key, const char *text, struct err *e)
{
    return json_set(line, key, show_text_json(text, strlen(text)), e);
}

static int set_facts(json_t *line, const struct facts *f, struct err *e)
{
    int r = set_text(line, "job", f->job, e);
    if (r == 0)
        r = set_text(line, "fire", f->fire, e);
    if (r == 0)
        r = json_set(line, "seq", json_integer((json_int_t)f->seq), e);
    if (r == 0)
        r = set_text(line, "due", f->due, e);
    if (r == 0)
        r = json_set(line, "attempt", json_integer(f->attempt), e);
    return r == 0 ? json_set(line, "lateness_ms", json_integer(f->lateness_ms), e) : r;
}

static void print_json(const struct visit *v, const struct facts *f, bool callback)
{
    AUTO(json_decref) json_t *line = json_object();
    struct err e;
    int r = callback ? set_facts(line, f, &e) : 0;
    if (r == 0)
        r = set_text(line, "method", method_of(v), &e);
    if (r == 0)
        r = set_text(line, "path", path_of(v), &e);
    if (r == 0)
        r = json_set(line, "status", status_json(v), &e);
    if (r == 0 && v->signature)
        r = json_set(line, "signature", json_string(v->signature), &e);
    if (r == 0)
        r = set_body(v, line, &e);
    if (r == 0)
        r = show_line(v->sink->cli->out, line, &e);
    if (r < 0)
        not_shown(v, "a request cannot be shown", &e);
}

static void print_text(const struct visit *v, const struct facts *f, bool callback)
{
    char number[16];
    (void)snprintf(number, sizeof(number), "%d", v->status); /* three digits */
    const char *status = v->sink->hang ? "none" : v->call ? grpc_code_name(v->status) : number;
    if (callback)
        (void)fprintf(v->sink->cli->out, "callback job=%s fire=%s attempt=%u lateness_ms=%lld status=%s",
                      LOGQ(f->job), LOGQ(f->fire), f->attempt, (long long)f->lateness_ms, status);
    else
        (void)fprintf(v->sink->cli->out, "request method=%s path=%s status=%s", LOGQ(method_of(v)),
                      LOGQ(path_of(v)), status);
    if (v->signature)
        (void)fprintf(v->sink->cli->out, " signature=%s", v->signature);
    (void)fputc('\n', v->sink->cli->out);
}

/* --- answering ----------------------------------------------------------------------------------------------------- */

static void answer(struct visit *v)
{
    if (v->taken && !v->sink->ending)
        sink_async_take(v->sink->async, header(v, "carillon-complete"), header(v, "ce-id"), v->ok);
    if (v->call)
        grpcd_reply(v->call, v->status, v->status ? "told to fail" : NULL, NULL,
                    0); /* a FireReply is empty */
    else
        httpd_reply(v->rq, v->status, NULL, 0, NULL);
    mem_free(v);
}

static void answer_due(void *arg)
{
    struct sink *s = arg;
    while (s->first && s->first->answer_boot_ms <= loop_now_ms(s->loop)) {
        struct visit *v = s->first;
        s->first = v->next;
        if (!s->first)
            s->last = &s->first;
        answer(v);
    }
    if (s->first)
        loop_timer_arm(s->timer, s->first->answer_boot_ms - loop_now_ms(s->loop));
}

static void wait_for_answer(struct sink *s, struct visit *v)
{
    v->answer_boot_ms = loop_now_ms(s->loop) + (int64_t)s->delay_ms;
    *s->last = v;
    s->last = &v->next;
    if (!loop_timer_armed(s->timer))
        loop_timer_arm(s->timer, (int64_t)s->delay_ms);
}

static int choose_status(struct visit *v, const struct facts *f, bool callback)
{
    struct sink *s = v->sink;
    const char *complete = header(v, "carillon-complete");
    v->ok = !((callback && f->attempt <= s->fail_first) ||
              (s->fail_rate > 0 && rng_double(&s->rng) < s->fail_rate));
    v->taken = s->async && callback && complete && !v->call && sink_async_can(s->async, complete);
    if (v->taken)
        return STATUS_TAKEN;
    if (!v->ok)
        return v->call ? CODE_FAILED : STATUS_FAILED;
    return v->call ? s->code : s->status;
}

static void take_visit(struct loop_msg *msg)
{
    struct visit *v = (struct visit *)msg; /* its first member */
    struct sink *s = v->sink;
    struct facts facts;
    bool callback = read_facts(v, &facts);
    v->status = choose_status(v, &facts, callback);
    v->signature = s->keys ? check_signature(v) : NULL;
    if (s->json)
        print_json(v, &facts, callback);
    else
        print_text(v, &facts, callback);
    (void)fflush(s->cli->out); /* cli_run() looks for errors at the end */
    if (s->hang && !s->ending) {
        v->next = s->hanging;
        s->hanging = v;
    } else if (s->delay_ms > 0 && !s->ending) {
        wait_for_answer(s, v);
    } else {
        answer(v);
    }
}

/* --- server -------------------------------------------------------------------------------------------------------- */

static int64_t on_accept(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return BODY_MAX;
}

static void tell_loop(struct sink *s, struct httpd_request *rq, struct grpcd_call *call)
{
    struct visit *v = mem_new(struct visit);
    v->msg.run = take_visit;
    v->sink = s;
    v->rq = rq;
    v->call = call;
    v->arrived_ms = clock_wall_ms();
    loop_post(s->loop, &v->msg);
}

static void on_request(struct httpd_request *rq, void *arg)
{
    tell_loop(arg, rq, NULL);
}

static void on_call(struct grpcd_call *call, void *arg)
{
    tell_loop(arg, NULL, call);
}

static void on_too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    httpd_reply(rq, 413, NULL, 0, NULL);
}

static void on_signal(void *arg, int signum)
{
    (void)signum;
    loop_stop(((struct sink *)arg)->loop);
}

static int read_code(struct sink *s, const struct cli_args *args, struct err *e)
{
    const char *name = args_get(args, "--code");
    s->code = name ? grpc_code_find(name) : 0;
    return s->code < 0 ? err_set(e, ERR_INVALID, "--code: %s is no gRPC code such as OK or UNAVAILABLE",
                                 TEXTQ(name, strlen(name)))
                       : 0;
}

static int read_options(struct sink *s, const struct cli_args *args, struct err *e)
{
    uint64_t status = 200, seed = 0;
    s->hang = args_has(args, "--hang");
    s->json = args_has(args, "--json");
    int r = args_u64(args, "--status", 200, 599, &status, e);
    if (r == 0)
        r = read_code(s, args, e);
    if (r == 0)
        r = args_u64(args, "--fail-first", 0, 1000000, &s->fail_first, e);
    if (r == 0)
        r = args_double(args, "--fail-rate", 0, 1, &s->fail_rate, e);
    if (r == 0)
        r = args_duration_ms(args, "--delay", &s->delay_ms, e);
    s->later = (struct sink_async_options){.after_ms = AFTER_MS, .again_ms = AGAIN_MS};
    if (r == 0)
        r = args_duration_ms(args, "--complete-after", &s->later.after_ms, e);
    if (r == 0)
        r = args_u64(args, "--heartbeats", 0, UINT32_MAX, &s->later.heartbeats, e);
    if (r == 0)
        r = rng_seed_os(&seed, e);
    s->status = (int)status;
    rng_init(&s->rng, seed);
    return r;
}

static int start_httpd(struct sink *s, const char *listen, struct err *e)
{
    struct httpd_options o = {.listen = listen,
                              .socket_mode = 0660,
                              .connections_max = CONNECTIONS_MAX,
                              .idle_timeout_ms = IDLE_MS,
                              .header_bytes_max = HEADER_MAX,
                              .accept = on_accept,
                              .handle = on_request,
                              .too_large = on_too_large,
                              .arg = s};
    return httpd_start(&o, &s->httpd, e);
}

static int start_grpcd(struct sink *s, const char *listen, struct err *e)
{
    struct grpcd_options o = {.listen = listen, .handle = on_call, .arg = s};
    return grpcd_start(&o, &s->grpcd, e);
}

static int load_keys(struct sink *s, const char *path, struct err *e)
{
    int r = sign_keys_load(path, &s->keys, e);
    if (r == 0 && sign_keys_count(s->keys) == 0)
        r = err_set(e, ERR_INVALID, "'%s' holds no key", path);
    return r;
}

/* With gRPC alone nobody expects a web server beside it. */
static int start(struct sink *s, const struct cli_args *args, struct err *e)
{
    const char *listen = args_get(args, "--listen"), *grpc = args_get(args, "--grpc");
    const char *keys = args_get(args, "--signing-keys-file");
    int r = keys ? load_keys(s, keys, e) : 0;
    if (r == 0 && args_has(args, "--async"))
        r = sink_async_new(s->cli, args, s->loop, &s->later, &s->async, e);
    if (r == 0)
        r = loop_signal(s->loop, SIGINT, on_signal, s, e);
    if (r == 0)
        r = loop_signal(s->loop, SIGTERM, on_signal, s, e);
    if (r == 0 && (listen || !grpc))
        r = start_httpd(s, listen ? listen : LISTEN_DEFAULT, e);
    if (r == 0 && grpc)
        r = start_grpcd(s, grpc, e);
    return r;
}

/* After the servers have gone: their requests are answered to nobody, which frees them. */
static void drop_visits(struct visit *list)
{
    while (list) {
        struct visit *v = list;
        list = v->next;
        answer(v);
    }
}

static void serve(struct sink *s)
{
    if (s->httpd)
        (void)fprintf(s->cli->err, "sink listens on %s\n", httpd_address(s->httpd));
    if (s->grpcd)
        (void)fprintf(s->cli->err, "sink listens on %s (gRPC)\n", grpcd_address(s->grpcd));
    loop_run(s->loop);
}

static void stop(struct sink *s)
{
    s->ending = true;
    if (s->httpd)
        httpd_stop(s->httpd);
    grpcd_stop(s->grpcd);
    drop_visits(s->first);
    drop_visits(s->hanging);
    sink_async_free(s->async);
    sign_keys_unref(s->keys);
}

int cmd_sink(struct cli *cli, const struct cli_args *args)
{
    struct err e;
    struct sink s = {.cli = cli};
    s.last = &s.first;
    if (read_options(&s, args, &e) < 0)
        return cli_fail(cli, e.code == ERR_INVALID ? CLI_USAGE : CLI_FAILED, "%s", e.text);
    if (loop_new(&s.loop, &e) < 0)
        return cli_fail(cli, CLI_FAILED, "%s", e.text);
    s.timer = loop_timer_new(s.loop, answer_due, &s);
    int r = start(&s, args, &e);
    if (r == 0)
        serve(&s);
    stop(&s);
    loop_timer_free(s.timer);
    loop_free(s.loop);
    return r == 0 ? CLI_OK : cli_fail(cli, CLI_FAILED, "%s", e.text);
}
