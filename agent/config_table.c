/* The table of options. The order is the one in which people read them. */
#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "agent/base/log.h"
#include "agent/base/text.h"
#include "agent/base/url.h"
#include "agent/config_private.h"
#include "agent/quota.h"
#include "agent/store/store.h"
#include "callback/guard.h"

#define ROW(key_, type_, field_, ...)                                                                 \
    {                                                                                                 \
        .key = (key_), .type = OPTION_##type_, .offset = offsetof(struct config, field_), __VA_ARGS__ \
    }
#define IN(key_, type_, field_, ...)                                                              \
    {                                                                                             \
        .key = (key_), .type = OPTION_##type_, .offset = offsetof(struct config_service, field_), \
        __VA_ARGS__                                                                               \
    }

#define SECOND_MS ((double)1000)
#define HOUR_MS   (3600 * SECOND_MS)
#define DAY_MS    (24 * HOUR_MS)
#define YEAR_MS   (366 * DAY_MS)
#define KIB       ((double)1024)
#define MIB       (1024 * KIB)

/* --- checks of single values --------------------------------------------------------------------------------------- */

static bool only_of(const char *text, const char *allowed)
{
    return text[strspn(text, allowed)] == '\0';
}

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* Becomes a part of keys and paths in Consul and of the member's id. */
static int check_name(const char *text, struct err *e)
{
    if (!only_of(text, ALNUM "._-"))
        return err_set(e, ERR_INVALID, "'%s' is no name: 1 to 63 of A-Z a-z 0-9 . _ -",
                       TEXTQ(text, strlen(text)));
    return 0;
}

/* Becomes a part of ce-source and of log lines as well. */
static int check_cluster_name(const char *text, struct err *e)
{
    return text_check_namespace(text, strlen(text), e);
}

static int check_host(const char *text, struct err *e)
{
    if (!only_of(text, ALNUM "._-:[]"))
        return err_set(e, ERR_INVALID, "'%s' is no host name or address", TEXTQ(text, strlen(text)));
    return 0;
}

static int check_socket_mode(const char *text, struct err *e)
{
    size_t len = strlen(text);
    if (len < 3 || len > 4 || !only_of(text, "01234567") || (len == 4 && text[0] != '0'))
        return err_set(e, ERR_INVALID, "'%s' is no file mode; write it in octal, as 0660", TEXTQ(text, len));
    return 0;
}

static int check_absolute(const char *text, struct err *e)
{
    for (const char *c = text; *c; c++)
        if (*c <= ' ' || *c == '#' || *c == 0x7f)
            return err_set(e, ERR_INVALID, "'%s' is no path of a URL", TEXTQ(text, strlen(text)));
    return text[0] == '/' ? 0
                          : err_set(e, ERR_INVALID, "'%s' must begin with '/'", TEXTQ(text, strlen(text)));
}

/* What stands before an '@' may be a password, which no message shows. */
static const char *without_password(const char *text)
{
    return strchr(text, '@') ? strchr(text, '@') : text;
}

/* A path is put behind it. */
static int check_advertise_url(const char *text, struct err *e)
{
    char host[URL_HOST_SIZE];
    const char *wrong = url_check(text, host);
    size_t len = strlen(text);
    for (const char *c = text; !wrong && *c; c++)
        if (*c <= ' ' || *c > '~')
            wrong = "must be printable ASCII";
    if (!wrong && (strchr(text, '?') || text[len - 1] == '/'))
        wrong = "must end before the path's last '/' and have no ?query";
    text = without_password(text);
    return wrong ? err_set(e, ERR_INVALID, "'%s' %s", TEXTQ(text, strlen(text)), wrong) : 0;
}

static int check_consul_address(const char *text, struct err *e)
{
    size_t len = strlen(text);
    if (strncmp(text, "unix://", 7) == 0 && text[7] == '/')
        return 0;
    size_t scheme = strncmp(text, "http://", 7) == 0 ? 7 : strncmp(text, "https://", 8) == 0 ? 8 : 0;
    if (text_host_port(text + scheme, len - scheme, false, NULL, NULL, NULL, NULL) == 0)
        return 0;
    text = without_password(text);
    return err_set(e, ERR_INVALID,
                   "'%s': write host:port, http://host:port, https://host:port or unix:///path",
                   TEXTQ(text, strlen(text)));
}

static int check_driver(const char *text, struct err *e)
{
    AUTO(buf_fini) struct buf names = BUF_INIT(100);
    size_t count;
    const struct config_driver *drivers = config_drivers(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(drivers[i].ops->name, text) == 0)
            return 0;
        buf_addf(&names, "%s%s", i ? ", " : "", drivers[i].ops->name);
    }
    return err_set(e, ERR_INVALID, "'%s' is not one of %s", TEXTQ(text, strlen(text)), buf_str(&names));
}

