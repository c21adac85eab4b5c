#include "agent/store/store_sql.h"

#include <assert.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/store/store_version.h"

/* Enums are stored as the unsigned number they are. */
_Static_assert(sizeof(enum job_state) == sizeof(uint32_t), "enums are read and written as uint32_t");

#define JOB(field)  offsetof(struct job_row, field), sizeof(((struct job_row *)0)->field)
#define FIRE(field) offsetof(struct fire_row, field), sizeof(((struct fire_row *)0)->field)

static const struct sql_column job_columns[] = {
    {"uid", SQL_UID, true, JOB(uid), 0, 0},
    {"slot", SQL_U16, true, JOB(slot), 0, UINT16_MAX},
    {"ns", SQL_ASCII, true, JOB(ns), 0, 0},
    {"id", SQL_ASCII, true, JOB(id), 0, 0},
    {"created_ms", SQL_MS, true, JOB(created_ms), 0, 0},
    {"rev", SQL_U64, false, JOB(rev), 0, UINT64_MAX},
    {"version", SQL_U64, false, JOB(version), 0, UINT64_MAX},
    {"change_id", SQL_U64, false, JOB(change_id), 0, UINT64_MAX},
    {"state", SQL_U32, false, JOB(state), 0, JOB_STATE_COUNT_ - 1},
    {"due_ms", SQL_MS, false, JOB(due_ms), 0, 0},
    {"wake_ms", SQL_MS, false, JOB(wake_ms), 0, 0},
    {"seq", SQL_U64, false, JOB(counts.seq), 0, UINT64_MAX},
    {"succeeded", SQL_U64, false, JOB(counts.succeeded), 0, UINT64_MAX},
    {"dead", SQL_U64, false, JOB(counts.dead), 0, UINT64_MAX},
    {"skipped", SQL_U64, false, JOB(counts.skipped), 0, UINT64_MAX},
    {"coalesced", SQL_U64, false, JOB(counts.coalesced), 0, UINT64_MAX},
    {"cancelled", SQL_U64, false, JOB(counts.cancelled), 0, UINT64_MAX},
    {"scheduled", SQL_U64, false, JOB(scheduled), 0, UINT64_MAX},
    {"last_seq", SQL_U64, false, JOB(last.seq), 0, UINT64_MAX},
    {"last_due_ms", SQL_MS, false, JOB(last.due_ms), 0, 0},
    {"last_finished_ms", SQL_MS, false, JOB(last.finished_ms), 0, 0},
    {"last_outcome", SQL_U32, false, JOB(last.outcome), 0, FIRE_OUTCOME_COUNT_ - 1},
    {"last_reason", SQL_U32, false, JOB(last.reason), 0, FIRE_REASON_COUNT_ - 1},
    {"last_success_ms", SQL_MS, false, JOB(last_success_ms), 0, 0},
    {"consecutive_failures", SQL_U32, false, JOB(consecutive_failures), 0, UINT32_MAX},
    {"failing_since_ms", SQL_MS, false, JOB(failing_since_ms), 0, 0},
    {"updated_ms", SQL_MS, false, JOB(updated_ms), 0, 0},
    {"backfill_next_ms", SQL_MS, false, JOB(backfill_next_ms), 0, 0},
    {"backfill_until_ms", SQL_MS, false, JOB(backfill_until_ms), 0, 0},
    {"backfill_pending", SQL_U32, false, JOB(backfill_pending), 0, UINT32_MAX},
    {"tzdata", SQL_ASCII, false, JOB(tzdata), 0, 0},
    {"ring", SQL_BYTES, false, JOB(ring), offsetof(struct job_row, ring_bytes), 0},
};

