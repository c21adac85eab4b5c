/* Search, copies and forgetting of the store in memory. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/store/store_mem_private.h"

#define REVISIONS_KEPT_MS ((int64_t)90 * 86400 * 1000)
#define MEMBERS_KEPT_MS   ((int64_t)86400 * 1000)

/* --- copies -------------------------------------------------------------------------------------------------------- */

static struct mem_copy *find_copy(struct store_mem_world *w, const struct uid *uid, uint64_t version)
{
    struct mem_copy_key key = {*uid, version};
    return map_get(&w->copies, &key, sizeof(key));
}

void mem_copy_keep(struct store_mem_world *w, const struct fire_change *c)
{
    if (!c->copy)
        return;
    struct mem_copy *copy = find_copy(w, &c->row.uid, c->row.version);
    if (!copy) {
        copy = mem_new(struct mem_copy);
        copy->key = (struct mem_copy_key){c->row.uid, c->row.version};
        copy->spec = job_spec_ref(c->copy);
        copy->until_ms = c->copy_until_ms;
        int r = map_put(&w->copies, &copy->key, sizeof(copy->key), copy, NULL, NULL);
        assert(r == 0); /* only without memory */
        (void)r;
    }
    if (copy->until_ms < c->copy_until_ms)
        copy->until_ms = c->copy_until_ms;
}

static void copy_free(struct mem_copy *copy)
{
    job_spec_unref(copy->spec);
    mem_free(copy);
}

void mem_copies_fini(struct store_mem_world *w)
{
    for (struct map_iter it = {0}; map_next(&w->copies, &it);)
        copy_free(it.value);
    map_fini(&w->copies);
}

static int get_copy_work(struct mem_op *op, struct err *e)
{
    const struct mem_copy *copy = find_copy(op->store->world, &op->uid, op->number);
    (void)e; /* cannot fail */
    op->copy = copy ? job_spec_ref(copy->spec) : NULL;
    return 0;
}

static void answer_copy(struct mem_op *op, const struct err *e)
{
    op->copy_done(op->arg, e, e->code == ERR_OK ? op->copy : NULL);
}

void mem_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "get_copy", false, get_copy_work, answer_copy, arg);
    op->uid = *uid;
    op->number = version;
    op->copy_done = done;
    mem_op_send(op);
}

/* --- search -------------------------------------------------------------------------------------------------------- */

static int compare_places(int64_t due_a, const struct uid *uid_a, uint64_t seq_a, int64_t due_b,
                          const struct uid *uid_b, uint64_t seq_b)
{
    int order = memcmp(uid_a->bytes, uid_b->bytes, sizeof(uid_a->bytes));
    if (due_a != due_b)
        return due_a < due_b ? -1 : 1;
    return order ? order : (seq_a > seq_b) - (seq_a < seq_b);
}

static int oldest_first(const void *a, const void *b)
{
    const struct fire_row *x = *(struct fire_row *const *)a, *y = *(struct fire_row *const *)b;
    return compare_places(x->due_ms, &x->uid, x->seq, y->due_ms, &y->uid, y->seq);
}

static int newest_first(const void *a, const void *b)
{
    return oldest_first(b, a);
}

static bool labels_match(struct store_mem_world *w, const struct store_fire_filter *f,
                         const struct fire_row *row)
{
    const struct mem_job *job = mem_job_by_uid(w, &row->uid);
    const struct mem_copy *copy = job ? NULL : find_copy(w, &row->uid, row->version);
    const struct job_spec *spec = job ? job->spec : copy ? copy->spec : NULL;
    for (size_t i = 0; i < f->labels_count; i++)
        if (!spec || !mem_has_label(spec, f->label_names[i], f->label_values[i]))
            return false;
    return true;
}

static bool is_behind(const struct store_fire_filter *f, const struct fire_row *row)
{
    const struct store_fire_place *at = &f->after;
    if (!at->set)
        return true;
    int order = compare_places(row->due_ms, &row->uid, row->seq, at->due_ms, &at->uid, at->seq);
    return f->oldest_first ? order > 0 : order < 0;
}

