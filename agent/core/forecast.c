#include "agent/core/forecast.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/json.h"
#include "agent/base/map.h"
#include "agent/base/text.h"

#define WALKED_MAX 64 /* dues of one job that are put into their steps one by one; more are counted by step */

struct row {
    char *name;
    uint64_t total;
    uint64_t fires[]; /* by step */
};

struct rows {
    struct map by_name;
    struct row *list[FORECAST_NAMES_MAX + 1];
    size_t count;
};

struct forecast {
    int64_t from_ms, step_ms;
    size_t steps;
    struct row *all;
    struct rows services, members;
};

static void row_free(struct row *r)
{
    if (r)
        mem_free(r->name);
    mem_free(r);
}

static struct row *row_new(const struct forecast *f, const char *name, struct err *e)
{
    struct row *r = mem_try_alloc(sizeof(*r) + f->steps * sizeof(r->fires[0]), e);
    if (r && !(r->name = mem_try_strndup(name, strlen(name), e))) {
        mem_free(r);
        return NULL;
    }
    return r;
}

static struct row *row_of(const struct forecast *f, struct rows *rows, const char *name, struct err *e)
{
    struct row *r = map_get(&rows->by_name, name, strlen(name));
    if (!r && rows->count >= FORECAST_NAMES_MAX) {
        name = "other";
        r = map_get(&rows->by_name, name, strlen(name));
    }
    if (r || !(r = row_new(f, name, e)))
        return r;
    if (map_put(&rows->by_name, r->name, strlen(r->name), r, NULL, e) < 0) {
        row_free(r);
        return NULL;
    }
    rows->list[rows->count++] = r;
    return r;
}

int forecast_new(int64_t from_ms, int64_t step_ms, size_t steps, struct forecast **ret, struct err *e)
{
    assert(steps > 0 && steps <= FORECAST_STEPS_MAX && step_ms > 0);
    struct forecast *f = mem_try_alloc(sizeof(*f), e);
    if (!f)
        return -ERR_NOMEM;
    f->from_ms = from_ms;
    f->step_ms = step_ms;
    f->steps = steps;
    map_init(&f->services.by_name, 1);
    map_init(&f->members.by_name, 2);
    f->all = row_new(f, "", e);
    if (!f->all) {
        forecast_free(f);
        return -ERR_NOMEM;
    }
    *ret = f;
    return 0;
}

static void rows_fini(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        row_free(rows->list[i]);
    map_fini(&rows->by_name);
}

void forecast_free(struct forecast *f)
{
    if (!f)
        return;
    row_free(f->all);
    rows_fini(&f->services);
    rows_fini(&f->members);
    mem_free(f);
}

static void count(struct row *const rows[3], size_t step, uint64_t n)
{
    for (size_t i = 0; i < 3; i++) {
        rows[i]->fires[step] += n;
        rows[i]->total += n;
    }
}

static void walk(const struct forecast *f, const struct job_spec *spec, int64_t first_ms, uint64_t n,
                 struct row *const rows[3])
{
    int64_t due_ms = first_ms - 1;
    while (n-- > 0 && job_next_due(spec, due_ms, &due_ms))
        count(rows, (size_t)((due_ms - f->from_ms) / f->step_ms), 1);
}

static void count_steps(const struct forecast *f, const struct job_spec *spec, int64_t first_ms,
                        uint64_t left, struct row *const rows[3])
{
    for (size_t i = 0; i < f->steps && left > 0; i++) {
        int64_t from_ms = f->from_ms + (int64_t)i * f->step_ms, to_ms = from_ms + f->step_ms;
        if (to_ms <= first_ms)
            continue;
        uint64_t n = job_count_dues(spec, from_ms > first_ms ? from_ms : first_ms, to_ms, left);
        count(rows, i, n);
        left -= n;
    }
}

int forecast_add(struct forecast *f, const struct job_spec *spec, const struct job_row *row,
                 const char *member, struct err *e)
{
    int64_t to_ms = f->from_ms + (int64_t)f->steps * f->step_ms;
    int64_t first_ms = row->due_ms > f->from_ms ? row->due_ms : f->from_ms;
    const char *service = spec->callback.service ? spec->callback.service : "";
    if (row->state != JOB_STATE_ACTIVE || row->due_ms == RECORD_NONE || first_ms >= to_ms)
        return 0;
    uint64_t left = UINT64_MAX;
    if (spec->max_fires)
        left = spec->max_fires > row->scheduled ? spec->max_fires - row->scheduled : 0;
    uint64_t n = job_count_dues(spec, first_ms, to_ms, left < WALKED_MAX + 1 ? left : WALKED_MAX + 1);
    if (n == 0)
        return 0;
    struct row *rows[3] = {f->all, row_of(f, &f->services, service, e), row_of(f, &f->members, member, e)};
    if (!rows[1] || !rows[2])
        return -ERR_NOMEM;
    if (n <= WALKED_MAX)
        walk(f, spec, first_ms, n, rows);
    else
        count_steps(f, spec, first_ms, left, rows);
    return 0;
}

static void print_fires(const struct forecast *f, const struct row *r, struct buf *out)
{
    for (size_t i = 0; i < f->steps; i++)
        buf_addf(out, "%s%llu", i ? "," : "[", (unsigned long long)r->fires[i]);
    buf_add_char(out, ']');
}

static int most_first(const void *a, const void *b)
{
    const struct row *x = *(struct row *const *)a, *y = *(struct row *const *)b;
    if (x->total != y->total)
        return x->total > y->total ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void print_rows(const struct forecast *f, const struct rows *rows, const char *key, struct buf *out)
{
    const struct row *sorted[FORECAST_NAMES_MAX + 1];
    for (size_t i = 0; i < rows->count; i++)
        sorted[i] = rows->list[i];
    if (rows->count > 1)
        qsort(sorted, rows->count, sizeof(const struct row *), most_first);
    buf_addf(out, ",\"%ss\":[", key);
    for (size_t i = 0; i < rows->count; i++) {
        buf_addf(out, "%s{\"%s\":", i ? "," : "", key);
        if (sorted[i]->name[0])
            json_print_string(out, sorted[i]->name, strlen(sorted[i]->name));
        else
            buf_add_str(out, "null");
        buf_add_str(out, ",\"fires\":");
        print_fires(f, sorted[i], out);
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}

void forecast_print(const struct forecast *f, struct buf *out)
{
    char from[TEXT_INSTANT_SIZE], to[TEXT_INSTANT_SIZE], step[TEXT_DURATION_SIZE];
    text_instant_print(from, f->from_ms);
    text_instant_print(to, f->from_ms + (int64_t)f->steps * f->step_ms);
    (void)text_duration_print(step, (uint64_t)f->step_ms); /* its length */
    buf_addf(out, "\"from\":\"%s\",\"to\":\"%s\",\"step\":\"%s\",\"total\":%llu,\"steps\":", from, to, step,
             (unsigned long long)f->all->total);
    print_fires(f, f->all, out);
    print_rows(f, &f->services, "service", out);
    print_rows(f, &f->members, "member", out);
}
