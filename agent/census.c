#include "agent/census.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/auditor.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/io/cert.h"
#include "agent/io/loop.h"
#include "agent/io/worker.h"
#include "agent/metrics.h"

static const struct log_ctx log_here = {.module = "census"};

struct census {
    struct census_options o;
    char *certs[CENSUS_CERTS_MAX];
    struct loop_timer *timer, *audit_timer;
    struct auditor *auditor; /* a round is under way */
    unsigned differences[AUDIT_VERDICT_COUNT_];
    struct worker_pool *pool; /* NULL: there is no certificate */
    struct work reading;
    int64_t expiry_s; /* what was read; INT64_MAX: nothing could be */
    struct loop_timer *jobs_timer;
    uint64_t jobs[JOB_STATE_COUNT_]; /* of the pages so far */
    char after_ns[RECORD_NS_MAX];    /* the place in the list; "": its beginning */
    char after_id[RECORD_ID_MAX];
    struct store_filter filter; /* the store's while it reads a page */
    bool counting;              /* a round has begun */
    bool read_busy, store_busy, jobs_busy, stopped;
};

/* --- dead letters -------------------------------------------------------------------------------------------------- */

static void on_dead(void *arg, const struct err *e, const struct store_dead *counts, size_t count)
{
    struct census *c = arg;
    c->store_busy = false;
    if (e->code != ERR_OK) {
        if (e->code != ERR_CANCELLED)
            log_warn(&log_here, "dead letters were not counted this time", "error=%s", LOGQ(e->text));
        return;
    }
    metrics_clear(c->o.metrics, METRIC_DEAD_LETTERS);
    for (size_t i = 0; i < count; i++)
        metrics_set(c->o.metrics, METRIC_DEAD_LETTERS, counts[i].ns, NULL, NULL, (double)counts[i].count);
}

static void count_letters(struct census *c)
{
    const struct store_ops *store;
    void *self;
    if (c->store_busy)
        return;
    if (!c->o.counts(c->o.arg, &store, &self)) {
        metrics_clear(c->o.metrics, METRIC_DEAD_LETTERS);
        return;
    }
    c->store_busy = true;
    store->count_dead(self, on_dead, c);
}

/* --- jobs ---------------------------------------------------------------------------------------------------------- */

static void end_round(struct census *c)
{
    c->counting = false;
    memset(c->jobs, 0, sizeof(c->jobs));
    c->after_ns[0] = c->after_id[0] = '\0';
}

static void tell_jobs(struct census *c)
{
    for (int s = 0; s < JOB_STATE_COUNT_; s++)
        metrics_set(c->o.metrics, METRIC_JOBS, job_state_name((enum job_state)s), NULL, NULL,
                    (double)c->jobs[s]);
}

static void on_jobs(void *arg, const struct err *e, struct store_page *page)
{
    struct census *c = arg;
    c->jobs_busy = false;
    if (e->code != ERR_OK) {
        if (e->code != ERR_CANCELLED)
            log_warn(&log_here, "jobs were not counted this time", "error=%s", LOGQ(e->text));
        end_round(c);
        return;
    }
    for (size_t i = 0; i < page->jobs_count; i++)
        c->jobs[job_row_shown_state(&page->jobs[i].row)]++;
    memcpy(c->after_ns, page->next_ns, sizeof(c->after_ns));
    memcpy(c->after_id, page->next_id, sizeof(c->after_id));
    if (!page->more) {
        tell_jobs(c);
        end_round(c);
    } else if (!c->stopped) {
        loop_timer_arm(c->jobs_timer, c->o.pause_ms);
    }
}

static void count_page(void *arg)
{
    struct census *c = arg;
    const struct store_ops *store;
    void *self;
    if (!c->o.counts(c->o.arg, &store, &self)) {
        end_round(c);
        tell_jobs(c); /* none: the sum over the members is the cluster's */
        return;
    }
    c->filter = (struct store_filter){.state = -1,
                                      .last_outcome = -1,
                                      .after_ns = c->after_ns[0] ? c->after_ns : NULL,
                                      .after_id = c->after_ns[0] ? c->after_id : NULL,
                                      .limit = c->o.page_jobs};
    c->jobs_busy = true;
    store->list_jobs(self, &c->filter, on_jobs, c);
}

static void count_jobs(struct census *c)
{
    if (c->counting)
        return;
    c->counting = true;
    count_page(c);
}

/* --- certificates -------------------------------------------------------------------------------------------------- */

/* On the pool's thread. */
static void read_certs(struct work *w, void *thread_context)
{
    struct census *c = container_of(w, struct census, reading);
    (void)thread_context;
    c->expiry_s = INT64_MAX;
    for (size_t i = 0; i < CENSUS_CERTS_MAX; i++) {
        int64_t at_s;
        struct err e;
        if (!c->certs[i])
            continue;
        if (cert_expiry_s(c->certs[i], &at_s, &e) < 0)
            log_warn(&log_here, "certificate cannot be read", "error=%s", LOGQ(e.text));
        else if (at_s < c->expiry_s)
            c->expiry_s = at_s;
    }
}

static void certs_read(struct work *w, bool cancelled)
{
    struct census *c = container_of(w, struct census, reading);
    c->read_busy = false;
    if (!cancelled && c->expiry_s != INT64_MAX)
        metrics_set(c->o.metrics, METRIC_CERT_EXPIRY, NULL, NULL, NULL, (double)c->expiry_s);
}

