/* Calls to whoever leads, and from others: what waits travels in one call, and is answered in one. */
#include "agent/store/raft/replica_private.h"

#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"

static const struct log_ctx log_here = {.module = "raft"};

#define BATCH_CALLS 1000 /* of a batch at most */
#define BATCH_BYTES ((size_t)1 << 20)
#define BATCH_MAX   ((size_t)320 << 20) /* and whatever its last call needs */
/* Batches under way: writes one after the other, so that more of them travel together. */
static const size_t forwards_max[REPLICA_LANE_COUNT_] = {[REPLICA_WRITE] = 1, [REPLICA_READ] = 4};

#define TASKS_MAX   20000 /* calls of others that wait here; more are put off */
#define WHO_MS      250
#define WHO_LOST_MS 50

struct forward {
    struct list link;
    struct replica *r;
    enum replica_lane lane;
    uint64_t call, to;
    size_t count;
    struct replica_op *ops[BATCH_CALLS]; /* NULL: nobody waits for it any more */
};

/* --- to the leader ------------------------------------------------------------------------------------------------- */

/* libraft's own view and what others say: the later term counts, but that of a voter who is none any more counts nothing. */
static uint64_t leader_known(const struct replica *r)
{
    bool voter = r->voting && r->member && !r->removed;
    uint64_t term = voter ? raft_current_term(&r->raft) : 0;
    raft_id id = 0;
    const char *address;
    if (r->voting && !r->removed)
        raft_leader((struct raft *)&r->raft, &id, &address);
    if (id != 0 && raft_current_term(&r->raft) >= r->hint.term)
        return id;
    return r->hint.term >= term ? r->hint.id : 0;
}

uint64_t replica_leader(const struct replica *r)
{
    uint64_t id = leader_known(r);
    if (id == 0 || !r->mesh || r->cut)
        return 0;
    return (r->voting && id == r->raft.id) || mesh_reaches(r->mesh, id) ? id : 0;
}

static void forward_free(struct forward *f)
{
    list_remove(&f->link);
    f->r->forwards_count[f->lane]--;
    mem_free(f);
}

/* Again to whoever leads then. */
static void put_back(struct replica *r, struct forward *f, enum err_code code)
{
    struct err e = {0};
    (void)err_set(&e, code, "the leader was lost"); /* the op is asked again */
    for (size_t i = f->count; i-- > 0;)
        if (f->ops[i])
            replica_answered(r, f->ops[i], &e, NULL, 0);
}

static void keep_body(struct replica_op *op, const void *data, size_t bytes, struct err *e)
{
    op->body = mem_try_alloc(bytes + 1, e);
    if (!op->body)
        return;
    memcpy(op->body, data, bytes);
    op->body_bytes = bytes;
}

static void read_answer(struct replica *r, struct replica_op *op, struct codec_in *in)
{
    struct err e = {0};
    size_t bytes;
    enum err_code code = (enum err_code)codec_get_u64(in, ERR_COUNT_ - 1);
    const void *data = codec_get_bytes(in, &bytes);
    if (in->bad)
        (void)err_set(&e, ERR_UNKNOWN_OUTCOME, "the leader's answer cannot be read"); /* asked again */
    else if (code != ERR_OK)
        (void)err_set(&e, code, "%.*s", (int)(bytes < 190 ? bytes : 190),
                      (const char *)data); /* the answer */
    if (!op)
        return;
    if (e.code == ERR_OK && op->lane == REPLICA_READ)
        keep_body(op, data, bytes, &e);
    replica_answered(r, op, &e, data, bytes);
}

static void on_forwarded(void *arg, const struct err *e, enum err_code code, void *body, size_t bytes)
{
    struct forward *f = arg;
    struct replica *r = f->r;
    struct codec_in in = codec_in(body, bytes);
    if (e->code != ERR_OK || code != ERR_OK) {
        bool nothing = e->code == ERR_OK && (code == ERR_NOT_LEADER || code == ERR_BUSY);
        put_back(r, f, nothing ? ERR_RETRY : ERR_UNKNOWN_OUTCOME);
        r->postponed = true; /* it may not know yet that another leads */
        r->hint.asked_ms = 0;
    } else {
        for (size_t i = 0; i < f->count; i++)
            read_answer(r, f->ops[i], &in);
    }
    free(body);
    forward_free(f);
    replica_pump(r);
}

