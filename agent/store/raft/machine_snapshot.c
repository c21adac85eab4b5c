/* Snapshots of the machine: written a slice at a time while it goes on, and read back. */
#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/raft/pack.h"
#include "agent/store/raft/snapshot_out.h"
#include "agent/store/store_version.h"

enum phase { PHASE_JOBS, PHASE_FIRES, PHASE_COPIES, PHASE_REVISIONS, PHASE_DONE };

struct machine_snapshot {
    struct snapshot_out out;
    struct machine_buffer *buffers;
    size_t buffers_count, buffers_cap;
    enum phase phase;
    /* The last row that was looked at. Texts are copies: the row may be gone. */
    bool cursor_set;
    struct machine_key cursor;
    char ns[RECORD_NS_MAX];
    char id[RECORD_ID_MAX];
    struct machine_buffer *entries; /* since the cut */
    size_t entries_count, entries_cap;
};

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void add_buffer(struct machine_buffer **list, size_t *count, size_t *cap, void *data, size_t bytes)
{
    if (*count == *cap) {
        size_t next = *cap ? 2 * *cap : 16;
        struct machine_buffer *grown = mem_new_array(struct machine_buffer, next);
        if (*count > 0)
            memcpy(grown, *list, *count * sizeof(*grown));
        mem_free(*list);
        *list = grown;
        *cap = next;
    }
    (*list)[(*count)++] = (struct machine_buffer){data, bytes};
}

static void take_block(void *arg, void *data, size_t bytes)
{
    struct machine_snapshot *s = arg;
    add_buffer(&s->buffers, &s->buffers_count, &s->buffers_cap, data, bytes);
}

void machine_snapshot_begin(struct machine *m)
{
    assert(!m->snapshot);
    struct machine_snapshot *s = mem_new(struct machine_snapshot);
    m->snapshot = s;
    m->stamp++;
    snapshot_out_begin(&s->out, take_block, s);
    snapshot_out_meta(&s->out, &m->meta, m->seq, m->proposer);
    for (size_t i = 0; i < m->members_count; i++)
        snapshot_out_member(&s->out, &m->members[i].row, m->members[i].died_ms);
    snapshot_out_slots(&s->out, m->slots, m->slots_count);
}

bool machine_snapshot_running(const struct machine *m)
{
    return m->snapshot != NULL;
}

size_t machine_snapshot_bytes(const struct machine *m)
{
    return m->snapshot ? m->snapshot->out.bytes + m->snapshot->out.block.len : 0;
}

/* Whether a row with this stamp has still to be written; it is stamped. */
static bool take_stamp(struct machine *m, uint32_t *stamp)
{
    if (!m->snapshot || *stamp == m->stamp)
        return false;
    *stamp = m->stamp;
    return true;
}

void machine_snapshot_job(struct machine *m, struct machine_job *job)
{
    if (!take_stamp(m, &job->stamp))
        return;
    struct snapshot_row row = {.uid = &job->uid,
                               .slot = job->slot,
                               .ns = job->name,
                               .id = machine_job_id(job),
                               .body = job->row,
                               .body_bytes = job->row_bytes,
                               .spec = job->spec->data,
                               .spec_bytes = job->spec->bytes};
    snapshot_out_job(&m->snapshot->out, &row);
}

void machine_snapshot_fire(struct machine *m, struct machine_fire *fire)
{
    if (!take_stamp(m, &fire->stamp))
        return;
    struct snapshot_row row = {.uid = &fire->uid,
                               .slot = fire->slot,
                               .seq = fire->seq,
                               .ns = fire->name,
                               .id = machine_fire_id(fire),
                               .body = fire->row->data,
                               .body_bytes = fire->row->bytes};
    snapshot_out_fire(&m->snapshot->out, &row);
}

void machine_snapshot_copy(struct machine *m, struct machine_copy *copy)
{
    if (!take_stamp(m, &copy->stamp))
        return;
    struct snapshot_row row = {.uid = &copy->uid,
                               .seq = copy->version,
                               .until_ms = copy->until_ms,
                               .spec = copy->spec->data,
                               .spec_bytes = copy->spec->bytes};
    snapshot_out_copy(&m->snapshot->out, &row);
}

void machine_snapshot_revision(struct machine *m, struct machine_revision *r)
{
    struct revision row;
    if (!take_stamp(m, &r->stamp))
        return;
    machine_revision_row(r, &row);
    snapshot_out_revision(&m->snapshot->out, r->name, machine_revision_id(r), &row,
                          r->was ? r->was->data : NULL, r->was ? r->was->bytes : 0);
}

void machine_snapshot_entry(struct machine *m, const void *data, size_t bytes)
{
    struct machine_snapshot *s = m->snapshot;
    if (!s)
        return;
    void *copy = mem_alloc_or_die(1, bytes);
    memcpy(copy, data, bytes);
    add_buffer(&s->entries, &s->entries_count, &s->entries_cap, copy, bytes);
}

