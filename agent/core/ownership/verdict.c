/* Dead at once: a member whose process two others find gone: nothing listens at its address any more, or somebody else does. */
#include "agent/core/ownership/ownership_private.h"

#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"
#include "agent/core/hashring.h"

static struct member *suspectable(struct ownership *o, const char *id)
{
    struct member *m = member_find(o, id);
    return m && m != o->me && m->state == MEMBER_ALIVE ? m : NULL;
}

/* A third member alive in the store, whether or not we can reach it: one whose own way out is broken sees everybody refused
 * and must not be believed while there is anybody to contradict. */
static bool third_exists(const struct ownership *o, const struct member *victim)
{
    for (size_t i = 0; i < o->members_count; i++) {
        const struct member *m = o->members[i];
        if (m != o->me && m != victim && m->state == MEMBER_ALIVE)
            return true;
    }
    return false;
}

static struct member *pick_witness(struct ownership *o, const struct member *victim)
{
    struct member *picked = NULL;
    uint64_t seen = 0;
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m == o->me || m == victim || m->state != MEMBER_ALIVE || m->refused || m->here)
            continue; /* who is asked at our own address is ourselves */
        if (rng_below(&o->rng, ++seen) == 0)
            picked = m;
    }
    return picked;
}

static void ask(struct ownership *o, struct member *m)
{
    struct member *witness = m->asks_left > 0 ? pick_witness(o, m) : NULL;
    if (!witness)
        return;
    m->asks_left--;
    m->question = ++o->questions;
    struct ownership_action *a = act(o, OWNERSHIP_DO_ASK, m);
    a->via = witness->id;
    a->question = m->question;
}

void declare(struct ownership *o, struct member *m, bool by_refusal)
{
    say(o, "declaring %s dead: %s", m->id,
        !by_refusal              ? "its lease is over"
        : m->here || m->replaced ? "another process listens at its address"
                                 : "connections are refused");
    m->declaring = true;
    m->by_refusal = by_refusal;
    struct ownership_action *a = act(o, OWNERSHIP_DO_DECLARE, m);
    a->beat = m->beat;
    a->yes = by_refusal;
}

/* Two living members may have been given one address by mistake, and either may answer there: but who lives beats. */
static bool is_silent(const struct member *m)
{
    return m->silent_ms >= OWNERSHIP_SILENT_MS;
}

/* All that a verdict needs; what is missing is asked for. The beat has to be one sent after the refusal: it shows the last
 * beat of the victim (the declaration compares it) and that our own way to the store works now. */
static void judge(struct ownership *o, struct member *m)
{
    if (!m->refused || m->declaring || (m->replaced && !is_silent(m)))
        return;
    if (third_exists(o, m) && (m->witnessed_ms == NEVER || o->now_ms - m->witnessed_ms > OWNERSHIP_FRESH_MS))
        return;
    if (o->verdict_ms != NEVER && o->now_ms - o->verdict_ms < OWNERSHIP_VERDICT_MS)
        return;
    if (o->beat_ok_no <= m->refused_no || o->now_ms - o->beat_ok_sent_ms > OWNERSHIP_FRESH_MS) {
        o->want_beat = true;
        return;
    }
    o->verdict_before_ms = o->verdict_ms;
    o->verdict_ms = o->now_ms;
    declare(o, m, true);
}

static void refused(struct ownership *o, struct member *m)
{
    if (!m->refused) {
        m->refused = true;
        m->refused_no = o->issued;
        m->witnessed_ms = NEVER;
        o->want_beat = true;
    }
    m->probed_ms = o->now_ms;
    m->asks_left = ASKS_A_ROUND;
    ask(o, m);
    judge(o, m);
}

static void probe(struct ownership *o, struct member *m)
{
    m->probing = true;
    m->probed_ms = o->now_ms;
    act(o, OWNERSHIP_DO_PROBE, m);
}

void verdict_refused(struct ownership *o, const struct ownership_event *ev)
{
    struct member *m = suspectable(o, ev->member);
    if (m && (!m->refused || m->replaced)) {
        m->replaced = false;
        refused(o, m);
    }
}

static void cleared(struct member *m)
{
    m->refused = m->replaced = false;
    m->question = 0;
    m->witnessed_ms = NEVER;
}

void verdict_up(struct ownership *o, const struct ownership_event *ev)
{
    struct member *m = member_find(o, ev->member);
    if (!m || m->here)
        return;
    bool was_refused = m->refused;
    cleared(m);
    if (was_refused && m->state == MEMBER_ALIVE) /* it was gone a moment ago: who is there now? */
        probe(o, m);
}

/* Where we listen ourselves there is nothing to look at: whose address that was is gone. */
static void renew(struct ownership *o, struct member *m)
{
    if (m->here)
        refused(o, m);
    else
        probe(o, m);
}

