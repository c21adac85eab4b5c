/* Jobs, fires and revisions of the store in memory. A read goes through all rows of its job, or all that have not ended, and sorts:
 * little to get wrong. Through all fires that ever were it would be most of what a long simulation costs. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/store/store_mem_private.h"
#include "agent/store/store_sql.h"

static void make_name(char name[RECORD_NS_MAX + RECORD_ID_MAX], const char *ns, const char *id)
{
    memset(name, 0, RECORD_NS_MAX + RECORD_ID_MAX); /* whole, as part of keys */
    (void)snprintf(name, RECORD_NS_MAX + RECORD_ID_MAX, "%.63s/%.200s", ns, id);
}

/* Growth of a test's map only fails without memory. */
static void put(struct map *m, const void *key, size_t len, void *value)
{
    int r = map_put(m, key, len, value, NULL, NULL);
    assert(r == 0);
    (void)r;
}

struct mem_job *mem_job_by_uid(struct store_mem_world *w, const struct uid *uid)
{
    return map_get(&w->jobs, uid->bytes, sizeof(uid->bytes));
}

static struct mem_job *job_by_name(struct store_mem_world *w, const char *ns, const char *id)
{
    char name[RECORD_NS_MAX + RECORD_ID_MAX];
    make_name(name, ns, id);
    return map_get(&w->names, name, strlen(name));
}

static struct mem_fire *find_fire(struct store_mem_world *w, const struct uid *uid, uint64_t seq)
{
    struct mem_fire_key key = {*uid, seq};
    return map_get(&w->fires, &key, sizeof(key));
}

static struct mem_revision *find_revision(struct store_mem_world *w, const char *ns, const char *id,
                                          uint64_t change_id)
{
    struct mem_revision_key key = {.change_id = change_id};
    make_name(key.name, ns, id);
    return map_get(&w->revisions, &key, sizeof(key));
}

static void job_free(struct mem_job *job)
{
    job_spec_unref(job->spec);
    mem_free(job);
}

static struct mem_history *history_of(struct store_mem_world *w, const struct uid *uid)
{
    struct mem_history *h = map_get(&w->histories, uid->bytes, sizeof(uid->bytes));
    if (h)
        return h;
    h = mem_new(struct mem_history);
    h->uid = *uid;
    list_init(&h->fires);
    put(&w->histories, h->uid.bytes, sizeof(h->uid.bytes), h);
    return h;
}

/* After its state may have changed. */
static void fire_settle(struct store_mem_world *w, struct mem_fire *fire)
{
    list_remove(&fire->state_link);
    if (fire->row.state != FIRE_STATE_ENDED)
        list_push_back(&w->unfinished, &fire->state_link);
}

static void fire_free(struct mem_fire *fire)
{
    fire_row_fini(&fire->row);
    mem_free(fire);
}

void mem_fire_forget(struct store_mem_world *w, struct mem_fire *fire)
{
    map_remove(&w->fires, &fire->key, sizeof(fire->key));
    list_remove(&fire->state_link);
    list_remove(&fire->job_link);
    fire_free(fire);
}

void mem_revision_free(struct mem_revision *revision)
{
    job_spec_unref(revision->was);
    mem_free(revision);
}

void mem_jobs_fini(struct store_mem_world *w)
{
    for (struct map_iter it = {0}; map_next(&w->jobs, &it);)
        job_free(it.value);
    for (struct map_iter it = {0}; map_next(&w->fires, &it);)
        fire_free(it.value);
    for (struct map_iter it = {0}; map_next(&w->histories, &it);)
        mem_free(it.value);
    for (struct map_iter it = {0}; map_next(&w->revisions, &it);)
        mem_revision_free(it.value);
    mem_copies_fini(w);
    map_fini(&w->jobs);
    map_fini(&w->names);
    map_fini(&w->fires);
    map_fini(&w->histories);
    map_fini(&w->revisions);
}

/* --- commit: look, then do ----------------------------------------------------------------------------------------- */

enum look { LOOK_DO, LOOK_DONE, LOOK_CONFLICT };

static bool has_revision(const struct job_change *c)
{
    return c->op != CHANGE_NONE && c->revision.op[0] != 0;
}

