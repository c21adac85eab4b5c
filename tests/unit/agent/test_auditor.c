#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/auditor.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/core/tz.h"
#include "agent/io/loop.h"
#include "tests/lib/utc_spec.h"

#define NOW INT64_C(1795392000000) /* 2026-11-23T00:00:00Z */

enum { JOBS_MAX = 250, WAIT_MS = 60000, NOBODY = JOBS_MAX, CALLS_MAX = 100 };

/* A store of jobs that are due in an hour, among them one that has booked fewer fires than ended (WRONG), one with a fire under way
 * (PENDING), one that has lost its (LOST), one that changes whenever it is read (BUSY) and one that is deleted meanwhile (GONE). One
 * call at a time; answers come later. */
static struct {
    struct loop *loop;
    struct loop_timer *patience;
    struct job_spec *spec;
    size_t jobs, wrong, pending, lost, busy, gone;
    const char *ns; /* that must be asked for */
    /* calls */
    unsigned calls, fail_at, stop_at; /* from 1; 0: none */
    bool stops_in_pause;
    struct loop_msg answer;
    void (*give)(const struct err *e);
    const struct store_filter *filter; /* looked at when it answers, as a store may */
    const struct store_key *key;
    size_t asked; /* the job */
    uint64_t rev;
    store_page_done *on_page;
    store_jobs_done *on_jobs;
    store_fires_done *on_fires;
    void *arg;
    /* what was told */
    size_t found, found_job[8];
    enum audit_verdict verdict[8];
    unsigned dones;
    struct err error;
    struct auditor_summary sum;
    struct auditor *auditor; /* NULL: it is over */
} bed;

/* --- the store ----------------------------------------------------------------------------------------------------- */

static struct store_job job_at(size_t i)
{
    struct store_job job = {.spec = bed.spec};
    struct job_row *row = &job.row;
    *row = (struct job_row){.state = JOB_STATE_ACTIVE,
                            .created_ms = NOW,
                            .updated_ms = NOW,
                            .due_ms = NOW + 3600000,
                            .rev = i == bed.busy ? ++bed.rev : 7};
    (void)snprintf(row->ns, sizeof(row->ns), "default");
    (void)snprintf(row->id, sizeof(row->id), "%zu", i);
    memcpy(row->uid.bytes, &i, sizeof(i));
    if (i == bed.wrong)
        row->counts.succeeded = 1;
    if (i == bed.pending || i == bed.lost || i == bed.busy || i == bed.gone)
        row->counts.seq = 1;
    return job;
}

static void answer_page(const struct err *e)
{
    static struct store_job jobs[AUDITOR_PAGE_JOBS];
    struct store_page page = {.jobs = jobs};
    const struct store_filter *f = bed.filter;
    cr_assert(f->state == -1 && f->last_outcome == -1 && f->limit == AUDITOR_PAGE_JOBS);
    cr_assert(eq(int, f->ns != NULL, bed.ns != NULL));
    cr_assert(bed.ns == NULL || strcmp(f->ns, bed.ns) == 0);
    size_t from = f->after_id ? (size_t)strtoul(f->after_id, NULL, 10) + 1 : 0;
    for (size_t i = from; i < bed.jobs && page.jobs_count < f->limit; i++)
        jobs[page.jobs_count++] = job_at(i);
    page.more = from + page.jobs_count < bed.jobs;
    (void)snprintf(page.next_ns, sizeof(page.next_ns), "default");
    (void)snprintf(page.next_id, sizeof(page.next_id), "%zu", from + page.jobs_count - 1);
    bed.on_page(bed.arg, e, e->code == ERR_OK ? &page : NULL);
}

static void answer_job(const struct err *e)
{
    memcpy(&bed.asked, bed.key->uid.bytes, sizeof(bed.asked));
    struct store_job job = job_at(bed.asked);
    if (bed.asked == bed.gone)
        job.spec = NULL;
    bed.on_jobs(bed.arg, e, &job, e->code == ERR_OK, false);
}

static void answer_fires(const struct err *e)
{
    struct fire_row row = {.seq = 1,
                           .seq_last = 1,
                           .state = FIRE_STATE_WAITING,
                           .due_ms = NOW - 3600000,
                           .due_last_ms = NOW - 3600000};
    bed.on_fires(bed.arg, e, &row, e->code == ERR_OK && bed.asked != bed.lost, false);
}

