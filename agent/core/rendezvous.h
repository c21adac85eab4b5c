/* Weighted rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998; weights
 * after Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005, the logarithmic method): a key belongs to
 * the node that is closest to it, and each node is closest with the probability of its weight. It is what a ring with
 * infinitely many virtual nodes would give. Integers only: all agents must agree to the last bit. Pure; any thread. */
#ifndef CARILLON_CORE_RENDEZVOUS_H
#define CARILLON_CORE_RENDEZVOUS_H

#include <stdbool.h>
#include <stdint.h>

/* Hash of two hashes, the same on every machine. */
uint64_t rendezvous_hash(uint64_t a, uint64_t b, uint64_t seed);

/* Distance of KEY and NODE (both hashes) before weights: -log2 of an even value in (0, 1], 32 binary places, at most
 * 64 << 32. */
uint64_t rendezvous_distance(uint64_t key, uint64_t node);

/* Whether distance A at weight A_WEIGHT is closer than B at B_WEIGHT (weights 1 .. 2^24). */
static inline bool rendezvous_closer(uint64_t a, uint32_t a_weight, uint64_t b, uint32_t b_weight)
{
    return a * b_weight < b * a_weight;
}

#endif
