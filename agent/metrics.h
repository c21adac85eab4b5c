/* Metrics of the agent, printed as Prometheus text (exposition format 0.0.4). The families stand in one table; series appear when
 * they are first counted. The number of series a family may have is bounded: beyond it labels become "other". Any thread. */
#ifndef CARILLON_AGENT_METRICS_H
#define CARILLON_AGENT_METRICS_H

#include <stddef.h>
#include <stdint.h>

struct buf;
struct metrics;

enum metric {
    METRIC_FIRES,             /* namespace, outcome, reason */
    METRIC_ATTEMPTS,          /* transport, result */
    METRIC_FIRE_LATENESS,     /* histogram, seconds */
    METRIC_FIRE_STAGE,        /* stage; histogram */
    METRIC_CALLBACK_DURATION, /* service; histogram */
    METRIC_JOBS,              /* state; gauge */
    METRIC_JOBS_LOADED,
    METRIC_JOBS_REPLANNED,
    METRIC_PENDING_FIRES,
    METRIC_RETRIES_WAITING, /* service */
    METRIC_IN_FLIGHT,       /* service */
    METRIC_DEAD_LETTERS,    /* namespace */
    METRIC_OLDEST_OVERDUE,
    METRIC_STORE_BATCH_ROWS, /* histogram */
    METRIC_STORE_DURATION,   /* op; histogram */
    METRIC_STORE_ERRORS,     /* class */
    METRIC_RAFT_VOTERS,
    METRIC_RAFT_VOTERS_REACHED,
    METRIC_RAFT_LEADER,
    METRIC_RAFT_LEADER_KNOWN,
    METRIC_RAFT_TERM,
    METRIC_RAFT_LAG,
    METRIC_SLOTS_OWNED,
    METRIC_SLOTS_UNOWNED,
    METRIC_MEMBERS,
    METRIC_LEASE_REMAINING,
    METRIC_CLOCK_OFFSET,
    METRIC_HANDOVER_DURATION, /* histogram */
    METRIC_ENDPOINTS_EJECTED, /* service */
    METRIC_API_DURATION,      /* route, code; histogram */
    METRIC_REQUESTS_REJECTED, /* code */
    METRIC_LOOP_TURN,         /* histogram */
    METRIC_CONFIG_RELOAD_OK,
    METRIC_CERT_EXPIRY,
    METRIC_BUILD_INFO, /* version, commit */
    METRIC_LOG_LINES_DROPPED,
    METRIC_TRACE_SPANS,       /* result */
    METRIC_EVENTS_DROPPED,    /* listener */
    METRIC_AUDIT_DIFFERENCES, /* kind */
    METRIC_AUDIT_JOBS,
    METRIC_COUNT_
};

#define METRIC_LABELS_MAX 3

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);

/* Label values in the order of the family's labels; NULL for the rest. */
void metrics_add(struct metrics *m, enum metric family, const char *a, const char *b, const char *c,
                 double value);
void metrics_set(struct metrics *m, enum metric family, const char *a, const char *b, const char *c,
                 double value);
/* To a gauge whose label sets are bounded: what came after the last one it keeps is summed up as "other". */
void metrics_set_more(struct metrics *m, enum metric family, const char *a, double value);
/* Drop all series of a gauge family before it is set anew, so that what is gone disappears. */
void metrics_clear(struct metrics *m, enum metric family);
void metrics_observe(struct metrics *m, enum metric family, const char *a, const char *b, double value);

void metrics_print(struct metrics *m, struct buf *out);

#endif
