#include "agent/cli/load.h"

size_t load_sets(const struct cli_args *args, const char *sets[ARGS_MAX])
{
    size_t at = 0, count = 0;
    for (const char *set; (set = args_next(args, "--set", &at)) != NULL;)
        sets[count++] = set;
    return count;
}

struct config *load_config(const struct cli *cli, const char *file, const char *const *sets,
                           size_t sets_count, int *ret_code)
{
    struct config *c = NULL;
    struct option_errors errors = {0};
    struct err e;
    int r = config_load(file, sets, sets_count, cli->env, &c, &errors, &e);
    if (r < 0) {
        for (size_t i = 0; i < errors.lines.count; i++)
            (void)fprintf(cli->err, "%s\n", errors.lines.items[i]);
        if (errors.lines.count == 0)
            (void)fprintf(cli->err, "%s\n", e.text);
        if (errors.dropped > 0)
            (void)fprintf(cli->err, "and %zu more\n", errors.dropped);
        *ret_code = CLI_FAILED;
    }
    option_errors_fini(&errors);
    return c;
}
