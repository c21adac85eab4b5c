#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/base/buf.h"
#include "agent/core/wheel.h"
#include "tests/lib/seed.h"

#define ALL SIZE_MAX

/* A timer that writes its number down when it fires. */
struct item {
    struct wheel_timer timer;
    int number;
};

static int fired[64];
static size_t fired_count;

static void record(struct wheel_timer *t, void *arg)
{
    (void)arg;
    if (fired_count < 64)
        fired[fired_count] = container_of(t, struct item, timer)->number;
    fired_count++;
}

static void item_init(struct item *it, int number)
{
    wheel_timer_init(&it->timer, record, NULL);
    it->number = number;
}

Test(wheel, past_due_fires_on_next_advance)
{
    struct wheel *w = wheel_new(1000);
    struct item it;
    item_init(&it, 1);
    wheel_arm(w, &it.timer, 10);
    cr_assert(eq(u64, wheel_next_ms(w), 1000));
    cr_assert(eq(sz, wheel_advance(w, 1000, ALL), 1));
    cr_assert(not(wheel_timer_armed(&it.timer)));
    wheel_free(w);
}

Test(wheel, never_fires_early)
{
    struct wheel *w = wheel_new(0);
    struct item it;
    item_init(&it, 1);
    wheel_arm(w, &it.timer, 100000);
    cr_assert(eq(sz, wheel_advance(w, 99999, ALL), 0));
    wheel_validate(w);
    cr_assert(eq(sz, wheel_advance(w, 100000, ALL), 1));
    wheel_free(w);
}

Test(wheel, same_ms_fires_in_the_order_of_arming_across_levels)
{
    struct wheel *w = wheel_new(0);
    struct item it[3];
    for (int i = 0; i < 3; i++)
        item_init(&it[i], i);
    wheel_arm(w, &it[0].timer, 70000);
    wheel_advance(w, 50000, ALL);
    wheel_arm(w, &it[1].timer, 70000);
    wheel_advance(w, 69990, ALL);
    wheel_arm(w, &it[2].timer, 70000);
    cr_assert(eq(sz, wheel_advance(w, 80000, ALL), 3));
    for (int i = 0; i < 3; i++)
        cr_assert(eq(int, fired[i], i));
    wheel_free(w);
}

Test(wheel, late_advance_fires_by_due)
{
    struct wheel *w = wheel_new(0);
    struct item it[3];
    const uint64_t due[3] = {5000000, 3, 4097};
    for (int i = 0; i < 3; i++) {
        item_init(&it[i], i);
        wheel_arm(w, &it[i].timer, due[i]);
    }
    cr_assert(eq(sz, wheel_advance(w, UINT64_C(1) << 60, ALL), 3));
    cr_assert(eq(int, fired[0], 1));
    cr_assert(eq(int, fired[1], 2));
    cr_assert(eq(int, fired[2], 0));
    wheel_free(w);
}

Test(wheel, remainder_over_the_maximum_comes_first_next_time)
{
    struct wheel *w = wheel_new(0);
    struct item it[5];
    for (int i = 0; i < 5; i++) {
        item_init(&it[i], i);
        wheel_arm(w, &it[i].timer, 10);
    }
    cr_assert(eq(sz, wheel_advance(w, 10, 3), 3));
    cr_assert(le(u64, wheel_next_ms(w), 10));
    wheel_validate(w);
    cr_assert(eq(sz, wheel_advance(w, 10, 3), 2));
    cr_assert(eq(int, fired[4], 4));
    cr_assert(eq(u64, wheel_next_ms(w), WHEEL_NEVER));
    wheel_free(w);
}

static struct wheel *global_wheel;

static void rearm_now(struct wheel_timer *t, void *arg)
{
    (*(int *)arg)++;
    wheel_arm(global_wheel, t, 0);
}

Test(wheel, callback_that_arms_for_now_runs_once_an_advance)
{
    int runs = 0;
    struct wheel_timer t;
    global_wheel = wheel_new(5);
    wheel_timer_init(&t, rearm_now, &runs);
    wheel_arm(global_wheel, &t, 5);
    cr_assert(eq(sz, wheel_advance(global_wheel, 5, ALL), 1));
    cr_assert(eq(sz, wheel_advance(global_wheel, 6, ALL), 1));
    cr_assert(eq(int, runs, 2));
    wheel_free(global_wheel);
}

static void cancel_and_free(struct wheel_timer *t, void *arg)
{
    struct item **other = arg;
    wheel_cancel(global_wheel, &(*other)->timer);
    free(*other);
    free(container_of(t, struct item, timer));
}

Test(wheel, callback_may_free_itself_and_another_that_is_due)
{
    global_wheel = wheel_new(0);
    struct item *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
    wheel_timer_init(&a->timer, cancel_and_free, &b);
    item_init(b, 2);
    wheel_arm(global_wheel, &a->timer, 1);
    wheel_arm(global_wheel, &b->timer, 1);
    cr_assert(eq(sz, wheel_advance(global_wheel, 1, ALL), 1));
    cr_assert(eq(sz, fired_count, 0));
    cr_assert(eq(sz, wheel_count(global_wheel), 0));
    wheel_free(global_wheel);
}

