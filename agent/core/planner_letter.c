/* Dead letters: sent once more, or discarded, some of one job at a time. Their rows are read, for ended fires are not in
 * memory, and changed together in one batch with the job's counts: a letter is sent when that is durable, under the id that
 * it had, its attempts going on. The job of a letter may be deleted: then what it was to deliver comes from the copy that the
 * store keeps, in a job made up for it that has fires, but no row of its own (`ghost`). */
#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

bool pletter_op(enum planner_api_op op)
{
    return op == PLANNER_LETTERS_REDRIVE || op == PLANNER_LETTERS_DISCARD;
}

/* --- jobs that are gone ---------------------------------------------------------------------------------------------- */

void pletter_ghost(struct planner *p, struct pjob *j, struct job_spec *spec, uint64_t version)
{
    struct job_row row = {
        .uid = j->row.uid, .slot = j->row.slot, .version = version, .state = JOB_STATE_DONE};
    row.due_ms = row.last_success_ms = row.failing_since_ms = RECORD_NONE;
    row.created_ms = row.updated_ms = row.last.due_ms = row.last.finished_ms = RECORD_NONE;
    row.backfill_next_ms = row.backfill_until_ms = RECORD_NONE;
    row.wake_ms = PLANNER_NEVER;
    if (spec) {
        memcpy(row.ns, spec->ns, sizeof(row.ns));
        memcpy(row.id, spec->id, sizeof(row.id));
    }
    j->row = row;
    j->ghost = true;
    j->ghost_since = p->whole_last;
    j->state = PJOB_LIVE;
    j->durable_rev = 0;
    j->wanted = j->resync = false;
    pjob_set_spec(p, j, spec);
}

/* A ghost has one definition; what was to be delivered by another one waits until it is gone. */
bool pletter_fits(const struct pjob *j, const struct fire_row *row)
{
    return !j->ghost || (j->spec && row->version == j->row.version);
}

/* Only what was re-driven when its job was gone: the delete ended all else, whatever a page from before it says. */
bool pletter_strange(const struct pjob *j, const struct fire_row *row)
{
    return j->ghost && !row->orphan;
}

static bool needs(const struct planner *p, const struct pfire *f, uint64_t version)
{
    return f->booked && !f->ignored && f->row.orphan && f->row.version == version && !pfire_is_held(p, f);
}

bool pletter_expire(struct planner *p, struct pjob *j)
{
    uint64_t version = j->copy_asked;
    bool any = false;
    LIST_FOR (l, &j->fires)
        any |= version != 0 && needs(p, container_of(l, struct pfire, job_link), version);
    if (!any || j->in_keys || j->moving)
        return false;
    pletter_ghost(p, j, NULL, version);
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        j->left |= f->row.orphan && f->row.version != version; /* looked at when these have ended */
        if (needs(p, f, version))
            pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_EXPIRED, NULL);
        else
            pfire_drop(p, f);
    }
    papi_run(p, j);
    pjob_settle(p, j);
    return true;
}

/* --- what becomes of one --------------------------------------------------------------------------------------------- */

static struct pfire *take(struct planner *p, struct pjob *j, struct fire_row *row)
{
    if (pjob_find_fire(j, row->seq)) /* it is at work again already */
        return NULL;
    struct pfire *f = pfire_take_row(p, j, row, p->gen);
    if (f && !j->ghost) {
        j->row.counts.dead--;
        pjob_dirty(p, j, CHANGE_UPDATE);
    }
    return f;
}