/* --- rows ---------------------------------------------------------------------------------------------------------- */

static const char *const roles[] = {"member", "client", NULL};
static const char *const modes[] = {"standalone", "consul", NULL};
static const char *const levels[] = {"error", "warn", "info", "debug", NULL}; /* LOG_LEVEL_NAMES */
static const char *const formats[] = {"logfmt", "json", NULL};                /* LOG_FORMAT_NAMES */
static const char *const voters[] = {"3", "5", NULL};                         /* CONFIG_VOTERS() */
static const char *const loopbacks[] = {"auto", "false", "true", NULL};       /* CONFIG_LOOPBACK_… */
static const char *const misfires[] = {"all", "last", NULL};                  /* enum job_misfire */
static const char *const concurrencies[] = {"allow", "forbid", "queue", "replace",
                                            NULL}; /* enum job_concurrency */
static const char *const policies[] = {"p2c", "round_robin", "least_request", "consistent_hash", NULL};

/* Sections before the store's drivers. */
static const struct option_row rows_before[] = {
    ROW("agent.name", STRING, agent.name, .flags = CONFIG_PLACE, .max = 63, .check = check_name,
        .help = "Name of this agent in logs, Consul and answers. The host's name if not given."),
    ROW("agent.role", ENUM, agent.role, .flags = CONFIG_PLACE, .def = "member", .allowed = roles,
        .help = "member: owns jobs and fires them. client: only forwards to the members, opens no store."),
    ROW("agent.data_dir", PATH, agent.data_dir, .flags = CONFIG_PLACE, .def = "./carillon-data",
        .help =
            "Folder of what this agent itself keeps: the log of store.driver raft. Made when it is missing."),
    ROW("agent.zone", STRING, agent.zone, .flags = CONFIG_PLACE, .max = 63, .check = check_name,
        .help = "Where this agent runs (availability zone): endpoints of the same zone can be preferred."),
    ROW("agent.weight", INT, agent.weight, .flags = CONFIG_PLACE, .def = "1", .min = 1, .max = 1000,
        .help = "This agent's share of the jobs, relative to the others'."),
    ROW("agent.shutdown_grace", DURATION, agent.shutdown_grace_ms, .def = "20s", .min = 0, .max = HOUR_MS,
        .help =
            "How long an ending agent waits for callbacks in flight; shorter than what kills it (Kubernetes: "
            "terminationGracePeriodSeconds)."),

    ROW("log.level", ENUM, log.level, .flags = OPTION_RELOAD, .def = "info", .allowed = levels,
        .help = "The least important lines that are written."),
    ROW("log.format", ENUM, log.format, .flags = OPTION_RELOAD, .def = "logfmt", .allowed = formats,
        .help = "How lines are written to standard error."),
    ROW("log.audit", ENUM, log.audit_choice, .flags = OPTION_RELOAD, .def = "auto", .allowed = loopbacks,
        .help =
            "Write a line (module=audit) for each change that is asked for through the API: who, from where, what, and how "
            "it was answered. auto: with api.tokens_file."),

    ROW("api.listen", LISTEN_LIST, api.listen, .flags = CONFIG_PLACE, .def = "127.0.0.1:7420", .min = 1,
        .max = 8, .help = "Where applications and the command line reach this agent."),
    ROW("api.socket_mode", STRING, api.socket_mode_text, .flags = CONFIG_PLACE, .def = "0660", .min = 3,
        .max = 4, .check = check_socket_mode, .help = "File mode of unix sockets, in octal."),
    ROW("api.hosts", STRING_LIST, api.hosts, .flags = CONFIG_PLACE, .min = 0, .max = 32, .check = check_host,
        .help =
            "Further names that the Host header of a request may have; others than these, loopback and the listen "
            "addresses are refused (421)."),
    ROW("api.advertise_url", STRING, api.advertise_url, .flags = CONFIG_PLACE, .max = 280,
        .check = check_advertise_url,
        .help =
            "Where callees reach some agent's API, as http://carillon.internal:7420: put in front of the path in "
            "Carillon-Complete, which is a bare path otherwise. Any agent will do, so best a name that stands for all: "
            "work may be completed when the agent that sent it is gone."),
    ROW("api.tokens_file", PATH, api.tokens_file, .flags = CONFIG_PLACE,
        .help =
            "Who may use the API: a YAML list of {name, sha256 (of the token, in hexadecimal) or uid (of a unix socket's "
            "peer), namespaces, can: [read, write, operate], expires, rate}. Requests then need Authorization: Bearer. Read "
            "again when it changes."),
    ROW("api.rate", DOUBLE, api.rate, .flags = OPTION_RELOAD, .min = 0, .max = 1e6,
        .help =
            "Requests a second that one client (a token, a user of a unix socket, an address) may make; more get 429. 0: no "
            "limit. An entry of api.tokens_file may say otherwise."),
    ROW("api.tls_cert", PATH, api.tls_cert, .flags = CONFIG_PLACE,
        .help = "Certificate (PEM) of the API: it is served over TLS."),
    ROW("api.tls_key", PATH, api.tls_key, .flags = CONFIG_PLACE, .help = "Key of the certificate (PEM)."),
    ROW("api.tls_client_ca", PATH, api.tls_client_ca, .flags = CONFIG_PLACE,
        .help = "Certificate authorities (PEM): only clients with a certificate of theirs are served."),
    ROW("api.max_body", SIZE, api.max_body_bytes, .def = "1MiB", .min = KIB, .max = 64 * MIB,
        .help = "Largest body of a request."),
    ROW("api.max_bulk", SIZE, api.max_bulk_bytes, .def = "64MiB", .min = KIB, .max = 512 * MIB,
        .help = "Largest body of POST /v1/bulk."),
    ROW("api.max_connections", INT, api.max_connections, .def = "1000", .min = 8, .max = 100000,
        .help =
            "Connections at a time, a listener. One more takes the place of the one whose client is silent longest; if none is, it gets 503."),
    ROW("api.wait", DURATION, api.wait_ms, .def = "5s", .min = 0, .max = 60 * SECOND_MS,
        .help = "How long a request waits for the new owner while a job's slot changes hands."),
    ROW("api.ui", BOOL, api.ui, .flags = OPTION_RELOAD, .def = "true",
        .help = "Serve the pages for people at /ui/. They ask the API, with the token of whoever looks."),
    ROW("api.insecure", BOOL, api.insecure, .flags = CONFIG_PLACE, .def = "false",
        .help =
            "Allow a listener that is not loopback without tokens_file and tls_client_ca: everyone who reaches it may do "
            "everything."),

    ROW("ops.listen", LISTEN_LIST, ops.listen, .flags = CONFIG_PLACE, .min = 0, .max = 4,
        .help = "Listeners for /livez, /readyz and /metrics alone, for the kubelet and Prometheus."),

    ROW("app.service", STRING, app.service, .flags = CONFIG_PLACE, .max = 128, .check = check_name,
        .help = "Service of the application beside this agent: the target of jobs that name none."),
    ROW("app.address", STRING, app.address, .flags = CONFIG_PLACE, .def = "127.0.0.1", .min = 1, .max = 255,
        .check = check_host, .help = "Where the application is reached."),
    ROW("app.port", INT, app.port, .flags = CONFIG_PLACE, .min = 0, .max = 65535,
        .help = "Port of the application; 0 if there is none."),
    ROW("app.register", BOOL, app.register_service, .flags = CONFIG_PLACE, .def = "false",
        .help = "Register app.service in Consul while this agent runs."),
    ROW("app.health_path", STRING, app.health_path, .flags = CONFIG_PLACE, .max = 1024,
        .check = check_absolute,
        .help = "Path that Consul asks to see whether the application is well; a TCP connect if not given."),

    ROW("cluster.mode", ENUM, cluster.mode, .def = "standalone", .allowed = modes,
        .help =
            "standalone: one agent, services are lists of endpoints. consul: agents and services are found in Consul."),
    ROW("cluster.name", STRING, cluster.name, .def = "default", .min = 1, .max = 63,
        .check = check_cluster_name, .help = "Agents of one name share one store and divide its jobs."),
    ROW("cluster.slots", INT, cluster.slots, .def = "4096", .min = 1, .max = 65536,
        .help = "Parts into which jobs are divided; fixed when the store is made."),
    ROW("cluster.listen", HOST_PORT, cluster.listen, .flags = CONFIG_PLACE,
        .help =
            "Where the other agents reach this one (consul mode). If not given, port 7421 of the address that the "
            "Consul agent advertises."),
    ROW("cluster.advertise", HOST_PORT, cluster.advertise, .flags = CONFIG_PLACE,
        .help = "The address that others are told, if it is not cluster.listen."),
    ROW("cluster.secret_file", PATH, cluster.secret_file, .flags = CONFIG_PLACE,
        .help =
            "File with the secret that all agents of the cluster share; requests between them are authenticated by it."),
    ROW("cluster.tls_ca", PATH, cluster.tls_ca, .flags = CONFIG_PLACE,
        .help =
            "Certificate authorities (PEM) of the agents' certificates: agents talk TLS and ask each other for one."),
    ROW("cluster.tls_cert", PATH, cluster.tls_cert, .flags = CONFIG_PLACE,
        .help = "This agent's certificate (PEM)."),
    ROW("cluster.tls_key", PATH, cluster.tls_key, .flags = CONFIG_PLACE, .help = "Its key (PEM)."),
    ROW("cluster.tls_server_name", STRING, cluster.tls_server_name, .max = 255, .check = check_host,
        .help =
            "Name in the agents' certificates, if it is not the address's: where pods share one, none of their "
            "addresses can stand in it. Both sides of a connection must have it then."),
    ROW("cluster.insecure", BOOL, cluster.insecure, .def = "false",
        .help = "Allow a cluster.listen that is not loopback without secret and TLS."),

    ROW("consul.address", STRING, consul.address, .flags = CONFIG_PLACE, .max = 1024,
        .check = check_consul_address,
        .help =
            "The local Consul agent: host:port, http://…, https://… or unix:///path. If not given, CONSUL_HTTP_ADDR, "
            "else 127.0.0.1:8500. The other CONSUL_HTTP_* variables are honoured too."),
    ROW("consul.token_file", PATH, consul.token_file, .flags = CONFIG_PLACE,
        .help = "File with the ACL token, read again when it changes."),
    ROW("consul.datacenter", STRING, consul.datacenter, .max = 63, .check = check_name,
        .help = "Datacenter to ask; the Consul agent's own if not given."),
    ROW("consul.namespace", STRING, consul.ns, .max = 63, .check = check_name,
        .help = "Namespace of Consul Enterprise."),
    ROW("consul.tls_ca", PATH, consul.tls_ca, .flags = CONFIG_PLACE,
        .help = "Certificate authorities (PEM) of Consul's certificate; the system's if not given."),
    ROW("consul.tls_cert", PATH, consul.tls_cert, .flags = CONFIG_PLACE,
        .help = "Own certificate (PEM) for Consul."),
    ROW("consul.tls_key", PATH, consul.tls_key, .flags = CONFIG_PLACE,
        .help = "Key of the own certificate (PEM)."),
    ROW("consul.tls_server_name", STRING, consul.tls_server_name, .flags = CONFIG_PLACE, .max = 255,
        .check = check_host, .help = "Name in Consul's certificate, if it is not the address's."),
    ROW("consul.tls_skip_verify", BOOL, consul.tls_skip_verify, .def = "false",
        .help = "Do not check Consul's certificate."),
    ROW("consul.register_as", STRING, consul.register_as, .def = "carillon", .min = 1, .max = 63,
        .check = check_name, .help = "Service name under which members are registered."),
    ROW("consul.check_ttl", DURATION, consul.check_ttl_ms, .def = "5s", .min = 3 * SECOND_MS,
        .max = 60 * SECOND_MS,
        .help =
            "Consul takes a member for dead that has not been heard for this long; it reports every second."),
    ROW("consul.session_ttl", DURATION, consul.session_ttl_ms, .def = "10s", .min = 10 * SECOND_MS,
        .max = DAY_MS,
        .help = "Life of the session without renewal; Consul may take twice as long to notice."),

    ROW("store.driver", STRING, store.driver, .max = 32, .check = check_driver,
        .help =
            "Where jobs are kept. raft: in files of the agents' own, one standalone agent's (the default there) or those "
            "of the store.raft.voters of a cluster. mysql: in a database. In consul mode it must be given."),
    ROW("store.horizon", DURATION, store.horizon_ms, .def = "60s", .min = 5 * SECOND_MS, .max = HOUR_MS,
        .help = "Dues this near are kept in memory."),
    ROW("store.batch_rows", INT, store.batch_rows, .def = "500", .min = 1, .max = 10000,
        .help = "Most jobs that one write changes."),
    ROW("store.batch_delay", DURATION, store.batch_delay_ms, .def = "2ms", .min = 0, .max = SECOND_MS,
        .help =
            "How long results of fires wait for others to join them; an answer to the API waits for nothing."),
    {0},
};

