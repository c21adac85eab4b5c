#define XXH_INLINE_ALL
#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

/* --- keys ---------------------------------------------------------------------------------------------------------- */

static uint64_t key_hash(const char *ns, const char *id)
{
    return XXH3_64bits_withSeed(id, strlen(id), XXH3_64bits(ns, strlen(ns)));
}

struct pjob *pjob_by_uid(const struct planner *p, const struct uid *uid)
{
    return map_get(&p->uids, uid->bytes, sizeof(uid->bytes));
}

struct pjob *pjob_by_key(const struct planner *p, const char *ns, const char *id)
{
    struct pjob *j = map_u64_get(&p->keys, key_hash(ns, id));
    while (j && (strcmp(j->row.ns, ns) != 0 || strcmp(j->row.id, id) != 0))
        j = j->same_key;
    return j;
}

int pjob_add_uid(struct planner *p, struct pjob *j, struct err *e)
{
    assert(!j->in_uids && !pjob_by_uid(p, &j->row.uid));
    int r = map_put(&p->uids, j->row.uid.bytes, sizeof(j->row.uid.bytes), j, NULL, e);
    j->in_uids = r == 0;
    return r;
}

int pjob_add_key(struct planner *p, struct pjob *j, struct err *e)
{
    assert(!j->in_keys && !pjob_by_key(p, j->row.ns, j->row.id));
    uint64_t hash = key_hash(j->row.ns, j->row.id);
    struct pjob *same = map_u64_get(&p->keys, hash);
    int r = map_u64_put(&p->keys, hash, j, NULL, e);
    if (r < 0)
        return r;
    j->same_key = same;
    j->in_keys = true;
    return 0;
}

static void remove_key(struct planner *p, struct pjob *j)
{
    if (!j->in_keys)
        return;
    uint64_t hash = key_hash(j->row.ns, j->row.id);
    struct pjob *head = map_u64_get(&p->keys, hash);
    if (head == j && !j->same_key) {
        (void)map_u64_remove(&p->keys, hash);
    } else if (head == j) {
        (void)map_u64_put(&p->keys, hash, j->same_key, NULL, NULL); /* replacing cannot fail */
    } else {
        while (head->same_key != j)
            head = head->same_key;
        head->same_key = j->same_key;
    }
    j->same_key = NULL;
    j->in_keys = false;
}

void pjob_forget_uid(struct planner *p, struct pjob *j)
{
    if (j->in_uids)
        (void)map_remove(&p->uids, j->row.uid.bytes, sizeof(j->row.uid.bytes));
    j->in_uids = false;
    j->copied_version = 0; /* copies are kept by uid: that of the next job under this name is not there */
}

int pjob_add_keys(struct planner *p, struct pjob *j, const struct job_row *row, struct err *e)
{
    if (j->in_uids && memcmp(&j->row.uid, &row->uid, sizeof(row->uid)) != 0) /* its name was taken anew */
        pjob_forget_uid(p, j);
    j->row.uid = row->uid;
    int r = j->in_uids ? 0 : pjob_add_uid(p, j, e);
    if (r < 0 || j->in_keys)
        return r;
    memcpy(j->row.ns, row->ns, sizeof(row->ns));
    memcpy(j->row.id, row->id, sizeof(row->id));
    r = pjob_add_key(p, j, e);
    if (r < 0)
        j->row.ns[0] = '\0'; /* it is asked for by its uid */
    return r;
}

/* --- jobs ---------------------------------------------------------------------------------------------------------- */

static void job_free(void *ptr)
{
    struct pjob *j = ptr;
    job_spec_unref(j->spec);
    job_spec_unref(j->replaced);
    mem_free(j);
}

struct pjob *pjob_new(struct planner *p, uint16_t slot, struct err *e)
{
    struct pjob *j = mem_try_alloc(sizeof(*j), e);
    if (!j)
        return NULL;
    j->row.slot = slot;
    j->state = PJOB_READING;
    list_init(&j->slot_link);
    list_init(&j->dirty_link);
    list_init(&j->fires);
    list_init(&j->start.link);
    wheel_timer_init(&j->timer, pjob_timer, p);
    j->api_tail = &j->api;
    list_push_back(&p->slots[slot].jobs, &j->slot_link);
    j->moving = p->slots[slot].state == PSLOT_MOVING;
    p->stats.jobs_loaded++;
    pjob_account(p, j);
    return j;
}

void pjob_account(struct planner *p, struct pjob *j)
{
    size_t bytes = sizeof(*j) + 64 + (j->spec ? job_spec_memory_bytes(j->spec) : 0);
    p->stats.memory_bytes = p->stats.memory_bytes - j->bytes + bytes;
    j->bytes = bytes;
}

void pjob_set_spec(struct planner *p, struct pjob *j, struct job_spec *spec)
{
    struct ptarget *target = spec ? ptarget_get(p, spec) : NULL;
    planner_start_cancel(p, &j->start); /* it may wait at the old target */
    ptarget_put(p, j->target);
    j->target = target;
    if (j->spec)
        planner_trash(p, (void (*)(void *))job_spec_unref, j->spec);
    j->spec = spec;
    pjob_account(p, j);
}

bool pjob_clean(const struct pjob *j)
{
    return j->op == CHANGE_NONE && !j->fires_dirty && !j->in_batch;
}

bool pjob_active(const struct pjob *j)
{
    return j->state == PJOB_LIVE && !j->moving && !j->deleting;
}

uint64_t pjob_pending(const struct pjob *j)
{
    const struct job_counts *c = &j->row.counts;
    return c->seq - (c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled);
}

