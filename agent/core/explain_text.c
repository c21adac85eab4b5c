/* The sentences of explain. */
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/core/explain_private.h"
#include "agent/core/grpc_code.h"

#define LATE_MS 100 /* less is not called late */

/* --- words --------------------------------------------------------------------------------------------------------- */

static void add_at(struct buf *out, const struct tz *zone, int64_t ms)
{
    char text[TEXT_LOCAL_SIZE];
    (void)text_local_print(text, ms, tz_offset_s(zone, ms / 1000)); /* its length */
    buf_add_str(out, text);
}

static void add_duration(struct buf *out, int64_t ms)
{
    char text[TEXT_DURATION_SIZE];
    (void)text_duration_print(text, ms > 0 ? (uint64_t)ms : 0); /* its length */
    buf_add_str(out, text);
}

/* "02:30", with seconds when there are any. */
static void add_wall(struct buf *out, int64_t wall_s)
{
    int64_t s = ((wall_s % 86400) + 86400) % 86400;
    buf_addf(out, "%02d:%02d", (int)(s / 3600), (int)(s / 60 % 60));
    if (s % 60)
        buf_addf(out, ":%02d", (int)(s % 60));
}

static void add_actor(struct buf *out, const struct revision *r)
{
    if (strcmp(r->actor, "local") == 0)
        buf_add_str(out, "a local client");
    else if (r->actor[0])
        buf_addf(out, "'%s'", r->actor);
    else
        buf_add_str(out, "somebody");
}

/* " by 'x' at …", nothing when C is not known. */
static void add_by(struct buf *out, const struct tz *zone, const struct explain_change *c)
{
    if (!c)
        return;
    buf_add_str(out, " by ");
    add_actor(out, &c->row);
    buf_add_str(out, " at ");
    add_at(out, zone, c->row.at_ms);
}

static void add_target(struct buf *out, const struct job_spec *spec)
{
    const struct job_callback *c = spec ? &spec->callback : NULL;
    const char *host = c && c->url ? strstr(c->url, "://") : NULL;
    if (c && c->service)
        buf_addf(out, "service '%s'", c->service);
    else if (host)
        buf_addf(out, "'%.*s'", (int)strcspn(host + 3, "/?"), host + 3);
    else if (c && c->address)
        buf_addf(out, "'%s'", c->address);
    else
        buf_add_str(out, "its target");
}

static void add_fire(struct buf *out, const struct uid *uid, uint64_t seq)
{
    char fire[56];
    fire_id_print(uid, seq, fire);
    buf_add_str(out, fire);
}

static void add_times(struct buf *out, uint64_t n, const char *one, const char *many)
{
    if (n == 1)
        buf_addf(out, "one %s", one);
    else
        buf_addf(out, "%llu %s", (unsigned long long)n, many);
}

/* --- how it went --------------------------------------------------------------------------------------------------- */

/* What a fire's log says of two attempts. */
struct attempts_seen {
    char endpoint[64]; /* of the last one */
    int status;        /* -1: none came */
    int64_t at_ms;     /* of the last one; RECORD_NONE: not kept */
    int64_t duration_ms;
    char failure[160];     /* of the last that did not succeed, as far as a log can tell */
    enum fire_wait waited; /* the first one */
};

static void set_text(char *ret, size_t size, const char *text)
{
    size_t len = text ? strnlen(text, size - 1) : 0;
    if (len > 0)
        memcpy(ret, text, len);
    ret[len] = '\0';
}

static void read_attempt(const json_t *a, bool last, bool succeeded, struct attempts_seen *ret)
{
    const char *error = json_string_value(json_object_get(a, "error"));
    const char *at = json_string_value(json_object_get(a, "at"));
    const json_t *status = json_object_get(a, "status");
    struct buf failure = BUF_INIT(sizeof(ret->failure) - 1);
    if (last) {
        set_text(ret->endpoint, sizeof(ret->endpoint), json_string_value(json_object_get(a, "endpoint")));
        ret->status = json_is_integer(status) ? (int)json_integer_value(status) : -1;
        ret->duration_ms = json_integer_value(json_object_get(a, "duration_ms"));
        if (!at || text_instant_ms(at, strlen(at), &ret->at_ms, NULL) < 0)
            ret->at_ms = RECORD_NONE;
    }
    if (last && succeeded)
        return;
    if (error)
        set_text(ret->failure, sizeof(ret->failure), error);
    else if (json_is_integer(status))
        buf_addf(&failure, "status %d", (int)json_integer_value(status));
    if (failure.len > 0)
        set_text(ret->failure, sizeof(ret->failure), buf_str(&failure));
    buf_fini(&failure);
}

