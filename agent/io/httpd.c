#include "agent/io/httpd_private.h"

#include "agent/base/clock.h"
#include "agent/base/err.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_TURN = 64,
    NO_FDS_PAUSE_MS = 100,
    SWEEP_MAX_MS = 1000,
    SILENT_MIN_MS = 1000, /* who connects has so long to say what he wants, however many do */
    STOP_GRACE_MS = 1000, /* for clients that take their last replies slowly */
    HEADER_BYTES_MIN = 1024,
};

static const struct log_ctx log_httpd = {.module = "httpd"};

/* --- shared with requests and streams ----------------------------------------------------------------------------- */

void httpd_ref_(struct httpd *h)
{
    atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
}

void httpd_unref_(struct httpd *h)
{
    if (atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) != 1)
        return;
    listener_fini(&h->listener);
    httpd_tls_files_fini_(&h->files);
    httpd_tls_unref_(h->tls);
    mem_free((char *)(uintptr_t)h->o.tls_cert);
    mem_free((char *)(uintptr_t)h->o.tls_key);
    mem_free((char *)(uintptr_t)h->o.tls_client_ca);
    mem_free((char *)(uintptr_t)h->o.tls_client_name);
    fd_close(h->wake_fd);
    pthread_mutex_destroy(&h->lock);
    mem_free(h);
}

void httpd_wake_(struct httpd *h)
{
    if (h->woken)
        return;
    h->woken = true;
    (void)!eventfd_write(h->wake_fd, 1); /* fails only when the counter is full, and then it wakes as well */
}

void httpd_limit_(struct httpd_conn *conn, uint64_t more_ms)
{
    conn->deadline_ms =
        conn->h->o.idle_timeout_ms ? conn->h->now_ms + conn->h->o.idle_timeout_ms + more_ms : 0;
}

void httpd_suspend_(struct httpd *h, struct MHD_Connection *mhd)
{
    h->suspended++;
    MHD_suspend_connection(mhd);
}

void httpd_resume_(struct httpd *h, struct MHD_Connection *mhd)
{
    assert(h->suspended > 0);
    h->suspended--;
    MHD_resume_connection(mhd);
}

/* --- connections -------------------------------------------------------------------------------------------------- */

static void on_connection(void *arg, struct MHD_Connection *mhd, void **slot,
                          enum MHD_ConnectionNotificationCode code)
{
    struct httpd *h = arg;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        struct httpd_conn *conn = mem_new(struct httpd_conn);
        conn->h = h;
        conn->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        list_push_back(&h->conns, &conn->link);
        conn->tls = httpd_tls_attach_(h, mhd);
        httpd_limit_(conn, 0);
        conn->silent_since_ms = h->now_ms;
        atomic_fetch_add_explicit(&h->connections, 1, memory_order_relaxed);
        *slot = conn;
    } else {
        struct httpd_conn *conn = *slot;
        list_remove(&conn->link);
        atomic_fetch_sub_explicit(&h->connections, 1, memory_order_relaxed);
        httpd_tls_unref_(conn->tls);
        mem_free(conn);
    }
}

