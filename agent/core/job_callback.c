/* The member `callback` of a job: read, checked, written back. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/base/text.h"
#include "agent/base/url.h"
#include "agent/core/grpc_code.h"
#include "agent/core/header_value.h"
#include "agent/core/job_private.h"

#define PATH_MAX_BYTES    2048
#define URL_MAX_BYTES     2048
#define ADDRESS_MAX_BYTES 255
#define HEADER_VALUE_MAX  4096
#define TIMEOUT_MAX_MS    ((uint64_t)3600 * 1000)
#define ASYNC_MAX_MS      ((uint64_t)30 * 24 * 3600 * 1000)

static const char *const http_methods[] = {"POST", "GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", NULL};
static const char *const to_names[] = {"one", "all", "shards", NULL};

/* --- headers ------------------------------------------------------------------------------------------------------- */

/* What carillon or the HTTP library sets itself. */
static bool reserved_header(const char *name)
{
    static const char *const names[] = {"ce-specversion",
                                        "ce-id",
                                        "ce-source",
                                        "ce-subject",
                                        "ce-time",
                                        "idempotency-key",
                                        "traceparent",
                                        "tracestate",
                                        "user-agent",
                                        "host",
                                        "content-length",
                                        "content-type",
                                        "transfer-encoding",
                                        "connection",
                                        "keep-alive",
                                        "upgrade",
                                        "te",
                                        "trailer",
                                        "expect",
                                        "proxy-authorization",
                                        "proxy-connection",
                                        NULL};
    for (size_t i = 0; names[i]; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return strncasecmp(name, "carillon-", 9) == 0 || strncasecmp(name, "webhook-", 8) == 0 ||
           strncasecmp(name, "grpc-", 5) == 0;
}

/* A secret's name says nothing about its value, so it may be shown; the value is read at each attempt. */
static bool check_secrets(struct job_reader *r, const struct json_at *at, const char *name, const char *value)
{
    const struct job_defaults *d = r->ctx->defaults;
    for (struct header_piece p; (p = header_value_next(&value)).kind != HEADER_PIECE_END;) {
        if (p.kind == HEADER_PIECE_BROKEN) {
            json_problem(r->problems, at, name,
                         "${ must begin a secret, as ${secret:NAME} with 1 to %d of [A-Za-z0-9._-]; write "
                         "$${ for a plain ${",
                         HEADER_SECRET_NAME_MAX);
            return false;
        }
        if (p.kind == HEADER_PIECE_SECRET && d->secret_known &&
            !d->secret_known(d->secret_arg, r->ctx->ns, p.text, p.len)) {
            job_refuse(r, JOB_REFUSED_UNKNOWN_SECRET, at, name,
                       "namespace %s has no secret '%s'; it must be in callback.secrets_dir first",
                       r->ctx->ns, TEXTQ(p.text, p.len));
            return false;
        }
    }
    return true;
}

/* What the library would refuse to send. Binary values are whatever bytes, but ours are text. */
static bool check_metadata(struct job_reader *r, const struct json_at *at, const char *name,
                           const char *value)
{
    if (name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] != '\0') {
        json_problem(r->problems, at, name, "must be of [A-Za-z0-9._-]; it is sent in lower case");
        return false;
    }
    for (; *value; value++)
        if (*value < ' ' || *value > '~') {
            json_problem(r->problems, at, name, "must be ASCII without control characters");
            return false;
        }
    return true;
}

static bool check_header(struct job_reader *r, const struct json_at *at, const char *name, const char *value)
{
    struct err e = {0};
    if (text_check_header_name(name, strlen(name), &e) < 0 ||
        text_check_header_value(value, strlen(value), &e) < 0) {
        json_problem(r->problems, at, name, "%s", e.text);
        return false;
    }
    if (reserved_header(name)) {
        json_problem(r->problems, at, name, "is set by carillon itself; choose another name%s",
                     strcasecmp(name, "content-type") == 0 ? " or use payload_base64 with content_type" : "");
        return false;
    }
    if (r->spec->callback.transport == JOB_GRPC && !check_metadata(r, at, name, value))
        return false;
    return check_secrets(r, at, name, value);
}

