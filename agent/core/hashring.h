/* The ring: a pure function from a list of members to an owner for every slot. Equal lists give equal owners on every
 * machine, in whatever order they come.
 *
 * Consistent hashing (Karger et al., "Consistent Hashing and Random Trees", STOC 1997) with bounded loads (Mirrokni,
 * Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018): each slot goes to the closest member that
 * is not full yet. Closeness is weighted rendezvous hashing, which is the limit of ever more virtual nodes; points on a
 * real ring need hundreds a unit of weight, so that large weights are slow or have to be scaled, and a change of the scale
 * moves half of all slots.
 *
 * No member gets more than ceil(1.1 * its share), share = slots * weight / sum of weights. A member that joins or leaves
 * moves its own slots and a few others, those of members that come to their bound or leave it: none with up to five
 * members, about 0.5 % of all slots with 200 (measured by tests/unit/core/test_hashring.c).
 *
 * The placement is part of the contract between members: any change of it is a new version. All functions: any
 * thread. */
#ifndef CARILLON_CORE_HASHRING_H
#define CARILLON_CORE_HASHRING_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"

/* Newest algorithm; members agree on the lowest version among them. */
#define HASHRING_VERSION 1

#define HASHRING_SLOTS_DEFAULT 4096u
#define HASHRING_SLOTS_MAX     65536u
#define HASHRING_MEMBERS_MAX   1000u
#define HASHRING_WEIGHT_MAX    1000u
#define HASHRING_ID_MAX        255u /* bytes */
#define HASHRING_NOBODY        UINT16_MAX

enum hashring_state {
    HASHRING_ACTIVE,
    HASHRING_LEAVING, /* gets nothing while anyone is active; if all leave they share the slots as if active */
    HASHRING_STATE_COUNT_
};

struct hashring_member {
    const char *id;  /* unique, not empty; borrowed for the call */
    uint32_t weight; /* 1..HASHRING_WEIGHT_MAX; relative */
    enum hashring_state state;
};

/* Fill OWNERS[0..SLOTS) with indexes into MEMBERS by algorithm VERSION; with COUNT 0 all are HASHRING_NOBODY.
 * 1 <= SLOTS <= HASHRING_SLOTS_MAX. On failure OWNERS is untouched: ERR_INVALID (unknown version, an id that is empty,
 * too long or there twice, a weight out of range), ERR_TOO_BIG (COUNT > HASHRING_MEMBERS_MAX), ERR_NOMEM.
 * Costs COUNT * SLOTS steps: 4 ms for 200 members and 4096 slots. */
int hashring_build(unsigned version, const struct hashring_member *members, size_t count, uint32_t slots,
                   uint16_t *owners, struct err *e);

/* The most slots that the member at INDEX may get from hashring_build with the same arguments: ceil(1.1 * its share),
 * 0 for one that leaves while another is active. */
uint32_t hashring_bound(const struct hashring_member *members, size_t count, uint32_t slots, size_t index);

/* The slot of a job: hash(NS, ID) mod SLOTS, the same for ever (the store keeps it). NS and ID are NUL-terminated;
 * SLOTS > 0. */
uint32_t hashring_slot(const char *ns, const char *id, uint32_t slots);

#endif
