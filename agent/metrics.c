#include "agent/metrics.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"

#define SERIES_MAX  500
#define LABEL_MAX   128
#define BUCKETS_MAX 24

enum kind { COUNTER, GAUGE, HISTOGRAM };

struct family {
    const char *name;
    const char *help;
    enum kind kind;
    const char *labels[METRIC_LABELS_MAX];
    const double *bounds; /* of a histogram, ends with 0 */
};

static const double seconds[] = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
                                 0.5,   1,     2,     5,    10,   30,   60,  0};
/* Most stages of most fires take less than a millisecond. */
static const double stages[] = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
                                0.1,    0.2,    0.5,    1,     2,     5,     10,   30,   0};
static const double turns[] = {0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 0};
static const double rows[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 0};

static const struct family families[METRIC_COUNT_] = {
    [METRIC_FIRES] =
        {"carillon_fires_total", "Fires that ended.", COUNTER, {"namespace", "outcome", "reason"}, NULL},
    [METRIC_ATTEMPTS] =
        {"carillon_attempts_total", "Attempts to deliver.", COUNTER, {"transport", "result"}, NULL},
    [METRIC_FIRE_LATENESS] = {"carillon_fire_lateness_seconds",
                              "From due and jitter to the start of attempt 1.",
                              HISTOGRAM,
                              {0},
                              seconds},
    [METRIC_FIRE_STAGE] =
        {"carillon_fire_stage_seconds", "Time a fire spent in a stage.", HISTOGRAM, {"stage"}, stages},
    [METRIC_CALLBACK_DURATION] = {"carillon_callback_duration_seconds",
                                  "From the request's start to its end.",
                                  HISTOGRAM,
                                  {"service"},
                                  seconds},
    [METRIC_JOBS] =
        {"carillon_jobs",
         "Jobs: active, paused, done; of all members, counted by the one that owns the first slot, 0 at the others.",
         GAUGE,
         {"state"},
         NULL},
    [METRIC_JOBS_LOADED] =
        {"carillon_jobs_loaded", "Jobs in this agent's memory because they are due soon.", GAUGE, {0}, NULL},
    [METRIC_JOBS_REPLANNED] = {"carillon_jobs_replanned_total",
                               "Jobs whose next due was found anew by newer time zone data.",
                               COUNTER,
                               {0},
                               NULL},
    [METRIC_PENDING_FIRES] = {"carillon_pending_fires",
                              "Fires in memory that have begun and not ended, those under way included.",
                              GAUGE,
                              {0},
                              NULL},
    [METRIC_RETRIES_WAITING] = {"carillon_retries_waiting",
                                "Fires in memory that were tried and wait to be tried again.",
                                GAUGE,
                                {"service"},
                                NULL},
    [METRIC_IN_FLIGHT] = {"carillon_in_flight", "Attempts under way.", GAUGE, {"service"}, NULL},
    [METRIC_DEAD_LETTERS] = {"carillon_dead_letters",
                             "Dead letters, counted by the member that owns the first slot.",
                             GAUGE,
                             {"namespace"},
                             NULL},
    [METRIC_OLDEST_OVERDUE] = {"carillon_oldest_overdue_seconds",
                               "Age of the oldest due in memory whose first attempt has not begun.",
                               GAUGE,
                               {0},
                               NULL},
    [METRIC_STORE_BATCH_ROWS] = {"carillon_store_batch_rows", "Jobs in a commit.", HISTOGRAM, {0}, rows},
    [METRIC_STORE_DURATION] =
        {"carillon_store_duration_seconds", "Duration of calls to the store.", HISTOGRAM, {"op"}, seconds},
    [METRIC_STORE_ERRORS] =
        {"carillon_store_errors_total", "Failed calls to the store.", COUNTER, {"class"}, NULL},
    [METRIC_RAFT_VOTERS] = {"carillon_raft_voters", "Voters of the log's cluster.", GAUGE, {0}, NULL},
    [METRIC_RAFT_VOTERS_REACHED] = {"carillon_raft_voters_reached",
                                    "Voters that this agent reaches, itself included.",
                                    GAUGE,
                                    {0},
                                    NULL},
    [METRIC_RAFT_LEADER] = {"carillon_raft_leader", "1: this agent leads the log.", GAUGE, {0}, NULL},
    [METRIC_RAFT_LEADER_KNOWN] =
        {"carillon_raft_leader_known", "1: this agent knows a leader of the log.", GAUGE, {0}, NULL},
    [METRIC_RAFT_TERM] =
        {"carillon_raft_term", "Term of the log: grows when its leader is lost.", GAUGE, {0}, NULL},
    [METRIC_RAFT_LAG] = {"carillon_raft_lag_entries",
                         "Entries that the voter furthest behind lacks, as the leader sees it.",
                         GAUGE,
                         {0},
                         NULL},
    [METRIC_SLOTS_OWNED] = {"carillon_slots_owned", "Slots this agent holds.", GAUGE, {0}, NULL},
    [METRIC_SLOTS_UNOWNED] =
        {"carillon_slots_unowned", "Slots that nobody alive holds, as this agent sees it.", GAUGE, {0}, NULL},
    [METRIC_MEMBERS] = {"carillon_members", "Members alive, as this agent sees it.", GAUGE, {0}, NULL},
    [METRIC_LEASE_REMAINING] =
        {"carillon_lease_remaining_seconds", "What is left of the own lease.", GAUGE, {0}, NULL},
    [METRIC_CLOCK_OFFSET] =
        {"carillon_clock_offset_seconds", "Own clock less the store's.", GAUGE, {0}, NULL},
    [METRIC_HANDOVER_DURATION] = {"carillon_handover_duration_seconds",
                                  "From the stop of a slot's starts to its handing over.",
                                  HISTOGRAM,
                                  {0},
                                  seconds},
    [METRIC_ENDPOINTS_EJECTED] =
        {"carillon_endpoints_ejected", "Endpoints taken out for failing.", GAUGE, {"service"}, NULL},
    [METRIC_API_DURATION] =
        {"carillon_api_duration_seconds", "Duration of API requests.", HISTOGRAM, {"route", "code"}, seconds},
    [METRIC_REQUESTS_REJECTED] =
        {"carillon_requests_rejected_total", "Requests refused.", COUNTER, {"code"}, NULL},
    [METRIC_LOOP_TURN] =
        {"carillon_loop_turn_duration_seconds", "Duration of the event loop's turns.", HISTOGRAM, {0}, turns},
    [METRIC_CONFIG_RELOAD_OK] =
        {"carillon_config_last_reload_successful", "1: the last reload worked.", GAUGE, {0}, NULL},
    [METRIC_CERT_EXPIRY] = {"carillon_tls_cert_expiry_timestamp_seconds",
                            "When the first of this agent's own certificates ends, as seconds since 1970.",
                            GAUGE,
                            {0},
                            NULL},
    [METRIC_BUILD_INFO] = {"carillon_build_info", "Always 1.", GAUGE, {"version", "commit"}, NULL},
    [METRIC_TRACE_SPANS] =
        {"carillon_trace_spans_total",
         "Spans by what became of them: sent, lost (the collector refused them), dropped (the queue was full).",
         COUNTER,
         {"result"},
         NULL},
    [METRIC_LOG_LINES_DROPPED] = {"carillon_log_lines_dropped_total",
                                  "Log lines lost because their reader was too slow.",
                                  COUNTER,
                                  {0},
                                  NULL},
    [METRIC_EVENTS_DROPPED] =
        {"carillon_events_dropped_total",
         "Events lost because a listener was too slow: a client, or a peer for its own.",
         COUNTER,
         {"listener"},
         NULL},
    [METRIC_AUDIT_DIFFERENCES] =
        {"carillon_audit_differences",
         "Jobs whose record was not what their schedule says, in the last round of the audit.",
         GAUGE,
         {"kind"},
         NULL},
    [METRIC_AUDIT_JOBS] =
        {"carillon_audit_jobs",
         "Jobs that the last round of the audit looked at; by the member that owns the first slot.",
         GAUGE,
         {0},
         NULL},
};

