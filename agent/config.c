#define _GNU_SOURCE
#include "agent/config.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "agent/base/text.h"
#include "agent/config_private.h"
#include "agent/io/file.h"
#include "agent/store/store.h"

/* --- loading ------------------------------------------------------------------------------------------------------- */

/* The file as a tree; *RET stays NULL when none was given. */
static int read_tree(const char *file, struct yaml_tree **ret, struct err *e)
{
    if (!file)
        return 0;
    AUTO(buf_fini) struct buf text = BUF_INIT(YAML_TREE_SIZE_MAX);
    int r = file_read(file, &text, e);
    if (r < 0)
        return err_wrap(e, "configuration");
    return yaml_tree_read(file, buf_str(&text), text.len, ret, e);
}

/* The result of a load that found problems: the first of them. */
static int first_error(const struct option_errors *errors, struct err *e)
{
    size_t count = errors->lines.count + errors->dropped;
    if (count == 1)
        return err_set(e, ERR_INVALID, "%s", errors->lines.items[0]);
    return err_set(e, ERR_INVALID, "%zu errors, the first: %s", count, errors->lines.items[0]);
}

int config_load(const char *file, const char *const *sets, size_t sets_count, const char *const *env,
                struct config **ret, struct option_errors *errors, struct err *e)
{
    struct err own;
    AUTO(yaml_tree_free) struct yaml_tree *tree = NULL;
    int r = read_tree(file, &tree, &own);
    if (r < 0) {
        (void)option_error_add(errors, NULL, "%s", own.text); /* the result says it too */
        return err_set(e, own.code, "%s", own.text);
    }
    AUTO(mem_free) struct config *raw = mem_try_alloc(sizeof(*raw), e);
    if (!raw)
        return err_wrap(e, "configuration");
    struct option_sources sources = {.file = tree, .env = env, .sets = sets, .sets_count = sets_count};
    r = option_fill(config_table(), &sources, raw, errors, e);
    if (r < 0)
        return r;
    AUTO(config_free) struct config *c = TAKE(raw);
    r = config_finish(c, e);
    if (r == 0)
        r = config_check(c, tree, errors, e);
    if (r < 0)
        return r;
    if (errors->lines.count > 0)
        return first_error(errors, e);
    *ret = TAKE(c);
    return 0;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    mem_free(c->app.url);
    option_fini(config_table(), c);
    mem_free(c);
}

/* --- parts --------------------------------------------------------------------------------------------------------- */

bool config_is_raft_cluster(const struct config *c)
{
    return c->cluster.mode == CONFIG_MODE_CONSUL && c->agent.role == CONFIG_ROLE_MEMBER && c->store.driver &&
           strcmp(c->store.driver, store_raft.name) == 0;
}

const struct store_ops *config_store_driver(const struct config *c, const void **ret_options)
{
    size_t count;
    const struct config_driver *drivers = config_drivers(&count);
    for (size_t i = 0; c->store.driver && i < count; i++) {
        if (strcmp(drivers[i].ops->name, c->store.driver) != 0)
            continue;
        *ret_options = (const char *)c + drivers[i].offset;
        return drivers[i].ops;
    }
    return NULL;
}

void config_job_defaults(const struct config *c, struct job_defaults *d)
{
    const struct config_callback *cb = &c->callback;
    bool consul = c->cluster.mode == CONFIG_MODE_CONSUL;
    job_defaults_init(d);
    d->timeout_ms = (int64_t)cb->timeout_ms;
    d->retry = (struct retry_rule){
        .max_attempts = (uint32_t)cb->retry_max_attempts,
        .min_backoff_ms = cb->retry_min_backoff_ms,
        .max_backoff_ms = cb->retry_max_backoff_ms,
        .factor = cb->retry_factor,
        .jitter = cb->retry_jitter,
        .max_age_ms = cb->retry_max_age_ms,
    };
    d->misfire = cb->misfire_policy;
    d->misfire_window_ms = (int64_t)cb->misfire_window_ms;
    d->concurrency = cb->concurrency;
    d->min_interval_ms = (int64_t)c->schedule.min_interval_ms;
    d->app_service = consul ? c->app.service : NULL;
    d->app_url = c->app.url;
    d->allow_loopback = cb->allow_loopback;
}

