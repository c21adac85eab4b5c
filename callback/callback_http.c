/* HTTP callbacks: delivery lanes, each a thread with its own connections, libcurl multi handle and easy handles. What goes to endpoints
 * without TLS is callback_http_plain.c's; the rest is libcurl's from the beginning to the end.
 *
 * The loop hands attempts over through a locked list and wakes the lane; finished ones go back in one batch a wake-up. perform +
 * poll, not socket_action: with many active transfers it costs a third less. Limits on connections are the dispatcher's: those of
 * libcurl count the waiting time against the request's time-out and search linearly. */
#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/core/retry.h"
#include "agent/io/inbox.h"
#include "callback/callback_http_private.h"
#include "callback/headers.h"
#include "callback/safety.h"

#define POLL_MS 1000
/* Attempts under way by which a lane is busy: half of what one endpoint gets by default. */
#define LANE_BUSY     32
#define EASY_KEPT_MAX 256
/* Authorities read from a file are used this long before it is read again: reading the system's takes 20 ms. */
#define CA_CACHE_S 30L
/* Longest URL: a path or URL of 2 KiB and a service's name or an application's address. */
#define REQUEST_URL_MAX 8192

struct lane;

/* One transfer: an easy handle and what belongs to it, kept for the next one. */
struct transfer {
    struct http_work work;
    struct transfer *next; /* among the idle ones */
    struct list link;      /* among the running ones */
    CURL *easy;
    struct lane *lane;
    struct callback_attempt *attempt;
    struct headers headers;
    struct safety_use use; /* as it was when the attempt began */
    struct buf url;
    struct curl_slist connect_to;
    char connect_to_text[CALLBACK_ENDPOINT_MAX + 8];
    char excerpt[CALLBACK_EXCERPT_MAX];
    size_t excerpt_bytes;
    size_t body_bytes;
    size_t header_bytes;
    uint64_t taken_us;
    uint64_t started_us;
    unsigned sent; /* how often the request went out on a connection */
    bool too_many_headers;
    bool head_ended;             /* the empty line after the last head came */
    bool enough;                 /* of the body */
    char denied[GUARD_WHY_SIZE]; /* "" unless an address was not permitted */
    char error[CURL_ERROR_SIZE];
};

struct lane {
    struct http_lanes *lanes;
    pthread_t thread;
    CURLM *multi;
    pthread_mutex_t lock;
    struct list incoming; /* under lock */
    struct list aborted;  /* under lock: callback_attempt.abort_link */
    bool stopping;        /* under lock */
    struct inbox *ended;  /* attempts */
    struct plain *plain;  /* lane thread, but for its wake-up */
    struct list running;  /* lane thread: transfers under way */
    struct transfer *idle;
    unsigned idle_count;
    size_t under_way; /* loop thread: attempts delivered and not handed back */
};

struct http_lanes {
    struct callback_options options;
    char *user_agent;
    callback_done *done;
    void *arg;
    struct lane *lanes;
    unsigned count;
};

/* --- results ------------------------------------------------------------------------------------------------------- */

/* A is the loop's from here on: nobody closes its connection any more. */
static void finish(struct lane *lane, struct callback_attempt *a)
{
    a->transfer = NULL;
    pthread_mutex_lock(&lane->lock);
    a->ended = true;
    list_remove(&a->abort_link);
    pthread_mutex_unlock(&lane->lock);
    inbox_add(lane->ended, &a->link);
}

static void hand_back(void *arg, struct list *item)
{
    struct http_lanes *lanes = arg;
    struct callback_attempt *a = container_of(item, struct callback_attempt, link);
    ((struct lane *)a->lane)->under_way--;
    lanes->done(lanes->arg, a);
}

/* Ended without a byte on the wire. */
static void finish_unsent(struct lane *lane, struct callback_attempt *a, enum attempt_result result,
                          const char *why)
{
    callback_set_unsent(a, lane->lanes->options.gate, result, why);
    finish(lane, a);
}

static void finish_unstarted(struct lane *lane, struct callback_attempt *a, const char *why)
{
    finish_unsent(lane, a, ATTEMPT_NOT_STARTED, why);
}

/* --- one transfer -------------------------------------------------------------------------------------------------- */

static bool is_direct(const struct transfer *t)
{
    return t->attempt->delivery->spec->callback.url != NULL;
}

