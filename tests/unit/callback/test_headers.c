#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/err.h"
#include "agent/core/trace.h"
#include "agent/io/file.h"
#include "callback/headers.h"
#include "tests/lib/callback_bed.h"

#define KEY    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define NOW_MS INT64_C(1614265330999)

static struct bed {
    struct headers headers;
    struct job_spec spec;
    struct job_pair pairs[JOB_HEADERS_MAX];
    struct delivery delivery;
    struct callback_attempt attempt;
    struct safety_use use;
    struct curl_slist *list;
} bed;

static void make(void)
{
    memset(&bed, 0, sizeof(bed));
    headers_init(&bed.headers);
    bed.spec = bed_spec("billing", NULL);
    bed.spec.callback.headers = bed.pairs;
    bed.delivery = bed_delivery(&bed.spec);
    bed.attempt = (struct callback_attempt){.delivery = &bed.delivery, .source = "/carillon/test"};
}

static void clean(void)
{
    safety_unuse(&bed.use);
    headers_fini(&bed.headers);
}

TestSuite(headers, .init = make, .fini = clean);

static void use_secrets(const char *token)
{
    char dir[64] = "/tmp/test-headers-XXXXXX", path[128], command[128];
    struct err e;
    cr_assert(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/default", dir);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/default/token", dir);
    cr_assert(zero(int, file_write(path, token, strlen(token), 0600, &e)));
    cr_assert(zero(int, secrets_load(dir, &bed.use.secrets, &e)), "%s", e.text);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    cr_assert(zero(int, system(command)));
}

static void give(const char *name, const char *value)
{
    bed.pairs[bed.spec.callback.headers_count++] = (struct job_pair){name, value};
}

static int build(struct err *e)
{
    return headers_build(&bed.headers, &bed.attempt, NOW_MS, "carillon/test", &bed.use, &bed.list, e);
}

static void build_ok(void)
{
    struct err e = {0};
    cr_assert(zero(int, build(&e)), "%s", e.text);
}

/* The line that begins with NAME, without it; NULL: none. */
static const char *header(const char *name)
{
    for (const struct curl_slist *i = bed.list; i; i = i->next)
        if (strncmp(i->data, name, strlen(name)) == 0)
            return i->data + strlen(name);
    return NULL;
}

Test(headers, host_is_the_services_name_also_when_its_certificate_has_another)
{
    struct callback_tls *tls = callback_tls_new(NULL, NULL, NULL, "internal.example");
    build_ok();
    cr_assert(zero(ptr, (void *)header("Host: ")), "libcurl's own is right");
    bed.attempt.tls = tls;
    build_ok();
    cr_assert(eq(str, (char *)header("Host: "), "billing"));
    callback_tls_unref(tls);
}

Test(headers, a_part_of_a_fire_has_a_key_of_its_own)
{
    static const char text[] = "* a " KEY "\n";
    cr_assert(zero(int, sign_keys_parse(text, strlen(text), &bed.use.keys, NULL)));
    bed.spec.callback.to = JOB_TO_SHARDS;
    bed.attempt.part = 2;
    bed.attempt.parts = 3;
    build_ok();
    const char *fire = header("ce-id: "), *key = header("Idempotency-Key: ");
    char wanted[80];
    (void)snprintf(wanted, sizeof(wanted), "\"%s/2\"", fire);
    cr_assert(eq(str, (char *)key, wanted));
    cr_assert(eq(str, (char *)header("Carillon-Shard: "), "2/3"));
    (void)snprintf(wanted, sizeof(wanted), "%s/2", fire);
    cr_assert(eq(str, (char *)header("webhook-id: "), wanted));
    bed.spec.callback.to = JOB_TO_ALL;
    build_ok();
    cr_assert(zero(ptr, (void *)header("Carillon-Shard: ")), "its number says nothing to it");
}

static void refused(enum err_code code, const char *text)
{
    struct err e = {0};
    cr_assert(eq(int, build(&e), -(int)code));
    cr_assert(eq(str, e.text, (char *)text));
    cr_assert(zero(ptr, bed.list));
}

Test(headers, secrets_are_filled_in_where_they_are_named)
{
    use_secrets("hunter2");
    give("Authorization", "Bearer ${secret:token}");
    give("X-Two", "${secret:token}-${secret:token}");
    give("X-Plain", "$${secret:token}");
    give("X-Empty", "");
    build_ok();
    cr_assert(eq(str, (char *)header("Authorization: "), "Bearer hunter2"));
    cr_assert(eq(str, (char *)header("X-Two: "), "hunter2-hunter2"));
    cr_assert(eq(str, (char *)header("X-Plain: "), "${secret:token}"));
    cr_assert(eq(str, (char *)header("X-Empty"), ";"));
}

Test(headers, a_job_that_was_made_in_a_trace_calls_in_one)
{
    struct trace expected;
    build_ok();
    cr_assert(zero(ptr, (void *)header("traceparent: ")));
    bed.spec.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    bed.spec.tracestate = "a=1";
    build_ok();
    trace_of_attempt(bed.spec.traceparent, "a=1", &bed.delivery.uid, bed.delivery.seq, bed.delivery.attempt,
                     bed.delivery.epoch, &expected);
    cr_assert(eq(str, (char *)header("traceparent: "), expected.parent));
    cr_assert(eq(str, (char *)header("tracestate: "), expected.state));
}

#define RUN_TRACE "00-11111111111111111111111111111111-2222222222222222-00"

