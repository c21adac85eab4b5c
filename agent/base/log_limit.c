#include "agent/base/log_limit.h"

#include <string.h>

static bool is_same(const struct log_limit_slot *s, const char *module, const char *msg)
{
    return s->msg == msg && (s->module == module || (s->module && module && strcmp(s->module, module) == 0));
}

/* The pair's slot, or else a free one, or else the one that began first. */
static struct log_limit_slot *find_slot(struct log_limit *l, const char *module, const char *msg)
{
    struct log_limit_slot *best = &l->slots[0];
    for (size_t i = 0; i < LOG_LIMIT_SLOTS; i++) {
        struct log_limit_slot *s = &l->slots[i];
        if (s->msg && is_same(s, module, msg))
            return s;
        if (best->msg && (!s->msg || s->begin_ms < best->begin_ms))
            best = s;
    }
    return best;
}

bool log_limit_admit(struct log_limit *l, const char *module, const char *msg, int level, uint64_t now_ms,
                     uint32_t burst, uint64_t window_ms, uint32_t *ret_held,
                     struct log_limit_slot *ret_evicted)
{
    *ret_evicted = (struct log_limit_slot){0};
    struct log_limit_slot *s = find_slot(l, module, msg);
    if (!s->msg || !is_same(s, module, msg)) {
        if (s->msg && s->held > 0)
            *ret_evicted = *s;
        *s = (struct log_limit_slot){.module = module, .msg = msg, .begin_ms = now_ms};
    }
    s->level = level;
    if (now_ms - s->begin_ms >= window_ms) {
        s->begin_ms = now_ms;
        s->passed = 0;
    }
    if (s->passed >= burst) {
        s->held += s->held < UINT32_MAX;
        return false;
    }
    s->passed++;
    *ret_held = s->held;
    s->held = 0;
    return true;
}

bool log_limit_expired(struct log_limit *l, uint64_t now_ms, uint64_t window_ms, struct log_limit_slot *ret)
{
    for (size_t i = 0; i < LOG_LIMIT_SLOTS; i++) {
        struct log_limit_slot *s = &l->slots[i];
        if (!s->msg || s->held == 0 || now_ms - s->begin_ms < window_ms)
            continue;
        *ret = *s;
        *s = (struct log_limit_slot){0};
        return true;
    }
    return false;
}