/* In the place of libcurl's own: the address is the one that it is about to connect to, whatever a name server said before. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *t = arg;
    (void)purpose; /* there is one only */
    if (t->use.guard && !guard_permits(t->use.guard, &address->addr, is_direct(t), t->denied))
        return CURL_SOCKET_BAD;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* The last look before the first byte; also called when libcurl found a kept connection dead and sends again on a fresh one. The
 * callee may have seen the first, so that is another attempt, not this one. A kept connection may lead where the guard of now
 * permits none. */
static int before_request(void *arg, char *primary_ip, char *local_ip, int primary_port, int local_port)
{
    struct transfer *t = arg;
    (void)local_ip;
    (void)local_port;
    if (t->sent++ > 0)
        return CURL_PREREQFUNC_ABORT;
    if (t->use.guard &&
        !guard_permits_ip(t->use.guard, primary_ip, (unsigned)primary_port, is_direct(t), t->denied))
        return CURL_PREREQFUNC_ABORT;
    if (!callback_may_start(t->attempt, t->lane->lanes->options.gate))
        return CURL_PREREQFUNC_ABORT;
    t->started_us = clock_boot_us();
    t->attempt->connect_us = t->started_us - t->taken_us;
    t->attempt->result.started_ms = callback_now_ms(t->lane->lanes->options.gate);
    return CURL_PREREQFUNC_OK;
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    if (size * count >= 5 && memcmp(data, "HTTP/", 5) == 0)
        t->head_ended = false; /* another one follows a 1xx */
    else if (size * count <= 2)
        t->head_ended = true;
    t->header_bytes += size * count;
    t->too_many_headers |= t->header_bytes > CALLBACK_REPLY_HEADERS_MAX;
    return t->too_many_headers ? 0 : size * count;
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t bytes = size * count, room = CALLBACK_EXCERPT_MAX - t->excerpt_bytes;
    size_t keep = bytes < room ? bytes : room;
    memcpy(t->excerpt + t->excerpt_bytes, data, keep);
    t->excerpt_bytes += keep;
    t->body_bytes += bytes;
    t->enough =
        t->body_bytes > CALLBACK_REPLY_BODY_MAX; /* the status is known; the rest is not worth the wait */
    return t->enough ? 0 : bytes;
}

static void set_always(CURL *easy, struct transfer *t)
{
    curl_easy_setopt(easy, CURLOPT_PRIVATE, &t->work);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CALLBACK_CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, before_request);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, HTTP_KEPT_IDLE_S);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, CA_CACHE_S);
    /* A transfer that times out while a name is being looked up would otherwise wait, with the whole lane, for the resolver's
     * thread (Curl_resolver_kill in 7.88). */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
}

static const struct http_work_ops transfer_ops;

static struct transfer *transfer_new(struct lane *lane)
{
    struct transfer *t = mem_new(struct transfer);
    t->easy = curl_easy_init();
    if (!t->easy) {
        mem_free(t);
        return NULL;
    }
    t->work.ops = &transfer_ops;
    t->lane = lane;
    headers_init(&t->headers);
    buf_init(&t->url, REQUEST_URL_MAX);
    set_always(t->easy, t);
    return t;
}

static void transfer_free(struct transfer *t)
{
    curl_easy_cleanup(t->easy);
    headers_fini(&t->headers);
    buf_fini(&t->url);
    mem_free(t);
}

static struct transfer *transfer_get(struct lane *lane)
{
    struct transfer *t = lane->idle;
    if (!t)
        return transfer_new(lane);
    lane->idle = t->next;
    lane->idle_count--;
    return t;
}

static void transfer_put(struct lane *lane, struct transfer *t)
{
    t->attempt = NULL;
    headers_forget(&t->headers);
    safety_unuse(&t->use);
    if (lane->idle_count >= EASY_KEPT_MAX) {
        transfer_free(t);
        return;
    }
    t->next = lane->idle;
    lane->idle = t;
    lane->idle_count++;
}

/* Order matters: each of NOBODY, HTTPGET and POST overwrites what the one before chose, and an easy handle that is used again
 * remembers all of them. */
static void set_method(CURL *easy, const struct delivery *d)
{
    const char *method = d->spec->callback.method;
    bool head = strcmp(method, "HEAD") == 0;
    curl_easy_setopt(easy, CURLOPT_NOBODY, head ? 1L : 0L);
    if (headers_has_body(method)) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)(d->payload ? d->payload_bytes : 0));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, d->payload ? d->payload : ""); /* borrowed until the end */
    } else if (!head) {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, head ? NULL : method);
}

/* Strings that are set to NULL are not what libcurl began with, so its own places of the system's authorities are asked for. A
 * service with authorities of its own trusts no others. */
