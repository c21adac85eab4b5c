#include "agent/core/audit.h"
#include "tests/lib/planner_bed_private.h"

/* --- the store ------------------------------------------------------------------------------------------------------- */

static struct srow *by_uid(const struct pbed *b, const struct uid *uid)
{
    for (size_t i = 0; i < b->jobs_count; i++)
        if (b->jobs[i].spec && memcmp(&b->jobs[i].row.uid, uid, sizeof(*uid)) == 0)
            return &b->jobs[i];
    return NULL;
}

struct srow *pbed_by_id(const struct pbed *b, const char *id)
{
    for (size_t i = 0; i < b->jobs_count; i++)
        if (b->jobs[i].spec && strcmp(b->jobs[i].row.id, id) == 0)
            return &b->jobs[i];
    return NULL;
}

static struct fire_row *fire_of(const struct pbed *b, const struct uid *uid, uint64_t seq)
{
    for (size_t i = 0; i < b->fires_count; i++)
        if (b->fires[i].seq == seq && memcmp(&b->fires[i].uid, uid, sizeof(*uid)) == 0)
            return &b->fires[i];
    return NULL;
}

static bool same_fire(const struct fire_row *x, const struct fire_row *y)
{
    return x->rev == y->rev && x->state == y->state && x->attempts == y->attempts &&
           x->wake_ms == y->wake_ms && x->outcome == y->outcome && strcmp(x->holder, y->holder) == 0;
}

static bool fire_may(const struct pbed *b, const struct fire_change *fc)
{
    const struct fire_row *row = fire_of(b, &fc->row.uid, fc->row.seq);
    switch (fc->op) {
    case CHANGE_INSERT:
        return !row || same_fire(row, &fc->row);
    case CHANGE_UPDATE:
        return row && ((row->rev == fc->expect_rev &&
                        (!fc->expect_holder[0] || strcmp(fc->expect_holder, row->holder) == 0)) ||
                       same_fire(row, &fc->row));
    case CHANGE_DELETE:
        return !row || row->rev == fc->expect_rev;
    case CHANGE_NONE:
    case CHANGE_REPLACE:
    case CHANGE_COUNT_:
        break;
    }
    return false;
}

static struct job_spec *copy_of(const struct pbed *b, const struct uid *uid, uint64_t version)
{
    for (size_t i = 0; i < b->copies_count; i++)
        if (b->copies[i].version == version && memcmp(&b->copies[i].uid, uid, sizeof(*uid)) == 0)
            return b->copies[i].spec;
    return NULL;
}

static void keep_copy(struct pbed *b, const struct fire_change *fc)
{
    if (!fc->copy || copy_of(b, &fc->row.uid, fc->row.version))
        return;
    GROW(b, b->copies, b->copies_count, b->copies_capacity);
    b->copies[b->copies_count++] = (struct copy_kept){fc->row.uid, fc->row.version, job_spec_ref(fc->copy)};
}

void pbed_forget_copies(struct pbed *b)
{
    while (b->copies_count > 0)
        job_spec_unref(b->copies[--b->copies_count].spec);
}

static void fire_do(struct pbed *b, const struct fire_change *fc)
{
    struct fire_row *row = fire_of(b, &fc->row.uid, fc->row.seq);
    b->fire_writes++;
    if (fc->op == CHANGE_DELETE) {
        if (row) {
            fire_row_fini(row);
            *row = b->fires[--b->fires_count];
        }
        return;
    }
    if (!row) {
        GROW(b, b->fires, b->fires_count, b->fires_capacity);
        row = &b->fires[b->fires_count++];
    } else {
        MUST(row->state != FIRE_STATE_ENDED || row->outcome == FIRE_OUTCOME_DEAD || same_fire(row, &fc->row),
             "an ended fire is written again");
        fire_row_fini(row);
    }
    int r = fire_row_copy(&fc->row, row, NULL);
    assert(r == 0);
    keep_copy(b, fc);
    MUST(row->state != FIRE_STATE_ENDED || row->outcome != FIRE_OUTCOME_DEAD ||
             row->reason == FIRE_REASON_EXPIRED || copy_of(b, &row->uid, row->version),
         "what a dead letter was to deliver is kept");
}

