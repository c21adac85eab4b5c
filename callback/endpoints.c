#include "callback/endpoints.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/buf.h"
#include "agent/base/list.h"
#include "agent/base/log.h"
#include "agent/base/map.h"
#include "agent/base/text.h"
#include "agent/io/loop.h"

#define KEY_MAX       512
#define SWEEP_MS      30000
#define TAGS_MAX      64
#define TEXT_MAX      ((size_t)64 << 20) /* of one service's addresses and tags */
#define RANK_FARTHEST 2

static const struct log_ctx log_here = {.module = "endpoints"};

struct instance {
    size_t address_at; /* in the list's text, like the tags */
    size_t tags_at;    /* "a\0b\0" */
    uint32_t tags_count;
    size_t node_at; /* "": not known */
    uint32_t weight;
    bool same_zone;
    uint8_t rank;
};

struct instances {
    struct instance *items;
    size_t count;
    struct buf text;
};

struct endpoints_service {
    struct endpoints *table;
    char *key; /* service NUL datacenter */
    size_t key_bytes;
    const char *datacenter; /* inside key */
    struct instances list;
    bool heard;
    bool is_static;
    unsigned users;
    int64_t used_ms;
};

struct endpoints {
    struct endpoints_options options;
    char *node, *zone;
    struct map services;
    struct loop_timer *sweep;
    void (*changed)(void *arg, struct endpoints_service *s);
    void *changed_arg;
};

static void instances_fini(struct instances *l)
{
    mem_free(l->items);
    buf_fini(&l->text);
}

static void service_free(struct endpoints_service *s)
{
    (void)map_remove(&s->table->services, s->key, s->key_bytes); /* it is there, or was never put */
    instances_fini(&s->list);
    mem_free(s->key);
    mem_free(s);
}

static void give_up(struct endpoints_service *s)
{
    const struct endpoints_options *o = &s->table->options;
    log_debug(&log_here, "nobody needs this service", "service=%s", LOGQ(s->key));
    if (o->unwant && !s->is_static)
        o->unwant(o->arg, s->key, s->datacenter);
    service_free(s);
}

static void sweep(void *arg)
{
    struct endpoints *t = arg;
    int64_t now_ms = loop_now_ms(t->options.loop);
    for (struct map_iter it = {0}; map_next(&t->services, &it);) {
        struct endpoints_service *s = it.value;
        if (s->users == 0 && !s->is_static && now_ms - s->used_ms >= t->options.idle_ms)
            give_up(s);
    }
    loop_timer_arm(t->sweep, t->options.idle_ms < SWEEP_MS ? t->options.idle_ms : SWEEP_MS);
}

struct endpoints *endpoints_new(const struct endpoints_options *options)
{
    struct endpoints *t = mem_new(struct endpoints);
    t->options = *options;
    if (t->options.idle_ms <= 0)
        t->options.idle_ms = ENDPOINTS_IDLE_MS;
    t->node = mem_strdup(options->node);
    t->zone = mem_strdup(options->zone);
    map_init(&t->services, options->seed);
    t->sweep = loop_timer_new(options->loop, sweep, t);
    sweep(t);
    return t;
}

void endpoints_free(struct endpoints *t)
{
    if (!t)
        return;
    for (struct map_iter it = {0}; map_next(&t->services, &it);) {
        struct endpoints_service *s = it.value;
        assert(s->users == 0);
        service_free(s);
    }
    map_fini(&t->services);
    loop_timer_free(t->sweep);
    mem_free(t->node);
    mem_free(t->zone);
    mem_free(t);
}

/* --- the table ----------------------------------------------------------------------------------------------------- */

struct key {
    char text[KEY_MAX];
    size_t bytes, datacenter_at;
};

/* false: longer than any service Consul knows. */
static bool make_key(const struct endpoints *t, const char *service, const char *datacenter, struct key *k)
{
    const char *dc = datacenter && t->options.want ? datacenter : "";
    size_t service_bytes = strlen(service) + 1, dc_bytes = strlen(dc) + 1;
    if (service_bytes + dc_bytes > sizeof(k->text))
        return false;
    memcpy(k->text, service, service_bytes);
    memcpy(k->text + service_bytes, dc, dc_bytes);
    k->bytes = service_bytes + dc_bytes;
    k->datacenter_at = service_bytes;
    return true;
}

static struct endpoints_service *find(const struct endpoints *t, const char *service, const char *datacenter)
{
    struct key k;
    return make_key(t, service, datacenter, &k) ? map_get(&t->services, k.text, k.bytes) : NULL;
}

