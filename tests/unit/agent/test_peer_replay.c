#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include "agent/base/mem.h"
#include "agent/base/rng.h"
#include "agent/peer_auth.h"
#include "agent/peer_replay.h"

#define MINUTE_MS (2 * PEER_AUTH_WINDOW_MS)

Test(peer_replay, what_was_seen_is_not_new_for_as_long_as_it_would_be_believed)
{
    struct peer_replay *r = peer_replay_new();
    for (int64_t now_ms = 5; now_ms < 10 * MINUTE_MS; now_ms += MINUTE_MS / 7) {
        uint64_t tag = (uint64_t)now_ms;
        cr_assert(peer_replay_is_new(r, tag, now_ms));
        cr_assert(not(peer_replay_is_new(r, tag, now_ms)));
        cr_assert(not(peer_replay_is_new(r, tag, now_ms + MINUTE_MS - 1)));
        for (int64_t ago_ms = 0; ago_ms <= MINUTE_MS && ago_ms < now_ms; ago_ms += MINUTE_MS / 7)
            cr_assert(not(peer_replay_is_new(r, (uint64_t)(now_ms - ago_ms), now_ms)));
    }
    peer_replay_free(r);
}

Test(peer_replay, what_is_long_gone_takes_no_room)
{
    struct peer_replay *r = peer_replay_new();
    cr_assert(peer_replay_is_new(r, 7, 0));
    cr_assert(peer_replay_is_new(r, 8, MINUTE_MS));
    cr_assert(peer_replay_is_new(r, 9, 2 * MINUTE_MS));
    cr_assert(peer_replay_is_new(r, 7, 2 * MINUTE_MS + 1));
    peer_replay_free(r);
}

Test(peer_replay, a_flood_is_bounded_and_the_newest_are_known)
{
    struct peer_replay *r = peer_replay_new();
    for (uint64_t tag = 1; tag <= 3u * PEER_REPLAY_MAX; tag++)
        cr_assert(peer_replay_is_new(r, tag, 1));
    for (uint64_t tag = 2u * PEER_REPLAY_MAX + 1; tag <= 3u * PEER_REPLAY_MAX; tag++)
        cr_assert(not(peer_replay_is_new(r, tag, 1)));
    cr_assert(peer_replay_is_new(r, 1, 1), "it would hold all three generations");
    peer_replay_free(r);
}

Test(peer_replay, without_memory_nothing_is_new)
{
    struct peer_replay *r = peer_replay_new();
    fault_arm(0);
    cr_assert(not(peer_replay_is_new(r, 1, 1)));
    cr_assert(fault_fired());
    cr_assert(peer_replay_is_new(r, 1, 1));
    peer_replay_free(r);
}
