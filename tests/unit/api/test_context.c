#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/api/context.h"
#include "agent/base/mem.h"

static void make(struct api_context *c, bool with_app)
{
    struct job_defaults d;
    memset(c, 0, sizeof(*c));
    job_defaults_init(&d);
    d.timeout_ms = 1234;
    d.retry.max_attempts = 7;
    d.retry.factor = 1.5;
    d.misfire = JOB_MISFIRE_LAST;
    d.concurrency = JOB_QUEUE;
    d.min_interval_ms = 250;
    d.allow_loopback = true;
    d.app_service = with_app ? "bill\xc3\xa4r" : NULL;
    d.app_url = with_app ? "http://127.0.0.1:8080" : NULL;
    c->hop = API_HOP_FINAL;
    memcpy(c->request_id, "0123456789abcdef", 17);
    memcpy(c->id, "invoice-42", 11);
    c->fresh_id = true;
    c->repeated = true;
    memset(c->uid.bytes, 0xa5, sizeof(c->uid.bytes));
    c->change_id = 0xfedcba9876543210u;
    c->accepted_ms = 1790000000123;
    c->until_ms = with_app ? 1790000005123 : 0;
    memcpy(c->actor, "local", 6);
    trace_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=\"1\\,b=2", &c->trace);
    api_context_set_defaults(c, &d);
}

static void expect_equal(const struct api_context *a, const struct api_context *b)
{
    cr_assert(eq(uint, a->hop, b->hop));
    cr_assert(eq(str, (char *)a->request_id, (char *)b->request_id));
    cr_assert(eq(str, (char *)a->id, (char *)b->id));
    cr_assert(a->fresh_id == b->fresh_id && a->repeated == b->repeated);
    cr_assert(zero(int, memcmp(&a->uid, &b->uid, sizeof(a->uid))));
    cr_assert(eq(u64, a->change_id, b->change_id));
    cr_assert(eq(str, (char *)a->trace.parent, (char *)b->trace.parent));
    cr_assert(eq(str, (char *)a->trace.state, (char *)b->trace.state));
    cr_assert(eq(i64, a->accepted_ms, b->accepted_ms));
    cr_assert(eq(i64, a->until_ms, b->until_ms));
    cr_assert(eq(str, (char *)a->actor, (char *)b->actor));
    const struct job_defaults *x = &a->defaults, *y = &b->defaults;
    cr_assert(eq(i64, x->timeout_ms, y->timeout_ms));
    cr_assert(zero(int, memcmp(&x->retry.max_attempts, &y->retry.max_attempts, sizeof(uint32_t))));
    cr_assert(eq(u64, x->retry.min_backoff_ms, y->retry.min_backoff_ms));
    cr_assert(eq(u64, x->retry.max_backoff_ms, y->retry.max_backoff_ms));
    cr_assert(eq(u64, x->retry.max_age_ms, y->retry.max_age_ms));
    cr_assert(x->retry.factor == y->retry.factor && x->retry.jitter == y->retry.jitter);
    cr_assert(x->misfire == y->misfire && x->concurrency == y->concurrency);
    cr_assert(eq(i64, x->misfire_window_ms, y->misfire_window_ms));
    cr_assert(eq(i64, x->min_interval_ms, y->min_interval_ms));
    cr_assert(x->allow_loopback == y->allow_loopback);
    cr_assert(eq(int, !x->app_service, !y->app_service));
    cr_assert(eq(str, (char *)a->app_service, (char *)b->app_service));
    cr_assert(eq(str, (char *)a->app_url, (char *)b->app_url));
}

Test(context, what_one_agent_prints_the_other_reads)
{
    for (int with_app = 0; with_app < 2; with_app++) {
        struct api_context c, back;
        AUTO(buf_fini) struct buf out = BUF_INIT(API_CONTEXT_MAX);
        struct err e = {0};
        make(&c, with_app);
        cr_assert(zero(int, api_context_print(&c, &out, &e)), "%s", e.text);
        cr_assert(
            eq(sz,
               strspn(buf_str(&out), " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"
                                     "abcdefghijklmnopqrstuvwxyz{|}~"),
               out.len));
        cr_assert(zero(int, api_context_parse(buf_str(&out), &back, &e)), "%s", e.text);
        expect_equal(&c, &back);
    }
}

Test(context, a_broken_one_is_refused)
{
    struct api_context c, back;
    AUTO(buf_fini) struct buf out = BUF_INIT(API_CONTEXT_MAX);
    make(&c, true);
    c.hop = API_HOP_FINAL + 1; /* nobody sends a request on so often */
    cr_assert(zero(int, api_context_print(&c, &out, NULL)));
    cr_assert(eq(int, api_context_parse(buf_str(&out), &back, NULL), -ERR_INVALID));
    static const char *const bad[] = {"", "{}", "[]", "null", "{\"hop\":1}", "x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(eq(int, api_context_parse(bad[i], &back, NULL), -ERR_INVALID), "%s", bad[i]);
}

Test(context, every_failing_step_is_survived)
{
    struct api_context c;
    make(&c, true);
    for (unsigned k = 0;; k++) {
        AUTO(buf_fini) struct buf out = BUF_INIT(API_CONTEXT_MAX);
        struct api_context back;
        fault_arm(k);
        int rc = api_context_print(&c, &out, NULL);
        if (rc == 0)
            rc = api_context_parse(buf_str(&out), &back, NULL);
        bool fired = fault_fired();
        cr_assert(fired || rc == 0, "k=%u", k);
        if (rc == 0) /* jansson does without some of what it asks for */
            expect_equal(&c, &back);
        if (!fired)
            break;
    }
}
