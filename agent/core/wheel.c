#include "agent/core/wheel.h"

#include <assert.h>
#include <inttypes.h>

#include "agent/base/buf.h"
#include "agent/base/mem.h"

/* A level is one base-64 digit of the due. A timer lies at the highest digit in which its due differs from now_ms, in
 * the slot named by its own digit there. All timers of a lower level are therefore due before all of a higher one, and
 * within a level before those of later slots: the first used slot of the first used level is the next event, and slots
 * never wrap around. Eleven digits cover 64 bits. */
#define DIGIT_BITS 6
#define SLOTS      (1u << DIGIT_BITS)
#define LEVELS     11

struct wheel {
    uint64_t now_ms;      /* how far slots have been emptied: every timer in `slots` is due later than this */
    uint64_t seen_ms;     /* the latest now_ms of wheel_advance */
    uint64_t levels_used; /* bit = level has a used slot */
    uint64_t used[LEVELS]; /* bit = slot is not empty */
    struct list slots[LEVELS * SLOTS];
    struct list ready;  /* due, in firing order */
    struct list firing; /* chosen by the advance that is running */
    size_t count;
    bool advancing;
};

struct wheel *wheel_new(uint64_t now_ms)
{
    struct wheel *w = mem_new(struct wheel);
    w->now_ms = w->seen_ms = now_ms;
    for (unsigned i = 0; i < LEVELS * SLOTS; i++)
        list_init(&w->slots[i]);
    list_init(&w->ready);
    list_init(&w->firing);
    return w;
}

static void disarm_all(struct list *head)
{
    while (list_pop_front(head))
        ;
}

void wheel_free(struct wheel *w)
{
    if (!w)
        return;
    assert(!w->advancing);
    for (unsigned i = 0; i < LEVELS * SLOTS; i++)
        disarm_all(&w->slots[i]);
    disarm_all(&w->ready);
    mem_free(w);
}

void wheel_timer_init(struct wheel_timer *t, wheel_fire *fire, void *arg)
{
    list_init(&t->link_);
    t->due_ms_ = 0;
    t->fire_ = fire;
    t->arg_ = arg;
    t->slot_ = 0;
}

static unsigned level_of(uint64_t due_ms, uint64_t now_ms)
{
    return (63u - (unsigned)__builtin_clzll(due_ms ^ now_ms)) / DIGIT_BITS;
}

static void mark_used(struct wheel *w, unsigned slot)
{
    w->used[slot / SLOTS] |= UINT64_C(1) << slot % SLOTS;
    w->levels_used |= UINT64_C(1) << slot / SLOTS;
}

static void mark_empty(struct wheel *w, unsigned slot)
{
    w->used[slot / SLOTS] &= ~(UINT64_C(1) << slot % SLOTS);
    if (!w->used[slot / SLOTS])
        w->levels_used &= ~(UINT64_C(1) << slot / SLOTS);
}

/* T is in no list. */
static void place(struct wheel *w, struct wheel_timer *t)
{
    if (t->due_ms_ <= w->now_ms) {
        list_push_back(&w->ready, &t->link_);
        return;
    }
    unsigned level = level_of(t->due_ms_, w->now_ms);
    t->slot_ = level * SLOTS + (unsigned)(t->due_ms_ >> level * DIGIT_BITS) % SLOTS;
    list_push_back(&w->slots[t->slot_], &t->link_);
    mark_used(w, t->slot_);
}

void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t due_ms)
{
    wheel_cancel(w, t);
    t->due_ms_ = due_ms;
    place(w, t);
    w->count++;
}

void wheel_cancel(struct wheel *w, struct wheel_timer *t)
{
    if (!wheel_timer_armed(t))
        return;
    list_remove(&t->link_);
    w->count--;
    /* slot_ is where T was last placed. It may since have been moved on to `ready` with its whole slot; then this only
     * repeats what is marked already. */
    if (list_empty(&w->slots[t->slot_]))
        mark_empty(w, t->slot_);
}

/* The next slot that time reaches; false when all are empty. */
static bool first_slot(const struct wheel *w, unsigned *ret_slot, uint64_t *ret_start_ms)
{
    if (!w->levels_used)
        return false;
    unsigned level = (unsigned)__builtin_ctzll(w->levels_used);
    unsigned digit = (unsigned)__builtin_ctzll(w->used[level]);
    unsigned shift = level * DIGIT_BITS;
    uint64_t above = shift + DIGIT_BITS < 64 ? w->now_ms >> (shift + DIGIT_BITS) << (shift + DIGIT_BITS) : 0;
    *ret_slot = level * SLOTS + digit;
    *ret_start_ms = above | (uint64_t)digit << shift;
    return true;
}

