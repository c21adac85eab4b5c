/* Stories of asynchronous callees, of fires retried and given up by hand, and of replies that act on their job. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/lib/planner_bed.h"

#define HTTP  "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}"
#define ASYNC HTTP ",\"async\":{\"timeout\":\"10s\",\"max\":\"25s\"}}"
#define RETRY ",\"retry\":{\"min_backoff\":\"1s\",\"max_backoff\":\"1s\",\"jitter\":0,\"max_attempts\":3}"
#define ONCE  "{\"schedule\":\"@after 1s\"," ASYNC RETRY "}"

/* Callees accept with a 202 and say nothing by themselves. */
static struct pbed *silent(unsigned nodes)
{
    struct pbed_options o = pbed_defaults(7);
    o.async_silent = 1;
    return pbed_start(&o, nodes);
}

static const struct fire_row *fire_1(const struct pbed *b)
{
    return pbed_fire(b, &pbed_job(b, "a")->uid, 1);
}

static enum planner_answer tell(struct pbed *b, enum planner_api_op op, uint32_t attempt, bool ok)
{
    struct uid uid = pbed_job(b, "a")->uid;
    return pbed_fire_do(b, op, &uid, 1, attempt, ok);
}

static bool heartbeat(struct pbed *b, uint32_t attempt)
{
    struct uid uid = pbed_job(b, "a")->uid;
    struct pbed_call *c = pbed_fire_call(b, PLANNER_FIRE_HEARTBEAT, &uid, 1, attempt, true);
    while (!c->answered)
        pbed_run(b, 1);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    return c->api.fire_continue;
}

static struct pbed *open_fire(void)
{
    struct pbed *b = silent(1);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_run(b, 1500);
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN));
    return b;
}

static uint32_t attempts_told(const struct fire_row *f)
{
    uint32_t n = 0;
    for (const char *at = f->log; at && (at = strstr(at, "{\"attempt\":")) != NULL; at++)
        n++;
    return n;
}

static void over(struct pbed *b)
{
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_async, a_202_hands_the_fire_over_and_a_completion_ends_it)
{
    struct pbed *b = open_fire();
    const struct fire_row *f = fire_1(b);
    cr_assert(eq(u32, f->attempts, 1));
    cr_assert(not(zero(ptr, strstr(f->log, "\"status\":202"))), "%s", f->log);
    cr_assert(ge(i64, f->until_ms, f->attempt_ms + 25000));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_OK));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    cr_assert(zero(ptr, (void *)fire_1(b)), "the ring has it");
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_FINISHED));
    cr_assert(not(heartbeat(b, 1)));
    over(b);
}

Test(planner_async, a_failure_is_retried_by_the_rule)
{
    struct pbed *b = open_fire();
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, false), PLANNER_OK));
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_WAITING));
    cr_assert(eq(u32, pbed_job(b, "a")->consecutive_failures, 1));
    pbed_run(b, 1500);
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN));
    cr_assert(eq(u32, fire_1(b)->attempts, 2));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 2, true), PLANNER_OK));
    cr_assert(eq(int, fire_1(b)->outcome, FIRE_OUTCOME_SUCCEEDED));
    over(b);
}

Test(planner_async, silence_is_a_failed_attempt_and_heartbeats_put_it_off_to_the_maximum)
{
    struct pbed *b = open_fire();
    for (int i = 0; i < 2; i++) {
        pbed_run(b, 8000);
        cr_assert(heartbeat(b, 1));
        cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN));
    }
    cr_assert(eq(i64, fire_1(b)->wake_ms, fire_1(b)->until_ms), "no further than async.max");
    pbed_run(b, 9200);
    const struct fire_row *f = fire_1(b);
    cr_assert(ge(u32, f->attempts, 1));
    cr_assert(not(zero(ptr, strstr(f->log, "no completion and no heartbeat"))), "%s", f->log);
    pbed_run(b, 60000);
    f = fire_1(b);
    cr_assert(eq(int, f->outcome, FIRE_OUTCOME_DEAD));
    cr_assert(eq(int, f->reason, FIRE_REASON_MAX_ATTEMPTS));
    cr_assert(eq(u32, f->attempts, 3));
    over(b);
}

