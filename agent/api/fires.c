/* History: booked fires from the store, first-attempt successes from the ring in the job's row. The ring is read after the
 * rows: a fire that ends in between would be in neither the other way round. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/core/ring_log.h"

/* What is gathered before the answer; x->state. */
struct history {
    struct uid uid;
    struct fire_row *rows;
    size_t rows_count;
    bool rows_more;
    struct store_job job; /* its spec is a reference of its own */
    struct ring_entry ring[RING_LOG_KEEP_MAX];
    size_t ring_count;
    struct buf out;
};

static void history_free(struct exchange *x)
{
    struct history *h = x->state;
    api_fires_free(h->rows, h->rows_count);
    job_spec_unref(h->job.spec);
    buf_fini(&h->out);
    mem_free(h);
    x->state = NULL;
}

/* What of it cannot be read is begun anew at the next success. */
static size_t read_ring(const struct store_job *job, struct ring_entry ring[static RING_LOG_KEEP_MAX])
{
    size_t count = 0;
    bool is_there = job->spec || job->problem[0];
    return is_there && ring_log_read(job->row.ring, job->row.ring_bytes, ring, &count, NULL) == 0 ? count : 0;
}

/* --- GET /v1/jobs/{id}/fires --------------------------------------------------------------------------------------- */

/* Both are ordered, newest first. A seq that stands in both ended after the rows were read. */
static uint64_t print_merged(struct buf *out, const struct exchange *x, bool *ret_more)
{
    const struct history *h = x->state;
    const struct ring_entry *ring = h->ring;
    size_t r = 0, f = 0, ring_count = h->ring_count;
    uint64_t last = 0;
    while (r < ring_count && x->req.before_seq && ring[r].seq >= x->req.before_seq)
        r++;
    for (size_t n = 0; n < x->req.limit && (r < ring_count || f < h->rows_count); n++) {
        if (n > 0)
            buf_add_char(out, ',');
        if (f >= h->rows_count || (r < ring_count && ring[r].seq >= h->rows[f].seq)) {
            last = ring[r].seq;
            f += f < h->rows_count && h->rows[f].seq == last;
            api_print_fire_ring(out, &h->job, &ring[r++]);
        } else {
            last = h->rows[f].seq;
            api_print_fire_row(out, &h->rows[f++]);
        }
    }
    *ret_more = h->rows_more || r < ring_count || f < h->rows_count;
    return last;
}

static void print_page(struct exchange *x)
{
    struct history *h = x->state;
    char cursor[24];
    bool more;
    buf_add_str(&h->out, "{\"fires\":[");
    uint64_t last = print_merged(&h->out, x, &more);
    buf_add_char(&h->out, ']');
    (void)snprintf(cursor, sizeof(cursor), "%llu", (unsigned long long)last); /* fits */
    api_print_text(&h->out, "next_cursor", more && last > 1 ? cursor : NULL);
    buf_add_char(&h->out, '}');
}

static void printed(struct exchange *x, bool cancelled)
{
    struct history *h = x->state;
    struct buf out = h->out;
    h->out = (struct buf){0};
    history_free(x);
    if (!cancelled) {
        exchange_json(x, 200, &out);
        return;
    }
    buf_fini(&out);
    exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
}

static void on_ring(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (e->code != ERR_OK) {
        history_free(x);
        exchange_refuse_store(x, e);
        return;
    }
    struct history *h = x->state;
    if (count > 0) {
        h->job = jobs[0];
        h->job.spec = jobs[0].spec ? job_spec_ref(jobs[0].spec) : NULL;
        h->ring_count = read_ring(&jobs[0], h->ring);
    }
    api_print_off_loop(x, print_page, printed);
}

static void on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct exchange *x = arg;
    struct history *h = x->state;
    struct err own = *e;
    if (own.code != ERR_OK || api_fires_take(rows, count, &h->rows, &own) < 0) {
        history_free(x);
        exchange_refuse_store(x, &own);
        return;
    }
    h->rows_count = count;
    h->rows_more = more;
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    x->key = (struct store_key){.uid = h->uid};
    store->get_jobs(self, &x->key, 1, on_ring, x);
}

static void on_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (e->code != ERR_OK) {
        exchange_refuse_store(x, e);
        return;
    }
    if (count == 0 || (!jobs[0].spec && !jobs[0].problem[0])) {
        exchange_refuse_with(x, API_NOT_FOUND, "there is no such job");
        return;
    }
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    struct history *h = mem_new(struct history);
    x->state = h;
    buf_init(&h->out, API_PAGE_BYTES_MAX);
    h->uid = jobs[0].row.uid;
    store->get_fires(self, &h->uid, x->req.before_seq, x->req.limit, on_fires, x);
}

void api_job_fires(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    memcpy(x->key.ns, x->req.ns, sizeof(x->key.ns));
    memcpy(x->key.id, x->req.arg, strlen(x->req.arg) + 1);
    store->get_jobs(self, &x->key, 1, on_job, x);
}

/* --- GET /v1/fires/{fire} ------------------------------------------------------------------------------------------ */

static void on_fire_ring(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    struct ring_entry ring[RING_LOG_KEEP_MAX];
    struct buf out = BUF_INIT(1 << 20);
    size_t ring_count = count > 0 ? read_ring(&jobs[0], ring) : 0;
    (void)more;
    for (size_t i = 0; i < ring_count && out.len == 0; i++)
        if (ring[i].seq == x->req.fire_seq)
            api_print_fire_ring(&out, &jobs[0], &ring[i]);
    if (out.len > 0 && exchange_refuse_foreign(x, jobs[0].row.ns))
        buf_fini(&out);
    else if (out.len > 0)
        exchange_json(x, 200, &out);
    else if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else
        exchange_refuse_with(x, API_NOT_FOUND, "no such fire is kept; the history holds the newest only");
}

static void on_fire(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct exchange *x = arg;
    uint64_t seq = x->req.fire_seq;
    (void)more;
    if (e->code != ERR_OK) {
        exchange_refuse_store(x, e);
        return;
    }
    if (count > 0 && rows[0].seq <= seq && seq <= rows[0].seq_last) {
        if (exchange_refuse_foreign(x, rows[0].ns))
            return;
        struct buf out = BUF_INIT(1 << 20);
        api_print_fire_row(&out, &rows[0]);
        exchange_json(x, 200, &out);
        return;
    }
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    x->key = (struct store_key){.uid = x->req.fire_uid};
    store->get_jobs(self, &x->key, 1, on_fire_ring, x);
}

void api_fire_get(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    uint64_t before = x->req.fire_seq < UINT64_MAX ? x->req.fire_seq + 1 : UINT64_MAX;
    store->get_fires(self, &x->req.fire_uid, before, 1, on_fire, x);
}
