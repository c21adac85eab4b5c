#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"
#include "callback/callback.h"
#include "callback/safety.h"
#include "tests/lib/callback_bed.h"
#include "tests/lib/patience.h"
#include "tests/lib/raw_server.h"

enum { ATTEMPTS_MAX = 64, TEXT_SIZE = 8192 };

/* What the server says, and what it has seen. REPLIES are used one a request, the last again and again; NULL closes the
 * connection without a word. */
static struct {
    const char *replies[8];
    size_t next;
    bool close_after;
    int hold; /* pipe: the handler waits for a byte before it answers, -1: not */
    char seen[TEXT_SIZE];
} script = {.hold = -1};

static bool say(const struct raw_request *rq)
{
    char byte;
    snprintf(script.seen, sizeof(script.seen), "%s", rq->text);
    if (script.hold >= 0 && read(script.hold, &byte, 1) < 0)
        return false;
    const char *reply = script.replies[script.next];
    if (script.next + 1 < 8 && script.replies[script.next + 1])
        script.next++;
    if (!reply)
        return false;
    raw_write(rq->fd, reply);
    return !script.close_after;
}

#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static struct bed {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct callback_gate gate;
    struct safety *safety; /* NULL: nothing is guarded */
    struct raw_server *server;
    void *lanes;
    struct job_spec spec;
    struct delivery delivery;
    struct callback_attempt attempts[ATTEMPTS_MAX];
    size_t sent, ended, stop_at;
    char endpoint[64], url[256];
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

static void bed_open_lanes(unsigned threads, bool v6, const struct guard_options *guard)
{
    struct err e = {0};
    memset(&bed, 0, sizeof(bed));
    atomic_init(&bed.gate.lease_until_ms, INT64_MAX);
    atomic_init(&bed.gate.wall_offset_us, clock_wall_us() - (int64_t)clock_boot_us());
    cr_assert(zero(int, loop_new(&bed.loop, &e)), "%s", e.text);
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    /* Before the server listens: its port is to be a stranger's. */
    struct safety_options safety = {.loop = bed.loop, .look_ms = 3600 * 1000};
    if (guard) {
        safety.guard = *guard;
        cr_assert(zero(int, safety_new(&safety, &bed.safety, &e)), "%s", e.text);
    }
    bed.server = raw_server_start(v6, say, NULL);
    struct callback_options options = {.loop = bed.loop,
                                       .gate = &bed.gate,
                                       .threads = threads,
                                       .connections_max = 16,
                                       .user_agent = "carillon/test",
                                       .safety = bed.safety};
    cr_assert(zero(int, callback_http.open(&options, on_done, NULL, &bed.lanes, &e)), "%s", e.text);
    snprintf(bed.endpoint, sizeof(bed.endpoint), v6 ? "[::1]:%u" : "127.0.0.1:%u",
             raw_server_port(bed.server));
    snprintf(bed.url, sizeof(bed.url), v6 ? "http://[::1]:%u/direct?a=b" : "http://127.0.0.1:%u/direct?a=b",
             raw_server_port(bed.server));
    bed.spec = bed_spec("billing", NULL);
    bed.delivery = bed_delivery(&bed.spec);
}

static void bed_open_with(bool v6, const struct guard_options *guard)
{
    bed_open_lanes(1, v6, guard);
}

static void bed_open_on(bool v6)
{
    bed_open_with(v6, NULL);
}

static void bed_open(void)
{
    bed_open_with(false, NULL);
}

