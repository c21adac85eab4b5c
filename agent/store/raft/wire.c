#include "agent/store/raft/wire.h"

#include <assert.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/list.h"
#include "agent/base/text.h"

#define PREFIX_BYTES    12 /* lengths: of the head 4 bytes, of the body 8, little endian */
#define PIECE_BYTES     ((size_t)64 << 10)
#define UNDER_WAY_BYTES ((size_t)256 << 10)
#define KEEPALIVE_S     3

struct item {
    struct list link;
    uint8_t prefix[PREFIX_BYTES];
    struct buf head;
    void *body;
    size_t bytes;
    size_t at; /* of prefix, head and body in one */
    void (*sent)(void *arg);
    void *arg;
};

struct piece {
    uv_write_t write;
    struct wire *wire;
    size_t bytes;
    char data[];
};

struct wire {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_getaddrinfo_t lookup;
    bool looking, closed;
    bool accepts, up;
    bool dead;   /* its handle is closing */
    bool silent; /* the owner has let it go */
    unsigned attempt;
    const struct wire_events *events;
    void *arg;
    SSL *ssl; /* NULL: none */
    struct wire_tls *tls;
    struct err why;
    uint64_t made_ms, heard_ms, spoke_ms;

    struct list items;
    size_t under_way;

    uint8_t prefix[PREFIX_BYTES];
    size_t prefix_have;
    uint8_t *head;
    size_t head_want, head_have;
    uint8_t *body;
    size_t body_want, body_have;

    char in[PIECE_BYTES];    /* from the socket */
    char plain[PIECE_BYTES]; /* on its way in or out of TLS, never both at once */
};

/* --- the end ------------------------------------------------------------------------------------------------------- */

static void item_free(struct item *item)
{
    if (item->sent)
        item->sent(item->arg);
    else
        free(item->body);
    buf_fini(&item->head);
    mem_free(item);
}

static void maybe_free(struct wire *w)
{
    if (!w->closed || w->looking)
        return;
    for (struct list *link; (link = list_pop_front(&w->items));)
        item_free(container_of(link, struct item, link));
    if (!w->silent)
        w->events->down(w->arg, w, &w->why);
    SSL_free(w->ssl);
    mem_free(w->head);
    free(w->body);
    mem_free(w);
}

static void on_closed(uv_handle_t *handle)
{
    struct wire *w = handle->data;
    w->closed = true;
    maybe_free(w);
}

static void fail(struct wire *w, enum err_code code, const char *what, const char *detail)
{
    if (w->dead)
        return;
    w->dead = true;
    (void)err_set(&w->why, code, "%s: %s", what, detail); /* DOWN carries it */
    if (w->looking)
        (void)uv_cancel((uv_req_t *)&w->lookup); /* one that runs goes on to its end */
    uv_close((uv_handle_t *)&w->tcp, on_closed);
}

void wire_close(struct wire *w)
{
    w->silent = true;
    fail(w, ERR_CANCELLED, "closed", "by its owner");
}

static const char *tls_why(char text[160])
{
    unsigned long code = ERR_get_error();
    ERR_error_string_n(code, text, 160);
    ERR_clear_error();
    return code ? text : "the other side ended it";
}

/* --- going out ----------------------------------------------------------------------------------------------------- */

static void on_written(uv_write_t *write, int status)
{
    struct piece *p = container_of(write, struct piece, write);
    struct wire *w = p->wire;
    w->under_way -= p->bytes;
    free(p);
    if (status < 0)
        fail(w, ERR_UNAVAILABLE, "write", uv_strerror(status));
    else
        wire_flush(w);
}

static void write_piece(struct wire *w, struct piece *p)
{
    uv_buf_t buf = uv_buf_init(p->data, (unsigned)p->bytes);
    w->under_way += p->bytes;
    w->spoke_ms = clock_boot_ms();
    int rv = fault_hit() ? UV_ENOMEM : uv_write(&p->write, (uv_stream_t *)&w->tcp, &buf, 1, on_written);
    if (rv < 0) {
        w->under_way -= p->bytes;
        free(p);
        fail(w, ERR_UNAVAILABLE, "write", uv_strerror(rv));
    }
}

static struct piece *piece_new(struct wire *w, size_t bytes)
{
    struct piece *p = (struct piece *)(void *)mem_new_array(char, sizeof(struct piece) + bytes);
    p->wire = w;
    p->bytes = bytes;
    return p;
}

