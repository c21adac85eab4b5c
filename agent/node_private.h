/* What the running agent consists of; shared by agent.c (start and stop) and node.c (the API's view). */
#ifndef CARILLON_AGENT_NODE_PRIVATE_H
#define CARILLON_AGENT_NODE_PRIVATE_H

#include <stdatomic.h>

#include "agent/agent.h"
#include "agent/api/api.h"
#include "agent/app_service.h"
#include "agent/base/list.h"
#include "agent/census.h"
#include "agent/clock_guard.h"
#include "agent/engine.h"
#include "agent/io/loop.h"
#include "agent/io/tzload.h"
#include "agent/metrics.h"
#include "agent/node.h"
#include "agent/quota.h"
#include "agent/telemetry.h"
#include "agent/voter.h"
#include "callback/capability.h"
#include "callback/safety.h"
#include "consul/consul_client.h"
#include "consul/consul_service.h"

enum node_state { NODE_STARTING, NODE_RUNNING, NODE_LEAVING, NODE_STOPPED };

#define NODE_NAMES_MAX 64
#define NODE_HOST_SIZE 160

/* A configuration that was read again, and what was in force from then on. */
struct node_reload {
    struct list list;
    struct config *read, *merged;
};

struct node {
    const struct agent_start *start;
    const struct config *config;                 /* in force */
    _Atomic(const struct config *) shown_config; /* the same, for other threads */
    struct list reloads; /* struct node_reload: other threads may still read any of them */
    enum node_state state;
    struct loop *loop;
    struct metrics *metrics;
    struct events *events;
    struct telemetry *telemetry; /* NULL: nothing is traced */
    struct quotas *quotas;       /* NULL: a client */
    struct census *census;
    struct clock_guard *clock;
    struct tzload *zones;
    struct http_client *http;
    struct consul_client *consul;
    struct api *api;
    char *secret;
    size_t secret_bytes;
    char peer_host[NODE_HOST_SIZE];     /* as others are told */
    char peer_host_own[NODE_HOST_SIZE]; /* where it listens */
    uint16_t peer_port;
    char peer_address[NODE_HOST_SIZE + 8]; /* both */
    _Atomic(const char *) shown_address;   /* the same, for other threads; NULL: not known yet */
    char config_digest[CONFIG_DIGEST_SIZE];
    int64_t started_ms; /* wall clock */

    /* a member */
    const struct store_ops *store;
    void *store_self;
    struct store_meta meta;
    struct voter_agent *voter; /* in a log's cluster */
    struct safety *safety;
    struct capability capability; /* made when the store was opened */
    struct engine *engine;        /* the present life; NULL between two */
    struct engine *retired;       /* declared dead, until the next may begin */
    struct engine **lives;        /* all that have not ended, and the present one */
    size_t lives_count;
    struct loop_msg rebirth; /* deferred: make a new engine */
    _Atomic bool ready;
    /* For other threads: a bit a slot, and the present life's name. Names are used again only many lives later, when nobody can
     * still be reading them. */
    _Atomic uint64_t *owned;
    _Atomic(const char *) shown_member;
    char names[NODE_NAMES_MAX][RECORD_MEMBER_MAX];
    size_t names_next;

    /* a client */
    struct consul_service_watch *member_watch;
    char (*member_addresses)[160];
    size_t member_addresses_count;

    struct app_service *app;
    struct loop_timer *address_timer; /* asks Consul again where we are */
    struct loop_timer *vacuum_timer;
    struct loop_timer *settled_timer; /* the start is over, and so is what only it needed */
    struct loop_timer *store_timer;   /* while the store is not there yet */
    struct err store_trouble;         /* why */
    struct loop_timer *leave_timer;   /* until a voter's place is given away */
    int64_t leave_until_ms;           /* loop's clock */
    _Atomic bool store_open;          /* read by any thread before meta and owned */
    bool draining;                    /* told that the end is near */
    bool ending;

    struct list service_queries; /* waiting to hear of a service */
    struct node_member_view *view_members;
    struct node_raft_shown *raft_shown;
    int exit_code;
    struct err failure;
};

/* agent.c */
/* It cannot go on: the loop ends, and the process with E. */
void node_fail(struct node *n, const struct err *e);
/* The store is there: the first life begins. */
int node_begin_firing(struct node *n, struct err *e);

/* agent_store.c */
/* Before the loop runs: open the store, or note why not yet. Failure: it will never work. */
int node_try_store(struct node *n, struct err *e);
/* ERR_PERMANENT: the folder of a standalone agent is a voter's. */
int node_check_alone(struct node *n, struct err *e);
/* On the loop: begin to fire, or to wait for the store. */
int node_start_store(struct node *n, struct err *e);
void node_retry_store(void *node);
/* SIGTERM. */
void node_leave_store(struct node *n);
/* NULL: the store is no log's cluster. Valid until the next turn. */
const struct node_raft_view *node_show_raft(struct node *n);
uint32_t node_store_version(struct node *n); /* 0: not known */
void node_set_raft_gauges(struct node *n);

/* node.c */
void node_fini_views(struct node *n);
/* Whoever waits for a service's endpoints gets what is known now: the engine that they are asked of goes. */
void node_end_queries(struct node *n);

#endif
