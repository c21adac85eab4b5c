#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/core/schedule.h"
#include "agent/store/store.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A folder of this test with what it writes. */
static char folder[64];

static const char *path_of(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "w");
    cr_assert(f != NULL);
    cr_assert(ge(int, fputs(text, f), 0));
    cr_assert(zero(int, fclose(f)));
}

static void make_folder(void)
{
    (void)snprintf(folder, sizeof(folder), "/tmp/carillon-config-XXXXXX");
    cr_assert(mkdtemp(folder) != NULL);
    cr_assert(zero(int, chdir(folder)));
}

static void remove_folder(void)
{
    static const char *const names[] = {"c.yaml", "secret", "cert", "empty"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)unlink(path_of(names[i]));
    cr_assert(zero(int, rmdir(folder)));
}

TestSuite(config, .init = make_folder, .fini = remove_folder);

struct load {
    struct config *c;
    struct option_errors errors;
    struct err e;
    int r;
};

static struct load load(const char *yaml, const char *const *env, const char *const *sets)
{
    struct load l = {.c = NULL};
    size_t n = 0;
    while (sets && sets[n])
        n++;
    if (yaml)
        write_file("c.yaml", yaml);
    l.r = config_load(yaml ? "c.yaml" : NULL, sets, n, env, &l.c, &l.errors, &l.e);
    return l;
}

static struct load load_good(const char *yaml, const char *const *env, const char *const *sets)
{
    struct load l = load(yaml, env, sets);
    cr_assert(zero(int, l.r), "%s", l.e.text);
    return l;
}

static void done(struct load *l)
{
    config_free(l->c);
    option_errors_fini(&l->errors);
}

static void expect_lines(const char *yaml, const char *const *sets, const char *const *lines)
{
    struct load l = load(yaml, NULL, sets);
    cr_assert(eq(int, l.r, -ERR_INVALID));
    cr_assert(l.c == NULL);
    size_t n = 0;
    for (; lines[n]; n++) {
        cr_assert(lt(sz, n, l.errors.lines.count), "missing: %s", lines[n]);
        cr_assert(eq(str, l.errors.lines.items[n], (char *)lines[n]));
    }
    cr_assert(eq(sz, l.errors.lines.count, n), "also: %s", l.errors.lines.items[l.errors.lines.count - 1]);
    done(&l);
}

#define CONSUL "cluster: {mode: consul}\nstore: {driver: mysql}\n"

Test(config, defaults_are_those_of_the_manual)
{
    struct load l = load_good(NULL, NULL, NULL);
    char host[256];
    cr_assert(zero(int, gethostname(host, sizeof(host))));
    cr_assert(strncmp(l.c->agent.name, host, 8) == 0, "%s", l.c->agent.name);
    cr_assert(eq(u64, l.c->agent.shutdown_grace_ms, 20000));
    cr_assert(eq(str, l.c->api.listen.items[0], "127.0.0.1:7420"));
    cr_assert(eq(uint, l.c->api.socket_mode, 0660));
    cr_assert(eq(u64, l.c->api.max_bulk_bytes, 64u << 20));
    cr_assert(eq(uint, l.c->cluster.mode, CONFIG_MODE_STANDALONE));
    cr_assert(eq(i64, l.c->cluster.slots, 4096));
    cr_assert(l.c->cluster.listen == NULL);
    cr_assert(eq(str, l.c->store.driver, "raft"));
    cr_assert(eq(str, l.c->store.raft.dir, "./carillon-data/raft"));
    cr_assert(eq(str, l.c->store.mysql.host, "127.0.0.1"));
    cr_assert(eq(u64, l.c->store.mysql.timeout_ms, 5000));
    cr_assert(l.c->callback.allow_loopback);
    cr_assert(l.c->app.url == NULL);
    done(&l);
}

