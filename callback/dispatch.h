/* Takes the planner's deliveries to endpoints: finds a delivery's target, chooses among the endpoints of its service, keeps to the
 * limits on what is in flight (of an endpoint, of a service, of all), lets the rest wait its turn and hands attempts to the
 * transports' lanes. It decides nothing about retries.
 *
 *   dispatch_deliver -> waits in its target's line -> a lane -> done
 *
 * Targets (a service with a set of tags, or the host of a direct URL) take turns, so one that is slow or at its limit holds up no
 * other. A target without an endpoint gives its deliveries back after a while; when one appears they go out at a bounded rate,
 * which grows with each success, and the caller is told, for what he was given back.
 * Every limit, table and line is bounded: by options, by the constants below, or by the planner's deliveries. One object lives
 * as long as the member's planner. Loop thread only. */
#ifndef CARILLON_CALLBACK_DISPATCH_H
#define CARILLON_CALLBACK_DISPATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/balance.h"
#include "callback/callback.h"
#include "callback/endpoints.h"

struct dispatch;

#define DISPATCH_GROUPS_MAX     8192 /* services and hosts of direct URLs */
#define DISPATCH_TARGETS_MAX    32   /* sets of tags of one service */
#define DISPATCH_NO_ENDPOINT_MS 1000
#define DISPATCH_RELEASE_PER_S  1000
#define DISPATCH_TRANSPORTS     2 /* as enum job_transport */

/* Exactly once for each delivery, never before dispatch_deliver() or dispatch_revoke() returned. The delivery is the planner's
 * again; with `callback.to` other than one the result is ENDPOINTS if it came without parts, else that of the worst part; ATTEMPT is valid during the call. It may deliver and revoke, but not close. */
typedef void dispatch_done(void *arg, struct delivery *delivery, const struct attempt *attempt);

/* Where an attempt's time went; for metrics. */
struct dispatch_timing {
    const char *service; /* NULL: a direct target */
    enum job_transport transport;
    enum attempt_result result;
    uint64_t queue_us;   /* waiting for its turn */
    uint64_t connect_us; /* from the lane's taking it to the first byte of the request */
    uint64_t reply_us;   /* from there to the end */
};

/* What a service has beside its balancer's options and its tags. Zero: nothing. */
struct dispatch_service {
    double rate_per_s;                                         /* over the cluster */
    const char *tls_ca, *tls_cert, *tls_key, *tls_server_name; /* as struct callback_tls; copied */
};

struct dispatch_options {
    struct loop *loop;
    struct endpoints *endpoints; /* borrowed; its listener is this object's until the close */
    /* NULL: jobs that ask for it fail, and are retried */
    const struct callback_ops *transports[DISPATCH_TRANSPORTS];
    struct callback_options transport; /* loop and gate are needed; loop as above */
    const char *source;                /* "/carillon/<cluster>"; copied */
    uint32_t in_flight_max;            /* of all; at least 1 */
    /* The options of SERVICE's balancer with its limits; NULL: of a direct URL's host, of which only the smaller limit counts.
     * Asked when the service is first used and by dispatch_reload(). NULL: the defaults. */
    void (*options_of)(void *arg, const char *service, struct balance_options *ret);
    /* Tags that jobs get which name SERVICE and none: at most JOB_TAGS_MAX into RET, which are copied; returns how many. Asked
     * when options_of is. NULL: none. */
    size_t (*tags_of)(void *arg, const char *service, const char **ret);
    /* The rest about SERVICE; asked when options_of is. NULL: nothing. */
    void (*service_of)(void *arg, const char *service, struct dispatch_service *ret);
    int64_t no_endpoint_wait_ms; /* 0: DISPATCH_NO_ENDPOINT_MS */
    uint32_t release_per_s;      /* of a target, once an endpoint appeared; 0: DISPATCH_RELEASE_PER_S */
    uint64_t seed;
    dispatch_done *done;
    /* SERVICE, of which deliveries were given back or may have been, has an endpoint again. Called while a list is taken over; it may
     * deliver and revoke, but not close. NULL: nobody wants to know. */
    void (*released)(void *arg, const char *service);
    /* Before DONE, as DONE, for each part of a delivery that has parts: PART is its index there. NULL: none has any. */
    void (*part)(void *arg, struct delivery *delivery, size_t part, const struct attempt *attempt);
    void (*observe)(void *arg,
                    const struct dispatch_timing *timing); /* for each attempt that was made; NULL: none */
    void *arg;                                             /* of the seven */
};

/* Opens the transports. Errors are theirs. */
int dispatch_new(const struct dispatch_options *options, struct dispatch **ret, struct err *e);
/* End everything: what waits as NOT_STARTED, what a lane has as the transport's close says; their DONE runs before return, and
 * what it delivers anew ends as NOT_STARTED too. Frees D. NULL does nothing. */
void dispatch_close(struct dispatch *d);

/* DELIVERY stays the caller's but untouched until DONE; its `driver` is this module's. Constant time. */
void dispatch_deliver(struct dispatch *d, struct delivery *delivery);
/* Must not start any more: it ends as NOT_STARTED, unless its request has gone out; then it ends as usual. Nothing for one that
 * is not here. */
void dispatch_revoke(struct dispatch *d, struct delivery *delivery);

/* The same, and if its request has gone out its connection is closed: it ends soon, as RETRY unless its reply had come. */
void dispatch_abort(struct dispatch *d, struct delivery *delivery);

/* Ask options_of, tags_of and service_of again for every service, and take IN_FLIGHT_MAX over. What waits already keeps its tags. */
void dispatch_reload(struct dispatch *d, uint32_t in_flight_max);

/* This member's part of what services may get a second: 0 < SHARE <= 1; 1 at first. */
void dispatch_set_share(struct dispatch *d, double share);

/* --- looking ------------------------------------------------------------------------------------------------------- */

struct dispatch_stats {
    size_t in_flight;  /* with a lane */
    size_t waiting;    /* for a turn or an endpoint */
    int64_t oldest_ms; /* loop's clock: since when the one waits that waits longest; INT64_MAX: none does */
    size_t groups;     /* services and hosts */
};
struct dispatch_stats dispatch_stats(const struct dispatch *d);

struct dispatch_group_view {
    const char *service; /* NULL: a direct target */
    const char *datacenter;
    const char *host; /* of a direct target: "https://host:port" */
    size_t in_flight, waiting, ejected;
};
/* for (size_t at = 0; dispatch_next_group(d, &at, &view);): in no order; nothing may be delivered meanwhile. */
bool dispatch_next_group(const struct dispatch *d, size_t *at, struct dispatch_group_view *ret);

/* The instances of SERVICE (known to the table; used or not) with what the balancer knows of them. NOW is the loop's clock: an
 * ejection ends at ret->ejected_until_ms on it. for (size_t at = 0; dispatch_next_endpoint(d, s, &at, &view);) */
bool dispatch_next_endpoint(const struct dispatch *d, const struct endpoints_service *s, size_t *at,
                            struct balance_view *ret);
/* What is in force for SERVICE, and what is going on in all datacenters. */
struct dispatch_service_view {
    enum balance_policy policy;
    double rate_per_s, rate_here_per_s; /* over the cluster, from here; 0: no limit */
    size_t in_flight, waiting;
};
void dispatch_service_view(const struct dispatch *d, const char *service, struct dispatch_service_view *ret);

/* Structural invariants; aborts with a message. For tests. */
void dispatch_validate(const struct dispatch *d);

#endif
