#include "agent/store/raft/folder_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/base/mem.h"
#include "agent/store/raft/folder.h"
#include "agent/store/raft/folder_private.h"
#include "agent/store/raft/machine.h"

struct reading {
    struct folder f;
    struct machine *m;
    folder_problem_fn *fn;
    void *arg;
    struct folder_seen *seen;
    struct err first;    /* the first problem; ERR_OK: none */
    bool stuck;          /* the state can be built no further */
    uint64_t next_index; /* of the log */
};

int folder_lock_existing(const char *dir, int *ret_fd, struct err *e)
{
    struct stat st;
    if (stat(dir, &st) < 0)
        return err_sys(e, errno, "open the folder %s", dir);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_NOT_FOUND, "%s is no folder", dir);
    return folder_lock(dir, ret_fd, e);
}

/* What is wrong with a file is told, and the reading goes on; anything else ends it. */
static int tell(struct reading *r, int rc, const struct err *why, struct err *e)
{
    if (rc == 0)
        return 0;
    if (rc != -ERR_PROTOCOL && rc != -ERR_NOT_FOUND)
        return err_set(e, why->code, "%s", why->text);
    if (r->first.code == ERR_OK)
        r->first = *why;
    r->fn(r->arg, why->text);
    return 0;
}

/* The same of what the state needs. */
static int tell_stuck(struct reading *r, int rc, const struct err *why, struct err *e)
{
    r->stuck |= rc != 0;
    return tell(r, rc, why, e);
}

/* --- snapshots ----------------------------------------------------------------------------------------------------- */

static int map_file(const struct folder *f, const char *name, void **ret, size_t *ret_bytes, struct err *e)
{
    char path[4200];
    struct stat st;
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", f->dir, name) >= sizeof(path))
        return err_set(e, ERR_INVALID, "the path of the data folder is too long");
    AUTO(fd_close) int fd = fault_hit() ? (errno = EIO, -1) : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, "open %s", path);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return err_sys(e, errno, "read %s", path);
    *ret = data;
    *ret_bytes = (size_t)st.st_size;
    return 0;
}

/* The newest becomes the state; of the others only the checksums are looked at. */
static int read_snapshot(struct reading *r, const struct folder_snapshot *s, bool newest, struct err *e)
{
    struct err why = {0}, inner = {0};
    void *data = NULL;
    size_t bytes = 0;
    int rc = folder_check_snapshot_head(&r->f, s, &why);
    if (rc == 0)
        rc = map_file(&r->f, s->name, &data, &bytes, &why);
    if (rc == 0) {
        rc =
            newest ? machine_restore(r->m, data, bytes, &inner) : machine_check_snapshot(data, bytes, &inner);
        (void)munmap(data, bytes); /* it was mapped */
        r->seen->bytes += bytes;
    }
    if (inner.code != ERR_OK)
        rc = err_set(&why, inner.code, "file %.70s: %.110s", s->name, inner.text);
    return newest ? tell_stuck(r, rc, &why, e) : tell(r, rc, &why, e);
}

static int read_snapshots(struct reading *r, struct err *e)
{
    int rc = 0;
    size_t count = r->f.snapshots_count;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = read_snapshot(r, &r->f.snapshots[i], i + 1 == count, e);
    r->seen->snapshots = count;
    r->seen->snapshot_index = count > 0 ? r->f.snapshots[count - 1].index : 0;
    return rc;
}

/* --- the log ------------------------------------------------------------------------------------------------------- */

static int apply_entry(struct reading *r, const char *name, const struct folder_entry *entry, struct err *e)
{
    struct err why = {0}, inner = {0};
    uint64_t index = r->next_index++;
    if (entry->kind != FOLDER_ENTRY_COMMAND || index <= r->seen->snapshot_index || r->stuck)
        return 0;
    r->seen->entries++;
    int rc = machine_apply(r->m, entry->data, entry->bytes, NULL, NULL, &inner);
    if (rc < 0)
        rc = err_set(&why, inner.code, "file %.40s: %.140s", name, inner.text);
    return tell_stuck(r, rc, &why, e);
}

/* Batches up to LAST_INDEX, or to what is no batch. *RET_AT: where that is, in bytes. */
static int apply_batches(struct reading *r, const struct folder_segment *s, const struct buf *file,
                         uint64_t last_index, size_t *ret_at, struct err *e)
{
    struct codec_in in = codec_in(buf_str(file), file->len);
    struct folder_batch batch;
    int rc = 0;
    bool head = codec_get_fixed64(&in) == 1;
    for (*ret_at = 8; rc == 0 && head && r->next_index <= last_index && in.at != in.end;) {
        if (!folder_get_batch(&in, &batch))
            break;
        const uint8_t *at = batch.data;
        for (uint64_t i = 0; rc == 0 && i < batch.count && r->next_index <= last_index; i++) {
            struct folder_entry entry;
            folder_get_entry(&batch, i, &at, &entry);
            rc = apply_entry(r, s->name, &entry, e);
        }
        *ret_at = (size_t)(in.at - (const uint8_t *)buf_str(file));
    }
    return rc;
}

