#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/err.h"
#include "agent/io/file.h"
#include "callback/secrets.h"

static char dir[64], outside[64];

static const char *path_of(const char *name)
{
    static char path[4][512];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

static void put(const char *name, const char *text, size_t len)
{
    struct err e;
    cr_assert(zero(int, file_write(path_of(name), text, len, 0600, &e)), "%s", e.text);
}

static void make(void)
{
    snprintf(dir, sizeof(dir), "/tmp/test-secrets-XXXXXX");
    cr_assert(mkdtemp(dir) != NULL);
    snprintf(outside, sizeof(outside), "%s", dir);
    mkdir(path_of("default"), 0700);
    mkdir(path_of("team-b"), 0700);
    put("default/token", "hunter2\n", 8);
    put("team-b/token", "other", 5);
}

static void clean(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    cr_assert(zero(int, system(command)));
}

TestSuite(secrets, .init = make, .fini = clean);

static struct secrets *load(void)
{
    struct secrets *s = NULL;
    struct err e = {0};
    cr_assert(zero(int, secrets_load(dir, &s, &e)), "%s", e.text);
    return s;
}

static int find(const struct secrets *s, const char *ns, const char *name, const char **ret, struct err *e)
{
    return secrets_find(s, ns, name, strlen(name), ret, e);
}

Test(secrets, each_namespace_has_its_own)
{
    struct secrets *s = load();
    const char *value = NULL;
    struct err e;
    cr_assert(eq(sz, secrets_count(s), 2));
    cr_assert(zero(int, find(s, "default", "token", &value, &e)));
    cr_assert(eq(str, (char *)value, "hunter2"));
    cr_assert(zero(int, find(s, "team-b", "token", &value, &e)));
    cr_assert(eq(str, (char *)value, "other"));
    cr_assert(eq(int, find(s, "team-c", "token", &value, &e), -ERR_NOT_FOUND));
    cr_assert(eq(int, find(s, "default", "none", &value, &e), -ERR_NOT_FOUND));
    cr_assert(eq(str, e.text, "secret 'none' is not there"));
    secrets_unref(s);
}

Test(secrets, no_name_leads_out_of_its_namespace)
{
    static const char *const names[] = {"../team-b/token", "..",         ".",     "",
                                        "/etc/passwd",     "a/../token", "token/"};
    struct secrets *s = load();
    struct err e;
    const char *value = NULL;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        cr_assert(eq(int, find(s, "default", names[i], &value, &e), -ERR_NOT_FOUND), "%s", names[i]);
        cr_assert(not(secrets_exists(dir, "default", names[i], strlen(names[i]))), "%s", names[i]);
    }
    cr_assert(not(secrets_exists(dir, "../default", "token", 5)));
    cr_assert(secrets_exists(dir, "default", "token", 5));
    cr_assert(zero(ptr, (void *)value));
    secrets_unref(s);
}

Test(secrets, mounts_of_kubernetes_are_read_through_their_links)
{
    mkdir(path_of("team-b/..2026_11_23"), 0700);
    put("team-b/..2026_11_23/api-key", "first\n", 6);
    cr_assert(zero(int, symlink("..2026_11_23", path_of("team-b/..data"))));
    cr_assert(zero(int, symlink("..data/api-key", path_of("team-b/api-key"))));
    uint64_t before = file_stamp(dir);
    struct secrets *s = load();
    const char *value;
    cr_assert(eq(sz, secrets_count(s), 3));
    cr_assert(zero(int, find(s, "team-b", "api-key", &value, NULL)));
    cr_assert(eq(str, (char *)value, "first"));
    secrets_unref(s);

    mkdir(path_of("team-b/..2026_11_24"), 0700);
    put("team-b/..2026_11_24/api-key", "second\n", 7);
    cr_assert(zero(int, symlink("..2026_11_24", path_of("team-b/..tmp"))));
    cr_assert(zero(int, rename(path_of("team-b/..tmp"), path_of("team-b/..data"))));
    cr_assert(ne(u64, file_stamp(dir), before));
    s = load();
    cr_assert(zero(int, find(s, "team-b", "api-key", &value, NULL)));
    cr_assert(eq(str, (char *)value, "second"));
    secrets_unref(s);
}

static void unusable(const char *name, const char *text, size_t len)
{
    char path[128];
    const char *value = NULL;
    struct err e = {0};
    snprintf(path, sizeof(path), "default/%s", name);
    put(path, text, len);
    struct secrets *s = load();
    cr_assert(eq(int, find(s, "default", name, &value, &e), -ERR_INVALID), "%s", name);
    cr_assert(zero(ptr, (void *)value));
    cr_assert(strstr(e.text, name) && !strstr(e.text, "evil") && !strstr(e.text, dir), "%s", e.text);
    secrets_unref(s);
}

Test(secrets, what_no_header_may_have_is_known_but_not_usable)
{
    char *big = mem_new_array(char, SECRETS_VALUE_MAX + 1);
    memset(big, 'x', SECRETS_VALUE_MAX + 1);
    unusable("crlf", "a\r\nevil: b", 10);
    unusable("lf", "a\nevil", 6);
    unusable("nul", "a\0evil", 6);
    unusable("control",
             "a\x01"
             "evil",
             6);
    unusable("utf8",
             "\xff"
             "evil",
             5);
    unusable("space", " evil", 5);
    unusable("empty", "", 0);
    unusable("newline", "\n", 1);
    unusable("big", big, SECRETS_VALUE_MAX + 1);
    mem_free(big);
}

Test(secrets, other_things_in_the_folder_are_left_out)
{
    put("stray", "x", 1);
    put("README", "x", 1);
    put("default/with space", "x", 1);
    mkdir(path_of("Upper"), 0700);
    put("Upper/token", "x", 1);
    mkdir(path_of("default/sub"), 0700);
    put("default/sub/token", "x", 1);
    cr_assert(zero(int, symlink("nowhere", path_of("default/dangling"))));
    struct secrets *s = load();
    cr_assert(eq(sz, secrets_count(s), 2));
    secrets_unref(s);
}

Test(secrets, a_fifo_does_not_hold_the_reading_up)
{
    const char *value;
    cr_assert(zero(int, mkfifo(path_of("default/fifo"), 0600)));
    struct secrets *s = load();
    cr_assert(eq(int, find(s, "default", "fifo", &value, NULL), -ERR_INVALID));
    secrets_unref(s);
}

Test(secrets, a_missing_folder_is_an_error)
{
    struct secrets *s = NULL;
    struct err e = {0};
    cr_assert(eq(int, secrets_load(path_of("none"), &s, &e), -ERR_NOT_FOUND));
    cr_assert(zero(ptr, s));
}

Test(secrets, faults_lose_nothing)
{
    for (unsigned k = 0;; k++) {
        struct secrets *s = NULL;
        struct err e = {0};
        const char *value;
        fault_arm(k);
        int rc = secrets_load(dir, &s, &e);
        bool fired = fault_fired();
        cr_assert(eq(int, rc == 0, s != NULL), "k=%u", k);
        if (rc == 0 && fired) /* a secret that could not be read is one that cannot be used */
            cr_assert(find(s, "default", "token", &value, NULL) < 0 ||
                          find(s, "team-b", "token", &value, NULL) < 0,
                      "k=%u", k);
        secrets_unref(s);
        if (!fired)
            break;
    }
}
