/* A whole agent: opens what the configuration names in the order of design "An agent's life", runs the loop until it is told
 * to end, and closes everything in the reverse order. Main thread; once per process. */
#ifndef CARILLON_AGENT_AGENT_H
#define CARILLON_AGENT_AGENT_H

#include <stddef.h>

#include "agent/base/err.h"
#include "agent/config.h"

/* Where the configuration came from, so that a reload reads it again, and what it said at the start. */
struct agent_start {
    const char *config_file; /* NULL: none was given */
    const char *const *sets; /* --set, in their order */
    size_t sets_count;
    struct config *config; /* loaded and checked; the agent's from now on, freed by agent_run() */
};

/* Run until SIGTERM or SIGINT asks for the end and everything in flight has been given away. START is borrowed. 0 after a
 * planned end, also of one that had not joined yet. Failure is a start that did not work, or a state in which going on would be
 * wrong: E says which, for people, its text empty if the log has said it; nothing runs any more then. Does not return when work is in flight that cannot be waited for
 * (told twice to end): then the process ends here, as the status says. Logs on stderr. */
int agent_run(const struct agent_start *start, struct err *e);

#endif
