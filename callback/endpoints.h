/* Where the instances of services are: the last good list of each watched (service, datacenter). Whoever knows them (a watch of
 * Consul, the configuration) hands lists in; the dispatcher takes them out and says which services it needs. A service that
 * nobody needed for a while is given up. Knows no Consul and no I/O but the loop's timer. Loop thread only. */
#ifndef CARILLON_CALLBACK_ENDPOINTS_H
#define CARILLON_CALLBACK_ENDPOINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/base/err.h"
#include "agent/base/mem.h"

struct loop;
struct endpoints;
struct endpoints_service;

#define ENDPOINTS_SERVICES_MAX  4096
#define ENDPOINTS_INSTANCES_MAX 10000 /* of a service; the rest of a longer list is left out */
#define ENDPOINTS_ADDRESS_SIZE  300   /* "host:port", with NUL */
#define ENDPOINTS_IDLE_MS       300000

struct endpoints_options {
    struct loop *loop;
    const char *node, *zone; /* where this agent is, for ranks; copied; NULL: not known (yet) */
    int64_t idle_ms;         /* 0: ENDPOINTS_IDLE_MS */
    uint64_t seed;           /* random per process: names come from outside */
    /* Somebody needs SERVICE in DATACENTER ("" for the agent's own): watch it and call endpoints_update() for each good answer,
     * not before return. Called once until UNWANT, which says that nobody does any more. WANT NULL: nobody watches
     * (standalone); only static services have instances then, and the datacenter plays no part. */
    void (*want)(void *arg, const char *service, const char *datacenter);
    void (*unwant)(void *arg, const char *service, const char *datacenter);
    void *arg;
};

struct endpoints *endpoints_new(const struct endpoints_options *options);
/* Nobody may use a service any more. Does not call UNWANT. */
void endpoints_free(struct endpoints *t);
DEFINE_AUTO(endpoints_free, struct endpoints *);

struct endpoints_instance {
    const char *host; /* name, IPv4 or IPv6 without brackets */
    uint16_t port;
    uint32_t weight;
    const char *const *tags; /* NULL-terminated; NULL: none */
    const char *node, *zone; /* NULL: not known */
};

/* A good answer: SERVICE's healthy instances in DATACENTER are now these (copied). Those without a usable address are left out.
 * A service that is not wanted (any more) is ignored. Listeners run before return. ERR_NOMEM: the old list stays. */
int endpoints_update(struct endpoints *t, const char *service, const char *datacenter,
                     const struct endpoints_instance *list, size_t count, struct err *e);
/* Standalone (no WANT): the configuration lists SERVICE's instances, which are kept until its list is set empty. Errors as above
 * and ERR_BUSY: too many services. */
int endpoints_set_static(struct endpoints *t, const char *service, const struct endpoints_instance *list,
                         size_t count, struct err *e);

/* This agent's node is NODE: the ranks of all that is listed are told anew. */
void endpoints_set_node(struct endpoints *t, const char *node);

enum endpoints_state {
    ENDPOINTS_UNHEARD, /* not watched, or nothing was heard yet */
    ENDPOINTS_NONE,    /* known to have no healthy instance */
    ENDPOINTS_SOME,
};
/* Without making it wanted. DATACENTER may be NULL. */
enum endpoints_state endpoints_state(const struct endpoints *t, const char *service, const char *datacenter);

/* --- for those who use a service ----------------------------------------------------------------------------------- */

/* The service, wanted from now until released as often as used. NULL: too many services are in use. */
struct endpoints_service *endpoints_use(struct endpoints *t, const char *service, const char *datacenter);
void endpoints_release(struct endpoints_service *s);
/* It is still of use: idle time counts from here. */
void endpoints_touch(struct endpoints_service *s);
const char *endpoints_name(const struct endpoints_service *s);
const char *endpoints_datacenter(const struct endpoints_service *s); /* "": the agent's own */
bool endpoints_heard(const struct endpoints_service *s);

struct endpoints_view {
    const char *address; /* "host:port", "[v6]:port"; valid until the next update of the service */
    uint32_t weight;
    uint8_t rank; /* 0 same node, 1 same zone, 2 the rest */
};
/* for (size_t at = 0; endpoints_next(s, tags, n, &at, &view);): each instance that has all TAGS, in the list's order. */
bool endpoints_next(const struct endpoints_service *s, const char *const *tags, size_t tags_count, size_t *at,
                    struct endpoints_view *ret);

/* CHANGED runs inside endpoints_update() and endpoints_set_static() when a list was taken over. At most one listener; NULL takes
 * it away. It may use and release services. */
void endpoints_listen(struct endpoints *t, void (*changed)(void *arg, struct endpoints_service *s),
                      void *arg);

/* Services kept, for metrics. */
size_t endpoints_count(const struct endpoints *t);

#endif
