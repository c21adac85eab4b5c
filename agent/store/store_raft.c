#include "agent/store/store_raft.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/base/option.h"
#include "agent/base/rng.h"
#include "agent/store/raft/folder.h"
#include "agent/store/store_raft_private.h"

#define SCHEMA         STORE_RAFT_SCHEMA
#define SNAPSHOT_BYTES ((uint64_t)64 << 20)
#define PATIENCE_MS    5000
#define READERS        2

static const struct log_ctx log_store = {.module = "store"};

/* --- options ------------------------------------------------------------------------------------------------------- */

#define AT(field) offsetof(struct store_raft_options, field)

static const struct option_row option_rows[] = {
    {.key = "store.raft.dir",
     .type = OPTION_PATH,
     .offset = AT(dir),
     .help =
         "Folder of the log and its snapshots; raft under agent.data_dir if not given. Each agent needs its own."},
    {.key = "store.raft.snapshot_entries",
     .type = OPTION_INT,
     .offset = AT(snapshot_entries),
     .def = "65536",
     .min = 16,
     .max = 10000000,
     .help = "A snapshot is written, and the log before it dropped, at the latest after so many writes."},
    {.key = NULL}};

/* --- calls --------------------------------------------------------------------------------------------------------- */

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
    size_t begun, part;         /* decided; in the command under way */
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

