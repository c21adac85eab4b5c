/* The state as a snapshot has it. In a cluster it is built on a thread of its own, for seconds when it is large, while this voter goes on to
 * be heard; entries that are applied meanwhile wait, and follow some at a time. */
#include "agent/store/raft/replica_private.h"

#include <assert.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"

/* Entries that waited are applied for so long before the loop looks at its connections again. */
#define REPLAY_MS 5

static const struct log_ctx log_here = {.module = "raft"};

/* One that waits for the state before it. */
struct late_entry {
    struct list link;
    size_t bytes;
    char data[];
};

/* A snapshot on its way to become the state. */
struct restoring {
    uv_work_t work;
    struct replica *r;
    struct raft_buffer from;
    struct machine *m; /* what is made of it; then the one whose place it took, to be freed */
    struct err err;
};

/* --- entries that wait --------------------------------------------------------------------------------------------- */

bool replica_is_restoring(const struct replica *r)
{
    return r->restoring || !list_empty(&r->late);
}

void replica_apply_later(struct replica *r, const void *data, size_t bytes)
{
    struct late_entry *entry = mem_alloc_or_die(1, sizeof(*entry) + bytes);
    list_init(&entry->link);
    entry->bytes = bytes;
    memcpy(entry->data, data, bytes);
    list_push_back(&r->late, &entry->link);
}

void replica_drop_late(struct replica *r)
{
    for (struct list *link; (link = list_pop_front(&r->late));)
        mem_free(container_of(link, struct late_entry, link));
}

/* Runs whenever the loop has nothing else to do. */
static void replay(uv_idle_t *idle)
{
    struct replica *r = idle->data;
    uint64_t until_ms = clock_boot_ms() + REPLAY_MS;
    struct list *link = NULL;
    while (r->broken.code == ERR_OK && clock_boot_ms() < until_ms && (link = list_pop_front(&r->late))) {
        struct late_entry *entry = container_of(link, struct late_entry, link);
        replica_apply_now(r, entry->data, entry->bytes, NULL);
        mem_free(entry);
    }
    if (!list_empty(&r->late) && r->broken.code == ERR_OK)
        return;
    replica_drop_late(r);     /* of a log that is of no use any more */
    (void)uv_idle_stop(idle); /* cannot fail */
}

/* --- a machine takes the place of another -------------------------------------------------------------------------- */

/* Readers see the one or the other. The one before; a snapshot of it is of no use any more. */
static struct machine *take_place(struct replica *r, struct machine *m)
{
    struct machine *before = r->machine;
    pthread_mutex_lock(&r->machine_lock);
    r->machine = m;
    pthread_mutex_unlock(&r->machine_lock);
    return before;
}

static void forget_snapshot(struct replica *r, size_t bytes)
{
    (void)uv_idle_stop(&r->slices); /* cannot fail */
    r->snapshot_ready = false;
    raft_set_snapshot_threshold(&r->raft, REPLICA_NO_SNAPSHOTS);
    pthread_mutex_lock(&r->machine_lock);
    machine_snapshot_abort(r->machine);
    pthread_mutex_unlock(&r->machine_lock);
    pthread_mutex_lock(&r->lock);
    r->stats.snapshot_bytes = bytes;
    r->stats.installs += r->voting && r->mesh;
    pthread_mutex_unlock(&r->lock);
    r->since_entries = r->since_bytes = 0;
}

/* Alone nobody else waits: the log is open when all is read. */
static int restore_now(struct replica *r, struct raft_buffer *buf)
{
    struct err e = {0};
    struct machine *m = machine_new();
    if (machine_restore(m, buf->base, buf->len, &e) < 0) {
        machine_free(m);
        replica_break(r, e.text);
        return RAFT_CORRUPT;
    }
    forget_snapshot(r, buf->len);
    machine_free(take_place(r, m));
    raft_free(buf->base);
    return 0;
}

/* --- on a thread --------------------------------------------------------------------------------------------------- */

static void build(uv_work_t *work)
{
    struct restoring *s = container_of(work, struct restoring, work);
    s->m = machine_new();
    (void)machine_restore(s->m, s->from.base, s->from.len, &s->err); /* looked at when it is back */
    raft_free(s->from.base);
}

static void clear(uv_work_t *work)
{
    machine_free(container_of(work, struct restoring, work)->m);
}

static void on_cleared(uv_work_t *work, int status)
{
    struct restoring *s = container_of(work, struct restoring, work);
    assert(status == 0); /* nobody cancels it */
    mem_free(s);
}

static void on_built(uv_work_t *work, int status)
{
    struct restoring *s = container_of(work, struct restoring, work);
    struct replica *r = s->r;
    bool newest = r->restoring == s;
    assert(status == 0); /* nobody cancels it */
    if (newest)
        r->restoring = NULL;
    if (newest && s->err.code != ERR_OK) {
        replica_break(r, s->err.text);
    } else if (newest) {
        s->m = take_place(r, s->m);
        log_info(&log_here, "the snapshot is the state now", "entry=%llu",
                 (unsigned long long)machine_seq(r->machine));
        if (r->state == STATE_OPEN)
            (void)uv_idle_start(&r->replays, replay); /* cannot fail with a callback */
    }
    (void)uv_queue_work(&r->uv, &s->work, clear, on_cleared); /* cannot fail with a function */
}

/* Of two that come one after the other the later one counts, and what was applied between them is in it. */
static void restore_later(struct replica *r, struct raft_buffer *buf)
{
    struct restoring *s = mem_new(struct restoring);
    s->r = r;
    s->from = *buf;
    (void)uv_idle_stop(&r->replays); /* cannot fail */
    replica_drop_late(r);
    forget_snapshot(r, buf->len);
    r->restoring = s;
    (void)uv_queue_work(&r->uv, &s->work, build, on_built); /* cannot fail with a function */
}

int replica_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct replica *r = fsm->data;
    if (!r->mesh)
        return restore_now(r, buf);
    restore_later(r, buf);
    return 0;
}
