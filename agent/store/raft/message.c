#include "agent/store/raft/message.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

#define ENTRY_HEAD_BYTES 24 /* term, type, length; a multiple of 8, as every entry's data is */
#define ADDRESS_MAX      256
#define SERVERS_MAX      64

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void put_vote(struct buf *b, const struct raft_request_vote *v)
{
    codec_put_u64(b, v->version);
    codec_put_u64(b, v->term);
    codec_put_u64(b, v->candidate_id);
    codec_put_u64(b, v->last_log_index);
    codec_put_u64(b, v->last_log_term);
    codec_put_u64(b, v->disrupt_leader);
    codec_put_u64(b, v->pre_vote);
}

static void put_vote_result(struct buf *b, const struct raft_request_vote_result *v)
{
    codec_put_u64(b, v->version);
    codec_put_u64(b, v->term);
    codec_put_u64(b, v->vote_granted);
    codec_put_u64(b, v->pre_vote);
    codec_put_u64(b, v->features);
    codec_put_u64(b, v->capacity);
}

static void put_append(struct buf *b, const struct raft_append_entries *a)
{
    codec_put_u64(b, a->version);
    codec_put_u64(b, a->term);
    codec_put_u64(b, a->prev_log_index);
    codec_put_u64(b, a->prev_log_term);
    codec_put_u64(b, a->leader_commit);
    codec_put_u64(b, a->n_entries);
}

static void put_append_result(struct buf *b, const struct raft_append_entries_result *a)
{
    codec_put_u64(b, a->version);
    codec_put_u64(b, a->term);
    codec_put_u64(b, a->rejected);
    codec_put_u64(b, a->last_log_index);
    codec_put_u64(b, a->features);
    codec_put_u64(b, a->capacity);
}

static void put_install(struct buf *b, const struct raft_install_snapshot *s)
{
    codec_put_u64(b, s->version);
    codec_put_u64(b, s->term);
    codec_put_u64(b, s->last_index);
    codec_put_u64(b, s->last_term);
    codec_put_u64(b, s->conf_index);
    codec_put_u64(b, s->conf.n);
    for (unsigned i = 0; i < s->conf.n; i++) {
        codec_put_u64(b, s->conf.servers[i].id);
        codec_put_text(b, s->conf.servers[i].address);
        codec_put_u64(b, (uint64_t)s->conf.servers[i].role);
    }
}

static void put_timeout_now(struct buf *b, const struct raft_timeout_now *t)
{
    codec_put_u64(b, t->version);
    codec_put_u64(b, t->term);
    codec_put_u64(b, t->last_log_index);
    codec_put_u64(b, t->last_log_term);
}

static void set64(uint8_t *at, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++)
        v |= (uint64_t)at[i] << 8 * i;
    return v;
}

static int entries_body(const struct raft_append_entries *a, void **ret, size_t *ret_bytes, struct err *e)
{
    size_t bytes = (size_t)a->n_entries * ENTRY_HEAD_BYTES, at = bytes;
    if (a->n_entries == 0)
        return 0;
    for (unsigned i = 0; i < a->n_entries; i++)
        bytes += a->entries[i].buf.len;
    uint8_t *body = fault_hit() ? NULL : malloc(bytes); /* libraft's own entries: no limit here */
    if (!body)
        return err_set(e, ERR_NOMEM, "no memory for a message");
    for (unsigned i = 0; i < a->n_entries; i++) {
        const struct raft_entry *entry = &a->entries[i];
        uint8_t *head = body + (size_t)i * ENTRY_HEAD_BYTES;
        set64(head, entry->term);
        set64(head + 8, (uint64_t)entry->type);
        set64(head + 16, entry->buf.len);
        if (entry->buf.len > 0)
            memcpy(body + at, entry->buf.base, entry->buf.len);
        at += entry->buf.len;
    }
    *ret = body;
    *ret_bytes = bytes;
    return 0;
}

