/* The data folder of the log: made, locked, and looked through before the library below reads it. That library takes what it cannot
 * read at the end of its newest file for a write that was cut short by a crash, and goes on without it; here it is told
 * which it is. Blocking. Any thread. */
#ifndef CARILLON_STORE_RAFT_FOLDER_H
#define CARILLON_STORE_RAFT_FOLDER_H

struct err;

/* Make DIR and the folders above it where they are missing, and lock it until *RET_FD is closed. ERR_PERMANENT: another agent
 * has it, or it is no folder; ERR_IO. */
int folder_lock(const char *dir, int *ret_fd, struct err *e);

/* Look at what the library below would misread in a locked DIR: the newest snapshot's description, its open segments, its terms. The
 * rest it checks itself. ERR_PROTOCOL: something was changed since it was written (a write that a crash cut short is no
 * such thing: nobody was told of it); ERR_IO, ERR_NOMEM, ERR_TOO_BIG. */
int folder_check(const char *dir, struct err *e);

#endif
