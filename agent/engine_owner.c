/* The ownership machine's actions carried out: beats and slots in the store, links to ring neighbours; and what it says about
 * slots passed on to the planner. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/clock_guard.h"
#include "agent/engine_private.h"
#include "agent/metrics.h"

#define LINK_RETRY_MS 1000

static const struct log_ctx log_here = {.module = "ownership"};

/* --- the store ----------------------------------------------------------------------------------------------------- */

static void keep_members(struct engine *g, const struct store_beat *beat)
{
    mem_free(g->members);
    g->members = mem_new_array(struct store_member, beat->members_count + 1);
    g->members_count = beat->members_count;
    memcpy(g->members, beat->members, beat->members_count * sizeof(*g->members));
}

/* What services may get a second is divided as jobs are, by weight. A member that has just come has no jobs yet, and one that is
 * dying sends no more: too little goes out meanwhile, not too much. */
static void share_rates(struct engine *g)
{
    uint64_t all = 0, mine = (uint64_t)g->o.config->agent.weight;
    for (size_t i = 0; i < g->members_count; i++)
        if (!g->members[i].dead && strcmp(g->members[i].id, g->member) != 0)
            all += g->members[i].weight;
    if (g->dispatch)
        dispatch_set_share(g->dispatch, (double)mine / (double)(all + mine));
}

/* A holder that no member row names (any more) is dead. It is judged by a beat that was sent after its fire was read: a member's
 * row is older than anything it holds. */
void engine_note_holder(struct engine *g, const char *holder)
{
    const struct store_member *m = engine_find_member(g, holder);
    if ((m && !m->dead) || g->strangers_count == ENGINE_STRANGERS_MAX)
        return;
    for (size_t i = 0; i < g->strangers_count; i++)
        if (strcmp(g->strangers[i], holder) == 0)
            return;
    memcpy(g->strangers[g->strangers_count++], holder, strlen(holder) + 1);
}

static void judge_strangers(struct engine *g)
{
    size_t count = g->strangers_before;
    for (size_t i = 0; i < count; i++) {
        const struct store_member *m = engine_find_member(g, g->strangers[i]);
        struct planner_event event = {.kind = PLANNER_MEMBER_DEAD, .member = g->strangers[i]};
        if (!m || m->dead)
            engine_plan(g, &event);
    }
    g->strangers_count -= count;
    memmove(g->strangers, g->strangers + count, g->strangers_count * sizeof(g->strangers[0]));
    g->strangers_before = 0;
}

/* A row that shows our own listen address is of a process that is gone: we hold its port. Without one there is no such proof. */
static bool is_namesake(const struct engine *g, const struct store_member *me, const struct store_member *m)
{
    return me && g->o.peer_port > 0 && !m->dead && strcmp(m->id, me->id) != 0 &&
           strcmp(m->address, me->address) == 0;
}

static void feed_beat(struct engine *g, const struct store_beat *beat)
{
    struct ownership_member *members = mem_new_array(struct ownership_member, beat->members_count + 1);
    struct ownership_slot *slots = mem_new_array(struct ownership_slot, beat->slots_count + 1);
    const struct store_member *me = engine_find_member(g, g->member);
    for (size_t i = 0; i < beat->members_count; i++) {
        const struct store_member *from = &beat->members[i];
        members[i] = (struct ownership_member){
            .beat = from->beat, .weight = from->weight, .dead = from->dead, .here = is_namesake(g, me, from)};
        memcpy(members[i].id, from->id, sizeof(members[i].id));
    }
    for (size_t i = 0; i < beat->slots_count; i++) {
        slots[i] = (struct ownership_slot){.slot = beat->slots[i].slot, .epoch = beat->slots[i].epoch};
        memcpy(slots[i].owner, beat->slots[i].owner, sizeof(slots[i].owner));
    }
    struct ownership_event event = {.kind = OWNERSHIP_BEAT,
                                    .ok = true,
                                    .alive = beat->alive,
                                    .sent_ms = beat->sent_boot_ms,
                                    .members = members,
                                    .members_count = beat->members_count,
                                    .slots = slots,
                                    .slots_count = beat->slots_count};
    engine_own(g, &event);
    mem_free(members);
    mem_free(slots);
}

