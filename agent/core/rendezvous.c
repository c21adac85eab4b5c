#include "agent/core/rendezvous.h"

#include <endian.h>

/* The ring asks for a million of these: inlined, the fixed length folds into a handful of instructions. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define SEED_DISTANCE UINT64_C(0x63617272656e6431)

uint64_t rendezvous_hash(uint64_t a, uint64_t b, uint64_t seed)
{
    uint64_t both[2] = {htole64(a), htole64(b)};
    return XXH3_64bits_withSeed(both, sizeof(both), seed);
}

/* Between powers of two log2(1 + f) is the cubic that has its values and slopes at both ends, off by at most 0.006. */
uint64_t rendezvous_distance(uint64_t key, uint64_t node)
{
    const uint64_t one = UINT64_C(1) << 32, a = 1901360723, b = 704557436; /* 0.442695 and 0.164043 */
    uint64_t hash = rendezvous_hash(key, node, SEED_DISTANCE) | 1;
    unsigned zeros = (unsigned)__builtin_clzll(hash);
    uint64_t f = zeros == 63 ? 0 : hash << (zeros + 1) >> 32;
    uint64_t bend = (f * (one - f) >> 32) * (a - (b * f >> 32)) >> 32;
    return ((uint64_t)zeros << 32) + one - f - bend;
}