static void bed_close(void)
{
    if (bed.lanes)
        callback_http.close(bed.lanes);
    safety_free(bed.safety);
    raw_server_stop(bed.server);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

/* Hand the bed's delivery to the lane. */
static struct callback_attempt *launch(void)
{
    struct callback_attempt *a = &bed.attempts[bed.sent++];
    *a = (struct callback_attempt){.delivery = &bed.delivery, .source = "/carillon/test"};
    list_init(&a->link);
    if (bed.spec.callback.service)
        snprintf(a->endpoint, sizeof(a->endpoint), "%s", bed.endpoint);
    callback_http.deliver(bed.lanes, a, 1);
    return a;
}

static void wait_all(void)
{
    bed.stop_at = bed.sent;
    if (bed.ended < bed.sent)
        loop_run(bed.loop);
}

static const struct attempt *attempt(void)
{
    struct callback_attempt *a = launch();
    wait_all();
    return &a->result;
}

static const struct attempt *attempt_with(const char *reply)
{
    script.replies[0] = reply;
    return attempt();
}

static void assert_header(const char *name, const char *value)
{
    char got[600];
    bool found = raw_header(script.seen, name, got, sizeof(got));
    cr_assert(eq(int, found, value != NULL), "%s in\n%s", name, script.seen);
    if (value)
        cr_assert(eq(str, got, (char *)value), "%s", name);
}

/* --- the request --------------------------------------------------------------------------------------------------- */

Test(callback_http, carries_all_headers_of_the_contract)
{
    struct job_pair pairs[] = {{"X-Team", "pay"}, {"X-Empty", ""}};
    char deadline[64];
    int64_t deadline_ms, now_ms = clock_wall_ms();
    bed_open();
    bed.delivery.payload = "{\"a\":1}";
    bed.delivery.payload_bytes = 7;
    bed.delivery.coalesced = 2;
    bed.spec.callback.headers = pairs;
    bed.spec.callback.headers_count = 2;
    const struct attempt *r = attempt_with(OK_REPLY);
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    cr_assert(eq(int, r->status, 200));
    cr_assert(eq(str, (char *)r->excerpt, "ok"));
    cr_assert(eq(str, (char *)r->endpoint, bed.endpoint));
    cr_assert(zero(int, strncmp(script.seen, "POST /hook HTTP/1.1\r\n", 21)));
    cr_assert(eq(str, strstr(script.seen, "\r\n\r\n") + 4, "{\"a\":1}"));
    assert_header("Host", "billing");
    assert_header("Content-Type", "application/json");
    assert_header("Content-Length", "7");
    assert_header("Expect", NULL);
    assert_header("User-Agent", "carillon/test");
    assert_header("ce-specversion", "1.0");
    assert_header("ce-id", "0005ab00000000000000000000000000.7");
    assert_header("ce-source", "/carillon/test/default");
    assert_header("ce-subject", "job-1");
    assert_header("ce-type", "carillon.fire");
    assert_header("ce-time", "2026-11-23T08:00:00.000Z");
    assert_header("Idempotency-Key", "\"0005ab00000000000000000000000000.7\"");
    assert_header("Carillon-Attempt", "1");
    assert_header("Carillon-Seq", "7");
    assert_header("Carillon-Epoch", "3");
    assert_header("Carillon-Coalesced", "2");
    assert_header("X-Team", "pay");
    assert_header("X-Empty", "");
    cr_assert(raw_header(script.seen, "Carillon-Deadline", deadline, sizeof(deadline)));
    cr_assert(zero(int, text_instant_ms(deadline, strlen(deadline), &deadline_ms, NULL)));
    cr_assert(ge(i64, deadline_ms, now_ms + 10000));
    cr_assert(le(i64, deadline_ms, now_ms + 15000));
    bed_close();
}

Test(callback_http, a_job_may_name_its_own_ce_type)
{
    struct job_pair pairs[] = {{"CE-Type", "invoice.due"}};
    bed_open();
    bed.spec.callback.headers = pairs;
    bed.spec.callback.headers_count = 1;
    attempt_with(OK_REPLY);
    assert_header("ce-type", "invoice.due");
    cr_assert(zero(ptr, strstr(strcasestr(script.seen, "ce-type") + 1, "carillon.fire")));
    bed_close();
}

Test(callback_http, a_line_break_in_a_header_is_a_failed_attempt_and_never_sent)
{
    struct job_pair pairs[] = {{"X-Team", "pay\r\nX-Evil: 1"}};
    bed_open();
    bed.spec.callback.headers = pairs;
    bed.spec.callback.headers_count = 1;
    const struct attempt *r = attempt_with(OK_REPLY);
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(zero(uint, raw_server_connections(bed.server)));
    bed_close();
}

Test(callback_http, each_method_is_right_after_each_other_on_a_reused_handle)
{
    static const char *const methods[] = {"POST", "GET", "HEAD", "PUT", "DELETE", "PATCH"};
    bed_open();
    bed.delivery.payload = "{}";
    bed.delivery.payload_bytes = 2;
    script.replies[0] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (size_t i = 0; i < 36; i++) {
        const char *method = methods[i % 2 ? i / 6 : i % 6]; /* each follows each */
        char line[64];
        bed.spec.callback.method = method;
        const struct attempt *r = attempt();
        bool body =
            strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0 && strcmp(method, "DELETE") != 0;
        cr_assert(eq(int, r->result, ATTEMPT_OK), "%s: %s", method, r->error);
        snprintf(line, sizeof(line), "%s /hook HTTP/1.1\r\n", method);
        cr_assert(zero(int, strncmp(script.seen, line, strlen(line))), "%s", script.seen);
        assert_header("Content-Type", body ? "application/json" : NULL);
        assert_header("Content-Length", body ? "2" : NULL);
        cr_assert(eq(str, strstr(script.seen, "\r\n\r\n") + 4, body ? "{}" : ""));
    }
    cr_assert(eq(uint, raw_server_connections(bed.server), 1), "one connection is enough");
    bed_close();
}

Test(callback_http, a_post_without_payload_has_no_type_and_length_zero)
{
    bed_open();
    attempt_with(OK_REPLY);
    assert_header("Content-Type", NULL);
    assert_header("Content-Length", "0");
    bed_close();
}

Test(callback_http, a_service_at_an_ipv6_endpoint_is_reached_under_its_name)
{
    bed_open_on(true);
    const struct attempt *r = attempt_with(OK_REPLY);
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    assert_header("Host", "billing");
    bed_close();
}

Test(callback_http, a_direct_url_and_a_service_share_handles_without_mixing)
{
    char host[80];
    bed_open();
    script.replies[0] = OK_REPLY;
    for (int i = 0; i < 4; i++) {
        bed.spec = bed_spec(i % 2 ? NULL : "billing", i % 2 ? bed.url : NULL);
        cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
        snprintf(host, sizeof(host), "%s", i % 2 ? bed.endpoint : "billing");
        assert_header("Host", host);
        cr_assert(
            zero(int, strncmp(script.seen, i % 2 ? "POST /direct?a=b " : "POST /hook ", i % 2 ? 17 : 11)));
    }
    bed_close();
}

Test(callback_http, the_path_goes_out_as_the_job_says_it)
{
    bed_open();
    bed.spec.callback.path = "/a/../b/%2e/./c?x=/../";
    attempt_with(OK_REPLY);
    cr_assert(zero(int, strncmp(script.seen, "POST /a/../b/%2e/./c?x=/../ HTTP/1.1", 35)), "%s", script.seen);
    bed_close();
}

/* --- where it goes ------------------------------------------------------------------------------------------------- */

#define DENY(...)                               \
    .deny = (const char *const[]){__VA_ARGS__}, \
    .deny_count = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

static void assert_denied(const struct attempt *r, const char *error)
{
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, -1));
    cr_assert(eq(str, (char *)r->error, (char *)error));
}

