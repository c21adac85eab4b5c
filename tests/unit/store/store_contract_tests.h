/* The tests of the contract; see store_contract.h. CONTRACT_TESTS(X) lists them for the driver's own frame. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_TESTS_H
#define CARILLON_TESTS_STORE_CONTRACT_TESTS_H

#include <stdlib.h>

#include "tests/lib/patience.h"
#include "tests/unit/store/store_contract.h"
#include "tests/unit/store/store_contract_loads.h"
#include "tests/unit/store/store_contract_many.h"
#include "tests/unit/store/store_contract_search.h"
#include "tests/unit/store/store_contract_revisions.h"

#define CONTRACT_TESTS(X)                                  \
    X(the_first_to_join_owns_all_slots)                    \
    X(a_repeated_join_changes_nothing)                     \
    X(a_beat_tells_members_slots_and_time)                 \
    X(only_an_unchanged_beat_is_declared_dead)             \
    X(a_dead_member_neither_beats_nor_writes_nor_joins)    \
    X(a_slot_moves_only_from_the_expected_owner_and_epoch) \
    X(slots_of_a_batch_move_with_it)                       \
    X(an_inserted_job_reads_back)                          \
    X(hostile_texts_are_data)                              \
    X(a_job_is_done_when_no_fire_of_it_waits)              \
    X(a_name_is_taken_once)                                \
    X(every_write_repeats_as_success)                      \
    X(an_update_of_another_revision_is_a_conflict)         \
    X(odd_rows_do_not_hold_up_the_others)                  \
    X(a_refused_row_is_alone)                              \
    X(many_jobs_of_one_batch_are_as_each_alone)            \
    X(batches_at_a_time_are_as_one_after_the_other)        \
    X(odd_ones_of_many_new_jobs_are_alone)                 \
    X(a_replaced_job_has_its_new_labels_only)              \
    X(a_deleted_job_cancels_its_pending_fires)             \
    X(a_deleted_job_keeps_the_ends_that_were_reported)     \
    X(a_name_gets_free_in_the_batch_that_deletes_it)       \
    X(only_the_holder_ends_a_held_fire)                    \
    X(a_fire_conflict_undoes_its_job_change)               \
    X(loads_page_in_key_order_without_gaps)                \
    X(fires_that_wake_together_load_in_order)              \
    X(ended_and_wakeless_rows_are_not_loaded)              \
    X(loads_may_be_of_older_zone_data_only)                \
    X(lists_page_by_name_prefix_and_label)                 \
    X(lists_filter_by_state_and_outcome)                   \
    X(history_is_newest_first)                             \
    X(the_trace_of_a_run_stays_with_it)                    \
    X(revisions_tell_what_was_when)                        \
    X(revisions_page_without_gaps)                         \
    X(fires_are_found_by_all_that_is_asked)                \
    X(search_pages_meet_without_gaps)                      \
    X(a_copy_outlives_its_job)                             \
    X(labels_are_of_the_job_or_of_the_copy)                \
    X(dead_letters_are_counted_by_namespace)               \
    X(jobs_are_counted_up_to_a_limit)                      \
    X(vacuum_keeps_the_newest_of_a_history)                \
    X(vacuum_says_when_a_bite_was_not_enough)              \
    X(vacuum_forgets_what_is_over)                         \
    X(closing_cancels_what_waits)

static void the_first_to_join_owns_all_slots(struct contract *t)
{
    CHECK(contract_join(t, "m1") == ERR_OK, "%s", "join");
    CHECK(contract_join(t, "m2") == ERR_OK, "%s", "join");
    struct contract_answer *a = contract_ask(t);
    t->ops->slots_read(t->self, contract_on_slots, a);
    contract_wait(a);
    contract_ok(a);
    CHECK(a->slots_count == CONTRACT_SLOTS, "%zu slots", a->slots_count);
    for (size_t i = 0; i < a->slots_count; i++) {
        CHECK(a->slots[i].slot == i && strcmp(a->slots[i].owner, "m1") == 0, "slot %zu: %s", i,
              a->slots[i].owner);
        CHECK(a->slots[i].epoch == (uint64_t)(t->meta.created_ms / 1000), "epoch %" PRIu64,
              a->slots[i].epoch);
    }
    contract_free(a);
}

static void a_repeated_join_changes_nothing(struct contract *t)
{
    CHECK(contract_join(t, "m1") == ERR_OK, "%s", "join");
    contract_free(contract_beat(t, "m1"));
    CHECK(contract_join(t, "m1") == ERR_OK, "%s", "join again");
    struct contract_answer *a = contract_beat(t, "m1");
    CHECK(a->members_count == 1 && a->members[0].beat == 2, "beat %" PRIu64, a->members[0].beat);
    contract_free(a);
}

static void a_beat_tells_members_slots_and_time(struct contract *t)
{
    contract_join(t, "m2");
    contract_join(t, "m1");
    struct contract_answer *a = contract_beat(t, "m2");
    CHECK(a->alive && a->members_count == 2 && a->slots_count == CONTRACT_SLOTS, "%zu members, %zu slots",
          a->members_count, a->slots_count);
    CHECK(strcmp(a->members[0].id, "m1") == 0 && a->members[0].beat == 0 && !a->members[0].dead, "%s",
          a->members[0].id);
    CHECK(strcmp(a->members[1].id, "m2") == 0 && a->members[1].beat == 1, "%s", a->members[1].id);
    CHECK(strcmp(a->members[1].address, "127.0.0.1:7421") == 0 && strcmp(a->members[1].zone, "z'1\\") == 0 &&
              a->members[1].weight == 3,
          "%s", a->members[1].zone);
    CHECK(a->sent_boot_ms > 0 && a->sent_boot_ms <= a->done_boot_ms, "%" PRId64 " to %" PRId64,
          a->sent_boot_ms, a->done_boot_ms);
    CHECK(a->store_now_ms >= t->meta.created_ms, "%" PRId64, a->store_now_ms);
    contract_free(a);
    a = contract_beat(t, "nobody");
    CHECK(!a->alive && a->slots_count == 0, "%zu slots", a->slots_count);
    contract_free(a);
}

static void only_an_unchanged_beat_is_declared_dead(struct contract *t)
{
    contract_join(t, "m1");
    contract_join(t, "m2");
    contract_free(contract_beat(t, "m2"));
    CHECK(!contract_declare(t, "m2", 0), "%s", "it has beaten since");
    CHECK(contract_declare(t, "m2", 1), "%s", "it has not");
    CHECK(contract_declare(t, "m2", 1), "%s", "again");
    CHECK(contract_declare(t, "m2", 7), "%s", "dead is dead");
    CHECK(contract_declare(t, "never-was", 0), "%s", "absent");
    struct contract_answer *a = contract_beat(t, "m1");
    CHECK(a->members_count == 2 && a->members[1].dead, "%zu", a->members_count);
    contract_free(a);
    CHECK(contract_declare(t, "m1", UINT64_MAX), "%s", "leaving");
}

static void a_dead_member_neither_beats_nor_writes_nor_joins(struct contract *t)
{
    contract_join(t, "m1");
    contract_make(t, 1, 1, "default", "a", "");
    contract_declare(t, "m1", UINT64_MAX);
    struct contract_answer *a = contract_beat(t, "m1");
    CHECK(!a->alive, "%s", "beat");
    contract_free(a);
    struct job_row row = contract_row(1, 1, "default", "a");
    struct job_change c = contract_change(CHANGE_UPDATE, &row);
    CHECK(contract_commit_as(t, "m1", &c, 1) == ERR_FENCED, "%s", "commit");
    CHECK(contract_commit_as(t, "m1", NULL, 0) == ERR_FENCED, "%s", "empty commit");
    CHECK(contract_commit_as(t, "nobody", &c, 1) == ERR_FENCED, "%s", "commit of nobody");
    struct slot_change slot = {
        .slot = 3, .from = "m1", .from_epoch = (uint64_t)(t->meta.created_ms / 1000), .to = "m2"};
    CHECK(contract_slots_change(t, "m1", &slot, 1) == ERR_FENCED, "%s", "slots");
    CHECK(contract_join(t, "m1") == ERR_FENCED, "%s", "join");
    contract_join(t, "m2");
    CHECK(contract_slots_change(t, "m2", &slot, 1) == ERR_OK && slot.changed, "%s", "it still had its slot");
    a = contract_get(t, "default", "a");
    CHECK(a->jobs[0].row.rev == 1, "rev %" PRIu64, a->jobs[0].row.rev);
    contract_free(a);
}

static void a_slot_moves_only_from_the_expected_owner_and_epoch(struct contract *t)
{
    uint64_t epoch = (uint64_t)(t->meta.created_ms / 1000);
    contract_join(t, "m1");
    struct slot_change moves[] = {{.slot = 9, .from = "m1", .from_epoch = epoch, .to = "m2"},
                                  {.slot = 8, .from = "m2", .from_epoch = epoch, .to = "m3"},
                                  {.slot = 7, .from = "m1", .from_epoch = epoch + 1, .to = "m3"},
                                  {.slot = 6, .from = "m1", .from_epoch = epoch, .to = "m1"},
                                  {.slot = CONTRACT_SLOTS, .from = "m1", .from_epoch = epoch, .to = "m1"}};
    static const bool changed[] = {true, false, false, true, false};
    for (unsigned again = 0; again < 2; again++) {
        CHECK(contract_slots_change(t, "m1", moves, 5) == ERR_OK, "%s", "slots");
        for (unsigned i = 0; i < 5; i++)
            CHECK(moves[i].changed == changed[i], "slot %u, turn %u", moves[i].slot, again);
    }
    struct contract_answer *a = contract_beat(t, "m1");
    CHECK(a->slots_count == CONTRACT_SLOTS - 1 && a->slots[6].epoch == epoch + 1, "%zu", a->slots_count);
    contract_free(a);
}

static void slots_of_a_batch_move_with_it(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 5, 1, "default", "a", "");
    struct slot_change moves[] = {
        {.slot = 5, .from = "m1", .from_epoch = (uint64_t)(t->meta.created_ms / 1000), .to = "m2"},
        {.slot = 6, .from = "m9", .to = "m2"}};
    struct job_change c = contract_change(CHANGE_UPDATE, &row), *list = &c;
    struct store_batch batch = {
        .member = "m1", .jobs = &list, .jobs_count = 1, .slots = moves, .slots_count = 2};
    struct contract_answer *a = contract_ask(t);
    t->ops->commit(t->self, &batch, contract_on_done, a);
    contract_wait(a);
    contract_ok(a);
    contract_free(a);
    CHECK(moves[0].changed && !moves[1].changed && c.result == CHANGE_RESULT_OK, "%d", (int)c.result);
    batch.jobs_count = 0;
    a = contract_ask(t);
    t->ops->commit(t->self, &batch, contract_on_done, a);
    contract_wait(a);
    contract_ok(a);
    contract_free(a);
    CHECK(moves[0].changed && !moves[1].changed, "%s", "slots alone, again");
}

static void an_inserted_job_reads_back(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_row(63, 7, "team-b", "inv~1:2@x+y-z");
    row.state = JOB_STATE_PAUSED;
    row.counts = (struct job_counts){10, 1, 2, 3, 4, 0};
    row.last =
        (struct job_last_fire){9, CONTRACT_NOW - 5, CONTRACT_NOW, FIRE_OUTCOME_DEAD, FIRE_REASON_MAX_AGE};
    row.consecutive_failures = UINT32_MAX;
    row.due_ms = RECORD_NONE;
    row.scheduled = UINT64_MAX;
    row.ring_bytes = RECORD_RING_MAX;
    for (unsigned i = 0; i < RECORD_RING_MAX; i++)
        row.ring[i] = (uint8_t)(i * 7);
    struct job_change c = contract_change(CHANGE_INSERT, &row);
    c.spec = contract_spec(
        row.ns, row.id,
        "\"payload\":{\"a\":[1,2.5,\"\\u0000x\"]},\"labels\":{\"team\":\"pay\"},\"timezone\":\"UTC\"");
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%s", c.problem);
    struct contract_answer *a = contract_get(t, row.ns, row.id);
    CHECK(a->jobs[0].spec, "%s", a->jobs[0].problem);
    contract_same_row(&a->jobs[0].row, &row);
    CHECK(job_spec_equal(a->jobs[0].spec, c.spec), "%s", "definition");
    CHECK(a->jobs[0].spec->schedule, "%s", "bound");
    contract_free(a);
    struct store_key keys[3] = {{.ns = "team-b", .id = "no"}, {.uid = row.uid}, {.uid = contract_uid(1, 99)}};
    a = contract_ask(t);
    t->ops->get_jobs(t->self, keys, 3, contract_on_jobs, a);
    contract_wait(a);
    contract_ok(a);
    CHECK(a->jobs_count == 3 && !a->jobs[0].spec && a->jobs[1].spec && !a->jobs[2].spec, "%zu",
          a->jobs_count);
    contract_same_row(&a->jobs[1].row, &row);
    contract_free(a);
    a = contract_ask(t);
    t->ops->find_change(t->self, row.ns, row.id, c.revision.change_id, contract_on_revision, a);
    contract_wait(a);
    CHECK(a->found && a->revision.at_ms == CONTRACT_NOW && strcmp(a->revision.actor, "local") == 0 &&
              strcmp(a->revision.op, "create") == 0,
          "%s", a->revision.op);
    contract_free(a);
    job_spec_unref(c.spec);
}

static size_t labelled(struct contract *t, const char *name, const char *value)
{
    struct store_filter f = {.label_names = &name,
                             .label_values = &value,
                             .labels_count = 1,
                             .state = -1,
                             .last_outcome = -1,
                             .limit = 100};
    struct contract_answer *a = contract_list(t, &f);
    size_t n = a->jobs_count;
    contract_free(a);
    return n;
}

static size_t in_state(struct contract *t, enum job_state state)
{
    struct store_filter f = {.state = (int)state, .last_outcome = -1, .limit = 100};
    struct contract_answer *a = contract_list(t, &f);
    size_t n = a->jobs_count;
    contract_free(a);
    return n;
}

static void a_job_is_done_when_no_fire_of_it_waits(struct contract *t)
{
    static const struct job_counts ended = {5, 1, 1, 1, 1, 1}, waits = {6, 1, 1, 1, 1, 1};
    static const enum job_state states[] = {JOB_STATE_ACTIVE, JOB_STATE_PAUSED, JOB_STATE_DONE};
    contract_join(t, "m1");
    for (uint32_t i = 0; i < 6; i++) {
        char id[8] = {'j', (char)('0' + i)};
        struct job_row row = contract_row(1, i, "default", id);
        row.state = states[i / 2];
        row.counts = i % 2 ? waits : ended;
        struct job_change c = contract_change(CHANGE_INSERT, &row);
        c.spec = contract_spec("default", id, "\"payload\":1");
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%s", c.problem);
        job_spec_unref(c.spec);
    }
    CHECK(in_state(t, JOB_STATE_ACTIVE) == 3, "%zu", in_state(t, JOB_STATE_ACTIVE));
    CHECK(in_state(t, JOB_STATE_PAUSED) == 2, "%zu", in_state(t, JOB_STATE_PAUSED));
    CHECK(in_state(t, JOB_STATE_DONE) == 1, "%zu", in_state(t, JOB_STATE_DONE));
}

/* Names were checked before they came here, but a store is asked for anything. */
static void hostile_texts_are_data(struct contract *t)
{
    static const char *const texts[] = {
        "a'b\"c\\", "'; DROP TABLE jobs; --", "%_%", "x\\'", "`", "\\0", "a\nb\tc", "d\xc3\xa9"};
    contract_join(t, "m1");
    for (uint32_t i = 0; i < 8; i++) {
        char id[8] = {'j', (char)('0' + i)};
        struct job_row row = contract_make(t, 1, i, "default", id, "\"labels\":{\"q\":\"'\\\\; \xc3\xa9\"}");
        struct fire_change f = {.op = CHANGE_INSERT, .row = contract_fire(&row.uid, 1)};
        (void)snprintf(f.row.last_error, sizeof(f.row.last_error), "%s\xff", texts[i]);
        f.row.log = (char *)texts[i];
        f.row.log_bytes = strlen(texts[i]);
        f.row.parts = (char *)texts[7 - i];
        f.row.parts_bytes = strlen(texts[7 - i]);
        struct job_change c = contract_change(CHANGE_DELETE, &row);
        c.op = CHANGE_UPDATE;
        c.row.rev++;
        c.fires = &f;
        c.fires_count = 1;
        (void)snprintf(c.revision.actor, sizeof(c.revision.actor), "%s", texts[i]);
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%s", texts[i]);
        struct contract_answer *a = contract_fires(t, &row.uid, 0, 10);
        CHECK(a->fires_count == 1, "%zu", a->fires_count);
        contract_same_fire(&a->fires[0], &f.row);
        contract_free(a);
        a = contract_ask(t);
        t->ops->find_change(t->self, "default", id, c.revision.change_id, contract_on_revision, a);
        contract_wait(a);
        CHECK(a->found && strcmp(a->revision.actor, texts[i]) == 0, "%s", a->revision.actor);
        contract_free(a);
        a = contract_get(t, i % 2 ? "default" : texts[i], texts[i]);
        CHECK(!a->jobs[0].spec, "%s", texts[i]);
        contract_free(a);
        struct store_filter prefix = {
            .ns = "default", .prefix = texts[i], .state = -1, .last_outcome = -1, .limit = 9};
        a = contract_list(t, &prefix);
        CHECK(a->jobs_count == 0, "%s", texts[i]);
        contract_free(a);
    }
    CHECK(labelled(t, "q", "'\\; \xc3\xa9") == 8 && labelled(t, "q", "' OR 1=1") == 0, "%s", "labels");
}

