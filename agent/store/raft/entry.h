/* A log entry: what waited for the disk together. A head (what it is, length, checksum), a body (its number, who proposed it, a
 * command after the other), and zeros up to a multiple of 8, as libraft wants it. Entries are numbered without gaps, so one that
 * went missing is found out whatever the library below makes of it. Pure; any thread. */
#ifndef CARILLON_STORE_RAFT_ENTRY_H
#define CARILLON_STORE_RAFT_ENTRY_H

#include "agent/base/buf.h"
#include "agent/store/raft/codec.h"
#include "agent/store/raft/machine.h"
#include "agent/store/store.h"
#include "agent/store/store_version.h"

/* An entry is ended when it has grown over this; a single command may be larger. Well below a segment of libraft's (8 MiB). */
#define ENTRY_FULL_BYTES ((size_t)1 << 20)
#define ENTRY_MAX_BYTES  ((size_t)256 << 20)

enum command_kind { /* numbers are part of the format */
                    COMMAND_MAKE = 1,
                    COMMAND_JOIN = 2,
                    COMMAND_DECLARE = 3,
                    COMMAND_SLOTS = 4,
                    COMMAND_COMMIT = 5,
                    COMMAND_VACUUM = 6,
                    COMMAND_VERSION = 7, /* since version 2 */
                    COMMAND_LAST_ = STORE_VERSION >= 2 ? COMMAND_VERSION : COMMAND_VACUUM
};

/* --- writing ------------------------------------------------------------------------------------------------------- */
void entry_begin(struct buf *b, uint64_t seq, uint64_t proposer);
/* CONTENT is what one of the command_put_* below appended. */
void entry_add(struct buf *b, enum command_kind kind, const struct buf *content);
/* Close it: B is then a whole entry. ERR_TOO_BIG, ERR_NOMEM: an append was lost. */
int entry_end(struct buf *b, struct err *e);

/* Times are the proposer's: the state machine has no clock. */
void command_put_make(struct buf *b, const struct store_meta *meta);
/* ALONE: every other member is dead since AT_MS. */
void command_put_join(struct buf *b, const struct store_member *me, bool alone, int64_t at_ms);
void command_put_declare(struct buf *b, const char *victim, int64_t at_ms);
void command_put_slots(struct buf *b, const char *member, const struct slot_change *slots, size_t count);
/* CUTS: histories that are too long, and the newest seq of each that goes. */
void command_put_vacuum(struct buf *b, int64_t now_ms, const struct machine_cut *cuts, size_t count);
/* From here on what this VERSION of carillon writes may follow: all voters can read it. */
void command_put_version(struct buf *b, uint32_t version);
/* Fence, slots and as many of CHANGES as make up about MAX_BYTES, at least one; returns how many. What a reader of VERSION does not
 * know is left out. */
size_t command_put_commit(struct buf *b, uint32_t version, const char *member,
                          const struct slot_change *slots, size_t slots_count,
                          struct job_change *const *changes, size_t count, size_t max_bytes, struct err *e);

/* --- reading ------------------------------------------------------------------------------------------------------- */
struct entry {
    uint64_t seq;
    uint64_t proposer;
    struct codec_in commands;
};
struct command {
    enum command_kind kind;
    struct codec_in in;
};
/* ERR_PROTOCOL: not an entry, damaged, or a newer one's. Everything is borrowed from DATA. */
int entry_open(const void *data, size_t len, struct entry *ret, struct err *e);
/* False at the end, or when what follows is no command: entry_close() tells. */
bool entry_next(struct entry *entry, struct command *ret);
int entry_close(const struct entry *entry, struct err *e);

/* Whether DATA is what a command of KIND (COMMAND_SLOTS, COMMAND_COMMIT) holds; nothing is changed. */
bool command_check(enum command_kind kind, const void *data, size_t bytes);

/* A change as a command carries it. FIRES and what rows point to are borrowed. */
struct command_change {
    struct job_change change; /* no spec; fires are not set */
    const void *spec;         /* packed (pack.h); NULL: none */
    size_t spec_bytes;
    const void *replaced; /* packed: the definition to keep with the revision; NULL: none */
    size_t replaced_bytes;
    size_t fires_count;
};
/* The next change of a commit, without its fires; they follow, and must be read before the next change. */
void command_get_change(struct codec_in *in, struct command_change *ret);
struct command_fire {
    struct fire_change change; /* no copy */
    const void *copy;          /* packed; NULL: none */
    size_t copy_bytes;
};
/* LAST is one of the caller's for the whole command, zero at its beginning: many fires have the same copy. */
void command_get_fire(struct codec_in *in, struct command_fire *last, struct command_fire *ret);
void command_get_cut(struct codec_in *in, struct machine_cut *ret);
void command_get_slot(struct codec_in *in, struct slot_change *ret);

#endif
