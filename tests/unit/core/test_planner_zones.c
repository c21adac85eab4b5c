/* Jobs that were planned with older zone data than their owner's. The zone is Berlin's; what its clocks showed by the older data is
 * whatever the row says. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "tests/lib/planner_bed.h"
#include "tests/lib/zones.h"

#define HOUR     INT64_C(3600000)
#define DAY      (24 * HOUR)
#define TOMORROW (BED_NOW + 23 * HOUR) /* 2026-11-24T08:00:00Z: nine o'clock in Berlin */
#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define AT_NINE  "{\"schedule\":\"0 9 * * *\",\"timezone\":\"Europe/Berlin\"," CALLBACK "}"

static struct tz *zone;

static struct pbed *bed(const char *tzdata)
{
    struct pbed_options o = pbed_defaults(11);
    zone = zone_open("Europe/Berlin");
    o.zone = zone;
    o.tzdata = tzdata;
    return pbed_new(&o);
}

static void end(struct pbed *b)
{
    pbed_free(b);
    tz_free(zone);
}

static void begin(struct pbed *b, int64_t ms)
{
    pbed_give_all(b, pbed_node_start(b));
    pbed_run(b, ms);
}

/* Made long ago, fired never or (SEQ) for the last time yesterday at DUE_MS's time. */
static struct job_row *put(struct pbed *b, const char *id, const char *text, int64_t due_ms,
                           const char *tzdata)
{
    struct job_row *row = pbed_store_put(b, pbed_spec(b, id, text), due_ms);
    row->created_ms = row->updated_ms = BED_NOW - 10 * DAY;
    row->counts.seq = row->counts.succeeded = row->last.seq = row->scheduled = 1;
    row->last.due_ms = due_ms - DAY;
    row->last.finished_ms = row->last_success_ms = due_ms - DAY + 20;
    row->last.outcome = FIRE_OUTCOME_SUCCEEDED;
    memset(row->tzdata, 0, sizeof(row->tzdata));
    memcpy(row->tzdata, tzdata, strlen(tzdata));
    return row;
}

static void check(const struct pbed *b, const char *id, int64_t due_ms, const char *tzdata)
{
    const struct job_row *row = pbed_job(b, id);
    cr_assert(eq(i64, row->due_ms, due_ms), "%s", id);
    cr_assert(eq(i64, row->wake_ms, due_ms), "%s", id);
    cr_assert(eq(str, (char *)row->tzdata, (char *)tzdata), "%s", id);
    cr_assert(eq(u64, row->version, 1), "%s", id);
}

Test(planner_zones, far_dues_are_planned_anew_in_the_background)
{
    struct pbed *b = bed("2026a");
    char id[8];
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(id, sizeof(id), "j%u", i);
        put(b, id, AT_NINE, TOMORROW + (i % 2 ? HOUR : -HOUR), "2025c");
    }
    begin(b, 60000);
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(id, sizeof(id), "j%u", i);
        check(b, id, TOMORROW, "2026a");
    }
    cr_assert(eq(sz, pbed_replanned(b), 300));
    cr_assert(eq(sz, planner_stats(pbed_planner(b, 0))->jobs_loaded, 0), "far jobs leave memory again");
    cr_assert(strstr(pbed_last_log(b), "300 jobs were planned anew with zone data 2026a") != NULL, "%s",
              pbed_last_log(b));
    end(b);
}

Test(planner_zones, each_row_is_written_once)
{
    struct pbed *b = bed("2026a");
    put(b, "a", AT_NINE, TOMORROW - HOUR, "2025c");
    put(b, "same", AT_NINE, TOMORROW, "2025c");
    begin(b, 120000);
    cr_assert(eq(sz, pbed_row_writes(b), 2));
    check(b, "same", TOMORROW, "2026a");
    begin(b, 120000); /* a new owner finds nothing to do */
    cr_assert(eq(sz, pbed_row_writes(b), 2));
    end(b);
}

Test(planner_zones, older_or_unknown_data_change_nothing)
{
    static const char *const own[] = {"2025b", "2025c", "unknown", NULL};
    for (unsigned i = 0; i < 4; i++) {
        struct pbed *b = bed(own[i]);
        put(b, "a", AT_NINE, TOMORROW - HOUR, "2025c");
        put(b, "b", AT_NINE, TOMORROW - HOUR, "unknown");
        put(b, "c", AT_NINE, TOMORROW - HOUR, "");
        begin(b, 60000);
        check(b, "a", TOMORROW - HOUR, "2025c");
        check(b, "b", TOMORROW - HOUR, "unknown");
        check(b, "c", TOMORROW - HOUR, "");
        end(b);
    }
}

