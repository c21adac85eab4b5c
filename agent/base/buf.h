/* Bytes that grow up to a ceiling. Appending never fails visibly: the first append that does not fit, or finds no
 * memory, puts the buffer into a failed state in which all further appends do nothing; look once, at the end, with
 * buf_check(). The content before the failed append stays. One thread at a time. */
#ifndef CARILLON_BASE_BUF_H
#define CARILLON_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

/* Read data and len freely (through buf_data/buf_str when it may be empty); change neither. */
struct buf {
    char *data;          /* NULL while nothing was appended; data[len] is always NUL otherwise */
    size_t len;          /* bytes held */
    size_t start_;       /* bytes consumed in front of data */
    size_t cap_;         /* bytes of the allocation, from its beginning */
    size_t max_bytes;    /* ceiling for len */
    enum err_code fail_; /* ERR_OK, ERR_TOO_BIG or ERR_NOMEM, sticky */
    bool or_die_;        /* without memory the process ends */
};

/* Empty buffer in caller's storage; allocates nothing. MAX_BYTES at most MEM_TRY_MAX_BYTES / 2. */
void buf_init(struct buf *b, size_t max_bytes);
/* The same as an initialiser: struct buf b = BUF_INIT(4096); */
#define BUF_INIT(max) ((struct buf){.max_bytes = (max)})
/* One that never meets ERR_NOMEM: without memory the process ends, as with mem_new. For what cannot be left undone. */
#define BUF_INIT_OR_DIE(max) ((struct buf){.max_bytes = (max), .or_die_ = true})
/* Free the content; the buffer is then empty and usable, with the same ceiling. */
void buf_fini(struct buf *b);
static inline void buf_fini_auto_(struct buf *b) /* for AUTO(buf_fini) struct buf b = BUF_INIT(n); */
{
    buf_fini(b);
}

void buf_add(struct buf *b, const void *data, size_t len);
void buf_add_str(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_add_u64(struct buf *b, uint64_t v); /* decimal */
void buf_add_i64(struct buf *b, int64_t v);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_addfv(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

/* Room for at least LEN (> 0) more bytes to be written by the caller (read(), codecs), then buf_commit() with what was
 * written. NULL when it does not fit; the buffer is then failed. */
char *buf_reserve(struct buf *b, size_t len);
void buf_commit(struct buf *b, size_t len);

/* 0, or -ERR_TOO_BIG / -ERR_NOMEM when an append was lost. */
int buf_check(const struct buf *b, struct err *e);
static inline bool buf_failed(const struct buf *b)
{
    return b->fail_ != ERR_OK;
}

/* As if an append had been lost, if one of FROM's was: for what is put together in FROM and appended then. */
void buf_fail_with(struct buf *b, const struct buf *from);

/* Content as a NUL-terminated string, "" when empty; valid until the next change. */
static inline const char *buf_str(const struct buf *b)
{
    return b->data ? b->data : "";
}

/* Drop LEN (<= b->len) bytes from the front; amortised constant. */
void buf_consume(struct buf *b, size_t len);
/* Cut to LEN (<= b->len) bytes. Does not clear a failure. */
void buf_truncate(struct buf *b, size_t len);
/* Empty it, clear the failure, keep the memory. */
void buf_reset(struct buf *b);
/* Hand out the content, NUL-terminated, for mem_free(); the buffer is then empty. NULL with an error when failed
 * (ERR_TOO_BIG, ERR_NOMEM; the content stays) or without memory for an empty string. RET_LEN may be NULL. */
char *buf_steal(struct buf *b, size_t *ret_len, struct err *e);

#endif