struct series {
    char labels[METRIC_LABELS_MAX][LABEL_MAX];
    double value; /* or the sum of a histogram */
    uint64_t count;
    uint64_t buckets[BUCKETS_MAX];
    size_t key_bytes;
    char key[METRIC_LABELS_MAX * LABEL_MAX];
};

struct metrics {
    pthread_mutex_t lock;
    struct map series[METRIC_COUNT_];
    struct series *recent[METRIC_COUNT_]; /* the last one used: runs of equal labels are common */
};

struct metrics *metrics_new(void)
{
    struct metrics *m = mem_new(struct metrics);
    pthread_mutex_init(&m->lock, NULL);
    for (size_t i = 0; i < METRIC_COUNT_; i++)
        map_init(&m->series[i], i);
    return m;
}

static void clear_family(struct metrics *m, enum metric family)
{
    m->recent[family] = NULL;
    for (struct map_iter it = {0}; map_next(&m->series[family], &it);)
        mem_free(it.value);
    map_clear(&m->series[family]);
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < METRIC_COUNT_; i++) {
        clear_family(m, (enum metric)i);
        map_fini(&m->series[i]);
    }
    pthread_mutex_destroy(&m->lock);
    mem_free(m);
}

static size_t make_key(const char *const labels[METRIC_LABELS_MAX], char key[METRIC_LABELS_MAX * LABEL_MAX])
{
    size_t at = 0;
    for (size_t i = 0; i < METRIC_LABELS_MAX; i++) {
        size_t len = labels[i] ? strnlen(labels[i], LABEL_MAX) : 0;
        if (len == LABEL_MAX) /* not within a character: one bad label would spoil the whole page */
            len = text_utf8_cut(labels[i], len, LABEL_MAX - 1);
        if (len > 0)
            memcpy(key + at, labels[i], len);
        key[at + len] = '\0';
        at += len + 1;
    }
    return at;
}

