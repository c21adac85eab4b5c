#include "agent/store/dump/dump.h"

#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/codec.h"

#define RECORD_MAX ((size_t)64 << 20)

const char *dump_kind_name(enum dump_kind kind)
{
    static const char *const names[DUMP_KIND_COUNT_] = {"meta",  "members", "slots",    "jobs",
                                                        "fires", "copies",  "revisions"};
    return names[kind];
}

/* --- comparing ----------------------------------------------------------------------------------------------------- */

/* One side of a comparison: where it stands. KEYS sort as the records come. */
struct side {
    struct dump_place *place;
    void *reader;
    struct dump_record record;
    bool more;
    struct buf key, body;
};

static void put_big_endian(struct buf *b, uint64_t v)
{
    for (unsigned i = 8; i-- > 0;)
        buf_add_char(b, (char)(uint8_t)(v >> 8 * i));
}

static void put_text(struct buf *b, const struct dump_text *t)
{
    codec_put_bytes(b, t->definition, t->definition_bytes);
    codec_put_u64(b, t->payload != NULL);
    codec_put_bytes(b, t->payload, t->payload_bytes);
}

static void put_uid_key(struct buf *b, const struct uid *uid, uint64_t seq)
{
    buf_add(b, uid->bytes, sizeof(uid->bytes));
    put_big_endian(b, seq);
}

static void put_meta(struct side *s, const struct store_meta *m)
{
    codec_put_u64(&s->body, m->slots);
    codec_put_i64(&s->body, m->created_ms);
    codec_put_text(&s->body, m->cluster);
    buf_add(&s->body, m->secret, sizeof(m->secret));
}

static void put_revision(struct side *s, const struct dump_record *r)
{
    buf_add(&s->key, r->revision.ns, strlen(r->revision.ns) + 1);
    buf_add(&s->key, r->revision.id, strlen(r->revision.id) + 1);
    put_big_endian(&s->key, r->revision.row.change_id);
    codec_put_row(&s->body, codec_revision(), &r->revision.row, CODEC_ALL);
    codec_put_u64(&s->body, r->revision.was != NULL);
    codec_put_bytes(&s->body, r->revision.was, r->revision.was_bytes);
}

static void encode(struct side *s)
{
    const struct dump_record *r = &s->record;
    buf_reset(&s->key);
    buf_reset(&s->body);
    buf_add_char(&s->key, (char)r->kind);
    switch (r->kind) {
    case DUMP_META:
        put_meta(s, &r->meta);
        break;
    case DUMP_MEMBER:
        buf_add(&s->key, r->member.row.id, strlen(r->member.row.id) + 1);
        codec_put_row(&s->body, codec_member(), &r->member.row, CODEC_ALL);
        codec_put_u64(&s->body, r->member.row.dead);
        codec_put_i64(&s->body, r->member.died_ms);
        break;
    case DUMP_SLOT:
        put_big_endian(&s->key, r->slot.slot);
        codec_put_u64(&s->body, r->slot.epoch);
        codec_put_text(&s->body, r->slot.owner);
        break;
    case DUMP_JOB:
        put_uid_key(&s->key, &r->job.row.uid, 0);
        codec_put_row(&s->body, codec_job(), &r->job.row, CODEC_ALL);
        put_text(&s->body, &r->job.text);
        break;
    case DUMP_FIRE:
        put_uid_key(&s->key, &r->fire.uid, r->fire.seq);
        codec_put_row(&s->body, codec_fire(), &r->fire, CODEC_ALL);
        break;
    case DUMP_COPY:
        put_uid_key(&s->key, &r->copy.uid, r->copy.version);
        codec_put_i64(&s->body, r->copy.until_ms);
        put_text(&s->body, &r->copy.text);
        break;
    case DUMP_REVISION:
        put_revision(s, r);
        break;
    case DUMP_KIND_COUNT_:
        break;
    }
}

static int advance(struct side *s, struct err *e)
{
    int r = s->place->driver->read_next(s->reader, &s->record, e);
    s->more = r > 0;
    if (r <= 0)
        return r;
    encode(s);
    r = buf_check(&s->key, e);
    return r < 0 ? r : buf_check(&s->body, e);
}

/* A record for people. */
static void name_record(const struct dump_record *r, char *ret, size_t size)
{
    char id[56] = "";
    switch (r->kind) {
    case DUMP_MEMBER:
        (void)snprintf(ret, size, "member %s", r->member.row.id); /* cut, as all of these: for people */
        break;
    case DUMP_SLOT:
        (void)snprintf(ret, size, "slot %u", (unsigned)r->slot.slot);
        break;
    case DUMP_JOB:
        (void)snprintf(ret, size, "job %s/%s", r->job.row.ns, r->job.row.id);
        break;
    case DUMP_FIRE:
        fire_id_print(&r->fire.uid, r->fire.seq, id);
        (void)snprintf(ret, size, "fire %s of %s/%s", id, r->fire.ns, r->fire.id);
        break;
    case DUMP_COPY:
        uid_print(&r->copy.uid, id);
        (void)snprintf(ret, size, "copy of version %llu of job uid %s", (unsigned long long)r->copy.version,
                       id);
        break;
    case DUMP_REVISION:
        (void)snprintf(ret, size, "revision %llu of %s/%s", (unsigned long long)r->revision.row.change_id,
                       r->revision.ns, r->revision.id);
        break;
    case DUMP_META:
    case DUMP_KIND_COUNT_:
        (void)snprintf(ret, size, "what the store is (cluster, slots, creation, secret)");
        break;
    }
}

