/* What the other members tell, for those who listen to the whole cluster: one stream from each member that is alive, however many
 * listen here, and none while nobody does. A stream that ends, or from which nothing comes for longer than its comments take, is
 * begun again as long as its member is alive; what was told meanwhile is lost, and the listeners are told so. A client of the
 * cluster has one stream, of all members, from whichever member it reaches. */
#include <stdio.h>
#include <string.h>

#include "agent/api/api_private.h"
#include "agent/base/json.h"
#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/events.h"

enum {
    LOOK_MS = 1000,
    SILENCE_MS = 35000, /* a member says something at least every 10 s */
    EVENT_BYTES_MAX = 32768,
    REFUSAL_BYTES_MAX = 65536,
};

static const struct log_ctx log_here = {.module = "api"};

struct feed {
    struct list link; /* api.feeds */
    struct api *api;
    char member[RECORD_MEMBER_MAX]; /* "": any, of a client */
    char address[STORE_ADDRESS_MAX];
    struct api_call call;
    struct events_splitter split;
    int64_t heard_ms; /* loop time */
    unsigned tries;
    bool alive; /* at the last look */
    bool heard; /* it said hello, and the stream has not ended since */
};

/* --- what comes ---------------------------------------------------------------------------------------------------- */

/* Of "event: …\ndata: {…}\n\n"; "": of none. One that cannot be read is nobody's ("?"): only who hears all namespaces hears it. */
static void read_namespace(const char *text, size_t len, char ret[RECORD_NS_MAX])
{
    AUTO(json_decref) json_t *doc = NULL;
    const char *data = memmem(text, len, "\ndata: ", 7), *ns = NULL;
    ret[0] = '\0';
    if (!data || json_read(data + 7, len - (size_t)(data + 7 - text), EVENT_BYTES_MAX, &doc, NULL) < 0) {
        ret[0] = '?';
        ret[1] = '\0';
        return;
    }
    ns = json_string_value(json_object_get(doc, "namespace"));
    if (ns)
        (void)snprintf(ret, RECORD_NS_MAX, "%s", ns); /* a longer one is nobody's */
}

static void take_event(void *arg, const char *text, size_t len)
{
    struct feed *f = arg;
    char ns[RECORD_NS_MAX] = "";
    if (strncmp(text, "event: hello\n", 13) == 0)
        f->heard = true;
    else if (api_events_chosen(f->api))
        read_namespace(text, len, ns);
    api_events_pass(f->api, ns[0] ? ns : NULL, text, len);
}

static void on_piece(struct api_call *c, const char *data, size_t bytes)
{
    struct feed *f = container_of(c, struct feed, call);
    uint64_t lost = f->split.lost;
    f->heard_ms = loop_now_ms(f->api->loop);
    events_split(&f->split, data, bytes, take_event, f);
    if (f->split.lost > lost)
        api_events_lost(f->api, f->split.lost - lost);
}

/* --- beginning and end --------------------------------------------------------------------------------------------- */

static void tell_missing(struct feed *f, const char *why)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(4096);
    log_info(&log_here, "events of a member are missing", "member=%s why=%s", LOGQ(f->member), LOGQ(why));
    buf_add_str(&out, "event: cluster\ndata: {\"at\":");
    char at[TEXT_INSTANT_SIZE];
    text_instant_print(at, node_now_ms(f->api->node));
    buf_addf(&out, "\"%s\"", at);
    api_print_text(&out, "member", f->member);
    api_print_text(&out, "text", "events of this member are missing from now on until it is heard again");
    buf_add_str(&out, "}\n\n");
    if (!buf_failed(&out))
        api_events_pass(f->api, NULL, buf_str(&out), out.len);
}

static void ended(struct feed *f, const char *why)
{
    if (f->heard)
        tell_missing(f, why);
    f->heard = false;
    buf_reset(&f->split.text);
    f->split.in_line = false;
}

static void on_done(struct api_call *c, const struct err *e, const struct http_reply *reply)
{
    struct feed *f = container_of(c, struct feed, call);
    (void)reply;
    ended(f, e->code == ERR_OK ? "its stream ended" : e->text); /* begun again at the next look */
}

