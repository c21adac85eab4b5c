#include <string.h>

#include "agent/base/json.h"
#include "agent/base/text.h"
#include "agent/cli/ask.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 8192

static long long number(const json_t *obj, const char *key)
{
    return (long long)json_integer_value(json_object_get(obj, key));
}

/* --- cluster ------------------------------------------------------------------------------------------------------- */

static void print_members(const struct cli *cli, const json_t *cluster)
{
    static const char *const heads[] = {"MEMBER", "ADDRESS", "STATE",  "SLOTS",  "ZONE",
                                        "WEIGHT", "VERSION", "CONFIG", "STARTED"};
    const json_t *members = json_object_get(cluster, "members");
    const char *self = show_string(cluster, "self");
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 9, heads);
    for (size_t i = 0; i < json_array_size(members); i++) {
        const json_t *m = json_array_get(members, i);
        char started[SHOW_BOTH_SIZE];
        show_both(started, json_object_get(m, "started_at"), cli->now_ms());
        show_cell(&t, "%s%s", show_string(m, "name"), strcmp(show_string(m, "id"), self) == 0 ? " *" : "");
        show_cell(&t, "%s", show_string(m, "address"));
        show_cell(&t, "%s", show_string(m, "state"));
        show_cell(&t, "%lld", number(m, "slots"));
        show_cell(&t, "%s", show_string(m, "zone"));
        show_cell(&t, "%lld", number(m, "weight"));
        show_cell(&t, "%s", show_string(m, "version"));
        show_cell(&t, "%.8s", show_string(m, "config_digest"));
        show_cell(&t, "%s", started);
    }
    show_table_print(&t, cli->out);
}

static const char *yes_no(const json_t *obj, const char *key)
{
    return json_is_true(json_object_get(obj, key)) ? "yes" : "no";
}

static void print_voters(const struct cli *cli, const json_t *raft)
{
    static const char *const heads[] = {"VOTER", "NAME", "ADDRESS", "STATE", "VOTES", "REACHED", "LAG"};
    const json_t *voters = json_object_get(raft, "voters"), *waits = json_object_get(raft, "waits_for");
    long long leader = number(raft, "leader");
    (void)fprintf(cli->out, "\nlog: term %lld, this agent: %s\n", number(raft, "term"),
                  show_string(raft, "role"));
    if (strcmp(show_string(raft, "role"), "removed") == 0)
        (void)fprintf(cli->out, "its voter was replaced: start the agent anew to let it vote again\n");
    if (json_is_string(waits))
        (void)fprintf(cli->out, "waits: %s\n", show_string(raft, "waits_for"));
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 7, heads);
    for (size_t i = 0; i < json_array_size(voters); i++) {
        const json_t *v = json_array_get(voters, i);
        bool leads = leader != 0 && number(v, "number") == leader;
        show_cell(&t, "%lld", number(v, "number"));
        show_cell(&t, "%s", show_string(v, "name"));
        show_cell(&t, "%s", show_string(v, "address"));
        show_cell(&t, "%s%s", show_string(v, "state"), leads ? ", leads" : "");
        show_cell(&t, "%s", yes_no(v, "votes"));
        show_cell(&t, "%s", yes_no(v, "reached"));
        if (json_is_integer(json_object_get(v, "lag")))
            show_cell(&t, "%lld", number(v, "lag"));
        else
            show_cell(&t, "-");
    }
    show_table_print(&t, cli->out);
}

static const char *health(const json_t *part)
{
    return json_is_true(json_object_get(part, "ok")) ? "ok" : "NOT OK";
}

