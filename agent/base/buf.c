#include "agent/base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void buf_init(struct buf *b, size_t max_bytes)
{
    assert(max_bytes <= MEM_TRY_MAX_BYTES / 2);
    *b = BUF_INIT(max_bytes);
}

static struct buf empty_as(const struct buf *b)
{
    return (struct buf){.max_bytes = b->max_bytes, .or_die_ = b->or_die_};
}

void buf_fini(struct buf *b)
{
    if (b->data)
        mem_free(b->data - b->start_);
    *b = empty_as(b);
}

/* Move the content to the beginning of its allocation. */
static void close_gap(struct buf *b)
{
    if (b->start_ == 0)
        return;
    char *base = b->data - b->start_;
    memmove(base, b->data, b->len + 1);
    b->data = base;
    b->start_ = 0;
}

void buf_fail_with(struct buf *b, const struct buf *from)
{
    if (b->fail_ == ERR_OK)
        b->fail_ = from->fail_;
}

static void grow(struct buf *b, size_t need)
{
    size_t cap = b->cap_ < 64 ? 64 : b->cap_ * 2;
    if (cap < need)
        cap = need;
    if (cap > b->max_bytes + 1) /* need itself is never over it */
        cap = b->max_bytes + 1;
    struct err e = {0};
    char *data = b->or_die_ ? mem_realloc_or_die(b->data, cap) : mem_try_realloc(b->data, cap, 1, &e);
    if (!data) {
        b->fail_ = e.code;
        return;
    }
    b->data = data;
    b->cap_ = cap;
}

char *buf_reserve(struct buf *b, size_t len)
{
    assert(len > 0);
    if (b->fail_ != ERR_OK)
        return NULL;
    if (len > b->max_bytes - b->len) {
        b->fail_ = ERR_TOO_BIG;
        return NULL;
    }
    size_t need = b->len + len + 1;
    if (b->start_ + need > b->cap_) {
        /* Moving a content no longer than the gap is paid for by what was consumed; a longer one moves only together
         * with a growth, which copies anyway. Either way an append stays amortised constant. */
        bool fits = need <= b->cap_ && b->start_ >= b->len;
        if (b->data)
            close_gap(b);
        if (!fits)
            grow(b, need);
    }
    return b->fail_ == ERR_OK ? b->data + b->len : NULL;
}

void buf_commit(struct buf *b, size_t len)
{
    if (!b->data) {
        assert(len == 0);
        return;
    }
    assert(b->start_ + b->len + len < b->cap_);
    b->len += len;
    b->data[b->len] = '\0';
}

/* Nearly every append: what follows then needs no more than a copy. */
static bool fits_as_it_is(const struct buf *b, size_t len)
{
    return b->data && b->fail_ == ERR_OK && len <= b->max_bytes - b->len &&
           len < b->cap_ - b->start_ - b->len;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (fits_as_it_is(b, len)) {
        memcpy(b->data + b->len, data, len);
        b->len += len;
        b->data[b->len] = '\0';
        return;
    }
    char *at = buf_reserve(b, len);
    if (!at)
        return;
    memcpy(at, data, len);
    buf_commit(b, len);
}

void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_add_char(struct buf *b, char c)
{
    if (fits_as_it_is(b, 1)) {
        b->data[b->len++] = c;
        b->data[b->len] = '\0';
        return;
    }
    buf_add(b, &c, 1);
}

void buf_add_u64(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof(digits);
    do
        digits[--at] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    buf_add(b, digits + at, sizeof(digits) - at);
}

void buf_add_i64(struct buf *b, int64_t v)
{
    if (v >= 0) {
        buf_add_u64(b, (uint64_t)v);
        return;
    }
    char text[24];
    int n = snprintf(text, sizeof(text), "%lld", (long long)v);
    buf_add(b, text, (size_t)n); /* at once: a '-' whose digits did not fit would be another number */
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_addfv(b, fmt, ap);
    va_end(ap);
}

void buf_addfv(struct buf *b, const char *fmt, va_list ap)
{
    char small[256];
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof(small), fmt, ap);
    assert(n >= 0); /* only broken formats fail, and those are ours */
    if ((size_t)n < sizeof(small)) {
        buf_add(b, small, (size_t)n);
    } else {
        char *at = buf_reserve(b, (size_t)n);
        if (at) {
            (void)vsnprintf(at, (size_t)n + 1, fmt, again); /* measured above */
            buf_commit(b, (size_t)n);
        }
    }
    va_end(again);
}

int buf_check(const struct buf *b, struct err *e)
{
    if (b->fail_ == ERR_OK)
        return 0;
    if (b->fail_ == ERR_TOO_BIG)
        return err_set(e, ERR_TOO_BIG, "more than %zu bytes", b->max_bytes);
    return err_set(e, b->fail_, "no memory beyond %zu bytes", b->len);
}

void buf_consume(struct buf *b, size_t len)
{
    assert(len <= b->len);
    if (len == 0)
        return;
    b->data += len;
    b->start_ += len;
    b->len -= len;
    if (b->len == 0)
        close_gap(b);
}

void buf_truncate(struct buf *b, size_t len)
{
    assert(len <= b->len);
    b->len = len;
    if (b->data)
        b->data[len] = '\0';
}

void buf_reset(struct buf *b)
{
    if (b->data) {
        b->len = 0;
        b->data[0] = '\0';
        close_gap(b);
    }
    b->fail_ = ERR_OK;
}

char *buf_steal(struct buf *b, size_t *ret_len, struct err *e)
{
    if (buf_check(b, e) < 0)
        return NULL;
    if (b->data)
        close_gap(b);
    char *data = b->data ? b->data : b->or_die_ ? mem_strdup("") : mem_try_strndup("", 0, e);
    if (!data)
        return NULL;
    if (ret_len)
        *ret_len = b->len;
    *b = empty_as(b);
    return data;
}
