#include "tests/lib/planner_bed_private.h"

#include "agent/base/json.h"
#include "agent/core/hashring.h"
#include "agent/core/tz.h"

/* --- events of the bed ----------------------------------------------------------------------------------------------- */

static bool earlier(const struct bev *x, const struct bev *y)
{
    return x->at < y->at || (x->at == y->at && x->order < y->order);
}

void pbed_post(struct pbed *b, struct bev *ev, int64_t at)
{
    ev->at = at;
    ev->order = ++b->order;
    GROW(b, b->heap, b->heap_count, b->heap_capacity);
    size_t i = b->heap_count++;
    for (; i > 0 && earlier(ev, b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = ev;
}

static struct bev *take(struct pbed *b)
{
    struct bev *top = b->heap[0], *last = b->heap[--b->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= b->heap_count)
            break;
        if (child + 1 < b->heap_count && earlier(b->heap[child + 1], b->heap[child]))
            child++;
        if (!earlier(b->heap[child], last))
            break;
        b->heap[i] = b->heap[child];
        i = child;
    }
    if (b->heap_count > 0)
        b->heap[i] = last;
    return top;
}

struct bev *pbed_bev_new(void (*fn)(struct pbed *, struct bev *), int node)
{
    struct bev *ev = mem_new(struct bev);
    ev->fn = fn;
    ev->node = node;
    return ev;
}

static void bev_free(struct bev *ev)
{
    for (size_t i = 0; ev->jobs && i < ev->count; i++)
        job_spec_unref(ev->jobs[i].spec);
    for (size_t i = 0; ev->fires && i < ev->count; i++)
        fire_row_fini(&ev->fires[i]);
    mem_free(ev->jobs);
    mem_free(ev->fires);
    mem_free(ev->slots);
    mem_free(ev->epochs);
    mem_free(ev);
}

int64_t pbed_some(struct pbed *b, int64_t max_ms)
{
    return max_ms > 0 ? rng_range(&b->rng, 0, max_ms) : 0;
}

bool pbed_chance(struct pbed *b, double share)
{
    return share > 0 && rng_double(&b->rng) < share;
}

/* --- callees and the oracle ------------------------------------------------------------------------------------------ */

/* A dead letter of a job that is gone, sent once more. */
static bool was_redriven(const struct pbed *b, const struct delivery *d)
{
    const struct fire_row *row = pbed_fire(b, &d->uid, d->seq);
    return row && row->attempts_before > 0 && row->state != FIRE_STATE_ENDED;
}

/* Whoever makes the attempt, and however late: it tells of the trace that asked for the run. */
static void check_trace(const struct pbed *b, const struct delivery *d)
{
    const struct fire_row *row = pbed_fire(b, &d->uid, d->seq);
    const char *wanted = row ? row->trace : NULL;
    MUST(!wanted == !d->trace && (!wanted || (row->trace_bytes == d->trace_bytes &&
                                              memcmp(wanted, d->trace, d->trace_bytes) == 0)),
         "attempt %u goes out with another trace than its fire has", d->attempt);
}

static void oracle_start(struct pbed *b, int node, const struct delivery *d)
{
    pbed_async_check_start(b, d);
    check_trace(b, d);
    /* A booked one keeps the jitter of the definition that it was booked under. */
    int64_t from_ms = d->due_ms + (d->booked ? 0 : job_jitter_ms(d->spec, &d->uid, d->due_ms));
    MUST(b->now >= from_ms, "a fire is early by %lld ms", (long long)(from_ms - b->now));
    for (size_t i = 0; i < b->jobs_count; i++)
        MUST(memcmp(&b->jobs[i].row.uid, &d->uid, sizeof(d->uid)) != 0 || b->jobs[i].spec ||
                 b->now <= b->jobs[i].deleted_reply_ms || was_redriven(b, d),
             "an attempt starts after the delete was answered");
    for (size_t i = 0; i < b->sent_count; i++) {
        const struct pbed_sent *s = &b->sent[i];
        if (memcmp(&s->uid, &d->uid, sizeof(d->uid)) != 0)
            continue;
        MUST(s->seq != d->seq || s->due_ms == d->due_ms, "fire %llu has two dues",
             (unsigned long long)d->seq);
        /* Two runs asked for by hand in one ms have one due. */
        MUST(s->due_ms != d->due_ms || s->seq == d->seq || s->booked || d->booked,
             "due has two fires: %llu and %llu", (unsigned long long)s->seq, (unsigned long long)d->seq);
        MUST(!b->o.planned_only || s->seq != d->seq || s->attempt < d->attempt,
             "fire %llu: attempt %u was sent before, %lld ms ago", (unsigned long long)d->seq, d->attempt,
             (long long)(b->now - s->at_ms));
    }
    if (getenv("BED_TRACE"))
        fprintf(stderr, "%6lld n%d sends seq %llu attempt %u slot %u\n", (long long)(b->now - BED_NOW), node,
                (unsigned long long)d->seq, d->attempt, d->slot);
    GROW(b, b->sent, b->sent_count, b->sent_capacity);
    b->sent[b->sent_count++] = (struct pbed_sent){.uid = d->uid,
                                                  .seq = d->seq,
                                                  .attempt = d->attempt,
                                                  .due_ms = d->due_ms,
                                                  .at_ms = b->now,
                                                  .epoch = d->epoch,
                                                  .booked = d->booked,
                                                  .node = node};
}

static void out_remove(struct node *n, struct out *o)
{
    struct out **at = &n->outs;
    while (*at != o)
        at = &(*at)->next;
    *at = o->next;
}

void pbed_finish(struct pbed *b, int node, struct out *o, const struct attempt *attempt)
{
    struct delivery *d = o->d;
    if (getenv("BED_TRACE"))
        fprintf(stderr, "%6lld n%d ends seq %llu attempt %u slot %u result %d\n",
                (long long)(b->now - BED_NOW), node, (unsigned long long)d->seq, d->attempt, d->slot,
                attempt->result);
    out_remove(&b->nodes[node], o);
    mem_free(o);
    pbed_step(b, node, &(struct planner_event){.kind = PLANNER_ATTEMPT, .delivery = d, .attempt = attempt});
}

static void on_end(struct pbed *b, struct bev *ev)
{
    if (!b->nodes[ev->node].alive)
        return;
    struct attempt a = {.result = ATTEMPT_OK, .status = 200, .retry_after_ms = -1, .started_ms = ev->from_ms};
    snprintf(a.endpoint, sizeof(a.endpoint), "10.0.0.7:8080");
    a.duration_ms = (uint32_t)(b->now - ev->from_ms);
    if (((struct out *)ev->ptr)->aborted) {
        a.result = ATTEMPT_RETRY;
        a.status = -1;
        snprintf(a.error, sizeof(a.error), "connection closed");
    } else if (pbed_chance(b, b->o.reset)) {
        a.result = ATTEMPT_RETRY;
        a.status = -1;
        a.sent = true;
        snprintf(a.error, sizeof(a.error), "connection reset");
    } else if (pbed_chance(b, b->o.fail)) {
        a.result = ATTEMPT_RETRY;
        a.status = 503;
        snprintf(a.excerpt, sizeof(a.excerpt), "busy \"now\"");
    } else if (pbed_chance(b, b->o.give_up)) {
        a.result = ATTEMPT_GIVE_UP;
        a.status = 410;
    }
    if (a.result == ATTEMPT_OK)
        a.control = b->o.control;
    pbed_async_accept(b, ((struct out *)ev->ptr)->d, &a);
    pbed_finish(b, ev->node, ev->ptr, &a);
}

static void on_start(struct pbed *b, struct bev *ev)
{
    struct out *o = ev->ptr;
    if (!b->nodes[ev->node].alive)
        return;
    if (o->revoked || pbed_chance(b, b->o.no_endpoint)) {
        struct attempt a = {.result = o->revoked ? ATTEMPT_NOT_STARTED : ATTEMPT_NO_ENDPOINT, .status = -1};
        pbed_finish(b, ev->node, o, &a);
        return;
    }
    if (pbed_parts_start(b, ev->node, o))
        return;
    o->started = true;
    oracle_start(b, ev->node, o->d);
    struct bev *end = pbed_bev_new(on_end, ev->node);
    end->ptr = o;
    end->from_ms = b->now;
    int64_t ends_ms = b->now + pbed_some(b, b->o.duration_max_ms);
    pbed_post(b, end, ends_ms);
    pbed_async_started(b, o->d, ends_ms);
}

static void deliver(struct pbed *b, int node, struct delivery *d)
{
    struct out *o = mem_new(struct out);
    o->d = d;
    o->next = b->nodes[node].outs;
    b->nodes[node].outs = o;
    d->driver = o;
    struct bev *ev = pbed_bev_new(on_start, node);
    ev->ptr = o;
    pbed_post(b, ev, b->now + pbed_some(b, 3));
}

/* --- planners -------------------------------------------------------------------------------------------------------- */

/* As agent/core/ownership does: news of a slot that are older than what was heard of it since are none. */
static void forget_old_news(struct pbed *b, struct bev *ev)
{
    uint64_t *seen = b->nodes[ev->node].seen;
    size_t kept = 0;
    for (size_t i = 0; i < ev->slots_count; i++) {
        if (ev->epochs[i] <= seen[ev->slots[i]])
            continue;
        seen[ev->slots[i]] = ev->epochs[i];
        ev->slots[kept] = ev->slots[i];
        ev->epochs[kept++] = ev->epochs[i];
    }
    ev->slots_count = kept;
}

static void on_told(struct pbed *b, struct bev *ev)
{
    if (!b->nodes[ev->node].alive)
        return;
    if (ev->code == PLANNER_SLOTS_GAINED)
        forget_old_news(b, ev);
    struct planner_event e = {.kind = (enum planner_event_kind)ev->code,
                              .slots = ev->slots,
                              .epochs = ev->epochs,
                              .slots_count = ev->slots_count};
    if (ev->ptr)
        e.member = ((struct node *)ev->ptr)->member;
    pbed_step(b, ev->node, &e);
}

static struct bev *tell(int node, enum planner_event_kind kind, const uint16_t *slots, const uint64_t *epochs,
                        size_t count)
{
    struct bev *ev = pbed_bev_new(on_told, node);
    ev->code = (int)kind;
    ev->slots = mem_new_array(uint16_t, count + 1);
    ev->epochs = mem_new_array(uint64_t, count + 1);
    ev->slots_count = count;
    for (size_t i = 0; i < count; i++) {
        ev->slots[i] = slots[i];
        ev->epochs[i] = epochs ? epochs[i] : 0;
    }
    return ev;
}

static void act(struct pbed *b, int node, const struct planner_action *a)
{
    switch (a->kind) {
    case PLANNER_DO_DELIVER:
        deliver(b, node, a->delivery);
        break;
    case PLANNER_DO_REVOKE:
        ((struct out *)a->delivery->driver)->revoked = true;
        ((struct out *)a->delivery->driver)->aborted |= a->abort;
        break;
    case PLANNER_DO_LOAD_JOBS:
    case PLANNER_DO_LOAD_FIRES:
    case PLANNER_DO_GET_JOB:
    case PLANNER_DO_GET_FIRE:
    case PLANNER_DO_FIND_CHANGE:
        pbed_ask(b, node, a);
        break;
    case PLANNER_DO_REPLY:
        pbed_replied(b, a->api);
        break;
    case PLANNER_DO_MOVED:
        if (!a->ok)
            break; /* the beat tells whose they are */
        for (size_t i = 0; i < a->slots_count; i++)
            b->nodes[node].seen[a->slots[i]] = a->epochs[i];
        if (pbed_node_named(b, a->member) >= 0)
            pbed_post(b,
                      tell(pbed_node_named(b, a->member), PLANNER_SLOTS_GAINED, a->slots, a->epochs,
                           a->slots_count),
                      b->now + pbed_some(b, 3));
        break;
    case PLANNER_DO_WAKE:
        if (b->owner[a->slots[0]] >= 0)
            pbed_post(b, tell(b->owner[a->slots[0]], PLANNER_WAKE, a->slots, NULL, a->slots_count),
                      b->now + pbed_some(b, 3));
        break;
    case PLANNER_DO_REPLANNED:
        b->replanned++;
        break;
    case PLANNER_DO_LOG:
        snprintf(b->log, sizeof(b->log), "%s", a->text);
        break;
    case PLANNER_DO_COUNT:
        MUST(!a->attempt || a->attempt->result < ATTEMPT_RESULT_COUNT_, "an action tells of an attempt");
        break;
    }
}

/* Actions are carried out after the step, so nothing in them may point into its frames. */
static __attribute__((noinline)) void scribble(void)
{
    char stack[16384];
    memset(stack, 0xa5, sizeof(stack));
    __asm__ volatile("" : : "r"(stack) : "memory"); /* it is not left out */
}

static void trace_event(const struct pbed *b, int node, const struct planner_event *event)
{
    static const char *const kinds[] = {
        [PLANNER_SLOTS_GAINED] = "gains",     [PLANNER_SLOTS_LOST] = "loses",
        [PLANNER_MOVE] = "shall give away",   [PLANNER_BATCH_DONE] = "batch came back",
        [PLANNER_MEMBER_DEAD] = "hears dead", [PLANNER_RELEASE] = NULL};
    if ((size_t)event->kind >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[event->kind])
        return;
    fprintf(stderr, "%6lld n%d %s %s code %d:", (long long)(b->now - BED_NOW), node, kinds[event->kind],
            event->member ? event->member : "", event->code);
    for (size_t i = 0; i < event->slots_count; i++)
        fprintf(stderr, " %u@%llu", event->slots[i],
                event->epochs ? (unsigned long long)event->epochs[i] : 0ull);
    fprintf(stderr, "\n");
}

static bool same_name(const struct planner_batch *x, const struct planner_batch *y)
{
    for (size_t i = 0; i < x->jobs_count; i++)
        for (size_t k = 0; k < y->jobs_count; k++)
            if (strcmp(x->jobs[i]->row.id, y->jobs[k]->row.id) == 0)
                return true;
    return false;
}

/* What may be written in any order, or in part. */
static void check_beside(struct pbed *b, const struct node *n, const struct planner_batch *batch)
{
    for (size_t i = 0; i < PLANNER_BATCHES_MAX; i++) {
        const struct planner_batch *other = n->batches[i];
        if (!other)
            continue;
        b->beside++;
        MUST(i < b->o.batches_max, "more batches than asked for");
        MUST(other->slots_count == 0 && batch->slots_count == 0, "slots move in a batch that is not alone");
        MUST(!same_name(other, batch), "a job is in two batches");
    }
}

static void take_batches(struct pbed *b, int node, bool fault)
{
    struct node *n = &b->nodes[node];
    for (;;) {
        if (fault)
            fault_arm((unsigned)rng_below(&b->rng, 4));
        bool awaited = planner_awaited(n->p);
        struct planner_batch *batch = planner_take_batch(n->p, b->o.rows_max);
        fault_disarm();
        if (!batch)
            return;
        b->awaited += awaited;
        check_beside(b, n, batch);
        struct planner_batch **free_one = n->batches;
        while (*free_one)
            free_one++;
        *free_one = batch;
        struct bev *ev = pbed_bev_new(pbed_on_commit, node);
        ev->ptr = batch;
        pbed_post(b, ev, b->now + pbed_some(b, b->o.commit_max_ms));
    }
}

/* Actions may feed the planner again at once (a reply that is resent), so they are copied out first. */
void pbed_step(struct pbed *b, int node, struct planner_event *event)
{
    struct node *n = &b->nodes[node];
    if (!n->p)
        return;
    event->now_ms = b->now;
    if (getenv("BED_TRACE"))
        trace_event(b, node, event);
    MUST(!n->stepping, "a step in a step");
    n->stepping = true;
    n->actions.count = 0;
    bool fault = pbed_chance(b, b->o.fault);
    if (fault)
        fault_arm((unsigned)rng_below(&b->rng, 4));
    planner_step(n->p, event, &n->actions);
    scribble();
    fault_disarm();
    for (size_t i = 0; i < n->actions.count; i++)
        act(b, node, &n->actions.items[i]);
    n->stepping = false;
    planner_validate(n->p);
    if (n->alive)
        take_batches(b, node, fault);
}

static int64_t next_ms(const struct pbed *b, int *ret_node)
{
    int64_t at = INT64_MAX;
    for (int i = 0; i < b->nodes_count; i++) {
        if (!b->nodes[i].alive)
            continue;
        int64_t t = planner_next_ms(b->nodes[i].p);
        if (t < at) {
            at = t;
            *ret_node = i;
        }
    }
    return at;
}

void pbed_run(struct pbed *b, int64_t ms)
{
    int64_t end = b->now + ms;
    unsigned same = 0;
    for (;;) {
        int node = -1;
        int64_t tick = next_ms(b, &node), at = b->heap_count ? b->heap[0]->at : INT64_MAX;
        int64_t to = tick < at ? tick : at;
        if (to > end)
            break;
        same = to > b->now ? 0 : same + 1;
        MUST(same < 20000, "time stands still");
        b->now = to > b->now ? to : b->now;
        if (tick < at) {
            pbed_step(b, node, &(struct planner_event){.kind = PLANNER_TICK});
        } else {
            struct bev *ev = take(b);
            ev->fn(b, ev);
            bev_free(ev);
        }
    }
    b->now = end;
}

/* Each second: what the store says is a member's and it does not know of, because who gave it died before telling. */
static void on_beat(struct pbed *b, struct bev *ev)
{
    (void)ev;
    for (unsigned s = 0; s < b->o.slots; s++) {
        int node = b->owner[s];
        if (node >= 0 && b->nodes[node].alive && planner_epoch(b->nodes[node].p, (uint16_t)s) == 0)
            pbed_give(b, s, node);
    }
    pbed_post(b, pbed_bev_new(on_beat, -1), b->now + 1000);
}

/* --- members --------------------------------------------------------------------------------------------------------- */

int pbed_node_start(struct pbed *b)
{
    MUST(b->nodes_count < BED_NODES, "too many members");
    int i = b->nodes_count++;
    struct node *n = &b->nodes[i];
    snprintf(n->member, sizeof(n->member), "n%d.%x", i, i * 7919);
    struct planner_options o = {.member = n->member,
                                .slots = b->o.slots,
                                .horizon_ms = b->o.horizon_ms,
                                .memory_max_bytes = b->o.memory_max_bytes,
                                .load_page = b->o.load_page,
                                .unwritten_max = 10000,
                                .unwritten_stall_ms = 1000,
                                .catch_up_per_s = b->o.catch_up_per_s,
                                .retry_window = b->o.retry_window,
                                .batches_max = b->o.batches_max,
                                .out_max = b->o.out_max,
                                .history_keep = 16,
                                .history_keep_ms = BED_HISTORY_KEEP_MS,
                                .dead_keep_ms = BED_DEAD_KEEP_MS,
                                .tzdata = b->o.tzdata,
                                .seed = rng_u64(&b->rng)};
    struct err e;
    int r = planner_new(&o, &n->p, &e);
    assert(r == 0);
    n->seen = mem_new_array(uint64_t, b->o.slots);
    n->alive = true;
    pbed_lease(b, i, true);
    for (int k = 0; k < i; k++)
        if (b->nodes[k].dead_in_store)
            pbed_step(b, i,
                      &(struct planner_event){.kind = PLANNER_MEMBER_DEAD, .member = b->nodes[k].member});
    return i;
}

void pbed_lease(struct pbed *b, int node, bool may_start)
{
    pbed_step(
        b, node,
        &(struct planner_event){.kind = PLANNER_LEASE, .may_start = may_start, .lease_held = may_start});
}

void pbed_release(struct pbed *b, const char *service)
{
    for (int i = 0; i < b->nodes_count; i++)
        if (b->nodes[i].alive)
            pbed_step(b, i, &(struct planner_event){.kind = PLANNER_RELEASE, .service = service});
}

bool pbed_node_alive(const struct pbed *b, int node)
{
    return b->nodes[node].alive;
}

int pbed_nodes_alive(const struct pbed *b, int nodes[BED_NODES])
{
    int n = 0;
    for (int i = 0; i < b->nodes_count; i++)
        if (b->nodes[i].alive)
            nodes[n++] = i;
    return n;
}

struct planner *pbed_planner(struct pbed *b, int node)
{
    return b->nodes[node].p;
}

void pbed_give(struct pbed *b, unsigned slot, int node)
{
    uint16_t s = (uint16_t)slot;
    b->owner[slot] = node;
    b->nodes[node].seen[slot] = ++b->epoch[slot];
    pbed_step(b, node,
              &(struct planner_event){
                  .kind = PLANNER_SLOTS_GAINED, .slots = &s, .epochs = &b->epoch[slot], .slots_count = 1});
}

void pbed_give_all(struct pbed *b, int node)
{
    for (unsigned s = 0; s < b->o.slots; s++)
        pbed_give(b, s, node);
}

struct pbed *pbed_start(const struct pbed_options *o, unsigned members)
{
    struct pbed_options usual = pbed_defaults(7);
    struct pbed *b = pbed_new(o ? o : &usual);
    for (unsigned i = 0; i < members; i++)
        (void)pbed_node_start(b);
    pbed_give_all(b, 0);
    pbed_run(b, 50);
    return b;
}

struct pbed *pbed_start_job(const char *job)
{
    struct pbed *b = pbed_start(NULL, 1);
    enum planner_answer a = pbed_do(b, PLANNER_CREATE, "a", job);
    assert(a == PLANNER_CREATED);
    return b;
}

void pbed_move(struct pbed *b, const uint16_t *slots, size_t count, int from, int to)
{
    pbed_step(b, from,
              &(struct planner_event){
                  .kind = PLANNER_MOVE, .slots = slots, .slots_count = count, .member = b->nodes[to].member});
}

int pbed_owner(const struct pbed *b, unsigned slot)
{
    return b->owner[slot];
}

void pbed_on_declared(struct pbed *b, struct bev *ev)
{
    int alive[BED_NODES], n = pbed_nodes_alive(b, alive);
    b->nodes[ev->node].dead_in_store = true;
    MUST(n > 0, "nobody is left");
    uint16_t *slots = mem_new_array(uint16_t, b->o.slots);
    uint64_t *epochs = mem_new_array(uint64_t, b->o.slots);
    for (int i = 0; i < n; i++) {
        size_t count = 0;
        for (unsigned s = 0; s < b->o.slots; s++) {
            if (b->owner[s] != ev->node || (i < n - 1 && rng_below(&b->rng, (uint64_t)n) != 0))
                continue;
            b->owner[s] = alive[i];
            slots[count] = (uint16_t)s;
            epochs[count++] = ++b->epoch[s];
        }
        struct bev *gained = tell(alive[i], PLANNER_SLOTS_GAINED, slots, epochs, count);
        struct bev *dead = tell(alive[i], PLANNER_MEMBER_DEAD, NULL, NULL, 0);
        dead->ptr = &b->nodes[ev->node];
        pbed_post(b, gained, b->now + pbed_some(b, 5));
        pbed_post(b, dead, b->now + pbed_some(b, 5));
    }
    mem_free(slots);
    mem_free(epochs);
}

void pbed_node_kill(struct pbed *b, int node, int64_t declared_after_ms)
{
    b->nodes[node].alive = false;
    pbed_post(b, pbed_bev_new(pbed_on_declared, node), b->now + declared_after_ms);
    pbed_calls_lost(b, node);
}

/* --- use ------------------------------------------------------------------------------------------------------------- */

struct pbed_options pbed_defaults(uint64_t seed)
{
    return (struct pbed_options){.seed = seed,
                                 .slots = 8,
                                 .duration_max_ms = 50,
                                 .read_max_ms = 4,
                                 .commit_max_ms = 4,
                                 .planned_only = true,
                                 .rows_max = 500,
                                 .batches_max = PLANNER_BATCHES_MAX,
                                 .load_page = 100,
                                 .horizon_ms = 60000,
                                 .memory_max_bytes = 64 << 20,
                                 .retry_window = 1000,
                                 .catch_up_per_s = 1000};
}

struct pbed *pbed_new(const struct pbed_options *o)
{
    struct pbed *b = mem_new(struct pbed);
    b->o = *o;
    b->now = BED_NOW;
    rng_init(&b->rng, o->seed);
    for (unsigned i = 0; i < o->slots; i++) {
        b->owner[i] = -1;
        b->epoch[i] = 1000;
    }
    pbed_post(b, pbed_bev_new(on_beat, -1), b->now + 1000);
    return b;
}

struct pbed_options *pbed_set(struct pbed *b)
{
    return &b->o;
}

struct rng *pbed_rng(struct pbed *b)
{
    return &b->rng;
}

int64_t pbed_now(const struct pbed *b)
{
    return b->now;
}

/* Give back all that is out, as the real driver does at its end. */
static void node_free(struct pbed *b, int node)
{
    struct node *n = &b->nodes[node];
    struct attempt none = {.result = ATTEMPT_NOT_STARTED};
    uint16_t *slots = mem_new_array(uint16_t, b->o.slots);
    n->alive = false;
    for (unsigned i = 0; i < b->o.slots; i++)
        slots[i] = (uint16_t)i;
    for (struct pbed_call *c = b->calls; c; c = c->next) /* answers to the dead go nowhere */
        if (c->node == node)
            c->in_planner = true;
    for (size_t i = 0; i < PLANNER_BATCHES_MAX; i++)
        if (n->batches[i])
            pbed_step(b, node,
                      &(struct planner_event){
                          .kind = PLANNER_BATCH_DONE, .batch = n->batches[i], .code = ERR_FENCED});
    pbed_step(b, node,
              &(struct planner_event){.kind = PLANNER_SLOTS_LOST, .slots = slots, .slots_count = b->o.slots});
    while (n->outs)
        pbed_finish(b, node, n->outs, &none);
    planner_free(n->p);
    n->p = NULL;
    mem_free(n->actions.items);
    mem_free(n->seen);
    mem_free(slots);
}

void pbed_free(struct pbed *b)
{
    for (int i = 0; i < b->nodes_count; i++)
        node_free(b, i);
    while (b->heap_count)
        bev_free(take(b));
    pbed_calls_free(b);
    for (size_t i = 0; i < b->jobs_count; i++)
        job_spec_unref(b->jobs[i].spec);
    for (size_t i = 0; i < b->fires_count; i++)
        fire_row_fini(&b->fires[i]);
    mem_free(b->heap);
    mem_free(b->jobs);
    mem_free(b->fires);
    mem_free(b->changes);
    for (size_t i = 0; i < b->copies_count; i++)
        job_spec_unref(b->copies[i].spec);
    mem_free(b->copies);
    mem_free(b->sent);
    mem_free(b->parts_done);
    mem_free(b);
}

static const struct tz *find_zone(void *arg, const char *name)
{
    const struct pbed *b = arg;
    if (b->o.zone && strcmp(name, tz_name(b->o.zone)) == 0)
        return b->o.zone;
    return strcmp(name, "UTC") == 0 ? tz_utc() : NULL;
}

struct job_spec *pbed_spec(const struct pbed *b, const char *id, const char *text)
{
    struct err e = {0};
    json_t *doc = NULL;
    struct job_defaults defaults;
    struct problems problems;
    enum job_refusal refusal;
    int paused;
    struct job_spec *spec = NULL;
    job_defaults_init(&defaults);
    defaults.allow_loopback = true;
    struct job_context ctx = {
        .ns = "default", .id = id, .now_ms = b->now, .created_ms = RECORD_NONE, .defaults = &defaults};
    MUST(json_read(text, strlen(text), 1 << 20, &doc, &e) == 0, "%s: %s", text, e.text);
    problems_init(&problems);
    int r = job_spec_parse(doc, &ctx, find_zone, (void *)b, &problems, &refusal, NULL, &paused, &spec, &e);
    MUST(r == 0, "%s: %s", text, e.text);
    problems_fini(&problems);
    json_decref(doc);
    return spec;
}

void pbed_make_uid(struct pbed *b, unsigned slot, struct uid *uid)
{
    uint64_t r[2] = {rng_u64(&b->rng), rng_u64(&b->rng)};
    memcpy(uid->bytes, r, sizeof(uid->bytes));
    uid->bytes[0] = (uint8_t)(slot >> 8);
    uid->bytes[1] = (uint8_t)slot;
}

const struct job_row *pbed_job(const struct pbed *b, const char *id)
{
    const struct srow *s = pbed_by_id(b, id);
    return s ? &s->row : NULL;
}

size_t pbed_fires_count(const struct pbed *b)
{
    return b->fires_count;
}

struct job_row *pbed_store_put(struct pbed *b, struct job_spec *spec, int64_t due_ms)
{
    struct job_row row = {
        .rev = 1, .version = 1, .change_id = 1, .created_ms = due_ms - 1, .updated_ms = due_ms - 1};
    row.slot = (uint16_t)hashring_slot(spec->ns, spec->id, b->o.slots);
    pbed_make_uid(b, row.slot, &row.uid);
    memcpy(row.ns, spec->ns, sizeof(row.ns));
    memcpy(row.id, spec->id, sizeof(row.id));
    row.due_ms = due_ms;
    row.wake_ms = due_ms + job_jitter_ms(spec, &row.uid, due_ms);
    row.last_success_ms = row.failing_since_ms = row.last.due_ms = row.last.finished_ms = RECORD_NONE;
    return &pbed_add(b, &row, spec)->row;
}
