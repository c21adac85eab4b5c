/* The lane of writes on the side of who leads: what was asked becomes a command, or is answered from the state. */
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/store/raft/codec.h"
#include "agent/store/store_raft_private.h"

static enum replica_step refuse(struct replica_task *t)
{
    (void)err_set(&t->err, ERR_PERMANENT,
                  "the leader cannot read what it is asked: another version of carillon");
    return REPLICA_ANSWERED;
}

static void fenced(struct replica_task *t)
{
    (void)err_set(&t->err, ERR_FENCED, "this member was declared dead"); /* the answer carries it */
}

static enum replica_step encode_join(struct rs_leader *l, struct replica_task *t, struct codec_in *in,
                                     const struct machine *m, struct buf *out)
{
    struct store_member me = {0};
    codec_get_row(in, codec_member(), &me, CODEC_ALL);
    int64_t at_ms = codec_get_i64(in);
    if (in->bad)
        return refuse(t);
    const struct store_member *present = machine_member(m, me.id);
    if (present && present->dead)
        fenced(t);
    if (present)
        return REPLICA_ANSWERED;
    command_put_join(out, &me, l->alone && !l->joined, at_ms);
    return REPLICA_COMMAND;
}

/* The sender's own clock comes last; agents before this do not tell it. */
static void note_clock(struct rs_leader *l, const struct replica_task *t, struct codec_in *in,
                       const char *member, int64_t boot_ms)
{
    int64_t wall_ms = in->at < in->end ? codec_get_i64(in) : RECORD_NONE;
    if (!in->bad && wall_ms >= 0 && wall_ms <= TEXT_INSTANT_MAX_MS && !replica_task_own(t))
        clocks_note(&l->clocks, member, wall_ms, boot_ms);
}

/* What the beat is told of the time at BOOT_MS. Before this leader knows the others' clocks it believes its own no more than
 * they would. */
static int64_t tell_time(const struct rs_leader *l, const struct replica_task *t,
                         const struct store_member *members, size_t count, int64_t boot_ms)
{
    int64_t wall_ms = clock_wall_ms(), ret_ms;
    size_t alive = 0;
    for (size_t i = 0; i < count; i++)
        alive += !members[i].dead;
    if (clocks_tell(&l->clocks, alive, wall_ms, boot_ms, &ret_ms))
        return ret_ms;
    return replica_task_own(t) ? RECORD_NONE : wall_ms;
}

static void put_members(struct replica_task *t, const struct store_member *members, size_t count)
{
    codec_put_u64(&t->answer, count);
    for (size_t i = 0; i < count; i++) {
        codec_put_row(&t->answer, codec_member(), &members[i], CODEC_ALL);
        codec_put_u64(&t->answer, members[i].beat);
        codec_put_u64(&t->answer, members[i].dead);
    }
}

/* Nothing of a beat is written. It is counted here, and answered when a majority has said that this leader's term stood after that:
 * so nobody whom another leader has declared dead is told that it lives. */
static enum replica_step encode_beat(struct rs_leader *l, struct replica_task *t, struct codec_in *in,
                                     struct machine *m)
{
    char member[RECORD_MEMBER_MAX];
    int64_t boot_ms = (int64_t)clock_boot_ms();
    codec_get_text(in, member, sizeof(member));
    if (in->bad)
        return refuse(t);
    bool alive = machine_beat(m, member);
    if (alive)
        note_clock(l, t, in, member, boot_ms);
    struct store_member *members = mem_new_array(struct store_member, machine_members_max(m) + 1);
    size_t members_count = machine_members(m, clock_wall_ms(), members);
    codec_put_u64(&t->answer, alive);
    codec_put_i64(&t->answer, tell_time(l, t, members, members_count, boot_ms));
    put_members(t, members, members_count);
    mem_free(members);
    struct store_slot *slots = mem_new_array(struct store_slot, machine_meta(m)->slots + 1);
    size_t count = machine_slots(m, member, slots);
    codec_put_u64(&t->answer, count);
    for (size_t i = 0; i < count; i++) {
        codec_put_u64(&t->answer, slots[i].slot);
        codec_put_u64(&t->answer, slots[i].epoch);
    }
    mem_free(slots);
    return REPLICA_ANSWERED;
}

/* The last of its entry: no beat of the victim is counted, and answered with "alive", while it dies. */
static enum replica_step encode_declare(struct replica_task *t, struct codec_in *in, const struct machine *m,
                                        struct buf *out)
{
    char id[RECORD_MEMBER_MAX];
    codec_get_text(in, id, sizeof(id));
    uint64_t seen = codec_get_u64(in, UINT64_MAX);
    int64_t at_ms = codec_get_i64(in);
    if (in->bad)
        return refuse(t);
    const struct store_member *victim = machine_member(m, id);
    bool dead = !victim || victim->dead;
    if (dead || (seen != UINT64_MAX && seen != victim->beat)) {
        codec_put_u64(&t->answer, dead);
        return REPLICA_ANSWERED;
    }
    command_put_declare(out, id, at_ms);
    return REPLICA_LAST;
}

