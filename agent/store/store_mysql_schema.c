#include "agent/store/store_mysql_schema.h"

#include <assert.h>
#include <inttypes.h>
#include <mysqld_error.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/core/trace.h"
#include "agent/store/store_sql.h"
#include "agent/store/store_version.h"

#define KEY_CHARS "CHARACTER SET ascii COLLATE ascii_bin NOT NULL"
#define UNSIGNED  "BIGINT UNSIGNED NOT NULL"
/* How long a change of a table may keep others waiting, and what they get before it is tried again. Both together are less than an
 * agent's loop may stand still (/livez). */
#define ALTER_WAIT_S   "1"
#define ALTER_PAUSE_MS 2500

#define ENGINE " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"

/* Each statement can be run again after it was done, because data definition commits by itself: a migration that died in
 * the middle is simply run once more. A released migration never changes; a new one is added. `meta` itself is never altered:
 * the lock on its row would wait for us. */
static const char *const version_1[] = {
    "CREATE TABLE IF NOT EXISTS members ("
    "member VARCHAR(95) " KEY_CHARS ", beat " UNSIGNED ", flush " UNSIGNED
    ", dead TINYINT UNSIGNED NOT NULL, "
    "name VARBINARY(63) NOT NULL, address VARBINARY(127) NOT NULL, zone VARBINARY(63) NOT NULL, weight INT UNSIGNED NOT NULL, "
    "joined_ms BIGINT NOT NULL, died_ms BIGINT NULL, "
    "PRIMARY KEY (member))" ENGINE,

    "CREATE TABLE IF NOT EXISTS slots ("
    "slot SMALLINT UNSIGNED NOT NULL, owner VARCHAR(95) " KEY_CHARS ", epoch " UNSIGNED ", "
    "PRIMARY KEY (slot), KEY owner (owner, slot))" ENGINE,

    "CREATE TABLE IF NOT EXISTS jobs ("
    "uid BINARY(16) NOT NULL, slot SMALLINT UNSIGNED NOT NULL, ns VARCHAR(63) " KEY_CHARS
    ", id VARCHAR(200) " KEY_CHARS ", "
    "rev " UNSIGNED ", version " UNSIGNED ", change_id " UNSIGNED ", state TINYINT UNSIGNED NOT NULL, "
    "due_ms BIGINT NULL, wake_ms BIGINT NULL, seq " UNSIGNED ", succeeded " UNSIGNED ", dead " UNSIGNED ", "
    "skipped " UNSIGNED ", coalesced " UNSIGNED ", cancelled " UNSIGNED ", scheduled " UNSIGNED ", "
    "last_seq " UNSIGNED
    ", last_due_ms BIGINT NULL, last_finished_ms BIGINT NULL, last_outcome TINYINT UNSIGNED NOT NULL, "
    "last_reason TINYINT UNSIGNED NOT NULL, last_success_ms BIGINT NULL, consecutive_failures INT UNSIGNED NOT NULL, "
    "failing_since_ms BIGINT NULL, created_ms BIGINT NULL, updated_ms BIGINT NULL, "
    "backfill_next_ms BIGINT NULL, backfill_until_ms BIGINT NULL, backfill_pending INT UNSIGNED NOT NULL, tzdata VARCHAR(15) " KEY_CHARS
    ", "
    "ring VARBINARY(400) NOT NULL, "
    "PRIMARY KEY (uid), UNIQUE KEY name (ns, id), KEY wake (slot, wake_ms, uid))" ENGINE,

    "CREATE TABLE IF NOT EXISTS job_specs ("
    "uid BINARY(16) NOT NULL, definition MEDIUMTEXT NOT NULL, payload MEDIUMBLOB NULL, "
    "bytes INT UNSIGNED GENERATED ALWAYS AS (LENGTH(definition) + COALESCE(LENGTH(payload), 0)) STORED, "
    "PRIMARY KEY (uid))" ENGINE,

    "CREATE TABLE IF NOT EXISTS job_labels ("
    "name VARBINARY(256) NOT NULL, value VARBINARY(256) NOT NULL, ns VARCHAR(63) " KEY_CHARS
    ", id VARCHAR(200) " KEY_CHARS ", "
    "uid BINARY(16) NOT NULL, "
    "PRIMARY KEY (name, value, ns, id), KEY uid (uid))" ENGINE,

    "CREATE TABLE IF NOT EXISTS fires ("
    "uid BINARY(16) NOT NULL, seq " UNSIGNED ", slot SMALLINT UNSIGNED NOT NULL, ns VARCHAR(63) " KEY_CHARS
    ", id VARCHAR(200) " KEY_CHARS ", "
    "kind TINYINT UNSIGNED NOT NULL, payload MEDIUMBLOB NULL, service VARBINARY(127) NOT NULL, version " UNSIGNED
    ", orphan TINYINT UNSIGNED NOT NULL, "
    "seq_last " UNSIGNED ", rev " UNSIGNED ", state TINYINT UNSIGNED NOT NULL, "
    "outcome TINYINT UNSIGNED NOT NULL, reason TINYINT UNSIGNED NOT NULL, due_ms BIGINT NULL, due_last_ms BIGINT NULL, "
    "jitter_ms INT UNSIGNED NOT NULL, wake_ms BIGINT NULL, first_ms BIGINT NULL, started_ms BIGINT NULL, finished_ms BIGINT NULL, "
    "attempt_ms BIGINT NULL, until_ms BIGINT NULL, "
    "attempts INT UNSIGNED NOT NULL, attempts_before INT UNSIGNED NOT NULL, coalesced INT UNSIGNED NOT NULL, holder VARCHAR(95) " KEY_CHARS
    ", log MEDIUMBLOB NULL, parts MEDIUMBLOB NULL, "
    "last_error VARBINARY(159) NOT NULL, "
    /* 4 is FIRE_STATE_ENDED */
    "ended TINYINT UNSIGNED GENERATED ALWAYS AS (state = 4) STORED, "
    "bytes INT UNSIGNED GENERATED ALWAYS AS (COALESCE(LENGTH(log), 0) + COALESCE(LENGTH(payload), 0) + "
    "COALESCE(LENGTH(parts), 0)) STORED, "
    "PRIMARY KEY (uid, seq), KEY wake (ended, slot, wake_ms, uid, seq), KEY forget (ended, wake_ms), "
    "KEY outcome (ns, outcome, due_ms, uid, seq), KEY job (ns, id, due_ms, uid, seq))" ENGINE,

    "CREATE TABLE IF NOT EXISTS copies ("
    "uid BINARY(16) NOT NULL, version " UNSIGNED ", until_ms BIGINT NOT NULL, labels MEDIUMBLOB NOT NULL, "
    "definition MEDIUMTEXT NOT NULL, payload MEDIUMBLOB NULL, "
    "PRIMARY KEY (uid, version), KEY until (until_ms))" ENGINE,

    "CREATE TABLE IF NOT EXISTS revisions ("
    "ns VARCHAR(63) " KEY_CHARS ", id VARCHAR(200) " KEY_CHARS ", change_id " UNSIGNED
    ", at_ms BIGINT NOT NULL, "
    "actor VARBINARY(63) NOT NULL, op VARBINARY(15) NOT NULL, uid BINARY(16) NOT NULL, version " UNSIGNED
    ", seq " UNSIGNED ", state TINYINT UNSIGNED NOT NULL, due_ms BIGINT NULL, was MEDIUMTEXT NULL, "
    "PRIMARY KEY (ns, id, change_id), KEY at (at_ms))" ENGINE,

    NULL};
