#include "agent/core/audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/text.h"
#include "agent/core/ring_log.h"

const char *audit_verdict_name(enum audit_verdict v)
{
    static const char *const names[AUDIT_VERDICT_COUNT_] = {[AUDIT_COUNTS] = "counts",
                                                            [AUDIT_PENDING] = "pending",
                                                            [AUDIT_WRONG_DUE] = "wrong_due",
                                                            [AUDIT_LOST_DUES] = "lost_dues",
                                                            [AUDIT_OVERDUE] = "overdue"};
    return names[v];
}

static void found(struct audit_result *ret, enum audit_verdict verdict, uint64_t count, int64_t due_ms)
{
    *ret = (struct audit_result){.verdict = verdict, .count = count, .due_ms = due_ms};
}

static uint64_t ended_of(const struct job_counts *c)
{
    return c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled;
}

/* --- counts -------------------------------------------------------------------------------------------------------- */

static bool check_counts(const struct audit_job *in, struct audit_result *ret)
{
    const struct job_counts *c = &in->row->counts;
    uint64_t ended = ended_of(c), pending = c->seq - ended, unfinished = 0;
    if (ended > c->seq) {
        found(ret, AUDIT_COUNTS, ended - c->seq, RECORD_NONE);
        (void)snprintf(ret->detail, sizeof(ret->detail), "%" PRIu64 " fires ended of %" PRIu64 " booked",
                       ended, c->seq);
        return true;
    }
    if (!in->fires_known) {
        if (pending == 0)
            return false;
        found(ret, AUDIT_LOOK, 0, RECORD_NONE);
        return true;
    }
    for (size_t i = 0; i < in->fires_count; i++)
        unfinished += in->fires[i].state != FIRE_STATE_ENDED;
    if (unfinished == pending || !in->fires_all)
        return false;
    found(ret, AUDIT_PENDING, unfinished > pending ? unfinished - pending : pending - unfinished,
          RECORD_NONE);
    (void)snprintf(ret->detail, sizeof(ret->detail),
                   "%" PRIu64 " fires are pending by the counts, %" PRIu64 " are recorded", pending,
                   unfinished);
    return true;
}

/* --- dues ---------------------------------------------------------------------------------------------------------- */

struct record {
    const struct audit_job *in;
    struct ring_entry ring[RING_LOG_KEEP_MAX];
    size_t ring_count;
    int64_t floor_ms; /* every due after this has to be recorded */
};

/* Fires that overlap end in another order than they began, and leave the ring in that order: the older half of a ring that has
 * lost entries says too little of what else there was. One that is not in order at all says nothing. */
static bool record_floor(struct record *r)
{
    const struct job_row *row = r->in->row;
    if (r->ring_count == 0)
        return false;
    for (size_t i = 1; i < r->ring_count; i++)
        if (r->ring[i].due_ms >= r->ring[i - 1].due_ms || r->ring[i].seq >= r->ring[i - 1].seq)
            return false;
    bool whole = r->ring[r->ring_count - 1].seq == 1;
    r->floor_ms = r->ring[whole ? r->ring_count - 1 : r->ring_count / 2].due_ms;
    const int64_t bounds_ms[] = {row->updated_ms, row->created_ms, r->in->from_ms};
    for (size_t i = 0; i < sizeof(bounds_ms) / sizeof(bounds_ms[0]); i++)
        if (bounds_ms[i] > r->floor_ms)
            r->floor_ms = bounds_ms[i];
    if (r->in->fires_known && !r->in->fires_all && r->in->fires_count > 0 &&
        r->in->fires[r->in->fires_count - 1].due_ms > r->floor_ms)
        r->floor_ms = r->in->fires[r->in->fires_count - 1].due_ms;
    return true;
}

/* What is not known any more was due before the fires of which all later ones are known: of those that ended in another order than they
 * began the ring forgets one from between others. Returns the due of the oldest of them. */
