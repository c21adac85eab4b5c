/* The log itself: libraft's life, from opening to closing, and the snapshots that it asks for. */
#include "agent/store/raft/replica_private.h"

#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"

/* Its address is never dialled: a single node has no peers. */
#define NODE_ID      1
#define NODE_ADDRESS "local"

/* Rows of a snapshot that are written before the loop looks at the disk again: well under a millisecond. */
#define SLICE_ROWS 500
/* libraft looks whether a snapshot is wanted this often. */
#define HEARTBEAT_MS 100
#define ELECTION_MS  1000
#define TICK_MS      100
/* How often libraft tries again when the disk is full. */
#define DISK_RETRY_MS 500
/* Its log is cut behind a snapshot, but for so many entries: 0 has another meaning there. */
#define TRAILING     1
#define NO_SNAPSHOTS UINT32_MAX
#define CLOSE_MS     5000

/* --- snapshots ----------------------------------------------------------------------------------------------------- */

static void write_slice(uv_idle_t *idle)
{
    struct replica *r = idle->data;
    pthread_mutex_lock(&r->machine_lock);
    bool all = machine_snapshot_step(r->machine, SLICE_ROWS);
    pthread_mutex_unlock(&r->machine_lock);
    if (!all)
        return;
    (void)uv_idle_stop(idle); /* cannot fail */
    r->snapshot_ready = true;
    raft_set_snapshot_threshold(&r->raft, 1); /* libraft asks for it with its next heartbeat */
}

static bool wants_snapshot(const struct replica *r)
{
    uint64_t bytes = r->options.snapshot_bytes;
    if (bytes < r->stats.snapshot_bytes)
        bytes = r->stats.snapshot_bytes;
    if (r->since_entries == 0 || r->state != STATE_OPEN || r->broken.code != ERR_OK)
        return false;
    return r->snapshot_asked || r->since_entries >= r->options.snapshot_entries || r->since_bytes >= bytes;
}

static void maybe_snapshot(struct replica *r)
{
    if (r->snapshot_writing || machine_snapshot_running(r->machine) || !wants_snapshot(r))
        return;
    r->snapshot_asked = false;
    r->snapshot_began_ms = clock_boot_ms();
    pthread_mutex_lock(&r->machine_lock);
    machine_snapshot_begin(r->machine);
    pthread_mutex_unlock(&r->machine_lock);
    r->since_entries = r->since_bytes = 0;
    (void)uv_idle_start(&r->slices, write_slice); /* cannot fail with a callback */
}

static void free_buffers(struct raft_buffer *bufs, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        mem_free(bufs[i].base);
    mem_free(bufs);
}

/* What was written in slices, and the entries since its cut: the state as it is now. */
static int give_snapshot(struct raft_fsm *fsm, struct raft_buffer *ret_bufs[], unsigned *ret_n)
{
    struct replica *r = fsm->data;
    struct machine_buffer *list;
    size_t count, bytes = 0;
    if (!r->snapshot_ready)
        return RAFT_BUSY;
    r->snapshot_ready = false;
    raft_set_snapshot_threshold(&r->raft, NO_SNAPSHOTS);
    pthread_mutex_lock(&r->machine_lock);
    machine_snapshot_end(r->machine, &list, &count);
    pthread_mutex_unlock(&r->machine_lock);
    struct raft_buffer *bufs = mem_new_array(struct raft_buffer, count);
    for (size_t i = 0; i < count; i++) {
        bufs[i] = (struct raft_buffer){.base = list[i].data, .len = list[i].bytes};
        bytes += list[i].bytes;
    }
    mem_free(list);
    r->snapshot_writing = true;
    pthread_mutex_lock(&r->lock);
    r->stats.snapshot_bytes = bytes;
    pthread_mutex_unlock(&r->lock);
    *ret_bufs = bufs;
    *ret_n = (unsigned)count;
    return 0;
}

static int snapshot_written(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
    struct replica *r = fsm->data;
    free_buffers(*bufs, *n);
    *bufs = NULL;
    *n = 0;
    r->snapshot_writing = false;
    pthread_mutex_lock(&r->lock);
    r->stats.snapshots++;
    r->stats.snapshot_ms = clock_boot_ms() - r->snapshot_began_ms;
    pthread_mutex_unlock(&r->lock);
    return 0;
}

