#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/hashring.h"
#include "tests/lib/seed.h"

#define MEMBERS 201
#define SLOTS   HASHRING_SLOTS_DEFAULT

/* Members named from SEED: "agent-<seed>-<i>", with weights from 1 to WEIGHT_MAX. */
struct list {
    struct hashring_member m[MEMBERS];
    char ids[MEMBERS][48];
    size_t count;
};

static void list_fill(struct list *l, size_t count, struct rng *r, uint32_t weight_max)
{
    l->count = count;
    for (size_t i = 0; i < count; i++) {
        snprintf(l->ids[i], sizeof(l->ids[i]), "agent-%zu.%016" PRIx64, i, rng_u64(r));
        l->m[i] = (struct hashring_member){.id = l->ids[i], .weight = 1 + (uint32_t)rng_below(r, weight_max)};
    }
}

static void build(const struct list *l, uint32_t slots, uint16_t *owners)
{
    struct err e = {0};
    cr_assert(zero(int, hashring_build(HASHRING_VERSION, l->m, l->count, slots, owners, &e)), "%s", e.text);
}

/* Every slot has an owner, and nobody is over its bound. */
static void check_balance(const struct list *l, uint32_t slots, const uint16_t *owners, uint64_t seed)
{
    uint32_t load[MEMBERS] = {0};
    for (uint32_t s = 0; s < slots; s++) {
        cr_assert(lt(sz, owners[s], l->count), "slot %u, seed=%" PRIu64, s, seed);
        load[owners[s]]++;
    }
    for (size_t i = 0; i < l->count; i++)
        cr_assert(le(u32, load[i], hashring_bound(l->m, l->count, slots, i)),
                  "n=%zu i=%zu w=%u seed=%" PRIu64, l->count, i, l->m[i].weight, seed);
}

Test(hashring, bound_is_eleven_tenths_of_the_weighted_share_rounded_up)
{
    const struct hashring_member m[] = {{"a", 1, HASHRING_ACTIVE}, {"b", 3, HASHRING_ACTIVE}};
    cr_assert(eq(u32, hashring_bound(m, 2, 4096, 0), 1127)); /* 1126.4 */
    cr_assert(eq(u32, hashring_bound(m, 2, 4096, 1), 3380)); /* 3379.2 */
    cr_assert(eq(u32, hashring_bound(m, 1, 10, 0), 11));
}

Test(hashring, all_slots_are_owned_within_the_bound_for_1_to_200_members)
{
    static struct list l;
    static uint16_t owners[SLOTS];
    struct rng r;
    uint64_t seed = seed_rng(&r, "hashring balance");
    for (size_t n = 1; n <= 200; n++) {
        list_fill(&l, n, &r, n % 2 ? 1 : 10);
        build(&l, SLOTS, owners);
        check_balance(&l, SLOTS, owners, seed);
    }
}

Test(hashring, bound_holds_for_other_slot_counts_and_extreme_weights)
{
    static struct list l;
    static uint16_t owners[HASHRING_SLOTS_MAX];
    struct rng r;
    uint64_t seed = seed_rng(&r, "hashring extremes");
    const uint32_t slots[] = {1, 2, 7, 64, 256, 1000, HASHRING_SLOTS_MAX};
    for (size_t k = 0; k < sizeof(slots) / sizeof(slots[0]); k++)
        for (size_t n = 1; n <= 200; n += 33) {
            list_fill(&l, n, &r, k % 2 ? HASHRING_WEIGHT_MAX : 1);
            build(&l, slots[k], owners);
            check_balance(&l, slots[k], owners, seed);
        }
}

Test(hashring, order_of_the_list_does_not_matter)
{
    static struct list l;
    static uint16_t before[SLOTS], after[SLOTS];
    struct rng r;
    uint64_t seed = seed_rng(&r, "hashring order");
    for (size_t n = 2; n <= 200; n += 18) {
        list_fill(&l, n, &r, 5);
        build(&l, SLOTS, before);
        struct hashring_member old[MEMBERS];
        memcpy(old, l.m, sizeof(old));
        for (size_t i = n - 1; i > 0; i--) {
            size_t j = (size_t)rng_below(&r, i + 1);
            struct hashring_member t = l.m[i];
            l.m[i] = l.m[j];
            l.m[j] = t;
        }
        build(&l, SLOTS, after);
        for (uint32_t s = 0; s < SLOTS; s++)
            cr_assert(eq(str, (char *)old[before[s]].id, (char *)l.m[after[s]].id), "seed=%" PRIu64, seed);
    }
}

