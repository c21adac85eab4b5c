#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"
#include "callback/dispatch_private.h"

#define KEY_MAX ((size_t)1024)

static const struct log_ctx log_here = {.module = "dispatch"};

/* --- targets ------------------------------------------------------------------------------------------------------- */

static uint64_t now_ms(const struct dispatch *d)
{
    return (uint64_t)loop_now_ms(d->options.loop);
}

/* The list of T's service, as far as its tags allow, becomes its balancer's. */
static int load_endpoints(struct target *t, struct err *e)
{
    struct endpoints_view view;
    const struct endpoints_service *s = t->group->service;
    size_t count = 0, used = 0;
    for (size_t at = 0; endpoints_next(s, t->tags.items, t->tags.count, &at, &view);)
        count++;
    AUTO(mem_free) struct balance_endpoint *list = mem_try_array(count, sizeof(*list), e);
    if (!list)
        return -ERR_NOMEM;
    for (size_t at = 0; used < count && endpoints_next(s, t->tags.items, t->tags.count, &at, &view); used++)
        list[used] =
            (struct balance_endpoint){.address = view.address, .weight = view.weight, .rank = view.rank};
    return balance_set_endpoints(t->balance, list, used, now_ms(t->group->d), e);
}

/* What is under way at endpoints that T has only now got counts as T's too. */
static void count_sent(struct target *t)
{
    uint32_t bit = UINT32_C(1) << t->index;
    LIST_FOR (link, &t->group->sent) {
        struct ticket *k = container_of(link, struct ticket, link);
        if (!(k->counted & bit) && balance_join(t->balance, k->endpoint_key))
            k->counted |= bit;
    }
}

static void refresh_endpoints(struct target *t)
{
    struct err e = {0};
    int rc = load_endpoints(t, &e);
    count_sent(t);
    if (rc < 0)
        log_warn(&log_here, "new endpoints not taken over, the old ones stay", "service=%s error=%s",
                 LOGQ(endpoints_name(t->group->service)), LOGQ(e.text));
}

static void target_free(struct target *t)
{
    assert(t->waiting == 0 && t->state == TARGET_IDLE);
    balance_free(t->balance);
    mem_free(t->tags.text);
    mem_free(t);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Tags that differ only in order are one set. */
static void sort_tags(const char **tags, size_t count)
{
    if (count > 1)
        qsort(tags, count, sizeof(*tags), compare_texts);
}

/* TAGS sorted. */
static void copy_tags(struct tags *to, const char *const *tags, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += strlen(tags[i]) + 1;
    char *at = to->text = mem_new_array(char, bytes + 1);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(tags[i]) + 1;
        memcpy(at, tags[i], size);
        to->items[i] = at;
        at += size;
    }
    to->count = count;
}

static bool has_tags(const struct target *t, const char *const *tags, size_t count)
{
    if (t->tags.count != count)
        return false;
    for (size_t i = 0; i < count; i++)
        if (strcmp(t->tags.items[i], tags[i]) != 0)
            return false;
    return true;
}

static bool is_unused(const struct target *t)
{
    return t->waiting == 0 && t->balance && balance_in_flight(t->balance) == 0;
}

/* An index for one more target of G; an unused one is thrown out when all are taken. */
static bool free_index(struct group *g, unsigned *ret)
{
    if (g->targets_count < DISPATCH_TARGETS_MAX) {
        *ret = g->targets_count++;
        return true;
    }
    for (unsigned i = 0; i < g->targets_count; i++)
        if (is_unused(g->targets[i])) {
            target_free(g->targets[i]);
            *ret = i;
            return true;
        }
    return false;
}

/* Limits of the service are the group's; the balancer keeps to the endpoint's. */
static struct balance *new_balance(const struct group *g)
{
    struct balance_options o = g->options;
    o.in_flight_max = 0;
    return balance_new(&o);
}

static struct target *target_add(struct group *g, const char *const *tags, size_t count)
{
    unsigned index;
    if (!free_index(g, &index))
        return NULL;
    struct target *t = mem_new(struct target);
    t->group = g;
    t->index = index;
    g->targets[index] = t;
    list_init(&t->link);
    list_init(&t->line);
    copy_tags(&t->tags, tags, count);
    if (g->service) {
        t->balance = new_balance(g);
        refresh_endpoints(t);
    }
    return t;
}

