#include "agent/api/request.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "agent/base/text.h"
#include "agent/core/explain.h"
#include "agent/core/tz.h"

#define QUERY_BYTES_MAX  16384
#define QUERY_PARAMS_MAX 32
#define LIMIT_DEFAULT    100
#define COUNT_DEFAULT    10
#define COUNT_MAX        1000
#define RATE_MAX         100000

/* What is being read: one for each call. */
struct reader {
    const struct api_head *head;
    const struct api_rules *rules;
    struct api_request *rq;
    struct api_problem *problem;
    unsigned seen; /* API_Q_… */
};

static const char *header(const struct reader *r, const char *name)
{
    return r->head->header(r->head->arg, name);
}

static void bad_query(struct reader *r, const char *name, const char *detail)
{
    char pointer[80] = "?";
    size_t len = text_utf8_cut(name, strlen(name), 64);
    memcpy(pointer + 1, name, len);
    pointer[len + 1] = '\0';
    problems_add(&r->problem->errors, pointer, "%s", detail);
}

/* --- Host ---------------------------------------------------------------------------------------------------------- */

/* Length of the host in "host", "host:port", "[v6]:port", without the port; brackets stay. */
static size_t host_length(const char *host)
{
    if (host[0] == '[') {
        const char *end = strchr(host, ']');
        return end ? (size_t)(end - host) + 1 : strlen(host);
    }
    return strcspn(host, ":");
}

static bool host_is(const char *host, size_t len, const char *name)
{
    return strlen(name) == len && strncasecmp(host, name, len) == 0;
}

static bool is_loopback(const char *host, size_t len)
{
    if (host_is(host, len, "localhost") || host_is(host, len, "[::1]"))
        return true;
    if (len < 7 || len > 15 || strncmp(host, "127.", 4) != 0)
        return false;
    size_t dots = 0;
    for (size_t i = 0; i < len; i++) {
        if (host[i] != '.' && (host[i] < '0' || host[i] > '9'))
            return false;
        dots += host[i] == '.';
    }
    return dots == 3;
}

static bool in_list(const struct option_list *list, const char *host, size_t len)
{
    for (size_t i = 0; list && i < list->count; i++) {
        const char *item = list->items[i];
        if (strncmp(item, "unix:", 5) != 0 && host_length(item) == len && strncasecmp(item, host, len) == 0)
            return true;
    }
    return false;
}

/* A page that a browser loaded from elsewhere can send requests here under a name of its own that resolves to 127.0.0.1
 * (DNS rebinding); its Host tells. */
bool api_host_allowed(const char *host, const struct api_rules *rules)
{
    size_t len = host_length(host);
    if (len == 0)
        return false;
    const char *port = host + len;
    if (*port != '\0' && (*port != ':' || strspn(port + 1, "0123456789") != strlen(port + 1)))
        return false;
    return is_loopback(host, len) || in_list(rules->hosts, host, len) || in_list(rules->listen, host, len);
}

static int check_host(struct reader *r)
{
    const char *arg;
    size_t arg_len;
    unsigned allow;
    const struct api_route *route = api_route_find(r->head->method, r->head->path, &arg, &arg_len, &allow);
    if (r->head->face != API_FACE_TCP || (route && route->keyed))
        return 0;
    const char *host = header(r, "Host");
    if (!host)
        return api_problem_set(r->problem, API_INVALID_REQUEST, "the header Host is missing");
    if (api_host_allowed(host, r->rules))
        return 0;
    return api_problem_set(r->problem, API_MISDIRECTED,
                           "Host '%s' is neither loopback, nor a listen address, nor in api.hosts",
                           TEXTQ(host, strlen(host)));
}

/* --- route and path ------------------------------------------------------------------------------------------------ */

