/* GET /v1/jobs: pages in key order, straight from the store. */
#include "agent/api/api_private.h"
#include "agent/core/hashring.h"

static void print(struct api_page *p)
{
    buf_add_str(&p->out, "{\"jobs\":[");
    for (size_t i = 0; i < p->count; i++) {
        const struct api_page_job *j = &p->jobs[i];
        if (i > 0)
            buf_add_char(&p->out, ',');
        (void)job_print(j->job.spec, &j->job.row, j->owner, &p->out, NULL); /* what failed shows in `out` */
    }
    buf_add_char(&p->out, ']');
    api_print_text(&p->out, "next_cursor", p->cursor[0] ? p->cursor : NULL);
    buf_add_char(&p->out, '}');
}

static void printed(struct api_page *p, bool cancelled)
{
    if (cancelled)
        exchange_refuse_with(p->arg, API_OVERLOADED, "the agent is stopping");
    else
        exchange_json(p->arg, 200, &p->out);
}

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    api_page_answer(arg, e, page, print, printed);
}

void api_job_list(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    api_filter_set(&x->req, &x->filter);
    store->list_jobs(self, &x->filter.filter, on_page, x);
}