static void a_name_is_taken_once(struct contract *t)
{
    contract_join(t, "m1");
    contract_make(t, 1, 1, "default", "a", "");
    struct job_row rows[] = {contract_row(2, 2, "default", "a"), contract_row(2, 3, "default", "A"),
                             contract_row(3, 4, "default", "twin"), contract_row(4, 5, "default", "twin")};
    struct job_change c[4];
    struct job_spec *spec = contract_spec("default", "a", "");
    for (unsigned i = 0; i < 4; i++) {
        c[i] = contract_change(CHANGE_INSERT, &rows[i]);
        c[i].spec = spec;
    }
    contract_commit(t, c, 4);
    CHECK(c[0].result == CHANGE_RESULT_EXISTS, "%d", (int)c[0].result);
    CHECK(c[1].result == CHANGE_RESULT_OK, "%d: names differ in case", (int)c[1].result);
    CHECK(c[2].result == CHANGE_RESULT_OK && c[3].result == CHANGE_RESULT_EXISTS, "%d %d", (int)c[2].result,
          (int)c[3].result);
    job_spec_unref(spec);
}

static void every_write_repeats_as_success(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_row(1, 1, "default", "a");
    struct fire_row fire = contract_fire(&row.uid, 1);
    struct fire_change f = {.op = CHANGE_INSERT, .row = fire};
    static const enum change_op ops[] = {CHANGE_INSERT, CHANGE_UPDATE, CHANGE_REPLACE, CHANGE_DELETE};
    static const enum change_op fire_ops[] = {CHANGE_INSERT, CHANGE_UPDATE, CHANGE_DELETE, CHANGE_INSERT};
    struct job_spec *spec = contract_spec("default", "a", "\"labels\":{\"a\":\"b\"}");
    for (unsigned i = 0; i < 4; i++) {
        struct job_change c = contract_change(ops[i], &row);
        c.spec = spec;
        c.fires = &f;
        c.fires_count = 1;
        f.op = fire_ops[i];
        f.expect_rev = f.row.rev;
        f.row.rev += f.op == CHANGE_UPDATE;
        for (unsigned again = 0; again < 3; again++)
            CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "op %u turn %u: %d", i, again, (int)c.result);
        row = c.row;
        row.due_ms += 1000;
        row.counts.seq++;
    }
    struct contract_answer *a = contract_get(t, "default", "a");
    CHECK(!a->jobs[0].spec, "%s", "deleted once");
    contract_free(a);
    struct job_change c = contract_change(CHANGE_INSERT, &row);
    c.row.rev = 1;
    c.revision.change_id = contract_change_id(CHANGE_INSERT, &c.row); /* the first one's */
    c.spec = spec;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    a = contract_get(t, "default", "a");
    CHECK(!a->jobs[0].spec, "%s", "a late repeat of the create does not bring it back");
    contract_free(a);
    job_spec_unref(spec);
}