static struct target *target_of(struct group *g, const struct job_callback *cb)
{
    const char *tags[JOB_TAGS_MAX];
    const char *const *from = cb->tags_count ? cb->tags : g->default_tags.items;
    size_t count = !g->service ? 0 : cb->tags_count ? cb->tags_count : g->default_tags.count;
    for (size_t i = 0; i < count; i++)
        tags[i] = from[i];
    sort_tags(tags, count);
    for (unsigned i = 0; i < g->targets_count; i++)
        if (has_tags(g->targets[i], tags, count))
            return g->targets[i];
    return target_add(g, tags, count);
}

/* --- groups -------------------------------------------------------------------------------------------------------- */

struct key {
    char text[KEY_MAX];
    size_t bytes;
};

static bool key_add(struct key *k, const char *text, size_t bytes)
{
    if (bytes + 1 > sizeof(k->text) - k->bytes)
        return false;
    memcpy(k->text + k->bytes, text, bytes);
    k->text[k->bytes + bytes] = '\0';
    k->bytes += bytes + 1;
    return true;
}

/* "http://host:port" of a URL; the address of a gRPC target is one already. */
static size_t host_length(const char *url)
{
    const char *rest = strstr(url, "://");
    rest = rest ? rest + 3 : url;
    return (size_t)(rest - url) + strcspn(rest, "/?#");
}

/* Services begin with "s", hosts with "h". */
static bool make_key(const struct job_callback *cb, struct key *k)
{
    k->bytes = 0;
    if (cb->service) {
        const char *dc = cb->datacenter ? cb->datacenter : "";
        return key_add(k, "s", 1) && key_add(k, cb->service, strlen(cb->service)) &&
               key_add(k, dc, strlen(dc));
    }
    const char *where = cb->url ? cb->url : cb->address;
    return key_add(k, "h", 1) && key_add(k, where, host_length(where));
}

static void ask_tags(struct group *g)
{
    const struct dispatch_options *o = &g->d->options;
    const char *tags[JOB_TAGS_MAX];
    if (!g->service || !o->tags_of)
        return;
    size_t count = o->tags_of(o->arg, endpoints_name(g->service), tags);
    assert(count <= JOB_TAGS_MAX);
    sort_tags(tags, count);
    mem_free(g->default_tags.text);
    copy_tags(&g->default_tags, tags, count);
}

static void ask_service(struct group *g)
{
    const struct dispatch_options *o = &g->d->options;
    struct dispatch_service s = {0};
    if (g->service && o->service_of)
        o->service_of(o->arg, endpoints_name(g->service), &s);
    rate_set(&g->rate, s.rate_per_s, g->d->share, now_ms(g->d));
    callback_tls_unref(g->tls);
    g->tls = callback_tls_new(s.tls_ca, s.tls_cert, s.tls_key, s.tls_server_name);
}

static void ask_options(struct group *g)
{
    const struct dispatch_options *o = &g->d->options;
    const char *name = g->service ? endpoints_name(g->service) : NULL;
    g->options = balance_options_default();
    if (o->options_of)
        o->options_of(o->arg, name, &g->options);
    size_t all = g->options.in_flight_max ? g->options.in_flight_max : SIZE_MAX;
    size_t one = g->options.endpoint_in_flight_max ? g->options.endpoint_in_flight_max : SIZE_MAX;
    g->in_flight_max = !g->service && one < all ? one : all;
    ask_tags(g);
    ask_service(g);
}

void dispatch_group_free(struct group *g)
{
    struct dispatch *d = g->d;
    struct group *last = d->groups[--d->groups_count];
    d->groups[g->index] = last;
    last->index = g->index;
    (void)map_remove(&d->by_key, g->key, g->key_bytes); /* it is there, or was never put */
    for (unsigned i = 0; i < g->targets_count; i++)
        target_free(g->targets[i]);
    if (g->service)
        endpoints_release(g->service);
    mem_free(g->default_tags.text);
    callback_tls_unref(g->tls);
    mem_free(g->key);
    mem_free(g);
}

