/* Plain HTTP to endpoints of services, which is most of what an agent sends: libcurl makes the connections (names, address families,
 * what the guard says), and requests are written to and read from them here. That halves what one costs: libcurl prints each byte of
 * a head through several functions, looks at all connections of an endpoint and asks poll() about one socket at a time.
 *
 * A connection is in the set of epoll once, for edges of both directions, from its beginning to its end: a request costs a send(), a
 * recv() and its share of an epoll_wait(). What is closed within a turn is freed at its end, for the turn's events may name it. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/map.h"
#include "agent/base/mem.h"
#include "callback/callback_http_private.h"
#include "callback/headers.h"
#include "callback/reply.h"
#include "callback/safety.h"

#define CALLS_KEPT_MAX 256
#define EVENTS_MAX     128
#define READ_BYTES     (16 * 1024)
#define HEAD_BYTES_MAX (1024 * 1024) /* of headers, with secrets and a path */
#define KEPT_IDLE_US   ((uint64_t)HTTP_KEPT_IDLE_S * 1000000)
#define NEVER_US       UINT64_MAX

struct call;

struct host {
    char endpoint[CALLBACK_ENDPOINT_MAX];
    struct list idle; /* conn.host_link, most recently used first */
    size_t conns;
};

struct conn {
    struct list host_link; /* host.idle, or the graveyard */
    struct list lru;       /* plain.idle, longest idle first */
    struct host *host;
    struct call *call; /* NULL: idle */
    int fd;
    char ip[64];
    unsigned port;
    unsigned requests;
    uint64_t idle_us; /* since when */
    bool ended;       /* the callee will send no more */
};

struct call {
    struct http_work work;
    struct list link; /* plain.running, or plain.spare */
    struct plain *plain;
    struct callback_attempt *attempt;
    struct conn *conn; /* NULL: libcurl is connecting */
    CURL *easy;        /* which connects; kept for the next time */
    bool connecting;
    struct headers headers;
    struct safety_use use; /* as it was when the attempt began */
    struct buf head;
    size_t sent;
    struct reply reply;
    uint64_t taken_us, started_us, deadline_us;
    char denied[GUARD_WHY_SIZE]; /* "" unless an address was not permitted */
    char error[CURL_ERROR_SIZE];
};

struct plain {
    struct plain_options options;
    int epoll_fd, wake_fd;
    struct map hosts; /* endpoint -> host */
    struct list running, spare, idle, graveyard;
    size_t spare_count, idle_count, idle_max, connecting;
    uint64_t next_us; /* no call is over its time before; may be too early */
    char *buffer;
};

/* --- connections --------------------------------------------------------------------------------------------------- */

static void conn_close(struct plain *p, struct conn *c)
{
    if (list_linked(&c->lru)) {
        list_remove(&c->lru);
        p->idle_count--;
    }
    list_remove(&c->host_link);
    list_push_back(&p->graveyard, &c->host_link);
    fd_close(c->fd); /* and so it leaves the set of epoll */
    c->fd = -1;
    c->call = NULL;
}

static void host_put(struct plain *p, struct host *h)
{
    if (--h->conns > 0)
        return;
    (void)map_remove(&p->hosts, h->endpoint, strlen(h->endpoint));
    mem_free(h);
}

static void bury(struct plain *p)
{
    for (struct list *link; (link = list_pop_front(&p->graveyard));) {
        struct conn *c = container_of(link, struct conn, host_link);
        host_put(p, c->host);
        mem_free(c);
    }
}

static void conn_keep(struct plain *p, struct conn *c, uint64_t now_us)
{
    c->call = NULL;
    c->idle_us = now_us;
    list_push_front(&c->host->idle, &c->host_link);
    list_push_back(&p->idle, &c->lru);
    if (++p->idle_count > p->idle_max)
        conn_close(p, container_of(list_first(&p->idle), struct conn, lru));
}

