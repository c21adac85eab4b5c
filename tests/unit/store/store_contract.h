/* What every store promises, as tests that any driver runs: tests/unit/store/test_store_mem.c, tests/tools/store_contract_mysql.c.
 * Before including, define contract_fail(fmt, …), which does not return, and struct contract_driver's functions.
 *
 * A test gets a fresh, empty store. Its calls are made synchronous by running the loop until the answer is there. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_H
#define CARILLON_TESTS_STORE_CONTRACT_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/core/job.h"
#include "agent/core/tz.h"
#include "agent/io/loop.h"
#include "agent/store/store.h"

#define CONTRACT_NOW   INT64_C(1795424400000)
#define CONTRACT_SLOTS 64

struct contract {
    const struct store_ops *ops;
    void *self;
    struct loop *loop;
    struct store_meta meta;
    uint64_t seed; /* of random choices */
    void *driver;
    /* After each step of the model test, if not NULL: whatever the store should outlive. */
    void (*disturb)(struct contract *t, unsigned step);
};

#define CHECK(condition, ...)                                           \
    do {                                                                \
        if (!(condition))                                               \
            contract_fail(__FILE__, __LINE__, #condition, __VA_ARGS__); \
    } while (0)

/* --- making things ------------------------------------------------------------------------------------------------- */

static inline struct uid contract_uid(uint16_t slot, uint32_t n)
{
    struct uid uid = {{(uint8_t)(slot >> 8), (uint8_t)slot}};
    for (unsigned i = 0; i < 4; i++)
        uid.bytes[12 + i] = (uint8_t)(n >> (24 - 8 * i));
    return uid;
}

static inline const struct tz *contract_zone(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "UTC") == 0 ? tz_utc() : NULL;
}

static inline struct job_spec *contract_spec(const char *ns, const char *id, const char *more)
{
    size_t text_max = strlen(more) + 256;
    char *text = mem_new_array(char, text_max);
    struct problems problems;
    struct job_defaults defaults;
    struct job_spec *spec = NULL;
    enum job_refusal refusal;
    struct err e = {0};
    json_t *doc = NULL, *warnings = json_array();
    int paused;
    (void)snprintf(
        text, text_max,
        "{\"schedule\":\"@hourly\",\"callback\":{\"http\":{\"service\":\"b\",\"path\":\"/x\"}}%s%s}",
        more[0] ? "," : "", more);
    problems_init(&problems);
    job_defaults_init(&defaults);
    struct job_context ctx = {
        .ns = ns, .id = id, .now_ms = CONTRACT_NOW, .created_ms = RECORD_NONE, .defaults = &defaults};
    int r = json_read(text, strlen(text), 1 << 20, &doc, &e);
    if (r == 0)
        r = job_spec_parse(doc, &ctx, contract_zone, NULL, &problems, &refusal, warnings, &paused, &spec, &e);
    CHECK(r == 0, "%.200s %s", text, e.text);
    mem_free(text);
    problems_fini(&problems);
    json_decref(doc);
    json_decref(warnings);
    return spec;
}

static inline struct job_row contract_row(uint16_t slot, uint32_t n, const char *ns, const char *id)
{
    struct job_row row = {.uid = contract_uid(slot, n),
                          .slot = slot,
                          .rev = 1,
                          .version = 1,
                          .change_id = UINT64_C(0xf000000000000000) + n,
                          .due_ms = CONTRACT_NOW + n,
                          .wake_ms = CONTRACT_NOW + n,
                          .last = {.due_ms = RECORD_NONE, .finished_ms = RECORD_NONE},
                          .last_success_ms = RECORD_NONE,
                          .failing_since_ms = RECORD_NONE,
                          .created_ms = CONTRACT_NOW,
                          .updated_ms = CONTRACT_NOW,
                          .backfill_next_ms = CONTRACT_NOW - 3,
                          .backfill_until_ms = RECORD_NONE,
                          .backfill_pending = n,
                          .tzdata = "2025b"};
    memcpy(row.ns, ns, strlen(ns) + 1);
    memcpy(row.id, id, strlen(id) + 1);
    return row;
}

