#include "agent/store/raft/codec.h"

#include <assert.h>
#include <string.h>

#include "agent/core/record.h"
#include "agent/store/store.h"
#include "agent/store/store_version.h"

/* Enums are written as the unsigned number they are. */
_Static_assert(sizeof(enum job_state) == sizeof(uint32_t), "enums are read and written as uint32_t");

#define AT(type, field) offsetof(struct type, field), sizeof(((struct type *)0)->field)
#define JOB(field)      AT(job_row, field)
#define FIRE(field)     AT(fire_row, field)
#define REVISION(field) AT(revision, field)
#define MEMBER(field)   AT(store_member, field)

/* The next free tag is the last one's and one more. */
static const struct codec_field job_fields[] = {
    {1, CODEC_UID, true, JOB(uid), 0, 0},
    {2, CODEC_U16, true, JOB(slot), 0, UINT16_MAX},
    {3, CODEC_TEXT, true, JOB(ns), 0, 0},
    {4, CODEC_TEXT, true, JOB(id), 0, 0},
    {5, CODEC_U64, false, JOB(rev), 0, UINT64_MAX},
    {6, CODEC_U64, false, JOB(version), 0, UINT64_MAX},
    {7, CODEC_U64, false, JOB(change_id), 0, UINT64_MAX},
    {8, CODEC_U32, false, JOB(state), 0, JOB_STATE_COUNT_ - 1},
    {9, CODEC_MS, false, JOB(due_ms), 0, 0},
    {10, CODEC_MS, false, JOB(wake_ms), 0, 0},
    {11, CODEC_U64, false, JOB(counts.seq), 0, UINT64_MAX},
    {12, CODEC_U64, false, JOB(counts.succeeded), 0, UINT64_MAX},
    {13, CODEC_U64, false, JOB(counts.dead), 0, UINT64_MAX},
    {14, CODEC_U64, false, JOB(counts.skipped), 0, UINT64_MAX},
    {15, CODEC_U64, false, JOB(counts.coalesced), 0, UINT64_MAX},
    {16, CODEC_U64, false, JOB(counts.cancelled), 0, UINT64_MAX},
    {17, CODEC_U64, false, JOB(scheduled), 0, UINT64_MAX},
    {18, CODEC_U64, false, JOB(last.seq), 0, UINT64_MAX},
    {19, CODEC_MS, false, JOB(last.due_ms), 0, 0},
    {20, CODEC_MS, false, JOB(last.finished_ms), 0, 0},
    {21, CODEC_U32, false, JOB(last.outcome), 0, FIRE_OUTCOME_COUNT_ - 1},
    {22, CODEC_U32, false, JOB(last.reason), 0, FIRE_REASON_COUNT_ - 1},
    {23, CODEC_MS, false, JOB(last_success_ms), 0, 0},
    {24, CODEC_U32, false, JOB(consecutive_failures), 0, UINT32_MAX},
    {25, CODEC_MS, false, JOB(failing_since_ms), 0, 0},
    {26, CODEC_MS, false, JOB(created_ms), 0, 0},
    {27, CODEC_MS, false, JOB(updated_ms), 0, 0},
    {28, CODEC_TEXT, false, JOB(tzdata), 0, 0},
    {29, CODEC_BYTES, false, JOB(ring), offsetof(struct job_row, ring_bytes), 0},
    {30, CODEC_MS, false, JOB(backfill_next_ms), 0, 0},
    {31, CODEC_MS, false, JOB(backfill_until_ms), 0, 0},
    {32, CODEC_U32, false, JOB(backfill_pending), 0, UINT32_MAX},
};

