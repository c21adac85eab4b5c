#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/fire_parts.h"
#include "agent/core/planner_private.h"

#define SPAN_MIN_MS 1000 /* nearness outweighs the memory limit: this much is always loaded */

/* --- reads --------------------------------------------------------------------------------------------------------- */

static struct pread *read_new(struct planner *p, enum pread_kind kind)
{
    struct pread *r = mem_new(struct pread);
    r->id = ++p->read_id;
    r->kind = kind;
    if (map_u64_put(&p->reads, r->id, r, NULL, NULL) < 0) {
        mem_free(r);
        return NULL;
    }
    return r;
}

static struct pread *read_take(struct planner *p, uint64_t id)
{
    return map_u64_remove(&p->reads, id);
}

void planner_read_forget(struct pjob *j)
{
    if (j->read)
        j->read->job = NULL;
    j->read = NULL;
}

static void read_job_now(struct planner *p, struct pjob *j)
{
    struct pread *r = read_new(p, PREAD_JOB);
    if (!r) {
        planner_arm(p, &j->timer, p->now_ms + PLANNER_READ_RETRY_MS);
        return;
    }
    r->job = j;
    j->read = r;
    p->gets++;
    p->stats.looks++;
    struct planner_action *a = planner_act(p, PLANNER_DO_GET_JOB);
    a->load = r->id;
    a->uid = j->row.uid;
    a->version = j->copy_asked = j->copy_version;
    if (j->row.ns[0]) {
        a->ns = j->row.ns;
        a->id = j->row.id;
    }
}

void planner_read_job(struct planner *p, struct pjob *j)
{
    assert(j->state == PJOB_READING && !j->read);
    if (p->gets < PLANNER_GETS_MAX)
        read_job_now(p, j);
    else if (!list_linked(&j->dirty_link))
        list_push_back(&p->gets_waiting, &j->dirty_link);
}

