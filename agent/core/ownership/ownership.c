/* State and dispatch. A step hears one event (lease.c, verdict.c, slots.c, move.c), then does whatever is due. */
#include "agent/core/ownership/ownership_private.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/hashring.h"

/* --- memory of one step, actions ----------------------------------------------------------------------------------- */

static void *grown(void *items, size_t count, size_t *capacity, size_t size_bytes)
{
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 16;
    void *more = mem_alloc_or_die(*capacity, size_bytes);
    if (items)
        memcpy(more, items, count * size_bytes);
    mem_free(items);
    return more;
}

void *scratch(struct ownership *o, size_t n, size_t size_bytes)
{
    o->scratch = grown(o->scratch, o->scratch_count, &o->scratch_capacity, sizeof(*o->scratch));
    return o->scratch[o->scratch_count++] = mem_alloc_or_die(n ? n : 1, size_bytes);
}

static void scratch_clear(struct ownership *o)
{
    while (o->scratch_count > 0)
        mem_free(o->scratch[--o->scratch_count]);
}

struct ownership_action *act(struct ownership *o, enum ownership_action_kind kind, const struct member *m)
{
    struct ownership_actions *list = o->actions;
    list->items = grown(list->items, list->count, &list->capacity, sizeof(*list->items));
    struct ownership_action *a = &list->items[list->count++];
    *a = (struct ownership_action){.kind = kind};
    if (m) {
        /* A copy: members may be swept at the end of this very step. */
        char *id = scratch(o, 1, sizeof(m->id));
        memcpy(id, m->id, sizeof(m->id));
        a->member = id;
    }
    return a;
}

void say(struct ownership *o, const char *fmt, ...)
{
    char *text = scratch(o, 1, 256);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, 256, fmt, args); /* cut when longer */
    va_end(args);
    act(o, OWNERSHIP_DO_LOG, NULL)->text = text;
}

void gather_add(struct ownership *o, struct gather *g, uint16_t slot, uint64_t epoch)
{
    if (!g->slots) {
        g->slots = scratch(o, o->options.slots, sizeof(*g->slots));
        g->epochs = scratch(o, o->options.slots, sizeof(*g->epochs));
    }
    assert(g->count < o->options.slots);
    g->slots[g->count] = slot;
    g->epochs[g->count++] = epoch;
}

void gather_act(struct ownership *o, enum ownership_action_kind kind, const struct gather *g,
                const struct member *m)
{
    if (g->count == 0)
        return;
    struct ownership_action *a = act(o, kind, m);
    a->slots = g->slots;
    a->epochs = g->epochs;
    a->slots_count = g->count;
}

/* --- members and slots --------------------------------------------------------------------------------------------- */

struct member *member_find(const struct ownership *o, const char *id)
{
    uint64_t hash = XXH3_64bits(id, strlen(id));
    for (size_t i = 0; i < o->members_count; i++)
        if (o->members[i]->hash == hash && strcmp(o->members[i]->id, id) == 0)
            return o->members[i];
    return NULL;
}

struct member *member_add(struct ownership *o, const char *id)
{
    struct member *m = mem_new(struct member);
    (void)snprintf(m->id, sizeof(m->id), "%s", id); /* the store's column is no longer */
    m->hash = XXH3_64bits(m->id, strlen(m->id));
    m->as_of = o->issued;
    m->witnessed_ms = NEVER;
    m->chunk.retry_ms = NEVER;
    o->members = grown(o->members, o->members_count, &o->members_capacity, sizeof(struct member *));
    o->members[o->members_count++] = m;
    return m;
}

void member_point(struct member **at, struct member *m)
{
    if (m)
        m->refs++;
    if (*at)
        (*at)->refs--;
    *at = m;
}

bool slot_mine(const struct slot *s)
{
    return s->state == SLOT_HELD || s->state == SLOT_OFFERED;
}

/* Moving counts as owned: it is ours until the batch is durable. */
static bool counts_owned(enum slot_state state)
{
    return state == SLOT_HELD || state == SLOT_OFFERED || state == SLOT_MOVING;
}

