/* The definition of a job whose schedule is in UTC, for tests that need one and nothing of how it is read. */
#ifndef CARILLON_TESTS_LIB_UTC_SPEC_H
#define CARILLON_TESTS_LIB_UTC_SPEC_H

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/core/job.h"
#include "agent/core/record.h"
#include "agent/core/tz.h"

static inline const struct tz *utc_spec_zone(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return tz_utc();
}

/* TEXT as JSON, of job "j" in namespace "default", asked for at NOW_MS; freed by the caller. Ends the test when it is refused. */
static inline struct job_spec *utc_spec(const char *text, int64_t now_ms)
{
    struct problems problems;
    struct job_defaults defaults;
    struct job_spec *spec = NULL;
    enum job_refusal refusal;
    struct err e = {0};
    json_t *doc = NULL;
    int paused;
    problems_init(&problems);
    job_defaults_init(&defaults);
    struct job_context ctx = {
        .ns = "default", .id = "j", .now_ms = now_ms, .created_ms = RECORD_NONE, .defaults = &defaults};
    cr_assert(zero(int, json_read(text, strlen(text), 1 << 20, &doc, &e)), "%s", e.text);
    cr_assert(zero(int, job_spec_parse(doc, &ctx, utc_spec_zone, NULL, &problems, &refusal, NULL, &paused,
                                       &spec, &e)),
              "%s", e.text);
    problems_fini(&problems);
    json_decref(doc);
    return spec;
}

#endif