Test(planner_zones, jobs_without_zoned_dues_are_left_alone)
{
    struct pbed *b = bed("2026a");
    put(b, "utc", "{\"schedule\":\"0 9 * * *\"," CALLBACK "}", TOMORROW - HOUR, "2025c");
    put(b, "at", "{\"schedule\":\"@at 2026-11-24T07:00:00Z\",\"timezone\":\"Europe/Berlin\"," CALLBACK "}",
        TOMORROW - HOUR, "2025c");
    begin(b, 60000);
    check(b, "utc", TOMORROW - HOUR, "2025c");
    check(b, "at", TOMORROW - HOUR, "2025c");
    cr_assert(eq(sz, pbed_row_writes(b), 0));
    end(b);
}

Test(planner_zones, new_dues_carry_the_release_that_found_them)
{
    struct pbed *b = bed("2026a");
    begin(b, 50);
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", AT_NINE), PLANNER_CREATED));
    check(b, "a", TOMORROW, "2026a");
    cr_assert(
        eq(int, pbed_do(b, PLANNER_PUT, "u", "{\"schedule\":\"0 9 * * *\"," CALLBACK "}"), PLANNER_CREATED));
    check(b, "u", BED_NOW + DAY, "");
    end(b);
}

/* By the rules in force nine o'clock was an hour ago; by the old ones it is still to come. */
Test(planner_zones, an_occurrence_that_was_missed_by_the_old_rules_is_fired)
{
    struct pbed *b = bed("2026a");
    struct job_row *row = put(b, "a", AT_NINE, BED_NOW + HOUR / 2, "2025c");
    struct uid uid = row->uid;
    begin(b, 10000);
    cr_assert(eq(sz, pbed_sent_of(b, &uid, 2), 1));
    size_t n;
    cr_assert(eq(i64, pbed_sent(b, &n)[0].due_ms, BED_NOW - HOUR));
    check(b, "a", TOMORROW, "2026a");
    end(b);
}

/* It was fired this morning at what were nine o'clock by the old rules. */
Test(planner_zones, no_occurrence_is_fired_twice_for_new_rules)
{
    struct pbed *b = bed("2026a");
    struct job_row *row = put(b, "a", AT_NINE, TOMORROW - HOUR, "2025c");
    struct uid uid = row->uid;
    begin(b, 10000);
    cr_assert(eq(sz, pbed_sent_of(b, &uid, 2), 0));
    check(b, "a", TOMORROW, "2026a");
    end(b);
}

/* Its fire has a number and a due already, or may have. */
Test(planner_zones, what_was_booked_or_has_come_keeps_its_due)
{
    struct pbed *b = bed("2026a");
    struct job_row *open = put(b, "open", AT_NINE, TOMORROW - HOUR, "2025c");
    open->counts.seq = 2; /* unfinished: when it was due is not known here */
    struct job_row *come = put(b, "come", AT_NINE, BED_NOW - HOUR / 4, "2025c");
    struct uid uid = come->uid;
    begin(b, 10000);
    check(b, "open", TOMORROW, "2026a");
    size_t n;
    cr_assert(eq(i64, pbed_sent(b, &n)[0].due_ms, BED_NOW - HOUR / 4));
    cr_assert(eq(sz, pbed_sent_of(b, &uid, 2), 1));
    check(b, "come", TOMORROW, "2026a");
    end(b);
}

Test(planner_zones, a_resumed_job_is_planned_anew)
{
    struct pbed *b = bed("2026a");
    struct job_row *row = put(b, "a", AT_NINE, TOMORROW - HOUR, "2025c");
    row->state = JOB_STATE_PAUSED;
    row->wake_ms = INT64_MAX;
    begin(b, 60000);
    cr_assert(eq(str, (char *)pbed_job(b, "a")->tzdata, "2025c"));
    cr_assert(eq(int, pbed_do(b, PLANNER_RESUME, "a", NULL), PLANNER_OK));
    cr_assert(eq(i64, pbed_job(b, "a")->due_ms, TOMORROW));
    cr_assert(eq(str, (char *)pbed_job(b, "a")->tzdata, "2026a"));
    end(b);
}

/* A change that keeps the schedule keeps the due, and whose rules found it. */
Test(planner_zones, a_patch_does_not_hide_old_rules)
{
    struct pbed *b = bed("2026a");
    put(b, "a", AT_NINE, TOMORROW - HOUR, "2025c");
    begin(b, 100);
    cr_assert(
        eq(int,
           pbed_do(b, PLANNER_PATCH, "a",
                   "{\"schedule\":\"0 9 * * *\",\"timezone\":\"Europe/Berlin\",\"payload\":1," CALLBACK "}"),
           PLANNER_OK));
    pbed_run(b, 60000);
    cr_assert(eq(i64, pbed_job(b, "a")->due_ms, TOMORROW));
    cr_assert(eq(str, (char *)pbed_job(b, "a")->tzdata, "2026a"));
    end(b);
}
