/* The files of a data folder, as libraft 0.22 writes them (its include/raft/uv.h), held against their checksums. */
#include "agent/store/raft/folder.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/io/file.h"
#include "agent/store/raft/codec.h"

/* A segment has 8 MiB, or what its one large entry needs. */
#define SEGMENT_MAX  ((size_t)400 << 20)
#define SEGMENTS_MAX 100000
#define SECTOR       512
/* An entry's head in a batch: term, kind, length. */
#define ENTRY_HEAD 16
#define BATCH_MAX  1000000

struct segment {
    char name[40];
    bool open;
    uint64_t first, last; /* closed: indexes; open: first is its number */
};

struct folder {
    const char *dir;
    struct segment *segments; /* closed ones in their order, then open ones in theirs */
    size_t segments_count, segments_cap;
    uint64_t snapshot_index, snapshot_term, snapshot_time; /* of the newest; index 0: none */
    char snapshot[80];
};

static int damaged(struct err *e, const char *name, const char *what)
{
    return err_set(e, ERR_PROTOCOL, "file %s %s", name, what);
}

/* --- what is there ------------------------------------------------------------------------------------------------- */

static bool parse_segment(const char *name, struct segment *ret)
{
    int end = 0;
    *ret = (struct segment){0};
    if (strlen(name) >= sizeof(ret->name))
        return false;
    memcpy(ret->name, name, strlen(name) + 1);
    if (sscanf(name, "open-%" SCNu64 "%n", &ret->first, &end) == 1 && name[end] == 0)
        return ret->open = true;
    return sscanf(name, "%16" SCNu64 "-%16" SCNu64 "%n", &ret->first, &ret->last, &end) == 2 &&
           name[end] == 0;
}

static int order_segments(const void *a, const void *b)
{
    const struct segment *x = a, *y = b;
    if (x->open != y->open)
        return x->open ? 1 : -1;
    return (x->first > y->first) - (x->first < y->first);
}

static int add_segment(struct folder *f, const struct segment *s, struct err *e)
{
    if (f->segments_count == f->segments_cap) {
        size_t cap = f->segments_cap ? 2 * f->segments_cap : 64;
        struct segment *grown = mem_try_realloc(f->segments, cap, sizeof(*grown), e);
        if (!grown)
            return -ERR_NOMEM;
        f->segments = grown;
        f->segments_cap = cap;
    }
    f->segments[f->segments_count++] = *s;
    return f->segments_count > SEGMENTS_MAX ? err_set(e, ERR_TOO_BIG, "more than %d files", SEGMENTS_MAX) : 0;
}

/* The newest, as libraft orders them. */
static void note_snapshot(struct folder *f, const char *name)
{
    uint64_t term, index, time;
    int end = 0;
    if (sscanf(name, "snapshot-%" SCNu64 "-%" SCNu64 "-%" SCNu64 "%n", &term, &index, &time, &end) != 3 ||
        name[end] != 0 || strlen(name) >= sizeof(f->snapshot))
        return;
    if (f->snapshot_index > 0 &&
        (term < f->snapshot_term || (term == f->snapshot_term && index < f->snapshot_index) ||
         (term == f->snapshot_term && index == f->snapshot_index && time < f->snapshot_time)))
        return;
    f->snapshot_term = term;
    f->snapshot_index = index;
    f->snapshot_time = time;
    memcpy(f->snapshot, name, strlen(name) + 1);
}

static int list_files(struct folder *f, struct err *e)
{
    DIR *d = fault_hit() ? (errno = EIO, NULL) : opendir(f->dir);
    int r = 0;
    if (!d)
        return err_sys(e, errno, "read the folder %s", f->dir);
    for (struct dirent *entry; r == 0 && (entry = readdir(d));) {
        struct segment s;
        if (parse_segment(entry->d_name, &s))
            r = add_segment(f, &s, e);
        else
            note_snapshot(f, entry->d_name);
    }
    (void)closedir(d); /* only read */
    if (r == 0 && f->segments_count > 0)
        qsort(f->segments, f->segments_count, sizeof(*f->segments), order_segments);
    return r;
}

