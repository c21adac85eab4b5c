#include <criterion/criterion.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/io/listener.h"
#include "agent/io/loop.h"
#include "agent/store/raft/replica.h"

#define WAIT_MS 60000

/* Of the log's thread of one side: arms a fault there before it works on a call, and looks whether it struck at the next one. */
struct side {
    struct replica *replica;
    unsigned k;
    bool arm, fired;
};

/* A voter that is alone in its cluster, and an agent that uses it. */
struct bed {
    struct loop *loop;
    struct loop_timer *timer;
    struct listener listener;
    char dir[64];
    struct side voter, user;
    struct side *struck; /* where faults are armed */
};

struct ask {
    struct replica_op op;
    struct side *side;
    bool done;
};

static void touch(struct side *s)
{
    s->fired = fault_fired();
    if (s->arm)
        fault_arm(s->k);
    s->arm = false;
}

static enum replica_step encode(void *arg, struct replica_task *t, struct machine *m,
                                enum command_kind *ret_kind, struct buf *out)
{
    struct bed *b = arg;
    (void)m;
    if (b->struck == &b->voter)
        touch(&b->voter);
    cr_assert_eq(t->bytes, 3);
    *ret_kind = COMMAND_DECLARE;
    command_put_declare(out, "nobody", 0);
    return REPLICA_COMMAND;
}

static void applied(void *arg, struct replica_task *t, const struct machine_result *result)
{
    (void)arg;
    buf_addf(&t->answer, "code %d", (int)result->code);
}

static void answer(void *arg, struct replica_task *t, struct replica *r)
{
    (void)arg;
    struct machine *m = replica_lock(r);
    buf_addf(&t->answer, "%u slots", m ? machine_meta(m)->slots : 0);
    if (m)
        replica_unlock(r);
}

static void put(struct replica_op *op, struct buf *out)
{
    struct ask *a = container_of(op, struct ask, op);
    if (a->side)
        touch(a->side);
    buf_add(out, "ask", 3);
}

static bool got(struct replica_op *op, const void *data, size_t bytes)
{
    (void)op;
    cr_assert_eq(bytes, 6);
    cr_assert_arr_eq(data, "code 0", 6);
    return false;
}

static void done(struct replica_op *op)
{
    struct ask *a = container_of(op, struct ask, op);
    cr_assert_not(a->done);
    a->done = true;
}

static void stop(void *arg)
{
    loop_stop(arg);
}

static void turn(struct bed *b)
{
    loop_timer_arm(b->timer, 5);
    loop_run(b->loop);
}

static void open_side(struct bed *b, struct side *s)
{
    struct err e = {0};
    struct replica_options options = {
        .loop = b->loop,
        .dir = b->dir,
        .make = {.schema = 1, .slots = 4, .created_ms = 1, .cluster = "test"},
        .service = {.encode = encode, .applied = applied, .read = answer, .arg = b},
        .snapshot_entries = 100,
        .snapshot_bytes = 1 << 20,
        .patience_ms = WAIT_MS,
        .election_ms = 120,
        .cluster = "test"};
    cr_assert_eq(replica_open(&options, &s->replica, &e), 0, "%s", e.text);
}

static void bed_open(struct bed *b)
{
    struct err e = {0};
    struct mesh_node node = {.id = 1};
    *b = (struct bed){.dir = "/tmp/carillon-test-XXXXXX"};
    cr_assert(mkdtemp(b->dir));
    cr_assert_eq(loop_new(&b->loop, &e), 0, "%s", e.text);
    b->timer = loop_timer_new(b->loop, stop, b->loop);
    cr_assert_eq(listener_open(&b->listener, "127.0.0.1:0", 0, &e), 0, "%s", e.text);
    (void)snprintf(node.address, sizeof(node.address), "%s", b->listener.address);
    open_side(b, &b->voter);
    open_side(b, &b->user);
    int fd = fd_take(&b->listener.fd);
    cr_assert_eq(replica_vote(b->voter.replica, 1, fd, &node, 1, false, &e), 0, "%s", e.text);
    replica_set_voters(b->voter.replica, &node, 1);
    replica_set_voters(b->user.replica, &node, 1);
}

static void bed_close(struct bed *b)
{
    replica_close(b->user.replica);
    replica_close(b->voter.replica);
    loop_timer_free(b->timer);
    loop_free(b->loop);
    listener_fini(&b->listener);
    DIR *d = opendir(b->dir);
    cr_assert(d);
    for (struct dirent *f; (f = readdir(d));)
        if (f->d_name[0] != '.')
            cr_assert_eq(unlinkat(dirfd(d), f->d_name, 0), 0);
    closedir(d);
    cr_assert_eq(rmdir(b->dir), 0);
}

/* What a call comes to that goes in at FROM; STRIKES: faults are armed and looked at when its bytes are made. */
static enum err_code ask(struct bed *b, struct side *from, enum replica_lane lane, struct side *strikes)
{
    uint64_t until_ms = clock_boot_ms() + WAIT_MS;
    struct ask a = {.op = {.lane = lane, .put = put, .got = got, .done = done}, .side = strikes};
    replica_submit(from->replica, &a.op);
    while (!a.done) {
        cr_assert_lt(clock_boot_ms(), until_ms, "%s", "waited too long");
        turn(b);
    }
    if (a.op.body)
        cr_assert_arr_eq(a.op.body, "4 slots", 7);
    mem_free(a.op.body);
    return a.op.err.code;
}

/* The K-th step of STRUCK's thread fails after it began with a call of LANE. How many steps there were to fail. */
static unsigned loop_over_faults(struct bed *b, struct side *from, enum replica_lane lane,
                                 struct side *struck)
{
    struct side *by_put = struck == from ? struck : NULL;
    b->struck = struck;
    cr_assert_eq(ask(b, from, REPLICA_WRITE, by_put), ERR_OK);
    for (unsigned k = 0;; k++) {
        struck->k = k;
        struck->arm = true;
        enum err_code code = ask(b, from, lane, by_put);
        cr_assert(code == ERR_OK || code == ERR_NOMEM || code == ERR_TOO_BIG, "k=%u: %s", k,
                  err_code_name(code));
        cr_assert_eq(ask(b, from, REPLICA_WRITE, by_put), ERR_OK, "k=%u", k);
        if (!struck->fired)
            return k;
    }
}

Test(replica, whatever_fails_once_where_a_call_begins_it_is_answered_once_and_the_next_is_done)
{
    struct bed b;
    bed_open(&b);
    cr_assert_gt(loop_over_faults(&b, &b.user, REPLICA_WRITE, &b.user), 2);
    cr_assert_gt(loop_over_faults(&b, &b.user, REPLICA_READ, &b.user), 2);
    cr_assert_gt(loop_over_faults(&b, &b.voter, REPLICA_WRITE, &b.voter), 0);
    bed_close(&b);
}

Test(replica, whatever_fails_once_where_the_log_is_led_the_call_is_answered_once_and_the_next_is_done)
{
    struct bed b;
    bed_open(&b);
    cr_assert_gt(loop_over_faults(&b, &b.user, REPLICA_WRITE, &b.voter), 2);
    bed_close(&b);
}