static void an_update_of_another_revision_is_a_conflict(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct job_change first = contract_change(CHANGE_UPDATE, &row),
                      second = contract_change(CHANGE_UPDATE, &row);
    first.row.due_ms++;
    second.row.due_ms += 2;
    CHECK(contract_one(t, &first) == CHANGE_RESULT_OK, "%d", (int)first.result);
    CHECK(contract_one(t, &second) == CHANGE_RESULT_CONFLICT, "%d", (int)second.result);
    struct job_change gone = contract_change(CHANGE_DELETE, &row);
    CHECK(contract_one(t, &gone) == CHANGE_RESULT_CONFLICT, "%d", (int)gone.result);
    struct job_row never = contract_row(1, 77, "default", "never");
    struct job_change absent = contract_change(CHANGE_UPDATE, &never);
    CHECK(contract_one(t, &absent) == CHANGE_RESULT_CONFLICT, "%d", (int)absent.result);
    absent = contract_change(CHANGE_DELETE, &never);
    CHECK(contract_one(t, &absent) == CHANGE_RESULT_CONFLICT, "%d", (int)absent.result);
    absent.revision.op[0] = 0;
    CHECK(contract_one(t, &absent) == CHANGE_RESULT_OK, "%d: nothing left to do", (int)absent.result);
    struct contract_answer *a = contract_get(t, "default", "a");
    contract_same_row(&a->jobs[0].row, &first.row);
    contract_free(a);
}