static void read_headers(struct job_reader *r, const json_t *obj, const char *key, const struct json_at *at)
{
    static const struct job_pairs_limits limits = {
        .count_max = JOB_HEADERS_MAX, .value_max = HEADER_VALUE_MAX, .check = check_header, .sort = true};
    struct json_at here = json_at_key(at, key);
    const json_t *headers = json_field_object(obj, key, at, r->problems);
    if (headers)
        job_read_pairs(r, headers, &here, &limits, &r->spec->callback.headers,
                       &r->spec->callback.headers_count);
}

/* --- codes --------------------------------------------------------------------------------------------------------- */

static bool status_text(const char *text, struct job_code_range *ret)
{
    uint32_t low, high;
    size_t len = strlen(text);
    if (len == 3 && text[0] >= '1' && text[0] <= '5' && strcmp(text + 1, "xx") == 0) {
        low = (uint32_t)(text[0] - '0') * 100;
        high = low + 99;
    } else if (len == 7 && text[3] == '-') {
        if (text_u32(text, 3, 100, 599, &low, NULL) < 0 || text_u32(text + 4, 3, low, 599, &high, NULL) < 0)
            return false;
    } else if (text_u32(text, len, 100, 599, &low, NULL) == 0) {
        high = low;
    } else {
        return false;
    }
    *ret = (struct job_code_range){.low = (uint16_t)low, .high = (uint16_t)high};
    return true;
}

static bool http_code(const json_t *v, struct job_code_range *ret)
{
    if (json_is_integer(v)) {
        json_int_t n = json_integer_value(v);
        if (n < 100 || n > 599)
            return false;
        *ret = (struct job_code_range){.low = (uint16_t)n, .high = (uint16_t)n};
        return true;
    }
    return json_is_string(v) && status_text(json_string_value(v), ret);
}

static bool grpc_code(const json_t *v, struct job_code_range *ret)
{
    int code = json_is_string(v) ? grpc_code_find(json_string_value(v)) : -1;
    if (code <= 0) /* OK is no reason to give up */
        return false;
    *ret = (struct job_code_range){.low = (uint16_t)code, .high = (uint16_t)code};
    return true;
}

static void read_codes(struct job_reader *r, const json_t *obj, const char *key, const struct json_at *at,
                       bool (*code_of)(const json_t *v, struct job_code_range *ret), const char *allowed,
                       size_t least, struct job_code_range *ret, size_t *ret_count)
{
    const json_t *list = json_field_array(obj, key, JOB_CODES_MAX, at, r->problems);
    struct json_at here = json_at_key(at, key);
    if (!list)
        return;
    if (json_array_size(list) < least)
        json_problem(r->problems, &here, NULL, "must hold at least %zu code", least);
    *ret_count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct json_at item = json_at_index(&here, i);
        if (code_of(json_array_get(list, i), &ret[*ret_count]))
            (*ret_count)++;
        else
            json_problem(r->problems, &item, NULL, "%s", allowed);
    }
}

static void default_codes(struct job_callback *cb)
{
    static const uint16_t http[] = {400, 405, 410, 413, 414, 415, 422, 431};
    static const uint16_t grpc[] = {3, 11}; /* INVALID_ARGUMENT, OUT_OF_RANGE */
    const uint16_t *codes = cb->transport == JOB_HTTP ? http : grpc;
    cb->give_up_count =
        cb->transport == JOB_HTTP ? sizeof(http) / sizeof(*http) : sizeof(grpc) / sizeof(*grpc);
    for (size_t i = 0; i < cb->give_up_count; i++)
        cb->give_up[i] = (struct job_code_range){.low = codes[i], .high = codes[i]};
    cb->success[0] = cb->transport == JOB_HTTP ? (struct job_code_range){.low = 200, .high = 299}
                                               : (struct job_code_range){0, 0};
    cb->success_count = 1;
}

