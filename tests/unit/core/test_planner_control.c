/* What a reply asks of its job is done with the success that it came with, or not at all: then the fire comes again. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/base/mem.h"
#include "agent/core/fire_parts.h"
#include "tests/lib/planner_bed.h"

#define HTTP      "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"},\"allow_control\":true"
#define RETRY     ",\"retry\":{\"min_backoff\":\"100ms\",\"max_backoff\":\"100ms\",\"jitter\":0}"
#define SENT_SEEN 32

#define JOB(callback, rule) "{\"schedule\":\"@every 20s\"" rule RETRY "," HTTP callback "}}"

#define ALL                              \
    "{\"schedule\":\"@every 20s\"" RETRY \
    ",\"callback\":{\"http\":{\"service\":\"s\",\"path\":\"/\"},\"to\":\"all\",\"allow_control\":true}}"

static const char *const jobs[] = {
    JOB("", ""),
    JOB("", ",\"concurrency\":\"queue\""),
    JOB("", ",\"concurrency\":\"forbid\""),
    JOB("", ",\"concurrency\":\"replace\""),
};

static struct pbed *bed(uint64_t seed, enum attempt_control control, const char *job)
{
    struct pbed_options o = pbed_defaults(seed);
    o.control = control;
    o.duration_max_ms = 0;
    o.planned_only = false;
    struct pbed *b = pbed_new(&o);
    (void)pbed_node_start(b);
    (void)pbed_node_start(b);
    for (unsigned s = 0; s < o.slots; s++)
        pbed_give(b, s, 0);
    (void)pbed_do(b, PLANNER_CREATE, "a", job);
    return b;
}

/* What was sent until now and never again succeeded, and its reply asked for CONTROL. */
static bool heard(const struct pbed *b, const struct uid *uid, const uint64_t *seqs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct fire_row *f = pbed_fire(b, uid, seqs[i]);
        bool ended = !f || f->outcome == FIRE_OUTCOME_SUCCEEDED;
        if (ended && pbed_sent_of(b, uid, seqs[i]) == 1)
            return true;
    }
    return false;
}

struct story {
    enum attempt_control control;
    const char *job;
    int64_t run_ms;  /* a run is asked for so long before the due */
    int64_t kill_ms; /* the owner dies so long after that */
    double fail;     /* share of attempts until then */
    double fault;    /* share of steps without memory until then */
};

static bool asked(const struct job_row *row, enum attempt_control control)
{
    return control == ATTEMPT_CONTROL_DELETE ? !row : row && row->state == JOB_STATE_PAUSED;
}

/* Whether the success of one that the dead owner sent was kept. */
static bool killed(const struct story *s)
{
    struct pbed *b = bed(7, s->control, s->job);
    struct uid uid = pbed_job(b, "a")->uid;
    uint64_t seqs[SENT_SEEN];
    size_t count, n = 0;
    pbed_set(b)->commit_max_ms = 60;
    pbed_set(b)->fail = s->fail;
    pbed_set(b)->fault = s->fault;
    pbed_run(b, pbed_job(b, "a")->due_ms - pbed_now(b) - s->run_ms);
    (void)pbed_call(b, PLANNER_RUN, "a", NULL);
    pbed_run(b, s->kill_ms);
    pbed_node_kill(b, 0, 100);
    pbed_set(b)->control = ATTEMPT_CONTROL_NONE;
    pbed_set(b)->fail = pbed_set(b)->fault = 0;
    const struct pbed_sent *sent = pbed_sent(b, &count);
    cr_assert(le(sz, count, SENT_SEEN));
    for (size_t i = 0; i < count; i++)
        seqs[n++] = sent[i].seq;
    pbed_run(b, 10000);
    bool kept = heard(b, &uid, seqs, n);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(asked(row, s->control) || !kept, "control %d, run %d ms before, killed %d ms after it",
              s->control, (int)s->run_ms, (int)s->kill_ms);
    if (row)
        pbed_check(b, false);
    pbed_free(b);
    return kept;
}

/* At many moments, about the due. Returns how many successes outlived their agent. */
static unsigned kill_all(const char *job, double fail, double fault)
{
    unsigned kept = 0;
    for (int64_t run_ms = 0; run_ms < 70; run_ms += 7)
        for (int64_t kill_ms = 0; kill_ms < 260; kill_ms += 11)
            for (int control = ATTEMPT_CONTROL_PAUSE; control <= ATTEMPT_CONTROL_DELETE; control++)
                kept += killed(&(struct story){control, job, run_ms, kill_ms, fail, fault});
    return kept;
}

Test(planner_control, what_a_reply_asks_is_durable_with_its_success)
{
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
        unsigned kept = kill_all(jobs[i], 0, 0);
        cr_assert(gt(uint, kept, 30), "job %zu: %u successes outlived their agent", i, kept);
    }
}

Test(planner_control, also_that_of_a_retry)
{
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
        (void)kill_all(jobs[i], 0.5, 0);
}

Test(planner_control, also_without_memory)
{
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
        (void)kill_all(jobs[i], 0, 0.2);
}

