#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/api/write.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"
#include "tests/lib/api_head.h"
#include "tests/lib/api_write_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.1.2.3/x\"}}"
#define JOB      "{\"schedule\":\"0 9 * * *\"," CALLBACK "}"

static struct api_write_bed bed;

static void setup(void)
{
    api_write_bed_init(&bed, 8);
}

static void teardown(void)
{
    api_write_bed_fini(&bed);
}

TestSuite(write, .init = setup, .fini = teardown);

static int read_write(struct api_write *w, struct api_head head, const char *body, struct api_problem *p)
{
    struct api_request rq;
    struct api_rules rules = {0};
    memset(p, 0, sizeof(*p));
    api_write_init(w, bed.zones);
    w->ctx = bed.ctx;
    api_context_set_defaults(&w->ctx, &bed.ctx.defaults);
    if (api_request_read(&head, &rules, &rq, p) < 0)
        return -ERR_INVALID;
    return api_write_read(w, &rq, body, strlen(body), &bed.ids, p);
}

static void expect_ok(struct api_write *w, struct api_head head, const char *body)
{
    struct api_problem p;
    cr_assert(zero(int, read_write(w, head, body, &p)), "%s", p.detail);
}

static void expect_code(struct api_head head, const char *body, enum api_code code, const char *pointer)
{
    struct api_write w;
    struct api_problem p;
    cr_assert(eq(int, read_write(&w, head, body, &p), -ERR_INVALID), "%s", body);
    cr_assert(eq(int, p.code, code), "%s: %s", body, p.detail);
    bool found = *pointer == '\0';
    for (size_t i = 0; i < p.errors.count; i++)
        found |= strcmp(p.errors.items[i].pointer, pointer) == 0;
    cr_assert(found, "%s: %s is not among the errors of '%s'", body, pointer, p.detail);
    api_problem_fini(&p);
    api_write_fini(&w);
}

#define WITH_JSON {"Content-Type", "application/json"},
#define POST      HEAD("POST", "/v1/jobs", "", WITH_JSON)
#define PUT       HEAD("PUT", "/v1/jobs/x", "", WITH_JSON)
#define PATCH     HEAD("PATCH", "/v1/jobs/x", "", WITH_JSON)

Test(write, a_create_without_id_gets_one_in_an_own_slot)
{
    for (unsigned i = 0; i < 50; i++) {
        struct api_write w;
        expect_ok(&w, POST, JOB);
        uint32_t slot = hashring_slot("default", w.papi.id, BED_SLOTS);
        cr_assert(lt(u32, slot, 8));
        cr_assert(eq(u32, uid_slot(&w.papi.uid), slot));
        cr_assert(w.papi.fresh_id);
        cr_assert(eq(str, w.papi.spec->id, w.papi.id));
        api_write_fini(&w);
    }
}

Test(write, an_agent_that_owns_nothing_makes_an_id_all_the_same)
{
    struct api_write w;
    bed.owned = 0;
    expect_ok(&w, POST, JOB);
    cr_assert(eq(sz, strlen(w.papi.id), 26));
    api_write_fini(&w);
}

Test(write, an_id_in_the_body_is_kept)
{
    struct api_write w;
    expect_ok(&w, POST, "{\"id\":\"a.b\",\"schedule\":\"0 9 * * *\"," CALLBACK "}");
    cr_assert(eq(str, w.papi.id, "a.b"));
    cr_assert(not(w.papi.fresh_id));
    api_write_fini(&w);
    expect_code(POST, "{\"id\":\"a/b\",\"schedule\":\"0 9 * * *\"," CALLBACK "}", API_INVALID_JOB, "#/id");
    expect_code(POST, "{\"id\":7,\"schedule\":\"0 9 * * *\"," CALLBACK "}", API_INVALID_JOB, "#/id");
    expect_code(PUT, "{\"id\":\"y\",\"schedule\":\"0 9 * * *\"," CALLBACK "}", API_INVALID_JOB, "#/id");
}

