/* Logging: logfmt or JSON, a line an event, one write() a line. Lines pass through a bounded queue to a writer thread,
 * so that a full or stuck stderr never holds up a caller: what does not fit is dropped and counted, and the count is
 * written as soon as there is room. (O_NONBLOCK is no way out: the flag belongs to the open file, which we share with
 * whoever started us.) Before log_start and after log_stop lines are written directly. Any thread. */
#ifndef CARILLON_BASE_LOG_H
#define CARILLON_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG, LOG_LEVEL_COUNT_ };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON, LOG_FORMAT_COUNT_ };

/* Names in the order of the enums, for option rows. */
#define LOG_LEVEL_NAMES  ((const char *const[]){"error", "warn", "info", "debug", NULL})
#define LOG_FORMAT_NAMES ((const char *const[]){"logfmt", "json", NULL})

/* Start the writer thread on FD (borrowed; usually 2). ERR_BAD_STATE: already started. ERR_NOMEM, ERR_IO. */
int log_start(int fd, struct err *e);
/* Write what is queued, for at most WAIT_MS, end the thread; later lines go to FD directly. */
void log_stop(uint64_t wait_ms);
/* Effective at once. Before: info, logfmt. */
void log_set(enum log_level level, enum log_format format);
bool log_enabled(enum log_level level);
/* Lines lost so far because the reader of our output was too slow, for metrics. */
uint64_t log_dropped(void);

/* Who speaks. id is borrowed during the call, module is a literal. NULL = no prefix. */
struct log_ctx {
    const char *module; /* "consul" */
    const char *id;     /* of the object; may be NULL */
    bool every;         /* none is held back, however many there are */
};

/* Level: error needs a human, warn says what we do instead, info is life cycle, debug is free.
 * MSG is a constant, the same for each event of its kind. The rest, if any, is a literal format of pairs and its
 * arguments: log_warn(&ctx, "callback failed", "job=%s try=%u", LOGQ(id), n). Integers and %g/%f become numbers in JSON,
 * all else strings. Text of ours without spaces may go through a bare %s, all other text through LOGQ. Lines over
 * LOG_LINE_MAX bytes are cut. More than LOG_BURST lines of the same message and module in LOG_WINDOW_MS are held back
 * (debug never); their number follows as repeated=N on the next one let through, or in a line of its own when the
 * window is over and anything at all is logged. Keeps errno. Cannot fail. */
#define LOG_LINE_MAX             2048
#define LOG_BURST                10
#define LOG_WINDOW_MS            10000
#define log_error(ctx, msg, ...) LOG_AT_(LOG_LEVEL_ERROR, ctx, msg, " " __VA_ARGS__)
#define log_warn(ctx, msg, ...)  LOG_AT_(LOG_LEVEL_WARN, ctx, msg, " " __VA_ARGS__)
#define log_info(ctx, msg, ...)  LOG_AT_(LOG_LEVEL_INFO, ctx, msg, " " __VA_ARGS__)
#define log_debug(ctx, msg, ...) LOG_AT_(LOG_LEVEL_DEBUG, ctx, msg, " " __VA_ARGS__)
#define LOG_AT_(level, ctx, ...)                    \
    do {                                            \
        if (log_enabled(level))                     \
            log_write((level), (ctx), __VA_ARGS__); \
    } while (0)
/* Behind the macros; FMT begins with a space. */
void log_write(enum log_level level, const struct log_ctx *ctx, const char *msg, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* A value from outside, for %s: quoted when it needs to be, control characters, quotes and invalid UTF-8 escaped, cut
 * at LOGQ_MAX bytes with "…" after it. NULL gives "". Valid until the end of the enclosing block. */
#define LOGQ_MAX            128
#define LOGQ_SIZE           (LOGQ_MAX * 6 + 8)
#define LOGQ(s)             log_quote((char[LOGQ_SIZE]){0}, (s), LOGQ_NUL_TERMINATED)
#define LOGQN(s, len)       log_quote((char[LOGQ_SIZE]){0}, (s), (len))
#define LOGQ_NUL_TERMINATED SIZE_MAX
const char *log_quote(char buf[LOGQ_SIZE], const char *s, size_t len);

#endif
