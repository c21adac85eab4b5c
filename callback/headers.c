#include "callback/headers.h"

#include <assert.h>
#include <string.h>

#include "agent/base/text.h"

/* 64 headers of at most 4 KiB and our own. */
#define HEADERS_BYTES_MAX (JOB_HEADERS_MAX * 4400 + 8192)

void headers_init(struct headers *h)
{
    buf_init(&h->text, HEADERS_BYTES_MAX);
    h->count = 0;
}

void headers_fini(struct headers *h)
{
    buf_fini(&h->text);
}

static void begin(struct headers *h)
{
    assert(h->count < HEADERS_NODES_MAX);
    h->starts[h->count++] = h->text.len;
}

static void end(struct headers *h)
{
    buf_add_char(&h->text, '\0');
}

static void add(struct headers *h, const char *name, const char *value)
{
    begin(h);
    buf_add_str(&h->text, name);
    buf_add_str(&h->text, ": ");
    buf_add_str(&h->text, value);
    end(h);
}

static void add_number(struct headers *h, const char *name, uint64_t value)
{
    begin(h);
    buf_add_str(&h->text, name);
    buf_add_str(&h->text, ": ");
    buf_add_u64(&h->text, value);
    end(h);
}

static bool is_ce_type(const char *name)
{
    return curl_strequal(name, "ce-type");
}

static void add_users(struct headers *h, const struct job_callback *cb)
{
    bool ce_type = false;
    for (size_t i = 0; i < cb->headers_count; i++) {
        ce_type |= is_ce_type(cb->headers[i].name);
        if (cb->headers[i].value[0] != '\0') {
            add(h, cb->headers[i].name, cb->headers[i].value);
            continue;
        }
        begin(h); /* libcurl sends a header without a value only when it ends in a semicolon */
        buf_add_str(&h->text, cb->headers[i].name);
        buf_add_char(&h->text, ';');
        end(h);
    }
    if (!ce_type)
        add(h, "ce-type", "carillon.fire");
}

static void add_event(struct headers *h, const struct callback_attempt *a, const char *fire)
{
    const struct delivery *d = a->delivery;
    char due[TEXT_INSTANT_SIZE];
    text_instant_print(due, d->due_ms);
    add(h, "ce-specversion", "1.0");
    add(h, "ce-id", fire);
    begin(h);
    buf_addf(&h->text, "ce-source: %s/%s", a->source, d->spec->ns);
    end(h);
    add(h, "ce-subject", d->spec->id);
    add(h, "ce-time", due);
}

static void add_attempt(struct headers *h, const struct callback_attempt *a, const char *fire, int64_t now_ms)
{
    const struct delivery *d = a->delivery;
    char deadline[TEXT_INSTANT_SIZE];
    text_instant_print(deadline, now_ms + d->spec->callback.timeout_ms);
    begin(h);
    buf_addf(&h->text, "Idempotency-Key: \"%s\"", fire);
    end(h);
    add_number(h, "Carillon-Attempt", d->attempt);
    add_number(h, "Carillon-Seq", d->seq);
    add_number(h, "Carillon-Epoch", d->epoch);
    add(h, "Carillon-Deadline", deadline);
    if (d->coalesced > 0)
        add_number(h, "Carillon-Coalesced", d->coalesced);
}

/* libcurl adds a form's type to a POST without one; a header without a value removes it. */
static void add_content(struct headers *h, const struct delivery *d)
{
    bool typed = d->payload && headers_has_body(d->spec->callback.method);
    add(h, "Content-Type", typed ? d->content_type : "");
    add(h, "Expect", ""); /* no round trip for a 100 Continue */
}

bool headers_has_body(const char *method)
{
    return strcmp(method, "HEAD") != 0 && strcmp(method, "GET") != 0 && strcmp(method, "DELETE") != 0;
}

struct curl_slist *headers_build(struct headers *h, const struct callback_attempt *a, int64_t now_ms,
                                 const char *user_agent)
{
    char fire[56];
    fire_id_print(&a->delivery->uid, a->delivery->seq, fire);
    buf_reset(&h->text);
    h->count = 0;
    add_event(h, a, fire);
    add_attempt(h, a, fire, now_ms);
    add(h, "User-Agent", user_agent);
    add_content(h, a->delivery);
    add_users(h, &a->delivery->spec->callback);
    /* All were checked when the job was read; what a line break would do here is worth a second look. */
    if (buf_failed(&h->text) || memchr(h->text.data, '\n', h->text.len) ||
        memchr(h->text.data, '\r', h->text.len))
        return NULL;
    for (size_t i = 0; i < h->count; i++) {
        h->nodes[i].data = h->text.data + h->starts[i];
        h->nodes[i].next = i + 1 < h->count ? &h->nodes[i + 1] : NULL;
    }
    return h->nodes;
}
