/* The planner's actions carried out: deliveries to the lanes, reads and batches to the store, answers to the API. */
#include <assert.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/engine_private.h"
#include "agent/metrics.h"
#include "agent/quota.h"

#define COMMIT_RETRY_MS 100
#define EMPTY_RETRY_MS  20
#define TICKS_A_TURN    4 /* each tick is bounded work itself */

static const struct log_ctx log_here = {.module = "planner"};

/* Who answers an API write. */
struct submission {
    void (*done)(void *arg, struct planner_api *api);
    void *arg;
};

/* One read for the planner. */
struct page_read {
    struct engine *engine;
    uint64_t load;
    int64_t sent_us;
    struct store_load load_args;
    char tzdata_before[sizeof(((struct job_row *)0)->tzdata)];
    uint16_t slots[];
};

/* One fire or change. */
struct change_read {
    struct engine *engine;
    uint64_t load;
    struct uid uid; /* of the fire */
};

/* --- reads --------------------------------------------------------------------------------------------------------- */

static const char *const error_classes[] = {[ERR_RETRY] = "retry",
                                            [ERR_UNAVAILABLE] = "unavailable",
                                            [ERR_UNKNOWN_OUTCOME] = "unknown",
                                            [ERR_PERMANENT] = "permanent"};

void engine_count_store(struct engine *g, const char *op, int64_t sent_us, const struct err *e)
{
    if (e->code == ERR_CANCELLED)
        return;
    metrics_observe(g->o.metrics, METRIC_STORE_DURATION, op, NULL,
                    (double)((int64_t)clock_boot_us() - sent_us) / 1e6);
    if (e->code != ERR_OK && (size_t)e->code < sizeof(error_classes) / sizeof(*error_classes) &&
        error_classes[e->code])
        metrics_add(g->o.metrics, METRIC_STORE_ERRORS, error_classes[e->code], NULL, NULL, 1);
}

static void planner_jobs_free(struct planner_job *jobs, size_t count)
{
    for (size_t i = 0; jobs && i < count; i++)
        job_spec_unref(jobs[i].spec);
    mem_free(jobs);
}

/* A definition this agent cannot read (a zone it lacks, a newer form) is told loudly and left alone. The planner gets its row
 * without it all the same: the next page begins behind it. */
static void report_unreadable(const struct store_job *job)
{
    log_error(&log_here, "job cannot be read here and is not fired", "job=%s ns=%s problem=%s",
              LOGQ(job->row.id), job->row.ns, LOGQ(job->problem));
}

static void on_jobs(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct page_read *r = arg;
    struct engine *g = r->engine;
    struct planner_event event = {
        .kind = PLANNER_JOBS, .load = r->load, .ok = e->code == ERR_OK, .more = more};
    engine_count_store(g, "load", r->sent_us, e);
    struct planner_job *list = event.ok ? mem_try_array(count + 1, sizeof(*list), NULL) : NULL;
    g->store_calls--;
    event.ok = list != NULL;
    for (size_t i = 0; list && i < count; i++) {
        if (!jobs[i].spec)
            report_unreadable(&jobs[i]);
        list[event.jobs_count].row = jobs[i].row;
        list[event.jobs_count++].spec = jobs[i].spec ? job_spec_ref(jobs[i].spec) : NULL;
    }
    event.jobs = list;
    mem_free(r);
    engine_plan(g, &event);
    planner_jobs_free(list, event.jobs_count);
}

static void on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct page_read *r = arg;
    struct engine *g = r->engine;
    struct planner_event event = {.kind = PLANNER_FIRES,
                                  .load = r->load,
                                  .ok = e->code == ERR_OK,
                                  .more = more,
                                  .fires = rows,
                                  .fires_count = count};
    engine_count_store(g, "load", r->sent_us, e);
    g->store_calls--;
    if (!event.ok)
        event.fires_count = 0;
    for (size_t i = 0; i < event.fires_count; i++)
        if (rows[i].state == FIRE_STATE_HELD)
            engine_note_holder(g, rows[i].holder);
    mem_free(r);
    engine_plan(g, &event);
}