static void close_old(struct plain *p, uint64_t now_us)
{
    for (struct list *link; (link = list_first(&p->idle));) {
        struct conn *c = container_of(link, struct conn, lru);
        if (now_us < c->idle_us + KEPT_IDLE_US)
            return;
        conn_close(p, c);
    }
}

static struct conn *conn_take(struct plain *p, const char *endpoint, uint64_t now_us)
{
    close_old(p, now_us);
    struct host *h = map_get(&p->hosts, endpoint, strlen(endpoint));
    struct list *link = h ? list_pop_front(&h->idle) : NULL;
    if (!link)
        return NULL;
    struct conn *c = container_of(link, struct conn, host_link);
    list_remove(&c->lru);
    p->idle_count--;
    return c;
}

static struct host *host_of(struct plain *p, const char *endpoint)
{
    struct host *h = map_get(&p->hosts, endpoint, strlen(endpoint));
    if (h)
        return h;
    h = mem_new(struct host);
    memcpy(h->endpoint, endpoint, strlen(endpoint) + 1);
    list_init(&h->idle);
    if (map_put(&p->hosts, h->endpoint, strlen(h->endpoint), h, NULL, NULL) == 0)
        return h;
    mem_free(h);
    return NULL;
}

/* Takes the socket from what libcurl connected; its own one goes with the easy handle. */
static struct conn *conn_new(struct plain *p, struct call *call)
{
    curl_socket_t theirs = CURL_SOCKET_BAD;
    const char *ip = NULL;
    long port = 0;
    curl_easy_getinfo(call->easy, CURLINFO_ACTIVESOCKET, &theirs);
    curl_easy_getinfo(call->easy, CURLINFO_PRIMARY_IP, &ip);
    curl_easy_getinfo(call->easy, CURLINFO_PRIMARY_PORT, &port);
    int fd = theirs == CURL_SOCKET_BAD ? -1 : fcntl(theirs, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    struct conn *c = mem_new(struct conn);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    c->fd = fd;
    c->host = host_of(p, call->attempt->endpoint);
    if (!c->host || epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        if (c->host) {
            c->host->conns++;
            host_put(p, c->host);
        }
        fd_close(fd);
        mem_free(c);
        return NULL;
    }
    c->host->conns++;
    c->port = (unsigned)port;
    (void)snprintf(c->ip, sizeof(c->ip), "%s", ip ? ip : ""); /* an address */
    list_init(&c->host_link);
    list_init(&c->lru);
    return c;
}

/* --- calls --------------------------------------------------------------------------------------------------------- */

static const struct http_work_ops call_ops;

static struct call *call_get(struct plain *p)
{
    struct list *link = list_pop_front(&p->spare);
    if (link) {
        p->spare_count--;
        return container_of(link, struct call, link);
    }
    struct call *call = mem_new(struct call);
    call->work.ops = &call_ops;
    call->plain = p;
    list_init(&call->link);
    headers_init(&call->headers);
    buf_init(&call->head, HEAD_BYTES_MAX);
    return call;
}

static void call_free(struct call *call)
{
    if (call->easy)
        curl_easy_cleanup(call->easy);
    headers_fini(&call->headers);
    buf_fini(&call->head);
    mem_free(call);
}

static void stop_connecting(struct call *call)
{
    if (!call->connecting)
        return;
    curl_multi_remove_handle(call->plain->options.multi, call->easy);
    call->connecting = false;
    call->plain->connecting--;
}

/* The end of CALL; its attempt has its result. */
static void call_end(struct call *call)
{
    struct plain *p = call->plain;
    struct callback_attempt *a = call->attempt;
    stop_connecting(call);
    list_remove(&call->link);
    if (call->headers.secrets_count > 0 && call->head.data)
        OPENSSL_cleanse(call->head.data, call->head.len);
    headers_forget(&call->headers);
    safety_unuse(&call->use);
    call->attempt = NULL;
    call->conn = NULL;
    if (p->spare_count < CALLS_KEPT_MAX) {
        list_push_front(&p->spare, &call->link);
        p->spare_count++;
    } else {
        call_free(call);
    }
    p->options.finish(p->options.arg, a);
}

static void end_unstarted(struct call *call, const char *why)
{
    callback_set_unsent(call->attempt, call->plain->options.callback->gate, ATTEMPT_NOT_STARTED, why);
    call_end(call);
}

static void fill_result(struct call *call, uint64_t now_us)
{
    struct callback_attempt *a = call->attempt;
    struct attempt *r = &a->result;
    r->sent = call->started_us != 0;
    r->duration_ms = (uint32_t)((now_us - (r->sent ? call->started_us : call->taken_us)) / 1000);
    a->latency_us = now_us - call->taken_us;
    callback_copy_text(r->endpoint, sizeof(r->endpoint), a->endpoint);
    if (!r->sent) /* never got as far as a connection */
        r->started_ms = callback_now_ms(call->plain->options.callback->gate);
}

/* It failed, before or after its request went out. */
static void end_failed(struct call *call, const char *why)
{
    if (call->conn)
        conn_close(call->plain, call->conn);
    if (!callback_claim(call->attempt)) {
        end_unstarted(call, "not started: revoked");
        return;
    }
    fill_result(call, clock_boot_us());
    headers_hide_secrets(&call->headers, call->reply.excerpt, call->reply.excerpt_bytes);
    callback_set_excerpt(&call->attempt->result, call->reply.excerpt, call->reply.excerpt_bytes);
    call->attempt->result.result = ATTEMPT_RETRY;
    callback_set_error(&call->attempt->result, why);
    call_end(call);
}

static void end_replied(struct call *call)
{
    struct attempt *r = &call->attempt->result;
    const struct job_callback *cb = &call->attempt->delivery->spec->callback;
    const struct reply *reply = &call->reply;
    struct conn *c = call->conn;
    uint64_t now_us = clock_boot_us();
    fill_result(call, now_us);
    headers_hide_secrets(&call->headers, call->reply.excerpt, reply->excerpt_bytes);
    callback_set_excerpt(r, reply->excerpt, reply->excerpt_bytes);
    r->status = reply_status(reply);
    r->result = callback_judge(cb, r->status);
    if (r->result == ATTEMPT_OK && cb->allow_control)
        r->control = reply_control(reply);
    r->retry_after_ms = reply_retry_after_ms(reply, (int64_t)(clock_wall_ms() / 1000));
    if (reply_keeps(reply) && call->sent == call->head.len && !c->ended)
        conn_keep(call->plain, c, now_us);
    else
        conn_close(call->plain, c);
    call_end(call);
}

/* --- on a connection ----------------------------------------------------------------------------------------------- */

static bool is_reset(int number)
{
    return number == ECONNRESET || number == EPIPE;
}

/* The callee closed a connection on which others were answered: it may have seen the request, or not. */
static void end_broken(struct call *call, int number)
{
    char text[200];
    bool closed = number == 0 || is_reset(number);
    if (closed && !call->reply.any && call->conn->requests > 1) {
        end_failed(call, "kept connection closed by the callee before a reply");
    } else if (number == 0) {
        end_failed(call, reply_problem(&call->reply));
    } else {
        (void)snprintf(text, sizeof(text), "connection: %s", strerrordesc_np(number)); /* cut: for people */
        end_failed(call, text);
    }
}

/* Up to the end of the reply, or of what is there. */
static void call_read(struct call *call)
{
    struct plain *p = call->plain;
    for (;;) {
        ssize_t n = recv(call->conn->fd, p->buffer, READ_BYTES, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (errno != EAGAIN)
                end_broken(call, errno);
            return;
        }
        call->conn->ended |= n == 0;
        switch (reply_feed(&call->reply, p->buffer, (size_t)n)) {
        case REPLY_WHOLE:
        case REPLY_ENOUGH:
            end_replied(call);
            return;
        case REPLY_BAD:
            if (n == 0)
                end_broken(call, 0);
            else
                end_failed(call, reply_problem(&call->reply));
            return;
        case REPLY_MORE:
        case REPLY_STATE_COUNT_:
            break;
        }
        if (n < READ_BYTES && !call->conn->ended)
            return; /* more of it is another edge */
    }
}

/* What the callee answered before it closed the connection counts. */
static void end_unwritten(struct call *call, int number)
{
    struct conn *c = call->conn;
    if (is_reset(number))
        call_read(call);
    if (c->call == call)
        end_broken(call, number);
}

static void call_write(struct call *call)
{
    while (call->sent < call->head.len) {
        ssize_t n = send(call->conn->fd, call->head.data + call->sent, call->head.len - call->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            call->sent += (size_t)n;
        } else if (errno == EAGAIN) {
            return; /* epoll tells */
        } else if (errno != EINTR) {
            end_unwritten(call, errno);
            return;
        }
    }
}

static bool is_permitted(struct call *call)
{
    const struct conn *c = call->conn;
    return !call->use.guard || guard_permits_ip(call->use.guard, c->ip, c->port, false, call->denied);
}

/* The last look before the first byte. */
static void call_go(struct call *call, struct conn *c)
{
    const struct callback_gate *gate = call->plain->options.callback->gate;
    call->conn = c;
    c->call = call;
    if (!is_permitted(call)) {
        end_failed(call, call->denied);
        return;
    }
    if (!callback_may_start(call->attempt, gate)) {
        conn_keep(call->plain, c, clock_boot_us());
        call->conn = NULL;
        end_unstarted(call, "not started: revoked, or the lease was no longer sure");
        return;
    }
    c->requests++;
    call->started_us = clock_boot_us();
    call->attempt->connect_us = call->started_us - call->taken_us;
    call->attempt->result.started_ms = callback_now_ms(gate);
    call_write(call);
}

static void on_event(struct plain *p, struct conn *c, uint32_t events)
{
    const uint32_t in = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
    if (c->fd < 0)
        return; /* closed earlier in this turn */
    c->ended |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    struct call *call = c->call;
    if (!call && (events & in))
        conn_close(p, c);
    if (!call)
        return;
    if ((events & EPOLLOUT) && call->sent < call->head.len)
        call_write(call);
    if (c->call == call && (events & in))
        call_read(call);
}

/* --- connecting ---------------------------------------------------------------------------------------------------- */

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct call *call = arg;
    (void)purpose; /* there is one only */
    if (call->use.guard && !guard_permits(call->use.guard, &address->addr, false, call->denied))
        return CURL_SOCKET_BAD;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void set_always(struct call *call)
{
    CURL *easy = call->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &call->work);
    curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CALLBACK_CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->error);
    /* Or one that is given up while a name is being looked up would wait for the resolver's thread (Curl_resolver_kill). */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
}

