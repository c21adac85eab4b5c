#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/census.h"
#include "agent/io/loop.h"
#include "agent/metrics.h"

enum { JOBS_MAX = 100, WAIT_MS = 30000 };

/* A store that has jobs and no dead letters; answers come later. */
static struct {
    struct loop *loop;
    struct loop_timer *tick, *answer;
    struct metrics *metrics;
    struct census *census;
    enum job_state states[JOBS_MAX];
    size_t jobs, fail_at, pages, largest;
    bool ours;
    store_page_done *done;
    void *arg;
    const struct store_filter *filter; /* looked at when it answers, as a store may */
} bed;

static void on_tick(void *arg)
{
    (void)arg;
    loop_timer_arm(bed.tick, 2);
    loop_stop(bed.loop);
}

static void on_answer(void *arg)
{
    static struct store_job jobs[JOBS_MAX];
    struct err e = {.code = ERR_OK};
    struct store_page page = {.jobs = jobs};
    (void)arg;
    store_page_done *done = bed.done;
    const struct store_filter *f = bed.filter;
    cr_assert(f->state == -1 && f->last_outcome == -1 && !f->ns && f->limit == 10);
    size_t from = f->after_id ? (size_t)strtoul(f->after_id, NULL, 10) : 0;
    bed.done = NULL;
    bed.pages++;
    if (from >= bed.fail_at) {
        bed.fail_at = JOBS_MAX;
        (void)err_set(&e, ERR_UNAVAILABLE, "not now");
        done(bed.arg, &e, NULL);
        return;
    }
    for (size_t i = from; i < bed.jobs && page.jobs_count < f->limit; i++)
        jobs[page.jobs_count++].row.state = bed.states[i];
    page.more = from + page.jobs_count < bed.jobs;
    snprintf(page.next_ns, sizeof(page.next_ns), "ns");
    snprintf(page.next_id, sizeof(page.next_id), "%zu", from + page.jobs_count);
    bed.largest = page.jobs_count > bed.largest ? page.jobs_count : bed.largest;
    done(bed.arg, &e, &page);
}

static void list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg)
{
    (void)self;
    cr_assert(eq(ptr, (void *)(size_t)bed.done, NULL), "one page at a time");
    bed.done = done;
    bed.arg = arg;
    bed.filter = filter;
    loop_timer_arm(bed.answer, 1);
}

static void count_dead(void *self, store_dead_done *done, void *arg)
{
    struct err e = {.code = ERR_OK};
    (void)self;
    done(arg, &e, NULL, 0);
}

static bool counts(void *arg, const struct store_ops **ret_store, void **ret_self)
{
    static const struct store_ops ops = {.name = "fake", .list_jobs = list_jobs, .count_dead = count_dead};
    (void)arg;
    *ret_store = &ops;
    *ret_self = NULL;
    return bed.ours;
}

static void begin(void)
{
    memset(&bed, 0, sizeof(bed));
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.tick = loop_timer_new(bed.loop, on_tick, NULL);
    bed.answer = loop_timer_new(bed.loop, on_answer, NULL);
    bed.metrics = metrics_new();
    bed.fail_at = JOBS_MAX;
    bed.ours = true;
    loop_timer_arm(bed.tick, 0);
}

static void open_census(void)
{
    struct census_options o = {.loop = bed.loop,
                               .metrics = bed.metrics,
                               .every_ms = 5,
                               .pause_ms = 1,
                               .page_jobs = 10,
                               .counts = counts};
    cr_assert(zero(int, census_new(&o, &bed.census, NULL)));
}

static void end(void)
{
    census_stop(bed.census);
    while (bed.done)
        loop_run(bed.loop);
    census_free(bed.census);
    metrics_free(bed.metrics);
    loop_timer_free(bed.answer);
    loop_timer_free(bed.tick);
    loop_free(bed.loop);
}

TestSuite(census, .init = begin, .fini = end, .timeout = 600);

static bool shows(const char *state, unsigned count)
{
    char line[80];
    struct buf out = BUF_INIT(1 << 20);
    (void)snprintf(line, sizeof(line), "\ncarillon_jobs{state=\"%s\"} %u\n", state, count);
    metrics_print(bed.metrics, &out);
    bool found = strstr(buf_str(&out), line) != NULL;
    buf_fini(&out);
    return found;
}

static bool told(unsigned active, unsigned paused, unsigned done)
{
    int64_t end_ms = (int64_t)clock_boot_ms() + WAIT_MS;
    while (!(shows("active", active) && shows("paused", paused) && shows("done", done)) &&
           (int64_t)clock_boot_ms() < end_ms)
        loop_run(bed.loop);
    return shows("active", active) && shows("paused", paused) && shows("done", done);
}

static void make(unsigned active, unsigned paused, unsigned done)
{
    bed.jobs = 0;
    for (unsigned i = 0; i < active + paused + done; i++)
        bed.states[bed.jobs++] = i < active            ? JOB_STATE_ACTIVE
                                 : i < active + paused ? JOB_STATE_PAUSED
                                                       : JOB_STATE_DONE;
}

Test(census, jobs_are_counted_by_state_in_pages)
{
    make(40, 20, 5);
    open_census();
    cr_assert(told(40, 20, 5));
    cr_assert(eq(sz, bed.largest, 10));
    make(1, 0, 30);
    cr_assert(told(1, 0, 30), "the next round");
}

Test(census, a_round_that_fails_is_begun_anew_and_tells_nothing)
{
    make(25, 0, 0);
    bed.fail_at = 20;
    open_census();
    while (bed.pages < 3)
        loop_run(bed.loop);
    cr_assert(not(shows("active", 20)));
    cr_assert(told(25, 0, 0));
}

/* So that the sum over the members is the cluster's. */
Test(census, what_is_another_members_to_count_is_told_as_none)
{
    make(15, 0, 0);
    bed.ours = false;
    open_census();
    cr_assert(shows("active", 0), "before anything was counted");
    bed.ours = true;
    cr_assert(told(15, 0, 0));
    bed.ours = false;
    cr_assert(told(0, 0, 0), "not twice");
    bed.ours = true;
    cr_assert(told(15, 0, 0), "again ours");
}

/* Figures that find no room are told with the next round. */
Test(census, a_start_that_fails_leaves_nothing)
{
    unsigned k = 0, refused = 0;
    struct census_options o = {.loop = bed.loop,
                               .metrics = bed.metrics,
                               .every_ms = 5,
                               .certs = {"no-such-folder/cert.pem"},
                               .counts = counts};
    for (bool fired = true; fired; k++) {
        struct err e = {0};
        fault_arm(k);
        int rc = census_new(&o, &bed.census, &e);
        fired = fault_fired();
        refused += rc < 0;
        cr_assert(fired || rc == 0, "%s", e.text);
        if (rc < 0)
            cr_assert(zero(ptr, bed.census), "k=%u", k);
        if (rc < 0)
            cr_assert(eq(int, rc, -(int)e.code), "k=%u", k);
        census_free(bed.census);
        bed.census = NULL;
    }
    cr_assert(gt(uint, refused, 0), "without its thread there is none");
}
