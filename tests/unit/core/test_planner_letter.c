/* Dead letters: sent once more or discarded, also when their job is gone. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/planner_bed.h"

#define CALLBACK  "\"callback\":{\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define NO_RETRY  "\"retry\":{\"max_attempts\":1}"
#define EVERY_1S  "{\"schedule\":\"@every 1s\"," CALLBACK "," NO_RETRY "}"
#define EVERY_10S "{\"schedule\":\"@every 10s\"," CALLBACK "," NO_RETRY "}"
#define ASYNC \
    "\"callback\":{\"async\":{\"timeout\":\"20s\",\"max\":\"60s\"},\"http\":{\"url\":\"http://10.0.0.9/x\"}}"
#define EVERY_DAY "{\"schedule\":\"@daily\"," CALLBACK "," NO_RETRY "}"

/* A job "a" of which DEAD fires died. */
static struct pbed *with_letters(uint64_t seed, int64_t dead)
{
    struct pbed_options o = pbed_defaults(seed);
    o.fail = 1;
    o.planned_only = false;
    struct pbed *b = pbed_start(&o, 1);
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", EVERY_1S), PLANNER_CREATED));
    pbed_run(b, dead * 1000 + 500);
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", EVERY_DAY), PLANNER_OK));
    pbed_run(b, 1000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.dead, (uint64_t)dead));
    pbed_set(b)->fail = 0;
    return b;
}

/* Seqs FROM down to TO, one after the other each GAP_MS; REPEATED: the change that an earlier try may have made. */
static struct pbed_call *ask(struct pbed *b, enum planner_api_op op, uint64_t repeated, const struct uid *uid,
                             uint64_t version, uint64_t from, uint64_t to, int64_t gap_ms)
{
    static struct planner_letter items[PLANNER_LETTERS_MAX];
    struct pbed_call *c = pbed_call(b, op, "a", NULL);
    if (repeated) {
        c->api.repeated = true;
        c->api.change_id = repeated;
    }
    c->api.uid = *uid;
    c->api.version = version;
    c->api.letters = items;
    for (uint64_t seq = from; seq >= to && seq > 0; seq--)
        items[c->api.letters_count++] =
            (struct planner_letter){seq, pbed_now(b) + (int64_t)(seq - to) * gap_ms};
    for (int i = 0; i < 5000 && !c->answered; i++)
        pbed_run(b, 1);
    cr_assert(c->answered);
    return c;
}

static struct pbed_call *letters(struct pbed *b, enum planner_api_op op, const struct uid *uid,
                                 uint64_t version, uint64_t from, uint64_t to, int64_t gap_ms)
{
    return ask(b, op, 0, uid, version, from, to, gap_ms);
}

Test(planner_letter, is_sent_under_its_id_and_counted_again)
{
    struct pbed *b = with_letters(7, 5);
    struct uid uid = pbed_job(b, "a")->uid;
    struct pbed_call *c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 5, 1, 0);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    cr_assert(eq(sz, c->api.letters_done, 5));
    pbed_run(b, 5000);
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(zero(u64, row->counts.dead));
    cr_assert(eq(u64, row->counts.succeeded, 5));
    for (uint64_t seq = 1; seq <= 5; seq++) {
        const struct fire_row *f = pbed_fire(b, &uid, seq);
        cr_assert(eq(int, f->outcome, FIRE_OUTCOME_SUCCEEDED));
        cr_assert(eq(uint, f->attempts, 2));
        cr_assert(eq(uint, f->attempts_before, 1));
    }
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_letter, has_the_jobs_attempts_anew)
{
    struct pbed *b = with_letters(7, 1);
    struct uid uid = pbed_job(b, "a")->uid;
    pbed_set(b)->fail = 1;
    (void)letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 1, 1, 0);
    pbed_run(b, 1000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.dead, 1));
    cr_assert(eq(uint, pbed_fire(b, &uid, 1)->attempts, 2));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_letter, is_discarded)
{
    struct pbed *b = with_letters(7, 5);
    struct uid uid = pbed_job(b, "a")->uid;
    cr_assert(eq(sz, letters(b, PLANNER_LETTERS_DISCARD, &uid, 1, 4, 2, 0)->api.letters_done, 3));
    const struct job_row *row = pbed_job(b, "a");
    cr_assert(eq(u64, row->counts.cancelled, 3));
    cr_assert(eq(u64, row->counts.dead, 2));
    cr_assert(eq(int, pbed_fire(b, &uid, 3)->reason, FIRE_REASON_DISCARDED));
    cr_assert(zero(sz, letters(b, PLANNER_LETTERS_DISCARD, &uid, 1, 4, 2, 0)->api.letters_done));
    pbed_check(b, true);
    pbed_free(b);
}

