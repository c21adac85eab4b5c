/* What should have happened against what is recorded. */
#include "agent/base/buf.h"
#include "agent/base/json.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 1024
#define TEXT_MAX_BYTES 200

static long long number_of(const json_t *audit, const char *key)
{
    return (long long)json_integer_value(json_object_get(audit, key));
}

static void print_differences(const struct cli *cli, const json_t *list)
{
    static const char *const heads[] = {"NAMESPACE", "JOB", "KIND", "WHAT DIFFERS"};
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 4, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        show_cell(&t, "%.*s", TEXT_MAX_BYTES, show_string(one, "namespace"));
        show_cell(&t, "%.*s", TEXT_MAX_BYTES, show_string(one, "job"));
        show_cell(&t, "%.*s", TEXT_MAX_BYTES, show_string(one, "kind"));
        show_cell(&t, "%.*s", TEXT_MAX_BYTES, show_string(one, "detail"));
    }
    show_table_print(&t, cli->out);
}

static void print_audit(const struct cli *cli, const json_t *audit)
{
    if (number_of(audit, "differing") > 0)
        print_differences(cli, json_object_get(audit, "differences"));
    (void)fprintf(cli->out, "%lld jobs looked at, %lld differ\n", number_of(audit, "jobs"),
                  number_of(audit, "differing"));
    if (number_of(audit, "unsettled") > 0)
        (void)fprintf(cli->err, "warning: %lld jobs fire too often to be read at rest\n",
                      number_of(audit, "unsettled"));
    if (json_is_true(json_object_get(audit, "truncated")))
        (void)fprintf(cli->err, "warning: there are more jobs than were looked at\n");
}

int cmd_audit(struct cli *cli, const struct cli_args *args)
{
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    AUTO(client_free) struct client *c = client_open(cli, args);
    AUTO(json_decref) json_t *answer = NULL;
    if (!c)
        return CLI_USAGE;
    buf_add_str(&path, "/v1/audit");
    if (args_has(args, "--all-namespaces"))
        client_query(&path, "ns", "*");
    int code = client_ask(c, "GET", client_path_text(&path), NULL, &answer);
    if (code != CLI_OK)
        return code;
    if (args_has(args, "--json"))
        show_json(cli->out, answer);
    else
        print_audit(cli, answer);
    return number_of(answer, "differing") > 0 ? CLI_FAILED : CLI_OK;
}
