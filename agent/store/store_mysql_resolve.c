/* After a transaction of results in which not every row was as expected: what the rows are, and so what became of each change.
 * Three answers for a row: as expected (the change stays in), already as the change would make it (an earlier try whose
 * reply was lost did it), neither (conflict). Reads by key, outside the transaction: only the slot's owner, who waits for us,
 * writes these rows. */
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/store_mysql_commit.h"
#include "agent/store/store_sql.h"

enum found { FOUND_NONE, FOUND_AS_EXPECTED, FOUND_AS_WRITTEN, FOUND_OTHER };

struct resolve_item {
    enum found row;
    bool revision; /* this very change was made before */
    bool name_taken;
    uint64_t name_change_id;
    struct uid name_uid;
};

struct resolve {
    struct commit_group *g;
    struct resolve_item *items; /* of g->lo … */
    enum found *fires;          /* of all of the operation */
};

static struct resolve_item *item_of(struct resolve *r, const struct commit_item *item)
{
    return &r->items[(size_t)(item - r->g->op->items) - r->g->lo];
}

/* Rows come with the number of the change that asked for them. */
static bool get_index(MYSQL_ROW row, const unsigned long *lengths, size_t count, size_t *ret)
{
    uint64_t n;
    if (!sql_get_u64(row[0], lengths[0], &n) || n >= count)
        return false;
    *ret = n;
    return true;
}

static int bad_index(struct err *e)
{
    return err_set(e, ERR_PERMANENT, "the store answered what was not asked");
}

static int read_revision(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct resolve *r = arg;
    size_t i;
    if (!get_index(row, lengths, r->g->hi - r->g->lo, &i))
        return bad_index(e);
    r->items[i].revision = true;
    return 0;
}

static int read_name(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct resolve *r = arg;
    size_t i;
    if (!get_index(row, lengths, r->g->hi - r->g->lo, &i) || !row[1] || lengths[1] != sizeof(struct uid) ||
        !sql_get_u64(row[2], lengths[2], &r->items[i].name_change_id))
        return bad_index(e);
    r->items[i].name_taken = true;
    memcpy(r->items[i].name_uid.bytes, row[1], sizeof(struct uid));
    return 0;
}

static int read_job(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct resolve *r = arg;
    struct job_row now;
    size_t i;
    if (!get_index(row, lengths, r->g->hi - r->g->lo, &i))
        return bad_index(e);
    int bad = sql_read_row(sql_jobs(), row + 1, lengths + 1, &now, e);
    if (bad < 0)
        return bad;
    const struct job_change *change = r->g->op->items[r->g->lo + i].change;
    if (now.rev == change->expect_rev)
        r->items[i].row = FOUND_AS_EXPECTED;
    else
        r->items[i].row = sql_rows_equal(sql_jobs(), &now, &change->row) ? FOUND_AS_WRITTEN : FOUND_OTHER;
    return 0;
}

static enum found compare_fire(const struct fire_change *change, const struct fire_row *now)
{
    bool held = !change->expect_holder[0] || strcmp(change->expect_holder, now->holder) == 0;
    if (change->op == CHANGE_INSERT)
        return now->rev == change->row.rev ? FOUND_AS_WRITTEN : FOUND_OTHER;
    if (now->rev == change->expect_rev && held)
        return FOUND_AS_EXPECTED;
    if (change->op == CHANGE_UPDATE && sql_rows_equal(sql_fires(), now, &change->row))
        return FOUND_AS_WRITTEN;
    return FOUND_OTHER;
}

static int read_fire(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct resolve *r = arg;
    struct fire_row now;
    size_t i;
    if (!get_index(row, lengths, r->g->op->fires_count, &i))
        return bad_index(e);
    int bad = sql_read_row(sql_fires(), row + 1, lengths + 1, &now, e);
    if (bad < 0)
        return bad;
    r->fires[i] = compare_fire(r->g->op->fires[i].change, &now);
    fire_row_fini(&now);
    return 0;
}

/* --- asking -------------------------------------------------------------------------------------------------------- */

/* What adds the key of change I, or nothing when it is not asked about. */
typedef bool add_key_fn(struct resolve *r, size_t i, struct buf *b);

static bool add_revision_key(struct resolve *r, size_t i, struct buf *b)
{
    const struct commit_item *item = &r->g->op->items[r->g->lo + i];
    if (item->decided || !commit_has_revision(item->change))
        return false;
    buf_addf(b, "%zu,", i);
    sql_add_ascii(b, item->change->row.ns);
    buf_add_char(b, ',');
    sql_add_ascii(b, item->change->row.id);
    buf_addf(b, ",%llu", (unsigned long long)item->change->revision.change_id);
    return true;
}

