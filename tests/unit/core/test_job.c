#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/core/job.h"
#include "agent/core/trace.h"
#include "agent/core/tz.h"

#define NOW INT64_C(1795424400000) /* 2026-11-23T09:00:00Z */

static const struct tz *only_utc(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "UTC") == 0 ? tz_utc() : NULL;
}

struct result {
    struct job_spec *spec;
    struct problems problems;
    enum job_refusal refusal;
    json_t *warnings;
    int paused;
    int rc;
};

static struct job_defaults defaults;

static struct result parse_with(const char *text, const struct job_context *ctx)
{
    struct result r = {.paused = -2};
    struct err e = {0};
    json_t *doc;
    cr_assert(zero(int, json_read(text, strlen(text), 1 << 20, &doc, &e)), "%s", e.text);
    problems_init(&r.problems);
    r.warnings = json_array();
    r.rc =
        job_spec_parse(doc, ctx, only_utc, NULL, &r.problems, &r.refusal, r.warnings, &r.paused, &r.spec, &e);
    json_decref(doc);
    return r;
}

static struct result parse(const char *text)
{
    job_defaults_init(&defaults);
    defaults.app_service = "b-app";
    struct job_context ctx = {
        .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
    return parse_with(text, &ctx);
}

static void done(struct result *r)
{
    problems_fini(&r->problems);
    json_decref(r->warnings);
    job_spec_unref(r->spec);
}

static struct result parse_ok(const char *text)
{
    struct result r = parse(text);
    cr_assert(zero(int, r.rc), "%s: %s %s", text, r.problems.count ? r.problems.items[0].pointer : "",
              r.problems.count ? r.problems.items[0].detail : "");
    return r;
}

/* TEXT must be refused with a problem at exactly each of POINTERS (NULL-terminated). */
static void refused_at(const char *text, const char *const *pointers, enum job_refusal refusal)
{
    struct result r = parse(text);
    cr_assert(eq(int, r.rc, -ERR_INVALID), "%s", text);
    cr_assert(zero(ptr, r.spec));
    for (size_t i = 0; pointers[i]; i++) {
        bool found = false;
        for (size_t k = 0; k < r.problems.count; k++)
            found |= strcmp(r.problems.items[k].pointer, pointers[i]) == 0;
        cr_assert(found, "%s: no problem at %s, first is %s: %s", text, pointers[i],
                  r.problems.items[0].pointer, r.problems.items[0].detail);
    }
    cr_assert(eq(int, (int)r.refusal, (int)refusal), "%s", text);
    done(&r);
}

#define REFUSED(text, ...) refused_at(text, (const char *const[]){__VA_ARGS__, NULL}, JOB_REFUSED_INVALID)

#define CALLBACK          "\"callback\":{\"http\":{\"service\":\"billing\",\"path\":\"/x\"}}"
#define WITH(fields)      "{\"schedule\":\"@every 10s\"," CALLBACK "," fields "}"
#define CALLING(callback) "{\"schedule\":\"@every 10s\",\"callback\":" callback "}"

Test(job, defaults_are_those_of_the_contract)
{
    struct result r = parse_ok("{\"schedule\":\"0 9 * * *\"," CALLBACK "}");
    const struct job_spec *s = r.spec;
    cr_assert(eq(str, (char *)s->timezone, "UTC"));
    cr_assert(eq(str, (char *)s->callback.method, "POST"));
    cr_assert(eq(i64, s->callback.timeout_ms, 30000));
    cr_assert(eq(u64, s->retry.min_backoff_ms, 1000));
    cr_assert(eq(u64, s->retry.max_backoff_ms, 300000));
    cr_assert(eq(u64, s->retry.max_age_ms, 86400000));
    cr_assert(eq(i64, s->misfire_window_ms, 86400000));
    cr_assert(eq(int, (int)s->max_pending, 16));
    cr_assert(eq(i64, s->ttl_after_done_ms, 86400000));
    cr_assert(zero(ptr, (void *)s->payload));
    cr_assert(eq(int, r.paused, -1));
    done(&r);
}

Test(job, an_answer_tells_what_holds_where_nothing_was_given)
{
    static const char *const parts[] = {"\"dst\":{\"gap\":\"shift\",\"repeat\":\"first\"}",
                                        "\"short_month\":\"skip\"",
                                        "\"jitter\":\"0s\"",
                                        "\"delivery\":\"at_least_once\"",
                                        "\"paused\":false",
                                        "\"max_age\":\"24h\""};
    struct result r = parse_ok("{\"schedule\":\"0 9 * * *\"," CALLBACK "}");
    struct job_row row = {.version = 1, .due_ms = NOW};
    struct buf out = BUF_INIT(1 << 20);
    size_t bytes;
    cr_assert(zero(int, job_print(r.spec, &row, "a1", &out, NULL)));
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        cr_assert(strstr(buf_str(&out), parts[i]) != NULL, "%s: %s", parts[i], buf_str(&out));
    cr_assert(strstr(job_spec_definition(r.spec, &bytes), "delivery") == NULL,
              "it is not kept with each job");
    buf_fini(&out);
    done(&r);
}

Test(job, every_problem_of_a_body_is_reported_at_once)
{
    REFUSED(
        "{\"id\":\"other\",\"schedule\":\"61 * * * *\",\"timezone\":\"Mars/Base\",\"callback\":{\"http\":{\"path\":\"x\"},"
        "\"timeout\":\"never\"},\"max_fires\":0,\"shedule\":1,\"retry\":{\"factor\":0.5}}",
        "#/id", "#/timezone", "#/schedule", "#/callback/http/path", "#/callback/timeout", "#/max_fires",
        "#/shedule", "#/retry/factor");
}

Test(job, missing_fields_are_named)
{
    REFUSED("{}", "#/schedule", "#/callback");
    REFUSED("[]", "#");
}

Test(job, headers_that_carillon_sets_are_refused)
{
    static const char *const names[] = {
        "Host",        "ce-id",      "CE-Time",      "Idempotency-Key", "Carillon-Attempt",  "webhook-id",
        "traceparent", "User-Agent", "content-type", "Content-Length",  "Transfer-Encoding", "TraceState"};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char text[256], pointer[64];
        snprintf(text, sizeof(text), CALLING("{\"http\":{\"service\":\"a\",\"headers\":{\"%s\":\"v\"}}}"),
                 names[i]);
        snprintf(pointer, sizeof(pointer), "#/callback/http/headers/%s", names[i]);
        REFUSED(text, pointer);
    }
    struct result r = parse_ok(
        CALLING("{\"http\":{\"service\":\"a\",\"headers\":{\"ce-type\":\"my.type\",\"X-Team\":\"pay\"}}}"));
    cr_assert(eq(sz, r.spec->callback.headers_count, 2));
    cr_assert(eq(str, (char *)r.spec->callback.headers[0].value, "pay"));
    done(&r);
}

