/* The files of a data folder held against their checksums. */
#include "agent/store/raft/folder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/store/raft/folder_private.h"

#define SECTOR    512
#define BATCH_MAX 1000000

static int damaged(struct err *e, const char *name, const char *what)
{
    return err_set(e, ERR_PROTOCOL, "file %s %s", name, what);
}

/* --- segments ------------------------------------------------------------------------------------------------------ */

static bool is_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Polynomial 04c11db7, highest bit first. The sum of a number's four bits at once. */
static const uint32_t crc_of_nibble[16] = {
    0x00000000, 0x04c11db7, 0x09823b6e, 0x0d4326d9, 0x130476dc, 0x17c56b6b, 0x1a864db2, 0x1e475005,
    0x2608edb8, 0x22c9f00f, 0x2f8ad6d6, 0x2b4bcb61, 0x350c9b64, 0x31cd86d3, 0x3c8ea00a, 0x384fbdbd};

uint32_t folder_crc32(uint32_t crc, const void *data, size_t len)
{
    uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++)
        table[i] =
            crc_of_nibble[i & 15] ^ crc_of_nibble[crc_of_nibble[i >> 4] >> 28] ^ crc_of_nibble[i >> 4] << 4;
    for (const uint8_t *p = data, *end = p + len; p < end; p++)
        crc = crc << 8 ^ table[crc >> 24 ^ *p];
    return crc;
}

static uint32_t get_fixed32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* A batch: checksum of its head, checksum of its data, the head (count, then of each entry term, kind and length), data. */
bool folder_get_batch(struct codec_in *in, struct folder_batch *ret)
{
    const uint8_t *sums = codec_get_raw(in, 8), *head = in->at;
    uint64_t n = codec_get_fixed64(in), data_bytes = 0;
    const uint8_t *entries = n <= BATCH_MAX ? codec_get_raw(in, (size_t)n * FOLDER_ENTRY_HEAD) : NULL;
    if (!entries || n == 0 || folder_crc32(0, head, 8 + (size_t)n * FOLDER_ENTRY_HEAD) != get_fixed32(sums)) {
        in->bad = true;
        return false;
    }
    for (uint64_t i = 0; i < n; i++)
        data_bytes += get_fixed32(entries + i * FOLDER_ENTRY_HEAD + 12);
    const uint8_t *data = codec_get_raw(in, (size_t)data_bytes);
    *ret = (struct folder_batch){.heads = entries, .data = data, .count = n};
    return data && folder_crc32(0, data, (size_t)data_bytes) == get_fixed32(sums + 4);
}

void folder_get_entry(const struct folder_batch *b, uint64_t i, const uint8_t **at, struct folder_entry *ret)
{
    const uint8_t *head = b->heads + i * FOLDER_ENTRY_HEAD;
    *ret = (struct folder_entry){.kind = head[8], .data = *at, .bytes = get_fixed32(head + 12)};
    *at += ret->bytes;
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
    size_t end = len, head = at + 16 + FOLDER_ENTRY_HEAD;
    while (end > at && base[end - 1] == 0)
        end--;
    end = (end + 7) / 8 * 8;
    return end > head ? end : head < len ? head : len;
}

int folder_check_open_segment(const struct folder *f, const struct folder_segment *s, bool *ret_used,
                              bool *ret_whole, uint64_t *ret_entries, struct err *e)
{
    AUTO(buf_fini) struct buf file = BUF_INIT(FOLDER_SEGMENT_MAX);
    int r = folder_read_file(f, s->name, &file, e);
    if (r < 0)
        return r;
    const uint8_t *base = (const uint8_t *)buf_str(&file);
    *ret_used = !is_zero(base, file.len);
    *ret_whole = true;
    *ret_entries = 0;
    if (!*ret_used)
        return 0;
    struct codec_in in = codec_in(base, file.len);
    if (codec_get_fixed64(&in) != 1)
        return is_zero(base, 8) ? (*ret_whole = false, 0) : damaged(e, s->name, "has no head");
    while (!is_zero(in.at, (size_t)(in.end - in.at))) {
        size_t at = (size_t)(in.at - base);
        struct folder_batch batch;
        if (folder_get_batch(&in, &batch)) {
            *ret_entries += batch.count;
            continue;
        }
        size_t end = in.bad ? reach(base, at, file.len) : (size_t)(in.at - base);
        if (!is_cut_short(base, at, end))
            return err_set(e, ERR_PROTOCOL, "file %s is damaged at byte %zu", s->name, at);
        *ret_whole = false;
        break;
    }
    return 0;
}

