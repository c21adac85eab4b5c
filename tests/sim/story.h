/* One story: a cluster, jobs, and troubles drawn from a seed; then calm, and the reckoning. */
#ifndef CARILLON_TESTS_SIM_STORY_H
#define CARILLON_TESTS_SIM_STORY_H

#include <stdint.h>
#include <stdio.h>

enum story_kind {
    STORY_PLANNED, /* agents come, leave, are deployed anew; callees take their time */
    STORY_CRASHES, /* kill -9 */
    STORY_STORE,   /* the store is away, hangs, loses replies */
    STORY_CONSUL,  /* Consul dies, forgets, lies, loses its leader */
    STORY_NETWORK, /* cuts of every kind, lost messages, stopped processes */
    STORY_ALL,
    STORY_KIND_COUNT_
};

const char *story_name(enum story_kind kind);
int story_kind(const char *name); /* -1: none */

struct story_result {
    int code; /* 0: every promise held; SIM_BROKEN, or the signal that ended it, negative */
    uint64_t events, fires, repeats;
    int64_t simulated_ms;
};

/* Tell the story of SEED in a child process. TRACE: its lines go there; NULL: nowhere. MINUTES of trouble. */
struct story_result story_run(enum story_kind kind, uint64_t seed, unsigned minutes, FILE *trace);

#endif
