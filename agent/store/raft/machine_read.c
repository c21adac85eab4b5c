/* Questions of store.h, each answered from an index. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/raft/pack.h"

/* Rows that a page of a list examines when filters apply that no index knows. */
#define SCAN_MAX 1000

/* Adds what a row holds; true when the page is full with what it had before. */
static bool is_full(size_t count, size_t *bytes, size_t more_bytes)
{
    *bytes += more_bytes;
    return count > 0 && *bytes > MACHINE_PAGE_BYTES;
}

static size_t spec_bytes(const struct machine_job *job)
{
    return pack_text_bytes(job->spec->data, job->spec->bytes);
}

static void give_job(const struct machine_job *job, struct machine_job_found *ret)
{
    machine_job_row(job, &ret->row);
    ret->spec = machine_blob_ref(job->spec);
}

/* --- loads --------------------------------------------------------------------------------------------------------- */

/* Where reading of slot I begins; false: nothing of it is wanted any more. */
static bool slot_start(const struct store_load *load, size_t i, struct machine_key *ret, bool *ret_after)
{
    uint16_t slot = load->slots[i];
    *ret = (struct machine_key){.slot = slot, .ms = load->from_ms == RECORD_NONE ? INT64_MIN : load->from_ms};
    *ret_after = false;
    if (!load->after.set || slot > load->after.slot)
        return true;
    if (slot < load->after.slot)
        return false;
    if (load->after.wake_ms < ret->ms)
        return true;
    ret->ms = load->after.wake_ms;
    ret->uid = load->after.uid;
    ret->seq = load->after.seq;
    *ret_after = true;
    return true;
}

struct page {
    size_t count;
    size_t bytes;
    bool more;
};

static bool tzdata_wanted(const struct store_load *load, const struct machine_job *job)
{
    struct job_row row;
    machine_job_row(job, &row);
    return store_tzdata_wanted(load, &row);
}

static void load_slot_jobs(const struct machine *m, const struct store_load *load, size_t i,
                           struct machine_job_found *ret, struct page *page)
{
    struct machine_key key;
    bool after;
    if (!slot_start(load, i, &key, &after))
        return;
    struct sorted_at at = sorted_seek(&m->jobs_by_wake, &key, after);
    const struct machine_job *job;
    for (; (job = sorted_get(&m->jobs_by_wake, at)); sorted_next(&m->jobs_by_wake, &at)) {
        if (job->slot != load->slots[i] || job->wake_ms >= load->until_ms)
            return;
        if (load->tzdata_before && !tzdata_wanted(load, job))
            continue;
        if (page->count == load->limit || is_full(page->count, &page->bytes, spec_bytes(job))) {
            page->more = true;
            return;
        }
        give_job(job, &ret[page->count++]);
    }
}

size_t machine_load_jobs(const struct machine *m, const struct store_load *load,
                         struct machine_job_found *ret, bool *ret_more)
{
    struct page page = {0};
    for (size_t i = 0; i < load->slots_count && !page.more; i++)
        load_slot_jobs(m, load, i, ret, &page);
    *ret_more = page.more;
    return page.count;
}

static void give_fire(const struct machine_fire *fire, struct machine_fire_found *ret)
{
    ret->blob = machine_blob_ref(fire->row);
    machine_fire_row(fire, &ret->row);
}

static void load_slot_fires(const struct machine *m, const struct store_load *load, size_t i,
                            struct machine_fire_found *ret, struct page *page)
{
    struct machine_key key;
    bool after;
    if (!slot_start(load, i, &key, &after))
        return;
    struct sorted_at at = sorted_seek(&m->fires_by_wake, &key, after);
    const struct machine_fire *fire;
    for (; (fire = sorted_get(&m->fires_by_wake, at)); sorted_next(&m->fires_by_wake, &at)) {
        if (fire->slot != load->slots[i] || fire->wake_ms >= load->until_ms)
            return;
        if (page->count == load->limit || is_full(page->count, &page->bytes, fire->row->bytes)) {
            page->more = true;
            return;
        }
        give_fire(fire, &ret[page->count++]);
    }
}

size_t machine_load_fires(const struct machine *m, const struct store_load *load,
                          struct machine_fire_found *ret, bool *ret_more)
{
    struct page page = {0};
    for (size_t i = 0; i < load->slots_count && !page.more; i++)
        load_slot_fires(m, load, i, ret, &page);
    *ret_more = page.more;
    return page.count;
}

/* --- by key -------------------------------------------------------------------------------------------------------- */