static void load(struct engine *g, const struct planner_action *a)
{
    if (engine_over(g))
        return; /* the planner goes before it misses the answer */
    struct page_read *r =
        (struct page_read *)(void *)mem_new_array(char, sizeof(*r) + a->slots_count * sizeof(uint16_t));
    r->engine = g;
    r->load = a->load;
    r->sent_us = (int64_t)clock_boot_us();
    memcpy(r->slots, a->slots, a->slots_count * sizeof(uint16_t));
    r->load_args = (struct store_load){.slots = r->slots,
                                       .slots_count = a->slots_count,
                                       .until_ms = a->until_ms,
                                       .from_ms = a->from_ms,
                                       .after = {.set = a->has_cursor,
                                                 .slot = a->cursor_slot,
                                                 .wake_ms = a->cursor_wake_ms,
                                                 .uid = a->uid,
                                                 .seq = a->seq},
                                       .limit = a->limit};
    if (a->tzdata_before) {
        strncpy(r->tzdata_before, a->tzdata_before, sizeof(r->tzdata_before) - 1);
        r->load_args.tzdata_before = r->tzdata_before;
    }
    g->store_calls++;
    if (a->kind == PLANNER_DO_LOAD_JOBS)
        g->o.store->load_jobs(g->o.store_self, &r->load_args, on_jobs, r);
    else
        g->o.store->load_fires(g->o.store_self, &r->load_args, on_fires, r);
}

static void on_got(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more);

static void ask_gets(struct engine *g, struct engine_gets *gets)
{
    g->gets_out++;
    g->store_calls++;
    gets->sent_us = (int64_t)clock_boot_us();
    g->o.store->get_jobs(g->o.store_self, gets->keys, gets->count, on_got, gets);
}

/* The store looked up only the first ANSWERED keys, for their definitions are large. */
static void ask_rest(struct engine *g, struct engine_gets *gets, size_t answered)
{
    gets->count -= answered;
    memmove(gets->keys, gets->keys + answered, gets->count * sizeof(gets->keys[0]));
    memmove(gets->loads, gets->loads + answered, gets->count * sizeof(gets->loads[0]));
    memmove(gets->versions, gets->versions + answered, gets->count * sizeof(gets->versions[0]));
    ask_gets(g, gets);
}

static void on_copy(void *arg, const struct err *e, struct job_spec *copy)
{
    struct change_read *r = arg;
    struct engine *g = r->engine;
    struct planner_job job = {.copy = copy != NULL, .spec = copy ? job_spec_ref(copy) : NULL};
    struct planner_event event = {.kind = PLANNER_JOBS,
                                  .load = r->load,
                                  .ok = e->code == ERR_OK,
                                  .jobs = &job,
                                  .jobs_count = e->code == ERR_OK ? 1 : 0};
    g->store_calls--;
    engine_plan(g, &event);
    job_spec_unref(job.spec);
    mem_free(r);
    engine_ask_turn(g);
}

/* The job is not there: of what it was, dead letters may have left a copy. */
static void get_copy(struct engine *g, uint64_t load, const struct uid *uid, uint64_t version)
{
    struct change_read *r = mem_new(struct change_read);
    *r = (struct change_read){.engine = g, .load = load, .uid = *uid};
    g->store_calls++;
    g->o.store->get_copy(g->o.store_self, &r->uid, version, on_copy, r);
}

static void on_got(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct engine_gets *gets = arg;
    struct engine *g = gets->engine;
    bool rest = e->code == ERR_OK && more && count > 0 && count < gets->count && !engine_over(g);
    size_t answered = rest ? count : gets->count;
    engine_count_store(g, "get", gets->sent_us, e);
    g->store_calls--;
    g->gets_out--;
    for (size_t i = 0; i < answered; i++) {
        bool ok = e->code == ERR_OK && i < count && (jobs[i].spec || jobs[i].problem[0] == '\0');
        struct planner_job job = {0};
        if (ok && jobs[i].spec)
            job = (struct planner_job){.row = jobs[i].row, .spec = job_spec_ref(jobs[i].spec)};
        else if (!ok && e->code == ERR_OK && i < count)
            report_unreadable(&jobs[i]);
        if (ok && !job.spec && gets->versions[i] != 0 && !engine_over(g)) {
            get_copy(g, gets->loads[i], &gets->keys[i].uid, gets->versions[i]);
            continue;
        }
        struct planner_event event = {
            .kind = PLANNER_JOBS, .load = gets->loads[i], .ok = ok, .jobs = &job, .jobs_count = ok ? 1 : 0};
        engine_plan(g, &event);
        job_spec_unref(job.spec);
    }
    if (rest)
        ask_rest(g, gets, answered);
    else
        mem_free(gets);
    engine_ask_turn(g);
}

void engine_send_gets(struct engine *g)
{
    struct engine_gets *gets = g->gets;
    if (!gets || g->gets_out >= 2 || engine_over(g))
        return;
    g->gets = NULL;
    ask_gets(g, gets);
}

