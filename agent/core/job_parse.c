/* A job as a user writes it, read into a job_spec: the fields above the callback. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/base/text.h"
#include "agent/core/job_private.h"
#include "agent/core/schedule.h"
#include "agent/core/trace.h"

#define DAY_MS           ((int64_t)24 * 3600 * 1000)
#define YEAR_MS          (366 * DAY_MS)
#define DESCRIPTION_MAX  1024
#define LABEL_VALUE_MAX  256
#define CONTENT_TYPE_MAX 128

static const char *const known_fields[] = {
    "id", "namespace", "schedule", "timezone", "dst", "short_month", "starts_at", "ends_at", "max_fires",
    "jitter", "callback", "payload", "payload_base64", "content_type", "retry", "misfire", "concurrency",
    "max_pending", "delivery", "paused", "labels", "description", "ttl_after_done",
    /* what answers add, ignored so that GET, edit, PUT works */
    "status", "warnings", "next", NULL};

static int compare_pairs(const void *a, const void *b)
{
    const struct job_pair *x = a, *y = b;
    return strcmp(x->name, y->name);
}

void job_read_pairs(struct job_reader *r, const json_t *obj, const struct json_at *at,
                    const struct job_pairs_limits *limits, const struct job_pair **ret, size_t *ret_count)
{
    size_t count = json_object_size(obj), used = 0;
    if (count == 0)
        return;
    if (count > limits->count_max) {
        json_problem(r->problems, at, NULL, "has %zu entries, at most %zu are allowed", count,
                     limits->count_max);
        return;
    }
    struct job_pair *pairs = job_alloc(r->spec, count * sizeof(*pairs), r->e);
    if (!pairs) {
        r->failed = true;
        return;
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)obj, name, value)
    { /* only read: jansson's iterator wants it without const */
        const char *text;
        (void)value;
        if (!json_field_string(obj, name, 0, limits->value_max, &text, NULL, at, r->problems) ||
            !limits->check(r, at, name, text))
            continue;
        pairs[used].name = job_reader_strdup(r, name);
        pairs[used++].value = job_reader_strdup(r, text);
    }
    if (r->failed)
        return;
    if (limits->sort)
        qsort(pairs, used, sizeof(*pairs), compare_pairs);
    *ret = pairs;
    *ret_count = used;
}