void planner_read_change(struct planner *p, struct pjob *j, const struct planner_api *api)
{
    struct pread *r = read_new(p, PREAD_CHANGE);
    if (!r) {
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    r->job = j;
    j->read = r;
    struct planner_action *a = planner_act(p, PLANNER_DO_FIND_CHANGE);
    a->load = r->id;
    a->ns = api->ns;
    a->id = api->id;
    a->change_id = api->change_id;
}

void planner_read_fire(struct planner *p, struct pjob *j, uint64_t seq, size_t limit)
{
    struct pread *r = read_new(p, PREAD_FIRE);
    if (!r) {
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    r->job = j;
    r->gen = p->gen;
    p->fire_reads++;
    j->read = r;
    struct planner_action *a = planner_act(p, PLANNER_DO_GET_FIRE);
    a->load = r->id;
    a->uid = j->row.uid;
    a->seq = seq;
    a->limit = limit;
}

static void on_fire_read(struct planner *p, const struct pread *r, const struct planner_event *event)
{
    struct pjob *j = r->job;
    p->fire_reads--;
    if (!j)
        return;
    j->read = NULL;
    papi_fire_read(p, j, event, r->gen);
    papi_run(p, j);
    pjob_settle(p, j);
}

void planner_on_change_found(struct planner *p, const struct planner_event *event)
{
    struct pread *r = read_take(p, event->load);
    if (!r)
        return;
    struct pjob *j = r->job;
    mem_free(r);
    if (!j)
        return;
    j->read = NULL;
    if (!event->ok)
        papi_reply(p, j, PLANNER_UNAVAILABLE);
    else
        papi_found(p, j, event->revision);
    papi_run(p, j);
    pjob_settle(p, j);
}

/* --- chains -------------------------------------------------------------------------------------------------------- */

static void chain_retry(struct wheel_timer *t, void *arg)
{
    (void)t;
    planner_load_pump(arg);
}

static struct pchain *chain_new(struct planner *p, const uint16_t *slots, size_t count, bool fires,
                                int64_t from_ms, int64_t until_ms)
{
    struct pchain *c = mem_new(struct pchain);
    c->fires = fires;
    c->gen = p->gen;
    c->slots = mem_new_array(uint16_t, count ? count : 1);
    memcpy(c->slots, slots, count * sizeof(*slots));
    c->slots_count = count;
    c->from_ms = from_ms;
    c->until_ms = until_ms;
    wheel_timer_init(&c->retry, chain_retry, p);
    list_push_back(&p->chains, &c->link);
    if (!fires && until_ms != PLANNER_NEVER && until_ms > p->loading_ms)
        p->loading_ms = until_ms;
    return c;
}

static void trash_chain(void *ptr)
{
    struct pchain *c = ptr;
    mem_free(c->slots);
    mem_free(c);
}

void pchain_free(struct planner *p, struct pchain *c)
{
    wheel_cancel(p->wheel, &c->retry);
    list_remove(&c->link);
    if (c->read)
        c->read->chain = NULL;
    planner_trash(p, trash_chain, c);
    if (list_empty(&p->chains))
        p->loading_ms = 0;
}

/* A slot that was lost, or lost and gained again, since C began is not C's any more; of one that is being given away
 * nothing new may be begun. */
static bool chain_covers(const struct planner *p, const struct pchain *c, uint16_t slot)
{
    return slot < p->options.slots && p->slots[slot].state == PSLOT_HELD && p->slots[slot].gained <= c->gen;
}

static void chain_filter(const struct planner *p, struct pchain *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->slots_count; i++)
        if (chain_covers(p, c, c->slots[i]))
            c->slots[kept++] = c->slots[i];
    c->slots_count = kept;
}

static void window_done(struct planner *p)
{
    if (--p->window_loading > 0)
        return;
    p->resident_ms = p->window_until_ms;
    if (p->stats.memory_bytes < p->options.memory_max_bytes / 2 && p->span_ms < p->options.horizon_ms)
        p->span_ms = p->span_ms * 2 < p->options.horizon_ms ? p->span_ms * 2 : p->options.horizon_ms;
    planner_arm(p, &p->window_timer, p->resident_ms - p->span_ms / 2);
}

static void whole_done(struct pslot *s, const struct pchain *c)
{
    s->whole = c->whole;
    s->whole_asked = 0;
}

static void chain_done(struct planner *p, struct pchain *c)
{
    chain_filter(p, c);
    if (c->again && c->slots_count > 0) {
        c->again = c->has_cursor = false;
        return;
    }
    for (size_t i = 0; c->first && i < c->slots_count; i++)
        if (--p->slots[c->slots[i]].loading == 0)
            p->stats.slots_loading--;
    if (c->whole && c->slots_count > 0)
        whole_done(&p->slots[c->slots[0]], c);
    if (c->window)
        window_done(p);
    if (c->stale)
        pzones_done(p, c);
    pchain_free(p, c);
}

static void chain_page(struct planner *p, struct pchain *c)
{
    c->read = read_new(p, PREAD_CHAIN);
    if (!c->read) {
        planner_arm(p, &c->retry, p->now_ms + PLANNER_READ_RETRY_MS);
        return;
    }
    c->read->chain = c;
    c->gen = p->gen; /* slots gained since are filtered out below, so only tombs care */
    p->chain_reads++;
    struct planner_action *a = planner_act(p, c->fires ? PLANNER_DO_LOAD_FIRES : PLANNER_DO_LOAD_JOBS);
    a->load = c->read->id;
    a->slots = c->slots;
    a->slots_count = c->slots_count;
    a->from_ms = c->from_ms;
    a->until_ms = c->until_ms;
    a->has_cursor = c->has_cursor;
    a->cursor_slot = c->cursor_slot;
    a->cursor_wake_ms = c->cursor_wake_ms;
    a->uid = c->cursor_uid;
    a->seq = c->cursor_seq;
    a->limit = p->options.load_page;
    a->tzdata_before = c->stale ? p->tzdata : NULL;
}

/* What C brings has room in memory. */
static bool chain_has_room(const struct planner *p, const struct pchain *c)
{
    if (c->stale)
        return p->stats.memory_bytes <= p->options.memory_max_bytes;
    return !c->release || planner_release_room(p, c->release);
}

void planner_load_pump(struct planner *p)
{
    while (p->gets < PLANNER_GETS_MAX && !list_empty(&p->gets_waiting)) {
        struct pjob *j = container_of(list_pop_front(&p->gets_waiting), struct pjob, dirty_link);
        read_job_now(p, j);
    }
    bool gets_full = !list_empty(&p->gets_waiting);
    LIST_FOR_SAFE(l, &p->chains)
    {
        struct pchain *c = container_of(l, struct pchain, link);
        if (p->chain_reads >= PLANNER_READS_MAX)
            break;
        if (c->read || wheel_timer_armed(&c->retry) || (c->fires && gets_full))
            continue;
        chain_filter(p, c);
        if (!chain_has_room(p, c))
            planner_arm(p, &c->retry, p->now_ms + PLANNER_READ_RETRY_MS);
        else if (c->slots_count > 0)
            chain_page(p, c);
        else
            chain_done(p, c);
    }
    planner_tombs_prune(p);
}

static size_t held_slots(const struct planner *p, uint16_t *slots)
{
    size_t n = 0;
    for (uint32_t i = 0; i < p->options.slots; i++)
        if (p->slots[i].state != PSLOT_NONE)
            slots[n++] = (uint16_t)i;
    return n;
}

void planner_load_slots(struct planner *p, const uint16_t *slots, size_t count)
{
    int64_t soon_ms = p->now_ms + PLANNER_SOON_MS, until_ms = p->now_ms + p->span_ms;
    until_ms = until_ms < p->resident_ms ? p->resident_ms : until_ms;
    until_ms = until_ms < p->loading_ms ? p->loading_ms : until_ms;
    if (p->stats.slots_owned == count) { /* the first ones: they make the window */
        p->resident_ms = until_ms;
        planner_arm(p, &p->window_timer, until_ms - p->span_ms / 2);
    }
    for (int stage = 0; stage < 4; stage++) {
        int64_t from_ms = stage < 2 ? RECORD_NONE : soon_ms;
        struct pchain *c = chain_new(p, slots, count, stage & 1, from_ms, stage < 2 ? soon_ms : until_ms);
        c->first = true;
    }
    for (size_t i = 0; i < count; i++)
        p->slots[slots[i]].loading = 4;
    p->stats.slots_loading += count;
    planner_load_pump(p);
}

void planner_load_fires(struct planner *p, const uint16_t *slots, size_t count, int64_t until_ms)
{
    if (count == 0)
        return;
    (void)chain_new(p, slots, count, true, RECORD_NONE, until_ms);
    planner_load_pump(p);
}

bool planner_load_whole(struct planner *p, uint16_t slot, uint64_t since)
{
    struct pslot *s = &p->slots[slot];
    if (s->whole > since)
        return true;
    if (s->whole_asked == 0) {
        struct pchain *c = chain_new(p, &slot, 1, true, RECORD_NONE, PLANNER_NEVER);
        c->whole = s->whole_asked = ++p->whole_last;
        planner_load_pump(p);
    }
    return false;
}

void planner_load_near(struct planner *p, const uint16_t *slots, size_t count)
{
    int64_t soon_ms = p->now_ms + PLANNER_SOON_MS, edge_ms = planner_edge_ms(p);
    planner_load_fires(p, slots, count, soon_ms > edge_ms ? soon_ms : edge_ms);
}

void planner_load_window(struct planner *p)
{
    if (p->window_loading > 0 || p->stats.slots_owned == 0)
        return;
    uint16_t *slots = mem_new_array(uint16_t, p->options.slots);
    size_t n = held_slots(p, slots);
    int64_t until_ms = p->now_ms + p->span_ms;
    if (until_ms < p->resident_ms)
        until_ms = p->resident_ms;
    p->window_until_ms = until_ms;
    for (int fires = 1; fires >= 0; fires--) {
        struct pchain *c = chain_new(p, slots, n, fires, p->resident_ms, until_ms);
        c->window = true;
        p->window_loading++;
    }
    mem_free(slots);
    planner_load_pump(p);
}

/* Booked fires that had no room in their target's window: read again what is due of them, all slots. Asked for as long
 * as any are left. */
void planner_load_spilled(struct planner *p)
{
    bool room = false, left = false;
    for (struct map_iter it = {0}; map_next(&p->targets, &it);) {
        struct ptarget *t = it.value;
        if (t->spilled_ms == PLANNER_NEVER)
            continue;
        if (t->spilled_ms > p->now_ms || t->waiting > p->options.retry_window / 2) {
            left = true;
            continue;
        }
        t->spilled_ms = PLANNER_NEVER;
        t->users++;
        ptarget_put(p, t); /* nobody else may point to it any more */
        room = true;
    }
    if (left)
        planner_arm(p, &p->spill_timer, p->now_ms + PLANNER_READ_RETRY_MS);
    if (!room || p->stats.slots_owned == 0)
        return;
    uint16_t *slots = mem_new_array(uint16_t, p->options.slots);
    planner_load_near(p, slots, held_slots(p, slots));
    mem_free(slots);
}

/* All fires that wait, page by page: which target one belongs to its job knows. BEFORE is the target's last release, perhaps still
 * under way. */
void planner_load_released(struct planner *p, uint64_t before, uint64_t release)
{
    LIST_FOR (l, &p->chains) {
        struct pchain *c = container_of(l, struct pchain, link);
        if (before > 0 && c->release == before) {
            c->release = release;
            c->again = true;
            return;
        }
    }
    uint16_t *slots = mem_new_array(uint16_t, p->options.slots);
    size_t n = held_slots(p, slots);
    if (n > 0)
        chain_new(p, slots, n, true, RECORD_NONE, PLANNER_NEVER)->release = release;
    mem_free(slots);
    planner_load_pump(p);
}

void planner_load_foreign(struct planner *p)
{
    uint16_t *slots = mem_new_array(uint16_t, p->options.slots);
    size_t n = 0;
    for (uint32_t i = 0; i < p->options.slots; i++)
        if (p->slots[i].foreign > 0 && p->slots[i].state != PSLOT_NONE)
            slots[n++] = (uint16_t)i;
    planner_load_near(p, slots, n);
    mem_free(slots);
}

/* Jobs planned with older zone data than ours. */
void planner_load_stale(struct planner *p, const uint16_t *slots, size_t count)
{
    chain_new(p, slots, count, false, RECORD_NONE, PLANNER_NEVER)->stale = true;
    planner_load_pump(p);
}

/* --- pages --------------------------------------------------------------------------------------------------------- */

/* Over the limit: the same again with half the span. What is loaded already stays until it is done. */
static bool chain_shorten(struct planner *p, struct pchain *c)
{
    int64_t from_ms = c->from_ms == RECORD_NONE ? p->now_ms : c->from_ms;
    int64_t span_ms = c->until_ms - from_ms;
    if (c->fires || c->stale || p->stats.memory_bytes <= p->options.memory_max_bytes ||
        span_ms / 2 < SPAN_MIN_MS)
        return false;
    c->until_ms = from_ms + span_ms / 2;
    c->has_cursor = false;
    if (!c->window && p->resident_ms > c->until_ms)
        p->resident_ms = c->until_ms;
    if (p->window_until_ms > c->until_ms) /* whichever chain of the window is through last */
        p->window_until_ms = c->until_ms;
    if (p->span_ms > span_ms / 2)
        p->span_ms = span_ms / 2;
    planner_arm(p, &p->window_timer, p->resident_ms - p->span_ms / 2);
    planner_log(p, "memory limit reached: dues are loaded %lld ms ahead", (long long)p->span_ms);
    return true;
}

/* False without memory. Takes the spec's reference when it keeps the job. */
static bool load_job(struct planner *p, const struct pchain *c, struct planner_job *row)
{
    const struct job_row *r = &row->row;
    if (!row->spec || r->slot >= p->options.slots || !chain_covers(p, c, r->slot) ||
        r->wake_ms >= c->until_ms || planner_tomb_refuses(p, c->gen, &r->uid, 0, r->rev))
        return true;
    struct pjob *j = pjob_by_uid(p, &r->uid);
    if (!j)
        j = pjob_by_key(p, r->ns, r->id);
    if (j) {
        j->wanted = j->state == PJOB_READING;
        pzones_replan(p, j);
        return true;
    }
    j = pjob_new(p, r->slot, NULL);
    if (!j)
        return false;
    if (pjob_add_keys(p, j, r, NULL) < 0) {
        pjob_gone(p, j);
        return false;
    }
    pjob_take_row(p, j, r, TAKE(row->spec));
    pzones_replan(p, j);
    pjob_settle(p, j);
    return true;
}

static bool load_job_page(struct planner *p, struct pchain *c, const struct planner_event *event)
{
    for (size_t i = 0; i < event->jobs_count; i++) {
        struct planner_job *row = &event->jobs[i];
        if (!load_job(p, c, row))
            return false;
        c->has_cursor = true;
        c->cursor_slot = row->row.slot;
        c->cursor_wake_ms = row->row.wake_ms;
        c->cursor_uid = row->row.uid;
    }
    return true;
}

struct pfire *pjob_find_fire(const struct pjob *j, uint64_t seq)
{
    LIST_FOR (l, &j->fires) {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (f->booked && f->row.seq == seq)
            return f;
    }
    return NULL;
}

static void take_fire_row(struct planner *p, struct pfire *f, struct fire_row *row)
{
    p->stats.memory_bytes -= fire_row_bytes(&f->row);
    fire_row_fini(&f->row);
    fire_parts_free(TAKE(f->parts));
    f->parts_stale = false;
    f->row = *row;
    fire_row_taken(row);
    f->durable_rev = f->row.rev;
    f->booked = true;
    f->moved = false;
    bool unfinished = f->row.state == FIRE_STATE_WAITING || f->row.state == FIRE_STATE_HELD;
    bool asks = unfinished && f->row.until_ms != RECORD_NONE;
    f->control = asks ? (enum attempt_control)f->row.until_ms : ATTEMPT_CONTROL_NONE;
    p->stats.memory_bytes += fire_row_bytes(&f->row);
}

/* ROW was read for the API. What is decided on it is guarded by its rev; it may be older than it was when it was asked for. */
struct pfire *pfire_take_row(struct planner *p, struct pjob *j, struct fire_row *row, uint64_t gen)
{
    struct pfire *f = pjob_find_fire(j, row->seq);
    if (!f)
        f = pfire_new(p, j, NULL);
    if (!f)
        return NULL;
    if (row->rev >= f->durable_rev)
        take_fire_row(p, f, row);
    f->read_gen = gen;
    return f;
}

struct pjob *planner_stub(struct planner *p, uint16_t slot, const struct uid *uid, uint64_t version)
{
    struct pjob *j = pjob_new(p, slot, NULL);
    if (!j)
        return NULL;
    j->row.uid = *uid;
    j->copy_version = version;
    if (pjob_add_uid(p, j, NULL) < 0) {
        pjob_gone(p, j);
        return NULL;
    }
    planner_read_job(p, j);
    return j;
}

static bool load_fire(struct planner *p, const struct pchain *c, struct fire_row *row)
{
    if (row->slot >= p->options.slots || !chain_covers(p, c, row->slot) || row->state == FIRE_STATE_ENDED ||
        planner_tomb_refuses(p, c->gen, &row->uid, row->seq, row->rev))
        return true;
    struct pjob *j = pjob_by_uid(p, &row->uid);
    if (j && j->deleting)
        return true;
    if (!j)
        j = planner_stub(p, row->slot, &row->uid, row->orphan ? row->version : 0);
    if (!j)
        return false;
    if (j->state ==
        PJOB_ABSENT) { /* what was re-driven since is looked for when nobody asks for the job any more */
        j->left |= row->orphan;
        return true;
    }
    if (pletter_strange(j, row))
        return true;
    if (!pletter_fits(j, row)) {
        j->left = true;
        return true;
    }
    struct pfire *f = pjob_find_fire(j, row->seq);
    if (f && c->release && j->state == PJOB_READING)
        f->release = c->release;
    if (f && (!list_linked(&f->foreign_link) || row->rev < f->durable_rev))
        return true; /* ours to know; one that another member holds is looked at again */
    if (!f)
        f = pfire_new(p, j, NULL);
    if (!f) {
        pjob_settle(p, j);
        return false;
    }
    take_fire_row(p, f, row);
    f->read_gen = c->gen;
    f->release = c->release;
    if (j->state == PJOB_LIVE) {
        pfire_loaded(p, f);
        papi_asked(p, j);
        pjob_settle(p, j);
    }
    return true;
}

static bool load_fire_page(struct planner *p, struct pchain *c, const struct planner_event *event)
{
    for (size_t i = 0; i < event->fires_count; i++) {
        struct fire_row *row = &event->fires[i];
        uint16_t slot = row->slot;
        int64_t wake_ms = row->wake_ms;
        struct uid uid = row->uid;
        uint64_t seq = row->seq;
        if (!load_fire(p, c, row))
            return false;
        c->has_cursor = true;
        c->cursor_slot = slot;
        c->cursor_wake_ms = wake_ms;
        c->cursor_uid = uid;
        c->cursor_seq = seq;
    }
    return true;
}

static void on_page(struct planner *p, struct pchain *c, const struct planner_event *event, bool fires)
{
    assert(fires == c->fires);
    c->read = NULL;
    bool taken = event->ok && (fires ? load_fire_page(p, c, event) : load_job_page(p, c, event));
    if (!taken)
        planner_arm(p, &c->retry, p->now_ms + PLANNER_READ_RETRY_MS);
    else if (!chain_shorten(p, c) && !event->more)
        chain_done(p, c);
    else if (c->stale)
        pzones_page(p, c);
}

/* --- one job ------------------------------------------------------------------------------------------------------- */

static void job_unread(struct planner *p, struct pjob *j)
{
    papi_refuse_all(p, j, PLANNER_UNAVAILABLE);
    if (j->wanted || j->resync || !list_empty(&j->fires))
        planner_arm(p, &j->timer, p->now_ms + PLANNER_READ_RETRY_MS);
    else
        pjob_gone(p, j);
}

/* One of J's fires needs a copy that was not asked for; 0: none. */
static uint64_t copy_needed(const struct pjob *j)
{
    LIST_FOR (l, &j->fires) {
        const struct fire_row *row = &container_of(l, struct pfire, job_link)->row;
        if (row->orphan && j->copy_asked == 0)
            return row->version;
    }
    return 0;
}

static void job_absent(struct planner *p, struct pjob *j)
{
    uint64_t version = copy_needed(j);
    if (version) {
        pletter_read_copy(p, j, version);
        return;
    }
    if (pletter_expire(p, j))
        return;
    LIST_FOR (l,
              &j->fires) { /* whose copy was not asked for: looked at when nobody asks for the job any more */
        const struct fire_row *row = &container_of(l, struct pfire, job_link)->row;
        j->left |= row->orphan && row->version != j->copy_asked;
    }
    pjob_drop_fires(p, j);
    j->state = PJOB_ABSENT;
    papi_run(p, j);
    pjob_settle(p, j);
}

/* OTHER has the uid or key of the row that J was being read for, and is more than a question: either the row is of a job that was
 * deleted since it was asked for, or OTHER is about to be refused by the store. The next look tells. */
static bool disagrees(const struct pjob *j, const struct pjob *other)
{
    return other && other != j && other->state != PJOB_READING;
}

static bool is_next_due(const struct pjob *j, const struct pfire *f)
{
    return f->in_flight && !f->ended && f->durable_rev == 0 && f->row.kind == FIRE_KIND_SCHEDULED &&
           !j->moving && j->row.state == JOB_STATE_ACTIVE && f->row.seq == j->row.counts.seq + 1 &&
           f->row.due_ms == j->row.due_ms;
}

/* The attempt at the job's next due that was out when the job had to be read again: if that due is still the next one, it is the
 * attempt at it. That it was to be booked is void. */
static void take_back_first(struct pjob *j)
{
    LIST_FOR (l, &j->fires) {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (!is_next_due(j, f))
            continue;
        f->ignored = f->booked = false;
        f->row.state = FIRE_STATE_WAITING;
        f->row.attempts = 0;
        memset(f->row.holder, 0, sizeof(f->row.holder));
        j->first = f;
        j->has_next_due = pjob_next_due(j, &j->next_due_ms);
        return;
    }
}

static void job_read(struct planner *p, struct pjob *j, struct planner_job *row)
{
    struct pjob *by_uid = pjob_by_uid(p, &row->row.uid), *by_key = pjob_by_key(p, row->row.ns, row->row.id);
    if (disagrees(j, by_uid) || disagrees(j, by_key)) {
        planner_arm(p, &j->timer, p->now_ms + PLANNER_READ_RETRY_MS);
        return;
    }
    if (by_uid && by_uid != j)
        pjob_absorb(p, j, by_uid);
    if (by_key && by_key != j)
        pjob_absorb(p, j, by_key);
    if (pjob_add_keys(p, j, &row->row, NULL) < 0) { /* the page that brought its fires does not come again */
        job_unread(p, j);
        return;
    }
    pjob_take_row(p, j, &row->row, TAKE(row->spec));
    take_back_first(j);
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (j->moving)
            pfire_drop(p, f); /* the successor's by now */
        else if (f->booked)
            pfire_loaded(p, f);
    }
    papi_run(p, j);
    pjob_settle(p, j);
}

