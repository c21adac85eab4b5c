#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/core/audit.h"
#include "agent/core/ring_log.h"
#include "agent/core/tz.h"
#include "tests/lib/utc_spec.h"

#define FROM  INT64_C(1795392000000) /* 2026-11-23T00:00:00Z */
#define EVERY INT64_C(60000)

/* Each minute, and a job that fired FIRES times at its first attempt. */
struct bed {
    struct job_spec *spec;
    struct job_row row;
    struct fire_row fires[8];
    struct audit_job in;
};

static void fired(struct bed *b, uint64_t seq)
{
    struct ring_entry entry = {
        .seq = seq, .due_ms = FROM + (int64_t)seq * EVERY, .status = 200, .endpoint = "127.0.0.1:80"};
    b->row.ring_bytes = ring_log_add(b->row.ring, b->row.ring_bytes, &entry, 16);
    b->row.counts.succeeded++;
}

static void setup(struct bed *b, uint64_t fires)
{
    *b = (struct bed){
        .spec = utc_spec("{\"schedule\":\"* * * * *\",\"callback\":{\"http\":{\"service\":\"a\"}}}", FROM)};
    b->row = (struct job_row){.state = JOB_STATE_ACTIVE, .created_ms = FROM, .updated_ms = FROM};
    for (uint64_t seq = 1; seq <= fires; seq++)
        fired(b, seq);
    b->row.counts.seq = fires;
    b->row.due_ms = FROM + (int64_t)(fires + 1) * EVERY;
    b->in = (struct audit_job){
        .spec = b->spec, .row = &b->row, .fires = b->fires, .now_ms = b->row.due_ms - 1000, .from_ms = FROM};
}

static struct fire_row *fire(struct bed *b, uint64_t seq, enum fire_state state)
{
    struct fire_row *f = &b->fires[b->in.fires_count++];
    *f =
        (struct fire_row){.seq = seq, .seq_last = seq, .state = state, .due_ms = FROM + (int64_t)seq * EVERY};
    f->due_last_ms = f->due_ms;
    return f;
}

static struct audit_result judged(struct bed *b, bool with_fires)
{
    struct audit_result result;
    struct audit_job in = b->in;
    in.fires_known = in.fires_all = with_fires;
    in.fires_count = with_fires ? in.fires_count : 0;
    audit_job(&in, &result);
    return result;
}

static void expect(struct bed *b, enum audit_verdict row, enum audit_verdict fires, uint64_t count)
{
    struct audit_result result = judged(b, false);
    cr_assert(eq(int, result.verdict, row), "by its row: %s", result.detail);
    result = judged(b, true);
    cr_assert(eq(int, result.verdict, fires), "with its fires: %s", result.detail);
    cr_assert(eq(u64, result.count, count));
    job_spec_unref(b->spec);
}

Test(audit, a_job_that_fired_each_due_is_fine_by_its_row_alone)
{
    static const uint64_t fires[] = {0, 1, 5, 16, 40};
    for (size_t i = 0; i < 5; i++) {
        struct bed b;
        setup(&b, fires[i]);
        expect(&b, AUDIT_FINE, AUDIT_FINE, 0);
    }
}

/* The first one took longer than the second, which leaves the ring before it. */
Test(audit, a_due_that_the_ring_has_forgotten_from_between_others_is_not_lost)
{
    struct bed b;
    setup(&b, 0);
    fired(&b, 2);
    fired(&b, 1);
    for (uint64_t seq = 3; seq <= 17; seq++)
        fired(&b, seq);
    b.row.counts.seq = 17;
    b.row.due_ms = FROM + 18 * EVERY;
    expect(&b, AUDIT_LOOK, AUDIT_FINE, 0);
}

Test(audit, more_ends_than_fires_are_told)
{
    struct bed b;
    setup(&b, 20);
    b.row.counts.dead = 2;
    expect(&b, AUDIT_COUNTS, AUDIT_COUNTS, 2);
}

Test(audit, a_pending_fire_has_a_record)
{
    struct bed b;
    setup(&b, 20);
    b.row.counts.seq = 21;
    b.row.due_ms += EVERY;
    fire(&b, 21, FIRE_STATE_WAITING);
    expect(&b, AUDIT_LOOK, AUDIT_FINE, 0);
}

Test(audit, a_pending_fire_without_a_record_is_told)
{
    struct bed b;
    setup(&b, 20);
    b.row.counts.seq = 21;
    b.row.due_ms += EVERY;
    expect(&b, AUDIT_LOOK, AUDIT_PENDING, 1);
}

Test(audit, a_next_due_that_is_none_of_the_schedule_is_told)
{
    struct bed b;
    setup(&b, 20);
    b.row.due_ms += 1234;
    expect(&b, AUDIT_WRONG_DUE, AUDIT_WRONG_DUE, 1);
}

Test(audit, dues_that_were_jumped_over_are_told)
{
    struct bed b;
    setup(&b, 20);
    b.row.due_ms += 3 * EVERY;
    expect(&b, AUDIT_LOOK, AUDIT_LOST_DUES, 3);
}

Test(audit, dues_that_a_run_of_skipped_ones_covers_are_not_lost)
{
    struct bed b;
    setup(&b, 20);
    struct fire_row *f = fire(&b, 21, FIRE_STATE_ENDED);
    f->seq_last = 23;
    f->due_last_ms = f->due_ms + 2 * EVERY;
    b.row.counts.seq = 23;
    b.row.counts.skipped = 3;
    b.row.due_ms += 3 * EVERY;
    expect(&b, AUDIT_LOOK, AUDIT_FINE, 0);
}

Test(audit, dues_of_an_earlier_definition_are_not_judged)
{
    struct bed b;
    setup(&b, 20);
    b.row.due_ms += 3 * EVERY;
    b.row.updated_ms = b.row.due_ms - 1000;
    expect(&b, AUDIT_FINE, AUDIT_FINE, 0);
}

Test(audit, successes_that_the_ring_forgot_are_not_lost)
{
    struct bed b;
    setup(&b, 10);
    fired(&b, 12); /* 11 took longer, and was forgotten since */
    for (uint64_t seq = 13; seq <= 26; seq++)
        fired(&b, seq);
    b.row.counts = (struct job_counts){.seq = 26, .succeeded = 26};
    b.row.due_ms = FROM + 27 * EVERY;
    expect(&b, AUDIT_FINE, AUDIT_FINE, 0);
}

Test(audit, a_ring_that_is_out_of_order_says_nothing)
{
    struct bed b;
    setup(&b, 10);
    fired(&b, 12);
    fired(&b, 11);
    b.row.counts = (struct job_counts){.seq = 12, .succeeded = 12};
    b.row.due_ms = FROM + 20 * EVERY;
    expect(&b, AUDIT_FINE, AUDIT_FINE, 0);
}

Test(audit, what_is_long_overdue_is_told_unless_it_is_paused)
{
    struct bed b;
    setup(&b, 3);
    b.in.now_ms = b.row.due_ms + 5 * EVERY;
    b.row.state = JOB_STATE_PAUSED;
    cr_assert(eq(int, judged(&b, false).verdict, AUDIT_FINE));
    b.row.state = JOB_STATE_ACTIVE;
    expect(&b, AUDIT_OVERDUE, AUDIT_OVERDUE, 5);
}

Test(audit, dues_by_other_zone_data_are_not_judged)
{
    struct bed b;
    setup(&b, 20);
    b.row.due_ms += 1234;
    b.in.tzdata = "2030a";
    b.spec->timezone = "Europe/Berlin";
    expect(&b, AUDIT_FINE, AUDIT_FINE, 0);
}
