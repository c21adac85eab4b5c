/* Reads for the planner: loads of own slots in the order of waking, jobs by key, fires of a job. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/job.h"
#include "agent/store/store_mysql_fetch.h"
#include "agent/store/store_sql.h"

/* Slots in one IN list; a load of more takes several queries. */
#define SLOTS_PER_QUERY 512

struct read_op {
    struct my_op op;
    const struct store_load *load;
    const struct store_key *names;
    size_t names_count;
    struct uid uid;
    uint64_t before_seq;
    size_t limit;
    store_jobs_done *jobs_done;
    store_fires_done *fires_done;
    void *arg;

    struct my_key *keys;
    size_t keys_count, keys_cap;
    struct store_job *jobs;
    size_t jobs_count;
    struct fire_row *fires;
    size_t fires_cap, fires_count;
    bool more;
};

static void read_op_reset(struct read_op *o)
{
    my_jobs_free(o->jobs, o->jobs_count);
    my_fires_free(o->fires, o->fires_cap);
    o->jobs = NULL;
    o->fires = NULL;
    o->jobs_count = o->fires_count = o->fires_cap = o->keys_count = 0;
    o->more = false;
}

static void read_op_free(struct read_op *o)
{
    read_op_reset(o);
    mem_free(o->keys);
    mem_free(o);
}

static void jobs_finish(struct my_op *op)
{
    struct read_op *o = container_of(op, struct read_op, op);
    bool ok = op->err.code == ERR_OK;
    o->jobs_done(o->arg, &op->err, ok ? o->jobs : NULL, ok ? o->jobs_count : 0, ok && o->more);
    read_op_free(o);
}

static void fires_finish(struct my_op *op)
{
    struct read_op *o = container_of(op, struct read_op, op);
    bool ok = op->err.code == ERR_OK;
    o->fires_done(o->arg, &op->err, ok ? o->fires : NULL, ok ? o->fires_count : 0, ok && o->more);
    read_op_free(o);
}

static int run_one(struct my_script *s, my_row_fn *fn, void *arg, struct err *e)
{
    int r = my_script_end_rows(s, fn, arg, e);
    return r == 0 ? my_script_run(s, e) : r;
}

static int bad_key(struct err *e)
{
    return err_set(e, ERR_PERMANENT, "the store holds a key that this agent cannot read");
}

/* uid, seq, bytes, slot, wake_ms */
static int read_key(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct read_op *o = arg;
    if (!my_grow((void **)&o->keys, o->keys_count, &o->keys_cap, sizeof(*o->keys), e))
        return -ERR_NOMEM;
    struct my_key *key = &o->keys[o->keys_count];
    uint64_t slot;
    *key = (struct my_key){0};
    if (!row[0] || lengths[0] != sizeof(struct uid) || !sql_get_u64(row[1], lengths[1], &key->seq) ||
        !sql_get_u64(row[2], lengths[2], &key->bytes) || !sql_get_u64(row[3], lengths[3], &slot) ||
        slot > UINT16_MAX || !sql_get_ms(row[4], lengths[4], &key->wake_ms))
        return bad_key(e);
    memcpy(key->uid.bytes, row[0], sizeof(struct uid));
    key->slot = (uint16_t)slot;
    o->keys_count++;
    return 0;
}

/* --- loads --------------------------------------------------------------------------------------------------------- */

struct load_query {
    const char *select; /* up to and with WHERE */
    const char *order;
    bool fires;
};

static const struct load_query load_jobs_query = {
    .select = "SELECT t.uid, t.seq, COALESCE(s.bytes, 0), t.slot, t.wake_ms FROM jobs t FORCE INDEX (wake) "
              "LEFT JOIN job_specs s ON s.uid = t.uid WHERE ",
    .order = " ORDER BY t.slot, t.wake_ms, t.uid LIMIT "};

