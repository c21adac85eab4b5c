/* What the parts of a replica share: replica.c (own calls and their answers), replica_lead.c (entries, reads, terms), replica_forward.c
 * (calls to and from others), replica_members.c (who votes, who leads), replica_version.c (what all can read), replica_disk.c (a disk that
 * takes no writes), replica_restore.c (snapshots that become the state), replica_raft.c (libraft, its thread, snapshots that are taken). */
#ifndef CARILLON_STORE_RAFT_REPLICA_PRIVATE_H
#define CARILLON_STORE_RAFT_REPLICA_PRIVATE_H

#include <pthread.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdatomic.h>

#include "agent/store/raft/replica.h"

/* The address of the only node: never dialled, and the mark of a log that belongs to no cluster. */
#define REPLICA_ALONE_ID      1
#define REPLICA_ALONE_ADDRESS "local"

#define REPLICA_NO_SNAPSHOTS UINT32_MAX

enum state { STATE_OPENING, STATE_OPEN, STATE_CLOSING, STATE_CLOSED };

/* Calls between members of the cluster; numbers are part of the protocol. */
enum replica_call {
    REPLICA_CALL_WHO = 1,   /* who leads, what the store is, who votes, what version it knows */
    REPLICA_CALL_TERM = 2,  /* does this term still stand? */
    REPLICA_CALL_WRITE = 3, /* calls, one after the other */
    REPLICA_CALL_READ = 4
};

/* Calls that came together, and are answered together. */
struct replica_batch {
    struct list link;
    uint64_t peer, call;
    void *body;
    struct replica_task **tasks;
    size_t count, left;
};

/* Whether a majority still has the leader's term. */
struct replica_round {
    bool running;
    uint64_t number;
    unsigned yes, need;
    uint64_t began_ms;
};

struct replica_hint { /* what others say of the leader */
    uint64_t term, id;
    uint64_t asked_ms;
};

/* What others said that they can read. */
struct replica_known {
    uint64_t id, round;
    uint32_t version;
    bool told; /* that it knows too little */
};
struct replica_versions {
    uint64_t asked_ms, round;
    struct replica_known known[MESH_NODES_MAX];
    size_t count;
};

/* The answer to REPLICA_CALL_WHO. */
struct replica_who {
    uint64_t term, leader;
    bool leads;
    struct store_meta meta; /* schema 0: not made */
    uint64_t voters[MESH_NODES_MAX];
    size_t voters_count;
    uint32_t version; /* the newest that it knows (store_version.h) */
};

struct replica_vote_order {
    bool wanted, done;
    uint64_t id;
    int fd;
    bool founds;
    struct mesh_node first[MESH_NODES_MAX];
    size_t first_count;
    struct err err;
};

struct replica {
    struct replica_options options;
    char *dir;
    char *cluster;
    pthread_t thread;

    /* Replica's thread. */
    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t tick;
    uv_idle_t slices, replays;
    uv_prepare_t look;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    struct raft_uv_transport transport;
    bool made_raft; /* and has to be closed */
    bool voting;    /* it runs */
    enum state state;
    struct err broken; /* ERR_OK: it works */
    uint64_t opened_ms, closing_ms;
    uint64_t proposer;
    struct list queue; /* own calls, taken from `submitted` */
    bool postponed;    /* until the next tick */

    /* Leading. */
    uint64_t lead_term; /* 0: not the leader */
    bool barrier_open, ready, making;
    struct raft_barrier barrier;
    struct list tasks;            /* wait for an entry */
    struct replica_task **flight; /* of the entry under way */
    size_t flight_count, flight_cap;
    uint64_t flight_seq, flight_ms;
    bool in_flight;
    struct list asked, asking; /* wait for a majority to be asked; are being asked for */
    struct replica_round round;
    struct list to_read;
    unsigned reading;
    struct raft_apply apply;
    struct buf entry;
    struct buf command;

    /* Using the cluster. */
    struct mesh *mesh; /* NULL: alone */
    raft_io_recv_cb recv;
    int (*io_start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv);
    struct list forwards, batches;
    size_t forwards_count[REPLICA_LANE_COUNT_];
    struct replica_hint hint;
    struct replica_versions versions;
    struct mesh_node wanted[MESH_NODES_MAX];
    size_t wanted_count;
    bool nodes_stale, member, removed, changing, transferring, transferred;
    bool cut;
    uint64_t mesh_self;
    raft_index nodes_index;
    struct raft_change change;
    struct raft_transfer transfer;
    uint64_t change_retry_ms, leader_seen, elections;

    /* Of the last look. */
    bool disk_stuck;
    uint64_t disk_since_ms;
    raft_index disk_stored;

    /* Snapshots. */
    bool snapshot_ready, snapshot_writing, snapshot_asked;
    uint64_t snapshot_began_ms, since_entries, since_bytes, applied_ms;
    uint64_t dropped_bytes;      /* of the log by the snapshot under way */
    uint64_t trim_ms;            /* when memory is given back; 0: nothing much is free */
    struct restoring *restoring; /* NULL: the machine is the state, but for the entries in LATE */
    struct list late;

