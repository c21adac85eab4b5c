#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/grpcd.h"
#include "agent/io/loop.h"
#include "callback/callback.h"
#include "callback/fire_message.h"
#include "callback/safety.h"
#include "tests/lib/callback_bed.h"
#include "tests/lib/patience.h"
#include "tests/lib/raw_server.h"
#include "tests/unit/io/certificate.h"

enum { ATTEMPTS_MAX = 64, HELD_MAX = 64 };

/* What the callee answers, and what it saw last. Guarded by the server's one thread; tests look when it has answered. */
static struct {
    int code;
    const char *details;
    const char *reply;
    bool hold; /* no answer until release() */
    struct grpcd_call *held[HELD_MAX];
    _Atomic size_t held_count;
    char method[200], authority[200], peer[80];
    char message[4096];
    size_t message_bytes;
    char metadata[8192]; /* "name=value\n" of those that are asked for */
    _Atomic unsigned calls;
} script;

static const char *const looked_at[] = {"ce-specversion",    "ce-id",
                                        "ce-source",         "ce-subject",
                                        "ce-type",           "ce-time",
                                        "idempotency-key",   "carillon-attempt",
                                        "carillon-seq",      "carillon-epoch",
                                        "carillon-deadline", "carillon-coalesced",
                                        "webhook-id",        "webhook-signature",
                                        "user-agent",        "x-team",
                                        "x-empty",           "authorization",
                                        "x-raw-bin",         NULL};

static void handle(struct grpcd_call *c, void *arg)
{
    size_t bytes;
    const void *message = grpcd_message(c, &bytes);
    (void)arg;
    snprintf(script.method, sizeof(script.method), "%s", grpcd_method(c));
    snprintf(script.authority, sizeof(script.authority), "%s", grpcd_authority(c));
    snprintf(script.peer, sizeof(script.peer), "%s", grpcd_peer(c));
    script.message_bytes = bytes < sizeof(script.message) ? bytes : sizeof(script.message);
    memcpy(script.message, message, script.message_bytes);
    script.metadata[0] = '\n';
    script.metadata[1] = '\0';
    for (size_t i = 0; looked_at[i]; i++)
        if (grpcd_metadata(c, looked_at[i]))
            snprintf(script.metadata + strlen(script.metadata),
                     sizeof(script.metadata) - strlen(script.metadata), "%s=%s\n", looked_at[i],
                     grpcd_metadata(c, looked_at[i]));
    script.calls++;
    if (script.hold)
        script.held[script.held_count++] = c;
    else
        grpcd_reply(c, script.code, script.details, script.reply, script.reply ? strlen(script.reply) : 0);
}

static void release(void)
{
    for (size_t i = 0; i < script.held_count; i++)
        grpcd_reply(script.held[i], script.code, script.details, "", 0);
    script.held_count = 0;
}

static struct bed {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct callback_gate gate;
    struct safety *safety;
    struct grpcd *server;
    void *transport;
    struct job_spec spec;
    struct delivery delivery;
    struct callback_attempt attempts[ATTEMPTS_MAX];
    size_t sent, ended, stop_at;
    char endpoint[64];
} bed;

static void on_done(void *arg, struct callback_attempt *a)
{
    (void)arg;
    (void)a;
    if (++bed.ended == bed.stop_at)
        loop_stop(bed.loop);
}

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain: %zu of %zu ended", bed.ended, bed.sent);
}

static void serve_on(const char *listen)
{
    struct grpcd_options options = {.listen = listen, .handle = handle};
    struct err e = {0};
    cr_assert(zero(int, grpcd_start(&options, &bed.server, &e)), "%s", e.text);
    snprintf(bed.endpoint, sizeof(bed.endpoint), "%s", grpcd_address(bed.server));
}

/* A job calls METHOD of a service, or with ADDRESS a direct target. */
static struct job_spec grpc_spec(const char *address)
{
    struct job_spec spec = bed_spec(address ? NULL : "billing", NULL);
    spec.callback.transport = JOB_GRPC;
    spec.callback.address = address;
    spec.callback.path = NULL;
    spec.callback.method = FIRE_METHOD;
    spec.callback.success[0] = (struct job_code_range){0, 0};
    spec.callback.give_up[0] = (struct job_code_range){3, 3};
    spec.callback.give_up[1] = (struct job_code_range){14, 14};
    return spec;
}

