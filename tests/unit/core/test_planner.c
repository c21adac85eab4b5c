/* Stories of single fires and writes; what many of them do together is in test_planner_model.c. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/hashring.h"
#include "agent/core/ring_log.h"
#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define EVERY_1S "{\"schedule\":\"@every 1s\"," CALLBACK "}"
#define ONCE     "{\"schedule\":\"@after 3s\"," CALLBACK "}"

static uint16_t slot_of(const struct pbed *b, const char *id)
{
    (void)b;
    return (uint16_t)hashring_slot("default", id, pbed_defaults(0).slots);
}

static size_t sent_count(const struct pbed *b)
{
    size_t n;
    (void)pbed_sent(b, &n);
    return n;
}

static enum planner_answer resume(struct pbed *b, const char *id, enum planner_catch_up catch_up)
{
    struct pbed_call *c = pbed_call(b, PLANNER_RESUME, id, NULL);
    c->api.catch_up = catch_up;
    while (!c->answered)
        pbed_run(b, 1);
    return c->api.answer;
}

Test(planner, a_first_attempt_success_costs_one_row_update)
{
    struct pbed *b = pbed_start(NULL, 1);
    cr_assert(eq(int, pbed_do(b, PLANNER_CREATE, "a", EVERY_1S), PLANNER_CREATED));
    size_t rows = pbed_row_writes(b);
    pbed_run(b, 10000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.succeeded, 9));
    cr_assert(eq(u64, row->counts.succeeded, row->counts.seq));
    cr_assert(eq(sz, pbed_row_writes(b) - rows, row->counts.seq));
    cr_assert(zero(sz, pbed_fire_writes(b)));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, the_ring_holds_the_newest_successes)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", EVERY_1S);
    pbed_run(b, 20500);
    const struct job_row *row = pbed_job(b, "a");
    struct ring_entry entries[RING_LOG_KEEP_MAX];
    size_t n = 0;
    cr_assert(zero(int, ring_log_read(row->ring, row->ring_bytes, entries, &n, NULL)));
    cr_assert(eq(sz, n, 16));
    cr_assert(eq(u64, entries[0].seq, row->counts.seq));
    cr_assert(eq(i64, entries[0].due_ms, row->last.due_ms));
    pbed_free(b);
}

Test(planner, a_failed_first_attempt_is_booked_and_the_job_goes_on)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@every 1s\"," CALLBACK
                  ",\"retry\":{\"min_backoff\":\"10s\",\"max_backoff\":\"10s\",\"max_attempts\":2}}");
    pbed_run(b, 2500);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.seq, 2));
    const struct fire_row *f = pbed_fire(b, &row->uid, 1);
    cr_assert(not(zero(ptr, (void *)f)));
    cr_assert(eq(int, f->state, FIRE_STATE_WAITING));
    cr_assert(eq(u32, f->attempts, 1));
    cr_assert(zero(int, strcmp(f->last_error, "status 503")));
    cr_assert(not(zero(ptr, strstr(f->log, "\"excerpt\":\"busy \\\"now\\\"\""))));
    pbed_set(b)->fail = 0;
    pbed_run(b, 15000);
    f = pbed_fire(b, &row->uid, 1);
    cr_assert(not(zero(ptr, strstr(f->log, "\"excerpt\":null"))), "each attempt has all its fields: %s",
              f->log);
    row = pbed_job(b, "a");
    cr_assert(eq(int, f->state, FIRE_STATE_ENDED));
    cr_assert(eq(int, f->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(eq(i64, f->wake_ms, f->finished_ms + BED_HISTORY_KEEP_MS));
    cr_assert(eq(u32, f->attempts, 2));
    cr_assert(not(zero(ptr, strstr(f->log, "\"attempt\":2"))), "the one that succeeded is told too: %s",
              f->log);
    cr_assert(zero(u32, row->consecutive_failures));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, a_fire_whose_retries_are_used_up_is_a_dead_letter)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@after 1s\"," CALLBACK
                  ",\"retry\":{\"min_backoff\":\"1s\",\"max_attempts\":3}}");
    pbed_run(b, 20000);
    const struct job_row *row = pbed_job(b, "a");
    const struct fire_row *f = pbed_fire(b, &row->uid, 1);
    cr_assert(eq(int, f->outcome, FIRE_OUTCOME_DEAD));
    cr_assert(eq(int, f->reason, FIRE_REASON_MAX_ATTEMPTS));
    cr_assert(eq(i64, f->wake_ms, f->finished_ms + BED_DEAD_KEEP_MS), "kept as long as dead letters are");
    cr_assert(eq(sz, pbed_sent_of(b, &row->uid, 1), 3));
    cr_assert(eq(u64, row->counts.dead, 1));
    cr_assert(eq(int, row->state, JOB_STATE_DONE));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, a_give_up_code_ends_a_fire_at_once)
{
    struct pbed_options o = pbed_defaults(7);
    o.give_up = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", ONCE);
    pbed_run(b, 5000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(sz, pbed_sent_of(b, &row->uid, 1), 1));
    cr_assert(eq(int, pbed_fire(b, &row->uid, 1)->reason, FIRE_REASON_GIVE_UP));
    pbed_free(b);
}

Test(planner, a_long_attempt_does_not_hold_up_the_next_due)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 0;
    struct pbed *b = pbed_start(&o, 1);
    pbed_set(b)->duration_max_ms = 60000;
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@every 1s\"," CALLBACK ",\"max_pending\":4}");
    pbed_run(b, 3500);
    cr_assert(eq(sz, sent_count(b), 3));
    pbed_run(b, 1000000);
    pbed_set(b)->duration_max_ms = 1;
    (void)pbed_do(b, PLANNER_PAUSE, "a", NULL);
    pbed_run(b, 70000);
    pbed_check(b, false); /* what was called back waits for the end of the pause */
    pbed_free(b);
}

