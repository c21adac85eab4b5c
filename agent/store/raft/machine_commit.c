/* Commits: look, then do; the same decisions as store_mem_jobs.c. */
#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/entry.h"
#include "agent/store/raft/machine_private.h"
#include "agent/store/store_sql.h"

enum look { LOOK_DO, LOOK_DONE, LOOK_CONFLICT };

static bool has_revision(const struct job_change *c)
{
    return c->op != CHANGE_NONE && c->revision.op[0] != 0;
}

/* What an insert fixes stays: ROW gets it from BEFORE. */
static void keep_fixed(const struct sql_table *t, const void *before, void *row)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct sql_column *c = &t->columns[i];
        if (!c->fixed)
            continue;
        memcpy((char *)row + c->offset, (const char *)before + c->offset, c->size);
        if (c->len_offset)
            memcpy((char *)row + c->len_offset, (const char *)before + c->len_offset,
                   c->type == SQL_BYTES ? sizeof(uint16_t) : sizeof(size_t));
    }
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

static enum look look_fire(const struct machine *m, const struct fire_change *f)
{
    const struct machine_fire *fire = machine_fire_find(m, &f->row.uid, f->row.seq);
    struct fire_row now;
    if (!fire)
        return f->op == CHANGE_INSERT ? LOOK_DO : f->op == CHANGE_DELETE ? LOOK_DONE : LOOK_CONFLICT;
    machine_fire_row(fire, &now);
    if (f->op == CHANGE_INSERT)
        return now.rev == f->row.rev ? LOOK_DONE : LOOK_CONFLICT;
    if (now.rev == f->expect_rev && (!f->expect_holder[0] || strcmp(f->expect_holder, now.holder) == 0))
        return LOOK_DO;
    return f->op == CHANGE_UPDATE && sql_rows_equal(sql_fires(), &now, &f->row) ? LOOK_DONE : LOOK_CONFLICT;
}

static enum look look_job(const struct machine *m, const struct job_change *c)
{
    const struct machine_job *job = machine_job_by_uid(m, &c->row.uid);
    struct job_row now;
    if (!job)
        return c->op == CHANGE_DELETE && !has_revision(c) ? LOOK_DONE : LOOK_CONFLICT;
    machine_job_row(job, &now);
    if (now.rev == c->expect_rev)
        return LOOK_DO;
    return c->op != CHANGE_DELETE && sql_rows_equal(sql_jobs(), &now, &c->row) ? LOOK_DONE : LOOK_CONFLICT;
}

/* Of an insert whose uid or name is taken: what that means. False: neither is. */
static bool look_taken(const struct machine *m, const struct job_change *c, enum change_result *ret)
{
    const struct machine_job *named = machine_job_by_name(m, c->row.ns, c->row.id);
    struct job_row now;
    if (machine_job_by_uid(m, &c->row.uid)) {
        *ret = CHANGE_RESULT_OK;
        return true;
    }
    if (!named)
        return false;
    machine_job_row(named, &now);
    *ret = now.change_id == c->row.change_id ? CHANGE_RESULT_OK : CHANGE_RESULT_EXISTS;
    return true;
}

/* Whether all its names are ASCII; its fires one by one, for they do not stand as a change has them. */
static bool is_ascii(const struct machine *m, const struct job_change *c)
{
    struct job_change alone = *c;
    alone.fires_count = 0;
    if (!sql_change_is_ascii(&alone))
        return false;
    alone.op = CHANGE_NONE;
    alone.fires_count = 1;
    for (size_t i = 0; i < c->fires_count; i++) {
        alone.fires = &m->scratch[i].change;
        if (!sql_change_is_ascii(&alone))
            return false;
    }
    return true;
}

/* What becomes of the change; *ret_do: it is to be done. */
static enum change_result look(const struct machine *m, const struct command_change *command, bool *ret_do)
{
    const struct job_change *c = &command->change;
    enum change_result taken;
    *ret_do = false;
    if (!is_ascii(m, c))
        return CHANGE_RESULT_REFUSED;
    if (has_revision(c) && machine_revision_find(m, c->row.ns, c->row.id, c->revision.change_id))
        return CHANGE_RESULT_OK;
    if (c->op == CHANGE_INSERT) {
        if (look_taken(m, c, &taken))
            return taken;
    } else if (c->op != CHANGE_NONE) {
        enum look job = look_job(m, c);
        if (job != LOOK_DO)
            return job == LOOK_DONE ? CHANGE_RESULT_OK : CHANGE_RESULT_CONFLICT;
    }
    for (size_t i = 0; i < command->fires_count; i++)
        if (look_fire(m, &m->scratch[i].change) == LOOK_CONFLICT)
            return CHANGE_RESULT_CONFLICT;
    *ret_do = true;
    return CHANGE_RESULT_OK;
}

/* --- doing --------------------------------------------------------------------------------------------------------- */

static void keep_copy(struct machine *m, const struct command_fire *c)
{
    const struct fire_change *f = &c->change;
    if (!c->copy)
        return;
    struct machine_copy *copy = machine_copy_find(m, &f->row.uid, f->row.version);
    if (!copy)
        machine_copy_insert(m, &f->row.uid, f->row.version, machine_blob_of(m, c->copy, c->copy_bytes),
                            f->copy_until_ms);
    else if (copy->until_ms < f->copy_until_ms)
        machine_copy_extend(m, copy, f->copy_until_ms);
}

static void do_fire(struct machine *m, struct command_fire *c)
{
    struct fire_change *f = &c->change;
    struct fire_row before;
    if (look_fire(m, f) != LOOK_DO)
        return;
    keep_copy(m, c);
    if (f->op == CHANGE_INSERT) {
        machine_fire_insert(m, &f->row);
        return;
    }
    struct machine_fire *fire = machine_fire_find(m, &f->row.uid, f->row.seq);
    if (f->op == CHANGE_DELETE) {
        machine_fire_delete(m, fire);
        return;
    }
    machine_fire_row(fire, &before);
    keep_fixed(sql_fires(), &before, &f->row);
    machine_fire_update(m, fire, &f->row);
}

