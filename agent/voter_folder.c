#define _GNU_SOURCE
#include "agent/voter_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/rng.h"
#include "agent/io/file.h"
#include "agent/store/raft/folder.h"

#define FILE_MAX   ((size_t)64 << 10)
#define RETIRE_MAX 1000

static int path_of(const char *dir, char ret[VOTER_FOLDER_PATH_MAX], struct err *e)
{
    if ((size_t)snprintf(ret, VOTER_FOLDER_PATH_MAX, "%s/%s", dir, VOTER_FOLDER_FILE) >=
        VOTER_FOLDER_PATH_MAX)
        return err_set(e, ERR_INVALID, "the path of the log's folder is too long");
    return 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static void read_known(const json_t *doc, struct voter_folder *f, struct problems *p)
{
    const json_t *items = json_field_array(doc, "voters", VOTERS_MAX, NULL, p);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        struct voter *v = &f->known[f->known_count++];
        int64_t number = 0;
        (void)json_field_int(item, "number", 1, INT64_MAX, &number, NULL, p);
        v->number = (uint64_t)number;
        (void)json_field_copy(item, "name", 0, v->name, sizeof(v->name), NULL, p);          /* tells P */
        (void)json_field_copy(item, "address", 1, v->address, sizeof(v->address), NULL, p); /* tells P */
    }
}

static int parse(const struct buf *text, struct voter_folder *ret, struct err *e)
{
    AUTO(problems_fini) struct problems p = {0};
    AUTO(json_decref) json_t *doc = NULL;
    int64_t number = 0;
    int rc = json_read(buf_str(text), text->len, FILE_MAX, &doc, e);
    if (rc < 0)
        return rc;
    *ret = (struct voter_folder){0};
    (void)json_expect_object(doc, NULL, &p); /* its problem counts */
    (void)json_field_copy(doc, "folder", 1, ret->folder, sizeof(ret->folder), NULL, &p); /* tells P */
    (void)json_field_copy(doc, "set", 0, ret->set, sizeof(ret->set), NULL, &p);          /* "" if absent */
    (void)json_field_int(doc, "number", 0, INT64_MAX, &number, NULL, &p);                /* 0 if absent */
    (void)json_field_bool(doc, "used", &ret->used, NULL, &p);                            /* false if absent */
    ret->number = (uint64_t)number;
    read_known(doc, ret, &p);
    return problems_check(&p, e);
}

static int make_new(const char *dir, struct voter_folder *ret, struct err *e)
{
    uint8_t bytes[(VOTERS_FOLDER_SIZE - 1) / 2];
    struct voter_folder f = {.number = 0};
    int rc = rng_os_bytes(bytes, sizeof(bytes), e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < sizeof(bytes); i++)
        (void)snprintf(&f.folder[2 * i], 3, "%02x", bytes[i]); /* fits */
    rc = voter_folder_write(dir, &f, e);
    if (rc == 0)
        *ret = f;
    return rc;
}

int voter_folder_open(const char *dir, struct voter_folder *ret, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(FILE_MAX);
    char path[VOTER_FOLDER_PATH_MAX];
    struct voter_folder f;
    struct err why = {0};
    int lock_fd = -1;
    int rc = path_of(dir, path, e);
    if (rc == 0)
        rc = folder_lock(dir, &lock_fd, e); /* makes it, too */
    if (rc < 0)
        return rc;
    rc = file_read(path, &text, &why);
    if (rc == -ERR_NOT_FOUND)
        rc = make_new(dir, &f, &why);
    else if (rc == 0)
        rc = parse(&text, &f, &why);
    fd_close(lock_fd);
    if (rc == -ERR_INVALID)
        return err_set(e, ERR_PERMANENT, "%.100s makes no sense: %.60s. Move the folder away to begin empty",
                       path, why.text);
    if (rc < 0)
        return err_set(e, why.code, "%s", why.text);
    *ret = f;
    return 0;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static json_t *known_json(const struct voter_folder *f)
{
    json_t *items = json_array();
    for (size_t i = 0; items && i < f->known_count; i++) {
        const struct voter *v = &f->known[i];
        json_t *item = json_pack("{s:I,s:s,s:s}", "number", (json_int_t)v->number, "name", v->name, "address",
                                 v->address);
        if (json_array_append_new(items, item) < 0) {
            json_decref(items);
            return NULL;
        }
    }
    return items;
}

int voter_folder_write(const char *dir, const struct voter_folder *f, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(FILE_MAX);
    char path[VOTER_FOLDER_PATH_MAX];
    int rc = path_of(dir, path, e);
    if (rc < 0)
        return rc;
    AUTO(json_decref)
    json_t *doc = json_pack("{s:s,s:s,s:I,s:b,s:o}", "folder", f->folder, "set", f->set, "number",
                            (json_int_t)f->number, "used", (int)f->used, "voters", known_json(f));
    if (!doc)
        return err_set(e, ERR_NOMEM, "no memory for %s", VOTER_FOLDER_FILE);
    rc = json_print(doc, &text, e);
    if (rc == 0)
        rc = file_write(path, buf_str(&text), text.len, 0600, e);
    return rc;
}

int voter_folder_retire(const char *dir, uint64_t number, char ret_to[VOTER_FOLDER_PATH_MAX], struct err *e)
{
    int len = (int)strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    for (unsigned i = 0; i < RETIRE_MAX; i++) {
        char tail[32] = "";
        if (i > 0)
            (void)snprintf(tail, sizeof(tail), ".%u", i); /* fits */
        if (snprintf(ret_to, VOTER_FOLDER_PATH_MAX, "%.*s.removed-%llu%s", len, dir,
                     (unsigned long long)number, tail) >= VOTER_FOLDER_PATH_MAX)
            return err_set(e, ERR_IO, "the path of the log's folder is too long");
        if ((fault_hit() ? (errno = EIO, -1)
                         : renameat2(AT_FDCWD, dir, AT_FDCWD, ret_to, RENAME_NOREPLACE)) == 0)
            return 0;
        if (errno != EEXIST)
            return err_sys(e, errno, "move %s away", dir);
    }
    return err_set(e, ERR_IO, "move %s away: too many were before", dir);
}
