/* What stays of a job that is deleted: the history of its fires. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define RETRY    ",\"retry\":{\"min_backoff\":\"1h\",\"max_backoff\":\"1h\"}"

Test(planner_delete, fires_that_it_cancels_are_kept_as_all_others_are)
{
    struct pbed *b = pbed_start_job("{\"schedule\":\"@every 10s\"," CALLBACK RETRY "}");
    pbed_set(b)->fail = 1;
    pbed_run(b, 11000);
    struct uid uid = pbed_job(b, "a")->uid;
    int64_t before_ms = pbed_now(b);
    cr_assert(eq(int, pbed_do(b, PLANNER_DELETE, "a", NULL), PLANNER_OK));
    const struct fire_row *f = pbed_fire(b, &uid, 1);
    cr_assert(eq(int, f->outcome, FIRE_OUTCOME_CANCELLED));
    cr_assert(ge(i64, f->finished_ms, before_ms));
    cr_assert(ge(i64, f->wake_ms, before_ms + BED_HISTORY_KEEP_MS));
    cr_assert(le(i64, f->wake_ms, pbed_now(b) + BED_HISTORY_KEEP_MS));
    pbed_free(b);
}

/* Its end may wait for the batch that is out. */
Test(planner_delete, a_fire_that_has_succeeded_is_not_cancelled)
{
    unsigned ended = 0;
    for (int64_t at = 0; at < 600; at += 7) {
        struct pbed *b = pbed_start_job("{\"schedule\":\"@after 1h\"," CALLBACK "}");
        struct uid uid = pbed_job(b, "a")->uid;
        pbed_set(b)->duration_max_ms = 0;
        pbed_set(b)->commit_max_ms = 200;
        for (int i = 0; i < 20; i++) {
            char id[16];
            (void)snprintf(id, sizeof(id), "b%d", i);
            (void)pbed_call(b, PLANNER_CREATE, id, "{\"schedule\":\"@after 1h\"," CALLBACK "}");
            if (i == 5)
                (void)pbed_call(b, PLANNER_RUN, "a", NULL);
            pbed_run(b, 1 + at / 20);
        }
        bool sent = pbed_sent_of(b, &uid, 1) > 0;
        (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
        const struct fire_row *f = pbed_fire(b, &uid, 1);
        if (sent)
            cr_assert(eq(int, f->outcome, FIRE_OUTCOME_SUCCEEDED), "deleted after %d ms", (int)at);
        ended += sent;
        pbed_free(b);
    }
    cr_assert(gt(uint, ended, 10));
}