static int find_route(struct reader *r, const char **ret_arg, size_t *ret_arg_len)
{
    unsigned allow = 0;
    const char *path = r->head->path;
    const struct api_route *route = api_route_find(r->head->method, path, ret_arg, ret_arg_len, &allow);
    bool peer = r->head->face == API_FACE_PEER, ops = r->head->face == API_FACE_OPS;
    if ((route && ((route->peer_only && !peer) || (!route->probe && ops))) ||
        (!route && (allow == 0 || ops || (!peer && strncmp(path, "/peer/", 6) == 0))))
        return api_problem_set(r->problem, API_NOT_FOUND, "there is no '%s' here", TEXTQ(path, strlen(path)));
    if (!route) {
        char allowed[API_ALLOW_SIZE];
        api_allow_print(allow, allowed);
        r->problem->allow = allow;
        return api_problem_set(r->problem, API_METHOD_NOT_ALLOWED, "'%s' takes %s, not %s",
                               TEXTQ(path, strlen(path)), allowed,
                               TEXTQ(r->head->method, strlen(r->head->method)));
    }
    r->rq->route = route;
    r->rq->head = strcmp(r->head->method, "HEAD") == 0;
    return 0;
}

static int check_argument(struct reader *r, const char *text, size_t len)
{
    struct err e = {0};
    struct api_request *rq = r->rq;
    switch (rq->route->argument) {
    case API_ARG_ID:
        if (text_check_id(text, len, &e) < 0)
            return api_problem_set(r->problem, API_INVALID_REQUEST, "the path's id: %s", e.text);
        return 0;
    case API_ARG_FIRE:
        if (!fire_id_parse(text, &rq->fire_uid, &rq->fire_seq))
            return api_problem_set(r->problem, API_NOT_FOUND,
                                   "'%s' is no fire's id: 32 hexadecimal digits, a dot, a number",
                                   TEXTQ(text, len));
        return 0;
    case API_ARG_SERVICE:
        if (strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != len)
            return api_problem_set(r->problem, API_INVALID_REQUEST,
                                   "'%s' is no name of a service: [A-Za-z0-9._-]", TEXTQ(text, len));
        return 0;
    case API_ARG_NONE:
    case API_ARG_REST:
        break;
    }
    return 0;
}

static int read_argument(struct reader *r, const char *arg, size_t arg_len)
{
    if (r->rq->route->argument == API_ARG_NONE)
        return 0;
    AUTO(buf_fini) struct buf out = BUF_INIT(sizeof(r->rq->arg) - 1);
    int rc = text_percent_decode(&out, arg, arg_len, false, NULL);
    if (rc == -ERR_NOMEM)
        return api_problem_set(r->problem, API_OVERLOADED, "no memory to read the path");
    if (rc < 0 || !text_utf8_valid(buf_str(&out), out.len))
        return api_problem_set(r->problem, API_INVALID_REQUEST,
                               rc == -ERR_TOO_BIG ? "'%s' in the path is too long"
                                                  : "'%s' in the path is not properly encoded text",
                               TEXTQ(arg, arg_len));
    memcpy(r->rq->arg, buf_str(&out), out.len + 1);
    return check_argument(r, r->rq->arg, out.len);
}

/* --- query --------------------------------------------------------------------------------------------------------- */

static void query_flag(struct reader *r, const char *name, const char *value, bool *ret)
{
    struct err e = {0};
    if (*value == '\0')
        *ret = true;
    else if (text_bool(value, strlen(value), ret, &e) < 0)
        bad_query(r, name, e.text);
}

static void query_number(struct reader *r, const char *name, const char *value, uint32_t max, uint32_t *ret)
{
    struct err e = {0};
    if (text_u32(value, strlen(value), 1, max, ret, &e) < 0)
        bad_query(r, name, e.text);
}

static void query_ns(struct reader *r, const char *name, const char *value)
{
    struct err e = {0};
    if (strcmp(value, "*") == 0 && r->rq->route->all_namespaces)
        r->rq->ns_all = true;
    else if (text_check_namespace(value, strlen(value), &e) < 0)
        bad_query(r, name, e.text);
    else
        memcpy(r->rq->ns, value, strlen(value) + 1);
}