static void remember_change(struct pbed *b, const struct job_change *c)
{
    if (!c->revision.op[0])
        return;
    GROW(b, b->changes, b->changes_count, b->changes_capacity);
    struct change_seen *s = &b->changes[b->changes_count++];
    s->revision = c->revision;
    memcpy(s->id, c->row.id, sizeof(s->id));
}

static void check_row_change(struct pbed *b, const struct job_row *old, const struct job_row *row)
{
    const struct job_counts *c = &row->counts;
    MUST(c->seq >= old->counts.seq, "seq goes back");
    MUST(c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled <= c->seq, "counts exceed seq");
    MUST(row->version >= old->version, "version goes back");
}

static void job_delete(struct pbed *b, struct srow *s, const struct job_row *row)
{
    job_spec_unref(s->spec);
    s->spec = NULL;
    s->deleted_reply_ms = INT64_MAX;
    for (size_t i = 0; i < b->fires_count; i++) {
        struct fire_row *f = &b->fires[i];
        if (memcmp(&f->uid, &s->row.uid, sizeof(f->uid)) == 0 && f->state != FIRE_STATE_ENDED)
            fire_row_deleted(f, row);
    }
}

struct srow *pbed_add(struct pbed *b, const struct job_row *row, struct job_spec *spec)
{
    GROW(b, b->jobs, b->jobs_count, b->jobs_capacity);
    struct srow *s = &b->jobs[b->jobs_count++];
    *s = (struct srow){.row = *row, .spec = spec, .deleted_reply_ms = INT64_MAX};
    return s;
}

static enum change_result change_job(struct pbed *b, struct job_change *c)
{
    struct srow *s = by_uid(b, &c->row.uid);
    if (b->refused[0] && strcmp(c->row.id, b->refused) == 0)
        return CHANGE_RESULT_REFUSED;
    bool own = s && s->row.rev == c->row.rev && memcmp(&s->row, &c->row, sizeof(s->row)) == 0;
    switch (c->op) {
    case CHANGE_NONE:
        break;
    case CHANGE_INSERT:
        if (!s && pbed_by_id(b, c->row.id))
            return CHANGE_RESULT_EXISTS;
        if (s && !own)
            return CHANGE_RESULT_CONFLICT;
        break;
    case CHANGE_DELETE:
        if (s && s->row.rev != c->expect_rev)
            return CHANGE_RESULT_CONFLICT;
        break;
    case CHANGE_UPDATE:
    case CHANGE_REPLACE:
    case CHANGE_COUNT_:
        if (!s || (s->row.rev != c->expect_rev && !own))
            return CHANGE_RESULT_CONFLICT;
    }
    for (size_t i = 0; i < c->fires_count; i++)
        if (!fire_may(b, &c->fires[i]))
            return CHANGE_RESULT_CONFLICT;
    for (size_t i = 0; i < c->fires_count; i++)
        fire_do(b, &c->fires[i]);
    b->row_writes += c->op != CHANGE_NONE;
    remember_change(b, c);
    if (c->op == CHANGE_INSERT && !s)
        (void)pbed_add(b, &c->row, job_spec_ref(c->spec));
    else if (c->op == CHANGE_DELETE && s)
        job_delete(b, s, &c->row);
    else if (c->op == CHANGE_UPDATE || c->op == CHANGE_REPLACE) {
        check_row_change(b, &s->row, &c->row);
        s->row = c->row;
        if (c->op == CHANGE_REPLACE) {
            job_spec_unref(s->spec);
            s->spec = job_spec_ref(c->spec);
        }
    }
    return CHANGE_RESULT_OK;
}

int pbed_node_named(const struct pbed *b, const char *member)
{
    for (int i = 0; i < b->nodes_count; i++)
        if (strcmp(b->nodes[i].member, member) == 0)
            return i;
    return -1;
}

static void change_slot(struct pbed *b, struct slot_change *c)
{
    int from = pbed_node_named(b, c->from), to = pbed_node_named(b, c->to);
    if (b->owner[c->slot] == from && b->epoch[c->slot] == c->from_epoch) {
        b->owner[c->slot] = to;
        b->epoch[c->slot]++;
        if (b->nodes[to].dead_in_store) /* left over: somebody takes it */
            pbed_post(b, pbed_bev_new(pbed_on_declared, to), b->now + 100);
    }
    c->changed = b->owner[c->slot] == to && b->epoch[c->slot] == c->from_epoch + 1;
}

