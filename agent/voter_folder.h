/* What the folder of a voter's log remembers beside the log: which folder it is (so that one that was emptied is another), which
 * cluster's, and where its voters were, should Consul forget. Blocking, for start-up and the few moments in which it changes. */
#ifndef CARILLON_AGENT_VOTER_FOLDER_H
#define CARILLON_AGENT_VOTER_FOLDER_H

#include "agent/base/err.h"
#include "agent/core/voters.h"

#define VOTER_FOLDER_FILE "identity.json"

struct voter_folder {
    char folder[VOTERS_FOLDER_SIZE];
    char set[VOTERS_FOLDER_SIZE];   /* "": none yet */
    uint64_t number;                /* 0: none yet */
    bool used;                      /* a log was opened here under NUMBER */
    struct voter known[VOTERS_MAX]; /* number, name and address */
    size_t known_count;
};

/* Read what DIR remembers; a folder that is not there, or has no file, is made a new one. ERR_PERMANENT: another agent uses it, or
 * the file makes no sense; ERR_IO, ERR_NOMEM. */
int voter_folder_open(const char *dir, struct voter_folder *ret, struct err *e);
/* ERR_IO, ERR_NOMEM: DIR remembers what it did. */
int voter_folder_write(const char *dir, const struct voter_folder *f, struct err *e);
/* Move DIR away, whose log is of no use any more: "<dir>.removed-<number>", the first of such names that is free. RET_TO gets where
 * to. ERR_IO. */
#define VOTER_FOLDER_PATH_MAX 4300
int voter_folder_retire(const char *dir, uint64_t number, char ret_to[VOTER_FOLDER_PATH_MAX], struct err *e);

#endif
