/* One round of the audit: all jobs of the store in small pages, each judged by agent/core/audit; those that its row alone does not
 * clear are read again with their fires. Work is bounded: a page at a time, a pause between two. Loop thread only. */
#ifndef CARILLON_AGENT_AUDITOR_H
#define CARILLON_AGENT_AUDITOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/audit.h"
#include "agent/store/store.h"

struct auditor;
struct loop;

#define AUDITOR_PAGE_JOBS 100

struct auditor_summary {
    size_t jobs;        /* looked at */
    size_t unsettled;   /* of those, so busy that their row and their fires were never read at rest */
    size_t differences; /* jobs of which found() was told */
    bool truncated;     /* there are more than the bounds allow */
};

/* What points somewhere is borrowed for the round, but NS, which is copied. */
struct auditor_options {
    struct loop *loop;
    const struct store_ops *store;
    void *store_self;
    const char *ns;     /* NULL: all namespaces */
    const char *tzdata; /* of the zones that the store reads definitions with; NULL: unknown */
    int64_t (*now_ms)(void *arg);
    int64_t keep_for_ms; /* ended fires may be forgotten after this */
    int64_t pause_ms;    /* between two pages */
    size_t jobs_max;     /* 0: no bound */
    uint64_t time_max_ms;
    void (*found)(void *arg, const struct job_row *row, const struct audit_result *result);
    /* Once, unless it was stopped; the auditor is gone then. E's code is ERR_OK, or the round ended early for it. */
    void (*done)(void *arg, const struct auditor_summary *summary, const struct err *e);
    void *arg;
};

/* Begins at once; DONE never runs before this has returned. */
struct auditor *auditor_begin(const struct auditor_options *options);
/* Nothing more is told. Call it before the store is closed, which ends what is being read. */
void auditor_stop(struct auditor *a);

#endif
