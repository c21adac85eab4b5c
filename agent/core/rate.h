/* How many a second: a token bucket for one member's part of a rate that holds over a whole cluster. Each member takes its share,
 * so together they keep to it without a word between them; in any T seconds all of them let through at most
 * rate * T + rate / 20 + one a member. No clock: now_ms is any monotonic one. */
#ifndef CARILLON_CORE_RATE_H
#define CARILLON_CORE_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* Of a caller's storage; all zero is one without a limit. */
struct rate {
    double per_s;   /* of the cluster; 0: no limit */
    double share;   /* of this member */
    double tokens;  /* at at_ms */
    uint64_t at_ms; /* newest time seen */
};

/* The rate is PER_S (>= 0, 0: no limit) and SHARE (0 < share <= 1) of it is this member's, from now on. What was earned stays, as far
 * as the new bucket holds it. A limit that begins has one token. */
void rate_set(struct rate *r, double per_s, double share, uint64_t now_ms);
/* How long until the next one may go; 0: now. */
uint64_t rate_wait_ms(struct rate *r, uint64_t now_ms);
/* One goes; rate_wait_ms() has just said 0. */
void rate_take(struct rate *r);
/* A second, of this member; 0: no limit. */
double rate_here_per_s(const struct rate *r);

#endif
