/* Whole command lines that need no agent: what they print and their exit codes. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/base/mem.h"
#include "agent/cli/cli.h"
#include "agent/version.h"

struct run {
    char *out, *err;
    int code;
};

/* What the program was asked to run as an agent. */
static char started[200];

static int fake_agent(const struct agent_start *start, struct err *e)
{
    bool fails = strcmp(start->config->agent.name, "broken") == 0;
    (void)snprintf(started, sizeof(started), "%s %s %zu", start->config->agent.name,
                   start->config_file ? start->config_file : "-", start->sets_count);
    config_free(start->config);
    return fails ? err_set(e, ERR_UNAVAILABLE, "the store is away") : 0;
}

static int64_t fixed_now(void)
{
    return 1795420800000; /* 2026-11-23T08:00:00Z */
}

static struct run run_env(const char *const *env, const char *input, const char *const *words)
{
    struct run r = {0};
    size_t out_len, err_len;
    int argc = 0;
    while (words[argc])
        argc++;
    struct cli cli = {
        .in = fmemopen((void *)(uintptr_t)input, strlen(input), "r"),
        .out = open_memstream(&r.out, &out_len),
        .err = open_memstream(&r.err, &err_len),
        .env = env,
        .now_ms = fixed_now,
        .agent_run = fake_agent,
    };
    r.code = cli_run(&cli, argc, words);
    (void)fclose(cli.in);
    (void)fclose(cli.out);
    (void)fclose(cli.err);
    return r;
}

static void done(struct run *r)
{
    free(r->out);
    free(r->err);
}

#define WORDS(...) ((const char *const[]){"carillon", __VA_ARGS__, NULL})
#define NO_ENV     ((const char *const[]){NULL})

static void expect(const char *const *words, int code, const char *out, const char *err)
{
    struct run r = run_env(NO_ENV, " ", words);
    cr_assert(eq(str, r.out, (char *)out));
    cr_assert(eq(str, r.err, (char *)err));
    cr_assert(eq(int, r.code, code));
    done(&r);
}

static void expect_begin(const char *const *words, int code, const char *out)
{
    struct run r = run_env(NO_ENV, " ", words);
    cr_assert(strncmp(r.out, out, strlen(out)) == 0, "%s\n%s", r.out, r.err);
    cr_assert(eq(str, r.err, ""));
    cr_assert(eq(int, r.code, code));
    done(&r);
}

Test(cli, help_is_given_in_every_way)
{
    const char *head = "carillon " CARILLON_VERSION ": durable timers.";
    expect_begin((const char *const[]){"carillon", NULL}, CLI_OK, head);
    expect_begin(WORDS("help"), CLI_OK, head);
    expect_begin(WORDS("--help"), CLI_OK, head);
    expect_begin(WORDS("-h"), CLI_OK, head);
    expect_begin(WORDS("job"), CLI_OK, "usage: carillon job COMMAND …\n\nJobs\n  job apply ");
    expect_begin(WORDS("job", "--help"), CLI_OK, "usage: carillon job COMMAND …\n");
    expect_begin(WORDS("help", "job"), CLI_OK, "usage: carillon job COMMAND …\n");
    expect_begin(WORDS("job", "get", "--help"), CLI_OK,
                 "Show a job and how it has been doing.\n\nusage: carillon job get ID\n");
    expect_begin(WORDS("help", "job", "get"), CLI_OK, "Show a job and how it has been doing.\n");
}

Test(cli, help_names_what_is_read_of_the_environment)
{
    static const char *const names[] = {"ADDR",   "NAMESPACE",   "TOKEN_FILE", "TOKEN",
                                        "CACERT", "CLIENT_CERT", "CLIENT_KEY"};
    struct run r = run_env(NO_ENV, "", WORDS("--help"));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "CARILLON_%s", names[i]);
        cr_assert(ne(ptr, strstr(r.out, name), NULL), "%s", name);
    }
    done(&r);
}

