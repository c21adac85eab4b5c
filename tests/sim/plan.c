/* What a story will ask for and what will go wrong in it: drawn before it begins. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "tests/sim/story.h"

#define BEGIN_US      8000000 /* the cluster has come together */
#define JOBS          20
#define DAYS_JOBS     12
#define KINDS_MAX     16 /* a seed tells the same stories when there is another kind */
#define MINUTE_US     INT64_C(60000000)
#define PARTS_MAX     4096
#define DENSE_MINUTES 30

static const char *const names[STORY_KIND_COUNT_] = {"planned", "crashes", "store", "consul",
                                                     "network", "all",     "days"};

const char *story_name(enum story_kind kind)
{
    return names[kind];
}

int story_kind(const char *name)
{
    for (int i = 0; i < STORY_KIND_COUNT_; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* --- weather ------------------------------------------------------------------------------------------------------- */

static void add(struct story_plan *p, int64_t at_us, int type, unsigned what, uint64_t seed)
{
    if (p->count == PARTS_MAX)
        return;
    p->parts[p->count] = (struct story_part){
        .number = (unsigned)p->count, .at_us = at_us, .type = type, .what = what, .seed = seed};
    p->count++;
}

#define FIELD(name) ((unsigned)(offsetof(struct sim_weather, name) / sizeof(unsigned)))

/* One story in IN_N has that weather. */
static void maybe(struct story_plan *p, unsigned in_n, unsigned field, int64_t low, int64_t high)
{
    bool yes = sim_plan_below(in_n) == 0;
    int64_t percent = sim_plan_between(low, high);
    if (yes)
        add(p, 0, PART_WEATHER, field, (uint64_t)percent);
}

static void draw_weather(struct story_plan *p)
{
    bool all = p->troubles == STORY_ALL, planned = p->troubles == STORY_PLANNED;
    maybe(p, 2, FIELD(callee_slow_percent), 5, 5);
    maybe(p, 2, FIELD(callee_fail_percent), 10, 30);
    maybe(p, 3, FIELD(callee_reset_percent), 2, 5);
    maybe(p, 3, FIELD(callee_give_up_percent), 1, 5);
    maybe(p, 2, FIELD(callee_silent_percent), 5, 20);
    maybe(p, 2, FIELD(callee_lie_percent), 10, 30);
    maybe(p, 3, FIELD(store_slow_percent), 3, 3);
    if (!planned)
        maybe(p, 3, FIELD(callee_hang_percent), 2, 2);
    if (all || p->troubles == STORY_STORE)
        maybe(p, 2, FIELD(store_flaky_percent), 1, 5);
    if (all || p->troubles == STORY_NETWORK) {
        maybe(p, 2, FIELD(peer_lossy_percent), 1, 20);
        maybe(p, 2, FIELD(peer_repeat_percent), 1, 20);
    }
}

/* One story in four has agents that cannot have all near jobs in memory. Drawn last, so that it makes no other story of a seed. */
static void draw_memory(struct story_plan *p)
{
    if (sim_plan_below(4) != 0)
        return;
    p->memory_max_bytes = (size_t)sim_plan_between(2, 20) << 10;
    p->load_page = (size_t)sim_plan_between(2, 20);
}

/* In one story of four so few rows fill a batch that two are often under way, which the store does in any order. Drawn after all else, for
 * the same reason. */
static void draw_batches(struct story_plan *p)
{
    if (sim_plan_below(4) == 0)
        p->batch_rows = sim_plan_between(3, 12);
}

/* --- wishes and troubles ------------------------------------------------------------------------------------------- */

static void draw_wish(struct story_plan *p, int64_t at_us)
{
    static const enum sim_wish wishes[] = {
        SIM_WISH_CREATE, SIM_WISH_CREATE, SIM_WISH_CREATE,   SIM_WISH_CREATE,  SIM_WISH_CHANGE,
        SIM_WISH_CHANGE, SIM_WISH_CHANGE, SIM_WISH_DELETE,   SIM_WISH_DELETE,  SIM_WISH_PAUSE,
        SIM_WISH_PAUSE,  SIM_WISH_RESUME, SIM_WISH_RESUME,   SIM_WISH_RUN,     SIM_WISH_RUN,
        SIM_WISH_RETRY,  SIM_WISH_CANCEL, SIM_WISH_BACKFILL, SIM_WISH_REDRIVE, SIM_WISH_REDRIVE,
        SIM_WISH_DISCARD};
    unsigned wish = wishes[sim_plan_below(sizeof(wishes) / sizeof(wishes[0]))];
    add(p, at_us, PART_WISH, wish, rng_u64(&sim.plan));
}

static enum story_trouble draw_trouble(enum story_kind kind)
{
    static const enum story_trouble planned[] = {TROUBLE_DEPLOY, TROUBLE_DEPLOY, TROUBLE_ROLL, TROUBLE_SCALE},
                                    crashes[] = {TROUBLE_CRASH, TROUBLE_CRASH, TROUBLE_CRASH, TROUBLE_CRASH,
                                                 TROUBLE_CRASH_ALL},
                                    consul[] = {TROUBLE_CONSUL, TROUBLE_CONSUL, TROUBLE_INSTANCES},
                                    network[] = {TROUBLE_CLOCK, TROUBLE_STOP, TROUBLE_CUT, TROUBLE_CUT};
    switch (kind) {
    case STORY_PLANNED:
        return planned[sim_plan_below(4)];
    case STORY_CRASHES:
        return crashes[sim_plan_below(5)];
    case STORY_STORE:
        return TROUBLE_STORE;
    case STORY_CONSUL:
        return consul[sim_plan_below(3)];
    case STORY_NETWORK:
        return network[sim_plan_below(4)];
    case STORY_ALL:
    case STORY_DAYS:
    case STORY_KIND_COUNT_:
        break;
    }
    return (enum story_trouble)sim_plan_below(TROUBLE_COUNT_);
}

/* Wishes come every some minutes, troubles by twos and threes, then none for hours. */
static void draw_days(struct story_plan *p)
{
    int64_t wish_us = BEGIN_US, trouble_us = BEGIN_US + sim_plan_between(1, 240) * MINUTE_US;
    for (int64_t at_us = BEGIN_US; at_us < p->until_us; at_us = wish_us < trouble_us ? wish_us : trouble_us) {
        if (at_us == wish_us) {
            draw_wish(p, at_us);
            wish_us += sim_plan_between(10000, 1500000) * 1000;
        }
        if (at_us == trouble_us) {
            add(p, at_us, PART_TROUBLE, draw_trouble(p->troubles), rng_u64(&sim.plan));
            trouble_us += sim_plan_below(3) ? sim_plan_between(100, 60000) * 1000
                                            : sim_plan_between(5, 300) * MINUTE_US;
        }
    }
}

static void draw_dense(struct story_plan *p, unsigned minutes)
{
    if (sim_plan_below(32) == 0)
        add(p, BEGIN_US, PART_WISH, SIM_WISH_FLOOD, rng_u64(&sim.plan));
    int64_t scale = minutes > DENSE_MINUTES ? minutes / DENSE_MINUTES : 1; /* long stories are quieter */
    int64_t trouble_us = BEGIN_US, pace_ms = (p->kind == STORY_PLANNED ? 30000 : 20000) * scale;
    for (int64_t at_us = BEGIN_US; at_us < p->until_us;) {
        if (at_us >= trouble_us) {
            add(p, at_us, PART_TROUBLE, draw_trouble(p->kind), rng_u64(&sim.plan));
            trouble_us = at_us + sim_plan_between(100, pace_ms) * 1000;
        }
        draw_wish(p, at_us);
        at_us += sim_plan_between(10, 2000 * scale) * 1000;
    }
}

void story_plan_draw(struct story_plan *p, enum story_kind kind, uint64_t seed, unsigned minutes)
{
    bool days = kind == STORY_DAYS;
    rng_init(&sim.plan, seed * KINDS_MAX + kind);
    *p = (struct story_plan){.kind = kind, .troubles = kind, .seed = seed};
    p->parts = mem_new_array(struct story_part, PARTS_MAX);
    p->hosts = 2 + sim_plan_below(SIM_HOSTS_MAX - 1);
    if (days)
        p->troubles = (enum story_kind)sim_plan_below(STORY_DAYS);
    int64_t length_us = minutes * (days ? sim_plan_between(160, 400) : 1) * MINUTE_US;
    p->until_us = BEGIN_US + length_us;
    p->epoch_ms = sim_rules_epoch_ms(days ? length_us / 1000000 : 170);
    draw_weather(p);
    for (int i = 0; i < (days ? DAYS_JOBS : JOBS); i++)
        add(p, BEGIN_US, PART_WISH, SIM_WISH_CREATE, rng_u64(&sim.plan));
    if (days)
        draw_days(p);
    else
        draw_dense(p, minutes);
    draw_memory(p);
    draw_batches(p);
}

void story_plan_free(struct story_plan *p)
{
    mem_free(p->parts);
    p->parts = NULL;
}

static bool named(const char *list, size_t n)
{
    for (const char *at = list; *at;) {
        char *end;
        size_t low = strtoul(at, &end, 10), high = low;
        if (*end == '-')
            high = strtoul(end + 1, &end, 10);
        if (n >= low && n <= high)
            return true;
        at = *end ? end + 1 : end;
    }
    return false;
}

void story_plan_keep(struct story_plan *p, const char *keep)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++)
        if (named(keep, i))
            p->parts[kept++] = p->parts[i];
    p->count = kept;
}