Test(config, defaults_of_jobs_are_those_of_the_core)
{
    struct load l = load_good(NULL, NULL, NULL);
    struct job_defaults core, ours;
    job_defaults_init(&core);
    config_job_defaults(l.c, &ours);
    cr_assert(eq(i64, ours.timeout_ms, core.timeout_ms));
    cr_assert(eq(u32, ours.retry.max_attempts, core.retry.max_attempts));
    cr_assert(eq(u64, ours.retry.min_backoff_ms, core.retry.min_backoff_ms));
    cr_assert(eq(u64, ours.retry.max_backoff_ms, core.retry.max_backoff_ms));
    cr_assert(eq(u64, ours.retry.max_age_ms, core.retry.max_age_ms));
    cr_assert(ours.retry.factor == core.retry.factor && ours.retry.jitter == core.retry.jitter);
    cr_assert(eq(int, (int)ours.misfire, (int)core.misfire));
    cr_assert(eq(i64, ours.misfire_window_ms, core.misfire_window_ms));
    cr_assert(eq(int, (int)ours.concurrency, (int)core.concurrency));
    cr_assert(eq(i64, ours.min_interval_ms, core.min_interval_ms));
    struct balance_options of_core = balance_options_default(), of_service;
    config_balance_options(l.c, "any", &of_service);
    cr_assert(zero(int, memcmp(&of_core, &of_service, sizeof(of_core))));
    done(&l);
    l = load_good("services: {billing: {}}", NULL, NULL);
    config_balance_options(l.c, "billing", &of_service);
    cr_assert(zero(int, memcmp(&of_core, &of_service, sizeof(of_core))));
    done(&l);
}

Test(config, set_beats_environment_beats_file)
{
    struct load l =
        load_good("api: {wait: 1s, max_body: 2MiB}\nstore: {mysql: {host: file, user: file}}\n",
                  LIST("CARILLON_API_WAIT=2s", "CARILLON_STORE_MYSQL_HOST=env"), LIST("api.wait=3s"));
    cr_assert(eq(u64, l.c->api.wait_ms, 3000));
    cr_assert(eq(u64, l.c->api.max_body_bytes, 2u << 20));
    cr_assert(eq(str, l.c->store.mysql.host, "env"));
    cr_assert(eq(str, l.c->store.mysql.user, "file"));
    done(&l);
}

Test(config, the_driver_gets_its_own_struct)
{
    struct load l = load_good(CONSUL "  \n", NULL, LIST("store.mysql.database=other"));
    const void *options = NULL;
    cr_assert(config_store_driver(l.c, &options) == &store_mysql);
    cr_assert(eq(str, ((const struct store_mysql_options *)options)->database, "other"));
    done(&l);
    l = load_good("agent: {data_dir: /var/lib/x}\n", NULL, NULL);
    cr_assert(config_store_driver(l.c, &options) == &store_raft);
    cr_assert(eq(str, ((const struct store_raft_options *)options)->dir, "/var/lib/x/raft"));
    done(&l);
    l = load_good("cluster: {mode: consul}\nagent: {role: client}\n", NULL, NULL);
    cr_assert(config_store_driver(l.c, &options) == NULL);
    done(&l);
}