static int order_bytes(const struct buf *a, const struct buf *b)
{
    int order = memcmp(buf_str(a), buf_str(b), a->len < b->len ? a->len : b->len);
    return order ? order : (a->len > b->len) - (a->len < b->len);
}

static int compare_step(struct side *from, struct side *to, uint64_t *differences, dump_difference_fn *fn,
                        void *arg, struct err *e)
{
    char name[400], text[440];
    int order = !from->more ? 1 : !to->more ? -1 : order_bytes(&from->key, &to->key);
    if (order != 0 || order_bytes(&from->body, &to->body) != 0) {
        name_record(order > 0 ? &to->record : &from->record, name, sizeof(name));
        (void)snprintf(text, sizeof(text), "%s %s", name,
                       order < 0   ? "is missing in the copy"
                       : order > 0 ? "is only in the copy"
                                   : "is not the same"); /* it fits */
        fn(arg, text);
        ++*differences;
    }
    int r = order <= 0 ? advance(from, e) : 0;
    return r == 0 || r == 1 ? (order >= 0 ? advance(to, e) : r) : r;
}

static int open_side(struct side *s, struct dump_place *place, struct err *e)
{
    *s = (struct side){.place = place, .key = BUF_INIT(4096), .body = BUF_INIT(RECORD_MAX)};
    int r = place->driver->read_open(place, true, &s->reader, e);
    return r < 0 ? r : advance(s, e);
}

static void close_side(struct side *s)
{
    if (s->reader)
        s->place->driver->read_close(s->reader);
    buf_fini(&s->key);
    buf_fini(&s->body);
}

static int compare(struct dump_place *from, struct dump_place *to, dump_difference_fn *fn, void *arg,
                   struct err *e)
{
    struct side a, b = {0};
    uint64_t differences = 0;
    int r = open_side(&a, from, e);
    if (r >= 0)
        r = open_side(&b, to, e);
    while (r >= 0 && (a.more || b.more))
        r = compare_step(&a, &b, &differences, fn, arg, e);
    close_side(&a);
    close_side(&b);
    if (r < 0)
        return err_wrap(e, "compare");
    if (differences > 0)
        return err_set(e, ERR_CONFLICT, "%llu records differ", (unsigned long long)differences);
    return 0;
}

/* --- copying ------------------------------------------------------------------------------------------------------- */

static void count(struct dump_counts *c, const struct dump_record *r)
{
    c->records[r->kind]++;
    c->dead_letters += r->kind == DUMP_FIRE && r->fire.outcome == FIRE_OUTCOME_DEAD;
}

static int copy_records(struct dump_place *to, void *reader, const struct dump_place *from, void **writer,
                        struct dump_counts *counts, struct err *e)
{
    struct dump_record record;
    int r;
    while ((r = from->driver->read_next(reader, &record, e)) > 0) {
        if (record.kind == DUMP_META)
            r = to->driver->write_open(to, &record.meta, writer, e);
        else
            r = to->driver->write_put(*writer, &record, e);
        if (r < 0)
            return r;
        count(counts, &record);
    }
    return r;
}

static int copy_all(struct dump_place *from, struct dump_place *to, void **writer, struct dump_counts *counts,
                    struct err *e)
{
    void *reader;
    int r = from->driver->read_open(from, false, &reader, e);
    if (r < 0)
        return err_wrap(e, "read");
    r = copy_records(to, reader, from, writer, counts, e);
    from->driver->read_close(reader);
    if (r == 0)
        r = to->driver->write_end(*writer, e);
    return r;
}

static int copy_claimed(struct dump_place *from, struct dump_place *to, bool verify, dump_difference_fn *fn,
                        void *arg, struct dump_counts *counts, struct err *e)
{
    void *writer = NULL;
    int r = copy_all(from, to, &writer, counts, e);
    if (r == 0 && verify)
        r = compare(from, to, fn, arg, e);
    if (r == 0)
        r = from->driver->still_quiet(from, e);
    if (r == 0)
        r = to->driver->write_done(writer, e);
    if (writer)
        to->driver->write_close(writer);
    return r;
}

int dump_copy(struct dump_place *from, struct dump_place *to, bool verify, dump_difference_fn *fn, void *arg,
              struct dump_counts *ret, struct err *e)
{
    struct dump_counts counts = {0};
    from->lock_fd_ = to->lock_fd_ = -1;
    from->seen_ = to->seen_ = BUF_INIT(1 << 20);
    int r = from->driver->claim(from, false, e);
    if (r == 0)
        r = to->driver->claim(to, true, e);
    if (r == 0)
        r = copy_claimed(from, to, verify, fn, arg, &counts, e);
    to->driver->release(to);
    from->driver->release(from);
    if (r == 0)
        *ret = counts;
    return r;
}
