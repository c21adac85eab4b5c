#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "tests/lib/seed.h"

Test(map, finds_what_was_put_until_removed)
{
    struct map m;
    map_init(&m, 1);
    int v = 0, w = 0;
    void *old = &w;
    cr_assert(map_get(&m, "a", 1) == NULL);
    cr_assert(zero(int, map_put(&m, "a", 1, &v, &old, NULL)));
    cr_assert(old == NULL);
    cr_assert(zero(int, map_put(&m, "", 0, &w, NULL, NULL)));
    cr_assert(map_get(&m, "a", 1) == &v);
    cr_assert(map_get(&m, "", 0) == &w);
    cr_assert(zero(int, map_put(&m, "a", 1, &w, &old, NULL)));
    cr_assert(old == &v);
    cr_assert(map_remove(&m, "a", 1) == &w);
    cr_assert(map_remove(&m, "a", 1) == NULL);
    cr_assert(eq(sz, map_count(&m), 1));
    map_fini(&m);
}

Test(map, keys_may_hold_any_byte)
{
    struct map m;
    map_init(&m, 1);
    int a, b;
    cr_assert(zero(int, map_put(&m, "x\0y", 3, &a, NULL, NULL)));
    cr_assert(zero(int, map_put(&m, "x\0z", 3, &b, NULL, NULL)));
    cr_assert(map_get(&m, "x\0y", 3) == &a);
    cr_assert(map_get(&m, "x", 1) == NULL);
    map_fini(&m);
}

Test(map, failed_growth_changes_nothing)
{
    struct map m;
    map_init(&m, 1);
    char keys[100][12];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(keys[i], sizeof(keys[i]), "%d", i);
        struct err e;
        fault_arm(0);
        int r = map_put(&m, keys[i], strlen(keys[i]), keys[i], NULL, &e);
        if (fault_fired()) {
            cr_assert(eq(int, r, -ERR_NOMEM));
            cr_assert(eq(sz, map_count(&m), (size_t)i));
            cr_assert(map_get(&m, keys[i], strlen(keys[i])) == NULL);
            map_validate(&m);
            r = map_put(&m, keys[i], strlen(keys[i]), keys[i], NULL, &e);
        }
        cr_assert(zero(int, r));
    }
    map_fini(&m);
}

Test(map, churn_does_not_grow_the_table)
{
    struct map_u64 m;
    map_u64_init(&m, 7);
    int v;
    for (uint64_t i = 0; i < 1000000; i++) {
        cr_assert(zero(int, map_u64_put(&m, i, &v, NULL, NULL)));
        if (i >= 10)
            cr_assert(map_u64_remove(&m, i - 10) == &v);
    }
    cr_assert(le(sz, m.cap_, 64));
    map_u64_fini(&m);
}

enum { N = 300 };
struct entry {
    char key[16];
    size_t len;
    bool in;
    bool seen;
};

static void iterate_and_remove(struct map *m, struct entry *entries, struct rng *r, size_t *count)
{
    for (int i = 0; i < N; i++)
        entries[i].seen = false;
    size_t expected = *count, seen = 0;
    for (struct map_iter it = {0}; map_next(m, &it); seen++) {
        struct entry *x = it.value;
        cr_assert(x->in && !x->seen);
        x->seen = true;
        if (rng_below(r, 2)) {
            cr_assert(map_remove(m, it.key, it.key_len) == x);
            x->in = false;
            --*count;
        }
    }
    cr_assert(eq(sz, seen, expected));
}

Test(map, behaves_like_a_table_of_flags)
{
    struct rng r;
    (void)seed_rng(&r, "map");
    struct map m;
    map_init(&m, rng_u64(&r));
    static struct entry entries[N];
    size_t count = 0;
    for (int i = 0; i < N; i++)
        entries[i].len = (size_t)snprintf(entries[i].key, sizeof(entries[i].key), "key-%d", i);
    for (int step = 0; step < 100000; step++) {
        struct entry *x = &entries[rng_below(&r, N)];
        cr_assert(x->in == (map_get(&m, x->key, x->len) == x));
        if (rng_below(&r, 2)) {
            void *old;
            cr_assert(zero(int, map_put(&m, x->key, x->len, x, &old, NULL)));
            cr_assert(x->in == (old != NULL));
            count += !x->in;
            x->in = true;
        } else {
            cr_assert(x->in == (map_remove(&m, x->key, x->len) != NULL));
            count -= x->in;
            x->in = false;
        }
        cr_assert(eq(sz, map_count(&m), count));
        if (step % 64 == 0)
            map_validate(&m);
        if (step % 5000 == 0)
            iterate_and_remove(&m, entries, &r, &count);
        if (step % 33333 == 0) {
            map_clear(&m);
            count = 0;
            for (int i = 0; i < N; i++)
                entries[i].in = false;
        }
    }
    map_fini(&m);
}

Test(map, integer_keys_behave_like_a_table_of_flags)
{
    struct rng r;
    (void)seed_rng(&r, "map");
    struct map_u64 m;
    map_u64_init(&m, rng_u64(&r));
    static int values[N];
    static bool in[N];
    for (int step = 0; step < 100000; step++) {
        uint64_t i = rng_below(&r, N), key = i * UINT64_C(0x100000001) - 5;
        cr_assert(in[i] == (map_u64_get(&m, key) == &values[i]));
        void *old;
        if (rng_below(&r, 2)) {
            cr_assert(zero(int, map_u64_put(&m, key, &values[i], &old, NULL)));
            in[i] = true;
        } else {
            old = map_u64_remove(&m, key);
            cr_assert(in[i] == (old != NULL));
            in[i] = false;
        }
        if (step % 64 == 0)
            map_u64_validate(&m);
    }
    size_t seen = 0, expected = map_u64_count(&m);
    for (struct map_u64_iter it = {0}; map_u64_next(&m, &it); seen++)
        cr_assert(map_u64_remove(&m, it.key) == it.value);
    cr_assert(eq(sz, seen, expected));
    cr_assert(zero(sz, map_u64_count(&m)));
    map_u64_clear(&m);
    map_u64_fini(&m);
}
