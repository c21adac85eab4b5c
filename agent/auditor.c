#include "agent/auditor.h"

#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/loop.h"

#define TRIES     3    /* to read a busy job's row and fires at rest */
#define FIRES_MAX 1000 /* of a job */

struct auditor {
    struct auditor_options o;
    struct auditor_summary sum;
    struct loop_timer *timer;
    char ns[RECORD_NS_MAX];
    char after_ns[RECORD_NS_MAX];
    char after_id[RECORD_ID_MAX];
    struct store_filter filter; /* borrowed by the store meanwhile */
    uint64_t begun_ms;
    bool begun, more, stopped, reading;

    struct uid suspects[AUDITOR_PAGE_JOBS];
    size_t suspects_count, at;
    /* the suspect being looked at */
    struct store_key key;
    struct job_row row;
    struct job_spec *spec;
    struct fire_row *fires; /* without what rows own */
    size_t fires_count;
    bool fires_all;
    unsigned tries;
};

static void forget_suspect(struct auditor *a)
{
    job_spec_unref(a->spec);
    mem_free(a->fires);
    a->spec = NULL;
    a->fires = NULL;
    a->fires_count = 0;
}

static void auditor_free(struct auditor *a)
{
    forget_suspect(a);
    loop_timer_free(a->timer);
    mem_free(a);
}

static void finish(struct auditor *a, const struct err *e)
{
    if (!a->stopped)
        a->o.done(a->o.arg, &a->sum, e);
    auditor_free(a);
}

/* After each answer of the store: whether the round goes on. */
static bool goes_on(struct auditor *a, const struct err *e)
{
    a->reading = false;
    if (e->code == ERR_OK && !a->stopped)
        return true;
    finish(a, e);
    return false;
}

static struct audit_job judged(const struct auditor *a, const struct job_spec *spec,
                               const struct job_row *row)
{
    int64_t now_ms = a->o.now_ms(a->o.arg);
    return (struct audit_job){.spec = spec,
                              .row = row,
                              .now_ms = now_ms,
                              .from_ms = now_ms - a->o.keep_for_ms,
                              .tzdata = a->o.tzdata};
}

static void tell(struct auditor *a, const struct job_row *row, const struct audit_result *result)
{
    if (result->verdict == AUDIT_FINE || result->verdict == AUDIT_LOOK)
        return;
    a->sum.differences++;
    a->o.found(a->o.arg, row, result);
}

static void read_page(struct auditor *a);
static void next_suspect(struct auditor *a);

/* --- one job with its fires: its row, its fires, and its row again, which must be the same ------------------------- */

static void judge_suspect(struct auditor *a)
{
    struct audit_job in = judged(a, a->spec, &a->row);
    struct audit_result result;
    in.fires = a->fires;
    in.fires_count = a->fires_count;
    in.fires_known = true;
    in.fires_all = a->fires_all;
    audit_job(&in, &result);
    tell(a, &a->row, &result);
}

static void on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct auditor *a = arg;
    if (!goes_on(a, e))
        return;
    mem_free(a->fires);
    a->fires = mem_new_array(struct fire_row, count + 1);
    for (size_t i = 0; i < count; i++) {
        a->fires[i] = rows[i];
        fire_row_taken(&a->fires[i]);
    }
    a->fires_count = count;
    a->fires_all = !more;
    next_suspect(a);
}

static void on_row(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct auditor *a = arg;
    (void)more;
    if (!goes_on(a, e))
        return;
    const struct store_job *job = count > 0 && jobs[0].spec ? &jobs[0] : NULL;
    bool rests = job && a->fires && a->row.rev == job->row.rev;
    bool gone = !job || (!rests && a->fires && ++a->tries >= TRIES);
    if (rests)
        judge_suspect(a);
    if (job && gone)
        a->sum.unsettled++;
    if (rests || gone) {
        forget_suspect(a);
        a->at++;
        next_suspect(a);
        return;
    }
    job_spec_unref(a->spec);
    a->row = job->row;
    a->spec = job_spec_ref(job->spec);
    a->reading = true;
    a->o.store->get_fires(a->o.store_self, &a->row.uid, 0, FIRES_MAX, on_fires, a);
}

static void pages_on(struct auditor *a)
{
    struct err none = {.code = ERR_OK};
    bool enough = (a->o.jobs_max && a->sum.jobs >= a->o.jobs_max) ||
                  (a->o.time_max_ms && clock_boot_ms() - a->begun_ms >= a->o.time_max_ms);
    a->sum.truncated = a->more && enough;
    if (!a->more || enough)
        finish(a, &none);
    else if (a->o.pause_ms > 0)
        loop_timer_arm(a->timer, a->o.pause_ms);
    else
        read_page(a);
}

static void next_suspect(struct auditor *a)
{
    if (a->at == a->suspects_count) {
        pages_on(a);
        return;
    }
    if (!a->fires)
        a->tries = 0;
    a->key = (struct store_key){.uid = a->suspects[a->at]};
    a->reading = true;
    a->o.store->get_jobs(a->o.store_self, &a->key, 1, on_row, a);
}

/* --- pages --------------------------------------------------------------------------------------------------------- */

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct auditor *a = arg;
    if (!goes_on(a, e))
        return;
    a->suspects_count = a->at = 0;
    for (size_t i = 0; i < page->jobs_count; i++) {
        const struct store_job *job = &page->jobs[i];
        struct audit_result result;
        if (!job->spec)
            continue; /* of a newer agent, or of a zone that is unknown here */
        struct audit_job in = judged(a, job->spec, &job->row);
        audit_job(&in, &result);
        a->sum.jobs++;
        if (result.verdict == AUDIT_LOOK && a->suspects_count < AUDITOR_PAGE_JOBS)
            a->suspects[a->suspects_count++] = job->row.uid;
        tell(a, &job->row, &result);
    }
    a->more = page->more;
    memcpy(a->after_ns, page->next_ns, sizeof(a->after_ns));
    memcpy(a->after_id, page->next_id, sizeof(a->after_id));
    next_suspect(a);
}

static void read_page(struct auditor *a)
{
    struct store_filter filter = {.ns = a->o.ns, .state = -1, .last_outcome = -1, .limit = AUDITOR_PAGE_JOBS};
    if (a->begun) {
        filter.after_ns = a->after_ns;
        filter.after_id = a->after_id;
    }
    a->filter = filter;
    a->begun = true;
    a->reading = true;
    a->o.store->list_jobs(a->o.store_self, &a->filter, on_page, a);
}

static void on_timer(void *arg)
{
    read_page(arg);
}

struct auditor *auditor_begin(const struct auditor_options *options)
{
    struct auditor *a = mem_new(struct auditor);
    a->o = *options;
    if (options->ns) {
        size_t len = strnlen(options->ns, sizeof(a->ns) - 1);
        memcpy(a->ns, options->ns, len);
        a->o.ns = a->ns;
    }
    a->begun_ms = clock_boot_ms();
    a->timer = loop_timer_new(a->o.loop, on_timer, a);
    read_page(a);
    return a;
}

void auditor_stop(struct auditor *a)
{
    if (!a)
        return;
    a->stopped = true;
    if (!a->reading)
        auditor_free(a);
}
