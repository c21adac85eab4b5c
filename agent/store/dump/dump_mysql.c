/* A MySQL store as a target; and whether an agent is alive on one. */
#include "agent/store/dump/dump_mysql.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/core/job.h"
#include "agent/store/store_mysql_commit.h"
#include "agent/store/store_mysql_schema.h"
#include "agent/store/store_sql.h"

/* A member's beat that stands still for so long is that of a dead one: its lease is over. */
#define QUIET_MS   5500
#define CLEAR_ROWS "10000"

static const char *const tables[] = {"members",    "slots", "jobs",   "job_specs",
                                     "job_labels", "fires", "copies", "revisions"};
#define TABLES (sizeof(tables) / sizeof(tables[0]))

/* --- who is there -------------------------------------------------------------------------------------------------- */

static int add_member(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct buf *b = arg;
    buf_add(b, row[0], lengths[0]);
    buf_add_char(b, ' ');
    buf_add(b, row[1], lengths[1]);
    buf_add_char(b, '\n');
    return buf_check(b, e);
}

/* "member beat" lines of those that are not dead. */
static int read_alive(const struct store_mysql_options *options, struct buf *ret, struct err *e)
{
    struct my_conn c;
    struct my_script s;
    my_conn_init(&c, options, DUMP_MYSQL_TIMEOUT_S);
    int r = my_conn_ensure(&c, true, e);
    my_script_init(&s, &c);
    buf_add_str(&s.text, "SELECT member, beat FROM members WHERE dead = 0 ORDER BY member");
    if (r == 0)
        r = my_script_end_rows(&s, add_member, ret, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    my_conn_close(&c);
    return r;
}

static int look_again(struct dump_place *p, enum err_code code, struct err *e)
{
    AUTO(buf_fini) struct buf now = BUF_INIT(1 << 20);
    int r = read_alive(p->mysql, &now, e);
    if (r < 0)
        return r;
    if (strcmp(buf_str(&now), buf_str(&p->seen_)) != 0)
        return err_set(e, code, "an agent is alive on the database: stop all of them first");
    return 0;
}

static int still_quiet(struct dump_place *p, struct err *e)
{
    return look_again(p, ERR_BUSY, e);
}

static int claim(struct dump_place *p, bool target, struct err *e)
{
    if (target)
        return 0; /* write_open() refuses a store that anybody has used */
    mysql_library_init(0, NULL, NULL);
    int r = read_alive(p->mysql, &p->seen_, e);
    uint64_t until = clock_boot_ms() + QUIET_MS;
    while (r == 0 && p->seen_.len > 0 && clock_boot_ms() < until) {
        (void)poll(NULL, 0, 500); /* only time can pass */
        r = look_again(p, ERR_PERMANENT, e);
    }
    return r;
}

static void release(struct dump_place *p)
{
    buf_fini(&p->seen_);
}

/* --- an empty store ------------------------------------------------------------------------------------------------ */

struct writer {
    struct my_conn conn;
    enum dump_kind kind; /* of the rows under way */
    /* Statements of many rows; those of jobs, definitions and labels grow side by side. */
    struct stream {
        struct my_script script;
        struct my_rows rows;
        struct buf head;
    } streams[3];
};

static int add_table(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    (void)row;
    (void)lengths;
    (void)e;
    ++*(unsigned *)arg;
    return 0;
}

static int count_used(struct my_conn *c, unsigned *ret, struct err *e)
{
    struct my_script s;
    int r = 0;
    *ret = 0;
    my_script_init(&s, c);
    for (size_t i = 0; r == 0 && i < TABLES; i++) {
        buf_addf(&s.text, "SELECT 1 FROM %s LIMIT 1", tables[i]);
        r = my_script_end_rows(&s, add_table, ret, e);
    }
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

/* In bites: the server keeps what it needs to undo a transaction. */
static int clear_table(struct my_conn *c, const char *table, struct err *e)
{
    struct my_script s;
    uint64_t rows = 1;
    int r = 0;
    my_script_init(&s, c);
    s.commits = true;
    while (r == 0 && rows > 0) {
        buf_addf(&s.text, "DELETE FROM %s LIMIT " CLEAR_ROWS, table);
        s.ret_matched = &rows;
        r = my_script_end(&s, MY_ANY, 0, e);
        if (r == 0)
            r = my_script_run(&s, e);
    }
    my_script_fini(&s);
    return r;
}

/* The mark comes first, so that no agent uses what follows. */
static int mark_and_clear(struct my_conn *c, bool copying, struct err *e)
{
    unsigned used;
    int r = count_used(c, &used, e);
    if (r == 0 && used > 0 && !copying)
        return err_set(e, ERR_EXISTS, "the database holds a store already; a copy goes into an empty one");
    if (r == 0)
        r = my_exec(c, "INSERT IGNORE INTO meta (name, value) VALUES ('" MY_SCHEMA_COPYING "', '1')", true,
                    e);
    for (size_t i = 0; r == 0 && used > 0 && i < TABLES; i++)
        r = clear_table(c, tables[i], e);
    return r;
}

static int write_meta(struct my_conn *c, const struct store_meta *meta, struct err *e)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(4096);
    char hex[2 * STORE_SECRET_BYTES + 1];
    text_hex_encode(meta->secret, sizeof(meta->secret), hex);
    buf_addf(&text,
             "UPDATE meta SET value = CASE name WHEN 'slots' THEN '%u' WHEN 'created_ms' THEN '%lld' "
             "WHEN 'secret' THEN '%s' ELSE value END WHERE name IN ('slots', 'created_ms', 'secret')",
             meta->slots, (long long)meta->created_ms, hex);
    int r = buf_check(&text, e);
    return r < 0 ? r : my_exec(c, buf_str(&text), true, e);
}

static int make_store(struct writer *w, const struct dump_place *p, const struct store_meta *meta,
                      struct err *e)
{
    struct my_conn lock;
    struct store_meta made;
    bool copying = false;
    my_conn_init(&lock, p->mysql, DUMP_MYSQL_TIMEOUT_S);
    int r = my_schema_open(&w->conn, &lock, meta->cluster, meta->slots, &made, e);
    my_conn_close(&lock);
    if (r == 0)
        r = my_schema_look(&w->conn, &made, &copying, e);
    if (r == 0)
        r = mark_and_clear(&w->conn, copying, e);
    return r == 0 ? write_meta(&w->conn, meta, e) : r;
}

static void write_close(void *writer)
{
    struct writer *w = writer;
    for (size_t i = 0; i < 3; i++) {
        my_script_fini(&w->streams[i].script);
        buf_fini(&w->streams[i].head);
    }
    my_conn_close(&w->conn);
    mem_free(w);
}

static int write_open(struct dump_place *p, const struct store_meta *meta, void **ret, struct err *e)
{
    struct writer *w = mem_new(struct writer);
    mysql_library_init(0, NULL, NULL);
    my_conn_init(&w->conn, p->mysql, DUMP_MYSQL_TIMEOUT_S);
    for (size_t i = 0; i < 3; i++) {
        my_script_init(&w->streams[i].script, &w->conn);
        w->streams[i].head = BUF_INIT(4096);
    }
    int r = make_store(w, p, meta, e);
    if (r < 0) {
        write_close(w);
        return r;
    }
    *ret = w;
    return 0;
}

/* --- rows ---------------------------------------------------------------------------------------------------------- */

static int begin_stream(struct stream *s, const char *table, const char *names, const struct sql_table *t,
                        struct err *e)
{
    buf_reset(&s->head);
    buf_addf(&s->head, "INSERT INTO %s (", table);
    if (t)
        sql_add_names(&s->head, t, "", sql_all(t));
    else
        buf_add_str(&s->head, names);
    buf_add_str(&s->head, ") VALUES (");
    s->script.commits = true;
    s->rows = (struct my_rows){
        .script = &s->script, .head = buf_str(&s->head), .sep = "), (", .tail = ")", .expect = MY_ANY};
    return buf_check(&s->head, e);
}

static int begin_main_stream(struct stream *s, enum dump_kind kind, struct err *e)
{
    if (kind == DUMP_MEMBER)
        return begin_stream(s, "members",
                            "member, beat, flush, dead, name, address, zone, weight, joined_ms, died_ms",
                            NULL, e);
    if (kind == DUMP_SLOT)
        return begin_stream(s, "slots", "slot, owner, epoch", NULL, e);
    if (kind == DUMP_JOB)
        return begin_stream(s, "jobs", NULL, sql_jobs(), e);
    if (kind == DUMP_FIRE)
        return begin_stream(s, "fires", NULL, sql_fires(), e);
    if (kind == DUMP_COPY)
        return begin_stream(s, "copies", "uid, version, until_ms, labels, definition, payload", NULL, e);
    return begin_stream(s, "revisions",
                        "ns, id, change_id, at_ms, actor, op, uid, version, seq, state, due_ms, was", NULL,
                        e);
}

static int begin_kind(struct writer *w, enum dump_kind kind, struct err *e)
{
    int r = begin_main_stream(&w->streams[0], kind, e);
    if (r == 0)
        r = begin_stream(&w->streams[1], "job_specs", "uid, definition, payload", NULL, e);
    if (r == 0)
        r = begin_stream(&w->streams[2], "job_labels", "uid, name, value, ns, id", NULL, e);
    if (r == 0)
        w->kind = kind;
    return r;
}

static int end_kind(struct writer *w, struct err *e)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < 3; i++) {
        if (w->kind == DUMP_META)
            break;
        r = my_rows_end(&w->streams[i].rows, e);
        if (r == 0)
            r = my_script_run(&w->streams[i].script, e);
    }
    return r;
}

