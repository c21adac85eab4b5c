/* News of this agent for whoever listens now: fires and attempts, changes of jobs, what happens to the cluster. Nothing is kept:
 * who does not listen, or cannot take an event at once, has missed it. Loop thread only. */
#ifndef CARILLON_AGENT_EVENTS_H
#define CARILLON_AGENT_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/buf.h"
#include "agent/base/list.h"

struct events;

enum event_kind {
    EVENT_FIRE,    /* a fire ended */
    EVENT_ATTEMPT, /* an attempt was made that is not the end of its fire */
    EVENT_JOB,     /* a job was changed by the API */
    EVENT_CLUSTER,
    EVENT_KIND_COUNT_
};

/* "fire" …: the name of the event on the wire. */
const char *event_kind_name(enum event_kind kind);

/* Embedded in what listens. TAKE gets each event whole, "event: …\ndata: {…}\n\n", and must not block; NS is NULL when it
 * concerns no namespace. It may leave by itself, but not make others leave. */
struct events_listener {
    struct list link;
    void (*take)(struct events_listener *l, const char *ns, const char *text, size_t len);
};

struct events *events_new(void);
void events_free(struct events *v); /* nobody may listen any more; NULL does nothing */
void events_join(struct events *v, struct events_listener *l);
void events_leave(struct events_listener *l); /* nothing if it does not listen */

/* Whether an event is worth making. V NULL: never. */
bool events_wanted(const struct events *v);
/* Tell all. JSON: one object on one line; one that failed for want of memory is not told. */
void events_tell(struct events *v, enum event_kind kind, const char *ns, const struct buf *json);

/* Cuts what came of another's stream back into its events. All zero but for the ceiling of an event: {.text = BUF_INIT(n)}. */
struct events_splitter {
    struct buf text; /* of the event that has begun; its owner's to buf_fini */
    bool in_line;
    uint64_t lost; /* events that were over the ceiling, or found no memory */
};

/* Take the next BYTES; TAKE gets each event that they end, as events_listener's does. Comments are left out. */
void events_split(struct events_splitter *s, const char *data, size_t bytes,
                  void (*take)(void *arg, const char *text, size_t len), void *arg);

#endif
