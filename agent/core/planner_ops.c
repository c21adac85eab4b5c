/* What the API does to one fire: by hand (retry, cancel), one at a time a job, like all writes; or for its callee (complete,
 * heartbeat), as many fires at a time as there are in a batch. Answered when durable. A fire that is not in memory, or that another member holds, is read first: what is decided
 * is decided on its row, and the row's revision sees to it that nobody decides twice. What another member holds is that member's to
 * end, which is a matter of its reply: until then nothing can be said, and who asks waits a while. */
#include <assert.h>
#include <string.h>

#include "agent/core/planner_private.h"

/* The newest attempt that a callee can have seen. */
static uint32_t newest_attempt(const struct pfire *f)
{
    return f->in_flight && !f->settled ? f->delivery.attempt : f->row.attempts;
}

static bool is_running(const struct pfire *f)
{
    return (f->in_flight && !f->settled) || f->row.state == FIRE_STATE_HELD;
}

static void joined(struct pjob *j, const struct pfire *f, enum planner_answer answer)
{
    j->api->outcome = f->row.outcome;
    papi_join(j, answer);
}

static void reply(struct planner *p, struct pjob *j, const struct pfire *f, enum planner_answer answer)
{
    j->api->outcome = f->row.outcome;
    papi_reply(p, j, answer);
}

/* --- for the callee -------------------------------------------------------------------------------------------------- */

static void complete(struct planner *p, struct pjob *j, struct pfire *f)
{
    const struct planner_api *api = j->api;
    uint32_t newest = newest_attempt(f), attempt = api->fire_attempt;
    bool waits = f->row.state == FIRE_STATE_WAITING && !is_running(f);
    if (api->fire_ok) {
        popen_succeed(p, f, attempt, api->fire_detail);
        joined(j, f, attempt < newest ? PLANNER_SUPERSEDED : PLANNER_OK);
    } else if (attempt < newest) {
        reply(p, j, f, PLANNER_SUPERSEDED);
    } else if (waits && attempt == newest) { /* counted already: by silence, or by this very request before */
        reply(p, j, f, PLANNER_OK);
    } else {
        const char *detail = api->fire_detail;
        popen_fail(p, f, attempt, detail[0] ? detail : "its callee says that it failed", detail, false);
        joined(j, f, PLANNER_OK);
    }
}

static void heartbeat(struct planner *p, struct pjob *j, struct pfire *f)
{
    struct planner_api *api = j->api;
    uint32_t newest = newest_attempt(f);
    if (api->fire_attempt < newest) {
        reply(p, j, f, PLANNER_SUPERSEDED);
        return;
    }
    /* One that is newer than the row was sent by a member that died before it could tell. */
    api->fire_continue = api->fire_attempt > newest ||
                         (api->fire_attempt == newest && (is_running(f) || f->row.state == FIRE_STATE_OPEN));
    if (api->fire_attempt == newest && f->row.state == FIRE_STATE_OPEN && popen_extend(p, f))
        joined(j, f, PLANNER_OK);
    else
        reply(p, j, f, PLANNER_OK);
}

/* --- by hand --------------------------------------------------------------------------------------------------------- */

static void retry(struct planner *p, struct pjob *j, struct pfire *f)
{
    if (is_running(f)) { /* that is an attempt now */
        reply(p, j, f, PLANNER_ACCEPTED);
        return;
    }
    if (pfire_spent(f)) {
        reply(p, j, f, PLANNER_FINISHED); /* its only attempt has been made */
        return;
    }
    if (f->row.state == FIRE_STATE_OPEN)
        popen_fail(p, f, f->row.attempts, "another attempt was asked for before this one was completed", "",
                   true);
    else
        pfire_wait_until(p, f, p->now_ms);
    pfire_set_target(p, f, true);
    f->by_hand = true;
    papi_revise(j, j->api, "retry", job_row_next_due_ms(&j->row));
    pjob_dirty(p, j, CHANGE_UPDATE);
    j->api->outcome = f->row.outcome;
    papi_applied(j, PLANNER_ACCEPTED);
}

