#include <criterion/criterion.h>

#include <string.h>

#include "agent/store/raft/codec.h"
#include "agent/store/store_sql.h"
#include "tests/lib/seed.h"

static const uint64_t numbers[] = {
    0,         1, 127, 128, 16383, 16384, UINT32_MAX, (uint64_t)1 << 62, INT64_MAX, (uint64_t)INT64_MAX + 1,
    UINT64_MAX};
#define NUMBERS (sizeof(numbers) / sizeof(numbers[0]))

Test(codec, numbers_read_back)
{
    struct buf b = BUF_INIT(1000);
    for (size_t i = 0; i < NUMBERS; i++) {
        codec_put_u64(&b, numbers[i]);
        codec_put_i64(&b, (int64_t)numbers[i]);
        codec_put_fixed64(&b, numbers[i]);
    }
    struct codec_in in = codec_in(b.data, b.len);
    for (size_t i = 0; i < NUMBERS; i++) {
        cr_assert_eq(codec_get_u64(&in, UINT64_MAX), numbers[i]);
        cr_assert_eq(codec_get_i64(&in), (int64_t)numbers[i]);
        cr_assert_eq(codec_get_fixed64(&in), numbers[i]);
    }
    cr_assert_eq(codec_finish(&in, "it", NULL), 0);
    buf_fini(&b);
}

Test(codec, a_number_has_one_form_and_a_limit)
{
    static const struct {
        const char *bytes;
        size_t len;
        uint64_t max;
    } bad[] = {{"", 0, UINT64_MAX},
               {"\x80", 1, UINT64_MAX},
               {"\x80\x00", 2, UINT64_MAX},
               {"\x05", 1, 4},
               {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, UINT64_MAX},
               {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11, UINT64_MAX}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct codec_in in = codec_in(bad[i].bytes, bad[i].len);
        cr_assert_eq(codec_get_u64(&in, bad[i].max), 0);
        cr_assert(in.bad, "%zu", i);
        cr_assert_eq(codec_finish(&in, "it", NULL), -ERR_PROTOCOL);
    }
}

Test(codec, a_text_fits_its_array_or_is_refused)
{
    char text[4];
    struct codec_in in = codec_in("\x03"
                                  "abc"
                                  "\x04"
                                  "abcd",
                                  9);
    codec_get_text(&in, text, sizeof(text));
    cr_assert_str_eq(text, "abc");
    codec_get_text(&in, text, sizeof(text));
    cr_assert(in.bad);
    in = codec_in("\x02"
                  "a\0",
                  3);
    codec_get_text(&in, text, sizeof(text));
    cr_assert(in.bad);
}

static const struct codec_field *field_at(const struct codec_table *t, size_t offset)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->fields[i].offset == offset)
            return &t->fields[i];
    return NULL;
}

/* What the other store keeps this one must keep too. */
static void check_covers(const struct codec_table *codec, const struct sql_table *sql)
{
    static const enum codec_type types[] = {
        [SQL_UID] = CODEC_UID,   [SQL_U16] = CODEC_U16,     [SQL_U32] = CODEC_U32,
        [SQL_U64] = CODEC_U64,   [SQL_MS] = CODEC_MS,       [SQL_ASCII] = CODEC_TEXT,
        [SQL_TEXT] = CODEC_TEXT, [SQL_BYTES] = CODEC_BYTES, [SQL_BLOB] = CODEC_BLOB};
    for (size_t i = 0; i < sql->count; i++) {
        const struct sql_column *c = &sql->columns[i];
        const struct codec_field *f = field_at(codec, c->offset);
        cr_assert(f, "add a field for %s.%s to agent/store/raft/codec.c", sql->name, c->name);
        cr_assert_eq(f->type, types[c->type], "%s.%s", sql->name, c->name);
        cr_assert_eq(f->size, c->size, "%s.%s", sql->name, c->name);
        cr_assert_eq(f->len_offset, c->len_offset, "%s.%s", sql->name, c->name);
    }
}

Test(codec, every_column_of_the_other_store_is_a_field)
{
    check_covers(codec_job(), sql_jobs());
    check_covers(codec_fire(), sql_fires());
}

Test(codec, tags_ascend_and_fit_a_byte)
{
    const struct codec_table *tables[] = {codec_job(), codec_fire(), codec_revision(), codec_member()};
    for (size_t t = 0; t < 4; t++)
        for (size_t i = 0; i < tables[t]->count; i++)
            cr_assert_eq(tables[t]->fields[i].tag, i + 1, "%s, field %zu", tables[t]->name, i);
}

