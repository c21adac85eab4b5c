/* Pieces of answers. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/text.h"
#include "agent/core/ring_log.h"
#include "agent/core/schedule.h"
#include "agent/core/tz.h"

void api_print_instant(struct buf *out, const char *key, int64_t ms)
{
    char text[TEXT_INSTANT_SIZE];
    if (ms == RECORD_NONE) {
        buf_addf(out, ",\"%s\":null", key);
        return;
    }
    text_instant_print(text, ms);
    buf_addf(out, ",\"%s\":\"%s\"", key, text);
}

void api_print_text(struct buf *out, const char *key, const char *text)
{
    buf_addf(out, ",\"%s\":", key);
    if (text)
        json_print_string(out, text, strlen(text));
    else
        buf_add_str(out, "null");
}

static void print_due(struct buf *out, const struct schedule *s, const struct schedule_due *due)
{
    char utc[TEXT_INSTANT_SIZE], local[TEXT_LOCAL_SIZE];
    text_instant_print(utc, due->due_ms);
    (void)text_local_print(local, due->due_ms,
                           tz_offset_s(schedule_tz(s), due->due_ms / 1000)); /* its length */
    buf_addf(out, "{\"due\":\"%s\",\"local\":\"%s\"", utc, local);
    api_print_text(out, "note", schedule_note_name(due->note));
    buf_add_char(out, '}');
}

void api_print_next(struct buf *out, const struct job_spec *spec, int64_t accepted_ms, int64_t after_ms,
                    uint64_t count)
{
    struct schedule_due due;
    int64_t after = after_ms == RECORD_NONE ? SCHEDULE_NONE : after_ms;
    buf_add_char(out, '[');
    for (uint64_t i = 0; i < count; i++) {
        bool any = accepted_ms == RECORD_NONE
                       ? schedule_next(spec->schedule, after, &due)
                       : schedule_next_accepted(spec->schedule, accepted_ms, after, &due);
        if (!any)
            break;
        if (i > 0)
            buf_add_char(out, ',');
        print_due(out, spec->schedule, &due);
        after = due.due_ms;
    }
    buf_add_char(out, ']');
}

void api_print_last_fire(struct buf *out, const struct job_row *row)
{
    char fire[56];
    if (row->last.seq == 0) {
        buf_add_str(out, "null");
        return;
    }
    fire_id_print(&row->uid, row->last.seq, fire);
    buf_addf(out, "{\"fire\":\"%s\",\"seq\":%llu", fire, (unsigned long long)row->last.seq);
    api_print_instant(out, "due", row->last.due_ms);
    api_print_instant(out, "finished_at", row->last.finished_ms);
    api_print_text(out, "outcome", fire_outcome_name(row->last.outcome));
    api_print_text(out, "reason", fire_reason_name(row->last.reason));
    buf_add_char(out, '}');
}

/* --- fires --------------------------------------------------------------------------------------------------------- */

static void print_fire_head(struct buf *out, const struct uid *uid, uint64_t seq, const char *ns,
                            const char *id, const char *service)
{
    char fire[56];
    fire_id_print(uid, seq, fire);
    buf_addf(out, "{\"fire\":\"%s\"", fire);
    api_print_text(out, "job", id);
    api_print_text(out, "namespace", ns);
    api_print_text(out, "service", service[0] ? service : NULL);
    buf_addf(out, ",\"seq\":%llu", (unsigned long long)seq);
}

static void print_lateness(struct buf *out, int64_t started_ms, int64_t due_ms, uint32_t jitter_ms)
{
    int64_t late_ms = started_ms == RECORD_NONE ? 0 : started_ms - due_ms - (int64_t)jitter_ms;
    if (started_ms == RECORD_NONE)
        buf_add_str(out, ",\"lateness_ms\":null");
    else
        buf_addf(out, ",\"lateness_ms\":%lld", (long long)(late_ms > 0 ? late_ms : 0));
}

static void print_row(struct buf *out, const struct fire_row *row)
{
    print_fire_head(out, &row->uid, row->seq, row->ns, row->id, row->service);
    if (row->seq_last > row->seq) { /* a run of skipped or coalesced occurrences */
        buf_addf(out, ",\"seq_last\":%llu", (unsigned long long)row->seq_last);
        api_print_instant(out, "due_last", row->due_last_ms);
    }
    api_print_instant(out, "due", row->due_ms);
    buf_addf(out, ",\"jitter_ms\":%u", row->jitter_ms);
    api_print_instant(out, "started_at", row->started_ms);
    api_print_instant(out, "finished_at", row->finished_ms);
    print_lateness(out, row->started_ms, row->due_ms, row->jitter_ms);
    api_print_text(out, "outcome", fire_outcome_name(row->outcome));
    api_print_text(out, "reason", fire_reason_name(row->reason));
    api_print_instant(out, "next_attempt_at", row->state == FIRE_STATE_WAITING ? row->wake_ms : RECORD_NONE);
    buf_add_str(out, ",\"attempts\":");
    if (row->log && row->log_bytes > 0)
        buf_add(out, row->log, row->log_bytes);
    else
        buf_add_str(out, "[]");
    if (row->parts && row->parts_bytes > 0) {
        buf_add_str(out, ",\"endpoints\":");
        buf_add(out, row->parts, row->parts_bytes);
    }
}

void api_print_fire_row(struct buf *out, const struct fire_row *row)
{
    print_row(out, row);
    buf_add_char(out, '}');
}

void api_print_dead_letter(struct buf *out, const struct fire_row *row)
{
    print_row(out, row);
    api_print_text(out, "last_error", row->last_error[0] ? row->last_error : NULL);
    buf_add_char(out, '}');
}

void api_print_fire_ring(struct buf *out, const struct store_job *job, const struct ring_entry *entry)
{
    uint32_t jitter_ms = job->spec ? job_jitter_ms(job->spec, &job->row.uid, entry->due_ms) : 0;
    int64_t started_ms = entry->due_ms + entry->late_ms;
    char service[RECORD_SERVICE_MAX] = "";
    if (job->spec)
        job_callee(job->spec, service);
    print_fire_head(out, &job->row.uid, entry->seq, job->row.ns, job->row.id, service);
    api_print_instant(out, "due", entry->due_ms);
    buf_addf(out, ",\"jitter_ms\":%u", jitter_ms);
    api_print_instant(out, "started_at", started_ms);
    api_print_instant(out, "finished_at", started_ms + entry->duration_ms);
    print_lateness(out, started_ms, entry->due_ms, jitter_ms);
    buf_add_str(out, ",\"outcome\":\"succeeded\",\"reason\":null,\"next_attempt_at\":null,"
                     "\"attempts\":[{\"attempt\":1");
    api_print_instant(out, "at", started_ms);
    api_print_text(out, "endpoint", entry->endpoint);
    buf_addf(out, ",\"status\":%d,\"duration_ms\":%u,\"error\":null,\"excerpt\":null", entry->status,
             entry->duration_ms);
    if (entry->waited != FIRE_WAIT_NONE)
        api_print_text(out, "waited_for", fire_wait_name(entry->waited));
    buf_add_str(out, "}]}");
}

void api_owner_name(const struct node *n, uint16_t slot, char ret[STORE_NAME_MAX])
{
    struct node_owner owner;
    node_owner_of(n, slot, &owner);
    (void)snprintf(ret, STORE_NAME_MAX, "%s", owner.known ? owner.name : ""); /* same size */
}
