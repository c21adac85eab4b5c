#include "agent/io/http.h"

#include "agent/base/list.h"
#include "agent/base/mem.h"
#include "agent/io/loop.h"

#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <strings.h>

enum {
    IDLE_EASIES_MAX = 16,
    REPLY_HEADERS_MAX = 64 * 1024, /* libcurl 7.88 itself has no limit on all of them together */
    CA_CACHE_S = 30,
    REQUEST_BODY_MAX = 1 << 29,
};

struct http_client {
    struct loop *loop;
    CURLM *multi;
    struct loop_timer *timer;
    struct list calls;    /* in libcurl */
    struct list finished; /* their callback is to come */
    struct loop_msg deliver;
    bool deliver_pending; /* the loop holds DELIVER */
    bool delivering;
    bool freed; /* only the memory is left, for whoever is delivering */
    CURL *idle[IDLE_EASIES_MAX];
    unsigned idle_count;
};

struct http_call {
    struct list link;
    struct http_client *client;
    CURL *easy;
    struct curl_slist *headers;
    struct curl_slist *connect_to;
    void *body;
    struct buf reply;
    size_t reply_header_bytes;
    bool too_big;
    struct err err;
    char curl_text[CURL_ERROR_SIZE];
    void (*piece)(void *arg, const char *data, size_t bytes);
    http_done *done;
    void *arg;
};

static struct http_call *call_of(struct list *link)
{
    return container_of(link, struct http_call, link);
}

/* --- easy handles, kept for reuse --------------------------------------------------------------------------------- */

static CURL *easy_get(struct http_client *c)
{
    if (fault_hit())
        return NULL;
    return c->idle_count > 0 ? c->idle[--c->idle_count] : curl_easy_init();
}

static void easy_put(struct http_client *c, CURL *easy)
{
    if (!easy)
        return;
    if (c->freed || c->idle_count == IDLE_EASIES_MAX) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    c->idle[c->idle_count++] = easy;
}

/* --- calls: the end ----------------------------------------------------------------------------------------------- */

static void call_free(struct http_call *call)
{
    list_remove(&call->link);
    easy_put(call->client, call->easy);
    curl_slist_free_all(call->headers);
    curl_slist_free_all(call->connect_to);
    mem_free(call->body);
    buf_fini(&call->reply);
    mem_free(call);
}

static void call_deliver(struct http_call *call)
{
    long status = 0;
    struct http_reply reply = {.body = buf_str(&call->reply), .body_bytes = call->reply.len, .call = call};
    if (call->err.code == ERR_OK) {
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        reply.status = (int)status;
    }
    call->done(call->arg, &call->err, call->err.code == ERR_OK ? &reply : NULL);
    call_free(call);
}

/* The callback may free the client; the memory then waits for this function to end. A call in its callback is
 * in no list, so that a cancel from there finds it neither under way nor finished. */
static void deliver_all(struct http_client *c)
{
    struct list *link;
    c->delivering = true;
    while ((link = list_pop_front(&c->finished)))
        call_deliver(call_of(link));
    c->delivering = false;
    if (c->freed && !c->deliver_pending)
        mem_free(c);
}

static void on_deliver(struct loop_msg *msg)
{
    struct http_client *c = container_of(msg, struct http_client, deliver);
    c->deliver_pending = false;
    if (!c->delivering)
        deliver_all(c);
}

static void call_finish(struct http_call *call)
{
    struct http_client *c = call->client;
    list_remove(&call->link);
    list_push_back(&c->finished, &call->link);
    if (c->deliver_pending)
        return;
    c->deliver_pending = true;
    loop_defer(c->loop, &c->deliver);
}

/* Whether a byte of the request has left us. libcurl repeats a request whose kept connection died before the
 * first byte of a reply; the counter goes on over that, so a refusal of the second try does not hide the
 * first. */
static bool was_sent(CURL *easy)
{
    long request_bytes = 0;
    curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &request_bytes);
    return request_bytes > 0;
}

