#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/option.h"
#include "agent/base/text.h"

struct config {
    int64_t port;
    bool ui;
    double ratio;
    uint64_t wait_ms;
    uint64_t body_bytes;
    char *name;
    char *dir;
    unsigned mode;
    char *address;
    struct option_list listen;
    struct option_list hosts;
    char *password;
    char *host;
    struct option_group_items services;
};

struct service {
    char *name;
    unsigned policy;
    int64_t max;
    uint64_t interval_ms;
    size_t endpoints; /* read by read_extra */
};

static const char *const modes[] = {"standalone", "consul", NULL};
static const char *const policies[] = {"p2c", "round_robin", NULL};
static const struct option_extra extras[] = {
    {.key = "endpoints",
     .allowed = "a list",
     .help = "Where.",
     .sample = "[\"127.0.0.1:8080\"]",
     .flags = OPTION_RELOAD},
    {0},
};

static int check_no_x(const char *text, struct err *e)
{
    return strchr(text, 'x') ? err_set(e, ERR_INVALID, "'%s' has an x", TEXTQ(text, strlen(text))) : 0;
}

static int read_endpoints(void *item, const char *key, const struct yaml_node *n, const char *file,
                          struct option_errors *errors, struct err *e)
{
    if (n->kind != YAML_LIST)
        return option_error_add(errors, e, "%s:%u: %s: must be a list", file, n->line, key);
    ((struct service *)item)->endpoints = n->count;
    return 0;
}

#define AT(field) .offset = offsetof(struct config, field)
#define IN(field) .offset = offsetof(struct service, field)
static const struct option_row rows[] = {
    {.key = "api.listen",
     .type = OPTION_LISTEN_LIST,
     AT(listen),
     .def = "127.0.0.1:7420",
     .min = 0,
     .max = 4,
     .help = "Where the API is served."},
    {.key = "api.hosts",
     .type = OPTION_STRING_LIST,
     AT(hosts),
     .flags = OPTION_RELOAD,
     .help = "Names.",
     .check = check_no_x},
    {.key = "api.port", .type = OPTION_INT, AT(port), .def = "80", .min = 1, .max = 65535, .help = "Port."},
    {.key = "api.ui",
     .type = OPTION_BOOL,
     AT(ui),
     .def = "true",
     .flags = OPTION_RELOAD,
     .help = "Serve the UI."},
    {.key = "api.ratio",
     .type = OPTION_DOUBLE,
     AT(ratio),
     .def = "0.2",
     .min = 0,
     .max = 1,
     .help = "A ratio."},
    {.key = "api.wait",
     .type = OPTION_DURATION,
     AT(wait_ms),
     .def = "5s",
     .min = 1,
     .max = 60000,
     .help = "How long."},
    {.key = "api.max_body",
     .type = OPTION_SIZE,
     AT(body_bytes),
     .def = "1MiB",
     .min = 1024,
     .max = 67108864,
     .help = "Largest body."},
    {.key = "store.name", .type = OPTION_STRING, AT(name), .min = 1, .max = 10, .help = "A name."},
    {.key = "store.dir", .type = OPTION_PATH, AT(dir), .def = "./data", .help = "A folder."},
    {.key = "store.mode",
     .type = OPTION_ENUM,
     AT(mode),
     .def = "standalone",
     .allowed = modes,
     .help = "A mode."},
    {.key = "store.mysql.address", .type = OPTION_HOST_PORT, AT(address), .help = "Where it is."},
    {.key = "store.mysql.password",
     .type = OPTION_STRING,
     AT(password),
     .flags = OPTION_SECRET,
     .min = 0,
     .max = 6,
     .help = "Secret."},
    {.key = "store.mysql.host", .type = OPTION_STRING, AT(host), .help = "Host."},
    {0},
};
static const struct option_row service_rows[] = {
    {.key = "policy",
     .type = OPTION_ENUM,
     IN(policy),
     .def = "p2c",
     .allowed = policies,
     .help = "How to choose."},
    {.key = "max", .type = OPTION_INT, IN(max), .def = "64", .min = 1, .max = 1000, .help = "Most."},
    {.key = "outlier.interval", .type = OPTION_DURATION, IN(interval_ms), .def = "10s", .help = "Window."},
    {0},
};
static const struct option_group groups[] = {
    {.section = "services",
     .rows = service_rows,
     .size_bytes = sizeof(struct service),
     .offset = offsetof(struct config, services),
     .items_max = 3,
     .help = "Per service.",
     .extras = extras,
     .read_extra = read_endpoints},
    {0},
};
static const char *const section_help[] = {"api", "The API.", "store.mysql", "MySQL.", NULL};
static const struct option_table table = {.rows = rows,
                                          .groups = groups,
                                          .size_bytes = sizeof(struct config),
                                          .env_prefix = "CARILLON",
                                          .section_help = section_help};