Test(wheel, time_that_goes_back_is_ignored)
{
    struct wheel *w = wheel_new(1000);
    struct item it;
    item_init(&it, 1);
    wheel_advance(w, 2000, ALL);
    wheel_arm(w, &it.timer, 1500);
    cr_assert(eq(sz, wheel_advance(w, 1200, ALL), 1));
    wheel_free(w);
}

Test(wheel, next_wake_is_never_late_and_needs_few_steps)
{
    struct rng r;
    seed_rng(&r, "wheel next");
    for (int round = 0; round < 2000; round++) {
        uint64_t now = rng_u64(&r) >> rng_below(&r, 64);
        uint64_t due = now + (rng_u64(&r) >> rng_below(&r, 64));
        due = due < now ? UINT64_MAX - 1 : due;
        struct wheel *w = wheel_new(now);
        struct item it;
        item_init(&it, 1);
        wheel_arm(w, &it.timer, due);
        unsigned wakes = 0;
        while (wheel_timer_armed(&it.timer)) {
            uint64_t next = wheel_next_ms(w);
            cr_assert(le(u64, next, due), "now=%" PRIu64, now);
            wheel_advance(w, next, ALL);
            cr_assert(lt(uint, wakes++, 12), "now=%" PRIu64 " due=%" PRIu64, now, due);
        }
        wheel_free(w);
    }
}