static void odd_rows_do_not_hold_up_the_others(struct contract *t)
{
    struct job_change c[60];
    contract_join(t, "m1");
    for (uint32_t i = 0; i < 60; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", i);
        struct job_row row = contract_make(t, (uint16_t)(i % 7), i, "default", id, "");
        c[i] = contract_change(CHANGE_UPDATE, &row);
        c[i].row.counts.seq = i;
        if (i % 13 == 5)
            c[i].expect_rev = 9;
    }
    contract_commit(t, c, 60);
    for (uint32_t i = 0; i < 60; i++)
        CHECK(c[i].result == (i % 13 == 5 ? CHANGE_RESULT_CONFLICT : CHANGE_RESULT_OK), "job %u: %d", i,
              (int)c[i].result);
}

static void a_refused_row_is_alone(struct contract *t)
{
    struct job_change c[40];
    contract_join(t, "m1");
    for (uint32_t i = 0; i < 40; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", i);
        struct job_row row = contract_make(t, (uint16_t)(i % 7), i, "default", id, "");
        c[i] = contract_change(CHANGE_UPDATE, &row);
        if (i == 11 || i == 30)
            memcpy(c[i].row.tzdata, "2025\xc3\xa9", 7);
    }
    contract_commit(t, c, 40);
    for (uint32_t i = 0; i < 40; i++) {
        bool bad = i == 11 || i == 30;
        CHECK(c[i].result == (bad ? CHANGE_RESULT_REFUSED : CHANGE_RESULT_OK), "job %u: %d", i,
              (int)c[i].result);
        CHECK(!bad || c[i].problem[0], "job %u", i);
    }
}

