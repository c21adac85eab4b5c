/* The part of the contract's tests that is about finding fires, about copies of what died and about forgetting; see
 * store_contract_tests.h, which includes it. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_SEARCH_H
#define CARILLON_TESTS_STORE_CONTRACT_SEARCH_H

#include <stdlib.h>

#include "tests/unit/store/store_contract.h"

/* Whether there may be more. */
static bool vacuum(struct contract *t, int64_t now_ms)
{
    struct contract_answer *a = contract_ask(t);
    struct store_vacuum what = {.now_ms = now_ms, .fires_max = 5};
    t->ops->vacuum(t->self, &what, contract_on_bool, a);
    contract_wait(a);
    contract_ok(a);
    bool more = a->yes;
    contract_free(a);
    return more;
}

/* --- search -------------------------------------------------------------------------------------------------------- */

static void insert_fire(struct contract *t, const struct fire_row *row, struct job_spec *copy,
                        int64_t copy_until_ms)
{
    struct fire_change f = {.op = CHANGE_INSERT, .row = *row, .copy = copy, .copy_until_ms = copy_until_ms};
    struct job_change c = {.op = CHANGE_NONE, .row.uid = row->uid, .fires = &f, .fires_count = 1};
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d %s", (int)c.result, c.problem);
}

/* Fire N of ten: of two jobs, three services, all outcomes, dues in pairs alike. */
static struct fire_row search_fire(unsigned n)
{
    struct uid uid = contract_uid((uint16_t)(n % 2), 1);
    struct fire_row row = contract_fire(&uid, n / 2 + 1);
    row.outcome = (enum fire_outcome)(n % FIRE_OUTCOME_COUNT_);
    row.state = row.outcome == FIRE_OUTCOME_PENDING ? FIRE_STATE_WAITING : FIRE_STATE_ENDED;
    row.due_ms = CONTRACT_NOW + n / 2;
    (void)snprintf(row.id, sizeof(row.id), "%s", n % 2 ? "odd" : "even");
    (void)snprintf(row.service, sizeof(row.service), "s%u", n % 3);
    return row;
}

#define SEARCH_FIRES 10

static struct store_fire_filter search_all(void)
{
    return (struct store_fire_filter){
        .ns = "default", .outcome = -1, .from_ms = RECORD_NONE, .until_ms = RECORD_NONE, .limit = 100};
}

static void search_made(struct contract *t)
{
    contract_join(t, "m1");
    for (unsigned n = 0; n < SEARCH_FIRES; n++) {
        struct fire_row row = search_fire(n);
        insert_fire(t, &row, NULL, 0);
    }
    struct fire_row other = search_fire(0);
    other.uid = contract_uid(2, 2);
    other.slot = 2;
    memcpy(other.ns, "other", 6);
    insert_fire(t, &other, NULL, 0);
}

/* Which of the ten F finds, as bits. */
static unsigned search(struct contract *t, const struct store_fire_filter *f)
{
    struct contract_answer *a = contract_search(t, f);
    unsigned found = 0;
    for (size_t i = 0; i < a->fires_count; i++) {
        unsigned n = (unsigned)(a->fires[i].seq - 1) * 2 + a->fires[i].slot;
        struct fire_row row = search_fire(n);
        contract_same_fire(&a->fires[i], &row);
        found |= 1u << n;
    }
    CHECK(!a->place.set, "%s", "all of it is on the page");
    contract_free(a);
    return found;
}

