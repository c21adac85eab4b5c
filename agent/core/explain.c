#include "agent/core/explain.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/explain_private.h"

#define COUNT_MAX 1000000 /* dues counted to number one of a run */

const char *explain_outcome_name(const struct explain_item *item)
{
    switch (item->kind) {
    case EXPLAIN_FIRE:
        return fire_outcome_name(item->outcome);
    case EXPLAIN_FUTURE:
        return "future";
    case EXPLAIN_NOT_DUE:
        return "not_due";
    case EXPLAIN_UNKNOWN:
    case EXPLAIN_KIND_COUNT_:
        break;
    }
    return NULL;
}

void explain_answer_fini(struct explain_answer *a)
{
    for (size_t i = 0; i < a->count; i++)
        mem_free(a->items[i].text);
    mem_free(a->items);
    *a = (struct explain_answer){0};
}

static bool same_uid(const struct uid *a, const struct uid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* --- what was in force when ---------------------------------------------------------------------------------------- */

static bool is_op(const struct explain_change *c, const char *op)
{
    return strcmp(c->row.op, op) == 0;
}

static bool ends_job(const struct explain_change *c)
{
    return is_op(c, "delete") || is_op(c, "expire");
}

/* Whether the definition, or whether there was one, differs before and after C. */
static bool parts_eras(const struct explain_change *c)
{
    return c->was || is_op(c, "create") || ends_job(c);
}

static struct era before(const struct explain_change *c)
{
    struct era e = {
        .kind = ERA_LIVE, .until_ms = c->row.at_ms, .ended = c, .uid = c->row.uid, .spec = c->was};
    if (is_op(c, "create"))
        e.kind = ERA_ABSENT;
    return e;
}

/* What the oldest revision leaves open. */
static void close_oldest(const struct explain_facts *f, struct era *e)
{
    e->from_ms = INT64_MIN;
    if (!f->changes_all)
        e->kind = ERA_UNKNOWN;
    else if (e->kind == ERA_LIVE && f->row && same_uid(&e->uid, &f->row->uid))
        e->from_ms = f->row->created_ms;
}

/* Newest first. */
static size_t make_eras(const struct explain_facts *f, struct era *eras)
{
    size_t n = 0;
    struct era now = {.kind = f->row ? ERA_LIVE : ERA_ABSENT, .until_ms = INT64_MAX, .spec = f->spec};
    if (f->row)
        now.uid = f->row->uid;
    for (size_t i = 0; i < f->changes_count; i++) {
        const struct explain_change *c = &f->changes[i];
        if (!parts_eras(c))
            continue;
        now.from_ms = c->row.at_ms;
        now.begun = c;
        eras[n++] = now;
        now = before(c);
    }
    close_oldest(f, &now);
    eras[n++] = now;
    if (now.from_ms != INT64_MIN)
        eras[n++] = (struct era){.kind = ERA_ABSENT, .from_ms = INT64_MIN, .until_ms = now.from_ms};
    return n;
}

static void turn_round(struct era *eras, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        struct era e = eras[i];
        eras[i] = eras[n - 1 - i];
        eras[n - 1 - i] = e;
    }
}

/* A new schedule counts from when it was accepted; one that stayed as it was counts on. */
static void link_schedules(struct era *eras, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct era *e = &eras[i], *old = i ? &eras[i - 1] : NULL;
        e->accepted_ms = e->from_ms;
        if (!old || !e->spec || !old->spec || !same_uid(&e->uid, &old->uid) ||
            !job_schedule_equal(e->spec, old->spec))
            continue;
        e->accepted_ms = old->accepted_ms;
        old->same_follows = true;
    }
}

static int begin_work(struct explain_work *x, struct err *e)
{
    x->eras = mem_try_array(x->f->changes_count + 2, sizeof(*x->eras), e);
    x->row_used = mem_try_array(x->f->fires_count + 1, sizeof(*x->row_used), e);
    if (!x->eras || !x->row_used)
        return -ERR_NOMEM;
    x->eras_count = make_eras(x->f, x->eras);
    turn_round(x->eras, x->eras_count);
    link_schedules(x->eras, x->eras_count);
    return 0;
}

