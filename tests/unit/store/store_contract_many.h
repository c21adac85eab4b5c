/* Tests of the contract: batches so large that a store may write them in another form than single rows. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_MANY_H
#define CARILLON_TESTS_STORE_CONTRACT_MANY_H

#include "tests/unit/store/store_contract.h"

#define MANY 700 /* more than one statement holds */

/* What only this job has: all kinds of values, those that are not there too. */
static inline struct job_row many_row(uint32_t i, struct job_spec **ret_spec)
{
    static const char *const more[] = {
        "", "\"payload\":null", "\"payload_base64\":\"AAH/Jw==\"",
        "\"payload\":{\"n\":\"'\\\\\\u0000\\u00fc\"},\"labels\":{\"team\":\"p\\u00e4y\",\"b\":\"\"}",
        "\"description\":\"\\ud83d\\ude00 it's \\\\ \\\"quoted\\\"\""};
    char id[16];
    (void)snprintf(id, sizeof(id), "many-%u", i);
    struct job_row row = contract_row((uint16_t)(i % CONTRACT_SLOTS), i, "default", id);
    row.change_id = UINT64_MAX - i;
    row.counts.seq = i % 2 ? UINT64_MAX - i : 0;
    row.ring_bytes = (uint16_t)(i % 7);
    memset(row.ring, (int)i, row.ring_bytes);
    if (i % 3 == 0)
        row.due_ms = row.wake_ms = RECORD_NONE;
    if (i % 5 == 0)
        row.last.due_ms = -(int64_t)i;
    *ret_spec = contract_spec("default", id, more[i % 5]);
    return row;
}

static inline void many_check(struct contract *t, const struct job_change *c)
{
    struct contract_answer *a = contract_get(t, "default", c->row.id);
    size_t bytes, wanted_bytes;
    CHECK(a->jobs_count == 1 && a->jobs[0].spec, "job %s", c->row.id);
    contract_same_row(&a->jobs[0].row, &c->row);
    const char *definition = job_spec_definition(a->jobs[0].spec, &bytes);
    const char *wanted = job_spec_definition(c->spec, &wanted_bytes);
    CHECK(bytes == wanted_bytes && memcmp(definition, wanted, bytes) == 0, "%s and %s", definition, wanted);
    CHECK(a->jobs[0].spec->payload_bytes == c->spec->payload_bytes &&
              !a->jobs[0].spec->payload == !c->spec->payload &&
              (!c->spec->payload ||
               memcmp(a->jobs[0].spec->payload, c->spec->payload, c->spec->payload_bytes) == 0),
          "payload of %s", c->row.id);
    contract_free(a);
}

static inline void many_fires(struct fire_change *f, const struct uid *uid, uint32_t i)
{
    for (unsigned k = 0; k < 2; k++) {
        f[k] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(uid, k + 1)};
        f[k].row.log = k ? (char *)"\0log" : NULL;
        f[k].row.log_bytes = k ? 4 : 0;
        f[k].row.finished_ms = i % 2 ? CONTRACT_NOW : RECORD_NONE;
        (void)snprintf(f[k].row.last_error, sizeof(f[k].row.last_error), "it's \xc3\xbc %u", i);
    }
}

static inline void many_jobs(struct contract *t, enum err_code (*commit)(struct contract *, const char *,
                                                                         struct job_change *, size_t))
{
    struct job_change *c = mem_new_array(struct job_change, MANY);
    struct fire_change *f = mem_new_array(struct fire_change, MANY * 2);
    contract_join(t, "m1");
    for (uint32_t i = 0; i < MANY; i++) {
        struct job_spec *spec;
        struct job_row row = many_row(i, &spec);
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = spec;
        many_fires(&f[2 * i], &row.uid, i);
        c[i].fires = &f[2 * i];
        c[i].fires_count = 2;
    }
    CHECK(commit(t, "m1", c, MANY) == ERR_OK, "%s", "once");
    CHECK(commit(t, "m1", c, MANY) == ERR_OK, "%s", "a repeat finds its own work");
    for (uint32_t i = 0; i < MANY; i++) {
        CHECK(c[i].result == CHANGE_RESULT_OK, "job %u: %d %s", i, (int)c[i].result, c[i].problem);
        if (i % 20 > 4)
            continue;
        many_check(t, &c[i]);
        struct contract_answer *a = contract_fires(t, &c[i].row.uid, 0, 10);
        CHECK(a->fires_count == 2, "%zu fires of job %u", a->fires_count, i);
        contract_same_fire(&a->fires[0], &c[i].fires[1].row);
        contract_same_fire(&a->fires[1], &c[i].fires[0].row);
        contract_free(a);
    }
    for (uint32_t i = 0; i < MANY; i++)
        job_spec_unref(c[i].spec);
    mem_free(c);
    mem_free(f);
}

static inline void many_jobs_of_one_batch_are_as_each_alone(struct contract *t)
{
    many_jobs(t, contract_commit_as);
}

static inline void batches_at_a_time_are_as_one_after_the_other(struct contract *t)
{
    many_jobs(t, contract_commit_parts);
}

/* Two names of a large batch are taken, and one it cannot hold. */
static inline void odd_ones_of_many_new_jobs_are_alone(struct contract *t)
{
    struct job_change *c = mem_new_array(struct job_change, MANY);
    contract_join(t, "m1");
    (void)contract_make(t, 1, 100000, "default", "many-7", "");
    (void)contract_make(t, 1, 100001, "default", "many-600", "");
    for (uint32_t i = 0; i < MANY; i++) {
        struct job_spec *spec;
        struct job_row row = many_row(i, &spec);
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = spec;
    }
    memcpy(c[300].row.tzdata, "2025\xc3\xa9", 7);
    contract_commit(t, c, MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        enum change_result wanted = i == 7 || i == 600 ? CHANGE_RESULT_EXISTS
                                    : i == 300         ? CHANGE_RESULT_REFUSED
                                                       : CHANGE_RESULT_OK;
        CHECK(c[i].result == wanted, "job %u: %d %s", i, (int)c[i].result, c[i].problem);
        job_spec_unref(c[i].spec);
    }
    mem_free(c);
}

#endif
