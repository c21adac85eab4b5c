/* A bulk's lines on their way: own ones into the planner, those of others by owner, many in one call. */
#include <assert.h>
#include <string.h>

#include "agent/api/bulk.h"
#include "agent/core/hashring.h"

enum {
    OWNERS_MAX = 64, /* collected at once; lines of more owners wait for the next round */
    REPLY_BYTES_MAX = 64 << 20,
    CALL_TIMEOUT_MS = 10000, /* a thousand writes may take a few batches */
};

/* Lines for one peer. */
struct bulk_call {
    struct api_call call;
    struct bulk *bulk;
    char address[STORE_ADDRESS_MAX];
    struct buf body;
    struct bulk_item *items[BULK_CHUNK_LINES];
    size_t count;
};

/* The calls of one round. */
struct round {
    struct bulk_call *calls[OWNERS_MAX];
    size_t count;
};

static void look_again(struct api_wait *w);

static void fail(struct bulk_item *item, enum api_code code, const char *detail)
{
    bulk_line_fail(&item->line, code, detail);
    bulk_item_answered(item);
}

static uint16_t slot_of(const struct bulk_item *item)
{
    const struct planner_api *p = &item->line.write.papi;
    return (uint16_t)hashring_slot(p->ns, p->id, node_slots(item->chunk->bulk->api->node));
}

/* --- not now ------------------------------------------------------------------------------------------------------- */

static void try_again(struct bulk_item *item)
{
    struct bulk *b = item->chunk->bulk;
    if (b->api->stopping) {
        fail(item, API_OVERLOADED, "the agent is stopping");
    } else if (loop_now_ms(b->api->loop) >= item->deadline_ms) {
        fail(item, API_NO_OWNER,
             item->maybe_done ? "the job's owner did not answer; the write may have happened"
                              : "nobody could be reached who owns the job");
    } else if (list_linked(&b->wait.link)) {
        list_push_back(&b->again, &item->link);
    } else {
        b->wait.run = look_again;
        if (api_wait_add(b->api, &b->wait))
            list_push_back(&b->again, &item->link);
        else
            fail(item, API_OVERLOADED, "too many requests wait for an owner");
    }
}

static void look_again(struct api_wait *w)
{
    struct bulk *b = container_of(w, struct bulk, wait);
    struct list now;
    list_init(&now);
    list_splice_back(&now, &b->again);
    bulk_send(b, &now);
    bulk_go_on(b);
}

/* --- own lines ----------------------------------------------------------------------------------------------------- */

static void take_answer(struct bulk_item *item)
{
    const struct planner_api *p = &item->line.write.papi;
    struct bulk_result *r = &item->line.result;
    r->version = item->line.of_letters ? p->letters_done : p->row.version;
    switch (p->answer) {
    case PLANNER_OK:
        r->status = 200;
        break;
    case PLANNER_CREATED:
        r->status = 201;
        break;
    case PLANNER_ACCEPTED:
        r->status = 202;
        break;
    case PLANNER_NOT_FOUND:
        bulk_line_fail(&item->line, API_NOT_FOUND, "there is no such job");
        break;
    case PLANNER_EXISTS:
        bulk_line_fail(&item->line, API_ALREADY_EXISTS, "the job exists");
        break;
    case PLANNER_FULL:
        bulk_line_fail(&item->line, API_QUOTA_EXCEEDED, item->line.write.papi.no_more);
        break;
    case PLANNER_MISMATCH:
        bulk_line_fail(&item->line, API_VERSION_MISMATCH, "the job is absent or has another version");
        break;
    case PLANNER_INVALID:
        bulk_line_refuse(&item->line, &item->line.write.problem);
        break;
    case PLANNER_UNAVAILABLE:
        bulk_line_fail(&item->line, API_STORE_UNAVAILABLE,
                       "the write could not be made durable; it may still happen");
        break;
    case PLANNER_SUPERSEDED: /* of fires, which no line names */
    case PLANNER_FINISHED:
    case PLANNER_NOT_OWNER:
        assert(false && "handled before");
        break;
    }
}

static void misdirected(struct bulk_item *item)
{
    struct node_owner owner;
    node_owner_of(item->chunk->bulk->api->node, slot_of(item), &owner);
    bulk_line_misdirected(&item->line, owner.known && !owner.self ? owner.member : "", owner.epoch);
    bulk_item_answered(item);
}

