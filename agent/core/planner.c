#include "agent/core/planner.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

/* --- small tools of all files ---------------------------------------------------------------------------------------- */

/* ITEMS, which hold COUNT, with room for CAPACITY; a few hundred entries at most, so as mem_new. */
static void *grown(void *items, size_t count, size_t capacity, size_t size_bytes)
{
    void *more = mem_alloc_or_die(capacity, size_bytes);
    if (count > 0)
        memcpy(more, items, count * size_bytes);
    mem_free(items);
    return more;
}

struct planner_action *planner_act(struct planner *p, enum planner_action_kind kind)
{
    struct planner_actions *a = p->actions;
    if (a->count == a->capacity) {
        a->capacity = a->capacity ? a->capacity * 2 : 64;
        a->items = grown(a->items, a->count, a->capacity, sizeof(*a->items));
    }
    struct planner_action *action = &a->items[a->count++];
    memset(action, 0, sizeof(*action));
    action->kind = kind;
    return action;
}

void planner_trash(struct planner *p, void (*fn)(void *), void *ptr)
{
    if (p->trash_count == p->trash_capacity) {
        p->trash_capacity = p->trash_capacity ? p->trash_capacity * 2 : 256;
        p->trash = grown(p->trash, p->trash_count, p->trash_capacity, sizeof(*p->trash));
    }
    p->trash[p->trash_count++] = (struct ptrash){.free = fn, .ptr = ptr};
}

static void empty_trash(struct planner *p)
{
    for (size_t i = 0; i < p->trash_count; i++)
        p->trash[i].free(p->trash[i].ptr);
    p->trash_count = 0;
}

void planner_log(struct planner *p, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    char *copy = mem_strdup(text);
    planner_trash(p, mem_free, copy);
    planner_act(p, PLANNER_DO_LOG)->text = copy;
}

void planner_wake_owner(struct planner *p, uint16_t slot)
{
    uint16_t *copy = mem_new(uint16_t);
    *copy = slot;
    planner_trash(p, mem_free, copy);
    struct planner_action *a = planner_act(p, PLANNER_DO_WAKE);
    a->slots = copy;
    a->slots_count = 1;
}

int64_t planner_add_ms(int64_t a_ms, int64_t b_ms)
{
    int64_t sum;
    return __builtin_add_overflow(a_ms, b_ms, &sum) ? INT64_MAX : sum;
}

static uint64_t wheel_time(int64_t ms)
{
    return ms > 0 ? (uint64_t)ms : 0;
}

void planner_arm(struct planner *p, struct wheel_timer *t, int64_t at_ms)
{
    if (at_ms == PLANNER_NEVER)
        wheel_cancel(p->wheel, t);
    else
        wheel_arm(p->wheel, t, wheel_time(at_ms));
}

/* --- starting -------------------------------------------------------------------------------------------------------- */

bool planner_stalled(const struct planner *p)
{
    return p->stats.unwritten > 0 && p->now_ms - p->written_ms > p->options.unwritten_stall_ms;
}

bool planner_starts_allowed(const struct planner *p)
{
    return p->may_start && !p->draining && !p->fenced && p->stats.unwritten <= p->options.unwritten_max &&
           !planner_stalled(p);
}

void planner_start_later(struct planner *p, struct pstart *s, int64_t since_ms)
{
    assert(!list_linked(&s->link));
    s->since_ms = since_ms;
    s->paced = false;
    list_push_back(&p->ready, &s->link);
    p->ready_count++;
}

static struct ptarget *start_target(const struct pstart *s)
{
    return s->is_fire ? container_of(s, struct pfire, start)->target
                      : container_of(s, struct pjob, start)->target;
}

/* In which of the two lists it is shows in what its target has. */
void planner_start_cancel(struct planner *p, struct pstart *s)
{
    if (!list_linked(&s->link))
        return;
    list_remove(&s->link);
    if (s->waits)
        p->paced_count--;
    else
        p->ready_count--;
    s->waits = false;
}

/* Catch-up is paced: an overdue start without a token goes to the end of its target's line. So does every start while as many of
 * its target's are out as may be: what the callee cannot take waits here, one start a job, not with those who deliver. */
static bool must_wait(struct planner *p, struct pstart *s)
{
    struct ptarget *t = start_target(s);
    if (s->paced || !t)
        return false;
    if (!ptarget_full(p, t)) {
        bool late = s->released || p->now_ms - s->since_ms >= PLANNER_OVERDUE_MS;
        if (!late || (list_empty(&t->paced) && ptarget_token(p, t)))
            return false;
    }
    ptarget_enter_line(p, t, s);
    return true;
}

