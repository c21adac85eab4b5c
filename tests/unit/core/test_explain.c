/* Every sentence of explain, and what was in force when. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/core/explain.h"
#include "agent/core/ring_log.h"
#include "tests/lib/zones.h"

#define DAY_MS ((int64_t)86400000)

static struct tz *zones[3];

static const struct tz *zone_of(void *arg, const char *name)
{
    static const char *const names[] = {"Europe/Berlin", "Australia/Lord_Howe", "America/New_York"};
    (void)arg;
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(names[i], name) == 0)
            return zones[i] ? zones[i] : (zones[i] = zone_open(name));
    return tz_utc();
}

static int64_t instant(const char *text)
{
    int64_t ms = 0;
    struct err e = {0};
    cr_assert(zero(int, text_instant_ms(text, strlen(text), &ms, &e)), "%s", e.text);
    return ms;
}

static struct job_spec *make_spec(const char *fields, int64_t now_ms)
{
    char text[1024];
    struct problems problems;
    struct job_defaults defaults;
    struct job_spec *spec = NULL;
    enum job_refusal refusal;
    struct err e = {0};
    json_t *doc = NULL, *warnings = json_array();
    int paused;
    snprintf(text, sizeof(text), "{%s,\"callback\":{\"http\":{\"service\":\"billing\",\"path\":\"/x\"}}}",
             fields);
    problems_init(&problems);
    job_defaults_init(&defaults);
    struct job_context ctx = {
        .ns = "default", .id = "j", .now_ms = now_ms, .created_ms = RECORD_NONE, .defaults = &defaults};
    cr_assert(zero(int, json_read(text, strlen(text), 1 << 20, &doc, &e)), "%s", e.text);
    cr_assert(zero(int, job_spec_parse(doc, &ctx, zone_of, NULL, &problems, &refusal, warnings, &paused,
                                       &spec, &e)),
              "%s %s", e.text, text);
    problems_fini(&problems);
    json_decref(doc);
    json_decref(warnings);
    return spec;
}

/* What is known of one job named "j". */
struct bed {
    struct job_row row;
    struct job_spec *spec;
    struct explain_change changes[8]; /* newest first */
    struct fire_row fires[8];
    struct ring_entry ring[4];
    struct explain_facts f;
};

static void add_change(struct bed *b, const char *op, const char *at, enum job_state state,
                       struct job_spec *was)
{
    memmove(b->changes + 1, b->changes, sizeof(b->changes) - sizeof(b->changes[0]));
    struct revision *r = &b->changes[0].row;
    memset(&b->changes[0], 0, sizeof(b->changes[0]));
    b->changes[0].was = was;
    r->at_ms = instant(at);
    r->uid = b->row.uid;
    r->state = state;
    r->due_ms = b->row.due_ms;
    snprintf(r->op, sizeof(r->op), "%s", op);
    snprintf(r->actor, sizeof(r->actor), "ann");
    b->f.changes_count++;
}

/* A job made at CREATED that has fired all that came before NOW, and of which nothing is kept yet. */
static struct bed *bed_new(const char *fields, const char *created, const char *now)
{
    struct bed *b = mem_new(struct bed);
    int64_t created_ms = instant(created), now_ms = instant(now), due_ms;
    b->spec = make_spec(fields, created_ms);
    b->row.uid.bytes[15] = 7;
    b->row.created_ms = created_ms;
    b->row.due_ms = b->row.last.due_ms = b->row.last_success_ms = RECORD_NONE;
    if (job_first_due(b->spec, created_ms, RECORD_NONE, &due_ms))
        b->row.due_ms = due_ms;
    add_change(b, "create", created, JOB_STATE_ACTIVE, NULL);
    b->changes[0].row.due_ms = RECORD_NONE;
    while (b->row.due_ms != RECORD_NONE && b->row.due_ms <= now_ms) {
        b->row.last.due_ms = b->row.due_ms;
        b->row.counts.seq++;
        b->row.counts.succeeded++;
        b->row.scheduled++;
        b->row.due_ms = job_next_due(b->spec, b->row.due_ms, &due_ms) ? due_ms : RECORD_NONE;
    }
    if (b->row.due_ms == RECORD_NONE)
        b->row.state = JOB_STATE_DONE;
    b->f = (struct explain_facts){.now_ms = now_ms,
                                  .row = &b->row,
                                  .spec = b->spec,
                                  .changes = b->changes,
                                  .changes_count = 1,
                                  .changes_all = true,
                                  .fires = b->fires,
                                  .fires_all = true,
                                  .ring = b->ring,
                                  .keep_ms = 30 * DAY_MS};
    return b;
}

static void bed_free(struct bed *b)
{
    job_spec_unref(b->spec);
    for (size_t i = 0; i < b->f.changes_count; i++)
        job_spec_unref(b->changes[i].was);
    mem_free(b);
    for (unsigned i = 0; i < 3; i++) {
        tz_free(zones[i]);
        zones[i] = NULL;
    }
}

