#define _GNU_SOURCE
#include "agent/base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What err_wrap(NULL, …) returns: a caller without a record still has to get the right code. */
static _Thread_local enum err_code last_code = ERR_INVALID;

static const char *const code_names[ERR_COUNT_] = {
    [ERR_OK] = "ok",
    [ERR_INVALID] = "invalid",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_EXISTS] = "exists",
    [ERR_CONFLICT] = "conflict",
    [ERR_RETRY] = "retry",
    [ERR_UNAVAILABLE] = "unavailable",
    [ERR_UNKNOWN_OUTCOME] = "unknown_outcome",
    [ERR_TIMEOUT] = "timeout",
    [ERR_REFUSED] = "refused",
    [ERR_PERMANENT] = "permanent",
    [ERR_FENCED] = "fenced",
    [ERR_TOO_BIG] = "too_big",
    [ERR_NOMEM] = "nomem",
    [ERR_IO] = "io",
    [ERR_AUTH] = "auth",
    [ERR_CANCELLED] = "cancelled",
    [ERR_BUSY] = "busy",
    [ERR_NOT_LEADER] = "not_leader",
    [ERR_BAD_STATE] = "bad_state",
    [ERR_PROTOCOL] = "protocol",
};

/* A cut may fall inside a UTF-8 sequence; the text ends up in JSON, where half a character is an error. */
static void trim_broken_utf8(char *text, size_t len)
{
    size_t back = 0;
    while (back < len && back < 3 && ((unsigned char)text[len - 1 - back] & 0xC0) == 0x80)
        back++;
    if (back == len)
        return;
    unsigned char lead = (unsigned char)text[len - 1 - back];
    size_t need = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    if (need > back)
        text[len - 1 - back] = '\0';
}

/* The arguments may point into dst, so the text is built aside. TAIL follows after ": " when it is not empty. */
static void __attribute__((format(printf, 3, 0)))
put_text(char *dst, const char *tail, const char *fmt, va_list ap)
{
    char tmp[sizeof(((struct err *)0)->text)];
    int n = vsnprintf(tmp, sizeof(tmp), fmt, ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(tmp) ? (size_t)n : sizeof(tmp) - 1;
    if (n >= 0 && (size_t)n < sizeof(tmp) && tail && *tail) {
        int m = snprintf(tmp + len, sizeof(tmp) - len, ": %s", tail);
        if (m > 0)
            len = (size_t)m < sizeof(tmp) - len ? len + (size_t)m : sizeof(tmp) - 1;
    }
    tmp[len] = '\0';
    if (len == sizeof(tmp) - 1)
        trim_broken_utf8(tmp, len);
    memcpy(dst, tmp, sizeof(tmp));
}

int(err_set)(struct err *e, enum err_code code, const char *fmt, ...)
{
    assert(code > ERR_OK && code < ERR_COUNT_);
    last_code = code;
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        put_text(e->text, NULL, fmt, ap);
        va_end(ap);
        e->code = code;
        e->sys = 0;
    }
    return -(int)code;
}

static enum err_code code_of_errno(int sys)
{
    switch (sys) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ENOMEM:
        return ERR_NOMEM;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

int(err_sys)(struct err *e, int sys, const char *fmt, ...)
{
    enum err_code code = code_of_errno(sys);
    last_code = code;
    if (e) {
        char reason[80];
        va_list ap;
        va_start(ap, fmt);
        put_text(e->text, strerror_r(sys, reason, sizeof(reason)), fmt, ap);
        va_end(ap);
        e->code = code;
        e->sys = sys;
    }
    return -(int)code;
}

int(err_wrap)(struct err *e, const char *fmt, ...)
{
    if (!e)
        return -(int)last_code;
    char inner[sizeof(e->text)];
    memcpy(inner, e->text, sizeof(inner));
    va_list ap;
    va_start(ap, fmt);
    put_text(e->text, inner, fmt, ap);
    va_end(ap);
    if (e->code == ERR_OK)
        e->code = last_code;
    return -(int)e->code;
}

void err_clear(struct err *e)
{
    if (!e)
        return;
    e->code = ERR_OK;
    e->sys = 0;
    e->text[0] = '\0';
}

const char *err_code_name(enum err_code code)
{
    return (unsigned)code < ERR_COUNT_ ? code_names[code] : "unknown";
}
