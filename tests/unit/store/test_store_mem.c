#include <criterion/criterion.h>

#define contract_fail(file, line, what, ...)                            \
    do {                                                                \
        char text_[1024];                                               \
        (void)snprintf(text_, sizeof(text_), __VA_ARGS__);              \
        cr_assert_fail("%s:%d: %s: %s", (file), (line), (what), text_); \
    } while (0)

#include "agent/store/store_mem.h"
#include "tests/unit/store/store_contract_tests.h"

static int64_t wall = CONTRACT_NOW;

static int64_t now_ms(void *arg)
{
    (void)arg;
    return wall;
}

static void open_mem(struct contract *t, const struct store_mem_options *options)
{
    struct err e = {0};
    *t = (struct contract){.ops = &store_mem};
    cr_assert_eq(loop_new(&t->loop, &e), 0, "%s", e.text);
    struct store_open_args args = {.loop = t->loop,
                                   .options = options,
                                   .cluster = "test",
                                   .slots = CONTRACT_SLOTS,
                                   .member = "m1",
                                   .now_ms = now_ms};
    cr_assert_eq(t->ops->open(&args, &t->self, &t->meta, &e), 0, "%s", e.text);
}

static void close_mem(struct contract *t)
{
    if (t->self)
        t->ops->close(t->self);
    loop_free(t->loop);
}

#define CONTRACT_TEST(name)                           \
    Test(store_mem, name)                             \
    {                                                 \
        struct contract t;                            \
        open_mem(&t, &(struct store_mem_options){0}); \
        name(&t);                                     \
        close_mem(&t);                                \
    }
CONTRACT_TESTS(CONTRACT_TEST)

static enum store_mem_fault next_fault;

static enum store_mem_fault one_fault(void *arg, const char *op)
{
    enum store_mem_fault fault = strcmp(op, "commit") == 0 ? next_fault : STORE_MEM_OK;
    (void)arg;
    if (fault != STORE_MEM_OK)
        next_fault = STORE_MEM_OK;
    return fault;
}

Test(store_mem, a_lost_call_did_nothing_and_a_lost_answer_all)
{
    struct contract t;
    open_mem(&t, &(struct store_mem_options){.fault = one_fault});
    contract_join(&t, "m1");
    struct job_row row = contract_make(&t, 1, 1, "default", "a", "");
    struct job_change c = contract_change(CHANGE_UPDATE, &row);
    next_fault = STORE_MEM_LOST_BEFORE;
    cr_assert_eq(contract_commit_as(&t, "m1", &c, 1), ERR_UNAVAILABLE);
    struct contract_answer *a = contract_get(&t, "default", "a");
    cr_assert_eq(a->jobs[0].row.rev, 1);
    contract_free(a);
    next_fault = STORE_MEM_LOST_AFTER;
    cr_assert_eq(contract_commit_as(&t, "m1", &c, 1), ERR_UNKNOWN_OUTCOME);
    a = contract_get(&t, "default", "a");
    cr_assert_eq(a->jobs[0].row.rev, 2);
    contract_free(a);
    cr_assert_eq(contract_one(&t, &c), CHANGE_RESULT_OK);
    close_mem(&t);
}

Test(store_mem, agents_on_one_world_see_the_same)
{
    struct store_mem_world *world = store_mem_world_new();
    struct contract a, b;
    open_mem(&a, &(struct store_mem_options){.world = world});
    open_mem(&b, &(struct store_mem_options){.world = world});
    contract_join(&a, "m1");
    contract_join(&b, "m2");
    contract_make(&a, 1, 1, "default", "a", "");
    struct contract_answer *got = contract_get(&b, "default", "a");
    cr_assert(got->jobs[0].spec);
    contract_free(got);
    close_mem(&a);
    close_mem(&b);
    store_mem_world_free(world);
}

Test(store_mem, another_clusters_world_is_refused)
{
    struct store_mem_world *world = store_mem_world_new();
    struct contract t;
    struct err e = {0};
    void *self = NULL;
    open_mem(&t, &(struct store_mem_options){.world = world});
    struct store_open_args args = {.loop = t.loop,
                                   .options = &(struct store_mem_options){.world = world},
                                   .cluster = "other",
                                   .slots = CONTRACT_SLOTS,
                                   .now_ms = now_ms};
    cr_assert_eq(store_mem.open(&args, &self, &t.meta, &e), -ERR_PERMANENT);
    cr_assert_null(self);
    close_mem(&t);
    store_mem_world_free(world);
}
