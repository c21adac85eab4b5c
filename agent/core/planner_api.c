#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/hashring.h"
#include "agent/core/planner_private.h"

#define API_OVERDUE_MS 2000 /* a write that could not be made durable for this long is answered so */

/* --- answering ------------------------------------------------------------------------------------------------------- */

static void answer(struct planner *p, struct planner_api *api, enum planner_answer a)
{
    api->answer = a;
    api->next = NULL;
    pletter_forget(api);
    planner_act(p, PLANNER_DO_REPLY)->api = api;
}

static struct planner_api *pop(struct pjob *j)
{
    struct planner_api *api = j->api;
    j->api = api->next;
    if (!j->api)
        j->api_tail = &j->api;
    j->api_count--;
    if (j->api_state == PAPI_FINDING)
        planner_read_forget(j);
    j->api_state = PAPI_IDLE;
    j->api_looked = false;
    return api;
}

void papi_push(struct pjob *j, struct planner_api *api)
{
    api->next = NULL;
    *j->api_tail = api;
    j->api_tail = &api->next;
    j->api_count++;
}

static void reply(struct planner *p, struct pjob *j, enum planner_answer a)
{
    struct planner_api *api = pop(j);
    if (a <= PLANNER_ACCEPTED && j->state == PJOB_LIVE && api->op != PLANNER_DELETE) {
        if (api->row.version == 0)
            api->row = j->row;
        api->result = j->spec ? job_spec_ref(j->spec) : NULL;
    }
    answer(p, api, a);
}

/* What no write stands behind was found out from what is here, which is worth nothing when the slot may be another's by now. */
void papi_reply(struct planner *p, struct pjob *j, enum planner_answer a)
{
    reply(p, j, p->lease_held || a == PLANNER_NOT_OWNER ? a : PLANNER_UNAVAILABLE);
}

static struct planner_api *pop_joined(struct pjob *j, struct planner_api **list)
{
    struct planner_api *api = *list;
    *list = api->next;
    j->api_count--;
    return api;
}

void papi_refuse_all(struct planner *p, struct pjob *j, enum planner_answer a)
{
    while (j->joined_in_batch)
        answer(p, pop_joined(j, &j->joined_in_batch), a);
    while (j->joined)
        answer(p, pop_joined(j, &j->joined), a);
    while (j->api)
        answer(p, pop(j), a);
}

/* The store is away: the change stays and will be made, but nothing may be promised to who asked for it. */
void papi_overdue(struct planner *p, struct pjob *j)
{
    const struct planner_api *lists[] = {j->api, j->joined, j->joined_in_batch};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        if (lists[i] && p->now_ms - lists[i]->accepted_ms >= API_OVERDUE_MS) {
            papi_refuse_all(p, j, PLANNER_UNAVAILABLE);
            return;
        }
}

void papi_join(struct pjob *j, enum planner_answer a)
{
    struct planner_api *api = pop(j);
    j->api_count++;
    api->answer = a;
    api->next = j->joined;
    j->joined = api;
}

void papi_mark_out(struct pjob *j)
{
    assert(!j->joined_in_batch);
    j->joined_in_batch = TAKE(j->joined);
}

void papi_unjoin(struct pjob *j)
{
    struct planner_api **lists[] = {&j->joined, &j->joined_in_batch};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        while (*lists[i]) {
            struct planner_api *api = *lists[i];
            *lists[i] = api->next;
            api->next = j->api;
            if (!j->api)
                j->api_tail = &api->next;
            j->api = api;
        }
}

/* Nothing is to be changed of what firing made of J, which may not be durable yet: then it is answered with that. */
static void reply_as_it_is(struct planner *p, struct pjob *j)
{
    bool out = j->in_batch && j->op == CHANGE_NONE && !j->fires_dirty;
    if (pjob_clean(j)) {
        papi_reply(p, j, PLANNER_OK);
        return;
    }
    papi_join(j, PLANNER_OK);
    if (!out)
        return;
    struct planner_api *api = j->joined;
    j->joined = api->next;
    api->next = j->joined_in_batch;
    j->joined_in_batch = api;
}

