#include "tests/lib/engine_bed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/json.h"
#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"
#include "agent/core/tz.h"
#include "tests/lib/patience.h"

#define MUST(condition)                                                                  \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            (void)fprintf(stderr, "%s:%d: %s failed\n", __FILE__, __LINE__, #condition); \
            abort();                                                                     \
        }                                                                                \
    } while (0)

/* --- the callee ---------------------------------------------------------------------------------------------------- */

static void reply_text(struct httpd_request *rq, int status, const char *text)
{
    struct buf body = BUF_INIT(1 << 20);
    buf_add_str(&body, text);
    httpd_reply(rq, status, NULL, 0, &body);
    buf_fini(&body);
}

static void note_fire(struct engine_bed *bed, const char *id)
{
    for (size_t i = 0; i < bed->fires_count; i++)
        if (strcmp(bed->fires[i].id, id) == 0) {
            bed->fires[i].attempts++;
            return;
        }
    MUST(bed->fires_count < BED_FIRES_MAX);
    struct bed_fire *f = &bed->fires[bed->fires_count++];
    (void)snprintf(f->id, sizeof(f->id), "%s", id);
    f->attempts = 1;
}

static void on_callback(struct httpd_request *rq, void *arg)
{
    struct engine_bed *bed = arg;
    const char *id = httpd_header(rq, "ce-id");
    MUST(id);
    pthread_mutex_lock(&bed->lock);
    note_fire(bed, id);
    bool held = bed->hold && bed->held_count < BED_HELD_MAX;
    if (held)
        bed->held[bed->held_count++] = rq;
    pthread_mutex_unlock(&bed->lock);
    if (!held)
        reply_text(rq, 200, "{}");
}

size_t engine_bed_fires(struct engine_bed *bed, size_t *ret_repeats)
{
    pthread_mutex_lock(&bed->lock);
    size_t count = bed->fires_count, repeats = 0;
    for (size_t i = 0; i < count; i++)
        repeats += (size_t)bed->fires[i].attempts - 1;
    pthread_mutex_unlock(&bed->lock);
    if (ret_repeats)
        *ret_repeats = repeats;
    return count;
}

size_t engine_bed_held(struct engine_bed *bed)
{
    pthread_mutex_lock(&bed->lock);
    size_t count = bed->held_count;
    pthread_mutex_unlock(&bed->lock);
    return count;
}

void engine_bed_hold(struct engine_bed *bed, bool hold)
{
    pthread_mutex_lock(&bed->lock);
    bed->hold = hold;
    pthread_mutex_unlock(&bed->lock);
}

void engine_bed_let_go(struct engine_bed *bed)
{
    pthread_mutex_lock(&bed->lock);
    bed->hold = false;
    while (bed->held_count > 0)
        reply_text(bed->held[--bed->held_count], 200, "{}");
    pthread_mutex_unlock(&bed->lock);
}

/* --- peers --------------------------------------------------------------------------------------------------------- */

struct message {
    struct loop_msg msg;
    struct bed_agent *agent;
    struct httpd_request *rq;
};

static void on_answer(void *arg, int status, const char *body)
{
    reply_text(arg, status, body);
}

static void take_message(struct loop_msg *msg)
{
    struct message *m = container_of(msg, struct message, msg);
    size_t bytes;
    const char *body = httpd_body(m->rq, &bytes);
    m->agent->told_of_moves += strcmp(httpd_path(m->rq), "/peer/v1/moved") == 0;
    if (m->agent->engine)
        engine_peer_message(m->agent->engine, httpd_path(m->rq) + strlen("/peer/v1/"), body, bytes, on_answer,
                            m->rq);
    else
        on_answer(m->rq, 503, "{}");
    mem_free(m);
}

static void on_peer(struct httpd_request *rq, void *arg)
{
    struct bed_agent *a = arg;
    struct message *m = mem_new(struct message);
    *m = (struct message){.msg = {.run = take_message}, .agent = a, .rq = rq};
    loop_post(a->bed->loop, &m->msg);
}

