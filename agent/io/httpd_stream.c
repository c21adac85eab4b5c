#include "agent/io/httpd_private.h"

#include "agent/base/err.h"
#include "agent/base/mem.h"

#include <assert.h>
#include <poll.h>
#include <string.h>

enum { READ_BLOCK_BYTES = 16384 };

void httpd_stream_unref_(struct httpd_stream *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    buf_fini(&s->out);
    pthread_mutex_destroy(&s->lock);
    httpd_unref_(s->h);
    mem_free(s);
}

static void on_response_free(void *arg)
{
    httpd_stream_unref_(arg);
}

/* Called with the lock held. */
static void call_room(struct httpd_stream *s)
{
    s->busy = false;
    if (s->room)
        s->room(s->room_arg);
}

/* libmicrohttpd asks for the next bytes. Without any it must be suspended, or it would ask again at once, for
 * ever. */
static ssize_t on_read(void *arg, uint64_t position, char *out, size_t max)
{
    (void)position;
    struct httpd_stream *s = arg;
    ssize_t n = 0;
    pthread_mutex_lock(&s->lock);
    if (s->gone || s->h->stopping) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (s->out.len > 0) {
        n = (ssize_t)(s->out.len < max ? s->out.len : max);
        memcpy(out, s->out.data, (size_t)n);
        buf_consume(&s->out, (size_t)n);
        if (s->busy && s->out.len <= s->out.max_bytes / 2)
            call_room(s);
    } else if (s->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        s->sleeping = true;
        httpd_suspend_(s->h, s->mhd);
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* Called with the lock held. */
static void wake_up(struct httpd_stream *s)
{
    struct httpd *h = s->h;
    if (!s->sleeping)
        return;
    s->sleeping = false;
    pthread_mutex_lock(&h->lock);
    list_push_back(&h->ready_streams, &s->ready);
    httpd_wake_(h);
    pthread_mutex_unlock(&h->lock);
}

/* --- the writer's side -------------------------------------------------------------------------------------------- */

struct httpd_stream *httpd_stream_begin(struct httpd_request *rq, int status,
                                        const struct httpd_header *headers, size_t headers_count,
                                        size_t buffer_bytes_max)
{
    struct httpd_stream *s = mem_new(struct httpd_stream);
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&s->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    s->h = rq->h;
    httpd_ref_(s->h);
    atomic_init(&s->refs, 3);
    list_init(&s->link);
    list_init(&s->ready);
    buf_init(&s->out, buffer_bytes_max);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, READ_BLOCK_BYTES, on_read, s, on_response_free);
    if (response)
        httpd_add_headers_(response, headers, headers_count);
    else
        httpd_stream_unref_(s);
    s->gone = !response;
    rq->stream = s;
    httpd_respond_(rq, status, response, 0);
    return s;
}

int httpd_stream_write(struct httpd_stream *s, const void *data, size_t bytes)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    assert(!s->ended && bytes <= s->out.max_bytes);
    if (s->gone) {
        r = -ERR_CANCELLED;
    } else if (bytes > s->out.max_bytes - s->out.len) {
        s->busy = true;
        r = -ERR_BUSY;
    } else {
        buf_add(&s->out, data, bytes);
        if (buf_failed(&s->out)) { /* no memory: a stream with a hole would be worse */
            s->gone = true;
            r = -ERR_CANCELLED;
        }
        wake_up(s);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

void httpd_stream_on_room(struct httpd_stream *s, void (*room)(void *arg), void *arg)
{
    pthread_mutex_lock(&s->lock);
    s->room = room;
    s->room_arg = arg;
    pthread_mutex_unlock(&s->lock);
}

void httpd_stream_end(struct httpd_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->ended = true;
    s->room = NULL;
    wake_up(s);
    pthread_mutex_unlock(&s->lock);
    httpd_stream_unref_(s);
}

void httpd_stream_break(struct httpd_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->gone = true;
    s->room = NULL;
    wake_up(s);
    pthread_mutex_unlock(&s->lock);
    httpd_stream_unref_(s);
}

/* --- the server's side -------------------------------------------------------------------------------------------- */

void httpd_stream_attach_(struct httpd_stream *s, struct MHD_Connection *mhd)
{
    s->mhd = mhd;
    list_push_back(&s->h->streams, &s->link);
}

void httpd_stream_gone_(struct httpd_stream *s)
{
    list_remove(&s->link);
    pthread_mutex_lock(&s->lock);
    s->gone = true;
    buf_fini(&s->out);
    call_room(s);
    pthread_mutex_unlock(&s->lock);
}

static void abort_locked(struct httpd_stream *s)
{
    s->gone = true;
    if (!s->sleeping)
        return;
    s->sleeping = false;
    httpd_resume_(s->h, s->mhd);
}

void httpd_stream_abort_(struct httpd_stream *s)
{
    pthread_mutex_lock(&s->lock);
    abort_locked(s);
    pthread_mutex_unlock(&s->lock);
}

/* A client that only closed its sending half still reads; one that has gone shows as an error once something
 * was sent. */
void httpd_stream_probe_(struct httpd_stream *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->sleeping) {
        struct pollfd fd = {
            .fd = MHD_get_connection_info(s->mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd};
        if (poll(&fd, 1, 0) == 1 && (fd.revents & (POLLERR | POLLHUP)))
            abort_locked(s);
    }
    pthread_mutex_unlock(&s->lock);
}
