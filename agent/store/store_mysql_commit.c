/* The transaction of results: jobs, definitions, labels, revisions and fires in statements of many rows sorted by key, then
 * slots, last the fence. Every row is guarded by its revision; a count that is not as expected rolls the whole back, the odd
 * ones are found (store_mysql_resolve.c) and the rest is sent again. What the server refuses for its values is found by
 * halving. All of it may be repeated after any failure. */
#include "agent/store/store_mysql_commit.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/store/store_mysql_insert.h"
#include "agent/store/store_sql.h"

#define OP(name) (1u << CHANGE_##name)

static void begin_literal_row(struct my_rows *r, const struct uid *uid)
{
    my_rows_begin_row(r);
    sql_add_hex(&r->script->text, uid->bytes, sizeof(uid->bytes));
}

/* "SELECT names FROM table WHERE FALSE": gives a list of literals its names, and the types of the real columns, so that
 * comparing and looking up need no conversion. */
static void add_update_head(struct buf *b, const struct sql_table *t, const char *guards, sql_set which)
{
    buf_add_str(b, "UPDATE (SELECT ");
    sql_add_names(b, t, "", which);
    buf_addf(b, ", %s FROM %s WHERE FALSE", guards, t->name);
}

/* What all rows of an update have in common is said once: half of the columns of jobs that fire, and so a fifth of the time that a row
 * costs the server. */
struct alike {
    const struct sql_table *table;
    const void *row; /* the first one; NULL: there is none */
    sql_set set;     /* columns that have its value everywhere */
};

static void look_alike(struct alike *a, const void *row)
{
    a->set = a->row ? sql_alike(a->table, a->row, row, a->set) : sql_short(a->table);
    a->row = a->row ? a->row : row;
}

static sql_set unlike(const struct alike *a)
{
    return sql_keys(a->table) | (sql_changing(a->table) & ~a->set);
}

static int update_jobs(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct buf head = BUF_INIT(4096), tail = BUF_INIT(16384);
    struct my_rows rows = {.script = s, .list = true, .expect = MY_MATCH};
    struct alike alike = {.table = sql_jobs()};
    for (size_t i = g->lo; i < g->hi; i++)
        if (commit_is(&g->op->items[i], OP(UPDATE) | OP(REPLACE)))
            look_alike(&alike, &g->op->items[i].change->row);
    if (!alike.row)
        return 0;
    add_update_head(&head, sql_jobs(), "rev AS was", unlike(&alike));
    buf_add_str(&tail,
                ") k STRAIGHT_JOIN jobs t FORCE INDEX (PRIMARY) ON t.uid = k.uid AND t.rev = k.was SET ");
    sql_add_assignments(&tail, sql_jobs(), "t", "k", alike.row, alike.set);
    rows.head = buf_str(&head);
    rows.tail = buf_str(&tail);
    int r = buf_check(&head, e) < 0 ? -ERR_NOMEM : buf_check(&tail, e);
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        const struct commit_item *item = &g->op->items[i];
        if (!commit_is(item, OP(UPDATE) | OP(REPLACE)))
            continue;
        my_rows_begin_row(&rows);
        sql_add_values(&s->text, sql_jobs(), &item->change->row, unlike(&alike));
        buf_addf(&s->text, ",%llu", (unsigned long long)item->change->expect_rev);
        r = my_rows_end_row(&rows, e);
    }
    if (r == 0)
        r = my_rows_end(&rows, e);
    buf_fini(&head);
    buf_fini(&tail);
    return r;
}

static void add_spec(struct buf *b, const struct job_spec *spec)
{
    size_t bytes;
    const char *definition = job_spec_definition(spec, &bytes);
    buf_add_char(b, ',');
    sql_add_utf8(b, definition, bytes);
    buf_add_char(b, ',');
    sql_add_blob(b, spec->payload, spec->payload_bytes);
}

