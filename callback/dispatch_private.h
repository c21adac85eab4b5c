/* What the files of dispatch share; nobody else includes it. dispatch.c: lines, turns, attempts, time · dispatch_group.c: services,
 * hosts, their targets and endpoint lists · dispatch_fan.c: `to: all` and `to: shards`. */
#ifndef CARILLON_CALLBACK_DISPATCH_PRIVATE_H
#define CARILLON_CALLBACK_DISPATCH_PRIVATE_H

#include "agent/base/list.h"
#include "agent/base/map.h"
#include "agent/base/rng.h"
#include "agent/core/rate.h"
#include "callback/dispatch.h"

#define DISPATCH_NEVER_MS INT64_MAX

enum target_state {
    TARGET_IDLE,    /* nobody waits */
    TARGET_TURN,    /* in dispatch.turns */
    TARGET_BLOCKED, /* in group.blocked: at a limit, until an attempt of the group ends */
    TARGET_STARVED, /* in dispatch.starved: no endpoint */
    TARGET_PACED,   /* in dispatch.paced: may not start yet */
    TARGET_STATE_COUNT_
};

struct tags {
    char *text;
    const char *items[JOB_TAGS_MAX]; /* sorted, in text */
    size_t count;
};

/* A set of tags of a service, or the one target of a host. */
struct target {
    struct group *group;
    unsigned index;          /* in group.targets */
    struct balance *balance; /* NULL: direct */
    struct tags tags;
    enum target_state state;
    struct list link; /* by state */
    struct list line; /* of struct ticket, in order of arrival */
    size_t waiting;
    int64_t starved_ms; /* since when */
    int64_t fed_ms;     /* when that ended last */
    bool pacing;        /* from the end of a starvation until the line is empty */
    int64_t pace_ms;
    uint64_t paced;
};

/* A service in a datacenter, or the host of direct URLs: what limits are about. All targets of a service count each attempt at an
 * endpoint that they share, so that its limit and what is known of its health hold over all of them. */
struct group {
    struct dispatch *d;
    size_t index; /* in dispatch.groups */
    char *key;
    size_t key_bytes;
    const char *host; /* "http://host:port", in key; NULL: a service */
    uint64_t host_hash;
    struct endpoints_service *service; /* NULL: direct */
    struct balance_options options;
    struct tags default_tags; /* of jobs that name none */
    struct callback_tls *tls; /* NULL: none of its own */
    struct rate rate;
    size_t in_flight_max;
    size_t in_flight;
    size_t waiting;
    struct list sent; /* of struct ticket */
    struct target *targets[DISPATCH_TARGETS_MAX];
    unsigned targets_count;
    struct list blocked;
    bool missed; /* deliveries found no endpoint, or would have */
    int64_t used_ms;
};

enum ticket_place { TICKET_WAITING, TICKET_SENT, TICKET_ENDED };

struct fan;

/* One delivery, or a part of one, while it is here. */
struct ticket {
    struct callback_attempt attempt;
    struct list link; /* target.line, group.sent or dispatch.ended */
    enum ticket_place place;
    struct target *target;
    struct fan *fan;          /* of the delivery that it is a part of; NULL: it is the delivery */
    char **names;             /* one block: attempt.result.endpoints */
    struct callback_tls *tls; /* lent to the attempt; NULL: none */
    uint64_t endpoint_key;
    uint32_t counted; /* bit i: the balancer of group.targets[i] counts it */
    int64_t queued_ms;
    uint64_t queued_us;
    uint64_t sent_us;
    enum fire_wait waited_for;
};
_Static_assert(DISPATCH_TARGETS_MAX <= 32, "one bit a target in ticket.counted");

struct dispatch {
    struct dispatch_options options;
    char *source;
    void *transports[DISPATCH_TRANSPORTS]; /* open ones */
    struct rng rng;
    struct map by_key;
    struct group **groups;
    size_t groups_count;
    struct list turns;
    struct list starved;
    struct list paced;
    struct list ended; /* tickets whose DONE is still to run */
    size_t in_flight;
    size_t waiting;
    double share;
    struct loop_timer *timer;
    int64_t timer_ms;   /* when it is due, or DISPATCH_NEVER_MS */
    int64_t unblock_ms; /* when blocked targets look again though nothing ended */
    int64_t sweep_ms;
    bool closing;
};

/* --- dispatch.c --- */
/* The timer's work is wanted at WHEN_MS at the latest. */
void dispatch_wake_at(struct dispatch *d, int64_t when_ms);
/* Bring T from whatever it waits for to the end of the turns; nothing when nobody waits there. */
void dispatch_turn(struct target *t);

struct ticket *dispatch_ticket_new(struct dispatch *d, struct delivery *delivery);
/* K takes its place in the line of its target, or ends. */
void dispatch_enter(struct dispatch *d, struct ticket *k);
void dispatch_revoke_ticket(struct dispatch *d, struct ticket *k);
void dispatch_abort_ticket(struct dispatch *d, struct ticket *k);
enum balance_choice dispatch_choose(struct ticket *k);

/* --- dispatch_fan.c --- */
/* Whether DELIVERY asks for the names of its endpoints only. */
bool dispatch_names_endpoints(const struct delivery *delivery);
/* Put them into the result of K. ERR_NOMEM. */
int dispatch_name_endpoints(struct ticket *k, struct err *e);
/* A ticket for each pending part of DELIVERY. */
void dispatch_fan_out(struct dispatch *d, struct delivery *delivery);
/* As balance_choose() for the endpoint of K's part. *RET_GONE: it has left, and nobody takes its place. */
enum balance_choice dispatch_choose_part(struct ticket *k, bool *ret_gone);
void dispatch_part_done(struct ticket *k);
void dispatch_revoke_parts(struct delivery *delivery);
void dispatch_abort_parts(struct delivery *delivery);
bool dispatch_fan_has(const struct ticket *k); /* for dispatch_validate() */

/* --- dispatch_group.c --- */
/* The target of DELIVERY, made if need be. NULL: too many at once (*ret_impossible false), or its name can never be used. */
struct target *dispatch_target(struct dispatch *d, const struct delivery *delivery, bool *ret_impossible);
void dispatch_group_free(struct group *g);
/* Drop the groups that nobody used for long. */
void dispatch_sweep(struct dispatch *d, int64_t now_ms);
/* The list of S has changed. */
void dispatch_endpoints_changed(void *arg, struct endpoints_service *s);

#endif
