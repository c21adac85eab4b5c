#include "agent/quota.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/base/map.h"
#include "agent/base/rng.h"
#include "agent/base/text.h"
#include "agent/config.h"
#include "agent/io/loop.h"

#define LOOK_MS       500
#define IDLE_COUNT_MS 60000
#define SHARE         100 /* a count that takes 1 ms is not made again for 100 */
#define PAUSE_MAX_MS  10000
#define JOBS_MAX      INT64_C(1000000000)
#define BEHIND        1000 /* counted over the limit, so that a few deletions of far too many make no room */

static const struct log_ctx log_here = {.module = "quota"};

struct entry {
    char ns[RECORD_NS_MAX]; /* "": all */
    int64_t known;          /* as the store said */
    int64_t since;          /* made less deleted here since that was asked for */
    int64_t asked;          /* of these: before the question under way */
    int64_t next_ms;        /* loop time of the next count; at once when somebody asks */
    bool counted, wanted;
};

struct quotas {
    struct loop *loop;
    struct loop_timer *timer;
    const struct config *config;
    const struct store_ops *store; /* NULL: not yet, or no more */
    void *self;
    struct map entries;
    struct entry all;
    struct entry *counting; /* NULL: none is */
    int64_t began_ms;
};

/* --- limits -------------------------------------------------------------------------------------------------------- */

int quota_check_item(const char *text, struct err *e)
{
    const char *equals = strchr(text, '=');
    size_t len = equals ? (size_t)(equals - text) : 0;
    uint64_t n;
    if (!equals)
        return err_set(e, ERR_INVALID, "'%s' is not NAMESPACE=N", TEXTQ(text, strlen(text)));
    if (!(len == 1 && *text == '*') && text_check_namespace(text, len, e) < 0)
        return -ERR_INVALID;
    return text_u64(equals + 1, strlen(equals + 1), 1, (uint64_t)JOBS_MAX, &n, e);
}

/* Items were checked when they were read. 0: no limit. */
static int64_t limit_of(const struct config *c, const char *ns)
{
    size_t ns_len = strlen(ns);
    int64_t other = 0;
    if (ns_len == 0)
        return c->schedule.max_jobs;
    for (size_t i = 0; i < c->schedule.max_jobs_of.count; i++) {
        const char *item = c->schedule.max_jobs_of.items[i], *equals = strchr(item, '=');
        size_t len = (size_t)(equals - item);
        int64_t n = 0;
        (void)text_i64(equals + 1, strlen(equals + 1), 1, JOBS_MAX, &n, NULL); /* see above */
        if (len == ns_len && memcmp(item, ns, len) == 0)
            return n;
        if (len == 1 && *item == '*')
            other = n;
    }
    return other;
}

/* --- counting ------------------------------------------------------------------------------------------------------ */

static struct entry *entry_of(struct quotas *q, const char *ns)
{
    struct entry *n = map_get(&q->entries, ns, strlen(ns));
    if (n || map_count(&q->entries) >= QUOTA_ENTRIES_MAX)
        return n;
    n = mem_new(struct entry);
    (void)snprintf(n->ns, sizeof(n->ns), "%s", ns); /* a namespace fits */
    if (map_put(&q->entries, n->ns, strlen(n->ns), n, NULL, NULL) == 0)
        return n;
    mem_free(n);
    return NULL;
}

static void on_counted(void *arg, const struct err *e, const struct store_dead *counts, size_t count)
{
    struct quotas *q = arg;
    struct entry *n = q->counting;
    q->counting = NULL;
    if (e->code == ERR_OK && count == 1) {
        n->known = (int64_t)counts[0].count;
        n->since -= n->asked;
        n->counted = true;
        n->wanted = false;
    } else if (e->code != ERR_CANCELLED) {
        log_warn(&log_here, "jobs were not counted this time", "namespace=%s error=%s", LOGQ(n->ns),
                 LOGQ(e->text));
    }
    int64_t pause_ms = (loop_now_ms(q->loop) - q->began_ms) * SHARE;
    pause_ms = pause_ms < QUOTA_COUNT_MS ? QUOTA_COUNT_MS : pause_ms > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause_ms;
    n->next_ms = loop_now_ms(q->loop) + pause_ms;
}