/* What it was to deliver is all that is left of the job. */
static void copy_read(struct planner *p, struct pjob *j, struct planner_job *row)
{
    pletter_ghost(p, j, TAKE(row->spec), j->copy_version);
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        bool strange = pletter_strange(j, &f->row), fits = pletter_fits(j, &f->row);
        j->left |= !strange && !fits;
        if (j->moving || strange || !fits)
            pfire_drop(p, f);
        else
            pfire_loaded(p, f);
    }
    papi_run(p, j);
    pjob_settle(p, j);
}

static void on_job(struct planner *p, struct pjob *j, const struct planner_event *event)
{
    p->gets--;
    if (!j)
        return;
    j->read = NULL;
    if (!event->ok)
        job_unread(p, j);
    else if (event->jobs_count == 0 || !event->jobs[0].spec)
        job_absent(p, j);
    else if (event->jobs[0].copy)
        copy_read(p, j, &event->jobs[0]);
    else
        job_read(p, j, &event->jobs[0]);
}

static void answer_free(const struct planner_event *event)
{
    for (size_t i = 0; i < event->jobs_count; i++) {
        job_spec_unref(event->jobs[i].spec);
        event->jobs[i].spec = NULL;
    }
    for (size_t i = 0; i < event->fires_count; i++)
        fire_row_fini(&event->fires[i]);
}

static void on_read(struct planner *p, const struct planner_event *event, bool fires)
{
    struct pread *r = read_take(p, event->load);
    if (r && r->kind == PREAD_CHAIN)
        p->chain_reads--;
    if (r && r->kind == PREAD_JOB)
        on_job(p, r->job, event);
    else if (r && r->kind == PREAD_FIRE)
        on_fire_read(p, r, event);
    else if (r && r->chain)
        on_page(p, r->chain, event, fires);
    mem_free(r);
    answer_free(event);
    planner_load_pump(p);
}

void planner_on_jobs(struct planner *p, const struct planner_event *event)
{
    on_read(p, event, false);
}

void planner_on_fires(struct planner *p, const struct planner_event *event)
{
    on_read(p, event, true);
}
