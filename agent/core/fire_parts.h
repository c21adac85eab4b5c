/* What a fire with `callback.to` of `all` or `shards` has to do at each endpoint: the list as it was frozen when the fire was
 * booked, in an order that depends on nothing but the addresses, and how each part stands. Kept with the fire's row as the JSON
 * that answers show. Pure; one thread at a time. Source: design "Callbacks", `callback.to`. */
#ifndef CARILLON_CORE_FIRE_PARTS_H
#define CARILLON_CORE_FIRE_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "agent/base/mem.h"

struct buf;
struct err;

#define FIRE_PARTS_MAX            256
#define FIRE_PARTS_ENDPOINT_BYTES 300 /* of an address, with its NUL */
#define FIRE_PARTS_TEXT_MAX       (FIRE_PARTS_MAX * (size_t)(6 * FIRE_PARTS_ENDPOINT_BYTES + 96))

enum fire_part_state {
    FIRE_PART_PENDING,   /* not acknowledged yet */
    FIRE_PART_SUCCEEDED, /* its endpoint acknowledged it */
    FIRE_PART_DEAD,      /* given up */
    FIRE_PART_GONE,      /* `all`: its endpoint left the service before it could be reached */
    FIRE_PART_CANCELLED, /* the fire ended before it */
    FIRE_PART_STATE_COUNT_
};

struct fire_part {
    const char *endpoint; /* when the list was frozen; a shard whose endpoint left goes to another one */
    enum fire_part_state state;
    int status;        /* of the last attempt, -1: none came */
    uint32_t attempts; /* made so far */
};

struct fire_parts { /* one block */
    size_t count;
    struct fire_part items[];
};

/* One pending part for each of ENDPOINTS, sorted, doubles left out. ERR_TOO_BIG: more than FIRE_PARTS_MAX, or an address of
 * FIRE_PARTS_ENDPOINT_BYTES and more. ERR_INVALID: none. ERR_NOMEM. */
int fire_parts_new(const char *const *endpoints, size_t count, struct fire_parts **ret, struct err *e);
/* What fire_parts_print() made; TEXT may be anything: ERR_INVALID when it is not that. ERR_NOMEM. */
int fire_parts_parse(const char *text, size_t len, struct fire_parts **ret, struct err *e);
void fire_parts_free(struct fire_parts *parts); /* NULL does nothing */
DEFINE_AUTO(fire_parts_free, struct fire_parts *);

/* [{"part":1,"endpoint":"10.0.0.7:8080","outcome":"pending","status":503,"attempts":2}…] appended to OUT. Fails as appends do. */
void fire_parts_print(const struct fire_parts *parts, struct buf *out);

size_t fire_parts_count(const struct fire_parts *parts, enum fire_part_state state);
/* Whatever is pending becomes STATE. */
void fire_parts_close(struct fire_parts *parts, enum fire_part_state state);

#endif
