#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/fire_parts.h"
#include "agent/core/planner_private.h"

/* --- in memory ------------------------------------------------------------------------------------------------------- */

struct pfire *pfire_new(struct planner *p, struct pjob *j, struct err *e)
{
    struct pfire *f = mem_try_alloc(sizeof(*f), e);
    if (!f)
        return NULL;
    f->job = j;
    f->row.uid = j->row.uid;
    f->row.slot = j->row.slot;
    list_init(&f->foreign_link);
    list_init(&f->target_link);
    list_init(&f->start.link);
    f->start.is_fire = true;
    wheel_timer_init(&f->timer, pfire_timer, p);
    list_push_back(&j->fires, &f->job_link);
    p->stats.fires_loaded++;
    p->stats.memory_bytes += sizeof(*f);
    return f;
}

static void trash_fire(void *ptr)
{
    struct pfire *f = ptr;
    fire_row_fini(&f->row);
    fire_parts_free(f->parts);
    mem_free(f);
}

static void foreign_remove(struct planner *p, struct pfire *f)
{
    if (!list_linked(&f->foreign_link))
        return;
    list_remove(&f->foreign_link);
    p->slots[f->row.slot].foreign--;
}

void pfire_not_foreign(struct planner *p, struct pfire *f)
{
    foreign_remove(p, f);
}

static void foreign_add(struct planner *p, struct pfire *f)
{
    list_push_back(&p->foreign, &f->foreign_link);
    p->slots[f->row.slot].foreign++;
    if (!wheel_timer_armed(&p->foreign_timer))
        planner_arm(p, &p->foreign_timer, p->now_ms + PLANNER_FOREIGN_MS);
}

static void quiet(struct planner *p, struct pfire *f)
{
    wheel_cancel(p->wheel, &f->timer);
    planner_start_cancel(p, &f->start);
    foreign_remove(p, f);
    pfire_set_target(p, f, false);
}

void pfire_free(struct planner *p, struct pfire *f)
{
    assert(!f->in_flight && !f->in_batch);
    quiet(p, f);
    list_remove(&f->job_link);
    if (f->job->first == f)
        f->job->first = NULL;
    p->stats.fires_loaded--;
    p->stats.memory_bytes -= sizeof(*f) + fire_row_bytes(&f->row);
    planner_trash(p, trash_fire, f);
}

void pfire_leave(struct planner *p, struct pfire *f)
{
    const struct pjob *j = f->job;
    bool counted = !pfire_asks(f) || j->state == PJOB_GONE || j->moving;
    if (f->in_flight || f->in_batch || f->dirty != CHANGE_NONE || !((f->ended && counted) || f->ignored))
        return;
    bool forgotten = f->booked && !f->ended && j->state == PJOB_LIVE && !j->deleting && !j->moving;
    uint16_t slot = f->row.slot;
    if (f->booked)
        planner_tomb(p, &f->row.uid, f->row.seq, UINT64_MAX);
    pfire_free(p, f);
    if (forgotten) /* while it was out no page could bring what the store has of it */
        planner_load_near(p, &slot, 1);
}

void pfire_drop(struct planner *p, struct pfire *f)
{
    quiet(p, f);
    if (f->job->first == f)
        f->job->first = NULL;
    f->ignored = true;
    f->dirty = CHANGE_NONE;
    if (!f->in_flight && !f->in_batch)
        pfire_free(p, f);
}

/* It stays in the store and is read again when its time or its turn comes. */
static void evict(struct planner *p, struct pfire *f)
{
    planner_tomb(p, &f->row.uid, f->row.seq, f->durable_rev);
    pfire_free(p, f);
}

void pfire_set_target(struct planner *p, struct pfire *f, bool on)
{
    if (on && !f->target && f->job->spec) {
        f->target = ptarget_get(p, f->job->spec);
        if (f->target) {
            f->target->waiting++;
            list_push_back(&f->target->fires, &f->target_link);
        }
    } else if (!on && f->target) {
        struct ptarget *t = f->target;
        f->target = NULL;
        t->waiting--;
        list_remove(&f->target_link);
        ptarget_put(p, t);
    }
}