Test(cli, commands_without_json_do_not_take_the_flag)
{
    expect(WORDS("config", "sample", "--json"), CLI_USAGE, "",
           "carillon: '--json' is no flag of config sample\nusage: carillon config sample\n");
    expect_begin(WORDS("drain", "--help"), CLI_OK, "Tell the agent");
    struct run r = run_env(NO_ENV, "", WORDS("drain", "--help"));
    cr_assert(zero(ptr, strstr(r.out, "--json")), "%s", r.out);
    done(&r);
}

Test(cli, nouns_may_stand_in_the_plural_and_explain_alone)
{
    expect_begin(WORDS("jobs"), CLI_OK, "usage: carillon job COMMAND …\n");
    expect_begin(WORDS("fires", "get", "--help"), CLI_OK, "Show a fire with every attempt.\n");
    expect_begin(WORDS("deadletters", "list", "-h"), CLI_OK,
                 "List fires that were given up, newest first.\n");
    expect_begin(WORDS("services", "get", "-h"), CLI_OK, "Show a service's endpoints");
    expect_begin(WORDS("explain", "-h"), CLI_OK, "Say of each due why");
    expect(WORDS("fires", "lst"), CLI_USAGE, "",
           "carillon: 'fire lst' is no command; did you mean 'carillon fire list'?\n");
}

Test(cli, flags_of_all_commands_may_stand_before_the_name)
{
    expect_begin(WORDS("--json", "--ns", "team-b", "--addr=127.0.0.1:9", "job", "get", "--help"), CLI_OK,
                 "Show a job");
    expect(WORDS("--ns", "x", "job", "lst"), CLI_USAGE, "",
           "carillon: 'job lst' is no command; did you mean 'carillon job list'?\n");
    expect(WORDS("--ns", "x", "version"), CLI_USAGE, "",
           "carillon: '--ns' is no flag of version\nusage: carillon version\n");
    expect(WORDS("--json"), CLI_USAGE, "", "carillon: a command is missing; `carillon --help` lists them\n");
    expect(WORDS("--addr"), CLI_USAGE, "", "carillon: a command is missing; `carillon --help` lists them\n");
    expect(WORDS("--add", "job"), CLI_USAGE, "",
           "carillon: '--add' is no command; `carillon --help` lists them\n");
}

Test(cli, mistaken_commands_get_the_nearest_one)
{
    expect(WORDS("agnet"), CLI_USAGE, "",
           "carillon: 'agnet' is no command; did you mean 'carillon agent'?\n");
    expect(WORDS("job", "lst"), CLI_USAGE, "",
           "carillon: 'job lst' is no command; did you mean 'carillon job list'?\n");
    expect(WORDS("zzzzzz"), CLI_USAGE, "",
           "carillon: 'zzzzzz' is no command; `carillon --help` lists them\n");
    expect(WORDS("job", "zzzzzz"), CLI_USAGE, "",
           "carillon: 'job zzzzzz' is no command; `carillon job --help` lists them\n");
    expect(WORDS("help", "clstr"), CLI_USAGE, "",
           "carillon: 'clstr' is no command; did you mean 'carillon cluster'?\n");
    expect(WORDS("job", "get"), CLI_USAGE, "",
           "carillon: job get needs an argument\nusage: carillon job get ID\n");
}

Test(cli, version_is_told)
{
    expect_begin(WORDS("version"), CLI_OK, "carillon " CARILLON_VERSION);
    expect_begin(WORDS("--version"), CLI_OK, "carillon " CARILLON_VERSION);
    expect_begin(WORDS("version", "--json"), CLI_OK,
                 "{\n  \"version\": \"" CARILLON_VERSION "\",\n  \"commit\": \"");
}

