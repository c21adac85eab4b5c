#include "agent/core/job.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/job_private.h"
#include "agent/core/schedule.h"

int job_spec_new(struct job_spec **ret, struct err *e)
{
    struct job_spec *spec = mem_try_alloc(sizeof(*spec), e);
    if (!spec)
        return -ERR_NOMEM;
    spec->private = mem_try_alloc(sizeof(*spec->private), e);
    if (!spec->private) {
        mem_free(spec);
        return -ERR_NOMEM;
    }
    atomic_init(&spec->private->refs, 1);
    spec->private->memory_bytes = sizeof(*spec) + sizeof(*spec->private);
    *ret = spec;
    return 0;
}

static void spec_free(struct job_spec *spec)
{
    struct job_chunk *chunk = spec->private->chunks;
    while (chunk) {
        struct job_chunk *next = chunk->next;
        mem_free(chunk);
        chunk = next;
    }
    schedule_free(spec->private->schedule);
    mem_free(spec->private->definition);
    mem_free(spec->private);
    mem_free(spec);
}

struct job_spec *job_spec_ref(struct job_spec *spec)
{
    unsigned before = atomic_fetch_add_explicit(&spec->private->refs, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return spec;
}

void job_spec_unref(struct job_spec *spec)
{
    if (!spec)
        return;
    if (atomic_fetch_sub_explicit(&spec->private->refs, 1, memory_order_acq_rel) == 1)
        spec_free(spec);
}

void *job_alloc(struct job_spec *spec, size_t bytes, struct err *e)
{
    struct job_chunk *chunk = mem_try_alloc(sizeof(*chunk) + bytes, e);
    if (!chunk)
        return NULL;
    chunk->next = spec->private->chunks;
    spec->private->chunks = chunk;
    spec->private->memory_bytes += sizeof(*chunk) + bytes;
    return chunk->data;
}

char *job_strdup(struct job_spec *spec, const char *s, size_t len, struct err *e)
{
    char *copy = job_alloc(spec, len + 1, e);
    if (copy)
        memcpy(copy, s, len);
    return copy;
}

char *job_reader_strdup(struct job_reader *r, const char *s)
{
    char *copy = job_strdup(r->spec, s, strlen(s), r->e);
    r->failed |= copy == NULL;
    return copy;
}

void job_refuse(struct job_reader *r, enum job_refusal why, const struct json_at *at, const char *key,
                const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); /* cut when too long: a sentence for people */
    va_end(ap);
    if (r->refusal == JOB_REFUSED_INVALID)
        r->refusal = why;
    json_problem(r->problems, at, key, "%s", text);
}

const char *job_spec_definition(const struct job_spec *spec, size_t *ret_bytes)
{
    *ret_bytes = spec->private->definition_bytes;
    return spec->private->definition;
}

size_t job_spec_memory_bytes(const struct job_spec *spec)
{
    return spec->private->memory_bytes + spec->private->definition_bytes;
}

bool job_spec_equal(const struct job_spec *a, const struct job_spec *b)
{
    const struct job_spec_private *x = a->private, *y = b->private;
    return x->same_bytes == y->same_bytes && memcmp(x->definition, y->definition, x->same_bytes) == 0 &&
           a->payload_bytes == b->payload_bytes && (!a->payload) == (!b->payload) &&
           (!a->payload || memcmp(a->payload, b->payload, a->payload_bytes) == 0);
}

bool job_schedule_equal(const struct job_spec *a, const struct job_spec *b)
{
    if (a->schedules_count != b->schedules_count || strcmp(a->timezone, b->timezone) != 0 ||
        a->starts_ms != b->starts_ms || a->ends_ms != b->ends_ms || a->dst_gap != b->dst_gap ||
        a->dst_repeat != b->dst_repeat || a->short_month_last != b->short_month_last ||
        (a->has_every && a->phase_ms != b->phase_ms))
        return false;
    for (size_t i = 0; i < a->schedules_count; i++)
        if (strcmp(a->schedules[i], b->schedules[i]) != 0)
            return false;
    return true;
}

bool job_first_due(const struct job_spec *spec, int64_t accepted_ms, int64_t after_ms, int64_t *ret_due_ms)
{
    struct schedule_due due;
    if (!schedule_next_accepted(spec->schedule, accepted_ms, after_ms, &due))
        return false;
    *ret_due_ms = due.due_ms;
    return true;
}

bool job_next_due(const struct job_spec *spec, int64_t after_ms, int64_t *ret_due_ms)
{
    struct schedule_due due;
    if (!schedule_next(spec->schedule, after_ms, &due))
        return false;
    *ret_due_ms = due.due_ms;
    return true;
}

