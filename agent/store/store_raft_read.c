/* Reads: rows are found under the machine's lock, definitions are read and fires copied outside of it. */
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/io/tzload.h"
#include "agent/store/raft/pack.h"
#include "agent/store/store_raft_private.h"

#define LIMIT_MAX 1000

struct read {
    struct work work;
    struct store_raft *store;
    /* Worker thread, machine locked. */
    void (*find)(struct read *r, const struct machine *m);
    /* Loop thread: tell the caller. */
    void (*answer)(struct read *r);
    union {
        store_jobs_done *jobs_done;
        store_fires_done *fires_done;
        store_page_done *page_done;
        store_fire_page_done *fire_page_done;
        store_copy_done *copy_done;
        store_dead_done *dead_done;
        store_revision_done *revision_done;
        store_revisions_done *revisions_done;
    };
    void *arg;
    struct err err;
    uint64_t began_us;

    const struct store_load *load;
    const struct store_key *keys;
    const struct store_filter *filter;
    const struct store_revisions *which;
    const struct store_fire_filter *fire_filter;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    struct uid uid;
    uint64_t number; /* before which seq; change id */
    size_t limit;

    size_t found;
    bool more;
    struct machine_job_found *jobs_found;
    struct machine_fire_found *fires_found;
    struct machine_revision_found *revisions_found;
    struct store_job *jobs;
    struct fire_row *fires;
    struct store_revision *revisions;
    struct store_page page;
    struct store_fire_page fire_page;
    struct machine_blob *copy_found;
    struct job_spec *copy;
    struct store_dead *dead;
    struct revision revision;
};

/* --- outside of the lock ------------------------------------------------------------------------------------------- */

static int make_spec(struct store_raft *s, const struct machine_blob *packed, struct job_spec **ret,
                     struct err *e)
{
    struct job_spec *spec = NULL;
    const struct tz *zone;
    int r = pack_read(packed->data, packed->bytes, &spec, e);
    if (r < 0)
        return r;
    r = tzload_get(s->zones, spec->timezone, strlen(spec->timezone), &zone, e);
    if (r == 0)
        r = job_spec_bind(spec, zone, e);
    if (r < 0) {
        job_spec_unref(spec);
        return r;
    }
    *ret = spec;
    return 0;
}

/* A definition that this agent cannot read is that job's trouble alone; memory is everyone's. */
static int make_jobs(struct read *r)
{
    r->jobs = mem_try_array(r->found, sizeof(*r->jobs), &r->err);
    if (!r->jobs)
        return -ERR_NOMEM;
    for (size_t i = 0; i < r->found; i++) {
        const struct machine_job_found *found = &r->jobs_found[i];
        struct store_job *job = &r->jobs[i];
        struct err own = {0};
        if (!found->spec)
            continue;
        job->row = found->row;
        int rc = make_spec(r->store, found->spec, &job->spec, &own);
        if (rc == -ERR_NOMEM)
            return err_set(&r->err, ERR_NOMEM, "%s", own.text);
        if (rc < 0)
            (void)snprintf(job->problem, sizeof(job->problem), "%.119s", own.text); /* cut: for people */
    }
    return 0;
}