int message_encode(const struct raft_message *m, struct buf *head, void **ret_body, size_t *ret_bytes,
                   bool *ret_borrowed, struct err *e)
{
    void *body = NULL;
    size_t bytes = 0;
    codec_put_u64(head, (uint64_t)m->type);
    switch (m->type) {
    case RAFT_REQUEST_VOTE:
        put_vote(head, &m->request_vote);
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        put_vote_result(head, &m->request_vote_result);
        break;
    case RAFT_APPEND_ENTRIES:
        put_append(head, &m->append_entries);
        if (entries_body(&m->append_entries, &body, &bytes, e) < 0)
            return -ERR_NOMEM;
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        put_append_result(head, &m->append_entries_result);
        break;
    case RAFT_INSTALL_SNAPSHOT:
        put_install(head, &m->install_snapshot);
        body = m->install_snapshot.data.base;
        bytes = m->install_snapshot.data.len;
        break;
    case RAFT_TIMEOUT_NOW:
        put_timeout_now(head, &m->timeout_now);
        break;
    }
    *ret_borrowed = m->type == RAFT_INSTALL_SNAPSHOT;
    *ret_body = body;
    *ret_bytes = bytes;
    return 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static void get_vote(struct codec_in *in, struct raft_request_vote *v)
{
    v->version = (unsigned char)codec_get_u64(in, UINT8_MAX);
    v->term = codec_get_u64(in, UINT64_MAX);
    v->candidate_id = codec_get_u64(in, UINT64_MAX);
    v->last_log_index = codec_get_u64(in, UINT64_MAX);
    v->last_log_term = codec_get_u64(in, UINT64_MAX);
    v->disrupt_leader = codec_get_u64(in, 1) != 0;
    v->pre_vote = codec_get_u64(in, 1) != 0;
    in->bad |= v->candidate_id == 0;
}

static void get_vote_result(struct codec_in *in, struct raft_request_vote_result *v)
{
    v->version = (unsigned char)codec_get_u64(in, UINT8_MAX);
    v->term = codec_get_u64(in, UINT64_MAX);
    v->vote_granted = codec_get_u64(in, 1) != 0;
    v->pre_vote = codec_get_u64(in, 1) != 0;
    v->features = (unsigned short)codec_get_u64(in, UINT16_MAX);
    v->capacity = (unsigned short)codec_get_u64(in, UINT16_MAX);
}

static void get_append_result(struct codec_in *in, struct raft_append_entries_result *a)
{
    a->version = (unsigned char)codec_get_u64(in, UINT8_MAX);
    a->term = codec_get_u64(in, UINT64_MAX);
    a->rejected = codec_get_u64(in, UINT64_MAX);
    a->last_log_index = codec_get_u64(in, UINT64_MAX);
    a->features = (unsigned short)codec_get_u64(in, UINT16_MAX);
    a->capacity = (unsigned short)codec_get_u64(in, UINT16_MAX);
}

/* The entries point into BODY, which is their batch. False: that is not what it holds. */
static bool cut_entries(struct raft_entry *entries, unsigned count, uint8_t *body, size_t bytes)
{
    size_t at = (size_t)count * ENTRY_HEAD_BYTES;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *head = body + (size_t)i * ENTRY_HEAD_BYTES;
        uint64_t type = get64(head + 8), len = get64(head + 16);
        if (type < RAFT_COMMAND || type > RAFT_CHANGE || len > bytes - at || len % 8 != 0)
            return false;
        entries[i] = (struct raft_entry){.term = get64(head),
                                         .type = (enum raft_entry_type)type,
                                         .buf = {.base = body + at, .len = (size_t)len},
                                         .batch = body};
        at += (size_t)len;
    }
    return at == bytes;
}

static int get_append(struct codec_in *in, uint8_t *body, size_t bytes, struct raft_append_entries *a,
                      struct err *e)
{
    a->version = (unsigned char)codec_get_u64(in, UINT8_MAX);
    a->term = codec_get_u64(in, UINT64_MAX);
    a->prev_log_index = codec_get_u64(in, UINT64_MAX);
    a->prev_log_term = codec_get_u64(in, UINT64_MAX);
    a->leader_commit = codec_get_u64(in, UINT64_MAX);
    a->n_entries = (unsigned)codec_get_u64(in, bytes / ENTRY_HEAD_BYTES);
    in->bad |= a->n_entries == 0 && bytes > 0;
    a->entries = NULL;
    if (in->bad || a->n_entries == 0)
        return 0;
    a->entries = fault_hit() ? NULL : raft_calloc(a->n_entries, sizeof(*a->entries));
    if (!a->entries)
        return err_set(e, ERR_NOMEM, "no memory for a message");
    in->bad |= !cut_entries(a->entries, a->n_entries, body, bytes);
    if (in->bad)
        raft_free(a->entries);
    return 0;
}

static int get_servers(struct codec_in *in, struct raft_configuration *conf, struct err *e)
{
    char address[ADDRESS_MAX];
    uint64_t count = codec_get_u64(in, SERVERS_MAX);
    raft_configuration_init(conf);
    for (uint64_t i = 0; i < count && !in->bad; i++) {
        uint64_t id = codec_get_u64(in, UINT64_MAX);
        codec_get_text(in, address, sizeof(address));
        int role = (int)codec_get_u64(in, RAFT_SPARE);
        int rv = in->bad ? 0 : raft_configuration_add(conf, id, address, role);
        if (rv == RAFT_NOMEM) {
            raft_configuration_close(conf);
            return err_set(e, ERR_NOMEM, "no memory for a message");
        }
        in->bad |= rv != 0;
    }
    if (in->bad)
        raft_configuration_close(conf);
    return 0;
}