static void open_transport(void)
{
    struct err e = {0};
    struct callback_options options = {.loop = bed.loop,
                                       .gate = &bed.gate,
                                       .threads = 1,
                                       .connections_max = 4,
                                       .user_agent = "carillon/test",
                                       .safety = bed.safety};
    cr_assert(zero(int, callback_grpc.open(&options, on_done, NULL, &bed.transport, &e)), "%s", e.text);
}

static void open_with(const struct safety_options *safety)
{
    struct err e = {0};
    memset(&bed, 0, sizeof(bed));
    atomic_init(&bed.gate.lease_until_ms, INT64_MAX);
    atomic_init(&bed.gate.wall_offset_us, clock_wall_us() - (int64_t)clock_boot_us());
    cr_assert(zero(int, loop_new(&bed.loop, &e)), "%s", e.text);
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    if (safety) {
        struct safety_options options = *safety;
        options.loop = bed.loop;
        options.look_ms = 3600 * 1000;
        cr_assert(zero(int, safety_new(&options, &bed.safety, &e)), "%s", e.text);
    }
    open_transport();
    bed.spec = grpc_spec(NULL);
    bed.delivery = bed_delivery(&bed.spec);
}

static void bed_open(void)
{
    open_with(NULL);
    serve_on("127.0.0.1:0");
}