Test(config, problems_between_options_name_the_line)
{
    expect_lines("cluster:\n  mode: consul\n", NULL,
                 LIST("configuration: store.driver: must be given when cluster.mode is consul"));
    expect_lines(
        "cluster:\n  mode: consul\nstore:\n  driver: raft\n  raft:\n    listen: 10.0.0.1:7422\n", NULL,
        LIST(
            "c.yaml:6: store.raft.listen: 10.0.0.1:7422 is not loopback: give cluster.secret_file or cluster.tls_*, "
            "or set cluster.insecure"));
    expect_lines(
        "store:\n  raft:\n    listen: 127.0.0.1:7422\n", NULL,
        LIST(
            "c.yaml:3: store.raft.listen: there are other voters only with store.driver: raft and cluster.mode: "
            "consul"));
    expect_lines("store:\n  raft:\n    voters: 4\n", NULL,
                 LIST("c.yaml:3: store.raft.voters: '4' is not one of 3, 5"));
    expect_lines(
        "api:\n  listen: ['127.0.0.1:1', '0.0.0.0:7420']\n", NULL,
        LIST(
            "c.yaml:2: api.listen: 0.0.0.0:7420 is not loopback: give api.tokens_file or api.tls_client_ca (with "
            "api.tls_cert and api.tls_key), or set api.insecure: true if whoever reaches it may do everything"));
    expect_lines(
        "cluster:\n  mode: consul\n  listen: 10.0.0.1:7421\nstore:\n  driver: mysql\n", NULL,
        LIST(
            "c.yaml:3: cluster.listen: 10.0.0.1:7421 is not loopback: give cluster.secret_file or cluster.tls_*, "
            "or set cluster.insecure"));
    expect_lines("cluster:\n  tls_server_name: carillon\n", NULL,
                 LIST("c.yaml:2: cluster.tls_server_name: needs cluster.tls_ca, cluster.tls_cert and "
                      "cluster.tls_key as well"));
    expect_lines(
        "callback:\n  retry:\n    max_backoff: 1ms\n", NULL,
        LIST("c.yaml:3: callback.retry.max_backoff: must not be shorter than callback.retry.min_backoff"));
    expect_lines(
        "app:\n  register: true\n", NULL,
        LIST("c.yaml:2: app.register: there is no Consul in standalone mode; set cluster.mode: consul",
             "c.yaml:2: app.register: needs app.service", "c.yaml:2: app.register: needs app.port"));
    expect_lines(
        "agent:\n  role: client\n", LIST("cluster.listen=127.0.0.1:1"),
        LIST(
            "configuration: cluster.listen: a standalone agent has no peers; set cluster.mode: consul or take it "
            "out",
            "c.yaml:2: agent.role: a client needs members: set cluster.mode: consul"));
    expect_lines(
        CONSUL "services:\n  a:\n    endpoints: ['b:1']\n    outlier: {max: 1s}\n", NULL,
        LIST("c.yaml:6: services.a.outlier.max: must not be shorter than outlier.base",
             "c.yaml:5: services.a.endpoints: endpoints come from Consul when cluster.mode is consul"));
    expect_lines("services:\n  a:\n    tag: x\n", NULL,
                 LIST("c.yaml:3: services.a.tag: endpoints have tags only when cluster.mode is consul"));
}

Test(config, no_message_shows_a_password)
{
    expect_lines(
        "telemetry:\n  otlp_endpoint: http://user:hunter2@collector:4318\n"
        "consul:\n  address: https://user:hunter2@consul:8501\n",
        NULL,
        LIST(
            "c.yaml:2: telemetry.otlp_endpoint: '@collector:4318' must not carry a user name; send an "
            "Authorization header",
            "c.yaml:4: consul.address: '@consul:8501': write host:port, http://host:port, https://host:port or "
            "unix:///path"));
}

Test(config, tls_of_a_service_is_checked_before_the_start)
{
    write_file("cert", "x");
    expect_lines(
        "services:\n  a:\n    tls_ca: /nowhere/ca\n    tls_cert: cert\n  b:\n    tls_server_name: a b\n",
        NULL, LIST("c.yaml:6: services.b.tls_server_name: 'a b' is no host name or address"));
    expect_lines("services:\n  a:\n    tls_ca: /nowhere/ca\n    tls_cert: cert\n", NULL,
                 LIST("c.yaml:3: services.a.tls_ca: open '/nowhere/ca': No such file or directory",
                      "c.yaml:4: services.a.tls_cert: needs services.a.tls_key as well"));
}

