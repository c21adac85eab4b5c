#include "agent/api/problem.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int status;
    unsigned retry_after_s;
    const char *title;
} codes[API_CODE_COUNT_] = {
    [API_OK] = {"ok", 200, 0, "OK"},
    [API_INVALID_JOB] = {"invalid_job", 400, 0, "The job is not valid"},
    [API_INVALID_REQUEST] = {"invalid_request", 400, 0, "The request is not valid"},
    [API_NOT_FOUND] = {"not_found", 404, 0, "There is no such thing"},
    [API_ALREADY_EXISTS] = {"already_exists", 409, 0, "A job with this id exists"},
    [API_VERSION_MISMATCH] = {"version_mismatch", 412, 0, "The job is not in the version you expect"},
    [API_IDEMPOTENCY_MISMATCH] = {"idempotency_mismatch", 422, 0, "This key was used for another body"},
    [API_TOO_LARGE] = {"too_large", 413, 0, "The request is too large"},
    [API_UNSUPPORTED_MEDIA_TYPE] = {"unsupported_media_type", 415, 0, "The content type is not supported"},
    [API_METHOD_NOT_ALLOWED] = {"method_not_allowed", 405, 0, "The path does not know this method"},
    [API_NO_TARGET] = {"no_target", 400, 0, "The job names no callee"},
    [API_LOOPBACK_TARGET] = {"loopback_target", 400, 0, "The callee is a loopback address"},
    [API_UNKNOWN_SECRET] = {"unknown_secret", 400, 0, "A header names a secret that is not there"},
    [API_DUE_IN_PAST] = {"due_in_past", 400, 0, "The instant has passed"},
    [API_SUPERSEDED] = {"superseded", 409, 0, "A later attempt has followed this one"},
    [API_ALREADY_FINISHED] = {"already_finished", 409, 0, "The fire has ended"},
    [API_QUOTA_EXCEEDED] = {"quota_exceeded", 429, 1, "This is more than is granted"},
    [API_UNAUTHORIZED] = {"unauthorized", 401, 0, "The request does not show who sends it"},
    [API_FORBIDDEN] = {"forbidden", 403, 0, "This is not allowed with what the request shows"},
    [API_MISDIRECTED] = {"misdirected", 421, 0, "The request is not for this agent"},
    [API_REPLAYED] = {"replayed", 425, 0, "The request was here before"},
    [API_STORE_UNAVAILABLE] = {"store_unavailable", 503, 1, "The store cannot be used now"},
    [API_NO_OWNER] = {"no_owner", 503, 1, "The job's owner cannot be reached now"},
    [API_OVERLOADED] = {"overloaded", 503, 1, "The agent has too much to do now"},
};

const char *api_code_name(enum api_code c)
{
    assert(c < API_CODE_COUNT_);
    return codes[c].name;
}

int api_code_status(enum api_code c)
{
    assert(c < API_CODE_COUNT_);
    return codes[c].status;
}

unsigned api_code_retry_after_s(enum api_code c)
{
    assert(c < API_CODE_COUNT_);
    return codes[c].retry_after_s;
}

void api_problem_fini(struct api_problem *p)
{
    problems_fini(&p->errors);
    memset(p, 0, sizeof(*p));
}

int api_problem_set(struct api_problem *p, enum api_code code, const char *fmt, ...)
{
    assert(code != API_OK && code < API_CODE_COUNT_);
    if (p->code != API_OK)
        return -ERR_INVALID;
    p->code = code;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(p->detail, sizeof(p->detail), fmt, ap); /* a detail may be cut */
    va_end(ap);
    return -ERR_INVALID;
}

int api_problem_errors(struct api_problem *p, enum api_code code)
{
    size_t n = p->errors.count + p->errors.dropped;
    if (p->errors.nomem && n == 0)
        return api_problem_set(p, API_OVERLOADED, "no memory to read the request");
    if (n == 1 && p->errors.count == 1)
        return api_problem_set(p, code, "%s: %s", p->errors.items[0].pointer, p->errors.items[0].detail);
    return api_problem_set(p, code, "%zu things are wrong; see errors", n);
}

static void print_errors(const struct problems *errors, struct buf *out)
{
    buf_add_str(out, ",\"errors\":[");
    for (size_t i = 0; i < errors->count; i++) {
        buf_add_str(out, i ? ",{\"pointer\":" : "{\"pointer\":");
        json_print_string(out, errors->items[i].pointer, strlen(errors->items[i].pointer));
        buf_add_str(out, ",\"detail\":");
        json_print_string(out, errors->items[i].detail, strlen(errors->items[i].detail));
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}

void api_problem_print(const struct api_problem *p, const char *instance, struct buf *out)
{
    assert(p->code != API_OK);
    buf_addf(out,
             "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":", codes[p->code].title,
             codes[p->code].status);
    json_print_string(out, p->detail, strnlen(p->detail, sizeof(p->detail)));
    buf_addf(out, ",\"code\":\"%s\",\"instance\":", codes[p->code].name);
    json_print_string(out, instance, strlen(instance));
    print_errors(&p->errors, out);
    buf_add_char(out, '}');
}
