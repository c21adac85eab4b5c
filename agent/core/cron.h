/* One cron expression, compiled to bit sets over wall-clock fields. Knows nothing of zones: it matches wall seconds
 * (tz.h), and schedule.c says when a clock shows them. Pure values, any thread. */
#ifndef CARILLON_CORE_CRON_H
#define CARILLON_CORE_CRON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"

#define CRON_DAY_S 86400

struct cron {
    uint64_t seconds;
    uint64_t minutes;
    uint32_t hours;
    uint16_t months;         /* bit 1-12 */
    uint32_t days;           /* bit 1-31 */
    uint32_t days_from_last; /* bit n: L-n; bit 0: L */
    uint32_t near_days;      /* bit d: dW, the weekday (Monday to Friday) nearest to d within the month */
    bool last_workday;       /* LW */
    uint8_t weekdays;        /* bit 0 (Sunday) to 6 */
    uint8_t last_weekdays;   /* bit w: wL */
    uint8_t nth_weekdays[7]; /* [w] bit n: w#n */
    bool days_star; /* the field begins with '*' or '?'; if neither does, either field makes a day match */
    bool weekdays_star;
    bool elapsed;          /* the hour field begins with '*': follows elapsed time when clocks are set */
    bool short_month_last; /* a day that a month lacks is its last day */
    uint8_t uneven;        /* bit of enum cron_field: a step after '*' that does not divide its field */
};

enum cron_field {
    CRON_SECOND,
    CRON_MINUTE,
    CRON_HOUR,
    CRON_DAY,
    CRON_MONTH,
    CRON_WEEKDAY,
    CRON_FIELD_COUNT_
};

/* "minute", "day of week" …: as error texts name them. */
const char *cron_field_name(enum cron_field f);

struct cron_options {
    bool short_month_last;
    const char *ns; /* what H hashes: must stay the same for ever, or such jobs move */
    const char *id;
};

/* Why a text was refused: one sentence that names the field and what it allows, in printable ASCII. */
struct cron_error {
    size_t offset; /* in the text */
    char text[200];
};

/* Compile 5 fields, or 6 with leading seconds, or one of @yearly @annually @monthly @weekly @daily @midnight @hourly
 * @minutely. Names are taken in either case; ranges may wrap around (FRI-MON, 22-2). Refuses what no date can match.
 * 0, or -ERR_INVALID with PROBLEM filled. */
int cron_parse(const char *text, size_t len, const struct cron_options *o, struct cron *ret,
               struct cron_error *problem);

/* The days of MONTH (1-12) on which C is due, bit 1-31, whether or not the month field holds MONTH. RET_MOVED (may be
 * NULL): those due only because a day was missing (short_month_last). */
uint32_t cron_month_days(const struct cron *c, int64_t year, unsigned month, uint32_t *ret_moved);

unsigned cron_month_length(int64_t year, unsigned month);

/* First match in [from_s, end_s), wall seconds; false if there is none. RET_MOVED (may be NULL) as above. Takes time in
 * proportion to the months looked at, not to the seconds. */
bool cron_next(const struct cron *c, int64_t from_s, int64_t end_s, int64_t *ret_s, bool *ret_moved);

bool cron_matches(const struct cron *c, int64_t wall_s);

/* Whether any date of the Gregorian calendar (which repeats after 400 years) has a match. */
bool cron_is_possible(const struct cron *c);

/* Wall seconds in [from_s, end_s) that at least one of the N (1 to 32) expressions at C matches. Whole days are counted
 * at once; time in proportion to the days. */
uint64_t cron_count(const struct cron *const *c, size_t n, int64_t from_s, int64_t end_s);

#endif
