/* Which jobs are in memory: those that are due soon, as far as there is room, and no due is left out for that. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define ONCE     "{\"schedule\":\"@after 3s\"," CALLBACK "}"

static size_t sent_count(const struct pbed *b)
{
    size_t n;
    (void)pbed_sent(b, &n);
    return n;
}

Test(planner_window, far_dues_are_not_kept_in_memory)
{
    struct pbed_options o = pbed_defaults(7);
    struct pbed *b = pbed_new(&o);
    for (int i = 0; i < 300; i++) {
        char id[16];
        snprintf(id, sizeof(id), "j%d", i);
        (void)pbed_store_put(b, pbed_spec(b, id, ONCE), BED_NOW + 3600000 + i);
    }
    int n = pbed_node_start(b);
    pbed_give_all(b, n);
    pbed_run(b, 60000);
    cr_assert(zero(sz, planner_stats(pbed_planner(b, n))->jobs_loaded));
    (void)pbed_do(b, PLANNER_PUT, "tomorrow", "{\"schedule\":\"@after 24h\"," CALLBACK "}");
    cr_assert(zero(sz, planner_stats(pbed_planner(b, n))->jobs_loaded));
    pbed_run(b, 3600000);
    cr_assert(eq(sz, sent_count(b), 300));
    pbed_free(b);
}

Test(planner_window, the_memory_limit_shortens_the_horizon)
{
    struct pbed_options o = pbed_defaults(7);
    o.memory_max_bytes = 300000;
    o.load_page = 10;
    struct pbed *b = pbed_new(&o);
    for (int i = 0; i < 400; i++) {
        char id[16];
        snprintf(id, sizeof(id), "j%d", i);
        (void)pbed_store_put(b, pbed_spec(b, id, ONCE), BED_NOW + 3000 + i * 200);
    }
    int n = pbed_node_start(b);
    pbed_give_all(b, n);
    pbed_run(b, 2000);
    cr_assert(lt(i64, planner_stats(pbed_planner(b, n))->horizon_ms, 60000));
    cr_assert(lt(sz, planner_stats(pbed_planner(b, n))->memory_bytes, 600000));
    pbed_run(b, 120000);
    cr_assert(eq(sz, sent_count(b), 400));
    pbed_check(b, true);
    pbed_free(b);
}

/* Fires that wait for their second attempt, in pages by the dozen, are read in the second window beside jobs for which there is no
 * room: the jobs' part of it is cut short, and is through first. */
static struct pbed *second_window(void)
{
    struct pbed_options o = pbed_defaults(7);
    o.memory_max_bytes = 300000;
    o.load_page = 10;
    o.read_max_ms = 40;
    o.fail = 1;
    struct pbed *b = pbed_new(&o);
    pbed_give_all(b, pbed_node_start(b));
    for (int i = 0; i < 10; i++) {
        char id[24];
        snprintf(id, sizeof(id), "retried%d", i);
        struct job_spec *spec = pbed_spec(
            b, id,
            "{\"schedule\":\"* * * * * *\",\"ends_at\":\"2026-11-23T09:00:25Z\",\"max_pending\":100,"
            "\"retry\":{\"min_backoff\":\"65s\",\"max_backoff\":\"65s\",\"jitter\":0}," CALLBACK "}");
        (void)pbed_store_put(b, spec, BED_NOW + 1000);
    }
    for (int i = 0; i < 300; i++) {
        char id[16];
        snprintf(id, sizeof(id), "j%d", i);
        (void)pbed_store_put(b, pbed_spec(b, id, ONCE), BED_NOW + 62000 + i * 90);
    }
    return b;
}

static size_t sent_once(const struct pbed *b)
{
    size_t sent = 0;
    for (int i = 0; i < 300; i++) {
        char id[16];
        snprintf(id, sizeof(id), "j%d", i);
        sent += pbed_job(b, id)->counts.succeeded == 1;
    }
    return sent;
}

Test(planner_window, the_memory_limit_leaves_out_no_due_of_a_later_window)
{
    struct pbed *b = second_window();
    pbed_run(b, 40000);
    pbed_set(b)->fail = 0;
    pbed_run(b, 100000);
    cr_assert(eq(sz, sent_once(b), 300));
    pbed_free(b);
}

/* Slots come one after the other, and what they bring is cut short as long as there is no room: those that come later less so. The
 * worst lateness of what was due after the last one came. */
static int64_t worst_late_ms(uint64_t seed)
{
    struct pbed_options o = pbed_defaults(7);
    struct rng r;
    rng_init(&r, seed);
    o.memory_max_bytes = 50000 + rng_below(&r, 400000);
    o.load_page = 20 + rng_below(&r, 50);
    o.read_max_ms = 1 + (int64_t)rng_below(&r, 12);
    struct pbed *b = pbed_new(&o);
    size_t jobs = 100 + rng_below(&r, 600), count;
    uint64_t span_ms = 1000 + rng_below(&r, 30000);
    for (size_t i = 0; i < jobs; i++) {
        char id[24];
        snprintf(id, sizeof(id), "j%zu", i);
        (void)pbed_store_put(b, pbed_spec(b, id, "{\"schedule\":\"@after 1ms\"," CALLBACK "}"),
                             BED_NOW + 500 + (int64_t)rng_below(&r, span_ms));
    }
    int n = pbed_node_start(b);
    for (unsigned s = 0; s < o.slots; s++) {
        pbed_run(b, rng_below(&r, 2) ? (int64_t)rng_below(&r, 3000) : 0);
        pbed_give(b, s, n);
    }
    int64_t given_ms = pbed_now(b), worst_ms = 0;
    pbed_run(b, 60000);
    const struct pbed_sent *sent = pbed_sent(b, &count);
    cr_assert(eq(sz, count, jobs));
    for (size_t i = 0; i < count; i++) {
        int64_t late_ms = sent[i].at_ms - sent[i].due_ms;
        if (sent[i].due_ms > given_ms && late_ms > worst_ms)
            worst_ms = late_ms;
    }
    pbed_free(b);
    return worst_ms;
}

Test(planner_window, the_memory_limit_makes_nothing_late)
{
    for (uint64_t seed = 361; seed <= 370; seed++)
        cr_assert(lt(i64, worst_late_ms(seed), 1500), "seed %d", (int)seed);
}
