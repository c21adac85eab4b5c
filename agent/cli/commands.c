/* The table of commands: what there is, how it is called, what its help says. */
#include "agent/cli/commands.h"

#define FLAGS(...) ((const struct cli_flag[]){__VA_ARGS__, {0}})

#define SET_FLAG                                                                \
    {                                                                           \
        .name = "--set", .value = "KEY=VALUE", .many = true,                    \
        .help = "set an option, as log.level=debug; beats file and environment" \
    }
#define DATA_FLAG                                                          \
    {                                                                      \
        .name = "--data", .letter = 'd', .value = "DATA",                  \
        .help = "the payload: JSON, or @FILE with it (@-: standard input)" \
    }
#define COUNT_FLAG                                                                           \
    {                                                                                        \
        .name = "--count", .letter = 'n', .value = "N", .help = "how many dues (default 10)" \
    }
#define FROM_FLAG                                                                  \
    {                                                                              \
        .name = "--from", .value = "INSTANT",                                      \
        .help = "dues from this instant on, as 2026-11-23T08:00:00Z (default now)" \
    }
#define PREFIX_FLAG                                                                  \
    {                                                                                \
        .name = "--prefix", .value = "TEXT", .help = "only ids that begin with TEXT" \
    }
#define LABEL_FLAG                                                            \
    {                                                                         \
        .name = "--label", .letter = 'l', .value = "KEY=VALUE", .many = true, \
        .help = "only jobs with this label; all of several"                   \
    }

#define LIMIT_FLAG                                                                 \
    {                                                                              \
        .name = "--limit", .value = "N", .help = "at most N (default 100; 0: all)" \
    }
/* Which fires. */
#define FIRE_FLAGS                                                                                           \
    {.name = "--job", .value = "ID", .help = "only fires of this job"},                                      \
        {.name = "--prefix", .value = "TEXT", .help = "only of jobs whose ids begin with TEXT"}, LABEL_FLAG, \
        {.name = "--service", .value = "NAME", .help = "only callbacks to this service"},                    \
        {.name = "--from", .value = "INSTANT", .help = "only those due at this instant or later"},           \
    {                                                                                                        \
        .name = "--to", .value = "INSTANT", .help = "only those due before this instant"                     \
    }

#define RUNNING  "Running"
#define JOBS     "Jobs"
#define FIRES    "Fires"
#define LOOKING  "Cluster"
#define SETTINGS "Store and configuration"