static int make_fires(struct read *r)
{
    r->fires = mem_try_array(r->found, sizeof(*r->fires), &r->err);
    if (!r->fires)
        return -ERR_NOMEM;
    for (size_t i = 0; i < r->found; i++) {
        int rc = fire_row_copy(&r->fires_found[i].row, &r->fires[i], &r->err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* One that this agent cannot read is as good as none. */
static int make_copy(struct read *r)
{
    struct err own = {0};
    int rc = make_spec(r->store, r->copy_found, &r->copy, &own);
    return rc == -ERR_NOMEM ? err_set(&r->err, ERR_NOMEM, "%s", own.text) : 0;
}

static int make_was(const struct machine_blob *packed, struct store_revision *ret, struct err *e)
{
    struct pack_text text;
    int r = pack_text(packed->data, packed->bytes, &text, e);
    if (r < 0)
        return r;
    ret->was = mem_try_strndup(text.definition, text.definition_bytes, e);
    ret->was_bytes = text.definition_bytes;
    mem_free(text.memory);
    return ret->was ? 0 : -ERR_NOMEM;
}

static int make_revisions(struct read *r)
{
    r->revisions = mem_try_array(r->found, sizeof(*r->revisions), &r->err);
    if (!r->revisions)
        return -ERR_NOMEM;
    for (size_t i = 0; i < r->found; i++) {
        const struct machine_revision_found *found = &r->revisions_found[i];
        r->revisions[i].row = found->row;
        int rc = found->was ? make_was(found->was, &r->revisions[i], &r->err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- the way of a read --------------------------------------------------------------------------------------------- */

static void run(struct work *w, void *context)
{
    struct read *r = container_of(w, struct read, work);
    (void)context;
    const struct machine *m = replica_lock(r->store->replica);
    if (!m) {
        (void)err_set(&r->err, ERR_PERMANENT, "the log cannot go on"); /* the answer carries it */
        return;
    }
    r->find(r, m);
    replica_unlock(r->store->replica);
    int rc = 0;
    if (r->jobs_found)
        rc = make_jobs(r);
    else if (r->fires_found)
        rc = make_fires(r);
    else if (r->revisions_found)
        rc = make_revisions(r);
    else if (r->copy_found)
        rc = make_copy(r);
    (void)rc; /* r->err tells */
}

static void read_free(struct read *r)
{
    for (size_t i = 0; i < r->found; i++) {
        if (r->jobs_found)
            machine_blob_unref(r->jobs_found[i].spec);
        if (r->fires_found)
            machine_blob_unref(r->fires_found[i].blob);
        if (r->revisions_found)
            machine_blob_unref(r->revisions_found[i].was);
        if (r->jobs)
            job_spec_unref(r->jobs[i].spec);
        if (r->fires)
            fire_row_fini(&r->fires[i]);
        if (r->revisions)
            mem_free(r->revisions[i].was);
    }
    mem_free(r->jobs_found);
    mem_free(r->fires_found);
    mem_free(r->revisions_found);
    mem_free(r->jobs);
    mem_free(r->fires);
    mem_free(r->revisions);
    mem_free(r->dead);
    machine_blob_unref(r->copy_found);
    job_spec_unref(r->copy);
    mem_free(r);
}

static void finished(struct work *w, bool cancelled)
{
    struct read *r = container_of(w, struct read, work);
    if (cancelled)
        (void)err_set(&r->err, ERR_CANCELLED, "the store is being closed"); /* the answer carries it */
    r->store->stats.reads++;
    r->store->stats.read_us += clock_boot_us() - r->began_us;
    if (r->err.code != ERR_OK)
        rs_note(r->store, &r->err); /* that memory could be read tells nothing of the disk */
    r->answer(r);
    read_free(r);
}

static struct read *read_new(void *self, void (*find)(struct read *, const struct machine *),
                             void (*answer)(struct read *), void *arg)
{
    struct read *r = mem_new(struct read);
    r->store = self;
    r->find = find;
    r->answer = answer;
    r->arg = arg;
    r->began_us = clock_boot_us();
    r->work.run = run;
    r->work.done = finished;
    return r;
}

static void submit(struct read *r)
{
    worker_submit(r->store->readers, &r->work);
}

static void answer_jobs(struct read *r)
{
    bool ok = r->err.code == ERR_OK;
    r->jobs_done(r->arg, &r->err, ok ? r->jobs : NULL, ok ? r->found : 0, ok && r->more);
}

static void answer_fires(struct read *r)
{
    bool ok = r->err.code == ERR_OK;
    r->fires_done(r->arg, &r->err, ok ? r->fires : NULL, ok ? r->found : 0, ok && r->more);
}

/* --- loads --------------------------------------------------------------------------------------------------------- */

static void find_load_jobs(struct read *r, const struct machine *m)
{
    r->found = machine_load_jobs(m, r->load, r->jobs_found, &r->more);
}

void rs_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg)
{
    struct read *r = read_new(self, find_load_jobs, answer_jobs, arg);
    r->load = load;
    r->jobs_done = done;
    r->jobs_found = mem_new_array(struct machine_job_found, load->limit + 1);
    submit(r);
}

static void find_load_fires(struct read *r, const struct machine *m)
{
    r->found = machine_load_fires(m, r->load, r->fires_found, &r->more);
}

void rs_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg)
{
    struct read *r = read_new(self, find_load_fires, answer_fires, arg);
    r->load = load;
    r->fires_done = done;
    r->fires_found = mem_new_array(struct machine_fire_found, load->limit + 1);
    submit(r);
}

/* --- by key -------------------------------------------------------------------------------------------------------- */

static void find_get_jobs(struct read *r, const struct machine *m)
{
    r->found = machine_get_jobs(m, r->keys, r->limit, r->jobs_found, &r->more);
}

void rs_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg)
{
    struct read *r = read_new(self, find_get_jobs, answer_jobs, arg);
    r->keys = keys;
    r->limit = count;
    r->jobs_done = done;
    r->jobs_found = mem_new_array(struct machine_job_found, count + 1);
    submit(r);
}

static void find_get_fires(struct read *r, const struct machine *m)
{
    r->found = machine_get_fires(m, &r->uid, r->number, r->limit, r->fires_found, &r->more);
}

void rs_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                  store_fires_done *done, void *arg)
{
    struct read *r = read_new(self, find_get_fires, answer_fires, arg);
    r->uid = *uid;
    r->number = before_seq;
    r->limit = limit;
    r->fires_done = done;
    r->fires_found = mem_new_array(struct machine_fire_found, limit + 1);
    submit(r);
}

/* --- lists --------------------------------------------------------------------------------------------------------- */

static void find_list(struct read *r, const struct machine *m)
{
    r->found = machine_list_jobs(m, r->filter, r->limit, r->jobs_found, &r->page);
}

static void answer_page(struct read *r)
{
    r->page.jobs = r->jobs;
    r->page.jobs_count = r->found;
    r->page_done(r->arg, &r->err, r->err.code == ERR_OK ? &r->page : NULL);
}

void rs_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg)
{
    struct read *r = read_new(self, find_list, answer_page, arg);
    r->filter = filter;
    r->limit = filter->limit < LIMIT_MAX ? filter->limit : LIMIT_MAX;
    r->page_done = done;
    r->jobs_found = mem_new_array(struct machine_job_found, r->limit + 1);
    submit(r);
}

static void find_fires(struct read *r, const struct machine *m)
{
    r->found = machine_list_fires(m, r->fire_filter, r->limit, r->fires_found, &r->fire_page.next);
}

static void answer_fire_page(struct read *r)
{
    r->fire_page.fires = r->fires;
    r->fire_page.fires_count = r->found;
    r->fire_page_done(r->arg, &r->err, r->err.code == ERR_OK ? &r->fire_page : NULL);
}

void rs_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done, void *arg)
{
    struct read *r = read_new(self, find_fires, answer_fire_page, arg);
    r->fire_filter = filter;
    r->limit = filter->limit < LIMIT_MAX ? filter->limit : LIMIT_MAX;
    r->fire_page_done = done;
    r->fires_found = mem_new_array(struct machine_fire_found, r->limit + 1);
    submit(r);
}

