/* Which files a data folder has. */
#include "agent/store/raft/folder_private.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/base/mem.h"
#include "agent/io/file.h"

#define FILES_MAX 100000

static bool parse_segment(const char *name, struct folder_segment *ret)
{
    int end = 0;
    *ret = (struct folder_segment){0};
    if (strlen(name) >= sizeof(ret->name))
        return false;
    memcpy(ret->name, name, strlen(name) + 1);
    if (sscanf(name, "open-%" SCNu64 "%n", &ret->first, &end) == 1 && name[end] == 0)
        return ret->open = true;
    return sscanf(name, "%16" SCNu64 "-%16" SCNu64 "%n", &ret->first, &ret->last, &end) == 2 &&
           name[end] == 0;
}

/* Of a snapshot (TAIL "") or its description (".meta"). */
static bool parse_snapshot(const char *name, const char *tail, struct folder_snapshot *ret)
{
    int end = 0;
    *ret = (struct folder_snapshot){.name = ""};
    if (sscanf(name, "snapshot-%" SCNu64 "-%" SCNu64 "-%" SCNu64 "%n", &ret->term, &ret->index, &ret->time,
               &end) != 3 ||
        strcmp(name + end, tail) != 0 || (size_t)end >= sizeof(ret->name))
        return false;
    memcpy(ret->name, name, (size_t)end);
    return true;
}

static int order_u64(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int order_segments(const void *a, const void *b)
{
    const struct folder_segment *x = a, *y = b;
    if (x->open != y->open)
        return x->open ? 1 : -1;
    return order_u64(x->first, y->first);
}

static int order_snapshots(const void *a, const void *b)
{
    const struct folder_snapshot *x = a, *y = b;
    int order = order_u64(x->term, y->term);
    if (order == 0)
        order = order_u64(x->index, y->index);
    return order ? order : order_u64(x->time, y->time);
}

static int add(void **items, size_t *count, size_t *cap, const void *item, size_t size_bytes, struct err *e)
{
    if (*count == *cap) {
        size_t next = *cap ? 2 * *cap : 64;
        void *grown = mem_try_realloc(*items, next, size_bytes, e);
        if (!grown)
            return -ERR_NOMEM;
        *items = grown;
        *cap = next;
    }
    memcpy((char *)*items + *count * size_bytes, item, size_bytes);
    return ++*count > FILES_MAX ? err_set(e, ERR_TOO_BIG, "more than %d files", FILES_MAX) : 0;
}

/* Whether NAME is there and holds something: an empty snapshot is none to libraft. */
static bool is_filled(int dir, const char *name)
{
    struct stat st;
    return fstatat(dir, name, &st, 0) == 0 && st.st_size > 0;
}

static int add_name(struct folder *f, int dir, const char *name, struct err *e)
{
    struct folder_segment segment;
    struct folder_snapshot snapshot;
    f->unfinished |= strcmp(name, FOLDER_UNFINISHED) == 0;
    f->voter |= strcmp(name, FOLDER_NUMBER) == 0;
    f->used |= strcmp(name, "metadata1") == 0 || strcmp(name, "metadata2") == 0;
    if (parse_segment(name, &segment))
        return add((void **)&f->segments, &f->segments_count, &f->segments_cap, &segment, sizeof(segment), e);
    if (parse_snapshot(name, "", &snapshot) && is_filled(dir, name))
        return add((void **)&f->snapshots, &f->snapshots_count, &f->snapshots_cap, &snapshot,
                   sizeof(snapshot), e);
    if (parse_snapshot(name, ".meta", &snapshot) && !is_filled(dir, snapshot.name) &&
        (f->orphan.index == 0 || order_snapshots(&f->orphan, &snapshot) < 0))
        f->orphan = snapshot;
    return 0;
}

int folder_list(struct folder *f, struct err *e)
{
    DIR *d = fault_hit() ? (errno = EIO, NULL) : opendir(f->dir);
    int r = 0;
    if (!d)
        return err_sys(e, errno, "read the folder %s", f->dir);
    for (struct dirent *entry; r == 0 && (entry = readdir(d));)
        r = add_name(f, dirfd(d), entry->d_name, e);
    (void)closedir(d); /* only read */
    f->used |= f->segments_count > 0 || f->snapshots_count > 0 || f->orphan.index > 0;
    if (f->segments_count > 0)
        qsort(f->segments, f->segments_count, sizeof(*f->segments), order_segments);
    if (f->snapshots_count > 0)
        qsort(f->snapshots, f->snapshots_count, sizeof(*f->snapshots), order_snapshots);
    return r;
}

void folder_fini(struct folder *f)
{
    mem_free(f->segments);
    mem_free(f->snapshots);
}

int folder_read_file(const struct folder *f, const char *name, struct buf *out, struct err *e)
{
    char path[4200];
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", f->dir, name) >= sizeof(path))
        return err_set(e, ERR_INVALID, "the path of the data folder is too long");
    return file_read(path, out, e);
}
