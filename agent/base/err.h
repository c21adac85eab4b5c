/* The error record: fallible functions return 0 or -ERR_X and put the text into the caller's record, so that reporting
 * an error cannot itself fail. Every function here accepts e == NULL and then only yields the code. Any thread. */
#ifndef CARILLON_BASE_ERR_H
#define CARILLON_BASE_ERR_H

#include <stdarg.h>

/* A code exists when a caller behaves differently because of it; what to tell people stands in the text. */
enum err_code {
    ERR_OK = 0,
    ERR_INVALID, /* input from outside breaks the contract */
    ERR_NOT_FOUND,
    ERR_EXISTS,
    ERR_CONFLICT,        /* a compare-and-set lost */
    ERR_RETRY,           /* nothing happened; repeat the whole operation */
    ERR_UNAVAILABLE,     /* this peer or node cannot be used now; another may */
    ERR_UNKNOWN_OUTCOME, /* it may have happened; look before repeating */
    ERR_TIMEOUT,
    ERR_REFUSED,   /* the other side understood and said no */
    ERR_PERMANENT, /* repeating cannot help */
    ERR_FENCED,    /* we were declared dead; stop acting */
    ERR_TOO_BIG,   /* over a limit */
    ERR_NOMEM,
    ERR_IO, /* a system call failed; sys says which way */
    ERR_AUTH,
    ERR_CANCELLED,
    ERR_BUSY, /* a queue is full; later */
    ERR_NOT_LEADER,
    ERR_BAD_STATE, /* not legal in this state (OpenSSL owns the name ERR_STATE) */
    ERR_PROTOCOL,  /* the other side sent what its protocol forbids */
    ERR_COUNT_
};

/* Lives on the caller's stack. text: one line, newest context first, cut at its end when too long. */
struct err {
    enum err_code code;
    int sys; /* errno, or 0 */
    char text[200];
};

/* Fill E with CODE (not ERR_OK) and the formatted text; the arguments may point into e->text. Returns -CODE. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set with a code made from errno SYS (ENOENT NOT_FOUND, EEXIST EXISTS, ENOMEM NOMEM, ETIMEDOUT TIMEOUT, other
 * IO); the system's message follows the text: "open 'x': No such file or directory". */
int err_sys(struct err *e, int sys, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put what this function was doing in front of the text: "load snapshot 'x': open 'x': …". Keeps code and sys.
 * Returns -e->code; with e == NULL the code that this thread's last err_set or err_sys gave. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Tells compilers that the three never return 0, else they warn about outputs that "may be" uninitialised. */
static inline int err_negative_(int r)
{
    if (r >= 0)
        __builtin_unreachable();
    return r;
}
#define err_set(...)  err_negative_(err_set(__VA_ARGS__))
#define err_sys(...)  err_negative_(err_sys(__VA_ARGS__))
#define err_wrap(...) err_negative_(err_wrap(__VA_ARGS__))

/* Back to ERR_OK with an empty text. */
void err_clear(struct err *e);

/* "retry", "not_found" …, for logs and metrics; "unknown" outside the enum. Static storage. */
const char *err_code_name(enum err_code code);

#endif