    pthread_mutex_t machine_lock; /* the machine; only the replica's thread changes it */
    struct machine *machine;
    atomic_bool unusable; /* it is at a state that no log leads to, or may fall behind one */

    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t opened;
    bool open_done;
    struct err open_err;
    struct list submitted;
    struct list done;
    size_t pending; /* own calls, from submission to their answer */
    bool close_wanted, ask_snapshot, voters_new, cut_wanted;
    bool cancel_wanted;
    struct mesh_node voters[MESH_NODES_MAX];
    size_t voters_count;
    struct replica_vote_order vote;
    struct store_meta meta; /* schema 0: not known */
    struct replica_view view;
    bool view_changed;
    bool msg_posted;
    struct loop_msg msg;
    struct replica_stats stats;

    bool freed; /* loop thread: only the memory is left, for the message under way */
};

/* --- replica.c, replica's thread ----------------------------------------------------------------------------------- */
void replica_break(struct replica *r, const char *what); /* the log can go no further */
/* Send what waits on its way, answer what need not wait any longer. */
void replica_pump(struct replica *r);
void replica_tick(struct replica *r);
void replica_finish(struct replica *r, struct replica_op *op);
void replica_finish_with(struct replica *r, struct replica_op *op, enum err_code code, const char *text);
/* What the leader said. ERR_RETRY: nothing happened, ERR_UNKNOWN_OUTCOME: it may have: both are asked again. */
void replica_answered(struct replica *r, struct replica_op *op, const struct err *err, const void *data,
                      size_t bytes);
void replica_changed(struct replica *r); /* the loop is told that the view did */
void replica_learn(struct replica *r, const struct store_meta *meta);

/* --- replica_lead.c ------------------------------------------------------------------------------------------------ */
bool replica_leads(const struct replica *r); /* and answers */
/* The term and readiness as libraft has it now. */
void replica_look_lead(struct replica *r);
void replica_lead(struct replica *r); /* what waits, when it leads */
void replica_lead_lost(struct replica *r);
struct replica_task *replica_task_new(struct replica *r, enum replica_lane lane);
void replica_task_end(struct replica *r, struct replica_task *t);
/* Offer PICK the own calls that are in the leader's hands. True: it took the call, which is forgotten here. */
typedef bool replica_pick(struct replica *r, struct replica_op *op, void *arg);
void replica_lead_drop(struct replica *r, replica_pick *pick, void *arg);
void replica_lead_fini(struct replica *r); /* the thread has ended */
/* Nothing is in flight: VERSION becomes the log's. */
void replica_raise(struct replica *r, uint32_t version);
/* Of struct raft_fsm. */
int replica_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result);
/* FN: as of machine_apply(), of an entry that was made here; NULL: it was not. */
void replica_apply_now(struct replica *r, const void *data, size_t bytes, machine_result_fn *fn);

/* --- replica_restore.c --------------------------------------------------------------------------------------------- */
/* Of struct raft_fsm. */
int replica_restore(struct raft_fsm *fsm, struct raft_buffer *buf);
/* The state is not there yet: nothing is to be made of it, and entries wait. */
bool replica_is_restoring(const struct replica *r);
void replica_apply_later(struct replica *r, const void *data, size_t bytes);
void replica_drop_late(struct replica *r);

/* --- replica_forward.c --------------------------------------------------------------------------------------------- */
void replica_forward(struct replica *r); /* what waits, to who leads */
void replica_forward_drop(struct replica *r, replica_pick *pick, void *arg);
void replica_on_request(void *arg, const struct mesh_request *request);
void replica_batch_done(struct replica *r, struct replica_batch *b);
void replica_ask_who(struct replica *r);
/* False: BODY is no such answer. */
bool replica_get_who(const void *body, size_t bytes, struct replica_who *ret);
uint64_t replica_leader(const struct replica *r); /* 0: not known, or cannot be reached */

/* --- replica_members.c --------------------------------------------------------------------------------------------- */
/* Address of voter ID in the configuration: unique even when a port is used again. */
#define REPLICA_ADDRESS_MAX (STORE_ADDRESS_MAX + 24)
void replica_put_address(char ret[REPLICA_ADDRESS_MAX], const struct mesh_node *node);
void replica_members_tick(struct replica *r);
void replica_give_lead(struct replica *r);  /* to whoever has the log, if there is somebody */
void replica_look_nodes(struct replica *r); /* who is to be dialled */
bool replica_hand_over(struct replica *r);  /* a closing leader: false while that is under way */
void replica_look_view(struct replica *r);
unsigned replica_majority(const struct replica *r); /* voters, without this one, that make it one */

/* --- replica_disk.c ------------------------------------------------------------------------------------------------ */
void replica_tell_disk(const struct replica *r, char *text,
                       size_t size);       /* why it takes no writes, for people */
void replica_look_disk(struct replica *r); /* at every tick */

/* --- replica_version.c --------------------------------------------------------------------------------------------- */
/* Every turn: a leader finds out what all can read. */
void replica_look_version(struct replica *r);
/* Whether voter ID can read what the log holds; false also while that is not known. */
bool replica_can_read(struct replica *r, uint64_t id);

/* --- replica_raft.c: the thread, from opening to closing ----------------------------------------------------------- */
void *replica_thread(void *arg);
void replica_take_vote(struct replica *r);

#endif