/* Behind those of the driver raft: what a cluster of voters needs beside the log. */
static const struct option_row rows_raft[] = {
    ROW("store.raft.listen", HOST_PORT, store.raft_cluster.listen, .flags = CONFIG_PLACE,
        .help =
            "Where the voters of the log reach this agent (consul mode). If not given, port 7422 of the host of "
            "cluster.listen."),
    ROW("store.raft.advertise", HOST_PORT, store.raft_cluster.advertise, .flags = CONFIG_PLACE,
        .help = "The address that the other voters are told, if it is not store.raft.listen."),
    ROW("store.raft.voters", ENUM, store.raft_cluster.voters_choice, .def = "3", .allowed = voters,
        .help =
            "How many agents of a cluster keep the log: 3, of which one may be lost at a time, or 5, of which two may. "
            "The others use it. The same for all agents."),
    {0},
};

#define LIMIT .flags = OPTION_RELOAD

static const struct option_row rows_after[] = {
    ROW("callback.threads", INT, callback.threads, .def = "1", .min = 1, .max = 64,
        .help = "Threads that send callbacks; each can send some ten thousand a second."),
    ROW("callback.max_in_flight", INT, callback.max_in_flight, LIMIT, .def = "2000", .min = 1, .max = 100000,
        .help = "Callbacks under way at a time, over all."),
    ROW("callback.max_in_flight_per_service", INT, callback.max_in_flight_per_service, LIMIT, .def = "500",
        .min = 1, .max = 100000, .help = "To one service, from this agent."),
    ROW("callback.max_in_flight_per_endpoint", INT, callback.max_in_flight_per_endpoint, LIMIT, .def = "64",
        .min = 1, .max = 100000, .help = "To one endpoint of a service, from this agent."),
    ROW("callback.allow_loopback", ENUM, callback.allow_loopback_choice, LIMIT, .def = "auto",
        .allowed = loopbacks,
        .help =
            "Whether jobs may name a loopback url or address, which is the localhost of whichever agent owns the job. "
            "auto: in standalone mode."),
    ROW("callback.allow", STRING_LIST, callback.allow, LIMIT, .min = 0, .max = GUARD_NETWORKS_MAX,
        .check = guard_check_network,
        .help =
            "If given, a job's url or address may lead only into these networks. Link-local, metadata, multicast and "
            "unspecified addresses are denied unless a network here that is no wider than they are holds them."),
    ROW("callback.deny", STRING_LIST, callback.deny, LIMIT, .min = 0, .max = GUARD_NETWORKS_MAX,
        .check = guard_check_network,
        .help =
            "No callback goes into these networks, whatever allow says; endpoints of services included. A job's url "
            "never reaches this agent's own ports."),
    ROW("callback.signing_keys_file", PATH, callback.signing_keys_file, .flags = CONFIG_PLACE,
        .help =
            "Keys that sign callbacks (Standard Webhooks). A line a key: a scope (namespace, namespace/service or *), a "
            "key id, whsec_ with the key in base64. The most specific scope signs, with all its keys. Read again when it "
            "changes."),
    ROW("callback.secrets_dir", PATH, callback.secrets_dir, .flags = CONFIG_PLACE,
        .help =
            "Folder of secrets that headers name as ${secret:NAME}: a folder a namespace, a file a secret. Read again "
            "when it changes."),
    ROW("callback.timeout", DURATION, callback.timeout_ms, LIMIT, .def = "30s", .min = 1, .max = HOUR_MS,
        .help = "Default of a job's callback.timeout."),
    ROW("callback.retry.max_attempts", INT, callback.retry_max_attempts, LIMIT, .def = "0", .min = 0,
        .max = 1000000, .help = "Default of a job's retry.max_attempts; 0: no limit."),
    ROW("callback.retry.min_backoff", DURATION, callback.retry_min_backoff_ms, LIMIT, .def = "1s", .min = 1,
        .max = DAY_MS, .help = "Default of a job's retry.min_backoff."),
    ROW("callback.retry.factor", DOUBLE, callback.retry_factor, LIMIT, .def = "2", .min = 1, .max = 100,
        .help = "Default of a job's retry.factor."),
    ROW("callback.retry.max_backoff", DURATION, callback.retry_max_backoff_ms, LIMIT, .def = "5m", .min = 1,
        .max = 7 * DAY_MS, .help = "Default of a job's retry.max_backoff."),
    ROW("callback.retry.jitter", DOUBLE, callback.retry_jitter, LIMIT, .def = "0.2", .min = 0, .max = 1,
        .help = "Default of a job's retry.jitter."),
    ROW("callback.retry.max_age", DURATION, callback.retry_max_age_ms, LIMIT, .def = "24h", .min = 1,
        .max = YEAR_MS, .help = "Default of a job's retry.max_age."),
    ROW("callback.misfire.policy", ENUM, callback.misfire_policy, LIMIT, .def = "all", .allowed = misfires,
        .help = "Default of a job's misfire.policy."),
    ROW("callback.misfire.window", DURATION, callback.misfire_window_ms, LIMIT, .def = "24h",
        .min = SECOND_MS, .max = YEAR_MS, .help = "Default of a job's misfire.window."),
    ROW("callback.concurrency", ENUM, callback.concurrency, LIMIT, .def = "allow", .allowed = concurrencies,
        .help = "Default of a job's concurrency."),

    ROW("schedule.min_interval", DURATION, schedule.min_interval_ms, LIMIT, .def = "1s", .min = 1,
        .max = DAY_MS, .help = "A shorter @every is refused."),
    ROW("schedule.max_jobs", INT, schedule.max_jobs, LIMIT, .def = "0", .min = 0, .max = 1000000000,
        .help =
            "How many jobs there may be, over all; 0: no limit. Finished ones count while they are kept."),
    ROW("schedule.max_jobs_of", STRING_LIST, schedule.max_jobs_of, LIMIT, .min = 0, .max = 256,
        .check = quota_check_item,
        .help =
            "How many jobs a namespace may have, as team-b=1000, and *=10000 for each that is not named."),

    ROW("history.keep", INT, history.keep, .def = "16", .min = 0, .max = 64,
        .help = "Newest fires of a job that succeeded at the first attempt, kept with the job."),
    ROW("history.keep_for", DURATION, history.keep_for_ms, .def = "30d", .min = HOUR_MS, .max = YEAR_MS,
        .help = "How long every other fire is kept (up to 1000 a job)."),

    ROW("audit.every", DURATION, audit.every_ms, .def = "1h", .min = SECOND_MS, .max = YEAR_MS,
        .help = "How often all jobs are compared with what is recorded of them (slowly, by one member)."),

    ROW("deadletters.keep_for", DURATION, deadletters.keep_for_ms, .def = "30d", .min = HOUR_MS,
        .max = YEAR_MS, .help = "How long a dead letter is kept."),

    ROW("telemetry.otlp_endpoint", STRING, telemetry.otlp_endpoint, .flags = CONFIG_PLACE, .max = 280,
        .check = check_advertise_url,
        .help =
            "Where traces go (OTLP over HTTP, JSON), as http://collector:4318; OTEL_EXPORTER_OTLP_ENDPOINT if not given. None: "
            "nothing is traced but what asks for it by traceparent."),
    ROW("telemetry.sample_ratio", DOUBLE, telemetry.sample_ratio, .def = "1", .min = 0, .max = 1,
        .help = "Share of the traces that are kept, where no traceparent decides."),
    {0},
};