void pfire_dirty(struct planner *p, struct pfire *f, enum change_op op)
{
    if (!(f->dirty == CHANGE_INSERT && op == CHANGE_UPDATE))
        f->dirty = op;
    f->moved = false;
    f->job->fires_dirty = true;
    pjob_link_dirty(p, f->job);
}

/* --- booking --------------------------------------------------------------------------------------------------------- */

/* Whose it is and by what it is delivered; a later attempt may go by another definition. */
void pfire_name(struct pfire *f)
{
    const struct pjob *j = f->job;
    memcpy(f->row.ns, j->row.ns, sizeof(f->row.ns));
    memcpy(f->row.id, j->row.id, sizeof(f->row.id));
    if (!j->spec)
        return;
    job_callee(j->spec, f->row.service);
    f->row.version = j->row.version;
}

static void number(struct pjob *j, struct pfire *f)
{
    pfire_name(f);
    f->row.seq = f->row.seq_last = ++j->row.counts.seq;
    f->booked = true;
    j->row.scheduled += f->row.kind == FIRE_KIND_SCHEDULED;
    j->row.backfill_pending += f->row.kind == FIRE_KIND_BACKFILL;
}

/* A new row, waiting for its first attempt, which comes when the row is durable. The caller advances the job. */
struct pfire *pfire_book(struct planner *p, struct pjob *j, int64_t due_ms, enum fire_kind kind)
{
    struct pfire *f = pfire_new(p, j, NULL);
    if (!f)
        return NULL;
    f->row.kind = kind;
    f->row.state = FIRE_STATE_WAITING;
    f->row.due_ms = f->row.due_last_ms = due_ms;
    f->row.jitter_ms = kind == FIRE_KIND_SCHEDULED ? job_jitter_ms(j->spec, &j->row.uid, due_ms) : 0;
    f->row.wake_ms = due_ms + f->row.jitter_ms;
    f->row.first_ms = p->now_ms > f->row.wake_ms ? p->now_ms : f->row.wake_ms;
    f->row.started_ms = f->row.finished_ms = f->row.attempt_ms = f->row.until_ms = RECORD_NONE;
    number(j, f);
    pfire_set_target(p, f, true);
    pfire_dirty(p, f, CHANGE_INSERT);
    return f;
}

static void hold(struct planner *p, struct pfire *f)
{
    f->row.state = FIRE_STATE_HELD;
    f->row.attempts = f->delivery.attempt;
    f->row.wake_ms = p->now_ms;
    memcpy(f->row.holder, p->member, sizeof(f->row.holder));
    pfire_dirty(p, f, f->durable_rev || f->in_batch ? CHANGE_UPDATE : CHANGE_INSERT);
}

void pfire_mark_running(struct planner *p, struct pfire *f)
{
    if (f->in_flight && !f->settled && !f->ignored && !f->ended && f->row.state == FIRE_STATE_WAITING)
        hold(p, f);
}

/* The unbooked fire gets its number and row, and the job goes on to its next due. */
static void book_first(struct planner *p, struct pjob *j)
{
    struct pfire *f = j->first;
    j->first = NULL;
    number(j, f);
    pfire_set_target(p, f, true);
    pfire_dirty(p, f, CHANGE_INSERT);
    pjob_advance(p, j, j->has_next_due, j->next_due_ms);
    pjob_dirty(p, j, CHANGE_UPDATE);
}

void pfire_book_first(struct planner *p, struct pjob *j)
{
    struct pfire *f = j->first;
    if (!f)
        return;
    book_first(p, j);
    hold(p, f);
}

static bool is_mine(const struct planner *p, const struct fire_row *row)
{
    return strcmp(row->holder, p->member) == 0;
}