static void read_log(const struct fire_row *row, struct attempts_seen *ret)
{
    AUTO(json_decref) json_t *log = NULL;
    const json_t *a;
    size_t i;
    *ret = (struct attempts_seen){.status = -1, .at_ms = RECORD_NONE};
    if (!row->log || json_read(row->log, row->log_bytes, RECORD_LOG_MAX, &log, NULL) < 0 ||
        !json_is_array(log))
        return;
    json_array_foreach(log, i, a)
    {
        const char *waited = json_string_value(json_object_get(a, "waited_for"));
        int w = waited && i == 0 ? fire_wait_parse(waited) : -1;
        if (w >= 0)
            ret->waited = (enum fire_wait)w;
        read_attempt(a, i + 1 == json_array_size(log), row->outcome == FIRE_OUTCOME_SUCCEEDED, ret);
    }
}

static void add_because(struct buf *out, const struct job_spec *spec, enum fire_wait waited)
{
    switch (waited) {
    case FIRE_WAIT_START:
        buf_add_str(out,
                    " because no agent could begin it earlier (none held the job, the store was away, or "
                    "it was caught up in its turn)");
        break;
    case FIRE_WAIT_ENDPOINT:
        buf_add_str(out, " because no endpoint of ");
        add_target(out, spec);
        buf_add_str(out, " was healthy before");
        break;
    case FIRE_WAIT_TURN:
        buf_add_str(out, " because the limits of ");
        add_target(out, spec);
        buf_add_str(out, " made it wait its turn");
        break;
    case FIRE_WAIT_NONE:
    case FIRE_WAIT_COUNT_:
        break;
    }
}

static void say_fired(struct buf *out, const struct explain_work *x, const struct era *era,
                      int64_t started_ms, int64_t due_ms, uint32_t jitter_ms, enum fire_wait waited)
{
    int64_t late_ms = started_ms - due_ms - (int64_t)jitter_ms;
    buf_add_str(out, "fired at ");
    add_at(out, explain_zone(x, era), started_ms);
    if (jitter_ms > 0) {
        buf_add_str(out, ", after a jitter of ");
        add_duration(out, jitter_ms);
    }
    if (late_ms < LATE_MS)
        return;
    buf_add_str(out, ", ");
    add_duration(out, late_ms);
    buf_add_str(out, " late");
    add_because(out, era ? era->spec : NULL, waited);
}

static void say_answer(struct buf *out, const char *endpoint, int status, int64_t duration_ms)
{
    buf_addf(out, ": %s", endpoint[0] ? endpoint : "the callee");
    buf_add_str(out, " answered");
    if (status >= 0 && status < GRPC_CODE_COUNT) /* HTTP's begin at 100 */
        buf_addf(out, " %s", grpc_code_name(status));
    else if (status >= 0)
        buf_addf(out, " %d", status);
    buf_addf(out, " after %lld ms", (long long)duration_ms);
}

void explain_say_ring(struct buf *out, const struct explain_work *x, const struct era *era,
                      const struct ring_entry *entry)
{
    uint32_t jitter_ms = era && era->spec ? job_jitter_ms(era->spec, &x->f->row->uid, entry->due_ms) : 0;
    if (jitter_ms > entry->late_ms)
        jitter_ms = entry->late_ms; /* the job had another jitter then */
    say_fired(out, x, era, entry->due_ms + entry->late_ms, entry->due_ms, jitter_ms, entry->waited);
    buf_add_str(out, "; succeeded at the first attempt");
    say_answer(out, entry->endpoint, entry->status, entry->duration_ms);
}

static void say_succeeded(struct buf *out, const struct explain_work *x, const struct era *era,
                          const struct fire_row *row, const struct attempts_seen *seen)
{
    if (row->attempts <= 1) {
        buf_add_str(out, "; succeeded at the first attempt");
    } else {
        buf_addf(out, "; succeeded at attempt %u", row->attempts);
        if (seen->at_ms != RECORD_NONE) {
            buf_add_str(out, " at ");
            add_at(out, explain_zone(x, era), seen->at_ms);
        }
        if (seen->failure[0])
            buf_addf(out, " (the one before failed: %s)", seen->failure);
    }
    if (seen->endpoint[0])
        say_answer(out, seen->endpoint, seen->status, seen->duration_ms);
}

