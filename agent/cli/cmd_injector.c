/* The admission webhook's server: reviews are answered on the server's thread; the loop waits for signals and looks at files. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>

#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/cli/commands.h"
#include "agent/inject.h"
#include "agent/io/file.h"
#include "agent/io/httpd.h"
#include "agent/io/loop.h"

#define LISTEN_DEFAULT  "0.0.0.0:8443"
#define CONNECTIONS_MAX 1000
#define HEADER_MAX      ((size_t)32 << 10)
#define IDLE_MS         60000
#define LOOK_MS         4000
#define LINGER_MS       5000
#define LAST_WORDS_MS   1000

static const struct log_ctx log_here = {.module = "injector"};

struct injector {
    struct loop *loop;
    struct httpd *httpd;
    struct loop_timer *timer;
    struct loop_timer *end;
    uint64_t linger_ms;
    bool ending;
    const char *sidecar; /* file */
    struct file_watch watch;
    pthread_mutex_t lock;
    struct inject_template *template; /* under lock */
};

/* --- requests: the server's thread --------------------------------------------------------------------------------- */

static void reply_text(struct httpd_request *rq, int status, const char *text, const char *allow)
{
    const struct httpd_header headers[] = {{"Content-Type", "text/plain; charset=utf-8"}, {"Allow", allow}};
    AUTO(buf_fini) struct buf body = BUF_INIT(1000);
    buf_addf(&body, "%s\n", text);
    httpd_reply(rq, status, headers, allow ? 2 : 1, &body);
}

static bool is_probe(const char *path)
{
    return strcmp(path, "/livez") == 0 || strcmp(path, "/readyz") == 0;
}

/* "application/json", whatever parameters follow. */
static bool is_json(const char *type)
{
    static const char json[] = "application/json";
    size_t len = sizeof(json) - 1;
    return type && strncasecmp(type, json, len) == 0 && strchr("; \t", type[len]);
}

static int64_t on_accept(struct httpd_request *rq, void *arg)
{
    const char *path = httpd_path(rq), *method = httpd_method(rq);
    (void)arg;
    if (is_probe(path) && strcmp(method, "GET") == 0)
        return 0;
    if (is_probe(path))
        reply_text(rq, 405, "GET alone", "GET");
    else if (strcmp(path, "/inject") != 0)
        reply_text(rq, 404, "there is /inject, /livez and /readyz", NULL);
    else if (strcmp(method, "POST") != 0)
        reply_text(rq, 405, "POST alone", "POST");
    else if (!is_json(httpd_header(rq, "Content-Type")))
        reply_text(rq, 415, "an AdmissionReview is application/json", NULL);
    else
        return (int64_t)INJECT_REVIEW_BYTES_MAX;
    return -1;
}

static void log_verdict(const struct inject_verdict *v)
{
    if (v->result == INJECT_PATCHED)
        log_info(&log_here, "sidecar injected", "namespace=%s pod=%s warning=%s", LOGQ(v->ns), LOGQ(v->pod),
                 LOGQ(v->why));
    else if (v->result == INJECT_REFUSED)
        log_warn(&log_here, "pod refused", "namespace=%s pod=%s error=%s", LOGQ(v->ns), LOGQ(v->pod),
                 LOGQ(v->why));
    else
        log_debug(&log_here, "pod left as it is", "namespace=%s pod=%s", LOGQ(v->ns), LOGQ(v->pod));
}

static void answer_review(struct injector *i, struct httpd_request *rq)
{
    static const struct httpd_header type = {"Content-Type", "application/json"};
    AUTO(buf_fini) struct buf out = BUF_INIT(INJECT_REVIEW_BYTES_MAX);
    struct inject_verdict verdict;
    struct err e = {0};
    size_t len;
    const char *body = httpd_body(rq, &len);
    (void)pthread_mutex_lock(&i->lock); /* not an error-checking one: cannot fail, as below */
    int rc = inject_review(i->template, body, len, &out, &verdict, &e);
    (void)pthread_mutex_unlock(&i->lock);
    if (rc == 0) {
        log_verdict(&verdict);
        httpd_reply(rq, 200, &type, 1, &out);
        return;
    }
    log_warn(&log_here, "review not answered", "error=%s", LOGQ(e.text));
    reply_text(rq, rc == -ERR_NOMEM ? 503 : 400, e.text, NULL);
}

static void on_request(struct httpd_request *rq, void *arg)
{
    if (is_probe(httpd_path(rq)))
        reply_text(rq, 200, "ok", NULL);
    else
        answer_review(arg, rq);
}

static void on_too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    reply_text(rq, 413, "an AdmissionReview has at most 8 MiB", NULL);
}

/* --- files and signals: the loop ----------------------------------------------------------------------------------- */

static int read_template(const char *file, struct inject_template **ret, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(INJECT_TEMPLATE_BYTES_MAX);
    int rc = file_read(file, &text, e);
    if (rc == 0)
        rc = inject_template_read(buf_str(&text), text.len, ret, e);
    return rc < 0 ? err_wrap(e, "'%s'", file) : 0;
}