/* Before the slot goes to another member: what is in flight stays ours to end, told by its row. */
void pfire_hold_all(struct planner *p, struct pjob *j)
{
    pfire_book_first(p, j);
    LIST_FOR (l, &j->fires) {
        struct pfire *f = container_of(l, struct pfire, job_link);
        f->ignored |= f->in_flight && f->settled; /* its row says already what comes next */
        if (f->marked) {
            f->row.attempts--; /* at most once, and not yet begun: it may begin where it goes */
            pfire_wait_until(p, f, p->now_ms);
        }
        if (!f->in_flight || f->ignored || f->ended)
            continue;
        if (f->row.state != FIRE_STATE_HELD)
            hold(p, f);
        pfire_revoke(p, f);
    }
}

void pfire_keep_trace(struct pfire *f, const char *text)
{
    size_t bytes = text ? strlen(text) : 0;
    f->row.trace = text ? mem_try_strndup(text, bytes, NULL) : NULL;
    f->row.trace_bytes = f->row.trace ? bytes : 0;
}

/* --- starting -------------------------------------------------------------------------------------------------------- */

void pfire_revoke(struct planner *p, struct pfire *f)
{
    if (!f->in_flight || f->revoked)
        return;
    f->revoked = true;
    planner_act(p, PLANNER_DO_REVOKE)->delivery = &f->delivery;
}

void pfire_abort(struct planner *p, struct pfire *f)
{
    if (!f->in_flight)
        return;
    f->revoked = true;
    struct planner_action *a = planner_act(p, PLANNER_DO_REVOKE);
    a->delivery = &f->delivery;
    a->abort = true;
}

static void deliver(struct planner *p, struct pfire *f)
{
    struct pjob *j = f->job;
    struct delivery *d = &f->delivery;
    f->spec = job_spec_ref(j->spec);
    d->uid = j->row.uid;
    d->seq = f->row.seq;
    d->attempt = f->row.state == FIRE_STATE_HELD ? f->row.attempts : f->row.attempts + 1;
    d->slot = j->row.slot;
    d->epoch = p->slots[j->row.slot].epoch;
    d->due_ms = f->row.due_ms;
    d->from_ms = f->row.due_ms + f->row.jitter_ms;
    d->coalesced = f->row.coalesced;
    d->spec = f->spec;
    d->payload = f->row.payload ? f->row.payload : f->spec->payload;
    d->payload_bytes = f->row.payload ? f->row.payload_bytes : f->spec->payload_bytes;
    d->content_type = f->row.payload ? "application/json" : f->spec->content_type;
    d->trace = f->row.trace;
    d->trace_bytes = f->row.trace_bytes;
    d->booked = f->booked;
    d->parts = j->spec->callback.to == JOB_TO_ONE ? NULL : f->parts;
    f->round_begun = false;
    d->since_ms = d->attempt == 1 && f->row.reason != FIRE_REASON_NO_ENDPOINT
                      ? f->row.due_ms + f->row.jitter_ms
                      : f->row.wake_ms;
    d->driver = NULL;
    pfire_out(p, f);
    f->in_flight = true;
    f->begun_ms = p->now_ms;
    f->revoked = f->settled = f->by_hand = f->marked = false;
    p->stats.in_flight++;
    planner_act(p, PLANNER_DO_DELIVER)->delivery = d;
}

void pfire_first(struct planner *p, struct pjob *j)
{
    struct pfire *f = pfire_new(p, j, NULL);
    if (!f) {
        j->not_before_ms = p->now_ms + PLANNER_AGAIN_MS;
        return;
    }
    f->row.kind = FIRE_KIND_SCHEDULED;
    f->row.seq = f->row.seq_last = j->row.counts.seq + 1;
    f->row.due_ms = f->row.due_last_ms = j->row.due_ms;
    f->row.jitter_ms = (uint32_t)(j->row.wake_ms - j->row.due_ms);
    f->row.first_ms = p->now_ms;
    f->row.started_ms = f->row.finished_ms = f->row.attempt_ms = f->row.until_ms = RECORD_NONE;
    j->first = f;
    deliver(p, f);
}

static bool fire_clean(const struct pfire *f)
{
    return f->durable_rev > 0 && f->dirty == CHANGE_NONE && !f->in_batch;
}