static void start_ready(struct planner *p)
{
    for (int n = 0; n < PLANNER_STARTS_PER_STEP && !list_empty(&p->ready) && planner_starts_allowed(p); n++) {
        struct pstart *s = container_of(list_pop_front(&p->ready), struct pstart, link);
        p->ready_count--;
        if (must_wait(p, s))
            continue;
        s->released = false;
        if (s->is_fire)
            pfire_start(p, container_of(s, struct pfire, start));
        else
            pjob_start(p, container_of(s, struct pjob, start));
    }
}

/* --- timers ---------------------------------------------------------------------------------------------------------- */

static void on_window(struct wheel_timer *t, void *arg)
{
    (void)t;
    planner_load_window(arg);
}

static void on_foreign(struct wheel_timer *t, void *arg)
{
    struct planner *p = arg;
    if (list_empty(&p->foreign))
        return;
    planner_load_foreign(p);
    planner_arm(p, t, p->now_ms + PLANNER_FOREIGN_MS);
}

static void on_spill(struct wheel_timer *t, void *arg)
{
    (void)t;
    planner_load_spilled(arg);
}

static void on_batch(struct wheel_timer *t, void *arg)
{
    (void)t; /* that the time has come is all */
    (void)arg;
}

static void move_timer(struct planner *p, struct wheel *to, struct wheel_timer *t)
{
    if (!wheel_timer_armed(t))
        return;
    uint64_t due_ms = wheel_timer_due_ms(t);
    wheel_cancel(p->wheel, t);
    wheel_arm(to, t, due_ms);
}

/* What only makes a pause counts from a moment that comes again: it is over. */
static void end_pause(struct planner *p, struct wheel_timer *t)
{
    if (wheel_timer_armed(t))
        planner_arm(p, t, p->now_ms);
}

static void end_pauses_of_job(struct planner *p, struct pjob *j)
{
    j->not_before_ms = j->fires_asked_ms = j->queue_look_ms = 0;
    if (j->state == PJOB_READING)
        end_pause(p, &j->timer);
    if (pjob_active(j))
        pjob_arm_fires(p, j);
    pjob_arm(p, j);
}

static void end_pauses(struct planner *p)
{
    for (uint32_t i = 0; i < p->options.slots; i++)
        LIST_FOR (l, &p->slots[i].jobs)
            end_pauses_of_job(p, container_of(l, struct pjob, slot_link));
    for (struct map_iter it = {0}; map_next(&p->targets, &it);)
        end_pause(p, &((struct ptarget *)it.value)->timer);
    LIST_FOR (l, &p->chains)
        end_pause(p, &container_of(l, struct pchain, link)->retry);
    end_pause(p, &p->foreign_timer);
    end_pause(p, &p->spill_timer);
    end_pause(p, &p->zones_timer);
    end_pause(p, &p->parked_timer);
    end_pause(p, &p->batch_timer);
    p->batch_again_ms = p->now_ms;
    if (p->written_ms > p->now_ms)
        p->written_ms = p->now_ms;
}

/* The clock was set back: timers of the time that comes again would all be due at once. Rare, so all are moved in one go. */
static void rebuild_wheel(struct planner *p)
{
    struct wheel *w = wheel_new(wheel_time(p->now_ms));
    for (uint32_t i = 0; i < p->options.slots; i++)
        LIST_FOR (l, &p->slots[i].jobs) {
            struct pjob *j = container_of(l, struct pjob, slot_link);
            move_timer(p, w, &j->timer);
            LIST_FOR (k, &j->fires)
                move_timer(p, w, &container_of(k, struct pfire, job_link)->timer);
        }
    for (struct map_iter it = {0}; map_next(&p->targets, &it);)
        move_timer(p, w, &((struct ptarget *)it.value)->timer);
    LIST_FOR (l, &p->chains)
        move_timer(p, w, &container_of(l, struct pchain, link)->retry);
    move_timer(p, w, &p->window_timer);
    move_timer(p, w, &p->foreign_timer);
    move_timer(p, w, &p->spill_timer);
    move_timer(p, w, &p->batch_timer);
    move_timer(p, w, &p->zones_timer);
    move_timer(p, w, &p->parked_timer);
    wheel_free(p->wheel);
    p->wheel = w;
    p->wheel_ms = p->now_ms;
    end_pauses(p);
}