static void bed_close(void)
{
    if (bed.transport)
        callback_grpc.close(bed.transport);
    release();
    grpcd_stop(bed.server);
    release();
    safety_free(bed.safety);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

static struct callback_attempt *launch_with(const struct callback_tls *tls)
{
    struct callback_attempt *a = &bed.attempts[bed.sent++];
    *a = (struct callback_attempt){.delivery = &bed.delivery, .source = "/carillon/test", .tls = tls};
    list_init(&a->link);
    if (bed.spec.callback.service)
        snprintf(a->endpoint, sizeof(a->endpoint), "%s", bed.endpoint);
    callback_grpc.deliver(bed.transport, a, 1);
    return a;
}

static struct callback_attempt *launch(void)
{
    return launch_with(NULL);
}

static void wait_ended(size_t count)
{
    bed.stop_at = count;
    if (bed.ended < count)
        loop_run(bed.loop);
}

static void wait_all(void)
{
    wait_ended(bed.sent);
}

static const struct attempt *attempt(void)
{
    struct callback_attempt *a = launch();
    wait_all();
    return &a->result;
}

static void wait_held(size_t count)
{
    for (int i = 0; script.held_count < count; i++) {
        cr_assert(lt(int, i, 20000), "%zu calls came", (size_t)script.held_count);
        usleep(1000);
    }
}

static void assert_metadata(const char *name, const char *value)
{
    char wanted[600];
    snprintf(wanted, sizeof(wanted), value ? "\n%s=%s\n" : "\n%s=", name, value);
    cr_assert(eq(int, strstr(script.metadata, wanted) != NULL, value != NULL), "%s=%s in%s", name,
              value ? value : "", script.metadata);
}

/* --- the request --------------------------------------------------------------------------------------------------- */

Test(callback_grpc, carries_message_and_metadata_of_the_contract)
{
    struct job_pair pairs[] = {{"X-Team", "pay"}, {"x-empty", ""}, {"x-raw-bin", "abc"}};
    AUTO(buf_fini) struct buf payload = BUF_INIT(1 << 20);
    bed_open();
    bed.delivery.payload = "{\"a\":1}";
    bed.delivery.payload_bytes = 7;
    bed.delivery.coalesced = 2;
    bed.spec.callback.headers = pairs;
    bed.spec.callback.headers_count = 3;
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    cr_assert(zero(int, r->status));
    cr_assert(eq(str, (char *)r->endpoint, bed.endpoint));
    cr_assert(eq(str, script.method, "/carillon.v1.Callback/Fire"));
    cr_assert(eq(str, script.authority, "billing"));
    cr_assert(zero(int, fire_message_payload(script.message, script.message_bytes, &payload, NULL)));
    cr_assert(eq(str, (char *)buf_str(&payload), "{\"a\":1}"));
    assert_metadata("ce-specversion", "1.0");
    assert_metadata("ce-id", "0005ab00000000000000000000000000.7");
    assert_metadata("ce-source", "/carillon/test/default");
    assert_metadata("ce-subject", "job-1");
    assert_metadata("ce-type", "carillon.fire");
    assert_metadata("ce-time", "2026-11-23T08:00:00.000Z");
    assert_metadata("idempotency-key", "\"0005ab00000000000000000000000000.7\"");
    assert_metadata("carillon-attempt", "1");
    assert_metadata("carillon-seq", "7");
    assert_metadata("carillon-epoch", "3");
    assert_metadata("carillon-coalesced", "2");
    assert_metadata("x-team", "pay");
    assert_metadata("x-empty", "");
    assert_metadata("x-raw-bin", "abc");
    assert_metadata("webhook-id", NULL);
    cr_assert(ne(ptr, strstr(script.metadata, "\nuser-agent=carillon/test grpc-c/"), NULL), "%s",
              script.metadata);
    bed_close();
}

Test(callback_grpc, another_method_gets_the_payload_as_its_message)
{
    bed_open();
    bed.spec.callback.method = "/shop.v1.Invoices/Close";
    bed.delivery.payload = "\x0a\x03"
                           "abc";
    bed.delivery.payload_bytes = 5;
    script.reply = "done";
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    cr_assert(eq(str, (char *)r->excerpt, "done"));
    cr_assert(eq(str, script.method, "/shop.v1.Invoices/Close"));
    cr_assert(eq(sz, script.message_bytes, 5));
    cr_assert(zero(int, memcmp(script.message,
                               "\x0a\x03"
                               "abc",
                               5)));
    bed.delivery.payload = NULL;
    bed.delivery.payload_bytes = 0;
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    cr_assert(zero(sz, script.message_bytes));
    bed_close();
}

Test(callback_grpc, the_deadline_is_that_of_the_attempt)
{
    const char *text;
    int64_t deadline_ms, before_ms = clock_wall_ms();
    bed_open();
    bed.spec.callback.timeout_ms = 20000;
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    text = strstr(script.metadata, "\ncarillon-deadline=") + strlen("\ncarillon-deadline=");
    cr_assert(zero(int, text_instant_ms(text, TEXT_INSTANT_SIZE - 1, &deadline_ms, NULL)));
    cr_assert(ge(i64, deadline_ms, before_ms + 20000));
    cr_assert(le(i64, deadline_ms, clock_wall_ms() + 20000));
    bed_close();
}

Test(callback_grpc, metadata_that_grpc_cannot_carry_is_a_failed_attempt_and_never_sent)
{
    struct job_pair pairs[] = {{"x-team", "M\xc3\xbcller"}};
    bed_open();
    bed.spec.callback.headers = pairs;
    bed.spec.callback.headers_count = 1;
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, -1));
    cr_assert(eq(str, (char *)r->error, "metadata 'x-team' is not ASCII, or its name is not one for gRPC"));
    cr_assert(zero(uint, script.calls));
    bed_close();
}

/* --- answers ------------------------------------------------------------------------------------------------------- */

Test(callback_grpc, each_code_ends_as_the_job_says)
{
    static const struct {
        int code;
        enum attempt_result result;
        const char *error;
    } cases[] = {{3, ATTEMPT_GIVE_UP, "INVALID_ARGUMENT: no"}, {5, ATTEMPT_RETRY, "NOT_FOUND: no"},
                 {12, ATTEMPT_RETRY, "UNIMPLEMENTED: no"},     {14, ATTEMPT_GIVE_UP, "UNAVAILABLE: no"},
                 {16, ATTEMPT_RETRY, "UNAUTHENTICATED: no"},   {0, ATTEMPT_OK, ""}};
    bed_open();
    script.details = "no";
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        script.code = cases[i].code;
        const struct attempt *r = attempt();
        cr_assert(eq(int, r->status, cases[i].code));
        cr_assert(eq(int, r->result, cases[i].result), "code %d", cases[i].code);
        cr_assert(eq(str, (char *)r->error, (char *)cases[i].error));
        cr_assert(eq(str, (char *)r->excerpt, cases[i].code ? "no" : ""));
        cr_assert(eq(i64, r->retry_after_ms, -1));
    }
    bed_close();
}