/* What its row says counts, and nothing of it is under way. */
static bool rests(const struct pfire *f)
{
    return pjob_active(f->job) && !f->ended && !f->ignored && !f->in_flight && fire_clean(f);
}

static bool is_paused(const struct pfire *f)
{
    return f->job->row.state == JOB_STATE_PAUSED && f->row.kind != FIRE_KIND_RUN && !f->by_hand;
}

/* A paused job makes no attempts but those asked for by hand; none is made by a definition, or after a pause, that is not durable, or
 * before what a reply asks for is done. */
static bool may_run(const struct pfire *f)
{
    return rests(f) && !is_paused(f) && !f->job->write_dirty && !f->job->asked;
}

static bool may_evict(const struct planner *p, const struct pfire *f)
{
    const struct pjob *j = f->job;
    bool paused = is_paused(f) && f->row.state == FIRE_STATE_WAITING;
    return j->state == PJOB_LIVE && fire_clean(f) && !f->moved && !f->in_flight && !f->parts_stale &&
           !j->moving && j->spec->concurrency == JOB_ALLOW &&
           (paused || f->row.wake_ms >= planner_edge_ms(p));
}

static bool spills(struct planner *p, struct pfire *f)
{
    struct ptarget *t = f->target;
    if (!t || t->waiting <= p->options.retry_window || !fire_clean(f) || f->in_flight || f->parts_stale ||
        f->job->moving || f->job->spec->concurrency != JOB_ALLOW || list_linked(&f->start.link))
        return false;
    if (t->spilled_ms > f->row.wake_ms)
        t->spilled_ms = f->row.wake_ms;
    if (!wheel_timer_armed(&p->spill_timer))
        planner_arm(p, &p->spill_timer, p->now_ms + PLANNER_READ_RETRY_MS);
    return true;
}

/* May drop F from memory. */
void pfire_arm(struct planner *p, struct pfire *f)
{
    if (list_linked(&f->start.link))
        return;
    bool waiting = f->row.state == FIRE_STATE_WAITING, open = f->row.state == FIRE_STATE_OPEN;
    if (((waiting && (may_evict(p, f) || spills(p, f))) || (open && may_evict(p, f))) && !f->ended)
        evict(p, f);
    else if (open && rests(f))
        planner_arm(p, &f->timer, f->row.wake_ms);
    else if (may_run(f) && waiting)
        planner_arm(p, &f->timer, f->row.wake_ms);
    else if (may_run(f) && f->marked) /* and it goes, whatever the definition has become */
        planner_start_later(p, &f->start, p->now_ms);
    else
        wheel_cancel(p->wheel, &f->timer);
}

void pjob_arm_fires(struct planner *p, struct pjob *j)
{
    LIST_FOR_SAFE(l, &j->fires)
    pfire_arm(p, container_of(l, struct pfire, job_link));
}

/* One that waits for its due, not for the callee, is left alone. The row is right as it is: it says when the fire would have gone
 * without us. */
bool pfire_release(struct planner *p, struct pfire *f)
{
    bool waits = f->row.attempts > 0 || f->row.reason == FIRE_REASON_NO_ENDPOINT;
    if (!waits || f->row.state != FIRE_STATE_WAITING || f->in_flight || f->ended || f->ignored ||
        list_linked(&f->start.link) ||
        (f->job->row.state == JOB_STATE_PAUSED && f->row.kind != FIRE_KIND_RUN))
        return false;
    if (f->row.wake_ms > p->now_ms)
        f->row.wake_ms = p->now_ms;
    f->moved = f->start.released = true;
    wheel_cancel(p->wheel, &f->timer);
    if (may_run(f))
        planner_start_later(p, &f->start, f->row.wake_ms);
    return true; /* what may not run yet is armed when it is written */
}

