/* Shared by the files of explain; nobody else includes it. explain.c: what was in force when, and what became of each due ·
 * explain_text.c: the sentences · explain_at.c: reading what is asked about. */
#ifndef CARILLON_CORE_EXPLAIN_PRIVATE_H
#define CARILLON_CORE_EXPLAIN_PRIVATE_H

#include "agent/base/buf.h"
#include "agent/core/explain.h"
#include "agent/core/ring_log.h"
#include "agent/core/schedule.h"
#include "agent/core/tz.h"

enum era_kind {
    ERA_ABSENT,  /* there was no job of that name */
    ERA_LIVE,    /* there was, defined by `spec` (NULL: how is not kept) */
    ERA_UNKNOWN, /* longer ago than what is kept tells */
};

/* A stretch of time in which one definition was in force: (from_ms, until_ms]. */
struct era {
    enum era_kind kind;
    int64_t from_ms, until_ms;
    const struct job_spec *spec;
    struct uid uid;
    const struct explain_change *begun, *ended; /* NULL: not known; nothing ended it */
    int64_t accepted_ms; /* from when its schedule counts: the definition before may have had the same */
    bool same_follows;   /* the next era's schedule is the same one */
};

struct explain_work {
    const struct explain_facts *f;
    const struct explain_span *span;
    struct era *eras; /* oldest first, without gaps */
    size_t eras_count;
    bool *row_used;
    bool ring_used[RING_LOG_KEEP_MAX];
    struct explain_item *items;
    size_t count, capacity;
};

/* The zone in which things of ERA are told. */
const struct tz *explain_zone(const struct explain_work *x, const struct era *era);
/* The newest change at or before AT_MS that left the job paused, if it was so then; NULL: it was not, or who did it is not
 * known. */
const struct explain_change *explain_pause(const struct explain_work *x, int64_t at_ms);
/* The fire that took ROW's dues over, NULL: not kept. */
const struct fire_row *explain_survivor(const struct explain_work *x, const struct fire_row *row);

/* --- explain_text.c: each appends a sentence without full stop ----------------------------------------------------- */
void explain_say_row(struct buf *out, const struct explain_work *x, const struct era *era,
                     const struct fire_row *row, int64_t due_ms);
void explain_say_ring(struct buf *out, const struct explain_work *x, const struct era *era,
                      const struct ring_entry *entry);
void explain_say_deduced(struct buf *out, const struct explain_work *x);
void explain_say_forgotten(struct buf *out, const struct explain_work *x);
/* Ended with the definition, before it could be fired. */
void explain_say_dropped(struct buf *out, const struct explain_work *x, const struct era *era,
                         int64_t due_ms);
/* Come, and not in any record yet. */
void explain_say_unbooked(struct buf *out, const struct explain_work *x, const struct era *era,
                          int64_t due_ms);
void explain_say_future(struct buf *out, const struct explain_work *x, const struct era *era, int64_t due_ms);
void explain_say_finished(struct buf *out, const struct explain_work *x, const struct era *era,
                          int64_t due_ms);
/* A due that the rules of its job leave out. */
void explain_say_left_out(struct buf *out, const struct explain_work *x, const struct era *era,
                          const struct schedule_due *due);
/* Nothing is due at the point that was asked about. */
void explain_say_nothing(struct buf *out, const struct explain_work *x, const struct era *era);
/* " (02:30 does not exist …)", or nothing. */
void explain_say_note(struct buf *out, const struct explain_work *x, const struct era *era,
                      const struct schedule_due *due);

#endif
