/* The disk: libraft writes to one that is full again and again, without a word. Who leads goes on meanwhile when the others have what
 * it sends, but all that waits for its own disk stays in memory: so another shall lead. */
#include "agent/store/raft/replica_private.h"

#include <stdio.h>
#include <sys/statvfs.h>

#include "agent/base/clock.h"
#include "agent/base/log.h"

/* A disk that writes nothing of what waits for so long is told of, and does not lead. */
#define STUCK_MS 2000

static const struct log_ctx log_here = {.module = "raft"};

void replica_tell_disk(const struct replica *r, char *text, size_t size)
{
    struct statvfs v;
    unsigned long long free_mb = 0;
    bool known = statvfs(r->dir, &v) == 0;
    if (known)
        free_mb = (unsigned long long)v.f_bavail * v.f_frsize >> 20;
    (void)snprintf(text, size,
                   known && free_mb < 64 ? "the disk is full: %llu MiB are left in %.100s"
                                         : /* cut: for people */
                       "the disk takes no writes (%llu MiB are free in %.100s)",
                   free_mb, r->dir);
}

/* Seen at every tick, so a disk that moves is never taken for a stuck one. */
static bool is_stuck(struct replica *r, uint64_t now_ms)
{
    bool waits = r->raft.last_stored < raft_last_index(&r->raft);
    if (!waits || r->disk_stored != r->raft.last_stored)
        r->disk_since_ms = now_ms;
    r->disk_stored = r->raft.last_stored;
    return now_ms - r->disk_since_ms >= STUCK_MS;
}

void replica_look_disk(struct replica *r)
{
    char text[180];
    if (!r->voting || r->broken.code != ERR_OK)
        return;
    bool stuck = is_stuck(r, clock_boot_ms());
    if (stuck && !r->disk_stuck) {
        replica_tell_disk(r, text, sizeof(text));
        log_error(&log_here, "the log is not written down here", "why=%s", LOGQ(text));
    } else if (!stuck && r->disk_stuck) {
        log_info(&log_here, "the log is written down here again", "entry=%llu",
                 (unsigned long long)r->raft.last_stored);
    }
    r->disk_stuck = stuck;
    if (stuck && r->mesh && replica_leads(r))
        replica_give_lead(r);
}
