/* Beats: the own lease and, by the same reads, everybody else's. */
#include "agent/core/ownership/ownership_private.h"

#include <string.h>

#include "agent/base/mem.h"

bool lease_valid(const struct ownership *o)
{
    return o->now_ms < o->view.lease_until_ms;
}

static void lease_set(struct ownership *o, int64_t until_ms)
{
    o->view.lease_until_ms = until_ms;
    o->lease_on = o->now_ms < until_ms;
    act(o, OWNERSHIP_DO_LEASE, NULL)->until_ms = o->lease_on ? until_ms : 0;
}

/* After every event: tell that the lease ran out, send the beat and the read that are due. */
void lease_run(struct ownership *o)
{
    if (o->lease_on && !lease_valid(o))
        lease_set(o, 0);
    if (o->agreed_ms != NEVER && o->now_ms >= o->agreed_ms) {
        o->agreed_ms = NEVER;
        o->want_beat = true;
    }
    if (!o->beat_no && (o->want_beat || o->now_ms >= o->beat_ms)) {
        o->want_beat = false;
        o->beat_no = ++o->issued;
        o->beat_issued_ms = o->now_ms;
        act(o, OWNERSHIP_DO_BEAT, NULL);
    }
    if (!o->read_no && (o->want_read || o->now_ms >= o->read_ms)) {
        o->want_read = false;
        o->read_no = ++o->issued;
        act(o, OWNERSHIP_DO_READ_SLOTS, NULL);
    }
}

/* The store's word that V is dead; or there is no row of it any more, which is the same. */
void member_died(struct ownership *o, struct member *m)
{
    if (m->state == MEMBER_ALIVE)
        say(o, "member %s is dead", m->id);
    m->state = MEMBER_DEAD;
    m->refused = false;
    act(o, OWNERSHIP_DO_MEMBER_DEAD, m);
    o->check_slots = true;
    o->want_read = true;
}

/* A count of 5 s runs only over reads that all succeeded and came without a gap: a store that was away, or a time when we
 * were stopped ourselves, says nothing about anybody. It begins when the answer is here, which is later than any beat that
 * the answer shows; that it is still the same at the end is checked by the store itself, by DECLARE's comparison. */
static void member_seen(struct ownership *o, struct member *m, const struct ownership_member *row)
{
    m->listed = true;
    m->here = row->here;
    m->weight = row->weight;
    m->ring_version = row->ring_version;
    m->silent_ms = m->state == MEMBER_ALIVE && row->beat == m->beat ? m->silent_ms + o->run_ms : 0;
    if (m->state == MEMBER_UNKNOWN) {
        m->state = MEMBER_ALIVE;
        m->since_ms = o->now_ms;
    }
    if (o->run_broken || row->beat != m->beat)
        m->since_ms = o->now_ms;
    m->beat = row->beat;
}

static void member_missing(struct ownership *o, struct member *m, uint64_t no)
{
    m->listed = false;
    if (m->state == MEMBER_UNKNOWN && no > m->as_of)
        member_died(o, m);
    if (m->state != MEMBER_ALIVE)
        return;
    /* Somebody removed the row of a living member. It finds out at its next beat; wait as for a lease all the same. */
    if (o->run_broken)
        m->since_ms = o->now_ms;
    if (o->now_ms - m->since_ms >= OWNERSHIP_LEASE_MS)
        member_died(o, m);
}

/* Dead or unknown ones that nothing points to. */
static void members_sweep(struct ownership *o)
{
    size_t kept = 0;
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m == o->me || m->listed || m->refs > 0 || m->chunk.state != CHUNK_NONE ||
            m->state == MEMBER_ALIVE) {
            o->members[kept++] = m;
            continue;
        }
        mem_free(m->chunk.slots);
        mem_free(m);
    }
    o->members_count = kept;
}

static void read_members(struct ownership *o, const struct ownership_event *ev, uint64_t no)
{
    for (size_t i = 0; i < o->members_count; i++)
        o->members[i]->listed = false;
    for (size_t i = 0; i < ev->members_count; i++) {
        const struct ownership_member *row = &ev->members[i];
        struct member *m = member_find(o, row->id);
        if (!m)
            m = member_add(o, row->id);
        if (!row->dead && m->state != MEMBER_DEAD)
            member_seen(o, m, row);
        else if (m != o->me) {
            m->listed = true;
            if (m->state != MEMBER_DEAD)
                member_died(o, m);
        }
    }
    for (size_t i = 0; i < o->members_count; i++)
        if (!o->members[i]->listed && o->members[i] != o->me)
            member_missing(o, o->members[i], no);
}

/* Declare those whose lease is over, and be back exactly when the next one can be. */
static void lease_others(struct ownership *o)
{
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m == o->me || m->state != MEMBER_ALIVE || !m->listed || m->declaring)
            continue;
        int64_t over_ms = m->since_ms + OWNERSHIP_LEASE_MS;
        if (o->now_ms >= over_ms)
            declare(o, m, false);
        else if (over_ms < o->beat_ms)
            o->beat_ms = over_ms;
    }
}

static void rejoin(struct ownership *o)
{
    say(o, "declared dead by the others: this member stops and joins again");
    lease_set(o, 0);
    slots_lose_all(o);
    o->rejoining = true;
    act(o, OWNERSHIP_DO_REJOIN, NULL);
}

static void beat_failed(struct ownership *o)
{
    o->run_broken = true;
    o->want_beat = false; /* a store that refuses at once would be asked in a tight loop */
    int64_t due_ms = o->beat_issued_ms + OWNERSHIP_BEAT_RETRY_MS;
    o->beat_ms = due_ms > o->now_ms ? due_ms : o->now_ms;
}

void lease_beat(struct ownership *o, const struct ownership_event *ev)
{
    uint64_t no = o->beat_no;
    if (no == 0)
        return;
    o->beat_no = 0;
    if (!ev->ok) {
        beat_failed(o);
        return;
    }
    if (!ev->alive) {
        rejoin(o);
        return;
    }
    int64_t until_ms = ev->sent_ms + OWNERSHIP_LEASE_MS - OWNERSHIP_LEASE_MARGIN_MS;
    if (until_ms > o->view.lease_until_ms)
        lease_set(o, until_ms);
    o->beat_ms = o->beat_issued_ms + OWNERSHIP_BEAT_MS;
    o->beat_ok_no = no;
    o->beat_ok_sent_ms = ev->sent_ms;
    if (o->last_read_ms == NEVER || o->now_ms - o->last_read_ms > OWNERSHIP_READ_GAP_MS)
        o->run_broken = true;
    o->run_ms = o->run_broken ? 0 : o->now_ms - o->last_read_ms;
    o->last_read_ms = o->now_ms;
    read_members(o, ev, no);
    o->run_broken = false;
    if (o->now_ms < o->moves_ms)
        o->moves_ms = o->now_ms;
    ring_update(o);
    slots_named(o, ev, no);
    lease_others(o);
    verdict_round(o);
    members_sweep(o);
}