Test(callback_http, a_direct_url_to_a_denied_address_is_a_failed_attempt)
{
    bed_open_with(false, &(struct guard_options){0});
    bed.spec = bed_spec(NULL, bed.url);
    assert_denied(attempt_with(OK_REPLY), "address 127.0.0.1 is loopback, see callback.allow_loopback");
    bed.spec = bed_spec(NULL, "http://169.254.169.254/latest");
    assert_denied(attempt(), "address 169.254.169.254 is denied by callback.deny (link-local, by default)");
    cr_assert(zero(uint, raw_server_connections(bed.server)));
    bed.spec = bed_spec("billing", NULL);
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK), "an endpoint may be anywhere");
    bed_close();
}

Test(callback_http, a_denied_network_holds_for_services)
{
    bed_open_with(false, &(struct guard_options){DENY("127.0.0.0/8"), .allow_loopback = true});
    assert_denied(attempt_with(OK_REPLY), "address 127.0.0.1 is denied by callback.deny");
    cr_assert(zero(uint, raw_server_connections(bed.server)));
    bed_close();
}

Test(callback_http, of_a_names_addresses_the_permitted_ones_are_called)
{
    char url[64];
    bed_open_with(false, &(struct guard_options){DENY("::1"), .allow_loopback = true});
    snprintf(url, sizeof(url), "http://localhost:%u/", raw_server_port(bed.server));
    bed.spec = bed_spec(NULL, url);
    const struct attempt *r = attempt_with(OK_REPLY);
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    bed_close();
}