/* Each second, after a beat: a suspicion is renewed by a fresh look or forgotten. */
void verdict_round(struct ownership *o)
{
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m == o->me || m->state != MEMBER_ALIVE || !(m->refused || m->here))
            continue;
        if (!m->refused || o->now_ms - m->probed_ms >= OWNERSHIP_BEAT_MS)
            renew(o, m);
        judge(o, m);
    }
}

static void answer_look(struct ownership *o, struct look *l, bool yes)
{
    struct ownership_action *a = act(o, OWNERSHIP_DO_LOOKED, l->member);
    a->question = l->question;
    a->yes = yes;
    member_point(&l->member, NULL);
}

/* We are the second witness: our word is a look of our own, now. */
void verdict_look(struct ownership *o, const struct ownership_event *ev)
{
    struct member *m = suspectable(o, ev->member);
    if (!m) {
        struct ownership_action *a = act(o, OWNERSHIP_DO_LOOKED, NULL);
        a->question = ev->question;
        return;
    }
    struct look *l = &o->looks[o->looks_next++ % LOOKS_MAX];
    if (l->member)
        answer_look(o, l, false);
    member_point(&l->member, m);
    l->question = ev->question;
    act(o, OWNERSHIP_DO_PROBE, m);
}

void verdict_probed(struct ownership *o, const struct ownership_event *ev)
{
    struct member *m = member_find(o, ev->member);
    if (!m)
        return;
    bool yes = ev->ok && (ev->yes || ev->replaced);
    for (size_t i = 0; i < LOOKS_MAX; i++)
        if (o->looks[i].member == m)
            answer_look(o, &o->looks[i], yes && (ev->yes || is_silent(m)));
    if (!m->probing)
        return;
    m->probing = false;
    m->replaced = ev->ok && ev->replaced;
    if (!yes)
        cleared(m);
    else if (suspectable(o, ev->member))
        refused(o, m);
}

void verdict_looked(struct ownership *o, const struct ownership_event *ev)
{
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m->question == 0 || m->question != ev->question)
            continue;
        m->question = 0;
        if (m->state != MEMBER_ALIVE || !m->refused)
            return;
        if (!ev->ok) {
            ask(o, m); /* another one, if any */
        } else if (ev->yes) {
            m->witnessed_ms = o->now_ms;
            judge(o, m);
        }
        return;
    }
}

static void tell_dead(struct ownership *o, const struct member *dead)
{
    const char **ids = scratch(o, o->members_count, sizeof(*ids));
    size_t count = 0;
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (m != o->me && m->state == MEMBER_ALIVE && !m->refused)
            ids[count++] = m->id;
    }
    if (count == 0)
        return;
    struct ownership_action *a = act(o, OWNERSHIP_DO_TELL_DEAD, dead);
    a->members = ids;
    a->members_count = count;
}

void verdict_declared(struct ownership *o, const struct ownership_event *ev)
{
    struct member *m = member_find(o, ev->member);
    if (!m || !m->declaring)
        return;
    m->declaring = false;
    if (ev->ok && ev->yes) {
        if (m->state == MEMBER_ALIVE) { /* else a beat was faster */
            member_died(o, m);
            ring_update(o);
        }
        tell_dead(o, m);
        return;
    }
    if (m->state != MEMBER_ALIVE)
        return;
    /* Its beat went on: no verdict was given, and the next needs what a newer beat shows. */
    if (ev->ok && m->by_refusal)
        o->verdict_ms = o->verdict_before_ms;
    m->refused_no = o->issued;
    o->want_beat = true;
}

/* News only makes us look. */
void verdict_told(struct ownership *o, const struct ownership_event *ev)
{
    const struct member *m = member_find(o, ev->member);
    if (!m || m->state != MEMBER_DEAD)
        o->want_beat = true;
}

bool consul_lists(const struct ownership *o, const struct member *m)
{
    for (size_t i = 0; i < o->consul_count; i++)
        if (o->consul[i] == m->hash)
            return true;
    return false;
}

/* Only hashes are kept: Consul may list a member before its row is in the store, and a row decides who exists. */
void verdict_consul(struct ownership *o, const struct ownership_event *ev)
{
    bool *before = scratch(o, o->members_count, sizeof(*before));
    for (size_t i = 0; i < o->members_count; i++)
        before[i] = consul_lists(o, o->members[i]);
    mem_free(o->consul);
    o->consul_count = ev->listed_count < HASHRING_MEMBERS_MAX ? ev->listed_count : HASHRING_MEMBERS_MAX;
    o->consul = mem_new_array(uint64_t, o->consul_count + 1);
    for (size_t i = 0; i < o->consul_count; i++) {
        o->consul[i] = XXH3_64bits(ev->listed[i], strlen(ev->listed[i]));
        if (!member_find(o, ev->listed[i]))
            o->want_beat = true;
    }
    o->key_held = ev->key_held;
    for (size_t i = 0; i < o->members_count; i++) {
        struct member *m = o->members[i];
        if (before[i] && m != o->me && m->state == MEMBER_ALIVE && !consul_lists(o, m))
            probe(o, m);
    }
    ring_update(o);
}