Test(cli, next_shows_dues_in_both_times_with_notes)
{
    expect(WORDS("next", "0 9 * * MON-FRI", "--tz", "Europe/Berlin", "-n", "2"), CLI_OK,
           "DUE (UTC)             LOCAL                          WHEN   NOTE\n"
           "2026-11-24T08:00:00Z  Tue 2026-11-24T09:00:00+01:00  in 1d  -\n"
           "2026-11-25T08:00:00Z  Wed 2026-11-25T09:00:00+01:00  in 2d  -\n",
           "");
    expect(WORDS("next", "30 7 * * *", "--tz", "America/New_York", "-n", "1", "--from",
                 "2026-03-08T00:00:00Z", "--json"),
           CLI_OK,
           "{\n  \"job\": null,\n  \"timezone\": \"America/New_York\",\n  \"next\": [\n    {\n"
           "      \"due\": \"2026-03-08T11:30:00.000Z\",\n      \"local\": \"2026-03-08T07:30:00-04:00\",\n"
           "      \"note\": null\n    }\n  ]\n}\n",
           "");
    struct run r = run_env(
        NO_ENV, " ",
        WORDS("next", "30 2 * * *", "--tz", "America/New_York", "-n", "1", "--from", "2026-03-08T00:00:00Z"));
    cr_assert(strstr(r.out, "Sun 2026-03-08T03:30:00-04:00") != NULL, "%s", r.out);
    cr_assert(strstr(r.out, "moved: the clocks skip this time") != NULL, "%s", r.out);
    done(&r);
}

Test(cli, next_counts_delays_and_intervals_from_now)
{
    expect(WORDS("next", "@after 15m"), CLI_OK,
           "DUE (UTC)             LOCAL                          WHEN    NOTE\n"
           "2026-11-23T08:15:00Z  Mon 2026-11-23T08:15:00+00:00  in 15m  -\n",
           "");
    expect(WORDS("next", "@every 90s", "@after 3m", "--count", "2"), CLI_OK,
           "DUE (UTC)             LOCAL                          WHEN       NOTE\n"
           "2026-11-23T08:01:30Z  Mon 2026-11-23T08:01:30+00:00  in 1m 30s  -\n"
           "2026-11-23T08:03:00Z  Mon 2026-11-23T08:03:00+00:00  in 3m      -\n",
           "");
}

Test(cli, next_points_at_the_mistake)
{
    struct run r = run_env(NO_ENV, " ", WORDS("next", "0 9 * * FOO"));
    cr_assert(eq(int, r.code, CLI_USAGE));
    cr_assert(strncmp(r.err, "carillon: day of week: ", 23) == 0, "%s", r.err);
    cr_assert(strstr(r.err, "\n  0 9 * * FOO\n          ^\n") != NULL, "%s", r.err);
    done(&r);
    expect(WORDS("next", "* * * * *", "--count", "0"), CLI_USAGE, "",
           "carillon: --count: '0' is no whole number from 1 to 1000\n");
    r = run_env(NO_ENV, " ", WORDS("next", "* * * * *", "--tz", "Europe/Nowhere"));
    cr_assert(eq(int, r.code, CLI_USAGE));
    cr_assert(strstr(r.err, "Europe/Nowhere") != NULL, "%s", r.err);
    done(&r);
    r = run_env(NO_ENV, " ", WORDS("next", "* * * * *", "--from", "tomorrow"));
    cr_assert(eq(int, r.code, CLI_USAGE));
    cr_assert(strncmp(r.err, "carillon: --from: ", 18) == 0, "%s", r.err);
    done(&r);
}

Test(cli, next_needs_the_id_for_hashes_only)
{
    struct run r = run_env(NO_ENV, " ", WORDS("next", "H 9 * * THU", "-n", "1"));
    cr_assert(eq(str, r.err, "warning: H depends on the job's id; give --id for the job's own dues\n"));
    done(&r);
    r = run_env(NO_ENV, " ", WORDS("next", "H 9 * * THU", "-n", "1", "--id", "a"));
    cr_assert(eq(str, r.err, ""));
    done(&r);
    r = run_env(NO_ENV, " ", WORDS("next", "0 9 * MARCH THU", "-n", "1"));
    cr_assert(strstr(r.err, "H depends") == NULL, "%s", r.err);
    done(&r);
}

Test(cli, config_options_are_listed_by_prefix)
{
    expect(WORDS("config", "options", "log.level"), CLI_OK,
           "log.level = info  (one of error, warn, info, debug; reloaded)\n"
           "    The least important lines that are written.\n",
           "");
    expect(
        WORDS("config", "options", "services.<name>.near", "--json"), CLI_OK,
        "[\n  {\n    \"key\": \"services.<name>.near\",\n    \"allowed\": \"true or false\",\n"
        "    \"default\": \"false\",\n    \"reload\": true,\n"
        "    \"help\": \"Endpoints on this node first, then those of this agent's zone, then the rest.\"\n  }\n]\n",
        "");
    expect(WORDS("config", "options", "lgo"), CLI_NOT_FOUND, "", "carillon: no option begins with 'lgo'\n");
}