static void add_ring(struct bed *b, const char *due, uint32_t late_ms, enum fire_wait waited)
{
    b->ring[b->f.ring_count++] = (struct ring_entry){.seq = 41 + b->f.ring_count,
                                                     .due_ms = instant(due),
                                                     .late_ms = late_ms,
                                                     .duration_ms = 12,
                                                     .status = 200,
                                                     .waited = waited,
                                                     .endpoint = "10.0.0.7:8080"};
}

static struct fire_row *add_fire(struct bed *b, const char *due, enum fire_outcome outcome,
                                 enum fire_reason reason, uint32_t attempts)
{
    struct fire_row *f = &b->fires[b->f.fires_count++];
    *f = (struct fire_row){.uid = b->row.uid,
                           .seq = 50 + b->f.fires_count,
                           .seq_last = 50 + b->f.fires_count,
                           .state = outcome == FIRE_OUTCOME_PENDING ? FIRE_STATE_WAITING : FIRE_STATE_ENDED,
                           .outcome = outcome,
                           .reason = reason,
                           .due_ms = instant(due),
                           .due_last_ms = instant(due),
                           .first_ms = instant(due),
                           .wake_ms = instant(due) + 90000,
                           .started_ms = attempts ? instant(due) + 3 : RECORD_NONE,
                           .finished_ms = outcome ? instant(due) + 60000 : RECORD_NONE,
                           .attempts = attempts};
    if (attempts && outcome != FIRE_OUTCOME_SUCCEEDED)
        snprintf(f->last_error, sizeof(f->last_error), "status 503");
    return f;
}

static void set_log(struct fire_row *f, const char *log)
{
    f->log = (char *)(uintptr_t)log; /* the bed does not free it */
    f->log_bytes = strlen(log);
}

static void print(const struct explain_answer *a, struct buf *out)
{
    for (size_t i = 0; i < a->count; i++) {
        const char *outcome = explain_outcome_name(&a->items[i]);
        const char *reason = fire_reason_name(a->items[i].reason);
        char local[TEXT_LOCAL_SIZE];
        (void)text_local_print(local, a->items[i].due_ms, a->items[i].offset_s);
        buf_addf(out, "%s %s", local, outcome ? outcome : "unknown");
        if (reason)
            buf_addf(out, " (%s)", reason);
        if (a->items[i].has_fire)
            buf_addf(out, " #%llu", (unsigned long long)a->items[i].seq);
        buf_addf(out, ": %s\n", a->items[i].text);
    }
    if (a->next_ms != RECORD_NONE) {
        char next[TEXT_INSTANT_SIZE];
        text_instant_print(next, a->next_ms);
        buf_addf(out, "next %s\n", next);
    }
}

static void expect_span(struct bed *b, const struct explain_span *span, size_t limit, const char *wanted)
{
    struct explain_answer a;
    struct err e = {0};
    AUTO(buf_fini) struct buf out = BUF_INIT(1 << 16);
    cr_assert(zero(int, explain(&b->f, span, limit, &a, &e)), "%s", e.text);
    print(&a, &out);
    explain_answer_fini(&a);
    cr_expect(eq(str, (char *)(uintptr_t)buf_str(&out), (char *)(uintptr_t)wanted));
}

/* At AT, as a user writes it. */
static void expect_at(struct bed *b, const char *at, const char *wanted)
{
    struct explain_span span;
    struct err e = {0};
    const struct tz *zone = b->f.spec ? zone_of(NULL, b->f.spec->timezone) : tz_utc();
    cr_assert(zero(int, explain_at_parse(at, strlen(at), zone, &span, &e)), "%s", e.text);
    expect_span(b, &span, 100, wanted);
}

static void expect_range(struct bed *b, const char *from, const char *to, size_t limit, const char *wanted)
{
    struct explain_span span = {.from_ms = instant(from), .to_ms = instant(to)};
    expect_span(b, &span, limit, wanted);
}

#define DAILY    "\"schedule\":\"0 9 * * *\",\"timezone\":\"Europe/Berlin\""
#define CREATED  "2026-11-01T00:00:00Z"
#define NOW      "2026-11-23T12:00:00Z"
#define DUE      "2026-11-20T08:00:00Z"
#define AT       "2026-11-20T09:00"
#define DUE_TEXT "2026-11-20T09:00:00+01:00 "

/* --- fired --------------------------------------------------------------------------------------------------------- */