/* --- targets ------------------------------------------------------------------------------------------------------- */

/* Printable ASCII without spaces: what may stand in a request line. */
static bool request_text(const char *s)
{
    for (; *s; s++)
        if (*s <= ' ' || *s >= 0x7f)
            return false;
    return true;
}

static void check_loopback(struct job_reader *r, const char *host, const struct json_at *at, const char *key)
{
    if (!r->ctx->defaults->allow_loopback && url_host_is_loopback(host))
        job_refuse(
            r, JOB_REFUSED_LOOPBACK, at, key,
            "names the loopback address, which would be the job owner's own host; use a service, or set "
            "callback.allow_loopback");
}

static void read_url(struct job_reader *r, const json_t *http, const struct json_at *at)
{
    const char *url;
    char host[URL_HOST_SIZE];
    if (!json_field_string(http, "url", 1, URL_MAX_BYTES, &url, NULL, at, r->problems))
        return;
    r->spec->callback.url = job_reader_strdup(r, url);
    if (!request_text(url)) {
        json_problem(r->problems, at, "url", "must be ASCII without spaces; escape other characters as %%XX");
        return;
    }
    const char *wrong = url_check(url, host);
    if (wrong)
        json_problem(r->problems, at, "url", "%s", wrong);
    else
        check_loopback(r, host, at, "url");
}

static bool name_ok(const char *s)
{
    return s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] == '\0';
}

static const char *read_name(struct job_reader *r, const json_t *obj, const char *key,
                             const struct json_at *at)
{
    const char *text;
    if (!json_field_string(obj, key, 1, 128, &text, NULL, at, r->problems))
        return NULL;
    if (!name_ok(text))
        json_problem(r->problems, at, key, "must be 1 to 128 of [A-Za-z0-9._-]");
    return job_reader_strdup(r, text);
}

static void read_tags(struct job_reader *r, const json_t *http, const struct json_at *at)
{
    struct job_callback *cb = &r->spec->callback;
    const char **tags;
    size_t count;
    if (!json_field_strings(http, "tag", JOB_TAGS_MAX, 128, &tags, &count, at, r->problems))
        return;
    for (size_t i = 0; i < count; i++)
        cb->tags[cb->tags_count++] = job_reader_strdup(r, tags[i]);
    mem_free(tags);
}

static void read_path(struct job_reader *r, const json_t *http, const struct json_at *at)
{
    const char *path;
    if (!json_field_string(http, "path", 1, PATH_MAX_BYTES, &path, NULL, at, r->problems))
        return;
    if (path[0] != '/' || !request_text(path) || strchr(path, '#'))
        json_problem(r->problems, at, "path",
                     "must begin with / and be ASCII without spaces or #; escape others as %%XX");
    r->spec->callback.path = job_reader_strdup(r, path);
}

/* "Neither": the application of the agent that took the write, settled now. */
static void settle_application(struct job_reader *r, const struct json_at *at)
{
    const struct job_defaults *d = r->ctx->defaults;
    struct job_callback *cb = &r->spec->callback;
    if (d->app_service) {
        cb->service = job_reader_strdup(r, d->app_service);
    } else if (d->app_url && cb->transport == JOB_GRPC) {
        cb->address = job_reader_strdup(r, strstr(d->app_url, "://") + 3);
    } else if (d->app_url) {
        struct buf url = BUF_INIT(2 * URL_MAX_BYTES);
        buf_add_str(&url, d->app_url);
        buf_add_str(&url, cb->path ? cb->path : "/");
        cb->url = job_reader_strdup(r, buf_str(&url));
        r->failed |= buf_failed(&url);
        buf_fini(&url);
        cb->path = NULL;
    } else {
        job_refuse(
            r, JOB_REFUSED_NO_TARGET, at, NULL,
            "names neither service nor %s, and this agent has no application (app.service, or app.port in standalone mode)",
            cb->transport == JOB_GRPC ? "address" : "url");
    }
}