_Static_assert(FIRE_STATE_ENDED == 4, "fires.ended is computed from this number");

/* Columns are added so that agents of the version before go on: they name the columns that they know, and leave the others NULL. No
 * row is touched, however many there are: see alter(). */
#if STORE_VERSION >= 2
static const char *const version_2[] = {"ALTER TABLE fires ADD COLUMN trace VARBINARY(600) NULL", NULL};
_Static_assert(TRACE_TEXT_SIZE <= 600, "fires.trace holds it");
#endif

/* NEEDS: the oldest version of the program that can work with what this one leaves. */
static const struct migration {
    const char *const *statements;
    uint32_t needs;
} migrations[] = {
    {version_1, 1},
#if STORE_VERSION >= 2
    {version_2, 1},
#endif
};
enum { VERSION = sizeof(migrations) / sizeof(migrations[0]) };
_Static_assert(VERSION == STORE_VERSION, "each version has its migration");

uint32_t my_schema_version(void)
{
    return VERSION;
}

/* What `meta` holds. Its row `schema` is the version that a program must know at least to work with the tables, and all that version
 * 1 looks at; `migrated`, absent in version 1, is the last migration that was made. */
struct meta_read {
    struct store_meta meta; /* schema: the last migration */
    uint32_t needs;
    bool has_needs;
    bool has_cluster;
    bool has_slots;
    bool has_created;
    bool has_secret;
    bool copying;
};

