/* The configuration of an agent: one table of options for all sections, filled from file, environment and --set, checked as
 * a whole, with every default in its place. What each option means stands in the table (agent/config_table.c), from which
 * configs/carillon.yaml, `carillon config options` and the README's table are made.
 * Start and reload; a config is read-only otherwise. One thread at a time per config. */
#ifndef CARILLON_AGENT_CONFIG_H
#define CARILLON_AGENT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"
#include "agent/base/option.h"
#include "agent/core/balance.h"
#include "agent/core/job.h"
#include "agent/store/store_mysql.h"
#include "agent/store/store_raft.h"
#include "consul/consul_client.h"

struct store_ops;

enum config_role { CONFIG_ROLE_MEMBER, CONFIG_ROLE_CLIENT };
enum config_mode { CONFIG_MODE_STANDALONE, CONFIG_MODE_CONSUL };

/* Texts are NULL when not given, unless "never NULL". Quantities carry their unit. */
struct config_agent {
    char *name; /* never NULL */
    unsigned role;
    char *zone;
    int64_t weight;
    uint64_t shutdown_grace_ms;
    char *data_dir; /* never NULL */
};

struct config_log {
    unsigned level;        /* enum log_level */
    unsigned format;       /* enum log_format */
    unsigned audit_choice; /* auto, false, true */
    bool audit;            /* effective: auto is true with api.tokens_file */
};

struct config_api {
    struct option_list listen; /* at least one */
    char *socket_mode_text;    /* as given, octal; never NULL */
    unsigned socket_mode;
    struct option_list hosts;
    char *advertise_url; /* NULL: none */
    char *tokens_file;   /* NULL: whoever reaches the API may do everything */
    double rate;         /* requests a second, a client; 0: no limit */
    char *tls_cert, *tls_key, *tls_client_ca;
    uint64_t max_body_bytes, max_bulk_bytes;
    int64_t max_connections;
    uint64_t wait_ms;
    bool ui;
    bool insecure;
};

struct config_ops {
    struct option_list listen; /* may be empty */
};

struct config_app {
    char *service;
    char *address;         /* never NULL */
    int64_t port;          /* 0: not given */
    bool register_service; /* app.register */
    char *health_path;
    char *url; /* http://address:port in standalone mode; NULL: no port */
};

struct config_cluster {
    unsigned mode;
    char *name; /* never NULL */
    int64_t slots;
    char *listen;    /* NULL in consul mode: the address that the Consul agent advertises, CONFIG_PEER_PORT */
    char *advertise; /* NULL: as listen */
    char *secret_file;
    char *tls_ca, *tls_cert, *tls_key, *tls_server_name;
    bool insecure;
};
#define CONFIG_PEER_PORT 7421

struct config_consul {
    char *address, *token_file, *datacenter, *ns;
    char *tls_ca, *tls_cert, *tls_key, *tls_server_name;
    bool tls_skip_verify;
    char *register_as; /* never NULL */
    uint64_t check_ttl_ms, session_ttl_ms;
};

/* Of store.driver raft in consul mode. */
struct config_raft {
    char *listen;           /* NULL: CONFIG_RAFT_PORT of the host of cluster.listen */
    char *advertise;        /* NULL: its port on the host that cluster.advertise or cluster.listen names */
    unsigned voters_choice; /* 3, 5 */
};
#define CONFIG_RAFT_PORT            7422
#define CONFIG_VOTERS(raft_cluster) (3 + 2 * (raft_cluster).voters_choice)

struct config_store {
    char *driver; /* never NULL for a member */
    uint64_t horizon_ms;
    int64_t batch_rows;
    uint64_t batch_delay_ms;
    struct store_mysql_options mysql; /* filled by the drivers' own rows */
    struct store_raft_options raft;   /* its dir is never NULL */
    struct config_raft raft_cluster;
};

struct config_callback {
    int64_t threads, max_in_flight, max_in_flight_per_service, max_in_flight_per_endpoint;
    unsigned allow_loopback_choice; /* auto, false, true */
    bool allow_loopback;            /* effective: auto is true in standalone mode */
    struct option_list allow, deny; /* networks that guard_check_network() knows */
    char *signing_keys_file, *secrets_dir;
    uint64_t timeout_ms;
    int64_t retry_max_attempts; /* 0: no limit */
    double retry_factor, retry_jitter;
    uint64_t retry_min_backoff_ms, retry_max_backoff_ms, retry_max_age_ms;
    unsigned misfire_policy; /* enum job_misfire */
    uint64_t misfire_window_ms;
    unsigned concurrency; /* enum job_concurrency */
};

struct config_endpoint {
    char *address; /* host:port */
    uint32_t weight;
};