Test(explain, first_attempt_successes_tell_when_and_why_late)
{
    static const struct {
        uint32_t late_ms;
        enum fire_wait waited;
        const char *wanted;
    } rows[] = {
        {3, FIRE_WAIT_NONE,
         "fired at 2026-11-20T09:00:00.003+01:00; succeeded at the first attempt: 10.0.0.7:8080 answered 200 after "
         "12 ms."},
        {340, FIRE_WAIT_NONE,
         "fired at 2026-11-20T09:00:00.340+01:00, 340ms late; succeeded at the first attempt: 10.0.0.7:8080 answered "
         "200 after 12 ms."},
        {1340, FIRE_WAIT_ENDPOINT,
         "fired at 2026-11-20T09:00:01.340+01:00, 1s340ms late because no endpoint of service 'billing' was healthy "
         "before; succeeded at the first attempt: 10.0.0.7:8080 answered 200 after 12 ms."},
        {1340, FIRE_WAIT_TURN,
         "fired at 2026-11-20T09:00:01.340+01:00, 1s340ms late because the limits of service 'billing' made it wait "
         "its turn; succeeded at the first attempt: 10.0.0.7:8080 answered 200 after 12 ms."},
        {3601000, FIRE_WAIT_START,
         "fired at 2026-11-20T10:00:01+01:00, 1h1s late because no agent could begin it earlier (none held the job, "
         "the store was away, or it was caught up in its turn); succeeded at the first attempt: 10.0.0.7:8080 "
         "answered 200 after 12 ms."},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bed *b = bed_new(DAILY, CREATED, NOW);
        char wanted[512];
        add_ring(b, DUE, rows[i].late_ms, rows[i].waited);
        snprintf(wanted, sizeof(wanted), DUE_TEXT "succeeded #42: %s\n", rows[i].wanted);
        expect_at(b, AT, wanted);
        bed_free(b);
    }
}

Test(explain, what_answered_over_grpc_is_named)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    add_ring(b, DUE, 3, FIRE_WAIT_NONE);
    b->ring[0].status = 0;
    expect_at(b, AT,
              DUE_TEXT
              "succeeded #42: fired at 2026-11-20T09:00:00.003+01:00; succeeded at the first attempt: "
              "10.0.0.7:8080 answered OK after 12 ms.\n");
    bed_free(b);
}

Test(explain, jitter_is_not_lateness)
{
    struct bed *b = bed_new(DAILY ",\"jitter\":\"10m\"", CREATED, NOW);
    uint32_t jitter_ms = job_jitter_ms(b->spec, &b->row.uid, instant(DUE));
    char wanted[512], jitter[TEXT_DURATION_SIZE], sent[TEXT_LOCAL_SIZE];
    add_ring(b, DUE, jitter_ms + 2, FIRE_WAIT_NONE);
    (void)text_duration_print(jitter, jitter_ms);
    (void)text_local_print(sent, instant(DUE) + jitter_ms + 2, 3600);
    snprintf(wanted, sizeof(wanted),
             DUE_TEXT "succeeded #42: fired at %s, after a jitter of %s; succeeded at the first attempt: "
                      "10.0.0.7:8080 answered 200 after 12 ms.\n",
             sent, jitter);
    expect_at(b, AT, wanted);
    bed_free(b);
}

Test(explain, retried_fires_tell_how_they_ended)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    struct fire_row *f = add_fire(b, DUE, FIRE_OUTCOME_SUCCEEDED, FIRE_REASON_NONE, 3);
    f->coalesced = 2;
    set_log(
        f,
        "[{\"attempt\":1,\"at\":\"2026-11-20T08:00:00.003Z\",\"endpoint\":\"10.0.0.7:8080\",\"status\":503,"
        "\"duration_ms\":5,\"error\":null},{\"attempt\":2,\"at\":\"2026-11-20T08:00:01Z\",\"endpoint\":"
        "\"10.0.0.8:8080\",\"status\":null,\"duration_ms\":5,\"error\":\"connection refused\"},{\"attempt\":3,"
        "\"at\":\"2026-11-20T08:00:03Z\",\"endpoint\":\"10.0.0.9:8080\",\"status\":204,\"duration_ms\":7,"
        "\"error\":null}]");
    expect_at(b, AT,
              DUE_TEXT
              "succeeded #51: fired at 2026-11-20T09:00:00.003+01:00; succeeded at attempt 3 at "
              "2026-11-20T09:00:03+01:00 (the one before failed: connection refused): 10.0.0.9:8080 answered "
              "204 after 7 ms; it stands for 2 more dues before it.\n");
    bed_free(b);
}

Test(explain, given_up_fires_tell_why)
{
    static const struct {
        enum fire_reason reason;
        uint32_t attempts;
        const char *wanted;
    } rows[] = {
        {FIRE_REASON_MAX_ATTEMPTS, 4,
         "(max_attempts) #51: fired at 2026-11-20T09:00:00.003+01:00; given up at 2026-11-20T09:01:00+01:00 after 4 "
         "attempts, as many as retry.max_attempts allows: status 503."},
        {FIRE_REASON_MAX_AGE, 9,
         "(max_age) #51: fired at 2026-11-20T09:00:00.003+01:00; given up at 2026-11-20T09:01:00+01:00 after 9 "
         "attempts, when retry.max_age was over: status 503."},
        {FIRE_REASON_GIVE_UP, 1,
         "(give_up) #51: fired at 2026-11-20T09:00:00.003+01:00; given up at 2026-11-20T09:01:00+01:00 after one "
         "attempt because callback.give_up_on names the answer: status 503."},
        {FIRE_REASON_AT_MOST_ONCE, 1,
         "(at_most_once) #51: fired at 2026-11-20T09:00:00.003+01:00; given up at 2026-11-20T09:01:00+01:00 after one "
         "attempt because delivery is at_most_once: status 503."},
        {FIRE_REASON_NO_ENDPOINT, 0,
         "(no_endpoint) #51: never sent because no endpoint of service 'billing' was healthy before; given up at "
         "2026-11-20T09:01:00+01:00, when retry.max_age was over."},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bed *b = bed_new(DAILY, CREATED, NOW);
        char wanted[512];
        (void)add_fire(b, DUE, FIRE_OUTCOME_DEAD, rows[i].reason, rows[i].attempts);
        snprintf(wanted, sizeof(wanted), DUE_TEXT "dead %s\n", rows[i].wanted);
        expect_at(b, AT, wanted);
        bed_free(b);
    }
}