/* --- audit --------------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void *arg)
{
    const struct census *c = arg;
    return c->o.now_ms(c->o.arg);
}

static void on_difference(void *arg, const struct job_row *row, const struct audit_result *result)
{
    struct census *c = arg;
    c->differences[result->verdict]++;
    log_error(&log_here, "what is recorded of a job is not what its schedule says",
              "ns=%s id=%s kind=%s count=%llu detail=%s", LOGQ(row->ns), LOGQ(row->id),
              audit_verdict_name(result->verdict), (unsigned long long)result->count, LOGQ(result->detail));
}

static void on_audited(void *arg, const struct auditor_summary *sum, const struct err *e)
{
    struct census *c = arg;
    c->auditor = NULL;
    loop_timer_arm(c->audit_timer, c->o.audit_every_ms);
    if (e->code != ERR_OK) {
        log_warn(&log_here, "the audit did not end this time", "error=%s", LOGQ(e->text));
        return;
    }
    metrics_set(c->o.metrics, METRIC_AUDIT_JOBS, NULL, NULL, NULL, (double)sum->jobs);
    for (int v = 0; v < AUDIT_VERDICT_COUNT_; v++)
        if (audit_verdict_name((enum audit_verdict)v))
            metrics_set(c->o.metrics, METRIC_AUDIT_DIFFERENCES, audit_verdict_name((enum audit_verdict)v),
                        NULL, NULL, c->differences[v]);
}

static void audit(void *arg)
{
    struct census *c = arg;
    struct auditor_options o = {.loop = c->o.loop,
                                .tzdata = c->o.tzdata,
                                .now_ms = now_ms,
                                .keep_for_ms = c->o.keep_for_ms,
                                .pause_ms = CENSUS_AUDIT_PAUSE_MS,
                                .found = on_difference,
                                .done = on_audited,
                                .arg = c};
    if (!c->o.counts(c->o.arg, &o.store, &o.store_self)) {
        metrics_clear(c->o.metrics, METRIC_AUDIT_JOBS);
        metrics_clear(c->o.metrics, METRIC_AUDIT_DIFFERENCES);
        loop_timer_arm(c->audit_timer, c->o.audit_every_ms);
        return;
    }
    for (int v = 0; v < AUDIT_VERDICT_COUNT_; v++)
        c->differences[v] = 0;
    c->auditor = auditor_begin(&o);
}

/* --- now and then -------------------------------------------------------------------------------------------------- */

static void look(void *arg)
{
    struct census *c = arg;
    count_letters(c);
    count_jobs(c);
    if (c->pool && !c->read_busy) {
        c->read_busy = true;
        worker_submit(c->pool, &c->reading);
    }
    loop_timer_arm(c->timer, c->o.every_ms);
}

static int begin(struct census *c, struct err *e)
{
    bool any = false;
    for (size_t i = 0; i < CENSUS_CERTS_MAX; i++)
        any |= c->certs[i] != NULL;
    int rc = any ? worker_pool_new(c->o.loop, "census", 1, NULL, NULL, NULL, &c->pool, e) : 0;
    if (rc < 0)
        return rc;
    c->jobs_timer = loop_timer_new(c->o.loop, count_page, c);
    c->timer = loop_timer_new(c->o.loop, look, c);
    loop_timer_arm(c->timer, 0);
    tell_jobs(c);
    if (c->o.audit_every_ms > 0) {
        c->audit_timer = loop_timer_new(c->o.loop, audit, c);
        loop_timer_arm(c->audit_timer,
                       c->o.audit_every_ms < c->o.every_ms ? c->o.audit_every_ms : c->o.every_ms);
    }
    return 0;
}

int census_new(const struct census_options *options, struct census **ret, struct err *e)
{
    struct census *c = mem_new(struct census);
    c->o = *options;
    if (c->o.every_ms == 0)
        c->o.every_ms = CENSUS_EVERY_MS;
    if (c->o.pause_ms == 0)
        c->o.pause_ms = CENSUS_PAUSE_MS;
    if (c->o.page_jobs == 0)
        c->o.page_jobs = CENSUS_PAGE_JOBS;
    c->reading = (struct work){.run = read_certs, .done = certs_read};
    list_init(&c->reading.link);
    for (size_t i = 0; i < CENSUS_CERTS_MAX; i++)
        c->certs[i] = options->certs[i] ? mem_strdup(options->certs[i]) : NULL;
    int rc = begin(c, e);
    if (rc < 0) {
        census_free(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void census_stop(struct census *c)
{
    if (!c || c->stopped)
        return;
    c->stopped = true;
    if (c->timer)
        loop_timer_free(c->timer);
    if (c->jobs_timer)
        loop_timer_free(c->jobs_timer);
    c->timer = c->jobs_timer = NULL;
    if (c->audit_timer)
        loop_timer_free(c->audit_timer);
    c->audit_timer = NULL;
    auditor_stop(c->auditor);
    c->auditor = NULL;
    if (c->pool)
        worker_pool_free(c->pool);
    c->pool = NULL;
}

void census_free(struct census *c)
{
    if (!c)
        return;
    census_stop(c);
    assert(!c->store_busy && !c->jobs_busy);
    for (size_t i = 0; i < CENSUS_CERTS_MAX; i++)
        mem_free(c->certs[i]);
    mem_free(c);
}
