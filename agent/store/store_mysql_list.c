/* Lists for people: jobs by name, prefix, label and state, a page at constant cost. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/store_mysql_page.h"
#include "agent/store/store_sql.h"

struct list_op {
    struct my_op op;
    const struct store_filter *filter;
    store_page_done *done;
    void *arg;
    struct my_page rows;
    struct store_page page;
};

/* uid, bytes, ns, id, match */
static int read_list_row(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct list_op *o = arg;
    struct my_page_row *r = my_page_add(&o->rows, e);
    uint64_t match;
    if (!r)
        return -ERR_NOMEM;
    if (!row[0] || lengths[0] != sizeof(struct uid) || !sql_get_u64(row[1], lengths[1], &r->key.bytes) ||
        !sql_get_text(row[2], lengths[2], r->ns, sizeof(r->ns)) ||
        !sql_get_text(row[3], lengths[3], r->id, sizeof(r->id)) || !sql_get_u64(row[4], lengths[4], &match))
        return err_set(e, ERR_PERMANENT, "the store holds a name that this agent cannot read");
    memcpy(r->key.uid.bytes, row[0], sizeof(struct uid));
    r->match = match != 0;
    return 0;
}

/* Inside one namespace only the id counts, said so plainly: from "(ns, id) after" beside "ns =" the optimizer reads and sorts
 * the whole namespace. */
static void add_range_in_ns(struct buf *b, const struct store_filter *f)
{
    int order = f->after_ns ? strcmp(f->after_ns, f->ns) : -1;
    buf_add_str(b, " AND ns = ");
    sql_add_ascii(b, f->ns);
    if (f->prefix && f->prefix[0])
        my_add_prefix(b, "id", f->prefix);
    if (order > 0)
        buf_add_str(b, " AND FALSE");
    if (order != 0)
        return;
    buf_add_str(b, " AND id > ");
    sql_add_ascii(b, f->after_id ? f->after_id : "");
}

/* The stretch of the names that the page may look at. */
static void add_range(struct buf *b, const struct store_filter *f)
{
    if (f->ns) {
        add_range_in_ns(b, f);
    } else if (f->after_ns) {
        buf_add_str(b, " AND (ns > ");
        sql_add_ascii(b, f->after_ns);
        buf_add_str(b, " OR (ns = ");
        sql_add_ascii(b, f->after_ns);
        buf_add_str(b, " AND id > ");
        sql_add_ascii(b, f->after_id ? f->after_id : "");
        buf_add_str(b, "))");
    }
}

static void add_label(struct buf *b, const struct store_filter *f, size_t i)
{
    buf_add_str(b, "name = ");
    sql_add_hex(b, f->label_names[i], strlen(f->label_names[i]));
    buf_add_str(b, " AND value = ");
    sql_add_hex(b, f->label_values[i], strlen(f->label_values[i]));
}

/* As job_row_shown_state() says it. */
static void add_state(struct buf *b, int state)
{
    static const char ended[] = "j.succeeded + j.dead + j.skipped + j.coalesced + j.cancelled";
    if (state == JOB_STATE_ACTIVE)
        buf_addf(b, " AND (j.state = %d OR (j.state = %d AND j.seq > %s))", JOB_STATE_ACTIVE, JOB_STATE_DONE,
                 ended);
    else if (state == JOB_STATE_DONE)
        buf_addf(b, " AND j.state = %d AND j.seq = %s", JOB_STATE_DONE, ended);
    else if (state >= 0)
        buf_addf(b, " AND j.state = %d", state);
}

/* What the index did not sort out. */
static void add_match(struct buf *b, const struct store_filter *f)
{
    buf_add_str(b, "j.uid IS NOT NULL");
    add_state(b, f->state);
    if (f->last_outcome >= 0)
        buf_addf(b, " AND j.last_seq > 0 AND j.last_outcome = %d", f->last_outcome);
    if (!f->ns && f->prefix && f->prefix[0])
        my_add_prefix(b, "k.id", f->prefix);
    for (size_t i = 1; i < f->labels_count; i++) {
        buf_add_str(b, " AND EXISTS (SELECT 1 FROM job_labels l WHERE ");
        add_label(b, f, i);
        buf_add_str(b, " AND l.ns = k.ns AND l.id = k.id)");
    }
}

