#include "agent/api/context.h"

#include <inttypes.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"

static void copy_text(char *to, size_t size, const char *from)
{
    size_t len = from ? strlen(from) : 0;
    len = len < size ? len : 0; /* a name that does not fit is no name */
    memcpy(to, from ? from : "", len);
    to[len] = '\0';
}

static void point_texts(struct api_context *c)
{
    c->defaults.app_service = c->app_service[0] ? c->app_service : NULL;
    c->defaults.app_url = c->app_url[0] ? c->app_url : NULL;
}

void api_context_set_defaults(struct api_context *c, const struct job_defaults *d)
{
    c->defaults = *d;
    copy_text(c->app_service, sizeof(c->app_service), d->app_service);
    copy_text(c->app_url, sizeof(c->app_url), d->app_url);
    point_texts(c);
}

/* --- printing ------------------------------------------------------------------------------------------------------ */

/* json_pack() would leave a text out for which it finds no memory; hence its own step. */
static int set_text(json_t *doc, const char *key, const char *text, struct err *e)
{
    return text ? json_set(doc, key, json_string(text), e) : 0;
}

static int set_defaults(json_t *doc, const struct job_defaults *d, struct err *e)
{
    const struct retry_rule *r = &d->retry;
    json_t *defaults = json_pack(
        "{s:I,s:[I,I,f,I,f,I],s:i,s:I,s:i,s:I,s:b}", "timeout", (json_int_t)d->timeout_ms, "retry",
        (json_int_t)r->max_attempts, (json_int_t)r->min_backoff_ms, r->factor, (json_int_t)r->max_backoff_ms,
        r->jitter, (json_int_t)r->max_age_ms, "misfire", (int)d->misfire, "window",
        (json_int_t)d->misfire_window_ms, "concurrency", (int)d->concurrency, "min_interval",
        (json_int_t)d->min_interval_ms, "allow_loopback", d->allow_loopback);
    int rc = json_set(doc, "defaults", defaults, e);
    if (rc == 0)
        rc = set_text(defaults, "app_service", d->app_service, e);
    if (rc == 0)
        rc = set_text(defaults, "app_url", d->app_url, e);
    return rc;
}

static json_t *hex_u64(uint64_t v)
{
    uint8_t bytes[8];
    char text[17];
    for (size_t i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> (56 - 8 * i));
    text_hex_encode(bytes, sizeof(bytes), text);
    return json_string(text);
}