static void cancel(struct planner *p, struct pjob *j, struct pfire *f)
{
    if (f->in_flight) {
        pfire_abort(p, f);
        f->ignored = true;
    }
    papi_revise(j, j->api, "cancel", job_row_next_due_ms(&j->row));
    j->api->outcome = FIRE_OUTCOME_CANCELLED;
    papi_applied(j, PLANNER_OK);
    pfire_end(p, f, FIRE_OUTCOME_CANCELLED, FIRE_REASON_CANCELLED, NULL); /* may free it */
}

/* --- which fire ------------------------------------------------------------------------------------------------------ */

/* Somebody else's attempt, or our own of before the slot went and came back. */
static bool must_wait(const struct pjob *j, const struct pfire *f)
{
    enum planner_api_op op = j->api->op;
    return f->row.state == FIRE_STATE_HELD && list_linked(&f->foreign_link) &&
           (op == PLANNER_FIRE_CANCEL || op == PLANNER_FIRE_COMPLETE);
}

static void act(struct planner *p, struct pjob *j, struct pfire *f)
{
    if (must_wait(j, f)) {
        papi_park(p, j);
        return;
    }
    switch (j->api->op) {
    case PLANNER_FIRE_RETRY:
        retry(p, j, f);
        break;
    case PLANNER_FIRE_CANCEL:
        cancel(p, j, f);
        break;
    case PLANNER_FIRE_COMPLETE:
        complete(p, j, f);
        break;
    case PLANNER_FIRE_HEARTBEAT:
        heartbeat(p, j, f);
        break;
    case PLANNER_CREATE:
    case PLANNER_PUT:
    case PLANNER_PATCH:
    case PLANNER_DELETE:
    case PLANNER_PAUSE:
    case PLANNER_RESUME:
    case PLANNER_RUN:
    case PLANNER_BACKFILL:
    case PLANNER_LETTERS_REDRIVE:
    case PLANNER_LETTERS_DISCARD:
        assert(false && "an operation on a job");
        break;
    }
}

/* A completion may be repeated when its answer was lost: what it said is so, which is success. */
static bool said_so(const struct planner_api *api, enum fire_outcome outcome)
{
    return api->repeated &&
           ((api->op == PLANNER_FIRE_CANCEL && outcome == FIRE_OUTCOME_CANCELLED) ||
            (api->op == PLANNER_FIRE_COMPLETE && api->fire_ok && outcome == FIRE_OUTCOME_SUCCEEDED));
}

static void finished(struct planner *p, struct pjob *j, enum fire_outcome outcome)
{
    struct planner_api *api = j->api;
    api->outcome = outcome;
    bool ok = api->op == PLANNER_FIRE_HEARTBEAT || said_so(api, outcome);
    papi_reply(p, j, ok ? PLANNER_OK : PLANNER_FINISHED);
}

/* No row holds it. Of a job that is there, what had a number and has no row any more has ended. */
static void no_row(struct planner *p, struct pjob *j)
{
    if (j->state == PJOB_LIVE && j->api->seq > 0 && j->api->seq <= j->row.counts.seq)
        finished(p, j, FIRE_OUTCOME_SUCCEEDED);
    else
        papi_reply(p, j, PLANNER_NOT_FOUND);
}

