#include "agent/cli/load.h"

#include "agent/base/json.h"
#include "agent/cli/show.h"

size_t load_sets(const struct cli_args *args, const char *sets[ARGS_MAX])
{
    size_t at = 0, count = 0;
    for (const char *set; (set = args_next(args, "--set", &at)) != NULL;)
        sets[count++] = set;
    return count;
}

typedef void tell_errors(const struct cli *cli, const struct option_errors *errors);

static void tell_people(const struct cli *cli, const struct option_errors *errors)
{
    for (size_t i = 0; i < errors->lines.count; i++)
        (void)fprintf(cli->err, "%s\n", errors->lines.items[i]);
    if (errors->dropped > 0)
        (void)fprintf(cli->err, "and %zu more\n", errors->dropped);
}

static void tell_programs(const struct cli *cli, const struct option_errors *errors)
{
    AUTO(json_decref) json_t *lines = json_array();
    for (size_t i = 0; i < errors->lines.count; i++)
        show_append(lines, json_string(errors->lines.items[i]));
    AUTO(json_decref)
    json_t *doc = json_pack("{s:O,s:I}", "errors", lines, "more", (json_int_t)errors->dropped);
    show_json(cli->out, doc);
}

static struct config *load(const struct cli *cli, const char *file, const char *const *sets,
                           size_t sets_count, tell_errors *tell, int *ret_code)
{
    struct config *c = NULL;
    struct option_errors errors = {0};
    struct err e;
    if (config_load(file, sets, sets_count, cli->env, &c, &errors, &e) < 0) {
        if (errors.lines.count == 0) /* the file could not be read at all */
            (void)option_error_add(&errors, NULL, "%s", e.text);
        tell(cli, &errors);
        *ret_code = CLI_FAILED;
    }
    option_errors_fini(&errors);
    return c;
}

struct config *load_config(const struct cli *cli, const char *file, const char *const *sets,
                           size_t sets_count, int *ret_code)
{
    return load(cli, file, sets, sets_count, tell_people, ret_code);
}

struct config *load_config_json(const struct cli *cli, const char *file, const char *const *sets,
                                size_t sets_count, int *ret_code)
{
    return load(cli, file, sets, sets_count, tell_programs, ret_code);
}