static void call_connect(struct call *call)
{
    char url[CALLBACK_ENDPOINT_MAX + 16];
    if (!call->easy && (call->easy = curl_easy_init()))
        set_always(call);
    (void)snprintf(url, sizeof(url), "http://%s/", call->attempt->endpoint); /* sized for it */
    if (!call->easy || curl_easy_setopt(call->easy, CURLOPT_URL, url) != CURLE_OK ||
        curl_multi_add_handle(call->plain->options.multi, call->easy) != CURLM_OK) {
        end_unstarted(call, "not started: out of memory");
        return;
    }
    call->connecting = true;
    call->plain->connecting++;
}

static void on_connected(struct http_work *w, CURLcode code)
{
    struct call *call = container_of(w, struct call, work);
    struct conn *c = code == CURLE_OK ? conn_new(call->plain, call) : NULL;
    stop_connecting(call);
    if (c)
        call_go(call, c);
    else if (code == CURLE_OK)
        end_failed(call, "connection: out of memory or of sockets");
    else if (call->denied[0])
        end_failed(call, call->denied);
    else
        end_failed(call, call->error[0] ? call->error : curl_easy_strerror(code));
}

static void on_abort(struct http_work *w)
{
    end_failed(container_of(w, struct call, work), "connection closed: the fire was ended");
}

