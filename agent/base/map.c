#include "agent/base/map.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"

/* Linear probing. A removed entry leaves a tombstone, so that nothing moves under an iteration; tombstones in front of
 * an empty slot are cleared at once, the others when the table is rebuilt. */

#define CAP_MIN 8

static char tombstone; /* its address marks a removed entry */
#define TOMB ((void *)&tombstone)

static bool is_entry(const void *value)
{
    return value && value != TOMB;
}

/* Rebuild at three quarters, tombstones counted. */
static bool is_full(size_t used, size_t cap)
{
    return used + 1 > cap - cap / 4;
}

/* Capacity for COUNT entries to be at most half full, hence also what gets rid of tombstones. */
static size_t cap_for(size_t count)
{
    size_t cap = CAP_MIN;
    while (cap / 2 < count)
        cap *= 2;
    return cap;
}

/* --- byte keys --------------------------------------------------------------------------------------------------- */

struct map_slot_ {
    uint64_t hash;
    const void *key;
    size_t key_len;
    void *value; /* NULL: empty; TOMB: removed */
};

void map_init(struct map *m, uint64_t seed)
{
    *m = (struct map){.seed_ = seed};
}

void map_fini(struct map *m)
{
    mem_free(m->slots_);
    map_init(m, m->seed_);
}

static uint64_t map_hash(const struct map *m, const void *key, size_t key_len)
{
    return XXH3_64bits_withSeed(key, key_len, m->seed_);
}

static struct map_slot_ *map_find(const struct map *m, uint64_t hash, const void *key, size_t key_len)
{
    if (m->count_ == 0)
        return NULL;
    for (size_t i = hash & (m->cap_ - 1);; i = (i + 1) & (m->cap_ - 1)) {
        struct map_slot_ *s = &m->slots_[i];
        if (!s->value)
            return NULL;
        if (s->value != TOMB && s->hash == hash && s->key_len == key_len &&
            (key_len == 0 || memcmp(s->key, key, key_len) == 0))
            return s;
    }
}

/* An absent key's slot; there is always an empty one. */
static struct map_slot_ *map_free_slot(struct map_slot_ *slots, size_t cap, uint64_t hash)
{
    size_t i = hash & (cap - 1);
    while (is_entry(slots[i].value))
        i = (i + 1) & (cap - 1);
    return &slots[i];
}

static int map_rebuild(struct map *m, struct err *e)
{
    size_t cap = cap_for(m->count_ + 1);
    struct map_slot_ *slots = mem_try_array(cap, sizeof(*slots), e);
    if (!slots)
        return err_wrap(e, "grow map of %zu", m->count_);
    for (size_t i = 0; i < m->cap_; i++)
        if (is_entry(m->slots_[i].value))
            *map_free_slot(slots, cap, m->slots_[i].hash) = m->slots_[i];
    mem_free(m->slots_);
    m->slots_ = slots;
    m->cap_ = cap;
    m->used_ = m->count_;
    return 0;
}

int map_put(struct map *m, const void *key, size_t key_len, void *value, void **ret_old, struct err *e)
{
    assert(is_entry(value));
    uint64_t hash = map_hash(m, key, key_len);
    struct map_slot_ *s = map_find(m, hash, key, key_len);
    void *old = s ? s->value : NULL;
    if (!s) {
        if (is_full(m->used_, m->cap_) && map_rebuild(m, e) < 0)
            return err_wrap(e, "put");
        s = map_free_slot(m->slots_, m->cap_, hash);
        m->used_ += s->value != TOMB;
        m->count_++;
    }
    *s = (struct map_slot_){.hash = hash, .key = key, .key_len = key_len, .value = value};
    if (ret_old)
        *ret_old = old;
    return 0;
}

void *map_get(const struct map *m, const void *key, size_t key_len)
{
    struct map_slot_ *s = map_find(m, map_hash(m, key, key_len), key, key_len);
    return s ? s->value : NULL;
}

void *map_remove(struct map *m, const void *key, size_t key_len)
{
    struct map_slot_ *s = map_find(m, map_hash(m, key, key_len), key, key_len);
    if (!s)
        return NULL;
    void *value = s->value;
    *s = (struct map_slot_){.value = TOMB};
    m->count_--;
    size_t mask = m->cap_ - 1, i = (size_t)(s - m->slots_);
    if (!m->slots_[(i + 1) & mask].value) {
        for (; m->slots_[i].value == TOMB; i = (i - 1) & mask) {
            m->slots_[i].value = NULL;
            m->used_--;
        }
    }
    return value;
}

void map_clear(struct map *m)
{
    if (m->slots_)
        memset(m->slots_, 0, m->cap_ * sizeof(*m->slots_));
    m->count_ = m->used_ = 0;
}

bool map_next(const struct map *m, struct map_iter *it)
{
    while (it->pos_ < m->cap_) {
        const struct map_slot_ *s = &m->slots_[it->pos_++];
        if (!is_entry(s->value))
            continue;
        it->key = s->key;
        it->key_len = s->key_len;
        it->value = s->value;
        return true;
    }
    return false;
}

