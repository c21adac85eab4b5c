#include "agent/store/raft/entry.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/list.h"
#include "agent/core/job.h"
#include "agent/store/raft/pack.h"

/* "CARLOG" and the version of the format. */
#define MAGIC      UINT64_C(0x0001474f4c524143)
#define HEAD_BYTES 24

/* --- writing ------------------------------------------------------------------------------------------------------- */

void entry_begin(struct buf *b, uint64_t seq, uint64_t proposer)
{
    static const char head[HEAD_BYTES];
    buf_reset(b);
    buf_add(b, head, sizeof(head)); /* filled at the end */
    codec_put_u64(b, seq);
    codec_put_u64(b, proposer);
}

void entry_add(struct buf *b, enum command_kind kind, const struct buf *content)
{
    buf_fail_with(b, content); /* the entry fails with what it was to hold */
    codec_put_u64(b, kind);
    codec_put_bytes(b, buf_str(content), content->len);
}

static void set_fixed64(char *at, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        at[i] = (char)(uint8_t)(v >> 8 * i);
}

int entry_end(struct buf *b, struct err *e)
{
    static const char zeros[8];
    int r = buf_check(b, e);
    if (r < 0)
        return r;
    size_t body = b->len - HEAD_BYTES;
    if (b->len % 8)
        buf_add(b, zeros, 8 - b->len % 8);
    r = buf_check(b, e);
    if (r < 0)
        return r;
    set_fixed64(b->data, MAGIC);
    set_fixed64(b->data + 8, body);
    set_fixed64(b->data + 16, XXH3_64bits(b->data + HEAD_BYTES, body));
    return 0;
}

void command_put_make(struct buf *b, const struct store_meta *meta)
{
    codec_put_u64(b, meta->schema);
    codec_put_u64(b, meta->slots);
    codec_put_i64(b, meta->created_ms);
    codec_put_text(b, meta->cluster);
    buf_add(b, meta->secret, sizeof(meta->secret));
}

void command_put_join(struct buf *b, const struct store_member *me, bool alone, int64_t at_ms)
{
    codec_put_row(b, codec_member(), me, CODEC_ALL);
    codec_put_u64(b, alone);
    codec_put_i64(b, at_ms);
}

void command_put_declare(struct buf *b, const char *victim, int64_t at_ms)
{
    codec_put_text(b, victim);
    codec_put_i64(b, at_ms);
}

static void put_slots(struct buf *b, const struct slot_change *slots, size_t count)
{
    codec_put_u64(b, count);
    for (size_t i = 0; i < count; i++) {
        codec_put_u64(b, slots[i].slot);
        codec_put_text(b, slots[i].from);
        codec_put_u64(b, slots[i].from_epoch);
        codec_put_text(b, slots[i].to);
    }
}

void command_put_slots(struct buf *b, const char *member, const struct slot_change *slots, size_t count)
{
    codec_put_text(b, member);
    put_slots(b, slots, count);
}

void command_put_vacuum(struct buf *b, int64_t now_ms, const struct machine_cut *cuts, size_t count)
{
    codec_put_i64(b, now_ms);
    codec_put_u64(b, count);
    for (size_t i = 0; i < count; i++) {
        buf_add(b, cuts[i].uid.bytes, sizeof(cuts[i].uid.bytes));
        codec_put_u64(b, cuts[i].seq);
    }
}

/* One packed definition, or that there is none. */
static int put_spec(struct buf *b, const struct job_spec *spec,
                    int (*pack)(const struct job_spec *, struct buf *, struct err *), struct err *e)
{
    codec_put_u64(b, spec != NULL);
    if (!spec)
        return 0;
    AUTO(buf_fini) struct buf packed = BUF_INIT(ENTRY_MAX_BYTES);
    int r = pack(spec, &packed, e);
    if (r == 0)
        codec_put_bytes(b, buf_str(&packed), packed.len);
    return r;
}

/* What a fire's copy is: none, bytes, the same bytes as the one before. */
enum { COPY_NONE, COPY_BYTES, COPY_SAME };

static int put_copy(struct buf *b, const struct fire_change *f, const struct job_spec **last, struct err *e)
{
    if (!f->copy || f->copy == *last) {
        codec_put_u64(b, f->copy ? COPY_SAME : COPY_NONE);
    } else {
        AUTO(buf_fini) struct buf packed = BUF_INIT(ENTRY_MAX_BYTES);
        int r = pack_spec(f->copy, &packed, e);
        if (r < 0)
            return r;
        codec_put_u64(b, COPY_BYTES);
        codec_put_bytes(b, buf_str(&packed), packed.len);
        *last = f->copy;
    }
    if (f->copy)
        codec_put_i64(b, f->copy_until_ms);
    return 0;
}