static const struct codec_field fire_fields[] = {
    {1, CODEC_UID, true, FIRE(uid), 0, 0},
    {2, CODEC_U16, true, FIRE(slot), 0, UINT16_MAX},
    {3, CODEC_U64, true, FIRE(seq), 0, UINT64_MAX},
    {4, CODEC_U64, false, FIRE(seq_last), 0, UINT64_MAX},
    {5, CODEC_U64, false, FIRE(rev), 0, UINT64_MAX},
    {6, CODEC_U32, false, FIRE(state), 0, FIRE_STATE_COUNT_ - 1},
    {7, CODEC_U32, false, FIRE(kind), 0, FIRE_KIND_COUNT_ - 1},
    {8, CODEC_U32, false, FIRE(outcome), 0, FIRE_OUTCOME_COUNT_ - 1},
    {9, CODEC_U32, false, FIRE(reason), 0, FIRE_REASON_COUNT_ - 1},
    {10, CODEC_MS, false, FIRE(due_ms), 0, 0},
    {11, CODEC_MS, false, FIRE(due_last_ms), 0, 0},
    {12, CODEC_U32, false, FIRE(jitter_ms), 0, UINT32_MAX},
    {13, CODEC_MS, false, FIRE(wake_ms), 0, 0},
    {14, CODEC_MS, false, FIRE(first_ms), 0, 0},
    {15, CODEC_MS, false, FIRE(started_ms), 0, 0},
    {16, CODEC_MS, false, FIRE(finished_ms), 0, 0},
    {17, CODEC_U32, false, FIRE(attempts), 0, UINT32_MAX},
    {18, CODEC_U32, false, FIRE(coalesced), 0, UINT32_MAX},
    {19, CODEC_TEXT, false, FIRE(holder), 0, 0},
    {20, CODEC_BLOB, false, FIRE(log), offsetof(struct fire_row, log_bytes), 0},
    {21, CODEC_BLOB, false, FIRE(payload), offsetof(struct fire_row, payload_bytes), 0},
    {22, CODEC_TEXT, false, FIRE(last_error), 0, 0},
    {23, CODEC_BLOB, false, FIRE(parts), offsetof(struct fire_row, parts_bytes), 0},
    {24, CODEC_TEXT, true, FIRE(ns), 0, 0},
    {25, CODEC_TEXT, true, FIRE(id), 0, 0},
    {26, CODEC_TEXT, false, FIRE(service), 0, 0},
    {27, CODEC_U64, false, FIRE(version), 0, UINT64_MAX},
    {28, CODEC_U32, false, FIRE(attempts_before), 0, UINT32_MAX},
    {29, CODEC_MS, false, FIRE(attempt_ms), 0, 0},
    {30, CODEC_MS, false, FIRE(until_ms), 0, 0},
    {31, CODEC_U32, false, FIRE(orphan), 0, 1},
#if STORE_VERSION >= 2
    {32, CODEC_BLOB, false, FIRE(trace), offsetof(struct fire_row, trace_bytes), 0},
#endif
};

static const struct codec_field revision_fields[] = {
    {1, CODEC_U64, true, REVISION(change_id), 0, UINT64_MAX},
    {2, CODEC_MS, true, REVISION(at_ms), 0, 0},
    {3, CODEC_TEXT, false, REVISION(actor), 0, 0},
    {4, CODEC_TEXT, false, REVISION(op), 0, 0},
    {5, CODEC_UID, false, REVISION(uid), 0, 0},
    {6, CODEC_U64, false, REVISION(version), 0, UINT64_MAX},
    {7, CODEC_U64, false, REVISION(seq), 0, UINT64_MAX},
    {8, CODEC_U32, false, REVISION(state), 0, JOB_STATE_COUNT_ - 1},
    {9, CODEC_MS, false, REVISION(due_ms), 0, 0},
};

/* Not its beat: that counts while the process runs. */
static const struct codec_field member_fields[] = {
    {1, CODEC_TEXT, false, MEMBER(id), 0, 0},
    {2, CODEC_TEXT, false, MEMBER(name), 0, 0},
    {3, CODEC_TEXT, false, MEMBER(address), 0, 0},
    {4, CODEC_TEXT, false, MEMBER(zone), 0, 0},
    {5, CODEC_U32, false, MEMBER(weight), 0, UINT32_MAX},
};

#define TABLE(text, list)                                                           \
    {                                                                               \
        .name = (text), .fields = (list), .count = sizeof(list) / sizeof((list)[0]) \
    }

const struct codec_table *codec_job(void)
{
    static const struct codec_table table = TABLE("job", job_fields);
    return &table;
}

const struct codec_table *codec_fire(void)
{
    static const struct codec_table table = {.name = "fire",
                                             .fields = fire_fields,
                                             .count = sizeof(fire_fields) / sizeof(fire_fields[0]),
                                             .last_tag_1 = 31};
    return &table;
}

const struct codec_table *codec_revision(void)
{
    static const struct codec_table table = TABLE("revision", revision_fields);
    return &table;
}

const struct codec_table *codec_member(void)
{
    static const struct codec_table table = TABLE("member", member_fields);
    return &table;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

void codec_put_u64(struct buf *b, uint64_t v)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        bytes[n++] = (uint8_t)(v | 0x80);
    bytes[n++] = (uint8_t)v;
    buf_add(b, bytes, n);
}

void codec_put_i64(struct buf *b, int64_t v)
{
    codec_put_u64(b, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0));
}