static void refuse(struct httpd *h, int fd)
{
    static const char reply[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
                                "Connection: close\r\n\r\n";
    if (!h->o.tls_cert)
        (void)!send(fd, reply, sizeof reply - 1, MSG_NOSIGNAL | MSG_DONTWAIT); /* a courtesy only */
    char request[4096]; /* unread bytes would turn the close into a reset, which overtakes the reply */
    (void)!recv(fd, request, sizeof request, MSG_DONTWAIT);
    close(fd);
    log_warn(&log_httpd, "connection refused", "reason=connections_max max=%u", h->o.connections_max);
}

static bool is_full(struct httpd *h)
{
    return atomic_load_explicit(&h->connections, memory_order_relaxed) >= h->o.connections_max;
}

static bool has_unread(const struct httpd_conn *conn)
{
    char byte;
    return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Whose client has been silent longest is closed, as it would be a little later for being idle: else a thousand clients that say
 * nothing would keep all others out. False: none has been silent for long. */
static bool make_room(struct httpd *h)
{
    struct httpd_conn *longest = NULL;
    LIST_FOR (link, &h->conns) {
        struct httpd_conn *conn = container_of(link, struct httpd_conn, link);
        if (conn->closing_ms && h->now_ms < conn->closing_ms + SILENT_MIN_MS)
            return true; /* libmicrohttpd will see it in a moment */
        if (conn->silent_since_ms && (!longest || conn->silent_since_ms < longest->silent_since_ms))
            longest = conn;
    }
    if (!longest || h->now_ms < longest->silent_since_ms + SILENT_MIN_MS)
        return false;
    if (has_unread(longest)) { /* it has just spoken; the next turn looks for another */
        longest->silent_since_ms = h->now_ms;
        return true;
    }
    longest->silent_since_ms = 0;
    longest->closing_ms = h->now_ms;
    shutdown(longest->fd, SHUT_RDWR);
    log_warn(&log_httpd, "silent connection closed", "reason=connections_max max=%u", h->o.connections_max);
    return true;
}

static void accept_connections(struct httpd *h, bool last)
{
    for (unsigned n = 0; n < ACCEPTS_PER_TURN; n++) {
        if (is_full(h) && !last && (n > 0 || make_room(h)))
            return; /* the next turn knows whether somebody waits, and has room for him */
        struct sockaddr_storage addr;
        socklen_t addr_len = sizeof addr;
        int fd = accept4(h->listener.fd, (struct sockaddr *)&addr, &addr_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            /* The listener stays readable: without a pause this thread would only spin. */
            h->accept_again_ms = h->now_ms + NO_FDS_PAUSE_MS;
            log_warn(&log_httpd, "accept paused", "reason=%s pause_ms=%d", LOGQ(strerror(errno)),
                     NO_FDS_PAUSE_MS);
        }
        if (fd < 0)
            return;
        if (is_full(h))
            refuse(h, fd);
        else
            (void)MHD_add_connection(h->daemon, fd, (struct sockaddr *)&addr,
                                     addr_len); /* closes fd if it fails */
    }
}

/* Libmicrohttpd 0.9.75 reads what comes with a FIN and does not see the FIN: of an edge there is only one. Told at the second
 * sweep, for of what TLS has decrypted the socket knows nothing. */
static bool never_ends(struct httpd_conn *conn)
{
    char byte;
    bool before = conn->ended;
    conn->ended = conn->reads_body && recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
    return conn->ended && before;
}

/* libmicrohttpd's time-out starts anew with each byte, so a client that sends one now and then would stay for
 * ever. It sees a shut-down socket as closed by the client. */
static void sweep(struct httpd *h)
{
    uint64_t every_ms = h->o.idle_timeout_ms ? h->o.idle_timeout_ms / 4 + 1 : SWEEP_MAX_MS;
    h->sweep_ms = h->now_ms + (every_ms < SWEEP_MAX_MS ? every_ms : SWEEP_MAX_MS);
    LIST_FOR (link, &h->conns) {
        struct httpd_conn *conn = container_of(link, struct httpd_conn, link);
        if ((conn->deadline_ms && h->now_ms >= conn->deadline_ms) || never_ends(conn))
            shutdown(conn->fd, SHUT_RDWR);
    }
    LIST_FOR_SAFE(link, &h->streams)
    httpd_stream_probe_(container_of(link, struct httpd_stream, link));
}

/* --- the server's thread ------------------------------------------------------------------------------------------ */

static void take_orders(struct httpd *h, bool *ret_quiesce)
{
    struct list requests, streams, *link;
    list_init(&requests);
    list_init(&streams);
    pthread_mutex_lock(&h->lock);
    list_splice_back(&requests, &h->ready_requests);
    list_splice_back(&streams, &h->ready_streams);
    *ret_quiesce = h->quiesce_asked || h->stop_asked;
    h->stopping = h->stop_asked;
    if (h->woken) {
        eventfd_t count;
        (void)eventfd_read(h->wake_fd, &count);
    }
    h->woken = false;
    pthread_mutex_unlock(&h->lock);
    while ((link = list_pop_front(&requests))) {
        struct httpd_request *rq = container_of(link, struct httpd_request, ready);
        list_remove(&rq->link);
        httpd_resume_(h, rq->mhd);
    }
    while ((link = list_pop_front(&streams)))
        httpd_resume_(h, container_of(link, struct httpd_stream, ready)->mhd);
}

static int wait_ms(struct httpd *h, bool listening)
{
    MHD_UNSIGNED_LONG_LONG mhd_ms;
    uint64_t ms = h->sweep_ms > h->now_ms ? h->sweep_ms - h->now_ms : 0;
    if (!listening && h->listener.fd >= 0 && h->accept_again_ms - h->now_ms < ms)
        ms = h->accept_again_ms - h->now_ms;
    if (MHD_get_timeout(h->daemon, &mhd_ms) == MHD_YES && mhd_ms < ms)
        ms = mhd_ms;
    return (int)ms;
}

static void run_daemon(struct httpd *h)
{
    MHD_run(h->daemon);
    if (h->handled && h->o.turned)
        h->o.turned(h->o.arg);
    h->handled = false;
}

static void serve_turn(struct httpd *h)
{
    bool listening = h->listener.fd >= 0 && h->now_ms >= h->accept_again_ms, quiesce;
    struct pollfd fds[] = {
        {.fd = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, .events = POLLIN},
        {.fd = h->wake_fd, .events = POLLIN},
        {.fd = listening ? h->listener.fd : -1, .events = POLLIN},
    };
    (void)poll(fds, 3, wait_ms(h, listening)); /* whatever it says, what follows does not block */
    h->now_ms = clock_boot_ms();
    take_orders(h, &quiesce);
    if (fds[2].revents || (quiesce && listening))
        accept_connections(h, quiesce);
    if (quiesce)
        listener_close(&h->listener);
    run_daemon(h);
    if (h->now_ms >= h->sweep_ms)
        sweep(h);
}

/* libmicrohttpd panics when it is stopped with suspended connections. A request whose reply was given by
 * another thread just now is suspended still, and that thread will wake us: hence no time limit for those. */
static void drain(struct httpd *h)
{
    LIST_FOR_SAFE(link, &h->awaited)
    httpd_abandon_(container_of(link, struct httpd_request, link));
    LIST_FOR_SAFE(link, &h->streams)
    httpd_stream_abort_(container_of(link, struct httpd_stream, link));
    uint64_t until_ms = h->now_ms + STOP_GRACE_MS;
    run_daemon(h);
    while (h->suspended > 0 || (h->requests > 0 && h->now_ms < until_ms)) {
        h->sweep_ms = h->sweep_ms < until_ms ? h->sweep_ms : until_ms;
        serve_turn(h);
    }
}

static void *serve(void *arg)
{
    struct httpd *h = arg;
    h->now_ms = clock_boot_ms();
    while (!h->stopping)
        serve_turn(h);
    drain(h);
    MHD_stop_daemon(h->daemon);
    return NULL;
}

/* --- start and stop ----------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *format, va_list ap)
{
    struct httpd *h = arg;
    char text[sizeof h->start_error];
    vsnprintf(text, sizeof text, format, ap);
    text[strcspn(text, "\n")] = '\0';
    if (!h->started)
        memcpy(h->start_error, text, sizeof text);
    log_debug(&log_httpd, "libmicrohttpd", "text=%s", LOGQ(text));
}

/* Paths and queries are decoded by us, piece by piece: a decoded '/' or '&' is data. */
static size_t on_unescape(void *arg, struct MHD_Connection *mhd, char *text)
{
    (void)arg;
    (void)mhd;
    return strlen(text);
}

static int daemon_start(struct httpd *h, struct err *e)
{
    struct MHD_OptionItem tls[4] = {{MHD_OPTION_END, 0, NULL}};
    unsigned n = 0,
             flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG;
    if (h->o.tls_cert) {
        flags |= MHD_USE_TLS;
        tls[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, h->files.cert.data};
        tls[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, h->files.key.data};
        if (h->o.tls_client_ca)
            tls[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_TRUST, 0, h->files.client_ca.data};
        tls[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    }
    /* Not MHD_OPTION_STRICT_FOR_CLIENT: it answers a request without Host with a page of its own, and one with a space in its target
     * not at all. The former is the handler's to judge, the latter is refused in httpd_request.c.
     * Its memory also holds a record for each header and the head of the reply. */
    size_t memory_bytes = h->o.header_bytes_max * 3 / 2 + 2048;
    unsigned timeout_s = h->o.idle_timeout_ms / 1000 + (h->o.idle_timeout_ms % 1000 != 0);
    errno = 0;
    h->daemon =
        fault_hit()
            ? NULL
            : MHD_start_daemon(flags, 0, NULL, NULL, httpd_on_request_, h, MHD_OPTION_EXTERNAL_LOGGER, on_log,
                               h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_NOTIFY_COMPLETED,
                               httpd_on_completed_, h, MHD_OPTION_URI_LOG_CALLBACK, httpd_on_uri_, h,
                               MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, NULL, MHD_OPTION_CONNECTION_LIMIT,
                               h->o.connections_max + 1, MHD_OPTION_CONNECTION_TIMEOUT, timeout_s,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, memory_bytes, MHD_OPTION_ARRAY, tls,
                               MHD_OPTION_END);
    if (!h->daemon && !h->start_error[0]) /* it says so only of some things */
        return err_sys(e, errno ? errno : ENOMEM, "start libmicrohttpd");
    if (!h->daemon)
        return err_set(e, h->o.tls_cert ? ERR_INVALID : ERR_IO, "start libmicrohttpd: %s", h->start_error);
    return 0;
}

static int prepare(struct httpd *h, struct err *e)
{
    h->tls_stamp = httpd_tls_stamp_(&h->o);
    int r = httpd_tls_files_read_(&h->files, &h->o, e);
    if (r < 0)
        return r;
    bool fault = fault_hit();
    h->wake_fd = fault ? -1 : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (h->wake_fd < 0)
        return err_sys(e, fault ? EMFILE : errno, "make an eventfd");
    r = listener_open(&h->listener, h->o.listen, h->o.socket_mode, e);
    return r < 0 ? r : daemon_start(h, e);
}

static int thread_start(struct httpd *h, struct err *e)
{
    h->unavailable = httpd_unavailable_new_();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    h->started = true;
    int r = fault_hit() || !h->unavailable ? EAGAIN : pthread_create(&h->thread, NULL, serve, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r == 0) {
        pthread_setname_np(h->thread, "httpd");
        return 0;
    }
    MHD_stop_daemon(h->daemon);
    if (h->unavailable)
        MHD_destroy_response(h->unavailable);
    return err_sys(e, r, "start the server's thread");
}

int httpd_start(const struct httpd_options *options, struct httpd **ret, struct err *e)
{
    struct err own = {0};
    assert(options->accept && options->handle && options->too_large && options->connections_max > 0);
    struct httpd *h = mem_new(struct httpd);
    h->o = *options;
    h->o.tls_cert = mem_strdup(options->tls_cert);
    h->o.tls_key = mem_strdup(options->tls_key);
    h->o.tls_client_ca = mem_strdup(options->tls_client_ca);
    h->o.tls_client_name = mem_strdup(options->tls_client_name);
    h->o.header_bytes_max =
        h->o.header_bytes_max < HEADER_BYTES_MIN ? HEADER_BYTES_MIN : h->o.header_bytes_max;
    h->wake_fd = h->listener.fd = -1;
    atomic_init(&h->refs, 1);
    list_init(&h->conns);
    list_init(&h->awaited);
    list_init(&h->streams);
    list_init(&h->ready_requests);
    list_init(&h->ready_streams);
    pthread_mutex_init(&h->lock, NULL);
    e = e ? e : &own;
    if (prepare(h, e) < 0 || thread_start(h, e) < 0) {
        httpd_unref_(h);
        return err_wrap(e, "start HTTP server on '%s'", options->listen);
    }
    *ret = h;
    return 0;
}

const char *httpd_address(const struct httpd *h)
{
    return h->listener.address;
}

unsigned httpd_port(const struct httpd *h)
{
    return h->listener.port;
}

unsigned httpd_connections(const struct httpd *h)
{
    return atomic_load_explicit(&h->connections, memory_order_relaxed);
}

void httpd_quiesce(struct httpd *h)
{
    pthread_mutex_lock(&h->lock);
    h->quiesce_asked = true;
    httpd_wake_(h);
    pthread_mutex_unlock(&h->lock);
}

void httpd_stop(struct httpd *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->stop_asked = true;
    httpd_wake_(h);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    MHD_destroy_response(h->unavailable);
    httpd_unref_(h);
}