/* One fill; arrays end with NULL. */
struct run {
    struct config c;
    struct option_errors errors;
    struct err e;
    int r;
};

static struct run fill(const char *yaml, const char *const *env, const char *const *sets)
{
    struct run run = {.r = 0};
    AUTO(yaml_tree_free) struct yaml_tree *t = NULL;
    if (yaml)
        cr_assert(zero(int, yaml_tree_read("c.yaml", yaml, strlen(yaml), &t, &run.e)), "%s", run.e.text);
    struct option_sources src = {.file = t, .env = env, .sets = sets};
    while (sets && sets[src.sets_count])
        src.sets_count++;
    run.r = option_fill(&table, &src, &run.c, &run.errors, &run.e);
    return run;
}

static void done(struct run *run)
{
    option_fini(&table, &run->c);
    option_errors_fini(&run->errors);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(option, defaults_stand_when_nothing_is_given)
{
    struct run run = fill(NULL, NULL, NULL);
    cr_assert(zero(int, run.r), "%s", run.e.text);
    cr_assert(eq(i64, run.c.port, 80));
    cr_assert(run.c.ui);
    cr_assert(run.c.ratio == 0.2);
    cr_assert(eq(u64, run.c.wait_ms, 5000));
    cr_assert(eq(u64, run.c.body_bytes, 1048576));
    cr_assert(run.c.name == NULL);
    cr_assert(eq(str, run.c.dir, "./data"));
    cr_assert(eq(sz, run.c.listen.count, 1));
    cr_assert(eq(str, run.c.listen.items[0], "127.0.0.1:7420"));
    done(&run);
}

Test(option, set_beats_environment_beats_file_beats_default)
{
    const char *yaml = "api: {port: 1, wait: 1s, ui: false}\nstore: {mysql: {host: file}}\n";
    struct run run = fill(yaml, LIST("CARILLON_API_PORT=2", "CARILLON_STORE_MYSQL_HOST=env", "OTHER=1"),
                          LIST("api.port=3", "store.mode=consul"));
    cr_assert(zero(int, run.r), "%s", run.e.text);
    cr_assert(eq(i64, run.c.port, 3));
    cr_assert(eq(u64, run.c.wait_ms, 1000));
    cr_assert(not(run.c.ui));
    cr_assert(eq(str, run.c.host, "env"));
    cr_assert(eq(uint, run.c.mode, 1));
    done(&run);
}

static void expect_lines(const struct run *run, const char *const *lines)
{
    cr_assert(eq(int, run->r, -ERR_INVALID));
    size_t n = 0;
    for (; lines[n]; n++) {
        cr_assert(lt(sz, n, run->errors.lines.count), "missing: %s", lines[n]);
        cr_assert(eq(str, run->errors.lines.items[n], (char *)lines[n]));
    }
    cr_assert(eq(sz, run->errors.lines.count, n));
}

Test(option, every_error_of_a_file_is_listed_with_line_and_key)
{
    struct run run = fill(
        "api:\n  port: 0\n  prot: 1\n  ui: yes\n  wait: 2m\n  max_body: 1KB\n  listen: [\"a\", \"b:1\",\n  c]\n"
        "store:\n  mode: consl\n  name: 'much too long'\n  dir: [a]\n  mysql: x\n  host: y\nstoer: {}\n",
        NULL, NULL);
    expect_lines(
        &run,
        LIST("c.yaml:2: api.port: '0' is no whole number from 1 to 65535",
             "c.yaml:3: 'api.prot' is not known; did you mean 'api.port'?",
             "c.yaml:4: api.ui: 'yes' is not true or false",
             "c.yaml:5: api.wait: '2m' is out of range, allowed: a duration from 1ms to 1m",
             "c.yaml:6: api.max_body: '1KB' is no size; write bytes, or 64KiB, 1MiB, 2GiB",
             "c.yaml:7: api.listen: 'a' is no listener: write host:port, [::1]:port or unix:/path",
             "c.yaml:8: api.listen: 'c' is no listener: write host:port, [::1]:port or unix:/path",
             "c.yaml:10: store.mode: 'consl' is not one of standalone, consul",
             "c.yaml:11: store.name: 'much too long' is out of range, allowed: a text of 1 to 10 bytes",
             "c.yaml:12: store.dir: must be a text, not a list",
             "c.yaml:13: store.mysql: must be a map, not a text", "c.yaml:14: 'store.host' is not known",
             "c.yaml:15: 'stoer' is not known; did you mean 'store'?"));
    done(&run);
}

Test(option, errors_of_environment_and_flags_name_their_source)
{
    struct run run = fill(
        "a: 1", LIST("CARILLON_API_PORT=x", "CARILLON_STORE_MOD=1", "CARILLON_STORE_MYSQL_PASSWORD=toolong"),
        LIST("api.prt=1", "nonsense", "=1", "api.wait=0s"));
    expect_lines(
        &run,
        LIST(
            "c.yaml:1: 'a' is not known",
            "environment CARILLON_API_PORT: api.port: 'x' is no whole number from 1 to 65535",
            "environment: 'CARILLON_STORE_MOD' is not known; did you mean 'CARILLON_STORE_MODE'?",
            "environment CARILLON_STORE_MYSQL_PASSWORD: store.mysql.password: the value (not shown) is not allowed",
            "--set: 'api.prt' is not known; did you mean 'api.port'?",
            "--set: 'nonsense': write section.key=value", "--set: '=1': write section.key=value",
            "--set: api.wait: '0s' is out of range, allowed: a duration from 1ms to 1m"));
    cr_assert(strncmp(run.e.text, "8 errors, the first: c.yaml:1", 29) == 0, "%s", run.e.text);
    done(&run);
}

Test(option, variables_that_are_no_options_are_left_alone)
{
    struct run run =
        fill(NULL,
             LIST("CARILLON_ADDR=x", "CARILLON_TOKEN=y", "CARILLON=1", "CARILLON_SERVICE_HOST=10.0.0.1",
                  "CARILLON_API_SERVICE_PORT=80", "CARILLON_API_PORT=tcp://10.0.0.1:80",
                  "CARILLON_API_PORT_80_TCP_ADDR=10.0.0.1", "CARILLON_STORE_SERVICE_HOST=a", "noequals"),
             NULL);
    cr_assert(zero(int, run.r), "%s", run.e.text);
    cr_assert(eq(i64, run.c.port, 80));
    done(&run);
}

Test(option, lists_come_as_list_text_or_commas)
{
    struct run run =
        fill("api: {listen: ['127.0.0.1:1', 'unix:/run/c.sock'], hosts: one}", NULL, LIST("api.hosts=a,b"));
    cr_assert(zero(int, run.r), "%s", run.e.text);
    cr_assert(eq(sz, run.c.listen.count, 2));
    cr_assert(eq(sz, run.c.hosts.count, 2));
    cr_assert(eq(str, run.c.hosts.items[1], "b"));
    done(&run);
    run = fill("api: {listen: []}", NULL, LIST("api.hosts="));
    cr_assert(zero(int, run.r), "%s", run.e.text);
    cr_assert(zero(sz, run.c.listen.count));
    done(&run);
    run = fill("api: {listen: [a:1, b:1, c:1, d:1, e:1], hosts: [a, {b: c}]}", NULL,
               LIST("api.hosts=a,,b", "api.hosts=ax"));
    expect_lines(&run, LIST("c.yaml:1: api.listen: more than 4 items",
                            "c.yaml:1: api.hosts: item 2 must be a text, not a map",
                            "--set: api.hosts: '' has 0 bytes, allowed are 1 to 1024",
                            "--set: api.hosts: 'ax' has an x"));
    done(&run);
}

Test(option, groups_have_an_entry_for_each_name)
{
    struct run run =
        fill("services:\n  pay.v2: {max: 5, outlier: {interval: 1s}, endpoints: [a, b]}\n  billing:\n",
             LIST("CARILLON_SERVICES_PAY_V2_MAX=6", "CARILLON_SERVICES_BILLING_OUTLIER_INTERVAL=3s"),
             LIST("services.pay.v2.policy=round_robin", "services.new.max=7"));
    cr_assert(zero(int, run.r), "%s", run.e.text);
    cr_assert(eq(sz, run.c.services.count, 3));
    struct service **s = (struct service **)run.c.services.items;
    cr_assert(eq(str, s[0]->name, "billing"));
    cr_assert(eq(u64, s[0]->interval_ms, 3000));
    cr_assert(eq(i64, s[0]->max, 64));
    cr_assert(eq(str, s[1]->name, "new"));
    cr_assert(eq(i64, s[1]->max, 7));
    cr_assert(eq(str, s[2]->name, "pay.v2"));
    cr_assert(eq(i64, s[2]->max, 6));
    cr_assert(eq(u64, s[2]->interval_ms, 1000));
    cr_assert(eq(uint, s[2]->policy, 1));
    cr_assert(eq(sz, s[2]->endpoints, 2));
    done(&run);
}

Test(option, errors_inside_groups_name_the_entry)
{
    struct run run = fill(
        "services:\n  a: {maxx: 1, max: 0, outlier: {intervall: 1s}}\n  'b c': {}\n  d: 1\n  e: {endpoints: 1}\n  f: {}\n",
        LIST("CARILLON_SERVICES_X_MAX=1"),
        LIST("services..max=1", "services.max=1", "services.e.endpoints=h:1", "services.e.polici=x"));
    expect_lines(
        &run,
        LIST(
            "c.yaml:2: 'services.a.maxx' is not known; did you mean 'services.a.max'?",
            "c.yaml:2: services.a.max: '0' is no whole number from 1 to 1000",
            "c.yaml:2: 'services.a.outlier.intervall' is not known; did you mean 'services.a.outlier.interval'?",
            "c.yaml:3: services: 'b c' is no name: 1 to 63 of A-Z a-z 0-9 . _ -",
            "c.yaml:4: services.d: must be a map, not a text", "c.yaml:5: endpoints: must be a list",
            "c.yaml:6: services: more than 3 entries", "environment: 'CARILLON_SERVICES_X_MAX' is not known",
            "--set: 'services..max' is not known; services.<name>.max is",
            "--set: 'services.max' is not known; services.<name>.max is",
            "--set: 'services.e.endpoints' is no single value: write it into the file",
            "--set: 'services.e.polici' is not known; services.<name>.policy is"));
    done(&run);
}

Test(option, effective_values_print_and_read_back)
{
    struct run run = fill(
        "api: {listen: ['[::1]:0', 'unix:/a b'], hosts: ['~', '#', 'a: b']}\nstore: {name: 'null', dir: ''}\n"
        "services: {a: {max: 9}}\n",
        NULL, LIST("store.mysql.password=hunter"));
    cr_assert(zero(int, run.r), "%s", run.e.text);
    AUTO(buf_fini) struct buf out = BUF_INIT(10000);
    option_print_config(&table, &run.c, &out);
    cr_assert(strstr(buf_str(&out), "hunter") == NULL);
    struct run back = fill(buf_str(&out), NULL, LIST("store.mysql.password=hunter"));
    cr_assert(zero(int, back.r), "%s\n%s", back.e.text, buf_str(&out));
    for (const struct option_row *row = rows; row->key; row++)
        cr_assert(option_equal(row, &run.c, &back.c), "%s\n%s", row->key, buf_str(&out));
    cr_assert(eq(i64, ((struct service *)back.c.services.items[0])->max, 9));
    done(&run);
    done(&back);
}

Test(option, the_sample_reads_as_the_defaults_and_names_everything)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(20000);
    option_print_sample(&table, &out);
    struct run sample = fill(buf_str(&out), NULL, NULL), plain = fill(NULL, NULL, NULL);
    cr_assert(zero(int, sample.r), "%s\n%s", sample.e.text, buf_str(&out));
    for (const struct option_row *row = rows; row->key; row++) {
        cr_assert(option_equal(row, &sample.c, &plain.c), "%s", row->key);
        cr_assert(strstr(buf_str(&out), row->help) != NULL, "%s", row->key);
    }
    cr_assert(strstr(buf_str(&out), "CARILLON_STORE_MYSQL_HOST") != NULL);
    cr_assert(strstr(buf_str(&out), "# MySQL.\n") != NULL);
    cr_assert(strstr(buf_str(&out), "  #    interval: 10s\n") != NULL, "%s", buf_str(&out));
    done(&sample);
    done(&plain);
}

