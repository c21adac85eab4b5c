#include "agent/store/raft/clocks.h"

#include <stdlib.h>
#include <string.h>

/* One beat may have waited for this leader to be one: of two the sooner read is near enough. */
#define BEATS_MIN 2

static int64_t latest_ms(const struct clocks_member *m)
{
    return m->told_boot_ms[(m->next + CLOCKS_KEPT - 1) % CLOCKS_KEPT];
}

/* MEMBER's place: its own, a free one, or that of who was silent longest. */
static struct clocks_member *place_of(struct clocks *c, const char *member)
{
    struct clocks_member *best = &c->members[0];
    for (size_t i = 0; i < CLOCKS_MAX; i++) {
        struct clocks_member *m = &c->members[i];
        if (strcmp(m->id, member) == 0)
            return m;
        if (best->id[0] && (!m->id[0] || latest_ms(m) < latest_ms(best)))
            best = m;
    }
    memset(best, 0, sizeof(*best));
    memcpy(best->id, member, strlen(member));
    for (size_t i = 0; i < CLOCKS_KEPT; i++)
        best->told_boot_ms[i] = INT64_MIN / 2; /* never */
    return best;
}

void clocks_note(struct clocks *c, const char *member, int64_t wall_ms, int64_t boot_ms)
{
    struct clocks_member *m = place_of(c, member);
    m->offset_ms[m->next] = wall_ms - boot_ms;
    m->told_boot_ms[m->next] = boot_ms;
    m->next = (m->next + 1) % CLOCKS_KEPT;
}

/* What is on its way makes a clock look slow, so the one that looks fastest was the least late. */
static bool offset_of(const struct clocks_member *m, int64_t boot_ms, int64_t *ret_ms)
{
    unsigned beats = 0;
    int64_t most_ms = INT64_MIN;
    for (size_t i = 0; m->id[0] && i < CLOCKS_KEPT; i++) {
        if (m->told_boot_ms[i] < boot_ms - CLOCKS_FRESH_MS)
            continue;
        beats++;
        if (m->offset_ms[i] > most_ms)
            most_ms = m->offset_ms[i];
    }
    *ret_ms = most_ms;
    return beats >= BEATS_MIN;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

bool clocks_tell(const struct clocks *c, size_t members, int64_t wall_ms, int64_t boot_ms, int64_t *ret_ms)
{
    int64_t own_ms = wall_ms - boot_ms, offsets_ms[CLOCKS_MAX + 1] = {own_ms};
    size_t known = 1, agree = 1;
    for (size_t i = 0; i < CLOCKS_MAX; i++) {
        int64_t offset_ms;
        if (!offset_of(&c->members[i], boot_ms, &offset_ms))
            continue;
        agree += offset_ms >= own_ms - CLOCKS_AGREE_MS && offset_ms <= own_ms + CLOCKS_AGREE_MS;
        offsets_ms[known++] = offset_ms;
    }
    if (members > 2 && 2 * known <= (members < CLOCKS_MAX ? members : CLOCKS_MAX))
        return false;
    qsort(offsets_ms, known, sizeof(offsets_ms[0]), by_size);
    *ret_ms = 2 * agree >= known ? wall_ms : boot_ms + offsets_ms[known / 2];
    return true;
}