/* Who asked did not hear the first answer: it is told the same number once more, and nothing is done twice. */
Test(planner_letter, what_an_earlier_try_changed_is_counted_in_its_repetition)
{
    struct pbed *b = with_letters(7, 6);
    struct uid uid = pbed_job(b, "a")->uid;
    uint64_t change_id = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 5, 1, 0)->api.change_id;
    pbed_run(b, 5000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 5));
    struct pbed_call *c = ask(b, PLANNER_LETTERS_REDRIVE, change_id, &uid, 1, 5, 1, 0);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    cr_assert(eq(sz, c->api.letters_done, 5));
    c = ask(b, PLANNER_LETTERS_REDRIVE, change_id + 1, &uid, 1, 6, 1, 0);
    cr_assert(eq(sz, c->api.letters_done, 1), "of a try that came to nothing, what is left");
    pbed_run(b, 5000);
    for (uint64_t seq = 1; seq <= 6; seq++)
        cr_assert(eq(uint, pbed_fire(b, &uid, seq)->attempts, 2), "each once more");
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_letter, what_is_none_is_left_alone)
{
    struct pbed *b = with_letters(7, 2);
    struct uid uid = pbed_job(b, "a")->uid;
    cr_assert(eq(int, pbed_do(b, PLANNER_RUN, "a", NULL), PLANNER_ACCEPTED));
    pbed_run(b, 1000);
    struct pbed_call *c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 100, 1, 0);
    cr_assert(eq(sz, c->api.letters_done, 2));
    pbed_run(b, 1000);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.succeeded, 3));
    pbed_check(b, true);
    pbed_free(b);
}

Test(planner_letter, waits_for_its_time_over_the_death_of_its_owner)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct pbed *b = with_letters(seed, 20);
        struct uid uid = pbed_job(b, "a")->uid;
        cr_assert(eq(sz, letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 20, 1, 200)->api.letters_done, 20));
        for (int i = 0; i < 3; i++) {
            int alive[BED_NODES];
            pbed_run(b, 700 + 31 * (int64_t)seed);
            cr_assert(eq(int, pbed_nodes_alive(b, alive), 1));
            (void)pbed_node_start(b);
            pbed_node_kill(b, alive[0], 50);
        }
        pbed_run(b, 20000);
        const struct job_row *row = pbed_job(b, "a");
        cr_assert(eq(u64, row->counts.succeeded, 20), "seed %llu", (unsigned long long)seed);
        cr_assert(zero(u64, row->counts.dead));
        pbed_check(b, true);
        pbed_free(b);
    }
}

Test(planner_letter, of_a_deleted_job_goes_by_its_copy)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct pbed *b = with_letters(seed, 8);
        struct uid uid = pbed_job(b, "a")->uid;
        cr_assert(eq(int, pbed_do(b, PLANNER_DELETE, "a", NULL), PLANNER_OK));
        struct pbed_call *c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 8, 1, 300);
        cr_assert(eq(int, c->api.answer, PLANNER_OK));
        cr_assert(eq(sz, c->api.letters_done, 8));
        pbed_run(b, 900);
        if (seed % 2) { /* and its owner dies meanwhile */
            int alive[BED_NODES];
            cr_assert(eq(int, pbed_nodes_alive(b, alive), 1));
            (void)pbed_node_start(b);
            pbed_node_kill(b, alive[0], 50);
        }
        pbed_run(b, 20000);
        for (uint64_t seq = 1; seq <= 8; seq++) {
            const struct fire_row *f = pbed_fire(b, &uid, seq);
            cr_assert(eq(int, f->outcome, FIRE_OUTCOME_SUCCEEDED), "seed %llu, seq %llu",
                      (unsigned long long)seed, (unsigned long long)seq);
            cr_assert(eq(int, f->state, FIRE_STATE_ENDED));
        }
        int alive[BED_NODES];
        (void)pbed_nodes_alive(b, alive);
        cr_assert(zero(sz, planner_stats(pbed_planner(b, alive[0]))->fires_loaded), "nothing stays");
        cr_assert(zero(sz, planner_stats(pbed_planner(b, alive[0]))->jobs_loaded));
        pbed_free(b);
    }
}

