/* Why each due of a span fired, was late, was skipped, waits, will come, or is none: a sentence for people and fields for
 * programs. Made from what is kept: the job's row and definition, its ring of first-attempt successes, rows of fires, and
 * revisions, which tell what the job was at an instant of the past, also when it was deleted since. What no record tells is
 * said to be unknown, but for one thing: every fire that is not a first-attempt success has a row for as long as history is
 * kept, so a due of that time without one succeeded at its first attempt.
 * Pure; any thread. */
#ifndef CARILLON_CORE_EXPLAIN_H
#define CARILLON_CORE_EXPLAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/job.h"
#include "agent/core/record.h"

struct buf;
struct err;
struct ring_entry;
struct tz;

#define EXPLAIN_ITEMS_MAX 1000 /* dues of one answer */
#define EXPLAIN_TEXT_MAX  1024 /* bytes of a sentence */
#define EXPLAIN_AT_MAX    40   /* characters of an instant, a local time or a date, with NUL */

/* What is asked about. */
struct explain_span {
    int64_t from_ms;
    int64_t to_ms;
    bool point;     /* one instant, time or day: it is answered also when nothing is due then */
    int64_t wall_s; /* a local time: only what is due while clocks show [wall_s, wall_s + wall_width_s) */
    int64_t wall_width_s; /* 0: not a local time */
    bool gap;             /* the clocks of the zone jump over it */
};

/* Read an instant ("2026-11-23T08:00:00Z", also with an offset: that second, or with a fraction that millisecond), a local
 * time of ZONE ("2026-11-23T09:00", "…:00": that minute or second, both times when clocks show it twice) or a local date
 * ("2026-11-23": that day). ERR_INVALID. */
int explain_at_parse(const char *text, size_t len, const struct tz *zone, struct explain_span *ret,
                     struct err *e);

/* A revision that was no `run`. */
struct explain_change {
    struct revision row;
    struct job_spec *was; /* bound to its zone; NULL: the change kept none, or it cannot be read here */
};

/* All that is known. Borrowed. */
struct explain_facts {
    int64_t now_ms;
    const struct job_row *row; /* NULL: there is no such job now */
    const struct job_spec *spec;
    const struct explain_change *changes; /* newest first */
    size_t changes_count;
    bool changes_all;             /* false: older ones were not read */
    const struct fire_row *fires; /* of any jobs that had the name, in any order */
    size_t fires_count;
    bool fires_all; /* false: older ones than the oldest scheduled here were not read, or are dropped */
    const struct ring_entry *ring;
    size_t ring_count;
    int64_t keep_ms; /* how long the rows of ended fires are kept */
};

enum explain_kind {
    EXPLAIN_FIRE, /* with an outcome, which may be PENDING */
    EXPLAIN_FUTURE,
    EXPLAIN_NOT_DUE,
    EXPLAIN_UNKNOWN, /* no record tells */
    EXPLAIN_KIND_COUNT_
};

struct explain_item {
    int64_t due_ms;
    int32_t offset_s; /* of the job's zone then */
    enum explain_kind kind;
    enum fire_outcome outcome; /* FIRE */
    enum fire_reason reason;
    bool has_fire;
    struct uid uid;
    uint64_t seq;
    char *text; /* owned */
};

struct explain_answer {
    struct explain_item *items; /* by due */
    size_t count;
    int64_t next_ms; /* go on from here; RECORD_NONE: that was all */
};

/* Explain what was due in SPAN: at most LIMIT (1 to EXPLAIN_ITEMS_MAX) dues, but never a part of those of one instant.
 * ERR_NOMEM. */
int explain(const struct explain_facts *facts, const struct explain_span *span, size_t limit,
            struct explain_answer *ret, struct err *e);
void explain_answer_fini(struct explain_answer *a);

/* "pending", "future", "not_due" or an outcome; NULL: unknown. */
const char *explain_outcome_name(const struct explain_item *item);

#endif