static int read_whole(const struct folder *f, const char *name, struct buf *out, struct err *e)
{
    char path[4200];
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", f->dir, name) >= sizeof(path))
        return err_set(e, ERR_INVALID, "the path of the data folder is too long");
    return file_read(path, out, e);
}

/* --- segments ------------------------------------------------------------------------------------------------------ */

static bool is_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* libraft's checksum: polynomial 04c11db7, highest bit first, from 0. */
static uint32_t crc32_of(uint32_t crc, const uint8_t *p, size_t len)
{
    uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i << 24;
        for (unsigned bit = 0; bit < 8; bit++)
            table[i] = table[i] << 1 ^ (table[i] >> 31 ? UINT32_C(0x04c11db7) : 0);
    }
    for (size_t i = 0; i < len; i++)
        crc = crc << 8 ^ table[(crc >> 24 ^ p[i]) & 255];
    return crc;
}

static uint32_t get_fixed32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* A batch: checksum of its head, checksum of its data, the head (count, then of each entry term, kind and length), data. When its
 * head is right, IN stands behind it whether its data are or not; else IN is bad. */
static bool pass_batch(struct codec_in *in)
{
    const uint8_t *sums = codec_get_raw(in, 8), *head = in->at;
    uint64_t n = codec_get_fixed64(in), data_bytes = 0;
    const uint8_t *entries = n <= BATCH_MAX ? codec_get_raw(in, (size_t)n * ENTRY_HEAD) : NULL;
    if (!entries || n == 0 || crc32_of(0, head, 8 + (size_t)n * ENTRY_HEAD) != get_fixed32(sums)) {
        in->bad = true;
        return false;
    }
    for (uint64_t i = 0; i < n; i++)
        data_bytes += get_fixed32(entries + i * ENTRY_HEAD + 12);
    const uint8_t *data = codec_get_raw(in, (size_t)data_bytes);
    return data && crc32_of(0, data, (size_t)data_bytes) == get_fixed32(sums + 4);
}

/* A write that a crash cut short left some sectors as they were: behind the batch before, zeros. A write without any such
 * sector was whole, so what is wrong with it came later. All lengths are multiples of 8, and padding is less. */
static bool is_cut_short(const uint8_t *base, size_t from, size_t end)
{
    for (size_t next; from < end; from = next) {
        next = (from / SECTOR + 1) * SECTOR;
        size_t piece = (next < end ? next : end) - from;
        if (piece >= 8 && is_zero(base + from, piece))
            return true;
    }
    return false;
}

/* How far a batch at AT reaches whose head is not right: to the last that is there, and as far as its head at least. */
static size_t reach(const uint8_t *base, size_t at, size_t len)
{
    size_t end = len, head = at + 16 + ENTRY_HEAD;
    while (end > at && base[end - 1] == 0)
        end--;
    end = (end + 7) / 8 * 8;
    return end > head ? end : head < len ? head : len;
}

/* *RET_USED: it holds something; *RET_WHOLE: up to its end. */
static int check_open_segment(const struct folder *f, const struct segment *s, bool *ret_used,
                              bool *ret_whole, struct err *e)
{
    AUTO(buf_fini) struct buf file = BUF_INIT(SEGMENT_MAX);
    int r = read_whole(f, s->name, &file, e);
    if (r < 0)
        return r;
    const uint8_t *base = (const uint8_t *)buf_str(&file);
    *ret_used = !is_zero(base, file.len);
    *ret_whole = true;
    if (!*ret_used)
        return 0;
    struct codec_in in = codec_in(base, file.len);
    if (codec_get_fixed64(&in) != 1)
        return is_zero(base, 8) ? (*ret_whole = false, 0) : damaged(e, s->name, "has no head");
    while (!is_zero(in.at, (size_t)(in.end - in.at))) {
        size_t at = (size_t)(in.at - base);
        if (pass_batch(&in))
            continue;
        size_t end = in.bad ? reach(base, at, file.len) : (size_t)(in.at - base);
        if (!is_cut_short(base, at, end))
            return err_set(e, ERR_PROTOCOL, "file %s is damaged at byte %zu", s->name, at);
        *ret_whole = false;
        break;
    }
    return 0;
}