static int read_meta_row(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct meta_read *m = arg;
    uint64_t number = 0;
    bool is_number = sql_get_u64(row[1], lengths[1], &number);
    if (strcmp(row[0], "schema") == 0) {
        m->has_needs = is_number && number <= UINT32_MAX;
        m->needs = (uint32_t)number;
    } else if (strcmp(row[0], "migrated") == 0) {
        m->meta.schema = is_number && number <= UINT32_MAX ? (uint32_t)number : 0;
    } else if (strcmp(row[0], "slots") == 0) {
        m->has_slots = is_number && number >= 1 && number <= UINT16_MAX + 1;
        m->meta.slots = (uint32_t)number;
    } else if (strcmp(row[0], "created_ms") == 0) {
        m->has_created = is_number && number <= INT64_MAX;
        m->meta.created_ms = (int64_t)number;
    } else if (strcmp(row[0], "cluster") == 0) {
        m->has_cluster = sql_get_text(row[1], lengths[1], m->meta.cluster, sizeof(m->meta.cluster));
    } else if (strcmp(row[0], "secret") == 0) {
        m->has_secret =
            lengths[1] == 2 * sizeof(m->meta.secret) &&
            text_hex_decode(row[1], lengths[1], m->meta.secret, sizeof(m->meta.secret), NULL) >= 0;
    } else if (strcmp(row[0], MY_SCHEMA_COPYING) == 0) {
        m->copying = true;
    }
    (void)e;
    return 0;
}

/* The number of the error with which a statement ended; 0: the connection is gone. */
static unsigned error_number(const struct my_conn *c)
{
    return c->mysql ? mysql_errno(c->mysql) : 0;
}

/* ERR_NOT_FOUND: there is no table `meta`. */
static int read_meta(struct my_conn *c, struct meta_read *m, struct err *e)
{
    struct my_script s;
    *m = (struct meta_read){0};
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT name, value FROM meta");
    int r = my_script_end_rows(&s, read_meta_row, m, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    if (r < 0 && error_number(c) == ER_NO_SUCH_TABLE)
        return err_set(e, ERR_NOT_FOUND, "the database holds no store");
    if (m->meta.schema < m->needs)
        m->meta.schema = m->needs;
    return r;
}

static int check_newer(const struct meta_read *m, struct err *e)
{
    if (m->has_needs && m->needs > VERSION)
        return err_set(e, ERR_PERMANENT,
                       "the store has schema version %" PRIu32
                       ", this program knows versions up to %d: start a newer one",
                       m->needs, VERSION);
    return 0;
}

/* One that was cut for memory is not what was meant. */
static int exec_text(struct my_conn *c, const struct buf *text, struct err *e)
{
    int r = buf_check(text, e);
    return r == 0 ? my_exec(c, buf_str(text), true, e) : r;
}

static int database_make(struct my_conn *c, struct err *e)
{
    struct buf text = BUF_INIT(1024);
    int r = my_conn_ensure(c, false, e);
    if (r < 0)
        return r;
    buf_add_str(&text, "CREATE DATABASE IF NOT EXISTS `");
    for (const char *p = c->options->database; *p; p++) {
        buf_add_str(&text, *p == '`' ? "`" : "");
        buf_add_char(&text, *p);
    }
    buf_add_str(&text, "` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin");
    r = exec_text(c, &text, e);
    buf_fini(&text);
    my_conn_close(c);
    if (r < 0)
        return err_wrap(e, "make database '%s'", c->options->database);
    return 0;
}

static int connect_database(struct my_conn *c, struct err *e)
{
    int r = my_conn_ensure(c, true, e);
    if (r != -ERR_NOT_FOUND)
        return r;
    r = database_make(c, e);
    return r < 0 ? r : my_conn_ensure(c, true, e);
}

static bool is_unsupported(unsigned number)
{
    return number == ER_UNKNOWN_ALTER_ALGORITHM || number == ER_ALTER_OPERATION_NOT_SUPPORTED ||
           number == ER_ALTER_OPERATION_NOT_SUPPORTED_REASON;
}

/* In the table's description alone where the server can do that (MariaDB 10.3, MySQL 8.0.12), else beside those that write. */
static int alter_once(struct my_conn *c, const char *sql, struct err *e)
{
    static const char *const ways[] = {", ALGORITHM=INSTANT", ", ALGORITHM=INPLACE, LOCK=NONE", ""};
    struct buf text = BUF_INIT(1024);
    int r = -ERR_PERMANENT;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        err_clear(e);
        buf_reset(&text);
        buf_add_str(&text, sql);
        buf_add_str(&text, ways[i]);
        r = exec_text(c, &text, e);
        if (r == 0 || buf_failed(&text) || !is_unsupported(error_number(c)))
            break;
    }
    buf_fini(&text);
    if (r < 0 && r != -ERR_NOMEM &&
        error_number(c) == ER_DUP_FIELDNAME) { /* by one that died before it could say so */
        err_clear(e);
        return 0;
    }
    return r;
}

