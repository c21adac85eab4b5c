/* Changing all that a filter matches: page after page is listed, and changed as a bulk would be while the next is listed. What goes
 * wrong ends it when all that is under way has ended; what was changed before is told with it. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/api/bulk.h"

#define PAGES_MAX 4 /* being changed while the next is listed */

void api_walk_fail(struct api_walk *w, enum api_code code, const char *why)
{
    if (w->code != API_OK)
        return;
    w->code = code;
    (void)snprintf(w->why, sizeof(w->why), "%s", why); /* may be cut */
}

void api_walk_change(struct exchange *x, struct api_walk *w, struct buf *body,
                     void (*done)(void *arg, const struct bulk *b))
{
    struct err e = {0};
    w->changing++;
    if (bulk_run(x->api, &x->ctx, body, done, x, &e) == 0)
        return;
    w->changing--;
    api_walk_fail(w, API_OVERLOADED, e.text);
}

static void end(struct exchange *x, struct api_walk *w)
{
    struct buf out = BUF_INIT(256);
    char text[260];
    enum api_code code = w->code;
    const char *what = w->what;
    unsigned long long count = w->count;
    (void)snprintf(text, sizeof(text), "%llu were %s before: %s", count, what, w->why); /* may be cut */
    mem_free(x->state);                                                                 /* W is in it */
    x->state = NULL;
    if (code != API_OK) {
        exchange_refuse_with(x, code, text);
        return;
    }
    buf_addf(&out, "{\"%s\":%llu}", what, count);
    exchange_json(x, 200, &out);
}

void api_walk_go_on(struct exchange *x, struct api_walk *w)
{
    if (x->api->stopping && w->more)
        api_walk_fail(w, API_OVERLOADED, "the agent is stopping");
    bool list = w->more && w->code == API_OK;
    if (list && !w->listing && w->changing < PAGES_MAX) {
        w->listing = true;
        w->list(x);
    }
    if (!list && !w->listing && w->changing == 0)
        end(x, w);
}