/* One definition is kept of a job that is gone. */
Test(planner_letter, of_a_deleted_job_waits_for_those_of_another_definition)
{
    struct pbed *b = with_letters(5, 2);
    pbed_set(b)->fail = 1;
    cr_assert(eq(int, pbed_do(b, PLANNER_PUT, "a", EVERY_1S), PLANNER_OK));
    pbed_run(b, 1500);
    struct uid uid = pbed_job(b, "a")->uid;
    cr_assert(eq(u64, pbed_job(b, "a")->counts.dead, 3));
    (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
    pbed_set(b)->fail = 0;
    cr_assert(eq(int, letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 2, 1, 3000)->api.answer, PLANNER_OK));
    static struct planner_letter letter = {.seq = 3};
    struct pbed_call *c = pbed_call(b, PLANNER_LETTERS_REDRIVE, "a", NULL);
    c->api.uid = uid;
    c->api.version = 3;
    c->api.letters = &letter;
    c->api.letters_count = 1;
    bool later = false;
    for (int i = 0; i < 10000 && !c->answered; i++) { /* the bed asks again */
        pbed_run(b, 1);
        later |= c->api.answer == PLANNER_UNAVAILABLE && c->api.later;
    }
    cr_assert(later, "nothing of it was done");
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    cr_assert(not(c->api.later));
    cr_assert(eq(int, pbed_fire(b, &uid, 2)->outcome, FIRE_OUTCOME_SUCCEEDED), "before it was done");
    pbed_run(b, 2000);
    for (uint64_t seq = 1; seq <= 3; seq++)
        cr_assert(eq(int, pbed_fire(b, &uid, seq)->outcome, FIRE_OUTCOME_SUCCEEDED));
    pbed_free(b);
}

Test(planner_letter, of_a_deleted_job_is_discarded)
{
    struct pbed *b = with_letters(3, 4);
    struct uid uid = pbed_job(b, "a")->uid;
    (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
    cr_assert(eq(sz, letters(b, PLANNER_LETTERS_DISCARD, &uid, 1, 4, 1, 0)->api.letters_done, 4));
    cr_assert(eq(int, pbed_fire(b, &uid, 2)->outcome, FIRE_OUTCOME_CANCELLED));
    pbed_run(b, 1000);
    cr_assert(zero(sz, letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 4, 1, 0)->api.letters_done));
    pbed_free(b);
}

Test(planner_letter, without_a_copy_stays_dead)
{
    struct pbed *b = with_letters(3, 1);
    struct uid uid = pbed_job(b, "a")->uid;
    (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
    struct pbed_call *c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 77, 1, 1, 0);
    cr_assert(eq(int, c->api.answer, PLANNER_OK));
    cr_assert(zero(sz, c->api.letters_done));
    cr_assert(eq(int, pbed_fire(b, &uid, 1)->outcome, FIRE_OUTCOME_DEAD));
    pbed_free(b);
}

