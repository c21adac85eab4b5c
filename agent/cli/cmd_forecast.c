/* What is coming: how many fires, when, to which services, from which members. */
#include "agent/cli/ask.h"
#include "agent/cli/client.h"
#include "agent/cli/commands.h"
#include "agent/base/text.h"
#include "agent/cli/show.h"

#include <string.h>

#define PATH_MAX_BYTES 1024
#define NAME_MAX_BYTES 200

static json_int_t sum_of(const json_t *numbers)
{
    json_int_t sum = 0;
    for (size_t i = 0; i < json_array_size(numbers); i++)
        sum += json_integer_value(json_array_get(numbers, i));
    return sum;
}

static void print_steps(const struct cli *cli, const json_t *forecast)
{
    static const char *const heads[] = {"FROM", "FIRES"};
    const json_t *steps = json_object_get(forecast, "steps");
    const char *from = show_string(forecast, "from"), *step = show_string(forecast, "step");
    int64_t from_ms = 0;
    uint64_t step_ms = 0;
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 2, heads);
    if (text_instant_ms(from, strlen(from), &from_ms, NULL) < 0 ||
        text_duration_ms(step, strlen(step), &step_ms, NULL) < 0)
        return;
    for (size_t i = 0; i < json_array_size(steps); i++) {
        char at[SHOW_INSTANT_SIZE];
        show_instant(at, from_ms + (int64_t)(i * step_ms));
        show_cell(&t, "%s", at);
        show_cell(&t, "%lld", (long long)json_integer_value(json_array_get(steps, i)));
    }
    show_table_print(&t, cli->out);
}

/* LIST: each with its name under KEY; MISSING is shown in the place of null. */
static void print_shares(const struct cli *cli, const json_t *list, const char *head, const char *key,
                         const char *missing)
{
    const char *const heads[] = {head, "FIRES"};
    AUTO(show_table_fini) struct show_table t;
    show_table_init(&t, 2, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        const char *name = show_string(one, key);
        show_cell(&t, "%.*s", NAME_MAX_BYTES, name[0] ? name : missing);
        show_cell(&t, "%lld", (long long)sum_of(json_object_get(one, "fires")));
    }
    (void)fputc('\n', cli->out);
    show_table_print(&t, cli->out);
}

static void print_forecast(const struct cli *cli, const json_t *forecast)
{
    print_steps(cli, forecast);
    print_shares(cli, json_object_get(forecast, "services"), "SERVICE", "service", "(by url)");
    print_shares(cli, json_object_get(forecast, "members"), "MEMBER", "member", "(not known)");
    if (json_is_true(json_object_get(forecast, "truncated")))
        (void)fprintf(cli->err, "warning: only the first %lld jobs were looked at\n",
                      (long long)json_integer_value(json_object_get(forecast, "jobs")));
}

int cmd_forecast(struct cli *cli, const struct cli_args *args)
{
    static const char *const flags[] = {"--window", "--step", NULL};
    AUTO(buf_fini) struct buf path = BUF_INIT(PATH_MAX_BYTES);
    buf_add_str(&path, "/v1/forecast");
    if (args_has(args, "--all-namespaces"))
        client_query(&path, "ns", "*");
    ask_query(&path, args, flags);
    return ask_and_print(cli, args, "GET", client_path_text(&path), print_forecast);
}