static bool counts_moving(enum slot_state state)
{
    return state == SLOT_OFFERED || state == SLOT_MOVING;
}

static const bool legal[SLOT_STATE_COUNT_][SLOT_STATE_COUNT_] = {
    [SLOT_NONE] = {[SLOT_HELD] = true, [SLOT_CHANGING] = true},
    [SLOT_HELD] = {[SLOT_NONE] = true, [SLOT_OFFERED] = true},
    [SLOT_OFFERED] = {[SLOT_NONE] = true, [SLOT_HELD] = true, [SLOT_MOVING] = true},
    [SLOT_MOVING] = {[SLOT_NONE] = true},
    [SLOT_CHANGING] = {[SLOT_NONE] = true, [SLOT_HELD] = true},
};

void slot_move(struct ownership *o, struct slot *s, enum slot_state next)
{
    assert(legal[s->state][next]);
    o->view.owned += counts_owned(next);
    o->view.owned -= counts_owned(s->state);
    o->view.moving += counts_moving(next);
    o->view.moving -= counts_moving(s->state);
    s->state = next;
    if (!counts_moving(next))
        member_point(&s->to, NULL);
}

/* From now on only answers to what is asked later are heard about S. */
void slot_know(struct ownership *o, struct slot *s, struct member *owner, uint64_t epoch)
{
    member_point(&s->owner, owner);
    s->epoch = epoch;
    s->as_of = o->issued;
    s->orphan_ms = NEVER;
    o->change_no = o->issued;
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static int check_options(const struct ownership_options *options, struct err *e)
{
    size_t len = strnlen(options->member, RECORD_MEMBER_MAX);
    if (len == 0 || len == RECORD_MEMBER_MAX)
        return err_set(e, ERR_INVALID, "ownership: member id of %zu bytes (1 to %d allowed)", len,
                       RECORD_MEMBER_MAX - 1);
    if (options->slots == 0 || options->slots > HASHRING_SLOTS_MAX)
        return err_set(e, ERR_INVALID, "ownership: %u slots (1 to %u allowed)", options->slots,
                       HASHRING_SLOTS_MAX);
    if (options->move_slots_max == 0 || options->move_slots_max > HASHRING_SLOTS_MAX)
        return err_set(e, ERR_INVALID, "ownership: %zu slots a move (1 to %u allowed)",
                       options->move_slots_max, HASHRING_SLOTS_MAX);
    return 0;
}

int ownership_new(const struct ownership_options *options, int64_t now_ms, struct ownership **ret,
                  struct err *e)
{
    int rc = check_options(options, e);
    if (rc < 0)
        return rc;
    struct ownership *o = mem_new(struct ownership);
    o->slots = mem_try_array(options->slots, sizeof(*o->slots), e);
    o->changes = mem_try_array(OWNERSHIP_CHANGES_MAX, sizeof(*o->changes), e);
    if (!o->slots || !o->changes) {
        ownership_free(o);
        return -ERR_NOMEM;
    }
    for (uint32_t i = 0; i < options->slots; i++)
        o->slots[i].orphan_ms = NEVER;
    o->options = *options;
    o->me = member_add(o, options->member);
    o->me->state = MEMBER_ALIVE;
    o->options.member = o->me->id;
    rng_init(&o->rng, options->seed);
    o->now_ms = now_ms;
    o->beat_ms = now_ms;
    o->read_ms = INT64_MAX; /* the first beat's ring asks for it */
    o->moves_ms = INT64_MAX;
    o->last_read_ms = o->verdict_ms = o->agreed_ms = o->agreed_until_ms = NEVER;
    *ret = o;
    return 0;
}

void ownership_free(struct ownership *o)
{
    if (!o)
        return;
    scratch_clear(o);
    for (size_t i = 0; i < o->members_count; i++) {
        mem_free(o->members[i]->chunk.slots);
        mem_free(o->members[i]);
    }
    mem_free(o->members);
    mem_free(o->scratch);
    mem_free(o->consul);
    mem_free(o->changes);
    mem_free(o->slots);
    mem_free(o);
}

static void hear(struct ownership *o, const struct ownership_event *ev)
{
    static void (*const handlers[OWNERSHIP_EVENT_COUNT_])(struct ownership *,
                                                          const struct ownership_event *) = {
        [OWNERSHIP_BEAT] = lease_beat,
        [OWNERSHIP_CONSUL] = verdict_consul,
        [OWNERSHIP_PEER_REFUSED] = verdict_refused,
        [OWNERSHIP_PEER_UP] = verdict_up,
        [OWNERSHIP_LOOK] = verdict_look,
        [OWNERSHIP_LOOKED] = verdict_looked,
        [OWNERSHIP_PROBED] = verdict_probed,
        [OWNERSHIP_DECLARED] = verdict_declared,
        [OWNERSHIP_TOLD_DEAD] = verdict_told,
        [OWNERSHIP_SLOTS_ALL] = slots_all,
        [OWNERSHIP_CHANGED] = slots_changed,
        [OWNERSHIP_OFFERED] = move_offered,
        [OWNERSHIP_AGREED] = move_agreed,
        [OWNERSHIP_MOVED] = move_moved,
        [OWNERSHIP_GIVEN] = slots_given,
    };
    if (ev->kind == OWNERSHIP_LEAVE)
        move_leave(o);
    else if (handlers[ev->kind])
        handlers[ev->kind](o, ev);
}

void ownership_step(struct ownership *o, const struct ownership_event *event,
                    struct ownership_actions *actions)
{
    assert(event->kind < OWNERSHIP_EVENT_COUNT_);
    scratch_clear(o);
    o->actions = actions;
    if (event->now_ms > o->now_ms)
        o->now_ms = event->now_ms;
    if (!o->rejoining)
        hear(o, event);
    if (!o->rejoining) {
        slots_run(o);
        move_run(o);
        lease_run(o);
    }
    o->view.rejoining = o->rejoining;
    o->actions = NULL;
}

static void earlier(int64_t *at_ms, int64_t ms)
{
    if (ms < *at_ms)
        *at_ms = ms;
}

int64_t ownership_next_ms(const struct ownership *o)
{
    int64_t next_ms = INT64_MAX;
    if (o->rejoining)
        return next_ms;
    if (!o->beat_no)
        earlier(&next_ms, o->want_beat ? o->now_ms : o->beat_ms);
    if (!o->read_no)
        earlier(&next_ms, o->want_read ? o->now_ms : o->read_ms);
    if (o->lease_on)
        earlier(&next_ms, o->view.lease_until_ms);
    if (o->agreed_ms != NEVER)
        earlier(&next_ms, o->agreed_ms);
    earlier(&next_ms, move_next_ms(o));
    return next_ms;
}

const struct ownership_view *ownership_view(const struct ownership *o)
{
    return &o->view;
}

static void validate_slot(const struct ownership *o, const struct slot *s)
{
    if (slot_mine(s) || s->state == SLOT_MOVING)
        assert(s->owner == o->me && s->epoch > 0);
    if (s->state == SLOT_OFFERED)
        assert(s->to && s->to->chunk.state == CHUNK_OFFERED);
    if (s->state == SLOT_MOVING)
        assert(s->to && s->to->chunk.state == CHUNK_MOVING);
    assert(!s->ring || s->ring == o->me || s->ring->state != MEMBER_UNKNOWN);
}

void ownership_validate(const struct ownership *o)
{
    size_t refs = 0, pointing = 0, owned = 0, moving = 0, changing = 0;
    for (uint32_t i = 0; i < o->options.slots; i++) {
        const struct slot *s = &o->slots[i];
        validate_slot(o, s);
        owned += counts_owned(s->state);
        moving += counts_moving(s->state);
        changing += s->state == SLOT_CHANGING;
        pointing += (s->owner != NULL) + (size_t)(s->ring != NULL) + (size_t)(s->to != NULL);
    }
    for (size_t i = 0; i < LOOKS_MAX; i++)
        pointing += o->looks[i].member != NULL;
    for (size_t i = 0; i < o->members_count; i++)
        refs += o->members[i]->refs;
    assert(refs == pointing);
    assert(owned == o->view.owned && moving == o->view.moving);
    assert(changing == o->changes_count || o->rejoining);
}
