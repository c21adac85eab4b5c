/* DELETE /v1/jobs?prefix=…: page after page is listed and deleted as a bulk would be. What is made meanwhile behind the
 * place that the list has reached may stay. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/api/bulk.h"

#define PAGE_BODY_MAX (1 << 20)

struct many { /* x->state */
    uint64_t deleted;
    bool more;
};

static void next_page(struct exchange *x);

static void end(struct exchange *x, enum api_code code, const char *why)
{
    struct many *m = x->state;
    struct buf out = BUF_INIT(256);
    char text[200];
    (void)snprintf(text, sizeof(text), "%llu were deleted before: %s", (unsigned long long)m->deleted,
                   why ? why : ""); /* may be cut */
    buf_addf(&out, "{\"deleted\":%llu}", (unsigned long long)m->deleted);
    mem_free(m);
    x->state = NULL;
    if (code == API_OK) {
        exchange_json(x, 200, &out);
        return;
    }
    buf_fini(&out);
    exchange_refuse_with(x, code, text);
}

static void on_deleted(void *arg, const struct bulk *b)
{
    struct exchange *x = arg;
    struct many *m = x->state;
    m->deleted += b->ok;
    if (b->failed > b->absent) /* those that are absent went meanwhile */
        end(x, API_NO_OWNER, "some jobs could not be deleted now");
    else if (m->more && !x->api->stopping)
        next_page(x);
    else
        end(x, m->more ? API_OVERLOADED : API_OK, "the agent is stopping");
}

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct exchange *x = arg;
    struct many *m = x->state;
    struct buf body = BUF_INIT(PAGE_BODY_MAX);
    struct err why = {0};
    if (e->code != ERR_OK) {
        end(x, API_STORE_UNAVAILABLE, e->text);
        return;
    }
    for (size_t i = 0; i < page->jobs_count; i++)
        buf_addf(&body, "{\"op\":\"delete\",\"namespace\":\"%s\",\"id\":\"%s\"}\n", page->jobs[i].row.ns,
                 page->jobs[i].row.id);
    m->more = page->more;
    memcpy(x->req.after_ns, page->next_ns, sizeof(x->req.after_ns));
    memcpy(x->req.after_id, page->next_id, sizeof(x->req.after_id));
    x->req.has_cursor = page->more;
    if (bulk_run(x->api, &x->ctx, &body, on_deleted, x, &why) < 0)
        end(x, API_OVERLOADED, why.text);
}

static void next_page(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    api_filter_set(&x->req, &x->filter);
    x->filter.filter.limit = API_LIMIT_MAX;
    store->list_jobs(self, &x->filter.filter, on_page, x);
}

void api_job_delete_many(struct exchange *x)
{
    x->state = mem_new(struct many);
    next_page(x);
}
