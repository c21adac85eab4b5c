/* Routes of jobs, asked of an agent while each fallible step of all its threads fails in turn. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/api_bed.h"

#define YEARLY "0 0 1 1 *"
/* To nobody: what is put with it is not called in any of these tests. */
#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://127.0.0.1:9/\"}}"
#define JOB      "{\"schedule\":\"" YEARLY "\",\"payload\":{\"text\":\"\\u00e4\\\"\\\\\"}," CALLBACK "}"
#define OTHER    "{\"schedule\":\"0 0 2 2 *\",\"timezone\":\"Europe/Berlin\"," CALLBACK "}"

static struct api_bed bed;

/* --- what is in the store ------------------------------------------------------------------------------------------- */

static void remove_job(const char *id)
{
    char target[80];
    (void)snprintf(target, sizeof(target), "/v1/jobs/%s", id);
    (void)api_bed_ask(&bed, "DELETE", target, "Carillon-Client: test\r\n", NULL); /* it need not be there */
}

static bool is_there(const char *id, const char *text)
{
    char target[80];
    (void)snprintf(target, sizeof(target), "/v1/jobs/%s", id);
    const struct api_answer *a = api_bed_ask(&bed, "GET", target, NULL, NULL);
    cr_assert(a->status == 200 || a->status == 404, "%d %s", a->status, a->body);
    cr_assert(a->status == 404 || strstr(a->body, "\"counts\""), "%s", a->body);
    return a->status == 200 && strstr(a->body, text);
}

/* --- reads ---------------------------------------------------------------------------------------------------------- */

Test(jobs, reads_under_faults_are_whole_or_refused)
{
    static const struct api_case cases[] = {
        {.method = "GET", .target = "/v1/jobs/a", .status = 200},
        {.method = "GET", .target = "/v1/jobs/%61?ns=default", .status = 200},
        {.method = "GET", .target = "/v1/jobs/absent", .status = 404, .varying = " instance "},
        {.method = "GET", .target = "/v1/jobs/a/next?from=2030-01-01T00:00:00Z", .status = 200},
        {.method = "GET", .target = "/v1/jobs", .status = 200},
        {.method = "GET", .target = "/v1/jobs?limit=1&state=active&label=x%3D1", .status = 200},
        {.method = "GET", .target = "/v1/jobs?limit=1", .status = 200},
        {.method = "GET", .target = "/v1/jobs?ns=*&prefix=b", .status = 200},
        {.method = "GET", .target = "/v1/jobs/a/revisions?limit=1", .status = 200},
        {.method = "GET",
         .target = "/v1/jobs/a/explain?from=2030-01-01T00:00:00Z&to=2032-01-02T00:00:00Z",
         .status = 200},
        {.method = "GET", .target = "/v1/jobs/a/explain?at=2030-01-01", .status = 200},
        {.method = "GET", .target = "/v1/jobs/a/fires", .status = 200},
        {.method = "GET",
         .target = "/v1/forecast?window=1h&step=1h",
         .status = 200,
         .varying = " from to at start end slots "},
        {.method = "GET", .target = "/v1/audit", .status = 200},
        {.method = "GET", .target = "/v1/export?ns=*", .status = 200, .stream = true},
    };
    api_bed_open(&bed, NULL);
    api_bed_write(&bed, "PUT", "/v1/jobs/a", JOB, 201);
    api_bed_write(&bed, "PUT", "/v1/jobs/a", OTHER, 200);
    api_bed_write(&bed, "PUT", "/v1/jobs/b", JOB, 201);
    api_bed_run(&bed, cases, sizeof(cases) / sizeof(cases[0]));
    api_bed_close(&bed);
}

/* --- writes --------------------------------------------------------------------------------------------------------- */

static void remove_w(struct api_bed *b)
{
    (void)b;
    remove_job("w");
}

static void put_w(struct api_bed *b)
{
    remove_w(b);
    api_bed_write(b, "PUT", "/v1/jobs/w", JOB, 201);
}

/* What was refused may have been done, but not by half. */
static void expect_job(struct api_bed *b, bool acknowledged)
{
    (void)b;
    bool there = is_there("w", "\"schedule\":\"" YEARLY "\"");
    cr_assert(there || !acknowledged);
}

static void expect_other(struct api_bed *b, bool acknowledged)
{
    (void)b;
    bool changed = is_there("w", "\"timezone\":\"Europe/Berlin\"");
    cr_assert(changed || (!acknowledged && is_there("w", "\"payload\":{\"text\":")));
}

static void expect_none(struct api_bed *b, bool acknowledged)
{
    (void)b;
    bool there = is_there("w", "");
    cr_assert(not(there && acknowledged));
}

static void expect_paused(struct api_bed *b, bool acknowledged)
{
    (void)b;
    cr_assert(is_there("w", "\"paused\":true") || !acknowledged);
}

static void expect_active(struct api_bed *b, bool acknowledged)
{
    (void)b;
    cr_assert(is_there("w", "\"paused\":false") || !acknowledged);
}

static void pause_w(struct api_bed *b)
{
    put_w(b);
    api_bed_write(b, "POST", "/v1/jobs/w/pause", NULL, 200);
}