/* Time has reached the start of SLOT: its timers go down to lower levels, or to `ready`. Order within equal dues holds,
 * because timers of equal due are always in the same list. */
static void empty_slot(struct wheel *w, unsigned slot)
{
    struct list moving;
    list_init(&moving);
    list_splice_back(&moving, &w->slots[slot]);
    mark_empty(w, slot);
    if (slot < SLOTS) { /* a slot of level 0 is a single millisecond, and that is now */
        list_splice_back(&w->ready, &moving);
        return;
    }
    for (struct list *l = list_pop_front(&moving); l; l = list_pop_front(&moving))
        place(w, container_of(l, struct wheel_timer, link_));
}

/* Move timers due at NOW_MS to `firing`, at most MAX of them; slots are emptied only as far as that needs. */
static void collect(struct wheel *w, uint64_t now_ms, size_t max)
{
    size_t n = 0;
    for (;;) {
        for (struct list *l; n < max && (l = list_pop_front(&w->ready)); n++)
            list_push_back(&w->firing, l);
        unsigned slot;
        uint64_t start_ms;
        if (n == max)
            return;
        if (!first_slot(w, &slot, &start_ms) || start_ms > now_ms)
            break;
        w->now_ms = start_ms;
        empty_slot(w, slot);
    }
    w->now_ms = now_ms;
}

size_t wheel_advance(struct wheel *w, uint64_t now_ms, size_t max_timers)
{
    assert(!w->advancing && max_timers > 0);
    if (now_ms > w->seen_ms)
        w->seen_ms = now_ms;
    w->advancing = true;
    collect(w, w->seen_ms, max_timers);
    size_t fired = 0;
    for (struct list *l; (l = list_pop_front(&w->firing)); fired++) {
        struct wheel_timer *t = container_of(l, struct wheel_timer, link_);
        w->count--;
        t->fire_(t, t->arg_);
    }
    w->advancing = false;
    return fired;
}

uint64_t wheel_next_ms(const struct wheel *w)
{
    unsigned slot;
    uint64_t start_ms;
    if (!list_empty(&w->ready) || !list_empty(&w->firing))
        return w->now_ms;
    return first_slot(w, &slot, &start_ms) ? start_ms : WHEEL_NEVER;
}

size_t wheel_count(const struct wheel *w)
{
    return w->count;
}

static size_t validate_slot(const struct wheel *w, unsigned slot)
{
    size_t n = 0;
    unsigned level = slot / SLOTS;
    assert(list_empty(&w->slots[slot]) == !(w->used[level] >> slot % SLOTS & 1));
    for (const struct list *l = w->slots[slot].next; l != &w->slots[slot]; l = l->next, n++) {
        const struct wheel_timer *t = container_of(l, struct wheel_timer, link_);
        assert(l->next->prev == l);
        assert(t->slot_ == slot);
        assert(t->due_ms_ > w->now_ms);
        assert(level_of(t->due_ms_, w->now_ms) == level);
        assert((t->due_ms_ >> level * DIGIT_BITS) % SLOTS == slot % SLOTS);
    }
    return n;
}

static size_t validate_due(const struct wheel *w, const struct list *head)
{
    size_t n = 0;
    for (const struct list *l = head->next; l != head; l = l->next, n++) {
        assert(l->next->prev == l);
        assert(container_of(l, struct wheel_timer, link_)->due_ms_ <= w->now_ms);
    }
    return n;
}

void wheel_validate(const struct wheel *w)
{
    assert(w->now_ms <= w->seen_ms);
    size_t n = validate_due(w, &w->ready) + validate_due(w, &w->firing);
    for (unsigned slot = 0; slot < LEVELS * SLOTS; slot++)
        n += validate_slot(w, slot);
    for (unsigned level = 0; level < LEVELS; level++)
        assert((w->used[level] != 0) == (w->levels_used >> level & 1));
    assert(n == w->count);
    assert(w->advancing || list_empty(&w->firing));
}

void wheel_dump(const struct wheel *w, struct buf *out)
{
    buf_addf(out, "now=%" PRIu64 " seen=%" PRIu64 " timers=%zu ready=%zu\n", w->now_ms, w->seen_ms, w->count,
             list_length(&w->ready));
    for (unsigned slot = 0; slot < LEVELS * SLOTS; slot++) {
        if (list_empty(&w->slots[slot]))
            continue;
        const struct wheel_timer *t = container_of(w->slots[slot].next, struct wheel_timer, link_);
        buf_addf(out, "level=%u slot=%u timers=%zu first_due=%" PRIu64 "\n", slot / SLOTS, slot % SLOTS,
                 list_length(&w->slots[slot]), t->due_ms_);
    }
}