static void a_replaced_job_has_its_new_labels_only(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "\"labels\":{\"x\":\"1\",\"y\":\"2\"}");
    CHECK(labelled(t, "x", "1") == 1 && labelled(t, "y", "2") == 1 && labelled(t, "x", "2") == 0, "%s",
          "labels");
    struct job_change c = contract_change(CHANGE_REPLACE, &row);
    c.spec = contract_spec("default", "a", "\"labels\":{\"x\":\"3\"},\"payload\":7");
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    CHECK(labelled(t, "x", "1") == 0 && labelled(t, "y", "2") == 0 && labelled(t, "x", "3") == 1, "%s",
          "labels");
    struct contract_answer *a = contract_get(t, "default", "a");
    CHECK(job_spec_equal(a->jobs[0].spec, c.spec), "%s", "definition");
    contract_free(a);
    job_spec_unref(c.spec);
    row = c.row;
    c = contract_change(CHANGE_DELETE, &row);
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK && labelled(t, "x", "3") == 0, "%d", (int)c.result);
}

static void a_deleted_job_cancels_its_pending_fires(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct fire_change f[3];
    for (unsigned i = 0; i < 3; i++)
        f[i] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(&row.uid, i + 1)};
    f[0].row.state = FIRE_STATE_HELD;
    memcpy(f[0].row.holder, "m1", 3);
    f[2].row.state = FIRE_STATE_ENDED;
    f[2].row.outcome = FIRE_OUTCOME_DEAD;
    struct job_change c = contract_change(CHANGE_UPDATE, &row);
    c.fires = f;
    c.fires_count = 3;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    struct job_change gone = contract_change(CHANGE_DELETE, &c.row);
    gone.row.updated_ms = CONTRACT_NOW + 500;
    gone.row.wake_ms = CONTRACT_NOW + 9999;
    CHECK(contract_one(t, &gone) == CHANGE_RESULT_OK, "%d", (int)gone.result);
    struct contract_answer *a = contract_fires(t, &row.uid, 0, 10);
    CHECK(a->fires_count == 3, "%zu", a->fires_count);
    contract_same_fire(&a->fires[0], &f[2].row);
    for (unsigned i = 1; i < 3; i++)
        CHECK(a->fires[i].state == FIRE_STATE_ENDED && a->fires[i].outcome == FIRE_OUTCOME_CANCELLED &&
                  a->fires[i].rev == 2 && a->fires[i].reason == FIRE_REASON_DELETED &&
                  a->fires[i].finished_ms == CONTRACT_NOW + 500 &&
                  a->fires[i].wake_ms == CONTRACT_NOW + 9999 && !a->fires[i].holder[0],
              "fire %u", i);
    contract_free(a);
}

