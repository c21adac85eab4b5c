#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "agent/io/http.h"
#include "agent/io/httpd.h"
#include "agent/io/loop.h"
#include "agent/peer_auth.h"
#include "agent/peers.h"
#include "tests/lib/patience.h"

#define SECRET "a secret of the cluster"

static struct loop *loop;
static struct loop_timer *patience;
static struct clock_guard *guard;
static struct http_client *http;
static struct httpd *peer;
static struct peers *peers;

/* What the peer answers, and what it got; written by its thread before it answers. */
static struct {
    int status;
    const char *body;
    bool never;
    struct httpd_request *kept;
    char path[128], text[256], member[RECORD_MEMBER_MAX];
    int verified;
} there;

static struct {
    int count;
    enum err_code code;
    bool yes;
} got;

static void on_patience(void *arg)
{
    loop_stop(arg);
}

static void on_clock(void *arg, bool sure)
{
    (void)arg;
    (void)sure;
}

static void reply(struct httpd_request *rq, int status, const char *body)
{
    struct buf text = BUF_INIT(4096);
    buf_add_str(&text, body);
    httpd_reply(rq, status, NULL, 0, &text);
    buf_fini(&text);
}

static void handle(struct httpd_request *rq, void *arg)
{
    (void)arg;
    size_t bytes;
    const char *body = httpd_body(rq, &bytes), *header = httpd_header(rq, PEER_AUTH_HEADER);
    struct peer_auth_secret secret = {.data = SECRET, .bytes = strlen(SECRET)};
    struct peer_auth_message msg = {.method = httpd_method(rq), .target = httpd_path(rq), .context = ""};
    struct peer_auth auth = {.member = ""};
    (void)snprintf(there.path, sizeof(there.path), "%s", httpd_path(rq));
    (void)snprintf(there.text, sizeof(there.text), "%s", body);
    there.verified = peer_auth_verify(&secret, header, &msg, clock_wall_ms(), &auth, NULL);
    if (there.verified == 0)
        there.verified = peer_auth_verify_body(&auth, body, bytes, NULL);
    memcpy(there.member, auth.member, sizeof(there.member));
    if (there.never)
        there.kept = rq;
    else
        reply(rq, there.status, there.body);
}

static int64_t accept_all(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return 1 << 20;
}

static void on_done(void *arg, const struct err *e, const json_t *doc)
{
    cr_assert(eq(ptr, arg, &got));
    got.count++;
    got.code = e->code;
    got.yes = json_is_true(json_object_get(doc, "yes"));
    cr_assert(eq(int, e->code == ERR_OK, doc != NULL));
}

static void begin(void)
{
    struct httpd_options options = {.listen = "127.0.0.1:0",
                                    .connections_max = 10,
                                    .header_bytes_max = 8192,
                                    .accept = accept_all,
                                    .handle = handle,
                                    .too_large = handle};
    cr_assert(zero(int, loop_new(&loop, NULL)));
    patience = loop_timer_new(loop, on_patience, loop);
    cr_assert(zero(int, clock_guard_new(loop, false, on_clock, NULL, &guard, NULL)));
    cr_assert(zero(int, http_client_new(loop, 4, &http, NULL)));
    cr_assert(zero(int, httpd_start(&options, &peer, NULL)));
    there.status = 200;
    there.body = "{\"yes\":true}";
    struct peers_options o = {.http = http,
                              .clock = guard,
                              .seed = 1,
                              .member = "a.1",
                              .secret = SECRET,
                              .secret_bytes = strlen(SECRET)};
    peers = peers_new(&o);
}

static void end(void)
{
    peers_free(peers);
    http_client_free(http);
    httpd_stop(peer);
    clock_guard_free(guard);
    loop_timer_free(patience);
    loop_free(loop);
}

TestSuite(peers, .init = begin, .fini = end);

static void send_within(json_t *body, unsigned timeout_ms)
{
    got.count = 0;
    peers_send(peers, httpd_address(peer), "look", body, timeout_ms, on_done, &got);
    cr_assert(zero(int, got.count), "never before return");
}

static void send(json_t *body)
{
    send_within(body, PATIENCE_MS);
}

static void wait_for(int count)
{
    int64_t end_ms = (int64_t)clock_boot_ms() + PATIENCE_MS;
    while (got.count < count && (int64_t)clock_boot_ms() < end_ms) {
        loop_timer_arm(patience, 10);
        loop_run(loop);
    }
    cr_assert(eq(int, got.count, count));
}

