#include "agent/store/raft/replica_private.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

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

static void finish(struct replica *r, struct replica_op *op)
{
    pthread_mutex_lock(&r->lock);
    list_push_back(&r->done, &op->link);
    bool post = !r->msg_posted;
    r->msg_posted = true;
    if (post)
        loop_post(r->options.loop, &r->msg);
    pthread_mutex_unlock(&r->lock);
}

static void finish_with(struct replica *r, struct replica_op *op, enum err_code code, const char *text)
{
    if (op->part_done && code == ERR_UNAVAILABLE)
        code = ERR_UNKNOWN_OUTCOME;
    (void)err_set(&op->err, code, "%s", text); /* the answer carries it */
    finish(r, op);
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
    mem_free(r);
}

static void on_message(struct loop_msg *msg)
{
    struct replica *r = container_of(msg, struct replica, msg);
    if (r->freed) {
        replica_destroy(r);
        return;
    }
    pthread_mutex_lock(&r->lock);
    r->msg_posted = false;
    struct list now;
    list_init(&now);
    list_splice_back(&now, &r->done);
    pthread_mutex_unlock(&r->lock);
    for (struct list *link; (link = list_pop_front(&now));)
        op_of(link)->done(op_of(link));
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

static void fail_queue(struct replica *r, enum err_code code, const char *text)
{
    for (struct list *link; (link = list_pop_front(&r->queue));)
        finish_with(r, op_of(link), code, text);
}

static void fail_flight(struct replica *r, enum err_code code, const char *text)
{
    for (size_t i = 0; i < r->flight_count; i++) {
        if (r->flight[i])
            finish_with(r, r->flight[i], code, text);
        r->flight[i] = NULL;
    }
}

/* Why a write takes so long, for people. */
static void tell_disk(const struct replica *r, char *text, size_t size)
{
    struct statvfs v;
    unsigned long long free_mb = 0;
    bool known = statvfs(r->dir, &v) == 0;
    if (known)
        free_mb = (unsigned long long)v.f_bavail * v.f_frsize >> 20;
    (void)snprintf(text, size,
                   known && free_mb < 64 ? "the disk is full: %llu MiB are left in %.100s"
                                         : /* cut: for people */
                       "the disk takes no writes (%llu MiB are free in %.100s)",
                   free_mb, r->dir);
}

static bool is_late(const struct replica *r, uint64_t now_ms)
{
    const struct list *first = list_first(&r->queue);
    if (r->in_flight)
        return now_ms - r->flight_ms >= r->options.patience_ms;
    return r->postponed && first && now_ms - op_of((struct list *)first)->since_ms >= r->options.patience_ms;
}

/* libraft tries again by itself for as long as it takes; nobody here waits for that. */
void replica_check_patience(struct replica *r)
{
    char text[180];
    uint64_t now_ms = clock_boot_ms();
    if (!is_late(r, now_ms))
        return;
    tell_disk(r, text, sizeof(text));
    if (r->in_flight && now_ms - r->flight_ms >= r->options.patience_ms) {
        fail_flight(r, ERR_UNKNOWN_OUTCOME, text);
        fail_queue(r, ERR_UNAVAILABLE, text);
    }
    for (struct list *link; r->postponed && (link = list_first(&r->queue)) &&
                            now_ms - op_of(link)->since_ms >= r->options.patience_ms;) {
        list_remove(link);
        finish_with(r, op_of(link), ERR_UNAVAILABLE, text);
    }
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void add_flight(struct replica *r, struct replica_op *op)
{
    if (r->flight_count == r->flight_cap) {
        size_t cap = r->flight_cap ? 2 * r->flight_cap : 64;
        struct replica_op **grown = mem_new_array(struct replica_op *, cap);
        if (r->flight_count > 0)
            memcpy(grown, r->flight, r->flight_count * sizeof(struct replica_op *));
        mem_free(r->flight);
        r->flight = grown;
        r->flight_cap = cap;
    }
    r->flight[r->flight_count++] = op;
}

/* What waits becomes one entry; false: nothing has to be written. */
static bool gather(struct replica *r)
{
    r->flight_count = 0;
    entry_begin(&r->entry, machine_seq(r->machine) + 1, r->proposer);
    bool part = false;
    while (!part && !list_empty(&r->queue) && r->entry.len < ENTRY_FULL_BYTES) {
        struct replica_op *op = op_of(list_pop_front(&r->queue));
        enum command_kind kind = COMMAND_LAST_;
        buf_reset(&r->command);
        enum replica_step step = op->encode(op, r->machine, &kind, &r->command);
        if (step != REPLICA_ANSWERED && buf_check(&r->command, &op->err) < 0)
            step = REPLICA_ANSWERED;
        if (step == REPLICA_ANSWERED) {
            finish(r, op);
            continue;
        }
        part = op->part = step == REPLICA_PART;
        entry_add(&r->entry, kind, &r->command);
        add_flight(r, op);
    }
    return r->flight_count > 0;
}

static void on_applied(struct raft_apply *req, int status, void *result);

/* Nothing happened; the same ops are asked again at the next tick. libraft has no space when its next segments are not made yet: for
 * a moment under load, or as long as the disk is full. */
static void postpone(struct replica *r)
{
    while (r->flight_count > 0)
        list_push_front(&r->queue, &r->flight[--r->flight_count]->link);
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
        fail_flight(r, ERR_UNKNOWN_OUTCOME, r->broken.text);
    }
}

void replica_pump(struct replica *r)
{
    while (r->state == STATE_OPEN && r->broken.code == ERR_OK && !r->in_flight && !r->postponed &&
           !list_empty(&r->queue))
        if (gather(r))
            propose(r);
    if (r->broken.code != ERR_OK)
        fail_queue(r, r->broken.code, r->broken.text);
    else if (r->state == STATE_CLOSING)
        fail_queue(r, ERR_CANCELLED, "the store is being closed");
    replica_check_patience(r);
}

/* Parts go on before anything else. */
static void settle(struct replica *r)
{
    for (size_t i = r->flight_count; i-- > 0;) {
        struct replica_op *op = r->flight[i];
        if (!op)
            continue;
        op->part_done = true;
        if (op->part && op->err.code == ERR_OK)
            list_push_front(&r->queue, &op->link);
    }
    for (size_t i = 0; i < r->flight_count; i++) {
        struct replica_op *op = r->flight[i];
        if (op && !(op->part && op->err.code == ERR_OK))
            finish(r, op);
    }
    r->flight_count = 0;
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
    struct replica *r = req->data;
    (void)result; /* told to each op by replica_apply() */
    r->in_flight = false;
    if (status == 0) {
        settle(r);
    } else {
        if (r->state != STATE_CLOSING)
            replica_break(r, raft_strerror(status));
        fail_flight(r, ERR_UNKNOWN_OUTCOME,
                    r->state == STATE_CLOSING ? "the store was closed before the entry was durable"
                                              : r->broken.text);
        r->flight_count = 0;
    }
    replica_pump(r);
}

/* --- the state machine --------------------------------------------------------------------------------------------- */

static void on_result(void *arg, size_t command, const struct machine_result *result)
{
    struct replica *r = arg;
    assert(command < r->flight_count);
    struct replica_op *op = r->flight[command];
    if (op)
        op->applied(op, result);
}

static bool is_own(const struct replica *r, const struct raft_buffer *buf)
{
    struct entry entry;
    return r->in_flight && entry_open(buf->base, buf->len, &entry, NULL) == 0 && entry.seq == r->flight_seq &&
           entry.proposer == r->proposer;
}

static void count_entry(struct replica *r, size_t bytes)
{
    pthread_mutex_lock(&r->lock);
    r->stats.entries++;
    r->stats.entry_bytes += bytes;
    pthread_mutex_unlock(&r->lock);
}

int replica_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct replica *r = fsm->data;
    struct err e = {0};
    *result = NULL;
    if (r->broken.code != ERR_OK)
        return RAFT_INVALID;
    bool own = is_own(r, buf);
    pthread_mutex_lock(&r->machine_lock);
    int rc = machine_apply(r->machine, buf->base, buf->len, own ? on_result : NULL, r, &e);
    pthread_mutex_unlock(&r->machine_lock);
    if (rc < 0) {
        replica_break(r, e.text);
        return RAFT_INVALID;
    }
    r->since_entries++;
    r->since_bytes += buf->len;
    if (own)
        count_entry(r, buf->len);
    return 0;
}