static void fires_are_found_by_all_that_is_asked(struct contract *t)
{
    search_made(t);
    struct store_fire_filter f = search_all();
    CHECK(search(t, &f) == 0x3ff, "%#x", search(t, &f));
    f.outcome = FIRE_OUTCOME_DEAD;
    CHECK(search(t, &f) == (1 << 2 | 1 << 8), "%#x", search(t, &f));
    f.job = "odd";
    CHECK(search(t, &f) == 0, "%#x", search(t, &f));
    f.outcome = -1;
    CHECK(search(t, &f) == 0x2aa, "%#x", search(t, &f));
    f.service = "s1";
    CHECK(search(t, &f) == (1 << 1 | 1 << 7), "%#x", search(t, &f));
    f = search_all();
    f.prefix = "ev";
    f.from_ms = CONTRACT_NOW + 1;
    f.until_ms = CONTRACT_NOW + 4;
    CHECK(search(t, &f) == (1 << 2 | 1 << 4 | 1 << 6), "%#x", search(t, &f));
    f.prefix = "event";
    CHECK(search(t, &f) == 0, "%#x", search(t, &f));
    f = search_all();
    f.ns = "nobody";
    CHECK(search(t, &f) == 0, "%#x", search(t, &f));
    f.ns = "caf\xc3\xa9";
    CHECK(search(t, &f) == 0, "%#x", search(t, &f));
}

static void search_walk(struct contract *t, struct store_fire_filter f, size_t limit, size_t expected)
{
    struct fire_row last = {0};
    size_t found = 0;
    f.limit = limit;
    f.after.set = false;
    do {
        struct contract_answer *a = contract_search(t, &f);
        CHECK(a->fires_count <= limit, "%zu fires", a->fires_count);
        for (size_t i = 0; i < a->fires_count; i++, found++) {
            const struct fire_row *row = &a->fires[i];
            int order = memcmp(row->uid.bytes, last.uid.bytes, sizeof(row->uid));
            bool up = row->due_ms > last.due_ms ||
                      (row->due_ms == last.due_ms && (order > 0 || (order == 0 && row->seq > last.seq)));
            CHECK(found == 0 || up == f.oldest_first, "fire %zu is out of order", found);
            last = *row;
            last.log = last.payload = NULL;
        }
        f.after = a->place;
        contract_free(a);
    } while (f.after.set);
    CHECK(found == expected, "%zu of %zu found by pages of %zu", found, expected, limit);
}

static void search_pages_meet_without_gaps(struct contract *t)
{
    search_made(t);
    for (unsigned i = 0; i < 2; i++)
        for (size_t limit = 1; limit <= SEARCH_FIRES + 1; limit++) {
            struct store_fire_filter f = search_all();
            f.oldest_first = i > 0;
            search_walk(t, f, limit, SEARCH_FIRES);
            f.outcome = FIRE_OUTCOME_SUCCEEDED;
            search_walk(t, f, limit, 2);
            f.outcome = -1;
            f.job = "even";
            search_walk(t, f, limit, SEARCH_FIRES / 2);
            f.job = NULL;
            f.service = "s0";
            search_walk(t, f, limit, 4);
        }
}

static void a_copy_outlives_its_job(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct job_spec *spec = contract_spec("default", "a", "\"payload\":{\"n\":1}");
    struct fire_row fire = contract_fire(&row.uid, 1);
    fire.state = FIRE_STATE_ENDED;
    fire.outcome = FIRE_OUTCOME_DEAD;
    fire.version = 7;
    fire.wake_ms = CONTRACT_NOW + 1000;
    insert_fire(t, &fire, spec, CONTRACT_NOW + 1000);
    fire.seq = fire.seq_last = 2;
    insert_fire(t, &fire, spec, CONTRACT_NOW + 2000);
    insert_fire(t, &fire, spec, CONTRACT_NOW + 2000); /* once more: it is there */
    struct job_change gone = contract_change(CHANGE_DELETE, &row);
    CHECK(contract_one(t, &gone) == CHANGE_RESULT_OK, "%d", (int)gone.result);
    CHECK(!contract_copy(t, &row.uid, 6), "%s", "no such copy");
    (void)vacuum(t, CONTRACT_NOW + 1500);
    struct job_spec *copy = contract_copy(t, &row.uid, 7);
    CHECK(copy && job_spec_equal(copy, spec), "%s", "what was to be delivered");
    job_spec_unref(copy);
    struct contract_answer *a = contract_fires(t, &row.uid, 0, 10);
    CHECK(a->fires_count == 0, "%zu", a->fires_count);
    contract_free(a);
    (void)vacuum(t, CONTRACT_NOW + 2500);
    CHECK(!contract_copy(t, &row.uid, 7), "%s", "the copy is over");
    job_spec_unref(spec);
}