static void end_work(struct explain_work *x)
{
    for (size_t i = 0; i < x->count; i++)
        mem_free(x->items[i].text);
    mem_free(x->items);
    mem_free(x->eras);
    mem_free(x->row_used);
}

const struct tz *explain_zone(const struct explain_work *x, const struct era *era)
{
    if (era && era->spec)
        return schedule_tz(era->spec->schedule);
    if (x->f->spec)
        return schedule_tz(x->f->spec->schedule);
    for (size_t i = 0; i < x->f->changes_count; i++)
        if (x->f->changes[i].was)
            return schedule_tz(x->f->changes[i].was->schedule);
    return tz_utc();
}

static const struct era *era_at(const struct explain_work *x, int64_t at_ms)
{
    for (size_t i = 0; i < x->eras_count; i++)
        if (at_ms <= x->eras[i].until_ms)
            return &x->eras[i];
    return &x->eras[x->eras_count - 1];
}

const struct explain_change *explain_pause(const struct explain_work *x, int64_t at_ms)
{
    const struct explain_change *pause = NULL;
    for (size_t i = 0; i < x->f->changes_count; i++) {
        const struct explain_change *c = &x->f->changes[i];
        if (c->row.at_ms > at_ms)
            continue;
        if (c->row.state != JOB_STATE_PAUSED)
            return pause;
        pause = c; /* who paused it is the oldest of those that left it so */
        if (is_op(c, "create"))
            return pause;
    }
    return pause;
}

const struct fire_row *explain_survivor(const struct explain_work *x, const struct fire_row *row)
{
    const struct fire_row *best = NULL;
    for (size_t i = 0; i < x->f->fires_count; i++) {
        const struct fire_row *r = &x->f->fires[i];
        if (same_uid(&r->uid, &row->uid) && r->seq > row->seq_last && r->coalesced > 0 &&
            (!best || r->seq < best->seq))
            best = r;
    }
    return best;
}

/* --- items --------------------------------------------------------------------------------------------------------- */

static struct explain_item *add_item(struct explain_work *x, const struct era *era, int64_t due_ms,
                                     enum explain_kind kind, struct err *e)
{
    if (x->count == x->capacity) {
        size_t capacity = x->capacity ? x->capacity * 2 : 16;
        void *items = mem_try_realloc(x->items, capacity, sizeof(*x->items), e);
        if (!items)
            return NULL;
        x->items = items;
        x->capacity = capacity;
    }
    struct explain_item *item = &x->items[x->count++];
    *item = (struct explain_item){
        .due_ms = due_ms, .offset_s = tz_offset_s(explain_zone(x, era), due_ms / 1000), .kind = kind};
    return item;
}

/* OUT becomes the text of ITEM. */
static int finish(struct explain_item *item, struct buf *out, struct err *e)
{
    buf_add_char(out, '.');
    item->text = buf_steal(out, NULL, e);
    return item->text ? 0 : -ERR_NOMEM;
}

typedef void say_fn(struct buf *out, const struct explain_work *x, const struct era *era, int64_t due_ms);

static int add_said(struct explain_work *x, const struct era *era, const struct schedule_due *due,
                    enum explain_kind kind, enum fire_outcome outcome, say_fn *say, struct err *e)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(EXPLAIN_TEXT_MAX);
    struct explain_item *item = add_item(x, era, due->due_ms, kind, e);
    if (!item)
        return -ERR_NOMEM;
    item->outcome = outcome;
    say(&out, x, era, due->due_ms);
    explain_say_note(&out, x, era, due);
    return finish(item, &out, e);
}

/* The seq of the due of a run that came at DUE_MS. */
static uint64_t seq_of(const struct era *era, const struct fire_row *row, int64_t due_ms)
{
    if (row->seq_last == row->seq || due_ms <= row->due_ms || !era || !era->spec)
        return row->seq;
    if (due_ms >= row->due_last_ms)
        return row->seq_last;
    uint64_t seq = row->seq + job_count_dues(era->spec, row->due_ms, due_ms, COUNT_MAX);
    return seq < row->seq_last ? seq : row->seq_last;
}