/* Room for one more: the unused one that was needed least recently goes. */
static bool make_room(struct endpoints *t)
{
    struct endpoints_service *oldest = NULL;
    if (map_count(&t->services) < ENDPOINTS_SERVICES_MAX)
        return true;
    for (struct map_iter it = {0}; map_next(&t->services, &it);) {
        struct endpoints_service *s = it.value;
        if (s->users == 0 && !s->is_static && (!oldest || s->used_ms < oldest->used_ms))
            oldest = s;
    }
    if (oldest)
        give_up(oldest);
    return oldest != NULL;
}

static struct endpoints_service *add(struct endpoints *t, const char *service, const char *datacenter)
{
    struct key k;
    if (!make_key(t, service, datacenter, &k) || !make_room(t))
        return NULL;
    struct endpoints_service *s = mem_new(struct endpoints_service);
    s->table = t;
    s->key = mem_new_array(char, k.bytes);
    memcpy(s->key, k.text, k.bytes);
    s->key_bytes = k.bytes;
    s->datacenter = s->key + k.datacenter_at;
    s->used_ms = loop_now_ms(t->options.loop);
    buf_init(&s->list.text, TEXT_MAX);
    if (map_put(&t->services, s->key, s->key_bytes, s, NULL, NULL) < 0) {
        service_free(s);
        return NULL;
    }
    return s;
}

/* --- lists --------------------------------------------------------------------------------------------------------- */

static bool is_own(const char *own, const char *other)
{
    return own && other && own[0] && strcmp(own, other) == 0;
}

static uint8_t rank_of(const struct endpoints *t, const struct instances *l, const struct instance *item)
{
    if (is_own(t->node, l->text.data + item->node_at))
        return 0;
    return item->same_zone ? 1 : RANK_FARTHEST;
}

/* What names an instance comes from outside: it must be an address before it is put into a request. */
static bool print_address(const struct endpoints_instance *in, char *out, size_t size)
{
    const char *form = in->host && strchr(in->host, ':') ? "[%s]:%u" : "%s:%u";
    if (!in->host || in->host[0] == '\0')
        return false;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* one of the two above */
    int n = snprintf(out, size, form, in->host, in->port);
#pragma GCC diagnostic pop
    return n > 0 && (size_t)n < size && text_host_port(out, (size_t)n, false, NULL, NULL, NULL, NULL) == 0;
}

static void add_instance(const struct endpoints *t, struct instances *l, const struct endpoints_instance *in)
{
    char address[ENDPOINTS_ADDRESS_SIZE];
    struct instance *item = &l->items[l->count];
    if (!print_address(in, address, sizeof(address)))
        return;
    item->weight = in->weight;
    item->same_zone = is_own(t->zone, in->zone);
    item->node_at = l->text.len;
    buf_add_str(&l->text, in->node ? in->node : "");
    buf_add_char(&l->text, '\0');
    item->address_at = l->text.len;
    buf_add(&l->text, address, strlen(address) + 1);
    item->tags_at = l->text.len;
    for (; in->tags && item->tags_count < TAGS_MAX && in->tags[item->tags_count]; item->tags_count++)
        buf_add(&l->text, in->tags[item->tags_count], strlen(in->tags[item->tags_count]) + 1);
    l->count++;
}

static int read_list(const struct endpoints *t, const struct endpoints_instance *list, size_t count,
                     struct instances *ret, struct err *e)
{
    struct instances l = {.text = BUF_INIT(TEXT_MAX)};
    if (count > ENDPOINTS_INSTANCES_MAX)
        count = ENDPOINTS_INSTANCES_MAX;
    l.items = mem_try_array(count, sizeof(*l.items), e);
    if (!l.items)
        return -ERR_NOMEM;
    for (size_t i = 0; i < count; i++)
        add_instance(t, &l, &list[i]);
    int rc = buf_check(&l.text, e);
    if (rc < 0) {
        instances_fini(&l);
        return rc;
    }
    for (size_t i = 0; i < l.count; i++)
        l.items[i].rank = rank_of(t, &l, &l.items[i]);
    *ret = l;
    return 0;
}

