/* UTF-8, hex, base64 and percent encoding of text.h. */
#include "agent/base/text.h"

#include <assert.h>
#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

/* --- UTF-8 (RFC 3629; the table of well-formed sequences is Unicode's 3-7) ----------------------------------------- */

/* Length of the well-formed sequence at S, 0 when there is none. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    unsigned char lead = s[0], low = 0x80, high = 0xBF;
    size_t n;
    if (lead < 0x80)
        return 1;
    if (lead >= 0xC2 && lead <= 0xDF) {
        n = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        n = 3;
        low = lead == 0xE0 ? 0xA0 : low;
        high = lead == 0xED ? 0x9F : high;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        n = 4;
        low = lead == 0xF0 ? 0x90 : low;
        high = lead == 0xF4 ? 0x8F : high;
    } else {
        return 0;
    }
    if (len < n || s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

bool text_utf8_valid(const char *s, size_t len)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        if (len - i >= sizeof(eight)) {
            memcpy(&eight, u + i, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(eight);
                continue;
            }
        }
        size_t n = utf8_sequence(u + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

size_t text_utf8_cut(const char *s, size_t len, size_t max)
{
    if (len <= max)
        return len;
    while (max > 0 && ((unsigned char)s[max] & 0xC0) == 0x80)
        max--;
    return max;
}

/* --- hex --------------------------------------------------------------------------------------------------------- */

void text_hex_encode(const void *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *in = data;
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[2 * len] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int text_hex_decode(const char *s, size_t len, void *out, size_t out_len, struct err *e)
{
    if (len % 2 != 0 || len / 2 != out_len)
        return err_set(e, ERR_INVALID, "%zu hex digits where %zu are needed", len, 2 * out_len);
    unsigned char *bytes = out;
    for (size_t i = 0; i < out_len; i++) {
        int high = hex_value(s[2 * i]), low = hex_value(s[2 * i + 1]);
        if (high < 0 || low < 0)
            return err_set(e, ERR_INVALID, "'%s' is not hexadecimal", TEXTQ(s, len));
        bytes[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

/* --- base64 ------------------------------------------------------------------------------------------------------ */

void text_base64_encode(struct buf *out, const void *data, size_t len)
{
    assert(len <= MEM_TRY_MAX_BYTES);
    size_t need = (len + 2) / 3 * 4;
    char *at = need ? buf_reserve(out, need) : NULL;
    if (!at)
        return;
    text_base64_encode_to(at, data, len);
    buf_commit(out, need);
}

void text_base64_encode_to(char *at, const void *data, size_t len)
{
    assert(len <= MEM_TRY_MAX_BYTES);
    (void)EVP_EncodeBlock((unsigned char *)at, data, (int)len); /* cannot fail; ends it with a NUL */
}

static bool is_base64(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
              c == '/'))
            return false;
    }
    return true;
}

/* Decode into AT, room for len / 4 * 3. OpenSSL is lenient about white space, padding and left-over bits, so the
 * alphabet is checked before and the last group by encoding it again. */
static bool decode_strict(const char *s, size_t len, char *at, size_t *ret_len)
{
    size_t padding = (s[len - 1] == '=') + (size_t)(s[len - 1] == '=' && s[len - 2] == '=');
    if (!is_base64(s, len - padding) ||
        EVP_DecodeBlock((unsigned char *)at, (const unsigned char *)s, (int)len) != (int)(len / 4 * 3))
        return false;
    unsigned char last[8];
    (void)EVP_EncodeBlock(last, (unsigned char *)at + len / 4 * 3 - 3, (int)(3 - padding)); /* cannot fail */
    *ret_len = len / 4 * 3 - padding;
    return memcmp(last, s + len - 4, 4) == 0;
}

int text_base64_decode_to(char *at, size_t *ret_bytes, const char *s, size_t len, struct err *e)
{
    size_t n = 0;
    if (len > INT_MAX / 2)
        return err_set(e, ERR_TOO_BIG, "%zu bytes of base64", len);
    if (len > 0 && (len % 4 != 0 || !decode_strict(s, len, at, &n)))
        return err_set(e, ERR_INVALID, "'%s' is not base64 with the standard alphabet and padding",
                       TEXTQ(s, len));
    *ret_bytes = n;
    return 0;
}

int text_base64_decode(struct buf *out, const char *s, size_t len, struct err *e)
{
    if (len > INT_MAX / 2)
        return err_set(e, ERR_TOO_BIG, "%zu bytes of base64", len);
    if (len == 0)
        return 0;
    /* Room for what is left, so that padding does not count against a ceiling that the content just meets. */
    AUTO(mem_free) char *tmp = mem_try_alloc(len / 4 * 3 + 1, e);
    if (!tmp)
        return err_wrap(e, "decode base64");
    size_t n, before = out->len;
    int rc = text_base64_decode_to(tmp, &n, s, len, e);
    if (rc < 0)
        return rc;
    buf_add(out, tmp, n);
    if (buf_failed(out))
        buf_truncate(out, before);
    return buf_check(out, e);
}

/* --- percent encoding (RFC 3986 section 2.1) ---------------------------------------------------------------------- */

static bool is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void text_percent_encode(struct buf *out, const char *s, size_t len)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (is_unreserved(s[i]))
            buf_add_char(out, s[i]);
        else
            buf_add(out, (char[]){'%', digits[c >> 4], digits[c & 15]}, 3);
    }
}

/* The byte that the escape at S (its '%') stands for; -1 when it is broken or NUL. */
static int escaped_byte(const char *s, size_t len)
{
    int high = len >= 3 ? hex_value(s[1]) : -1, low = len >= 3 ? hex_value(s[2]) : -1;
    if (high < 0 || low < 0 || (high | low) == 0)
        return -1;
    return high << 4 | low;
}

int text_percent_decode(struct buf *out, const char *s, size_t len, bool plus_is_space, struct err *e)
{
    size_t before = out->len;
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)s[i];
        if (c == '%') {
            c = escaped_byte(s + i, len - i);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c <= 0) {
            buf_truncate(out, before);
            return err_set(e, ERR_INVALID, "'%s' has a broken escape or a NUL", TEXTQ(s, len));
        }
        buf_add_char(out, (char)c);
    }
    if (buf_failed(out))
        buf_truncate(out, before);
    return buf_check(out, e);
}
