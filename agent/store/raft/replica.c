#include "agent/store/raft/replica_private.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"

static const struct log_ctx log_here = {.module = "raft"};

/* --- answers ------------------------------------------------------------------------------------------------------- */

static struct replica_op *op_of(struct list *link)
{
    return container_of(link, struct replica_op, link);
}

/* r->lock is held. */
static void post(struct replica *r)
{
    if (!r->msg_posted)
        loop_post(r->options.loop, &r->msg);
    r->msg_posted = true;
}

void replica_finish(struct replica *r, struct replica_op *op)
{
    pthread_mutex_lock(&r->lock);
    list_push_back(&r->done, &op->link);
    r->pending--;
    post(r);
    pthread_mutex_unlock(&r->lock);
}

void replica_finish_with(struct replica *r, struct replica_op *op, enum err_code code, const char *text)
{
    if (op->maybe && (code == ERR_UNAVAILABLE || code == ERR_PERMANENT))
        code = ERR_UNKNOWN_OUTCOME;
    (void)err_set(&op->err, code, "%s", text); /* the answer carries it */
    replica_finish(r, op);
}

static void ask_again(struct replica *r, struct replica_op *op, bool maybe)
{
    op->maybe |= maybe && op->lane == REPLICA_WRITE;
    list_push_front(&r->queue, &op->link);
    pthread_mutex_lock(&r->lock);
    r->stats.repeats++;
    pthread_mutex_unlock(&r->lock);
}

void replica_answered(struct replica *r, struct replica_op *op, const struct err *err, const void *data,
                      size_t bytes)
{
    if (err->code == ERR_RETRY || err->code == ERR_UNKNOWN_OUTCOME) {
        ask_again(r, op, err->code == ERR_UNKNOWN_OUTCOME);
    } else if (err->code != ERR_OK) {
        op->err = *err;
        replica_finish(r, op);
    } else if (op->lane == REPLICA_WRITE && op->got(op, data, bytes) && op->err.code == ERR_OK) {
        op->maybe = true; /* what was asked for so far has happened */
        list_push_front(&r->queue, &op->link);
    } else {
        replica_finish(r, op);
    }
}

static struct replica_op *take_done(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    struct list *link = list_pop_front(&r->done);
    pthread_mutex_unlock(&r->lock);
    return link ? op_of(link) : NULL;
}

static void replica_destroy(struct replica *r)
{
    pthread_mutex_destroy(&r->machine_lock);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->opened);
    mem_free(r->dir);
    mem_free(r->cluster);
    mem_free(r);
}

static void on_message(struct loop_msg *msg)
{
    struct replica *r = container_of(msg, struct replica, msg);
    struct list now;
    if (r->freed) {
        replica_destroy(r);
        return;
    }
    list_init(&now);
    pthread_mutex_lock(&r->lock);
    r->msg_posted = false;
    bool changed = r->view_changed && r->options.changed;
    r->view_changed = false;
    list_splice_back(&now, &r->done);
    pthread_mutex_unlock(&r->lock);
    for (struct list *link; (link = list_pop_front(&now));)
        op_of(link)->done(op_of(link));
    if (changed)
        r->options.changed(r->options.arg);
}

void replica_changed(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    r->view_changed = true;
    post(r);
    pthread_mutex_unlock(&r->lock);
}

void replica_learn(struct replica *r, const struct store_meta *meta)
{
    pthread_mutex_lock(&r->lock);
    bool news = r->meta.schema < meta->schema;
    if (news)
        r->meta = *meta;
    pthread_mutex_unlock(&r->lock);
    if (news)
        replica_changed(r);
}

/* --- what does not work -------------------------------------------------------------------------------------------- */

/* The log can go no further; a start anew reads it again. */
void replica_break(struct replica *r, const char *what)
{
    if (r->broken.code != ERR_OK)
        return;
    (void)err_set(&r->broken, ERR_PERMANENT, "%s", what); /* every call is answered with it */
    atomic_store(&r->unusable, true);
    log_error(&log_here, "the log cannot go on", "dir=%s error=%s", LOGQ(r->dir), LOGQ(what));
}