static unsigned search_label(struct contract *t, const char *name, const char *value)
{
    struct store_fire_filter f = search_all();
    f.label_names = &name;
    f.label_values = &value;
    f.labels_count = 1;
    struct contract_answer *a = contract_search(t, &f);
    unsigned count = (unsigned)a->fires_count;
    contract_free(a);
    return count;
}

static void labels_are_of_the_job_or_of_the_copy(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "\"labels\":{\"x\":\"now\",\"y\":\"\"}");
    struct job_spec *then = contract_spec("default", "a", "\"labels\":{\"x\":\"then\",\"y\":\"\"}");
    struct fire_row fire = contract_fire(&row.uid, 1);
    fire.state = FIRE_STATE_ENDED;
    fire.outcome = FIRE_OUTCOME_DEAD;
    insert_fire(t, &fire, then, CONTRACT_NOW + 1000);
    fire.seq = fire.seq_last = 2;
    fire.version = 9; /* without a copy */
    insert_fire(t, &fire, NULL, 0);
    CHECK(search_label(t, "x", "now") == 2 && search_label(t, "x", "then") == 0, "%u and %u",
          search_label(t, "x", "now"), search_label(t, "x", "then"));
    struct job_change gone = contract_change(CHANGE_DELETE, &row);
    CHECK(contract_one(t, &gone) == CHANGE_RESULT_OK, "%d", (int)gone.result);
    CHECK(search_label(t, "x", "now") == 0 && search_label(t, "x", "then") == 1, "%u and %u",
          search_label(t, "x", "now"), search_label(t, "x", "then"));
    CHECK(search_label(t, "y", "") == 1 && search_label(t, "then", "") == 0 &&
              search_label(t, "x", "") == 0 && search_label(t, "x", "the") == 0,
          "%s", "nothing but a label is one");
    job_spec_unref(then);
}

static void dead_letters_are_counted_by_namespace(struct contract *t)
{
    search_made(t);
    struct fire_row fire = search_fire(2);
    fire.seq = fire.seq_last = 77;
    memcpy(fire.ns, "zoo", 4);
    insert_fire(t, &fire, NULL, 0);
    struct contract_answer *a = contract_ask(t);
    t->ops->count_dead(t->self, contract_on_dead, a);
    contract_wait(a);
    contract_ok(a);
    CHECK(a->dead_count == 3 && strcmp(a->dead[0].ns, "default") == 0 && a->dead[0].count == 2 &&
              strcmp(a->dead[1].ns, "other") == 0 && a->dead[1].count == 0 &&
              strcmp(a->dead[2].ns, "zoo") == 0 && a->dead[2].count == 1,
          "%zu namespaces", a->dead_count);
    contract_free(a);
}

static uint64_t count_jobs(struct contract *t, const char *ns, uint64_t limit)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->count_jobs(t->self, ns, limit, contract_on_dead, a);
    contract_wait(a);
    contract_ok(a);
    CHECK(a->dead_count == 1, "%zu counts", a->dead_count);
    uint64_t count = a->dead[0].count;
    contract_free(a);
    return count;
}

static void jobs_are_counted_up_to_a_limit(struct contract *t)
{
    contract_join(t, "m1");
    CHECK(count_jobs(t, NULL, 10) == 0 && count_jobs(t, "default", 10) == 0, "%s", "there is none");
    (void)contract_make(t, 1, 1, "default", "a", "");
    (void)contract_make(t, 2, 2, "default", "b", "");
    (void)contract_make(t, 3, 3, "default0", "a", "");
    struct job_row gone = contract_make(t, 4, 4, "other", "a", "");
    CHECK(count_jobs(t, "default", 10) == 2 && count_jobs(t, "default0", 10) == 1 &&
              count_jobs(t, "other", 10) == 1 && count_jobs(t, "defaul", 10) == 0,
          "%s", "of a namespace");
    CHECK(count_jobs(t, NULL, 10) == 4 && count_jobs(t, NULL, 3) == 3 && count_jobs(t, "default", 1) == 1,
          "%s", "up to");
    struct job_change change = contract_change(CHANGE_DELETE, &gone);
    CHECK(contract_one(t, &change) == CHANGE_RESULT_OK, "%d", (int)change.result);
    CHECK(count_jobs(t, NULL, 10) == 3 && count_jobs(t, "other", 10) == 0, "%s", "one went");
}

