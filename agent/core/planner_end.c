#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/core/planner_private.h"
#include "agent/core/ring_log.h"

/* COUNT occurrences of J ended as ROW says. */
void pend_count(struct planner *p, struct pjob *j, const struct fire_row *row, uint64_t count)
{
    struct job_row *r = &j->row;
    if (j->ghost)
        return;
    if (row->kind == FIRE_KIND_BACKFILL && r->backfill_pending > 0)
        r->backfill_pending--;
    switch (row->outcome) {
    case FIRE_OUTCOME_SUCCEEDED:
        r->counts.succeeded += count;
        r->last_success_ms = row->finished_ms;
        r->consecutive_failures = 0;
        r->failing_since_ms = RECORD_NONE;
        break;
    case FIRE_OUTCOME_DEAD:
        r->counts.dead += count;
        break;
    case FIRE_OUTCOME_SKIPPED:
        r->counts.skipped += count;
        break;
    case FIRE_OUTCOME_COALESCED:
        r->counts.coalesced += count;
        break;
    case FIRE_OUTCOME_CANCELLED:
        r->counts.cancelled += count;
        break;
    case FIRE_OUTCOME_PENDING:
    case FIRE_OUTCOME_COUNT_:
        break;
    }
    r->last = (struct job_last_fire){.seq = row->seq_last,
                                     .due_ms = count > 1 ? row->due_last_ms : row->due_ms,
                                     .finished_ms = row->finished_ms,
                                     .outcome = row->outcome,
                                     .reason = row->reason};
    if (r->state == JOB_STATE_DONE && j->spec)
        r->wake_ms = planner_add_ms(p->now_ms, j->spec->ttl_after_done_ms);
}

void pend_ring(struct planner *p, struct pjob *j, const struct fire_row *row, const struct attempt *attempt)
{
    int64_t late_ms = row->started_ms - row->due_ms;
    struct ring_entry entry = {.seq = row->seq,
                               .due_ms = row->due_ms,
                               .late_ms = late_ms < 0            ? 0
                                          : late_ms > UINT32_MAX ? UINT32_MAX
                                                                 : (uint32_t)late_ms,
                               .duration_ms = attempt->duration_ms,
                               .status = attempt->status,
                               .waited = attempt->waited_for};
    memcpy(entry.endpoint, attempt->endpoint, sizeof(entry.endpoint));
    entry.endpoint[sizeof(entry.endpoint) - 1] = '\0';
    j->row.ring_bytes = ring_log_add(j->row.ring, j->row.ring_bytes, &entry, p->options.history_keep);
}

/* Actions are carried out after the step; whose ATTEMPT it is may not live so long. */
static const struct attempt *keep_attempt(struct planner *p, const struct attempt *attempt)
{
    struct attempt *kept = mem_new(struct attempt);
    *kept = *attempt;
    planner_trash(p, mem_free, kept);
    return kept;
}

/* The same of the trace. */
static void keep_trace(struct planner *p, struct planner_action *a, const struct fire_row *row)
{
    if (!row->trace)
        return;
    char *kept = mem_new_array(char, row->trace_bytes + 1);
    memcpy(kept, row->trace, row->trace_bytes);
    planner_trash(p, mem_free, kept);
    a->trace = kept;
    a->trace_bytes = row->trace_bytes;
}

void pend_tell(struct planner *p, const struct pjob *j, const struct fire_row *row,
               const struct attempt *attempt, uint64_t count)
{
    struct planner_action *a = planner_act(p, PLANNER_DO_COUNT);
    a->uid = row->uid;
    a->seq = row->seq;
    a->fires = count;
    a->outcome = row->outcome;
    a->reason = row->reason;
    a->attempt = attempt ? keep_attempt(p, attempt) : NULL;
    a->due_ms = row->due_ms;
    a->spec = j->spec;
    keep_trace(p, a, row);
    a->lateness_ms =
        attempt && row->attempts == 1 ? attempt->started_ms - row->due_ms - (int64_t)row->jitter_ms : -1;
}

/* --- log of attempts ------------------------------------------------------------------------------------------------- */

static void print_attempt(struct buf *out, const struct fire_row *row, const struct attempt *attempt)
{
    char at[TEXT_INSTANT_SIZE];
    text_instant_print(at, attempt->started_ms);
    buf_addf(out, "{\"attempt\":%u,\"at\":\"%s\",\"endpoint\":", row->attempts, at);
    json_print_string(out, attempt->endpoint, strlen(attempt->endpoint));
    if (attempt->status >= 0)
        buf_addf(out, ",\"status\":%d", attempt->status);
    else
        buf_add_str(out, ",\"status\":null");
    buf_addf(out, ",\"duration_ms\":%u,\"error\":", attempt->duration_ms);
    if (attempt->error[0])
        json_print_string(out, attempt->error, strlen(attempt->error));
    else
        buf_add_str(out, "null");
    buf_add_str(out, ",\"excerpt\":");
    if (attempt->excerpt[0])
        json_print_string(out, attempt->excerpt, strlen(attempt->excerpt));
    else
        buf_add_str(out, "null");
    if (attempt->waited_for != FIRE_WAIT_NONE)
        buf_addf(out, ",\"waited_for\":\"%s\"", fire_wait_name(attempt->waited_for));
    buf_add_char(out, '}');
}

