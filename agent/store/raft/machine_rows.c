/* Rows in memory and the indexes over them. */
#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/raft/pack.h"

/* --- blobs --------------------------------------------------------------------------------------------------------- */

/* Beside the count of who holds it: it is of a slab. */
#define OF_SLAB (UINT32_C(1) << 31)

static void fill_blob(struct machine_blob *b, uint32_t refs, const void *data, size_t bytes)
{
    atomic_init(&b->refs_, refs);
    b->bytes = (uint32_t)bytes;
    if (bytes > 0)
        memcpy(b->data, data, bytes);
}

struct machine_blob *machine_blob_new(const void *data, size_t bytes)
{
    struct machine_blob *b = mem_alloc_or_die(1, sizeof(*b) + bytes);
    fill_blob(b, 1, data, bytes);
    return b;
}

struct machine_blob *machine_blob_of(struct machine *m, const void *data, size_t bytes)
{
    struct machine_blob *b = slab_get(m->slab, sizeof(*b) + bytes);
    fill_blob(b, OF_SLAB | 1, data, bytes);
    return b;
}

struct machine_blob *machine_blob_ref(struct machine_blob *b)
{
    (void)atomic_fetch_add_explicit(&b->refs_, 1, memory_order_relaxed); /* one is held */
    return b;
}

void machine_blob_unref(struct machine_blob *b)
{
    uint32_t before = b ? atomic_fetch_sub_explicit(&b->refs_, 1, memory_order_acq_rel) : 0;
    if (before == 1)
        mem_free(b);
    else if (before == (OF_SLAB | 1))
        slab_put(b, sizeof(*b) + b->bytes);
}

/* --- jobs ---------------------------------------------------------------------------------------------------------- */

static struct machine_key job_key(const struct machine_job *job)
{
    return (struct machine_key){
        .uid = job->uid, .ns = job->name, .id = machine_job_id(job), .ms = job->wake_ms, .slot = job->slot};
}

struct machine_job *machine_job_by_uid(const struct machine *m, const struct uid *uid)
{
    struct machine_key key = {.uid = *uid};
    return sorted_find(&m->jobs_by_uid, &key);
}

struct machine_job *machine_job_by_name(const struct machine *m, const char *ns, const char *id)
{
    struct machine_key key = {.ns = ns, .id = id};
    return sorted_find(&m->jobs_by_name, &key);
}

/* Bytes in memory were written by this process. */
static void read_body(const void *data, size_t bytes, const struct codec_table *t, void *row)
{
    struct codec_in in = codec_in(data, bytes);
    codec_get_row(&in, t, row, CODEC_BODY);
    assert(!in.bad && in.at == in.end);
}

static const struct buf *write_body(struct machine *m, const struct codec_table *t, const void *row)
{
    buf_reset(&m->pack);
    codec_put_row(&m->pack, t, row, CODEC_BODY);
    assert(!buf_failed(&m->pack)); /* a row was bounded when it was read */
    return &m->pack;
}

void machine_job_row(const struct machine_job *job, struct job_row *ret)
{
    read_body(job->row, job->row_bytes, codec_job(), ret);
    ret->uid = job->uid;
    ret->slot = job->slot;
    memset(ret->ns, 0, sizeof(ret->ns)); /* whole, as the other texts */
    memset(ret->id, 0, sizeof(ret->id));
    memcpy(ret->ns, job->name, job->id_at);
    memcpy(ret->id, machine_job_id(job), strlen(machine_job_id(job)) + 1);
}

static void set_job_row(struct machine *m, struct machine_job *job, const struct job_row *row)
{
    const struct buf *body = write_body(m, codec_job(), row);
    if (!job->row || !slab_fits(job->row_bytes, body->len)) { /* most often it does */
        slab_put(job->row, job->row_bytes);
        job->row = slab_get(m->slab, body->len);
    }
    job->row_bytes = (uint16_t)body->len;
    memcpy(job->row, body->data, body->len);
    job->wake_ms = row->wake_ms;
}

static void index_wake(struct machine *m, struct machine_job *job)
{
    struct machine_key key = job_key(job);
    if (job->wake_ms != RECORD_NONE)
        sorted_insert(&m->jobs_by_wake, &key, job);
}

