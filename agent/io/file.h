/* Small files: read whole, write so that a crash leaves the old or the new one, notice changes. Blocking, so
 * for start-up, reloads and worker threads. Any thread. */
#ifndef CARILLON_IO_FILE_H
#define CARILLON_IO_FILE_H

#include "agent/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/* Append all of PATH to OUT, whose ceiling counts. Refuses what is no regular file (a FIFO would block).
 * ERR_NOT_FOUND, ERR_INVALID (not a regular file), ERR_TOO_BIG, ERR_NOMEM, ERR_IO; OUT may hold a part then.
 */
int file_read(const char *path, struct buf *out, struct err *e);

/* A secret that stands alone in a file: white space at its end is cut off. 1 to FILE_SECRET_MAX bytes, no
 * NUL, for mem_free_secret(). Errors as file_read(); ERR_INVALID also when empty or with a NUL. */
#define FILE_SECRET_MAX 65536
int file_read_secret(const char *path, char **ret, size_t *ret_len, struct err *e);

/* Replace PATH by a new file of MODE with these bytes: written beside it, synced, renamed, folder synced.
 * When PATH is a symbolic link the link is replaced. ERR_NOT_FOUND (folder), ERR_IO; PATH is as before then.
 */
int file_write(const char *path, const void *data, size_t bytes, mode_t mode, struct err *e);

/* A number that differs whenever PATH, or what a symbolic link in it leads to, is another file or was
 * changed: device, inode, size and times of the file; of a folder, those of all that is in it,
 * FILE_STAMP_DEPTH folders deep. 0: not there. */
#define FILE_STAMP_DEPTH 3
uint64_t file_stamp(const char *path);

/* One path that is looked at now and then. */
struct file_watch {
    char *path;
    uint64_t stamp;
};
/* Takes the present state as known. */
void file_watch_init(struct file_watch *w, const char *path);
void file_watch_fini(struct file_watch *w);
/* Whether it changed since the last look (or init); appearing and vanishing count. */
bool file_watch_changed(struct file_watch *w);

#endif