Test(explain, a_due_without_a_record_in_the_time_of_history_succeeded)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    expect_at(b, AT,
              DUE_TEXT
              "succeeded: succeeded at the first attempt: no other end is on record, and details are kept of "
              "the newest such fires only.\n");
    b->f.keep_ms = DAY_MS;
    expect_at(b, AT, DUE_TEXT "unknown: what became of it is not known: fires are kept for 24h.\n");
    b->f.keep_ms = 30 * DAY_MS;
    b->f.fires_all = false;
    (void)add_fire(b, "2026-11-21T08:00:00Z", FIRE_OUTCOME_DEAD, FIRE_REASON_GIVE_UP, 1);
    expect_at(b, AT,
              DUE_TEXT
              "unknown: what became of it is not known: the job has more fires on record since than are "
              "looked at.\n");
    bed_free(b);
}

/* --- not fired ----------------------------------------------------------------------------------------------------- */

Test(explain, skipped_and_folded_dues_tell_into_what_and_by_whom)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    add_change(b, "pause", "2026-11-17T12:00:00Z", JOB_STATE_PAUSED, NULL);
    add_change(b, "resume", "2026-11-20T12:00:00Z", JOB_STATE_ACTIVE, NULL);
    struct fire_row *f = add_fire(b, "2026-11-18T08:00:00Z", FIRE_OUTCOME_SKIPPED, FIRE_REASON_PAUSED, 0);
    f->seq_last = 53;
    f->due_last_ms = instant(DUE);
    expect_range(
        b, "2026-11-19T00:00:00Z", "2026-11-21T00:00:00Z", 10,
        "2026-11-19T09:00:00+01:00 skipped (paused) #52: skipped because the job was paused by 'ann' at "
        "2026-11-17T13:00:00+01:00, together with 2 other dues from 2026-11-18T09:00:00+01:00 to "
        "2026-11-20T09:00:00+01:00.\n" DUE_TEXT
        "skipped (paused) #53: skipped because the job was paused by 'ann' at 2026-11-17T13:00:00+01:00, "
        "together with 2 other dues from 2026-11-18T09:00:00+01:00 to 2026-11-20T09:00:00+01:00.\n");
    f->reason = FIRE_REASON_OVERLAP;
    f->seq_last = 51;
    f->due_ms = instant(DUE);
    expect_at(b, AT,
              DUE_TEXT
              "skipped (overlap) #51: skipped because the fire before it was still running (concurrency: "
              "forbid).\n");
    f->reason = FIRE_REASON_LATE;
    expect_at(
        b, AT,
        DUE_TEXT
        "skipped (late) #51: skipped because it could not be fired within the misfire window of 24h.\n");
    f->outcome = FIRE_OUTCOME_COALESCED;
    f->reason = FIRE_REASON_COALESCED;
    b->row.counts.seq = 51;
    expect_at(b, AT,
              DUE_TEXT
              "coalesced (coalesced) #51: coalesced into the next fire, which is not recorded yet: of "
              "overdue ones the newest is fired (misfire: last).\n");
    b->row.counts.seq = 52;
    expect_at(b, AT,
              DUE_TEXT
              "coalesced (coalesced) #51: coalesced into a later fire, which is not kept: of overdue "
              "ones the newest is fired (misfire: last).\n");
    add_fire(b, "2026-11-21T08:00:00Z", FIRE_OUTCOME_SUCCEEDED, FIRE_REASON_NONE, 1)->coalesced = 1;
    expect_at(b, AT,
              DUE_TEXT
              "coalesced (coalesced) #51: coalesced into fire 00000000000000000000000000000007.52, due at "
              "2026-11-21T09:00:00+01:00: of overdue ones the newest is fired (misfire: last).\n");
    f->attempts = 2;
    expect_at(b, AT,
              DUE_TEXT
              "coalesced (coalesced) #51: coalesced into fire 00000000000000000000000000000007.52, due at "
              "2026-11-21T09:00:00+01:00: it waited for a retry when the next due came (concurrency: "
              "forbid).\n");
    f->outcome = FIRE_OUTCOME_CANCELLED;
    f->reason = FIRE_REASON_REPLACED;
    expect_at(b, AT,
              DUE_TEXT
              "cancelled (replaced) #51: tried 2 times; cancelled at 2026-11-18T09:01:00+01:00 because the "
              "next due had come (concurrency: replace).\n");
    bed_free(b);
}