static void forget_wake(struct machine *m, struct machine_job *job)
{
    struct machine_key key = job_key(job);
    if (job->wake_ms != RECORD_NONE)
        (void)sorted_remove(&m->jobs_by_wake, &key); /* the same pointer */
}

static struct machine_key label_key(const struct machine_label *label)
{
    struct machine_key key = job_key(label->job);
    key.name = label->name;
    key.value = label->value;
    return key;
}

static void set_spec(struct machine *m, struct machine_job *job, struct machine_blob *spec)
{
    struct pack_labels labels;
    bool ok = pack_labels(spec->data, spec->bytes, &labels);
    assert(ok);
    (void)ok;
    job->spec = spec;
    job->labels_count = (uint16_t)labels.count;
    job->labels = labels.count ? slab_get(m->slab, labels.count * sizeof(*job->labels)) : NULL;
    for (size_t i = 0; i < labels.count; i++) {
        job->labels[i].job = job;
        pack_labels_next(&labels, &job->labels[i].name, &job->labels[i].value);
    }
}

static void free_spec(struct machine_job *job)
{
    slab_put(job->labels, job->labels_count * sizeof(*job->labels));
    machine_blob_unref(job->spec);
}

static void index_labels(struct machine *m, struct machine_job *job)
{
    for (size_t i = 0; i < job->labels_count; i++) {
        struct machine_key key = label_key(&job->labels[i]);
        sorted_insert(&m->labels, &key, &job->labels[i]);
    }
}

static void forget_labels(struct machine *m, struct machine_job *job)
{
    for (size_t i = 0; i < job->labels_count; i++) {
        struct machine_key key = label_key(&job->labels[i]);
        (void)sorted_remove(&m->labels, &key); /* the same pointer */
    }
}

struct machine_job *machine_job_make(struct machine *m, const struct job_row *row, struct machine_blob *spec)
{
    size_t ns = strlen(row->ns) + 1, id = strlen(row->id) + 1;
    struct machine_job *job = slab_get(m->slab, sizeof(*job) + ns + id);
    *job = (struct machine_job){.stamp = m->stamp, .uid = row->uid, .slot = row->slot, .id_at = (uint8_t)ns};
    memcpy(job->name, row->ns, ns);
    memcpy(job->name + ns, row->id, id);
    set_job_row(m, job, row);
    set_spec(m, job, spec);
    return job;
}

struct machine_job *machine_job_insert(struct machine *m, const struct job_row *row,
                                       struct machine_blob *spec)
{
    struct machine_job *job = machine_job_make(m, row, spec);
    struct machine_key key = job_key(job);
    sorted_insert(&m->jobs_by_uid, &key, job);
    sorted_insert(&m->jobs_by_name, &key, job);
    index_wake(m, job);
    index_labels(m, job);
    return job;
}

void machine_job_update(struct machine *m, struct machine_job *job, const struct job_row *row,
                        struct machine_blob *spec)
{
    machine_snapshot_job(m, job);
    forget_wake(m, job);
    set_job_row(m, job, row);
    index_wake(m, job);
    if (spec) {
        forget_labels(m, job);
        free_spec(job);
        set_spec(m, job, spec);
        index_labels(m, job);
    }
}

/* Of a thing of FIXED bytes with the name NAME. */
static size_t bytes_with_name(size_t fixed, const char *name, uint8_t id_at)
{
    return fixed + id_at + strlen(name + id_at) + 1;
}

static void job_free(struct machine_job *job)
{
    free_spec(job);
    slab_put(job->row, job->row_bytes);
    slab_put(job, bytes_with_name(sizeof(*job), job->name, job->id_at));
}

void machine_job_delete(struct machine *m, struct machine_job *job)
{
    struct machine_key key = job_key(job);
    machine_snapshot_job(m, job);
    forget_labels(m, job);
    forget_wake(m, job);
    (void)sorted_remove(&m->jobs_by_name, &key); /* the same pointer, as the next */
    (void)sorted_remove(&m->jobs_by_uid, &key);
    job_free(job);
}

