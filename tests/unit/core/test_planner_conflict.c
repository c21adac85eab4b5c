/* A row that is not as expected: the job is read again, and what was out meanwhile is not forgotten. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define RETRY    "\"retry\":{\"min_backoff\":\"1s\",\"max_backoff\":\"1s\",\"jitter\":0}"

/* Somebody has written the job's row who should not have. */
static void meddle(struct pbed *b)
{
    struct job_row *row = (struct job_row *)pbed_job(b, "a");
    row->rev++;
}

static size_t sent_of(const struct pbed *b, uint64_t seq)
{
    return pbed_sent_of(b, &pbed_job(b, "a")->uid, seq);
}

static void until_sent(struct pbed *b, uint64_t seq)
{
    for (int i = 0; i < 10000 && sent_of(b, seq) == 0; i++)
        pbed_run(b, 1);
    cr_assert(eq(sz, sent_of(b, seq), 1));
}

Test(planner_conflict, the_first_attempt_at_a_due_that_is_still_the_next_one_counts)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"@every 2s\",\"max_fires\":3," CALLBACK "," RETRY "}");
    pbed_set(b)->fail = 1;
    until_sent(b, 1);
    pbed_run(b, 200); /* it waits to be tried again */
    pbed_set(b)->fail = 0;
    pbed_set(b)->duration_max_ms = 0;
    pbed_run(b, 500);
    until_sent(b, 1);
    pbed_set(b)->duration_max_ms = 900;
    until_sent(b, 2);
    meddle(b);
    (void)pbed_do(b, PLANNER_PATCH, "a",
                  "{\"schedule\":\"@every 2s\",\"max_fires\":3," CALLBACK "," RETRY "}");
    pbed_run(b, 20000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.succeeded, 3));
    cr_assert(eq(sz, sent_of(b, 2), 1), "it was not sent again");
    pbed_free(b);
}

Test(planner_conflict, a_booked_fire_is_tried_again_when_its_attempt_is_back)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"@after 1s\"," CALLBACK "," RETRY "}");
    pbed_set(b)->planned_only = false;
    pbed_set(b)->fail = 1;
    until_sent(b, 1);
    pbed_run(b, 500); /* booked, and waits to be tried again */
    pbed_set(b)->fail = 0;
    pbed_set(b)->duration_max_ms = 60000;
    while (sent_of(b, 1) < 2)
        pbed_run(b, 1);
    meddle(b);
    (void)pbed_do(b, PLANNER_RUN, "a", NULL);
    cr_assert(eq(sz, pbed_conflicts(b), 1));
    pbed_set(b)->duration_max_ms = 50;
    pbed_run(b, 120000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 2));
    pbed_free(b);
}