Test(planner, max_pending_holds_back_further_dues)
{
    struct pbed_options o = pbed_defaults(7);
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@every 1s\"," CALLBACK
                  ",\"max_pending\":3,\"retry\":{\"min_backoff\":\"1h\",\"max_backoff\":\"1h\"}}");
    pbed_run(b, 30000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, 3));
    pbed_free(b);
}

Test(planner, never_before_due_and_jitter)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@every 2s\"," CALLBACK ",\"jitter\":\"900ms\"}");
    pbed_run(b, 60000); /* the bed asserts it of each */
    cr_assert(ge(sz, sent_count(b), 28));
    pbed_free(b);
}

Test(planner, nothing_starts_without_the_lease)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", EVERY_1S);
    pbed_lease(b, 0, false);
    pbed_run(b, 5000);
    cr_assert(zero(sz, sent_count(b)));
    cr_assert(ge(sz, planner_stats(pbed_planner(b, 0))->waiting_start, 1));
    pbed_lease(b, 0, true);
    pbed_run(b, 1000);
    cr_assert(ge(sz, sent_count(b), 5)); /* misfire: all */
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner, nothing_starts_while_ends_cannot_be_written)
{
    struct pbed *b = pbed_start(NULL, 1);
    for (int i = 0; i < 5; i++) {
        char id[16];
        snprintf(id, sizeof(id), "j%d", i);
        (void)pbed_do(b, PLANNER_CREATE, id, EVERY_1S);
    }
    pbed_set(b)->unavailable = 1;
    pbed_run(b, 20000);
    cr_assert(le(sz, sent_count(b), 15));
    size_t before = sent_count(b);
    pbed_run(b, 20000);
    cr_assert(eq(sz, sent_count(b), before));
    pbed_set(b)->unavailable = 0;
    pbed_run(b, 60000);
    cr_assert(gt(sz, sent_count(b), before + 100));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner, writes_are_answered_unavailable_while_the_store_is_away)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", EVERY_1S);
    pbed_set(b)->unavailable = 1;
    struct pbed_call *c = pbed_call(b, PLANNER_PUT, "a", ONCE);
    pbed_run(b, 10000);
    cr_assert(not(c->answered)); /* the bed sends it again each time that it is refused */
    cr_assert(c->api.repeated);
    pbed_set(b)->unavailable = 0;
    pbed_run(b, 10000);
    cr_assert(c->answered);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    cr_assert(eq(u64, pbed_job(b, "a")->version, 2));
    pbed_free(b);
}

