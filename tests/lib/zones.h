/* The system's zones for tests of agent/core, which opens no files itself. */
#ifndef CARILLON_TESTS_LIB_ZONES_H
#define CARILLON_TESTS_LIB_ZONES_H

#include "agent/core/tz.h"

/* The zone NAME, read from /usr/share/zoneinfo; the caller frees (not UTC: tz_utc). Aborts with a message if it cannot
 * be read. */
struct tz *zone_open(const char *name);

#endif
