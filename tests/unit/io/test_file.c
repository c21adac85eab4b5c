#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/file.h"

static char dir[64];
static struct err e;

static void enter(void)
{
    snprintf(dir, sizeof dir, "%s/test-file-XXXXXX", P_tmpdir);
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    cr_assert(zero(int, chdir(dir)));
}
static void leave(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    cr_assert(zero(int, system(command)));
}

TestSuite(file, .init = enter, .fini = leave, .timeout = 600);

static void put(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "w");
    cr_assert(ne(ptr, f, NULL));
    cr_assert(eq(sz, fwrite(data, 1, bytes, f), bytes));
    fclose(f);
}

Test(file, all_of_a_file_is_read)
{
    size_t size = 100001;
    char *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 7);
    put("f", data, size);
    AUTO(buf_fini) struct buf b = BUF_INIT(size);
    cr_assert(zero(int, file_read("f", &b, &e)), "%s", e.text);
    cr_assert(eq(sz, b.len, size));
    cr_assert(zero(int, memcmp(b.data, data, size)));
    free(data);
}

Test(file, a_file_of_unknown_size_is_read)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(65536);
    cr_assert(zero(int, file_read("/proc/self/status", &b, &e)), "%s", e.text);
    cr_assert(gt(sz, b.len, 100));
}

Test(file, what_cannot_be_read_says_why)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(3);
    put("big", "1234", 4);
    mkfifo("fifo", 0600);
    cr_assert(eq(int, file_read("none", &b, &e), -(int)ERR_NOT_FOUND));
    cr_assert(eq(int, file_read("big", &b, &e), -(int)ERR_TOO_BIG));
    cr_assert(eq(int, file_read("fifo", &b, &e), -(int)ERR_INVALID));
    cr_assert(eq(int, file_read(".", &b, &e), -(int)ERR_INVALID));
    cr_assert(eq(int, file_read("/proc/self/status", &b, &e), -(int)ERR_TOO_BIG));
}

static int secret_of(const char *data, size_t bytes, char out[64])
{
    char *secret = NULL;
    size_t len = 0;
    put("secret", data, bytes);
    int r = file_read_secret("secret", &secret, &len, &e);
    if (r == 0) {
        cr_assert(eq(sz, strlen(secret), len));
        snprintf(out, 64, "%s", secret);
        mem_free_secret(secret, len);
    }
    return r;
}

Test(file, a_secret_loses_white_space_at_its_end_only)
{
    char got[64];
    cr_assert(zero(int, secret_of(" s e\tcret \r\n\n", 13, got)), "%s", e.text);
    cr_assert(eq(str, got, " s e\tcret"));
    cr_assert(eq(int, secret_of("", 0, got), -(int)ERR_INVALID));
    cr_assert(eq(int, secret_of(" \n", 2, got), -(int)ERR_INVALID));
    cr_assert(eq(int, secret_of("a\0b", 3, got), -(int)ERR_INVALID));
}

Test(file, writing_replaces_the_whole_file_with_the_given_mode)
{
    struct stat st;
    put("f", "old and longer", 14);
    cr_assert(zero(int, file_write("f", "new", 3, 0640, &e)), "%s", e.text);
    AUTO(buf_fini) struct buf b = BUF_INIT(100);
    cr_assert(zero(int, file_read("f", &b, &e)));
    cr_assert(eq(str, (char *)buf_str(&b), "new"));
    cr_assert(zero(int, stat("f", &st)));
    cr_assert(eq(u32, st.st_mode & 0777, 0640));
    cr_assert(eq(int, file_write("no/folder", "x", 1, 0600, &e), -(int)ERR_NOT_FOUND));
}

Test(file, every_failed_write_leaves_the_old_file_and_nothing_beside_it)
{
    put("f", "old", 3);
    for (unsigned k = 0;; k++) {
        fault_arm(k);
        int r = file_write("f", "new", 3, 0600, &e);
        bool fired = fault_fired();
        AUTO(buf_fini) struct buf b = BUF_INIT(100);
        cr_assert(zero(int, file_read("f", &b, NULL)));
        cr_assert(zero(int, system("test \"$(ls)\" = f")), "k=%u", k);
        if (!fired) {
            cr_assert(zero(int, r), "%s", e.text);
            cr_assert(eq(str, (char *)buf_str(&b), "new"));
            cr_assert(gt(u32, k, 3));
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
        if (strcmp(buf_str(&b), "old") != 0) /* only the folder's sync comes after the rename */
            cr_assert(ne(ptr, strstr(e.text, "folder"), NULL), "k=%u %s", k, e.text);
    }
}

Test(file, every_failed_read_of_a_secret_is_reported)
{
    put("f", "s3cret\n", 7);
    for (unsigned k = 0;; k++) {
        char *secret = NULL;
        size_t len = 0;
        fault_arm(k);
        int r = file_read_secret("f", &secret, &len, &e);
        if (!fault_fired()) {
            cr_assert(eq(str, secret, "s3cret"));
            mem_free_secret(secret, len);
            cr_assert(gt(u32, k, 2));
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
        cr_assert(zero(ptr, secret), "k=%u", k);
    }
}

Test(file, a_watch_sees_each_change_once)
{
    struct file_watch w;
    file_watch_init(&w, "f");
    cr_assert(not(file_watch_changed(&w)));
    put("f", "a", 1);
    cr_assert(file_watch_changed(&w));
    cr_assert(not(file_watch_changed(&w)));
    cr_assert(zero(int, file_write("f", "b", 1, 0600, &e)));
    cr_assert(file_watch_changed(&w));
    unlink("f");
    cr_assert(file_watch_changed(&w));
    cr_assert(not(file_watch_changed(&w)));
    file_watch_fini(&w);
}

/* How Kubernetes updates a mounted secret: files are links to ..data/file, ..data is a link that is swapped. */
Test(file, a_watch_sees_the_swap_of_a_symbolic_link_on_the_way)
{
    mkdir("v1", 0700);
    mkdir("v2", 0700);
    put("v1/key", "same", 4);
    put("v2/key", "same", 4);
    cr_assert(zero(int, symlink("v1", "..data")));
    cr_assert(zero(int, symlink("..data/key", "key")));
    struct file_watch file, folder;
    file_watch_init(&file, "key");
    file_watch_init(&folder, ".");
    cr_assert(zero(int, symlink("v2", "..new")));
    cr_assert(zero(int, rename("..new", "..data")));
    cr_assert(file_watch_changed(&file));
    cr_assert(file_watch_changed(&folder));
    cr_assert(not(file_watch_changed(&folder)));
    file_watch_fini(&file);
    file_watch_fini(&folder);
}

Test(file, a_watch_on_a_folder_sees_files_in_folders_in_it)
{
    mkdir("s", 0700);
    mkdir("s/team", 0700);
    put("s/team/a", "1", 1);
    struct file_watch w;
    file_watch_init(&w, "s");
    cr_assert(zero(int, file_write("s/team/a", "2", 1, 0600, &e)));
    cr_assert(file_watch_changed(&w));
    put("s/team/b", "", 0);
    cr_assert(file_watch_changed(&w));
    cr_assert(zero(int, rename("s/team/b", "s/team/c")));
    cr_assert(file_watch_changed(&w));
    file_watch_fini(&w);
}