Test(planner, nothing_starts_after_a_delete_was_answered)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", EVERY_1S);
    pbed_run(b, 3500);
    cr_assert(eq(int, pbed_do(b, PLANNER_DELETE, "a", NULL), PLANNER_OK));
    size_t before = sent_count(b);
    pbed_run(b, 5000);
    cr_assert(eq(sz, sent_count(b), before));
    cr_assert(eq(int, pbed_do(b, PLANNER_DELETE, "a", NULL), PLANNER_NOT_FOUND));
    cr_assert(eq(int, pbed_do(b, PLANNER_CREATE, "a", EVERY_1S), PLANNER_CREATED));
    pbed_run(b, 1500);
    cr_assert(gt(sz, sent_count(b), before));
    pbed_free(b);
}

Test(planner, a_delete_says_whether_an_attempt_runs)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 100000;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", "{\"schedule\":\"@after 1s\"," CALLBACK "}");
    pbed_run(b, 1200);
    struct pbed_call *c = pbed_call(b, PLANNER_DELETE, "a", NULL);
    pbed_run(b, 50);
    cr_assert(c->answered);
    cr_assert(c->api.deleted_in_flight);
    cr_assert(eq(u64, c->api.row.version, 1));
    pbed_free(b);
}

Test(planner, create_tells_what_is_there)
{
    struct pbed *b = pbed_start(NULL, 1);
    cr_assert(eq(int, pbed_do(b, PLANNER_CREATE, "a", EVERY_1S), PLANNER_CREATED));
    cr_assert(eq(int, pbed_do(b, PLANNER_CREATE, "a", EVERY_1S), PLANNER_EXISTS));
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "b", ONCE), PLANNER_CREATED));
    cr_assert(eq(int, pbed_do(b, PLANNER_PATCH, "c", ONCE), PLANNER_NOT_FOUND));
    pbed_free(b);
}

Test(planner, a_repeated_create_is_the_same_job)
{
    struct pbed *b = pbed_start(NULL, 1);
    struct pbed_call *c = pbed_call(b, PLANNER_CREATE, "a", EVERY_1S);
    pbed_run(b, 100);
    struct pbed_call *again = pbed_call(b, PLANNER_CREATE, "a", EVERY_1S);
    again->api.change_id = c->api.change_id;
    again->api.repeated = true;
    pbed_run(b, 100);
    cr_assert(eq(int, again->api.answer, PLANNER_CREATED));
    cr_assert(zero(int, memcmp(&again->api.row.uid, &c->api.row.uid, sizeof(c->api.row.uid))));
    (void)pbed_do(b, PLANNER_PATCH, "a", ONCE); /* its change id is another's now: the revisions know */
    struct pbed_call *third = pbed_call(b, PLANNER_CREATE, "a", EVERY_1S);
    third->api.change_id = c->api.change_id;
    third->api.repeated = true;
    pbed_run(b, 100);
    cr_assert(eq(int, third->api.answer, PLANNER_CREATED));
    pbed_free(b);
}

Test(planner, an_equal_put_changes_nothing)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}");
    size_t rows = pbed_row_writes(b);
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}"), PLANNER_OK));
    cr_assert(eq(sz, pbed_row_writes(b), rows));
    cr_assert(eq(u64, pbed_job(b, "a")->version, 1));
    pbed_free(b);
}

