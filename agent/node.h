/* The running agent as the API's handlers see it: what they may ask and hand over. Implemented by the composition (agent.c,
 * engine.c); the handlers (api/) know nothing of what stands behind it. Loop thread only, unless a function says "any thread". */
#ifndef CARILLON_AGENT_NODE_H
#define CARILLON_AGENT_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/config.h"
#include "agent/core/planner.h"
#include "agent/store/store.h"

struct node;
struct events;
struct telemetry;
struct capability;
struct http_client;
struct loop;
struct tzload;
struct buf;

#define NODE_HISTORY_MAX 1000 /* ended fires kept with a job beside its successes and dead letters */

/* --- any thread ---------------------------------------------------------------------------------------------------- */

/* The configuration in force. Never freed before the process ends, so handlers may keep reading it over a reload. */
const struct config *node_config(const struct node *n);
/* What jobs get that do not say otherwise, and which secrets they may name. Texts as node_config(). */
void node_job_defaults(const struct node *n, struct job_defaults *ret);
struct loop *node_loop(const struct node *n);
struct tzload *node_zones(const struct node *n);
/* Corrected wall clock. */
int64_t node_now_ms(const struct node *n);
/* Number of slots of the store (for clients of a cluster: as its members tell). 0: not known yet. */
uint32_t node_slots(const struct node *n);
bool node_slot_is_mine(const struct node *n, uint16_t slot);
bool node_is_client(const struct node *n);
/* Own member id; "" for a client. */
const char *node_member(const struct node *n);
/* Where other agents are told that this one is, as host:port; NULL: not known yet, or nowhere. */
const char *node_peer_address(const struct node *n);
/* The shared secret between agents, NULL: none configured. */
const char *node_cluster_secret(const struct node *n, size_t *ret_bytes);
/* What proves that somebody was called back for a fire. NULL for a client, and before the store was opened. */
const struct capability *node_capability(const struct node *n);
/* Whether the store has been opened since the start; true for a client. Before that only health, metrics and the cluster's view
 * can be asked. */
bool node_store_open(const struct node *n);
/* From the first join until SIGTERM. */
bool node_ready(const struct node *n);
/* CLOCK_BOOTTIME ms of the loop's last turn, for /livez. */
int64_t node_last_turn_ms(const struct node *n);

/* --- loop thread --------------------------------------------------------------------------------------------------- */

struct node_owner {
    bool self;
    bool known; /* false: nobody alive is known to hold it */
    uint64_t epoch;
    char member[RECORD_MEMBER_MAX];
    char name[STORE_NAME_MAX];
    char address[STORE_ADDRESS_MAX]; /* of its peer listener */
};
void node_owner_of(const struct node *n, uint16_t slot, struct node_owner *ret);
/* Its `self` alone. */
bool node_owns(const struct node *n, uint16_t slot);
/* A peer answered that it does not hold the slot, but OWNER does. */
void node_owner_hint(struct node *n, uint16_t slot, uint64_t epoch, const char *owner);
/* The other members that are alive, one a call from *at = 0; false: no more. Texts valid until the next turn. */
bool node_next_peer(const struct node *n, size_t *at, const char **ret_id, const char **ret_address);
/* For clients: address of a member to forward to, differing from the last one when TRY grows. NULL: none known. */
const char *node_any_member(const struct node *n, unsigned try);

/* Hand a write of an own slot to the planner. API stays the caller's; DONE runs once it is answered, never before return. */
void node_submit(struct node *n, struct planner_api *api, void (*done)(void *arg, struct planner_api *api),
                 void *arg);

/* NULL in a client. */
const struct store_ops *node_store(const struct node *n, void **ret_self);
/* For calls to peers. */
struct http_client *node_http(const struct node *n);