struct config_service {
    char *name; /* first, as struct option_group wants */
    struct option_list tag;
    unsigned policy; /* enum balance_policy */
    bool near;
    int64_t max_in_flight, max_in_flight_per_endpoint; /* effective: never 0 */
    int64_t outlier_failures, outlier_error_percent, outlier_min_results;
    uint64_t outlier_window_ms, outlier_base_ms, outlier_max_ms, slow_start_ms;
    double rate; /* a second, over the cluster; 0: no limit */
    char *tls_ca, *tls_cert, *tls_key, *tls_server_name;
    struct config_endpoint *endpoints; /* standalone mode only */
    size_t endpoints_count;
};
#define CONFIG_SERVICES_MAX  1000
#define CONFIG_ENDPOINTS_MAX 1000

struct config {
    struct config_agent agent;
    struct config_log log;
    struct config_api api;
    struct config_ops ops;
    struct config_app app;
    struct config_cluster cluster;
    struct config_consul consul;
    struct config_store store;
    struct config_callback callback;
    struct option_group_items services; /* of struct config_service, by name */
    struct {
        uint64_t min_interval_ms;
        int64_t max_jobs;               /* 0: no limit */
        struct option_list max_jobs_of; /* "NAMESPACE=N", "*=N" */
    } schedule;
    struct {
        int64_t keep;
        uint64_t keep_for_ms;
    } history;
    struct {
        uint64_t every_ms;
    } audit;
    struct {
        uint64_t keep_for_ms;
    } deadletters;
    struct {
        char *otlp_endpoint; /* NULL: none */
        double sample_ratio;
    } telemetry;
};

/* Read FILE (NULL: none), then ENV (as environ; may be NULL), then SETS ("section.key=value"); put effective defaults in;
 * check what options demand of each other and that files they name can be read. ERRORS (initialised to zero; the caller's to
 * fini) gets a line for each problem; the call then fails with ERR_INVALID and the first of them. A file that cannot be read
 * or is no YAML: ERR_NOT_FOUND, ERR_INVALID, ERR_TOO_BIG, ERR_IO, and a line in ERRORS too. ERR_NOMEM. Blocks on files. */
int config_load(const char *file, const char *const *sets, size_t sets_count, const char *const *env,
                struct config **ret, struct option_errors *errors, struct err *e);
/* NULL does nothing. */
void config_free(struct config *c);
DEFINE_AUTO(config_free, struct config *);

/* The table itself, for printing. Static storage. */
const struct option_table *config_table(void);

/* Hash of the effective values that should be alike on all agents of a cluster: all but names, places (listeners, own
 * addresses, folders, zone, weight), files' paths and secrets. Hexadecimal. */
#define CONFIG_DIGEST_SIZE 17
void config_digest(const struct config *c, char ret[CONFIG_DIGEST_SIZE]);

/* --- for those who are given their part ---------------------------------------------------------------------------- */
/* The driver of store.driver; NULL for a client. *RET_OPTIONS is what its open() gets, borrowed from C. */
const struct store_ops *config_store_driver(const struct config *c, const void **ret_options);
/* What jobs get that do not say otherwise. Texts are borrowed from C. */
void config_job_defaults(const struct config *c, struct job_defaults *d);
/* Options of the service NAME's balancer: its entry's, or for a name without entry the defaults. */
void config_balance_options(const struct config *c, const char *name, struct balance_options *ret);
/* The entry of NAME, or NULL. */
const struct config_service *config_service(const struct config *c, const char *name);
/* Consul's section, completed by the CONSUL_HTTP_* variables of ENV (may be NULL). Borrowed from both. */
void config_consul_options(const struct config *c, const char *const *env, struct consul_client_options *ret);
/* Whether the peers' listener may be opened on LISTEN ("host:port"): one that is not loopback needs cluster.secret_file,
 * cluster.tls_* or cluster.insecure. config_load() asks for cluster.listen; ask again for an address learned from Consul.
 * ERR_INVALID. */
int config_check_peer_listen(const struct config *c, const char *listen, struct err *e);
/* Whether jobs are kept in a log that several agents share. */
bool config_is_raft_cluster(const struct config *c);
/* "127.x.y.z:port", "[::1]:port", "localhost:port", "unix:/path". */
bool config_is_loopback(const char *listen);
/* The same of a host of LEN bytes, without port and brackets. */
bool config_is_loopback_host(const char *host, size_t len);

/* --- reload -------------------------------------------------------------------------------------------------------- */
/* Call FN for each option that differs. APPLIED: a reload takes it over; else it waits for a restart. KEY is valid during the
 * call ("services.billing" for an entry that came or went, "services.billing.endpoints"). */
typedef void config_diff_fn(void *arg, const char *key, bool applied);
void config_diff(const struct config *now, const struct config *next, config_diff_fn *fn, void *arg);
/* Exchange the values that a reload takes over between the two: NOW gets NEXT's. Texts that were borrowed from NOW's
 * reloadable options live until NEXT is freed. */
void config_apply(struct config *now, struct config *next);
/* What is in force once NEXT was read: START with the values of NEXT that a reload takes over, in a struct of its own, so that
 * threads may go on reading what was in force before. It borrows from both. For mem_free(). */
struct config *config_merge(const struct config *start, const struct config *next);

#endif