Test(planner_async, an_older_attempt_is_superseded_but_its_ok_ends_the_fire)
{
    struct pbed *b = open_fire();
    (void)tell(b, PLANNER_FIRE_COMPLETE, 1, false);
    pbed_run(b, 1500);
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, false), PLANNER_SUPERSEDED));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_HEARTBEAT, 1, true), PLANNER_SUPERSEDED), "nobody waits for it");
    cr_assert(heartbeat(b, 2));
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_SUPERSEDED));
    cr_assert(eq(int, fire_1(b)->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(eq(u32, attempts_told(fire_1(b)), 2), "%s", fire_1(b)->log);
    over(b);
}

Test(planner_async, an_attempt_that_was_thought_silent_is_told_once)
{
    struct pbed *b = silent(1);
    (void)pbed_do(
        b, PLANNER_CREATE, "a",
        "{\"schedule\":\"@after 1s\",\"retry\":{\"factor\":100,\"max_backoff\":\"1h\",\"jitter\":0}," ASYNC
        "}");
    pbed_run(b, 40000);
    const struct fire_row *f = fire_1(b);
    cr_assert(eq(int, f->state, FIRE_STATE_WAITING));
    cr_assert(eq(u32, attempts_told(f), 2), "%s", f->log);
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 2, true), PLANNER_OK));
    f = fire_1(b);
    cr_assert(eq(int, f->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(eq(u32, attempts_told(f), 2), "%s", f->log);
    over(b);
}

Test(planner_async, a_completion_before_the_202_ends_the_fire)
{
    struct pbed *b = silent(1);
    pbed_set(b)->duration_max_ms = 0;
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_set(b)->async_early = 1;
    pbed_set(b)->duration_max_ms = 4000;
    pbed_run(b, 10000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.succeeded, 1));
    cr_assert(eq(sz, pbed_sent_of(b, &row->uid, 1), 1));
    over(b);
}

/* Job "a" with COUNT open fires, asked for by hand. */
static struct pbed *many_open(unsigned count)
{
    struct pbed *b = silent(1);
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@daily\"," ASYNC "}");
    for (unsigned i = 0; i < count; i++)
        (void)pbed_do(b, PLANNER_RUN, "a", NULL);
    pbed_run(b, 500);
    return b;
}

Test(planner_async, completions_of_many_fires_of_a_job_do_not_wait_for_one_another)
{
    struct pbed *b = many_open(60);
    struct uid uid = pbed_job(b, "a")->uid;
    struct pbed_call *calls[60];
    pbed_set(b)->commit_max_ms = 400;
    for (unsigned i = 0; i < 60; i++)
        calls[i] =
            pbed_fire_call(b, i % 3 ? PLANNER_FIRE_COMPLETE : PLANNER_FIRE_HEARTBEAT, &uid, i + 1, 1, true);
    pbed_run(b, 1700); /* two commits there and back */
    for (unsigned i = 0; i < 60; i++)
        cr_assert(calls[i]->answered && calls[i]->api.answer == PLANNER_OK, "%u", i);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 40));
    pbed_set(b)->commit_max_ms = 4;
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner_async, callees_that_call_too_often_do_not_keep_people_out)
{
    struct pbed *b = many_open(2);
    struct uid uid = pbed_job(b, "a")->uid;
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_OK));
    pbed_set(b)->read_max_ms = 100;
    for (unsigned i = 0; i < 300; i++)
        (void)pbed_fire_call(b, PLANNER_FIRE_HEARTBEAT, &uid, 1, 1, true);
    struct pbed_call *c = pbed_call(b, PLANNER_PAUSE, "a", NULL);
    while (!c->answered)
        pbed_run(b, 1);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    cr_assert(not(c->api.repeated), "it was not sent away");
    pbed_run(b, 60000);
    pbed_free(b);
}

/* Its attempt is still on its way back: nothing has to be read for what is known. */
Test(planner_async, what_has_ended_before_the_202_is_told_at_once)
{
    struct pbed *b = silent(1);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_set(b)->duration_max_ms = 600000;
    pbed_run(b, 1500);
    cr_assert(eq(sz, pbed_sent_of(b, &pbed_job(b, "a")->uid, 1), 1));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_OK));
    int64_t at_ms = pbed_now(b);
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_FINISHED));
    cr_assert(not(heartbeat(b, 1)));
    cr_assert(le(i64, pbed_now(b) - at_ms, 4));
    pbed_run(b, 600000);
    over(b);
}

/* Who is called for that fire holds it, and has no reply yet. */
Test(planner_async, a_completion_waits_for_the_attempt_of_the_member_that_gave_the_slot_away)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct pbed *b = silent(2);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_set(b)->duration_max_ms = 4000;
    pbed_run(b, 1050);
    pbed_move(b, slots, 8, 0, 1);
    pbed_run(b, 50);
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_HELD));
    struct uid uid = pbed_job(b, "a")->uid;
    struct pbed_call *c = pbed_fire_call(b, PLANNER_FIRE_COMPLETE, &uid, 1, 1, true);
    while (!c->answered)
        pbed_run(b, 1);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    cr_assert(not(c->api.repeated), "it was not sent away");
    cr_assert(eq(sz, pbed_sent_of(b, &uid, 1), 1));
    over(b);
}