/* A clock that lags a little is waited for; never early is the rule. */
static void turn(struct planner *p)
{
    if (p->now_ms < p->wheel_ms - 1000)
        rebuild_wheel(p);
    if (p->now_ms >= p->wheel_ms) {
        p->wheel_ms = p->now_ms;
        (void)wheel_advance(p->wheel, wheel_time(p->now_ms), PLANNER_TIMERS_PER_STEP);
    }
    start_ready(p);
}

int64_t planner_next_ms(const struct planner *p)
{
    if (!list_empty(&p->ready) && planner_starts_allowed(p))
        return p->now_ms;
    uint64_t next_ms = wheel_next_ms(p->wheel);
    return next_ms > INT64_MAX ? INT64_MAX : (int64_t)next_ms;
}

/* --- events ---------------------------------------------------------------------------------------------------------- */

static void on_wake(struct planner *p, const struct planner_event *event)
{
    uint16_t *slots = mem_new_array(uint16_t, event->slots_count ? event->slots_count : 1);
    size_t n = 0;
    for (size_t i = 0; i < event->slots_count; i++)
        if (p->slots[event->slots[i]].state != PSLOT_NONE)
            slots[n++] = event->slots[i];
    planner_load_near(p, slots, n);
    for (size_t i = 0; i < n; i++)
        papi_try_parked(p, &p->slots[slots[i]]);
    mem_free(slots);
}

static void dispatch(struct planner *p, const struct planner_event *event)
{
    switch (event->kind) {
    case PLANNER_TICK:
        break;
    case PLANNER_SLOTS_GAINED:
        planner_on_slots_gained(p, event->slots, event->epochs, event->slots_count);
        break;
    case PLANNER_SLOTS_LOST:
        planner_on_slots_lost(p, event->slots, event->slots_count);
        break;
    case PLANNER_MOVE:
        planner_on_move(p, event);
        break;
    case PLANNER_LEASE:
        p->may_start = event->may_start;
        p->lease_held = event->lease_held;
        break;
    case PLANNER_JOBS:
        planner_on_jobs(p, event);
        break;
    case PLANNER_FIRES:
        planner_on_fires(p, event);
        break;
    case PLANNER_ATTEMPT:
        planner_on_attempt(p, event);
        break;
    case PLANNER_PART:
        planner_on_part(p, event);
        break;
    case PLANNER_BATCH_DONE:
        planner_on_batch_done(p, event->batch, event->code);
        break;
    case PLANNER_API:
        planner_on_api(p, event->api);
        break;
    case PLANNER_CHANGE_FOUND:
        planner_on_change_found(p, event);
        break;
    case PLANNER_MEMBER_DEAD:
        planner_on_member_dead(p, event->member);
        break;
    case PLANNER_WAKE:
        on_wake(p, event);
        break;
    case PLANNER_RELEASE:
        planner_on_release(p, event->service);
        break;
    case PLANNER_DRAIN:
        p->draining = true;
        break;
    }
}

void planner_step(struct planner *p, const struct planner_event *event, struct planner_actions *actions)
{
    empty_trash(p);
    p->actions = actions;
    p->now_ms = event->now_ms;
    dispatch(p, event);
    turn(p);
    p->actions = NULL;
}

/* --- looking in ------------------------------------------------------------------------------------------------------ */

const struct planner_stats *planner_stats(const struct planner *p)
{
    struct planner_stats *s = (struct planner_stats *)&p->stats; /* filled when looked at */
    s->waiting_start = p->ready_count + p->paced_count;
    s->horizon_ms = p->span_ms;
    s->oldest_overdue_ms = RECORD_NONE;
    if (!list_empty(&p->ready))
        s->oldest_overdue_ms = container_of(p->ready.next, struct pstart, link)->since_ms;
    LIST_FOR (l, &p->paced) {
        const struct ptarget *t = container_of(l, struct ptarget, paced_link);
        if (list_empty(&t->paced))
            continue;
        int64_t since_ms = container_of(t->paced.next, struct pstart, link)->since_ms;
        if (s->oldest_overdue_ms == RECORD_NONE || since_ms < s->oldest_overdue_ms)
            s->oldest_overdue_ms = since_ms;
    }
    return s;
}

void planner_set_out_max(struct planner *p, size_t out_max)
{
    p->options.out_max = out_max;
}

bool planner_owns(const struct planner *p, uint16_t slot)
{
    return slot < p->options.slots && p->slots[slot].state == PSLOT_HELD && p->slots[slot].loading == 0;
}

