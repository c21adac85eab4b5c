#include "agent/store/store_mem.h"

#include <assert.h>
#include <string.h>

#include "agent/base/clock.h"
#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/base/option.h"
#include "agent/core/job.h"
#include "agent/store/store_mem_private.h"

#define DEAD_SHOWN_MS ((int64_t)3600 * 1000)

/* --- calls --------------------------------------------------------------------------------------------------------- */

static enum store_mem_fault fault_of(const struct mem_op *op)
{
    const struct store_mem_options *o = &op->store->options;
    return o->fault ? o->fault(o->arg, op->name) : STORE_MEM_OK;
}

static void lose(const struct mem_op *op, struct err *e)
{
    (void)err_set(e, op->writes ? ERR_UNKNOWN_OUTCOME : ERR_UNAVAILABLE, "the answer to %s was lost",
                  op->name); /* the answer carries it */
}

void store_mem_lose(struct loop_msg *msg)
{
    struct mem_op *op = container_of(msg, struct mem_op, msg);
    assert(op->worked);
    if (op->outcome.code == ERR_OK)
        lose(op, &op->outcome);
}

static void op_work(struct mem_op *op, struct err *e)
{
    enum store_mem_fault fault = fault_of(op);
    if (fault == STORE_MEM_LOST_BEFORE) {
        (void)err_set(e, ERR_UNAVAILABLE, "%s was lost on its way", op->name); /* the answer carries it */
        return;
    }
    fault_hold(true); /* a store's memory is not the agent's */
    int rc = op->work(op, e);
    fault_hold(false);
    if (rc == 0)
        err_clear(e);
    if (fault == STORE_MEM_LOST_AFTER)
        lose(op, e);
}

static void op_free(struct mem_op *op)
{
    for (size_t i = 0; op->fires && i < op->found; i++)
        fire_row_fini(&op->fires[i]);
    for (size_t i = 0; op->jobs && i < op->found; i++)
        job_spec_unref(op->jobs[i].spec);
    job_spec_unref(op->copy);
    mem_free(op->fires);
    mem_free(op->jobs);
    for (size_t i = 0; op->revisions && i < op->found; i++)
        mem_free(op->revisions[i].was);
    mem_free(op->revisions);
    mem_free(op->members);
    mem_free(op->slots_found);
    mem_free(op->dead);
    mem_free(op);
}

static void note_op(struct store_mem *s, const struct mem_op *op, const struct err *e)
{
    s->stats.beats += strcmp(op->name, "beat") == 0;
    s->stats.commits += strcmp(op->name, "commit") == 0;
    s->stats.reads += !op->writes;
    s->stats.errors_unavailable += e->code == ERR_UNAVAILABLE;
    s->stats.errors_unknown += e->code == ERR_UNKNOWN_OUTCOME;
    s->stats.ok = e->code != ERR_UNAVAILABLE && e->code != ERR_UNKNOWN_OUTCOME;
}

static void op_answer(struct mem_op *op, const struct err *e)
{
    list_remove(&op->link);
    if (op->batch)
        op->store->committing--;
    op->answer(op, e);
}

static void op_message(struct loop_msg *msg)
{
    struct mem_op *op = container_of(msg, struct mem_op, msg);
    if (op->store && !op->worked) {
        const struct store_mem_options *o = &op->store->options;
        op_work(op, &op->outcome);
        op->worked = true;
        if (o->reply) {
            o->reply(o->arg, msg);
            return;
        }
    }
    if (op->store) {
        note_op(op->store, op, &op->outcome);
        op_answer(op, &op->outcome);
    }
    op_free(op);
}

struct mem_op *mem_op_new(void *self, const char *name, bool writes,
                          int (*work)(struct mem_op *, struct err *),
                          void (*answer)(struct mem_op *, const struct err *), void *arg)
{
    struct store_mem *s = self;
    struct mem_op *op = mem_new(struct mem_op);
    op->msg.run = op_message;
    op->store = s;
    op->name = name;
    op->writes = writes;
    op->work = work;
    op->answer = answer;
    op->arg = arg;
    list_push_back(&s->pending, &op->link);
    return op;
}

void mem_op_send(struct mem_op *op)
{
    struct store_mem *s = op->store;
    if (s->options.send)
        s->options.send(s->options.arg, &op->msg);
    else
        loop_defer(s->loop, &op->msg);
}

static void answer_done(struct mem_op *op, const struct err *e)
{
    op->done(op->arg, e);
}

static void name_member(struct mem_op *op, const char *member)
{
    assert(strlen(member) < sizeof(op->member));
    memcpy(op->member, member, strlen(member) + 1);
}

/* --- members and slots --------------------------------------------------------------------------------------------- */

static struct mem_member *find_member(struct store_mem_world *w, const char *id)
{
    struct mem_member *m = w->members;
    while (m && strcmp(m->row.id, id) != 0)
        m = m->next;
    return m;
}

int mem_fence(struct store_mem_world *w, const char *member, struct err *e)
{
    const struct mem_member *m = find_member(w, member);
    return m && !m->row.dead ? 0 : err_set(e, ERR_FENCED, "this member was declared dead");
}