/* --- opening ------------------------------------------------------------------------------------------------------- */

static int transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t;
    (void)id;
    (void)address;
    return 0;
}

static int transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t;
    (void)cb; /* nobody comes */
    return 0;
}

static int transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req, raft_id id,
                             const char *address, raft_uv_connect_cb cb)
{
    (void)t;
    (void)req;
    (void)id;
    (void)address;
    (void)cb;
    return RAFT_NOCONNECTION;
}

static void transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

static int refuse(struct err *e, const char *dir, const char *what)
{
    return err_set(e, ERR_PERMANENT,
                   "%.60s cannot be used: %.80s. Put a copy of it back, or move it away to begin empty", dir,
                   what);
}

static int init_raft(struct replica *r, struct err *e)
{
    r->transport = (struct raft_uv_transport){.version = 1,
                                              .init = transport_init,
                                              .listen = transport_listen,
                                              .connect = transport_connect,
                                              .close = transport_close};
    r->fsm = (struct raft_fsm){.version = 2,
                               .data = r,
                               .apply = replica_apply,
                               .snapshot = give_snapshot,
                               .restore = replica_restore,
                               .snapshot_finalize = snapshot_written};
    int rv = raft_uv_init(&r->io, &r->uv, r->dir, &r->transport);
    if (rv != 0)
        return err_set(e, ERR_IO, "open %s: %s", r->dir, r->io.errmsg);
    /* Its own repair throws away what it cannot read. */
    raft_uv_set_auto_recovery(&r->io, false);
    raft_uv_set_disk_retry(&r->io, DISK_RETRY_MS);
    rv = raft_init(&r->raft, &r->io, &r->fsm, NODE_ID, NODE_ADDRESS);
    if (rv != 0) {
        (void)err_set(e, ERR_IO, "open %s: %s", r->dir, r->io.errmsg[0] ? r->io.errmsg : raft_strerror(rv));
        raft_uv_close(&r->io);
        return -ERR_IO;
    }
    raft_set_snapshot_threshold(&r->raft, NO_SNAPSHOTS);
    raft_set_snapshot_trailing(&r->raft, TRAILING);
    raft_set_heartbeat_timeout(&r->raft, HEARTBEAT_MS);
    raft_set_election_timeout(&r->raft, ELECTION_MS);
    return 0;
}

static int bootstrap(struct replica *r, struct err *e)
{
    struct raft_configuration c;
    raft_configuration_init(&c);
    int rv = raft_configuration_add(&c, NODE_ID, NODE_ADDRESS, RAFT_VOTER);
    if (rv == 0)
        rv = raft_bootstrap(&r->raft, &c);
    raft_configuration_close(&c);
    if (rv != 0 && rv != RAFT_CANTBOOTSTRAP) /* it was made before */
        return err_set(e, ERR_IO, "make %s: %s", r->dir, raft_errmsg(&r->raft));
    return 0;
}

static int start_raft(struct replica *r, struct err *e)
{
    int rc = bootstrap(r, e);
    if (rc < 0)
        return rc;
    int rv = raft_start(&r->raft);
    if (r->broken.code != ERR_OK)
        return refuse(e, r->dir, r->broken.text);
    if (rv != 0)
        return refuse(e, r->dir, raft_errmsg(&r->raft));
    return 0;
}

static void report_open(struct replica *r, const struct err *e)
{
    pthread_mutex_lock(&r->lock);
    r->open_done = true;
    if (e)
        r->open_err = *e;
    r->stats.open_ms = clock_boot_ms() - r->opened_ms;
    pthread_cond_signal(&r->opened);
    pthread_mutex_unlock(&r->lock);
}

/* --- the first command --------------------------------------------------------------------------------------------- */

static void on_made(struct raft_apply *req, int status, void *result)
{
    struct replica *r = req->data;
    (void)result;
    r->making = false;
    if (status != 0)
        replica_break(r, raft_strerror(status));
}

