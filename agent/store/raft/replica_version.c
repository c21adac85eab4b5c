/* The version of what is written. Whoever has the log must be able to read all of it, or is of no use any more. So a leader asks those who
 * have it what they know, and when all know more it writes down that from there on more may follow: after that nobody who knows less is
 * given the log. Agents of two versions can so vote side by side while the one is replaced by the other. It never goes back. */
#include "agent/store/raft/replica_private.h"

#include <stdlib.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"
#include "agent/base/mem.h"

#define ASK_MS 250

static const struct log_ctx log_here = {.module = "raft"};

struct question {
    struct replica *r;
    uint64_t id, round;
};

static struct replica_known *find_known(struct replica *r, uint64_t id)
{
    for (size_t i = 0; i < r->versions.count; i++)
        if (r->versions.known[i].id == id)
            return &r->versions.known[i];
    return NULL;
}

static void note(struct replica *r, uint64_t id, uint64_t round, uint32_t version)
{
    struct replica_versions *v = &r->versions;
    struct replica_known *k = find_known(r, id);
    if (!k && v->count < MESH_NODES_MAX)
        k = &v->known[v->count++];
    if (!k)
        return; /* more than can be, until the next term */
    bool told = k->id == id && k->told;
    *k = (struct replica_known){.id = id, .round = round, .version = version, .told = told};
}

/* What all who have the log, or are on the way to it, can read. 0: somebody has not told in this round. */
static uint32_t lowest(struct replica *r)
{
    const struct raft_configuration *c = &r->raft.configuration;
    uint32_t version = STORE_VERSION;
    for (unsigned i = 0; i < c->n; i++) {
        const struct replica_known *k = find_known(r, c->servers[i].id);
        if (c->servers[i].id == r->raft.id)
            continue;
        if (!k || k->round != r->versions.round)
            return 0;
        version = k->version < version ? k->version : version;
    }
    return version;
}

static void maybe_raise(struct replica *r)
{
    if (!replica_leads(r) || r->in_flight || r->postponed || r->changing ||
        r->raft.configuration_uncommitted_index != 0)
        return; /* with the next round */
    uint32_t version = r->mesh ? lowest(r) : STORE_VERSION;
    if (version <= machine_meta(r->machine)->schema)
        return;
    log_info(&log_here, "the log's version is raised", "version=%u before=%u", version,
             machine_meta(r->machine)->schema);
    replica_raise(r, version);
}

static void on_told(void *arg, const struct err *e, enum err_code code, void *body, size_t bytes)
{
    struct question *q = arg;
    struct replica *r = q->r;
    struct replica_who who;
    if (e->code == ERR_OK && code == ERR_OK && replica_get_who(body, bytes, &who) &&
        q->round == r->versions.round) {
        note(r, q->id, q->round, who.version);
        maybe_raise(r);
    }
    free(body);
    mem_free(q);
}

static void ask(struct replica *r, uint64_t id)
{
    struct buf payload = BUF_INIT(16);
    if (id == r->raft.id)
        return;
    struct question *q = mem_new(struct question);
    *q = (struct question){.r = r, .id = id, .round = r->versions.round};
    if (mesh_call(r->mesh, id, REPLICA_CALL_WHO, &payload, on_told, q) == 0)
        mem_free(q); /* it cannot be reached: with the next round */
}

static bool has_server(const struct replica *r, uint64_t id)
{
    const struct raft_configuration *c = &r->raft.configuration;
    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id)
            return true;
    return false;
}

/* Those who have the log while it may be raised, and those who are to get it. */
static void ask_round(struct replica *r)
{
    const struct raft_configuration *c = &r->raft.configuration;
    bool behind = machine_meta(r->machine)->schema < STORE_VERSION;
    uint64_t now_ms = clock_boot_ms();
    if (now_ms - r->versions.asked_ms < ASK_MS)
        return;
    r->versions.asked_ms = now_ms;
    r->versions.round++;
    for (unsigned i = 0; behind && i < c->n; i++)
        ask(r, c->servers[i].id);
    for (size_t i = 0; i < r->wanted_count; i++)
        if (!has_server(r, r->wanted[i].id))
            ask(r, r->wanted[i].id);
}

void replica_look_version(struct replica *r)
{
    if (STORE_VERSION < 2 || !replica_leads(r) || r->broken.code != ERR_OK || r->cut)
        return;
    if (r->mesh)
        ask_round(r);
    else
        maybe_raise(r);
    if (machine_meta(r->machine)->schema > r->meta.schema) /* this thread alone writes it */
        replica_learn(r, machine_meta(r->machine));
}

bool replica_can_read(struct replica *r, uint64_t id)
{
    struct replica_known *k = find_known(r, id);
    uint32_t version = machine_meta(r->machine)->schema;
    if (version < 2)
        return true;
    if (!k || k->round + 1 < r->versions.round)
        return false;
    if (k->version < version && !k->told)
        log_warn(&log_here, "a voter is not added: its carillon is older than what the log holds",
                 "id=%llu knows=%u needed=%u", (unsigned long long)id, k->version, version);
    k->told |= k->version < version;
    return k->version >= version;
}
