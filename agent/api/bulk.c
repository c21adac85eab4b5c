/* POST /v1/bulk: lines are read in chunks by a worker, sent to their owners, and answered in order. What is under way is
 * bounded by chunks; a client that reads slowly slows the reading of its lines. */
#include "agent/api/bulk.h"

#include <assert.h>
#include <string.h>

enum {
    BULKS_MAX = 4, /* of clients: each holds its body */
    PEER_BULKS_MAX = 256,
    STREAM_BYTES = 256 << 10,
    WRITE_BYTES = 64 << 10,
    BATCHES = 2,    /* worth of lines under way, beside those that the store writes */
    CHUNKS_MIN = 4, /* so that reading goes on while others are written */
    MANY_MAX = 4,   /* chunks, when they are large */
};

/* --- life ---------------------------------------------------------------------------------------------------------- */

static void bulk_free(struct bulk *b)
{
    struct api *api = b->api;
    assert(list_empty(&b->chunks) && list_empty(&b->again) && list_empty(&b->reread) && b->calls == 0);
    if (b->counted)
        atomic_fetch_sub(b->counted, 1);
    while (b->spare_count > 0)
        mem_free(b->spare[--b->spare_count]);
    map_fini(&b->last);
    buf_fini(&b->out);
    mem_free(b->body);
    tokens_unref(b->tokens);
    mem_free(b);
    api_unref(api);
}

static struct bulk *bulk_new(struct api *api, const struct api_context *ctx, const char *ns, uint64_t seed)
{
    struct bulk *b = mem_new(struct bulk);
    b->api = api;
    api_ref(api);
    rng_init(&b->rng, seed);
    b->ctx = *ctx;
    api_context_set_defaults(&b->ctx, &ctx->defaults);
    memcpy(b->ns, ns, strlen(ns) + 1);
    b->ids = api_ids_of(api, &b->rng);
    b->routes = ctx->hop != API_HOP_FINAL;
    b->from_peer = ctx->hop != API_HOP_NONE;
    b->rules = (struct bulk_rules){.ns = b->ns,
                                   .ctx = &b->ctx,
                                   .from_peer = b->from_peer,
                                   .internal = b->from_peer,
                                   .ids = &b->ids,
                                   .zones = node_zones(api->node)};
    list_init(&b->chunks);
    list_init(&b->again);
    list_init(&b->reread);
    list_init(&b->ready);
    list_init(&b->wait.link);
    map_init(&b->last, seed);
    buf_init(&b->out, MEM_TRY_MAX_BYTES / 2);
    atomic_init(&b->room_posted, false);
    return b;
}

static void chunk_free(struct bulk_chunk *c)
{
    struct bulk *b = c->bulk;
    for (size_t i = 0; i < c->count; i++)
        bulk_line_fini(&c->items[i].line);
    if (b->spare_count < b->chunks_max)
        b->spare[b->spare_count++] = c->items;
    else
        mem_free(c->items);
    mem_free(c);
}

/* Memory that was just used needs no page faults, of which a line costs more than one otherwise. NULL: there is no memory. */
static struct bulk_item *take_items(struct bulk *b)
{
    if (b->spare_count > 0)
        return b->spare[--b->spare_count];
    return mem_try_alloc(b->chunk_lines * sizeof(struct bulk_item), NULL);
}

/* --- reading: on the worker ---------------------------------------------------------------------------------------- */

static bool is_blank(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (text[i] != ' ' && text[i] != '\t')
            return false;
    return true;
}

static void set_key(struct bulk_item *item)
{
    const struct planner_api *p = &item->line.write.papi;
    size_t ns = strlen(p->ns);
    memcpy(item->key, p->ns, ns);
    item->key[ns] = '/';
    memcpy(item->key + ns + 1, p->id, strlen(p->id) + 1);
}

static void chunk_run(struct work *w, void *context)
{
    struct bulk_chunk *c = container_of(w, struct bulk_chunk, work);
    struct bulk *b = c->bulk;
    const char *text;
    size_t len;
    (void)context;
    while (c->count < b->chunk_lines && bulk_next_line(b->body, b->body_bytes, &b->body_at, &text, &len)) {
        b->lines++;
        if (is_blank(text, len))
            continue;
        struct bulk_item *item = &c->items[c->count++];
        memset(item, 0, sizeof(*item));
        item->chunk = c;
        item->line.number = b->lines;
        list_init(&item->link);
        bulk_line_read(&item->line, &b->rules, text, len, !b->routes);
        set_key(item);
    }
}