/* Why a write takes so long, for people. */
static void tell_why(const struct replica *r, char *text, size_t size)
{
    uint64_t leader = replica_leader(r);
    if (!r->mesh)
        replica_tell_disk(r, text, size);
    else if (leader == 0)
        (void)snprintf(text, size, "the log's cluster has no leader that can be reached"); /* short */
    else
        (void)snprintf(text, size, "voter %llu leads the log's cluster and does not answer",
                       (unsigned long long)leader); /* short */
}

struct drop {
    enum err_code code;
    const char *text;
    uint64_t before_ms; /* only what was submitted by then */
};

static bool drop_op(struct replica *r, struct replica_op *op, void *arg)
{
    const struct drop *d = arg;
    if (op->since_ms > d->before_ms)
        return false;
    replica_finish_with(r, op, d->code, d->text);
    return true;
}

static void drop_queue(struct replica *r, const struct drop *d)
{
    LIST_FOR_SAFE(at, &r->queue)
    {
        if (op_of(at)->since_ms > d->before_ms)
            continue;
        list_remove(at);
        replica_finish_with(r, op_of(at), d->code, d->text);
    }
}

/* Own calls, wherever they are on their way. */
static void drop_all(struct replica *r, struct drop *d)
{
    replica_lead_drop(r, drop_op, d);
    replica_forward_drop(r, drop_op, d);
    drop_queue(r, d);
}

/* All but what is on its way to the disk. */
static void drop_waiting(struct replica *r)
{
    struct drop d = {ERR_CANCELLED, "the store is being closed", UINT64_MAX};
    replica_lead_lost(r);
    replica_forward_drop(r, drop_op, &d);
    drop_queue(r, &d);
}

/* libraft tries again by itself for as long as it takes; nobody here waits for that. */
static void check_patience(struct replica *r)
{
    char text[180];
    uint64_t now_ms = clock_boot_ms(), patience_ms = r->options.patience_ms;
    bool stuck = r->in_flight && now_ms - r->flight_ms >= patience_ms;
    struct drop d = {ERR_UNAVAILABLE, text, stuck ? now_ms : now_ms - patience_ms};
    pthread_mutex_lock(&r->lock);
    bool idle = r->pending == 0;
    pthread_mutex_unlock(&r->lock);
    if (idle)
        return;
    tell_why(r, text, sizeof(text));
    drop_all(r, &d);
}

/* --- the way of a call --------------------------------------------------------------------------------------------- */

void replica_pump(struct replica *r)
{
    if (r->broken.code != ERR_OK) {
        struct drop d = {r->broken.code, r->broken.text, UINT64_MAX};
        drop_all(r, &d);
        return;
    }
    if (r->state == STATE_CLOSING)
        drop_waiting(r);
    if (r->state != STATE_OPEN)
        return;
    if (r->ready)
        replica_lead(r);
    else if (r->mesh)
        replica_forward(r);
}

void replica_tick(struct replica *r)
{
    r->postponed = false;
    check_patience(r);
    replica_pump(r);
}

static void take_orders(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    list_splice_back(&r->queue, &r->submitted);
    r->snapshot_asked |= r->ask_snapshot;
    r->ask_snapshot = false;
    r->cut = r->cut_wanted;
    if (r->voters_new) {
        memcpy(r->wanted, r->voters, sizeof(r->wanted));
        r->wanted_count = r->voters_count;
        r->voters_new = false;
        r->nodes_stale = true;
    }
    if (r->close_wanted && r->state != STATE_CLOSED && r->state != STATE_CLOSING) {
        r->state = STATE_CLOSING;
        r->closing_ms = clock_boot_ms();
    }
    r->stats.log_bytes = r->since_bytes;
    r->stats.tasks = list_length(&r->tasks);
    r->stats.to_read = list_length(&r->to_read);
    pthread_mutex_unlock(&r->lock);
}

