/* The indexes of the machine: what is in them, and in which order. */
#include <string.h>

#include "agent/store/raft/machine_private.h"

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

/* --- the same orders as bytes -------------------------------------------------------------------------------------- */

/* What of it lies in the window. */
static void put_bytes(struct machine_order *o, const void *data, size_t len)
{
    size_t begin = o->at, end = o->at + len, from = o->skip, to = o->skip + sizeof(o->window);
    o->at = end;
    if (from < begin)
        from = begin;
    if (to > end)
        to = end;
    if (from < to)
        memcpy(o->window + (from - o->skip), (const uint8_t *)data + (from - begin), to - from);
}

/* With its NUL: a text stands before those that it begins. */
static void put_text(struct machine_order *o, const char *text)
{
    put_bytes(o, text, strlen(text) + 1);
}

static void put_u64(struct machine_order *o, uint64_t v)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> (56 - 8 * i));
    put_bytes(o, bytes, sizeof(bytes));
}

static void put_i64(struct machine_order *o, int64_t v)
{
    put_u64(o, (uint64_t)v ^ UINT64_C(1) << 63);
}

static void put_slot(struct machine_order *o, uint16_t slot)
{
    uint8_t bytes[2] = {(uint8_t)(slot >> 8), (uint8_t)slot};
    put_bytes(o, bytes, sizeof(bytes));
}

static void put_uid(struct machine_order *o, const struct uid *uid)
{
    put_bytes(o, uid->bytes, sizeof(uid->bytes));
}

static void put_job_uid(const void *item, struct machine_order *o)
{
    put_uid(o, &((const struct machine_job *)item)->uid);
}

static void put_job_name(const void *item, struct machine_order *o)
{
    const struct machine_job *job = item;
    put_text(o, job->name);
    put_text(o, machine_job_id(job));
}

static void put_job_wake(const void *item, struct machine_order *o)
{
    const struct machine_job *job = item;
    put_slot(o, job->slot);
    put_i64(o, job->wake_ms);
    put_uid(o, &job->uid);
}

static void put_label(const void *item, struct machine_order *o)
{
    const struct machine_label *label = item;
    put_text(o, label->name);
    put_text(o, label->value);
    put_job_name(label->job, o);
}

static void put_fire_seq(const void *item, struct machine_order *o)
{
    const struct machine_fire *fire = item;
    put_uid(o, &fire->uid);
    put_u64(o, fire->seq);
}

static void put_fire_wake(const void *item, struct machine_order *o)
{
    const struct machine_fire *fire = item;
    put_slot(o, fire->slot);
    put_i64(o, fire->wake_ms);
    put_fire_seq(fire, o);
}

static void put_fire_end(const void *item, struct machine_order *o)
{
    const struct machine_fire *fire = item;
    put_i64(o, fire->wake_ms);
    put_fire_seq(fire, o);
}

static void put_due(const struct machine_fire *fire, struct machine_order *o)
{
    put_i64(o, fire->due_ms);
    put_fire_seq(fire, o);
}

static void put_fire_due(const void *item, struct machine_order *o)
{
    const struct machine_fire *fire = item;
    put_text(o, fire->name);
    put_due(fire, o);
}

static void put_fire_outcome(const void *item, struct machine_order *o)
{
    const struct machine_fire *fire = item;
    put_text(o, fire->name);
    put_bytes(o, &fire->outcome, 1);
    put_due(fire, o);
}

static void put_fire_job(const void *item, struct machine_order *o)
{
    const struct machine_fire *fire = item;
    put_text(o, fire->name);
    put_text(o, machine_fire_id(fire));
    put_due(fire, o);
}

static void put_copy_version(const void *item, struct machine_order *o)
{
    const struct machine_copy *copy = item;
    put_uid(o, &copy->uid);
    put_u64(o, copy->version);
}

static void put_copy_until(const void *item, struct machine_order *o)
{
    put_i64(o, ((const struct machine_copy *)item)->until_ms);
    put_copy_version(item, o);
}

static void put_revision_change(const void *item, struct machine_order *o)
{
    const struct machine_revision *r = item;
    put_text(o, r->name);
    put_text(o, machine_revision_id(r));
    put_u64(o, r->change_id);
}

static void put_revision_name(const void *item, struct machine_order *o)
{
    const struct machine_revision *r = item;
    put_text(o, r->name);
    put_text(o, machine_revision_id(r));
    put_i64(o, r->at_ms);
    put_u64(o, r->change_id);
}

static void put_revision_time(const void *item, struct machine_order *o)
{
    put_i64(o, ((const struct machine_revision *)item)->at_ms);
    put_revision_change(item, o);
}

/* --- all of them --------------------------------------------------------------------------------------------------- */

static bool job_wakes(const void *item)
{
    return ((const struct machine_job *)item)->wake_ms != RECORD_NONE;
}

static bool fire_wakes(const void *item)
{
    const struct machine_fire *fire = item;
    return fire->wake_ms != RECORD_NONE && !fire->ended;
}

static bool fire_ends(const void *item)
{
    const struct machine_fire *fire = item;
    return fire->wake_ms != RECORD_NONE && fire->ended;
}

#define OF(set) offsetof(struct machine, set)

static const struct machine_index indexes[MACHINE_INDEXES] = {
    {OF(jobs_by_uid), MACHINE_JOBS, job_uid, put_job_uid, NULL},
    {OF(jobs_by_name), MACHINE_JOBS, job_name, put_job_name, NULL},
    {OF(jobs_by_wake), MACHINE_JOBS, job_wake, put_job_wake, job_wakes},
    {OF(labels), MACHINE_LABELS, label_order, put_label, NULL},
    {OF(fires_by_seq), MACHINE_FIRES, fire_seq, put_fire_seq, NULL},
    {OF(fires_by_wake), MACHINE_FIRES, fire_wake, put_fire_wake, fire_wakes},
    {OF(fires_by_end), MACHINE_FIRES, fire_end, put_fire_end, fire_ends},
    {OF(fires_by_due), MACHINE_FIRES, fire_due, put_fire_due, NULL},
    {OF(fires_by_outcome), MACHINE_FIRES, fire_outcome, put_fire_outcome, NULL},
    {OF(fires_by_job), MACHINE_FIRES, fire_job, put_fire_job, NULL},
    {OF(copies_by_version), MACHINE_COPIES, copy_version, put_copy_version, NULL},
    {OF(copies_by_until), MACHINE_COPIES, copy_until, put_copy_until, NULL},
    {OF(revisions_by_change), MACHINE_REVISIONS, revision_change, put_revision_change, NULL},
    {OF(revisions_by_name), MACHINE_REVISIONS, revision_name, put_revision_name, NULL},
    {OF(revisions_by_time), MACHINE_REVISIONS, revision_time, put_revision_time, NULL},
};

const struct machine_index *machine_index(size_t i)
{
    return &indexes[i];
}

void machine_indexes_init(struct machine *m)
{
    for (size_t i = 0; i < MACHINE_INDEXES; i++)
        sorted_init(machine_index_set(m, &indexes[i]), indexes[i].compare);
    sorted_init(&m->namespaces, namespace_order);
}

void machine_indexes_fini(struct machine *m)
{
    for (size_t i = 0; i < MACHINE_INDEXES; i++)
        sorted_fini(machine_index_set(m, &indexes[i]));
    sorted_fini(&m->namespaces);
}
