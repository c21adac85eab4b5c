/* Loading a configuration for a command that works with one. */
#ifndef CARILLON_AGENT_CLI_LOAD_H
#define CARILLON_AGENT_CLI_LOAD_H

#include "agent/cli/args.h"
#include "agent/config.h"

/* The --set texts of ARGS into SETS (ARGS_MAX places); how many. */
size_t load_sets(const struct cli_args *args, const char *sets[ARGS_MAX]);

/* FILE (may be NULL), the environment and SETS. NULL: every error was printed, a line each; *RET_CODE is the exit code. */
struct config *load_config(const struct cli *cli, const char *file, const char *const *sets,
                           size_t sets_count, int *ret_code);
/* The same for a program: what is wrong goes to the output, as {"errors": ["FILE:LINE: KEY: …", …], "more": how many were left out}. */
struct config *load_config_json(const struct cli *cli, const char *file, const char *const *sets,
                                size_t sets_count, int *ret_code);

#endif