/* One endpoint or more was done with by now; from now on all succeed and ask for nothing. */
static bool one_had_asked(struct pbed *b, const struct uid *uid)
{
    pbed_set(b)->control = ATTEMPT_CONTROL_NONE;
    pbed_set(b)->fail = 0;
    const struct fire_row *f = pbed_fire(b, uid, 1);
    AUTO(fire_parts_free) struct fire_parts *parts = NULL;
    if (f && f->parts)
        cr_assert(zero(int, fire_parts_parse(f->parts, f->parts_bytes, &parts, NULL)));
    bool heard = parts && fire_parts_count(parts, FIRE_PART_SUCCEEDED) > 0;
    pbed_run(b, 10000);
    return heard;
}

/* One endpoint has asked and is done with; the others are sent to by the next owner, and ask for nothing. */
Test(planner_control, also_that_of_one_endpoint_of_many)
{
    unsigned kept = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct pbed *b = bed(seed, 1 + seed % 2, ALL);
        pbed_set(b)->fail = 0.5;
        struct uid uid = pbed_job(b, "a")->uid;
        pbed_run(b, pbed_job(b, "a")->due_ms - pbed_now(b) + (int64_t)(seed % 30) * 10);
        pbed_node_kill(b, 0, 100);
        bool heard = one_had_asked(b, &uid);
        const struct job_row *row = pbed_job(b, "a");
        cr_assert(asked(row, 1 + seed % 2) || !heard, "seed %llu", (unsigned long long)seed);
        kept += heard;
        pbed_free(b);
    }
    cr_assert(gt(uint, kept, 100), "%u stories had an endpoint that had asked", kept);
}

/* Between two rounds, and in the middle of one, its slot goes to another member in good order. */
Test(planner_control, also_that_of_one_endpoint_of_many_when_the_slot_moves)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    unsigned kept = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct pbed *b = bed(seed, 1 + seed % 2, ALL);
        pbed_set(b)->fail = 0.5;
        pbed_set(b)->duration_max_ms = seed % 3 ? 0 : 150;
        struct uid uid = pbed_job(b, "a")->uid;
        pbed_run(b, pbed_job(b, "a")->due_ms - pbed_now(b) + (int64_t)(seed % 30) * 10);
        pbed_move(b, slots, 8, 0, 1);
        pbed_run(b, 20);
        bool heard = one_had_asked(b, &uid);
        const struct job_row *row = pbed_job(b, "a");
        cr_assert(asked(row, 1 + seed % 2) || !heard, "seed %llu", (unsigned long long)seed);
        kept += heard;
        pbed_free(b);
    }
    cr_assert(gt(uint, kept, 100), "%u stories had an endpoint that had asked", kept);
}

/* There is no job left to do it to. */
Test(planner_control, asked_of_a_job_that_is_gone_is_nothing)
{
    for (int control = ATTEMPT_CONTROL_PAUSE; control <= ATTEMPT_CONTROL_DELETE; control++) {
        struct pbed *b = bed(7, control, JOB(",\"give_up_on\":[410]", ""));
        struct uid uid = pbed_job(b, "a")->uid;
        pbed_set(b)->give_up = 1;
        (void)pbed_do(b, PLANNER_RUN, "a", NULL);
        pbed_run(b, 1000);
        cr_assert(eq(int, pbed_fire(b, &uid, 1)->outcome, FIRE_OUTCOME_DEAD));
        (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
        pbed_set(b)->give_up = 0;
        (void)pbed_fire_do(b, PLANNER_FIRE_RETRY, &uid, 1, 0, false);
        pbed_run(b, 1000);
        const struct fire_row *f = pbed_fire(b, &uid, 1);
        cr_assert(eq(int, f->outcome, FIRE_OUTCOME_SUCCEEDED), "control %d", control);
        cr_assert(eq(int, f->state, FIRE_STATE_ENDED));
        cr_assert(zero(sz, planner_stats(pbed_planner(b, 0))->jobs_loaded), "nothing stays");
        pbed_free(b);
    }
}

/* A done job, one fire of which waits for a retry: the success of the other asks for a pause, of which there is nothing to do, while a
 * run is being written. */
Test(planner_control, asked_of_a_job_that_is_done_leaves_nothing_waiting)
{
    static const char twice[] = "{\"schedule\":[\"@after 5s\",\"@after 6s\"]," HTTP
                                "},\"retry\":{\"min_backoff\":\"5s\",\"max_backoff\":\"5s\",\"jitter\":0}}";
    for (int64_t run_ms = 0; run_ms < 100; run_ms += 5) {
        struct pbed *b = bed(7, ATTEMPT_CONTROL_PAUSE, twice);
        pbed_set(b)->fail = 1;
        pbed_run(b, 5500);
        pbed_set(b)->fail = 0;
        pbed_set(b)->commit_max_ms = 100;
        pbed_set(b)->duration_max_ms = 50;
        pbed_run(b, 450 + run_ms);
        (void)pbed_call(b, PLANNER_RUN, "a", NULL);
        pbed_run(b, 60000);
        const struct job_row *row = pbed_job(b, "a");
        cr_assert(eq(u64, row->counts.seq, 3));
        cr_assert(eq(u64, row->counts.succeeded, 3), "a run %d ms after 5.95 s", (int)run_ms);
        pbed_free(b);
    }
}