void pfire_timer(struct wheel_timer *t, void *arg)
{
    struct pfire *f = container_of(t, struct pfire, timer);
    struct planner *p = arg;
    bool open = f->row.state == FIRE_STATE_OPEN && rests(f);
    if (!open && (!may_run(f) || f->row.state != FIRE_STATE_WAITING))
        return;
    if (f->row.wake_ms > p->now_ms)
        planner_arm(p, t, f->row.wake_ms);
    else if (open)
        popen_silent(p, f);
    else
        planner_start_later(p, &f->start, f->row.wake_ms);
}

bool pfire_spent(const struct pfire *f)
{
    const struct job_spec *spec = f->job->spec;
    bool parts = spec->callback.to != JOB_TO_ONE && f->row.parts; /* each has its own attempt */
    return spec->at_most_once && !parts && f->row.attempts > f->row.attempts_before;
}

void pfire_start(struct planner *p, struct pfire *f)
{
    struct pjob *j = f->job;
    if (!may_run(f))
        return;
    if (f->row.state == FIRE_STATE_WAITING && f->row.wake_ms > p->now_ms) { /* the clock was set back */
        planner_arm(p, &f->timer, f->row.wake_ms);
        return;
    }
    if (f->row.state == FIRE_STATE_WAITING && pfire_spent(f)) { /* it may not be tried again any more */
        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_AT_MOST_ONCE, NULL);
        return;
    }
    if (f->row.state == FIRE_STATE_WAITING && !pfire_has_turn(p, f)) {
        pfire_take_place(p, f);
        planner_arm(p, &f->timer, p->now_ms + PLANNER_AGAIN_MS);
        return;
    }
    if (!pparts_open(p, f))
        return;
    bool sends = j->spec->callback.to == JOB_TO_ONE || f->row.parts;
    if (f->row.state == FIRE_STATE_WAITING && j->spec->at_most_once && sends) {
        /* Who dies with it in flight must leave it marked, or the next owner would send it again. */
        f->delivery.attempt = f->row.attempts + 1;
        hold(p, f);
        f->marked = true;
        return;
    }
    deliver(p, f);
}

/* --- rows that were read --------------------------------------------------------------------------------------------- */

static int dead_index(const struct planner *p, const char *member)
{
    for (size_t i = 0; i < p->dead_count; i++)
        if (strcmp(p->dead[i].member, member) == 0)
            return (int)i;
    return -1;
}

static bool holder_dead(const struct planner *p, const struct pfire *f)
{
    int i = dead_index(p, f->row.holder);
    return i >= 0 && f->read_gen >= p->dead[i].gen;
}

static struct pfire *orphan_of(const struct planner *p, const struct fire_row *row)
{
    LIST_FOR (l, &p->orphans) {
        const struct pjob *j = container_of(l, struct pjob, slot_link);
        LIST_FOR (m, &j->fires) {
            struct pfire *f = container_of(m, struct pfire, job_link);
            if (f->booked && !f->ignored && f->row.seq == row->seq && memcmp(&f->row.uid, &row->uid, 16) == 0)
                return f;
        }
    }
    return NULL;
}

/* Nobody will end the attempt that its row tells of: the next one comes at once. No write is needed first, for the dead
 * write no more. */
static void release_held(struct planner *p, struct pfire *f)
{
    struct attempt lost = {.status = -1, .started_ms = f->row.wake_ms, .retry_after_ms = -1};
    foreign_remove(p, f);
    snprintf(lost.error, sizeof(lost.error), "the agent that made this attempt is gone");
    pend_log(p, &f->row, &lost);
    memset(f->row.holder, 0, sizeof(f->row.holder));
    if (f->job->spec->at_most_once) {
        pfire_end(p, f, FIRE_OUTCOME_DEAD, FIRE_REASON_AT_MOST_ONCE, NULL);
        return;
    }
    f->row.state = FIRE_STATE_WAITING;
    f->row.wake_ms = p->now_ms;
    pfire_set_target(p, f, true);
    pfire_arm(p, f);
}

bool pfire_asks(const struct pfire *f)
{
    return f->row.state == FIRE_STATE_REPORTED && f->row.outcome == FIRE_OUTCOME_SUCCEEDED &&
           f->row.until_ms != RECORD_NONE;
}

