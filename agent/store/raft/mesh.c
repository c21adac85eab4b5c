#include "agent/store/raft/mesh.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/store/raft/message.h"
#include "agent/store/raft/wire.h"

#define VERSION       1
#define PING_MS       500
#define GREETING_MS   3000 /* for connecting, the handshake and the first word */
#define RETRY_MS      50
#define RETRY_MAX_MS  1000
#define BACKLOG       128
#define PEERS_MAX     4096
#define PAYLOAD_MAX   ((size_t)512 << 20)
#define CLUSTER_BYTES 64
/* How long what was handed to the kernel may take to be there, and to be read. */
#define LOAD_MS 10000

static const struct log_ctx log_here = {.module = "raft"};

enum frame { /* numbers are part of the protocol */
             FRAME_HELLO = 1,
             FRAME_PING = 2,
             FRAME_MESSAGE = 3,
             FRAME_CALL = 4,
             FRAME_ANSWER = 5
};

struct call {
    struct list link;
    uint64_t id;
    mesh_answered *done;
    void *arg;
};

/* A connection, dialled or accepted. */
struct peer {
    struct list link;
    struct mesh *mesh;
    struct wire *wire;
    uint64_t serial;
    uint64_t id; /* of the voter at the other end; 0: none */
    bool greeted;
    struct list calls;      /* waiting for an answer */
    struct parcel *waiting; /* for the greeting */
};

struct node {
    struct mesh_node at;
    struct peer *peer; /* NULL: to be dialled at RETRY_AT_MS */
    struct peer *bulk; /* for snapshots; NULL: none is sent */
    unsigned attempt, reached_by;
    uint64_t retry_at_ms, lost_ms;
    bool sending;        /* a snapshot */
    uint64_t load_until; /* boot ms, once it was sent */
};

struct mesh {
    struct mesh_options o;
    uint64_t self;
    uv_tcp_t server;
    bool listening, closed;
    struct list peers;
    size_t peers_count;
    uint64_t last_serial, last_call;
    struct node nodes[MESH_NODES_MAX];
    size_t nodes_count;
    size_t sending;
};

/* A snapshot on its way. */
struct parcel {
    struct mesh *mesh;
    uint64_t id;
    struct buf head;
    void *body;
    size_t bytes;
    struct raft_io_send *req;
    raft_io_send_cb cb;
};

static const struct wire_events wire_events;

/* --- who is there -------------------------------------------------------------------------------------------------- */

static struct node *find_node(const struct mesh *m, uint64_t id)
{
    for (size_t i = 0; i < m->nodes_count; i++)
        if (m->nodes[i].at.id == id)
            return (struct node *)&m->nodes[i];
    return NULL;
}

static struct node *node_of(const struct mesh *m, const struct peer *p)
{
    for (size_t i = 0; i < m->nodes_count; i++)
        if (m->nodes[i].peer == p)
            return (struct node *)&m->nodes[i];
    return NULL;
}

static struct node *bulk_node_of(const struct mesh *m, const struct peer *p)
{
    for (size_t i = 0; i < m->nodes_count; i++)
        if (m->nodes[i].bulk == p)
            return (struct node *)&m->nodes[i];
    return NULL;
}

static struct peer *ready_peer(const struct mesh *m, uint64_t id)
{
    const struct node *n = find_node(m, id);
    return n && n->peer && n->peer->greeted && wire_is_up(n->peer->wire) ? n->peer : NULL;
}

static struct peer *peer_new(struct mesh *m)
{
    struct peer *p = mem_new(struct peer);
    p->mesh = m;
    p->serial = ++m->last_serial;
    list_init(&p->calls);
    list_push_back(&m->peers, &p->link);
    m->peers_count++;
    return p;
}

static void end_calls(struct peer *p, enum err_code code, const char *text)
{
    struct err e = {0};
    (void)err_set(&e, code, "%s", text); /* the answer carries it */
    for (struct list *link; (link = list_pop_front(&p->calls));) {
        struct call *c = container_of(link, struct call, link);
        c->done(c->arg, &e, code, NULL, 0);
        mem_free(c);
    }
}

static void parcel_end(struct parcel *parcel, uint64_t load_until)
{
    struct mesh *m = parcel->mesh;
    struct node *n = find_node(m, parcel->id);
    if (n) {
        n->sending = false;
        n->load_until = load_until;
    }
    m->sending--;
    parcel->cb(parcel->req, 0); /* libraft does not ask whether it arrived */
    buf_fini(&parcel->head);
    mem_free(parcel);
}

