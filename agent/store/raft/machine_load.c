/* Many rows at once: each index is put in order by itself, by eight bytes of what it orders by at a time. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"

/* An item with the bytes in the window, as a number. */
struct place {
    uint64_t key;
    void *item;
};

void machine_load_add(struct machine_load *l, enum machine_kind kind, void *row)
{
    struct machine_rows *r = &l->rows[kind];
    if (r->count == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        void **grown = mem_new_array(void *, cap);
        if (r->count > 0)
            memcpy(grown, r->items, r->count * sizeof(*grown));
        mem_free(r->items);
        r->items = grown;
        r->cap = cap;
    }
    r->items[r->count++] = row;
}

/* --- order --------------------------------------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
    uint64_t x = ((const struct place *)a)->key, y = ((const struct place *)b)->key;
    return (x > y) - (x < y);
}

static uint64_t number_of(const uint8_t bytes[8])
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | bytes[i];
    return v;
}

/* The window SKIP of each into its place. *RET_ORDERED: they stand in their order. False: one has no bytes that far, though it is
 * like the others up to there: they are equal. */
static bool look_through(const struct machine_index *index, struct place *p, size_t n, size_t skip,
                         bool *ret_ordered)
{
    *ret_ordered = true;
    for (size_t i = 0; i < n; i++) {
        struct machine_order o = {.skip = skip};
        index->put(p[i].item, &o);
        if (o.at <= skip)
            return false;
        p[i].key = number_of(o.window);
        *ret_ordered &= i == 0 || p[i - 1].key <= p[i].key;
    }
    return true;
}

/* The N places, which are alike before SKIP. False: two are equal. */
static bool order(const struct machine_index *index, struct place *p, size_t n, size_t skip)
{
    bool ordered;
    if (n < 2)
        return true;
    do {
        if (!look_through(index, p, n, skip, &ordered))
            return false;
        if (!ordered)
            qsort(p, n, sizeof(*p), compare_places);
        skip += sizeof(((struct machine_order *)0)->window);
    } while (p[0].key == p[n - 1].key);
    for (size_t i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && p[i].key == p[i + run].key;)
            run++;
        if (!order(index, p + i, run, skip))
            return false;
    }
    return true;
}

/* --- filling ------------------------------------------------------------------------------------------------------- */

static size_t count_labels(const struct machine_rows *jobs)
{
    size_t n = 0;
    for (size_t i = 0; i < jobs->count; i++)
        n += ((const struct machine_job *)jobs->items[i])->labels_count;
    return n;
}

static size_t place_labels(const struct machine_rows *jobs, struct place *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < jobs->count; i++) {
        struct machine_job *job = jobs->items[i];
        for (size_t k = 0; k < job->labels_count; k++)
            ret[n++].item = &job->labels[k];
    }
    return n;
}

static size_t place_rows(const struct machine_index *index, const struct machine_rows *rows,
                         struct place *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->count; i++)
        if (!index->has || index->has(rows->items[i]))
            ret[n++].item = rows->items[i];
    return n;
}

static bool fill(const struct machine_load *l, struct machine *m, const struct machine_index *index)
{
    bool labels = index->kind == MACHINE_LABELS;
    const struct machine_rows *rows = &l->rows[labels ? MACHINE_JOBS : index->kind];
    size_t most = labels ? count_labels(rows) : rows->count;
    AUTO(mem_free) struct place *p = mem_new_array(struct place, most);
    size_t n = labels ? place_labels(rows, p) : place_rows(index, rows, p);
    if (!order(index, p, n, 0))
        return false;
    AUTO(mem_free) void **items = mem_new_array(void *, n);
    for (size_t i = 0; i < n; i++)
        items[i] = p[i].item;
    sorted_fill(machine_index_set(m, index), items, n);
    return true;
}

int machine_load_end(struct machine_load *l, struct machine *m, struct err *e)
{
    for (size_t i = 0; i < MACHINE_INDEXES; i++)
        if (!fill(l, m, machine_index(i)))
            return err_set(e, ERR_PROTOCOL, "the snapshot is damaged: it has a row twice");
    l->ended = true;
    return 0;
}

void machine_load_fini(struct machine_load *l, struct machine *m)
{
    for (size_t kind = 0; kind < MACHINE_KIND_COUNT_; kind++) {
        struct machine_rows *r = &l->rows[kind];
        for (size_t i = 0; !l->ended && i < r->count; i++)
            machine_row_free(m, (enum machine_kind)kind, r->items[i]);
        mem_free(r->items);
    }
    if (!l->ended)
        machine_indexes_fini(m);
}
