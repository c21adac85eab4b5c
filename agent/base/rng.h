/* Random numbers that replay from a seed: xoshiro256** 1.0 by David Blackman and Sebastiano Vigna (public domain,
 * https://prng.di.unimi.it/xoshiro256starstar.c), seeded through their splitmix64. Not for secrets: those come from
 * rng_os_bytes. One thread per struct rng. */
#ifndef CARILLON_BASE_RNG_H
#define CARILLON_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"

struct rng {
    uint64_t s_[4];
};

/* Equal seeds give equal sequences on every machine. */
void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
/* Uniform in [0, N); N > 0. Unbiased (Lemire, "Fast Random Integer Generation in an Interval"). */
uint64_t rng_below(struct rng *r, uint64_t n);
/* Uniform in [LO, HI], LO <= HI. */
int64_t rng_range(struct rng *r, int64_t lo, int64_t hi);
/* Uniform in [0, 1), 53 bits. */
double rng_double(struct rng *r);

/* A seed from the kernel (getrandom). ERR_IO. Any thread. */
int rng_seed_os(uint64_t *ret_seed, struct err *e);
/* LEN bytes fit for keys and tokens (getrandom). ERR_IO: DATA's content is then undefined. Any thread. */
int rng_os_bytes(void *data, size_t len, struct err *e);

#endif
