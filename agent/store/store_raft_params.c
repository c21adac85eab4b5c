/* Reads as bytes: the question, and what was found. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/store_raft_read.h"

#define ROWS_MAX 20000 /* that another may ask for at once */

/* --- texts, labels ------------------------------------------------------------------------------------------------- */

/* With its NUL: the reader borrows it. */
static void put_text(struct buf *out, const char *s)
{
    codec_put_u64(out, s != NULL);
    if (s)
        codec_put_bytes(out, s, strlen(s) + 1);
}

static const char *get_text(struct codec_in *in)
{
    size_t len;
    if (codec_get_u64(in, 1) == 0)
        return NULL;
    const char *s = codec_get_bytes(in, &len);
    in->bad |= !s || len == 0 || strnlen(s, len) != len - 1;
    return in->bad ? NULL : s;
}

static const char *get_some_text(struct codec_in *in)
{
    const char *s = get_text(in);
    in->bad |= !s;
    return s;
}

static void put_uid(struct buf *out, const struct uid *uid)
{
    buf_add(out, uid->bytes, sizeof(uid->bytes));
}

static void get_uid(struct codec_in *in, struct uid *ret)
{
    const void *p = codec_get_raw(in, sizeof(ret->bytes));
    if (p)
        memcpy(ret->bytes, p, sizeof(ret->bytes));
}

static void put_labels(struct buf *out, const char *const *names, const char *const *values, size_t count)
{
    codec_put_u64(out, count);
    for (size_t i = 0; i < count; i++) {
        put_text(out, names[i]);
        put_text(out, values[i]);
    }
}

static size_t get_labels(struct codec_in *in, struct rs_question *q)
{
    size_t count = (size_t)codec_get_u64(in, (uint64_t)(in->end - in->at));
    q->names = mem_new_array(const char *, count + 1);
    q->values = mem_new_array(const char *, count + 1);
    for (size_t i = 0; i < count && !in->bad; i++) {
        q->names[i] = get_some_text(in);
        q->values[i] = get_some_text(in);
    }
    return count;
}

/* Small enumerations of which -1 is "any". */
static int get_choice(struct codec_in *in, int count)
{
    return (int)codec_get_u64(in, (uint64_t)count) - 1;
}

/* --- questions ----------------------------------------------------------------------------------------------------- */

static void put_load(const struct store_load *l, struct buf *out)
{
    codec_put_u64(out, l->limit);
    codec_put_u64(out, l->slots_count);
    for (size_t i = 0; i < l->slots_count; i++)
        codec_put_u64(out, l->slots[i]);
    codec_put_i64(out, l->until_ms);
    codec_put_i64(out, l->from_ms);
    put_text(out, l->tzdata_before);
    codec_put_u64(out, l->after.set);
    codec_put_u64(out, l->after.slot);
    codec_put_i64(out, l->after.wake_ms);
    put_uid(out, &l->after.uid);
    codec_put_u64(out, l->after.seq);
}

static void get_load(struct codec_in *in, struct read *r)
{
    struct store_load *l = &r->question->load;
    r->limit = l->limit = (size_t)codec_get_u64(in, ROWS_MAX);
    l->slots_count = (size_t)codec_get_u64(in, UINT16_MAX + 1);
    r->question->slots = mem_new_array(uint16_t, l->slots_count + 1);
    for (size_t i = 0; i < l->slots_count && !in->bad; i++)
        r->question->slots[i] = (uint16_t)codec_get_u64(in, UINT16_MAX);
    l->slots = r->question->slots;
    l->until_ms = codec_get_i64(in);
    l->from_ms = codec_get_i64(in);
    l->tzdata_before = get_text(in);
    l->after.set = codec_get_u64(in, 1) != 0;
    l->after.slot = (uint16_t)codec_get_u64(in, UINT16_MAX);
    l->after.wake_ms = codec_get_i64(in);
    get_uid(in, &l->after.uid);
    l->after.seq = codec_get_u64(in, UINT64_MAX);
    r->load = l;
}

static void put_keys(const struct read *r, struct buf *out)
{
    codec_put_u64(out, r->limit);
    for (size_t i = 0; i < r->limit; i++) {
        codec_put_text(out, r->keys[i].ns);
        codec_put_text(out, r->keys[i].id);
        put_uid(out, &r->keys[i].uid);
    }
}

