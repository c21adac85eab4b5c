/* GET /v1/fires, GET /v1/deadletters: fires of all jobs. Booked ones come from the store's index, newest first, whatever
 * became of their jobs. Those that succeeded at their first attempt stand with their job only: asked for one job they are
 * merged into the list, without one they follow it, job by job in the order of ids, so that a page looks at a bounded number
 * of jobs and a search for anything else never does. The job's ring is read after the rows: a fire that ends in between would
 * be in neither the other way round. */
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/core/ring_log.h"

#define RING_JOBS 200 /* a page looks at */

struct search { /* x->state */
    struct api_fire_filter filter;
    struct api_filter jobs;
    struct store_job job; /* the one that is asked for; spec is a reference of its own */
    struct ring_entry ring[RING_LOG_KEEP_MAX];
    size_t ring_count;
    struct store_fire_page page; /* the store's, taken over */
    struct buf out;
    size_t printed;
    bool letters;
    bool more;
    struct api_fire_cursor next; /* while MORE */
};

static bool wants_successes(const struct exchange *x)
{
    return x->req.outcome < 0 || x->req.outcome == FIRE_OUTCOME_SUCCEEDED;
}

static void search_free(struct exchange *x)
{
    struct search *s = x->state;
    job_spec_unref(s->job.spec);
    api_fires_free(s->page.fires, s->page.fires_count);
    buf_fini(&s->out);
    mem_free(s);
    x->state = NULL;
}

static void fail(struct exchange *x, const struct err *e)
{
    search_free(x);
    exchange_refuse_store(x, e);
}

static void finish(struct exchange *x)
{
    struct search *s = x->state;
    char cursor[API_CURSOR_SIZE];
    buf_add_char(&s->out, ']');
    if (s->more)
        api_fire_cursor_print(x->req.ns, &s->next, cursor);
    api_print_text(&s->out, "next_cursor", s->more ? cursor : NULL);
    buf_add_char(&s->out, '}');
    struct buf out = s->out;
    s->out = (struct buf){0};
    search_free(x);
    exchange_json(x, 200, &out);
}

static bool full(const struct exchange *x)
{
    return ((const struct search *)x->state)->printed >= x->req.limit;
}

static void comma(struct search *s)
{
    if (s->printed++ > 0)
        buf_add_char(&s->out, ',');
}

/* --- booked ones, and the ring of one job among them ------------------------------------------------------------------ */

static int compare_entries(const void *a, const void *b)
{
    const struct ring_entry *x = a, *y = b;
    if (x->due_ms != y->due_ms)
        return x->due_ms < y->due_ms ? 1 : -1;
    return (x->seq < y->seq) - (x->seq > y->seq);
}

/* Negative: A comes first, its due being the newer one. */
static int compare_places(int64_t due_a, const struct uid *uid_a, uint64_t seq_a,
                          const struct store_fire_place *b)
{
    int order = memcmp(b->uid.bytes, uid_a->bytes, sizeof(uid_a->bytes));
    if (due_a != b->due_ms)
        return due_a > b->due_ms ? -1 : 1;
    return order ? order : (seq_a < b->seq) - (seq_a > b->seq);
}

static int compare_entry(const struct search *s, size_t i, const struct store_fire_place *b)
{
    return compare_places(s->ring[i].due_ms, &s->job.row.uid, s->ring[i].seq, b);
}

static bool in_span(const struct api_request *rq, int64_t due_ms)
{
    return (rq->from_ms == RECORD_NONE || due_ms >= rq->from_ms) &&
           (rq->to_ms == RECORD_NONE || due_ms < rq->to_ms);
}

static bool calls_service(const struct api_request *rq, const struct job_spec *spec)
{
    char service[RECORD_SERVICE_MAX];
    if (!rq->service[0])
        return true;
    if (!spec)
        return false;
    job_callee(spec, service);
    return strcmp(service, rq->service) == 0;
}