static void stop(void)
{
    auditor_stop(bed.auditor);
    loop_stop(bed.loop);
}

static void answer(struct loop_msg *msg)
{
    struct err e = {.code = ERR_OK};
    (void)msg;
    if (bed.calls == bed.fail_at)
        (void)err_set(&e, ERR_UNAVAILABLE, "not now");
    bed.answer.run = NULL;
    if (bed.calls == bed.stop_at)
        stop();
    bed.give(&e);
    if (bed.stops_in_pause && bed.auditor && !bed.answer.run)
        stop();
}

static void call(void *arg, void (*give)(const struct err *e))
{
    cr_assert(zero(ptr, (void *)(size_t)bed.answer.run), "one call at a time");
    bed.arg = arg;
    bed.give = give;
    bed.calls++;
    bed.answer.run = answer;
    loop_defer(bed.loop, &bed.answer);
}

static void list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg)
{
    (void)self;
    bed.filter = filter;
    bed.on_page = done;
    call(arg, answer_page);
}

static void get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg)
{
    (void)self;
    cr_assert(eq(sz, count, 1));
    bed.key = keys;
    bed.on_jobs = done;
    call(arg, answer_job);
}

static void get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                      store_fires_done *done, void *arg)
{
    (void)self;
    (void)uid;
    cr_assert(before_seq == 0 && limit > 0);
    bed.on_fires = done;
    call(arg, answer_fires);
}

/* --- the round ----------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void *arg)
{
    (void)arg;
    return NOW;
}

static void found(void *arg, const struct job_row *row, const struct audit_result *result)
{
    (void)arg;
    cr_assert(lt(sz, bed.found, sizeof(bed.found_job) / sizeof(bed.found_job[0])));
    bed.found_job[bed.found] = (size_t)strtoul(row->id, NULL, 10);
    bed.verdict[bed.found++] = result->verdict;
}

static void done(void *arg, const struct auditor_summary *sum, const struct err *e)
{
    (void)arg;
    bed.dones++;
    bed.sum = *sum;
    bed.error = *e;
    bed.auditor = NULL;
    loop_stop(bed.loop);
}

static void too_long(void *arg)
{
    (void)arg;
    cr_fatal("the test waited in vain");
}

static void open_bed(size_t jobs)
{
    memset(&bed, 0, sizeof(bed));
    bed.jobs = jobs;
    bed.wrong = bed.pending = bed.lost = bed.busy = bed.gone = NOBODY;
    bed.spec = utc_spec("{\"schedule\":\"@every 1h\",\"callback\":{\"http\":{\"service\":\"a\"}}}", NOW);
    cr_assert(zero(int, loop_new(&bed.loop, NULL)));
    bed.patience = loop_timer_new(bed.loop, too_long, NULL);
    loop_timer_arm(bed.patience, WAIT_MS);
}

static void close_bed(void)
{
    loop_timer_free(bed.patience);
    loop_free(bed.loop);
    job_spec_unref(bed.spec);
}

static void begin(size_t jobs_max, int64_t pause_ms)
{
    static const struct store_ops ops = {
        .name = "fake", .list_jobs = list_jobs, .get_jobs = get_jobs, .get_fires = get_fires};
    char ns[32] = "";
    struct auditor_options o = {.loop = bed.loop,
                                .store = &ops,
                                .ns = bed.ns ? ns : NULL,
                                .now_ms = now_ms,
                                .keep_for_ms = 86400000,
                                .pause_ms = pause_ms,
                                .jobs_max = jobs_max,
                                .found = found,
                                .done = done};
    if (bed.ns)
        (void)snprintf(ns, sizeof(ns), "%s", bed.ns);
    bed.found = bed.calls = bed.dones = 0;
    bed.auditor = auditor_begin(&o);
    cr_assert(zero(u32, bed.dones), "told before it was begun");
    memset(ns, 'x', sizeof(ns) - 1);
}

static void run_round(size_t jobs_max)
{
    begin(jobs_max, 0);
    loop_run(bed.loop);
    cr_assert(eq(u32, bed.dones, 1));
}

static void expect_all(size_t jobs, size_t unsettled, size_t differences, bool truncated)
{
    cr_assert(eq(int, bed.error.code, ERR_OK), "%s", bed.error.text);
    cr_assert(eq(sz, bed.sum.jobs, jobs));
    cr_assert(eq(sz, bed.sum.unsettled, unsettled));
    cr_assert(eq(sz, bed.sum.differences, differences));
    cr_assert(eq(sz, bed.found, differences));
    cr_assert(eq(int, bed.sum.truncated, truncated));
}

Test(auditor, every_job_is_looked_at_once_page_after_page)
{
    static const size_t jobs[] = {0, 1, 99, 100, 101, 250};
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
        open_bed(jobs[i]);
        run_round(0);
        expect_all(jobs[i], 0, 0, false);
        cr_assert(eq(u32, bed.calls, jobs[i] == 0 ? 1 : (unsigned)(jobs[i] + 99) / 100));
        close_bed();
    }
}

Test(auditor, a_namespace_is_its_own_until_the_end)
{
    open_bed(JOBS_MAX);
    bed.ns = "team-b";
    run_round(0);
    expect_all(JOBS_MAX, 0, 0, false);
    close_bed();
}

Test(auditor, a_round_that_is_not_whole_says_so)
{
    open_bed(JOBS_MAX);
    run_round(200);
    expect_all(200, 0, 0, true);
    run_round(JOBS_MAX);
    expect_all(JOBS_MAX, 0, 0, false);
    close_bed();
}

Test(auditor, what_differs_is_told_and_nothing_else)
{
    open_bed(JOBS_MAX);
    bed.wrong = 120;
    bed.pending = 5;
    bed.lost = 99;
    run_round(0);
    expect_all(JOBS_MAX, 0, 2, false);
    cr_assert(eq(sz, bed.found_job[0], 99));
    cr_assert(eq(int, bed.verdict[0], AUDIT_PENDING));
    cr_assert(eq(sz, bed.found_job[1], 120));
    cr_assert(eq(int, bed.verdict[1], AUDIT_COUNTS));
    close_bed();
}

Test(auditor, a_job_that_does_not_rest_is_counted_and_one_that_is_gone_is_not)
{
    open_bed(JOBS_MAX);
    bed.busy = 3;
    bed.gone = 4;
    bed.lost = 5;
    run_round(0);
    expect_all(JOBS_MAX, 1, 1, false);
    cr_assert(eq(sz, bed.found_job[0], 5));
    close_bed();
}

/* --- faults -------------------------------------------------------------------------------------------------------- */