uint64_t planner_epoch(const struct planner *p, uint16_t slot)
{
    return slot < p->options.slots ? p->slots[slot].epoch : 0;
}

/* --- life ------------------------------------------------------------------------------------------------------------ */

static void init_lists(struct planner *p)
{
    list_init(&p->tomb_list);
    list_init(&p->chains);
    list_init(&p->gets_waiting);
    list_init(&p->ready);
    list_init(&p->paced);
    list_init(&p->dirty);
    list_init(&p->dirty_moving);
    list_init(&p->foreign);
    list_init(&p->orphans);
    list_init(&p->moves);
    for (uint32_t i = 0; i < p->options.slots; i++) {
        list_init(&p->slots[i].jobs);
        p->slots[i].parked_tail = &p->slots[i].parked;
    }
}

static void init_maps(struct planner *p)
{
    uint64_t seed = rng_u64(&p->rng);
    map_init(&p->uids, seed);
    map_u64_init(&p->keys, seed);
    map_u64_init(&p->reads, seed);
    map_init(&p->targets, seed);
    map_init(&p->tombs, seed);
    wheel_timer_init(&p->window_timer, on_window, p);
    wheel_timer_init(&p->foreign_timer, on_foreign, p);
    wheel_timer_init(&p->spill_timer, on_spill, p);
    wheel_timer_init(&p->batch_timer, on_batch, p);
    wheel_timer_init(&p->zones_timer, pzones_timer, p);
    wheel_timer_init(&p->parked_timer, papi_parked_timer, p);
}

int planner_new(const struct planner_options *options, struct planner **ret, struct err *e)
{
    if (options->slots == 0 || options->slots > UINT16_MAX + 1u || options->horizon_ms <= 0 ||
        options->load_page == 0 || options->catch_up_per_s == 0 ||
        strlen(options->member) >= RECORD_MEMBER_MAX)
        return err_set(e, ERR_INVALID, "planner: options out of range");
    struct planner *p = mem_try_alloc(sizeof(*p), e);
    if (!p)
        return -ERR_NOMEM;
    p->slots = mem_try_array(options->slots, sizeof(*p->slots), e);
    if (!p->slots) {
        mem_free(p);
        return -ERR_NOMEM;
    }
    p->options = *options;
    strncpy(p->member, options->member, sizeof(p->member) - 1);
    strncpy(p->tzdata, options->tzdata ? options->tzdata : "", sizeof(p->tzdata) - 1);
    p->options.member = p->member;
    p->options.tzdata = p->tzdata;
    p->span_ms = options->horizon_ms;
    assert(options->batches_max <= PLANNER_BATCHES_MAX);
    rng_init(&p->rng, options->seed);
    p->wheel = wheel_new(0);
    init_lists(p);
    init_maps(p);
    *ret = p;
    return 0;
}

static void free_jobs(struct planner *p, struct list *jobs)
{
    while (!list_empty(jobs)) {
        struct pjob *j = container_of(list_first(jobs), struct pjob, slot_link);
        assert(j->api_count == 0 && "an API write is out");
        j->op = CHANGE_NONE;
        j->fires_dirty = j->in_batch = false;
        LIST_FOR_SAFE(l, &j->fires)
        {
            struct pfire *f = container_of(l, struct pfire, job_link);
            assert(!f->in_flight && "a delivery is out");
            f->in_batch = false;
            pfire_drop(p, f);
        }
        pjob_gone(p, j);
    }
}

void planner_free(struct planner *p)
{
    if (!p)
        return;
    assert(!planner_batch_is_out(p) && "a batch is out");
    planner_batch_fini(p);
    for (uint32_t i = 0; i < p->options.slots; i++)
        free_jobs(p, &p->slots[i].jobs);
    free_jobs(p, &p->orphans);
    while (!list_empty(&p->chains))
        pchain_free(p, container_of(list_first(&p->chains), struct pchain, link));
    while (!list_empty(&p->moves))
        pmove_free(container_of(list_first(&p->moves), struct pmove, link));
    for (struct map_u64_iter it = {0}; map_u64_next(&p->reads, &it);)
        mem_free(it.value);
    map_u64_fini(&p->reads);
    empty_trash(p);
    planner_targets_fini(p);
    planner_tombs_fini(p);
    map_fini(&p->uids);
    map_u64_fini(&p->keys);
    wheel_free(p->wheel);
    mem_free(p->trash);
    mem_free(p->slots);
    mem_free(p);
}