static void add_list_query(struct list_op *o, struct buf *b)
{
    const struct store_filter *f = o->filter;
    buf_add_str(b, "SELECT k.uid, COALESCE(s.bytes, 0), k.ns, k.id, COALESCE(");
    add_match(b, f);
    buf_addf(b, ", 0) FROM (SELECT ns, id, uid FROM %s WHERE ", f->labels_count ? "job_labels" : "jobs");
    if (f->labels_count)
        add_label(b, f, 0);
    else
        buf_add_str(b, "TRUE");
    add_range(b, f);
    buf_addf(b, " ORDER BY ns, id LIMIT %zu) k", o->rows.scan + 1);
    buf_add_str(
        b, " LEFT JOIN jobs j ON j.uid = k.uid LEFT JOIN job_specs s ON s.uid = k.uid ORDER BY k.ns, k.id");
}

static bool needs_scan(const struct store_filter *f)
{
    return f->state >= 0 || f->last_outcome >= 0 || f->labels_count > 1 ||
           (!f->ns && f->prefix && f->prefix[0]);
}

/* A filter that nothing can match is not asked about. */
static bool is_possible(const struct store_filter *f)
{
    return (!f->ns || my_is_name(f->ns)) && (!f->after_ns || my_is_name(f->after_ns)) &&
           (!f->after_id || my_is_name(f->after_id)) &&
           (!f->prefix || (my_is_name(f->prefix) && strlen(f->prefix) < RECORD_ID_MAX));
}

static int fetch_page(struct list_op *o, struct my_conn *c, struct err *e)
{
    struct my_key *keys;
    size_t count;
    const struct my_page_row *last;
    int r = my_page_choose(&o->rows, &keys, &count, &last, e);
    if (r < 0)
        return r;
    o->page.jobs = mem_try_array(count, sizeof(*o->page.jobs), e);
    if (o->page.jobs) {
        o->page.jobs_count = count;
        r = my_fetch_jobs(o->op.store, c, keys, count, o->page.jobs, e);
    } else {
        r = -ERR_NOMEM;
    }
    mem_free(keys);
    o->page.more = last != NULL;
    if (last) {
        memcpy(o->page.next_ns, last->ns, sizeof(o->page.next_ns));
        memcpy(o->page.next_id, last->id, sizeof(o->page.next_id));
    }
    return r;
}

static void page_reset(struct list_op *o)
{
    my_jobs_free(o->page.jobs, o->page.jobs_count);
    o->page = (struct store_page){0};
    o->rows.count = 0;
}

/* A job that was deleted between the two steps. */
static void drop_absent(struct store_page *page)
{
    size_t n = 0;
    for (size_t i = 0; i < page->jobs_count; i++)
        if (page->jobs[i].spec || page->jobs[i].problem[0])
            page->jobs[n++] = page->jobs[i];
    page->jobs_count = n;
}

static int list_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct list_op *o = container_of(op, struct list_op, op);
    struct my_script s;
    page_reset(o);
    if (!is_possible(o->filter))
        return 0;
    my_script_init(&s, c);
    add_list_query(o, &s.text);
    int r = my_script_end_rows(&s, read_list_row, o, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    if (r < 0)
        return r;
    r = fetch_page(o, c, e);
    if (r == 0)
        drop_absent(&o->page);
    return r;
}

static void list_finish(struct my_op *op)
{
    struct list_op *o = container_of(op, struct list_op, op);
    o->done(o->arg, &op->err, op->err.code == ERR_OK ? &o->page : NULL);
    page_reset(o);
    my_page_fini(&o->rows);
    mem_free(o);
}

void my_list_jobs(void *self, const struct store_filter *filter, store_page_done *done, void *arg)
{
    struct list_op *o = mem_new(struct list_op);
    o->filter = filter;
    my_page_init(&o->rows, filter->limit, needs_scan(filter));
    o->done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, list_run, list_finish);
}
