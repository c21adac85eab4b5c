/* The leader's work: calls of all agents become entries; what is read is answered when a majority has said that the term stands. */
#include "agent/store/raft/replica_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"

#define READINGS 2 /* of libuv's four threads: the disk needs the others */
#define ROUND_MS 150

static const struct log_ctx log_here = {.module = "raft"};

/* --- tasks --------------------------------------------------------------------------------------------------------- */

static struct replica_task *task_of(struct list *link)
{
    return container_of(link, struct replica_task, link_);
}

struct replica_task *replica_task_new(struct replica *r, enum replica_lane lane)
{
    struct replica_task *t = mem_new(struct replica_task);
    t->replica_ = r;
    t->lane_ = lane;
    list_init(&t->link_);
    buf_init(&t->answer, ENTRY_MAX_BYTES);
    buf_init(&t->asked_, ENTRY_MAX_BYTES);
    return t;
}

static void task_free(struct replica_task *t)
{
    buf_fini(&t->answer);
    buf_fini(&t->asked_);
    mem_free(t);
}

/* What became of it is told; those of a batch stay until all of that are done. */
void replica_task_end(struct replica *r, struct replica_task *t)
{
    struct replica_batch *b = t->batch_;
    if (t->err.code == ERR_OK)
        (void)buf_check(&t->answer, &t->err); /* t->err tells */
    if (b && --b->left > 0)
        return;
    if (b) {
        replica_batch_done(r, b);
        for (size_t i = 0; i < b->count; i++)
            task_free(b->tasks[i]);
        mem_free(b->tasks);
        free(b->body);
        mem_free(b);
        return;
    }
    if (t->op_)
        replica_answered(r, t->op_, &t->err, buf_str(&t->answer), t->answer.len);
    task_free(t);
}

static void end_with(struct replica *r, struct replica_task *t, enum err_code code, const char *text)
{
    (void)err_set(&t->err, code, "%s", text); /* the answer carries it */
    replica_task_end(r, t);
}

/* An own call of the lane of writes. */
static void add_own(struct replica *r, struct replica_op *op)
{
    struct replica_task *t = replica_task_new(r, op->lane);
    t->op_ = op;
    if (op->lane == REPLICA_READ) {
        list_push_back(&r->asked, &t->link_);
        return;
    }
    op->put(op, &t->asked_);
    if (buf_check(&t->asked_, &t->err) < 0) {
        replica_task_end(r, t);
        return;
    }
    t->data = buf_str(&t->asked_);
    t->bytes = t->asked_.len;
    list_push_back(&r->tasks, &t->link_);
}

/* --- entries ------------------------------------------------------------------------------------------------------- */

static void add_flight(struct replica *r, struct replica_task *t)
{
    if (r->flight_count == r->flight_cap) {
        size_t cap = r->flight_cap ? 2 * r->flight_cap : 64;
        struct replica_task **grown = mem_new_array(struct replica_task *, cap);
        if (r->flight_count > 0)
            memcpy(grown, r->flight, r->flight_count * sizeof(struct replica_task *));
        mem_free(r->flight);
        r->flight = grown;
        r->flight_cap = cap;
    }
    r->flight[r->flight_count++] = t;
}

/* What waits becomes one entry; false: nothing has to be written. Answers wait for a majority in r->asked. */
static bool gather(struct replica *r)
{
    const struct replica_service *s = &r->options.service;
    bool last = false;
    r->flight_count = 0;
    entry_begin(&r->entry, machine_seq(r->machine) + 1, r->proposer);
    while (!last && !list_empty(&r->tasks) && r->entry.len < ENTRY_FULL_BYTES) {
        struct replica_task *t = task_of(list_pop_front(&r->tasks));
        enum command_kind kind = COMMAND_LAST_;
        buf_reset(&r->command);
        enum replica_step step = s->encode(s->arg, t, r->machine, &kind, &r->command);
        if (step != REPLICA_ANSWERED && buf_check(&r->command, &t->err) < 0)
            step = REPLICA_ANSWERED;
        if (step == REPLICA_ANSWERED) {
            list_push_back(&r->asked, &t->link_);
            continue;
        }
        last = step == REPLICA_LAST;
        entry_add(&r->entry, kind, &r->command);
        add_flight(r, t);
    }
    return r->flight_count > 0;
}

static void fail_flight(struct replica *r, enum err_code code, const char *text)
{
    size_t count = r->flight_count;
    r->flight_count = 0;
    for (size_t i = 0; i < count; i++)
        end_with(r, r->flight[i], code, text);
}

static void on_applied(struct raft_apply *req, int status, void *result);

