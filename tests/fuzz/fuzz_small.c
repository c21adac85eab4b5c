/* Small parsers, of which the first byte chooses one: the ring, the parts and the trace of a row as any store may hold them; the instant that
 * explain is asked about; the stream of events of another member, however the connection cuts it. What is taken prints to itself. */
#include <assert.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/core/explain.h"
#include "agent/core/fire_parts.h"
#include "agent/core/ring_log.h"
#include "agent/core/trace.h"
#include "agent/core/tz.h"
#include "agent/events.h"
#include "tests/fuzz/berlin.h"

#define EVENT_BYTES_MAX ((size_t)256)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ring(const uint8_t *data, size_t size)
{
    static const struct ring_entry newest = {.seq = UINT64_MAX, .due_ms = 1, .endpoint = "127.0.0.1:80"};
    struct ring_entry entries[RING_LOG_KEEP_MAX];
    uint8_t copy[RECORD_RING_MAX];
    size_t count = 0, after = 0;
    bool taken = ring_log_read(data, size, entries, &count, NULL) == 0;
    assert(count <= RING_LOG_KEEP_MAX);
    for (size_t i = 0; i < count; i++)
        assert(memchr(entries[i].endpoint, '\0', sizeof(entries[i].endpoint)));
    if (size > sizeof(copy))
        return;
    memcpy(copy, data, size);
    uint16_t bytes = ring_log_add(copy, size, &newest, RING_LOG_KEEP_MAX);
    assert(ring_log_read(copy, bytes, entries, &after, NULL) == 0);
    assert(after >= 1 && (!taken || after <= count + 1) && entries[0].seq == newest.seq);
}

static void parts(const char *text, size_t len)
{
    AUTO(fire_parts_free) struct fire_parts *p = NULL, *again = NULL;
    AUTO(buf_fini) struct buf once = BUF_INIT(FIRE_PARTS_TEXT_MAX), twice = BUF_INIT(FIRE_PARTS_TEXT_MAX);
    if (fire_parts_parse(text, len, &p, NULL) < 0)
        return;
    assert(p->count > 0 && p->count <= FIRE_PARTS_MAX);
    fire_parts_print(p, &once);
    assert(!buf_failed(&once) && fire_parts_parse(buf_str(&once), once.len, &again, NULL) == 0);
    fire_parts_print(again, &twice);
    assert(strcmp(buf_str(&once), buf_str(&twice)) == 0);
}

static void trace(const char *text, size_t len)
{
    struct trace t, again;
    trace_parse(text, len, &t);
    trace_read(t.parent, t.state, &again);
    assert(strcmp(again.parent, t.parent) == 0 && strcmp(again.state, t.state) == 0);
}

static void instant(const char *text, size_t len)
{
    static struct tz *zone;
    struct explain_span span;
    if (!zone)
        assert(tz_parse("Europe/Berlin", berlin, sizeof(berlin) - 1, &zone, NULL) == 0);
    if (explain_at_parse(text, len, zone, &span, NULL) == 0)
        assert(span.from_ms <= span.to_ms && span.wall_width_s >= 0);
}

static void add_event(void *arg, const char *text, size_t len)
{
    assert(len <= EVENT_BYTES_MAX && len >= 2 && text[len - 1] == '\n' && text[len - 2] == '\n');
    buf_add(arg, text, len);
}

static uint64_t split(const char *text, size_t len, size_t piece, struct buf *ret)
{
    struct events_splitter s = {.text = BUF_INIT(EVENT_BYTES_MAX)};
    for (size_t at = 0; at < len; at += piece)
        events_split(&s, text + at, piece < len - at ? piece : len - at, add_event, ret);
    buf_fini(&s.text);
    return s.lost;
}

static void events(const char *text, size_t len)
{
    AUTO(buf_fini) struct buf whole = BUF_INIT(len + 1), cut = BUF_INIT(len + 1);
    uint64_t lost = split(text, len, len, &whole);
    for (size_t piece = 1; piece < 8 && piece < len; piece++) {
        buf_reset(&cut);
        assert(split(text, len, piece, &cut) == lost);
        assert(cut.len == whole.len && memcmp(buf_str(&cut), buf_str(&whole), whole.len) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    if (size == 0)
        return 0;
    switch (data[0]) {
    case 'r':
        ring(data + 1, size - 1);
        break;
    case 'p':
        parts(text, size - 1);
        break;
    case 't':
        trace(text, size - 1);
        break;
    case 'e':
        events(text, size - 1);
        break;
    default:
        instant(text, size - 1);
    }
    return 0;
}
