/* How many jobs there may be, with a store that answers when it is told to. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/config.h"
#include "agent/io/loop.h"
#include "agent/quota.h"

static struct loop *loop;
static struct quotas *quotas;
static struct err e;
static char why[QUOTA_WHY_SIZE];
static char *items[] = {(char *)"team-b=3", (char *)"*=5"};
static struct config config;

/* the store */
static store_dead_done *done;
static void *done_arg;
static char asked_ns[RECORD_NS_MAX];
static uint64_t asked_limit;
static unsigned questions;

static void count_jobs(void *self, const char *ns, uint64_t limit, store_dead_done *fn, void *arg)
{
    (void)self;
    cr_assert(zero(ptr, (void *)(uintptr_t)done), "one question at a time");
    done = fn;
    done_arg = arg;
    snprintf(asked_ns, sizeof asked_ns, "%s", ns ? ns : "(all)");
    asked_limit = limit;
    questions++;
}

static const struct store_ops store = {.count_jobs = count_jobs};

static void answer(uint64_t count, enum err_code code)
{
    struct store_dead one = {.count = count};
    struct err failed = {.code = code};
    store_dead_done *fn = done;
    cr_assert(ne(ptr, (void *)(uintptr_t)fn, NULL), "nothing was asked");
    done = NULL;
    fn(done_arg, &failed, code == ERR_OK ? &one : NULL, code == ERR_OK);
}

static void begin(void)
{
    cr_assert(zero(int, loop_new(&loop, &e)));
    config.schedule.max_jobs = 0;
    config.schedule.max_jobs_of = (struct option_list){.items = items, .count = 2};
    quotas = quotas_new(loop, &config);
}

static void end(void)
{
    quotas_stop(quotas);
    if (done)
        answer(0, ERR_CANCELLED);
    quotas_free(quotas);
    loop_free(loop);
}

TestSuite(quota, .init = begin, .fini = end, .timeout = 600);

static bool may(const char *ns)
{
    quotas_ask(quotas, ns, why);
    return why[0] == '\0';
}

Test(quota, a_named_namespace_is_counted_before_its_first_job)
{
    quotas_set_store(quotas, &store, NULL);
    cr_assert(eq(str, asked_ns, "team-b"));
    cr_assert(ge(u64, asked_limit, 3));
    answer(3, ERR_OK);
    cr_assert(zero(int, may("team-b")));
    cr_assert(ne(ptr, strstr(why, "namespace 'team-b' has 3 jobs"), NULL), "%s", why);
    cr_assert(eq(uint, questions, 1), "not asked again at once");
}

Test(quota, what_is_made_and_deleted_here_counts_at_once)
{
    quotas_set_store(quotas, &store, NULL);
    answer(1, ERR_OK);
    cr_assert(may("team-b"));
    quotas_note(quotas, "team-b", 1);
    cr_assert(may("team-b"));
    quotas_note(quotas, "team-b", 1);
    cr_assert(zero(int, may("team-b")));
    quotas_note(quotas, "team-b", -1);
    cr_assert(may("team-b"));
}

Test(quota, what_was_made_while_it_was_counted_is_not_forgotten)
{
    quotas_set_store(quotas, &store, NULL);
    quotas_note(quotas, "team-b", 1);
    quotas_note(quotas, "team-b", 1);
    answer(1, ERR_OK);
    cr_assert(zero(int, may("team-b")));
}

Test(quota, namespaces_that_are_not_named_have_the_limit_of_all)
{
    quotas_set_store(quotas, &store, NULL);
    answer(0, ERR_OK);
    cr_assert(may("other"));
    cr_assert(eq(str, asked_ns, "other"));
    answer(5, ERR_OK);
    cr_assert(zero(int, may("other")));
    cr_assert(may("team-b"), "one does not count for another");
}

Test(quota, all_together_have_a_limit_too)
{
    config.schedule.max_jobs = 10;
    quotas_set_store(quotas, &store, NULL);
    cr_assert(eq(str, asked_ns, "(all)"));
    answer(10, ERR_OK);
    cr_assert(zero(int, may("team-b")));
    cr_assert(ne(ptr, strstr(why, "schedule.max_jobs)"), NULL), "%s", why);
}

Test(quota, without_limits_nothing_is_counted)
{
    config.schedule.max_jobs_of.count = 0;
    quotas_set_store(quotas, &store, NULL);
    cr_assert(may("team-b"));
    quotas_note(quotas, "team-b", 1);
    cr_assert(zero(uint, questions));
    quotas_ask(NULL, "x", why);
    quotas_note(NULL, "x", 1);
    cr_assert(eq(str, why, ""));
}

Test(quota, a_store_that_cannot_count_lets_them_pass)
{
    quotas_set_store(quotas, &store, NULL);
    answer(0, ERR_UNAVAILABLE);
    cr_assert(may("team-b"));
}

Test(quota, another_limit_counts_after_a_reload)
{
    struct config next = config;
    quotas_set_store(quotas, &store, NULL);
    answer(3, ERR_OK);
    cr_assert(zero(int, may("team-b")));
    next.schedule.max_jobs_of.count = 0;
    quotas_reload(quotas, &next);
    cr_assert(may("team-b"));
    quotas_reload(quotas, &config);
    cr_assert(may("team-b"), "not counted yet");
}

Test(quota, items_are_a_namespace_and_a_number)
{
    static const char *const good[] = {"a=1", "*=1000000000", "team-b=7"};
    static const char *const bad[] = {"",    "a",    "=1",           "a=",  "a=0",  "a=-1",
                                      "A=1", "*a=1", "a=1000000001", "a=x", "a b=1"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_assert(zero(int, quota_check_item(good[i], &e)), "%s: %s", good[i], e.text);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(eq(int, quota_check_item(bad[i], &e), -ERR_INVALID), "%s", bad[i]);
}

/* Who cannot be counted for want of memory is let through, and counted with the next one. */
Test(quota, whatever_fails_the_limit_holds_for_the_next_job)
{
    unsigned k = 0;
    for (bool fired = true; fired; k++) {
        quotas_free(quotas);
        fault_arm(k);
        quotas = quotas_new(loop, &config);
        quotas_set_store(quotas, &store, NULL);
        fired = fault_fired();
        if (!done)
            cr_assert(may("team-b"), "k=%u", k);
        answer(3, ERR_OK);
        cr_assert(not(may("team-b")), "k=%u", k);
    }
    cr_assert(gt(uint, k, 2), "the seed, the entry");
}