static int update_specs(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct my_rows rows = {
        .script = s,
        .head = "UPDATE (SELECT uid, definition, payload FROM job_specs WHERE FALSE UNION ALL SELECT ",
        .sep = " UNION ALL SELECT ",
        .tail = ") k STRAIGHT_JOIN job_specs t FORCE INDEX (PRIMARY) ON t.uid = k.uid "
                "SET t.definition = k.definition, t.payload = k.payload",
        .expect = MY_MATCH};
    int r = 0;
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        const struct commit_item *item = &g->op->items[i];
        if (!commit_is(item, OP(REPLACE)))
            continue;
        begin_literal_row(&rows, &item->change->row.uid);
        add_spec(&s->text, item->change->spec);
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

/* DELETE FROM … WHERE uid IN (…) for the items with one of OPS. */
static int delete_by_uid(struct commit_group *g, struct my_script *s, unsigned ops, const char *head,
                         enum my_expect expect, struct err *e)
{
    struct my_rows rows = {.script = s, .head = head, .sep = ", ", .tail = ")", .expect = expect};
    int r = 0;
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        const struct commit_item *item = &g->op->items[i];
        if (!commit_is(item, ops))
            continue;
        begin_literal_row(&rows, &item->change->row.uid);
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

static int delete_jobs(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct my_rows rows = {
        .script = s,
        .head = "DELETE t FROM (SELECT uid, rev FROM jobs WHERE FALSE UNION ALL SELECT ",
        .sep = " UNION ALL SELECT ",
        .tail = ") k STRAIGHT_JOIN jobs t FORCE INDEX (PRIMARY) ON t.uid = k.uid AND t.rev = k.rev",
        .expect = MY_MATCH};
    int r = 0;
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        const struct commit_item *item = &g->op->items[i];
        if (!commit_is(item, OP(DELETE)))
            continue;
        begin_literal_row(&rows, &item->change->row.uid);
        buf_addf(&s->text, ",%llu", (unsigned long long)item->change->expect_rev);
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

/* "INSERT INTO table (names) VALUES (" of all columns. */
static void add_insert_head(struct buf *b, const struct sql_table *t)
{
    buf_addf(b, "INSERT INTO %s (", t->name);
    sql_add_names(b, t, "", sql_all(t));
    buf_add_str(b, ") VALUES (");
}

static size_t count_items(const struct commit_group *g, unsigned ops)
{
    size_t n = 0;
    for (size_t i = g->lo; i < g->hi; i++)
        n += commit_is(&g->op->items[i], ops);
    return n;
}

static int insert_jobs(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct buf head = BUF_INIT(4096);
    struct my_insert rows;
    add_insert_head(&head, sql_jobs());
    int r = buf_check(&head, e);
    my_insert_begin(&rows, s, MY_INSERT_JOBS, buf_str(&head), count_items(g, OP(INSERT)));
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        const struct commit_item *item = &g->op->items[i];
        if (!commit_is(item, OP(INSERT)))
            continue;
        my_insert_values(&rows, sql_jobs(), &item->change->row);
        r = my_insert_row_end(&rows, e);
    }
    r = my_insert_end(&rows, r, e);
    buf_fini(&head);
    return r;
}

static int insert_specs(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct my_insert rows;
    int r = 0;
    my_insert_begin(&rows, s, MY_INSERT_SPECS, "INSERT INTO job_specs (uid, definition, payload) VALUES (",
                    count_items(g, OP(INSERT)));
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        const struct commit_item *item = &g->op->items[i];
        size_t bytes;
        if (!commit_is(item, OP(INSERT)))
            continue;
        const struct job_spec *spec = item->change->spec;
        const char *definition = job_spec_definition(spec, &bytes);
        my_insert_bytes(&rows, &item->change->row.uid, sizeof(struct uid));
        my_insert_utf8(&rows, definition, bytes);
        my_insert_bytes(&rows, spec->payload, spec->payload_bytes);
        r = my_insert_row_end(&rows, e);
    }
    return my_insert_end(&rows, r, e);
}

static int insert_labels_of(struct my_insert *rows, const struct job_change *change, struct err *e)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < change->spec->labels_count; i++) {
        const struct job_pair *label = &change->spec->labels[i];
        my_insert_bytes(rows, &change->row.uid, sizeof(struct uid));
        my_insert_ascii(rows, label->name);
        my_insert_ascii(rows, label->value);
        my_insert_ascii(rows, change->row.ns);
        my_insert_ascii(rows, change->row.id);
        r = my_insert_row_end(rows, e);
    }
    return r;
}