static const struct cli_command commands[] = {
    {.name = "agent",
     .group = RUNNING,
     .usage = "[--config FILE] [--set KEY=VALUE]…",
     .help = "Run an agent until SIGTERM or SIGINT.",
     .more =
         "Options come from --set, else from CARILLON_SECTION_KEY in the environment, else from FILE, else from their\n"
         "defaults; `carillon config options` lists them. SIGHUP reads them again.\n",
     .flags = FLAGS({.name = "--config", .letter = 'c', .value = "FILE", .help = "configuration file (YAML)"},
                    SET_FLAG),
     .no_json = true,
     .run = cmd_agent},
    {.name = "drain",
     .group = RUNNING,
     .usage = "[--pid N] [--wait DURATION]",
     .help = "Tell the agent of this container that its end is near.",
     .more =
         "Its jobs go to the other members, its application (app.register) gets no more callbacks, requests are passed on\n"
         "until SIGTERM ends it. Made for preStop, which Kubernetes runs while the application still ends.\n",
     .flags = FLAGS({.name = "--pid",
                     .value = "N",
                     .help = "the agent's process, if several run here (default: the only one)"},
                    {.name = "--wait",
                     .value = "DURATION",
                     .help = "return after this time: so long requests still come (default 0s)"}),
     .no_json = true,
     .run = cmd_drain},
    {.name = "sink",
     .group = RUNNING,
     .usage = "[--listen ADDR] [--grpc ADDR] [--status N] [--fail-first N] …",
     .help = "Receive callbacks and print a line for each, to try things out.",
     .more =
         "FILE holds keys as callback.signing_keys_file does, a line each: SCOPE ID whsec_…; here scopes do not count.\n"
         "With --async, attempts that --fail-first or --fail-rate choose are completed as failed.\n",
     .flags = FLAGS(
         {.name = "--listen", .value = "ADDR", .help = "host:port or unix:/path (default 127.0.0.1:8080)"},
         {.name = "--grpc",
          .value = "ADDR",
          .help = "host:port for gRPC; HTTP is served too if --listen is given"},
         {.name = "--status", .value = "N", .help = "answer with this status (default 200)"},
         {.name = "--code", .value = "NAME", .help = "answer with this code over gRPC (default OK)"},
         {.name = "--fail-first",
          .value = "N",
          .help = "answer 500 (UNAVAILABLE over gRPC) to the first N attempts of each fire"},
         {.name = "--fail-rate", .value = "P", .help = "answer so to this share of all, 0 to 1"},
         {.name = "--delay", .value = "DURATION", .help = "answer after this time"},
         {.name = "--hang", .help = "never answer"},
         {.name = "--async", .help = "answer 202 to asynchronous callbacks and complete them later"},
         {.name = "--complete-after", .value = "DURATION", .help = "how much later (default 1s)"},
         {.name = "--heartbeats",
          .value = "N",
          .help = "before that, so many heartbeats, each as long after the last"},
         {.name = "--addr", .value = "ADDR", .help = "the agent to complete them at (CARILLON_ADDR)"},
         {.name = "--signing-keys-file",
          .value = "FILE",
          .help = "say of each whether one of these keys has signed it: verified, missing, wrong, stale"}),
     .run = cmd_sink},
    {.name = "bench",
     .group = RUNNING,
     .usage = "[--jobs N] [--rate N] [--duration D] [--connections N] …",
     .help = "Measure a running agent: how fast it takes jobs, and how late it calls.",
     .more =
         "It creates jobs of its own, is their callee, and deletes them at the end; what else the agent does goes on. The agent\n"
         "must be allowed to call this process: callback.allow_loopback, or --url for where it is reached otherwise.\n"
         "This process takes its share of the machine: an agent on another one can do more than is measured here.\n",
     .flags = FLAGS(
         {.name = "--jobs",
          .value = "N",
          .help = "jobs to create one by one, and to be due at one instant (default 1000)"},
         {.name = "--rate", .value = "N", .help = "jobs that are then due every second (default 500)"},
         {.name = "--duration", .value = "DURATION", .help = "for how long (default 10s)"},
         {.name = "--connections",
          .value = "N",
          .help = "requests to the agent under way at a time (default 16)"},
         {.name = "--listen", .value = "ADDR", .help = "host:port to be called at (default 127.0.0.1:0)"},
         {.name = "--url", .value = "URL", .help = "how the agent reaches that (default http://ADDR)"}),
     .remote = true,
     .run = cmd_bench},
    {.name = "injector",
     .group = RUNNING,
     .usage = "--sidecar FILE --tls-cert FILE --tls-key FILE [--listen ADDR]",
     .help = "Serve the admission webhook that puts the sidecar into pods.",
     .more =
         "Kubernetes asks at /inject about each pod that is to be made; one with the annotation carillon/inject: \"true\" gets\n"
         "the sidecar. The chart's README lists the annotations, and the chart renders all of this (injector.enabled).\n"
         "Files are read again when they change, and at SIGHUP.\n",
     .flags =
         FLAGS({.name = "--sidecar",
                .value = "FILE",
                .help = "JSON: by role, the part of a pod's spec that is the sidecar"},
               {.name = "--tls-cert", .value = "FILE", .help = "certificate (PEM) for the webhook's Service"},
               {.name = "--tls-key", .value = "FILE", .help = "its key (PEM)"},
               {.name = "--tls-client-ca",
                .value = "FILE",
                .help = "only clients with a certificate of these authorities (PEM) are served"},
               {.name = "--listen", .value = "ADDR", .help = "host:port (default 0.0.0.0:8443)"},
               {.name = "--linger",
                .value = "DURATION",
                .help = "serve this long after SIGTERM, while others learn of the end (default 5s)"}),
     .run = cmd_injector},

    {.name = "job apply",
     .group = JOBS,
     .usage = "[-f] FILE [--dry-run]",
     .help = "Create or replace jobs from a file.",
     .more =
         "FILE holds YAML or JSON: a job, a list of jobs, several documents, or the output of `carillon job list --json`;\n"
         "- is standard input. Each job needs an id. All are tried; the exit code is 1 if one failed.\n",
     .flags = FLAGS({.name = "--file", .letter = 'f', .value = "FILE", .help = "what to apply"},
                    {.name = "--dry-run", .help = "store nothing; show what is wrong and the next dues"}),
     .remote = true,
     .args_max = 1,
     .run = cmd_job_apply},
    {.name = "job get",
     .group = JOBS,
     .usage = "ID",
     .help = "Show a job and how it has been doing.",
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_job_get},
    {.name = "job list",
     .group = JOBS,
     .usage = "[--prefix TEXT] [--label KEY=VALUE]… [--state STATE] [--limit N]",
     .help = "List jobs by id.",
     .flags = FLAGS(PREFIX_FLAG, LABEL_FLAG,
                    {.name = "--state", .value = "STATE", .help = "only active, paused or done ones"},
                    {.name = "--last-outcome",
                     .value = "OUTCOME",
                     .help = "only jobs whose last fire ended so: succeeded, dead, …"},
                    LIMIT_FLAG),
     .remote = true,
     .run = cmd_job_list},
    {.name = "job delete",
     .group = JOBS,
     .usage = "ID… | --prefix TEXT | --label KEY=VALUE | --all",
     .help = "Delete jobs; their pending fires are cancelled.",
     .flags = FLAGS(PREFIX_FLAG, LABEL_FLAG, {.name = "--all", .help = "every job of the namespace"}),
     .remote = true,
     .args_max = ARGS_MAX,
     .run = cmd_job_delete},
    {.name = "job pause",
     .group = JOBS,
     .usage = "ID…",
     .help = "Let dues pass without firing, until the job is resumed.",
     .remote = true,
     .args_min = 1,
     .args_max = ARGS_MAX,
     .run = cmd_job_pause},
    {.name = "job resume",
     .group = JOBS,
     .usage = "ID… [--catch-up none|last|all]",
     .help = "Let paused jobs fire again.",
     .flags = FLAGS({.name = "--catch-up",
                     .value = "WHICH",
                     .help = "dues that passed meanwhile: none (default), last or all"}),
     .remote = true,
     .args_min = 1,
     .args_max = ARGS_MAX,
     .run = cmd_job_resume},
    {.name = "job run",
     .group = JOBS,
     .usage = "ID [--data DATA] [--force]",
     .help = "Fire once now, beside the schedule.",
     .flags =
         FLAGS(DATA_FLAG, {.name = "--force", .help = "also while another fire of the job is under way"}),
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_job_run},
    {.name = "job next",
     .group = JOBS,
     .usage = "ID [--count N] [--from INSTANT]",
     .help = "Show when a job is due next.",
     .flags = FLAGS(COUNT_FLAG, FROM_FLAG),
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_job_next},
    {.name = "job explain",
     .group = JOBS,
     .usage = "ID [--at WHEN | --from INSTANT --to INSTANT] [--limit N]",
     .help = "Say of each due why it fired, was late, was skipped, waits or is none.",
     .more =
         "WHEN is an instant (2026-11-23T08:00:00Z), a local time of the job's zone (2026-03-29T02:30) or a date. Without any\n"
         "of these: from a day ago to a day ahead. A deleted job is explained too, as far as what it did is kept.\n",
     .flags = FLAGS(
         {.name = "--at", .value = "WHEN", .help = "one instant, time or day, also when nothing was due"},
         {.name = "--from", .value = "INSTANT", .help = "dues from this instant on"},
         {.name = "--to", .value = "INSTANT", .help = "dues before this instant"}, LIMIT_FLAG),
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_job_explain},
    {.name = "job revisions",
     .group = JOBS,
     .usage = "ID [--limit N]",
     .help = "Show who changed a job, when and how, in the last 90 days; also of a deleted one.",
     .flags = FLAGS(LIMIT_FLAG),
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_job_revisions},
    {.name = "job backfill",
     .group = JOBS,
     .usage = "ID --from INSTANT --to INSTANT",
     .help = "Fire the dues that a span of the past had, by the job's schedule of today.",
     .more =
         "Each is a fire of its own beside the schedule, a few at a time, up to 10,000; it survives any restart. A pause stops\n"
         "it until the job is resumed.\n",
     .flags = FLAGS(
         {.name = "--from", .value = "INSTANT", .help = "dues at this instant or later"},
         {.name = "--to", .value = "INSTANT", .help = "dues before this instant, which is not to come"}),
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_job_backfill},
    {.name = "job import",
     .group = JOBS,
     .usage = "[-f] FILE",
     .help = "Create or replace any number of jobs from an export.",
     .more =
         "FILE holds a line for each job, as `carillon job export` writes them and POST /v1/bulk takes them; - is standard\n"
         "input. A wrong line spoils only itself; the exit code is 1 if one failed.\n",
     .flags = FLAGS({.name = "--file", .letter = 'f', .value = "FILE", .help = "what to import"}),
     .remote = true,
     .args_max = 1,
     .run = cmd_job_import},
    {.name = "job export",
     .group = JOBS,
     .usage = "[-o FILE] [--all-namespaces]",
     .help = "Write all jobs of the namespace, a line each, for `job import`.",
     .flags = FLAGS(
         {.name = "--output", .letter = 'o', .value = "FILE", .help = "where to (default standard output)"},
         {.name = "--all-namespaces", .letter = 'A', .help = "the jobs of every namespace"}),
     .remote = true,
     .run = cmd_job_export},
    {.name = "in",
     .group = JOBS,
     .usage = "DURATION [--id ID] [--service S | --url U] [--path P] [--data DATA [--content-type TYPE]] …",
     .help = "Call once, so much later: carillon in 15m --id tea --path /tea --data '{\"tea\":\"ready\"}'",
     .more =
         "Without --service and --url the agent's own application is called. With the id of a job that exists, that job\n"
         "is replaced. DURATION is 250ms, 10s, 15m, 1h30m, 7d.\n",
     .flags = FLAGS({.name = "--id", .value = "ID", .help = "the job's id; the agent makes one if not given"},
                    {.name = "--service", .value = "NAME", .help = "call an instance of this service"},
                    {.name = "--url", .value = "URL", .help = "call this URL"},
                    {.name = "--path",
                     .value = "PATH",
                     .help = "path of the request (default /; with --url it has its own)"},
                    {.name = "--method", .value = "METHOD", .help = "method of the request (default POST)"},
                    {.name = "--header",
                     .letter = 'H',
                     .value = "'NAME: VALUE'",
                     .many = true,
                     .help = "header of the request"},
                    DATA_FLAG,
                    {.name = "--content-type",
                     .value = "TYPE",
                     .help = "the payload is this, as image/png, sent as it is (without: JSON, or text)"}),
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_in},
    {.name = "next",
     .group = JOBS,
     .usage = "EXPR… [--tz ZONE] [--from INSTANT] [--count N]",
     .help = "Show when a schedule is due: carillon next '0 9 * * MON-FRI' --tz Europe/Berlin",
     .more =
         "Needs no agent. EXPR is cron (5 fields, or 6 with leading seconds), @daily …, @every 90s, @at INSTANT or @after 15m.\n",
     .flags =
         FLAGS({.name = "--tz", .value = "ZONE", .help = "IANA zone (default UTC)"}, COUNT_FLAG,
               {.name = "--from",
                .value = "INSTANT",
                .help = "dues after this instant, of a job made then (default now)"},
               {.name = "--id", .value = "ID", .help = "the job's id, which H in an expression depends on"},
               {.name = "--ns", .value = "NAME", .help = "its namespace (default default)"}),
     .args_min = 1,
     .args_max = 16,
     .run = cmd_next},

    {.name = "fire list",
     .group = FIRES,
     .usage = "[--outcome OUTCOME] [--job ID] [--service NAME] [--from INSTANT] [--to INSTANT] …",
     .help = "List fires of all jobs, newest first.",
     .more =
         "Those that succeeded at the first attempt follow the others, job by job, unless --job names one.\n",
     .flags = FLAGS({.name = "--outcome",
                     .value = "OUTCOME",
                     .help = "pending, succeeded, dead, skipped, coalesced or cancelled"},
                    FIRE_FLAGS, LIMIT_FLAG),
     .remote = true,
     .run = cmd_fire_list},
    {.name = "fire get",
     .group = FIRES,
     .usage = "FIRE",
     .help = "Show a fire with every attempt.",
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_fire_get},
    {.name = "fire retry",
     .group = FIRES,
     .usage = "FIRE…",
     .help = "Try fires again now, also those that were given up.",
     .remote = true,
     .args_min = 1,
     .args_max = ARGS_MAX,
     .run = cmd_fire_retry},
    {.name = "fire cancel",
     .group = FIRES,
     .usage = "FIRE…",
     .help = "Give fires up that have not ended.",
     .remote = true,
     .args_min = 1,
     .args_max = ARGS_MAX,
     .run = cmd_fire_cancel},
    {.name = "deadletter list",
     .group = FIRES,
     .usage = "[--job ID] [--service NAME] [--from INSTANT] [--to INSTANT] …",
     .help = "List fires that were given up, newest first.",
     .flags = FLAGS(FIRE_FLAGS, LIMIT_FLAG),
     .remote = true,
     .run = cmd_deadletter_list},
    {.name = "deadletter redrive",
     .group = FIRES,
     .usage = "--job ID | --service NAME | --all … [--rate N] [--dry-run]",
     .help = "Send those that match once more, under their own ids.",
     .more =
         "`carillon fire retry FIRE` does so with single ones. What fails again is a dead letter again.\n",
     .flags = FLAGS(
         FIRE_FLAGS, {.name = "--all", .help = "every dead letter of the namespace"},
         {.name = "--rate", .value = "N", .help = "N a second (default: as fast as the callees take them)"},
         {.name = "--dry-run", .help = "only count them"}),
     .remote = true,
     .run = cmd_deadletter_redrive},
    {.name = "deadletter discard",
     .group = FIRES,
     .usage = "--job ID | --service NAME | --all … [--dry-run]",
     .help = "Let those that match be: they count as cancelled.",
     .flags = FLAGS(FIRE_FLAGS, {.name = "--all", .help = "every dead letter of the namespace"},
                    {.name = "--dry-run", .help = "only count them"}),
     .remote = true,
     .run = cmd_deadletter_discard},

    {.name = "forecast",
     .group = LOOKING,
     .usage = "[--window DURATION] [--step DURATION] [--all-namespaces]",
     .help = "Show how many fires are coming, when, to which services and from which members.",
     .flags =
         FLAGS({.name = "--window", .value = "DURATION", .help = "how far to look (default 1h)"},
               {.name = "--step", .value = "DURATION", .help = "length of a row (default a twelfth of that)"},
               {.name = "--all-namespaces", .letter = 'A', .help = "jobs of every namespace"}),
     .remote = true,
     .run = cmd_forecast},
    {.name = "audit",
     .group = LOOKING,
     .usage = "[--all-namespaces]",
     .help = "Compare what should have happened with what is recorded; 1 when a job differs.",
     .more =
         "What should have happened is derived anew from the definitions. One member of the cluster does the same in\n"
         "the background each audit.every, and tells by its log and by the metric carillon_audit_differences.\n",
     .flags = FLAGS({.name = "--all-namespaces", .letter = 'A', .help = "jobs of every namespace"}),
     .remote = true,
     .run = cmd_audit},
    {.name = "tail",
     .group = LOOKING,
     .usage = "[--all] [--all-namespaces] [--attempts] [--count N]",
     .help = "Print fires, changes of jobs and news of the cluster as they happen, a line each.",
     .more =
         "Each agent tells of the jobs that it owns; --addr chooses which. With --all the agent that is asked listens to\n"
         "all members, also to those that join later. Goes on when the agent is started again.\n",
     .flags = FLAGS({.name = "--all", .letter = 'a', .help = "events of all members"},
                    {.name = "--all-namespaces", .letter = 'A', .help = "jobs of every namespace"},
                    {.name = "--attempts", .help = "also attempts that failed and will be repeated"},
                    {.name = "--count", .letter = 'n', .value = "N", .help = "end after N lines"}),
     .remote = true,
     .run = cmd_tail},
    {.name = "cluster status",
     .group = LOOKING,
     .usage = "",
     .help = "Show members, their slots (shares of all jobs), store and Consul.",
     .remote = true,
     .run = cmd_cluster_status},
    {.name = "cluster owner",
     .group = LOOKING,
     .usage = "ID",
     .help = "Show which member owns a job.",
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_cluster_owner},
    {.name = "service get",
     .group = LOOKING,
     .usage = "NAME",
     .help = "Show a service's endpoints as the agent sees them.",
     .remote = true,
     .args_min = 1,
     .args_max = 1,
     .run = cmd_service_get},

    {.name = "store check",
     .group = SETTINGS,
     .usage = "[DIR] [--config FILE] [--set KEY=VALUE]…",
     .help = "Verify the data folder of a stopped agent: every file, every checksum, everything it holds.",
     .more =
         "DIR is the folder of a log, as ./carillon-data/raft: store.raft.dir, or raft in agent.data_dir. Without it, the\n"
         "one that the configuration names. Nothing is changed.\n"
         "The exit code is 1 if something is wrong or an agent uses it, 3 if there is no store.\n",
     .flags = FLAGS({.name = "--config", .letter = 'c', .value = "FILE", .help = "configuration file (YAML)"},
                    SET_FLAG),
     .args_max = 1,
     .run = cmd_store_check},
    {.name = "store copy",
     .group = SETTINGS,
     .usage = "--from STORE --to STORE [--verify]",
     .help = "Move everything from one store to another: carillon store copy --from raft:DIR --to mysql://…",
     .more =
         "STORE is raft:DIR or mysql://[USER@]HOST[:PORT]/DATABASE[?password_file=FILE&tls_mode=verify&…]; behind the ?\n"
         "stand options as store.mysql.tls_mode, without their section. DIR is the folder of a log, as ./carillon-data/raft.\n"
         "All agents of both must be stopped; the target must be empty, or what an earlier copy left that was interrupted.\n"
         "No agent uses the target before all is there and, with --verify, was compared.\n",
     .flags = FLAGS({.name = "--from", .value = "STORE", .help = "what to copy; it is not changed"},
                    {.name = "--to", .value = "STORE", .help = "where to"},
                    {.name = "--verify", .help = "then read both and compare every record"}),
     .run = cmd_store_copy},
    {.name = "config check",
     .group = SETTINGS,
     .usage = "[FILE] [--set KEY=VALUE]…",
     .help = "Report everything that is wrong with a configuration.",
     .more =
         "Reads FILE, environment and --set as `carillon agent` does. With --json: all effective values, or {\"errors\": […]}.\n",
     .flags = FLAGS(SET_FLAG),
     .args_max = 1,
     .run = cmd_config_check},
    {.name = "config options",
     .group = SETTINGS,
     .usage = "[PREFIX]",
     .help = "List every option with its default, what is allowed and what it means.",
     .args_max = 1,
     .run = cmd_config_options},
    {.name = "config sample",
     .group = SETTINGS,
     .usage = "",
     .help = "Print a configuration file with every option at its default.",
     .no_json = true,
     .run = cmd_config_sample},
    {.name = "version", .group = SETTINGS, .usage = "", .help = "Print the version.", .run = cmd_version},
    {0},
};

const struct cli_command *cli_commands(void)
{
    return commands;
}

const struct cli_flag *cli_remote_flags(void)
{
    static const struct cli_flag flags[] = {
        {.name = "--addr",
         .value = "ADDR",
         .help = "host:port, http(s)://host:port or unix:/path (CARILLON_ADDR)"},
        {.name = "--ns", .value = "NAME", .help = "namespace (CARILLON_NAMESPACE; default default)"},
        {.name = "--token-file",
         .value = "FILE",
         .help = "file with a token (CARILLON_TOKEN_FILE, CARILLON_TOKEN)"},
        {0},
    };
    return flags;
}

const struct cli_flag *cli_common_flags(const struct cli_command *c)
{
    static const struct cli_flag flags[] = {
        {.name = "--json", .help = "print JSON for programs"},
        {.name = "--help", .letter = 'h', .help = "print this help"},
        {0},
    };
    return c->no_json ? &flags[1] : flags;
}
