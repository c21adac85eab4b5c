#include "consul/consul_watch.h"

#include <string.h>
#include <xxhash.h>

#include "agent/base/buf.h"
#include "agent/base/log.h"
#include "agent/base/rng.h"
#include "agent/io/loop.h"

#define WAIT_S 300
/* The server adds up to a sixteenth of the wait; a client time-out below that would end healthy queries. */
#define WAIT_TIMEOUT_MS  ((WAIT_S * 1000) * 17 / 16 + 15000)
#define FIRST_TIMEOUT_MS 10000
#define POLL_MS          2000
#define BACKOFF_MIN_MS   100
#define BACKOFF_MAX_MS   5000
/* Token bucket: changes in bursts are told at once, a query that returns again and again without pause (of an empty prefix Consul
 * wakes at every write to any other) is slowed to five a second. */
#define BURST     20
#define REFILL_MS 200

static const struct log_ctx log_here = {.module = "consul"};

struct consul_watch {
    struct consul_client *client;
    struct consul_call *call;
    struct loop_timer *timer;
    char *path;
    struct consul_watch_options options;
    consul_watch_changed *changed;
    void *arg;
    uint64_t index;
    XXH128_hash_t content;
    bool has_content;
    bool ok;
    bool blocking; /* the query under way */
    unsigned failures;
    int tokens;
    int64_t refilled_ms;
    struct rng rng;
    bool *freed; /* set while a callback of the owner runs */
};

static void query(void *arg);

uint64_t consul_watch_next_index(uint64_t before, uint64_t now)
{
    if (now < before)
        return 0;
    return now == 0 ? 1 : now;
}

static int64_t backoff_ms(struct consul_watch *w)
{
    int64_t delay = BACKOFF_MIN_MS;
    for (unsigned i = 1; i < w->failures && delay < BACKOFF_MAX_MS; i++)
        delay *= 2;
    if (delay > BACKOFF_MAX_MS)
        delay = BACKOFF_MAX_MS;
    return delay / 2 + (int64_t)rng_below(&w->rng, (uint64_t)delay);
}

static int64_t take_token(struct consul_watch *w)
{
    int64_t now = loop_now_ms(consul_client_loop(w->client));
    int64_t gained = (now - w->refilled_ms) / REFILL_MS;
    if (gained > 0) {
        w->tokens = gained > BURST - w->tokens ? BURST : w->tokens + (int)gained;
        w->refilled_ms += gained * REFILL_MS;
    }
    if (w->tokens > 0) {
        w->tokens--;
        return 0;
    }
    return REFILL_MS;
}

/* Returns false when the owner freed the watch in its callback. */
static bool tell(struct consul_watch *w, const char *body, size_t bytes)
{
    XXH128_hash_t content = XXH3_128bits(body, bytes);
    if (w->has_content && XXH128_isEqual(content, w->content))
        return true;
    bool freed = false;
    w->content = content;
    w->has_content = true;
    w->freed = &freed; /* cppcheck-suppress autoVariables ; taken back below */
    w->changed(w->arg, body, bytes);
    if (freed)
        return false;
    w->freed = NULL;
    return true;
}

/* A proxy's page is no answer of Consul's, and neither is nothing: an empty body would read as an empty list. */
static bool is_answer(const struct err *e, const struct consul_reply *reply)
{
    return e->code == ERR_OK && reply->has_index && reply->body_bytes > 0;
}

static bool is_empty(const struct consul_watch *w, const struct err *e, const struct consul_reply *reply)
{
    return e->code == ERR_NOT_FOUND && w->options.empty_is_404 && reply->has_index && reply->index > 0;
}

static void on_reply(void *arg, const struct err *e, const struct consul_reply *reply)
{
    struct consul_watch *w = arg;
    w->call = NULL;
    if (e->code == ERR_CANCELLED)
        return;
    bool empty = is_empty(w, e, reply);
    bool timeout =
        e->code == ERR_TIMEOUT && w->blocking; /* silent for longer than the server's wait: ask again */
    w->ok = is_answer(e, reply) || empty || timeout;
    if (!w->ok) {
        if (e->code == ERR_AUTH)
            log_warn(&log_here, "not allowed to read, what was known stays", "path=%s error=%s",
                     LOGQ(w->path), LOGQ(e->text));
        w->failures++;
        w->index = 0; /* a restarted Consul counts anew */
        loop_timer_arm(w->timer, backoff_ms(w));
        return;
    }
    w->failures = 0;
    if (!timeout) {
        w->index = consul_watch_next_index(w->index, reply->index);
        if (!tell(w, empty ? "" : reply->body, empty ? 0 : reply->body_bytes))
            return;
    }
    loop_timer_arm(w->timer, w->options.poll ? POLL_MS : take_token(w));
}

static void query(void *arg)
{
    struct consul_watch *w = arg;
    AUTO(buf_fini)
    struct buf path = BUF_INIT_OR_DIE(4096); /* a longer one is cut, and refused by the client or by Consul */
    const char *mark = strchr(w->path, '?') ? "&" : "?";
    if (w->call)
        return;
    w->blocking = w->index > 0 && !w->options.poll;
    buf_add_str(&path, w->path);
    if (w->has_content)
        buf_addf(&path, "%sstale", mark);
    if (w->blocking)
        buf_addf(&path, "%sindex=%llu&wait=%ds", w->has_content ? "&" : mark, (unsigned long long)w->index,
                 WAIT_S);
    struct consul_request request = {.method = "GET",
                                     .path = buf_str(&path),
                                     .timeout_ms = w->blocking ? WAIT_TIMEOUT_MS : FIRST_TIMEOUT_MS,
                                     .reply_max = w->options.reply_max};
    w->call = consul_send(w->client, &request, on_reply, w);
}

struct consul_watch *consul_watch_new(struct consul_client *c, const struct consul_watch_options *options,
                                      consul_watch_changed *changed, void *arg)
{
    struct consul_watch *w = mem_new(struct consul_watch);
    w->client = c;
    w->options = *options;
    w->path = mem_strdup(options->path);
    w->changed = changed;
    w->arg = arg;
    w->tokens = BURST;
    w->refilled_ms = loop_now_ms(consul_client_loop(c));
    rng_init(&w->rng, options->seed);
    w->timer = loop_timer_new(consul_client_loop(c), query, w);
    loop_timer_arm(w->timer, 0);
    return w;
}

void consul_watch_free(struct consul_watch *w)
{
    if (!w)
        return;
    if (w->freed)
        *w->freed = true;
    consul_cancel(w->call);
    loop_timer_free(w->timer);
    mem_free(w->path);
    mem_free(w);
}

void consul_watch_hurry(struct consul_watch *w)
{
    if (!w->call)
        loop_timer_arm(w->timer, 0);
}

bool consul_watch_ok(const struct consul_watch *w)
{
    return w->ok;
}
