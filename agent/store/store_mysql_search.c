/* Fires of all jobs by what became of them, a page at bounded cost; copies of what dead letters were to deliver. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/store/store_mysql_page.h"
#include "agent/store/store_sql.h"

struct search_op {
    struct my_op op;
    const struct store_fire_filter *filter;
    store_fire_page_done *done;
    void *arg;
    struct my_page rows;
    size_t fires_cap;
    struct store_fire_page page;
};

/* uid, seq, due_ms, bytes, match */
static int read_search_row(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct search_op *o = arg;
    struct my_page_row *r = my_page_add(&o->rows, e);
    uint64_t match;
    if (!r)
        return -ERR_NOMEM;
    if (!row[0] || lengths[0] != sizeof(struct uid) || !sql_get_u64(row[1], lengths[1], &r->key.seq) ||
        !sql_get_ms(row[2], lengths[2], &r->due_ms) || !sql_get_u64(row[3], lengths[3], &r->key.bytes) ||
        !sql_get_u64(row[4], lengths[4], &match))
        return err_set(e, ERR_PERMANENT, "the store holds a key that this agent cannot read");
    memcpy(r->key.uid.bytes, row[0], sizeof(struct uid));
    r->match = match != 0;
    return 0;
}

/* --- the query ----------------------------------------------------------------------------------------------------- */

static void add_order(struct buf *b, const struct store_fire_filter *f)
{
    const char *down = f->oldest_first ? "" : " DESC";
    buf_addf(b, " ORDER BY due_ms%s, uid%s, seq%s", down, down, down);
}

/* Said in a way from which the optimizer sees where the index is entered. */
static void add_after(struct buf *b, const struct store_fire_filter *f)
{
    char sign = f->oldest_first ? '>' : '<';
    long long due = (long long)f->after.due_ms;
    buf_addf(b, " AND due_ms %c= %lld AND (due_ms %c %lld OR uid %c ", sign, due, sign, due, sign);
    sql_add_hex(b, f->after.uid.bytes, sizeof(struct uid));
    buf_add_str(b, " OR (uid = ");
    sql_add_hex(b, f->after.uid.bytes, sizeof(struct uid));
    buf_addf(b, " AND seq %c %llu))", sign, (unsigned long long)f->after.seq);
}

/* One stretch of an index, in its order: OUTCOME counts unless a job is asked for. */
static void add_stretch(struct search_op *o, struct buf *b, int outcome)
{
    const struct store_fire_filter *f = o->filter;
    buf_addf(b,
             "SELECT uid, seq, due_ms FROM fires FORCE INDEX (%s) WHERE ns = ", f->job ? "job" : "outcome");
    sql_add_ascii(b, f->ns);
    if (f->job) {
        buf_add_str(b, " AND id = ");
        sql_add_ascii(b, f->job);
    } else {
        buf_addf(b, " AND outcome = %d", outcome);
    }
    if (f->from_ms != RECORD_NONE)
        buf_addf(b, " AND due_ms >= %lld", (long long)f->from_ms);
    if (f->until_ms != RECORD_NONE)
        buf_addf(b, " AND due_ms < %lld", (long long)f->until_ms);
    if (f->after.set)
        add_after(b, f);
    add_order(b, f);
    buf_addf(b, " LIMIT %zu", o->rows.scan + 1);
}

/* The outcomes' stretches are merged, for no index has them all in order of their dues. */
static void add_keys(struct search_op *o, struct buf *b)
{
    if (o->filter->job || o->filter->outcome >= 0) {
        add_stretch(o, b, o->filter->outcome);
        return;
    }
    for (int outcome = 0; outcome < FIRE_OUTCOME_COUNT_; outcome++) {
        buf_add_str(b, outcome ? " UNION ALL SELECT * FROM (" : "SELECT * FROM (");
        add_stretch(o, b, outcome);
        buf_addf(b, ") o%d", outcome);
    }
    add_order(b, o->filter);
    buf_addf(b, " LIMIT %zu", o->rows.scan + 1);
}

/* The job's labels while there is one, then those of the copy, in which they stand as insert_copies() wrote them. */
static void add_label(struct buf *b, const char *name, const char *value)
{
    buf_add_str(b, " AND IF(j.uid IS NULL, LOCATE(CONCAT(x'0000', ");
    sql_add_hex(b, name, strlen(name));
    buf_add_str(b, ", x'00', ");
    sql_add_hex(b, value, strlen(value));
    buf_add_str(b, ", x'0000'), c.labels) > 0, EXISTS (SELECT 1 FROM job_labels l WHERE l.name = ");
    sql_add_hex(b, name, strlen(name));
    buf_add_str(b, " AND l.value = ");
    sql_add_hex(b, value, strlen(value));
    buf_add_str(b, " AND l.ns = f.ns AND l.id = f.id AND l.uid = f.uid))");
}