/* The first attempt tells how it began, the newest how it stands: what lies between goes, a quarter at a time so that a
 * fire with thousands of attempts is not taken apart at each. NULL without memory or if the log is not ours. */
static char *log_thinned(const struct fire_row *row, size_t *ret_len)
{
    AUTO(json_decref) json_t *log = NULL;
    if (json_read(row->log, row->log_bytes, RECORD_LOG_MAX, &log, NULL) < 0 || !json_is_array(log))
        return NULL;
    size_t remove = json_array_size(log) / 4 + 1;
    while (remove-- > 0 && json_array_size(log) > 1)
        (void)json_array_remove(log, 1);
    AUTO(buf_fini) struct buf out = BUF_INIT(RECORD_LOG_MAX);
    if (json_print_ordered(log, &out, NULL) < 0)
        return NULL;
    return buf_steal(&out, ret_len, NULL);
}

static void set_log(struct planner *p, struct fire_row *row, char *log, size_t len)
{
    p->stats.memory_bytes += len - row->log_bytes;
    mem_free(row->log);
    row->log = log;
    row->log_bytes = len;
}

static bool append(struct planner *p, struct fire_row *row, const struct attempt *attempt)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(RECORD_LOG_MAX);
    if (row->log_bytes > 2) {
        buf_add(&out, row->log, row->log_bytes - 1); /* without its bracket */
        buf_add_char(&out, ',');
    } else {
        buf_add_char(&out, '[');
    }
    print_attempt(&out, row, attempt);
    buf_add_char(&out, ']');
    size_t len;
    char *log = buf_steal(&out, &len, NULL);
    if (log)
        set_log(p, row, log, len);
    return log != NULL;
}

/* Without memory this attempt is missing in the log, not in the number of attempts. */
void pend_log(struct planner *p, struct fire_row *row, const struct attempt *attempt)
{
    if (attempt->result == ATTEMPT_OK || attempt->result == ATTEMPT_OPEN)
        ; /* the last error stays what it was */
    else if (attempt->error[0])
        snprintf(row->last_error, sizeof(row->last_error), "%s", attempt->error);
    else
        snprintf(row->last_error, sizeof(row->last_error), "status %d", attempt->status);
    if (append(p, row, attempt) || !row->log)
        return;
    size_t len;
    char *thinned = log_thinned(row, &len);
    if (!thinned)
        return;
    set_log(p, row, thinned, len);
    (void)append(p, row, attempt);
}

static void read_text(const json_t *entry, const char *key, char *ret, size_t size)
{
    const char *text = json_string_value(json_object_get(entry, key));
    size_t len = text ? text_utf8_cut(text, strlen(text), size - 1) : 0;
    memcpy(ret, text ? text : "", len);
    ret[len] = '\0';
}

static void read_attempt(const json_t *entry, struct attempt *ret)
{
    const char *at = json_string_value(json_object_get(entry, "at"));
    const json_t *status = json_object_get(entry, "status");
    if (at)
        (void)text_instant_ms(at, strlen(at), &ret->started_ms, NULL); /* else it stays what it was */
    ret->status = json_is_integer(status) ? (int)json_integer_value(status) : -1;
    read_text(entry, "endpoint", ret->endpoint, sizeof(ret->endpoint));
    read_text(entry, "excerpt", ret->excerpt, sizeof(ret->excerpt));
}

bool pend_log_pop(struct planner *p, struct fire_row *row, struct attempt *ret)
{
    AUTO(json_decref) json_t *log = NULL;
    AUTO(buf_fini) struct buf out = BUF_INIT(RECORD_LOG_MAX);
    if (!row->log || json_read(row->log, row->log_bytes, RECORD_LOG_MAX, &log, NULL) < 0 ||
        json_array_size(log) == 0)
        return false;
    size_t last = json_array_size(log) - 1, len;
    AUTO(json_decref) json_t *entry = json_incref(json_array_get(log, last));
    (void)json_array_remove(log, last);
    char *rest = json_print_ordered(log, &out, NULL) == 0 ? buf_steal(&out, &len, NULL) : NULL;
    if (!rest)
        return false;
    read_attempt(entry, ret);
    set_log(p, row, rest, len);
    return true;
}
