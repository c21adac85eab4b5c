#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

#define AGAIN_MIN_MS 20
#define AGAIN_MAX_MS 500

/* --- making one ------------------------------------------------------------------------------------------------------ */

static size_t dirty_fires(const struct pjob *j)
{
    size_t n = 0;
    LIST_FOR (l, &j->fires)
        n += container_of(l, struct pfire, job_link)->dirty != CHANGE_NONE;
    return n;
}

static void fires_free(struct pchange *c)
{
    for (size_t i = 0; i < c->change.fires_count; i++) {
        fire_row_fini(&c->change.fires[i].row);
        job_spec_unref(c->change.fires[i].copy);
    }
    mem_free(c->change.fires);
    mem_free(c->fires);
    c->change.fires = NULL;
    c->change.fires_count = 0;
    c->fires = NULL;
}

/* Many letters of a job die by one definition: its copy is sent once in a while, not with each. */
static void add_copy(struct fire_change *fc, const struct pjob *j, const struct pfire *f)
{
    int64_t needed_ms = f->letter_until_ms - PLANNER_COPY_MORE_MS;
    if (!f->letter_until_ms || !j->spec ||
        (j->copied_version == f->row.version && j->copied_until_ms >= needed_ms))
        return;
    fc->copy = job_spec_ref(j->spec);
    fc->copy_until_ms = f->letter_until_ms;
}

static int copy_fire(struct planner *p, struct fire_change *fc, struct pfire *f, struct err *e)
{
    if (!pparts_write(p, f))
        return err_set(e, ERR_NOMEM, "the parts of a fire");
    return fire_row_copy(&f->row, &fc->row, e);
}

/* The rows go out as copies: the fires live on while the batch is under way. Without memory nothing of J goes. What is
 * reported of a slot that is not ours goes one by one: one that nobody waits for any more must not hold up the others. */
static int copy_fires(struct planner *p, struct pchange *c, const struct pjob *j, struct err *e)
{
    size_t n = dirty_fires(j);
    if (n == 0)
        return 0;
    if (j->state == PJOB_GONE)
        n = 1;
    c->change.fires = mem_try_array(n, sizeof(*c->change.fires), e);
    c->fires = c->change.fires ? mem_try_array(n, sizeof(struct pfire *), e) : NULL;
    int r = c->fires ? 0 : -ERR_NOMEM;
    LIST_FOR (l, &j->fires) {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (r < 0 || c->change.fires_count == n)
            break;
        if (f->dirty == CHANGE_NONE)
            continue;
        struct fire_change *fc = &c->change.fires[c->change.fires_count];
        r = copy_fire(p, fc, f, e);
        if (r < 0)
            break;
        fc->op = f->dirty;
        fc->expect_rev = f->durable_rev;
        fc->row.rev = f->durable_rev + 1;
        memcpy(fc->expect_holder, f->guard, sizeof(fc->expect_holder));
        add_copy(fc, j, f);
        c->fires[c->change.fires_count++] = f;
    }
    if (r < 0)
        fires_free(c);
    return r;
}

static void mark_out(struct pjob *j, struct pchange *c)
{
    for (size_t i = 0; i < c->change.fires_count; i++) {
        c->fires[i]->dirty = CHANGE_NONE;
        c->fires[i]->in_batch = true;
    }
    j->op = CHANGE_NONE;
    j->fires_dirty = dirty_fires(j) > 0;
    memset(&j->revision, 0, sizeof(j->revision));
    j->in_batch = true;
    j->plan_in_batch = j->plan_dirty;
    j->plan_dirty = false;
    j->write_in_batch = j->write_dirty;
    j->unwritten_in_batch = j->unwritten;
    j->unwritten = 0;
    papi_mark_out(j);
    if (j->api_state == PAPI_APPLIED)
        j->api_state = PAPI_IN_BATCH;
}