static void set_tls(struct transfer *t, const struct callback_tls *tls)
{
    const char *ca = NULL, *folder = NULL;
    curl_easy_getinfo(t->easy, CURLINFO_CAINFO, &ca);
    curl_easy_getinfo(t->easy, CURLINFO_CAPATH, &folder);
    bool own = tls && tls->ca;
    curl_easy_setopt(t->easy, CURLOPT_CAINFO, own ? tls->ca : ca);
    curl_easy_setopt(t->easy, CURLOPT_CAPATH, own ? NULL : folder);
    curl_easy_setopt(t->easy, CURLOPT_SSLCERT, tls ? tls->cert : NULL);
    curl_easy_setopt(t->easy, CURLOPT_SSLKEY, tls ? tls->key : NULL);
}

/* The URL keeps the service's name: it is Host, SNI and the certificate's name, unless that is said to be another. CONNECT_TO
 * chooses where it goes. */
static bool set_target(struct transfer *t, const struct callback_attempt *a)
{
    const struct job_callback *cb = &a->delivery->spec->callback;
    buf_reset(&t->url);
    if (cb->url) {
        buf_add_str(&t->url, cb->url);
    } else {
        const char *name = a->tls && a->tls->server_name ? a->tls->server_name : cb->service;
        buf_addf(&t->url, "%s://%s%s", cb->scheme, name, cb->path);
        (void)snprintf(t->connect_to_text, sizeof(t->connect_to_text), "::%s",
                       a->endpoint); /* sized for both */
        t->connect_to = (struct curl_slist){.data = t->connect_to_text};
    }
    curl_easy_setopt(t->easy, CURLOPT_CONNECT_TO, cb->url ? NULL : &t->connect_to);
    curl_easy_setopt(t->easy, CURLOPT_URL, buf_str(&t->url));
    return !buf_failed(&t->url);
}

static int transfer_prepare(struct transfer *t, struct callback_attempt *a, struct err *e)
{
    const struct http_lanes *lanes = t->lane->lanes;
    struct curl_slist *headers;
    t->attempt = a;
    t->excerpt_bytes = t->body_bytes = t->header_bytes = 0;
    t->sent = 0;
    t->taken_us = clock_boot_us();
    t->started_us = 0;
    t->too_many_headers = t->enough = t->head_ended = false;
    t->error[0] = t->denied[0] = '\0';
    safety_use(lanes->options.safety, &t->use);
    int rc = headers_build(&t->headers, a, callback_now_ms(lanes->options.gate), lanes->user_agent, &t->use,
                           &headers, e);
    if (rc < 0)
        return rc;
    if (!set_target(t, a))
        return err_set(e, ERR_TOO_BIG, "the request could not be built");
    set_tls(t, a->tls);
    curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, headers);
    /* A kept connection may turn out dead when the request is on its way; at most once takes no such chance. */
    curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, a->delivery->spec->at_most_once ? 1L : 0L);
    curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)a->delivery->spec->callback.timeout_ms);
    set_method(t->easy, a->delivery);
    return 0;
}

static void start_transfer(struct lane *lane, struct callback_attempt *a)
{
    struct err e = {0};
    a->result = (struct attempt){.status = -1, .retry_after_ms = -1};
    a->transfer = NULL;
    struct transfer *t = transfer_get(lane);
    if (!t) {
        finish_unstarted(lane, a, "not started: out of memory");
        return;
    }
    /* It may fail the same way next time, so that is an attempt, and an end to the retries. */
    if (transfer_prepare(t, a, &e) < 0) {
        transfer_put(lane, t);
        if (callback_claim(a))
            finish_unsent(lane, a, ATTEMPT_RETRY, e.text);
        else
            finish_unstarted(lane, a, "not started: revoked");
        return;
    }
    if (curl_multi_add_handle(lane->multi, t->easy) != CURLM_OK) {
        transfer_put(lane, t);
        finish_unstarted(lane, a, "not started: out of memory");
        return;
    }
    list_push_back(&lane->running, &t->link);
    a->transfer = &t->work;
}

/* libcurl has read both forms, seconds and a date. */
static int64_t retry_after_ms(CURL *easy)
{
    curl_off_t seconds = 0;
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
    if (seconds <= 0)
        return -1;
    return seconds < (curl_off_t)(RETRY_AFTER_MAX_MS / 1000) ? (int64_t)seconds * 1000
                                                             : (int64_t)RETRY_AFTER_MAX_MS;
}