static enum err_code code_of(const struct http_call *call, CURLcode r)
{
    long sys = 0;
    if (r == CURLE_OK)
        return ERR_OK;
    if (call->too_big)
        return buf_check(&call->reply, NULL) == -(int)ERR_NOMEM ? ERR_NOMEM : ERR_TOO_BIG;
    if (r == CURLE_OUT_OF_MEMORY)
        return was_sent(call->easy) ? ERR_UNKNOWN_OUTCOME : ERR_NOMEM;
    if (r == CURLE_URL_MALFORMAT || r == CURLE_UNSUPPORTED_PROTOCOL)
        return ERR_INVALID;
    if (was_sent(call->easy))
        return r == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_UNKNOWN_OUTCOME;
    curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &sys);
    return r == CURLE_COULDNT_CONNECT && sys == ECONNREFUSED ? ERR_REFUSED : ERR_UNAVAILABLE;
}

static void on_call_done(struct http_call *call, CURLcode r)
{
    enum err_code code = code_of(call, r);
    if (code != ERR_OK)
        (void)err_set(&call->err, code, "%s", call->curl_text[0] ? call->curl_text : curl_easy_strerror(r));
    curl_multi_remove_handle(call->client->multi, call->easy);
    call_finish(call);
}

/* --- libcurl on the loop ------------------------------------------------------------------------------------------ */

/* Until NULL: a message left here would be seen at the next event only, and there may be none. */
static void take_messages(struct http_client *c)
{
    CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(c->multi, &left))) {
        struct http_call *call;
        if (msg->msg != CURLMSG_DONE)
            continue;
        CURLcode r = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &call);
        on_call_done(call, r);
    }
}

struct socket_watch {
    struct http_client *client;
    struct loop_fd *fd;
    curl_socket_t socket;
};

static void on_socket_ready(void *arg, int events)
{
    struct socket_watch *w = arg;
    struct http_client *c = w->client; /* W may be gone after the call */
    int mask = (events & LOOP_READ ? CURL_CSELECT_IN : 0) | (events & LOOP_WRITE ? CURL_CSELECT_OUT : 0),
        running;
    curl_multi_socket_action(c->multi, w->socket, mask, &running);
    take_messages(c);
}

static int on_curl_socket(CURL *easy, curl_socket_t socket, int what, void *arg, void *slot)
{
    (void)easy;
    struct http_client *c = arg;
    struct socket_watch *w = slot;
    if (what == CURL_POLL_REMOVE) {
        if (w)
            loop_fd_free(w->fd);
        mem_free(w);
        curl_multi_assign(c->multi, socket, NULL);
        return 0;
    }
    if (!w) {
        w = mem_new(struct socket_watch);
        *w = (struct socket_watch){
            .client = c, .socket = socket, .fd = loop_fd_new(c->loop, socket, on_socket_ready, w)};
        curl_multi_assign(c->multi, socket, w);
    }
    loop_fd_set(w->fd, (what & CURL_POLL_IN ? LOOP_READ : 0) | (what & CURL_POLL_OUT ? LOOP_WRITE : 0));
    return 0;
}

/* Only arms: libcurl must not be called from within its own callback. */
static int on_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    struct http_client *c = arg;
    if (timeout_ms < 0)
        loop_timer_stop(c->timer);
    else
        loop_timer_arm(c->timer, timeout_ms);
    return 0;
}

static void on_timer(void *arg)
{
    struct http_client *c = arg;
    int running;
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_messages(c);
}

/* --- calls: the beginning ----------------------------------------------------------------------------------------- */

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct http_call *call = arg;
    long status = 0;
    if (call->piece && curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK &&
        status / 100 == 2) {
        call->piece(call->arg, data, size * n);
        return size * n;
    }
    buf_add(&call->reply, data, size * n);
    call->too_big = buf_failed(&call->reply);
    return call->too_big ? 0 : size * n;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    (void)data;
    struct http_call *call = arg;
    call->reply_header_bytes += size * n;
    call->too_big = call->reply_header_bytes > REPLY_HEADERS_MAX;
    return call->too_big ? 0 : size * n;
}

static bool has_header(const char *const *headers, const char *name)
{
    size_t len = strlen(name);
    for (; headers && *headers; headers++)
        if (strncasecmp(*headers, name, len) == 0 && (*headers)[len] == ':')
            return true;
    return false;
}

static int slist_add(struct curl_slist **list, const char *text, struct err *e)
{
    struct curl_slist *more = fault_hit() ? NULL : curl_slist_append(*list, text);
    if (!more)
        return err_set(e, ERR_NOMEM, "no memory for a header");
    *list = more;
    return 0;
}