static void answer_joined(struct planner *p, struct pjob *j, const struct job_change *change)
{
    while (j->joined_in_batch) {
        struct planner_api *api = pop_joined(j, &j->joined_in_batch);
        api->row = change->row;
        api->result = j->state == PJOB_LIVE && j->spec ? job_spec_ref(j->spec) : NULL;
        answer(p, api, api->answer);
    }
}

void papi_durable(struct planner *p, struct pjob *j, const struct job_change *change)
{
    answer_joined(p, j, change);
    if (j->api_state != PAPI_IN_BATCH)
        return;
    if (change->op != CHANGE_DELETE)
        j->api->row = change->row;
    reply(p, j, j->api->answer);
}

/* --- what an operation changes --------------------------------------------------------------------------------------- */

/* After the row was changed. DUE_MS: what was due next without it. */
void papi_revise(struct pjob *j, const struct planner_api *api, const char *op, int64_t due_ms)
{
    memset(&j->revision, 0, sizeof(j->revision));
    j->revision.change_id = api->change_id;
    j->revision.at_ms = planner_later(api->accepted_ms, j->row.updated_ms);
    j->revision.uid = j->row.uid;
    j->revision.version = j->row.version;
    j->revision.seq = planner_op_of_fire(api->op) ? api->seq : api->run_seq;
    j->revision.state = j->row.state;
    j->revision.due_ms = due_ms;
    memcpy(j->revision.actor, api->actor, sizeof(j->revision.actor));
    strncpy(j->revision.op, op, sizeof(j->revision.op) - 1);
}

/* The definition as it is goes into the revision that ends it. */
static void keep_definition(struct pjob *j)
{
    job_spec_unref(j->replaced);
    j->replaced = job_spec_ref(j->spec);
}

void papi_applied(struct pjob *j, enum planner_answer a)
{
    j->api->answer = a;
    j->api_state = PAPI_APPLIED;
    j->write_dirty = true;
}

/* Writes that were held up are applied in another order than they were accepted: a version is in force after the one it follows,
 * and not before FIRED_MS, the last due that has fired by that one. */
static void new_version(struct pjob *j, const struct planner_api *api, int64_t fired_ms)
{
    j->row.version++;
    j->row.change_id = api->change_id;
    j->row.updated_ms = planner_later(planner_later(api->accepted_ms, fired_ms), j->row.updated_ms + 1);
    j->plan_dirty = true;
}

/* After the answer nothing starts by the old rules: what waits with the driver is called back. */
static void revoke_all(struct planner *p, struct pjob *j)
{
    planner_start_cancel(p, &j->start);
    LIST_FOR (l, &j->fires)
        pfire_revoke(p, container_of(l, struct pfire, job_link));
}

