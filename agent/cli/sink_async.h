/* Completions of the fires that `carillon sink --async` took with a 202: each is told to the agent, by the key that came with its
 * callback, after a while, and again while no agent can take it; before it as many heartbeats as asked for, unless the agent does not
 * wait any more. Loop thread only. */
#ifndef CARILLON_AGENT_CLI_SINK_ASYNC_H
#define CARILLON_AGENT_CLI_SINK_ASYNC_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/cli/args.h"

struct err;
struct loop;
struct sink_async;

struct sink_async_options {
    uint64_t after_ms;   /* from a callback, or a heartbeat, to the next of both */
    uint64_t heartbeats; /* before each completion */
    int64_t again_ms;    /* until an agent that could not take one is asked again */
};
/* The agent that --addr or CARILLON_ADDR names gets those whose Carillon-Complete is a path. CLI and LOOP are borrowed. ERR_INVALID: no
 * address; ERR_NOMEM, ERR_BAD_STATE. */
int sink_async_new(const struct cli *cli, const struct cli_args *args, struct loop *loop,
                   const struct sink_async_options *o, struct sink_async **ret, struct err *e);
/* What waits or is under way is told no more. NULL does nothing. */
void sink_async_free(struct sink_async *a);
/* Whether COMPLETE, the value of Carillon-Complete, can be told and there is room for it. */
bool sink_async_can(const struct sink_async *a, const char *complete);
/* Complete FIRE as OK says. Both texts are copied. */
void sink_async_take(struct sink_async *a, const char *complete, const char *fire, bool ok);

#endif
