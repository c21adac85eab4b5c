/* GET /v1/export: page after page from the store as lines that /v1/bulk takes, as fast as the client reads. A client of the
 * cluster gets the pages from members: a request that another agent sends is answered with one page and the cursor of the
 * next in a header. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/text.h"

enum {
    STREAM_BYTES = 1 << 20,
    WRITE_BYTES = 256 << 10,
    PAGE_JOBS = 200,
    PAGE_TIMEOUT_MS = 10000,
    TRIES_MAX = 5, /* members asked for one page */
    BODY_MAX = 4 << 20,
};

struct export
{
    struct api *api;
    struct loop_msg msg;
    struct httpd_stream *stream;
    struct api_request req;
    struct api_context ctx;
    char *query; /* a client's: what a member is asked for with each page, but for the cursor */
    struct api_filter filter;
    char cursor[API_CURSOR_SIZE]; /* "": the beginning */
    struct buf out;
    bool reading;
    bool last;
    bool gone;
    unsigned tries;
    struct api_call call;
    struct loop_msg room;
    atomic_bool room_posted;
};

static void go_on(struct export *x);

/* --- lines --------------------------------------------------------------------------------------------------------- */

/* An instant that has its fire, beside dues that go on: where the job is not there it could not be written any more. */
static bool is_over(const struct store_job *job, size_t i)
{
    const char *text = job->spec->schedules[i];
    int64_t at_ms;
    return !job->spec->one_shot && job->row.due_ms != RECORD_NONE && strncmp(text, "@at ", 4) == 0 &&
           text_instant_ms(text + 4, strlen(text + 4), &at_ms, NULL) == 0 && at_ms < job->row.due_ms;
}

/* False without memory: nothing is printed. */
static bool print_rest(struct buf *out, const struct store_job *job)
{
    AUTO(json_decref) json_t *doc = NULL;
    if (job_document(job->spec, &job->row, &doc, NULL) < 0)
        return false;
    json_t *schedules = json_object_get(doc, "schedule");
    for (size_t i = job->spec->schedules_count; i-- > 0;)
        if (is_over(job, i))
            (void)json_array_remove(schedules, i); /* there is one: several expressions are a list */
    AUTO(buf_fini) struct buf text = BUF_INIT(BODY_MAX);
    if (json_print_ordered(doc, &text, NULL) < 0)
        return false;
    buf_add(out, buf_str(&text), text.len);
    return true;
}

static bool any_is_over(const struct store_job *job)
{
    for (size_t i = 0; i < job->spec->schedules_count; i++)
        if (is_over(job, i))
            return true;
    return false;
}

static void print_line(struct buf *out, const struct store_job *job)
{
    buf_addf(out, "{\"op\":\"put\",\"namespace\":\"%s\",\"id\":\"%s\",\"job\":", job->row.ns, job->row.id);
    if (any_is_over(job) && print_rest(out, job)) {
        buf_add_str(out, "}\n");
        return;
    }
    if (job_print(job->spec, NULL, "", out, NULL) < 0)
        return; /* OUT is short of memory and says so at its end */
    if (job->row.state == JOB_STATE_PAUSED) {
        buf_truncate(out, out->len - 1);
        buf_add_str(out, ",\"paused\":true}");
    }
    buf_add_str(out, "}\n");
}

static void print_page(struct api_page *p)
{
    for (size_t i = 0; i < p->count; i++)
        print_line(&p->out, &p->jobs[i].job);
}

/* --- one page, for another agent ----------------------------------------------------------------------------------- */

static void single_printed(struct api_page *p, bool cancelled)
{
    struct exchange *x = p->arg;
    struct httpd_header header = {API_CURSOR_HEADER, p->cursor};
    if (cancelled)
        exchange_refuse_with(x, API_OVERLOADED, "the agent is stopping");
    else
        exchange_reply(x, 200, "application/x-ndjson", &header, p->cursor[0] != '\0', &p->out);
}