Test(planner, preconditions)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", ONCE);
    struct pbed_call *none = pbed_call(b, PLANNER_PUT, "a", EVERY_1S),
                     *stale = pbed_call(b, PLANNER_PUT, "a", EVERY_1S);
    struct pbed_call *absent = pbed_call(b, PLANNER_PUT, "nobody", EVERY_1S);
    none->api.if_none_match = true;
    stale->api.if_match = absent->api.if_match = true;
    stale->api.match_uid = pbed_job(b, "a")->uid;
    stale->api.match_version = 7;
    struct pbed_call *any = pbed_call(b, PLANNER_DELETE, "nobody", NULL);
    any->api.if_match = true; /* match_version 0: whichever there is, and there is none */
    struct pbed_call *right = pbed_call(b, PLANNER_PUT, "a", EVERY_1S);
    right->api.if_match = true;
    right->api.match_uid = pbed_job(b, "a")->uid;
    right->api.match_version = 1;
    pbed_run(b, 100);
    cr_assert(eq(int, none->api.answer, PLANNER_MISMATCH));
    cr_assert(eq(int, stale->api.answer, PLANNER_MISMATCH));
    cr_assert(eq(int, absent->api.answer, PLANNER_MISMATCH));
    cr_assert(eq(int, right->api.answer, PLANNER_OK));
    cr_assert(eq(u64, right->api.row.version, 2));
    cr_assert(eq(int, any->api.answer, PLANNER_MISMATCH));
    any = pbed_call(b, PLANNER_DELETE, "a", NULL);
    any->api.if_match = true;
    pbed_run(b, 100);
    cr_assert(eq(int, any->api.answer, PLANNER_OK));
    pbed_free(b);
}

Test(planner, put_keeps_uid_and_seq_and_counts_the_fire_in_flight)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 3000;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", EVERY_1S);
    pbed_run(b, 1200);
    struct uid uid = pbed_job(b, "a")->uid;
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@every 1h\"," CALLBACK "}");
    pbed_run(b, 10000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(zero(int, memcmp(&row->uid, &uid, sizeof(uid))));
    cr_assert(eq(u64, row->counts.seq, 1));
    cr_assert(eq(u64, row->counts.succeeded, 1));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, a_put_of_the_same_schedule_keeps_the_due)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}");
    int64_t due_ms = pbed_job(b, "a")->due_ms;
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\",\"description\":\"x\"," CALLBACK "}");
    cr_assert(eq(i64, pbed_job(b, "a")->due_ms, due_ms));
    cr_assert(eq(u64, pbed_job(b, "a")->version, 2));
    pbed_free(b);
}

Test(planner, after_arms_a_finished_job_anew)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", ONCE);
    pbed_run(b, 5000);
    cr_assert(eq(int, pbed_job(b, "a")->state, JOB_STATE_DONE));
    (void)pbed_do(b, PLANNER_PUT, "a", ONCE);
    cr_assert(eq(int, pbed_job(b, "a")->state, JOB_STATE_ACTIVE));
    pbed_run(b, 5000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 2));
    pbed_free(b);
}

Test(planner, a_done_job_goes_after_its_ttl)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a",
                  "{\"schedule\":\"@after 1s\"," CALLBACK ",\"ttl_after_done\":\"10m\"}");
    pbed_run(b, 9 * 60000);
    cr_assert(not(zero(ptr, (void *)pbed_job(b, "a"))));
    pbed_run(b, 2 * 60000);
    cr_assert(zero(ptr, (void *)pbed_job(b, "a")));
    pbed_free(b);
}