static struct buf *begin_row(struct stream *s)
{
    my_rows_begin_row(&s->rows);
    return &s->script.text;
}

static void add_text(struct buf *b, const struct dump_text *t)
{
    sql_add_utf8(b, t->definition, t->definition_bytes);
    buf_add_char(b, ',');
    sql_add_blob(b, t->payload, t->payload_bytes);
}

/* When it joined is not told by every driver, and nobody asks. */
static void add_member_row(struct buf *b, const struct dump_record *r)
{
    const struct store_member *m = &r->member.row;
    sql_add_ascii(b, m->id);
    buf_addf(b, ",0,0,%d,", m->dead);
    sql_add_hex(b, m->name, strlen(m->name));
    buf_add_char(b, ',');
    sql_add_hex(b, m->address, strlen(m->address));
    buf_add_char(b, ',');
    sql_add_hex(b, m->zone, strlen(m->zone));
    buf_addf(b, ",%u,0,", m->weight);
    sql_add_ms(b, r->member.died_ms ? r->member.died_ms : RECORD_NONE);
}

static void add_revision(struct buf *b, const struct dump_record *record)
{
    const struct revision *r = &record->revision.row;
    sql_add_ascii(b, record->revision.ns);
    buf_add_char(b, ',');
    sql_add_ascii(b, record->revision.id);
    buf_addf(b, ",%llu,%lld,", (unsigned long long)r->change_id, (long long)r->at_ms);
    sql_add_hex(b, r->actor, strlen(r->actor));
    buf_add_char(b, ',');
    sql_add_hex(b, r->op, strlen(r->op));
    buf_add_char(b, ',');
    sql_add_hex(b, r->uid.bytes, sizeof(r->uid));
    buf_addf(b, ",%llu,%llu,%u,", (unsigned long long)r->version, (unsigned long long)r->seq,
             (unsigned)r->state);
    sql_add_ms(b, r->due_ms);
    buf_add_char(b, ',');
    if (record->revision.was)
        sql_add_utf8(b, record->revision.was, record->revision.was_bytes);
    else
        buf_add_str(b, "NULL");
}