/* An end that its holder reported is one, though nobody has counted it yet. */
static void a_deleted_job_keeps_the_ends_that_were_reported(struct contract *t)
{
    static const enum fire_outcome outcomes[] = {FIRE_OUTCOME_SUCCEEDED, FIRE_OUTCOME_DEAD,
                                                 FIRE_OUTCOME_CANCELLED};
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct fire_change f[3];
    for (unsigned i = 0; i < 3; i++) {
        f[i] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(&row.uid, i + 1)};
        f[i].row.state = FIRE_STATE_REPORTED;
        f[i].row.outcome = outcomes[i];
        f[i].row.reason = i == 1 ? FIRE_REASON_MAX_AGE : i == 2 ? FIRE_REASON_CANCELLED : FIRE_REASON_NONE;
        f[i].row.finished_ms = CONTRACT_NOW + i;
        f[i].row.until_ms = i == 0 ? 2 : i == 1 ? CONTRACT_NOW + 99999 : RECORD_NONE;
    }
    struct job_change c = contract_change(CHANGE_UPDATE, &row);
    c.fires = f;
    c.fires_count = 3;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    struct job_change gone = contract_change(CHANGE_DELETE, &c.row);
    gone.row.updated_ms = CONTRACT_NOW + 500;
    gone.row.wake_ms = CONTRACT_NOW + 9999;
    CHECK(contract_one(t, &gone) == CHANGE_RESULT_OK, "%d", (int)gone.result);
    struct contract_answer *a = contract_fires(t, &row.uid, 0, 10);
    CHECK(a->fires_count == 3, "%zu", a->fires_count);
    for (unsigned i = 0; i < 3; i++) {
        struct fire_row as = f[i].row;
        as.state = FIRE_STATE_ENDED;
        as.rev = 2;
        as.until_ms = RECORD_NONE;
        as.wake_ms = CONTRACT_NOW + (i == 1 ? 99999 : 9999);
        contract_same_fire(&a->fires[2 - i], &as);
    }
    contract_free(a);
}

static void a_name_gets_free_in_the_batch_that_deletes_it(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row old = contract_make(t, 9, 1, "default", "a", ""), row = contract_row(1, 2, "default", "a"),
                   other;
    other = contract_make(t, 9, 3, "default", "b", "");
    struct job_change c[] = {contract_change(CHANGE_INSERT, &row), contract_change(CHANGE_DELETE, &old),
                             contract_change(CHANGE_UPDATE, &other)};
    c[0].spec = contract_spec("default", "a", "");
    c[2].expect_rev = 7; /* an odd one: the batch is looked at and sent again */
    contract_commit(t, c, 3);
    CHECK(c[0].result == CHANGE_RESULT_OK && c[1].result == CHANGE_RESULT_OK &&
              c[2].result == CHANGE_RESULT_CONFLICT,
          "%d %d %d", (int)c[0].result, (int)c[1].result, (int)c[2].result);
    struct contract_answer *a = contract_get(t, "default", "a");
    contract_same_row(&a->jobs[0].row, &row);
    contract_free(a);
    job_spec_unref(c[0].spec);
}

static void only_the_holder_ends_a_held_fire(struct contract *t)
{
    contract_join(t, "m1");
    struct uid uid = contract_uid(3, 1);
    struct fire_change f = {.op = CHANGE_INSERT, .row = contract_fire(&uid, 1)};
    struct job_change c = {.op = CHANGE_NONE, .row.uid = uid, .fires = &f, .fires_count = 1};
    f.row.state = FIRE_STATE_HELD;
    memcpy(f.row.holder, "m1", 3);
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    f.op = CHANGE_UPDATE;
    f.expect_rev = 1;
    f.row.rev = 2;
    f.row.state = FIRE_STATE_REPORTED;
    f.row.holder[0] = 0;
    memcpy(f.expect_holder, "m2", 3);
    CHECK(contract_one(t, &c) == CHANGE_RESULT_CONFLICT, "%d: another's", (int)c.result);
    memcpy(f.expect_holder, "m1", 3);
    for (unsigned again = 0; again < 2; again++)
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d: turn %u", (int)c.result, again);
    f.op = CHANGE_DELETE;
    f.expect_rev = 2;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_CONFLICT, "%d: no longer held", (int)c.result);
    f.expect_holder[0] = 0;
    for (unsigned again = 0; again < 2; again++)
        CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d: turn %u", (int)c.result, again);
}