static const struct http_work_ops call_ops = {.done = on_connected, .abort = on_abort};

/* --- starting ------------------------------------------------------------------------------------------------------ */

bool plain_takes(const struct callback_attempt *a)
{
    const struct job_callback *cb = &a->delivery->spec->callback;
    return !cb->url && strcmp(cb->scheme, "http") == 0;
}

static int write_head(struct call *call, int64_t now_ms, struct err *e)
{
    const struct delivery *d = call->attempt->delivery;
    const struct job_callback *cb = &d->spec->callback;
    struct headers_pair pair;
    struct buf *b = &call->head;
    int r = headers_build_plain(&call->headers, call->attempt, now_ms, call->plain->options.user_agent,
                                &call->use, e);
    if (r < 0)
        return r;
    buf_reset(b);
    buf_add_str(b, cb->method);
    buf_add_char(b, ' ');
    buf_add_str(b, cb->path);
    buf_add_str(b, " HTTP/1.1\r\nHost: ");
    buf_add_str(b, cb->service);
    for (size_t at = 0; headers_next(&call->headers, &at, &pair);) {
        buf_add(b, "\r\n", 2);
        buf_add(b, pair.name, pair.name_len);
        buf_add(b, ": ", 2);
        buf_add_str(b, pair.value);
    }
    if (headers_has_body(cb->method)) {
        size_t bytes = d->payload ? d->payload_bytes : 0;
        buf_add_str(b, "\r\nContent-Length: ");
        buf_add_u64(b, bytes);
        buf_add(b, "\r\n\r\n", 4);
        buf_add(b, d->payload ? d->payload : "", bytes);
    } else {
        buf_add(b, "\r\n\r\n", 4);
    }
    return buf_check(b, e);
}

