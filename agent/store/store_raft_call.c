/* Calls in the lane of writes, on the side of who asks: bytes out, answers in. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/store/raft/codec.h"
#include "agent/store/store_raft_private.h"

#define MEMBERS_MAX 100000

static const struct log_ctx log_store = {.module = "store"};

struct call {
    struct replica_op op;
    struct store_raft *store;
    union {
        store_done *done;
        store_beat_done *beat_done;
        store_bool_done *bool_done;
        store_slots_done *slots_done;
    };
    void *arg;
    uint64_t began_us;

    const struct store_member *me;
    char member[RECORD_MEMBER_MAX]; /* or victim */
    uint64_t seen_beat;
    int64_t now_ms;
    struct store_vacuum vacuum;
    bool yes;

    struct store_beat beat;
    struct store_member *members;
    struct store_slot *slots_found;
    size_t found;

    struct slot_change *slots;
    size_t slots_count;
    struct store_batch *batch;
    struct job_change **sorted; /* in the order in which they are done */
    size_t begun, part;         /* answered; in the command under way */
};

static bool is_ok(const struct call *c)
{
    return c->op.err.code == ERR_OK;
}

static void note_reached(struct store_raft *s, const struct err *e)
{
    bool reached = e->code != ERR_UNAVAILABLE && e->code != ERR_UNKNOWN_OUTCOME && e->code != ERR_PERMANENT;
    if (e->code == ERR_CANCELLED || reached == s->stats.ok)
        return;
    s->stats.ok = reached;
    s->stats.since_ms = s->now_ms(s->arg);
    (void)snprintf(s->stats.detail, sizeof(s->stats.detail), "%.159s", e->text); /* cut: for people */
    if (reached)
        log_info(&log_store, "store can be used again", "driver=raft");
    else
        log_warn(&log_store, "store cannot be used", "driver=raft error=%s", LOGQ(e->text));
}

void rs_note(struct store_raft *s, const struct err *e)
{
    s->stats.errors_unavailable += e->code == ERR_UNAVAILABLE;
    s->stats.errors_unknown += e->code == ERR_UNKNOWN_OUTCOME;
    s->stats.errors_permanent += e->code == ERR_PERMANENT;
    note_reached(s, e);
}

static void call_free(struct call *c)
{
    mem_free(c->members);
    mem_free(c->slots_found);
    mem_free(c->sorted);
    mem_free(c);
}

static bool got_nothing(struct replica_op *op, const void *data, size_t bytes)
{
    (void)op;
    (void)data;
    (void)bytes;
    return false;
}

static struct call *call_new(void *self, void (*put)(struct replica_op *, struct buf *),
                             void (*done)(struct replica_op *), void *arg)
{
    struct call *c = mem_new(struct call);
    c->store = self;
    c->op.lane = REPLICA_WRITE;
    c->op.put = put;
    c->op.got = got_nothing;
    c->op.done = done;
    c->arg = arg;
    c->began_us = clock_boot_us();
    return c;
}

static struct call *call_of(struct replica_op *op)
{
    return container_of(op, struct call, op);
}

static void name_member(struct call *c, const char *member)
{
    assert(strlen(member) < sizeof(c->member));
    memcpy(c->member, member, strlen(member) + 1);
}

/* An answer has come to its end as it should. */
static bool check_answer(struct replica_op *op, const struct codec_in *in)
{
    return codec_finish(in, "the leader's answer", &op->err) == 0;
}

static void answer_done(struct replica_op *op)
{
    struct call *c = call_of(op);
    rs_note(c->store, &op->err);
    c->done(c->arg, &op->err);
    call_free(c);
}

/* --- members ------------------------------------------------------------------------------------------------------- */

static void put_join(struct replica_op *op, struct buf *out)
{
    codec_put_u64(out, RS_JOIN);
    codec_put_row(out, codec_member(), call_of(op)->me, CODEC_ALL);
    codec_put_i64(out, call_of(op)->now_ms);
}

void rs_join(void *self, const struct store_member *me, store_done *done, void *arg)
{
    struct call *c = call_new(self, put_join, answer_done, arg);
    c->me = me;
    c->now_ms = c->store->now_ms(c->store->arg);
    c->done = done;
    replica_submit(c->store->replica, &c->op);
}

static void put_beat(struct replica_op *op, struct buf *out)
{
    codec_put_u64(out, RS_BEAT);
    codec_put_text(out, call_of(op)->member);
    codec_put_i64(out, clock_wall_ms()); /* each try tells it anew */
}

static void get_member(struct codec_in *in, struct store_member *ret)
{
    codec_get_row(in, codec_member(), ret, CODEC_ALL);
    ret->beat = codec_get_u64(in, UINT64_MAX);
    ret->dead = codec_get_u64(in, 1) != 0;
}