static void get_keys(struct codec_in *in, struct read *r)
{
    r->limit = (size_t)codec_get_u64(in, ROWS_MAX);
    struct store_key *keys = r->question->keys = mem_new_array(struct store_key, r->limit + 1);
    for (size_t i = 0; i < r->limit && !in->bad; i++) {
        codec_get_text(in, keys[i].ns, sizeof(keys[i].ns));
        codec_get_text(in, keys[i].id, sizeof(keys[i].id));
        get_uid(in, &keys[i].uid);
    }
    r->keys = keys;
}

static void put_filter(const struct store_filter *f, struct buf *out)
{
    put_text(out, f->ns);
    put_text(out, f->prefix);
    put_labels(out, f->label_names, f->label_values, f->labels_count);
    codec_put_u64(out, (uint64_t)f->state + 1);
    codec_put_u64(out, (uint64_t)f->last_outcome + 1);
    put_text(out, f->after_ns);
    put_text(out, f->after_id);
}

static void get_filter(struct codec_in *in, struct read *r)
{
    struct store_filter *f = &r->question->filter;
    f->ns = get_text(in);
    f->prefix = get_text(in);
    f->labels_count = get_labels(in, r->question);
    f->label_names = r->question->names;
    f->label_values = r->question->values;
    f->state = get_choice(in, JOB_STATE_COUNT_);
    f->last_outcome = get_choice(in, FIRE_OUTCOME_COUNT_);
    f->after_ns = get_text(in);
    f->after_id = get_text(in);
    f->limit = r->limit;
    r->filter = f;
}

static void put_place(const struct store_fire_place *p, struct buf *out)
{
    codec_put_u64(out, p->set);
    codec_put_i64(out, p->due_ms);
    put_uid(out, &p->uid);
    codec_put_u64(out, p->seq);
}

static void get_place(struct codec_in *in, struct store_fire_place *ret)
{
    ret->set = codec_get_u64(in, 1) != 0;
    ret->due_ms = codec_get_i64(in);
    get_uid(in, &ret->uid);
    ret->seq = codec_get_u64(in, UINT64_MAX);
}

static void put_fire_filter(const struct store_fire_filter *f, struct buf *out)
{
    put_text(out, f->ns);
    put_text(out, f->job);
    put_text(out, f->prefix);
    put_text(out, f->service);
    put_labels(out, f->label_names, f->label_values, f->labels_count);
    codec_put_u64(out, (uint64_t)f->outcome + 1);
    codec_put_i64(out, f->from_ms);
    codec_put_i64(out, f->until_ms);
    codec_put_u64(out, f->oldest_first);
    put_place(&f->after, out);
}

static void get_fire_filter(struct codec_in *in, struct read *r)
{
    struct store_fire_filter *f = &r->question->fire_filter;
    f->ns = get_some_text(in);
    f->job = get_text(in);
    f->prefix = get_text(in);
    f->service = get_text(in);
    f->labels_count = get_labels(in, r->question);
    f->label_names = r->question->names;
    f->label_values = r->question->values;
    f->outcome = get_choice(in, FIRE_OUTCOME_COUNT_);
    f->from_ms = codec_get_i64(in);
    f->until_ms = codec_get_i64(in);
    f->oldest_first = codec_get_u64(in, 1) != 0;
    get_place(in, &f->after);
    f->limit = r->limit;
    r->fire_filter = f;
}

static void put_which(const struct store_revisions *w, struct buf *out)
{
    put_text(out, w->ns);
    put_text(out, w->id);
    codec_put_u64(out, w->before.set);
    codec_put_i64(out, w->before.at_ms);
    codec_put_u64(out, w->before.change_id);
    codec_put_u64(out, w->changes);
    codec_put_u64(out, w->definitions);
}

static void get_which(struct codec_in *in, struct read *r)
{
    struct store_revisions *w = &r->question->which;
    w->ns = get_some_text(in);
    w->id = get_some_text(in);
    w->before.set = codec_get_u64(in, 1) != 0;
    w->before.at_ms = codec_get_i64(in);
    w->before.change_id = codec_get_u64(in, UINT64_MAX);
    w->changes = codec_get_u64(in, 1) != 0;
    w->definitions = codec_get_u64(in, 1) != 0;
    w->limit = r->limit;
    r->which = w;
}

/* What the small ones ask by. */
static void put_key(const struct read *r, struct buf *out)
{
    codec_put_text(out, r->ns);
    codec_put_text(out, r->id);
    put_uid(out, &r->uid);
    codec_put_u64(out, r->number);
}

static void get_key(struct codec_in *in, struct read *r)
{
    codec_get_text(in, r->ns, sizeof(r->ns));
    codec_get_text(in, r->id, sizeof(r->id));
    get_uid(in, &r->uid);
    r->number = codec_get_u64(in, UINT64_MAX);
}