size_t machine_get_jobs(const struct machine *m, const struct store_key *keys, size_t count,
                        struct machine_job_found *ret, bool *ret_more)
{
    size_t bytes = 0;
    *ret_more = false;
    for (size_t i = 0; i < count; i++) {
        const struct machine_job *job = keys[i].ns[0] ? machine_job_by_name(m, keys[i].ns, keys[i].id)
                                                      : machine_job_by_uid(m, &keys[i].uid);
        ret[i].spec = NULL;
        if (!job)
            continue;
        if (is_full(i, &bytes, spec_bytes(job))) {
            *ret_more = true;
            return i;
        }
        give_job(job, &ret[i]);
    }
    return count;
}

size_t machine_get_fires(const struct machine *m, const struct uid *uid, uint64_t before_seq, size_t limit,
                         struct machine_fire_found *ret, bool *ret_more)
{
    struct machine_key key = {.uid = *uid, .seq = before_seq ? before_seq : UINT64_MAX};
    struct sorted_at at = sorted_seek(&m->fires_by_seq, &key, before_seq == 0);
    size_t count = 0, bytes = 0;
    *ret_more = false;
    while (sorted_prev(&m->fires_by_seq, &at)) {
        const struct machine_fire *fire = sorted_get(&m->fires_by_seq, at);
        if (memcmp(fire->uid.bytes, uid->bytes, sizeof(uid->bytes)) != 0)
            break;
        if (count == limit || is_full(count, &bytes, fire->row->bytes)) {
            *ret_more = true;
            break;
        }
        give_fire(fire, &ret[count++]);
    }
    return count;
}

/* --- lists --------------------------------------------------------------------------------------------------------- */

static bool has_label(const struct machine_job *job, const char *name, const char *value)
{
    for (size_t i = 0; i < job->labels_count; i++)
        if (strcmp(job->labels[i].name, name) == 0 && strcmp(job->labels[i].value, value) == 0)
            return true;
    return false;
}

static bool matches(const struct store_filter *f, const struct machine_job *job)
{
    if (f->prefix && strncmp(machine_job_id(job), f->prefix, strlen(f->prefix)) != 0)
        return false;
    for (size_t i = 0; i < f->labels_count; i++)
        if (!has_label(job, f->label_names[i], f->label_values[i]))
            return false;
    if (f->state < 0 && f->last_outcome < 0)
        return true;
    struct job_row row;
    machine_job_row(job, &row);
    return (f->state < 0 || (int)job_row_shown_state(&row) == f->state) &&
           (f->last_outcome < 0 || (row.last.seq > 0 && (int)row.last.outcome == f->last_outcome));
}

/* Lists walk the names, or those of the first label. */
struct walk {
    const struct store_filter *f;
    const struct sorted *index;
    struct sorted_at at;
};

static const struct machine_job *walk_job(const struct walk *w)
{
    void *item = sorted_get(w->index, w->at);
    return item && w->f->labels_count ? ((struct machine_label *)item)->job : item;
}

/* Where the list begins. */
static void walk_begin(struct walk *w, const struct machine *m, const struct store_filter *f)
{
    const char *after_id = f->after_id ? f->after_id : "", *prefix = f->ns && f->prefix ? f->prefix : "";
    struct machine_key key = {.ns = f->ns ? f->ns : "", .id = prefix};
    bool after = false;
    *w = (struct walk){.f = f, .index = f->labels_count ? &m->labels : &m->jobs_by_name};
    if (f->labels_count) {
        key.name = f->label_names[0];
        key.value = f->label_values[0];
    }
    if (f->after_ns) {
        int order = strcmp(f->after_ns, key.ns);
        if (order > 0 || (order == 0 && strcmp(after_id, key.id) >= 0)) {
            key.ns = f->after_ns;
            key.id = after_id;
            after = true;
        }
    }
    w->at = sorted_seek(w->index, &key, after);
}

/* Whether JOB, at the walk's place, still is in the stretch that the filter names. */
static bool in_stretch(const struct walk *w, const struct machine_job *job)
{
    const struct store_filter *f = w->f;
    if (f->labels_count) {
        const struct machine_label *label = sorted_get(w->index, w->at);
        if (strcmp(label->name, f->label_names[0]) != 0 || strcmp(label->value, f->label_values[0]) != 0)
            return false;
    }
    if (!f->ns)
        return true;
    return strcmp(job->name, f->ns) == 0 &&
           (!f->prefix || strncmp(machine_job_id(job), f->prefix, strlen(f->prefix)) == 0);
}

static void set_next(struct store_page *page, const struct machine_job *job)
{
    memcpy(page->next_ns, job->name, job->id_at);
    memcpy(page->next_id, machine_job_id(job), strlen(machine_job_id(job)) + 1);
}

