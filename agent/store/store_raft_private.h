/* What the parts of the Raft-log driver share. Writes, beats and what must come after them go through the replica's queue
 * (store_raft.c); reads run on threads of their own, which hold the machine's lock only to find rows (store_raft_read.c). */
#ifndef CARILLON_STORE_STORE_RAFT_PRIVATE_H
#define CARILLON_STORE_STORE_RAFT_PRIVATE_H

#include "agent/io/worker.h"
#include "agent/store/raft/replica.h"
#include "agent/store/store_raft.h"

struct store_raft {
    struct store_raft_options options; /* own copies */
    struct replica *replica;
    struct worker_pool *readers;
    struct tzload *zones; /* borrowed */
    int64_t (*now_ms)(void *arg);
    void *arg;
    int lock_fd;
    struct uid swept;         /* replica's thread: where the sweep over histories stands */
    bool joined;              /* replica's thread: a member of this process is in the store */
    struct store_stats stats; /* loop thread */
    bool committing;          /* loop thread */
};

/* Loop thread: count an answer. */
void rs_note(struct store_raft *s, const struct err *e);

void rs_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg);
void rs_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg);
void rs_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg);
void rs_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                  store_fires_done *done, void *arg);
void rs_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg);
void rs_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done, void *arg);
void rs_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg);
void rs_count_dead(void *self, store_dead_done *done, void *arg);
void rs_find_change(void *self, const char *ns, const char *id, uint64_t change_id, store_revision_done *done,
                    void *arg);
void rs_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done,
                       void *arg);

#endif