Test(cli, config_check_reports_every_error)
{
    char path[] = "/tmp/carillon-cli-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(ge(int, fd, 0));
    const char *yaml = "api:\n  wiat: 1s\n  max_body: 1GiB\nstoer: {}\n";
    cr_assert(eq(sz, (size_t)write(fd, yaml, strlen(yaml)), strlen(yaml)));
    fd_close(fd);
    char expected[600];
    (void)snprintf(expected, sizeof(expected),
                   "%s:2: 'api.wiat' is not known; did you mean 'api.wait'?\n"
                   "%s:3: api.max_body: '1GiB' is out of range, allowed: a size from 1KiB to 64MiB\n"
                   "%s:4: 'stoer' is not known; did you mean 'store'?\n",
                   path, path, path);
    expect(WORDS("config", "check", path), CLI_FAILED, "", expected);
    cr_assert(zero(int, unlink(path)));
    expect(WORDS("config", "check", "/nowhere/x.yaml"), CLI_FAILED, "",
           "configuration: open '/nowhere/x.yaml': No such file or directory\n");
    expect(WORDS("config", "check", "--json", "--set", "api.wiat=1s"), CLI_FAILED,
           "{\n  \"errors\": [\n    \"--set: 'api.wiat' is not known; did you mean 'api.wait'?\"\n  ],\n"
           "  \"more\": 0\n}\n",
           "");
    expect(
        WORDS("config", "check", "--json", "/nowhere/x.yaml"), CLI_FAILED,
        "{\n  \"errors\": [\n    \"configuration: open '/nowhere/x.yaml': No such file or directory\"\n  ],\n"
        "  \"more\": 0\n}\n",
        "");
    expect(WORDS("config", "check", "--set", "api.wait=1s"), CLI_OK, "configuration: ok\n", "");
}

Test(cli, agent_gets_the_checked_configuration)
{
    expect(WORDS("agent", "--set", "agent.name=a1", "--set=api.wait=1s"), CLI_OK, "", "");
    cr_assert(eq(str, started, "a1 - 2"));
    struct run r = run_env((const char *const[]){"CARILLON_AGENT_NAME=env", NULL}, " ", WORDS("agent"));
    cr_assert(eq(int, r.code, CLI_OK));
    cr_assert(eq(str, started, "env - 0"));
    done(&r);
    started[0] = '\0';
    expect(WORDS("agent", "--set", "agent.nmae=a1"), CLI_FAILED, "",
           "--set: 'agent.nmae' is not known; did you mean 'agent.name'?\n"
           "hint: `carillon config options` lists what there is\n");
    cr_assert(eq(str, started, ""));
    expect(WORDS("agent", "--set", "agent.name=broken"), CLI_FAILED, "", "carillon: the store is away\n");
}

