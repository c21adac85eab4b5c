#include "agent/store/raft/machine.h"

#include <assert.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/store/raft/entry.h"
#include "agent/store/raft/machine_private.h"

#define SLOTS_MAX 65536u

struct machine *machine_new(void)
{
    struct machine *m = mem_new(struct machine);
    m->slab = slab_new();
    machine_indexes_init(m);
    m->pack = BUF_INIT_OR_DIE(ENTRY_MAX_BYTES);
    return m;
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    machine_snapshot_abort(m);
    machine_rows_fini(m);
    slab_free(m->slab); /* blobs may be read on */
    mem_free(m->members);
    mem_free(m->slots);
    mem_free(m->scratch);
    buf_fini(&m->pack);
    mem_free(m);
}

/* --- members ------------------------------------------------------------------------------------------------------- */

const struct store_meta *machine_meta(const struct machine *m)
{
    return &m->meta;
}

uint64_t machine_seq(const struct machine *m)
{
    return m->seq;
}

uint64_t machine_proposer(const struct machine *m)
{
    return m->proposer;
}

static struct machine_member *find_member(const struct machine *m, const char *id)
{
    for (size_t i = 0; i < m->members_count; i++)
        if (strcmp(m->members[i].row.id, id) == 0)
            return &m->members[i];
    return NULL;
}

const struct store_member *machine_member(const struct machine *m, const char *id)
{
    const struct machine_member *member = find_member(m, id);
    return member ? &member->row : NULL;
}

bool machine_beat(struct machine *m, const char *member)
{
    struct machine_member *found = find_member(m, member);
    if (!found || found->row.dead)
        return false;
    found->row.beat++;
    return true;
}

void machine_beats_from(struct machine *m, uint64_t number)
{
    for (size_t i = 0; i < m->members_count; i++)
        m->members[i].row.beat = number;
}

size_t machine_members_max(const struct machine *m)
{
    return m->members_count;
}

size_t machine_members(const struct machine *m, int64_t now_ms, struct store_member *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < m->members_count; i++)
        if (!m->members[i].row.dead || m->members[i].died_ms > now_ms - MACHINE_MEMBER_SHOWN_MS)
            ret[n++] = m->members[i].row;
    return n;
}

int machine_fence(const struct machine *m, const char *member)
{
    const struct machine_member *found = find_member(m, member);
    return found && !found->row.dead ? 0 : -ERR_FENCED;
}

void machine_member_insert(struct machine *m, const struct store_member *row, int64_t died_ms)
{
    struct machine_member *grown = mem_new_array(struct machine_member, m->members_count + 1);
    size_t at = 0;
    while (at < m->members_count && strcmp(m->members[at].row.id, row->id) < 0)
        at++;
    if (m->members_count > 0) {
        memcpy(grown, m->members, at * sizeof(*grown));
        memcpy(grown + at + 1, m->members + at, (m->members_count - at) * sizeof(*grown));
    }
    grown[at] = (struct machine_member){.row = *row, .died_ms = died_ms};
    mem_free(m->members);
    m->members = grown;
    m->members_count++;
}

/* --- slots --------------------------------------------------------------------------------------------------------- */

size_t machine_slots(const struct machine *m, const char *owner, struct store_slot *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < m->slots_count; i++)
        if (!owner || strcmp(m->slots[i].owner, owner) == 0)
            ret[n++] = m->slots[i];
    return n;
}

bool machine_owns_slots(const struct machine *m, const char *member)
{
    for (size_t i = 0; i < m->slots_count; i++)
        if (strcmp(m->slots[i].owner, member) == 0)
            return true;
    return false;
}

void machine_slots_make(struct machine *m, const char *owner)
{
    m->slots_count = m->meta.slots;
    m->slots = mem_new_array(struct store_slot, m->slots_count);
    for (size_t i = 0; i < m->slots_count; i++) {
        m->slots[i].slot = (uint16_t)i;
        m->slots[i].epoch = (uint64_t)(m->meta.created_ms / 1000);
        memcpy(m->slots[i].owner, owner, strlen(owner) + 1);
    }
}

bool machine_slot_apply(struct machine *m, const struct slot_change *c)
{
    struct store_slot *slot = c->slot < m->slots_count ? &m->slots[c->slot] : NULL;
    if (!slot)
        return false;
    if (slot->epoch == c->from_epoch && strcmp(slot->owner, c->from) == 0) {
        memcpy(slot->owner, c->to, sizeof(slot->owner));
        slot->epoch++;
    }
    return slot->epoch == c->from_epoch + 1 && strcmp(slot->owner, c->to) == 0;
}

/* --- commands ------------------------------------------------------------------------------------------------------ */

