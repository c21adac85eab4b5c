/* One member of the Raft log: libraft with its files, on a thread and uv loop of its own, feeding the state machine. Calls wait in a
 * queue; all that wait become one entry, one write, and are answered when it is durable and applied. Now and then the state
 * is written as a snapshot, a slice at a time, and the log before it is dropped.
 * One node so far: it is its own majority, and nothing listens. */
#ifndef CARILLON_STORE_RAFT_REPLICA_H
#define CARILLON_STORE_RAFT_REPLICA_H

#include "agent/base/buf.h"
#include "agent/base/list.h"
#include "agent/io/loop.h"
#include "agent/store/raft/entry.h"
#include "agent/store/raft/machine.h"

struct replica;

enum replica_step {
    REPLICA_ANSWERED, /* nothing has to be written: OP is done */
    REPLICA_WHOLE,    /* OUT is the command, and the last of OP */
    REPLICA_PART,     /* OUT is a command; ask again when it is applied */
};

/* A call on its way; embedded in what it is about. The replica's from submit to DONE. */
struct replica_op {
    struct list link;
    /* Replica's thread, in the order of submission, when everything submitted before is applied. A call that fails by itself
     * (REPLICA_ANSWERED) or because OUT did, has op->err set. */
    enum replica_step (*encode)(struct replica_op *op, struct machine *m, enum command_kind *ret_kind,
                                struct buf *out);
    /* Replica's thread: what became of the command; may set op->err, then no more parts are asked for. */
    void (*applied)(struct replica_op *op, const struct machine_result *result);
    /* Loop thread; op->err tells. The last the replica knows of it. */
    void (*done)(struct replica_op *op);
    struct err err;
    uint64_t since_ms;
    bool part_done; /* some of it is in the log */
    bool part;      /* the command under way is not its last */
};

struct replica_options {
    struct loop *loop;
    const char *dir;           /* exists, is locked by the caller and was checked (folder.h) */
    struct store_meta make;    /* what an empty folder becomes */
    uint64_t snapshot_entries; /* a snapshot after so many entries, */
    uint64_t
        snapshot_bytes;   /* or so many bytes of them, or as many as the last snapshot had if that is more */
    uint64_t patience_ms; /* how long a call waits for the disk */
};

/* Blocks until the folder is read and everything in it applied. ERR_PERMANENT: it cannot be used, the text says why and what
 * to do. ERR_IO, ERR_NOMEM. */
int replica_open(const struct replica_options *options, struct replica **ret, struct err *e);
/* Loop thread. What is under way is waited for as long as the disk takes it, the rest is cancelled; all DONEs run in this call. */
void replica_close(struct replica *r);

/* Loop thread. DONE runs later, exactly once: ERR_UNAVAILABLE (nothing happened, the disk does not take writes),
 * ERR_UNKNOWN_OUTCOME (the same, but it may happen yet), ERR_PERMANENT (the log is of no use any more), ERR_CANCELLED, or what
 * the op set itself. */
void replica_submit(struct replica *r, struct replica_op *op);

/* Any thread: the machine, locked until replica_unlock(), for short reads. NULL, and not locked: the log is of no use any more. */
struct machine *replica_lock(struct replica *r);
void replica_unlock(struct replica *r);

struct replica_stats {
    uint64_t entries; /* written by this process */
    uint64_t entry_bytes;
    uint64_t snapshots;
    uint64_t snapshot_bytes; /* of the last */
    uint64_t snapshot_ms;    /* from its beginning to being durable */
    uint64_t log_bytes;      /* since the last snapshot began */
    uint64_t open_ms;        /* reading the folder took so long */
    size_t queue;
};
/* Any thread. */
void replica_stats(struct replica *r, struct replica_stats *ret);
/* A snapshot soon, whatever the log has; for tests and the benchmark. */
void replica_ask_snapshot(struct replica *r);

#endif
