/* The log itself: libraft's life, from opening to closing, and the snapshots that it asks for. */
#include "agent/store/raft/replica_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/io/pages.h"
#include "agent/store/raft/message.h"

/* Rows of a snapshot that are written before the loop looks at the disk again. A call waits for several looks, each behind a slice:
 * 500 rows made it wait 7 ms on a machine whose processors were busy with other things. */
#define SLICE_ROWS 100
/* A snapshot is due earlier when so much was written, and then nothing for so long. */
#define QUIET_BYTES ((uint64_t)4 << 20)
#define QUIET_MS    3000
/* What a log of this size leaves free in memory when it is dropped goes back to the system, some time after the snapshot, for libraft
 * drops the log when it hears that the snapshot is there. */
#define TRIM_BYTES    ((uint64_t)16 << 20)
#define TRIM_DELAY_MS 1000
/* libraft looks whether a snapshot is wanted this often, and a leader says this often that it is there. */
#define HEARTBEAT_MS 100
/* Alone nobody else is elected. With others, a leader that is not heard for this long, up to twice as long, is replaced: fires stop for
 * less than two seconds even when the first election has no result. */
#define ALONE_ELECTION_MS   1000
#define CLUSTER_ELECTION_MS 500
/* libraft looks at its time-outs with each heartbeat; more often, so that two voters rarely see theirs in the same look. */
#define CLUSTER_LOOK_MS 20
#define ALONE_TICK_MS   100
#define CLUSTER_TICK_MS 25
/* How often libraft tries again when the disk is full. */
#define DISK_RETRY_MS 500
/* Its log is cut behind a snapshot, but for so many entries (0 has another meaning there): who is not further behind needs no snapshot
 * to catch up. They are in memory too. */
#define ALONE_TRAILING   1
#define CLUSTER_TRAILING 256
#define CLOSE_MS         5000
/* A snapshot that takes longer on its way is sent anew; one that was lost is found out by what the voter answers. */
#define INSTALL_MS 600000

static const struct log_ctx log_here = {.module = "raft"};

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

/* The log is in memory too, and is what a start takes longest for. Half of a snapshot: twice as much is then written for snapshots
 * as for the log, and it is a third of all at most. */
static bool is_log_long(const struct replica *r)
{
    uint64_t bytes = r->stats.snapshot_bytes / 2;
    if (bytes < r->options.snapshot_bytes)
        bytes = r->options.snapshot_bytes;
    return r->since_entries >= r->options.snapshot_entries || r->since_bytes >= bytes;
}

/* When nobody waits for the disk it costs nothing. */
static bool is_quiet_time(const struct replica *r)
{
    return r->since_bytes >= QUIET_BYTES && r->since_bytes >= r->stats.snapshot_bytes / 8 &&
           clock_boot_ms() - r->applied_ms >= QUIET_MS;
}

static bool wants_snapshot(const struct replica *r)
{
    if (r->since_entries == 0 || r->state != STATE_OPEN || r->broken.code != ERR_OK ||
        replica_is_restoring(r))
        return false;
    return r->snapshot_asked || is_log_long(r) || is_quiet_time(r);
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
    r->dropped_bytes = r->since_bytes;
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
    if (!r->snapshot_ready || r->raft.configuration_uncommitted_index != 0)
        return RAFT_BUSY; /* it would tell the voters of before */
    r->snapshot_ready = false;
    raft_set_snapshot_threshold(&r->raft, REPLICA_NO_SNAPSHOTS);
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
    if (r->dropped_bytes >= TRIM_BYTES)
        r->trim_ms = clock_boot_ms() + TRIM_DELAY_MS;
    pthread_mutex_lock(&r->lock);
    r->stats.snapshots++;
    r->stats.snapshot_ms = clock_boot_ms() - r->snapshot_began_ms;
    struct replica_stats s = r->stats;
    pthread_mutex_unlock(&r->lock);
    log_info(&log_here, "a snapshot was written", "bytes=%llu took_ms=%llu",
             (unsigned long long)s.snapshot_bytes, (unsigned long long)s.snapshot_ms);
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

/* --- its network --------------------------------------------------------------------------------------------------- */

static int io_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct replica *r = container_of(io, struct replica, io);
    r->recv = recv;
    return r->io_start(io, msecs < CLUSTER_LOOK_MS ? msecs : CLUSTER_LOOK_MS, tick, recv);
}