static bool matches(struct store_mem_world *w, const struct store_fire_filter *f, const struct fire_row *row)
{
    if (strcmp(f->ns, row->ns) != 0 || (f->job && strcmp(f->job, row->id) != 0) ||
        (f->prefix && strncmp(row->id, f->prefix, strlen(f->prefix)) != 0) ||
        (f->service && strcmp(f->service, row->service) != 0) ||
        (f->outcome >= 0 && (int)row->outcome != f->outcome))
        return false;
    if ((f->from_ms != RECORD_NONE && row->due_ms < f->from_ms) ||
        (f->until_ms != RECORD_NONE && row->due_ms >= f->until_ms))
        return false;
    return is_behind(f, row) && labels_match(w, f, row);
}

static int list_fires_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    const struct store_fire_filter *f = op->fire_filter;
    const struct fire_row **rows = mem_new_array(const struct fire_row *, map_count(&w->fires) + 1);
    size_t count = 0;
    for (struct map_iter it = {0}; map_next(&w->fires, &it);) {
        const struct fire_row *row = &((struct mem_fire *)it.value)->row;
        if (matches(w, f, row))
            rows[count++] = row;
    }
    int r = mem_give_fires(op, rows, count, f->limit, f->oldest_first ? oldest_first : newest_first, e);
    mem_free(rows);
    op->fire_page = (struct store_fire_page){.fires = op->fires, .fires_count = op->found};
    if (r == 0 && op->more && op->found > 0) {
        const struct fire_row *last = &op->fires[op->found - 1];
        op->fire_page.next = (struct store_fire_place){true, last->due_ms, last->uid, last->seq};
    }
    return r;
}

static void answer_fire_page(struct mem_op *op, const struct err *e)
{
    op->fire_page_done(op->arg, e, e->code == ERR_OK ? &op->fire_page : NULL);
}

void mem_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "list_fires", false, list_fires_work, answer_fire_page, arg);
    op->fire_filter = filter;
    op->fire_page_done = done;
    mem_op_send(op);
}

/* --- how many dead letters ----------------------------------------------------------------------------------------- */

static int by_ns(const void *a, const void *b)
{
    return strcmp(((const struct store_dead *)a)->ns, ((const struct store_dead *)b)->ns);
}

static struct store_dead *counter_of(struct mem_op *op, const char *ns)
{
    for (size_t i = 0; i < op->found; i++)
        if (strcmp(op->dead[i].ns, ns) == 0)
            return &op->dead[i];
    struct store_dead *dead = &op->dead[op->found++];
    memcpy(dead->ns, ns, sizeof(dead->ns));
    return dead;
}

static int count_dead_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    (void)e; /* cannot fail */
    op->dead = mem_new_array(struct store_dead, map_count(&w->fires) + 1);
    for (struct map_iter it = {0}; map_next(&w->fires, &it);) {
        const struct fire_row *row = &((struct mem_fire *)it.value)->row;
        struct store_dead *dead = counter_of(op, row->ns);
        if (row->outcome == FIRE_OUTCOME_DEAD && dead->count < STORE_DEAD_COUNT_MAX)
            dead->count++;
    }
    qsort(op->dead, op->found, sizeof(*op->dead), by_ns);
    if (op->found > STORE_DEAD_NS_MAX)
        op->found = STORE_DEAD_NS_MAX;
    return 0;
}

static void answer_dead(struct mem_op *op, const struct err *e)
{
    bool ok = e->code == ERR_OK;
    op->dead_done(op->arg, e, ok ? op->dead : NULL, ok ? op->found : 0);
}

void mem_count_dead(void *self, store_dead_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "count_dead", false, count_dead_work, answer_dead, arg);
    op->dead_done = done;
    mem_op_send(op);
}

static int count_jobs_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    (void)e; /* cannot fail */
    op->dead = mem_new_array(struct store_dead, 1);
    op->found = 1;
    memcpy(op->dead->ns, op->ns, sizeof(op->dead->ns));
    for (struct map_iter it = {0}; map_next(&w->jobs, &it) && op->dead->count < op->number;) {
        const struct mem_job *job = it.value;
        op->dead->count += !op->yes || strcmp(job->row.ns, op->ns) == 0;
    }
    return 0;
}

