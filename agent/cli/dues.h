/* A list of dues in the shape of the API's "next", printed as a table or as JSON. */
#ifndef CARILLON_AGENT_CLI_DUES_H
#define CARILLON_AGENT_CLI_DUES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/cli/cli.h"

struct dues {
    json_t *doc; /* {"job","timezone","next":[{"due","local","note"}…]} */
};

/* JOB may be NULL. */
void dues_init(struct dues *d, const char *job, const char *timezone);
void dues_fini(struct dues *d);
static inline void dues_fini_auto_(struct dues *d)
{
    dues_fini(d);
}
/* NOTE may be NULL. */
void dues_add(struct dues *d, int64_t due_ms, const char *local, const char *note);
/* What was gathered. */
void dues_print(const struct dues *d, const struct cli *cli, bool json);
/* DOC of the same shape, as an agent answers it. */
void dues_print_document(const struct cli *cli, const json_t *doc);

#endif