Test(option, rows_list_has_a_line_an_option)
{
    AUTO(buf_fini) struct buf out = BUF_INIT(20000);
    option_print_rows(&table, &out);
    cr_assert(strstr(buf_str(&out), "api.wait\ta duration from 1ms to 1m\t5s\tno\tHow long.\n") != NULL, "%s",
              buf_str(&out));
    cr_assert(strstr(buf_str(&out), "services.<name>.max\ta whole number from 1 to 1000\t64\tno\tMost.\n") !=
              NULL);
}

static void note(void *arg, const char *key, const struct option_row *row)
{
    buf_addf(arg, "%s%s;", key, row ? row->flags & OPTION_RELOAD ? "(reload)" : "" : "(entry)");
}

Test(option, differences_are_named)
{
    struct run a = fill("api: {ui: true, hosts: [a]}\nservices: {x: {}, y: {max: 1}}", NULL, NULL);
    struct run b =
        fill("api: {ui: false, hosts: [a]}\nstore: {name: n}\nservices: {y: {max: 2}, z: {}}", NULL, NULL);
    AUTO(buf_fini) struct buf out = BUF_INIT(1000);
    option_diff(&table, &a.c, &b.c, note, &out);
    cr_assert(eq(str, (char *)buf_str(&out),
                 "api.ui(reload);store.name;services.x(entry);services.y.max;services.z(entry);"));
    buf_reset(&out);
    option_diff(&table, &a.c, &a.c, note, &out);
    cr_assert(eq(str, (char *)buf_str(&out), ""));
    done(&a);
    done(&b);
}