/* What the changes of a commit share. */
struct changes_out {
    struct buf *out;
    uint32_t version;
    const struct job_spec *last; /* the copy before */
};

static int put_fire(struct changes_out *o, const struct fire_change *f, struct err *e)
{
    struct buf *b = o->out;
    codec_put_u64(b, f->op);
    codec_put_u64(b, f->expect_rev);
    codec_put_text(b, f->expect_holder);
    codec_put_row_of(b, codec_fire(), &f->row, CODEC_ALL, o->version);
    return put_copy(b, f, &o->last, e);
}

static int put_change(struct changes_out *o, const struct job_change *c, struct err *e)
{
    struct buf *b = o->out;
    bool revision = c->op != CHANGE_NONE && c->revision.op[0];
    bool defines = c->op == CHANGE_INSERT || c->op == CHANGE_REPLACE;
    codec_put_u64(b, c->op);
    codec_put_u64(b, c->expect_rev);
    codec_put_row(b, codec_job(), &c->row, CODEC_ALL);
    codec_put_u64(b, revision);
    if (revision)
        codec_put_row(b, codec_revision(), &c->revision, CODEC_ALL);
    int r = put_spec(b, defines ? c->spec : NULL, pack_spec, e);
    if (r == 0)
        r = put_spec(b, revision ? c->replaced : NULL, pack_definition, e);
    codec_put_u64(b, c->fires_count);
    for (size_t i = 0; r == 0 && i < c->fires_count; i++)
        r = put_fire(o, &c->fires[i], e);
    return r;
}

void command_put_version(struct buf *b, uint32_t version)
{
    codec_put_u64(b, version);
}