/* Slots that change owner between the list and the list without its last member; *RET_MUST are that one's own. */
static uint32_t moved(struct list *l, uint32_t *ret_must)
{
    static uint16_t with[SLOTS], without[SLOTS];
    uint32_t moves = 0, must = 0;
    build(l, SLOTS, with);
    l->count--;
    build(l, SLOTS, without);
    l->count++;
    for (uint32_t s = 0; s < SLOTS; s++) {
        moves += with[s] != without[s];
        must += with[s] == l->count - 1;
    }
    *ret_must = must;
    return moves;
}

/* Joining and leaving are the same pair of lists. What must move are the slots of the one that comes or goes; the rest
 * is the price of the bound: never over 2 % of all slots, on average over the lists of a size not over 0.75 % (or
 * half of the share, if that is more), and with five members or fewer nothing but chance. */
static void check_movement(uint32_t weight_max, const char *name)
{
    static struct list l;
    struct rng r;
    uint64_t seed = seed_rng(&r, name);
    const size_t sizes[] = {2, 3, 4, 5, 6, 11, 21, 51, 101, 151, 200};
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        const unsigned rounds = 20;
        double moves = 0, must = 0, worst = 0;
        for (unsigned i = 0; i < rounds; i++) {
            uint32_t own, all;
            list_fill(&l, sizes[k], &r, weight_max);
            all = moved(&l, &own);
            cr_assert(ge(u32, all, own));
            cr_assert(le(u32, all - own, SLOTS / 50), "n=%zu: %u for %u, seed=%" PRIu64, sizes[k], all, own,
                      seed);
            moves += all;
            must += own;
            worst = all - own > worst ? all - own : worst;
        }
        double extra = (moves - must) / rounds, share = must / rounds;
        fprintf(stderr, "%s: %3zu members: must %.1f, moved %.1f, extra at most %.0f of %u slots\n", name,
                sizes[k], share, moves / rounds, worst, SLOTS);
        cr_assert(lt(dbl, extra, fmax(share / 2, 0.0075 * SLOTS)), "n=%zu, seed=%" PRIu64, sizes[k], seed);
    }
}

Test(hashring, a_join_or_leave_moves_little_more_than_it_must)
{
    check_movement(1, "hashring movement");
}

Test(hashring, a_join_or_leave_moves_little_more_than_it_must_with_weights)
{
    check_movement(4, "hashring movement, weights 1 to 4");
}

Test(hashring, with_few_members_only_the_slots_of_the_one_that_leaves_move)
{
    static struct list l;
    struct rng r;
    rng_init(&r, 11);
    for (size_t n = 2; n <= 5; n++) {
        uint32_t must;
        list_fill(&l, n, &r, 1);
        uint32_t all = moved(&l, &must);
        cr_assert(eq(u32, all, must), "n=%zu", n);
    }
}

/* Large and unequal weights cost nothing more: there is no scale that a newcomer could shift. */
Test(hashring, a_member_more_moves_little_among_large_weights)
{
    check_movement(HASHRING_WEIGHT_MAX, "hashring movement, weights 1 to 1000");
}

Test(hashring, leaving_members_get_nothing_while_one_is_active)
{
    static struct list l;
    static uint16_t owners[SLOTS];
    struct rng r;
    uint64_t seed = seed_rng(&r, "hashring leaving");
    list_fill(&l, 20, &r, 3);
    for (size_t i = 0; i < 20; i++)
        l.m[i].state = i == 7 ? HASHRING_ACTIVE : HASHRING_LEAVING;
    build(&l, SLOTS, owners);
    check_balance(&l, SLOTS, owners, seed);
    for (uint32_t s = 0; s < SLOTS; s++)
        cr_assert(eq(u16, owners[s], 7));
    cr_assert(eq(u32, hashring_bound(l.m, 20, SLOTS, 3), 0));
}

Test(hashring, if_all_leave_they_share_as_if_active)
{
    static struct list l;
    static uint16_t active[SLOTS], leaving[SLOTS];
    struct rng r;
    rng_init(&r, 3);
    list_fill(&l, 5, &r, 3);
    build(&l, SLOTS, active);
    for (size_t i = 0; i < 5; i++)
        l.m[i].state = HASHRING_LEAVING;
    build(&l, SLOTS, leaving);
    cr_assert(zero(int, memcmp(active, leaving, sizeof(active))));
}

Test(hashring, no_members_own_nothing)
{
    uint16_t owners[3] = {0};
    cr_assert(zero(int, hashring_build(HASHRING_VERSION, NULL, 0, 3, owners, NULL)));
    for (int s = 0; s < 3; s++)
        cr_assert(eq(u16, owners[s], HASHRING_NOBODY));
}

