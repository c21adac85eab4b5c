/* Copies between data folders, each of their steps failing in turn. What broke off is never taken for a store: not by a reader, not by
 * the next copy, which begins anew and comes to the same. */
#include <criterion/criterion.h>

#define contract_fail(file, line, what, ...)                            \
    do {                                                                \
        char text_[1024];                                               \
        (void)snprintf(text_, sizeof(text_), __VA_ARGS__);              \
        cr_assert_fail("%s:%d: %s: %s", (file), (line), (what), text_); \
    } while (0)

#include "tests/unit/store/dump/dump_bed.h"

#define STEPS_MAX 5000

TestSuite(dump, .timeout = 300);

struct folders {
    struct dump_bed bed;
    char from_dir[64], to_dir[64];
    struct dump_place from, to;
};

static void folders_init(struct folders *f)
{
    dump_bed_init(&f->bed);
    dump_bed_make_folder(f->from_dir);
    dump_bed_make_folder(f->to_dir);
    f->from = (struct dump_place){.driver = &dump_raft, .dir = f->from_dir};
    f->to = (struct dump_place){.driver = &dump_raft, .dir = f->to_dir};
    dump_bed_copy(&f->bed.place, &f->from);
}

static void folders_fini(struct folders *f)
{
    dump_bed_remove_folder(f->from_dir);
    dump_bed_remove_folder(f->to_dir);
    dump_bed_fini(&f->bed);
}

/* Whether P is a store to whoever reads it. */
static bool is_whole(struct dump_place *p)
{
    void *reader = NULL;
    struct err e = {0};
    int r = p->driver->read_open(p, false, &reader, &e);
    if (r < 0)
        return false;
    p->driver->read_close(reader);
    return true;
}

/* One copy whose step K fails; whether there was such a step. */
static bool copy_failing(struct folders *f, unsigned k)
{
    struct dump_counts counts = {.dead_letters = 77};
    struct err e = {0};
    fault_arm(k);
    int r = dump_copy(&f->from, &f->to, true, dump_bed_on_difference, NULL, &counts, &e);
    bool fired = fault_fired();
    fault_disarm();
    cr_assert_eq(r < 0, fired, "step %u: %d %s", k, r, e.text);
    if (r == 0)
        return false;
    cr_assert_eq(-r, (int)e.code, "step %u: %d %s", k, r, e.text);
    cr_assert(e.code == ERR_NOMEM || e.code == ERR_IO, "step %u: %d %s", k, r, e.text);
    cr_assert(e.text[0] && !strchr(e.text, '\n'), "step %u: '%s'", k, e.text);
    cr_assert_eq(counts.dead_letters, 77, "step %u", k);
    cr_assert_not(is_whole(&f->to), "step %u: %s", k, e.text);
    return true;
}

/* Each copy begins over what the one before left. */
Test(dump, a_copy_that_broke_off_is_no_store)
{
    struct folders f;
    unsigned k = 0;
    folders_init(&f);
    for (; copy_failing(&f, k); k++)
        cr_assert_lt(k, STEPS_MAX);
    cr_assert_gt(k, 50);
    cr_assert(is_whole(&f.to));
    dump_bed_empty_folder(f.from_dir);
    dump_bed_copy(&f.to, &f.from);
    folders_fini(&f);
}