static void put_what(const struct read *r, struct buf *out)
{
    codec_put_u64(out, r->kind);
    switch (r->kind) {
    case RS_LOAD_JOBS:
    case RS_LOAD_FIRES:
        put_load(r->load, out);
        return;
    case RS_GET_JOBS:
        put_keys(r, out);
        return;
    case RS_LIST_JOBS:
        codec_put_u64(out, r->limit);
        put_filter(r->filter, out);
        return;
    case RS_LIST_FIRES:
        codec_put_u64(out, r->limit);
        put_fire_filter(r->fire_filter, out);
        return;
    case RS_LIST_REVISIONS:
        codec_put_u64(out, r->limit);
        put_which(r->which, out);
        return;
    case RS_GET_FIRES:
    case RS_GET_COPY:
    case RS_COUNT_DEAD:
    case RS_COUNT_JOBS:
    case RS_FIND_CHANGE:
        codec_put_u64(out, r->limit);
        put_key(r, out);
        return;
    }
}

/* Version 1 says nothing behind the question, and takes nothing there. */
void rs_put_question(const struct read *r, uint32_t reader, struct buf *out)
{
    put_what(r, out);
    if (reader >= 2)
        codec_put_u64(out, reader);
}

static void get_what(struct codec_in *in, struct read *r)
{
    r->kind = (enum rs_read_kind)codec_get_u64(in, RS_READ_LAST_);
    r->question = mem_new(struct rs_question);
    if (r->kind != RS_LOAD_JOBS && r->kind != RS_LOAD_FIRES && r->kind != RS_GET_JOBS)
        r->limit = (size_t)codec_get_u64(in, ROWS_MAX);
    switch (r->kind) {
    case RS_LOAD_JOBS:
    case RS_LOAD_FIRES:
        get_load(in, r);
        break;
    case RS_GET_JOBS:
        get_keys(in, r);
        break;
    case RS_LIST_JOBS:
        get_filter(in, r);
        break;
    case RS_LIST_FIRES:
        get_fire_filter(in, r);
        break;
    case RS_LIST_REVISIONS:
        get_which(in, r);
        break;
    case RS_GET_FIRES:
    case RS_GET_COPY:
    case RS_COUNT_DEAD:
    case RS_COUNT_JOBS:
    case RS_FIND_CHANGE:
        get_key(in, r);
        break;
    default:
        in->bad = true;
    }
}

bool rs_get_question(struct codec_in *in, struct read *r)
{
    get_what(in, r);
    r->reader = 1;
    if (STORE_VERSION >= 2 && !codec_at_end(in)) {
        r->reader = (uint32_t)codec_get_u64(in, UINT32_MAX);
        in->bad |= r->reader < 2;
    }
    return !in->bad && in->at == in->end;
}

void rs_free_question(struct rs_question *q)
{
    if (!q)
        return;
    mem_free(q->keys);
    mem_free(q->slots);
    mem_free(q->names);
    mem_free(q->values);
    mem_free(q);
}

/* --- what was found ------------------------------------------------------------------------------------------------ */

int rs_make_room(struct read *r, struct err *e)
{
    size_t n = r->limit + 1;
    switch (r->kind) {
    case RS_LOAD_JOBS:
    case RS_GET_JOBS:
    case RS_LIST_JOBS:
        r->jobs_found = mem_try_array(n, sizeof(*r->jobs_found), e);
        return r->jobs_found ? 0 : -ERR_NOMEM;
    case RS_LOAD_FIRES:
    case RS_GET_FIRES:
    case RS_LIST_FIRES:
        r->fires_found = mem_try_array(n, sizeof(*r->fires_found), e);
        return r->fires_found ? 0 : -ERR_NOMEM;
    case RS_LIST_REVISIONS:
        r->revisions_found = mem_try_array(n, sizeof(*r->revisions_found), e);
        return r->revisions_found ? 0 : -ERR_NOMEM;
    case RS_COUNT_DEAD:
    case RS_COUNT_JOBS:
        r->dead = mem_try_array(STORE_DEAD_NS_MAX, sizeof(*r->dead), e);
        return r->dead ? 0 : -ERR_NOMEM;
    case RS_GET_COPY:
    case RS_FIND_CHANGE:
        return 0;
    }
    return 0;
}

static void put_blob(struct buf *out, const struct machine_blob *b)
{
    codec_put_u64(out, b != NULL);
    if (b)
        codec_put_bytes(out, b->data, b->bytes);
}