static bool given(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return v && !json_is_null(v);
}

static void read_http_target(struct job_reader *r, const json_t *http, const struct json_at *at)
{
    static const char *const schemes[] = {"http", "https", NULL};
    struct job_callback *cb = &r->spec->callback;
    unsigned scheme = 0;
    cb->service = read_name(r, http, "service", at);
    cb->datacenter = read_name(r, http, "datacenter", at);
    read_tags(r, http, at);
    read_path(r, http, at);
    read_url(r, http, at);
    bool scheme_given = json_field_enum(http, "scheme", schemes, &scheme, at, r->problems);
    cb->scheme = schemes[scheme];
    if (cb->url && (cb->service || cb->path || cb->datacenter || cb->tags_count > 0 || scheme_given))
        json_problem(r->problems, at, "url", "does not go with service, tag, datacenter, scheme or path");
    else if (!given(http, "service") && !given(http, "url") && !given(http, "path"))
        job_refuse(r, JOB_REFUSED_NO_TARGET, at, NULL,
                   "needs service and path, url, or path alone for the agent's own application");
    else if (!given(http, "service") && !given(http, "url") &&
             (cb->datacenter || cb->tags_count > 0 || scheme_given))
        json_problem(r->problems, at, NULL, "tag, datacenter and scheme go with service");
    else if (!given(http, "service") && !given(http, "url"))
        settle_application(r, at);
    else if (!cb->url && !cb->path)
        cb->path = "/";
}

static void read_http(struct job_reader *r, const json_t *http, const struct json_at *at)
{
    static const char *const known[] = {"service", "tag",    "datacenter", "scheme", "path",
                                        "url",     "method", "headers",    NULL};
    unsigned method = 0;
    json_unknown_fields(http, known, at, r->problems);
    read_http_target(r, http, at);
    (void)json_field_enum(http, "method", http_methods, &method, at, r->problems); /* absent: POST */
    r->spec->callback.method = http_methods[method];
    read_headers(r, http, "headers", at);
}

static void read_address(struct job_reader *r, const char *address, const struct json_at *at)
{
    size_t host_at, host_len;
    uint16_t port;
    char host[ADDRESS_MAX_BYTES + 1];
    struct err e = {0};
    r->spec->callback.address = job_reader_strdup(r, address);
    if (text_host_port(address, strlen(address), false, &host_at, &host_len, &port, &e) < 0) {
        json_problem(r->problems, at, "address", "%s", e.text);
        return;
    }
    (void)snprintf(host, sizeof(host), "%.*s", (int)host_len, address + host_at); /* fits: checked */
    check_loopback(r, host, at, "address");
}

static void read_grpc_target(struct job_reader *r, const json_t *grpc, const struct json_at *at)
{
    struct job_callback *cb = &r->spec->callback;
    const char *address;
    cb->service = read_name(r, grpc, "service", at);
    cb->datacenter = read_name(r, grpc, "datacenter", at);
    read_tags(r, grpc, at);
    if (json_field_string(grpc, "address", 1, ADDRESS_MAX_BYTES, &address, NULL, at, r->problems))
        read_address(r, address, at);
    if (cb->address && (cb->service || cb->datacenter || cb->tags_count > 0))
        json_problem(r->problems, at, "address", "does not go with service, tag or datacenter");
    if (!cb->address && !cb->service && (cb->datacenter || cb->tags_count > 0))
        json_problem(r->problems, at, NULL, "tag and datacenter go with service");
    else if (!cb->address && !cb->service)
        settle_application(r, at);
}

static bool grpc_method_ok(const char *m)
{
    const char *slash = m[0] == '/' ? strchr(m + 1, '/') : NULL;
    return slash && slash > m + 1 && slash[1] && !strchr(slash + 1, '/') && request_text(m);
}