/* --- not yet ------------------------------------------------------------------------------------------------------- */

Test(explain, unfinished_fires_tell_what_they_wait_for)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    struct fire_row *f = add_fire(b, DUE, FIRE_OUTCOME_PENDING, FIRE_REASON_NONE, 2);
    expect_at(b, AT,
              DUE_TEXT
              "pending #51: waiting for the retry at 2026-11-20T09:01:30+01:00: attempt 2 failed (status "
              "503).\n");
    b->row.state = JOB_STATE_PAUSED;
    add_change(b, "pause", "2026-11-20T09:00:00Z", JOB_STATE_PAUSED, NULL);
    expect_at(
        b, AT,
        DUE_TEXT
        "pending #51: waiting for the retry at 2026-11-20T09:01:30+01:00: attempt 2 failed (status "
        "503); nothing is tried because the job has been paused by 'ann' since 2026-11-20T10:00:00+01:00.\n");
    f->attempts = 0;
    f->kind = FIRE_KIND_RUN;
    f->reason = FIRE_REASON_NO_ENDPOINT;
    expect_at(b, "2026-11-20T08:00:00Z",
              DUE_TEXT
              "succeeded: succeeded at the first attempt: no other end is on record, and details are kept of "
              "the newest such fires only.\n" DUE_TEXT
              "pending (no_endpoint) #51: asked for by hand (run): waiting for a healthy endpoint of service "
              "'billing' since 2026-11-20T09:00:00+01:00.\n");
    f->kind = FIRE_KIND_SCHEDULED;
    f->reason = FIRE_REASON_NONE;
    f->state = FIRE_STATE_HELD;
    f->attempts = 1;
    snprintf(f->holder, sizeof(f->holder), "a1.x");
    expect_at(b, AT, DUE_TEXT "pending #51: attempt 1 is under way at agent a1.x.\n");
    f->state = FIRE_STATE_OPEN;
    expect_at(b, AT,
              DUE_TEXT "pending #51: accepted by the callee at attempt 1; its report is awaited until "
                       "2026-11-20T09:01:30+01:00.\n");
    bed_free(b);
}

Test(explain, dues_that_have_come_and_are_on_no_record_wait_for_something)
{
    struct bed *b = bed_new(DAILY, CREATED, DUE);
    b->row.due_ms = instant(DUE);
    expect_at(b, AT,
              DUE_TEXT
              "pending: due, and no end is on record yet: it is being sent, or waits its turn, or nobody can "
              "begin it now.\n");
    b->row.counts.seq += 16;
    expect_at(b, AT,
              DUE_TEXT "pending: waiting: the job has 16 unfinished fires, as many as max_pending allows.\n");
    b->row.state = JOB_STATE_PAUSED;
    add_change(b, "pause", "2026-11-17T12:00:00Z", JOB_STATE_PAUSED, NULL);
    expect_at(
        b, AT,
        DUE_TEXT
        "pending (paused): not fired: the job has been paused by 'ann' since 2026-11-17T13:00:00+01:00, and it "
        "is skipped when the job is resumed, unless with catch_up.\n");
    bed_free(b);
}

Test(explain, coming_dues_tell_when_they_are_sent)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    expect_at(b, "2026-11-24",
              "2026-11-24T09:00:00+01:00 future: will be fired at 2026-11-24T09:00:00+01:00.\n");
    b->row.state = JOB_STATE_PAUSED;
    add_change(b, "pause", "2026-11-23T11:00:00Z", JOB_STATE_PAUSED, NULL);
    expect_at(
        b, "2026-11-24",
        "2026-11-24T09:00:00+01:00 future: will be skipped if the job is still paused then: the job has been paused by "
        "'ann' since 2026-11-23T12:00:00+01:00.\n");
    bed_free(b);
    b = bed_new(DAILY ",\"max_fires\":24", CREATED, NOW);
    expect_range(
        b, "2026-11-24T00:00:00Z", "2026-11-26T00:00:00Z", 10,
        "2026-11-24T09:00:00+01:00 future: will be fired at 2026-11-24T09:00:00+01:00.\n"
        "2026-11-25T09:00:00+01:00 not_due: not due: max_fires allows 24 fires, which will be over before.\n");
    b->row.state = JOB_STATE_DONE;
    expect_at(
        b, "2026-11-24",
        "2026-11-24T09:00:00+01:00 not_due: not due: max_fires allows 24 fires, and the job has had them.\n");
    bed_free(b);
}

/* --- the rules of time --------------------------------------------------------------------------------------------- */

#define NIGHTLY "\"schedule\":\"30 2 * * *\",\"timezone\":\"Europe/Berlin\""