int replica_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct replica *r = fsm->data;
    struct err e = {0};
    int rc = machine_restore(r->machine, buf->base, buf->len, &e);
    if (rc < 0) {
        replica_break(r, e.text);
        return RAFT_CORRUPT;
    }
    r->stats.snapshot_bytes = buf->len;
    raft_free(buf->base);
    return 0;
}

static void take_submitted(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    list_splice_back(&r->queue, &r->submitted);
    r->snapshot_asked |= r->ask_snapshot;
    r->ask_snapshot = false;
    if (r->close_wanted && r->state != STATE_CLOSED && r->state != STATE_CLOSING) {
        r->state = STATE_CLOSING;
        r->closing_ms = clock_boot_ms();
    }
    r->stats.log_bytes = r->since_bytes;
    pthread_mutex_unlock(&r->lock);
}

static void on_wake(uv_async_t *async)
{
    struct replica *r = async->data;
    take_submitted(r);
    replica_pump(r);
}

/* --- outside ------------------------------------------------------------------------------------------------------- */

static struct replica *replica_new(const struct replica_options *options)
{
    struct replica *r = mem_new(struct replica);
    r->options = *options;
    r->dir = mem_strdup(options->dir);
    r->msg.run = on_message;
    r->opened_ms = clock_boot_ms();
    r->machine = machine_new();
    list_init(&r->queue);
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
    machine_free(r->machine);
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

void replica_close(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    r->close_wanted = true;
    pthread_mutex_unlock(&r->lock);
    (void)uv_async_send(&r->wake); /* closed already: nothing happens */
    (void)pthread_join(r->thread, NULL);
    (void)uv_loop_close(&r->uv);
    list_splice_back(&r->queue, &r->submitted);
    fail_flight(r, ERR_CANCELLED, "the store is being closed");
    fail_queue(r, ERR_CANCELLED, "the store is being closed");
    for (struct replica_op *op; (op = take_done(r));)
        op->done(op);
    drop(r);
    r->freed = true;
    if (!r->msg_posted)
        replica_destroy(r);
}

void replica_submit(struct replica *r, struct replica_op *op)
{
    op->since_ms = clock_boot_ms();
    pthread_mutex_lock(&r->lock);
    bool first = list_empty(&r->submitted);
    list_push_back(&r->submitted, &op->link);
    pthread_mutex_unlock(&r->lock);
    if (first)
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

void replica_stats(struct replica *r, struct replica_stats *ret)
{
    pthread_mutex_lock(&r->lock);
    *ret = r->stats;
    ret->queue = list_length(&r->submitted);
    pthread_mutex_unlock(&r->lock);
}

void replica_ask_snapshot(struct replica *r)
{
    pthread_mutex_lock(&r->lock);
    r->ask_snapshot = true;
    pthread_mutex_unlock(&r->lock);
    (void)uv_async_send(&r->wake); /* fails only for a closed handle */
}