static void fill(struct replica *r, struct forward *f, struct buf *payload)
{
    struct buf one;
    buf_init(&one, ENTRY_MAX_BYTES);
    LIST_FOR_SAFE(at, &r->queue)
    {
        struct replica_op *op = container_of(at, struct replica_op, link);
        if (op->lane != f->lane)
            continue;
        if (f->count == BATCH_CALLS || payload->len >= BATCH_BYTES)
            break;
        list_remove(at);
        buf_reset(&one);
        op->put(op, &one);
        if (buf_check(&one, &op->err) < 0) {
            replica_finish(r, op);
            continue;
        }
        codec_put_bytes(payload, buf_str(&one), one.len);
        f->ops[f->count++] = op;
    }
    buf_fini(&one);
}

/* False: nothing of this lane waits, or it cannot be sent. */
static bool forward_lane(struct replica *r, enum replica_lane lane, uint64_t to)
{
    struct buf payload = BUF_INIT(BATCH_MAX);
    struct forward *f = mem_new(struct forward);
    f->r = r;
    f->lane = lane;
    f->to = to;
    list_push_back(&r->forwards, &f->link);
    r->forwards_count[lane]++;
    fill(r, f, &payload);
    if (f->count > 0 && !buf_failed(&payload))
        f->call = mesh_call(r->mesh, to, lane == REPLICA_WRITE ? REPLICA_CALL_WRITE : REPLICA_CALL_READ,
                            &payload, on_forwarded, f);
    if (f->call != 0) {
        pthread_mutex_lock(&r->lock);
        r->stats.forwards++;
        pthread_mutex_unlock(&r->lock);
        return true;
    }
    put_back(r, f, ERR_RETRY);
    buf_fini(&payload);
    forward_free(f);
    return false;
}

static bool waits(const struct replica *r, enum replica_lane lane)
{
    LIST_FOR (at, &r->queue)
        if (container_of(at, struct replica_op, link)->lane == lane)
            return true;
    return false;
}

/* What was sent to who leads no more is sent again: an answer may never come. */
static void take_back(struct replica *r, uint64_t leader)
{
    LIST_FOR_SAFE(at, &r->forwards)
    {
        struct forward *f = container_of(at, struct forward, link);
        if (f->to == leader)
            continue;
        mesh_forget(r->mesh, f->call);
        put_back(r, f, ERR_UNKNOWN_OUTCOME);
        forward_free(f);
    }
}

void replica_forward(struct replica *r)
{
    uint64_t leader = replica_leader(r);
    if (leader == 0 || (r->voting && leader == r->raft.id))
        return;
    take_back(r, leader);
    for (unsigned lane = 0; lane < REPLICA_LANE_COUNT_; lane++)
        while (!r->postponed && r->forwards_count[lane] < forwards_max[lane] && waits(r, lane))
            if (!forward_lane(r, lane, leader))
                break;
}

void replica_forward_drop(struct replica *r, replica_pick *pick, void *arg)
{
    LIST_FOR (at, &r->forwards) {
        struct forward *f = container_of(at, struct forward, link);
        for (size_t i = 0; i < f->count; i++) {
            struct replica_op *op = f->ops[i];
            bool before = op && op->maybe;
            if (!op)
                continue;
            op->maybe |= f->lane == REPLICA_WRITE;
            if (pick(r, op, arg))
                f->ops[i] = NULL;
            else
                op->maybe = before;
        }
    }
}

/* --- who leads ----------------------------------------------------------------------------------------------------- */

static void get_meta(struct codec_in *in, struct store_meta *meta)
{
    meta->schema = (uint32_t)codec_get_u64(in, UINT32_MAX);
    if (meta->schema == 0)
        return;
    meta->slots = (uint32_t)codec_get_u64(in, UINT16_MAX + 1);
    meta->created_ms = codec_get_i64(in);
    codec_get_text(in, meta->cluster, sizeof(meta->cluster));
    const void *secret = codec_get_raw(in, sizeof(meta->secret));
    if (secret)
        memcpy(meta->secret, secret, sizeof(meta->secret));
}

