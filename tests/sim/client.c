/* An application: it makes, changes, pauses, runs and deletes jobs through whatever agent owns them, repeats what it got no answer
 * to, and remembers what was promised. What it asks for is drawn from the plan. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/base/list.h"
#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/config.h"
#include "agent/core/hashring.h"
#include "agent/core/tz.h"
#include "tests/sim/sim.h"

#define LETTERS_MAX 10
#define FLOOD_JOBS  70   /* for each host; of each 16 fires wait */
#define LATE_MS     5000 /* without an answer, when nothing goes wrong */

struct sim_job *sim_jobs;
static unsigned jobs_count;
static struct map jobs; /* by uid */

struct request {
    struct sim_job *job; /* NULL: it has its answer */
    struct planner_api api;
    const struct sim_rules *rules; /* CREATE, PUT, PATCH */
    struct planner_letter letters[LETTERS_MAX];
    bool open; /* an answer is awaited */
    struct sim_proc *at;
    struct request *next;
};

struct sent { /* once, to one agent */
    struct planner_api api;
    struct request *request;
    struct sim_proc *at;
};

static struct request *requests;

struct sim_job *sim_job_of(const struct uid *uid)
{
    return map_get(&jobs, uid->bytes, sizeof(uid->bytes));
}

const struct sim_rules *sim_rules_of(const struct sim_job *j, uint64_t change_id)
{
    for (unsigned i = 0; i < j->rules_count; i++)
        if (j->rules[i]->change_id == change_id)
            return j->rules[i];
    return NULL;
}

size_t sim_client_waiting(void)
{
    size_t n = 0;
    for (const struct request *r = requests; r; r = r->next) {
        if (!r->job || r->api.accepted_ms > sim_wall_ms() - LATE_MS)
            continue;
        n++;
        sim_note("no answer to %d for %s, seq %llu, asked at %.3f s", (int)r->api.op, r->job->id,
                 (unsigned long long)r->api.seq, (double)(r->api.accepted_ms - sim.epoch_ms) / 1000);
    }
    return n;
}

/* --- definitions --------------------------------------------------------------------------------------------------- */

static struct job_spec *make_spec(const struct sim_job *j, const struct sim_rules *rules, int64_t created_ms,
                                  const struct job_spec *present)
{
    struct problems problems = {0};
    struct job_defaults defaults;
    struct job_spec *spec = NULL;
    enum job_refusal refusal;
    struct err e = {0};
    int paused;
    json_t *warnings = json_array(), *doc = json_loads(rules->text, 0, NULL);
    config_job_defaults(sim.config, &defaults);
    struct job_context ctx = {.ns = "default",
                              .id = j->id,
                              .now_ms = rules->accepted_ms,
                              .created_ms = created_ms,
                              .defaults = &defaults,
                              .present = present};
    if (job_spec_parse(doc, &ctx, sim_zone, NULL, &problems, &refusal, warnings, &paused, &spec, &e) < 0)
        sim_broken("the job does not read: %s: %s", rules->text,
                   problems.count ? problems.items[0].detail : e.text);
    json_decref(doc);
    json_decref(warnings);
    return spec;
}

/* As the API merges a body that needs the present job. */
static int merge(struct planner_api *api, const struct job_spec *present, const struct job_row *row,
                 struct job_spec **ret)
{
    const struct request *r = container_of(api, struct sent, api)->request;
    *ret = make_spec(r->job, r->rules, row->created_ms, present);
    return 0;
}

static struct sim_rules *new_rules(struct sim_job *j, bool flood)
{
    struct sim_rules *r = flood ? sim_rules_flood(j->created_ms)
                                : sim_rules_draw(j->rules_count + 1, sim_wall_ms(), j->created_ms,
                                                 j->rules_count ? j->rules[j->rules_count - 1] : NULL);
    j->rules = realloc(j->rules, (j->rules_count + 1) * sizeof(struct sim_rules *));
    j->rules[j->rules_count++] = r;
    return r;
}

/* --- asking until there is an answer ------------------------------------------------------------------------------- */

static void try_send(void *arg);

static void again(struct request *r)
{
    r->open = false;
    sim_after(sim_between(10000, 60000), NULL, try_send, r);
}

static bool is_change(enum planner_api_op op)
{
    return op <= PLANNER_RESUME;
}