Test(explain, the_hour_that_clocks_leave_out)
{
    struct bed *b = bed_new(NIGHTLY, "2026-03-01T00:00:00Z", "2026-03-30T12:00:00Z");
    add_ring(b, "2026-03-29T01:30:00Z", 1, FIRE_WAIT_NONE);
    static const char shifted[] =
        "2026-03-29T03:30:00+02:00 succeeded #42: fired at 2026-03-29T03:30:00.001+02:00; succeeded at the first "
        "attempt: 10.0.0.7:8080 answered 200 after 12 ms; 02:30 does not exist in Europe/Berlin on that day (clocks go "
        "forward), so it was due at 03:30 instead.\n";
    expect_at(b, "2026-03-29T02:30", shifted);
    expect_at(b, "2026-03-29", shifted);
    bed_free(b);
    b = bed_new(NIGHTLY ",\"dst\":{\"gap\":\"skip\"}", "2026-03-01T00:00:00Z", "2026-03-30T12:00:00Z");
    expect_at(
        b, "2026-03-29T02:30",
        "2026-03-29T03:30:00+02:00 not_due: not due: 02:30 does not exist in Europe/Berlin on that day (clocks go "
        "forward), and dst.gap is skip.\n");
    expect_at(
        b, "2026-03-29T02:45",
        "2026-03-29T03:45:00+02:00 not_due: not due: 02:45 does not exist in Europe/Berlin on that day (clocks go "
        "forward), and the schedule \"30 2 * * *\" names no such time; the due before is "
        "2026-03-28T02:30:00+01:00; the next due is 2026-03-30T02:30:00+02:00.\n");
    bed_free(b);
}

Test(explain, the_hour_that_clocks_show_twice)
{
    struct bed *b = bed_new(NIGHTLY, "2026-10-01T00:00:00Z", "2026-10-20T12:00:00Z");
    expect_at(
        b, "2026-10-25T02:30",
        "2026-10-25T02:30:00+02:00 future: will be fired at 2026-10-25T02:30:00+02:00; clocks of Europe/Berlin "
        "show 02:30 twice on that day (they go back), and this is the first time.\n"
        "2026-10-25T02:30:00+01:00 not_due: not due: clocks of Europe/Berlin show 02:30 twice on that day (they "
        "go back), and dst.repeat is first: it is due the first time only.\n");
    bed_free(b);
    b = bed_new(NIGHTLY ",\"dst\":{\"repeat\":\"second\"}", "2026-10-01T00:00:00Z", "2026-10-20T12:00:00Z");
    expect_at(
        b, "2026-10-25",
        "2026-10-25T02:30:00+02:00 not_due: not due: clocks of Europe/Berlin show 02:30 twice on that day (they "
        "go back), and dst.repeat is second: it is due the second time only.\n"
        "2026-10-25T02:30:00+01:00 future: will be fired at 2026-10-25T02:30:00+01:00; clocks of Europe/Berlin "
        "show 02:30 twice on that day (they go back), and this is the second time.\n");
    bed_free(b);
}

/* Its clocks move by half an hour. */
Test(explain, lord_howe)
{
    struct bed *b = bed_new("\"schedule\":\"15 2 * * *\",\"timezone\":\"Australia/Lord_Howe\"",
                            "2026-09-01T00:00:00Z", "2026-10-03T00:00:00Z");
    expect_at(
        b, "2026-10-04T02:15",
        "2026-10-04T02:45:00+11:00 future: will be fired at 2026-10-04T02:45:00+11:00; 02:15 does not exist in "
        "Australia/Lord_Howe on that day (clocks go forward), so it was due at 02:45 instead.\n");
    bed_free(b);
}

Test(explain, days_that_a_month_lacks)
{
    struct bed *b = bed_new("\"schedule\":\"0 9 31 * *\"", "2026-03-01T00:00:00Z", "2026-05-10T00:00:00Z");
    expect_at(
        b, "2026-04-30",
        "2026-04-30T09:00:00+00:00 not_due: not due: April 2026 has no day that the schedule names, and short_month is "
        "skip.\n");
    expect_at(
        b, "2026-04-29",
        "2026-04-29T00:00:00+00:00 not_due: not due: the schedule \"0 9 31 * *\" names no such time; the due before "
        "is 2026-03-31T09:00:00+00:00; the next due is 2026-05-31T09:00:00+00:00.\n");
    bed_free(b);
    b = bed_new("\"schedule\":\"0 9 31 * *\",\"short_month\":\"last\"", "2026-03-01T00:00:00Z",
                "2026-04-10T00:00:00Z");
    expect_at(
        b, "2026-04-30",
        "2026-04-30T09:00:00+00:00 future: will be fired at 2026-04-30T09:00:00+00:00; April 2026 has no day that the "
        "schedule names, so it was its last one (short_month: last).\n");
    bed_free(b);
}

Test(explain, bounds_of_a_job)
{
    struct bed *b = bed_new("\"schedule\":\"0 9 * * *\",\"starts_at\":\"2026-11-10T00:00:00Z\",\"ends_at\":"
                            "\"2026-11-25T00:00:00Z\"",
                            CREATED, NOW);
    expect_at(b, "2026-11-05T09:00",
              "2026-11-05T09:00:00+00:00 not_due: not due: starts_at is 2026-11-10T00:00:00+00:00.\n");
    expect_at(b, "2026-11-25T09:00",
              "2026-11-25T09:00:00+00:00 not_due: not due: ends_at is 2026-11-25T00:00:00+00:00.\n");
    expect_at(
        b, "2026-10-25T09:00",
        "2026-10-25T09:00:00+00:00 not_due: not due: the job did not exist yet; it was created by 'ann' at "
        "2026-11-01T00:00:00+00:00.\n");
    expect_at(
        b, "2026-11-20T09:01:00+00:00",
        "2026-11-20T09:01:00+00:00 not_due: not due: the schedule \"0 9 * * *\" names no such time; the due before is "
        "2026-11-20T09:00:00+00:00; the next due is 2026-11-21T09:00:00+00:00.\n");
    bed_free(b);
}