static int add_row(struct explain_work *x, const struct era *era, size_t r, const struct schedule_due *due,
                   struct err *e)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(EXPLAIN_TEXT_MAX);
    const struct fire_row *row = &x->f->fires[r];
    struct explain_item *item = add_item(x, era, due->due_ms, EXPLAIN_FIRE, e);
    if (!item)
        return -ERR_NOMEM;
    x->row_used[r] = true;
    item->outcome = row->outcome;
    item->reason = row->reason;
    item->has_fire = true;
    item->uid = row->uid;
    item->seq = seq_of(era, row, due->due_ms);
    explain_say_row(&out, x, era, row, due->due_ms);
    explain_say_note(&out, x, era, due);
    return finish(item, &out, e);
}

static int add_ring(struct explain_work *x, const struct era *era, size_t r, const struct schedule_due *due,
                    struct err *e)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(EXPLAIN_TEXT_MAX);
    struct explain_item *item = add_item(x, era, due->due_ms, EXPLAIN_FIRE, e);
    if (!item)
        return -ERR_NOMEM;
    x->ring_used[r] = true;
    item->outcome = FIRE_OUTCOME_SUCCEEDED;
    item->has_fire = true;
    item->uid = x->f->row->uid;
    item->seq = x->f->ring[r].seq;
    explain_say_ring(&out, x, era, &x->f->ring[r]);
    explain_say_note(&out, x, era, due);
    return finish(item, &out, e);
}

/* --- what became of one due ---------------------------------------------------------------------------------------- */

static bool row_covers(const struct fire_row *row, const struct uid *uid, int64_t due_ms)
{
    if (row->kind != FIRE_KIND_SCHEDULED || !same_uid(&row->uid, uid))
        return false;
    return row->seq_last > row->seq ? row->due_ms <= due_ms && due_ms <= row->due_last_ms
                                    : row->due_ms == due_ms;
}

static int find_row(const struct explain_work *x, const struct uid *uid, int64_t due_ms)
{
    for (size_t i = 0; i < x->f->fires_count; i++)
        if (row_covers(&x->f->fires[i], uid, due_ms))
            return (int)i;
    return -1;
}

static int find_ring(const struct explain_work *x, const struct uid *uid, int64_t due_ms)
{
    if (!x->f->row || !same_uid(&x->f->row->uid, uid))
        return -1;
    for (size_t i = 0; i < x->f->ring_count; i++)
        if (x->f->ring[i].due_ms == due_ms)
            return (int)i;
    return -1;
}

/* The last era with the schedule of ERA: its end, or the row, tells which due was next. */
static const struct era *last_of_schedule(const struct explain_work *x, const struct era *era)
{
    while (era->same_follows && era + 1 < x->eras + x->eras_count)
        era++;
    return era;
}

/* A job of max_fires that has had them: what comes after the last one is none. */
static bool is_after_last(const struct explain_work *x, const struct era *era, int64_t due_ms)
{
    const struct job_row *row = x->f->row;
    if (!row || !era->spec || !same_uid(&row->uid, &era->uid) || row->state != JOB_STATE_DONE ||
        !era->spec->max_fires)
        return false;
    int64_t last_ms = RECORD_NONE;
    for (size_t i = 0; i < x->f->ring_count; i++)
        last_ms = last_ms > x->f->ring[i].due_ms ? last_ms : x->f->ring[i].due_ms;
    for (size_t i = 0; i < x->f->fires_count; i++)
        if (x->f->fires[i].kind == FIRE_KIND_SCHEDULED && same_uid(&x->f->fires[i].uid, &row->uid) &&
            last_ms < x->f->fires[i].due_last_ms)
            last_ms = x->f->fires[i].due_last_ms;
    return due_ms > (last_ms == RECORD_NONE ? row->last.due_ms : last_ms);
}

