#include "agent/cli/sink_async.h"

#include <string.h>

#include "agent/base/json.h"
#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/cli/client.h"
#include "agent/io/http.h"
#include "agent/io/loop.h"

enum {
    TASKS_MAX = 10000,
    CONNECTIONS = 8,
    TRIES_MAX = 60,
    AGAIN_MS = 1000,
    TIMEOUT_MS = 10000,
    REPLY_MAX = 65536,
    URL_MAX = 8192,
};

struct task {
    struct list link; /* waiting, in the order of their times, or telling */
    struct sink_async *a;
    int64_t at_ms; /* loop time */
    unsigned tries;
    bool ok;
    char *complete, *fire;
};

struct sink_async {
    const struct cli *cli;
    struct loop *loop;
    struct http_client *http;
    struct http_tls tls;
    char *base, *unix_socket;
    uint64_t after_ms;
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

/* STATUS 0: nobody answered. */
static void print(const struct task *t, int status)
{
    FILE *out = t->a->cli->out;
    const char *said = t->ok ? "ok" : "failed";
    if (t->a->json) {
        json_t *line = json_object();
        (void)json_set(line, "completed", json_string(t->fire), NULL); /* no text: left out */
        (void)json_set(line, "status", json_string(said), NULL);
        (void)json_set(line, "answer", status ? json_integer(status) : json_null(), NULL);
        (void)json_dumpf(line, out, JSON_COMPACT); /* cli_run() looks for errors at the end */
        (void)fputc('\n', out);
        json_decref(line);
    } else if (status) {
        (void)fprintf(out, "completed fire=%s status=%s answer=%d\n", LOGQ(t->fire), said, status);
    } else {
        (void)fprintf(out, "completed fire=%s status=%s answer=none\n", LOGQ(t->fire), said);
    }
    (void)fflush(out);
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

static void on_told(void *arg, const struct err *e, const struct http_reply *reply)
{
    struct task *t = arg;
    int status = e->code == ERR_OK ? reply->status : 0;
    if (t->a->ending) {
        task_free(t);
    } else if ((status == 0 || status == 503) && ++t->tries < TRIES_MAX) {
        list_remove(&t->link);
        wait_until(t, loop_now_ms(t->a->loop) + AGAIN_MS);
    } else {
        print(t, status);
        task_free(t);
    }
}

static void tell(struct task *t)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    struct sink_async *a = t->a;
    const char *body = t->ok ? "{\"status\":\"ok\"}" : "{\"status\":\"failed\",\"detail\":\"told to fail\"}";
    bool path = t->complete[0] == '/';
    AUTO(buf_fini) struct buf url = BUF_INIT(URL_MAX);
    buf_addf(&url, "%s%s", path ? a->base : "", t->complete);
    struct http_call_options o = {.method = "POST",
                                  .url = buf_str(&url),
                                  .unix_socket = path ? a->unix_socket : NULL,
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

int sink_async_new(const struct cli *cli, const struct cli_args *args, struct loop *loop, uint64_t after_ms,
                   struct sink_async **ret, struct err *e)
{
    struct sink_async *a = mem_new(struct sink_async);
    const char *address = args_get(args, "--addr");
    a->cli = cli;
    a->loop = loop;
    a->after_ms = after_ms;
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
    t->complete = mem_strdup(complete);
    t->fire = mem_strdup(fire);
    a->count++;
    wait_until(t, loop_now_ms(a->loop) + (int64_t)a->after_ms);
}