Test(peers, a_message_arrives_as_it_was_signed)
{
    send(json_pack("{s:s}", "member", "b.2"));
    wait_for(1);
    cr_assert(eq(int, (int)got.code, ERR_OK));
    cr_assert(got.yes);
    cr_assert(eq(str, there.path, "/peer/v1/look"));
    cr_assert(eq(str, there.text, "{\"member\":\"b.2\"}"));
    cr_assert(zero(int, there.verified));
    cr_assert(eq(str, there.member, "a.1"));
}

Test(peers, answers_that_are_none_are_told_by_their_class)
{
    static const struct {
        int status;
        const char *body;
        enum err_code code;
    } cases[] = {
        {401, "{}", ERR_AUTH},           {403, "{}", ERR_AUTH},  {503, "{}", ERR_REFUSED},
        {400, "{}", ERR_REFUSED},        {200, "", ERR_INVALID}, {200, "no json", ERR_INVALID},
        {200, "{\"yes\":", ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        there.status = cases[i].status;
        there.body = cases[i].body;
        send(json_object());
        wait_for(1);
        cr_expect(eq(int, (int)got.code, (int)cases[i].code), "%d %s", cases[i].status, cases[i].body);
    }
}

Test(peers, each_fault_is_told_once_and_passes)
{
    static const char text[] = "{\"member\":\"b.2\",\"slots\":[1,2,3]}";
    there.body = "{\"yes\":true,\"why\":\"\\u00e9, which jansson reads\"}";
    bool fired = true;
    for (unsigned k = 0; fired; k++) {
        json_t *body = json_pack("{s:s,s:[i,i,i]}", "member", "b.2", "slots", 1, 2, 3);
        got.count = 0;
        fault_arm(k);
        peers_send(peers, httpd_address(peer), "look", body, PATIENCE_MS, on_done, &got);
        wait_for(1);
        fired = fault_fired();
        fault_disarm();
        cr_assert(fired || k > 2, "%u steps can fail", k);
        cr_assert(got.code == ERR_OK || fired, "k=%u: %s", k, err_code_name(got.code));
        if (got.code != ERR_OK)
            continue;
        cr_assert(got.yes, "k=%u", k);
        cr_assert(there.text[0] == 0 || strcmp(there.text, text) == 0, "k=%u: %s", k,
                  there.text); /* never a part */
    }
}

Test(peers, a_peer_that_is_gone_refuses)
{
    got.count = 0;
    peers_send(peers, "127.0.0.1:1", "look", json_object(), 1000, on_done, &got);
    wait_for(1);
    cr_assert(eq(int, (int)got.code, ERR_REFUSED));
}

Test(peers, silence_ends_after_the_time_given)
{
    there.never = true;
    send_within(json_object(), 1000);
    wait_for(1);
    cr_assert(eq(int, (int)got.code, ERR_TIMEOUT));
    reply(there.kept, 200, "{}");
}

Test(peers, what_is_still_out_is_cancelled_once_at_the_end)
{
    there.never = true;
    send(json_object());
    while (!there.kept) {
        loop_timer_arm(patience, 5);
        loop_run(loop);
    }
    peers_send(peers, httpd_address(peer), "dead", json_object(), 1000, NULL, NULL);
    peers_free(TAKE(peers));
    cr_assert(eq(int, got.count, 1));
    cr_assert(eq(int, (int)got.code, ERR_CANCELLED));
    reply(there.kept, 200, "{}");
    for (int i = 0; i < 5; i++) {
        loop_timer_arm(patience, 5);
        loop_run(loop);
    }
    cr_assert(eq(int, got.count, 1));
}

Test(peers, slots_are_read_as_they_were_written)
{
    uint16_t slots[] = {0, 5, 63}, read[64];
    json_t *doc = peers_slots_document(slots, 3);
    cr_assert(eq(long, peers_slots_read(doc, 64, read), 3));
    cr_assert(zero(int, memcmp(slots, read, sizeof(slots))));
    json_decref(doc);
    doc = peers_slots_document(NULL, 0);
    cr_assert(zero(long, peers_slots_read(doc, 64, read)));
    json_decref(doc);
}

Test(peers, lists_of_slots_that_make_no_sense_are_refused)
{
    static const char *const bad[] = {"null",    "{}",     "5",     "[64]",
                                      "[-1]",    "[1,1]",  "[2,1]", "[1.0]",
                                      "[\"1\"]", "[true]", "[[1]]", "[9223372036854775807]"};
    uint16_t read[64];
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        json_t *doc = json_loads(bad[i], JSON_DECODE_ANY, NULL);
        cr_assert(ne(ptr, doc, NULL), "%s", bad[i]);
        cr_expect(eq(long, peers_slots_read(doc, 64, read), -1), "%s", bad[i]);
        json_decref(doc);
    }
    cr_expect(eq(long, peers_slots_read(NULL, 64, read), -1));
}
