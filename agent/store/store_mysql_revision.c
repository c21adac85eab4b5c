/* Reading revisions: one, for a request that was repeated, and the history of a name. */
#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/store_mysql_fetch.h"
#include "agent/store/store_sql.h"

#define LIMIT_MAX 1000
#define COLUMNS   "change_id, at_ms, uid, version, seq, state, actor, op, due_ms"
enum { COLUMNS_COUNT = 9 };

static int read_columns(struct revision *r, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    uint64_t state;
    *r = (struct revision){0};
    if (!sql_get_u64(row[0], lengths[0], &r->change_id) || !sql_get_ms(row[1], lengths[1], &r->at_ms) ||
        !row[2] || lengths[2] != sizeof(r->uid) || !sql_get_u64(row[3], lengths[3], &r->version) ||
        !sql_get_u64(row[4], lengths[4], &r->seq) || !sql_get_u64(row[5], lengths[5], &state) ||
        state >= JOB_STATE_COUNT_ || !sql_get_text(row[6], lengths[6], r->actor, sizeof(r->actor)) ||
        !sql_get_text(row[7], lengths[7], r->op, sizeof(r->op)) ||
        !sql_get_ms(row[8], lengths[8], &r->due_ms))
        return err_set(e, ERR_PERMANENT, "table revisions holds what this agent cannot read");
    memcpy(r->uid.bytes, row[2], sizeof(r->uid));
    r->state = (enum job_state)state;
    return 0;
}

static void add_name(struct buf *b, const char *ns, const char *id)
{
    buf_add_str(b, " FROM revisions WHERE ns = ");
    sql_add_ascii(b, ns);
    buf_add_str(b, " AND id = ");
    sql_add_ascii(b, id);
}

/* --- one ----------------------------------------------------------------------------------------------------------- */

struct change_op_read {
    struct my_op op;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    uint64_t change_id;
    struct revision revision;
    bool found;
    store_revision_done *done;
    void *arg;
};

static int read_revision(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct change_op_read *o = arg;
    int r = read_columns(&o->revision, row, lengths, e);
    o->found = r == 0;
    return r;
}

static int find_change_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct change_op_read *o = container_of(op, struct change_op_read, op);
    struct my_script s;
    o->found = false;
    if (!my_is_name(o->ns) || !my_is_name(o->id))
        return 0;
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT " COLUMNS);
    add_name(&s.text, o->ns, o->id);
    buf_addf(&s.text, " AND change_id = %llu", (unsigned long long)o->change_id);
    int r = my_script_end_rows(&s, read_revision, o, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

static void find_change_finish(struct my_op *op)
{
    struct change_op_read *o = container_of(op, struct change_op_read, op);
    o->done(o->arg, &op->err, op->err.code == ERR_OK && o->found ? &o->revision : NULL);
    mem_free(o);
}

void my_find_change(void *self, const char *ns, const char *id, uint64_t change_id, store_revision_done *done,
                    void *arg)
{
    struct change_op_read *o = mem_new(struct change_op_read);
    memcpy(o->ns, ns, strnlen(ns, sizeof(o->ns) - 1));
    memcpy(o->id, id, strnlen(id, sizeof(o->id) - 1));
    o->change_id = change_id;
    o->done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, find_change_run, find_change_finish);
}

/* --- a page -------------------------------------------------------------------------------------------------------- */

struct revisions_op {
    struct my_op op;
    const struct store_revisions *which;
    store_revisions_done *done;
    void *arg;
    size_t limit;
    struct store_revision *rows;
    struct my_key *keys; /* how large what belongs to each is */
    size_t count, cap, keys_cap;
    bool more;
};

static int read_row(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct revisions_op *o = arg;
    if (!my_grow((void **)&o->rows, o->count, &o->cap, sizeof(*o->rows), e) ||
        !my_grow((void **)&o->keys, o->count, &o->keys_cap, sizeof(*o->keys), e))
        return -ERR_NOMEM;
    o->rows[o->count] = (struct store_revision){0};
    o->keys[o->count] = (struct my_key){0};
    int r = read_columns(&o->rows[o->count].row, row, lengths, e);
    if (r == 0 && !sql_get_u64(row[COLUMNS_COUNT], lengths[COLUMNS_COUNT], &o->keys[o->count].bytes))
        r = err_set(e, ERR_PERMANENT, "table revisions holds what this agent cannot read");
    if (r == 0)
        o->count++;
    return r;
}

