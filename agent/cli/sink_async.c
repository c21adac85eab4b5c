#include "agent/cli/sink_async.h"

#include <string.h>

#include "agent/base/json.h"
#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/cli/client.h"
#include "agent/cli/show.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"

enum {
    TASKS_MAX = 10000,
    CONNECTIONS = 8,
    TRIES_MAX = 60,
    TIMEOUT_MS = 10000,
    REPLY_MAX = 65536,
    URL_MAX = 8192,
};

struct task {
    struct list link; /* waiting, in the order of their times, or telling */
    struct sink_async *a;
    int64_t at_ms;       /* loop time */
    unsigned tries;      /* of what is told next */
    uint64_t heartbeats; /* to come before the completion */
    bool ok;
    char *complete, *fire;
};

struct sink_async {
    const struct cli *cli;
    struct loop *loop;
    struct http_client *http;
    struct http_tls tls;
    char *base, *unix_socket;
    uint64_t after_ms, heartbeats;
    int64_t again_ms;
    bool json, ending;
    struct loop_timer *timer;
    struct list waiting, telling;
    size_t count;
};

static void task_free(struct task *t)
{
    list_remove(&t->link);
    t->a->count--;
    mem_free(t->complete);
    mem_free(t->fire);
    mem_free(t);
}

/* The sink goes on, but not as if all had been shown. */
static void not_shown(const struct task *t, const struct err *e)
{
    show_set_lost();
    (void)cli_fail(t->a->cli, CLI_FAILED, "what became of a fire cannot be shown: %s",
                   e->text); /* said at the end too */
}

/* STATUS 0: nobody answered. GOES_ON: of a heartbeat, whether the agent waits for more. */
static void print(const struct task *t, int status, bool goes_on)
{
    FILE *out = t->a->cli->out;
    bool heartbeat = t->heartbeats > 0;
    const char *what = heartbeat ? "heartbeat" : "completed", *key = heartbeat ? "continue" : "status";
    const char *said = heartbeat ? goes_on ? "true" : "false" : t->ok ? "ok" : "failed";
    char answer[16] = "none";
    if (status)
        (void)snprintf(answer, sizeof(answer), "%d", status); /* fits */
    if (t->a->json) {
        AUTO(json_decref) json_t *line = json_object();
        struct err e;
        int r = json_set(line, what, show_text_json(t->fire, strlen(t->fire)), &e);
        if (r == 0)
            r = json_set(line, key, heartbeat ? json_boolean(goes_on) : json_string(said), &e);
        if (r == 0)
            r = json_set(line, "answer", status ? json_integer(status) : json_null(), &e);
        if (r == 0)
            r = show_line(out, line, &e);
        if (r < 0)
            not_shown(t, &e);
    } else {
        (void)fprintf(out, "%s fire=%s %s=%s answer=%s\n", what, LOGQ(t->fire), key, said, answer);
    }
    (void)fflush(out); /* cli_run() looks for errors at the end */
}

static void wait_until(struct task *t, int64_t at_ms)
{
    struct sink_async *a = t->a;
    struct list *after = a->waiting.prev;
    t->at_ms = at_ms;
    while (after != &a->waiting && container_of(after, struct task, link)->at_ms > at_ms)
        after = after->prev;
    list_insert_after(after, &t->link);
    loop_timer_arm(a->timer,
                   container_of(list_first(&a->waiting), struct task, link)->at_ms - loop_now_ms(a->loop));
}

/* {"continue":true}: 1; any other answer: 0. ERR_NOMEM: it cannot be told. */
static int goes_on(const struct http_reply *reply)
{
    AUTO(json_decref) json_t *doc = NULL;
    if (!reply || reply->status != 200)
        return 0;
    int r = json_read(reply->body, reply->body_bytes, REPLY_MAX, &doc, NULL);
    return r == -ERR_NOMEM ? r : r == 0 && json_is_true(json_object_get(doc, "continue"));
}

/* A fire that its agent does not wait for any more (completed, cancelled, sent again) is not worked on any longer. */
static void told(struct task *t, int status, bool more)
{
    bool heartbeat = t->heartbeats > 0;
    print(t, status, more);
    if (!heartbeat || !more) {
        task_free(t);
        return;
    }
    t->heartbeats--;
    t->tries = 0;
    list_remove(&t->link);
    wait_until(t, loop_now_ms(t->a->loop) + (int64_t)t->a->after_ms);
}

static void on_told(void *arg, const struct err *e, const struct http_reply *reply)
{
    struct task *t = arg;
    int status = e->code == ERR_OK ? reply->status : 0, more = goes_on(reply);
    if (t->a->ending) {
        task_free(t);
    } else if ((status == 0 || status == 503 || more < 0) && ++t->tries < TRIES_MAX) {
        list_remove(&t->link);
        wait_until(t, loop_now_ms(t->a->loop) + t->a->again_ms);
    } else {
        told(t, status, more > 0);
    }
}