static const struct load_query load_fires_query = {
    .select = "SELECT t.uid, t.seq, t.bytes, t.slot, t.wake_ms FROM fires t FORCE INDEX (wake) "
              "WHERE t.ended = 0 AND ",
    .order = " ORDER BY t.slot, t.wake_ms, t.uid, t.seq LIMIT ",
    .fires = true};

static void add_bounds(struct buf *b, const struct store_load *load)
{
    buf_addf(b, " AND t.wake_ms < %lld", (long long)load->until_ms);
    if (load->from_ms != RECORD_NONE)
        buf_addf(b, " AND t.wake_ms >= %lld", (long long)load->from_ms);
    if (load->tzdata_before) { /* a release begins with its year */
        buf_add_str(b, " AND t.tzdata >= '0' AND t.tzdata < ");
        sql_add_ascii(b, load->tzdata_before);
    }
}

/* What is left of the slot in which the last page ended. */
static void add_rest_of_slot(struct buf *b, const struct store_load *load, bool fires)
{
    long long wake = (long long)load->after.wake_ms;
    buf_addf(b, "t.slot = %u AND t.wake_ms >= %lld AND (t.wake_ms > %lld OR t.uid > ", load->after.slot, wake,
             wake);
    sql_add_hex(b, load->after.uid.bytes, sizeof(struct uid));
    if (fires) {
        buf_add_str(b, " OR (t.uid = ");
        sql_add_hex(b, load->after.uid.bytes, sizeof(struct uid));
        buf_addf(b, " AND t.seq > %llu)", (unsigned long long)load->after.seq);
    }
    buf_add_char(b, ')');
}

static int run_load_query(struct read_op *o, struct my_script *s, const struct load_query *q, struct err *e)
{
    add_bounds(&s->text, o->load);
    buf_addf(&s->text, "%s%zu", q->order, o->limit + 1 - o->keys_count);
    return run_one(s, read_key, o, e);
}

static bool wants_slot(const struct store_load *load, uint16_t slot)
{
    for (size_t i = 0; i < load->slots_count; i++)
        if (load->slots[i] == slot)
            return true;
    return false;
}

/* In the order of slots, so that pages follow each other; one row more than asked for tells whether there is more. */
static int load_keys(struct read_op *o, struct my_conn *c, const struct load_query *q, struct err *e)
{
    const struct store_load *load = o->load;
    struct my_script s;
    int r = 0;
    size_t next = 0;
    my_script_init(&s, c);
    if (load->after.set && wants_slot(load, load->after.slot)) {
        buf_add_str(&s.text, q->select);
        add_rest_of_slot(&s.text, load, q->fires);
        r = run_load_query(o, &s, q, e);
    }
    while (load->after.set && next < load->slots_count && load->slots[next] <= load->after.slot)
        next++;
    while (r == 0 && next < load->slots_count && o->keys_count <= o->limit) {
        buf_add_str(&s.text, q->select);
        buf_add_str(&s.text, "t.slot IN (");
        for (unsigned n = 0; n < SLOTS_PER_QUERY && next < load->slots_count; n++, next++)
            buf_addf(&s.text, "%s%u", n ? "," : "", load->slots[next]);
        buf_add_char(&s.text, ')');
        r = run_load_query(o, &s, q, e);
    }
    my_script_fini(&s);
    return r;
}

/* Cut the keys to the page. */
static void page_keys(struct read_op *o)
{
    if (o->keys_count > o->limit) {
        o->keys_count = o->limit;
        o->more = true;
    }
    o->keys_count = my_fetch_fitting(o->keys, o->keys_count, &o->more);
}

static int fetch_jobs(struct read_op *o, struct my_conn *c, struct err *e)
{
    o->jobs = mem_try_array(o->keys_count, sizeof(*o->jobs), e);
    if (!o->jobs)
        return -ERR_NOMEM;
    o->jobs_count = o->keys_count;
    return my_fetch_jobs(o->op.store, c, o->keys, o->keys_count, o->jobs, e);
}

