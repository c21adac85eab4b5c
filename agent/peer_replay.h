/* Which signatures of peers were seen already, for as long as they would still be believed: a message that was listened to on the
 * way and sent once more is refused. Any thread. */
#ifndef CARILLON_AGENT_PEER_REPLAY_H
#define CARILLON_AGENT_PEER_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#define PEER_REPLAY_MAX \
    200000u /* kept twice; when more come within a minute they are known for less than that */

struct peer_replay;

struct peer_replay *peer_replay_new(void);
void peer_replay_free(struct peer_replay *r); /* NULL does nothing */
/* Whether TAG (peer_auth.tag of a header that was verified) comes for the first time; from now on it is known, for a minute at the
 * least. NOW_MS: of the boot clock. Without memory nothing is new. */
bool peer_replay_is_new(struct peer_replay *r, uint64_t tag, int64_t now_ms);

#endif