/* Lines of one job are answered in their order, so a second one waits for the first. */
static bool must_wait(struct bulk *b, struct bulk_item *item)
{
    size_t len = strlen(item->key);
    void *before = NULL;
    if (map_put(&b->last, item->key, len, item, &before, NULL) < 0) {
        bulk_line_fail(&item->line, API_OVERLOADED, "no memory");
        return false;
    }
    if (before)
        ((struct bulk_item *)before)->next = item;
    return before != NULL;
}

static void chunk_send(struct bulk_chunk *c)
{
    struct bulk *b = c->bulk;
    struct list now;
    list_init(&now);
    c->open = c->count;
    for (size_t i = 0; i < c->count; i++) {
        struct bulk_item *item = &c->items[i];
        if (item->line.result.status == 0 && must_wait(b, item))
            continue;
        if (item->line.result.status == 0)
            list_push_back(&now, &item->link);
        else
            c->open--;
    }
    bulk_send(b, &now);
}

static void chunk_done(struct work *w, bool cancelled)
{
    struct bulk_chunk *c = container_of(w, struct bulk_chunk, work);
    struct bulk *b = c->bulk;
    b->reading = false;
    c->is_read = true;
    b->cut_short |= cancelled && b->body_at < b->body_bytes;
    b->read_all = cancelled || b->body_at >= b->body_bytes;
    chunk_send(c);
    bulk_go_on(b);
}

static void submit_chunk(struct bulk *b)
{
    struct bulk_chunk *c = mem_new(struct bulk_chunk);
    c->bulk = b;
    c->items = take_items(b);
    if (!c->items) { /* what is under way ends, then the rest is tried; nothing under way: the bulk ends short */
        mem_free(c);
        b->read_all = b->cut_short = list_empty(&b->chunks);
        return;
    }
    list_push_back(&b->chunks, &c->link);
    c->work.run = chunk_run;
    c->work.done = chunk_done;
    b->reading = true;
    worker_submit(b->api->pool, &c->work);
}

/* --- answers ------------------------------------------------------------------------------------------------------- */

void bulk_item_answered(struct bulk_item *item)
{
    struct bulk *b = item->chunk->bulk;
    struct bulk_item *next = item->next;
    size_t len = strlen(item->key);
    assert(item->line.result.status != 0 && item->chunk->open > 0);
    item->chunk->open--;
    item->next = NULL;
    if (map_get(&b->last, item->key, len) == item)
        (void)map_remove(&b->last, item->key, len); /* is the item itself */
    if (next)
        list_push_back(&b->ready, &next->link);
}

static void count_result(struct bulk *b, const struct bulk_line *line)
{
    bool ok = line->result.status < 300;
    b->ok += ok;
    b->failed += !ok;
    b->absent += line->result.status == 404;
    b->letters += ok && line->of_letters ? line->result.version : 0;
}

static void print_chunk(struct bulk *b, struct bulk_chunk *c)
{
    for (size_t i = 0; i < c->count; i++) {
        count_result(b, &c->items[i].line);
        if (b->stream && !b->gone)
            bulk_line_print_result(&c->items[i].line, &b->out);
    }
}

/* Hand OUT over; false: the client must read first. */
static bool flush(struct bulk *b)
{
    while (b->stream && !b->gone && b->out.len > 0) {
        size_t len = b->out.len < WRITE_BYTES ? b->out.len : WRITE_BYTES;
        int rc = httpd_stream_write(b->stream, b->out.data, len);
        if (rc == -ERR_BUSY)
            return false;
        b->gone = rc < 0;
        buf_consume(&b->out, len);
    }
    return true;
}

static void on_room(struct loop_msg *msg)
{
    struct bulk *b = container_of(msg, struct bulk, room);
    atomic_store(&b->room_posted, false);
    bulk_go_on(b);
}

static void room(void *arg)
{
    struct bulk *b = arg;
    if (!atomic_exchange(&b->room_posted, true))
        loop_post(b->api->loop, &b->room);
}

static bool all_done(const struct bulk *b)
{
    return (b->read_all || b->gone) && !b->reading && !b->rereading && list_empty(&b->chunks) &&
           b->calls == 0;
}

static void finish(struct bulk *b)
{
    if (b->stream) {
        httpd_stream_end(b->stream);
        b->stream = NULL;
    } else if (b->done) {
        b->done(b->done_arg, b);
    }
    b->done = NULL;
    if (!atomic_load(&b->room_posted)) /* else the message that is under way frees it */
        bulk_free(b);
}

/* The last line, once. Without it the client knows that not all lines were answered. */
static void print_end(struct bulk *b)
{
    if (b->stream && !b->cut_short && b->lines != UINT64_MAX)
        buf_addf(&b->out, "{\"done\":true,\"ok\":%llu,\"failed\":%llu}\n", (unsigned long long)b->ok,
                 (unsigned long long)b->failed);
    b->lines = UINT64_MAX;
}