static int prepare(struct call *call, struct callback_attempt *a, struct err *e)
{
    struct plain *p = call->plain;
    const struct job_callback *cb = &a->delivery->spec->callback;
    call->attempt = a;
    call->conn = NULL;
    call->sent = 0;
    call->taken_us = clock_boot_us();
    call->started_us = 0;
    call->deadline_us = call->taken_us + (uint64_t)cb->timeout_ms * 1000;
    call->denied[0] = call->error[0] = '\0';
    reply_begin(&call->reply, strcmp(cb->method, "HEAD") == 0);
    a->result = (struct attempt){.status = -1, .retry_after_ms = -1};
    a->transfer = &call->work;
    list_push_back(&p->running, &call->link);
    p->next_us = call->deadline_us < p->next_us ? call->deadline_us : p->next_us;
    safety_use(p->options.callback->safety, &call->use);
    return write_head(call, callback_now_ms(p->options.callback->gate), e);
}

void plain_start(struct plain *p, struct callback_attempt *a)
{
    struct call *call = call_get(p);
    struct err e = {0};
    /* What cannot be written may fail the same way next time, so that is an attempt, and an end to the retries. */
    if (prepare(call, a, &e) < 0) {
        if (callback_claim(a)) {
            callback_set_unsent(a, p->options.callback->gate, ATTEMPT_RETRY, e.text);
            call_end(call);
        } else {
            end_unstarted(call, "not started: revoked");
        }
        return;
    }
    /* A kept connection may turn out dead when the request is on its way; at most once takes no such chance. */
    struct conn *c = a->delivery->spec->at_most_once ? NULL : conn_take(p, a->endpoint, call->taken_us);
    if (c)
        call_go(call, c);
    else
        call_connect(call);
}

/* --- turns --------------------------------------------------------------------------------------------------------- */