/* What TLS has to say. */
static void write_tls(struct wire *w)
{
    size_t pending = BIO_ctrl_pending(SSL_get_wbio(w->ssl));
    if (pending == 0 || w->dead)
        return;
    struct piece *p = piece_new(w, pending);
    int n = BIO_read(SSL_get_wbio(w->ssl), p->data, (int)pending);
    p->bytes = n > 0 ? (size_t)n : 0;
    write_piece(w, p);
}

static size_t take_part(const void *from, size_t len, size_t *skip, char *to, size_t room)
{
    if (*skip >= len) {
        *skip -= len;
        return 0;
    }
    size_t n = len - *skip < room ? len - *skip : room;
    memcpy(to, (const char *)from + *skip, n);
    *skip = 0;
    return n;
}

/* The next bytes of ITEM into TO; how many. */
static size_t take(struct item *item, char *to, size_t room)
{
    size_t skip = item->at;
    size_t n = take_part(item->prefix, PREFIX_BYTES, &skip, to, room);
    n += take_part(item->head.data, item->head.len, &skip, to + n, room - n);
    if (item->bytes > 0)
        n += take_part(item->body, item->bytes, &skip, to + n, room - n);
    item->at += n;
    return n;
}

static size_t fill(struct wire *w, char *to)
{
    size_t n = 0;
    for (struct list *link; n < PIECE_BYTES && (link = list_first(&w->items));) {
        struct item *item = container_of(link, struct item, link);
        n += take(item, to + n, PIECE_BYTES - n);
        if (item->at == PREFIX_BYTES + item->head.len + item->bytes) {
            list_remove(link);
            item_free(item);
        }
    }
    return n;
}

void wire_flush(struct wire *w)
{
    char text[160];
    while (!w->dead && w->up && w->under_way < UNDER_WAY_BYTES && !list_empty(&w->items)) {
        if (!w->ssl) {
            struct piece *p = piece_new(w, PIECE_BYTES);
            p->bytes = fill(w, p->data);
            write_piece(w, p);
            continue;
        }
        size_t n = fill(w, w->plain);
        if (fault_hit() || SSL_write(w->ssl, w->plain, (int)n) != (int)n) {
            fail(w, ERR_UNAVAILABLE, "encrypt", tls_why(text));
            return;
        }
        write_tls(w);
    }
}

void wire_send(struct wire *w, struct buf *head, void *body, size_t bytes, void (*sent)(void *arg), void *arg)
{
    struct item *item = mem_new(struct item);
    item->head = *head;
    *head = BUF_INIT(head->max_bytes);
    item->body = body;
    item->bytes = bytes;
    item->sent = sent;
    item->arg = arg;
    for (unsigned i = 0; i < 4; i++)
        item->prefix[i] = (uint8_t)(item->head.len >> 8 * i);
    for (unsigned i = 0; i < 8; i++)
        item->prefix[4 + i] = (uint8_t)((uint64_t)bytes >> 8 * i);
    list_push_back(&w->items, &item->link);
}

/* --- coming in ----------------------------------------------------------------------------------------------------- */

static uint64_t fixed(const uint8_t *at, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)at[i] << 8 * i;
    return v;
}

/* Memory for what is announced; the other side has proved that it is one of us. */
static bool make_room(struct wire *w)
{
    uint64_t body = fixed(w->prefix + 4, 8);
    w->head_want = (size_t)fixed(w->prefix, 4);
    if (w->head_want == 0 || w->head_want > WIRE_HEAD_MAX || body > WIRE_BODY_MAX) {
        fail(w, ERR_PROTOCOL, "read", "this is no frame of carillon's");
        return false;
    }
    w->head = mem_new_array(uint8_t, w->head_want);
    w->body_want = (size_t)body;
    w->body = body > 0 && !fault_hit() ? malloc((size_t)body) : NULL; /* may be over what mem_try_* gives */
    if (body > 0 && !w->body) {
        fail(w, ERR_NOMEM, "read", "no memory for a frame");
        return false;
    }
    return true;
}

static void deliver(struct wire *w)
{
    struct codec_in head = codec_in(w->head, w->head_want);
    uint8_t *held = w->head, *body = w->body;
    size_t bytes = w->body_want;
    w->head = w->body = NULL;
    w->prefix_have = w->head_have = w->body_have = 0;
    if (w->silent)
        free(body);
    else if (!w->events->frame(w->arg, w, &head, body, bytes))
        fail(w, ERR_PROTOCOL, "read", "the other side does not keep to the protocol");
    mem_free(held);
}