/* Fill ROW with anything that its fields may hold. */
static void fill(struct rng *rng, const struct codec_table *t, void *row, char *blob)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct codec_field *f = &t->fields[i];
        char *at = (char *)row + f->offset;
        uint64_t v = rng_u64(rng) >> rng_below(rng, 64);
        size_t len = rng_below(rng, f->type == CODEC_TEXT ? f->size : f->size + 1);
        uint16_t len16 = (uint16_t)len;
        if (rng_below(rng, 4) == 0)
            v = len = len16 = 0;
        if (f->max && v > f->max)
            v = v % (f->max + 1);
        switch (f->type) {
        case CODEC_UID:
        case CODEC_U16:
        case CODEC_U32:
        case CODEC_U64:
        case CODEC_MS:
            memcpy(at, &v, f->size < 8 ? f->size : 8); /* little endian */
            break;
        case CODEC_TEXT:
            memset(at, 'a' + (int)rng_below(rng, 26), len);
            break;
        case CODEC_BYTES:
            memset(at, (int)rng_below(rng, 256), len);
            memcpy((char *)row + f->len_offset, &len16, sizeof(len16));
            break;
        case CODEC_BLOB:
            len = rng_below(rng, 9);
            blob = rng_below(rng, 2) ? blob : NULL;
            len = blob ? len : 0;
            memcpy(at, &blob, sizeof(blob));
            memcpy((char *)row + f->len_offset, &len, sizeof(len));
            break;
        }
    }
}

Test(codec, any_row_reads_back)
{
    struct rng rng;
    struct buf b = BUF_INIT(100000);
    char blob[] = "\0blob\xff..";
    seed_rng(&rng, "codec");
    for (unsigned i = 0; i < 2000; i++) {
        struct job_row job = {0}, job_back;
        struct fire_row fire = {0}, fire_back;
        fill(&rng, codec_job(), &job, NULL);
        fill(&rng, codec_fire(), &fire, blob);
        buf_reset(&b);
        codec_put_row(&b, codec_job(), &job, CODEC_ALL);
        codec_put_row(&b, codec_fire(), &fire, CODEC_ALL);
        struct codec_in in = codec_in(b.data, b.len);
        codec_get_row(&in, codec_job(), &job_back, CODEC_ALL);
        codec_get_row(&in, codec_fire(), &fire_back, CODEC_ALL);
        cr_assert_eq(codec_finish(&in, "it", NULL), 0);
        cr_assert(sql_rows_equal(sql_jobs(), &job, &job_back));
        cr_assert(sql_rows_equal(sql_fires(), &fire, &fire_back));
        cr_assert(memcmp(&job.uid, &job_back.uid, 16) == 0 && strcmp(job.id, job_back.id) == 0);
        cr_assert(fire.seq == fire_back.seq && fire.payload_bytes == fire_back.payload_bytes);
        cr_assert_eq(!fire.payload, !fire_back.payload);
    }
    buf_fini(&b);
}

/* Bytes of a row for who knows VERSION. */
static size_t put_of(struct buf *b, const struct fire_row *row, uint32_t version)
{
    buf_reset(b);
    codec_put_row_of(b, codec_fire(), row, CODEC_ALL, version);
    return b->len;
}

Test(codec, who_knows_version_1_gets_no_field_of_version_2)
{
    struct buf b = BUF_INIT(10000), old = BUF_INIT(10000);
    char trace[] = "00-1-2";
    struct fire_row row = {.seq = 7, .last_error = "x"}, back;
    row.due_ms = row.wake_ms = RECORD_NONE;
    size_t without = put_of(&old, &row, 1);
    row.trace = trace;
    row.trace_bytes = sizeof(trace) - 1;
    cr_assert_eq(put_of(&b, &row, 1), without);
    cr_assert_eq(memcmp(b.data, old.data, without), 0); /* to the byte what version 1 wrote */
    cr_assert_gt(put_of(&b, &row, 2), without);
    struct codec_in in = codec_in(b.data, b.len);
    codec_get_row(&in, codec_fire(), &back, CODEC_ALL);
    cr_assert_eq(codec_finish(&in, "it", NULL), 0);
    cr_assert(back.trace_bytes == row.trace_bytes && memcmp(back.trace, trace, back.trace_bytes) == 0);
    buf_fini(&b);
    buf_fini(&old);
}

Test(codec, a_field_of_a_newer_one_is_told_as_such)
{
    struct job_row job;
    struct err e = {0};
    struct codec_in in = codec_in("\xf0\x01\x00", 3);
    codec_get_row(&in, codec_job(), &job, CODEC_ALL);
    cr_assert_eq(codec_finish(&in, "the row", &e), -ERR_PROTOCOL);
    cr_assert(strstr(e.text, "newer"), "%s", e.text);
    in = codec_in("\x06\x01\x05\x01\x00", 5); /* not in order */
    codec_get_row(&in, codec_job(), &job, CODEC_ALL);
    cr_assert_eq(codec_finish(&in, "the row", &e), -ERR_PROTOCOL);
    cr_assert(!strstr(e.text, "newer"), "%s", e.text);
}
