#include "agent/core/schedule.h"

#include <assert.h>
#include <string.h>

#include <xxhash.h>

#include "agent/core/schedule_impl.h"

const char *schedule_note_name(enum schedule_note note)
{
    static const char *const names[] = {NULL, "short_month", "dst_repeat", "dst_gap"};
    assert((unsigned)note < SCHEDULE_NOTE_COUNT_);
    return names[note];
}

void schedule_free(struct schedule *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++)
        mem_free(s->members[i].text);
    mem_free(s);
}

size_t schedule_expr_count(const struct schedule *s)
{
    return s->count;
}

const char *schedule_expr_text(const struct schedule *s, size_t i)
{
    assert(i < s->count);
    return s->members[i].text;
}

const struct tz *schedule_tz(const struct schedule *s)
{
    return s->tz;
}

bool schedule_is_recurring(const struct schedule *s)
{
    return (schedule_members(s, MEMBER_CRON) | schedule_members(s, MEMBER_EVERY)) != 0;
}

uint32_t schedule_members(const struct schedule *s, enum member_kind kind)
{
    uint32_t which = 0;
    for (size_t i = 0; i < s->count; i++)
        which |= (uint32_t)(s->members[i].kind == kind) << i;
    return which;
}

/* ---- one expression -------------------------------------------------------------------------------------------- */

/* A candidate of a cron expression, in seconds. */
struct found {
    bool ok;
    int64_t at_s;
    enum schedule_note note;
};

/* Match among the wall seconds [from_s, to_s), shown with OFFSET_S. */
static struct found find_walls(const struct cron *c, int64_t from_s, int64_t to_s, int32_t offset_s)
{
    struct found f = {.ok = false};
    int64_t wall_s;
    bool moved;
    if (!cron_next(c, from_s, to_s, &wall_s, &moved))
        return f;
    return (struct found){true, wall_s - offset_s, moved ? SCHEDULE_NOTE_SHORT_MONTH : SCHEDULE_NOTE_NONE};
}

/* Wall times that the clock shows in SPAN, from FROM_S (an instant) on; of those shown again, the pass that S wants. */
static struct found find_shown(const struct schedule *s, const struct cron *c, const struct tz_span *span,
                               int64_t from_s, int64_t to_s)
{
    int64_t lo_s = from_s + span->offset_s, hi_s = to_s + span->offset_s;
    if (!c->elapsed && s->repeat == SCHEDULE_REPEAT_FIRST)
        lo_s = max_i64(lo_s, span->shown_to_s);
    if (!c->elapsed && s->repeat == SCHEDULE_REPEAT_SECOND)
        hi_s = min_i64(hi_s, span->again_from_s);
    struct found f = find_walls(c, lo_s, hi_s, span->offset_s);
    int64_t wall_s = f.at_s + span->offset_s;
    if (f.ok && (wall_s < span->shown_to_s || wall_s >= span->again_from_s))
        f.note = SCHEDULE_NOTE_DST_REPEAT;
    return f;
}

/* Wall times that the clock jumped over when SPAN began, each moved by the length of the jump. */
static struct found find_jumped(const struct schedule *s, const struct cron *c, const struct tz_span *span,
                                int64_t from_s, int64_t to_s)
{
    struct found none = {.ok = false};
    if (c->elapsed || s->gap == SCHEDULE_GAP_SKIP || span->offset_s <= span->before_s)
        return none;
    int64_t lo_s = max_i64(from_s + span->before_s, span->shown_to_s);
    int64_t hi_s = min_i64(span->start_s + span->offset_s, to_s + span->before_s);
    if (s->repeat != SCHEDULE_REPEAT_FIRST)
        hi_s = min_i64(hi_s, span->again_from_s); /* shown after all, when the clock is set back */
    struct found f = find_walls(c, lo_s, hi_s, span->before_s);
    f.note = SCHEDULE_NOTE_DST_GAP;
    return f;
}

static bool cron_due(const struct schedule *s, const struct cron *c, int64_t from_s, int64_t end_s,
                     struct schedule_due *ret)
{
    while (from_s < end_s) {
        struct tz_span span;
        tz_span_at(s->tz, from_s, &span);
        int64_t to_s = min_i64(span.end_s, end_s);
        struct found f = find_shown(s, c, &span, from_s, to_s);
        struct found jumped = find_jumped(s, c, &span, from_s, to_s);
        if (jumped.ok && (!f.ok || jumped.at_s < f.at_s))
            f = jumped;
        if (f.ok) {
            *ret = (struct schedule_due){f.at_s * 1000, f.note};
            return true;
        }
        from_s = to_s;
    }
    return false;
}