static void get_job(struct engine *g, const struct planner_action *a)
{
    if (engine_over(g))
        return;
    if (g->gets &&
        g->gets->count == ENGINE_GETS_MAX) { /* over the usual two: the planner bounds how many it asks for */
        ask_gets(g, g->gets);
        g->gets = NULL;
    }
    if (!g->gets) {
        g->gets = mem_new(struct engine_gets);
        g->gets->engine = g;
    }
    struct store_key *key = &g->gets->keys[g->gets->count];
    *key = (struct store_key){.uid = a->uid};
    if (a->ns) {
        memcpy(key->ns, a->ns, strlen(a->ns) + 1);
        memcpy(key->id, a->id, strlen(a->id) + 1);
    }
    g->gets->versions[g->gets->count] = a->version;
    g->gets->loads[g->gets->count++] = a->load;
    engine_ask_turn(g);
}

static void on_fire(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct change_read *r = arg;
    struct engine *g = r->engine;
    bool ok = e->code == ERR_OK;
    struct planner_event event = {
        .kind = PLANNER_FIRES, .load = r->load, .ok = ok, .fires = rows, .fires_count = ok ? count : 0};
    (void)more;
    g->store_calls--;
    for (size_t i = 0; i < event.fires_count; i++)
        if (rows[i].state == FIRE_STATE_HELD)
            engine_note_holder(g, rows[i].holder);
    engine_plan(g, &event);
    mem_free(r);
}

/* The newest row up to SEQ: a row may stand for a run of them. */
static void get_fire(struct engine *g, const struct planner_action *a)
{
    if (engine_over(g))
        return;
    struct change_read *r = mem_new(struct change_read);
    *r = (struct change_read){.engine = g, .load = a->load, .uid = a->uid};
    uint64_t before = a->seq < UINT64_MAX ? a->seq + 1 : UINT64_MAX;
    g->store_calls++;
    g->o.store->get_fires(g->o.store_self, &r->uid, before, a->limit, on_fire, r);
}

static void on_change(void *arg, const struct err *e, const struct revision *found)
{
    struct change_read *r = arg;
    struct planner_event event = {.kind = PLANNER_CHANGE_FOUND,
                                  .load = r->load,
                                  .ok = e->code == ERR_OK,
                                  .revision = e->code == ERR_OK ? found : NULL};
    r->engine->store_calls--;
    engine_plan(r->engine, &event);
    mem_free(r);
}

static void find_change(struct engine *g, const struct planner_action *a)
{
    if (engine_over(g))
        return;
    struct change_read *r = mem_new(struct change_read);
    *r = (struct change_read){.engine = g, .load = a->load};
    g->store_calls++;
    g->o.store->find_change(g->o.store_self, a->ns, a->id, a->change_id, on_change, r);
}

/* --- batches ------------------------------------------------------------------------------------------------------- */

static void count_commit(struct engine *g, const struct engine_commit *c, const struct err *e)
{
    double took_s = (double)((int64_t)clock_boot_us() - c->sent_us) / 1e6;
    engine_count_store(g, "commit", c->sent_us, e);
    metrics_observe(g->o.metrics, METRIC_STORE_BATCH_ROWS, NULL, NULL, (double)c->store_batch.jobs_count);
    for (size_t i = 0; e->code == ERR_OK && i < c->store_batch.jobs_count; i++)
        metrics_observe(g->o.metrics, METRIC_FIRE_STAGE, "store", NULL, took_s);
}

static void on_committed(void *arg, const struct err *e)
{
    struct engine_commit *c = arg;
    struct engine *g = c->engine;
    struct planner_event event = {.kind = PLANNER_BATCH_DONE, .batch = c->batch, .code = (int)e->code};
    g->store_calls--;
    g->commits_out--;
    count_commit(g, c, e);
    c->batch = NULL;
    if (e->code != ERR_OK && e->code != ERR_CANCELLED) {
        log_warn(&log_here, "batch was not written, it is sent again", "rows=%zu error=%s",
                 c->store_batch.jobs_count, LOGQ(e->text));
        g->commit_not_before_ms = loop_now_ms(g->o.loop) + COMMIT_RETRY_MS;
    }
    engine_plan(g, &event);
    if (e->code == ERR_FENCED)
        engine_tell_fenced(g);
    engine_ask_turn(g);
}

bool engine_may_flush(const struct engine *g)
{
    return g->planner && !engine_dead(g) && planner_has_dirty(g->planner);
}