static struct machine_blob *get_blob(struct codec_in *in)
{
    size_t len;
    if (codec_get_u64(in, 1) == 0)
        return NULL;
    const void *data = codec_get_bytes(in, &len);
    return in->bad ? NULL : machine_blob_new(data, len);
}

static void put_jobs(const struct read *r, struct buf *out)
{
    for (size_t i = 0; i < r->found; i++) {
        const struct machine_job_found *job = &r->jobs_found[i];
        put_blob(out, job->spec);
        if (job->spec)
            codec_put_row(out, codec_job(), &job->row, CODEC_ALL);
    }
}

static void get_job(struct codec_in *in, struct machine_job_found *ret)
{
    ret->spec = get_blob(in);
    if (ret->spec)
        codec_get_row(in, codec_job(), &ret->row, CODEC_ALL);
}

static void get_revision(struct codec_in *in, struct machine_revision_found *ret)
{
    codec_get_row(in, codec_revision(), &ret->row, CODEC_ALL);
    ret->was = get_blob(in);
}

static void put_rows(const struct read *r, struct buf *out)
{
    codec_put_u64(out, r->found);
    if (r->jobs_found)
        put_jobs(r, out);
    for (size_t i = 0; r->fires_found && i < r->found; i++)
        codec_put_row_of(out, codec_fire(), &r->fires_found[i].row, CODEC_ALL, r->reader);
    for (size_t i = 0; r->revisions_found && i < r->found; i++) {
        codec_put_row(out, codec_revision(), &r->revisions_found[i].row, CODEC_ALL);
        put_blob(out, r->revisions_found[i].was);
    }
}

/* Each is counted when it is there: what was read is let go of by number. */
static void get_rows(struct codec_in *in, struct read *r)
{
    size_t count = (size_t)codec_get_u64(in, r->limit);
    for (size_t i = 0; i < count && !in->bad; i++) {
        if (r->jobs_found)
            get_job(in, &r->jobs_found[i]);
        else if (r->fires_found)
            codec_get_row(in, codec_fire(), &r->fires_found[i].row, CODEC_ALL);
        else if (r->revisions_found)
            get_revision(in, &r->revisions_found[i]);
        r->found++;
    }
}

static void put_dead(const struct read *r, struct buf *out)
{
    codec_put_u64(out, r->limit);
    for (size_t i = 0; i < r->limit; i++) {
        codec_put_text(out, r->dead[i].ns);
        codec_put_u64(out, r->dead[i].count);
    }
}

static void get_dead(struct codec_in *in, struct read *r)
{
    r->limit = (size_t)codec_get_u64(in, STORE_DEAD_NS_MAX);
    for (size_t i = 0; i < r->limit && !in->bad; i++) {
        codec_get_text(in, r->dead[i].ns, sizeof(r->dead[i].ns));
        r->dead[i].count = codec_get_u64(in, UINT64_MAX);
    }
}

void rs_put_found(const struct read *r, struct buf *out)
{
    codec_put_u64(out, r->more);
    put_rows(r, out);
    if (r->kind == RS_LIST_JOBS) {
        codec_put_u64(out, r->page.more);
        codec_put_text(out, r->page.next_ns);
        codec_put_text(out, r->page.next_id);
    } else if (r->kind == RS_LIST_FIRES) {
        put_place(&r->fire_page.next, out);
    } else if (r->kind == RS_GET_COPY) {
        put_blob(out, r->copy_found);
    } else if (r->kind == RS_COUNT_DEAD || r->kind == RS_COUNT_JOBS) {
        put_dead(r, out);
    } else if (r->kind == RS_FIND_CHANGE && r->more) {
        codec_put_row(out, codec_revision(), &r->revision, CODEC_ALL);
    }
}

bool rs_get_found(struct codec_in *in, struct read *r)
{
    r->more = codec_get_u64(in, 1) != 0;
    get_rows(in, r);
    if (r->kind == RS_LIST_JOBS) {
        r->page.more = codec_get_u64(in, 1) != 0;
        codec_get_text(in, r->page.next_ns, sizeof(r->page.next_ns));
        codec_get_text(in, r->page.next_id, sizeof(r->page.next_id));
    } else if (r->kind == RS_LIST_FIRES) {
        get_place(in, &r->fire_page.next);
    } else if (r->kind == RS_GET_COPY) {
        r->copy_found = get_blob(in);
    } else if (r->kind == RS_COUNT_DEAD || r->kind == RS_COUNT_JOBS) {
        get_dead(in, r);
    } else if (r->kind == RS_FIND_CHANGE && r->more) {
        codec_get_row(in, codec_revision(), &r->revision, CODEC_ALL);
    }
    return !in->bad && in->at == in->end;
}
