#include <criterion/criterion.h>

#include <stdint.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/slab.h"
#include "tests/lib/seed.h"

#define THINGS 40000

struct thing {
    uint8_t *p;
    size_t bytes;
    uint8_t mark;
};

static void make(struct slab *s, struct thing *t, size_t bytes, uint8_t mark)
{
    *t = (struct thing){slab_get(s, bytes), bytes, mark};
    cr_assert_eq((uintptr_t)t->p % 8, 0);
    memset(t->p, mark, bytes);
}

static void end(struct thing *t)
{
    for (size_t i = 0; i < t->bytes; i++)
        cr_assert_eq(t->p[i], t->mark, "byte %zu of %zu", i, t->bytes);
    slab_put(t->p, t->bytes);
    *t = (struct thing){0};
}

static void end_all(struct thing *things)
{
    for (size_t i = 0; i < THINGS; i++)
        if (things[i].p)
            end(&things[i]);
}

Test(slab, no_two_things_share_a_byte)
{
    struct rng rng;
    seed_rng(&rng, "slab");
    struct slab *s = slab_new();
    struct thing *things = mem_new_array(struct thing, THINGS);
    for (size_t i = 0; i < 10 * THINGS; i++) {
        struct thing *t = &things[rng_below(&rng, THINGS)];
        if (t->p)
            end(t);
        else
            make(s, t, 1 + rng_below(&rng, SLAB_MAX_BYTES + 50), (uint8_t)rng_below(&rng, 256));
    }
    end_all(things);
    mem_free(things);
    slab_free(s);
}

Test(slab, what_is_empty_goes_back_but_for_a_page_of_each_size)
{
    struct slab *s = slab_new();
    struct thing *things = mem_new_array(struct thing, THINGS);
    for (size_t i = 0; i < THINGS; i++)
        make(s, &things[i], i % 2 ? 96 : 200, 7);
    size_t most = slab_pages(s);
    end_all(things);
    cr_assert(most == 0 || most > 4, "%zu", most); /* 0: a build in which malloc does it */
    cr_assert_leq(slab_pages(s), 2);
    mem_free(things);
    slab_free(s);
}

Test(slab, a_thing_outlives_it)
{
    struct slab *s = slab_new();
    struct thing things[2];
    make(s, &things[0], 24, 1);
    make(s, &things[1], 100, 2);
    slab_free(s);
    end(&things[0]);
    end(&things[1]);
}

Test(slab, nothing_of_any_size_is_a_thing_to_put_back)
{
    slab_put(NULL, 0);
    slab_put(NULL, 100000);
    slab_free(NULL);
}

Test(slab, what_it_gave_fits_what_it_would_give_again)
{
    cr_assert(slab_fits(40, 40));
    cr_assert(slab_fits(600, 600));
    cr_assert_not(slab_fits(40, 41));
    cr_assert_not(slab_fits(64, 32));
    cr_assert_not(slab_fits(600, 601));
}