static size_t gather(uint8_t *to, size_t want, size_t *have, const char *data, size_t len)
{
    size_t n = want - *have < len ? want - *have : len;
    if (!to || n == 0) /* nothing is wanted, or nothing is left */
        return 0;
    memcpy(to + *have, data, n);
    *have += n;
    return n;
}

static void feed(struct wire *w, const char *data, size_t len)
{
    while (!w->dead && len > 0) {
        size_t n = gather(w->prefix, PREFIX_BYTES, &w->prefix_have, data, len);
        if (w->prefix_have == PREFIX_BYTES && !w->head && !make_room(w))
            return;
        if (w->head)
            n += gather(w->head, w->head_want, &w->head_have, data + n, len - n);
        if (w->head && w->head_have == w->head_want)
            n += gather(w->body, w->body_want, &w->body_have, data + n, len - n);
        data += n;
        len -= n;
        if (w->head && w->head_have == w->head_want && w->body_have == w->body_want)
            deliver(w);
    }
}

static void is_up(struct wire *w)
{
    w->up = true;
    if (!w->accepts && !w->silent)
        w->events->up(w->arg, w);
    wire_flush(w);
}

static void drive_tls(struct wire *w)
{
    char text[160];
    if (!w->up) {
        int rv = SSL_do_handshake(w->ssl);
        write_tls(w);
        if (rv != 1 && SSL_get_error(w->ssl, rv) != SSL_ERROR_WANT_READ) {
            fail(w, ERR_AUTH, "handshake", tls_why(text));
            return;
        }
        if (rv == 1)
            is_up(w);
    }
    while (w->up && !w->dead) {
        int n = SSL_read(w->ssl, w->plain, (int)PIECE_BYTES);
        if (n > 0) {
            feed(w, w->plain, (size_t)n);
            continue;
        }
        write_tls(w);
        if (SSL_get_error(w->ssl, n) != SSL_ERROR_WANT_READ)
            fail(w, ERR_AUTH, "decrypt", tls_why(text));
        return;
    }
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    struct wire *w = handle->data;
    (void)wanted;
    *ret = uv_buf_init(w->in, PIECE_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct wire *w = stream->data;
    (void)buf;
    if (n == 0 || w->dead)
        return;
    if (n < 0) {
        fail(w, ERR_UNAVAILABLE, "read", uv_strerror((int)n));
        return;
    }
    w->heard_ms = clock_boot_ms();
    if (!w->ssl) {
        feed(w, w->in, (size_t)n);
    } else if (BIO_write(SSL_get_rbio(w->ssl), w->in, (int)n) != n) {
        fail(w, ERR_NOMEM, "read", "no memory");
    } else {
        drive_tls(w);
    }
}

/* --- making -------------------------------------------------------------------------------------------------------- */

static void opened(struct wire *w)
{
    (void)uv_tcp_nodelay(&w->tcp, 1); /* slower without, no worse */
    (void)uv_tcp_keepalive(&w->tcp, 1, KEEPALIVE_S);
    w->heard_ms = w->spoke_ms = clock_boot_ms();
    int rv = fault_hit() ? UV_ENOMEM : uv_read_start((uv_stream_t *)&w->tcp, on_alloc, on_read);
    if (rv < 0)
        fail(w, ERR_UNAVAILABLE, "read", uv_strerror(rv));
    else if (!w->ssl)
        is_up(w);
    else if (!w->accepts)
        drive_tls(w);
}

static void on_connect(uv_connect_t *connect, int status)
{
    struct wire *w = connect->handle->data;
    if (w->dead)
        return;
    if (status < 0)
        fail(w, ERR_UNAVAILABLE, "connect", uv_strerror(status));
    else
        opened(w);
}

static void connect_to(struct wire *w, struct addrinfo *list)
{
    unsigned count = 0, nth;
    struct addrinfo *ai = list;
    assert(list); /* what was found is never nothing */
    for (struct addrinfo *each = list; each; each = each->ai_next)
        count++;
    for (nth = count ? w->attempt % count : 0; nth > 0 && ai->ai_next; nth--)
        ai = ai->ai_next;
    int rv = fault_hit() ? UV_ENOMEM : uv_tcp_connect(&w->connect, &w->tcp, ai->ai_addr, on_connect);
    if (rv < 0)
        fail(w, ERR_UNAVAILABLE, "connect", uv_strerror(rv));
    freeaddrinfo(list);
}

static void on_found(uv_getaddrinfo_t *lookup, int status, struct addrinfo *list)
{
    struct wire *w = lookup->data;
    w->looking = false;
    if (w->dead) {
        uv_freeaddrinfo(list);
        maybe_free(w);
    } else if (status < 0) {
        fail(w, ERR_UNAVAILABLE, "look up its address", uv_strerror(status));
    } else {
        connect_to(w, list);
    }
}

static void resolve(struct wire *w, const char *host, const char *service)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *list;
    if (getaddrinfo(host, service, &hints, &list) == 0) { /* an address: does not block */
        connect_to(w, list);
        return;
    }
    hints.ai_flags = AI_NUMERICSERV;
    w->lookup.data = w;
    int rv = uv_getaddrinfo(w->tcp.loop, &w->lookup, on_found, host, service, &hints);
    w->looking = rv == 0;
    if (rv < 0)
        fail(w, ERR_UNAVAILABLE, "look up its address", uv_strerror(rv));
}