static void say_dead(struct buf *out, const struct explain_work *x, const struct era *era,
                     const struct fire_row *row)
{
    const char *error = row->last_error[0] ? row->last_error : "no error is kept";
    buf_add_str(out, "; given up");
    if (row->finished_ms != RECORD_NONE) {
        buf_add_str(out, " at ");
        add_at(out, explain_zone(x, era), row->finished_ms);
    }
    if (row->attempts > 0) {
        buf_add_str(out, " after ");
        add_times(out, row->attempts, "attempt", "attempts");
    }
    if (row->reason == FIRE_REASON_MAX_ATTEMPTS)
        buf_addf(out, ", as many as retry.max_attempts allows: %s", error);
    else if (row->reason == FIRE_REASON_MAX_AGE)
        buf_addf(out, ", when retry.max_age was over: %s", error);
    else if (row->reason == FIRE_REASON_NO_ENDPOINT)
        buf_add_str(out, ", when retry.max_age was over");
    else if (row->reason == FIRE_REASON_GIVE_UP)
        buf_addf(out, " because callback.give_up_on names the answer: %s", error);
    else if (row->reason == FIRE_REASON_AT_MOST_ONCE)
        buf_addf(out, " because delivery is at_most_once: %s", error);
    else if (row->reason == FIRE_REASON_EXPIRED)
        buf_addf(out, " because it expired: %s", error);
    else
        buf_addf(out, ": %s", error);
}

/* --- not fired ----------------------------------------------------------------------------------------------------- */

static void say_run_of(struct buf *out, const struct explain_work *x, const struct era *era,
                       const struct fire_row *row, const char *what)
{
    if (row->seq_last == row->seq)
        return;
    buf_addf(out, ", %s with ", what);
    add_times(out, row->seq_last - row->seq, "other due", "other dues");
    buf_add_str(out, " from ");
    add_at(out, explain_zone(x, era), row->due_ms);
    buf_add_str(out, " to ");
    add_at(out, explain_zone(x, era), row->due_last_ms);
}

static void say_skipped(struct buf *out, const struct explain_work *x, const struct era *era,
                        const struct fire_row *row, int64_t due_ms)
{
    buf_add_str(out, "skipped because ");
    switch ((int)row->reason) {
    case FIRE_REASON_PAUSED:
        buf_add_str(out, "the job was paused");
        add_by(out, explain_zone(x, era), explain_pause(x, due_ms));
        break;
    case FIRE_REASON_OVERLAP:
        buf_add_str(out, "the fire before it was still running (concurrency: forbid)");
        break;
    case FIRE_REASON_LATE:
        buf_add_str(out, "it could not be fired within the misfire window");
        if (era && era->spec) {
            buf_add_str(out, " of ");
            add_duration(out, era->spec->misfire_window_ms);
        }
        break;
    case FIRE_REASON_QUEUE_FULL:
        buf_add_str(out, "too many fires of the job were waiting already (concurrency: queue)");
        break;
    default:
        buf_addf(out, "of '%s'", row->reason ? fire_reason_name(row->reason) : "nothing that is known");
        break;
    }
    say_run_of(out, x, era, row, "together");
}

/* No later fire of the job has been recorded. */
static bool is_newest(const struct explain_work *x, const struct fire_row *row)
{
    const struct job_row *job = x->f->row;
    return job && memcmp(&job->uid, &row->uid, sizeof(row->uid)) == 0 && row->seq_last >= job->counts.seq;
}

static void say_coalesced(struct buf *out, const struct explain_work *x, const struct era *era,
                          const struct fire_row *row)
{
    const struct fire_row *into = explain_survivor(x, row);
    buf_add_str(out, "coalesced into ");
    if (into) {
        buf_add_str(out, "fire ");
        add_fire(out, &into->uid, into->seq);
        buf_add_str(out, ", due at ");
        add_at(out, explain_zone(x, era), into->due_ms);
    } else if (is_newest(x, row)) {
        buf_add_str(out, "the next fire, which is not recorded yet");
    } else {
        buf_add_str(out, "a later fire, which is not kept");
    }
    say_run_of(out, x, era, row, "together");
    if (row->attempts > 0)
        buf_add_str(out, ": it waited for a retry when the next due came (concurrency: forbid)");
    else
        buf_add_str(out, ": of overdue ones the newest is fired (misfire: last)");
}

