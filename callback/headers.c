#define _GNU_SOURCE
#include "callback/headers.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/header_value.h"
#include "agent/core/trace.h"
#include "callback/capability.h"

/* 64 headers of at most 4 KiB, the secrets in them, and our own. */
#define HEADERS_BYTES_MAX (JOB_HEADERS_MAX * 4400 + HEADERS_SECRETS_MAX * SECRETS_VALUE_MAX + 8192)
/* What is shorter is found everywhere. */
#define HIDE_BYTES_MIN 4

void headers_init(struct headers *h)
{
    buf_init(&h->text, HEADERS_BYTES_MAX);
    h->count = h->secrets_count = 0;
}

void headers_forget(struct headers *h)
{
    if (h->secrets_count > 0)
        OPENSSL_cleanse(h->text.data, h->text.len);
    h->secrets_count = 0;
}

void headers_fini(struct headers *h)
{
    headers_forget(h);
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

static int add_secret(struct headers *h, const struct secrets *secrets, const char *ns,
                      const struct header_piece *piece, struct err *e)
{
    const char *value;
    if (!secrets)
        return err_set(e, ERR_NOT_FOUND, "secret '%s': callback.secrets_dir is not set",
                       TEXTQ(piece->text, piece->len));
    if (h->secrets_count == HEADERS_SECRETS_MAX)
        return err_set(e, ERR_TOO_BIG, "more than %d secrets in the headers", HEADERS_SECRETS_MAX);
    int rc = secrets_find(secrets, ns, piece->text, piece->len, &value, e);
    if (rc < 0)
        return rc;
    h->secrets[h->secrets_count].start = h->text.len;
    h->secrets[h->secrets_count++].len = strlen(value);
    buf_add_str(&h->text, value);
    return 0;
}

static int add_value(struct headers *h, const struct secrets *secrets, const char *ns, const char *value,
                     struct err *e)
{
    int rc = 0;
    for (struct header_piece p; rc == 0 && (p = header_value_next(&value)).kind != HEADER_PIECE_END;) {
        if (p.kind == HEADER_PIECE_SECRET)
            rc = add_secret(h, secrets, ns, &p, e);
        else if (p.kind == HEADER_PIECE_TEXT)
            buf_add(&h->text, p.text, p.len);
        else
            rc = err_set(e, ERR_INVALID, "a header has ${ that begins no secret");
    }
    return rc;
}

/* EMPTY ends the name of one without a value: libcurl sends such a header only when it ends in a semicolon. */
static int add_users(struct headers *h, const struct job_spec *spec, const struct secrets *secrets,
                     const char *empty_end, struct err *e)
{
    const struct job_callback *cb = &spec->callback;
    bool ce_type = false;
    for (size_t i = 0; i < cb->headers_count; i++) {
        bool empty = cb->headers[i].value[0] == '\0';
        ce_type |= is_ce_type(cb->headers[i].name);
        begin(h);
        buf_add_str(&h->text, cb->headers[i].name);
        buf_add_str(&h->text, empty ? empty_end : ": ");
        int rc = add_value(h, secrets, spec->ns, cb->headers[i].value, e);
        if (rc < 0)
            return rc;
        end(h);
    }
    if (!ce_type)
        add(h, "ce-type", "carillon.fire");
    return 0;
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

static void add_attempt(struct headers *h, const struct callback_attempt *a, const char *key,
                        int64_t deadline_ms)
{
    const struct delivery *d = a->delivery;
    char deadline[TEXT_INSTANT_SIZE];
    text_instant_print(deadline, deadline_ms);
    begin(h);
    buf_addf(&h->text, "Idempotency-Key: \"%s\"", key);
    end(h);
    if (a->parts > 0 && d->spec->callback.to == JOB_TO_SHARDS) {
        begin(h);
        buf_addf(&h->text, "Carillon-Shard: %u/%u", a->part, a->parts);
        end(h);
    }
    add_number(h, "Carillon-Attempt", d->attempt);
    add_number(h, "Carillon-Seq", d->seq);
    add_number(h, "Carillon-Epoch", d->epoch);
    add(h, "Carillon-Deadline", deadline);
    if (d->coalesced > 0)
        add_number(h, "Carillon-Coalesced", d->coalesced);
}

static void add_trace(struct headers *h, const struct callback_attempt *a)
{
    const struct delivery *d = a->delivery;
    struct trace trace, asked = {.parent = ""};
    if (d->trace)
        trace_parse(d->trace, d->trace_bytes, &asked);
    if (asked.parent[0])
        trace_of_attempt(asked.parent, asked.state, &d->uid, d->seq, d->attempt, d->epoch, &trace);
    else if (d->spec->traceparent)
        trace_of_attempt(d->spec->traceparent, d->spec->tracestate, &d->uid, d->seq, d->attempt, d->epoch,
                         &trace);
    else if (a->trace_rule)
        trace_of_untold_attempt(a->trace_rule, &d->uid, d->seq, d->attempt, d->epoch, &trace);
    else
        return;
    add(h, "traceparent", trace.parent);
    if (trace.state[0])
        add(h, "tracestate", trace.state);
}

/* Who has the key can end the fire, so it is hidden like a secret when a callee sends it back. */
static void add_complete(struct headers *h, const struct callback_attempt *a, const char *fire)
{
    const struct delivery *d = a->delivery;
    char key[CAPABILITY_SIZE];
    if (!a->capability || !d->spec->callback.async)
        return;
    capability_make(a->capability, &d->uid, d->seq, d->attempt, key);
    begin(h);
    buf_addf(&h->text, "Carillon-Complete: %s/v1/fires/%s/complete?key=", a->capability->url, fire);
    h->secrets[h->secrets_count].start = h->text.len;
    h->secrets[h->secrets_count++].len = strlen(key);
    buf_add_str(&h->text, key);
    end(h);
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

/* Standard Webhooks: who has the key can tell that this body comes from us, and when it was sent. The standard wants no full stop in
 * ids that users choose, because one divides what is signed; nobody chooses a fire's id, and read as a time its seq is long past. */
static int add_signature(struct headers *h, const struct callback_attempt *a, const char *key, int64_t now_ms,
                         const struct sign_keys *keys, struct err *e)
{
    const struct delivery *d = a->delivery;
    bool body = d->payload && headers_has_body(d->spec->callback.method);
    struct sign_message message = {.ns = d->spec->ns,
                                   .service = d->spec->callback.service,
                                   .id = key,
                                   .timestamp_s = now_ms / 1000,
                                   .body = body ? d->payload : NULL,
                                   .body_bytes = body ? d->payload_bytes : 0};
    size_t before = h->text.len;
    begin(h);
    buf_add_str(&h->text, "webhook-signature: ");
    size_t empty = h->text.len;
    int rc = keys ? sign_message(keys, &message, &h->text, e) : 0;
    if (rc < 0)
        return rc;
    if (h->text.len == empty) { /* no key covers the target */
        buf_truncate(&h->text, before);
        h->count--;
        return 0;
    }
    end(h);
    add(h, "webhook-id", key);
    add_number(h, "webhook-timestamp", (uint64_t)message.timestamp_s);
    return 0;
}

static void link_nodes(struct headers *h)
{
    for (size_t i = 0; i < h->count; i++) {
        h->nodes[i].data = h->text.data + h->starts[i];
        h->nodes[i].next = i + 1 < h->count ? &h->nodes[i + 1] : NULL;
    }
}

static void reset(struct headers *h)
{
    headers_forget(h);
    buf_reset(&h->text);
    h->count = 0;
}

/* What job and attempt say, in each transport; the rest is there already. */
static int add_common(struct headers *h, const struct callback_attempt *a, int64_t now_ms,
                      int64_t deadline_ms, const struct safety_use *use, const char *empty_end, struct err *e)
{
    char fire[56], key[CALLBACK_KEY_SIZE];
    fire_id_print(&a->delivery->uid, a->delivery->seq, fire);
    callback_key(a, key);
    add_event(h, a, fire);
    add_attempt(h, a, key, deadline_ms);
    add_trace(h, a);
    add_complete(h, a, fire);
    int rc = add_signature(h, a, key, now_ms, use->keys, e);
    if (rc == 0)
        rc = add_users(h, a->delivery->spec, use->secrets, empty_end, e);
    if (rc == 0)
        rc = buf_check(&h->text, e);
    if (rc < 0)
        return rc;
    /* All were checked when they were read; what a line break would do here is worth a second look. */
    if (memchr(h->text.data, '\n', h->text.len) || memchr(h->text.data, '\r', h->text.len))
        return err_set(e, ERR_INVALID, "a header has a line break");
    return 0;
}

int headers_build(struct headers *h, const struct callback_attempt *a, int64_t now_ms, const char *user_agent,
                  const struct safety_use *use, struct curl_slist **ret, struct err *e)
{
    const struct job_callback *cb = &a->delivery->spec->callback;
    reset(h);
    add(h, "User-Agent", user_agent);
    add_content(h, a->delivery);
    if (a->tls && a->tls->server_name && cb->service)
        add(h, "Host", cb->service); /* the URL has the certificate's name */
    int rc = add_common(h, a, now_ms, now_ms + cb->timeout_ms, use, ";", e);
    if (rc < 0)
        return rc;
    link_nodes(h);
    *ret = h->nodes;
    return 0;
}

/* libcurl says so too unless a job says otherwise. */
static bool accepts(const struct job_callback *cb)
{
    for (size_t i = 0; i < cb->headers_count; i++)
        if (curl_strequal(cb->headers[i].name, "Accept"))
            return true;
    return false;
}

int headers_build_plain(struct headers *h, const struct callback_attempt *a, int64_t now_ms,
                        const char *user_agent, const struct safety_use *use, struct err *e)
{
    const struct delivery *d = a->delivery;
    const struct job_callback *cb = &d->spec->callback;
    reset(h);
    add(h, "User-Agent", user_agent);
    if (!accepts(cb))
        add(h, "Accept", "*/*");
    if (d->payload && headers_has_body(cb->method))
        add(h, "Content-Type", d->content_type);
    return add_common(h, a, now_ms, now_ms + cb->timeout_ms, use, ": ", e);
}

int headers_build_metadata(struct headers *h, const struct callback_attempt *a, int64_t now_ms,
                           int64_t deadline_ms, const struct safety_use *use, struct err *e)
{
    reset(h);
    int rc = add_common(h, a, now_ms, deadline_ms, use, ": ", e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < h->count; i++)
        for (char *c = h->text.data + h->starts[i]; *c != ':'; c++)
            if (*c >= 'A' && *c <= 'Z')
                *c = (char)(*c - 'A' + 'a');
    return 0;
}

bool headers_next(const struct headers *h, size_t *at, struct headers_pair *ret)
{
    if (*at >= h->count)
        return false;
    ret->name = h->text.data + h->starts[(*at)++];
    ret->name_len = strcspn(ret->name, ":");
    ret->value = ret->name + ret->name_len + 2;
    return true;
}

/* Also a secret of which only the beginning is in TEXT, at its end. */
static void hide(char *text, size_t len, const char *secret, size_t bytes)
{
    char *end = text + len;
    for (char *at = text; (at = memmem(at, (size_t)(end - at), secret, bytes));)
        memset(at, '*', bytes);
    for (size_t n = bytes - 1 < len ? bytes - 1 : len; n >= HIDE_BYTES_MIN; n--)
        if (memcmp(end - n, secret, n) == 0) {
            memset(end - n, '*', n);
            return;
        }
}

void headers_hide_secrets(const struct headers *h, char *text, size_t len)
{
    for (size_t i = 0; i < h->secrets_count; i++)
        if (h->secrets[i].len >= HIDE_BYTES_MIN)
            hide(text, len, h->text.data + h->secrets[i].start, h->secrets[i].len);
}
