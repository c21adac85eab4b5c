#include <criterion/criterion.h>

#include <dirent.h>
#include <stdio.h>
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
#include "agent/store/raft/folder.h"
#include "agent/store/raft/folder_read.h"
#include "agent/store/raft/machine.h"
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
    char who[64];
    (void)snprintf(who, sizeof(who), "in use by another agent (process %ld)", (long)getpid());
    other.t.self = NULL;
    cr_assert_eq(try_open(&other, "test", &e), -ERR_PERMANENT);
    cr_assert(strstr(e.text, who), "%s", e.text);
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

/* --- damage -------------------------------------------------------------------------------------------------------- */

static void path_in(char ret[200], const char *dir, const char *name)
{
    (void)snprintf(ret, 200, "%.60s/%.130s", dir, name);
}

static char *read_all(const char *path, size_t *ret_len)
{
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s", path);
    cr_assert_eq(fseek(f, 0, SEEK_END), 0);
    *ret_len = (size_t)ftell(f);
    rewind(f);
    char *data = mem_new_array(char, *ret_len + 1);
    cr_assert_eq(fread(data, 1, *ret_len, f), *ret_len);
    (void)fclose(f);
    return data;
}

static void write_all(const char *path, const char *data, size_t len)
{
    FILE *f = fopen(path, "wb");
    cr_assert(f, "%s", path);
    cr_assert_eq(fwrite(data, 1, len, f), len);
    cr_assert_eq(fclose(f), 0);
}

/* What a crash would leave: the files as they are while the store is open. */
static void copy_folder(const char *from, const char *to)
{
    DIR *d = opendir(from);
    cr_assert(d);
    for (struct dirent *f; (f = readdir(d));) {
        char a[200], b[200];
        size_t len;
        if (f->d_name[0] == '.')
            continue;
        path_in(a, from, f->d_name);
        path_in(b, to, f->d_name);
        char *data = read_all(a, &len);
        write_all(b, data, len);
        mem_free(data);
    }
    closedir(d);
}

/* The first file whose name begins so and that holds something. */
static bool find_file(const char *dir, const char *begin, const char *end, char ret[200])
{
    DIR *d = opendir(dir);
    bool found = false;
    cr_assert(d);
    for (struct dirent *f; !found && (f = readdir(d));) {
        size_t len = strlen(f->d_name), tail = strlen(end);
        if (strncmp(f->d_name, begin, strlen(begin)) != 0 || len < tail ||
            strcmp(f->d_name + len - tail, end) != 0)
            continue;
        path_in(ret, dir, f->d_name);
        size_t bytes;
        char *data = read_all(ret, &bytes);
        found = bytes >= 8 && memcmp(data, "\0\0\0\0\0\0\0\0", 8) != 0;
        mem_free(data);
    }
    closedir(d);
    return found;
}

/* A store with a snapshot, closed and open segments, as a crash leaves it, in a folder of its own. */
static void crashed(struct bed *b, struct bed *ret)
{
    bed_open(b);
    contract_join(&b->t, "m1");
    for (unsigned i = 0; i < 30; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "j%u", i);
        contract_make(&b->t, 6, i, "default", id, "\"payload\":{\"n\":1}");
        if (i == 15)
            store_raft_snapshot(b->t.self);
        for (unsigned beat = 0; i == 16 && stats_of(b).snapshots == 0; beat++) {
            contract_free(contract_beat(&b->t, "m1"));
            cr_assert_lt(beat, 10000000u, "%s", "no snapshot");
        }
    }
    *ret = *b;
    ret->t.self = NULL;
    memcpy(ret->dir, "/tmp/carillon-test-XXXXXX", 26);
    cr_assert(mkdtemp(ret->dir));
    copy_folder(b->dir, ret->dir);
}

static void count_problem(void *arg, const char *text)
{
    cr_assert(strstr(text, "file ") || strstr(text, "missing"), "%s", text);
    ++*(size_t *)arg;
}