static void on_beat(void *arg, const struct err *e, const struct store_beat *beat)
{
    struct engine *g = arg;
    g->store_calls--;
    if (e->code != ERR_OK) {
        struct ownership_event event = {.kind = OWNERSHIP_BEAT};
        if (e->code != ERR_CANCELLED)
            log_warn(&log_here, "beat failed", "error=%s", LOGQ(e->text));
        engine_count_store(g, "beat", g->beat_sent_us, e);
        engine_own(g, &event);
        return;
    }
    engine_count_store(g, "beat", g->beat_sent_us, e);
    if (beat->store_now_ms != RECORD_NONE)
        clock_guard_compare(g->o.clock, beat->store_now_ms, beat->sent_boot_ms, beat->done_boot_ms);
    keep_members(g, beat);
    share_rates(g);
    judge_strangers(g);
    feed_beat(g, beat);
    if (!g->first_beat && beat->alive) {
        g->first_beat = true;
        g->o.joined(g->o.arg);
    }
}

static void on_declared(void *arg, const struct err *e, bool yes)
{
    struct engine_asked *a = arg;
    struct ownership_event event = {
        .kind = OWNERSHIP_DECLARED, .member = a->member, .ok = e->code == ERR_OK, .yes = yes};
    a->engine->store_calls--;
    if (event.ok && yes)
        log_warn(&log_here, "member declared dead", "member=%s", a->member);
    engine_own(a->engine, &event);
    mem_free(a);
}

static void on_slots(void *arg, const struct err *e, const struct store_slot *slots, size_t count)
{
    struct engine *g = arg;
    struct ownership_slot *list = mem_new_array(struct ownership_slot, count + 1);
    struct ownership_event event = {
        .kind = OWNERSHIP_SLOTS_ALL, .ok = e->code == ERR_OK, .slots = list, .slots_count = count};
    g->store_calls--;
    for (size_t i = 0; i < count; i++) {
        list[i] = (struct ownership_slot){.slot = slots[i].slot, .epoch = slots[i].epoch};
        memcpy(list[i].owner, slots[i].owner, sizeof(list[i].owner));
    }
    engine_own(g, &event);
    mem_free(list);
}

static void on_changed(void *arg, const struct err *e)
{
    struct engine *g = arg;
    struct ownership_event event = {.kind = OWNERSHIP_CHANGED, .ok = e->code == ERR_OK};
    g->store_calls--;
    engine_own(g, &event);
}

static void change_slots(struct engine *g, const struct ownership_action *action)
{
    g->store_calls++;
    g->o.store->slots_change(g->o.store_self, g->member, action->changes, action->changes_count, on_changed,
                             g);
}

/* --- links --------------------------------------------------------------------------------------------------------- */

static void on_link(void *arg, enum link_event ev)
{
    struct engine_link *l = arg;
    struct ownership_event event = {.member = l->member, .ok = true};
    if (ev == LINK_LOST)
        return; /* says nothing about the process; its lease will tell */
    if (ev == LINK_REFUSED && !l->was_up)
        return; /* nothing closed: its address is perhaps wrong, or cut off; killed for it, it would only come again */
    l->was_up = true;
    event.kind = ev == LINK_REFUSED ? OWNERSHIP_PEER_REFUSED : OWNERSHIP_PEER_UP;
    engine_own(l->engine, &event);
}

static void drop_link(struct engine_link *l)
{
    list_remove(&l->list);
    link_free(l->link);
    mem_free(l);
}

void engine_drop_links(struct engine *g)
{
    while (!list_empty(&g->links))
        drop_link(container_of(g->links.next, struct engine_link, list));
}

static bool named(const struct ownership_action *a, const char *member)
{
    for (size_t i = 0; i < a->members_count; i++)
        if (strcmp(a->members[i], member) == 0)
            return true;
    return false;
}

static bool linked(const struct engine *g, const char *member)
{
    for (const struct list *at = g->links.next; at != &g->links; at = at->next)
        if (strcmp(container_of(at, struct engine_link, list)->member, member) == 0)
            return true;
    return false;
}

static void keep_links(struct engine *g, const struct ownership_action *a)
{
    for (struct list *at = g->links.next, *next; at != &g->links; at = next) {
        struct engine_link *l = container_of(at, struct engine_link, list);
        next = at->next;
        if (!named(a, l->member))
            drop_link(l);
    }
    for (size_t i = 0; i < a->members_count; i++) {
        const char *address = engine_address(g, a->members[i]);
        if (linked(g, a->members[i]) || !address)
            continue;
        struct engine_link *l = mem_new(struct engine_link);
        l->engine = g;
        memcpy(l->member, a->members[i], strlen(a->members[i]) + 1);
        list_push_back(&g->links, &l->list);
        l->link = link_new(g->o.loop, address, LINK_RETRY_MS, on_link, l);
    }
}

/* --- slots --------------------------------------------------------------------------------------------------------- */

static void mark_slots(struct engine *g, const uint16_t *slots, size_t count, bool mine)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t bit = (uint64_t)1 << (slots[i] % 64);
        if (mine)
            atomic_fetch_or(&g->o.owned[slots[i] / 64], bit);
        else
            atomic_fetch_and(&g->o.owned[slots[i] / 64], ~bit);
    }
}

