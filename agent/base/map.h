/* Hash maps: open addressing, XXH3. `map` has byte-string keys, `map_u64` integer keys; values are pointers that the
 * map never follows nor frees. Keys of `map` are borrowed, usually from inside the value: they must stay unchanged and
 * alive while the entry exists (replacing a value moves the entry to the new key pointer). Growth is amortised; a
 * failed growth leaves the map as it was. One thread at a time. */
#ifndef CARILLON_BASE_MAP_H
#define CARILLON_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"

struct map_slot_;
struct map {
    struct map_slot_ *slots_; /* NULL until the first put */
    size_t cap_;              /* power of two */
    size_t count_;
    size_t used_; /* count_ + tombstones */
    uint64_t seed_;
};

/* Empty map in caller's storage; allocates nothing. SEED keeps outsiders from choosing colliding keys: random per
 * process where keys come from outside (rng_seed_os), any constant elsewhere. */
void map_init(struct map *m, uint64_t seed);
/* Free the table, not the values; the map is then empty and usable. */
void map_fini(struct map *m);
static inline size_t map_count(const struct map *m)
{
    return m->count_;
}

/* VALUE (not NULL) under KEY, replacing what was there; *RET_OLD (may be NULL) gets the old value or NULL.
 * ERR_NOMEM, ERR_TOO_BIG: nothing changed (never when an existing key is replaced). */
int map_put(struct map *m, const void *key, size_t key_len, void *value, void **ret_old, struct err *e);
/* NULL when absent. */
void *map_get(const struct map *m, const void *key, size_t key_len);
/* Take it out; the value, or NULL when absent. Never allocates, never moves other entries. */
void *map_remove(struct map *m, const void *key, size_t key_len);
/* Remove all entries, keep the table. */
void map_clear(struct map *m);

/* for (struct map_iter it = {0}; map_next(m, &it);) { it.value … }: each entry once, in no order. The body may remove
 * any entry (the current one too); after a put in the body the iteration must stop. */
struct map_iter {
    size_t pos_;
    const void *key;
    size_t key_len;
    void *value;
};
bool map_next(const struct map *m, struct map_iter *it);
/* Asserts the invariants; for tests. */
void map_validate(const struct map *m);

/* The same with 64-bit keys, any value of which may be used. */
struct map_u64_slot_;
struct map_u64 {
    struct map_u64_slot_ *slots_;
    size_t cap_;
    size_t count_;
    size_t used_;
    uint64_t seed_;
};
void map_u64_init(struct map_u64 *m, uint64_t seed);
void map_u64_fini(struct map_u64 *m);
static inline size_t map_u64_count(const struct map_u64 *m)
{
    return m->count_;
}
int map_u64_put(struct map_u64 *m, uint64_t key, void *value, void **ret_old, struct err *e);
void *map_u64_get(const struct map_u64 *m, uint64_t key);
void *map_u64_remove(struct map_u64 *m, uint64_t key);
void map_u64_clear(struct map_u64 *m);
struct map_u64_iter {
    size_t pos_;
    uint64_t key;
    void *value;
};
bool map_u64_next(const struct map_u64 *m, struct map_u64_iter *it);
void map_u64_validate(const struct map_u64 *m);

#endif