/* Never an error: libraft aborts on one. What does not arrive is sent again. A leader whose log is of no use falls silent, so that
 * another is elected. */
static int io_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
                   raft_io_send_cb cb)
{
    struct replica *r = container_of(io, struct replica, io);
    if (!r->cut && r->broken.code == ERR_OK)
        return mesh_send(r->mesh, req, message, cb);
    cb(req, RAFT_NOCONNECTION);
    return 0;
}

/* libraft 0.22.1 takes a change of the voters for the first entry of those that came with it: it then waits for ever for that entry
 * to be committed, allows no other change, and writes snapshots with the voters of before. So it gets it as the first. */
static void deliver(struct replica *r, struct raft_message *m)
{
    struct raft_message first;
    for (unsigned i = 1; m->type == RAFT_APPEND_ENTRIES && i < m->append_entries.n_entries; i++) {
        if (m->append_entries.entries[i].type != RAFT_CHANGE)
            continue;
        if (message_split(m, i, &first, NULL) < 0) {
            message_drop(m); /* it comes again */
            return;
        }
        r->recv(&r->io, &first);
        i = 0;
    }
    r->recv(&r->io, m);
}

/* libraft 0.22.1 follows a NULL pointer when a snapshot is to be installed while one is being taken; it comes again. Whose state is
 * not there yet is not to lead: nobody would be answered. */
static bool is_untimely(const struct replica *r, const struct raft_message *m)
{
    bool leads = m->type == RAFT_TIMEOUT_NOW || m->type == RAFT_REQUEST_VOTE_RESULT;
    return (m->type == RAFT_INSTALL_SNAPSHOT && r->snapshot_writing) || (leads && replica_is_restoring(r));
}

/* Heartbeats overtake a snapshot. What the voter answers them, that it has not got what the snapshot ends with, would be a reason for
 * libraft to send it once more; of an index that nobody asked for it only takes that the voter is there. */
static void soften(struct replica *r, struct raft_message *m)
{
    struct raft_append_entries_result *result = &m->append_entries_result;
    if (m->type != RAFT_APPEND_ENTRIES_RESULT)
        return;
    if (result->rejected == 0)
        mesh_loaded(r->mesh, m->server_id);
    else if (mesh_is_loading(r->mesh, m->server_id))
        result->rejected = UINT64_MAX;
}

static void on_peer_message(void *arg, struct raft_message *m)
{
    struct replica *r = arg;
    bool wanted = r->voting && !r->cut && r->broken.code == ERR_OK;
    soften(r, m);
    if (wanted && !is_untimely(r, m))
        deliver(r, m);
    else
        message_drop(m);
}

/* --- opening ------------------------------------------------------------------------------------------------------- */

static int open_io(struct replica *r, struct err *e)
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
    if (r->mesh) {
        r->io_start = r->io.start;
        r->io.start = io_start;
        r->io.send = io_send;
    }
    return 0;
}

static int open_raft(struct replica *r, uint64_t id, const char *address, struct err *e)
{
    int rc = open_io(r, e);
    if (rc < 0)
        return rc;
    int rv = raft_init(&r->raft, &r->io, &r->fsm, id, address);
    if (rv != 0) {
        (void)err_set(e, ERR_IO, "open %s: %s", r->dir, r->io.errmsg[0] ? r->io.errmsg : raft_strerror(rv));
        raft_uv_close(&r->io);
        return -ERR_IO;
    }
    r->made_raft = true;
    raft_set_snapshot_threshold(&r->raft, REPLICA_NO_SNAPSHOTS);
    raft_set_snapshot_trailing(&r->raft, r->mesh ? CLUSTER_TRAILING : ALONE_TRAILING);
    unsigned election_ms = r->options.election_ms ? r->options.election_ms : CLUSTER_ELECTION_MS;
    if (!r->mesh)
        election_ms = ALONE_ELECTION_MS;
    raft_set_heartbeat_timeout(&r->raft, election_ms < 4 * HEARTBEAT_MS ? election_ms / 4 : HEARTBEAT_MS);
    raft_set_election_timeout(&r->raft, election_ms);
    raft_set_pre_vote(&r->raft, r->mesh != NULL);
    raft_set_install_snapshot_timeout(&r->raft, INSTALL_MS);
    return 0;
}