static bool redrive(struct planner *p, struct pjob *j, struct fire_row *row, int64_t at_ms)
{
    struct pfire *f = j->ghost || pjob_book_due(p, j) ? take(p, j, row) : NULL;
    if (!f)
        return false;
    f->row.outcome = FIRE_OUTCOME_PENDING;
    f->row.reason = FIRE_REASON_NONE;
    f->row.finished_ms = RECORD_NONE;
    f->row.attempts_before = f->row.attempts;
    f->row.orphan = j->ghost;
    f->row.first_ms = at_ms > p->now_ms ? at_ms : p->now_ms;
    if (f->row.kind == FIRE_KIND_BACKFILL && !j->ghost)
        j->row.backfill_pending++;
    if (j->ghost) /* the copy is needed until it has ended */
        f->letter_until_ms = planner_add_ms(p->now_ms, p->options.dead_keep_ms + PLANNER_COPY_MORE_MS);
    pparts_reopen(p, f);
    pfire_set_target(p, f, true);
    pfire_wait_until(p, f, f->row.first_ms);
    return true;
}

static bool discard(struct planner *p, struct pjob *j, struct fire_row *row)
{
    struct pfire *f = take(p, j, row);
    if (!f)
        return false;
    f->row.outcome = FIRE_OUTCOME_CANCELLED;
    f->row.reason = FIRE_REASON_DISCARDED;
    f->row.wake_ms = pfire_keep_until_ms(p, &f->row);
    f->ended = true;
    if (!j->ghost)
        j->row.counts.cancelled++;
    pfire_dirty(p, f, CHANGE_UPDATE);
    return true;
}

static bool is_letter(const struct fire_row *row)
{
    return row->state == FIRE_STATE_ENDED && row->outcome == FIRE_OUTCOME_DEAD;
}

/* --- some of a job --------------------------------------------------------------------------------------------------- */

void pletter_forget(struct planner_api *api)
{
    for (size_t i = 0; i < api->found_count; i++)
        fire_row_fini(&api->found[i]);
    mem_free(api->found);
    api->found = NULL;
    api->found_count = api->letters_read = 0;
}

static int64_t at_of(const struct planner_api *api, uint64_t seq)
{
    for (size_t i = 0; i < api->letters_count; i++)
        if (api->letters[i].seq == seq)
            return api->letters[i].at_ms;
    return 0;
}

/* All rows are there: what can be changed is, in one go. */
static void act(struct planner *p, struct pjob *j, struct planner_api *api)
{
    bool redrives = api->op == PLANNER_LETTERS_REDRIVE, starved = false;
    for (size_t i = 0; i < api->found_count; i++) {
        struct fire_row *row = &api->found[i];
        if (redrives && !pletter_fits(j, row))
            continue;
        if (redrives ? redrive(p, j, row, at_of(api, row->seq)) : discard(p, j, row))
            api->letters_done++;
        else
            starved |= !pjob_find_fire(j, row->seq); /* else it is at work again already */
    }
    pletter_forget(api);
    enum planner_answer answer = starved ? PLANNER_UNAVAILABLE : PLANNER_OK; /* to be asked for again */
    if (api->letters_done == 0) {
        papi_reply(p, j, answer);
        return;
    }
    papi_revise(j, api, redrives ? "redrive" : "discard", job_row_next_due_ms(&j->row));
    papi_applied(j, answer);
}

static void reply_later(struct planner *p, struct pjob *j)
{
    j->api->later = true;
    papi_reply(p, j, PLANNER_UNAVAILABLE);
}

/* False: it has been answered, or waits for the job. */
static bool has_job(struct planner *p, struct pjob *j, struct planner_api *api)
{
    bool redrives = api->op == PLANNER_LETTERS_REDRIVE;
    if (j->state == PJOB_LIVE && j->ghost && redrives && (!j->spec || j->row.version != api->version)) {
        reply_later(p, j); /* others of that job are under way, by another definition */
        return false;
    }
    if (j->state == PJOB_LIVE)
        return true;
    assert(j->state == PJOB_ABSENT);
    if (j->in_keys) { /* deleted just now: its name may be taken, so a ghost is another one */
        reply_later(p, j);
        return false;
    }
    if (!redrives) {
        pletter_ghost(p, j, NULL, api->version);
        return true;
    }
    if (j->copy_version != api->version) {
        pletter_read_copy(p, j, api->version);
        return false;
    }
    papi_reply(p, j, PLANNER_OK); /* nobody knows any more what was to be delivered */
    return false;
}

