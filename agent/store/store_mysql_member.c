/* Members and slots: join, beat, declare dead, change and read slots. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/store/store_mysql_private.h"
#include "agent/store/store_sql.h"

#define SQL_NOW_MS "CAST(FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000) AS SIGNED)"

/* Members that died within this time still come with a beat, so that everyone learns of it. */
#define DEAD_SHOWN_MS "3600000"

static int bad_row(struct err *e, const char *table)
{
    return err_set(e, ERR_PERMANENT, "table %s holds what this agent cannot read", table);
}

static int read_number(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    return sql_get_u64(row[0], lengths[0], arg) ? 0 : err_set(e, ERR_PERMANENT, "a number was expected");
}

static int read_alive(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    uint64_t count = 0;
    int r = read_number(&count, row, lengths, e);
    (void)arg;
    return r == 0 && count == 0 ? my_fenced(e) : r;
}

int my_script_alive(struct my_script *s, const char *member, struct err *e)
{
    buf_add_str(&s->text, "SELECT COUNT(*) FROM members WHERE dead = 0 AND member = ");
    sql_add_ascii(&s->text, member);
    return my_script_end_rows(s, read_alive, NULL, e);
}

int my_script_fence(struct my_script *s, const char *member, struct err *e)
{
    buf_add_str(&s->text, "UPDATE members SET flush = flush + 1 WHERE dead = 0 AND member = ");
    sql_add_ascii(&s->text, member);
    return my_script_end(s, MY_FENCE, 1, e);
}

/* --- join ---------------------------------------------------------------------------------------------------------- */

struct join_op {
    struct my_op op;
    const struct store_member *me;
    store_done *done;
    void *arg;
};

static int insert_member(struct my_script *s, const struct store_member *me, struct err *e)
{
    struct buf *b = &s->text;
    buf_add_str(
        b,
        "INSERT INTO members (member, beat, flush, dead, name, address, zone, weight, joined_ms) VALUES (");
    sql_add_ascii(b, me->id);
    buf_add_str(b, ", 0, 0, 0, ");
    sql_add_hex(b, me->name, strlen(me->name));
    buf_add_str(b, ", ");
    sql_add_hex(b, me->address, strlen(me->address));
    buf_add_str(b, ", ");
    sql_add_hex(b, me->zone, strlen(me->zone));
    buf_addf(b, ", %u, " SQL_NOW_MS ")", me->weight);
    return my_script_end(s, MY_ANY, 0, e);
}

/* A row that is there already is an earlier try's, unless it was declared dead since. */
static int join_member(struct my_conn *c, const struct store_member *me, struct err *e)
{
    struct my_script s;
    struct err own = {0};
    my_script_init(&s, c);
    s.commits = true;
    int r = insert_member(&s, me, &own);
    if (r == 0)
        r = my_script_run(&s, &own);
    if (r == -ERR_EXISTS) {
        buf_add_str(&s.text, "UPDATE members SET joined_ms = joined_ms WHERE dead = 0 AND member = ");
        sql_add_ascii(&s.text, me->id);
        r = my_script_end(&s, MY_FENCE, 1, &own);
        if (r == 0)
            r = my_script_run(&s, &own);
    }
    my_script_fini(&s);
    return r < 0 ? err_set(e, own.code, "%s", own.text) : 0;
}

static int insert_slots(struct my_conn *c, const char *owner, const struct store_meta *meta, struct err *e)
{
    struct my_script s;
    my_script_init(&s, c);
    s.commits = true;
    buf_add_str(&s.text, "START TRANSACTION");
    int r = my_script_end(&s, MY_ANY, 0, e);
    struct my_rows rows = {.script = &s,
                           .head = "INSERT INTO slots (slot, owner, epoch) VALUES (",
                           .sep = "), (",
                           .tail = ")",
                           .expect = MY_ANY};
    for (uint32_t slot = 0; r == 0 && slot < meta->slots; slot++) {
        my_rows_begin_row(&rows);
        buf_addf(&s.text, "%u, ", slot);
        sql_add_ascii(&s.text, owner);
        /* From the clock: epochs never go back, not even when the database is made anew or restored. */
        buf_addf(&s.text, ", %lld", (long long)(meta->created_ms / 1000));
        r = my_rows_end_row(&rows, e);
    }
    if (r == 0)
        r = my_rows_end(&rows, e);
    buf_add_str(&s.text, "COMMIT");
    if (r == 0)
        r = my_script_end(&s, MY_ANY, 0, e);
    if (r == 0)
        r = my_script_run(&s, e);
    if (r < 0)
        my_rollback(c);
    my_script_fini(&s);
    return r;
}