/* --- walking ------------------------------------------------------------------------------------------------------- */

static const struct sorted *phase_index(const struct machine *m, enum phase phase)
{
    const struct sorted *indexes[] = {&m->jobs_by_uid, &m->fires_by_seq, &m->copies_by_version,
                                      &m->revisions_by_change};
    assert((size_t)phase < sizeof(indexes) / sizeof(indexes[0]));
    return indexes[phase];
}

static void write_item(struct machine *m, enum phase phase, void *item)
{
    switch (phase) {
    case PHASE_JOBS:
        machine_snapshot_job(m, item);
        break;
    case PHASE_FIRES:
        machine_snapshot_fire(m, item);
        break;
    case PHASE_COPIES:
        machine_snapshot_copy(m, item);
        break;
    case PHASE_REVISIONS:
        machine_snapshot_revision(m, item);
        break;
    case PHASE_DONE:
        break;
    }
}

static void set_revision_cursor(struct machine_snapshot *s, const struct machine_revision *r)
{
    memcpy(s->ns, r->name, r->id_at);
    memcpy(s->id, machine_revision_id(r), strlen(machine_revision_id(r)) + 1);
    s->cursor = (struct machine_key){.ns = s->ns, .id = s->id, .seq = r->change_id};
}

static void set_cursor(struct machine_snapshot *s, const void *item)
{
    s->cursor_set = true;
    if (s->phase == PHASE_JOBS) {
        s->cursor.uid = ((const struct machine_job *)item)->uid;
    } else if (s->phase == PHASE_FIRES) {
        s->cursor.uid = ((const struct machine_fire *)item)->uid;
        s->cursor.seq = ((const struct machine_fire *)item)->seq;
    } else if (s->phase == PHASE_COPIES) {
        s->cursor.uid = ((const struct machine_copy *)item)->uid;
        s->cursor.seq = ((const struct machine_copy *)item)->version;
    } else {
        set_revision_cursor(s, item);
    }
}

bool machine_snapshot_step(struct machine *m, size_t rows)
{
    struct machine_snapshot *s = m->snapshot;
    while (s->phase != PHASE_DONE) {
        const struct sorted *index = phase_index(m, s->phase);
        struct sorted_at at = sorted_seek(index, s->cursor_set ? &s->cursor : NULL, true);
        void *item, *last = NULL;
        for (; rows > 0 && (item = sorted_get(index, at)); rows--, sorted_next(index, &at)) {
            write_item(m, s->phase, item);
            last = item;
        }
        if (last)
            set_cursor(s, last);
        if (sorted_get(index, at))
            return false;
        s->phase++;
        s->cursor_set = false;
    }
    return true;
}

static void free_buffers(struct machine_buffer *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mem_free(list[i].data);
    mem_free(list);
}

void machine_snapshot_abort(struct machine *m)
{
    struct machine_snapshot *s = m->snapshot;
    if (!s)
        return;
    free_buffers(s->buffers, s->buffers_count);
    free_buffers(s->entries, s->entries_count);
    snapshot_out_abort(&s->out);
    mem_free(s);
    m->snapshot = NULL;
}

void machine_snapshot_end(struct machine *m, struct machine_buffer **ret, size_t *ret_count)
{
    struct machine_snapshot *s = m->snapshot;
    assert(s && s->phase == PHASE_DONE);
    for (size_t i = 0; i < s->entries_count; i++)
        snapshot_out_entry(&s->out, s->entries[i].data, s->entries[i].bytes);
    snapshot_out_end(&s->out);
    *ret = s->buffers;
    *ret_count = s->buffers_count;
    s->buffers = NULL;
    s->buffers_count = 0;
    machine_snapshot_abort(m);
}

/* --- restoring ----------------------------------------------------------------------------------------------------- */

struct restore {
    struct machine *m;
    struct machine_load load;
    uint64_t entries;
    bool ended;
    struct err *e;
};

static void get_meta(struct restore *r, struct codec_in *in)
{
    struct machine *m = r->m;
    in->bad |= m->meta.schema != 0;
    m->meta.schema = (uint32_t)codec_get_u64(in, UINT32_MAX);
    if (m->meta.schema > STORE_VERSION)
        in->newer = in->bad = true;
    m->meta.slots = (uint32_t)codec_get_u64(in, UINT16_MAX + 1);
    m->meta.created_ms = codec_get_i64(in);
    codec_get_text(in, m->meta.cluster, sizeof(m->meta.cluster));
    const void *secret = codec_get_raw(in, sizeof(m->meta.secret));
    if (secret)
        memcpy(m->meta.secret, secret, sizeof(m->meta.secret));
    m->seq = codec_get_u64(in, UINT64_MAX);
    m->proposer = codec_get_u64(in, UINT64_MAX);
}