static void find_copy(struct read *r, const struct machine *m)
{
    r->copy_found = machine_get_copy(m, &r->uid, r->number);
}

static void answer_copy(struct read *r)
{
    r->copy_done(r->arg, &r->err, r->err.code == ERR_OK ? r->copy : NULL);
}

void rs_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg)
{
    struct read *r = read_new(self, find_copy, answer_copy, arg);
    r->uid = *uid;
    r->number = version;
    r->copy_done = done;
    submit(r);
}

static void find_dead(struct read *r, const struct machine *m)
{
    r->limit = machine_count_dead(m, r->dead);
}

static void answer_dead(struct read *r)
{
    bool ok = r->err.code == ERR_OK;
    r->dead_done(r->arg, &r->err, ok ? r->dead : NULL, ok ? r->limit : 0);
}

void rs_count_dead(void *self, store_dead_done *done, void *arg)
{
    struct read *r = read_new(self, find_dead, answer_dead, arg);
    r->dead_done = done;
    r->dead = mem_new_array(struct store_dead, STORE_DEAD_NS_MAX);
    submit(r);
}

static void find_change(struct read *r, const struct machine *m)
{
    r->more = machine_find_change(m, r->ns, r->id, r->number, &r->revision);
}

static void answer_revision(struct read *r)
{
    r->revision_done(r->arg, &r->err, r->err.code == ERR_OK && r->more ? &r->revision : NULL);
}

void rs_find_change(void *self, const char *ns, const char *id, uint64_t change_id, store_revision_done *done,
                    void *arg)
{
    struct read *r = read_new(self, find_change, answer_revision, arg);
    memcpy(r->ns, ns, strnlen(ns, sizeof(r->ns) - 1));
    memcpy(r->id, id, strnlen(id, sizeof(r->id) - 1));
    r->number = change_id;
    r->revision_done = done;
    submit(r);
}

static void find_revisions(struct read *r, const struct machine *m)
{
    r->found = machine_list_revisions(m, r->which, r->limit, r->revisions_found, &r->more);
}

static void answer_revisions(struct read *r)
{
    bool ok = r->err.code == ERR_OK;
    r->revisions_done(r->arg, &r->err, ok ? r->revisions : NULL, ok ? r->found : 0, ok && r->more);
}

void rs_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done, void *arg)
{
    struct read *r = read_new(self, find_revisions, answer_revisions, arg);
    r->which = which;
    r->limit = which->limit < LIMIT_MAX ? which->limit : LIMIT_MAX;
    r->revisions_done = done;
    r->revisions_found = mem_new_array(struct machine_revision_found, r->limit + 1);
    submit(r);
}