static void take_cancel(struct replica *r)
{
    struct drop d = {ERR_CANCELLED, "the store is being closed", UINT64_MAX};
    pthread_mutex_lock(&r->lock);
    bool wanted = r->cancel_wanted;
    pthread_mutex_unlock(&r->lock);
    if (!wanted)
        return;
    drop_all(r, &d);
    pthread_mutex_lock(&r->lock);
    r->cancel_wanted = false;
    pthread_cond_signal(&r->opened);
    pthread_mutex_unlock(&r->lock);
}

static void on_wake(uv_async_t *async)
{
    struct replica *r = async->data;
    take_orders(r);
    take_cancel(r);
    replica_take_vote(r);
    replica_pump(r);
}

/* --- outside ------------------------------------------------------------------------------------------------------- */

static struct replica *replica_new(const struct replica_options *options)
{
    struct replica *r = mem_new(struct replica);
    r->options = *options;
    r->dir = mem_strdup(options->dir);
    r->cluster = options->cluster ? mem_strdup(options->cluster) : NULL;
    r->msg.run = on_message;
    r->opened_ms = clock_boot_ms();
    r->machine = machine_new();
    r->vote.fd = -1;
    list_init(&r->queue);
    list_init(&r->tasks);
    list_init(&r->asked);
    list_init(&r->asking);
    list_init(&r->to_read);
    list_init(&r->forwards);
    list_init(&r->batches);
    list_init(&r->late);
    list_init(&r->submitted);
    list_init(&r->done);
    buf_init(&r->entry, ENTRY_MAX_BYTES);
    buf_init(&r->command, ENTRY_MAX_BYTES);
    pthread_mutex_init(&r->machine_lock, NULL);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->opened, NULL);
    (void)rng_seed_os(&r->proposer, NULL); /* another's number would do: entries also have theirs */
    return r;
}

static int start_thread(struct replica *r, struct err *e)
{
    sigset_t all, before;
    int rv = fault_hit() ? UV_EMFILE : uv_loop_init(&r->uv);
    if (rv < 0)
        return err_sys(e, -rv, "make an event loop");
    rv = uv_async_init(&r->uv, &r->wake, on_wake);
    if (rv == 0) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        rv = -pthread_create(&r->thread, NULL, replica_thread, r);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    if (rv < 0) {
        (void)uv_loop_close(&r->uv);
        return err_sys(e, -rv, "start the thread of the log");
    }
    (void)pthread_setname_np(r->thread, "store-raft"); /* for people */
    return 0;
}

static void drop(struct replica *r)
{
    replica_drop_late(r);
    machine_free(r->machine);
    mesh_free(r->mesh);
    buf_fini(&r->entry);
    buf_fini(&r->command);
    mem_free(r->flight);
}

int replica_open(const struct replica_options *options, struct replica **ret, struct err *e)
{
    struct replica *r = replica_new(options);
    int rc = start_thread(r, e);
    if (rc < 0) {
        drop(r);
        replica_destroy(r);
        return rc;
    }
    pthread_mutex_lock(&r->lock);
    while (!r->open_done)
        pthread_cond_wait(&r->opened, &r->lock);
    struct err why = r->open_err;
    pthread_mutex_unlock(&r->lock);
    if (why.code != ERR_OK) {
        replica_close(r);
        return err_set(e, why.code, "%s", why.text);
    }
    *ret = r;
    return 0;
}

static void run_done(struct replica *r)
{
    for (struct replica_op *op; (op = take_done(r));)
        op->done(op);
}

void replica_close(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    r->close_wanted = true;
    pthread_mutex_unlock(&r->lock);
    (void)uv_async_send(&r->wake); /* closed already: nothing happens */
    (void)pthread_join(r->thread, NULL);
    (void)uv_loop_close(&r->uv);
    list_splice_back(&r->queue, &r->submitted);
    struct drop d = {ERR_CANCELLED, "the store is being closed", UINT64_MAX};
    drop_all(r, &d);
    run_done(r);
    replica_lead_fini(r);
    drop(r);
    r->freed = true;
    if (!r->msg_posted)
        replica_destroy(r);
}