static void open_mixed(void)
{
    open_bed(JOBS_MAX);
    bed.wrong = 120;
    bed.pending = 101;
    bed.lost = 99;
    bed.busy = 3;
    bed.gone = 249;
}

Test(auditor, a_round_ends_once_with_the_error_of_whatever_call_fails)
{
    open_mixed();
    for (unsigned k = 1;; k++) {
        bed.fail_at = k;
        run_round(0);
        if (bed.error.code == ERR_OK)
            break;
        cr_assert(eq(int, bed.error.code, ERR_UNAVAILABLE), "k=%u", k);
        cr_assert(eq(str, bed.error.text, "not now"), "k=%u", k);
        cr_assert(eq(u32, bed.calls, k), "nothing is asked after it, k=%u", k);
        cr_assert(not(bed.sum.truncated), "k=%u", k);
        bed.fail_at = 0;
        run_round(0);
        expect_all(JOBS_MAX, 1, 2, false);
        cr_assert(lt(u32, k, CALLS_MAX));
    }
    cr_assert(gt(u32, bed.fail_at, 15), "%u calls", bed.fail_at);
    expect_all(JOBS_MAX, 1, 2, false);
    close_bed();
}

Test(auditor, one_that_was_stopped_tells_nothing_whatever_it_is_waiting_for)
{
    open_mixed();
    for (unsigned k = 1; bed.dones == 0; k++) {
        bed.stop_at = k;
        begin(0, 0);
        loop_run(bed.loop);
        cr_assert(bed.dones == 0 || bed.calls < k, "k=%u", k);
        cr_assert(le(u32, bed.calls, k), "nothing is asked after it");
        cr_assert(lt(u32, k, CALLS_MAX));
    }
    cr_assert(gt(u32, bed.stop_at, 15), "%u calls", bed.stop_at);
    bed.stop_at = 0;
    bed.stops_in_pause = true;
    begin(0, WAIT_MS * 2);
    loop_run(bed.loop);
    cr_assert(zero(u32, bed.dones));
    close_bed();
}
