/* An ordered set of pointers: a list of chunks, each a sorted array. Some ten bytes an item, finding by binary search. The items
 * are never followed but by COMPARE; what decides their order must not change while they are in the set. Allocation aborts
 * without memory, as mem_new does. One thread at a time. */
#ifndef CARILLON_STORE_RAFT_SORTED_H
#define CARILLON_STORE_RAFT_SORTED_H

#include <stdbool.h>
#include <stddef.h>

struct sorted_chunk;

struct sorted {
    struct sorted_chunk **chunks_; /* none of them empty */
    size_t chunks_count_;
    size_t chunks_cap_;
    size_t count_;
    int (*compare_)(const void *key,
                    const void *item); /* <0, 0, >0: KEY before, at, after ITEM; no two items are equal */
};

/* A place in the set: of an item, or behind the last. Any change of the set ends it. */
struct sorted_at {
    size_t chunk;
    size_t item;
};

/* Empty set in caller's storage; allocates nothing. */
void sorted_init(struct sorted *s, int (*compare)(const void *key, const void *item));
/* Free the set, not the items. */
void sorted_fini(struct sorted *s);
static inline size_t sorted_count(const struct sorted *s)
{
    return s->count_;
}
/* Bytes of memory that the set itself holds. */
size_t sorted_bytes(const struct sorted *s);

/* The first item at or after KEY (strictly AFTER it). KEY NULL: the first of all. */
struct sorted_at sorted_seek(const struct sorted *s, const void *key, bool after);
/* The item there; NULL behind the last. */
void *sorted_get(const struct sorted *s, struct sorted_at at);
/* One step; forward from the last leads behind it, and there it stays. */
void sorted_next(const struct sorted *s, struct sorted_at *at);
/* One step back, also from behind the last; false at the first, AT unchanged. */
bool sorted_prev(const struct sorted *s, struct sorted_at *at);
/* The item equal to KEY, or NULL. */
void *sorted_find(const struct sorted *s, const void *key);

/* COUNT items in their order, into a set that is empty. */
void sorted_fill(struct sorted *s, void *const *items, size_t count);
/* Put ITEM, whose key is KEY and in the set not yet. */
void sorted_insert(struct sorted *s, const void *key, void *item);
/* Take out the item equal to KEY, which is there; it is returned. */
void *sorted_remove(struct sorted *s, const void *key);

/* Asserts the invariants; KEY_OF tells an item's key. For tests. */
void sorted_validate(const struct sorted *s, const void *(*key_of)(const void *item));

#endif
