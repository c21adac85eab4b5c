#include "agent/store/store_mysql_conn.h"

#include <assert.h>
#include <errmsg.h>
#include <mysqld_error.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/io/file.h"
#include "agent/store/store_sql.h"

/* Text is sent when it has grown to this: large enough that round trips do not count, small enough for a server whose
 * max_allowed_packet is at its default. */
#define SCRIPT_CHUNK_BYTES ((size_t)1 << 20)
/* No single statement, hence no single row, is larger, whatever the server would take. */
#define SCRIPT_TEXT_MAX ((size_t)16 << 20)

/* A transaction whose client was stopped or whose host was lost keeps its locks until the server notices; others must be
 * able to take over within seconds. Older and other servers know only wait_timeout, which closes idle connections too; we
 * then connect again. */
#define IDLE_TRANSACTION_S "2"
#define IDLE_S             "30"

void my_conn_init(struct my_conn *c, const struct store_mysql_options *options, unsigned timeout_s)
{
    assert(timeout_s > 0);
    *c = (struct my_conn){.options = options, .timeout_s = timeout_s};
    rng_init(&c->rng, clock_mono_ns() ^ (uint64_t)(uintptr_t)c);
}

void my_conn_drop_insert(struct my_conn *c, enum my_insert_into into)
{
    if (c->inserts[into])
        (void)mysql_stmt_close(c->inserts[into]); /* of a lost connection: it is freed all the same */
    c->inserts[into] = NULL;
}

void my_conn_close(struct my_conn *c)
{
    for (unsigned i = 0; i < MY_INSERT_COUNT_; i++)
        my_conn_drop_insert(c, (enum my_insert_into)i);
    if (c->mysql)
        mysql_close(c->mysql);
    c->mysql = NULL;
}

/* --- what error numbers mean --------------------------------------------------------------------------------------- */

static bool is_one_of(unsigned number, const unsigned *list)
{
    for (; *list; list++)
        if (*list == number)
            return true;
    return false;
}

static bool is_lost(unsigned number)
{
    static const unsigned list[] = {CR_SOCKET_CREATE_ERROR /* no file descriptor is left here */,
                                    CR_CONNECTION_ERROR,
                                    CR_CONN_HOST_ERROR,
                                    CR_IPSOCK_ERROR,
                                    CR_UNKNOWN_HOST,
                                    CR_SERVER_GONE_ERROR,
                                    CR_SERVER_HANDSHAKE_ERR,
                                    CR_SERVER_LOST,
                                    CR_SSL_CONNECTION_ERROR,
                                    CR_COMMANDS_OUT_OF_SYNC,
                                    CR_MALFORMED_PACKET,
                                    2055 /* server lost, extended */,
                                    ER_SERVER_SHUTDOWN,
                                    ER_QUERY_INTERRUPTED,
                                    ER_CONNECTION_KILLED,
                                    ER_STATEMENT_TIMEOUT,
                                    3024 /* the same of MySQL */,
                                    ER_ABORTING_CONNECTION,
                                    ER_NEW_ABORTING_CONNECTION,
                                    ER_NET_READ_ERROR,
                                    ER_NET_READ_INTERRUPTED,
                                    ER_NET_ERROR_ON_WRITE,
                                    ER_NET_WRITE_INTERRUPTED,
                                    4031 /* MySQL 8: closed for idleness */,
                                    0};
    return is_one_of(number, list);
}

/* A server of Galera that lost the others while they were to agree on a commit says an error during it; they may have agreed. And
 * who cannot write its log may find the commit in it later. */
static bool is_open(unsigned number)
{
    static const unsigned list[] = {ER_ERROR_DURING_COMMIT, ER_UNKNOWN_COM_ERROR, ER_ERROR_ON_WRITE,
                                    ER_BINLOG_LOGGING_IMPOSSIBLE, 0};
    return is_lost(number) || is_one_of(number, list);
}