static void create(struct planner *p, struct pjob *j, const struct planner_api *api)
{
    struct job_row row = {.uid = api->uid, .slot = j->row.slot, .created_ms = api->accepted_ms};
    if (pjob_by_uid(p, &api->uid)) {
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    memcpy(row.ns, j->row.ns, sizeof(row.ns));
    memcpy(row.id, j->row.id, sizeof(row.id));
    row.due_ms = row.last_success_ms = row.failing_since_ms = RECORD_NONE;
    row.last.due_ms = row.last.finished_ms = RECORD_NONE;
    row.backfill_next_ms = row.backfill_until_ms = RECORD_NONE;
    row.state = api->paused == 1 ? JOB_STATE_PAUSED : JOB_STATE_ACTIVE;
    pjob_forget_uid(p, j); /* of one that is not there any more */
    j->row = row;
    if (pjob_add_uid(p, j, NULL) < 0) {
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    j->state = PJOB_LIVE;
    j->durable_rev = 0;
    pjob_set_spec(p, j, job_spec_ref(api->spec));
    new_version(j, api, RECORD_NONE);
    pjob_plan_new(p, j, api->accepted_ms);
    papi_revise(j, api, "create", RECORD_NONE);
    pjob_dirty(p, j, CHANGE_INSERT);
    papi_applied(j, PLANNER_CREATED);
}

static void unpause(struct planner *p, struct pjob *j, enum planner_catch_up catch_up)
{
    int64_t until_ms = p->now_ms + 1;
    j->row.state = JOB_STATE_ACTIVE;
    if (!j->spec->one_shot && catch_up != PLANNER_CATCH_UP_ALL && j->row.due_ms != RECORD_NONE) {
        if (catch_up == PLANNER_CATCH_UP_LAST && !job_last_due_before(j->spec, until_ms, &until_ms))
            until_ms = RECORD_NONE;
        while (pjob_skip(p, j, until_ms, FIRE_REASON_PAUSED))
            continue;
    }
    if (j->row.state == JOB_STATE_ACTIVE)
        pjob_advance(p, j, j->row.due_ms != RECORD_NONE, j->row.due_ms);
    planner_load_near(p, &j->row.slot, 1); /* those that were left in the store while it was paused */
}

/* The fires of a paused job wait in the store. */
static void load_left(struct planner *p, struct pjob *j)
{
    planner_load_near(p, &j->row.slot, 1);
}

static void pause_row(struct planner *p, struct pjob *j)
{
    (void)p;
    if (j->row.state != JOB_STATE_ACTIVE)
        return;
    j->row.state = JOB_STATE_PAUSED;
    j->row.wake_ms = PLANNER_NEVER;
}

static void replace(struct planner *p, struct pjob *j, const struct planner_api *api, struct job_spec *spec)
{
    bool same_schedule = job_schedule_equal(j->spec, spec);
    bool was_paused = j->row.state == JOB_STATE_PAUSED;
    if (!pjob_book_due(p, j)) { /* its end is recorded, whatever the new definition says */
        job_spec_unref(spec);
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    int64_t fired_ms = pchange_fired_ms(p, j), due_ms = job_row_next_due_ms(&j->row);
    revoke_all(p, j);
    keep_definition(j);
    pjob_set_spec(p, j, spec);
    LIST_FOR (l, &j->fires) {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (spec->at_most_once)
            pfire_mark_running(p, f);
        if (!f->target)
            continue;
        planner_start_cancel(p, &f->start);
        pfire_set_target(p, f, false);
        pfire_set_target(p, f, true);
    }
    new_version(j, api, fired_ms);
    pchange_plan(p, j, api, same_schedule, fired_ms);
    if (api->paused == 1)
        pause_row(p, j);
    else if (api->paused == 0 && j->row.state == JOB_STATE_PAUSED)
        unpause(p, j, PLANNER_CATCH_UP_NONE);
    if (was_paused && j->row.state != JOB_STATE_PAUSED)
        load_left(p, j);
    pzones_replan(p, j);
    papi_revise(j, api, api->op == PLANNER_PATCH ? "patch" : "replace", due_ms);
    pjob_dirty(p, j, CHANGE_REPLACE);
    papi_applied(j, PLANNER_OK);
}

static bool pause_changes(const struct pjob *j, const struct planner_api *api)
{
    bool paused = j->row.state == JOB_STATE_PAUSED;
    return (api->paused == 1 && j->row.state == JOB_STATE_ACTIVE) || (api->paused == 0 && paused);
}

static void change(struct planner *p, struct pjob *j, struct planner_api *api)
{
    struct job_spec *spec = NULL;
    if (api->merge && api->merge(api, j->spec, &j->row, &spec) < 0) {
        papi_reply(p, j, PLANNER_INVALID);
        return;
    }
    if (!spec)
        spec = job_spec_ref(api->spec);
    if (job_spec_equal(j->spec, spec) && !pause_changes(j, api)) {
        job_spec_unref(spec);
        reply_as_it_is(p, j);
        return;
    }
    replace(p, j, api, spec);
}

/* What has ended rides in the delete as it ended; the store ends the rest. */
static void drop_unfinished(struct planner *p, struct pjob *j)
{
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (!f->ended || f->dirty == CHANGE_NONE)
            pfire_drop(p, f);
    }
}

static void delete_now(struct planner *p, struct pjob *j, const struct planner_api *api, const char *op)
{
    revoke_all(p, j);
    drop_unfinished(p, j);
    j->deleting = true;
    j->row.updated_ms = planner_later(p->now_ms, j->row.updated_ms + 1); /* when its unfinished fires end */
    j->row.wake_ms = planner_add_ms(p->now_ms, p->options.history_keep_ms);
    keep_definition(j);
    papi_revise(j, api, op, job_row_next_due_ms(&j->row));
    pjob_dirty(p, j, CHANGE_DELETE);
}

static void delete (struct planner *p, struct pjob *j, struct planner_api *api)
{
    api->row = j->row;
    LIST_FOR (l, &j->fires) {
        const struct pfire *f = container_of(l, struct pfire, job_link);
        api->deleted_in_flight |= (f->in_flight && !f->ignored) || f->row.state == FIRE_STATE_OPEN;
    }
    delete_now(p, j, api, "delete");
    papi_applied(j, PLANNER_OK);
}

/* False without memory: nothing is done. */
static bool pause_now(struct planner *p, struct pjob *j, const struct planner_api *api, const char *op)
{
    if (!pjob_book_due(p, j))
        return false;
    revoke_all(p, j);
    pause_row(p, j);
    new_version(j, api, RECORD_NONE);
    papi_revise(j, api, op, job_row_next_due_ms(&j->row));
    pjob_dirty(p, j, CHANGE_UPDATE);
    return true;
}

static void pause_job(struct planner *p, struct pjob *j, const struct planner_api *api)
{
    if (j->row.state != JOB_STATE_ACTIVE) {
        reply_as_it_is(p, j);
        return;
    }
    if (pause_now(p, j, api, "pause"))
        papi_applied(j, PLANNER_OK);
    else
        papi_reply(p, j, PLANNER_UNAVAILABLE);
}

static void resume(struct planner *p, struct pjob *j, const struct planner_api *api)
{
    if (j->row.state != JOB_STATE_PAUSED) {
        reply_as_it_is(p, j);
        return;
    }
    int64_t due_ms = j->row.due_ms;
    unpause(p, j, api->catch_up);
    load_left(p, j);
    new_version(j, api, RECORD_NONE);
    pzones_replan(p, j);
    papi_revise(j, api, "resume", due_ms);
    pjob_dirty(p, j, CHANGE_UPDATE);
    papi_applied(j, PLANNER_OK);
}

static void run(struct planner *p, struct pjob *j, struct planner_api *api)
{
    void *payload = NULL;
    if (api->run_payload) {
        payload = mem_try_alloc(api->run_payload_bytes, NULL);
        if (payload)
            memcpy(payload, api->run_payload, api->run_payload_bytes);
    }
    enum fire_reason skipped = api->run_force ? FIRE_REASON_NONE : pjob_run_skipped(j);
    struct pfire *f = NULL;
    if ((payload || !api->run_payload) &&
        pjob_book_due(p, j)) { /* numbers are given in the order of booking */
        if (j->spec->concurrency == JOB_QUEUE && !api->run_force)
            pjob_book_queue(p, j);
        f = pfire_book(p, j, p->now_ms, FIRE_KIND_RUN);
    }
    if (!f) {
        mem_free(payload);
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    f->row.payload = payload;
    f->row.payload_bytes = payload ? api->run_payload_bytes : 0;
    pfire_keep_trace(f, api->run_trace);
    p->stats.memory_bytes += f->row.payload_bytes + f->row.trace_bytes;
    api->run_uid = f->row.uid;
    api->run_seq = f->row.seq;
    j->plan_dirty = true; /* the next seq is not this one's: nothing starts before that is durable */
    f->by_hand = api->run_force;
    if (skipped != FIRE_REASON_NONE)
        pfire_end(p, f, FIRE_OUTCOME_SKIPPED, skipped, NULL);
    else if (!api->run_force)
        pjob_run_rule(p, j, f);
    papi_revise(j, api, "run", job_row_next_due_ms(&j->row));
    pjob_dirty(p, j, CHANGE_UPDATE);
    papi_applied(j, PLANNER_ACCEPTED);
}

/* --- what a reply asks for ------------------------------------------------------------------------------------------- */

static enum attempt_control asked_for(const struct pjob *j)
{
    enum attempt_control control = ATTEMPT_CONTROL_NONE;
    LIST_FOR (l, &j->fires) {
        const struct pfire *f = container_of(l, struct pfire, job_link);
        if (pfire_asks(f) && f->row.until_ms > (int64_t)control)
            control = (enum attempt_control)f->row.until_ms;
    }
    return control;
}

static void count_asking(struct planner *p, struct pjob *j)
{
    LIST_FOR (l, &j->fires) {
        struct pfire *f = container_of(l, struct pfire, job_link);
        if (pfire_asks(f))
            pfire_count_reported(p, f);
    }
    j->asked = false;
}

void papi_asked(struct planner *p, struct pjob *j)
{
    if (!j->asked || !pjob_active(j) || j->write_dirty)
        return;
    struct planner_api api = {.change_id = rng_u64(&p->rng) | 1, .accepted_ms = p->now_ms, .actor = "reply"};
    enum attempt_control control = j->ghost ? ATTEMPT_CONTROL_NONE : asked_for(j);
    bool deletes = control == ATTEMPT_CONTROL_DELETE;
    bool pauses = control == ATTEMPT_CONTROL_PAUSE && j->row.state == JOB_STATE_ACTIVE;
    if (pauses && !pause_now(p, j, &api, "reply")) {
        j->not_before_ms = p->now_ms + PLANNER_AGAIN_MS;
        pjob_arm(p, j);
        return;
    }
    count_asking(p, j);
    if (deletes)
        delete_now(p, j, &api, "reply");
    j->write_dirty = deletes || pauses;
    if (!j->write_dirty)
        pjob_arm_fires(p, j); /* else when that is durable */
}

/* --- one at a time --------------------------------------------------------------------------------------------------- */

static enum planner_answer success(const struct planner_api *api, const struct pjob *j)
{
    if (api->op == PLANNER_RUN || api->op == PLANNER_BACKFILL || api->op == PLANNER_FIRE_RETRY)
        return PLANNER_ACCEPTED;
    bool made =
        api->op == PLANNER_CREATE || (api->op == PLANNER_PUT && j->state == PJOB_LIVE && j->row.version == 1);
    return made ? PLANNER_CREATED : PLANNER_OK;
}

bool planner_api_matches(const struct planner_api *api, const struct job_row *row)
{
    return api->match_version == 0 || (row->version == api->match_version &&
                                       memcmp(&row->uid, &api->match_uid, sizeof(api->match_uid)) == 0);
}

static bool mismatch(const struct planner_api *api, const struct pjob *j)
{
    bool present = j->state == PJOB_LIVE;
    if (api->if_none_match && present)
        return true;
    return api->if_match && (!present || !planner_api_matches(api, &j->row));
}

static void apply_absent(struct planner *p, struct pjob *j, struct planner_api *api)
{
    bool makes = api->op == PLANNER_CREATE || api->op == PLANNER_PUT;
    if (makes && api->no_more[0])
        papi_reply(p, j, PLANNER_FULL);
    else if (makes && api->merge_only)
        papi_reply(p, j, PLANNER_INVALID);
    else if (makes)
        create(p, j, api);
    else
        papi_reply(p, j, PLANNER_NOT_FOUND);
}

static void apply_present(struct planner *p, struct pjob *j, struct planner_api *api)
{
    switch (api->op) {
    case PLANNER_CREATE:
        papi_reply(p, j, PLANNER_EXISTS);
        break;
    case PLANNER_PUT:
    case PLANNER_PATCH:
        change(p, j, api);
        break;
    case PLANNER_DELETE:
        delete (p, j, api);
        break;
    case PLANNER_PAUSE:
        pause_job(p, j, api);
        break;
    case PLANNER_RESUME:
        resume(p, j, api);
        break;
    case PLANNER_RUN:
        run(p, j, api);
        break;
    case PLANNER_BACKFILL:
        pbackfill_ask(p, j, api);
        break;
    case PLANNER_FIRE_RETRY:
    case PLANNER_FIRE_CANCEL:
    case PLANNER_FIRE_COMPLETE:
    case PLANNER_FIRE_HEARTBEAT:
    case PLANNER_LETTERS_REDRIVE:
    case PLANNER_LETTERS_DISCARD:
        assert(false && "taken by papi_fire()");
        break;
    }
}

static void apply(struct planner *p, struct pjob *j)
{
    struct planner_api *api = j->api;
    bool of_fire = planner_op_of_fire(api->op);
    if (of_fire && memcmp(&api->uid, &j->row.uid, sizeof(api->uid)) != 0) {
        papi_reply(p, j,
                   PLANNER_UNAVAILABLE); /* its job was deleted while it waited, and the name taken anew */
        return;
    }
    if (of_fire && j->state == PJOB_LIVE) {
        memcpy(api->ns, j->row.ns, sizeof(api->ns));
        memcpy(api->id, j->row.id, sizeof(api->id));
    }
    bool revised = api->ns[0] && api->op != PLANNER_FIRE_COMPLETE && api->op != PLANNER_FIRE_HEARTBEAT;
    if (!of_fire && j->state == PJOB_LIVE && j->row.change_id == api->change_id && api->change_id != 0) {
        papi_reply(p, j, success(api, j));
    } else if (api->repeated && !j->api_looked && revised) {
        j->api_state = PAPI_FINDING;
        planner_read_change(p, j, api);
    } else if (of_fire) {
        papi_fire(p, j);
    } else if (mismatch(api, j)) {
        papi_reply(p, j, PLANNER_MISMATCH);
    } else if (j->state == PJOB_ABSENT) {
        apply_absent(p, j, api);
    } else {
        apply_present(p, j, api);
    }
}

void papi_found(struct planner *p, struct pjob *j, const struct revision *found)
{
    assert(j->api && j->api_state == PAPI_FINDING);
    if (found) {
        j->api->was_done = true;
        j->api->run_uid = found->uid;
        j->api->run_seq = found->seq;
        if (pletter_op(j->api->op))
            j->api->letters_done = j->api->letters_count; /* in one batch with what was found */
        pbackfill_found(j, j->api);
        papi_reply(p, j, success(j->api, j));
        return;
    }
    j->api_state = PAPI_IDLE;
    j->api_looked = true;
}

bool papi_may_apply(const struct pjob *j)
{
    return !j->moving && !j->deleting && !j->write_dirty;
}

/* Work on the queue until one has to wait for the store. Nothing is answered from what is not durable. */
void papi_run(struct planner *p, struct pjob *j)
{
    papi_asked(p, j);
    while (j->api && j->api_state == PAPI_IDLE && papi_may_apply(j)) {
        if (j->state == PJOB_STOPPED) {
            j->state = PJOB_READING;
            j->resync = true;
            planner_read_job(p, j);
        }
        if ((j->state != PJOB_LIVE && j->state != PJOB_ABSENT) || papi_fire_waits(j))
            return;
        apply(p, j);
        p->awaited |= j->api_state == PAPI_APPLIED;
    }
}

/* --- coming in ------------------------------------------------------------------------------------------------------- */

/* Whether a name that is to be made is taken to be free without asking: the insert fails if it is not, which costs its batch
 * a second try, so a wrong guess is followed by looks. */
static bool guess_free(struct planner *p, const struct planner_api *api)
{
    if ((api->op != PLANNER_CREATE && api->op != PLANNER_PUT) || api->repeated || api->if_match ||
        api->no_more[0] || api->merge_only)
        return false;
    if (api->op == PLANNER_CREATE && api->fresh_id)
        return true;
    if (p->guess_looks == 0)
        return true;
    p->guess_looks--;
    return false;
}

void papi_guessed(struct planner *p, struct pjob *j, bool right)
{
    if (!j->guessed)
        return;
    j->guessed = false;
    if (right) {
        p->guess_step -= p->guess_step > 0;
        return;
    }
    p->guess_step += PLANNER_GUESS_STEP;
    if (p->guess_step > PLANNER_GUESS_STEP_MAX)
        p->guess_step = PLANNER_GUESS_STEP_MAX;
    p->guess_looks = p->guess_step;
}

static struct pjob *job_for(struct planner *p, const struct planner_api *api, uint16_t slot)
{
    bool of_fire = planner_op_of_fire(api->op);
    struct pjob *j = of_fire ? pjob_by_uid(p, &api->uid) : pjob_by_key(p, api->ns, api->id);
    if (j)
        return j;
    if (of_fire)
        return planner_stub(p, slot, &api->uid, api->version);
    j = pjob_new(p, slot, NULL);
    if (!j)
        return NULL;
    memcpy(j->row.ns, api->ns, sizeof(j->row.ns));
    memcpy(j->row.id, api->id, sizeof(j->row.id));
    if (pjob_add_key(p, j, NULL) < 0) {
        pjob_gone(p, j);
        return NULL;
    }
    j->guessed = guess_free(p, api);
    if (j->guessed)
        j->state = PJOB_ABSENT;
    else
        planner_read_job(p, j);
    return j;
}

static void park(struct pslot *s, struct planner_api *api)
{
    api->next = NULL;
    *s->parked_tail = api;
    s->parked_tail = &api->next;
}

static struct planner_api *take_parked(struct pslot *s)
{
    struct planner_api *api = s->parked;
    s->parked = NULL;
    s->parked_tail = &s->parked;
    return api;
}

void papi_park(struct planner *p, struct pjob *j)
{
    if (p->now_ms - j->api->accepted_ms >= API_OVERDUE_MS) {
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    park(&p->slots[j->row.slot], pop(j));
    if (!wheel_timer_armed(&p->parked_timer))
        planner_arm(p, &p->parked_timer, p->now_ms + PLANNER_AGAIN_MS);
}

void papi_try_parked(struct planner *p, struct pslot *s)
{
    struct planner_api *api = s->state == PSLOT_HELD ? take_parked(s) : NULL;
    while (api) {
        struct planner_api *next = api->next;
        planner_on_api(p, api);
        api = next;
    }
}

void papi_parked_timer(struct wheel_timer *t, void *arg)
{
    struct planner *p = arg;
    (void)t;
    for (uint32_t i = 0; i < p->options.slots; i++)
        if (p->slots[i].parked)
            papi_try_parked(p, &p->slots[i]);
}

static uint16_t slot_of(const struct planner *p, const struct planner_api *api)
{
    return planner_op_of_fire(api->op) ? uid_slot(&api->uid)
                                       : (uint16_t)hashring_slot(api->ns, api->id, p->options.slots);
}

void planner_on_api(struct planner *p, struct planner_api *api)
{
    uint16_t slot = slot_of(p, api);
    struct pslot *s = &p->slots[slot % p->options.slots];
    api->result = NULL;
    api->outcome = FIRE_OUTCOME_PENDING;
    api->fire_continue = false;
    api->deleted_in_flight = false;
    api->run_seq = 0;
    api->backfill_dues = 0;
    api->letters_done = 0;
    api->found = NULL;
    api->found_count = 0;
    api->refusal[0] = '\0';
    api->next = NULL;
    memset(&api->row, 0, sizeof(api->row));
    if (slot >= p->options.slots) { /* no fire ever had such an id */
        answer(p, api, PLANNER_NOT_FOUND);
        return;
    }
    if (s->state == PSLOT_NONE || p->fenced) {
        answer(p, api, PLANNER_NOT_OWNER);
        return;
    }
    if (planner_stalled(p)) {
        answer(p, api, PLANNER_UNAVAILABLE);
        return;
    }
    if (s->state == PSLOT_MOVING) {
        park(s, api);
        return;
    }
    struct pjob *j = job_for(p, api, slot);
    size_t queue_max = planner_op_of_fire(api->op) ? PLANNER_FIRE_QUEUE_MAX : PLANNER_API_QUEUE_MAX;
    if (!j || j->api_count >= queue_max) {
        answer(p, api, PLANNER_UNAVAILABLE);
        return;
    }
    papi_push(j, api);
    papi_run(p, j);
    pjob_settle(p, j);
}

/* The slot went away: whoever has it now is asked instead. */
void papi_unpark(struct planner *p, struct pslot *s)
{
    struct planner_api *api = take_parked(s);
    while (api) {
        struct planner_api *next = api->next;
        answer(p, api, PLANNER_NOT_OWNER);
        api = next;
    }
}
