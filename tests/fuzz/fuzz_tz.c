/* Zone files: whatever is read must answer any instant and any wall time without contradiction. */
#include <assert.h>

#include "agent/core/tz.h"

static void check_wall(const struct tz *z, int64_t wall_s)
{
    struct tz_wall w;
    tz_from_wall(z, wall_s, &w);
    assert(w.kind < TZ_WALL_COUNT_ && w.first_s <= w.second_s);
    if (w.kind == TZ_WALL_GAP)
        return;
    assert(w.first_s + tz_offset_s(z, w.first_s) == wall_s);
    assert(w.second_s + tz_offset_s(z, w.second_s) == wall_s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tz *z = NULL;
    struct tz_span before, span;
    if (tz_parse("Fuzz/Zone", data, size, &z, NULL) < 0) {
        assert(!z);
        return 0;
    }
    tz_span_at(z, INT64_MIN, &before);
    assert(before.start_s == INT64_MIN);
    for (; before.end_s != INT64_MAX; before = span) {
        tz_span_at(z, before.end_s, &span);
        assert(span.start_s == before.end_s && span.end_s > span.start_s);
        assert(span.before_s == before.offset_s && span.offset_s != before.offset_s);
        check_wall(z, span.start_s + span.offset_s);
        check_wall(z, span.start_s + span.before_s);
        check_wall(z, span.start_s + (span.offset_s + span.before_s) / 2);
    }
    tz_free(z);
    return 0;
}