/* What is answered is in the store. */
static void check_stored(const struct request *r)
{
    const struct sim_job *j = r->job;
    const struct sim_story *s = sim_story_of(&j->uid);
    bool there = s && s->there, has = sim_witness_has_change(r->api.change_id);
    switch ((int)r->api.op) {
    case PLANNER_CREATE:
    case PLANNER_PUT:
    case PLANNER_PATCH:
        if (!has)
            sim_broken("%s: definition %u is answered, and not in the store", j->id, r->rules->number);
        break;
    case PLANNER_PAUSE:
        if (!has && there && s->row.state == JOB_STATE_ACTIVE)
            sim_broken("%s: a pause is answered, and the job is active", j->id);
        break;
    case PLANNER_RESUME:
        if (!has && there && s->row.state == JOB_STATE_PAUSED && !j->reply_pauses)
            sim_broken("%s: a resume is answered, and the job is paused", j->id);
        break;
    case PLANNER_DELETE:
        if (there)
            sim_broken("%s: a delete is answered, and the job is there", j->id);
        break;
    default:
        break;
    }
}

static void change_done(struct request *r)
{
    struct sim_job *j = r->job;
    if (r->rules) {
        j->acked = true;
        j->answered = r->rules->number;
        j->answered_us = sim.now_us;
    }
    const struct sim_story *s = sim_story_of(&j->uid);
    if (r->api.op != PLANNER_RESUME && s && s->there && s->row.state == JOB_STATE_PAUSED)
        j->paused_us = sim.now_us;
    if (r->api.op == PLANNER_DELETE) {
        j->deleted_us = sim.now_us;
        sim_note("%s is deleted", j->id);
    }
}

/* The row that a promise about a fire is about. Of a deleted job all is over. */
static void check_fire(const struct request *r, const struct planner_api *api)
{
    const struct sim_job *j = r->job;
    if (api->op == PLANNER_RUN) {
        /* Perhaps of a job that was made under this name meanwhile, and whose own answer is still on its way. */
        const struct sim_row *row = sim_row_of(&api->run_uid, api->run_seq);
        if (!row || row->kind != FIRE_KIND_RUN)
            sim_broken("%s: run %llu is answered, and not in the store", j->id,
                       (unsigned long long)api->run_seq);
        return;
    }
    struct sim_fire *f = sim_fire_of(&j->uid, api->seq);
    const struct sim_row *row = sim_row_of(&j->uid, api->seq);
    if (api->op == PLANNER_FIRE_COMPLETE && api->fire_ok && f && !j->deleting) {
        f->promised = true;
        if (row && (row->state != FIRE_STATE_ENDED || row->outcome != FIRE_OUTCOME_SUCCEEDED))
            sim_broken("%s: completion of fire %llu is answered, and is not in the store", j->id,
                       (unsigned long long)api->seq);
    }
    if (api->op == PLANNER_FIRE_CANCEL && !j->deleting &&
        (!row || row->state != FIRE_STATE_ENDED || row->outcome != FIRE_OUTCOME_CANCELLED))
        sim_broken("%s: fire %llu is cancelled by an answer, and not in the store", j->id,
                   (unsigned long long)api->seq);
}

static void check_backfill(const struct request *r, const struct planner_api *api)
{
    const struct sim_job *j = r->job;
    const struct sim_story *s = sim_story_of(&j->uid);
    if (j->rules_count > 1 || j->deleting || !s || !s->rules)
        return; /* of a job that is deleted meanwhile it is not told any more */
    size_t n = sim_rules_at(s->rules, api->backfill_to_ms) - sim_rules_at(s->rules, api->backfill_from_ms);
    if (api->backfill_dues != n)
        sim_broken("%s: a backfill is answered to have %llu dues, the span has %zu", j->id,
                   (unsigned long long)api->backfill_dues, n);
}

static bool is_ok(enum planner_answer a)
{
    return a == PLANNER_OK || a == PLANNER_CREATED || a == PLANNER_ACCEPTED;
}

/* A refusal that the state of things explains. */
static bool is_plausible(const struct request *r, enum planner_answer a)
{
    const struct sim_job *j = r->job;
    enum planner_api_op op = r->api.op;
    if (a == PLANNER_NOT_FOUND)
        return j->deleting || j->expires || op == PLANNER_FIRE_COMPLETE || op == PLANNER_FIRE_HEARTBEAT;
    if (a == PLANNER_EXISTS)
        return op == PLANNER_BACKFILL;
    return planner_op_of_fire(op) && (a == PLANNER_FINISHED || a == PLANNER_SUPERSEDED);
}

