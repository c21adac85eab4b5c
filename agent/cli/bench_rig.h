/* What `carillon bench` measures with: a callee that notes when each callback came, and requests to an agent over several kept
 * connections. Main thread; the callee's server has a thread of its own, behind the functions here. */
#ifndef CARILLON_AGENT_CLI_BENCH_RIG_H
#define CARILLON_AGENT_CLI_BENCH_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/cli/client.h"

struct bench_rig;

/* A callback as it came. */
struct bench_arrival {
    uint32_t job; /* the number that its path ends with */
    uint32_t seq;
    int64_t lateness_us; /* after the due; below 0: too early */
    int64_t at_us;       /* wall clock */
};

/* LISTEN: where the callee is. Both are borrowed. From now on SIGINT and SIGTERM only interrupt what waits. ERR_INVALID,
 * ERR_EXISTS, ERR_IO, ERR_UNAVAILABLE. */
int bench_rig_new(const struct client *client, const char *listen, struct bench_rig **ret, struct err *e);
void bench_rig_free(struct bench_rig *rig);
DEFINE_AUTO(bench_rig_free, struct bench_rig *);
/* The address that the callee listens on, with the port the kernel gave. */
const char *bench_rig_address(const struct bench_rig *rig);

struct bench_requests {
    const char *method; /* of all */
    /* The path and body of request I; BODY stays empty: none. */
    void (*make)(void *arg, size_t i, struct buf *path, struct buf *body);
    void *arg;
    size_t count;
    unsigned connections; /* each sends one request at a time */
    int status;           /* what each has to answer */
};
/* Send them; RET_US gets COUNT times from sending to the whole answer, RET_TOOK_US how long all took. ERR_UNAVAILABLE: no agent;
 * ERR_INVALID: one was answered otherwise, and its answer is in REFUSED (the caller's to fini); ERR_CANCELLED: interrupted; ERR_NOMEM,
 * ERR_TOO_BIG. Nothing is under way afterwards. */
int bench_rig_send(struct bench_rig *rig, const struct bench_requests *requests, uint64_t *ret_us,
                   uint64_t *ret_took_us, struct client_reply *refused, struct err *e);

/* Forget what arrived so far. */
void bench_rig_reset(struct bench_rig *rig);
/* How many have arrived. */
size_t bench_rig_arrived(struct bench_rig *rig);
/* Wait until COUNT have arrived or the wall clock shows UNTIL_US. False: interrupted. */
bool bench_rig_wait(struct bench_rig *rig, size_t count, int64_t until_us);
/* All arrivals, ordered by job and seq; valid until the next call of any function here. What comes later is not in it. */
const struct bench_arrival *bench_rig_arrivals(struct bench_rig *rig, size_t *ret_count);

#endif
