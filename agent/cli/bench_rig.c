#include "agent/cli/bench_rig.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/http.h"
#include "agent/io/httpd.h"
#include "agent/io/loop.h"

enum {
    CALLEE_CONNECTIONS = 4096,
    CALLEE_IDLE_MS = 120000,
    CALLEE_HEADER_BYTES = 128 << 10,
    CALLEE_BODY_BYTES = 1 << 20,
    LOOK_MS = 5, /* how often it is looked at what arrived */
    REQUEST_MS = 30000,
    REPLY_MAX = 1 << 20,
    REQUEST_MAX = 1 << 20,
};

struct bench_rig {
    const struct client *client;
    struct loop *loop;
    struct http_client *http;
    struct http_tls tls;
    struct httpd *callee;
    struct loop_timer *look;
    bool interrupted;

    pthread_mutex_t lock; /* of what the server's thread writes */
    struct bench_arrival *arrivals, *sorted;
    size_t count, capacity;

    size_t wait_count; /* what bench_rig_wait() waits for */
    int64_t wait_until_us;
};

/* --- callee, on its server's thread -------------------------------------------------------------------------------- */

static int64_t on_accept(struct httpd_request *rq, void *arg)
{
    (void)rq;
    (void)arg;
    return CALLEE_BODY_BYTES;
}

/* With the lock. False: no memory. */
static bool make_room(struct bench_rig *rig)
{
    size_t capacity = rig->capacity ? rig->capacity * 2 : 4096;
    struct bench_arrival *more = mem_try_realloc(rig->arrivals, capacity, sizeof(*more), NULL);
    if (!more)
        return false;
    rig->arrivals = more;
    rig->capacity = capacity;
    return true;
}

static bool note(struct bench_rig *rig, const struct bench_arrival *a)
{
    pthread_mutex_lock(&rig->lock);
    bool room = rig->count < rig->capacity || make_room(rig);
    if (room)
        rig->arrivals[rig->count++] = *a;
    pthread_mutex_unlock(&rig->lock);
    return room;
}

static bool read_arrival(const struct httpd_request *rq, struct bench_arrival *ret)
{
    const char *due = httpd_header(rq, "ce-time"), *seq = httpd_header(rq, "carillon-seq");
    const char *job = strrchr(httpd_path(rq), '/');
    int64_t due_ms;
    if (!due || !seq || !job || text_instant_ms(due, strlen(due), &due_ms, NULL) < 0 ||
        text_u32(seq, strlen(seq), 1, UINT32_MAX, &ret->seq, NULL) < 0 ||
        text_u32(job + 1, strlen(job + 1), 0, UINT32_MAX, &ret->job, NULL) < 0)
        return false;
    ret->lateness_us = ret->at_us - due_ms * 1000;
    return true;
}

static void on_request(struct httpd_request *rq, void *arg)
{
    struct bench_arrival a = {.at_us = clock_wall_us()};
    int status = !read_arrival(rq, &a) ? 400 : note(arg, &a) ? 200 : 503;
    httpd_reply(rq, status, NULL, 0, NULL);
}