static enum look look_fire(struct store_mem_world *w, const struct fire_change *f)
{
    const struct mem_fire *now = find_fire(w, &f->row.uid, f->row.seq);
    if (!now)
        return f->op == CHANGE_INSERT ? LOOK_DO : f->op == CHANGE_DELETE ? LOOK_DONE : LOOK_CONFLICT;
    if (f->op == CHANGE_INSERT)
        return now->row.rev == f->row.rev ? LOOK_DONE : LOOK_CONFLICT;
    if (now->row.rev == f->expect_rev &&
        (!f->expect_holder[0] || strcmp(f->expect_holder, now->row.holder) == 0))
        return LOOK_DO;
    return f->op == CHANGE_UPDATE && sql_rows_equal(sql_fires(), &now->row, &f->row) ? LOOK_DONE
                                                                                     : LOOK_CONFLICT;
}

static enum look look_job(struct store_mem_world *w, const struct job_change *c)
{
    const struct mem_job *now = mem_job_by_uid(w, &c->row.uid);
    if (!now)
        return c->op == CHANGE_DELETE && !has_revision(c) ? LOOK_DONE : LOOK_CONFLICT;
    if (now->row.rev == c->expect_rev)
        return LOOK_DO;
    return c->op != CHANGE_DELETE && sql_rows_equal(sql_jobs(), &now->row, &c->row) ? LOOK_DONE
                                                                                    : LOOK_CONFLICT;
}

/* What becomes of C; *ret_do: it is to be done. */
static enum change_result look(struct store_mem_world *w, const struct job_change *c, bool *ret_do)
{
    *ret_do = false;
    if (!sql_change_is_ascii(c))
        return CHANGE_RESULT_REFUSED;
    if (has_revision(c) && find_revision(w, c->row.ns, c->row.id, c->revision.change_id))
        return CHANGE_RESULT_OK;
    if (c->op == CHANGE_INSERT) {
        const struct mem_job *named = job_by_name(w, c->row.ns, c->row.id);
        if (mem_job_by_uid(w, &c->row.uid))
            return CHANGE_RESULT_OK;
        if (named)
            return named->row.change_id == c->row.change_id ? CHANGE_RESULT_OK : CHANGE_RESULT_EXISTS;
    } else if (c->op != CHANGE_NONE) {
        enum look job = look_job(w, c);
        if (job != LOOK_DO)
            return job == LOOK_DONE ? CHANGE_RESULT_OK : CHANGE_RESULT_CONFLICT;
    }
    for (size_t i = 0; i < c->fires_count; i++)
        if (look_fire(w, &c->fires[i]) == LOOK_CONFLICT)
            return CHANGE_RESULT_CONFLICT;
    *ret_do = true;
    return CHANGE_RESULT_OK;
}

static void do_fire_update(struct mem_fire *fire, const struct fire_row *row)
{
    struct fire_row next;
    int r = fire_row_copy(row, &next, NULL);
    assert(r == 0);
    (void)r;
    /* What an insert fixes stays, as in the other store. */
    mem_free(next.payload);
    mem_free(next.trace);
    next.payload = fire->row.payload;
    next.payload_bytes = fire->row.payload_bytes;
    next.trace = fire->row.trace;
    next.trace_bytes = fire->row.trace_bytes;
    next.uid = fire->row.uid;
    next.seq = fire->row.seq;
    next.slot = fire->row.slot;
    next.kind = fire->row.kind;
    memcpy(next.ns, fire->row.ns, sizeof(next.ns));
    memcpy(next.id, fire->row.id, sizeof(next.id));
    fire->row.payload = fire->row.trace = NULL;
    fire_row_fini(&fire->row);
    fire->row = next;
}

static void do_fire(struct store_mem_world *w, const struct fire_change *f)
{
    struct mem_fire *fire = find_fire(w, &f->row.uid, f->row.seq);
    if (look_fire(w, f) != LOOK_DO)
        return;
    mem_copy_keep(w, f);
    if (f->op == CHANGE_UPDATE) {
        do_fire_update(fire, &f->row);
        fire_settle(w, fire);
    } else if (f->op == CHANGE_DELETE) {
        mem_fire_forget(w, fire);
    } else {
        fire = mem_new(struct mem_fire);
        fire->key = (struct mem_fire_key){f->row.uid, f->row.seq};
        int r = fire_row_copy(&f->row, &fire->row, NULL);
        assert(r == 0);
        (void)r;
        list_init(&fire->state_link);
        list_push_back(&history_of(w, &f->row.uid)->fires, &fire->job_link);
        fire_settle(w, fire);
        put(&w->fires, &fire->key, sizeof(fire->key), fire);
    }
}

