#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/base/buf.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"
#include "consul/membership.h"
#include "tests/lib/patience.h"
#include "tests/lib/raw_server.h"

/* --- the list ------------------------------------------------------------------------------------------------------ */

#define VALUE(id, rest) "{\"member\":\"" id "\",\"name\":\"a\",\"address\":\"10.0.0.1:7421\"," rest "}"
#define GOOD            "\"weight\":1,\"started_ms\":5,\"state\":\"active\""

static void add_entry(struct buf *out, const char *key, const char *value, const char *session)
{
    buf_addf(out, "%s{\"Key\":\"carillon/x/members/%s\",\"Value\":\"", out->len ? "," : "[", key);
    text_base64_encode(out, value, strlen(value));
    buf_addf(out, "\",\"Session\":\"%s\"}", session);
}

static size_t parse(struct buf *body, struct membership_member **ret)
{
    size_t count = 99;
    struct err e = {0};
    buf_add_str(body, "]");
    cr_assert(zero(int, membership_parse(buf_str(body), body->len, ret, &count, &e)), "%s", e.text);
    return count;
}

Test(membership, reads_members_sorted_and_with_all_they_say)
{
    struct buf body = BUF_INIT(1 << 16);
    struct membership_member *list;
    add_entry(&body, "b.2", VALUE("b.2", GOOD), "s");
    add_entry(
        &body, "a.1",
        VALUE("a.1",
              "\"zone\":\"z\",\"weight\":3,\"version\":\"1\",\"config_digest\":\"d\",\"tzdata\":\"2026a\","
              "\"started_ms\":7,\"state\":\"leaving\""),
        "s");
    cr_assert(eq(sz, parse(&body, &list), 2));
    cr_assert(eq(str, list[0].id, "a.1"));
    cr_assert(eq(str, list[0].address, "10.0.0.1:7421"));
    cr_assert(eq(str, list[0].zone, "z"));
    cr_assert(eq(str, list[0].version, "1"));
    cr_assert(eq(str, list[0].config_digest, "d"));
    cr_assert(eq(str, list[0].tzdata, "2026a"));
    cr_assert(eq(u32, list[0].weight, 3));
    cr_assert(eq(i64, list[0].started_ms, 7));
    cr_assert(list[0].leaving);
    cr_assert(eq(str, list[1].id, "b.2"));
    cr_assert(not(list[1].leaving));
    mem_free(list);
    buf_fini(&body);
}