/* change_id, was */
static int read_definition(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct revisions_op *o = arg;
    uint64_t change_id;
    if (!sql_get_u64(row[0], lengths[0], &change_id) || !row[1])
        return err_set(e, ERR_PERMANENT, "the store answered what was not asked");
    for (size_t i = 0; i < o->count; i++) {
        struct store_revision *r = &o->rows[i];
        if (r->row.change_id != change_id || r->was)
            continue;
        r->was = mem_try_strndup(row[1], lengths[1], e);
        if (!r->was)
            return -ERR_NOMEM;
        r->was_bytes = lengths[1];
    }
    return 0;
}

/* All rows of the name are looked at, some 0.7 us each: no index leads to the newest. It would cost each new job another entry, and who
 * changes or runs a job so often that it matters (one a minute for 90 days: 130,000 rows, 0.1 s) is rare. */
static int ask_rows(struct revisions_op *o, struct my_conn *c, struct err *e)
{
    const struct store_revisions *w = o->which;
    struct my_script s;
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT " COLUMNS ", COALESCE(LENGTH(was), 0)");
    add_name(&s.text, w->ns, w->id);
    if (w->changes)
        buf_add_str(&s.text, " AND op <> 'run'");
    if (w->before.set)
        buf_addf(&s.text, " AND (at_ms < %lld OR (at_ms = %lld AND change_id < %llu))",
                 (long long)w->before.at_ms, (long long)w->before.at_ms,
                 (unsigned long long)w->before.change_id);
    buf_addf(&s.text, " ORDER BY at_ms DESC, change_id DESC LIMIT %zu", o->limit + 1);
    int r = my_script_end_rows(&s, read_row, o, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

static int ask_definitions(struct revisions_op *o, struct my_conn *c, struct err *e)
{
    struct my_script s;
    bool any = false;
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT change_id, was");
    add_name(&s.text, o->which->ns, o->which->id);
    buf_add_str(&s.text, " AND was IS NOT NULL AND change_id IN (");
    for (size_t i = 0; i < o->count; i++) {
        if (o->keys[i].bytes == 0)
            continue;
        buf_addf(&s.text, "%s%llu", any ? ", " : "", (unsigned long long)o->rows[i].row.change_id);
        any = true;
    }
    buf_add_char(&s.text, ')');
    int r = any ? my_script_end_rows(&s, read_definition, o, e) : 0;
    if (r == 0 && any)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

static void revisions_reset(struct revisions_op *o)
{
    for (size_t i = 0; i < o->count; i++)
        mem_free(o->rows[i].was);
    o->count = 0;
    o->more = false;
}

static int revisions_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct revisions_op *o = container_of(op, struct revisions_op, op);
    revisions_reset(o);
    if (!my_is_name(o->which->ns) || !my_is_name(o->which->id))
        return 0;
    int r = ask_rows(o, c, e);
    if (r < 0)
        return r;
    o->more = o->count > o->limit;
    if (o->more)
        o->count = o->limit;
    if (!o->which->definitions || o->count == 0)
        return 0;
    o->count = my_fetch_fitting(o->keys, o->count, &o->more);
    return ask_definitions(o, c, e);
}

static void revisions_finish(struct my_op *op)
{
    struct revisions_op *o = container_of(op, struct revisions_op, op);
    bool ok = op->err.code == ERR_OK;
    o->done(o->arg, &op->err, ok ? o->rows : NULL, ok ? o->count : 0, ok && o->more);
    revisions_reset(o);
    mem_free(o->rows);
    mem_free(o->keys);
    mem_free(o);
}

void my_list_revisions(void *self, const struct store_revisions *which, store_revisions_done *done, void *arg)
{
    struct revisions_op *o = mem_new(struct revisions_op);
    assert(which->limit > 0);
    o->which = which;
    o->limit = which->limit < LIMIT_MAX ? which->limit : LIMIT_MAX;
    o->done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, revisions_run, revisions_finish);
}