enum err_code my_error_code(unsigned number, const char *sqlstate, bool commits)
{
    /* TiDB's numbers from 8000 on; 1020 is how MariaDB >= 11.6 reports a write conflict, 3101 how MySQL's group replication does
     * at a commit. */
    static const unsigned retry[] = {ER_LOCK_DEADLOCK,
                                     ER_LOCK_WAIT_TIMEOUT,
                                     ER_CHECKREAD,
                                     ER_ERROR_DURING_COMMIT,
                                     ER_TABLE_DEF_CHANGED,
                                     ER_TOO_MANY_CONCURRENT_TRXS,
                                     3101,
                                     8002,
                                     8005,
                                     8022,
                                     9007,
                                     0};
    static const unsigned away[] = {ER_UNKNOWN_COM_ERROR /* Galera: not yet prepared */,
                                    ER_OPTION_PREVENTS_STATEMENT /* read-only */,
                                    ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION,
                                    1836 /* read-only mode */,
                                    3032 /* offline mode */,
                                    3100 /* group replication's hook */,
                                    3168 /* being cloned */,
                                    ER_NORMAL_SHUTDOWN,
                                    ER_CON_COUNT_ERROR,
                                    ER_TOO_MANY_USER_CONNECTIONS,
                                    ER_HOST_IS_BLOCKED,
                                    ER_USER_LIMIT_REACHED,
                                    ER_DISK_FULL,
                                    ER_ERROR_ON_WRITE,
                                    ER_BINLOG_LOGGING_IMPOSSIBLE,
                                    ER_RECORD_FILE_FULL,
                                    ER_GET_ERRNO,
                                    ER_OUTOFMEMORY,
                                    ER_OUT_OF_RESOURCES,
                                    ER_CANT_CREATE_THREAD,
                                    ER_LOCK_TABLE_FULL,
                                    0};
    static const unsigned refused[] = {ER_TRUNCATED_WRONG_VALUE_FOR_FIELD,
                                       WARN_DATA_TRUNCATED,
                                       ER_TOO_BIG_ROWSIZE,
                                       ER_INVALID_CHARACTER_STRING,
                                       ER_NET_PACKET_TOO_LARGE,
                                       ER_TOO_LONG_STRING,
                                       ER_WARN_ALLOWED_PACKET_OVERFLOWED,
                                       CR_NET_PACKET_TOO_LARGE,
                                       3819,
                                       4025 /* CHECK constraints */,
                                       0};
    if (commits && is_open(number))
        return ERR_UNKNOWN_OUTCOME;
    if (number == ER_DUP_ENTRY)
        return ERR_EXISTS;
    if (number == ER_BAD_DB_ERROR)
        return ERR_NOT_FOUND;
    if (number == CR_OUT_OF_MEMORY)
        return ERR_NOMEM;
    if (is_one_of(number, retry))
        return ERR_RETRY;
    if (is_lost(number) || is_one_of(number, away))
        return ERR_UNAVAILABLE;
    if (is_one_of(number, refused) || strncmp(sqlstate, "22", 2) == 0 || strncmp(sqlstate, "23", 2) == 0)
        return ERR_REFUSED;
    return ERR_PERMANENT;
}

/* What the server or the library said last. */
struct said {
    unsigned number;
    const char *sqlstate;
    const char *text;
    bool commits; /* the statement would have committed */
};

static int take_error(struct my_conn *c, const struct said *said, const char *doing, struct err *e)
{
    unsigned number = said->number;
    enum err_code code = my_error_code(number, said->sqlstate, said->commits);
    int r = err_set(e, code, "%s: %s (%u)", doing, said->text, number);
    /* Without memory for a result the rest of it stays in the connection. */
    if (code == ERR_UNAVAILABLE || code == ERR_UNKNOWN_OUTCOME || code == ERR_NOMEM ||
        number == ER_NET_PACKET_TOO_LARGE)
        my_conn_close(c);
    return r;
}

/* Fills E from the connection's last error; drops a connection that is of no further use. */
static int conn_error(struct my_conn *c, bool commits, const char *doing, struct err *e)
{
    struct said said = {mysql_errno(c->mysql), mysql_sqlstate(c->mysql), mysql_error(c->mysql), commits};
    return take_error(c, &said, doing, e);
}

int my_conn_stmt_error(struct my_conn *c, MYSQL_STMT *stmt, const char *doing, struct err *e)
{
    struct said said = {mysql_stmt_errno(stmt), mysql_stmt_sqlstate(stmt), mysql_stmt_error(stmt), false};
    return take_error(c, &said, doing, e);
}

/* --- connecting ---------------------------------------------------------------------------------------------------- */