static const struct sql_column fire_columns[] = {
    {"uid", SQL_UID, true, FIRE(uid), 0, 0},
    {"seq", SQL_U64, true, FIRE(seq), 0, UINT64_MAX},
    {"slot", SQL_U16, true, FIRE(slot), 0, UINT16_MAX},
    {"ns", SQL_ASCII, true, FIRE(ns), 0, 0},
    {"id", SQL_ASCII, true, FIRE(id), 0, 0},
    {"kind", SQL_U32, true, FIRE(kind), 0, FIRE_KIND_COUNT_ - 1},
    {"payload", SQL_BLOB, true, FIRE(payload), offsetof(struct fire_row, payload_bytes), 0},
    {"service", SQL_TEXT, false, FIRE(service), 0, 0},
    {"version", SQL_U64, false, FIRE(version), 0, UINT64_MAX},
    {"orphan", SQL_U32, false, FIRE(orphan), 0, 1},
    {"seq_last", SQL_U64, false, FIRE(seq_last), 0, UINT64_MAX},
    {"rev", SQL_U64, false, FIRE(rev), 0, UINT64_MAX},
    {"state", SQL_U32, false, FIRE(state), 0, FIRE_STATE_COUNT_ - 1},
    {"outcome", SQL_U32, false, FIRE(outcome), 0, FIRE_OUTCOME_COUNT_ - 1},
    {"reason", SQL_U32, false, FIRE(reason), 0, FIRE_REASON_COUNT_ - 1},
    {"due_ms", SQL_MS, false, FIRE(due_ms), 0, 0},
    {"due_last_ms", SQL_MS, false, FIRE(due_last_ms), 0, 0},
    {"jitter_ms", SQL_U32, false, FIRE(jitter_ms), 0, UINT32_MAX},
    {"wake_ms", SQL_MS, false, FIRE(wake_ms), 0, 0},
    {"first_ms", SQL_MS, false, FIRE(first_ms), 0, 0},
    {"started_ms", SQL_MS, false, FIRE(started_ms), 0, 0},
    {"finished_ms", SQL_MS, false, FIRE(finished_ms), 0, 0},
    {"attempt_ms", SQL_MS, false, FIRE(attempt_ms), 0, 0},
    {"until_ms", SQL_MS, false, FIRE(until_ms), 0, 0},
    {"attempts", SQL_U32, false, FIRE(attempts), 0, UINT32_MAX},
    {"attempts_before", SQL_U32, false, FIRE(attempts_before), 0, UINT32_MAX},
    {"coalesced", SQL_U32, false, FIRE(coalesced), 0, UINT32_MAX},
    {"holder", SQL_ASCII, false, FIRE(holder), 0, 0},
    {"log", SQL_BLOB, false, FIRE(log), offsetof(struct fire_row, log_bytes), 0},
    {"parts", SQL_BLOB, false, FIRE(parts), offsetof(struct fire_row, parts_bytes), 0},
    {"last_error", SQL_TEXT, false, FIRE(last_error), 0, 0},
#if STORE_VERSION >= 2
    {"trace", SQL_BLOB, true, FIRE(trace), offsetof(struct fire_row, trace_bytes), 0},
#endif
};

#define TABLE(text, list, keys)                                                                           \
    {                                                                                                     \
        .name = (text), .columns = (list), .count = sizeof(list) / sizeof((list)[0]), .key_count = (keys) \
    }

const struct sql_table *sql_jobs(void)
{
    static const struct sql_table table = TABLE("jobs", job_columns, 1);
    return &table;
}

const struct sql_table *sql_fires(void)
{
    static const struct sql_table table = TABLE("fires", fire_columns, 2);
    return &table;
}

void sql_add_hex(struct buf *b, const void *data, size_t len)
{
    char *out = buf_reserve(b, 2 * len + 4);
    if (!out)
        return;
    out[0] = 'x';
    out[1] = '\'';
    text_hex_encode(data, len, out + 2);
    out[2 + 2 * len] = '\'';
    buf_commit(b, 2 * len + 3);
}

void sql_add_ascii(struct buf *b, const char *s)
{
    buf_add_str(b, "_ascii ");
    sql_add_hex(b, s, strlen(s));
    /* Without it an equality with a column is none to the sorter, which then sorts what the index had in order. */
    buf_add_str(b, " COLLATE ascii_bin");
}

