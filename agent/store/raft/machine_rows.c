/* Rows in memory and the indexes over them. */
#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/raft/pack.h"

/* --- blobs --------------------------------------------------------------------------------------------------------- */

struct machine_blob *machine_blob_new(const void *data, size_t bytes)
{
    struct machine_blob *b = mem_alloc_or_die(1, sizeof(*b) + bytes);
    atomic_init(&b->refs_, 1);
    b->bytes = (uint32_t)bytes;
    if (bytes > 0)
        memcpy(b->data, data, bytes);
    return b;
}

struct machine_blob *machine_blob_ref(struct machine_blob *b)
{
    atomic_fetch_add_explicit(&b->refs_, 1, memory_order_relaxed);
    return b;
}

void machine_blob_unref(struct machine_blob *b)
{
    if (b && atomic_fetch_sub_explicit(&b->refs_, 1, memory_order_acq_rel) == 1)
        mem_free(b);
}

/* --- orders -------------------------------------------------------------------------------------------------------- */

static int order_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int order_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int order_uid(const struct uid *a, const struct uid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

static int order_name(const struct machine_key *k, const char *ns, const char *id)
{
    int order = strcmp(k->ns, ns);
    return order ? order : strcmp(k->id, id);
}

static int job_uid(const void *key, const void *item)
{
    return order_uid(&((const struct machine_key *)key)->uid, &((const struct machine_job *)item)->uid);
}

static int job_name(const void *key, const void *item)
{
    const struct machine_job *job = item;
    return order_name(key, job->name, machine_job_id(job));
}

static int order_wake(const struct machine_key *k, uint16_t slot, int64_t wake_ms, const struct uid *uid)
{
    if (k->slot != slot)
        return k->slot < slot ? -1 : 1;
    int order = order_i64(k->ms, wake_ms);
    return order ? order : order_uid(&k->uid, uid);
}

static int job_wake(const void *key, const void *item)
{
    const struct machine_job *job = item;
    return order_wake(key, job->slot, job->wake_ms, &job->uid);
}

static int label_order(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_label *label = item;
    int order = strcmp(k->name, label->name);
    if (order == 0)
        order = strcmp(k->value, label->value);
    return order ? order : order_name(k, label->job->name, machine_job_id(label->job));
}

static int fire_seq(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_fire *fire = item;
    int order = order_uid(&k->uid, &fire->uid);
    return order ? order : order_u64(k->seq, fire->seq);
}

static int fire_wake(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_fire *fire = item;
    int order = order_wake(k, fire->slot, fire->wake_ms, &fire->uid);
    return order ? order : order_u64(k->seq, fire->seq);
}

static int order_due(const struct machine_key *k, const struct machine_fire *fire)
{
    int order = order_i64(k->ms, fire->due_ms);
    return order ? order : fire_seq(k, fire);
}

static int fire_due(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_fire *fire = item;
    int order = strcmp(k->ns, fire->name);
    return order ? order : order_due(k, fire);
}

static int fire_outcome(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_fire *fire = item;
    int order = strcmp(k->ns, fire->name);
    if (order == 0)
        order = k->outcome - fire->outcome;
    return order ? order : order_due(k, fire);
}

static int fire_job(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_fire *fire = item;
    int order = order_name(k, fire->name, machine_fire_id(fire));
    return order ? order : order_due(k, fire);
}

static int namespace_order(const void *key, const void *item)
{
    return strcmp(((const struct machine_key *)key)->ns, ((const struct machine_ns *)item)->ns);
}

static int copy_version(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_copy *copy = item;
    int order = order_uid(&k->uid, &copy->uid);
    return order ? order : order_u64(k->seq, copy->version);
}

static int copy_until(const void *key, const void *item)
{
    const struct machine_key *k = key;
    int order = order_i64(k->ms, ((const struct machine_copy *)item)->until_ms);
    return order ? order : copy_version(key, item);
}

static int fire_end(const void *key, const void *item)
{
    const struct machine_key *k = key;
    int order = order_i64(k->ms, ((const struct machine_fire *)item)->wake_ms);
    return order ? order : fire_seq(key, item);
}

static int revision_change(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_revision *r = item;
    int order = order_name(k, r->name, machine_revision_id(r));
    return order ? order : order_u64(k->seq, r->change_id);
}

static int revision_name(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_revision *r = item;
    int order = order_name(k, r->name, machine_revision_id(r));
    if (order == 0)
        order = order_i64(k->ms, r->at_ms);
    return order ? order : order_u64(k->seq, r->change_id);
}

static int revision_time(const void *key, const void *item)
{
    const struct machine_key *k = key;
    const struct machine_revision *r = item;
    int order = order_i64(k->ms, r->at_ms);
    return order ? order : revision_change(key, item);
}

void machine_rows_init(struct machine *m)
{
    sorted_init(&m->jobs_by_uid, job_uid);
    sorted_init(&m->jobs_by_name, job_name);
    sorted_init(&m->jobs_by_wake, job_wake);
    sorted_init(&m->labels, label_order);
    sorted_init(&m->fires_by_seq, fire_seq);
    sorted_init(&m->fires_by_wake, fire_wake);
    sorted_init(&m->fires_by_end, fire_end);
    sorted_init(&m->fires_by_due, fire_due);
    sorted_init(&m->fires_by_outcome, fire_outcome);
    sorted_init(&m->fires_by_job, fire_job);
    sorted_init(&m->namespaces, namespace_order);
    sorted_init(&m->copies_by_version, copy_version);
    sorted_init(&m->copies_by_until, copy_until);
    sorted_init(&m->revisions_by_change, revision_change);
    sorted_init(&m->revisions_by_name, revision_name);
    sorted_init(&m->revisions_by_time, revision_time);
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
    assert(!buf_failed(
        &m->pack)); /* a row was bounded when it was read; without memory we end, as mem_new does */
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
    if (body->len != job->row_bytes) { /* most often it has the same length as before */
        mem_free(job->row);
        job->row = mem_alloc_or_die(1, body->len);
        job->row_bytes = (uint16_t)body->len;
    }
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
    job->labels = labels.count ? mem_new_array(struct machine_label, labels.count) : NULL;
    for (size_t i = 0; i < labels.count; i++) {
        struct machine_label *label = &job->labels[i];
        label->job = job;
        pack_labels_next(&labels, &label->name, &label->value);
        struct machine_key key = label_key(label);
        sorted_insert(&m->labels, &key, label);
    }
}

static void drop_spec(struct machine *m, struct machine_job *job)
{
    for (size_t i = 0; i < job->labels_count; i++) {
        struct machine_key key = label_key(&job->labels[i]);
        (void)sorted_remove(&m->labels, &key); /* the same pointer */
    }
    mem_free(job->labels);
    machine_blob_unref(job->spec);
}

struct machine_job *machine_job_insert(struct machine *m, const struct job_row *row,
                                       struct machine_blob *spec)
{
    size_t ns = strlen(row->ns) + 1, id = strlen(row->id) + 1;
    struct machine_job *job = mem_alloc_or_die(1, sizeof(*job) + ns + id);
    job->stamp = m->stamp;
    job->uid = row->uid;
    job->slot = row->slot;
    job->id_at = (uint8_t)ns;
    memcpy(job->name, row->ns, ns);
    memcpy(job->name + ns, row->id, id);
    set_job_row(m, job, row);
    struct machine_key key = job_key(job);
    sorted_insert(&m->jobs_by_uid, &key, job);
    sorted_insert(&m->jobs_by_name, &key, job);
    index_wake(m, job);
    set_spec(m, job, spec);
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
        drop_spec(m, job);
        set_spec(m, job, spec);
    }
}