static bool check_label(struct job_reader *r, const struct json_at *at, const char *name, const char *value)
{
    size_t len = strlen(name);
    (void)value;
    if (len >= 1 && len <= 63 &&
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-") == len)
        return true;
    json_problem(r->problems, at, name, "a label's name is 1 to 63 of [A-Za-z0-9._/-]");
    return false;
}

static void read_schedule_text(struct job_reader *r, const json_t *value, const struct json_at *at)
{
    const char *text = json_string_value(value);
    if (!text || json_string_length(value) == 0 || json_string_length(value) > SCHEDULE_TEXT_MAX ||
        strlen(text) != json_string_length(value)) {
        json_problem(r->problems, at, NULL,
                     "must be a schedule: a text of 1 to %d bytes such as \"0 9 * * MON-FRI\"",
                     SCHEDULE_TEXT_MAX);
        return;
    }
    const char *copy = job_reader_strdup(r, text);
    if (copy)
        r->spec->schedules[r->spec->schedules_count++] = copy;
}

static void read_schedules(struct job_reader *r, const json_t *doc)
{
    if (!json_require(doc, "schedule", NULL, r->problems))
        return;
    const json_t *value = json_object_get(doc, "schedule");
    struct json_at at = json_at_key(NULL, "schedule");
    if (!json_is_array(value)) {
        read_schedule_text(r, value, &at);
        return;
    }
    r->spec->schedule_is_list = true;
    size_t count = json_array_size(value);
    if (count < 1 || count > JOB_SCHEDULES_MAX) {
        json_problem(r->problems, &at, NULL, "must hold 1 to %d schedules", JOB_SCHEDULES_MAX);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct json_at item = json_at_index(&at, i);
        read_schedule_text(r, json_array_get(value, i), &item);
    }
}

static void read_dst(struct job_reader *r, const json_t *doc)
{
    static const char *const known[] = {"gap", "repeat", NULL};
    static const char *const gaps[] = {"shift", "skip", NULL};
    static const char *const repeats[] = {"first", "second", "both", NULL};
    static const char *const months[] = {"skip", "last", NULL};
    unsigned v = 0;
    if (json_field_enum(doc, "short_month", months, &v, NULL, r->problems))
        r->spec->short_month_last = v == 1;
    const json_t *dst = json_field_object(doc, "dst", NULL, r->problems);
    if (!dst)
        return;
    struct json_at at = json_at_key(NULL, "dst");
    json_unknown_fields(dst, known, &at, r->problems);
    if (json_field_enum(dst, "gap", gaps, &v, &at, r->problems))
        r->spec->dst_gap = v == 1 ? JOB_GAP_SKIP : JOB_GAP_SHIFT;
    if (json_field_enum(dst, "repeat", repeats, &v, &at, r->problems))
        r->spec->dst_repeat = (enum job_dst_repeat)v;
}

static void read_bounds(struct job_reader *r, const json_t *doc)
{
    struct job_spec *s = r->spec;
    int64_t fires;
    uint64_t ms;
    (void)json_field_instant_ms(doc, "starts_at", &s->starts_ms, NULL,
                                r->problems); /* absent: RECORD_NONE stays */
    (void)json_field_instant_ms(doc, "ends_at", &s->ends_ms, NULL, r->problems);
    if (s->starts_ms != RECORD_NONE && s->ends_ms != RECORD_NONE && s->ends_ms <= s->starts_ms)
        json_problem(r->problems, NULL, "ends_at", "must be later than starts_at");
    if (json_field_int(doc, "max_fires", 1, INT64_MAX, &fires, NULL, r->problems))
        s->max_fires = (uint64_t)fires;
    if (json_field_duration_ms(doc, "jitter", 0, DAY_MS, &ms, NULL, r->problems))
        s->jitter_ms = (uint32_t)ms;
    if (json_field_duration_ms(doc, "ttl_after_done", 0, (uint64_t)YEAR_MS, &ms, NULL, r->problems))
        s->ttl_after_done_ms = (int64_t)ms;
}

static void read_retry(struct job_reader *r, const json_t *doc)
{
    static const char *const known[] = {"max_attempts", "min_backoff", "factor", "max_backoff",
                                        "jitter",       "max_age",     NULL};
    const json_t *retry = json_field_object(doc, "retry", NULL, r->problems);
    if (!retry)
        return;
    struct json_at at = json_at_key(NULL, "retry");
    struct retry_rule *rule = &r->spec->retry;
    int64_t attempts;
    json_unknown_fields(retry, known, &at, r->problems);
    if (json_is_null(json_object_get(retry, "max_attempts")))
        rule->max_attempts = 0; /* no limit, whatever the agent's default */
    else if (json_field_int(retry, "max_attempts", 1, 1000000, &attempts, &at, r->problems))
        rule->max_attempts = (uint32_t)attempts;
    bool low =
        json_field_duration_ms(retry, "min_backoff", 1, DAY_MS, &rule->min_backoff_ms, &at, r->problems);
    bool high =
        json_field_duration_ms(retry, "max_backoff", 1, 7 * DAY_MS, &rule->max_backoff_ms, &at, r->problems);
    (void)json_field_double(retry, "factor", 1, 100, &rule->factor, &at,
                            r->problems); /* absent: the default stays */
    (void)json_field_double(retry, "jitter", 0, 1, &rule->jitter, &at, r->problems);
    (void)json_field_duration_ms(retry, "max_age", 1, (uint64_t)YEAR_MS, &rule->max_age_ms, &at, r->problems);
    if (rule->max_backoff_ms >= rule->min_backoff_ms)
        return;
    if (low && high)
        json_problem(r->problems, &at, "max_backoff", "must not be shorter than min_backoff");
    else if (low) /* only one was given: the default of the other gives way */
        rule->max_backoff_ms = rule->min_backoff_ms;
    else
        rule->min_backoff_ms = rule->max_backoff_ms;
}

static void read_rules(struct job_reader *r, const json_t *doc)
{
    static const char *const misfire_known[] = {"policy", "window", NULL};
    static const char *const policies[] = {"all", "last", NULL};
    static const char *const overlaps[] = {"allow", "forbid", "queue", "replace", NULL};
    static const char *const deliveries[] = {"at_least_once", "at_most_once", NULL};
    struct job_spec *s = r->spec;
    unsigned v = 0;
    uint64_t ms;
    int64_t pending;
    const json_t *misfire = json_field_object(doc, "misfire", NULL, r->problems);
    if (misfire) {
        struct json_at at = json_at_key(NULL, "misfire");
        json_unknown_fields(misfire, misfire_known, &at, r->problems);
        if (json_field_enum(misfire, "policy", policies, &v, &at, r->problems))
            s->misfire = (enum job_misfire)v;
        if (json_field_duration_ms(misfire, "window", 1, (uint64_t)YEAR_MS, &ms, &at, r->problems))
            s->misfire_window_ms = (int64_t)ms;
    }
    if (json_field_enum(doc, "concurrency", overlaps, &v, NULL, r->problems))
        s->concurrency = (enum job_concurrency)v;
    if (json_field_int(doc, "max_pending", 1, 10000, &pending, NULL, r->problems))
        s->max_pending = (uint32_t)pending;
    if (json_field_enum(doc, "delivery", deliveries, &v, NULL, r->problems))
        s->at_most_once = v == 1;
    if (s->at_most_once && json_object_get(doc, "retry"))
        json_problem(r->problems, NULL, "retry", "is not allowed with delivery at_most_once");
}

static void read_payload_json(struct job_reader *r, const json_t *payload)
{
    struct buf out = BUF_INIT(JOB_PAYLOAD_MAX);
    struct err e = {0};
    int rc = json_print_ordered(payload, &out, &e);
    if (rc == -ERR_TOO_BIG) {
        json_problem(r->problems, NULL, "payload", "is over %u bytes", JOB_PAYLOAD_MAX);
    } else if (rc < 0) {
        r->failed = true;
        (void)err_set(r->e, e.code, "%s", e.text);
    } else {
        r->spec->payload = job_strdup(r->spec, buf_str(&out), out.len, r->e);
        r->failed |= !r->spec->payload;
        r->spec->payload_bytes = out.len;
        r->spec->payload_is_json = true;
    }
    buf_fini(&out);
}

static void read_payload_bytes(struct job_reader *r, const json_t *doc)
{
    const char *text, *type = "application/octet-stream";
    size_t len;
    if (!json_field_string(doc, "payload_base64", 0, (JOB_PAYLOAD_MAX + 2) / 3 * 4, &text, &len, NULL,
                           r->problems))
        return;
    struct err e = {0};
    if (json_field_string(doc, "content_type", 1, CONTENT_TYPE_MAX, &type, NULL, NULL, r->problems) &&
        text_check_header_value(type, strlen(type), &e) < 0)
        json_problem(r->problems, NULL, "content_type", "%s", e.text);
    struct buf out = BUF_INIT(JOB_PAYLOAD_MAX);
    int rc = text_base64_decode(&out, text, len, &e);
    if (rc == -ERR_INVALID || rc == -ERR_TOO_BIG) {
        json_problem(r->problems, NULL, "payload_base64", "%s",
                     rc == -ERR_TOO_BIG ? "is over 256 KiB" : e.text);
    } else if (rc < 0) {
        r->failed = true;
        (void)err_set(r->e, e.code, "%s", e.text);
    } else if (out.len > 0) {
        r->spec->payload = job_strdup(r->spec, buf_str(&out), out.len, r->e);
        r->failed |= !r->spec->payload;
        r->spec->payload_bytes = out.len;
        r->spec->content_type = job_reader_strdup(r, type);
    }
    buf_fini(&out);
}

static void read_payload(struct job_reader *r, const json_t *doc)
{
    const json_t *payload = json_object_get(doc, "payload");
    const json_t *base64 = json_object_get(doc, "payload_base64");
    if (payload && base64)
        json_problem(r->problems, NULL, "payload_base64", "is not allowed beside payload");
    else if (payload)
        read_payload_json(r, payload);
    else if (base64)
        read_payload_bytes(r, doc);
    if (!base64 && json_object_get(doc, "content_type"))
        json_problem(r->problems, NULL, "content_type",
                     "is only allowed with payload_base64; payload is application/json");
}

static void read_labels(struct job_reader *r, const json_t *doc)
{
    static const struct job_pairs_limits limits = {
        .count_max = JOB_LABELS_MAX, .value_max = LABEL_VALUE_MAX, .check = check_label, .sort = true};
    struct json_at at = json_at_key(NULL, "labels");
    const json_t *labels = json_field_object(doc, "labels", NULL, r->problems);
    if (labels)
        job_read_pairs(r, labels, &at, &limits, &r->spec->labels, &r->spec->labels_count);
    const char *text;
    if (json_field_string(doc, "description", 0, DESCRIPTION_MAX, &text, NULL, NULL, r->problems))
        r->spec->description = job_reader_strdup(r, text);
}

static void read_identity(struct job_reader *r, const json_t *doc)
{
    const char *text;
    struct err e = {0};
    struct job_spec *s = r->spec;
    memcpy(s->ns, r->ctx->ns, strlen(r->ctx->ns) + 1);
    if (json_field_string(doc, "namespace", 1, TEXT_NAMESPACE_MAX, &text, NULL, NULL, r->problems) &&
        strcmp(text, s->ns) != 0)
        json_problem(r->problems, NULL, "namespace", "is not the request's namespace '%s'", s->ns);
    if (!json_field_string(doc, "id", 1, TEXT_ID_MAX, &text, NULL, NULL, r->problems)) {
        if (r->ctx->id)
            memcpy(s->id, r->ctx->id, strlen(r->ctx->id) + 1);
        else
            (void)json_require(doc, "id", NULL, r->problems); /* its own problem */
        return;
    }
    if (text_check_id(text, strlen(text), &e) < 0)
        json_problem(r->problems, NULL, "id", "%s", e.text);
    else if (r->ctx->id && strcmp(text, r->ctx->id) != 0)
        json_problem(r->problems, NULL, "id", "differs from the id '%s' that the request names", r->ctx->id);
    else
        memcpy(s->id, text, strlen(text) + 1);
}

static void set_defaults(struct job_spec *s, const struct job_context *ctx)
{
    const struct job_defaults *d = ctx->defaults;
    s->timezone = "UTC";
    s->starts_ms = s->ends_ms = RECORD_NONE;
    s->retry = d->retry;
    s->misfire = d->misfire;
    s->misfire_window_ms = d->misfire_window_ms;
    s->concurrency = d->concurrency;
    s->max_pending = 16;
    s->ttl_after_done_ms = DAY_MS;
    s->content_type = "application/json";
    s->callback.timeout_ms = d->timeout_ms;
    s->callback.async_timeout_ms = 10 * 60 * 1000;
    s->callback.async_max_ms = DAY_MS;
}

static void report_issue(struct job_reader *r, const struct schedule_issue *issue, json_t *warnings)
{
    if (issue->field == SCHEDULE_FIELD_ENDS_AT)
        return; /* read_bounds() has told */
    struct json_at list = json_at_key(NULL, "schedule"), item = json_at_index(&list, issue->expr);
    const struct json_at *at = &list;
    struct json_at other = json_at_key(NULL, "jitter");
    if (issue->field != SCHEDULE_FIELD_SCHEDULE)
        at = &other;
    else if (r->spec->schedule_is_list)
        at = &item;
    if (issue->kind == SCHEDULE_ERROR_PAST)
        job_refuse(r, JOB_REFUSED_DUE_IN_PAST, at, NULL, "%s", issue->text);
    else if (issue->kind == SCHEDULE_ERROR)
        json_problem(r->problems, at, NULL, "%s", issue->text);
    else if (warnings && json_array_append_new(warnings, json_string(issue->text)) < 0)
        r->failed = true;
}

/* What the schedule says of itself, once its zone is known; then its texts are those that will be stored. */
static void read_dues(struct job_reader *r, const struct tz *zone, json_t *warnings)
{
    struct schedule_issues issues = {0};
    const struct job_spec *present = r->ctx->present;
    bool stays = present && job_schedule_equal(r->spec, present) && r->spec->jitter_ms == present->jitter_ms;
    int rc = job_schedule_parse(r->spec, zone, stays ? NULL : r->ctx, &issues, r->e);
    for (size_t i = 0; i < issues.count; i++)
        report_issue(r, &issues.items[i], warnings);
    if (rc < 0) {
        r->failed |= rc != -ERR_INVALID;
        return;
    }
    for (size_t i = 0; i < r->spec->schedules_count; i++)
        r->spec->schedules[i] = schedule_expr_text(r->spec->schedule, i);
}

static void read_zone(struct job_reader *r, const json_t *doc,
                      const struct tz *(*zone_of)(void *arg, const char *name), void *arg, json_t *warnings)
{
    const char *name = "UTC";
    if (json_field_string(doc, "timezone", 1, 64, &name, NULL, NULL, r->problems))
        r->spec->timezone = job_reader_strdup(r, name);
    const struct tz *zone = zone_of(arg, name);
    if (!zone) {
        json_problem(r->problems, NULL, "timezone",
                     "'%s' is not a zone of the IANA database such as Europe/Berlin or UTC", name);
        zone = zone_of(arg, "UTC"); /* what else is wrong with the schedule is told at once */
    }
    if (zone && !r->failed && r->spec->schedules_count > 0)
        read_dues(r, zone, warnings);
}

static void read_paused(struct job_reader *r, const json_t *doc, int *ret_paused)
{
    bool paused;
    *ret_paused = json_field_bool(doc, "paused", &paused, NULL, r->problems) ? paused : -1;
}

/* Phase of @every: starts_at, else when the job was made. */
static void settle_phase(struct job_reader *r)
{
    struct job_spec *s = r->spec;
    for (size_t i = 0; i < s->schedules_count; i++)
        s->has_every |= strncasecmp(s->schedules[i], "@every", 6) == 0;
    if (s->has_every)
        s->phase_ms = s->starts_ms != RECORD_NONE         ? s->starts_ms
                      : r->ctx->created_ms != RECORD_NONE ? r->ctx->created_ms
                                                          : r->ctx->now_ms;
}

static void keep_trace(struct job_reader *r, const struct trace *trace)
{
    if (trace->parent[0])
        r->spec->traceparent = job_reader_strdup(r, trace->parent);
    if (trace->state[0])
        r->spec->tracestate = job_reader_strdup(r, trace->state);
}

static void read_body(struct job_reader *r, const json_t *doc, int *ret_paused)
{
    json_unknown_fields(doc, known_fields, NULL, r->problems);
    read_identity(r, doc);
    read_schedules(r, doc);
    read_dst(r, doc);
    read_bounds(r, doc);
    job_read_callback(r, doc);
    read_payload(r, doc);
    read_retry(r, doc);
    read_rules(r, doc);
    read_paused(r, doc, ret_paused);
    read_labels(r, doc);
    settle_phase(r);
}

int job_spec_parse(const json_t *doc, const struct job_context *ctx,
                   const struct tz *(*zone_of)(void *arg, const char *name), void *arg, struct problems *p,
                   enum job_refusal *ret_refusal, json_t *warnings, int *ret_paused, struct job_spec **ret,
                   struct err *e)
{
    struct err own = {0};
    struct job_reader r = {.ctx = ctx, .problems = p, .e = e ? e : &own};
    int paused = -1;
    if (!json_expect_object(doc, NULL, p))
        return err_set(e, ERR_INVALID, "a job must be a JSON object");
    int rc = job_spec_new(&r.spec, r.e);
    if (rc < 0)
        return rc;
    set_defaults(r.spec, ctx);
    read_body(&r, doc, &paused);
    if (ctx->trace)
        keep_trace(&r, ctx->trace);
    read_zone(&r, doc, zone_of, arg, warnings);
    if (r.failed)
        rc = -ERR_NOMEM;
    else if (problems_any(p))
        rc = problems_check(p, r.e);
    else
        rc = job_seal(r.spec, r.e);
    if (rc < 0) {
        *ret_refusal = r.refusal;
        job_spec_unref(r.spec);
        return rc;
    }
    *ret_paused = paused;
    *ret = r.spec;
    return 0;
}

/* Checked again: it is not worth a job that does not load. */
static void take_trace(struct job_reader *r, const json_t *list)
{
    struct trace trace;
    trace_read(json_string_value(json_array_get(list, 0)), json_string_value(json_array_get(list, 1)),
               &trace);
    keep_trace(r, &trace);
}

/* Keys of a definition that no user writes, taken out before the common reader sees it. */
static int take_private_keys(struct job_reader *r, json_t *doc)
{
    const char *type = json_string_value(json_object_get(doc, "content_type"));
    const char *phase = json_string_value(json_object_get(doc, "phase"));
    int64_t phase_ms = RECORD_NONE;
    if (phase && text_instant_ms(phase, strlen(phase), &phase_ms, r->e) < 0)
        return err_wrap(r->e, "phase");
    r->spec->content_type = type ? job_reader_strdup(r, type) : "application/json";
    r->spec->payload_is_json = type == NULL;
    r->spec->phase_ms = phase_ms == RECORD_NONE ? 0 : phase_ms;
    r->spec->has_every = phase != NULL;
    take_trace(r, json_object_get(doc, "trace"));
    (void)json_object_del(doc, "content_type"); /* absent is fine */
    (void)json_object_del(doc, "phase");
    (void)json_object_del(doc, "trace");
    return r->failed ? -ERR_NOMEM : 0;
}

static int decode_body(struct job_reader *r, json_t *doc)
{
    int paused;
    int rc = take_private_keys(r, doc);
    if (rc < 0)
        return rc;
    bool has_every = r->spec->has_every;
    int64_t phase_ms = r->spec->phase_ms;
    read_body(r, doc, &paused);
    const char *zone = json_string_value(json_object_get(doc, "timezone"));
    if (zone)
        r->spec->timezone = job_reader_strdup(r, zone);
    r->spec->has_every = has_every;
    r->spec->phase_ms = phase_ms;
    return r->failed ? -ERR_NOMEM : problems_check(r->problems, r->e);
}

static int decode_payload_bytes(struct job_spec *spec, const void *payload, size_t bytes, struct err *e)
{
    if (!payload)
        return 0;
    spec->payload = job_strdup(spec, payload, bytes, e);
    spec->payload_bytes = bytes;
    return spec->payload ? 0 : -ERR_NOMEM;
}

int job_spec_decode(const char *definition, size_t definition_bytes, const void *payload,
                    size_t payload_bytes, struct job_spec **ret, struct err *e)
{
    struct err own = {0};
    struct problems problems;
    struct job_defaults defaults;
    json_t *doc = NULL;
    problems_init(&problems);
    job_defaults_init(&defaults);
    defaults.allow_loopback = true; /* judged at the write */
    struct job_context ctx = {.defaults = &defaults, .created_ms = RECORD_NONE};
    struct job_reader r = {.ctx = &ctx, .problems = &problems, .e = e ? e : &own};
    int rc = json_read(definition, definition_bytes, MEM_TRY_MAX_BYTES, &doc, r.e);
    if (rc == 0)
        rc = job_spec_new(&r.spec, r.e);
    if (rc == 0) {
        const char *ns = json_string_value(json_object_get(doc, "namespace"));
        ctx.ns = ns && strlen(ns) <= TEXT_NAMESPACE_MAX ? ns : "";
        set_defaults(r.spec, &ctx);
        rc = decode_body(&r, doc);
    }
    if (rc == 0)
        rc = decode_payload_bytes(r.spec, payload, payload_bytes, r.e);
    if (rc == 0)
        rc = job_seal(r.spec, r.e);
    json_decref(doc);
    problems_fini(&problems);
    if (rc < 0) {
        job_spec_unref(r.spec);
        return err_wrap(r.e, "read a job's definition");
    }
    *ret = r.spec;
    return 0;
}