static bool is_idle(const struct group *g)
{
    return g->in_flight == 0 && g->waiting == 0;
}

static bool make_room(struct dispatch *d)
{
    struct group *oldest = NULL;
    if (d->groups_count < DISPATCH_GROUPS_MAX)
        return true;
    for (size_t i = 0; i < d->groups_count; i++)
        if (is_idle(d->groups[i]) && (!oldest || d->groups[i]->used_ms < oldest->used_ms))
            oldest = d->groups[i];
    if (oldest)
        dispatch_group_free(oldest);
    return oldest != NULL;
}

static struct group *group_add(struct dispatch *d, const struct job_callback *cb, const struct key *k)
{
    struct endpoints_service *service = NULL;
    if (!make_room(d))
        return NULL;
    if (cb->service && !(service = endpoints_use(d->options.endpoints, cb->service, cb->datacenter)))
        return NULL;
    struct group *g = mem_new(struct group);
    g->d = d;
    g->service = service;
    g->key = mem_new_array(char, k->bytes);
    memcpy(g->key, k->text, k->bytes);
    g->key_bytes = k->bytes;
    g->host = service ? NULL : g->key + 2;
    g->host_hash = XXH3_64bits(g->key, g->key_bytes);
    list_init(&g->blocked);
    list_init(&g->sent);
    g->index = d->groups_count;
    d->groups[d->groups_count++] = g;
    if (map_put(&d->by_key, g->key, g->key_bytes, g, NULL, NULL) < 0) {
        dispatch_group_free(g);
        return NULL;
    }
    ask_options(g);
    return g;
}

struct target *dispatch_target(struct dispatch *d, const struct delivery *delivery, bool *ret_impossible)
{
    struct key k;
    const struct job_callback *cb = &delivery->spec->callback;
    *ret_impossible = !make_key(cb, &k);
    if (*ret_impossible)
        return NULL;
    struct group *g = map_get(&d->by_key, k.text, k.bytes);
    if (!g && !(g = group_add(d, cb, &k)))
        return NULL;
    g->used_ms = loop_now_ms(d->options.loop);
    if (g->service)
        endpoints_touch(g->service);
    return target_of(g, cb);
}

void dispatch_sweep(struct dispatch *d, int64_t now)
{
    for (size_t i = d->groups_count; i-- > 0;) {
        struct group *g = d->groups[i];
        if (is_idle(g) && now - g->used_ms >= ENDPOINTS_IDLE_MS)
            dispatch_group_free(g);
    }
}

/* --- changes ------------------------------------------------------------------------------------------------------- */

static void begin_pacing(struct target *t)
{
    t->pacing = true;
    t->pace_ms = loop_now_ms(t->group->d->options.loop);
    t->paced = 0;
}

/* Whether a target has endpoints that had none. */
static bool target_changed(struct target *t)
{
    size_t before = balance_count(t->balance);
    refresh_endpoints(t);
    return before == 0 && balance_count(t->balance) > 0;
}

static void group_changed(struct group *g)
{
    const struct dispatch_options *o = &g->d->options;
    bool appeared = false;
    for (unsigned i = 0; i < g->targets_count; i++) {
        struct target *t = g->targets[i];
        appeared |= target_changed(t);
        g->missed |= balance_count(t->balance) == 0;
        if (t->state == TARGET_STARVED && balance_count(t->balance) > 0) {
            begin_pacing(t);
            dispatch_turn(t);
        } else if (t->state == TARGET_BLOCKED) {
            dispatch_turn(t);
        }
    }
    if (!appeared || !g->missed || !o->released)
        return;
    g->missed = false;
    o->released(o->arg, endpoints_name(g->service)); /* the last act: groups may come and go in it */
}

void dispatch_endpoints_changed(void *arg, struct endpoints_service *s)
{
    struct dispatch *d = arg;
    for (size_t i = 0; i < d->groups_count; i++)
        if (d->groups[i]->service == s) { /* there is one group a service and datacenter */
            group_changed(d->groups[i]);
            return;
        }
}

