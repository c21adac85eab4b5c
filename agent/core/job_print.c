/* A job_spec as JSON: the stored definition, the user's document, the answer with its status. */
#include <assert.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/job_private.h"

static const char *const misfires[] = {"all", "last"};
static const char *const overlaps[] = {"allow", "forbid", "queue", "replace"};
static const char *const repeats[] = {"first", "second", "both"};

static json_t *schedules_document(const struct job_spec *s)
{
    if (!s->schedule_is_list)
        return json_string(s->schedules[0]);
    json_t *list = json_array();
    for (size_t i = 0; list && i < s->schedules_count; i++)
        if (json_array_append_new(list, json_string(s->schedules[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static int set_when(json_t *doc, const struct job_spec *s, struct err *e)
{
    int rc = json_set(doc, "schedule", schedules_document(s), e);
    rc |= json_set(doc, "timezone", json_string(s->timezone), e);
    if (s->dst_gap != JOB_GAP_SHIFT || s->dst_repeat != JOB_REPEAT_FIRST)
        rc |= json_set(doc, "dst",
                       json_pack("{s:s,s:s}", "gap", s->dst_gap == JOB_GAP_SKIP ? "skip" : "shift", "repeat",
                                 repeats[s->dst_repeat]),
                       e);
    if (s->short_month_last)
        rc |= json_set(doc, "short_month", json_string("last"), e);
    if (s->starts_ms != RECORD_NONE)
        rc |= json_set_instant(doc, "starts_at", s->starts_ms, e);
    if (s->ends_ms != RECORD_NONE)
        rc |= json_set_instant(doc, "ends_at", s->ends_ms, e);
    if (s->max_fires > 0)
        rc |= json_set(doc, "max_fires", json_integer((json_int_t)s->max_fires), e);
    if (s->jitter_ms > 0)
        rc |= json_set_duration(doc, "jitter", s->jitter_ms, e);
    return rc;
}

static json_t *retry_document(const struct retry_rule *rule)
{
    struct err e = {0};
    json_t *doc = json_object();
    int rc = 0;
    if (rule->max_attempts > 0)
        rc |= json_set(doc, "max_attempts", json_integer(rule->max_attempts), &e);
    rc |= json_set_duration(doc, "min_backoff", rule->min_backoff_ms, &e);
    rc |= json_set(doc, "factor", json_real(rule->factor), &e);
    rc |= json_set_duration(doc, "max_backoff", rule->max_backoff_ms, &e);
    rc |= json_set(doc, "jitter", json_real(rule->jitter), &e);
    rc |= json_set_duration(doc, "max_age", rule->max_age_ms, &e);
    if (rc < 0) {
        json_decref(doc);
        return NULL;
    }
    return doc;
}

static int set_rules(json_t *doc, const struct job_spec *s, struct err *e)
{
    int rc = 0;
    json_t *misfire = json_object();
    if (s->at_most_once)
        rc |= json_set(doc, "delivery", json_string("at_most_once"), e);
    else
        rc |= json_set(doc, "retry", retry_document(&s->retry), e);
    rc |= json_set(misfire, "policy", json_string(misfires[s->misfire]), e);
    rc |= json_set_duration(misfire, "window", (uint64_t)s->misfire_window_ms, e);
    rc |= json_set(doc, "misfire", misfire, e);
    rc |= json_set(doc, "concurrency", json_string(overlaps[s->concurrency]), e);
    rc |= json_set(doc, "max_pending", json_integer(s->max_pending), e);
    rc |= json_set_duration(doc, "ttl_after_done", (uint64_t)s->ttl_after_done_ms, e);
    return rc;
}

static int set_labels(json_t *doc, const struct job_spec *s, struct err *e)
{
    int rc = 0;
    if (s->labels_count > 0) {
        json_t *labels = json_object();
        for (size_t i = 0; i < s->labels_count; i++)
            rc |= json_set(labels, s->labels[i].name, json_string(s->labels[i].value), e);
        rc |= json_set(doc, "labels", labels, e);
    }
    if (s->description)
        rc |= json_set(doc, "description", json_string(s->description), e);
    return rc;
}

json_t *job_definition_document(const struct job_spec *s)
{
    struct err e = {0};
    json_t *doc = json_object();
    int rc = json_set(doc, "id", json_string(s->id), &e);
    rc |= json_set(doc, "namespace", json_string(s->ns), &e);
    rc |= set_when(doc, s, &e);
    rc |= json_set(doc, "callback", job_callback_document(&s->callback), &e);
    rc |= set_rules(doc, s, &e);
    rc |= set_labels(doc, s, &e);
    if (rc < 0) {
        json_decref(doc);
        return NULL;
    }
    return doc;
}

/* What only the stored form holds: the phase, and how the payload was given. */
int job_seal(struct job_spec *spec, struct err *e)
{
    struct buf out = BUF_INIT(MEM_TRY_MAX_BYTES / 2);
    json_t *doc = job_definition_document(spec);
    int rc = doc ? 0 : err_set(e, ERR_NOMEM, "out of memory for a job's definition");
    if (rc == 0 && spec->has_every)
        rc = json_set_instant(doc, "phase", spec->phase_ms, e);
    if (rc == 0 && spec->payload && !spec->payload_is_json)
        rc = json_set(doc, "content_type", json_string(spec->content_type), e);
    if (rc == 0)
        rc = json_print(doc, &out, e);
    json_decref(doc);
    if (rc == 0)
        spec->private->definition = buf_steal(&out, &spec->private->definition_bytes, e);
    buf_fini(&out);
    return rc < 0 ? rc : spec->private->definition ? 0 : -ERR_NOMEM;
}

static json_t *decode_payload(const struct job_spec *spec, const char **ret_key)
{
    json_t *value = NULL;
    if (spec->payload_is_json) {
        *ret_key = "payload";
        if (json_read(spec->payload, spec->payload_bytes, JOB_PAYLOAD_MAX, &value, NULL) < 0)
            return NULL;
        return value;
    }
    struct buf text = BUF_INIT((size_t)JOB_PAYLOAD_MAX * 2);
    *ret_key = "payload_base64";
    text_base64_encode(&text, spec->payload, spec->payload_bytes);
    if (!buf_failed(&text))
        value = json_stringn(buf_str(&text), text.len);
    buf_fini(&text);
    return value;
}

int job_document(const struct job_spec *spec, const struct job_row *row, json_t **ret, struct err *e)
{
    json_t *doc = job_definition_document(spec);
    int rc = doc ? 0 : err_set(e, ERR_NOMEM, "out of memory for a job's document");
    if (rc == 0 && spec->payload) {
        const char *key;
        json_t *payload = decode_payload(spec, &key);
        rc = json_set(doc, key, payload, e);
        if (rc == 0 && !spec->payload_is_json)
            rc = json_set(doc, "content_type", json_string(spec->content_type), e);
    }
    if (rc == 0 && row && row->state == JOB_STATE_PAUSED)
        rc = json_set(doc, "paused", json_true(), e);
    if (rc < 0) {
        json_decref(doc);
        return rc;
    }
    *ret = doc;
    return 0;
}

static void add_instant(struct buf *out, const char *key, int64_t ms)
{
    buf_addf(out, ",\"%s\":", key);
    if (ms == RECORD_NONE) {
        buf_add_str(out, "null");
        return;
    }
    char text[TEXT_INSTANT_SIZE];
    text_instant_print(text, ms);
    buf_addf(out, "\"%s\"", text);
}

static void add_counts(struct buf *out, const struct job_counts *c)
{
    uint64_t ended = c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled;
    assert(ended <= c->seq);
    buf_addf(out,
             ",\"counts\":{\"seq\":%llu,\"succeeded\":%llu,\"dead\":%llu,\"skipped\":%llu,\"coalesced\":%llu",
             (unsigned long long)c->seq, (unsigned long long)c->succeeded, (unsigned long long)c->dead,
             (unsigned long long)c->skipped, (unsigned long long)c->coalesced);
    buf_addf(out, ",\"cancelled\":%llu,\"pending\":%llu}", (unsigned long long)c->cancelled,
             (unsigned long long)(c->seq - ended));
}

static void add_last_fire(struct buf *out, const struct job_row *row)
{
    if (row->last.seq == 0) {
        buf_add_str(out, ",\"last_fire\":null");
        return;
    }
    char fire[56];
    fire_id_print(&row->uid, row->last.seq, fire);
    const char *reason = fire_reason_name(row->last.reason);
    buf_addf(out, ",\"last_fire\":{\"fire\":\"%s\",\"seq\":%llu", fire, (unsigned long long)row->last.seq);
    add_instant(out, "due", row->last.due_ms);
    add_instant(out, "finished_at", row->last.finished_ms);
    buf_addf(out, ",\"outcome\":\"%s\",\"reason\":", fire_outcome_name(row->last.outcome));
    if (reason)
        buf_addf(out, "\"%s\"}", reason);
    else
        buf_add_str(out, "null}");
}

static void add_status(struct buf *out, const struct job_spec *spec, const struct job_row *row,
                       const char *owner)
{
    char uid[33];
    uid_print(&row->uid, uid);
    buf_addf(out, ",\"status\":{\"uid\":\"%s\",\"version\":%llu,\"state\":\"%s\"", uid,
             (unsigned long long)row->version, job_state_name(row->state));
    add_instant(out, "next_due", row->state == JOB_STATE_DONE ? RECORD_NONE : row->due_ms);
    if (spec->has_every)
        add_instant(out, "phase", spec->phase_ms);
    add_instant(out, "created_at", row->created_ms);
    add_instant(out, "updated_at", row->updated_ms);
    buf_add_str(out, ",\"owner\":");
    json_print_string(out, owner, strlen(owner));
    add_counts(out, &row->counts);
    add_last_fire(out, row);
    add_instant(out, "last_success_at", row->last_success_ms);
    buf_addf(out, ",\"consecutive_failures\":%u", row->consecutive_failures);
    add_instant(out, "failing_since", row->failing_since_ms);
    buf_add_char(out, '}');
}

static void add_payload(struct buf *out, const struct job_spec *spec)
{
    if (!spec->payload)
        return;
    if (spec->payload_is_json) { /* stored as it is sent: compact JSON */
        buf_add_str(out, ",\"payload\":");
        buf_add(out, spec->payload, spec->payload_bytes);
        return;
    }
    buf_add_str(out, ",\"payload_base64\":\"");
    text_base64_encode(out, spec->payload, spec->payload_bytes);
    buf_add_str(out, "\",\"content_type\":");
    json_print_string(out, spec->content_type, strlen(spec->content_type));
}

int job_print(const struct job_spec *spec, const struct job_row *row, const char *owner, struct buf *out,
              struct err *e)
{
    json_t *doc = job_definition_document(spec);
    if (!doc)
        return err_set(e, ERR_NOMEM, "out of memory for a job's answer");
    int rc = json_print_ordered(doc, out, e);
    json_decref(doc);
    if (rc < 0)
        return rc;
    buf_truncate(out, out->len - 1); /* the closing brace: payload and status come before it */
    add_payload(out, spec);
    if (row && row->state == JOB_STATE_PAUSED)
        buf_add_str(out, ",\"paused\":true");
    if (row)
        add_status(out, spec, row, owner);
    buf_add_char(out, '}');
    return buf_check(out, e);
}
