#include "agent/cli/commands.h"
#include "agent/cli/show.h"
#include "agent/version.h"

int cmd_version(struct cli *cli, const struct cli_args *args)
{
    if (args_has(args, "--json")) {
        json_t *v = json_pack("{s:s,s:s}", "version", version_text(), "commit", version_commit());
        show_json(cli->out, v);
        json_decref(v);
    } else if (*version_commit()) {
        (void)fprintf(cli->out, "carillon %s (%s)\n", version_text(), version_commit());
    } else {
        (void)fprintf(cli->out, "carillon %s\n", version_text());
    }
    return CLI_OK;
}