static int bootstrap(struct replica *r, const struct mesh_node *first, size_t count, struct err *e)
{
    struct raft_configuration c;
    char address[REPLICA_ADDRESS_MAX];
    int rv = 0;
    if (count == 0)
        return 0;
    raft_configuration_init(&c);
    for (size_t i = 0; rv == 0 && i < count; i++) {
        replica_put_address(address, &first[i]);
        rv = raft_configuration_add(&c, first[i].id, r->mesh ? address : REPLICA_ALONE_ADDRESS, RAFT_VOTER);
    }
    if (rv == 0)
        rv = raft_bootstrap(&r->raft, &c);
    if (rv == RAFT_CANTBOOTSTRAP && r->vote.founds)
        rv = raft_recover(&r->raft, &c);
    raft_configuration_close(&c);
    if (rv != 0 && rv != RAFT_CANTBOOTSTRAP) /* it was made before */
        return err_set(e, ERR_IO, "make %s: %s", r->dir, raft_errmsg(&r->raft));
    return 0;
}

/* One node's log has no others, and a cluster's is of no use without them. */
static int check_kind(const struct replica *r, struct err *e)
{
    const struct raft_configuration *c = &r->raft.configuration;
    bool alone = c->n == 1 && strcmp(c->servers[0].address, REPLICA_ALONE_ADDRESS) == 0;
    if (c->n > 0 && alone && r->mesh)
        return err_set(e, ERR_PERMANENT,
                       "%.60s was written by an agent alone (cluster.mode: standalone). A voter of a cluster "
                       "begins with an empty folder",
                       r->dir);
    if (c->n > 0 && !alone && !r->mesh)
        return err_set(e, ERR_PERMANENT,
                       "%.60s is a voter's of a cluster, not of an agent alone (cluster.mode: standalone)",
                       r->dir);
    return 0;
}

