/* GET /v1/forecast: what is coming, step by step. Any member reads the definitions of all jobs from the store, in pages and within
 * bounds of jobs and time, and counts on the thread that prints pages; who owns which slot it knows itself. */
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/clock.h"
#include "agent/core/forecast.h"

enum {
    PAGE_JOBS = 1000,
    JOBS_MAX = 200000, /* beyond, and after so long, the answer says that it is not whole */
    TIME_MAX_MS = 5000,
    STEPS_DEFAULT = 12,
};

#define WINDOW_DEFAULT_MS ((uint64_t)3600000)

struct coming {
    struct exchange *x;
    struct forecast *forecast;
    size_t jobs;
    bool failed, more, truncated;
    uint64_t begun_ms;
};

static void read_page(struct coming *c);

static void refuse(struct coming *c, enum api_code code, const char *why)
{
    struct exchange *x = c->x;
    forecast_free(c->forecast);
    mem_free(c);
    exchange_refuse_with(x, code, why);
}

static void answer(struct coming *c)
{
    struct exchange *x = c->x;
    struct buf out = BUF_INIT(API_JOB_BYTES_MAX);
    buf_add_char(&out, '{');
    forecast_print(c->forecast, &out);
    buf_addf(&out, ",\"jobs\":%zu,\"truncated\":%s}", c->jobs, c->truncated ? "true" : "false");
    forecast_free(c->forecast);
    mem_free(c);
    exchange_json(x, 200, &out);
}

/* On the thread of pages. */
static void reckon(struct api_page *p)
{
    struct coming *c = p->arg;
    for (size_t i = 0; i < p->count && !c->failed; i++)
        c->failed =
            forecast_add(c->forecast, p->jobs[i].job.spec, &p->jobs[i].job.row, p->jobs[i].owner, NULL) < 0;
    c->jobs += p->count;
}

static void on_reckoned(struct api_page *p, bool cancelled)
{
    struct coming *c = p->arg;
    bool enough = c->jobs >= JOBS_MAX || clock_boot_ms() - c->begun_ms >= TIME_MAX_MS;
    c->truncated = c->more && enough;
    if (cancelled || c->failed)
        refuse(c, API_OVERLOADED, cancelled ? "the agent is stopping" : "no memory");
    else if (c->more && !enough)
        read_page(c);
    else
        answer(c);
}

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct coming *c = arg;
    struct exchange *x = c->x;
    struct err own = {0};
    if (e->code != ERR_OK) {
        refuse(c, API_STORE_UNAVAILABLE, e->text);
        return;
    }
    c->more = page->more;
    memcpy(x->req.after_ns, page->next_ns, sizeof(x->req.after_ns));
    memcpy(x->req.after_id, page->next_id, sizeof(x->req.after_id));
    x->req.has_cursor = true;
    if (x->api->stopping || api_page_print(x->api, page, reckon, on_reckoned, c, &own) < 0)
        refuse(c, API_OVERLOADED, x->api->stopping ? "the agent is stopping" : own.text);
}

static void read_page(struct coming *c)
{
    void *self;
    struct exchange *x = c->x;
    const struct store_ops *store = node_store(x->api->node, &self);
    api_filter_set(&x->req, &x->filter);
    x->filter.filter.limit = PAGE_JOBS;
    store->list_jobs(self, &x->filter.filter, on_page, c);
}

void api_forecast(struct exchange *x)
{
    uint64_t window_ms = x->req.window_ms ? x->req.window_ms : WINDOW_DEFAULT_MS;
    uint64_t step_ms = x->req.step_ms ? x->req.step_ms : (window_ms + STEPS_DEFAULT - 1) / STEPS_DEFAULT;
    uint64_t steps = (window_ms + step_ms - 1) / step_ms;
    struct err e = {0};
    if (steps > FORECAST_STEPS_MAX) {
        exchange_refuse_with(x, API_INVALID_REQUEST, "window is more than 288 times step");
        return;
    }
    struct coming *c = mem_new(struct coming);
    c->x = x;
    c->begun_ms = clock_boot_ms();
    if (forecast_new(node_now_ms(x->api->node), (int64_t)step_ms, (size_t)steps, &c->forecast, &e) < 0)
        refuse(c, API_OVERLOADED, e.text);
    else
        read_page(c);
}
