#include <criterion/criterion.h>

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#define contract_fail(file, line, what, ...)                            \
    do {                                                                \
        char text_[1024];                                               \
        (void)snprintf(text_, sizeof(text_), __VA_ARGS__);              \
        cr_assert_fail("%s:%d: %s: %s", (file), (line), (what), text_); \
    } while (0)

#include "agent/base/clock.h"
#include "agent/io/tzload.h"
#include "agent/store/raft/replica.h"
#include "agent/store/store_raft.h"
#include "tests/unit/store/store_contract_model.h"
#include "tests/unit/store/store_contract_tests.h"

struct bed {
    struct contract t;
    char dir[64];
    struct tzload *zones;
};

static int64_t now_ms(void *arg)
{
    (void)arg;
    return clock_wall_ms();
}

static int try_open(struct bed *b, const char *cluster, struct err *e)
{
    struct store_raft_options options = {.dir = b->dir, .snapshot_entries = 100};
    struct store_open_args args = {.loop = b->t.loop,
                                   .options = &options,
                                   .cluster = cluster,
                                   .slots = CONTRACT_SLOTS,
                                   .member = "m1",
                                   .zones = b->zones,
                                   .now_ms = now_ms};
    return b->t.ops->open(&args, &b->t.self, &b->t.meta, e);
}

static void bed_open(struct bed *b)
{
    struct err e = {0};
    *b = (struct bed){.t.ops = &store_raft, .dir = "/tmp/carillon-test-XXXXXX"};
    cr_assert(mkdtemp(b->dir));
    cr_assert_eq(loop_new(&b->t.loop, &e), 0, "%s", e.text);
    cr_assert_eq(tzload_new(NULL, &b->zones, &e), 0, "%s", e.text);
    cr_assert_eq(try_open(b, "test", &e), 0, "%s", e.text);
}

static void remove_files(const char *dir)
{
    DIR *d = opendir(dir);
    cr_assert(d);
    for (struct dirent *f; (f = readdir(d));)
        if (f->d_name[0] != '.')
            cr_assert_eq(unlinkat(dirfd(d), f->d_name, 0), 0);
    closedir(d);
    cr_assert_eq(rmdir(dir), 0);
}

static void bed_close(struct bed *b)
{
    if (b->t.self)
        b->t.ops->close(b->t.self);
    loop_free(b->t.loop);
    tzload_free(b->zones);
    remove_files(b->dir);
}

#define CONTRACT_TEST(name) \
    Test(store_raft, name)  \
    {                       \
        struct bed b;       \
        bed_open(&b);       \
        name(&b.t);         \
        bed_close(&b);      \
    }
CONTRACT_TESTS(CONTRACT_TEST)
CONTRACT_TEST(random_batches_leave_what_memory_holds)

static void reopen(struct bed *b)
{
    struct err e = {0};
    b->t.ops->close(b->t.self);
    b->t.self = NULL;
    cr_assert_eq(try_open(b, "test", &e), 0, "%s", e.text);
}

Test(store_raft, what_was_written_is_there_after_a_restart)
{
    struct bed b;
    bed_open(&b);
    struct store_meta made = b.t.meta;
    contract_join(&b.t, "m1");
    make_many(&b.t, 150);
    size_t fires = load_all(&b.t, true, 7);
    reopen(&b);
    cr_assert_eq(b.t.meta.created_ms, made.created_ms);
    cr_assert_arr_eq(b.t.meta.secret, made.secret, sizeof(made.secret));
    struct store_filter all = {.state = -1, .last_outcome = -1};
    cr_assert_eq(list_all(&b.t, &all, 1000), 150);
    cr_assert_eq(load_all(&b.t, true, 7), fires);
    struct contract_answer *a = contract_beat(&b.t, "m1");
    cr_assert(a->alive && a->slots_count == CONTRACT_SLOTS);
    contract_free(a);
    cr_assert_eq(contract_join(&b.t, "m2"), ERR_OK);
    a = contract_beat(&b.t, "m1");
    cr_assert_not(a->alive, "%s", "who had the folder before is dead");
    contract_free(a);
    bed_close(&b);
}

Test(store_raft, a_second_agent_on_the_folder_is_told_who_has_it)
{
    struct bed b;
    struct err e = {0};
    bed_open(&b);
    struct bed other = b;
    other.t.self = NULL;
    cr_assert_eq(try_open(&other, "test", &e), -ERR_PERMANENT);
    cr_assert(strstr(e.text, "in use by another agent"), "%s", e.text);
    cr_assert_null(other.t.self);
    bed_close(&b);
}

Test(store_raft, another_clusters_folder_is_refused)
{
    struct bed b;
    struct err e = {0};
    bed_open(&b);
    b.t.ops->close(b.t.self);
    b.t.self = NULL;
    cr_assert_eq(try_open(&b, "other", &e), -ERR_PERMANENT);
    cr_assert(strstr(e.text, "'test'"), "%s", e.text);
    bed_close(&b);
}

/* Snapshots under way while batches go on, and starts from what is there. */
static void restart_and_snapshot(struct contract *t, unsigned step)
{
    struct bed *b = (struct bed *)t; /* its first member */
    store_raft_snapshot(t->self);
    if (step % 7 == 3)
        reopen(b);
}

Test(store_raft, restarts_and_snapshots_change_nothing_that_the_model_sees)
{
    struct bed b;
    bed_open(&b);
    b.t.disturb = restart_and_snapshot;
    random_batches_leave_what_memory_holds(&b.t);
    bed_close(&b);
}

static struct replica_stats stats_of(struct bed *b)
{
    struct replica_stats stats;
    store_raft_stats(b->t.self, &stats);
    return stats;
}

Test(store_raft, snapshots_are_written_while_it_works_and_read_back)
{
    struct bed b;
    bed_open(&b);
    contract_join(&b.t, "m1");
    make_many(&b.t, 400);
    for (unsigned i = 0; stats_of(&b).snapshots < 3; i++) { /* every 100 entries, or sooner when asked */
        char id[16];
        (void)snprintf(id, sizeof(id), "more%u", i);
        contract_make(&b.t, 6, 1000 + i, "default", id, "");
        cr_assert_lt(i, 100000u, "%s", "no snapshot");
    }
    struct store_filter all = {.state = -1, .last_outcome = -1};
    size_t jobs = list_all(&b.t, &all, 1000);
    reopen(&b);
    cr_assert_eq(list_all(&b.t, &all, 1000), jobs);
    bed_close(&b);
}
