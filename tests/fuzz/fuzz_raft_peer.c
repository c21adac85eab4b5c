/* What the Raft-log store hears from others: the first byte says whether the rest is a message of the log's, a call of the lane of writes, a
 * question, or the rows that answer one. A call that the leader takes is a command that every voter can apply. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/message.h"
#include "agent/store/store_raft_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *copy_of(const void *data, size_t size)
{
    void *copy = size > 0 ? malloc(size) : NULL;
    assert(copy || size == 0);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* What was read is written and read again. */
static void again(struct raft_message *m)
{
    AUTO(buf_fini) struct buf head = BUF_INIT((size_t)1 << 20);
    struct raft_message back;
    void *body;
    size_t bytes;
    bool borrowed;
    struct err e;
    int r = message_encode(m, &head, &body, &bytes, &borrowed, &e);
    assert(r == 0 && !buf_failed(&head));
    struct codec_in in = codec_in(buf_str(&head), head.len);
    r = message_decode(&in, borrowed ? copy_of(body, bytes) : body, bytes, &back, &e);
    assert(r == 0 && back.type == m->type);
    message_drop(&back);
}

/* The first byte is the length of the head. */
static void message(const uint8_t *data, size_t size)
{
    struct raft_message m;
    struct err e;
    if (size == 0)
        return;
    size_t head = data[0] < size - 1 ? data[0] : size - 1, body = size - 1 - head;
    struct codec_in in = codec_in(data + 1, head);
    if (message_decode(&in, copy_of(data + 1 + head, body), body, &m, &e) < 0)
        return;
    again(&m);
    message_drop(&m);
}

static void apply(struct machine *m, enum command_kind kind, const struct buf *command)
{
    AUTO(buf_fini) struct buf entry = BUF_INIT((size_t)1 << 24);
    struct err e;
    entry_begin(&entry, machine_seq(m) + 1, 1);
    entry_add(&entry, kind, command);
    int r = entry_end(&entry, &e);
    assert(r == 0);
    r = machine_apply(m, entry.data, entry.len, NULL, NULL, &e);
    assert(r == 0);
}

/* A store that somebody joined. */
static struct machine *made(void)
{
    struct machine *m = machine_new();
    AUTO(buf_fini) struct buf command = BUF_INIT(10000);
    struct store_meta meta = {.slots = 16, .created_ms = 1000, .schema = 1, .cluster = "c"};
    struct store_member me = {.id = "m1", .name = "m"};
    command_put_make(&command, &meta);
    apply(m, COMMAND_MAKE, &command);
    buf_reset(&command);
    command_put_join(&command, &me, false, 1000);
    apply(m, COMMAND_JOIN, &command);
    return m;
}

static void call(const uint8_t *data, size_t size)
{
    struct machine *m = made();
    struct rs_leader leader = {.alone = false};
    struct replica_batch *others = (struct replica_batch *)&leader; /* not NULL: it is another's */
    struct replica_task t = {.data = data, .bytes = size, .batch_ = others};
    AUTO(buf_fini) struct buf out = BUF_INIT((size_t)1 << 24);
    enum command_kind kind = COMMAND_LAST_;
    buf_init(&t.answer, (size_t)1 << 24);
    if (rs_encode(&leader, &t, m, &kind, &out) != REPLICA_ANSWERED && !buf_failed(&out)) {
        apply(m, kind, &out);
        machine_validate(m);
    }
    buf_fini(&t.answer);
    machine_free(m);
}

static void fini(struct read *r)
{
    for (size_t i = 0; i < r->found; i++) {
        if (r->jobs_found)
            machine_blob_unref(r->jobs_found[i].spec);
        if (r->revisions_found)
            machine_blob_unref(r->revisions_found[i].was);
    }
    mem_free(r->jobs_found);
    mem_free(r->fires_found);
    mem_free(r->revisions_found);
    mem_free(r->dead);
    machine_blob_unref(r->copy_found);
    rs_free_question(r->question);
}

static void question(const uint8_t *data, size_t size)
{
    struct read r = {.kind = RS_LOAD_JOBS};
    struct codec_in in = codec_in(data, size);
    if (rs_get_question(&in, &r)) {
        AUTO(buf_fini) struct buf back = BUF_INIT((size_t)1 << 24);
        rs_put_question(&r, r.reader, &back);
        assert(!buf_failed(&back) && back.len == size && memcmp(buf_str(&back), data, size) == 0);
    }
    fini(&r);
}

/* The first byte is what was asked. */
static void found(const uint8_t *data, size_t size)
{
    struct err e;
    if (size == 0 || data[0] == 0 || data[0] > RS_READ_LAST_)
        return;
    struct read r = {.kind = (enum rs_read_kind)data[0], .limit = 20};
    struct codec_in in = codec_in(data + 1, size - 1);
    int rc = rs_make_room(&r, &e);
    assert(rc == 0);
    (void)rs_get_found(&in, &r); /* whatever it says, what is there can be let go */
    fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parts[])(const uint8_t *, size_t) = {message, call, question, found};
    if (size > 0)
        parts[data[0] % 4](data + 1, size - 1);
    return 0;
}
