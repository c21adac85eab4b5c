/* The rate limit of log lines, as a pure structure: time comes in. Of each (module, message) pair LOG_BURST lines a
 * window are let through, the rest is counted. Bounded: a rare pair may push out the count of another, which is then
 * handed out early. The caller locks. */
#ifndef CARILLON_BASE_LOG_LIMIT_H
#define CARILLON_BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LIMIT_SLOTS 64

struct log_limit_slot {
    const char *module; /* borrowed; NULL allowed */
    const char *msg;    /* borrowed for good: a literal; NULL = free */
    int level;          /* of the newest line */
    uint64_t begin_ms;
    uint32_t passed; /* in this window */
    uint32_t held;   /* not yet reported */
};
struct log_limit {
    struct log_limit_slot slots[LOG_LIMIT_SLOTS]; /* zero-initialised = empty */
};

/* Whether a line of LEVEL, MODULE (compared as text) and MSG (compared by address) may be written at NOW_MS. *RET_HELD gets
 * the number of lines held back since the last one let through, when true. A pair that had to give its slot away with
 * lines held back is copied to *RET_EVICTED (msg NULL otherwise). */
bool log_limit_admit(struct log_limit *l, const char *module, const char *msg, int level, uint64_t now_ms,
                     uint32_t burst, uint64_t window_ms, uint32_t *ret_held,
                     struct log_limit_slot *ret_evicted);

/* Take out a pair whose window is over and that has lines held back. False when there is none. */
bool log_limit_expired(struct log_limit *l, uint64_t now_ms, uint64_t window_ms, struct log_limit_slot *ret);

#endif