static int set_headers(struct http_call *call, const struct http_call_options *o, struct err *e)
{
    for (const char *const *h = o->headers; h && *h; h++) {
        if (strpbrk(*h, "\r\n"))
            return err_set(e, ERR_INVALID, "a header contains a line break");
        int r = slist_add(&call->headers, *h, e);
        if (r < 0)
            return r;
    }
    /* Without these libcurl waits a second for "100 Continue" and calls every body a form. */
    if (slist_add(&call->headers, "Expect:", e) < 0 ||
        (!has_header(o->headers, "Content-Type") && slist_add(&call->headers, "Content-Type:", e) < 0))
        return -(int)ERR_NOMEM;
    curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
    return 0;
}

static int set_body(struct http_call *call, const struct http_call_options *o, struct err *e)
{
    const char *method = o->method ? o->method : "GET";
    if (o->body_bytes > REQUEST_BODY_MAX)
        return err_set(e, ERR_TOO_BIG, "request body of %zu bytes", o->body_bytes);
    if (o->body_bytes > 0) {
        call->body = mem_try_alloc(o->body_bytes, e);
        if (!call->body)
            return -(int)ERR_NOMEM;
        memcpy(call->body, o->body, o->body_bytes);
    }
    bool takes_body =
        strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
    if (o->body_bytes > 0 || takes_body) {
        curl_easy_setopt(call->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)o->body_bytes);
        curl_easy_setopt(call->easy, CURLOPT_POSTFIELDS, call->body ? call->body : "");
    }
    if (strcmp(method, "HEAD") == 0)
        curl_easy_setopt(call->easy, CURLOPT_NOBODY, 1L);
    if (curl_easy_setopt(call->easy, CURLOPT_CUSTOMREQUEST, method) != CURLE_OK)
        return err_set(e, ERR_NOMEM, "no memory for a request");
    return 0;
}

/* Another name for SNI and the certificate than the URL has: the name goes into the URL, the address of the
 * URL into CONNECT_TO, and the Host header stays what it was. */
static int set_server_name(struct http_call *call, const struct http_call_options *o, struct err *e)
{
    char *host = NULL, *port = NULL, *url = NULL;
    struct buf text = BUF_INIT(4096);
    CURLU *u = curl_url();
    bool ok = u && curl_url_set(u, CURLUPART_URL, o->url, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_HOST, o->tls->server_name, 0) == CURLUE_OK &&
              curl_url_get(u, CURLUPART_URL, &url, 0) == CURLUE_OK;
    int r = ok ? 0 : err_set(e, ERR_INVALID, "no usable URL or server name");
    if (ok) {
        buf_addf(&text, "%s:%s:%s:%s", o->tls->server_name, port, host, port);
        r = slist_add(&call->connect_to, buf_str(&text), e);
    }
    if (r == 0 && !has_header(o->headers, "Host")) {
        buf_reset(&text);
        buf_addf(&text, "Host: %s:%s", host, port);
        r = slist_add(&call->headers, buf_str(&text), e);
    }
    if (r == 0) {
        curl_easy_setopt(call->easy, CURLOPT_URL, url);
        curl_easy_setopt(call->easy, CURLOPT_CONNECT_TO, call->connect_to);
    }
    buf_fini(&text);
    curl_free(host);
    curl_free(port);
    curl_free(url);
    curl_url_cleanup(u);
    return r;
}

static int set_tls(struct http_call *call, const struct http_call_options *o, struct err *e)
{
    const struct http_tls *t = o->tls;
    if (!t)
        return 0;
    if (t->ca_file)
        curl_easy_setopt(call->easy, CURLOPT_CAINFO, t->ca_file);
    /* By default it would believe a replaced file's former authorities for a day. */
    curl_easy_setopt(call->easy, CURLOPT_CA_CACHE_TIMEOUT, (long)CA_CACHE_S);
    if (t->ca_path)
        curl_easy_setopt(call->easy, CURLOPT_CAPATH, t->ca_path);
    if (t->cert_file)
        curl_easy_setopt(call->easy, CURLOPT_SSLCERT, t->cert_file);
    if (t->key_file)
        curl_easy_setopt(call->easy, CURLOPT_SSLKEY, t->key_file);
    curl_easy_setopt(call->easy, CURLOPT_SSL_VERIFYPEER, t->skip_verify ? 0L : 1L);
    curl_easy_setopt(call->easy, CURLOPT_SSL_VERIFYHOST, t->skip_verify ? 0L : 2L);
    return t->server_name ? set_server_name(call, o, e) : 0;
}

