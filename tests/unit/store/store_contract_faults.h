/* Each call of a store with each of its steps failing in turn, on whatever thread it runs. A call that failed says so with an error
 * that passes, and the same call again succeeds; one that succeeded all the same is whole. See store_contract.h. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_FAULTS_H
#define CARILLON_TESTS_STORE_CONTRACT_FAULTS_H

#include "tests/unit/store/store_contract.h"

enum { FAULT_JOBS = 3, FAULT_STEPS_MAX = 20000 };

static inline bool fault_passes(enum err_code code)
{
    return code == ERR_OK || code == ERR_RETRY || code == ERR_UNAVAILABLE || code == ERR_UNKNOWN_OUTCOME ||
           code == ERR_NOMEM;
}

/* One call with step K failing; what the answer is then worth is looked at by WHOLE. False: there is no step K. */
static inline bool fault_step(struct contract *t, const char *name, unsigned k,
                              void (*start)(struct contract *t, struct contract_answer *a),
                              void (*whole)(const struct contract_answer *a))
{
    struct contract_answer *a = contract_ask(t);
    CHECK(k < FAULT_STEPS_MAX, "%s never ends", name);
    fault_arm_threads(k);
    start(t, a);
    contract_wait(a);
    bool fired = fault_fired();
    fault_disarm();
    CHECK(fault_passes(a->err.code), "%s, step %u: %s %s", name, k, err_code_name(a->err.code), a->err.text);
    if (!fired)
        contract_ok(a);
    if (a->err.code == ERR_OK && whole)
        whole(a);
    contract_free(a);
    return fired;
}

/* --- what is there, and what reading it must give -------------------------------------------------------------------- */

static inline void fault_world(struct contract *t)
{
    CHECK(contract_join(t, "m1") == ERR_OK, "%s", "join");
    for (uint32_t n = 0; n < FAULT_JOBS; n++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", n);
        struct job_row row = contract_row(1, n, "default", id);
        struct job_change c = contract_change(CHANGE_INSERT, &row);
        struct fire_change f = {.op = CHANGE_INSERT, .row = contract_fire(&row.uid, 1)};
        c.spec = contract_spec(
            "default", id,
            "\"labels\":{\"team\":\"pay\"},\"payload\":{\"n\":\"\\\\n, of a line that is longer\"}");
        f.row.log = "[{}]";
        f.row.log_bytes = 4;
        f.row.trace = "00-1-2-3 a=b";
        f.row.trace_bytes = 12;
        f.copy = n == 0 ? c.spec : NULL;
        c.fires = &f;
        c.fires_count = 1;
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d %s", (int)c.result, c.problem);
        job_spec_unref(c.spec);
    }
}

static inline void whole_jobs(const struct contract_answer *a)
{
    CHECK(a->jobs_count == FAULT_JOBS, "%zu jobs", a->jobs_count);
    for (size_t i = 0; i < a->jobs_count; i++)
        CHECK(a->jobs[i].spec, "job %zu: %s", i, a->jobs[i].problem);
}

static inline void whole_copy(const struct contract_answer *a)
{
    CHECK(a->copy, "%s", "no copy");
}

static inline void whole_revisions(const struct contract_answer *a)
{
    CHECK(a->revisions_count == 1, "%zu revisions", a->revisions_count);
}

static inline void whole_fires(const struct contract_answer *a)
{
    CHECK(a->fires_count == FAULT_JOBS, "%zu fires", a->fires_count);
    for (size_t i = 0; i < a->fires_count; i++)
        CHECK(a->fires[i].log_bytes == 4 && a->fires[i].trace_bytes == 12, "fire %zu", i);
}

static inline void whole_history(const struct contract_answer *a)
{
    CHECK(a->fires_count == 1 && a->fires[0].log_bytes == 4 && a->fires[0].trace_bytes == 12, "%zu fires",
          a->fires_count);
}

static inline void whole_count(const struct contract_answer *a)
{
    CHECK(a->dead_count == 1 && a->dead[0].count == FAULT_JOBS, "%zu counts", a->dead_count);
}

static inline void whole_change(const struct contract_answer *a)
{
    CHECK(a->found, "%s", "not found");
}

static inline void whole_slots(const struct contract_answer *a)
{
    CHECK(a->slots_count == CONTRACT_SLOTS, "%zu slots", a->slots_count);
}

static inline void whole_beat(const struct contract_answer *a)
{
    CHECK(a->alive && a->members_count == 1 && a->slots_count == CONTRACT_SLOTS,
          "alive %d, %zu members, %zu slots", a->alive, a->members_count, a->slots_count);
}

static inline void whole_dead(const struct contract_answer *a)
{
    CHECK(a->yes, "%s", "alive");
}

/* --- calls ------------------------------------------------------------------------------------------------------------ */

static const uint16_t fault_slots[] = {1};
static const struct store_load fault_load = {
    .slots = fault_slots, .slots_count = 1, .until_ms = INT64_MAX, .from_ms = RECORD_NONE, .limit = 10};