static void tell_conflict(const struct pbed *b, const struct job_change *c)
{
    const struct srow *s = by_uid(b, &c->row.uid);
    fprintf(stderr, "planner bed: conflict at %lld ms: op %d of '%s', rev %llu, in the store %llu\n",
            (long long)(b->now - BED_NOW), c->op, c->row.id, (unsigned long long)c->expect_rev,
            s ? (unsigned long long)s->row.rev : 0ull);
    for (size_t i = 0; i < c->fires_count; i++) {
        const struct fire_change *fc = &c->fires[i];
        const struct fire_row *f = fire_of(b, &fc->row.uid, fc->row.seq);
        fprintf(
            stderr,
            "  fire %llu: op %d, rev %llu, holder '%s', state %d; in the store rev %llu, holder '%s', state %d\n",
            (unsigned long long)fc->row.seq, fc->op, (unsigned long long)fc->expect_rev, fc->expect_holder,
            fc->row.state, f ? (unsigned long long)f->rev : 0ull, f ? f->holder : "", f ? (int)f->state : -1);
    }
}

/* A former owner's report whose reply was lost comes again, when the owner may have counted it or the job be deleted. */
static bool told_before(const struct pbed *b, const struct job_change *c)
{
    if (c->op != CHANGE_NONE)
        return false;
    for (size_t i = 0; i < c->fires_count; i++) {
        const struct fire_row *f = fire_of(b, &c->row.uid, c->fires[i].row.seq);
        if (f && strcmp(f->holder, c->fires[i].expect_holder) == 0 && f->state != FIRE_STATE_ENDED)
            return false;
    }
    return true;
}

/* BED_TRACE=1 tells the story of a seed. */
static void trace_commit(const struct pbed *b, int node, const struct planner_batch *batch)
{
    for (size_t i = 0; i < batch->slots_count; i++)
        fprintf(stderr, "%6lld n%d slot %u -> %s\n", (long long)(b->now - BED_NOW), node,
                batch->slots[i].slot, batch->slots[i].to);
    for (size_t i = 0; i < batch->jobs_count; i++) {
        const struct job_change *c = batch->jobs[i];
        fprintf(stderr, "%6lld n%d %s slot %u op %d %s rev %llu seq %llu state %d due %lld\n",
                (long long)(b->now - BED_NOW), node, c->row.id, c->row.slot, c->op, c->revision.op,
                (unsigned long long)c->expect_rev, (unsigned long long)c->row.counts.seq, c->row.state,
                (long long)(c->row.due_ms == RECORD_NONE ? -1 : c->row.due_ms - BED_NOW));
        for (size_t k = 0; k < c->fires_count; k++) {
            const struct fire_change *fc = &c->fires[k];
            fprintf(
                stderr,
                "          fire %llu..%llu op %d rev %llu state %d holder '%s' outcome %d attempts %u wake %lld\n",
                (unsigned long long)fc->row.seq, (unsigned long long)fc->row.seq_last, fc->op,
                (unsigned long long)fc->expect_rev, fc->row.state, fc->row.holder, fc->row.outcome,
                fc->row.attempts, (long long)(fc->row.wake_ms - BED_NOW));
        }
    }
}

static void commit(struct pbed *b, int node, struct planner_batch *batch)
{
    if (getenv("BED_TRACE"))
        trace_commit(b, node, batch);
    for (size_t i = 0; i < batch->slots_count; i++)
        change_slot(b, &batch->slots[i]);
    for (size_t i = 0; i < batch->jobs_count; i++) {
        batch->jobs[i]->result = change_job(b, batch->jobs[i]);
        if (batch->jobs[i]->result == CHANGE_RESULT_CONFLICT) {
            /* One that gave its slot away may send a batch again whose reply was lost, when the job has gone on. */
            if (b->owner[batch->jobs[i]->row.slot] != node || told_before(b, batch->jobs[i]))
                continue;
            b->conflicts++;
            tell_conflict(b, batch->jobs[i]);
        }
    }
}

