/* One connection to a MySQL-family server: made when first needed, with its session set up, dropped when lost, never
 * reconnected behind our back (MYSQL_OPT_RECONNECT would silently lose the session and a transaction). And scripts: several
 * statements sent in one packet, with what each must have done. One thread at a time; every call blocks, bounded by the
 * time-outs.
 *
 * Errors of statements, by what the caller may conclude (my_error_code):
 *   ERR_RETRY           rolled back or to be rolled back; the same may work at once
 *   ERR_UNAVAILABLE     the server cannot now, or the connection was lost before a commit was sent: nothing happened
 *   ERR_UNKNOWN_OUTCOME lost while a statement that commits was under way, or the server lost the others of its cluster
 *   ERR_EXISTS          a key is taken
 *   ERR_REFUSED         these values will never be taken
 *   ERR_PERMANENT       everything else: denied, no such table, no such database
 */
#ifndef CARILLON_STORE_STORE_MYSQL_CONN_H
#define CARILLON_STORE_STORE_MYSQL_CONN_H

/* mysql.h declares list functions of its own, one by a name of ours. */
#define list_length mysql_list_length_
#include <mysql.h>
#undef list_length
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/err.h"
#include "agent/base/rng.h"
#include "agent/store/store_mysql.h"

/* Tables whose rows are inserted many at a time, each by one statement that stays prepared (store_mysql_insert.h). */
enum my_insert_into {
    MY_INSERT_JOBS,
    MY_INSERT_SPECS,
    MY_INSERT_LABELS,
    MY_INSERT_REVISIONS,
    MY_INSERT_FIRES,
    MY_INSERT_COUNT_
};

struct my_conn {
    const struct store_mysql_options *options; /* borrowed */
    unsigned timeout_s;                        /* of one connect, read or write */
    MYSQL *mysql;                              /* NULL: not connected */
    size_t packet_max;                         /* bytes of text the server takes at once */
    bool has_values; /* "UNION ALL VALUES (row), (row)": a list that is cheaper than a SELECT a row */
    bool is_galera;  /* a server of a cluster that has no locks in common */
    bool has_arrays; /* prepared statements take arrays of values */
    MYSQL_STMT *inserts[MY_INSERT_COUNT_]; /* prepared when first needed */
    struct rng rng;                        /* of back-off */
};

/* Connects nothing yet. TIMEOUT_S at least 1. */
void my_conn_init(struct my_conn *c, const struct store_mysql_options *options, unsigned timeout_s);
void my_conn_close(struct my_conn *c); /* usable again */

/* Connect unless connected; sets up the session. WITH_DATABASE false: do not select the database. ERR_UNAVAILABLE,
 * ERR_PERMANENT (denied, unknown database: ERR_NOT_FOUND, password file). */
int my_conn_ensure(struct my_conn *c, bool with_database, struct err *e);

/* What an error number of the server or client library means; SQLSTATE is its five characters. COMMITS: the statement that met
 * it would have committed. */
enum err_code my_error_code(unsigned number, const char *sqlstate, bool commits);

/* Fills E from STMT's last error; a connection that is of no further use is closed, with all its statements. */
int my_conn_stmt_error(struct my_conn *c, MYSQL_STMT *stmt, const char *doing, struct err *e);
void my_conn_drop_insert(struct my_conn *c, enum my_insert_into into);

/* One row of a result. Not 0: reading stops with that error. */
typedef int my_row_fn(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e);

enum my_expect {
    MY_ANY,   /* whatever it changed */
    MY_MATCH, /* exactly so many rows matched, else ERR_CONFLICT */
    MY_FENCE, /* one row matched, else ERR_FENCED */
    MY_ROWS,  /* a result set */
};

#define MY_SCRIPT_STEPS 64

struct my_script {
    struct my_conn *conn;
    struct buf text; /* append the statement, without ';', then my_script_end */
    struct my_step {
        enum my_expect expect;
        uint64_t count;
        my_row_fn *fn;
        void *arg;
        uint64_t *ret_matched;
    } steps[MY_SCRIPT_STEPS];
    unsigned steps_count;
    bool commits; /* the text under way holds a statement that commits */
    /* Of the next my_script_end: where to put the count of rows that matched, or NULL */
    uint64_t *ret_matched;
};

void my_script_init(struct my_script *s, struct my_conn *conn);
void my_script_fini(struct my_script *s);

/* End the statement. What has gathered is sent when it is large enough, so this too may fail with what an earlier statement
 * did; stop then. ERR_REFUSED: the statement is larger than the server takes, ERR_NOMEM. */
int my_script_end(struct my_script *s, enum my_expect expect, uint64_t count, struct err *e);
/* The same for a statement with a result set; FN gets each row. */
int my_script_end_rows(struct my_script *s, my_row_fn *fn, void *arg, struct err *e);
/* Bytes that a statement of many rows should not exceed. */
size_t my_script_statement_bytes(const struct my_script *s);
/* Send what is left, check every statement. All results are read, whatever fails; the first failure counts. */
int my_script_run(struct my_script *s, struct err *e);

/* One statement of constant text, for its effect. COMMITS: it changes data by itself. */
int my_exec(struct my_conn *c, const char *text, bool commits, struct err *e);
/* -ERR_FENCED, with E filled. */
int my_fenced(struct err *e);
/* ROLLBACK; a connection on which that fails is closed. Keeps what E says. */
void my_rollback(struct my_conn *c);

/* A statement of many rows: HEAD row SEP row … TAIL, cut into several when it grows too large. A LIST is a derived table: HEAD ends
 * with the SELECT that names its columns, TAIL begins with the parenthesis that ends it, and the server's dialect says what stands
 * between, so SEP is NULL. */
struct my_rows {
    struct my_script *script;
    const char *head;
    const char *sep;
    const char *tail;
    bool list;
    enum my_expect expect; /* MY_MATCH: as many as rows were put in; or MY_ANY, or MY_ROWS with fn */
    my_row_fn *fn;
    void *arg;
    unsigned count; /* in the statement under way */
};
#define MY_ROWS_MAX 500
/* Append one row's text to script->text between these two. */
void my_rows_begin_row(struct my_rows *r);
int my_rows_end_row(struct my_rows *r, struct err *e);
int my_rows_end(struct my_rows *r, struct err *e);

#endif