static int join_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct join_op *j = container_of(op, struct join_op, op);
    struct my_script s;
    uint64_t slots = 0;
    int r = join_member(c, j->me, e);
    if (r < 0)
        return r;
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT COUNT(*) FROM slots");
    r = my_script_end_rows(&s, read_number, &slots, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    if (r < 0 || slots > 0)
        return r;
    r = insert_slots(c, j->me->id, &op->store->meta, e);
    return r == -ERR_EXISTS ? 0 : r; /* another member that joined at the same moment has made them */
}

static void join_finish(struct my_op *op)
{
    struct join_op *j = container_of(op, struct join_op, op);
    j->done(j->arg, &op->err);
    mem_free(j);
}

void my_join(void *self, const struct store_member *me, store_done *done, void *arg)
{
    struct join_op *j = mem_new(struct join_op);
    j->me = me;
    j->done = done;
    j->arg = arg;
    my_op_submit(self, &j->op, MY_POOL_BEAT, join_run, join_finish);
}

/* --- beat ---------------------------------------------------------------------------------------------------------- */

struct beat_op {
    struct my_op op;
    char member[RECORD_MEMBER_MAX];
    store_beat_done *done;
    void *arg;
    struct store_beat beat;
    struct store_member *members;
    size_t members_cap;
    struct store_slot *slots;
    size_t slots_cap;
};

static int read_member(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct beat_op *b = arg;
    if (!my_grow((void **)&b->members, b->beat.members_count, &b->members_cap, sizeof(*b->members), e))
        return -ERR_NOMEM;
    struct store_member *m = &b->members[b->beat.members_count];
    uint64_t weight, dead;
    memset(m, 0, sizeof(*m));
    if (!sql_get_text(row[0], lengths[0], m->id, sizeof(m->id)) ||
        !sql_get_text(row[1], lengths[1], m->name, sizeof(m->name)) ||
        !sql_get_text(row[2], lengths[2], m->address, sizeof(m->address)) ||
        !sql_get_text(row[3], lengths[3], m->zone, sizeof(m->zone)) ||
        !sql_get_u64(row[4], lengths[4], &weight) || !sql_get_u64(row[5], lengths[5], &m->beat) ||
        !sql_get_u64(row[6], lengths[6], &dead))
        return bad_row(e, "members");
    m->weight = (uint32_t)weight;
    m->dead = dead != 0;
    b->beat.members_count++;
    return 0;
}

static bool parse_slot(MYSQL_ROW row, const unsigned long *lengths, struct store_slot *ret)
{
    uint64_t slot;
    memset(ret, 0, sizeof(*ret));
    if (!sql_get_u64(row[0], lengths[0], &slot) || slot > UINT16_MAX ||
        !sql_get_u64(row[2], lengths[2], &ret->epoch) ||
        !sql_get_text(row[1], lengths[1], ret->owner, sizeof(ret->owner)))
        return false;
    ret->slot = (uint16_t)slot;
    return true;
}

static int read_own_slot(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct beat_op *b = arg;
    if (!my_grow((void **)&b->slots, b->beat.slots_count, &b->slots_cap, sizeof(*b->slots), e))
        return -ERR_NOMEM;
    if (!parse_slot(row, lengths, &b->slots[b->beat.slots_count]))
        return bad_row(e, "slots");
    b->beat.slots_count++;
    return 0;
}

static int beat_script(struct my_script *s, struct beat_op *b, uint64_t *matched, uint64_t *now_ms,
                       struct err *e)
{
    buf_add_str(&s->text, "UPDATE members SET beat = beat + 1 WHERE dead = 0 AND member = ");
    sql_add_ascii(&s->text, b->member);
    s->ret_matched = matched;
    int r = my_script_end(s, MY_ANY, 0, e);
    if (r < 0)
        return r;
    buf_add_str(&s->text, "SELECT " SQL_NOW_MS);
    r = my_script_end_rows(s, read_number, now_ms, e);
    if (r < 0)
        return r;
    buf_add_str(&s->text, "SELECT member, name, address, zone, weight, beat, dead FROM members "
                          "WHERE dead = 0 OR died_ms > " SQL_NOW_MS " - " DEAD_SHOWN_MS " ORDER BY member");
    r = my_script_end_rows(s, read_member, b, e);
    if (r < 0)
        return r;
    buf_add_str(&s->text, "SELECT slot, owner, epoch FROM slots WHERE owner = ");
    sql_add_ascii(&s->text, b->member);
    buf_add_str(&s->text, " ORDER BY slot");
    return my_script_end_rows(s, read_own_slot, b, e);
}