Test(config, what_makes_an_open_listener_acceptable)
{
    write_file("secret", "s3cret\n");
    write_file("cert", "x");
    struct load l = load_good("api: {listen: '0.0.0.0:1', insecure: true}", NULL, NULL);
    done(&l);
    l = load_good("api: {listen: '0.0.0.0:1', tls_client_ca: cert, tls_cert: cert, tls_key: cert}", NULL,
                  NULL);
    done(&l);
    l = load_good(CONSUL, NULL, LIST("cluster.listen=10.0.0.1:7421", "cluster.secret_file=secret"));
    cr_assert(zero(int, config_check_peer_listen(l.c, "10.0.0.1:7421", NULL)));
    done(&l);
    l = load_good(CONSUL, NULL, LIST("cluster.listen=10.0.0.1:7421", "cluster.insecure=true"));
    done(&l);
    l = load_good(CONSUL, NULL, NULL);
    cr_assert(eq(int, config_check_peer_listen(l.c, "10.0.0.1:7421", NULL), -ERR_INVALID));
    cr_assert(zero(int, config_check_peer_listen(l.c, "127.0.0.1:7421", NULL)));
    done(&l);
    l = load_good("ops: {listen: '0.0.0.0:9000'}", NULL, NULL); /* probes and metrics only */
    done(&l);
}

Test(config, files_that_are_named_must_be_readable)
{
    write_file("empty", "");
    expect_lines(
        CONSUL, LIST("cluster.secret_file=missing", "store.mysql.password_file=empty", "api.tls_cert=/"),
        LIST("configuration: api.tls_cert: needs api.tls_key as well",
             "configuration: api.tls_cert: '/' is not a regular file",
             "configuration: cluster.secret_file: read secret: open 'missing': No such file or directory",
             "configuration: store.mysql.password_file: 'empty' holds no secret"));
}

Test(config, signing_keys_secrets_and_networks_are_checked_before_the_start)
{
    write_file("secret", "* main whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n* main2 whsec_short\n");
    expect_lines(
        NULL, LIST("callback.signing_keys_file=secret", "callback.secrets_dir=missing"),
        LIST("configuration: callback.signing_keys_file: 'secret': line 2: the key must be whsec_ and the "
             "base64 of 24 to 64 bytes",
             "configuration: callback.secrets_dir: read folder 'missing': No such file or directory"));
    expect_lines(
        NULL, LIST("callback.allow=10.0.0.0/8,10.0.0.1/8", "callback.deny=example.com"),
        LIST("--set: callback.allow: '10.0.0.1/8' has bits set beyond its prefix",
             "--set: callback.deny: 'example.com' is no network; write 10.0.0.0/8, fd00::/8 or an address"));
    write_file("secret", "* main whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    struct load l = load_good(NULL, NULL,
                              LIST("callback.signing_keys_file=secret", "callback.secrets_dir=.",
                                   "callback.allow=10.0.0.0/8,fd00::/8", "callback.deny=10.1.2.3"));
    cr_assert(eq(sz, l.c->callback.allow.count, 2));
    cr_assert(eq(str, l.c->callback.deny.items[0], "10.1.2.3"));
    done(&l);
}

