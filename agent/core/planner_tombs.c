/* Pages are read while rows change: what left memory with a newer row, or for good, is buried until no page can bring it back. */
#include <string.h>

#include "agent/base/mem.h"
#include "agent/core/planner_private.h"

static void tomb_key(uint8_t key[24], const struct uid *uid, uint64_t seq)
{
    memcpy(key, uid->bytes, 16);
    memcpy(key + 16, &seq, 8);
}

/* No memory to remember what pages may not bring: those that are out are void. */
static void ask_again(struct planner *p)
{
    LIST_FOR (l, &p->chains) {
        struct pchain *c = container_of(l, struct pchain, link);
        if (!c->read)
            continue;
        c->read->chain = NULL;
        c->read = NULL;
        planner_arm(p, &c->retry, p->now_ms + PLANNER_READ_RETRY_MS);
    }
}

/* Needed only while a page is out or to come that may have been read before now. */
void planner_tomb(struct planner *p, const struct uid *uid, uint64_t seq, uint64_t rev)
{
    if (list_empty(&p->chains) && p->fire_reads == 0)
        return;
    uint8_t key[24];
    tomb_key(key, uid, seq);
    struct ptomb *t = map_get(&p->tombs, key, sizeof(key));
    if (!t) {
        t = mem_new(struct ptomb);
        memcpy(t->key, key, sizeof(key));
        if (map_put(&p->tombs, t->key, sizeof(t->key), t, NULL, NULL) < 0) {
            mem_free(t);
            p->tombs_lost = ++p->gen;
            ask_again(p);
            return;
        }
    } else {
        list_remove(&t->link);
    }
    t->rev = rev;
    t->gen = ++p->gen;
    list_push_back(&p->tomb_list, &t->link);
}

bool planner_tomb_refuses(const struct planner *p, uint64_t gen, const struct uid *uid, uint64_t seq,
                          uint64_t rev)
{
    uint8_t key[24];
    tomb_key(key, uid, seq);
    const struct ptomb *t = map_get(&p->tombs, key, sizeof(key));
    return p->tombs_lost > gen || (t && t->gen > gen && rev < t->rev);
}

static void tomb_free(struct planner *p, struct ptomb *t)
{
    (void)map_remove(&p->tombs, t->key, sizeof(t->key));
    list_remove(&t->link);
    mem_free(t);
}

void planner_tombs_fini(struct planner *p)
{
    while (!list_empty(&p->tomb_list))
        tomb_free(p, container_of(list_first(&p->tomb_list), struct ptomb, link));
    map_fini(&p->tombs);
}

/* A page out was asked for at its gen: what was buried before that it has seen. A bounded bite a call. */
void planner_tombs_prune(struct planner *p)
{
    uint64_t oldest = UINT64_MAX;
    LIST_FOR (l, &p->chains) {
        const struct pchain *c = container_of(l, struct pchain, link);
        if (c->read && c->gen < oldest)
            oldest = c->gen;
    }
    if (p->fire_reads > 0) /* soon answered */
        oldest = 0;
    for (int i = 0; i < PLANNER_TIMERS_PER_STEP && !list_empty(&p->tomb_list); i++) {
        struct ptomb *t = container_of(list_first(&p->tomb_list), struct ptomb, link);
        if (t->gen >= oldest)
            break;
        tomb_free(p, t);
    }
}
