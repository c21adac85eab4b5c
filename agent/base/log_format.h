/* One log line from its parts; pure. */
#ifndef CARILLON_BASE_LOG_FORMAT_H
#define CARILLON_BASE_LOG_FORMAT_H

#include <stdint.h>

#include "agent/base/log.h"

struct log_line {
    enum log_level level;
    const struct log_ctx *ctx; /* may be NULL */
    const char *msg;
    const char *fmt;   /* of the pairs: tells which are numbers */
    const char *pairs; /* formatted, " k=v k="v w"" */
    int64_t wall_ms;
    uint32_t repeated; /* 0 = not shown */
};

/* The line with its newline, at most LOG_LINE_MAX bytes, valid UTF-8 without other control characters. Pairs that do
 * not fit are left out and cut=true stands for them. Returns the length; no NUL. */
size_t log_format_line(char out[LOG_LINE_MAX], enum log_format format, const struct log_line *line);

#endif