static void query_id(struct reader *r, const char *name, const char *value, char ret[RECORD_ID_MAX])
{
    struct err e = {0};
    if (*value == '\0' || text_check_id(value, strlen(value), &e) < 0)
        bad_query(r, name, *value ? e.text : "must not be empty");
    else
        memcpy(ret, value, strlen(value) + 1);
}

static void query_service(struct reader *r, const char *name, const char *value)
{
    if (*value == '\0' || strlen(value) >= RECORD_SERVICE_MAX)
        bad_query(r, name, "must be the name of a service, or a host with its port if there is one");
    else
        memcpy(r->rq->service, value, strlen(value) + 1);
}

static void query_label(struct reader *r, const char *name, const char *value)
{
    const char *equals = strchr(value, '=');
    struct api_request *rq = r->rq;
    size_t len = equals ? (size_t)(equals - value) : 0;
    if (!equals || len == 0 || len >= API_LABEL_NAME || strlen(equals + 1) >= API_LABEL_VALUE) {
        bad_query(r, name, "must be name=value");
    } else if (rq->labels_count == API_LABELS_MAX) {
        bad_query(r, name, "is there more than 8 times");
    } else {
        struct api_label *l = &rq->labels[rq->labels_count++];
        memcpy(l->name, value, len);
        memcpy(l->value, equals + 1, strlen(equals + 1) + 1);
    }
}

static void query_name(struct reader *r, const char *name, const char *value, int (*parse)(const char *),
                       const char *allowed, int *ret)
{
    int v = parse(value);
    if (v < 0)
        bad_query(r, name, allowed);
    else
        *ret = v;
}

static void query_cursor(struct reader *r, const char *name, const char *value)
{
    struct api_request *rq = r->rq;
    if (rq->route->action == API_JOB_FIRES)
        rq->has_cursor = text_u64(value, strlen(value), 1, INT64_MAX, &rq->before_seq, NULL) == 0;
    else if (rq->route->action == API_FIRE_SEARCH || rq->route->action == API_DEADLETTERS)
        rq->has_cursor = api_fire_cursor_parse(value, rq->after_ns, &rq->fires_after);
    else if (rq->route->action == API_JOB_REVISIONS)
        rq->has_cursor = api_revision_cursor_parse(value, &rq->before_ms, &rq->before_change);
    else
        rq->has_cursor = api_cursor_parse(value, rq->after_ns, rq->after_id);
    if (!rq->has_cursor)
        bad_query(r, name, "is not a next_cursor of this list");
    else if (rq->after_ns[0] && !rq->ns_all && strcmp(rq->after_ns, rq->ns) != 0)
        bad_query(r, name, "is of another namespace's list");
}

static void query_instant(struct reader *r, const char *name, const char *value, int64_t *ret_ms)
{
    struct err e = {0};
    if (text_instant_ms(value, strlen(value), ret_ms, &e) < 0)
        bad_query(r, name, e.text);
}

#define WINDOW_MAX_MS ((uint64_t)366 * 86400 * 1000)

static void query_span(struct reader *r, const char *name, const char *value, uint64_t *ret_ms)
{
    uint64_t ms = 0;
    struct err e = {0};
    if (text_duration_ms(value, strlen(value), &ms, &e) < 0)
        bad_query(r, name, e.text);
    else if (ms < 1000 || ms > WINDOW_MAX_MS)
        bad_query(r, name, "must be from 1s to 366d");
    else
        *ret_ms = ms;
}

/* Its zone is not known yet, but whether it is one does not depend on that. */
static void query_at(struct reader *r, const char *name, const char *value)
{
    struct explain_span span;
    struct err e = {0};
    if (strlen(value) >= sizeof(r->rq->at))
        bad_query(r, name, "is too long");
    else if (explain_at_parse(value, strlen(value), tz_utc(), &span, &e) < 0)
        bad_query(r, name, e.text);
    else
        memcpy(r->rq->at, value, strlen(value) + 1);
}

