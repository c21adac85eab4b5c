#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "tests/lib/seed.h"

#define S(text) text, sizeof(text) - 1

/* Every code point, and every two-byte text, against a decoder that works by value instead of by table. */
static bool slow_valid(const unsigned char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned lead = s[i], n = lead < 0x80       ? 1
                                  : lead >> 5 == 6  ? 2
                                  : lead >> 4 == 14 ? 3
                                  : lead >> 3 == 30 ? 4
                                                    : 0;
        if (n == 0 || i + n > len)
            return false;
        unsigned v = n == 1 ? lead : lead & (0x7fu >> n);
        for (unsigned k = 1; k < n; k++) {
            if (s[i + k] >> 6 != 2)
                return false;
            v = v << 6 | (s[i + k] & 0x3fu);
        }
        static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
        if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
            return false;
        i += n;
    }
    return true;
}

Test(text_encode, utf8_agrees_with_a_decoder)
{
    struct rng r;
    (void)seed_rng(&r, "text_encode");
    static const unsigned char interesting[] = {0x00, 'a',  0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                                0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                                0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    unsigned valid = 0;
    for (int i = 0; i < 2000000; i++) {
        unsigned char s[20];
        size_t len = rng_below(&r, i % 2 ? 5 : sizeof(s));
        for (size_t k = 0; k < len; k++)
            s[k] = interesting[rng_below(&r, i % 4 ? sizeof(interesting) : 3)];
        bool expected = slow_valid(s, len);
        valid += expected;
        cr_assert(eq(int, text_utf8_valid((char *)s, len), expected));
    }
    cr_assert(gt(uint, valid, 10000));
}

Test(text_encode, cutting_keeps_characters_whole)
{
    const char *s = "a\xC3\xBC\xE2\x82\xAC";
    cr_assert(eq(sz, text_utf8_cut(s, 6, 6), 6));
    cr_assert(eq(sz, text_utf8_cut(s, 6, 5), 3));
    cr_assert(eq(sz, text_utf8_cut(s, 6, 2), 1));
    cr_assert(eq(sz, text_utf8_cut(s, 6, 0), 0));
}

Test(text_encode, hex_goes_there_and_back)
{
    unsigned char in[] = {0, 1, 0xab, 0xff}, back[4];
    char hex[9];
    text_hex_encode(in, 4, hex);
    cr_assert(eq(str, hex, "0001abff"));
    cr_assert(zero(int, text_hex_decode("0001ABff", 8, back, 4, NULL)));
    cr_assert(zero(int, memcmp(in, back, 4)));
    cr_assert(lt(int, text_hex_decode("0001abf", 7, back, 4, NULL), 0));
    cr_assert(lt(int, text_hex_decode("0001abfg", 8, back, 4, NULL), 0));
    cr_assert(lt(int, text_hex_decode("0001abff", 8, back, 3, NULL), 0));
}

Test(text_encode, base64_goes_there_and_back)
{
    struct rng r;
    (void)seed_rng(&r, "text_encode");
    for (int i = 0; i < 20000; i++) {
        unsigned char in[70];
        size_t len = rng_below(&r, sizeof(in));
        for (size_t k = 0; k < len; k++)
            in[k] = (unsigned char)rng_u64(&r);
        AUTO(buf_fini) struct buf text = BUF_INIT(200);
        AUTO(buf_fini) struct buf back = BUF_INIT(len);
        text_base64_encode(&text, in, len);
        cr_assert(eq(sz, text.len, (len + 2) / 3 * 4));
        cr_assert(zero(int, text_base64_decode(&back, buf_str(&text), text.len, NULL)));
        cr_assert(eq(sz, back.len, len));
        cr_assert(zero(int, memcmp(buf_str(&back), in, len)));
    }
}

Test(text_encode, base64_that_is_not_canonical_is_refused)
{
    static const char *const bad[] = {"A",    "AA",       "AAA",      "AA=A",     "====",  "A===",
                                      "AB==", "AAB=",     " AAA",     "AAA\n",    "AA AA", "AAAA ",
                                      "AA-_", "AAAA=AAA", "AAAA====", "AAAA\nAAA"};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        AUTO(buf_fini) struct buf out = BUF_INIT(100);
        buf_add_str(&out, "kept");
        cr_assert(eq(int, text_base64_decode(&out, bad[k], strlen(bad[k]), NULL), -ERR_INVALID), "%s",
                  bad[k]);
        cr_assert(eq(str, (char *)buf_str(&out), "kept"));
    }
}

Test(text_encode, base64_respects_the_ceiling_and_memory)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(2);
    cr_assert(eq(int, text_base64_decode(&out, "AAAA", 4, NULL), -ERR_TOO_BIG));
    cr_assert(eq(sz, out.len, 0));
    for (unsigned k = 0;; k++) {
        AUTO(buf_fini) struct buf b = BUF_INIT(100);
        fault_arm(k);
        int result = text_base64_decode(&b, "QUJD", 4, NULL);
        if (!fault_fired()) {
            cr_assert(eq(str, (char *)buf_str(&b), "ABC"));
            break;
        }
        cr_assert(eq(int, result, -ERR_NOMEM), "k=%u", k);
        cr_assert(eq(sz, b.len, 0));
    }
}

Test(text_encode, percent_goes_there_and_back)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    text_percent_encode(&out, S("a/b c~\xC3\xBC+"));
    cr_assert(eq(str, (char *)buf_str(&out), "a%2Fb%20c~%C3%BC%2B"));
    AUTO(buf_fini) struct buf back = BUF_INIT(1000);
    cr_assert(zero(int, text_percent_decode(&back, buf_str(&out), out.len, false, NULL)));
    cr_assert(eq(str, (char *)buf_str(&back), "a/b c~\xC3\xBC+"));
}

Test(text_encode, plus_is_a_space_in_queries_only)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(100);
    cr_assert(zero(int, text_percent_decode(&out, S("a+b"), true, NULL)));
    cr_assert(zero(int, text_percent_decode(&out, S("a+b"), false, NULL)));
    cr_assert(eq(str, (char *)buf_str(&out), "a ba+b"));
}

Test(text_encode, broken_escapes_and_nuls_are_refused)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {{S("%")}, {S("%2")}, {S("a%zz")}, {S("%00")}, {S("a\0b")}, {S("%%20")}};
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        AUTO(buf_fini) struct buf out = BUF_INIT(100);
        buf_add_str(&out, "kept");
        cr_assert(eq(int, text_percent_decode(&out, bad[k].text, bad[k].len, true, NULL), -ERR_INVALID), "%s",
                  bad[k].text);
        cr_assert(eq(str, (char *)buf_str(&out), "kept"));
    }
    AUTO(buf_fini) struct buf tiny = BUF_INIT(2);
    cr_assert(eq(int, text_percent_decode(&tiny, S("abc"), false, NULL), -ERR_TOO_BIG));
    cr_assert(eq(sz, tiny.len, 0));
}
