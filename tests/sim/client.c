/* An application: it makes, pauses, runs and deletes jobs through whatever agent owns them, repeats what it got no answer to, and
 * remembers what was promised. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/mem.h"
#include "agent/config.h"
#include "agent/core/hashring.h"
#include "agent/core/tz.h"
#include "tests/sim/sim.h"

struct sim_job *sim_jobs;
static unsigned jobs_count;

struct request {
    struct sim_job *job;
    enum planner_api_op op;
    uint64_t change_id;
    struct job_spec *spec;
    int64_t accepted_ms;
    unsigned tries;
    bool repeated;
    bool open; /* an answer is awaited */
    struct sim_proc *at;
    struct request *next;
};

static struct request *requests;

static const struct tz *zone(void *arg, const char *name)
{
    (void)arg;
    return strcmp(name, "UTC") == 0 ? tz_utc() : NULL;
}

static struct job_spec *make_spec(const struct sim_job *j, const char *text)
{
    struct problems problems = {0};
    struct job_defaults defaults;
    struct job_spec *spec = NULL;
    enum job_refusal refusal;
    struct err e = {0};
    int paused;
    json_t *warnings = json_array(), *doc = json_loads(text, 0, NULL);
    config_job_defaults(sim.config, &defaults);
    struct job_context ctx = {.ns = "default",
                              .id = j->id,
                              .now_ms = j->created_ms,
                              .created_ms = RECORD_NONE,
                              .defaults = &defaults};
    if (job_spec_parse(doc, &ctx, zone, NULL, &problems, &refusal, warnings, &paused, &spec, &e) < 0)
        sim_broken("the job does not read: %s: %s", text, problems.count ? problems.items[0].detail : e.text);
    json_decref(doc);
    json_decref(warnings);
    return spec;
}

static void try_send(void *arg);

static void again(struct request *r)
{
    r->open = false;
    sim_after(sim_between(10000, 60000), NULL, try_send, r);
}

static void finished(struct request *r, const struct planner_api *api)
{
    struct sim_job *j = r->job;
    bool ok = api->answer == PLANNER_OK || api->answer == PLANNER_CREATED || api->answer == PLANNER_ACCEPTED;
    r->open = false;
    r->job = NULL;
    if (r->op == PLANNER_CREATE && ok) {
        j->acked = true;
    } else if (r->op == PLANNER_CREATE) {
        sim_broken("create of %s is answered %d", j->id, (int)api->answer);
    } else if (r->op == PLANNER_DELETE && (ok || api->answer == PLANNER_NOT_FOUND)) {
        if (api->answer == PLANNER_NOT_FOUND && j->acked && !r->repeated)
            sim_broken("%s was acknowledged and is not there to delete", j->id);
        j->deleted_us = sim.now_us;
        sim_note("%s is deleted", j->id);
    } else if (!ok && j->acked && !j->deleting) {
        sim_broken("request %d for %s is answered %d", (int)r->op, j->id, (int)api->answer);
    }
}

struct sent {
    struct planner_api api;
    struct request *request;
    struct sim_proc *at;
};

static void on_answer(void *arg, struct planner_api *api)
{
    struct sent *s = arg;
    struct request *r = s->request;
    job_spec_unref(api->result);
    job_spec_unref(api->spec);
    bool stale = !r->job || !r->open || r->at != s->at || s->at->dead;
    if (!stale && (api->answer == PLANNER_NOT_OWNER || api->answer == PLANNER_UNAVAILABLE)) {
        r->repeated |= api->answer == PLANNER_UNAVAILABLE;
        again(r);
    } else if (!stale) {
        finished(r, api);
    }
    mem_free(s);
}

static void submit(void *arg)
{
    struct sent *s = arg;
    engine_submit(s->at->engine, &s->api, on_answer, s);
}

/* Whoever took it may be gone. */
static void look_after(void *arg)
{
    struct request *r = arg;
    if (!r->job || !r->open)
        return;
    if (r->at->dead) {
        r->repeated = true;
        again(r);
        return;
    }
    sim_after(500000, NULL, look_after, r);
}

