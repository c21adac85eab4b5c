/* A job as a user writes it: what is refused says why in words that can be answered, what is taken prints to a job that says
 * the same under any defaults, and its stored form reads back as itself. */
#include <assert.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/core/job.h"
#include "agent/core/tz.h"

#define NOW_MS    INT64_C(1795424400000) /* 2026-11-23T09:00:00Z */
#define BYTES_MAX ((size_t)4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct tz *only_utc(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "UTC") == 0 ? tz_utc() : NULL;
}

/* What an agent adds to jobs that leave it open. The two share their limits. */
static void make_defaults(struct job_defaults *d, bool others)
{
    job_defaults_init(d);
    d->allow_loopback = true;
    d->app_service = others ? "other" : "app";
    if (!others)
        return;
    d->timeout_ms = 7000;
    d->retry.max_attempts = 3;
    d->retry.max_backoff_ms = 100000;
    d->misfire = JOB_MISFIRE_LAST;
    d->misfire_window_ms = 5000;
    d->concurrency = JOB_QUEUE;
}

static void check_problems(const struct problems *p)
{
    assert(p->count > 0);
    for (size_t i = 0; i < p->count; i++) {
        assert(p->items[i].detail[0] != '\0');
        AUTO(json_decref) json_t *detail = json_string(p->items[i].detail);
        AUTO(json_decref) json_t *pointer = json_string(p->items[i].pointer);
        assert(detail && pointer); /* valid UTF-8 */
    }
}

/* NULL: refused. */
static struct job_spec *parse(const json_t *doc, bool others)
{
    struct job_defaults defaults;
    make_defaults(&defaults, others);
    struct job_context ctx = {.ns = "default",
                              .id = json_object_get(doc, "id") ? NULL : "j1",
                              .now_ms = NOW_MS,
                              .created_ms = RECORD_NONE,
                              .defaults = &defaults};
    AUTO(problems_fini) struct problems problems;
    AUTO(json_decref) json_t *warnings = json_array();
    enum job_refusal refusal;
    struct job_spec *spec = NULL;
    int paused;
    problems_init(&problems);
    int rc = job_spec_parse(doc, &ctx, only_utc, NULL, &problems, &refusal, warnings, &paused, &spec, NULL);
    assert(rc == 0 || rc == -ERR_INVALID);
    assert((rc == 0) == (spec != NULL));
    if (rc < 0)
        check_problems(&problems);
    else
        assert(problems.count == 0);
    return spec;
}

static void expect_same(const struct job_spec *spec, const json_t *doc)
{
    AUTO(job_spec_unref) struct job_spec *again = parse(doc, true);
    assert(again && job_spec_equal(spec, again) && job_schedule_equal(spec, again));
}

static void check_printed(const struct job_spec *spec)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(BYTES_MAX);
    AUTO(json_decref) json_t *printed = NULL;
    AUTO(json_decref) json_t *document = NULL;
    int rc = job_print(spec, NULL, "", &out, NULL);
    assert(rc == 0);
    rc = json_read(buf_str(&out), out.len, BYTES_MAX, &printed, NULL);
    assert(rc == 0);
    expect_same(spec, printed);
    rc = job_document(spec, NULL, &document, NULL);
    assert(rc == 0);
    expect_same(spec, document);
}

static void check_stored(const struct job_spec *spec)
{
    AUTO(job_spec_unref) struct job_spec *back = NULL;
    size_t bytes;
    const char *definition = job_spec_definition(spec, &bytes);
    int rc = job_spec_decode(definition, bytes, spec->payload, spec->payload_bytes, &back, NULL);
    assert(rc == 0 && job_spec_equal(spec, back) && job_schedule_equal(spec, back));
    assert(strcmp(spec->content_type, back->content_type) == 0);
    rc = job_spec_bind(back, tz_utc(), NULL);
    int64_t due_ms = 0, due_back_ms = 0;
    assert(rc == 0);
    bool any = job_first_due(spec, NOW_MS, RECORD_NONE, &due_ms);
    assert(job_first_due(back, NOW_MS, RECORD_NONE, &due_back_ms) == any && due_ms == due_back_ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO(json_decref) json_t *doc = NULL;
    if (json_read((const char *)data, size, 1 << 20, &doc, NULL) < 0)
        return 0;
    AUTO(job_spec_unref) struct job_spec *spec = parse(doc, false);
    if (spec) {
        check_printed(spec);
        check_stored(spec);
    }
    return 0;
}