Test(planner, dues_while_paused_are_one_skipped_run)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", EVERY_1S);
    cr_assert(eq(int, pbed_do(b, PLANNER_PAUSE, "a", NULL), PLANNER_OK));
    uint64_t seq = pbed_job(b, "a")->counts.seq;
    pbed_run(b, 3600000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.seq, seq));
    cr_assert(eq(int, resume(b, "a", PLANNER_CATCH_UP_NONE), PLANNER_OK));
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(ge(u64, row->counts.skipped, 3599));
    const struct fire_row *f = pbed_fire(b, &row->uid, seq + 1);
    cr_assert(eq(u64, f->seq_last - f->seq + 1, row->counts.skipped));
    cr_assert(eq(int, f->reason, FIRE_REASON_PAUSED));
    pbed_run(b, 3000);
    cr_assert(ge(u64, pbed_job(b, "a")->counts.succeeded, 2));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, resume_catches_up_as_asked)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "last", "{\"schedule\":\"@every 1m\"," CALLBACK "}");
    (void)pbed_do(b, PLANNER_PUT, "all", "{\"schedule\":\"@every 1m\"," CALLBACK "}");
    (void)pbed_do(b, PLANNER_PAUSE, "last", NULL);
    (void)pbed_do(b, PLANNER_PAUSE, "all", NULL);
    pbed_run(b, 10 * 60000 + 30000);
    (void)resume(b, "last", PLANNER_CATCH_UP_LAST);
    (void)resume(b, "all", PLANNER_CATCH_UP_ALL);
    pbed_run(b, 5000);
    cr_assert(eq(u64, pbed_job(b, "last")->counts.succeeded, 1));
    cr_assert(eq(u64, pbed_job(b, "last")->counts.skipped, 9));
    cr_assert(eq(u64, pbed_job(b, "all")->counts.succeeded, 10));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, a_paused_one_shot_waits)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", ONCE);
    (void)pbed_do(b, PLANNER_PAUSE, "a", NULL);
    pbed_run(b, 60000);
    cr_assert(zero(sz, sent_count(b)));
    (void)resume(b, "a", PLANNER_CATCH_UP_NONE);
    pbed_run(b, 2000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    pbed_free(b);
}

Test(planner, waiting_for_an_endpoint_is_written_once_and_no_attempt)
{
    struct pbed_options o = pbed_defaults(7);
    o.no_endpoint = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@after 1s\"," CALLBACK "}");
    pbed_run(b, 60000);
    const struct fire_row *f = pbed_fire(b, &pbed_job(b, "a")->uid, 1);
    cr_assert(eq(int, f->reason, FIRE_REASON_NO_ENDPOINT));
    cr_assert(zero(u32, f->attempts));
    cr_assert(le(sz, pbed_fire_writes(b), 2));
    pbed_set(b)->no_endpoint = 0;
    pbed_run(b, 5000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, a_run_is_booked_before_it_is_sent_and_kept)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"0 0 1 1 *\"," CALLBACK "}");
    struct pbed_call *c = pbed_call(b, PLANNER_RUN, "a", NULL);
    c->api.run_payload = (void *)(uintptr_t) "{\"x\":1}";
    c->api.run_payload_bytes = 7;
    pbed_run(b, 1000);
    cr_assert(eq(int, c->api.answer, PLANNER_ACCEPTED));
    cr_assert(eq(u64, c->api.run_seq, 1));
    const struct fire_row *f = pbed_fire(b, &pbed_job(b, "a")->uid, 1);
    cr_assert(eq(int, f->kind, FIRE_KIND_RUN));
    cr_assert(eq(int, f->outcome, FIRE_OUTCOME_SUCCEEDED));
    cr_assert(not(zero(ptr, strstr(f->log ? f->log : "", "\"attempt\":1"))));
    cr_assert(zero(u64, pbed_job(b, "a")->scheduled));
    pbed_check(b, true);
    pbed_free(b);
}

static struct pbed *after_a_night(const char *text, int64_t due_ms, int64_t away_ms)
{
    struct pbed_options o = pbed_defaults(7);
    struct pbed *b = pbed_new(&o);
    (void)pbed_store_put(b, pbed_spec(b, "a", text), BED_NOW + due_ms);
    pbed_run(b, away_ms);
    int n = pbed_node_start(b);
    pbed_give_all(b, n);
    return b;
}