/* One for each write that a test makes of a job. */
static inline uint64_t contract_change_id(enum change_op op, const struct job_row *row)
{
    return row->change_id + (row->rev * 8 + op) * 1000000;
}

static inline struct job_change contract_change(enum change_op op, const struct job_row *row)
{
    struct job_change c = {.op = op, .row = *row, .expect_rev = op == CHANGE_INSERT ? 0 : row->rev};
    if (op == CHANGE_UPDATE || op == CHANGE_REPLACE)
        c.row.rev++;
    if (op == CHANGE_INSERT || op == CHANGE_REPLACE || op == CHANGE_DELETE) {
        c.revision = (struct revision){
            .change_id = contract_change_id(op, row), .at_ms = CONTRACT_NOW, .actor = "local"};
        (void)snprintf(c.revision.op, sizeof(c.revision.op), "%s",
                       op == CHANGE_INSERT   ? "create"
                       : op == CHANGE_DELETE ? "delete"
                                             : "replace");
    }
    return c;
}

static inline struct fire_row contract_fire(const struct uid *uid, uint64_t seq)
{
    return (struct fire_row){.uid = *uid,
                             .slot = uid_slot(uid),
                             .ns = "default",
                             .id = "a",
                             .service = "billing",
                             .seq = seq,
                             .seq_last = seq,
                             .rev = 1,
                             .state = FIRE_STATE_WAITING,
                             .due_ms = CONTRACT_NOW,
                             .due_last_ms = CONTRACT_NOW,
                             .wake_ms = CONTRACT_NOW + 1000,
                             .first_ms = CONTRACT_NOW,
                             .started_ms = CONTRACT_NOW,
                             .finished_ms = RECORD_NONE,
                             .attempts = 3,
                             .attempts_before = 2,
                             .version = 1,
                             .orphan = 1,
                             .last_error = "503"};
}

/* --- calls, made synchronous --------------------------------------------------------------------------------------- */

struct contract_answer {
    struct contract *t;
    unsigned calls;
    struct err err;
    bool yes;
    bool more;
    bool alive;
    int64_t store_now_ms, sent_boot_ms, done_boot_ms;
    struct store_member members[32];
    struct store_slot slots[CONTRACT_SLOTS * 2];
    size_t members_count, slots_count;
    struct store_job jobs[2048]; /* their specs are references of ours */
    size_t jobs_count;
    struct fire_row *fires; /* copies */
    size_t fires_count;
    char next_ns[RECORD_NS_MAX];
    char next_id[RECORD_ID_MAX];
    bool found;
    struct revision revision;
    struct store_revision revisions[64]; /* with `was` of ours */
    size_t revisions_count;
    struct store_fire_place place;
    struct job_spec *copy; /* a reference of ours */
    struct store_dead dead[STORE_DEAD_NS_MAX];
    size_t dead_count;
};

static inline void contract_wait(struct contract_answer *a)
{
    CHECK(a->calls == 0, "%s", "the answer came before the call returned");
    while (a->calls == 0)
        loop_run(a->t->loop);
    CHECK(a->calls == 1, "%u answers", a->calls);
}

static inline void contract_answered(struct contract_answer *a, const struct err *e)
{
    a->calls++;
    a->err = *e;
    loop_stop(a->t->loop);
}

static inline struct contract_answer *contract_ask(struct contract *t)
{
    struct contract_answer *a = mem_new(struct contract_answer);
    a->t = t;
    return a;
}

static inline void contract_free(struct contract_answer *a)
{
    for (size_t i = 0; i < a->jobs_count; i++)
        job_spec_unref(a->jobs[i].spec);
    for (size_t i = 0; i < a->fires_count; i++)
        fire_row_fini(&a->fires[i]);
    for (size_t i = 0; i < a->revisions_count; i++)
        mem_free(a->revisions[i].was);
    mem_free(a->fires);
    job_spec_unref(a->copy);
    mem_free(a);
}

