/* Jobs and deliveries for tests of the callbacks, made without the planner. */
#ifndef CARILLON_TESTS_LIB_CALLBACK_BED_H
#define CARILLON_TESTS_LIB_CALLBACK_BED_H

#include "agent/core/job.h"
#include "agent/core/planner.h"

/* A POST that succeeds with 2xx and gives up on 400 and 410, timeout 10 s, to SERVICE at "/hook" or, without one, to URL. The
 * texts are borrowed. */
struct job_spec bed_spec(const char *service, const char *url);
/* First attempt of fire 7, due 2026-11-23T08:00:00Z, epoch 3, no payload. */
struct delivery bed_delivery(struct job_spec *spec);

#endif