static void read_grpc(struct job_reader *r, const json_t *grpc, const struct json_at *at)
{
    static const char *const known[] = {"service", "tag", "datacenter", "address",
                                        "method",  "tls", "metadata",   NULL};
    struct job_callback *cb = &r->spec->callback;
    const char *method = "/carillon.v1.Callback/Fire";
    json_unknown_fields(grpc, known, at, r->problems);
    read_grpc_target(r, grpc, at);
    if (json_field_string(grpc, "method", 1, 256, &method, NULL, at, r->problems) && !grpc_method_ok(method))
        json_problem(r->problems, at, "method", "must be /package.Service/Method");
    cb->method = job_reader_strdup(r, method);
    (void)json_field_bool(grpc, "tls", &cb->tls, at, r->problems); /* absent: plain */
    cb->scheme = cb->tls ? "https" : "http";
    read_headers(r, grpc, "metadata", at);
}

/* --- the whole ----------------------------------------------------------------------------------------------------- */

static void read_async(struct job_reader *r, const json_t *cb_doc, const struct json_at *at)
{
    static const char *const known[] = {"timeout", "max", NULL};
    struct job_callback *cb = &r->spec->callback;
    const json_t *async = json_field_object(cb_doc, "async", at, r->problems);
    struct json_at here = json_at_key(at, "async");
    uint64_t ms;
    if (!async)
        return;
    cb->async = true;
    json_unknown_fields(async, known, &here, r->problems);
    if (json_field_duration_ms(async, "timeout", 1, ASYNC_MAX_MS, &ms, &here, r->problems))
        cb->async_timeout_ms = (int64_t)ms;
    if (json_field_duration_ms(async, "max", 1, ASYNC_MAX_MS, &ms, &here, r->problems))
        cb->async_max_ms = (int64_t)ms;
    if (cb->async_max_ms < cb->async_timeout_ms)
        json_problem(r->problems, &here, "max", "must not be shorter than timeout");
}

static void read_transport(struct job_reader *r, const json_t *doc, const struct json_at *at)
{
    const json_t *http = json_field_object(doc, "http", at, r->problems);
    const json_t *grpc = json_field_object(doc, "grpc", at, r->problems);
    struct json_at http_at = json_at_key(at, "http"), grpc_at = json_at_key(at, "grpc");
    struct job_callback *cb = &r->spec->callback;
    if ((http != NULL) == (grpc != NULL)) {
        json_problem(r->problems, at, NULL, "needs exactly one of http and grpc");
        return;
    }
    cb->transport = http ? JOB_HTTP : JOB_GRPC;
    default_codes(cb);
    if (http)
        read_http(r, http, &http_at);
    else
        read_grpc(r, grpc, &grpc_at);
}

void job_read_callback(struct job_reader *r, const json_t *doc)
{
    static const char *const known[] = {"http",       "grpc",  "timeout",       "to", "success",
                                        "give_up_on", "async", "allow_control", NULL};
    struct job_callback *cb = &r->spec->callback;
    struct json_at at = json_at_key(NULL, "callback");
    uint64_t ms;
    unsigned to = 0;
    if (!json_require(doc, "callback", NULL, r->problems))
        return;
    const json_t *callback = json_field_object(doc, "callback", NULL, r->problems);
    if (!callback)
        return;
    json_unknown_fields(callback, known, &at, r->problems);
    read_transport(r, callback, &at);
    if (json_field_duration_ms(callback, "timeout", 1, TIMEOUT_MAX_MS, &ms, &at, r->problems))
        cb->timeout_ms = (int64_t)ms;
    if (json_field_enum(callback, "to", to_names, &to, &at, r->problems))
        cb->to = (enum job_to)to;
    if (cb->to != JOB_TO_ONE && !cb->service)
        json_problem(r->problems, &at, "to", "'all' and 'shards' need a service");
    if (cb->transport == JOB_HTTP) {
        read_codes(r, callback, "success", &at, http_code,
                   "must be a status such as 200, \"2xx\" or \"200-204\"", 1, cb->success,
                   &cb->success_count);
        read_codes(r, callback, "give_up_on", &at, http_code,
                   "must be a status such as 400, \"4xx\" or \"410-415\"", 0, cb->give_up,
                   &cb->give_up_count);
    } else {
        if (json_object_get(callback, "success"))
            json_problem(r->problems, &at, "success", "goes with http; a gRPC call succeeds with OK");
        read_codes(r, callback, "give_up_on", &at, grpc_code,
                   "must be a gRPC status name such as \"INVALID_ARGUMENT\"", 0, cb->give_up,
                   &cb->give_up_count);
    }
    read_async(r, callback, &at);
    (void)json_field_bool(callback, "allow_control", &cb->allow_control, &at,
                          r->problems); /* absent: false */
}

