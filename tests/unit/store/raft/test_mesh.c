#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/io/listener.h"
#include "agent/store/raft/mesh.h"
#include "agent/store/raft/message.h"

#define WAIT_MS 60000

/* Two voters on one loop; the second is listened for by the first alone. */
struct side {
    struct mesh *mesh;
    struct wire_tls *tls;
    struct listener listener;
    struct raft_message got;
    bool has_got;
    bool echoes;
};

struct bed {
    uv_loop_t loop;
    uv_timer_t timer;
    struct side sides[2];
    unsigned turns;
    unsigned answers;
    enum err_code code;
    size_t bytes;
};

static void on_message(void *arg, struct raft_message *m)
{
    struct side *s = arg;
    if (s->has_got)
        message_drop(&s->got);
    s->got = *m;
    s->has_got = true;
}

static void on_request(void *arg, const struct mesh_request *r)
{
    struct side *s = arg;
    struct buf back = BUF_INIT((size_t)64 << 20);
    if (r->bytes > 0)
        buf_add(&back, r->body, r->bytes);
    free(r->body);
    mesh_answer(s->mesh, r->peer, r->call, (enum err_code)r->kind, &back);
}

static void on_tick(uv_timer_t *timer)
{
    struct bed *b = timer->data;
    b->turns++;
    for (unsigned i = 0; i < 2; i++) {
        mesh_tick(b->sides[i].mesh);
        mesh_flush(b->sides[i].mesh);
    }
}

static void bed_open(struct bed *b, const char *secret_a, const char *secret_b)
{
    struct mesh_node nodes[2] = {{.id = 1}, {.id = 2}};
    const char *secrets[2] = {secret_a, secret_b};
    struct err e = {0};
    *b = (struct bed){.turns = 0};
    cr_assert_eq(uv_loop_init(&b->loop), 0);
    cr_assert_eq(uv_timer_init(&b->loop, &b->timer), 0);
    b->timer.data = b;
    for (unsigned i = 0; i < 2; i++) {
        struct side *s = &b->sides[i];
        struct wire_tls_options tls = {
            .cluster = "test", .secret = secrets[i], .secret_bytes = secrets[i] ? strlen(secrets[i]) : 0};
        cr_assert_eq(wire_tls_new(&tls, &s->tls, &e), 0, "%s", e.text);
        struct mesh_options options = {.loop = &b->loop,
                                       .cluster = "test",
                                       .tls = s->tls,
                                       .message = on_message,
                                       .request = on_request,
                                       .arg = s};
        s->mesh = mesh_new(&options);
        cr_assert_eq(listener_open(&s->listener, "127.0.0.1:0", 0, &e), 0, "%s", e.text);
        cr_assert_eq(mesh_listen(s->mesh, fd_take(&s->listener.fd), &e), 0, "%s", e.text);
        (void)snprintf(nodes[i].address, sizeof(nodes[i].address), "%s", s->listener.address);
    }
    for (unsigned i = 0; i < 2; i++)
        mesh_set_nodes(b->sides[i].mesh, nodes, 2, i + 1);
    cr_assert_eq(uv_timer_start(&b->timer, on_tick, 1, 10), 0);
}

static void bed_close(struct bed *b)
{
    uv_close((uv_handle_t *)&b->timer, NULL);
    for (unsigned i = 0; i < 2; i++)
        mesh_close(b->sides[i].mesh);
    cr_assert_eq(uv_run(&b->loop, UV_RUN_DEFAULT), 0);
    cr_assert_eq(uv_loop_close(&b->loop), 0);
    for (unsigned i = 0; i < 2; i++) {
        mesh_free(b->sides[i].mesh);
        wire_tls_free(b->sides[i].tls);
        listener_fini(&b->sides[i].listener);
        if (b->sides[i].has_got)
            message_drop(&b->sides[i].got);
    }
}

static void turn(struct bed *b)
{
    (void)uv_run(&b->loop, UV_RUN_ONCE);
    cr_assert_lt(b->turns, WAIT_MS / 10u, "%s", "waited too long");
}

static void wait_reached(struct bed *b)
{
    while (!mesh_reaches(b->sides[0].mesh, 2) || !mesh_reaches(b->sides[1].mesh, 1))
        turn(b);
}

static void on_answer(void *arg, const struct err *e, enum err_code code, void *body, size_t bytes)
{
    struct bed *b = arg;
    b->answers++;
    b->code = e->code != ERR_OK ? e->code : code;
    b->bytes = bytes;
    free(body);
}

static void calls_are_answered(const char *secret)
{
    struct bed b;
    bed_open(&b, secret, secret);
    wait_reached(&b);
    struct buf payload = BUF_INIT((size_t)64 << 20);
    char *room = buf_reserve(&payload, 5000000);
    memset(room, 'x', 5000000);
    buf_commit(&payload, 5000000);
    cr_assert_neq(mesh_call(b.sides[0].mesh, 2, ERR_FENCED, &payload, on_answer, &b), 0);
    while (b.answers == 0)
        turn(&b);
    cr_assert_eq(b.code, ERR_FENCED);
    cr_assert_eq(b.bytes, 5000000);
    bed_close(&b);
}

