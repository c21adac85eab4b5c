#include "agent/io/grpcd.h"

#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/list.h"
#include "agent/base/mem.h"
#include "agent/base/text.h"
#include "agent/io/grpc_library.h"

#define MESSAGE_MAX (4 * 1024 * 1024)

/* What the completion queue returns. */
struct tag {
    void (*run)(struct tag *tag, bool ok);
};

struct pair {
    char *name, *value;
};

struct grpcd_call {
    struct list link; /* grpcd.calls, until the server has done with it */
    struct grpcd *g;
    grpc_call *call;
    struct tag message_tag, close_tag, reply_tag;
    unsigned pending; /* batches with the queue */
    bool replied;     /* under lock: the handler has done with it */
    bool let_go;      /* under lock: the server has */
    grpc_byte_buffer *received;
    grpc_slice message;
    int cancelled;
    char *method, *authority, *peer;
    struct pair *metadata;
    size_t metadata_count;
};

struct grpcd {
    struct grpcd_options options;
    char *address;
    uint16_t port;
    pthread_t thread;
    grpc_completion_queue *cq;
    grpc_server *server;
    pthread_mutex_t lock;
    unsigned users; /* under lock: the server itself, and each call, which may outlive it */
    struct list calls;
    bool stopping; /* under lock: no batch is started any more */
    bool stopped;  /* thread: the server says that it has ended */
    struct tag accept_tag, stop_tag;
    grpc_call *next_call; /* the one that is waited for */
    grpc_call_details next_details;
    grpc_metadata_array next_metadata;
};

/* --- calls --------------------------------------------------------------------------------------------------------- */

static char *slice_text(grpc_slice slice)
{
    char *text = mem_new_array(char, GRPC_SLICE_LENGTH(slice) + 1); /* metadata is capped by the library */
    memcpy(text, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice));
    return text;
}

/* Under lock, which is released. */
static void unlock_unref(struct grpcd *g)
{
    bool last = --g->users == 0;
    pthread_mutex_unlock(&g->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&g->lock);
    mem_free(g->address);
    mem_free(g);
}

static void call_free(struct grpcd_call *c)
{
    for (size_t i = 0; i < c->metadata_count; i++) {
        mem_free(c->metadata[i].name);
        mem_free(c->metadata[i].value);
    }
    mem_free(c->metadata);
    mem_free(c->method);
    mem_free(c->authority);
    mem_free(c->peer);
    grpc_slice_unref(c->message);
    mem_free(c);
}

/* Under lock: the server has done with C. What is left is the handler's. */
static void let_go(struct grpcd_call *c)
{
    c->let_go = true;
    list_remove(&c->link);
    grpc_call_unref(c->call);
    grpc_byte_buffer_destroy(c->received);
}

static void one_done(struct grpcd_call *c)
{
    struct grpcd *g = c->g;
    pthread_mutex_lock(&g->lock);
    bool over = --c->pending == 0 && (c->replied || g->stopping);
    if (over)
        let_go(c);
    if (!over || !c->replied) {
        pthread_mutex_unlock(&g->lock);
        return;
    }
    call_free(c);
    unlock_unref(g);
}

static void on_close(struct tag *tag, bool ok)
{
    (void)ok;
    one_done(container_of(tag, struct grpcd_call, close_tag));
}

static void on_replied(struct tag *tag, bool ok)
{
    (void)ok; /* the client may have gone */
    one_done(container_of(tag, struct grpcd_call, reply_tag));
}

static void on_message(struct tag *tag, bool ok)
{
    struct grpcd_call *c = container_of(tag, struct grpcd_call, message_tag);
    struct grpcd *g = c->g;
    grpc_byte_buffer_reader reader;
    if (ok && c->received && grpc_byte_buffer_reader_init(&reader, c->received)) {
        c->message = grpc_byte_buffer_reader_readall(&reader);
        grpc_byte_buffer_reader_destroy(&reader);
        g->options.handle(c, g->options.arg); /* it may reply, but C stays: this batch is still counted */
    } else {
        grpcd_reply(c, GRPC_STATUS_INTERNAL, "no message", NULL, 0);
    }
    one_done(c);
}

static void read_metadata(struct grpcd_call *c, const grpc_metadata_array *from)
{
    c->metadata = mem_new_array(struct pair, from->count + 1);
    for (size_t i = 0; i < from->count; i++) {
        c->metadata[i].name = slice_text(from->metadata[i].key);
        c->metadata[i].value = slice_text(from->metadata[i].value);
    }
    c->metadata_count = from->count;
}