static void print_cluster(const struct cli *cli, const json_t *cluster)
{
    const json_t *slots = json_object_get(cluster, "slots"), *store = json_object_get(cluster, "store");
    const json_t *consul = json_object_get(cluster, "consul");
    AUTO(buf_fini) struct buf text = BUF_INIT(4096);
    buf_addf(&text, "cluster %s (%s)  slots %lld, owned here %lld, unowned %lld, moving %lld  store %s %s",
             show_string(cluster, "cluster"), show_string(cluster, "mode"), number(slots, "total"),
             number(slots, "owned_here"), number(slots, "unowned"), number(slots, "moving"),
             show_string(store, "driver"), health(store));
    if (strcmp(show_string(cluster, "mode"), "consul") == 0)
        buf_addf(&text, "  consul %s", health(consul));
    AUTO(mem_free) char *clean = show_clean(show_text(&text), false);
    (void)fprintf(cli->out, "%s\n\n", clean);
    print_members(cli, cluster);
    if (json_is_object(json_object_get(store, "raft")))
        print_voters(cli, json_object_get(store, "raft"));
}

int cmd_cluster_status(struct cli *cli, const struct cli_args *args)
{
    return ask_and_print(cli, args, "GET", "/v1/cluster", print_cluster);
}

static void print_owner(const struct cli *cli, const json_t *owner)
{
    static const char *const keys[] = {"id", "namespace", "slot", "epoch", "name", "owner", "address"};
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 2, NULL);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        AUTO(mem_free) char *value = show_compact(json_object_get(owner, keys[i]), 200);
        show_cell(&t, "%s", keys[i]);
        show_cell(&t, "%s", value);
    }
    show_table_print(&t, cli->out);
}

int cmd_cluster_owner(struct cli *cli, const struct cli_args *args)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    client_path(&path, "/v1/cluster/owner/", args->items[0], "");
    return ask_and_print(cli, args, "GET", client_path_text(&path), print_owner);
}

/* --- service ------------------------------------------------------------------------------------------------------- */

static void print_service(const struct cli *cli, const json_t *service)
{
    static const char *const heads[] = {"ENDPOINT", "HEALTH",   "WEIGHT",       "IN FLIGHT",
                                        "LATENCY",  "FAILURES", "EJECTED UNTIL"};
    const json_t *endpoints = json_object_get(service, "endpoints");
    AUTO(mem_free) char *name = show_compact(json_object_get(service, "service"), 200);
    AUTO(mem_free) char *policy = show_compact(json_object_get(service, "policy"), 200);
    (void)fprintf(cli->out, "service %s (%s)\n", name, policy);
    (void)fprintf(cli->out, "from this agent: %lld in flight, %lld waiting\n", number(service, "in_flight"),
                  number(service, "waiting"));
    if (json_is_number(json_object_get(service, "rate")))
        (void)fprintf(cli->out, "at most %g a second, %g of them from this agent\n",
                      json_number_value(json_object_get(service, "rate")),
                      json_number_value(json_object_get(service, "rate_here")));
    if (json_array_size(endpoints) == 0) {
        (void)fputs("no endpoints: its fires wait\n", cli->out);
        return;
    }
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 7, heads);
    for (size_t i = 0; i < json_array_size(endpoints); i++) {
        const json_t *one = json_array_get(endpoints, i), *latency = json_object_get(one, "latency_ms");
        char until[SHOW_BOTH_SIZE];
        show_both(until, json_object_get(one, "ejected_until"), cli->now_ms());
        show_cell(&t, "%s", show_string(one, "address"));
        show_cell(&t, "%s", show_string(one, "health"));
        show_cell(&t, "%lld", number(one, "weight"));
        show_cell(&t, "%lld", number(one, "in_flight"));
        if (json_is_number(latency))
            show_cell(&t, "%.1f ms", json_number_value(latency));
        else
            show_cell(&t, "-");
        show_cell(&t, "%lld", number(one, "failures"));
        show_cell(&t, "%s", until);
    }
    show_table_print(&t, cli->out);
}

int cmd_service_get(struct cli *cli, const struct cli_args *args)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    client_path(&path, "/v1/services/", args->items[0], "");
    return ask_and_print(cli, args, "GET", client_path_text(&path), print_service);
}