Test(callback_grpc, calls_to_one_endpoint_share_a_connection)
{
    char first[80];
    bed_open();
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    memcpy(first, script.peer, sizeof(first));
    for (int i = 0; i < 5; i++)
        launch();
    wait_all();
    cr_assert(eq(str, script.peer, first));
    bed_close();
}

Test(callback_grpc, no_answer_before_the_deadline_is_deadline_exceeded)
{
    bed_open();
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK),
              "there is a connection, so the time is for the answer alone");
    script.hold = true;
    bed.spec.callback.timeout_ms = 1000;
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, 4));
    cr_assert(zero(int, strncmp(r->error, "DEADLINE_EXCEEDED", 17)), "%s", r->error);
    cr_assert(ge(u64, bed.attempts[1].latency_us, 950000));
    bed_close();
}

Test(callback_grpc, a_silent_connection_is_not_used_again)
{
    char first[80];
    bed_open();
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    memcpy(first, script.peer, sizeof(first));
    script.hold = true;
    bed.spec.callback.timeout_ms = 1000;
    cr_assert(eq(int, attempt()->status, 4));
    release();
    script.hold = false;
    bed.spec.callback.timeout_ms = 10000;
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    cr_assert(ne(str, script.peer, first));
    bed_close();
}

Test(callback_grpc, a_refused_connection_is_retried_whatever_codes_give_up)
{
    bed_open();
    grpcd_stop(bed.server);
    bed.server = NULL;
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, -1));
    cr_assert(ne(ptr, strstr(r->error, "Connection refused"), NULL), "%s", r->error);
    cr_assert(eq(str, (char *)r->endpoint, bed.endpoint));
    bed_close();
}

Test(callback_grpc, an_endpoint_that_comes_back_is_reached_at_the_next_attempt)
{
    bed_open();
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    for (int i = 0; i < 3; i++) {
        grpcd_stop(bed.server);
        bed.server = NULL;
        cr_assert(eq(int, attempt()->result, ATTEMPT_RETRY));
        serve_on(bed.endpoint);
        const struct attempt *r = attempt();
        cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    }
    bed_close();
}

Test(callback_grpc, a_callee_that_dies_in_the_call_fails_the_attempt)
{
    bed_open();
    script.hold = true;
    struct callback_attempt *a = launch();
    wait_held(1);
    script.hold = false;
    (void)launch();
    wait_ended(1); /* by then the transport has heard that the first request has gone out */
    grpcd_stop(bed.server);
    bed.server = NULL;
    release();
    wait_all();
    cr_assert(eq(int, a->result.result, ATTEMPT_GIVE_UP), "UNAVAILABLE, which the callee may have meant");
    cr_assert(eq(int, a->result.status, 14));
    bed_close();
}

/* A server that takes connections and says nothing that gRPC knows. */
static bool say_http1(const struct raw_request *rq)
{
    raw_write(rq->fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    return true;
}

Test(callback_grpc, a_peer_that_speaks_no_grpc_fails_the_attempt)
{
    open_with(NULL);
    struct raw_server *server = raw_server_start(false, say_http1, NULL);
    snprintf(bed.endpoint, sizeof(bed.endpoint), "127.0.0.1:%u", raw_server_port(server));
    bed.spec.callback.timeout_ms = 3000;
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, -1));
    cr_assert(ne(str, (char *)r->error, ""));
    bed_close();
    raw_server_stop(server);
}

/* --- before it starts, and close ----------------------------------------------------------------------------------- */

