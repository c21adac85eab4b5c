/* The part of store_contract_mysql.c that measures, and the jobs it makes for that. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_MYSQL_MEASURE_H
#define CARILLON_TESTS_STORE_CONTRACT_MYSQL_MEASURE_H

#include <inttypes.h>

#include "agent/base/clock.h"
#include "tests/unit/store/store_contract.h"

static void insert_jobs(struct contract *t, uint32_t first, uint32_t count)
{
    struct job_change *c = mem_new_array(struct job_change, count);
    struct job_spec *spec =
        contract_spec("default", "a", "\"labels\":{\"team\":\"pay\"},\"payload\":{\"invoice\":42}");
    for (uint32_t i = 0; i < count; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "job-%08u", first + i);
        struct job_row row =
            contract_row((uint16_t)((first + i) * 2654435761u % CONTRACT_SLOTS), first + i, "default", id);
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = spec;
    }
    contract_commit(t, c, count);
    for (uint32_t i = 0; i < count; i++)
        CHECK(c[i].result == CHANGE_RESULT_OK, "%d %s", (int)c[i].result, c[i].problem);
    job_spec_unref(spec);
    mem_free(c);
}

static double advance(struct contract *t, uint32_t total, uint32_t batch, unsigned rounds,
                      unsigned ring_bytes)
{
    struct job_change *c = mem_new_array(struct job_change, batch);
    uint64_t start = clock_boot_us();
    for (unsigned round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < batch; i++) {
            uint32_t n = (round * batch + i) % total;
            struct job_row row = contract_row((uint16_t)(n * 2654435761u % CONTRACT_SLOTS), n, "default", "");
            row.rev = 1 + (uint64_t)(round * batch + i) / total;
            c[i] = contract_change(CHANGE_UPDATE, &row);
            c[i].row.ring_bytes = (uint16_t)ring_bytes;
        }
        contract_commit(t, c, batch);
        for (uint32_t i = 0; i < batch; i++)
            CHECK(c[i].result == CHANGE_RESULT_OK, "round %u: %d %s", round, (int)c[i].result, c[i].problem);
    }
    double seconds = (double)(clock_boot_us() - start) / 1e6;
    mem_free(c);
    return seconds;
}

static void count_load(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct contract_answer *a = arg;
    a->more = more;
    for (size_t i = 0; i < count; i++)
        CHECK(jobs[i].spec, "%s", jobs[i].problem);
    a->fires_count = 0;
    a->slots_count = count;
    contract_answered(a, e);
}

static void measure(struct contract *t)
{
    enum { TOTAL = 20000, BATCH = 500 };
    contract_join(t, "m1");
    uint64_t start = clock_boot_us();
    for (uint32_t n = 0; n < TOTAL; n += BATCH)
        insert_jobs(t, n, BATCH);
    (void)printf("insert: %.0f jobs/s in batches of %d\n", TOTAL / ((double)(clock_boot_us() - start) / 1e6),
                 BATCH);
    double plain = advance(t, TOTAL, BATCH, TOTAL / BATCH, 0);
    (void)printf("advance, no ring: %.0f rows/s in batches of %d, %.1f ms a batch\n", TOTAL / plain, BATCH,
                 plain * 1e3 / (TOTAL / BATCH));
    struct store_load load = {.until_ms = INT64_MAX, .from_ms = RECORD_NONE, .limit = TOTAL};
    uint16_t slots[CONTRACT_SLOTS];
    for (uint16_t i = 0; i < CONTRACT_SLOTS; i++)
        slots[i] = i;
    load.slots = slots;
    load.slots_count = CONTRACT_SLOTS;
    struct contract_answer *a = contract_ask(t);
    start = clock_boot_us();
    t->ops->load_jobs(t->self, &load, count_load, a);
    contract_wait(a);
    contract_ok(a);
    CHECK(a->slots_count == TOTAL, "%zu", a->slots_count);
    (void)printf("load: %zu jobs with definitions in %.0f ms\n", a->slots_count,
                 (double)(clock_boot_us() - start) / 1e3);
    contract_free(a);
}

static void measure_ring(struct contract *t)
{
    enum { TOTAL = 20000, BATCH = 500 };
    contract_join(t, "m1");
    for (uint32_t n = 0; n < TOTAL; n += BATCH)
        insert_jobs(t, n, BATCH);
    double ring = advance(t, TOTAL, BATCH, TOTAL / BATCH, 200);
    (void)printf("advance, ring of 200 bytes: %.0f rows/s in batches of %d\n", TOTAL / ring, BATCH);
}

static void measure_single(struct contract *t)
{
    contract_join(t, "m1");
    insert_jobs(t, 0, 500);
    double one = advance(t, 500, 1, 500, 100);
    (void)printf("commit of a single row: %.2f ms\n", one * 1e3 / 500);
}

/* How long beats take while large batches are written. */
static void measure_beats(struct contract *t)
{
    enum { TOTAL = 20000, BYTES = 4000 };
    struct job_change *c = mem_new_array(struct job_change, TOTAL);
    struct job_change **list = mem_new_array(struct job_change *, TOTAL);
    char more[BYTES + 32];
    uint64_t beats = 0, worst_us = 0, failed = 0;
    contract_join(t, "m1");
    memset(more, 'x', sizeof(more));
    memcpy(more, "\"payload\":\"", 11);
    memcpy(more + BYTES, "\"", 2);
    struct job_spec *spec = contract_spec("default", "a", more);
    for (uint32_t i = 0; i < TOTAL; i++) {
        char id[32];
        (void)snprintf(id, sizeof(id), "job-%08u", i);
        struct job_row row = contract_row((uint16_t)(i % CONTRACT_SLOTS), i, "default", id);
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = spec;
        list[i] = &c[i];
    }
    struct store_batch batch = {.member = "m1", .jobs = list, .jobs_count = TOTAL};
    struct contract_answer *commit = contract_ask(t);
    uint64_t start = clock_boot_us();
    t->ops->commit(t->self, &batch, contract_on_done, commit);
    for (; commit->calls == 0; beats++) {
        struct contract_answer *a = contract_ask(t);
        uint64_t sent_us = clock_boot_us();
        t->ops->beat(t->self, "m1", contract_on_beat, a);
        while (a->calls == 0)
            loop_run(t->loop);
        uint64_t took_us = clock_boot_us() - sent_us;
        worst_us = took_us > worst_us ? took_us : worst_us;
        failed += a->err.code != ERR_OK;
        contract_free(a);
    }
    contract_ok(commit);
    (void)printf("beats during a commit of %d jobs in %.0f ms: %" PRIu64 ", %" PRIu64
                 " failed, the slowest took %.1f ms\n",
                 TOTAL, (double)(clock_boot_us() - start) / 1e3, beats, failed, (double)worst_us / 1e3);
    contract_free(commit);
    job_spec_unref(spec);
    mem_free(list);
    mem_free(c);
}

#endif