size_t machine_list_jobs(const struct machine *m, const struct store_filter *filter, size_t limit,
                         struct machine_job_found *ret, struct store_page *ret_page)
{
    struct walk w;
    size_t count = 0, bytes = 0, scanned = 0;
    const struct machine_job *job;
    *ret_page = (struct store_page){0};
    for (walk_begin(&w, m, filter); (job = walk_job(&w)) && in_stretch(&w, job);
         sorted_next(w.index, &w.at), scanned++) {
        bool wanted = matches(filter, job);
        if (count == limit || scanned == SCAN_MAX || (wanted && is_full(count, &bytes, spec_bytes(job)))) {
            ret_page->more = true;
            break;
        }
        set_next(ret_page, job);
        if (wanted)
            give_job(job, &ret[count++]);
    }
    return count;
}

/* --- fires of all jobs --------------------------------------------------------------------------------------------- */

struct machine_blob *machine_get_copy(const struct machine *m, const struct uid *uid, uint64_t version)
{
    const struct machine_copy *copy = machine_copy_find(m, uid, version);
    return copy ? machine_blob_ref(copy->spec) : NULL;
}

static bool copy_has_label(const struct machine_copy *copy, const char *name, const char *value)
{
    struct pack_labels labels;
    if (!copy || !pack_labels(copy->spec->data, copy->spec->bytes, &labels))
        return false;
    while (labels.count-- > 0) {
        const char *n, *v;
        pack_labels_next(&labels, &n, &v);
        if (strcmp(n, name) == 0 && strcmp(v, value) == 0)
            return true;
    }
    return false;
}

/* The labels of the job while there is one, then those of the copy. */
static bool labels_match(const struct machine *m, const struct store_fire_filter *f,
                         const struct fire_row *row)
{
    const struct machine_job *job = machine_job_by_uid(m, &row->uid);
    const struct machine_copy *copy = job ? NULL : machine_copy_find(m, &row->uid, row->version);
    for (size_t i = 0; i < f->labels_count; i++)
        if (job ? !has_label(job, f->label_names[i], f->label_values[i])
                : !copy_has_label(copy, f->label_names[i], f->label_values[i]))
            return false;
    return true;
}

static bool fire_matches(const struct machine *m, const struct store_fire_filter *f,
                         const struct machine_fire *fire)
{
    if ((f->outcome >= 0 && fire->outcome != f->outcome) ||
        (f->prefix && strncmp(machine_fire_id(fire), f->prefix, strlen(f->prefix)) != 0))
        return false;
    if (!f->service && f->labels_count == 0)
        return true;
    struct fire_row row;
    machine_fire_row(fire, &row);
    return (!f->service || strcmp(f->service, row.service) == 0) && labels_match(m, f, &row);
}

/* The index in which what F asks for stands together, and a key of that stretch. */
static const struct sorted *fire_stretch(const struct machine *m, const struct store_fire_filter *f,
                                         struct machine_key *ret)
{
    *ret =
        (struct machine_key){.ns = f->ns, .id = f->job, .outcome = f->outcome < 0 ? 0 : (uint8_t)f->outcome};
    return f->job ? &m->fires_by_job : f->outcome >= 0 ? &m->fires_by_outcome : &m->fires_by_due;
}

/* Where the walk begins: forward at the first row that is wanted, backward behind the last. */
static struct sorted_at fire_start(const struct sorted *index, struct machine_key *key,
                                   const struct store_fire_filter *f)
{
    bool up = f->oldest_first, at_cursor = f->after.set;
    int64_t bound = up ? f->from_ms : f->until_ms;
    if (at_cursor && bound != RECORD_NONE)
        at_cursor = up ? f->after.due_ms >= bound : f->after.due_ms < bound;
    if (at_cursor) {
        key->ms = f->after.due_ms;
        key->uid = f->after.uid;
        key->seq = f->after.seq;
        return sorted_seek(index, key, up);
    }
    if (bound != RECORD_NONE || up) {
        key->ms = bound == RECORD_NONE ? INT64_MIN : bound;
        return sorted_seek(index, key, false);
    }
    key->ms = INT64_MAX;
    memset(key->uid.bytes, 0xff, sizeof(key->uid.bytes));
    key->seq = UINT64_MAX;
    return sorted_seek(index, key, true);
}

static bool in_fire_stretch(const struct store_fire_filter *f, const struct machine_fire *fire)
{
    if (strcmp(fire->name, f->ns) != 0)
        return false;
    if (f->job ? strcmp(machine_fire_id(fire), f->job) != 0 : f->outcome >= 0 && fire->outcome != f->outcome)
        return false;
    return f->oldest_first ? f->until_ms == RECORD_NONE || fire->due_ms < f->until_ms
                           : f->from_ms == RECORD_NONE || fire->due_ms >= f->from_ms;
}