static struct series *add_series(struct metrics *m, enum metric family,
                                 const char *const labels[METRIC_LABELS_MAX], const char *key,
                                 size_t key_bytes)
{
    static const char *const other[METRIC_LABELS_MAX] = {"other", "other", "other"};
    char other_key[METRIC_LABELS_MAX * LABEL_MAX];
    if (map_count(&m->series[family]) >= SERIES_MAX && labels != other) {
        size_t bytes = make_key(other, other_key);
        struct series *s = map_get(&m->series[family], other_key, bytes);
        return s ? s : add_series(m, family, other, other_key, bytes);
    }
    struct series *s = mem_try_alloc(sizeof(*s), NULL);
    if (!s)
        return NULL;
    memcpy(s->key, key, key_bytes);
    s->key_bytes = key_bytes;
    for (size_t i = 0, at = 0; i < METRIC_LABELS_MAX; at += strlen(s->labels[i++]) + 1)
        memcpy(s->labels[i], key + at, strlen(key + at) + 1); /* cut already */
    if (map_put(&m->series[family], s->key, s->key_bytes, s, NULL, NULL) < 0) {
        mem_free(s);
        return NULL;
    }
    return s;
}

/* The series, made when it is new; NULL without memory: then this value is lost, nothing else. */
static struct series *find(struct metrics *m, enum metric family, const char *a, const char *b, const char *c)
{
    const char *const labels[METRIC_LABELS_MAX] = {a, b, c};
    char key[METRIC_LABELS_MAX * LABEL_MAX];
    size_t bytes = make_key(labels, key);
    struct series *s = m->recent[family];
    if (s && s->key_bytes == bytes && memcmp(s->key, key, bytes) == 0)
        return s;
    s = map_get(&m->series[family], key, bytes);
    if (!s)
        s = add_series(m, family, labels, key, bytes);
    m->recent[family] = s;
    return s;
}