static void make_slots(struct store_mem_world *w, const char *owner)
{
    w->slots = mem_new_array(struct store_slot, w->meta.slots);
    w->slots_count = w->meta.slots;
    for (size_t i = 0; i < w->slots_count; i++) {
        w->slots[i].slot = (uint16_t)i;
        w->slots[i].epoch = (uint64_t)(w->meta.created_ms / 1000);
        memcpy(w->slots[i].owner, owner, strlen(owner) + 1);
    }
}

static int join_work(struct mem_op *op, struct err *e)
{
    struct store_mem_world *w = op->store->world;
    if (find_member(w, op->me->id))
        return mem_fence(w, op->me->id, e);
    struct mem_member *m = mem_new(struct mem_member);
    m->row = *op->me;
    m->row.beat = 0;
    m->row.dead = false;
    struct mem_member **at = &w->members;
    while (*at && strcmp((*at)->row.id, m->row.id) < 0)
        at = &(*at)->next;
    m->next = *at;
    *at = m;
    if (w->slots_count == 0)
        make_slots(w, m->row.id);
    return 0;
}

static void mem_join(void *self, const struct store_member *me, store_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "join", true, join_work, answer_done, arg);
    op->me = me;
    op->done = done;
    mem_op_send(op);
}

static int64_t boot_ms(const struct store_mem *s)
{
    return s->options.boot_ms ? s->options.boot_ms(s->options.arg) : (int64_t)clock_boot_ms();
}

static bool is_shown(const struct mem_member *m, int64_t now_ms)
{
    return !m->row.dead || m->died_ms > now_ms - DEAD_SHOWN_MS;
}

static void copy_members(struct mem_op *op, int64_t now_ms)
{
    size_t n = 0;
    for (const struct mem_member *m = op->store->world->members; m; m = m->next)
        n += is_shown(m, now_ms);
    op->members = mem_new_array(struct store_member, n + 1);
    for (const struct mem_member *m = op->store->world->members; m; m = m->next)
        if (is_shown(m, now_ms))
            op->members[op->beat.members_count++] = m->row;
    op->beat.members = op->members;
}

static void copy_slots(struct mem_op *op, const char *owner)
{
    const struct store_mem_world *w = op->store->world;
    op->slots_found = mem_new_array(struct store_slot, w->slots_count + 1);
    for (size_t i = 0; i < w->slots_count; i++)
        if (!owner || strcmp(w->slots[i].owner, owner) == 0)
            op->slots_found[op->found++] = w->slots[i];
}

static int beat_work(struct mem_op *op, struct err *e)
{
    struct mem_member *m = find_member(op->store->world, op->member);
    (void)e; /* cannot fail */
    op->beat.alive = m && !m->row.dead;
    if (op->beat.alive)
        m->row.beat++;
    op->beat.store_now_ms = op->store->now_ms(op->store->arg);
    copy_members(op, op->beat.store_now_ms);
    copy_slots(op, op->member);
    op->beat.slots = op->slots_found;
    op->beat.slots_count = op->found;
    return 0;
}

static void answer_beat(struct mem_op *op, const struct err *e)
{
    op->beat.done_boot_ms = boot_ms(op->store);
    op->beat_done(op->arg, e, e->code == ERR_OK ? &op->beat : NULL);
}

static void mem_beat(void *self, const char *member, store_beat_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "beat", true, beat_work, answer_beat, arg);
    name_member(op, member);
    op->beat_done = done;
    op->beat.sent_boot_ms = boot_ms(self);
    mem_op_send(op);
}

static int declare_work(struct mem_op *op, struct err *e)
{
    struct mem_member *m = find_member(op->store->world, op->member);
    (void)e; /* cannot fail */
    if (m && !m->row.dead && (op->number == UINT64_MAX || m->row.beat == op->number)) {
        m->row.dead = true;
        m->died_ms = op->store->now_ms(op->store->arg);
    }
    op->yes = !m || m->row.dead;
    return 0;
}

static void answer_bool(struct mem_op *op, const struct err *e)
{
    op->bool_done(op->arg, e, e->code == ERR_OK && op->yes);
}

static void mem_declare_dead(void *self, const char *victim, uint64_t seen_beat, store_bool_done *done,
                             void *arg)
{
    struct mem_op *op = mem_op_new(self, "declare_dead", true, declare_work, answer_bool, arg);
    name_member(op, victim);
    op->number = seen_beat;
    op->bool_done = done;
    mem_op_send(op);
}

void mem_slots_apply(struct store_mem_world *w, struct slot_change *changes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct slot_change *c = &changes[i];
        struct store_slot *slot = c->slot < w->slots_count ? &w->slots[c->slot] : NULL;
        c->changed = false;
        if (!slot)
            continue;
        if (slot->epoch == c->from_epoch && strcmp(slot->owner, c->from) == 0) {
            memcpy(slot->owner, c->to, sizeof(slot->owner));
            slot->epoch++;
        }
        c->changed = slot->epoch == c->from_epoch + 1 && strcmp(slot->owner, c->to) == 0;
    }
}