static const struct {
    const char *name;
    unsigned bit;
} params[] = {
    {"rate", API_Q_RATE},
    {"ns", API_Q_NS},
    {"prefix", API_Q_PREFIX},
    {"label", API_Q_LABEL},
    {"state", API_Q_STATE},
    {"limit", API_Q_LIMIT},
    {"last_outcome", API_Q_LAST_OUTCOME},
    {"count", API_Q_COUNT},
    {"cursor", API_Q_CURSOR},
    {"from", API_Q_FROM},
    {"dry_run", API_Q_DRY_RUN},
    {"all", API_Q_ALL},
    {"to", API_Q_TO},
    {"job", API_Q_JOB},
    {"service", API_Q_SERVICE},
    {"outcome", API_Q_OUTCOME},
    {"key", API_Q_KEY},
    {"at", API_Q_AT},
    {"window", API_Q_WINDOW},
    {"step", API_Q_STEP},
};

static void query_value(struct reader *r, unsigned bit, const char *name, const char *value)
{
    struct api_request *rq = r->rq;
    switch (bit) {
    case API_Q_PREFIX:
        query_id(r, name, value, rq->prefix);
        break;
    case API_Q_JOB:
        query_id(r, name, value, rq->job);
        break;
    case API_Q_SERVICE:
        query_service(r, name, value);
        break;
    case API_Q_RATE:
        query_number(r, name, value, RATE_MAX, &rq->rate);
        break;
    case API_Q_OUTCOME:
        query_name(r, name, value, fire_outcome_parse,
                   "must be pending, succeeded, dead, skipped, coalesced or cancelled", &rq->outcome);
        break;
    case API_Q_LABEL:
        query_label(r, name, value);
        break;
    case API_Q_STATE:
        query_name(r, name, value, job_state_parse, "must be active, paused or done", &rq->state);
        break;
    case API_Q_LAST_OUTCOME:
        query_name(r, name, value, fire_outcome_parse,
                   "must be succeeded, dead, skipped, coalesced or cancelled", &rq->last_outcome);
        break;
    case API_Q_LIMIT:
        query_number(r, name, value, API_LIMIT_MAX, &rq->limit);
        break;
    case API_Q_COUNT:
        query_number(r, name, value, COUNT_MAX, &rq->count);
        break;
    case API_Q_CURSOR:
        query_cursor(r, name, value);
        break;
    case API_Q_FROM:
        query_instant(r, name, value, &rq->from_ms);
        break;
    case API_Q_TO:
        query_instant(r, name, value, &rq->to_ms);
        break;
    case API_Q_WINDOW:
        query_span(r, name, value, &rq->window_ms);
        break;
    case API_Q_STEP:
        query_span(r, name, value, &rq->step_ms);
        break;
    case API_Q_AT:
        query_at(r, name, value);
        break;
    case API_Q_DRY_RUN:
        query_flag(r, name, value, &rq->dry_run);
        break;
    case API_Q_ALL:
        query_flag(r, name, value, &rq->all);
        break;
    case API_Q_KEY: /* one that is too long is a wrong one */
        (void)snprintf(rq->fire_key, sizeof(rq->fire_key), "%s",
                       strlen(value) < sizeof(rq->fire_key) ? value : "");
        break;
    default: /* ns was read first */
        break;
    }
}

static void query_param(struct reader *r, const char *name, const char *value, bool ns_pass)
{
    unsigned bit = 0;
    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++)
        if (strcmp(params[i].name, name) == 0)
            bit = params[i].bit & r->rq->route->query;
    if (ns_pass) {
        if (bit == API_Q_NS)
            query_ns(r, name, value);
        return;
    }
    if (bit == 0)
        bad_query(r, name, "is not a parameter of this path");
    else if ((r->seen & bit) && bit != API_Q_LABEL)
        bad_query(r, name, "is there twice");
    else
        query_value(r, bit, name, value);
    r->seen |= bit;
}

