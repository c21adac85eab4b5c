/* The command line: which command was meant, its flags and arguments, help, and the words and exit codes that all commands
 * share. A command is a function in a file of its own and a row of the table in commands.c. Main thread only. */
#ifndef CARILLON_AGENT_CLI_CLI_H
#define CARILLON_AGENT_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/base/err.h"

struct agent_start;

enum cli_exit {
    CLI_OK,
    CLI_FAILED,     /* asked for something that did not work */
    CLI_USAGE,      /* the command line is wrong */
    CLI_NOT_FOUND,  /* there is no such job, service … */
    CLI_UNREACHABLE /* no agent answered */
};

/* What a run has from outside; all borrowed. */
struct cli {
    FILE *in, *out, *err;
    const char *const *env; /* as environ */
    int64_t (*now_ms)(void);
    void (*wait_ms)(unsigned ms); /* lets so much time pass */
    /* What `agent` runs. */
    int (*agent_run)(const struct agent_start *start, struct err *e);
};

/* Run the command line ARGV. The result is the exit code. */
int cli_run(struct cli *cli, int argc, const char *const *argv);

/* "carillon: " and the text, as a line on the error output. Returns CODE. */
int cli_fail(const struct cli *cli, enum cli_exit code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with "hint: ", for what to do next. */
void cli_hint(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Value of a variable of the environment, NULL when not set or empty. */
const char *cli_env(const struct cli *cli, const char *name);

#endif