static enum err_code do_make(struct machine *m, struct codec_in *in)
{
    struct store_meta meta = {.schema = (uint32_t)codec_get_u64(in, UINT32_MAX)};
    meta.slots = (uint32_t)codec_get_u64(in, SLOTS_MAX);
    meta.created_ms = codec_get_i64(in);
    codec_get_text(in, meta.cluster, sizeof(meta.cluster));
    const void *secret = codec_get_raw(in, sizeof(meta.secret));
    if (secret)
        memcpy(meta.secret, secret, sizeof(meta.secret));
    in->bad |= meta.schema == 0 || meta.slots == 0;
    if (in->bad || m->meta.schema != 0)
        return ERR_EXISTS;
    m->meta = meta;
    return ERR_OK;
}

static void bury(struct machine_member *member, int64_t at_ms)
{
    if (member->row.dead)
        return;
    member->row.dead = true;
    member->died_ms = at_ms;
}

static enum err_code do_join(struct machine *m, struct codec_in *in)
{
    struct store_member me = {0};
    codec_get_row(in, codec_member(), &me, CODEC_ALL);
    bool alone = codec_get_u64(in, 1) != 0;
    int64_t at_ms = codec_get_i64(in);
    if (in->bad)
        return ERR_INVALID;
    for (size_t i = 0; alone && i < m->members_count; i++)
        if (strcmp(m->members[i].row.id, me.id) != 0)
            bury(&m->members[i], at_ms);
    if (find_member(m, me.id))
        return machine_fence(m, me.id) < 0 ? ERR_FENCED : ERR_OK;
    machine_member_insert(m, &me, 0);
    if (m->slots_count == 0)
        machine_slots_make(m, me.id);
    return ERR_OK;
}

static enum err_code do_declare(struct machine *m, struct codec_in *in)
{
    char victim[RECORD_MEMBER_MAX];
    codec_get_text(in, victim, sizeof(victim));
    int64_t at_ms = codec_get_i64(in);
    struct machine_member *member = in->bad ? NULL : find_member(m, victim);
    if (member)
        bury(member, at_ms);
    return ERR_OK;
}

/* It never goes back. */
static enum err_code do_version(struct machine *m, struct codec_in *in)
{
    uint32_t version = (uint32_t)codec_get_u64(in, UINT32_MAX);
    if (version > STORE_VERSION)
        in->newer = in->bad = true;
    else if (!in->bad && version > m->meta.schema)
        m->meta.schema = version;
    return ERR_OK;
}

static void do_command(struct machine *m, struct command *c, struct machine_outcome *ret)
{
    if (c->kind != COMMAND_MAKE && m->meta.schema == 0) {
        c->in.bad = true;
        return;
    }
    switch (c->kind) {
    case COMMAND_MAKE:
        ret->code = do_make(m, &c->in);
        break;
    case COMMAND_JOIN:
        ret->code = do_join(m, &c->in);
        break;
    case COMMAND_DECLARE:
        ret->code = do_declare(m, &c->in);
        break;
    case COMMAND_SLOTS:
        machine_slots_command(m, &c->in, ret);
        break;
    case COMMAND_COMMIT:
        machine_commit(m, &c->in, ret);
        break;
    case COMMAND_VACUUM:
        machine_vacuum(m, &c->in);
        break;
    case COMMAND_VERSION:
        ret->code = do_version(m, &c->in);
        break;
    }
}

static void tell(machine_result_fn *fn, void *arg, size_t command, const struct machine_outcome *o)
{
    struct machine_result result = {.code = o->code,
                                    .changes = o->changes,
                                    .changes_count = o->changes_count,
                                    .slots = o->slots,
                                    .slots_count = o->slots_count};
    fn(arg, command, &result);
}

static int do_commands(struct machine *m, struct entry *entry, machine_result_fn *fn, void *arg,
                       struct err *e)
{
    struct command c;
    for (size_t n = 0; entry_next(entry, &c); n++) {
        struct machine_outcome o = {0};
        do_command(m, &c, &o);
        int r = codec_finish(&c.in, "the log entry", e);
        if (r == 0 && fn)
            tell(fn, arg, n, &o);
        mem_free(o.changes);
        mem_free(o.slots);
        if (r < 0)
            return r;
    }
    return entry_close(entry, e);
}

int machine_apply(struct machine *m, const void *data, size_t bytes, machine_result_fn *fn, void *arg,
                  struct err *e)
{
    struct entry entry;
    int r = entry_open(data, bytes, &entry, e);
    if (r < 0)
        return r;
    if (entry.seq != m->seq + 1)
        return err_set(e, ERR_PROTOCOL, "after entry %llu of the log comes entry %llu: some are missing",
                       (unsigned long long)m->seq, (unsigned long long)entry.seq);
    m->seq = entry.seq;
    m->proposer = entry.proposer;
    r = do_commands(m, &entry, fn, arg, e);
    if (r == 0)
        machine_snapshot_entry(m, data, bytes);
    return r;
}