static const struct option_row service_rows[] = {
    IN("tag", STRING_LIST, tag, LIMIT, .min = 0, .max = JOB_TAGS_MAX, .check = check_name,
       .help = "Tags that an endpoint must have in Consul, for jobs that name none."),
    IN("policy", ENUM, policy, LIMIT, .def = "p2c", .allowed = policies,
       .help =
           "How an endpoint is chosen: the better of two random ones, in turn, the least busy, or always the same for a "
           "job."),
    IN("near", BOOL, near, LIMIT, .def = "false",
       .help = "Endpoints on this node first, then those of this agent's zone, then the rest."),
    IN("max_in_flight", INT, max_in_flight, LIMIT, .min = 0, .max = 100000,
       .help = "Callbacks under way at a time; as callback.max_in_flight_per_service if not given."),
    IN("max_in_flight_per_endpoint", INT, max_in_flight_per_endpoint, LIMIT, .min = 0, .max = 100000,
       .help = "To one endpoint; as callback.max_in_flight_per_endpoint if not given."),
    IN("rate", DOUBLE, rate, LIMIT, .min = 0, .max = 1e6,
       .help =
           "Callbacks a second, over the whole cluster: each agent sends its share, by weight; what is over waits its turn. "
           "0: no limit."),
    IN("outlier.failures", INT, outlier_failures, LIMIT, .def = "5", .min = 0, .max = 1000,
       .help = "An endpoint that failed so often in a row rests for a while; 0: never for that."),
    IN("outlier.error_percent", INT, outlier_error_percent, LIMIT, .def = "50", .min = 0, .max = 100,
       .help = "One that failed this share of its callbacks in the window rests too; 0: never for that."),
    IN("outlier.window", DURATION, outlier_window_ms, LIMIT, .def = "30s", .min = SECOND_MS, .max = HOUR_MS,
       .help = "The window of error_percent."),
    IN("outlier.min_results", INT, outlier_min_results, LIMIT, .def = "20", .min = 1, .max = 100000,
       .help = "Fewer callbacks in the window say nothing."),
    IN("outlier.base", DURATION, outlier_base_ms, LIMIT, .def = "10s", .min = SECOND_MS, .max = HOUR_MS,
       .help = "The first rest; each further one is longer by this."),
    IN("outlier.max", DURATION, outlier_max_ms, LIMIT, .def = "5m", .min = SECOND_MS, .max = DAY_MS,
       .help = "The longest rest."),
    IN("slow_start", DURATION, slow_start_ms, LIMIT, .def = "10s", .min = 0, .max = HOUR_MS,
       .help = "New endpoints reach their full share in this time."),
    IN("tls_ca", PATH, tls_ca, .flags = OPTION_RELOAD | CONFIG_PLACE,
       .help =
           "Certificate authorities (PEM) of the endpoints' certificates (callbacks with scheme https, gRPC over TLS), "
           "instead of the system's. Read again with each connection."),
    IN("tls_cert", PATH, tls_cert, .flags = OPTION_RELOAD | CONFIG_PLACE,
       .help = "Certificate (PEM) shown to endpoints that ask for one."),
    IN("tls_key", PATH, tls_key, .flags = OPTION_RELOAD | CONFIG_PLACE, .help = "Its key (PEM)."),
    IN("tls_server_name", STRING, tls_server_name, LIMIT, .max = 255, .check = check_host,
       .help =
           "Name that the endpoints' certificates have, if it is not the service's; sent as SNI as well. The Host header "
           "stays the service's name."),
    {0},
};