Test(planner_letter, one_is_retried_by_hand_also_of_a_deleted_job)
{
    for (int deleted = 0; deleted < 2; deleted++) {
        struct pbed *b = with_letters(3, 2);
        struct uid uid = pbed_job(b, "a")->uid;
        if (deleted)
            (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
        struct pbed_call *c = pbed_call(b, PLANNER_FIRE_RETRY, "a", NULL);
        c->api.uid = uid;
        c->api.seq = 2;
        for (int i = 0; i < 5000 && !c->answered; i++)
            pbed_run(b, 1);
        cr_assert(eq(int, c->api.answer, PLANNER_ACCEPTED), "deleted %d", deleted);
        pbed_run(b, 2000);
        cr_assert(eq(int, pbed_fire(b, &uid, 2)->outcome, FIRE_OUTCOME_SUCCEEDED));
        cr_assert(eq(int, pbed_fire(b, &uid, 1)->outcome, FIRE_OUTCOME_DEAD));
        pbed_free(b);
    }
}

/* What is decided on a row that was read is decided for the job as it is then, not as it was when the row was asked for. */
Test(planner_letter, one_that_is_read_while_its_slot_moves_is_sent_by_the_new_owner)
{
    uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int64_t at = 0; at < 120; at += 3) {
        struct pbed *b = with_letters(7, 3);
        struct uid uid = pbed_job(b, "a")->uid;
        int second = pbed_node_start(b);
        pbed_set(b)->read_max_ms = 60;
        pbed_set(b)->commit_max_ms = 60;
        (void)pbed_fire_call(b, PLANNER_FIRE_RETRY, &uid, 2, 0, false);
        pbed_run(b, at);
        pbed_move(b, slots, 8, 0, second);
        pbed_run(b, 20000);
        cr_assert(eq(int, pbed_fire(b, &uid, 2)->outcome, FIRE_OUTCOME_SUCCEEDED), "at %d ms", (int)at);
        cr_assert(eq(u64, pbed_job(b, "a")->counts.dead, 2));
        pbed_check(b, true);
        pbed_free(b);
    }
}

/* The redriven one is pending while the due's fire has no number in the store: who comes next may not think that it waits. */
Test(planner_letter, lets_the_due_that_was_sent_keep_its_number)
{
    struct pbed *b = with_letters(7, 1);
    struct uid uid = pbed_job(b, "a")->uid;
    struct planner_letter letter = {1, pbed_now(b) + 600000};
    cr_assert(eq(
        int,
        pbed_do(b, PLANNER_PUT, "a", "{\"schedule\":\"@every 10s\"," CALLBACK ",\"concurrency\":\"forbid\"}"),
        PLANNER_OK));
    pbed_set(b)->duration_max_ms = 100000;
    size_t before, after;
    (void)pbed_sent(b, &before);
    do {
        pbed_run(b, 1);
        (void)pbed_sent(b, &after);
    } while (after == before);
    struct pbed_call *c = pbed_call(b, PLANNER_LETTERS_REDRIVE, "a", NULL);
    c->api.uid = uid;
    c->api.version = pbed_fire(b, &uid, 1)->version;
    c->api.letters = &letter;
    c->api.letters_count = 1;
    for (int i = 0; i < 5000 && !c->answered; i++)
        pbed_run(b, 1);
    cr_assert(eq(sz, c->api.letters_done, 1));
    (void)pbed_node_start(b);
    pbed_node_kill(b, 0, 50);
    cr_assert(eq(int, pbed_do(b, PLANNER_RUN, "a", NULL), PLANNER_ACCEPTED));
    pbed_run(b, 1000); /* the bed asserts that no number has two dues */
    cr_assert(eq(int, pbed_fire(b, &uid, 2)->kind, FIRE_KIND_SCHEDULED));
    pbed_check(b, false);
    pbed_free(b);
}

/* Copies are kept by uid: that an earlier job of that name had one is nothing to this one. */
Test(planner_letter, of_a_job_that_took_the_name_of_another_one_can_be_sent_when_it_is_gone_too)
{
    struct pbed *b = with_letters(14, 1);
    pbed_set(b)->fail = 1;
    (void)pbed_do(b, PLANNER_PUT, "a", EVERY_1S);
    pbed_run(b, 1500);
    struct pbed_call *deleted = pbed_call(b, PLANNER_DELETE, "a", NULL);
    struct pbed_call *created = pbed_call(b, PLANNER_PUT, "a", EVERY_1S);
    (void)pbed_call(b, PLANNER_PUT, "a", EVERY_10S);
    (void)pbed_call(b, PLANNER_PUT, "a", EVERY_1S);
    pbed_run(b, 1500);
    cr_assert(deleted->answered && created->answered);
    struct uid uid = pbed_job(b, "a")->uid;
    cr_assert(eq(u64, pbed_job(b, "a")->counts.dead, 1));
    (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
    pbed_set(b)->fail = 0;
    struct pbed_call *c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 3, 1, 1, 0);
    cr_assert(eq(sz, c->api.letters_done, 1));
    pbed_run(b, 5000);
    cr_assert(eq(int, pbed_fire(b, &uid, 1)->outcome, FIRE_OUTCOME_SUCCEEDED));
    pbed_free(b);
}