Test(callback_grpc, a_closed_gate_lets_nothing_out)
{
    bed_open();
    atomic_store(&bed.gate.closed, true);
    cr_assert(eq(int, attempt()->result, ATTEMPT_NOT_STARTED));
    atomic_store(&bed.gate.closed, false);
    atomic_store(&bed.gate.lease_until_ms, (int64_t)clock_boot_ms() - 1);
    cr_assert(eq(int, attempt()->result, ATTEMPT_NOT_STARTED));
    cr_assert(zero(uint, script.calls));
    bed_close();
}

/* A listener that takes nothing: the connection stays as it is until something is said. */
Test(callback_grpc, an_attempt_that_waits_for_its_connection_can_be_taken_back)
{
    int hold[2];
    open_with(NULL);
    cr_assert(zero(int, pipe(hold)));
    struct raw_server *server = raw_server_start(false, say_http1, NULL);
    snprintf(bed.endpoint, sizeof(bed.endpoint), "127.0.0.1:%u", raw_server_port(server));
    bed.spec.callback.timeout_ms = 600;
    struct callback_attempt *a = launch();
    cr_assert(callback_revoke(a));
    wait_all();
    cr_assert(eq(int, a->result.result, ATTEMPT_NOT_STARTED));
    bed_close();
    raw_server_stop(server);
}

Test(callback_grpc, one_that_was_taken_back_never_starts)
{
    bed_open();
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    struct callback_attempt *a = &bed.attempts[bed.sent++];
    *a = (struct callback_attempt){.delivery = &bed.delivery, .source = "/carillon/test"};
    list_init(&a->link);
    snprintf(a->endpoint, sizeof(a->endpoint), "%s", bed.endpoint);
    cr_assert(callback_revoke(a));
    callback_grpc.deliver(bed.transport, a, 1);
    wait_all();
    cr_assert(eq(int, a->result.result, ATTEMPT_NOT_STARTED));
    cr_assert(eq(uint, script.calls, 1));
    bed_close();
}

Test(callback_grpc, close_ends_calls_under_way_as_failed)
{
    bed_open();
    script.hold = true;
    for (int i = 0; i < 20; i++)
        launch();
    wait_held(20);
    cr_assert(not(callback_revoke(&bed.attempts[0])), "its request has gone out");
    callback_grpc.close(bed.transport);
    bed.transport = NULL;
    cr_assert(eq(sz, bed.ended, 20));
    for (int i = 0; i < 20; i++) {
        cr_assert(eq(int, bed.attempts[i].result.result, ATTEMPT_RETRY));
        cr_assert(eq(str, bed.attempts[i].result.error, "no answer before the agent stopped"));
    }
    bed_close();
}

Test(callback_grpc, close_ends_what_has_not_gone_out_as_not_started)
{
    open_with(NULL);
    struct raw_server *server = raw_server_start(false, say_http1, NULL);
    snprintf(bed.endpoint, sizeof(bed.endpoint), "127.0.0.1:%u", raw_server_port(server));
    atomic_store(&bed.gate.closed, true);
    for (int i = 0; i < 5; i++)
        launch();
    callback_grpc.close(bed.transport);
    bed.transport = NULL;
    cr_assert(eq(sz, bed.ended, 5));
    for (int i = 0; i < 5; i++)
        cr_assert(eq(int, bed.attempts[i].result.result, ATTEMPT_NOT_STARTED));
    bed_close();
    raw_server_stop(server);
}

Test(callback_grpc, a_transport_that_is_never_used_has_no_thread)
{
    open_with(NULL);
    callback_grpc.close(bed.transport);
    bed.transport = NULL;
    bed_close();
}

Test(callback_grpc, it_can_be_opened_again)
{
    bed_open();
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    for (int i = 0; i < 3; i++) {
        struct callback_options options = {.loop = bed.loop,
                                           .gate = &bed.gate,
                                           .threads = 1,
                                           .connections_max = 4,
                                           .user_agent = "carillon/test"};
        callback_grpc.close(bed.transport);
        cr_assert(zero(int, callback_grpc.open(&options, on_done, NULL, &bed.transport, NULL)));
        cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    }
    bed_close();
}

