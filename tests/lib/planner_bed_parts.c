/* Callees of the bed for `callback.to` other than one: three endpoints, each with a mind of its own. */
#include "agent/core/fire_parts.h"
#include "tests/lib/planner_bed_private.h"

static const char *const endpoints[] = {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"};

static const struct fire_row *row_of(const struct pbed *b, const struct delivery *d)
{
    return pbed_fire(b, &d->uid, d->seq);
}

/* What the store knows to be done is not sent again, whoever died; and without deaths nothing that was done is. */
static void oracle_part(struct pbed *b, const struct delivery *d, size_t part)
{
    AUTO(fire_parts_free) struct fire_parts *stored = NULL;
    const struct fire_row *row = row_of(b, d);
    MUST(row && row->parts, "parts are sent that are not in the store");
    MUST(fire_parts_parse(row->parts, row->parts_bytes, &stored, NULL) == 0, "the stored parts do not read");
    MUST(stored->count == d->parts->count, "the frozen list has changed");
    MUST(stored->items[part].state == FIRE_PART_PENDING, "part %zu of fire %llu is sent again", part,
         (unsigned long long)d->seq);
    for (size_t i = 0; b->o.planned_only && i < b->parts_done_count; i++)
        MUST(b->parts_done[i].seq != d->seq || b->parts_done[i].part != part ||
                 memcmp(&b->parts_done[i].uid, &d->uid, sizeof(d->uid)) != 0,
             "part %zu of fire %llu was done before", part, (unsigned long long)d->seq);
}

static void note_done(struct pbed *b, const struct delivery *d, size_t part)
{
    GROW(b, b->parts_done, b->parts_done_count, b->parts_done_capacity);
    b->parts_done[b->parts_done_count++] = (struct pbed_part){.uid = d->uid, .seq = d->seq, .part = part};
}

static void on_part(struct pbed *b, struct bev *ev)
{
    struct out *o = ev->ptr;
    if (!b->nodes[ev->node].alive)
        return;
    struct attempt a = {.result = ATTEMPT_OK, .status = 200, .retry_after_ms = -1, .started_ms = ev->from_ms};
    snprintf(a.endpoint, sizeof(a.endpoint), "%s", endpoints[ev->id]);
    if (pbed_chance(b, b->o.fail))
        a.result = ATTEMPT_RETRY, a.status = 503;
    else if (pbed_chance(b, b->o.give_up))
        a.result = ATTEMPT_GIVE_UP, a.status = 410;
    else if (pbed_chance(b, b->o.no_endpoint))
        a.result = ATTEMPT_GONE, a.status = -1;
    else
        a.control = b->o.control, note_done(b, o->d, ev->id);
    if (a.result == ATTEMPT_RETRY || (a.result == ATTEMPT_GIVE_UP && o->worst == ATTEMPT_OK))
        o->worst = a.result;
    pbed_step(b, ev->node,
              &(struct planner_event){.kind = PLANNER_PART, .delivery = o->d, .part = ev->id, .attempt = &a});
    if (--o->parts_open > 0)
        return;
    struct attempt all = {.result = o->worst, .status = -1, .retry_after_ms = -1, .started_ms = ev->from_ms};
    pbed_finish(b, ev->node, o, &all);
}

static void name_endpoints(struct pbed *b, int node, struct out *o)
{
    struct attempt a = {.result = ATTEMPT_ENDPOINTS,
                        .status = -1,
                        .retry_after_ms = -1,
                        .endpoints = endpoints,
                        .endpoints_count = 1 + rng_below(&b->rng, 3)};
    pbed_finish(b, node, o, &a);
}

bool pbed_parts_start(struct pbed *b, int node, struct out *o)
{
    const struct delivery *d = o->d;
    if (d->spec->callback.to == JOB_TO_ONE)
        return false;
    if (!d->parts) {
        name_endpoints(b, node, o);
        return true;
    }
    MUST(b->now >= d->due_ms, "a fire is early by %lld ms", (long long)(d->due_ms - b->now));
    o->started = true;
    o->worst = ATTEMPT_OK;
    o->parts_open = fire_parts_count(d->parts, FIRE_PART_PENDING);
    MUST(o->parts_open > 0, "a delivery has nothing to deliver");
    for (size_t i = 0; i < d->parts->count; i++) {
        if (d->parts->items[i].state != FIRE_PART_PENDING)
            continue;
        oracle_part(b, d, i);
        struct bev *ev = pbed_bev_new(on_part, node);
        ev->ptr = o;
        ev->id = i;
        ev->from_ms = b->now;
        pbed_post(b, ev, b->now + pbed_some(b, b->o.duration_max_ms));
    }
    return true;
}
