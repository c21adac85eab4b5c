/* Files with jobs: JSON or YAML; one job, a list of them, several documents, or what `carillon job list --json` printed. */
#ifndef CARILLON_AGENT_CLI_DOCUMENT_H
#define CARILLON_AGENT_CLI_DOCUMENT_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"

#define DOCUMENT_BYTES_MAX ((size_t)64 << 20)
#define DOCUMENT_JOBS_MAX  100000

/* All of FILE, or of IN when FILE is "-", appended to OUT. ERR_NOT_FOUND, ERR_IO, ERR_INVALID, ERR_TOO_BIG, ERR_NOMEM. */
int document_read_file(const char *file, FILE *in, struct buf *out, struct err *e);

/* The jobs in TEXT as a new array of objects. NAME stands in errors. ERR_INVALID, ERR_TOO_BIG, ERR_NOMEM. */
int document_jobs(const char *name, const char *text, size_t len, json_t **ret, struct err *e);

#endif