/* What is still ours by the store is not to be used any more: the process goes. */
void engine_disown(struct engine *g)
{
    for (size_t i = 0; i <= g->o.slots / 64; i++)
        atomic_store(&g->o.owned[i], 0);
}

static void tell_slots(struct engine *g, const struct ownership_action *a, const char *what, const char *to)
{
    char text[64 + RECORD_MEMBER_MAX];
    log_info(&log_here, what, "count=%zu%s%s", a->slots_count, to ? " to=" : "", to ? to : "");
    (void)snprintf(text, sizeof(text), "%s: %zu%s%s", what, a->slots_count, to ? ", to " : "",
                   to ? to : ""); /* fits */
    engine_tell_cluster(g, text);
}

static void pass_slots(struct engine *g, const struct ownership_action *a)
{
    struct planner_event event = {
        .slots = a->slots, .epochs = a->epochs, .slots_count = a->slots_count, .member = a->member};
    event.kind = a->kind == OWNERSHIP_DO_GAINED ? PLANNER_SLOTS_GAINED
                 : a->kind == OWNERSHIP_DO_LOST ? PLANNER_SLOTS_LOST
                                                : PLANNER_MOVE;
    mark_slots(g, a->slots, a->slots_count, a->kind == OWNERSHIP_DO_GAINED && !engine_over(g));
    if (event.kind == PLANNER_MOVE && g->handing_since_ms == 0)
        g->handing_since_ms = (int64_t)clock_boot_ms();
    engine_plan(g, &event);
    tell_slots(g, a,
               event.kind == PLANNER_SLOTS_GAINED ? "slots gained"
               : event.kind == PLANNER_MOVE       ? "slots move"
                                                  : "slots lost",
               event.kind == PLANNER_MOVE ? a->member : NULL);
}

static void pass_dead(struct engine *g, const char *member)
{
    struct planner_event event = {.kind = PLANNER_MEMBER_DEAD, .member = member};
    engine_plan(g, &event);
}

void engine_set_lease(struct engine *g, int64_t until_ms)
{
    g->lease_until_ms = until_ms;
    atomic_store(&g->gate.lease_until_ms, until_ms);
    engine_update_may_start(g);
}

struct engine_news *engine_add_news(struct engine *g, enum ownership_event_kind kind, const char *member)
{
    struct engine_news *news = mem_new(struct engine_news), **end = &g->news;
    news->kind = kind;
    (void)snprintf(news->member, sizeof(news->member), "%s", member); /* ids are shorter */
    while (*end)
        end = &(*end)->next;
    *end = news;
    engine_ask_turn(g);
    return news;
}

static void observe_handover(struct engine *g)
{
    if (g->handing_since_ms > 0)
        metrics_observe(g->o.metrics, METRIC_HANDOVER_DURATION, NULL, NULL,
                        (double)((int64_t)clock_boot_ms() - g->handing_since_ms) / 1000);
    g->handing_since_ms = 0;
}

/* Comes up inside a step of the planner, perhaps inside one of the ownership machine: told at the end of the turn. */
void engine_tell_moved(struct engine *g, const struct planner_action *action)
{
    struct engine_news *news = engine_add_news(g, OWNERSHIP_MOVED, action->member);
    news->ok = action->ok;
    news->slots = engine_slots_of(action->slots, action->epochs, action->slots_count);
    news->slots_count = action->slots_count;
    observe_handover(g);
}

/* The store's last word on this member: what waits with the lanes does not go out any more, and ownership need not be heard first. */
void engine_tell_fenced(struct engine *g)
{
    engine_set_lease(g, 0);
    (void)engine_add_news(g, OWNERSHIP_TOLD_DEAD, g->member);
}

static void news_free(struct engine_news *news)
{
    mem_free(news->slots);
    mem_free(news);
}

void engine_take_news(struct engine *g)
{
    while (g->news) {
        struct engine_news *news = g->news;
        struct ownership_event event = {.kind = news->kind,
                                        .member = news->member,
                                        .ok = news->ok,
                                        .slots = news->slots,
                                        .slots_count = news->slots_count};
        g->news = news->next;
        engine_own(g, &event);
        news_free(news);
    }
}

void engine_drop_news(struct engine *g)
{
    while (g->news) {
        struct engine_news *news = g->news;
        g->news = news->next;
        news_free(news);
    }
}

/* --- steps --------------------------------------------------------------------------------------------------------- */