static bool job_matches(const struct api_request *rq, const struct store_job *job)
{
    if (strncmp(job->row.id, rq->prefix, strlen(rq->prefix)) != 0 || !calls_service(rq, job->spec))
        return false;
    for (size_t i = 0; i < rq->labels_count; i++) {
        bool has = false;
        for (size_t k = 0; job->spec && k < job->spec->labels_count; k++)
            has |= strcmp(job->spec->labels[k].name, rq->labels[i].name) == 0 &&
                   strcmp(job->spec->labels[k].value, rq->labels[i].value) == 0;
        if (!has)
            return false;
    }
    return true;
}

/* The entries of JOB that are asked for, newest due first. */
static void take_ring(struct exchange *x, const struct store_job *job)
{
    struct search *s = x->state;
    const struct store_fire_place *after = &s->filter.filter.after;
    size_t n = 0;
    s->job = *job;
    s->job.spec = job->spec ? job_spec_ref(job->spec) : NULL;
    if (!job_matches(&x->req, job) ||
        ring_log_read(job->row.ring, job->row.ring_bytes, s->ring, &s->ring_count, NULL) < 0)
        s->ring_count = 0; /* a ring that cannot be read is begun anew at the next success */
    for (size_t i = 0; i < s->ring_count; i++)
        if (in_span(&x->req, s->ring[i].due_ms) && (!after->set || compare_entry(s, i, after) > 0))
            s->ring[n++] = s->ring[i];
    s->ring_count = n;
    qsort(s->ring, n, sizeof(s->ring[0]), compare_entries);
}

static struct store_fire_place place_of(const struct fire_row *row)
{
    return (struct store_fire_place){true, row->due_ms, row->uid, row->seq};
}

static void print_row(struct search *s, const struct fire_row *row)
{
    comma(s);
    if (s->letters)
        api_print_dead_letter(&s->out, row);
    else
        api_print_fire_row(&s->out, row);
}

/* The store's page goes down to its `next`: entries behind that belong to the next page. A fire that is in both ended after the rows
 * were read. */
static void print_merged(struct exchange *x, const struct store_fire_page *page)
{
    struct search *s = x->state;
    struct store_fire_place last = {0};
    size_t r = 0, f = 0;
    while (!full(x)) {
        bool entry = r < s->ring_count && (!page->next.set || compare_entry(s, r, &page->next) < 0);
        if (entry && f < page->fires_count) {
            struct store_fire_place row = place_of(&page->fires[f]);
            int order = compare_entry(s, r, &row);
            entry = order <= 0;
            f += order == 0;
        }
        if (!entry && f == page->fires_count)
            break;
        if (entry) {
            last = (struct store_fire_place){true, s->ring[r].due_ms, s->job.row.uid, s->ring[r].seq};
            comma(s);
            api_print_fire_ring(&s->out, &s->job, &s->ring[r++]);
        } else {
            last = place_of(&page->fires[f]);
            print_row(s, &page->fires[f++]);
        }
    }
    bool left = f < page->fires_count || r < s->ring_count;
    const struct store_fire_place *next = left && full(x) ? &last : &page->next;
    s->more = left || page->next.set;
    s->next = (struct api_fire_cursor){.due_ms = next->due_ms, .uid = next->uid, .seq = next->seq};
}

static void print_rows(struct exchange *x)
{
    struct search *s = x->state;
    print_merged(x, &s->page);
    if (!s->more && !s->letters && !x->req.job[0] && wants_successes(x)) {
        s->more = true;
        s->next = (struct api_fire_cursor){.in_rings = true};
    }
}

static void printed(struct exchange *x, bool cancelled)
{
    if (!cancelled) {
        finish(x);
        return;
    }
    search_free(x);
    exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
}

static void on_job(void *arg, const struct err *e, struct store_job *jobs, size_t count, bool more)
{
    struct exchange *x = arg;
    (void)more;
    if (e->code != ERR_OK) {
        fail(x, e);
        return;
    }
    if (count > 0 && (jobs[0].spec || jobs[0].problem[0]))
        take_ring(x, &jobs[0]);
    api_print_off_loop(x, print_rows, printed);
}

static void ask_job(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    memcpy(x->key.ns, x->req.ns, sizeof(x->key.ns));
    memcpy(x->key.id, x->req.job, sizeof(x->key.id));
    store->get_jobs(self, &x->key, 1, on_job, x);
}