static inline void contract_on_done(void *arg, const struct err *e)
{
    contract_answered(arg, e);
}

static inline void contract_on_bool(void *arg, const struct err *e, bool yes)
{
    struct contract_answer *a = arg;
    a->yes = yes;
    contract_answered(a, e);
}

static inline void contract_on_beat(void *arg, const struct err *e, const struct store_beat *beat)
{
    struct contract_answer *a = arg;
    if (beat) {
        a->alive = beat->alive;
        a->store_now_ms = beat->store_now_ms;
        a->sent_boot_ms = beat->sent_boot_ms;
        a->done_boot_ms = beat->done_boot_ms;
        a->members_count = beat->members_count;
        a->slots_count = beat->slots_count;
        if (beat->members_count)
            memcpy(a->members, beat->members, beat->members_count * sizeof(*a->members));
        if (beat->slots_count)
            memcpy(a->slots, beat->slots, beat->slots_count * sizeof(*a->slots));
    }
    contract_answered(a, e);
}

static inline void contract_on_slots(void *arg, const struct err *e, const struct store_slot *slots,
                                     size_t count)
{
    struct contract_answer *a = arg;
    a->slots_count = count;
    if (count)
        memcpy(a->slots, slots, count * sizeof(*slots));
    contract_answered(a, e);
}

static inline void contract_keep_jobs(struct contract_answer *a, struct store_job *jobs, size_t count)
{
    a->jobs_count = count;
    for (size_t i = 0; i < count; i++) {
        a->jobs[i] = jobs[i];
        if (jobs[i].spec)
            (void)job_spec_ref(jobs[i].spec); /* the same pointer */
    }
}

static inline void contract_on_jobs(void *arg, const struct err *e, struct store_job *jobs, size_t count,
                                    bool more)
{
    struct contract_answer *a = arg;
    contract_keep_jobs(a, jobs, count);
    a->more = more;
    contract_answered(a, e);
}

static inline void contract_keep_fires(struct contract_answer *a, const struct fire_row *rows, size_t count)
{
    a->fires = mem_new_array(struct fire_row, count + 1);
    a->fires_count = count;
    for (size_t i = 0; i < count; i++) /* a test's fault may strike here, once */
        CHECK(fire_row_copy(&rows[i], &a->fires[i], NULL) == 0 ||
                  fire_row_copy(&rows[i], &a->fires[i], NULL) == 0,
              "%s", "no memory");
}

static inline void contract_on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count,
                                     bool more)
{
    struct contract_answer *a = arg;
    contract_keep_fires(a, rows, count);
    a->more = more;
    contract_answered(a, e);
}

static inline void contract_on_fire_page(void *arg, const struct err *e, struct store_fire_page *page)
{
    struct contract_answer *a = arg;
    if (page) {
        contract_keep_fires(a, page->fires, page->fires_count);
        a->place = page->next;
    }
    contract_answered(a, e);
}

static inline void contract_on_copy(void *arg, const struct err *e, struct job_spec *copy)
{
    struct contract_answer *a = arg;
    a->copy = copy ? job_spec_ref(copy) : NULL;
    contract_answered(a, e);
}

static inline void contract_on_dead(void *arg, const struct err *e, const struct store_dead *counts,
                                    size_t count)
{
    struct contract_answer *a = arg;
    a->dead_count = count;
    if (count)
        memcpy(a->dead, counts, count * sizeof(*counts));
    contract_answered(a, e);
}

static inline void contract_on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct contract_answer *a = arg;
    if (page) {
        contract_keep_jobs(a, page->jobs, page->jobs_count);
        a->more = page->more;
        memcpy(a->next_ns, page->next_ns, sizeof(a->next_ns));
        memcpy(a->next_id, page->next_id, sizeof(a->next_id));
    }
    contract_answered(a, e);
}

