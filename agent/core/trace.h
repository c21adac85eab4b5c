/* W3C Trace Context, level 1: what a request says of the trace it belongs to, and what callbacks say of theirs.
 *
 * A job fires for years, so its callbacks do not go on with the trace of the write that made it: each fire is a trace of its own,
 * each attempt a span of it. All agents and all attempts find the same trace id, because it is a function of the fire's id. The
 * trace that asked for the job stands in tracestate as `carillon=<its traceparent>`, for a link; `sampled` is taken over from it.
 * Pure. Any thread. */
#ifndef CARILLON_CORE_TRACE_H
#define CARILLON_CORE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/record.h"

#define TRACE_PARENT_SIZE 56  /* with NUL */
#define TRACE_STATE_SIZE  513 /* with NUL: 512 bytes are what the standard wants to be passed on at least */

struct trace {
    char parent[TRACE_PARENT_SIZE]; /* "00-<trace id>-<span id>-<flags>"; "": none */
    char state[TRACE_STATE_SIZE];   /* "": none, always so without a parent */
};

/* What a request's headers traceparent and tracestate (several: joined with commas) say; NULL: not there. As the standard wants it,
 * a parent that is wrong is ignored together with its state, a state that is wrong alone; one that is too long loses entries over
 * 128 bytes first, then its last ones. */
void trace_read(const char *parent, const char *state, struct trace *ret);

/* Both as one text, the state behind a space, as it is kept with a fire; and back: what was not written by that is no trace. */
#define TRACE_TEXT_SIZE (TRACE_PARENT_SIZE + TRACE_STATE_SIZE)        /* with NUL */
size_t trace_print(const struct trace *t, char ret[TRACE_TEXT_SIZE]); /* its length; 0: there is no trace */
void trace_parse(const char *text, size_t bytes, struct trace *ret);

/* What one attempt of a fire sends, for a job made by a write that carried PARENT (never wrong) and STATE (NULL: none). */
void trace_of_attempt(const char *parent, const char *state, const struct uid *uid, uint64_t seq,
                      uint32_t attempt, uint64_t epoch, struct trace *ret);

/* --- spans of our own, where they are collected -------------------------------------------------------------------- */

#define TRACE_ID_SIZE   33
#define TRACE_SPAN_SIZE 17

/* Which traces are kept that nobody has decided about before: a share of them, by their ids, so that everybody chooses the same. */
struct trace_rule {
    double ratio; /* 0..1 */
};

struct trace_span {
    char trace[TRACE_ID_SIZE], id[TRACE_SPAN_SIZE]; /* hexadecimal */
    bool sampled;
};

/* What PARENT, as trace_read() gives it, names. */
void trace_span_read(const char *parent, struct trace_span *ret);
/* The span of an attempt: that of trace_of_attempt(). PARENT NULL: RULE says whether it is sampled. ATTEMPT 0 (and EPOCH 0): of the
 * fire itself, which all agents find alike. */
void trace_span_of(const char *parent, const struct trace_rule *rule, const struct uid *uid, uint64_t seq,
                   uint32_t attempt, uint64_t epoch, struct trace_span *ret);
/* A new one, of three random numbers. */
void trace_span_new(const struct trace_rule *rule, const uint64_t random[3], struct trace_span *ret);
/* trace_of_attempt() of a job that no trace asked for. */
void trace_of_untold_attempt(const struct trace_rule *rule, const struct uid *uid, uint64_t seq,
                             uint32_t attempt, uint64_t epoch, struct trace *ret);

#endif
