/* When a job is due: the union of up to SCHEDULE_EXPRS_MAX expressions in one zone, within [starts_ms, ends_ms). Pure
 * and immutable after schedule_parse, so every other function may be called from any thread. Instants are epoch ms.
 *
 * The zone decides what a wall time means:
 *   - cron whose hour field begins with '*' (and @every) follows elapsed time: due whenever the clock shows a matching
 *     time, so in both passes of a repeated hour and never for an hour that was left out;
 *   - other cron expressions have a fixed hour, and each matching wall time is due once. One that the clock jumps over is
 *     due later by the length of the jump (02:30 at 03:30, RFC 5545 section 3.3.5; SCHEDULE_GAP_SHIFT) or not at all
 *     (SCHEDULE_GAP_SKIP). One that it shows twice is due the first time, the second, or both.
 * Found by bit sets and arithmetic: no function steps through seconds or days. */
#ifndef CARILLON_CORE_SCHEDULE_H
#define CARILLON_CORE_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/tz.h"

#define SCHEDULE_EXPRS_MAX  16
#define SCHEDULE_TEXT_MAX   512 /* bytes of one expression */
#define SCHEDULE_ISSUES_MAX 32
#define SCHEDULE_MIN_MS     ((int64_t)0)
#define SCHEDULE_END_MS     ((int64_t)7258118400000)    /* 2200-01-01T00:00:00Z: no due at or after this */
#define SCHEDULE_PAST_MS    ((int64_t)24 * 3600 * 1000) /* an instant this old is still armed */
#define SCHEDULE_NONE       INT64_MIN

struct schedule;

enum schedule_gap { SCHEDULE_GAP_SHIFT, SCHEDULE_GAP_SKIP, SCHEDULE_GAP_COUNT_ };
enum schedule_repeat {
    SCHEDULE_REPEAT_FIRST,
    SCHEDULE_REPEAT_SECOND,
    SCHEDULE_REPEAT_BOTH,
    SCHEDULE_REPEAT_COUNT_
};
enum schedule_short_month {
    SCHEDULE_SHORT_MONTH_SKIP,
    SCHEDULE_SHORT_MONTH_LAST,
    SCHEDULE_SHORT_MONTH_COUNT_
};

struct schedule_options {
    const struct tz *tz; /* borrowed for the schedule's life; NULL is UTC */
    enum schedule_gap gap;
    enum schedule_repeat repeat;
    enum schedule_short_month short_month;
    int64_t starts_ms; /* SCHEDULE_NONE: unbounded */
    int64_t ends_ms;   /* SCHEDULE_NONE: unbounded */
    /* Dues of @every are at phase_ms plus or minus whole intervals: starts_ms or creation */
    int64_t phase_ms;
    int64_t min_interval_ms; /* least @every; below 1 counts as 1 */
    int64_t jitter_ms;       /* refused when longer than the shortest gap between dues */
    const char *ns;          /* what H hashes; NULL is "" */
    const char *id;
    /* This is a write: @after counts from accepted_ms, past @at are checked, warnings are given. false:
     * read back from the store, where the text is canonical */
    bool arming;
    int64_t accepted_ms; /* when it was accepted; only used while arming */
    /* Arming: the schedule that this one follows, whose instants may have passed; NULL: none, or, with before_unseen, one that is
     * not at hand and may have had all that passed */
    const struct schedule *before;
    bool before_unseen;
};

struct schedule_expr {
    const char *text; /* need not end in NUL */
    size_t len;
};

enum schedule_issue_kind {
    SCHEDULE_WARNING,
    SCHEDULE_ERROR,
    SCHEDULE_ERROR_PAST, /* code `due_in_past` of the API */
    SCHEDULE_ISSUE_KIND_COUNT_
};

/* The job's field that an issue is about. */
enum schedule_field {
    SCHEDULE_FIELD_SCHEDULE,
    SCHEDULE_FIELD_ENDS_AT,
    SCHEDULE_FIELD_JITTER,
    SCHEDULE_FIELD_COUNT_
};

