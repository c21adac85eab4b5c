/* Reading jobs and fires in two steps: first the keys of a page in its order, with how large each is, then the rows of as
 * many as fit into memory comfortably. So a page is bounded in rows and in bytes, whatever people put into their payloads. */
#ifndef CARILLON_STORE_STORE_MYSQL_FETCH_H
#define CARILLON_STORE_STORE_MYSQL_FETCH_H

#include "agent/store/store_mysql_private.h"

/* Definitions, payloads and logs of one page, unless a single one is larger. */
#define MY_FETCH_BYTES ((uint64_t)16 << 20)

struct my_key {
    struct uid uid;
    uint64_t seq;   /* of a fire */
    uint64_t bytes; /* of what the second step would read */
    bool absent;
    uint16_t slot; /* of a load: with wake_ms its place in the order of the pages */
    int64_t wake_ms;
};

/* How many of KEYS fit, at least one; sets *MORE when it cuts. */
size_t my_fetch_fitting(const struct my_key *keys, size_t count, bool *more);

/* JOBS[i] (zeroed by the caller) becomes the job of KEYS[i]; one that is gone keeps spec NULL. What a definition's problem is
 * stands in the job. Free with my_jobs_free, also after a failure. */
int my_fetch_jobs(struct store_mysql *s, struct my_conn *c, const struct my_key *keys, size_t count,
                  struct store_job *jobs, struct err *e);
void my_jobs_free(struct store_job *jobs, size_t count);

/* ROWS (zeroed by the caller) get the fires of KEYS that are still there, in that order, without gaps. Free with
 * my_fires_free, also after a failure. */
int my_fetch_fires(struct my_conn *c, const struct my_key *keys, size_t count, struct fire_row *rows,
                   size_t *ret_count, struct err *e);
void my_fires_free(struct fire_row *rows, size_t count);

/* A definition as stored, parsed and bound to its zone; the reference is the caller's. -ERR_NOMEM, or what is wrong with it. */
int my_spec_make(struct store_mysql *s, const char *definition, size_t bytes, const char *payload,
                 size_t payload_bytes, struct job_spec **ret, struct err *e);

/* " AND COLUMN begins with PREFIX", which is a name (my_is_name) and not empty, in a form that an index understands. */
void my_add_prefix(struct buf *b, const char *column, const char *prefix);

/* Whether S can be a namespace, id or member at all: printable ASCII. What cannot is not asked for. */
bool my_is_name(const char *s);

#endif