static int get_install(struct codec_in *in, void *body, size_t bytes, struct raft_install_snapshot *s,
                       struct err *e)
{
    s->version = (unsigned char)codec_get_u64(in, UINT8_MAX);
    s->term = codec_get_u64(in, UINT64_MAX);
    s->last_index = codec_get_u64(in, UINT64_MAX);
    s->last_term = codec_get_u64(in, UINT64_MAX);
    s->conf_index = codec_get_u64(in, UINT64_MAX);
    s->data = (struct raft_buffer){.base = body, .len = bytes};
    return get_servers(in, &s->conf, e);
}

static int get_body(struct codec_in *in, void *body, size_t bytes, struct raft_message *m, struct err *e)
{
    switch (m->type) {
    case RAFT_REQUEST_VOTE:
        get_vote(in, &m->request_vote);
        return 0;
    case RAFT_REQUEST_VOTE_RESULT:
        get_vote_result(in, &m->request_vote_result);
        return 0;
    case RAFT_APPEND_ENTRIES:
        return get_append(in, body, bytes, &m->append_entries, e);
    case RAFT_APPEND_ENTRIES_RESULT:
        get_append_result(in, &m->append_entries_result);
        return 0;
    case RAFT_INSTALL_SNAPSHOT:
        return get_install(in, body, bytes, &m->install_snapshot, e);
    case RAFT_TIMEOUT_NOW:
        m->timeout_now.version = (unsigned char)codec_get_u64(in, UINT8_MAX);
        m->timeout_now.term = codec_get_u64(in, UINT64_MAX);
        m->timeout_now.last_log_index = codec_get_u64(in, UINT64_MAX);
        m->timeout_now.last_log_term = codec_get_u64(in, UINT64_MAX);
        return 0;
    }
    in->bad = true;
    return 0;
}

void message_drop(struct raft_message *m)
{
    if (m->type == RAFT_APPEND_ENTRIES && m->append_entries.entries) {
        free(m->append_entries.entries[0].batch);
        raft_free(m->append_entries.entries);
    } else if (m->type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->install_snapshot.conf);
        free(m->install_snapshot.data.base);
    }
}

int message_decode(struct codec_in *head, void *body, size_t bytes, struct raft_message *ret, struct err *e)
{
    struct raft_message m = {.type = (enum raft_message_type)codec_get_u64(head, RAFT_TIMEOUT_NOW)};
    bool large = m.type == RAFT_APPEND_ENTRIES || m.type == RAFT_INSTALL_SNAPSHOT;
    head->bad |= bytes > 0 && !large;
    int rc = head->bad ? 0 : get_body(head, body, bytes, &m, e);
    if (rc < 0 || head->bad) { /* its parts are given back already */
        free(body);
        return rc < 0 ? rc : codec_finish(head, "a message of the log", e);
    }
    rc = codec_finish(head, "a message of the log", e);
    if (rc < 0)
        message_drop(&m);
    else
        *ret = m;
    return rc;
}

/* --- splitting ----------------------------------------------------------------------------------------------------- */

/* Entries of their own, in a batch of their own. */
static struct raft_entry *copy_entries(const struct raft_entry *from, unsigned count, struct err *e)
{
    size_t bytes = 1, at = 0; /* a batch of empty entries is freed too */
    for (unsigned i = 0; i < count; i++)
        bytes += from[i].buf.len;
    struct raft_entry *entries = fault_hit() ? NULL : raft_calloc(count, sizeof(*entries));
    uint8_t *batch = fault_hit() ? NULL : malloc(bytes); /* of what came: no limit here */
    if (!entries || !batch) {
        raft_free(entries);
        free(batch);
        (void)err_set(e, ERR_NOMEM, "no memory for a message"); /* NULL tells */
        return NULL;
    }
    for (unsigned i = 0; i < count; i++) {
        entries[i] = from[i];
        entries[i].batch = batch;
        entries[i].buf.base = batch + at;
        if (from[i].buf.len > 0)
            memcpy(batch + at, from[i].buf.base, from[i].buf.len);
        at += from[i].buf.len;
    }
    return entries;
}

int message_split(struct raft_message *m, unsigned count, struct raft_message *ret, struct err *e)
{
    struct raft_append_entries *rest = &m->append_entries;
    assert(m->type == RAFT_APPEND_ENTRIES && count > 0 && count < rest->n_entries);
    struct raft_entry *first = copy_entries(rest->entries, count, e);
    if (!first)
        return -ERR_NOMEM;
    *ret = *m;
    ret->append_entries.entries = first;
    ret->append_entries.n_entries = count;
    rest->prev_log_index += count;
    rest->prev_log_term = first[count - 1].term;
    rest->n_entries -= count;
    memmove(rest->entries, rest->entries + count, rest->n_entries * sizeof(*rest->entries));
    return 0;
}