static enum replica_step encode_slots_read(struct replica_task *t, const struct machine *m)
{
    struct store_slot *slots = mem_new_array(struct store_slot, machine_meta(m)->slots + 1);
    size_t count = machine_slots(m, NULL, slots);
    codec_put_u64(&t->answer, count);
    for (size_t i = 0; i < count; i++) {
        bool same = i > 0 && strcmp(slots[i].owner, slots[i - 1].owner) == 0;
        codec_put_u64(&t->answer, slots[i].slot);
        codec_put_u64(&t->answer, slots[i].epoch);
        codec_put_u64(&t->answer, same);
        if (!same)
            codec_put_text(&t->answer, slots[i].owner);
    }
    mem_free(slots);
    return REPLICA_ANSWERED;
}

/* What cannot be read must not get into the log: it would stop every voter. */
static enum replica_step encode_raw(struct replica_task *t, const struct codec_in *in, enum command_kind kind,
                                    struct buf *out)
{
    size_t bytes = (size_t)(in->end - in->at);
    if (!replica_task_own(t) && !command_check(kind, in->at, bytes))
        return refuse(t);
    buf_add(out, in->at, bytes);
    return REPLICA_COMMAND;
}

/* Nothing is written when there is nothing to forget. */
static enum replica_step encode_vacuum(struct rs_leader *l, struct replica_task *t, struct codec_in *in,
                                       const struct machine *m, struct buf *out)
{
    struct machine_cut cuts[MACHINE_SWEEP_JOBS];
    int64_t now_ms = codec_get_i64(in);
    uint32_t fires_max = (uint32_t)codec_get_u64(in, UINT32_MAX);
    if (in->bad)
        return refuse(t);
    size_t count = machine_sweep(m, fires_max, &l->swept, cuts);
    if (count == 0 && !machine_wants_vacuum(m, now_ms))
        return REPLICA_ANSWERED;
    command_put_vacuum(out, now_ms, cuts, count);
    return REPLICA_COMMAND;
}

static enum rs_kind kind_of(const struct replica_task *t, struct codec_in *ret_in)
{
    *ret_in = codec_in(t->data, t->bytes);
    return (enum rs_kind)codec_get_u64(ret_in, RS_KIND_LAST_);
}

enum replica_step rs_encode(void *arg, struct replica_task *t, struct machine *m, enum command_kind *ret_kind,
                            struct buf *out)
{
    static const enum command_kind commands[] = {[RS_JOIN] = COMMAND_JOIN,
                                                 [RS_DECLARE] = COMMAND_DECLARE,
                                                 [RS_SLOTS] = COMMAND_SLOTS,
                                                 [RS_COMMIT] = COMMAND_COMMIT,
                                                 [RS_VACUUM] = COMMAND_VACUUM};
    struct codec_in in;
    enum rs_kind kind = kind_of(t, &in);
    *ret_kind = commands[kind];
    switch (kind) {
    case RS_JOIN:
        return encode_join(arg, t, &in, m, out);
    case RS_BEAT:
        return encode_beat(arg, t, &in, m);
    case RS_DECLARE:
        return encode_declare(t, &in, m, out);
    case RS_SLOTS:
        return encode_raw(t, &in, COMMAND_SLOTS, out);
    case RS_SLOTS_READ:
        return encode_slots_read(t, m);
    case RS_COMMIT:
        return encode_raw(t, &in, COMMAND_COMMIT, out);
    case RS_VACUUM:
        return encode_vacuum(arg, t, &in, m, out);
    }
    return refuse(t);
}

static void put_changed(struct buf *out, const struct machine_result *result)
{
    codec_put_u64(out, result->slots_count);
    for (size_t i = 0; i < result->slots_count; i++)
        codec_put_u64(out, result->slots[i]);
}

void rs_applied(void *arg, struct replica_task *t, const struct machine_result *result)
{
    struct rs_leader *l = arg;
    struct codec_in in;
    enum rs_kind kind = kind_of(t, &in);
    l->joined |= kind == RS_JOIN;
    if (kind == RS_DECLARE) {
        codec_put_u64(&t->answer, result->code == ERR_OK);
        return;
    }
    if (result->code == ERR_FENCED) {
        fenced(t);
        return;
    }
    if (kind == RS_VACUUM)
        codec_put_u64(&t->answer, 1); /* what it took is not told: the next one that finds nothing says so */
    if (kind == RS_SLOTS || kind == RS_COMMIT)
        put_changed(&t->answer, result);
    if (kind != RS_COMMIT)
        return;
    codec_put_u64(&t->answer, result->changes_count);
    for (size_t i = 0; i < result->changes_count; i++)
        codec_put_u64(&t->answer, result->changes[i]);
}
