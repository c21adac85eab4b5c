/* Flags and arguments of one command, read by its row of the command table. Borrow ARGV and the table. */
#ifndef CARILLON_AGENT_CLI_ARGS_H
#define CARILLON_AGENT_CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/cli/cli.h"

struct cli_args;

struct cli_flag {
    const char *name;  /* "--file" */
    const char *value; /* "FILE"; NULL: a switch */
    const char *help;
    char letter; /* 'f' for -f; 0: none */
    bool many;   /* may be given more than once */
};

struct cli_command {
    const char *name;             /* "job apply", "next" */
    const char *group;            /* headline that it stands under in the list of commands */
    const char *usage;            /* what follows the name */
    const char *help;             /* one line */
    const char *more;             /* further lines of its help, each ends with a newline; may be NULL */
    const struct cli_flag *flags; /* ends with name == NULL; may be NULL */
    bool remote;                  /* talks to an agent: the flags of that come with it */
    bool no_json;                 /* what it prints is not for programs, or is so by itself */
    size_t args_min, args_max;    /* arguments that are no flags */
    int (*run)(struct cli *cli, const struct cli_args *args);
};

/* All commands in the order of the help; ends with name == NULL. */
const struct cli_command *cli_commands(void);
/* --addr, --ns, --token-file, of the remote commands; and those that commands have without naming them. */
const struct cli_flag *cli_remote_flags(void);
const struct cli_flag *cli_common_flags(const struct cli_command *c);

#define ARGS_MAX 64 /* flags given, and arguments, of one command */

struct cli_args {
    const struct cli_command *command;
    const char *items[ARGS_MAX]; /* arguments that are no flags */
    size_t count;
    struct {
        const struct cli_flag *flag;
        const char *value;
    } given[ARGS_MAX];
    size_t given_count;
};

/* Read ARGV (ARGC of them, those after the command's name). "--flag=value", "--flag value", "-f value", "--" ends flags.
 * ERR_INVALID: unknown flag (with the nearest known one), a missing or superfluous value, too many or too few arguments. With
 * --help among them nothing more is checked. */
int args_read(const struct cli_command *command, int argc, const char *const *argv, struct cli_args *ret,
              struct err *e);

bool args_has(const struct cli_args *args, const char *name);
/* Whether the flag NAME, which was given, is one with a value and no switch. */
bool args_takes_value(const struct cli_args *args, const char *name);
/* The value of the flag NAME; NULL when not given. */
const char *args_get(const struct cli_args *args, const char *name);
/* The values of a flag that may be given more than once, one by one: *AT starts at 0; NULL: no more. */
const char *args_next(const struct cli_args *args, const char *name, size_t *at);

/* Values of a type; *RET keeps its value when the flag was not given. ERR_INVALID names the flag. */
int args_u64(const struct cli_args *args, const char *name, uint64_t min, uint64_t max, uint64_t *ret,
             struct err *e);
int args_double(const struct cli_args *args, const char *name, double min, double max, double *ret,
                struct err *e);
int args_duration_ms(const struct cli_args *args, const char *name, uint64_t *ret_ms, struct err *e);
int args_instant_ms(const struct cli_args *args, const char *name, int64_t *ret_ms, struct err *e);
/* The one file that a command is about, as --file or as its argument; borrowed from ARGS. ERR_INVALID: none, or two. */
int args_file(const struct cli_args *args, const char **ret, struct err *e);

#endif