static void start_reading(struct grpcd_call *c)
{
    grpc_op receive = {.op = GRPC_OP_RECV_MESSAGE}, closed = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    receive.data.recv_message.recv_message = &c->received;
    closed.data.recv_close_on_server.cancelled = &c->cancelled;
    c->message_tag.run = on_message;
    c->close_tag.run = on_close;
    c->reply_tag.run = on_replied;
    c->pending = 2;
    grpc_call_error rc = grpc_call_start_batch(c->call, &receive, 1, &c->message_tag, NULL);
    assert(rc == GRPC_CALL_OK);
    rc = grpc_call_start_batch(c->call, &closed, 1, &c->close_tag, NULL);
    assert(rc == GRPC_CALL_OK);
}

static void accept_next(struct grpcd *g)
{
    grpc_call_details_init(&g->next_details);
    grpc_metadata_array_init(&g->next_metadata);
    grpc_call_error rc = grpc_server_request_call(g->server, &g->next_call, &g->next_details,
                                                  &g->next_metadata, g->cq, g->cq, &g->accept_tag);
    assert(rc == GRPC_CALL_OK);
}

static struct grpcd_call *call_new(struct grpcd *g)
{
    struct grpcd_call *c = mem_new(struct grpcd_call);
    c->g = g;
    c->call = g->next_call;
    c->message = grpc_empty_slice();
    c->method = slice_text(g->next_details.method);
    c->authority = slice_text(g->next_details.host);
    char *peer = grpc_call_get_peer(c->call);
    c->peer = mem_strdup(peer);
    gpr_free(peer);
    read_metadata(c, &g->next_metadata);
    return c;
}

static void on_accept(struct tag *tag, bool ok)
{
    struct grpcd *g = container_of(tag, struct grpcd, accept_tag);
    struct grpcd_call *c = ok ? call_new(g) : NULL;
    grpc_call_details_destroy(&g->next_details);
    grpc_metadata_array_destroy(&g->next_metadata);
    pthread_mutex_lock(&g->lock);
    if (c) {
        g->users++;
        list_push_back(&g->calls, &c->link);
        start_reading(c);
    }
    if (!g->stopping)
        accept_next(g);
    pthread_mutex_unlock(&g->lock);
}

/* Under lock. */
static void start_reply(struct grpcd_call *c, int code, const char *details, const void *message,
                        size_t bytes)
{
    grpc_op ops[3] = {{.op = GRPC_OP_SEND_INITIAL_METADATA}, {.op = GRPC_OP_SEND_STATUS_FROM_SERVER}};
    grpc_slice text = grpc_slice_from_copied_string(details ? details : "");
    grpc_slice slice = grpc_slice_from_copied_buffer(message ? message : "", bytes);
    grpc_byte_buffer *body = code == 0 ? grpc_raw_byte_buffer_create(&slice, 1) : NULL;
    ops[1].data.send_status_from_server.status = (grpc_status_code)code;
    ops[1].data.send_status_from_server.status_details = &text;
    ops[2].op = GRPC_OP_SEND_MESSAGE;
    ops[2].data.send_message.send_message = body;
    c->pending++;
    grpc_call_error rc = grpc_call_start_batch(c->call, ops, body ? 3 : 2, &c->reply_tag, NULL);
    assert(rc == GRPC_CALL_OK);
    grpc_byte_buffer_destroy(body);
    grpc_slice_unref(slice);
    grpc_slice_unref(text);
}

void grpcd_reply(struct grpcd_call *c, int code, const char *details, const void *message, size_t bytes)
{
    struct grpcd *g = c->g;
    pthread_mutex_lock(&g->lock);
    c->replied = true;
    if (c->let_go) {
        call_free(c);
        unlock_unref(g);
        return;
    }
    if (!g->stopping)
        start_reply(c, code, details, message, bytes);
    pthread_mutex_unlock(&g->lock);
}

const char *grpcd_method(const struct grpcd_call *c)
{
    return c->method;
}

const char *grpcd_authority(const struct grpcd_call *c)
{
    return c->authority;
}

const char *grpcd_peer(const struct grpcd_call *c)
{
    return c->peer;
}

const char *grpcd_metadata(const struct grpcd_call *c, const char *name)
{
    for (size_t i = 0; i < c->metadata_count; i++)
        if (strcmp(c->metadata[i].name, name) == 0)
            return c->metadata[i].value;
    return NULL;
}

const void *grpcd_message(const struct grpcd_call *c, size_t *ret_bytes)
{
    *ret_bytes = GRPC_SLICE_LENGTH(c->message);
    return GRPC_SLICE_START_PTR(c->message);
}

/* --- the server ---------------------------------------------------------------------------------------------------- */