static inline void start_load_jobs(struct contract *t, struct contract_answer *a)
{
    t->ops->load_jobs(t->self, &fault_load, contract_on_jobs, a);
}

static inline void start_get_jobs(struct contract *t, struct contract_answer *a)
{
    static const struct store_key keys[FAULT_JOBS] = {
        {.ns = "default", .id = "j0"}, {.ns = "default", .id = "j1"}, {.ns = "default", .id = "j2"}};
    t->ops->get_jobs(t->self, keys, FAULT_JOBS, contract_on_jobs, a);
}

static inline void start_list_jobs(struct contract *t, struct contract_answer *a)
{
    static const struct store_filter filter = {
        .ns = "default", .prefix = "j", .state = -1, .last_outcome = -1, .limit = 10};
    t->ops->list_jobs(t->self, &filter, contract_on_page, a);
}

static inline void start_get_copy(struct contract *t, struct contract_answer *a)
{
    static struct uid uid;
    uid = contract_uid(1, 0);
    t->ops->get_copy(t->self, &uid, 1, contract_on_copy, a);
}

static inline void start_list_revisions(struct contract *t, struct contract_answer *a)
{
    static const struct store_revisions which = {
        .ns = "default", .id = "j0", .definitions = true, .limit = 10};
    t->ops->list_revisions(t->self, &which, contract_on_revisions, a);
}

static inline void start_load_fires(struct contract *t, struct contract_answer *a)
{
    t->ops->load_fires(t->self, &fault_load, contract_on_fires, a);
}

static inline void start_get_fires(struct contract *t, struct contract_answer *a)
{
    static struct uid uid;
    uid = contract_uid(1, 1);
    t->ops->get_fires(t->self, &uid, 0, 10, contract_on_fires, a);
}

static inline void start_list_fires(struct contract *t, struct contract_answer *a)
{
    static const struct store_fire_filter filter = {.ns = "default",
                                                    .prefix = "a",
                                                    .outcome = -1,
                                                    .from_ms = RECORD_NONE,
                                                    .until_ms = RECORD_NONE,
                                                    .limit = 10};
    t->ops->list_fires(t->self, &filter, contract_on_fire_page, a);
}

static inline void start_count_dead(struct contract *t, struct contract_answer *a)
{
    t->ops->count_dead(t->self, contract_on_dead, a);
}

static inline void start_count_jobs(struct contract *t, struct contract_answer *a)
{
    t->ops->count_jobs(t->self, "default", 100, contract_on_dead, a);
}

static inline void start_find_change(struct contract *t, struct contract_answer *a)
{
    struct job_row row = contract_row(1, 0, "default", "j0");
    t->ops->find_change(t->self, "default", "j0", contract_change_id(CHANGE_INSERT, &row),
                        contract_on_revision, a);
}

static inline void start_slots_read(struct contract *t, struct contract_answer *a)
{
    t->ops->slots_read(t->self, contract_on_slots, a);
}

static inline void start_beat(struct contract *t, struct contract_answer *a)
{
    t->ops->beat(t->self, "m1", contract_on_beat, a);
}

static inline void start_join(struct contract *t, struct contract_answer *a)
{
    static const struct store_member me = {
        .id = "m1", .name = "m1", .address = "127.0.0.1:7421", .weight = 3};
    t->ops->join(t->self, &me, contract_on_done, a);
}

static inline void start_vacuum(struct contract *t, struct contract_answer *a)
{
    static const struct store_vacuum v = {.now_ms = CONTRACT_NOW, .fires_max = 100};
    t->ops->vacuum(t->self, &v, contract_on_bool, a);
}

static inline void start_declare_dead(struct contract *t, struct contract_answer *a)
{
    t->ops->declare_dead(t->self, "m1", UINT64_MAX, contract_on_bool, a);
}

static void every_call_survives_each_fault(struct contract *t)
{
    static const struct {
        const char *name;
        void (*start)(struct contract *t, struct contract_answer *a);
        void (*whole)(const struct contract_answer *a);
    } calls[] = {{"load_jobs", start_load_jobs, whole_jobs},
                 {"get_jobs", start_get_jobs, whole_jobs},
                 {"list_jobs", start_list_jobs, whole_jobs},
                 {"get_copy", start_get_copy, whole_copy},
                 {"list_revisions", start_list_revisions, whole_revisions},
                 {"load_fires", start_load_fires, whole_fires},
                 {"get_fires", start_get_fires, whole_history},
                 {"list_fires", start_list_fires, whole_fires},
                 {"count_dead", start_count_dead, NULL},
                 {"count_jobs", start_count_jobs, whole_count},
                 {"find_change", start_find_change, whole_change},
                 {"slots_read", start_slots_read, whole_slots},
                 {"beat", start_beat, whole_beat},
                 {"join", start_join, NULL},
                 {"vacuum", start_vacuum, NULL},
                 {"declare_dead", start_declare_dead, whole_dead}};
    fault_world(t);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        unsigned k = 0;
        while (fault_step(t, calls[i].name, k, calls[i].start, calls[i].whole))
            k++;
        (void)printf("%s: %u steps failed\n", calls[i].name, k);
    }
}