size_t command_put_commit(struct buf *b, uint32_t version, const char *member,
                          const struct slot_change *slots, size_t slots_count,
                          struct job_change *const *changes, size_t count, size_t max_bytes, struct err *e)
{
    struct changes_out out = {.out = b, .version = version};
    size_t n = 0;
    codec_put_text(b, member);
    put_slots(b, slots, slots_count);
    while (n < count && (n == 0 || b->len < max_bytes)) {
        codec_put_u64(b, 1);
        if (put_change(&out, changes[n], e) < 0)
            b->fail_ = ERR_NOMEM;
        n++;
    }
    codec_put_u64(b, 0);
    return n;
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static int check_head(struct codec_in *in, size_t *ret_body, struct err *e)
{
    uint64_t magic = codec_get_fixed64(in), body = codec_get_fixed64(in), sum = codec_get_fixed64(in);
    size_t left = (size_t)(in->end - in->at);
    if (in->bad || (magic & UINT64_C(0xffffffffffff)) != (MAGIC & UINT64_C(0xffffffffffff)))
        return err_set(e, ERR_PROTOCOL, "this is no log entry of carillon's");
    if (magic != MAGIC)
        return err_set(e, ERR_PROTOCOL, "the log entry was written by a newer carillon");
    if (body > left || left - body >= 8)
        return err_set(e, ERR_PROTOCOL, "the log entry has the wrong length");
    for (size_t i = (size_t)body; i < left; i++)
        if (in->at[i] != 0)
            return err_set(e, ERR_PROTOCOL, "the log entry has something behind its end");
    if (XXH3_64bits(in->at, (size_t)body) != sum)
        return err_set(e, ERR_PROTOCOL, "the log entry's checksum is wrong");
    *ret_body = (size_t)body;
    return 0;
}

int entry_open(const void *data, size_t len, struct entry *ret, struct err *e)
{
    struct codec_in in = codec_in(data, len);
    size_t body;
    int r = check_head(&in, &body, e);
    if (r < 0)
        return r;
    in.end = in.at + body;
    struct entry entry = {.seq = codec_get_u64(&in, UINT64_MAX)};
    entry.proposer = codec_get_u64(&in, UINT64_MAX);
    entry.commands = in;
    if (in.bad)
        return codec_finish(&in, "the log entry", e);
    *ret = entry;
    return 0;
}

bool entry_next(struct entry *entry, struct command *ret)
{
    struct codec_in *in = &entry->commands;
    size_t len;
    if (codec_at_end(in))
        return false;
    uint64_t kind = codec_get_u64(in, UINT64_MAX);
    const void *content = codec_get_bytes(in, &len);
    if (!in->bad && kind > COMMAND_LAST_)
        in->newer = in->bad = true;
    if (in->bad || kind == 0) {
        in->bad = true;
        return false;
    }
    *ret = (struct command){.kind = (enum command_kind)kind, .in = codec_in(content, len)};
    return true;
}

int entry_close(const struct entry *entry, struct err *e)
{
    return codec_finish(&entry->commands, "the log entry", e);
}

void command_get_slot(struct codec_in *in, struct slot_change *ret)
{
    ret->slot = (uint16_t)codec_get_u64(in, UINT16_MAX);
    codec_get_text(in, ret->from, sizeof(ret->from));
    ret->from_epoch = codec_get_u64(in, UINT64_MAX - 1);
    codec_get_text(in, ret->to, sizeof(ret->to));
    ret->changed = false;
}

static void get_copy(struct codec_in *in, struct command_fire *last, struct command_fire *ret)
{
    uint64_t kind = codec_get_u64(in, COPY_SAME);
    ret->copy = NULL;
    if (kind == COPY_NONE)
        return;
    if (kind == COPY_BYTES) {
        struct pack_labels labels;
        last->copy = codec_get_bytes(in, &last->copy_bytes);
        in->bad |= !last->copy || !pack_labels(last->copy, last->copy_bytes, &labels);
    }
    in->bad |= !last->copy;
    ret->copy = last->copy;
    ret->copy_bytes = last->copy_bytes;
    ret->change.copy_until_ms = codec_get_i64(in);
}

void command_get_fire(struct codec_in *in, struct command_fire *last, struct command_fire *ret)
{
    struct fire_change *f = &ret->change;
    f->op = (enum change_op)codec_get_u64(in, CHANGE_COUNT_ - 1);
    f->expect_rev = codec_get_u64(in, UINT64_MAX);
    codec_get_text(in, f->expect_holder, sizeof(f->expect_holder));
    codec_get_row(in, codec_fire(), &f->row, CODEC_ALL);
    f->copy = NULL;
    get_copy(in, last, ret);
    in->bad |= f->op == CHANGE_NONE || f->op == CHANGE_REPLACE;
}

void command_get_cut(struct codec_in *in, struct machine_cut *ret)
{
    const void *uid = codec_get_raw(in, sizeof(ret->uid.bytes));
    if (uid)
        memcpy(ret->uid.bytes, uid, sizeof(ret->uid.bytes));
    ret->seq = codec_get_u64(in, UINT64_MAX);
}

static const void *get_spec(struct codec_in *in, size_t *ret_len)
{
    struct pack_labels labels;
    *ret_len = 0;
    if (!codec_get_u64(in, 1))
        return NULL;
    const void *packed = codec_get_bytes(in, ret_len);
    in->bad |= !packed || !pack_labels(packed, *ret_len, &labels);
    return packed;
}

void command_get_change(struct codec_in *in, struct command_change *ret)
{
    struct job_change *c = &ret->change;
    c->op = (enum change_op)codec_get_u64(in, CHANGE_COUNT_ - 1);
    c->expect_rev = codec_get_u64(in, UINT64_MAX);
    codec_get_row(in, codec_job(), &c->row, CODEC_ALL);
    c->revision.op[0] = 0;
    if (codec_get_u64(in, 1))
        codec_get_row(in, codec_revision(), &c->revision, CODEC_ALL);
    bool defines = c->op == CHANGE_INSERT || c->op == CHANGE_REPLACE;
    ret->spec = get_spec(in, &ret->spec_bytes);
    ret->replaced = get_spec(in, &ret->replaced_bytes);
    in->bad |= defines != (ret->spec != NULL);
    ret->fires_count = (size_t)codec_get_u64(in, (uint64_t)(in->end - in->at));
    c->spec = c->replaced = NULL;
    c->fires = NULL;
    c->fires_count = ret->fires_count;
    c->result = CHANGE_RESULT_OK;
}

/* --- checking ------------------------------------------------------------------------------------------------------ */

static void check_change(struct codec_in *in, struct command_fire *last)
{
    struct command_change c;
    struct command_fire fire;
    command_get_change(in, &c);
    for (size_t i = 0; i < c.fires_count && !in->bad; i++)
        command_get_fire(in, last, &fire);
}

bool command_check(enum command_kind kind, const void *data, size_t bytes)
{
    struct codec_in in = codec_in(data, bytes);
    struct command_fire last = {0};
    struct slot_change slot;
    char member[RECORD_MEMBER_MAX];
    codec_get_text(&in, member, sizeof(member));
    size_t slots = (size_t)codec_get_u64(&in, bytes);
    for (size_t i = 0; i < slots && !in.bad; i++)
        command_get_slot(&in, &slot);
    while (kind == COMMAND_COMMIT && codec_get_u64(&in, 1))
        check_change(&in, &last);
    return !in.bad && in.at == in.end;
}
