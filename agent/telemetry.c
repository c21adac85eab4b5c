#include "agent/telemetry.h"

#include <pthread.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/base/log.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"
#include "agent/metrics.h"

#define TIMEOUT_MS      10000
#define RETRY_MS        1000
#define REPLY_BYTES_MAX 65536

static const struct log_ctx log_here = {.module = "telemetry"};

struct telemetry {
    struct loop *loop;
    struct metrics *metrics;
    struct http_client *http;
    struct loop_timer *timer;
    struct trace_rule rule;
    struct buf url, head; /* constant */
    struct buf sending;   /* the request under way; its spans are counted in sending_count */
    uint64_t sending_count;
    unsigned tries;
    bool failing;
    struct http_call *call;
    pthread_mutex_t lock; /* for what follows */
    struct buf queue;     /* spans as JSON, with commas between them */
    uint64_t queue_count;
};

/* --- JSON ---------------------------------------------------------------------------------------------------------- */

static void add_text(struct buf *out, const char *key, const char *text)
{
    buf_addf(out, ",\"%s\":", key);
    json_print_string(out, text, strlen(text));
}

static void add_attribute(struct buf *out, const struct telemetry_attribute *a)
{
    buf_add_str(out, "{\"key\":");
    json_print_string(out, a->key, strlen(a->key));
    buf_add_str(out, ",\"value\":{");
    if (a->text) {
        buf_add_str(out, "\"stringValue\":");
        json_print_string(out, a->text, strlen(a->text));
    } else {
        buf_addf(out, "\"intValue\":\"%lld\"", (long long)a->number);
    }
    buf_add_str(out, "}}");
}

static void add_attributes(struct buf *out, const struct telemetry_attribute *list, size_t count)
{
    buf_add_str(out, "\"attributes\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        add_attribute(out, &list[i]);
    }
    buf_add_char(out, ']');
}

static void add_link(struct buf *out, const char *parent)
{
    struct trace_span to;
    trace_span_read(parent, &to);
    buf_addf(out, ",\"links\":[{\"traceId\":\"%s\",\"spanId\":\"%s\"}]", to.trace, to.id);
}

static void add_span(struct buf *out, const struct telemetry_span *s)
{
    buf_addf(out, "{\"traceId\":\"%s\",\"spanId\":\"%s\"", s->span.trace, s->span.id);
    if (s->parent[0])
        add_text(out, "parentSpanId", s->parent);
    add_text(out, "name", s->name);
    buf_addf(out, ",\"kind\":%d,\"startTimeUnixNano\":\"%lld000\",\"endTimeUnixNano\":\"%lld000\",",
             (int)s->kind, (long long)s->started_us,
             (long long)(s->ended_us > s->started_us ? s->ended_us : s->started_us));
    add_attributes(out, s->attributes, s->attributes_count);
    if (s->link)
        add_link(out, s->link);
    if (s->error) {
        buf_add_str(out, ",\"status\":{\"code\":2");
        add_text(out, "message", s->error);
        buf_add_char(out, '}');
    }
    buf_add_char(out, '}');
}

static int make_head(const struct telemetry_options *o, struct buf *out, struct err *e)
{
    const struct telemetry_attribute resource[] = {{.key = "service.name", .text = "carillon"},
                                                   {.key = "service.namespace", .text = o->cluster},
                                                   {.key = "service.instance.id", .text = o->instance},
                                                   {.key = "service.version", .text = o->version}};
    buf_add_str(out, "{\"resourceSpans\":[{\"resource\":{");
    add_attributes(out, resource, sizeof(resource) / sizeof(resource[0]));
    buf_add_str(out, "},\"scopeSpans\":[{\"scope\":{\"name\":\"carillon\"");
    add_text(out, "version", o->version);
    buf_add_str(out, "},\"spans\":[");
    return buf_check(out, e);
}

/* --- coming in: any thread ----------------------------------------------------------------------------------------- */

void telemetry_add(struct telemetry *t, const struct telemetry_span *span)
{
    if (!t || !span->span.sampled)
        return;
    (void)pthread_mutex_lock(&t->lock); /* not an error-checking one: cannot fail, as below */
    size_t before = t->queue.len;
    if (before > 0)
        buf_add_char(&t->queue, ',');
    add_span(&t->queue, span);
    bool fits = !buf_failed(&t->queue);
    if (fits) {
        t->queue_count++;
    } else { /* what is there already is whole */
        struct buf kept = {.max_bytes = TELEMETRY_QUEUE_BYTES};
        buf_add(&kept, buf_str(&t->queue), before);
        buf_fini(&t->queue);
        t->queue = kept;
    }
    (void)pthread_mutex_unlock(&t->lock);
    if (!fits)
        metrics_add(t->metrics, METRIC_TRACE_SPANS, "dropped", NULL, NULL, 1);
}

const struct trace_rule *telemetry_rule(const struct telemetry *t)
{
    return t ? &t->rule : NULL;
}

