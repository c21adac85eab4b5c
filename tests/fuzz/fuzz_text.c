/* Every reader of text.h on the same bytes; what has a printer must come back the same. */
#include <float.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

static void times(const char *s, size_t len)
{
    uint64_t ms, back;
    int64_t at_ms, at_back;
    char duration[TEXT_DURATION_SIZE], instant[TEXT_INSTANT_SIZE], local[TEXT_LOCAL_SIZE];
    if (text_duration_ms(s, len, &ms, NULL) == 0) {
        size_t n = text_duration_print(duration, ms);
        check(text_duration_ms(duration, n, &back, NULL) == 0 && back == ms);
    }
    if (text_instant_ms(s, len, &at_ms, NULL) == 0) {
        text_instant_print(instant, at_ms);
        check(text_instant_ms(instant, strlen(instant), &at_back, NULL) == 0 && at_back == at_ms);
        (void)text_local_print(local, at_ms, 5400); /* only for its writes */
    }
}

static void numbers(const char *s, size_t len)
{
    uint64_t u, back;
    int64_t i;
    double d;
    char size[TEXT_SIZE_SIZE];
    (void)text_u64(s, len, 0, UINT64_MAX, &u, NULL);
    (void)text_i64(s, len, INT64_MIN, INT64_MAX, &i, NULL);
    (void)text_double(s, len, -DBL_MAX, DBL_MAX, &d, NULL);
    if (text_size_bytes(s, len, &u, NULL) == 0) {
        size_t n = text_size_print(size, u);
        check(text_size_bytes(size, n, &back, NULL) == 0 && back == u);
    }
}

static void encodings(const char *s, size_t len)
{
    AUTO(buf_fini) struct buf bytes = BUF_INIT(1 << 20);
    AUTO(buf_fini) struct buf text = BUF_INIT(4 << 20);
    if (text_base64_decode(&bytes, s, len, NULL) == 0) {
        text_base64_encode(&text, buf_str(&bytes), bytes.len);
        check(text.len == len &&
              memcmp(buf_str(&text), s, len) == 0); /* only the canonical form is accepted */
    }
    buf_reset(&bytes);
    buf_reset(&text);
    if (text_percent_decode(&bytes, s, len, true, NULL) == 0) {
        text_percent_encode(&text, buf_str(&bytes), bytes.len);
        AUTO(buf_fini) struct buf back = BUF_INIT(1 << 20);
        check(text_percent_decode(&back, buf_str(&text), text.len, false, NULL) == 0);
        check(back.len == bytes.len && memcmp(buf_str(&back), buf_str(&bytes), back.len) == 0);
    }
}

static void names(const char *s, size_t len)
{
    struct err e;
    size_t at, host_len;
    uint16_t port;
    (void)text_check_id(s, len, &e);
    (void)text_check_namespace(s, len, &e);
    (void)text_check_header_name(s, len, &e);
    if (text_check_header_value(s, len, &e) == 0)
        check(!memchr(s, '\n', len) && !memchr(s, '\r', len) && !memchr(s, '\0', len));
    else
        check(text_utf8_valid(e.text, strlen(e.text)));
    if (text_host_port(s, len, true, &at, &host_len, &port, &e) == 0)
        check(at + host_len < len);
    else
        check(text_utf8_valid(e.text, strlen(e.text)));
    if (text_utf8_valid(s, len) && len > 0)
        check(text_utf8_valid(s, text_utf8_cut(s, len, len / 2)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *s = (const char *)data;
    numbers(s, size);
    times(s, size);
    encodings(s, size);
    names(s, size);
    return 0;
}