/* --- endpoints of a service: what rows cannot express -------------------------------------------------------------- */

static const struct option_extra service_extras[] = {
    {.key = "endpoints",
     .allowed = "a list of host:port or {address: host:port, weight: 2}",
     .help = "Where the service is, in standalone mode.",
     .sample = "[\"127.0.0.1:8080\"]",
     .flags = OPTION_RELOAD},
    {0},
};

static int add_endpoint(struct config_service *s, const char *address, size_t len, uint32_t weight,
                        struct err *e)
{
    int r = text_host_port(address, len, false, NULL, NULL, NULL, e);
    if (r < 0)
        return r;
    char *copy = mem_try_strndup(address, len, e);
    if (!copy)
        return err_wrap(e, "service %s", s->name);
    s->endpoints[s->endpoints_count++] = (struct config_endpoint){.address = copy, .weight = weight};
    return 0;
}

/* {address: host:port, weight: 2} */
static int read_endpoint_map(struct config_service *s, const struct yaml_node *n, struct err *e)
{
    const struct yaml_node *address = NULL;
    uint32_t weight = 1;
    for (size_t i = 0; i < n->count; i++) {
        const struct yaml_node *value = &n->items[i];
        if (value->kind != YAML_SCALAR)
            return err_set(e, ERR_INVALID, "must be a text, not %s", yaml_node_kind_name(value));
        if (strcmp(n->keys[i], "address") == 0) {
            address = value;
        } else if (strcmp(n->keys[i], "weight") == 0) {
            int r = text_u32(value->text, value->text_len, 1, BALANCE_WEIGHT_MAX, &weight, e);
            if (r < 0)
                return r;
        } else {
            return err_set(e, ERR_INVALID, "'%s' is not known; allowed are address and weight",
                           TEXTQ(n->keys[i], strlen(n->keys[i])));
        }
    }
    if (!address)
        return err_set(e, ERR_INVALID, "has no address");
    return add_endpoint(s, address->text, address->text_len, weight, e);
}

