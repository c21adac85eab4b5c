/* The state machine of the Raft-log store: members, slots, jobs, fires and revisions in memory, with an index for every question that
 * store.h asks. It is changed by log entries alone, and by the same entries always to the same state: no clock, no random
 * numbers, no order that depends on memory. What a command does is what agent/store/store_mem*.c does, row for row.
 * Memory: rows and definitions are packed; allocation aborts without memory, for a committed entry cannot be refused.
 * One thread at a time; the caller has a lock. Blobs may be kept and read outside of it. */
#ifndef CARILLON_STORE_RAFT_MACHINE_H
#define CARILLON_STORE_RAFT_MACHINE_H

#include <stdatomic.h>

#include "agent/base/err.h"
#include "agent/store/store.h"

struct machine;

/* Packed bytes that several may hold; they never change. */
struct machine_blob {
    atomic_uint refs_;
    uint32_t bytes;
    uint8_t data[];
};
/* A copy of DATA, which is no machine's. */
struct machine_blob *machine_blob_new(const void *data, size_t bytes);
struct machine_blob *machine_blob_ref(struct machine_blob *b);
void machine_blob_unref(struct machine_blob *b); /* any thread; NULL does nothing */

struct machine *machine_new(void);
void machine_free(struct machine *m);

/* --- changing ------------------------------------------------------------------------------------------------------ */

/* What became of one command of an entry. Valid during the call. */
struct machine_result {
    enum err_code code;     /* ERR_OK, ERR_FENCED, ERR_EXISTS (made already), ERR_BAD_STATE (not made yet) */
    const uint8_t *changes; /* enum change_result of each change of a commit */
    size_t changes_count;
    const bool *slots; /* changed or not */
    size_t slots_count;
};
typedef void machine_result_fn(void *arg, size_t command, const struct machine_result *result);

/* Apply a log entry, telling FN (may be NULL) of each command. ERR_PROTOCOL: it cannot be read, or is not the next one; the
 * machine is then at a state that no entry leads to, and must not be used. */
int machine_apply(struct machine *m, const void *data, size_t bytes, machine_result_fn *fn, void *arg,
                  struct err *e);
/* Number of the last entry. */
uint64_t machine_seq(const struct machine *m);
/* Proposer of the last entry. */
uint64_t machine_proposer(const struct machine *m);

/* --- members and slots --------------------------------------------------------------------------------------------- */

/* schema 0: not made yet; else the version that all voters have agreed on. */
const struct store_meta *machine_meta(const struct machine *m);
/* Beats are no part of the log: they count while the process runs. False: absent or dead. */
bool machine_beat(struct machine *m, const char *member);
/* Everybody's beat goes on from NUMBER. */
void machine_beats_from(struct machine *m, uint64_t number);
/* NULL: absent. Valid until the next change. */
const struct store_member *machine_member(const struct machine *m, const char *id);
/* Those to be shown at NOW_MS into RET (room for all: machine_members_max()); how many. */
size_t machine_members_max(const struct machine *m);
size_t machine_members(const struct machine *m, int64_t now_ms, struct store_member *ret);
/* Slots of OWNER (NULL: all) into RET, room for machine_meta()->slots; how many. */
size_t machine_slots(const struct machine *m, const char *owner, struct store_slot *ret);

/* --- reading ------------------------------------------------------------------------------------------------------- */
/* Each gives at most LIMIT rows and says whether there are MORE; a page is also cut when what its rows hold would be over
 * MACHINE_PAGE_BYTES. Blobs are new references. */
#define MACHINE_PAGE_BYTES ((size_t)16 << 20)

struct machine_job_found {
    struct job_row row;
    struct machine_blob *spec; /* pack.h; NULL: no such job */
};
struct machine_fire_found {
    struct fire_row row; /* what it would own is borrowed from BLOB */
    struct machine_blob *blob;
};
struct machine_revision_found {
    struct revision row;
    struct machine_blob *was; /* pack.h; NULL: none */
};

/* Jobs of a load in the order (slot, wake, uid). RET has room for load->limit. */
size_t machine_load_jobs(const struct machine *m, const struct store_load *load,
                         struct machine_job_found *ret, bool *ret_more);