static void a_fire_conflict_undoes_its_job_change(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct fire_change f[2] = {{.op = CHANGE_INSERT, .row = contract_fire(&row.uid, 1)},
                               {.op = CHANGE_UPDATE, .expect_rev = 4, .row = contract_fire(&row.uid, 2)}};
    struct job_change c = contract_change(CHANGE_UPDATE, &row);
    c.fires = f;
    c.fires_count = 2;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_CONFLICT, "%d", (int)c.result);
    struct contract_answer *a = contract_fires(t, &row.uid, 0, 10);
    CHECK(a->fires_count == 0, "%zu", a->fires_count);
    contract_free(a);
    a = contract_get(t, "default", "a");
    contract_same_row(&a->jobs[0].row, &row);
    contract_free(a);
    c.fires_count = 1;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
}

static size_t list_all(struct contract *t, struct store_filter *f, size_t limit)
{
    char ns[RECORD_NS_MAX] = "", id[RECORD_ID_MAX] = "";
    size_t total = 0, pages = 0;
    f->limit = limit;
    f->after_ns = f->after_id = NULL;
    for (bool more = true; more; pages++) {
        struct contract_answer *a = contract_list(t, f);
        CHECK(a->jobs_count <= limit && pages < 5000, "%zu jobs", a->jobs_count);
        for (size_t i = 0; i < a->jobs_count; i++) {
            const struct job_row *row = &a->jobs[i].row;
            int order = strcmp(row->ns, ns);
            CHECK(order > 0 || (order == 0 && strcmp(row->id, id) > 0), "%s/%s after %s/%s", row->ns, row->id,
                  ns, id);
            memcpy(ns, row->ns, sizeof(ns));
            memcpy(id, row->id, sizeof(id));
        }
        total += a->jobs_count;
        more = a->more;
        memcpy(ns, a->next_ns, sizeof(ns));
        memcpy(id, a->next_id, sizeof(id));
        f->after_ns = ns;
        f->after_id = id;
        contract_free(a);
    }
    return total;
}

static void lists_page_by_name_prefix_and_label(struct contract *t)
{
    static const size_t limits[] = {1000, 7, 1};
    const char *names[] = {"l", "m"}, *values[] = {"x", "y"};
    contract_join(t, "m1");
    make_many(t, 120);
    for (unsigned i = 0; i < 3; i++) {
        struct store_filter all = {.state = -1, .last_outcome = -1}, ns = all, prefix = all, both = all,
                            label = all, labels = all;
        ns.ns = both.ns = "other";
        prefix.prefix = both.prefix = "j011";
        label.label_names = labels.label_names = names;
        label.label_values = labels.label_values = values;
        label.labels_count = 1;
        labels.labels_count = 2;
        CHECK(list_all(t, &all, limits[i]) == 120, "all by %zu", limits[i]);
        CHECK(list_all(t, &ns, limits[i]) == 40, "ns by %zu", limits[i]);
        CHECK(list_all(t, &prefix, limits[i]) == 10, "prefix by %zu", limits[i]);
        CHECK(list_all(t, &both, limits[i]) == 3, "prefix in ns by %zu", limits[i]);
        CHECK(list_all(t, &label, limits[i]) == 120, "label by %zu", limits[i]);
        CHECK(list_all(t, &labels, limits[i]) == 12, "labels by %zu", limits[i]);
        labels.ns = "other";
        labels.prefix = "j00";
        CHECK(list_all(t, &labels, limits[i]) == 4, "labels, prefix, ns by %zu", limits[i]);
        prefix.prefix = "\xff";
        CHECK(list_all(t, &prefix, limits[i]) == 0, "no name begins so, by %zu", limits[i]);
    }
}

static void lists_filter_by_state_and_outcome(struct contract *t)
{
    contract_join(t, "m1");
    make_many(t, 60);
    struct store_filter paused = {.state = JOB_STATE_PAUSED, .last_outcome = -1},
                        dead = {.state = -1, .last_outcome = FIRE_OUTCOME_DEAD};
    CHECK(list_all(t, &paused, 4) == 15, "%s", "paused");
    CHECK(list_all(t, &dead, 4) == 0, "%s", "a job that never fired has no outcome");
    dead.last_outcome = FIRE_OUTCOME_SUCCEEDED;
    CHECK(list_all(t, &dead, 4) == 30, "%s", "succeeded");
}