static void set_tls(MYSQL *m, const struct store_mysql_options *o)
{
    my_bool enforce = o->tls_mode != STORE_MYSQL_TLS_OFF, verify = o->tls_mode == STORE_MYSQL_TLS_VERIFY;
    if (enforce) {
        if (o->tls_ca)
            mysql_options(m, MYSQL_OPT_SSL_CA, o->tls_ca);
        if (o->tls_cert)
            mysql_options(m, MYSQL_OPT_SSL_CERT, o->tls_cert);
        if (o->tls_key)
            mysql_options(m, MYSQL_OPT_SSL_KEY, o->tls_key);
    }
    mysql_options(m, MYSQL_OPT_SSL_ENFORCE, &enforce);
    mysql_options(m, MYSQL_OPT_SSL_VERIFY_SERVER_CERT, &verify);
}

static MYSQL *handle_new(const struct my_conn *c)
{
    MYSQL *m = mysql_init(NULL);
    if (!m)
        return NULL;
    unsigned protocol = c->options->socket ? MYSQL_PROTOCOL_SOCKET : MYSQL_PROTOCOL_TCP;
    unsigned no_local_infile = 0; /* a hostile server could ask for our files */
    mysql_options(m, MYSQL_OPT_CONNECT_TIMEOUT, &c->timeout_s);
    mysql_options(m, MYSQL_OPT_READ_TIMEOUT, &c->timeout_s);
    mysql_options(m, MYSQL_OPT_WRITE_TIMEOUT, &c->timeout_s);
    mysql_options(m, MYSQL_OPT_PROTOCOL, &protocol);
    mysql_options(m, MYSQL_OPT_LOCAL_INFILE, &no_local_infile);
    mysql_options(m, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    set_tls(m, c->options);
    return m;
}

static int read_number(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    if (!sql_get_u64(row[0], lengths[0], arg))
        return err_set(e, ERR_PERMANENT, "a setting of the server is no number");
    return 0;
}

/* SELECT is one number. */
static int ask_number(struct my_conn *c, const char *select, uint64_t *ret, struct err *e)
{
    struct my_script s;
    my_script_init(&s, c);
    buf_add_str(&s.text, select);
    int r = my_script_end_rows(&s, read_number, ret, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

/* Galera's servers apply what others committed a little later. Each statement of ours waits until its server has all that was
 * committed before, because connections may be to different servers, and the next one to another than the last. Of a server that
 * does not know the variable nothing else is asked. */
static int session_wait_for_others(struct my_conn *c, struct err *e)
{
    struct err unknown = {0};
    uint64_t wsrep_on = 0;
    int r = my_exec(c, "SET SESSION wsrep_sync_wait = 7", false, &unknown);
    if (r == 0)
        r = ask_number(c, "SELECT @@wsrep_on", &wsrep_on, &unknown);
    c->is_galera = r == 0 && wsrep_on != 0;
    if (r == 0 || r == -ERR_PERMANENT)
        return 0;
    return err_set(e, unknown.code, "set up the session: %s", unknown.text);
}

static int session_setup(struct my_conn *c, struct err *e)
{
    int r = session_wait_for_others(c, e);
    if (r < 0)
        return r;
    if (my_exec(
            c,
            "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', autocommit = 1, "
            "innodb_lock_wait_timeout = 1",
            false, e) < 0 ||
        my_exec(c, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", false, e) < 0)
        return err_wrap(e, "set up the session");
    struct err unknown = {0};
    if (my_exec(c, "SET SESSION idle_transaction_timeout = " IDLE_TRANSACTION_S, false, &unknown) < 0 &&
        my_exec(c, "SET SESSION wait_timeout = " IDLE_S, false, e) < 0)
        return err_wrap(e, "set up the session");
    uint64_t packet_max = 0;
    r = ask_number(c, "SELECT @@max_allowed_packet", &packet_max, e);
    if (r == 0)
        c->packet_max = packet_max < SCRIPT_TEXT_MAX ? (size_t)packet_max : SCRIPT_TEXT_MAX;
    return r;
}

/* Read anew each time. A failure passes: the file may be mounted or rotated at this very moment. */
static int read_password(const char *path, char **ret, size_t *ret_len, struct err *e)
{
    struct err own = {0};
    if (path && file_read_secret(path, ret, ret_len, &own) < 0)
        return err_set(e, ERR_UNAVAILABLE, "store.mysql.password_file: %s", own.text);
    return 0;
}

static bool takes_arrays(MYSQL *m)
{
    unsigned long extended = 0; /* the upper half of the server's capabilities */
    return mariadb_connection(m) &&
           mariadb_get_infov(m, MARIADB_CONNECTION_EXTENDED_SERVER_CAPABILITIES, &extended) == 0 &&
           (extended & MARIADB_CLIENT_STMT_BULK_OPERATIONS >> 32) != 0;
}

static int conn_open(struct my_conn *c, struct err *e)
{
    const struct store_mysql_options *o = c->options;
    char *password = NULL;
    size_t password_len = 0;
    c->packet_max = SCRIPT_CHUNK_BYTES;
    int r = read_password(o->password_file, &password, &password_len, e);
    if (r < 0)
        return r;
    if (fault_hit() || !(c->mysql = handle_new(c)))
        r = err_set(e, ERR_NOMEM, "no memory for a connection");
    else if (!mysql_real_connect(c->mysql, o->host, o->user, password, NULL, (unsigned)o->port, o->socket,
                                 CLIENT_MULTI_STATEMENTS | CLIENT_FOUND_ROWS))
        r = conn_error(c, false, "connect to the database", e);
    c->has_values = r == 0 && mariadb_connection(c->mysql);
    c->has_arrays = r == 0 && takes_arrays(c->mysql);
    mem_free_secret(password, password_len);
    return r;
}

/* After the session was set up, whose last statement waits for what others did: they may have made the database. */
static int enter_database(struct my_conn *c, struct err *e)
{
    if (mysql_select_db(c->mysql, c->options->database))
        return conn_error(c, false, "connect to the database", e);
    return 0;
}

int my_conn_ensure(struct my_conn *c, bool with_database, struct err *e)
{
    if (c->mysql)
        return 0;
    int r = conn_open(c, e);
    if (r == 0)
        r = session_setup(c, e);
    if (r == 0 && with_database)
        r = enter_database(c, e);
    if (r < 0)
        my_conn_close(c);
    return r;
}

/* --- scripts ------------------------------------------------------------------------------------------------------- */

void my_script_init(struct my_script *s, struct my_conn *conn)
{
    *s = (struct my_script){.conn = conn, .text = BUF_INIT(2 * SCRIPT_TEXT_MAX)};
}

void my_script_fini(struct my_script *s)
{
    buf_fini(&s->text);
}

size_t my_script_statement_bytes(const struct my_script *s)
{
    size_t half = s->conn->packet_max / 2;
    return half < SCRIPT_CHUNK_BYTES ? half : SCRIPT_CHUNK_BYTES;
}

int my_fenced(struct err *e)
{
    return err_set(e, ERR_FENCED, "this member was declared dead");
}

static int check_matched(const struct my_step *step, uint64_t matched, struct err *e)
{
    if (step->ret_matched)
        *step->ret_matched = matched;
    if (step->expect == MY_FENCE && matched != 1)
        return my_fenced(e);
    if (step->expect == MY_MATCH && matched != step->count)
        return err_set(e, ERR_CONFLICT, "%llu of %llu rows are as expected", (unsigned long long)matched,
                       (unsigned long long)step->count);
    return 0;
}

static int read_result(const struct my_step *step, MYSQL_RES *result, struct err *e)
{
    MYSQL_ROW row;
    while ((row = mysql_fetch_row(result))) {
        int r = step->fn ? step->fn(step->arg, row, mysql_fetch_lengths(result), e) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

/* Takes the result of one step from the connection. */
static int step_finish(struct my_script *s, const struct my_step *step, struct err *e)
{
    struct my_conn *c = s->conn;
    if (mysql_field_count(c->mysql) == 0)
        return check_matched(step, mysql_affected_rows(c->mysql), e);
    MYSQL_RES *result = mysql_store_result(c->mysql);
    if (!result)
        return conn_error(c, s->commits, "read a result", e);
    int r = read_result(step, result, e);
    mysql_free_result(result);
    return r;
}

/* Not one answer for each statement: which belongs to which is not known, nor whether more is to come. */
static int answers_differ(struct my_script *s, struct err *e)
{
    my_conn_close(s->conn);
    return err_set(e, s->commits ? ERR_UNKNOWN_OUTCOME : ERR_UNAVAILABLE,
                   "the server did not answer each of %u statements once", s->steps_count);
}

static int script_send(struct my_script *s, struct err *e)
{
    struct my_conn *c = s->conn;
    int r = 0;
    if (mysql_real_query(c->mysql, s->text.data, (unsigned long)s->text.len))
        return conn_error(c, s->commits, "query", e);
    for (unsigned i = 0; i < s->steps_count; i++) {
        struct err later = {0};
        int one = step_finish(s, &s->steps[i], r < 0 ? &later : e);
        if (r == 0)
            r = one;
        if (!c->mysql)
            return r;
        int more = mysql_next_result(c->mysql);
        if (more > 0) /* what the server says outweighs a count that was not as expected */
            return r == 0 || r == -ERR_CONFLICT ? conn_error(c, s->commits, "query", e) : r;
        if (more < 0 && i + 1 == s->steps_count)
            return r;
        if (more < 0)
            break;
    }
    return answers_differ(s, e);
}

/* Only what is too large is refused for good: for want of memory the same text may fit a moment later. */
static int check_text(const struct my_script *s, struct err *e)
{
    struct err own = {0};
    int r = buf_check(&s->text, &own);
    if (r == -ERR_TOO_BIG || (r == 0 && s->text.len > s->conn->packet_max))
        return err_set(e, ERR_REFUSED, "%zu bytes of text are too large for the store", s->text.len);
    return r < 0 ? err_set(e, own.code, "%s", own.text) : 0;
}

int my_script_run(struct my_script *s, struct err *e)
{
    if (s->steps_count == 0)
        return 0;
    int r = check_text(s, e);
    if (r == 0)
        r = s->conn->mysql && !fault_hit() ? script_send(s, e) : err_set(e, ERR_UNAVAILABLE, "not connected");
    buf_reset(&s->text);
    s->steps_count = 0;
    return r;
}

static int script_add(struct my_script *s, struct my_step step, struct err *e)
{
    assert(s->steps_count < MY_SCRIPT_STEPS);
    s->steps[s->steps_count++] = step;
    s->ret_matched = NULL;
    int r = check_text(s, e);
    if (r < 0) {
        buf_reset(&s->text);
        s->steps_count = 0;
        return r;
    }
    if (s->text.len >= my_script_statement_bytes(s) || s->steps_count == MY_SCRIPT_STEPS)
        return my_script_run(s, e);
    buf_add_str(&s->text, ";");
    return 0;
}

int my_script_end(struct my_script *s, enum my_expect expect, uint64_t count, struct err *e)
{
    return script_add(s, (struct my_step){.expect = expect, .count = count, .ret_matched = s->ret_matched},
                      e);
}

int my_script_end_rows(struct my_script *s, my_row_fn *fn, void *arg, struct err *e)
{
    return script_add(s, (struct my_step){.expect = MY_ROWS, .fn = fn, .arg = arg}, e);
}

int my_exec(struct my_conn *c, const char *text, bool commits, struct err *e)
{
    struct my_script s;
    my_script_init(&s, c);
    s.commits = commits;
    buf_add_str(&s.text, text);
    int r = my_script_end(&s, MY_ANY, 0, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

void my_rollback(struct my_conn *c)
{
    if (c->mysql && mysql_real_query(c->mysql, "ROLLBACK", 8))
        my_conn_close(c);
}

/* --- statements of many rows --------------------------------------------------------------------------------------- */

/* Rows of a list. MariaDB takes SELECTs apart one by one, which takes a fifth longer than VALUES; MySQL writes VALUES otherwise. */
static const struct list_form {
    const char *begin, *sep, *end;
} list_selects = {" UNION ALL SELECT ", " UNION ALL SELECT ", ""},
  list_values = {" UNION ALL VALUES (", "), (", ")"};

static const struct list_form *list_form(const struct my_rows *r)
{
    return r->script->conn->has_values ? &list_values : &list_selects;
}

void my_rows_begin_row(struct my_rows *r)
{
    struct buf *b = &r->script->text;
    if (r->count == 0)
        buf_add_str(b, r->head);
    if (r->list)
        buf_add_str(b, r->count ? list_form(r)->sep : list_form(r)->begin);
    else if (r->count)
        buf_add_str(b, r->sep);
}

static int rows_flush(struct my_rows *r, struct err *e)
{
    unsigned count = r->count;
    r->count = 0;
    if (r->list)
        buf_add_str(&r->script->text, list_form(r)->end);
    buf_add_str(&r->script->text, r->tail);
    if (r->expect == MY_ROWS)
        return my_script_end_rows(r->script, r->fn, r->arg, e);
    return my_script_end(r->script, r->expect, count, e);
}

int my_rows_end_row(struct my_rows *r, struct err *e)
{
    r->count++;
    if (r->count < MY_ROWS_MAX && r->script->text.len < my_script_statement_bytes(r->script))
        return 0;
    return rows_flush(r, e);
}

int my_rows_end(struct my_rows *r, struct err *e)
{
    return r->count ? rows_flush(r, e) : 0;
}