/* One "name=value" of the raw query, decoded into OUT as two texts. ERR_INVALID, ERR_TOO_BIG, ERR_NOMEM. */
static int query_decode(const char *at, size_t len, struct buf *out, const char **ret_value, struct err *e)
{
    const char *equals = memchr(at, '=', len);
    size_t name_len = equals ? (size_t)(equals - at) : len;
    buf_reset(out);
    int rc = text_percent_decode(out, at, name_len, true, e);
    buf_add_char(out, '\0');
    size_t value_at = out->len;
    if (rc == 0 && equals)
        rc = text_percent_decode(out, equals + 1, len - name_len - 1, true, e);
    buf_add_char(out, '\0');
    if (rc == 0)
        rc = buf_check(out, e);
    if (rc == 0 && !text_utf8_valid(out->data, out->len))
        rc = err_set(e, ERR_INVALID, "is not UTF-8");
    *ret_value = buf_str(out) + value_at;
    return rc;
}

static void refuse_undecoded(struct reader *r, const char *at, size_t len, int rc)
{
    if (rc == -ERR_NOMEM)
        r->problem->errors.nomem = true;
    else
        bad_query(r, TEXTQ(at, len), rc == -ERR_TOO_BIG ? "is too long" : "is not properly encoded text");
}

/* Twice: the namespace is what a cursor is checked against. */
static void query_pass(struct reader *r, bool ns_pass)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(QUERY_BYTES_MAX);
    size_t n = 0;
    for (const char *at = r->head->query; *at;) {
        size_t len = strcspn(at, "&");
        const char *value;
        struct err e;
        int rc = len > 0 ? query_decode(at, len, &out, &value, &e) : 0;
        if (len > 0 && ++n > QUERY_PARAMS_MAX) {
            bad_query(r, "", "the query has too many parameters");
            return;
        }
        if (len > 0 && rc == 0)
            query_param(r, buf_str(&out), value, ns_pass);
        else if (rc == -ERR_NOMEM || !ns_pass)
            refuse_undecoded(r, at, len, rc);
        at += len + (at[len] == '&');
    }
}

static int read_query(struct reader *r)
{
    struct api_request *rq = r->rq;
    rq->state = rq->last_outcome = rq->outcome = -1;
    rq->limit = LIMIT_DEFAULT;
    rq->count = COUNT_DEFAULT;
    rq->from_ms = rq->to_ms = RECORD_NONE;
    query_pass(r, true);
    if (r->problem->errors.nomem) /* whose namespace the rest is about is not known */
        return api_problem_errors(r->problem, API_INVALID_REQUEST);
    bool given = rq->ns[0] || rq->ns_all;
    const char *ns = header(r, "Carillon-Namespace");
    struct err e = {0};
    if (ns && (rq->route->query & API_Q_NS)) {
        if (text_check_namespace(ns, strlen(ns), &e) < 0)
            problems_add(&r->problem->errors, "Carillon-Namespace", "%s", e.text);
        else if (given && strcmp(ns, rq->ns) != 0)
            problems_add(&r->problem->errors, "Carillon-Namespace", "is not the query's ns");
        else
            memcpy(rq->ns, ns, strlen(ns) + 1);
    }
    if (rq->ns[0] == '\0')
        memcpy(rq->ns, "default", sizeof("default"));
    query_pass(r, false);
    return problems_any(&r->problem->errors) ? api_problem_errors(r->problem, API_INVALID_REQUEST) : 0;
}

/* --- conditions ---------------------------------------------------------------------------------------------------- */

static bool etag_parse(const char *text, struct uid *ret_uid, uint64_t *ret_version)
{
    size_t len = strlen(text);
    return len >= 36 && text[0] == '"' && text[len - 1] == '"' && text[33] == '.' &&
           uid_parse(text + 1, 32, ret_uid) &&
           text_u64(text + 34, len - 35, 1, UINT64_MAX, ret_version, NULL) == 0;
}

