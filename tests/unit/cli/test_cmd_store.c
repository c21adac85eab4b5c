/* `carillon store check` and `copy` with each of their steps failing: a copy that was not told to be whole is none, and nothing is said
 * of a folder that was not looked at. And how stores are named. */
#include "tests/unit/cli/run.h"

#include <sys/stat.h>

#define contract_fail(file, line, what, ...)                      \
    do {                                                          \
        char text_[1024];                                         \
        (void)snprintf(text_, sizeof(text_), __VA_ARGS__);        \
        cr_fatal("%s:%d: %s: %s", (file), (line), (what), text_); \
    } while (0)

#include "tests/unit/store/dump/dump_bed.h"

TestSuite(cmd_store, .timeout = 300);

#define WORDS(...) ((const char *const[]){"carillon", "store", __VA_ARGS__, NULL})

/* A store in a folder, and the name of another. */
struct folders {
    struct dump_bed bed;
    char from_dir[64], to_dir[64];
    char from[80], to[80]; /* as --from and --to take them */
    bool json;
};

static void folders_init(struct folders *f)
{
    *f = (struct folders){.json = false};
    dump_bed_init(&f->bed);
    dump_bed_make_folder(f->from_dir);
    dump_bed_make_folder(f->to_dir);
    (void)snprintf(f->from, sizeof(f->from), "raft:%s", f->from_dir);
    (void)snprintf(f->to, sizeof(f->to), "raft:%s", f->to_dir);
    struct dump_place from = {.driver = &dump_raft, .dir = f->from_dir};
    dump_bed_copy(&f->bed.place, &from);
}

static void folders_fini(struct folders *f)
{
    dump_bed_remove_folder(f->from_dir);
    dump_bed_remove_folder(f->to_dir);
    dump_bed_fini(&f->bed);
}

static struct run run_copy(void *arg, long k)
{
    const struct folders *f = arg;
    return run_words((struct cli){0}, WORDS("copy", "--from", f->from, "--to", f->to, "--verify", "--json"),
                     k);
}

static struct run run_check_of(void *arg, long k)
{
    const struct folders *f = arg;
    return run_words((struct cli){0}, WORDS("check", f->from_dir, f->json ? "--json" : NULL), k);
}

/* The target is a store exactly when all was copied; the next copy finds it empty. */
static void look_at_target(void *arg, const struct run *r)
{
    const struct folders *f = arg;
    struct run check = run_words((struct cli){0}, WORDS("check", f->to_dir), -1);
    bool whole = strstr(r->err, "no memory for all of the output") || r->code == CLI_OK;
    cr_assert(eq(int, check.code == CLI_OK, whole), "%s%s%s", r->err, check.out, check.err);
    run_fini(&check);
    if (whole)
        dump_bed_empty_folder(f->to_dir);
}

Test(cmd_store, a_copy_is_told_to_be_whole_or_is_none)
{
    struct folders f;
    folders_init(&f);
    run_each(run_copy, look_at_target, &f, "store copy");
    folders_fini(&f);
}

Test(cmd_store, a_check_that_broke_off_calls_nothing_sound)
{
    struct folders f;
    folders_init(&f);
    run_each(run_check_of, NULL, &f, "store check");
    f.json = true;
    run_each(run_check_of, NULL, &f, "store check --json");
    folders_fini(&f);
}

static void expect(const char *const *words, int code, const char *err)
{
    struct run r = run_words((struct cli){0}, words, -1);
    cr_assert(eq(int, r.code, code), "%s", r.err);
    cr_assert(ne(ptr, strstr(r.err, err), NULL), "%s", r.err);
    cr_assert(eq(str, r.out, ""));
    run_fini(&r);
}

Test(cmd_store, nothing_of_a_store_s_name_is_left_out)
{
    static const char *const wrong[] = {"mysql://root@localhost",
                                        "mysql://root@localhost/",
                                        "mysql:///carillon",
                                        "mysql://root@localhost/x?tls_mode",
                                        "mysql://root@localhost/x?=verify",
                                        "mysql://root@localhost/a%00b",
                                        "mysql://root@localhost/x?user=%00",
                                        "mysql://root@localhost/x#y"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        expect(WORDS("copy", "--from", wrong[i], "--to", "raft:/nowhere"), CLI_USAGE,
               "is no mysql://[USER@]HOST");
    expect(WORDS("copy", "--from", "mysql://root@localhost/x?tls_mode=", "--to", "raft:/nowhere"), CLI_FAILED,
           "tls_mode");
    expect(WORDS("copy", "--from", "mysql://root@localhost/x?tls%5Fmode=a%26b", "--to", "raft:/nowhere"),
           CLI_FAILED, "a&b");
    expect(WORDS("copy", "--from", "mysql://root:x@localhost/x?y", "--to", "raft:/nowhere"), CLI_USAGE,
           "can be seen by others");
}

Test(cmd_store, a_store_that_is_not_there_is_not_found)
{
    struct folders f;
    folders_init(&f);
    expect(WORDS("copy", "--from", f.to, "--to", f.from), CLI_NOT_FOUND, "holds no store");
    expect(WORDS("check", f.to_dir), CLI_NOT_FOUND, "holds no store");
    folders_fini(&f);
}

/* As when --to named a folder of somebody's by mistake. */
Test(cmd_store, a_copy_that_begins_anew_clears_only_what_a_copy_made)
{
    struct folders f;
    struct stat st;
    char path[100];
    FILE *file;
    folders_init(&f);
    (void)snprintf(path, sizeof(path), "%s/copy-unfinished", f.to_dir);
    cr_assert(ne(ptr, file = fopen(path, "w"), NULL));
    (void)fclose(file);
    (void)snprintf(path, sizeof(path), "%s/letters.txt", f.to_dir);
    cr_assert(ne(ptr, file = fopen(path, "w"), NULL));
    (void)fclose(file);
    struct run r = run_words((struct cli){0}, WORDS("copy", "--from", f.from, "--to", f.to), -1);
    cr_assert(eq(int, r.code, CLI_OK), "%s", r.err);
    cr_assert(zero(int, stat(path, &st)), "%s", path);
    run_fini(&r);
    folders_fini(&f);
}
