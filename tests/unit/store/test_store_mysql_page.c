#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/base/mem.h"
#include "agent/store/store_mysql_page.h"

/* COUNT rows, seq 1, 2, 3 …; every STEP-th matches, each of BYTES. */
static void fill(struct my_page *p, size_t count, size_t step, uint64_t bytes)
{
    for (size_t i = 1; i <= count; i++) {
        struct my_page_row *r = my_page_add(p, NULL);
        cr_assert(r != NULL);
        r->key.seq = i;
        r->key.bytes = bytes;
        r->match = i % step == 0;
    }
}

/* The page has EXPECTED keys, each STEP-th; looking ended at LAST, 0: nothing follows. */
static void expect(struct my_page *p, size_t expected, size_t step, uint64_t last)
{
    struct my_key *keys = NULL;
    const struct my_page_row *row;
    size_t count = 99;
    cr_assert(zero(int, my_page_choose(p, &keys, &count, &row, NULL)));
    cr_assert(eq(sz, count, expected));
    for (size_t i = 0; i < count; i++)
        cr_assert(eq(u64, keys[i].seq, (i + 1) * step));
    cr_assert(eq(int, row != NULL, last != 0));
    if (row)
        cr_assert(eq(u64, row->key.seq, last));
    mem_free(keys);
    my_page_fini(p);
}

Test(store_mysql_page, ends_at_its_limit_when_more_follows)
{
    struct my_page p;
    my_page_init(&p, 10, false);
    cr_assert(eq(sz, p.scan, 10));
    fill(&p, 11, 1, 5);
    expect(&p, 10, 1, 10);
    my_page_init(&p, 10, false);
    fill(&p, 10, 1, 5);
    expect(&p, 10, 1, 0);
}

Test(store_mysql_page, ends_where_looking_ended_with_whatever_matched)
{
    struct my_page p;
    my_page_init(&p, 10, true);
    cr_assert(eq(sz, p.scan, MY_PAGE_SCAN_MAX));
    fill(&p, MY_PAGE_SCAN_MAX + 1, 400, 5);
    expect(&p, 2, 400, MY_PAGE_SCAN_MAX);
    my_page_init(&p, 2, true);
    fill(&p, 50, 10, 5);
    expect(&p, 2, 10, 20);
    my_page_init(&p, 10, true);
    fill(&p, 50, 100, 5);
    expect(&p, 0, 100, 0);
}

Test(store_mysql_page, ends_where_its_memory_does)
{
    struct my_page p;
    my_page_init(&p, 10, true);
    fill(&p, 12, 3, MY_FETCH_BYTES / 2);
    expect(&p, 2, 3, 6);
    my_page_init(&p, 10, false);
    fill(&p, 1, 1, 2 * MY_FETCH_BYTES);
    expect(&p, 1, 1, 0);
    my_page_init(&p, 5000, false);
    cr_assert(eq(sz, p.limit, MY_PAGE_LIMIT_MAX));
}

Test(store_mysql_page, without_memory_nothing_is_told)
{
    struct my_page p;
    struct my_key *keys = NULL;
    const struct my_page_row *row = NULL;
    size_t count = 99;
    my_page_init(&p, 10, false);
    fill(&p, 3, 1, 1);
    fault_arm(0);
    cr_assert(eq(int, my_page_choose(&p, &keys, &count, &row, NULL), -ERR_NOMEM));
    cr_assert(fault_fired());
    cr_assert(zero(ptr, keys));
    cr_assert(eq(sz, count, 99));
    my_page_fini(&p);
}