static void look_at_template(struct injector *i)
{
    struct inject_template *next = NULL, *before;
    struct err e;
    if (!file_watch_changed(&i->watch))
        return;
    if (read_template(i->sidecar, &next, &e) < 0) {
        log_error(&log_here, "sidecar not read again, the old one stays in use", "error=%s", LOGQ(e.text));
        return;
    }
    (void)pthread_mutex_lock(&i->lock);
    before = i->template;
    i->template = next;
    (void)pthread_mutex_unlock(&i->lock);
    inject_template_free(before);
    log_info(&log_here, "sidecar read again", "file=%s", LOGQ(i->sidecar));
}

static void look(void *arg)
{
    struct injector *i = arg;
    struct err e;
    bool changed;
    if (httpd_look_tls(i->httpd, &changed, &e) < 0)
        log_error(&log_here, "certificate not read again, the old one stays in use", "error=%s",
                  LOGQ(e.text));
    else if (changed)
        log_info(&log_here, "certificate read again", "address=%s", LOGQ(httpd_address(i->httpd)));
    look_at_template(i);
    loop_timer_arm(i->timer, LOOK_MS);
}

static void on_signal(void *arg, int signum)
{
    struct injector *i = arg;
    if (signum == SIGHUP) {
        look(i);
        return;
    }
    log_info(&log_here, "ending", "signal=%d", signum);
    loop_timer_arm(i->end, i->ending ? 0 : (int64_t)i->linger_ms);
    i->ending = true;
}

static void on_end(void *arg)
{
    loop_stop(((struct injector *)arg)->loop);
}

static int start_httpd(struct injector *i, const struct cli_args *args, struct err *e)
{
    const char *listen = args_get(args, "--listen");
    struct httpd_options o = {.listen = listen ? listen : LISTEN_DEFAULT,
                              .tls_cert = args_get(args, "--tls-cert"),
                              .tls_key = args_get(args, "--tls-key"),
                              .tls_client_ca = args_get(args, "--tls-client-ca"),
                              .connections_max = CONNECTIONS_MAX,
                              .idle_timeout_ms = IDLE_MS,
                              .header_bytes_max = HEADER_MAX,
                              .accept = on_accept,
                              .handle = on_request,
                              .too_large = on_too_large,
                              .arg = i};
    return httpd_start(&o, &i->httpd, e);
}

static int start(struct injector *i, const struct cli_args *args, struct err *e)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    file_watch_init(&i->watch,
                    i->sidecar); /* before the reading: a change in between is seen at the next look */
    int rc = read_template(i->sidecar, &i->template, e);
    if (rc == 0)
        rc = loop_new(&i->loop, e);
    for (size_t k = 0; rc == 0 && k < sizeof(signals) / sizeof(signals[0]); k++)
        rc = loop_signal(i->loop, signals[k], on_signal, i, e);
    if (rc == 0)
        rc = start_httpd(i, args, e);
    if (rc < 0)
        return rc;
    i->end = loop_timer_new(i->loop, on_end, i);
    i->timer = loop_timer_new(i->loop, look, i);
    loop_timer_arm(i->timer, LOOK_MS);
    return 0;
}

static void stop(struct injector *i)
{
    httpd_stop(i->httpd);
    if (i->timer)
        loop_timer_free(i->timer);
    if (i->end)
        loop_timer_free(i->end);
    if (i->loop)
        loop_free(i->loop);
    inject_template_free(i->template);
    file_watch_fini(&i->watch);
}

static const char *missing(const struct cli_args *args)
{
    static const char *const needed[] = {"--sidecar", "--tls-cert", "--tls-key"};
    for (size_t k = 0; k < sizeof(needed) / sizeof(needed[0]); k++)
        if (!args_get(args, needed[k]))
            return needed[k];
    return NULL;
}

int cmd_injector(struct cli *cli, const struct cli_args *args)
{
    struct injector i = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .sidecar = args_get(args, "--sidecar"), .linger_ms = LINGER_MS};
    struct err e = {0};
    if (missing(args))
        return cli_fail(cli, CLI_USAGE, "%s is needed", missing(args));
    if (args_duration_ms(args, "--linger", &i.linger_ms, &e) < 0)
        return cli_fail(cli, CLI_USAGE, "%s", e.text);
    log_set(LOG_LEVEL_INFO, args_has(args, "--json") ? LOG_FORMAT_JSON : LOG_FORMAT_LOGFMT);
    if (log_start(fileno(cli->err), &e) < 0)
        return cli_fail(cli, CLI_FAILED, "%s", e.text);
    int rc = start(&i, args, &e);
    if (rc == 0) {
        log_info(&log_here, "listening", "address=%s sidecar=%s", LOGQ(httpd_address(i.httpd)),
                 LOGQ(i.sidecar));
        loop_run(i.loop);
    }
    stop(&i);
    log_stop(LAST_WORDS_MS);
    return rc == 0 ? CLI_OK : cli_fail(cli, CLI_FAILED, "%s", e.text);
}