/* A ghost has no seq to be held against. */
static void read_more(struct planner *p, struct pjob *j, struct planner_api *api)
{
    j->api_state = PAPI_FINDING;
    planner_read_fire(p, j, api->letters[api->letters_read].seq, PLANNER_LETTERS_PAGE);
}

void pletter_begin(struct planner *p, struct pjob *j)
{
    struct planner_api *api = j->api;
    pletter_forget(api);
    api->letters_done = 0;
    api->later = false;
    if (!has_job(p, j, api))
        return;
    api->found = mem_try_array(api->letters_count ? api->letters_count : 1, sizeof(*api->found), NULL);
    if (!api->found)
        papi_reply(p, j, PLANNER_UNAVAILABLE);
    else if (api->letters_count == 0)
        papi_reply(p, j, PLANNER_OK);
    else
        read_more(p, j, api);
}

static void keep_row(struct planner_api *api, struct fire_row *row)
{
    if (!is_letter(row))
        return;
    api->found[api->found_count++] = *row;
    fire_row_taken(row);
}

/* While the page was under way an earlier request, whose answer had been given up, may have come through after all. */
static void forget_stale(const struct planner *p, struct planner_api *api, uint64_t gen)
{
    size_t kept = 0;
    for (size_t i = 0; i < api->found_count; i++) {
        struct fire_row *row = &api->found[i];
        if (planner_tomb_refuses(p, gen, &row->uid, row->seq, row->rev))
            fire_row_fini(row);
        else
            api->found[kept++] = *row;
    }
    api->found_count = kept;
}

/* A page of the job's fires, newest first, from the first letter on that was not read yet: letters die in rows, so one page
 * brings many of them; what lies between is left. */
void pletter_read(struct planner *p, struct pjob *j, bool ok, struct fire_row *rows, size_t count,
                  uint64_t gen)
{
    struct planner_api *api = j->api;
    if (!ok || (j->state != PJOB_LIVE)) {
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return;
    }
    uint64_t lowest = count > 0 ? rows[count - 1].seq : 0;
    for (size_t i = 0; api->letters_read < api->letters_count; api->letters_read++) {
        uint64_t seq = api->letters[api->letters_read].seq;
        while (i < count && rows[i].seq > seq)
            i++;
        if (i == count && count > 0 && seq < lowest)
            break;
        if (i < count && rows[i].seq == seq)
            keep_row(api, &rows[i]);
    }
    forget_stale(p, api, gen);
    if (api->letters_read < api->letters_count)
        read_more(p, j, api);
    else
        act(p, j, api);
}

/* --- one, by hand ---------------------------------------------------------------------------------------------------- */

bool pletter_retry(struct planner *p, struct pjob *j, struct fire_row *row)
{
    struct planner_api *api = j->api;
    bool fits = j->state == PJOB_LIVE && pletter_fits(j, row);
    if (!is_letter(row) || row->seq != api->seq || (!fits && j->state == PJOB_LIVE))
        return false;
    if (!fits && (j->copy_version == row->version || j->in_keys))
        return false; /* there is no copy; or the job was deleted just now, and its name may be taken */
    if (!fits) {
        pletter_read_copy(p, j, row->version);
        return true;
    }
    if (!redrive(p, j, row, p->now_ms)) { /* no memory, or it is at work again */
        papi_reply(p, j, PLANNER_UNAVAILABLE);
        return true;
    }
    struct pfire *f = pjob_find_fire(j, api->seq);
    f->by_hand = true;
    api->outcome = FIRE_OUTCOME_PENDING;
    papi_revise(j, api, "retry", job_row_next_due_ms(&j->row));
    papi_applied(j, PLANNER_ACCEPTED);
    return true;
}

/* The job is not there: what it was by VERSION is asked for; who asked comes again when that is known. */
void pletter_read_copy(struct planner *p, struct pjob *j, uint64_t version)
{
    j->copy_version = version;
    j->state = PJOB_READING;
    planner_read_job(p, j);
}