Test(membership, leaves_out_entries_that_make_no_sense)
{
    static const struct {
        const char *key, *value, *session;
    } cases[] = {
        {"a.1", VALUE("a.1", GOOD), ""},
        {"a.1", VALUE("b.1", GOOD), "s"},
        {"a.1", "not json", "s"},
        {"a.1", "[]", "s"},
        {"a.1", "", "s"},
        {"a.1", VALUE("a.1", "\"weight\":0,\"state\":\"active\""), "s"},
        {"a.1", VALUE("a.1", "\"weight\":1001,\"state\":\"active\""), "s"},
        {"a.1", VALUE("a.1", "\"weight\":1"), "s"},
        {"a.1", "{\"member\":\"a.1\",\"name\":\"a\",\"address\":\"nowhere\"," GOOD "}", "s"},
        {"a.1", "{\"member\":\"a.1\",\"name\":\"\",\"address\":\"h:1\"," GOOD "}", "s"},
        {"", VALUE("", GOOD), "s"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct buf body = BUF_INIT(1 << 16);
        struct membership_member *list;
        add_entry(&body, cases[i].key, cases[i].value, cases[i].session);
        cr_assert(zero(sz, parse(&body, &list)), "case %zu", i);
        mem_free(list);
        buf_fini(&body);
    }
    static const char *const whole[] = {"[]", "[null,7,{}]", "[{\"Key\":1,\"Value\":2,\"Session\":3}]",
                                        "[{\"Key\":\"a\",\"Value\":\"%%%\",\"Session\":\"s\"}]"};
    for (size_t i = 0; i < 4; i++) {
        struct membership_member *list;
        size_t count = 9;
        cr_assert(zero(int, membership_parse(whole[i], strlen(whole[i]), &list, &count, NULL)));
        cr_assert(zero(sz, count));
        mem_free(list);
    }
}

Test(membership, the_same_member_twice_is_one)
{
    struct buf body = BUF_INIT(1 << 16);
    struct membership_member *list;
    add_entry(&body, "a.1", VALUE("a.1", GOOD), "s");
    add_entry(&body, "deeper/a.1", VALUE("a.1", GOOD), "s");
    cr_assert(eq(sz, parse(&body, &list), 1));
    mem_free(list);
    buf_fini(&body);
}

Test(membership, what_is_no_list_is_refused_and_changes_nothing)
{
    static const char *const bad[] = {"{}", "null", "true", "[", "<html>"};
    struct membership_member *list = NULL;
    size_t count = 9;
    for (size_t i = 0; i < 5; i++)
        cr_assert(eq(int, membership_parse(bad[i], strlen(bad[i]), &list, &count, NULL), -ERR_PROTOCOL));
    cr_assert(zero(ptr, list));
    cr_assert(eq(sz, count, 9));
}

Test(membership, without_memory_no_member_is_missing)
{
    struct buf body = BUF_INIT(1 << 16);
    struct membership_member *list = NULL;
    size_t count = 9;
    add_entry(&body, "a.1", VALUE("a.1", GOOD), "s");
    add_entry(&body, "b.1", VALUE("b.1", GOOD), "s");
    buf_add_str(&body, "]");
    unsigned k = 0;
    for (;; k++) {
        fault_arm(k);
        int rc = membership_parse(buf_str(&body), body.len, &list, &count, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u", k);
        cr_assert(zero(ptr, list), "k=%u", k);
    }
    cr_assert(gt(uint, k, 3));
    cr_assert(eq(sz, count, 2));
    mem_free(list);
    buf_fini(&body);
}

/* --- joining, against a Consul that goes wrong in the ways of the real one ------------------------------------------ */

enum wrong { WRONG_NOTHING, WRONG_NO_LEADER, WRONG_NO_ANSWER, WRONG_GARBAGE };

static struct {
    pthread_mutex_t lock;
    unsigned sessions; /* made so far; the newest is the valid one, "5e551-<n>" */
    bool session_alive;
    unsigned key_holder; /* number of its session, 0: none */
    char value[1024];
    uint64_t index;
    bool check_known;
    bool lose_acquire; /* do it, but do not answer; once */
    enum wrong session_create;
    unsigned registers, passes, deletes, destroys, deregisters;
} fake;

static struct {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct raw_server *server;
    struct consul_client *client;
    struct membership *m;
    bool stopped;
    bool until_held;
    unsigned until_registers;
} bed;

static void answer(int fd, const char *status, const char *body)
{
    char text[4096];
    snprintf(text, sizeof(text), "HTTP/1.1 %s\r\nX-Consul-Index: %llu\r\nContent-Length: %zu\r\n\r\n%s",
             status, (unsigned long long)fake.index, strlen(body), body);
    raw_write(fd, text);
}

static void list_members(int fd)
{
    struct buf body = BUF_INIT(1 << 16);
    if (fake.key_holder == 0) {
        answer(fd, "404 Not Found", "");
        return;
    }
    add_entry(&body, "a.1", fake.value, "s");
    buf_add_str(&body, "]");
    answer(fd, "200 OK", buf_str(&body));
    buf_fini(&body);
}

/* A blocking query without news: the real one waits; this one answers after a moment, which is allowed as well. */
static void wait_a_moment(int fd)
{
    char byte;
    struct timeval limit = {.tv_usec = 20000}, none = {0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)recv(fd, &byte, 1, MSG_PEEK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
}

static bool acquire(const struct raw_request *rq)
{
    unsigned session = 0;
    const char *at = strstr(rq->text, "acquire=5e551-");
    if (at)
        (void)sscanf(at, "acquire=5e551-%u", &session);
    if (session != fake.sessions || !fake.session_alive) {
        answer(rq->fd, "500 Internal Server Error", "rpc error making call: invalid session \"x\"");
        return true;
    }
    if (fake.key_holder && fake.key_holder != session) {
        answer(rq->fd, "200 OK", "false");
        return true;
    }
    fake.key_holder = session;
    fake.index++;
    snprintf(fake.value, sizeof(fake.value), "%s", rq->text + rq->head_bytes);
    if (fake.lose_acquire) {
        fake.lose_acquire = false;
        return false;
    }
    answer(rq->fd, "200 OK", "true");
    return true;
}

static bool create_session(const struct raw_request *rq)
{
    char body[64];
    enum wrong wrong = fake.session_create;
    fake.session_create = WRONG_NOTHING;
    if (wrong == WRONG_NO_ANSWER)
        return false;
    if (wrong == WRONG_NO_LEADER) {
        answer(rq->fd, "500 Internal Server Error", "No cluster leader");
    } else if (wrong == WRONG_GARBAGE) {
        answer(rq->fd, "200 OK", "{\"ID\":\"../../etc?x\"}");
    } else {
        fake.session_alive = true;
        snprintf(body, sizeof(body), "{\"ID\":\"5e551-%u\"}", ++fake.sessions);
        answer(rq->fd, "200 OK", body);
    }
    return true;
}

static bool is(const struct raw_request *rq, const char *begin)
{
    return strncmp(rq->text, begin, strlen(begin)) == 0;
}

static bool serve(const struct raw_request *rq)
{
    if (is(rq, "PUT /v1/kv/"))
        return acquire(rq);
    if (is(rq, "PUT /v1/session/create"))
        return create_session(rq);
    if (is(rq, "PUT /v1/agent/service/register")) {
        fake.registers++;
        fake.check_known = true;
    } else if (is(rq, "PUT /v1/agent/check/pass/")) {
        fake.passes++;
        if (!fake.check_known) {
            answer(rq->fd, "500 Internal Server Error", "Unknown check \"carillon-a.1-loop\"");
            return true;
        }
    } else if (is(rq, "DELETE /v1/kv/")) {
        fake.deletes++;
        fake.key_holder = 0;
        fake.index++;
    } else if (is(rq, "PUT /v1/session/destroy/")) {
        fake.destroys++;
        fake.session_alive = false;
        fake.key_holder = 0;
        fake.index++;
    } else if (is(rq, "PUT /v1/session/renew/") && !fake.session_alive) {
        answer(rq->fd, "404 Not Found", "Session id 'x' not found");
        return true;
    } else if (is(rq, "PUT /v1/agent/service/deregister/")) {
        fake.deregisters++;
    } else if (is(rq, "GET /v1/kv/")) {
        list_members(rq->fd);
        return true;
    }
    answer(rq->fd, "200 OK", "true");
    return true;
}

static bool say(const struct raw_request *rq)
{
    if (is(rq, "GET /v1/kv/") && strstr(rq->text, "index="))
        wait_a_moment(rq->fd);
    pthread_mutex_lock(&fake.lock);
    bool more = serve(rq);
    pthread_mutex_unlock(&fake.lock);
    return more;
}

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain");
}

static void on_changed(void *arg, const struct membership_view *view)
{
    (void)arg;
    cr_assert(view->synced);
    if (bed.until_held && view->key_held)
        loop_stop(bed.loop);
}

static void open_bed(void)
{
    struct err e = {0};
    char address[64];
    pthread_mutex_init(&fake.lock, NULL);
    fake.index = 10;
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.watchdog = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.watchdog, PATIENCE_MS);
    bed.server = raw_server_start(false, say, NULL);
    snprintf(address, sizeof(address), "127.0.0.1:%u", raw_server_port(bed.server));
    struct consul_client_options options = {.address = address};
    cr_assert(zero(int, consul_client_new(bed.loop, &options, &bed.client, &e)), "%s", e.text);
    struct membership_options o = {.cluster = "x",
                                   .member = "a.1",
                                   .name = "a",
                                   .host = "10.0.0.1",
                                   .port = 7421,
                                   .weight = 1,
                                   .version = "1",
                                   .register_as = "carillon",
                                   .check_ttl_ms = 5000,
                                   .session_ttl_ms = 1500, /* renewed each half second */
                                   .seed = 1};
    bed.m = membership_new(bed.client, &o, on_changed, NULL);
}

static void close_bed(void)
{
    membership_free(bed.m);
    consul_client_free(bed.client);
    raw_server_stop(bed.server);
    loop_timer_free(bed.watchdog);
    loop_free(bed.loop);
}

static void run_until_held(void)
{
    bed.until_held = true;
    loop_run(bed.loop);
    bed.until_held = false;
    cr_assert(membership_view(bed.m)->key_held);
    cr_assert(eq(sz, membership_view(bed.m)->count, 1));
}

/* Under the lock of the fake: forget something, then wait for the next time the own key is seen. */
static void break_and_wait(bool session, bool check, bool key)
{
    pthread_mutex_lock(&fake.lock);
    if (session)
        fake.session_alive = false;
    if (check)
        fake.check_known = false;
    if (key)
        fake.key_holder = 0;
    fake.index++;
    pthread_mutex_unlock(&fake.lock);
}

Test(membership, joins_and_is_listed)
{
    open_bed();
    run_until_held();
    cr_assert(eq(uint, fake.sessions, 1));
    cr_assert(eq(uint, fake.registers, 1));
    cr_assert(eq(str, (char *)membership_view(bed.m)->members[0].address, "10.0.0.1:7421"));
    close_bed();
}

Test(membership, begins_again_after_each_kind_of_failure)
{
    static const enum wrong kinds[] = {WRONG_NO_LEADER, WRONG_NO_ANSWER, WRONG_GARBAGE};
    for (size_t i = 0; i < 3; i++) {
        memset(&fake, 0, sizeof(fake));
        fake.session_create = kinds[i];
        open_bed();
        run_until_held();
        cr_assert(eq(uint, fake.sessions, 1), "%zu", i);
        close_bed();
    }
}

Test(membership, a_lost_answer_to_acquire_costs_no_second_session)
{
    fake.lose_acquire = true;
    open_bed();
    run_until_held();
    cr_assert(eq(uint, fake.sessions, 1));
    close_bed();
}

Test(membership, a_key_held_by_an_older_session_of_its_own_is_deleted)
{
    fake.sessions = 4;
    fake.key_holder = 4;
    snprintf(fake.value, sizeof(fake.value), "{}");
    open_bed();
    run_until_held();
    cr_assert(eq(uint, fake.deletes, 1));
    cr_assert(eq(uint, fake.key_holder, 5));
    close_bed();
}

Test(membership, comes_back_when_its_session_and_key_are_gone)
{
    open_bed();
    run_until_held();
    break_and_wait(true, false, true);
    run_until_held();
    cr_assert(eq(uint, fake.sessions, 2));
    close_bed();
}

Test(membership, comes_back_when_all_is_forgotten)
{
    open_bed();
    run_until_held();
    break_and_wait(true, true, true);
    run_until_held();
    cr_assert(ge(uint, fake.registers, 2));
    cr_assert(fake.check_known);
    close_bed();
}

static void look(void *arg)
{
    struct loop_timer **t = arg;
    pthread_mutex_lock(&fake.lock);
    bool there = fake.registers >= bed.until_registers;
    pthread_mutex_unlock(&fake.lock);
    if (there)
        loop_stop(bed.loop);
    else
        loop_timer_arm(*t, 5);
}

Test(membership, a_check_that_consul_forgot_is_registered_again_and_the_session_kept)
{
    open_bed();
    run_until_held();
    break_and_wait(false, true, false);
    struct loop_timer *t = loop_timer_new(bed.loop, look, &t);
    bed.until_registers = 2;
    loop_timer_arm(t, 0);
    loop_run(bed.loop);
    loop_timer_free(t);
    cr_assert(eq(uint, fake.sessions, 1));
    cr_assert(membership_view(bed.m)->key_held);
    close_bed();
}

Test(membership, leaving_is_written_into_the_own_key)
{
    open_bed();
    run_until_held();
    membership_leave(bed.m);
    membership_leave(bed.m);
    struct loop_timer *t = loop_timer_new(bed.loop, look, &t);
    for (int i = 0; i < PATIENCE_MS / 10 && !membership_view(bed.m)->members[0].leaving; i++) {
        loop_timer_arm(t, 10);
        loop_run(bed.loop);
    }
    loop_timer_free(t);
    cr_assert(membership_view(bed.m)->members[0].leaving);
    cr_assert(eq(uint, fake.registers, 1));
    close_bed();
}

static void on_stopped(void *arg)
{
    bed.stopped = true;
    if (arg) {
        membership_free(bed.m);
        bed.m = NULL;
    }
    loop_stop(bed.loop);
}

Test(membership, stop_ends_session_and_service_and_may_free_in_its_callback)
{
    open_bed();
    run_until_held();
    membership_stop(bed.m, 5000, on_stopped, &bed);
    cr_assert(not(bed.stopped));
    loop_run(bed.loop);
    cr_assert(bed.stopped);
    cr_assert(eq(uint, fake.destroys, 1));
    cr_assert(eq(uint, fake.deregisters, 1));
    cr_assert(eq(uint, fake.sessions, 1), "nothing was joined again");
    close_bed();
}

Test(membership, stop_ends_by_its_time_when_consul_is_away)
{
    open_bed();
    run_until_held();
    raw_server_stop(bed.server);
    membership_stop(bed.m, 50, on_stopped, NULL);
    loop_run(bed.loop);
    cr_assert(bed.stopped);
    bed.server = raw_server_start(false, say, NULL);
    close_bed();
}

Test(membership, may_be_freed_at_any_moment_of_joining)
{
    for (int turns = 0; turns < 12; turns++) {
        memset(&fake, 0, sizeof(fake));
        open_bed();
        loop_stop(bed.loop);
        for (int i = 0; i < turns; i++) {
            loop_run(bed.loop);
            loop_stop(bed.loop);
        }
        close_bed();
    }
}