static const struct explain_change *ended_by(const struct explain_work *x, const struct fire_row *row)
{
    for (size_t i = 0; i < x->f->changes_count; i++) {
        const struct revision *r = &x->f->changes[i].row;
        if (strcmp(r->op, "delete") == 0 && memcmp(&r->uid, &row->uid, sizeof(r->uid)) == 0)
            return &x->f->changes[i];
    }
    return NULL;
}

static void say_cancelled(struct buf *out, const struct explain_work *x, const struct era *era,
                          const struct fire_row *row)
{
    const struct tz *zone = explain_zone(x, era);
    if (row->attempts > 0) {
        buf_add_str(out, "tried ");
        add_times(out, row->attempts, "time", "times");
        buf_addf(out, "%s%s; ", row->last_error[0] ? ", the last error being: " : "", row->last_error);
    }
    buf_add_str(out, row->reason == FIRE_REASON_DISCARDED ? "discarded" : "cancelled");
    if (row->reason == FIRE_REASON_DELETED) {
        buf_add_str(out, " because the job was deleted");
        add_by(out, zone, ended_by(x, row));
        return;
    }
    if (row->finished_ms != RECORD_NONE) {
        buf_add_str(out, " at ");
        add_at(out, zone, row->finished_ms);
    }
    if (row->reason == FIRE_REASON_REPLACED)
        buf_add_str(out, " because the next due had come (concurrency: replace)");
}

/* --- not yet ------------------------------------------------------------------------------------------------------- */

static bool is_paused(const struct explain_work *x)
{
    return x->f->row && x->f->row->state == JOB_STATE_PAUSED;
}

static void add_paused(struct buf *out, const struct explain_work *x, const struct era *era)
{
    const struct explain_change *pause = explain_pause(x, x->f->now_ms);
    if (!pause) {
        buf_add_str(out, "the job is paused");
        return;
    }
    buf_add_str(out, "the job has been paused by ");
    add_actor(out, &pause->row);
    buf_add_str(out, " since ");
    add_at(out, explain_zone(x, era), pause->row.at_ms);
}

static void say_waiting(struct buf *out, const struct explain_work *x, const struct era *era,
                        const struct fire_row *row)
{
    const struct tz *zone = explain_zone(x, era);
    if (row->reason == FIRE_REASON_NO_ENDPOINT) {
        buf_add_str(out, "waiting for a healthy endpoint of ");
        add_target(out, era ? era->spec : NULL);
        buf_add_str(out, " since ");
        add_at(out, zone, row->first_ms);
    } else if (row->attempts > 0) {
        buf_add_str(out, "waiting for the retry at ");
        add_at(out, zone, row->wake_ms);
        buf_addf(out, ": attempt %u failed (%s)", row->attempts,
                 row->last_error[0] ? row->last_error : "no error is kept");
    } else if (row->wake_ms > x->f->now_ms) {
        buf_add_str(out, "recorded; the first attempt starts at ");
        add_at(out, zone, row->wake_ms);
    } else {
        buf_add_str(out, "recorded, and about to be sent");
    }
    if (is_paused(x) && row->kind != FIRE_KIND_RUN) {
        buf_add_str(out, "; nothing is tried because ");
        add_paused(out, x, era);
    }
}

static void say_pending(struct buf *out, const struct explain_work *x, const struct era *era,
                        const struct fire_row *row)
{
    switch (row->state) {
    case FIRE_STATE_WAITING:
        say_waiting(out, x, era, row);
        break;
    case FIRE_STATE_HELD:
        buf_addf(out, "attempt %u is under way at agent %s", row->attempts ? row->attempts : 1, row->holder);
        break;
    case FIRE_STATE_OPEN:
        buf_addf(out, "accepted by the callee at attempt %u; its report is awaited until ", row->attempts);
        add_at(out, explain_zone(x, era), row->wake_ms);
        break;
    case FIRE_STATE_REPORTED:
    case FIRE_STATE_ENDED:
    case FIRE_STATE_COUNT_:
        buf_add_str(out, "ended at the agent that had begun it, and about to be counted");
        break;
    }
}

/* --- rows ---------------------------------------------------------------------------------------------------------- */

