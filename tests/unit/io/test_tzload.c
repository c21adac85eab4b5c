#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/io/tzload.h"

static struct tzload *open_zones(const char *dir)
{
    struct tzload *l = NULL;
    cr_assert(zero(int, tzload_new(dir, &l, NULL)));
    return l;
}

static int get(struct tzload *l, const char *name, const struct tz **ret, struct err *e)
{
    return tzload_get(l, name, strlen(name), ret, e);
}

/* A folder of this test with one file in it, and its end. */
static void make_folder(char dir[32], const char *file, const char *content)
{
    char path[64];
    (void)snprintf(dir, 32, "/tmp/carillon-tz-XXXXXX"); /* fits */
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    (void)snprintf(path, sizeof(path), "%s/%s", dir, file); /* fits */
    FILE *f = fopen(path, "wb");
    cr_assert(ne(ptr, f, NULL));
    cr_assert(eq(sz, fwrite(content, 1, strlen(content), f), strlen(content)));
    cr_assert(zero(int, fclose(f)));
}

static void remove_folder(const char *dir, const char *file)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, file); /* fits */
    cr_expect(zero(int, unlink(path)));
    cr_expect(zero(int, rmdir(dir)));
}

Test(tzload, zones_come_from_the_system_once)
{
    AUTO(tzload_free) struct tzload *l = open_zones(NULL);
    const struct tz *berlin = NULL, *again = NULL;
    cr_assert(zero(int, get(l, "Europe/Berlin", &berlin, NULL)));
    cr_expect(eq(i32, tz_offset_s(berlin, 1795420800), 3600));
    cr_assert(zero(int, get(l, "Europe/Berlin", &again, NULL)));
    cr_expect(eq(ptr, (void *)berlin, (void *)again));
}

Test(tzload, utc_needs_no_file)
{
    AUTO(tzload_free) struct tzload *l = open_zones("/nonexistent");
    const struct tz *utc = NULL;
    cr_assert(zero(int, get(l, "UTC", &utc, NULL)));
    cr_expect(eq(ptr, (void *)utc, (void *)tz_utc()));
    cr_expect(eq(str, (char *)tzload_version(l), "unknown"));
}

Test(tzload, unknown_names_say_so)
{
    AUTO(tzload_free) struct tzload *l = open_zones(NULL);
    const char *const names[] = {"Europe/Atlantis", "europe/berlin", "Europe", "Mars"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct tz *z = NULL;
        struct err e = {0};
        cr_expect(eq(int, get(l, names[i], &z, &e), -ERR_NOT_FOUND), "%s", names[i]);
        cr_expect(ne(ptr, strstr(e.text, names[i]), NULL), "%s", e.text);
        cr_expect(zero(ptr, (void *)z));
    }
}

Test(tzload, names_that_leave_the_folder_are_refused)
{
    AUTO(tzload_free) struct tzload *l = open_zones(NULL);
    const struct tz *z = NULL;
    cr_expect(eq(int, get(l, "../../../etc/passwd", &z, NULL), -ERR_INVALID));
    cr_expect(eq(int, tzload_get(l, "Europe/Berlin\0x", 15, &z, NULL), -ERR_INVALID));
    cr_expect(zero(ptr, (void *)z));
}

Test(tzload, a_file_that_is_no_zone_is_refused)
{
    char dir[32];
    make_folder(dir, "Zone", "not a zone");
    AUTO(tzload_free) struct tzload *l = open_zones(dir);
    const struct tz *z = NULL;
    cr_expect(eq(int, get(l, "Zone", &z, NULL), -ERR_INVALID));
    remove_folder(dir, "Zone");
}

Test(tzload, a_pipe_holds_nobody_up)
{
    char dir[32], path[64];
    make_folder(dir, "x", "");
    (void)snprintf(path, sizeof(path), "%s/Pipe", dir); /* fits */
    cr_assert(zero(int, mkfifo(path, 0600)));
    AUTO(tzload_free) struct tzload *l = open_zones(dir);
    const struct tz *z = NULL;
    cr_expect(eq(int, get(l, "Pipe", &z, NULL), -ERR_NOT_FOUND));
    cr_expect(zero(int, unlink(path)));
    remove_folder(dir, "x");
}

static void check_version(const char *file, const char *content, const char *wanted)
{
    char dir[32];
    make_folder(dir, file, content);
    AUTO(tzload_free) struct tzload *l = open_zones(dir);
    cr_expect(eq(str, (char *)tzload_version(l), (char *)wanted), "%s: %s", file, content);
    remove_folder(dir, file);
}

Test(tzload, the_release_is_told_by_the_folder)
{
    check_version("tzdata.zi", "# version 2025b\n# This zic input file…", "2025b");
    check_version("tzdata.zi", "# version 2025b-12-gabc-too-long-a-word", "unknown");
    check_version("tzdata.zi", "R d 1916", "unknown");
    check_version("+VERSION", "2024a\n", "2024a");
}

Test(tzload, a_failed_read_is_reported_and_forgotten)
{
    AUTO(tzload_free) struct tzload *l = open_zones(NULL);
    for (unsigned k = 0;; k++) {
        const struct tz *z = NULL;
        fault_arm(k);
        int r = get(l, "Asia/Tokyo", &z, NULL);
        if (!fault_fired()) {
            cr_assert(zero(int, r));
            cr_assert(ge(uint, k, 5));
            cr_assert(eq(i32, tz_offset_s(z, 0), 9 * 3600));
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
        cr_assert(zero(ptr, (void *)z), "k=%u", k);
    }
}

Test(tzload, opening_survives_or_reports_any_failure)
{
    for (unsigned k = 0;; k++) {
        struct tzload *l = NULL;
        fault_arm(k);
        int r = tzload_new(NULL, &l, NULL);
        bool fired = fault_fired();
        cr_assert(eq(int, r == 0, l != NULL), "k=%u", k);
        tzload_free(l);
        if (!fired)
            break;
    }
}

static void *ask_many(void *arg)
{
    static const char *const names[] = {"Europe/Paris", "Asia/Kolkata", "America/Lima", "Africa/Cairo"};
    uintptr_t wrong = 0;
    for (unsigned i = 0; i < 400; i++) {
        const struct tz *z = NULL;
        const char *name = names[i % 4];
        wrong += get(arg, name, &z, NULL) < 0 || strcmp(tz_name(z), name) != 0;
    }
    return (void *)wrong;
}

Test(tzload, threads_share_one_cache)
{
    AUTO(tzload_free) struct tzload *l = open_zones(NULL);
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        cr_assert(zero(int, pthread_create(&threads[i], NULL, ask_many, l)));
    for (unsigned i = 0; i < 4; i++) {
        void *wrong = NULL;
        cr_assert(zero(int, pthread_join(threads[i], &wrong)));
        cr_expect(zero(ptr, wrong));
    }
}