/* Only the last write of all can have been cut short. */
static int check_open_segments(const struct folder *f, struct err *e)
{
    bool cut = false;
    for (size_t i = 0; i < f->segments_count; i++) {
        const struct segment *s = &f->segments[i];
        bool used, whole;
        if (!s->open)
            continue;
        int r = check_open_segment(f, s, &used, &whole, e);
        if (r < 0)
            return r;
        if (cut && used)
            return damaged(e, s->name, "comes after one that ends too early");
        cut |= !whole;
    }
    return 0;
}

/* --- snapshots ----------------------------------------------------------------------------------------------------- */

/* Of the newest snapshot: libraft would pass over one whose description it cannot read, and take an older state. */
static int check_snapshot_head(const struct folder *f, struct err *e)
{
    AUTO(buf_fini) struct buf file = BUF_INIT(1 << 20);
    char name[100];
    if (f->snapshot_index == 0)
        return 0;
    (void)snprintf(name, sizeof(name), "%s.meta", f->snapshot); /* it fits */
    int r = read_whole(f, name, &file, e);
    if (r == -ERR_NOT_FOUND)
        return damaged(e, name, "is missing");
    if (r < 0)
        return r;
    struct codec_in in = codec_in(buf_str(&file), file.len);
    uint64_t format = codec_get_fixed64(&in), sum = codec_get_fixed64(&in);
    const uint8_t *rest = in.at;
    (void)codec_get_fixed64(&in); /* index of the configuration */
    uint64_t len = codec_get_fixed64(&in);
    if (in.bad || format != 1 || len != (uint64_t)(in.end - in.at) ||
        crc32_of(crc32_of(0, rest, 16), in.at, (size_t)len) != sum)
        return damaged(e, name, "is damaged");
    return 0;
}

/* --- terms --------------------------------------------------------------------------------------------------------- */

#define TERM_MAX ((uint64_t)1 << 40) /* one a start */

/* The two are written by turns, by their version. */
static int check_terms(const struct folder *f, struct err *e)
{
    for (uint64_t n = 1; n <= 2; n++) {
        AUTO(buf_fini) struct buf file = BUF_INIT(4096);
        char name[16];
        (void)snprintf(name, sizeof(name), "metadata%d", (int)n); /* it fits */
        int r = read_whole(f, name, &file, e);
        if (r == -ERR_NOT_FOUND || (r == 0 && file.len < 32))
            continue; /* not yet written, or cut short: the other one counts */
        if (r < 0)
            return r;
        struct codec_in in = codec_in(buf_str(&file), file.len);
        uint64_t format = codec_get_fixed64(&in), version = codec_get_fixed64(&in);
        uint64_t term = codec_get_fixed64(&in), vote = codec_get_fixed64(&in);
        if (format != 1 || version == 0 || version % 2 != n % 2 || term > TERM_MAX || vote > 1 ||
            in.at != in.end)
            return damaged(e, name, "is damaged");
    }
    return 0;
}

int folder_check(const char *dir, struct err *e)
{
    struct folder f = {.dir = dir};
    int r = list_files(&f, e);
    if (r == 0)
        r = check_terms(&f, e);
    if (r == 0)
        r = check_snapshot_head(&f, e);
    if (r == 0)
        r = check_open_segments(&f, e);
    mem_free(f.segments);
    return r;
}