/* Nobody waits for the result of a fire, so many share a commit; an answer to the API goes with the next one. */
int64_t engine_flush_at_ms(const struct engine *g)
{
    int64_t gather_ms = planner_awaited(g->planner) ? 0 : g->commit_gather_ms;
    return gather_ms > g->commit_not_before_ms ? gather_ms : g->commit_not_before_ms;
}

_Static_assert(STORE_COMMITS_MAX <= PLANNER_BATCHES_MAX, "the one is given as the other");

static void commit(struct engine *g, struct planner_batch *batch)
{
    struct engine_commit *c = g->commits;
    assert(g->commits_out < g->o.store->commits_max);
    while (c->batch)
        c++;
    *c = (struct engine_commit){.engine = g,
                                .batch = batch,
                                .store_batch = {.member = g->member,
                                                .jobs = batch->jobs,
                                                .jobs_count = batch->jobs_count,
                                                .slots = batch->slots,
                                                .slots_count = batch->slots_count},
                                .sent_us = (int64_t)clock_boot_us()};
    g->store_calls++;
    g->commits_out++;
    g->o.store->commit(g->o.store_self, &c->store_batch, on_committed, c);
}

/* Whatever waits goes into one transaction: a lone write at once, many while the one before is under way. When so many wait that they
 * fill one, it is made and sent while the one before is written. */
void engine_flush(struct engine *g)
{
    int64_t now_ms = loop_now_ms(g->o.loop);
    while (engine_may_flush(g) && now_ms >= engine_flush_at_ms(g)) {
        struct planner_batch *batch = planner_take_batch(g->planner, (size_t)g->o.config->store.batch_rows);
        if (!batch) { /* no memory to make it, or nothing to be written after all: not in a tight loop */
            g->commit_not_before_ms = now_ms + EMPTY_RETRY_MS;
            return;
        }
        g->commit_gather_ms = now_ms + (int64_t)g->o.config->store.batch_delay_ms;
        commit(g, batch);
    }
}

/* --- answers and counts -------------------------------------------------------------------------------------------- */

void engine_send_replies(struct engine *g)
{
    struct planner_api *api = g->replies;
    g->replies = NULL;
    g->replies_end = &g->replies;
    while (api) {
        struct planner_api *next = api->next;
        struct submission s = *(struct submission *)api->driver;
        mem_free(api->driver);
        api->driver = NULL;
        api->next = NULL;
        s.done(s.arg, api);
        api = next;
    }
}

static void queue_reply(struct engine *g, struct planner_api *api)
{
    api->next = NULL;
    *g->replies_end = api;
    g->replies_end = &api->next;
    engine_ask_turn(g);
}

void engine_submit(struct engine *g, struct planner_api *api,
                   void (*done)(void *arg, struct planner_api *api), void *arg)
{
    struct submission *s = mem_new(struct submission);
    struct planner_event event = {.kind = PLANNER_API, .api = api};
    *s = (struct submission){.done = done, .arg = arg};
    api->driver = s;
    api->no_more[0] = '\0';
    if (api->op == PLANNER_CREATE || api->op == PLANNER_PUT)
        quotas_ask(g->o.quotas, api->ns, api->no_more);
    if (!g->planner || engine_over(g)) {
        api->answer = PLANNER_NOT_OWNER;
        queue_reply(g, api);
        return;
    }
    engine_plan(g, &event);
}

_Static_assert(sizeof(((struct planner_api *)0)->no_more) == QUOTA_WHY_SIZE, "a reason fits");

static void note_jobs(struct engine *g, const struct planner_api *api)
{
    if (api->answer == PLANNER_CREATED)
        quotas_note(g->o.quotas, api->ns, 1);
    else if (api->op == PLANNER_DELETE && api->answer == PLANNER_OK)
        quotas_note(g->o.quotas, api->ns, -1);
}

static const char *const result_names[ATTEMPT_RESULT_COUNT_] = {[ATTEMPT_OK] = "ok",
                                                                [ATTEMPT_OPEN] = "open",
                                                                [ATTEMPT_RETRY] = "failed",
                                                                [ATTEMPT_GIVE_UP] = "gave_up",
                                                                [ATTEMPT_NOT_STARTED] = "not_started",
                                                                [ATTEMPT_NO_ENDPOINT] = "no_endpoint",
                                                                [ATTEMPT_ENDPOINTS] = "endpoints",
                                                                [ATTEMPT_GONE] = "gone"};

