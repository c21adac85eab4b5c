/* What must hold of the state machine, for tests and for the offline check. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/raft/pack.h"

/* Keys that indexes are checked by; one at a time, as sorted_validate() asks. */
static _Thread_local struct machine_key key;

static const void *job_key(const void *item)
{
    const struct machine_job *job = item;
    key = (struct machine_key){
        .uid = job->uid, .ns = job->name, .id = machine_job_id(job), .ms = job->wake_ms, .slot = job->slot};
    return &key;
}

static const void *label_key(const void *item)
{
    const struct machine_label *label = item;
    (void)job_key(label->job); /* fills KEY */
    key.name = label->name;
    key.value = label->value;
    return &key;
}

static const void *fire_key(const void *item)
{
    const struct machine_fire *fire = item;
    key = (struct machine_key){.uid = fire->uid,
                               .ns = fire->name,
                               .id = machine_fire_id(fire),
                               .seq = fire->seq,
                               .ms = fire->due_ms,
                               .slot = fire->slot,
                               .outcome = fire->outcome};
    return &key;
}

static const void *wake_key(const void *item)
{
    (void)fire_key(item); /* fills KEY */
    key.ms = ((const struct machine_fire *)item)->wake_ms;
    return &key;
}

static const void *copy_key(const void *item)
{
    const struct machine_copy *copy = item;
    key = (struct machine_key){.uid = copy->uid, .seq = copy->version, .ms = copy->until_ms};
    return &key;
}

static const void *revision_key(const void *item)
{
    const struct machine_revision *r = item;
    key = (struct machine_key){
        .ns = r->name, .id = machine_revision_id(r), .seq = r->change_id, .ms = r->at_ms};
    return &key;
}

static void check_jobs(const struct machine *m)
{
    size_t wakes = 0, labels = 0;
    struct sorted_at at = sorted_seek(&m->jobs_by_uid, NULL, false);
    for (const struct machine_job *job; (job = sorted_get(&m->jobs_by_uid, at));
         sorted_next(&m->jobs_by_uid, &at)) {
        struct job_row row;
        machine_job_row(job, &row);
        assert(row.wake_ms == job->wake_ms && machine_job_by_name(m, row.ns, row.id) == job);
        wakes += job->wake_ms != RECORD_NONE;
        labels += job->labels_count;
    }
    assert(sorted_count(&m->jobs_by_name) == sorted_count(&m->jobs_by_uid));
    assert(sorted_count(&m->jobs_by_wake) == wakes && sorted_count(&m->labels) == labels);
}

static uint64_t dead_of_namespaces(const struct machine *m)
{
    uint64_t dead = 0;
    struct sorted_at at = sorted_seek(&m->namespaces, NULL, false);
    for (const struct machine_ns *ns; (ns = sorted_get(&m->namespaces, at));
         sorted_next(&m->namespaces, &at)) {
        assert(ns->fires > 0 && ns->dead <= ns->fires);
        dead += ns->dead;
    }
    return dead;
}

static void check_fires(const struct machine *m)
{
    size_t wakes = 0, ends = 0, dead = 0, fires = sorted_count(&m->fires_by_seq);
    struct sorted_at at = sorted_seek(&m->fires_by_seq, NULL, false);
    for (const struct machine_fire *fire; (fire = sorted_get(&m->fires_by_seq, at));
         sorted_next(&m->fires_by_seq, &at)) {
        struct fire_row row;
        machine_fire_row(fire, &row);
        assert(row.wake_ms == fire->wake_ms && (row.state == FIRE_STATE_ENDED) == fire->ended);
        assert(row.due_ms == fire->due_ms && row.outcome == (enum fire_outcome)fire->outcome);
        assert(strcmp(row.ns, fire->ns->ns) == 0);
        wakes += fire->wake_ms != RECORD_NONE && !fire->ended;
        ends += fire->wake_ms != RECORD_NONE && fire->ended;
        dead += fire->outcome == FIRE_OUTCOME_DEAD;
    }
    assert(sorted_count(&m->fires_by_wake) == wakes && sorted_count(&m->fires_by_end) == ends);
    assert(sorted_count(&m->fires_by_due) == fires && sorted_count(&m->fires_by_outcome) == fires);
    assert(sorted_count(&m->fires_by_job) == fires && dead_of_namespaces(m) == dead);
}

