#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/planner_private.h"

#define CHECK(cond, what)                                                                \
    do {                                                                                 \
        if (!(cond)) {                                                                   \
            fprintf(stderr, "planner_validate: %s (%s:%d)\n", what, __FILE__, __LINE__); \
            abort();                                                                     \
        }                                                                                \
    } while (0)

struct seen {
    size_t jobs, fires, in_flight, foreign, unwritten, bytes, in_windows, out;
};

static void check_fire(const struct planner *p, const struct pfire *f, struct seen *seen)
{
    const struct pjob *j = f->job;
    CHECK(f->in_flight == (f->spec != NULL), "a delivery has its definition exactly while it is out");
    CHECK(!f->start.waits || list_linked(&f->start.link), "who waits for a token is in a line");
    CHECK(!list_linked(&f->start.link) || !f->in_flight, "what is started is not due");
    CHECK(f->dirty == CHANGE_NONE || f->booked, "only booked fires have rows to write");
    CHECK(f->dirty == CHANGE_NONE || j->fires_dirty, "a job knows of its fires' dirt");
    CHECK(!f->ignored || f->in_flight || f->in_batch || f->dirty != CHANGE_NONE,
          "a fire given up stays for what is out");
    CHECK(!f->booked || j->ghost || j->state == PJOB_GONE || j->deleting || f->ignored ||
              j->state != PJOB_LIVE || f->row.seq <= j->row.counts.seq,
          "a booked fire has a number its job has given");
    seen->fires++;
    seen->in_flight += f->in_flight;
    CHECK(!f->out || f->in_flight, "what counts as out is in flight");
    CHECK(list_linked(&f->target_link) == (f->target != NULL), "a target knows who waits in its window");
    seen->in_windows += f->target != NULL;
    seen->out += f->out != NULL;
    seen->foreign += list_linked(&f->foreign_link);
    seen->bytes += sizeof(*f) + fire_row_bytes(&f->row);
    (void)p;
}

static void check_job(const struct planner *p, const struct pjob *j, struct seen *seen)
{
    const struct job_counts *c = &j->row.counts;
    bool dirt = j->op != CHANGE_NONE || j->fires_dirty;
    CHECK(c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled <= c->seq, "counts add up");
    CHECK(!dirt || j->in_batch || list_linked(&j->dirty_link), "dirt is in line for a batch");
    CHECK(j->row.backfill_pending <= pjob_pending(j) || j->ghost || j->state != PJOB_LIVE,
          "fires of a backfill are among the pending ones");
    CHECK(j->state != PJOB_LIVE || (j->in_uids && ((j->in_keys && j->spec) || j->ghost)),
          "a live job is found by both keys");
    CHECK(!j->first || (list_linked(&j->first->job_link) && j->first->in_flight && !j->first->booked),
          "the first attempt is in flight and not booked");
    CHECK((j->api_state == PAPI_IDLE) || j->api, "an operation under way has its request");
    CHECK(j->state != PJOB_READING || j->read || list_linked(&j->dirty_link) || wheel_timer_armed(&j->timer),
          "a job being read is being read");
    if (j->in_uids)
        CHECK(pjob_by_uid(p, &j->row.uid) == j, "found by uid");
    if (j->in_keys)
        CHECK(pjob_by_key(p, j->row.ns, j->row.id) == j, "found by key");
    LIST_FOR (l, &j->fires) {
        const struct pfire *f = container_of(l, struct pfire, job_link);
        CHECK(f->job == j, "a fire knows its job");
        check_fire(p, f, seen);
    }
    CHECK(j->unwritten == 0 || dirt, "an end that is not written yet is going to be");
    CHECK((!j->joined && !j->joined_in_batch) || dirt || j->in_batch || j->moving,
          "who waits for something to be durable is right");
    seen->jobs++;
    seen->unwritten += j->unwritten + j->unwritten_in_batch;
    seen->bytes += j->bytes;
}

static void check_lines(const struct planner *p, const struct seen *seen)
{
    size_t paced = 0, waiting = 0, out = 0;
    for (struct map_iter it = {0}; map_next(&p->targets, &it);) {
        const struct ptarget *t = it.value;
        paced += list_length(&t->paced);
        waiting += t->waiting;
        out += t->out;
        CHECK(t->waiting == list_length(&t->fires), "a target's window is its list");
        CHECK(list_empty(&t->paced) || list_linked(&t->paced_link), "a line of starts is known");
        CHECK(list_empty(&t->paced) || wheel_timer_armed(&t->timer), "a line of starts moves on");
    }
    CHECK(out == seen->out, "deliveries of a target are counted");
    CHECK(waiting == seen->in_windows, "fires in a target's window are counted");
    CHECK(paced == p->paced_count, "paced starts are counted");
    CHECK(list_length(&p->ready) == p->ready_count, "ready starts are counted");
}

void planner_validate(const struct planner *p)
{
    struct seen seen = {0};
    size_t owned = 0, loading = 0, foreign = 0;
    for (uint32_t i = 0; i < p->options.slots; i++) {
        const struct pslot *s = &p->slots[i];
        owned += s->state != PSLOT_NONE;
        loading += s->loading > 0;
        foreign += s->foreign;
        CHECK(s->state != PSLOT_NONE || (list_empty(&s->jobs) && !s->loading && !s->parked),
              "a slot not held is empty");
        LIST_FOR (l, &s->jobs) {
            const struct pjob *j = container_of(l, struct pjob, slot_link);
            CHECK(j->row.slot == i, "a job is in its slot");
            CHECK(j->moving == (s->state == PSLOT_MOVING), "a job is frozen with its slot");
            check_job(p, j, &seen);
        }
    }
    LIST_FOR (l, &p->orphans)
        check_job(p, container_of(l, struct pjob, slot_link), &seen);
    check_lines(p, &seen);
    CHECK(list_length(&p->dirty) == p->dirty_count, "jobs in line for a batch are counted");
    CHECK(owned == p->stats.slots_owned, "slots are counted");
    CHECK(loading == p->stats.slots_loading, "slots being loaded are counted");
    CHECK(foreign == seen.foreign && foreign == list_length(&p->foreign), "fires held elsewhere are counted");
    CHECK(seen.jobs == p->stats.jobs_loaded, "jobs are counted");
    CHECK(seen.fires == p->stats.fires_loaded, "fires are counted");
    CHECK(seen.in_flight == p->stats.in_flight, "deliveries are counted");
    CHECK(seen.unwritten == p->stats.unwritten, "unwritten ends are counted");
    CHECK(seen.bytes == p->stats.memory_bytes, "memory is counted");
    static unsigned calls;
    if (calls++ % 16 == 0) /* it costs more than all the rest, and has its own model */
        wheel_validate(p->wheel);
}
