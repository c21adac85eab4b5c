/* What no single row can say: effective defaults, and what options demand of each other. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/base/text.h"
#include "agent/config_private.h"
#include "agent/io/file.h"
#include "agent/store/store.h"
#include "agent/tokens.h"
#include "callback/secrets.h"
#include "callback/sign.h"

/* --- effective defaults -------------------------------------------------------------------------------------------- */

/* Fill an empty *FIELD, which option_fini() frees later. */
static int default_text(char **field, const char *text, struct err *e)
{
    if (*field)
        return 0;
    *field = mem_try_strndup(text, strlen(text), e);
    return *field ? 0 : err_wrap(e, "configuration");
}

static int default_name(struct config *c, struct err *e)
{
    char host[256];
    if (c->agent.name)
        return 0;
    if (gethostname(host, sizeof(host)) != 0 || host[0] == '\0')
        return default_text(&c->agent.name, "carillon", e);
    host[sizeof(host) - 1] = '\0';
    host[63] = '\0'; /* as long as agent.name may be */
    for (char *p = host; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *p))
            *p = '-';
    return default_text(&c->agent.name, host, e);
}

static int default_driver(struct config *c, struct err *e)
{
    size_t count;
    if (c->cluster.mode == CONFIG_MODE_CONSUL)
        return 0; /* must be given: config_check() */
    return default_text(&c->store.driver, config_drivers(&count)[0].ops->name, e);
}

static int default_raft_dir(struct config *c, struct err *e)
{
    if (c->store.raft.dir)
        return 0;
    AUTO(buf_fini) struct buf dir = BUF_INIT(4200);
    buf_addf(&dir, "%s/raft", c->agent.data_dir);
    c->store.raft.dir = buf_steal(&dir, NULL, e);
    return c->store.raft.dir ? 0 : err_wrap(e, "agent.data_dir");
}

static int make_app_url(struct config *c, struct err *e)
{
    if (c->cluster.mode == CONFIG_MODE_CONSUL || c->app.port == 0)
        return 0;
    bool bare_ipv6 = strchr(c->app.address, ':') && c->app.address[0] != '[';
    AUTO(buf_fini) struct buf url = BUF_INIT(512);
    buf_addf(&url, "http://%s%s%s:%lld", bare_ipv6 ? "[" : "", c->app.address, bare_ipv6 ? "]" : "",
             (long long)c->app.port);
    c->app.url = buf_steal(&url, NULL, e);
    return c->app.url ? 0 : err_wrap(e, "app.address");
}

int config_finish(struct config *c, struct err *e)
{
    int r = default_name(c, e);
    if (r == 0)
        r = default_driver(c, e);
    if (r == 0)
        r = default_raft_dir(c, e);
    if (r == 0)
        r = make_app_url(c, e);
    c->api.socket_mode = (unsigned)strtoul(c->api.socket_mode_text, NULL, 8); /* checked by its row */
    c->callback.allow_loopback = c->callback.allow_loopback_choice == CONFIG_LOOPBACK_AUTO
                                     ? c->cluster.mode == CONFIG_MODE_STANDALONE
                                     : c->callback.allow_loopback_choice == CONFIG_LOOPBACK_TRUE;
    c->log.audit = c->log.audit_choice == CONFIG_LOOPBACK_AUTO ? c->api.tokens_file != NULL
                                                               : c->log.audit_choice == CONFIG_LOOPBACK_TRUE;
    for (size_t i = 0; i < c->services.count; i++) {
        struct config_service *s = c->services.items[i];
        if (s->max_in_flight == 0)
            s->max_in_flight = c->callback.max_in_flight_per_service;
        if (s->max_in_flight_per_endpoint == 0)
            s->max_in_flight_per_endpoint = c->callback.max_in_flight_per_endpoint;
    }
    return r;
}

/* --- what options demand of each other ------------------------------------------------------------------------------ */

struct check {
    const struct config *c;
    const struct yaml_tree *file;
    struct option_errors *errors;
    struct err *e;
    int r; /* 0, or -ERR_NOMEM, and then nothing more is checked */
};

/* The line of KEY in the file; 0 when it does not stand there. */
static unsigned line_of(const struct yaml_tree *file, const char *key)
{
    const struct yaml_node *n = file ? yaml_tree_root(file) : NULL;
    char part[128];
    while (n) {
        size_t len = strcspn(key, ".");
        if (len >= sizeof(part))
            return 0;
        (void)snprintf(part, sizeof(part), "%.*s", (int)len, key); /* measured */
        n = yaml_node_get(n, part);
        if (key[len] == '\0')
            return n ? n->line : 0;
        key += len + 1;
    }
    return 0;
}

static void problem(struct check *k, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void problem(struct check *k, const char *key, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap); /* cut when too long */
    va_end(ap);
    if (k->r < 0)
        return;
    unsigned line = line_of(k->file, key);
    if (line > 0)
        k->r = option_error_add(k->errors, k->e, "%s:%u: %s: %s", yaml_tree_name(k->file), line, key, text);
    else
        k->r = option_error_add(k->errors, k->e, "configuration: %s: %s", key, text);
}

