#define _GNU_SOURCE
#include "agent/base/text.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *text_quote(char buf[TEXTQ_SIZE], const char *s, size_t len)
{
    bool valid = text_utf8_valid(s, len > 4 * TEXTQ_MAX ? text_utf8_cut(s, len, 4 * TEXTQ_MAX) : len);
    size_t n = len <= TEXTQ_MAX ? len : valid ? text_utf8_cut(s, len, TEXTQ_MAX) : TEXTQ_MAX;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        buf[i] = c < 0x20 || c == 0x7f || (c >= 0x80 && !valid) ? '?' : (char)c;
    }
    memcpy(buf + n, n < len ? "…" : "", n < len ? sizeof("…") : 1);
    return buf;
}

/* --- numbers ----------------------------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits without superfluous zeros. */
static bool parse_digits(const char *s, size_t len, uint64_t *ret)
{
    if (len == 0 || len > 20 || (s[0] == '0' && len > 1))
        return false;
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(s[i]) || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v))
            return false;
    }
    *ret = v;
    return true;
}

int text_u64(const char *s, size_t len, uint64_t min, uint64_t max, uint64_t *ret, struct err *e)
{
    uint64_t v;
    if (!parse_digits(s, len, &v) || v < min || v > max)
        return err_set(e, ERR_INVALID, "'%s' is no whole number from %" PRIu64 " to %" PRIu64, TEXTQ(s, len),
                       min, max);
    *ret = v;
    return 0;
}

int text_u32(const char *s, size_t len, uint32_t min, uint32_t max, uint32_t *ret, struct err *e)
{
    uint64_t v;
    int r = text_u64(s, len, min, max, &v, e);
    if (r < 0)
        return r;
    *ret = (uint32_t)v;
    return 0;
}

int text_i64(const char *s, size_t len, int64_t min, int64_t max, int64_t *ret, struct err *e)
{
    bool negative = len > 0 && s[0] == '-';
    uint64_t limit = (uint64_t)INT64_MAX + negative, u = 0;
    bool ok = parse_digits(s + negative, len - negative, &u) && u <= limit && !(negative && u == 0);
    int64_t v = negative ? (int64_t)(0 - u) : (int64_t)u;
    if (!ok || v < min || v > max)
        return err_set(e, ERR_INVALID, "'%s' is no whole number from %" PRId64 " to %" PRId64, TEXTQ(s, len),
                       min, max);
    *ret = v;
    return 0;
}

static size_t skip_digits(const char *s, size_t len, size_t at)
{
    while (at < len && is_digit(s[at]))
        at++;
    return at;
}

/* RFC 8259 section 6. */
static bool is_json_number(const char *s, size_t len)
{
    size_t at = len > 0 && s[0] == '-';
    size_t end = skip_digits(s, len, at);
    if (end == at || (s[at] == '0' && end > at + 1))
        return false;
    at = end;
    if (at < len && s[at] == '.') {
        end = skip_digits(s, len, at + 1);
        if (end == at + 1)
            return false;
        at = end;
    }
    if (at < len && (s[at] == 'e' || s[at] == 'E')) {
        at++;
        at += at < len && (s[at] == '+' || s[at] == '-');
        end = skip_digits(s, len, at);
        if (end == at)
            return false;
        at = end;
    }
    return at == len;
}

int text_double(const char *s, size_t len, double min, double max, double *ret, struct err *e)
{
    char copy[64];
    double v = NAN;
    if (len < sizeof(copy) && is_json_number(s, len)) {
        memcpy(copy, s, len);
        copy[len] = '\0';
        /* For "C" glibc hands out a static object; strtod itself would follow the process's locale. */
        v = strtod_l(copy, NULL, newlocale(LC_ALL_MASK, "C", (locale_t)0));
    }
    if (!(isfinite(v) && v >= min && v <= max))
        return err_set(e, ERR_INVALID, "'%s' is no number from %g to %g", TEXTQ(s, len), min, max);
    *ret = v;
    return 0;
}

