#include <stdio.h>

#include "agent/agent.h"
#include "agent/base/clock.h"
#include "agent/cli/cli.h"

int main(int argc, char **argv, char **envp)
{
    struct cli cli = {
        .in = stdin,
        .out = stdout,
        .err = stderr,
        .env = (const char *const *)envp,
        .now_ms = clock_wall_ms,
        .wait_ms = clock_wait_ms,
        .agent_run = agent_run,
    };
    return cli_run(&cli, argc, (const char *const *)argv);
}