static bool got_beat(struct replica_op *op, const void *data, size_t bytes)
{
    struct call *c = call_of(op);
    struct codec_in in = codec_in(data, bytes);
    c->beat.alive = codec_get_u64(&in, 1) != 0;
    c->beat.store_now_ms = codec_get_i64(&in);
    size_t members = (size_t)codec_get_u64(&in, MEMBERS_MAX);
    c->members = mem_new_array(struct store_member, members + 1);
    for (size_t i = 0; i < members && !in.bad; i++)
        get_member(&in, &c->members[i]);
    c->found = (size_t)codec_get_u64(&in, UINT16_MAX + 1);
    c->slots_found = mem_new_array(struct store_slot, c->found + 1);
    for (size_t i = 0; i < c->found && !in.bad; i++) {
        c->slots_found[i].slot = (uint16_t)codec_get_u64(&in, UINT16_MAX);
        c->slots_found[i].epoch = codec_get_u64(&in, UINT64_MAX);
        memcpy(c->slots_found[i].owner, c->member, sizeof(c->member));
    }
    c->beat.members = c->members;
    c->beat.members_count = members;
    c->beat.slots = c->slots_found;
    c->beat.slots_count = c->found;
    (void)check_answer(op, &in); /* op->err tells */
    return false;
}

static void answer_beat(struct replica_op *op)
{
    struct call *c = call_of(op);
    c->beat.done_boot_ms = (int64_t)clock_boot_ms();
    c->store->stats.beats++;
    c->store->stats.beat_us += clock_boot_us() - c->began_us;
    rs_note(c->store, &op->err);
    c->beat_done(c->arg, &op->err, is_ok(c) ? &c->beat : NULL);
    call_free(c);
}

void rs_beat(void *self, const char *member, store_beat_done *done, void *arg)
{
    struct call *c = call_new(self, put_beat, answer_beat, arg);
    name_member(c, member);
    c->op.got = got_beat;
    c->beat_done = done;
    c->beat.sent_boot_ms = (int64_t)clock_boot_ms();
    replica_submit(c->store->replica, &c->op);
}

static void put_declare(struct replica_op *op, struct buf *out)
{
    const struct call *c = call_of(op);
    codec_put_u64(out, RS_DECLARE);
    codec_put_text(out, c->member);
    codec_put_u64(out, c->seen_beat);
    codec_put_i64(out, c->now_ms);
}

static bool got_yes(struct replica_op *op, const void *data, size_t bytes)
{
    struct codec_in in = codec_in(data, bytes);
    call_of(op)->yes = codec_get_u64(&in, 1) != 0;
    (void)check_answer(op, &in); /* op->err tells */
    return false;
}

static void answer_bool(struct replica_op *op)
{
    struct call *c = call_of(op);
    rs_note(c->store, &op->err);
    c->bool_done(c->arg, &op->err, is_ok(c) && c->yes);
    call_free(c);
}

void rs_declare_dead(void *self, const char *victim, uint64_t seen_beat, store_bool_done *done, void *arg)
{
    struct call *c = call_new(self, put_declare, answer_bool, arg);
    name_member(c, victim);
    c->op.got = got_yes;
    c->seen_beat = seen_beat;
    c->bool_done = done;
    c->now_ms = c->store->now_ms(c->store->arg);
    replica_submit(c->store->replica, &c->op);
}

/* --- slots --------------------------------------------------------------------------------------------------------- */

static void put_slots(struct replica_op *op, struct buf *out)
{
    const struct call *c = call_of(op);
    codec_put_u64(out, RS_SLOTS);
    command_put_slots(out, c->member, c->slots, c->slots_count);
}

/* What became of each slot. */
static void get_changed(struct codec_in *in, struct slot_change *slots, size_t count)
{
    in->bad |= codec_get_u64(in, count) != count;
    for (size_t i = 0; i < count; i++)
        slots[i].changed = codec_get_u64(in, 1) != 0;
}

static bool got_slots(struct replica_op *op, const void *data, size_t bytes)
{
    struct codec_in in = codec_in(data, bytes);
    get_changed(&in, call_of(op)->slots, call_of(op)->slots_count);
    (void)check_answer(op, &in); /* op->err tells */
    return false;
}

void rs_slots_change(void *self, const char *member, struct slot_change *slots, size_t count,
                     store_done *done, void *arg)
{
    struct call *c = call_new(self, put_slots, answer_done, arg);
    name_member(c, member);
    c->op.got = got_slots;
    c->slots = slots;
    c->slots_count = count;
    c->done = done;
    replica_submit(c->store->replica, &c->op);
}

static void put_slots_read(struct replica_op *op, struct buf *out)
{
    (void)op;
    codec_put_u64(out, RS_SLOTS_READ);
}

