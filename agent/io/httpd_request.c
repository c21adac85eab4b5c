#include "agent/io/httpd_private.h"

#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"

#include <assert.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <string.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>

enum {
    /* A client that is still sending when we close gets a reset, and often loses our answer with it. So what
     * is not wanted of a body is read and dropped, up to here. */
    DROP_MAX_BYTES = 8 << 20,
    BYTES_PER_MS = 16, /* slower than 16 KiB/s counts as stuck */
};

/* RFC 9457, as all other refusals are. */
#define NO_CERTIFICATE                                                                                     \
    "{\"type\":\"about:blank\",\"title\":\"Not allowed\",\"status\":403,\"detail\":\"this listener takes " \
    "only clients with a certificate of an authority that it trusts\",\"code\":\"forbidden\",\"errors\":[]}\n"
#define BAD_TARGET                                                                                      \
    "{\"type\":\"about:blank\",\"title\":\"The request is not valid\",\"status\":400,\"detail\":\"the " \
    "request's target holds a byte that must be percent-encoded\",\"code\":\"invalid_request\",\"errors\":[]}\n"
#define UNAVAILABLE                                                                                               \
    "{\"type\":\"about:blank\",\"title\":\"The agent has too much to do now\",\"status\":503,\"detail\":\"there " \
    "is no memory for this, or the agent is stopping\",\"code\":\"overloaded\",\"errors\":[]}\n"

static const struct log_ctx log_httpd = {.module = "httpd"};

/* --- life --------------------------------------------------------------------------------------------------------- */