static int fetch_fires(struct read_op *o, struct my_conn *c, struct err *e)
{
    o->fires = mem_try_array(o->keys_count, sizeof(*o->fires), e);
    if (!o->fires)
        return -ERR_NOMEM;
    o->fires_cap = o->keys_count;
    return my_fetch_fires(c, o->keys, o->keys_count, o->fires, &o->fires_count, e);
}

/* Those that were deleted between the two steps. */
static void drop_absent(struct read_op *o)
{
    size_t n = 0;
    for (size_t i = 0; i < o->jobs_count; i++)
        if (o->jobs[i].spec || o->jobs[i].problem[0])
            o->jobs[n++] = o->jobs[i];
    o->jobs_count = n;
}

/* The next page begins behind the last row of this one. A row that was changed after its key was read may stand elsewhere by now, and
 * would hide what lies between: whoever holds a fire ends it while the new owner loads. The next page finds it where it is. */
static bool has_moved(const struct my_key *key, uint16_t slot, int64_t wake_ms)
{
    return slot != key->slot || wake_ms != key->wake_ms;
}

static void leave_moved_jobs(struct read_op *o)
{
    while (o->more && o->jobs_count > 0) {
        struct store_job *last = &o->jobs[o->jobs_count - 1];
        bool there = last->spec || last->problem[0];
        if (there && !has_moved(&o->keys[o->jobs_count - 1], last->row.slot, last->row.wake_ms))
            return;
        job_spec_unref(last->spec);
        o->jobs_count--;
    }
}

/* What is not counted any more is freed all the same: fires_cap counts it. */
static void leave_moved_fires(struct read_op *o)
{
    size_t i = o->keys_count;
    while (o->more && o->fires_count > 0) {
        const struct fire_row *last = &o->fires[o->fires_count - 1];
        do
            i--;
        while (o->keys[i].seq != last->seq || memcmp(&o->keys[i].uid, &last->uid, sizeof(struct uid)) != 0);
        if (!has_moved(&o->keys[i], last->slot, last->wake_ms))
            return;
        o->fires_count--;
    }
}

static int load_jobs_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct read_op *o = container_of(op, struct read_op, op);
    read_op_reset(o);
    int r = load_keys(o, c, &load_jobs_query, e);
    if (r < 0)
        return r;
    page_keys(o);
    r = fetch_jobs(o, c, e);
    if (r < 0)
        return r;
    leave_moved_jobs(o);
    drop_absent(o);
    return 0;
}

static int load_fires_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct read_op *o = container_of(op, struct read_op, op);
    read_op_reset(o);
    int r = load_keys(o, c, &load_fires_query, e);
    if (r < 0)
        return r;
    page_keys(o);
    r = fetch_fires(o, c, e);
    if (r == 0)
        leave_moved_fires(o);
    return r;
}

void my_load_jobs(void *self, const struct store_load *load, store_jobs_done *done, void *arg)
{
    struct read_op *o = mem_new(struct read_op);
    o->load = load;
    o->limit = load->limit;
    o->jobs_done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, load_jobs_run, jobs_finish);
}

void my_load_fires(void *self, const struct store_load *load, store_fires_done *done, void *arg)
{
    struct read_op *o = mem_new(struct read_op);
    o->load = load;
    o->limit = load->limit;
    o->fires_done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, load_fires_run, fires_finish);
}

/* --- by key -------------------------------------------------------------------------------------------------------- */

/* n, uid, bytes */
static int read_named_key(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct read_op *o = arg;
    uint64_t n, bytes;
    if (!sql_get_u64(row[0], lengths[0], &n) || n >= o->keys_count || !row[1] ||
        lengths[1] != sizeof(struct uid) || !sql_get_u64(row[2], lengths[2], &bytes))
        return bad_key(e);
    o->keys[n] = (struct my_key){.bytes = bytes};
    memcpy(o->keys[n].uid.bytes, row[1], sizeof(struct uid));
    return 0;
}

