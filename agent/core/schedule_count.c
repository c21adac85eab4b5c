#include "agent/core/schedule.h"

#include "agent/core/schedule_impl.h"

static uint64_t count_by_steps(const struct schedule *s, uint32_t which, int64_t from_ms, int64_t to_ms,
                               uint64_t cap)
{
    uint64_t count = 0;
    struct schedule_due due = {.due_ms = from_ms - 1};
    while (count < cap && schedule_next_of(s, which, due.due_ms + 1, &due) && due.due_ms < to_ms)
        count++;
    return count;
}

static uint64_t count_every(const struct member *m, int64_t from_ms, int64_t to_ms)
{
    int64_t first_ms = m->at_ms;
    if (from_ms > first_ms)
        first_ms += (from_ms - first_ms + m->interval_ms - 1) / m->interval_ms * m->interval_ms;
    return first_ms < to_ms ? (uint64_t)((to_ms - 1 - first_ms) / m->interval_ms) + 1 : 0;
}

/* The part of SPAN in which wall times are shown once and none was jumped over: there days can be counted whole. */
static void quiet_part(const struct tz_span *span, int64_t *ret_from_s, int64_t *ret_to_s)
{
    int64_t from_s = span->start_s, to_s = span->end_s;
    if (span->shown_to_s != INT64_MIN)
        from_s = max_i64(from_s, span->shown_to_s - span->offset_s);
    if (span->offset_s > span->before_s)
        from_s = max_i64(from_s, span->start_s + span->offset_s - span->before_s);
    if (span->again_from_s != INT64_MAX)
        to_s = min_i64(to_s, span->again_from_s - span->offset_s);
    *ret_from_s = from_s;
    *ret_to_s = to_s;
}

static uint64_t count_cron(const struct schedule *s, uint32_t which, int64_t from_ms, int64_t to_ms,
                           uint64_t cap)
{
    const struct cron *c[SCHEDULE_EXPRS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++)
        if (which >> i & 1)
            c[n++] = &s->members[i].cron;
    uint64_t count = 0;
    int64_t from_s = ceil_s(from_ms), to_s = ceil_s(to_ms);
    while (from_s < to_s && count < cap) {
        struct tz_span span;
        int64_t quiet_s, quiet_end_s;
        tz_span_at(s->tz, from_s, &span);
        quiet_part(&span, &quiet_s, &quiet_end_s);
        int64_t until_s = min_i64(to_s, span.end_s);
        if (from_s < quiet_s)
            until_s = min_i64(until_s, quiet_s);
        else if (from_s < quiet_end_s)
            until_s = min_i64(until_s, quiet_end_s);
        if (from_s >= quiet_s && from_s < quiet_end_s)
            count += cron_count(c, n, from_s + span.offset_s, until_s + span.offset_s);
        else
            count += count_by_steps(s, which, from_s * 1000, until_s * 1000, cap - count);
        from_s = until_s;
    }
    return count;
}

/* Instants in the span that neither an earlier expression nor the recurring ones give as well. */
static uint64_t count_instants(const struct schedule *s, uint32_t recurring, int64_t from_ms, int64_t to_ms)
{
    uint64_t count = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct member *m = &s->members[i];
        uint32_t others = recurring | (schedule_members(s, MEMBER_AT) & ((UINT32_C(1) << i) - 1));
        struct schedule_due due;
        if (m->kind != MEMBER_AT || m->at_ms < from_ms || m->at_ms >= to_ms)
            continue;
        count += !(schedule_next_of(s, others, m->at_ms, &due) && due.due_ms == m->at_ms);
    }
    return count;
}

uint64_t schedule_count(const struct schedule *s, int64_t from_ms, int64_t to_ms, uint64_t cap)
{
    from_ms = max_i64(from_ms, s->starts_ms);
    to_ms = min_i64(to_ms, s->ends_ms);
    if (from_ms >= to_ms)
        return 0;
    uint32_t cron = schedule_members(s, MEMBER_CRON), every = schedule_members(s, MEMBER_EVERY);
    uint64_t count;
    if (every == 0)
        count = count_cron(s, cron, from_ms, to_ms, cap);
    else if (cron == 0 && __builtin_popcount(every) == 1)
        count = count_every(&s->members[__builtin_ctz(every)], from_ms, to_ms);
    else
        count = count_by_steps(s, cron | every, from_ms, to_ms, cap);
    count += count_instants(s, cron | every, from_ms, to_ms);
    return count < cap ? count : cap;
}
