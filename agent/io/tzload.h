/* Zones by name, read once each from the system's zone directory (tzdata) and kept: a zone stays valid until
 * tzload_free. A newer tzdata is seen by the next process. Any thread; the first use of a name reads a small
 * file. */
#ifndef CARILLON_IO_TZLOAD_H
#define CARILLON_IO_TZLOAD_H

#include <stddef.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/core/tz.h"

#define TZLOAD_DIR          "/usr/share/zoneinfo"
#define TZLOAD_VERSION_SIZE 16

struct tzload;

/* DIR NULL is $TZDIR, or TZLOAD_DIR without that; it is copied. A missing folder is no error here: UTC works without one. ERR_NOMEM.
 */
int tzload_new(const char *dir, struct tzload **ret, struct err *e);
/* Frees all zones it gave out. NULL does nothing. */
void tzload_free(struct tzload *l);
DEFINE_AUTO(tzload_free, struct tzload *);

/* The zone NAME; UTC needs no file. L owns it. ERR_INVALID (not a name, or its file is no zone),
 * ERR_NOT_FOUND (no such zone), ERR_IO, ERR_TOO_BIG, ERR_NOMEM. */
int tzload_get(struct tzload *l, const char *name, size_t len, const struct tz **ret, struct err *e);

/* Bind SPEC, which job_spec_decode() made, to the zone that it names. Errors of tzload_get() and job_spec_bind(): SPEC can be
 * unreffed then, and nothing else. */
int tzload_bind(struct tzload *l, struct job_spec *spec, struct err *e);

/* Release of the data, such as "2025b"; "unknown" where the folder does not tell. */
const char *tzload_version(const struct tzload *l);

#endif
