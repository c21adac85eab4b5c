/* This agent's part in the log's cluster: finds the voters through Consul (core/voters decides), becomes one of them when its turn
 * has come, and keeps the store's list of them up to date. Consul may be away: who has found the others goes on. Loop thread. */
#ifndef CARILLON_AGENT_VOTER_H
#define CARILLON_AGENT_VOTER_H

#include "agent/base/err.h"
#include "agent/core/voters.h"
#include "agent/store/store_raft.h"

struct config;
struct consul_client;
struct loop;
struct voter_agent;

struct voter_agent_options {
    struct loop *loop;
    struct consul_client *consul;
    const struct config *config; /* as at the start; lives longer */
    const char *host;            /* of the peers' listener; the default of store.raft.listen */
    const char *advertised;      /* host that others are told; the default of store.raft.advertise */
    const char *secret;          /* NULL: none */
    size_t secret_bytes;
    int64_t (*now_ms)(void *arg); /* corrected wall clock */
    void (*changed)(void *arg);   /* the log may be of use now, or who leads it is another */
    void (*failed)(void *arg,
                   const struct err *e); /* it cannot go on: what is on disk, or in Consul, says so */
    void *arg;
};

/* Reads the folder, opens the listener. ERR_PERMANENT: the folder, or what stands in it, cannot be used, E says what to do;
 * ERR_INVALID, ERR_EXISTS: the listener's address; ERR_IO, ERR_NOMEM. */
int voter_agent_new(const struct voter_agent_options *options, struct voter_agent **ret, struct err *e);
/* After the store was closed. Blocks while a leader hands over: up to a second. */
void voter_agent_free(struct voter_agent *v);

/* What the store is opened with. */
struct store_raft_cluster *voter_agent_cluster(const struct voter_agent *v);
/* A sentence about what the store is waiting for; "" if it has a leader. Valid until the next turn. */
const char *voter_agent_waits(struct voter_agent *v);

/* This agent ends. If SPARE (another one could take its place), it asks for that. */
void voter_agent_leave(struct voter_agent *v, bool spare);
/* Nobody is waiting for it to give its place away. */
bool voter_agent_left(const struct voter_agent *v);

struct voter_agent_view {
    struct store_raft_status log;
    bool leads;
    const char *set; /* "": not known yet */
    uint32_t wanted;
    struct {
        struct voter at;
        bool votes, reached;
        uint64_t lag;
    } list[VOTERS_MAX]; /* as Consul names them; without it, as the log does */
    size_t count;
};
/* Texts are valid until the next turn. */
void voter_agent_view(struct voter_agent *v, struct voter_agent_view *ret);

#endif
