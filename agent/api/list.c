/* GET /v1/jobs: pages in key order, straight from the store. */
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/core/hashring.h"

void api_filter_set(const struct api_request *rq, struct api_filter *f)
{
    memset(f, 0, sizeof(*f));
    for (size_t i = 0; i < rq->labels_count; i++) {
        f->names[i] = rq->labels[i].name;
        f->values[i] = rq->labels[i].value;
    }
    f->filter = (struct store_filter){.ns = rq->ns_all ? NULL : rq->ns,
                                      .prefix = rq->prefix[0] ? rq->prefix : NULL,
                                      .label_names = f->names,
                                      .label_values = f->values,
                                      .labels_count = rq->labels_count,
                                      .state = rq->state,
                                      .last_outcome = rq->last_outcome,
                                      .after_ns = rq->has_cursor ? rq->after_ns : NULL,
                                      .after_id = rq->has_cursor ? rq->after_id : NULL,
                                      .limit = rq->limit};
}

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