int text_bool(const char *s, size_t len, bool *ret, struct err *e)
{
    bool yes = len == 4 && memcmp(s, "true", 4) == 0;
    if (!yes && !(len == 5 && memcmp(s, "false", 5) == 0))
        return err_set(e, ERR_INVALID, "'%s' is not true or false", TEXTQ(s, len));
    *ret = yes;
    return 0;
}

/* --- sizes ------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned shift;
} size_units[] = {{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}};

int text_size_bytes(const char *s, size_t len, uint64_t *ret_bytes, struct err *e)
{
    size_t digits = skip_digits(s, len, 0);
    unsigned shift = 0;
    bool known = digits == len;
    for (size_t i = 0; i < sizeof(size_units) / sizeof(size_units[0]); i++) {
        if (len - digits == 3 && memcmp(s + digits, size_units[i].name, 3) == 0) {
            shift = size_units[i].shift;
            known = true;
        }
    }
    uint64_t v;
    if (!known || !parse_digits(s, digits, &v) || v > (uint64_t)INT64_MAX >> shift)
        return err_set(e, ERR_INVALID, "'%s' is no size; write bytes, or 64KiB, 1MiB, 2GiB", TEXTQ(s, len));
    *ret_bytes = v << shift;
    return 0;
}

size_t text_size_print(char buf[TEXT_SIZE_SIZE], uint64_t bytes)
{
    const char *unit = "";
    for (size_t i = 0; bytes > 0 && i < sizeof(size_units) / sizeof(size_units[0]); i++) {
        if (bytes % (UINT64_C(1) << size_units[i].shift) == 0) {
            bytes >>= size_units[i].shift;
            unit = size_units[i].name;
            break;
        }
    }
    return (size_t)snprintf(buf, TEXT_SIZE_SIZE, "%" PRIu64 "%s", bytes, unit);
}

/* --- names ------------------------------------------------------------------------------------------------------- */

enum { CH_ID = 1, CH_NAMESPACE = 2, CH_TOKEN = 4, CH_HOST = 8 };

static const unsigned char char_class[256] = {
    ['0' ... '9'] = CH_ID | CH_NAMESPACE | CH_TOKEN | CH_HOST,
    ['a' ... 'z'] = CH_ID | CH_NAMESPACE | CH_TOKEN | CH_HOST,
    ['A' ... 'Z'] = CH_ID | CH_TOKEN | CH_HOST,
    ['-'] = CH_ID | CH_NAMESPACE | CH_TOKEN | CH_HOST,
    ['.'] = CH_ID | CH_TOKEN | CH_HOST,
    ['_'] = CH_ID | CH_TOKEN | CH_HOST,
    ['~'] = CH_ID | CH_TOKEN,
    ['+'] = CH_ID | CH_TOKEN,
    [':'] = CH_ID,
    ['@'] = CH_ID,
    ['!'] = CH_TOKEN,
    ['#'] = CH_TOKEN,
    ['$'] = CH_TOKEN,
    ['%'] = CH_TOKEN,
    ['&'] = CH_TOKEN,
    ['\''] = CH_TOKEN,
    ['*'] = CH_TOKEN,
    ['^'] = CH_TOKEN,
    ['`'] = CH_TOKEN,
    ['|'] = CH_TOKEN,
};

static bool all_of(const char *s, size_t len, unsigned char_set)
{
    for (size_t i = 0; i < len; i++)
        if (!(char_class[(unsigned char)s[i]] & char_set))
            return false;
    return true;
}

int text_check_id(const char *s, size_t len, struct err *e)
{
    if (len < 1 || len > TEXT_ID_MAX || !all_of(s, len, CH_ID))
        return err_set(e, ERR_INVALID, "'%s' is no id: 1 to %d of A-Z a-z 0-9 . _ ~ : @ + -", TEXTQ(s, len),
                       TEXT_ID_MAX);
    return 0;
}

int text_check_namespace(const char *s, size_t len, struct err *e)
{
    if (len < 1 || len > TEXT_NAMESPACE_MAX || !all_of(s, len, CH_NAMESPACE))
        return err_set(e, ERR_INVALID, "'%s' is no namespace: 1 to %d of a-z 0-9 -", TEXTQ(s, len),
                       TEXT_NAMESPACE_MAX);
    return 0;
}