Test(wheel, centuries_of_empty_time_cost_nothing)
{
    struct wheel *w = wheel_new(0);
    struct item it;
    item_init(&it, 1);
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (uint64_t i = 1; i <= 1000; i++) {
        wheel_arm(w, &it.timer, i << 52);
        cr_assert(eq(sz, wheel_advance(w, (i << 52) + 7, ALL), 1));
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    cr_assert(lt(i64, (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000, 2000));
    wheel_free(w);
}

Test(wheel, free_disarms_what_is_left)
{
    struct wheel *w = wheel_new(0);
    struct item it[2];
    item_init(&it[0], 0);
    item_init(&it[1], 1);
    wheel_arm(w, &it[0].timer, 0);
    wheel_arm(w, &it[1].timer, 1 << 20);
    wheel_free(w);
    cr_assert(not(wheel_timer_armed(&it[0].timer)));
    cr_assert(not(wheel_timer_armed(&it[1].timer)));
}

Test(wheel, dump_names_level_slot_and_count)
{
    struct wheel *w = wheel_new(0);
    struct item it[2];
    struct buf out = BUF_INIT(4096);
    for (int i = 0; i < 2; i++) {
        item_init(&it[i], i);
        wheel_arm(w, &it[i].timer, 65);
    }
    wheel_dump(w, &out);
    cr_assert(eq(str, (char *)buf_str(&out),
                 "now=0 seen=0 timers=2 ready=0\nlevel=1 slot=1 timers=2 first_due=65\n"));
    buf_fini(&out);
    wheel_free(w);
}

/* --- model: an array of timers, searched for the least (due, order of arming) each time ------------------------- */

#define MODEL_TIMERS 200

struct model_timer {
    struct wheel_timer timer;
    struct model *model;
    bool armed;
    uint64_t due_ms;
    uint64_t order;
};

struct model {
    struct wheel *w;
    struct rng rng;
    struct model_timer *timers[MODEL_TIMERS];
    /* What the running advance must fire, in order; NULL: cancelled */
    struct model_timer *chosen[MODEL_TIMERS];
    size_t chosen_count;
    size_t chosen_at;
    uint64_t order;
    uint64_t reached_ms; /* as wheel.h: dues before it count as it */
    uint64_t seed;
};

static void model_fire(struct wheel_timer *t, void *arg);

static void model_arm(struct model *m, struct model_timer *t, uint64_t due_ms)
{
    for (size_t i = m->chosen_at; i < m->chosen_count; i++)
        if (m->chosen[i] == t)
            m->chosen[i] = NULL;
    wheel_arm(m->w, &t->timer, due_ms);
    t->armed = true;
    t->due_ms = due_ms;
    t->order = m->order++;
}

static void model_cancel(struct model *m, struct model_timer *t)
{
    for (size_t i = m->chosen_at; i < m->chosen_count; i++)
        if (m->chosen[i] == t)
            m->chosen[i] = NULL;
    wheel_cancel(m->w, &t->timer);
    t->armed = false;
}

static void model_replace(struct model *m, size_t i)
{
    if (m->timers[i]) {
        model_cancel(m, m->timers[i]);
        free(m->timers[i]);
    }
    m->timers[i] = calloc(1, sizeof(struct model_timer));
    m->timers[i]->model = m;
    wheel_timer_init(&m->timers[i]->timer, model_fire, m->timers[i]);
}

static uint64_t model_random_due(struct model *m)
{
    uint64_t span = rng_u64(&m->rng) >> rng_below(&m->rng, 64);
    uint64_t due = m->reached_ms + (rng_below(&m->rng, 2) ? span : rng_below(&m->rng, 300));
    return due < m->reached_ms ? UINT64_MAX : due;
}

static void model_random_change(struct model *m)
{
    size_t i = (size_t)rng_below(&m->rng, MODEL_TIMERS);
    switch (rng_below(&m->rng, 8)) {
    case 0:
        model_cancel(m, m->timers[i]);
        break;
    case 1:
        model_replace(m, i);
        break;
    default:
        model_arm(m, m->timers[i], model_random_due(m));
    }
}

static void model_fire(struct wheel_timer *timer, void *arg)
{
    struct model_timer *t = arg;
    struct model *m = t->model;
    cr_assert(eq(ptr, timer, &t->timer));
    while (m->chosen_at < m->chosen_count && !m->chosen[m->chosen_at])
        m->chosen_at++;
    cr_assert(lt(sz, m->chosen_at, m->chosen_count), "seed=%" PRIu64 ": too many fired", m->seed);
    cr_assert(eq(ptr, t, m->chosen[m->chosen_at]), "seed=%" PRIu64 ": wrong order", m->seed);
    m->chosen_at++;
    t->armed = false;
    if (rng_below(&m->rng, 3) == 0)
        model_random_change(m); /* may free T */
}

static struct model_timer *model_least(struct model *m, uint64_t now_ms)
{
    struct model_timer *least = NULL;
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        struct model_timer *t = m->timers[i];
        if (!t->armed || t->due_ms > now_ms)
            continue;
        if (!least || t->due_ms < least->due_ms || (t->due_ms == least->due_ms && t->order < least->order))
            least = t;
    }
    return least;
}

/* Dues are random but never before what the wheel has reached, so (due, order) is the order of wheel.h. */
static void model_advance(struct model *m, uint64_t now_ms, size_t max)
{
    m->chosen_count = m->chosen_at = 0;
    for (struct model_timer *t; m->chosen_count < max && (t = model_least(m, now_ms));) {
        t->armed = false;
        m->chosen[m->chosen_count++] = t;
    }
    for (size_t i = 0; i < m->chosen_count; i++)
        m->chosen[i]->armed = true;
    m->reached_ms = now_ms;
    size_t n = wheel_advance(m->w, now_ms, max);
    while (m->chosen_at < m->chosen_count && !m->chosen[m->chosen_at])
        m->chosen_at++;
    cr_assert(eq(sz, m->chosen_at, m->chosen_count), "seed=%" PRIu64 ": %zu fired, too few", m->seed, n);
    m->chosen_count = m->chosen_at = 0;
}

static void model_check(struct model *m)
{
    size_t armed = 0;
    uint64_t first = WHEEL_NEVER;
    wheel_validate(m->w);
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        struct model_timer *t = m->timers[i];
        cr_assert(eq(int, t->armed, wheel_timer_armed(&t->timer)), "seed=%" PRIu64, m->seed);
        armed += t->armed;
        first = t->armed && t->due_ms < first ? t->due_ms : first;
    }
    cr_assert(eq(sz, wheel_count(m->w), armed), "seed=%" PRIu64, m->seed);
    cr_assert(le(u64, wheel_next_ms(m->w), first), "seed=%" PRIu64, m->seed);
}

static void model_run(uint64_t start_ms, int steps, const char *name)
{
    struct model m = {.w = wheel_new(start_ms), .reached_ms = start_ms};
    m.seed = seed_rng(&m.rng, name);
    for (size_t i = 0; i < MODEL_TIMERS; i++)
        model_replace(&m, i);
    for (int step = 0; step < steps; step++) {
        model_random_change(&m);
        if (rng_below(&m.rng, 4) == 0) {
            /* Small steps mostly, so that the clock's end is not reached at once. */
            uint64_t jump = rng_below(&m.rng, 50) ? rng_below(&m.rng, 200) : rng_u64(&m.rng) >> 40;
            uint64_t now = m.reached_ms + jump < m.reached_ms ? UINT64_MAX : m.reached_ms + jump;
            model_advance(&m, now, rng_below(&m.rng, 2) ? ALL : 1 + (size_t)rng_below(&m.rng, 4));
        }
        model_check(&m);
    }
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        model_cancel(&m, m.timers[i]);
        free(m.timers[i]);
    }
    wheel_free(m.w);
}

Test(wheel, behaves_as_a_sorted_list)
{
    model_run(0, 10000, "wheel model");
}

Test(wheel, behaves_as_a_sorted_list_where_many_digits_change)
{
    model_run((UINT64_C(1) << 48) - 3000, 10000, "wheel model over a carry");
}

Test(wheel, behaves_as_a_sorted_list_up_to_the_end_of_the_clock)
{
    model_run(UINT64_MAX - 20000, 5000, "wheel model at the end");
}