static int fill_change(struct planner *p, struct pchange *c, struct pjob *j, struct err *e)
{
    struct job_change *change = &c->change;
    memset(c, 0, sizeof(*c));
    int r = copy_fires(p, c, j, e);
    if (r < 0)
        return r;
    change->op = j->op;
    change->expect_rev = j->durable_rev;
    j->row.rev = j->op == CHANGE_NONE ? j->durable_rev : j->durable_rev + 1;
    change->row = j->row;
    if (j->op != CHANGE_DELETE)
        change->row.wake_ms = pbackfill_wake_ms(&j->row);
    change->revision = j->revision;
    change->tag = j;
    if (j->op == CHANGE_INSERT || j->op == CHANGE_REPLACE)
        change->spec = job_spec_ref(j->spec);
    change->replaced = TAKE(j->replaced);
    mark_out(j, c);
    return 0;
}

static size_t count_batches(const struct planner *p, enum pbatch_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < PLANNER_BATCHES_MAX; i++)
        n += p->batches[i].state == state;
    return n;
}

static struct pbatch *find_batch(struct planner *p, enum pbatch_state state)
{
    for (size_t i = 0; i < PLANNER_BATCHES_MAX; i++)
        if (p->batches[i].state == state)
            return &p->batches[i];
    return NULL;
}

bool planner_batch_is_out(const struct planner *p)
{
    return count_batches(p, PBATCH_OUT) > 0;
}

bool planner_batch_has_move(const struct planner *p, const struct pmove *m)
{
    for (size_t i = 0; i < PLANNER_BATCHES_MAX; i++)
        if (p->batches[i].move == m)
            return true;
    return false;
}

static void make_room(struct pbatch *b, size_t rows_max)
{
    if (b->capacity >= rows_max)
        return;
    mem_free(b->changes);
    mem_free(b->pub.jobs);
    b->changes = mem_new_array(struct pchange, rows_max);
    b->pub.jobs = mem_new_array(struct job_change *, rows_max);
    b->capacity = rows_max;
}

static void fill(struct planner *p, struct pbatch *b, struct list *dirty, size_t rows_max)
{
    while (b->pub.jobs_count < rows_max && !list_empty(dirty)) {
        struct pjob *j = container_of(list_first(dirty), struct pjob, dirty_link);
        if (j->op == CHANGE_NONE && dirty_fires(j) == 0) {
            pjob_unlink_dirty(p, j);
            j->fires_dirty = false;
            continue;
        }
        struct pchange *c = &b->changes[b->pub.jobs_count];
        if (fill_change(p, c, j, NULL) < 0)
            return; /* it stays first in line */
        pjob_unlink_dirty(p, j);
        b->pub.jobs[b->pub.jobs_count++] = &c->change;
    }
}

/* Slots change hands in the batch that holds the last of what was dirty in them. */
static void fill_slots(struct planner *p, struct pbatch *b)
{
    if (list_empty(&p->moves) || !list_empty(&p->dirty_moving))
        return;
    struct pmove *m = container_of(list_first(&p->moves), struct pmove, link);
    b->move = m;
    b->pub.slots = mem_new_array(struct slot_change, m->slots_count ? m->slots_count : 1);
    b->pub.slots_count = m->slots_count;
    for (size_t i = 0; i < m->slots_count; i++) {
        struct slot_change *s = &b->pub.slots[i];
        s->slot = m->slots[i];
        s->from_epoch = m->epochs[i];
        memcpy(s->from, p->member, sizeof(s->from));
        memcpy(s->to, m->successor, sizeof(s->to));
    }
}