static void on_committed(struct pbed *b, struct bev *ev)
{
    struct node *n = &b->nodes[ev->node];
    if (!n->alive)
        return;
    struct planner_batch *batch = ev->ptr;
    for (size_t i = 0; i < PLANNER_BATCHES_MAX; i++)
        if (n->batches[i] == batch)
            n->batches[i] = NULL;
    pbed_step(b, ev->node,
              &(struct planner_event){.kind = PLANNER_BATCH_DONE, .batch = batch, .code = ev->code});
}

void pbed_on_commit(struct pbed *b, struct bev *ev)
{
    struct node *n = &b->nodes[ev->node];
    struct bev *done = pbed_bev_new(on_committed, ev->node);
    done->ptr = ev->ptr;
    if (n->dead_in_store) {
        done->code = ERR_FENCED;
    } else if (pbed_chance(b, b->o.unavailable)) {
        done->code = ERR_UNAVAILABLE;
    } else if (pbed_chance(b, b->o.unknown)) {
        done->code = ERR_UNKNOWN_OUTCOME;
        if (rng_below(&b->rng, 2))
            commit(b, ev->node, ev->ptr);
    } else {
        commit(b, ev->node, ev->ptr);
    }
    pbed_post(b, done, b->now + pbed_some(b, b->o.commit_max_ms));
}

/* --- reads ----------------------------------------------------------------------------------------------------------- */

static int compare_rows(const void *x, const void *y)
{
    const struct job_row *a = &((const struct planner_job *)x)->row,
                         *c = &((const struct planner_job *)y)->row;
    if (a->slot != c->slot)
        return a->slot < c->slot ? -1 : 1;
    if (a->wake_ms != c->wake_ms)
        return a->wake_ms < c->wake_ms ? -1 : 1;
    return memcmp(&a->uid, &c->uid, sizeof(a->uid));
}

static int compare_fires(const void *x, const void *y)
{
    const struct fire_row *a = x, *c = y;
    if (a->slot != c->slot)
        return a->slot < c->slot ? -1 : 1;
    if (a->wake_ms != c->wake_ms)
        return a->wake_ms < c->wake_ms ? -1 : 1;
    int r = memcmp(&a->uid, &c->uid, sizeof(a->uid));
    return r ? r : a->seq < c->seq ? -1 : a->seq > c->seq;
}

static bool wanted(const struct bev *ev, uint16_t slot, int64_t wake_ms)
{
    bool in = false;
    for (size_t i = 0; i < ev->slots_count; i++)
        in |= ev->slots[i] == slot;
    return in && wake_ms < ev->until_ms && (ev->from_ms == RECORD_NONE || wake_ms >= ev->from_ms);
}

static void read_jobs(struct pbed *b, struct bev *ev)
{
    ev->jobs = mem_new_array(struct planner_job, b->jobs_count + 1);
    struct planner_job cursor = {
        .row = {.slot = ev->cursor_slot, .wake_ms = ev->cursor_wake_ms, .uid = ev->uid}};
    for (size_t i = 0; i < b->jobs_count; i++) {
        struct planner_job j = {.row = b->jobs[i].row, .spec = b->jobs[i].spec};
        if (ev->tzdata_before && (j.row.tzdata[0] < '0' || strcmp(j.row.tzdata, ev->tzdata_before) >= 0))
            continue;
        if (j.spec && wanted(ev, j.row.slot, j.row.wake_ms) &&
            (!ev->has_cursor || compare_rows(&j, &cursor) > 0))
            ev->jobs[ev->count++] = j;
    }
    qsort(ev->jobs, ev->count, sizeof(*ev->jobs), compare_rows);
    ev->more = ev->count > ev->limit;
    ev->count = ev->more ? ev->limit : ev->count;
    for (size_t i = 0; i < ev->count; i++)
        (void)job_spec_ref(ev->jobs[i].spec);
}

