/* The flag --data: JSON text, or @FILE with it. */
#ifndef CARILLON_AGENT_CLI_PAYLOAD_H
#define CARILLON_AGENT_CLI_PAYLOAD_H

#include <jansson.h>
#include <stdio.h>

#include "agent/base/err.h"

/* Set JOB's member `payload` from DATA (NULL: leaves it out); "@-" is IN. ERR_INVALID: no JSON; ERR_NOT_FOUND, ERR_IO,
 * ERR_TOO_BIG, ERR_NOMEM. */
int payload_set(json_t *job, const char *data, FILE *in, struct err *e);

#endif
