/* What a refused request is told: RFC 9457 problem documents with the contract's codes. Any thread. */
#ifndef CARILLON_AGENT_API_PROBLEM_H
#define CARILLON_AGENT_API_PROBLEM_H

#include "agent/base/buf.h"
#include "agent/base/json.h"

/* The contract's codes that an agent gives today; their names, statuses and titles stand in problem.c. */
enum api_code {
    API_OK,
    API_INVALID_JOB,
    API_INVALID_REQUEST,
    API_NOT_FOUND,
    API_ALREADY_EXISTS,
    API_VERSION_MISMATCH,
    API_IDEMPOTENCY_MISMATCH,
    API_TOO_LARGE,
    API_UNSUPPORTED_MEDIA_TYPE,
    API_METHOD_NOT_ALLOWED,
    API_NO_TARGET,
    API_LOOPBACK_TARGET,
    API_UNKNOWN_SECRET,
    API_DUE_IN_PAST,
    API_SUPERSEDED,
    API_ALREADY_FINISHED,
    API_QUOTA_EXCEEDED,
    API_UNAUTHORIZED,
    API_FORBIDDEN,
    API_MISDIRECTED,
    API_REPLAYED, /* between agents alone */
    API_STORE_UNAVAILABLE,
    API_NO_OWNER,
    API_OVERLOADED,
    API_CODE_COUNT_
};

struct api_problem {
    enum api_code code; /* API_OK: none */
    char detail[200];
    struct problems errors; /* where: "#/…" in the body, "?name" a query parameter, else a header's name */
    unsigned allow;         /* METHOD_NOT_ALLOWED: bits of enum api_method that the path has */
};

const char *api_code_name(enum api_code c);
int api_code_status(enum api_code c);
/* Seconds for Retry-After, 0: none. */
unsigned api_code_retry_after_s(enum api_code c);

/* Zero-initialised is empty. */
void api_problem_fini(struct api_problem *p);
/* Say why; the first call counts. Returns -ERR_INVALID, so a refusing function can end with it. */
int api_problem_set(struct api_problem *p, enum api_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Fill in code and detail for a list of errors found: P's own, or ERRORS that are moved into it. */
int api_problem_errors(struct api_problem *p, enum api_code code);
/* The document, one line, appended to OUT. INSTANCE: the request's id. */
void api_problem_print(const struct api_problem *p, const char *instance, struct buf *out);

#endif