static void read_fires(struct pbed *b, struct bev *ev)
{
    struct fire_row *rows = mem_new_array(struct fire_row, b->fires_count + 1);
    struct fire_row cursor = {
        .slot = ev->cursor_slot, .wake_ms = ev->cursor_wake_ms, .uid = ev->uid, .seq = ev->seq};
    size_t n = 0;
    for (size_t i = 0; i < b->fires_count; i++) {
        const struct fire_row *f = &b->fires[i];
        if (f->state != FIRE_STATE_ENDED && wanted(ev, f->slot, f->wake_ms) &&
            (!ev->has_cursor || compare_fires(f, &cursor) > 0))
            rows[n++] = *f;
    }
    qsort(rows, n, sizeof(*rows), compare_fires);
    ev->more = n > ev->limit;
    ev->count = ev->more ? ev->limit : n;
    ev->fires = mem_new_array(struct fire_row, ev->count + 1);
    for (size_t i = 0; i < ev->count; i++) {
        int r = fire_row_copy(&rows[i], &ev->fires[i], NULL);
        assert(r == 0);
    }
    mem_free(rows);
}

static void read_job(struct pbed *b, struct bev *ev)
{
    const struct srow *s = ev->key[0] ? pbed_by_id(b, ev->key) : by_uid(b, &ev->uid);
    ev->jobs = mem_new_array(struct planner_job, 1);
    ev->count = 1;
    struct job_spec *copy = s || !ev->version ? NULL : copy_of(b, &ev->uid, ev->version);
    if (s)
        ev->jobs[0] = (struct planner_job){.row = s->row, .spec = job_spec_ref(s->spec)};
    else if (copy)
        ev->jobs[0] = (struct planner_job){.copy = true, .spec = job_spec_ref(copy)};
}

static int compare_seqs(const void *x, const void *y)
{
    const struct fire_row *a = x, *c = y;
    return a->seq < c->seq ? 1 : a->seq > c->seq ? -1 : 0;
}

/* Rows of a job up to the seq, newest first, ended or not. */
static void read_fire(struct pbed *b, struct bev *ev)
{
    struct fire_row *rows = mem_new_array(struct fire_row, b->fires_count + 1);
    size_t n = 0;
    for (size_t i = 0; i < b->fires_count; i++)
        if (memcmp(&b->fires[i].uid, &ev->uid, sizeof(ev->uid)) == 0 && b->fires[i].seq <= ev->seq)
            rows[n++] = b->fires[i];
    qsort(rows, n, sizeof(*rows), compare_seqs);
    ev->count = n < ev->limit ? n : ev->limit;
    ev->fires = mem_new_array(struct fire_row, ev->count + 1);
    for (size_t i = 0; i < ev->count; i++) {
        int r = fire_row_copy(&rows[i], &ev->fires[i], NULL);
        assert(r == 0);
    }
    mem_free(rows);
}

static void on_answer(struct pbed *b, struct bev *ev)
{
    if (!b->nodes[ev->node].alive)
        return;
    struct revision found = {.change_id = ev->change_id, .uid = ev->uid, .seq = ev->seq};
    struct planner_event e = {.load = ev->id, .ok = ev->code == 0, .more = ev->more};
    if (ev->kind == PLANNER_DO_FIND_CHANGE) {
        e.kind = PLANNER_CHANGE_FOUND;
        e.revision = ev->count ? &found : NULL;
    } else if (ev->kind == PLANNER_DO_LOAD_FIRES || ev->kind == PLANNER_DO_GET_FIRE) {
        e.kind = PLANNER_FIRES;
        e.fires = ev->fires;
        e.fires_count = e.ok ? ev->count : 0;
    } else {
        e.kind = PLANNER_JOBS;
        e.jobs = ev->jobs;
        e.jobs_count = e.ok ? ev->count : 0;
    }
    pbed_step(b, ev->node, &e);
}