/* HOST is dialled; NULL: the other side dials. */
static struct wire *wire_new(uv_loop_t *loop, struct wire_tls *tls, const char *host,
                             const struct wire_events *events, void *arg)
{
    struct wire *w = mem_new(struct wire);
    w->events = events;
    w->arg = arg;
    w->accepts = !host;
    w->tls = tls;
    w->ssl = tls ? wire_tls_side(tls, host) : NULL;
    w->made_ms = w->heard_ms = w->spoke_ms = clock_boot_ms();
    list_init(&w->items);
    (void)uv_tcp_init(loop, &w->tcp); /* makes no socket yet: cannot fail */
    w->tcp.data = w;
    return w;
}

struct wire *wire_dial(uv_loop_t *loop, const char *address, unsigned attempt, struct wire_tls *tls,
                       const struct wire_events *events, void *arg)
{
    size_t host_at, host_len;
    uint16_t port;
    char host[NI_MAXHOST] = "", service[8];
    bool known = text_host_port(address, strlen(address), false, &host_at, &host_len, &port, NULL) == 0 &&
                 host_len < sizeof(host);
    if (known)
        (void)snprintf(host, sizeof(host), "%.*s", (int)host_len, address + host_at); /* fits */
    struct wire *w = wire_new(loop, tls, host, events, arg);
    w->attempt = attempt;
    if (!known) {
        fail(w, ERR_INVALID, "connect", "this is no address");
        return w;
    }
    if (tls && !w->ssl) {
        fail(w, ERR_NOMEM, "connect", "no memory for TLS");
        return w;
    }
    (void)snprintf(service, sizeof(service), "%u", port); /* fits */
    resolve(w, host, service);
    return w;
}

struct wire *wire_accept(uv_loop_t *loop, uv_stream_t *server, struct wire_tls *tls,
                         const struct wire_events *events, void *arg)
{
    struct wire *w = wire_new(loop, tls, NULL, events, arg);
    /* In any case: libuv tells of no other connection before this one is taken. */
    int rv = uv_accept(server, (uv_stream_t *)&w->tcp);
    if (rv == 0 && ((tls && !w->ssl) || fault_hit()))
        rv = UV_ENOMEM;
    if (rv < 0) {
        w->silent = true;
        fail(w, ERR_UNAVAILABLE, "accept", uv_strerror(rv));
        return NULL;
    }
    opened(w);
    return w;
}

/* --- what it is ---------------------------------------------------------------------------------------------------- */

bool wire_is_up(const struct wire *w)
{
    return w->up && !w->dead;
}

bool wire_accepted(const struct wire *w)
{
    return w->accepts;
}

uint64_t wire_made_ms(const struct wire *w)
{
    return w->made_ms;
}

uint64_t wire_heard_ms(const struct wire *w)
{
    return w->heard_ms;
}

uint64_t wire_spoke_ms(const struct wire *w)
{
    return w->spoke_ms;
}

int wire_proof(const struct wire *w, bool accepts, uint8_t ret[WIRE_PROOF_BYTES], struct err *e)
{
    return wire_tls_proof(w->tls, w->ssl, accepts, ret, e);
}