/* Nobody knows any more what it was to deliver: it is not left pending for ever. */
Test(planner_letter, whose_copy_is_gone_when_its_time_comes_ends)
{
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct pbed *b = with_letters(15, 2);
    int second = pbed_node_start(b);
    struct uid uid = pbed_job(b, "a")->uid;
    (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
    struct pbed_call *c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 2, 1, 600000);
    cr_assert(eq(sz, c->api.letters_done, 2));
    pbed_run(b, 5000);
    cr_assert(eq(int, pbed_fire(b, &uid, 1)->outcome, FIRE_OUTCOME_SUCCEEDED));
    pbed_move(b, slots, 8, 0, second);
    pbed_run(b, 1000);
    pbed_forget_copies(b);
    pbed_run(b, 700000);
    const struct fire_row *row = pbed_fire(b, &uid, 2);
    cr_assert(eq(int, row->state, FIRE_STATE_ENDED));
    cr_assert(eq(int, row->outcome, FIRE_OUTCOME_DEAD));
    cr_assert(eq(int, row->reason, FIRE_REASON_EXPIRED));
    c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 2, 2, 0);
    cr_assert(zero(sz, c->api.letters_done));
    pbed_free(b);
}

/* A letter of a deleted job, sent once more: its callee is at work, for longer than what is kept in memory is near. */
static struct pbed *with_open_letter(struct uid *ret_uid)
{
    struct pbed_options o = pbed_defaults(7);
    o.horizon_ms = 5000;
    o.async_silent = 1;
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a",
                  "{\"schedule\":\"@after 1s\",\"callback\":{\"async\":{\"timeout\":\"20s\",\"max\":\"60s\"},"
                  "\"http\":{\"url\":\"http://10.0.0.9/x\"}}," NO_RETRY "}");
    pbed_run(b, 2000);
    *ret_uid = pbed_job(b, "a")->uid;
    (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
    pbed_set(b)->fail = 0;
    cr_assert(eq(int, pbed_fire_do(b, PLANNER_FIRE_RETRY, ret_uid, 1, 0, false), PLANNER_ACCEPTED));
    pbed_run(b, 1000);
    cr_assert(eq(int, pbed_fire(b, ret_uid, 1)->state, FIRE_STATE_OPEN));
    return b;
}

Test(planner_letter, of_a_deleted_job_is_completed_by_its_callee)
{
    struct uid uid;
    struct pbed *b = with_open_letter(&uid);
    struct pbed_call *c = pbed_fire_call(b, PLANNER_FIRE_HEARTBEAT, &uid, 1, 2, true);
    pbed_run(b, 100);
    cr_assert(c->answered && c->api.answer == PLANNER_OK && c->api.fire_continue);
    cr_assert(eq(int, pbed_fire_do(b, PLANNER_FIRE_COMPLETE, &uid, 1, 2, true), PLANNER_OK));
    pbed_run(b, 100);
    cr_assert(eq(int, pbed_fire(b, &uid, 1)->outcome, FIRE_OUTCOME_SUCCEEDED));
    pbed_free(b);
}

/* Its row may come with a page just then. */
Test(planner_letter, is_not_forgotten_for_one_whose_copy_is_not_there)
{
    for (int64_t every = 3; every < 40; every += 3) {
        struct uid uid;
        struct pbed *b = with_open_letter(&uid);
        pbed_set(b)->read_max_ms = 30;
        for (int64_t at = 0; at < 20000; at += every) {
            static struct planner_letter letter = {.seq = 1};
            struct pbed_call *c = pbed_call(b, PLANNER_LETTERS_REDRIVE, "a", NULL);
            c->api.uid = uid;
            c->api.version = 77;
            c->api.letters = &letter;
            c->api.letters_count = 1;
            pbed_run(b, every);
        }
        pbed_run(b, 30000);
        cr_assert(eq(int, pbed_fire(b, &uid, 1)->state, FIRE_STATE_ENDED), "asked each %d ms", (int)every);
        pbed_free(b);
    }
}