Test(job, header_values_cannot_inject_lines)
{
    REFUSED(CALLING("{\"http\":{\"service\":\"a\",\"headers\":{\"X\":\"a\\r\\nY: b\"}}}"),
            "#/callback/http/headers/X");
    REFUSED(CALLING("{\"http\":{\"service\":\"a\",\"headers\":{\"X Y\":\"a\"}}}"),
            "#/callback/http/headers/X Y");
    REFUSED(CALLING("{\"http\":{\"service\":\"a\",\"path\":\"/a\\r\\nb\"}}"), "#/callback/http/path");
    REFUSED(CALLING("{\"http\":{\"url\":\"http://h.example/a b\"}}"), "#/callback/http/url");
}

static bool only_token(void *arg, const char *ns, const char *name, size_t name_len)
{
    unsigned *asked = arg;
    (*asked)++;
    return strcmp(ns, "default") == 0 && name_len == 5 && memcmp(name, "token", 5) == 0;
}

Test(job, secrets_in_headers_must_be_known_and_well_formed)
{
#define SECRET(text) CALLING("{\"http\":{\"service\":\"a\",\"headers\":{\"X\":\"" text "\"}}}")
    unsigned asked = 0;
    struct job_context ctx = {
        .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
    REFUSED(SECRET("a ${HOME}"), "#/callback/http/headers/X");
    REFUSED(SECRET("${secret:../b/token}"), "#/callback/http/headers/X");
    struct result r = parse_ok(SECRET("Bearer ${secret:any}")); /* nobody here can judge */
    cr_assert(eq(str, (char *)r.spec->callback.headers[0].value, "Bearer ${secret:any}"));
    done(&r);
    job_defaults_init(&defaults);
    defaults.secret_known = only_token;
    defaults.secret_arg = &asked;
    r = parse_with(SECRET("Bearer ${secret:token}, $${secret:other}"), &ctx);
    cr_assert(zero(int, r.rc));
    cr_assert(eq(uint, asked, 1));
    done(&r);
    r = parse_with(SECRET("${secret:token}${secret:other}"), &ctx);
    cr_assert(eq(int, r.rc, -ERR_INVALID));
    cr_assert(eq(int, (int)r.refusal, JOB_REFUSED_UNKNOWN_SECRET));
    cr_assert(eq(str, r.problems.items[0].pointer, "#/callback/http/headers/X"));
    done(&r);
    ctx.ns = "team-b";
    r = parse_with(SECRET("${secret:token}"), &ctx);
    cr_assert(eq(int, (int)r.refusal, JOB_REFUSED_UNKNOWN_SECRET));
    done(&r);
}

/* A target that is wrong is not a target that is missing. */
Test(job, a_wrong_target_is_told_once)
{
    static char text[4000];
    char path[2100];
    memset(path, 'p', sizeof(path) - 1);
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    (void)snprintf(text, sizeof(text), CALLING("{\"http\":{\"path\":\"%s\"}}"), path);
    REFUSED(text, "#/callback/http/path");
    REFUSED(CALLING("{\"http\":{\"service\":\"a/b\",\"tag\":\"x\"}}"), "#/callback/http/service");
    struct result r = parse(text);
    cr_assert(eq(sz, r.problems.count, 1));
    done(&r);
}

Test(job, targets_exclude_each_other)
{
    REFUSED(CALLING("{\"http\":{\"url\":\"http://h.example/\",\"service\":\"a\"}}"), "#/callback/http/url");
    REFUSED(CALLING("{\"http\":{\"path\":\"/x\",\"tag\":\"v1\"}}"), "#/callback/http");
    REFUSED(CALLING("{}"), "#/callback");
    REFUSED(CALLING("{\"http\":{\"path\":\"/\"},\"grpc\":{}}"), "#/callback");
    refused_at(CALLING("{\"http\":{}}"), (const char *const[]){"#/callback/http", NULL},
               JOB_REFUSED_NO_TARGET);
}

Test(job, urls_must_be_plain_http)
{
    static const char *const urls[] = {"ftp://h.example/",      "h.example/x",         "http://",
                                       "http://u:p@h.example/", "http://h.example/#f", "file:///etc/passwd",
                                       "//h.example/x"};
    for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
        char text[256];
        snprintf(text, sizeof(text), CALLING("{\"http\":{\"url\":\"%s\"}}"), urls[i]);
        REFUSED(text, "#/callback/http/url");
    }
}