static void get_member(struct restore *r, struct codec_in *in)
{
    struct store_member row = {0};
    codec_get_row(in, codec_member(), &row, CODEC_ALL);
    row.dead = codec_get_u64(in, 1) != 0;
    int64_t died_ms = codec_get_i64(in);
    in->bad |= machine_member(r->m, row.id) != NULL;
    if (!in->bad)
        machine_member_insert(r->m, &row, died_ms);
}

static void get_slots(struct restore *r, struct codec_in *in)
{
    struct machine *m = r->m;
    size_t n = (size_t)codec_get_u64(in, m->meta.slots - m->slots_count);
    uint64_t epoch = codec_get_u64(in, UINT64_MAX);
    char owner[RECORD_MEMBER_MAX];
    codec_get_text(in, owner, sizeof(owner));
    if (in->bad)
        return;
    if (!m->slots)
        m->slots = mem_new_array(struct store_slot, m->meta.slots);
    for (size_t i = 0; i < n; i++) {
        struct store_slot *slot = &m->slots[m->slots_count];
        slot->slot = (uint16_t)m->slots_count++;
        slot->epoch = epoch;
        memcpy(slot->owner, owner, sizeof(owner));
    }
}

static void get_uid(struct codec_in *in, struct uid *ret)
{
    const void *p = codec_get_raw(in, sizeof(ret->bytes));
    if (p)
        memcpy(ret->bytes, p, sizeof(ret->bytes));
}

/* A row without its key, which ROW has already. */
static void get_body(struct codec_in *in, const struct codec_table *t, void *row)
{
    size_t len;
    const void *data = codec_get_bytes(in, &len);
    struct codec_in body = codec_in(data, len);
    codec_get_row(&body, t, row, CODEC_BODY);
    in->bad |= !data || body.bad || body.at != body.end;
    in->newer |= body.newer;
}

static void get_job(struct restore *r, struct codec_in *in)
{
    struct job_row row = {0};
    struct pack_labels labels;
    size_t spec_bytes;
    get_uid(in, &row.uid);
    row.slot = (uint16_t)codec_get_u64(in, UINT16_MAX);
    codec_get_text(in, row.ns, sizeof(row.ns));
    codec_get_text(in, row.id, sizeof(row.id));
    get_body(in, codec_job(), &row);
    const void *spec = codec_get_bytes(in, &spec_bytes);
    in->bad |= !spec || !pack_labels(spec, spec_bytes, &labels);
    if (in->bad)
        return;
    struct machine_blob *blob = machine_blob_of(r->m, spec, spec_bytes);
    machine_load_add(&r->load, MACHINE_JOBS, machine_job_make(r->m, &row, blob));
}

static void get_fire(struct restore *r, struct codec_in *in)
{
    struct fire_row row = {0};
    get_uid(in, &row.uid);
    row.slot = (uint16_t)codec_get_u64(in, UINT16_MAX);
    row.seq = codec_get_u64(in, UINT64_MAX);
    codec_get_text(in, row.ns, sizeof(row.ns));
    codec_get_text(in, row.id, sizeof(row.id));
    get_body(in, codec_fire(), &row);
    if (!in->bad)
        machine_load_add(&r->load, MACHINE_FIRES, machine_fire_make(r->m, &row));
}

static void get_copy(struct restore *r, struct codec_in *in)
{
    struct uid uid = {{0}};
    struct pack_labels labels;
    size_t spec_bytes;
    get_uid(in, &uid);
    uint64_t version = codec_get_u64(in, UINT64_MAX);
    int64_t until_ms = codec_get_i64(in);
    const void *spec = codec_get_bytes(in, &spec_bytes);
    in->bad |= !spec || !pack_labels(spec, spec_bytes, &labels);
    if (in->bad)
        return;
    struct machine_blob *blob = machine_blob_of(r->m, spec, spec_bytes);
    machine_load_add(&r->load, MACHINE_COPIES, machine_copy_make(r->m, &uid, version, blob, until_ms));
}

static void get_revision(struct restore *r, struct codec_in *in)
{
    char ns[RECORD_NS_MAX], id[RECORD_ID_MAX];
    struct revision row;
    struct pack_labels labels;
    size_t was_bytes = 0;
    codec_get_text(in, ns, sizeof(ns));
    codec_get_text(in, id, sizeof(id));
    codec_get_row(in, codec_revision(), &row, CODEC_ALL);
    const void *was = codec_get_u64(in, 1) ? codec_get_bytes(in, &was_bytes) : NULL;
    in->bad |= was && !pack_labels(was, was_bytes, &labels);
    if (in->bad)
        return;
    struct machine_blob *blob = was ? machine_blob_of(r->m, was, was_bytes) : NULL;
    machine_load_add(&r->load, MACHINE_REVISIONS, machine_revision_make(r->m, ns, id, &row, blob));
}

