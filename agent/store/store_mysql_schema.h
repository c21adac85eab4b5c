/* Tables and their versions. Made and migrated by whichever agent comes first; others wait for it. */
#ifndef CARILLON_STORE_STORE_MYSQL_SCHEMA_H
#define CARILLON_STORE_STORE_MYSQL_SCHEMA_H

#include <stdint.h>

#include "agent/store/store.h"
#include "agent/store/store_mysql_conn.h"

/* The newest version this program knows, hence makes. */
uint32_t my_schema_version(void);

/* Make the database (if it is absent and the user may), the tables and the meta data, or bring them up to date, in such a way that
 * agents of the version before go on meanwhile and afterwards. LOCK is a
 * second connection: it holds a row lock while the first works. Idempotent; any number of agents may call it at once, and
 * one that dies in the middle leaves the rest to the next. CLUSTER and SLOTS are written when the store is made.
 * ERR_PERMANENT: the schema is newer than this program, the store is another cluster's, or the user may not; ERR_UNAVAILABLE (also: a
 * table that is to be changed is being read for long). */
int my_schema_open(struct my_conn *c, struct my_conn *lock, const char *cluster, uint32_t slots,
                   struct store_meta *ret, struct err *e);

/* In `meta` while a copy into the store has not come to its end. */
#define MY_SCHEMA_COPYING "copying"
/* Read the meta data of a store that is there, whatever its cluster, and whether it is an unfinished copy. ERR_NOT_FOUND: there is
 * none; ERR_PERMANENT: it is newer than this program, or is still to be brought up to date. */
int my_schema_look(struct my_conn *c, struct store_meta *ret, bool *ret_copying, struct err *e);

#endif