/* --- going out: the loop ------------------------------------------------------------------------------------------- */

static void on_sent(void *arg, const struct err *e, const struct http_reply *reply);

static void send_batch(struct telemetry *t)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    struct http_call_options o = {.method = "POST",
                                  .url = buf_str(&t->url),
                                  .headers = headers,
                                  .body = buf_str(&t->sending),
                                  .body_bytes = t->sending.len,
                                  .timeout_ms = TIMEOUT_MS,
                                  .connect_timeout_ms = TIMEOUT_MS,
                                  .reply_bytes_max = REPLY_BYTES_MAX};
    t->tries++;
    t->call = http_send(t->http, &o, on_sent, t);
}

static void end_batch(struct telemetry *t, const char *result)
{
    metrics_add(t->metrics, METRIC_TRACE_SPANS, result, NULL, NULL, (double)t->sending_count);
    buf_reset(&t->sending);
    t->sending_count = 0;
    t->tries = 0;
}

/* What OTLP calls retryable. */
static bool may_pass(const struct err *e, int status)
{
    if (e->code != ERR_OK)
        return e->code != ERR_INVALID && e->code != ERR_NOMEM && e->code != ERR_TOO_BIG;
    return status == 429 || status == 502 || status == 503 || status == 504;
}

static void tell(struct telemetry *t, bool ok, const struct err *e, int status)
{
    if (ok != t->failing)
        return;
    t->failing = !ok;
    if (ok)
        log_info(&log_here, "collector takes spans again", "");
    else
        log_warn(&log_here, "collector takes no spans, they are lost meanwhile", "url=%s status=%d error=%s",
                 LOGQ(buf_str(&t->url)), status, LOGQ(e->text));
}

static void on_sent(void *arg, const struct err *e, const struct http_reply *reply)
{
    struct telemetry *t = arg;
    int status = reply ? reply->status : 0;
    bool ok = e->code == ERR_OK && status >= 200 && status < 300;
    t->call = NULL;
    if (e->code == ERR_CANCELLED)
        return;
    tell(t, ok, e, status);
    if (ok)
        end_batch(t, "sent");
    else if (!may_pass(e, status) || t->tries >= TELEMETRY_TRIES)
        end_batch(t, "lost");
    loop_timer_arm(t->timer, t->sending_count > 0 ? RETRY_MS : TELEMETRY_BATCH_MS);
}

/* The whole queue, as it is bounded. */
static bool take_batch(struct telemetry *t)
{
    buf_add(&t->sending, buf_str(&t->head), t->head.len);
    (void)pthread_mutex_lock(&t->lock);
    buf_add(&t->sending, buf_str(&t->queue), t->queue.len);
    t->sending_count = t->queue_count;
    t->queue_count = 0;
    buf_reset(&t->queue);
    (void)pthread_mutex_unlock(&t->lock);
    buf_add_str(&t->sending, "]}]}]}");
    if (buf_failed(&t->sending))
        end_batch(t, "lost");
    else if (t->sending_count == 0)
        buf_reset(&t->sending);
    return t->sending_count > 0;
}

static void on_timer(void *arg)
{
    struct telemetry *t = arg;
    if (t->sending_count > 0 || take_batch(t))
        send_batch(t);
    else
        loop_timer_arm(t->timer, TELEMETRY_BATCH_MS);
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

int telemetry_new(const struct telemetry_options *options, struct telemetry **ret, struct err *e)
{
    struct telemetry *t = mem_new(struct telemetry);
    t->loop = options->loop;
    t->metrics = options->metrics;
    t->rule.ratio = options->ratio;
    buf_init(&t->url, 1024);
    buf_init(&t->head, 8192);
    buf_init(&t->sending, TELEMETRY_QUEUE_BYTES + 16384);
    buf_init(&t->queue, TELEMETRY_QUEUE_BYTES);
    (void)pthread_mutex_init(&t->lock, NULL);
    buf_addf(&t->url, "%s/v1/traces", options->endpoint);
    int rc = buf_check(&t->url, e);
    if (rc == 0)
        rc = make_head(options, &t->head, e);
    if (rc == 0)
        rc = http_client_new(t->loop, 1, &t->http, e);
    if (rc < 0) {
        telemetry_free(t);
        return err_wrap(e, "telemetry");
    }
    t->timer = loop_timer_new(t->loop, on_timer, t);
    loop_timer_arm(t->timer, TELEMETRY_BATCH_MS);
    *ret = t;
    return 0;
}

void telemetry_free(struct telemetry *t)
{
    if (!t)
        return;
    if (t->http)
        http_client_free(t->http);
    if (t->timer)
        loop_timer_free(t->timer);
    buf_fini(&t->url);
    buf_fini(&t->head);
    buf_fini(&t->sending);
    buf_fini(&t->queue);
    (void)pthread_mutex_destroy(&t->lock);
    mem_free(t);
}