Test(callback_http, a_kept_connection_does_not_outlive_its_permission)
{
    struct guard_options open = {.allow_loopback = true}, shut = {DENY("127.0.0.1"), .allow_loopback = true};
    bed_open_with(false, &open);
    for (unsigned i = 1; i <= 2; i++) {
        cr_assert(zero(int, safety_set_guard(bed.safety, &open, NULL)));
        cr_assert(eq(int, attempt_with(OK_REPLY)->result, ATTEMPT_OK));
        cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
        cr_assert(eq(uint, raw_server_connections(bed.server), i));
        cr_assert(zero(int, safety_set_guard(bed.safety, &shut, NULL)));
        assert_denied(attempt(), "address 127.0.0.1 is denied by callback.deny");
        cr_assert(eq(uint, raw_server_requests(bed.server), 2 * i));
    }
    bed_close();
}

Test(callback_http, a_direct_url_to_our_own_port_is_a_failed_attempt)
{
    bed_open_with(false, &(struct guard_options){.allow_loopback = true});
    bed.spec = bed_spec(NULL, bed.url);
    cr_assert(eq(int, attempt_with(OK_REPLY)->result, ATTEMPT_OK));
    safety_listeners_changed(bed.safety); /* the server is one of ours, after all */
    assert_denied(attempt(), "address 127.0.0.1 is denied: that port is this agent's own");
    cr_assert(eq(uint, raw_server_requests(bed.server), 1));
    bed_close();
}

/* --- the reply ----------------------------------------------------------------------------------------------------- */

Test(callback_http, judges_by_the_lists_of_the_job)
{
    static const struct {
        const char *reply;
        enum attempt_result result;
        int status;
    } cases[] = {{"HTTP/1.1 204 No\r\n\r\n", ATTEMPT_OK, 204},
                 {"HTTP/1.1 299 X\r\nContent-Length: 0\r\n\r\n", ATTEMPT_OK, 299},
                 {"HTTP/1.1 300 X\r\nContent-Length: 0\r\n\r\n", ATTEMPT_RETRY, 300},
                 {"HTTP/1.1 302 X\r\nLocation: /away\r\nContent-Length: 0\r\n\r\n", ATTEMPT_RETRY, 302},
                 {"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n", ATTEMPT_GIVE_UP, 400},
                 {"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", ATTEMPT_RETRY, 404},
                 {"HTTP/1.1 410 X\r\nContent-Length: 0\r\n\r\n", ATTEMPT_GIVE_UP, 410},
                 {"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", ATTEMPT_RETRY, 503},
                 {"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", ATTEMPT_RETRY, 999}};
    bed_open();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct attempt *r = attempt_with(cases[i].reply);
        cr_assert(eq(int, r->result, cases[i].result), "%s: %s", cases[i].reply, r->error);
        cr_assert(eq(int, r->status, cases[i].status));
    }
    bed_close();
}

Test(callback_http, what_is_no_http_reply_is_a_failed_attempt)
{
    static const char *const garbage[] = {"hello\r\n\r\n",
                                          "HTTP/1.1 2x0 OK\r\n\r\n",
                                          "HTTP/9.7 200 OK\r\n\r\n",
                                          "\r\n\r\n\r\n",
                                          "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
                                          "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
                                          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                                          "HTTP/1.1 200 OK\r\nX: y"};
    bed_open();
    script.close_after = true;
    for (size_t i = 0; i < sizeof(garbage) / sizeof(*garbage); i++) {
        const struct attempt *r = attempt_with(garbage[i]);
        cr_assert(eq(int, r->result, ATTEMPT_RETRY), "%s", garbage[i]);
        cr_assert(eq(int, r->status, -1), "%s", garbage[i]);
        cr_assert(ne(chr, r->error[0], '\0'));
    }
    bed_close();
}

Test(callback_http, old_and_closing_servers_are_understood)
{
    static const char *const replies[] = {
        "HTTP/1.0 200 OK\r\n\r\nuntil the end", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
        "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nuntil the end"};
    bed_open();
    script.close_after = true;
    for (size_t i = 0; i < 3; i++) {
        const struct attempt *r = attempt_with(replies[i]);
        cr_assert(eq(int, r->result, ATTEMPT_OK), "%zu: %s", i, r->error);
        cr_assert(eq(str, (char *)r->excerpt, "until the end"));
    }
    cr_assert(eq(uint, raw_server_connections(bed.server), 3));
    bed_close();
}