static int64_t accept_all(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return 1 << 20;
}

static void too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    reply_text(rq, 413, "{}");
}

static struct httpd *listen_for(void (*handle)(struct httpd_request *, void *), void *arg)
{
    struct httpd_options options = {.listen = "127.0.0.1:0",
                                    .connections_max = 500,
                                    .header_bytes_max = 16384,
                                    .accept = accept_all,
                                    .handle = handle,
                                    .too_large = too_large,
                                    .arg = arg};
    struct httpd *h = NULL;
    MUST(httpd_start(&options, &h, NULL) == 0);
    return h;
}

/* --- the store ----------------------------------------------------------------------------------------------------- */

static int64_t store_now_ms(void *arg)
{
    const struct engine_bed *bed = arg;
    return clock_wall_ms() - bed->wall_shift_us / 1000;
}

static void send_call(void *arg, struct loop_msg *msg)
{
    struct bed_agent *a = arg;
    if (a->hang && a->hung_count < sizeof(a->hung) / sizeof(*a->hung))
        a->hung[a->hung_count++] = msg;
    else
        loop_defer(a->bed->loop, msg);
}

void engine_bed_go_on(struct bed_agent *a)
{
    a->hang = false;
    for (size_t i = 0; i < a->hung_count; i++)
        loop_defer(a->bed->loop, a->hung[i]);
    a->hung_count = 0;
}

void engine_bed_shift_wall(struct engine_bed *bed, int64_t shift_us)
{
    bed->wall_shift_us = shift_us;
    clock_test_shift_wall(shift_us);
}

static enum store_mem_fault fault(void *arg, const char *op)
{
    struct bed_agent *a = arg;
    if (a->fault_steps && strcmp(op, "beat") != 0 && fault_hit())
        return STORE_MEM_LOST_BEFORE;
    if (a->fault_steps && strcmp(op, "beat") != 0 && fault_hit())
        return STORE_MEM_LOST_AFTER;
    if (!a->fault_op || strcmp(a->fault_op, op) != 0 || a->faults_left == 0)
        return STORE_MEM_OK;
    a->faults_left--;
    return a->fault;
}

static void open_store(struct bed_agent *a)
{
    struct engine_bed *bed = a->bed;
    struct store_meta meta;
    a->options = (struct store_mem_options){.world = bed->world, .send = send_call, .fault = fault, .arg = a};
    struct store_open_args args = {.loop = bed->loop,
                                   .options = &a->options,
                                   .cluster = "bed",
                                   .slots = BED_SLOTS,
                                   .member = "bed",
                                   .now_ms = store_now_ms,
                                   .arg = bed};
    MUST(store_mem.open(&args, &a->store, &meta, NULL) == 0);
}

/* --- lives --------------------------------------------------------------------------------------------------------- */

static void on_joined(void *arg)
{
    ((struct bed_agent *)arg)->joined = true;
}

static void on_rejoin(void *arg)
{
    struct bed_agent *a = arg;
    a->joined = false;
    loop_defer(a->bed->loop, &a->rebirth);
}

static int try_life(struct bed_agent *a)
{
    struct engine_bed *bed = a->bed;
    char member[32];
    size_t which = (size_t)(a - bed->agents);
    (void)snprintf(member, sizeof(member), "agent%zu.%zu", which, a->lives_count);
    struct engine_options options = {.loop = bed->loop,
                                     .config = bed->config,
                                     .store = bed->ops,
                                     .store_self = a->store,
                                     .slots = BED_SLOTS,
                                     .http = bed->http,
                                     .clock = bed->clock,
                                     .metrics = bed->metrics,
                                     .tzdata = "2025b",
                                     .member = member,
                                     .peer_host = "127.0.0.1",
                                     .peer_port = (uint16_t)httpd_port(a->httpd),
                                     .config_digest = "",
                                     .seed = which * 100 + a->lives_count + 1,
                                     .owned = a->owned,
                                     .joined = on_joined,
                                     .rejoin = on_rejoin,
                                     .arg = a};
    MUST(a->lives_count < BED_LIVES);
    int rc = engine_new(&options, &a->engine, NULL);
    if (rc == 0)
        a->lives[a->lives_count++] = a->engine;
    return rc;
}