/* Fires that have not ended, in the order (slot, wake, uid, seq). */
size_t machine_load_fires(const struct machine *m, const struct store_load *load,
                          struct machine_fire_found *ret, bool *ret_more);
/* By key, in the order of KEYS; how many were looked up. */
size_t machine_get_jobs(const struct machine *m, const struct store_key *keys, size_t count,
                        struct machine_job_found *ret, bool *ret_more);
size_t machine_get_fires(const struct machine *m, const struct uid *uid, uint64_t before_seq, size_t limit,
                         struct machine_fire_found *ret, bool *ret_more);
/* *RET_PAGE gets all but the jobs. */
size_t machine_list_jobs(const struct machine *m, const struct store_filter *filter, size_t limit,
                         struct machine_job_found *ret, struct store_page *ret_page);
bool machine_find_change(const struct machine *m, const char *ns, const char *id, uint64_t change_id,
                         struct revision *ret);
size_t machine_list_revisions(const struct machine *m, const struct store_revisions *which, size_t limit,
                              struct machine_revision_found *ret, bool *ret_more);
/* What was to be delivered by (UID, VERSION), packed: a new reference, or NULL. */
struct machine_blob *machine_get_copy(const struct machine *m, const struct uid *uid, uint64_t version);
/* *RET_NEXT as in struct store_fire_page. */
size_t machine_list_fires(const struct machine *m, const struct store_fire_filter *filter, size_t limit,
                          struct machine_fire_found *ret, struct store_fire_place *ret_next);
/* RET has room for STORE_DEAD_NS_MAX. */
size_t machine_count_dead(const struct machine *m, struct store_dead *ret);
/* Jobs of NS ("": of all), at most LIMIT. */
uint64_t machine_count_jobs(const struct machine *m, const char *ns, uint64_t limit);

/* Whether a vacuum at NOW_MS would find anything that is over. */
bool machine_wants_vacuum(const struct machine *m, int64_t now_ms);
/* The histories of the next so many jobs behind *SWEPT that are longer than FIRES_MAX (0: no bound), into RET; *SWEPT goes on,
 * and begins anew at the end. */
#define MACHINE_SWEEP_JOBS 50
struct machine_cut {
    struct uid uid;
    uint64_t seq; /* it goes, and all before it that have ended and are no dead letters */
};
size_t machine_sweep(const struct machine *m, uint32_t fires_max, struct uid *swept, struct machine_cut *ret);

/* --- snapshots ----------------------------------------------------------------------------------------------------- */

/* A snapshot is the state at one moment, the cut, and is written while the machine goes on: what changes is written before
 * its change. When all is written the entries since the cut follow, so the snapshot is of the moment of its end. */
void machine_snapshot_begin(struct machine *m);
bool machine_snapshot_running(const struct machine *m);
/* Write about ROWS more; true when nothing is left but the end. */
bool machine_snapshot_step(struct machine *m, size_t rows);
/* Bytes so far. */
size_t machine_snapshot_bytes(const struct machine *m);
struct machine_buffer {
    void *data; /* for mem_free */
    size_t bytes;
};
/* After a step that returned true: hand out the buffers, an array for mem_free() too. Begun again only from the beginning. */
void machine_snapshot_end(struct machine *m, struct machine_buffer **ret, size_t *ret_count);
void machine_snapshot_abort(struct machine *m);
/* Fill M, which is new, from the bytes of all buffers one after another. ERR_PROTOCOL: damaged, incomplete, or a newer one's;
 * M can only be freed then. */
int machine_restore(struct machine *m, const void *data, size_t bytes, struct err *e);
/* Only the checksums of these bytes. ERR_PROTOCOL. */
int machine_check_snapshot(const void *data, size_t bytes, struct err *e);

/* --- for tests and measurements ------------------------------------------------------------------------------------ */
struct machine_counts {
    size_t members, jobs, fires, dead_letters, revisions, labels, copies;
};
void machine_count(const struct machine *m, struct machine_counts *ret);
/* Asserts the invariants of all indexes. */
void machine_validate(const struct machine *m);
/* What no command leads to but a broken program might: told to FN, a line each. ERR_NOMEM: not all was looked at. */
typedef void machine_problem_fn(void *arg, const char *text);
int machine_audit(const struct machine *m, machine_problem_fn *fn, void *arg, struct err *e);

#endif