struct schedule_issue {
    enum schedule_issue_kind kind;
    enum schedule_field field;
    size_t expr;    /* which expression (0 for other fields) */
    size_t offset;  /* byte in its text */
    char text[200]; /* one sentence, printable ASCII */
};

/* What was wrong or is worth telling. Errors push out warnings when the list is full. */
struct schedule_issues {
    size_t count;
    struct schedule_issue items[SCHEDULE_ISSUES_MAX];
};

/* Compile N expressions. ISSUES is overwritten, with the first error of each expression and warnings; may be NULL.
 * 0 (issues are warnings), -ERR_INVALID (E tells the first error), -ERR_NOMEM. The caller frees. */
int schedule_parse(const struct schedule_expr *exprs, size_t n, const struct schedule_options *o,
                   struct schedule **ret, struct schedule_issues *issues, struct err *e);

/* NULL does nothing. */
void schedule_free(struct schedule *s);
DEFINE_AUTO(schedule_free, struct schedule *);

/* The expressions as they are stored and answered: single spaces, @after turned into @at. The texts live as long as S. */
size_t schedule_expr_count(const struct schedule *s);
const char *schedule_expr_text(const struct schedule *s, size_t i);

const struct tz *schedule_tz(const struct schedule *s);

/* false when all expressions are instants: then the job is a one-shot and has no misfire window. */
bool schedule_is_recurring(const struct schedule *s);

enum schedule_note {
    SCHEDULE_NOTE_NONE,
    SCHEDULE_NOTE_SHORT_MONTH, /* the day it names was missing */
    SCHEDULE_NOTE_DST_REPEAT,  /* its wall time is shown twice */
    SCHEDULE_NOTE_DST_GAP,     /* its wall time is not shown: moved by the length of the gap */
    SCHEDULE_NOTE_COUNT_
};

/* "dst_gap" …; NULL for NONE. */
const char *schedule_note_name(enum schedule_note note);

/* When expressions agree on an instant, the due carries the note of the one that needs least explanation. */
struct schedule_due {
    int64_t due_ms;
    enum schedule_note note;
};

/* The first due after AFTER_MS (strictly); false if there is none before ends_ms and SCHEDULE_END_MS. */
bool schedule_next(const struct schedule *s, int64_t after_ms, struct schedule_due *ret);

/* The same for a job accepted at ACCEPTED_MS: recurring expressions count from then on, and so do instants beside them; instants
 * alone from SCHEDULE_PAST_MS before (they are due at once). With AFTER_MS = SCHEDULE_NONE: the job's first due. */
bool schedule_next_accepted(const struct schedule *s, int64_t accepted_ms, int64_t after_ms,
                            struct schedule_due *ret);

/* The newest due before BEFORE_MS (strictly); false if there is none. A few dozen times the cost of schedule_next. */
bool schedule_last_before(const struct schedule *s, int64_t before_ms, struct schedule_due *ret);

/* How many dues lie in [FROM_MS, TO_MS), at most CAP. Cron and instants are counted by days, a single @every by
 * division; only several @every, or @every together with cron, are stepped through (at most CAP steps). */
uint64_t schedule_count(const struct schedule *s, int64_t from_ms, int64_t to_ms, uint64_t cap);

/* No two dues at or after FROM_MS are closer than this; INT64_MAX when there are not two. A lower bound: exact for one
 * @every and one cron expression (with its zone's changes), and for instants; for unions of recurring expressions it may
 * be less than what really occurs. Meant for checking jitter at a write: a few milliseconds at most. */
int64_t schedule_min_gap_ms(const struct schedule *s, int64_t from_ms);

/* How much after its due a fire is sent: uniform in [0, JITTER_MAX_MS], the same for the same uid and due on every agent
 * and for ever. */
int64_t schedule_jitter_ms(const uint8_t uid[16], int64_t due_ms, int64_t jitter_max_ms);

#endif