static void new_life(struct bed_agent *a)
{
    MUST(try_life(a) == 0);
}

static void on_retired(void *arg)
{
    struct bed_agent *a = arg;
    new_life(a);
}

static void rebirth(struct loop_msg *msg)
{
    struct bed_agent *a = container_of(msg, struct bed_agent, rebirth);
    engine_retire(a->engine, on_retired, a);
}

static struct bed_agent *prepare(struct engine_bed *bed, size_t which)
{
    struct bed_agent *a = &bed->agents[which];
    *a = (struct bed_agent){.bed = bed, .rebirth = {.run = rebirth}};
    a->httpd = listen_for(on_peer, a);
    open_store(a);
    return a;
}

struct bed_agent *engine_bed_start(struct engine_bed *bed, size_t which)
{
    struct bed_agent *a = prepare(bed, which);
    new_life(a);
    return a;
}

struct bed_agent *engine_bed_start_under_faults(struct engine_bed *bed, size_t which, unsigned *ret_faults)
{
    struct bed_agent *a = prepare(bed, which);
    for (unsigned k = 0;; k++) {
        fault_arm(k);
        int rc = try_life(a);
        if (!fault_fired()) {
            MUST(rc == 0);
            *ret_faults = k;
            return a;
        }
        MUST(rc < 0);
    }
}

static void on_left(void *arg, bool clean)
{
    struct bed_agent *a = arg;
    a->left = true;
    a->clean = clean;
}

void engine_bed_leave(struct bed_agent *a, int64_t grace_ms)
{
    engine_leave(a->engine, grace_ms, on_left, a);
}

size_t engine_bed_owned(const struct bed_agent *a)
{
    size_t count = 0;
    for (size_t i = 0; i <= BED_SLOTS / 64; i++)
        count += (size_t)__builtin_popcountll(atomic_load(&a->owned[i]));
    return count;
}

bool engine_bed_lives_ended(const struct bed_agent *a)
{
    for (size_t i = 0; i < a->lives_count; i++)
        if (!engine_ended(a->lives[i]))
            return false;
    return true;
}

/* --- jobs ---------------------------------------------------------------------------------------------------------- */

static const struct tz *zone(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "UTC") == 0 ? tz_utc() : NULL;
}

static struct job_spec *parse_spec(struct engine_bed *bed, const char *id, const char *schedule)
{
    struct problems problems;
    struct job_defaults defaults;
    struct job_spec *spec = NULL;
    enum job_refusal refusal;
    json_t *warnings = json_array();
    json_t *doc = json_pack("{s:s,s:{s:{s:s}}}", "schedule", schedule, "callback", "http", "url", bed->url);
    int paused;
    problems_init(&problems);
    config_job_defaults(bed->config, &defaults);
    struct job_context ctx = {.ns = "default",
                              .id = id,
                              .now_ms = clock_guard_now_ms(bed->clock),
                              .created_ms = RECORD_NONE,
                              .defaults = &defaults};
    MUST(job_spec_parse(doc, &ctx, zone, NULL, &problems, &refusal, warnings, &paused, &spec, NULL) == 0);
    problems_fini(&problems);
    json_decref(doc);
    json_decref(warnings);
    return spec;
}

static void on_api(void *arg, struct planner_api *api)
{
    struct engine_bed *bed = arg;
    bed->answered++;
    bed->last_answer = api->answer;
    job_spec_unref(api->result);
    job_spec_unref(api->spec);
    mem_free(api);
}

static uint16_t slot_of(const char *id)
{
    return (uint16_t)hashring_slot("default", id, BED_SLOTS);
}

