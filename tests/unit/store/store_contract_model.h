/* The same random batches into a store and into the one in memory, whose rows must be alike afterwards. For stores whose
 * definitions are read anew: a test of the contract like the others, for those who include it. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_MODEL_H
#define CARILLON_TESTS_STORE_CONTRACT_MODEL_H

#include "agent/store/store_mem.h"
#include "tests/unit/store/store_contract_tests.h"

struct model {
    struct rng rng;
    struct contract *real;
    struct contract memory;
    struct job_row rows[40]; /* as the memory holds them, or the last known */
    uint64_t fire_revs[40][5];
    uint64_t next_change;
};

static void random_fire(struct model *m, uint32_t n, struct fire_change *f)
{
    uint64_t seq = 1 + rng_below(&m->rng, 4);
    uint64_t *rev = &m->fire_revs[n][seq];
    *f = (struct fire_change){.op = (enum change_op)rng_below(&m->rng, 3),
                              .row = contract_fire(&m->rows[n].uid, seq)};
    f->op = f->op == CHANGE_NONE ? CHANGE_INSERT : f->op == CHANGE_INSERT ? CHANGE_UPDATE : CHANGE_DELETE;
    f->expect_rev = rng_below(&m->rng, 8) ? *rev : *rev + 1;
    f->row.rev = f->op == CHANGE_INSERT ? 1 + rng_below(&m->rng, 2) : f->expect_rev + 1;
    f->row.state = (enum fire_state)rng_below(&m->rng, FIRE_STATE_COUNT_);
    f->row.attempts = (uint32_t)rng_below(&m->rng, 9);
    f->row.wake_ms = rng_below(&m->rng, 6) ? CONTRACT_NOW + (int64_t)rng_below(&m->rng, 50) : RECORD_NONE;
    (void)snprintf(f->row.holder, sizeof(f->row.holder), "%s", rng_below(&m->rng, 2) ? "m1" : "");
    if (rng_below(&m->rng, 3) == 0)
        memcpy(f->expect_holder, "m1", 3);
    if (rng_below(&m->rng, 2)) {
        f->row.log = "[{}]";
        f->row.log_bytes = rng_below(&m->rng, 5);
        f->row.parts = f->row.log;
        f->row.parts_bytes = rng_below(&m->rng, 5);
    }
}

static void random_change(struct model *m, uint32_t n, struct job_change *c, struct fire_change *fires)
{
    enum change_op op = (enum change_op)rng_below(&m->rng, CHANGE_COUNT_);
    struct job_row *row = &m->rows[n];
    char more[64];
    *c = contract_change(op, row);
    if (op == CHANGE_INSERT)
        c->row.rev = 1;
    if (rng_below(&m->rng, 10) == 0)
        c->expect_rev += 1 + rng_below(&m->rng, 2);
    c->row.due_ms = CONTRACT_NOW + (int64_t)rng_below(&m->rng, 100);
    c->row.wake_ms = rng_below(&m->rng, 8) ? c->row.due_ms : RECORD_NONE;
    c->row.counts.seq = rng_u64(&m->rng) >> rng_below(&m->rng, 64);
    c->row.state = (enum job_state)rng_below(&m->rng, JOB_STATE_COUNT_);
    c->row.ring_bytes = (uint16_t)rng_below(&m->rng, 50);
    for (unsigned i = 0; i < c->row.ring_bytes; i++)
        c->row.ring[i] = (uint8_t)rng_u64(&m->rng);
    if (rng_below(&m->rng, 30) == 0)
        memcpy(c->row.tzdata, "\xff", 2);
    if (c->revision.op[0])
        c->revision.change_id = ++m->next_change - (rng_below(&m->rng, 20) == 0);
    (void)snprintf(more, sizeof(more), "\"labels\":{\"l\":\"%u\"}", (unsigned)rng_below(&m->rng, 3));
    c->spec = contract_spec(row->ns, row->id, more);
    c->fires = fires;
    c->fires_count = rng_below(&m->rng, 3) ? 0 : 1;
    if (c->fires_count)
        random_fire(m, n, fires);
}

static void learn(struct model *m, uint32_t n)
{
    struct contract_answer *a = contract_get(&m->memory, m->rows[n].ns, m->rows[n].id);
    if (a->jobs[0].spec && memcmp(a->jobs[0].row.uid.bytes, m->rows[n].uid.bytes, sizeof(struct uid)) == 0)
        m->rows[n] = a->jobs[0].row;
    contract_free(a);
    a = contract_fires(&m->memory, &m->rows[n].uid, 0, 10);
    memset(m->fire_revs[n], 0, sizeof(m->fire_revs[n]));
    for (size_t i = 0; i < a->fires_count; i++)
        m->fire_revs[n][a->fires[i].seq] = a->fires[i].rev;
    contract_free(a);
}