static void finished(struct request *r, const struct planner_api *api)
{
    struct sim_job *j = r->job;
    if (!is_ok(api->answer) && !is_plausible(r, api->answer))
        sim_broken("request %d for %s is answered %d", (int)r->api.op, j->id, (int)api->answer);
    if (api->answer == PLANNER_NOT_FOUND && r->api.op == PLANNER_DELETE && !r->api.repeated && !j->expires)
        sim_broken("%s was acknowledged and is not there to delete", j->id);
    if (is_ok(api->answer) || r->api.op == PLANNER_DELETE)
        check_stored(r);
    if (is_ok(api->answer) && api->op == PLANNER_BACKFILL)
        check_backfill(r, api);
    else if (is_ok(api->answer) && !is_change(api->op))
        check_fire(r, api);
    if (is_change(r->api.op))
        j->busy = false;
    if (is_change(r->api.op) && (is_ok(api->answer) || r->api.op == PLANNER_DELETE))
        change_done(r);
    r->open = false;
    r->job = NULL;
}

/* On its way back, which it does not find when the agent dies meanwhile. */
static void take_answer(void *arg)
{
    struct sent *s = arg;
    struct request *r = s->request;
    enum planner_answer a = s->api.answer;
    bool stale = !r->job || !r->open || r->at != s->at || s->at->dead;
    if (!stale && (a == PLANNER_NOT_OWNER || a == PLANNER_UNAVAILABLE)) {
        r->api.repeated |= a == PLANNER_UNAVAILABLE;
        again(r);
    } else if (!stale) {
        finished(r, &s->api);
    }
    mem_free(s);
}

static void on_answer(void *arg, struct planner_api *api)
{
    job_spec_unref(api->result);
    job_spec_unref(api->spec);
    sim_after(sim_between(50, 500), NULL, take_answer, arg);
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
        r->api.repeated = true;
        again(r);
        return;
    }
    sim_after(500000, NULL, look_after, r);
}

static void try_send(void *arg)
{
    struct request *r = arg;
    struct sim_proc *p = sim_owner(r->job->slot);
    if (!p) {
        again(r);
        return;
    }
    struct sent *s = mem_new(struct sent);
    s->request = r;
    s->at = r->at = p;
    s->api = r->api;
    if (r->api.op == PLANNER_CREATE || r->api.op == PLANNER_PUT)
        s->api.spec = make_spec(r->job, r->rules, RECORD_NONE, NULL);
    r->open = true;
    sim_after(sim_between(100, 1000), p, submit, s);
    sim_after(500000, NULL, look_after, r);
}

static struct request *request(struct sim_job *j, enum planner_api_op op)
{
    struct request *r = mem_new(struct request);
    r->job = j;
    r->api = (struct planner_api){.op = op,
                                  .uid = j->uid,
                                  .change_id = rng_u64(&sim.plan) | 1,
                                  .accepted_ms = sim_wall_ms(),
                                  .paused = -1,
                                  .actor = "sim"};
    if (!planner_op_of_fire(op)) {
        (void)snprintf(r->api.ns, sizeof(r->api.ns), "default");
        (void)snprintf(r->api.id, sizeof(r->api.id), "%s", j->id);
    }
    r->next = requests;
    requests = r;
    j->busy |= is_change(op);
    return r;
}

/* --- what is asked of whom ----------------------------------------------------------------------------------------- */

/* An id that is free: a new one, or that of a job that is deleted. */
static void pick_id(struct sim_job *j)
{
    for (const struct sim_job *old = sim_plan_below(3) ? NULL : sim_jobs; old; old = old->next) {
        bool taken = !old->deleted_us;
        for (const struct sim_job *o = sim_jobs; o && !taken; o = o->next)
            taken = o != old && strcmp(o->id, old->id) == 0 && !o->deleted_us;
        if (taken || sim_plan_below(3))
            continue;
        (void)snprintf(j->id, sizeof(j->id), "%s", old->id);
        return;
    }
    (void)snprintf(j->id, sizeof(j->id), "j%u", ++jobs_count);
}

static void new_uid(struct uid *uid, uint16_t slot)
{
    uid->bytes[0] = (uint8_t)(slot >> 8);
    uid->bytes[1] = (uint8_t)slot;
    for (size_t i = 2; i < sizeof(uid->bytes); i++)
        uid->bytes[i] = (uint8_t)sim_plan_below(256);
}