/* Only the last write of all can have been cut short. */
static int check_open_segments(const struct folder *f, uint64_t *ret_entries, struct err *e)
{
    bool cut = false;
    for (size_t i = 0; i < f->segments_count; i++) {
        const struct folder_segment *s = &f->segments[i];
        bool used, whole;
        uint64_t entries;
        if (!s->open)
            continue;
        int r = folder_check_open_segment(f, s, &used, &whole, &entries, e);
        if (r < 0)
            return r;
        *ret_entries += entries;
        if (cut && used)
            return damaged(e, s->name, "comes after one that ends too early");
        cut |= !whole;
    }
    return 0;
}

/* --- snapshots ----------------------------------------------------------------------------------------------------- */

/* libraft would pass over a newest snapshot whose description it cannot read, and take an older state. */
int folder_check_snapshot_head(const struct folder *f, const struct folder_snapshot *s, struct err *e)
{
    AUTO(buf_fini) struct buf file = BUF_INIT(1 << 20);
    char name[100];
    (void)snprintf(name, sizeof(name), "%s.meta", s->name); /* it fits */
    int r = folder_read_file(f, name, &file, e);
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
        folder_crc32(folder_crc32(0, rest, 16), in.at, (size_t)len) != sum)
        return damaged(e, name, "is damaged");
    return 0;
}

int folder_check_orphan(const struct folder *f, uint64_t open_entries, struct err *e)
{
    uint64_t snapshot = f->snapshots_count ? f->snapshots[f->snapshots_count - 1].index : 0, last = snapshot;
    for (size_t i = 0; i < f->segments_count; i++)
        if (!f->segments[i].open)
            last = f->segments[i].last;
    last += open_entries;
    if (f->orphan.index > snapshot && f->orphan.index > last)
        return damaged(e, f->orphan.name, "is missing or empty");
    return 0;
}

/* --- terms --------------------------------------------------------------------------------------------------------- */

#define TERM_MAX ((uint64_t)1 << 40) /* one a start, or an election */
#define VOTE_MAX ((uint64_t)1 << 40) /* voters' numbers are counted up */

/* The two are written by turns, by their version: when both are whole they are one apart. */
int folder_check_terms(const struct folder *f, struct err *e)
{
    uint64_t vote_max = f->voter ? VOTE_MAX : 1, versions[2] = {0};
    for (uint64_t n = 1; n <= 2; n++) {
        AUTO(buf_fini) struct buf file = BUF_INIT(4096);
        char name[16];
        (void)snprintf(name, sizeof(name), "metadata%d", (int)n); /* it fits */
        int r = folder_read_file(f, name, &file, e);
        if (r == -ERR_NOT_FOUND || (r == 0 && file.len < 32))
            continue; /* not yet written, or cut short: the other one counts */
        if (r < 0)
            return r;
        struct codec_in in = codec_in(buf_str(&file), file.len);
        uint64_t format = codec_get_fixed64(&in), version = codec_get_fixed64(&in);
        uint64_t term = codec_get_fixed64(&in), vote = codec_get_fixed64(&in);
        if (format != 1 || version == 0 || version % 2 != n % 2 || term > TERM_MAX || vote > vote_max ||
            in.at != in.end)
            return damaged(e, name, "is damaged");
        versions[n - 1] = version;
    }
    uint64_t apart = versions[0] > versions[1] ? versions[0] - versions[1] : versions[1] - versions[0];
    if (versions[0] != 0 && versions[1] != 0 && apart != 1)
        return damaged(e, "metadata1", "or metadata2 is damaged");
    return 0;
}

static int check_newest_snapshot(const struct folder *f, struct err *e)
{
    size_t n = f->snapshots_count;
    return n > 0 ? folder_check_snapshot_head(f, &f->snapshots[n - 1], e) : 0;
}

int folder_check(const char *dir, struct err *e)
{
    struct folder f = {.dir = dir};
    uint64_t open_entries = 0;
    int r = folder_list(&f, e);
    if (r == 0 && f.unfinished)
        r = err_set(e, ERR_PROTOCOL, "a copy into it was not finished: run `carillon store copy` again");
    if (r == 0)
        r = folder_check_terms(&f, e);
    if (r == 0)
        r = check_newest_snapshot(&f, e);
    if (r == 0)
        r = check_open_segments(&f, &open_entries, e);
    if (r == 0)
        r = folder_check_orphan(&f, open_entries, e);
    folder_fini(&f);
    return r;
}
