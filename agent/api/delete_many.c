/* DELETE /v1/jobs?prefix=…: page after page is listed and deleted as a bulk would be. What is made meanwhile behind the
 * place that the list has reached may stay. */
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/api/bulk.h"

#define PAGE_BODY_MAX (1 << 20)

static void on_deleted(void *arg, const struct bulk *b)
{
    struct exchange *x = arg;
    struct api_walk *w = x->state;
    w->changing--;
    w->count += b->ok;
    if (b->cut_short)
        api_walk_fail(w, API_OVERLOADED, "the agent is stopping");
    if (b->failed > b->absent) /* those that are absent went meanwhile */
        api_walk_fail(w, API_NO_OWNER, "some jobs could not be deleted now");
    api_walk_go_on(x, w);
}

static void delete_page(struct exchange *x, const struct store_page *page)
{
    struct buf body = BUF_INIT(PAGE_BODY_MAX);
    for (size_t i = 0; i < page->jobs_count; i++)
        buf_addf(&body, "{\"op\":\"delete\",\"namespace\":\"%s\",\"id\":\"%s\"}\n", page->jobs[i].row.ns,
                 page->jobs[i].row.id);
    api_walk_change(x, x->state, &body, on_deleted);
}

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct exchange *x = arg;
    struct api_walk *w = x->state;
    w->listing = false;
    if (e->code != ERR_OK) {
        api_walk_fail(w, API_STORE_UNAVAILABLE, e->text);
    } else {
        w->more = page->more;
        memcpy(x->req.after_ns, page->next_ns, sizeof(x->req.after_ns));
        memcpy(x->req.after_id, page->next_id, sizeof(x->req.after_id));
        x->req.has_cursor = page->more;
        delete_page(x, page);
    }
    api_walk_go_on(x, w);
}

static void list_page(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    api_filter_set(&x->req, &x->filter);
    x->filter.filter.limit = API_LIMIT_MAX;
    store->list_jobs(self, &x->filter.filter, on_page, x);
}

void api_job_delete_many(struct exchange *x)
{
    struct api_walk *w = mem_new(struct api_walk);
    w->list = list_page;
    w->what = "deleted";
    w->more = true;
    x->state = w;
    api_walk_go_on(x, w);
}