void sql_add_utf8(struct buf *b, const char *s, size_t len)
{
    buf_add_str(b, "_utf8mb4 ");
    sql_add_hex(b, s, len);
}

void sql_add_blob(struct buf *b, const void *data, size_t len)
{
    if (data)
        sql_add_hex(b, data, len);
    else
        buf_add_str(b, "NULL");
}

void sql_add_ms(struct buf *b, int64_t ms)
{
    if (ms == RECORD_NONE)
        buf_add_str(b, "NULL");
    else
        buf_add_i64(b, ms);
}

static bool is_in(sql_set set, size_t i)
{
    return set >> i & 1;
}

sql_set sql_all(const struct sql_table *t)
{
    assert(t->count < 64);
    return (UINT64_C(1) << t->count) - 1;
}

sql_set sql_changing(const struct sql_table *t)
{
    sql_set set = 0;
    for (size_t i = 0; i < t->count; i++)
        if (!t->columns[i].fixed)
            set |= UINT64_C(1) << i;
    return set;
}

sql_set sql_short(const struct sql_table *t)
{
    sql_set set = sql_changing(t);
    for (size_t i = 0; i < t->count; i++)
        if (t->columns[i].type == SQL_BLOB)
            set &= ~(UINT64_C(1) << i);
    return set;
}

sql_set sql_keys(const struct sql_table *t)
{
    return (UINT64_C(1) << t->key_count) - 1;
}

void sql_add_names(struct buf *b, const struct sql_table *t, const char *prefix, sql_set which)
{
    for (size_t i = 0; i < t->count; i++) {
        if (!is_in(which, i))
            continue;
        buf_add_str(b, i ? ", " : "");
        buf_add_str(b, prefix);
        buf_add_str(b, prefix[0] ? "." : "");
        buf_add_str(b, t->columns[i].name);
    }
}

/* Fields are reached by offset; memcpy is how C lets one do that without lying about types. */
static uint64_t field_number(const struct sql_column *c, const void *row)
{
    const char *at = (const char *)row + c->offset;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    if (c->type == SQL_U16)
        return memcpy(&u16, at, sizeof(u16)), u16;
    if (c->type == SQL_U32)
        return memcpy(&u32, at, sizeof(u32)), u32;
    return memcpy(&u64, at, sizeof(u64)), u64;
}

static size_t field_length(const struct sql_column *c, const void *row)
{
    uint16_t u16;
    size_t size;
    if (c->type == SQL_BYTES)
        return memcpy(&u16, (const char *)row + c->len_offset, sizeof(u16)), u16;
    return memcpy(&size, (const char *)row + c->len_offset, sizeof(size)), size;
}

static const char *field_blob(const struct sql_column *c, const void *row)
{
    const char *p;
    memcpy(&p, (const char *)row + c->offset, sizeof(p));
    return p;
}

struct sql_value sql_value_of(const struct sql_column *c, const void *row)
{
    const char *at = (const char *)row + c->offset;
    switch (c->type) {
    case SQL_UID:
        return (struct sql_value){.form = SQL_BINARY, .data = at, .len = sizeof(struct uid)};
    case SQL_U16:
    case SQL_U32:
    case SQL_U64:
        return (struct sql_value){.form = SQL_NUMBER, .number = field_number(c, row)};
    case SQL_MS:
        return (struct sql_value){.form = SQL_INSTANT, .ms = (int64_t)field_number(c, row)};
    case SQL_ASCII: /* only stored, never compared: the column says what they are */
    case SQL_TEXT:
        return (struct sql_value){.form = SQL_BINARY, .data = at, .len = strlen(at)};
    case SQL_BYTES:
        return (struct sql_value){.form = SQL_BINARY, .data = at, .len = field_length(c, row)};
    case SQL_BLOB:
        break;
    }
    return (struct sql_value){.form = SQL_BINARY, .data = field_blob(c, row), .len = field_length(c, row)};
}