/* The next row of the walk, or NULL; AT stands at it when walking back, behind it when forward. */
static const struct machine_fire *fire_step(const struct sorted *index, struct sorted_at *at, bool up)
{
    if (!up)
        return sorted_prev(index, at) ? sorted_get(index, *at) : NULL;
    const struct machine_fire *fire = sorted_get(index, *at);
    sorted_next(index, at);
    return fire;
}

size_t machine_list_fires(const struct machine *m, const struct store_fire_filter *filter, size_t limit,
                          struct machine_fire_found *ret, struct store_fire_place *ret_next)
{
    struct machine_key key;
    const struct sorted *index = fire_stretch(m, filter, &key);
    struct sorted_at at = fire_start(index, &key, filter);
    const struct machine_fire *fire;
    size_t count = 0, bytes = 0;
    *ret_next = (struct store_fire_place){0};
    for (size_t scanned = 0; (fire = fire_step(index, &at, filter->oldest_first)); scanned++) {
        if (!in_fire_stretch(filter, fire))
            break;
        bool wanted = fire_matches(m, filter, fire);
        if (count == limit || scanned == SCAN_MAX || (wanted && is_full(count, &bytes, fire->row->bytes))) {
            ret_next->set = true;
            return count;
        }
        *ret_next = (struct store_fire_place){.due_ms = fire->due_ms, .uid = fire->uid, .seq = fire->seq};
        if (wanted)
            give_fire(fire, &ret[count++]);
    }
    return count;
}

size_t machine_count_dead(const struct machine *m, struct store_dead *ret)
{
    size_t count = 0;
    struct sorted_at at = sorted_seek(&m->namespaces, NULL, false);
    const struct machine_ns *ns;
    for (; count < STORE_DEAD_NS_MAX && (ns = sorted_get(&m->namespaces, at));
         sorted_next(&m->namespaces, &at)) {
        struct store_dead *dead = &ret[count++];
        memcpy(dead->ns, ns->ns, sizeof(dead->ns));
        dead->count = ns->dead < STORE_DEAD_COUNT_MAX ? ns->dead : STORE_DEAD_COUNT_MAX;
    }
    return count;
}

uint64_t machine_count_jobs(const struct machine *m, const char *ns, uint64_t limit)
{
    struct machine_key key = {.ns = ns, .id = ""};
    struct sorted_at at = sorted_seek(&m->jobs_by_name, &key, false);
    const struct machine_job *job;
    uint64_t count = 0;
    for (; count < limit && (job = sorted_get(&m->jobs_by_name, at));
         sorted_next(&m->jobs_by_name, &at), count++)
        if (*ns && strcmp(job->name, ns) != 0)
            break;
    return count;
}

/* --- revisions ----------------------------------------------------------------------------------------------------- */

bool machine_find_change(const struct machine *m, const char *ns, const char *id, uint64_t change_id,
                         struct revision *ret)
{
    const struct machine_revision *r = machine_revision_find(m, ns, id, change_id);
    if (r)
        machine_revision_row(r, ret);
    return r != NULL;
}

/* The place behind the newest that is wanted. */
static struct sorted_at before(const struct machine *m, const struct store_revisions *which)
{
    struct machine_key key = {.ns = which->ns, .id = which->id, .ms = INT64_MAX, .seq = UINT64_MAX};
    if (which->before.set) {
        key.ms = which->before.at_ms;
        key.seq = which->before.change_id;
    }
    return sorted_seek(&m->revisions_by_name, &key, !which->before.set);
}

size_t machine_list_revisions(const struct machine *m, const struct store_revisions *which, size_t limit,
                              struct machine_revision_found *ret, bool *ret_more)
{
    struct sorted_at at = before(m, which);
    size_t count = 0, bytes = 0;
    *ret_more = false;
    while (sorted_prev(&m->revisions_by_name, &at)) {
        const struct machine_revision *r = sorted_get(&m->revisions_by_name, at);
        if (strcmp(r->name, which->ns) != 0 || strcmp(machine_revision_id(r), which->id) != 0)
            break;
        struct revision row;
        machine_revision_row(r, &row);
        if (which->changes && strcmp(row.op, "run") == 0)
            continue;
        struct machine_blob *was = which->definitions ? r->was : NULL;
        if (count == limit || is_full(count, &bytes, was ? pack_text_bytes(was->data, was->bytes) : 0)) {
            *ret_more = true;
            break;
        }
        ret[count++] = (struct machine_revision_found){.row = row, .was = was ? machine_blob_ref(was) : NULL};
    }
    return count;
}