/* --- where it goes ------------------------------------------------------------------------------------------------- */

Test(callback_grpc, a_direct_target_is_called_by_its_own_name)
{
    char address[64];
    bed_open();
    snprintf(address, sizeof(address), "localhost:%u", grpcd_port(bed.server));
    bed.spec = grpc_spec(address);
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    cr_assert(eq(str, script.authority, address));
    bed_close();
}

Test(callback_grpc, an_ipv6_endpoint_is_reached)
{
    open_with(NULL);
    serve_on("[::1]:0");
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    cr_assert(eq(str, script.authority, "billing"));
    bed_close();
}

Test(callback_grpc, a_name_that_nobody_knows_is_a_failed_attempt)
{
    open_with(NULL);
    bed.spec = grpc_spec("no-such-host.invalid:50051");
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(zero(int, strncmp(r->error, "could not resolve host no-such-host.invalid", 43)), "%s",
              r->error);
    bed_close();
}

Test(callback_grpc, a_direct_address_that_is_denied_is_never_connected_to)
{
    char address[64];
    open_with(&(struct safety_options){0});
    serve_on("127.0.0.1:0");
    snprintf(address, sizeof(address), "localhost:%u", grpcd_port(bed.server));
    bed.spec = grpc_spec(address);
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, -1));
    cr_assert(ne(ptr, strstr(r->error, "is loopback, see callback.allow_loopback"), NULL), "%s", r->error);
    cr_assert(zero(uint, script.calls));
    bed.spec = grpc_spec(NULL);
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK), "an endpoint may be anywhere");
    struct guard_options deny = {.deny = (const char *const[]){"127.0.0.1/32"}, .deny_count = 1};
    cr_assert(zero(int, safety_set_guard(bed.safety, &deny, NULL)));
    r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY), "also over the connection that stands");
    cr_assert(eq(uint, script.calls, 1));
    bed_close();
}

/* --- faults -------------------------------------------------------------------------------------------------------- */

/* The transport anew, so that it has neither a thread nor a connection. */
static void reopen(void)
{
    callback_grpc.close(bed.transport);
    open_transport();
    bed.sent = bed.ended = 0;
}

/* The first attempt with one of its steps failing, on whatever thread it runs. What never went out says why, and the next one is as if
 * nothing had been. Returns the steps. */
static unsigned fail_each_step(const struct callback_tls *tls)
{
    unsigned k = 0;
    for (bool fired = true; fired; k++) {
        unsigned calls = script.calls;
        reopen();
        fault_arm_threads(k);
        struct callback_attempt *a = launch_with(tls);
        wait_all();
        fired = fault_fired();
        fault_disarm();
        bool ok = a->result.result == ATTEMPT_OK;
        cr_assert(fired || ok, "k=%u: %s", k, a->result.error);
        cr_assert(eq(uint, script.calls - calls, ok), "k=%u: %s", k, a->result.error);
        if (!ok) {
            cr_assert(a->result.result == ATTEMPT_RETRY || a->result.result == ATTEMPT_NOT_STARTED, "k=%u",
                      k);
            cr_assert(ne(str, a->result.error, ""), "k=%u", k);
            cr_assert(eq(int, a->result.status, -1), "k=%u", k);
        }
        a = launch_with(tls);
        wait_all();
        cr_assert(eq(int, a->result.result, ATTEMPT_OK), "after k=%u: %s", k, a->result.error);
    }
    return k;
}

Test(callback_grpc, every_failure_of_its_opening_leaves_nothing)
{
    struct callback_options options = {
        .loop = NULL, .gate = &bed.gate, .threads = 1, .connections_max = 4, .user_agent = "carillon/test"};
    void *transport = NULL;
    unsigned k = 0;
    bed_open();
    options.loop = bed.loop;
    for (;; k++) {
        struct err e = {0};
        fault_arm(k);
        int rc = callback_grpc.open(&options, on_done, NULL, &transport, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc), "%s", e.text);
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
        cr_assert(zero(ptr, transport), "k=%u", k);
    }
    cr_assert(gt(uint, k, 0), "the seed");
    callback_grpc.close(transport);
    bed_close();
}