static int set_list(struct endpoints_service *s, const struct endpoints_instance *list, size_t count,
                    struct err *e)
{
    struct endpoints *t = s->table;
    struct instances fresh;
    int rc = read_list(t, list, count, &fresh, e);
    if (rc < 0)
        return err_wrap(e, "endpoints of '%s'", s->key);
    instances_fini(&s->list);
    s->list = fresh;
    s->heard = true;
    if (t->changed)
        t->changed(t->changed_arg, s);
    return 0;
}

int endpoints_update(struct endpoints *t, const char *service, const char *datacenter,
                     const struct endpoints_instance *list, size_t count, struct err *e)
{
    struct endpoints_service *s = find(t, service, datacenter);
    return s && !s->is_static ? set_list(s, list, count, e) : 0;
}

int endpoints_set_static(struct endpoints *t, const char *service, const struct endpoints_instance *list,
                         size_t count, struct err *e)
{
    assert(!t->options.want);
    struct endpoints_service *s = find(t, service, "");
    if (!s && count == 0)
        return 0;
    if (!s && !(s = add(t, service, "")))
        return err_set(e, ERR_BUSY, "more than %d services, or a name of over %d bytes",
                       ENDPOINTS_SERVICES_MAX, KEY_MAX - 2);
    int rc = set_list(s, list, count, e);
    if (rc == 0)
        s->is_static = count > 0;
    return rc;
}

void endpoints_set_node(struct endpoints *t, const char *node)
{
    mem_free(t->node);
    t->node = mem_strdup(node);
    for (struct map_iter it = {0}; map_next(&t->services, &it);) {
        struct endpoints_service *s = it.value;
        for (size_t i = 0; i < s->list.count; i++)
            s->list.items[i].rank = rank_of(t, &s->list, &s->list.items[i]);
        if (t->changed && s->list.count > 0)
            t->changed(t->changed_arg, s);
    }
}

enum endpoints_state endpoints_state(const struct endpoints *t, const char *service, const char *datacenter)
{
    const struct endpoints_service *s = find(t, service, datacenter);
    if (!t->options.want)
        return s && s->list.count > 0 ? ENDPOINTS_SOME : ENDPOINTS_NONE;
    if (!s || !s->heard)
        return ENDPOINTS_UNHEARD;
    return s->list.count > 0 ? ENDPOINTS_SOME : ENDPOINTS_NONE;
}

/* --- users --------------------------------------------------------------------------------------------------------- */

struct endpoints_service *endpoints_use(struct endpoints *t, const char *service, const char *datacenter)
{
    struct endpoints_service *s = find(t, service, datacenter);
    if (!s) {
        s = add(t, service, datacenter);
        if (!s)
            return NULL;
        if (t->options.want)
            t->options.want(t->options.arg, s->key, s->datacenter);
        else
            s->heard = true;
    }
    s->users++;
    s->used_ms = loop_now_ms(t->options.loop);
    return s;
}

void endpoints_release(struct endpoints_service *s)
{
    assert(s->users > 0);
    s->users--;
}

void endpoints_touch(struct endpoints_service *s)
{
    s->used_ms = loop_now_ms(s->table->options.loop);
}

const char *endpoints_name(const struct endpoints_service *s)
{
    return s->key;
}

const char *endpoints_datacenter(const struct endpoints_service *s)
{
    return s->datacenter;
}

bool endpoints_heard(const struct endpoints_service *s)
{
    return s->heard;
}

static bool has_tag(const struct instances *l, const struct instance *item, const char *tag)
{
    const char *have = l->text.data + item->tags_at;
    for (uint32_t i = 0; i < item->tags_count; i++, have += strlen(have) + 1)
        if (strcmp(have, tag) == 0)
            return true;
    return false;
}

static bool has_all(const struct instances *l, const struct instance *item, const char *const *tags,
                    size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!has_tag(l, item, tags[i]))
            return false;
    return true;
}

bool endpoints_next(const struct endpoints_service *s, const char *const *tags, size_t tags_count, size_t *at,
                    struct endpoints_view *ret)
{
    while (*at < s->list.count) {
        const struct instance *item = &s->list.items[(*at)++];
        if (!has_all(&s->list, item, tags, tags_count))
            continue;
        *ret = (struct endpoints_view){
            .address = s->list.text.data + item->address_at, .weight = item->weight, .rank = item->rank};
        return true;
    }
    return false;
}

void endpoints_listen(struct endpoints *t, void (*changed)(void *arg, struct endpoints_service *s), void *arg)
{
    t->changed = changed;
    t->changed_arg = arg;
}

size_t endpoints_count(const struct endpoints *t)
{
    return map_count(&t->services);
}
