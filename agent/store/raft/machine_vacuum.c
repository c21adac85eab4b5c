/* Forgetting what is over. A command says what; what it says was looked up by whoever proposed it. */
#include <string.h>

#include "agent/store/raft/entry.h"
#include "agent/store/raft/machine_private.h"

/* Rows of a kind, or of a history, that one command removes. */
#define VACUUM_ROWS 500
/* Fires that one sweep looks at. */
#define SWEEP_ROWS 20000

static bool is_forgettable(const struct machine *m, const struct machine_member *member, int64_t now_ms)
{
    return member->row.dead && member->died_ms < now_ms - MACHINE_MEMBERS_KEPT_MS &&
           !machine_owns_slots(m, member->row.id);
}

static struct machine_fire *oldest_ended(const struct machine *m)
{
    return sorted_get(&m->fires_by_end, sorted_seek(&m->fires_by_end, NULL, false));
}

static struct machine_revision *oldest_revision(const struct machine *m)
{
    return sorted_get(&m->revisions_by_time, sorted_seek(&m->revisions_by_time, NULL, false));
}

static struct machine_copy *oldest_copy(const struct machine *m)
{
    return sorted_get(&m->copies_by_until, sorted_seek(&m->copies_by_until, NULL, false));
}

bool machine_wants_vacuum(const struct machine *m, int64_t now_ms)
{
    const struct machine_fire *fire = oldest_ended(m);
    const struct machine_revision *revision = oldest_revision(m);
    const struct machine_copy *copy = oldest_copy(m);
    for (size_t i = 0; i < m->members_count; i++)
        if (is_forgettable(m, &m->members[i], now_ms))
            return true;
    return (fire && fire->wake_ms < now_ms) || (copy && copy->until_ms < now_ms) ||
           (revision && revision->at_ms < now_ms - MACHINE_REVISIONS_KEPT_MS);
}

static void forget_old(struct machine *m, int64_t now_ms)
{
    size_t kept = 0;
    for (size_t i = 0; i < m->members_count; i++)
        if (!is_forgettable(m, &m->members[i], now_ms))
            m->members[kept++] = m->members[i];
    m->members_count = kept;
    struct machine_fire *fire;
    for (unsigned n = 0; n < VACUUM_ROWS && (fire = oldest_ended(m)) && fire->wake_ms < now_ms; n++)
        machine_fire_delete(m, fire);
    struct machine_copy *copy;
    for (unsigned n = 0; n < VACUUM_ROWS && (copy = oldest_copy(m)) && copy->until_ms < now_ms; n++)
        machine_copy_delete(m, copy);
    struct machine_revision *revision;
    for (unsigned n = 0; n < VACUUM_ROWS && (revision = oldest_revision(m)) &&
                         revision->at_ms < now_ms - MACHINE_REVISIONS_KEPT_MS;
         n++)
        machine_revision_delete(m, revision);
}

static bool is_bounded(const struct machine_fire *fire)
{
    return fire->ended && fire->outcome != FIRE_OUTCOME_DEAD;
}

static bool same_uid(const struct uid *a, const struct uid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* Newest first, as a history is kept. */
static void cut_history(struct machine *m, const struct machine_cut *cut)
{
    struct machine_key key = {.uid = cut->uid, .seq = cut->seq};
    struct sorted_at at = sorted_seek(&m->fires_by_seq, &key, true);
    for (unsigned n = 0; n < VACUUM_ROWS && sorted_prev(&m->fires_by_seq, &at);) {
        struct machine_fire *fire = sorted_get(&m->fires_by_seq, at);
        if (!same_uid(&fire->uid, &cut->uid))
            return;
        if (!is_bounded(fire))
            continue;
        key.seq = fire->seq;
        machine_fire_delete(m, fire);
        at = sorted_seek(&m->fires_by_seq, &key, false); /* the deletion has ended the place */
        n++;
    }
}

void machine_vacuum(struct machine *m, struct codec_in *in)
{
    int64_t now_ms = codec_get_i64(in);
    size_t cuts = (size_t)codec_get_u64(in, MACHINE_SWEEP_JOBS);
    if (!in->bad)
        forget_old(m, now_ms);
    for (size_t i = 0; i < cuts && !in->bad; i++) {
        struct machine_cut cut;
        command_get_cut(in, &cut);
        if (!in->bad)
            cut_history(m, &cut);
    }
}

/* --- looking for histories that are too long ------------------------------------------------------------------------ */

/* Whether UID has more than FIRES_MAX; ROWS counts what was looked at. */
static bool is_overlong(const struct machine *m, const struct uid *uid, uint32_t fires_max, unsigned *rows,
                        uint64_t *ret_seq)
{
    struct machine_key key = {.uid = *uid, .seq = UINT64_MAX};
    struct sorted_at at = sorted_seek(&m->fires_by_seq, &key, true);
    for (uint32_t kept = 0; *rows < SWEEP_ROWS && sorted_prev(&m->fires_by_seq, &at); ++*rows) {
        const struct machine_fire *fire = sorted_get(&m->fires_by_seq, at);
        if (!same_uid(&fire->uid, uid))
            return false;
        if (is_bounded(fire) && kept++ == fires_max) {
            *ret_seq = fire->seq;
            return true;
        }
    }
    return false;
}

size_t machine_sweep(const struct machine *m, uint32_t fires_max, struct uid *swept, struct machine_cut *ret)
{
    size_t count = 0;
    unsigned rows = 0;
    for (unsigned i = 0; fires_max > 0 && i < MACHINE_SWEEP_JOBS && rows < SWEEP_ROWS; i++) {
        struct machine_key key = {.uid = *swept, .seq = UINT64_MAX};
        const struct machine_fire *next =
            sorted_get(&m->fires_by_seq, sorted_seek(&m->fires_by_seq, &key, true));
        *swept = next ? next->uid : (struct uid){{0}}; /* at the end it begins anew */
        if (!next)
            break;
        if (is_overlong(m, swept, fires_max, &rows, &ret[count].seq))
            ret[count++].uid = *swept;
    }
    return count;
}