static void expect_unchanged(struct api_bed *b, bool acknowledged)
{
    (void)acknowledged;
    (void)b;
    cr_assert(is_there("w", "\"payload\":{\"text\":"));
}

static void put_many(struct api_bed *b)
{
    api_bed_put(b, "many-1", YEARLY);
    api_bed_put(b, "many-2", YEARLY);
}

static void expect_none_of_many(struct api_bed *b, bool acknowledged)
{
    (void)b;
    bool there = is_there("many-1", "") || is_there("many-2", "");
    cr_assert(not(there && acknowledged));
}

/* Its runs end at once. */
static void put_called(struct api_bed *b)
{
    remove_w(b);
    api_bed_put(b, "w", "0 0 * * *");
}

static void expect_run(struct api_bed *b, bool acknowledged)
{
    if (acknowledged)
        api_bed_until(b, "/v1/jobs/w", "\"succeeded\":1,");
}

static void expect_backfilled(struct api_bed *b, bool acknowledged)
{
    if (acknowledged)
        api_bed_until(b, "/v1/jobs/w", "\"succeeded\":3,");
}

#define STAMPS " uid version created_at updated_at instance last_fire fire "

Test(jobs, writes_under_faults_are_whole_or_not_there)
{
    static const struct api_case cases[] = {
        {.method = "POST",
         .target = "/v1/jobs",
         .body = "{\"id\":\"w\"," CALLBACK ",\"schedule\":\"" YEARLY "\"}",
         .status = 201,
         .varying = STAMPS,
         .before = remove_w,
         .after = expect_job},
        {.method = "PUT",
         .target = "/v1/jobs/w",
         .body = JOB,
         .status = 201,
         .varying = STAMPS,
         .before = remove_w,
         .after = expect_job},
        {.method = "PUT",
         .target = "/v1/jobs/w",
         .body = OTHER,
         .status = 200,
         .varying = STAMPS,
         .before = put_w,
         .after = expect_other},
        {.method = "PUT",
         .target = "/v1/jobs/w?dry_run=true",
         .body = OTHER,
         .status = 200,
         .varying = STAMPS " next ",
         .before = put_w,
         .after = expect_unchanged},
        {.method = "PATCH",
         .target = "/v1/jobs/w",
         .headers = "Content-Type: application/merge-patch+json\r\n",
         .body = "{\"timezone\":\"Europe/Berlin\",\"labels\":{\"a\":\"b\"},\"payload\":null}",
         .status = 200,
         .varying = STAMPS,
         .before = put_w,
         .after = expect_other},
        {.method = "POST",
         .target = "/v1/jobs/w/pause",
         .status = 200,
         .varying = STAMPS,
         .before = put_w,
         .after = expect_paused},
        {.method = "POST",
         .target = "/v1/jobs/w/resume",
         .body = "{\"catch_up\":\"none\"}",
         .status = 200,
         .varying = STAMPS,
         .before = pause_w,
         .after = expect_active},
        {.method = "DELETE",
         .target = "/v1/jobs/w",
         .status = 200,
         .varying = STAMPS,
         .before = put_w,
         .after = expect_none},
        {.method = "DELETE",
         .target = "/v1/jobs?prefix=many-",
         .status = 200,
         .before = put_many,
         .after = expect_none_of_many},
        {.method = "POST",
         .target = "/v1/jobs/w/run",
         .body = "{\"payload\":{\"by\":\"hand\"}}",
         .status = 202,
         .varying = STAMPS,
         .before = put_called,
         .after = expect_run},
        {.method = "POST",
         .target = "/v1/jobs/w/backfill",
         .body = "{\"from\":\"2026-01-01T00:00:00Z\",\"to\":\"2026-01-04T00:00:00Z\"}",
         .status = 202,
         .before = put_called,
         .after = expect_backfilled},
    };
    api_bed_open(&bed, NULL);
    api_bed_run(&bed, cases, sizeof(cases) / sizeof(cases[0]));
    api_bed_close(&bed);
}

/* Said again with its key, a request is answered as the first time. */
Test(jobs, repeated_keys_under_faults_find_what_they_made)
{
    static const struct api_case cases[] = {
        {.method = "POST",
         .target = "/v1/jobs",
         .headers = "Idempotency-Key: create\r\n",
         .body = JOB,
         .status = 201,
         .varying = " owner "},
        {.method = "POST",
         .target = "/v1/jobs?dry_run=true",
         .headers = "Idempotency-Key: create\r\n",
         .body = JOB,
         .status = 200},
        {.method = "POST",
         .target = "/v1/jobs/called/run",
         .headers = "Idempotency-Key: run\r\n",
         .body = "{\"payload\":1}",
         .status = 202},
        {.method = "POST",
         .target = "/v1/jobs/called/run",
         .headers = "Idempotency-Key: run\r\n",
         .body = "{\"payload\":2}",
         .status = 422,
         .varying = " instance "},
    };
    api_bed_open(&bed, NULL);
    api_bed_put(&bed, "called", "0 0 * * *");
    api_bed_run(&bed, cases, sizeof(cases) / sizeof(cases[0]));
    api_bed_close(&bed);
}