static void say_sent_row(struct buf *out, const struct explain_work *x, const struct era *era,
                         const struct fire_row *row)
{
    struct attempts_seen seen;
    read_log(row, &seen);
    if (row->started_ms != RECORD_NONE)
        say_fired(out, x, era, row->started_ms, row->due_ms, row->jitter_ms, seen.waited);
    else
        buf_add_str(out, "never sent");
    if (row->started_ms == RECORD_NONE && row->reason == FIRE_REASON_NO_ENDPOINT)
        add_because(out, era ? era->spec : NULL, FIRE_WAIT_ENDPOINT);
    if (row->outcome == FIRE_OUTCOME_SUCCEEDED)
        say_succeeded(out, x, era, row, &seen);
    else
        say_dead(out, x, era, row);
    if (row->coalesced > 0) {
        buf_add_str(out, "; it stands for ");
        add_times(out, row->coalesced, "more due before it", "more dues before it");
    }
}

void explain_say_row(struct buf *out, const struct explain_work *x, const struct era *era,
                     const struct fire_row *row, int64_t due_ms)
{
    if (row->kind == FIRE_KIND_RUN)
        buf_add_str(out, "asked for by hand (run): ");
    else if (row->kind == FIRE_KIND_BACKFILL)
        buf_add_str(out, "asked for by a backfill: ");
    switch (row->outcome) {
    case FIRE_OUTCOME_PENDING:
        say_pending(out, x, era, row);
        break;
    case FIRE_OUTCOME_SKIPPED:
        say_skipped(out, x, era, row, due_ms);
        break;
    case FIRE_OUTCOME_COALESCED:
        say_coalesced(out, x, era, row);
        break;
    case FIRE_OUTCOME_CANCELLED:
        say_cancelled(out, x, era, row);
        break;
    case FIRE_OUTCOME_SUCCEEDED:
    case FIRE_OUTCOME_DEAD:
    case FIRE_OUTCOME_COUNT_:
        say_sent_row(out, x, era, row);
        break;
    }
}

void explain_say_deduced(struct buf *out, const struct explain_work *x)
{
    buf_add_str(out, "succeeded at the first attempt: no other end is on record, and details are kept of the "
                     "newest such fires only");
    if (!x->f->row)
        buf_add_str(out, ", until the job is deleted");
}

void explain_say_forgotten(struct buf *out, const struct explain_work *x)
{
    buf_add_str(out, "what became of it is not known: ");
    if (x->f->fires_all) {
        buf_add_str(out, "fires are kept for ");
        add_duration(out, x->f->keep_ms);
    } else {
        buf_add_str(out, "the job has more fires on record since than are looked at");
    }
}

void explain_say_dropped(struct buf *out, const struct explain_work *x, const struct era *era, int64_t due_ms)
{
    const struct tz *zone = explain_zone(x, era);
    const struct explain_change *pause = explain_pause(x, due_ms);
    bool deleted = strcmp(era->ended->row.op, "delete") == 0 || strcmp(era->ended->row.op, "expire") == 0;
    buf_addf(out, "not fired before the %s", deleted ? "job was deleted" : "schedule was changed");
    add_by(out, zone, era->ended);
    if (pause) {
        buf_add_str(out, "; the job was paused");
        add_by(out, zone, pause);
    }
}

void explain_say_finished(struct buf *out, const struct explain_work *x, const struct era *era,
                          int64_t due_ms)
{
    (void)due_ms;
    buf_add_str(out, "not due: ");
    if (era->spec->max_fires) {
        buf_add_str(out, "max_fires allows ");
        add_times(out, era->spec->max_fires, "fire", "fires");
        buf_add_str(out, x->f->row && x->f->row->state == JOB_STATE_DONE ? ", and the job has had them"
                                                                         : ", which will be over before");
    } else {
        buf_add_str(out, "the job has finished");
    }
}

static uint64_t unfinished(const struct job_row *row)
{
    const struct job_counts *c = &row->counts;
    return c->seq - (c->succeeded + c->dead + c->skipped + c->coalesced + c->cancelled);
}