/* It waits for transactions that have looked at the table, and whoever comes later waits behind it: so not for long. Who opens the store
 * tries again; a dump of the database may take minutes. */
static int alter(struct my_conn *c, const char *sql, struct err *e)
{
    int r = my_exec(c, "SET SESSION lock_wait_timeout = " ALTER_WAIT_S, false, e);
    if (r == 0)
        r = alter_once(c, sql, e);
    if (r != -ERR_RETRY)
        return r;
    (void)poll(NULL, 0, ALTER_PAUSE_MS); /* only time can pass */
    return err_set(e, ERR_UNAVAILABLE, "somebody has been reading the table for long (a dump?)");
}

/* What is needed first: should this end between the two, a program that is too old is refused already. */
static int note_version(struct my_conn *c, unsigned version, struct err *e)
{
    struct buf text = BUF_INIT(256);
    buf_addf(&text, "UPDATE meta SET value = '%u' WHERE name = 'schema'", migrations[version - 1].needs);
    int r = exec_text(c, &text, e);
    if (r == 0 && version > 1) {
        buf_reset(&text);
        buf_addf(&text, "REPLACE INTO meta (name, value) VALUES ('migrated', '%u')", version);
        r = exec_text(c, &text, e);
    }
    buf_fini(&text);
    return r;
}

static int run_version(struct my_conn *c, unsigned version, struct err *e)
{
    int r = 0;
    for (const char *const *sql = migrations[version - 1].statements; r == 0 && *sql; sql++)
        r = strncmp(*sql, "ALTER", 5) == 0 ? alter(c, *sql, e) : my_exec(c, *sql, true, e);
    if (r == 0)
        r = note_version(c, version, e);
    return r < 0 ? err_wrap(e, "schema version %u", version) : 0;
}

/* Under the lock. The schema's row is read again: another agent may have done the work while we waited. */
static int migrate_locked(struct my_conn *c, struct err *e)
{
    struct meta_read m;
    int r = read_meta(c, &m, e);
    if (r == 0)
        r = check_newer(&m, e);
    for (unsigned v = m.meta.schema + 1; r == 0 && v <= VERSION; v++)
        r = run_version(c, v, e);
    return r;
}

/* Of several agents that make the store at once, the first one's values stay. */
static int write_meta(struct my_conn *c, const char *cluster, uint32_t slots, struct err *e)
{
    struct buf text = BUF_INIT(1024);
    uint8_t secret[STORE_SECRET_BYTES];
    char hex[2 * STORE_SECRET_BYTES + 1];
    int r = rng_os_bytes(secret, sizeof(secret), e);
    if (r < 0)
        return err_wrap(e, "make the store's secret");
    text_hex_encode(secret, sizeof(secret), hex);
    buf_add_str(&text, "INSERT IGNORE INTO meta (name, value) VALUES ('cluster', ");
    sql_add_utf8(&text, cluster, strlen(cluster));
    buf_addf(&text,
             "), ('slots', '%" PRIu32
             "'), ('created_ms', CAST(FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000) AS CHAR)), ('secret', '%s')",
             slots, hex);
    r = exec_text(c, &text, e);
    buf_fini(&text);
    return r;
}