static void try_send(void *arg)
{
    struct request *r = arg;
    struct sim_job *j = r->job;
    uint16_t slot = (uint16_t)hashring_slot("default", j->id, SIM_SLOTS);
    struct sim_proc *p = sim_owner(slot);
    if (!p) {
        again(r);
        return;
    }
    struct sent *s = mem_new(struct sent);
    s->request = r;
    s->at = r->at = p;
    s->api = (struct planner_api){.op = r->op,
                                  .uid = j->uid,
                                  .change_id = r->change_id,
                                  .repeated = r->repeated,
                                  .accepted_ms = r->accepted_ms,
                                  .paused = -1,
                                  .actor = "sim",
                                  .spec = r->spec ? job_spec_ref(r->spec) : NULL};
    (void)snprintf(s->api.ns, sizeof(s->api.ns), "default");
    (void)snprintf(s->api.id, sizeof(s->api.id), "%s", j->id);
    r->open = true;
    sim_after(sim_between(100, 1000), p, submit, s);
    sim_after(500000, NULL, look_after, r);
}

static void request(struct sim_job *j, enum planner_api_op op, struct job_spec *spec)
{
    struct request *r = mem_new(struct request);
    *r = (struct request){.job = j,
                          .op = op,
                          .change_id = rng_u64(&sim.rng),
                          .spec = spec,
                          .accepted_ms = sim_wall_ms(),
                          .next = requests};
    requests = r;
    try_send(r);
}

size_t sim_client_waiting(void)
{
    size_t n = 0;
    for (const struct request *r = requests; r; r = r->next)
        n += r->job != NULL;
    return n;
}

void sim_client_create(void)
{
    static const int64_t rhythms_ms[] = {1000, 2000, 3000, 5000, 10000, 0};
    struct sim_job *j = mem_new(struct sim_job);
    char text[300], schedule[40];
    (void)snprintf(j->id, sizeof(j->id), "j%u", ++jobs_count);
    j->every_ms = rhythms_ms[rng_below(&sim.rng, 6)];
    j->created_ms = sim_wall_ms();
    uint16_t slot = (uint16_t)hashring_slot("default", j->id, SIM_SLOTS);
    j->uid.bytes[0] = (uint8_t)(slot >> 8);
    j->uid.bytes[1] = (uint8_t)slot;
    for (size_t i = 2; i < sizeof(j->uid.bytes); i++)
        j->uid.bytes[i] = (uint8_t)rng_below(&sim.rng, 256);
    if (j->every_ms)
        (void)snprintf(schedule, sizeof(schedule), "@every %llds", (long long)j->every_ms / 1000);
    else
        (void)snprintf(schedule, sizeof(schedule), "@after %llds", (long long)sim_between(1, 60));
    (void)snprintf(
        text, sizeof(text),
        "{\"schedule\":\"%s\",\"callback\":{\"http\":{\"service\":\"svc\",\"path\":\"/x\"},\"timeout\":\"6s\"},"
        "\"retry\":{\"min_backoff\":\"200ms\",\"max_backoff\":\"2s\"}%s}",
        schedule, rng_below(&sim.rng, 4) ? "" : ",\"jitter\":\"200ms\"");
    j->next = sim_jobs;
    sim_jobs = j;
    request(j, PLANNER_CREATE, make_spec(j, text));
}

static struct sim_job *some_job(void)
{
    unsigned skip = jobs_count ? (unsigned)rng_below(&sim.rng, jobs_count) : 0;
    struct sim_job *j = sim_jobs;
    while (j && skip-- > 0)
        j = j->next;
    return j && j->acked && !j->deleting ? j : NULL;
}

void sim_client_delete(void)
{
    struct sim_job *j = some_job();
    if (!j)
        return;
    j->deleting = true;
    request(j, PLANNER_DELETE, NULL);
}

void sim_client_run(void)
{
    struct sim_job *j = some_job();
    if (!j)
        return;
    j->touched = true;
    request(j, PLANNER_RUN, NULL);
}

void sim_client_resume_all(void)
{
    for (struct sim_job *j = sim_jobs; j; j = j->next)
        if (j->acked && !j->deleting && j->touched && j->every_ms)
            request(j, PLANNER_RESUME, NULL);
}

void sim_client_pause(bool on)
{
    struct sim_job *j = some_job();
    if (!j || !j->every_ms)
        return;
    j->touched = true;
    request(j, on ? PLANNER_PAUSE : PLANNER_RESUME, NULL);
}
