#include "callback/secrets.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/buf.h"
#include "agent/base/text.h"
#include "agent/core/header_value.h"
#include "agent/io/file.h"

struct secret {
    char ns[TEXT_NAMESPACE_MAX + 1];
    char name[HEADER_SECRET_NAME_MAX + 1];
    char *value; /* NULL: cannot be used */
    size_t len;
    const char *why; /* a literal, when it cannot be used */
};

struct secrets {
    atomic_uint refs;
    struct secret *items; /* by namespace and name */
    size_t count, capacity;
    size_t values_bytes;
};

static void folder_close(DIR *d)
{
    if (d)
        (void)closedir(d); /* it was only read */
}
DEFINE_AUTO(folder_close, DIR *);

/* --- reading ------------------------------------------------------------------------------------------------------- */

static int open_folder(const char *path, DIR **ret, struct err *e)
{
    bool fault = fault_hit();
    *ret = fault ? NULL : opendir(path);
    return *ret ? 0 : err_sys(e, fault ? EIO : errno, "read folder '%s'", path);
}

static int grow(struct secrets *s, struct err *e)
{
    size_t capacity = s->capacity ? 2 * s->capacity : 16;
    if (s->count < s->capacity)
        return 0;
    if (s->count >= SECRETS_MAX)
        return err_set(e, ERR_TOO_BIG, "more than %d secrets", SECRETS_MAX);
    struct secret *items = mem_try_realloc(s->items, capacity, sizeof(*items), e);
    if (!items)
        return -ERR_NOMEM;
    s->items = items;
    s->capacity = capacity;
    return 0;
}

/* Takes VALUE over. */
static void judge(struct secret *secret, char *value, size_t len)
{
    if (len > SECRETS_VALUE_MAX)
        secret->why = "is too long for a header";
    else if (text_check_header_value(value, len, NULL) < 0)
        secret->why = "holds a line break or another character that no header may have";
    if (secret->why) {
        mem_free_secret(value, len);
        return;
    }
    secret->value = value;
    secret->len = len;
}

static int read_secret(struct secret *secret, const char *path, struct err *e)
{
    char *value;
    size_t len;
    struct err own;
    int rc = file_read_secret(path, &value, &len, &own);
    if (rc == -ERR_NOMEM)
        return err_set(e, ERR_NOMEM, "%s", own.text);
    if (rc == 0)
        judge(secret, value, len);
    else if (rc == -ERR_INVALID)
        secret->why = "is empty, holds a NUL, or is no regular file";
    else
        secret->why = rc == -ERR_TOO_BIG ? "is too long for a header" : "cannot be read";
    return 0;
}

static int add_secret(struct secrets *s, const char *folder, const char *ns, const char *name, struct err *e)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX);
    struct stat st;
    buf_addf(&path, "%s/%s", folder, name);
    int rc = buf_check(&path, e);
    if (rc == 0 && (stat(buf_str(&path), &st) < 0 || S_ISDIR(st.st_mode)))
        return 0; /* vanished meanwhile, a link to nowhere, or a folder */
    if (rc == 0)
        rc = grow(s, e);
    if (rc < 0)
        return rc;
    struct secret *secret = &s->items[s->count];
    *secret = (struct secret){0};
    memcpy(secret->ns, ns, strlen(ns) + 1);
    memcpy(secret->name, name, strlen(name) + 1);
    rc = read_secret(secret, buf_str(&path), e);
    if (rc < 0)
        return rc;
    s->count++;
    s->values_bytes += secret->len;
    return s->values_bytes <= SECRETS_VALUE_MAX_BYTES
               ? 0
               : err_set(e, ERR_TOO_BIG, "secrets of more than %zu bytes", SECRETS_VALUE_MAX_BYTES);
}

static int read_namespace(struct secrets *s, const char *dir, const char *ns, struct err *e)
{
    AUTO(buf_fini) struct buf folder = BUF_INIT(PATH_MAX);
    AUTO(folder_close) DIR *d = NULL;
    struct err own;
    buf_addf(&folder, "%s/%s", dir, ns);
    int rc = buf_check(&folder, e);
    if (rc < 0)
        return rc;
    rc = open_folder(buf_str(&folder), &d, &own);
    if (rc < 0 && (own.sys == ENOTDIR || own.sys == ENOENT))
        return 0; /* a file, or a folder that went meanwhile, is no namespace */
    if (rc < 0)
        return err_set(e, own.code, "%s", own.text);
    for (struct dirent *entry; rc == 0 && (entry = readdir(d));)
        if (header_secret_name_ok(entry->d_name, strlen(entry->d_name)))
            rc = add_secret(s, buf_str(&folder), ns, entry->d_name, e);
    return rc;
}

static int compare_names(const char *ns_a, const char *name_a, const char *ns_b, const char *name_b)
{
    int by_ns = strcmp(ns_a, ns_b);
    return by_ns ? by_ns : strcmp(name_a, name_b);
}

static int compare_secrets(const void *a, const void *b)
{
    const struct secret *x = a, *y = b;
    return compare_names(x->ns, x->name, y->ns, y->name);
}

int secrets_load(const char *dir, struct secrets **ret, struct err *e)
{
    AUTO(folder_close) DIR *d = NULL;
    AUTO(secrets_unref) struct secrets *s = mem_try_alloc(sizeof(*s), e);
    if (!s)
        return -ERR_NOMEM;
    atomic_init(&s->refs, 1);
    int rc = open_folder(dir, &d, e);
    for (struct dirent *entry; rc == 0 && (entry = readdir(d));)
        if (text_check_namespace(entry->d_name, strlen(entry->d_name), NULL) == 0)
            rc = read_namespace(s, dir, entry->d_name, e);
    if (rc < 0)
        return rc;
    if (s->count > 0)
        qsort(s->items, s->count, sizeof(*s->items), compare_secrets);
    *ret = TAKE(s);
    return 0;
}

struct secrets *secrets_ref(struct secrets *s)
{
    if (s)
        atomic_fetch_add(&s->refs, 1);
    return s;
}

void secrets_unref(struct secrets *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    for (size_t i = 0; i < s->count; i++)
        mem_free_secret(s->items[i].value, s->items[i].len);
    mem_free(s->items);
    mem_free(s);
}

size_t secrets_count(const struct secrets *s)
{
    return s->count;
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

static const struct secret *find(const struct secrets *s, const char *ns, const char *name)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = compare_names(s->items[middle].ns, s->items[middle].name, ns, name);
        if (order == 0)
            return &s->items[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

int secrets_find(const struct secrets *s, const char *ns, const char *name, size_t name_len, const char **ret,
                 struct err *e)
{
    char copy[HEADER_SECRET_NAME_MAX + 1] = "";
    if (header_secret_name_ok(name, name_len))
        memcpy(copy, name, name_len);
    const struct secret *secret = find(s, ns, copy);
    if (!secret)
        return err_set(e, ERR_NOT_FOUND, "secret '%s' is not there", TEXTQ(name, name_len));
    if (!secret->value)
        return err_set(e, ERR_INVALID, "secret '%s' %s", secret->name, secret->why);
    *ret = secret->value;
    return 0;
}

bool secrets_exists(const char *dir, const char *ns, const char *name, size_t name_len)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX);
    struct stat st;
    if (!header_secret_name_ok(name, name_len) || text_check_namespace(ns, strlen(ns), NULL) < 0)
        return false;
    buf_addf(&path, "%s/%s/%.*s", dir, ns, (int)name_len, name);
    return !buf_failed(&path) && stat(buf_str(&path), &st) == 0 && !S_ISDIR(st.st_mode);
}