static void count(struct engine *g, const struct planner_action *a)
{
    struct metrics *m = g->o.metrics;
    const char *service = a->spec && a->spec->callback.service ? a->spec->callback.service : "";
    bool grpc = a->spec && a->spec->callback.transport == JOB_GRPC;
    if (a->attempt) {
        metrics_add(m, METRIC_ATTEMPTS, grpc ? "grpc" : "http", result_names[a->attempt->result], NULL, 1);
        metrics_observe(m, METRIC_CALLBACK_DURATION, service, NULL, (double)a->attempt->duration_ms / 1000);
    }
    if (a->lateness_ms >= 0)
        metrics_observe(m, METRIC_FIRE_LATENESS, NULL, NULL, (double)a->lateness_ms / 1000);
    if (a->outcome == FIRE_OUTCOME_PENDING)
        return;
    const char *ns = a->spec ? a->spec->ns : "", *reason = fire_reason_name(a->reason);
    metrics_add(m, METRIC_FIRES, ns, fire_outcome_name(a->outcome), reason,
                (double)(a->fires ? a->fires : 1));
}

/* From the instant at which it should have gone out to here. */
static void observe_wheel(struct engine *g, const struct delivery *d)
{
    int64_t late_ms = g->planner_now_ms - d->since_ms;
    metrics_observe(g->o.metrics, METRIC_FIRE_STAGE, "wheel", NULL, late_ms > 0 ? (double)late_ms / 1000 : 0);
}

/* --- steps --------------------------------------------------------------------------------------------------------- */

static void carry_out(struct engine *g, const struct planner_action *a)
{
    switch (a->kind) {
    case PLANNER_DO_DELIVER:
        observe_wheel(g, a->delivery);
        dispatch_deliver(g->dispatch, a->delivery);
        break;
    case PLANNER_DO_REVOKE:
        if (a->abort)
            dispatch_abort(g->dispatch, a->delivery);
        else
            dispatch_revoke(g->dispatch, a->delivery);
        break;
    case PLANNER_DO_LOAD_JOBS:
    case PLANNER_DO_LOAD_FIRES:
        load(g, a);
        break;
    case PLANNER_DO_GET_JOB:
        get_job(g, a);
        break;
    case PLANNER_DO_GET_FIRE:
        get_fire(g, a);
        break;
    case PLANNER_DO_FIND_CHANGE:
        find_change(g, a);
        break;
    case PLANNER_DO_REPLY:
        engine_tell_job(g, a->api);
        note_jobs(g, a->api);
        queue_reply(g, a->api);
        break;
    case PLANNER_DO_MOVED:
        engine_tell_moved(g, a);
        break;
    case PLANNER_DO_WAKE:
        engine_send_wake(g, a->slots, a->slots_count);
        break;
    case PLANNER_DO_LOG:
        log_warn(&log_here, "job scheduling", "text=%s", LOGQ(a->text));
        break;
    case PLANNER_DO_REPLANNED:
        metrics_add(g->o.metrics, METRIC_JOBS_REPLANNED, NULL, NULL, NULL, 1);
        break;
    case PLANNER_DO_COUNT:
        count(g, a);
        engine_tell_fire(g, a);
        engine_trace_fire(g, a);
        break;
    }
}

/* Everything an action starts answers later, so no step is entered while one is being carried out. */
void engine_plan(struct engine *g, struct planner_event *event)
{
    if (!g->planner)
        return;
    assert(!g->in_planner);
    event->now_ms = engine_now_ms(g);
    g->in_planner = true;
    g->plan.count = 0;
    planner_step(g->planner, event, &g->plan);
    for (size_t i = 0; i < g->plan.count; i++)
        carry_out(g, &g->plan.items[i]);
    g->in_planner = false;
    engine_ask_turn(g);
}

void engine_tick_planner(struct engine *g)
{
    for (int i = 0; i < TICKS_A_TURN && g->planner && planner_next_ms(g->planner) <= engine_now_ms(g); i++) {
        struct planner_event event = {.kind = PLANNER_TICK};
        engine_plan(g, &event);
    }
}

void engine_attempt_done(void *arg, struct delivery *delivery, const struct attempt *attempt)
{
    struct engine *g = arg;
    struct planner_event event = {.kind = PLANNER_ATTEMPT, .delivery = delivery, .attempt = attempt};
    engine_trace_attempt(g, delivery, attempt);
    engine_plan(g, &event);
}

void engine_part_done(void *arg, struct delivery *delivery, size_t part, const struct attempt *attempt)
{
    struct engine *g = arg;
    struct planner_event event = {
        .kind = PLANNER_PART, .delivery = delivery, .attempt = attempt, .part = part};
    engine_plan(g, &event);
}