const struct config_service *config_service(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->services.count; i++) {
        const struct config_service *s = c->services.items[i];
        if (strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

void config_balance_options(const struct config *c, const char *name, struct balance_options *ret)
{
    const struct config_service *s = config_service(c, name);
    struct balance_options o = balance_options_default();
    o.in_flight_max = (uint32_t)(s ? s->max_in_flight : c->callback.max_in_flight_per_service);
    o.endpoint_in_flight_max =
        (uint32_t)(s ? s->max_in_flight_per_endpoint : c->callback.max_in_flight_per_endpoint);
    if (s) {
        o.policy = s->policy;
        o.near = s->near;
        o.failures_in_a_row = (uint32_t)s->outlier_failures;
        o.error_percent = (uint32_t)s->outlier_error_percent;
        o.error_window_ms = (uint32_t)s->outlier_window_ms;
        o.error_min_results = (uint32_t)s->outlier_min_results;
        o.eject_base_ms = (uint32_t)s->outlier_base_ms;
        o.eject_max_ms = (uint32_t)s->outlier_max_ms;
        o.slow_start_ms = (uint32_t)s->slow_start_ms;
    }
    *ret = o;
}

void config_consul_options(const struct config *c, const char *const *env, struct consul_client_options *ret)
{
    const struct config_consul *from = &c->consul;
    struct consul_client_options o = {
        .address = from->address,
        .token_file = from->token_file,
        .datacenter = from->datacenter,
        .ns = from->ns,
        .tls_ca = from->tls_ca,
        .tls_cert = from->tls_cert,
        .tls_key = from->tls_key,
        .tls_server_name = from->tls_server_name,
        .tls_skip_verify = from->tls_skip_verify,
    };
    if (env)
        consul_options_from_env(&o, env);
    *ret = o;
}

bool config_is_loopback_host(const char *host, size_t len)
{
    if ((len == 9 && strncasecmp(host, "localhost", len) == 0) || (len == 3 && memcmp(host, "::1", len) == 0))
        return true;
    /* A name may begin with "127." as well; only numbers make it an address. */
    return len > 4 && memcmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") >= len;
}

bool config_is_loopback(const char *listen)
{
    size_t at, len;
    if (strncmp(listen, "unix:", 5) == 0)
        return true;
    return text_host_port(listen, strlen(listen), true, &at, &len, NULL, NULL) == 0 &&
           config_is_loopback_host(listen + at, len);
}

/* --- digest -------------------------------------------------------------------------------------------------------- */

static void digest_rows(const struct option_row *rows, const void *config, struct buf *out)
{
    for (; rows->key; rows++) {
        if (rows->flags & (OPTION_SECRET | CONFIG_PLACE))
            continue;
        buf_addf(out, "%s=", rows->key);
        option_print_value(rows, config, out);
        buf_add_char(out, '\n');
    }
}

void config_digest(const struct config *c, char ret[CONFIG_DIGEST_SIZE])
{
    const struct option_table *t = config_table();
    AUTO(buf_fini) struct buf text = BUF_INIT(MEM_TRY_MAX_BYTES / 2);
    digest_rows(t->rows, c, &text);
    for (size_t i = 0; i < c->services.count; i++) {
        const struct config_service *s = c->services.items[i];
        buf_addf(&text, "services.%s\n", s->name);
        digest_rows(t->groups[0].rows, s, &text);
        for (size_t j = 0; j < s->endpoints_count; j++)
            buf_addf(&text, "%s %u\n", s->endpoints[j].address, s->endpoints[j].weight);
    }
    (void)snprintf(ret, CONFIG_DIGEST_SIZE, "%016llx",
                   (unsigned long long)XXH3_64bits(buf_str(&text), text.len)); /* 16 digits fit */
}

/* --- reload -------------------------------------------------------------------------------------------------------- */

struct diff {
    config_diff_fn *fn;
    void *arg;
};

static void note_diff(void *arg, const char *key, const struct option_row *row)
{
    const struct diff *d = arg;
    d->fn(d->arg, key, !row || (row->flags & OPTION_RELOAD)); /* no row: a service came or went */
}

void config_diff(const struct config *now, const struct config *next, config_diff_fn *fn, void *arg)
{
    struct diff d = {fn, arg};
    option_diff(config_table(), now, next, note_diff, &d);
    for (size_t i = 0; i < now->services.count; i++) {
        const struct config_service *a = now->services.items[i], *b = config_service(next, a->name);
        char key[100];
        if (!b || config_endpoints_equal(a, b))
            continue;
        (void)snprintf(key, sizeof(key), "services.%s.endpoints", a->name); /* names have up to 63 bytes */
        fn(arg, key, true);
    }
}

void config_apply(struct config *now, struct config *next)
{
    for (const struct option_row *row = config_table()->rows; row->key; row++)
        if (row->flags & OPTION_RELOAD)
            option_swap(row, now, next);
    struct option_group_items services = now->services;
    now->services = next->services;
    next->services = services;
    now->callback.allow_loopback = next->callback.allow_loopback;
    now->log.audit = next->log.audit;
}

struct config *config_merge(const struct config *start, const struct config *next)
{
    struct config *merged = mem_new(struct config), theirs = *next;
    *merged = *start;
    config_apply(merged, &theirs);
    return merged;
}