enum api_match api_match_parse(const char *text, struct uid *ret_uid, uint64_t *ret_version)
{
    if (strcmp(text, "*") == 0) {
        *ret_version = 0;
        return API_MATCH_ANY;
    }
    bool weak = strncmp(text, "W/", 2) == 0; /* If-Match compares strongly, RFC 9110 13.1.1 */
    const char *tag = text + (weak ? 2 : 0);
    size_t len = strlen(tag);
    if (len < 2 || tag[0] != '"' || strchr(tag + 1, '"') != tag + len - 1)
        return API_MATCH_BROKEN;
    return !weak && etag_parse(tag, ret_uid, ret_version) ? API_MATCH_ONE : API_MATCH_NONE;
}

static int read_if_match(struct reader *r)
{
    const char *text = header(r, "If-Match");
    struct api_request *rq = r->rq;
    if (!text || !(rq->route->conditions & API_C_IF_MATCH))
        return 0;
    size_t len = strlen(text);
    switch (api_match_parse(text, &rq->match_uid, &rq->match_version)) {
    case API_MATCH_BROKEN:
        return api_problem_set(r->problem, API_INVALID_REQUEST,
                               "If-Match must be * or one ETag as an answer gave it, not '%s'",
                               TEXTQ(text, len));
    case API_MATCH_NONE:
        return api_problem_set(r->problem, API_VERSION_MISMATCH, "no job ever had the ETag %s",
                               TEXTQ(text, len));
    case API_MATCH_ANY:
    case API_MATCH_ONE:
        break;
    }
    rq->if_match = true;
    return 0;
}

static int read_if_none_match(struct reader *r)
{
    const char *text = header(r, "If-None-Match");
    struct api_request *rq = r->rq;
    unsigned known = rq->route->conditions;
    if (!text || !(known & (API_C_IF_NONE_MATCH | API_C_IF_NONE_MATCH_ANY)))
        return 0;
    if (strcmp(text, "*") == 0 && (known & API_C_IF_NONE_MATCH_ANY)) {
        rq->if_none_match = true;
        return 0;
    }
    if (known & API_C_IF_NONE_MATCH_ANY)
        return api_problem_set(r->problem, API_INVALID_REQUEST, "If-None-Match may only be *, not '%s'",
                               TEXTQ(text, strlen(text)));
    if (strlen(text) < sizeof(rq->none_match)) /* of a longer list the job may always be sent */
        memcpy(rq->none_match, text, strlen(text) + 1);
    return 0;
}

static int read_key(struct reader *r)
{
    const char *text = header(r, "Idempotency-Key");
    if (!text || !(r->rq->route->conditions & API_C_KEY))
        return 0;
    size_t len = strlen(text);
    bool printable = len > 0 && len < API_KEY_MAX;
    for (size_t i = 0; printable && i < len; i++)
        printable = text[i] > ' ' && text[i] < 127;
    if (!printable)
        return api_problem_set(r->problem, API_INVALID_REQUEST,
                               "Idempotency-Key must be 1 to %d printable ASCII characters", API_KEY_MAX - 1);
    memcpy(r->rq->key, text, len + 1);
    return 0;
}

/* --- content type -------------------------------------------------------------------------------------------------- */

/* Type and subtype only; "charset=utf-8" is the one parameter that changes nothing. */
static bool media_type_is(const char *text, const char *type)
{
    size_t len = strlen(type);
    if (strncasecmp(text, type, len) != 0)
        return false;
    const char *rest = text + len + strspn(text + len, " \t");
    if (*rest == '\0')
        return true;
    if (*rest != ';')
        return false;
    rest += 1 + strspn(rest + 1, " \t");
    return strcasecmp(rest, "charset=utf-8") == 0 || strcasecmp(rest, "charset=\"utf-8\"") == 0;
}

static bool type_accepted(enum api_body body, const char *type)
{
    switch (body) {
    case API_BODY_NDJSON:
        return media_type_is(type, "application/x-ndjson");
    case API_BODY_MERGE_PATCH:
        return media_type_is(type, "application/merge-patch+json") || media_type_is(type, "application/json");
    case API_BODY_JSON:
    case API_BODY_OPTIONAL:
    case API_BODY_NONE:
        break;
    }
    return media_type_is(type, "application/json");
}