static void add_match(struct search_op *o, struct buf *b)
{
    const struct store_fire_filter *f = o->filter;
    buf_add_str(b, "f.uid IS NOT NULL");
    if (f->outcome >= 0)
        buf_addf(b, " AND f.outcome = %d", f->outcome);
    if (f->service) {
        buf_add_str(b, " AND f.service = ");
        sql_add_hex(b, f->service, strlen(f->service));
    }
    if (f->prefix && f->prefix[0])
        my_add_prefix(b, "f.id", f->prefix);
    for (size_t i = 0; i < f->labels_count; i++)
        add_label(b, f->label_names[i], f->label_values[i]);
}

static void add_query(struct search_op *o, struct buf *b)
{
    buf_add_str(b, "SELECT k.uid, k.seq, k.due_ms, COALESCE(f.bytes, 0), COALESCE(");
    add_match(o, b);
    buf_add_str(b, ", 0) FROM (");
    add_keys(o, b);
    buf_add_str(b, ") k LEFT JOIN fires f ON f.uid = k.uid AND f.seq = k.seq");
    if (o->filter->labels_count > 0)
        buf_add_str(b, " LEFT JOIN jobs j ON j.uid = k.uid"
                       " LEFT JOIN copies c ON c.uid = f.uid AND c.version = f.version");
    const char *down = o->filter->oldest_first ? "" : " DESC";
    buf_addf(b, " ORDER BY k.due_ms%s, k.uid%s, k.seq%s", down, down, down);
}

static bool needs_scan(const struct store_fire_filter *f)
{
    return f->service || f->labels_count > 0 || (f->prefix && f->prefix[0]) || (f->job && f->outcome >= 0);
}

/* A filter that nothing can match is not asked about. */
static bool is_possible(const struct store_fire_filter *f)
{
    return my_is_name(f->ns) && (!f->job || my_is_name(f->job)) &&
           (!f->prefix || (my_is_name(f->prefix) && strlen(f->prefix) < RECORD_ID_MAX));
}

/* --- the page ------------------------------------------------------------------------------------------------------ */

static int fetch_page(struct search_op *o, struct my_conn *c, struct err *e)
{
    struct my_key *keys;
    size_t count;
    const struct my_page_row *last;
    int r = my_page_choose(&o->rows, &keys, &count, &last, e);
    if (r < 0)
        return r;
    o->page.fires = mem_try_array(count + 1, sizeof(*o->page.fires), e);
    if (o->page.fires) {
        o->fires_cap = count;
        r = my_fetch_fires(c, keys, count, o->page.fires, &o->page.fires_count, e);
    } else {
        r = -ERR_NOMEM;
    }
    mem_free(keys);
    if (last)
        o->page.next = (struct store_fire_place){
            .set = true, .due_ms = last->due_ms, .uid = last->key.uid, .seq = last->key.seq};
    return r;
}

static void page_reset(struct search_op *o)
{
    my_fires_free(o->page.fires, o->fires_cap);
    o->page = (struct store_fire_page){0};
    o->rows.count = o->fires_cap = 0;
}

static int search_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct search_op *o = container_of(op, struct search_op, op);
    struct my_script s;
    page_reset(o);
    if (!is_possible(o->filter))
        return 0;
    my_script_init(&s, c);
    add_query(o, &s.text);
    int r = my_script_end_rows(&s, read_search_row, o, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    if (r < 0)
        return r;
    return fetch_page(o, c, e);
}

static void search_finish(struct my_op *op)
{
    struct search_op *o = container_of(op, struct search_op, op);
    o->done(o->arg, &op->err, op->err.code == ERR_OK ? &o->page : NULL);
    page_reset(o);
    my_page_fini(&o->rows);
    mem_free(o);
}

void my_list_fires(void *self, const struct store_fire_filter *filter, store_fire_page_done *done, void *arg)
{
    struct search_op *o = mem_new(struct search_op);
    o->filter = filter;
    my_page_init(&o->rows, filter->limit, needs_scan(filter));
    o->done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, search_run, search_finish);
}

/* --- copies -------------------------------------------------------------------------------------------------------- */

struct copy_op {
    struct my_op op;
    struct uid uid;
    uint64_t version;
    struct job_spec *copy;
    store_copy_done *done;
    void *arg;
};

/* One that this agent cannot read is as good as none; memory is everyone's. */
static int read_copy(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct copy_op *o = arg;
    struct err own = {0};
    int r = my_spec_make(o->op.store, row[0], lengths[0], row[1], lengths[1], &o->copy, &own);
    return r == -ERR_NOMEM ? err_set(e, ERR_NOMEM, "%s", own.text) : 0;
}

