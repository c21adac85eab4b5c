#include "agent/store/raft/sorted.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "agent/base/mem.h"

/* A chunk is one page. Larger ones move more memory at an insert, smaller ones make the list of chunks long. */
#define CHUNK_ITEMS 511
/* Of a set that is filled at once: full ones would be split by the first that comes in between. */
#define FILL_ITEMS 480
/* Fewer are not moved to a neighbour. */
#define MOVE_MIN (CHUNK_ITEMS / 16)

struct sorted_chunk {
    size_t count;
    void *items[CHUNK_ITEMS];
};

void sorted_init(struct sorted *s, int (*compare)(const void *key, const void *item))
{
    *s = (struct sorted){.compare_ = compare};
}

void sorted_fini(struct sorted *s)
{
    for (size_t i = 0; i < s->chunks_count_; i++)
        mem_free(s->chunks_[i]);
    mem_free(s->chunks_);
    sorted_init(s, s->compare_);
}

size_t sorted_bytes(const struct sorted *s)
{
    return s->chunks_count_ * sizeof(struct sorted_chunk) + s->chunks_cap_ * sizeof(struct sorted_chunk *);
}

/* --- finding ------------------------------------------------------------------------------------------------------- */

/* Whether ITEM lies before the place that is looked for. */
static bool is_before(const struct sorted *s, const void *item, const void *key, bool after)
{
    int order = s->compare_(key, item);
    return order > 0 || (after && order == 0);
}

/* The last chunk whose first item lies before the place, else the first. */
static size_t find_chunk(const struct sorted *s, const void *key, bool after)
{
    size_t low = 0, high = s->chunks_count_;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (is_before(s, s->chunks_[mid]->items[0], key, after))
            low = mid + 1;
        else
            high = mid;
    }
    return low ? low - 1 : 0;
}

/* The place in chunk AT.chunk; behind its last item when all lie before. */
static struct sorted_at seek(const struct sorted *s, const void *key, bool after)
{
    struct sorted_at at = {0};
    if (s->chunks_count_ == 0 || !key)
        return at;
    at.chunk = find_chunk(s, key, after);
    const struct sorted_chunk *c = s->chunks_[at.chunk];
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        /* whichever of them is next: of many items most are in no cache */
        __builtin_prefetch(c->items[low + (mid - low) / 2]);
        __builtin_prefetch(c->items[mid + (high - mid) / 2]);
        if (is_before(s, c->items[mid], key, after))
            low = mid + 1;
        else
            high = mid;
    }
    at.item = low;
    return at;
}

struct sorted_at sorted_seek(const struct sorted *s, const void *key, bool after)
{
    struct sorted_at at = seek(s, key, after);
    if (at.chunk < s->chunks_count_ && at.item == s->chunks_[at.chunk]->count)
        at = (struct sorted_at){at.chunk + 1, 0};
    return at;
}

void *sorted_get(const struct sorted *s, struct sorted_at at)
{
    if (at.chunk >= s->chunks_count_)
        return NULL;
    assert(at.item < s->chunks_[at.chunk]->count);
    return s->chunks_[at.chunk]->items[at.item];
}

void sorted_next(const struct sorted *s, struct sorted_at *at)
{
    if (at->chunk < s->chunks_count_ && ++at->item == s->chunks_[at->chunk]->count)
        *at = (struct sorted_at){at->chunk + 1, 0};
}

bool sorted_prev(const struct sorted *s, struct sorted_at *at)
{
    if (at->item > 0) {
        at->item--;
    } else if (at->chunk > 0) {
        at->chunk--;
        at->item = s->chunks_[at->chunk]->count - 1;
    } else {
        return false;
    }
    return true;
}

void *sorted_find(const struct sorted *s, const void *key)
{
    void *item = sorted_get(s, sorted_seek(s, key, false));
    return item && s->compare_(key, item) == 0 ? item : NULL;
}

/* --- changing ------------------------------------------------------------------------------------------------------ */

static void insert_chunk(struct sorted *s, size_t at, struct sorted_chunk *c)
{
    if (s->chunks_count_ == s->chunks_cap_) {
        size_t cap = s->chunks_cap_ ? 2 * s->chunks_cap_ : 4;
        struct sorted_chunk **grown = mem_new_array(struct sorted_chunk *, cap);
        if (s->chunks_count_ > 0)
            memcpy(grown, s->chunks_, s->chunks_count_ * sizeof(struct sorted_chunk *));
        mem_free(s->chunks_);
        s->chunks_ = grown;
        s->chunks_cap_ = cap;
    }
    memmove(&s->chunks_[at + 1], &s->chunks_[at], (s->chunks_count_ - at) * sizeof(struct sorted_chunk *));
    s->chunks_[at] = c;
    s->chunks_count_++;
}

static void remove_chunk(struct sorted *s, size_t at)
{
    mem_free(s->chunks_[at]);
    s->chunks_count_--;
    memmove(&s->chunks_[at], &s->chunks_[at + 1], (s->chunks_count_ - at) * sizeof(struct sorted_chunk *));
}