Test(job, loopback_is_refused_unless_allowed)
{
    static const char *const hosts[] = {
        "localhost",   "LOCALHOST:80", "a.localhost", "127.0.0.1",
        "127.9.9.9:1", "[::1]",        "0.0.0.0",     "[::ffff:127.0.0.1]:8080"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
        char text[256];
        snprintf(text, sizeof(text), CALLING("{\"http\":{\"url\":\"http://%s/x\"}}"), hosts[i]);
        refused_at(text, (const char *const[]){"#/callback/http/url", NULL}, JOB_REFUSED_LOOPBACK);
    }
    refused_at(CALLING("{\"grpc\":{\"address\":\"[::1]:50051\"}}"),
               (const char *const[]){"#/callback/grpc/address", NULL}, JOB_REFUSED_LOOPBACK);
    refused_at(CALLING("{\"grpc\":{\"address\":\"127.1:50051\"}}"),
               (const char *const[]){"#/callback/grpc/address", NULL}, JOB_REFUSED_LOOPBACK);
    struct job_context ctx = {
        .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
    job_defaults_init(&defaults);
    defaults.allow_loopback = true;
    struct result r = parse_with(CALLING("{\"http\":{\"url\":\"http://localhost:1/x\"}}"), &ctx);
    cr_assert(zero(int, r.rc));
    done(&r);
}

Test(job, neither_service_nor_url_is_the_agents_application)
{
    struct result r = parse_ok(CALLING("{\"http\":{\"path\":\"/hook\"}}"));
    cr_assert(eq(str, (char *)r.spec->callback.service, "b-app"));
    done(&r);
    job_defaults_init(&defaults);
    defaults.app_url = "http://127.0.0.1:8080";
    struct job_context ctx = {
        .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
    r = parse_with(CALLING("{\"http\":{\"path\":\"/hook\"}}"), &ctx);
    cr_assert(eq(str, (char *)r.spec->callback.url, "http://127.0.0.1:8080/hook"));
    done(&r);
    job_defaults_init(&defaults);
    r = parse_with(CALLING("{\"http\":{\"path\":\"/hook\"}}"), &ctx);
    cr_assert(eq(int, (int)r.refusal, JOB_REFUSED_NO_TARGET));
    done(&r);
}

Test(job, status_codes_are_read_in_all_their_forms)
{
    struct result r = parse_ok(
        CALLING("{\"http\":{\"service\":\"a\"},\"success\":[\"2xx\",304,\"500-502\"],\"give_up_on\":[]}"));
    const struct job_callback *cb = &r.spec->callback;
    cr_assert(eq(sz, cb->success_count, 3));
    cr_assert(eq(int, cb->success[0].high, 299));
    cr_assert(eq(int, cb->success[1].low, 304));
    cr_assert(eq(int, cb->success[2].high, 502));
    cr_assert(eq(sz, cb->give_up_count, 0));
    done(&r);
    REFUSED(CALLING("{\"http\":{\"service\":\"a\"},\"success\":[\"2x\",99,\"400-300\"]}"),
            "#/callback/success/0", "#/callback/success/1", "#/callback/success/2");
    REFUSED(CALLING("{\"http\":{\"service\":\"a\"},\"success\":[]}"), "#/callback/success");
}

Test(job, payload_is_kept_compact_and_in_its_order)
{
    struct result r = parse_ok(WITH("\"payload\": {\"z\": 1, \"a\": [1, 2.5, null]}"));
    cr_assert(eq(sz, r.spec->payload_bytes, strlen("{\"z\":1,\"a\":[1,2.5,null]}")));
    cr_assert(zero(int, memcmp(r.spec->payload, "{\"z\":1,\"a\":[1,2.5,null]}", r.spec->payload_bytes)));
    done(&r);
    r = parse_ok(WITH("\"payload_base64\":\"AAEC\",\"content_type\":\"application/x-y\""));
    cr_assert(eq(sz, r.spec->payload_bytes, 3));
    cr_assert(eq(str, (char *)r.spec->content_type, "application/x-y"));
    done(&r);
    REFUSED(WITH("\"payload\":1,\"payload_base64\":\"AAEC\""), "#/payload_base64");
    REFUSED(WITH("\"payload_base64\":\"A\""), "#/payload_base64");
    REFUSED(WITH("\"payload\":1,\"content_type\":\"a/b\""), "#/content_type");
}

Test(job, payload_over_its_limit_is_refused)
{
    char *text = mem_new_array(char, JOB_PAYLOAD_MAX + 512);
    int head = snprintf(text, 256, "{\"schedule\":\"@every 10s\"," CALLBACK ",\"payload\":\"");
    memset(text + head, 'x', JOB_PAYLOAD_MAX);
    memcpy(text + head + JOB_PAYLOAD_MAX, "\"}", 3);
    REFUSED(text, "#/payload");
    mem_free(text);
}

Test(job, rules_are_checked_together)
{
    REFUSED(WITH("\"delivery\":\"at_most_once\",\"retry\":{\"max_attempts\":1}"), "#/retry");
    REFUSED(WITH("\"retry\":{\"max_attempts\":0}"), "#/retry/max_attempts");
    REFUSED(WITH("\"retry\":{\"min_backoff\":\"10s\",\"max_backoff\":\"5s\"}"), "#/retry/max_backoff");
    REFUSED(WITH("\"starts_at\":\"2026-01-02T00:00:00Z\",\"ends_at\":\"2026-01-01T00:00:00Z\""), "#/ends_at");
    REFUSED(WITH("\"jitter\":\"11s\""), "#/jitter");
    REFUSED(WITH("\"labels\":{\"a b\":\"c\"}"), "#/labels/a b");
    struct result r = parse_ok(WITH("\"retry\":{\"min_backoff\":\"10m\"}"));
    cr_assert(eq(u64, r.spec->retry.max_backoff_ms, 600000));
    done(&r);
}

Test(job, after_is_stored_as_at)
{
    struct result r = parse_ok("{\"schedule\":\"@after 15m\"," CALLBACK "}");
    cr_assert(eq(str, (char *)r.spec->schedules[0], "@at 2026-11-23T09:15:00.000Z"));
    cr_assert(r.spec->one_shot);
    int64_t due;
    cr_assert(job_first_due(r.spec, NOW, RECORD_NONE, &due));
    cr_assert(eq(i64, due, NOW + 900000));
    done(&r);
}

Test(job, a_past_instant_is_refused_or_due_at_once)
{
    refused_at("{\"schedule\":\"@at 2026-11-20T09:00:00Z\"," CALLBACK "}",
               (const char *const[]){"#/schedule", NULL}, JOB_REFUSED_DUE_IN_PAST);
    refused_at("{\"schedule\":[\"@at 2026-11-23T08:00:00Z\",\"@hourly\"]," CALLBACK "}",
               (const char *const[]){"#/schedule/0", NULL}, JOB_REFUSED_DUE_IN_PAST);
    struct result r = parse_ok("{\"schedule\":\"@at 2026-11-23T08:00:00Z\"," CALLBACK "}");
    int64_t due;
    cr_assert(job_first_due(r.spec, NOW, RECORD_NONE, &due));
    cr_assert(eq(i64, due, NOW - 3600000));
    done(&r);
}

Test(job, a_schedule_that_stays_as_it_is_is_not_judged_anew)
{
    static const char text[] =
        "{\"schedule\":\"@at 2026-11-23T10:00:00.000Z\"," CALLBACK ",\"description\":\"d\"}";
    static const char other[] = "{\"schedule\":\"@at 2026-11-23T11:00:00Z\"," CALLBACK "}";
    struct result present = parse_ok(text);
    struct job_context ctx = {.ns = "default",
                              .id = "j1",
                              .now_ms = NOW + 30 * INT64_C(86400000),
                              .created_ms = NOW,
                              .defaults = &defaults,
                              .present = present.spec};
    struct result again = parse_with(text, &ctx);
    cr_assert(zero(int, again.rc), "its instant passed a month ago");
    cr_assert(job_spec_equal(again.spec, present.spec));
    struct result changed = parse_with(other, &ctx);
    cr_assert(eq(int, (int)changed.refusal, JOB_REFUSED_DUE_IN_PAST));
    done(&changed);
    done(&again);
    done(&present);
}

/* Its instant passed a month ago and its other dues go on: what is changed beside the instant is judged, the instant is not. */
Test(job, an_instant_that_was_there_before_may_have_passed)
{
#define AT "\"@at 2026-11-23T10:00:00Z\""
    struct result present = parse_ok("{\"schedule\":[\"@daily\"," AT "]," CALLBACK "}");
    struct job_context ctx = {.ns = "default",
                              .id = "j1",
                              .now_ms = NOW + 30 * INT64_C(86400000),
                              .created_ms = NOW,
                              .defaults = &defaults,
                              .present = present.spec};
    static const char *const good[] = {
        "{\"schedule\":[\"@daily\"," AT "],\"jitter\":\"5s\"," CALLBACK "}",
        "{\"schedule\":[\"@daily\"," AT "],\"starts_at\":\"2026-11-01T00:00:00Z\"," CALLBACK "}",
        "{\"schedule\":[\"@daily\"," AT "],\"ends_at\":\"2027-12-01T00:00:00Z\"," CALLBACK "}",
        "{\"schedule\":[\"@at 2026-11-23T11:00:00+01:00\",\"@hourly\"]," CALLBACK "}",
        "{\"schedule\":" AT "," CALLBACK "}",
        "{\"schedule\":[" AT ",\"@at 2027-11-23T10:00:00Z\"]," CALLBACK "}"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct result r = parse_with(good[i], &ctx);
        cr_assert(zero(int, r.rc), "%s", good[i]);
        int64_t due;
        bool any = job_first_due(r.spec, ctx.now_ms, RECORD_NONE, &due);
        cr_assert(eq(int, any &&due <= ctx.now_ms, 0), "%s", good[i]);
        done(&r);
    }
    static const char *const bad[] = {
        "{\"schedule\":[\"@daily\"," AT ",\"@at 2026-11-23T11:00:00Z\"]," CALLBACK "}",
        "{\"schedule\":[\"@daily\",\"@at 2026-12-23T08:00:00Z\"]," CALLBACK "}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct result r = parse_with(bad[i], &ctx);
        cr_assert(eq(int, (int)r.refusal, JOB_REFUSED_DUE_IN_PAST), "%s", bad[i]);
        done(&r);
    }
    done(&present);
#undef AT
}

Test(job, phase_of_every_is_the_creation_or_starts_at)
{
    struct result capital = parse_ok("{\"schedule\":\"@Every 90s\"," CALLBACK "}");
    cr_assert(capital.spec->has_every);
    cr_assert(eq(i64, capital.spec->phase_ms, NOW));
    done(&capital);
    struct result r = parse_ok("{\"schedule\":\"@every 10s\"," CALLBACK "}");
    cr_assert(eq(i64, r.spec->phase_ms, NOW));
    done(&r);
    struct job_context ctx = {
        .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = NOW - 77, .defaults = &defaults};
    r = parse_with("{\"schedule\":\"@every 10s\"," CALLBACK "}", &ctx);
    cr_assert(eq(i64, r.spec->phase_ms, NOW - 77));
    done(&r);
    r = parse_ok("{\"schedule\":\"@every 10s\",\"starts_at\":\"2027-01-01T00:00:00Z\"," CALLBACK "}");
    cr_assert(eq(i64, r.spec->phase_ms, INT64_C(1798761600000)));
    done(&r);
}

static const char everything[] =
    "{\"schedule\":[\"0 9 * * MON-FRI\",\"@every 90s\"],\"timezone\":\"UTC\",\"dst\":{\"gap\":\"skip\",\"repeat\":\"both\"},"
    "\"short_month\":\"last\",\"starts_at\":\"2026-01-01T00:00:00Z\",\"ends_at\":\"2030-01-01T00:00:00Z\",\"max_fires\":7,"
    "\"callback\":{\"http\":{\"service\":\"billing\",\"tag\":[\"v1\",\"v2\"],\"datacenter\":\"dc2\",\"scheme\":\"https\","
    "\"path\":\"/p?q=1\",\"method\":\"PUT\",\"headers\":{\"X-B\":\"1\",\"X-A\":\"2\"}},\"timeout\":\"1s\",\"to\":\"all\","
    "\"success\":[200,\"3xx\",\"402-404\"],\"give_up_on\":[410],\"async\":{\"timeout\":\"1m\",\"max\":\"1h\"},"
    "\"allow_control\":true},\"payload\":{\"k\":\"\\u00e4\"},\"retry\":{\"max_attempts\":3,\"factor\":1.5},"
    "\"misfire\":{\"policy\":\"last\",\"window\":\"1h\"},\"concurrency\":\"queue\",\"max_pending\":3,"
    "\"labels\":{\"b\":\"2\",\"a\":\"1\"},\"description\":\"d\",\"ttl_after_done\":\"1h\"}";

static struct job_spec *decode(const struct job_spec *spec)
{
    struct err e = {0};
    struct job_spec *back = NULL;
    size_t len;
    const char *definition = job_spec_definition(spec, &len);
    cr_assert(zero(int, job_spec_decode(definition, len, spec->payload, spec->payload_bytes, &back, &e)),
              "%s", e.text);
    cr_assert(zero(int, job_spec_bind(back, tz_utc(), &e)), "%s", e.text);
    return back;
}

Test(job, stored_definition_reads_back_to_an_equal_spec)
{
    struct result r = parse_ok(everything);
    struct job_spec *back = decode(r.spec);
    cr_assert(job_spec_equal(r.spec, back));
    cr_assert(job_schedule_equal(r.spec, back));
    json_t *a, *b;
    struct err e = {0};
    cr_assert(zero(int, job_document(r.spec, NULL, &a, &e)));
    cr_assert(zero(int, job_document(back, NULL, &b, &e)));
    cr_assert(json_equal(a, b));
    cr_assert(eq(i64, r.spec->phase_ms, back->phase_ms));
    json_decref(a);
    json_decref(b);
    job_spec_unref(back);
    done(&r);
    r = parse_ok(WITH(
        "\"payload_base64\":\"AAEC\",\"content_type\":\"application/x-y\",\"delivery\":\"at_most_once\""));
    back = decode(r.spec);
    cr_assert(job_spec_equal(r.spec, back));
    cr_assert(eq(str, (char *)back->content_type, "application/x-y"));
    cr_assert(back->at_most_once);
    job_spec_unref(back);
    done(&r);
}

Test(job, what_get_answers_can_be_put_back)
{
    struct result r = parse_ok(everything);
    struct job_row row = {.version = 3,
                          .state = JOB_STATE_ACTIVE,
                          .due_ms = NOW,
                          .counts = {.seq = 5, .succeeded = 3, .dead = 1},
                          .created_ms = NOW,
                          .updated_ms = NOW,
                          .last_success_ms = RECORD_NONE,
                          .failing_since_ms = RECORD_NONE};
    struct buf out = BUF_INIT(1 << 20);
    struct err e = {0};
    cr_assert(zero(int, job_print(r.spec, &row, "a1", &out, &e)));
    json_t *answer;
    cr_assert(zero(int, json_read(buf_str(&out), out.len, 1 << 20, &answer, &e)), "%s: %s", e.text,
              buf_str(&out));
    const json_t *status = json_object_get(answer, "status");
    cr_assert(
        eq(int, (int)json_integer_value(json_object_get(json_object_get(status, "counts"), "pending")), 1));
    cr_assert(eq(str, (char *)json_string_value(json_object_get(status, "owner")), "a1"));
    cr_assert(eq(str, (char *)json_string_value(json_object_get(json_object_get(answer, "payload"), "k")),
                 "\xc3\xa4"));
    struct result again = parse_ok(buf_str(&out));
    cr_assert(job_spec_equal(r.spec, again.spec));
    json_decref(answer);
    buf_fini(&out);
    done(&again);
    done(&r);
}

#define TRACE_A "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static struct job_spec *parse_in_trace(const char *parent, const char *state)
{
    struct trace trace;
    json_t *doc;
    struct err e = {0};
    struct result r = {0};
    trace_read(parent, state, &trace);
    cr_assert(zero(int, json_read(everything, strlen(everything), 1 << 20, &doc, &e)));
    job_defaults_init(&defaults);
    struct job_context ctx = {.ns = "default",
                              .id = "j1",
                              .now_ms = NOW,
                              .created_ms = RECORD_NONE,
                              .defaults = &defaults,
                              .trace = &trace};
    problems_init(&r.problems);
    cr_assert(zero(int, job_spec_parse(doc, &ctx, only_utc, NULL, &r.problems, &r.refusal, NULL, &r.paused,
                                       &r.spec, &e)),
              "%s", e.text);
    problems_fini(&r.problems);
    json_decref(doc);
    return r.spec;
}

Test(job, the_trace_of_its_write_is_kept_but_is_no_part_of_what_it_says)
{
    struct job_spec *a = parse_in_trace(TRACE_A, "x=1"), *none = parse_in_trace(NULL, NULL);
    struct buf printed = BUF_INIT(1 << 20);
    struct err e = {0};
    cr_assert(eq(str, (char *)a->traceparent, TRACE_A));
    cr_assert(none->traceparent == NULL);
    cr_assert(job_spec_equal(a, none));
    cr_assert(zero(int, job_print(a, NULL, "", &printed, &e)));
    cr_assert(zero(ptr, strstr(buf_str(&printed), "trace")), "%s", buf_str(&printed));
    buf_fini(&printed);
    json_t *doc;
    cr_assert(zero(int, job_document(a, NULL, &doc, &e)));
    cr_assert(zero(ptr, json_object_get(doc, "trace")));
    json_decref(doc);

    struct job_spec *back = decode(a);
    cr_assert(eq(str, (char *)back->traceparent, TRACE_A));
    cr_assert(eq(str, (char *)back->tracestate, "x=1"));
    cr_assert(job_spec_equal(back, none));
    struct job_spec *back_none = decode(none);
    cr_assert(back_none->traceparent == NULL);
    job_spec_unref(a);
    job_spec_unref(none);
    job_spec_unref(back);
    job_spec_unref(back_none);
}

Test(job, definitions_of_the_first_version_are_read_too)
{
    static const char sorted[] =
        "{\"callback\":{\"allow_control\":false,\"give_up_on\":[400],\"http\":{\"headers\":{\"X-A\":\"2\",\"X-B\":"
        "\"1\"},\"method\":\"POST\",\"path\":\"/p\",\"service\":\"billing\"},\"success\":[\"2xx\"],\"timeout\":\"1s\","
        "\"to\":\"one\"},\"concurrency\":\"allow\",\"id\":\"j1\",\"max_pending\":16,\"misfire\":{\"policy\":\"all\","
        "\"window\":\"1h\"},\"namespace\":\"default\",\"phase\":\"2026-01-01T00:00:00.000Z\",\"retry\":{\"factor\":2.0,"
        "\"jitter\":0.2,\"max_age\":\"1d\",\"max_backoff\":\"5m\",\"min_backoff\":\"1s\"},\"schedule\":\"@every 90s\","
        "\"timezone\":\"UTC\",\"ttl_after_done\":\"1d\"}";
    struct job_spec *spec;
    struct err e = {0};
    cr_assert(zero(int, job_spec_decode(sorted, strlen(sorted), NULL, 0, &spec, &e)), "%s", e.text);
    struct job_spec *again = decode(spec);
    cr_assert(job_spec_equal(spec, again));
    cr_assert(eq(str, (char *)again->callback.service, "billing"));
    job_spec_unref(spec);
    job_spec_unref(again);
}

Test(job, no_limit_of_attempts_can_be_said_where_the_default_is_one)
{
    struct result r = {0};
    struct buf out = BUF_INIT(1 << 20);
    struct err e = {0};
    json_t *doc;
    job_defaults_init(&defaults);
    defaults.retry.max_attempts = 3;
    for (int said = 0; said < 2; said++) {
        const char *text = said ? WITH("\"retry\":{\"max_attempts\":null}") : WITH("\"retry\":{}");
        struct job_context ctx = {
            .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
        problems_init(&r.problems);
        cr_assert(zero(int, json_read(text, strlen(text), 1 << 20, &doc, &e)));
        cr_assert(zero(int, job_spec_parse(doc, &ctx, only_utc, NULL, &r.problems, &r.refusal, NULL,
                                           &r.paused, &r.spec, &e)));
        cr_assert(eq(u32, r.spec->retry.max_attempts, said ? 0 : 3));
        cr_assert(zero(int, job_print(r.spec, NULL, "", &out, &e)));
        cr_assert(strstr(buf_str(&out), said ? "\"max_attempts\":null" : "\"max_attempts\":3") != NULL, "%s",
                  buf_str(&out));
        buf_reset(&out);
        json_decref(doc);
        job_spec_unref(r.spec);
        problems_fini(&r.problems);
    }
    buf_fini(&out);
}

Test(job, wrong_bounds_are_told_once)
{
    struct result r =
        parse(WITH("\"starts_at\":\"2026-01-02T00:00:00Z\",\"ends_at\":\"2026-01-01T00:00:00Z\""));
    cr_assert(eq(sz, r.problems.count, 1));
    cr_assert(eq(str, r.problems.items[0].pointer, "#/ends_at"));
    done(&r);
}

Test(job, grpc_callbacks_have_their_own_fields)
{
    struct result r =
        parse_ok(CALLING("{\"grpc\":{\"service\":\"a\",\"metadata\":{\"x-team\":\"pay\"},\"tls\":true},"
                         "\"give_up_on\":[\"NOT_FOUND\"]}"));
    cr_assert(eq(str, (char *)r.spec->callback.method, "/carillon.v1.Callback/Fire"));
    cr_assert(eq(int, r.spec->callback.give_up[0].low, 5));
    struct job_spec *back = decode(r.spec);
    cr_assert(job_spec_equal(r.spec, back));
    job_spec_unref(back);
    done(&r);
    REFUSED(
        CALLING(
            "{\"grpc\":{\"service\":\"a\",\"method\":\"Fire\"},\"success\":[200],\"give_up_on\":[\"OK\"]}"),
        "#/callback/grpc/method", "#/callback/success", "#/callback/give_up_on/0");
}

Test(job, metadata_must_be_what_grpc_can_carry)
{
    REFUSED(CALLING("{\"grpc\":{\"service\":\"a\",\"metadata\":{\"x!y\":\"1\",\"x-a\":\"\u00fc\","
                    "\"grpc-timeout\":\"1S\",\"te\":\"x\",\"X-Ok\":\"v ~\"}}}"),
            "#/callback/grpc/metadata/grpc-timeout", "#/callback/grpc/metadata/te",
            "#/callback/grpc/metadata/x!y", "#/callback/grpc/metadata/x-a");
}

Test(job, grpc_without_a_target_is_the_application)
{
    struct job_context ctx = {
        .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
    job_defaults_init(&defaults);
    struct result r = parse_with(CALLING("{\"grpc\":{}}"), &ctx);
    cr_assert(eq(int, (int)r.refusal, JOB_REFUSED_NO_TARGET));
    done(&r);
    defaults.app_url = "http://127.0.0.1:9000";
    r = parse_with(CALLING("{\"grpc\":{\"tls\":true}}"), &ctx);
    cr_assert(eq(str, (char *)r.spec->callback.address, "127.0.0.1:9000"));
    done(&r);
    defaults.app_service = "shop";
    r = parse_with(CALLING("{\"grpc\":{}}"), &ctx);
    cr_assert(eq(str, (char *)r.spec->callback.service, "shop"));
    cr_assert(zero(ptr, (void *)r.spec->callback.address));
    done(&r);
    job_defaults_init(&defaults);
}

Test(job, running_out_of_memory_leaves_nothing_behind)
{
    for (unsigned k = 0;; k++) {
        struct result r = {0};
        struct err e = {0};
        json_t *doc;
        cr_assert(zero(int, json_read(everything, strlen(everything), 1 << 20, &doc, &e)));
        job_defaults_init(&defaults);
        struct job_context ctx = {
            .ns = "default", .id = "j1", .now_ms = NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
        problems_init(&r.problems);
        fault_arm(k);
        r.rc =
            job_spec_parse(doc, &ctx, only_utc, NULL, &r.problems, &r.refusal, NULL, &r.paused, &r.spec, &e);
        bool fired = fault_fired();
        json_decref(doc);
        if (!fired) {
            cr_assert(zero(int, r.rc));
            done(&r);
            break;
        }
        cr_assert(lt(int, r.rc, 0), "k=%u", k);
        cr_assert(zero(ptr, r.spec), "k=%u", k);
        done(&r);
    }
}