static int beat_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct beat_op *b = container_of(op, struct beat_op, op);
    struct my_script s;
    uint64_t matched = 0, now_ms = 0;
    b->beat = (struct store_beat){0};
    my_script_init(&s, c);
    s.commits = true;
    int r = beat_script(&s, b, &matched, &now_ms, e);
    b->beat.sent_boot_ms = (int64_t)clock_boot_ms();
    if (r == 0)
        r = my_script_run(&s, e);
    b->beat.done_boot_ms = (int64_t)clock_boot_ms();
    my_script_fini(&s);
    b->beat.alive = matched == 1;
    b->beat.store_now_ms = (int64_t)now_ms;
    b->beat.members = b->members;
    b->beat.slots = b->slots;
    return r;
}

static void beat_finish(struct my_op *op)
{
    struct beat_op *b = container_of(op, struct beat_op, op);
    b->done(b->arg, &op->err, op->err.code == ERR_OK ? &b->beat : NULL);
    mem_free(b->members);
    mem_free(b->slots);
    mem_free(b);
}

void my_beat(void *self, const char *member, store_beat_done *done, void *arg)
{
    struct beat_op *b = mem_new(struct beat_op);
    assert(strlen(member) < sizeof(b->member));
    memcpy(b->member, member, strlen(member));
    b->done = done;
    b->arg = arg;
    my_op_submit(self, &b->op, MY_POOL_BEAT, beat_run, beat_finish);
}

/* --- declare dead -------------------------------------------------------------------------------------------------- */

struct declare_op {
    struct my_op op;
    char victim[RECORD_MEMBER_MAX];
    uint64_t seen_beat;
    bool dead;
    store_bool_done *done;
    void *arg;
};

static int declare_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct declare_op *d = container_of(op, struct declare_op, op);
    struct my_script s;
    uint64_t alive = 0;
    my_script_init(&s, c);
    s.commits = true;
    buf_add_str(&s.text,
                "UPDATE members SET dead = 1, died_ms = " SQL_NOW_MS " WHERE dead = 0 AND member = ");
    sql_add_ascii(&s.text, d->victim);
    if (d->seen_beat != UINT64_MAX)
        buf_addf(&s.text, " AND beat = %llu", (unsigned long long)d->seen_beat);
    int r = my_script_end(&s, MY_ANY, 0, e);
    if (r == 0) {
        buf_add_str(&s.text, "SELECT COUNT(*) FROM members WHERE dead = 0 AND member = ");
        sql_add_ascii(&s.text, d->victim);
        r = my_script_end_rows(&s, read_number, &alive, e);
    }
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    d->dead = alive == 0;
    return r;
}

static void declare_finish(struct my_op *op)
{
    struct declare_op *d = container_of(op, struct declare_op, op);
    d->done(d->arg, &op->err, op->err.code == ERR_OK && d->dead);
    mem_free(d);
}

void my_declare_dead(void *self, const char *victim, uint64_t seen_beat, store_bool_done *done, void *arg)
{
    struct declare_op *d = mem_new(struct declare_op);
    assert(strlen(victim) < sizeof(d->victim));
    memcpy(d->victim, victim, strlen(victim));
    d->seen_beat = seen_beat;
    d->done = done;
    d->arg = arg;
    my_op_submit(self, &d->op, MY_POOL_BEAT, declare_run, declare_finish);
}

/* --- slots --------------------------------------------------------------------------------------------------------- */

struct slots_op {
    struct my_op op;
    char member[RECORD_MEMBER_MAX];
    struct slot_change *changes; /* the caller's */
    size_t count;
    store_done *done;
    store_slots_done *done_read;
    void *arg;
    struct store_slot *slots;
    size_t slots_cap;
};

static int compare_slots(const void *a, const void *b)
{
    const struct slot_change *x = *(struct slot_change *const *)a, *y = *(struct slot_change *const *)b;
    return (x->slot > y->slot) - (x->slot < y->slot);
}

/* What became of the asked ones, read in the same transaction. */
struct slots_seen {
    struct slot_change **sorted;
    size_t count;
};

static int read_changed_slot(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct slots_seen *seen = arg;
    struct store_slot now;
    if (!parse_slot(row, lengths, &now))
        return bad_row(e, "slots");
    struct slot_change key = {.slot = now.slot}, *wanted = &key;
    struct slot_change **found =
        bsearch(&wanted, seen->sorted, seen->count, sizeof(struct slot_change *), compare_slots);
    if (found)
        (*found)->changed = now.epoch == (*found)->from_epoch + 1 && strcmp(now.owner, (*found)->to) == 0;
    return 0;
}

