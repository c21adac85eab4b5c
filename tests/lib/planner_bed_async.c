/* Asynchronous callees of the bed: what they do after a 202, and sometimes before it. */
#include "tests/lib/planner_bed_private.h"

struct pbed_call *pbed_fire_call(struct pbed *b, enum planner_api_op op, const struct uid *uid, uint64_t seq,
                                 uint32_t attempt, bool ok)
{
    struct pbed_call *c = pbed_call(b, op, "", NULL);
    c->api.ns[0] = '\0';
    c->api.uid = *uid;
    c->api.seq = seq;
    c->api.fire_attempt = attempt;
    c->api.fire_ok = ok;
    return c;
}

enum planner_answer pbed_fire_do(struct pbed *b, enum planner_api_op op, const struct uid *uid, uint64_t seq,
                                 uint32_t attempt, bool ok)
{
    struct pbed_call *c = pbed_fire_call(b, op, uid, seq, attempt, ok);
    for (int i = 0; i < 120000 && !c->answered; i++)
        pbed_run(b, 1);
    MUST(c->answered, "no answer");
    return c->api.answer;
}

static void on_say(struct pbed *b, struct bev *ev)
{
    (void)pbed_fire_call(b, (enum planner_api_op)ev->code, &ev->uid, ev->seq, (uint32_t)ev->id, ev->more);
}

static void say(struct pbed *b, const struct delivery *d, enum planner_api_op op, bool ok, int64_t at)
{
    struct bev *ev = pbed_bev_new(on_say, -1);
    ev->code = (int)op;
    ev->uid = d->uid;
    ev->seq = d->seq;
    ev->id = d->attempt;
    ev->more = ok;
    pbed_post(b, ev, at);
}

void pbed_async_started(struct pbed *b, const struct delivery *d, int64_t ends_ms)
{
    if (d->spec->callback.async && pbed_chance(b, b->o.async_early))
        say(b, d, PLANNER_FIRE_COMPLETE, !pbed_chance(b, b->o.async_fail),
            b->now + pbed_some(b, ends_ms - b->now));
}

/* The request was answered with a 202: the callee works on, and tells the end unless it forgets to. */
void pbed_async_accept(struct pbed *b, const struct delivery *d, struct attempt *a)
{
    if (!d->spec->callback.async || a->result != ATTEMPT_OK)
        return;
    a->result = ATTEMPT_OPEN;
    a->status = 202;
    int64_t at = b->now + pbed_some(b, b->o.async_max_ms);
    for (int64_t beat = b->now; pbed_chance(b, 0.6) && beat < at;) {
        beat += pbed_some(b, 900);
        say(b, d, PLANNER_FIRE_HEARTBEAT, true, beat);
    }
    if (!pbed_chance(b, b->o.async_silent))
        say(b, d, PLANNER_FIRE_COMPLETE, !pbed_chance(b, b->o.async_fail), at);
}

/* Nothing of a fire starts any more that its callee, or somebody by hand, was told has ended. */
void pbed_async_check_start(struct pbed *b, const struct delivery *d)
{
    for (const struct pbed_call *c = b->calls; c; c = c->next) {
        const struct planner_api *api = &c->api;
        bool ends = (api->op == PLANNER_FIRE_COMPLETE && api->fire_ok) || api->op == PLANNER_FIRE_CANCEL;
        bool letter = api->outcome == FIRE_OUTCOME_DEAD; /* which may be sent once more */
        bool told = c->answered && !c->lost && api->answer != PLANNER_NOT_FOUND && !letter;
        MUST(!ends || !told || api->seq != d->seq || memcmp(&api->uid, &d->uid, sizeof(d->uid)) != 0 ||
                 c->answered_ms >= b->now,
             "fire %llu is sent after it was told to have ended, at %lld ms", (unsigned long long)d->seq,
             (long long)(c->answered_ms - BED_NOW));
    }
}