/* A job "a" with an asynchronous callee of which COUNT fires died; what it is sent from now on it never tells the end of. */
static struct pbed *with_dead_async(uint64_t seed, const char *job, int64_t count)
{
    struct pbed_options o = pbed_defaults(seed);
    o.horizon_ms = 5000;
    o.async_silent = 1;
    o.fail = 1;
    struct pbed *b = pbed_start(&o, 1);
    (void)pbed_do(b, PLANNER_CREATE, "a", job);
    pbed_run(b, count * 1000 + 500);
    cr_assert(eq(u64, pbed_job(b, "a")->counts.dead, (uint64_t)count));
    pbed_set(b)->fail = 0;
    return b;
}

/* The deleted job has no row that counts what is under way, and its open fire is beyond what the new owner keeps in memory. */
Test(planner_letter, of_a_deleted_job_waits_for_one_that_is_open_when_its_slot_has_moved)
{
    static const char *const rules[] = {"forbid", "queue", "replace"};
    static const uint16_t slots[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int64_t i = 0; i < 60; i++) {
        char job[512];
        (void)snprintf(job, sizeof(job),
                       "{\"schedule\":\"@every 1s\",\"concurrency\":\"%s\"," ASYNC "," NO_RETRY "}",
                       rules[i % 3]);
        struct pbed *b = with_dead_async((uint64_t)i + 1, job, 2);
        struct uid uid = pbed_job(b, "a")->uid;
        uint64_t version = pbed_fire(b, &uid, 1)->version;
        int second = pbed_node_start(b);
        (void)pbed_do(b, PLANNER_DELETE, "a", NULL);
        struct pbed_call *c = letters(b, PLANNER_LETTERS_REDRIVE, &uid, version, 2, 1, 8000);
        cr_assert(eq(sz, c->api.letters_done, 2));
        pbed_run(b, 1000 + 117 * i);
        cr_assert(eq(int, pbed_fire(b, &uid, 1)->state, FIRE_STATE_OPEN));
        pbed_move(b, slots, 8, 0, second);
        for (int64_t ms = 0; ms < 30000 && pbed_sent_of(b, &uid, 2) == 1; ms++)
            pbed_run(b, 1);
        cr_assert(eq(sz, pbed_sent_of(b, &uid, 2), 2), "%s: it goes in the end", rules[i % 3]);
        cr_assert(eq(int, pbed_fire(b, &uid, 1)->state, FIRE_STATE_ENDED), "%s, moved after %d ms",
                  rules[i % 3], (int)(1000 + 117 * i));
        pbed_run(b, 30000);
        cr_assert(zero(sz, planner_stats(pbed_planner(b, second))->jobs_loaded), "nothing stays");
        pbed_free(b);
    }
}

/* It does not wait for what waits for a retry, but for the end of its attempt, which is the one that the store has. */
Test(planner_letter, of_a_queue_starts_when_the_attempt_before_it_has_ended_for_good)
{
    unsigned waited = 0;
    for (int64_t at = 0; at < 300; at += 7) {
        struct pbed *b = with_letters(7, 1);
        struct uid uid = pbed_job(b, "a")->uid;
        pbed_set(b)->fail = 1;
        pbed_set(b)->commit_max_ms = 100;
        pbed_set(b)->duration_max_ms = 200;
        cr_assert(eq(int,
                     pbed_do(b, PLANNER_PUT, "a",
                             "{\"schedule\":\"@daily\",\"concurrency\":\"queue\"," CALLBACK
                             ",\"retry\":{\"min_backoff\":\"1h\"}}"),
                     PLANNER_OK));
        (void)pbed_do(b, PLANNER_RUN, "a", NULL);
        pbed_run(b, at);
        (void)letters(b, PLANNER_LETTERS_REDRIVE, &uid, 1, 1, 1, 0);
        while (pbed_sent_of(b, &uid, 1) == 1) {
            const struct fire_row *f = pbed_fire(b, &uid, 2);
            waited += pbed_sent_of(b, &uid, 2) > 0 && f->attempts == 0;
            pbed_run(b, 1);
        }
        cr_assert(eq(sz, pbed_fire(b, &uid, 2)->attempts, pbed_sent_of(b, &uid, 2)), "after %d ms", (int)at);
        pbed_free(b);
    }
    cr_assert(gt(uint, waited, 100));
}