static int copy_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct copy_op *o = container_of(op, struct copy_op, op);
    struct my_script s;
    job_spec_unref(o->copy);
    o->copy = NULL;
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT definition, payload FROM copies WHERE uid = ");
    sql_add_hex(&s.text, o->uid.bytes, sizeof(struct uid));
    buf_addf(&s.text, " AND version = %llu", (unsigned long long)o->version);
    int r = my_script_end_rows(&s, read_copy, o, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

static void copy_finish(struct my_op *op)
{
    struct copy_op *o = container_of(op, struct copy_op, op);
    o->done(o->arg, &op->err, op->err.code == ERR_OK ? o->copy : NULL);
    job_spec_unref(o->copy);
    mem_free(o);
}

void my_get_copy(void *self, const struct uid *uid, uint64_t version, store_copy_done *done, void *arg)
{
    struct copy_op *o = mem_new(struct copy_op);
    o->uid = *uid;
    o->version = version;
    o->done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, copy_run, copy_finish);
}

/* --- how many dead letters ----------------------------------------------------------------------------------------- */

struct dead_op {
    struct my_op op;
    struct store_dead counts[STORE_DEAD_NS_MAX];
    size_t count;
    bool found;
    bool of_ns; /* jobs: of counts[0].ns, else of all */
    uint64_t limit;
    store_dead_done *done;
    void *arg;
};

static int read_ns(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct dead_op *o = arg;
    struct store_dead *dead = &o->counts[o->count];
    if (!sql_get_text(row[0], lengths[0], dead->ns, sizeof(dead->ns)))
        return err_set(e, ERR_PERMANENT, "the store holds a name that this agent cannot read");
    o->found = true;
    return 0;
}

static int read_count(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct dead_op *o = arg;
    if (!sql_get_u64(row[0], lengths[0], &o->counts[o->count].count))
        return err_set(e, ERR_PERMANENT, "the server cannot count");
    return 0;
}

/* The namespace after the last one, by its place in the index. */
static int next_ns(struct dead_op *o, struct my_script *s, struct err *e)
{
    buf_add_str(&s->text, "SELECT ns FROM fires FORCE INDEX (outcome) WHERE ns > ");
    sql_add_ascii(&s->text, o->count ? o->counts[o->count - 1].ns : "");
    buf_add_str(&s->text, " ORDER BY ns LIMIT 1");
    o->found = false;
    int r = my_script_end_rows(s, read_ns, o, e);
    return r == 0 ? my_script_run(s, e) : r;
}

static int count_ns(struct dead_op *o, struct my_script *s, struct err *e)
{
    buf_add_str(&s->text, "SELECT COUNT(*) FROM (SELECT 1 FROM fires FORCE INDEX (outcome) WHERE ns = ");
    sql_add_ascii(&s->text, o->counts[o->count].ns);
    buf_addf(&s->text, " AND outcome = %d LIMIT %d) k", FIRE_OUTCOME_DEAD, STORE_DEAD_COUNT_MAX);
    int r = my_script_end_rows(s, read_count, o, e);
    return r == 0 ? my_script_run(s, e) : r;
}

static int dead_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct dead_op *o = container_of(op, struct dead_op, op);
    struct my_script s;
    int r = 0;
    my_script_init(&s, c);
    for (o->count = 0; r == 0 && o->count < STORE_DEAD_NS_MAX; o->count++) {
        r = next_ns(o, &s, e);
        if (r < 0 || !o->found)
            break;
        r = count_ns(o, &s, e);
    }
    my_script_fini(&s);
    return r;
}

static void dead_finish(struct my_op *op)
{
    struct dead_op *o = container_of(op, struct dead_op, op);
    bool ok = op->err.code == ERR_OK;
    o->done(o->arg, &op->err, ok ? o->counts : NULL, ok ? o->count : 0);
    mem_free(o);
}

void my_count_dead(void *self, store_dead_done *done, void *arg)
{
    struct dead_op *o = mem_new(struct dead_op);
    o->done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, dead_run, dead_finish);
}

/* --- how many jobs ------------------------------------------------------------------------------------------------- */

static int jobs_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct dead_op *o = container_of(op, struct dead_op, op);
    struct my_script s;
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT COUNT(*) FROM (SELECT 1 FROM jobs FORCE INDEX (name)");
    if (o->of_ns) {
        buf_add_str(&s.text, " WHERE ns = ");
        sql_add_ascii(&s.text, o->counts[0].ns);
    }
    buf_addf(&s.text, " LIMIT %llu) k", (unsigned long long)o->limit);
    o->count = 0;
    int r = my_script_end_rows(&s, read_count, o, e);
    if (r == 0)
        r = my_script_run(&s, e);
    o->count = 1;
    my_script_fini(&s);
    return r;
}

void my_count_jobs(void *self, const char *ns, uint64_t limit, store_dead_done *done, void *arg)
{
    struct dead_op *o = mem_new(struct dead_op);
    o->done = done;
    o->arg = arg;
    o->limit = limit;
    o->of_ns = ns != NULL;
    if (ns)
        memcpy(o->counts[0].ns, ns, strnlen(ns, sizeof(o->counts[0].ns) - 1));
    my_op_submit(self, &o->op, MY_POOL_READ, jobs_run, dead_finish);
}