Test(option, rows_are_found_by_key)
{
    cr_assert(eq(str, (char *)option_find(&table, "store.mysql.host")->key, "store.mysql.host"));
    cr_assert(eq(str, (char *)option_find(&table, "services.a.b.outlier.interval")->key, "outlier.interval"));
    cr_assert(option_find(&table, "store.mysql") == NULL);
    cr_assert(option_find(&table, "services.max") == NULL);
}

Test(option, every_failure_is_clean)
{
    const char *yaml =
        "api: {listen: [a:1, b:2], hosts: [x]}\nstore: {name: n, bad: 1}\nservices: {a: {max: 1}, b: {endpoints: [a]}}\n";
    AUTO(yaml_tree_free) struct yaml_tree *t = NULL;
    cr_assert(zero(int, yaml_tree_read("c", yaml, strlen(yaml), &t, NULL)));
    const char *const sets[] = {"services.c.max=3", "api.hosts=a,b", "x.y=1"};
    struct option_sources src = {.file = t, .sets = sets, .sets_count = 3};
    for (unsigned k = 0;; k++) {
        struct config c;
        struct option_errors errors = {0};
        struct err e = {0};
        fault_arm(k);
        int r = option_fill(&table, &src, &c, &errors, &e);
        bool fired = fault_fired();
        option_errors_fini(&errors);
        if (!fired) {
            cr_assert(eq(int, r, -ERR_INVALID));
            cr_assert(gt(uint, k, 20));
            break;
        }
        cr_assert(eq(int, r, -ERR_NOMEM), "k=%u: %d %s", k, r, e.text);
    }
}