Test(callback_http, reads_both_forms_of_retry_after_and_forgets_them)
{
    char dated[160], date[64];
    time_t in_a_minute = (time_t)(clock_wall_ms() / 1000 + 60);
    struct tm tm;
    bed_open();
    const struct attempt *r = attempt_with("HTTP/1.1 503 X\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n");
    cr_assert(eq(i64, r->retry_after_ms, 120000));
    r = attempt_with("HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n");
    cr_assert(eq(i64, r->retry_after_ms, -1));
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&in_a_minute, &tm));
    snprintf(dated, sizeof(dated), "HTTP/1.1 429 X\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n", date);
    r = attempt_with(dated);
    cr_assert(ge(i64, r->retry_after_ms, 50000));
    cr_assert(le(i64, r->retry_after_ms, 61000));
    r = attempt_with("HTTP/1.1 503 X\r\nRetry-After: 99999999999999\r\nContent-Length: 0\r\n\r\n");
    cr_assert(eq(i64, r->retry_after_ms, 3600000));
    r = attempt_with("HTTP/1.1 503 X\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n");
    cr_assert(eq(i64, r->retry_after_ms, -1));
    r = attempt_with(
        "HTTP/1.1 503 X\r\nRetry-After: Thu, 01 Jan 1970 00:00:10 GMT\r\nContent-Length: 0\r\n\r\n");
    cr_assert(eq(i64, r->retry_after_ms, -1));
    bed_close();
}

static char *big_reply(const char *head, const char *filler, size_t times, const char *tail)
{
    size_t each = strlen(filler);
    char *reply = mem_new_array(char, strlen(head) + each * times + strlen(tail) + 1), *at = reply;
    at += snprintf(at, strlen(head) + 1, "%s", head);
    for (size_t i = 0; i < times; i++, at += each)
        memcpy(at, filler, each + 1);
    memcpy(at, tail, strlen(tail) + 1);
    return reply;
}

Test(callback_http, reply_headers_over_the_limit_fail_the_attempt)
{
    bed_open();
    char *reply = big_reply("HTTP/1.1 200 OK\r\n", "X-Filler: 0123456789012345678901234567890\r\n", 1800,
                            "Content-Length: 0\r\n\r\n");
    const struct attempt *r = attempt_with(reply);
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(str, (char *)r->error, "reply headers over 64 KiB"));
    char *hints =
        big_reply("", "HTTP/1.1 103 Hints\r\nLink: 0123456789012345678901234567\r\n\r\n", 1800, OK_REPLY);
    r = attempt_with(hints);
    cr_assert(eq(str, (char *)r->error, "reply headers over 64 KiB"), "heads before the last count too");
    bed_close();
    mem_free(reply);
    mem_free(hints);
}

Test(callback_http, a_huge_body_is_not_read_to_its_end_but_its_status_counts)
{
    bed_open();
    script.close_after = true;
    char *reply =
        big_reply("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", "0123456789abcdef", 70000, "");
    const struct attempt *r = attempt_with(reply);
    cr_assert(eq(int, r->result, ATTEMPT_OK), "%s", r->error);
    cr_assert(eq(sz, strlen(r->excerpt), 512));
    bed_close();
    mem_free(reply);
}

Test(callback_http, the_excerpt_is_always_text)
{
    bed_open();
    script.close_after = true;
    const struct attempt *r = attempt_with("HTTP/1.1 200 OK\r\n\r\na\tb\x01\x7f\xc3\xa9");
    cr_assert(eq(str, (char *)r->excerpt, "a b  \xc3\xa9"));
    r = attempt_with("HTTP/1.1 200 OK\r\n\r\n\xff\xfe\xc3(bad");
    cr_assert(eq(str, (char *)r->excerpt, "   (bad"));
    char *cut = big_reply("HTTP/1.1 200 OK\r\n\r\nx", "\xe2\x82\xac", 400, "");
    r = attempt_with(cut);
    cr_assert(eq(sz, strlen(r->excerpt), 511), "1 + 170 * 3, the half character dropped");
    cr_assert(text_utf8_valid(r->excerpt, 511));
    bed_close();
    mem_free(cut);
}