Test(planner, misfire_all_fires_each_in_order)
{
    struct pbed *b = after_a_night("{\"schedule\":\"@every 1m\"," CALLBACK "}", 60000, 30 * 60000);
    pbed_run(b, 5000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 30));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, misfire_last_folds_the_rest)
{
    struct pbed *b = after_a_night(
        "{\"schedule\":\"@every 1m\",\"misfire\":{\"policy\":\"last\"}," CALLBACK "}", 60000, 30 * 60000);
    pbed_run(b, 5000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.succeeded, 1));
    cr_assert(eq(u64, row->counts.coalesced, 29));
    cr_assert(eq(u32, pbed_fire(b, &row->uid, 30)->coalesced, 29));
    cr_assert(eq(sz, sent_count(b), 1));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, what_is_later_than_the_window_is_skipped)
{
    struct pbed *b = after_a_night(
        "{\"schedule\":\"@every 1m\",\"misfire\":{\"window\":\"10m\"}," CALLBACK "}", 60000, 60 * 60000);
    pbed_run(b, 5000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.skipped + row->counts.succeeded, 60));
    cr_assert(le(u64, row->counts.succeeded, 11));
    cr_assert(eq(int, pbed_fire(b, &row->uid, 1)->reason, FIRE_REASON_LATE));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, a_one_shot_has_no_window)
{
    struct pbed *b = after_a_night("{\"schedule\":\"@after 1s\"," CALLBACK "}", 1000, INT64_C(3) * 86400000);
    pbed_run(b, 5000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 1));
    pbed_free(b);
}

/* A hundred one-shots of one target that came due while nobody ran; how many distinct ones were sent within MS. */
static size_t caught_up_in(double give_up, int64_t ms)
{
    struct pbed_options o = pbed_defaults(7);
    o.catch_up_per_s = 10;
    o.give_up = give_up;
    o.duration_max_ms = 400;
    struct pbed *b = pbed_new(&o);
    for (int i = 0; i < 100; i++) {
        char id[16];
        snprintf(id, sizeof(id), "j%d", i);
        (void)pbed_store_put(b, pbed_spec(b, id, ONCE), BED_NOW + 3000);
    }
    pbed_run(b, 60000);
    int n = pbed_node_start(b);
    pbed_give_all(b, n);
    pbed_run(b, ms);
    size_t sent = sent_count(b);
    pbed_run(b, 30000);
    cr_assert(eq(sz, sent_count(b), 100));
    pbed_free(b);
    return sent;
}

Test(planner, catch_up_with_a_target_that_fails_keeps_to_the_base_rate)
{
    size_t sent = caught_up_in(1, 5000);
    cr_assert(ge(sz, sent, 40));
    cr_assert(le(sz, sent, 60));
}

Test(planner, catch_up_with_a_target_that_answers_speeds_up)
{
    cr_assert(ge(sz, caught_up_in(0, 5000), 90));
    cr_assert(le(sz, caught_up_in(0, 500), 20));
}

static struct pbed *two_members(int64_t duration_max_ms)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = duration_max_ms;
    struct pbed *b = pbed_new(&o);
    (void)pbed_node_start(b);
    (void)pbed_node_start(b);
    pbed_give_all(b, 0);
    return b;
}

Test(planner, a_planned_move_repeats_nothing_and_the_end_is_counted)
{
    struct pbed *b = two_members(4000);
    uint16_t slot = slot_of(b, "a");
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@every 1s\"," CALLBACK ",\"max_fires\":20}");
    for (int i = 0; i < 12; i++) {
        pbed_move(b, &slot, 1, i % 2, 1 - i % 2);
        pbed_run(b, 1000);
    }
    pbed_run(b, 60000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.succeeded, 20));
    cr_assert(eq(sz, sent_count(b), 20)); /* each once */
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, writes_during_a_move_find_the_new_owner)
{
    struct pbed *b = two_members(50);
    uint16_t slot = slot_of(b, "a");
    pbed_run(b, 50);
    pbed_move(b, &slot, 1, 0, 1);
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", EVERY_1S), PLANNER_CREATED));
    cr_assert(eq(int, pbed_owner(b, slot), 1));
    cr_assert(not(planner_owns(pbed_planner(b, 0), slot)));
    cr_assert(zero(u64, planner_epoch(pbed_planner(b, 0), slot)));
    pbed_free(b);
}