/* Its name says which entries it has. */
static int read_closed(struct reading *r, const struct folder_segment *s, struct err *e)
{
    AUTO(buf_fini) struct buf file = BUF_INIT(FOLDER_SEGMENT_MAX);
    struct err why = {0};
    size_t at;
    uint64_t expected = r->seen->closed ? r->next_index : r->seen->snapshot_index + 1;
    r->seen->closed++;
    if (r->seen->closed > 1 ? s->first != expected : s->first > expected) {
        int rc = err_set(&why, ERR_PROTOCOL,
                         "entries %llu to %llu of the log are missing: the next are in file %s",
                         (unsigned long long)expected, (unsigned long long)s->first - 1, s->name);
        rc = tell_stuck(r, rc, &why, e);
        if (rc < 0)
            return rc;
    }
    r->next_index = s->first;
    int rc = folder_read_file(&r->f, s->name, &file, &why);
    r->seen->bytes += file.len;
    if (rc < 0)
        return tell_stuck(r, rc, &why, e);
    rc = apply_batches(r, s, &file, s->last, &at, e);
    if (rc == 0 && r->next_index <= s->last) {
        rc =
            err_set(&why, ERR_PROTOCOL, "file %s is damaged at byte %zu: entries %llu to %llu cannot be read",
                    s->name, at, (unsigned long long)r->next_index, (unsigned long long)s->last);
        rc = tell_stuck(r, rc, &why, e);
    }
    r->next_index = s->last + 1;
    return rc;
}

/* Only the last write of all can have been cut short; what is behind it holds nothing. */
static int read_open(struct reading *r, const struct folder_segment *s, uint64_t *entries, struct err *e)
{
    AUTO(buf_fini) struct buf file = BUF_INIT(FOLDER_SEGMENT_MAX);
    struct err why = {0};
    bool used = false, whole = true;
    uint64_t count = 0;
    size_t at;
    r->seen->open++;
    int rc = folder_check_open_segment(&r->f, s, &used, &whole, &count, &why);
    if (rc == 0 && used && r->seen->cut_short)
        rc = err_set(&why, ERR_PROTOCOL, "file %s comes after one that ends too early", s->name);
    if (rc < 0)
        return tell_stuck(r, rc, &why, e);
    r->seen->cut_short |= !whole;
    *entries += count;
    rc = folder_read_file(&r->f, s->name, &file, &why);
    r->seen->bytes += file.len;
    if (rc < 0 || !used)
        return tell_stuck(r, rc, &why, e);
    return apply_batches(r, s, &file, UINT64_MAX, &at, e);
}

static int read_log(struct reading *r, struct err *e)
{
    struct err why = {0};
    uint64_t open_entries = 0;
    int rc = 0;
    r->next_index = r->seen->snapshot_index + 1;
    for (size_t i = 0; rc == 0 && i < r->f.segments_count; i++) {
        const struct folder_segment *s = &r->f.segments[i];
        rc = s->open ? read_open(r, s, &open_entries, e) : read_closed(r, s, e);
    }
    if (rc < 0)
        return rc;
    r->seen->last_index =
        r->next_index - 1 > r->seen->snapshot_index ? r->next_index - 1 : r->seen->snapshot_index;
    return tell_stuck(r, folder_check_orphan(&r->f, open_entries, &why), &why, e);
}

/* --- all of it ----------------------------------------------------------------------------------------------------- */

static int read_all(struct reading *r, bool unfinished_too, struct err *e)
{
    struct err why = {0};
    int rc = folder_list(&r->f, e);
    if (rc < 0)
        return rc;
    if (r->f.unfinished && !unfinished_too) {
        rc = err_set(&why, ERR_PROTOCOL, "a copy into it was not finished: run `carillon store copy` again");
        return tell(r, rc, &why, e);
    }
    if (!r->f.used)
        return err_set(e, ERR_NOT_FOUND, "%s holds no store", r->f.dir);
    rc = tell(r, folder_check_terms(&r->f, &why), &why, e);
    if (rc == 0)
        rc = read_snapshots(r, e);
    return rc == 0 ? read_log(r, e) : rc;
}

int folder_read(const char *dir, struct machine *m, bool unfinished_too, folder_problem_fn *fn, void *arg,
                struct folder_seen *ret, struct err *e)
{
    struct folder_seen seen = {0};
    struct reading r = {.f = {.dir = dir}, .m = m, .fn = fn, .arg = arg, .seen = &seen};
    int rc = read_all(&r, unfinished_too, e);
    folder_fini(&r.f);
    if (rc < 0)
        return rc;
    if (r.first.code != ERR_OK)
        return err_set(e, ERR_PROTOCOL, "%s", r.first.text);
    if (machine_meta(m)->schema == 0)
        return err_set(e, ERR_NOT_FOUND, "%s holds no store: it was never made to its end", dir);
    *ret = seen;
    return 0;
}