static void on_too_large(struct httpd_request *rq, void *arg)
{
    (void)arg;
    httpd_reply(rq, 413, NULL, 0, NULL);
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static void on_signal(void *arg, int signum)
{
    struct bench_rig *rig = arg;
    (void)signum;
    rig->interrupted = true;
    loop_stop(rig->loop);
}

static void on_look(void *arg)
{
    struct bench_rig *rig = arg;
    if (bench_rig_arrived(rig) >= rig->wait_count || clock_wall_us() >= rig->wait_until_us)
        loop_stop(rig->loop);
    else
        loop_timer_arm(rig->look, LOOK_MS);
}

static int start(struct bench_rig *rig, const char *listen, struct err *e)
{
    struct httpd_options o = {.listen = listen,
                              .socket_mode = 0660,
                              .connections_max = CALLEE_CONNECTIONS,
                              .idle_timeout_ms = CALLEE_IDLE_MS,
                              .header_bytes_max = CALLEE_HEADER_BYTES,
                              .accept = on_accept,
                              .handle = on_request,
                              .too_large = on_too_large,
                              .arg = rig};
    int r = loop_signal(rig->loop, SIGINT, on_signal, rig, e);
    if (r == 0)
        r = loop_signal(rig->loop, SIGTERM, on_signal, rig, e);
    if (r == 0)
        r = http_client_new(rig->loop, CALLEE_CONNECTIONS, &rig->http, e);
    return r < 0 ? r : httpd_start(&o, &rig->callee, e);
}

int bench_rig_new(const struct client *client, const char *listen, struct bench_rig **ret, struct err *e)
{
    AUTO(bench_rig_free) struct bench_rig *rig = mem_new(struct bench_rig);
    rig->client = client;
    pthread_mutex_init(&rig->lock, NULL);
    int r = loop_new(&rig->loop, e);
    if (r < 0)
        return r;
    rig->look = loop_timer_new(rig->loop, on_look, rig);
    r = start(rig, listen, e);
    if (r == 0)
        *ret = TAKE(rig);
    return r;
}

void bench_rig_free(struct bench_rig *rig)
{
    if (!rig)
        return;
    if (rig->callee)
        httpd_stop(rig->callee);
    if (rig->http)
        http_client_free(rig->http);
    if (rig->look)
        loop_timer_free(rig->look);
    if (rig->loop)
        loop_free(rig->loop);
    pthread_mutex_destroy(&rig->lock);
    mem_free(rig->arrivals);
    mem_free(rig->sorted);
    mem_free(rig);
}

const char *bench_rig_address(const struct bench_rig *rig)
{
    return httpd_address(rig->callee);
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

struct sending {
    struct bench_rig *rig;
    const struct bench_requests *requests;
    struct client_target target;
    const char *headers[4];
    struct buf token, ns;
    uint64_t *us;
    size_t next; /* the first that was not sent */
    size_t open;
    int failed;
    struct client_reply *refused;
    struct err *e;
};

struct lane { /* one request at a time */
    struct sending *s;
    size_t i;
    uint64_t since_us;
};

static void send_next(struct lane *lane);

static int refuse(struct sending *s, const struct http_reply *reply)
{
    s->refused->status = reply->status;
    buf_init(&s->refused->body, REPLY_MAX);
    buf_add(&s->refused->body, reply->body, reply->body_bytes);
    return err_set(s->e, ERR_INVALID, "status %d", reply->status);
}

static void on_answer(void *arg, const struct err *e, const struct http_reply *reply)
{
    struct lane *lane = arg;
    struct sending *s = lane->s;
    s->us[lane->i] = clock_boot_us() - lane->since_us;
    s->open--;
    if (s->failed == 0 && e->code != ERR_OK)
        s->failed = err_set(s->e, e->code == ERR_NOMEM ? ERR_NOMEM : ERR_UNAVAILABLE, "%s: %s",
                            s->target.base, e->text);
    else if (s->failed == 0 && reply->status != s->requests->status)
        s->failed = refuse(s, reply);
    if (!s->rig->interrupted && s->failed == 0 && s->next < s->requests->count)
        send_next(lane);
    else if (s->open == 0)
        loop_stop(s->rig->loop);
}

static void send_next(struct lane *lane)
{
    struct sending *s = lane->s;
    lane->i = s->next++;
    AUTO(buf_fini) struct buf path = BUF_INIT(REQUEST_MAX);
    AUTO(buf_fini) struct buf body = BUF_INIT(REQUEST_MAX);
    AUTO(buf_fini) struct buf url = BUF_INIT(REQUEST_MAX);
    s->requests->make(s->requests->arg, lane->i, &path, &body);
    buf_addf(&url, "%s%s", s->target.base, buf_str(&path));
    if (s->failed == 0 && (buf_failed(&path) || buf_failed(&body) || buf_failed(&url)))
        s->failed = err_set(s->e, ERR_TOO_BIG, "a request is too long, or there is no memory for it");
    struct http_call_options o = {.method = s->requests->method,
                                  .url = s->failed ? ""
                                                   : buf_str(&url), /* goes nowhere, and ends as others do */
                                  .unix_socket = s->target.unix_socket,
                                  .headers = s->headers,
                                  .body = body.len ? buf_str(&body) : NULL,
                                  .body_bytes = body.len,
                                  .tls = &s->rig->tls,
                                  .timeout_ms = REQUEST_MS,
                                  .connect_timeout_ms = REQUEST_MS,
                                  .reply_bytes_max = REPLY_MAX};
    s->open++;
    lane->since_us = clock_boot_us();
    (void)http_send(s->rig->http, &o, on_answer, lane); /* is never cancelled by hand */
}

/* All or none: without its namespace a request would mean another job. */
static int set_headers(struct sending *s)
{
    size_t n = 0;
    s->headers[n++] = "Content-Type: application/json";
    s->token = BUF_INIT(REQUEST_MAX);
    s->ns = BUF_INIT(REQUEST_MAX);
    buf_addf(&s->token, "Authorization: Bearer %s", s->target.token ? s->target.token : "");
    buf_addf(&s->ns, "Carillon-Namespace: %s", s->target.ns ? s->target.ns : "");
    if (s->target.token)
        s->headers[n++] = buf_str(&s->token);
    if (s->target.ns)
        s->headers[n] = buf_str(&s->ns);
    int r = buf_check(&s->token, s->e);
    return r == 0 ? buf_check(&s->ns, s->e) : r;
}

int bench_rig_send(struct bench_rig *rig, const struct bench_requests *requests, uint64_t *ret_us,
                   uint64_t *ret_took_us, struct client_reply *refused, struct err *e)
{
    struct sending s = {.rig = rig, .requests = requests, .us = ret_us, .refused = refused, .e = e};
    struct lane *lanes = mem_new_array(struct lane, requests->connections);
    client_target(rig->client, &s.target);
    rig->tls = s.target.tls;
    s.failed = set_headers(&s);
    uint64_t begin_us = clock_boot_us();
    for (unsigned i = 0; i < requests->connections && s.next < requests->count && s.failed == 0; i++) {
        lanes[i].s = &s;
        send_next(&lanes[i]);
    }
    while (s.open > 0) /* an interruption ends the loop earlier */
        loop_run(rig->loop);
    *ret_took_us = clock_boot_us() - begin_us;
    mem_free(lanes);
    buf_fini(&s.token);
    buf_fini(&s.ns);
    return rig->interrupted ? err_set(e, ERR_CANCELLED, "interrupted") : s.failed;
}

/* --- arrivals ------------------------------------------------------------------------------------------------------ */

void bench_rig_reset(struct bench_rig *rig)
{
    pthread_mutex_lock(&rig->lock);
    rig->count = 0;
    pthread_mutex_unlock(&rig->lock);
}

size_t bench_rig_arrived(struct bench_rig *rig)
{
    pthread_mutex_lock(&rig->lock);
    size_t count = rig->count;
    pthread_mutex_unlock(&rig->lock);
    return count;
}

bool bench_rig_wait(struct bench_rig *rig, size_t count, int64_t until_us)
{
    rig->wait_count = count;
    rig->wait_until_us = until_us;
    if (!rig->interrupted) {
        loop_timer_arm(rig->look, 0);
        loop_run(rig->loop);
        loop_timer_stop(rig->look);
    }
    return !rig->interrupted;
}

static int by_job_and_seq(const void *a, const void *b)
{
    const struct bench_arrival *x = a, *y = b;
    if (x->job != y->job)
        return x->job < y->job ? -1 : 1;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return x->at_us < y->at_us ? -1 : x->at_us > y->at_us;
}

const struct bench_arrival *bench_rig_arrivals(struct bench_rig *rig, size_t *ret_count)
{
    pthread_mutex_lock(&rig->lock);
    size_t count = rig->count;
    mem_free(rig->sorted);
    rig->sorted = mem_new_array(struct bench_arrival, count + 1);
    if (count > 0)
        memcpy(rig->sorted, rig->arrivals, count * sizeof(*rig->sorted));
    pthread_mutex_unlock(&rig->lock);
    qsort(rig->sorted, count, sizeof(*rig->sorted), by_job_and_seq);
    *ret_count = count;
    return rig->sorted;
}
