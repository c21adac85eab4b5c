/* The part of the contract's tests that is about loading the rows of slots; see store_contract_tests.h, which includes it. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_LOADS_H
#define CARILLON_TESTS_STORE_CONTRACT_LOADS_H

#include <stdlib.h>

#include "tests/unit/store/store_contract.h"

static void make_many(struct contract *t, uint32_t count)
{
    struct job_change *c = mem_new_array(struct job_change, count);
    struct fire_change *f = mem_new_array(struct fire_change, count);
    for (uint32_t i = 0; i < count; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%04u", i);
        struct job_row row = contract_row((uint16_t)(i % 5), i, i % 3 ? "default" : "other", id);
        row.wake_ms = CONTRACT_NOW + i / 20; /* many alike */
        row.state = i % 4 ? JOB_STATE_ACTIVE : JOB_STATE_PAUSED;
        row.last.seq = i % 2;
        row.last.outcome = i % 6 ? FIRE_OUTCOME_SUCCEEDED : FIRE_OUTCOME_DEAD;
        c[i] = contract_change(CHANGE_INSERT, &row);
        c[i].spec = contract_spec(
            row.ns, id, i % 10 ? "\"labels\":{\"l\":\"x\"}" : "\"labels\":{\"l\":\"x\",\"m\":\"y\"}");
        f[i] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(&row.uid, 1 + i % 2)};
        f[i].row.wake_ms = row.wake_ms;
        c[i].fires = &f[i];
        c[i].fires_count = 1;
    }
    contract_commit(t, c, count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(c[i].result == CHANGE_RESULT_OK, "job %u: %d %s", i, (int)c[i].result, c[i].problem);
        job_spec_unref(c[i].spec);
    }
    mem_free(c);
    mem_free(f);
}

static size_t load_all(struct contract *t, bool fires, size_t limit)
{
    static const uint16_t slots[] = {0, 2, 3, 40};
    struct store_load load = {.slots = slots,
                              .slots_count = 4,
                              .until_ms = CONTRACT_NOW + 5,
                              .from_ms = RECORD_NONE,
                              .limit = limit};
    size_t total = 0;
    for (bool more = true; more;) {
        struct contract_answer *a = contract_load(t, &load, fires);
        size_t n = fires ? a->fires_count : a->jobs_count;
        CHECK(n <= limit && (n > 0 || !a->more), "%zu rows, limit %zu", n, limit);
        for (size_t i = 0; i < n; i++) {
            uint16_t slot = fires ? a->fires[i].slot : a->jobs[i].row.slot;
            int64_t wake = fires ? a->fires[i].wake_ms : a->jobs[i].row.wake_ms;
            struct uid uid = fires ? a->fires[i].uid : a->jobs[i].row.uid;
            uint64_t seq = fires ? a->fires[i].seq : 0;
            int order = memcmp(uid.bytes, load.after.uid.bytes, sizeof(uid));
            if (order == 0) /* several fires of a job may wake at once */
                order = seq > load.after.seq;
            CHECK(!load.after.set || slot > load.after.slot ||
                      (slot == load.after.slot &&
                       (wake > load.after.wake_ms || (wake == load.after.wake_ms && order > 0))),
                  "slot %u wake %" PRId64, slot, wake);
            CHECK(slot != 1 && slot != 4 && wake < load.until_ms, "slot %u wake %" PRId64, slot, wake);
            load.after.set = true;
            load.after.slot = slot;
            load.after.wake_ms = wake;
            load.after.uid = uid;
            load.after.seq = seq;
        }
        total += n;
        more = a->more;
        contract_free(a);
    }
    return total;
}

static void loads_page_in_key_order_without_gaps(struct contract *t)
{
    static const size_t limits[] = {1000, 7, 1};
    contract_join(t, "m1");
    make_many(t, 200);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(load_all(t, false, limits[i]) == 60, "%zu jobs by %zu", load_all(t, false, limits[i]),
              limits[i]);
        CHECK(load_all(t, true, limits[i]) == 60, "%zu fires by %zu", load_all(t, true, limits[i]),
              limits[i]);
    }
}

static void fires_that_wake_together_load_in_order(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 2, 1, "default", "a", "");
    struct job_change c = contract_change(CHANGE_UPDATE, &row);
    struct fire_change f[4];
    for (uint64_t i = 0; i < 4; i++) {
        f[i] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(&row.uid, i + 1)};
        f[i].row.slot = row.slot;
        f[i].row.wake_ms = CONTRACT_NOW + 1;
    }
    c.fires = f;
    c.fires_count = 4;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    for (size_t limit = 1; limit < 6; limit++)
        CHECK(load_all(t, true, limit) == 4, "%zu fires by %zu", load_all(t, true, limit), limit);
}

static void ended_and_wakeless_rows_are_not_loaded(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct job_change c = contract_change(CHANGE_UPDATE, &row);
    struct fire_change f[2] = {{.op = CHANGE_INSERT, .row = contract_fire(&row.uid, 1)},
                               {.op = CHANGE_INSERT, .row = contract_fire(&row.uid, 2)}};
    f[0].row.state = FIRE_STATE_ENDED;
    c.row.wake_ms = RECORD_NONE;
    c.fires = f;
    c.fires_count = 2;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    uint16_t slot = 1;
    struct store_load load = {
        .slots = &slot, .slots_count = 1, .until_ms = INT64_MAX, .from_ms = RECORD_NONE, .limit = 10};
    struct contract_answer *a = contract_load(t, &load, false);
    CHECK(a->jobs_count == 0 && !a->more, "%zu", a->jobs_count);
    contract_free(a);
    a = contract_load(t, &load, true);
    CHECK(a->fires_count == 1 && a->fires[0].seq == 2, "%zu", a->fires_count);
    contract_free(a);
    load.from_ms = f[1].row.wake_ms + 1;
    a = contract_load(t, &load, true);
    CHECK(a->fires_count == 0, "%zu", a->fires_count);
    contract_free(a);
}

static void loads_may_be_of_older_zone_data_only(struct contract *t)
{
    static const char *const releases[] = {"2024b", "2025b", "2025c", "", "unknown", "2024a"};
    uint16_t slot = 1;
    struct store_load load = {.slots = &slot,
                              .slots_count = 1,
                              .until_ms = INT64_MAX,
                              .from_ms = RECORD_NONE,
                              .tzdata_before = "2025b",
                              .limit = 1};
    contract_join(t, "m1");
    for (unsigned i = 0; i < 6; i++) {
        char id[2] = {(char)('a' + i), 0};
        struct job_row row = contract_make(t, slot, i + 1, "default", id, "");
        struct job_change c = contract_change(CHANGE_UPDATE, &row);
        memset(c.row.tzdata, 0, sizeof(c.row.tzdata));
        memcpy(c.row.tzdata, releases[i], strlen(releases[i]));
        c.row.wake_ms = CONTRACT_NOW + i;
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct contract_answer *a = contract_load(t, &load, false);
        CHECK(a->jobs_count == 1 && a->jobs[0].row.id[0] == "af"[i] && a->more == (i == 0), "page %u: %zu", i,
              a->jobs_count);
        load.after.set = true;
        load.after.slot = 1;
        load.after.wake_ms = a->jobs[0].row.wake_ms;
        load.after.uid = a->jobs[0].row.uid;
        contract_free(a);
    }
    struct contract_answer *a = contract_load(t, &load, false);
    CHECK(a->jobs_count == 0 && !a->more, "%zu", a->jobs_count);
    contract_free(a);
}

#endif
