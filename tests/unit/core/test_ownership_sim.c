/* Ownership under everything at once: kill, pause, leave, restart, a store that is away, hangs or loses replies, clocks
 * that run apart, peers cut off, Consul lying. The oracle is in tests/lib/ownership_sim.c. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <stdlib.h>

#include "tests/lib/ownership_sim.h"

static int any_node(struct sim *s)
{
    return (int)rng_below(&s->rng, (uint64_t)s->nodes);
}

static void end_some_faults(struct sim *s)
{
    for (int n = 0; n < s->nodes; n++) {
        struct sim_proc *p = sim_at(s, n);
        if (!p)
            continue;
        if (p->paused && rng_below(&s->rng, 3) == 0)
            sim_pause(s, n, false);
        p = sim_at(s, n);
        if (p && p->cut && rng_below(&s->rng, 4) == 0)
            p->cut = false;
        if (p && p->refused_out && rng_below(&s->rng, 3) == 0) {
            p->refused_out = false;
            p->refused_until_ms = s->now_ms;
        }
        for (int m = 0; m < s->nodes; m++)
            if (rng_below(&s->rng, 6) == 0)
                s->split[n][m] = s->split[m][n] = false;
    }
}

static void misfortune(struct sim *s)
{
    int n = any_node(s), m = any_node(s);
    struct sim_proc *p = sim_at(s, n);
    switch (rng_below(&s->rng, 16)) {
    case 0:
    case 1:
        sim_kill(s, n);
        break;
    case 2:
        sim_pause(s, n, true);
        break;
    case 3:
        sim_leave(s, n);
        break;
    case 4:
    case 5:
    case 6:
        sim_start(s, n);
        break;
    case 7:
        s->store_away_ms = s->now_ms + rng_range(&s->rng, 100, 9000);
        sim_note(s, "store away until %lld", (long long)s->store_away_ms);
        break;
    case 8:
        s->store_hung_ms = s->now_ms + rng_range(&s->rng, 100, 9000);
        sim_note(s, "store hangs until %lld", (long long)s->store_hung_ms);
        break;
    case 9:
        if (p)
            p->cut = true;
        sim_note(s, "n%d cut from the store", n);
        break;
    case 10:
        if (p)
            p->refused_out = true;
        sim_note(s, "n%d refused everywhere", n);
        break;
    case 11:
        s->split[n][m] = s->split[m][n] = n != m;
        sim_note(s, "n%d and n%d apart", n, m);
        break;
    case 12:
        s->consul = (int)rng_below(&s->rng, 3);
        sim_note(s, "consul %d", s->consul);
        sim_consul_changed(s);
        break;
    case 13:
        s->lossy_percent = (int)rng_below(&s->rng, 4) * 10;
        break;
    case 14:
        s->flaky_percent = (int)rng_below(&s->rng, 4) * 10;
        break;
    default:
        end_some_faults(s);
    }
}

static bool story(struct sim *s, uint64_t seed, FILE *trace)
{
    struct rng r;
    rng_init(&r, seed ^ 0x5eed);
    int nodes = (int)rng_range(&r, 1, 7);
    sim_init(s, seed, nodes, (uint32_t)rng_range(&r, 1, 32), trace);
    s->slow_percent = 2;
    for (int n = 0; n < nodes; n++)
        if (n == 0 || rng_below(&r, 4) > 0)
            sim_start(s, n);
    bool ok = sim_run(s, 3000);
    int64_t pace_ms = rng_range(&r, 200, 3000);
    for (int i = 0; ok && i < 50; i++) {
        misfortune(s);
        end_some_faults(s);
        ok = sim_run(s, rng_range(&r, 1, pace_ms));
    }
    if (ok)
        sim_heal(s);
    if (ok && !sim_at(s, 0))
        sim_start(s, 0);
    ok = ok && sim_run(s, 25000);
    return ok && sim_settled(s);
}

struct totals {
    size_t stories, verdicts, wrong, moves, takes;
};

/* Told only when it fails, by running it again. */
static bool holds(uint64_t seed, struct totals *sum)
{
    struct sim s;
    bool ok = story(&s, seed, NULL);
    sum->stories++;
    sum->verdicts += s.verdicts;
    sum->wrong += s.wrong_verdicts;
    sum->moves += s.moves;
    sum->takes += s.takes;
    sim_fini(&s);
    if (ok)
        return true;
    (void)story(&s, seed, stderr);
    cr_expect(false, "TEST_SEED=%llu: %s", (unsigned long long)seed, s.failure);
    sim_fini(&s);
    return false;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* The same stories each time, and as many new ones; TEST_SEEDS= for more, TEST_SEED= to replay one. */
Test(ownership_sim, one_owner_and_nothing_unowned_whatever_happens)
{
    struct totals sum = {0};
    if (getenv("TEST_SEED")) {
        (void)holds(number("TEST_SEED", 1), &sum);
        return;
    }
    uint64_t first;
    cr_assert(zero(int, rng_seed_os(&first, NULL)));
    first >>= 16;
    bool ok = true;
    for (uint64_t i = 0; ok && i < number("TEST_SEEDS", 800); i++)
        ok = holds(i + 1, &sum) && holds(first + i, &sum);
    fprintf(stderr,
            "%zu stories: %zu verdicts (%zu of living members), %zu slots moved, %zu taken or adopted\n",
            sum.stories, sum.verdicts, sum.wrong, sum.moves, sum.takes);
    if (!ok)
        return;
    cr_expect(gt(sz, sum.verdicts, sum.stories));
    cr_expect(gt(sz, sum.moves, sum.stories));
    cr_expect(gt(sz, sum.takes, sum.stories));
}

static void cluster(struct sim *s, uint64_t seed, int nodes)
{
    sim_init(s, seed, nodes, 32, NULL);
    for (int n = 0; n < nodes; n++) {
        sim_start(s, n);
        cr_assert(sim_run(s, 500), "%s", s->failure);
    }
    cr_assert(sim_run(s, 12000), "%s", s->failure);
    cr_assert(sim_settled(s), "%s", s->failure);
    s->measure = true;
    s->gap_worst_ms = 0;
}

Test(ownership_sim, after_kill_9_the_others_fire_within_half_a_second)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct sim s;
        cluster(&s, seed, 2 + (int)(seed % 6));
        sim_kill(&s, (int)(seed % (uint64_t)s.nodes));
        cr_assert(sim_run(&s, 12000), "seed %llu: %s", (unsigned long long)seed, s.failure);
        cr_assert(sim_settled(&s), "seed %llu: %s", (unsigned long long)seed, s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 400), "seed %llu", (unsigned long long)seed);
        sim_fini(&s);
    }
}