/* The offline look at a folder. */
static int look_at(const struct bed *b, size_t *ret_problems, struct folder_seen *ret)
{
    struct err e = {0};
    struct machine *m = machine_new();
    *ret_problems = 0;
    int r = folder_read(b->dir, m, false, count_problem, ret_problems, ret, &e);
    if (r == 0)
        r = machine_audit(m, count_problem, ret_problems, &e);
    machine_free(m);
    return r;
}

/* Opening must be refused in words that help, and the offline check must find it too. */
static void expect_refused(struct bed *b, const char *what)
{
    struct err e = {0};
    struct folder_seen seen;
    size_t problems;
    cr_assert_eq(look_at(b, &problems, &seen), -ERR_PROTOCOL, "%s: the check finds nothing", what);
    cr_assert_gt(problems, 0u, "%s", what);
    cr_assert_eq(try_open(b, "test", &e), -ERR_PERMANENT, "%s: opened, or %s", what, e.text);
    cr_assert(strstr(e.text, "cannot be used") && strstr(e.text, "Put a copy of it back"), "%s: %s", what,
              e.text);
}

static void flip_and_expect(struct bed *origin, const char *begin, const char *end, unsigned percent)
{
    struct bed b = *origin;
    char path[200];
    size_t len, used;
    b.t.self = NULL;
    memcpy(b.dir, "/tmp/carillon-test-XXXXXX", 26);
    cr_assert(mkdtemp(b.dir));
    copy_folder(origin->dir, b.dir);
    cr_assert(find_file(b.dir, begin, end, path), "%s", begin);
    char *data = read_all(path, &len);
    for (used = len; used > 1 && data[used - 1] == 0;)
        used--;
    data[(used - 1) * percent / 100] ^= 0x10;
    write_all(path, data, len);
    expect_refused(&b, path);
    mem_free(data);
    remove_files(b.dir);
}

Test(store_raft, a_flipped_bit_anywhere_is_refused)
{
    static const unsigned places[] = {0, 7, 31, 50, 77, 99, 100};
    struct bed b, origin;
    crashed(&b, &origin);
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        flip_and_expect(&origin, "open-", "", places[i]);
        flip_and_expect(&origin, "0000", "", places[i]);
        flip_and_expect(&origin, "snapshot-", ".meta", places[i]);
    }
    flip_and_expect(&origin, "metadata", "", 0);
    remove_files(origin.dir);
    bed_close(&b);
}

Test(store_raft, terms_that_were_not_written_one_after_the_other_are_refused)
{
    struct bed b, origin;
    struct err e = {0};
    char path[200];
    size_t len;
    crashed(&b, &origin);
    path_in(path, origin.dir, "metadata1");
    char *data = read_all(path, &len);
    path_in(path, origin.dir, "metadata2");
    for (char version = 2; version <= 4; version = (char)(version + 2)) { /* that of the other is 1 */
        cr_assert_eq(data[8], version == 2 ? 1 : 2);
        data[8] = version;
        write_all(path, data, len);
        cr_assert_eq(folder_check(origin.dir, &e), version == 2 ? 0 : -ERR_PROTOCOL, "%s", e.text);
    }
    mem_free(data);
    remove_files(origin.dir);
    bed_close(&b);
}

Test(store_raft, a_missing_or_shortened_file_is_refused)
{
    struct bed b, origin;
    char path[200];
    size_t len;
    crashed(&b, &origin);
    cr_assert(find_file(origin.dir, "open-", "", path));
    char *data = read_all(path, &len);
    size_t used = len;
    while (used > 0 && data[used - 1] == 0)
        used--;
    write_all(path, data, used - 9);
    expect_refused(&origin, "a shortened segment");
    write_all(path, data, len);
    mem_free(data);
    cr_assert(find_file(origin.dir, "snapshot-", ".meta", path));
    cr_assert_eq(unlink(path), 0);
    path[strlen(path) - 5] = 0;
    expect_refused(&origin, "a snapshot without description");
    remove_files(origin.dir);
    bed_close(&b);
}

