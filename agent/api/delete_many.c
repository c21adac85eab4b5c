/* DELETE /v1/jobs?prefix=…: page after page is listed and deleted as a bulk would be. What is made meanwhile behind the
 * place that the list has reached may stay. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/api/bulk.h"

#define PAGE_BODY_MAX (1 << 20)
#define PAGES_MAX     4 /* being deleted while the next is listed */

struct many { /* x->state */
    uint64_t deleted;
    unsigned deleting;
    bool listing;
    bool more;
    enum api_code code; /* what went wrong */
    char why[200];
};

static void go_on(struct exchange *x);

static void fail(struct many *m, enum api_code code, const char *why)
{
    if (m->code != API_OK)
        return;
    m->code = code;
    (void)snprintf(m->why, sizeof(m->why), "%s", why); /* may be cut */
}

static void end(struct exchange *x)
{
    struct many *m = x->state;
    struct buf out = BUF_INIT(256);
    char text[260];
    enum api_code code = m->code;
    (void)snprintf(text, sizeof(text), "%llu were deleted before: %s", (unsigned long long)m->deleted,
                   m->why); /* may be cut */
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
    m->deleting--;
    m->deleted += b->ok;
    if (b->failed > b->absent) /* those that are absent went meanwhile */
        fail(m, API_NO_OWNER, "some jobs could not be deleted now");
    go_on(x);
}

static void delete_page(struct exchange *x, const struct store_page *page)
{
    struct many *m = x->state;
    struct buf body = BUF_INIT(PAGE_BODY_MAX);
    struct err e = {0};
    for (size_t i = 0; i < page->jobs_count; i++)
        buf_addf(&body, "{\"op\":\"delete\",\"namespace\":\"%s\",\"id\":\"%s\"}\n", page->jobs[i].row.ns,
                 page->jobs[i].row.id);
    m->deleting++;
    if (bulk_run(x->api, &x->ctx, &body, on_deleted, x, &e) == 0)
        return;
    m->deleting--;
    fail(m, API_OVERLOADED, e.text);
}

static void on_page(void *arg, const struct err *e, struct store_page *page)
{
    struct exchange *x = arg;
    struct many *m = x->state;
    m->listing = false;
    if (e->code != ERR_OK) {
        fail(m, API_STORE_UNAVAILABLE, e->text);
    } else {
        m->more = page->more;
        memcpy(x->req.after_ns, page->next_ns, sizeof(x->req.after_ns));
        memcpy(x->req.after_id, page->next_id, sizeof(x->req.after_id));
        x->req.has_cursor = page->more;
        delete_page(x, page);
    }
    go_on(x);
}

static void list_page(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    ((struct many *)x->state)->listing = true;
    api_filter_set(&x->req, &x->filter);
    x->filter.filter.limit = API_LIMIT_MAX;
    store->list_jobs(self, &x->filter.filter, on_page, x);
}

static void go_on(struct exchange *x)
{
    struct many *m = x->state;
    if (x->api->stopping && m->more)
        fail(m, API_OVERLOADED, "the agent is stopping");
    bool list = m->more && m->code == API_OK;
    if (list && !m->listing && m->deleting < PAGES_MAX)
        list_page(x);
    if (!list && !m->listing && m->deleting == 0)
        end(x);
}

void api_job_delete_many(struct exchange *x)
{
    struct many *m = mem_new(struct many);
    m->more = true;
    x->state = m;
    go_on(x);
}