Test(planner_async, a_completion_of_what_another_member_holds_does_not_wait_for_ever)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct pbed *b = silent(2);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_set(b)->duration_max_ms = 600000;
    pbed_run(b, 1050);
    pbed_move(b, slots, 8, 0, 1);
    pbed_run(b, 50);
    struct uid uid = pbed_job(b, "a")->uid;
    struct pbed_call *c = pbed_fire_call(b, PLANNER_FIRE_COMPLETE, &uid, 1, 1, true);
    pbed_run(b, 1800);
    cr_assert(not(c->api.repeated));
    pbed_run(b, 400);
    cr_assert(c->api.repeated, "503: it may be asked again");
    pbed_run(b, 600000);
    cr_assert(c->answered);
    over(b);
}

Test(planner_async, an_open_fire_outlives_its_owner)
{
    struct pbed *b = silent(2);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_run(b, 1500);
    pbed_set(b)->planned_only = false;
    pbed_node_kill(b, 0, 200);
    pbed_run(b, 1000);
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN));
    cr_assert(heartbeat(b, 1));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_OK));
    cr_assert(eq(sz, pbed_sent_of(b, &pbed_job(b, "a")->uid, 1), 1), "not sent again");
    over(b);
}

Test(planner_async, callees_get_a_while_to_be_heard_when_nobody_was_there)
{
    struct pbed *b = silent(2);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_run(b, 1500);
    pbed_set(b)->planned_only = false;
    pbed_node_kill(b, 0, 30000); /* long after the callee's time */
    pbed_run(b, 31000);
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_OK));
    over(b);
}

Test(planner_async, an_open_fire_moves_with_its_slot_and_stands_a_pause_and_a_put)
{
    struct pbed *b = silent(2);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_run(b, 1500);
    uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    pbed_move(b, slots, 8, 0, 1);
    pbed_run(b, 500);
    (void)pbed_do(b, PLANNER_PAUSE, "a", NULL);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@after 90s\"," HTTP "}" RETRY "}");
    cr_assert(heartbeat(b, 1));
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_COMPLETE, 1, true), PLANNER_OK));
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    pbed_free(b);
}

Test(planner_async, a_delete_ends_an_open_fire_as_deleted)
{
    struct pbed *b = open_fire();
    struct uid uid = pbed_job(b, "a")->uid;
    struct pbed_call *c = pbed_call(b, PLANNER_DELETE, "a", NULL);
    while (!c->answered)
        pbed_run(b, 1);
    cr_assert(c->api.deleted_in_flight);
    cr_assert(eq(int, pbed_fire(b, &uid, 1)->reason, FIRE_REASON_DELETED));
    cr_assert(eq(int, pbed_fire_do(b, PLANNER_FIRE_COMPLETE, &uid, 1, 1, true), PLANNER_FINISHED));
    c = pbed_fire_call(b, PLANNER_FIRE_HEARTBEAT, &uid, 1, 1, true);
    while (!c->answered)
        pbed_run(b, 1);
    cr_assert(not(c->api.fire_continue), "its callee is told to stop");
    over(b);
}

Test(planner_async, forbid_skips_while_a_fire_is_open)
{
    struct pbed *b = silent(1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@every 1s\",\"concurrency\":\"forbid\"," ASYNC "}");
    pbed_run(b, 5500);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.seq - row->counts.skipped, 1), "one open, all else skipped");
    cr_assert(ge(u64, row->counts.skipped, 3));
    cr_assert(eq(int, row->last.reason, FIRE_REASON_OVERLAP));
    pbed_free(b);
}

Test(planner_async, replace_cancels_an_open_fire)
{
    struct pbed *b = silent(1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@every 2s\",\"concurrency\":\"replace\"," ASYNC "}");
    pbed_run(b, 4700);
    cr_assert(eq(int, fire_1(b)->reason, FIRE_REASON_REPLACED));
    cr_assert(not(heartbeat(b, 1)), "its callee is told to stop");
    pbed_free(b);
}

Test(planner_async, a_retry_by_hand_goes_out_at_once_also_of_a_paused_job)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_new(&o);
    (void)pbed_node_start(b);
    pbed_give_all(b, 0);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@after 1s\"," HTTP "},\"retry\":{\"min_backoff\":\"4m\"}}");
    pbed_run(b, 2000);
    (void)pbed_do(b, PLANNER_PAUSE, "a", NULL);
    pbed_set(b)->fail = 0;
    cr_assert(eq(int, tell(b, PLANNER_FIRE_RETRY, 0, false), PLANNER_ACCEPTED));
    pbed_run(b, 500);
    cr_assert(eq(int, fire_1(b)->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_RETRY, 0, false), PLANNER_FINISHED));
    over(b);
}

