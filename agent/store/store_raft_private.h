/* What the parts of the Raft-log driver share. Calls become bytes for whoever leads (store_raft_call.c, store_raft_read.c), who may be
 * this very process, and is served there (store_raft_serve.c, store_raft_params.c). Alone, reads do not go that way: threads
 * of their own look at the machine at once, and hold its lock only to find rows. */
#ifndef CARILLON_STORE_STORE_RAFT_PRIVATE_H
#define CARILLON_STORE_STORE_RAFT_PRIVATE_H

#include "agent/io/worker.h"
#include "agent/store/raft/clocks.h"
#include "agent/store/raft/replica.h"
#include "agent/store/store_raft.h"

/* What is asked in the lane of writes; numbers are part of the protocol. */
enum rs_kind {
    RS_JOIN = 1,
    RS_BEAT = 2,
    RS_DECLARE = 3,
    RS_SLOTS = 4, /* then the command as it is */
    RS_SLOTS_READ = 5,
    RS_COMMIT = 6, /* then the command as it is */
    RS_VACUUM = 7,
    RS_KIND_LAST_ = RS_VACUUM
};

/* What the leader keeps beside the machine; the replica's thread. */
struct rs_leader {
    bool alone;  /* members of earlier processes are dead: who has the lock on the folder is the only one */
    bool joined; /* a member of this process is in the store */
    struct uid swept;     /* where the sweep over histories stands */
    struct clocks clocks; /* of those whose beats this process has answered */
};

struct store_raft {
    struct store_raft_options options; /* own copies */
    struct replica *replica;           /* the cluster's, if there is one */
    struct worker_pool *readers;
    struct tzload *zones; /* borrowed */
    int64_t (*now_ms)(void *arg);
    void *arg;
    int lock_fd;
    struct rs_leader leader;  /* alone */
    struct store_stats stats; /* loop thread */
    bool committing;          /* loop thread */
};

struct store_raft_cluster {
    struct store_raft_cluster_options options; /* own copies */
    char *dir, *name;
    struct wire_tls *tls;
    struct replica *replica;
    struct rs_leader leader;
    int lock_fd;
    void (*watch)(void *arg);
    void *watch_arg;
    struct store_raft_voter voters[STORE_RAFT_VOTERS_MAX]; /* as told last, for their addresses */
    size_t voters_count;
};

/* Of a folder, in words that help. */
int rs_check_folder(const char *dir, struct err *e);
/* The replica of one node, or of a member of a cluster. */
int rs_open_replica(struct replica_options *options, struct rs_leader *leader, const char *cluster,
                    struct replica **ret, struct err *e);

/* Loop thread: count an answer. */
void rs_note(struct store_raft *s, const struct err *e);

/* store_raft_serve.c: what a replica calls, with its struct rs_leader as ARG. */
enum replica_step rs_encode(void *arg, struct replica_task *t, struct machine *m, enum command_kind *ret_kind,
                            struct buf *out);
void rs_applied(void *arg, struct replica_task *t, const struct machine_result *result);
/* store_raft_read.c */
void rs_read(void *arg, struct replica_task *t, struct replica *r);

void rs_join(void *self, const struct store_member *me, store_done *done, void *arg);
void rs_beat(void *self, const char *member, store_beat_done *done, void *arg);
void rs_declare_dead(void *self, const char *victim, uint64_t seen_beat, store_bool_done *done, void *arg);
void rs_slots_change(void *self, const char *member, struct slot_change *slots, size_t count,
                     store_done *done, void *arg);
void rs_slots_read(void *self, store_slots_done *done, void *arg);
void rs_commit(void *self, struct store_batch *batch, store_done *done, void *arg);
void rs_vacuum(void *self, const struct store_vacuum *vacuum, store_bool_done *done, void *arg);

void rs_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg);
void rs_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg);
void rs_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg);
void rs_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                  store_fires_done *done, void *arg);
void rs_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg);
void rs_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done, void *arg);
void rs_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg);
void rs_count_dead(void *self, store_dead_done *done, void *arg);
void rs_count_jobs(void *self, const char *ns, uint64_t limit, store_dead_done *done, void *arg);
void rs_find_change(void *self, const char *ns, const char *id, uint64_t change_id, store_revision_done *done,
                    void *arg);
void rs_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done,
                       void *arg);

#endif