static int put_label(struct stream *s, const struct dump_record *r, const struct job_pair *label,
                     struct err *e)
{
    struct buf *b = begin_row(s);
    sql_add_hex(b, r->job.row.uid.bytes, sizeof(struct uid));
    buf_add_char(b, ',');
    sql_add_hex(b, label->name, strlen(label->name));
    buf_add_char(b, ',');
    sql_add_hex(b, label->value, strlen(label->value));
    buf_add_char(b, ',');
    sql_add_ascii(b, r->job.row.ns);
    buf_add_char(b, ',');
    sql_add_ascii(b, r->job.row.id);
    return my_rows_end_row(&s->rows, e);
}

static int decode(const struct dump_text *t, struct job_spec **ret, struct err *e)
{
    return job_spec_decode(t->definition, t->definition_bytes, t->payload, t->payload_bytes, ret, e);
}

static int put_job(struct writer *w, const struct dump_record *r, struct err *e)
{
    AUTO(job_spec_unref) struct job_spec *spec = NULL;
    if (decode(&r->job.text, &spec, e) < 0)
        return err_wrap(e, "job %s/%s", r->job.row.ns, r->job.row.id);
    sql_add_values(begin_row(&w->streams[0]), sql_jobs(), &r->job.row, sql_all(sql_jobs()));
    int rc = my_rows_end_row(&w->streams[0].rows, e);
    struct buf *b = begin_row(&w->streams[1]);
    sql_add_hex(b, r->job.row.uid.bytes, sizeof(struct uid));
    buf_add_char(b, ',');
    add_text(b, &r->job.text);
    if (rc == 0)
        rc = my_rows_end_row(&w->streams[1].rows, e);
    for (size_t i = 0; rc == 0 && i < spec->labels_count; i++)
        rc = put_label(&w->streams[2], r, &spec->labels[i], e);
    return rc;
}

