/* Forgetting what is old, a bite at a time on a read's connection. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/store_mysql_private.h"
#include "agent/store/store_sql.h"

#define REVISIONS_KEPT_MS ((int64_t)90 * 86400 * 1000)
#define MEMBERS_KEPT_MS   ((int64_t)86400 * 1000)
#define VACUUM_ROWS       500   /* of a table, or of a history, in one bite */
#define SWEEP_JOBS        50    /* held to the bound in one bite */
#define SWEEP_ROWS        20000 /* looked at of one job; behind them only its keep time counts */

struct vacuum_op {
    struct my_op op;
    struct store_vacuum what;
    struct uid swept;
    uint64_t fires, copies, revisions, cut; /* rows that went: all old ones, and of one history */
    bool more;
    store_bool_done *done;
    void *arg;
};

static int forget_old(struct vacuum_op *o, struct my_script *s, struct err *e)
{
    long long now_ms = (long long)o->what.now_ms;
    o->fires = o->copies = o->revisions = 0;
    /* A member that still owns slots stays until they were taken: its row says that it is dead. */
    buf_addf(
        &s->text,
        "DELETE FROM members WHERE dead = 1 AND died_ms < %lld AND NOT EXISTS (SELECT 1 FROM slots WHERE owner = members.member)",
        now_ms - (long long)MEMBERS_KEPT_MS);
    int r = my_script_end(s, MY_ANY, 0, e);
    buf_addf(&s->text,
             "DELETE FROM fires WHERE ended = 1 AND wake_ms < %lld ORDER BY wake_ms, uid, seq LIMIT %d",
             now_ms, VACUUM_ROWS);
    s->ret_matched = &o->fires;
    if (r == 0)
        r = my_script_end(s, MY_ANY, 0, e);
    buf_addf(&s->text, "DELETE FROM copies WHERE until_ms < %lld ORDER BY until_ms, uid, version LIMIT %d",
             now_ms, VACUUM_ROWS);
    s->ret_matched = &o->copies;
    if (r == 0)
        r = my_script_end(s, MY_ANY, 0, e);
    buf_addf(&s->text, "DELETE FROM revisions WHERE at_ms < %lld ORDER BY at_ms, ns, id, change_id LIMIT %d",
             now_ms - (long long)REVISIONS_KEPT_MS, VACUUM_ROWS);
    s->ret_matched = &o->revisions;
    if (r == 0)
        r = my_script_end(s, MY_ANY, 0, e);
    if (r == 0)
        r = my_script_run(s, e);
    o->more = o->fires == VACUUM_ROWS || o->copies == VACUUM_ROWS || o->revisions == VACUUM_ROWS;
    return r;
}

/* --- the bound of a job's history ---------------------------------------------------------------------------------- */

struct sweep {
    struct uid uid;
    bool found;
    bool over;
    uint64_t seq; /* of the first one above the bound */
};

static int read_uid(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct sweep *w = arg;
    if (!row[0] || lengths[0] != sizeof(struct uid))
        return err_set(e, ERR_PERMANENT, "the store holds a key that this agent cannot read");
    memcpy(w->uid.bytes, row[0], sizeof(struct uid));
    w->found = true;
    return 0;
}

static int read_seq(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct sweep *w = arg;
    if (!sql_get_u64(row[0], lengths[0], &w->seq))
        return err_set(e, ERR_PERMANENT, "the store holds a key that this agent cannot read");
    w->over = true;
    return 0;
}

static int run_rows(struct my_script *s, my_row_fn *fn, void *arg, struct err *e)
{
    int r = my_script_end_rows(s, fn, arg, e);
    return r == 0 ? my_script_run(s, e) : r;
}

static int next_job(struct vacuum_op *o, struct my_script *s, struct sweep *w, struct err *e)
{
    buf_add_str(&s->text, "SELECT uid FROM fires WHERE uid > ");
    sql_add_hex(&s->text, o->swept.bytes, sizeof(struct uid));
    buf_add_str(&s->text, " ORDER BY uid LIMIT 1");
    return run_rows(s, read_uid, w, e);
}

static int find_bound(struct vacuum_op *o, struct my_script *s, struct sweep *w, struct err *e)
{
    buf_add_str(&s->text, "SELECT seq FROM (SELECT seq, ended, outcome FROM fires WHERE uid = ");
    sql_add_hex(&s->text, w->uid.bytes, sizeof(struct uid));
    buf_addf(
        &s->text,
        " ORDER BY seq DESC LIMIT %d) k WHERE ended = 1 AND outcome <> %d ORDER BY seq DESC LIMIT 1 OFFSET %u",
        SWEEP_ROWS, FIRE_OUTCOME_DEAD, o->what.fires_max);
    return run_rows(s, read_seq, w, e);
}

static int cut_history(struct vacuum_op *o, struct my_script *s, const struct sweep *w, struct err *e)
{
    o->cut = 0;
    buf_add_str(&s->text, "DELETE FROM fires WHERE uid = ");
    sql_add_hex(&s->text, w->uid.bytes, sizeof(struct uid));
    buf_addf(&s->text, " AND seq <= %llu AND ended = 1 AND outcome <> %d ORDER BY seq DESC LIMIT %d",
             (unsigned long long)w->seq, FIRE_OUTCOME_DEAD, VACUUM_ROWS);
    s->ret_matched = &o->cut;
    int r = my_script_end(s, MY_ANY, 0, e);
    if (r == 0)
        r = my_script_run(s, e);
    o->more |= o->cut == VACUUM_ROWS;
    return r;
}

static int sweep(struct vacuum_op *o, struct my_script *s, struct err *e)
{
    int r = 0;
    for (int i = 0; r == 0 && i < SWEEP_JOBS; i++) {
        struct sweep w = {0};
        r = next_job(o, s, &w, e);
        if (r == 0 && w.found)
            r = find_bound(o, s, &w, e);
        if (r == 0 && w.over)
            r = cut_history(o, s, &w, e);
        if (r == 0)
            o->swept = w.uid; /* zero at the end: the next bite begins anew */
        if (!w.found)
            break;
    }
    return r;
}

static int vacuum_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct vacuum_op *o = container_of(op, struct vacuum_op, op);
    struct my_script s;
    my_script_init(&s, c);
    s.commits = true;
    int r = forget_old(o, &s, e);
    if (r == 0 && o->what.fires_max > 0)
        r = sweep(o, &s, e);
    my_script_fini(&s);
    return r;
}

static void vacuum_finish(struct my_op *op)
{
    struct vacuum_op *o = container_of(op, struct vacuum_op, op);
    op->store->swept = o->swept;
    op->store->vacuuming = false;
    o->done(o->arg, &op->err, op->err.code == ERR_OK && o->more);
    mem_free(o);
}

void my_vacuum(void *self, const struct store_vacuum *vacuum, store_bool_done *done, void *arg)
{
    struct store_mysql *s = self;
    struct vacuum_op *o = mem_new(struct vacuum_op);
    o->what = *vacuum;
    if (s->vacuuming)
        o->what.fires_max = 0; /* the other one is on its round */
    s->vacuuming = true;
    o->swept = s->swept;
    o->done = done;
    o->arg = arg;
    my_op_submit(s, &o->op, MY_POOL_READ, vacuum_run, vacuum_finish);
}
