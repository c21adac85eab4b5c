/* This agent's part in the Raft log, on a thread and uv loop of its own: libraft with its files, feeding the state machine, and the
 * connections to the others. One node alone is its own majority. In a cluster some agents vote (replica_vote), all ask
 * the leader: calls wait in a queue, all that wait travel together, and become one entry, one write of a majority; they are
 * answered when it is applied. Who leads answers reads and beats once a majority has said that its term still stands.
 * Now and then the state is written as a snapshot, a slice at a time, and the log before it is dropped. */
#ifndef CARILLON_STORE_RAFT_REPLICA_H
#define CARILLON_STORE_RAFT_REPLICA_H

#include "agent/base/buf.h"
#include "agent/base/list.h"
#include "agent/io/loop.h"
#include "agent/store/raft/entry.h"
#include "agent/store/raft/machine.h"
#include "agent/store/raft/mesh.h"

struct replica;

/* --- who asks ------------------------------------------------------------------------------------------------------ */

enum replica_lane {
    REPLICA_WRITE, /* for the log, or to be answered in its order */
    REPLICA_READ,  /* of the state as it is */
    REPLICA_LANE_COUNT_
};

/* A call on its way; embedded in what it is about. The replica's from submit to DONE. */
struct replica_op {
    struct list link;
    enum replica_lane lane;
    /* Replica's thread: what is asked, as bytes. Also again when the outcome is not known: the second time does nothing. */
    void (*put)(struct replica_op *op, struct buf *out);
    /* Replica's thread, REPLICA_WRITE: the answer; may set op->err. True: there is more to be asked, PUT again. */
    bool (*got)(struct replica_op *op, const void *data, size_t bytes);
    /* Loop thread; op->err tells. The last the replica knows of it. */
    void (*done)(struct replica_op *op);
    struct err err;
    void *body; /* REPLICA_READ: what the leader answered, for mem_free(); NULL: the own machine has it */
    size_t body_bytes;
    uint64_t since_ms;
    bool maybe; /* some of it may have happened */
};

/* --- who leads ----------------------------------------------------------------------------------------------------- */

enum replica_step {
    REPLICA_ANSWERED, /* nothing has to be written: t->answer or t->err has it */
    REPLICA_COMMAND,  /* OUT is the command */
    REPLICA_LAST,     /* the same, and nothing else is looked at before it is applied */
};

/* A call as the leader sees it. */
struct replica_task {
    const void *data; /* what was asked */
    size_t bytes;
    struct buf answer;
    struct err err;
    struct list link_; /* the replica's, as all that follows */
    enum replica_lane lane_;
    struct replica_op *op_;
    struct replica_batch *batch_;
    struct replica *replica_;
    struct buf asked_;
    uv_work_t work_;
};

/* Whether this process asked: then the bytes are what it writes. */
static inline bool replica_task_own(const struct replica_task *t)
{
    return t->batch_ == NULL;
}

/* What the store makes of calls. */
struct replica_service {
    /* Replica's thread, REPLICA_WRITE, when everything before is applied. */
    enum replica_step (*encode)(void *arg, struct replica_task *t, struct machine *m,
                                enum command_kind *ret_kind, struct buf *out);
    /* Replica's thread: what became of the command. */
    void (*applied)(void *arg, struct replica_task *t, const struct machine_result *result);
    /* A thread of its own, REPLICA_READ: answer from replica_lock(). */
    void (*read)(void *arg, struct replica_task *t, struct replica *r);
    void *arg;
};

/* --- making -------------------------------------------------------------------------------------------------------- */

struct replica_options {
    struct loop *loop;
    const char *dir;        /* of who votes: exists, is locked by the caller and was checked (folder.h) */
    struct store_meta make; /* what an empty store becomes */
    struct replica_service service;
    uint64_t snapshot_entries; /* a snapshot after so many entries, */
    uint64_t
        snapshot_bytes; /* or so many bytes of them, or half of the last snapshot if that is more; when nothing is written
                                * for a while after fewer too */
    uint64_t patience_ms;       /* how long a call waits for disk, leader and majority */
    unsigned election_ms;       /* in a cluster; 0: as usual */
    const char *cluster;        /* NULL: one node alone */
    struct wire_tls *tls;       /* of a cluster; borrowed; NULL: nothing is proved */
    void (*changed)(void *arg); /* loop thread: the view did; NULL: nobody asks */
    void *arg;
};