void codec_put_fixed64(struct buf *b, uint64_t v)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> 8 * i);
    buf_add(b, bytes, sizeof(bytes));
}

void codec_put_bytes(struct buf *b, const void *data, size_t len)
{
    codec_put_u64(b, len);
    if (len > 0)
        buf_add(b, data, len);
}

void codec_put_text(struct buf *b, const char *s)
{
    codec_put_bytes(b, s, strlen(s));
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static void spoil(struct codec_in *in)
{
    in->bad = true;
    in->at = in->end;
}

const void *codec_get_raw(struct codec_in *in, size_t len)
{
    if (in->bad || (size_t)(in->end - in->at) < len) {
        spoil(in);
        return NULL;
    }
    const void *p = in->at;
    in->at += len;
    return p;
}

uint64_t codec_get_u64(struct codec_in *in, uint64_t max)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (!in->at || in->at == in->end)
            break;
        uint64_t part = *in->at++;
        if (shift == 63 && part > 1)
            break;
        v |= (part & 0x7f) << shift;
        if (part < 0x80) {
            if ((part == 0 && shift > 0) || v > max) /* each number is written in one way only */
                break;
            return v;
        }
    }
    spoil(in);
    return 0;
}

int64_t codec_get_i64(struct codec_in *in)
{
    uint64_t v = codec_get_u64(in, UINT64_MAX);
    return (int64_t)(v >> 1 ^ (v & 1 ? UINT64_MAX : 0));
}