void explain_say_unbooked(struct buf *out, const struct explain_work *x, const struct era *era,
                          int64_t due_ms)
{
    const struct job_row *row = x->f->row;
    const struct job_spec *spec = era->spec;
    uint32_t jitter_ms = job_jitter_ms(spec, &row->uid, due_ms);
    if (row->state == JOB_STATE_PAUSED) {
        buf_add_str(out, spec->one_shot ? "waiting: " : "not fired: ");
        add_paused(out, x, era);
        buf_add_str(out, spec->one_shot
                             ? ", and it is fired when the job is resumed"
                             : ", and it is skipped when the job is resumed, unless with catch_up");
    } else if (unfinished(row) >= spec->max_pending) {
        buf_addf(out, "waiting: the job has %llu unfinished fires, as many as max_pending allows",
                 (unsigned long long)unfinished(row));
    } else if (spec->concurrency == JOB_QUEUE && unfinished(row) > 0) {
        buf_add_str(out, "waiting for the fire before it to end (concurrency: queue)");
    } else if (due_ms + (int64_t)jitter_ms > x->f->now_ms) {
        buf_add_str(out, "due; it is sent after its jitter, at ");
        add_at(out, explain_zone(x, era), due_ms + (int64_t)jitter_ms);
    } else {
        buf_add_str(out,
                    "due, and no end is on record yet: it is being sent, or waits its turn, or nobody can "
                    "begin it now");
    }
}

void explain_say_future(struct buf *out, const struct explain_work *x, const struct era *era, int64_t due_ms)
{
    uint32_t jitter_ms = job_jitter_ms(era->spec, &x->f->row->uid, due_ms);
    if (is_paused(x)) {
        buf_addf(out,
                 "will be %s if the job is still paused then: ", era->spec->one_shot ? "held" : "skipped");
        add_paused(out, x, era);
        return;
    }
    buf_add_str(out, "will be fired at ");
    add_at(out, explain_zone(x, era), due_ms + (int64_t)jitter_ms);
    if (jitter_ms > 0) {
        buf_add_str(out, ", after a jitter of ");
        add_duration(out, jitter_ms);
    }
}

/* --- what the rules of time do ------------------------------------------------------------------------------------- */

static int64_t wall_of(const struct tz *zone, const struct schedule_due *due, struct tz_span *ret)
{
    int64_t at_s = due->due_ms / 1000;
    tz_span_at(zone, at_s, ret);
    return at_s + (due->note == SCHEDULE_NOTE_DST_GAP ? ret->before_s : ret->offset_s);
}

static void add_gap(struct buf *out, const struct tz *zone, int64_t wall_s)
{
    add_wall(out, wall_s);
    buf_addf(out, " does not exist in %s on that day (clocks go forward)", tz_name(zone));
}

static void add_missing_day(struct buf *out, int64_t wall_s)
{
    static const char *const names[] = {"January",   "February", "March",    "April",
                                        "May",       "June",     "July",     "August",
                                        "September", "October",  "November", "December"};
    int64_t year;
    unsigned month, day;
    text_civil_from_days((wall_s - ((wall_s % 86400) + 86400) % 86400) / 86400, &year, &month, &day);
    buf_addf(out, "%s %lld has no day that the schedule names", names[month - 1], (long long)year);
}

static bool is_second_pass(const struct tz *zone, int64_t wall_s, int64_t due_ms)
{
    struct tz_wall w;
    tz_from_wall(zone, wall_s, &w);
    return w.kind == TZ_WALL_TWICE && due_ms / 1000 >= w.second_s;
}

void explain_say_note(struct buf *out, const struct explain_work *x, const struct era *era,
                      const struct schedule_due *due)
{
    const struct tz *zone = explain_zone(x, era);
    struct tz_span span;
    int64_t wall_s = wall_of(zone, due, &span);
    switch (due->note) {
    case SCHEDULE_NOTE_DST_GAP:
        buf_add_str(out, "; ");
        add_gap(out, zone, wall_s);
        buf_add_str(out, ", so it was due at ");
        add_wall(out, due->due_ms / 1000 + span.offset_s);
        buf_add_str(out, " instead");
        break;
    case SCHEDULE_NOTE_DST_REPEAT:
        buf_add_str(out, "; clocks of ");
        buf_addf(out, "%s show ", tz_name(zone));
        add_wall(out, wall_s);
        buf_addf(out, " twice on that day (they go back), and this is the %s time",
                 is_second_pass(zone, wall_s, due->due_ms) ? "second" : "first");
        break;
    case SCHEDULE_NOTE_SHORT_MONTH:
        buf_add_str(out, "; ");
        add_missing_day(out, wall_s);
        buf_add_str(out, ", so it was its last one (short_month: last)");
        break;
    case SCHEDULE_NOTE_NONE:
    case SCHEDULE_NOTE_COUNT_:
        break;
    }
}