Test(planner, a_fire_whose_owner_died_comes_again_under_the_same_number)
{
    struct pbed *b = two_members(20000);
    pbed_set(b)->planned_only = false;
    (void)pbed_do(b, PLANNER_PUT, "a", ONCE);
    pbed_run(b, 3100);
    cr_assert(eq(sz, sent_count(b), 1));
    pbed_node_kill(b, 0, 100);
    pbed_run(b, 60000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(sz, pbed_sent_of(b, &row->uid, 1), 2));
    cr_assert(eq(u64, row->counts.seq, 1));
    cr_assert(eq(u64, row->counts.succeeded, 1));
    pbed_free(b);
}

Test(planner, a_booked_attempt_of_the_dead_is_followed_by_the_next)
{
    struct pbed *b = two_members(100000);
    pbed_set(b)->planned_only = false;
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@every 1s\"," CALLBACK ",\"max_fires\":2}");
    pbed_run(b, 2500); /* the first is booked because the second came */
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(int, pbed_fire(b, &row->uid, 1)->state, FIRE_STATE_HELD));
    pbed_node_kill(b, 0, 100);
    pbed_set(b)->duration_max_ms = 10;
    pbed_run(b, 5000);
    size_t n;
    const struct pbed_sent *sent = pbed_sent(b, &n);
    cr_assert(eq(sz, n, 4));
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = sent[i].seq == 1 && sent[i].attempt > most ? sent[i].attempt : most;
    cr_assert(eq(u32, most, 2));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, at_most_once_is_sent_once_whoever_dies)
{
    struct pbed *b = two_members(100000);
    pbed_set(b)->planned_only = false;
    (void)pbed_do(b, PLANNER_PUT, "a",
                  "{\"schedule\":\"@after 1s\"," CALLBACK ",\"delivery\":\"at_most_once\"}");
    pbed_run(b, 1500);
    cr_assert(eq(sz, sent_count(b), 1));
    pbed_node_kill(b, 0, 100);
    pbed_run(b, 5000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(sz, sent_count(b), 1));
    cr_assert(eq(u64, row->counts.dead, 1));
    cr_assert(eq(int, pbed_fire(b, &row->uid, 1)->reason, FIRE_REASON_AT_MOST_ONCE));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, forbid_skips_what_comes_while_an_attempt_runs)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 10000;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_PUT, "a",
                  "{\"schedule\":\"@every 1s\",\"concurrency\":\"forbid\"," CALLBACK "}");
    pbed_run(b, 60000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(gt(u64, row->counts.skipped, 10));
    pbed_check(b, false);
    pbed_free(b);
}

Test(planner, queue_keeps_the_order)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 3000;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_PUT, "a",
                  "{\"schedule\":\"@every 1s\",\"concurrency\":\"queue\",\"max_fires\":10," CALLBACK "}");
    pbed_run(b, 60000);
    size_t n;
    const struct pbed_sent *sent = pbed_sent(b, &n);
    cr_assert(eq(sz, n, 10));
    for (size_t i = 0; i < n; i++)
        cr_assert(eq(u64, sent[i].seq, i + 1));
    pbed_free(b);
}