/* A form or an image of a web page can send neither these types nor that header without asking first (CORS), and there is
 * no one here who would say yes. */
static int check_content_type(struct reader *r)
{
    const struct api_route *route = r->rq->route;
    if (route->method == API_GET)
        return 0;
    const char *type = header(r, "Content-Type");
    r->rq->body_is_json = type && type_accepted(route->body, type);
    if (r->rq->body_is_json)
        return 0;
    bool may_be_bare = route->body == API_BODY_NONE || route->body == API_BODY_OPTIONAL;
    if (!type && may_be_bare && (route->keyed || header(r, "Carillon-Client")))
        return 0;
    const char *wanted = route->body == API_BODY_NDJSON ? "application/x-ndjson"
                         : route->body == API_BODY_MERGE_PATCH
                             ? "application/merge-patch+json or application/json"
                             : "application/json";
    if (type)
        return api_problem_set(r->problem, API_UNSUPPORTED_MEDIA_TYPE, "Content-Type must be %s, not '%s'",
                               wanted, TEXTQ(type, strlen(type)));
    return api_problem_set(r->problem, API_UNSUPPORTED_MEDIA_TYPE,
                           may_be_bare ? "a write without a body needs the header Carillon-Client or "
                                         "Content-Type: %s"
                                       : "a write needs Content-Type: %s",
                           wanted);
}

/* --- filter -------------------------------------------------------------------------------------------------------- */

/* Nobody shall hit everything by leaving something out. */
static int check_filter(const struct api_request *rq, struct api_problem *problem)
{
    enum api_action action = rq->route->action;
    bool letters = action == API_DEADLETTERS_REDRIVE || action == API_DEADLETTERS_DISCARD;
    if (rq->at[0] && (rq->from_ms != RECORD_NONE || rq->to_ms != RECORD_NONE))
        return api_problem_set(problem, API_INVALID_REQUEST, "give either at, or from and to");
    if (rq->from_ms != RECORD_NONE && rq->to_ms != RECORD_NONE && rq->from_ms >= rq->to_ms)
        return api_problem_set(problem, API_INVALID_REQUEST, "from must be before to");
    if ((action != API_JOB_DELETE_MANY && !letters) || rq->prefix[0] || rq->labels_count || rq->all)
        return 0;
    if (letters && (rq->job[0] || rq->service[0] || rq->from_ms != RECORD_NONE || rq->to_ms != RECORD_NONE))
        return 0;
    return api_problem_set(problem, API_INVALID_REQUEST, "%s",
                           letters ? "this needs job, prefix, label, service, from, to, or all=true"
                                   : "deleting many needs prefix, label, or all=true");
}

/* --- all of it ----------------------------------------------------------------------------------------------------- */

int api_request_read(const struct api_head *head, const struct api_rules *rules, struct api_request *ret,
                     struct api_problem *problem)
{
    const char *arg = NULL;
    size_t arg_len = 0;
    memset(ret, 0, sizeof(*ret));
    ret->face = head->face;
    struct reader r = {.head = head, .rules = rules, .rq = ret, .problem = problem};
    if (check_host(&r) < 0 || find_route(&r, &arg, &arg_len) < 0 || check_content_type(&r) < 0 ||
        read_argument(&r, arg, arg_len) < 0 || read_query(&r) < 0 || read_if_match(&r) < 0 ||
        read_if_none_match(&r) < 0 || read_key(&r) < 0)
        return -ERR_INVALID;
    return check_filter(ret, problem);
}

/* --- texts --------------------------------------------------------------------------------------------------------- */

void api_etag_print(const struct uid *uid, uint64_t version, char ret[API_ETAG_SIZE])
{
    char text[33];
    uid_print(uid, text);
    (void)snprintf(ret, API_ETAG_SIZE, "\"%s.%llu\"", text, (unsigned long long)version);
}