int text_check_header_name(const char *s, size_t len, struct err *e)
{
    if (len < 1 || len > 256 || !all_of(s, len, CH_TOKEN))
        return err_set(e, ERR_INVALID,
                       "'%s' is no header name: 1 to 256 letters, digits and !#$%%&'*+-.^_`|~",
                       TEXTQ(s, len));
    return 0;
}

int text_check_header_value(const char *s, size_t len, struct err *e)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return err_set(e, ERR_INVALID, "a header value has no control characters (0x%02x at byte %zu)", c,
                           i + 1);
    }
    if (len > 0 && (s[0] == ' ' || s[0] == '\t' || s[len - 1] == ' ' || s[len - 1] == '\t'))
        return err_set(e, ERR_INVALID, "a header value neither begins nor ends with a space or tab");
    if (!text_utf8_valid(s, len))
        return err_set(e, ERR_INVALID, "a header value is valid UTF-8");
    return 0;
}

static bool is_ipv6(const char *s, size_t len)
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    if (len >= sizeof(copy) || memchr(s, '\0', len))
        return false;
    memcpy(copy, s, len);
    copy[len] = '\0';
    return inet_pton(AF_INET6, copy, &addr) == 1;
}

int text_host_port(const char *s, size_t len, bool allow_port_0, size_t *ret_host_at, size_t *ret_host_len,
                   uint16_t *ret_port, struct err *e)
{
    const char *colon = len ? memrchr(s, ':', len) : NULL;
    size_t host_at = 0, host_len = colon ? (size_t)(colon - s) : 0;
    bool ok = false;
    if (host_len >= 2 && s[0] == '[' && s[host_len - 1] == ']') {
        host_at = 1;
        host_len -= 2;
        ok = is_ipv6(s + 1, host_len);
    } else {
        ok = host_len >= 1 && host_len <= 253 && all_of(s, host_len, CH_HOST);
    }
    uint64_t port = 0;
    ok = ok && parse_digits(colon + 1, len - (size_t)(colon + 1 - s), &port) && port <= 65535 &&
         (port > 0 || allow_port_0);
    if (!ok)
        return err_set(e, ERR_INVALID, "'%s' is no address: write host:port, or [::1]:port; port %d to 65535",
                       TEXTQ(s, len), allow_port_0 ? 0 : 1);
    if (ret_host_at)
        *ret_host_at = host_at;
    if (ret_host_len)
        *ret_host_len = host_len;
    if (ret_port)
        *ret_port = (uint16_t)port;
    return 0;
}

/* --- comparing --------------------------------------------------------------------------------------------------- */

unsigned text_edit_distance(const char *a, size_t a_len, const char *b, size_t b_len, unsigned max)
{
    enum { CUT = 64 };
    unsigned row[CUT + 1];
    a_len = a_len > CUT ? CUT : a_len;
    b_len = b_len > CUT ? CUT : b_len;
    for (unsigned j = 0; j <= b_len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0], best = i;
        row[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            unsigned above = row[j], cost = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < cost)
                cost = above + 1;
            if (row[j - 1] + 1 < cost)
                cost = row[j - 1] + 1;
            diagonal = above;
            row[j] = cost;
            best = cost < best ? cost : best;
        }
        if (best > max)
            return max + 1;
    }
    return row[b_len] > max ? max + 1 : row[b_len];
}

const char *text_nearest(const char *s, size_t len, const char *const *names)
{
    const char *best = NULL;
    unsigned best_edits = UINT_MAX;
    for (; *names; names++) {
        size_t longer = strlen(*names) > len ? strlen(*names) : len;
        unsigned limit = 1 + (unsigned)(longer > 64 ? 64 : longer) / 4;
        unsigned edits = text_edit_distance(s, len, *names, strlen(*names), limit);
        if (edits <= limit && edits < longer && edits < best_edits) {
            best = *names;
            best_edits = edits;
        }
    }
    return best;
}