static int add_future(struct explain_work *x, const struct era *era, const struct schedule_due *due,
                      struct err *e)
{
    const struct job_row *row = x->f->row;
    const struct job_spec *spec = era->spec;
    uint64_t left = spec->max_fires > row->scheduled ? spec->max_fires - row->scheduled : 0;
    bool none =
        row->state == JOB_STATE_DONE || (spec->max_fires && row->due_ms != RECORD_NONE &&
                                         job_count_dues(spec, row->due_ms, due->due_ms + 1, left + 1) > left);
    return none ? add_said(x, era, due, EXPLAIN_NOT_DUE, 0, explain_say_finished, e)
                : add_said(x, era, due, EXPLAIN_FUTURE, 0, explain_say_future, e);
}

static void say_deduced(struct buf *out, const struct explain_work *x, const struct era *era, int64_t due_ms)
{
    (void)era;
    (void)due_ms;
    explain_say_deduced(out, x);
}

static void say_forgotten(struct buf *out, const struct explain_work *x, const struct era *era,
                          int64_t due_ms)
{
    (void)era;
    (void)due_ms;
    explain_say_forgotten(out, x);
}

/* Whether a row of this due would be among the facts if there were one. */
static bool row_would_be_here(const struct explain_work *x, const struct uid *uid, int64_t due_ms)
{
    if (due_ms <= x->f->now_ms - x->f->keep_ms)
        return false;
    if (x->f->fires_all)
        return true;
    int64_t oldest_ms = INT64_MAX;
    for (size_t i = 0; i < x->f->fires_count; i++) {
        const struct fire_row *row = &x->f->fires[i];
        /* Dead letters stay when others go because they are too many; a backfill's are new, though of old dues. */
        if (row->kind == FIRE_KIND_SCHEDULED && row->outcome != FIRE_OUTCOME_DEAD &&
            same_uid(&row->uid, uid) && row->due_ms < oldest_ms)
            oldest_ms = row->due_ms;
    }
    return due_ms > oldest_ms;
}

/* Neither row nor ring knows it, and it has come. */
static int add_unseen(struct explain_work *x, const struct era *era, const struct schedule_due *due,
                      struct err *e)
{
    const struct era *last = last_of_schedule(x, era);
    const struct job_row *row = x->f->row;
    int64_t open_ms = last->ended ? last->ended->row.due_ms : row ? job_row_next_due_ms(row) : RECORD_NONE;
    if (is_after_last(x, era, due->due_ms))
        return add_said(x, era, due, EXPLAIN_NOT_DUE, 0, explain_say_finished, e);
    if (open_ms != RECORD_NONE && due->due_ms >= open_ms && last->ended) {
        int r = add_said(x, last, due, EXPLAIN_NOT_DUE, 0, explain_say_dropped, e);
        if (r == 0 && ends_job(last->ended))
            x->items[x->count - 1].reason = FIRE_REASON_DELETED;
        return r;
    }
    if (open_ms != RECORD_NONE && due->due_ms >= open_ms) {
        int r = add_said(x, era, due, EXPLAIN_FIRE, FIRE_OUTCOME_PENDING, explain_say_unbooked, e);
        if (r == 0 && row->state == JOB_STATE_PAUSED)
            x->items[x->count - 1].reason = FIRE_REASON_PAUSED;
        return r;
    }
    if (row_would_be_here(x, &era->uid, due->due_ms))
        return add_said(x, era, due, EXPLAIN_FIRE, FIRE_OUTCOME_SUCCEEDED, say_deduced, e);
    return add_said(x, era, due, EXPLAIN_UNKNOWN, 0, say_forgotten, e);
}

static int add_due(struct explain_work *x, const struct era *era, const struct schedule_due *due,
                   struct err *e)
{
    int r = find_ring(x, &era->uid, due->due_ms);
    if (r >= 0)
        return add_ring(x, era, (size_t)r, due, e);
    r = find_row(x, &era->uid, due->due_ms);
    if (r >= 0)
        return add_row(x, era, (size_t)r, due, e);
    if (due->due_ms > x->f->now_ms && !era->ended)
        return add_future(x, era, due, e);
    return add_unseen(x, era, due, e);
}

