/* GET /v1/jobs/{id}/revisions: who changed what, newest first; also of a job that was deleted. */
#include <string.h>

#include "agent/api/api_private.h"

/* What is asked of the store; x->state. */
struct revisions {
    struct store_revisions which;
};

static void print_revision(struct buf *out, const struct revision *r)
{
    char uid[33], fire[56];
    uid_print(&r->uid, uid);
    fire_id_print(&r->uid, r->seq, fire);
    buf_addf(out, "{\"version\":%llu", (unsigned long long)r->version);
    api_print_instant(out, "at", r->at_ms);
    api_print_text(out, "actor", r->actor);
    api_print_text(out, "op", r->op);
    api_print_text(out, "state", job_state_name(r->state));
    api_print_text(out, "uid", uid);
    api_print_text(out, "fire", r->seq ? fire : NULL);
    buf_add_char(out, '}');
}

static void on_revisions(void *arg, const struct err *e, struct store_revision *rows, size_t count, bool more)
{
    struct exchange *x = arg;
    char cursor[API_REVISION_CURSOR_SIZE];
    mem_free(x->state);
    x->state = NULL;
    if (e->code != ERR_OK) {
        exchange_refuse_store(x, e);
        return;
    }
    if (count == 0 && !x->req.has_cursor) {
        exchange_refuse_with(x, API_NOT_FOUND, "no such job was made or changed in the last 90 days");
        return;
    }
    struct buf out = BUF_INIT(1 << 20);
    buf_add_str(&out, "{\"revisions\":[");
    for (size_t i = 0; i < count; i++) {
        buf_add_str(&out, i ? "," : "");
        print_revision(&out, &rows[i].row);
    }
    buf_add_char(&out, ']');
    if (more)
        api_revision_cursor_print(rows[count - 1].row.at_ms, rows[count - 1].row.change_id, cursor);
    api_print_text(&out, "next_cursor", more ? cursor : NULL);
    buf_add_char(&out, '}');
    exchange_json(x, 200, &out);
}

void api_job_revisions(struct exchange *x)
{
    void *self;
    const struct store_ops *store = node_store(x->api->node, &self);
    struct revisions *r = mem_new(struct revisions);
    x->state = r;
    r->which = (struct store_revisions){.ns = x->req.ns, .id = x->req.arg, .limit = x->req.limit};
    r->which.before.set = x->req.has_cursor;
    r->which.before.at_ms = x->req.before_ms;
    r->which.before.change_id = x->req.before_change;
    store->list_revisions(self, &r->which, on_revisions, x);
}