/* --- what was in force when ---------------------------------------------------------------------------------------- */

Test(explain, a_changed_schedule_is_judged_by_what_it_was)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    struct job_spec *was =
        make_spec("\"schedule\":\"0 7,8 * * *\",\"timezone\":\"Europe/Berlin\"", instant(CREATED));
    add_change(b, "replace", "2026-11-20T07:30:00Z", JOB_STATE_ACTIVE, was);
    b->changes[0].row.due_ms = instant("2026-11-20T07:00:00Z"); /* 08:00 had come and was not fired */
    (void)add_fire(b, "2026-11-20T06:00:00Z", FIRE_OUTCOME_DEAD, FIRE_REASON_GIVE_UP, 1);
    add_ring(b, DUE, 1, FIRE_WAIT_NONE);
    expect_at(
        b, "2026-11-20",
        "2026-11-20T07:00:00+01:00 dead (give_up) #51: fired at 2026-11-20T07:00:00.003+01:00; given up at "
        "2026-11-20T07:01:00+01:00 after one attempt because callback.give_up_on names the answer: status 503.\n"
        "2026-11-20T08:00:00+01:00 not_due: not fired before the schedule was changed by 'ann' at "
        "2026-11-20T08:30:00+01:00.\n" DUE_TEXT
        "succeeded #42: fired at 2026-11-20T09:00:00.001+01:00; succeeded at the first attempt: 10.0.0.7:8080 "
        "answered 200 after 12 ms.\n");
    bed_free(b);
}

/* Another callback is no other schedule. */
Test(explain, a_change_that_leaves_the_schedule_leaves_its_dues)
{
    struct bed *b = bed_new("\"schedule\":\"@every 7h\"", CREATED, NOW);
    struct job_spec *was =
        make_spec("\"schedule\":\"@every 7h\",\"misfire\":{\"policy\":\"last\"}", instant(CREATED));
    add_change(b, "patch", "2026-11-20T07:30:00Z", JOB_STATE_ACTIVE, was);
    b->changes[0].row.due_ms = instant("2026-11-20T13:00:00Z");
    struct explain_answer a;
    struct explain_span span = {.from_ms = instant("2026-11-20T00:00:00Z"),
                                .to_ms = instant("2026-11-21T00:00:00Z")};
    cr_assert(zero(int, explain(&b->f, &span, 10, &a, NULL)));
    cr_assert(eq(sz, a.count, 3));
    for (size_t i = 0; i < a.count; i++) {
        cr_assert(eq(int, a.items[i].outcome, FIRE_OUTCOME_SUCCEEDED));
        cr_assert(zero(i64, (a.items[i].due_ms - instant(CREATED)) % (7 * 3600000)));
    }
    explain_answer_fini(&a);
    bed_free(b);
}

Test(explain, a_deleted_job_is_told_of_as_far_as_kept)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    add_change(b, "delete", "2026-11-21T12:00:00Z", JOB_STATE_ACTIVE, b->spec);
    b->changes[0].row.due_ms = instant("2026-11-22T08:00:00Z");
    b->f.row = NULL;
    b->f.spec = b->spec = NULL;
    (void)add_fire(b, DUE, FIRE_OUTCOME_CANCELLED, FIRE_REASON_DELETED, 1);
    expect_range(
        b, "2026-11-20T00:00:00Z", "2026-11-23T00:00:00Z", 10,
        DUE_TEXT
        "cancelled (deleted) #51: tried one time, the last error being: status 503; cancelled because "
        "the job was deleted by 'ann' at 2026-11-21T13:00:00+01:00.\n"
        "2026-11-21T09:00:00+01:00 succeeded: succeeded at the first attempt: no other end is on "
        "record, and details are kept of the newest such fires only, until the job is deleted.\n");
    expect_at(b, "2026-11-22T08:00:00Z",
              "2026-11-22T09:00:00+01:00 not_due (deleted): not due: the job had been deleted by 'ann' at "
              "2026-11-21T13:00:00+01:00.\n");
    bed_free(b);
}

