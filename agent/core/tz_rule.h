/* The footer of a TZif file: a POSIX TZ string with the extensions of RFC 9636 section 3.3.1 (hours -167 to 167), as in
 * "CET-1CEST,M3.5.0,M10.5.0/3". Used by tz.c only. */
#ifndef CARILLON_CORE_TZ_RULE_H
#define CARILLON_CORE_TZ_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"

enum tz_rule_form {
    TZ_RULE_JULIAN, /* Jn: day 1-365, 29 February is never counted */
    TZ_RULE_DAY,    /* n: day 0-365 */
    TZ_RULE_WEEK,   /* Mm.w.d */
    TZ_RULE_COUNT_
};

struct tz_rule_date {
    enum tz_rule_form form;
    unsigned day; /* of the year, or of the week (0 Sunday) */
    unsigned week;
    unsigned month;
    int32_t time_s; /* wall time of that day, may lie outside it */
};

struct tz_rule {
    int32_t std_s; /* offsets, east positive */
    bool has_dst;
    int32_t dst_s;
    struct tz_rule_date dst_from; /* in standard wall time */
    struct tz_rule_date dst_to;   /* in summer wall time */
};

/* ERR_INVALID. */
int tz_rule_parse(const char *s, size_t len, struct tz_rule *ret, struct err *e);

/* The instants in YEAR at which summer time begins and ends; R must have one. */
int64_t tz_rule_dst_from_s(const struct tz_rule *r, int64_t year);
int64_t tz_rule_dst_to_s(const struct tz_rule *r, int64_t year);

#endif