bool member_next(const struct schedule *s, const struct member *m, int64_t from_ms, struct schedule_due *ret)
{
    from_ms = max_i64(from_ms, s->starts_ms);
    if (from_ms >= s->ends_ms)
        return false;
    if (m->kind == MEMBER_CRON)
        return cron_due(s, &m->cron, ceil_s(from_ms), ceil_s(s->ends_ms), ret);
    int64_t due_ms = m->at_ms;
    if (m->kind == MEMBER_EVERY && from_ms > due_ms)
        due_ms += (from_ms - due_ms + m->interval_ms - 1) / m->interval_ms * m->interval_ms;
    if (due_ms < from_ms || due_ms >= s->ends_ms)
        return false;
    *ret = (struct schedule_due){due_ms, SCHEDULE_NOTE_NONE};
    return true;
}

/* ---- the union ------------------------------------------------------------------------------------------------- */

static bool keep_earlier(struct schedule_due *best, bool have, const struct schedule_due *due)
{
    if (!have || due->due_ms < best->due_ms || (due->due_ms == best->due_ms && due->note < best->note))
        *best = *due;
    return true;
}

bool schedule_next_of(const struct schedule *s, uint32_t which, int64_t from_ms, struct schedule_due *ret)
{
    struct schedule_due best, due;
    bool have = false;
    for (size_t i = 0; i < s->count; i++)
        if (which >> i & 1 && member_next(s, &s->members[i], from_ms, &due))
            have = keep_earlier(&best, have, &due);
    if (have)
        *ret = best;
    return have;
}

bool schedule_next(const struct schedule *s, int64_t after_ms, struct schedule_due *ret)
{
    return after_ms < SCHEDULE_END_MS && schedule_next_of(s, UINT32_MAX, after_ms + 1, ret);
}

bool schedule_next_accepted(const struct schedule *s, int64_t accepted_ms, int64_t after_ms,
                            struct schedule_due *ret)
{
    if (after_ms >= SCHEDULE_END_MS || accepted_ms >= SCHEDULE_END_MS)
        return false;
    struct schedule_due recurring, instant;
    uint32_t at = schedule_members(s, MEMBER_AT);
    int64_t past_ms =
        schedule_is_recurring(s) ? accepted_ms - 1 : max_i64(accepted_ms, SCHEDULE_MIN_MS) - SCHEDULE_PAST_MS;
    bool have = schedule_next_of(s, ~at, max_i64(after_ms, accepted_ms) + 1, &recurring);
    if (schedule_next_of(s, at, max_i64(after_ms, past_ms) + 1, &instant))
        have = keep_earlier(&recurring, have, &instant);
    if (have)
        *ret = recurring;
    return have;
}

/* Doubling steps back until a due lies ahead, then halving: every probe is one schedule_next_of. */
bool schedule_last_of(const struct schedule *s, uint32_t which, int64_t before_ms, struct schedule_due *ret)
{
    struct schedule_due found, due;
    int64_t end_ms = min_i64(before_ms, s->ends_ms);
    int64_t from_ms = end_ms;
    for (int64_t step_ms = 1000;; step_ms *= 2) {
        if (from_ms <= s->starts_ms)
            return false;
        from_ms = max_i64(end_ms - step_ms, s->starts_ms);
        if (schedule_next_of(s, which, from_ms, &found) && found.due_ms < end_ms)
            break;
    }
    int64_t none_from_ms = end_ms; /* no due in [none_from_ms, end_ms); found.due_ms < none_from_ms */
    while (found.due_ms + 1 < none_from_ms) {
        int64_t middle_ms = found.due_ms + 1 + (none_from_ms - found.due_ms - 1) / 2;
        if (schedule_next_of(s, which, middle_ms, &due) && due.due_ms < none_from_ms)
            found = due;
        else
            none_from_ms = middle_ms;
    }
    *ret = found;
    return true;
}

bool schedule_last_before(const struct schedule *s, int64_t before_ms, struct schedule_due *ret)
{
    return schedule_last_of(s, UINT32_MAX, before_ms, ret);
}

int64_t schedule_jitter_ms(const uint8_t uid[16], int64_t due_ms, int64_t jitter_max_ms)
{
    assert(jitter_max_ms >= 0);
    uint8_t key[24];
    memcpy(key, uid, 16);
    for (unsigned i = 0; i < 8; i++)
        key[16 + i] = (uint8_t)((uint64_t)due_ms >> (8 * i));
    return (int64_t)(XXH64(key, sizeof(key), 0) % ((uint64_t)jitter_max_ms + 1));
}