static int start_raft(struct replica *r, const struct mesh_node *first, size_t count, struct err *e)
{
    int rc = bootstrap(r, first, count, e);
    if (rc < 0)
        return rc;
    int rv = raft_start(&r->raft);
    if (r->broken.code != ERR_OK)
        return refuse(e, r->dir, r->broken.text);
    if (rv != 0)
        return refuse(e, r->dir, raft_errmsg(&r->raft));
    return check_kind(r, e);
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

static void give_up(struct replica *r, const struct err *e)
{
    r->state = STATE_CLOSING;
    r->closing_ms = clock_boot_ms();
    report_open(r, e);
}

static void open_alone(struct replica *r)
{
    static const struct mesh_node self = {.id = REPLICA_ALONE_ID};
    struct err e = {0};
    if (open_raft(r, REPLICA_ALONE_ID, REPLICA_ALONE_ADDRESS, &e) < 0 || start_raft(r, &self, 1, &e) < 0)
        give_up(r, &e);
    else
        r->voting = true;
}

/* Every turn while it opens: the node must lead, and all its log must be applied. */
static void look_opening(struct replica *r)
{
    struct err e = {0};
    if (r->broken.code != ERR_OK) {
        (void)refuse(&e, r->dir, r->broken.text); /* what open() answers */
        give_up(r, &e);
        return;
    }
    replica_look_lead(r);
    if (!r->ready)
        return;
    r->state = STATE_OPEN;
    replica_learn(r, machine_meta(r->machine));
    report_open(r, NULL);
}

/* From here on it votes, when a leader counts it among the voters. */
static int begin_voting(struct replica *r, struct err *e)
{
    struct mesh_node self = {.id = r->vote.id};
    char address[REPLICA_ADDRESS_MAX];
    int fd = r->vote.fd;
    r->vote.fd = -1;
    for (size_t i = 0; i < r->vote.first_count; i++)
        if (r->vote.first[i].id == self.id)
            self = r->vote.first[i];
    replica_put_address(address, &self);
    if (r->broken.code != ERR_OK || r->state != STATE_OPEN) {
        (void)close(fd);
        return err_set(e, ERR_CANCELLED, "the store is being closed");
    }
    int rc = mesh_listen(r->mesh, fd, e);
    if (rc == 0)
        rc = open_raft(r, r->vote.id, address, e);
    if (rc == 0)
        rc = start_raft(r, r->vote.first, r->vote.first_count, e);
    if (rc < 0)
        return rc;
    r->voting = true;
    r->nodes_stale = true;
    return 0;
}

void replica_take_vote(struct replica *r)
{
    struct err e = {0};
    pthread_mutex_lock(&r->lock);
    bool wanted = r->vote.wanted;
    r->vote.wanted = false;
    pthread_mutex_unlock(&r->lock);
    if (!wanted)
        return;
    (void)begin_voting(r, &e); /* replica_vote() tells */
    pthread_mutex_lock(&r->lock);
    r->vote.err = e;
    r->vote.done = true;
    r->stats.open_ms = clock_boot_ms() - r->opened_ms;
    pthread_cond_signal(&r->opened);
    pthread_mutex_unlock(&r->lock);
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */

static void close_handles(struct replica *r)
{
    r->state = STATE_CLOSED;
    uv_close((uv_handle_t *)&r->wake, NULL);
    uv_close((uv_handle_t *)&r->tick, NULL);
    uv_close((uv_handle_t *)&r->slices, NULL);
    uv_close((uv_handle_t *)&r->replays, NULL);
    uv_close((uv_handle_t *)&r->look, NULL);
}

static void on_raft_closed(struct raft *raft)
{
    struct replica *r = raft->data;
    raft_uv_close(&r->io);
    close_handles(r);
}

static void begin_close(struct replica *r)
{
    if (r->closing_ms == 0 || (r->in_flight && clock_boot_ms() - r->closing_ms < CLOSE_MS) ||
        !replica_hand_over(r))
        return;
    if (r->mesh)
        mesh_close(r->mesh);
    if (r->mesh && mesh_sending(r->mesh) > 0)
        return; /* they point into libraft */
    r->closing_ms = 0;
    r->voting = false;
    (void)uv_idle_stop(&r->slices); /* cannot fail */
    (void)uv_idle_stop(&r->replays);
    if (!r->made_raft) {
        close_handles(r);
        return;
    }
    r->raft.data = r;
    raft_close(&r->raft, on_raft_closed);
}

static void on_turn(uv_prepare_t *prepare)
{
    struct replica *r = prepare->data;
    if (r->state == STATE_OPENING)
        look_opening(r);
    if (r->state == STATE_OPEN) {
        replica_look_lead(r);
        replica_look_version(r);
        maybe_snapshot(r);
    }
    if (r->state != STATE_CLOSED)
        replica_pump(r);
    if (r->mesh && r->state != STATE_CLOSED) {
        replica_look_nodes(r);
        replica_look_view(r);
        mesh_flush(r->mesh);
    }
    if (r->state == STATE_CLOSING)
        begin_close(r);
}

static void look_memory(struct replica *r)
{
    if (r->trim_ms == 0 || clock_boot_ms() < r->trim_ms)
        return;
    r->trim_ms = 0;
    pages_trim();
}

static void on_tick(uv_timer_t *timer)
{
    struct replica *r = timer->data;
    if (r->mesh && r->state != STATE_CLOSED) {
        mesh_tick(r->mesh);
        replica_ask_who(r);
        replica_members_tick(r);
    }
    replica_look_disk(r);
    look_memory(r);
    replica_tick(r);
}

static void init_handles(struct replica *r)
{
    uint64_t tick_ms = r->cluster ? CLUSTER_TICK_MS : ALONE_TICK_MS;
    (void)uv_timer_init(&r->uv, &r->tick); /* these cannot fail */
    (void)uv_idle_init(&r->uv, &r->slices);
    (void)uv_idle_init(&r->uv, &r->replays);
    (void)uv_prepare_init(&r->uv, &r->look);
    r->wake.data = r->tick.data = r->slices.data = r->replays.data = r->look.data = r;
    (void)uv_timer_start(&r->tick, on_tick, tick_ms, tick_ms);
    (void)uv_prepare_start(&r->look, on_turn);
}

static void open_mesh(struct replica *r)
{
    struct mesh_options options = {.loop = &r->uv,
                                   .cluster = r->cluster,
                                   .tls = r->options.tls,
                                   .message = on_peer_message,
                                   .request = replica_on_request,
                                   .arg = r};
    r->mesh = mesh_new(&options);
    r->state = STATE_OPEN;
    report_open(r, NULL);
}

void *replica_thread(void *arg)
{
    struct replica *r = arg;
    init_handles(r);
    if (r->cluster)
        open_mesh(r);
    else
        open_alone(r);
    uv_run(&r->uv, UV_RUN_DEFAULT);
    return NULL;
}