Test(mesh, a_call_is_answered_by_the_voter_that_was_asked)
{
    calls_are_answered(NULL);
}

Test(mesh, a_call_is_answered_over_tls_with_the_secret_as_its_key)
{
    calls_are_answered("the secret");
}

Test(mesh, who_has_another_secret_is_not_let_in)
{
    struct bed b;
    bed_open(&b, "the secret", "another");
    while (b.turns < 50)
        turn(&b);
    cr_assert_not(mesh_reaches(b.sides[0].mesh, 2));
    cr_assert_not(mesh_reaches(b.sides[1].mesh, 1));
    bed_close(&b);
}

Test(mesh, who_has_no_secret_is_not_let_in)
{
    struct bed b;
    bed_open(&b, "the secret", NULL);
    while (b.turns < 50)
        turn(&b);
    cr_assert_not(mesh_reaches(b.sides[0].mesh, 2));
    cr_assert_not(mesh_reaches(b.sides[1].mesh, 1));
    bed_close(&b);
}

static void on_sent(struct raft_io_send *req, int status)
{
    *(int *)req->data = status;
}

Test(mesh, entries_arrive_as_the_batch_that_the_log_wants)
{
    struct bed b;
    uint64_t data[4] = {1, 2, 3, 4};
    struct raft_entry entries[2] = {{.term = 7, .type = RAFT_COMMAND, .buf = {data, 16}},
                                    {.term = 8, .type = RAFT_BARRIER, .buf = {data + 2, 8}}};
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 2};
    int status = -1;
    struct raft_io_send req = {.data = &status};
    m.append_entries = (struct raft_append_entries){.version = 1,
                                                    .term = 9,
                                                    .prev_log_index = 41,
                                                    .prev_log_term = 6,
                                                    .leader_commit = 40,
                                                    .entries = entries,
                                                    .n_entries = 2};
    bed_open(&b, "the secret", "the secret");
    wait_reached(&b);
    cr_assert_eq(mesh_send(b.sides[0].mesh, &req, &m, on_sent), 0);
    cr_assert_eq(status, 0);
    while (!b.sides[1].has_got)
        turn(&b);
    const struct raft_message *got = &b.sides[1].got;
    cr_assert_eq(got->server_id, 1);
    cr_assert_eq(got->append_entries.term, 9);
    cr_assert_eq(got->append_entries.prev_log_index, 41);
    cr_assert_eq(got->append_entries.n_entries, 2);
    cr_assert_eq(got->append_entries.entries[1].term, 8);
    cr_assert_eq(got->append_entries.entries[1].type, RAFT_BARRIER);
    cr_assert_arr_eq(got->append_entries.entries[0].buf.base, data, 16);
    cr_assert_eq(got->append_entries.entries[0].batch, got->append_entries.entries[1].batch);
    bed_close(&b);
}

static struct raft_message snapshot_of(void *data, size_t bytes)
{
    struct raft_message m = {.type = RAFT_INSTALL_SNAPSHOT, .server_id = 2};
    m.install_snapshot.version = 2;
    m.install_snapshot.data = (struct raft_buffer){.base = data, .len = bytes};
    raft_configuration_init(&m.install_snapshot.conf);
    return m;
}

static void send_to(struct bed *b, struct raft_message *m, struct raft_io_send *req, int *status)
{
    *status = -1;
    req->data = status;
    cr_assert_eq(mesh_send(b->sides[0].mesh, req, m, on_sent), 0);
}

static void wait_for(struct bed *b, enum raft_message_type type)
{
    while (!b->sides[1].has_got || b->sides[1].got.type != type)
        turn(b);
}

Test(mesh, a_heartbeat_does_not_wait_behind_a_snapshot)
{
    struct bed b;
    size_t bytes = (size_t)64 << 20;
    AUTO(mem_free) void *data = mem_alloc_or_die(1, bytes);
    struct raft_message large = snapshot_of(data, bytes),
                        beat = {.type = RAFT_APPEND_ENTRIES, .server_id = 2};
    struct raft_io_send large_req, beat_req, more_req;
    int large_status, beat_status, more_status;
    beat.append_entries = (struct raft_append_entries){.version = 1, .term = 9};
    bed_open(&b, "the secret", "the secret");
    wait_reached(&b);
    send_to(&b, &large, &large_req, &large_status);
    cr_assert_eq(large_status, -1, "%s", "its bytes are not needed any more");
    cr_assert(mesh_is_loading(b.sides[0].mesh, 2));
    send_to(&b, &large, &more_req, &more_status);
    cr_assert_eq(more_status, RAFT_NOCONNECTION, "%s", "one at a time");
    send_to(&b, &beat, &beat_req, &beat_status);
    while (!b.sides[1].has_got)
        turn(&b);
    cr_assert_eq(b.sides[1].got.type, RAFT_APPEND_ENTRIES);
    wait_for(&b, RAFT_INSTALL_SNAPSHOT);
    cr_assert_eq(b.sides[1].got.server_id, 1);
    cr_assert_eq(b.sides[1].got.install_snapshot.data.len, bytes);
    while (large_status == -1)
        turn(&b);
    cr_assert_eq(large_status, 0);
    cr_assert(mesh_is_loading(b.sides[0].mesh, 2), "%s", "it is not known that it was read");
    mesh_loaded(b.sides[0].mesh, 2);
    cr_assert_not(mesh_is_loading(b.sides[0].mesh, 2));
    for (unsigned turns = b.turns; b.turns < turns + 3;) /* the connection of snapshots goes */
        turn(&b);
    send_to(&b, &large, &large_req, &large_status);
    message_drop(&b.sides[1].got);
    b.sides[1].has_got = false;
    wait_for(&b, RAFT_INSTALL_SNAPSHOT);
    bed_close(&b);
    cr_assert_neq(large_status, -1);
}