static void cancel_fires(struct store_mem_world *w, const struct job_row *row)
{
    struct mem_history *h = history_of(w, &row->uid);
    LIST_FOR (link, &h->fires) {
        struct mem_fire *fire = container_of(link, struct mem_fire, job_link);
        if (fire->row.state == FIRE_STATE_ENDED)
            continue;
        fire_row_deleted(&fire->row, row);
        fire_settle(w, fire);
    }
}

static void do_insert(struct store_mem_world *w, const struct job_change *c)
{
    struct mem_job *job = mem_new(struct mem_job);
    job->row = c->row;
    job->spec = job_spec_ref(c->spec);
    make_name(job->name, c->row.ns, c->row.id);
    put(&w->jobs, job->row.uid.bytes, sizeof(struct uid), job);
    put(&w->names, job->name, strlen(job->name), job);
}

static void do_job(struct store_mem_world *w, const struct job_change *c)
{
    struct mem_job *job = mem_job_by_uid(w, &c->row.uid);
    if (c->op == CHANGE_INSERT) {
        do_insert(w, c);
    } else if (c->op == CHANGE_DELETE) {
        map_remove(&w->jobs, c->row.uid.bytes, sizeof(struct uid));
        map_remove(&w->names, job->name, strlen(job->name));
        job_free(job);
    } else if (c->op != CHANGE_NONE) {
        struct job_row before = job->row;
        job->row = c->row;
        job->row.slot = before.slot;
        job->row.created_ms = before.created_ms;
        memcpy(job->row.ns, before.ns, sizeof(before.ns));
        memcpy(job->row.id, before.id, sizeof(before.id));
    }
    if (c->op == CHANGE_REPLACE) {
        job_spec_unref(job->spec);
        job->spec = job_spec_ref(c->spec);
    }
}

static void do_revision(struct store_mem_world *w, const struct job_change *c)
{
    struct mem_revision *revision = mem_new(struct mem_revision);
    revision->row = c->revision;
    revision->was = c->replaced ? job_spec_ref(c->replaced) : NULL;
    revision->key.change_id = c->revision.change_id;
    make_name(revision->key.name, c->row.ns, c->row.id);
    put(&w->revisions, &revision->key, sizeof(revision->key), revision);
}

static void do_change(struct store_mem_world *w, struct job_change *c)
{
    bool wanted;
    c->result = look(w, c, &wanted);
    if (c->result == CHANGE_RESULT_REFUSED)
        (void)snprintf(c->problem, sizeof(c->problem), "a name is not ASCII"); /* short */
    if (!wanted)
        return;
    do_job(w, c);
    if (has_revision(c))
        do_revision(w, c);
    for (size_t i = 0; i < c->fires_count; i++)
        do_fire(w, &c->fires[i]);
    if (c->op == CHANGE_DELETE)
        cancel_fires(w, &c->row);
}

static int compare_changes(const void *a, const void *b)
{
    const struct job_change *x = *(struct job_change *const *)a, *y = *(struct job_change *const *)b;
    return memcmp(x->row.uid.bytes, y->row.uid.bytes, sizeof(struct uid));
}

/* Inserts last: a name may get free in the same batch. */
static int commit_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    const struct store_batch *b = op->batch;
    int r = mem_fence(w, b->member, e);
    if (r < 0)
        return r;
    mem_slots_apply(w, b->slots, b->slots_count);
    struct job_change **sorted = mem_new_array(struct job_change *, b->jobs_count + 1);
    if (b->jobs_count > 0)
        memcpy(sorted, b->jobs, b->jobs_count * sizeof(struct job_change *));
    qsort(sorted, b->jobs_count, sizeof(struct job_change *), compare_changes);
    for (int inserts = 0; inserts < 2; inserts++)
        for (size_t i = 0; i < b->jobs_count; i++)
            if ((sorted[i]->op == CHANGE_INSERT) == (inserts == 1))
                do_change(w, sorted[i]);
    mem_free(sorted);
    op->store->stats.commit_rows += b->jobs_count;
    return 0;
}

static void answer_done(struct mem_op *op, const struct err *e)
{
    op->done(op->arg, e);
}

void mem_commit(void *self, struct store_batch *batch, store_done *done, void *arg)
{
    struct store_mem *s = self;
    struct mem_op *op = mem_op_new(self, "commit", true, commit_work, answer_done, arg);
    assert(s->committing < store_mem.commits_max);
    s->committing++;
    op->batch = batch;
    op->done = done;
    mem_op_send(op);
}

