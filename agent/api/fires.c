/* History: booked fires from the store, first-attempt successes from the ring in the job's row. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/core/ring_log.h"

/* What is gathered before the answer; x->state. */
struct history {
    struct store_job job; /* a copy; spec is a reference of its own, NULL: the job has gone */
    bool has_job;
    struct ring_entry ring[RING_LOG_KEEP_MAX];
    size_t ring_count;
};

static void history_free(struct exchange *x)
{
    struct history *h = x->state;
    job_spec_unref(h->job.spec);
    mem_free(h);
    x->state = NULL;
}

static void history_take(struct history *h, const struct store_job *job)
{
    h->job = *job;
    h->has_job = true;
    h->job.spec = job_spec_ref(job->spec);
    if (ring_log_read(job->row.ring, job->row.ring_bytes, h->ring, &h->ring_count, NULL) < 0)
        h->ring_count = 0; /* it is begun anew at the next success */
}

/* --- GET /v1/jobs/{id}/fires --------------------------------------------------------------------------------------- */

/* Both are ordered, newest first; a seq stands in one of them only. */
static uint64_t print_merged(struct buf *out, const struct history *h, const struct fire_row *rows,
                             size_t count, uint64_t before, size_t limit, bool *ret_more)
{
    size_t r = 0, f = 0;
    uint64_t last = 0;
    while (r < h->ring_count && before && h->ring[r].seq >= before)
        r++;
    for (size_t n = 0; n < limit && (r < h->ring_count || f < count); n++) {
        if (n > 0)
            buf_add_char(out, ',');
        if (f >= count || (r < h->ring_count && h->ring[r].seq > rows[f].seq)) {
            last = h->ring[r].seq;
            api_print_fire_ring(out, &h->job, &h->ring[r++]);
        } else {
            last = rows[f].seq;
            api_print_fire_row(out, &rows[f++]);
        }
    }
    *ret_more |= r < h->ring_count || f < count;
    return last;
}

static void on_fires(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct exchange *x = arg;
    if (e->code != ERR_OK) {
        history_free(x);
        exchange_refuse_store(x, e);
        return;
    }
    struct buf out = BUF_INIT(API_PAGE_BYTES_MAX);
    char cursor[24];
    buf_add_str(&out, "{\"fires\":[");
    uint64_t last = print_merged(&out, x->state, rows, count, x->req.before_seq, x->req.limit, &more);
    buf_add_char(&out, ']');
    (void)snprintf(cursor, sizeof(cursor), "%llu", (unsigned long long)last); /* fits */
    api_print_text(&out, "next_cursor", more && last > 1 ? cursor : NULL);
    buf_add_char(&out, '}');
    history_free(x);
    exchange_json(x, 200, &out);
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
    history_take(h, &jobs[0]);
    store->get_fires(self, &h->job.row.uid, x->req.before_seq, x->req.limit, on_fires, x);
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

static void on_fire(void *arg, const struct err *e, struct fire_row *rows, size_t count, bool more)
{
    struct exchange *x = arg;
    struct history *h = x->state;
    struct buf out = BUF_INIT(1 << 20);
    uint64_t seq = x->req.fire_seq;
    (void)more;
    if (e->code == ERR_OK && count > 0 && rows[0].seq <= seq && seq <= rows[0].seq_last)
        api_print_fire_row(&out, &rows[0]);
    for (size_t i = 0; out.len == 0 && i < h->ring_count; i++)
        if (h->ring[i].seq == seq)
            api_print_fire_ring(&out, &h->job, &h->ring[i]);
    history_free(x);
    if (out.len > 0)
        exchange_json(x, 200, &out);
    else if (e->code != ERR_OK)
        exchange_refuse_store(x, e);
    else
        exchange_refuse_with(x, API_NOT_FOUND, "no such fire is kept; the history holds the newest only");
}

static void on_fire_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (e->code != ERR_OK) {
        exchange_refuse_store(x, e);
        return;
    }
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    struct history *h = mem_new(struct history);
    x->state = h;
    if (count > 0 && (jobs[0].spec || jobs[0].problem[0]))
        history_take(h, &jobs[0]);
    uint64_t before = x->req.fire_seq < UINT64_MAX ? x->req.fire_seq + 1 : UINT64_MAX;
    store->get_fires(self, &x->req.fire_uid, before, 1, on_fire, x);
}

void api_fire_get(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    x->key.uid = x->req.fire_uid;
    store->get_jobs(self, &x->key, 1, on_fire_job, x);
}