void explain_say_left_out(struct buf *out, const struct explain_work *x, const struct era *era,
                          const struct schedule_due *due)
{
    const struct tz *zone = explain_zone(x, era);
    struct tz_span span;
    int64_t wall_s = wall_of(zone, due, &span);
    buf_add_str(out, "not due: ");
    if (due->note == SCHEDULE_NOTE_DST_GAP) {
        add_gap(out, zone, wall_s);
        buf_add_str(out, ", and dst.gap is skip");
    } else if (due->note == SCHEDULE_NOTE_SHORT_MONTH) {
        add_missing_day(out, wall_s);
        buf_add_str(out, ", and short_month is skip");
    } else {
        bool second = is_second_pass(zone, wall_s, due->due_ms);
        buf_addf(out, "clocks of %s show ", tz_name(zone));
        add_wall(out, wall_s);
        buf_addf(out, " twice on that day (they go back), and dst.repeat is %s: it is due the %s time only",
                 second ? "first" : "second", second ? "first" : "second");
    }
}

/* --- nothing ------------------------------------------------------------------------------------------------------- */

static void add_neighbour(struct buf *out, const struct tz *zone, bool any, const char *what, int64_t due_ms)
{
    if (!any)
        return;
    buf_addf(out, "; the %s is ", what);
    add_at(out, zone, due_ms);
}

static void say_between(struct buf *out, const struct explain_work *x, const struct era *era)
{
    const struct tz *zone = explain_zone(x, era);
    const struct job_spec *spec = era->spec;
    int64_t before_ms = 0, after_ms = 0, at_ms = x->span->from_ms;
    bool has_before = job_last_due_before(spec, at_ms, &before_ms) && before_ms > era->accepted_ms;
    bool has_after = job_next_due(spec, x->span->to_ms - 1, &after_ms) && after_ms <= era->until_ms;
    if (x->span->gap) {
        buf_add_str(out, "not due: ");
        add_gap(out, zone, x->span->wall_s);
        buf_add_str(out, ", and ");
    } else {
        buf_add_str(out, "not due: ");
    }
    buf_addf(out, "the schedule \"%.100s\"%s names no such time", spec->schedules[0],
             spec->schedules_count > 1 ? " (with others)" : "");
    add_neighbour(out, zone, has_before, "due before", before_ms);
    add_neighbour(out, zone, has_after, "next due", after_ms);
}

static void say_absent(struct buf *out, const struct explain_work *x, const struct era *era)
{
    const struct tz *zone = explain_zone(x, era);
    const char *op = era->begun ? era->begun->row.op : "";
    if (strcmp(op, "delete") == 0) {
        buf_add_str(out, "not due: the job had been deleted");
        add_by(out, zone, era->begun);
    } else if (strcmp(op, "expire") == 0) {
        buf_add_str(out, "not due: the job had finished, and was removed at ");
        add_at(out, zone, era->begun->row.at_ms);
    } else {
        buf_add_str(out, "not due: the job did not exist yet");
    }
    if (era->until_ms == INT64_MAX)
        return;
    buf_addf(out, op[0] ? "; it was created again" : "; it was created");
    if (era->ended) {
        add_by(out, zone, era->ended);
    } else {
        buf_add_str(out, " at ");
        add_at(out, zone, era->until_ms);
    }
}

void explain_say_nothing(struct buf *out, const struct explain_work *x, const struct era *era)
{
    const struct tz *zone = explain_zone(x, era);
    const struct job_spec *spec = era->spec;
    int64_t at_ms = x->span->from_ms;
    if (era->kind == ERA_ABSENT) {
        say_absent(out, x, era);
    } else if (era->kind == ERA_UNKNOWN || !spec) {
        buf_add_str(out, "what was due then is not known: the definition of that time is not kept");
    } else if (spec->starts_ms != RECORD_NONE && at_ms < spec->starts_ms) {
        buf_add_str(out, "not due: starts_at is ");
        add_at(out, zone, spec->starts_ms);
    } else if (spec->ends_ms != RECORD_NONE && at_ms >= spec->ends_ms) {
        buf_add_str(out, "not due: ends_at is ");
        add_at(out, zone, spec->ends_ms);
    } else {
        say_between(out, x, era);
    }
}
