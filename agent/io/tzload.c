#include "agent/io/tzload.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/map.h"
#include "agent/io/file.h"

#define VERSION_FILE_MAX_BYTES (4 << 20) /* tzdata.zi holds the rules of all zones */

struct tzload {
    pthread_mutex_t lock; /* of zones */
    struct map zones;     /* name -> struct tz */
    char *dir;
    char version[TZLOAD_VERSION_SIZE];
};

/* Append the file NAME of DIR to B. Errors as file_read(). */
static int read_file(const char *dir, const char *name, struct buf *b, struct err *e)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(4096);
    buf_addf(&path, "%s/%s", dir, name);
    if (buf_check(&path, e) < 0)
        return err_wrap(e, "path of '%s'", name);
    return file_read(buf_str(&path), b, e);
}

/* ---- version --------------------------------------------------------------------------------------------------- */

/* The word of at most TZLOAD_VERSION_SIZE - 1 letters, digits, '.' and '-' after PREFIX. */
static bool take_version(const char *text, const char *prefix, char version[TZLOAD_VERSION_SIZE])
{
    size_t skip = strlen(prefix);
    if (strncmp(text, prefix, skip) != 0)
        return false;
    size_t n = strspn(text + skip, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-");
    if (n == 0 || n >= TZLOAD_VERSION_SIZE)
        return false;
    memcpy(version, text + skip, n);
    version[n] = '\0';
    return true;
}

/* tzdata.zi begins with it in Debian and upstream; +VERSION is what macOS and the BSDs install. */
static void find_version(struct tzload *l)
{
    static const struct {
        const char *file;
        const char *prefix;
    } sources[] = {{"tzdata.zi", "# version "}, {"+VERSION", ""}};
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        AUTO(buf_fini) struct buf b = BUF_INIT(VERSION_FILE_MAX_BYTES);
        if (read_file(l->dir, sources[i].file, &b, NULL) == 0 &&
            take_version(buf_str(&b), sources[i].prefix, l->version))
            return;
    }
    memcpy(l->version, "unknown", sizeof("unknown"));
}

/* ---- the cache ------------------------------------------------------------------------------------------------- */

int tzload_new(const char *dir, struct tzload **ret, struct err *e)
{
    AUTO(tzload_free) struct tzload *l = mem_new(struct tzload);
    if (!dir)
        dir = getenv("TZDIR"); /* as the C library has it */
    dir = dir && *dir ? dir : TZLOAD_DIR;
    /* Only names that are files get in, so nobody chooses colliding keys. */
    map_init(&l->zones, 0);
    int rc = pthread_mutex_init(&l->lock, NULL);
    assert(rc == 0);
    l->dir = mem_try_strndup(dir, strlen(dir), e);
    if (!l->dir)
        return err_wrap(e, "open time zones");
    find_version(l);
    *ret = TAKE(l);
    return 0;
}

void tzload_free(struct tzload *l)
{
    if (!l)
        return;
    for (struct map_iter it = {0}; map_next(&l->zones, &it);)
        tz_free(it.value);
    map_fini(&l->zones);
    (void)pthread_mutex_destroy(&l->lock); /* fails only when held */
    mem_free(l->dir);
    mem_free(l);
}

static int load(struct tzload *l, const char *name, const struct tz **ret, struct err *e)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(TZ_FILE_MAX_BYTES);
    int rc = read_file(l->dir, name, &b, e);
    if (rc == -ERR_NOT_FOUND || rc == -ERR_INVALID) /* nothing there, or a folder */
        return err_set(e, ERR_NOT_FOUND,
                       "there is no time zone '%s' (tzdata %s); names are as in Europe/Berlin", name,
                       l->version);
    if (rc < 0)
        return err_wrap(e, "time zone '%s'", name);
    AUTO(tz_free) struct tz *z = NULL;
    if (tz_parse(name, buf_str(&b), b.len, &z, e) < 0 ||
        map_put(&l->zones, tz_name(z), strlen(tz_name(z)), z, NULL, e) < 0)
        return err_wrap(e, "time zone '%s'", name);
    *ret = TAKE(z);
    return 0;
}

int tzload_get(struct tzload *l, const char *name, size_t len, const struct tz **ret, struct err *e)
{
    char text[TZ_NAME_MAX + 1];
    int rc = tz_check_name(name, len, e);
    if (rc < 0)
        return rc;
    memcpy(text, name, len);
    text[len] = '\0';
    if (strcmp(text, tz_name(tz_utc())) == 0) {
        *ret = tz_utc();
        return 0;
    }
    pthread_mutex_lock(&l->lock);
    const struct tz *known = map_get(&l->zones, text, len);
    rc = known ? 0 : load(l, text, &known, e);
    pthread_mutex_unlock(&l->lock);
    if (rc == 0)
        *ret = known;
    return rc;
}

int tzload_bind(struct tzload *l, struct job_spec *spec, struct err *e)
{
    const struct tz *zone;
    int r = tzload_get(l, spec->timezone, strlen(spec->timezone), &zone, e);
    return r < 0 ? r : job_spec_bind(spec, zone, e);
}

const char *tzload_version(const struct tzload *l)
{
    return l->version;
}
