/* One step fails, on whichever thread, while a voter begins, joins or leaves. */
#include <criterion/criterion.h>

#include <stdio.h>

#define contract_fail(file, line, what, ...)                            \
    do {                                                                \
        char text_[1024];                                               \
        (void)snprintf(text_, sizeof(text_), __VA_ARGS__);              \
        cr_assert_fail("%s:%d: %s: %s", (file), (line), (what), text_); \
    } while (0)

#include "agent/base/mem.h"
#include "tests/unit/store/store_raft_bed.h"

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *d = opendir("/proc/self/fd");
    CHECK(d != NULL, "%s", "/proc/self/fd");
    while (readdir(d))
        count++;
    closedir(d);
    return count;
}

static void bed_open_empty(struct cluster_bed *b)
{
    bed_open_loop(b, "a secret");
    b->patience_ms = PATIENCE_MS;
    b->election_ms = 120;
}

/* Whether a step failed in N's log, which can then go no further: an agent says so and ends. */
static bool is_broken(const struct bed_node *n)
{
    return bed_status(n).role == STORE_RAFT_BROKEN;
}

/* N votes while the K-th step from here fails, at the second try if that failed the first. Whether it did. */
static bool vote_in_the_end(struct cluster_bed *b, struct bed_node *n, bool first, unsigned k)
{
    struct err e = {0};
    bed_make(b, n);
    fault_arm_threads(k);
    if (bed_vote(b, n, first, &e) == 0) {
        store_raft_cluster_set_voters(n->cluster, b->voters, b->voters_count);
        return false;
    }
    CHECK(fault_fired() && (e.code == ERR_IO || e.code == ERR_NOMEM || e.code == ERR_PERMANENT), "k=%u: %s",
          k, e.text);
    bed_end(n);
    bed_start(b, n, first);
    return true;
}

/* Only the first voter's log may be begun by itself: another one's is brought to it. */
static bool restart_broken(struct cluster_bed *b, struct bed_node *n)
{
    if (!is_broken(n))
        return false;
    CHECK(fault_fired(), "%s", bed_status(n).problem);
    bed_end(n);
    bed_start(b, n, n->id == 1);
    return true;
}

Test(store_raft_joining, a_cluster_that_cannot_begin_begins_the_next_time)
{
    unsigned refused = 0, broken = 0, before = 0;
    bool fired = true;
    for (unsigned k = 0; fired; k++) {
        struct cluster_bed b;
        bed_open_empty(&b);
        struct bed_node *n = bed_add(&b, 1);
        bed_name(&b, n);
        refused += vote_in_the_end(&b, n, true, k);
        BED_WAIT(&b, bed_leader(&b) == n || is_broken(n));
        broken += restart_broken(&b, n);
        BED_WAIT(&b, bed_leader(&b) == n);
        CHECK(bed_status(n).self == 1 && bed_status(n).voters == 1, "k=%u", k);
        fired = fault_fired();
        bed_close_cluster(&b);
        before = k == 0 ? open_files() : before;
        CHECK(open_files() == before, "k=%u: %u files are open, not %u", k, open_files(), before);
    }
    CHECK(refused >= 10 && broken >= 1, "%u were refused, %u broke", refused, broken);
}

/* --- joining and leaving ------------------------------------------------------------------------------------------- */

/* Exactly the voters that B names, as the one that leads has it. */
static bool settled(struct cluster_bed *b)
{
    struct bed_node *leader = bed_leader(b);
    if (!leader)
        return false;
    struct store_raft_status s = bed_status(leader);
    size_t voting = 0;
    for (size_t i = 0; i < s.voters; i++)
        voting += s.list[i].votes;
    return s.voters == b->voters_count && voting == b->voters_count;
}

static void tell_both(struct cluster_bed *b)
{
    for (size_t i = 0; i < b->count; i++)
        store_raft_cluster_set_voters(b->nodes[i].cluster, b->voters, b->voters_count);
}

/* Both are as they should be, at the second try if a log broke. */
static void wait_settled(struct cluster_bed *b)
{
    BED_WAIT(b, settled(b) || is_broken(&b->nodes[0]) || is_broken(&b->nodes[1]));
    for (size_t i = 0; i < b->count; i++)
        (void)restart_broken(b, &b->nodes[i]); /* most are not */
    BED_WAIT(b, settled(b));
}

/* Voter 1 leads, another one joins and leaves while one step fails. True: it did. */
static bool joins_and_leaves(unsigned k)
{
    struct cluster_bed b;
    bed_open_empty(&b);
    struct bed_node *first = bed_add(&b, 1), *second = bed_add(&b, 2);
    bed_name(&b, first);
    bed_start(&b, first, true);
    BED_WAIT(&b, bed_leader(&b) == first);
    bed_name(&b, second);
    (void)vote_in_the_end(&b, second, false, k); /* either way it votes */
    tell_both(&b);
    wait_settled(&b);
    b.voters_count = 1;
    tell_both(&b);
    wait_settled(&b);
    CHECK(bed_leader(&b) == first, "k=%u: voter 2 leads", k);
    bool fired = fault_fired();
    bed_close_cluster(&b);
    return fired;
}

/* Some ninety steps can fail, more where the machine is slow and more is said meanwhile; each round takes as long as two elections. */
Test(store_raft_joining, a_voter_joins_and_leaves_whatever_fails_once)
{
    unsigned before = 0, rounds = 0;
    for (unsigned k = 0; k < 150 && joins_and_leaves(k); k += k < 16 ? 1 : 5) {
        before = before == 0 ? open_files() : before;
        CHECK(open_files() == before, "k=%u: %u files are open, not %u", k, open_files(), before);
        rounds++;
    }
    CHECK(rounds >= 20, "%u", rounds);
}
