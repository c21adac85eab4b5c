/* `carillon bench` as a step that can be run with other waits. */
#ifndef CARILLON_AGENT_CLI_BENCH_H
#define CARILLON_AGENT_CLI_BENCH_H

#include <stdint.h>

#include "agent/cli/args.h"

struct bench_pace {
    int64_t settle_ms; /* from the creation of what is due each second to the first due that counts */
    int64_t linger_ms; /* what is on its way is waited for at least so long after the last one */
};

/* The command with its times of PACE. */
int bench_run(struct cli *cli, const struct cli_args *args, const struct bench_pace *pace);

#endif
