#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/rng.h"
#include "tests/lib/seed.h"

Test(buf, appends_in_order)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(1000);
    cr_assert(eq(str, (char *)buf_str(&b), ""));
    buf_add_str(&b, "a");
    buf_add_char(&b, 'b');
    buf_add_u64(&b, UINT64_MAX);
    buf_add_char(&b, ' ');
    buf_add_i64(&b, INT64_MIN);
    buf_add_i64(&b, 0);
    buf_addf(&b, "%05d", 42);
    cr_assert(eq(str, (char *)buf_str(&b), "ab18446744073709551615 -9223372036854775808000042"));
    cr_assert(zero(int, buf_check(&b, NULL)));
}

Test(buf, long_formats_are_complete)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(10000);
    buf_addf(&b, "%5000d|", 1);
    cr_assert(eq(sz, b.len, 5001));
    cr_assert(eq(chr, b.data[5000], '|'));
}

Test(buf, the_ceiling_is_reached_and_not_passed)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(3);
    buf_add_str(&b, "abc");
    cr_assert(not(buf_failed(&b)));
    buf_add_char(&b, 'd');
    struct err e;
    cr_assert(eq(int, buf_check(&b, &e), -ERR_TOO_BIG));
    cr_assert(eq(str, (char *)buf_str(&b), "abc"));
}

Test(buf, failure_is_sticky_until_reset)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(3);
    buf_add_str(&b, "toolong");
    buf_add_str(&b, "a");
    cr_assert(eq(sz, b.len, 0));
    cr_assert(buf_failed(&b));
    cr_assert(buf_steal(&b, NULL, NULL) == NULL);
    buf_reset(&b);
    buf_add_str(&b, "a");
    cr_assert(eq(str, (char *)buf_str(&b), "a"));
}

Test(buf, a_negative_number_fits_whole_or_not_at_all)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(3);
    buf_add_i64(&b, -12);
    cr_assert(eq(str, (char *)buf_str(&b), "-12"));
    buf_reset(&b);
    buf_add_i64(&b, -123);
    cr_assert(eq(str, (char *)buf_str(&b), ""));
    cr_assert(buf_failed(&b));
}

Test(buf, steal_hands_out_and_empties)
{
    struct buf b = BUF_INIT(100);
    buf_add_str(&b, "xxabc");
    buf_consume(&b, 2);
    size_t len;
    char *s = buf_steal(&b, &len, NULL);
    cr_assert(eq(str, s, "abc"));
    cr_assert(eq(sz, len, 3));
    mem_free(s);
    s = buf_steal(&b, &len, NULL);
    cr_assert(eq(str, s, ""));
    mem_free(s);
    buf_fini(&b);
}

Test(buf, out_of_memory_keeps_the_content)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(100000);
    buf_add_str(&b, "abc");
    char big[1000] = {0};
    fault_arm(0);
    buf_add(&b, big, sizeof(big));
    cr_assert(fault_fired());
    cr_assert(eq(int, buf_check(&b, NULL), -ERR_NOMEM));
    cr_assert(eq(str, (char *)buf_str(&b), "abc"));
}

enum { MODEL_MAX = 700 };
struct model {
    unsigned char data[MODEL_MAX];
    size_t len;
    bool failed;
};

static void random_add(struct buf *b, struct model *m, struct rng *r)
{
    unsigned char bytes[300];
    size_t n = rng_below(r, rng_below(r, 4) ? 20 : sizeof(bytes));
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)rng_u64(r);
    buf_add(b, bytes, n);
    if (n > MODEL_MAX - m->len)
        m->failed = true;
    if (m->failed)
        return;
    memcpy(m->data + m->len, bytes, n);
    m->len += n;
}

static void random_step(struct buf *b, struct model *m, struct rng *r)
{
    size_t n = rng_below(r, m->len + 1);
    switch (rng_below(r, 20)) {
    case 0:
        buf_reset(b);
        m->len = 0;
        m->failed = false;
        break;
    case 1:
        buf_truncate(b, n);
        m->len = n;
        break;
    case 2:
        buf_fini(b);
        m->len = 0;
        m->failed = false;
        break;
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        buf_consume(b, n);
        memmove(m->data, m->data + n, m->len - n);
        m->len -= n;
        break;
    default:
        random_add(b, m, r);
    }
}

Test(buf, behaves_like_a_plain_array)
{
    struct rng r;
    (void)seed_rng(&r, "buf");
    struct buf b;
    buf_init(&b, MODEL_MAX);
    static struct model m;
    for (int i = 0; i < 200000; i++) {
        random_step(&b, &m, &r);
        cr_assert(eq(sz, b.len, m.len));
        cr_assert(eq(int, buf_failed(&b), m.failed));
        cr_assert(zero(int, memcmp(buf_str(&b), m.data, m.len)));
        cr_assert(b.data == NULL || b.data[b.len] == '\0');
    }
    buf_fini(&b);
}

Test(buf, a_queue_of_bytes_does_not_grow)
{
    AUTO(buf_fini) struct buf b = BUF_INIT(4096);
    for (int i = 0; i < 1000000; i++) {
        buf_add_str(&b, "0123456789");
        if (b.len > 200)
            buf_consume(&b, 10);
    }
    cr_assert(not(buf_failed(&b)));
    cr_assert(lt(sz, b.cap_, 2048));
}

Test(buf, what_was_put_together_with_a_loss_fails_where_it_is_appended)
{
    AUTO(buf_fini) struct buf part = BUF_INIT(4), whole = BUF_INIT(100);
    buf_add_str(&part, "abc");
    buf_fail_with(&whole, &part);
    cr_assert(not(buf_failed(&whole)));
    buf_add_str(&part, "de");
    buf_fail_with(&whole, &part);
    buf_add_str(&whole, "x");
    cr_assert(eq(int, buf_check(&whole, NULL), -ERR_TOO_BIG));
    cr_assert(eq(str, (char *)buf_str(&whole), ""));
}