static struct call *call_new(void *self,
                             enum replica_step (*encode)(struct replica_op *, struct machine *,
                                                         enum command_kind *, struct buf *),
                             void (*done)(struct replica_op *), void *arg)
{
    struct call *c = mem_new(struct call);
    c->store = self;
    c->op.encode = encode;
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

static void fenced(struct replica_op *op)
{
    (void)err_set(&op->err, ERR_FENCED, "this member was declared dead"); /* the answer carries it */
}

/* Most commands tell only whether they were fenced. */
static void apply_fence(struct replica_op *op, const struct machine_result *result)
{
    if (result->code == ERR_FENCED)
        fenced(op);
}

static void answer_done(struct replica_op *op)
{
    struct call *c = call_of(op);
    rs_note(c->store, &op->err);
    c->done(c->arg, &op->err);
    call_free(c);
}

/* --- members ------------------------------------------------------------------------------------------------------- */

/* Who has the lock on the folder is alone: the members of earlier processes are dead, and their slots free at once. */
static enum replica_step encode_join(struct replica_op *op, struct machine *m, enum command_kind *ret_kind,
                                     struct buf *out)
{
    const struct store_member *present = machine_member(m, call_of(op)->me->id);
    if (present) {
        if (present->dead)
            fenced(op);
        return REPLICA_ANSWERED;
    }
    *ret_kind = COMMAND_JOIN;
    command_put_join(out, call_of(op)->me, !call_of(op)->store->joined, call_of(op)->now_ms);
    return REPLICA_WHOLE;
}

static void apply_join(struct replica_op *op, const struct machine_result *result)
{
    call_of(op)->store->joined = true;
    apply_fence(op, result);
}

static void rs_join(void *self, const struct store_member *me, store_done *done, void *arg)
{
    struct call *c = call_new(self, encode_join, answer_done, arg);
    c->op.applied = apply_join;
    c->me = me;
    c->now_ms = c->store->now_ms(c->store->arg);
    c->done = done;
    replica_submit(c->store->replica, &c->op);
}

static void copy_slots(struct call *c, const struct machine *m, const char *owner)
{
    c->slots_found = mem_new_array(struct store_slot, machine_meta(m)->slots + 1);
    c->found = machine_slots(m, owner, c->slots_found);
}

/* Nothing of a beat is written: nobody else can take what the lock on the folder keeps. It comes after what was asked for before
 * it, so it also tells that the disk takes writes. */
static enum replica_step encode_beat(struct replica_op *op, struct machine *m, enum command_kind *ret_kind,
                                     struct buf *out)
{
    struct call *c = call_of(op);
    (void)ret_kind;
    (void)out;
    c->beat.alive = machine_beat(m, c->member);
    c->beat.store_now_ms = clock_wall_ms();
    c->members = mem_new_array(struct store_member, machine_members_max(m) + 1);
    c->beat.members_count = machine_members(m, c->beat.store_now_ms, c->members);
    c->beat.members = c->members;
    copy_slots(c, m, c->member);
    c->beat.slots = c->slots_found;
    c->beat.slots_count = c->found;
    return REPLICA_ANSWERED;
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

static void rs_beat(void *self, const char *member, store_beat_done *done, void *arg)
{
    struct call *c = call_new(self, encode_beat, answer_beat, arg);
    name_member(c, member);
    c->beat_done = done;
    c->beat.sent_boot_ms = (int64_t)clock_boot_ms();
    replica_submit(c->store->replica, &c->op);
}

static enum replica_step encode_declare(struct replica_op *op, struct machine *m, enum command_kind *ret_kind,
                                        struct buf *out)
{
    struct call *c = call_of(op);
    const struct store_member *victim = machine_member(m, c->member);
    c->yes = !victim || victim->dead;
    if (c->yes || (c->seen_beat != UINT64_MAX && c->seen_beat != victim->beat))
        return REPLICA_ANSWERED;
    *ret_kind = COMMAND_DECLARE;
    command_put_declare(out, c->member, c->now_ms);
    return REPLICA_WHOLE;
}

static void apply_declare(struct replica_op *op, const struct machine_result *result)
{
    call_of(op)->yes = result->code == ERR_OK;
}

static void answer_bool(struct replica_op *op)
{
    struct call *c = call_of(op);
    rs_note(c->store, &op->err);
    c->bool_done(c->arg, &op->err, is_ok(c) && c->yes);
    call_free(c);
}

static void rs_declare_dead(void *self, const char *victim, uint64_t seen_beat, store_bool_done *done,
                            void *arg)
{
    struct call *c = call_new(self, encode_declare, answer_bool, arg);
    name_member(c, victim);
    c->op.applied = apply_declare;
    c->seen_beat = seen_beat;
    c->bool_done = done;
    c->now_ms = c->store->now_ms(c->store->arg);
    replica_submit(c->store->replica, &c->op);
}

/* --- slots --------------------------------------------------------------------------------------------------------- */

static enum replica_step encode_slots(struct replica_op *op, struct machine *m, enum command_kind *ret_kind,
                                      struct buf *out)
{
    struct call *c = call_of(op);
    (void)m;
    *ret_kind = COMMAND_SLOTS;
    command_put_slots(out, c->member, c->slots, c->slots_count);
    return REPLICA_WHOLE;
}

static void apply_slots(struct replica_op *op, const struct machine_result *result)
{
    struct call *c = call_of(op);
    if (result->code == ERR_FENCED) {
        fenced(op);
        return;
    }
    for (size_t i = 0; i < result->slots_count; i++)
        c->slots[i].changed = result->slots[i];
}

static void rs_slots_change(void *self, const char *member, struct slot_change *slots, size_t count,
                            store_done *done, void *arg)
{
    struct call *c = call_new(self, encode_slots, answer_done, arg);
    name_member(c, member);
    c->op.applied = apply_slots;
    c->slots = slots;
    c->slots_count = count;
    c->done = done;
    replica_submit(c->store->replica, &c->op);
}

static enum replica_step encode_slots_read(struct replica_op *op, struct machine *m,
                                           enum command_kind *ret_kind, struct buf *out)
{
    (void)ret_kind;
    (void)out;
    copy_slots(call_of(op), m, NULL);
    return REPLICA_ANSWERED;
}

static void answer_slots(struct replica_op *op)
{
    struct call *c = call_of(op);
    rs_note(c->store, &op->err);
    c->slots_done(c->arg, &op->err, is_ok(c) ? c->slots_found : NULL, is_ok(c) ? c->found : 0);
    call_free(c);
}

static void rs_slots_read(void *self, store_slots_done *done, void *arg)
{
    struct call *c = call_new(self, encode_slots_read, answer_slots, arg);
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
static enum replica_step encode_commit(struct replica_op *op, struct machine *m, enum command_kind *ret_kind,
                                       struct buf *out)
{
    struct call *c = call_of(op);
    const struct store_batch *b = c->batch;
    (void)m;
    *ret_kind = COMMAND_COMMIT;
    c->part =
        command_put_commit(out, b->member, b->slots, c->begun ? 0 : b->slots_count, c->sorted + c->begun,
                           b->jobs_count - c->begun, ENTRY_FULL_BYTES / 2, &op->err);
    return c->begun + c->part < b->jobs_count ? REPLICA_PART : REPLICA_WHOLE;
}

static void apply_commit(struct replica_op *op, const struct machine_result *result)
{
    struct call *c = call_of(op);
    if (result->code == ERR_FENCED) {
        fenced(op);
        return;
    }
    for (size_t i = 0; i < result->slots_count; i++)
        c->batch->slots[i].changed = result->slots[i];
    assert(result->changes_count == c->part);
    for (size_t i = 0; i < c->part; i++) {
        struct job_change *change = c->sorted[c->begun + i];
        change->result = (enum change_result)result->changes[i];
        if (change->result == CHANGE_RESULT_REFUSED)
            (void)snprintf(change->problem, sizeof(change->problem), "a name is not ASCII"); /* short */
    }
    c->begun += c->part;
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

static void rs_commit(void *self, struct store_batch *batch, store_done *done, void *arg)
{
    struct call *c = call_new(self, encode_commit, answer_commit, arg);
    assert(!c->store->committing);
    c->store->committing = true;
    c->op.applied = apply_commit;
    c->batch = batch;
    c->done = done;
    c->sorted = mem_new_array(struct job_change *, batch->jobs_count + 1);
    if (batch->jobs_count > 0)
        memcpy(c->sorted, batch->jobs, batch->jobs_count * sizeof(struct job_change *));
    qsort(c->sorted, batch->jobs_count, sizeof(struct job_change *), compare_changes);
    replica_submit(c->store->replica, &c->op);
}

/* Nothing is written when there is nothing to forget. */
static enum replica_step encode_vacuum(struct replica_op *op, struct machine *m, enum command_kind *ret_kind,
                                       struct buf *out)
{
    struct call *c = call_of(op);
    struct machine_cut cuts[MACHINE_SWEEP_JOBS];
    size_t count = machine_sweep(m, c->vacuum.fires_max, &c->store->swept, cuts);
    if (count == 0 && !machine_wants_vacuum(m, c->vacuum.now_ms))
        return REPLICA_ANSWERED;
    *ret_kind = COMMAND_VACUUM;
    command_put_vacuum(out, c->vacuum.now_ms, cuts, count);
    return REPLICA_WHOLE;
}

static void rs_vacuum(void *self, const struct store_vacuum *vacuum, store_done *done, void *arg)
{
    struct call *c = call_new(self, encode_vacuum, answer_done, arg);
    c->op.applied = apply_fence;
    c->vacuum = *vacuum;
    c->done = done;
    replica_submit(c->store->replica, &c->op);
}

/* --- open, close --------------------------------------------------------------------------------------------------- */

static void rs_close(void *self)
{
    struct store_raft *s = self;
    if (s->readers)
        worker_pool_free(s->readers);
    if (s->replica)
        replica_close(s->replica);
    fd_close(s->lock_fd);
    mem_free(s->options.dir);
    mem_free(s);
}

static int open_replica(struct store_raft *s, const struct store_open_args *args, struct err *e)
{
    struct replica_options options = {
        .loop = args->loop,
        .dir = s->options.dir,
        .make = {.slots = args->slots, .created_ms = s->now_ms(s->arg), .schema = SCHEMA},
        .snapshot_entries = (uint64_t)s->options.snapshot_entries,
        .snapshot_bytes = SNAPSHOT_BYTES,
        .patience_ms = PATIENCE_MS};
    assert(strlen(args->cluster) < sizeof(options.make.cluster));
    memcpy(options.make.cluster, args->cluster, strlen(args->cluster) + 1);
    int r = rng_os_bytes(options.make.secret, sizeof(options.make.secret), e);
    if (r < 0)
        return r;
    return replica_open(&options, &s->replica, e);
}

static int check_meta(const struct store_raft *s, const struct store_meta *meta, const char *cluster,
                      struct err *e)
{
    if (meta->schema > SCHEMA)
        return err_set(e, ERR_PERMANENT, "%.100s was written by a newer carillon (schema %u)", s->options.dir,
                       meta->schema);
    if (strcmp(meta->cluster, cluster) != 0)
        return err_set(e, ERR_PERMANENT, "%.60s belongs to cluster '%s', not '%s'", s->options.dir,
                       meta->cluster, cluster);
    return 0;
}

static int check_folder(const char *dir, struct err *e)
{
    struct err why = {0};
    int r = folder_check(dir, &why);
    if (r == -ERR_PROTOCOL)
        return err_set(e, ERR_PERMANENT,
                       "%.60s cannot be used: %.80s. Put a copy of it back, or move it away to begin empty",
                       dir, why.text);
    return r < 0 ? err_set(e, why.code, "%s", why.text) : 0;
}

static int open_parts(struct store_raft *s, const struct store_open_args *args, struct store_meta *ret_meta,
                      struct err *e)
{
    int r = folder_lock(s->options.dir, &s->lock_fd, e);
    if (r == 0)
        r = check_folder(s->options.dir, e);
    if (r == 0)
        r = open_replica(s, args, e);
    if (r < 0)
        return r;
    *ret_meta = *machine_meta(replica_lock(s->replica));
    replica_unlock(s->replica);
    r = check_meta(s, ret_meta, args->cluster, e);
    if (r == 0)
        r = worker_pool_new(args->loop, "store-read", READERS, NULL, NULL, NULL, &s->readers, e);
    return r;
}

static int rs_open(const struct store_open_args *args, void **ret_self, struct store_meta *ret_meta,
                   struct err *e)
{
    const struct store_raft_options *options = args->options;
    struct store_raft *s = mem_new(struct store_raft);
    struct store_meta meta;
    struct err own = {0};
    assert(options->dir);
    s->options = *options;
    s->options.dir = mem_strdup(options->dir);
    s->zones = args->zones;
    s->now_ms = args->now_ms;
    s->arg = args->arg;
    s->lock_fd = -1;
    if (open_parts(s, args, &meta, &own) < 0) {
        rs_close(s);
        return err_set(e, own.code, "%s", own.text);
    }
    s->stats.ok = true;
    s->stats.since_ms = s->now_ms(s->arg);
    *ret_meta = meta;
    *ret_self = s;
    return 0;
}

static const struct store_stats *rs_stats(void *self)
{
    struct store_raft *s = self;
    struct replica_stats stats;
    replica_stats(s->replica, &stats);
    s->stats.queue = (uint32_t)(stats.queue + worker_queue_length(s->readers));
    return &s->stats;
}

void store_raft_stats(void *self, struct replica_stats *ret)
{
    replica_stats(((struct store_raft *)self)->replica, ret);
}

void store_raft_snapshot(void *self)
{
    replica_ask_snapshot(((struct store_raft *)self)->replica);
}

const struct store_ops store_raft = {
    .name = "raft",
    .options = option_rows,
    .options_size = sizeof(struct store_raft_options),
    .open = rs_open,
    .close = rs_close,
    .join = rs_join,
    .beat = rs_beat,
    .declare_dead = rs_declare_dead,
    .slots_change = rs_slots_change,
    .slots_read = rs_slots_read,
    .commit = rs_commit,
    .load_jobs = rs_load_jobs,
    .load_fires = rs_load_fires,
    .get_jobs = rs_get_jobs,
    .get_fires = rs_get_fires,
    .list_jobs = rs_list_jobs,
    .list_fires = rs_list_fires,
    .get_copy = rs_get_copy,
    .count_dead = rs_count_dead,
    .find_change = rs_find_change,
    .list_revisions = rs_list_revisions,
    .vacuum = rs_vacuum,
    .stats = rs_stats,
};
