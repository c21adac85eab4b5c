/* A MySQL store as a source: every table from its beginning to its end in the order of its key, in one transaction that sees one moment. */
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/dump/dump_mysql.h"
#include "agent/store/store_mysql_schema.h"
#include "agent/store/store_sql.h"

struct reader {
    struct my_conn conn;
    struct store_meta meta;
    enum dump_kind kind; /* of the next record */
    MYSQL_RES *rows;     /* of it; NULL: not asked for yet */
    struct fire_row fire;
};

static int set_up(struct my_conn *c, struct err *e)
{
    /* Held open as long as the other side takes. */
    int r = my_exec(c, "SET SESSION idle_transaction_timeout = 0", false, NULL);
    if (r < 0)
        r = my_exec(c, "SET SESSION wait_timeout = 28800", false, e);
    if (r == 0)
        r = my_exec(c, "SET SESSION net_write_timeout = 3600", false, e);
    if (r == 0)
        r = my_exec(c, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ", false, e);
    return r == 0 ? my_exec(c, "START TRANSACTION WITH CONSISTENT SNAPSHOT", false, e) : r;
}

int dump_mysql_read_open(struct dump_place *p, bool unfinished_too, void **ret, struct err *e)
{
    bool copying = false;
    struct reader *r = mem_new(struct reader);
    my_conn_init(&r->conn, p->mysql, DUMP_MYSQL_TIMEOUT_S);
    int rc = my_schema_look(&r->conn, &r->meta, &copying, e);
    if (rc == 0 && copying && !unfinished_too)
        rc = err_set(e, ERR_PERMANENT, "a copy into the database was not finished");
    if (rc == 0)
        rc = set_up(&r->conn, e);
    if (rc < 0) {
        dump_mysql_read_close(r);
        return rc;
    }
    *ret = r;
    return 0;
}

void dump_mysql_read_close(void *reader)
{
    struct reader *r = reader;
    if (r->rows)
        mysql_free_result(r->rows);
    fire_row_fini(&r->fire);
    my_conn_close(&r->conn);
    mem_free(r);
}

/* --- rows ---------------------------------------------------------------------------------------------------------- */

static int unreadable(const char *table, struct err *e)
{
    return err_set(e, ERR_PERMANENT, "table %s holds what this program cannot read", table);
}

static int read_member(MYSQL_ROW row, const unsigned long *n, struct dump_record *ret, struct err *e)
{
    struct store_member *m = &ret->member.row;
    uint64_t dead, weight;
    if (!sql_get_text(row[0], n[0], m->id, sizeof(m->id)) || !sql_get_u64(row[1], n[1], &dead) ||
        !sql_get_text(row[2], n[2], m->name, sizeof(m->name)) ||
        !sql_get_text(row[3], n[3], m->address, sizeof(m->address)) ||
        !sql_get_text(row[4], n[4], m->zone, sizeof(m->zone)) || !sql_get_u64(row[5], n[5], &weight) ||
        weight > UINT32_MAX || !sql_get_ms(row[6], n[6], &ret->member.died_ms))
        return unreadable("members", e);
    m->dead = dead != 0;
    m->weight = (uint32_t)weight;
    if (ret->member.died_ms == RECORD_NONE)
        ret->member.died_ms = 0;
    return 1;
}

static int read_slot(MYSQL_ROW row, const unsigned long *n, struct dump_record *ret, struct err *e)
{
    uint64_t slot;
    if (!sql_get_u64(row[0], n[0], &slot) || slot > UINT16_MAX ||
        !sql_get_text(row[1], n[1], ret->slot.owner, sizeof(ret->slot.owner)) ||
        !sql_get_u64(row[2], n[2], &ret->slot.epoch))
        return unreadable("slots", e);
    ret->slot.slot = (uint16_t)slot;
    return 1;
}

static int read_text(MYSQL_ROW row, const unsigned long *n, size_t at, const char *table,
                     struct dump_text *ret, struct err *e)
{
    if (!row[at])
        return unreadable(table, e);
    *ret = (struct dump_text){row[at], n[at], row[at + 1], row[at + 1] ? n[at + 1] : 0};
    return 1;
}

static int read_job(MYSQL_ROW row, const unsigned long *n, struct dump_record *ret, struct err *e)
{
    int r = sql_read_row(sql_jobs(), row, n, &ret->job.row, e);
    return r < 0 ? r : read_text(row, n, sql_jobs()->count, "job_specs", &ret->job.text, e);
}

static int read_copy(MYSQL_ROW row, const unsigned long *n, struct dump_record *ret, struct err *e)
{
    if (!row[0] || n[0] != sizeof(struct uid) || !sql_get_u64(row[1], n[1], &ret->copy.version) ||
        !sql_get_ms(row[2], n[2], &ret->copy.until_ms))
        return unreadable("copies", e);
    memcpy(ret->copy.uid.bytes, row[0], sizeof(struct uid));
    return read_text(row, n, 3, "copies", &ret->copy.text, e);
}

static int read_revision(MYSQL_ROW row, const unsigned long *n, struct dump_record *ret, struct err *e)
{
    struct revision *r = &ret->revision.row;
    uint64_t state;
    if (!sql_get_text(row[0], n[0], ret->revision.ns, sizeof(ret->revision.ns)) ||
        !sql_get_text(row[1], n[1], ret->revision.id, sizeof(ret->revision.id)) ||
        !sql_get_u64(row[2], n[2], &r->change_id) || !sql_get_ms(row[3], n[3], &r->at_ms) ||
        !sql_get_text(row[4], n[4], r->actor, sizeof(r->actor)) ||
        !sql_get_text(row[5], n[5], r->op, sizeof(r->op)) || !row[6] || n[6] != sizeof(r->uid) ||
        !sql_get_u64(row[7], n[7], &r->version) || !sql_get_u64(row[8], n[8], &r->seq) ||
        !sql_get_u64(row[9], n[9], &state) || state >= JOB_STATE_COUNT_ ||
        !sql_get_ms(row[10], n[10], &r->due_ms))
        return unreadable("revisions", e);
    memcpy(r->uid.bytes, row[6], sizeof(r->uid));
    r->state = (enum job_state)state;
    ret->revision.was = row[11];
    ret->revision.was_bytes = row[11] ? n[11] : 0;
    return 1;
}

static int read_row(struct reader *r, MYSQL_ROW row, struct dump_record *ret, struct err *e)
{
    const unsigned long *n = mysql_fetch_lengths(r->rows);
    int rc;
    switch (r->kind) {
    case DUMP_MEMBER:
        return read_member(row, n, ret, e);
    case DUMP_SLOT:
        return read_slot(row, n, ret, e);
    case DUMP_JOB:
        return read_job(row, n, ret, e);
    case DUMP_FIRE:
        fire_row_fini(&r->fire);
        rc = sql_read_row(sql_fires(), row, n, &ret->fire, e);
        if (rc == 0)
            r->fire = ret->fire;
        return rc < 0 ? rc : 1;
    case DUMP_COPY:
        return read_copy(row, n, ret, e);
    case DUMP_REVISION:
        return read_revision(row, n, ret, e);
    case DUMP_META:
    case DUMP_KIND_COUNT_:
        break;
    }
    return 0;
}

/* --- tables -------------------------------------------------------------------------------------------------------- */

static void add_query(struct buf *b, enum dump_kind kind)
{
    if (kind == DUMP_MEMBER) {
        buf_add_str(b,
                    "SELECT member, dead, name, address, zone, weight, died_ms FROM members ORDER BY member");
    } else if (kind == DUMP_SLOT) {
        buf_add_str(b, "SELECT slot, owner, epoch FROM slots ORDER BY slot");
    } else if (kind == DUMP_JOB) {
        buf_add_str(b, "SELECT ");
        sql_add_names(b, sql_jobs(), "j", sql_all(sql_jobs()));
        buf_add_str(b, ", s.definition, s.payload FROM jobs j FORCE INDEX (PRIMARY) "
                       "LEFT JOIN job_specs s ON s.uid = j.uid ORDER BY j.uid");
    } else if (kind == DUMP_FIRE) {
        buf_add_str(b, "SELECT ");
        sql_add_names(b, sql_fires(), "", sql_all(sql_fires()));
        buf_add_str(b, " FROM fires FORCE INDEX (PRIMARY) ORDER BY uid, seq");
    } else if (kind == DUMP_COPY) {
        buf_add_str(b, "SELECT uid, version, until_ms, definition, payload FROM copies FORCE INDEX (PRIMARY) "
                       "ORDER BY uid, version");
    } else {
        buf_add_str(b, "SELECT ns, id, change_id, at_ms, actor, op, uid, version, seq, state, due_ms, was "
                       "FROM revisions FORCE INDEX (PRIMARY) ORDER BY ns, id, change_id");
    }
}

static int failed(const struct reader *r, struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "read the %s: %.150s", dump_kind_name(r->kind),
                   mysql_error(r->conn.mysql));
}

static int ask(struct reader *r, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(8192);
    add_query(&text, r->kind);
    if (buf_check(&text, e) < 0)
        return -ERR_NOMEM;
    if (mysql_real_query(r->conn.mysql, text.data, (unsigned long)text.len) ||
        !(r->rows = mysql_use_result(r->conn.mysql)))
        return failed(r, e);
    return 0;
}

int dump_mysql_read_next(void *reader, struct dump_record *ret, struct err *e)
{
    struct reader *r = reader;
    memset(ret, 0, sizeof(*ret));
    if (r->kind == DUMP_META) {
        ret->meta = r->meta;
        r->kind++;
        return 1;
    }
    for (; r->kind < DUMP_KIND_COUNT_; r->kind++) {
        int rc = r->rows ? 0 : ask(r, e);
        if (rc < 0)
            return rc;
        ret->kind = r->kind;
        MYSQL_ROW row = mysql_fetch_row(r->rows);
        if (row)
            return read_row(r, row, ret, e);
        if (mysql_errno(r->conn.mysql))
            return failed(r, e);
        mysql_free_result(r->rows);
        r->rows = NULL;
    }
    return 0;
}