static void peer_free(struct peer *p)
{
    struct node *bulk = bulk_node_of(p->mesh, p);
    struct parcel *waiting = p->waiting;
    if (bulk) {
        bulk->bulk = NULL;
        bulk->load_until = 0;
    }
    list_remove(&p->link);
    p->mesh->peers_count--;
    mem_free(p);
    if (waiting)
        parcel_end(waiting, 0);
}

static void drop(struct peer *p, enum err_code code, const char *text)
{
    struct node *n = node_of(p->mesh, p);
    if (n)
        n->peer = NULL;
    wire_close(p->wire);
    end_calls(p, code, text);
    peer_free(p);
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

static struct buf frame(enum frame kind)
{
    struct buf head = BUF_INIT(WIRE_HEAD_MAX);
    codec_put_u64(&head, kind);
    return head;
}

static void send_hello(struct peer *p)
{
    uint8_t proof[WIRE_PROOF_BYTES];
    struct buf head = frame(FRAME_HELLO);
    codec_put_u64(&head, VERSION);
    codec_put_text(&head, p->mesh->o.cluster);
    codec_put_u64(&head, p->mesh->self);
    if (wire_tls_wants_proof(p->mesh->o.tls) && wire_proof(p->wire, wire_accepted(p->wire), proof, NULL) == 0)
        codec_put_bytes(&head, proof, sizeof(proof));
    else
        codec_put_bytes(&head, proof, 0);
    wire_send(p->wire, &head, NULL, 0, NULL, NULL);
}

/* Also when its connection ended before. */
static void on_sent(void *arg)
{
    struct parcel *parcel = arg;
    const struct node *n = find_node(parcel->mesh, parcel->id);
    parcel_end(parcel, n && n->bulk ? clock_boot_ms() + LOAD_MS : 0);
}

static void send_waiting(struct peer *p)
{
    struct parcel *parcel = p->waiting;
    p->waiting = NULL;
    if (parcel)
        wire_send(p->wire, &parcel->head, parcel->body, parcel->bytes, on_sent, parcel);
}

static struct peer *dial_peer(struct mesh *m, const struct node *n, unsigned attempt)
{
    struct peer *p = peer_new(m);
    p->wire = wire_dial(m->o.loop, n->at.address, attempt, m->o.tls, &wire_events, p);
    return p;
}

/* One at a time: false while another is under way. */
static bool send_snapshot(struct mesh *m, struct node *n, struct parcel *parcel)
{
    if (n->sending || (n->bulk && n->bulk->waiting))
        return false;
    n->sending = true;
    m->sending++;
    if (!n->bulk)
        n->bulk = dial_peer(m, n, n->reached_by);
    n->bulk->waiting = parcel;
    if (n->bulk->greeted)
        send_waiting(n->bulk);
    return true;
}

int mesh_send(struct mesh *m, struct raft_io_send *req, const struct raft_message *message,
              raft_io_send_cb cb)
{
    void *body;
    size_t bytes;
    bool borrowed;
    struct peer *p = m->closed ? NULL : ready_peer(m, message->server_id);
    struct buf head = frame(FRAME_MESSAGE);
    if (!p || message_encode(message, &head, &body, &bytes, &borrowed, NULL) < 0) {
        buf_fini(&head);
        cb(req, RAFT_NOCONNECTION);
        return 0;
    }
    if (!borrowed) {
        wire_send(p->wire, &head, body, bytes, NULL, NULL);
        cb(req, 0);
        return 0;
    }
    struct parcel *parcel = mem_new(struct parcel);
    *parcel = (struct parcel){.mesh = m,
                              .id = message->server_id,
                              .head = head,
                              .body = body,
                              .bytes = bytes,
                              .req = req,
                              .cb = cb};
    if (!send_snapshot(m, find_node(m, message->server_id), parcel)) {
        buf_fini(&parcel->head);
        mem_free(parcel);
        cb(req, RAFT_NOCONNECTION);
    }
    return 0;
}

bool mesh_is_loading(const struct mesh *m, uint64_t id)
{
    const struct node *n = find_node(m, id);
    return n && (n->sending || clock_boot_ms() < n->load_until);
}

void mesh_loaded(struct mesh *m, uint64_t id)
{
    struct node *n = find_node(m, id);
    if (n)
        n->load_until = 0;
}

size_t mesh_sending(const struct mesh *m)
{
    return m->sending;
}

/* Hand PAYLOAD's memory to the wire. */
static void send_with(struct peer *p, struct buf *head, struct buf *payload)
{
    size_t bytes = payload ? payload->len : 0;
    char *body = bytes > 0 ? buf_steal(payload, NULL, NULL) : NULL;
    if (payload)
        buf_fini(payload);
    wire_send(p->wire, head, body, body ? bytes : 0, NULL, NULL);
}

uint64_t mesh_call(struct mesh *m, uint64_t id, unsigned kind, struct buf *payload, mesh_answered *done,
                   void *arg)
{
    struct peer *p = m->closed ? NULL : ready_peer(m, id);
    if (!p) {
        buf_fini(payload);
        return 0;
    }
    struct call *c = mem_new(struct call);
    *c = (struct call){.id = ++m->last_call, .done = done, .arg = arg};
    list_push_back(&p->calls, &c->link);
    struct buf head = frame(FRAME_CALL);
    codec_put_u64(&head, c->id);
    codec_put_u64(&head, kind);
    send_with(p, &head, payload);
    return c->id;
}

static struct call *find_call(struct peer *p, uint64_t id)
{
    LIST_FOR (at, &p->calls) {
        struct call *c = container_of(at, struct call, link);
        if (c->id == id)
            return c;
    }
    return NULL;
}

void mesh_forget(struct mesh *m, uint64_t call)
{
    LIST_FOR (at, &m->peers) {
        struct call *c = find_call(container_of(at, struct peer, link), call);
        if (!c)
            continue;
        list_remove(&c->link);
        mem_free(c);
        return;
    }
}

void mesh_answer(struct mesh *m, uint64_t peer, uint64_t call, enum err_code code, struct buf *payload)
{
    LIST_FOR (at, &m->peers) {
        struct peer *p = container_of(at, struct peer, link);
        if (p->serial != peer)
            continue;
        struct buf head = frame(FRAME_ANSWER);
        codec_put_u64(&head, call);
        codec_put_u64(&head, code);
        send_with(p, &head, payload);
        return;
    }
    if (payload)
        buf_fini(payload);
}

/* --- what comes ---------------------------------------------------------------------------------------------------- */

static bool proved(const struct peer *p, const void *shown, size_t len)
{
    uint8_t proof[WIRE_PROOF_BYTES];
    if (!wire_tls_wants_proof(p->mesh->o.tls))
        return true;
    return shown && len == sizeof(proof) && wire_proof(p->wire, !wire_accepted(p->wire), proof, NULL) == 0 &&
           CRYPTO_memcmp(proof, shown, sizeof(proof)) == 0;
}

static bool refuse(const struct peer *p, const char *why)
{
    const struct node *n = node_of(p->mesh, p);
    log_warn(&log_here, "a connection of the log's cluster is refused", "with=%s why=%s",
             n ? LOGQ(n->at.address) : "a caller", LOGQ(why));
    return false;
}

static bool on_hello(struct peer *p, struct codec_in *head)
{
    char cluster[CLUSTER_BYTES];
    size_t len;
    uint64_t version = codec_get_u64(head, UINT64_MAX);
    codec_get_text(head, cluster, sizeof(cluster));
    uint64_t id = codec_get_u64(head, UINT64_MAX);
    const void *proof = codec_get_bytes(head, &len);
    struct node *n = node_of(p->mesh, p), *bulk = bulk_node_of(p->mesh, p);
    if (head->bad || version != VERSION)
        return refuse(p, "it speaks another version of the protocol");
    if (strcmp(cluster, p->mesh->o.cluster) != 0)
        return refuse(p, "it is of another cluster");
    if (!proved(p, proof, len))
        return refuse(p, "it has another cluster.secret_file");
    if ((n && n->at.id != id) || (bulk && bulk->at.id != id))
        return refuse(p, "another voter than the one with this address");
    p->id = id;
    p->greeted = true;
    if (n) {
        n->lost_ms = 0;
        n->reached_by = n->attempt;
        n->attempt = 0;
    } else if (bulk) {
        send_waiting(p);
    } else {
        send_hello(p);
    }
    return true;
}

static bool on_message(struct peer *p, struct codec_in *head, void *body, size_t bytes)
{
    struct raft_message message;
    struct err e = {0};
    struct mesh *m = p->mesh;
    const struct node *n = find_node(m, p->id);
    int rc = message_decode(head, body, bytes, &message, &e);
    if (rc < 0)
        return rc == -ERR_NOMEM; /* lost: libraft counts on that */
    message.server_id = p->id;
    message.server_address = n ? n->at.address : "";
    if (p->id == 0 || m->self == 0 || !n)
        message_drop(&message);
    else
        m->o.message(m->o.arg, &message);
    return true;
}

static bool on_call(struct peer *p, struct codec_in *head, void *body, size_t bytes)
{
    struct mesh_request request = {.peer = p->serial, .body = body, .bytes = bytes};
    request.call = codec_get_u64(head, UINT64_MAX);
    request.kind = (unsigned)codec_get_u64(head, UINT32_MAX);
    if (head->bad) {
        free(body);
        return false;
    }
    p->mesh->o.request(p->mesh->o.arg, &request);
    return true;
}

static bool on_answer(struct peer *p, struct codec_in *head, void *body, size_t bytes)
{
    struct err none = {0};
    uint64_t id = codec_get_u64(head, UINT64_MAX);
    enum err_code code = (enum err_code)codec_get_u64(head, ERR_COUNT_ - 1);
    struct call *c = head->bad ? NULL : find_call(p, id);
    if (!c) { /* forgotten */
        free(body);
        return !head->bad;
    }
    list_remove(&c->link);
    c->done(c->arg, &none, code, body, bytes);
    mem_free(c);
    return true;
}

static bool on_frame(void *arg, struct wire *w, struct codec_in *head, void *body, size_t bytes)
{
    struct peer *p = arg;
    uint64_t kind = codec_get_u64(head, UINT64_MAX);
    (void)w;
    if (!p->greeted || kind == FRAME_HELLO || kind == FRAME_PING || head->bad) {
        free(body);
        if (p->greeted)
            return kind == FRAME_PING && !head->bad;
        return kind == FRAME_HELLO && on_hello(p, head);
    }
    switch (kind) {
    case FRAME_MESSAGE:
        return on_message(p, head, body, bytes);
    case FRAME_CALL:
        return on_call(p, head, body, bytes);
    case FRAME_ANSWER:
        return on_answer(p, head, body, bytes);
    default:
        free(body);
        return false;
    }
}

/* --- dialling ------------------------------------------------------------------------------------------------------ */

static void on_up(void *arg, struct wire *w)
{
    (void)w;
    send_hello(arg);
}

static void retry_later(struct node *n)
{
    uint64_t delay_ms = n->attempt < 5 ? (uint64_t)RETRY_MS << n->attempt : RETRY_MAX_MS;
    n->attempt++;
    n->peer = NULL;
    n->retry_at_ms = clock_boot_ms() + delay_ms;
    if (n->lost_ms == 0)
        n->lost_ms = clock_boot_ms();
}

static void on_down(void *arg, struct wire *w, const struct err *why)
{
    struct peer *p = arg;
    struct node *n = node_of(p->mesh, p);
    (void)w;
    if (why->code == ERR_AUTH || why->code == ERR_PROTOCOL)
        (void)refuse(p, why->text);
    if (n)
        retry_later(n);
    end_calls(p, ERR_UNKNOWN_OUTCOME, why->text);
    peer_free(p);
}

static const struct wire_events wire_events = {.up = on_up, .frame = on_frame, .down = on_down};

static void on_connection(uv_stream_t *server, int status)
{
    struct mesh *m = server->data;
    if (status < 0)
        return;
    struct peer *p = peer_new(m);
    p->wire = wire_accept(m->o.loop, server, m->o.tls, &wire_events, p);
    if (!p->wire)
        peer_free(p);
    else if (m->peers_count > PEERS_MAX)
        drop(p, ERR_BUSY, "too many connections");
}

void mesh_tick(struct mesh *m)
{
    uint64_t now_ms = clock_boot_ms();
    if (m->closed)
        return;
    LIST_FOR_SAFE(at, &m->peers)
    {
        struct peer *p = container_of(at, struct peer, link);
        struct node *n = node_of(m, p);
        uint64_t heard_ms = p->greeted ? wire_heard_ms(p->wire) : wire_made_ms(p->wire);
        if (now_ms - heard_ms > (p->greeted ? MESH_SILENCE_MS : GREETING_MS)) {
            if (n)
                retry_later(n);
            drop(p, ERR_UNKNOWN_OUTCOME, "nothing was heard for too long");
        } else if (p->greeted && now_ms - wire_spoke_ms(p->wire) >= PING_MS) {
            struct buf ping = frame(FRAME_PING);
            wire_send(p->wire, &ping, NULL, 0, NULL, NULL);
        }
    }
    for (size_t i = 0; i < m->nodes_count; i++)
        if (!m->nodes[i].peer && m->nodes[i].at.id != m->self && now_ms >= m->nodes[i].retry_at_ms)
            m->nodes[i].peer = dial_peer(m, &m->nodes[i], m->nodes[i].attempt);
    for (size_t i = 0; i < m->nodes_count; i++)
        if (m->nodes[i].bulk && !mesh_is_loading(m, m->nodes[i].at.id))
            drop(m->nodes[i].bulk, ERR_CANCELLED, "no snapshot is sent");
}

void mesh_flush(struct mesh *m)
{
    LIST_FOR_SAFE(at, &m->peers)
    wire_flush(container_of(at, struct peer, link)->wire);
}

/* --- making and ending --------------------------------------------------------------------------------------------- */

struct mesh *mesh_new(const struct mesh_options *options)
{
    struct mesh *m = mem_new(struct mesh);
    m->o = *options;
    list_init(&m->peers);
    return m;
}

int mesh_listen(struct mesh *m, int fd, struct err *e)
{
    (void)uv_tcp_init(m->o.loop, &m->server); /* makes no socket yet: cannot fail */
    m->server.data = m;
    m->listening = true;
    int rv = uv_tcp_open(&m->server, fd);
    if (rv == 0)
        rv = fault_hit() ? UV_EADDRINUSE : uv_listen((uv_stream_t *)&m->server, BACKLOG, on_connection);
    return rv < 0 ? err_sys(e, -rv, "listen for the log's cluster") : 0;
}

void mesh_set_nodes(struct mesh *m, const struct mesh_node *nodes, size_t count, uint64_t self)
{
    struct node next[MESH_NODES_MAX] = {0};
    uint64_t now_ms = clock_boot_ms();
    assert(count <= MESH_NODES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct node *old = find_node(m, nodes[i].id);
        next[i].lost_ms = now_ms;
        /* Who we are was said in the greeting: another number needs another one. */
        if (old && self == m->self && strcmp(old->at.address, nodes[i].address) == 0) {
            next[i] = *old;
            old->peer = old->bulk = NULL;
        }
        next[i].at = nodes[i];
        if (nodes[i].id == self)
            next[i].lost_ms = 0;
    }
    for (size_t i = 0; i < m->nodes_count; i++) {
        if (m->nodes[i].peer)
            drop(m->nodes[i].peer, ERR_UNKNOWN_OUTCOME, "the voter has moved");
        if (m->nodes[i].bulk)
            drop(m->nodes[i].bulk, ERR_UNKNOWN_OUTCOME, "the voter has moved");
    }
    memcpy(m->nodes, next, sizeof(next));
    m->nodes_count = count;
    m->self = self;
    mesh_tick(m);
}

void mesh_close(struct mesh *m)
{
    if (m->closed)
        return;
    m->closed = true;
    if (m->listening)
        uv_close((uv_handle_t *)&m->server, NULL);
    LIST_FOR_SAFE(at, &m->peers)
    drop(container_of(at, struct peer, link), ERR_CANCELLED, "the store is being closed");
}

void mesh_free(struct mesh *m)
{
    if (!m)
        return;
    assert(list_empty(&m->peers) && m->sending == 0);
    mem_free(m);
}

bool mesh_reaches(const struct mesh *m, uint64_t id)
{
    return ready_peer(m, id) != NULL;
}

uint64_t mesh_lost_ms(const struct mesh *m, uint64_t id)
{
    const struct node *n = find_node(m, id);
    return n ? n->lost_ms : 0;
}

uint64_t mesh_next(const struct mesh *m, uint64_t id)
{
    size_t from = 0;
    for (size_t i = 0; i < m->nodes_count; i++)
        if (m->nodes[i].at.id == id)
            from = i + 1;
    for (size_t i = 0; i < m->nodes_count; i++) {
        uint64_t next = m->nodes[(from + i) % m->nodes_count].at.id;
        if (mesh_reaches(m, next))
            return next;
    }
    return 0;
}