/* Nothing happened; the same is asked again at the next tick. libraft has no space when its next segments are not made yet: for
 * a moment under load, or as long as the disk is full. */
static void postpone(struct replica *r)
{
    while (r->flight_count > 0)
        list_push_front(&r->tasks, &r->flight[--r->flight_count]->link_);
    r->in_flight = false;
    r->postponed = true;
}

static void propose(struct replica *r)
{
    struct err e = {0};
    if (entry_end(&r->entry, &e) < 0) {
        fail_flight(r, e.code, e.text);
        return;
    }
    struct raft_buffer buf = {.base = raft_malloc(r->entry.len), .len = r->entry.len};
    if (!buf.base) {
        fail_flight(r, ERR_NOMEM, "out of memory for a log entry");
        return;
    }
    memcpy(buf.base, r->entry.data, r->entry.len);
    r->flight_seq = machine_seq(r->machine) + 1;
    r->flight_ms = clock_boot_ms();
    r->in_flight = true;
    r->apply.data = r;
    int rv = raft_apply(&r->raft, &r->apply, &buf, 1, on_applied);
    if (rv == RAFT_NOSPACE || rv == RAFT_NOTLEADER) {
        raft_free(buf.base);
        postpone(r);
    } else if (rv != 0) {
        r->in_flight = false;
        raft_free(buf.base);
        replica_break(r, raft_errmsg(&r->raft));
        fail_flight(r, ERR_PERMANENT, r->broken.text);
    }
}

void replica_raise(struct replica *r, uint32_t version)
{
    assert(!r->in_flight);
    r->flight_count = 0;
    entry_begin(&r->entry, machine_seq(r->machine) + 1, r->proposer);
    buf_reset(&r->command);
    command_put_version(&r->command, version);
    entry_add(&r->entry, COMMAND_VERSION, &r->command);
    propose(r);
}

static void settle(struct replica *r)
{
    size_t count = r->flight_count;
    r->flight_count = 0;
    for (size_t i = 0; i < count; i++)
        replica_task_end(r, r->flight[i]);
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
    struct replica *r = req->data;
    (void)result; /* told to each task by replica_apply() */
    r->in_flight = false;
    if (status == 0 && r->broken.code == ERR_OK) {
        settle(r);
    } else {
        if (r->state != STATE_CLOSING && !r->mesh)
            replica_break(r, raft_strerror(status));
        fail_flight(r, ERR_UNKNOWN_OUTCOME, "the leader was lost before the entry was durable");
    }
    replica_pump(r);
}

/* --- the state machine --------------------------------------------------------------------------------------------- */

static void on_result(void *arg, size_t command, const struct machine_result *result)
{
    struct replica *r = arg;
    assert(command < r->flight_count);
    r->options.service.applied(r->options.service.arg, r->flight[command], result);
}

static bool is_own(const struct replica *r, const struct raft_buffer *buf)
{
    struct entry entry;
    return r->in_flight && r->flight_count > 0 && entry_open(buf->base, buf->len, &entry, NULL) == 0 &&
           entry.seq == r->flight_seq && entry.proposer == r->proposer;
}

static void count_entry(struct replica *r, size_t bytes)
{
    pthread_mutex_lock(&r->lock);
    r->stats.entries++;
    r->stats.entry_bytes += bytes;
    pthread_mutex_unlock(&r->lock);
}

void replica_apply_now(struct replica *r, const void *data, size_t bytes, machine_result_fn *fn)
{
    struct err e = {0};
    pthread_mutex_lock(&r->machine_lock);
    int rc = machine_apply(r->machine, data, bytes, fn, r, &e);
    pthread_mutex_unlock(&r->machine_lock);
    if (rc < 0) {
        replica_break(r, e.text);
        return;
    }
    r->since_entries++;
    r->since_bytes += bytes;
    r->applied_ms = clock_boot_ms();
    if (fn)
        count_entry(r, bytes);
}

/* Never an error: libraft aborts on one that comes with a message. What is broken answers nobody. */
int replica_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct replica *r = fsm->data;
    *result = NULL;
    if (r->broken.code != ERR_OK)
        return 0;
    if (replica_is_restoring(r))
        replica_apply_later(r, buf->base, buf->len);
    else
        replica_apply_now(r, buf->base, buf->len, is_own(r, buf) ? on_result : NULL);
    return 0;
}

/* --- a majority ---------------------------------------------------------------------------------------------------- */

static void end_asking(struct replica *r)
{
    for (struct list *link; (link = list_pop_front(&r->asking));) {
        struct replica_task *t = task_of(link);
        if (t->lane_ == REPLICA_WRITE || t->op_)
            replica_task_end(r, t); /* an own read looks at the machine itself */
        else
            list_push_back(&r->to_read, &t->link_);
    }
}

