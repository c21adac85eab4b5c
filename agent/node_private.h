/* What the running agent consists of; shared by agent.c (start and stop) and node.c (the API's view). */
#ifndef CARILLON_AGENT_NODE_PRIVATE_H
#define CARILLON_AGENT_NODE_PRIVATE_H

#include "agent/agent.h"
#include "agent/api/api.h"
#include "agent/app_service.h"
#include "agent/clock_guard.h"
#include "agent/engine.h"
#include "agent/io/loop.h"
#include "agent/io/tzload.h"
#include "agent/metrics.h"
#include "agent/node.h"
#include "consul/consul_client.h"
#include "consul/consul_service.h"

enum node_state { NODE_STARTING, NODE_RUNNING, NODE_LEAVING, NODE_STOPPED };

struct node {
    const struct agent_start *start;
    struct config *config;
    enum node_state state;
    struct loop *loop;
    struct metrics *metrics;
    struct clock_guard *clock;
    struct tzload *zones;
    struct http_client *http;
    struct consul_client *consul;
    struct api *api;
    char *secret;
    size_t secret_bytes;
    char peer_host[160];
    uint16_t peer_port;
    char config_digest[CONFIG_DIGEST_SIZE];
    int64_t started_ms; /* wall clock */

    /* a member */
    const struct store_ops *store;
    void *store_self;
    struct store_meta meta;
    struct engine *engine;          /* the present life */
    struct engine *retired;         /* the one before, until it has ended */
    _Atomic(struct engine *) shown; /* for other threads; engines are freed only with the node */
    struct engine **lives;          /* all that were: freed at the end */
    size_t lives_count;
    struct loop_msg rebirth; /* deferred: make a new engine */
    _Atomic bool ready;

    /* a client */
    struct consul_service_watch *member_watch;
    char (*member_addresses)[160];
    size_t member_addresses_count;

    struct app_service *app;
    struct loop_timer *address_timer; /* asks Consul again where we are */
    struct loop_timer *vacuum_timer;
    bool vacuuming;
    bool ending;

    struct node_member_view *view_members;
    int exit_code;
    struct err failure;
};

/* node.c */
void node_fini_views(struct node *n);

#endif