/* The file that BEGIN and END name is made empty, cut in half, taken away, or of another format; it need not be needed. */
static void harm_and_expect(struct bed *origin, const char *begin, const char *end, unsigned how)
{
    struct bed b = *origin;
    char path[200];
    size_t len;
    memcpy(b.dir, "/tmp/carillon-test-XXXXXX", 26);
    cr_assert(mkdtemp(b.dir));
    copy_folder(origin->dir, b.dir);
    cr_assert(find_file(b.dir, begin, end, path), "%s", begin);
    char *data = read_all(path, &len);
    data[0] = 9; /* the version of the format, or where it stands */
    if (how < 3)
        write_all(path, data, how == 0 ? 0 : how == 1 ? len / 2 / 8 * 8 + 1 : len);
    else
        cr_assert_eq(unlink(path), 0);
    expect_refused(&b, path);
    mem_free(data);
    remove_files(b.dir);
}

Test(store_raft, a_file_that_is_empty_cut_gone_or_of_another_version_is_refused)
{
    struct bed b, origin;
    crashed(&b, &origin);
    for (unsigned how = 0; how < 4; how++) {
        harm_and_expect(&origin, "snapshot-", ".meta", how);
        if (how < 3) /* the snapshot may have all that a closed segment holds: then it may be gone */
            harm_and_expect(&origin, "0000", "", how);
    }
    remove_files(origin.dir);
    bed_close(&b);
}

/* The newest snapshot's bytes, wherever they lie. */
Test(store_raft, a_snapshot_whose_bytes_changed_or_are_gone_is_refused)
{
    struct bed b, origin;
    char meta[200];
    size_t len;
    crashed(&b, &origin);
    cr_assert(find_file(origin.dir, "snapshot-", ".meta", meta));
    meta[strlen(meta) - 5] = 0; /* the only one */
    char *data = read_all(meta, &len);
    for (unsigned place = 0; place <= 100; place += 10) {
        size_t at = (len - 1) * place / 100;
        data[at] ^= 0x10;
        write_all(meta, data, len);
        expect_refused(&origin, meta);
        data[at] ^= 0x10;
    }
    write_all(meta, data, len / 2);
    expect_refused(&origin, "half a snapshot");
    write_all(meta, data, 0);
    expect_refused(&origin, "an empty snapshot");
    cr_assert_eq(unlink(meta), 0);
    expect_refused(&origin, "no snapshot");
    mem_free(data);
    remove_files(origin.dir);
    bed_close(&b);
}

Test(store_raft, the_offline_check_sees_what_is_there)
{
    struct bed b, origin;
    struct folder_seen seen;
    size_t problems;
    crashed(&b, &origin);
    cr_assert_eq(look_at(&origin, &problems, &seen), 0);
    cr_assert_eq(problems, 0u);
    cr_assert(seen.snapshots == 1 && seen.closed > 0 && seen.open > 0 && seen.entries > 0 && !seen.cut_short);
    /* Segments are read in many pieces: ever larger steps are enough for those. */
    for (unsigned k = 0;; k += 1 + k / 4) {
        struct err e = {0};
        fault_arm(k);
        int r = folder_check(origin.dir, &e);
        if (!fault_fired()) {
            cr_assert_eq(r, 0, "%s", e.text);
            break;
        }
        cr_assert(r < 0 && r != -ERR_PROTOCOL, "k=%u: %s", k, e.text);
    }
    remove_files(origin.dir);
    bed_close(&b);
}

/* Sectors of the last write that were not reached: its call was not answered, so it may be gone. */
Test(store_raft, a_write_that_a_crash_cut_short_is_no_damage)
{
    struct bed b, origin;
    char path[200];
    size_t len, used;
    struct err e = {0};
    crashed(&b, &origin);
    cr_assert(find_file(origin.dir, "open-", "", path));
    char *data = read_all(path, &len);
    for (used = len; data[used - 1] == 0;)
        used--;
    size_t sector = (used - 1) / 512 * 512;
    memset(data + sector, 0, used - sector);
    write_all(path, data, len);
    mem_free(data);
    cr_assert_eq(try_open(&origin, "test", &e), 0, "%s", e.text);
    struct store_filter all = {.state = -1, .last_outcome = -1};
    size_t jobs = list_all(&origin.t, &all, 1000);
    cr_assert(jobs >= 26 && jobs <= 30, "%zu jobs", jobs);
    origin.t.ops->close(origin.t.self);
    remove_files(origin.dir);
    bed_close(&b);
}