static bool got_slots_read(struct replica_op *op, const void *data, size_t bytes)
{
    struct call *c = call_of(op);
    struct codec_in in = codec_in(data, bytes);
    c->found = (size_t)codec_get_u64(&in, UINT16_MAX + 1);
    c->slots_found = mem_new_array(struct store_slot, c->found + 1);
    for (size_t i = 0; i < c->found && !in.bad; i++) {
        struct store_slot *slot = &c->slots_found[i];
        slot->slot = (uint16_t)codec_get_u64(&in, UINT16_MAX);
        slot->epoch = codec_get_u64(&in, UINT64_MAX);
        if (codec_get_u64(&in, 1) == 0)
            codec_get_text(&in, slot->owner, sizeof(slot->owner));
        else if (i > 0) /* as the one before */
            memcpy(slot->owner, slot[-1].owner, sizeof(slot->owner));
    }
    (void)check_answer(op, &in); /* op->err tells */
    return false;
}

static void answer_slots(struct replica_op *op)
{
    struct call *c = call_of(op);
    rs_note(c->store, &op->err);
    c->slots_done(c->arg, &op->err, is_ok(c) ? c->slots_found : NULL, is_ok(c) ? c->found : 0);
    call_free(c);
}

void rs_slots_read(void *self, store_slots_done *done, void *arg)
{
    struct call *c = call_new(self, put_slots_read, answer_slots, arg);
    c->op.got = got_slots_read;
    c->slots_done = done;
    replica_submit(c->store->replica, &c->op);
}

/* --- commits ------------------------------------------------------------------------------------------------------- */

/* Inserts last: a name may get free in the same batch. */
static int compare_changes(const void *a, const void *b)
{
    const struct job_change *x = *(struct job_change *const *)a, *y = *(struct job_change *const *)b;
    int order = (x->op == CHANGE_INSERT) - (y->op == CHANGE_INSERT);
    return order ? order : memcmp(x->row.uid.bytes, y->row.uid.bytes, sizeof(struct uid));
}

/* A large batch becomes several entries, each with the fence. */
static void put_commit(struct replica_op *op, struct buf *out)
{
    struct call *c = call_of(op);
    const struct store_batch *b = c->batch;
    struct store_meta meta = {.schema = 1};
    (void)replica_meta(c->store->replica, &meta); /* not known: the oldest */
    codec_put_u64(out, RS_COMMIT);
    c->part =
        command_put_commit(out, meta.schema, b->member, b->slots, c->begun ? 0 : b->slots_count,
                           c->sorted + c->begun, b->jobs_count - c->begun, ENTRY_FULL_BYTES / 2, &op->err);
}

static bool got_commit(struct replica_op *op, const void *data, size_t bytes)
{
    struct call *c = call_of(op);
    struct codec_in in = codec_in(data, bytes);
    get_changed(&in, c->batch->slots, c->begun ? 0 : c->batch->slots_count);
    in.bad |= codec_get_u64(&in, c->part) != c->part;
    for (size_t i = 0; i < c->part; i++) {
        struct job_change *change = c->sorted[c->begun + i];
        change->result = (enum change_result)codec_get_u64(&in, CHANGE_RESULT_COUNT_ - 1);
        if (change->result == CHANGE_RESULT_REFUSED)
            (void)snprintf(change->problem, sizeof(change->problem), "a name is not ASCII"); /* short */
    }
    if (!check_answer(op, &in))
        return false;
    c->begun += c->part;
    return c->begun < c->batch->jobs_count;
}

static void answer_commit(struct replica_op *op)
{
    struct call *c = call_of(op);
    struct store_stats *st = &c->store->stats;
    st->commits++;
    st->commit_rows += c->batch->jobs_count;
    st->commit_us += clock_boot_us() - c->began_us;
    c->store->committing = false;
    answer_done(op);
}

void rs_commit(void *self, struct store_batch *batch, store_done *done, void *arg)
{
    struct call *c = call_new(self, put_commit, answer_commit, arg);
    assert(!c->store->committing);
    c->store->committing = true;
    c->op.got = got_commit;
    c->batch = batch;
    c->done = done;
    c->sorted = mem_new_array(struct job_change *, batch->jobs_count + 1);
    if (batch->jobs_count > 0)
        memcpy(c->sorted, batch->jobs, batch->jobs_count * sizeof(struct job_change *));
    qsort(c->sorted, batch->jobs_count, sizeof(struct job_change *), compare_changes);
    replica_submit(c->store->replica, &c->op);
}

static void put_vacuum(struct replica_op *op, struct buf *out)
{
    const struct call *c = call_of(op);
    codec_put_u64(out, RS_VACUUM);
    codec_put_i64(out, c->vacuum.now_ms);
    codec_put_u64(out, c->vacuum.fires_max);
}

/* Nothing: nothing was over, or the leader is one that does not tell yet. */
static bool got_vacuum(struct replica_op *op, const void *data, size_t bytes)
{
    return bytes > 0 && got_yes(op, data, bytes);
}

void rs_vacuum(void *self, const struct store_vacuum *vacuum, store_bool_done *done, void *arg)
{
    struct call *c = call_new(self, put_vacuum, answer_bool, arg);
    c->op.got = got_vacuum;
    c->vacuum = *vacuum;
    c->bool_done = done;
    replica_submit(c->store->replica, &c->op);
}