static bool add_name_key(struct resolve *r, size_t i, struct buf *b)
{
    const struct commit_item *item = &r->g->op->items[r->g->lo + i];
    if (item->decided || item->change->op != CHANGE_INSERT)
        return false;
    buf_addf(b, "%zu,", i);
    sql_add_ascii(b, item->change->row.ns);
    buf_add_char(b, ',');
    sql_add_ascii(b, item->change->row.id);
    return true;
}

static bool add_job_key(struct resolve *r, size_t i, struct buf *b)
{
    const struct commit_item *item = &r->g->op->items[r->g->lo + i];
    if (item->decided || item->change->op == CHANGE_NONE)
        return false;
    buf_addf(b, "%zu,", i);
    sql_add_hex(b, item->change->row.uid.bytes, sizeof(struct uid));
    return true;
}

static bool add_fire_key(struct resolve *r, size_t i, struct buf *b)
{
    const struct commit_fire *fire = &r->g->op->fires[i];
    if (fire->done || !commit_has(r->g, fire->item))
        return false;
    buf_addf(b, "%zu,", i);
    sql_add_hex(b, fire->change->row.uid.bytes, sizeof(struct uid));
    buf_addf(b, ",%llu", (unsigned long long)fire->change->row.seq);
    return true;
}

/* COLUMNS of TABLE t for the keys k of COUNT changes; KEY are its columns, ON how they meet. */
static int ask(struct resolve *r, struct my_script *s, const char *columns, const char *table,
               const char *key, const char *on, size_t count, add_key_fn *add_key, my_row_fn *fn,
               struct err *e)
{
    struct buf head = BUF_INIT(4096), tail = BUF_INIT(512);
    struct my_rows rows = {.script = s, .sep = " UNION ALL SELECT ", .expect = MY_ROWS, .fn = fn, .arg = r};
    buf_addf(&head, "SELECT k.n, %s FROM (SELECT 0 AS n, %s FROM %s WHERE FALSE UNION ALL SELECT ", columns,
             key, table);
    buf_addf(&tail, ") k STRAIGHT_JOIN %s t ON %s", table, on);
    rows.head = buf_str(&head);
    rows.tail = buf_str(&tail);
    int result = buf_check(&head, e) < 0 ? -ERR_NOMEM : buf_check(&tail, e);
    for (size_t i = 0; result == 0 && i < count; i++) {
        size_t before = s->text.len;
        my_rows_begin_row(&rows);
        if (add_key(r, i, &s->text))
            result = my_rows_end_row(&rows, e);
        else
            buf_truncate(&s->text, before);
    }
    if (result == 0)
        result = my_rows_end(&rows, e);
    if (result == 0) /* HEAD and TAIL end here, and so does what the rows point to */
        result = my_script_run(s, e);
    buf_fini(&head);
    buf_fini(&tail);
    return result;
}

static int ask_all(struct resolve *r, struct my_script *s, struct err *e)
{
    struct buf jobs = BUF_INIT(4096), fires = BUF_INIT(4096);
    size_t count = r->g->hi - r->g->lo;
    sql_add_names(&jobs, sql_jobs(), "t", sql_all(sql_jobs()));
    sql_add_names(&fires, sql_fires(), "t", sql_all(sql_fires()));
    int result = ask(r, s, "1", "revisions", "ns, id, change_id",
                     "t.ns = k.ns AND t.id = k.id AND t.change_id = k.change_id", count, add_revision_key,
                     read_revision, e);
    if (result == 0)
        result = ask(r, s, "t.uid, t.change_id", "jobs", "ns, id", "t.ns = k.ns AND t.id = k.id", count,
                     add_name_key, read_name, e);
    if (result == 0)
        result = ask(r, s, buf_str(&jobs), "jobs", "uid", "t.uid = k.uid", count, add_job_key, read_job, e);
    if (result == 0)
        result = ask(r, s, buf_str(&fires), "fires", "uid, seq", "t.uid = k.uid AND t.seq = k.seq",
                     r->g->op->fires_count, add_fire_key, read_fire, e);
    if (result == 0) /* after all that was read: nobody had taken the rows of a member that lives */
        result = my_script_alive(s, r->g->op->batch->member, e);
    if (result == 0)
        result = my_script_run(s, e);
    buf_fini(&jobs);
    buf_fini(&fires);
    return result;
}

/* --- deciding ------------------------------------------------------------------------------------------------------ */

