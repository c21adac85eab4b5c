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

static void print_next_cursor(struct buf *out, const struct store_page *page)
{
    char cursor[API_CURSOR_SIZE];
    buf_add_char(out, ']');
    if (page->more)
        api_cursor_print(page->next_ns, page->next_id, cursor);
    api_print_text(out, "next_cursor", page->more ? cursor : NULL);
    buf_add_char(out, '}');
}

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct exchange *x = arg;
    if (e->code != ERR_OK) {
        exchange_refuse_store(x, e);
        return;
    }
    struct buf out = BUF_INIT(API_PAGE_BYTES_MAX);
    char owner[STORE_NAME_MAX];
    bool any = false;
    buf_add_str(&out, "{\"jobs\":[");
    for (size_t i = 0; i < page->jobs_count; i++) {
        const struct store_job *job = &page->jobs[i];
        if (!job->spec)
            continue; /* of a newer agent, or of a zone that is unknown here: others can show it */
        if (any)
            buf_add_char(&out, ',');
        any = true;
        api_owner_name(x->api->node, job->row.slot, owner);
        (void)job_print(job->spec, &job->row, owner, &out, NULL); /* what failed shows in OUT below */
    }
    print_next_cursor(&out, page);
    exchange_json(x, 200, &out);
}

void api_job_list(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    api_filter_set(&x->req, &x->filter);
    store->list_jobs(self, &x->filter.filter, on_page, x);
}
