/* Memory for very many small things: sizes eight bytes apart and nothing around each, where malloc rounds up to sixteen and
 * puts eight before it, a sixth of what a stored job takes. Pages that are empty are given back. Not zeroed; aborts without memory,
 * as mem_new does. Any thread. */
#ifndef CARILLON_STORE_RAFT_SLAB_H
#define CARILLON_STORE_RAFT_SLAB_H

#include <stdbool.h>
#include <stddef.h>

/* What is larger comes from malloc. */
#define SLAB_MAX_BYTES ((size_t)512)

struct slab;

struct slab *slab_new(void);
/* S goes when the last that came from it does: things may outlive it. */
void slab_free(struct slab *s);

void *slab_get(struct slab *s, size_t bytes);
/* BYTES: as they were asked for. NULL does nothing. */
void slab_put(void *p, size_t bytes);
/* Whether what was asked for as HAD bytes holds BYTES, and would not be smaller if they were asked for. */
bool slab_fits(size_t had, size_t bytes);

/* For tests. */
size_t slab_pages(struct slab *s);

#endif