static void begin(struct feed *f)
{
    struct api *api = f->api;
    struct api_context ctx = {0};
    api_make_context(api, &api->rng, &ctx);
    ctx.hop = f->member[0] ? API_HOP_FINAL : API_HOP_ROUTE;
    (void)snprintf(ctx.request_id, sizeof(ctx.request_id), "%016llx",
                   (unsigned long long)rng_u64(&api->rng)); /* fits */
    struct api_peer_request r = {.address = f->address,
                                 .method = "GET",
                                 .target = f->member[0] ? "/v1/events?ns=*" : "/v1/events?ns=*&all=true",
                                 .ctx = &ctx,
                                 .reply_bytes_max = REFUSAL_BYTES_MAX};
    f->call.done = on_done;
    f->call.piece = on_piece;
    f->heard_ms = loop_now_ms(api->loop);
    f->tries++;
    (void)api_call_peer(api, &f->call, &r); /* one that could not be begun is tried at the next look */
}

static void feed_free(struct feed *f)
{
    api_call_cancel(&f->call);
    list_remove(&f->link);
    buf_fini(&f->split.text);
    mem_free(f);
}

/* --- looks --------------------------------------------------------------------------------------------------------- */

static struct feed *feed_of(struct api *api, const char *member)
{
    LIST_FOR_SAFE(link, &api->feeds)
    {
        struct feed *f = container_of(link, struct feed, link);
        if (strcmp(f->member, member) == 0)
            return f;
    }
    struct feed *f = mem_new(struct feed);
    f->api = api;
    (void)snprintf(f->member, sizeof(f->member), "%s", member); /* fits */
    f->split.text = BUF_INIT(EVENT_BYTES_MAX);
    list_init(&f->call.link);
    list_push_back(&api->feeds, &f->link);
    return f;
}

static void found(struct api *api, const char *member, const char *address)
{
    struct feed *f = feed_of(api, member);
    f->alive = true;
    if (!list_linked(&f->call.link))
        (void)snprintf(f->address, sizeof(f->address), "%s", address); /* fits */
}

static void find_members(struct api *api)
{
    const char *member, *address;
    if (node_is_client(api->node)) {
        struct feed *f = feed_of(api, "");
        address = node_any_member(api->node, f->tries);
        if (address)
            found(api, "", address);
        return;
    }
    for (size_t at = 0; node_next_peer(api->node, &at, &member, &address);)
        found(api, member, address);
}

static void keep_up(struct feed *f)
{
    if (!f->alive) {
        ended(f, "it is gone");
        feed_free(f);
    } else if (!list_linked(&f->call.link)) {
        begin(f);
    } else if (loop_now_ms(f->api->loop) - f->heard_ms > SILENCE_MS) {
        api_call_cancel(&f->call);
        ended(f, "nothing came from it");
        begin(f);
    }
}

void api_feeds_stop(struct api *api)
{
    LIST_FOR_SAFE(link, &api->feeds)
    {
        feed_free(container_of(link, struct feed, link));
    }
}

void api_feeds_look(void *arg)
{
    struct api *api = arg;
    if (api->cluster_listeners == 0) {
        api_feeds_stop(api);
        return;
    }
    LIST_FOR_SAFE(link, &api->feeds)
    {
        container_of(link, struct feed, link)->alive = false;
    }
    find_members(api);
    LIST_FOR_SAFE(link, &api->feeds)
    {
        keep_up(container_of(link, struct feed, link));
    }
    loop_timer_arm(api->feeds_timer, LOOK_MS);
}

const char *api_feeds_next(const struct api *api, size_t *at)
{
    size_t i = 0;
    for (const struct list *link = api->feeds.next; link != &api->feeds; link = link->next, i++) {
        const struct feed *f = container_of(link, struct feed, link);
        if (i < *at || !f->heard || !f->member[0])
            continue;
        *at = i + 1;
        return f->member;
    }
    return NULL;
}