static int read_endpoint(struct config_service *s, const struct yaml_node *n, struct err *e)
{
    switch (n->kind) {
    case YAML_SCALAR:
        return add_endpoint(s, n->text, n->text_len, 1, e);
    case YAML_MAP:
        return read_endpoint_map(s, n, e);
    case YAML_LIST:
    case YAML_KIND_COUNT_:
        break;
    }
    return err_set(e, ERR_INVALID, "write host:port or {address: host:port, weight: 1}, not %s",
                   yaml_node_kind_name(n));
}

static int read_extra(void *item, const char *key, const struct yaml_node *n, const char *file,
                      struct option_errors *errors, struct err *e)
{
    struct config_service *s = item;
    if (yaml_node_is_null(n))
        return 0;
    if (n->kind != YAML_LIST)
        return option_error_add(errors, e, "%s:%u: services.%s.%s: must be a list, not %s", file, n->line,
                                s->name, key, yaml_node_kind_name(n));
    if (n->count > CONFIG_ENDPOINTS_MAX)
        return option_error_add(errors, e, "%s:%u: services.%s.%s: more than %d endpoints", file, n->line,
                                s->name, key, CONFIG_ENDPOINTS_MAX);
    s->endpoints = mem_try_array(n->count, sizeof(*s->endpoints), e);
    if (!s->endpoints)
        return err_wrap(e, "service %s", s->name);
    for (size_t i = 0; i < n->count; i++) {
        struct err why;
        int r = read_endpoint(s, &n->items[i], &why);
        if (r == -ERR_INVALID)
            r = option_error_add(errors, e, "%s:%u: services.%s.%s: endpoint %zu: %s", file, n->items[i].line,
                                 s->name, key, i + 1, why.text);
        else if (r < 0)
            r = err_set(e, why.code, "%s", why.text);
        if (r < 0)
            return r;
    }
    return 0;
}

