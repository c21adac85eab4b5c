/* `carillon agent` with each of its steps failing: an agent runs with all that it was told, or none does. */
#include "tests/unit/cli/run.h"

#include "agent/agent.h"

static char started[200];

static int note_agent(const struct agent_start *start, struct err *e)
{
    (void)e;
    (void)snprintf(started, sizeof(started), "%s %s %zu", start->config->agent.name,
                   start->config->store.raft.dir, start->sets_count);
    config_free(start->config);
    return 0;
}

static struct run run_agent(void *arg, long k)
{
    (void)arg;
    started[0] = '\0';
    return run_words((struct cli){.agent_run = note_agent},
                     (const char *const[]){"carillon", "agent", "--set", "agent.name=a1", "--set",
                                           "store.raft.dir=/d", NULL},
                     k);
}

static void look_at_agent(void *arg, const struct run *r)
{
    (void)arg;
    cr_assert(eq(str, started, r->code == CLI_OK ? "a1 /d 2" : ""), "%s", r->err);
}

Test(cmd_agent, an_agent_is_told_all_or_does_not_run, .timeout = 300)
{
    run_each(run_agent, look_at_agent, NULL, "agent");
}
