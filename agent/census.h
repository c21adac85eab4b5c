/* Gauges that are too dear for each look at /metrics, counted every half minute: dead letters by namespace and jobs by state, from the
 * store, by the member that owns the first slot, so that the sum over the cluster is theirs; and when the first of this agent's own
 * certificates ends. Jobs are read page by page with a pause after each, so that a million of them are no load, but a round of
 * a quarter of an hour: what is told is the last round that came to its end. And the audit: all jobs against
 * what is recorded of them, slowly, by the same member. Loop thread only. */
#ifndef CARILLON_AGENT_CENSUS_H
#define CARILLON_AGENT_CENSUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/store/store.h"

struct census;
struct err;
struct loop;
struct metrics;

#define CENSUS_EVERY_MS       30000
#define CENSUS_CERTS_MAX      8
#define CENSUS_PAUSE_MS       1000
#define CENSUS_PAGE_JOBS      1000
#define CENSUS_AUDIT_PAUSE_MS 1000 /* between two pages of the audit */

/* All borrowed for the census's life but what CERTS points to, which is copied. */
struct census_options {
    struct loop *loop;
    struct metrics *metrics;
    int64_t every_ms; /* 0: CENSUS_EVERY_MS */
    int64_t pause_ms; /* after a page of jobs; 0: CENSUS_PAUSE_MS */
    size_t page_jobs; /* 0: CENSUS_PAGE_JOBS */
    /* Files of certificates, some may be NULL. */
    const char *certs[CENSUS_CERTS_MAX];
    /* Whether the cluster's are ours to count, and the store they are in; false: then its metrics are not here. */
    bool (*counts)(void *arg, const struct store_ops **ret_store, void **ret_self);
    int64_t audit_every_ms; /* 0: no audit */
    int64_t keep_for_ms;    /* of ended fires */
    const char *tzdata;     /* as auditor_options */
    int64_t (*now_ms)(void *arg);
    void *arg;
};

/* Begins at once. ERR_IO: no thread for reading the certificates. */
int census_new(const struct census_options *options, struct census **ret, struct err *e);
/* Before the store is closed: nothing more is begun. NULL does nothing. */
void census_stop(struct census *c);
/* After the store has been closed, as it answers what it was asked. NULL does nothing. */
void census_free(struct census *c);

#endif
