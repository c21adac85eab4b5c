#include "agent/store/raft/snapshot_out.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/store/raft/codec.h"
#include "agent/store/raft/entry.h"

#define BLOCK_BYTES ((size_t)1 << 20) /* a block is closed when it has grown over this */

static void begin_block(struct snapshot_out *o)
{
    static const char head[SNAPSHOT_HEAD_BYTES];
    o->block = BUF_INIT_OR_DIE(2 * ENTRY_MAX_BYTES);
    (void)buf_reserve(&o->block, BLOCK_BYTES + BLOCK_BYTES / 4); /* there is room */
    buf_add(&o->block, head, sizeof(head));                      /* filled when the block is closed */
}

static void set_fixed64(char *at, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (char)(uint8_t)(v >> 8 * i);
}

static void close_block(struct snapshot_out *o)
{
    assert(!buf_failed(&o->block)); /* an item is smaller than an entry */
    size_t bytes = o->block.len, body = bytes - SNAPSHOT_HEAD_BYTES;
    set_fixed64(o->block.data, SNAPSHOT_MAGIC);
    set_fixed64(o->block.data + 8, body);
    set_fixed64(o->block.data + 16, XXH3_64bits(o->block.data + SNAPSHOT_HEAD_BYTES, body));
    o->bytes += bytes;
    char *data = buf_steal(&o->block, NULL, NULL);
    o->sink(o->arg, data, bytes);
}

static void maybe_close_block(struct snapshot_out *o)
{
    if (o->block.len < BLOCK_BYTES)
        return;
    close_block(o);
    begin_block(o);
}

void snapshot_out_begin(struct snapshot_out *o, snapshot_sink *sink, void *arg)
{
    *o = (struct snapshot_out){.sink = sink, .arg = arg};
    begin_block(o);
}

void snapshot_out_abort(struct snapshot_out *o)
{
    buf_fini(&o->block);
}

void snapshot_out_meta(struct snapshot_out *o, const struct store_meta *meta, uint64_t seq, uint64_t proposer)
{
    struct buf *b = &o->block;
    codec_put_u64(b, SNAPSHOT_META);
    codec_put_u64(b, meta->schema);
    codec_put_u64(b, meta->slots);
    codec_put_i64(b, meta->created_ms);
    codec_put_text(b, meta->cluster);
    buf_add(b, meta->secret, sizeof(meta->secret));
    codec_put_u64(b, seq);
    codec_put_u64(b, proposer);
}

void snapshot_out_member(struct snapshot_out *o, const struct store_member *row, int64_t died_ms)
{
    struct buf *b = &o->block;
    codec_put_u64(b, SNAPSHOT_MEMBER);
    codec_put_row(b, codec_member(), row, CODEC_ALL);
    codec_put_u64(b, row->dead);
    codec_put_i64(b, died_ms);
}

static bool same_slot(const struct store_slot *a, const struct store_slot *b)
{
    return a->epoch == b->epoch && strcmp(a->owner, b->owner) == 0;
}

void snapshot_out_slots(struct snapshot_out *o, const struct store_slot *slots, size_t count)
{
    struct buf *b = &o->block;
    for (size_t i = 0, n; i < count; i += n) {
        for (n = 1; i + n < count && same_slot(&slots[i], &slots[i + n]);)
            n++;
        codec_put_u64(b, SNAPSHOT_SLOTS);
        codec_put_u64(b, n);
        codec_put_u64(b, slots[i].epoch);
        codec_put_text(b, slots[i].owner);
    }
}

void snapshot_out_job(struct snapshot_out *o, const struct snapshot_row *row)
{
    struct buf *b = &o->block;
    codec_put_u64(b, SNAPSHOT_JOB);
    buf_add(b, row->uid->bytes, sizeof(row->uid->bytes));
    codec_put_u64(b, row->slot);
    codec_put_text(b, row->ns);
    codec_put_text(b, row->id);
    codec_put_bytes(b, row->body, row->body_bytes);
    codec_put_bytes(b, row->spec, row->spec_bytes);
    o->jobs++;
    maybe_close_block(o);
}

void snapshot_out_fire(struct snapshot_out *o, const struct snapshot_row *row)
{
    struct buf *b = &o->block;
    codec_put_u64(b, SNAPSHOT_FIRE);
    buf_add(b, row->uid->bytes, sizeof(row->uid->bytes));
    codec_put_u64(b, row->slot);
    codec_put_u64(b, row->seq);
    codec_put_text(b, row->ns);
    codec_put_text(b, row->id);
    codec_put_bytes(b, row->body, row->body_bytes);
    o->fires++;
    maybe_close_block(o);
}

void snapshot_out_copy(struct snapshot_out *o, const struct snapshot_row *row)
{
    struct buf *b = &o->block;
    codec_put_u64(b, SNAPSHOT_COPY);
    buf_add(b, row->uid->bytes, sizeof(row->uid->bytes));
    codec_put_u64(b, row->seq);
    codec_put_i64(b, row->until_ms);
    codec_put_bytes(b, row->spec, row->spec_bytes);
    o->copies++;
    maybe_close_block(o);
}

void snapshot_out_revision(struct snapshot_out *o, const char *ns, const char *id, const struct revision *row,
                           const void *was, size_t was_bytes)
{
    struct buf *b = &o->block;
    codec_put_u64(b, SNAPSHOT_REVISION);
    codec_put_text(b, ns);
    codec_put_text(b, id);
    codec_put_row(b, codec_revision(), row, CODEC_ALL);
    codec_put_u64(b, was != NULL);
    if (was)
        codec_put_bytes(b, was, was_bytes);
    o->revisions++;
    maybe_close_block(o);
}

void snapshot_out_entry(struct snapshot_out *o, const void *data, size_t bytes)
{
    codec_put_u64(&o->block, SNAPSHOT_ENTRY);
    codec_put_bytes(&o->block, data, bytes);
    o->entries++;
    maybe_close_block(o);
}

void snapshot_out_end(struct snapshot_out *o)
{
    struct buf *b = &o->block;
    codec_put_u64(b, SNAPSHOT_END);
    codec_put_u64(b, o->jobs);
    codec_put_u64(b, o->fires);
    codec_put_u64(b, o->copies);
    codec_put_u64(b, o->revisions);
    codec_put_u64(b, o->entries);
    close_block(o);
}