/* --- reads --------------------------------------------------------------------------------------------------------- */

static void answer_jobs(struct mem_op *op, const struct err *e)
{
    bool ok = e->code == ERR_OK;
    op->jobs_done(op->arg, e, ok ? op->jobs : NULL, ok ? op->found : 0, ok && op->more);
}

static void answer_fires(struct mem_op *op, const struct err *e)
{
    bool ok = e->code == ERR_OK;
    op->fires_done(op->arg, e, ok ? op->fires : NULL, ok ? op->found : 0, ok && op->more);
}

static int compare_place(uint16_t slot_a, int64_t wake_a, const struct uid *a, uint64_t seq_a,
                         uint16_t slot_b, int64_t wake_b, const struct uid *b, uint64_t seq_b)
{
    if (slot_a != slot_b)
        return slot_a < slot_b ? -1 : 1;
    if (wake_a != wake_b)
        return wake_a < wake_b ? -1 : 1;
    int order = memcmp(a->bytes, b->bytes, sizeof(a->bytes));
    return order ? order : (seq_a > seq_b) - (seq_a < seq_b);
}

/* SEQ is 0 for jobs, and so is that of the place after which they are wanted. */
static bool is_wanted(const struct store_load *l, uint16_t slot, int64_t wake_ms, const struct uid *uid,
                      uint64_t seq)
{
    bool own = false;
    if (wake_ms == RECORD_NONE || wake_ms >= l->until_ms ||
        (l->from_ms != RECORD_NONE && wake_ms < l->from_ms))
        return false;
    for (size_t i = 0; i < l->slots_count && !own; i++)
        own = l->slots[i] == slot;
    return own && (!l->after.set || compare_place(slot, wake_ms, uid, seq, l->after.slot, l->after.wake_ms,
                                                  &l->after.uid, seq ? l->after.seq : 0) > 0);
}

static int by_place_jobs(const void *a, const void *b)
{
    const struct job_row *x = &((const struct store_job *)a)->row, *y = &((const struct store_job *)b)->row;
    return compare_place(x->slot, x->wake_ms, &x->uid, 0, y->slot, y->wake_ms, &y->uid, 0);
}

static int by_place_fires(const void *a, const void *b)
{
    const struct fire_row *x = *(struct fire_row *const *)a, *y = *(struct fire_row *const *)b;
    return compare_place(x->slot, x->wake_ms, &x->uid, x->seq, y->slot, y->wake_ms, &y->uid, y->seq);
}

static void cut(struct mem_op *op, size_t limit)
{
    op->more = op->found > limit;
    for (size_t i = limit; op->jobs && i < op->found; i++)
        job_spec_unref(op->jobs[i].spec);
    if (op->more)
        op->found = limit;
}

static int load_jobs_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    (void)e; /* cannot fail */
    const struct mem_job **wanted = mem_new_array(const struct mem_job *, map_count(&w->jobs) + 1);
    size_t count = 0;
    for (struct map_iter it = {0}; map_next(&w->jobs, &it);) {
        const struct mem_job *job = it.value;
        if (is_wanted(op->load, job->row.slot, job->row.wake_ms, &job->row.uid, 0) &&
            store_tzdata_wanted(op->load, &job->row))
            wanted[count++] = job;
    }
    op->jobs = mem_new_array(struct store_job, count + 1);
    for (; op->found < count; op->found++)
        op->jobs[op->found] =
            (struct store_job){.row = wanted[op->found]->row, .spec = job_spec_ref(wanted[op->found]->spec)};
    mem_free(wanted);
    qsort(op->jobs, op->found, sizeof(*op->jobs), by_place_jobs);
    cut(op, op->load->limit);
    return 0;
}

void mem_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "load_jobs", false, load_jobs_work, answer_jobs, arg);
    op->load = load;
    op->jobs_done = done;
    mem_op_send(op);
}

int mem_give_fires(struct mem_op *op, const struct fire_row **rows, size_t count, size_t limit,
                   int (*order)(const void *, const void *), struct err *e)
{
    qsort(rows, count, sizeof(const struct fire_row *), order);
    op->more = count > limit;
    size_t n = op->more ? limit : count;
    op->fires = mem_new_array(struct fire_row, n + 1);
    for (; op->found < n; op->found++) {
        int r = fire_row_copy(rows[op->found], &op->fires[op->found], e);
        if (r < 0)
            return r;
    }
    return 0;
}