static void end_late(struct plain *p, uint64_t now_us)
{
    char text[80];
    if (now_us < p->next_us)
        return;
    p->next_us = NEVER_US;
    LIST_FOR_SAFE(link, &p->running)
    {
        struct call *call = container_of(link, struct call, link);
        if (now_us < call->deadline_us) {
            p->next_us = call->deadline_us < p->next_us ? call->deadline_us : p->next_us;
            continue;
        }
        (void)snprintf(text, sizeof(text), "timed out after %u ms %s",
                       (unsigned)call->attempt->delivery->spec->callback.timeout_ms,
                       call->started_us ? "without a whole reply" : "before there was a connection");
        end_failed(call, text);
    }
}

bool plain_connecting(const struct plain *p)
{
    return p->connecting > 0;
}

int plain_fd(const struct plain *p)
{
    return p->epoll_fd;
}

/* It is in the set of epoll for edges, so nobody has to read what is written. */
void plain_wake(struct plain *p)
{
    (void)eventfd_write(p->wake_fd, 1);
}

static int until_ms(uint64_t at_us, uint64_t now_us)
{
    return at_us <= now_us ? 0 : (int)((at_us - now_us) / 1000 + 1);
}

int plain_wait_ms(const struct plain *p)
{
    uint64_t now_us = clock_boot_us();
    int wait_ms = p->next_us == NEVER_US ? -1 : until_ms(p->next_us, now_us);
    if (list_empty(&p->idle))
        return wait_ms;
    int idle_ms =
        until_ms(container_of(list_first(&p->idle), struct conn, lru)->idle_us + KEPT_IDLE_US, now_us);
    return wait_ms < 0 || idle_ms < wait_ms ? idle_ms : wait_ms;
}

void plain_turn(struct plain *p, int wait_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(p->epoll_fd, events, EVENTS_MAX, wait_ms);
    p->options.several(p->options.arg, true);
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr)
            on_event(p, events[i].data.ptr, events[i].events);
    uint64_t now_us = clock_boot_us();
    end_late(p, now_us);
    p->options.several(p->options.arg, false);
    close_old(p, now_us);
    bury(p);
}

void plain_stop(struct plain *p)
{
    LIST_FOR_SAFE(link, &p->running)
    {
        struct call *call = container_of(link, struct call, link);
        if (atomic_load(&call->attempt->state) == CALLBACK_STARTED)
            end_failed(call, "no answer before the agent stopped");
        else
            end_unstarted(call, "not started: the agent is stopping");
    }
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

int plain_new(const struct plain_options *options, struct plain **ret, struct err *e)
{
    struct plain *p = mem_new(struct plain);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    p->options = *options;
    p->epoll_fd = p->wake_fd = -1;
    p->next_us = NEVER_US;
    p->idle_max = options->callback->connections_max / options->callback->threads + 1;
    map_init(&p->hosts, 0);
    list_init(&p->running);
    list_init(&p->spare);
    list_init(&p->idle);
    list_init(&p->graveyard);
    bool fault = fault_hit();
    if (!fault) {
        p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    if (p->epoll_fd < 0 || p->wake_fd < 0 || epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->wake_fd, &event) < 0) {
        int r = err_sys(e, fault ? EMFILE : errno, "make a set of sockets");
        plain_free(p);
        return r;
    }
    p->buffer = mem_new_array(char, READ_BYTES);
    *ret = p;
    return 0;
}

void plain_free(struct plain *p)
{
    if (!p)
        return;
    assert(list_empty(&p->running));
    for (struct list *link; (link = list_first(&p->idle));)
        conn_close(p, container_of(link, struct conn, lru));
    bury(p);
    for (struct list *link; (link = list_pop_front(&p->spare));)
        call_free(container_of(link, struct call, link));
    map_fini(&p->hosts);
    fd_close(p->epoll_fd);
    fd_close(p->wake_fd);
    mem_free(p->buffer);
    mem_free(p);
}