static size_t count_labels(const struct commit_group *g)
{
    size_t n = 0;
    for (size_t i = g->lo; i < g->hi; i++)
        if (commit_is(&g->op->items[i], OP(INSERT) | OP(REPLACE)))
            n += g->op->items[i].change->spec->labels_count;
    return n;
}

static int insert_labels(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct my_insert rows;
    int r = 0;
    my_insert_begin(&rows, s, MY_INSERT_LABELS, "INSERT INTO job_labels (uid, name, value, ns, id) VALUES (",
                    count_labels(g));
    for (size_t i = g->lo; r == 0 && i < g->hi; i++)
        if (commit_is(&g->op->items[i], OP(INSERT) | OP(REPLACE)))
            r = insert_labels_of(&rows, g->op->items[i].change, e);
    return my_insert_end(&rows, r, e);
}

static void insert_revision(struct my_insert *rows, const struct job_change *change)
{
    const struct revision *r = &change->revision;
    my_insert_ascii(rows, change->row.ns);
    my_insert_ascii(rows, change->row.id);
    my_insert_u64(rows, r->change_id);
    my_insert_ms(rows, r->at_ms);
    my_insert_ascii(rows, r->actor);
    my_insert_ascii(rows, r->op);
    my_insert_bytes(rows, r->uid.bytes, sizeof(r->uid));
    my_insert_u64(rows, r->version);
    my_insert_u64(rows, r->seq);
    my_insert_u64(rows, r->state);
    my_insert_ms(rows, r->due_ms);
    size_t bytes = 0;
    const char *was = change->replaced ? job_spec_definition(change->replaced, &bytes) : NULL;
    my_insert_utf8(rows, was, bytes);
}

static bool inserts_revision(const struct commit_item *item)
{
    return !item->decided && commit_has_revision(item->change);
}

static int insert_revisions(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct my_insert rows;
    size_t count = 0;
    int r = 0;
    for (size_t i = g->lo; i < g->hi; i++)
        count += inserts_revision(&g->op->items[i]);
    my_insert_begin(&rows, s, MY_INSERT_REVISIONS,
                    "INSERT INTO revisions (ns, id, change_id, at_ms, actor, op, uid, version, seq, state, "
                    "due_ms, was) VALUES (",
                    count);
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        if (!inserts_revision(&g->op->items[i]))
            continue;
        insert_revision(&rows, g->op->items[i].change);
        r = my_insert_row_end(&rows, e);
    }
    return my_insert_end(&rows, r, e);
}

static bool fire_is(const struct commit_group *g, const struct commit_fire *fire, enum change_op op)
{
    return !fire->done && fire->change->op == op && commit_has(g, fire->item);
}

static int update_fires(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct buf head = BUF_INIT(4096), tail = BUF_INIT(16384);
    struct my_rows rows = {.script = s, .list = true, .expect = MY_MATCH};
    struct alike alike = {.table = sql_fires()};
    for (size_t i = 0; i < g->op->fires_count; i++)
        if (fire_is(g, &g->op->fires[i], CHANGE_UPDATE))
            look_alike(&alike, &g->op->fires[i].change->row);
    if (!alike.row)
        return 0;
    add_update_head(&head, sql_fires(), "rev AS was, holder AS held", unlike(&alike));
    buf_add_str(
        &tail,
        ") k STRAIGHT_JOIN fires t FORCE INDEX (PRIMARY) ON t.uid = k.uid AND t.seq = k.seq AND t.rev = k.was "
        "AND (k.held = '' OR t.holder = k.held) SET ");
    sql_add_assignments(&tail, sql_fires(), "t", "k", alike.row, alike.set);
    rows.head = buf_str(&head);
    rows.tail = buf_str(&tail);
    int r = buf_check(&head, e) < 0 ? -ERR_NOMEM : buf_check(&tail, e);
    for (size_t i = 0; r == 0 && i < g->op->fires_count; i++) {
        const struct commit_fire *fire = &g->op->fires[i];
        if (!fire_is(g, fire, CHANGE_UPDATE))
            continue;
        my_rows_begin_row(&rows);
        sql_add_values(&s->text, sql_fires(), &fire->change->row, unlike(&alike));
        buf_addf(&s->text, ",%llu,", (unsigned long long)fire->change->expect_rev);
        sql_add_ascii(&s->text, fire->change->expect_holder);
        r = my_rows_end_row(&rows, e);
    }
    if (r == 0)
        r = my_rows_end(&rows, e);
    buf_fini(&head);
    buf_fini(&tail);
    return r;
}

