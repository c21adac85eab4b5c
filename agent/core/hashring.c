#include "agent/core/hashring.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/mem.h"

/* Constants of version 1. They may not change, nor may any hash below: members of one cluster must agree. */
#define SEED_MEMBER UINT64_C(0x6361726d656d6231)
#define SEED_POINT  UINT64_C(0x636172706f696e31)
#define SEED_SLOT   UINT64_C(0x636172736c6f7431)
#define SEED_BOUND  UINT64_C(0x636172626f756e31)
#define SEED_JOB    UINT64_C(0x6361726a6f627331)
#define POINTS_UNIT \
    256u /* virtual nodes of a member of weight 1: arcs even to about 6 % before the bound acts */
#define POINTS_MAX \
    131072u /* of all members; heavier lists are thinned by halves, so that it happens rarely */
#define BUCKET_BITS 16u
#define BUCKETS     (1u << BUCKET_BITS)

/* A virtual node. */
struct point {
    uint64_t hash;
    uint16_t node;
};

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
    struct point *points;
    uint32_t points_count;
    uint32_t *first; /* BUCKETS + 1: first point whose hash begins with these bits */
};

static uint64_t hash_pair(uint64_t a, uint64_t b, uint64_t seed)
{
    /* Bytes in fixed order: the result may not depend on the machine's. */
    unsigned char bytes[16];
    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(a >> 8 * i);
        bytes[8 + i] = (unsigned char)(b >> 8 * i);
    }
    return XXH3_64bits_withSeed(bytes, sizeof(bytes), seed);
}

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
        uint64_t part = hash_pair(n->hash, 0, SEED_BOUND) >> 48; /* 0..1 in 1/65536 */
        uint64_t unit = 10u * r->weights;
        n->bound = (uint32_t)((11u * (uint64_t)slots * n->weight * 65536u + part * unit) / (unit * 65536u));
        room += n->bound;
    }
    for (size_t i = 0; room < slots && i < r->nodes_count; i++)
        r->nodes[i].bound = bound_of(slots, r->nodes[i].weight, r->weights);
}

static unsigned thinning(uint64_t weights)
{
    unsigned shift = 0;
    while ((weights * POINTS_UNIT >> shift) > POINTS_MAX)
        shift++;
    return shift;
}

static uint32_t points_of(uint32_t weight, unsigned shift)
{
    uint32_t n = weight * POINTS_UNIT >> shift;
    return n > 0 ? n : 1;
}

static unsigned bucket_of(uint64_t hash)
{
    return (unsigned)(hash >> (64 - BUCKET_BITS));
}

/* Equal hashes, should they ever occur, are ordered by id. */
static bool point_before(const struct point *a, const struct point *b)
{
    return a->hash != b->hash ? a->hash < b->hash : a->node < b->node;
}

static void sort_bucket(struct point *points, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin + 1; i < end; i++) {
        struct point p = points[i];
        uint32_t j = i;
        for (; j > begin && point_before(&p, &points[j - 1]); j--)
            points[j] = points[j - 1];
        points[j] = p;
    }
}

/* Counting sort by the first bits, then each bucket of one or two points by insertion: hashes are even. The two passes
 * compute each hash twice rather than keep a second copy. */
static void place_points(struct ring *r, unsigned shift)
{
    for (size_t i = 0; i < r->nodes_count; i++)
        for (uint32_t k = 0; k < points_of(r->nodes[i].weight, shift); k++)
            r->first[bucket_of(hash_pair(r->nodes[i].hash, k, SEED_POINT))]++;
    uint32_t sum = 0;
    for (uint32_t b = 0; b <= BUCKETS; b++) {
        sum += b < BUCKETS ? r->first[b] : 0;
        r->first[b] = sum; /* the end of bucket b; placing counts it down to its beginning */
    }
    for (size_t i = 0; i < r->nodes_count; i++)
        for (uint32_t k = 0; k < points_of(r->nodes[i].weight, shift); k++) {
            uint64_t hash = hash_pair(r->nodes[i].hash, k, SEED_POINT);
            r->points[--r->first[bucket_of(hash)]] = (struct point){.hash = hash, .node = (uint16_t)i};
        }
    for (uint32_t b = 0; b < BUCKETS; b++)
        sort_bucket(r->points, r->first[b], r->first[b + 1]);
}

/* First point at or after HASH; points_count when there is none. */
static uint32_t find_point(const struct ring *r, uint64_t hash)
{
    uint32_t i = r->first[bucket_of(hash)];
    while (i < r->points_count && r->points[i].hash < hash)
        i++;
    return i;
}

/* Slots choose in the order of their numbers. Ends, because the bounds leave room for all. */
static void assign_slots(struct ring *r, uint32_t slots, uint16_t *owners)
{
    for (uint32_t slot = 0; slot < slots; slot++) {
        uint32_t i = find_point(r, hash_pair(slot, 0, SEED_SLOT));
        struct node *n;
        for (;; i++) {
            n = &r->nodes[r->points[i % r->points_count].node];
            if (n->load < n->bound)
                break;
        }
        n->load++;
        owners[slot] = n->member;
    }
}

static int ring_open(struct ring *r, const struct hashring_member *members, size_t count, uint32_t slots,
                     struct err *e)
{
    r->nodes = mem_try_array(count, sizeof(*r->nodes), e);
    if (!r->nodes)
        return -ERR_NOMEM;
    int rc = collect_nodes(members, count, r, e);
    if (rc < 0)
        return rc;
    unsigned shift = thinning(r->weights);
    for (size_t i = 0; i < r->nodes_count; i++)
        r->points_count += points_of(r->nodes[i].weight, shift);
    r->points = mem_try_array(r->points_count, sizeof(*r->points), e);
    r->first = mem_try_array(BUCKETS + 1, sizeof(*r->first), e);
    if (!r->points || !r->first)
        return -ERR_NOMEM;
    set_bounds(r, slots);
    place_points(r, shift);
    return 0;
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
    struct ring r = {0};
    int rc = ring_open(&r, members, count, slots, e);
    if (rc == 0)
        assign_slots(&r, slots, owners);
    mem_free(r.first);
    mem_free(r.points);
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
    return bound_of(slots, members[index].weight, weights);
}

uint32_t hashring_slot(const char *ns, const char *id, uint32_t slots)
{
    assert(slots > 0);
    uint64_t ns_hash = XXH3_64bits_withSeed(ns, strlen(ns), SEED_JOB);
    uint64_t id_hash = XXH3_64bits_withSeed(id, strlen(id), SEED_JOB);
    return (uint32_t)(hash_pair(ns_hash, id_hash, SEED_JOB) % slots);
}
