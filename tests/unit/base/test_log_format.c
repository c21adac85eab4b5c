#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/log_format.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "tests/lib/seed.h"

static char line[LOG_LINE_MAX + 1];

static const char *format(enum log_format how, const struct log_ctx *ctx, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static const char *format(enum log_format how, const struct log_ctx *ctx, const char *fmt, ...)
{
    char pairs[LOG_LINE_MAX];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(pairs, sizeof(pairs), fmt, ap);
    va_end(ap);
    struct log_line l = {.level = LOG_LEVEL_WARN,
                         .ctx = ctx,
                         .msg = "callback failed",
                         .fmt = fmt,
                         .pairs = pairs,
                         .wall_ms = INT64_C(1795420800000)};
    size_t len = log_format_line(line, how, &l);
    line[len] = '\0';
    return line;
}

Test(log_format, logfmt_has_head_and_pairs)
{
    struct log_ctx ctx = {.module = "callback", .id = "billing"};
    cr_assert(eq(
        str, (char *)format(LOG_FORMAT_LOGFMT, &ctx, " job=%s try=%u", LOGQ("a b"), 3),
        "ts=2026-11-23T08:00:00.000Z level=warn module=callback id=billing msg=\"callback failed\" job=\"a b\" "
        "try=3\n"));
    cr_assert(eq(str, (char *)format(LOG_FORMAT_LOGFMT, NULL, " "),
                 "ts=2026-11-23T08:00:00.000Z level=warn msg=\"callback failed\"\n"));
}

Test(log_format, json_numbers_come_from_the_format_not_from_the_value)
{
    struct log_ctx ctx = {.module = "callback", .id = NULL};
    cr_assert(eq(
        str,
        (char *)format(LOG_FORMAT_JSON, &ctx, " job=%s try=%u took_ms=%.1f n=%" PRIu64, LOGQ("42"), 3, 1.5,
                       UINT64_MAX),
        "{\"ts\":\"2026-11-23T08:00:00.000Z\",\"level\":\"warn\",\"module\":\"callback\",\"msg\":\"callback "
        "failed\",\"job\":\"42\",\"try\":3,\"took_ms\":1.5,\"n\":18446744073709551615}\n"));
}

Test(log_format, outside_values_cannot_forge_pairs_or_lines)
{
    const char *evil = "x level=error\nts=1 \"quoted\" \\ \x01\xff=";
    cr_assert(strstr(format(LOG_FORMAT_LOGFMT, NULL, " id=%s n=%d", LOGQ(evil), 1),
                     " id=\"x level=error\\nts=1 \\\"quoted\\\" \\\\ \\u0001\\u00ff=\" n=1\n") != NULL,
              "%s", line);
    cr_assert(strstr(format(LOG_FORMAT_JSON, NULL, " id=%s n=%d", LOGQ(evil), 1),
                     "\"id\":\"x level=error\\nts=1 \\\"quoted\\\" \\\\ \\u0001\\u00ff=\",\"n\":1}\n") !=
                  NULL,
              "%s", line);
}

Test(log_format, quoted_values_are_cut)
{
    char longer[1000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    const char *q = LOGQ(longer);
    cr_assert(lt(sz, strlen(q), LOGQ_MAX + 8));
    cr_assert(strstr(q, "xxx…\"") != NULL);
    cr_assert(eq(str, (char *)LOGQ(NULL), "\"\""));
    cr_assert(eq(str, (char *)LOGQN("abc", 2), "ab"));
    memset(longer, 1, sizeof(longer) - 1);
    cr_assert(lt(sz, strlen(LOGQ(longer)), LOGQ_SIZE));
}

Test(log_format, a_bare_value_with_spaces_stays_one_value)
{
    cr_assert(strstr(format(LOG_FORMAT_LOGFMT, NULL, " error=%s n=%d", "no such file", 1),
                     " error=\"no such file\" n=1\n") != NULL,
              "%s", line);
}

Test(log_format, quotes_made_by_somebody_else_are_quoted_again)
{
    cr_assert(strstr(format(LOG_FORMAT_JSON, NULL, " a=%s n=%d", "\"\\ua%b \"", 1),
                     "\"a\":\"\\\"\\\\ua%b \\\"\",\"n\":1}\n") != NULL,
              "%s", line);
}

/* Whatever the values are: one line, JSON that parses, never longer than the limit. */
Test(log_format, any_value_gives_one_line)
{
    struct rng r;
    (void)seed_rng(&r, "log_format");
    static const char alphabet[] = "ab \"\\=\n\t{}\xC3\xBC\xff\x01\x7f u00n%";
    for (int i = 0; i < 20000; i++) {
        char value[600], bare[1500];
        size_t n = rng_below(&r, sizeof(value)), m = rng_below(&r, i % 10 ? 50 : sizeof(bare));
        for (size_t k = 0; k < n; k++)
            value[k] = alphabet[rng_below(&r, sizeof(alphabet) - 1)];
        for (size_t k = 0; k < m; k++)
            bare[k] = alphabet[rng_below(&r, sizeof(alphabet) - 1)];
        bare[m] = '\0';
        struct log_ctx ctx = {.module = "m", .id = bare};
        for (int how = 0; how < LOG_FORMAT_COUNT_; how++) {
            const char *out = format((enum log_format)how, &ctx, " a=%s b=%s c=%d", LOGQN(value, n), bare, i);
            size_t len = strlen(out);
            cr_assert(le(sz, len, LOG_LINE_MAX));
            cr_assert(strchr(out, '\n') == out + len - 1);
            cr_assert(text_utf8_valid(out, len));
            if (how == LOG_FORMAT_JSON) {
                json_error_t why;
                json_t *v = json_loads(out, JSON_ALLOW_NUL, &why);
                cr_assert(v != NULL, "%s: %s", why.text, out);
                json_decref(v);
            }
        }
    }
}

Test(log_format, held_lines_and_missing_pairs_are_named_at_the_end)
{
    char huge[LOG_LINE_MAX];
    memset(huge, 'x', sizeof(huge));
    memcpy(huge, " a=", 3);
    for (size_t i = 500; i < sizeof(huge); i += 500)
        memcpy(huge + i, " b=", 3);
    huge[sizeof(huge) - 1] = '\0';
    struct log_line l = {
        .level = LOG_LEVEL_ERROR, .msg = "m", .fmt = "", .pairs = huge, .repeated = UINT32_MAX};
    size_t len = log_format_line(line, LOG_FORMAT_LOGFMT, &l);
    line[len] = '\0';
    cr_assert(strstr(line, " repeated=4294967295 cut=true\n") != NULL, "%s", line);
    len = log_format_line(line, LOG_FORMAT_JSON, &l);
    line[len] = '\0';
    cr_assert(strstr(line, ",\"repeated\":4294967295,\"cut\":true}\n") != NULL, "%s", line);
    cr_assert(le(sz, len, LOG_LINE_MAX));
}