static void act_on_row(struct planner *p, struct pjob *j, struct fire_row *row, uint64_t gen)
{
    if (j->api->op == PLANNER_FIRE_RETRY && pletter_retry(p, j, row))
        return;
    if (row->state == FIRE_STATE_ENDED || row->state == FIRE_STATE_REPORTED) {
        finished(p, j, row->outcome);
        return;
    }
    bool gone = j->state != PJOB_LIVE;
    if (gone && row->orphan && !j->in_keys && j->copy_version != row->version) {
        pletter_read_copy(p, j, row->version); /* and who asked comes again */
        return;
    }
    if (gone || pletter_strange(j, row)) { /* its job is being deleted elsewhere */
        papi_reply(p, j, PLANNER_NOT_FOUND);
        return;
    }
    if (!pletter_fits(j, row)) { /* others of its job are under way, by another definition */
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    struct pfire *f = pfire_take_row(p, j, row, gen);
    if (!f) {
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    bool held = pfire_is_held(p, f);
    if (held)
        pfire_loaded(p, f);
    else
        pfire_not_foreign(p, f);
    act(p, j, f);
    if (!held && f->dirty == CHANGE_NONE)
        pfire_loaded(p, f); /* may drop it again: its time is far off */
}

static void fire_read(struct planner *p, struct pjob *j, bool ok, struct fire_row *row, uint64_t gen)
{
    const struct pfire *f = pjob_find_fire(j, j->api->seq);
    if (!ok || (f && f->ignored)) /* its attempt of before the job was read again has to come back first */
        papi_reply(p, j, PLANNER_UNAVAILABLE);
    else if ((f && !list_linked(&f->foreign_link)) ||
             (row && planner_tomb_refuses(p, gen, &row->uid, row->seq, row->rev)))
        return; /* it came in meanwhile, or came and went: look again */
    else if (!row)
        no_row(p, j);
    else
        act_on_row(p, j, row, gen);
}

/* While it was read its slot may have begun to go away, or what a reply asked for been done to the job: then it is asked for again,
 * if it is still ours, when that is through. */
void papi_fire_read(struct planner *p, struct pjob *j, const struct planner_event *event, uint64_t gen)
{
    assert(j->api && j->api_state == PAPI_FINDING);
    uint64_t seq = j->api->seq;
    bool found = event->fires_count > 0 && event->fires[0].seq <= seq && seq <= event->fires[0].seq_last;
    j->api_state = PAPI_IDLE;
    if (!papi_may_apply(j))
        return;
    if (pletter_op(j->api->op))
        pletter_read(p, j, event->ok, event->fires, event->fires_count, gen);
    else
        fire_read(p, j, event->ok, found ? &event->fires[0] : NULL, gen);
}

/* The first attempt of a due whose fire has no row yet. */
static struct pfire *book_running(struct planner *p, struct pjob *j)
{
    struct pfire *f = j->first;
    if (!f || f->row.seq != j->api->seq || j->state != PJOB_LIVE)
        return NULL;
    pfire_book_first(p, j);
    return f;
}

bool papi_fire_waits(const struct pjob *j)
{
    enum planner_api_op op = j->api->op;
    bool joins = op == PLANNER_FIRE_COMPLETE || op == PLANNER_FIRE_HEARTBEAT;
    if (!joins && (j->joined || j->joined_in_batch))
        return true;
    const struct pfire *f = planner_op_of_fire(op) ? pjob_find_fire(j, j->api->seq) : NULL;
    return f && (f->ended || joins) && (f->dirty != CHANGE_NONE || f->in_batch);
}

void papi_fire(struct planner *p, struct pjob *j)
{
    if (pletter_op(j->api->op)) {
        pletter_begin(p, j);
        return;
    }
    struct pfire *f = pjob_find_fire(j, j->api->seq);
    bool here = f && !f->ignored && !list_linked(&f->foreign_link);
    bool letter = f && f->row.outcome == FIRE_OUTCOME_DEAD && j->api->op == PLANNER_FIRE_RETRY;
    if (f && f->ended && !letter) /* and that is durable; its attempt may be on its way back */
        finished(p, j, f->row.outcome);
    else if (here && j->state == PJOB_LIVE)
        act(p, j, f);
    else if ((f = book_running(p, j)))
        act(p, j, f);
    else {
        j->api_state = PAPI_FINDING;
        planner_read_fire(p, j, j->api->seq, 1);
    }
}
