/* The canonical definition: printed from the spec's fields, in the order of answers, so that these need only copy it. What no user
 * gave stands at its end. */
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/job_private.h"

void job_print_key(struct buf *out, const char *key)
{
    if (out->len > 0 && out->data[out->len - 1] != '{')
        buf_add_char(out, ',');
    buf_add_char(out, '"');
    buf_add_str(out, key);
    buf_add(out, "\":", 2);
}

void job_print_text(struct buf *out, const char *key, const char *text)
{
    if (!text)
        return;
    job_print_key(out, key);
    json_print_string(out, text, strlen(text));
}

void job_print_duration(struct buf *out, const char *key, uint64_t ms)
{
    char text[TEXT_DURATION_SIZE];
    text_duration_print(text, ms);
    job_print_text(out, key, text);
}

void job_print_instant(struct buf *out, const char *key, int64_t ms)
{
    char text[TEXT_INSTANT_SIZE];
    if (ms == RECORD_NONE)
        return;
    text_instant_print(text, ms);
    job_print_text(out, key, text);
}

void job_print_number(struct buf *out, const char *key, uint64_t v)
{
    job_print_key(out, key);
    buf_add_u64(out, v);
}

void job_print_texts(struct buf *out, const char *key, const char *const *texts, size_t count)
{
    job_print_key(out, key);
    for (size_t i = 0; i < count; i++) {
        buf_add_char(out, i == 0 ? '[' : ',');
        json_print_string(out, texts[i], strlen(texts[i]));
    }
    buf_add_char(out, ']');
}

void job_print_pairs(struct buf *out, const char *key, const struct job_pair *pairs, size_t count)
{
    if (count == 0)
        return;
    job_print_key(out, key);
    buf_add_char(out, '{');
    for (size_t i = 0; i < count; i++) {
        buf_add_str(out, i ? "," : "");
        json_print_string(out, pairs[i].name, strlen(pairs[i].name));
        buf_add_char(out, ':');
        json_print_string(out, pairs[i].value, strlen(pairs[i].value));
    }
    buf_add_char(out, '}');
}

static void print_real(struct buf *out, const char *key, double v)
{
    job_print_key(out, key);
    json_print_real(out, v);
}

bool job_dst_is_default(const struct job_spec *s)
{
    return s->dst_gap == JOB_GAP_SHIFT && s->dst_repeat == JOB_REPEAT_FIRST;
}

static void print_when(struct buf *out, const struct job_spec *s)
{
    static const char *const repeats[] = {"first", "second", "both"};
    if (s->schedule_is_list)
        job_print_texts(out, "schedule", s->schedules, s->schedules_count);
    else
        job_print_text(out, "schedule", s->schedules[0]);
    job_print_text(out, "timezone", s->timezone);
    if (!job_dst_is_default(s)) {
        job_print_key(out, "dst");
        buf_add_char(out, '{');
        job_print_text(out, "gap", s->dst_gap == JOB_GAP_SKIP ? "skip" : "shift");
        job_print_text(out, "repeat", repeats[s->dst_repeat]);
        buf_add_char(out, '}');
    }
    if (s->short_month_last)
        job_print_text(out, "short_month", "last");
    job_print_instant(out, "starts_at", s->starts_ms);
    job_print_instant(out, "ends_at", s->ends_ms);
    if (s->max_fires > 0)
        job_print_number(out, "max_fires", s->max_fires);
    if (s->jitter_ms > 0)
        job_print_duration(out, "jitter", s->jitter_ms);
}

static void print_retry(struct buf *out, const struct retry_rule *rule)
{
    job_print_key(out, "retry");
    buf_add_char(out, '{');
    job_print_key(out, "max_attempts");
    if (rule->max_attempts > 0)
        buf_add_u64(out, rule->max_attempts);
    else /* said, since an agent's default may be a limit */
        buf_add_str(out, "null");
    job_print_duration(out, "min_backoff", rule->min_backoff_ms);
    print_real(out, "factor", rule->factor);
    job_print_duration(out, "max_backoff", rule->max_backoff_ms);
    print_real(out, "jitter", rule->jitter);
    job_print_duration(out, "max_age", rule->max_age_ms);
    buf_add_char(out, '}');
}

static void print_rules(struct buf *out, const struct job_spec *s)
{
    static const char *const misfires[] = {"all", "last"};
    static const char *const overlaps[] = {"allow", "forbid", "queue", "replace"};
    if (s->at_most_once)
        job_print_text(out, "delivery", "at_most_once");
    else
        print_retry(out, &s->retry);
    job_print_key(out, "misfire");
    buf_add_char(out, '{');
    job_print_text(out, "policy", misfires[s->misfire]);
    job_print_duration(out, "window", (uint64_t)s->misfire_window_ms);
    buf_add_char(out, '}');
    job_print_text(out, "concurrency", overlaps[s->concurrency]);
    job_print_number(out, "max_pending", s->max_pending);
    job_print_duration(out, "ttl_after_done", (uint64_t)s->ttl_after_done_ms);
}

/* All that a user gave, but the payload. */
static void print_given(struct buf *out, const struct job_spec *s)
{
    buf_add_char(out, '{');
    job_print_text(out, "id", s->id);
    job_print_text(out, "namespace", s->ns);
    print_when(out, s);
    job_print_key(out, "callback");
    job_print_callback(out, &s->callback);
    print_rules(out, s);
    job_print_pairs(out, "labels", s->labels, s->labels_count);
    job_print_text(out, "description", s->description);
}

int job_seal(struct job_spec *spec, struct err *e)
{
    struct buf out = BUF_INIT(MEM_TRY_MAX_BYTES / 2);
    struct job_spec_private *p = spec->private;
    print_given(&out, spec);
    size_t given = out.len;
    if (spec->has_every)
        job_print_instant(&out, "phase", spec->phase_ms);
    if (spec->payload && !spec->payload_is_json)
        job_print_text(&out, "content_type", spec->content_type);
    size_t same = out.len;
    if (spec->traceparent)
        job_print_texts(&out, "trace", (const char *const[]){spec->traceparent, spec->tracestate},
                        spec->tracestate ? 2 : 1);
    buf_add_char(&out, '}');
    p->definition = buf_steal(&out, &p->definition_bytes, e);
    buf_fini(&out);
    if (!p->definition)
        return err_wrap(e, "print a job's definition");
    p->given_bytes = given;
    p->same_bytes = same;
    return 0;
}