struct planner_batch *planner_take_batch(struct planner *p, size_t rows_max)
{
    assert(rows_max > 0);
    if (!planner_has_dirty(p))
        return NULL;
    struct pbatch *b = find_batch(p, PBATCH_AGAIN);
    if (!b) {
        b = find_batch(p, PBATCH_NONE);
        make_room(b, rows_max);
        p->batch_rows = rows_max;
        fill(p, b, &p->dirty_moving, rows_max);
        fill_slots(p, b);
        fill(p, b, &p->dirty, rows_max);
        p->awaited = !list_empty(&p->dirty);
        if (!list_empty(&p->dirty) || !list_empty(&p->dirty_moving)) /* no room, or no memory: come back */
            planner_arm(p, &p->batch_timer, p->now_ms + AGAIN_MIN_MS);
        if (b->pub.jobs_count == 0 && b->pub.slots_count == 0)
            return NULL;
    }
    b->state = PBATCH_OUT;
    return &b->pub;
}

/* Beside one that is out, a whole one: a part of one is written sooner with what comes meanwhile. Not while slots move, for these go
 * when all else is written; nor while there is anything left of slots that went, which may be ours again by now: what is written of the
 * same job, as it was and as it is, goes in its order. And what may have been written goes before anything else. */
static bool may_go_beside(const struct planner *p)
{
    return count_batches(p, PBATCH_OUT) < p->options.batches_max && list_empty(&p->moves) &&
           list_empty(&p->orphans) && p->dirty_count >= p->batch_rows;
}

bool planner_has_dirty(const struct planner *p)
{
    if (p->fenced)
        return false;
    if (count_batches(p, PBATCH_AGAIN) > 0)
        return p->now_ms >= p->batch_again_ms;
    if (planner_batch_is_out(p))
        return may_go_beside(p);
    return !list_empty(&p->dirty) || !list_empty(&p->dirty_moving) || !list_empty(&p->moves);
}

bool planner_awaited(const struct planner *p)
{
    return planner_has_dirty(p) && (p->awaited || !list_empty(&p->moves));
}

/* --- what became of it ----------------------------------------------------------------------------------------------- */

/* Its row in the store is not what we thought, or will never be: what we know of the job is worth nothing. */
static void forget_job(struct planner *p, struct pjob *j)
{
    wheel_cancel(p->wheel, &j->timer);
    planner_start_cancel(p, &j->start);
    pjob_unlink_dirty(p, j);
    pjob_drop_fires(p, j);
    p->stats.unwritten -= j->unwritten;
    j->unwritten = 0;
    j->op = CHANGE_NONE;
    job_spec_unref(TAKE(j->replaced));
    j->fires_dirty = j->plan_dirty = j->deleting = j->write_dirty = j->write_in_batch = j->asked = false;
}

static void reread(struct planner *p, struct pjob *j)
{
    forget_job(p, j);
    papi_unjoin(j);
    planner_read_forget(j);
    j->api_state = PAPI_IDLE; /* it is applied to what will be read */
    j->api_looked = false;
    j->state = PJOB_READING;
    j->resync = true;
    planner_read_job(p, j);
}

static void fire_is_as_sent(struct pfire *f, const struct fire_change *fc)
{
    f->durable_rev = fc->op == CHANGE_DELETE ? 0 : fc->row.rev;
    memset(f->guard, 0, sizeof(f->guard));
    if (fc->row.state == FIRE_STATE_HELD)
        memcpy(f->guard, fc->row.holder, sizeof(f->guard));
}

/* The slot went away with this batch or before it. The attempts that ran here may be held in the store by an earlier try
 * of the batch, and then nobody but us ends them: they are taken as written, which their report finds out. */
static void keep_running(struct planner *p, struct pchange *c)
{
    for (size_t i = 0; i < c->change.fires_count; i++) {
        struct pfire *f = c->fires[i];
        bool reports = f->in_flight || f->dirty != CHANGE_NONE;
        if (reports && !f->ignored && c->change.fires[i].row.state == FIRE_STATE_HELD)
            fire_is_as_sent(f, &c->change.fires[i]);
        else
            pfire_drop(p, f);
    }
}

