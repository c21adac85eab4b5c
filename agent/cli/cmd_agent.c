#include "agent/agent.h"
#include "agent/cli/commands.h"
#include "agent/cli/load.h"

int cmd_agent(struct cli *cli, const struct cli_args *args)
{
    const char *sets[ARGS_MAX], *file = args_get(args, "--config");
    size_t sets_count = load_sets(args, sets);
    int code;
    struct config *c = load_config(cli, file, sets, sets_count, &code);
    if (!c) {
        cli_hint(cli, "`carillon config options` lists what there is");
        return code;
    }
    struct agent_start start = {.config_file = file, .sets = sets, .sets_count = sets_count, .config = c};
    struct err e;
    if (cli->agent_run(&start, &e) == 0)
        return CLI_OK;
    return e.text[0] ? cli_fail(cli, CLI_FAILED, "%s", e.text) : CLI_FAILED; /* else the log has told */
}