static void on_read(struct pbed *b, struct bev *ev)
{
    struct bev *answer = mem_new(struct bev);
    *answer = *ev;
    ev->slots = NULL;
    answer->fn = on_answer;
    answer->code = pbed_chance(b, b->o.unavailable) ? ERR_UNAVAILABLE : 0;
    if (ev->kind == PLANNER_DO_LOAD_JOBS)
        read_jobs(b, answer);
    else if (ev->kind == PLANNER_DO_LOAD_FIRES)
        read_fires(b, answer);
    else if (ev->kind == PLANNER_DO_GET_JOB)
        read_job(b, answer);
    else if (ev->kind == PLANNER_DO_GET_FIRE)
        read_fire(b, answer);
    else
        for (size_t i = 0; i < b->changes_count; i++)
            if (b->changes[i].revision.change_id == ev->change_id && strcmp(b->changes[i].id, ev->key) == 0) {
                answer->count = 1;
                answer->uid = b->changes[i].revision.uid;
                answer->seq = b->changes[i].revision.seq;
            }
    pbed_post(b, answer, b->now + pbed_some(b, b->o.read_max_ms));
}

void pbed_ask(struct pbed *b, int node, const struct planner_action *a)
{
    struct bev *ev = pbed_bev_new(on_read, node);
    ev->kind = a->kind;
    ev->id = a->load;
    ev->from_ms = a->from_ms;
    ev->until_ms = a->until_ms;
    ev->has_cursor = a->has_cursor;
    ev->cursor_slot = a->cursor_slot;
    ev->cursor_wake_ms = a->cursor_wake_ms;
    ev->uid = a->uid;
    ev->version = a->version;
    ev->seq = a->seq;
    ev->limit = a->limit;
    ev->tzdata_before = a->tzdata_before ? b->o.tzdata : NULL;
    ev->change_id = a->change_id;
    if (a->id)
        snprintf(ev->key, sizeof(ev->key), "%s", a->id);
    ev->slots = mem_new_array(uint16_t, a->slots_count + 1);
    ev->slots_count = a->slots_count;
    if (a->slots_count)
        memcpy(ev->slots, a->slots, a->slots_count * sizeof(*a->slots));
    pbed_post(b, ev, b->now + pbed_some(b, b->o.read_max_ms));
}

const struct fire_row *pbed_fire(const struct pbed *b, const struct uid *uid, uint64_t seq)
{
    return fire_of(b, uid, seq);
}

void pbed_refuse(struct pbed *b, const char *id)
{
    snprintf(b->refused, sizeof(b->refused), "%s", id);
}

const char *pbed_last_log(const struct pbed *b)
{
    return b->log;
}

/* --- the promises ---------------------------------------------------------------------------------------------------- */

static uint64_t covered_until(const struct pbed *b, const struct uid *uid, uint64_t seq)
{
    const struct fire_row *f = fire_of(b, uid, seq);
    if (f)
        return f->seq_last;
    return pbed_sent_of(b, uid, seq) > 0 ? seq : 0;
}

/* The due after the newest that has a fire. */
static int64_t dues_until(const struct pbed *b, const struct job_row *r)
{
    int64_t newest_ms = r->created_ms;
    if (r->state == JOB_STATE_ACTIVE)
        return r->due_ms;
    for (size_t i = 0; i < b->sent_count; i++)
        if (memcmp(&b->sent[i].uid, &r->uid, sizeof(r->uid)) == 0 && b->sent[i].due_ms > newest_ms)
            newest_ms = b->sent[i].due_ms;
    for (size_t i = 0; i < b->fires_count; i++)
        if (memcmp(&b->fires[i].uid, &r->uid, sizeof(r->uid)) == 0 && b->fires[i].due_last_ms > newest_ms)
            newest_ms = b->fires[i].due_last_ms;
    return newest_ms + 1;
}

static bool only_scheduled(const struct pbed *b, const struct job_row *r)
{
    for (size_t i = 0; i < b->fires_count; i++)
        if (memcmp(&b->fires[i].uid, &r->uid, sizeof(r->uid)) == 0 && b->fires[i].kind != FIRE_KIND_SCHEDULED)
            return false;
    return true;
}

/* As many fires as the schedule had dues: of jobs that were never changed, for they alone have one schedule. */
static void check_dues(const struct pbed *b, const struct job_row *r, const struct job_spec *spec)
{
    if (r->version != 1 || spec->one_shot || r->state == JOB_STATE_PAUSED || !only_scheduled(b, r))
        return;
    uint64_t dues = job_count_dues(spec, r->created_ms + 1, dues_until(b, r), 1000000);
    MUST(dues == r->counts.seq, "%s: %llu dues and %llu fires", r->id, (unsigned long long)dues,
         (unsigned long long)r->counts.seq);
}