Test(config, values_outside_their_meaning_are_refused)
{
    static const struct {
        const char *set, *error;
    } cases[] = {
        {"api.socket_mode=0888",
         "--set: api.socket_mode: '0888' is no file mode; write it in octal, as 0660"},
        {"api.socket_mode=9660",
         "--set: api.socket_mode: '9660' is no file mode; write it in octal, as 0660"},
        {"agent.name=a b", "--set: agent.name: 'a b' is no name: 1 to 63 of A-Z a-z 0-9 . _ -"},
        {"cluster.name=A", "--set: cluster.name: 'A' is no namespace: 1 to 63 of a-z 0-9 -"},
        {"store.driver=sqlite", "--set: store.driver: 'sqlite' is not one of raft, mysql"},
        {"consul.address=ftp://x",
         "--set: consul.address: 'ftp://x': write host:port, http://host:port, https://host:port "
         "or unix:///path"},
        {"app.health_path=x", "--set: app.health_path: 'x' must begin with '/'"},
        {"app.health_path=/a b", "--set: app.health_path: '/a b' is no path of a URL"},
        {"app.address=a/b", "--set: app.address: 'a/b' is no host name or address"},
        {"log.levl=debug", "--set: 'log.levl' is not known; did you mean 'log.level'?"},
        {"api.listen=", "--set: api.listen: 0 items, at least 1 are needed"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_lines(NULL, LIST(cases[i].set), LIST(cases[i].error));
}

Test(config, endpoints_of_services_are_read)
{
    struct load l = load_good(
        "services:\n  pay: {endpoints: ['a:1', {address: '[::1]:2', weight: 3}], max_in_flight: 7}\n", NULL,
        NULL);
    const struct config_service *s = config_service(l.c, "pay");
    cr_assert(eq(sz, s->endpoints_count, 2));
    cr_assert(eq(str, s->endpoints[0].address, "a:1"));
    cr_assert(eq(u32, s->endpoints[0].weight, 1));
    cr_assert(eq(str, s->endpoints[1].address, "[::1]:2"));
    cr_assert(eq(u32, s->endpoints[1].weight, 3));
    struct balance_options o;
    config_balance_options(l.c, "pay", &o);
    cr_assert(eq(u32, o.in_flight_max, 7));
    cr_assert(eq(u32, o.endpoint_in_flight_max, 64));
    cr_assert(config_service(l.c, "other") == NULL);
    done(&l);
    expect_lines(
        "services:\n  a:\n    endpoints:\n      - x\n      - {weight: 1}\n      - {address: 'a:1', weight: 0}\n"
        "      - {adress: 'a:1'}\n      - [a]\n  b: {endpoints: x}\n  c: {endpoint: x}\n",
        NULL,
        LIST(
            "c.yaml:4: services.a.endpoints: endpoint 1: 'x' is no address: write host:port, or [::1]:port; port 1 to 65535",
            "c.yaml:5: services.a.endpoints: endpoint 2: has no address",
            "c.yaml:6: services.a.endpoints: endpoint 3: '0' is no whole number from 1 to 65535",
            "c.yaml:7: services.a.endpoints: endpoint 4: 'adress' is not known; allowed are address and weight",
            "c.yaml:8: services.a.endpoints: endpoint 5: write host:port or {address: host:port, weight: 1}, not "
            "a list",
            "c.yaml:9: services.b.endpoints: must be a list, not a text",
            "c.yaml:10: 'services.c.endpoint' is not known; did you mean 'services.c.endpoints'?"));
}

Test(config, the_application_is_a_url_alone_and_a_service_in_a_cluster)
{
    struct job_defaults d;
    struct load l = load_good("app: {port: 8080, address: '::1', service: me}", NULL, NULL);
    config_job_defaults(l.c, &d);
    cr_assert(eq(str, (char *)d.app_url, "http://[::1]:8080"));
    cr_assert(d.app_service == NULL);
    cr_assert(d.allow_loopback);
    done(&l);
    l = load_good(CONSUL "app: {port: 8080, service: me, register: true}", NULL, NULL);
    config_job_defaults(l.c, &d);
    cr_assert(d.app_url == NULL);
    cr_assert(eq(str, (char *)d.app_service, "me"));
    cr_assert(not(d.allow_loopback));
    done(&l);
    l = load_good(CONSUL, NULL, LIST("callback.allow_loopback=true"));
    cr_assert(l.c->callback.allow_loopback);
    done(&l);
}

Test(config, consul_variables_fill_what_was_not_given)
{
    const char *const *env = LIST("CONSUL_HTTP_ADDR=10.0.0.1:8500", "CONSUL_HTTP_TOKEN=t");
    struct consul_client_options o;
    struct load l = load_good(CONSUL, env, NULL);
    config_consul_options(l.c, env, &o);
    cr_assert(eq(str, (char *)o.address, "10.0.0.1:8500"));
    cr_assert(eq(str, (char *)o.token, "t"));
    done(&l);
    l = load_good(CONSUL "consul: {address: 'unix:///run/consul.sock'}", env, NULL);
    config_consul_options(l.c, env, &o);
    cr_assert(eq(str, (char *)o.address, "unix:///run/consul.sock"));
    done(&l);
}

Test(config, loopback_is_told_by_the_address)
{
    static const char *const yes[] = {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1",
                                      "localhost:0", "LOCALHOST:1", "unix:/x"};
    static const char *const no[] = {
        "0.0.0.0:1",    "[::]:1",    "10.0.0.1:1",           "127.evil.example:1",
        "localhostx:1", "[::1:2]:1", "[::ffff:127.0.0.1]:1", ":1",
        "example.org:1"};
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        cr_assert(config_is_loopback(yes[i]), "%s", yes[i]);
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        cr_assert(not(config_is_loopback(no[i])), "%s", no[i]);
    cr_assert(config_is_loopback_host("127.0.0.1:80", 9));
    cr_assert(not(config_is_loopback_host("127.evil.example", 16)));
}

Test(config, digests_differ_by_what_agents_should_share)
{
    write_file("secret", "x");
    struct load a = load_good("services: {s: {endpoints: ['a:1']}}", NULL, NULL), b;
    char base[CONFIG_DIGEST_SIZE], other[CONFIG_DIGEST_SIZE];
    config_digest(a.c, base);
    cr_assert(eq(sz, strlen(base), 16));
    b = load_good(
        "services: {s: {endpoints: ['a:1']}}", NULL,
        LIST("agent.name=x", "api.listen=127.0.0.1:9", "store.mysql.password_file=secret", "agent.weight=3"));
    config_digest(b.c, other);
    cr_assert(eq(str, other, base));
    done(&b);
    static const char *const sets[] = {"api.wait=6s", "callback.retry.factor=3", "services.s.near=true",
                                       "services.t.near=true"};
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        b = load_good("services: {s: {endpoints: ['a:1']}}", NULL, LIST(sets[i]));
        config_digest(b.c, other);
        cr_assert(ne(str, other, base), "%s", sets[i]);
        done(&b);
    }
    b = load_good("services: {s: {endpoints: ['a:2']}}", NULL, NULL);
    config_digest(b.c, other);
    cr_assert(ne(str, other, base));
    done(&b);
    done(&a);
}

static void note(void *arg, const char *key, bool applied)
{
    buf_addf(arg, "%s%s;", key, applied ? "" : "(restart)");
}

Test(config, a_reload_takes_what_it_may_and_names_the_rest)
{
    struct load now = load_good("services: {a: {endpoints: ['a:1']}, b: {}}\n", NULL, NULL);
    struct load next =
        load_good("services: {a: {endpoints: ['a:2']}, c: {near: true}}\nlog: {level: debug}\n"
                  "api: {wait: 9s, listen: '127.0.0.1:9'}\ncallback: {timeout: 1s, allow_loopback: false, "
                  "deny: [10.0.0.0/8], secrets_dir: '.'}\n"
                  "schedule: {min_interval: 5s}\nhistory: {keep: 1}\n",
                  NULL, NULL);
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    config_diff(now.c, next.c, note, &out);
    cr_assert(eq(
        str, (char *)buf_str(&out),
        "log.level;api.listen(restart);api.wait(restart);callback.allow_loopback;callback.deny;"
        "callback.secrets_dir(restart);callback.timeout;schedule.min_interval;history.keep(restart);services.b;services.c;services.a.endpoints;"));
    config_apply(now.c, next.c);
    cr_assert(eq(uint, now.c->log.level, 3));
    cr_assert(eq(u64, now.c->api.wait_ms, 5000));
    cr_assert(eq(u64, now.c->callback.timeout_ms, 1000));
    cr_assert(not(now.c->callback.allow_loopback));
    cr_assert(eq(str, now.c->callback.deny.items[0], "10.0.0.0/8"));
    cr_assert(eq(u64, now.c->schedule.min_interval_ms, 5000));
    cr_assert(config_service(now.c, "b") == NULL);
    cr_assert(config_service(now.c, "c")->near);
    cr_assert(eq(str, config_service(now.c, "a")->endpoints[0].address, "a:2"));
    done(&now);
    done(&next);
}

Test(config, the_sample_reads_as_the_defaults)
{
    AUTO(buf_fini) struct buf sample = BUF_INIT(1 << 20);
    option_print_sample(config_table(), &sample);
    struct load a = load_good(buf_str(&sample), NULL, NULL), b = load_good(NULL, NULL, NULL);
    AUTO(buf_fini) struct buf out = BUF_INIT(10000);
    config_diff(a.c, b.c, note, &out);
    cr_assert(eq(str, (char *)buf_str(&out), ""));
    done(&a);
    done(&b);
}

Test(config, every_row_has_help_and_a_unique_key)
{
    for (const struct option_row *row = config_table()->rows; row->key; row++) {
        cr_assert(row->help && strlen(row->help) > 5, "%s", row->key);
        cr_assert(eq(chr, row->help[strlen(row->help) - 1], '.'), "%s", row->key);
        cr_assert(option_find(config_table(), row->key) == row, "%s", row->key);
    }
}

Test(config, files_that_are_no_configuration_are_errors_of_the_file)
{
    struct option_errors errors = {0};
    struct config *c = NULL;
    struct err e;
    cr_assert(eq(int, config_load("nowhere.yaml", NULL, 0, NULL, &c, &errors, &e), -ERR_NOT_FOUND));
    cr_assert(eq(sz, errors.lines.count, 1));
    cr_assert(strstr(errors.lines.items[0], "nowhere.yaml") != NULL);
    option_errors_fini(&errors);
    write_file("c.yaml", "a: [b\n");
    cr_assert(eq(int, config_load("c.yaml", NULL, 0, NULL, &c, &errors, &e), -ERR_INVALID));
    cr_assert(strncmp(errors.lines.items[0], "c.yaml:", 7) == 0, "%s", errors.lines.items[0]);
    option_errors_fini(&errors);
    cr_assert(c == NULL);
}

Test(config, every_failure_is_clean)
{
    write_file("c.yaml", "services: {a: {endpoints: ['a:1', {address: 'b:2'}]}}\napp: {port: 1}\n");
    write_file("secret", "x");
    const char *const sets[] = {"store.mysql.password_file=secret", "api.insecure=true",
                                "api.listen=0.0.0.0:1"};
    for (unsigned k = 0;; k++) {
        struct config *c = NULL;
        struct option_errors errors = {0};
        struct err e = {0};
        fault_arm(k);
        int r = config_load("c.yaml", sets, 3, NULL, &c, &errors, &e);
        bool fired = fault_fired();
        option_errors_fini(&errors);
        if (!fired) {
            cr_assert(zero(int, r), "%s", e.text);
            cr_assert(gt(uint, k, 50));
            config_free(c);
            break;
        }
        cr_assert(lt(int, r, 0), "k=%u", k);
        cr_assert(c == NULL, "k=%u", k);
    }
}

Test(config, merging_leaves_what_is_being_read_as_it_was)
{
    struct load start = load_good(
        "api: {wait: 1s}\nlog: {level: info}\nservices: {a: {endpoints: [{address: 'h:1'}]}}\n", NULL, NULL);
    struct load next = load_good("api: {listen: ['127.0.0.1:9']}\nlog: {level: debug}\n"
                                 "services: {b: {endpoints: [{address: 'h:2'}]}}\n",
                                 NULL, NULL);
    struct config *merged = config_merge(start.c, next.c);
    cr_assert(eq(uint, merged->log.level, next.c->log.level));
    cr_assert(eq(str, merged->api.listen.items[0], start.c->api.listen.items[0]));
    cr_assert(ne(ptr, (void *)config_service(merged, "b"), NULL));
    cr_assert(eq(ptr, (void *)config_service(merged, "a"), NULL));
    cr_assert(ne(ptr, (void *)config_service(start.c, "a"), NULL));
    cr_assert(ne(ptr, (void *)config_service(next.c, "b"), NULL));
    cr_assert(ne(uint, start.c->log.level, next.c->log.level));
    mem_free(merged);
    done(&start);
    done(&next);
}
