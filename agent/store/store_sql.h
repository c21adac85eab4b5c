/* SQL text, and the tables whose rows are structs of agent/core/record.h. A table is a list of columns with the place of
 * each in its struct, so that inserting, updating, reading and comparing cannot disagree about a column. All text from
 * outside is written as hex, so nothing of it is ever parsed as SQL, whatever the session's modes. Pure; any thread. */
#ifndef CARILLON_STORE_STORE_SQL_H
#define CARILLON_STORE_STORE_SQL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/core/record.h"

enum sql_type {
    SQL_UID, /* struct uid: BINARY(16) */
    SQL_U16, /* unsigned numbers up to max */
    SQL_U32, /* also enums */
    SQL_U64,
    SQL_MS,    /* int64_t: BIGINT, RECORD_NONE is NULL */
    SQL_ASCII, /* char[size]: VARCHAR in ascii_bin */
    SQL_TEXT,  /* char[size]: VARBINARY */
    SQL_BYTES, /* uint8_t[size] with a uint16_t length: VARBINARY */
    SQL_BLOB,  /* char * of its own with a size_t length, NULL is NULL */
};

struct sql_column {
    const char *name;
    enum sql_type type;
    bool fixed; /* written by an insert, never changed afterwards */
    size_t offset;
    size_t size;       /* of the array in the struct, with its NUL */
    size_t len_offset; /* of the length of SQL_BYTES, SQL_BLOB */
    uint64_t max;
};

struct sql_table {
    const char *name;
    const struct sql_column *columns;
    size_t count;
    size_t key_count; /* the first so many are the key */
};

const struct sql_table *sql_jobs(void);  /* struct job_row */
const struct sql_table *sql_fires(void); /* struct fire_row */

/* A column's value as it is stored. */
enum sql_form { SQL_NUMBER, SQL_INSTANT, SQL_BINARY };
struct sql_value {
    enum sql_form form;
    uint64_t number;  /* SQL_NUMBER */
    int64_t ms;       /* SQL_INSTANT; RECORD_NONE is NULL */
    const void *data; /* SQL_BINARY: borrowed from the row; NULL is NULL */
    size_t len;
};
struct sql_value sql_value_of(const struct sql_column *c, const void *row);

/* Literals. */
void sql_add_hex(struct buf *b, const void *data, size_t len); /* x'00ff' */
/* To be compared with an ascii_bin column. One that is only stored is cheaper as plain hex: the server looks the names of set and
 * collation up for every literal, a tenth of the time of a row. */
void sql_add_ascii(struct buf *b, const char *s);
void sql_add_utf8(struct buf *b, const char *s, size_t len);
void sql_add_blob(struct buf *b, const void *data, size_t len); /* NULL when DATA is */
void sql_add_ms(struct buf *b, int64_t ms);

/* Columns of a table: a bit each, in their order. */
typedef uint64_t sql_set;
sql_set sql_all(const struct sql_table *t);
sql_set sql_keys(const struct sql_table *t);
sql_set sql_changing(const struct sql_table *t); /* not the key */
sql_set sql_short(const struct sql_table *t);    /* those of them that are bounded: no blobs */
/* Those AMONG them whose values are equal in rows A and B. */
sql_set sql_alike(const struct sql_table *t, const void *a, const void *b, sql_set among);

/* "P.uid, P.slot, …", the first column being one of them; P "" leaves out the prefix. */
void sql_add_names(struct buf *b, const struct sql_table *t, const char *prefix, sql_set which);
/* The values of ROW in that order, separated by commas. */
void sql_add_values(struct buf *b, const struct sql_table *t, const void *row, sql_set which);
/* "A.rev = FROM.rev, …" of all columns that change; those ALIKE in all rows of the statement get their value from ROW. */
void sql_add_assignments(struct buf *b, const struct sql_table *t, const char *a, const char *from,
                         const void *row, sql_set alike);

/* Fill ROW (uninitialised) from the texts of a result row whose columns are those of sql_add_names(sql_all()). What SQL_BLOB needs is
 * allocated; nothing stays allocated after a failure. -ERR_PERMANENT (not a value this program writes; column named),
 * -ERR_NOMEM. */
int sql_read_row(const struct sql_table *t, char *const *texts, const unsigned long *lengths, void *row,
                 struct err *e);
/* Whether all columns that change are equal. */
bool sql_rows_equal(const struct sql_table *t, const void *a, const void *b);

/* Whether all names that C would write are ASCII, as their columns want it; no store takes the others. */
bool sql_change_is_ascii(const struct job_change *c);

/* Numbers in a result: all digits, not NULL. False: not such. */
bool sql_get_u64(const char *text, unsigned long len, uint64_t *ret);
bool sql_get_ms(const char *text, unsigned long len, int64_t *ret); /* NULL gives RECORD_NONE */
/* Copy into an array with a NUL; false when it does not fit or is NULL. */
bool sql_get_text(const char *text, unsigned long len, char *ret, size_t size);

#endif
