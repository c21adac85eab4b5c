#include "agent/store/store_mysql_page.h"

#include "agent/base/mem.h"

void my_page_init(struct my_page *p, size_t limit, bool scans)
{
    *p = (struct my_page){.limit = limit < MY_PAGE_LIMIT_MAX ? limit : MY_PAGE_LIMIT_MAX};
    p->scan = scans ? MY_PAGE_SCAN_MAX : p->limit;
}

void my_page_fini(struct my_page *p)
{
    mem_free(p->rows);
    p->rows = NULL;
    p->count = p->cap = 0;
}

struct my_page_row *my_page_add(struct my_page *p, struct err *e)
{
    if (!my_grow((void **)&p->rows, p->count, &p->cap, sizeof(*p->rows), e))
        return NULL;
    struct my_page_row *r = &p->rows[p->count++];
    *r = (struct my_page_row){0};
    return r;
}

/* The rows that match move to the front, the last one looked at stays where it is. Returns how many were looked at. */
static size_t keep_matching(struct my_page *p, size_t *ret_kept)
{
    size_t n = 0, i = 0, end = p->count < p->scan ? p->count : p->scan;
    for (; i < end && n < p->limit; i++)
        if (p->rows[i].match)
            p->rows[n++] = p->rows[i];
    *ret_kept = n;
    return i;
}

int my_page_choose(struct my_page *p, struct my_key **ret_keys, size_t *ret_count,
                   const struct my_page_row **ret_last, struct err *e)
{
    bool cut = false;
    size_t kept, looked = keep_matching(p, &kept);
    struct my_key *keys = mem_try_array(kept + 1, sizeof(*keys), e);
    if (!keys)
        return -ERR_NOMEM;
    for (size_t i = 0; i < kept; i++)
        keys[i] = p->rows[i].key;
    size_t count = my_fetch_fitting(keys, kept, &cut);
    *ret_last = cut ? &p->rows[count - 1] : looked > 0 && looked < p->count ? &p->rows[looked - 1] : NULL;
    *ret_keys = keys;
    *ret_count = count;
    return 0;
}
