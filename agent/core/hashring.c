#include "agent/core/hashring.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"
#include "agent/core/rendezvous.h"

/* Constants of version 1. They may not change, nor may any hash below: members of one cluster must agree. */
#define SEED_MEMBER UINT64_C(0x6361726d656d6231)
#define SEED_SLOT   UINT64_C(0x636172736c6f7431)
#define SEED_BOUND  UINT64_C(0x636172626f756e31)
#define SEED_JOB    UINT64_C(0x6361726a6f627331)

/* A member that takes part, in the order of ids. */
struct node {
    const char *id;
    uint64_t hash;
    uint32_t weight;
    uint32_t bound;
    uint32_t load;
    uint16_t member; /* index in the caller's list */
};

struct ring {
    struct node *nodes;
    size_t nodes_count;
    uint64_t weights; /* sum */
};

static bool takes_part(const struct hashring_member *m, bool any_active)
{
    return m->state == HASHRING_ACTIVE || !any_active;
}

static bool has_active(const struct hashring_member *members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (members[i].state == HASHRING_ACTIVE)
            return true;
    return false;
}

static int check_member(const struct hashring_member *m, struct err *e)
{
    size_t len = m->id ? strnlen(m->id, HASHRING_ID_MAX + 1) : 0;
    if (len == 0 || len > HASHRING_ID_MAX)
        return err_set(e, ERR_INVALID, "ring: a member id of %zu bytes (1 to %u allowed)", len,
                       HASHRING_ID_MAX);
    if (m->weight == 0 || m->weight > HASHRING_WEIGHT_MAX)
        return err_set(e, ERR_INVALID, "ring: member '%s' has weight %u (1 to %u allowed)", m->id, m->weight,
                       HASHRING_WEIGHT_MAX);
    if (m->state != HASHRING_ACTIVE && m->state != HASHRING_LEAVING)
        return err_set(e, ERR_INVALID, "ring: member '%s' has an unknown state", m->id);
    return 0;
}

static int compare_nodes(const void *a, const void *b)
{
    return strcmp(((const struct node *)a)->id, ((const struct node *)b)->id);
}

/* Checks all members, also those that get nothing, before anything depends on them. */
static int collect_nodes(const struct hashring_member *members, size_t count, struct ring *r, struct err *e)
{
    for (size_t i = 0; i < count; i++) {
        int rc = check_member(&members[i], e);
        if (rc < 0)
            return rc;
        r->nodes[i] = (struct node){.id = members[i].id, .weight = members[i].weight, .member = (uint16_t)i};
    }
    qsort(r->nodes, count, sizeof(*r->nodes), compare_nodes);
    for (size_t i = 1; i < count; i++)
        if (strcmp(r->nodes[i - 1].id, r->nodes[i].id) == 0)
            return err_set(e, ERR_INVALID, "ring: member '%s' is listed twice", r->nodes[i].id);
    bool any_active = has_active(members, count);
    for (size_t i = 0; i < count; i++) {
        struct node n = r->nodes[i];
        if (!takes_part(&members[n.member], any_active))
            continue;
        n.hash = XXH3_64bits_withSeed(n.id, strlen(n.id), SEED_MEMBER);
        r->nodes[r->nodes_count++] = n;
        r->weights += n.weight;
    }
    return 0;
}

/* ceil(1.1 * slots * weight / weights). */
static uint32_t bound_of(uint32_t slots, uint32_t weight, uint64_t weights)
{
    uint64_t above = 11u * (uint64_t)slots * weight;
    return (uint32_t)((above + 10u * weights - 1) / (10u * weights));
}

/* Members' bounds are 1.1 * share rounded up or down by a hash of the member, so that a slight change of the sum of
 * weights moves the bounds of a few members by one and not those of all at once (at 150 members that would move
 * three times as much). Rounded up for all when there would not be room enough. */
static void set_bounds(struct ring *r, uint32_t slots)
{
    uint64_t room = 0;
    for (size_t i = 0; i < r->nodes_count; i++) {
        struct node *n = &r->nodes[i];
        uint64_t part = rendezvous_hash(n->hash, 0, SEED_BOUND) >> 48; /* 0..1 in 1/65536 */
        uint64_t unit = 10u * r->weights;
        n->bound = (uint32_t)((11u * (uint64_t)slots * n->weight * 65536u + part * unit) / (unit * 65536u));
        room += n->bound;
    }
    for (size_t i = 0; room < slots && i < r->nodes_count; i++)
        r->nodes[i].bound = bound_of(slots, r->nodes[i].weight, r->weights);
}

/* NULL when all are full. Equal distances, should they ever occur, go to the first id. */
static struct node *closest(struct ring *r, uint64_t slot_hash)
{
    struct node *best = NULL;
    uint64_t best_distance = 0;
    for (size_t i = 0; i < r->nodes_count; i++) {
        struct node *n = &r->nodes[i];
        if (n->load >= n->bound)
            continue;
        uint64_t distance = rendezvous_distance(slot_hash, n->hash);
        if (!best || rendezvous_closer(distance, n->weight, best_distance, best->weight)) {
            best = n;
            best_distance = distance;
        }
    }
    return best;
}

/* Slots choose in the order of their numbers; the bounds leave room for all. */
static void assign_slots(struct ring *r, uint32_t slots, uint16_t *owners)
{
    for (uint32_t slot = 0; slot < slots; slot++) {
        struct node *n = closest(r, rendezvous_hash(slot, 0, SEED_SLOT));
        assert(n);
        n->load++;
        owners[slot] = n->member;
    }
}

int hashring_build(unsigned version, const struct hashring_member *members, size_t count, uint32_t slots,
                   uint16_t *owners, struct err *e)
{
    assert(slots > 0 && slots <= HASHRING_SLOTS_MAX);
    if (version != 1)
        return err_set(e, ERR_INVALID, "ring: version %u is unknown, the newest is %d", version,
                       HASHRING_VERSION);
    if (count > HASHRING_MEMBERS_MAX)
        return err_set(e, ERR_TOO_BIG, "ring: %zu members (at most %u)", count, HASHRING_MEMBERS_MAX);
    if (count == 0) {
        for (uint32_t slot = 0; slot < slots; slot++)
            owners[slot] = HASHRING_NOBODY;
        return 0;
    }
    struct ring r = {.nodes = mem_try_array(count, sizeof(*r.nodes), e)};
    if (!r.nodes)
        return -ERR_NOMEM;
    int rc = collect_nodes(members, count, &r, e);
    if (rc == 0) {
        set_bounds(&r, slots);
        assign_slots(&r, slots, owners);
    }
    mem_free(r.nodes);
    return rc;
}

uint32_t hashring_bound(const struct hashring_member *members, size_t count, uint32_t slots, size_t index)
{
    assert(index < count);
    bool any_active = has_active(members, count);
    if (!takes_part(&members[index], any_active))
        return 0;
    uint64_t weights = 0;
    for (size_t i = 0; i < count; i++)
        if (takes_part(&members[i], any_active))
            weights += members[i].weight;
    assert(weights > 0);
    return bound_of(slots, members[index].weight, weights);
}

uint32_t hashring_slot(const char *ns, const char *id, uint32_t slots)
{
    assert(slots > 0);
    uint64_t ns_hash = XXH3_64bits_withSeed(ns, strlen(ns), SEED_JOB);
    uint64_t id_hash = XXH3_64bits_withSeed(id, strlen(id), SEED_JOB);
    return (uint32_t)(rendezvous_hash(ns_hash, id_hash, SEED_JOB) % slots);
}
