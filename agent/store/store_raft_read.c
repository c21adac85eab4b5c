/* Reads: rows are found under the machine's lock, definitions are read and fires copied outside of it. */
#include "agent/store/store_raft_read.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/io/tzload.h"
#include "agent/store/raft/pack.h"

#define LIMIT_MAX 1000

/* --- outside of the lock ------------------------------------------------------------------------------------------- */

static int make_spec(struct store_raft *s, const struct machine_blob *packed, struct job_spec **ret,
                     struct err *e)
{
    AUTO(job_spec_unref) struct job_spec *spec = NULL;
    int r = pack_read(packed->data, packed->bytes, &spec, e);
    if (r == 0)
        r = tzload_bind(s->zones, spec, e);
    if (r == 0)
        *ret = TAKE(spec);
    return r;
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

/* --- finding ------------------------------------------------------------------------------------------------------- */

/* In M, which is locked. */
static void find(struct read *r, const struct machine *m)
{
    switch (r->kind) {
    case RS_LOAD_JOBS:
        r->found = machine_load_jobs(m, r->load, r->jobs_found, &r->more);
        break;
    case RS_LOAD_FIRES:
        r->found = machine_load_fires(m, r->load, r->fires_found, &r->more);
        break;
    case RS_GET_JOBS:
        r->found = machine_get_jobs(m, r->keys, r->limit, r->jobs_found, &r->more);
        break;
    case RS_GET_FIRES:
        r->found = machine_get_fires(m, &r->uid, r->number, r->limit, r->fires_found, &r->more);
        break;
    case RS_LIST_JOBS:
        r->found = machine_list_jobs(m, r->filter, r->limit, r->jobs_found, &r->page);
        break;
    case RS_LIST_FIRES:
        r->found = machine_list_fires(m, r->fire_filter, r->limit, r->fires_found, &r->fire_page.next);
        break;
    case RS_GET_COPY:
        r->copy_found = machine_get_copy(m, &r->uid, r->number);
        break;
    case RS_COUNT_DEAD:
        r->limit = machine_count_dead(m, r->dead);
        break;
    case RS_COUNT_JOBS:
        r->limit = 1;
        memcpy(r->dead[0].ns, r->ns, sizeof(r->dead[0].ns));
        r->dead[0].count = machine_count_jobs(m, r->ns, r->number);
        break;
    case RS_FIND_CHANGE:
        r->more = machine_find_change(m, r->ns, r->id, r->number, &r->revision);
        break;
    case RS_LIST_REVISIONS:
        r->found = machine_list_revisions(m, r->which, r->limit, r->revisions_found, &r->more);
        break;
    }
}

static void fini(struct read *r)
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
    rs_free_question(r->question);
    mem_free(r->op.body);
}

/* At the leader, for another. */
void rs_read(void *arg, struct replica_task *t, struct replica *replica)
{
    struct read r = {.kind = RS_LOAD_JOBS};
    struct codec_in in = codec_in(t->data, t->bytes);
    (void)arg;
    if (!rs_get_question(&in, &r)) {
        (void)err_set(&t->err, ERR_PERMANENT,
                      "the leader cannot read what it is asked: another version of carillon");
    } else if (rs_make_room(&r, &t->err) == 0) {
        const struct machine *m = replica_lock(replica);
        if (m) {
            find(&r, m);
            replica_unlock(replica);
            rs_put_found(&r, &t->answer);
        } else {
            (void)err_set(&t->err, ERR_RETRY, "the leader's log cannot go on"); /* another will lead */
        }
    }
    fini(&r);
}

/* --- the way of a read --------------------------------------------------------------------------------------------- */

static int find_here(struct read *r)
{
    const struct machine *m = replica_lock(r->store->replica);
    if (!m)
        return err_set(&r->err, ERR_PERMANENT, "the log cannot go on");
    find(r, m);
    replica_unlock(r->store->replica);
    return 0;
}

static int take_found(struct read *r)
{
    struct codec_in in = codec_in(r->op.body, r->op.body_bytes);
    if (!rs_get_found(&in, r))
        return err_set(&r->err, ERR_PERMANENT,
                       "the leader's answer cannot be read: another version of carillon");
    return 0;
}

