/* What a callee answers: an HTTP reply says the same however the connection cuts it; and a gRPC message of one, which may come from anybody
 * who calls the sink. The first byte: in pieces of how many bytes, and whether the connection ends behind it, and whether it was a HEAD. */
#include <assert.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "callback/fire_message.h"
#include "callback/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void feed(struct reply *r, const uint8_t *data, size_t size, size_t step, unsigned how)
{
    enum reply_state state = REPLY_MORE;
    reply_begin(r, how & 1);
    for (size_t at = 0; at < size && state == REPLY_MORE; at += step)
        state = reply_feed(r, (const char *)data + at, size - at < step ? size - at : step);
    if (state == REPLY_MORE && (how & 2))
        (void)reply_feed(r, "", 0);
}

static void check(const struct reply *r)
{
    if (r->state == REPLY_BAD)
        assert(reply_problem(r)[0]);
    if (r->state == REPLY_WHOLE || r->state == REPLY_ENOUGH)
        assert(reply_status(r) >= 0 && reply_retry_after_ms(r, 1700000000) >= -1);
    assert(r->excerpt_bytes <= CALLBACK_EXCERPT_MAX);
    assert(memchr(r->name, '\0', sizeof(r->name)) && memchr(r->retry_after, '\0', sizeof(r->retry_after)));
    assert(memchr(r->control, '\0', sizeof(r->control)));
}

static void same(const struct reply *a, const struct reply *b)
{
    assert(a->state == b->state);
    if (a->state != REPLY_WHOLE)
        return;
    assert(reply_status(a) == reply_status(b) && reply_control(a) == reply_control(b));
    assert(reply_retry_after_ms(a, 0) == reply_retry_after_ms(b, 0));
    assert(a->excerpt_bytes == b->excerpt_bytes && memcmp(a->excerpt, b->excerpt, a->excerpt_bytes) == 0);
}

static void message(const uint8_t *data, size_t size)
{
    struct buf out = BUF_INIT((size_t)1 << 20);
    if (fire_message_payload(data, size, &out, NULL) == 0)
        assert(out.len <= size);
    buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct reply whole, cut;
    if (size == 0)
        return 0;
    if (data[0] == 'm') {
        message(data + 1, size - 1);
        return 0;
    }
    feed(&whole, data + 1, size - 1, size, data[0]);
    feed(&cut, data + 1, size - 1, 1 + (data[0] >> 2) % 17, data[0]);
    check(&whole);
    check(&cut);
    same(&whole, &cut);
    return 0;
}