void replica_cancel(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    r->cancel_wanted = true;
    (void)uv_async_send(&r->wake); /* fails only for a closed handle */
    while (r->cancel_wanted)
        pthread_cond_wait(&r->opened, &r->lock);
    pthread_mutex_unlock(&r->lock);
    run_done(r);
}

int replica_vote(struct replica *r, uint64_t id, int listen_fd, const struct mesh_node *first,
                 size_t first_count, bool founds, struct err *e)
{
    assert(first_count <= MESH_NODES_MAX && id != 0);
    pthread_mutex_lock(&r->lock);
    assert(!r->vote.wanted && !r->vote.done);
    r->vote.id = id;
    r->vote.fd = listen_fd;
    r->vote.founds = founds;
    if (first_count > 0)
        memcpy(r->vote.first, first, first_count * sizeof(*first));
    r->vote.first_count = first_count;
    r->vote.wanted = true;
    (void)uv_async_send(&r->wake); /* fails only for a closed handle */
    while (!r->vote.done)
        pthread_cond_wait(&r->opened, &r->lock);
    struct err why = r->vote.err;
    pthread_mutex_unlock(&r->lock);
    return why.code == ERR_OK ? 0 : err_set(e, why.code, "%s", why.text);
}

void replica_set_voters(struct replica *r, const struct mesh_node *nodes, size_t count)
{
    if (count == 0)
        return;
    assert(count <= MESH_NODES_MAX);
    pthread_mutex_lock(&r->lock);
    memcpy(r->voters, nodes, count * sizeof(*nodes));
    r->voters_count = count;
    r->voters_new = true;
    pthread_mutex_unlock(&r->lock);
    (void)uv_async_send(&r->wake); /* fails only for a closed handle */
}

void replica_submit(struct replica *r, struct replica_op *op)
{
    op->since_ms = clock_boot_ms();
    pthread_mutex_lock(&r->lock);
    bool first = list_empty(&r->submitted), room = r->pending < REPLICA_QUEUE_MAX;
    r->pending++;
    if (room)
        list_push_back(&r->submitted, &op->link);
    pthread_mutex_unlock(&r->lock);
    if (!room)
        replica_finish_with(r, op, ERR_UNAVAILABLE, "too many calls wait for the log");
    else if (first)
        (void)uv_async_send(&r->wake); /* fails only for a closed handle */
}

struct machine *replica_lock(struct replica *r)
{
    if (atomic_load(&r->unusable))
        return NULL;
    pthread_mutex_lock(&r->machine_lock);
    return r->machine;
}

void replica_unlock(struct replica *r)
{
    pthread_mutex_unlock(&r->machine_lock);
}

bool replica_meta(struct replica *r, struct store_meta *ret)
{
    pthread_mutex_lock(&r->lock);
    *ret = r->meta;
    pthread_mutex_unlock(&r->lock);
    return ret->schema != 0;
}

void replica_view(struct replica *r, struct replica_view *ret)
{
    pthread_mutex_lock(&r->lock);
    *ret = r->view;
    pthread_mutex_unlock(&r->lock);
}

void replica_stats(struct replica *r, struct replica_stats *ret)
{
    pthread_mutex_lock(&r->lock);
    *ret = r->stats;
    ret->queue = r->pending;
    pthread_mutex_unlock(&r->lock);
}

void replica_ask_snapshot(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    r->ask_snapshot = true;
    pthread_mutex_unlock(&r->lock);
    (void)uv_async_send(&r->wake); /* fails only for a closed handle */
}

void replica_cut(struct replica *r, bool cut)
{
    pthread_mutex_lock(&r->lock);
    r->cut_wanted = cut;
    pthread_mutex_unlock(&r->lock);
    (void)uv_async_send(&r->wake); /* fails only for a closed handle */
}
