/* A data folder read as a whole, without the library that wrote it and without changing anything: for looking at it and for
 * copying what it holds. Blocking. Any thread. */
#ifndef CARILLON_STORE_RAFT_FOLDER_READ_H
#define CARILLON_STORE_RAFT_FOLDER_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct machine;

struct folder_seen {
    size_t snapshots, closed, open; /* files */
    uint64_t bytes;                 /* of all of them */
    uint64_t snapshot_index;        /* of the newest; 0: none */
    uint64_t last_index;            /* of the log */
    uint64_t entries;               /* commands behind the newest snapshot */
    bool cut_short;                 /* the last write of all did not come to its end: nobody was told of it */
};

/* Gets one line about each thing that is wrong. */
typedef void folder_problem_fn(void *arg, const char *text);

/* Lock DIR as folder_lock() does, but make nothing. ERR_NOT_FOUND: there is no such folder; else as folder_lock(). */
int folder_lock_existing(const char *dir, int *ret_fd, struct err *e);

/* Hold every file of the locked DIR against its checksums and build the state they lead to in M, which is new. UNFINISHED_TOO: also
 * when a copy into it has not come to its end. 0: all is well, and M is complete. ERR_PROTOCOL: FN was told why at least
 * once; M may only be freed. ERR_NOT_FOUND: nothing was ever written here; ERR_IO, ERR_NOMEM, ERR_TOO_BIG. */
int folder_read(const char *dir, struct machine *m, bool unfinished_too, folder_problem_fn *fn, void *arg,
                struct folder_seen *ret, struct err *e);

#endif
