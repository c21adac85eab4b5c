/* What one agent tells another with a forwarded request (header Carillon-Context, JSON, signed): what was made or resolved
 * where the request came in, so that the owner does exactly what would have been done there. Any thread. */
#ifndef CARILLON_AGENT_API_CONTEXT_H
#define CARILLON_AGENT_API_CONTEXT_H

#include "agent/base/buf.h"
#include "agent/core/job.h"
#include "agent/core/record.h"
#include "agent/core/trace.h"

#define API_REQUEST_ID_SIZE 17
#define API_CONTEXT_MAX     4096
#define API_TEXT_MAX        300
#define API_ADDRESS_MAX     176

/* A request came in at hop 0. A client of the cluster sends it to some member (hop 1), which sends it to the owner (hop 2);
 * the owner, or who is thought to be it, sends nothing on. */
enum { API_HOP_NONE = 0, API_HOP_ROUTE = 1, API_HOP_FINAL = 2 };

struct api_context {
    unsigned hop;
    char request_id[API_REQUEST_ID_SIZE];
    char id[RECORD_ID_MAX]; /* of a create: made or derived where it came in; "" else */
    bool fresh_id;
    bool repeated;
    struct uid uid;
    uint64_t change_id;
    int64_t accepted_ms;
    int64_t until_ms; /* when who sends this stops waiting, by its clock; 0: of a version that did not say */
    char actor[64];
    char to
        [API_ADDRESS_MAX]; /* the agent it is for, as it is told to others; "": of a version that did not say */
    struct trace trace;    /* of the client's request */
    struct job_defaults defaults; /* its texts point into the two below */
    char app_service[API_TEXT_MAX];
    char app_url[API_TEXT_MAX];
};

/* Copy D with its texts. */
void api_context_set_defaults(struct api_context *c, const struct job_defaults *d);
/* The header's value: printable ASCII. ERR_NOMEM, ERR_TOO_BIG. */
int api_context_print(const struct api_context *c, struct buf *out, struct err *e);
/* ERR_INVALID, ERR_NOMEM; RET is undefined then. */
int api_context_parse(const char *text, struct api_context *ret, struct err *e);

#endif