static size_t count_links(struct list *head)
{
    size_t n = 0;
    LIST_FOR (link, head)
        n++;
    return n;
}

static int load_fires_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    const struct fire_row **rows = mem_new_array(const struct fire_row *, count_links(&w->unfinished) + 1);
    size_t count = 0;
    LIST_FOR (link, &w->unfinished) {
        const struct fire_row *row = &container_of(link, struct mem_fire, state_link)->row;
        if (is_wanted(op->load, row->slot, row->wake_ms, &row->uid, row->seq))
            rows[count++] = row;
    }
    int r = mem_give_fires(op, rows, count, op->load->limit, by_place_fires, e);
    mem_free(rows);
    return r;
}

void mem_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "load_fires", false, load_fires_work, answer_fires, arg);
    op->load = load;
    op->fires_done = done;
    mem_op_send(op);
}

static int get_jobs_work(struct mem_op *op, struct err *e)
{
    (void)e; /* cannot fail */
    op->jobs = mem_new_array(struct store_job, op->count + 1);
    for (; op->found < op->count; op->found++) {
        const struct store_key *key = &op->keys[op->found];
        const struct mem_job *job = key->ns[0] ? job_by_name(op->store->world, key->ns, key->id)
                                               : mem_job_by_uid(op->store->world, &key->uid);
        if (job)
            op->jobs[op->found] = (struct store_job){.row = job->row, .spec = job_spec_ref(job->spec)};
    }
    return 0;
}

void mem_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "get_jobs", false, get_jobs_work, answer_jobs, arg);
    op->keys = keys;
    op->count = count;
    op->jobs_done = done;
    mem_op_send(op);
}

static int newest_first(const void *a, const void *b)
{
    const struct fire_row *x = *(struct fire_row *const *)a, *y = *(struct fire_row *const *)b;
    return (x->seq < y->seq) - (x->seq > y->seq);
}

static int get_fires_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    struct mem_history *h = history_of(w, &op->uid);
    const struct fire_row **rows = mem_new_array(const struct fire_row *, count_links(&h->fires) + 1);
    size_t count = 0;
    LIST_FOR (link, &h->fires) {
        const struct fire_row *row = &container_of(link, struct mem_fire, job_link)->row;
        if (!op->number || row->seq < op->number)
            rows[count++] = row;
    }
    int r = mem_give_fires(op, rows, count, op->count, newest_first, e);
    mem_free(rows);
    return r;
}

void mem_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                   store_fires_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "get_fires", false, get_fires_work, answer_fires, arg);
    op->uid = *uid;
    op->number = before_seq;
    op->count = limit;
    op->fires_done = done;
    mem_op_send(op);
}

bool mem_has_label(const struct job_spec *spec, const char *name, const char *value)
{
    for (size_t i = 0; i < spec->labels_count; i++)
        if (strcmp(spec->labels[i].name, name) == 0 && strcmp(spec->labels[i].value, value) == 0)
            return true;
    return false;
}

static bool matches(const struct store_filter *f, const struct mem_job *job)
{
    const struct job_row *row = &job->row;
    if ((f->ns && strcmp(f->ns, row->ns) != 0) ||
        (f->prefix && strncmp(row->id, f->prefix, strlen(f->prefix)) != 0))
        return false;
    if ((f->state >= 0 && (int)job_row_shown_state(row) != f->state) ||
        (f->last_outcome >= 0 && (row->last.seq == 0 || (int)row->last.outcome != f->last_outcome)))
        return false;
    for (size_t i = 0; i < f->labels_count; i++)
        if (!mem_has_label(job->spec, f->label_names[i], f->label_values[i]))
            return false;
    if (!f->after_ns)
        return true;
    int order = strcmp(row->ns, f->after_ns);
    return order > 0 || (order == 0 && strcmp(row->id, f->after_id ? f->after_id : "") > 0);
}

static int by_name(const void *a, const void *b)
{
    const struct job_row *x = &((const struct store_job *)a)->row, *y = &((const struct store_job *)b)->row;
    int order = strcmp(x->ns, y->ns);
    return order ? order : strcmp(x->id, y->id);
}