/* The bound of these tests is five. */
static void vacuum_keeps_the_newest_of_a_history(struct contract *t)
{
    contract_join(t, "m1");
    for (uint16_t job = 1; job <= 3; job++)
        for (unsigned i = 1; i <= 3u + 3u * job; i++) {
            struct uid uid = contract_uid(job, 1);
            struct fire_row fire = contract_fire(&uid, i);
            fire.state = i == 1 ? FIRE_STATE_WAITING : FIRE_STATE_ENDED;
            fire.outcome = i == 1 ? FIRE_OUTCOME_PENDING : i == 2 ? FIRE_OUTCOME_DEAD : FIRE_OUTCOME_SKIPPED;
            fire.wake_ms = CONTRACT_NOW + 100000;
            insert_fire(t, &fire, NULL, 0);
        }
    (void)vacuum(t, CONTRACT_NOW);
    for (uint16_t job = 1; job <= 3; job++) {
        struct uid uid = contract_uid(job, 1);
        struct contract_answer *a = contract_fires(t, &uid, 0, 100);
        size_t skipped = job == 1 ? 4 : 5;
        CHECK(a->fires_count == skipped + 2, "job %u: %zu fires", job, a->fires_count);
        for (size_t i = 0; i < skipped; i++)
            CHECK(a->fires[i].seq == 3u + 3u * job - i, "job %u: seq %" PRIu64, job, a->fires[i].seq);
        CHECK(a->fires[skipped].seq == 2 && a->fires[skipped + 1].seq == 1, "job %u", job);
        contract_free(a);
    }
}

/* COUNT ended fires of a job; they may be forgotten from WAKE_MS on. */
static void insert_history(struct contract *t, const struct uid *uid, uint32_t count, int64_t wake_ms)
{
    struct fire_change *f = mem_new_array(struct fire_change, count);
    for (uint32_t i = 0; i < count; i++) {
        f[i] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(uid, i + 1)};
        f[i].row.state = FIRE_STATE_ENDED;
        f[i].row.outcome = FIRE_OUTCOME_SUCCEEDED;
        f[i].row.wake_ms = wake_ms;
    }
    struct job_change c = {.op = CHANGE_NONE, .row.uid = *uid, .fires = f, .fires_count = count};
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d %s", (int)c.result, c.problem);
    mem_free(f);
}

/* Else what ends faster than a bite a minute stays for good, more and more of it. */
static void vacuum_says_when_a_bite_was_not_enough(struct contract *t)
{
    struct uid old = contract_uid(1, 1), longer = contract_uid(2, 1);
    contract_join(t, "m1");
    insert_history(t, &old, 1300, CONTRACT_NOW - 1);
    insert_history(t, &longer, 1300, CONTRACT_NOW + 100000);
    unsigned bites = 1;
    while (vacuum(t, CONTRACT_NOW))
        CHECK(++bites < 100, "%s", "there is always more");
    struct contract_answer *a = contract_fires(t, &old, 0, 10);
    CHECK(a->fires_count == 0, "seq %" PRIu64 " is left after %u bites", a->fires[0].seq, bites);
    contract_free(a);
    a = contract_fires(t, &longer, 0, 10);
    CHECK(a->fires_count == 5, "%zu fires are left after %u bites", a->fires_count, bites);
    contract_free(a);
    CHECK(!vacuum(t, CONTRACT_NOW), "%s", "more than nothing");
}

#endif
