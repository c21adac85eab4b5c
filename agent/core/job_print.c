/* A job_spec as JSON beyond its definition: the user's document, the answer with its status. */
#include <assert.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/job_private.h"

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

/* The definition as far as a user gave it, as a value. */
static int given_document(const struct job_spec *spec, json_t **ret, struct err *e)
{
    const struct job_spec_private *p = spec->private;
    AUTO(buf_fini) struct buf text = BUF_INIT(p->given_bytes + 2);
    buf_add(&text, p->definition, p->given_bytes);
    buf_add_char(&text, '}');
    int rc = buf_check(&text, e);
    return rc < 0 ? rc : json_read(buf_str(&text), text.len, text.len, ret, e);
}

int job_document(const struct job_spec *spec, const struct job_row *row, json_t **ret, struct err *e)
{
    json_t *doc = NULL;
    int rc = given_document(spec, &doc, e);
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
    buf_addf(out,
             ",\"counts\":{\"seq\":%llu,\"succeeded\":%llu,\"dead\":%llu,\"skipped\":%llu,\"coalesced\":%llu",
             (unsigned long long)c->seq, (unsigned long long)c->succeeded, (unsigned long long)c->dead,
             (unsigned long long)c->skipped, (unsigned long long)c->coalesced);
    buf_addf(out, ",\"cancelled\":%llu,\"pending\":%llu}", (unsigned long long)c->cancelled,
             (unsigned long long)job_counts_pending(c));
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
             (unsigned long long)row->version, job_state_name(job_row_shown_state(row)));
    add_instant(out, "next_due", job_row_next_due_ms(row));
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
    if (row->backfill_next_ms < row->backfill_until_ms) {
        buf_addf(out, ",\"backfill\":{\"pending\":%u", row->backfill_pending);
        add_instant(out, "from", row->backfill_next_ms);
        add_instant(out, "to", row->backfill_until_ms);
        buf_add_char(out, '}');
    }
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

/* What holds where nothing was given: told in answers, not kept with each job. */
static void add_defaults(struct buf *out, const struct job_spec *spec)
{
    if (job_dst_is_default(spec))
        buf_add_str(out, ",\"dst\":{\"gap\":\"shift\",\"repeat\":\"first\"}");
    if (!spec->short_month_last)
        buf_add_str(out, ",\"short_month\":\"skip\"");
    if (spec->jitter_ms == 0)
        buf_add_str(out, ",\"jitter\":\"0s\"");
    if (!spec->at_most_once)
        buf_add_str(out, ",\"delivery\":\"at_least_once\"");
}

int job_print(const struct job_spec *spec, const struct job_row *row, const char *owner, struct buf *out,
              struct err *e)
{
    buf_add(out, spec->private->definition, spec->private->given_bytes);
    add_payload(out, spec);
    add_defaults(out, spec);
    if (row) {
        buf_add_str(out, row->state == JOB_STATE_PAUSED ? ",\"paused\":true" : ",\"paused\":false");
        add_status(out, spec, row, owner);
    }
    buf_add_char(out, '}');
    return buf_check(out, e);
}