/* Letters of a job that is gone are sent by one definition at a time. */
static bool may_come_later(const struct bulk_item *item)
{
    const struct planner_api *p = &item->line.write.papi;
    return item->line.of_letters && p->answer == PLANNER_UNAVAILABLE && p->later &&
           loop_now_ms(item->chunk->bulk->api->loop) < item->deadline_ms;
}

static void on_planned(void *arg, struct planner_api *papi)
{
    struct bulk_item *item = arg;
    struct bulk *b = item->chunk->bulk;
    if (b->api->stopping) {
        fail(item, API_OVERLOADED, "the agent is stopping");
    } else if (may_come_later(item)) {
        try_again(item);
    } else if (papi->answer != PLANNER_NOT_OWNER) {
        take_answer(item);
        bulk_item_answered(item);
    } else if (b->routes) {
        try_again(item);
    } else {
        misdirected(item);
    }
    bulk_go_on(b);
}

/* --- lines that were read only as far as to know whose they are, and are ours now ------------------------------------ */

static void reread_run(struct work *w, void *context)
{
    struct bulk *b = container_of(w, struct bulk, reread_work);
    (void)context;
    LIST_FOR (link, &b->reread) {
        struct bulk_item *item = container_of(link, struct bulk_item, link);
        if (!item->line.is_read)
            bulk_line_read_rest(&item->line, &b->rules);
    }
}

static void reread_done(struct work *w, bool cancelled)
{
    struct bulk *b = container_of(w, struct bulk, reread_work);
    struct list now;
    list_init(&now);
    list_splice_back(&now, &b->reread);
    b->rereading = false;
    LIST_FOR_SAFE(link, &now)
    {
        struct bulk_item *item = container_of(link, struct bulk_item, link);
        if (!cancelled && item->line.result.status == 0)
            continue;
        list_remove(link);
        if (cancelled)
            bulk_line_fail(&item->line, API_OVERLOADED, "the agent is stopping");
        bulk_item_answered(item);
    }
    bulk_send(b, &now);
    bulk_go_on(b);
}

static void submit(struct bulk_item *item)
{
    struct bulk *b = item->chunk->bulk;
    if (item->line.is_read) {
        struct planner_api *p = &item->line.write.papi;
        p->repeated |= item->maybe_done;
        api_uid_set_slot(&p->uid, slot_of(item));
        node_submit(b->api->node, p, on_planned, item);
    } else if (b->rereading) { /* the worker walks the list: the rest a little later */
        try_again(item);
    } else {
        list_push_back(&b->reread, &item->link);
    }
}

/* --- others' lines ------------------------------------------------------------------------------------------------- */

static void call_free(struct bulk_call *c)
{
    buf_fini(&c->body);
    mem_free(c);
}

/* A reply of whole lines, one an item. */
static void take_reply(struct bulk_call *c, const struct http_reply *reply)
{
    size_t at = 0, len;
    const char *line;
    for (size_t i = 0; i < c->count; i++) {
        struct bulk_item *item = c->items[i];
        char owner[RECORD_MEMBER_MAX];
        uint64_t epoch = 0;
        bool known = bulk_next_line(reply->body, reply->body_bytes, &at, &line, &len) &&
                     bulk_line_take_result(&item->line, line, len, owner, &epoch);
        if (known && item->line.result.status != api_code_status(API_MISDIRECTED)) {
            bulk_item_answered(item);
            continue;
        }
        if (known && owner[0] && node_slots(c->bulk->api->node))
            node_owner_hint(c->bulk->api->node, slot_of(item), epoch, owner);
        item->maybe_done |= !known; /* the peer broke off */
        item->line.result.status = 0;
        try_again(item);
    }
}

static void on_reply(struct api_call *call, const struct err *e, const struct http_reply *reply)
{
    struct bulk_call *c = container_of(call, struct bulk_call, call);
    struct bulk *b = c->bulk;
    b->calls--;
    bool elsewhere = e->code == ERR_OK && reply->status == api_code_status(API_MISDIRECTED);
    if (e->code == ERR_OK && reply->status == 200) {
        take_reply(c, reply);
    } else if (e->code == ERR_OK && reply->status < 500 && !elsewhere) { /* another secret, another version */
        for (size_t i = 0; i < c->count; i++)
            fail(c->items[i], API_NO_OWNER, "the job's owner does not take requests from this agent");
    } else { /* also: the address is another agent's by now */
        bool maybe = e->code != ERR_OK && e->code != ERR_REFUSED && e->code != ERR_UNAVAILABLE;
        for (size_t i = 0; i < c->count; i++) {
            c->items[i]->maybe_done |= maybe;
            try_again(c->items[i]);
        }
    }
    call_free(c);
    bulk_go_on(b);
}

