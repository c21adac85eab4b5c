/* The Raft-log store: the log is the store, its state in memory (agent/store/raft). No database. Either one node alone, or a cluster
 * of voters (3 or 5) which the other agents use. */
#ifndef CARILLON_STORE_STORE_RAFT_H
#define CARILLON_STORE_STORE_RAFT_H

#include <stdint.h>

#include "agent/store/store.h"
#include "agent/store/store_version.h"

/* Newest version of what the log and its snapshots hold. */
#define STORE_RAFT_SCHEMA STORE_VERSION
/* The only voter of a store of one node; its address is never dialled. */
#define STORE_RAFT_NODE_ID      1
#define STORE_RAFT_NODE_ADDRESS "local"

struct store_raft_cluster;

struct store_raft_options {
    char *dir; /* never NULL at open(): the configuration puts it under agent.data_dir */
    int64_t snapshot_entries;
    /* NULL: one node, alone. Else this agent's part in a cluster, borrowed until close(): then open() never blocks, and is
     * ERR_UNAVAILABLE until a leader has told what the store is; try again. Calls are ERR_UNAVAILABLE while there is no leader. */
    struct store_raft_cluster *cluster;
};

/* --- a cluster ----------------------------------------------------------------------------------------------------- */
/* Loop thread, all of it. The caller finds the voters, numbers them and says who they are; who leads they find out themselves. */

#define STORE_RAFT_VOTERS_MAX 16 /* also counted: those on their way in and out */

struct store_raft_voter {
    uint64_t id; /* from 1; a number is never used again, not by the same agent with an empty folder either */
    char address[STORE_ADDRESS_MAX]; /* host:port that listens for the log's cluster */
};

struct wire_tls_options; /* raft/wire_tls.h */

struct store_raft_cluster_options {
    struct loop *loop;
    const char *dir;  /* of the voter's log; not touched by who is none */
    const char *name; /* of the cluster */
    uint32_t slots;   /* when the store is made */
    int64_t snapshot_entries;
    uint64_t patience_ms; /* how long a call waits for a leader, its disk and a majority; 0: 5 s */
    /* A leader that is silent for this long, up to twice as long, is replaced; 0: 500 */
    unsigned election_ms;
    const struct wire_tls_options *tls; /* its cluster, secret and files; NULL: nothing is proved */
    int64_t (*now_ms)(void *arg);       /* corrected wall clock, for when the store is made */
    void *arg;
};

/* The number under which DIR's log is a voter; 0: nothing is there. ERR_EXISTS: the store of one node is there; ERR_PERMANENT:
 * something that is no log; ERR_IO. Blocking. */
int store_raft_cluster_number(const char *dir, uint64_t *ret_id, struct err *e);

/* It uses the voters, and is none itself. OPTIONS are copied. ERR_IO, ERR_NOMEM, ERR_INVALID (TLS files). */
int store_raft_cluster_new(const struct store_raft_cluster_options *options, struct store_raft_cluster **ret,
                           struct err *e);
/* After the store that was opened with it is closed. A leader hands over first: blocks for up to a second. */
void store_raft_cluster_free(struct store_raft_cluster *c);

/* Be voter ID and listen with LISTEN_FD (taken over in any case). The folder is that voter's, or empty: then it is begun with the
 * FIRST voters, SELF among them, the same ones at each of them; with none it waits until a leader adds it. The store of one node
 * becomes a cluster's when its voter is the only one of FIRST. Once. Blocks until the folder is read. ERR_PERMANENT: it cannot be used, the text says why and what to do; ERR_IO, ERR_NOMEM. */
int store_raft_cluster_vote(struct store_raft_cluster *c, uint64_t id, int listen_fd,
                            const struct store_raft_voter *first, size_t first_count, struct err *e);

/* Who shall vote, and where each listens; at any time, and again whenever that changes. The leader makes it so one step after the
 * other: who is new gets the log first and votes when it has it; who is not named is removed last (a leader hands over before).
 * An empty list changes nothing. */
void store_raft_cluster_set_voters(struct store_raft_cluster *c, const struct store_raft_voter *voters,
                                   size_t count);

enum store_raft_role {
    STORE_RAFT_CLIENT,   /* no voter */
    STORE_RAFT_WAITING,  /* to be added by a leader */
    STORE_RAFT_LEARNING, /* gets the log, does not vote yet */
    STORE_RAFT_FOLLOWER,
    STORE_RAFT_CANDIDATE,
    STORE_RAFT_LEADER,
    STORE_RAFT_REMOVED, /* was a voter; its number is used up. Goes on as a client */
    STORE_RAFT_BROKEN,  /* its log is of no use any more; the text in `problem` */
    STORE_RAFT_ROLE_COUNT_
};
const char *store_raft_role_name(enum store_raft_role role);

struct store_raft_status {
    enum store_raft_role role;
    uint64_t self;   /* 0: no voter */
    uint64_t leader; /* 0: none known */
    char leader_address[STORE_ADDRESS_MAX];
    uint64_t term;
    uint64_t applied, last; /* indexes of the own log; clients: 0 */
    bool made;              /* what the store is, is known: open() will succeed */
    uint32_t version;       /* that all voters have agreed on (store_version.h); 0: not known */
    char problem[200];
    size_t voters; /* of the configuration as last heard */
    struct {
        uint64_t id;
        bool votes;
        bool reached; /* from here */
        uint64_t lag; /* entries behind, known to the leader alone */
    } list[STORE_RAFT_VOTERS_MAX];
    size_t queued, queued_max; /* calls waiting for the leader; more than that are refused */
    uint64_t elections;        /* times that the leader changed */
};
void store_raft_cluster_status(struct store_raft_cluster *c, struct store_raft_status *ret);
/* FN runs on the loop soon after role, leader, term or configuration changed. */
void store_raft_cluster_watch(struct store_raft_cluster *c, void (*fn)(void *arg), void *arg);

/* --- for the benchmark and tests ----------------------------------------------------------------------------------- */
struct replica_stats;
/* Any thread. */
void store_raft_stats(void *self, struct replica_stats *ret);
/* A snapshot soon. Any thread. */
void store_raft_snapshot(void *self);
void store_raft_cluster_stats(struct store_raft_cluster *c, struct replica_stats *ret);
struct replica_view;
void store_raft_cluster_view(struct store_raft_cluster *c, struct replica_view *ret);
/* Until called with false nothing is heard from the others, and nothing reaches them. Any thread. */
void store_raft_cluster_cut(struct store_raft_cluster *c, bool cut);

#endif
