/* What the two parts of a replica share: replica.c (calls, entries, answers) and replica_raft.c (libraft, its thread, snapshots). */
#ifndef CARILLON_STORE_RAFT_REPLICA_PRIVATE_H
#define CARILLON_STORE_RAFT_REPLICA_PRIVATE_H

#include <pthread.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdatomic.h>

#include "agent/store/raft/replica.h"

enum state { STATE_OPENING, STATE_OPEN, STATE_CLOSING, STATE_CLOSED };

struct replica {
    struct replica_options options;
    char *dir;
    pthread_t thread;

    /* Replica's thread. */
    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t tick;
    uv_idle_t slices;
    uv_prepare_t look;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    struct raft_uv_transport transport;
    enum state state;
    struct err broken; /* ERR_OK: it works */
    uint64_t opened_ms, closing_ms;
    uint64_t proposer;
    struct list queue;          /* taken from `submitted` */
    struct replica_op **flight; /* of the entry under way; NULL: answered already */
    size_t flight_count, flight_cap;
    uint64_t flight_seq, flight_ms;
    bool in_flight;
    bool postponed; /* until the next tick */
    bool making;
    bool snapshot_ready, snapshot_writing, snapshot_asked;
    uint64_t snapshot_began_ms, since_entries, since_bytes;
    struct raft_apply apply;
    struct buf entry;
    struct buf command;

    pthread_mutex_t machine_lock; /* the machine; only the replica's thread changes it */
    struct machine *machine;
    atomic_bool unusable; /* it is at a state that no log leads to, or may fall behind one */

    pthread_mutex_t lock; /* for what follows */
    pthread_cond_t opened;
    bool open_done;
    struct err open_err;
    struct list submitted;
    struct list done;
    bool close_wanted;
    bool ask_snapshot;
    bool msg_posted;
    struct loop_msg msg;
    struct replica_stats stats;

    bool freed; /* loop thread: only the memory is left, for the message under way */
};

/* replica.c, replica's thread. */
void replica_break(struct replica *r, const char *what); /* the log can go no further */

/* Write what waits, answer what need not wait any longer. */
void replica_pump(struct replica *r);
void replica_check_patience(struct replica *r);
/* Of struct raft_fsm. */
int replica_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result);
int replica_restore(struct raft_fsm *fsm, struct raft_buffer *buf);

/* replica_raft.c: the thread, from opening to closing. */
void *replica_thread(void *arg);

#endif