static void check_refused(const struct hashring_member *m, size_t n, unsigned version, int code)
{
    struct err e = {0};
    uint16_t owners[2] = {77, 77};
    cr_assert(eq(int, hashring_build(version, m, n, 2, owners, &e), -code), "%s", e.text);
    cr_assert(eq(int, (int)e.code, code));
    cr_assert(eq(u16, owners[0], 77));
    cr_assert(eq(u16, owners[1], 77));
}

Test(hashring, bad_lists_are_refused_and_leave_owners_alone)
{
    static char long_id[HASHRING_ID_MAX + 2];
    static struct hashring_member many[HASHRING_MEMBERS_MAX + 1];
    memset(long_id, 'x', sizeof(long_id) - 1);
    struct hashring_member m[] = {{"a", 1, HASHRING_ACTIVE}, {"b", 1, HASHRING_LEAVING}};
    check_refused(m, 2, HASHRING_VERSION + 1, ERR_INVALID);
    check_refused(m, 2, 0, ERR_INVALID);
    m[1].id = "a";
    check_refused(m, 2, HASHRING_VERSION, ERR_INVALID);
    m[1].id = "";
    check_refused(m, 2, HASHRING_VERSION, ERR_INVALID);
    m[1].id = long_id;
    check_refused(m, 2, HASHRING_VERSION, ERR_INVALID);
    m[1] = (struct hashring_member){"b", 0, HASHRING_ACTIVE};
    check_refused(m, 2, HASHRING_VERSION, ERR_INVALID);
    m[1].weight = HASHRING_WEIGHT_MAX + 1;
    check_refused(m, 2, HASHRING_VERSION, ERR_INVALID);
    m[1] = (struct hashring_member){"b", 1, HASHRING_STATE_COUNT_};
    check_refused(m, 2, HASHRING_VERSION, ERR_INVALID);
    const struct hashring_member apart[] = {
        {"a", 1, HASHRING_ACTIVE}, {"b", 1, HASHRING_ACTIVE}, {"a", 1, HASHRING_ACTIVE}};
    check_refused(apart, 3, HASHRING_VERSION, ERR_INVALID);
    check_refused(many, HASHRING_MEMBERS_MAX + 1, HASHRING_VERSION, ERR_TOO_BIG);
}

Test(hashring, survives_every_failed_allocation)
{
    const struct hashring_member m[] = {{"a", 1, HASHRING_ACTIVE}, {"b", 3, HASHRING_ACTIVE}};
    unsigned k;
    for (k = 0;; k++) {
        uint16_t owners[2] = {77, 77};
        struct err e = {0};
        fault_arm(k);
        int rc = hashring_build(HASHRING_VERSION, m, 2, 2, owners, &e);
        if (!fault_fired()) {
            cr_assert(zero(int, rc));
            break;
        }
        cr_assert(eq(int, rc, -ERR_NOMEM), "k=%u", k);
        cr_assert(eq(u16, owners[0], 77), "k=%u", k);
    }
    cr_assert(gt(uint, k, 0));
}

/* The contract between members of different builds: if this fails, HASHRING_VERSION must rise. */
Test(hashring, version_1_is_what_it_always_was)
{
    const struct hashring_member m[] = {
        {"a1.0f3c", 1, HASHRING_ACTIVE}, {"a2.77aa", 2, HASHRING_ACTIVE}, {"a3.e001", 1, HASHRING_ACTIVE}};
    uint16_t owners[32];
    char text[33] = {0};
    cr_assert(zero(int, hashring_build(1, m, 3, 32, owners, NULL)));
    for (int i = 0; i < 32; i++)
        text[i] = (char)('0' + owners[i]);
    cr_assert(eq(str, text, "20020112121122110121001011121101"));
}

Test(hashring, slot_of_a_job_is_what_it_always_was)
{
    cr_assert(eq(u32, hashring_slot("default", "invoice-42", 4096), 1972));
    cr_assert(eq(u32, hashring_slot("team-b", "x", 65536), 44891));
}

Test(hashring, namespace_and_id_are_told_apart)
{
    cr_assert(ne(u32, hashring_slot("a", "bc", 65536), hashring_slot("ab", "c", 65536)));
    cr_assert(ne(u32, hashring_slot("a", "b", 65536), hashring_slot("b", "a", 65536)));
}

Test(hashring, jobs_spread_evenly_over_slots)
{
    static uint32_t load[64];
    for (int i = 0; i < 64000; i++) {
        char id[16];
        snprintf(id, sizeof(id), "job-%d", i);
        load[hashring_slot("default", id, 64)]++;
    }
    for (int s = 0; s < 64; s++) {
        cr_assert(gt(u32, load[s], 840)); /* 5 sigma about 1000 */
        cr_assert(lt(u32, load[s], 1160));
    }
}