Test(ownership_sim, a_hung_member_is_replaced_within_seven_seconds)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 3);
        sim_pause(&s, 1, true);
        cr_assert(sim_run(&s, 15000), "%s", s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 7000), "seed %llu", (unsigned long long)seed);
        cr_expect(gt(i64, s.gap_worst_ms, 4000), "seed %llu", (unsigned long long)seed);
        sim_pause(&s, 1, false);
        cr_assert(sim_run(&s, 15000), "%s", s.failure);
        cr_assert(sim_settled(&s), "%s", s.failure);
        sim_fini(&s);
    }
}

Test(ownership_sim, planned_changes_leave_no_gap_over_300_ms)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 4);
        for (int n = 0; n < 4; n++) { /* a rolling restart */
            sim_leave(&s, n);
            cr_assert(sim_run(&s, 4000), "%s", s.failure);
            cr_expect(zero(ptr, sim_at(&s, n)), "seed %llu: n%d still runs", (unsigned long long)seed, n);
            sim_start(&s, n);
            cr_assert(sim_run(&s, 4000), "%s", s.failure);
        }
        cr_assert(sim_run(&s, 12000) && sim_settled(&s), "%s", s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 300), "seed %llu", (unsigned long long)seed);
        cr_expect(zero(sz, s.verdicts));
        sim_fini(&s);
    }
}

Test(ownership_sim, a_store_that_was_away_takes_nobodys_slots)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 4);
        if (seed % 2)
            s.store_hung_ms = s.now_ms + 500 * (int64_t)seed;
        else
            s.store_away_ms = s.now_ms + 500 * (int64_t)seed;
        cr_assert(sim_run(&s, 40000) && sim_settled(&s), "%s", s.failure);
        cr_expect(zero(sz, s.verdicts), "seed %llu", (unsigned long long)seed);
        sim_fini(&s);
    }
}

Test(ownership_sim, consul_wiped_or_lying_moves_no_slot_of_a_living_member_to_nobody)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct sim s;
        cluster(&s, seed, 4);
        for (int i = 0; i < 10; i++) {
            s.consul = 2;
            sim_consul_changed(&s);
            cr_assert(sim_run(&s, 1700), "%s", s.failure);
        }
        sim_heal(&s);
        cr_assert(sim_run(&s, 15000) && sim_settled(&s), "%s", s.failure);
        cr_expect(le(i64, s.gap_worst_ms, 300), "seed %llu", (unsigned long long)seed);
        cr_expect(zero(sz, s.verdicts));
        sim_fini(&s);
    }
}