bool job_last_due_before(const struct job_spec *spec, int64_t before_ms, int64_t *ret_due_ms)
{
    struct schedule_due due;
    if (!schedule_last_before(spec->schedule, before_ms, &due))
        return false;
    *ret_due_ms = due.due_ms;
    return true;
}

uint64_t job_count_dues(const struct job_spec *spec, int64_t from_ms, int64_t to_ms, uint64_t cap)
{
    return schedule_count(spec->schedule, from_ms, to_ms, cap);
}

uint32_t job_jitter_ms(const struct job_spec *spec, const struct uid *uid, int64_t due_ms)
{
    return (uint32_t)schedule_jitter_ms(uid->bytes, due_ms, spec->jitter_ms);
}

void job_callee(const struct job_spec *spec, char ret[RECORD_SERVICE_MAX])
{
    const struct job_callback *c = &spec->callback;
    const char *text = c->service ? c->service : c->url ? c->url : c->address ? c->address : "";
    size_t len = strlen(text);
    if (!c->service && c->url) {
        const char *host = strstr(text, "://");
        text = host ? host + 3 : text;
        len = strcspn(text, "/?#");
    }
    if (len >= RECORD_SERVICE_MAX)
        len = RECORD_SERVICE_MAX - 1; /* cut: for people */
    memcpy(ret, text, len);
    ret[len] = '\0';
}

static struct schedule_options schedule_options_of(const struct job_spec *spec, const struct tz *zone,
                                                   int64_t min_interval_ms)
{
    return (struct schedule_options){
        .tz = zone,
        .gap = spec->dst_gap == JOB_GAP_SKIP ? SCHEDULE_GAP_SKIP : SCHEDULE_GAP_SHIFT,
        .repeat = (enum schedule_repeat)spec->dst_repeat,
        .short_month = spec->short_month_last ? SCHEDULE_SHORT_MONTH_LAST : SCHEDULE_SHORT_MONTH_SKIP,
        .starts_ms = spec->starts_ms,
        .ends_ms = spec->ends_ms,
        .phase_ms = spec->phase_ms,
        .min_interval_ms = min_interval_ms,
        .jitter_ms = spec->jitter_ms,
        .ns = spec->ns,
        .id = spec->id,
    };
}

static size_t expressions_of(const struct job_spec *spec, struct schedule_expr ret[JOB_SCHEDULES_MAX])
{
    for (size_t i = 0; i < spec->schedules_count; i++)
        ret[i] = (struct schedule_expr){.text = spec->schedules[i], .len = strlen(spec->schedules[i])};
    return spec->schedules_count;
}

int job_schedule_unskipped(const struct job_spec *spec, struct schedule **ret, struct err *e)
{
    struct schedule_expr exprs[JOB_SCHEDULES_MAX];
    struct schedule_options o = schedule_options_of(spec, schedule_tz(spec->schedule), 1);
    o.gap = SCHEDULE_GAP_SHIFT;
    o.repeat = SCHEDULE_REPEAT_BOTH;
    o.short_month = SCHEDULE_SHORT_MONTH_LAST;
    o.jitter_ms = 0;
    return schedule_parse(exprs, expressions_of(spec, exprs), &o, ret, NULL, e);
}

int job_schedule_parse(struct job_spec *spec, const struct tz *zone, const struct job_context *arming,
                       struct schedule_issues *issues, struct err *e)
{
    struct schedule_expr exprs[JOB_SCHEDULES_MAX];
    struct schedule_options o =
        schedule_options_of(spec, zone, arming ? arming->defaults->min_interval_ms : 1);
    o.arming = arming != NULL;
    o.accepted_ms = arming ? arming->now_ms : 0;
    o.before = arming && arming->present ? arming->present->schedule : NULL;
    o.before_unseen = arming && arming->present_unseen;
    struct schedule *schedule;
    int rc = schedule_parse(exprs, expressions_of(spec, exprs), &o, &schedule, issues, e);
    if (rc < 0)
        return rc;
    schedule_free(spec->private->schedule);
    spec->private->schedule = schedule;
    spec->schedule = schedule;
    spec->one_shot = !schedule_is_recurring(schedule);
    return 0;
}

int job_spec_bind(struct job_spec *spec, const struct tz *zone, struct err *e)
{
    int rc = job_schedule_parse(spec, zone, NULL, NULL, e);
    return rc < 0 ? err_wrap(e, "schedule of job '%s'", spec->id) : 0;
}

void job_defaults_init(struct job_defaults *d)
{
    *d = (struct job_defaults){
        .timeout_ms = 30 * 1000,
        .retry = retry_rule_default(),
        .misfire = JOB_MISFIRE_ALL,
        .misfire_window_ms = 24 * 3600 * 1000,
        .concurrency = JOB_ALLOW,
        .min_interval_ms = 1000,
    };
}