void machine_validate(const struct machine *m)
{
    sorted_validate(&m->jobs_by_uid, job_key);
    sorted_validate(&m->jobs_by_name, job_key);
    sorted_validate(&m->jobs_by_wake, job_key);
    sorted_validate(&m->labels, label_key);
    sorted_validate(&m->fires_by_seq, fire_key);
    sorted_validate(&m->fires_by_wake, wake_key);
    sorted_validate(&m->fires_by_end, wake_key);
    sorted_validate(&m->fires_by_due, fire_key);
    sorted_validate(&m->fires_by_outcome, fire_key);
    sorted_validate(&m->fires_by_job, fire_key);
    sorted_validate(&m->copies_by_version, copy_key);
    sorted_validate(&m->copies_by_until, copy_key);
    sorted_validate(&m->revisions_by_change, revision_key);
    sorted_validate(&m->revisions_by_name, revision_key);
    sorted_validate(&m->revisions_by_time, revision_key);
    check_jobs(m);
    check_fires(m);
    size_t revisions = sorted_count(&m->revisions_by_change);
    assert(sorted_count(&m->revisions_by_name) == revisions &&
           sorted_count(&m->revisions_by_time) == revisions);
    assert(sorted_count(&m->copies_by_until) == sorted_count(&m->copies_by_version));
}

void machine_count(const struct machine *m, struct machine_counts *ret)
{
    *ret = (struct machine_counts){.members = m->members_count,
                                   .jobs = sorted_count(&m->jobs_by_uid),
                                   .fires = sorted_count(&m->fires_by_seq),
                                   .dead_letters = dead_of_namespaces(m),
                                   .revisions = sorted_count(&m->revisions_by_change),
                                   .labels = sorted_count(&m->labels),
                                   .copies = sorted_count(&m->copies_by_version)};
}

/* --- the offline check --------------------------------------------------------------------------------------------- */

struct audit {
    const struct machine *m;
    machine_problem_fn *fn;
    void *arg;
    struct err no_memory; /* something could not be looked at */
};

static void found(struct audit *a, const char *kind, const char *ns, const char *id, const char *what)
{
    char text[500];
    (void)snprintf(text, sizeof(text), "%s %s/%s %s", kind, ns, id, what); /* names are short */
    a->fn(a->arg, text);
}

static bool slot_is_right(const struct audit *a, const struct uid *uid, uint16_t slot)
{
    return slot == uid_slot(uid) && slot < a->m->meta.slots;
}

static bool is_readable(struct audit *a, const struct machine_blob *packed)
{
    struct pack_text text;
    struct err e;
    int r = pack_text(packed->data, packed->bytes, &text, &e);
    if (r == 0)
        mem_free(text.memory);
    else if (r == -ERR_NOMEM)
        a->no_memory = e;
    return r == 0 || r == -ERR_NOMEM;
}

static void audit_jobs(struct audit *a)
{
    struct sorted_at at = sorted_seek(&a->m->jobs_by_uid, NULL, false);
    for (const struct machine_job *job; (job = sorted_get(&a->m->jobs_by_uid, at));
         sorted_next(&a->m->jobs_by_uid, &at)) {
        struct job_row row;
        machine_job_row(job, &row);
        const struct job_counts *c = &row.counts;
        if (!slot_is_right(a, &row.uid, row.slot))
            found(a, "job", row.ns, row.id, "stands under another slot than its own");
        if (c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled > c->seq)
            found(a, "job", row.ns, row.id, "counts more fires that ended than it had");
        if (!is_readable(a, job->spec))
            found(a, "job", row.ns, row.id, "has a definition that cannot be read");
    }
}

static void audit_fires(struct audit *a)
{
    struct sorted_at at = sorted_seek(&a->m->fires_by_seq, NULL, false);
    for (const struct machine_fire *fire; (fire = sorted_get(&a->m->fires_by_seq, at));
         sorted_next(&a->m->fires_by_seq, &at)) {
        const char *id = machine_fire_id(fire);
        const struct machine_job *job = machine_job_by_uid(a->m, &fire->uid);
        struct job_row row;
        if (!slot_is_right(a, &fire->uid, fire->slot))
            found(a, "a fire of", fire->name, id, "stands under another slot than its own");
        if (job)
            machine_job_row(job, &row);
        if (job && fire->seq > row.counts.seq)
            found(a, "a fire of", fire->name, id, "is not counted by its job");
    }
}

static void audit_copies(struct audit *a)
{
    struct sorted_at at = sorted_seek(&a->m->copies_by_version, NULL, false);
    for (const struct machine_copy *copy; (copy = sorted_get(&a->m->copies_by_version, at));
         sorted_next(&a->m->copies_by_version, &at)) {
        char uid[33];
        uid_print(&copy->uid, uid);
        if (!is_readable(a, copy->spec))
            found(a, "what a dead letter was to deliver", "uid", uid, "cannot be read");
    }
}

int machine_audit(const struct machine *m, machine_problem_fn *fn, void *arg, struct err *e)
{
    struct audit a = {.m = m, .fn = fn, .arg = arg};
    machine_validate(m);
    audit_jobs(&a);
    audit_fires(&a);
    audit_copies(&a);
    return a.no_memory.code == ERR_OK ? 0 : err_set(e, a.no_memory.code, "%s", a.no_memory.text);
}