/* --- fires --------------------------------------------------------------------------------------------------------- */

static struct machine_key fire_key(const struct machine_fire *fire)
{
    return (struct machine_key){.uid = fire->uid,
                                .ns = fire->name,
                                .id = machine_fire_id(fire),
                                .seq = fire->seq,
                                .ms = fire->due_ms,
                                .slot = fire->slot,
                                .outcome = fire->outcome};
}

struct machine_fire *machine_fire_find(const struct machine *m, const struct uid *uid, uint64_t seq)
{
    struct machine_key key = {.uid = *uid, .seq = seq};
    return sorted_find(&m->fires_by_seq, &key);
}

void machine_fire_row(const struct machine_fire *fire, struct fire_row *ret)
{
    read_body(fire->row->data, fire->row->bytes, codec_fire(), ret);
    ret->uid = fire->uid;
    ret->slot = fire->slot;
    ret->seq = fire->seq;
    memset(ret->ns, 0, sizeof(ret->ns)); /* whole, as the other texts */
    memset(ret->id, 0, sizeof(ret->id));
    memcpy(ret->ns, fire->name, fire->id_at);
    memcpy(ret->id, machine_fire_id(fire), strlen(machine_fire_id(fire)) + 1);
}

/* The index of its state, NULL when it wakes never. */
static struct sorted *fire_index(struct machine *m, const struct machine_fire *fire)
{
    if (fire->wake_ms == RECORD_NONE)
        return NULL;
    return fire->ended ? &m->fires_by_end : &m->fires_by_wake;
}

static void index_fire(struct machine *m, struct machine_fire *fire)
{
    struct machine_key key = fire_key(fire);
    struct sorted *by_state = fire_index(m, fire);
    sorted_insert(&m->fires_by_due, &key, fire);
    sorted_insert(&m->fires_by_outcome, &key, fire);
    sorted_insert(&m->fires_by_job, &key, fire);
    key.ms = fire->wake_ms;
    if (by_state)
        sorted_insert(by_state, &key, fire);
}

static void forget_fire(struct machine *m, struct machine_fire *fire)
{
    struct machine_key key = fire_key(fire);
    struct sorted *by_state = fire_index(m, fire);
    (void)sorted_remove(&m->fires_by_due, &key); /* the same pointer, as the others */
    (void)sorted_remove(&m->fires_by_outcome, &key);
    (void)sorted_remove(&m->fires_by_job, &key);
    fire->ns->dead -= fire->outcome == FIRE_OUTCOME_DEAD;
    key.ms = fire->wake_ms;
    if (by_state)
        (void)sorted_remove(by_state, &key);
}

static void set_fire_row(struct machine *m, struct machine_fire *fire, const struct fire_row *row)
{
    const struct buf *body = write_body(m, codec_fire(), row);
    struct machine_blob *before = fire->row;
    fire->row = machine_blob_of(m, body->data, body->len);
    machine_blob_unref(before);
    fire->ended = row->state == FIRE_STATE_ENDED;
    fire->outcome = (uint8_t)row->outcome;
    fire->wake_ms = row->wake_ms;
    fire->due_ms = row->due_ms;
    fire->ns->dead += fire->outcome == FIRE_OUTCOME_DEAD;
}

static struct machine_ns *enter_namespace(struct machine *m, const char *name)
{
    struct machine_key key = {.ns = name};
    struct machine_ns *ns = sorted_find(&m->namespaces, &key);
    if (!ns) {
        ns = mem_new(struct machine_ns);
        memcpy(ns->ns, name, strlen(name) + 1);
        sorted_insert(&m->namespaces, &key, ns);
    }
    ns->fires++;
    return ns;
}

static void leave_namespace(struct machine *m, struct machine_ns *ns)
{
    struct machine_key key = {.ns = ns->ns};
    if (--ns->fires > 0)
        return;
    (void)sorted_remove(&m->namespaces, &key); /* the same pointer */
    mem_free(ns);
}