static void run(struct work *w, void *context)
{
    struct read *r = container_of(w, struct read, work);
    (void)context;
    int rc = rs_make_room(r, &r->err);
    if (rc == 0)
        rc = r->op.body ? take_found(r) : find_here(r);
    if (rc < 0)
        return; /* r->err tells */
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

static void end(struct read *r)
{
    r->store->stats.reads++;
    r->store->stats.read_us += clock_boot_us() - r->began_us;
    if (r->err.code != ERR_OK || r->store->options.cluster)
        rs_note(r->store, &r->err); /* alone, that memory could be read tells nothing of the disk */
    r->answer(r);
    fini(r);
    mem_free(r);
}

static void finished(struct work *w, bool cancelled)
{
    struct read *r = container_of(w, struct read, work);
    if (cancelled)
        (void)err_set(&r->err, ERR_CANCELLED, "the store is being closed"); /* the answer carries it */
    end(r);
}

static void put_question(struct replica_op *op, struct buf *out)
{
    struct read *r = container_of(op, struct read, op);
    struct store_meta meta = {.schema = 1};
    (void)replica_meta(r->store->replica, &meta); /* not known: the oldest */
    rs_put_question(r, meta.schema < 2 ? 1 : STORE_VERSION, out);
}

/* The leader has answered, or the own machine has been found to be the leader's. */
static void on_asked(struct replica_op *op)
{
    struct read *r = container_of(op, struct read, op);
    r->err = op->err;
    if (r->err.code != ERR_OK)
        end(r);
    else
        worker_submit(r->store->readers, &r->work);
}

static struct read *read_new(void *self, enum rs_read_kind kind, void (*answer)(struct read *), void *arg)
{
    struct read *r = mem_new(struct read);
    r->store = self;
    r->kind = kind;
    r->answer = answer;
    r->arg = arg;
    r->began_us = clock_boot_us();
    r->work.run = run;
    r->work.done = finished;
    r->op.lane = REPLICA_READ;
    r->op.put = put_question;
    r->op.done = on_asked;
    return r;
}

static void submit(struct read *r)
{
    if (r->store->options.cluster)
        replica_submit(r->store->replica, &r->op);
    else
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

void rs_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg)
{
    struct read *r = read_new(self, RS_LOAD_JOBS, answer_jobs, arg);
    r->load = load;
    r->limit = load->limit;
    r->jobs_done = done;
    submit(r);
}

void rs_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg)
{
    struct read *r = read_new(self, RS_LOAD_FIRES, answer_fires, arg);
    r->load = load;
    r->limit = load->limit;
    r->fires_done = done;
    submit(r);
}

/* --- by key -------------------------------------------------------------------------------------------------------- */

void rs_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg)
{
    struct read *r = read_new(self, RS_GET_JOBS, answer_jobs, arg);
    r->keys = keys;
    r->limit = count;
    r->jobs_done = done;
    submit(r);
}

void rs_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                  store_fires_done *done, void *arg)
{
    struct read *r = read_new(self, RS_GET_FIRES, answer_fires, arg);
    r->uid = *uid;
    r->number = before_seq;
    r->limit = limit;
    r->fires_done = done;
    submit(r);
}

/* --- lists --------------------------------------------------------------------------------------------------------- */

static void answer_page(struct read *r)
{
    r->page.jobs = r->jobs;
    r->page.jobs_count = r->found;
    r->page_done(r->arg, &r->err, r->err.code == ERR_OK ? &r->page : NULL);
}

void rs_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg)
{
    struct read *r = read_new(self, RS_LIST_JOBS, answer_page, arg);
    r->filter = filter;
    r->limit = filter->limit < LIMIT_MAX ? filter->limit : LIMIT_MAX;
    r->page_done = done;
    submit(r);
}

static void answer_fire_page(struct read *r)
{
    r->fire_page.fires = r->fires;
    r->fire_page.fires_count = r->found;
    r->fire_page_done(r->arg, &r->err, r->err.code == ERR_OK ? &r->fire_page : NULL);
}

void rs_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done, void *arg)
{
    struct read *r = read_new(self, RS_LIST_FIRES, answer_fire_page, arg);
    r->fire_filter = filter;
    r->limit = filter->limit < LIMIT_MAX ? filter->limit : LIMIT_MAX;
    r->fire_page_done = done;
    submit(r);
}

static void answer_copy(struct read *r)
{
    r->copy_done(r->arg, &r->err, r->err.code == ERR_OK ? r->copy : NULL);
}

void rs_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg)
{
    struct read *r = read_new(self, RS_GET_COPY, answer_copy, arg);
    r->uid = *uid;
    r->number = version;
    r->copy_done = done;
    submit(r);
}

static void answer_dead(struct read *r)
{
    bool ok = r->err.code == ERR_OK;
    r->dead_done(r->arg, &r->err, ok ? r->dead : NULL, ok ? r->limit : 0);
}

void rs_count_dead(void *self, store_dead_done *done, void *arg)
{
    struct read *r = read_new(self, RS_COUNT_DEAD, answer_dead, arg);
    r->dead_done = done;
    submit(r);
}

void rs_count_jobs(void *self, const char *ns, uint64_t limit, store_dead_done *done, void *arg)
{
    struct read *r = read_new(self, RS_COUNT_JOBS, answer_dead, arg);
    if (ns)
        memcpy(r->ns, ns, strnlen(ns, sizeof(r->ns) - 1));
    r->number = limit;
    r->dead_done = done;
    submit(r);
}

static void answer_revision(struct read *r)
{
    r->revision_done(r->arg, &r->err, r->err.code == ERR_OK && r->more ? &r->revision : NULL);
}

void rs_find_change(void *self, const char *ns, const char *id, uint64_t change_id, store_revision_done *done,
                    void *arg)
{
    struct read *r = read_new(self, RS_FIND_CHANGE, answer_revision, arg);
    memcpy(r->ns, ns, strnlen(ns, sizeof(r->ns) - 1));
    memcpy(r->id, id, strnlen(id, sizeof(r->id) - 1));
    r->number = change_id;
    r->revision_done = done;
    submit(r);
}

static void answer_revisions(struct read *r)
{
    bool ok = r->err.code == ERR_OK;
    r->revisions_done(r->arg, &r->err, ok ? r->revisions : NULL, ok ? r->found : 0, ok && r->more);
}

void rs_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done, void *arg)
{
    struct read *r = read_new(self, RS_LIST_REVISIONS, answer_revisions, arg);
    r->which = which;
    r->limit = which->limit < LIMIT_MAX ? which->limit : LIMIT_MAX;
    r->revisions_done = done;
    submit(r);
}