/* A secret or PEM file that could not be read later would be found out by a user's request; so it is looked at now. */
static void check_readable(struct check *k, const char *key, const char *path)
{
    AUTO(buf_fini) struct buf text = BUF_INIT(FILE_SECRET_MAX * 16);
    struct err why;
    int r = path ? file_read(path, &text, &why) : 0;
    if (r == -ERR_NOMEM)
        k->r = err_set(k->e, ERR_NOMEM, "%s", why.text);
    else if (r < 0)
        problem(k, key, "%s", why.text);
}

static void check_secret(struct check *k, const char *key, const char *path)
{
    char *secret = NULL;
    size_t len = 0;
    struct err why;
    int r = path ? file_read_secret(path, &secret, &len, &why) : 0;
    if (r == -ERR_NOMEM)
        k->r = err_set(k->e, ERR_NOMEM, "%s", why.text);
    else if (r < 0)
        problem(k, key, "%s", why.text);
    mem_free_secret(secret, len);
}

/* A certificate needs its key and the other way round. */
static void check_pair(struct check *k, const char *cert_key, const char *cert, const char *key_key,
                       const char *key)
{
    if (cert && !key)
        problem(k, cert_key, "needs %s as well", key_key);
    if (key && !cert)
        problem(k, key_key, "needs %s as well", cert_key);
    check_readable(k, cert_key, cert);
    check_secret(k, key_key, key);
}

static void check_loaded(struct check *k, const char *key, int rc, const struct err *why);

static void check_tokens(struct check *k)
{
    AUTO(tokens_unref) struct tokens *tokens = NULL;
    struct err why = {0};
    if (k->c->api.tokens_file)
        check_loaded(k, "api.tokens_file", tokens_load(k->c->api.tokens_file, &tokens, &why), &why);
}

static void check_api(struct check *k)
{
    const struct config_api *api = &k->c->api;
    check_pair(k, "api.tls_cert", api->tls_cert, "api.tls_key", api->tls_key);
    check_readable(k, "api.tls_client_ca", api->tls_client_ca);
    if (api->tls_client_ca && !api->tls_cert)
        problem(k, "api.tls_client_ca", "needs api.tls_cert and api.tls_key as well");
    for (size_t i = 0; i < api->listen.count; i++)
        if (!config_is_loopback(api->listen.items[i]) && !api->tokens_file && !api->tls_client_ca &&
            !api->insecure)
            problem(
                k, "api.listen",
                "%s is not loopback: give api.tokens_file or api.tls_client_ca (with api.tls_cert and api.tls_key), "
                "or set api.insecure: true if whoever reaches it may do everything",
                api->listen.items[i]);
    check_tokens(k);
    if (api->max_bulk_bytes < api->max_body_bytes)
        problem(k, "api.max_bulk", "must not be less than api.max_body");
}

int config_check_peer_listen(const struct config *c, const char *listen, struct err *e)
{
    const struct config_cluster *cluster = &c->cluster;
    if (config_is_loopback(listen) || cluster->secret_file || cluster->tls_ca || cluster->insecure)
        return 0;
    return err_set(e, ERR_INVALID,
                   "%s is not loopback: give cluster.secret_file or cluster.tls_*, or set cluster.insecure",
                   TEXTQ(listen, strlen(listen)));
}

static void check_cluster(struct check *k)
{
    const struct config_cluster *cluster = &k->c->cluster;
    struct err why;
    check_secret(k, "cluster.secret_file", cluster->secret_file);
    check_pair(k, "cluster.tls_cert", cluster->tls_cert, "cluster.tls_key", cluster->tls_key);
    check_readable(k, "cluster.tls_ca", cluster->tls_ca);
    if (!cluster->tls_ca != !cluster->tls_cert)
        problem(k, cluster->tls_ca ? "cluster.tls_ca" : "cluster.tls_cert",
                "cluster.tls_ca, cluster.tls_cert and cluster.tls_key go together");
    if (cluster->tls_server_name && !cluster->tls_cert)
        problem(k, "cluster.tls_server_name",
                "needs cluster.tls_ca, cluster.tls_cert and cluster.tls_key as well");
    if (cluster->mode == CONFIG_MODE_STANDALONE) {
        if (cluster->listen)
            problem(k, "cluster.listen",
                    "a standalone agent has no peers; set cluster.mode: consul or take it out");
        if (k->c->agent.role == CONFIG_ROLE_CLIENT)
            problem(k, "agent.role", "a client needs members: set cluster.mode: consul");
        return;
    }
    if (cluster->listen && config_check_peer_listen(k->c, cluster->listen, &why) < 0)
        problem(k, "cluster.listen", "%s", why.text);
    if (!k->c->store.driver && k->c->agent.role == CONFIG_ROLE_MEMBER)
        problem(k, "store.driver", "must be given when cluster.mode is consul");
}

static void check_consul(struct check *k)
{
    const struct config_consul *consul = &k->c->consul;
    check_secret(k, "consul.token_file", consul->token_file);
    check_readable(k, "consul.tls_ca", consul->tls_ca);
    check_pair(k, "consul.tls_cert", consul->tls_cert, "consul.tls_key", consul->tls_key);
}