void mem_count_jobs(void *self, const char *ns, uint64_t limit, store_dead_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "count_jobs", false, count_jobs_work, answer_dead, arg);
    op->dead_done = done;
    op->number = limit;
    op->yes = ns != NULL;
    if (ns)
        memcpy(op->ns, ns, strnlen(ns, sizeof(op->ns) - 1));
    mem_op_send(op);
}

/* --- forgetting ---------------------------------------------------------------------------------------------------- */

static bool owns_slots(const struct store_mem_world *w, const char *member)
{
    for (size_t i = 0; i < w->slots_count; i++)
        if (strcmp(w->slots[i].owner, member) == 0)
            return true;
    return false;
}

static void forget_members(struct store_mem_world *w, int64_t now_ms)
{
    for (struct mem_member **at = &w->members; *at;) {
        struct mem_member *m = *at;
        if (m->row.dead && m->died_ms < now_ms - MEMBERS_KEPT_MS && !owns_slots(w, m->row.id)) {
            *at = m->next;
            mem_free(m);
        } else {
            at = &m->next;
        }
    }
}

static bool is_bounded(const struct fire_row *row)
{
    return row->state == FIRE_STATE_ENDED && row->outcome != FIRE_OUTCOME_DEAD;
}

static int by_job_newest_first(const void *a, const void *b)
{
    const struct mem_fire *x = *(struct mem_fire *const *)a, *y = *(struct mem_fire *const *)b;
    int order = memcmp(x->key.uid.bytes, y->key.uid.bytes, sizeof(x->key.uid));
    return order ? order : (x->key.seq < y->key.seq) - (x->key.seq > y->key.seq);
}

static void cut_histories(struct store_mem_world *w, uint32_t fires_max)
{
    struct mem_fire **fires = mem_new_array(struct mem_fire *, map_count(&w->fires) + 1);
    size_t count = 0, of_job = 0;
    for (struct map_iter it = {0}; map_next(&w->fires, &it);)
        if (is_bounded(&((struct mem_fire *)it.value)->row))
            fires[count++] = it.value;
    qsort(fires, count, sizeof(struct mem_fire *), by_job_newest_first);
    for (size_t i = 0; i < count; i++) {
        bool same = i + 1 < count && memcmp(&fires[i]->key.uid, &fires[i + 1]->key.uid, 16) == 0;
        of_job++;
        if (fires_max > 0 && of_job > fires_max)
            mem_fire_forget(w, fires[i]);
        if (!same)
            of_job = 0;
    }
    mem_free(fires);
}

static int vacuum_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    int64_t now_ms = op->vacuum.now_ms;
    (void)e; /* cannot fail */
    forget_members(w, now_ms);
    for (struct map_iter it = {0}; map_next(&w->fires, &it);) {
        const struct fire_row *row = &((struct mem_fire *)it.value)->row;
        if (row->state == FIRE_STATE_ENDED && row->wake_ms != RECORD_NONE && row->wake_ms < now_ms)
            mem_fire_forget(w, it.value);
    }
    cut_histories(w, op->vacuum.fires_max);
    for (struct map_iter it = {0}; map_next(&w->copies, &it);) {
        struct mem_copy *copy = it.value;
        if (copy->until_ms >= now_ms)
            continue;
        map_remove(&w->copies, &copy->key, sizeof(copy->key));
        copy_free(copy);
    }
    for (struct map_iter it = {0}; map_next(&w->revisions, &it);) {
        struct mem_revision *revision = it.value;
        if (revision->row.at_ms >= now_ms - REVISIONS_KEPT_MS)
            continue;
        map_remove(&w->revisions, &revision->key, sizeof(revision->key));
        mem_revision_free(revision);
    }
    return 0;
}

/* All of it at once. */
static void answer_vacuum(struct mem_op *op, const struct err *e)
{
    op->bool_done(op->arg, e, false);
}

void mem_vacuum(void *self, const struct store_vacuum *vacuum, store_bool_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "vacuum", true, vacuum_work, answer_vacuum, arg);
    op->vacuum = *vacuum;
    op->bool_done = done;
    mem_op_send(op);
}