/* Answers can make further lines fail at once, whose followers are ready then. */
static void send_ready(struct bulk *b)
{
    while (!list_empty(&b->ready)) {
        struct list now;
        list_init(&now);
        list_splice_back(&now, &b->ready);
        bulk_send(b, &now);
    }
}

void bulk_go_on(struct bulk *b)
{
    send_ready(b);
    b->cut_short |= b->api->stopping && !b->read_all && !b->reading;
    b->read_all |= b->api->stopping; /* there may be no worker any more */
    bool room_left = flush(b);
    while (room_left && !list_empty(&b->chunks)) {
        struct bulk_chunk *c = container_of(b->chunks.next, struct bulk_chunk, link);
        if (!c->is_read || c->open > 0)
            break;
        list_remove(&c->link);
        print_chunk(b, c);
        chunk_free(c);
        room_left = flush(b);
    }
    if (!b->reading && !b->read_all && !b->gone && list_length(&b->chunks) < b->chunks_max)
        submit_chunk(b);
    if (!room_left || !all_done(b))
        return;
    if (!b->from_peer)
        print_end(b);
    if (flush(b))
        finish(b);
}

/* --- beginning ----------------------------------------------------------------------------------------------------- */

/* As much is under way as keeps the store busy: what it takes at a time, one batch that waits, one that is read. */
static void set_sizes(struct bulk *b)
{
    const struct node *n = b->api->node;
    const char *id, *address;
    void *self;
    const struct store_ops *store = node_store(n, &self);
    size_t at = 0, batches = BATCHES + (store ? store->commits_max : 1);
    size_t lines = batches * (size_t)node_config(n)->store.batch_rows;
    bool others = b->routes && (node_is_client(n) || node_next_peer(n, &at, &id, &address));
    b->chunk_lines = others ? BULK_CHUNK_LINES : BULK_CHUNK_FEW;
    b->chunks_max = MANY_MAX;
    if (!others)
        b->chunks_max = lines < CHUNKS_MIN * BULK_CHUNK_FEW        ? CHUNKS_MIN
                        : lines > BULK_CHUNKS_MAX * BULK_CHUNK_FEW ? BULK_CHUNKS_MAX
                                                                   : lines / BULK_CHUNK_FEW;
}

static void begin(struct loop_msg *msg)
{
    struct bulk *b = container_of(msg, struct bulk, msg);
    set_sizes(b);
    bulk_go_on(b);
}

static void start(struct bulk *b, char *body, size_t bytes)
{
    b->body = body;
    b->body_bytes = bytes;
    b->read_all = bytes == 0;
    b->room.run = on_room;
    b->msg.run = begin;
}

void api_bulk(struct exchange *x)
{
    struct api *api = x->api;
    struct err e = {0};
    size_t bytes;
    const char *text = httpd_body(x->rq, &bytes);
    bool of_client = x->ctx.hop == API_HOP_NONE;
    atomic_uint *count = of_client ? &api->client_bulks : &api->peer_bulks;
    if (atomic_fetch_add(count, 1) >= (of_client ? BULKS_MAX : PEER_BULKS_MAX)) {
        atomic_fetch_sub(count, 1);
        exchange_refuse_with(x, API_OVERLOADED, "too many bulk requests are under way");
        return;
    }
    char *body = mem_try_strndup(text, bytes, &e);
    if (!body) {
        atomic_fetch_sub(count, 1);
        exchange_refuse_with(x, API_OVERLOADED, e.text);
        return;
    }
    struct bulk *b = bulk_new(api, &x->ctx, x->req.ns, rng_u64(&x->face->rng));
    b->counted = count;
    b->tokens = tokens_ref(x->caller.tokens);
    b->rules.who = x->caller.who;
    start(b, body, bytes);
    b->stream = exchange_stream(x, "application/x-ndjson", NULL, 0, STREAM_BYTES);
    httpd_stream_on_room(b->stream, room, b);
    loop_post(api->loop, &b->msg);
}

int bulk_run(struct api *api, const struct api_context *ctx, struct buf *body,
             void (*done)(void *arg, const struct bulk *b), void *arg, struct err *e)
{
    size_t bytes;
    char *text = buf_steal(body, &bytes, e);
    buf_fini(body);
    if (!text)
        return -ERR_NOMEM;
    struct bulk *b = bulk_new(api, ctx, "default", rng_u64(&api->rng));
    b->done = done;
    b->done_arg = arg;
    b->from_peer = false;
    b->rules.from_peer = false;
    b->rules.internal = true;
    start(b, text, bytes);
    loop_defer(api->loop, &b->msg);
    return 0;
}