static inline void contract_on_revision(void *arg, const struct err *e, const struct revision *found)
{
    struct contract_answer *a = arg;
    a->found = found != NULL;
    if (found)
        a->revision = *found;
    contract_answered(a, e);
}

static inline void contract_on_revisions(void *arg, const struct err *e, struct store_revision *rows,
                                         size_t count, bool more)
{
    struct contract_answer *a = arg;
    CHECK(count <= 64, "%zu revisions", count);
    a->revisions_count = count;
    a->more = more;
    for (size_t i = 0; i < count; i++) {
        a->revisions[i] = rows[i];
        rows[i].was = NULL;
    }
    contract_answered(a, e);
}

static inline void contract_ok(const struct contract_answer *a)
{
    CHECK(a->err.code == ERR_OK, "%s %s", err_code_name(a->err.code), a->err.text);
}

static inline enum err_code contract_join(struct contract *t, const char *id)
{
    struct contract_answer *a = contract_ask(t);
    struct store_member me = {.address = "127.0.0.1:7421", .zone = "z'1\\", .weight = 3};
    (void)snprintf(me.id, sizeof(me.id), "%s", id);
    (void)snprintf(me.name, sizeof(me.name), "%.60s", id);
    t->ops->join(t->self, &me, contract_on_done, a);
    contract_wait(a);
    enum err_code code = a->err.code;
    contract_free(a);
    return code;
}

static inline struct contract_answer *contract_beat(struct contract *t, const char *id)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->beat(t->self, id, contract_on_beat, a);
    contract_wait(a);
    contract_ok(a);
    return a;
}

static inline bool contract_declare(struct contract *t, const char *victim, uint64_t seen)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->declare_dead(t->self, victim, seen, contract_on_bool, a);
    contract_wait(a);
    contract_ok(a);
    bool yes = a->yes;
    contract_free(a);
    return yes;
}

static inline enum err_code contract_slots_change(struct contract *t, const char *member,
                                                  struct slot_change *slots, size_t count)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->slots_change(t->self, member, slots, count, contract_on_done, a);
    contract_wait(a);
    enum err_code code = a->err.code;
    contract_free(a);
    return code;
}

struct contract_commit { /* under way */
    struct contract_answer *answer;
    struct job_change **list;
    struct store_batch batch;
};

static inline void contract_start(struct contract *t, struct contract_commit *c, const char *member,
                                  struct job_change *changes, size_t count)
{
    *c = (struct contract_commit){.answer = contract_ask(t),
                                  .list = mem_new_array(struct job_change *, count + 1)};
    for (size_t i = 0; i < count; i++)
        c->list[i] = &changes[i];
    c->batch = (struct store_batch){.member = member, .jobs = c->list, .jobs_count = count};
    t->ops->commit(t->self, &c->batch, contract_on_done, c->answer);
    CHECK(c->answer->calls == 0, "%s", "the answer came before the call returned");
}

static inline enum err_code contract_finish(struct contract_commit *c)
{
    while (c->answer->calls == 0)
        loop_run(c->answer->t->loop);
    CHECK(c->answer->calls == 1, "%u answers", c->answer->calls);
    enum err_code code = c->answer->err.code;
    if (code != ERR_OK && code != ERR_FENCED)
        (void)fprintf(stderr, "commit: %s\n", c->answer->err.text); /* a failing test shows it */
    mem_free(c->list);
    contract_free(c->answer);
    return code;
}

static inline enum err_code contract_commit_as(struct contract *t, const char *member,
                                               struct job_change *changes, size_t count)
{
    struct contract_commit c;
    contract_start(t, &c, member, changes, count);
    return contract_finish(&c);
}