Test(write, a_key_gives_the_same_id_and_the_body_its_digest)
{
    struct api_head keyed = HEAD("POST", "/v1/jobs", "", WITH_JSON{"Idempotency-Key", "order-17"}, );
    struct api_head other = HEAD("POST", "/v1/jobs", "ns=b", WITH_JSON{"Idempotency-Key", "order-17"}, );
    struct api_write a, b, c, d;
    expect_ok(&a, keyed, JOB);
    rng_u64(&bed.rng);
    api_context_make(&bed.ids, BED_NOW_MS + 1, &bed.ctx.defaults, &bed.ctx);
    expect_ok(&b, keyed, "{ " CALLBACK ", \"schedule\": \"0 9 * * *\"}"); /* the same, written otherwise */
    expect_ok(&c, keyed, "{\"schedule\":\"1 9 * * *\"," CALLBACK "}");
    expect_ok(&d, other, JOB);
    cr_assert(eq(str, a.papi.id, b.papi.id));
    cr_assert(eq(str, a.papi.id, c.papi.id));
    cr_assert(ne(str, a.papi.id, d.papi.id));
    cr_assert(api_write_same_body(&b, &a.papi.uid));
    cr_assert(not(api_write_same_body(&c, &a.papi.uid)));
    cr_assert(ne(int, memcmp(&a.papi.uid, &b.papi.uid, sizeof(struct uid)), 0));
    cr_assert(not(a.papi.fresh_id)); /* someone may have it */
    api_write_fini(&a);
    api_write_fini(&b);
    api_write_fini(&c);
    api_write_fini(&d);
}

Test(write, ids_of_keys_do_not_change_with_versions)
{
    char id[RECORD_ID_MAX];
    api_id_from_key("default", "order-17", id);
    cr_assert(eq(str, id, "key-6n2xehjyrmdan3kety37iibxwy"));
}

Test(write, a_repeated_run_has_its_keys_change_id)
{
    struct api_head keyed =
        HEAD("POST", "/v1/jobs/x/run", "", {"Carillon-Client", "t"}, {"Idempotency-Key", "k"}, );
    struct api_write a, b;
    expect_ok(&a, keyed, "");
    api_context_make(&bed.ids, BED_NOW_MS, &bed.ctx.defaults, &bed.ctx);
    expect_ok(&b, keyed, "");
    cr_assert(eq(u64, a.papi.change_id, b.papi.change_id));
    cr_assert(a.papi.repeated);
    api_write_fini(&a);
    api_write_fini(&b);
}

Test(write, everything_wrong_with_a_job_is_pointed_at)
{
    struct api_write w;
    struct api_problem p;
    cr_assert(eq(int,
                 read_write(&w, POST,
                            "{\"schedule\":\"61 * * * *\",\"callback\":{\"http\":{\"path\":1}},\"x\":1}", &p),
                 -ERR_INVALID));
    cr_assert(eq(int, api_code_status(p.code), 400));
    cr_assert(ge(sz, p.errors.count, 3));
    api_problem_fini(&p);
    api_write_fini(&w);
    expect_code(POST, "{\"schedule\":\"@at 2001-01-01T00:00:00Z\"," CALLBACK "}", API_DUE_IN_PAST,
                "#/schedule");
    expect_code(POST, "{\"schedule\":\"@daily\",\"callback\":{\"http\":{\"path\":\"/x\"}}}", API_NO_TARGET,
                "");
    expect_code(POST, "{\"schedule\":\"@daily\",\"callback\":{\"http\":{\"url\":\"http://127.0.0.1/x\"}}}",
                API_LOOPBACK_TARGET, "");
    expect_code(POST, "[]", API_INVALID_JOB, "#");
    expect_code(POST, "", API_INVALID_REQUEST, "#");
    expect_code(POST, "{\"a\":1,\"a\":2}", API_INVALID_REQUEST, "#");
    expect_code(PATCH, "7", API_INVALID_JOB, "#");
}

Test(write, what_this_version_does_not_do_is_refused)
{
    expect_code(POST, "{\"schedule\":\"@every 9s\",\"callback\":{\"grpc\":{\"service\":\"a\"},\"async\":{}}}",
                API_INVALID_JOB, "#/callback/async");
}