static void create(bool flood)
{
    struct sim_job *j = mem_new(struct sim_job);
    pick_id(j);
    j->created_ms = sim_wall_ms();
    j->slot = (uint16_t)hashring_slot("default", j->id, SIM_SLOTS);
    new_uid(&j->uid, j->slot);
    j->next = sim_jobs;
    sim_jobs = j;
    if (map_put(&jobs, j->uid.bytes, sizeof(j->uid.bytes), j, NULL, NULL) < 0)
        sim_broken("no memory for the client");
    struct sim_rules *rules = new_rules(j, flood);
    j->expires = rules->ttl_ms < SIM_DAY_MS;
    struct request *r = request(j, sim_plan_below(2) ? PLANNER_CREATE : PLANNER_PUT);
    rules->change_id = r->api.change_id;
    r->rules = rules;
    r->api.paused = sim_plan_below(10) ? -1 : 1;
    r->api.merge = r->api.op == PLANNER_PUT ? merge : NULL;
    sim_note("asks for %s: %s", j->id, rules->text);
    try_send(r);
}

static bool fits(const struct sim_job *j, enum sim_wish wish)
{
    const struct sim_story *s = sim_story_of(&j->uid);
    const struct sim_rules *r = s && s->there ? s->rules : NULL;
    if (wish == SIM_WISH_REDRIVE || wish == SIM_WISH_DISCARD)
        return s && s->letters > 0 && !j->busy;
    if (!j->acked || j->deleting || !r)
        return false;
    if (wish <= SIM_WISH_RESUME && (j->busy || (j->expires && wish != SIM_WISH_DELETE)))
        return false;
    if (wish == SIM_WISH_BACKFILL)
        return !r->one_shot;
    return (wish != SIM_WISH_RETRY && wish != SIM_WISH_CANCEL) || s->open;
}

static struct sim_job *some_job(enum sim_wish wish)
{
    unsigned n = 0;
    for (struct sim_job *j = sim_jobs; j; j = j->next)
        n += fits(j, wish);
    unsigned skip = sim_plan_below(n ? n : 1);
    for (struct sim_job *j = sim_jobs; j; j = j->next)
        if (fits(j, wish) && skip-- == 0)
            return j;
    return NULL;
}

static void change(struct sim_job *j, struct request *r)
{
    struct sim_rules *rules = new_rules(j, false);
    rules->change_id = r->api.change_id;
    r->rules = rules;
    r->api.merge = merge;
    if (r->api.op == PLANNER_PUT) /* who takes it does not know whether it makes the job */
        new_uid(&r->api.uid, j->slot);
    sim_note("asks for a change of %s: %s", j->id, rules->text);
}

static void backfill(struct request *r)
{
    int64_t now_ms = sim_wall_ms(), from_ms = now_ms - sim_plan_between(1000, 120000) * sim.scale;
    r->job->backfilled = true;
    r->api.backfill_from_ms = from_ms;
    r->api.backfill_to_ms = from_ms + sim_plan_between(500, now_ms - from_ms);
}

static void pick_fire(struct request *r)
{
    const struct sim_row *row = sim_story_of(&r->job->uid)->open;
    for (unsigned skip = sim_plan_below(4); row->next && skip > 0; skip--)
        row = row->next;
    r->api.seq = row->seq;
}

static void on_letters(void *arg, const struct err *e, struct fire_row *found, size_t count, bool more)
{
    struct request *r = arg;
    (void)more;
    if (e->code != ERR_OK)
        sim_broken("the client cannot read the store");
    for (size_t i = 0; i < count && r->api.letters_count < LETTERS_MAX; i++) {
        const struct fire_row *row = &found[i];
        if (row->state != FIRE_STATE_ENDED || row->outcome != FIRE_OUTCOME_DEAD ||
            (r->api.letters_count > 0 && row->version != r->api.version))
            continue;
        r->api.version = row->version;
        r->letters[r->api.letters_count++] =
            (struct planner_letter){.seq = row->seq, .at_ms = sim_wall_ms() + (int64_t)sim_plan_below(3000)};
    }
}