static int update_slots(struct my_script *s, const struct slots_seen *seen, struct err *e)
{
    struct my_rows rows = {
        .script = s,
        .head = "UPDATE (SELECT slot, owner AS was, epoch, owner FROM slots WHERE FALSE UNION ALL SELECT ",
        .sep = " UNION ALL SELECT ",
        .tail = ") k STRAIGHT_JOIN slots s FORCE INDEX (PRIMARY) ON s.slot = k.slot AND s.owner = k.was "
                "AND s.epoch = k.epoch SET s.owner = k.owner, s.epoch = k.epoch + 1",
        .expect = MY_ANY};
    int r = 0;
    for (size_t i = 0; r == 0 && i < seen->count; i++) {
        const struct slot_change *change = seen->sorted[i];
        my_rows_begin_row(&rows);
        buf_addf(&s->text, "%u, ", change->slot);
        sql_add_ascii(&s->text, change->from);
        buf_addf(&s->text, ", %llu, ", (unsigned long long)change->from_epoch);
        sql_add_ascii(&s->text, change->to);
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

static int read_back_slots(struct my_script *s, struct slots_seen *seen, struct err *e)
{
    struct my_rows rows = {.script = s,
                           .head = "SELECT slot, owner, epoch FROM slots WHERE slot IN (",
                           .sep = ", ",
                           .tail = ")",
                           .expect = MY_ROWS,
                           .fn = read_changed_slot,
                           .arg = seen};
    int r = 0;
    for (size_t i = 0; r == 0 && i < seen->count; i++) {
        my_rows_begin_row(&rows);
        buf_add_u64(&s->text, seen->sorted[i]->slot);
        r = my_rows_end_row(&rows, e);
    }
    return r == 0 ? my_rows_end(&rows, e) : r;
}

int my_script_slots(struct my_script *s, struct slot_change *slots, size_t count, struct err *e)
{
    struct slots_seen seen = {.count = count};
    seen.sorted = mem_try_array(count, sizeof(struct slot_change *), e);
    if (!seen.sorted)
        return -ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        slots[i].changed = false;
        seen.sorted[i] = &slots[i];
    }
    qsort(seen.sorted, count, sizeof(struct slot_change *), compare_slots);
    int r = update_slots(s, &seen, e);
    if (r == 0)
        r = read_back_slots(s, &seen, e);
    if (r == 0) /* what is read goes into SEEN, which ends here */
        r = my_script_run(s, e);
    mem_free(seen.sorted);
    return r;
}

static int slots_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct slots_op *o = container_of(op, struct slots_op, op);
    struct my_script s;
    my_script_init(&s, c);
    buf_add_str(&s.text, "START TRANSACTION");
    int r = my_script_end(&s, MY_ANY, 0, e);
    if (r == 0)
        r = my_script_alive(&s, o->member, e);
    if (r == 0)
        r = my_script_slots(&s, o->changes, o->count, e);
    if (r == 0)
        r = my_script_fence(&s, o->member, e);
    if (r == 0)
        r = my_script_run(&s, e);
    if (r == 0)
        r = my_exec(c, "COMMIT", true, e);
    if (r < 0)
        my_rollback(c);
    my_script_fini(&s);
    return r;
}

static void slots_finish(struct my_op *op)
{
    struct slots_op *o = container_of(op, struct slots_op, op);
    o->done(o->arg, &op->err);
    mem_free(o);
}

void my_slots_change(void *self, const char *member, struct slot_change *slots, size_t count,
                     store_done *done, void *arg)
{
    struct slots_op *o = mem_new(struct slots_op);
    assert(strlen(member) < sizeof(o->member));
    memcpy(o->member, member, strlen(member));
    o->changes = slots;
    o->count = count;
    o->done = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_BEAT, slots_run, slots_finish);
}

static int read_slot(void *arg, MYSQL_ROW row, const unsigned long *lengths, struct err *e)
{
    struct slots_op *o = arg;
    if (!my_grow((void **)&o->slots, o->count, &o->slots_cap, sizeof(*o->slots), e))
        return -ERR_NOMEM;
    if (!parse_slot(row, lengths, &o->slots[o->count]))
        return bad_row(e, "slots");
    o->count++;
    return 0;
}

static int slots_read_run(struct my_op *op, struct my_conn *c, struct err *e)
{
    struct slots_op *o = container_of(op, struct slots_op, op);
    struct my_script s;
    o->count = 0;
    my_script_init(&s, c);
    buf_add_str(&s.text, "SELECT slot, owner, epoch FROM slots ORDER BY slot");
    int r = my_script_end_rows(&s, read_slot, o, e);
    if (r == 0)
        r = my_script_run(&s, e);
    my_script_fini(&s);
    return r;
}

static void slots_read_finish(struct my_op *op)
{
    struct slots_op *o = container_of(op, struct slots_op, op);
    bool ok = op->err.code == ERR_OK;
    o->done_read(o->arg, &op->err, ok ? o->slots : NULL, ok ? o->count : 0);
    mem_free(o->slots);
    mem_free(o);
}

void my_slots_read(void *self, store_slots_done *done, void *arg)
{
    struct slots_op *o = mem_new(struct slots_op);
    o->done_read = done;
    o->arg = arg;
    my_op_submit(self, &o->op, MY_POOL_READ, slots_read_run, slots_read_finish);
}