/* --- connections --------------------------------------------------------------------------------------------------- */

Test(callback_http, a_refused_connection_is_a_failed_attempt_at_its_endpoint)
{
    bed_open();
    raw_server_stop(bed.server);
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, -1));
    cr_assert(eq(str, (char *)r->endpoint, bed.endpoint));
    cr_assert(gt(i64, r->started_ms, clock_wall_ms() - 10000));
    bed.server = raw_server_start(false, say, NULL);
    bed_close();
}

Test(callback_http, connections_are_kept_and_used_again)
{
    bed_open();
    script.replies[0] = OK_REPLY;
    for (int i = 0; i < 10; i++)
        cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    cr_assert(eq(uint, raw_server_connections(bed.server), 1));
    bed_close();
}

/* The race of a server that closes an idle connection while a request is on its way. */
Test(callback_http, a_kept_connection_that_dies_fails_the_attempt_and_is_not_used_twice)
{
    bed_open();
    script.replies[0] = OK_REPLY;
    script.replies[1] = NULL;
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    script.replies[0] = NULL;
    const struct attempt *r = attempt();
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(str, (char *)r->error, "kept connection closed by the callee before a reply"));
    cr_assert(eq(uint, raw_server_requests(bed.server), 2), "the request was sent a second time");
    cr_assert(eq(int, attempt_with(OK_REPLY)->result, ATTEMPT_OK));
    bed_close();
}

Test(callback_http, a_kept_connection_that_was_closed_before_is_replaced_without_a_failed_attempt)
{
    bed_open();
    script.close_after = true; /* but the reply does not say so */
    script.replies[0] = OK_REPLY;
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    for (int i = 0; i < 20; i++) {
        const struct attempt *r = attempt();
        cr_assert(eq(int, r->result == ATTEMPT_OK || strstr(r->error, "kept connection") != NULL, 1), "%s",
                  r->error);
    }
    bed_close();
}