Test(explain, a_name_may_have_been_two_jobs)
{
    struct bed *b = bed_new(DAILY, "2026-11-22T12:00:00Z", NOW);
    struct job_spec *was = make_spec("\"schedule\":\"0 10 * * *\"", instant(CREATED));
    struct revision created = b->changes[0].row;
    b->f.changes_count = 0;
    b->row.uid.bytes[15] = 6;
    add_change(b, "create", CREATED, JOB_STATE_ACTIVE, NULL);
    add_change(b, "delete", "2026-11-20T12:00:00Z", JOB_STATE_ACTIVE, was);
    b->changes[0].row.due_ms = instant("2026-11-21T10:00:00Z");
    b->row.uid.bytes[15] = 7;
    add_change(b, "create", "2026-11-22T12:00:00Z", JOB_STATE_ACTIVE, NULL);
    b->changes[0].row = created;
    expect_at(b, "2026-11-21T10:00:00Z",
              "2026-11-21T11:00:00+01:00 not_due (deleted): not due: the job had been deleted by 'ann' at "
              "2026-11-20T13:00:00+01:00; it was created again by 'ann' at 2026-11-22T13:00:00+01:00.\n");
    b->f.changes_count = 2;
    b->f.changes_all = false;
    expect_at(
        b, "2026-11-19T10:00:00Z",
        "2026-11-19T10:00:00+00:00 unknown: what was due then is not known: the definition of that time is not "
        "kept.\n");
    bed_free(b);
}

/* --- pages, and what is asked ---------------------------------------------------------------------------------------- */

Test(explain, a_page_goes_on_where_the_last_one_ended)
{
    struct bed *b = bed_new("\"schedule\":\"@hourly\"", CREATED, NOW);
    (void)add_fire(b, "2026-11-20T01:30:00Z", FIRE_OUTCOME_SUCCEEDED, FIRE_REASON_NONE, 1);
    b->fires[0].kind = FIRE_KIND_RUN;
    struct explain_span span = {.from_ms = instant("2026-11-20T00:00:00Z"),
                                .to_ms = instant("2026-11-20T12:00:00Z")};
    int64_t last_ms = 0;
    size_t count = 0;
    for (int page = 0; page < 10 && span.from_ms != RECORD_NONE; page++) {
        struct explain_answer a;
        cr_assert(zero(int, explain(&b->f, &span, 4, &a, NULL)));
        cr_assert(le(sz, a.count, 4));
        for (size_t i = 0; i < a.count; i++, count++) {
            cr_assert(gt(i64, a.items[i].due_ms, last_ms));
            last_ms = a.items[i].due_ms;
        }
        span.from_ms = a.next_ms;
        explain_answer_fini(&a);
    }
    cr_assert(eq(sz, count, 13));
    bed_free(b);
}

Test(explain, what_is_asked_is_read_strictly)
{
    static const char *const bad[] = {"",
                                      "now",
                                      "2026-02-30",
                                      "2026-1-1",
                                      "2026-01-01T",
                                      "2026-01-01T24:00",
                                      "2026-01-01T10:00+1",
                                      "1969-12-31",
                                      "20260101",
                                      "2026-13-01",
                                      "2026-01-01T10:00:61"};
    struct explain_span span;
    const struct tz *berlin = zone_of(NULL, "Europe/Berlin");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert(eq(int, explain_at_parse(bad[i], strlen(bad[i]), berlin, &span, NULL), -ERR_INVALID), "%s",
                  bad[i]);
    cr_assert(zero(int, explain_at_parse("2026-03-29", 10, berlin, &span, NULL)));
    cr_assert(eq(i64, span.to_ms - span.from_ms, 23 * 3600000), "a day with a gap");
    cr_assert(zero(int, explain_at_parse("2026-10-25", 10, berlin, &span, NULL)));
    cr_assert(eq(i64, span.to_ms - span.from_ms, 25 * 3600000), "a day with an hour twice");
    cr_assert(zero(int, explain_at_parse("2026-11-23T09:00:00.250+01:00", 29, berlin, &span, NULL)));
    cr_assert(eq(i64, span.from_ms, instant("2026-11-23T08:00:00.250Z")));
    cr_assert(eq(i64, span.to_ms - span.from_ms, 1));
    cr_assert(zero(int, explain_at_parse("2026-11-23T09:00:30", 19, berlin, &span, NULL)));
    cr_assert(eq(i64, span.from_ms, instant("2026-11-23T08:00:30Z")));
    cr_assert(eq(i64, span.to_ms - span.from_ms, 1000));
    tz_free(zones[0]);
    zones[0] = NULL;
}

Test(explain, without_memory_it_says_so)
{
    struct bed *b = bed_new(DAILY, CREATED, NOW);
    struct explain_span span = {.from_ms = instant(CREATED), .to_ms = instant("2026-11-30T00:00:00Z")};
    (void)add_fire(b, DUE, FIRE_OUTCOME_DEAD, FIRE_REASON_GIVE_UP, 1);
    add_ring(b, "2026-11-21T08:00:00Z", 1, FIRE_WAIT_NONE);
    for (unsigned k = 0;; k++) {
        struct explain_answer a = {0};
        struct err e = {0};
        fault_arm(k);
        int r = explain(&b->f, &span, 100, &a, &e);
        bool fired = fault_fired();
        if (r == 0)
            explain_answer_fini(&a);
        else
            cr_assert(eq(int, e.code, ERR_NOMEM), "k=%u", k);
        cr_assert(fired || r == 0);
        if (!fired)
            break;
    }
    bed_free(b);
}