int api_context_print(const struct api_context *c, struct buf *out, struct err *e)
{
    char uid[33];
    AUTO(json_decref) json_t *doc = json_object();
    uid_print(&c->uid, uid);
    int rc = json_set(doc, "hop", json_integer((json_int_t)c->hop), e);
    rc |= json_set(doc, "request", json_string(c->request_id), e);
    rc |= json_set(doc, "id", json_string(c->id), e);
    rc |= json_set(doc, "fresh", json_boolean(c->fresh_id), e);
    rc |= json_set(doc, "repeated", json_boolean(c->repeated), e);
    rc |= json_set(doc, "uid", json_string(uid), e);
    rc |= json_set(doc, "change", hex_u64(c->change_id), e);
    rc |= json_set(doc, "accepted", json_integer(c->accepted_ms), e);
    rc |= json_set(doc, "actor", json_string(c->actor), e);
    if (c->until_ms)
        rc |= json_set(doc, "until", json_integer(c->until_ms), e);
    if (c->to[0])
        rc |= json_set(doc, "to", json_string(c->to), e);
    if (c->trace.parent[0])
        rc |= json_set(doc, "traceparent", json_string(c->trace.parent), e);
    if (c->trace.state[0])
        rc |= json_set(doc, "tracestate", json_string(c->trace.state), e);
    rc |= set_defaults(doc, &c->defaults, e);
    char *text = rc == 0 ? json_dumps(doc, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    if (!text)
        return err_set(e, ERR_NOMEM, "no memory for a request's context");
    buf_add_str(out, text);
    mem_free(text);
    return buf_check(out, e);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static int read_defaults(const json_t *doc, struct api_context *c, struct err *e)
{
    json_int_t timeout, attempts, min, max, age, window, interval;
    int misfire, concurrency, loopback;
    struct job_defaults *d = &c->defaults;

    json_error_t why;
    if (json_unpack_ex((json_t *)doc, &why, 0, "{s:I,s:[I,I,F,I,F,I],s:i,s:I,s:i,s:I,s:b}", "timeout",
                       &timeout, "retry", &attempts, &min, &d->retry.factor, &max, &d->retry.jitter, &age,
                       "misfire", &misfire, "window", &window, "concurrency", &concurrency, "min_interval",
                       &interval, "allow_loopback", &loopback) < 0)
        return err_set(e, ERR_INVALID, "defaults: %s", why.text);
    if (timeout <= 0 || attempts < 0 || attempts > UINT32_MAX || min <= 0 || max < min || age < 0 ||
        window <= 0 || interval < 0 || misfire < 0 || misfire > JOB_MISFIRE_LAST || concurrency < 0 ||
        concurrency > JOB_REPLACE)
        return err_set(e, ERR_INVALID, "defaults: a value is out of range");
    d->timeout_ms = timeout;
    d->retry.max_attempts = (uint32_t)attempts;
    d->retry.min_backoff_ms = (uint64_t)min;
    d->retry.max_backoff_ms = (uint64_t)max;
    d->retry.max_age_ms = (uint64_t)age;
    d->misfire = (enum job_misfire)misfire;
    d->misfire_window_ms = window;
    d->concurrency = (enum job_concurrency)concurrency;
    d->min_interval_ms = interval;
    d->allow_loopback = loopback;
    copy_text(c->app_service, sizeof(c->app_service), json_string_value(json_object_get(doc, "app_service")));
    copy_text(c->app_url, sizeof(c->app_url), json_string_value(json_object_get(doc, "app_url")));
    point_texts(c);
    return 0;
}

static int read_names(const json_t *doc, struct api_context *c, struct err *e)
{
    const char *id, *uid, *change, *request, *actor;
    uint8_t bytes[8];
    if (json_unpack((json_t *)doc, "{s:s,s:s,s:s,s:s,s:s}", "id", &id, "uid", &uid, "change", &change,
                    "request", &request, "actor", &actor) < 0)
        return err_set(e, ERR_INVALID, "a name is missing");
    if ((*id && text_check_id(id, strlen(id), e) < 0) || !uid_parse(uid, strlen(uid), &c->uid) ||
        text_hex_decode(change, strlen(change), bytes, sizeof(bytes), NULL) < 0 ||
        strlen(request) >= sizeof(c->request_id) || text_check_id(request, strlen(request), e) < 0)
        return err_set(e, ERR_INVALID, "a name is not valid");
    copy_text(c->id, sizeof(c->id), id);
    copy_text(c->request_id, sizeof(c->request_id), request);
    copy_text(c->actor, sizeof(c->actor), actor);
    c->change_id = 0;
    for (size_t i = 0; i < 8; i++)
        c->change_id = c->change_id << 8 | bytes[i];
    return 0;
}

int api_context_parse(const char *text, struct api_context *ret, struct err *e)
{
    AUTO(json_decref) json_t *doc = NULL;
    int rc = json_read(text, strlen(text), API_CONTEXT_MAX, &doc, e);
    if (rc < 0)
        return err_wrap(e, "request context");
    int hop, fresh, repeated;
    json_int_t accepted, until = 0;
    json_t *defaults;
    memset(ret, 0, sizeof(*ret));
    if (json_unpack(doc, "{s:i,s:b,s:b,s:I,s?I,s:o}", "hop", &hop, "fresh", &fresh, "repeated", &repeated,
                    "accepted", &accepted, "until", &until, "defaults", &defaults) < 0 ||
        hop < API_HOP_ROUTE || hop > API_HOP_FINAL || accepted < 0 || accepted > TEXT_INSTANT_MAX_MS ||
        until < 0 || until > TEXT_INSTANT_MAX_MS)
        return err_set(e, ERR_INVALID, "request context: not understood");
    ret->hop = (unsigned)hop;
    ret->fresh_id = fresh;
    ret->repeated = repeated;
    ret->accepted_ms = accepted;
    ret->until_ms = until;
    copy_text(ret->to, sizeof(ret->to), json_string_value(json_object_get(doc, "to")));
    trace_read(json_string_value(json_object_get(doc, "traceparent")),
               json_string_value(json_object_get(doc, "tracestate")), &ret->trace);
    if (read_names(doc, ret, e) < 0 || read_defaults(defaults, ret, e) < 0)
        return err_wrap(e, "request context");
    return 0;
}