static bool decide(struct commit_item *item, enum change_result result)
{
    item->change->result = result;
    item->decided = true;
    return true;
}

/* The one who has the name goes in this very transaction. */
static bool name_gets_free(struct resolve *r, const struct resolve_item *seen)
{
    for (size_t i = r->g->lo; i < r->g->hi; i++) {
        const struct commit_item *item = &r->g->op->items[i];
        if (!item->decided && item->change->op == CHANGE_DELETE &&
            memcmp(item->change->row.uid.bytes, seen->name_uid.bytes, sizeof(struct uid)) == 0)
            return true;
    }
    return false;
}

static bool decide_insert(struct resolve *r, struct commit_item *item, const struct resolve_item *seen)
{
    if (seen->row != FOUND_NONE)
        return decide(item, CHANGE_RESULT_OK); /* a uid is made once, for one request */
    if (!seen->name_taken || name_gets_free(r, seen))
        return false;
    return decide(item, seen->name_change_id == item->change->row.change_id ? CHANGE_RESULT_OK
                                                                            : CHANGE_RESULT_EXISTS);
}

static bool decide_guarded(struct commit_item *item, const struct resolve_item *seen)
{
    bool deleted_before =
        item->change->op == CHANGE_DELETE && seen->row == FOUND_NONE && !commit_has_revision(item->change);
    if (seen->row == FOUND_AS_EXPECTED)
        return false;
    if (deleted_before || (item->change->op != CHANGE_DELETE && seen->row == FOUND_AS_WRITTEN))
        return decide(item, CHANGE_RESULT_OK);
    return decide(item, CHANGE_RESULT_CONFLICT);
}

/* True: decided. Inserts are looked at in a second turn, when it is known which deletes stay. */
static bool decide_job(struct resolve *r, struct commit_item *item, bool inserts)
{
    const struct resolve_item *seen = item_of(r, item);
    if (item->decided || item->change->op == CHANGE_NONE || (item->change->op == CHANGE_INSERT) != inserts)
        return false;
    if (seen->revision)
        return decide(item, CHANGE_RESULT_OK);
    return inserts ? decide_insert(r, item, seen) : decide_guarded(item, seen);
}

static bool decide_fire(struct resolve *r, size_t i)
{
    struct commit_fire *fire = &r->g->op->fires[i];
    if (fire->done || !commit_has(r->g, fire->item))
        return false;
    switch (r->fires[i]) {
    case FOUND_AS_WRITTEN:
        return fire->done = true;
    case FOUND_OTHER:
        return decide(fire->item, CHANGE_RESULT_CONFLICT);
    case FOUND_AS_EXPECTED:
        return false;
    case FOUND_NONE:
        break;
    }
    if (fire->change->op == CHANGE_DELETE)
        return fire->done = true;
    return fire->change->op == CHANGE_UPDATE && decide(fire->item, CHANGE_RESULT_CONFLICT);
}

/* A change of fires only is made when all its fires are in place. */
static bool decide_fires_only(struct resolve *r)
{
    bool any = false;
    for (size_t i = r->g->lo; i < r->g->hi; i++) {
        struct commit_item *item = &r->g->op->items[i];
        bool open = item->decided || item->change->op != CHANGE_NONE;
        for (size_t k = 0; k < r->g->op->fires_count && !open; k++)
            open = r->g->op->fires[k].item == item && !r->g->op->fires[k].done;
        if (!open)
            any = decide(item, CHANGE_RESULT_OK);
    }
    return any;
}

static bool decide_all(struct resolve *r)
{
    bool any = false;
    for (size_t i = r->g->lo; i < r->g->hi; i++)
        any |= decide_job(r, &r->g->op->items[i], false);
    for (size_t i = r->g->lo; i < r->g->hi; i++)
        any |= decide_job(r, &r->g->op->items[i], true);
    for (size_t i = 0; i < r->g->op->fires_count; i++)
        any |= decide_fire(r, i);
    any |= decide_fires_only(r);
    return any;
}

int my_commit_resolve(struct commit_group *g, struct my_conn *c, bool *ret_progress, struct err *e)
{
    struct resolve r = {.g = g};
    struct my_script s;
    r.items = mem_new_array(struct resolve_item, g->hi - g->lo + 1);
    r.fires = mem_new_array(enum found, g->op->fires_count + 1);
    my_script_init(&s, c);
    int result = ask_all(&r, &s, e);
    if (result == 0)
        *ret_progress = decide_all(&r);
    my_script_fini(&s);
    mem_free(r.items);
    mem_free(r.fires);
    return result;
}