static void fini_extra(void *item)
{
    struct config_service *s = item;
    for (size_t i = 0; i < s->endpoints_count; i++)
        mem_free(s->endpoints[i].address);
    mem_free(s->endpoints);
    s->endpoints = NULL;
    s->endpoints_count = 0;
}

bool config_endpoints_equal(const struct config_service *a, const struct config_service *b)
{
    if (a->endpoints_count != b->endpoints_count)
        return false;
    for (size_t i = 0; i < a->endpoints_count; i++)
        if (a->endpoints[i].weight != b->endpoints[i].weight ||
            strcmp(a->endpoints[i].address, b->endpoints[i].address) != 0)
            return false;
    return true;
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static const struct option_group groups[] = {
    {.section = "services",
     .rows = service_rows,
     .size_bytes = sizeof(struct config_service),
     .offset = offsetof(struct config, services),
     .items_max = CONFIG_SERVICES_MAX,
     .help = "Services by name, where one needs other than the defaults. Reloaded.",
     .extras = service_extras,
     .read_extra = read_extra,
     .fini_extra = fini_extra},
    {0},
};

static const char *const section_help[] = {
    "agent",
    "Who this agent is.",
    "log",
    "Log lines.",
    "api",
    "The HTTP API for applications and the command line.",
    "ops",
    "A listener for probes and metrics alone.",
    "app",
    "The application that this agent runs beside.",
    "cluster",
    "How agents find and trust each other.",
    "consul",
    "The connection to Consul (cluster.mode consul).",
    "store",
    "Where jobs are kept.",
    "store.raft",
    "The driver raft: a log on this machine, or on those of the voters, without any server.",
    "store.mysql",
    "The driver mysql: MariaDB 10.6 or newer, MySQL 8.0 or newer.",
    "callback",
    "Sending callbacks.",
    "callback.retry",
    "When a failed callback is tried again.",
    "callback.misfire",
    "What becomes of dues that could not be fired in time.",
    "schedule",
    "Limits of schedules.",
    "history",
    "What is kept about past fires.",
    "deadletters",
    "Fires that were given up.",
    "telemetry",
    "Traces for OpenTelemetry.",
    NULL,
};

const struct config_driver *config_drivers(size_t *ret_count)
{
    static const struct config_driver drivers[] = {
        {&store_raft,
         offsetof(struct config, store.raft)}, /* the first is the default of a standalone agent */
        {&store_mysql, offsetof(struct config, store.mysql)},
    };
    *ret_count = sizeof(drivers) / sizeof(drivers[0]);
    return drivers;
}

#define ROWS_MAX 200

/* The drivers bring their own rows, which C cannot paste into a constant table; so it is put together at the first use and
 * constant from then on. */
static struct option_row rows_all[ROWS_MAX];
static pthread_once_t rows_once = PTHREAD_ONCE_INIT;

static void append_rows(size_t *count, const struct option_row *rows, size_t offset, unsigned flags)
{
    for (; rows->key; rows++) {
        assert(*count < ROWS_MAX - 1);
        struct option_row *row = &rows_all[(*count)++];
        *row = *rows;
        row->offset += offset;
        row->flags |= flags;
    }
}

/* Rows of one section stand together. */
static void append_driver(size_t *count, const struct config_driver *driver)
{
    append_rows(count, driver->ops->options, driver->offset, CONFIG_PLACE);
    if (driver->ops == &store_raft)
        append_rows(count, rows_raft, 0, 0);
}

static void build_rows(void)
{
    size_t count = 0, drivers_count;
    const struct config_driver *drivers = config_drivers(&drivers_count);
    append_rows(&count, rows_before, 0, 0);
    for (size_t i = 0; i < drivers_count; i++)
        append_driver(&count, &drivers[i]);
    append_rows(&count, rows_after, 0, 0);
}

const struct option_table *config_table(void)
{
    static const struct option_table table = {
        .rows = rows_all,
        .groups = groups,
        .size_bytes = sizeof(struct config),
        .env_prefix = "CARILLON",
        .section_help = section_help,
    };
    (void)pthread_once(&rows_once, build_rows); /* fails only for an invalid control */
    return &table;
}