static void put_meta(struct buf *b, const struct store_meta *meta)
{
    if (meta->schema != 0)
        command_put_make(b, meta);
    else
        codec_put_u64(b, 0);
}

/* Whether the configuration that the leader of TERM tells still has this voter: one who was left behind knows nothing. */
static void look_removed(struct replica *r, const uint64_t *ids, size_t count, uint64_t term)
{
    bool there = false;
    if (!r->voting || count == 0 || term < raft_current_term(&r->raft))
        return;
    for (size_t i = 0; i < count; i++)
        there |= ids[i] == r->raft.id;
    if (!there && r->member && !r->removed) {
        r->removed = true;
        log_warn(&log_here, "is a voter no more", "id=%llu", (unsigned long long)r->raft.id);
    }
}

bool replica_get_who(const void *body, size_t bytes, struct replica_who *ret)
{
    struct codec_in in = codec_in(body, bytes);
    *ret = (struct replica_who){.term = codec_get_u64(&in, UINT64_MAX)};
    ret->leader = codec_get_u64(&in, UINT64_MAX);
    ret->leads = codec_get_u64(&in, 1) != 0;
    get_meta(&in, &ret->meta);
    ret->voters_count = (size_t)codec_get_u64(&in, MESH_NODES_MAX);
    for (size_t i = 0; i < ret->voters_count; i++)
        ret->voters[i] = codec_get_u64(&in, UINT64_MAX);
    ret->version = codec_at_end(&in) ? 1 : (uint32_t)codec_get_u64(&in, UINT32_MAX);
    return !in.bad; /* a newer one may have more to say */
}

static void on_who(void *arg, const struct err *e, enum err_code code, void *body, size_t bytes)
{
    struct replica *r = arg;
    struct replica_who who;
    bool told = e->code == ERR_OK && code == ERR_OK && replica_get_who(body, bytes, &who);
    free(body);
    if (!told)
        return;
    if (who.meta.schema != 0)
        replica_learn(r, &who.meta);
    look_removed(r, who.voters, who.leads ? who.voters_count : 0, who.term);
    /* Who follows may still name the leader of the term before. */
    if (who.leader != 0 &&
        (who.term > r->hint.term || (who.term == r->hint.term && (who.leads || r->hint.id == 0)))) {
        r->hint.term = who.term;
        r->hint.id = who.leader;
        replica_pump(r);
    }
}

/* Voters hear it from libraft, unless nobody talks to them: who is a voter no more is not told. */
static bool is_told(struct replica *r)
{
    struct store_meta meta;
    raft_id id = 0;
    const char *address;
    if (r->voting && !r->removed)
        raft_leader(&r->raft, &id, &address);
    return id != 0 && replica_meta(r, &meta);
}

/* All of them: one that hangs, or was left behind, tells nothing of use. */
void replica_ask_who(struct replica *r)
{
    uint64_t now_ms = clock_boot_ms();
    uint64_t every_ms = replica_leader(r) == 0 ? WHO_LOST_MS : WHO_MS;
    if (r->state != STATE_OPEN || r->cut || is_told(r) || now_ms - r->hint.asked_ms < every_ms)
        return;
    r->hint.asked_ms = now_ms;
    for (size_t i = 0; i < r->wanted_count; i++) {
        struct buf payload = BUF_INIT(16);
        if (!r->voting || r->wanted[i].id != r->raft.id)
            (void)mesh_call(r->mesh, r->wanted[i].id, REPLICA_CALL_WHO, &payload, on_who,
                            r); /* or the next */
    }
}

static void answer_who(struct replica *r, const struct mesh_request *q)
{
    struct buf out = BUF_INIT((size_t)1 << 16);
    const struct raft_configuration *c = &r->raft.configuration;
    raft_id id = 0;
    const char *address;
    bool leads = r->ready;
    if (r->voting)
        raft_leader(&r->raft, &id, &address);
    codec_put_u64(&out, r->voting ? raft_current_term(&r->raft) : 0);
    codec_put_u64(&out, id == r->raft.id && !leads ? 0 : id); /* not before it answers */
    codec_put_u64(&out, leads);
    put_meta(&out, machine_meta(r->machine));
    codec_put_u64(&out, leads && r->raft.configuration_uncommitted_index == 0 ? c->n : 0);
    for (unsigned i = 0; leads && r->raft.configuration_uncommitted_index == 0 && i < c->n; i++)
        codec_put_u64(&out, c->servers[i].id);
    if (STORE_VERSION >= 2)
        codec_put_u64(&out, STORE_VERSION); /* version 1 tells none, and does not look for one */
    mesh_answer(r->mesh, q->peer, q->call, r->voting ? ERR_OK : ERR_UNAVAILABLE, &out);
}