static void check_app(struct check *k)
{
    const struct config_app *app = &k->c->app;
    if (app->register_service && k->c->cluster.mode == CONFIG_MODE_STANDALONE)
        problem(k, "app.register", "there is no Consul in standalone mode; set cluster.mode: consul");
    if (app->register_service && !app->service)
        problem(k, "app.register", "needs app.service");
    if (app->register_service && app->port == 0)
        problem(k, "app.register", "needs app.port");
    if (app->health_path && !app->register_service)
        problem(k, "app.health_path", "is used with app.register: true only");
}

static void check_raft(struct check *k)
{
    const struct config_raft *raft = &k->c->store.raft_cluster;
    struct err why;
    if (config_is_raft_cluster(k->c)) {
        if (raft->listen && config_check_peer_listen(k->c, raft->listen, &why) < 0)
            problem(k, "store.raft.listen", "%s", why.text);
        return;
    }
    if (raft->listen)
        problem(k, "store.raft.listen",
                "there are other voters only with store.driver: raft and cluster.mode: consul");
    if (raft->advertise)
        problem(k, "store.raft.advertise",
                "there are other voters only with store.driver: raft and cluster.mode: consul");
}

static void check_store(struct check *k)
{
    const struct store_mysql_options *m = &k->c->store.mysql;
    const char *driver = k->c->store.driver;
    check_raft(k);
    if (!driver || strcmp(driver, store_mysql.name) != 0)
        return;
    check_secret(k, "store.mysql.password_file", m->password_file);
    check_readable(k, "store.mysql.tls_ca", m->tls_ca);
    check_pair(k, "store.mysql.tls_cert", m->tls_cert, "store.mysql.tls_key", m->tls_key);
}

/* The result of reading what KEY names. */
static void check_loaded(struct check *k, const char *key, int rc, const struct err *why)
{
    if (rc == -ERR_NOMEM)
        k->r = err_set(k->e, ERR_NOMEM, "%s", why->text);
    else if (rc < 0)
        problem(k, key, "%s", why->text);
}

static void check_signing(struct check *k)
{
    AUTO(sign_keys_unref) struct sign_keys *keys = NULL;
    AUTO(secrets_unref) struct secrets *secrets = NULL;
    const struct config_callback *cb = &k->c->callback;
    struct err why = {0};
    if (cb->signing_keys_file)
        check_loaded(k, "callback.signing_keys_file", sign_keys_load(cb->signing_keys_file, &keys, &why),
                     &why);
    if (cb->secrets_dir)
        check_loaded(k, "callback.secrets_dir", secrets_load(cb->secrets_dir, &secrets, &why), &why);
}

static void check_callback(struct check *k)
{
    const struct config_callback *cb = &k->c->callback;
    if (cb->retry_max_backoff_ms < cb->retry_min_backoff_ms)
        problem(k, "callback.retry.max_backoff", "must not be shorter than callback.retry.min_backoff");
}

/* "services.<name>.<key>"; names have up to 63 bytes. */
#define SERVICE_KEY_SIZE 100
static const char *service_key(char key[SERVICE_KEY_SIZE], const struct config_service *s, const char *option)
{
    (void)snprintf(key, SERVICE_KEY_SIZE, "services.%s.%s", s->name, option); /* fits, see above */
    return key;
}

static void check_service(struct check *k, const struct config_service *s)
{
    char key[SERVICE_KEY_SIZE], other[SERVICE_KEY_SIZE];
    bool consul = k->c->cluster.mode == CONFIG_MODE_CONSUL;
    if (s->outlier_max_ms < s->outlier_base_ms)
        problem(k, service_key(key, s, "outlier.max"), "must not be shorter than outlier.base");
    if (s->endpoints_count > 0 && consul)
        problem(k, service_key(key, s, "endpoints"),
                "endpoints come from Consul when cluster.mode is consul");
    if (s->tag.count > 0 && !consul)
        problem(k, service_key(key, s, "tag"), "endpoints have tags only when cluster.mode is consul");
    check_readable(k, service_key(key, s, "tls_ca"), s->tls_ca);
    check_pair(k, service_key(key, s, "tls_cert"), s->tls_cert, service_key(other, s, "tls_key"), s->tls_key);
}

static void check_services(struct check *k)
{
    for (size_t i = 0; i < k->c->services.count; i++)
        check_service(k, k->c->services.items[i]);
}

int config_check(const struct config *c, const struct yaml_tree *file, struct option_errors *errors,
                 struct err *e)
{
    struct check k = {.c = c, .file = file, .errors = errors, .e = e};
    check_api(&k);
    check_app(&k);
    check_cluster(&k);
    if (c->cluster.mode == CONFIG_MODE_CONSUL)
        check_consul(&k);
    if (c->agent.role == CONFIG_ROLE_MEMBER)
        check_store(&k);
    check_callback(&k);
    check_signing(&k);
    check_services(&k);
    return k.r;
}
