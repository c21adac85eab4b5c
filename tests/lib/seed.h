/* Seeds of model tests: a new one each run, printed, so that TEST_SEED=<n> replays a failure. */
#ifndef CARILLON_TESTS_LIB_SEED_H
#define CARILLON_TESTS_LIB_SEED_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "agent/base/rng.h"

/* Seed R from TEST_SEED or the clock, and print it to stderr with NAME. */
static inline uint64_t seed_rng(struct rng *r, const char *name)
{
    const char *given = getenv("TEST_SEED");
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
    uint64_t seed =
        given ? strtoull(given, NULL, 10) : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    fprintf(stderr, "%s: TEST_SEED=%" PRIu64 "\n", name, seed);
    rng_init(r, seed);
    return seed;
}

#endif
