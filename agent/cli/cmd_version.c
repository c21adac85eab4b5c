#include "agent/cli/commands.h"
#include "agent/cli/show.h"
#include "agent/store/store_version.h"
#include "agent/version.h"

int cmd_version(struct cli *cli, const struct cli_args *args)
{
    if (args_has(args, "--json")) {
        json_t *v = json_pack("{s:s,s:s,s:i}", "version", version_text(), "commit", version_commit(), "store",
                              STORE_VERSION);
        show_json(cli->out, v);
        json_decref(v);
    } else if (*version_commit()) {
        (void)fprintf(cli->out, "carillon %s (%s), store version %d\n", version_text(), version_commit(),
                      STORE_VERSION);
    } else {
        (void)fprintf(cli->out, "carillon %s, store version %d\n", version_text(), STORE_VERSION);
    }
    return CLI_OK;
}