static void conflict(struct planner *p, struct pjob *j, const struct job_change *change)
{
    bool taken = change->result == CHANGE_RESULT_EXISTS, guessed = j->guessed;
    papi_guessed(p, j, !taken);
    if (taken && j->api && j->api->op == PLANNER_CREATE && !j->api->repeated)
        papi_reply(p, j, PLANNER_EXISTS);
    reread(p, j);
    if (taken && guessed)
        return; /* nothing was known of the job that has the name */
    planner_log(p, "job %s/%s: row is not as expected (rev %llu), read again", j->row.ns, j->row.id,
                (unsigned long long)change->expect_rev);
    planner_load_near(p, &j->row.slot, 1);
}

static void refused(struct planner *p, struct pjob *j, const struct job_change *change)
{
    planner_log(p, "job %s/%s stopped: the store refuses its row: %s", j->row.ns, j->row.id, change->problem);
    forget_job(p, j);
    if (j->state == PJOB_GONE)
        return;
    papi_refuse_all(p, j, PLANNER_UNAVAILABLE);
    j->state = change->op == CHANGE_INSERT ? PJOB_ABSENT : PJOB_STOPPED;
}

/* Deleted for good; the key may be at work again at once. */
static void deleted(struct planner *p, struct pjob *j)
{
    struct job_row old = j->row;
    planner_tomb(p, &old.uid, 0, UINT64_MAX);
    forget_job(p, j);
    j->state = PJOB_ABSENT;
    pjob_forget_uid(p, j);
    pjob_set_spec(p, j, NULL);
}

static void note_copy(struct pjob *j, const struct fire_change *fc)
{
    if (!fc->copy)
        return;
    j->copied_version = fc->row.version;
    j->copied_until_ms = fc->copy_until_ms;
}

static void fires_durable(struct planner *p, struct pchange *c)
{
    for (size_t i = 0; i < c->change.fires_count; i++) {
        note_copy(c->change.tag, &c->change.fires[i]);
        fire_is_as_sent(c->fires[i], &c->change.fires[i]);
        pfire_written(p, c->fires[i]);
    }
}

static void durable(struct planner *p, struct pjob *j, struct pchange *c)
{
    const struct job_change *change = &c->change;
    if (change->op != CHANGE_NONE)
        j->durable_rev = change->row.rev;
    papi_guessed(p, j, true);
    fires_durable(p, c);
    if (j->state == PJOB_GONE)
        return;
    if (j->write_in_batch)
        j->write_dirty = j->write_in_batch = false;
    if (change->op == CHANGE_DELETE)
        deleted(p, j);
    papi_durable(p, j, change);
    if (change->revision.op[0] && j->state == PJOB_LIVE)
        pjob_arm_fires(p, j);
}

static void change_back(struct planner *p, struct pchange *c)
{
    struct pjob *j = c->change.tag;
    j->in_batch = false;
    j->plan_in_batch = false;
    p->stats.unwritten -= j->unwritten_in_batch;
    j->unwritten_in_batch = 0;
    for (size_t i = 0; i < c->change.fires_count; i++)
        c->fires[i]->in_batch = false;
}

static void change_free(struct pchange *c)
{
    fires_free(c);
    job_spec_unref(c->change.spec);
    job_spec_unref(c->change.replaced);
    c->change.spec = c->change.replaced = NULL;
}

static void change_done(struct planner *p, struct pchange *c)
{
    struct pjob *j = c->change.tag;
    change_back(p, c);
    switch (c->change.result) {
    case CHANGE_RESULT_OK:
        durable(p, j, c);
        break;
    case CHANGE_RESULT_CONFLICT:
    case CHANGE_RESULT_EXISTS:
        if (j->state == PJOB_GONE || j->moving)
            keep_running(p, c);
        else
            conflict(p, j, &c->change);
        break;
    case CHANGE_RESULT_REFUSED:
    case CHANGE_RESULT_COUNT_:
        refused(p, j, &c->change);
        break;
    }
    change_free(c);
    pjob_link_dirty(p, j);
    papi_run(p, j);
    pjob_settle(p, j);
}

