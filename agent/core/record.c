#include "agent/core/record.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"

static const char *const job_state_names[] = {"active", "paused", "done"};
_Static_assert(sizeof(job_state_names) / sizeof(char *) == JOB_STATE_COUNT_, "a name for each");

static const char *const fire_outcome_names[] = {"pending", "succeeded", "dead",
                                                 "skipped", "coalesced", "cancelled"};
_Static_assert(sizeof(fire_outcome_names) / sizeof(char *) == FIRE_OUTCOME_COUNT_, "a name for each");

static const char *const fire_reason_names[] = {
    NULL,      "overlap", "paused",       "late",    "coalesced", "queue_full",  "expired",   "max_attempts",
    "max_age", "give_up", "at_most_once", "deleted", "replaced",  "no_endpoint", "discarded", "cancelled"};
_Static_assert(sizeof(fire_reason_names) / sizeof(char *) == FIRE_REASON_COUNT_, "a name for each");

static const char *const fire_wait_names[] = {NULL, "start", "endpoint", "turn"};
_Static_assert(sizeof(fire_wait_names) / sizeof(char *) == FIRE_WAIT_COUNT_, "a name for each");

const char *job_state_name(enum job_state s)
{
    assert((unsigned)s < JOB_STATE_COUNT_);
    return job_state_names[s];
}

const char *fire_outcome_name(enum fire_outcome o)
{
    assert((unsigned)o < FIRE_OUTCOME_COUNT_);
    return fire_outcome_names[o];
}

const char *fire_reason_name(enum fire_reason r)
{
    assert((unsigned)r < FIRE_REASON_COUNT_);
    return fire_reason_names[r];
}

const char *fire_wait_name(enum fire_wait w)
{
    assert((unsigned)w < FIRE_WAIT_COUNT_);
    return fire_wait_names[w];
}

static int name_index(const char *const *names, int count, const char *text)
{
    for (int i = 0; i < count; i++)
        if (names[i] && strcmp(names[i], text) == 0)
            return i;
    return -1;
}

uint64_t job_counts_pending(const struct job_counts *c)
{
    uint64_t ended = c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled;
    assert(ended <= c->seq);
    return c->seq - ended;
}

enum job_state job_row_shown_state(const struct job_row *row)
{
    bool ends = row->state == JOB_STATE_DONE && job_counts_pending(&row->counts) > 0;
    return ends ? JOB_STATE_ACTIVE : row->state;
}

int64_t job_row_next_due_ms(const struct job_row *row)
{
    return row->state == JOB_STATE_DONE ? RECORD_NONE : row->due_ms;
}

int job_state_parse(const char *text)
{
    return name_index(job_state_names, JOB_STATE_COUNT_, text);
}

int fire_outcome_parse(const char *text)
{
    return name_index(fire_outcome_names, FIRE_OUTCOME_COUNT_, text);
}

int fire_wait_parse(const char *text)
{
    return name_index(fire_wait_names, FIRE_WAIT_COUNT_, text);
}

void uid_print(const struct uid *uid, char text[33])
{
    text_hex_encode(uid->bytes, sizeof(uid->bytes), text);
}

bool uid_parse(const char *text, size_t len, struct uid *ret)
{
    struct uid uid;
    if (len != 2 * sizeof(uid.bytes))
        return false;
    /* The decoder takes capitals too, but one uid has one name. */
    for (size_t i = 0; i < len; i++)
        if (text[i] >= 'A' && text[i] <= 'F')
            return false;
    if (text_hex_decode(text, len, uid.bytes, sizeof(uid.bytes), NULL) < 0)
        return false;
    *ret = uid;
    return true;
}

uint16_t uid_slot(const struct uid *uid)
{
    return (uint16_t)(uid->bytes[0] << 8 | uid->bytes[1]);
}

void fire_id_print(const struct uid *uid, uint64_t seq, char text[56])
{
    uid_print(uid, text);
    (void)snprintf(text + 32, 24, ".%llu", (unsigned long long)seq); /* at most 21 characters */
}

bool fire_id_parse(const char *text, struct uid *ret_uid, uint64_t *ret_seq)
{
    struct uid uid;
    size_t len = strnlen(text, 64);
    if (len < 34 || text[32] != '.' || !uid_parse(text, 32, &uid))
        return false;
    if (text_u64(text + 33, len - 33, 1, UINT64_MAX, ret_seq, NULL) < 0)
        return false;
    *ret_uid = uid;
    return true;
}

void fire_row_fini(struct fire_row *row)
{
    mem_free(row->log);
    mem_free(row->payload);
    mem_free(row->parts);
    mem_free(row->trace);
    fire_row_taken(row);
}

void fire_row_taken(struct fire_row *row)
{
    row->log = row->payload = row->parts = row->trace = NULL;
    row->log_bytes = row->payload_bytes = row->parts_bytes = row->trace_bytes = 0;
}

size_t fire_row_bytes(const struct fire_row *row)
{
    return row->log_bytes + row->payload_bytes + row->parts_bytes + row->trace_bytes;
}

void fire_row_deleted(struct fire_row *row, const struct job_row *job)
{
    row->wake_ms = job->wake_ms;
    if (row->state != FIRE_STATE_REPORTED) {
        row->outcome = FIRE_OUTCOME_CANCELLED;
        row->reason = FIRE_REASON_DELETED;
        row->finished_ms = job->updated_ms;
    } else if (row->until_ms > row->wake_ms) {
        row->wake_ms = row->until_ms;
    }
    row->state = FIRE_STATE_ENDED;
    row->until_ms = RECORD_NONE;
    memset(row->holder, 0, sizeof(row->holder));
    row->rev++;
}

static int copy_text(const char *text, size_t bytes, char **ret, struct err *e)
{
    *ret = text ? mem_try_strndup(text, bytes, e) : NULL;
    return text && !*ret ? -ERR_NOMEM : 0;
}

int fire_row_copy(const struct fire_row *row, struct fire_row *ret, struct err *e)
{
    struct fire_row copy = *row;
    copy.log = copy.payload = copy.parts = copy.trace = NULL;
    int r = copy_text(row->log, row->log_bytes, &copy.log, e);
    if (r == 0)
        r = copy_text(row->payload, row->payload_bytes, &copy.payload, e);
    if (r == 0)
        r = copy_text(row->parts, row->parts_bytes, &copy.parts, e);
    if (r == 0)
        r = copy_text(row->trace, row->trace_bytes, &copy.trace, e);
    if (r < 0)
        fire_row_fini(&copy);
    else
        *ret = copy;
    return r;
}