void engine_rejoin(struct engine *g)
{
    if (g->left) { /* on the way out: our own marking of the row, or one that came before it */
        if (g->state != ENGINE_ENDING)
            g->state = ENGINE_DRAINING;
        engine_set_lease(g, 0);
        return;
    }
    log_error(&log_here, "declared dead, joining again as a new member", "member=%s", g->member);
    g->state = ENGINE_RETIRING;
    engine_set_lease(g, 0);
    engine_disown(g);
    g->o.rejoin(g->o.arg);
}

static void drain(struct engine *g)
{
    struct planner_event event = {.kind = PLANNER_DRAIN};
    if (g->state != ENGINE_LEAVING)
        return;
    g->state = ENGINE_DRAINING;
    engine_plan(g, &event);
}

static void ask_store(struct engine *g, const struct ownership_action *a)
{
    g->store_calls++;
    if (a->kind == OWNERSHIP_DO_BEAT) {
        g->strangers_before = g->strangers_count;
        g->beat_sent_us = (int64_t)clock_boot_us();
        g->o.store->beat(g->o.store_self, g->member, on_beat, g);
    } else if (a->kind == OWNERSHIP_DO_DECLARE) {
        struct engine_asked *asked = engine_asked_new(g, a->member, 0);
        g->o.store->declare_dead(g->o.store_self, asked->member, a->beat, on_declared, asked);
    } else {
        g->o.store->slots_read(g->o.store_self, on_slots, g);
    }
}

static void carry_out(struct engine *g, const struct ownership_action *a)
{
    switch (a->kind) {
    case OWNERSHIP_DO_BEAT:
    case OWNERSHIP_DO_DECLARE:
    case OWNERSHIP_DO_READ_SLOTS:
        ask_store(g, a);
        break;
    case OWNERSHIP_DO_CHANGE_SLOTS:
        change_slots(g, a);
        break;
    case OWNERSHIP_DO_PROBE:
        engine_probe(g, a->member);
        break;
    case OWNERSHIP_DO_ASK:
        engine_ask_witness(g, a);
        break;
    case OWNERSHIP_DO_LOOKED:
        engine_answer_looked(g, a);
        break;
    case OWNERSHIP_DO_TELL_DEAD:
        engine_tell_dead(g, a);
        break;
    case OWNERSHIP_DO_OFFER:
        engine_offer(g, a);
        break;
    case OWNERSHIP_DO_AGREE:
        engine_answer_agree(g, a);
        break;
    case OWNERSHIP_DO_GIVEN:
        engine_tell_given(g, a);
        break;
    case OWNERSHIP_DO_GAINED:
    case OWNERSHIP_DO_LOST:
    case OWNERSHIP_DO_MOVE:
        pass_slots(g, a);
        break;
    case OWNERSHIP_DO_LEASE:
        engine_set_lease(g, a->until_ms);
        break;
    case OWNERSHIP_DO_MEMBER_DEAD:
        pass_dead(g, a->member);
        break;
    case OWNERSHIP_DO_NEIGHBOURS:
        keep_links(g, a);
        break;
    case OWNERSHIP_DO_REJOIN:
        engine_rejoin(g);
        break;
    case OWNERSHIP_DO_LEFT:
        drain(g);
        break;
    case OWNERSHIP_DO_LOG:
        log_info(&log_here, "ownership", "text=%s", LOGQ(a->text));
        engine_tell_cluster(g, a->text);
        break;
    case OWNERSHIP_ACTION_COUNT_:
        break;
    }
}

void engine_own(struct engine *g, struct ownership_event *event)
{
    if (!g->ownership || engine_over(g)) {
        engine_ask_turn(g); /* it may be the last that the end was waiting for */
        return;
    }
    assert(!g->in_ownership);
    event->now_ms = (int64_t)clock_boot_ms();
    g->in_ownership = true;
    g->own.count = 0;
    ownership_step(g->ownership, event, &g->own);
    for (size_t i = 0; i < g->own.count; i++)
        carry_out(g, &g->own.items[i]);
    g->in_ownership = false;
    engine_ask_turn(g);
}

void engine_tick_owner(struct engine *g)
{
    if (g->ownership && !engine_over(g) && ownership_next_ms(g->ownership) <= (int64_t)clock_boot_ms()) {
        struct ownership_event event = {.kind = OWNERSHIP_TICK};
        engine_own(g, &event);
    }
}

void engine_consul_changed(void *arg, const struct membership_view *view)
{
    struct engine *g = arg;
    const char **listed = mem_new_array(const char *, view->count + 1);
    struct ownership_event event = {
        .kind = OWNERSHIP_CONSUL, .ok = true, .listed = listed, .key_held = view->key_held};
    for (size_t i = 0; i < view->count; i++)
        if (!view->members[i].leaving)
            listed[event.listed_count++] = view->members[i].id;
    engine_own(g, &event);
    mem_free(listed);
}