static void change(struct metrics *m, enum metric family, const char *a, const char *b, const char *c,
                   double value, bool set)
{
    pthread_mutex_lock(&m->lock);
    struct series *s = find(m, family, a, b, c);
    if (s)
        s->value = set ? value : s->value + value;
    pthread_mutex_unlock(&m->lock);
}

void metrics_add(struct metrics *m, enum metric family, const char *a, const char *b, const char *c,
                 double value)
{
    assert(families[family].kind == COUNTER);
    change(m, family, a, b, c, value, false);
}

void metrics_set(struct metrics *m, enum metric family, const char *a, const char *b, const char *c,
                 double value)
{
    assert(families[family].kind != HISTOGRAM);
    change(m, family, a, b, c, value, true);
}

void metrics_set_more(struct metrics *m, enum metric family, const char *a, double value)
{
    assert(families[family].kind == GAUGE);
    change(m, family, a, NULL, NULL, value, false);
}

void metrics_clear(struct metrics *m, enum metric family)
{
    pthread_mutex_lock(&m->lock);
    clear_family(m, family);
    pthread_mutex_unlock(&m->lock);
}

void metrics_observe(struct metrics *m, enum metric family, const char *a, const char *b, double value)
{
    assert(families[family].kind == HISTOGRAM);
    size_t i = 0;
    while (families[family].bounds[i] > 0 && value > families[family].bounds[i])
        i++;
    assert(i < BUCKETS_MAX);
    pthread_mutex_lock(&m->lock);
    struct series *s = find(m, family, a, b, NULL);
    if (s) {
        s->value += value;
        s->count++;
        s->buckets[i]++;
    }
    pthread_mutex_unlock(&m->lock);
}

/* --- printing ------------------------------------------------------------------------------------------------------ */

static void print_escaped(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            buf_add_char(out, '\\');
        if (*text == '\n')
            buf_add_str(out, "\\n");
        else
            buf_add_char(out, *text);
    }
}

static void print_labels(struct buf *out, const struct family *f, const struct series *s, const char *le)
{
    const char *mark = "{";
    for (size_t i = 0; i < METRIC_LABELS_MAX && f->labels[i]; i++) {
        buf_addf(out, "%s%s=\"", mark, f->labels[i]);
        print_escaped(out, s->labels[i]);
        buf_add_char(out, '"');
        mark = ",";
    }
    if (le) {
        buf_addf(out, "%sle=\"%s\"", mark, le);
        mark = ",";
    }
    if (mark[0] == ',')
        buf_add_char(out, '}');
}

static void print_histogram(struct buf *out, const struct family *f, const struct series *s)
{
    uint64_t sum = 0;
    char le[32];
    for (size_t i = 0;; i++) {
        sum += s->buckets[i];
        bool last = f->bounds[i] == 0;
        (void)snprintf(le, sizeof(le), "%g", f->bounds[i]);
        buf_addf(out, "%s_bucket", f->name);
        print_labels(out, f, s, last ? "+Inf" : le);
        buf_addf(out, " %llu\n", (unsigned long long)sum);
        if (last)
            break;
    }
    buf_addf(out, "%s_sum", f->name);
    print_labels(out, f, s, NULL);
    buf_addf(out, " %.17g\n%s_count", s->value, f->name);
    print_labels(out, f, s, NULL);
    buf_addf(out, " %llu\n", (unsigned long long)s->count);
}

static void print_family(struct metrics *m, enum metric family, struct buf *out)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    const struct family *f = &families[family];
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name, kinds[f->kind]);
    for (struct map_iter it = {0}; map_next(&m->series[family], &it);) {
        const struct series *s = it.value;
        if (f->kind == HISTOGRAM) {
            print_histogram(out, f, s);
            continue;
        }
        buf_add_str(out, f->name);
        print_labels(out, f, s, NULL);
        buf_addf(out, " %.17g\n", s->value);
    }
}

void metrics_print(struct metrics *m, struct buf *out)
{
    pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < METRIC_COUNT_; i++)
        print_family(m, (enum metric)i, out);
    pthread_mutex_unlock(&m->lock);
}