static int add_left_out(struct explain_work *x, const struct era *era, const struct schedule_due *due,
                        struct err *e)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(EXPLAIN_TEXT_MAX);
    struct explain_item *item = add_item(x, era, due->due_ms, EXPLAIN_NOT_DUE, e);
    if (!item)
        return -ERR_NOMEM;
    explain_say_left_out(&out, x, era, due);
    return finish(item, &out, e);
}

/* --- the dues of one era ------------------------------------------------------------------------------------------- */

static bool is_asked(const struct explain_work *x, const struct era *era, int64_t due_ms)
{
    const struct explain_span *s = x->span;
    if (!s->wall_width_s || s->gap)
        return true;
    int64_t wall_s = due_ms / 1000 + tz_offset_s(explain_zone(x, era), due_ms / 1000);
    return wall_s >= s->wall_s && wall_s < s->wall_s + s->wall_width_s;
}

/* From the schedule as it is, and as it would be if nothing were left out. */
struct dues {
    const struct schedule *is, *would;
    int64_t accepted_ms, end_ms;
    struct schedule_due is_next, would_next;
    bool has_is, has_would;
};

static bool next_of(const struct dues *d, const struct schedule *s, int64_t after_ms,
                    struct schedule_due *ret)
{
    return schedule_next_accepted(s, d->accepted_ms, after_ms, ret) && ret->due_ms < d->end_ms;
}

static void dues_begin(struct dues *d, int64_t after_ms)
{
    d->has_is = next_of(d, d->is, after_ms, &d->is_next);
    d->has_would = d->would && next_of(d, d->would, after_ms, &d->would_next);
}

/* The next one; *ret_left_out: it is none. */
static bool dues_next(struct dues *d, struct schedule_due *ret, bool *ret_left_out)
{
    if (!d->has_is && !d->has_would)
        return false;
    *ret_left_out = d->has_would && (!d->has_is || d->would_next.due_ms < d->is_next.due_ms);
    *ret = *ret_left_out ? d->would_next : d->is_next;
    if (d->has_would && d->would_next.due_ms <= ret->due_ms)
        d->has_would = next_of(d, d->would, ret->due_ms, &d->would_next);
    if (!*ret_left_out)
        d->has_is = next_of(d, d->is, ret->due_ms, &d->is_next);
    return true;
}

static int64_t end_of(const struct explain_work *x, const struct era *era)
{
    int64_t end_ms = era->until_ms < INT64_MAX ? era->until_ms + 1 : INT64_MAX;
    return end_ms < x->span->to_ms ? end_ms : x->span->to_ms;
}

/* *RET_NEXT_MS: where LIMIT ended it; untouched when it did not. */
static int add_dues(struct explain_work *x, const struct era *era, const struct schedule *would, size_t limit,
                    int64_t *ret_next_ms, struct err *e)
{
    struct dues d = {
        .is = era->spec->schedule, .would = would, .accepted_ms = era->accepted_ms, .end_ms = end_of(x, era)};
    struct schedule_due due;
    bool left_out;
    int r = 0;
    int64_t after_ms = x->span->from_ms - 1;
    if (era->accepted_ms != era->from_ms && era->from_ms > after_ms)
        after_ms = era->from_ms;
    for (dues_begin(&d, after_ms); r == 0 && dues_next(&d, &due, &left_out);) {
        if (!is_asked(x, era, due.due_ms))
            continue;
        if (x->count >= limit) {
            *ret_next_ms = due.due_ms;
            break;
        }
        r = left_out ? add_left_out(x, era, &due, e) : add_due(x, era, &due, e);
    }
    return r;
}

static int add_era(struct explain_work *x, const struct era *era, size_t limit, int64_t *ret_next_ms,
                   struct err *e)
{
    AUTO(schedule_free) struct schedule *would = NULL;
    if (era->kind != ERA_LIVE || !era->spec || era->until_ms < x->span->from_ms)
        return 0;
    if (job_schedule_unskipped(era->spec, &would, NULL) < 0)
        would = NULL; /* without memory what the rules leave out is not told */
    return add_dues(x, era, would, limit, ret_next_ms, e);
}

/* --- what the schedule does not lead to ---------------------------------------------------------------------------- */