Test(cli, commands_refuse_what_makes_no_sense_before_they_ask)
{
    expect(WORDS("job", "delete"), CLI_USAGE, "", "carillon: give ids, --prefix, --label or --all\n");
    expect(WORDS("job", "delete", "a", "--all"), CLI_USAGE, "", "carillon: give ids or filters, not both\n");
    expect(WORDS("job", "resume", "a", "--catch-up", "some"), CLI_USAGE, "",
           "carillon: --catch-up: 'some' is not one of none, last, all\n");
    expect(WORDS("job", "apply"), CLI_USAGE, "", "carillon: job apply needs a FILE (- for standard input)\n");
    expect(WORDS("job", "import"), CLI_USAGE, "",
           "carillon: job import needs a FILE (- for standard input)\n");
    expect(WORDS("job", "apply", "-f", "-"), CLI_FAILED, "", "carillon: standard input: holds no job\n");
    expect(WORDS("in", "soon", "--path", "/x"), CLI_USAGE, "",
           "carillon: 'soon' is no duration; write 250ms, 10s, 1h30m or 7d, up to 36500d\n");
    expect(WORDS("in", "1s", "--url", "http://x/", "--path", "/x"), CLI_USAGE, "",
           "carillon: give --url, or --service and --path\n");
    expect(WORDS("in", "1s", "--header", "x"), CLI_USAGE, "",
           "carillon: 'x' is no header; write 'Name: value'\n");
    struct run r = run_env(NO_ENV, " ", WORDS("in", "1s", "--data", "{text}"));
    cr_assert(eq(int, r.code, CLI_USAGE));
    const char *said =
        "carillon: --data without --content-type: no JSON (a text needs its quotes: '\"text\"'): ";
    cr_assert(strncmp(r.err, said, strlen(said)) == 0, "%s", r.err);
    done(&r);
    r = run_env(NO_ENV, " ", WORDS("sink", "--fail-rate", "2"));
    cr_assert(eq(int, r.code, CLI_USAGE));
    done(&r);
    expect(
        WORDS("sink", "--async", "--complete-after", "soon"), CLI_USAGE, "",
        "carillon: --complete-after: 'soon' is no duration; write 250ms, 10s, 1h30m or 7d, up to 36500d\n");
    expect(WORDS("sink", "--async", "--heartbeats", "-1"), CLI_USAGE, "",
           "carillon: --heartbeats: '-1' is no whole number from 0 to 4294967295\n");
    expect(WORDS("injector", "--sidecar", "a", "--tls-cert", "b", "--tls-key", "c", "--linger", "soon"),
           CLI_USAGE, "",
           "carillon: --linger: 'soon' is no duration; write 250ms, 10s, 1h30m or 7d, up to 36500d\n");
}

Test(cli, bad_addresses_and_tokens_are_usage_errors)
{
    static const char *const addresses[] = {"",          "localhost", "http://", "unix:relative",
                                            "ftp://a:1", "a:99999"};
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        struct run r = run_env(NO_ENV, " ", WORDS("job", "list", "--addr", addresses[i]));
        cr_assert(eq(int, r.code, CLI_USAGE), "%s", addresses[i]);
        cr_assert(strstr(r.err, "is no address") != NULL, "%s", r.err);
        done(&r);
    }
    struct run r = run_env(NO_ENV, " ", WORDS("job", "list", "--token-file", "/nowhere"));
    cr_assert(eq(int, r.code, CLI_USAGE));
    done(&r);
    expect(WORDS("job", "delete", "--all", "--ns", "*"), CLI_USAGE, "",
           "carillon: '*' is no namespace; all of them are --all-namespaces, where a command has that\n");
    r = run_env((const char *const[]){"CARILLON_NAMESPACE=A B", NULL}, " ", WORDS("job", "list"));
    cr_assert(eq(int, r.code, CLI_USAGE));
    done(&r);
}

Test(cli, an_agent_that_is_not_there_is_exit_4_with_a_hint)
{
    struct run r = run_env((const char *const[]){"CARILLON_ADDR=unix:/nowhere/carillon.sock", NULL}, " ",
                           WORDS("cluster", "status"));
    cr_assert(eq(int, r.code, CLI_UNREACHABLE));
    cr_assert(strncmp(r.err, "carillon: no agent reached at unix:/nowhere/carillon.sock: ", 59) == 0, "%s",
              r.err);
    cr_assert(strstr(r.err, "\nhint: is it running?") != NULL, "%s", r.err);
    done(&r);
}

Test(cli, output_that_cannot_be_written_is_a_failure)
{
    char *err = NULL;
    size_t len;
    struct cli cli = {.in = stdin,
                      .out = fopen("/dev/full", "w"),
                      .err = open_memstream(&err, &len),
                      .env = NO_ENV,
                      .now_ms = fixed_now};
    cr_assert(eq(int, cli_run(&cli, 2, WORDS("version")), CLI_FAILED));
    (void)fclose(cli.out);
    (void)fclose(cli.err);
    cr_assert(eq(str, err, "carillon: the output could not be written\n"));
    free(err);
}
