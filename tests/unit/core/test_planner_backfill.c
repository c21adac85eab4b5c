/* Dues of the past, fired beside the schedule. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define MINUTELY "{\"schedule\":\"@minutely\"," CALLBACK "%s}"
#define MINUTE   INT64_C(60000)

static struct pbed *made(const struct pbed_options *given, const char *more)
{
    struct pbed_options o = given ? *given : pbed_defaults(7);
    char text[400];
    struct pbed *b = pbed_start(&o, 1);
    (void)snprintf(text, sizeof(text), MINUTELY, more);
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", text), PLANNER_CREATED));
    return b;
}

static struct pbed_call *ask(struct pbed *b, int64_t from_ms, int64_t to_ms)
{
    struct pbed_call *c = pbed_call(b, PLANNER_BACKFILL, "a", NULL);
    c->api.backfill_from_ms = from_ms;
    c->api.backfill_to_ms = to_ms;
    for (int i = 0; i < 5000 && !c->answered; i++)
        pbed_run(b, 1);
    cr_assert(c->answered);
    return c;
}

/* How often the due was fired by a backfill, and ended well. */
static unsigned backfilled(const struct pbed *b, int64_t due_ms)
{
    const struct job_row *row = pbed_job(b, "a");
    unsigned n = 0;
    for (uint64_t seq = 1; seq <= row->counts.seq; seq++) {
        const struct fire_row *f = pbed_fire(b, &row->uid, seq);
        n +=
            f && f->kind == FIRE_KIND_BACKFILL && f->due_ms == due_ms && f->outcome == FIRE_OUTCOME_SUCCEEDED;
    }
    return n;
}

static void all_backfilled(const struct pbed *b, int64_t from_ms, int64_t to_ms)
{
    for (int64_t due = from_ms; due < to_ms; due += MINUTE)
        cr_assert(eq(uint, backfilled(b, due), 1), "due %lld", (long long)due);
}

Test(planner_backfill, each_due_of_the_span_is_fired_once)
{
    struct pbed *b = made(NULL, "");
    int64_t from = BED_NOW - 100 * MINUTE, to = BED_NOW - 10 * MINUTE;
    struct pbed_call *c = ask(b, from, to);
    cr_assert(eq(int, c->api.answer, PLANNER_ACCEPTED));
    cr_assert(eq(u64, c->api.backfill_dues, 90));
    pbed_run(b, 10 * MINUTE);
    all_backfilled(b, from, to);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.seq, 100));
    cr_assert(eq(u64, row->counts.succeeded, 100));
    cr_assert(eq(u64, row->scheduled, 10), "max_fires counts what the schedule fires");
    cr_assert(zero(uint, row->backfill_pending));
    cr_assert(row->backfill_next_ms == RECORD_NONE && row->backfill_until_ms == RECORD_NONE);
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_backfill, the_schedule_goes_on_beside_it)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = made(&o, ",\"max_pending\":4");
    (void)ask(b, BED_NOW - 100 * MINUTE, BED_NOW);
    pbed_run(b, 150000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(uint, row->backfill_pending, 4), "its own bound");
    cr_assert(eq(u64, row->counts.seq, 6), "two dues came meanwhile");
    pbed_set(b)->fail = 0;
    pbed_run(b, 60 * MINUTE);
    all_backfilled(b, BED_NOW - 100 * MINUTE, BED_NOW);
    pbed_check(b, true);
    pbed_free(b);
}

/* How many of a span of 200 dues were sent within 5 s. */
static size_t sent_in_5_s(double give_up)
{
    struct pbed_options o = pbed_defaults(7);
    o.catch_up_per_s = 10;
    o.give_up = give_up;
    struct pbed *b = made(&o, ",\"max_pending\":1000");
    size_t sent;
    (void)ask(b, BED_NOW - 200 * MINUTE, BED_NOW);
    pbed_run(b, 5000);
    (void)pbed_sent(b, &sent);
    pbed_free(b);
    return sent;
}

Test(planner_backfill, is_paced_as_what_is_overdue_is)
{
    size_t failing = sent_in_5_s(1);
    cr_assert(failing >= 40 && failing <= 60, "%zu", failing);
    cr_assert(eq(sz, sent_in_5_s(0), 200), "a callee that answers gets more");
}

