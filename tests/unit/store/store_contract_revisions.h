/* The part of the contract that is about revisions; listed in store_contract_tests.h. */
#ifndef CARILLON_TESTS_STORE_CONTRACT_REVISIONS_H
#define CARILLON_TESTS_STORE_CONTRACT_REVISIONS_H

#include "tests/unit/store/store_contract.h"

static void revise(struct contract *t, struct job_row *row, enum change_op op, const char *name,
                   int64_t at_ms, uint64_t seq, struct job_spec *spec, struct job_spec *replaced)
{
    static uint64_t last_change = 77000;
    struct job_change c = contract_change(op, row);
    row->version++;
    c.row.version = row->version;
    c.spec = spec;
    c.replaced = replaced;
    c.revision = (struct revision){.change_id = ++last_change,
                                   .at_ms = CONTRACT_NOW + at_ms,
                                   .uid = row->uid,
                                   .version = row->version,
                                   .seq = seq,
                                   .state = JOB_STATE_PAUSED,
                                   .due_ms = op == CHANGE_DELETE ? RECORD_NONE : CONTRACT_NOW + 5,
                                   .actor = "ann"};
    (void)snprintf(c.revision.op, sizeof(c.revision.op), "%s", name);
    CHECK(contract_one(t, &c) == CHANGE_RESULT_OK, "%s: %d", name, (int)c.result);
    row->rev = c.row.rev;
}

static struct contract_answer *contract_revisions(struct contract *t, const struct store_revisions *which)
{
    struct contract_answer *a = contract_ask(t);
    t->ops->list_revisions(t->self, which, contract_on_revisions, a);
    contract_wait(a);
    contract_ok(a);
    return a;
}

static void same_definition(const struct store_revision *r, const struct job_spec *spec)
{
    size_t bytes;
    const char *definition = job_spec_definition(spec, &bytes);
    CHECK(r->was && r->was_bytes == bytes && memcmp(r->was, definition, bytes + 1) == 0, "%s: %s", r->row.op,
          r->was ? r->was : "none");
}

static void revisions_tell_what_was_when(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", ""); /* "create" at CONTRACT_NOW */
    (void)contract_make(t, 1, 2, "default", "b", "");
    struct job_spec *first = contract_spec("default", "a", "");
    struct job_spec *second = contract_spec("default", "a", "\"description\":\"\xc3\xa9'\\\\ 2\"");
    revise(t, &row, CHANGE_REPLACE, "patch", 10, 0, second, first);
    revise(t, &row, CHANGE_UPDATE, "run", 20, 7, NULL, NULL);
    revise(t, &row, CHANGE_DELETE, "delete", 30, 0, NULL, second);
    struct store_revisions which = {.ns = "default", .id = "a", .definitions = true, .limit = 50};
    struct contract_answer *a = contract_revisions(t, &which);
    static const char *const ops[] = {"delete", "run", "patch", "create"};
    CHECK(a->revisions_count == 4 && !a->more, "%zu", a->revisions_count);
    for (size_t i = 0; i < 4; i++)
        CHECK(strcmp(a->revisions[i].row.op, ops[i]) == 0, "%zu: %s", i, a->revisions[i].row.op);
    same_definition(&a->revisions[0], second);
    same_definition(&a->revisions[2], first);
    CHECK(a->revisions[0].row.due_ms == RECORD_NONE, "%lld", (long long)a->revisions[0].row.due_ms);
    CHECK(!a->revisions[1].was && !a->revisions[3].was, "%s", "what changed no definition keeps none");
    const struct revision *run = &a->revisions[1].row;
    CHECK(run->seq == 7 && run->version == row.version - 1 && run->at_ms == CONTRACT_NOW + 20 &&
              run->state == JOB_STATE_PAUSED && run->due_ms == CONTRACT_NOW + 5 &&
              strcmp(run->actor, "ann") == 0 && memcmp(&run->uid, &row.uid, sizeof(row.uid)) == 0,
          "seq %" PRIu64 " version %" PRIu64, run->seq, run->version);
    struct contract_answer *found = contract_ask(t);
    t->ops->find_change(t->self, "default", "a", run->change_id, contract_on_revision, found);
    contract_wait(found);
    CHECK(found->found && memcmp(&found->revision, run, sizeof(*run)) == 0, "seq %" PRIu64,
          found->revision.seq);
    contract_free(found);
    contract_free(a);
    which.changes = true;
    which.definitions = false;
    a = contract_revisions(t, &which);
    CHECK(a->revisions_count == 3 && !a->revisions[0].was, "%zu", a->revisions_count);
    contract_free(a);
    job_spec_unref(first);
    job_spec_unref(second);
}

/* Several changes of one millisecond too. */
static void revisions_page_without_gaps(struct contract *t)
{
    contract_join(t, "m1");
    struct job_row row = contract_make(t, 1, 1, "default", "a", "");
    for (uint64_t i = 1; i <= 9; i++)
        revise(t, &row, CHANGE_UPDATE, "run", (int64_t)i / 4, i, NULL, NULL);
    struct store_revisions which = {.ns = "default", .id = "a", .limit = 4};
    struct revision seen[12];
    size_t count = 0;
    bool more = true;
    for (int page = 0; more && page < 5; page++) {
        struct contract_answer *a = contract_revisions(t, &which);
        more = a->more;
        CHECK(a->revisions_count > 0 && a->revisions_count <= 4 && count + a->revisions_count <= 12, "%zu",
              a->revisions_count);
        for (size_t i = 0; i < a->revisions_count; i++)
            seen[count++] = a->revisions[i].row;
        which.before.set = true;
        which.before.at_ms = seen[count - 1].at_ms;
        which.before.change_id = seen[count - 1].change_id;
        contract_free(a);
    }
    CHECK(!more && count == 10, "%zu", count);
    for (size_t i = 1; i < count; i++)
        CHECK(seen[i].at_ms < seen[i - 1].at_ms ||
                  (seen[i].at_ms == seen[i - 1].at_ms && seen[i].change_id < seen[i - 1].change_id),
              "%zu", i);
    struct store_revisions none = {.ns = "default", .id = "a'\n\xff", .limit = 4};
    struct contract_answer *a = contract_revisions(t, &none);
    CHECK(a->revisions_count == 0 && !a->more, "%zu", a->revisions_count);
    contract_free(a);
}

#endif