Test(write, small_bodies_know_their_fields)
{
    struct api_head run = HEAD("POST", "/v1/jobs/x/run", "", WITH_JSON);
    struct api_head resume = HEAD("POST", "/v1/jobs/x/resume", "", WITH_JSON);
    struct api_head pause = HEAD("POST", "/v1/jobs/x/pause", "", WITH_JSON);
    struct api_head gone = HEAD("DELETE", "/v1/jobs/x", "", WITH_JSON);
    struct api_write w;
    expect_ok(&w, run, "{\"payload\": {\"b\": [1, 2]}, \"force\": true}");
    cr_assert(eq(sz, w.papi.run_payload_bytes, 11));
    cr_assert(zero(int, memcmp(w.papi.run_payload, "{\"b\":[1,2]}", 11)));
    cr_assert(w.papi.run_force);
    cr_assert(zero(ptr, w.papi.run_trace));
    api_write_fini(&w);
    trace_read("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1", &bed.ctx.trace);
    expect_ok(&w, run, "");
    cr_assert(eq(str, w.papi.run_trace, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 a=1"));
    api_write_fini(&w);
    memset(&bed.ctx.trace, 0, sizeof(bed.ctx.trace));
    expect_ok(&w, resume, "{\"catch_up\":\"last\"}");
    cr_assert(eq(int, w.papi.catch_up, PLANNER_CATCH_UP_LAST));
    api_write_fini(&w);
    expect_ok(&w, pause, "{}");
    api_write_fini(&w);
    expect_code(run, "{\"forse\":true}", API_INVALID_REQUEST, "#/forse");
    expect_code(resume, "{\"catch_up\":\"some\"}", API_INVALID_REQUEST, "#/catch_up");
    expect_code(pause, "{\"x\":1}", API_INVALID_REQUEST, "#/x");
    expect_code(gone, "[]", API_INVALID_REQUEST, "#");
    expect_code(HEAD("POST", "/v1/jobs/x/run", "", {"Carillon-Client", "t"}, ), "{}",
                API_UNSUPPORTED_MEDIA_TYPE, "");
}

/* --- merging ------------------------------------------------------------------------------------------------------- */

static struct job_spec *present(const char *body)
{
    struct api_write w;
    expect_ok(&w, PUT, body);
    struct job_spec *spec = job_spec_ref(w.papi.spec);
    api_write_fini(&w);
    return spec;
}

/* The merged job as it is answered; to be freed. */
static char *merged(const char *of, const char *patch)
{
    struct api_write w;
    struct job_spec *spec = NULL, *old = present(of);
    struct job_row row = {.created_ms = BED_NOW_MS - 5000};
    struct buf out = BUF_INIT(1 << 20);
    expect_ok(&w, PATCH, patch);
    cr_assert(zero(int, w.papi.merge(&w.papi, old, &row, &spec)), "%s", w.problem.detail);
    cr_assert(zero(int, job_print(spec, NULL, "", &out, NULL)));
    job_spec_unref(spec);
    job_spec_unref(old);
    api_write_fini(&w);
    return buf_steal(&out, NULL, NULL);
}

static void expect_merged(const char *of, const char *patch, const char *part, bool there)
{
    char *text = merged(of, patch);
    cr_assert(eq(int, strstr(text, part) != NULL, there), "%s", text);
    mem_free(text);
}

Test(write, a_patch_merges_but_replaces_the_payload_whole)
{
    static const char base[] = "{\"schedule\":\"0 9 * * *\"," CALLBACK
                               ",\"labels\":{\"a\":\"1\",\"b\":\"2\"},\"payload\":{\"x\":1,\"y\":2}}";
    expect_merged(base, "{\"labels\":{\"a\":null,\"c\":\"3\"}}", "\"labels\":{\"b\":\"2\",\"c\":\"3\"}",
                  true);
    expect_merged(base, "{\"payload\":{\"z\":3}}", "\"payload\":{\"z\":3}", true);
    expect_merged(base, "{\"payload\":{\"x\":null}}", "\"payload\":{\"x\":null}", true);
    expect_merged(base, "{\"payload\":null}", "payload", false);
    expect_merged(base, "{\"payload_base64\":\"AAEC\"}", "\"payload_base64\":\"AAEC\"", true);
    expect_merged(base, "{\"payload_base64\":\"AAEC\"}", "\"payload\":", false);
    expect_merged(base, "{\"description\":\"d\"}", "\"payload\":{\"x\":1,\"y\":2}", true);
    expect_merged(base, "{\"status\":{\"version\":9}}", "\"0 9 * * *\"", true);
}

/* The rule that the job had may be the agent's default: nobody gave it. */
Test(write, a_patch_to_at_most_once_takes_the_rule_of_retry_away)
{
    expect_merged(JOB, "{\"delivery\":\"at_most_once\"}", "\"delivery\":\"at_most_once\"", true);
    expect_merged(JOB, "{\"delivery\":\"at_most_once\"}", "retry", false);
    expect_merged(JOB, "{\"delivery\":\"at_least_once\"}", "\"retry\":{", true);
    struct api_write w;
    struct job_spec *spec = NULL, *old = present(JOB);
    struct job_row row = {.created_ms = BED_NOW_MS};
    expect_ok(&w, PATCH, "{\"delivery\":\"at_most_once\",\"retry\":{\"max_attempts\":3}}");
    cr_assert(eq(int, w.papi.merge(&w.papi, old, &row, &spec), -ERR_INVALID));
    job_spec_unref(old);
    api_write_fini(&w);
}

/* GET, edit, PUT, of a job whose instant has passed meanwhile: whether it was there the owner sees. */
Test(write, what_has_passed_may_be_put_where_it_was_there)
{
    static const char body[] = "{\"schedule\":[\"@daily\",\"@at 2001-01-01T00:00:00Z\"]," CALLBACK "}";
    struct api_write w;
    struct job_spec *spec = NULL, *without = present(JOB);
    struct job_row row = {.created_ms = BED_NOW_MS};
    expect_ok(&w, PUT, body);
    cr_assert(w.papi.merge_only);
    cr_assert(eq(int, w.problem.code, API_DUE_IN_PAST), "for a job that is not there");
    cr_assert(zero(int, w.papi.merge(&w.papi, w.papi.spec, &row, &spec)), "%s", w.problem.detail);
    cr_assert(job_spec_equal(spec, w.papi.spec));
    cr_assert(eq(int, w.problem.code, API_DUE_IN_PAST), "it may be deleted before this is written");
    job_spec_unref(spec);
    cr_assert(eq(int, w.papi.merge(&w.papi, without, &row, &spec), -ERR_INVALID));
    cr_assert(eq(int, w.problem.code, API_DUE_IN_PAST));
    cr_assert(eq(sz, w.problem.errors.count, 1));
    cr_assert(eq(str, w.problem.errors.items[0].pointer, "#/schedule/1"));
    job_spec_unref(without);
    api_write_fini(&w);
    expect_code(POST, body, API_DUE_IN_PAST, "#/schedule/1");
    expect_code(PUT, "{\"schedule\":[\"@at 2001-01-01T00:00:00Z\",\"61 * * * *\"]," CALLBACK "}",
                API_DUE_IN_PAST, "#/schedule/1");
}

Test(write, a_patch_that_makes_no_job_says_where)
{
    struct api_write w;
    struct job_spec *spec = NULL, *old = present(JOB);
    struct job_row row = {.created_ms = BED_NOW_MS};
    expect_ok(&w, PATCH, "{\"callback\":null,\"jitter\":\"x\"}");
    cr_assert(eq(int, w.papi.merge(&w.papi, old, &row, &spec), -ERR_INVALID));
    cr_assert(eq(int, w.problem.code, API_INVALID_JOB));
    cr_assert(ge(sz, w.problem.errors.count, 2));
    cr_assert(zero(ptr, spec));
    job_spec_unref(old);
    api_write_fini(&w);
}

Test(write, the_phase_of_a_replaced_interval_is_its_jobs)
{
    struct api_write w;
    struct job_spec *spec = NULL;
    struct job_row row = {.created_ms = BED_NOW_MS - 5000};
    expect_ok(&w, PUT, "{\"schedule\":\"@every 1h\"," CALLBACK "}");
    cr_assert(eq(i64, w.papi.spec->phase_ms, BED_NOW_MS));
    cr_assert(zero(int, w.papi.merge(&w.papi, w.papi.spec, &row, &spec)));
    cr_assert(eq(i64, spec->phase_ms, BED_NOW_MS - 5000));
    job_spec_unref(spec);
    api_write_fini(&w);
    expect_ok(&w, PUT, JOB);
    cr_assert(zero(ptr, (void *)w.papi.merge));
    api_write_fini(&w);
}

Test(write, every_failing_step_is_survived)
{
    static const char body[] = "{\"schedule\":[\"@every 1h\",\"0 9 * * *\"]," CALLBACK
                               ",\"payload\":{\"x\":1},\"labels\":{\"a\":\"b\"}}";
    struct job_spec *old = present(body);
    struct job_row row = {.created_ms = BED_NOW_MS};
    for (unsigned k = 0;; k++) {
        struct api_write w, patch;
        struct api_problem p, q = {0};
        struct job_spec *spec = NULL;
        fault_arm(k);
        int rc = read_write(&w, PUT, body, &p);
        int rc_patch = read_write(&patch, PATCH, "{\"payload\":{\"y\":2}}", &q);
        if (rc_patch == 0)
            rc_patch = patch.papi.merge(&patch.papi, old, &row, &spec);
        bool fired = fault_fired();
        cr_assert(eq(int, rc == 0, w.papi.spec != NULL), "k=%u", k);
        cr_assert(eq(int, rc_patch == 0, spec != NULL), "k=%u", k);
        cr_assert(fired || (rc == 0 && rc_patch == 0), "k=%u", k);
        cr_assert(eq(int, rc < 0, p.code != API_OK), "k=%u", k);
        job_spec_unref(spec);
        api_problem_fini(&p);
        api_problem_fini(&q);
        api_write_fini(&w);
        api_write_fini(&patch);
        if (!fired)
            break;
    }
    job_spec_unref(old);
}