static const char *explain(const struct transfer *t, CURLcode code)
{
    if (t->denied[0] && (code == CURLE_COULDNT_CONNECT || code == CURLE_ABORTED_BY_CALLBACK))
        return t->denied;
    if (t->too_many_headers)
        return "reply headers over 64 KiB";
    if (code == CURLE_OK)
        return "reply broken off in its headers";
    if (code == CURLE_ABORTED_BY_CALLBACK && t->sent > 1)
        return "kept connection closed by the callee before a reply";
    return t->error[0] ? t->error : curl_easy_strerror(code);
}

/* What a reply to a job that allows it asks for. */
static enum attempt_control control_of(const struct transfer *t, enum attempt_result result)
{
    struct curl_header *h;
    if (result != ATTEMPT_OK || !t->attempt->delivery->spec->callback.allow_control ||
        curl_easy_header(t->easy, "Carillon-Job", 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
        return ATTEMPT_CONTROL_NONE;
    if (strcmp(h->value, "pause") == 0)
        return ATTEMPT_CONTROL_PAUSE;
    return strcmp(h->value, "delete") == 0 ? ATTEMPT_CONTROL_DELETE : ATTEMPT_CONTROL_NONE;
}

static void read_result(struct transfer *t, CURLcode code, struct attempt *r)
{
    long status = 0;
    uint64_t now_us = clock_boot_us();
    r->sent = t->started_us != 0;
    r->duration_ms = (uint32_t)((now_us - (t->started_us ? t->started_us : t->taken_us)) / 1000);
    t->attempt->latency_us = now_us - t->taken_us;
    callback_copy_text(r->endpoint, sizeof(r->endpoint), t->attempt->endpoint);
    headers_hide_secrets(&t->headers, t->excerpt, t->excerpt_bytes);
    callback_set_excerpt(r, t->excerpt, t->excerpt_bytes);
    /* A connection that ends within the headers is fine to libcurl, as long as there was a status line. */
    bool whole = (code == CURLE_OK && t->head_ended) || (code == CURLE_WRITE_ERROR && t->enough);
    if (!whole) {
        r->result = ATTEMPT_RETRY;
        callback_set_error(r, explain(t, code));
        return;
    }
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    r->status = (int)status;
    r->result = callback_judge(&t->attempt->delivery->spec->callback, (int)status);
    r->control = control_of(t, r->result);
    r->retry_after_ms = retry_after_ms(t->easy);
}

static void end_transfer(struct lane *lane, struct transfer *t, CURLcode code)
{
    struct callback_attempt *a = t->attempt;
    list_remove(&t->link);
    curl_multi_remove_handle(lane->multi, t->easy);
    bool refused = code == CURLE_ABORTED_BY_CALLBACK && t->started_us == 0 && !t->denied[0];
    if (refused || !callback_claim(a)) {
        transfer_put(lane, t);
        finish_unstarted(lane, a, "not started: revoked, or the lease was no longer sure");
        return;
    }
    if (t->started_us == 0) /* never got as far as a connection */
        a->result.started_ms = callback_now_ms(lane->lanes->options.gate);
    read_result(t, code, &a->result);
    transfer_put(lane, t);
    finish(lane, a);
}

static void on_done(struct http_work *w, CURLcode code)
{
    struct transfer *t = container_of(w, struct transfer, work);
    end_transfer(t->lane, t, code);
}

/* The job's fire is over: whoever works on its request finds the connection closed. */
static void on_abort(struct http_work *w)
{
    struct transfer *t = container_of(w, struct transfer, work);
    (void)snprintf(t->error, sizeof(t->error), "connection closed: the fire was ended"); /* fits */
    end_transfer(t->lane, t, CURLE_ABORTED_BY_CALLBACK);
}

static const struct http_work_ops transfer_ops = {.done = on_done, .abort = on_abort};

/* --- the lane's thread --------------------------------------------------------------------------------------------- */

static void finish_transfers(struct lane *lane)
{
    CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(lane->multi, &left))) {
        struct http_work *w;
        CURLcode code = msg->data.result; /* MSG dies with the handle's removal */
        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &w);
        w->ops->done(w, code);
    }
}

static void close_aborted(struct lane *lane)
{
    for (;;) {
        pthread_mutex_lock(&lane->lock);
        struct list *link = list_pop_front(&lane->aborted);
        pthread_mutex_unlock(&lane->lock);
        if (!link)
            return;
        struct http_work *w = container_of(link, struct callback_attempt, abort_link)->transfer;
        if (w)
            w->ops->abort(w);
    }
}