/* In as many parts at a time as the store takes. The first error. */
static inline enum err_code contract_commit_parts(struct contract *t, const char *member,
                                                  struct job_change *changes, size_t count)
{
    struct contract_commit parts[STORE_COMMITS_MAX];
    enum err_code code = ERR_OK;
    unsigned n = t->ops->commits_max;
    for (unsigned i = 0; i < n; i++)
        contract_start(t, &parts[i], member, changes + count * i / n, count * (i + 1) / n - count * i / n);
    for (unsigned i = 0; i < n; i++) {
        enum err_code one = contract_finish(&parts[i]);
        code = code == ERR_OK ? one : code;
    }
    return code;
}

static inline void contract_commit(struct contract *t, struct job_change *changes, size_t count)
{
    enum err_code code = contract_commit_as(t, "m1", changes, count);
    CHECK(code == ERR_OK, "%s", err_code_name(code));
}

/* One change, and what came of it. */
static inline enum change_result contract_one(struct contract *t, struct job_change *change)
{
    change->result = CHANGE_RESULT_COUNT_;
    contract_commit(t, change, 1);
    return change->result;
}

static inline struct contract_answer *contract_get(struct contract *t, const char *ns, const char *id)
{
    struct contract_answer *a = contract_ask(t);
    struct store_key key = {0};
    (void)snprintf(key.ns, sizeof(key.ns), "%s", ns);
    (void)snprintf(key.id, sizeof(key.id), "%s", id);
    t->ops->get_jobs(t->self, &key, 1, contract_on_jobs, a);
    contract_wait(a);
    contract_ok(a);
    CHECK(a->jobs_count == 1, "%zu jobs", a->jobs_count);
    return a;
}

static inline struct contract_answer *contract_fires(struct contract *t, const struct uid *uid,
                                                     uint64_t before, size_t limit)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->get_fires(t->self, uid, before, limit, contract_on_fires, a);
    contract_wait(a);
    contract_ok(a);
    return a;
}

static inline struct contract_answer *contract_load(struct contract *t, const struct store_load *load,
                                                    bool fires)
{
    struct contract_answer *a = contract_ask(t);
    if (fires)
        t->ops->load_fires(t->self, load, contract_on_fires, a);
    else
        t->ops->load_jobs(t->self, load, contract_on_jobs, a);
    contract_wait(a);
    contract_ok(a);
    return a;
}

static inline struct contract_answer *contract_list(struct contract *t, const struct store_filter *filter)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->list_jobs(t->self, filter, contract_on_page, a);
    contract_wait(a);
    contract_ok(a);
    return a;
}

static inline struct contract_answer *contract_search(struct contract *t,
                                                      const struct store_fire_filter *filter)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->list_fires(t->self, filter, contract_on_fire_page, a);
    contract_wait(a);
    contract_ok(a);
    return a;
}

/* A reference of the caller's, or NULL. */
static inline struct job_spec *contract_copy(struct contract *t, const struct uid *uid, uint64_t version)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->get_copy(t->self, uid, version, contract_on_copy, a);
    contract_wait(a);
    contract_ok(a);
    struct job_spec *copy = a->copy;
    a->copy = NULL;
    contract_free(a);
    return copy;
}

/* Make one job; the result is its row. */
static inline struct job_row contract_make(struct contract *t, uint16_t slot, uint32_t n, const char *ns,
                                           const char *id, const char *more)
{
    struct job_row row = contract_row(slot, n, ns, id);
    struct job_change c = contract_change(CHANGE_INSERT, &row);
    c.spec = contract_spec(ns, id, more);
    enum change_result result = contract_one(t, &c);
    CHECK(result == CHANGE_RESULT_OK, "job %s: %d %s", id, (int)result, c.problem);
    job_spec_unref(c.spec);
    return row;
}

