#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/core/forecast.h"
#include "agent/core/tz.h"

#define FROM INT64_C(1795392000000) /* 2026-11-23T00:00:00Z */

static const struct tz *zone_of(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return tz_utc();
}

static struct job_spec *make_spec(const char *fields)
{
    char text[512];
    struct problems problems;
    struct job_defaults defaults;
    struct job_spec *spec = NULL;
    enum job_refusal refusal;
    struct err e = {0};
    json_t *doc = NULL;
    int paused;
    snprintf(text, sizeof(text), "{%s}", fields);
    problems_init(&problems);
    job_defaults_init(&defaults);
    struct job_context ctx = {
        .ns = "default", .id = "j", .now_ms = FROM, .created_ms = RECORD_NONE, .defaults = &defaults};
    cr_assert(zero(int, json_read(text, strlen(text), 1 << 20, &doc, &e)), "%s", e.text);
    cr_assert(
        zero(int, job_spec_parse(doc, &ctx, zone_of, NULL, &problems, &refusal, NULL, &paused, &spec, &e)),
        "%s", text);
    problems_fini(&problems);
    json_decref(doc);
    return spec;
}

static struct job_row row_of(const struct job_spec *spec)
{
    struct job_row row = {.state = JOB_STATE_ACTIVE};
    if (!job_first_due(spec, FROM, RECORD_NONE, &row.due_ms))
        row.due_ms = RECORD_NONE;
    return row;
}

static void expect(const struct forecast *f, const char *wanted)
{
    struct buf out = BUF_INIT(1 << 16);
    forecast_print(f, &out);
    cr_assert(eq(str, (char *)(uintptr_t)buf_str(&out), (char *)(uintptr_t)wanted));
    buf_fini(&out);
}

#define SERVICE(name) "\"callback\":{\"http\":{\"service\":\"" name "\",\"path\":\"/\"}}"

Test(forecast, counts_steps_by_service_and_member)
{
    static const char *const jobs[][2] = {
        {"\"schedule\":\"0 * * * *\"," SERVICE("a"), "m1"},                  /* few: one by one */
        {"\"schedule\":\"* * * * *\"," SERVICE("b"), "m2"},                  /* many: by step */
        {"\"schedule\":\"@every 1s\",\"max_fires\":70," SERVICE("b"), "m1"}, /* ends in the first step */
        {"\"schedule\":\"@every 1h\",\"max_fires\":2,\"callback\":{\"http\":{\"url\":\"http://x/\"}}", ""}};
    struct forecast *f;
    cr_assert(zero(int, forecast_new(FROM, 3600000, 3, &f, NULL)));
    for (size_t i = 0; i < 4; i++) {
        struct job_spec *spec = make_spec(jobs[i][0]);
        struct job_row row = row_of(spec);
        cr_assert(zero(int, forecast_add(f, spec, &row, jobs[i][1], NULL)));
        row.state = JOB_STATE_PAUSED;
        cr_assert(zero(int, forecast_add(f, spec, &row, "paused", NULL)));
        job_spec_unref(spec);
    }
    expect(
        f,
        "\"from\":\"2026-11-23T00:00:00.000Z\",\"to\":\"2026-11-23T03:00:00.000Z\",\"step\":\"1h\",\"total\":253,"
        "\"steps\":[129,62,62],\"services\":[{\"service\":\"b\",\"fires\":[129,60,60]},{\"service\":null,\"fires\":"
        "[0,1,1]},{\"service\":\"a\",\"fires\":[0,1,1]}],\"members\":[{\"member\":\"m2\",\"fires\":[59,60,60]},"
        "{\"member\":\"m1\",\"fires\":[70,1,1]},{\"member\":null,\"fires\":[0,1,1]}]");
    forecast_free(f);
}

Test(forecast, more_names_than_are_kept_are_others)
{
    struct forecast *f;
    cr_assert(zero(int, forecast_new(FROM, 3600000, 2, &f, NULL)));
    struct job_spec *spec = make_spec("\"schedule\":\"30 * * * *\"," SERVICE("a"));
    struct job_row row = row_of(spec);
    for (unsigned i = 0; i < FORECAST_NAMES_MAX + 50; i++) {
        char member[16];
        snprintf(member, sizeof(member), "m%u", i);
        cr_assert(zero(int, forecast_add(f, spec, &row, member, NULL)));
    }
    struct buf out = BUF_INIT(1 << 20);
    forecast_print(f, &out);
    cr_assert(not(zero(ptr, strstr(buf_str(&out), "{\"member\":\"other\",\"fires\":[50,50]}"))));
    buf_fini(&out);
    job_spec_unref(spec);
    forecast_free(f);
}

Test(forecast, without_memory_it_says_so)
{
    struct job_spec *spec = make_spec("\"schedule\":\"30 * * * *\"," SERVICE("a"));
    struct job_row row = row_of(spec);
    for (unsigned k = 0;; k++) {
        struct forecast *f = NULL;
        fault_arm(k);
        int r = forecast_new(FROM, 1000, 4, &f, NULL);
        if (r == 0)
            r = forecast_add(f, spec, &row, "m", NULL);
        bool fired = fault_fired();
        forecast_free(f);
        cr_assert(fired || r == 0);
        if (!fired)
            break;
    }
    job_spec_unref(spec);
}
