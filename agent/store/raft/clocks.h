/* What time it is in a cluster that has no clock but those of its members: who leads has no better one than the others, so it is
 * believed unless more of them say otherwise. Each beat tells the clock of its sender. Pure; the replica's thread. */
#ifndef CARILLON_STORE_RAFT_CLOCKS_H
#define CARILLON_STORE_RAFT_CLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/core/record.h"

#define CLOCKS_MAX      32   /* members whose clocks are kept; of more the latest */
#define CLOCKS_KEPT     4    /* beats of each */
#define CLOCKS_FRESH_MS 5000 /* an older beat says nothing */
#define CLOCKS_AGREE_MS 250  /* clocks that differ by no more agree */

/* All zero: nobody has told anything. Clocks are kept as what they show more than the boot clock of who leads, which nobody sets. */
struct clocks {
    struct clocks_member {
        char id[RECORD_MEMBER_MAX]; /* "": free */
        int64_t offset_ms[CLOCKS_KEPT];
        int64_t told_boot_ms[CLOCKS_KEPT];
        unsigned next;
    } members[CLOCKS_MAX];
};

/* MEMBER, another than who leads, said that its clock shows WALL_MS; this was read at BOOT_MS of the own boot clock. */
void clocks_note(struct clocks *c, const char *member, int64_t wall_ms, int64_t boot_ms);

/* The time at BOOT_MS, when the own clock shows WALL_MS: the own, if at least half of those that are known agree with it, else the one
 * in the middle. False: there are more than two members (MEMBERS, without the dead), and not most of them are known. */
bool clocks_tell(const struct clocks *c, size_t members, int64_t wall_ms, int64_t boot_ms, int64_t *ret_ms);

#endif
