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

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

Test(ownership_sim, one_owner_and_nothing_unowned_whatever_happens)
{
    uint64_t first = number("TEST_SEED", number("TEST_FIRST", 1)), count = getenv("TEST_SEED") ? 1 : number("TEST_SEEDS", 300);
    size_t verdicts = 0, moves = 0, takes = 0, wrong = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct sim s;
        bool ok = story(&s, seed, NULL);
        verdicts += s.verdicts;
        moves += s.moves;
        takes += s.takes;
        wrong += s.wrong_verdicts;
        sim_fini(&s);
        if (ok)
            continue;
        (void)story(&s, seed, stderr);
        cr_expect(false, "TEST_SEED=%llu: %s", (unsigned long long)seed, s.failure);
        sim_fini(&s);
        return;
    }
    if (count > 1) {
        cr_expect(gt(sz, verdicts, count));
        cr_expect(gt(sz, moves, count));
        cr_expect(gt(sz, takes, count));
    }
    fprintf(stderr,
            "%llu stories: %zu verdicts (%zu of living members), %zu slots moved, %zu taken or adopted\n",
            (unsigned long long)count, verdicts, wrong, moves, takes);
}