/* Returns false when the lane shall end. */
static bool take_incoming(struct lane *lane)
{
    struct list batch, *link;
    list_init(&batch);
    pthread_mutex_lock(&lane->lock);
    list_splice_back(&batch, &lane->incoming);
    bool stopping = lane->stopping;
    pthread_mutex_unlock(&lane->lock);
    while ((link = list_pop_front(&batch))) {
        struct callback_attempt *a = container_of(link, struct callback_attempt, link);
        if (atomic_load(&a->state) == CALLBACK_REVOKED || stopping)
            finish_unstarted(lane, a,
                             stopping ? "not started: the agent is stopping" : "not started: revoked");
        else if (plain_takes(a))
            plain_start(lane->plain, a);
        else
            start_transfer(lane, a);
    }
    return !stopping;
}

/* The process is ending: whatever still runs has no answer yet. */
static void abort_running(struct lane *lane)
{
    struct list *link;
    plain_stop(lane->plain);
    while ((link = list_first(&lane->running))) {
        struct transfer *t = container_of(link, struct transfer, link);
        struct callback_attempt *a = t->attempt;
        list_remove(link);
        curl_multi_remove_handle(lane->multi, t->easy);
        if (atomic_load(&a->state) == CALLBACK_STARTED) {
            read_result(t, CURLE_OPERATION_TIMEDOUT, &a->result);
            callback_set_error(&a->result, "no answer before the agent stopped");
            finish(lane, a);
        } else {
            finish_unstarted(lane, a, "not started: the agent is stopping");
        }
        transfer_put(lane, t);
    }
}

static void free_transfers(struct lane *lane)
{
    while (lane->idle) {
        struct transfer *t = lane->idle;
        lane->idle = t->next;
        transfer_free(t);
    }
}

static bool has_orders(struct lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    bool any = !list_empty(&lane->incoming) || !list_empty(&lane->aborted) || lane->stopping;
    pthread_mutex_unlock(&lane->lock);
    return any;
}

/* A turn waits where there is something to wait for: in one call, as long as libcurl has nothing under way. */
static void turn(struct lane *lane)
{
    struct curl_waitfd plain = {.fd = plain_fd(lane->plain), .events = CURL_WAIT_POLLIN};
    int running, wait_ms = has_orders(lane) ? 0 : plain_wait_ms(lane->plain);
    if (!list_empty(&lane->running) || plain_connecting(lane->plain)) {
        curl_multi_perform(lane->multi, &running);
        finish_transfers(lane);
        if (wait_ms != 0 && !has_orders(lane))
            curl_multi_poll(lane->multi, &plain, 1, wait_ms < 0 || wait_ms > POLL_MS ? POLL_MS : wait_ms,
                            NULL);
        wait_ms = 0;
    }
    plain_turn(lane->plain, wait_ms);
}

static void *run_lane(void *arg)
{
    struct lane *lane = arg;
    while (take_incoming(lane)) {
        close_aborted(lane);
        turn(lane);
    }
    abort_running(lane);
    return NULL;
}

/* --- the transport ------------------------------------------------------------------------------------------------- */

/* The thread has ended. */
static void lane_fini(struct lane *lane)
{
    (void)take_incoming(lane); /* what came in after the thread's last look ends as not started */
    inbox_free(lane->ended);
    free_transfers(lane);
    plain_free(lane->plain);
    curl_multi_cleanup(lane->multi);
    pthread_mutex_destroy(&lane->lock);
}

/* Signals are the loop thread's; and OpenSSL writes to sockets whose peer has gone without suppressing SIGPIPE. */
static int start_thread(struct lane *lane)
{
    sigset_t all, before;
    (void)sigfillset(&all); /* these two cannot fail */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&lane->thread, NULL, run_lane, lane);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        (void)pthread_setname_np(lane->thread, "lane"); /* only for people with a debugger */
    return rc;
}

static void finish_plain(void *arg, struct callback_attempt *a)
{
    finish(arg, a);
}

static void finish_several(void *arg, bool begins)
{
    struct lane *lane = arg;
    (begins ? inbox_gather : inbox_gathered)(lane->ended);
}

static int plain_open(struct lane *lane, struct err *e)
{
    struct plain_options options = {.callback = &lane->lanes->options,
                                    .user_agent = lane->lanes->user_agent,
                                    .multi = lane->multi,
                                    .finish = finish_plain,
                                    .several = finish_several,
                                    .arg = lane};
    return plain_new(&options, &lane->plain, e);
}