static void request_unref(struct httpd_request *rq)
{
    if (atomic_fetch_sub_explicit(&rq->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (rq->user_free)
        rq->user_free(rq->user);
    if (rq->response)
        MHD_destroy_response(rq->response);
    if (rq->stream)
        httpd_stream_unref_(rq->stream);
    buf_fini(&rq->head);
    buf_fini(&rq->query);
    buf_fini(&rq->body);
    httpd_unref_(rq->h);
    mem_free(rq);
}

void *httpd_on_uri_(void *arg, const char *uri, struct MHD_Connection *mhd)
{
    struct httpd *h = arg;
    struct httpd_request *rq = mem_new(struct httpd_request);
    uri = uri ? uri : ""; /* "GET" and nothing more */
    rq->h = h;
    rq->mhd = mhd;
    rq->conn = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    rq->is_unix = h->listener.is_unix;
    rq->uri_seen = uri;
    atomic_init(&rq->refs, 2);
    atomic_init(&rq->state, RQ_READING);
    list_init(&rq->link);
    list_init(&rq->ready);
    buf_init(&rq->head, h->o.header_bytes_max * 2 + 4096);
    buf_init(&rq->query, h->o.header_bytes_max + 4096);
    size_t uri_len = strlen(uri), path_len = strcspn(uri, "?");
    buf_add(&rq->head, uri, path_len);
    buf_add_char(&rq->head, '\0');
    rq->query_at = rq->head.len;
    if (path_len < uri_len)
        buf_add(&rq->head, uri + path_len + 1, uri_len - path_len - 1);
    buf_add_char(&rq->head, '\0');
    rq->uri_len = uri_len;
    httpd_ref_(h);
    h->requests++;
    return rq;
}

void httpd_on_completed_(void *arg, struct MHD_Connection *mhd, void **slot,
                         enum MHD_RequestTerminationCode code)
{
    (void)mhd;
    (void)code;
    struct httpd *h = arg;
    struct httpd_request *rq = *slot;
    *slot = NULL;
    if (!rq)
        return;
    h->requests--;
    httpd_limit_(rq->conn, 0);
    rq->conn->silent_since_ms = h->now_ms;
    bool replied = atomic_load_explicit(&rq->state, memory_order_acquire) == RQ_REPLIED;
    if (replied && rq->stream)
        httpd_stream_gone_(rq->stream);
    if (!rq->handed_over && !replied)
        request_unref(rq); /* the handler will never see it */
    request_unref(rq);
}

/* --- reading the head --------------------------------------------------------------------------------------------- */

static void query_add(struct buf *out, const char *s, size_t len)
{
    size_t before = out->len;
    if (text_percent_decode(out, s, len, true, NULL) < 0) {
        buf_truncate(out, before);
        buf_add(out, s, len);
    }
    buf_add_char(out, '\0');
}

static void query_parse(struct httpd_request *rq)
{
    const char *at = httpd_query_string(rq);
    while (*at) {
        size_t len = strcspn(at, "&");
        const char *equals = memchr(at, '=', len);
        size_t name_len = equals ? (size_t)(equals - at) : len;
        if (len > 0) {
            query_add(&rq->query, at, name_len);
            query_add(&rq->query, at + name_len + (equals != NULL), len - name_len - (equals != NULL));
        }
        at += len + (at[len] == '&');
    }
}

static enum MHD_Result on_header(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void)kind;
    struct httpd_request *rq = arg;
    buf_add(&rq->head, name, strlen(name) + 1);
    buf_add(&rq->head, value ? value : "", value ? strlen(value) + 1 : 1);
    return MHD_YES;
}

/* libmicrohttpd 0.9.75 hands a URI with a NUL out cut off at that byte. Its version string stands behind the
 * URI in the same memory, one byte after the end of a URI without. Where a later release keeps them apart it
 * refuses NULs itself. */
static bool uri_was_cut(const struct httpd_request *rq, const char *version)
{
    uintptr_t end_at = (uintptr_t)rq->uri_seen + rq->uri_len, at = (uintptr_t)version;
    return at > end_at + 1 && at - end_at < rq->h->o.header_bytes_max * 2;
}

/* libmicrohttpd asks for a client's certificate, but takes any or none. */
static bool client_allowed(struct httpd_request *rq)
{
    if (!rq->h->o.tls_client_ca || rq->conn->cert_checked)
        return true;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(rq->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    unsigned wrong = 0;
    rq->conn->cert_checked = info &&
                             gnutls_certificate_verify_peers3((gnutls_session_t)info->tls_session,
                                                              rq->h->o.tls_client_name, &wrong) == 0 &&
                             wrong == 0;
    return rq->conn->cert_checked;
}

static bool head_take(struct httpd_request *rq, const char *method)
{
    rq->method_at = rq->head.len;
    buf_add(&rq->head, method, strlen(method) + 1);
    rq->headers_at = rq->head.len;
    MHD_get_connection_values(rq->mhd, MHD_HEADER_KIND, on_header, rq);
    if (buf_failed(&rq->head))
        return false;
    query_parse(rq);
    return !buf_failed(&rq->query);
}

static void unix_peer(int fd, struct httpd_peer *ret)
{
    struct ucred who;
    socklen_t size = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0)
        return;
    ret->has_uid = true;
    ret->uid = who.uid;
    (void)snprintf(ret->text, sizeof(ret->text), "unix:pid=%d,uid=%u", (int)who.pid,
                   (unsigned)who.uid); /* fits */
}

static void inet_peer(int fd, struct httpd_peer *ret)
{
    struct sockaddr_storage at = {0};
    socklen_t size = sizeof(at);
    char host[48] = "", port[8] = ""; /* numbers */
    if (getpeername(fd, (struct sockaddr *)&at, &size) != 0 ||
        getnameinfo((struct sockaddr *)&at, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    bool is_v6 = strchr(host, ':') != NULL;
    (void)snprintf(ret->text, sizeof(ret->text), is_v6 ? "[%s]:%s" : "%s:%s", host, port); /* fits */
    ret->host_len = strlen(host) + (is_v6 ? 2 : 0);
}

/* It stays the same as long as the connection lasts. */
void httpd_peer(const struct httpd_request *rq, struct httpd_peer *ret)
{
    struct httpd_conn *conn = rq->conn;
    if (!conn->peer_known) {
        (rq->is_unix ? unix_peer : inet_peer)(conn->fd, &conn->peer);
        conn->peer_known = conn->peer.text[0] != '\0';
    }
    *ret = conn->peer;
}

/* --- replying ----------------------------------------------------------------------------------------------------- */

static enum MHD_Result queue_now(struct httpd_request *rq, unsigned status, struct MHD_Response *response)
{
    if (!response)
        return MHD_NO;
    rq->conn->reads_body = false;
    rq->conn->silent_since_ms = 0;
    if (rq->stream)
        rq->conn->deadline_ms = 0; /* lasts as long as it likes, unless the client takes nothing */
    else
        httpd_limit_(rq->conn, rq->response_bytes / BYTES_PER_MS);
    return MHD_queue_response(rq->mhd, status, response);
}

static enum MHD_Result queue_reply(struct httpd_request *rq)
{
    if (atomic_load_explicit(&rq->state, memory_order_acquire) != RQ_REPLIED)
        return queue_now(rq, MHD_HTTP_SERVICE_UNAVAILABLE, rq->h->unavailable);
    if (rq->stream)
        httpd_stream_attach_(rq->stream, rq->mhd);
    return queue_now(rq, rq->status, rq->response);
}

/* A refusal before anybody else saw the request. TEXT: a constant, "" none. */
static enum MHD_Result queue_refusal(struct httpd_request *rq, unsigned status, const char *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    const struct httpd_header headers[] = {{"Connection", "close"},
                                           {"Content-Type", "application/problem+json"}};
    if (response)
        httpd_add_headers_(response, headers, *text ? 2 : 1);
    enum MHD_Result r = queue_now(rq, status, response);
    if (response)
        MHD_destroy_response(response);
    return r;
}

void httpd_add_headers_(struct MHD_Response *response, const struct httpd_header *headers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (MHD_add_response_header(response, headers[i].name, headers[i].value) != MHD_YES)
            log_warn(&log_httpd, "reply header left out", "name=%s", LOGQ(headers[i].name));
}

struct MHD_Response *httpd_unavailable_new_(void)
{
    static const struct httpd_header headers[] = {
        {"Connection", "close"}, {"Content-Type", "application/problem+json"}, {"Retry-After", "1"}};
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(UNAVAILABLE), (void *)UNAVAILABLE, MHD_RESPMEM_PERSISTENT);
    if (r)
        httpd_add_headers_(r, headers, sizeof(headers) / sizeof(headers[0]));
    return r;
}

void httpd_respond_(struct httpd_request *rq, int status, struct MHD_Response *response, uint64_t bytes)
{
    struct httpd *h = rq->h;
    rq->response = response;
    rq->status = (unsigned)status;
    rq->response_bytes = bytes;
    enum request_state before = atomic_load_explicit(&rq->state, memory_order_acquire);
    do {
        assert(before != RQ_REPLIED);
        if (before == RQ_ABANDONED)
            break;
    } while (!atomic_compare_exchange_weak_explicit(&rq->state, &before, RQ_REPLIED, memory_order_acq_rel,
                                                    memory_order_acquire));
    if (before == RQ_SUSPENDED) {
        pthread_mutex_lock(&h->lock);
        list_push_back(&h->ready_requests, &rq->ready);
        httpd_wake_(h);
        pthread_mutex_unlock(&h->lock);
    }
    if (before == RQ_ABANDONED && rq->stream)
        httpd_stream_gone_(rq->stream);
    request_unref(rq);
}

void httpd_reply(struct httpd_request *rq, int status, const struct httpd_header *headers,
                 size_t headers_count, struct buf *body)
{
    size_t bytes = 0;
    if (body && buf_failed(body)) {
        buf_fini(body);
        httpd_respond_(rq, MHD_HTTP_SERVICE_UNAVAILABLE, httpd_unavailable_new_(), strlen(UNAVAILABLE));
        return;
    }
    char *data = body && body->len > 0 ? buf_steal(body, &bytes, NULL) : NULL;
    struct MHD_Response *response =
        data ? MHD_create_response_from_buffer(bytes, data, MHD_RESPMEM_MUST_FREE)
             : MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
    if (response)
        httpd_add_headers_(response, headers, headers_count);
    else
        mem_free(data);
    httpd_respond_(rq, status, response, bytes);
}

void httpd_abandon_(struct httpd_request *rq)
{
    enum request_state before = RQ_SUSPENDED;
    if (!atomic_compare_exchange_strong_explicit(&rq->state, &before, RQ_ABANDONED, memory_order_acq_rel,
                                                 memory_order_acquire))
        return; /* the reply was given just now */
    list_remove(&rq->link);
    httpd_resume_(rq->h, rq->mhd);
}

/* --- libmicrohttpd's three calls: head, pieces of the body, end --------------------------------------------------- */

static bool replied(const struct httpd_request *rq)
{
    return atomic_load_explicit(&rq->state, memory_order_acquire) == RQ_REPLIED;
}

static bool starved(const struct httpd_request *rq)
{
    return rq->starved || buf_check(&rq->head, NULL) == -ERR_NOMEM ||
           buf_check(&rq->query, NULL) == -ERR_NOMEM;
}

/* Whether it is better to answer at once than to read the body that is announced. */
static bool not_worth_reading(const struct httpd_request *rq, uint64_t content_length)
{
    const char *expect = httpd_header(rq, "Expect");
    return content_length > DROP_MAX_BYTES ||
           (content_length > 0 && expect && strcasecmp(expect, "100-continue") == 0);
}

static uint64_t announced_length(const struct httpd_request *rq)
{
    uint64_t length = 0;
    const char *text = httpd_header(rq, "Content-Length");
    if (!text)
        return 0;
    return text_u64(text, strlen(text), 0, UINT64_MAX, &length, NULL) == 0 ? length : UINT64_MAX;
}

static void reply_too_large(struct httpd_request *rq)
{
    rq->h->o.too_large(rq, rq->h->o.arg);
    assert(replied(rq));
}

static enum MHD_Result begin(struct httpd_request *rq, const char *method, const char *version)
{
    struct httpd *h = rq->h;
    rq->begun = true;
    httpd_limit_(rq->conn, 0);
    if (h->stopping || starved(rq))
        return queue_now(rq, MHD_HTTP_SERVICE_UNAVAILABLE, h->unavailable);
    if (uri_was_cut(rq, version) || strchr(httpd_path(rq), ' ') || strchr(httpd_query_string(rq), ' '))
        return queue_refusal(rq, MHD_HTTP_BAD_REQUEST, BAD_TARGET);
    if (!client_allowed(rq))
        return queue_refusal(rq, MHD_HTTP_FORBIDDEN, NO_CERTIFICATE);
    if (!head_take(rq, method))
        return starved(rq) ? queue_now(rq, MHD_HTTP_SERVICE_UNAVAILABLE, h->unavailable)
                           : queue_refusal(rq, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, "");
    uint64_t length = announced_length(rq);
    int64_t body_max = h->o.accept(rq, h->o.arg);
    assert((body_max < 0) == replied(rq));
    rq->body_max = body_max < 0 ? 0 : (uint64_t)body_max;
    if (rq->body_max > MEM_TRY_MAX_BYTES / 2)
        rq->body_max = MEM_TRY_MAX_BYTES / 2;
    buf_init(&rq->body, rq->body_max);
    rq->too_large = !replied(rq) && length > rq->body_max;
    if (rq->too_large && not_worth_reading(rq, length))
        reply_too_large(rq);
    return replied(rq) && not_worth_reading(rq, length) ? queue_reply(rq) : MHD_YES;
}

static enum MHD_Result take_piece(struct httpd_request *rq, const char *data, size_t bytes)
{
    rq->conn->ended = false;
    if (rq->conn->deadline_ms)
        rq->conn->deadline_ms += bytes / BYTES_PER_MS;
    bool kept = !replied(rq) && !rq->too_large && !rq->starved;
    if (kept && bytes <= rq->body_max - rq->body.len) {
        buf_add(&rq->body, data, bytes);
        rq->starved = buf_failed(&rq->body);
        if (!rq->starved)
            return MHD_YES;
    } else if (kept) {
        rq->too_large = true;
    }
    buf_fini(&rq->body);
    rq->dropped += bytes;
    return rq->dropped > DROP_MAX_BYTES ? MHD_NO : MHD_YES;
}

static enum MHD_Result end(struct httpd_request *rq)
{
    struct httpd *h = rq->h;
    rq->conn->reads_body = false;
    rq->conn->silent_since_ms = 0;
    if (!rq->handed_over && !replied(rq) && rq->too_large)
        reply_too_large(rq);
    if (rq->handed_over || replied(rq))
        return queue_reply(rq);
    if (h->stopping || rq->starved)
        return queue_now(rq, MHD_HTTP_SERVICE_UNAVAILABLE, h->unavailable);
    rq->handed_over = true;
    rq->conn->deadline_ms = 0; /* the time of the handler is not the client's fault */
    atomic_store_explicit(&rq->state, RQ_HANDLING, memory_order_release);
    h->handled = true;
    h->o.handle(rq, h->o.arg);
    enum request_state before = RQ_HANDLING;
    if (!atomic_compare_exchange_strong_explicit(&rq->state, &before, RQ_SUSPENDED, memory_order_acq_rel,
                                                 memory_order_acquire))
        return queue_reply(rq);
    /* Whoever replies from here on puts it into ready_requests, which only this thread takes. */
    list_push_back(&h->awaited, &rq->link);
    httpd_suspend_(h, rq->mhd);
    return MHD_YES;
}

enum MHD_Result httpd_on_request_(void *arg, struct MHD_Connection *mhd, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_bytes, void **slot)
{
    (void)arg;
    (void)mhd;
    (void)url;
    struct httpd_request *rq = *slot;
    if (!rq)
        return MHD_NO;
    if (!rq->begun) {
        rq->conn->reads_body = true;
        rq->conn->ended = false;
        return begin(rq, method, version);
    }
    if (*upload_bytes == 0)
        return end(rq);
    enum MHD_Result r = take_piece(rq, upload, *upload_bytes);
    *upload_bytes = 0;
    return r;
}

/* --- what the handler reads --------------------------------------------------------------------------------------- */

const char *httpd_method(const struct httpd_request *rq)
{
    return rq->head.data + rq->method_at;
}

const char *httpd_path(const struct httpd_request *rq)
{
    return rq->head.data;
}

const char *httpd_query_string(const struct httpd_request *rq)
{
    return rq->head.data + rq->query_at;
}

const char *httpd_header_next(const struct httpd_request *rq, const char *name, size_t *cursor)
{
    while (rq->headers_at + *cursor < rq->head.len) {
        const char *at = rq->head.data + rq->headers_at + *cursor, *value = at + strlen(at) + 1;
        *cursor += (size_t)(value + strlen(value) + 1 - at);
        if (strcasecmp(at, name) == 0)
            return value;
    }
    return NULL;
}

const char *httpd_header(const struct httpd_request *rq, const char *name)
{
    size_t cursor = 0;
    return httpd_header_next(rq, name, &cursor);
}

const char *httpd_query_next(const struct httpd_request *rq, const char *name, size_t *cursor)
{
    while (*cursor < rq->query.len) {
        const char *at = rq->query.data + *cursor, *value = at + strlen(at) + 1;
        *cursor = (size_t)(value + strlen(value) + 1 - rq->query.data);
        if (strcmp(at, name) == 0)
            return value;
    }
    return NULL;
}

const char *httpd_query(const struct httpd_request *rq, const char *name)
{
    size_t cursor = 0;
    return httpd_query_next(rq, name, &cursor);
}

void httpd_query_each(const struct httpd_request *rq,
                      bool (*visit)(void *arg, const char *name, const char *value), void *arg)
{
    const char *at = buf_str(&rq->query), *end_at = at + rq->query.len;
    while (at < end_at) {
        const char *value = at + strlen(at) + 1;
        if (!visit(arg, at, value))
            return;
        at = value + strlen(value) + 1;
    }
}

const char *httpd_body(const struct httpd_request *rq, size_t *ret_bytes)
{
    *ret_bytes = rq->body.len;
    return buf_str(&rq->body);
}

bool httpd_is_unix(const struct httpd_request *rq)
{
    return rq->is_unix;
}

void httpd_set_user(struct httpd_request *rq, void *user, void (*user_free)(void *user))
{
    if (rq->user_free)
        rq->user_free(rq->user);
    rq->user = user;
    rq->user_free = user_free;
}

void *httpd_user(const struct httpd_request *rq)
{
    return rq->user;
}