uint64_t codec_get_fixed64(struct codec_in *in)
{
    const uint8_t *p = codec_get_raw(in, 8);
    uint64_t v = 0;
    for (unsigned i = 0; p && i < 8; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

const void *codec_get_bytes(struct codec_in *in, size_t *ret_len)
{
    size_t len = (size_t)codec_get_u64(in, (uint64_t)(in->end - in->at));
    const void *p = codec_get_raw(in, len);
    *ret_len = p ? len : 0;
    return p;
}

void codec_get_text(struct codec_in *in, char *ret, size_t size)
{
    size_t len;
    const char *p = codec_get_bytes(in, &len);
    memset(ret, 0, size); /* whole: rows are compared as they lie */
    if (!p)
        return;
    if (len >= size || memchr(p, 0, len))
        spoil(in);
    else
        memcpy(ret, p, len);
}

int codec_finish(const struct codec_in *in, const char *what, struct err *e)
{
    if (in->newer)
        return err_set(e, ERR_PROTOCOL, "%s was written by a newer carillon", what);
    if (in->bad || in->at != in->end)
        return err_set(e, ERR_PROTOCOL, "%s holds what carillon does not write", what);
    return 0;
}

/* --- records ------------------------------------------------------------------------------------------------------- */

/* Fields are reached by offset; memcpy is how C lets one do that without lying about types. */
static uint64_t load_number(const struct codec_field *f, const void *row)
{
    const char *at = (const char *)row + f->offset;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    if (f->type == CODEC_U16)
        return memcpy(&u16, at, sizeof(u16)), u16;
    if (f->type == CODEC_U32)
        return memcpy(&u32, at, sizeof(u32)), u32;
    return memcpy(&u64, at, sizeof(u64)), u64;
}

static void save_number(const struct codec_field *f, void *row, uint64_t v)
{
    char *at = (char *)row + f->offset;
    uint16_t u16 = (uint16_t)v;
    uint32_t u32 = (uint32_t)v;
    if (f->type == CODEC_U16)
        memcpy(at, &u16, sizeof(u16));
    else if (f->type == CODEC_U32)
        memcpy(at, &u32, sizeof(u32));
    else
        memcpy(at, &v, sizeof(v));
}

static void put_bytes_field(struct buf *b, const struct codec_field *f, const void *row)
{
    uint16_t len;
    memcpy(&len, (const char *)row + f->len_offset, sizeof(len));
    assert(len <= f->size);
    if (len == 0)
        return;
    buf_add_char(b, (char)f->tag);
    codec_put_bytes(b, (const char *)row + f->offset, len);
}

static void put_blob_field(struct buf *b, const struct codec_field *f, const void *row)
{
    const char *p;
    size_t len;
    memcpy(&p, (const char *)row + f->offset, sizeof(p));
    memcpy(&len, (const char *)row + f->len_offset, sizeof(len));
    if (!p)
        return;
    buf_add_char(b, (char)f->tag);
    codec_put_bytes(b, p, len);
}

static void put_number_field(struct buf *b, const struct codec_field *f, const void *row)
{
    uint64_t v = load_number(f, row);
    bool is_ms = f->type == CODEC_MS;
    if (is_ms ? (int64_t)v == RECORD_NONE : v == 0)
        return;
    buf_add_char(b, (char)f->tag);
    if (is_ms)
        codec_put_i64(b, (int64_t)v);
    else
        codec_put_u64(b, v);
}

static void put_field(struct buf *b, const struct codec_field *f, const void *row)
{
    const char *at = (const char *)row + f->offset;
    switch (f->type) {
    case CODEC_UID:
        buf_add_char(b, (char)f->tag);
        buf_add(b, at, sizeof(struct uid));
        break;
    case CODEC_U16:
    case CODEC_U32:
    case CODEC_U64:
    case CODEC_MS:
        put_number_field(b, f, row);
        break;
    case CODEC_TEXT:
        if (at[0]) {
            buf_add_char(b, (char)f->tag);
            codec_put_text(b, at);
        }
        break;
    case CODEC_BYTES:
        put_bytes_field(b, f, row);
        break;
    case CODEC_BLOB:
        put_blob_field(b, f, row);
        break;
    }
}

void codec_put_row_of(struct buf *b, const struct codec_table *t, const void *row, enum codec_which which,
                      uint32_t version)
{
    uint8_t last = version < 2 && t->last_tag_1 ? t->last_tag_1 : UINT8_MAX;
    for (size_t i = 0; i < t->count && t->fields[i].tag <= last; i++)
        if (which == CODEC_ALL || !t->fields[i].key)
            put_field(b, &t->fields[i], row);
    buf_add_char(b, 0);
}

void codec_put_row(struct buf *b, const struct codec_table *t, const void *row, enum codec_which which)
{
    codec_put_row_of(b, t, row, which, STORE_VERSION);
}

static void set_default(const struct codec_field *f, void *row)
{
    char *at = (char *)row + f->offset;
    if (f->type == CODEC_MS)
        save_number(f, row, (uint64_t)RECORD_NONE);
    else if (f->type == CODEC_BYTES)
        memset((char *)row + f->len_offset, 0, sizeof(uint16_t));
    else
        memset(at, 0, f->size);
    if (f->type == CODEC_BLOB)
        memset((char *)row + f->len_offset, 0, sizeof(size_t));
}

static void get_bytes_field(struct codec_in *in, const struct codec_field *f, void *row)
{
    size_t len;
    const char *p = codec_get_bytes(in, &len);
    uint16_t len16 = (uint16_t)len;
    if (len > f->size) {
        spoil(in);
        return;
    }
    if (p)
        memcpy((char *)row + f->offset, p, len);
    memcpy((char *)row + f->len_offset, &len16, sizeof(len16));
}

static void get_blob_field(struct codec_in *in, const struct codec_field *f, void *row)
{
    size_t len;
    const void *p = codec_get_bytes(in, &len);
    memcpy((char *)row + f->offset, &p, sizeof(p));
    memcpy((char *)row + f->len_offset, &len, sizeof(len));
}

static void get_field(struct codec_in *in, const struct codec_field *f, void *row)
{
    const void *p;
    switch (f->type) {
    case CODEC_UID:
        p = codec_get_raw(in, sizeof(struct uid));
        if (p)
            memcpy((char *)row + f->offset, p, sizeof(struct uid));
        break;
    case CODEC_U16:
    case CODEC_U32:
    case CODEC_U64:
        save_number(f, row, codec_get_u64(in, f->max));
        break;
    case CODEC_MS:
        save_number(f, row, (uint64_t)codec_get_i64(in));
        break;
    case CODEC_TEXT:
        codec_get_text(in, (char *)row + f->offset, f->size);
        break;
    case CODEC_BYTES:
        get_bytes_field(in, f, row);
        break;
    case CODEC_BLOB:
        get_blob_field(in, f, row);
        break;
    }
}

static uint8_t get_tag(struct codec_in *in)
{
    const uint8_t *p = codec_get_raw(in, 1);
    return p ? *p : 0;
}

void codec_get_row(struct codec_in *in, const struct codec_table *t, void *row, enum codec_which which)
{
    uint8_t tag = get_tag(in);
    for (size_t i = 0; i < t->count; i++) {
        const struct codec_field *f = &t->fields[i];
        if (which == CODEC_BODY && f->key)
            continue;
        if (tag == f->tag) {
            get_field(in, f, row);
            tag = get_tag(in);
        } else {
            set_default(f, row);
        }
    }
    if (tag != 0) {
        in->newer = !in->bad && tag > t->fields[t->count - 1].tag;
        spoil(in);
    }
}
