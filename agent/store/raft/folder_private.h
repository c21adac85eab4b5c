/* What the looks at a data folder share: its list of files, and the batches in its segments, as libraft 0.22 writes them (its
 * include/raft/uv.h). Blocking. Any thread. */
#ifndef CARILLON_STORE_RAFT_FOLDER_PRIVATE_H
#define CARILLON_STORE_RAFT_FOLDER_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/store/raft/codec.h"

/* A segment has 8 MiB, or what its one large entry needs. */
#define FOLDER_SEGMENT_MAX ((size_t)400 << 20)
/* An entry's head in a batch: term (8), kind (1), nothing (3), length (4). */
#define FOLDER_ENTRY_HEAD 16

struct folder_segment {
    char name[40];
    bool open;
    uint64_t first, last; /* closed: indexes; open: first is its number */
};

struct folder_snapshot {
    char name[80];
    uint64_t term, index, time;
};

struct folder {
    const char *dir;                 /* borrowed */
    struct folder_segment *segments; /* closed ones in their order, then open ones in theirs */
    size_t segments_count, segments_cap;
    struct folder_snapshot *snapshots; /* oldest first, as libraft orders them */
    size_t snapshots_count, snapshots_cap;
    /* The newest description whose snapshot is not there, or empty: it was being put there when a crash came, and then the log still
     * has all that is in it; or it got lost. index 0: none. */
    struct folder_snapshot orphan;
    bool voter;      /* FOLDER_NUMBER is there: of a cluster */
    bool unfinished; /* FOLDER_UNFINISHED is there */
    bool used;       /* the log's own files are there: some of the above, or its terms */
};

/* This file holds the number of the voter whose log it is; an agent alone has none. */
#define FOLDER_NUMBER "number"
/* A file of this name says that a copy into the folder has not come to its end. */
#define FOLDER_UNFINISHED "copy-unfinished"

/* Fill F, which is zero but for DIR. ERR_IO, ERR_NOMEM, ERR_TOO_BIG; folder_fini() in any case. */
int folder_list(struct folder *f, struct err *e);
void folder_fini(struct folder *f);

/* Append the file NAME of the folder to OUT. Errors as file_read(). */
int folder_read_file(const struct folder *f, const char *name, struct buf *out, struct err *e);

/* libraft's checksum, going on from CRC (0 at the beginning). */
uint32_t folder_crc32(uint32_t crc, const void *data, size_t len);

/* What one batch holds, borrowed. */
struct folder_batch {
    const uint8_t *heads; /* COUNT times FOLDER_ENTRY_HEAD bytes */
    const uint8_t *data;
    uint64_t count;
};
/* The next batch of a segment (behind its first 8 bytes). False: its head or its data are not right; IN is then bad when it was
 * the head, and else stands behind the data. */
bool folder_get_batch(struct codec_in *in, struct folder_batch *ret);

/* What entry I of B holds. Call it for each in turn: *AT starts at B->data. */
enum folder_entry_kind { FOLDER_ENTRY_COMMAND = 1, FOLDER_ENTRY_BARRIER = 2, FOLDER_ENTRY_CHANGE = 3 };
struct folder_entry {
    uint8_t kind;
    const uint8_t *data;
    size_t bytes;
};
void folder_get_entry(const struct folder_batch *b, uint64_t i, const uint8_t **at, struct folder_entry *ret);

/* The same checks one by one, as folder_check() makes them all: ERR_PROTOCOL names the file and what is wrong with it. */
int folder_check_terms(const struct folder *f, struct err *e);
int folder_check_snapshot_head(const struct folder *f, const struct folder_snapshot *s, struct err *e);
/* *RET_USED: it holds something, *RET_ENTRIES of them; *RET_WHOLE: up to its end, no write was cut short. */
int folder_check_open_segment(const struct folder *f, const struct folder_segment *s, bool *ret_used,
                              bool *ret_whole, uint64_t *ret_entries, struct err *e);
/* Whether what F's orphan describes is all in the log, whose open segments hold OPEN_ENTRIES. */
int folder_check_orphan(const struct folder *f, uint64_t open_entries, struct err *e);

#endif
