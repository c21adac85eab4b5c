/* Spans on their way to a collector that is there, away, or says no. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/io/httpd.h"
#include "agent/io/loop.h"
#include "agent/metrics.h"
#include "agent/telemetry.h"

static struct loop *loop;
static struct metrics *metrics;
static struct httpd *server;
static struct telemetry *telemetry;
static struct err e;
static int answers[8];
static _Atomic unsigned requests;
static struct buf
    got; /* the last body; the server's thread writes it, and the loop reads it after the answer */
static unsigned wanted;
static const char *expected;

static int64_t on_accept(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return (int64_t)TELEMETRY_QUEUE_BYTES * 2;
}

static void on_request(struct httpd_request *rq, void *arg)
{
    size_t len;
    const char *body = httpd_body(rq, &len);
    (void)arg;
    buf_reset(&got);
    buf_add(&got, body, len);
    httpd_reply(rq, answers[requests++ % 8], NULL, 0, NULL);
}

static void begin(void)
{
    buf_init(&got, TELEMETRY_QUEUE_BYTES * 2);
    cr_assert(zero(int, loop_new(&loop, &e)));
    metrics = metrics_new();
    for (size_t i = 0; i < 8; i++)
        answers[i] = 200;
}

static void end(void)
{
    telemetry_free(telemetry);
    httpd_stop(server);
    loop_free(loop);
    metrics_free(metrics);
    buf_fini(&got);
}

TestSuite(telemetry, .init = begin, .fini = end, .timeout = 600);

static void start(const char *endpoint)
{
    char url[64];
    struct httpd_options o = {.listen = "127.0.0.1:0",
                              .connections_max = 4,
                              .header_bytes_max = 4096,
                              .accept = on_accept,
                              .handle = on_request,
                              .too_large = on_request};
    if (!endpoint) {
        cr_assert(zero(int, httpd_start(&o, &server, &e)), "%s", e.text);
        snprintf(url, sizeof url, "http://127.0.0.1:%u", httpd_port(server));
    }
    struct telemetry_options options = {.loop = loop,
                                        .metrics = metrics,
                                        .endpoint = endpoint ? endpoint : url,
                                        .ratio = 1,
                                        .cluster = "c\"1",
                                        .instance = "a",
                                        .version = "0"};
    cr_assert(zero(int, telemetry_new(&options, &telemetry, &e)), "%s", e.text);
}

static void add(const char *text)
{
    const struct telemetry_attribute attributes[] = {{.key = "t", .text = text}, {.key = "n", .number = -7}};
    struct telemetry_span s = {.parent = "00f067aa0ba902b7",
                               .link = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                               .name = "n",
                               .kind = TELEMETRY_SERVER,
                               .started_us = 2,
                               .ended_us = 1,
                               .error = "bad",
                               .attributes = attributes,
                               .attributes_count = 2};
    trace_span_new(telemetry_rule(telemetry), (const uint64_t[3]){1, 2, 3}, &s.span);
    telemetry_add(telemetry, &s);
}

static const char *metric(void)
{
    static char text[2000];
    struct buf out = BUF_INIT(1 << 20);
    metrics_print(metrics, &out);
    const char *at = strstr(buf_str(&out), "carillon_trace_spans_total{");
    snprintf(text, sizeof text, "%s", at ? at : "");
    buf_fini(&out);
    return text;
}

static void look(void *arg)
{
    struct loop_timer **t = arg;
    if (strstr(metric(), expected) && requests >= wanted)
        loop_stop(loop);
    else
        loop_timer_arm(*t, 5);
}

/* Until the metric has TEXT and the collector was asked so often. */
static void run_until(const char *text, unsigned count)
{
    struct loop_timer *t = loop_timer_new(loop, look, &t);
    expected = text;
    wanted = count;
    loop_timer_arm(t, 0);
    loop_run(loop);
    loop_timer_free(t);
}

Test(telemetry, spans_arrive_as_otlp_in_json)
{
    start(NULL);
    add("a \"quoted\" text\n");
    add("second");
    run_until("{result=\"sent\"} 2", 1);
    AUTO(json_decref) json_t *doc = NULL;
    cr_assert(zero(int, json_read(buf_str(&got), got.len, got.len, &doc, &e)), "%s", e.text);
    json_t *resource = json_array_get(json_object_get(doc, "resourceSpans"), 0);
    json_t *spans = json_object_get(json_array_get(json_object_get(resource, "scopeSpans"), 0), "spans");
    cr_assert(eq(sz, json_array_size(spans), 2));
    json_t *span = json_array_get(spans, 0);
    cr_assert(eq(sz, strlen(json_string_value(json_object_get(span, "traceId"))), 32));
    cr_assert(zero(int, strcmp(json_string_value(json_object_get(span, "endTimeUnixNano")), "2000")),
              "not before its start");
    cr_assert(eq(int, (int)json_integer_value(json_object_get(json_object_get(span, "status"), "code")), 2));
}

Test(telemetry, what_is_not_sampled_is_not_sent)
{
    start(NULL);
    struct telemetry_span s = {.name = "n", .parent = ""};
    telemetry_add(telemetry, &s);
    telemetry_add(NULL, &s);
    add("sampled");
    run_until("{result=\"sent\"} 1", 1);
}

Test(telemetry, a_collector_that_may_take_it_later_is_asked_again)
{
    answers[0] = 503;
    answers[1] = 429;
    start(NULL);
    add("x");
    run_until("{result=\"sent\"} 1", 3);
}

Test(telemetry, what_is_refused_for_good_is_lost_and_counted)
{
    answers[0] = 400;
    start(NULL);
    add("x");
    run_until("{result=\"lost\"} 1", 1);
    add("y");
    run_until("{result=\"sent\"} 1", 2);
}

Test(telemetry, a_full_queue_drops_and_counts_and_goes_on)
{
    static char large[60000];
    memset(large, 'x', sizeof(large) - 1);
    start(NULL);
    for (int i = 0; i < 100; i++)
        add(large);
    cr_assert(ne(ptr, strstr(metric(), "{result=\"dropped\"} 31"), NULL), "%s", metric());
    run_until("{result=\"sent\"} 69", 1);
    AUTO(json_decref) json_t *doc = NULL;
    cr_assert(zero(int, json_read(buf_str(&got), got.len, got.len, &doc, &e)), "%s", e.text);
    add("after");
    run_until("{result=\"sent\"} 70", 2);
}

Test(telemetry, a_collector_that_is_away_holds_nothing_up)
{
    start("http://127.0.0.1:1");
    add("x");
    run_until("{result=\"lost\"} 1", 0);
    add("never sent");
}

Test(telemetry, without_memory_there_is_none)
{
    struct telemetry_options options = {.loop = loop,
                                        .metrics = metrics,
                                        .endpoint = "http://127.0.0.1:1",
                                        .ratio = 1,
                                        .cluster = "c",
                                        .instance = "a",
                                        .version = "0"};
    unsigned k = 0;
    for (;; k++) {
        fault_arm(k);
        int rc = telemetry_new(&options, &telemetry, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
        cr_assert(zero(ptr, telemetry));
    }
    cr_assert(gt(uint, k, 1));
}