/* The key serves both: …/complete?key=… and …/heartbeat?key=… */
static void add_url(const struct task *t, struct buf *url)
{
    static const char complete[] = "/complete?";
    const char *action = t->heartbeats > 0 ? strstr(t->complete, complete) : NULL;
    if (t->complete[0] == '/')
        buf_add_str(url, t->a->base);
    if (action) {
        buf_add(url, t->complete, (size_t)(action - t->complete));
        buf_addf(url, "/heartbeat?%s", action + strlen(complete));
    } else {
        buf_add_str(url, t->complete);
    }
}

static void tell(struct task *t)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    struct sink_async *a = t->a;
    const char *body = t->heartbeats > 0 ? ""
                       : t->ok           ? "{\"status\":\"ok\"}"
                                         : "{\"status\":\"failed\",\"detail\":\"told to fail\"}";
    AUTO(buf_fini) struct buf url = BUF_INIT(URL_MAX);
    add_url(t, &url);
    struct http_call_options o = {.method = "POST",
                                  .url =
                                      buf_failed(&url) ? "" : buf_str(&url), /* fails, and is tried again */
                                  .unix_socket = t->complete[0] == '/' ? a->unix_socket : NULL,
                                  .headers = headers,
                                  .body = body,
                                  .body_bytes = strlen(body),
                                  .tls = &a->tls,
                                  .timeout_ms = TIMEOUT_MS,
                                  .connect_timeout_ms = TIMEOUT_MS,
                                  .reply_bytes_max = REPLY_MAX};
    list_push_back(&a->telling, &t->link);
    (void)http_send(a->http, &o, on_told, t); /* is never cancelled by hand */
}

static void on_due(void *arg)
{
    struct sink_async *a = arg;
    while (!list_empty(&a->waiting)) {
        struct task *t = container_of(list_first(&a->waiting), struct task, link);
        int64_t left_ms = t->at_ms - loop_now_ms(a->loop);
        if (left_ms > 0) {
            loop_timer_arm(a->timer, left_ms);
            return;
        }
        list_remove(&t->link);
        tell(t);
    }
}

int sink_async_new(const struct cli *cli, const struct cli_args *args, struct loop *loop,
                   const struct sink_async_options *o, struct sink_async **ret, struct err *e)
{
    struct sink_async *a = mem_new(struct sink_async);
    const char *address = args_get(args, "--addr");
    a->cli = cli;
    a->loop = loop;
    a->after_ms = o->after_ms;
    a->heartbeats = o->heartbeats;
    a->again_ms = o->again_ms;
    a->json = args_has(args, "--json");
    a->tls = (struct http_tls){.ca_file = cli_env(cli, "CARILLON_CACERT"),
                               .cert_file = cli_env(cli, "CARILLON_CLIENT_CERT"),
                               .key_file = cli_env(cli, "CARILLON_CLIENT_KEY")};
    list_init(&a->waiting);
    list_init(&a->telling);
    a->timer = loop_timer_new(loop, on_due, a);
    int r =
        client_read_address(address ? address : cli_env(cli, "CARILLON_ADDR"), &a->base, &a->unix_socket, e);
    if (r == 0)
        r = http_client_new(loop, CONNECTIONS, &a->http, e);
    if (r < 0)
        sink_async_free(a);
    else
        *ret = a;
    return r;
}

void sink_async_free(struct sink_async *a)
{
    if (!a)
        return;
    a->ending = true;
    if (a->http)
        http_client_free(a->http); /* ends what is being told */
    LIST_FOR_SAFE(link, &a->waiting)
    {
        task_free(container_of(link, struct task, link));
    }
    loop_timer_free(a->timer);
    mem_free(a->base);
    mem_free(a->unix_socket);
    mem_free(a);
}

bool sink_async_can(const struct sink_async *a, const char *complete)
{
    return a->count < TASKS_MAX && strlen(complete) < URL_MAX / 2 &&
           (complete[0] == '/' || strncmp(complete, "http://", 7) == 0 ||
            strncmp(complete, "https://", 8) == 0);
}

void sink_async_take(struct sink_async *a, const char *complete, const char *fire, bool ok)
{
    struct task *t = mem_new(struct task);
    t->a = a;
    t->ok = ok;
    t->heartbeats = a->heartbeats;
    t->complete = mem_strdup(complete);
    t->fire = mem_strdup(fire);
    a->count++;
    wait_until(t, loop_now_ms(a->loop) + (int64_t)a->after_ms);
}