static int ask_keys(struct read_op *o, struct my_script *s, bool by_name, struct err *e)
{
    struct my_rows rows = {.script = s, .list = true, .expect = MY_ROWS, .fn = read_named_key, .arg = o};
    int r = 0;
    rows.head =
        by_name ? "SELECT k.n, t.uid, COALESCE(s.bytes, 0) FROM (SELECT 0 AS n, ns, id FROM jobs WHERE FALSE"
                : "SELECT k.n, t.uid, COALESCE(s.bytes, 0) FROM (SELECT 0 AS n, uid FROM jobs WHERE FALSE";
    rows.tail =
        by_name
            ? ") k STRAIGHT_JOIN jobs t FORCE INDEX (name) ON t.ns = k.ns AND t.id = k.id "
              "LEFT JOIN job_specs s ON s.uid = t.uid"
            : ") k STRAIGHT_JOIN jobs t FORCE INDEX (PRIMARY) ON t.uid = k.uid LEFT JOIN job_specs s ON s.uid = t.uid";
    for (size_t i = 0; r == 0 && i < o->names_count; i++) {
        const struct store_key *key = &o->names[i];
        if ((key->ns[0] != 0) != by_name || !my_is_name(key->ns) || !my_is_name(key->id))
            continue;
        my_rows_begin_row(&rows);
        buf_addf(&s->text, "%zu,", i);
        if (by_name) {
            sql_add_ascii(&s->text, key->ns);
            buf_add_char(&s->text, ',');
            sql_add_ascii(&s->text, key->id);
        } else {
            sql_add_hex(&s->text, key->uid.bytes, sizeof(struct uid));
        }
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

static int find_keys(struct read_op *o, struct my_conn *c, struct err *e)
{
    struct my_script s;
    mem_free(o->keys);
    o->keys = mem_try_array(o->names_count, sizeof(*o->keys), e);
    if (!o->keys)
        return -ERR_NOMEM;
    o->keys_count = o->names_count;
    for (size_t i = 0; i < o->keys_count; i++)
        o->keys[i].absent = true;
    my_script_init(&s, c);
    int r = ask_keys(o, &s, true, e);
    if (r == 0)
        r = ask_keys(o, &s, false, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

static int get_jobs_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct read_op *o = container_of(op, struct read_op, op);
    read_op_reset(o);
    int r = find_keys(o, c, e);
    if (r < 0)
        return r;
    o->keys_count = my_fetch_fitting(o->keys, o->keys_count, &o->more);
    return fetch_jobs(o, c, e);
}

void my_get_jobs(void *self, const struct store_key *keys, size_t count, store_jobs_done *done, void *arg)
{
    struct read_op *o = mem_new(struct read_op);
    o->names = keys;
    o->names_count = count;
    o->jobs_done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, get_jobs_run, jobs_finish);
}

static int get_fires_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct read_op *o = container_of(op, struct read_op, op);
    struct my_script s;
    read_op_reset(o);
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT uid, seq, bytes, slot, wake_ms FROM fires WHERE uid = ");
    sql_add_hex(&s.text, o->uid.bytes, sizeof(struct uid));
    if (o->before_seq)
        buf_addf(&s.text, " AND seq < %llu", (unsigned long long)o->before_seq);
    buf_addf(&s.text, " ORDER BY seq DESC LIMIT %zu", o->limit + 1);
    int r = run_one(&s, read_key, o, e);
    my_script_fini(&s);
    if (r < 0)
        return r;
    page_keys(o);
    return fetch_fires(o, c, e);
}

void my_get_fires(void *self, const struct uid *uid, uint64_t before_seq, size_t limit,
                  store_fires_done *done, void *arg)
{
    struct read_op *o = mem_new(struct read_op);
    o->uid = *uid;
    o->before_seq = before_seq;
    o->limit = limit;
    o->fires_done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, get_fires_run, fires_finish);
}
