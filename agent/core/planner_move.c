#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

/* --- gaining --------------------------------------------------------------------------------------------------------- */

void planner_on_slots_gained(struct planner *p, const uint16_t *slots, const uint64_t *epochs, size_t count)
{
    uint16_t *gained = mem_new_array(uint16_t, count ? count : 1);
    size_t n = 0;
    p->gen++;
    for (size_t i = 0; i < count; i++) {
        struct pslot *s = &p->slots[slots[i]];
        if (s->state != PSLOT_NONE) {
            if (s->epoch < epochs[i]) /* adopted anew: the same jobs under a higher epoch */
                s->epoch = epochs[i];
            continue;
        }
        assert(list_empty(&s->jobs) && !s->parked);
        s->state = PSLOT_HELD;
        s->epoch = epochs[i];
        s->gained = p->gen;
        pzones_gained(p, s);
        gained[n++] = slots[i];
        p->stats.slots_owned++;
    }
    if (n > 0)
        planner_load_slots(p, gained, n);
    mem_free(gained);
}

/* --- losing ---------------------------------------------------------------------------------------------------------- */

static void slot_none(struct planner *p, struct pslot *s)
{
    assert(list_empty(&s->jobs));
    s->state = PSLOT_NONE;
    s->epoch = 0;
    if (s->loading > 0)
        p->stats.slots_loading--;
    s->loading = 0;
    s->whole = s->whole_asked = 0;
    p->stats.slots_owned--;
    papi_unpark(p, s);
}

/* What the store knows, or may know, as held by us stays ours to end, as an orphan; its report is guarded by our name, so it
 * changes nothing that was decided without us. */
static void keep_held(struct planner *p, struct pjob *j)
{
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        bool held = f->guard[0] != '\0' || (f->in_batch && f->row.state == FIRE_STATE_HELD);
        bool report = f->in_flight || f->dirty != CHANGE_NONE || f->in_batch;
        if (!f->booked || f->ignored || !held || !report)
            pfire_drop(p, f);
    }
}

static void job_lost(struct planner *p, struct pjob *j)
{
    LIST_FOR (l, &j->fires)
        pfire_revoke(p, container_of(l, struct pfire, job_link));
    keep_held(p, j);
    p->stats.unwritten -= j->unwritten;
    j->unwritten = 0;
    j->op = CHANGE_NONE;
    j->moving = j->deleting = false;
    j->lost = true;
    pjob_gone(p, j);
    planner_batch_forget(p, j);
    pjob_link_dirty(p, j);
}

static void move_without(struct pmove *m, uint16_t slot)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->slots_count; i++) {
        if (m->slots[i] == slot)
            continue;
        m->slots[kept] = m->slots[i];
        m->epochs[kept++] = m->epochs[i];
    }
    m->slots_count = kept;
}

void planner_on_slots_lost(struct planner *p, const uint16_t *slots, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct pslot *s = &p->slots[slots[i]];
        if (s->state == PSLOT_NONE)
            continue;
        LIST_FOR (m, &p->moves) /* one that is in a batch already is sorted out by its answer */
            if (!planner_batch_has_move(p, container_of(m, struct pmove, link)))
                move_without(container_of(m, struct pmove, link), slots[i]);
        while (!list_empty(&s->jobs))
            job_lost(p, container_of(list_first(&s->jobs), struct pjob, slot_link));
        slot_none(p, s);
    }
    planner_load_pump(p);
}

/* --- moving ---------------------------------------------------------------------------------------------------------- */

void pmove_free(struct pmove *m)
{
    list_remove(&m->link);
    mem_free(m->slots);
    mem_free(m->epochs);
    mem_free(m);
}

static void freeze(struct planner *p, struct pjob *j)
{
    j->moving = true;
    planner_start_cancel(p, &j->start);
    if (j->state != PJOB_READING)
        wheel_cancel(p->wheel, &j->timer);
    if (j->state == PJOB_LIVE) {
        pfire_hold_all(p, j);
        LIST_FOR_SAFE(l, &j->fires)
        {
            struct pfire *f = container_of(l, struct pfire, job_link);
            planner_start_cancel(p, &f->start);
            wheel_cancel(p->wheel, &f->timer);
        }
    }
    if (j->state != PJOB_READING)
        pjob_unlink_dirty(p, j);
    pjob_link_dirty(p, j);
}

void planner_on_move(struct planner *p, const struct planner_event *event)
{
    struct pmove *m = mem_new(struct pmove);
    m->slots = mem_new_array(uint16_t, event->slots_count ? event->slots_count : 1);
    m->epochs = mem_new_array(uint64_t, event->slots_count ? event->slots_count : 1);
    strncpy(m->successor, event->member, sizeof(m->successor) - 1);
    list_push_back(&p->moves, &m->link);
    for (size_t i = 0; i < event->slots_count; i++) {
        struct pslot *s = &p->slots[event->slots[i]];
        if (s->state != PSLOT_HELD)
            continue;
        s->state = PSLOT_MOVING;
        m->slots[m->slots_count] = event->slots[i];
        m->epochs[m->slots_count++] = s->epoch;
        LIST_FOR (l, &s->jobs)
            freeze(p, container_of(l, struct pjob, slot_link));
    }
}

/* It is ours no more: what is left here are the attempts that run, to be reported when they end. */
static void give_away(struct planner *p, struct pjob *j)
{
    LIST_FOR_SAFE(l, &j->fires)
    {
        struct pfire *f = container_of(l, struct pfire, job_link);
        bool ours = f->booked && !f->ignored && (f->in_flight || f->dirty != CHANGE_NONE || f->in_batch);
        if (!ours)
            pfire_drop(p, f);
    }
    if (j->state == PJOB_LIVE)
        j->op = CHANGE_NONE;
    j->moving = false;
    j->deleting = false;
    pjob_gone(p, j);
    pjob_link_dirty(p, j);
}

static void tell_moved(struct planner *p, const struct pmove *m, const struct slot_change *changes,
                       bool moved)
{
    uint16_t *slots = mem_new_array(uint16_t, m->slots_count ? m->slots_count : 1);
    uint64_t *epochs = mem_new_array(uint64_t, m->slots_count ? m->slots_count : 1);
    planner_trash(p, mem_free, slots);
    planner_trash(p, mem_free, epochs);
    size_t n = 0;
    for (size_t i = 0; i < m->slots_count; i++) {
        if (changes[i].changed != moved)
            continue;
        slots[n] = m->slots[i];
        epochs[n++] = moved ? m->epochs[i] + 1 : m->epochs[i];
    }
    if (n == 0 && !(moved && m->slots_count == 0))
        return;
    struct planner_action *a = planner_act(p, PLANNER_DO_MOVED);
    a->ok = moved;
    a->slots = slots;
    a->epochs = epochs;
    a->slots_count = n;
    char *member = mem_strdup(m->successor);
    planner_trash(p, mem_free, member);
    a->member = member;
}

/* A slot that did not change as asked is not ours under the epoch that we knew either: it is given up all the same. If
 * the store still names us it is adopted anew. */
void planner_move_done(struct planner *p, struct pmove *m, const struct slot_change *changes)
{
    for (size_t i = 0; i < m->slots_count; i++) {
        struct pslot *s = &p->slots[m->slots[i]];
        if (s->state != PSLOT_MOVING)
            continue; /* lost meanwhile */
        while (!list_empty(&s->jobs))
            give_away(p, container_of(list_first(&s->jobs), struct pjob, slot_link));
        slot_none(p, s);
    }
    tell_moved(p, m, changes, true);
    tell_moved(p, m, changes, false);
    planner_load_pump(p);
    pmove_free(m);
}
