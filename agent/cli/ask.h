/* Requests to an agent whose answer is all that a command prints. */
#ifndef CARILLON_AGENT_CLI_ASK_H
#define CARILLON_AGENT_CLI_ASK_H

#include <jansson.h>

#include "agent/base/buf.h"
#include "agent/cli/args.h"

/* Ask for PATH with METHOD and print the answer: as it is with --json, else by PRINT. Returns the exit code; what went wrong has
 * been printed. The same holds for the other. */
int ask_and_print(struct cli *cli, const struct cli_args *args, const char *method, const char *path,
                  void (*print)(const struct cli *cli, const json_t *answer));

struct ask_each {
    const char *method;
    const char *prefix; /* of the path, before each argument: "/v1/jobs/" */
    const char *suffix; /* ... and after it */
    const json_t *body; /* NULL: none */
    void (*print)(const struct cli *cli, const char *id, const json_t *answer);
};
/* The same request for each argument of the command. All are tried while an agent answers; the worst exit code counts. */
int ask_each(struct cli *cli, const struct cli_args *args, const struct ask_each *what);

/* Append those of the flags NAMES (NULL ends them) that were given to OUT, as a query with the same names: --dry-run is "dry_run=",
 * a switch is "true". */
void ask_query(struct buf *out, const struct cli_args *args, const char *const *names);

#endif
