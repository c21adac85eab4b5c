/* Bytes of the log and of snapshots: numbers, texts, and the records of agent/core/record.h by tables of fields. A field has
 * a tag that never changes its meaning; one at its default is left out; new fields get new tags, so old bytes stay readable. A tag
 * that this agent does not know was written by a newer one and is refused. Pure; any thread. */
#ifndef CARILLON_STORE_RAFT_CODEC_H
#define CARILLON_STORE_RAFT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

/* --- writing: appends to a buf, whose ceiling tells of an overflow ------------------------------------------------- */
void codec_put_u64(struct buf *b, uint64_t v);                     /* 7 bits a byte, lowest first */
void codec_put_i64(struct buf *b, int64_t v);                      /* small negative numbers are short too */
void codec_put_bytes(struct buf *b, const void *data, size_t len); /* length, bytes */
void codec_put_text(struct buf *b, const char *s);
void codec_put_fixed64(struct buf *b, uint64_t v); /* 8 bytes, little endian */

/* --- reading: fails once, then everything read is 0 and empty; look at the end ------------------------------------- */
struct codec_in {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;   /* the bytes are not what this program writes */
    bool newer; /* ... but what a newer one may */
};
static inline struct codec_in codec_in(const void *data, size_t len)
{
    const uint8_t *at = data ? data : (const uint8_t *)"";
    return (struct codec_in){.at = at, .end = at + len};
}
uint64_t codec_get_u64(struct codec_in *in, uint64_t max); /* bad when over MAX */
int64_t codec_get_i64(struct codec_in *in);
uint64_t codec_get_fixed64(struct codec_in *in);
/* LEN bytes as they stand, borrowed; NULL (and bad) when there are fewer. */
const void *codec_get_raw(struct codec_in *in, size_t len);
/* What codec_put_bytes wrote, borrowed. */
const void *codec_get_bytes(struct codec_in *in, size_t *ret_len);
/* A text without NUL of less than SIZE bytes, copied; zeros up to SIZE. */
void codec_get_text(struct codec_in *in, char *ret, size_t size);
static inline bool codec_at_end(const struct codec_in *in)
{
    return in->bad || in->at == in->end;
}
/* 0, or -ERR_PROTOCOL: WHAT ("a log entry") cannot be read, also when something is left over. */
int codec_finish(const struct codec_in *in, const char *what, struct err *e);

/* --- records ------------------------------------------------------------------------------------------------------- */
enum codec_type {
    CODEC_UID,
    CODEC_U16,
    CODEC_U32, /* also enums */
    CODEC_U64,
    CODEC_MS,    /* int64_t, default RECORD_NONE */
    CODEC_TEXT,  /* char[size] */
    CODEC_BYTES, /* uint8_t[size], length a uint16_t */
    CODEC_BLOB,  /* char *, length a size_t; default NULL, which differs from empty */
};

struct codec_field {
    uint8_t tag; /* ascending in a table, from 1 */
    enum codec_type type;
    bool key; /* left out by CODEC_BODY: whoever keeps the body keeps it elsewhere */
    size_t offset;
    size_t size;
    size_t len_offset;
    uint64_t max;
};

struct codec_table {
    const char *name;
    const struct codec_field *fields;
    size_t count;
    uint8_t last_tag_1; /* of the last field that version 1 knows; 0: it knows all */
};

const struct codec_table *codec_job(void);      /* struct job_row; key: uid, slot, ns, id */
const struct codec_table *codec_fire(void);     /* struct fire_row; key: uid, slot, seq, ns, id */
const struct codec_table *codec_revision(void); /* struct revision; key: change_id, at_ms */
const struct codec_table *codec_member(void);   /* struct store_member */

enum codec_which { CODEC_ALL, CODEC_BODY };

void codec_put_row(struct buf *b, const struct codec_table *t, const void *row, enum codec_which which);
/* ... without what a reader of VERSION (store_version.h) does not know. */
void codec_put_row_of(struct buf *b, const struct codec_table *t, const void *row, enum codec_which which,
                      uint32_t version);
/* Fill all fields of ROW, those that are absent with their defaults; keys are left alone with CODEC_BODY. Blobs are borrowed. */
void codec_get_row(struct codec_in *in, const struct codec_table *t, void *row, enum codec_which which);

#endif
