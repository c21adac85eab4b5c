/* What the files schedule*.c share; nobody else includes it. */
#ifndef CARILLON_CORE_SCHEDULE_IMPL_H
#define CARILLON_CORE_SCHEDULE_IMPL_H

#include "agent/core/cron.h"
#include "agent/core/schedule.h"

enum member_kind { MEMBER_CRON, MEMBER_EVERY, MEMBER_AT, MEMBER_COUNT_ };

/* One expression. */
struct member {
    enum member_kind kind;
    struct cron cron;
    int64_t interval_ms; /* EVERY */
    int64_t at_ms;       /* AT; EVERY: the phase, in [0, interval_ms) */
    char *text;          /* canonical, owned by the schedule */
};

struct schedule {
    const struct tz *tz;
    enum schedule_gap gap;
    enum schedule_repeat repeat;
    int64_t starts_ms; /* within [SCHEDULE_MIN_MS, SCHEDULE_END_MS] */
    int64_t ends_ms;
    size_t count;
    struct member members[];
};

/* The first due of M that is at least FROM_MS (within S's bounds), or false. */
bool member_next(const struct schedule *s, const struct member *m, int64_t from_ms, struct schedule_due *ret);

/* The union over the members whose bit is set in WHICH. */
bool schedule_next_of(const struct schedule *s, uint32_t which, int64_t from_ms, struct schedule_due *ret);

/* The newest due before BEFORE_MS over the same. */
bool schedule_last_of(const struct schedule *s, uint32_t which, int64_t before_ms, struct schedule_due *ret);

/* Members of KIND, as bits. */
uint32_t schedule_members(const struct schedule *s, enum member_kind kind);

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A / 1000 rounded up; A not negative. */
static inline int64_t ceil_s(int64_t ms)
{
    return (ms + 999) / 1000;
}

#endif
