/* Rows to be inserted, many at a time. As text like all else; or, where the server takes arrays of values (MariaDB) and the rows are
 * many, as arrays for a prepared statement: then nothing is parsed and evaluated there, which is half of what a row costs it, but each
 * statement is a round trip of its own. Worker thread of the connection.
 *
 *   struct my_insert i;
 *   my_insert_begin(&i, script, MY_INSERT_SPECS, "INSERT INTO job_specs (uid, definition) VALUES (", rows);
 *   for each row: my_insert_bytes(…); my_insert_utf8(…); r = my_insert_row_end(&i, e);
 *   r = my_insert_end(&i, r, e);
 */
#ifndef CARILLON_STORE_STORE_MYSQL_INSERT_H
#define CARILLON_STORE_STORE_MYSQL_INSERT_H

#include "agent/store/store_mysql_conn.h"
#include "agent/store/store_sql.h"

struct my_arrays;

struct my_insert {
    struct my_script *script;
    const char *head;
    enum my_insert_into into;
    unsigned column;         /* of the row under way */
    struct my_rows rows;     /* as text */
    struct my_arrays *array; /* NULL: as text */
};

/* HEAD ends with "VALUES (" and is the same for all statements INTO one table, borrowed until the end; ROWS: how many are to come, at
 * most. Sends nothing. Cannot fail: without memory for arrays it is text. */
void my_insert_begin(struct my_insert *i, struct my_script *s, enum my_insert_into into, const char *head,
                     size_t rows);
/* The next column of the row, in the order of HEAD and of one type in all rows. DATA (NULL is NULL) is borrowed until the end. */
void my_insert_u64(struct my_insert *i, uint64_t v);
void my_insert_ms(struct my_insert *i, int64_t ms); /* RECORD_NONE is NULL */
void my_insert_bytes(struct my_insert *i, const void *data, size_t len);
void my_insert_ascii(struct my_insert *i, const char *s);
void my_insert_utf8(struct my_insert *i, const char *s, size_t len);
/* All columns of T from ROW. */
void my_insert_values(struct my_insert *i, const struct sql_table *t, const void *row);
/* Errors as those of my_script_end(), here and below. */
int my_insert_row_end(struct my_insert *i, struct err *e);
/* R: what the last row's end returned, or 0. Sends the rest unless it failed, which is returned then; frees. */
int my_insert_end(struct my_insert *i, int r, struct err *e);

#endif
