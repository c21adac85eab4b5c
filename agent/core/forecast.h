/* How many fires a span will bring, step by step: in all, by service, by member. Counted from the definitions as they are, by
 * arithmetic; retries and runs are not known before. Pure; one thread at a time. */
#ifndef CARILLON_CORE_FORECAST_H
#define CARILLON_CORE_FORECAST_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/mem.h"
#include "agent/core/job.h"

struct buf;
struct err;
struct forecast;

#define FORECAST_STEPS_MAX 288
#define FORECAST_NAMES_MAX 500 /* services, and members; the rest counts as "other" */

/* STEPS (1 to FORECAST_STEPS_MAX) of STEP_MS each from FROM_MS on. ERR_NOMEM. */
int forecast_new(int64_t from_ms, int64_t step_ms, size_t steps, struct forecast **ret, struct err *e);
void forecast_free(struct forecast *f); /* NULL does nothing */
DEFINE_AUTO(forecast_free, struct forecast *);

/* Count the dues of a job that MEMBER owns ("": not known). One that is paused or done has none. ERR_NOMEM: it is counted in
 * part. */
int forecast_add(struct forecast *f, const struct job_spec *spec, const struct job_row *row,
                 const char *member, struct err *e);

/* "from":…,"to":…,"step":"5m","total":12,"steps":[…],"services":[{"service","fires":[…]}…],"members":[{"member","fires":[…]}…],
 * most fires first; the braces around it are the caller's. */
void forecast_print(const struct forecast *f, struct buf *out);

#endif
