/* How many jobs there may be: over all, and of a namespace. Each member keeps a count of those that are limited: what the store said last,
 * and what this member has made and deleted since. The store is asked again while somebody makes jobs, seldom; so what several members make at once may exceed a limit by what they make in between. Loop thread only. */
#ifndef CARILLON_AGENT_QUOTA_H
#define CARILLON_AGENT_QUOTA_H

#include <stddef.h>
#include <stdint.h>

#include "agent/store/store.h"

struct config;
struct err;
struct loop;
struct quotas;

#define QUOTA_WHY_SIZE    160
#define QUOTA_COUNT_MS    2000 /* between two counts of the same */
#define QUOTA_ENTRIES_MAX 4096 /* namespaces counted; those behind the last are not limited by "*" */

struct quotas *quotas_new(struct loop *loop, const struct config *config);
/* Once the store is open. */
void quotas_set_store(struct quotas *q, const struct store_ops *store, void *self);
/* CONFIG's limits from now on. */
void quotas_reload(struct quotas *q, const struct config *config);
/* Before the store is closed: nothing more is asked. NULL does nothing, here and below. */
void quotas_stop(struct quotas *q);
/* After the store has been closed, as it answers what it was asked. */
void quotas_free(struct quotas *q);

/* Why one more job of NS may not be made; "": it may. */
void quotas_ask(struct quotas *q, const char *ns, char ret_why[QUOTA_WHY_SIZE]);
/* A job of NS was made (1) or deleted (-1) here. */
void quotas_note(struct quotas *q, const char *ns, int change);

/* "NAMESPACE=N" or "*=N", as an item of schedule.max_jobs_of. ERR_INVALID. */
int quota_check_item(const char *text, struct err *e);

#endif
