#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/mem.h"
#include "agent/cli/commands.h"
#include "agent/cli/load.h"
#include "agent/cli/show.h"
#include "agent/store/dump/dump.h"

#define DIFFERENCES_SHOWN 20
#define SETS_MAX          20
#define VALUE_BYTES       1024
#define SET_BYTES         (VALUE_BYTES + 128)

/* A store as it was named, and the configuration that its parts make. */
struct named_store {
    const char *name;
    struct dump_place place;
    struct config *config;
    char sets[SETS_MAX][SET_BYTES];
    size_t sets_count;
};

static void add_set(struct named_store *s, const char *key, const char *value)
{
    if (value && value[0] && s->sets_count < SETS_MAX)
        (void)snprintf(s->sets[s->sets_count++], SET_BYTES, "store.mysql.%s=%s", key,
                       value); /* cut: refused */
}

/* "password_file=FILE&tls_mode=verify" */
static void add_query(struct named_store *s, const char *query)
{
    for (size_t n; query && *query; query += n + (query[n] == '&')) {
        char key[64], value[VALUE_BYTES];
        n = strcspn(query, "&");
        size_t name = strcspn(query, "=&");
        if (name >= sizeof(key) || name >= n || n - name > sizeof(value))
            continue;
        (void)snprintf(key, sizeof(key), "%.*s", (int)name, query);
        (void)snprintf(value, sizeof(value), "%.*s", (int)(n - name - 1), query + name + 1);
        add_set(s, key, value);
    }
}

/* Takes one part of URL, decoded, as an option. False: it has a password, which others could see. */
static bool add_parts(struct named_store *s, CURLU *url)
{
    static const struct {
        CURLUPart part;
        const char *key;
    } parts[] = {{CURLUPART_HOST, "host"},
                 {CURLUPART_PORT, "port"},
                 {CURLUPART_USER, "user"},
                 {CURLUPART_PATH, "database"}};
    char *text = NULL;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (curl_url_get(url, parts[i].part, &text, CURLU_URLDECODE) != CURLUE_OK)
            continue;
        add_set(s, parts[i].key, text + (parts[i].part == CURLUPART_PATH));
        curl_free(text);
    }
    if (curl_url_get(url, CURLUPART_QUERY, &text, CURLU_URLDECODE) == CURLUE_OK) {
        add_query(s, text);
        curl_free(text);
    }
    if (curl_url_get(url, CURLUPART_PASSWORD, &text, 0) != CURLUE_OK)
        return true;
    curl_free(text);
    return false;
}

/* CLI_OK, or what was answered. */
static int parse_mysql(const struct cli *cli, struct named_store *s)
{
    const char *sets[SETS_MAX];
    int code = CLI_OK;
    CURLU *url = curl_url();
    bool ok = url && curl_url_set(url, CURLUPART_URL, s->name, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK;
    bool secret = ok && !add_parts(s, url);
    curl_url_cleanup(url);
    if (!ok)
        return cli_fail(cli, CLI_USAGE, "'%s' is no mysql://[USER@]HOST[:PORT]/DATABASE", s->name);
    if (secret) {
        (void)cli_fail(cli, CLI_USAGE,
                       "a password on the command line can be seen by others"); /* returned below */
        cli_hint(cli, "put it into a file: mysql://user@host/database?password_file=FILE");
        return CLI_USAGE;
    }
    for (size_t i = 0; i < s->sets_count; i++)
        sets[i] = s->sets[i];
    s->config = load_config(cli, NULL, sets, s->sets_count, &code);
    if (!s->config)
        return code;
    s->place.driver = &dump_mysql;
    s->place.mysql = &s->config->store.mysql;
    return CLI_OK;
}

static int parse_store(const struct cli *cli, const char *flag, struct named_store *s)
{
    if (!s->name)
        return cli_fail(cli, CLI_USAGE, "%s is missing: raft:DIR or mysql://USER@HOST/DATABASE", flag);
    if (strncmp(s->name, "mysql://", 8) == 0)
        return parse_mysql(cli, s);
    if (strncmp(s->name, "raft:", 5) != 0 || s->name[5] == 0)
        return cli_fail(cli, CLI_USAGE, "%s: '%s' is neither raft:DIR nor mysql://USER@HOST/DATABASE", flag,
                        s->name);
    s->place.driver = &dump_raft;
    s->place.dir = s->name + 5;
    return CLI_OK;
}

/* --- copying ------------------------------------------------------------------------------------------------------- */

struct differences {
    const struct cli *cli;
    size_t count;
};

static void on_difference(void *arg, const char *text)
{
    struct differences *d = arg;
    if (++d->count > DIFFERENCES_SHOWN)
        return;
    AUTO(mem_free) char *clean = show_clean(text, false);
    (void)fprintf(d->cli->err, "difference: %s\n", clean);
}

static void print_counts(const struct cli *cli, const struct dump_counts *c, bool verified, bool json)
{
    json_t *o = json_object();
    for (int k = DUMP_MEMBER; k < DUMP_KIND_COUNT_; k++) {
        json_int_t n = (json_int_t)c->records[k];
        (void)json_object_set_new(o, dump_kind_name((enum dump_kind)k),
                                  json_integer(n)); /* only memory can lack */
        if (!json)
            (void)fprintf(cli->out, "%s%lld %s", k == DUMP_MEMBER ? "copied: " : ", ", (long long)n,
                          dump_kind_name((enum dump_kind)k));
    }
    (void)json_object_set_new(o, "dead_letters", json_integer((json_int_t)c->dead_letters)); /* as above */
    (void)json_object_set_new(o, "verified", json_boolean(verified));
    if (json)
        show_json(cli->out, o);
    else
        (void)fprintf(cli->out, " (%llu of the fires are dead letters)\n%s",
                      (unsigned long long)c->dead_letters,
                      verified ? "verified: all records are the same\n" : "");
    json_decref(o);
}

static int failed(const struct cli *cli, const struct err *e)
{
    (void)cli_fail(cli, CLI_FAILED, "%s", e->text); /* returned below */
    if (e->code != ERR_EXISTS && e->code != ERR_PERMANENT)
        cli_hint(
            cli,
            "nothing is lost: the source is as it was, and no agent uses the target; run the same command again");
    return CLI_FAILED;
}

static int copy(struct cli *cli, const struct cli_args *args, struct named_store *from,
                struct named_store *to)
{
    struct differences differences = {.cli = cli};
    struct dump_counts counts;
    struct err e = {0};
    bool verify = args_has(args, "--verify");
    if (strcmp(from->name, to->name) == 0)
        return cli_fail(cli, CLI_USAGE, "--from and --to are the same store");
    if (dump_copy(&from->place, &to->place, verify, on_difference, &differences, &counts, &e) < 0)
        return failed(cli, &e);
    print_counts(cli, &counts, verify, args_has(args, "--json"));
    return CLI_OK;
}

int cmd_store_copy(struct cli *cli, const struct cli_args *args)
{
    struct named_store *from = mem_new(struct named_store), *to = mem_new(struct named_store);
    from->name = args_get(args, "--from");
    to->name = args_get(args, "--to");
    int code = parse_store(cli, "--from", from);
    if (code == CLI_OK)
        code = parse_store(cli, "--to", to);
    if (code == CLI_OK)
        code = copy(cli, args, from, to);
    config_free(from->config);
    config_free(to->config);
    mem_free(from);
    mem_free(to);
    return code;
}
