/* Fenwick tree over weights (P. Fenwick, "A New Data Structure for Cumulative Frequency Tables", 1994): change a
 * weight, and find the element under a point of the total, in O(log n): draws in proportion to weights. The array is
 * the caller's. One thread at a time. */
#ifndef CARILLON_CORE_FENWICK_H
#define CARILLON_CORE_FENWICK_H

#include <stddef.h>
#include <stdint.h>

struct fenwick {
    uint64_t *tree_; /* count elements */
    size_t count;
    uint64_t total; /* sum of all weights */
};

/* All weights 0 over TREE, COUNT elements set to 0; borrowed until F is dropped. */
void fenwick_init(struct fenwick *f, uint64_t *tree, size_t count);

/* Change element I's weight from OLD (what it is) to NEW. The total must stay below 2^63. */
void fenwick_update(struct fenwick *f, size_t i, uint64_t old, uint64_t new);

/* The element in whose weight POINT (< total) falls; *RET_BEFORE gets the sum of the weights before it. */
size_t fenwick_find(const struct fenwick *f, uint64_t point, uint64_t *ret_before);

#endif