static bool is_due(const struct quotas *q, const struct entry *n)
{
    int64_t now_ms = loop_now_ms(q->loop);
    return limit_of(q->config, n->ns) > 0 && now_ms >= n->next_ms &&
           (n->wanted || !n->counted || now_ms >= n->next_ms + IDLE_COUNT_MS);
}

static struct entry *next_due(struct quotas *q)
{
    if (is_due(q, &q->all))
        return &q->all;
    for (struct map_iter it = {0}; map_next(&q->entries, &it);)
        if (is_due(q, it.value))
            return it.value;
    return NULL;
}

static void count_next(struct quotas *q)
{
    struct entry *n = q->store && !q->counting ? next_due(q) : NULL;
    if (!n)
        return;
    q->counting = n;
    q->began_ms = loop_now_ms(q->loop);
    n->asked = n->since;
    uint64_t limit = (uint64_t)limit_of(q->config, n->ns) + BEHIND;
    q->store->count_jobs(q->self, n->ns[0] ? n->ns : NULL, limit, on_counted, q);
}

static void look(void *arg)
{
    struct quotas *q = arg;
    count_next(q);
    loop_timer_arm(q->timer, LOOK_MS);
}

/* --- asking -------------------------------------------------------------------------------------------------------- */

static bool is_full(struct quotas *q, struct entry *n, int64_t limit)
{
    n->wanted = true;
    if (!n->counted)
        count_next(q);
    return n->counted && n->known + n->since >= limit;
}

void quotas_ask(struct quotas *q, const char *ns, char ret_why[QUOTA_WHY_SIZE])
{
    ret_why[0] = '\0';
    int64_t all = q ? limit_of(q->config, "") : 0, own = q ? limit_of(q->config, ns) : 0;
    struct entry *n = own > 0 ? entry_of(q, ns) : NULL;
    if (all > 0 && is_full(q, &q->all, all))
        (void)snprintf(ret_why, QUOTA_WHY_SIZE,
                       "there are %lld jobs, as many as there may be (schedule.max_jobs)", (long long)all);
    else if (n && is_full(q, n, own))
        (void)snprintf(ret_why, QUOTA_WHY_SIZE,
                       "namespace '%s' has %lld jobs, as many as it may (schedule.max_jobs_of)", ns,
                       (long long)own);
}

void quotas_note(struct quotas *q, const char *ns, int change)
{
    if (!q)
        return;
    struct entry *n = map_get(&q->entries, ns, strlen(ns));
    q->all.since += change;
    if (n)
        n->since += change;
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

struct quotas *quotas_new(struct loop *loop, const struct config *config)
{
    struct quotas *q = mem_new(struct quotas);
    uint64_t seed = 0;
    q->loop = loop;
    q->config = config;
    (void)rng_seed_os(&seed, NULL); /* else a constant: whoever makes names up has little to gain */
    map_init(&q->entries, seed);
    q->timer = loop_timer_new(loop, look, q);
    loop_timer_arm(q->timer, LOOK_MS);
    return q;
}

/* Named limits are counted before the first job is made. */
static void enter_named(struct quotas *q)
{
    for (size_t i = 0; i < q->config->schedule.max_jobs_of.count; i++) {
        const char *item = q->config->schedule.max_jobs_of.items[i];
        char ns[RECORD_NS_MAX];
        (void)snprintf(ns, sizeof(ns), "%.*s", (int)strcspn(item, "="), item); /* fits, as it was checked */
        if (ns[0] != '*')
            (void)entry_of(q, ns); /* else it comes with its first job */
    }
}

void quotas_set_store(struct quotas *q, const struct store_ops *store, void *self)
{
    q->store = store;
    q->self = self;
    enter_named(q);
    count_next(q);
}

void quotas_reload(struct quotas *q, const struct config *config)
{
    if (!q)
        return;
    q->config = config;
    q->all.counted = false; /* counting ended at the limit before */
    for (struct map_iter it = {0}; map_next(&q->entries, &it);)
        ((struct entry *)it.value)->counted = false;
    enter_named(q);
}

void quotas_stop(struct quotas *q)
{
    if (!q)
        return;
    q->store = NULL;
    loop_timer_free(q->timer);
    q->timer = NULL;
}

void quotas_free(struct quotas *q)
{
    if (!q)
        return;
    assert(!q->counting);
    if (q->timer)
        loop_timer_free(q->timer);
    for (struct map_iter it = {0}; map_next(&q->entries, &it);)
        mem_free(it.value);
    map_fini(&q->entries);
    mem_free(q);
}
