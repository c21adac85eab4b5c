/* A read: what is asked, what was found in a machine, what the caller gets. Found here, or at the leader and brought here as bytes. */
#ifndef CARILLON_STORE_STORE_RAFT_READ_H
#define CARILLON_STORE_STORE_RAFT_READ_H

#include "agent/store/raft/codec.h"
#include "agent/store/store_raft_private.h"

enum rs_read_kind { /* numbers are part of the protocol */
                    RS_LOAD_JOBS = 1,
                    RS_LOAD_FIRES = 2,
                    RS_GET_JOBS = 3,
                    RS_GET_FIRES = 4,
                    RS_LIST_JOBS = 5,
                    RS_LIST_FIRES = 6,
                    RS_GET_COPY = 7,
                    RS_COUNT_DEAD = 8,
                    RS_FIND_CHANGE = 9,
                    RS_LIST_REVISIONS = 10,
                    RS_COUNT_JOBS = 11,
                    RS_READ_LAST_ = RS_COUNT_JOBS
};

/* What a leader keeps of the question of another; NULL where who asked has it. */
struct rs_question {
    struct store_load load;
    struct store_filter filter;
    struct store_revisions which;
    struct store_fire_filter fire_filter;
    struct store_key *keys;
    uint16_t *slots;
    const char **names, **values;
};

struct read {
    struct work work;
    struct replica_op op;
    struct store_raft *store;
    enum rs_read_kind kind;
    /* Loop thread: tell the caller. */
    void (*answer)(struct read *r);
    union {
        store_jobs_done *jobs_done;
        store_fires_done *fires_done;
        store_page_done *page_done;
        store_fire_page_done *fire_page_done;
        store_copy_done *copy_done;
        store_dead_done *dead_done;
        store_revision_done *revision_done;
        store_revisions_done *revisions_done;
    };
    void *arg;
    struct err err;
    uint64_t began_us;

    const struct store_load *load;
    const struct store_key *keys;
    const struct store_filter *filter;
    const struct store_revisions *which;
    const struct store_fire_filter *fire_filter;
    struct rs_question *question;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    struct uid uid;
    uint64_t number; /* before which seq; change id; version */
    uint32_t reader; /* which version who asks knows */
    size_t limit;    /* rows there is room for */

    size_t found;
    bool more;
    struct machine_job_found *jobs_found;
    struct machine_fire_found *fires_found;
    struct machine_revision_found *revisions_found;
    struct store_job *jobs;
    struct fire_row *fires;
    struct store_revision *revisions;
    struct store_page page;
    struct store_fire_page fire_page;
    struct machine_blob *copy_found;
    struct job_spec *copy;
    struct store_dead *dead;
    struct revision revision;
};

/* What is asked, by one who knows version READER: 1 as long as the leader may know no more. */
void rs_put_question(const struct read *r, uint32_t reader, struct buf *out);
/* R is zero; IN is borrowed until R ends. False: it cannot be read. */
bool rs_get_question(struct codec_in *in, struct read *r);
void rs_free_question(struct rs_question *q);
/* What was found. */
void rs_put_found(const struct read *r, struct buf *out);
/* Into R, which has room; rows borrow from IN. False: it cannot be read; what is there is R's as always. */
bool rs_get_found(struct codec_in *in, struct read *r);
/* Room for what may be found. */
int rs_make_room(struct read *r, struct err *e);

#endif