static int slots_work(struct mem_op *op, struct err *e)
{
    int r = mem_fence(op->store->world, op->member, e);
    if (r == 0)
        mem_slots_apply(op->store->world, op->slots, op->count);
    return r;
}

static void mem_slots_change(void *self, const char *member, struct slot_change *slots, size_t count,
                             store_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "slots_change", true, slots_work, answer_done, arg);
    name_member(op, member);
    op->slots = slots;
    op->count = count;
    op->done = done;
    mem_op_send(op);
}

static int slots_read_work(struct mem_op *op, struct err *e)
{
    (void)e; /* cannot fail */
    copy_slots(op, NULL);
    return 0;
}

static void answer_slots(struct mem_op *op, const struct err *e)
{
    bool ok = e->code == ERR_OK;
    op->slots_done(op->arg, e, ok ? op->slots_found : NULL, ok ? op->found : 0);
}

static void mem_slots_read(void *self, store_slots_done *done, void *arg)
{
    struct mem_op *op = mem_op_new(self, "slots_read", false, slots_read_work, answer_slots, arg);
    op->slots_done = done;
    mem_op_send(op);
}

/* --- worlds, open, close ------------------------------------------------------------------------------------------- */

struct store_mem_world *store_mem_world_new(void)
{
    struct store_mem_world *w = mem_new(struct store_mem_world);
    map_init(&w->jobs, 1);
    map_init(&w->names, 2);
    map_init(&w->fires, 3);
    map_init(&w->revisions, 4);
    map_init(&w->copies, 5);
    map_init(&w->histories, 6);
    list_init(&w->unfinished);
    return w;
}

void store_mem_world_free(struct store_mem_world *world)
{
    if (!world)
        return;
    while (world->members) {
        struct mem_member *next = world->members->next;
        mem_free(world->members);
        world->members = next;
    }
    mem_jobs_fini(world);
    mem_free(world->slots);
    mem_free(world);
}

static int mem_open(const struct store_open_args *args, void **ret_self, struct store_meta *ret_meta,
                    struct err *e)
{
    const struct store_mem_options *options = args->options;
    struct store_mem_world *w = options->world;
    assert(strlen(args->cluster) < sizeof(w->meta.cluster) && args->slots >= 1);
    if (w && w->meta.schema && strcmp(w->meta.cluster, args->cluster) != 0)
        return err_set(e, ERR_PERMANENT, "the store belongs to cluster '%s', not '%s'", w->meta.cluster,
                       args->cluster);
    uint8_t secret[STORE_SECRET_BYTES];
    int rc = rng_os_bytes(secret, sizeof(secret), e);
    if (rc < 0)
        return rc;
    struct store_mem *s = mem_new(struct store_mem);
    s->own_world = !w;
    s->world = w ? w : store_mem_world_new();
    s->options = *options;
    s->loop = args->loop;
    s->now_ms = args->now_ms;
    s->arg = args->arg;
    list_init(&s->pending);
    if (!s->world->meta.schema) {
        s->world->meta =
            (struct store_meta){.slots = args->slots, .created_ms = s->now_ms(s->arg), .schema = 1};
        memcpy(s->world->meta.cluster, args->cluster, strlen(args->cluster) + 1);
        memcpy(s->world->meta.secret, secret, sizeof(secret));
    }
    s->stats.ok = true;
    s->stats.since_ms = s->now_ms(s->arg);
    *ret_meta = s->world->meta;
    *ret_self = s;
    return 0;
}

static void mem_close(void *self)
{
    struct store_mem *s = self;
    while (!list_empty(&s->pending)) {
        struct mem_op *op = container_of(list_first(&s->pending), struct mem_op, link);
        struct err e = {0};
        assert(op->store == s);
        (void)err_set(&e, ERR_CANCELLED, "the store is being closed"); /* the answer carries it */
        op_answer(op, &e);
        op->store = NULL; /* its message is still on its way */
    }
    if (s->own_world)
        store_mem_world_free(s->world);
    mem_free(s);
}

static const struct store_stats *mem_stats(void *self)
{
    return &((struct store_mem *)self)->stats;
}

static const struct option_row no_options[] = {{.key = NULL}};

const struct store_ops store_mem = {
    .name = "mem",
    .options = no_options,
    .options_size = sizeof(struct store_mem_options),
    .open = mem_open,
    .close = mem_close,
    .join = mem_join,
    .beat = mem_beat,
    .declare_dead = mem_declare_dead,
    .slots_change = mem_slots_change,
    .slots_read = mem_slots_read,
    .commits_max = 2,
    .commit = mem_commit,
    .load_jobs = mem_load_jobs,
    .load_fires = mem_load_fires,
    .get_jobs = mem_get_jobs,
    .get_fires = mem_get_fires,
    .list_jobs = mem_list_jobs,
    .list_fires = mem_list_fires,
    .get_copy = mem_get_copy,
    .count_dead = mem_count_dead,
    .count_jobs = mem_count_jobs,
    .find_change = mem_find_change,
    .list_revisions = mem_list_revisions,
    .vacuum = mem_vacuum,
    .stats = mem_stats,
};