static void send_wish(struct sim_job *j, enum sim_wish wish)
{
    static const enum planner_api_op ops[SIM_WISH_COUNT_] = {[SIM_WISH_CHANGE] = PLANNER_PUT,
                                                             [SIM_WISH_DELETE] = PLANNER_DELETE,
                                                             [SIM_WISH_PAUSE] = PLANNER_PAUSE,
                                                             [SIM_WISH_RESUME] = PLANNER_RESUME,
                                                             [SIM_WISH_RUN] = PLANNER_RUN,
                                                             [SIM_WISH_BACKFILL] = PLANNER_BACKFILL,
                                                             [SIM_WISH_RETRY] = PLANNER_FIRE_RETRY,
                                                             [SIM_WISH_CANCEL] = PLANNER_FIRE_CANCEL,
                                                             [SIM_WISH_REDRIVE] = PLANNER_LETTERS_REDRIVE,
                                                             [SIM_WISH_DISCARD] = PLANNER_LETTERS_DISCARD};
    bool patch = wish == SIM_WISH_CHANGE && sim_plan_below(2);
    struct request *r = request(j, patch ? PLANNER_PATCH : ops[wish]);
    switch (wish) {
    case SIM_WISH_CHANGE:
        j->paused_us = 0; /* it may be done by what it becomes */
        change(j, r);
        break;
    case SIM_WISH_DELETE:
        j->deleting = true;
        break;
    case SIM_WISH_RESUME:
        j->paused_us = 0;
        r->api.catch_up = (enum planner_catch_up)sim_plan_below(3);
        break;
    case SIM_WISH_RUN:
        j->runs_asked++;
        r->api.run_force = sim_plan_below(4) == 0;
        j->forced |= r->api.run_force;
        break;
    case SIM_WISH_BACKFILL:
        backfill(r);
        break;
    case SIM_WISH_RETRY:
    case SIM_WISH_CANCEL:
        j->forced |= wish == SIM_WISH_RETRY;
        j->redriven |= wish == SIM_WISH_RETRY;
        j->cancelled |= wish == SIM_WISH_CANCEL;
        pick_fire(r);
        break;
    case SIM_WISH_REDRIVE:
    case SIM_WISH_DISCARD:
        j->redriven |= wish == SIM_WISH_REDRIVE;
        j->discarded |= wish == SIM_WISH_DISCARD;
        r->api.letters = r->letters;
        store_mem.get_fires(sim.reader, &j->uid, 0, 200, on_letters, r);
        break;
    case SIM_WISH_CREATE:
    case SIM_WISH_FLOOD:
    case SIM_WISH_PAUSE:
    case SIM_WISH_COUNT_:
        break;
    }
    sim_note("asks for %d of %s, seq %llu", (int)r->api.op, j->id, (unsigned long long)r->api.seq);
    try_send(r);
}

void sim_client_wish(enum sim_wish wish)
{
    bool makes = wish == SIM_WISH_CREATE || wish == SIM_WISH_FLOOD;
    struct sim_job *j = makes ? NULL : some_job(wish);
    unsigned flood = wish == SIM_WISH_FLOOD ? FLOOD_JOBS * sim.hosts_count : 0;
    for (unsigned i = 0; i < flood; i++)
        create(true);
    if (wish == SIM_WISH_CREATE)
        create(false);
    else if (j)
        send_wish(j, wish);
}

void sim_client_resume_all(void)
{
    for (struct sim_job *j = sim_jobs; j; j = j->next)
        /* A delete that its callee asked for may have died with an agent. */
        if (j->acked && (!j->deleting || j->reply_deletes))
            send_wish(j, SIM_WISH_RESUME);
}

/* --- asynchronous callees ------------------------------------------------------------------------------------------ */

static void tell(const struct uid *uid, uint64_t seq, uint32_t attempt, enum planner_api_op op, bool ok)
{
    struct request *r = request(sim_job_of(uid), op);
    r->api.seq = seq;
    r->api.fire_attempt = attempt;
    r->api.fire_ok = ok;
    sim_note("%s: the callee of fire %llu tells %d: %s", r->job->id, (unsigned long long)seq, (int)op,
             ok ? "done" : "failed");
    try_send(r);
}

void sim_client_complete(const struct uid *uid, uint64_t seq, uint32_t attempt, bool ok)
{
    struct sim_fire *f = sim_fire_of(uid, seq);
    f->completed |= ok;
    tell(uid, seq, attempt, PLANNER_FIRE_COMPLETE, ok);
}

void sim_client_heartbeat(const struct uid *uid, uint64_t seq, uint32_t attempt)
{
    tell(uid, seq, attempt, PLANNER_FIRE_HEARTBEAT, true);
}
