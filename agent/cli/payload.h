/* The flag --data: what is to be delivered, or @FILE with it; "@-" is IN. */
#ifndef CARILLON_AGENT_CLI_PAYLOAD_H
#define CARILLON_AGENT_CLI_PAYLOAD_H

#include <jansson.h>
#include <stdio.h>

#include "agent/base/err.h"

/* Set JOB's member `payload` from DATA, which is JSON (NULL: leaves it out). ERR_INVALID: no JSON; ERR_NOT_FOUND, ERR_IO,
 * ERR_TOO_BIG, ERR_NOMEM. */
int payload_set(json_t *job, const char *data, FILE *in, struct err *e);
/* The same, but what is no JSON and does not look like it either is delivered as it is, as text/plain. */
int payload_set_any(json_t *job, const char *data, FILE *in, struct err *e);
/* The same for any bytes, which are delivered as they are, as CONTENT_TYPE. Errors as above but ERR_INVALID. */
int payload_set_bytes(json_t *job, const char *data, const char *content_type, FILE *in, struct err *e);

#endif