static void call_send(struct bulk_call *c)
{
    static const char *const headers[] = {"Content-Type: application/x-ndjson", NULL};
    struct bulk *b = c->bulk;
    struct api_context ctx = b->ctx;
    ctx.hop = node_is_client(b->api->node) ? API_HOP_ROUTE : API_HOP_FINAL;
    struct api_peer_request r = {.address = c->address,
                                 .method = "POST",
                                 .target = "/v1/bulk",
                                 .ctx = &ctx,
                                 .headers = headers,
                                 .body = buf_str(&c->body),
                                 .body_bytes = c->body.len,
                                 .timeout_ms = CALL_TIMEOUT_MS,
                                 .reply_bytes_max = REPLY_BYTES_MAX};
    c->call.done = on_reply;
    b->calls++;
    if (!buf_failed(&c->body) && api_call_peer(b->api, &c->call, &r))
        return;
    b->calls--;
    for (size_t i = 0; i < c->count; i++)
        fail(c->items[i], API_OVERLOADED, "too many requests are under way to other agents");
    call_free(c);
}

/* The call that collects lines for ADDRESS; NULL: too many owners in one round. */
static struct bulk_call *call_for(struct bulk *b, struct round *r, const char *address)
{
    for (size_t i = 0; i < r->count; i++)
        if (strcmp(r->calls[i]->address, address) == 0 && r->calls[i]->count < BULK_CHUNK_LINES)
            return r->calls[i];
    if (r->count == OWNERS_MAX || strlen(address) >= STORE_ADDRESS_MAX)
        return NULL;
    struct bulk_call *c = mem_new(struct bulk_call);
    c->bulk = b;
    memcpy(c->address, address, strlen(address) + 1);
    buf_init(&c->body, (size_t)256 << 20);
    list_init(&c->call.link);
    return r->calls[r->count++] = c;
}

static void collect(struct bulk_item *item, struct round *r, const char *address)
{
    struct bulk_call *c = call_for(item->chunk->bulk, r, address);
    if (!c) {
        try_again(item);
        return;
    }
    bulk_line_print_ids(&item->line, item->maybe_done, &c->body);
    buf_add(&c->body, item->line.text, item->line.len);
    buf_add_char(&c->body, '\n');
    c->items[c->count++] = item;
}

/* --- whose is it? -------------------------------------------------------------------------------------------------- */

static void send_one(struct bulk_item *item, struct round *r)
{
    struct bulk *b = item->chunk->bulk;
    const struct node *n = b->api->node;
    struct node_owner owner;
    if (item->deadline_ms == 0)
        item->deadline_ms = api_deadline_ms(b->api);
    if (b->api->stopping) {
        try_again(item);
    } else if (node_is_client(n)) {
        const char *address = node_any_member(n, (unsigned)(item->line.number / BULK_CHUNK_LINES));
        if (address)
            collect(item, r, address);
        else
            try_again(item);
    } else if (node_owns(n, slot_of(item))) {
        submit(item);
    } else if (!b->routes) {
        misdirected(item);
    } else {
        node_owner_of(n, slot_of(item), &owner);
        if (owner.known && strcmp(owner.member, node_member(n)) != 0 && owner.address[0])
            collect(item, r, owner.address);
        else
            try_again(item);
    }
}

void bulk_send(struct bulk *b, struct list *list)
{
    struct round r = {.count = 0};
    struct list *link;
    while ((link = list_pop_front(list)))
        send_one(container_of(link, struct bulk_item, link), &r);
    for (size_t i = 0; i < r.count; i++)
        call_send(r.calls[i]);
    if (list_empty(&b->reread) || b->rereading)
        return;
    b->rereading = true;
    b->reread_work.run = reread_run;
    b->reread_work.done = reread_done;
    worker_submit(b->api->pool, &b->reread_work);
}