static void on_single_page(void *arg, const struct err *e, struct store_page *page)
{
    api_page_answer(arg, e, page, print_page, single_printed);
}

static void single_page(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    api_filter_set(&x->req, &x->filter);
    x->filter.filter.limit = PAGE_JOBS;
    store->list_jobs(self, &x->filter.filter, on_single_page, x);
}

/* --- all pages ----------------------------------------------------------------------------------------------------- */

static void export_free(struct export *x)
{
    struct api *api = x->api;
    buf_fini(&x->out);
    mem_free(x->query);
    mem_free(x);
    api_unref(api);
}

/* A reply that breaks off tells the client that it is not whole. */
static void finish(struct export *x)
{
    if (x->stream && x->gone)
        httpd_stream_break(x->stream);
    else if (x->stream)
        httpd_stream_end(x->stream);
    x->stream = NULL;
    if (!atomic_load(&x->room_posted)) /* else the message that is under way frees it */
        export_free(x);
}

static void give_up(struct export *x, const char *why)
{
    struct api_problem p = {0};
    (void)api_problem_set(&p, API_STORE_UNAVAILABLE, "the export ends before its end: %s",
                          why); /* see below */
    buf_add_str(&x->out, "{\"problem\":");
    api_problem_print(&p, x->ctx.request_id, &x->out);
    buf_add_str(&x->out, "}\n"); /* no bulk takes this line, so nobody takes the whole for complete */
    api_problem_fini(&p);
    x->last = true;
}

static void printed(struct api_page *p, bool cancelled)
{
    struct export *x = p->arg;
    x->reading = false;
    if (!cancelled) { /* what went before was flushed */
        buf_fini(&x->out);
        x->out = p->out;
        buf_init(&p->out, API_PAGE_BYTES_MAX);
    }
    go_on(x);
}

static void take_page(struct export *x, const struct store_page *page)
{
    struct err e = {0};
    x->tries = 0;
    x->last = !page->more;
    if (page->more) {
        memcpy(x->req.after_ns, page->next_ns, sizeof(x->req.after_ns));
        memcpy(x->req.after_id, page->next_id, sizeof(x->req.after_id));
        x->req.has_cursor = true;
    }
    x->reading = !x->api->stopping && api_page_print(x->api, page, print_page, printed, x, &e) == 0;
    if (!x->reading)
        give_up(x, x->api->stopping ? "the agent is stopping" : e.text);
}

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct export *x = arg;
    x->reading = false;
    if (e->code == ERR_OK)
        take_page(x, page);
    else if (x->api->stopping || ++x->tries >= TRIES_MAX)
        give_up(x, e->text);
    go_on(x);
}

static void on_peer_page(struct api_call *c, const struct err *e, const struct http_reply *reply)
{
    struct export *x = container_of(c, struct export, call);
    x->reading = false;
    if (e->code == ERR_OK && reply->status == 200) {
        const char *next = http_reply_header(reply, API_CURSOR_HEADER);
        buf_add(&x->out, reply->body, reply->body_bytes);
        x->tries = 0;
        x->last = !next || strlen(next) >= sizeof(x->cursor);
        (void)snprintf(x->cursor, sizeof(x->cursor), "%s", x->last ? "" : next); /* fits */
    } else if (x->api->stopping || ++x->tries >= TRIES_MAX) {
        give_up(x, e->code == ERR_OK ? "a member refused" : e->text);
    }
    go_on(x);
}