static void batch_clear(struct pbatch *b)
{
    mem_free(b->pub.slots);
    b->pub.slots = NULL;
    b->pub.slots_count = b->pub.jobs_count = 0;
    b->move = NULL;
    b->state = PBATCH_NONE;
}

static void written(struct planner *p, struct pbatch *b)
{
    struct pmove *move = b->move;
    p->written_ms = p->now_ms;
    p->batch_failures = 0;
    for (size_t i = 0; i < b->pub.jobs_count; i++)
        change_done(p, container_of(b->pub.jobs[i], struct pchange, change));
    struct slot_change *changes = b->pub.slots;
    b->pub.slots = NULL;
    batch_clear(b);
    if (move)
        planner_move_done(p, move, changes);
    mem_free(changes);
}

/* The very same batch goes again, for it may have been done: the store knows its own writes by their rev. */
static void again(struct planner *p, struct pbatch *b, int code)
{
    b->state = PBATCH_AGAIN;
    int64_t delay_ms = AGAIN_MIN_MS << (p->batch_failures < 5 ? p->batch_failures : 5);
    p->batch_failures++;
    if (code == ERR_PERMANENT)
        planner_log(p, "the store refuses to write: %s", err_code_name(ERR_PERMANENT));
    p->batch_again_ms = p->now_ms + (delay_ms < AGAIN_MAX_MS ? delay_ms : AGAIN_MAX_MS);
    planner_arm(p, &p->batch_timer, p->batch_again_ms);
    for (size_t i = 0; i < b->pub.jobs_count; i++) {
        struct pjob *j = b->pub.jobs[i]->tag;
        papi_overdue(p, j);
    }
    LIST_FOR (l, &p->dirty) /* and who waits behind it */
        papi_overdue(p, container_of(l, struct pjob, dirty_link));
    for (size_t i = b->pub.jobs_count; i-- > 0;) {
        struct pjob *j = b->pub.jobs[i]->tag;
        if (j->lost && b->pub.jobs[i]->op != CHANGE_NONE)
            planner_batch_forget(p, j);
    }
}

void planner_on_batch_done(struct planner *p, struct planner_batch *batch, int code)
{
    struct pbatch *b = container_of(batch, struct pbatch, pub);
    assert(b->state == PBATCH_OUT);
    code = code < 0 ? -code : code;
    if (code == ERR_FENCED && !p->fenced) {
        p->fenced = true;
        planner_log(p, "the store says that this member is dead: nothing more is started or written");
    }
    if (code == 0)
        written(p, b);
    else
        again(p, b, code);
}

static bool take_out(struct planner *p, struct pbatch *b, const struct pjob *j)
{
    for (size_t i = 0; i < b->pub.jobs_count; i++) {
        if (b->pub.jobs[i]->tag != j)
            continue;
        struct pchange *c = container_of(b->pub.jobs[i], struct pchange, change);
        change_back(p, c);
        keep_running(p, c);
        change_free(c);
        b->pub.jobs[i] = b->pub.jobs[--b->pub.jobs_count];
        return true;
    }
    return false;
}

/* J's slot is lost: what of it waits to be sent again may not be sent. */
void planner_batch_forget(struct planner *p, struct pjob *j)
{
    for (size_t i = 0; j->in_batch && i < PLANNER_BATCHES_MAX; i++) {
        struct pbatch *b = &p->batches[i];
        if (b->state != PBATCH_AGAIN || !take_out(p, b, j))
            continue;
        if (b->pub.jobs_count == 0 && b->pub.slots_count == 0)
            batch_clear(b);
        pjob_settle(p, j);
        return;
    }
}

void planner_batch_fini(struct planner *p)
{
    for (size_t i = 0; i < PLANNER_BATCHES_MAX; i++) {
        struct pbatch *b = &p->batches[i];
        for (size_t k = 0; k < b->pub.jobs_count; k++)
            change_free(container_of(b->pub.jobs[k], struct pchange, change));
        mem_free(b->pub.slots);
        mem_free(b->pub.jobs);
        mem_free(b->changes);
    }
}
