/* Delta debugging: a story that breaks a promise is told without some of its parts; what still breaks the same promise is
 * the story from then on. Leaving a part out changes every delay after it, so each try has a few worlds. */
#include <ctype.h>
#include <string.h>

#include "agent/base/mem.h"
#include "tests/sim/story.h"

#define WORLDS 3

struct shrink {
    struct story_plan *plan;
    char class[SIM_BROKEN_MAX];
    uint64_t world;
    unsigned tells, tells_max;
    FILE *out;
};

/* The words of the message without its numbers and names. */
static void class_of(const char *broken, char class[SIM_BROKEN_MAX])
{
    size_t n = 0;
    for (const char *at = broken; *at;) {
        size_t len = strcspn(at, " ");
        bool word = true;
        for (size_t i = 0; i < len; i++)
            word &= isalpha((unsigned char)at[i]) || strchr(",'(:)-", at[i]);
        for (size_t i = 0; word && i < len; i++)
            class[n++] = at[i];
        at += len + (at[len] ? 1 : 0);
    }
    class[n] = '\0';
}

static bool breaks(struct shrink *s, const struct story_plan *p)
{
    for (uint64_t i = 0; i < WORLDS && s->tells < s->tells_max; i++) {
        char class[SIM_BROKEN_MAX];
        uint64_t world = i == 0 ? s->world : s->world + i * 7919;
        struct story_result r = story_tell(p, world, NULL);
        s->tells++;
        class_of(r.broken, class);
        if (r.code == 0 || strcmp(class, s->class) != 0)
            continue;
        s->world = world;
        return true;
    }
    return false;
}

/* P without COUNT parts from FROM on. */
static bool cut(struct shrink *s, size_t from, size_t count)
{
    struct story_plan less = *s->plan;
    less.parts = mem_new_array(struct story_part, less.count + 1);
    memcpy(less.parts, s->plan->parts, from * sizeof(*less.parts));
    memcpy(less.parts + from, s->plan->parts + from + count,
           (less.count - from - count) * sizeof(*less.parts));
    less.count -= count;
    bool ok = breaks(s, &less);
    if (ok) {
        mem_free(s->plan->parts);
        *s->plan = less;
    } else {
        mem_free(less.parts);
    }
    return ok;
}

/* From the end on: what came after the broken promise goes at once. */
static void cut_parts(struct shrink *s)
{
    for (size_t size = (s->plan->count + 1) / 2; size > 0; size /= 2) {
        size_t end = s->plan->count;
        while (end > 0 && s->tells < s->tells_max) {
            size_t n = end < size ? end : size;
            (void)cut(s, end - n, n);
            end -= n;
        }
    }
}

static void cut_hosts(struct shrink *s)
{
    while (s->plan->hosts > 1 && s->tells < s->tells_max) {
        s->plan->hosts--;
        if (breaks(s, s->plan))
            continue;
        s->plan->hosts++;
        return;
    }
}

void story_shrink(struct story_plan *p, uint64_t *ret_world, unsigned tells, FILE *out)
{
    struct shrink s = {.plan = p, .tells_max = tells, .out = out};
    struct story_result r = story_tell(p, 0, NULL);
    class_of(r.broken, s.class);
    size_t before = p->count + 1, parts = p->count;
    unsigned hosts = p->hosts;
    while (r.code != 0 && p->count < before && s.tells < tells) {
        before = p->count;
        cut_hosts(&s);
        cut_parts(&s);
    }
    *ret_world = s.world;
    fprintf(
        out,
        "shrunk to %zu of %zu parts and %u of %u agents, after %u stories:\n  SIM_WORLD=%llu SIM_HOSTS=%u SIM_KEEP=",
        p->count, parts, p->hosts, hosts, s.tells, (unsigned long long)s.world, p->hosts);
    for (size_t i = 0; i < p->count; i++)
        fprintf(out, "%s%u", i ? "," : "", p->parts[i].number);
    fputc('\n', out);
}