Test(headers, a_run_that_a_trace_asked_for_calls_in_that_one)
{
    struct trace expected;
    bed.spec.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    bed.spec.tracestate = "a=1";
    bed.delivery.trace = RUN_TRACE " run=2";
    bed.delivery.trace_bytes = strlen(bed.delivery.trace);
    build_ok();
    trace_of_attempt(RUN_TRACE, "run=2", &bed.delivery.uid, bed.delivery.seq, bed.delivery.attempt,
                     bed.delivery.epoch, &expected);
    cr_assert(eq(str, (char *)header("traceparent: "), expected.parent));
    cr_assert(eq(str, (char *)header("tracestate: "), "carillon=" RUN_TRACE ",run=2"));
    bed.delivery.trace = "what no agent writes\r\nX-Evil: 1"; /* then as if there were none */
    bed.delivery.trace_bytes = strlen(bed.delivery.trace);
    build_ok();
    trace_of_attempt(bed.spec.traceparent, "a=1", &bed.delivery.uid, bed.delivery.seq, bed.delivery.attempt,
                     bed.delivery.epoch, &expected);
    cr_assert(eq(str, (char *)header("tracestate: "), expected.state));
    cr_assert(zero(ptr, (void *)header("X-Evil")));
}

Test(headers, a_secret_that_is_not_there_says_so)
{
    give("X", "${secret:token}");
    refused(ERR_NOT_FOUND, "secret 'token': callback.secrets_dir is not set");
    use_secrets("hunter2");
    bed.pairs[0].value = "${secret:other}";
    refused(ERR_NOT_FOUND, "secret 'other' is not there");
    snprintf(bed.spec.ns, sizeof(bed.spec.ns), "team-b");
    bed.pairs[0].value = "${secret:token}";
    refused(ERR_NOT_FOUND, "secret 'token' is not there");
}

Test(headers, a_secret_with_a_line_break_is_not_sent)
{
    use_secrets("a\r\nX-Evil: 1");
    give("X", "${secret:token}");
    refused(ERR_INVALID, "secret 'token' holds a line break or another character that no header may have");
}

Test(headers, what_is_broken_in_the_store_is_not_sent)
{
    give("X", "a ${HOME}");
    refused(ERR_INVALID, "a header has ${ that begins no secret");
    bed.pairs[0].value = "a\r\nX-Evil: 1";
    refused(ERR_INVALID, "a header has a line break");
}

Test(headers, signatures_come_with_id_and_time)
{
    static const char body[] = "{\"test\": 2432232314}", text[] = "* a " KEY "\n* b " KEY "\n";
    cr_assert(zero(int, sign_keys_parse(text, strlen(text), &bed.use.keys, NULL)));
    bed.delivery.payload = body;
    bed.delivery.payload_bytes = strlen(body);
    build_ok();
    cr_assert(eq(str, (char *)header("webhook-timestamp: "), "1614265330"));
    cr_assert(eq(str, (char *)header("webhook-id: "), (char *)header("ce-id: ")));
    char first[64], second[64];
    cr_assert(eq(int, sscanf(header("webhook-signature: "), "%63s %63s", first, second), 2));
    cr_assert(eq(str, first, second));
    cr_assert(eq(sz, strlen(first), 47));
    bed.spec.callback.method = "GET"; /* sends no body, so it is signed without */
    build_ok();
    char third[64];
    cr_assert(eq(int, sscanf(header("webhook-signature: "), "%63s", third), 1));
    cr_assert(ne(str, first, third));
}

Test(headers, without_a_key_there_is_no_webhook_header)
{
    static const char text[] = "team-b a " KEY "\n";
    build_ok();
    cr_assert(zero(ptr, (void *)header("webhook-")));
    cr_assert(zero(int, sign_keys_parse(text, strlen(text), &bed.use.keys, NULL)));
    build_ok();
    cr_assert(zero(ptr, (void *)header("webhook-")));
    cr_assert(eq(str, (char *)header("ce-type: "), "carillon.fire"));
}

static void hidden(const char *text, const char *expected)
{
    char copy[200];
    snprintf(copy, sizeof(copy), "%s", text);
    headers_hide_secrets(&bed.headers, copy, strlen(copy));
    cr_assert(eq(str, copy, (char *)expected));
}

Test(headers, what_a_callee_sends_back_shows_no_secret)
{
    use_secrets("hunter2");
    give("X", "${secret:token}");
    build_ok();
    hidden("got hunter2, hunter2hunter2!", "got *******, **************!");
    hidden("cut at hunte", "cut at *****");
    hidden("hun", "hun");
    hidden("", "");
    hidden("nothing here", "nothing here");
    headers_forget(&bed.headers);
    hidden("got hunter2", "got hunter2");
}

Test(headers, secrets_have_a_number)
{
    char value[HEADERS_SECRETS_MAX * 16 + 32] = "";
    use_secrets("hunter2");
    for (int i = 0; i < HEADERS_SECRETS_MAX; i++)
        strncat(value, "${secret:token}", 16);
    give("X", value);
    build_ok();
    bed.list = NULL;
    give("Y", "${secret:token}");
    refused(ERR_TOO_BIG, "more than 64 secrets in the headers");
}

Test(headers, faults_are_reported)
{
    use_secrets("hunter2");
    static const char text[] = "* a " KEY "\n";
    cr_assert(zero(int, sign_keys_parse(text, strlen(text), &bed.use.keys, NULL)));
    give("X", "${secret:token}");
    for (unsigned k = 0;; k++) {
        struct err e = {0};
        headers_fini(&bed.headers);
        headers_init(&bed.headers);
        fault_arm(k);
        int rc = build(&e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u", k);
    }
}
