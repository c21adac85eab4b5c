/* Lists that an agent gives page after page: read to their end, or to the limit that the flag --limit sets. */
#ifndef CARILLON_AGENT_CLI_PAGES_H
#define CARILLON_AGENT_CLI_PAGES_H

#include <jansson.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/cli/args.h"

struct pages {
    const char *list;  /* member of the answer that holds the list; borrowed */
    const char *next;  /* ... and the one that tells where to go on; borrowed */
    json_t *items;     /* of all pages so far */
    json_t *page;      /* the last one; NULL: none yet */
    const char *go_on; /* borrowed from it; NULL: that was all */
    uint64_t limit;    /* 0: all */
};

/* Append the path of the next page to OUT; its query ends with pages_add_limit(). */
typedef void pages_path(struct buf *out, const struct cli_args *args, const struct pages *p);
/* What was read, for people. */
typedef void pages_print(const struct cli *cli, const struct pages *p);

/* The list LIST of an agent's answers, whose member NEXT tells where the next page begins: read it and print it, by PRINT or with
 * --json as the agent prints a page, with all items. Returns the exit code; what went wrong has been printed. */
int pages_list(struct cli *cli, const struct cli_args *args, const char *list, const char *next,
               pages_path *path, pages_print *print);

/* How much is wanted of the next page, as "&limit=". */
void pages_add_limit(struct buf *out, const struct pages *p);
/* That there is more than was printed, if so. */
void pages_hint_more(const struct cli *cli, const struct pages *p);

#endif