void pfire_count_reported(struct planner *p, struct pfire *f)
{
    struct pjob *j = f->job;
    f->row.state = FIRE_STATE_ENDED;
    f->row.until_ms = RECORD_NONE;
    f->row.wake_ms = pfire_keep_until_ms(p, &f->row);
    memset(f->row.holder, 0, sizeof(f->row.holder));
    f->ended = true;
    if (f->row.outcome == FIRE_OUTCOME_DEAD) { /* its holder may have had no definition left to copy */
        pfire_name(f);
        f->letter_until_ms = planner_add_ms(f->row.wake_ms, PLANNER_COPY_MORE_MS);
    }
    pend_count(p, j, &f->row, 1);
    pfire_dirty(p, f, CHANGE_UPDATE);
    pjob_unwritten(p, j);
    pjob_dirty(p, j, CHANGE_UPDATE);
}

bool pfire_is_held(const struct planner *p, const struct pfire *f)
{
    if (f->row.state != FIRE_STATE_HELD)
        return false;
    return is_mine(p, &f->row) ? orphan_of(p, &f->row) != NULL : !holder_dead(p, f);
}

void pfire_loaded(struct planner *p, struct pfire *f)
{
    foreign_remove(p, f);
    switch (f->row.state) {
    case FIRE_STATE_WAITING:
        pfire_set_target(p, f, true);
        if (pfire_is_released(p, f) && pfire_release(p, f))
            break;
        pfire_arm(p, f);
        break;
    case FIRE_STATE_HELD:
        if (pfire_is_held(p, f))
            foreign_add(p, f);
        else
            release_held(p, f);
        break;
    case FIRE_STATE_REPORTED:
        if (pfire_asks(f))
            f->ended = f->job->asked = true; /* papi_asked() counts it */
        else
            pfire_count_reported(p, f);
        break;
    case FIRE_STATE_OPEN:
        f->moved = popen_deadline_ms(p, f) > f->row.wake_ms;
        f->row.wake_ms = popen_deadline_ms(p, f);
        pfire_arm(p, f);
        break;
    case FIRE_STATE_ENDED:
    case FIRE_STATE_COUNT_:
        break;
    }
}

/* A dead member writes no more, but it may have written between our reading its row and its death: what it held is read
 * again before anything of it is tried again. */
void planner_on_member_dead(struct planner *p, const char *member)
{
    if (strcmp(member, p->member) == 0 || dead_index(p, member) >= 0)
        return;
    p->gen++;
    snprintf(p->dead[p->dead_next].member, RECORD_MEMBER_MAX, "%s", member);
    p->dead[p->dead_next].gen = p->gen;
    p->dead_next = (p->dead_next + 1) % PLANNER_DEAD_MAX;
    if (p->dead_count < PLANNER_DEAD_MAX)
        p->dead_count++;
    if (!list_empty(&p->foreign))
        planner_load_foreign(p);
}

/* F, an orphan, has ended in the store. If the slot is ours again its row may be here as it was before, in a job that is
 * still being read: that copy is worth nothing, the wake-up reads it anew. */
static void forget_copy(struct planner *p, const struct pfire *f)
{
    struct pjob *j = pjob_by_uid(p, &f->row.uid);
    if (!j || j->state != PJOB_READING)
        return;
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *copy = container_of(l, struct pfire, job_link);
        if (copy->row.seq == f->row.seq && !copy->in_flight)
            pfire_drop(p, copy);
    }
}

/* What of a job's write concerned F is durable. */
void pfire_written(struct planner *p, struct pfire *f)
{
    if (f->job->state == PJOB_GONE && !f->in_flight && !f->ignored && f->dirty == CHANGE_NONE) {
        f->ended = true;
        forget_copy(p, f);
        planner_wake_owner(p, f->row.slot);
    }
    if (f->ended || f->ignored)
        pfire_leave(p, f);
    else
        pfire_arm(p, f);
}