static void survives(const char *more, uint64_t seed)
{
    struct pbed_options o = pbed_defaults(seed);
    o.fail = 0.2;
    o.planned_only = false;
    struct pbed *b = made(&o, more);
    int64_t from = BED_NOW - 60 * MINUTE, to = BED_NOW;
    cr_assert(eq(int, ask(b, from, to)->api.answer, PLANNER_ACCEPTED));
    for (int i = 0; i < 6; i++) {
        pbed_run(b, 40 + 13 * i);
        int alive[BED_NODES];
        cr_assert(eq(int, pbed_nodes_alive(b, alive), 1));
        int next = pbed_node_start(b);
        pbed_node_kill(b, alive[0], 50);
        (void)next;
        pbed_run(b, 1000);
    }
    pbed_set(b)->fail = 0;
    pbed_run(b, 90 * MINUTE);
    const struct job_row *row = pbed_job(b, "a");
    for (int64_t due = from; due < to; due += MINUTE)
        cr_assert(le(uint, backfilled(b, due), 1), "due %lld twice", (long long)due);
    all_backfilled(b, from, to);
    cr_assert(zero(uint, row->backfill_pending));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_backfill, survives_the_deaths_of_its_owners)
{
    for (uint64_t seed = 1; seed <= 8; seed++)
        survives("", seed);
}

Test(planner_backfill, goes_one_by_one_with_a_job_that_does)
{
    survives(",\"concurrency\":\"queue\"", 3);
    survives(",\"concurrency\":\"forbid\"", 4);
    survives(",\"concurrency\":\"replace\"", 5);
}

Test(planner_backfill, a_due_of_now_waits_for_a_fire_of_the_past)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 40000;
    struct pbed *b = made(&o, ",\"concurrency\":\"forbid\"");
    (void)ask(b, BED_NOW - 10 * MINUTE, BED_NOW);
    pbed_run(b, 60 * MINUTE);
    all_backfilled(b, BED_NOW - 10 * MINUTE, BED_NOW);
    cr_assert(zero(u64, pbed_job(b, "a")->counts.skipped));
    pbed_free(b);
}

Test(planner_backfill, waits_while_its_job_is_paused)
{
    struct pbed *b = made(NULL, "");
    cr_assert(eq(int, pbed_do(b, PLANNER_PAUSE, "a", NULL), PLANNER_OK));
    (void)ask(b, BED_NOW - 10 * MINUTE, BED_NOW);
    pbed_run(b, 5 * MINUTE);
    size_t sent;
    (void)pbed_sent(b, &sent);
    cr_assert(zero(sz, sent));
    cr_assert(eq(int, pbed_do(b, PLANNER_RESUME, "a", NULL), PLANNER_OK));
    pbed_run(b, 5 * MINUTE);
    all_backfilled(b, BED_NOW - 10 * MINUTE, BED_NOW);
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_backfill, a_job_that_is_done_stays_until_it_is_through)
{
    struct pbed *b = made(NULL, ",\"max_fires\":1,\"ttl_after_done\":\"1m\"");
    pbed_run(b, 61000);
    cr_assert(eq(int, pbed_job(b, "a")->state, JOB_STATE_DONE));
    pbed_set(b)->fail = 1;
    (void)ask(b, BED_NOW - 10 * MINUTE, BED_NOW);
    pbed_run(b, 3 * MINUTE);
    cr_assert(not(zero(ptr, (void *)pbed_job(b, "a"))), "longer than its ttl");
    pbed_set(b)->fail = 0;
    for (int i = 0; i < 36000 && pbed_job(b, "a")->backfill_pending > 0; i++)
        pbed_run(b, 100);
    all_backfilled(b, BED_NOW - 10 * MINUTE, BED_NOW);
    pbed_run(b, 5 * MINUTE);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(zero(ptr, (void *)row), "gone in the end");
    pbed_free(b);
}

Test(planner_backfill, what_cannot_be_is_refused)
{
    struct pbed *b = made(NULL, "");
    static const int64_t spans[][2] = {{0, 0}, {10, -10}, {-10, 10}, {-10001, 0}};
    for (size_t i = 0; i < 4; i++) {
        struct pbed_call *c = ask(b, BED_NOW + spans[i][0] * MINUTE, BED_NOW + spans[i][1] * MINUTE);
        cr_assert(eq(int, c->api.answer, PLANNER_INVALID), "%zu", i);
        cr_assert(c->api.refusal[0] != 0, "%zu", i);
    }
    struct pbed_call *none = ask(b, BED_NOW - 50000, BED_NOW - 10000);
    cr_assert(eq(int, none->api.answer, PLANNER_ACCEPTED));
    cr_assert(zero(u64, none->api.backfill_dues));
    pbed_set(b)->fail = 1;
    cr_assert(eq(int, ask(b, BED_NOW - 10000 * MINUTE, BED_NOW)->api.answer, PLANNER_ACCEPTED));
    cr_assert(eq(int, ask(b, BED_NOW - 10 * MINUTE, BED_NOW)->api.answer, PLANNER_EXISTS));
    pbed_free(b);
}
