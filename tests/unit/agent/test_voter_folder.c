#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/mem.h"
#include "agent/io/file.h"
#include "agent/voter_folder.h"

static char root[64];
static char dir[128];

static void make_root(void)
{
    snprintf(root, sizeof(root), "/tmp/voter-folder-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(root), NULL));
    snprintf(dir, sizeof(dir), "%s/data/raft", root);
}

static int drop_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static void drop_root(void)
{
    nftw(root, drop_entry, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(voter_folder, .init = make_root, .fini = drop_root);

Test(voter_folder, it_keeps_its_identity_and_one_that_was_emptied_has_another)
{
    struct voter_folder first, again, other;
    struct err e = {0};
    char path[256];
    cr_assert(zero(int, voter_folder_open(dir, &first, &e)), "%s", e.text);
    cr_assert(eq(sz, strlen(first.folder), VOTERS_FOLDER_SIZE - 1));
    cr_assert(zero(int, voter_folder_open(dir, &again, &e)), "%s", e.text);
    cr_assert(eq(str, again.folder, first.folder));
    snprintf(path, sizeof(path), "%s/%s", dir, VOTER_FOLDER_FILE);
    cr_assert(zero(int, unlink(path)));
    cr_assert(zero(int, voter_folder_open(dir, &other, &e)), "%s", e.text);
    cr_assert(ne(str, other.folder, first.folder));
}

Test(voter_folder, what_is_written_is_remembered)
{
    struct voter_folder f, read;
    struct err e = {0};
    cr_assert(zero(int, voter_folder_open(dir, &f, &e)), "%s", e.text);
    f.number = 1800000000;
    f.used = true;
    memcpy(f.set, f.folder, sizeof(f.set));
    f.known[f.known_count++] = (struct voter){.number = 4, .name = "a", .address = "a:7422"};
    f.known[f.known_count++] = (struct voter){.number = 1800000000, .name = "b", .address = "[::1]:7422"};
    cr_assert(zero(int, voter_folder_write(dir, &f, &e)), "%s", e.text);
    cr_assert(zero(int, voter_folder_open(dir, &read, &e)), "%s", e.text);
    cr_assert(eq(u64, read.number, f.number));
    cr_assert(read.used);
    cr_assert(eq(str, read.set, f.set));
    cr_assert(eq(sz, read.known_count, 2));
    cr_assert(eq(str, read.known[1].address, "[::1]:7422"));
}

Test(voter_folder, a_file_that_makes_no_sense_is_refused_and_left_alone)
{
    struct voter_folder f;
    struct err e = {0};
    char path[256];
    cr_assert(zero(int, voter_folder_open(dir, &f, &e)));
    snprintf(path, sizeof(path), "%s/%s", dir, VOTER_FOLDER_FILE);
    cr_assert(zero(int, file_write(path, "{\"number\":-1}", 13, 0600, &e)));
    cr_assert(eq(int, voter_folder_open(dir, &f, &e), -ERR_PERMANENT));
    cr_assert(ne(ptr, strstr(e.text, VOTER_FOLDER_FILE), NULL), "%s", e.text);
}

Test(voter_folder, one_that_is_of_no_use_is_moved_away_and_never_over_another)
{
    struct voter_folder f;
    struct err e = {0};
    char to[VOTER_FOLDER_PATH_MAX], wanted[256];
    for (unsigned i = 0; i < 2; i++) {
        cr_assert(zero(int, voter_folder_open(dir, &f, &e)), "%s", e.text);
        cr_assert(zero(int, voter_folder_retire(dir, 3, to, &e)), "%s", e.text);
        snprintf(wanted, sizeof(wanted), i ? "%s.removed-3.1" : "%s.removed-3", dir);
        cr_assert(eq(str, to, wanted));
        cr_assert(ne(u64, file_stamp(to), 0));
        cr_assert(zero(u64, file_stamp(dir)));
    }
}

Test(voter_folder, nothing_is_half_done_when_anything_fails)
{
    struct voter_folder f, before;
    struct err e = {0};
    cr_assert(zero(int, voter_folder_open(dir, &before, &e)));
    for (unsigned k = 0;; k++) {
        struct voter_folder next = before;
        next.number = 7;
        fault_arm(k);
        int r = voter_folder_write(dir, &next, &e);
        if (r == 0)
            r = voter_folder_open(dir, &f, &e);
        bool fired = fault_fired();
        if (!fired) {
            cr_assert(zero(int, r), "%s", e.text);
            break;
        }
        cr_assert(zero(int, voter_folder_open(dir, &f, &e)), "k=%u: %s", k, e.text);
        cr_assert(eq(str, f.folder, before.folder));
    }
    cr_assert(eq(u64, f.number, 7));
}