static void history_is_newest_first(struct contract *t)
{
    contract_join(t, "m1");
    struct uid uid = contract_uid(2, 2);
    struct fire_change f[9];
    struct job_change c = {.op = CHANGE_NONE, .row.uid = uid, .fires = f, .fires_count = 9};
    for (unsigned i = 0; i < 9; i++) {
        f[i] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(&uid, i + 1)};
        f[i].row.payload = "\0payload";
        f[i].row.payload_bytes = i;
        f[i].row.state = i % 2 ? FIRE_STATE_ENDED : FIRE_STATE_OPEN;
    }
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    uint64_t before = 0, expected = 9;
    for (bool more = true; more;) {
        struct contract_answer *a = contract_fires(t, &uid, before, 4);
        for (size_t i = 0; i < a->fires_count; i++, expected--) {
            CHECK(a->fires[i].seq == expected, "seq %" PRIu64 " is not %" PRIu64, a->fires[i].seq, expected);
            contract_same_fire(&a->fires[i], &f[expected - 1].row);
            before = a->fires[i].seq;
        }
        more = a->more;
        contract_free(a);
    }
    CHECK(expected == 0, "%" PRIu64 " missing", expected);
}

/* The trace that the store kept with a fire that was written with TRACE. */
static bool keeps_trace(struct contract *t, const struct uid *uid, uint64_t seq, const char *trace)
{
    struct fire_change f = {.op = CHANGE_INSERT, .row = contract_fire(uid, seq)};
    struct job_change c = {.op = CHANGE_NONE, .row.uid = *uid, .fires = &f, .fires_count = 1};
    f.row.trace = (char *)(uintptr_t)trace;
    f.row.trace_bytes = strlen(trace);
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    struct contract_answer *a = contract_fires(t, uid, seq + 1, 1);
    CHECK(a->fires_count == 1 && a->fires[0].seq == seq, "%zu fires", a->fires_count);
    bool kept = a->fires[0].trace != NULL;
    if (kept)
        contract_same_fire(&a->fires[0], &f.row);
    contract_free(a);
    return kept;
}

/* It is written once: an agent that knows nothing of it changes the row and leaves it. In the log of several it is kept from the moment
 * on at which all know it. */
static void the_trace_of_a_run_stays_with_it(struct contract *t)
{
    static const char trace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 a='\\,b=\"";
    uint64_t until_ms = clock_boot_ms() + PATIENCE_MS, seq = 1;
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    while (!keeps_trace(t, &row.uid, seq, trace)) {
        CHECK(clock_boot_ms() < until_ms, "%s", "the trace is not kept");
        seq++;
    }
    struct fire_change f = {.op = CHANGE_UPDATE, .expect_rev = 1, .row = contract_fire(&row.uid, seq)};
    struct job_change c = {.op = CHANGE_NONE, .row.uid = row.uid, .fires = &f, .fires_count = 1};
    f.expect_rev = f.row.rev;
    f.row.rev++;
    f.row.attempts = 3;
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    struct contract_answer *a = contract_fires(t, &row.uid, seq + 1, 1);
    CHECK(a->fires[0].attempts == 3 && a->fires[0].trace_bytes == strlen(trace), "%zu bytes",
          a->fires[0].trace_bytes);
    CHECK(memcmp(a->fires[0].trace, trace, strlen(trace)) == 0, "%s", "changed");
    contract_free(a);
}

static void vacuum_forgets_what_is_over(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    struct fire_change f[3];
    for (unsigned i = 0; i < 3; i++) {
        f[i] = (struct fire_change){.op = CHANGE_INSERT, .row = contract_fire(&row.uid, i + 1)};
        f[i].row.state = i < 2 ? FIRE_STATE_ENDED : FIRE_STATE_WAITING;
        f[i].row.wake_ms = CONTRACT_NOW + (i == 1 ? 100 : 0);
    }
    struct job_change c = {.op = CHANGE_NONE, .row.uid = row.uid, .fires = f, .fires_count = 3};
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%d", (int)c.result);
    (void)vacuum(t, CONTRACT_NOW + 50);
    struct contract_answer *a = contract_fires(t, &row.uid, 0, 10);
    CHECK(a->fires_count == 2 && a->fires[0].seq == 3 && a->fires[1].seq == 2, "%zu", a->fires_count);
    contract_free(a);
    (void)vacuum(t, CONTRACT_NOW + INT64_C(91) * 86400 * 1000);
    a = contract_ask(t);
    t->ops->find_change(t->self, "default", "a", contract_change_id(CHANGE_INSERT, &row),
                        contract_on_revision, a);
    contract_wait(a);
    CHECK(!a->found, "%s", a->revision.op);
    contract_free(a);
    a = contract_beat(t, "m1");
    CHECK(a->alive, "%s", "the living stay");
    contract_free(a);
}

/* Frees the store itself. */
static void closing_cancels_what_waits(struct contract *t)
{
    contract_join(t, "m1");
    struct contract_answer *a[20];
    for (unsigned i = 0; i < 20; i++) {
        a[i] = contract_ask(t);
        t->ops->beat(t->self, "m1", contract_on_beat, a[i]);
    }
    t->ops->close(t->self);
    t->self = NULL;
    for (unsigned i = 0; i < 20; i++) {
        CHECK(a[i]->calls == 1 && (a[i]->err.code == ERR_OK || a[i]->err.code == ERR_CANCELLED),
              "call %u: %u answers, %s", i, a[i]->calls, a[i]->err.text);
        contract_free(a[i]);
    }
}

#endif
