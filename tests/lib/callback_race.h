/* A transport under load, for ThreadSanitizer: attempts from the loop, taken back by another thread while they start, the gate
 * opened and closed, the transport closed in the middle and opened again. */
#ifndef CARILLON_TESTS_LIB_CALLBACK_RACE_H
#define CARILLON_TESTS_LIB_CALLBACK_RACE_H

#include "callback/callback.h"

struct callback_race {
    const char *name;
    const struct callback_ops *transport;
    struct job_spec spec;
    unsigned rounds, threads;
    const char *endpoints[20]; /* in turn, up to a NULL */
};

/* Prints what came of it. 0, or 1: an attempt never ended. */
int callback_race(const struct callback_race *race);

#endif