static void job_free(struct machine_job *job)
{
    mem_free(job->row);
    mem_free(job);
}

void machine_job_delete(struct machine *m, struct machine_job *job)
{
    struct machine_key key = job_key(job);
    machine_snapshot_job(m, job);
    drop_spec(m, job);
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
    fire->ns->dead += fire->outcome == FIRE_OUTCOME_DEAD;
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
    fire->row = machine_blob_new(body->data, body->len);
    machine_blob_unref(before);
    fire->ended = row->state == FIRE_STATE_ENDED;
    fire->outcome = (uint8_t)row->outcome;
    fire->wake_ms = row->wake_ms;
    fire->due_ms = row->due_ms;
    index_fire(m, fire);
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

void machine_fire_insert(struct machine *m, const struct fire_row *row)
{
    size_t ns = strlen(row->ns) + 1, id = strlen(row->id) + 1;
    struct machine_fire *fire = mem_alloc_or_die(1, sizeof(*fire) + ns + id);
    fire->stamp = m->stamp;
    fire->uid = row->uid;
    fire->slot = row->slot;
    fire->seq = row->seq;
    fire->id_at = (uint8_t)ns;
    memcpy(fire->name, row->ns, ns);
    memcpy(fire->name + ns, row->id, id);
    fire->ns = enter_namespace(m, row->ns);
    struct machine_key key = fire_key(fire);
    sorted_insert(&m->fires_by_seq, &key, fire);
    set_fire_row(m, fire, row);
}

void machine_fire_update(struct machine *m, struct machine_fire *fire, const struct fire_row *row)
{
    machine_snapshot_fire(m, fire);
    forget_fire(m, fire);
    set_fire_row(m, fire, row);
}

static void fire_free(struct machine_fire *fire)
{
    machine_blob_unref(fire->row);
    mem_free(fire);
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

void machine_copy_insert(struct machine *m, const struct uid *uid, uint64_t version,
                         struct machine_blob *spec, int64_t until_ms)
{
    struct machine_copy *copy = mem_new(struct machine_copy);
    *copy = (struct machine_copy){
        .stamp = m->stamp, .uid = *uid, .version = version, .until_ms = until_ms, .spec = spec};
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
    mem_free(copy);
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

void machine_revision_insert(struct machine *m, const char *ns, const char *id, const struct revision *row,
                             struct machine_blob *was)
{
    const struct buf *body = write_body(m, codec_revision(), row);
    size_t ns_bytes = strlen(ns) + 1, id_bytes = strlen(id) + 1;
    struct machine_revision *r = mem_alloc_or_die(1, sizeof(*r) + ns_bytes + id_bytes + body->len);
    r->stamp = m->stamp;
    r->change_id = row->change_id;
    r->at_ms = row->at_ms;
    r->was = was;
    r->id_at = (uint8_t)ns_bytes;
    r->body_bytes = (uint16_t)body->len;
    memcpy(r->name, ns, ns_bytes);
    memcpy(r->name + ns_bytes, id, id_bytes);
    memcpy(r->name + ns_bytes + id_bytes, body->data, body->len);
    struct machine_key key = revision_key(r);
    sorted_insert(&m->revisions_by_change, &key, r);
    sorted_insert(&m->revisions_by_name, &key, r);
    sorted_insert(&m->revisions_by_time, &key, r);
}

static void revision_free(struct machine_revision *r)
{
    machine_blob_unref(r->was);
    mem_free(r);
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

/* Free what each item of INDEX is. */
#define FREE_ALL(m, index, type, free_item)                                          \
    do {                                                                             \
        struct sorted_at at_ = sorted_seek(&(m)->index, NULL, false);                \
        for (type * item_; (item_ = sorted_get(&(m)->index, at_)); free_item(item_)) \
            sorted_next(&(m)->index, &at_);                                          \
    } while (0)

static void job_free_all(struct machine_job *job)
{
    mem_free(job->labels);
    machine_blob_unref(job->spec);
    job_free(job);
}

void machine_rows_fini(struct machine *m)
{
    FREE_ALL(m, jobs_by_uid, struct machine_job, job_free_all);
    FREE_ALL(m, fires_by_seq, struct machine_fire, fire_free);
    FREE_ALL(m, namespaces, struct machine_ns, mem_free);
    FREE_ALL(m, copies_by_version, struct machine_copy, copy_free);
    FREE_ALL(m, revisions_by_change, struct machine_revision, revision_free);
    struct sorted *all[] = {
        &m->jobs_by_uid,      &m->jobs_by_name,        &m->jobs_by_wake,      &m->labels,
        &m->fires_by_seq,     &m->fires_by_wake,       &m->fires_by_end,      &m->fires_by_due,
        &m->fires_by_outcome, &m->fires_by_job,        &m->namespaces,        &m->copies_by_version,
        &m->copies_by_until,  &m->revisions_by_change, &m->revisions_by_name, &m->revisions_by_time};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        sorted_fini(all[i]);
}