static void on_term(void *arg, const struct err *e, enum err_code code, void *body, size_t bytes);

/* Ask every other voter, once for all that waits. */
static void begin_round(struct replica *r)
{
    struct raft_configuration *c = &r->raft.configuration;
    r->round.running = true;
    r->round.number++;
    r->round.yes = 0;
    r->round.began_ms = clock_boot_ms();
    for (unsigned i = 0; i < c->n; i++) {
        struct buf payload = BUF_INIT(64);
        if (r->cut || c->servers[i].id == r->raft.id || c->servers[i].role != RAFT_VOTER)
            continue;
        codec_put_u64(&payload, r->lead_term);
        codec_put_u64(&payload, r->round.number);
        (void)mesh_call(r->mesh, c->servers[i].id, REPLICA_CALL_TERM, &payload, on_term,
                        r); /* or the others */
    }
    pthread_mutex_lock(&r->lock);
    r->stats.rounds++;
    pthread_mutex_unlock(&r->lock);
}

static void confirm(struct replica *r)
{
    uint64_t age_ms = clock_boot_ms() - r->round.began_ms;
    if ((r->round.running && age_ms < ROUND_MS) || (list_empty(&r->asked) && !r->round.running))
        return; /* until libraft steps down one round follows the other */
    list_splice_back(&r->asking, &r->asked);
    r->round.need = replica_majority(r);
    if (r->round.need == 0)
        end_asking(r);
    else
        begin_round(r);
}

static void on_term(void *arg, const struct err *e, enum err_code code, void *body, size_t bytes)
{
    struct replica *r = arg;
    struct codec_in in = codec_in(body, bytes);
    uint64_t number = codec_get_u64(&in, UINT64_MAX);
    bool yes = e->code == ERR_OK && code == ERR_OK && !in.bad;
    free(body);
    if (!r->round.running || !yes || number != r->round.number)
        return;
    r->round.yes += yes;
    if (r->round.yes < r->round.need)
        return;
    r->round.running = false;
    end_asking(r);
    replica_pump(r);
}

/* --- reads of others ----------------------------------------------------------------------------------------------- */

static void read_work(uv_work_t *work)
{
    struct replica_task *t = container_of(work, struct replica_task, work_);
    const struct replica_service *s = &t->replica_->options.service;
    s->read(s->arg, t, t->replica_);
}

static void read_next(struct replica *r);

static void read_done(uv_work_t *work, int status)
{
    struct replica_task *t = container_of(work, struct replica_task, work_);
    struct replica *r = t->replica_;
    r->reading--;
    if (status != 0)
        end_with(r, t, ERR_RETRY, "no thread for it");
    else
        replica_task_end(r, t);
    read_next(r);
}

static void read_next(struct replica *r)
{
    while (r->reading < READINGS && !list_empty(&r->to_read)) {
        struct replica_task *t = task_of(list_pop_front(&r->to_read));
        r->reading++;
        (void)uv_queue_work(&r->uv, &t->work_, read_work, read_done); /* cannot fail with a function */
    }
}

/* --- leading ------------------------------------------------------------------------------------------------------- */

bool replica_leads(const struct replica *r)
{
    return r->ready && r->state == STATE_OPEN;
}

void replica_lead(struct replica *r)
{
    for (struct list *link; (link = list_pop_front(&r->queue));)
        add_own(r, container_of(link, struct replica_op, link));
    while (r->ready && r->broken.code == ERR_OK && !r->in_flight && !r->postponed && !list_empty(&r->tasks))
        if (gather(r))
            propose(r);
    confirm(r);
    read_next(r);
}

static void refuse_list(struct replica *r, struct list *tasks)
{
    struct list now;
    list_init(&now);
    list_splice_back(&now, tasks);
    for (struct list *link; (link = list_pop_front(&now));)
        end_with(r, task_of(link), ERR_RETRY, "another leads");
}

void replica_lead_lost(struct replica *r)
{
    r->ready = false;
    r->round.running = false;
    refuse_list(r, &r->tasks);
    refuse_list(r, &r->asked);
    refuse_list(r, &r->asking);
    refuse_list(r, &r->to_read);
}

static void drop_list(struct replica *r, struct list *tasks, replica_pick *pick, void *arg)
{
    LIST_FOR_SAFE(at, tasks)
    {
        struct replica_task *t = task_of(at);
        if (!t->op_ || !pick(r, t->op_, arg))
            continue;
        list_remove(at);
        task_free(t);
    }
}