static void add_value(struct buf *b, const struct sql_column *c, const void *row)
{
    struct sql_value v = sql_value_of(c, row);
    if (v.form == SQL_NUMBER)
        buf_add_u64(b, v.number);
    else if (v.form == SQL_INSTANT)
        sql_add_ms(b, v.ms);
    else
        sql_add_blob(b, v.data, v.len);
}

void sql_add_values(struct buf *b, const struct sql_table *t, const void *row, sql_set which)
{
    for (size_t i = 0; i < t->count; i++) {
        if (!is_in(which, i))
            continue;
        if (i)
            buf_add_char(b, ',');
        add_value(b, &t->columns[i], row);
    }
}

void sql_add_assignments(struct buf *b, const struct sql_table *t, const char *a, const char *from,
                         const void *row, sql_set alike)
{
    bool first = true;
    for (size_t i = 0; i < t->count; i++) {
        const struct sql_column *c = &t->columns[i];
        if (c->fixed)
            continue;
        buf_addf(b, "%s%s.%s = ", first ? "" : ", ", a, c->name);
        if (is_in(alike, i))
            add_value(b, c, row);
        else
            buf_addf(b, "%s.%s", from, c->name);
        first = false;
    }
}

bool sql_get_u64(const char *text, unsigned long len, uint64_t *ret)
{
    return text && text_u64(text, len, 0, UINT64_MAX, ret, NULL) == 0;
}

bool sql_get_ms(const char *text, unsigned long len, int64_t *ret)
{
    if (!text) {
        *ret = RECORD_NONE;
        return true;
    }
    return text_i64(text, len, INT64_MIN + 1, INT64_MAX, ret, NULL) == 0;
}

bool sql_get_text(const char *text, unsigned long len, char *ret, size_t size)
{
    if (!text || len >= size || memchr(text, 0, len))
        return false;
    memcpy(ret, text, len);
    ret[len] = 0;
    return true;
}

static bool read_number(const struct sql_column *c, const char *text, unsigned long len, void *row)
{
    char *at = (char *)row + c->offset;
    uint64_t v;
    if (!sql_get_u64(text, len, &v) || v > c->max)
        return false;
    uint16_t u16 = (uint16_t)v;
    uint32_t u32 = (uint32_t)v;
    if (c->type == SQL_U16)
        memcpy(at, &u16, sizeof(u16));
    else if (c->type == SQL_U32)
        memcpy(at, &u32, sizeof(u32));
    else
        memcpy(at, &v, sizeof(v));
    return true;
}

static bool read_ms(const struct sql_column *c, const char *text, unsigned long len, void *row)
{
    int64_t ms;
    if (!sql_get_ms(text, len, &ms))
        return false;
    memcpy((char *)row + c->offset, &ms, sizeof(ms));
    return true;
}

static bool read_bytes(const struct sql_column *c, const char *text, unsigned long len, void *row)
{
    if (!text || len > c->size)
        return false;
    uint16_t n = (uint16_t)len;
    memcpy((char *)row + c->offset, text, len);
    memcpy((char *)row + c->len_offset, &n, sizeof(n));
    return true;
}

static int read_blob(const struct sql_column *c, const char *text, unsigned long len, void *row,
                     struct err *e)
{
    if (!text)
        return 0;
    char *copy = mem_try_strndup(text, len, e);
    if (!copy)
        return -ERR_NOMEM;
    size_t n = len;
    memcpy((char *)row + c->offset, &copy, sizeof(copy));
    memcpy((char *)row + c->len_offset, &n, sizeof(n));
    return 0;
}