struct machine_fire *machine_fire_make(struct machine *m, const struct fire_row *row)
{
    size_t ns = strlen(row->ns) + 1, id = strlen(row->id) + 1;
    struct machine_fire *fire = slab_get(m->slab, sizeof(*fire) + ns + id);
    *fire = (struct machine_fire){
        .stamp = m->stamp, .uid = row->uid, .slot = row->slot, .seq = row->seq, .id_at = (uint8_t)ns};
    memcpy(fire->name, row->ns, ns);
    memcpy(fire->name + ns, row->id, id);
    fire->ns = enter_namespace(m, row->ns);
    set_fire_row(m, fire, row);
    return fire;
}

void machine_fire_insert(struct machine *m, const struct fire_row *row)
{
    struct machine_fire *fire = machine_fire_make(m, row);
    struct machine_key key = fire_key(fire);
    sorted_insert(&m->fires_by_seq, &key, fire);
    index_fire(m, fire);
}

void machine_fire_update(struct machine *m, struct machine_fire *fire, const struct fire_row *row)
{
    machine_snapshot_fire(m, fire);
    forget_fire(m, fire);
    set_fire_row(m, fire, row);
    index_fire(m, fire);
}

static void fire_free(struct machine_fire *fire)
{
    machine_blob_unref(fire->row);
    slab_put(fire, bytes_with_name(sizeof(*fire), fire->name, fire->id_at));
}

void machine_fire_delete(struct machine *m, struct machine_fire *fire)
{
    struct machine_key key = fire_key(fire);
    machine_snapshot_fire(m, fire);
    forget_fire(m, fire);
    (void)sorted_remove(&m->fires_by_seq, &key); /* the same pointer */
    leave_namespace(m, fire->ns);
    fire_free(fire);
}

/* --- copies -------------------------------------------------------------------------------------------------------- */

static struct machine_key copy_key(const struct machine_copy *copy)
{
    return (struct machine_key){.uid = copy->uid, .seq = copy->version, .ms = copy->until_ms};
}

struct machine_copy *machine_copy_find(const struct machine *m, const struct uid *uid, uint64_t version)
{
    struct machine_key key = {.uid = *uid, .seq = version};
    return sorted_find(&m->copies_by_version, &key);
}

struct machine_copy *machine_copy_make(struct machine *m, const struct uid *uid, uint64_t version,
                                       struct machine_blob *spec, int64_t until_ms)
{
    struct machine_copy *copy = slab_get(m->slab, sizeof(*copy));
    *copy = (struct machine_copy){
        .stamp = m->stamp, .uid = *uid, .version = version, .until_ms = until_ms, .spec = spec};
    return copy;
}

void machine_copy_insert(struct machine *m, const struct uid *uid, uint64_t version,
                         struct machine_blob *spec, int64_t until_ms)
{
    struct machine_copy *copy = machine_copy_make(m, uid, version, spec, until_ms);
    struct machine_key key = copy_key(copy);
    sorted_insert(&m->copies_by_version, &key, copy);
    sorted_insert(&m->copies_by_until, &key, copy);
}

void machine_copy_extend(struct machine *m, struct machine_copy *copy, int64_t until_ms)
{
    machine_snapshot_copy(m, copy);
    struct machine_key key = copy_key(copy);
    (void)sorted_remove(&m->copies_by_until, &key); /* the same pointer */
    copy->until_ms = key.ms = until_ms;
    sorted_insert(&m->copies_by_until, &key, copy);
}

static void copy_free(struct machine_copy *copy)
{
    machine_blob_unref(copy->spec);
    slab_put(copy, sizeof(*copy));
}

void machine_copy_delete(struct machine *m, struct machine_copy *copy)
{
    struct machine_key key = copy_key(copy);
    machine_snapshot_copy(m, copy);
    (void)sorted_remove(&m->copies_by_version, &key); /* the same pointer, as the next */
    (void)sorted_remove(&m->copies_by_until, &key);
    copy_free(copy);
}

/* --- revisions ----------------------------------------------------------------------------------------------------- */

static struct machine_key revision_key(const struct machine_revision *r)
{
    return (struct machine_key){
        .ns = r->name, .id = machine_revision_id(r), .seq = r->change_id, .ms = r->at_ms};
}