void replica_lead_drop(struct replica *r, replica_pick *pick, void *arg)
{
    drop_list(r, &r->tasks, pick, arg);
    drop_list(r, &r->asked, pick, arg);
    drop_list(r, &r->asking, pick, arg);
    for (size_t i = 0; i < r->flight_count; i++) {
        struct replica_task *t = r->flight[i];
        if (!t->op_)
            continue;
        bool before = t->op_->maybe;
        t->op_->maybe = true;
        if (pick(r, t->op_, arg))
            t->op_ = NULL; /* the task stays: its place in the entry counts */
        else
            t->op_->maybe = before;
    }
}

void replica_lead_fini(struct replica *r)
{
    refuse_list(r, &r->tasks);
    refuse_list(r, &r->asked);
    refuse_list(r, &r->asking);
    refuse_list(r, &r->to_read);
    fail_flight(r, ERR_UNKNOWN_OUTCOME, "the store is closed");
}

/* The first command. */
static void on_made(struct raft_apply *req, int status, void *result)
{
    struct replica *r = req->data;
    (void)result;
    r->making = false;
    if (status != 0 && !r->mesh)
        replica_break(r, raft_strerror(status));
}

static void make_store(struct replica *r)
{
    struct err e = {0};
    struct raft_buffer buf = {.len = 0};
    r->making = true;
    entry_begin(&r->entry, machine_seq(r->machine) + 1, r->proposer);
    buf_reset(&r->command);
    command_put_make(&r->command, &r->options.make);
    entry_add(&r->entry, COMMAND_MAKE, &r->command);
    if (entry_end(&r->entry, &e) == 0)
        buf = (struct raft_buffer){.base = raft_malloc(r->entry.len), .len = r->entry.len};
    if (!buf.base) {
        replica_break(r, "out of memory");
        return;
    }
    memcpy(buf.base, r->entry.data, r->entry.len);
    r->apply.data = r;
    int rv = raft_apply(&r->raft, &r->apply, &buf, 1, on_made);
    if (rv == 0)
        return;
    raft_free(buf.base);
    r->making = false;
    if (!r->mesh || (rv != RAFT_NOSPACE && rv != RAFT_NOTLEADER))
        replica_break(r, raft_errmsg(&r->raft));
    r->postponed = true;
}

static void on_barrier(struct raft_barrier *req, int status)
{
    struct replica *r = req->data;
    r->barrier_open = false;
    if (status != 0)
        r->lead_term = 0; /* it is looked at anew */
}

/* A new leader has in its log what the ones before it have promised, but does not know yet that it is so: only behind an entry of its
 * own term it does. */
static void begin_term(struct replica *r, uint64_t term)
{
    if (r->barrier_open || r->postponed)
        return;
    r->barrier.data = r;
    r->barrier_open = true;
    r->lead_term = term;
    r->transferred = false;
    if (raft_barrier(&r->raft, &r->barrier, on_barrier) == 0)
        return;
    r->barrier_open = false;
    r->lead_term = 0;
    r->postponed = true; /* no space yet: again with the next tick */
}

/* Beats are no part of the log, and begin anew: with a number that nobody has seen, so that every observer counts from now. */
static void begin_leading(struct replica *r)
{
    r->ready = true;
    if (!r->mesh)
        return;
    machine_beats_from(r->machine, r->lead_term << 32);
    log_info(&log_here, "leads the log", "term=%llu entry=%llu", (unsigned long long)r->lead_term,
             (unsigned long long)machine_seq(r->machine));
}

void replica_look_lead(struct replica *r)
{
    bool open = r->state == STATE_OPEN || (r->state == STATE_OPENING && !r->mesh);
    bool leads = open && r->voting && r->broken.code == ERR_OK && raft_state(&r->raft) == RAFT_LEADER;
    uint64_t term = leads ? raft_current_term(&r->raft) : 0;
    if (r->lead_term != 0 && r->lead_term != term) {
        if (r->ready)
            log_warn(&log_here, "leads the log no more", "term=%llu", (unsigned long long)r->lead_term);
        r->lead_term = 0;
        replica_lead_lost(r);
    }
    if (!leads || (!r->mesh && raft_last_applied(&r->raft) != raft_last_index(&r->raft)))
        return;
    if (r->lead_term == 0 && !r->mesh)
        r->lead_term = term; /* nobody else has written */
    else if (r->lead_term == 0)
        begin_term(r, term);
    if (r->lead_term == 0 || r->barrier_open || r->ready || r->making || r->in_flight ||
        replica_is_restoring(r))
        return;
    if (machine_meta(r->machine)->schema == 0 && !r->postponed)
        make_store(r);
    else if (machine_meta(r->machine)->schema != 0)
        begin_leading(r);
}