/* Make room at the place in a full chunk. What grows at its end, as a load in order does, leaves full chunks behind. */
static void split(struct sorted *s, struct sorted_at *at)
{
    struct sorted_chunk *c = s->chunks_[at->chunk], *next = mem_new(struct sorted_chunk);
    bool at_end = at->chunk + 1 == s->chunks_count_ && at->item == c->count;
    size_t keep = at_end ? c->count - 1 : c->count / 2;
    next->count = c->count - keep;
    memcpy(next->items, &c->items[keep], next->count * sizeof(void *));
    c->count = keep;
    insert_chunk(s, at->chunk + 1, next);
    if (at->item > keep)
        *at = (struct sorted_at){at->chunk + 1, at->item - keep};
}

/* A full chunk gives its neighbour so many that both have as much; false when there is not much room in it. Without that, chunks are
 * two thirds full where items come in between, and half full after a fill. */
static bool give_next(struct sorted *s, struct sorted_at *at)
{
    if (at->chunk + 1 == s->chunks_count_)
        return false;
    struct sorted_chunk *c = s->chunks_[at->chunk], *next = s->chunks_[at->chunk + 1];
    size_t n = (c->count - next->count) / 2;
    if (n < MOVE_MIN)
        return false;
    memmove(&next->items[n], next->items, next->count * sizeof(void *));
    memcpy(next->items, &c->items[c->count - n], n * sizeof(void *));
    next->count += n;
    c->count -= n;
    if (at->item > c->count)
        *at = (struct sorted_at){at->chunk + 1, at->item - c->count};
    return true;
}

static bool give_before(struct sorted *s, struct sorted_at *at)
{
    if (at->chunk == 0)
        return false;
    struct sorted_chunk *c = s->chunks_[at->chunk], *before = s->chunks_[at->chunk - 1];
    size_t n = (c->count - before->count) / 2;
    if (n < MOVE_MIN)
        return false;
    memcpy(&before->items[before->count], c->items, n * sizeof(void *));
    memmove(c->items, &c->items[n], (c->count - n) * sizeof(void *));
    before->count += n;
    c->count -= n;
    if (at->item < n)
        *at = (struct sorted_at){at->chunk - 1, before->count - n + at->item};
    else
        at->item -= n;
    return true;
}

void sorted_insert(struct sorted *s, const void *key, void *item)
{
    struct sorted_at at = seek(s, key, false);
    if (s->chunks_count_ == 0)
        insert_chunk(s, 0, mem_new(struct sorted_chunk));
    if (s->chunks_[at.chunk]->count == CHUNK_ITEMS && !give_next(s, &at) && !give_before(s, &at))
        split(s, &at);
    struct sorted_chunk *c = s->chunks_[at.chunk];
    assert(at.item == c->count || s->compare_(key, c->items[at.item]) < 0);
    memmove(&c->items[at.item + 1], &c->items[at.item], (c->count - at.item) * sizeof(void *));
    c->items[at.item] = item;
    c->count++;
    s->count_++;
}

void sorted_fill(struct sorted *s, void *const *items, size_t count)
{
    assert(s->count_ == 0);
    for (size_t at = 0; at < count;) {
        struct sorted_chunk *c = mem_new(struct sorted_chunk);
        c->count = count - at < FILL_ITEMS ? count - at : FILL_ITEMS;
        memcpy(c->items, &items[at], c->count * sizeof(void *));
        insert_chunk(s, s->chunks_count_, c);
        at += c->count;
    }
    s->count_ = count;
}

/* Two neighbours that fit into three quarters of one become one. */
static void merge(struct sorted *s, size_t at)
{
    struct sorted_chunk *c = s->chunks_[at], *next = s->chunks_[at + 1];
    if (c->count + next->count > CHUNK_ITEMS * 3 / 4)
        return;
    memcpy(&c->items[c->count], next->items, next->count * sizeof(void *));
    c->count += next->count;
    remove_chunk(s, at + 1);
}

void *sorted_remove(struct sorted *s, const void *key)
{
    struct sorted_at at = sorted_seek(s, key, false);
    void *item = sorted_get(s, at);
    assert(item && s->compare_(key, item) == 0);
    struct sorted_chunk *c = s->chunks_[at.chunk];
    c->count--;
    memmove(&c->items[at.item], &c->items[at.item + 1], (c->count - at.item) * sizeof(void *));
    s->count_--;
    if (c->count == 0)
        remove_chunk(s, at.chunk);
    else if (c->count < CHUNK_ITEMS / 4 && at.chunk + 1 < s->chunks_count_)
        merge(s, at.chunk);
    else if (c->count < CHUNK_ITEMS / 4 && at.chunk > 0)
        merge(s, at.chunk - 1);
    return item;
}

void sorted_validate(const struct sorted *s, const void *(*key_of)(const void *item))
{
    size_t count = 0;
    const void *before = NULL;
    for (size_t i = 0; i < s->chunks_count_; i++) {
        const struct sorted_chunk *c = s->chunks_[i];
        assert(c->count > 0 && c->count <= CHUNK_ITEMS);
        for (size_t k = 0; k < c->count; k++) {
            assert(!before || s->compare_(key_of(before), c->items[k]) < 0);
            before = c->items[k];
        }
        count += c->count;
    }
    assert(count == s->count_ && s->chunks_count_ <= s->chunks_cap_);
}