static void on_rows(void *arg, const struct err *e, struct store_fire_page *page)
{
    struct exchange *x = arg;
    struct search *s = x->state;
    struct err own = *e;
    struct fire_row *rows = NULL;
    if (own.code != ERR_OK || api_fires_take(page->fires, page->fires_count, &rows, &own) < 0) {
        fail(x, &own);
        return;
    }
    s->page = *page;
    s->page.fires = rows;
    if (x->req.job[0] && !s->letters && wants_successes(x))
        ask_job(x);
    else
        api_print_off_loop(x, print_rows, printed);
}

static void ask_rows(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    struct search *s = x->state;
    store->list_fires(self, &s->filter.filter, on_rows, x);
}

/* --- rings of all jobs ------------------------------------------------------------------------------------------------ */

/* False: the page is full before the end of this job. */
static bool print_job(struct exchange *x, const struct store_job *job)
{
    struct search *s = x->state;
    struct ring_entry ring[RING_LOG_KEEP_MAX];
    size_t count = 0;
    bool goes_on = memcmp(&job->row.uid, &x->req.fires_after.uid, sizeof(job->row.uid)) == 0;
    uint64_t before = goes_on ? x->req.fires_after.seq : 0;
    if (!calls_service(&x->req, job->spec) ||
        ring_log_read(job->row.ring, job->row.ring_bytes, ring, &count, NULL) < 0)
        return true;
    for (size_t i = 0; i < count; i++) {
        if (!in_span(&x->req, ring[i].due_ms) || (before && ring[i].seq >= before))
            continue;
        if (full(x))
            return false;
        comma(s);
        api_print_fire_ring(&s->out, job, &ring[i]);
        s->next.uid = job->row.uid;
        s->next.seq = ring[i].seq;
    }
    return true;
}

static void on_jobs(void *arg, const struct err *e, struct store_page *page)
{
    struct exchange *x = arg;
    struct search *s = x->state;
    if (e->code != ERR_OK) {
        fail(x, e);
        return;
    }
    s->next = (struct api_fire_cursor){.in_rings = true};
    memcpy(s->next.after_id, x->req.fires_after.after_id, sizeof(s->next.after_id));
    for (size_t i = 0; i < page->jobs_count; i++) {
        s->more = !print_job(x, &page->jobs[i]);
        if (s->more)
            break;
        memcpy(s->next.after_id, page->jobs[i].row.id, sizeof(s->next.after_id));
    }
    if (!s->more && page->more) {
        s->more = true;
        s->next = (struct api_fire_cursor){.in_rings = true};
        memcpy(s->next.after_id, page->next_id, sizeof(s->next.after_id));
    }
    finish(x);
}

static void ask_jobs(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    struct search *s = x->state;
    struct store_filter *f = &s->jobs.filter;
    api_filter_set(&x->req, &s->jobs);
    f->after_ns = x->req.fires_after.after_id[0] ? x->req.ns : NULL;
    f->after_id = x->req.fires_after.after_id;
    f->limit = RING_JOBS;
    store->list_jobs(self, f, on_jobs, x);
}

/* --- both --------------------------------------------------------------------------------------------------------- */

static struct search *begin(struct exchange *x, const char *name)
{
    struct search *s = mem_new(struct search);
    x->state = s;
    api_fire_filter_set(&x->req, &s->filter);
    buf_init(&s->out, API_PAGE_BYTES_MAX);
    buf_addf(&s->out, "{\"%s\":[", name);
    return s;
}

void api_fire_search(struct exchange *x)
{
    (void)begin(x, "fires"); /* is x->state */
    if (x->req.has_cursor && x->req.fires_after.in_rings && !x->req.job[0])
        ask_jobs(x);
    else
        ask_rows(x);
}

void api_deadletters(struct exchange *x)
{
    struct search *s = begin(x, "deadletters");
    s->letters = true;
    s->filter.filter.outcome = FIRE_OUTCOME_DEAD;
    ask_rows(x);
}