Test(callback_http, the_timeout_covers_everything_up_to_the_last_byte)
{
    int hold[2];
    bed_open();
    cr_assert(zero(int, pipe(hold)));
    script.hold = hold[0];
    bed.spec.callback.timeout_ms = 60;
    const struct attempt *r = attempt_with(OK_REPLY);
    cr_assert(eq(int, r->result, ATTEMPT_RETRY));
    cr_assert(eq(int, r->status, -1));
    cr_assert(ge(u32, r->duration_ms, 40));
    cr_assert(eq(int, write(hold[1], "..", 2), 2));
    script.hold = -1;
    r = attempt_with("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    cr_assert(eq(int, r->result, ATTEMPT_RETRY), "a reply that never ends");
    bed_close();
    close(hold[0]);
    close(hold[1]);
}

/* --- gate, revoke, close ------------------------------------------------------------------------------------------- */

Test(callback_http, nothing_starts_once_the_lease_is_over_or_the_gate_closed)
{
    bed_open();
    script.replies[0] = OK_REPLY;
    atomic_store(&bed.gate.lease_until_ms, (int64_t)clock_boot_ms());
    cr_assert(eq(int, attempt()->result, ATTEMPT_NOT_STARTED));
    atomic_store(&bed.gate.lease_until_ms, INT64_MAX);
    atomic_store(&bed.gate.closed, true);
    cr_assert(eq(int, attempt()->result, ATTEMPT_NOT_STARTED));
    cr_assert(zero(uint, raw_server_requests(bed.server)));
    atomic_store(&bed.gate.closed, false);
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    bed_close();
}

Test(callback_http, nothing_goes_out_before_its_due_when_the_clock_was_set_back_meanwhile)
{
    bed_open();
    script.replies[0] = OK_REPLY;
    bed.delivery.from_ms = callback_now_ms(&bed.gate) + 60000;
    cr_assert(eq(int, attempt()->result, ATTEMPT_NOT_STARTED));
    cr_assert(zero(uint, raw_server_requests(bed.server)));
    bed.delivery.from_ms = callback_now_ms(&bed.gate);
    cr_assert(eq(int, attempt()->result, ATTEMPT_OK));
    bed_close();
}

Test(callback_http, an_attempt_taken_back_in_time_ends_as_not_started_whatever_happens)
{
    bed_open();
    script.replies[0] = OK_REPLY;
    unsigned revoked = 0;
    for (int i = 0; i < 20; i++) {
        struct callback_attempt *a = launch();
        bool in_time = callback_revoke(a);
        wait_all();
        cr_assert(eq(int, a->result.result, in_time ? ATTEMPT_NOT_STARTED : ATTEMPT_OK));
        revoked += in_time;
    }
    cr_assert(eq(uint, raw_server_requests(bed.server), 20 - revoked));
    raw_server_stop(bed.server); /* now it would be refused */
    for (int i = 0; i < 20; i++) {
        struct callback_attempt *a = launch();
        bool in_time = callback_revoke(a);
        wait_all();
        cr_assert(eq(int, a->result.result, in_time ? ATTEMPT_NOT_STARTED : ATTEMPT_RETRY));
    }
    bed.server = raw_server_start(false, say, NULL);
    bed_close();
}

Test(callback_http, close_ends_what_runs_as_failed_and_what_waits_as_not_started)
{
    int hold[2];
    bed_open();
    cr_assert(zero(int, pipe(hold)));
    script.hold = hold[0];
    script.replies[0] = OK_REPLY;
    for (int i = 0; i < 8; i++)
        launch();
    raw_server_wait(bed.server, 8);
    for (int i = 0; i < 8; i++)
        launch(); /* some of these go out, some do not */
    callback_http.close(bed.lanes);
    bed.lanes = NULL;
    cr_assert(eq(sz, bed.ended, 16));
    for (int i = 0; i < 16; i++) {
        bool started = atomic_load(&bed.attempts[i].state) == CALLBACK_STARTED;
        cr_assert(eq(int, bed.attempts[i].result.result, started ? ATTEMPT_RETRY : ATTEMPT_NOT_STARTED));
        cr_assert(eq(int, started || i >= 8, 1));
    }
    close(hold[1]);
    bed_close();
    close(hold[0]);
}

Test(callback_http, a_close_while_results_are_on_their_way_to_the_loop_loses_none)
{
    bed_open();
    script.replies[0] = OK_REPLY;
    for (int i = 0; i < 8; i++)
        launch();
    raw_server_wait(bed.server, 8);
    callback_http.close(bed.lanes); /* the loop has not run since: it still holds the lane's message */
    bed.lanes = NULL;
    cr_assert(eq(sz, bed.ended, 8));
    bed_close();
}

Test(callback_http, a_lane_that_cannot_start_leaves_nothing_behind)
{
    struct err e = {0};
    void *lanes = NULL;
    bed_open();
    struct callback_options options = {
        .loop = bed.loop, .gate = &bed.gate, .threads = 3, .connections_max = 16, .user_agent = "x"};
    unsigned k = 0;
    for (;; k++) {
        fault_arm(k);
        int rc = callback_http.open(&options, on_done, NULL, &lanes, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(lt(int, rc, 0), "k=%u", k);
        cr_assert(zero(ptr, lanes), "k=%u", k);
    }
    cr_assert(eq(uint, k, 9));
    callback_http.close(lanes);
    bed_close();
}

Test(callback_http, many_at_once_all_end)
{
    bed_open();
    script.replies[0] = OK_REPLY;
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        launch();
    wait_all();
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        cr_assert(eq(int, bed.attempts[i].result.result, ATTEMPT_OK), "%s", bed.attempts[i].result.error);
    bed_close();
}

Test(callback_http, an_endpoint_leaves_its_lane_only_when_that_is_busy)
{
    bed_open_lanes(2, false, NULL);
    script.replies[0] = OK_REPLY;
    for (int i = 0; i < ATTEMPTS_MAX; i++)
        launch();
    for (int i = 1; i < ATTEMPTS_MAX; i++) {
        bool same = bed.attempts[i].lane == bed.attempts[0].lane;
        cr_assert(i >= 32 || same, "attempt %d", i);
        cr_assert(i != 32 || !same);
    }
    void *own = bed.attempts[0].lane;
    wait_all();
    bed.sent = bed.ended = 0;
    cr_assert(eq(ptr, launch()->lane, own), "nothing is under way any more");
    wait_all();
    bed_close();
}
