#include "agent/core/fenwick.h"

#include <assert.h>

void fenwick_init(struct fenwick *f, uint64_t *tree, size_t count)
{
    *f = (struct fenwick){.tree_ = tree, .count = count};
}

void fenwick_update(struct fenwick *f, size_t i, uint64_t old, uint64_t new)
{
    assert(i < f->count && old <= f->total);
    uint64_t delta = new - old; /* sums wrap back to the right value when it is negative */
    for (size_t k = i + 1; k <= f->count; k += k & -k)
        f->tree_[k - 1] += delta;
    f->total += delta;
}

size_t fenwick_find(const struct fenwick *f, uint64_t point, uint64_t *ret_before)
{
    assert(point < f->total);
    size_t step = (size_t)1 << (63 - (unsigned)__builtin_clzll(f->count));
    size_t at = 0;
    uint64_t before = 0;
    for (; step; step >>= 1)
        if (at + step <= f->count && before + f->tree_[at + step - 1] <= point) {
            at += step;
            before += f->tree_[at - 1];
        }
    *ret_before = before;
    return at;
}