static int delete_fires(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct my_rows rows = {
        .script = s,
        .head = "DELETE t FROM (SELECT uid, seq, rev, holder FROM fires WHERE FALSE UNION ALL SELECT ",
        .sep = " UNION ALL SELECT ",
        .tail = ") k STRAIGHT_JOIN fires t FORCE INDEX (PRIMARY) ON t.uid = k.uid AND t.seq = k.seq "
                "AND t.rev = k.rev AND (k.holder = '' OR t.holder = k.holder)",
        .expect = MY_MATCH};
    int r = 0;
    for (size_t i = 0; r == 0 && i < g->op->fires_count; i++) {
        const struct commit_fire *fire = &g->op->fires[i];
        if (!fire_is(g, fire, CHANGE_DELETE))
            continue;
        begin_literal_row(&rows, &fire->change->row.uid);
        buf_addf(&s->text, ",%llu,%llu,", (unsigned long long)fire->change->row.seq,
                 (unsigned long long)fire->change->expect_rev);
        sql_add_ascii(&s->text, fire->change->expect_holder);
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

static int insert_fires(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct buf head = BUF_INIT(4096);
    struct my_insert rows;
    size_t count = 0;
    for (size_t i = 0; i < g->op->fires_count; i++)
        count += fire_is(g, &g->op->fires[i], CHANGE_INSERT);
    add_insert_head(&head, sql_fires());
    int r = buf_check(&head, e);
    my_insert_begin(&rows, s, MY_INSERT_FIRES, buf_str(&head), count);
    for (size_t i = 0; r == 0 && i < g->op->fires_count; i++) {
        const struct commit_fire *fire = &g->op->fires[i];
        if (!fire_is(g, fire, CHANGE_INSERT))
            continue;
        my_insert_values(&rows, sql_fires(), &fire->change->row);
        r = my_insert_row_end(&rows, e);
    }
    r = my_insert_end(&rows, r, e);
    buf_fini(&head);
    return r;
}

/* Names and values hold no NUL, so nothing but a label can look like one. */
void my_add_copy_labels(struct buf *b, const struct job_spec *spec)
{
    buf_add_str(b, "CONCAT(x''");
    for (size_t i = 0; i < spec->labels_count; i++) {
        buf_add_str(b, ", x'0000', ");
        sql_add_hex(b, spec->labels[i].name, strlen(spec->labels[i].name));
        buf_add_str(b, ", x'00', ");
        sql_add_hex(b, spec->labels[i].value, strlen(spec->labels[i].value));
        buf_add_str(b, ", x'0000'");
    }
    buf_add_char(b, ')');
}

/* The next fire of the job died by the same version and needs its copy as long: one is enough. */
static bool copy_follows(const struct commit_group *g, size_t i)
{
    const struct commit_fire *fire = &g->op->fires[i], *next = fire + 1;
    return i + 1 < g->op->fires_count && !next->done && commit_has(g, next->item) && next->change->copy &&
           next->change->row.version == fire->change->row.version &&
           next->change->copy_until_ms >= fire->change->copy_until_ms &&
           memcmp(&next->change->row.uid, &fire->change->row.uid, sizeof(struct uid)) == 0;
}

static int insert_copies(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct my_rows rows = {
        .script = s,
        .head = "INSERT INTO copies (uid, version, until_ms, labels, definition, payload) VALUES (",
        .sep = "), (",
        .tail = ") ON DUPLICATE KEY UPDATE until_ms = GREATEST(until_ms, VALUES(until_ms))",
        .expect = MY_ANY};
    int r = 0;
    for (size_t i = 0; r == 0 && i < g->op->fires_count; i++) {
        const struct commit_fire *fire = &g->op->fires[i];
        const struct fire_change *change = fire->change;
        if (fire->done || !commit_has(g, fire->item) || !change->copy || copy_follows(g, i))
            continue;
        begin_literal_row(&rows, &change->row.uid);
        buf_addf(&s->text, ",%llu,%lld,", (unsigned long long)change->row.version,
                 (long long)change->copy_until_ms);
        my_add_copy_labels(&s->text, change->copy);
        add_spec(&s->text, change->copy);
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

/* fire_row_deleted() of all of them. What is looked at is assigned last. */
static void add_deleted(struct buf *b)
{
    int reported = FIRE_STATE_REPORTED;
    buf_addf(b, "t.reason = IF(t.state = %d, t.reason, %d), t.outcome = IF(t.state = %d, t.outcome, %d), ",
             reported, FIRE_REASON_DELETED, reported, FIRE_OUTCOME_CANCELLED);
    buf_addf(b, "t.finished_ms = IF(t.state = %d, t.finished_ms, k.finished_ms), ", reported);
    buf_addf(
        b,
        "t.wake_ms = IF(t.state = %d AND t.until_ms > COALESCE(k.wake_ms, t.until_ms - 1), t.until_ms, k.wake_ms), ",
        reported);
    buf_addf(b, "t.until_ms = NULL, t.holder = '', t.rev = t.rev + 1, t.state = %d", FIRE_STATE_ENDED);
}

/* What a deleted job has pending ends with it, after the fires that its own change named. */
static int cancel_fires(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct buf tail = BUF_INIT(1024);
    struct my_rows rows = {
        .script = s,
        .head = "UPDATE (SELECT uid, finished_ms, wake_ms FROM fires WHERE FALSE UNION ALL SELECT ",
        .sep = " UNION ALL SELECT ",
        .expect = MY_ANY};
    buf_addf(&tail, ") k STRAIGHT_JOIN fires t FORCE INDEX (PRIMARY) ON t.uid = k.uid AND t.state <> %d SET ",
             FIRE_STATE_ENDED);
    add_deleted(&tail);
    rows.tail = buf_str(&tail);
    int r = buf_check(&tail, e);
    for (size_t i = g->lo; r == 0 && i < g->hi; i++) {
        const struct commit_item *item = &g->op->items[i];
        if (!commit_is(item, OP(DELETE)))
            continue;
        begin_literal_row(&rows, &item->change->row.uid);
        buf_add_char(&s->text, ',');
        sql_add_ms(&s->text, item->change->row.updated_ms);
        buf_add_char(&s->text, ',');
        sql_add_ms(&s->text, item->change->row.wake_ms);
        r = my_rows_end_row(&rows, e);
    }
    if (r == 0)
        r = my_rows_end(&rows, e);
    buf_fini(&tail);
    return r;
}

static int begin(struct commit_group *g, struct my_script *s, struct err *e)
{
    buf_add_str(&s->text, "START TRANSACTION");
    int r = my_script_end(s, MY_ANY, 0, e);
    return r < 0 ? r : my_script_alive(s, g->op->batch->member, e);
}

/* The slots of a batch go with its last part: whoever gets them finds all that was written before they went. */
static bool moves_slots(const struct commit_group *g)
{
    return g->op->batch->slots_count > 0 && !g->op->slots_done && g->hi == g->op->items_count;
}

/* The rows that beats and planned moves wait for are locked for the length of the COMMIT, not for that of a large batch: when the
 * fence came first, a second of bulk kept the beat waiting for its own member's row until the server gave it up. */
static int end_fenced(struct commit_group *g, struct my_script *s, struct err *e)
{
    struct store_batch *batch = g->op->batch;
    int r = 0;
    if (moves_slots(g))
        r = my_script_slots(s, batch->slots, batch->slots_count, e);
    if (r == 0)
        r = my_script_fence(s, batch->member, e);
    return r < 0 ? r : my_script_run(s, e);
}

/* Deletes go before inserts: a job may be deleted and one of the same name be made in one batch. */
static int write_group(struct commit_group *g, struct my_script *s, struct err *e)
{
    int r = begin(g, s, e);
    r = r < 0 ? r : update_jobs(g, s, e);
    r = r < 0 ? r : delete_jobs(g, s, e);
    r = r < 0 ? r : insert_jobs(g, s, e);
    r = r < 0 ? r : update_specs(g, s, e);
    r = r < 0 ? r : delete_by_uid(g, s, OP(DELETE), "DELETE FROM job_specs WHERE uid IN (", MY_MATCH, e);
    r = r < 0 ? r : insert_specs(g, s, e);
    r = r < 0 ? r
              : delete_by_uid(g, s, OP(DELETE) | OP(REPLACE), "DELETE FROM job_labels WHERE uid IN (", MY_ANY,
                              e);
    r = r < 0 ? r : insert_labels(g, s, e);
    r = r < 0 ? r : insert_revisions(g, s, e);
    r = r < 0 ? r : update_fires(g, s, e);
    r = r < 0 ? r : delete_fires(g, s, e);
    r = r < 0 ? r : insert_fires(g, s, e);
    r = r < 0 ? r : insert_copies(g, s, e);
    r = r < 0 ? r : cancel_fires(g, s, e);
    return r < 0 ? r : end_fenced(g, s, e);
}

static int transact(struct commit_group *g, struct my_conn *c, struct err *e)
{
    struct my_script s;
    my_script_init(&s, c);
    int r = write_group(g, &s, e);
    my_script_fini(&s);
    if (r == 0)
        r = my_exec(c, "COMMIT", true, e);
    if (r < 0)
        my_rollback(c);
    return r;
}

static void group_done(struct commit_group *g)
{
    for (size_t i = g->lo; i < g->hi; i++) {
        struct commit_item *item = &g->op->items[i];
        if (!item->decided)
            item->change->result = CHANGE_RESULT_OK;
        item->decided = true;
    }
    if (moves_slots(g))
        g->op->slots_done = true;
    g->op->some_done = true;
}

static void refuse(struct commit_item *item, const struct err *e)
{
    item->change->result = CHANGE_RESULT_REFUSED;
    (void)snprintf(item->change->problem, sizeof(item->change->problem), "%.119s",
                   e->text); /* cut: for people */
    item->decided = true;
}

static size_t undecided(const struct commit_group *g)
{
    size_t n = 0;
    for (size_t i = g->lo; i < g->hi; i++)
        n += !g->op->items[i].decided;
    return n;
}

/* Depth: the logarithm of the batch. */
static int run_group(struct commit_group *g, struct my_conn *c, struct err *e)
{
    size_t middle = g->lo + (g->hi - g->lo) / 2;
    struct commit_group left = {g->op, g->lo, middle}, right = {g->op, middle, g->hi};
    for (;;) {
        bool progress = false;
        if (undecided(g) == 0 && !moves_slots(g))
            return 0;
        int r = transact(g, c, e);
        if (r == 0) {
            group_done(g);
            return 0;
        }
        if (r == -ERR_CONFLICT || r == -ERR_EXISTS) {
            r = my_commit_resolve(g, c, &progress, e);
            if (r < 0)
                return r;
            if (progress)
                continue;
            if (undecided(g) <= 1)
                return err_set(e, ERR_RETRY, "rows changed while they were looked at");
        } else if (r != -ERR_REFUSED) {
            return r;
        } else if (g->hi - g->lo <= 1) {
            if (undecided(g) == 0)
                return err_set(e, ERR_PERMANENT, "slots refused: %s", e->text);
            refuse(&g->op->items[g->lo], e);
            continue;
        }
        r = run_group(&left, c, e);
        return r < 0 ? r : run_group(&right, c, e);
    }
}

static int commit_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct commit_op *o = container_of(op, struct commit_op, op);
    struct commit_group all = {o, 0, o->items_count};
    if (o->items_count == 0 && o->batch->slots_count == 0)
        return transact(&all, c, e); /* nothing to write still tells whether we may */
    int r = run_group(&all, c, e);
    /* A part is durable: "nothing happened" would not be true, and the same call again is safe. */
    if (r < 0 && r != -ERR_FENCED && o->some_done)
        op->maybe_done = true;
    return r;
}

static void commit_finish(struct my_op *op)
{
    struct commit_op *o = container_of(op, struct commit_op, op);
    op->store->committing[op->pool]--;
    if (op->err.code == ERR_OK)
        op->store->stats.commit_rows += o->items_count;
    o->done(o->arg, &op->err);
    mem_free(o->items);
    mem_free(o->fires);
    mem_free(o);
}

/* Those that go come first: however a batch is parted, what frees a name is written before, or with, what takes it. Each statement has
 * its rows in the order of their keys all the same. */
static int compare_items(const void *a, const void *b)
{
    const struct commit_item *x = a, *y = b;
    bool x_goes = x->change->op == CHANGE_DELETE, y_goes = y->change->op == CHANGE_DELETE;
    if (x_goes != y_goes)
        return x_goes ? -1 : 1;
    return memcmp(x->change->row.uid.bytes, y->change->row.uid.bytes, sizeof(struct uid));
}

static int compare_fires(const void *a, const void *b)
{
    const struct fire_row *x = &((const struct commit_fire *)a)->change->row,
                          *y = &((const struct commit_fire *)b)->change->row;
    int order = memcmp(x->uid.bytes, y->uid.bytes, sizeof(struct uid));
    return order ? order : (x->seq > y->seq) - (x->seq < y->seq);
}

/* The server would take other bytes into an ascii column here and refuse them there. */
static void refuse_foreign_names(struct commit_op *o)
{
    for (size_t i = 0; i < o->items_count; i++) {
        struct err e = {.text = "a name is not ASCII"};
        if (!sql_change_is_ascii(o->items[i].change))
            refuse(&o->items[i], &e);
    }
}

static void take_fires(struct commit_op *o)
{
    size_t n = 0;
    for (size_t i = 0; i < o->items_count; i++)
        n += o->items[i].change->fires_count;
    o->fires = mem_new_array(struct commit_fire, n ? n : 1);
    for (size_t i = 0; i < o->items_count; i++)
        for (size_t k = 0; k < o->items[i].change->fires_count; k++)
            o->fires[o->fires_count++] =
                (struct commit_fire){&o->items[i], &o->items[i].change->fires[k], false};
    if (n > 1)
        qsort(o->fires, n, sizeof(*o->fires), compare_fires);
}

/* Two at once meet at the fence only, where the second waits for the first one's COMMIT. Servers of a Galera cluster have no locks in common:
 * there, one of two by the same member would fail when it is certified, if the connections are to different servers. */
static enum my_pool choose_pool(const struct store_mysql *s)
{
    unsigned out = s->committing[MY_POOL_COMMIT] + s->committing[MY_POOL_COMMIT_BESIDE];
    assert(out < store_mysql.commits_max);
    return s->committing[MY_POOL_COMMIT] > 0 && !s->galera ? MY_POOL_COMMIT_BESIDE : MY_POOL_COMMIT;
}

void my_commit(void *self, struct store_batch *batch, store_done *done, void *arg)
{
    struct store_mysql *s = self;
    struct commit_op *o = mem_new(struct commit_op);
    enum my_pool pool = choose_pool(s);
    s->committing[pool]++;
    o->batch = batch;
    o->done = done;
    o->arg = arg;
    o->items_count = batch->jobs_count;
    o->items = mem_new_array(struct commit_item, batch->jobs_count ? batch->jobs_count : 1);
    for (size_t i = 0; i < batch->jobs_count; i++)
        o->items[i].change = batch->jobs[i];
    qsort(o->items, o->items_count, sizeof(*o->items), compare_items);
    take_fires(o);
    refuse_foreign_names(o);
    my_op_submit(s, &o->op, pool, commit_run, commit_finish);
}
