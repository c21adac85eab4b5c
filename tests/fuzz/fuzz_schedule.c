/* Expressions from outside, one a line: whatever is taken must print to itself, and its dues must be in order and agree
 * with counting and looking back. The first byte chooses the rules for clock changes and the zone. */
#include <assert.h>
#include <string.h>

#include "agent/core/schedule.h"
#include "tests/fuzz/berlin.h"

#define NOW_MS ((int64_t)1795420800000) /* 2026-11-23 */

static void check_issues(const struct schedule_issues *issues, bool failed)
{
    bool error = false;
    for (size_t i = 0; i < issues->count; i++) {
        const struct schedule_issue *issue = &issues->items[i];
        error = error || issue->kind != SCHEDULE_WARNING;
        assert(issue->text[0] != '\0');
        for (const char *p = issue->text; *p; p++)
            assert(*p >= ' ' && *p <= '~');
    }
    assert(error == failed);
}

static void check_dues(const struct schedule *s)
{
    struct schedule_due due = {.due_ms = NOW_MS}, last;
    int64_t first_ms = SCHEDULE_NONE;
    uint64_t n = 0;
    for (int64_t before_ms = NOW_MS; n < 20 && schedule_next(s, before_ms, &due); n++) {
        assert(due.due_ms > before_ms && due.due_ms < SCHEDULE_END_MS);
        first_ms = n == 0 ? due.due_ms : first_ms;
        before_ms = due.due_ms;
    }
    if (n == 0)
        return;
    assert(schedule_count(s, NOW_MS + 1, due.due_ms + 1, 1000) == n);
    assert(schedule_last_before(s, due.due_ms + 1, &last) && last.due_ms == due.due_ms);
    assert(n == 1 || schedule_min_gap_ms(s, NOW_MS) <= (due.due_ms - first_ms) / (int64_t)(n - 1));
}

static void check_text(const struct schedule *s, struct schedule_options *o)
{
    o->arming = false;
    for (size_t i = 0; i < schedule_expr_count(s); i++) {
        const char *text = schedule_expr_text(s, i);
        struct schedule_expr x = {text, strlen(text)};
        struct schedule *again = NULL;
        int rc = schedule_parse(&x, 1, o, &again, NULL, NULL);
        assert(rc == 0 && strcmp(schedule_expr_text(again, 0), text) == 0);
        schedule_free(again);
    }
}

static void run(const char *text, size_t len, struct schedule_options *o)
{
    struct schedule_expr exprs[SCHEDULE_EXPRS_MAX + 1];
    struct schedule_issues issues;
    struct schedule *s = NULL;
    struct err e = {0};
    size_t n = 0;
    while (n <= SCHEDULE_EXPRS_MAX) {
        const char *end = memchr(text, '\n', len);
        size_t one = end ? (size_t)(end - text) : len;
        exprs[n++] = (struct schedule_expr){text, one};
        if (!end)
            break;
        text += one + 1;
        len -= one + 1;
    }
    int rc = schedule_parse(exprs, n, o, &s, &issues, &e);
    check_issues(&issues, rc < 0);
    assert((rc == 0) == (s != NULL));
    if (s) {
        check_dues(s);
        check_text(s, o);
    }
    schedule_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tz *zone;
    if (!zone) {
        int rc = tz_parse("Europe/Berlin", berlin, sizeof(berlin) - 1, &zone, NULL);
        assert(rc == 0);
    }
    if (size == 0)
        return 0;
    struct schedule_options o = {
        .tz = data[0] & 1 ? zone : tz_utc(),
        .gap = (enum schedule_gap)(data[0] >> 1 & 1),
        .repeat = (enum schedule_repeat)((data[0] >> 2 & 3) % SCHEDULE_REPEAT_COUNT_),
        .short_month = (enum schedule_short_month)(data[0] >> 4 & 1),
        .starts_ms = SCHEDULE_NONE,
        .ends_ms = SCHEDULE_NONE,
        .phase_ms = NOW_MS,
        .min_interval_ms = 1000,
        .jitter_ms = data[0] & 0x80 ? 1000 : 0,
        .ns = "fuzz",
        .id = "job",
        .arming = true,
        .accepted_ms = NOW_MS,
    };
    run((const char *)data + 1, size - 1, &o);
    return 0;
}