Test(planner, replace_cancels_the_old_one)
{
    struct pbed_options o = pbed_defaults(7);
    o.duration_max_ms = 100000;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_PUT, "a",
                  "{\"schedule\":\"@every 2s\",\"concurrency\":\"replace\",\"max_fires\":5," CALLBACK "}");
    pbed_run(b, 300000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.seq, 5));
    cr_assert(ge(u64, row->counts.cancelled, 3));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner, a_job_that_the_store_refuses_stops_alone)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "good", EVERY_1S);
    (void)pbed_do(b, PLANNER_PUT, "bad", EVERY_1S);
    pbed_set(b)->planned_only = false; /* what a job did whose row is refused is not known */
    pbed_refuse(b, "bad");
    pbed_run(b, 10000);
    cr_assert(le(u64, pbed_job(b, "bad")->counts.seq, 1));
    cr_assert(ge(u64, pbed_job(b, "good")->counts.seq, 9));
    cr_assert(not(zero(ptr, strstr(pbed_last_log(b), "stopped"))));
    pbed_refuse(b, "");
    pbed_run(b, 5000);
    cr_assert(le(u64, pbed_job(b, "bad")->counts.seq, 1)); /* not before it is changed */
    cr_assert(
        eq(int, pbed_do(b, PLANNER_PUT, "bad", "{\"schedule\":\"@every 2s\"," CALLBACK "}"), PLANNER_OK));
    pbed_run(b, 5000);
    cr_assert(ge(u64, pbed_job(b, "bad")->counts.succeeded, 2));
    pbed_free(b);
}

Test(planner, a_clock_that_is_set_back_fires_nothing_early)
{
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@every 1m\"," CALLBACK "}");
    pbed_run(b, 30000);
    struct planner *p = pbed_planner(b, 0);
    struct planner_actions actions = {0};
    planner_step(p, &(struct planner_event){.kind = PLANNER_TICK, .now_ms = pbed_now(b) - 3600000}, &actions);
    cr_assert(zero(sz, actions.count));
    cr_assert(gt(i64, planner_next_ms(p), pbed_now(b) - 3600000));
    mem_free(actions.items);
    pbed_run(b, 61000);
    cr_assert(ge(sz, sent_count(b), 1));
    pbed_free(b);
}

static void tick(struct planner *p, int64_t now_ms)
{
    struct planner_actions actions = {0};
    planner_step(p, &(struct planner_event){.kind = PLANNER_TICK, .now_ms = now_ms}, &actions);
    mem_free(actions.items);
}

/* They count from a moment that comes again. */
Test(planner, a_clock_that_is_set_back_prolongs_no_pause)
{
    static const int64_t back_ms = 3600000;
    struct pbed *b = pbed_start(NULL, 1);
    (void)pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@every 30s\"," CALLBACK "}");
    struct planner *p = pbed_planner(b, 0);
    pbed_set(b)->unavailable = 1;
    struct pbed_call *c = pbed_call(b, PLANNER_PAUSE, "a", NULL);
    while (!c->in_planner)
        pbed_run(b, 1);
    unsigned again = 0;
    for (int i = 0; i < 50; i++) { /* the batch is out, or has failed and waits */
        pbed_run(b, 7);
        tick(p, pbed_now(b) - back_ms);
        again += planner_has_dirty(p);
    }
    cr_assert(gt(uint, again, 10));
    pbed_set(b)->unavailable = 0;
    pbed_run(b, 5000);
    pbed_free(b);
}

/* What is paced comes in its turn. */
Test(planner, a_clock_that_is_set_back_holds_up_nothing_that_is_overdue)
{
    struct pbed_options o = pbed_defaults(7);
    o.catch_up_per_s = 10;
    o.fail = 1;
    struct pbed *b = pbed_new(&o);
    for (int i = 0; i < 50; i++) {
        char id[16];
        snprintf(id, sizeof(id), "j%d", i);
        (void)pbed_store_put(b, pbed_spec(b, id, ONCE), BED_NOW - 7200000 + i);
    }
    pbed_give_all(b, pbed_node_start(b));
    pbed_run(b, 1000);
    size_t before = sent_count(b);
    cr_assert(lt(sz, before, 40));
    tick(pbed_planner(b, 0), pbed_now(b) - 3600000);
    cr_assert(le(i64, planner_next_ms(pbed_planner(b, 0)), pbed_now(b) - 3600000 + 1000));
    pbed_run(b, 20000);
    pbed_free(b);
}