static void compare_jobs(struct model *m)
{
    struct store_filter all = {.state = -1, .last_outcome = -1, .limit = 1000};
    struct contract_answer *a = contract_list(m->real, &all), *b = contract_list(&m->memory, &all);
    CHECK(a->jobs_count == b->jobs_count, "%zu and %zu jobs", a->jobs_count, b->jobs_count);
    for (size_t i = 0; i < a->jobs_count; i++) {
        contract_same_row(&a->jobs[i].row, &b->jobs[i].row);
        CHECK(job_spec_equal(a->jobs[i].spec, b->jobs[i].spec), "definition of %s", a->jobs[i].row.id);
    }
    contract_free(a);
    contract_free(b);
    for (unsigned value = 0; value < 3; value++) {
        char text[2] = {(char)('0' + value), 0};
        CHECK(labelled(m->real, "l", text) == labelled(&m->memory, "l", text), "label %s", text);
    }
}

static void compare_fires_of(struct model *m, const struct uid *uid)
{
    struct contract_answer *a = contract_fires(m->real, uid, 0, 100),
                           *b = contract_fires(&m->memory, uid, 0, 100);
    CHECK(a->fires_count == b->fires_count, "%zu and %zu fires", a->fires_count, b->fires_count);
    for (size_t i = 0; i < a->fires_count; i++)
        contract_same_fire(&a->fires[i], &b->fires[i]);
    contract_free(a);
    contract_free(b);
}

/* The connection may be under attack; the same call again is what a caller makes of each of these answers. */
static void commit_until_done(struct contract *t, struct job_change *changes, size_t count)
{
    enum err_code code = ERR_RETRY;
    for (unsigned tries = 0;
         tries < 10 && (code == ERR_RETRY || code == ERR_UNAVAILABLE || code == ERR_UNKNOWN_OUTCOME); tries++)
        code = tries % 2 ? contract_commit_as(t, "m1", changes, count)
                         : contract_commit_parts(t, "m1", changes, count); /* no name is in two */
    CHECK(code == ERR_OK, "%s", err_code_name(code));
}

static void one_batch(struct model *m, unsigned step)
{
    struct job_change real[40], memory[40];
    struct fire_change fires[40];
    size_t count = 0;
    for (uint32_t n = 0; n < 40; n++) {
        if (rng_below(&m->rng, 3) == 0) {
            random_change(m, n, &real[count], &fires[count]);
            memory[count] = real[count];
            count++;
        }
    }
    for (unsigned again = 0; again < 1 + rng_below(&m->rng, 2); again++) {
        commit_until_done(m->real, real, count);
        contract_commit(&m->memory, memory, count);
        for (size_t i = 0; i < count; i++)
            CHECK(real[i].result == memory[i].result,
                  "seed %" PRIu64 " step %u turn %u, change %zu, op %d: %d, in memory %d", m->real->seed,
                  step, again, i, (int)real[i].op, (int)real[i].result, (int)memory[i].result);
    }
    for (size_t i = 0; i < count; i++)
        job_spec_unref(real[i].spec);
}

static int64_t model_now_ms(void *arg)
{
    (void)arg;
    return CONTRACT_NOW;
}

static void random_batches_leave_what_memory_holds(struct contract *t)
{
    struct model *m = mem_new(struct model);
    const char *seed = getenv("TEST_SEED");
    struct err e = {0};
    if (seed)
        t->seed = strtoull(seed, NULL, 10);
    else
        CHECK(rng_seed_os(&t->seed, &e) == 0, "%s", e.text);
    (void)printf("TEST_SEED=%" PRIu64 "\n", t->seed);
    (void)fflush(stdout);
    rng_init(&m->rng, t->seed);
    m->real = t;
    m->memory = (struct contract){.ops = &store_mem, .loop = t->loop};
    struct store_open_args args = {.loop = t->loop,
                                   .options = &(struct store_mem_options){0},
                                   .cluster = "test",
                                   .slots = CONTRACT_SLOTS,
                                   .now_ms = model_now_ms};
    CHECK(store_mem.open(&args, &m->memory.self, &m->memory.meta, &e) == 0, "%s", e.text);
    enum err_code joined = ERR_RETRY;
    for (unsigned tries = 0; joined != ERR_OK && tries < 10; tries++) /* the connection may be under attack */
        joined = contract_join(t, "m1");
    CHECK(joined == ERR_OK && contract_join(&m->memory, "m1") == ERR_OK, "%s", err_code_name(joined));
    for (uint32_t n = 0; n < 40; n++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", n % 35); /* some names are wanted by two */
        m->rows[n] = contract_row((uint16_t)(n % 9), n, n % 2 ? "default" : "other", id);
        m->rows[n].change_id = n;
    }
    for (unsigned step = 0; step < 60; step++) {
        one_batch(m, step);
        if (t->disturb)
            t->disturb(t, step);
        for (uint32_t n = 0; n < 40; n++)
            learn(m, n);
        compare_jobs(m);
        for (uint32_t n = 0; n < 40; n++)
            compare_fires_of(m, &m->rows[n].uid);
        for (unsigned fires = 0; fires < 2; fires++)
            CHECK(load_all(t, fires == 1, 3) == load_all(&m->memory, fires == 1, 3),
                  "loads differ after step %u", step);
    }
    store_mem.close(m->memory.self);
    mem_free(m);
}

#endif
