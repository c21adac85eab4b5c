/* One story: a cluster, jobs, and troubles drawn from a seed; then calm, and the reckoning. What is asked for and what goes wrong is
 * a list of parts that is drawn before anything happens, so a story can be told without some of them. */
#ifndef CARILLON_TESTS_SIM_STORY_H
#define CARILLON_TESTS_SIM_STORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tests/sim/sim.h"

enum story_kind {
    STORY_PLANNED, /* agents come, leave, are deployed anew; callees take their time */
    STORY_CRASHES, /* kill -9 */
    STORY_STORE,   /* the store is away, hangs, is started anew, loses replies */
    STORY_CONSUL,  /* Consul dies, forgets, lies, loses its leader */
    STORY_NETWORK, /* cuts of every kind, lost and repeated messages, stopped processes, clocks */
    STORY_ALL,
    STORY_DAYS, /* a quiet day: jobs that are due every some minutes, hours between troubles of one of the other kinds, some of which last */
    STORY_KIND_COUNT_
};

const char *story_name(enum story_kind kind);
int story_kind(const char *name); /* -1: none */

/* --- parts --------------------------------------------------------------------------------------------------------- */

enum story_trouble {
    TROUBLE_DEPLOY,
    TROUBLE_ROLL,
    TROUBLE_SCALE,
    TROUBLE_CRASH,
    TROUBLE_CRASH_ALL,
    TROUBLE_STOP,
    TROUBLE_CUT,
    TROUBLE_STORE,
    TROUBLE_CONSUL,
    TROUBLE_INSTANCES,
    TROUBLE_CLOCK,
    TROUBLE_COUNT_
};

struct story_part {
    unsigned number; /* in the whole plan */
    int64_t at_us;
    enum { PART_WEATHER, PART_WISH, PART_TROUBLE } type;
    unsigned what; /* which field of sim_weather, sim_wish, story_trouble */
    uint64_t seed; /* of what it draws, or the percentage */
};

struct story_plan {
    enum story_kind kind;
    enum story_kind troubles; /* of which kind they are; other than KIND in STORY_DAYS */
    uint64_t seed;
    unsigned hosts;
    int64_t epoch_ms, until_us;         /* trouble until then */
    size_t memory_max_bytes, load_page; /* of the agents; 0: as they are in earnest */
    int64_t batch_rows;                 /* the same */
    struct story_part *parts;
    size_t count;
};

/* Draw it; draws nothing from the world. Frees with story_plan_free(). */
void story_plan_draw(struct story_plan *p, enum story_kind kind, uint64_t seed, unsigned minutes);
void story_plan_free(struct story_plan *p);
/* Leave out what KEEP, a list such as "1,5-9", does not name. */
void story_plan_keep(struct story_plan *p, const char *keep);

/* --- telling ------------------------------------------------------------------------------------------------------- */

struct story_result {
    int code; /* 0: every promise held; SIM_BROKEN, or the signal that ended it, negative */
    char broken[SIM_BROKEN_MAX];
    uint64_t events, fires, repeats;
    int64_t simulated_ms;
};

/* Tell it in a child process. WORLD: another number gives the same plan in a world of other delays. TRACE: its lines go there; NULL:
 * nowhere. */
struct story_result story_tell(const struct story_plan *p, uint64_t world, FILE *trace);

/* Tell P, which breaks a promise, with fewer and fewer parts, as long as it breaks the same promise in one of a few worlds. P is
 * cut down; *RET_WORLD: where it broke last. TELLS: how many stories that may take. The story's lines go to OUT. */
void story_shrink(struct story_plan *p, uint64_t *ret_world, unsigned tells, FILE *out);

#endif