struct machine_revision *machine_revision_find(const struct machine *m, const char *ns, const char *id,
                                               uint64_t change_id)
{
    struct machine_key key = {.ns = ns, .id = id, .seq = change_id};
    return sorted_find(&m->revisions_by_change, &key);
}

static const char *revision_body(const struct machine_revision *r)
{
    return machine_revision_id(r) + strlen(machine_revision_id(r)) + 1;
}

void machine_revision_row(const struct machine_revision *r, struct revision *ret)
{
    memset(ret, 0, sizeof(*ret)); /* whole: rows are compared as they lie */
    read_body(revision_body(r), r->body_bytes, codec_revision(), ret);
    ret->change_id = r->change_id;
    ret->at_ms = r->at_ms;
}

struct machine_revision *machine_revision_make(struct machine *m, const char *ns, const char *id,
                                               const struct revision *row, struct machine_blob *was)
{
    const struct buf *body = write_body(m, codec_revision(), row);
    size_t ns_bytes = strlen(ns) + 1, id_bytes = strlen(id) + 1;
    struct machine_revision *r = slab_get(m->slab, sizeof(*r) + ns_bytes + id_bytes + body->len);
    *r = (struct machine_revision){.stamp = m->stamp,
                                   .body_bytes = (uint16_t)body->len,
                                   .id_at = (uint8_t)ns_bytes,
                                   .change_id = row->change_id,
                                   .at_ms = row->at_ms,
                                   .was = was};
    memcpy(r->name, ns, ns_bytes);
    memcpy(r->name + ns_bytes, id, id_bytes);
    memcpy(r->name + ns_bytes + id_bytes, body->data, body->len);
    return r;
}

void machine_revision_insert(struct machine *m, const char *ns, const char *id, const struct revision *row,
                             struct machine_blob *was)
{
    struct machine_revision *r = machine_revision_make(m, ns, id, row, was);
    struct machine_key key = revision_key(r);
    sorted_insert(&m->revisions_by_change, &key, r);
    sorted_insert(&m->revisions_by_name, &key, r);
    sorted_insert(&m->revisions_by_time, &key, r);
}

static void revision_free(struct machine_revision *r)
{
    machine_blob_unref(r->was);
    slab_put(r, bytes_with_name(sizeof(*r), r->name, r->id_at) + r->body_bytes);
}

void machine_revision_delete(struct machine *m, struct machine_revision *r)
{
    struct machine_key key = revision_key(r);
    machine_snapshot_revision(m, r);
    (void)sorted_remove(&m->revisions_by_change, &key); /* the same pointer, as the next two */
    (void)sorted_remove(&m->revisions_by_name, &key);
    (void)sorted_remove(&m->revisions_by_time, &key);
    revision_free(r);
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

void machine_row_free(struct machine *m, enum machine_kind kind, void *row)
{
    struct machine_fire *fire = row;
    switch (kind) {
    case MACHINE_JOBS:
        job_free(row);
        break;
    case MACHINE_FIRES:
        fire->ns->dead -= fire->outcome == FIRE_OUTCOME_DEAD;
        leave_namespace(m, fire->ns);
        fire_free(fire);
        break;
    case MACHINE_COPIES:
        copy_free(row);
        break;
    case MACHINE_REVISIONS:
        revision_free(row);
        break;
    case MACHINE_LABELS: /* their job's */
    case MACHINE_KIND_COUNT_:
        break;
    }
}

static void free_all(struct machine *m, const struct sorted *all, enum machine_kind kind)
{
    struct sorted_at at = sorted_seek(all, NULL, false);
    for (void *row; (row = sorted_get(all, at)); machine_row_free(m, kind, row))
        sorted_next(all, &at);
}

void machine_rows_fini(struct machine *m)
{
    free_all(m, &m->jobs_by_uid, MACHINE_JOBS);
    free_all(m, &m->fires_by_seq, MACHINE_FIRES);
    free_all(m, &m->copies_by_version, MACHINE_COPIES);
    free_all(m, &m->revisions_by_change, MACHINE_REVISIONS);
    machine_indexes_fini(m);
}