struct node_member_view {
    const char *id, *name, *address, *zone, *version, *config_digest, *tzdata;
    uint32_t weight;
    const char *state; /* active, leaving, suspect */
    size_t slots;
    int64_t started_ms; /* RECORD_NONE: not known */
};
/* The log's cluster, as this agent sees it. */
struct node_raft_voter {
    uint64_t number;
    const char *name, *address;
    const char *state; /* claimed, joining, voter, lost, leaving: as Consul has it */
    bool votes;        /* the log counts it */
    bool reached;      /* from here */
    uint64_t lag;      /* entries behind; known to the leader alone */
};
struct node_raft_view {
    const char *role;      /* client, waiting, learning, follower, candidate, leader, removed, broken */
    uint64_t self, leader; /* numbers; 0: no voter, none known */
    uint64_t term, applied, elections;
    uint32_t wanted;
    const char *waits; /* for what the store waits; "": it has a leader */
    const struct node_raft_voter *voters;
    size_t voters_count;
};
struct node_cluster_view {
    const char *cluster, *mode, *store_driver, *store_leader;
    uint32_t store_version; /* of what is kept; 0: not known */
    bool store_ok, consul_ok;
    const struct node_member_view *members; /* valid until the next turn */
    size_t members_count;
    size_t slots_total, slots_owned, slots_unowned, slots_moving;
    const struct node_raft_view *raft; /* NULL: the store is no log's cluster */
};
void node_cluster(struct node *n, struct node_cluster_view *ret);

struct node_check {
    const char *name; /* store, consul, clock, lease, loop */
    bool ok;
    int64_t since_ms; /* wall clock */
    char detail[200];
};
#define NODE_CHECKS_MAX 8
size_t node_checks(struct node *n, struct node_check ret[NODE_CHECKS_MAX]);

struct node_endpoint {
    char address[300];
    const char *health; /* passing, ejected */
    uint32_t weight, in_flight, failures;
    double latency_ms;
    int64_t ejected_until_ms; /* wall clock; RECORD_NONE: not ejected */
};
struct node_service_view {
    const char *policy;
    double rate_per_s, rate_here_per_s; /* over the cluster, from this agent; 0: no limit */
    size_t in_flight, waiting;          /* from this agent */
    const struct node_endpoint *endpoints;
    size_t endpoints_count;
};
/* Endpoints of a service as the balancer sees them. A name nobody uses yet is looked up first; DONE runs once, perhaps before return.
 * VIEW NULL: Consul knows no such service (or no healthy instance of it), and the configuration neither. */
typedef void node_service_done(void *arg, const struct node_service_view *view);
void node_service(struct node *n, const char *name, node_service_done *done, void *arg);
/* Whether Consul is known to have no instance of the service (a warning at the write). A name that nobody asked for yet is watched
 * from then on: asking before the write is sent, and again when it is answered, tells also of the first one. */
bool node_service_unknown(struct node *n, const char *name);
/* Whether nothing was heard of the service yet; it is asked for, if it was not. */
bool node_service_unheard(struct node *n, const char *name);

/* What this agent has to tell to whoever listens. */
struct events *node_events(struct node *n);
/* Any thread. NULL: nothing is traced. */
struct telemetry *node_telemetry(struct node *n);

/* A peer's message for the ownership protocol: PATH is what follows "/peer/v1/", BODY its JSON. DONE gets the answer. */
typedef void node_peer_done(void *arg, int status, const char *body);
void node_peer_message(struct node *n, const char *path, const char *body, size_t bytes, node_peer_done *done,
                       void *arg);

/* Prometheus text. */
void node_print_metrics(struct node *n, struct buf *out);
/* For carillon_api_duration_seconds{route,code} and carillon_requests_rejected_total{code}; any thread. */
void node_count_request(struct node *n, const char *route, int status, uint64_t duration_us);
void node_count_rejected(struct node *n, const char *code);
/* For carillon_events_dropped_total{listener}: client, or peer; any thread. */
void node_count_events_dropped(struct node *n, bool peer, uint64_t count);

#endif