static long clamp_ms(int64_t ms)
{
    return ms < 0 ? 0 : ms > INT_MAX ? INT_MAX : (long)ms; /* longer than libcurl can count */
}

static void set_manners(struct http_call *call, const struct http_call_options *o)
{
    CURL *easy = call->easy;
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->curl_text);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* A look-up that lasts longer than the call may end by itself: the loop must not wait for its thread. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    /* A long poll is silent for minutes; without probes a vanished host would be noticed at its end only. */
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, clamp_ms(o->timeout_ms));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, clamp_ms(o->connect_timeout_ms));
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
}

static int call_set_up(struct http_call *call, const struct http_call_options *o, struct err *e)
{
    call->easy = easy_get(call->client);
    if (!call->easy)
        return err_set(e, ERR_NOMEM, "no memory for a request");
    set_manners(call, o);
    if (curl_easy_setopt(call->easy, CURLOPT_URL, o->url) != CURLE_OK)
        return err_set(e, ERR_NOMEM, "no memory for a URL");
    if (o->unix_socket && curl_easy_setopt(call->easy, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket) != CURLE_OK)
        return err_set(e, ERR_NOMEM, "no memory for a path");
    int r = set_tls(call, o, e);
    r = r < 0 ? r : set_body(call, o, e);
    return r < 0 ? r : set_headers(call, o, e);
}

struct http_call *http_send(struct http_client *c, const struct http_call_options *options, http_done *done,
                            void *arg)
{
    assert(!c->freed && options->url);
    struct http_call *call = mem_new(struct http_call);
    *call = (struct http_call){.client = c, .piece = options->piece, .done = done, .arg = arg};
    list_init(&call->link);
    buf_init(&call->reply, options->reply_bytes_max);
    if (call_set_up(call, options, &call->err) < 0) {
        call_finish(call);
        return NULL;
    }
    CURLMcode r = fault_hit() ? CURLM_OUT_OF_MEMORY : curl_multi_add_handle(c->multi, call->easy);
    if (r != CURLM_OK) {
        (void)err_set(&call->err, ERR_NOMEM, "begin request: %s", curl_multi_strerror(r));
        call_finish(call);
        return NULL;
    }
    list_push_back(&c->calls, &call->link);
    return call;
}

void http_cancel(struct http_call *call)
{
    if (!call || !list_linked(&call->link))
        return;                                                /* in its own callback */
    curl_multi_remove_handle(call->client->multi, call->easy); /* does nothing when it was removed */
    call_free(call);
}

const char *http_reply_header(const struct http_reply *reply, const char *name)
{
    struct curl_header *header;
    if (curl_easy_header(reply->call->easy, name, 0, CURLH_HEADER, -1, &header) != CURLHE_OK)
        return NULL;
    return header->value;
}

/* --- the client --------------------------------------------------------------------------------------------------- */

int http_client_new(struct loop *loop, unsigned connections_max, struct http_client **ret, struct err *e)
{
    if (!(curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS))
        return err_set(e, ERR_BAD_STATE, "this libcurl blocks while it resolves names");
    CURLM *multi = fault_hit() ? NULL : curl_multi_init();
    if (!multi)
        return err_set(e, ERR_NOMEM, "make an HTTP client");
    struct http_client *c = mem_new(struct http_client);
    *c = (struct http_client){.loop = loop, .multi = multi, .deliver.run = on_deliver};
    list_init(&c->calls);
    list_init(&c->finished);
    c->timer = loop_timer_new(loop, on_timer, c);
    /* Otherwise the cache shrinks with the number of calls under way, and a lull costs the warm connections.
     */
    curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)connections_max);
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, c);
    *ret = c;
    return 0;
}

void http_client_free(struct http_client *c)
{
    if (!c)
        return;
    struct list *link;
    while ((link = list_pop_front(&c->calls))) {
        struct http_call *call = call_of(link);
        curl_multi_remove_handle(c->multi, call->easy);
        (void)err_set(&call->err, ERR_CANCELLED, "the HTTP client was closed");
        list_push_back(&c->finished, &call->link);
    }
    c->freed = true;
    while ((link = list_pop_front(&c->finished)))
        call_deliver(call_of(link));
    while (c->idle_count > 0)
        curl_easy_cleanup(c->idle[--c->idle_count]);
    curl_multi_cleanup(c->multi);
    loop_timer_free(c->timer);
    if (!c->deliver_pending && !c->delivering)
        mem_free(c);
}