/* --- writes ------------------------------------------------------------------------------------------------------------ */

/* What a commit that met a fault left undone, or did without an answer, the same commit does; nothing is refused or in conflict for it. */
static inline bool fault_commit(struct contract *t, unsigned k, struct job_change *changes, size_t count,
                                const char *what)
{
    fault_arm_threads(k);
    enum err_code code = contract_commit_as(t, "m1", changes, count);
    bool fired = fault_fired();
    fault_disarm();
    CHECK(fault_passes(code) && (fired || code == ERR_OK), "%s, step %u: %s", what, k, err_code_name(code));
    if (code != ERR_OK)
        contract_commit(t, changes, count);
    for (size_t i = 0; i < count; i++)
        CHECK(changes[i].result == CHANGE_RESULT_OK, "%s, step %u, change %zu: %d %s", what, k, i,
              (int)changes[i].result, changes[i].problem);
    return fired;
}

static inline void fault_same(struct contract *t, const struct job_row *row, unsigned k)
{
    struct contract_answer *a = contract_get(t, row->ns, row->id);
    CHECK(a->jobs[0].spec, "step %u: %s", k, a->jobs[0].problem);
    contract_same_row(&a->jobs[0].row, row);
    contract_free(a);
    a = contract_fires(t, &row->uid, 0, 10);
    CHECK(a->fires_count == 1 && a->fires[0].log_bytes == 4, "step %u: %zu fires", k, a->fires_count);
    contract_free(a);
}

/* Made, changed with its fire, replaced and deleted, two jobs in a batch. */
static inline bool fault_life(struct contract *t, unsigned k)
{
    static const enum change_op ops[] = {CHANGE_INSERT, CHANGE_UPDATE, CHANGE_REPLACE, CHANGE_DELETE};
    static const char *const names[] = {"insert", "update", "replace", "delete"};
    struct job_row rows[2];
    bool fired = false;
    for (uint32_t i = 0; i < 2; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "life%u", i);
        rows[i] = contract_row(1, 100 + 2 * k + i, "default", id);
    }
    for (size_t o = 0; o < 4; o++) {
        struct job_change c[2];
        struct fire_change f[2];
        for (uint32_t i = 0; i < 2; i++) {
            c[i] = contract_change(ops[o], &rows[i]);
            c[i].spec = contract_spec("default", rows[i].id, "\"labels\":{\"a\":\"b\"}");
            f[i] = (struct fire_change){.op = ops[o], .row = contract_fire(&rows[i].uid, 1), .expect_rev = 1};
            f[i].row.rev = ops[o] == CHANGE_INSERT ? 1 : 2;
            f[i].row.log = "[{}]";
            f[i].row.log_bytes = 4;
            c[i].fires = &f[i];
            c[i].fires_count = ops[o] == CHANGE_INSERT || ops[o] == CHANGE_UPDATE ? 1 : 0;
        }
        fired |= fault_commit(t, k, c, 2, names[o]);
        for (uint32_t i = 0; i < 2; i++) {
            rows[i] = c[i].row;
            if (ops[o] != CHANGE_DELETE)
                fault_same(t, &rows[i], k);
            job_spec_unref(c[i].spec);
        }
    }
    return fired;
}

static void every_commit_survives_each_fault(struct contract *t)
{
    unsigned k = 0;
    CHECK(contract_join(t, "m1") == ERR_OK, "%s", "join");
    while (fault_life(t, k))
        CHECK(++k < FAULT_STEPS_MAX, "%s", "no end");
    (void)printf("commit: %u steps failed\n", k);
}

static void a_move_of_slots_survives_each_fault(struct contract *t)
{
    CHECK(contract_join(t, "m1") == ERR_OK && contract_join(t, "m2") == ERR_OK, "%s", "join");
    uint64_t epoch = (uint64_t)(t->meta.created_ms / 1000);
    bool fired = true;
    for (unsigned k = 0; fired; k++) {
        struct slot_change move = {.slot = 7, .from_epoch = epoch + k};
        (void)snprintf(move.from, sizeof(move.from), "%s", k % 2 ? "m2" : "m1");
        (void)snprintf(move.to, sizeof(move.to), "%s", k % 2 ? "m1" : "m2");
        fault_arm_threads(k);
        enum err_code code = contract_slots_change(t, "m1", &move, 1);
        fired = fault_fired();
        fault_disarm();
        CHECK(fault_passes(code) && (fired || code == ERR_OK), "step %u: %s", k, err_code_name(code));
        if (code != ERR_OK)
            CHECK(contract_slots_change(t, "m1", &move, 1) == ERR_OK, "step %u, again", k);
        CHECK(move.changed, "step %u: the slot stayed", k);
    }
}

#define CONTRACT_FAULT_TESTS(X)         \
    X(every_call_survives_each_fault)   \
    X(every_commit_survives_each_fault) \
    X(a_move_of_slots_survives_each_fault)

#endif