/* Runs, backfills, and what is left of jobs whose definition is not known. */
static int add_rest(struct explain_work *x, int64_t end_ms, struct err *e)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < x->f->fires_count; i++) {
        const struct fire_row *row = &x->f->fires[i];
        struct schedule_due due = {.due_ms = row->due_ms > x->span->from_ms ? row->due_ms : x->span->from_ms};
        int64_t last_ms = row->due_last_ms > row->due_ms ? row->due_last_ms : row->due_ms;
        const struct era *era = era_at(x, due.due_ms);
        if (!x->row_used[i] && due.due_ms < end_ms && last_ms >= x->span->from_ms &&
            is_asked(x, era, due.due_ms))
            r = add_row(x, era, i, &due, e);
    }
    for (size_t i = 0; r == 0 && i < x->f->ring_count; i++) {
        struct schedule_due due = {.due_ms = x->f->ring[i].due_ms};
        const struct era *era = era_at(x, due.due_ms);
        if (x->f->row && !x->ring_used[i] && due.due_ms < end_ms && due.due_ms >= x->span->from_ms &&
            is_asked(x, era, due.due_ms))
            r = add_ring(x, era, i, &due, e);
    }
    return r;
}

static int add_nothing(struct explain_work *x, struct err *e)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(EXPLAIN_TEXT_MAX);
    const struct era *era = era_at(x, x->span->from_ms);
    bool unknown = era->kind == ERA_UNKNOWN || (era->kind == ERA_LIVE && !era->spec);
    struct explain_item *item =
        add_item(x, era, x->span->from_ms, unknown ? EXPLAIN_UNKNOWN : EXPLAIN_NOT_DUE, e);
    if (!item)
        return -ERR_NOMEM;
    if (era->kind == ERA_ABSENT && era->begun && ends_job(era->begun))
        item->reason = FIRE_REASON_DELETED;
    explain_say_nothing(&out, x, era);
    return finish(item, &out, e);
}

static int by_due(const void *a, const void *b)
{
    const struct explain_item *x = a, *y = b;
    if (x->due_ms != y->due_ms)
        return x->due_ms < y->due_ms ? -1 : 1;
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* Whole instants only, so that who goes on from the next one neither misses nor repeats any. */
static void cut(struct explain_work *x, size_t limit, int64_t *next_ms)
{
    if (x->count > 1)
        qsort(x->items, x->count, sizeof(*x->items), by_due);
    if (x->count <= limit)
        return;
    size_t n = limit;
    while (n > 0 && x->items[n].due_ms == x->items[n - 1].due_ms)
        n--;
    if (n == 0)
        return; /* all of one instant: as many as there are rows */
    *next_ms = x->items[n].due_ms;
    for (size_t i = n; i < x->count; i++)
        mem_free(x->items[i].text);
    x->count = n;
}

static int explain_all(struct explain_work *x, size_t limit, int64_t *next_ms, struct err *e)
{
    int r = begin_work(x, e);
    for (size_t i = 0; r == 0 && i < x->eras_count && *next_ms == RECORD_NONE; i++)
        r = add_era(x, &x->eras[i], limit, next_ms, e);
    if (r == 0)
        r = add_rest(x, *next_ms == RECORD_NONE ? x->span->to_ms : *next_ms, e);
    if (r == 0 && x->count == 0 && x->span->point)
        r = add_nothing(x, e);
    if (r == 0)
        cut(x, limit, next_ms);
    return r;
}

int explain(const struct explain_facts *facts, const struct explain_span *span, size_t limit,
            struct explain_answer *ret, struct err *e)
{
    struct explain_work x = {.f = facts, .span = span};
    int64_t next_ms = RECORD_NONE;
    assert(limit > 0 && facts->ring_count <= RING_LOG_KEEP_MAX && (!facts->row || facts->spec));
    int r = explain_all(&x, limit, &next_ms, e);
    if (r == 0) {
        *ret = (struct explain_answer){.items = x.items, .count = x.count, .next_ms = next_ms};
        x.items = NULL;
        x.count = 0;
    }
    end_work(&x);
    return r;
}
