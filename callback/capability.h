/* The key that an asynchronous callee gets with each attempt and shows when it tells how the attempt ended. It says what it is for
 * (an attempt of a fire) and proves it: HMAC-SHA256 under a secret of the store, so any agent can check it and nobody keeps it.
 * Any thread. */
#ifndef CARILLON_CALLBACK_CAPABILITY_H
#define CARILLON_CALLBACK_CAPABILITY_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/record.h"

#define CAPABILITY_SECRET_BYTES 32
#define CAPABILITY_URL_MAX      300
#define CAPABILITY_SIZE         48 /* "<attempt>.<32 hex digits>" with NUL */

struct capability {
    uint8_t secret[CAPABILITY_SECRET_BYTES];
    char url
        [CAPABILITY_URL_MAX]; /* in front of "/v1/fires/...": where callees reach an agent; "" if they know */
};

void capability_make(const struct capability *c, const struct uid *uid, uint64_t seq, uint32_t attempt,
                     char ret[CAPABILITY_SIZE]);
/* Whether TEXT is a key of the fire; then *ret_attempt is the attempt that it was given to. Takes as long for a wrong key as for a
 * right one. */
bool capability_check(const struct capability *c, const struct uid *uid, uint64_t seq, const char *text,
                      uint32_t *ret_attempt);

#endif