void engine_bed_create(struct bed_agent *a, const char *id, const char *schedule)
{
    struct planner_api *api = mem_new(struct planner_api);
    uint16_t slot = slot_of(id);
    uint64_t hash = strtoull(id + strcspn(id, "0123456789"), NULL, 10);
    *api = (struct planner_api){.op = PLANNER_CREATE,
                                .change_id = hash + 1,
                                .fresh_id = !a->bed->known_ids,
                                .accepted_ms = clock_guard_now_ms(a->bed->clock),
                                .paused = -1,
                                .actor = "test"};
    (void)snprintf(api->ns, sizeof(api->ns), "default");
    (void)snprintf(api->id, sizeof(api->id), "%s", id);
    api->uid.bytes[0] = (uint8_t)(slot >> 8);
    api->uid.bytes[1] = (uint8_t)slot;
    memcpy(api->uid.bytes + 8, &hash, sizeof(hash));
    api->spec = parse_spec(a->bed, id, schedule);
    engine_submit(a->engine, api, on_api, a->bed);
}

struct bed_agent *engine_bed_owner(struct engine_bed *bed, const char *id)
{
    uint16_t slot = slot_of(id);
    for (size_t i = 0; i < BED_AGENTS; i++)
        if (bed->agents[i].engine && engine_owns(bed->agents[i].engine, slot))
            return &bed->agents[i];
    return NULL;
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static void on_clock(void *arg, bool sure)
{
    (void)arg;
    (void)sure;
}

static void on_patience(void *arg)
{
    (void)arg;
}

static void end_turn(void *arg)
{
    struct engine_bed *bed = arg;
    loop_stop(bed->loop);
}

void engine_bed_open(struct engine_bed *bed)
{
    struct option_errors errors = {0};
    *bed = (struct engine_bed){.ops = &store_mem, .wall_shift_us = bed->wall_shift_us};
    pthread_mutex_init(&bed->lock, NULL);
    MUST(config_load(NULL, NULL, 0, NULL, &bed->config, &errors, NULL) == 0);
    MUST(loop_new(&bed->loop, NULL) == 0);
    loop_set_turn_hook(bed->loop, end_turn, bed);
    bed->patience = loop_timer_new(bed->loop, on_patience, bed);
    MUST(clock_guard_new(bed->loop, true, on_clock, bed, &bed->clock, NULL) == 0);
    MUST(http_client_new(bed->loop, 16, &bed->http, NULL) == 0);
    bed->metrics = metrics_new();
    bed->world = store_mem_world_new();
    bed->callee = listen_for(on_callback, bed);
    (void)snprintf(bed->url, sizeof(bed->url), "http://%s/hook", httpd_address(bed->callee));
}

void engine_bed_close(struct engine_bed *bed)
{
    engine_bed_let_go(bed);
    for (size_t i = 0; i < BED_AGENTS; i++) {
        struct bed_agent *a = &bed->agents[i];
        if (!a->bed)
            continue;
        httpd_stop(a->httpd);
        for (size_t j = 0; j < a->lives_count; j++)
            engine_free(a->lives[j]);
        store_mem.close(a->store);
    }
    http_client_free(bed->http);
    httpd_stop(bed->callee);
    clock_guard_free(bed->clock);
    loop_timer_free(bed->patience);
    loop_free(bed->loop); /* runs what the store left on the loop */
    store_mem_world_free(bed->world);
    metrics_free(bed->metrics);
    config_free(bed->config);
    pthread_mutex_destroy(&bed->lock);
}

int64_t engine_bed_patience_ms(struct engine_bed *bed)
{
    (void)bed;
    return (int64_t)clock_boot_ms() + PATIENCE_MS;
}

bool engine_bed_turn(struct engine_bed *bed, int64_t end_ms)
{
    loop_timer_arm(bed->patience, 20); /* what the callee saw is no event of the loop */
    loop_run(bed->loop);
    return (int64_t)clock_boot_ms() < end_ms;
}

void engine_bed_run_ms(struct engine_bed *bed, int64_t ms)
{
    int64_t end_ms = (int64_t)clock_boot_ms() + ms;
    while (engine_bed_turn(bed, end_ms))
        ;
}
