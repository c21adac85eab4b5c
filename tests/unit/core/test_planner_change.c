/* What a changed job has fired already, and what it has not. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define RETRY    ",\"retry\":{\"min_backoff\":\"1h\",\"max_backoff\":\"1h\"}"
#define SECOND   INT64_C(1000)

/* It was accepted a while ago, and could not be done before. */
static void put_late(struct pbed *b, const char *job, int64_t late_ms)
{
    struct pbed_call *c = pbed_call(b, PLANNER_PUT, "a", job);
    c->api.accepted_ms -= late_ms;
    while (!c->answered)
        pbed_run(b, 1);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
}

/* No due has two fires. */
static void check_dues(const struct pbed *b)
{
    size_t n;
    const struct pbed_sent *sent = pbed_sent(b, &n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            cr_assert(sent[i].due_ms != sent[k].due_ms || sent[i].seq == sent[k].seq, "fires %d and %d",
                      (int)sent[k].seq, (int)sent[i].seq);
}

Test(planner_change, a_due_whose_fire_waits_for_a_retry_does_not_come_again)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"*/10 * * * * *\"," CALLBACK RETRY "}");
    pbed_set(b)->fail = 1;
    pbed_run(b, 30500);
    size_t n;
    (void)pbed_sent(b, &n);
    cr_assert(ge(sz, n, 3));
    put_late(b, "{\"schedule\":[\"*/10 * * * * *\",\"@every 1h\"]," CALLBACK RETRY "}", 15 * SECOND);
    pbed_set(b)->fail = 0;
    pbed_run(b, 60000);
    check_dues(b);
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_change, an_instant_whose_fire_waits_for_a_retry_does_not_come_again)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"@at 2026-11-23T09:00:05Z\"," CALLBACK RETRY "}");
    pbed_set(b)->fail = 1;
    pbed_run(b, 120000);
    pbed_set(b)->fail = 0;
    put_late(b,
             "{\"schedule\":[\"@at 2026-11-23T09:00:05Z\",\"@at 2026-11-23T10:00:00Z\"]," CALLBACK RETRY "}",
             0);
    pbed_run(b, 60000);
    size_t n;
    (void)pbed_sent(b, &n);
    cr_assert(eq(sz, n, 1));
    check_dues(b);
    pbed_free(b);
}

Test(planner_change, a_run_by_hand_is_no_due)
{
    static const char *const before[] = {"@after 10h", "@every 20s"};
    for (size_t i = 0; i < 2; i++) {
        char text[200];
        (void)snprintf(text, sizeof(text), "{\"schedule\":\"%s\"," CALLBACK "}", before[i]);
        struct pbed *b = pbed_start_job(text);
        pbed_run(b, 25000);
        cr_assert(eq(int, pbed_do(b, PLANNER_RUN, "a", NULL), PLANNER_ACCEPTED));
        pbed_run(b, 1000);
        uint64_t done = pbed_job(b, "a")->counts.succeeded;
        put_late(b, "{\"schedule\":\"@at 2026-11-23T09:00:22Z\"," CALLBACK "}", 0);
        pbed_run(b, 2000);
        cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, done + 1), "after %s", before[i]);
        pbed_check(b, true);
        pbed_free(b);
    }
}

/* The second change was accepted before the instant came, which fired by the first. */
Test(planner_change, an_instant_that_fired_does_not_come_again_with_a_late_change)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"@every 20s\"," CALLBACK "}");
    pbed_run(b, 10000);
    put_late(b, "{\"schedule\":\"@at 2026-11-23T09:00:09Z\"," CALLBACK "}", 3 * SECOND);
    pbed_run(b, 1000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    put_late(b, "{\"schedule\":\"@at 2026-11-23T09:00:09Z\",\"payload\":1," CALLBACK "}", 8 * SECOND);
    pbed_run(b, 5000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 1));
    check_dues(b);
    pbed_free(b);
}

Test(planner_change, dues_that_were_all_it_might_fire_do_not_come_again)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"*/10 * * * * *\",\"max_fires\":3," CALLBACK "}");
    pbed_run(b, 31000);
    cr_assert(eq(int, pbed_job(b, "a")->state, JOB_STATE_DONE));
    put_late(b, "{\"schedule\":\"*/10 * * * * *\",\"max_fires\":5," CALLBACK "}", 15 * SECOND);
    pbed_run(b, 30000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 5));
    check_dues(b);
    pbed_free(b);
}

