#include "agent/cli/ask.h"

#include <assert.h>
#include <string.h>

#include "agent/base/json.h"
#include "agent/cli/client.h"
#include "agent/cli/show.h"

#define PATH_MAX_BYTES 8192
#define NAME_MAX_BYTES 32 /* of a flag */

int ask_and_print(struct cli *cli, const struct cli_args *args, const char *method, const char *path,
                  void (*print)(const struct cli *cli, const json_t *answer))
{
    AUTO(client_free) struct client *c = client_open(cli, args);
    AUTO(json_decref) json_t *answer = NULL;
    if (!c)
        return CLI_USAGE;
    int code = client_ask(c, method, path, NULL, &answer);
    if (code != CLI_OK)
        return code;
    if (args_has(args, "--json"))
        show_json(cli->out, answer);
    else
        print(cli, answer);
    return CLI_OK;
}

int ask_each(struct cli *cli, const struct cli_args *args, const struct ask_each *what)
{
    AUTO(client_free) struct client *c = client_open(cli, args);
    int worst = CLI_OK;
    if (!c)
        return CLI_USAGE;
    for (size_t i = 0; i < args->count && worst != CLI_UNREACHABLE; i++) {
        AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
        AUTO(json_decref) json_t *answer = NULL;
        client_path(&path, what->prefix, args->items[i], what->suffix);
        int code = client_ask(c, what->method, client_path_text(&path), what->body, &answer);
        if (code > worst)
            worst = code;
        if (code == CLI_OK && args_has(args, "--json"))
            show_json(cli->out, answer);
        else if (code == CLI_OK)
            what->print(cli, args->items[i], answer);
    }
    return worst;
}

static void query_name(char ret[NAME_MAX_BYTES], const char *flag)
{
    size_t len = strlen(flag + 2);
    assert(len < NAME_MAX_BYTES);
    for (size_t i = 0; i <= len; i++)
        ret[i] = flag[i + 2] == '-' ? '_' : flag[i + 2];
}

void ask_query(struct buf *out, const struct cli_args *args, const char *const *names)
{
    for (; *names; names++) {
        char name[NAME_MAX_BYTES];
        size_t at = 0;
        query_name(name, *names);
        for (const char *value; (value = args_next(args, *names, &at)) != NULL;)
            client_query(out, name, args_takes_value(args, *names) ? value : "true");
    }
}