static void ask_member(struct export *x)
{
    AUTO(buf_fini) struct buf target = BUF_INIT(1 << 16);
    const char *address = node_any_member(x->api->node, x->tries);
    buf_addf(&target, "/v1/export?%s", x->query);
    if (x->cursor[0])
        buf_addf(&target, "&cursor=%s", x->cursor);
    struct api_peer_request r = {.address = address,
                                 .method = "GET",
                                 .target = buf_str(&target),
                                 .ctx = &x->ctx,
                                 .timeout_ms = PAGE_TIMEOUT_MS,
                                 .reply_bytes_max = API_PAGE_BYTES_MAX};
    x->call.done = on_peer_page;
    x->ctx.hop = API_HOP_ROUTE;
    x->reading = address && !buf_failed(&target) && api_call_peer(x->api, &x->call, &r);
    if (!x->reading)
        give_up(x, "no member of the cluster is known");
}

static void read_page(struct export *x)
{
    void *self;
    if (node_is_client(x->api->node)) {
        ask_member(x);
        return;
    }
    const struct store_ops *store = node_store(x->api->node, &self);
    api_filter_set(&x->req, &x->filter);
    x->filter.filter.limit = PAGE_JOBS;
    x->reading = true;
    store->list_jobs(self, &x->filter.filter, on_page, x);
}

static bool flush(struct export *x)
{
    while (x->stream && !x->gone && x->out.len > 0) {
        size_t len = x->out.len < WRITE_BYTES ? x->out.len : WRITE_BYTES;
        int rc = httpd_stream_write(x->stream, x->out.data, len);
        if (rc == -ERR_BUSY)
            return false;
        x->gone = rc < 0;
        buf_consume(&x->out, len);
    }
    return true;
}

static void go_on(struct export *x)
{
    if (x->reading || !flush(x))
        return;
    x->gone |= buf_failed(&x->out) || x->api->stopping; /* with a hole it would be no export */
    if (!x->last && !x->gone && x->stream)
        read_page(x);
    if (x->reading || !flush(x))
        return;
    if (x->last || x->gone || !x->stream)
        finish(x);
}

static void on_room(struct loop_msg *msg)
{
    struct export *x = container_of(msg, struct export, room);
    atomic_store(&x->room_posted, false);
    go_on(x);
}

static void room(void *arg)
{
    struct export *x = arg;
    if (!atomic_exchange(&x->room_posted, true))
        loop_post(x->api->loop, &x->room);
}

/* Its own, from what was understood: the cursor of RQ is that of the first page only. NULL: no memory. */
static char *print_query(const struct api_request *rq)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(1 << 16);
    buf_addf(&out, "ns=%s", rq->ns_all ? "*" : rq->ns);
    if (rq->prefix[0]) {
        buf_add_str(&out, "&prefix=");
        text_percent_encode(&out, rq->prefix, strlen(rq->prefix));
    }
    for (size_t i = 0; i < rq->labels_count; i++) {
        buf_add_str(&out, "&label=");
        text_percent_encode(&out, rq->labels[i].name, strlen(rq->labels[i].name));
        buf_add_str(&out, "%3D");
        text_percent_encode(&out, rq->labels[i].value, strlen(rq->labels[i].value));
    }
    return buf_steal(&out, NULL, NULL);
}

void api_export(struct exchange *x)
{
    if (x->ctx.hop != API_HOP_NONE) {
        single_page(x);
        return;
    }
    struct export *ex = mem_new(struct export);
    ex->api = x->api;
    api_ref(ex->api);
    ex->req = x->req;
    ex->ctx = x->ctx;
    api_context_set_defaults(&ex->ctx, &x->ctx.defaults);
    ex->query = print_query(&x->req);
    if (x->req.has_cursor)
        api_cursor_print(x->req.after_ns, x->req.after_id, ex->cursor);
    buf_init(&ex->out, API_PAGE_BYTES_MAX);
    atomic_init(&ex->room_posted, false);
    list_init(&ex->call.link);
    ex->room.run = on_room;
    if (!ex->query) {
        export_free(ex);
        exchange_refuse_with(x, API_OVERLOADED, "no memory");
        return;
    }
    ex->stream = exchange_stream(x, "application/x-ndjson", NULL, 0, STREAM_BYTES);
    httpd_stream_on_room(ex->stream, room, ex);
    go_on(ex);
}
