#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

#include "agent/base/list.h"
#include "agent/base/rng.h"
#include "tests/lib/seed.h"

struct item {
    int id;
    struct list link;
};

static int id_of(struct list *l)
{
    return container_of(l, struct item, link)->id;
}

Test(list, removing_twice_is_harmless)
{
    struct list head, link;
    list_init(&head);
    list_init(&link);
    list_push_back(&head, &link);
    cr_assert(list_linked(&link));
    list_remove(&link);
    list_remove(&link);
    cr_assert(list_empty(&head));
    cr_assert(not(list_linked(&link)));
    cr_assert(list_first(&head) == NULL);
    cr_assert(list_last(&head) == NULL);
    cr_assert(list_pop_front(&head) == NULL);
}

Test(list, safe_walk_may_remove_the_current_link)
{
    struct item items[10];
    struct list head;
    list_init(&head);
    for (int i = 0; i < 10; i++) {
        items[i].id = i;
        list_push_back(&head, &items[i].link);
    }
    int seen = 0;
    LIST_FOR_SAFE(l, &head)
    {
        cr_assert(eq(int, id_of(l), seen++));
        if (id_of(l) % 2)
            list_remove(l);
    }
    cr_assert(eq(int, seen, 10));
    cr_assert(eq(sz, list_length(&head), 5));
}

Test(list, splice_moves_everything_behind)
{
    struct item a = {.id = 1}, b = {.id = 2}, c = {.id = 3};
    struct list to, from;
    list_init(&to);
    list_init(&from);
    list_splice_back(&to, &from);
    cr_assert(list_empty(&to));
    list_push_back(&to, &a.link);
    list_push_back(&from, &b.link);
    list_push_back(&from, &c.link);
    list_splice_back(&to, &from);
    cr_assert(list_empty(&from));
    cr_assert(eq(int, id_of(list_last(&to)), 3));
    cr_assert(eq(sz, list_length(&to), 3));
}

enum { N = 32 };

static void check_same(struct list *head, const int *model, int count)
{
    int i = 0;
    LIST_FOR (l, head) {
        cr_assert(lt(int, i, count));
        cr_assert(eq(int, id_of(l), model[i]));
        cr_assert(l->next->prev == l && l->prev->next == l);
        i++;
    }
    cr_assert(eq(int, i, count));
}

Test(list, behaves_like_an_array)
{
    struct rng r;
    (void)seed_rng(&r, "list");
    struct item items[N];
    int model[N], count = 0;
    struct list head;
    list_init(&head);
    for (int i = 0; i < N; i++) {
        items[i].id = i;
        list_init(&items[i].link);
    }
    for (int step = 0; step < 100000; step++) {
        int id = (int)rng_below(&r, N), at = 0;
        while (at < count && model[at] != id)
            at++;
        if (at < count) {
            list_remove(&items[id].link);
            memmove(model + at, model + at + 1, (size_t)(count - at - 1) * sizeof(int));
            count--;
        } else if (rng_below(&r, 2)) {
            list_push_back(&head, &items[id].link);
            model[count++] = id;
        } else {
            list_push_front(&head, &items[id].link);
            memmove(model + 1, model, (size_t)count * sizeof(int));
            model[0] = id;
            count++;
        }
        check_same(&head, model, count);
    }
}
