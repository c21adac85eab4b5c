/* A page of a list in two steps, as store_mysql_fetch has it: a query gives the keys that the page may look at, in its order and
 * one more than it looks at, and which of them match; what matches, up to the limit, is then read whole. */
#ifndef CARILLON_STORE_STORE_MYSQL_PAGE_H
#define CARILLON_STORE_STORE_MYSQL_PAGE_H

#include "agent/store/store_mysql_fetch.h"

#define MY_PAGE_LIMIT_MAX 1000
/* Keys that a page looks at when filters apply that no index knows. */
#define MY_PAGE_SCAN_MAX 1000

/* What the query gave of one row: its key, and where it stands in the list. */
struct my_page_row {
    struct my_key key;
    bool match;
    int64_t due_ms;         /* of a fire */
    char ns[RECORD_NS_MAX]; /* of a job, with its id */
    char id[RECORD_ID_MAX];
};

struct my_page {
    size_t limit, scan;
    struct my_page_row *rows;
    size_t count, cap;
};

/* SCANS: whether filters apply that no index knows. */
void my_page_init(struct my_page *p, size_t limit, bool scans);
void my_page_fini(struct my_page *p);

/* A row of the query, zeroed, at the page's end; NULL without memory. */
struct my_page_row *my_page_add(struct my_page *p, struct err *e);

/* Keep what matches, as many as the limit and the memory of one page allow. RET_KEYS (to be freed) are theirs, RET_LAST is the
 * row where looking ended, NULL where nothing follows. -ERR_NOMEM. */
int my_page_choose(struct my_page *p, struct my_key **ret_keys, size_t *ret_count,
                   const struct my_page_row **ret_last, struct err *e);

#endif