/* One node: blocks until the folder is read and everything in it applied. ERR_PERMANENT: it cannot be used, the text says why and
 * what to do. ERR_IO, ERR_NOMEM. In a cluster it does not block. */
int replica_open(const struct replica_options *options, struct replica **ret, struct err *e);
/* Loop thread. What is under way is waited for as long as the disk takes it, the rest is cancelled; all DONEs run in this call. A
 * leader hands over first. */
void replica_close(struct replica *r);
/* Loop thread: all ops are answered, with ERR_CANCELLED at worst, in this call. */
void replica_cancel(struct replica *r);

/* Loop thread, once: be voter ID. LISTEN_FD is taken over. An empty folder begins with FIRST; none: it waits to be added. FOUNDS: the
 * log of an agent alone becomes one of FIRST, which is this voter. Blocks until the folder is read. Errors as replica_open(). */
int replica_vote(struct replica *r, uint64_t id, int listen_fd, const struct mesh_node *first,
                 size_t first_count, bool founds, struct err *e);
/* Loop thread: who shall vote. */
void replica_set_voters(struct replica *r, const struct mesh_node *nodes, size_t count);

/* Loop thread. DONE runs later, exactly once: ERR_UNAVAILABLE (nothing happened: the disk does not take writes, there is no leader,
 * too many wait), ERR_UNKNOWN_OUTCOME (the same, but it may have happened), ERR_PERMANENT (the log is of no use any more),
 * ERR_CANCELLED, or what the call itself came to. */
void replica_submit(struct replica *r, struct replica_op *op);

/* Any thread: the machine, locked until replica_unlock(), for short reads. NULL, and not locked: the log is of no use any more. */
struct machine *replica_lock(struct replica *r);
void replica_unlock(struct replica *r);
/* Any thread: what the store is. False: not known yet. */
bool replica_meta(struct replica *r, struct store_meta *ret);

/* --- looking ------------------------------------------------------------------------------------------------------- */

enum replica_role { /* as enum store_raft_role */
                    REPLICA_CLIENT,
                    REPLICA_WAITING,
                    REPLICA_LEARNING,
                    REPLICA_FOLLOWER,
                    REPLICA_CANDIDATE,
                    REPLICA_LEADER,
                    REPLICA_REMOVED,
                    REPLICA_BROKEN,
                    REPLICA_ROLE_COUNT_
};

struct replica_server {
    uint64_t id;
    bool votes;
    bool reached;
    uint64_t lag;
};

struct replica_view {
    enum replica_role role;
    bool ready; /* the leader, and it answers */
    uint64_t self, leader, term, applied, last, elections;
    struct replica_server servers[MESH_NODES_MAX];
    size_t servers_count;
    char problem[200];
};
/* Any thread. */
void replica_view(struct replica *r, struct replica_view *ret);

#define REPLICA_QUEUE_MAX 20000 /* own calls that wait; more are refused */

struct replica_stats {
    uint64_t entries; /* written by this process */
    uint64_t entry_bytes;
    uint64_t snapshots;
    uint64_t snapshot_bytes; /* of the last */
    uint64_t snapshot_ms;    /* from its beginning to being durable */
    uint64_t log_bytes;      /* since the last snapshot began */
    uint64_t open_ms;        /* reading the folder took so long */
    uint64_t forwards;       /* batches sent to a leader */
    uint64_t repeats;        /* calls asked again: the leader was lost */
    uint64_t rounds;         /* times that a majority was asked whether the term stands */
    uint64_t installs;       /* snapshots taken over from a leader */
    size_t queue;            /* own calls under way */
    size_t tasks;            /* calls of all agents that wait here for an entry */
    size_t to_read;          /* their reads that wait for a thread */
};
/* Any thread. */
void replica_stats(struct replica *r, struct replica_stats *ret);
/* A snapshot soon, whatever the log has; for tests and the benchmark. */
void replica_ask_snapshot(struct replica *r);
/* For tests: until called with false nothing is heard from anyone, and nothing reaches anyone. */
void replica_cut(struct replica *r, bool cut);

#endif
