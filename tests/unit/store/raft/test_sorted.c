#include <criterion/criterion.h>

#include <stdlib.h>

#include "agent/base/mem.h"
#include "agent/store/raft/sorted.h"
#include "tests/lib/seed.h"

static int compare(const void *key, const void *item)
{
    int a = *(const int *)key, b = *(const int *)item;
    return (a > b) - (a < b);
}

static const void *key_of(const void *item)
{
    return item;
}

#define NUMBERS 6000

struct model {
    struct sorted s;
    int numbers[NUMBERS]; /* n at n */
    bool in[NUMBERS];
    size_t count;
};

static struct model *model_new(void)
{
    struct model *m = mem_new(struct model);
    sorted_init(&m->s, compare);
    for (int i = 0; i < NUMBERS; i++)
        m->numbers[i] = i;
    return m;
}

static void model_free(struct model *m)
{
    sorted_fini(&m->s);
    mem_free(m);
}

static void toggle(struct model *m, int n)
{
    if (m->in[n])
        cr_assert_eq(sorted_remove(&m->s, &n), &m->numbers[n]);
    else
        sorted_insert(&m->s, &n, &m->numbers[n]);
    m->count += m->in[n] ? (size_t)-1 : 1;
    m->in[n] = !m->in[n];
}

static void check_order(struct model *m)
{
    struct sorted_at at = sorted_seek(&m->s, NULL, false);
    sorted_validate(&m->s, key_of);
    cr_assert_eq(sorted_count(&m->s), m->count);
    for (int i = 0; i < NUMBERS; i++) {
        cr_assert_eq(sorted_find(&m->s, &i), m->in[i] ? &m->numbers[i] : NULL);
        if (!m->in[i])
            continue;
        cr_assert_eq(sorted_get(&m->s, at), &m->numbers[i]);
        sorted_next(&m->s, &at);
    }
    cr_assert_null(sorted_get(&m->s, at));
    for (int i = NUMBERS - 1; i >= 0; i--)
        if (m->in[i]) {
            cr_assert(sorted_prev(&m->s, &at));
            cr_assert_eq(sorted_get(&m->s, at), &m->numbers[i]);
        }
    cr_assert_not(sorted_prev(&m->s, &at));
}

/* Around KEY: at or after it, strictly after it, before it. */
static void check_seek(struct model *m, int key)
{
    for (int after = 0; after < 2; after++) {
        struct sorted_at at = sorted_seek(&m->s, &key, after);
        int n = key + after, before = key + after - 1;
        while (n < NUMBERS && !m->in[n])
            n++;
        cr_assert_eq(sorted_get(&m->s, at), n < NUMBERS ? &m->numbers[n] : NULL);
        while (before >= 0 && !m->in[before])
            before--;
        cr_assert_eq(sorted_prev(&m->s, &at), before >= 0);
        if (before >= 0)
            cr_assert_eq(sorted_get(&m->s, at), &m->numbers[before]);
    }
}

Test(sorted, it_holds_what_an_array_of_flags_holds)
{
    struct model *m = model_new();
    struct rng rng;
    seed_rng(&rng, "sorted");
    for (int round = 0; round < 12; round++) {
        int low = (int)rng_below(&rng, NUMBERS / 2); /* now here, now there, so that chunks fill and empty */
        for (int i = 0; i < 4000; i++) {
            toggle(m, low + (int)rng_below(&rng, NUMBERS / 2));
            if (i % 50 == 0)
                check_seek(m, (int)rng_below(&rng, NUMBERS));
        }
        check_order(m);
    }
    for (int i = 0; i < NUMBERS; i++)
        if (m->in[i])
            toggle(m, i);
    check_order(m);
    model_free(m);
}

Test(sorted, a_load_in_order_leaves_no_holes)
{
    struct model *m = model_new();
    for (int i = 0; i < NUMBERS; i++)
        toggle(m, i);
    check_order(m);
    cr_assert_lt(sorted_bytes(&m->s), NUMBERS * 9);
    model_free(m);
}

Test(sorted, what_was_filled_at_once_takes_what_comes_in_between)
{
    struct model *m = model_new();
    struct rng rng;
    void **items = mem_new_array(void *, NUMBERS);
    seed_rng(&rng, "sorted");
    for (int i = 0; i < NUMBERS; i += 2) {
        items[m->count++] = &m->numbers[i];
        m->in[i] = true;
    }
    sorted_fill(&m->s, items, m->count);
    check_order(m);
    for (int i = 0; i < 5000; i++)
        toggle(m, (int)rng_below(&rng, NUMBERS));
    check_order(m);
    mem_free(items);
    model_free(m);
}

Test(sorted, nothing_fills_nothing)
{
    struct sorted s;
    sorted_init(&s, compare);
    sorted_fill(&s, NULL, 0);
    cr_assert_eq(sorted_bytes(&s), 0);
    sorted_fini(&s);
}

Test(sorted, items_that_come_in_between_fill_the_neighbours_too)
{
    struct model *m = model_new();
    struct rng rng;
    rng_init(&rng, 1); /* how full they become is chance */
    for (int i = 0; i < NUMBERS - 1; i += 2)
        toggle(m, i);
    for (int left = NUMBERS / 2; left > 0;) {
        int n = (int)rng_below(&rng, NUMBERS);
        left -= !m->in[n];
        if (!m->in[n])
            toggle(m, n);
    }
    check_order(m);
    cr_assert_lt(sorted_bytes(&m->s), NUMBERS * 11);
    model_free(m);
}