static int list_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    (void)e; /* cannot fail */
    op->jobs = mem_new_array(struct store_job, map_count(&w->jobs) + 1);
    for (struct map_iter it = {0}; map_next(&w->jobs, &it);) {
        const struct mem_job *job = it.value;
        if (matches(op->filter, job))
            op->jobs[op->found++] = (struct store_job){.row = job->row, .spec = job_spec_ref(job->spec)};
    }
    qsort(op->jobs, op->found, sizeof(*op->jobs), by_name);
    cut(op, op->filter->limit);
    op->page = (struct store_page){.jobs = op->jobs, .jobs_count = op->found, .more = op->more};
    if (op->found > 0) {
        memcpy(op->page.next_ns, op->jobs[op->found - 1].row.ns, sizeof(op->page.next_ns));
        memcpy(op->page.next_id, op->jobs[op->found - 1].row.id, sizeof(op->page.next_id));
    }
    return 0;
}

static void answer_page(struct mem_op *op, const struct err *e)
{
    op->page_done(op->arg, e, e->code == ERR_OK ? &op->page : NULL);
}

void mem_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "list_jobs", false, list_work, answer_page, arg);
    op->filter = filter;
    op->page_done = done;
    mem_op_send(op);
}

static int find_change_work(struct mem_op *op, struct err *e)
{
    struct mem_revision *revision = find_revision(op->store->world, op->ns, op->id, op->number);
    (void)e; /* cannot fail */
    op->revision = revision ? &revision->row : NULL;
    return 0;
}

static void answer_revision(struct mem_op *op, const struct err *e)
{
    op->revision_done(op->arg, e, e->code == ERR_OK ? op->revision : NULL);
}

void mem_find_change(void *self, const char *ns, const char *id, uint64_t change_id,
                     store_revision_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "find_change", false, find_change_work, answer_revision, arg);
    memcpy(op->ns, ns, strnlen(ns, sizeof(op->ns) - 1));
    memcpy(op->id, id, strnlen(id, sizeof(op->id) - 1));
    op->number = change_id;
    op->revision_done = done;
    mem_op_send(op);
}

static int newest_revision_first(const void *a, const void *b)
{
    const struct revision *x = &((const struct store_revision *)a)->row,
                          *y = &((const struct store_revision *)b)->row;
    int order = (x->at_ms < y->at_ms) - (x->at_ms > y->at_ms);
    return order ? order : (x->change_id < y->change_id) - (x->change_id > y->change_id);
}

static bool revision_wanted(const struct store_revisions *which, const char *name,
                            const struct mem_revision *revision)
{
    const struct revision *row = &revision->row;
    if (strcmp(revision->key.name, name) != 0 || (which->changes && strcmp(row->op, "run") == 0))
        return false;
    return !which->before.set || row->at_ms < which->before.at_ms ||
           (row->at_ms == which->before.at_ms && row->change_id < which->before.change_id);
}

static void give_definition(struct store_revision *r, const struct job_spec *was)
{
    const char *definition = job_spec_definition(was, &r->was_bytes);
    r->was = mem_try_strndup(definition, r->was_bytes, NULL);
    assert(r->was);
}

static int list_revisions_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    const struct store_revisions *which = op->which;
    char name[RECORD_NS_MAX + RECORD_ID_MAX];
    (void)e; /* cannot fail */
    make_name(name, which->ns, which->id);
    op->revisions = mem_new_array(struct store_revision, map_count(&w->revisions) + 1);
    for (struct map_iter it = {0}; map_next(&w->revisions, &it);) {
        const struct mem_revision *revision = it.value;
        if (revision_wanted(which, name, revision))
            op->revisions[op->found++] = (struct store_revision){.row = revision->row};
    }
    qsort(op->revisions, op->found, sizeof(*op->revisions), newest_revision_first);
    cut(op, which->limit);
    for (size_t i = 0; which->definitions && i < op->found; i++) {
        const struct mem_revision *revision =
            find_revision(w, which->ns, which->id, op->revisions[i].row.change_id);
        if (revision->was)
            give_definition(&op->revisions[i], revision->was);
    }
    return 0;
}

static void answer_revisions(struct mem_op *op, const struct err *e)
{
    bool ok = e->code == ERR_OK;
    op->revisions_done(op->arg, e, ok ? op->revisions : NULL, ok ? op->found : 0, ok && op->more);
}

void mem_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done,
                        void *arg)
{
    struct mem_op *op = mem_op_new(self, "list_revisions", false, list_revisions_work, answer_revisions, arg);
    op->which = which;
    op->revisions_done = done;
    mem_op_send(op);
}
