/* Writes of the API: sent to whom the store names, and again until there is an answer that is final. */
#include "agent/core/hashring.h"
#include "tests/lib/planner_bed_private.h"

static void send_call(struct pbed *b, struct pbed_call *c);

static void on_resend(struct pbed *b, struct bev *ev)
{
    struct pbed_call *c = ev->ptr;
    if (!c->answered && !c->in_planner)
        send_call(b, c);
}

static void resend_later(struct pbed *b, struct pbed_call *c, int64_t delay_ms)
{
    struct bev *ev = pbed_bev_new(on_resend, -1);
    ev->ptr = c;
    pbed_post(b, ev, b->now + delay_ms);
}

static void send_call(struct pbed *b, struct pbed_call *c)
{
    int node = b->owner[planner_op_of_fire(c->api.op) ? uid_slot(&c->api.uid)
                                                      : hashring_slot(c->api.ns, c->api.id, b->o.slots)];
    if (node < 0 || !b->nodes[node].alive) {
        resend_later(b, c, 20);
        return;
    }
    c->node = node;
    c->in_planner = true;
    if (getenv("BED_TRACE"))
        fprintf(stderr, "%6lld n%d is asked op %d of '%s' seq %llu\n", (long long)(b->now - BED_NOW), node,
                c->api.op, c->api.id, (unsigned long long)c->api.seq);
    pbed_step(b, node, &(struct planner_event){.kind = PLANNER_API, .api = &c->api});
}

void pbed_replied(struct pbed *b, struct planner_api *api)
{
    struct pbed_call *c = api->driver;
    MUST(c->in_planner, "an answer to nothing");
    c->in_planner = false;
    if (getenv("BED_TRACE"))
        fprintf(stderr, "%6lld n%d answers op %d of '%s' seq %llu: %d\n", (long long)(b->now - BED_NOW),
                c->node, api->op, api->id, (unsigned long long)api->seq, api->answer);
    if (api->answer == PLANNER_NOT_OWNER || api->answer == PLANNER_UNAVAILABLE) {
        api->repeated |= api->answer == PLANNER_UNAVAILABLE;
        resend_later(b, c, api->answer == PLANNER_UNAVAILABLE ? 100 : 20);
        return;
    }
    c->answered = true;
    c->answered_ms = b->now;
    if (api->op != PLANNER_DELETE || api->answer != PLANNER_OK || !api->row.version)
        return;
    for (size_t i = 0; i < b->jobs_count; i++) {
        struct srow *s = &b->jobs[i];
        if (memcmp(&s->row.uid, &api->row.uid, sizeof(s->row.uid)) != 0)
            continue;
        MUST(!s->spec, "a delete was answered before it was durable");
        s->deleted_reply_ms = b->now;
    }
}

void pbed_calls_lost(struct pbed *b, int node)
{
    for (struct pbed_call *c = b->calls; c; c = c->next) {
        if (!c->in_planner || c->node != node)
            continue;
        /* The planner that died still points to the old request: a copy goes on. */
        c->in_planner = false;
        c->answered = c->lost = true;
        struct pbed_call *again = mem_new(struct pbed_call);
        *again = *c;
        again->answered = again->lost = false;
        again->api.driver = again;
        again->api.repeated = true;
        again->api.spec = c->api.spec ? job_spec_ref(c->api.spec) : NULL;
        again->merged = c->merged ? job_spec_ref(c->merged) : NULL;
        again->next = b->calls;
        b->calls = again;
        resend_later(b, again, 20);
    }
}

static int merge(struct planner_api *api, const struct job_spec *present, const struct job_row *row,
                 struct job_spec **ret)
{
    struct pbed_call *c = api->driver;
    (void)present;
    (void)row;
    if (!c->merged)
        return -ERR_INVALID;
    *ret = job_spec_ref(c->merged);
    return 0;
}

struct pbed_call *pbed_call(struct pbed *b, enum planner_api_op op, const char *id, const char *text)
{
    struct pbed_call *c = mem_new(struct pbed_call);
    c->api.op = op;
    c->api.driver = c;
    c->api.paused = -1;
    c->api.accepted_ms = b->now;
    c->api.change_id = rng_u64(&b->rng) | 1;
    c->node = -1;
    snprintf(c->api.ns, sizeof(c->api.ns), "default");
    snprintf(c->api.id, sizeof(c->api.id), "%s", id);
    snprintf(c->api.actor, sizeof(c->api.actor), "local");
    pbed_make_uid(b, hashring_slot(c->api.ns, id, b->o.slots), &c->api.uid);
    if (text && op == PLANNER_PATCH)
        c->merged = pbed_spec(b, id, text);
    else if (text)
        c->api.spec = pbed_spec(b, id, text);
    if (op == PLANNER_PATCH)
        c->api.merge = merge;
    c->next = b->calls;
    b->calls = c;
    resend_later(b, c, 0);
    return c;
}

enum planner_answer pbed_do(struct pbed *b, enum planner_api_op op, const char *id, const char *text)
{
    struct pbed_call *c = pbed_call(b, op, id, text);
    for (int i = 0; i < 120000 && !c->answered; i++)
        pbed_run(b, 1);
    MUST(c->answered, "no answer");
    return c->api.answer;
}

static void call_free(struct pbed_call *c)
{
    job_spec_unref(c->api.spec);
    job_spec_unref(c->api.result);
    job_spec_unref(c->merged);
    mem_free(c);
}

void pbed_calls_free(struct pbed *b)
{
    while (b->calls) {
        struct pbed_call *c = b->calls;
        b->calls = c->next;
        call_free(c);
    }
}