Test(planner_change, nor_when_one_of_them_ended_last_that_is_not_the_newest)
{
    for (int64_t fails_ms = 20500; fails_ms <= 30500; fails_ms += 10000) {
        struct pbed *b = pbed_start_job(
            "{\"schedule\":\"*/10 * * * * *\",\"max_fires\":3,\"retry\":{\"min_backoff\":\"15s\"}," CALLBACK
            "}");
        pbed_set(b)->fail = 1;
        pbed_run(b, fails_ms);
        pbed_set(b)->fail = 0;
        pbed_run(b, 80000);
        cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 3));
        put_late(b, "{\"schedule\":\"*/10 * * * * *\",\"max_fires\":5," CALLBACK "}",
                 fails_ms + 80000 - 24500);
        pbed_run(b, 80000);
        cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 5));
        check_dues(b);
        pbed_free(b);
    }
}

/* What of a backfill ended last tells nothing about the schedule. */
Test(planner_change, nor_does_a_backfill_beside_hide_those_that_did_not)
{
    unsigned other_last = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct pbed_options o = pbed_defaults(seed);
        struct pbed *b = pbed_start(&o, 1);
        (void)pbed_do(
            b, PLANNER_PUT, "a",
            "{\"schedule\":\"*/10 * * * * *\",\"max_fires\":3,\"retry\":{\"min_backoff\":\"15s\"}," CALLBACK
            "}");
        pbed_run(b, 60500);
        pbed_set(b)->fail = 1;
        struct pbed_call *c = pbed_call(b, PLANNER_BACKFILL, "a", NULL);
        c->api.backfill_from_ms = BED_NOW;
        c->api.backfill_to_ms = BED_NOW + 45 * SECOND;
        pbed_run(b, 5 * SECOND);
        cr_assert(eq(int, c->api.answer, PLANNER_ACCEPTED));
        pbed_set(b)->fail = 0;
        pbed_run(b, 80 * SECOND);
        const struct job_row *row = pbed_job(b, "a");
        cr_assert(eq(u64, row->counts.succeeded, row->counts.seq));
        other_last += row->last.seq != row->counts.seq;
        put_late(b, "{\"schedule\":\"*/10 * * * * *\",\"max_fires\":5," CALLBACK "}",
                 pbed_now(b) - BED_NOW - 41 * SECOND);
        pbed_run(b, 1 * SECOND);
        size_t n;
        const struct pbed_sent *sent = pbed_sent(b, &n);
        int64_t first_ms = BED_NOW + 50 * SECOND, sum_ms = sent[n - 2].due_ms + sent[n - 1].due_ms;
        cr_assert(eq(i64, sum_ms, 2 * first_ms + 10 * SECOND), "seed %d", (int)seed);
        pbed_check(b, true);
        pbed_free(b);
    }
    cr_assert(gt(uint, other_last, 0));
}

/* It was done before its due came. */
Test(planner_change, a_due_that_a_smaller_max_fires_took_away_comes_back_with_a_larger_one)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"*/10 * * * * *\"," CALLBACK "}");
    pbed_run(b, 25500);
    put_late(b, "{\"schedule\":\"*/10 * * * * *\",\"max_fires\":2," CALLBACK "}", 0);
    cr_assert(eq(int, pbed_job(b, "a")->state, JOB_STATE_DONE));
    pbed_run(b, SECOND);
    put_late(b, "{\"schedule\":\"*/10 * * * * *\",\"max_fires\":3," CALLBACK "}", 0);
    pbed_run(b, 10 * SECOND);
    cr_assert(eq(i64, pbed_job(b, "a")->last.due_ms, BED_NOW + 30 * SECOND));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 3));
    check_dues(b);
    pbed_free(b);
}

/* It fires at once, whatever the schedule before has fired since. */
Test(planner_change, an_instant_in_the_past_is_not_dropped)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"* * * * * *\"," CALLBACK "}");
    pbed_run(b, 10000);
    uint64_t before = pbed_job(b, "a")->counts.seq;
    put_late(b, "{\"schedule\":\"@at 2026-11-23T09:00:05.5Z\"," CALLBACK "}", 0);
    pbed_run(b, 3000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.seq, before + 1));
    cr_assert(eq(i64, row->last.due_ms, BED_NOW + 5500));
    cr_assert(eq(int, row->state, JOB_STATE_DONE));
    check_dues(b);
    pbed_free(b);
}

Test(planner_change, an_instant_that_the_schedule_before_has_fired_is)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"* * * * * *\"," CALLBACK "}");
    pbed_run(b, 10000);
    put_late(b, "{\"schedule\":\"@at 2026-11-23T09:00:05Z\"," CALLBACK "}", 0);
    pbed_run(b, 3000);
    cr_assert(eq(int, pbed_job(b, "a")->state, JOB_STATE_DONE));
    check_dues(b);
    pbed_free(b);
}