Test(planner_async, a_retry_by_hand_of_an_open_fire_counts_the_attempt_as_failed)
{
    struct pbed *b = open_fire();
    cr_assert(eq(int, tell(b, PLANNER_FIRE_RETRY, 0, false), PLANNER_ACCEPTED));
    pbed_run(b, 200);
    cr_assert(eq(u32, fire_1(b)->attempts, 2));
    cr_assert(eq(int, tell(b, PLANNER_FIRE_HEARTBEAT, 1, true), PLANNER_SUPERSEDED));
    cr_assert(heartbeat(b, 2));
    (void)tell(b, PLANNER_FIRE_COMPLETE, 2, true);
    over(b);
}

Test(planner_async, cancel_gives_up_what_waits_what_runs_and_what_is_open)
{
    for (int story = 0; story < 3; story++) {
        struct pbed_options o = pbed_defaults(7);
        o.async_silent = 1;
        o.fail = story == 0;
        o.duration_max_ms = 4000;
        struct pbed *b = pbed_new(&o);
        (void)pbed_node_start(b);
        pbed_give_all(b, 0);
        const char *text =
            story == 2 ? ONCE : "{\"schedule\":\"@after 1s\"," HTTP "},\"retry\":{\"min_backoff\":\"4m\"}}";
        (void)pbed_do(b, PLANNER_CREATE, "a", text);
        pbed_run(b, story == 1 ? 1010 : 6000);
        cr_assert(eq(int, tell(b, PLANNER_FIRE_CANCEL, 0, false), PLANNER_OK), "story %d", story);
        cr_assert(eq(int, fire_1(b)->reason, FIRE_REASON_CANCELLED), "story %d", story);
        size_t sent = pbed_sent_of(b, &pbed_job(b, "a")->uid, 1);
        pbed_run(b, 600000);
        cr_assert(eq(sz, pbed_sent_of(b, &pbed_job(b, "a")->uid, 1), sent));
        cr_assert(eq(u64, pbed_job(b, "a")->counts.cancelled, 1));
        over(b);
    }
}

Test(planner_async, a_fire_far_from_its_time_is_found_in_the_store)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    o.horizon_ms = 2000;
    struct pbed *b = pbed_new(&o);
    (void)pbed_node_start(b);
    pbed_give_all(b, 0);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@after 1s\"," HTTP "},\"retry\":{\"min_backoff\":\"4m\"}}");
    pbed_run(b, 10000);
    cr_assert(zero(sz, planner_stats(pbed_planner(b, 0))->fires_loaded));
    pbed_set(b)->fail = 0;
    cr_assert(eq(int, tell(b, PLANNER_FIRE_RETRY, 0, false), PLANNER_ACCEPTED));
    pbed_run(b, 500);
    cr_assert(eq(int, fire_1(b)->outcome, FIRE_OUTCOME_SUCCEEDED));
    over(b);
}

Test(planner_async, what_never_was_is_not_found)
{
    struct pbed *b = silent(1);
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@after 1h\"," ASYNC "}");
    cr_assert(eq(int, tell(b, PLANNER_FIRE_CANCEL, 0, false), PLANNER_NOT_FOUND));
    struct uid uid = pbed_job(b, "a")->uid;
    uid.bytes[9] ^= 1;
    cr_assert(eq(int, pbed_fire_do(b, PLANNER_FIRE_RETRY, &uid, 1, 0, false), PLANNER_NOT_FOUND));
    pbed_free(b);
}

Test(planner_async, a_reply_may_pause_or_delete_its_job)
{
    for (int control = ATTEMPT_CONTROL_PAUSE; control <= ATTEMPT_CONTROL_DELETE; control++) {
        struct pbed_options o = pbed_defaults(7);
        o.control = (enum attempt_control)control;
        struct pbed *b = pbed_new(&o);
        (void)pbed_node_start(b);
        pbed_give_all(b, 0);
        (void)pbed_do(b, PLANNER_CREATE, "a",
                      "{\"schedule\":\"@every 1s\"," HTTP ",\"allow_control\":true}}");
        pbed_run(b, 3500);
        const struct job_row *row = pbed_job(b, "a");
        size_t n;
        (void)pbed_sent(b, &n);
        cr_assert(eq(sz, n, 1), "control %d: nothing is sent after it", control);
        cr_assert(eq(int, row != NULL, control == ATTEMPT_CONTROL_PAUSE));
        if (row) {
            cr_assert(eq(int, row->state, JOB_STATE_PAUSED));
            cr_assert(eq(u64, row->counts.succeeded, 1));
            cr_assert(eq(u64, row->version, 2));
        }
        pbed_free(b);
    }
}