static int lane_init(struct http_lanes *lanes, struct lane *lane, struct err *e)
{
    lane->lanes = lanes;
    list_init(&lane->incoming);
    list_init(&lane->aborted);
    list_init(&lane->running);
    lane->multi = fault_hit() ? NULL : curl_multi_init();
    if (!lane->multi)
        return err_set(e, ERR_NOMEM, "out of memory for a delivery lane");
    /* Pinned: by default the cache follows the number of transfers, so a dip in load would throw warm connections away. */
    curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS,
                      (long)(lanes->options.connections_max / lanes->options.threads + 1));
    curl_multi_setopt(lane->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
    pthread_mutex_init(&lane->lock, NULL);
    lane->ended = inbox_new(lanes->options.loop, hand_back, lanes);
    int rc = plain_open(lane, e);
    if (rc == 0) {
        int error = fault_hit() ? EAGAIN : start_thread(lane);
        rc = error ? err_sys(e, error, "start a delivery lane") : 0;
    }
    if (rc == 0)
        return 0;
    inbox_free(lane->ended);
    plain_free(lane->plain);
    curl_multi_cleanup(lane->multi);
    pthread_mutex_destroy(&lane->lock);
    return rc;
}

static void stop_lane(struct lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    lane->stopping = true;
    pthread_mutex_unlock(&lane->lock);
    plain_wake(lane->plain);
    pthread_join(lane->thread, NULL);
}

static void http_close(void *self)
{
    struct http_lanes *lanes = self;
    for (unsigned i = 0; i < lanes->count; i++)
        stop_lane(&lanes->lanes[i]);
    for (unsigned i = 0; i < lanes->count; i++)
        lane_fini(&lanes->lanes[i]);
    mem_free(lanes->lanes);
    mem_free(lanes->user_agent);
    mem_free(lanes);
}

static int http_open(const struct callback_options *options, callback_done *done, void *arg, void **ret_self,
                     struct err *e)
{
    const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);
    assert(options->threads > 0);
    if (!(curl->features & CURL_VERSION_ASYNCHDNS))
        return err_set(e, ERR_BAD_STATE, "libcurl %s would stop a lane while it looks up a name",
                       curl->version);
    struct http_lanes *lanes = mem_new(struct http_lanes);
    lanes->options = *options;
    lanes->user_agent = mem_strdup(options->user_agent);
    lanes->done = done;
    lanes->arg = arg;
    lanes->lanes = mem_new_array(struct lane, options->threads);
    for (; lanes->count < options->threads; lanes->count++) {
        int rc = lane_init(lanes, &lanes->lanes[lanes->count], e);
        if (rc < 0) {
            http_close(lanes);
            return rc;
        }
    }
    *ret_self = lanes;
    return 0;
}

/* The endpoint's own lane, whose kept connections lead there. When that is busy the one with the least to do, so that an endpoint alone,
 * or several that share a lane by chance, are not bound to one core. */
static struct lane *choose_lane(const struct http_lanes *lanes, uint64_t lane_hash)
{
    struct lane *best = &lanes->lanes[lane_hash % lanes->count];
    if (best->under_way < LANE_BUSY)
        return best;
    for (unsigned i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].under_way < best->under_way)
            best = &lanes->lanes[i];
    return best;
}

static void http_deliver(void *self, struct callback_attempt *attempt, uint64_t lane_hash)
{
    struct http_lanes *lanes = self;
    struct lane *lane = choose_lane(lanes, lane_hash);
    lane->under_way++;
    attempt->lane = lane;
    attempt->ended = false;
    list_init(&attempt->abort_link);
    pthread_mutex_lock(&lane->lock);
    bool wake = list_empty(&lane->incoming);
    list_push_back(&lane->incoming, &attempt->link);
    pthread_mutex_unlock(&lane->lock);
    if (wake)
        plain_wake(lane->plain);
}

static void http_abort(void *self, struct callback_attempt *a)
{
    struct lane *lane = a->lane;
    (void)self;
    pthread_mutex_lock(&lane->lock);
    bool wake = !a->ended && !list_linked(&a->abort_link);
    if (wake)
        list_push_back(&lane->aborted, &a->abort_link);
    pthread_mutex_unlock(&lane->lock);
    if (wake)
        plain_wake(lane->plain);
}

const struct callback_ops callback_http = {
    .name = "http",
    .open = http_open,
    .deliver = http_deliver,
    .abort = http_abort,
    .close = http_close,
};
