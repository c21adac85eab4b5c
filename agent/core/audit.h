/* What should have happened to a job, derived anew from its definition and compared with what is recorded of it. Pure; any thread.
 * What is not recorded any more is not judged: successes older than the newer half of the ring, and dues from before the definition was
 * last changed. */
#ifndef CARILLON_CORE_AUDIT_H
#define CARILLON_CORE_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/job.h"

#define AUDIT_OVERDUE_MS \
    INT64_C(60000)          /* so long, beside the callback's timeout, a due may be without a record */
#define AUDIT_DUES_MAX 1000 /* looked for in the record of one job */

enum audit_verdict {
    AUDIT_FINE,
    AUDIT_LOOK,      /* the row alone does not tell: ask again with the job's fires */
    AUDIT_COUNTS,    /* more fires ended than were booked */
    AUDIT_PENDING,   /* there are not as many unfinished fires as the counts say */
    AUDIT_WRONG_DUE, /* the next due is none of the schedule's */
    AUDIT_LOST_DUES, /* the schedule had dues of which nothing is recorded */
    AUDIT_OVERDUE,   /* the next due is long over, nothing stands in its way, and nothing is recorded */
    AUDIT_VERDICT_COUNT_
};

struct audit_job {
    const struct job_spec *spec; /* bound */
    const struct job_row *row;
    const struct fire_row *fires; /* newest first, as they were with this very row; NULL: not read */
    size_t fires_count;
    bool fires_known; /* they were read */
    bool fires_all;   /* and are all there are */
    int64_t now_ms;
    int64_t from_ms; /* ended fires of dues before may be forgotten */
    /* Of the zones the definition is bound to; NULL: unknown. Jobs planned with other zones are judged
     * less */
    const char *tzdata;
};

struct audit_result {
    enum audit_verdict verdict;
    uint64_t count;  /* dues or fires that differ */
    int64_t due_ms;  /* the first due it is about; RECORD_NONE: none */
    char detail[96]; /* for people */
};

void audit_job(const struct audit_job *in, struct audit_result *ret);

/* "counts", "pending", "wrong_due", "lost_dues", "overdue"; NULL for the others. */
const char *audit_verdict_name(enum audit_verdict v);

#endif