Test(planner_async, what_a_reply_asks_of_a_job_that_moved_meanwhile_is_done_by_its_new_owner)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int control = ATTEMPT_CONTROL_PAUSE; control <= ATTEMPT_CONTROL_DELETE; control++) {
        struct pbed_options o = pbed_defaults(7);
        o.control = (enum attempt_control)control;
        o.duration_max_ms = 8000;
        struct pbed *b = pbed_new(&o);
        (void)pbed_node_start(b);
        (void)pbed_node_start(b);
        pbed_give_all(b, 0);
        (void)pbed_do(b, PLANNER_CREATE, "a",
                      "{\"schedule\":\"@every 20s\"," HTTP ",\"allow_control\":true}}");
        while (pbed_fires_count(b) == 0) {
            pbed_run(b, 50);
            size_t n;
            (void)pbed_sent(b, &n);
            if (n == 1 && planner_owns(pbed_planner(b, 0), 0))
                pbed_move(b, slots, 8, 0, 1);
        }
        cr_assert(eq(int, pbed_fire(b, &pbed_job(b, "a")->uid, 1)->state, FIRE_STATE_HELD));
        pbed_run(b, 15000);
        const struct job_row *row = pbed_job(b, "a");
        cr_assert(eq(int, row != NULL, control == ATTEMPT_CONTROL_PAUSE));
        if (row) {
            cr_assert(eq(int, row->state, JOB_STATE_PAUSED));
            cr_assert(eq(i64, pbed_fire(b, &row->uid, 1)->until_ms, RECORD_NONE));
            pbed_check(b, false);
        }
        pbed_free(b);
    }
}

/* It waits behind a write of the API, and its slot goes before that is durable. */
static void ask_move(enum attempt_control control, int64_t put_ms, int64_t move_ms)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct pbed_options o = pbed_defaults(7);
    o.control = control;
    o.duration_max_ms = 0;
    struct pbed *b = pbed_new(&o);
    (void)pbed_node_start(b);
    (void)pbed_node_start(b);
    pbed_give_all(b, 0);
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@every 20s\"," HTTP ",\"allow_control\":true}}");
    pbed_set(b)->commit_max_ms = 300;
    pbed_run(b, pbed_job(b, "a")->due_ms - pbed_now(b) - put_ms);
    (void)pbed_call(b, PLANNER_RUN, "a", NULL);
    pbed_run(b, move_ms);
    pbed_move(b, slots, 8, 0, 1);
    pbed_run(b, 10000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(int, row != NULL, control == ATTEMPT_CONTROL_PAUSE), "put %d ms before, move after %d",
              (int)put_ms, (int)move_ms);
    if (row)
        cr_assert(eq(int, row->state, JOB_STATE_PAUSED), "put %d ms before, move after %d", (int)put_ms,
                  (int)move_ms);
    pbed_free(b);
}

Test(planner_async, what_a_reply_asks_is_done_before_its_slot_goes)
{
    for (int64_t put_ms = 0; put_ms < 300; put_ms += 17)
        for (int64_t move_ms = 1; move_ms < 600; move_ms += 29) {
            ask_move(ATTEMPT_CONTROL_PAUSE, put_ms, move_ms);
            ask_move(ATTEMPT_CONTROL_DELETE, put_ms, move_ms);
        }
}

Test(planner_async, what_waits_for_a_job_that_is_deleted_is_not_done_to_the_next_one_of_that_name)
{
    struct pbed *b = open_fire();
    struct uid old = pbed_job(b, "a")->uid;
    (void)pbed_call(b, PLANNER_DELETE, "a", NULL);
    (void)pbed_call(b, PLANNER_PUT, "a", "{\"schedule\":\"@daily\"," ASYNC "}");
    (void)pbed_call(b, PLANNER_RUN, "a", NULL);
    struct pbed_call *c = pbed_fire_call(b, PLANNER_FIRE_COMPLETE, &old, 1, 1, true);
    pbed_run(b, 2000);
    cr_assert(c->answered);
    cr_assert(eq(int, c->api.answer, PLANNER_FINISHED));
    cr_assert(eq(int, c->api.outcome, FIRE_OUTCOME_CANCELLED));
    cr_assert(eq(int, fire_1(b)->state, FIRE_STATE_OPEN), "the run of the new one");
    pbed_free(b);
}