static inline void contract_same_row(const struct job_row *a, const struct job_row *b)
{
    CHECK(memcmp(&a->uid, &b->uid, sizeof(a->uid)) == 0 && a->slot == b->slot && strcmp(a->ns, b->ns) == 0 &&
              strcmp(a->id, b->id) == 0,
          "%s/%s and %s/%s", a->ns, a->id, b->ns, b->id);
    CHECK(a->rev == b->rev && a->version == b->version && a->change_id == b->change_id &&
              a->state == b->state,
          "rev %" PRIu64 " and %" PRIu64, a->rev, b->rev);
    CHECK(a->due_ms == b->due_ms && a->wake_ms == b->wake_ms && a->scheduled == b->scheduled,
          "due %" PRId64 " and %" PRId64, a->due_ms, b->due_ms);
    CHECK(memcmp(&a->counts, &b->counts, sizeof(a->counts)) == 0, "%s", a->id);
    CHECK(a->last.seq == b->last.seq && a->last.due_ms == b->last.due_ms &&
              a->last.finished_ms == b->last.finished_ms && a->last.outcome == b->last.outcome &&
              a->last.reason == b->last.reason,
          "%s", a->id);
    CHECK(a->last_success_ms == b->last_success_ms && a->consecutive_failures == b->consecutive_failures &&
              a->failing_since_ms == b->failing_since_ms && a->created_ms == b->created_ms &&
              a->updated_ms == b->updated_ms && a->backfill_next_ms == b->backfill_next_ms &&
              a->backfill_until_ms == b->backfill_until_ms && a->backfill_pending == b->backfill_pending &&
              strcmp(a->tzdata, b->tzdata) == 0,
          "%s", a->id);
    CHECK(a->ring_bytes == b->ring_bytes && memcmp(a->ring, b->ring, a->ring_bytes) == 0, "ring of %s",
          a->id);
}

static inline void contract_same_fire(const struct fire_row *a, const struct fire_row *b)
{
    CHECK(memcmp(&a->uid, &b->uid, sizeof(a->uid)) == 0 && a->seq == b->seq && a->slot == b->slot &&
              a->seq_last == b->seq_last,
          "seq %" PRIu64 " and %" PRIu64, a->seq, b->seq);
    CHECK(a->rev == b->rev && a->state == b->state && a->kind == b->kind && a->outcome == b->outcome &&
              a->reason == b->reason,
          "seq %" PRIu64 ": rev %" PRIu64 " and %" PRIu64, a->seq, a->rev, b->rev);
    CHECK(a->due_ms == b->due_ms && a->due_last_ms == b->due_last_ms && a->jitter_ms == b->jitter_ms &&
              a->wake_ms == b->wake_ms && a->first_ms == b->first_ms && a->started_ms == b->started_ms &&
              a->attempt_ms == b->attempt_ms && a->until_ms == b->until_ms &&
              a->finished_ms == b->finished_ms && a->attempts == b->attempts &&
              a->attempts_before == b->attempts_before && a->coalesced == b->coalesced &&
              a->version == b->version && a->orphan == b->orphan,
          "seq %" PRIu64, a->seq);
    CHECK(strcmp(a->holder, b->holder) == 0 && strcmp(a->last_error, b->last_error) == 0 &&
              strcmp(a->ns, b->ns) == 0 && strcmp(a->id, b->id) == 0 && strcmp(a->service, b->service) == 0,
          "seq %" PRIu64, a->seq);
    CHECK(a->log_bytes == b->log_bytes && !a->log == !b->log &&
              (!a->log || memcmp(a->log, b->log, a->log_bytes) == 0),
          "log of %" PRIu64, a->seq);
    CHECK(a->payload_bytes == b->payload_bytes && !a->payload == !b->payload &&
              (!a->payload || memcmp(a->payload, b->payload, a->payload_bytes) == 0),
          "payload of %" PRIu64, a->seq);
    CHECK(a->parts_bytes == b->parts_bytes && !a->parts == !b->parts &&
              (!a->parts || memcmp(a->parts, b->parts, a->parts_bytes) == 0),
          "parts of %" PRIu64, a->seq);
    CHECK(a->trace_bytes == b->trace_bytes && !a->trace == !b->trace &&
              (!a->trace || memcmp(a->trace, b->trace, a->trace_bytes) == 0),
          "trace of %" PRIu64, a->seq);
}

#endif