static void take_event(struct grpcd *g)
{
    grpc_event event = grpc_completion_queue_next(g->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    struct tag *tag = event.tag;
    assert(event.type == GRPC_OP_COMPLETE);
    tag->run(tag, event.success != 0);
}

static void on_stopped(struct tag *tag, bool ok)
{
    (void)ok;
    container_of(tag, struct grpcd, stop_tag)->stopped = true;
}

static bool calls_left(struct grpcd *g)
{
    pthread_mutex_lock(&g->lock);
    bool left = !list_empty(&g->calls);
    pthread_mutex_unlock(&g->lock);
    return left;
}

static void *run_server(void *arg)
{
    struct grpcd *g = arg;
    while (!g->stopped || calls_left(g))
        take_event(g);
    return NULL;
}

static void library_down(struct grpcd *g)
{
    if (g->server)
        grpc_server_destroy(g->server);
    grpc_completion_queue_shutdown(g->cq);
    while (grpc_completion_queue_next(g->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_completion_queue_destroy(g->cq);
    grpc_library_down();
}

static int make_credentials(const struct grpcd_options *o, grpc_server_credentials **ret, struct err *e)
{
    grpc_ssl_pem_key_cert_pair pair = {.private_key = o->tls_key, .cert_chain = o->tls_cert};
    if (!o->tls_cert)
        *ret = grpc_insecure_server_credentials_create();
    else
        *ret = grpc_ssl_server_credentials_create_ex(
            o->tls_client_ca, &pair, 1,
            o->tls_client_ca ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                             : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            NULL);
    return *ret ? 0 : err_set(e, ERR_INVALID, "the certificate and its key are not usable");
}

static int listen_on(struct grpcd *g, const struct grpcd_options *o, struct err *e)
{
    grpc_server_credentials *creds;
    grpc_arg list[] = {{.type = GRPC_ARG_INTEGER, .key = (char *)"grpc.so_reuseport", .value.integer = 0},
                       {.type = GRPC_ARG_INTEGER,
                        .key = (char *)"grpc.max_receive_message_length",
                        .value.integer = MESSAGE_MAX}};
    grpc_channel_args args = {2, list};
    size_t at, len;
    int rc = text_host_port(o->listen, strlen(o->listen), true, &at, &len, NULL, e);
    if (rc < 0 || (rc = make_credentials(o, &creds, e)) < 0)
        return rc;
    g->server = grpc_server_create(&args, NULL);
    grpc_server_register_completion_queue(g->server, g->cq, NULL);
    g->port = fault_hit() ? 0 : (uint16_t)grpc_server_add_http2_port(g->server, o->listen, creds);
    grpc_server_credentials_release(creds);
    if (g->port == 0)
        return err_set(e, ERR_UNAVAILABLE, "cannot listen on %s", o->listen);
    const char *colon = strrchr(o->listen, ':');
    size_t size = strlen(o->listen) + 8;
    g->address = mem_new_array(char, size);
    (void)snprintf(g->address, size, "%.*s:%u", (int)(colon - o->listen), o->listen,
                   g->port); /* sized for it */
    return 0;
}

static int start_thread(struct grpcd *g)
{
    sigset_t all, before;
    (void)sigfillset(&all); /* these two cannot fail */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = fault_hit() ? EAGAIN : pthread_create(&g->thread, NULL, run_server, g);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* As it ends when there was no thread yet. */
static void stop_here(struct grpcd *g)
{
    g->stopping = true;
    if (g->server) {
        grpc_server_shutdown_and_notify(g->server, g->cq, &g->stop_tag);
        (void)run_server(g);
    }
    library_down(g);
    pthread_mutex_lock(&g->lock);
    unlock_unref(g);
}

int grpcd_start(const struct grpcd_options *options, struct grpcd **ret, struct err *e)
{
    struct grpcd *g = mem_new(struct grpcd);
    g->options.handle = options->handle;
    g->options.arg = options->arg;
    g->users = 1;
    g->accept_tag.run = on_accept;
    g->stop_tag.run = on_stopped;
    list_init(&g->calls);
    pthread_mutex_init(&g->lock, NULL);
    grpc_library_up();
    g->cq = grpc_completion_queue_create_for_next(NULL);
    int rc = listen_on(g, options, e);
    if (rc == 0) {
        grpc_server_start(g->server);
        accept_next(g);
        int code = start_thread(g);
        rc = code ? err_sys(e, code, "start a thread for gRPC") : 0;
    }
    if (rc < 0) {
        stop_here(g);
        return rc;
    }
    *ret = g;
    return 0;
}

const char *grpcd_address(const struct grpcd *g)
{
    return g->address;
}

uint16_t grpcd_port(const struct grpcd *g)
{
    return g->port;
}

void grpcd_stop(struct grpcd *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->stopping = true;
    LIST_FOR_SAFE(link, &g->calls)
    {
        struct grpcd_call *c = container_of(link, struct grpcd_call, link);
        if (c->pending == 0) /* its client has gone; no event will come */
            let_go(c);
    }
    grpc_server_shutdown_and_notify(g->server, g->cq, &g->stop_tag);
    grpc_server_cancel_all_calls(g->server);
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    library_down(g);
    pthread_mutex_lock(&g->lock);
    unlock_unref(g);
}
