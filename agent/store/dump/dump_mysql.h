/* What reading and writing a MySQL store as a dump share. */
#ifndef CARILLON_STORE_DUMP_DUMP_MYSQL_H
#define CARILLON_STORE_DUMP_DUMP_MYSQL_H

#include "agent/store/dump/dump.h"
#include "agent/store/store_mysql_conn.h"

/* Of one connect, read or write: tables are read from their beginning to their end. */
#define DUMP_MYSQL_TIMEOUT_S 120

int dump_mysql_read_open(struct dump_place *p, bool unfinished_too, void **ret, struct err *e);
int dump_mysql_read_next(void *reader, struct dump_record *ret, struct err *e);
void dump_mysql_read_close(void *reader);

#endif
