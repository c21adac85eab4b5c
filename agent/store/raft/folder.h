/* The data folder of the log: made, locked, and looked through before the library below reads it. That library takes what it cannot
 * read at the end of its newest file for a write that was cut short by a crash, and goes on without it; here it is told
 * which it is. Blocking. Any thread. */
#ifndef CARILLON_STORE_RAFT_FOLDER_H
#define CARILLON_STORE_RAFT_FOLDER_H

struct err;

/* Make DIR and the folders above it where they are missing, and lock it until *RET_FD is closed. ERR_PERMANENT: another agent
 * has it, or it is no folder; ERR_IO. */
int folder_lock(const char *dir, int *ret_fd, struct err *e);

#endif