static void cancel_fires(struct machine *m, const struct job_row *job)
{
    struct machine_key key = {.uid = job->uid};
    struct sorted_at at = sorted_seek(&m->fires_by_seq, &key, false);
    struct machine_fire *fire;
    /* Updates leave this index as it is, so the place stays good. */
    for (; (fire = sorted_get(&m->fires_by_seq, at)) &&
           memcmp(fire->uid.bytes, job->uid.bytes, sizeof(job->uid)) == 0;
         sorted_next(&m->fires_by_seq, &at)) {
        struct fire_row row;
        if (fire->ended)
            continue;
        machine_fire_row(fire, &row);
        fire_row_deleted(&row, job);
        machine_fire_update(m, fire, &row);
    }
}

static struct machine_blob *blob_of(struct machine *m, const void *data, size_t bytes)
{
    return data ? machine_blob_of(m, data, bytes) : NULL;
}

static void do_job(struct machine *m, struct command_change *c)
{
    struct job_row before;
    if (c->change.op == CHANGE_NONE)
        return;
    if (c->change.op == CHANGE_INSERT) {
        (void)machine_job_insert(m, &c->change.row,
                                 blob_of(m, c->spec, c->spec_bytes)); /* it is in the indexes */
        return;
    }
    struct machine_job *job = machine_job_by_uid(m, &c->change.row.uid);
    if (c->change.op == CHANGE_DELETE) {
        machine_job_delete(m, job);
        return;
    }
    machine_job_row(job, &before);
    keep_fixed(sql_jobs(), &before, &c->change.row);
    machine_job_update(m, job, &c->change.row, blob_of(m, c->spec, c->spec_bytes));
}

static enum change_result do_change(struct machine *m, struct command_change *c)
{
    struct job_change *change = &c->change;
    char ns[RECORD_NS_MAX], id[RECORD_ID_MAX];
    bool wanted;
    enum change_result result = look(m, c, &wanted);
    if (!wanted)
        return result;
    memcpy(ns, change->row.ns, sizeof(ns)); /* of the request, whatever the row keeps */
    memcpy(id, change->row.id, sizeof(id));
    do_job(m, c);
    if (has_revision(change))
        machine_revision_insert(m, ns, id, &change->revision, blob_of(m, c->replaced, c->replaced_bytes));
    for (size_t i = 0; i < change->fires_count; i++)
        do_fire(m, &m->scratch[i]);
    if (change->op == CHANGE_DELETE)
        cancel_fires(m, &change->row);
    return result;
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static void grow_scratch(struct machine *m)
{
    size_t cap = m->scratch_cap ? 2 * m->scratch_cap : 16;
    struct command_fire *grown = mem_new_array(struct command_fire, cap);
    if (m->scratch_cap > 0)
        memcpy(grown, m->scratch, m->scratch_cap * sizeof(*grown));
    mem_free(m->scratch);
    m->scratch = grown;
    m->scratch_cap = cap;
}

/* Into the machine's scratch. False: the bytes are bad. */
static bool get_fires(struct machine *m, struct codec_in *in, struct command_change *c,
                      struct command_fire *last)
{
    for (size_t i = 0; i < c->fires_count && !in->bad; i++) {
        if (i == m->scratch_cap)
            grow_scratch(m);
        command_get_fire(in, last, &m->scratch[i]);
    }
    return !in->bad;
}

static void add_result(struct machine_outcome *o, size_t *cap, enum change_result result)
{
    if (o->changes_count == *cap) {
        size_t next = *cap ? 2 * *cap : 64;
        uint8_t *grown = mem_new_array(uint8_t, next);
        if (*cap > 0)
            memcpy(grown, o->changes, *cap);
        mem_free(o->changes);
        o->changes = grown;
        *cap = next;
    }
    o->changes[o->changes_count++] = (uint8_t)result;
}

static void do_slots(struct machine *m, struct codec_in *in, bool fenced, struct machine_outcome *ret)
{
    size_t count = (size_t)codec_get_u64(in, (uint64_t)(in->end - in->at));
    ret->slots = mem_new_array(bool, count + 1);
    for (size_t i = 0; i < count && !in->bad; i++) {
        struct slot_change change;
        command_get_slot(in, &change);
        ret->slots[i] = !in->bad && !fenced && machine_slot_apply(m, &change);
    }
    ret->slots_count = count;
}

static bool get_fence(struct machine *m, struct codec_in *in, struct machine_outcome *ret)
{
    char member[RECORD_MEMBER_MAX];
    codec_get_text(in, member, sizeof(member));
    bool fenced = in->bad || machine_fence(m, member) < 0;
    ret->code = fenced ? ERR_FENCED : ERR_OK;
    return fenced;
}

void machine_slots_command(struct machine *m, struct codec_in *in, struct machine_outcome *ret)
{
    bool fenced = get_fence(m, in, ret);
    do_slots(m, in, fenced, ret);
}

void machine_commit(struct machine *m, struct codec_in *in, struct machine_outcome *ret)
{
    struct command_fire last = {0};
    size_t cap = 0;
    bool fenced = get_fence(m, in, ret);
    do_slots(m, in, fenced, ret);
    while (codec_get_u64(in, 1)) {
        struct command_change c;
        command_get_change(in, &c);
        if (in->bad || !get_fires(m, in, &c, &last))
            return;
        if (!fenced)
            add_result(ret, &cap, do_change(m, &c));
    }
}