static int get_entry(struct restore *r, struct codec_in *in)
{
    size_t len;
    const void *data = codec_get_bytes(in, &len);
    if (!data)
        return 0;
    int rc = r->entries++ == 0 ? machine_load_end(&r->load, r->m, r->e) : 0;
    return rc < 0 ? rc : machine_apply(r->m, data, len, NULL, NULL, r->e);
}

static void get_end(struct restore *r, struct codec_in *in)
{
    uint64_t jobs = codec_get_u64(in, UINT64_MAX), fires = codec_get_u64(in, UINT64_MAX);
    uint64_t copies = codec_get_u64(in, UINT64_MAX);
    uint64_t revisions = codec_get_u64(in, UINT64_MAX), entries = codec_get_u64(in, UINT64_MAX);
    const struct machine_rows *rows = r->load.rows;
    r->ended = true;
    in->bad |= jobs != rows[MACHINE_JOBS].count || fires != rows[MACHINE_FIRES].count ||
               copies != rows[MACHINE_COPIES].count || revisions != rows[MACHINE_REVISIONS].count ||
               entries != r->entries;
}

static int get_item(struct restore *r, struct codec_in *in)
{
    uint64_t kind = codec_get_u64(in, UINT64_MAX);
    in->newer |= kind > SNAPSHOT_LAST_;
    in->bad |= in->newer || kind == 0 || r->ended || (r->m->meta.schema == 0) != (kind == SNAPSHOT_META);
    in->bad |= r->entries > 0 && kind != SNAPSHOT_ENTRY && kind != SNAPSHOT_END;
    if (in->bad)
        return 0;
    switch ((enum snapshot_item)kind) {
    case SNAPSHOT_META:
        get_meta(r, in);
        break;
    case SNAPSHOT_MEMBER:
        get_member(r, in);
        break;
    case SNAPSHOT_SLOTS:
        get_slots(r, in);
        break;
    case SNAPSHOT_JOB:
        get_job(r, in);
        break;
    case SNAPSHOT_FIRE:
        get_fire(r, in);
        break;
    case SNAPSHOT_REVISION:
        get_revision(r, in);
        break;
    case SNAPSHOT_ENTRY:
        return get_entry(r, in);
    case SNAPSHOT_END:
        get_end(r, in);
        break;
    case SNAPSHOT_COPY:
        get_copy(r, in);
        break;
    }
    return 0;
}

/* The next block's body. */
static int get_block(struct codec_in *in, struct codec_in *ret, struct err *e)
{
    uint64_t magic = codec_get_fixed64(in), body = codec_get_fixed64(in), sum = codec_get_fixed64(in);
    if (in->bad || body > (size_t)(in->end - in->at) ||
        (magic & UINT64_C(0xffffffffffff)) != (SNAPSHOT_MAGIC & UINT64_C(0xffffffffffff)))
        return err_set(e, ERR_PROTOCOL, "the snapshot is cut off or damaged");
    if (magic != SNAPSHOT_MAGIC)
        return err_set(e, ERR_PROTOCOL, "the snapshot was written by a newer carillon");
    const void *data = codec_get_raw(in, (size_t)body);
    if (XXH3_64bits(data, (size_t)body) != sum)
        return err_set(e, ERR_PROTOCOL, "the snapshot is damaged: a checksum is wrong");
    *ret = codec_in(data, (size_t)body);
    return 0;
}

static int get_blocks(struct restore *r, const void *data, size_t bytes)
{
    struct codec_in in = codec_in(data, bytes), block;
    while (in.at != in.end) {
        int rc = get_block(&in, &block, r->e);
        while (rc == 0 && !codec_at_end(&block))
            rc = get_item(r, &block);
        if (rc == 0)
            rc = codec_finish(&block, "the snapshot", r->e);
        if (rc < 0)
            return rc;
    }
    if (!r->ended || (r->m->slots_count != 0 && r->m->slots_count != r->m->meta.slots))
        return err_set(r->e, ERR_PROTOCOL, "the snapshot is not complete");
    return 0;
}

int machine_restore(struct machine *m, const void *data, size_t bytes, struct err *e)
{
    struct restore r = {.m = m, .e = e};
    int rc = get_blocks(&r, data, bytes);
    if (rc == 0 && r.entries == 0)
        rc = machine_load_end(&r.load, m, e);
    machine_load_fini(&r.load, m);
    return rc;
}

int machine_check_snapshot(const void *data, size_t bytes, struct err *e)
{
    struct codec_in in = codec_in(data, bytes), block;
    int r = bytes == 0 ? err_set(e, ERR_PROTOCOL, "the snapshot is not complete") : 0;
    while (r == 0 && in.at != in.end)
        r = get_block(&in, &block, e);
    return r;
}