static bool read_value(const struct sql_column *c, const char *text, unsigned long len, void *row)
{
    switch (c->type) {
    case SQL_UID:
        if (text && len == sizeof(struct uid))
            return memcpy((char *)row + c->offset, text, len), true;
        return false;
    case SQL_U16:
    case SQL_U32:
    case SQL_U64:
        return read_number(c, text, len, row);
    case SQL_MS:
        return read_ms(c, text, len, row);
    case SQL_ASCII:
    case SQL_TEXT:
        return sql_get_text(text, len, (char *)row + c->offset, c->size);
    case SQL_BYTES:
        return read_bytes(c, text, len, row);
    case SQL_BLOB:
        break;
    }
    return false;
}

static void free_blobs(const struct sql_table *t, void *row)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->columns[i].type == SQL_BLOB)
            mem_free((void *)field_blob(&t->columns[i], row));
}

static void clear_row(const struct sql_table *t, void *row)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct sql_column *c = &t->columns[i];
        memset((char *)row + c->offset, 0, c->size);
        if (c->len_offset)
            memset((char *)row + c->len_offset, 0, c->type == SQL_BYTES ? sizeof(uint16_t) : sizeof(size_t));
    }
}

int sql_read_row(const struct sql_table *t, char *const *texts, const unsigned long *lengths, void *row,
                 struct err *e)
{
    clear_row(t, row);
    for (size_t i = 0; i < t->count; i++) {
        const struct sql_column *c = &t->columns[i];
        int r = 0;
        if (c->type == SQL_BLOB)
            r = read_blob(c, texts[i], lengths[i], row, e);
        else if (!read_value(c, texts[i], lengths[i], row))
            r = err_set(e, ERR_PERMANENT, "%s.%s holds what this agent cannot read", t->name, c->name);
        if (r < 0) {
            free_blobs(t, row);
            return r;
        }
    }
    return 0;
}

static bool values_equal(const struct sql_column *c, const void *a, const void *b)
{
    const char *x = (const char *)a + c->offset, *y = (const char *)b + c->offset;
    switch (c->type) {
    case SQL_UID:
        return memcmp(x, y, sizeof(struct uid)) == 0;
    case SQL_U16:
    case SQL_U32:
    case SQL_U64:
    case SQL_MS:
        return field_number(c, a) == field_number(c, b);
    case SQL_ASCII:
    case SQL_TEXT:
        return strcmp(x, y) == 0;
    case SQL_BYTES:
        return field_length(c, a) == field_length(c, b) && memcmp(x, y, field_length(c, a)) == 0;
    case SQL_BLOB:
        break;
    }
    const char *p = field_blob(c, a), *q = field_blob(c, b);
    if (!p || !q)
        return p == q;
    return field_length(c, a) == field_length(c, b) && memcmp(p, q, field_length(c, a)) == 0;
}

sql_set sql_alike(const struct sql_table *t, const void *a, const void *b, sql_set among)
{
    for (size_t i = 0; i < t->count; i++)
        if (is_in(among, i) && !values_equal(&t->columns[i], a, b))
            among &= ~(UINT64_C(1) << i);
    return among;
}

bool sql_rows_equal(const struct sql_table *t, const void *a, const void *b)
{
    return sql_alike(t, a, b, sql_changing(t)) == sql_changing(t);
}

static bool is_ascii(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s > 0x7f)
            return false;
    return true;
}

static bool fire_is_ascii(const struct fire_change *c)
{
    return c->op == CHANGE_DELETE || (is_ascii(c->row.holder) && is_ascii(c->row.ns) && is_ascii(c->row.id));
}

bool sql_change_is_ascii(const struct job_change *c)
{
    bool row = c->op == CHANGE_INSERT || c->op == CHANGE_UPDATE || c->op == CHANGE_REPLACE;
    bool name = c->op == CHANGE_INSERT || (c->op != CHANGE_NONE && c->revision.op[0]);
    if ((row && !is_ascii(c->row.tzdata)) || (name && (!is_ascii(c->row.ns) || !is_ascii(c->row.id))))
        return false;
    for (size_t i = 0; i < c->fires_count; i++)
        if (!fire_is_ascii(&c->fires[i]))
            return false;
    return true;
}