/* Until then the definition before was in force, and its dues were the job's. */
Test(planner_change, a_late_change_is_in_force_from_the_last_due_that_fired_before_it)
{
    for (int64_t late_ms = 500; late_ms <= 6500; late_ms += 500) {
        struct pbed *b = pbed_start_job("{\"schedule\":\"@every 3s\"," CALLBACK "}");
        pbed_run(b, 12200);
        put_late(b, "{\"schedule\":\"@every 1s\"," CALLBACK "}", late_ms);
        pbed_run(b, 5000);
        check_dues(b);
        pbed_check(b, false);
        pbed_free(b);
    }
}

/* Revisions are told in the order of these instants. */
Test(planner_change, a_version_is_in_force_after_the_one_it_follows)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"@every 3s\"," CALLBACK "}");
    int64_t since_ms = pbed_job(b, "a")->updated_ms;
    for (int i = 0; i < 4; i++) {
        char text[200];
        (void)snprintf(text, sizeof(text), "{\"schedule\":\"@every 1h\",\"payload\":%d," CALLBACK "}", i);
        put_late(b, text, 5 * SECOND * (i % 2));
        cr_assert(gt(i64, pbed_job(b, "a")->updated_ms, since_ms));
        since_ms = pbed_job(b, "a")->updated_ms;
    }
    pbed_free(b);
}

/* That its last due has fired may not be in the store yet. */
Test(planner_change, a_pause_is_answered_when_what_it_finds_is_durable)
{
    static const char job[] = "{\"schedule\":\"@after 1s\"," CALLBACK "}";
    unsigned waited = 0;
    for (int64_t at = 0; at < 400; at += 5)
        for (int puts = 0; puts < 2; puts++) {
            struct pbed *b = pbed_start_job(job);
            pbed_set(b)->commit_max_ms = 300;
            pbed_set(b)->duration_max_ms = 50;
            pbed_run(b, 900 + at);
            size_t sent;
            (void)pbed_sent(b, &sent);
            waited += sent > 0 && pbed_job(b, "a")->state == JOB_STATE_ACTIVE;
            struct pbed_call *c = pbed_call(b, puts ? PLANNER_PATCH : PLANNER_PAUSE, "a", puts ? job : NULL);
            c->api.paused = 1;
            while (!c->answered)
                pbed_run(b, 1);
            cr_assert(eq(int, c->api.answer, PLANNER_OK));
            cr_assert(ne(int, pbed_job(b, "a")->state, JOB_STATE_ACTIVE), "asked after %d ms", (int)at);
            pbed_free(b);
        }
    cr_assert(gt(uint, waited, 20));
}

/* The same of a resume of a job that is not paused. */
Test(planner_change, a_resume_is_answered_when_what_it_finds_is_durable)
{
    for (int64_t at = 0; at < 400; at += 5) {
        struct pbed *b = pbed_start_job("{\"schedule\":\"@after 1s\"," CALLBACK "}");
        pbed_set(b)->commit_max_ms = 300;
        pbed_set(b)->duration_max_ms = 50;
        pbed_run(b, 900 + at);
        struct pbed_call *c = pbed_call(b, PLANNER_RESUME, "a", NULL);
        while (!c->answered)
            pbed_run(b, 1);
        cr_assert(eq(int, c->api.answer, PLANNER_OK));
        cr_assert(le(u64, c->api.row.rev, pbed_job(b, "a")->rev), "asked after %d ms", (int)at);
        cr_assert(le(u64, c->api.row.counts.seq, pbed_job(b, "a")->counts.seq), "asked after %d ms", (int)at);
        pbed_free(b);
    }
}

/* What waits for a retry goes by the new definition when that is in the store. */
Test(planner_change, nothing_is_sent_by_a_definition_that_is_not_durable)
{
    for (int64_t at = 0; at < 1500; at += 13) {
        struct pbed *b =
            pbed_start_job("{\"schedule\":\"@after 1s\",\"retry\":{\"min_backoff\":\"1s\"}," CALLBACK "}");
        pbed_set(b)->commit_max_ms = 400;
        pbed_set(b)->fail = 1;
        pbed_run(b, 1000 + at);
        struct pbed_call *c = pbed_call(b, PLANNER_PUT, "a",
                                        "{\"schedule\":\"@at 2026-11-23T09:00:01.05Z\",\"payload\":1,"
                                        "\"retry\":{\"min_backoff\":\"1s\"}," CALLBACK "}");
        while (!c->in_planner)
            pbed_run(b, 1);
        size_t before, now;
        (void)pbed_sent(b, &before);
        uint64_t version = pbed_job(b, "a")->version;
        for (; pbed_job(b, "a")->version == version; pbed_run(b, 1)) {
            (void)pbed_sent(b, &now);
            cr_assert(eq(sz, now, before), "asked for after %d ms", (int)at);
        }
        pbed_free(b);
    }
}