static int64_t known_since_ms(const struct record *r)
{
    const struct audit_job *in = r->in;
    int64_t since_ms = INT64_MAX;
    size_t i = 0, k = 0;
    for (uint64_t seq = in->row->counts.seq; seq > 0; seq--) {
        while (i < r->ring_count && r->ring[i].seq > seq)
            i++;
        while (k < in->fires_count && in->fires[k].seq > seq)
            k++;
        if (i < r->ring_count && r->ring[i].seq == seq) {
            since_ms = r->ring[i].due_ms;
            continue;
        }
        if (k == in->fires_count || in->fires[k].seq_last < seq)
            return since_ms;
        seq = in->fires[k].seq;
        if (in->fires[k].kind == FIRE_KIND_SCHEDULED)
            since_ms = in->fires[k].due_ms;
    }
    return INT64_MIN;
}

static bool recorded(const struct record *r, int64_t due_ms)
{
    for (size_t i = 0; i < r->ring_count; i++)
        if (r->ring[i].due_ms == due_ms)
            return true;
    for (size_t i = 0; i < r->in->fires_count; i++) {
        const struct fire_row *f = &r->in->fires[i];
        int64_t last_ms = f->due_last_ms > f->due_ms ? f->due_last_ms : f->due_ms;
        if (f->due_ms <= due_ms && due_ms <= last_ms)
            return true;
    }
    return false;
}

static bool check_dues(const struct audit_job *in, struct audit_result *ret)
{
    struct record r = {.in = in};
    const struct job_row *row = in->row;
    uint64_t lost = 0;
    int64_t first_ms = RECORD_NONE, due_ms;
    if (job_row_next_due_ms(row) == RECORD_NONE ||
        ring_log_read(row->ring, row->ring_bytes, r.ring, &r.ring_count, NULL) < 0 || !record_floor(&r))
        return false;
    due_ms = r.floor_ms;
    if (in->fires_known) {
        int64_t since_ms = known_since_ms(&r);
        due_ms = since_ms > due_ms ? since_ms : due_ms;
    }
    for (int n = 0; n < AUDIT_DUES_MAX && job_next_due(in->spec, due_ms, &due_ms) && due_ms < row->due_ms;
         n++) {
        if (recorded(&r, due_ms))
            continue;
        first_ms = lost++ == 0 ? due_ms : first_ms;
    }
    if (lost == 0)
        return false;
    if (!in->fires_known) {
        found(ret, AUDIT_LOOK, 0, RECORD_NONE);
        return true;
    }
    char text[TEXT_INSTANT_SIZE];
    text_instant_print(text, first_ms);
    found(ret, AUDIT_LOST_DUES, lost, first_ms);
    (void)snprintf(ret->detail, sizeof(ret->detail), "%" PRIu64 " dues from %s on have no record", lost,
                   text);
    return true;
}

static bool check_next(const struct audit_job *in, struct audit_result *ret)
{
    const struct job_row *row = in->row;
    char text[TEXT_INSTANT_SIZE];
    int64_t due_ms;
    if (job_row_next_due_ms(row) == RECORD_NONE)
        return false;
    text_instant_print(text, row->due_ms);
    if (!job_next_due(in->spec, row->due_ms - 1, &due_ms) || due_ms != row->due_ms) {
        found(ret, AUDIT_WRONG_DUE, 1, row->due_ms);
        (void)snprintf(ret->detail, sizeof(ret->detail), "the next due, %s, is none of the schedule", text);
        return true;
    }
    uint64_t pending = row->counts.seq - ended_of(&row->counts);
    int64_t late_ms = in->now_ms - row->due_ms - in->spec->jitter_ms - in->spec->callback.timeout_ms;
    if (row->state != JOB_STATE_ACTIVE || late_ms < AUDIT_OVERDUE_MS || pending > 0)
        return false;
    found(ret, AUDIT_OVERDUE, job_count_dues(in->spec, row->due_ms, in->now_ms, AUDIT_DUES_MAX), row->due_ms);
    (void)snprintf(ret->detail, sizeof(ret->detail), "due since %s, and nothing is recorded", text);
    return true;
}

/* --- all ----------------------------------------------------------------------------------------------------------- */

static bool zone_agrees(const struct audit_job *in)
{
    return strcmp(in->spec->timezone, "UTC") == 0 || (in->tzdata && strcmp(in->row->tzdata, in->tzdata) == 0);
}

void audit_job(const struct audit_job *in, struct audit_result *ret)
{
    found(ret, AUDIT_FINE, 0, RECORD_NONE);
    if (check_counts(in, ret) || !zone_agrees(in))
        return;
    if (!check_next(in, ret))
        (void)check_dues(in, ret);
}
