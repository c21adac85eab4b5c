/* The bytes of a snapshot as they are made: blocks, each with its length and checksum, of items: what the store is, members, slots,
 * then rows in no order, then the entries since the cut, then the end with the counts of all. machine_restore() reads
 * them. Allocation aborts without memory. One thread at a time. */
#ifndef CARILLON_STORE_RAFT_SNAPSHOT_OUT_H
#define CARILLON_STORE_RAFT_SNAPSHOT_OUT_H

#include "agent/base/buf.h"
#include "agent/store/store.h"

/* "CARSNP" and the version of the format. */
#define SNAPSHOT_MAGIC      UINT64_C(0x0001504e53524143)
#define SNAPSHOT_HEAD_BYTES 24

enum snapshot_item { /* numbers are part of the format */
                     SNAPSHOT_META = 1,
                     SNAPSHOT_MEMBER = 2,
                     SNAPSHOT_SLOTS = 3,
                     SNAPSHOT_JOB = 4,
                     SNAPSHOT_FIRE = 5,
                     SNAPSHOT_REVISION = 6,
                     SNAPSHOT_ENTRY = 7,
                     SNAPSHOT_END = 8,
                     SNAPSHOT_COPY = 9,
                     SNAPSHOT_LAST_ = SNAPSHOT_COPY
};

/* Gets each block when it is whole; DATA is its own, for mem_free(). */
typedef void snapshot_sink(void *arg, void *data, size_t bytes);

struct snapshot_out {
    snapshot_sink *sink;
    void *arg;
    struct buf block; /* the one under way */
    size_t bytes;     /* of the blocks before it */
    uint64_t jobs, fires, copies, revisions, entries;
};

void snapshot_out_begin(struct snapshot_out *o, snapshot_sink *sink, void *arg);
/* Instead of snapshot_out_end(): drop the block under way. */
void snapshot_out_abort(struct snapshot_out *o);

/* Once, first. SEQ, PROPOSER: of the last entry before the cut. */
void snapshot_out_meta(struct snapshot_out *o, const struct store_meta *meta, uint64_t seq,
                       uint64_t proposer);
/* DIED_MS 0: alive. */
void snapshot_out_member(struct snapshot_out *o, const struct store_member *row, int64_t died_ms);
/* All slots in their order, those that say the same at once. */
void snapshot_out_slots(struct snapshot_out *o, const struct store_slot *slots, size_t count);

struct snapshot_row {
    const struct uid *uid;
    uint16_t slot;
    uint64_t seq; /* of a fire; version of a copy */
    const char *ns, *id;
    const void *body; /* codec_job() or codec_fire() without its key */
    size_t body_bytes;
    const void *spec; /* of a job, a copy: pack.h */
    size_t spec_bytes;
    int64_t until_ms; /* of a copy */
};
void snapshot_out_job(struct snapshot_out *o, const struct snapshot_row *row);
void snapshot_out_fire(struct snapshot_out *o, const struct snapshot_row *row);
void snapshot_out_copy(struct snapshot_out *o, const struct snapshot_row *row);
/* WAS (packed) NULL: none. */
void snapshot_out_revision(struct snapshot_out *o, const char *ns, const char *id, const struct revision *row,
                           const void *was, size_t was_bytes);
void snapshot_out_entry(struct snapshot_out *o, const void *data, size_t bytes);
/* The counts, and the last block. */
void snapshot_out_end(struct snapshot_out *o);

#endif