void pjob_link_dirty(struct planner *p, struct pjob *j)
{
    bool dirty = j->op != CHANGE_NONE || j->fires_dirty;
    if (!dirty || j->in_batch || list_linked(&j->dirty_link))
        return;
    list_push_back(j->moving ? &p->dirty_moving : &p->dirty, &j->dirty_link);
    j->lined_up = !j->moving;
    p->dirty_count += j->lined_up;
}

void pjob_unlink_dirty(struct planner *p, struct pjob *j)
{
    list_remove(&j->dirty_link);
    p->dirty_count -= j->lined_up;
    j->lined_up = false;
}

/* DELETE outweighs all; INSERT and REPLACE carry what an UPDATE would. */
void pjob_dirty(struct planner *p, struct pjob *j, enum change_op op)
{
    assert(j->state == PJOB_LIVE || j->state == PJOB_GONE || op == CHANGE_INSERT);
    if (!j->ghost && op > j->op && !(j->op == CHANGE_INSERT && op == CHANGE_UPDATE))
        j->op = op;
    pjob_link_dirty(p, j);
}

void pjob_unwritten(struct planner *p, struct pjob *j)
{
    if (p->stats.unwritten == 0)
        p->written_ms = p->now_ms;
    j->unwritten++;
    p->stats.unwritten++;
}

static bool job_busy(const struct pjob *j)
{
    return !pjob_clean(j) || !list_empty(&j->fires) || j->first || j->api_count > 0 || j->read ||
           j->state == PJOB_READING;
}

static void job_unlink(struct planner *p, struct pjob *j)
{
    planner_read_forget(j);
    planner_start_cancel(p, &j->start);
    wheel_cancel(p->wheel, &j->timer);
    remove_key(p, j);
    pjob_forget_uid(p, j);
    list_remove(&j->slot_link);
    pjob_unlink_dirty(p, j);
    ptarget_put(p, j->target);
    j->target = NULL;
}

static void job_release(struct planner *p, struct pjob *j)
{
    assert(!j->in_batch && "its batch points to it");
    p->stats.unwritten -= j->unwritten;
    p->stats.jobs_loaded--;
    p->stats.memory_bytes -= j->bytes;
    planner_trash(p, job_free, j);
}

/* Its own dirt is dropped: whoever calls this knows that the store has it or that it may not be written any more. */
void pjob_gone(struct planner *p, struct pjob *j)
{
    if (j->state != PJOB_GONE) {
        papi_refuse_all(p, j, PLANNER_NOT_OWNER);
        job_unlink(p, j);
        j->state = PJOB_GONE;
        list_push_back(&p->orphans, &j->slot_link);
    }
    j->fires_dirty = false; /* of those that are left */
    LIST_FOR (l, &j->fires)
        j->fires_dirty |= container_of(l, struct pfire, job_link)->dirty != CHANGE_NONE;
    if (!pjob_clean(j) || !list_empty(&j->fires) || j->first)
        return;
    list_remove(&j->slot_link);
    pjob_unlink_dirty(p, j);
    job_release(p, j);
}

/* What wakes before this has to be in memory: the reads that are under way may have passed it already. */
int64_t planner_edge_ms(const struct planner *p)
{
    return p->loading_ms > p->resident_ms ? p->loading_ms : p->resident_ms;
}

static bool may_leave(const struct planner *p, const struct pjob *j)
{
    if (job_busy(j) || j->moving)
        return false;
    if (j->state == PJOB_ABSENT)
        return true;
    return j->state == PJOB_LIVE && pbackfill_wake_ms(&j->row) >= planner_edge_ms(p);
}

void pjob_settle(struct planner *p, struct pjob *j)
{
    if (j->state == PJOB_GONE) {
        pjob_gone(p, j);
        return;
    }
    if (!may_leave(p, j)) {
        pjob_arm(p, j);
        return;
    }
    if (j->state == PJOB_LIVE && !j->ghost)
        planner_tomb(p, &j->row.uid, 0, j->row.rev);
    if (j->left)
        planner_load_near(p, &j->row.slot, 1);
    job_unlink(p, j);
    job_release(p, j);
}

void pjob_drop_fires(struct planner *p, struct pjob *j)
{
    LIST_FOR_SAFE(l, &j->fires)
    pfire_drop(p, container_of(l, struct pfire, job_link));
    j->first = NULL;
}

/* What is known of a job from the store, SPEC's reference included. */
void pjob_take_row(struct planner *p, struct pjob *j, const struct job_row *row, struct job_spec *spec)
{
    assert(j->state != PJOB_GONE && j->in_uids && j->in_keys);
    uint16_t slot = j->row.slot;
    j->row = *row;
    j->row.slot = slot;
    j->durable_rev = row->rev;
    j->state = PJOB_LIVE;
    j->wanted = j->resync = false;
    pjob_set_spec(p, j, spec);
    pbackfill_loaded(p, j);
}

/* Both were asked for, J by one key and OTHER by the other, and turned out to be the same job. */
void pjob_absorb(struct planner *p, struct pjob *j, struct pjob *other)
{
    LIST_FOR_SAFE(l, &other->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        list_remove(&f->job_link);
        list_push_back(&j->fires, &f->job_link);
        f->job = j;
    }
    while (other->api) {
        struct planner_api *api = other->api;
        other->api = api->next;
        papi_push(j, api);
    }
    other->api_tail = &other->api;
    other->api_count = 0;
    j->wanted |= other->wanted;
    j->resync |= other->resync;
    job_unlink(p, other);
    other->state = PJOB_GONE;
    job_release(p, other);
}
