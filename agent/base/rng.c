#include "agent/base/rng.h"

#include <assert.h>
#include <errno.h>
#include <sys/random.h>

#include "agent/base/mem.h"

static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = (*x += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void rng_init(struct rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        r->s_[i] = splitmix64(&seed);
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->s_;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    assert(n > 0);
    __extension__ unsigned __int128 m = (unsigned __int128)rng_u64(r) * n;
    if ((uint64_t)m < n) {
        uint64_t biased = (0 - n) % n;
        while ((uint64_t)m < biased)
            m = (unsigned __int128)rng_u64(r) * n;
    }
    return (uint64_t)(m >> 64);
}

int64_t rng_range(struct rng *r, int64_t lo, int64_t hi)
{
    assert(lo <= hi);
    uint64_t span = (uint64_t)hi - (uint64_t)lo + 1;
    uint64_t offset = span ? rng_below(r, span) : rng_u64(r); /* 0: the whole of int64 */
    return (int64_t)((uint64_t)lo + offset);
}

double rng_double(struct rng *r)
{
    return (double)(rng_u64(r) >> 11) * 0x1.0p-53;
}

int rng_seed_os(uint64_t *ret_seed, struct err *e)
{
    uint64_t seed;
    if (rng_os_bytes(&seed, sizeof(seed), e) < 0)
        return err_wrap(e, "seed");
    *ret_seed = seed;
    return 0;
}

int rng_os_bytes(void *data, size_t len, struct err *e)
{
    unsigned char *at = data;
    while (len > 0) {
        ssize_t n = fault_hit() ? (errno = EIO, -1) : getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, errno, "getrandom");
        at += n;
        len -= (size_t)n;
    }
    return 0;
}
