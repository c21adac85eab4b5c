#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "agent/base/json.h"
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

static bool add_set(struct named_store *s, const char *key, const char *value)
{
    return s->sets_count < SETS_MAX &&
           snprintf(s->sets[s->sets_count++], SET_BYTES, "store.mysql.%s=%s", key, value) < SET_BYTES;
}

/* TEXT without its escapes; NULL: it holds what no option can, or there is no memory. The caller's to curl_free(). */
static char *unescape(const char *text, size_t len)
{
    int bytes = 0;
    char *plain = fault_hit() ? NULL : curl_easy_unescape(NULL, text, (int)len, &bytes);
    if (!plain || strlen(plain) == (size_t)bytes)
        return plain;
    curl_free(plain);
    return NULL;
}

/* "password_file=FILE&tls_mode=verify" */
static bool add_query(struct named_store *s, const char *query)
{
    bool ok = true;
    for (size_t n; ok && *query; query += n + (query[n] == '&')) {
        n = strcspn(query, "&");
        size_t name = strcspn(query, "=&");
        if (n > VALUE_BYTES || name == 0 || name == n)
            return false;
        char *key = unescape(query, name), *value = unescape(query + name + 1, n - name - 1);
        ok = key && value && add_set(s, key, value);
        curl_free(key);
        curl_free(value);
    }
    return ok;
}

/* A part of URL, to be freed with curl_free(); NULL: it has none. False: it cannot be read. */
static bool get_part(CURLU *url, CURLUPart part, unsigned flags, char **ret)
{
    *ret = NULL;
    switch ((int)curl_url_get(url, part, ret, flags)) {
    case CURLUE_OK:
    case CURLUE_NO_USER:
    case CURLUE_NO_PASSWORD:
    case CURLUE_NO_PORT:
    case CURLUE_NO_QUERY:
    case CURLUE_NO_FRAGMENT:
        return true;
    default:
        return false;
    }
}

/* An IPv6 address stands in brackets in a URL. */
static const char *bare_host(char *host)
{
    size_t len = strlen(host);
    if (host[0] != '[' || host[len - 1] != ']')
        return host;
    host[len - 1] = '\0';
    return host + 1;
}

/* Others could see a password; what stands behind a '#' would be left out. */
static bool has_part(CURLU *url, CURLUPart part)
{
    char *text;
    bool has = !get_part(url, part, 0, &text) || text;
    curl_free(text);
    return has;
}

/* Takes the parts of URL, decoded, as options. */
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
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof(parts) / sizeof(parts[0]); i++) {
        ok = get_part(url, parts[i].part, CURLU_URLDECODE, &text);
        const char *value = !ok || !text                      ? NULL
                            : parts[i].part == CURLUPART_PATH ? text + 1
                            : parts[i].part == CURLUPART_HOST ? bare_host(text)
                                                              : text;
        ok = ok && (!value || (value[0] && add_set(s, parts[i].key, value)));
        curl_free(text);
        text = NULL;
    }
    ok = ok && get_part(url, CURLUPART_QUERY, 0, &text) && (!text || add_query(s, text));
    curl_free(text);
    return ok;
}

/* CLI_OK, or what was answered. */
static int parse_mysql(const struct cli *cli, struct named_store *s)
{
    const char *sets[SETS_MAX];
    int code = CLI_OK;
    CURLU *url = curl_url();
    bool ok = url && curl_url_set(url, CURLUPART_URL, s->name, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK;
    bool secret = ok && has_part(url, CURLUPART_PASSWORD);
    ok = ok && !has_part(url, CURLUPART_FRAGMENT) && add_parts(s, url);
    curl_url_cleanup(url);
    if (secret) {
        (void)cli_fail(cli, CLI_USAGE,
                       "a password on the command line can be seen by others"); /* returned below */
        cli_hint(cli, "put it into a file: mysql://user@host/database?password_file=FILE");
        return CLI_USAGE;
    }
    if (!ok)
        return cli_fail(cli, CLI_USAGE, "'%s' is no mysql://[USER@]HOST[:PORT]/DATABASE[?OPTION=VALUE&…]",
                        s->name);
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

static void print_json(const struct cli *cli, const struct dump_counts *c, bool verified)
{
    AUTO(json_decref) json_t *o = json_object();
    struct err e;
    int r = 0;
    for (int k = DUMP_MEMBER; r == 0 && k < DUMP_KIND_COUNT_; k++)
        r = json_set(o, dump_kind_name((enum dump_kind)k), json_integer((json_int_t)c->records[k]), &e);
    if (r == 0)
        r = json_set(o, "dead_letters", json_integer((json_int_t)c->dead_letters), &e);
    if (r == 0)
        r = json_set(o, "verified", json_boolean(verified), &e);
    show_json(cli->out, r == 0 ? o : NULL);
}

static void print_counts(const struct cli *cli, const struct dump_counts *c, bool verified)
{
    for (int k = DUMP_MEMBER; k < DUMP_KIND_COUNT_; k++)
        (void)fprintf(cli->out, "%s%llu %s", k == DUMP_MEMBER ? "copied: " : ", ",
                      (unsigned long long)c->records[k], dump_kind_name((enum dump_kind)k));
    (void)fprintf(cli->out, " (%llu of the fires are dead letters)\n%s", (unsigned long long)c->dead_letters,
                  verified ? "verified: all records are the same\n" : "");
}

static int failed(const struct cli *cli, const struct err *e)
{
    int code = cli_fail(cli, e->code == ERR_NOT_FOUND ? CLI_NOT_FOUND : CLI_FAILED, "%s", e->text);
    if (e->code != ERR_EXISTS && e->code != ERR_PERMANENT && e->code != ERR_NOT_FOUND)
        cli_hint(
            cli,
            "nothing is lost: the source is as it was, and no agent uses the target; run the same command again");
    return code;
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
    if (args_has(args, "--json"))
        print_json(cli, &counts, verify);
    else
        print_counts(cli, &counts, verify);
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