Test(mesh, a_snapshot_whose_connection_ends_is_given_back)
{
    struct bed b;
    uint64_t data = 1;
    struct raft_message m = snapshot_of(&data, sizeof(data));
    struct raft_io_send req;
    int status;
    bed_open(&b, NULL, NULL);
    wait_reached(&b);
    send_to(&b, &m, &req, &status);
    cr_assert_eq(mesh_sending(b.sides[0].mesh), 1);
    mesh_set_nodes(b.sides[0].mesh, NULL, 0, 1);
    while (status == -1)
        turn(&b);
    cr_assert_eq(mesh_sending(b.sides[0].mesh), 0);
    cr_assert_not(mesh_is_loading(b.sides[0].mesh, 2));
    bed_close(&b);
}

/* --- one thing fails ----------------------------------------------------------------------------------------------- */

/* The K-th step fails, once, anywhere between dialling and the answer: then the call is refused, or its connection ends and it is
 * made again. False: nothing was left to fail. */
static bool is_answered_in_the_end(const char *secret, unsigned k)
{
    struct bed b;
    unsigned asked = 0;
    bed_open(&b, secret, secret);
    fault_arm(k);
    while (b.code != ERR_FENCED) {
        if (asked == b.answers && mesh_reaches(b.sides[0].mesh, 2)) {
            struct buf payload = BUF_INIT(1000);
            buf_add(&payload, "x", 1);
            asked += mesh_call(b.sides[0].mesh, 2, ERR_FENCED, &payload, on_answer, &b) != 0;
        }
        turn(&b);
    }
    bool fired = fault_fired();
    cr_assert_eq(b.answers, asked, "%u", k);
    bed_close(&b);
    return fired;
}

static void loop_over_faults(const char *secret, unsigned least)
{
    unsigned k = 0;
    while (is_answered_in_the_end(secret, k))
        k++;
    cr_assert_geq(k, least, "%u steps can fail", k);
}

Test(mesh, whatever_fails_once_the_call_is_answered_in_the_end)
{
    loop_over_faults(NULL, 8);
}

Test(mesh, whatever_fails_once_the_call_is_answered_in_the_end_over_tls)
{
    loop_over_faults("the secret", 15);
}

/* Nothing is left of what was begun: the sanitizers look. */
Test(mesh, what_cannot_be_opened_is_refused)
{
    const struct wire_tls_options options = {.cluster = "test", .secret = "x", .secret_bytes = 1};
    for (unsigned k = 0;; k++) {
        struct err e = {0};
        struct wire_tls *tls = NULL;
        fault_arm(k);
        int rc = wire_tls_new(&options, &tls, &e);
        if (!fault_fired()) {
            cr_assert_eq(rc, 0, "%s", e.text);
            cr_assert_geq(k, 2u);
            wire_tls_free(tls);
            break;
        }
        cr_assert_eq(rc, -ERR_NOMEM, "%u: %s", k, e.text);
        cr_assert_null(tls);
    }
}

Test(mesh, a_message_that_cannot_be_copied_is_not_sent_or_lost)
{
    uint64_t data[2] = {1, 2};
    struct raft_entry entries[1] = {{.term = 7, .type = RAFT_COMMAND, .buf = {data, 16}}};
    struct raft_message m = {.type = RAFT_APPEND_ENTRIES, .server_id = 2};
    m.append_entries =
        (struct raft_append_entries){.version = 1, .term = 9, .entries = entries, .n_entries = 1};
    unsigned k = 0;
    for (bool fired = true; fired; k++) {
        struct bed b;
        int status = 0;
        struct raft_io_send req = {.data = &status};
        bed_open(&b, NULL, NULL);
        wait_reached(&b);
        fault_arm(k);
        while (!b.sides[1].has_got) { /* as libraft does: what did not arrive is sent again */
            if (mesh_reaches(b.sides[0].mesh, 2) && b.turns % 5 == 0)
                cr_assert_eq(mesh_send(b.sides[0].mesh, &req, &m, on_sent), 0);
            turn(&b);
            if (b.sides[1].has_got)
                break;
        }
        fired = fault_fired();
        cr_assert_eq(b.sides[1].got.append_entries.n_entries, 1);
        bed_close(&b);
    }
    cr_assert_geq(k, 4u);
}