void map_validate(const struct map *m)
{
    assert((m->cap_ & (m->cap_ - 1)) == 0);
    assert(m->cap_ == 0 || m->used_ < m->cap_);
    size_t count = 0, used = 0;
    for (size_t i = 0; i < m->cap_; i++) {
        const struct map_slot_ *s = &m->slots_[i];
        used += s->value != NULL;
        if (!is_entry(s->value))
            continue;
        count++;
        assert(s->hash == map_hash(m, s->key, s->key_len));
        assert(map_find(m, s->hash, s->key, s->key_len) == s);
    }
    assert(count == m->count_ && used == m->used_);
}

/* --- integer keys ------------------------------------------------------------------------------------------------ */

struct map_u64_slot_ {
    uint64_t key;
    void *value;
};

void map_u64_init(struct map_u64 *m, uint64_t seed)
{
    *m = (struct map_u64){.seed_ = seed};
}

void map_u64_fini(struct map_u64 *m)
{
    mem_free(m->slots_);
    map_u64_init(m, m->seed_);
}

static size_t map_u64_start(const struct map_u64 *m, uint64_t key, size_t cap)
{
    return XXH3_64bits_withSeed(&key, sizeof(key), m->seed_) & (cap - 1);
}

static struct map_u64_slot_ *map_u64_find(const struct map_u64 *m, uint64_t key)
{
    if (m->count_ == 0)
        return NULL;
    for (size_t i = map_u64_start(m, key, m->cap_);; i = (i + 1) & (m->cap_ - 1)) {
        struct map_u64_slot_ *s = &m->slots_[i];
        if (!s->value)
            return NULL;
        if (s->value != TOMB && s->key == key)
            return s;
    }
}

static struct map_u64_slot_ *map_u64_free_slot(const struct map_u64 *m, struct map_u64_slot_ *slots,
                                               size_t cap, uint64_t key)
{
    size_t i = map_u64_start(m, key, cap);
    while (is_entry(slots[i].value))
        i = (i + 1) & (cap - 1);
    return &slots[i];
}

static int map_u64_rebuild(struct map_u64 *m, struct err *e)
{
    size_t cap = cap_for(m->count_ + 1);
    struct map_u64_slot_ *slots = mem_try_array(cap, sizeof(*slots), e);
    if (!slots)
        return err_wrap(e, "grow map of %zu", m->count_);
    for (size_t i = 0; i < m->cap_; i++)
        if (is_entry(m->slots_[i].value))
            *map_u64_free_slot(m, slots, cap, m->slots_[i].key) = m->slots_[i];
    mem_free(m->slots_);
    m->slots_ = slots;
    m->cap_ = cap;
    m->used_ = m->count_;
    return 0;
}

int map_u64_put(struct map_u64 *m, uint64_t key, void *value, void **ret_old, struct err *e)
{
    assert(is_entry(value));
    struct map_u64_slot_ *s = map_u64_find(m, key);
    void *old = s ? s->value : NULL;
    if (!s) {
        if (is_full(m->used_, m->cap_) && map_u64_rebuild(m, e) < 0)
            return err_wrap(e, "put");
        s = map_u64_free_slot(m, m->slots_, m->cap_, key);
        m->used_ += s->value != TOMB;
        m->count_++;
    }
    *s = (struct map_u64_slot_){.key = key, .value = value};
    if (ret_old)
        *ret_old = old;
    return 0;
}

void *map_u64_get(const struct map_u64 *m, uint64_t key)
{
    struct map_u64_slot_ *s = map_u64_find(m, key);
    return s ? s->value : NULL;
}

void *map_u64_remove(struct map_u64 *m, uint64_t key)
{
    struct map_u64_slot_ *s = map_u64_find(m, key);
    if (!s)
        return NULL;
    void *value = s->value;
    s->value = TOMB;
    m->count_--;
    size_t mask = m->cap_ - 1, i = (size_t)(s - m->slots_);
    if (!m->slots_[(i + 1) & mask].value) {
        for (; m->slots_[i].value == TOMB; i = (i - 1) & mask) {
            m->slots_[i].value = NULL;
            m->used_--;
        }
    }
    return value;
}

void map_u64_clear(struct map_u64 *m)
{
    if (m->slots_)
        memset(m->slots_, 0, m->cap_ * sizeof(*m->slots_));
    m->count_ = m->used_ = 0;
}

bool map_u64_next(const struct map_u64 *m, struct map_u64_iter *it)
{
    while (it->pos_ < m->cap_) {
        const struct map_u64_slot_ *s = &m->slots_[it->pos_++];
        if (!is_entry(s->value))
            continue;
        it->key = s->key;
        it->value = s->value;
        return true;
    }
    return false;
}

void map_u64_validate(const struct map_u64 *m)
{
    assert((m->cap_ & (m->cap_ - 1)) == 0);
    assert(m->cap_ == 0 || m->used_ < m->cap_);
    size_t count = 0, used = 0;
    for (size_t i = 0; i < m->cap_; i++) {
        const struct map_u64_slot_ *s = &m->slots_[i];
        used += s->value != NULL;
        if (!is_entry(s->value))
            continue;
        count++;
        assert(map_u64_find(m, s->key) == s);
    }
    assert(count == m->count_ && used == m->used_);
}