/* The lock is a row, held by an open transaction of the second connection: the server frees it whatever becomes of us. */
static int migrate(struct my_conn *c, struct my_conn *lock, const char *cluster, uint32_t slots,
                   struct err *e)
{
    static const char make_meta[] = "CREATE TABLE IF NOT EXISTS meta (name VARCHAR(32) " KEY_CHARS
                                    ", value VARCHAR(255) NOT NULL, PRIMARY KEY (name))" ENGINE;
    static const char take_lock[] = "SELECT value FROM meta WHERE name = 'migration' FOR UPDATE";
    int r = my_exec(c, make_meta, true, e);
    if (r == 0)
        r = my_exec(c, "INSERT IGNORE INTO meta (name, value) VALUES ('schema', '0'), ('migration', '')",
                    true, e);
    if (r == 0)
        r = my_conn_ensure(lock, true, e);
    /* Held idle while the other works, which is what sessions are otherwise ended for. */
    if (r == 0 && my_exec(lock, "SET SESSION idle_transaction_timeout = 0", false, NULL) < 0)
        r = my_exec(lock, "SET SESSION wait_timeout = 3600", false, e);
    if (r == 0)
        r = my_exec(lock, "START TRANSACTION", false, e);
    if (r == 0)
        r = my_exec(lock, take_lock, false, e);
    if (r == 0)
        r = migrate_locked(c, e);
    if (r == 0)
        r = write_meta(c, cluster, slots, e);
    my_conn_close(lock);
    return r;
}

static int check_meta(const struct meta_read *m, const char *cluster, struct err *e)
{
    int r = check_newer(m, e);
    if (r < 0)
        return r;
    if (!m->has_cluster || !m->has_slots || !m->has_created || !m->has_secret)
        return err_set(e, ERR_PERMANENT, "the store's table meta is incomplete");
    if (strcmp(m->meta.cluster, cluster) != 0)
        return err_set(e, ERR_PERMANENT, "the store belongs to cluster '%s', not '%s'", m->meta.cluster,
                       cluster);
    return 0;
}

int my_schema_open(struct my_conn *c, struct my_conn *lock, const char *cluster, uint32_t slots,
                   struct store_meta *ret, struct err *e)
{
    struct meta_read m;
    assert(slots >= 1 && slots <= UINT16_MAX + 1);
    int r = connect_database(c, e);
    if (r < 0)
        return r;
    r = read_meta(c, &m, e);
    /* A store that is up to date is opened by a user that may not change tables. */
    if (r == -ERR_NOT_FOUND || (r == 0 && (!m.has_cluster || !m.has_secret || m.meta.schema < VERSION))) {
        r = migrate(c, lock, cluster, slots, e);
        if (r == 0)
            r = read_meta(c, &m, e);
    }
    if (r == 0)
        r = check_meta(&m, cluster, e);
    if (r < 0)
        return r;
    *ret = m.meta;
    return 0;
}

int my_schema_look(struct my_conn *c, struct store_meta *ret, bool *ret_copying, struct err *e)
{
    struct meta_read m = {0};
    int r = my_conn_ensure(c, true, e);
    if (r == 0)
        r = read_meta(c, &m, e);
    if (r == 0)
        r = check_newer(&m, e);
    if (r < 0)
        return r;
    if (!m.has_cluster || !m.has_slots || !m.has_created || !m.has_secret || m.meta.schema == 0)
        return err_set(e, ERR_NOT_FOUND, "the database holds no store that was made to its end");
    if (m.meta.schema < VERSION)
        return err_set(e, ERR_PERMANENT,
                       "the store has schema version %" PRIu32
                       ": start an agent of this version first, which brings it to version %d",
                       m.meta.schema, VERSION);
    *ret = m.meta;
    *ret_copying = m.copying;
    return 0;
}
