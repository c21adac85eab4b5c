/* The packed ring of a job's newest successes at the first attempt: what its row keeps instead of a history row a fire.
 * A format byte, then the entries, newest first. The first holds its seq and due as they are, each further one the
 * difference to the one before it; a status or endpoint equal to that of the one before costs a bit; an endpoint that is
 * an IP address and port costs 6 or 18 bytes. Sixteen fires of one job usually take 100 to 250 bytes.
 * Pure; any thread. */
#ifndef CARILLON_CORE_RING_LOG_H
#define CARILLON_CORE_RING_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "agent/core/record.h"

#define RING_LOG_KEEP_MAX     64
#define RING_LOG_ENDPOINT_MAX 64 /* with its NUL */

struct ring_entry {
    uint64_t seq;
    int64_t due_ms;
    uint32_t late_ms; /* start of the attempt less due */
    uint32_t duration_ms;
    int32_t status;        /* HTTP or gRPC code */
    enum fire_wait waited; /* for what, when it was late */
    char endpoint[RING_LOG_ENDPOINT_MAX];
};

/* Put ENTRY in front of RING (BYTES of RECORD_RING_MAX are used) and return the bytes used then. The oldest go, such that
 * at most KEEP entries stay (0: none at all; over RING_LOG_KEEP_MAX counts as that) and all fit. A ring that does not
 * decode is begun anew: it is history, not worth stopping a job for. An endpoint is given back in canonical form. */
uint16_t ring_log_add(uint8_t ring[RECORD_RING_MAX], size_t bytes, const struct ring_entry *entry,
                      unsigned keep);

/* Unpack RING, newest first. RING may hold anything: -ERR_INVALID when it is not what ring_log_add makes, then RET is
 * undefined and *ret_count untouched. */
int ring_log_read(const uint8_t *ring, size_t bytes, struct ring_entry ret[RING_LOG_KEEP_MAX],
                  size_t *ret_count, struct err *e);

#endif
