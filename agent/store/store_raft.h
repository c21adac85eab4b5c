/* The Raft-log store: the log is the store, its state in memory (agent/store/raft). One node, no database. */
#ifndef CARILLON_STORE_STORE_RAFT_H
#define CARILLON_STORE_STORE_RAFT_H

#include <stdint.h>

#include "agent/store/store.h"

/* Version of what the log and its snapshots hold. */
#define STORE_RAFT_SCHEMA 1
/* The only voter of a new store; its address is never dialled. */
#define STORE_RAFT_NODE_ID      1
#define STORE_RAFT_NODE_ADDRESS "local"

struct store_raft_options {
    char *dir; /* never NULL at open(): the configuration puts it under agent.data_dir */
    int64_t snapshot_entries;
};

struct replica_stats;
/* Any thread; for the benchmark and tests. */
void store_raft_stats(void *self, struct replica_stats *ret);
/* A snapshot soon. Any thread. */
void store_raft_snapshot(void *self);

#endif