static void make_store(struct replica *r)
{
    struct err e = {0};
    r->making = true;
    entry_begin(&r->entry, machine_seq(r->machine) + 1, r->proposer);
    buf_reset(&r->command);
    command_put_make(&r->command, &r->options.make);
    entry_add(&r->entry, COMMAND_MAKE, &r->command);
    struct raft_buffer buf = {.len = 0};
    if (entry_end(&r->entry, &e) == 0)
        buf = (struct raft_buffer){.base = raft_malloc(r->entry.len), .len = r->entry.len};
    if (!buf.base) {
        replica_break(r, "out of memory");
        return;
    }
    memcpy(buf.base, r->entry.data, r->entry.len);
    r->apply.data = r;
    if (raft_apply(&r->raft, &r->apply, &buf, 1, on_made) != 0) {
        raft_free(buf.base);
        replica_break(r, raft_errmsg(&r->raft));
    }
}

/* Every turn while it opens: the node must lead, and all its log must be applied. */
static void look_opening(struct replica *r)
{
    struct err e = {0};
    if (r->broken.code != ERR_OK) {
        (void)refuse(&e, r->dir, r->broken.text); /* what open() answers */
        r->state = STATE_CLOSING;
        r->closing_ms = clock_boot_ms();
        report_open(r, &e);
        return;
    }
    if (r->making || raft_state(&r->raft) != RAFT_LEADER ||
        raft_last_applied(&r->raft) != raft_last_index(&r->raft))
        return;
    if (machine_meta(r->machine)->schema == 0) {
        make_store(r);
        return;
    }
    r->state = STATE_OPEN;
    report_open(r, NULL);
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */

static void on_raft_closed(struct raft *raft)
{
    struct replica *r = raft->data;
    r->state = STATE_CLOSED;
    raft_uv_close(&r->io);
    uv_close((uv_handle_t *)&r->wake, NULL);
    uv_close((uv_handle_t *)&r->tick, NULL);
    uv_close((uv_handle_t *)&r->slices, NULL);
    uv_close((uv_handle_t *)&r->look, NULL);
}

static void begin_close(struct replica *r)
{
    if (r->closing_ms == 0 || (r->in_flight && clock_boot_ms() - r->closing_ms < CLOSE_MS))
        return;
    r->closing_ms = 0;
    r->raft.data = r;
    (void)uv_idle_stop(&r->slices); /* cannot fail */
    raft_close(&r->raft, on_raft_closed);
}

static void on_turn(uv_prepare_t *prepare)
{
    struct replica *r = prepare->data;
    if (r->state == STATE_OPENING)
        look_opening(r);
    if (r->state == STATE_OPEN)
        maybe_snapshot(r);
    if (r->state != STATE_CLOSED)
        replica_pump(r);
    if (r->state == STATE_CLOSING)
        begin_close(r);
}

static void on_tick(uv_timer_t *timer)
{
    struct replica *r = timer->data;
    r->postponed = false;
    replica_pump(r);
}

static void init_handles(struct replica *r)
{
    (void)uv_timer_init(&r->uv, &r->tick); /* these cannot fail */
    (void)uv_idle_init(&r->uv, &r->slices);
    (void)uv_prepare_init(&r->uv, &r->look);
    r->wake.data = r->tick.data = r->slices.data = r->look.data = r;
    (void)uv_timer_start(&r->tick, on_tick, TICK_MS, TICK_MS);
    (void)uv_prepare_start(&r->look, on_turn);
}

void *replica_thread(void *arg)
{
    struct replica *r = arg;
    struct err e = {0};
    init_handles(r);
    if (init_raft(r, &e) < 0) {
        report_open(r, &e);
        r->state = STATE_CLOSED;
        uv_close((uv_handle_t *)&r->wake, NULL);
        uv_close((uv_handle_t *)&r->tick, NULL);
        uv_close((uv_handle_t *)&r->slices, NULL);
        uv_close((uv_handle_t *)&r->look, NULL);
    } else if (start_raft(r, &e) < 0) {
        report_open(r, &e);
        r->state = STATE_CLOSING;
        r->closing_ms = clock_boot_ms();
    }
    uv_run(&r->uv, UV_RUN_DEFAULT);
    return NULL;
}