/* --- back to JSON -------------------------------------------------------------------------------------------------- */

static void print_code(struct buf *out, const struct job_callback *cb, const struct job_code_range *code)
{
    if (cb->transport == JOB_GRPC)
        buf_addf(out, "\"%s\"", grpc_code_name(code->low));
    else if (code->low == code->high)
        buf_add_u64(out, code->low);
    else if (code->low % 100 == 0 && code->high == code->low + 99)
        buf_addf(out, "\"%dxx\"", code->low / 100);
    else
        buf_addf(out, "\"%d-%d\"", code->low, code->high);
}

static void print_codes(struct buf *out, const char *key, const struct job_callback *cb,
                        const struct job_code_range *codes, size_t count)
{
    job_print_key(out, key);
    buf_add_char(out, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        print_code(out, cb, &codes[i]);
    }
    buf_add_char(out, ']');
}

static void print_flag(struct buf *out, const char *key, bool v)
{
    job_print_key(out, key);
    buf_add_str(out, v ? "true" : "false");
}

static void print_transport(struct buf *out, const struct job_callback *cb)
{
    bool http = cb->transport == JOB_HTTP;
    job_print_key(out, http ? "http" : "grpc");
    buf_add_char(out, '{');
    job_print_text(out, "service", cb->service);
    if (cb->tags_count == 1)
        job_print_text(out, "tag", cb->tags[0]);
    else if (cb->tags_count > 1)
        job_print_texts(out, "tag", cb->tags, cb->tags_count);
    job_print_text(out, "datacenter", cb->datacenter);
    if (http && cb->service && strcmp(cb->scheme, "http") != 0)
        job_print_text(out, "scheme", cb->scheme);
    job_print_text(out, "path", cb->path);
    job_print_text(out, "url", cb->url);
    job_print_text(out, "address", cb->address);
    job_print_text(out, "method", cb->method);
    if (!http && cb->tls)
        print_flag(out, "tls", true);
    job_print_pairs(out, http ? "headers" : "metadata", cb->headers, cb->headers_count);
    buf_add_char(out, '}');
}

void job_print_callback(struct buf *out, const struct job_callback *cb)
{
    buf_add_char(out, '{');
    print_transport(out, cb);
    job_print_duration(out, "timeout", (uint64_t)cb->timeout_ms);
    job_print_text(out, "to", to_names[cb->to]);
    if (cb->transport == JOB_HTTP)
        print_codes(out, "success", cb, cb->success, cb->success_count);
    print_codes(out, "give_up_on", cb, cb->give_up, cb->give_up_count);
    if (cb->async) {
        job_print_key(out, "async");
        buf_add_char(out, '{');
        job_print_duration(out, "timeout", (uint64_t)cb->async_timeout_ms);
        job_print_duration(out, "max", (uint64_t)cb->async_max_ms);
        buf_add_char(out, '}');
    }
    print_flag(out, "allow_control", cb->allow_control);
    buf_add_char(out, '}');
}