static void answer_term(struct replica *r, const struct mesh_request *q)
{
    struct buf out = BUF_INIT(16);
    struct codec_in in = codec_in(q->body, q->bytes);
    uint64_t term = codec_get_u64(&in, UINT64_MAX), number = codec_get_u64(&in, UINT64_MAX);
    bool stands = r->voting && r->broken.code == ERR_OK && !in.bad && raft_current_term(&r->raft) == term;
    codec_put_u64(&out, number);
    mesh_answer(r->mesh, q->peer, q->call, stands ? ERR_OK : ERR_NOT_LEADER, &out);
}

/* --- from others --------------------------------------------------------------------------------------------------- */

void replica_batch_done(struct replica *r, struct replica_batch *b)
{
    struct buf out = BUF_INIT(BATCH_MAX);
    for (size_t i = 0; i < b->count; i++) {
        const struct replica_task *t = b->tasks[i];
        codec_put_u64(&out, t->err.code);
        if (t->err.code == ERR_OK)
            codec_put_bytes(&out, buf_str(&t->answer), t->answer.len);
        else
            codec_put_text(&out, t->err.text);
    }
    mesh_answer(r->mesh, b->peer, b->call, buf_failed(&out) ? ERR_NOMEM : ERR_OK, &out);
}

static size_t count_calls(const struct mesh_request *q)
{
    struct codec_in in = codec_in(q->body, q->bytes);
    size_t count = 0, bytes;
    while (!codec_at_end(&in)) {
        (void)codec_get_bytes(&in, &bytes);
        count++;
    }
    return in.bad || count > BATCH_CALLS ? 0 : count;
}

static void add_tasks(struct replica *r, struct replica_batch *b, enum replica_lane lane, size_t bytes)
{
    struct codec_in in = codec_in(b->body, bytes);
    for (size_t i = 0; i < b->count; i++) {
        struct replica_task *t = replica_task_new(r, lane);
        t->batch_ = b;
        t->data = codec_get_bytes(&in, &t->bytes);
        b->tasks[i] = t;
        list_push_back(lane == REPLICA_WRITE ? &r->tasks : &r->asked, &t->link_);
    }
}

static bool is_full(const struct replica *r)
{
    return list_length(&r->tasks) + list_length(&r->asked) + list_length(&r->to_read) > TASKS_MAX;
}

static void take_batch(struct replica *r, const struct mesh_request *q, enum replica_lane lane)
{
    size_t count = count_calls(q);
    enum err_code code = !replica_leads(r) ? ERR_NOT_LEADER
                         : count == 0      ? ERR_PROTOCOL
                         : is_full(r)      ? ERR_BUSY
                                           : ERR_OK;
    if (code != ERR_OK) {
        free(q->body);
        mesh_answer(r->mesh, q->peer, q->call, code, NULL);
        return;
    }
    struct replica_batch *b = mem_new(struct replica_batch);
    b->peer = q->peer;
    b->call = q->call;
    b->body = q->body;
    b->count = b->left = count;
    b->tasks = mem_new_array(struct replica_task *, count);
    add_tasks(r, b, lane, q->bytes);
    replica_pump(r);
}

void replica_on_request(void *arg, const struct mesh_request *q)
{
    struct replica *r = arg;
    if (r->cut) {
        free(q->body);
        return;
    }
    if (q->kind == REPLICA_CALL_WRITE || q->kind == REPLICA_CALL_READ) {
        take_batch(r, q, q->kind == REPLICA_CALL_WRITE ? REPLICA_WRITE : REPLICA_READ);
        return;
    }
    if (q->kind == REPLICA_CALL_WHO)
        answer_who(r, q);
    else if (q->kind == REPLICA_CALL_TERM)
        answer_term(r, q);
    else
        mesh_answer(r->mesh, q->peer, q->call, ERR_PROTOCOL, NULL);
    free(q->body);
}