void dispatch_reload(struct dispatch *d, uint32_t in_flight_max)
{
    assert(in_flight_max > 0);
    d->options.in_flight_max = in_flight_max;
    for (size_t i = 0; i < d->groups_count; i++) {
        struct group *g = d->groups[i];
        ask_options(g);
        struct balance_options o = g->options;
        o.in_flight_max = 0;
        for (unsigned j = 0; j < g->targets_count; j++) {
            if (g->targets[j]->balance)
                balance_set_options(g->targets[j]->balance, &o, now_ms(d));
            if (g->targets[j]->state == TARGET_BLOCKED)
                dispatch_turn(g->targets[j]);
        }
    }
    dispatch_wake_at(d, loop_now_ms(d->options.loop));
}

void dispatch_set_share(struct dispatch *d, double share)
{
    if (share == d->share)
        return;
    d->share = share;
    for (size_t i = 0; i < d->groups_count; i++)
        rate_set(&d->groups[i]->rate, d->groups[i]->rate.per_s, share, now_ms(d));
    dispatch_wake_at(d, loop_now_ms(d->options.loop)); /* who waits looks when its turn is now */
}

/* --- looking ------------------------------------------------------------------------------------------------------- */

struct dispatch_stats dispatch_stats(const struct dispatch *d)
{
    struct dispatch_stats stats = {
        .in_flight = d->in_flight, .waiting = d->waiting, .oldest_ms = INT64_MAX, .groups = d->groups_count};
    for (size_t i = 0; i < d->groups_count; i++)
        for (unsigned j = 0; j < d->groups[i]->targets_count; j++) {
            const struct list *first = list_first(&d->groups[i]->targets[j]->line);
            if (first && container_of(first, struct ticket, link)->queued_ms < stats.oldest_ms)
                stats.oldest_ms = container_of(first, struct ticket, link)->queued_ms;
        }
    return stats;
}

/* An endpoint in several targets is in the same state in all; the targets differ in which they list. */
static size_t count_ejected(const struct group *g)
{
    size_t most = 0;
    for (unsigned i = 0; i < g->targets_count; i++) {
        size_t n = g->targets[i]->balance ? balance_ejected(g->targets[i]->balance) : 0;
        most = n > most ? n : most;
    }
    return most;
}

bool dispatch_next_group(const struct dispatch *d, size_t *at, struct dispatch_group_view *ret)
{
    if (*at >= d->groups_count)
        return false;
    const struct group *g = d->groups[(*at)++];
    *ret = (struct dispatch_group_view){
        .service = g->service ? endpoints_name(g->service) : NULL,
        .datacenter = g->service ? endpoints_datacenter(g->service) : NULL,
        .host = g->host,
        .in_flight = g->in_flight,
        .waiting = g->waiting,
        .ejected = count_ejected(g),
    };
    return true;
}

bool dispatch_next_endpoint(const struct dispatch *d, const struct endpoints_service *s, size_t *at,
                            struct balance_view *ret)
{
    struct endpoints_view view;
    if (!endpoints_next(s, NULL, 0, at, &view))
        return false;
    uint64_t key = balance_key(view.address);
    for (size_t i = 0; i < d->groups_count; i++) {
        const struct group *g = d->groups[i];
        for (unsigned j = 0; g->service == s && j < g->targets_count; j++)
            if (balance_get(g->targets[j]->balance, key, ret))
                return true;
    }
    *ret = (struct balance_view){
        .key = key, .address = view.address, .weight = view.weight, .rank = view.rank, .ramp_percent = 100};
    return true;
}

void dispatch_service_view(const struct dispatch *d, const char *service, struct dispatch_service_view *ret)
{
    struct balance_options o = balance_options_default();
    struct dispatch_service rest = {0};
    if (d->options.options_of)
        d->options.options_of(d->options.arg, service, &o);
    if (d->options.service_of)
        d->options.service_of(d->options.arg, service, &rest);
    *ret = (struct dispatch_service_view){
        .policy = o.policy, .rate_per_s = rest.rate_per_s, .rate_here_per_s = rest.rate_per_s * d->share};
    for (size_t i = 0; i < d->groups_count; i++) {
        const struct group *g = d->groups[i];
        if (!g->service || strcmp(endpoints_name(g->service), service) != 0)
            continue;
        ret->in_flight += g->in_flight;
        ret->waiting += g->waiting;
    }
}
