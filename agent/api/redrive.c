/* POST /v1/deadletters/redrive, DELETE /v1/deadletters: letters are listed page after page, oldest first, and changed by the
 * owners of their jobs as lines of a bulk, some of one job together. With a rate each gets its own time to be sent, which its row
 * keeps: whoever dies meanwhile, what was re-driven goes out, and what was not is still a dead letter. */
#include <stdlib.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/api/bulk.h"

#define PAGE_BODY_MAX (4 << 20)

struct letters { /* x->state */
    struct api_walk walk;
    struct api_fire_filter filter;
    uint64_t matched;
    bool redrives;
    int64_t begin_ms; /* when the first one is sent */
};

struct letter {
    const struct fire_row *row;
    int64_t at_ms;
    int64_t since_ms; /* of those that died by the same definition, when the first did */
};

static void on_changed(void *arg, const struct bulk *b)
{
    struct exchange *x = arg;
    struct api_walk *w = x->state;
    w->changing--;
    w->count += b->letters;
    if (b->cut_short)
        api_walk_fail(w, API_OVERLOADED, "the agent is stopping");
    if (b->failed > 0)
        api_walk_fail(w, API_NO_OWNER, "some letters could not be changed now");
    api_walk_go_on(x, w);
}

/* By job and definition, newest first: what goes to the owner in one line. */
static int compare_letters(const void *a, const void *b)
{
    const struct letter *l = a, *m = b;
    const struct fire_row *x = l->row, *y = m->row;
    int order = memcmp(x->uid.bytes, y->uid.bytes, sizeof(x->uid.bytes));
    if (order)
        return order;
    if (l->since_ms != m->since_ms)
        return l->since_ms < m->since_ms ? -1 : 1;
    if (x->version != y->version)
        return x->version < y->version ? -1 : 1;
    return (x->seq < y->seq) - (x->seq > y->seq);
}

static bool same_line(const struct letter *a, const struct letter *b)
{
    return memcmp(&a->row->uid, &b->row->uid, sizeof(a->row->uid)) == 0 && a->row->version == b->row->version;
}

/* Of a job that is gone, one definition's go at a time. If they die again while the others have not had their turn, a second request
 * begins with the others. */
static void sort(struct letter *letters, size_t count)
{
    qsort(letters, count, sizeof(*letters), compare_letters);
    for (size_t i = 0, n; i < count; i += n) {
        int64_t since_ms = letters[i].row->finished_ms;
        for (n = 1; i + n < count && same_line(&letters[i], &letters[i + n]); n++)
            if (letters[i + n].row->finished_ms < since_ms)
                since_ms = letters[i + n].row->finished_ms;
        for (size_t k = 0; k < n; k++)
            letters[i + k].since_ms = since_ms;
    }
    qsort(letters, count, sizeof(*letters), compare_letters);
}

static void print_lines(const struct letters *l, const struct letter *letters, size_t count, struct buf *body)
{
    struct bulk_letter line[PLANNER_LETTERS_MAX];
    for (size_t i = 0; i < count;) {
        size_t n = 0;
        const struct letter *first = &letters[i];
        for (; i < count && n < PLANNER_LETTERS_MAX && same_line(first, &letters[i]); i++)
            line[n++] = (struct bulk_letter){letters[i].row->seq, letters[i].at_ms};
        bulk_line_print_letters(body, l->redrives, first->row, line, n);
    }
}

static int64_t send_at_ms(const struct exchange *x, const struct letters *l, uint64_t n)
{
    return l->begin_ms + (x->req.rate ? (int64_t)(n * 1000 / x->req.rate) : 0);
}

static void change_page(struct exchange *x, const struct store_fire_page *page)
{
    struct letters *l = x->state;
    struct buf body = BUF_INIT(PAGE_BODY_MAX);
    struct err e = {0};
    struct letter *letters = mem_try_array(page->fires_count + 1, sizeof(*letters), &e);
    if (!letters) {
        api_walk_fail(&l->walk, API_OVERLOADED, e.text);
        return;
    }
    for (size_t i = 0; i < page->fires_count; i++)
        letters[i] = (struct letter){&page->fires[i], send_at_ms(x, l, l->matched++), 0};
    sort(letters, page->fires_count);
    print_lines(l, letters, page->fires_count, &body);
    mem_free(letters);
    api_walk_change(x, &l->walk, &body, on_changed);
}

static void on_page(void *arg, const struct err *e, struct store_fire_page *page)
{
    struct exchange *x = arg;
    struct letters *l = x->state;
    l->walk.listing = false;
    if (e->code != ERR_OK) {
        api_walk_fail(&l->walk, API_STORE_UNAVAILABLE, e->text);
    } else {
        l->walk.more = page->next.set;
        l->filter.filter.after = page->next;
        if (x->req.dry_run)
            l->walk.count += page->fires_count;
        else if (page->fires_count > 0)
            change_page(x, page);
    }
    api_walk_go_on(x, &l->walk);
}

static void list_page(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    struct letters *l = x->state;
    store->list_fires(self, &l->filter.filter, on_page, x);
}

static bool body_is_empty(struct exchange *x)
{
    size_t bytes;
    (void)httpd_body(x->rq, &bytes); /* its size is all that is asked */
    return bytes == 0;
}

void api_deadletters_change(struct exchange *x)
{
    if (!body_is_empty(x)) {
        exchange_refuse_with(x, API_INVALID_REQUEST,
                             "the filter stands in the query; the body must be empty");
        return;
    }
    struct letters *l = mem_new(struct letters);
    x->state = l;
    l->redrives = x->req.route->action == API_DEADLETTERS_REDRIVE;
    l->begin_ms = node_now_ms(x->api->node);
    l->walk.list = list_page;
    l->walk.what = x->req.dry_run ? "matched" : l->redrives ? "redriven" : "discarded";
    l->walk.more = true;
    api_fire_filter_set(&x->req, &l->filter);
    l->filter.filter.outcome = FIRE_OUTCOME_DEAD;
    l->filter.filter.oldest_first = true;
    l->filter.filter.limit = API_LIMIT_MAX;
    api_walk_go_on(x, &l->walk);
}