static int newest_first(const void *x, const void *y)
{
    const struct fire_row *a = x, *b = y;
    return (a->seq < b->seq) - (a->seq > b->seq);
}

/* The auditor of the product has nothing to say. */
static void check_audit(const struct pbed *b, const struct job_row *r, const struct job_spec *spec)
{
    struct fire_row *fires = mem_new_array(struct fire_row, b->fires_count + 1);
    struct audit_job in = {.spec = spec,
                           .row = r,
                           .fires = fires,
                           .fires_known = true,
                           .fires_all = true,
                           .now_ms = b->now,
                           .from_ms = b->now - BED_HISTORY_KEEP_MS,
                           .tzdata = b->o.tzdata};
    struct audit_result result;
    for (size_t i = 0; i < b->fires_count; i++)
        if (memcmp(&b->fires[i].uid, &r->uid, sizeof(r->uid)) == 0)
            fires[in.fires_count++] = b->fires[i];
    qsort(fires, in.fires_count, sizeof(*fires), newest_first);
    audit_job(&in, &result);
    MUST(result.verdict == AUDIT_FINE || result.verdict == AUDIT_OVERDUE, "%s: %s: %s", r->id,
         audit_verdict_name(result.verdict), result.detail);
    mem_free(fires);
}

void pbed_check(const struct pbed *b, bool drained)
{
    for (size_t i = 0; i < b->jobs_count; i++) {
        const struct job_row *r = &b->jobs[i].row;
        const struct job_counts *c = &r->counts;
        if (!b->jobs[i].spec)
            continue;
        uint64_t ended = c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled, seq = 1,
                 pending = 0;
        const struct fire_row *left = NULL;
        MUST(ended <= c->seq, "%s: counts exceed seq", r->id);
        while (seq <= c->seq) {
            uint64_t last = covered_until(b, &r->uid, seq);
            MUST(last >= seq, "%s: fire %llu is nowhere", r->id, (unsigned long long)seq);
            const struct fire_row *f = fire_of(b, &r->uid, seq);
            if (f && f->state != FIRE_STATE_ENDED) {
                pending++;
                left = f;
            }
            seq = last + 1;
        }
        MUST(c->seq - ended == pending, "%s: %llu pending by the counts, %llu by the rows", r->id,
             (unsigned long long)(c->seq - ended), (unsigned long long)pending);
        check_dues(b, r, b->jobs[i].spec);
        check_audit(b, r, b->jobs[i].spec);
        MUST(!drained || !left, "%s: %llu fires are pending for ever, one is %llu in state %d", r->id,
             (unsigned long long)pending, (unsigned long long)left->seq, left->state);
    }
    for (const struct pbed_call *c = b->calls; drained && c; c = c->next)
        MUST(c->answered, "op %d of '%s', asked at %lld ms, is never answered", c->api.op, c->api.id,
             (long long)(c->api.accepted_ms - BED_NOW));
    MUST(b->conflicts == 0, "%zu conflicts", b->conflicts);
}

const struct pbed_sent *pbed_sent(const struct pbed *b, size_t *ret_count)
{
    *ret_count = b->sent_count;
    return b->sent;
}

size_t pbed_sent_of(const struct pbed *b, const struct uid *uid, uint64_t seq)
{
    size_t n = 0;
    for (size_t i = 0; i < b->sent_count; i++)
        n += b->sent[i].seq == seq && memcmp(&b->sent[i].uid, uid, sizeof(*uid)) == 0;
    return n;
}

size_t pbed_row_writes(const struct pbed *b)
{
    return b->row_writes;
}

size_t pbed_fire_writes(const struct pbed *b)
{
    return b->fire_writes;
}

size_t pbed_replanned(const struct pbed *b)
{
    return b->replanned;
}

size_t pbed_awaited(const struct pbed *b)
{
    return b->awaited;
}

size_t pbed_beside(const struct pbed *b)
{
    return b->beside;
}

size_t pbed_conflicts(const struct pbed *b)
{
    return b->conflicts;
}