Test(callback_grpc, whatever_fails_an_attempt_ends_and_says_why)
{
    struct job_pair pairs[] = {{"x-team", "pay"}, {"x-other", "a longer value"}};
    bed_open();
    bed.delivery.payload = "{\"a\":1}";
    bed.delivery.payload_bytes = 7;
    bed.spec.callback.headers = pairs;
    bed.spec.callback.headers_count = 2;
    cr_assert(gt(uint, fail_each_step(NULL), 6), "the thread, the key, the line, the metadata, the message");
    bed_close();
}

static void read_text(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "r");
    cr_assert(ne(ptr, f, NULL), "%s", path);
    out[fread(out, 1, size - 1, f)] = '\0';
    fclose(f);
}

Test(callback_grpc, whatever_fails_of_its_certificates_the_next_attempt_has_them)
{
    char folder[] = "/tmp/test-grpc-tls-XXXXXX", text[2][4096];
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    cr_assert(zero(int, chdir(folder)));
    make_certificate("callee");
    make_certificate("agent");
    read_text("callee.pem", text[0], sizeof(text[0]));
    read_text("callee.key", text[1], sizeof(text[1]));
    open_with(NULL);
    struct grpcd_options options = {
        .listen = "127.0.0.1:0", .handle = handle, .tls_cert = text[0], .tls_key = text[1]};
    cr_assert(zero(int, grpcd_start(&options, &bed.server, NULL)));
    snprintf(bed.endpoint, sizeof(bed.endpoint), "%s", grpcd_address(bed.server));
    bed.spec.callback.tls = true;
    struct callback_tls *tls = callback_tls_new("callee.pem", "agent.pem", "agent.key", "callee");
    cr_assert(gt(uint, fail_each_step(tls), 12), "three files more");
    bed_close();
    callback_tls_unref(tls);
    for (size_t i = 0; i < 4; i++)
        cr_assert(
            zero(int, unlink((const char *[]){"callee.pem", "callee.key", "agent.pem", "agent.key"}[i])));
    cr_assert(zero(int, rmdir(folder)));
}

/* --- secrets and signatures ---------------------------------------------------------------------------------------- */

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert(ne(ptr, f, NULL), "%s", path);
    fputs(text, f);
    fclose(f);
}

Test(callback_grpc, a_secret_is_sent_and_blotted_out_of_what_the_callee_says)
{
    static char folder[] = "/tmp/test-grpc-XXXXXX";
    char path[100], keys[100];
    struct job_pair pairs[] = {{"authorization", "Bearer ${secret:token}"}};
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    snprintf(path, sizeof(path), "mkdir %s/default", folder);
    cr_assert(zero(int, system(path)));
    snprintf(path, sizeof(path), "%s/default/token", folder);
    write_file(path, "s3cr3t-value\n");
    snprintf(keys, sizeof(keys), "%s/keys", folder);
    write_file(keys, "* main whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    open_with(&(struct safety_options){.secrets_dir = folder, .signing_keys_file = keys});
    serve_on("127.0.0.1:0");
    bed.spec.callback.headers = pairs;
    bed.spec.callback.headers_count = 1;
    script.code = 7;
    script.details = "your Bearer s3cr3t-value is old";
    const struct attempt *r = attempt();
    cr_assert(eq(uint, script.calls, 1), "no call came: %d %s", r->status, r->error);
    assert_metadata("authorization", "Bearer s3cr3t-value");
    assert_metadata("webhook-id", "0005ab00000000000000000000000000.7");
    cr_assert(ne(ptr, strstr(script.metadata, "\nwebhook-signature=v1,"), NULL));
    cr_assert(eq(str, (char *)r->excerpt, "your Bearer ************ is old"));
    cr_assert(eq(str, (char *)r->error, "PERMISSION_DENIED: your Bearer ************ is old"));
    bed_close();
    snprintf(path, sizeof(path), "rm -r %s", folder);
    cr_assert(zero(int, system(path)));
}
