/* The functions behind the table of commands. Each prints its result and its errors and returns the exit code. */
#ifndef CARILLON_AGENT_CLI_COMMANDS_H
#define CARILLON_AGENT_CLI_COMMANDS_H

#include "agent/cli/args.h"

int cmd_agent(struct cli *cli, const struct cli_args *args);
int cmd_drain(struct cli *cli, const struct cli_args *args);
int cmd_sink(struct cli *cli, const struct cli_args *args);
int cmd_bench(struct cli *cli, const struct cli_args *args);
int cmd_injector(struct cli *cli, const struct cli_args *args);

int cmd_job_apply(struct cli *cli, const struct cli_args *args);
int cmd_job_get(struct cli *cli, const struct cli_args *args);
int cmd_job_list(struct cli *cli, const struct cli_args *args);
int cmd_job_delete(struct cli *cli, const struct cli_args *args);
int cmd_job_pause(struct cli *cli, const struct cli_args *args);
int cmd_job_resume(struct cli *cli, const struct cli_args *args);
int cmd_job_run(struct cli *cli, const struct cli_args *args);
int cmd_job_next(struct cli *cli, const struct cli_args *args);
int cmd_job_explain(struct cli *cli, const struct cli_args *args);
int cmd_job_revisions(struct cli *cli, const struct cli_args *args);
int cmd_job_backfill(struct cli *cli, const struct cli_args *args);
int cmd_job_import(struct cli *cli, const struct cli_args *args);
int cmd_job_export(struct cli *cli, const struct cli_args *args);
int cmd_in(struct cli *cli, const struct cli_args *args);
int cmd_next(struct cli *cli, const struct cli_args *args);

int cmd_fire_list(struct cli *cli, const struct cli_args *args);
int cmd_fire_get(struct cli *cli, const struct cli_args *args);
int cmd_fire_retry(struct cli *cli, const struct cli_args *args);
int cmd_fire_cancel(struct cli *cli, const struct cli_args *args);
int cmd_deadletter_list(struct cli *cli, const struct cli_args *args);
int cmd_deadletter_redrive(struct cli *cli, const struct cli_args *args);
int cmd_deadletter_discard(struct cli *cli, const struct cli_args *args);

int cmd_forecast(struct cli *cli, const struct cli_args *args);
int cmd_audit(struct cli *cli, const struct cli_args *args);
int cmd_tail(struct cli *cli, const struct cli_args *args);
int cmd_cluster_status(struct cli *cli, const struct cli_args *args);
int cmd_cluster_owner(struct cli *cli, const struct cli_args *args);
int cmd_service_get(struct cli *cli, const struct cli_args *args);

int cmd_store_check(struct cli *cli, const struct cli_args *args);
int cmd_store_copy(struct cli *cli, const struct cli_args *args);

int cmd_config_check(struct cli *cli, const struct cli_args *args);
int cmd_config_options(struct cli *cli, const struct cli_args *args);
int cmd_config_sample(struct cli *cli, const struct cli_args *args);
int cmd_version(struct cli *cli, const struct cli_args *args);

#endif