Test(option, texts_and_addresses_are_checked)
{
    struct run run = fill(NULL, NULL,
                          LIST("store.mysql.host=a\nb", "store.mysql.host=\xff", "store.mysql.address=nohost",
                               "api.listen=unix:relative", "store.name="));
    expect_lines(
        &run,
        LIST(
            "--set: store.mysql.host: 'a?b' contains control characters",
            "--set: store.mysql.host: '?' is not UTF-8",
            "--set: store.mysql.address: 'nohost' is no address: write host:port, or [::1]:port; port 1 to 65535",
            "--set: api.listen: 'unix:relative': write unix:/path, up to 107 bytes",
            "--set: store.name: '' is out of range, allowed: a text of 1 to 10 bytes"));
    done(&run);
    run = fill(NULL, NULL, LIST("store.mysql.address=db:3306", "api.listen=unix:/run/x,[::1]:0"));
    cr_assert(zero(int, run.r), "%s", run.e.text);
    cr_assert(eq(str, run.c.address, "db:3306"));
    done(&run);
}

Test(option, errors_are_bounded_and_counted)
{
    const char *sets[OPTION_ERRORS_MAX + 30];
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        sets[i] = "api.port=x";
    struct option_sources src = {.sets = sets, .sets_count = sizeof(sets) / sizeof(sets[0])};
    struct run run = {.r = 0};
    run.r = option_fill(&table, &src, &run.c, &run.errors, &run.e);
    cr_assert(eq(int, run.r, -ERR_INVALID));
    cr_assert(eq(sz, run.errors.lines.count, OPTION_ERRORS_MAX));
    cr_assert(eq(sz, run.errors.dropped, 30));
    cr_assert(zero(int, strncmp(run.e.text, "130 errors, the first: ", 23)), "%s", run.e.text);
    done(&run);
}
