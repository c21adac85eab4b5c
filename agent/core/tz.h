/* What the wall clocks of a place show: the rules of one IANA zone, read from the bytes of its TZif file (RFC 9636).
 * Pure; files are opened by agent/io/tzload. A zone is immutable, so every function may be called from any thread.
 *
 * Seconds are epoch seconds (UTC) unless they are called wall seconds: the same count as if the wall clock showed UTC,
 * so that wall = instant + offset. Changes of name or summer-time flag that move no clock are not kept.
 *
 * Why not GLib's GTimeZone: it is wrong for Europe/Dublin after 2037, has no walk over changes, which finding and
 * counting dues by arithmetic needs, and reads files itself, which core must not. */
#ifndef CARILLON_CORE_TZ_H
#define CARILLON_CORE_TZ_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

struct tz;

#define TZ_NAME_MAX       63 /* characters of a name */
#define TZ_FILE_MAX_BYTES 262144

/* 2201-01-01T00:00:00Z. A rule for ever ("last Sunday of March") is laid out until here; later instants keep the offset
 * that was in force then. */
#define TZ_END_S ((int64_t)7289654400)

/* Whether S can be the name of a zone: parts of [A-Za-z0-9+_-] joined by '/', beginning with a letter. Refuses what a
 * zone directory holds besides zones (localtime, posixrules, posix/…, right/…). ERR_INVALID. */
int tz_check_name(const char *s, size_t len, struct err *e);

/* Read the TZif file DATA of version 2 or later as the zone NAME. The zone copies what it needs.
 * ERR_INVALID (not such a file, damaged, or counting leap seconds), ERR_TOO_BIG, ERR_NOMEM. */
int tz_parse(const char *name, const void *data, size_t len, struct tz **ret, struct err *e);

/* NULL does nothing; tz_utc() must not be passed. */
void tz_free(struct tz *z);
DEFINE_AUTO(tz_free, struct tz *);

/* UTC, static: needs no file. */
const struct tz *tz_utc(void);

const char *tz_name(const struct tz *z);

/* Seconds to add to AT_S to get what the wall clock shows. */
int32_t tz_offset_s(const struct tz *z, int64_t at_s);

/* The first instant after AT_S at which the offset changes; INT64_MAX when none is known. */
int64_t tz_next_change_s(const struct tz *z, int64_t at_s);

/* A stretch of time with one offset. */
struct tz_span {
    int64_t start_s; /* [start_s, end_s); INT64_MIN and INT64_MAX at the outer ends */
    int64_t end_s;
    int32_t offset_s;
    int32_t before_s; /* offset just before start_s; offset_s in the first span */
    /* Wall seconds from here on were not reached before start_s: later than start_s + offset_s after the
     * clock was set back, earlier after it was set forward */
    int64_t shown_to_s;
    int64_t again_from_s; /* wall seconds from here on will be shown again after end_s; INT64_MAX: none */
};

/* The span that contains AT_S. */
void tz_span_at(const struct tz *z, int64_t at_s, struct tz_span *ret);

enum tz_wall_kind {
    TZ_WALL_ONCE,
    TZ_WALL_GAP,   /* never shown: the clock was set forward over it */
    TZ_WALL_TWICE, /* shown again after the clock was set back */
    TZ_WALL_COUNT_
};

struct tz_wall {
    enum tz_wall_kind kind;
    /* When the clock shows it; GAP: later by the length of the gap (the offset before it applies) */
    int64_t first_s;
    int64_t second_s; /* TWICE: when it shows it for the last time, else = first_s */
};

/* When the clocks of Z show the wall second WALL_S. */
void tz_from_wall(const struct tz *z, int64_t wall_s, struct tz_wall *ret);

#endif