static int put_copy(struct writer *w, const struct dump_record *r, struct err *e)
{
    AUTO(job_spec_unref) struct job_spec *spec = NULL;
    if (decode(&r->copy.text, &spec, e) < 0)
        return err_wrap(e, "what a dead letter was to deliver");
    struct buf *b = begin_row(&w->streams[0]);
    sql_add_hex(b, r->copy.uid.bytes, sizeof(struct uid));
    buf_addf(b, ",%llu,%lld,", (unsigned long long)r->copy.version, (long long)r->copy.until_ms);
    my_add_copy_labels(b, spec);
    buf_add_char(b, ',');
    add_text(b, &r->copy.text);
    return my_rows_end_row(&w->streams[0].rows, e);
}

static int write_put(void *writer, const struct dump_record *r, struct err *e)
{
    struct writer *w = writer;
    if (r->kind != w->kind) {
        int rc = end_kind(w, e);
        if (rc == 0)
            rc = begin_kind(w, r->kind, e);
        if (rc < 0)
            return rc;
    }
    if (r->kind == DUMP_JOB)
        return put_job(w, r, e);
    if (r->kind == DUMP_COPY)
        return put_copy(w, r, e);
    struct buf *b = begin_row(&w->streams[0]);
    if (r->kind == DUMP_MEMBER)
        add_member_row(b, r);
    else if (r->kind == DUMP_FIRE)
        sql_add_values(b, sql_fires(), &r->fire, sql_all(sql_fires()));
    else if (r->kind == DUMP_REVISION)
        add_revision(b, r);
    else if (r->kind == DUMP_SLOT) {
        buf_addf(b, "%u,", (unsigned)r->slot.slot);
        sql_add_ascii(b, r->slot.owner);
        buf_addf(b, ",%llu", (unsigned long long)r->slot.epoch);
    }
    return my_rows_end_row(&w->streams[0].rows, e);
}

static int write_end(void *writer, struct err *e)
{
    return end_kind(writer, e);
}

static int write_done(void *writer, struct err *e)
{
    struct writer *w = writer;
    int r = my_conn_ensure(&w->conn, true, e); /* a long comparison may have outlasted it */
    return r < 0 ? r : my_exec(&w->conn, "DELETE FROM meta WHERE name = '" MY_SCHEMA_COPYING "'", true, e);
}

const struct dump_driver dump_mysql = {.name = "mysql",
                                       .claim = claim,
                                       .still_quiet = still_quiet,
                                       .release = release,
                                       .read_open = dump_mysql_read_open,
                                       .read_next = dump_mysql_read_next,
                                       .read_close = dump_mysql_read_close,
                                       .write_open = write_open,
                                       .write_put = write_put,
                                       .write_end = write_end,
                                       .write_done = write_done,
                                       .write_close = write_close};
